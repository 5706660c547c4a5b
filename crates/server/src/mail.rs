//! What the relay holds for a device until that device acknowledges it (docs/protocol.md §5.2).
//!
//! ```text
//!  append ──► index and recent mail, in memory ──► read, mostly at once ──► acknowledge ──► forgotten
//!    │                                      └──► sweep: too old, or mailbox removed ──► a notice in the sender's mailbox
//!    └──► queue ──► writer: one write and one sync for all that is queued ──► accepted
//! ```
//!
//! * Nothing that runs while a device waits touches the disk, except reading mail that has left memory. The calls take one short lock.
//! * A posting is *accepted* once each part is durable or acknowledged by its recipient, whichever is first, and what is told of devices that were left
//!   out is durable. If a write or a sync fails, everything that is not durable is unknown for good, and the log takes nothing more until it is opened
//!   again.
//! * What one device sends is known by its sequence: a repetition adds nothing, however late. A posting that skips one, and what its device sends after it, is
//!   not read before it is durable: what was skipped was refused, and must not be taken behind it.
//! * A position is never given twice: its upper 24 bits are the number of the relay's start, which is durable before the first one is given.
//! * A record that the disk has changed is never served, and costs only itself; one that it does not give costs what lies behind it some time.
//!
//! Who may write to whom, and which devices a message has to be for, is decided before, by the link. The log's form is described in `record`, `segment`,
//! `checkpoint` and `synced`.
mod accepted;
mod checkpoint;

mod core;
pub mod disk;
mod index;
mod maintenance;
mod quota;
mod reading;
mod recent;
mod record;
mod recovery;
mod scan;
mod segment;
#[cfg(unix)]
mod snapshot;
mod sweep;
mod synced;
mod taking;
mod unreadable;
mod users;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;

use crate::storage::StorageError;
use core::Shared;
use disk::{Disk, MemoryDisk};
use writer::Writer;

pub use accepted::{Accepted, Appended, SequenceState};
pub use quota::{MIN_SENDER_BYTES, MIN_SENDER_MESSAGES, MailboxLimits, OWN_SHARE, SENDER_SHARE};
pub use recovery::{MailOpenError, Opened};

#[cfg(unix)]
pub(crate) use snapshot::{MailSnapshot, begin_history};

/// The format this code writes; a log of a higher number is refused.
pub const FORMAT_VERSION: u32 = 1;

/// How a log is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MailOptions {
    /// Bytes of a segment, set aside on the disk when it is begun; at least 4 MiB, so that the largest posting fits.
    pub segment_bytes: u32,
    /// Bytes of the newest mail kept in memory when it is durable.
    pub recent_bytes: usize,
    /// Bytes of records that may wait for the disk.
    pub queue_bytes: usize,
    /// Bytes written to the log after which a checkpoint is made, so that opening need not read more than about twice that.
    pub checkpoint_bytes: u64,
    /// A log of at most so many bytes is read whole, and verified, when it is opened.
    pub verify_bytes: u64,
    /// What a new log is told apart by; random if it is not given.
    pub identity: Option<[u8; 32]>,
}

impl Default for MailOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            recent_bytes: 8 << 20,
            queue_bytes: 16 << 20,
            checkpoint_bytes: 64 << 20,
            verify_bytes: 256 << 20,
            identity: None,
        }
    }
}

/// The mailboxes of every device. Clones share them; when the last one is dropped, what is queued is written and the log is closed.
#[derive(Clone)]
pub struct Mailboxes {
    inner: Arc<Inner>,
}

impl fmt::Debug for Mailboxes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailboxes")
            .field("opened", &self.inner.opened)
            .finish_non_exhaustive()
    }
}

struct Inner {
    shared: Arc<Shared>,
    driver: Driver,
    opened: Opened,
}

/// Who writes.
enum Driver {
    Thread(Option<JoinHandle<()>>),
    /// Whoever calls [`Mailboxes::flush`].
    #[cfg_attr(
        not(any(test, feature = "simulation")),
        expect(dead_code, reason = "made for the simulation only")
    )]
    Stepped(Mutex<Writer>),
    /// Each call that has something to write: there is no disk to wait for.
    Inline(Mutex<Writer>),
}

/// A message to a user's devices, and to the sender's own others.
#[derive(Debug)]
pub struct Posting<'a> {
    /// The user who sends.
    pub from_user: &'a User,
    /// The device that sends.
    pub from_device: Thumbprint,
    /// What the device counted this Send as, from 1 (docs/protocol.md §5.1); 0 for a posting that is not one of a link: it is told from no other, and changes
    /// nothing of what is known of the device's Sends.
    pub sequence: u64,
    /// The id of the message.
    pub id: [u8; 16],
    /// The user it is for.
    pub to_user: &'a User,
    /// For each recipient device its sealed message: 1 to 16.
    pub parts: Vec<(Thumbprint, Bytes)>,
    /// For each of the sender's own other devices its sealed message: 0 to 15. All devices are distinct, and none of them is the one that sends.
    pub copies: Vec<(Thumbprint, Bytes)>,
}

