//! Virtual time: what happens next, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Milliseconds since a run's beginning. Only [`Schedule::next`] moves it.
pub(super) type Millis = u64;

/// What is to happen, in the order of its time, and in the order in which it was said where the time is the same.
#[derive(Debug)]
pub(super) struct Schedule<E> {
    now: Millis,
    said: u64,
    queue: BinaryHeap<Reverse<Due<E>>>,
}

#[derive(Debug)]
struct Due<E> {
    at: Millis,
    said: u64,
    event: E,
}

impl<E> Schedule<E> {
    /// Nothing is to happen.
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            now: 0,
            said: 0,
            queue: BinaryHeap::new(),
        }
    }

    /// The time.
    #[must_use]
    pub(super) fn now(&self) -> Millis {
        self.now
    }

    /// Lets `event` happen at `at`, or at once if that is over.
    pub(super) fn at(&mut self, at: Millis, event: E) {
        self.said += 1;
        self.queue.push(Reverse(Due {
            at: at.max(self.now),
            said: self.said,
            event,
        }));
    }

    /// The next event; time is then when it happens.
    pub(super) fn next(&mut self) -> Option<E> {
        let Reverse(due) = self.queue.pop()?;
        self.now = due.at;
        Some(due.event)
    }
}

impl<E> Default for Schedule<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> PartialEq for Due<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.said) == (other.at, other.said)
    }
}

impl<E> Eq for Due<E> {}

impl<E> PartialOrd for Due<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Due<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.said).cmp(&(other.at, other.said))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_the_order_of_their_time_then_of_their_saying() {
        let mut schedule = Schedule::new();
        for (at, event) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            schedule.at(at, event);
        }
        let mut seen = Vec::new();
        while let Some(event) = schedule.next() {
            seen.push((schedule.now(), event));
        }
        assert_eq!(seen, [(1, 'a'), (2, 'b'), (5, 'c'), (5, 'd')]);
    }

    #[test]
    fn time_does_not_go_back() {
        let mut schedule = Schedule::new();
        schedule.at(9, 1);
        schedule.next();
        schedule.at(3, 2);
        assert_eq!((schedule.next(), schedule.now()), (Some(2), 9));
    }
}
