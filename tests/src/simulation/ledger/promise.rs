//! What is promised, and how a promise can be broken.

use std::fmt;

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// What was accepted is shown to every device that it was for, or its sender is told that it will not be.
    Lost,
    /// Nothing is shown twice, except after a restart and then with the flag that says so.
    Twice,
    /// What a device sends to a user is shown, on each device that gets it, in the order in which it was sent.
    Order,
    /// What is shown is what was sent, by whom it was sent, to whom it was sent.
    Content,
    /// A sender knows what became of every message.
    Untold,
    /// No message arrives that cannot be opened.
    Undecryptable,
    /// A receipt says only what has happened, and once.
    Receipt,
    /// The application is told that its store was put back, where that matters, and otherwise never.
    Restored,
    /// Nobody is told of losses, changes or repairs where there were none.
    Alarm,
    /// No key is used with the same nonce twice.
    Nonce,
    /// Queues and tables stay within their bounds.
    Bounds,
    /// When the faults end, everything comes to rest.
    Rest,
    /// Nothing panics.
    Panic,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Lost,
        Self::Twice,
        Self::Order,
        Self::Content,
        Self::Untold,
        Self::Undecryptable,
        Self::Receipt,
        Self::Restored,
        Self::Alarm,
        Self::Nonce,
        Self::Bounds,
        Self::Rest,
        Self::Panic,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "accepted implies shown",
            Self::Twice => "shown once",
            Self::Order => "order per sender",
            Self::Content => "content as sent",
            Self::Untold => "sender told",
            Self::Undecryptable => "everything opens",
            Self::Receipt => "receipts are true",
            Self::Restored => "old copies found out",
            Self::Alarm => "no false alarm",
            Self::Nonce => "no nonce repeats",
            Self::Bounds => "memory bounded",
            Self::Rest => "comes to rest",
            Self::Panic => "nothing panics",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}
