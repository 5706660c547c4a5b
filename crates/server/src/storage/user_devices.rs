//! Who has which devices, in memory for the users that are written to: every Send asks (docs/protocol.md §5.2), and seldom does it change.
//!
//! ```text
//!  get(user) ── known? ──▶ answer                    writer: commit ──▶ forget(changed users) ──▶ answers to who waits for the commit
//!               └ no ─▶ read ─▶ keep, unless something was forgotten meanwhile
//! ```
//! So whoever has been told that a change is durable finds it here.
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DeviceId;

const SHARDS: usize = 64;
/// Users that a shard knows at most; then it starts afresh.
const MAX_USERS: usize = 512;
/// Devices of a user that is kept. Many more than are current have been away for long.
const MAX_DEVICES: usize = 64;

/// Devices of a user, by thumbprint, each with `iat` of the attestation in its card, in seconds.
pub(crate) type Devices = Arc<[(DeviceId, u64)]>;

/// The users that are known.
#[derive(Debug)]
pub(super) struct UserDevices {
    shards: Vec<Mutex<Shard>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    by_user: HashMap<Box<str>, Devices>,
    /// How often something was forgotten.
    forgotten: u64,
}

impl UserDevices {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// The devices of `user`, from `read` if they are not known.
    pub(super) fn get<E>(
        &self,
        user: &str,
        read: impl FnOnce() -> Result<Vec<(DeviceId, u64)>, E>,
    ) -> Result<Devices, E> {
        let forgotten = {
            let shard = self.shard(user);
            if let Some(devices) = shard.by_user.get(user) {
                return Ok(Arc::clone(devices));
            }
            shard.forgotten
        };
        let devices: Devices = read()?.into();
        let mut shard = self.shard(user);
        // A name that nobody has costs no memory.
        if shard.forgotten == forgotten && (1..=MAX_DEVICES).contains(&devices.len()) {
            if shard.by_user.len() >= MAX_USERS {
                shard.by_user.clear();
            }
            shard.by_user.insert(user.into(), Arc::clone(&devices));
        }
        Ok(devices)
    }

    /// The devices of `user` have changed, and whoever reads now finds the change.
    pub(super) fn forget(&self, user: &str) {
        let mut shard = self.shard(user);
        shard.forgotten += 1;
        shard.by_user.remove(user);
    }

    fn shard(&self, user: &str) -> MutexGuard<'_, Shard> {
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

    const ONE: (DeviceId, u64) = ([1; 32], 7);
    const TWO: (DeviceId, u64) = ([2; 32], 7);

    fn read(devices: &[(DeviceId, u64)]) -> Result<Vec<(DeviceId, u64)>, ()> {
        Ok(devices.to_vec())
    }

    fn no_read() -> Result<Vec<(DeviceId, u64)>, ()> {
        Err(())
    }

    #[test]
    fn what_was_read_is_known_until_it_is_forgotten() {
        let known = UserDevices::new();
        assert_eq!(*known.get("bob", || read(&[ONE])).unwrap(), [ONE]);
        assert_eq!(*known.get("bob", no_read).unwrap(), [ONE]);
        known.forget("carol");
        known.forget("bob");
        assert_eq!(*known.get("bob", || read(&[ONE, TWO])).unwrap(), [ONE, TWO]);
    }

    #[test]
    fn what_changed_while_it_was_read_is_read_again() {
        let known = UserDevices::new();
        let old = known.get("bob", || {
            known.forget("bob");
            read(&[ONE])
        });
        assert_eq!(*old.unwrap(), [ONE]);
        assert_eq!(*known.get("bob", || read(&[TWO])).unwrap(), [TWO]);
    }

    #[test]
    fn neither_names_without_devices_nor_failures_nor_too_many_users_are_kept() {
        let known = UserDevices::new();
        assert!(known.get("nobody", || read(&[])).unwrap().is_empty());
        assert_eq!(known.get("nobody", no_read), Err(()));
        assert_eq!(
            known
                .get("many", || read(&[ONE; MAX_DEVICES + 1]))
                .unwrap()
                .len(),
            MAX_DEVICES + 1
        );
        assert_eq!(known.get("many", no_read), Err(()));
        for user in 0..2 * SHARDS * MAX_USERS {
            known.get(&user.to_string(), || read(&[ONE])).unwrap();
        }
        for shard in &known.shards {
            assert!(shard.lock().unwrap().by_user.len() <= MAX_USERS);
        }
    }
}