/// What a mailbox has to deliver, in the order of positions.
#[derive(Debug, Default)]
pub struct Batch {
    /// It.
    pub deliveries: Vec<Delivery>,
    /// The last position looked at: where to go on reading. Equal to the `after` of the call if there was nothing.
    pub last: u64,
}

/// What lies at one position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A message.
    Mail(Mail),
    /// A message of this device's that will not be delivered.
    Undelivered(Undelivered),
    /// There was something, and the disk has changed it, or does not give it however often it is asked. It is not served; the operator has been told in
    /// the log.
    Damaged {
        /// The position.
        position: u64,
    },
}

impl Delivery {
    /// Its position.
    #[must_use]
    pub fn position(&self) -> u64 {
        match self {
            Self::Mail(mail) => mail.position,
            Self::Undelivered(undelivered) => undelivered.position,
            Self::Damaged { position } => *position,
        }
    }
}

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its position, from 1.
    pub position: u64,
    /// The id of the message.
    pub id: [u8; 16],
    /// The user who sent it.
    pub from_user: Arc<User>,
    /// The device that sent it.
    pub from_device: Thumbprint,
    /// When the relay accepted it, in milliseconds since 1970.
    pub time_millis: u64,
    /// The sealed message.
    pub message: Bytes,
}

/// A notice in the mailbox of a sender (docs/protocol.md §5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undelivered {
    /// Its position, from 1.
    pub position: u64,
    /// The id of the message.
    pub id: [u8; 16],
    /// The user whom it was for.
    pub user: Arc<User>,
    /// The device that does not get it.
    pub device: Thumbprint,
    /// Why.
    pub reason: UndeliveredReason,
}

/// Why a message will not be delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UndeliveredReason {
    /// Nobody fetched it in time.
    Expired,
    /// Its device was removed.
    DeviceRemoved,
    /// The mailbox of its device, which is of the sender's own user, had no room for it.
    MailboxFull,
}

impl UndeliveredReason {
    /// As on the wire (docs/protocol.md §5.2).
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::DeviceRemoved => 2,
            Self::MailboxFull => 3,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Expired),
            2 => Some(Self::DeviceRemoved),
            3 => Some(Self::MailboxFull),
            _ => None,
        }
    }
}

/// What Ready says about a mailbox, and how full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxStatus {
    /// The history that the positions belong to.
    pub epoch: [u8; 16],
    /// Everything up to this position has been acknowledged.
    pub acknowledged: u64,
    /// The last position given; what this start of the relay begins after, if it has given none.
    pub head: u64,
    /// Messages held.
    pub held_messages: u64,
    /// Bytes of sealed messages held.
    pub held_bytes: u64,
    /// Messages and notices that wait.
    pub waiting: u64,
}

/// A mailbox, for the operator.
#[cfg(unix)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overview {
    pub(crate) device: Thumbprint,
    /// Messages and notices held.
    pub(crate) waiting: u64,
    pub(crate) messages: u64,
    /// Bytes of the messages.
    pub(crate) bytes: u64,
    /// When the first of what is held is given up.
    pub(crate) expires_millis: Option<u64>,
    pub(crate) sent: u64,
}

/// What a sweep or a removal did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Swept {
    /// Messages that will not be delivered.
    pub undelivered: usize,
    /// Notices that were too old.
    pub notices: usize,
    /// Devices whose mailbox has a new notice, each once.
    pub ring: Vec<Thumbprint>,
    /// Whether there is more to do now. What has to wait for the disk is not: a later sweep does it.
    pub more: bool,
    /// Whether there is more to do once the queue has room ([`Mailboxes::room`]).
    pub waits: bool,
}

