//! How much anybody may do: the relay's own limits, what a token lowers them to, and rates (docs/protocol.md §5.5).
//!
//! Who may write to whom is the link's to decide from the same permissions.
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use sealwire_protocol::{limits::MAX_SEALED_MESSAGE_BYTES, permissions::Permissions};

use crate::blobs::BlobLimits;
use crate::mail::MailboxLimits;

/// Messages that a device may send in a minute; one to several devices counts once for each.
pub const MESSAGES_PER_MINUTE: u64 = 600;
/// Times that a user may fetch cards in a minute, each of which may take one-time prekeys.
pub const CARD_FETCHES_PER_MINUTE: u64 = 60;
/// The same of all users of a tenant: whoever of a full one has just come back may ask three times.
pub const CARD_FETCHES_PER_MINUTE_PER_TENANT: u64 = 30_000;
/// Times that a device may refresh its token in a minute, each of which costs the relay two signature checks.
pub const REFRESHES_PER_MINUTE: u64 = 30;
/// Messages that a mailbox holds.
pub const MAILBOX_MESSAGES: u64 = 10_000;
/// Bytes of sealed messages that a mailbox holds.
pub const MAILBOX_BYTES: u64 = 64 << 20;
/// Seconds for which a mailbox holds a message.
pub const RETENTION_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Bytes of blobs that a user may send and fetch in a minute, all devices together.
pub const TRANSFER_BYTES_PER_MINUTE: u64 = 16 << 30;
/// Frames of a device that are read in a minute.
pub const FRAMES_PER_MINUTE: u64 = 600_000;
/// The same of all devices of a user: four devices that do all they may.
pub const FRAMES_PER_MINUTE_PER_USER: u64 = 4 * FRAMES_PER_MINUTE;
/// The same of all devices of a tenant, about what a relay takes in all.
pub const FRAMES_PER_MINUTE_PER_TENANT: u64 = 16 * FRAMES_PER_MINUTE;
/// Bytes of a device that are read in a minute.
pub const BYTES_PER_MINUTE: u64 = 16 << 30;
/// The same of all devices of a user.
pub const BYTES_PER_MINUTE_PER_USER: u64 = 4 * BYTES_PER_MINUTE;
/// The same of all devices of a tenant.
pub const BYTES_PER_MINUTE_PER_TENANT: u64 = 16 * BYTES_PER_MINUTE;
/// TCP connections at one time, of all kinds; fewer where the system grants fewer file descriptors.
pub const CONNECTIONS: usize = 16_384;
/// Of these, connections that have not authenticated: who comes beyond that is dropped, so that whoever is connected is served.
pub const UNAUTHENTICATED: usize = 8_192;
/// Of these, connections of one address (IPv4) or one /64 (IPv6).
pub const UNAUTHENTICATED_PER_ADDRESS: usize = 64;
/// Connections of one address in a minute.
pub const CONNECTIONS_PER_MINUTE: u64 = 6_000;
/// Links of one user at one time, twice as many as devices that can be written to.
pub const LINKS_PER_USER: usize = 32;
/// Links that a device opens in a minute: handshakes that have succeeded. As many as messages, as a program may connect for each.
pub const LINKS_PER_MINUTE: u64 = MESSAGES_PER_MINUTE;
/// The same of all devices of a user.
pub const LINKS_PER_MINUTE_PER_USER: u64 = 4 * LINKS_PER_MINUTE;
/// The same of all devices of a tenant: all of a full one come back at once, after a restart, three times over.
pub const LINKS_PER_MINUTE_PER_TENANT: u64 = 30_000;
/// Devices, users, tenants or addresses whose rate is remembered at the same time.
pub const MAX_RATES: usize = 100_000;

/// Milliseconds in a minute: what one message costs a bucket, whose level counts messages × milliseconds.
const MINUTE_MILLIS: u64 = 60_000;
/// Milliseconds between two searches for what need not be remembered.
pub(crate) const TIDY_INTERVAL_MILLIS: u64 = 1_000;

