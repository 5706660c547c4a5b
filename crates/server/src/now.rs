//! The time, as the relay's core is told it: the core never asks.

/// One moment, by both of the clocks that a relay needs. They are told apart because the time of day is set now and then, and what is
/// measured in between must not end early or late by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since 1970: for tokens, cards, the age of mail.
    pub millis: u64,
    /// Milliseconds since some moment, by a clock that nobody sets: for pings, for devices that do not read, for rates.
    pub steady_millis: u64,
}

impl Now {
    /// Seconds since 1970.
    #[must_use]
    pub const fn seconds(self) -> u64 {
        self.millis / 1_000
    }
}
