//! Proofs that were used (RFC 9449 §11.1): each is good for one request.
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use crate::bounds::{MAX_PROOFS, PROOF_MEMORY_MILLIS};

/// Remembers proofs for as long as they could be used again. It never forgets one earlier: when it is full, nothing more is taken.
#[derive(Debug)]
pub(crate) struct Replays {
    used: Mutex<Used>,
    max: usize,
}

#[derive(Debug, Default)]
struct Used {
    proofs: HashSet<[u8; 32]>,
    /// The same with the time until which each is remembered, the oldest first.
    order: VecDeque<(u64, [u8; 32])>,
}

/// What a proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    First,
    Again,
    /// There is no telling, as no more are remembered.
    Full,
}

impl Default for Replays {
    fn default() -> Self {
        Self::new(MAX_PROOFS)
    }
}

impl Replays {
    fn new(max: usize) -> Self {
        Self {
            used: Mutex::default(),
            max,
        }
    }

    /// Whether a proof was used before, in which case it may not be worth anything else.
    pub(crate) fn has(&self, proof: &[u8; 32]) -> bool {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.proofs.contains(proof)
    }

    /// Uses a proof. `steady_millis` is of a clock that nobody sets.
    pub(crate) fn take(&self, proof: [u8; 32], steady_millis: u64) -> Use {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((until, oldest)) = used.order.front().copied()
            && until < steady_millis
        {
            used.order.pop_front();
            used.proofs.remove(&oldest);
        }
        if used.proofs.contains(&proof) {
            return Use::Again;
        }
        if used.proofs.len() >= self.max {
            return Use::Full;
        }
        used.proofs.insert(proof);
        let until = steady_millis.saturating_add(PROOF_MEMORY_MILLIS);
        used.order.push_back((until, proof));
        Use::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proof_is_good_once_for_as_long_as_its_time_is() {
        let replays = Replays::default();
        assert_eq!(replays.take([1; 32], 1_000), Use::First);
        assert!(replays.has(&[1; 32]) && !replays.has(&[2; 32]));
        assert_eq!(replays.take([1; 32], 1_000), Use::Again);
        // One from the future by the tolerance, used at once, is good for twice as long.
        assert_eq!(replays.take([1; 32], 121_000), Use::Again);
        assert_eq!(replays.take([1; 32], 122_001), Use::First);
    }

    #[test]
    fn full_memory_takes_no_more_and_forgets_nothing() {
        let replays = Replays::new(2);
        for proof in [[1; 32], [2; 32]] {
            assert_eq!(replays.take(proof, 0), Use::First);
        }
        assert_eq!(replays.take([3; 32], 120_000), Use::Full);
        assert_eq!(replays.take([1; 32], 120_000), Use::Again);
        assert_eq!(replays.take([3; 32], 121_001), Use::First);
    }
}
