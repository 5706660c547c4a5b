//! How far a link is with its device's mailbox: what was read, what is sent and not acknowledged, what may be sent next.
//!
//! ```text
//!  positions:  … acknowledged │ sent, not acknowledged │ read up to here │ in the mailbox …
//!                             └────── the window ──────┘
//! ```
use std::collections::VecDeque;

use crate::bounds::{MAX_READ_BYTES, MAX_UNACKNOWLEDGED_BYTES, MAX_UNACKNOWLEDGED_MESSAGES};

/// The window of one link.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Position and size of what the device has not acknowledged.
    sent: VecDeque<(u64, usize)>,
    bytes: usize,
    /// The mailbox was read up to here.
    read_to: u64,
    /// Whether there may be more behind that.
    more: bool,
}

/// What to read next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReadRequest {
    pub(super) after: u64,
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

impl Window {
    /// The window of a link that starts behind what its device has acknowledged.
    pub(super) fn new(acknowledged: u64) -> Self {
        Self {
            sent: VecDeque::new(),
            bytes: 0,
            read_to: acknowledged,
            more: true,
        }
    }

    /// The mailbox has grown.
    pub(super) fn grown(&mut self) {
        self.more = true;
    }

    /// What may be read, if there may be something and the window is not full. A single message may exceed the window in bytes.
    pub(super) fn next(&self) -> Option<ReadRequest> {
        let messages = MAX_UNACKNOWLEDGED_MESSAGES.saturating_sub(self.sent.len());
        let bytes = MAX_UNACKNOWLEDGED_BYTES
            .saturating_sub(self.bytes)
            .min(MAX_READ_BYTES);
        (self.more && messages > 0 && bytes > 0).then_some(ReadRequest {
            after: self.read_to,
            messages,
            bytes,
        })
    }

    /// A message was sent.
    pub(super) fn sent(&mut self, position: u64, bytes: usize) {
        self.sent.push_back((position, bytes));
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// The mailbox was read up to a position; where that did not move, there is nothing more.
    pub(super) fn read_to(&mut self, position: u64) {
        self.more = position > self.read_to;
        self.read_to = self.read_to.max(position);
    }

    /// The position up to which the mailbox was read. Acknowledgements beyond it are of an earlier link, or wrong.
    pub(super) fn position(&self) -> u64 {
        self.read_to
    }

    /// The device has acknowledged everything up to a position.
    pub(super) fn acknowledged(&mut self, position: u64) {
        while let Some((sent, bytes)) = self.sent.front().copied()
            && sent <= position
        {
            self.sent.pop_front();
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        self.read_to = self.read_to.max(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_again_until_the_mailbox_grows() {
        let mut window = Window::new(7);
        assert_eq!(window.next().map(|next| next.after), Some(7));
        window.read_to(7);
        assert_eq!(window.next(), None);
        window.grown();
        assert_eq!(window.next().map(|next| next.after), Some(7));
    }

    #[test]
    fn a_device_that_does_not_acknowledge_gets_no_more_than_the_window() {
        let mut window = Window::new(0);
        for position in 1..=MAX_UNACKNOWLEDGED_MESSAGES as u64 {
            window.sent(position, 1);
            window.read_to(position);
        }
        assert_eq!(window.next(), None);
        window.acknowledged(1);
        assert_eq!(window.next().map(|next| next.messages), Some(1));
    }

    #[test]
    fn the_window_is_bounded_in_bytes_too() {
        let mut window = Window::new(0);
        window.sent(1, MAX_UNACKNOWLEDGED_BYTES - 1);
        window.read_to(1);
        assert_eq!(window.next().map(|next| next.bytes), Some(1));
        window.sent(2, 1);
        window.read_to(2);
        assert_eq!(window.next(), None);
    }

    #[test]
    fn an_acknowledgement_from_an_earlier_link_moves_the_start() {
        let mut window = Window::new(3);
        window.acknowledged(5);
        assert_eq!(window.next().map(|next| next.after), Some(5));
        window.acknowledged(4);
        assert_eq!(window.position(), 5);
    }
}
