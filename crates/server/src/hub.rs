//! Who is connected: device thumbprint → the link's doorbell, and which links watch which users.
//!
//! ```text
//!  a sender's link ── append to the mailbox ── hub.ring(device, MAIL) ──▶ bits + wake ──▶ the recipient's link reads its mailbox
//! ```
//! Nothing is handed over here, only the news that there is something: a doorbell never fills, and what a
//! link sends always comes from the mailbox. No lock is held across an await.
mod doorbell;
mod watchers;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use doorbell::{Doorbell, News, Rung};

use crate::bounds::MAX_WATCHED_USERS;
use watchers::Watchers;

/// A device's or relay's thumbprint.
type Thumbprint = [u8; 32];

/// Locks are split by the first byte of the thumbprint, which is a hash and so evenly spread.
const SHARDS: usize = 64;

/// The connected devices.
#[derive(Debug)]
pub(crate) struct Hub {
    shards: Vec<Mutex<HashMap<Thumbprint, Arc<Doorbell>>>>,
    watchers: Watchers,
}

impl Hub {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            watchers: Watchers::new(),
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
            watched: VecDeque::new(),
        }
    }

    /// Whether a device has a link.
    pub(crate) fn has(&self, device: &Thumbprint) -> bool {
        self.shard(device).contains_key(device)
    }

    /// Tells a device's link, if there is one.
    pub(crate) fn ring(&self, device: &Thumbprint, news: News) {
        let doorbell = self.shard(device).get(device).cloned();
        if let Some(doorbell) = doorbell {
            doorbell.ring(news);
        }
    }

    /// Tells all links.
    pub(crate) fn ring_all(&self, news: News) {
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for doorbell in shard.values() {
                doorbell.ring(news);
            }
        }
    }

    /// Tells every link that watches `user` that the user's set of devices changed.
    pub(crate) fn changed(&self, user: &str) {
        self.watchers.changed(user);
    }

    /// Links that are entered, and places in which one is entered to hear of a user.
    #[cfg(feature = "simulation")]
    pub(crate) fn load(&self) -> (usize, usize) {
        let links = |shard: &Mutex<HashMap<_, _>>| {
            shard.lock().unwrap_or_else(PoisonError::into_inner).len()
        };
        (self.shards.iter().map(links).sum(), self.watchers.load())
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
    /// The users that the link watches; the latest are last.
    watched: VecDeque<Arc<str>>,
}

impl Registration {
    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Has the link hear of changes of a user's devices, as long as `user` is among the latest [`MAX_WATCHED_USERS`]. Call it before
    /// looking at the devices: then no change is missed.
    pub(crate) fn watch(&mut self, user: &str) {
        // Whoever was written to last is the likeliest.
        if let Some(place) = self.watched.iter().rposition(|watched| **watched == *user) {
            if place + 1 < self.watched.len()
                && let Some(user) = self.watched.remove(place)
            {
                self.watched.push_back(user);
            }
            return;
        }
        if self.watched.len() >= MAX_WATCHED_USERS
            && let Some(oldest) = self.watched.pop_front()
        {
            self.hub.watchers.forget(&oldest, &self.doorbell);
        }
        let user = self.hub.watchers.watch(user, &self.doorbell);
        self.watched.push_back(user);
    }

    /// The users that the link watches.
    pub(crate) fn watched(&self) -> impl Iterator<Item = &Arc<str>> {
        self.watched.iter()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        for user in &self.watched {
            self.hub.watchers.forget(user, &self.doorbell);
        }
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

    #[test]
    fn a_newer_link_replaces_the_older_and_survives_its_end() {
        let hub = Hub::new();
        let older = hub.register([1; 32]);
        let newer = hub.register([1; 32]);
        assert!(older.doorbell().take().unwrap().news.has(News::REPLACED));
        drop(older);
        hub.ring(&[1; 32], News::MAIL);
        assert!(newer.doorbell().take().unwrap().news.has(News::MAIL));
    }

    #[test]
    fn what_concerns_all_links_is_heard_by_all() {
        let hub = Hub::new();
        let links: Vec<_> = (0..=u8::MAX)
            .map(|first| hub.register([first; 32]))
            .collect();
        hub.ring_all(News::REVOCATIONS);
        for link in &links {
            assert!(link.doorbell().take().unwrap().news.has(News::REVOCATIONS));
        }
    }

    #[test]
    fn a_dropped_registration_leaves_nothing_behind() {
        let hub = Hub::new();
        let mut link = hub.register([3; 32]);
        link.watch("bob");
        let doorbell = Arc::clone(link.doorbell());
        drop(link);
        assert!(hub.shard(&[3; 32]).is_empty());
        hub.ring(&[3; 32], News::MAIL);
        hub.changed("bob");
        assert_eq!(doorbell.take(), None);
        assert_eq!(Arc::strong_count(&doorbell), 1);
    }

    // docs/protocol.md §5.2: the latest 256
    #[test]
    fn a_link_watches_only_the_latest_users() {
        let hub = Hub::new();
        let mut link = hub.register([4; 32]);
        let users: Vec<_> = (0..=MAX_WATCHED_USERS)
            .map(|user| user.to_string())
            .collect();
        for user in &users[..MAX_WATCHED_USERS] {
            link.watch(user);
        }
        // The first is used again, so that the second is the oldest.
        link.watch(&users[0]);
        link.watch(&users[MAX_WATCHED_USERS]);
        assert_eq!(link.watched().count(), MAX_WATCHED_USERS);
        hub.changed(&users[1]);
        assert_eq!(link.doorbell().take(), None);
        for user in [&users[0], &users[2], &users[MAX_WATCHED_USERS]] {
            hub.changed(user);
            assert_eq!(*link.doorbell().take().unwrap().changed[0], **user);
        }
    }

    #[test]
    fn a_user_that_is_watched_twice_is_told_once() {
        let hub = Hub::new();
        let mut link = hub.register([5; 32]);
        link.watch("bob");
        link.watch("carol");
        link.watch("bob");
        hub.changed("bob");
        assert_eq!(link.doorbell().take().unwrap().changed.len(), 1);
        drop(link);
        hub.changed("bob");
    }
}
