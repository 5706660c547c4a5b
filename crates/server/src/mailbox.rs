//! What the relay holds for a device until that device acknowledges it (docs/protocol.md §5.2).
//!
//! ```text
//!  append ──► mail (device, position) ──► read ──► acknowledge ──► erased
//!    │           └── mail-expiry: too old ──► sweep ─────────────────┘
//!    └──► sent (sender, id, recipient): kept while held, and 24 hours after; a repetition is accepted and adds nothing
//! ```
//!
//! Positions of a device increase by one with each message and are never used again, also when everything has been erased. Who
//! may write to whom, and which devices a message has to be for, is decided before, by the link.
mod record;

use std::collections::HashSet;
use std::num::NonZeroU64;

use bytes::Bytes;
use redb::ReadableTable as _;
use sealwire_protocol::{close::RefusalCode, key::Thumbprint, limits, name::User};

use crate::directory;
use crate::storage::{DeviceId, MAIL, MAILBOXES, Pending, SendKey, Storage, StorageError, Tables};

/// Mail erased, or entries looked at, in one transaction at most; the rest waits for the next, so that nobody waits long.
const MAX_ERASED_AT_ONCE: usize = 1_024;
/// Milliseconds for which a message that is no longer held is remembered.
const SENT_MEMORY_MILLIS: u64 = limits::SEND_MEMORY_HOURS * 60 * 60 * 1_000;

/// What part of a mailbox the devices of one user may fill: one in so many of its messages and bytes, so that no sender alone keeps the
/// mail of others out.
pub const SENDER_SHARE: u64 = 8;
/// Messages that one user may have in a mailbox however small it is.
pub const MIN_SENDER_MESSAGES: u64 = 16;
/// Bytes that one user may have in a mailbox however small it is: a few of the largest messages.
pub const MIN_SENDER_BYTES: u64 = 4 * limits::MAX_SEALED_MESSAGE_BYTES as u64;

/// The mailboxes of every device. Clones share the store.
#[derive(Debug, Clone)]
pub struct Mailboxes {
    storage: Storage,
}

/// A message to a user's devices, as the relay accepted it.
#[derive(Debug)]
pub struct Posting {
    /// The user who sends.
    pub from_user: User,
    /// The device that sends.
    pub from_device: Thumbprint,
    /// The id of the message.
    pub id: [u8; 16],
    /// For each recipient device its sealed message; at most 16, devices distinct.
    pub parts: Vec<(Thumbprint, Bytes)>,
}

/// How much a mailbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Messages.
    pub messages: u64,
    /// Bytes of sealed messages.
    pub bytes: u64,
    /// Seconds until a message that nobody fetched is erased.
    pub retention_seconds: u64,
}

/// A posting that has its place in the order.
#[derive(Debug)]
#[must_use]
pub struct Enqueued(Pending<Result<Vec<Posted>, PostError>>);

impl Enqueued {
    /// The second half of [`Mailboxes::append`]: waits until the posting is durable.
    ///
    /// # Errors
    /// [`PostError`].
    pub async fn durable(self) -> Result<Vec<Posted>, PostError> {
        self.0.durable().await?
    }
}

/// One part of a posting after it was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// The recipient device.
    pub device: Thumbprint,
    /// Its position in that device's mailbox; `None` for a repetition, which added nothing.
    pub position: Option<NonZeroU64>,
}

/// Mail of one device, in the order of positions.
#[derive(Debug, Default)]
pub struct Batch {
    /// What can be delivered.
    pub mail: Vec<Mail>,
    /// Positions whose record the disk has changed. They are not served; the operator has been told in the log.
    pub damaged: Vec<u64>,
    /// The last position looked at: where to go on reading. Equal to the `after` of the call if there was nothing.
    pub last: u64,
}

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Its position, from 1.
    pub position: u64,
    /// The id of the message.
    pub id: [u8; 16],
    /// The user who sent it.
    pub from_user: User,
    /// The device that sent it.
    pub from_device: Thumbprint,
    /// When the relay accepted it, in milliseconds since 1970.
    pub time_millis: u64,
    /// The sealed message.
    pub message: Bytes,
}

