//! What an application is told that is no message, and when it may be told so.
//!
//! | it is told | only where |
//! | --- | --- |
//! | a device has its message | that device was sent it; once |
//! | a device will not get its message | the relay has given it up, by its terms or because the device was removed, or had no room, if the device is of the sender's own user; once, and not of one that has confirmed it |
//! | messages of a device are missing | the relay has refused or given up as many that were sealed for it |
//! | the mailbox may have lost something | the relay's disk has, which none here does |
//! | a session was repaired | its store was put back, or the other's, and no relay could tell, or a clock was wrong |
//! | a user's devices have changed | they have; of each device once |
//! | the store was put back | it was, and the relay knew more; once |
//!
//! What was told and may not be erased yet may come again after a restart.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Ledger, Millis, Number, Place};

/// By how much a clock may be off, in milliseconds, so that no message comes from the future by another that is off as much: half of
/// what is tolerated.
const TOLERATED: u64 = 30_000;

/// Something that an application is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Alarm {
    /// A device has its message.
    Delivered { number: Number, by: usize },
    /// A device will not get its message.
    NotDelivered {
        number: Number,
        by: usize,
        reason: Reason,
    },
    /// So many messages of a device are missing.
    Missing { from: usize, count: u32 },
    /// Something may be missing in its mailbox.
    MailboxGap,
    /// The session with a device was repaired.
    Repaired { with: usize },
    /// A user's devices have changed.
    Changed {
        user: usize,
        added: Vec<usize>,
        removed: Vec<usize>,
    },
    /// Its store was put back.
    Restored,
}

/// Why a message does not get to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Reason {
    /// Nobody has fetched it in time.
    Expired,
    /// The device was removed.
    Removed,
    /// The device is one of the sender's own, and its mailbox had no room.
    NoRoom,
}

/// What the application on a device was told.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// How often it was told what became of a message at a device.
    heard: BTreeMap<(Number, usize), u32>,
    not_delivered: BTreeSet<(Number, usize)>,
    missing: BTreeMap<usize, u32>,
    repaired: BTreeMap<usize, u32>,
    added: BTreeSet<usize>,
    removed: BTreeSet<usize>,
    /// The store was found to be put back so often, and the application was not told yet.
    owed: u32,
    /// It was found so often by a process that died over it: it may have stored that, or may have to find it again.
    maybe_owed: u32,
    /// What may not be erased yet.
    unsure: Vec<Alarm>,
}

impl Told {
    /// The store was found to be put back, or not, and that is stored, or not.
    pub(super) fn owe_restored(&mut self, found: bool, stored: bool) {
        let maybe = std::mem::take(&mut self.maybe_owed);
        match (found, stored) {
            (false, true) => self.owed += maybe,
            (false, false) => self.maybe_owed = maybe,
            (true, true) => self.owed += 1,
            (true, false) => self.maybe_owed = 1,
        }
    }
}

impl Ledger {
    /// A device's application is told something. `is_new`: since its store was opened.
    pub(in super::super) fn told(
        &mut self,
        device: usize,
        alarm: Alarm,
        is_new: bool,
        now: Millis,
    ) {
        let Some(reader) = self.readers.get_mut(device) else {
            return;
        };
        let told = &mut reader.memory.told;
        if !is_new && told.unsure.contains(&alarm) {
            return;
        }
        told.unsure.push(alarm.clone());
        let (invariant, wrong) = match alarm {
            Alarm::Delivered { number, by } => {
                (Invariant::Receipt, self.wrong_delivered(device, number, by))
            }
            Alarm::NotDelivered { number, by, reason } => (
                Invariant::Alarm,
                self.wrong_not_delivered(device, number, by, reason, now),
            ),
            Alarm::Missing { from, count } => {
                // Whoever sent them may not have heard yet that they were refused.
                let missing = told.missing.entry(from).or_default();
                *missing = missing.saturating_add(count);
                (Invariant::Alarm, None)
            }
            Alarm::MailboxGap => (Invariant::Alarm, Some("no mailbox has lost anything")),
            Alarm::Repaired { with } => (Invariant::Alarm, self.wrong_repaired(device, with)),
            Alarm::Changed {
                user,
                ref added,
                ref removed,
            } => (
                Invariant::Alarm,
                self.wrong_changed(device, user, added, removed),
            ),
            Alarm::Restored => (Invariant::Restored, self.wrong_restored(device)),
        };
        self.check(invariant);
        if let Some(why) = wrong {
            let what = format!("device {device} is told {alarm:?}, and {why}");
            self.violate(invariant, what);
        }
    }

    /// What the application on a device was told is erased.
    pub(in super::super) fn erased(&mut self, device: usize, alarms: &[Alarm]) {
        if let Some(told) = self.told_mut(device) {
            told.unsure.retain(|alarm| !alarms.contains(alarm));
        }
    }

    /// A sender is told that a message was read on a device.
    pub(in super::super) fn read(&mut self, number: Number, by: usize) {
        self.check(Invariant::Receipt);
        let sent = self.messages.get(number);
        if !sent.is_some_and(|sent| sent.shown.contains(&by)) {
            self.violate(
                Invariant::Receipt,
                format!("device {by} has read what it was not shown"),
            );
        }
    }

    /// The clock of a device is off by this from here on, in milliseconds.
    pub(in super::super) fn clock_set(&mut self, device: usize, offset: i64) {
        if let Some(reader) = self.readers.get_mut(device)
            && offset.unsigned_abs() > TOLERATED
        {
            reader.clock_sets += 1;
        }
    }

    /// Whether a device's application was told that another does not get a message.
    pub(super) fn is_told_of(&self, device: usize, number: Number, by: usize) -> bool {
        let reader = self.readers.get(device);
        reader.is_some_and(|reader| reader.memory.told.not_delivered.contains(&(number, by)))
    }

