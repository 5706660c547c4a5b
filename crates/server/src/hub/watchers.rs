//! Which links want to hear of a user's devices: user → doorbells (docs/protocol.md §5.2, DeviceChanged).
//!
//! ```text
//!  a link fetches a user's cards, or writes to the user ──▶ watch ─┐
//!  the user's devices change ──▶ changed ──▶ rings ────────────────┴──▶ the link tells its device
//! ```
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::doorbell::Doorbell;

const SHARDS: usize = 64;

type ByUser = HashMap<Arc<str>, Vec<Arc<Doorbell>>>;

/// Every link's watches.
#[derive(Debug)]
pub(super) struct Watchers {
    shards: Vec<Mutex<ByUser>>,
    hasher: RandomState,
}

impl Watchers {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// Enters a link, which is to be entered once for a user. Gives the user's name as it is kept here.
    pub(super) fn watch(&self, user: &str, doorbell: &Arc<Doorbell>) -> Arc<str> {
        let mut shard = self.shard(user);
        let name = match shard.get_key_value(user) {
            Some((name, _)) => Arc::clone(name),
            None => user.into(),
        };
        shard
            .entry(Arc::clone(&name))
            .or_default()
            .push(Arc::clone(doorbell));
        name
    }

    /// Takes a link out.
    pub(super) fn forget(&self, user: &Arc<str>, doorbell: &Arc<Doorbell>) {
        if let Entry::Occupied(mut entry) = self.shard(user).entry(Arc::clone(user)) {
            let doorbells = entry.get_mut();
            if let Some(place) = doorbells.iter().position(|it| Arc::ptr_eq(it, doorbell)) {
                doorbells.swap_remove(place);
            }
            if doorbells.is_empty() {
                entry.remove();
            } else if doorbells.len() < doorbells.capacity() / 4 {
                doorbells.shrink_to_fit();
            }
        }
    }

    /// Rings at every link that watches the user.
    pub(super) fn changed(&self, user: &str) {
        let watching = {
            let shard = self.shard(user);
            shard
                .get_key_value(user)
                .map(|(user, doorbells)| (Arc::clone(user), doorbells.clone()))
        };
        if let Some((user, doorbells)) = watching {
            for doorbell in doorbells {
                doorbell.ring_changed(&user);
            }
        }
    }

    /// Places in which a link is entered.
    #[cfg(feature = "simulation")]
    pub(super) fn load(&self) -> usize {
        let places = |shard: &Mutex<ByUser>| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.values().map(Vec::len).sum::<usize>()
        };
        self.shards.iter().map(places).sum()
    }

    fn shard(&self, user: &str) -> MutexGuard<'_, ByUser> {
        let [byte, ..] = self.hasher.hash_one(user).to_be_bytes();
        #[expect(
            clippy::indexing_slicing,
            reason = "the remainder is below the number of shards, which never changes"
        )]
        let shard = &self.shards[usize::from(byte) % SHARDS];
        // A map is consistent between its own calls, whoever panicked.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_watch_a_user_hear_of_it_until_they_leave() {
        let watchers = Watchers::new();
        let (one, other) = (Arc::default(), Arc::default());
        let bob = watchers.watch("bob", &one);
        watchers.watch("bob", &other);
        watchers.watch("carol", &other);
        watchers.changed("bob");
        assert_eq!(one.take().unwrap().changed, ["bob".into()]);
        assert_eq!(other.take().unwrap().changed, ["bob".into()]);
        watchers.forget(&bob, &one);
        watchers.changed("bob");
        watchers.changed("carol");
        watchers.changed("nobody");
        assert_eq!(one.take(), None);
        assert_eq!(other.take().unwrap().changed.len(), 2);
    }

    #[test]
    fn who_is_watched_by_nobody_costs_nothing() {
        let watchers = Watchers::new();
        let link = Arc::default();
        let bob = watchers.watch("bob", &link);
        watchers.forget(&bob, &link);
        watchers.forget(&bob, &link);
        assert!(watchers.shard("bob").is_empty());
    }
}
