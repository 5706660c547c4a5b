//! How many of something each of many has at the same time.
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what each `K`, an address or a user, has, up to a limit for each. Clones count together. Whoever has nothing takes no memory.
#[derive(Debug)]
pub(crate) struct Shares<K> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    limit: usize,
}

impl<K> Clone for Shares<K> {
    fn clone(&self) -> Self {
        Self {
            counts: Arc::clone(&self.counts),
            limit: self.limit,
        }
    }
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// Allows each so many.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            counts: Arc::default(),
            limit,
        }
    }

    /// One more of `of`, for as long as the share lives; `None` if that would be too many, and is not to be had `anyway`.
    #[must_use = "the share is given back when it is dropped"]
    pub(crate) fn take(&self, of: K, anyway: bool) -> Option<Share<K>> {
        let mut counts = self.counts();
        let count = counts.get(&of).copied().unwrap_or_default();
        if count >= self.limit && !anyway {
            return None;
        }
        counts.insert(of.clone(), count.saturating_add(1));
        drop(counts);
        Some(Share {
            shares: self.clone(),
            of,
        })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        // A map is consistent between its own calls, whoever panicked.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of what somebody has.
#[derive(Debug)]
pub(crate) struct Share<K: Eq + Hash + Clone> {
    shares: Shares<K>,
    of: K,
}

impl<K: Eq + Hash + Clone> Drop for Share<K> {
    fn drop(&mut self) {
        let mut counts = self.shares.counts();
        if let Some(count) = counts.get_mut(&self.of) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_refused_past_its_limit_and_admitted_again_after() {
        let shares = Shares::new(3);
        let mut taken: Vec<_> = (0..3)
            .map(|_| shares.take("here", false).unwrap())
            .collect();
        assert!(shares.take("here", false).is_none());
        assert!(shares.clone().take("there", false).is_some());
        // What takes the place of one counts from then on.
        let replacing = shares.take("here", true).unwrap();
        taken.pop();
        assert!(shares.take("here", false).is_none());
        drop(replacing);
        assert!(shares.take("here", false).is_some());
        taken.clear();
        assert!(shares.counts().is_empty());
    }
}
