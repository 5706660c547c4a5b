//! An end that costs nobody anything: links leave one after another, each with its answers given, and are told when to come back.
//!
//! ```text
//!  drain begins: no new connection, not ready
//!   ├─ each link, at its moment in the window: reads no more, answers what is open, says Leaving, closes with 4000
//!   └─ all have left, or the window and a grace are over ─▶ shutdown
//! ```
use std::time::Duration;

use sealwire_protocol::key::Thumbprint;

use crate::now::Now;

/// Links that leave in a second: so many come back to this or another relay in about that time, and their handshakes take no more than a part of a
/// processor.
const LEAVING_PER_SECOND: u64 = 500;

/// How a relay is drained ([`crate::Relay::drain`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "it is for Relay::drain"]
pub struct Drain {
    window: Duration,
    return_after: Duration,
}

impl Default for Drain {
    /// Within 10 seconds, to come back a second later.
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            return_after: Duration::from_secs(1),
        }
    }
}

impl Drain {
    /// Sets the time within which links leave. Few links leave sooner: about 500 in a second.
    pub fn within(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sets how long after the last link has left there is a relay again: nothing where another one has taken over already.
    pub fn return_after(mut self, time: Duration) -> Self {
        self.return_after = time;
        self
    }

    /// The time within which links leave.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// How long after that there is a relay again.
    #[must_use]
    pub fn returns_after(&self) -> Duration {
        self.return_after
    }

    /// Begins with so many links.
    pub(crate) fn begin(self, links: usize, now: Now) -> Draining {
        let needed = (links as u64).saturating_mul(1_000) / LEAVING_PER_SECOND;
        Draining {
            from_millis: now.steady_millis,
            window_millis: needed.min(milliseconds(self.window)),
            return_after_millis: milliseconds(self.return_after),
        }
    }
}

/// A drain that goes on. Times are [`Now::steady_millis`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Draining {
    from_millis: u64,
    window_millis: u64,
    return_after_millis: u64,
}

impl Draining {
    /// When a device's link leaves. Thumbprints are hashes, so this is spread evenly.
    pub(crate) fn leaves_at(&self, device: &Thumbprint) -> u64 {
        self.from_millis.saturating_add(self.share(device))
    }

    /// How long a device whose link leaves now is to stay away, in milliseconds: until the last has left and there is a relay again, and then again one
    /// after another.
    pub(crate) fn stays_away(&self, device: &Thumbprint, now: Now) -> u64 {
        let last = self.from_millis.saturating_add(self.window_millis);
        last.saturating_sub(now.steady_millis)
            .saturating_add(self.return_after_millis)
            .saturating_add(self.share(device))
    }

    /// The time in which every link has its moment.
    pub(crate) fn window(&self) -> Duration {
        Duration::from_millis(self.window_millis)
    }

    /// A device's part of the window.
    fn share(&self, device: &Thumbprint) -> u64 {
        let [a, b, ..] = *device.as_bytes();
        let sixteenth = u64::from(u16::from_be_bytes([a, b]));
        self.window_millis.saturating_mul(sixteenth) >> 16
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(steady_millis: u64) -> Now {
        Now {
            millis: 0,
            steady_millis,
        }
    }

    fn device(first: u8) -> Thumbprint {
        let mut bytes = [0; 32];
        bytes[0] = first;
        Thumbprint::from_bytes(bytes)
    }

    #[test]
    fn links_leave_one_after_another_and_come_back_after_the_last() {
        let drain = Drain::default().within(Duration::from_secs(4));
        let draining = drain.begin(100_000, at(1_000));
        assert_eq!(draining.window(), Duration::from_secs(4));
        for (first, leaves, returns) in [(0, 1_000, 5_000), (64, 2_000, 5_000), (128, 3_000, 5_000)]
        {
            let device = device(first);
            assert_eq!(draining.leaves_at(&device), leaves);
            // Second 5: the last has left; second 6: there is a relay again.
            let stays_away = draining.stays_away(&device, at(leaves));
            assert_eq!(leaves + stays_away, returns + 1_000 + leaves - 1_000);
        }
    }

    #[test]
    fn few_links_leave_soon_and_none_at_once() {
        let drain = Drain::default();
        assert_eq!(drain.begin(0, at(0)).window(), Duration::ZERO);
        assert_eq!(drain.begin(50, at(0)).window(), Duration::from_millis(100));
    }

    #[test]
    fn a_device_whose_moment_is_over_stays_away_until_there_is_a_relay() {
        let drain = Drain::default().return_after(Duration::from_millis(700));
        let draining = drain.begin(1, at(0));
        assert_eq!(draining.stays_away(&device(0), at(1_000_000)), 700);
    }
}
