//! Whether the device is still there, and reads (docs/protocol.md §13: 4001, 4003).
//!
//! ```text
//!  last heard ── period ──▶ ping ── period ──▶ given up          given to the socket ── write timeout ──▶ too slow
//! ```
use std::time::Duration;

use crate::bounds::MAX_PINGS;
use crate::closing::End;

/// Times are [`crate::now::Now::steady_millis`].
#[derive(Debug)]
pub(super) struct KeepAlive {
    period: u64,
    write_timeout: u64,
    heard_at: u64,
    /// When a ping was sent that nothing has answered yet.
    pinged_at: Option<u64>,
    /// Pings of the device's, and since when they are counted.
    pings: (u32, u64),
    /// When the socket began to owe us a complete flush.
    owed_since: Option<u64>,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
}

impl KeepAlive {
    pub(super) fn new(period: Duration, write_timeout: Duration, now: u64) -> Self {
        Self {
            period: milliseconds(period),
            write_timeout: milliseconds(write_timeout),
            heard_at: now,
            pinged_at: None,
            pings: (0, now),
            owed_since: None,
        }
    }

    /// Something came, whatever it was.
    pub(super) fn heard(&mut self, now: u64) {
        self.heard_at = now;
        self.pinged_at = None;
    }

    /// A ping came.
    pub(super) fn pinged(&mut self, now: u64) -> Result<(), End> {
        self.heard(now);
        if now >= self.pings.1.saturating_add(self.period) {
            self.pings = (0, now);
        }
        self.pings.0 = self.pings.0.saturating_add(1);
        if self.pings.0 > MAX_PINGS {
            return Err(End::TooManyPings);
        }
        Ok(())
    }

    /// An answer to a ping came; one that nobody has asked for is like a ping.
    pub(super) fn ponged(&mut self, now: u64) -> Result<(), End> {
        if self.pinged_at.is_none() {
            return self.pinged(now);
        }
        self.heard(now);
        Ok(())
    }

    /// Something was given to the socket.
    pub(super) fn owed(&mut self, now: u64) {
        self.owed_since.get_or_insert(now);
    }

    /// The socket has taken everything.
    pub(super) fn flushed(&mut self) {
        self.owed_since = None;
    }

    /// The next moment at which something is due.
    pub(super) fn deadline(&self) -> u64 {
        let silent_at = self.silent_since().saturating_add(self.period);
        self.too_slow_at().map_or(silent_at, |at| at.min(silent_at))
    }

    fn silent_since(&self) -> u64 {
        self.pinged_at.unwrap_or(self.heard_at)
    }

    fn too_slow_at(&self) -> Option<u64> {
        self.owed_since
            .map(|since| since.saturating_add(self.write_timeout))
    }

    /// Looks at the time.
    pub(super) fn check(&mut self, now: u64) -> Result<Due, End> {
        if self.too_slow_at().is_some_and(|at| now >= at) {
            return Err(End::TooSlow);
        }
        if now < self.silent_since().saturating_add(self.period) {
            return Ok(Due::Nothing);
        }
        if self.pinged_at.is_some() {
            return Err(End::Silent);
        }
        self.pinged_at = Some(now);
        Ok(Due::Ping)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_nobody_asked_for_are_bounded_as_pings_are() {
        let mut device = new();
        for _ in 0..MAX_PINGS {
            device.ponged(2_000).unwrap();
        }
        assert!(matches!(device.ponged(2_000), Err(End::TooManyPings)));
        let mut device = new();
        assert_eq!(device.check(31_000).unwrap(), Due::Ping);
        device.ponged(31_001).unwrap();
        assert_eq!(device.deadline(), 61_001);
    }

    fn new() -> KeepAlive {
        KeepAlive::new(Duration::from_secs(30), Duration::from_secs(10), 1_000)
    }

    #[test]
    fn a_device_that_says_nothing_is_pinged_after_one_period_and_given_up_after_another() {
        let mut device = new();
        assert_eq!(device.deadline(), 31_000);
        assert_eq!(device.check(30_999).unwrap(), Due::Nothing);
        assert_eq!(device.check(31_000).unwrap(), Due::Ping);
        assert_eq!(device.check(60_999).unwrap(), Due::Nothing);
        assert_eq!(device.deadline(), 61_000);
        assert!(matches!(device.check(61_000), Err(End::Silent)));
    }

    #[test]
    fn a_device_that_answers_stays_and_one_that_talks_is_not_pinged() {
        let mut device = new();
        for second in (2..1_000).step_by(29) {
            device.heard(second * 1_000);
            assert_eq!(device.check(second * 1_000 + 29_000).unwrap(), Due::Nothing);
        }
        let mut device = new();
        for period in 1..100 {
            let now = 1_000 + period * 30_000;
            assert_eq!(device.check(now).unwrap(), Due::Ping);
            device.heard(now);
        }
    }

    #[test]
    fn a_device_that_does_not_read_is_too_slow_though_it_talks() {
        let mut device = new();
        device.owed(2_000);
        device.owed(5_000);
        device.heard(11_000);
        assert_eq!(device.deadline(), 12_000);
        assert_eq!(device.check(11_999).unwrap(), Due::Nothing);
        assert!(matches!(device.check(12_000), Err(End::TooSlow)));
        device.flushed();
        assert_eq!(device.check(12_000).unwrap(), Due::Nothing);
    }

    #[test]
    fn a_flood_of_pings_is_refused_and_a_new_period_counts_anew() {
        let mut device = new();
        for _ in 0..MAX_PINGS {
            device.pinged(1_000).unwrap();
        }
        for _ in 0..MAX_PINGS {
            device.pinged(31_000).unwrap();
        }
        assert!(matches!(device.pinged(60_999), Err(End::TooManyPings)));
    }
}
