//! How much a mailbox may hold, and how much of it one sender may fill.
use sealwire_protocol::limits;

/// What part of a mailbox the devices of one user may fill: one in so many of its messages and bytes, so that no sender alone keeps the
/// mail of others out.
pub const SENDER_SHARE: u64 = 8;
/// The same for the user whose mailbox it is: copies of what they send must not keep out what others send them.
pub const OWN_SHARE: u64 = 2;
/// Messages that one user may have in a mailbox however small it is.
pub const MIN_SENDER_MESSAGES: u64 = 16;
/// Bytes that one user may have in a mailbox however small it is: a few of the largest messages.
pub const MIN_SENDER_BYTES: u64 = 4 * limits::MAX_SEALED_MESSAGE_BYTES as u64;

/// How much a mailbox may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Messages.
    pub messages: u64,
    /// Bytes of sealed messages.
    pub bytes: u64,
    /// Seconds until a message that nobody fetched is erased.
    pub retention_seconds: u64,
}

impl MailboxLimits {
    /// What of it one sending user may have.
    #[must_use]
    pub fn share(self) -> Self {
        self.one_in(SENDER_SHARE)
    }

    /// What of it the user may have whose mailbox it is.
    #[must_use]
    pub fn own_share(self) -> Self {
        self.one_in(OWN_SHARE)
    }

    fn one_in(self, parts: u64) -> Self {
        Self {
            messages: (self.messages / parts).max(MIN_SENDER_MESSAGES),
            bytes: (self.bytes / parts).max(MIN_SENDER_BYTES),
            ..self
        }
    }

    /// The lower of each number.
    #[must_use]
    pub fn lower_of(self, other: Self) -> Self {
        Self {
            messages: self.messages.min(other.messages),
            bytes: self.bytes.min(other.bytes),
            retention_seconds: self.retention_seconds.min(other.retention_seconds),
        }
    }
}
