//! When to try again: exponential back-off with full jitter.
//!
//! Full jitter (a uniformly random delay between nothing and the current ceiling) spreads the reconnects of many devices
//! after a relay's restart as evenly as anything does.

use std::time::Duration;

use rand::{Rng, RngExt as _};

/// The first ceiling.
const BASE: Duration = Duration::from_millis(500);
/// No delay is shorter: whatever goes wrong, and however often, a device does not spin.
const FLOOR: Duration = Duration::from_millis(100);
/// The last ceiling.
pub(super) const CAP: Duration = Duration::from_secs(30);

/// Counts failures and gives delays.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure: uniformly random from 0.1 s up to 0.5 s, 1 s, 2 s, … and at most 30 s.
    pub(crate) fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        let ceiling = BASE
            .saturating_mul(1_u32.checked_shl(self.failures.min(31)).unwrap_or(u32::MAX))
            .min(CAP);
        self.failures = self.failures.saturating_add(1);
        FLOOR + (ceiling - FLOOR).mul_f64(rng.random_range(0.0..=1.0))
    }

    /// Starts anew, after a connection that held.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    fn largest_of_many(failures: u32) -> Duration {
        let mut rng = StdRng::seed_from_u64(1);
        (0..2_000)
            .map(|_| Backoff { failures }.next_delay(&mut rng))
            .max()
            .unwrap()
    }

    #[test]
    fn delay_stays_under_a_ceiling_that_doubles() {
        for (failures, ceiling) in [(0, 500), (1, 1_000), (2, 2_000), (5, 16_000)] {
            let largest = largest_of_many(failures);
            let ceiling = Duration::from_millis(ceiling);
            assert!(
                largest <= ceiling && largest > ceiling.mul_f64(0.95),
                "{failures}: {largest:?}"
            );
        }
    }

    #[test]
    fn delay_never_exceeds_the_cap() {
        for failures in [6, 7, 31, 32, 1_000, u32::MAX] {
            assert!(largest_of_many(failures) <= CAP, "{failures}");
        }
    }

    #[test]
    fn delays_are_spread_down_to_the_floor_and_never_below_it() {
        let mut rng = StdRng::seed_from_u64(2);
        let smallest = (0..2_000)
            .map(|_| Backoff { failures: 9 }.next_delay(&mut rng))
            .min()
            .unwrap();
        assert!(
            (FLOOR..Duration::from_millis(300)).contains(&smallest),
            "{smallest:?}"
        );
    }

    #[test]
    fn reset_starts_with_the_first_ceiling() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.next_delay(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next_delay(&mut rng) <= BASE);
    }
}
