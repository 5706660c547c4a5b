//! What is done to a run, by kind, and how often.

use std::fmt;
use std::ops::AddAssign;

macro_rules! faults {
    ($($kind:ident $name:literal $what:literal,)*) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Fault {
            $(#[doc = $what] $kind,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)*];

            /// Its name in tables.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }

            /// What it does.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$kind => $what,)* }
            }
        }
    };
}

faults! {
    Drop "record dropped" "a record never arrives, and its connection ends",
    Duplicate "record duplicated" "a record arrives twice",
    Reorder "record reordered" "a record arrives after ones sent later",
    Corrupt "record corrupted" "a bit of a record is flipped on its way",
    Delay "record delayed" "a record and what is behind it are late by seconds",
    Partition "partition" "nothing passes between a device and the relay for a while",
    HalfOpen "half-open" "one direction of a connection carries nothing any more",
    Reset "connection reset" "a connection ends at once, with what is on its way",
    RelayKill "relay killed" "the relay's process ends between any two instructions",
    RelayCrash "relay crash" "the relay's machine loses power",
    DeviceKill "device killed" "a device's process ends between any two instructions",
    DeviceCrash "device crash" "a device's machine loses power",
    LostWrite "unsynced write lost" "a write that was not synced is not there after a crash",
    TornWrite "torn write" "of a write that was not synced a part is there after a crash",
    FailedSync "failed fsync" "a sync fails, and any part of what it covered is lost",
    DiskFull "disk full" "a write fails because the disk is full",
    ClockJump "clock jump" "a clock is set forward or back",
    TokenExpired "token expired" "a device's token is over, and there is no new one",
    StoreRestored "store restored" "a device's store is put back to an old copy",
    Away "device away" "a device is away for minutes",
    SmallMailboxes "small mailboxes" "a run whose mailboxes hold little, or not for long",
    Removal "device removed" "a user removes one of their devices",
}

/// How often each kind of fault happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally([u64; Fault::ALL.len()]);

impl Tally {
    /// One more.
    pub fn add(&mut self, fault: Fault) {
        self.add_many(fault, 1);
    }

    /// `count` more.
    pub fn add_many(&mut self, fault: Fault, count: u64) {
        if let Some(slot) = self.0.get_mut(fault as usize) {
            *slot += count;
        }
    }

    /// How often a kind happened.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0.get(fault as usize).copied().unwrap_or_default()
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        for (slot, more) in self.0.iter_mut().zip(other.0) {
            *slot += more;
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