/// What Ready says about a mailbox, and how full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxStatus {
    /// The history that the positions belong to.
    pub epoch: [u8; 16],
    /// Everything up to this position has been acknowledged.
    pub acknowledged: u64,
    /// The last position given to a message; 0 if there was none.
    pub head: u64,
    /// Messages held.
    pub held_messages: u64,
    /// Bytes of sealed messages held.
    pub held_bytes: u64,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Messages erased because they were too old.
    pub expired: usize,
    /// Whether there is more to do now.
    pub more: bool,
}

/// Why a posting was not accepted. Nothing of it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// A recipient's mailbox is full, or the sender's share of it is ([`SENDER_SHARE`]).
    #[error(
        "the mailbox of {device}, or the sender's share of it, is full; it has to fetch its messages first"
    )]
    Full {
        /// The recipient device.
        device: Thumbprint,
    },
    /// The parts are not for exactly the current devices of the user that they are for.
    #[error("the parts are not for the recipient's current devices; fetch the cards again")]
    DevicesChanged,
    /// No parts, more than 16, the same device twice, or a message over the protocol's limit. The link checks these before.
    #[error("a posting has 1 to 16 parts for distinct devices, each of 1 to 98,304 bytes")]
    Parts,
    /// The store does not work.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl PostError {
    /// What the sender is told (docs/protocol.md §5.3).
    #[must_use]
    pub fn refusal(self) -> RefusalCode {
        match self {
            Self::Full { .. } => RefusalCode::MailboxFull,
            Self::DevicesChanged => RefusalCode::DevicesChanged,
            Self::Parts => RefusalCode::TooLarge,
            Self::Storage(_) => RefusalCode::Unavailable,
        }
    }
}

