//! What happened in a run: a number that two equal runs have in common, and on demand every line.

use std::fmt::Display;

use super::schedule::Millis;

/// A run's events.
#[derive(Debug)]
pub(super) struct Trace {
    hash: u64,
    steps: u64,
    prints: bool,
}

impl Trace {
    /// Nothing happened yet. With `prints`, each event is a line on stderr.
    #[must_use]
    pub(super) fn new(prints: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            steps: 0,
            prints,
        }
    }

    /// Notes an event: `facts` are what of it has to be the same in an equal run.
    pub(super) fn note<L: Display>(
        &mut self,
        now: Millis,
        facts: [u64; 3],
        line: impl FnOnce() -> L,
    ) {
        self.steps += 1;
        for fact in std::iter::once(now).chain(facts) {
            // FNV-1a, over words.
            self.hash = (self.hash ^ fact).wrapping_mul(0x0100_0000_01b3);
            self.hash ^= self.hash >> 29;
        }
        if self.prints {
            eprintln!("{:>9}.{:03} {}", now / 1_000, now % 1_000, line());
        }
    }

    /// Two runs with the same number did the same.
    #[must_use]
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    #[must_use]
    pub(super) fn steps(&self) -> u64 {
        self.steps
    }
}