/// What a relay, or one link of it, allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Allowance {
    /// Bytes of a sealed message.
    pub max_message_bytes: u64,
    /// Messages sent in a minute, counted for each device that they are for.
    pub messages_per_minute: u64,
    /// Fetches of cards in a minute.
    pub card_fetches_per_minute: u64,
    /// The same of all users of a tenant together.
    pub card_fetches_per_minute_per_tenant: u64,
    /// Refreshes of a device's token in a minute.
    pub refreshes_per_minute: u64,
    /// What the mailbox holds.
    pub mailbox: MailboxLimits,
    /// Bytes of blobs sent and fetched in a minute, by all devices of a user.
    pub transfer_bytes_per_minute: u64,
    /// What the relay holds of blobs.
    pub blobs: BlobLimits,
    /// Frames of a device that are read in a minute; who sends more is read later.
    pub frames_per_minute: u64,
    /// The same of all devices of a user together.
    pub frames_per_minute_per_user: u64,
    /// The same of all devices of a tenant together.
    pub frames_per_minute_per_tenant: u64,
    /// Bytes of a device's WebSocket that are read in a minute, likewise.
    pub bytes_per_minute: u64,
    /// The same of all devices of a user together.
    pub bytes_per_minute_per_user: u64,
    /// The same of all devices of a tenant together.
    pub bytes_per_minute_per_tenant: u64,
}

/// How many connections a relay takes. What is over a limit is dropped as it arrives, without an answer; a link over a limit of its device, its user or
/// its tenant is closed with 4002 before it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// At one time, of all kinds.
    pub connections: usize,
    /// At one time, that have not authenticated.
    pub unauthenticated: usize,
    /// Of these, of one address (IPv4) or one /64 (IPv6). Not where there is a proxy in front, whose address everybody has.
    pub unauthenticated_per_address: usize,
    /// Of one address in a minute, likewise.
    pub per_minute: u64,
    /// Links of one user at one time.
    pub links_per_user: usize,
    /// Links of one tenant at one time, as their tokens name it when they open (docs/protocol.md §5.7). `None`: half of the connections that there may
    /// be, so that no tenant keeps the others out.
    pub links_per_tenant: Option<usize>,
    /// Links that a device opens in a minute, also where each takes the place of the last.
    pub links_per_minute: u64,
    /// The same of all devices of a user together.
    pub links_per_minute_per_user: u64,
    /// The same of all devices of a tenant together.
    pub links_per_minute_per_tenant: u64,
}

impl ConnectionLimits {
    pub(crate) fn links_per_tenant(&self) -> usize {
        self.links_per_tenant
            .unwrap_or((self.connections / 2).max(1))
    }
}

impl Default for ConnectionLimits {
    /// The constants of this module.
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            unauthenticated: UNAUTHENTICATED,
            unauthenticated_per_address: UNAUTHENTICATED_PER_ADDRESS,
            per_minute: CONNECTIONS_PER_MINUTE,
            links_per_user: LINKS_PER_USER,
            links_per_tenant: None,
            links_per_minute: LINKS_PER_MINUTE,
            links_per_minute_per_user: LINKS_PER_MINUTE_PER_USER,
            links_per_minute_per_tenant: LINKS_PER_MINUTE_PER_TENANT,
        }
    }
}

impl Default for Allowance {
    /// The relay-wide defaults: the constants of this module, and the protocol's largest message.
    fn default() -> Self {
        Self {
            max_message_bytes: MAX_SEALED_MESSAGE_BYTES as u64,
            messages_per_minute: MESSAGES_PER_MINUTE,
            card_fetches_per_minute: CARD_FETCHES_PER_MINUTE,
            card_fetches_per_minute_per_tenant: CARD_FETCHES_PER_MINUTE_PER_TENANT,
            refreshes_per_minute: REFRESHES_PER_MINUTE,
            mailbox: MailboxLimits {
                messages: MAILBOX_MESSAGES,
                bytes: MAILBOX_BYTES,
                retention_seconds: RETENTION_SECONDS,
            },
            transfer_bytes_per_minute: TRANSFER_BYTES_PER_MINUTE,
            blobs: BlobLimits::default(),
            frames_per_minute: FRAMES_PER_MINUTE,
            frames_per_minute_per_user: FRAMES_PER_MINUTE_PER_USER,
            frames_per_minute_per_tenant: FRAMES_PER_MINUTE_PER_TENANT,
            bytes_per_minute: BYTES_PER_MINUTE,
            bytes_per_minute_per_user: BYTES_PER_MINUTE_PER_USER,
            bytes_per_minute_per_tenant: BYTES_PER_MINUTE_PER_TENANT,
        }
    }
}

impl Allowance {
    /// What is left of this under a token: the lower of both, number by number; what the token leaves out stays
    /// (docs/protocol.md §5.5).
    #[must_use]
    pub fn under(self, permissions: &Permissions) -> Self {
        let lower = |own: u64, token: Option<u64>| token.map_or(own, |token| own.min(token));
        Self {
            max_message_bytes: lower(self.max_message_bytes, permissions.max_message_bytes),
            messages_per_minute: lower(self.messages_per_minute, permissions.messages_per_minute),
            mailbox: MailboxLimits {
                messages: lower(self.mailbox.messages, permissions.mailbox_messages),
                bytes: lower(self.mailbox.bytes, permissions.mailbox_bytes),
                retention_seconds: lower(
                    self.mailbox.retention_seconds,
                    permissions.retention_seconds,
                ),
            },
            ..self
        }
    }
}

