//! The one source of chance: everything random in a run comes from its seed.

use rand::rngs::StdRng;
use rand::{Rng, RngExt as _, SeedableRng as _};

/// A generator whose numbers depend on the seed alone.
///
/// Each part of a run has its own, so that what one part draws does not change what another does.
#[derive(Debug)]
pub(super) struct Chance(StdRng);

impl Chance {
    /// The generator of a run.
    #[must_use]
    pub(super) fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A generator of its own for a part of the run.
    #[must_use]
    pub(super) fn fork(&mut self) -> Self {
        Self::new(self.0.next_u64())
    }

    /// The generator, for whatever takes one.
    pub(super) fn rng(&mut self) -> &mut StdRng {
        &mut self.0
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    /// An index into something with `len` items, which is not 0.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0.random_range(low..=high)
    }

    /// Yes in `per_mille` of a thousand cases.
    pub(super) fn happens(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// Yes or no.
    pub(super) fn coin(&mut self) -> bool {
        self.0.random()
    }

    /// A number up to `high`, small ones much more often than large ones.
    pub(super) fn mostly_small(&mut self, high: u64) -> u64 {
        let bits = self.below(u64::from(64 - high.leading_zeros()) + 1);
        let mask = 1_u64
            .checked_shl(u32::try_from(bits).unwrap_or(63))
            .map_or(u64::MAX, |bit| bit - 1);
        (self.0.next_u64() & mask).min(high)
    }

    /// One of several, by their weights.
    pub(super) fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> Option<T> {
        let total: u64 = choices.iter().map(|(weight, _)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut at = self.below(total);
        for (weight, choice) in choices {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return Some(*choice),
            }
        }
        None
    }

    /// 32 random bytes.
    pub(super) fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
