//! How fast a device's frames and bytes are read: who sends faster is read later, and loses nothing (docs/protocol.md §5.5).
use crate::policy::Allowance;

/// Microseconds in a minute.
const MINUTE: u64 = 60_000_000;
/// Microseconds of its rate that a link may be ahead.
const BURST: u64 = 1_000_000;

/// Two leaky buckets (GCRA, as in ATM Forum TM 4.0 §4.4.2). Times are microseconds of the steady clock.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// When what was read would have come at the allowed rate.
    frames: u64,
    bytes: u64,
}

impl Throttle {
    /// Counts what a record had. `Some`: nothing more is to be read before this moment, in [`crate::now::Now::steady_millis`].
    pub(super) fn spend(
        &mut self,
        frames: u64,
        bytes: u64,
        allowance: &Allowance,
        steady_millis: u64,
    ) -> Option<u64> {
        let now = steady_millis.saturating_mul(1_000);
        let frames = take(&mut self.frames, frames, allowance.frames_per_minute, now);
        let bytes = take(&mut self.bytes, bytes, allowance.bytes_per_minute, now);
        let until = frames.max(bytes);
        (until > now).then(|| until.div_ceil(1_000))
    }
}

/// Adds to a bucket, and gives the moment at which it is no more than [`BURST`] ahead.
fn take(arrival: &mut u64, count: u64, per_minute: u64, now: u64) -> u64 {
    let cost = count.saturating_mul(MINUTE) / per_minute.max(1);
    *arrival = (*arrival).max(now).saturating_add(cost);
    arrival.saturating_sub(BURST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowing(frames: u64, bytes: u64) -> Allowance {
        Allowance {
            frames_per_minute: frames,
            bytes_per_minute: bytes,
            ..Allowance::default()
        }
    }

    #[test]
    fn a_second_s_worth_may_come_at_once_and_the_rest_at_its_rate() {
        // Ten frames a second.
        let allowance = allowing(600, u64::MAX);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.spend(10, 0, &allowance, 5_000), None);
        assert_eq!(throttle.spend(1, 0, &allowance, 5_000), Some(5_100));
        assert_eq!(throttle.spend(1, 0, &allowance, 5_200), None);
        assert_eq!(throttle.spend(1, 0, &allowance, 5_200), Some(5_300));
        // Who was silent has saved a second's worth up, and no more.
        assert_eq!(throttle.spend(10, 0, &allowance, 60_000), None);
        assert_eq!(throttle.spend(1, 0, &allowance, 60_000), Some(60_100));
    }

    #[test]
    fn bytes_and_frames_are_both_bounded() {
        let allowance = allowing(u64::MAX, 60_000);
        let mut throttle = Throttle::default();
        assert_eq!(throttle.spend(1_000_000, 1_000, &allowance, 0), None);
        assert_eq!(throttle.spend(0, 500, &allowance, 0), Some(500));
    }

    #[test]
    fn nothing_overflows() {
        let allowance = allowing(0, 1);
        let mut throttle = Throttle::default();
        let never = throttle.spend(u64::MAX, u64::MAX, &allowance, u64::MAX);
        assert!(never.is_none() || never > Some(u64::MAX / 1_000_000));
    }
}
