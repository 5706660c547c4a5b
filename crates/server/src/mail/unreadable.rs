//! Mail that the disk does not give, and when it is taken for lost.
//!
//! ```text
//!  read fails ──► the link ends (4005), and the device comes back ──► read fails … ──► told as damaged, and what lies behind it is delivered
//!                 └────────── so often, over so long, and everything else works ──────┘
//! ```
//! One bad sector must not keep back what comes after it for ever. But what is told as damaged is acknowledged, and gone: a cable that is loose, or
//! a disk that has gone away as a whole, must not cost a mailbox. So an attempt counts only if something else can be read at the same time, from the disk
//! and not from the system's memory, and the log can be written; otherwise everything begins again. And between the last two of them something
//! has to have been written and synced. What has been given up is still read first each time: should the disk give it after all, it is delivered.
//!
//! All of this is in memory: a new start begins to count again.
use std::collections::BTreeMap;

use super::record::Place;

/// Attempts that have to fail, each of them on another link.
pub(super) const ATTEMPTS: u32 = 3;
/// Milliseconds between the first and the last of them: 10 minutes, in which a cable is plugged in again and a path to a disk found again.
pub(super) const MILLIS: u64 = 10 * 60 * 1_000;
/// Records that are tried in one attempt, where several follow each other that the disk does not give: it may take seconds for each.
pub(super) const MAX_AT_ONCE: usize = 16;
/// Records that are remembered; of more, the one that was tried longest ago is forgotten, and begins again.
const MAX_REMEMBERED: usize = 1_024;

/// What is known of a record that could not be read.
#[derive(Debug, Clone, Copy)]
struct Failed {
    attempts: u32,
    first_millis: u64,
    last_millis: u64,
    /// Up to where the log was durable at the last attempt.
    durable: Place,
    given_up: bool,
}

/// What was found of a record before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// It has not failed since it was last read.
    Nothing,
    Failed,
    GivenUp,
}

/// The records that could not be read when they were last tried.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    failed: BTreeMap<Place, Failed>,
}

impl Unreadable {
    pub(super) fn before(&self, place: Place) -> Before {
        match self.failed.get(&place) {
            None => Before::Nothing,
            Some(failed) if failed.given_up => Before::GivenUp,
            Some(_) => Before::Failed,
        }
    }

    /// It could not be read at `now_millis`, when the log was durable up to `durable`, and the rest of the disk works. Says whether it is given up.
    pub(super) fn failed(&mut self, place: Place, now_millis: u64, durable: Place) -> bool {
        if self.failed.len() >= MAX_REMEMBERED && !self.failed.contains_key(&place) {
            let last = |(_, failed): &(&Place, &Failed)| failed.last_millis;
            if let Some(oldest) = self.failed.iter().min_by_key(last).map(|(place, _)| *place) {
                self.failed.remove(&oldest);
            }
        }
        let failed = self.failed.entry(place).or_insert(Failed {
            attempts: 0,
            first_millis: now_millis,
            last_millis: now_millis,
            durable,
            given_up: false,
        });
        let has_written = durable > failed.durable;
        failed.attempts = failed.attempts.saturating_add(1);
        failed.last_millis = now_millis;
        failed.durable = durable;
        failed.given_up |= has_written
            && failed.attempts >= ATTEMPTS
            && now_millis.saturating_sub(failed.first_millis) >= MILLIS;
        failed.given_up
    }

    /// The disk gives nothing at all: what failed so far says nothing of the records.
    pub(super) fn begin_again(&mut self) {
        self.failed.retain(|_, failed| failed.given_up);
    }

    /// It could be read after all.
    pub(super) fn forget(&mut self, place: Place) {
        self.failed.remove(&place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u32) -> Place {
        Place { segment: 1, offset }
    }

    #[test]
    fn it_takes_attempts_and_time_and_a_disk_that_is_written_to() {
        for (attempts, millis, writes, expected) in [
            (ATTEMPTS, MILLIS, true, true),
            (ATTEMPTS - 1, MILLIS, true, false),
            (ATTEMPTS, MILLIS - 1, true, false),
            (100, MILLIS - 1, true, false),
            (100, 100 * MILLIS, false, false),
        ] {
            let mut unreadable = Unreadable::default();
            let mut ripe = false;
            for attempt in 1..=attempts {
                let now = 7 + if attempt == attempts { millis } else { 0 };
                let durable = place(if writes { attempt } else { 1 });
                ripe = unreadable.failed(place(0), now, durable);
            }
            assert_eq!(ripe, expected, "{attempts} {millis} {writes}");
        }
    }

    #[test]
    fn what_could_be_read_once_begins_again() {
        let mut unreadable = Unreadable::default();
        for attempt in 1..ATTEMPTS {
            unreadable.failed(place(0), 0, place(attempt));
        }
        unreadable.forget(place(0));
        assert_eq!(unreadable.before(place(0)), Before::Nothing);
        assert!(!unreadable.failed(place(0), MILLIS, place(ATTEMPTS)));
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_forgotten() {
        let mut unreadable = Unreadable::default();
        let count = u32::try_from(MAX_REMEMBERED).unwrap() + 1;
        for number in 0..count {
            unreadable.failed(place(number), number.into(), place(1));
        }
        assert_eq!(unreadable.failed.len(), MAX_REMEMBERED);
        assert_eq!(unreadable.before(place(0)), Before::Nothing);
        assert_eq!(unreadable.before(place(count - 1)), Before::Failed);
    }
}