impl Mailboxes {
    /// The mailboxes in `storage`.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Stores every part, or none of them, and returns once they are durable, in the order of the parts. A part that repeats
    /// (sending device, id, recipient device) adds nothing. `limits` is what the relay allows; a lower limit from
    /// [`Mailboxes::limit`] wins. `now_millis` is milliseconds since 1970.
    ///
    /// # Errors
    /// [`PostError`]; nothing is stored then, except that after [`PostError::Storage`] it is not known.
    pub async fn append(
        &self,
        posting: Posting,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Vec<Posted>, PostError> {
        self.enqueue(posting, limits, now_millis)
            .await?
            .durable()
            .await
    }

    /// The first half of [`Mailboxes::append`]: gives the posting its place in the order, and waits only while the queue is full.
    /// Places are given in the order in which these futures, or those of `append`, are first polled: poll each once before the
    /// next, and the order of a sender's postings is kept (docs/protocol.md §5.2).
    ///
    /// # Errors
    /// [`PostError::Parts`] or [`PostError::Storage`].
    pub async fn enqueue(
        &self,
        posting: Posting,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Enqueued, PostError> {
        self.enqueue_to(None, posting, limits, now_millis).await
    }

    /// [`Mailboxes::enqueue`] for a `user`: the posting is stored only if, at that very moment, its parts are for exactly the user's
    /// current devices, without the sending one (docs/protocol.md §5.2).
    ///
    /// # Errors
    /// As [`Mailboxes::enqueue`]; [`Enqueued::durable`] gives [`PostError::DevicesChanged`].
    pub async fn enqueue_for(
        &self,
        user: User,
        posting: Posting,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Enqueued, PostError> {
        self.enqueue_to(Some(user), posting, limits, now_millis)
            .await
    }

    async fn enqueue_to(
        &self,
        user: Option<User>,
        posting: Posting,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Enqueued, PostError> {
        let mut distinct = HashSet::new();
        let well_formed = (1..=limits::MAX_SEND_PARTS).contains(&posting.parts.len())
            && posting.parts.iter().all(|(device, message)| {
                distinct.insert(*device)
                    && (1..=limits::MAX_SEALED_MESSAGE_BYTES).contains(&message.len())
            });
        if !well_formed {
            return Err(PostError::Parts);
        }
        let bytes = posting.parts.iter().map(|(_, message)| message.len()).sum();
        let append = move |tables: &mut Tables<'_>| {
            if let Some(user) = user
                && !tables.is_for_devices_of(&user, &posting, now_millis / 1_000)?
            {
                return Ok(Err(PostError::DevicesChanged));
            }
            tables.append(&posting, limits, now_millis)
        };
        Ok(Enqueued(self.storage.submit(bytes, append).await?))
    }

    /// Mail of `device` after position `after`: at most `max_messages`, and no further message once `max_bytes` of them are
    /// exceeded; at least one if there is any.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub fn read(
        &self,
        device: &Thumbprint,
        after: u64,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Batch, StorageError> {
        let id = device.as_bytes();
        let mut batch = Batch {
            last: after,
            ..Batch::default()
        };
        let Some(first) = after.checked_add(1) else {
            return Ok(batch);
        };
        self.storage.read(|read| {
            let acknowledged = read
                .open_table(MAILBOXES)?
                .get(id)?
                .map_or(0, |state| state.value().0);
            let table = read.open_table(MAIL)?;
            let mut bytes = 0_usize;
            // What an acknowledgement has not erased yet is gone all the same.
            for entry in
                table.range((id, first.max(acknowledged.saturating_add(1)))..=(id, u64::MAX))?
            {
                let (key, value) = entry?;
                let position = key.value().1;
                bytes = bytes.saturating_add(value.value().len());
                let full = batch.mail.len() + batch.damaged.len() >= max_messages.max(1)
                    || bytes > max_bytes;
                if full && batch.last != after {
                    break;
                }
                match record::decode(device, position, value.value()) {
                    Some(mail) => batch.mail.push(mail),
                    None => batch.damaged.push(position),
                }
                batch.last = position;
            }
            Ok(())
        })?;
        if !batch.damaged.is_empty() {
            tracing::error!(
                records = batch.damaged.len(),
                "mail in the store is damaged and was not delivered; check the disk"
            );
        }
        Ok(batch)
    }

    /// Erases everything of `device` up to `position` and returns what is acknowledged now. A position beyond the head counts
    /// as the head, so that it cannot erase what comes later; one below what is acknowledged changes nothing.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn acknowledge(
        &self,
        device: &Thumbprint,
        position: u64,
        now_millis: u64,
    ) -> Result<u64, StorageError> {
        let device = *device.as_bytes();
        loop {
            let (acknowledged, more) = self
                .storage
                .write(0, move |tables| {
                    tables.acknowledge(&device, position, now_millis)
                })
                .await?;
            if !more {
                return Ok(acknowledged);
            }
        }
    }

    /// Remembers how much the mailbox of `device` may hold by its own token, for messages that come while it is away.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn limit(
        &self,
        device: &Thumbprint,
        limits: MailboxLimits,
    ) -> Result<(), StorageError> {
        let device = *device.as_bytes();
        let row = (limits.messages, limits.bytes, limits.retention_seconds);
        let stored = self.storage.read(|read| {
            let stored = read
                .open_table(crate::storage::MAILBOX_LIMITS)?
                .get(&device)?
                .map(|stored| stored.value());
            Ok(stored)
        })?;
        if stored == Some(row) {
            return Ok(());
        }
        self.storage
            .write(0, move |tables| {
                tables.mailbox_limits.insert(&device, row)?;
                Ok(())
            })
            .await
    }

    /// How the mailbox of `device` stands. A device without one has an empty one.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub fn status(&self, device: &Thumbprint) -> Result<MailboxStatus, StorageError> {
        let epoch = self.storage.epoch();
        self.storage.read(|read| {
            let state = read
                .open_table(MAILBOXES)?
                .get(device.as_bytes())?
                .map_or((0, 0, 0, 0), |state| state.value());
            let (acknowledged, head, held_messages, held_bytes) = state;
            Ok(MailboxStatus {
                epoch,
                acknowledged,
                head,
                held_messages,
                held_bytes,
            })
        })
    }

    /// Erases mail that is too old and forgets what need not be remembered: a bounded amount, so call it again while
    /// [`Swept::more`].
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn sweep(&self, now_millis: u64) -> Result<Swept, StorageError> {
        self.storage
            .write(0, move |tables| tables.sweep(now_millis))
            .await
    }
}

/// A mailbox's row.
#[derive(Clone, Copy, Default)]
struct State {
    acknowledged: u64,
    head: u64,
    messages: u64,
    bytes: u64,
}

