//! How long the relay may take: for anything at all, for some answer, and for each of them.
//!
//! A link is read, and its pings are answered, also while the inbox is full. Only a relay that gives more messages than it may (256 that are not
//! acknowledged, where the inbox takes 512 more) is not read until the application makes room; meanwhile nothing can be late.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{ANSWER_TIMEOUT, REQUEST_TIMEOUT, SILENCE_LIMIT};

/// What the relay owes, and since when.
pub(super) struct Patience {
    reading: bool,
    heard: Instant,
    /// When a request was last answered, or the first one sent.
    progress: Instant,
    /// When each request that is open was sent.
    asked: BTreeMap<u32, Instant>,
}

impl Patience {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            reading: true,
            heard: now,
            progress: now,
            asked: BTreeMap::new(),
        }
    }

    /// Whether the link is read from now on. What was late because it was not read is given its time anew.
    pub(super) fn read(&mut self, reading: bool, now: Instant) {
        if reading && !self.reading {
            self.heard = now;
            self.progress = now;
            for asked in self.asked.values_mut() {
                *asked = now;
            }
        }
        self.reading = reading;
    }

    /// Something has arrived.
    pub(super) fn heard(&mut self, at: Instant) {
        self.heard = self.heard.max(at);
    }

    pub(super) fn asked(&mut self, request: u32, now: Instant) {
        if self.asked.is_empty() {
            self.progress = now;
        }
        self.asked.insert(request, now);
    }

    pub(super) fn answered(&mut self, request: u32, now: Instant) {
        self.asked.remove(&request);
        self.progress = now;
    }

    /// When the relay will have taken too long, if nothing comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if !self.reading {
            return None;
        }
        let after = |since: Instant, limit: Duration| since.checked_add(limit);
        let some = (!self.asked.is_empty()).then_some(self.progress);
        let oldest = self.asked.values().min().copied();
        [
            after(self.heard, SILENCE_LIMIT),
            some.and_then(|since| after(since, REQUEST_TIMEOUT)),
            oldest.and_then(|since| after(since, ANSWER_TIMEOUT)),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_too_long_after_a_minute() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        assert_eq!(patience.deadline(), Some(start + SILENCE_LIMIT));
        patience.heard(start + seconds(5));
        assert_eq!(
            patience.deadline(),
            Some(start + seconds(5) + SILENCE_LIMIT)
        );
    }

    #[test]
    fn nothing_is_late_while_nothing_is_read_nor_right_after() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        patience.asked(1, start);
        patience.read(false, start + seconds(1));
        assert_eq!(patience.deadline(), None);
        let resumed = start + seconds(3_600);
        patience.read(true, resumed);
        assert_eq!(patience.deadline(), Some(resumed + REQUEST_TIMEOUT));
    }

    #[test]
    fn request_that_is_passed_over_is_late_although_others_are_answered() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        patience.asked(1, start);
        for (request, second) in (2..).zip(1..ANSWER_TIMEOUT.as_secs()) {
            let now = start + seconds(second);
            patience.asked(request, now);
            patience.heard(now);
            patience.answered(request, now);
        }
        assert_eq!(patience.deadline(), Some(start + ANSWER_TIMEOUT));
    }

    #[test]
    fn idle_time_does_not_count_for_the_first_request_after_it() {
        let start = Instant::now();
        let mut patience = Patience::new(start);
        let later = start + seconds(50);
        patience.heard(later);
        patience.asked(1, later);
        assert_eq!(patience.deadline(), Some(later + REQUEST_TIMEOUT));
    }
}