/// How often each `K`, a device or a user, does something: a token bucket each, which holds a minute's worth.
#[derive(Debug)]
pub struct Rates<K> {
    buckets: Mutex<Buckets<K>>,
    max: usize,
}

#[derive(Debug)]
struct Buckets<K> {
    by_key: HashMap<K, Bucket>,
    tidied_millis: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    filled_millis: u64,
    per_minute: u64,
}

/// Too often. Try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too often; try again in {retry_millis} ms")]
pub struct TooOften {
    /// Milliseconds after which one more is allowed, if nothing else happens until then.
    pub retry_millis: u64,
}

impl<K: Eq + Hash + Clone> Default for Rates<K> {
    fn default() -> Self {
        Self::new(MAX_RATES)
    }
}

impl<K: Eq + Hash + Clone> Rates<K> {
    /// Remembers at most `max` keys. Who comes beyond that is told to come later, so that nobody escapes by filling the memory.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            buckets: Mutex::new(Buckets {
                by_key: HashMap::new(),
                tidied_millis: 0,
            }),
            max,
        }
    }

    /// Counts one event of `key`, of which `per_minute` are allowed. `now_millis` is milliseconds of a clock of the caller's
    /// choice; where it goes back, time stands still.
    ///
    /// # Errors
    /// [`TooOften`]; the event is not counted then.
    pub fn take(&self, key: &K, per_minute: u64, now_millis: u64) -> Result<(), TooOften> {
        self.take_many(key, 1, per_minute, now_millis)
    }

    /// Counts `count` events of `key` at once, all or none, as [`Rates::take`]. More than a minute's worth counts as just that, so that it is
    /// possible at all.
    ///
    /// # Errors
    /// [`TooOften`]; nothing is counted then.
    pub fn take_many(
        &self,
        key: &K,
        count: u64,
        per_minute: u64,
        now_millis: u64,
    ) -> Result<(), TooOften> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.by_key.get_mut(key) {
            return bucket.take(count, per_minute, now_millis);
        }
        if buckets.by_key.len() >= self.max {
            buckets.tidy(now_millis);
        }
        if buckets.by_key.len() >= self.max {
            return Err(TooOften {
                retry_millis: TIDY_INTERVAL_MILLIS,
            });
        }
        let mut bucket = Bucket::full(per_minute, now_millis);
        bucket.take(count, per_minute, now_millis)?;
        buckets.by_key.insert(key.clone(), bucket);
        Ok(())
    }
}

impl<K> Buckets<K> {
    /// Forgets whose bucket is full again: a new one would be the same. Seldom, so that a full memory costs little.
    fn tidy(&mut self, now_millis: u64) {
        if now_millis.saturating_sub(self.tidied_millis) < TIDY_INTERVAL_MILLIS
            && self.tidied_millis != 0
        {
            return;
        }
        self.tidied_millis = now_millis;
        self.by_key.retain(|_, bucket| {
            bucket.fill(bucket.per_minute, now_millis);
            bucket.level < bucket.capacity()
        });
    }
}

impl Bucket {
    fn full(per_minute: u64, now_millis: u64) -> Self {
        Self {
            level: per_minute.saturating_mul(MINUTE_MILLIS),
            filled_millis: now_millis,
            per_minute,
        }
    }

    fn capacity(&self) -> u64 {
        self.per_minute.saturating_mul(MINUTE_MILLIS)
    }

    fn fill(&mut self, per_minute: u64, now_millis: u64) {
        let elapsed = now_millis.saturating_sub(self.filled_millis);
        self.per_minute = per_minute;
        self.level = self
            .level
            .saturating_add(elapsed.saturating_mul(per_minute))
            .min(self.capacity());
        self.filled_millis = self.filled_millis.max(now_millis);
    }

    fn take(&mut self, count: u64, per_minute: u64, now_millis: u64) -> Result<(), TooOften> {
        self.fill(per_minute, now_millis);
        let cost = count.min(per_minute).max(1).saturating_mul(MINUTE_MILLIS);
        match self.level.checked_sub(cost) {
            Some(level) => {
                self.level = level;
                Ok(())
            }
            None => {
                let missing = cost.saturating_sub(self.level);
                Err(TooOften {
                    retry_millis: missing
                        .checked_div(per_minute)
                        .map_or(u64::MAX, |millis| millis.saturating_add(1)),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests;