impl Tables<'_> {
    fn is_for_devices_of(
        &self,
        user: &User,
        posting: &Posting,
        now: u64,
    ) -> Result<bool, redb::Error> {
        let mut devices = directory::current(&self.user_devices, user, now)?;
        if *user == posting.from_user {
            devices.retain(|device| *device != posting.from_device);
        }
        // Those of the directory are distinct and sorted.
        let mut named: Vec<_> = posting.parts.iter().map(|(device, _)| *device).collect();
        named.sort_unstable();
        Ok(named == devices)
    }

    fn append(
        &mut self,
        posting: &Posting,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Result<Vec<Posted>, PostError>, redb::Error> {
        // Decide about every part before anything is written.
        let mut accepted = Vec::with_capacity(posting.parts.len());
        for (device, message) in &posting.parts {
            let key = send_key(
                posting.from_device.as_bytes(),
                &posting.id,
                device.as_bytes(),
            );
            if self.sent.get(&key)?.is_some() {
                accepted.push(None);
                continue;
            }
            let limits = match self.mailbox_limits.get(device.as_bytes())? {
                Some(own) => limits.lower_of(own.value()),
                None => limits,
            };
            let mut state = self.mailbox(device.as_bytes())?;
            let length = message.len() as u64;
            state.messages = state.messages.saturating_add(1);
            state.bytes = state.bytes.saturating_add(length);
            let from = self.mail_from(device.as_bytes(), posting.from_user.as_bytes())?;
            let from = (from.0.saturating_add(1), from.1.saturating_add(length));
            let share = limits.share();
            let next = state.head.checked_add(1).and_then(NonZeroU64::new);
            let (Some(position), true) = (
                next,
                state.messages <= limits.messages
                    && state.bytes <= limits.bytes
                    && from.0 <= share.messages
                    && from.1 <= share.bytes,
            ) else {
                return Ok(Err(PostError::Full { device: *device }));
            };
            state.head = position.get();
            accepted.push(Some((key, state, from, position, limits.retention_seconds)));
        }

        let mut posted = Vec::with_capacity(posting.parts.len());
        for ((device, message), accepted) in posting.parts.iter().zip(accepted) {
            let position = accepted.as_ref().map(|(_, _, _, position, _)| *position);
            if let Some((key, state, from, position, retention_seconds)) = accepted {
                let expires_millis =
                    now_millis.saturating_add(retention_seconds.saturating_mul(1_000));
                let at = (device.as_bytes(), position.get());
                let record = record::encode(
                    posting,
                    device,
                    position.get(),
                    now_millis,
                    expires_millis,
                    message,
                );
                self.mail.insert(at, record.as_slice())?;
                self.mail_expiry.insert((expires_millis, at.0, at.1), ())?;
                self.sent.insert(&key, ())?;
                self.mail_from
                    .insert((device.as_bytes(), posting.from_user.as_bytes()), from)?;
                self.store_mailbox(device.as_bytes(), state)?;
            }
            posted.push(Posted {
                device: *device,
                position,
            });
        }
        Ok(Ok(posted))
    }

    fn acknowledge(
        &mut self,
        device: &DeviceId,
        position: u64,
        now_millis: u64,
    ) -> Result<(u64, bool), redb::Error> {
        let mut state = self.mailbox(device)?;
        let position = position.min(state.head);
        // Also what an earlier acknowledgement promised and a crash interrupted.
        let up_to = position.max(state.acknowledged);
        let mut positions = Vec::new();
        for entry in self
            .mail
            .range((device, 0)..=(device, up_to))?
            .take(MAX_ERASED_AT_ONCE)
        {
            positions.push(entry?.0.value().1);
        }
        let more = positions.len() == MAX_ERASED_AT_ONCE;
        for position in positions.iter().copied() {
            self.erase(device, position, &mut state, now_millis)?;
        }
        if up_to > state.acknowledged || !positions.is_empty() {
            state.acknowledged = up_to;
            self.store_mailbox(device, state)?;
        }
        Ok((up_to, more))
    }

    fn sweep(&mut self, now_millis: u64) -> Result<Swept, redb::Error> {
        let nobody = [0; 32];
        let mut old = Vec::new();
        for entry in self
            .mail_expiry
            .range(..=(now_millis, &[0xff; 32], u64::MAX))?
            .take(MAX_ERASED_AT_ONCE)
        {
            let (key, _) = entry?;
            let (expires_millis, device, position) = key.value();
            old.push((expires_millis, *device, position));
        }
        for (expires_millis, device, position) in &old {
            let mut state = self.mailbox(device)?;
            self.erase(device, *position, &mut state, now_millis)?;
            self.store_mailbox(device, state)?;
            // Its mail may have been too damaged to name this entry.
            self.mail_expiry
                .remove((*expires_millis, device, *position))?;
        }

        let mut forgotten = Vec::new();
        let from = (0, &send_key(&nobody, &[0; 16], &nobody));
        for entry in self
            .sent_expiry
            .range(from..=(now_millis, &[0xff; 80]))?
            .take(MAX_ERASED_AT_ONCE)
        {
            let (entry, _) = entry?;
            let (expires_millis, key) = entry.value();
            forgotten.push((expires_millis, *key));
        }
        for (expires_millis, key) in &forgotten {
            self.sent.remove(key)?;
            self.sent_expiry.remove((*expires_millis, key))?;
        }
        Ok(Swept {
            expired: old.len(),
            more: old.len().max(forgotten.len()) == MAX_ERASED_AT_ONCE,
        })
    }

    /// Removes a message and what refers to it, and starts the time for which it is remembered.
    fn erase(
        &mut self,
        device: &DeviceId,
        position: u64,
        state: &mut State,
        now_millis: u64,
    ) -> Result<(), redb::Error> {
        let Some(value) = self.mail.remove((device, position))? else {
            return Ok(());
        };
        let erased = record::summary(device, position, value.value());
        state.messages = state.messages.saturating_sub(1);
        if let Some(erased) = erased {
            drop(value);
            state.bytes = state.bytes.saturating_sub(erased.bytes);
            let from = (device, erased.from_user.as_slice());
            match self.mail_from(device, &erased.from_user)? {
                (0 | 1, _) => self.mail_from.remove(from)?,
                (messages, bytes) => {
                    let left = (
                        messages.saturating_sub(1),
                        bytes.saturating_sub(erased.bytes),
                    );
                    self.mail_from.insert(from, left)?
                }
            };
            self.mail_expiry
                .remove((erased.expires_millis, device, position))?;
            let key = send_key(&erased.from_device, &erased.id, device);
            self.sent_expiry
                .insert((now_millis.saturating_add(SENT_MEMORY_MILLIS), &key), ())?;
        }
        if state.messages == 0 {
            // Mends what a damaged record could not tell.
            state.bytes = 0;
            // UTF-8 has no byte 0xff.
            self.mail_from
                .retain_in((device, &[][..])..=(device, &[0xff][..]), |_, _| false)?;
        }
        Ok(())
    }

    /// Messages and bytes held for a device from a user.
    fn mail_from(&self, device: &DeviceId, user: &[u8]) -> Result<(u64, u64), redb::Error> {
        let held = self.mail_from.get((device, user))?;
        Ok(held.map_or((0, 0), |held| held.value()))
    }

    fn mailbox(&self, device: &DeviceId) -> Result<State, redb::Error> {
        let row = self
            .mailboxes
            .get(device)?
            .map_or((0, 0, 0, 0), |row| row.value());
        Ok(State {
            acknowledged: row.0,
            head: row.1,
            messages: row.2,
            bytes: row.3,
        })
    }

    fn store_mailbox(&mut self, device: &DeviceId, state: State) -> Result<(), redb::Error> {
        self.mailboxes.insert(
            device,
            (state.acknowledged, state.head, state.messages, state.bytes),
        )?;
        Ok(())
    }
}

impl MailboxLimits {
    /// What of it one sending user may have.
    fn share(self) -> Self {
        Self {
            messages: (self.messages / SENDER_SHARE).max(MIN_SENDER_MESSAGES),
            bytes: (self.bytes / SENDER_SHARE).max(MIN_SENDER_BYTES),
            ..self
        }
    }

    fn lower_of(self, (messages, bytes, retention_seconds): (u64, u64, u64)) -> Self {
        Self {
            messages: self.messages.min(messages),
            bytes: self.bytes.min(bytes),
            retention_seconds: self.retention_seconds.min(retention_seconds),
        }
    }
}

fn send_key(sender: &DeviceId, id: &[u8; 16], recipient: &DeviceId) -> SendKey {
    let mut key = [0; 80];
    let parts = sender.iter().chain(id).chain(recipient);
    key.iter_mut().zip(parts).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests;
