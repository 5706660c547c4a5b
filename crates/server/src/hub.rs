//! Who is connected: device thumbprint → the link's doorbell.
//!
//! ```text
//!  a sender's link ── append to the mailbox ── hub.ring(device, MAIL) ──▶ bits + wake ──▶ the recipient's link reads its mailbox
//! ```
//! Nothing is handed over here, only the news that there is something: a doorbell is a few bits, so it never fills, and what a
//! link sends always comes from the mailbox. No lock is held across an await.
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A device's or relay's thumbprint.
type Thumbprint = [u8; 32];

/// Locks are split by the first byte of the thumbprint, which is a hash and so evenly spread.
const SHARDS: usize = 64;

/// News for a link, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct News(u8);

impl News {
    /// The mailbox has grown.
    pub(crate) const MAIL: Self = Self(1);
    /// The user's set of devices changed.
    pub(crate) const DEVICES: Self = Self(2);
    /// A newer link of the same device has taken over.
    pub(crate) const REPLACED: Self = Self(4);
    /// The device was removed.
    pub(crate) const REVOKED: Self = Self(8);

    /// Whether `other` is part of this.
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

/// How others get a link's attention.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    bits: AtomicU8,
    wake: Notify,
}

impl Doorbell {
    fn ring(&self, news: News) {
        self.bits.fetch_or(news.0, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits for news and takes it. Cancelling loses nothing.
    pub(crate) async fn rung(&self) -> News {
        loop {
            let bits = self.bits.swap(0, Ordering::Acquire);
            if bits != 0 {
                return News(bits);
            }
            self.wake.notified().await;
        }
    }
}

/// The connected devices.
#[derive(Debug)]
pub(crate) struct Hub {
    shards: Vec<Mutex<HashMap<Thumbprint, Arc<Doorbell>>>>,
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        })
    }

    /// Enters a link, and tells an older one of the same device that it is replaced (docs/protocol.md §5.2). The entry goes when the
    /// registration is dropped.
    #[must_use = "the link is unreachable without its registration"]
    pub(crate) fn register(self: &Arc<Self>, device: Thumbprint) -> Registration {
        let doorbell = Arc::new(Doorbell::default());
        if let Some(older) = self.shard(&device).insert(device, Arc::clone(&doorbell)) {
            older.ring(News::REPLACED);
        }
        Registration {
            hub: Arc::clone(self),
            device,
            doorbell,
        }
    }

    /// Tells a device's link, if there is one.
    pub(crate) fn ring(&self, device: &Thumbprint, news: News) {
        let doorbell = self.shard(device).get(device).cloned();
        if let Some(doorbell) = doorbell {
            doorbell.ring(news);
        }
    }

    fn shard(&self, device: &Thumbprint) -> MutexGuard<'_, HashMap<Thumbprint, Arc<Doorbell>>> {
        let [first, ..] = *device;
        #[expect(
            clippy::indexing_slicing,
            reason = "the remainder is below the number of shards, which never changes"
        )]
        let shard = &self.shards[usize::from(first) % SHARDS];
        // A map is consistent between its own calls, whoever panicked.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link's place in the hub.
#[derive(Debug)]
pub(crate) struct Registration {
    hub: Arc<Hub>,
    device: Thumbprint,
    doorbell: Arc<Doorbell>,
}

impl Registration {
    pub(crate) fn doorbell(&self) -> &Doorbell {
        &self.doorbell
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The place may be a newer link's by now.
        if let Entry::Occupied(entry) = self.hub.shard(&self.device).entry(self.device)
            && Arc::ptr_eq(entry.get(), &self.doorbell)
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_newer_link_replaces_the_older_and_survives_its_end() {
        let hub = Hub::new();
        let older = hub.register([1; 32]);
        let newer = hub.register([1; 32]);
        assert!(older.doorbell().rung().await.has(News::REPLACED));
        drop(older);
        hub.ring(&[1; 32], News::MAIL);
        assert_eq!(newer.doorbell().rung().await, News::MAIL);
    }

    #[tokio::test]
    async fn news_that_comes_before_the_wait_is_not_lost_and_is_joined() {
        let hub = Hub::new();
        let link = hub.register([2; 32]);
        hub.ring(&[2; 32], News::MAIL);
        hub.ring(&[2; 32], News::DEVICES);
        let news = link.doorbell().rung().await;
        assert!(news.has(News::MAIL) && news.has(News::DEVICES) && !news.has(News::REPLACED));
    }

    #[test]
    fn a_dropped_registration_leaves_nothing_behind() {
        let hub = Hub::new();
        drop(hub.register([3; 32]));
        assert!(hub.shard(&[3; 32]).is_empty());
        hub.ring(&[3; 32], News::MAIL);
    }
}