/// Why a posting was not accepted. Nothing of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// A recipient's mailbox is full. A device of the sender's own user is the recipient only where the message is for that user and for no device with room.
    #[error("the mailbox of {device} is full; it has to fetch its messages first")]
    Full {
        /// The recipient device.
        device: Thumbprint,
    },
    /// The sending user's share of a recipient's mailbox is used up ([`SENDER_SHARE`], [`OWN_SHARE`]). Whose it is, as above.
    #[error(
        "the sender's share of the mailbox of {device} is used up; it has to fetch its messages first"
    )]
    Quota {
        /// The recipient device.
        device: Thumbprint,
    },
    /// The sequence is 64 or more below the highest of the device (docs/protocol.md §5.1).
    #[error("the sequence is 64 or more below the device's highest")]
    Stale,
    /// A later posting of the device was accepted since this one was refused (docs/protocol.md §5.2).
    #[error("it was refused before, and a later one was accepted since")]
    Overtaken,
    /// No parts, too many, the same device twice or the one that sends, or a message without bytes or over the protocol's limit. The link checks these
    /// before.
    #[error("a posting has 1 to 31 parts for distinct other devices, each of 1 to 98,304 bytes")]
    Parts,
    /// Too much waits for the disk; [`Mailboxes::room`] waits until that is better.
    #[error("too much waits for the disk; try again at once when there is room")]
    Busy,
    /// The disk is full, or the system has no descriptor or memory left. Later it may work.
    #[error("the disk is full; make room on it")]
    DiskFull,
    /// The log does not work.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Mailboxes {
    /// Opens the log on `disk`, or begins one there, with a thread that writes. Recovery reads at most what was written since the checkpoint before the
    /// last; what it found is in [`Mailboxes::opened`].
    ///
    /// # Errors
    /// [`MailOpenError`].
    pub fn open(disk: Arc<dyn Disk>, options: &MailOptions) -> Result<Self, MailOpenError> {
        let (shared, mut writer, opened) = recovery::open(disk, options)?;
        let thread = std::thread::Builder::new()
            .name("sealwire-mail".into())
            .spawn(move || writer.run())
            .map_err(MailOpenError::Disk)?;
        Ok(Self::with(shared, Driver::Thread(Some(thread)), opened))
    }

    /// Mailboxes that end with the process, for tests and for a relay that need not remember.
    ///
    /// # Errors
    /// [`MailOpenError::Randomness`].
    pub fn in_memory() -> Result<Self, MailOpenError> {
        let options = MailOptions::default();
        let (shared, writer, opened) = recovery::open(Arc::new(MemoryDisk::new()), &options)?;
        Ok(Self::with(
            shared,
            Driver::Inline(Mutex::new(writer)),
            opened,
        ))
    }

    /// Opens a log without a thread: nothing is written but by [`Mailboxes::flush`], and dropping it is a crash.
    ///
    /// # Errors
    /// [`MailOpenError`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn open_stepped(disk: Arc<dyn Disk>, options: &MailOptions) -> Result<Self, MailOpenError> {
        let (shared, writer, opened) = recovery::open(disk, options)?;
        Ok(Self::with(
            shared,
            Driver::Stepped(Mutex::new(writer)),
            opened,
        ))
    }

    fn with(shared: Arc<Shared>, driver: Driver, opened: Opened) -> Self {
        Self {
            inner: Arc::new(Inner {
                shared,
                driver,
                opened,
            }),
        }
    }

    /// Writes and syncs what is queued and then does one step of what keeps the log small. Says whether there is more to do.
    #[cfg(any(test, feature = "simulation"))]
    pub fn flush(&self) -> bool {
        match &self.inner.driver {
            Driver::Thread(_) => false,
            Driver::Stepped(writer) | Driver::Inline(writer) => lock(writer).step(),
        }
    }

    /// Closes a log without a thread, as dropping one with a thread does. It takes nothing more.
    #[cfg(any(test, feature = "simulation"))]
    pub fn close(&self) {
        match &self.inner.driver {
            Driver::Thread(_) => {}
            Driver::Stepped(writer) | Driver::Inline(writer) => lock(writer).close(),
        }
    }

    /// What was found when the log was opened.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.inner.opened
    }

    /// The random name of this log's history, made with the log: `epoch` in Ready (docs/protocol.md §5.2).
    #[must_use]
    pub fn epoch(&self) -> [u8; 16] {
        self.inner.shared.epoch
    }

    /// Whether writes are still accepted: false for good once one has failed. For health checks.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.inner.shared.lock().is_writable()
    }

    /// Takes a posting: every part, or none of them. Only devices of the sender's own user may be left out, where their mailboxes have no room for more of
    /// its messages and something is left: then the sender's mailbox has a notice. It has its places at once and can be read at once, but for
    /// such notices and where it [is held](Appended::is_held): then when it is safe; [`Appended::accepted`] says when that is.
    /// `limits` is what the relay allows; where a device's own ([`Mailboxes::limit`]) are lower, they win. `now_millis` is milliseconds since
    /// 1970. A posting whose sequence was accepted before is a repetition: it adds nothing, whatever it says.
    ///
    /// # Errors
    /// [`PostError`]; nothing is stored then.
    pub fn append(
        &self,
        posting: Posting<'_>,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Appended, PostError> {
        let appended = self.inner.shared.append(posting, limits, now_millis);
        self.after_change();
        appended
    }

    /// What is known of a sequence of `device` (docs/protocol.md §5.2). What is new now may have been taken when [`Mailboxes::append`] looks again.
    #[must_use]
    pub fn sequence(&self, device: &Thumbprint, sequence: u64) -> SequenceState {
        self.inner.shared.sequence(device, sequence)
    }

    /// Waits until there is room in the queue, or the log has failed.
    pub async fn room(&self) {
        self.inner.shared.room().await;
    }

    /// Drops everything of `device` up to `position` and returns what is acknowledged now. A position beyond the head counts
    /// as the head, so that it cannot drop what comes later; one below what is acknowledged changes nothing. After a crash the log may not know of the last
    /// acknowledgements; what it drops then is delivered again.
    pub fn acknowledge(&self, device: &Thumbprint, position: u64) -> u64 {
        let acknowledged = self.inner.shared.acknowledge(device, position);
        self.after_change();
        acknowledged
    }

    /// Remembers how much the mailbox of `device` may hold by its own token, for messages that come while it is away.
    pub fn limit(&self, device: &Thumbprint, limits: MailboxLimits) {
        self.inner.shared.limit(device, limits);
        self.after_change();
    }

    /// What Ready says about the mailbox of `device`, and how full it is. One that was never written to is empty.
    #[must_use]
    pub fn status(&self, device: &Thumbprint) -> MailboxStatus {
        self.inner.shared.status(device)
    }

    /// The highest sequence of `device` that was accepted; 0 for none (docs/protocol.md §5.2).
    #[must_use]
    pub fn sent(&self, device: &Thumbprint) -> u64 {
        self.inner.shared.sent(device)
    }

    /// What `device` is to get after position `after`: at most `max_messages`, and no further message once `max_bytes` of them are
    /// exceeded; at least one if there is any. Mail that is not in memory any more is read from the disk, on the caller's thread. The batch ends before what
    /// the disk does not give, also when asked again. `now_millis` is of a clock that is not set: what the disk does not give, in several calls over
    /// ten minutes, while it gives and takes everything else, is [`Delivery::Damaged`].
    ///
    /// # Errors
    /// [`StorageError::Unreadable`] if the first is not given, and not taken for lost yet. It is to be tried again later, not at once.
    pub fn read(
        &self,
        device: &Thumbprint,
        after: u64,
        max_messages: usize,
        max_bytes: usize,
        now_millis: u64,
    ) -> Result<Batch, StorageError> {
        self.inner
            .shared
            .read(device, after, max_messages, max_bytes, now_millis)
    }

    /// Gives back to their senders what is too old and what was in removed mailboxes, and drops notices that are too old: a bounded amount, so call it
    /// again while [`Swept::more`].
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub fn sweep(&self, now_millis: u64) -> Result<Swept, StorageError> {
        let swept = self.inner.shared.sweep(now_millis);
        self.after_change();
        swept
    }

    /// Removes the mailbox of `device`: nothing that is in it is read any more, and its senders are told by this and the next calls of
    /// [`Mailboxes::sweep`]. What the device has sent is remembered, so that nothing is delivered twice should it come back.
    ///
    /// # Errors
    /// [`PostError::Busy`], [`PostError::DiskFull`] or [`PostError::Storage`]; nothing is removed then.
    pub fn remove(&self, device: &Thumbprint, now_millis: u64) -> Result<Swept, PostError> {
        let swept = self.inner.shared.remove(device, now_millis);
        self.after_change();
        swept
    }

    /// The log as it is now, so that it can be copied: with everything that has been accepted, once this gives it. Nothing comes if the log has failed.
    #[cfg(unix)]
    pub(crate) fn snapshot(&self) -> tokio::sync::oneshot::Receiver<std::io::Result<MailSnapshot>> {
        let (asked, answer) = tokio::sync::oneshot::channel();
        self.inner.shared.ask_for_snapshot(asked);
        self.after_change();
        answer
    }

    /// At most `at_most` mailboxes from number `from` on, in the order in which they were begun.
    #[cfg(unix)]
    pub(crate) fn overview(&self, from: usize, at_most: usize) -> Vec<Overview> {
        let core = self.inner.shared.lock();
        core.index.overview(from, at_most).collect()
    }

    /// How much of what has bounds there is.
    #[cfg(feature = "simulation")]
    pub(crate) fn load(&self) -> crate::simulation::MailLoad {
        self.inner.shared.lock().load()
    }

    fn after_change(&self) {
        if let Driver::Inline(writer) = &self.inner.driver {
            lock(writer).step();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Driver::Thread(thread) = &mut self.driver {
            self.shared.stop();
            if let Some(thread) = thread.take() {
                drop(thread.join());
            }
        }
    }
}

/// A lock that a panic elsewhere cannot take away: what it guards is changed in steps that are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
