//! The relay without socket, clock and threads, for a deterministic simulation (feature `simulation`). Not part of the stable interface.
//!
//! ```text
//!  Relay::open(store) ── accept(hello) ─▶ Handshake ── finish(finish) ─▶ Link ── handle_record, poll_transmit, … ─▶ Ended
//!       └── flush_*, sweep, remove_device: when the simulation says so; a crash is dropping it all
//! ```
//! Everything a link has begun is polled by [`Link::poll_finished`], everything submitted to a store is written by
//! [`Relay::flush_directory`] and [`Relay::flush_mail`]. A process that dies is simulated by making the disks deaf and dropping the relay
//! and its links.
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use redb::StorageBackend;
use sealwire_protocol::close::CloseCode;
use sealwire_protocol::jws::SignatureVerifier;
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::name::Issuer as IssuerName;

use crate::authority::Keys;
use crate::bounds::MAX_READ_BYTES;
use crate::closing::End;
use crate::drain::Drain;
use crate::handshake::{self, Accepting};
use crate::link;
use crate::mail::disk::Disk;
use crate::mail::{MailOpenError, MailOptions, Mailboxes, Swept};
use crate::policy::Allowance;
use crate::shared::{ExternalIssuer, Issuing, Settings, Shared};
use crate::storage::{OpenError, Storage, StorageError, StorageOptions};

pub use crate::now::Now;

/// What room a link has for mail where nothing is queued at its socket.
pub const ROOM: usize = MAX_READ_BYTES;

/// What a relay is made of besides its disks.
pub struct Config {
    /// Its key.
    pub relay_key: SigningKey,
    /// The issuer's exact `iss`.
    pub issuer: IssuerName,
    /// The audience of its tokens.
    pub audience: String,
    /// The issuer's keys.
    pub issuer_keys: Arc<dyn SignatureVerifier + Send + Sync>,
    /// How the mailboxes' log is opened; its `identity` is to be given.
    pub mail: MailOptions,
    /// As [`crate::RelayBuilder::allowance`].
    pub allowance: Allowance,
    /// As [`crate::RelayBuilder::keep_alive`].
    pub keep_alive: Duration,
    /// As [`crate::RelayBuilder::write_timeout`].
    pub write_timeout: Duration,
    /// Bytes of pages that the directory's store keeps in memory.
    pub cache_bytes: usize,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("relay", &self.relay_key.thumbprint())
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

/// How much a relay holds of what has bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// In its mailboxes.
    pub mail: MailLoad,
    /// Links in the hub.
    pub links: usize,
    /// Places in the hub in which a link waits to hear of a user's devices.
    pub watches: usize,
}

/// How much there is in the mailboxes. Of what each has a bound for, this is the one that has most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailLoad {
    /// Messages, notices and marks of damage in all mailboxes.
    pub entries: usize,
    /// Messages in one.
    pub messages: u64,
    /// Bytes of messages in one.
    pub bytes: u64,
    /// Messages of one user in one.
    pub messages_of_a_user: u64,
    /// Bytes of messages of one user in one.
    pub bytes_of_a_user: u64,
    /// Notices in one.
    pub notices: u64,
    /// Bytes of records that wait for the disk.
    pub queued_bytes: usize,
    /// As many may be there when one more is taken; records of states may be added beyond it, up to twice as many.
    pub max_queued_bytes: usize,
}

/// A relay. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

/// Why a relay does not open.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// Its directory's store does not.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The log of its mailboxes does not.
    #[error(transparent)]
    Mail(#[from] MailOpenError),
}

/// Why a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// What the device is told; `None`: nothing.
    pub code: Option<CloseCode>,
    /// What the relay's log says.
    pub why: String,
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        Self {
            code: end.close_code(),
            why: end.to_string(),
        }
    }
}

impl Relay {
    /// Opens the relay whose directory is in `store` and whose mailboxes are on `disk`.
    ///
    /// # Errors
    /// [`Unopened`].
    pub fn open(
        store: impl StorageBackend,
        disk: Arc<dyn Disk>,
        config: Config,
    ) -> Result<Self, Unopened> {
        let options = StorageOptions {
            cache_bytes: config.cache_bytes,
        };
        let storage = Storage::by_hand(store, &options)?;
        let mailboxes = Mailboxes::open_stepped(disk, &config.mail)?;
        let external = ExternalIssuer {
            name: config.issuer,
            audience: config.audience,
            keys: Keys::Given(config.issuer_keys),
        };
        let settings = Settings {
            allowance: config.allowance,
            keep_alive: config.keep_alive,
            write_timeout: config.write_timeout,
            ..Settings::default()
        };
        Ok(Self {
            shared: Arc::new(Shared::new(
                config.relay_key,
                Issuing::External(external),
                storage,
                mailboxes,
                settings,
            )),
        })
    }