    pub(super) fn finish_alarms(&mut self) {
        for device in 0..self.readers.len() {
            let is_removed = self
                .readers
                .get(device)
                .is_some_and(|reader| reader.is_removed);
            if is_removed && self.place(device) != Place::Gone {
                let what = format!("device {device} is removed, and goes on");
                self.violate(Invariant::Rest, what);
            }
            let owed = self.told_mut(device).map_or(0, |told| told.owed);
            if owed > 0 && self.place(device) != Place::Gone {
                let what = format!("device {device} is never told that its store was put back");
                self.violate(Invariant::Restored, what);
            }
            self.finish_missing(device);
        }
    }

    fn finish_missing(&mut self, device: usize) {
        let missing = self
            .told_mut(device)
            .map(|told| std::mem::take(&mut told.missing));
        for (from, missing) in missing.unwrap_or_default() {
            let refused = self.refused.get(&(from, device)).copied();
            let refused = refused.unwrap_or_default();
            // What comes from the future is put off, and what follows it is not.
            let early = self.clock_sets(device) > 0 || self.clock_sets(from) > 0;
            // Whoever is gone does not hear of what the relay gives up.
            let unheard = self.place(from) != Place::There;
            if missing > refused && !early && !unheard {
                let what = format!(
                    "device {device} is told that {missing} messages of device {from} are missing, and only {refused} were refused"
                );
                self.violate(Invariant::Alarm, what);
            }
        }
    }

    /// How often a device's store was put back.
    fn put_back(&self, device: usize) -> u32 {
        let reader = self.readers.get(device);
        reader.map_or(0, |reader| reader.put_back)
    }

    fn clock_sets(&self, device: usize) -> u32 {
        let reader = self.readers.get(device);
        reader.map_or(0, |reader| reader.clock_sets)
    }

    fn told_mut(&mut self, device: usize) -> Option<&mut Told> {
        let reader = self.readers.get_mut(device)?;
        Some(&mut reader.memory.told)
    }

    fn wrong_delivered(
        &mut self,
        device: usize,
        number: Number,
        by: usize,
    ) -> Option<&'static str> {
        let sent = self.messages.get(number)?;
        let was_for = sent.sealed_for.contains(&by) || sent.sealed_again_for.contains(&by);
        let given = sent.given;
        let heard = self
            .told_mut(device)?
            .heard
            .entry((number, by))
            .or_default();
        *heard += 1;
        if !was_for {
            Some("it was not sent to that device")
        } else if *heard > given {
            Some("was told what became of it before")
        } else {
            None
        }
    }

    fn wrong_not_delivered(
        &mut self,
        device: usize,
        number: Number,
        by: usize,
        reason: Reason,
        now: Millis,
    ) -> Option<&'static str> {
        let sent = self.messages.get(number)?;
        let was_for = sent.sealed_for.contains(&by) || sent.sealed_again_for.contains(&by);
        let held = self.terms.retention.zip(sent.pushed).map(|(held, from)| {
            from.saturating_add(held)
                .saturating_sub(self.terms.relay_clock)
        });
        let is_over = match reason {
            Reason::Expired => held.is_some_and(|until| until <= now),
            Reason::Removed => self.place(by) != Place::There,
            Reason::NoRoom => {
                let user_of = |device: usize| self.readers.get(device).map(|reader| reader.user);
                self.terms.small && user_of(device) == user_of(by)
            }
        };
        let given = sent.given;
        let told = self.told_mut(device)?;
        told.not_delivered.insert((number, by));
        let heard = told.heard.entry((number, by)).or_default();
        *heard += 1;
        if !was_for {
            Some("it was not sent to that device")
        } else if !is_over {
            Some("the relay has no reason to give it up")
        } else if *heard > given {
            Some("was told what became of it before")
        } else {
            None
        }
    }

    fn wrong_repaired(&mut self, device: usize, with: usize) -> Option<&'static str> {
        let clocks = self.clock_sets(device) + self.clock_sets(with);
        let put_back = self.put_back(device);
        // A copy that has lost nothing that a relay knows of goes on in its sessions, and the other end may have got further in them.
        let unfound = self.readers.get(with).map_or(0, |reader| reader.unfound);
        let repaired = self.told_mut(device)?.repaired.entry(with).or_default();
        *repaired += 1;
        if *repaired <= clocks + put_back + unfound {
            None
        } else {
            Some("no session was lost so often")
        }
    }

    fn wrong_changed(
        &mut self,
        device: usize,
        user: usize,
        added: &[usize],
        removed: &[usize],
    ) -> Option<&'static str> {
        let is_of = |other: &usize| {
            let reader = self.readers.get(*other);
            reader.is_some_and(|reader| reader.user == user) && *other != device
        };
        let may_go = |other: &usize| self.place(*other) != Place::There;
        let is_true = added.iter().chain(removed).all(is_of) && removed.iter().all(may_go);
        let told = self.told_mut(device)?;
        let mut is_news = true;
        for other in added {
            is_news &= told.added.insert(*other);
        }
        for other in removed {
            is_news &= told.removed.insert(*other);
        }
        if !is_true {
            Some("they have not")
        } else if !is_news {
            Some("was told so before")
        } else {
            None
        }
    }

    fn wrong_restored(&mut self, device: usize) -> Option<&'static str> {
        let told = self.told_mut(device)?;
        let owed = if told.owed > 0 {
            &mut told.owed
        } else {
            &mut told.maybe_owed
        };
        match owed.checked_sub(1) {
            Some(less) => {
                *owed = less;
                None
            }
            None => Some("it was not, or was told so before"),
        }
    }
}
