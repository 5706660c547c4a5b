//! Message keys that were skipped: for messages that are late, or lost (docs/protocol.md §8.2).
//!
//! Bounded in number and age. They stand in the order in which they were skipped. The normal
//! path, a message in order, never looks in here.

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};

use sealwire_protocol::limits::{MAX_SKIPPED_DAYS, MAX_SKIPPED_KEPT};

use crate::message::MessageKey;

const MAX_AGE_SECONDS: u64 = MAX_SKIPPED_DAYS * 24 * 60 * 60;

/// The key of one message that has not come.
pub(crate) struct SkippedKey {
    pub(crate) ratchet_key: [u8; 32],
    pub(crate) n: u32,
    /// When it was skipped, in seconds since 1970.
    pub(crate) since: u64,
    /// Boxed, so that a key does not move, and leave copies behind, when its neighbours do.
    pub(crate) key: Box<MessageKey>,
}

/// All skipped keys of a session, in the order in which they were skipped.
#[derive(Default)]
pub(crate) struct SkippedKeys {
    keys: VecDeque<SkippedKey>,
}

impl SkippedKeys {
    /// Where the key of a message is, if it is kept and not too old at `now`.
    pub(crate) fn find(
        &self,
        ratchet_key: &[u8; 32],
        n: u32,
        now: u64,
    ) -> Option<(usize, &MessageKey)> {
        let (index, found) = self
            .keys
            .iter()
            .enumerate()
            .find(|(_, kept)| kept.n == n && kept.ratchet_key == *ratchet_key)?;
        // §8.2: a key that is too old is gone, even before it is erased.
        (!is_too_old(found, now)).then_some((index, &*found.key))
    }

    /// Erases the key at an index that [`find`](Self::find) gave: its message was opened.
    pub(crate) fn use_up(&mut self, index: usize) {
        self.keys.remove(index);
    }

    /// Keeps the keys of a message that opened, then drops what is too many or too old (§8.2).
    pub(crate) fn keep(&mut self, staged: Vec<SkippedKey>) {
        self.keys.extend(staged);
        while self.keys.len() > MAX_SKIPPED_KEPT {
            self.keys.pop_front();
        }
    }

    /// Erases the keys that are older than 30 days at `now` (§8.2).
    pub(crate) fn drop_old(&mut self, now: u64) {
        // All of them are looked at: a clock that was wrong may have put a young-looking key in front.
        self.keys.retain(|key| !is_too_old(key, now));
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &SkippedKey> {
        self.keys.iter()
    }
}

impl FromIterator<SkippedKey> for SkippedKeys {
    fn from_iter<I: IntoIterator<Item = SkippedKey>>(keys: I) -> Self {
        Self {
            keys: keys.into_iter().collect(),
        }
    }
}

fn is_too_old(key: &SkippedKey, now: u64) -> bool {
    now.saturating_sub(key.since) > MAX_AGE_SECONDS
}