    /// The relay's identity.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.shared.relay_key.thumbprint()
    }

    /// Takes Hello on a new connection, and gives Accept.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn accept(
        &self,
        hello: &[u8],
        rng: &mut impl rand::CryptoRng,
        now: Now,
    ) -> Result<(Handshake, Vec<u8>), Ended> {
        let (accepting, accept) = handshake::on_hello(&self.shared, None, hello, rng, now)?;
        let handshake = Handshake {
            shared: Arc::clone(&self.shared),
            accepting,
        };
        Ok((handshake, accept))
    }

    /// Writes what waits for the directory's store. A failure is for good: later writes fail until the relay is opened again.
    pub fn flush_directory(&self) {
        self.shared.storage.flush();
    }

    /// Writes what waits for the mailboxes' log, and does one step of what keeps it small. Says whether there is more to do.
    pub fn flush_mail(&self) -> bool {
        self.shared.mailboxes.flush()
    }

    /// Whether the stores still accept writes.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.shared.is_writable()
    }

    /// How much it holds.
    #[must_use]
    pub fn load(&self) -> Load {
        let (links, watches) = self.shared.hub.load();
        Load {
            mail: self.shared.mailboxes.load(),
            links,
            watches,
        }
    }

    /// The mailboxes.
    #[must_use]
    pub fn mailboxes(&self) -> &Mailboxes {
        &self.shared.mailboxes
    }

    /// What a relay does when it starts: finishes removals that a crash has interrupted. To be polled to its end.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(&self, now: Now) -> Result<(), StorageError> {
        self.shared.finish_removals(now).await
    }

    /// Gives back to its senders mail that is too old, a bounded amount.
    ///
    /// # Errors
    /// The mailboxes do not work.
    pub fn sweep(&self, now: Now) -> Result<Swept, StorageError> {
        self.shared.sweep(now)
    }

    /// As [`crate::Relay::remove_device`]. To be polled to its end.
    ///
    /// # Errors
    /// The store does not work.
    pub async fn remove_device(&self, device: &Thumbprint, now: Now) -> Result<bool, StorageError> {
        self.shared.remove_device(device, None, now).await
    }

    /// As [`crate::Relay::drain`] begins.
    pub fn drain(&self, now: Now) {
        self.shared.drain(Drain::default(), now);
    }

    /// Ends it in good order, as far as the mailboxes go: what is queued is written.
    pub fn close_mail(&self) {
        self.shared.mailboxes.close();
    }
}

/// A connection that has had its Accept.
#[derive(Debug)]
pub struct Handshake {
    shared: Arc<Shared>,
    accepting: Accepting,
}

impl Handshake {
    /// Takes Finish, and gives the link. With an issuer of the operator's the future is ready when it is first polled.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn finish(self, finish: Vec<u8>, now: Now) -> Result<Link, Ended> {
        let established = self.accepting.on_finish(&self.shared, &finish, now).await?;
        let link = link::Link::open(established, self.shared, now)?;
        Ok(Link { link })
    }
}

/// A device's link. Every error is its end.
#[derive(Debug)]
pub struct Link {
    link: link::Link,
}

/// What there is to send.
#[derive(Debug)]
pub enum Transmit {
    /// A binary message.
    Record(Vec<u8>),
    /// A ping.
    Ping,
}

impl Link {
    /// Takes a binary message, and opens it in place. Only while [`Link::takes_records`].
    ///
    /// # Errors
    /// The link has ended.
    pub fn handle_record(&mut self, record: &mut [u8], now: Now) -> Result<(), Ended> {
        self.link.handle_bytes(record.len(), now);
        Ok(self.link.handle_record(record, now)?)
    }

    /// Takes a ping, which the simulation answers.
    ///
    /// # Errors
    /// The link has ended.
    pub fn handle_ping(&mut self, now: Now) -> Result<(), Ended> {
        Ok(self.link.handle_ping(now)?)
    }

    /// Takes the answer to a ping.
    ///
    /// # Errors
    /// The link has ended.
    pub fn handle_pong(&mut self, now: Now) -> Result<(), Ended> {
        Ok(self.link.handle_pong(now)?)
    }

    /// The connection has taken all that was given to it.
    pub fn handle_flushed(&mut self) {
        self.link.handle_flushed();
    }

    /// Takes what others have told this link, and whether there was something.
    ///
    /// # Errors
    /// The link has ended, for one because a newer one replaced it.
    pub fn handle_news(&mut self) -> Result<bool, Ended> {
        match self.link.doorbell().take() {
            None => Ok(false),
            Some(rung) => {
                self.link.handle_news(rung)?;
                Ok(true)
            }
        }
    }

    /// Looks at the time.
    ///
    /// # Errors
    /// The link has ended.
    pub fn handle_timeout(&mut self, now: Now) -> Result<(), Ended> {
        Ok(self.link.handle_timeout(now)?)
    }

    /// When [`Link::handle_timeout`] is to be called, in [`Now::steady_millis`].
    #[must_use]
    pub fn deadline(&self, now: Now) -> u64 {
        self.link.deadline(now)
    }

    /// Polls what waits for a store. Ready: something has ended.
    ///
    /// # Errors
    /// The link has ended.
    pub fn poll_finished(&mut self, now: Now, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        self.link.poll_finished(now, cx).map_err(Ended::from)
    }

    /// The next thing to send. `room` is [`ROOM`] less what is on its way to the device.
    ///
    /// # Errors
    /// The link has ended.
    pub fn poll_transmit(&mut self, room: usize, now: Now) -> Result<Option<Transmit>, Ended> {
        Ok(self
            .link
            .poll_transmit(room, now)?
            .map(|transmit| match transmit {
                link::Transmit::Record(record) => Transmit::Record(record),
                link::Transmit::Ping => Transmit::Ping,
            }))
    }

    /// Whether the next record may be given to it.
    #[must_use]
    pub fn takes_records(&self) -> bool {
        self.link.takes_records()
    }

    /// Whether it has nothing more to say because the relay is drained: it is to be closed with 4000.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.link.has_left()
    }

    /// Ends it in good order. What it had begun is left to do.
    pub fn close(self) -> impl Future<Output = ()> + Send {
        self.link.close()
    }
}
