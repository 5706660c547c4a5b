//! Everything about the mailboxes but the messages themselves, in memory: which mail is where, what was acknowledged, what each device has sent.
//!
//! Recovery builds it from the log with the same calls that a running relay makes. Nothing here reads a clock or a disk. A mailbox that holds nothing costs
//! about 100 bytes, a message that is held 64.
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::RangeInclusive;

use hashbrown::HashTable;
#[cfg(unix)]
use sealwire_protocol::key::Thumbprint;

use super::MailboxLimits;
use super::record::Place;
use super::users::{UserNumber, Users};

/// Bits of a position that count within one start of the relay; those above are the start's number (docs/protocol.md §5.2).
pub(super) const COUNTER_BITS: u32 = 40;
/// The highest number of a start.
pub(super) const MAX_START: u32 = (1 << (64 - COUNTER_BITS)) - 1;
/// How far below a device's highest sequence one is still known: the bits of a window (docs/protocol.md §5.1).
const WINDOW: u64 = 64;
/// The sequence of a posting that is no Send of a link.
pub(super) const NO_SEQUENCE: u64 = 0;
/// Notices that a mailbox holds at most; one more than that is not told.
pub(super) const MAX_NOTICES: u32 = 1_024;
/// Emptied mailboxes whose memory is kept for the next that fill.
const MAX_SPARE: usize = 256;
/// Entries for which an emptied mailbox keeps memory.
const MAX_SPARE_ENTRIES: usize = 64;

/// The number of a device in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DeviceNumber(u32);

impl DeviceNumber {
    /// The number of no device.
    pub(super) const NOBODY: Self = Self(u32::MAX);

    /// It, for tables by device.
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }

    /// The device after this one, or the first.
    pub(super) fn next(number: Option<Self>) -> Self {
        number.map_or(Self(0), |number| Self(number.0.saturating_add(1)))
    }
}

/// What lies at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Mail,
    /// A message of this device's was not delivered, for the reason on the wire.
    Notice(u8),
    /// There was something, and the disk has changed it.
    Damaged,
}

/// One position of a mailbox.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) position: u64,
    /// Where the mail is. A notice is all here; of one that came with a posting, where the log has it.
    pub(super) place: Place,
    pub(super) expires_millis: u64,
    pub(super) id: [u8; 16],
    /// The device that sent the mail; of a notice, the one that did not get it.
    pub(super) peer: DeviceNumber,
    /// The user who sent the mail. Each of these two holds a reference.
    pub(super) from_user: UserNumber,
    /// The user whom the mail, or what the notice is about, was for.
    pub(super) to_user: UserNumber,
    /// Bytes of the message.
    pub(super) message_bytes: u32,
    /// Bytes of the record.
    pub(super) record_bytes: u32,
    pub(super) what: What,
}

/// What is held from one user.
#[derive(Debug, Clone, Copy)]
struct Sender {
    user: UserNumber,
    messages: u32,
    bytes: u64,
}

/// A mailbox that holds something.
#[derive(Debug, Default)]
struct Held {
    /// In the order of positions.
    entries: VecDeque<Entry>,
    /// In the order of numbers.
    senders: Vec<Sender>,
    messages: u32,
    notices: u32,
    bytes: u64,
    /// Up to here everything goes back to its senders.
    removed_up_to: u64,
}

impl Held {
    fn count(&mut self, entry: &Entry) {
        match entry.what {
            What::Mail => {}
            What::Notice(_) => {
                self.notices += 1;
                return;
            }
            What::Damaged => return,
        }
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(entry.message_bytes.into());
        let at = match self.find_sender(entry.from_user) {
            Ok(at) => at,
            Err(at) => {
                let new = Sender {
                    user: entry.from_user,
                    messages: 0,
                    bytes: 0,
                };
                self.senders.insert(at, new);
                at
            }
        };
        if let Some(sender) = self.senders.get_mut(at) {
            sender.messages += 1;
            sender.bytes = sender.bytes.saturating_add(entry.message_bytes.into());
        }
    }

    fn uncount(&mut self, entry: &Entry) {
        match entry.what {
            What::Mail => {}
            What::Notice(_) => {
                self.notices = self.notices.saturating_sub(1);
                return;
            }
            What::Damaged => return,
        }
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(entry.message_bytes.into());
        if let Ok(at) = self.find_sender(entry.from_user)
            && let Some(sender) = self.senders.get_mut(at)
        {
            sender.messages = sender.messages.saturating_sub(1);
            sender.bytes = sender.bytes.saturating_sub(entry.message_bytes.into());
            if sender.messages == 0 {
                self.senders.remove(at);
            }
        }
    }

    fn find_sender(&self, user: UserNumber) -> Result<usize, usize> {
        self.senders
            .binary_search_by_key(&user, |sender| sender.user)
    }

    fn find(&self, position: u64) -> Result<usize, usize> {
        self.entries
            .binary_search_by_key(&position, |entry| entry.position)
    }
}

/// A device: its mailbox, and what it has sent.
#[derive(Debug)]
struct Slot {
    id: [u8; 32],
    acknowledged: u64,
    head: u64,
    sent: u64,
    window: u64,
    /// When the mailbox is to be looked at; [`u64::MAX`] for never.
    scheduled: u64,
    limits: Option<Box<MailboxLimits>>,
    held: Option<Box<Held>>,
    /// Whether the log is to be told of `acknowledged` and `limits`.
    unlogged: bool,
}

/// What a sequence of a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequence {
    New,
    Repeated,
    /// Below one that was accepted, so that it was refused: what one device sends comes in order.
    Overtaken,
    /// So far below the highest that it is not known.
    Stale,
}

/// Why a mailbox takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    Mailbox,
    Sender,
}

/// A mailbox as [`super::Mailboxes::status`] tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    pub(super) acknowledged: u64,
    pub(super) head: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) waiting: u64,
}

/// A device as a checkpoint keeps it.
#[derive(Debug)]
pub(super) struct Snapshot<'a> {
    pub(super) id: &'a [u8; 32],
    pub(super) acknowledged: u64,
    pub(super) head: u64,
    pub(super) sent: u64,
    pub(super) window: u64,
    pub(super) limits: Option<&'a MailboxLimits>,
    pub(super) removed_up_to: u64,
    pub(super) entries: Option<&'a VecDeque<Entry>>,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The position before the first that this start gives.
    base: u64,
    table: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Slot>,
    pub(super) users: Users,
    /// (milliseconds, device): when mailboxes are to be looked at. One that does not agree with its mailbox counts for nothing.
    schedule: BinaryHeap<Reverse<(u64, u32)>>,
    /// Bytes of the records that are needed, by segment.
    live: BTreeMap<u32, u64>,
    /// Bytes of the records that have been, and are not any more.
    freed: u64,
    unlogged: Vec<DeviceNumber>,
    #[expect(clippy::vec_box, reason = "a mailbox takes the box as it is")]
    spare: Vec<Box<Held>>,
}

impl Index {
    /// Positions are those of start number `start` from now on.
    pub(super) fn begin(&mut self, start: u32) {
        self.base = u64::from(start) << COUNTER_BITS;
    }

    /// The number of a device that is known.
    pub(super) fn find(&self, id: &[u8; 32]) -> Option<DeviceNumber> {
        let slots = &self.slots;
        self.table
            .find(self.hasher.hash_one(id), |number| {
                slots
                    .get(*number as usize)
                    .is_some_and(|slot| slot.id == *id)
            })
            .map(|number| DeviceNumber(*number))
    }

    /// The number of a device, known from now on.
    pub(super) fn enter(&mut self, id: &[u8; 32]) -> DeviceNumber {
        if let Some(number) = self.find(id) {
            return number;
        }
        // One slot has 96 bytes, so memory ends before the numbers do.
        let number = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        self.slots.push(Slot {
            id: *id,
            acknowledged: 0,
            head: 0,
            sent: 0,
            window: 0,
            scheduled: u64::MAX,
            limits: None,
            held: None,
            unlogged: false,
        });
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.table
            .insert_unique(hasher.hash_one(id), number, |number| {
                slots
                    .get(*number as usize)
                    .map_or(0, |slot| hasher.hash_one(slot.id))
            });
        DeviceNumber(number)
    }

    /// The thumbprint of a device.
    pub(super) fn id(&self, device: DeviceNumber) -> Option<&[u8; 32]> {
        Some(&self.slot(device)?.id)
    }

    fn slot(&self, device: DeviceNumber) -> Option<&Slot> {
        self.slots.get(device.0 as usize)
    }

    fn slot_mut(&mut self, device: DeviceNumber) -> Option<&mut Slot> {
        self.slots.get_mut(device.0 as usize)
    }

    fn held(&self, device: DeviceNumber) -> Option<&Held> {
        self.slot(device)?.held.as_deref()
    }

    /// What `sequence` of a device is (docs/protocol.md §5.1).
    pub(super) fn sequence(&self, device: DeviceNumber, sequence: u64) -> Sequence {
        let (sent, window) = self
            .slot(device)
            .map_or((0, 0), |slot| (slot.sent, slot.window));
        match sent.checked_sub(sequence) {
            None => Sequence::New,
            Some(below) if below >= WINDOW => Sequence::Stale,
            Some(below) if window >> below & 1 == 1 => Sequence::Repeated,
            Some(_) => Sequence::Overtaken,
        }
    }

    /// `sequence` was accepted, if it is one.
    pub(super) fn mark_sent(&mut self, device: DeviceNumber, sequence: u64) {
        if sequence == NO_SEQUENCE {
            return;
        }
        let Some(slot) = self.slot_mut(device) else {
            return;
        };
        if let Some(above) = sequence.checked_sub(slot.sent).filter(|above| *above > 0) {
            let shift = u32::try_from(above).unwrap_or(u32::MAX);
            slot.window = slot.window.checked_shl(shift).unwrap_or(0) | 1;
            slot.sent = sequence;
        } else if slot.sent - sequence < WINDOW {
            slot.window |= 1 << (slot.sent - sequence);
        }
    }

    /// The highest sequence that was accepted; 0 for none.
    pub(super) fn sent(&self, device: DeviceNumber) -> u64 {
        self.slot(device).map_or(0, |slot| slot.sent)
    }

    /// The device's own limits.
    pub(super) fn limits(&self, device: DeviceNumber) -> Option<MailboxLimits> {
        self.slot(device)?.limits.as_deref().copied()
    }

    /// Sets the device's own limits, and says whether that changed them.
    pub(super) fn set_limits(
        &mut self,
        device: DeviceNumber,
        limits: Option<MailboxLimits>,
    ) -> bool {
        let Some(slot) = self.slot_mut(device) else {
            return false;
        };
        if slot.limits.as_deref() == limits.as_ref() {
            return false;
        }
        slot.limits = limits.map(Box::new);
        true
    }

    /// Whether a message of `bytes` from `user` may be held as well, within `limits`, of which `user` may have `share`.
    pub(super) fn admits(
        &self,
        device: DeviceNumber,
        user: Option<UserNumber>,
        bytes: u64,
        limits: MailboxLimits,
        share: MailboxLimits,
    ) -> Result<(), Full> {
        let held = self.held(device);
        let (messages, held_bytes) =
            held.map_or((0, 0), |held| (u64::from(held.messages), held.bytes));
        if messages >= limits.messages || held_bytes.saturating_add(bytes) > limits.bytes {
            return Err(Full::Mailbox);
        }
        let sender = held.zip(user).and_then(|(held, user)| {
            let at = held.find_sender(user).ok()?;
            held.senders.get(at)
        });
        let (messages, held_bytes) =
            sender.map_or((0, 0), |sender| (u64::from(sender.messages), sender.bytes));
        if messages >= share.messages || held_bytes.saturating_add(bytes) > share.bytes {
            return Err(Full::Sender);
        }
        Ok(())
    }

    /// The positions that the next entries of a mailbox get, as far as this start has any left.
    pub(super) fn next_positions(&self, device: DeviceNumber) -> RangeInclusive<u64> {
        let head = self.slot(device).map_or(0, |slot| slot.head).max(self.base);
        let last = self.base | ((1 << COUNTER_BITS) - 1);
        head.saturating_add(1)..=last
    }

    /// Puts an entry into a mailbox, unless its position is acknowledged or taken; says whether it is there now.
    pub(super) fn insert(&mut self, device: DeviceNumber, entry: Entry) -> bool {
        let spare = self.spare.pop();
        let Some(slot) = self.slots.get_mut(device.0 as usize) else {
            return false;
        };
        slot.head = slot.head.max(entry.position);
        let held = match &mut slot.held {
            Some(held) => {
                self.spare.extend(spare);
                held
            }
            None => slot.held.insert(spare.unwrap_or_default()),
        };
        let place = match held.entries.back() {
            Some(last) if last.position >= entry.position => held.find(entry.position),
            _ => Err(held.entries.len()),
        };
        match place {
            Err(at) if entry.position > slot.acknowledged => {
                held.count(&entry);
                held.entries.insert(at, entry);
                if entry.what == What::Mail {
                    let live = self.live.entry(entry.place.segment).or_default();
                    *live += u64::from(entry.record_bytes);
                }
                if entry.expires_millis < slot.scheduled {
                    slot.scheduled = entry.expires_millis;
                    self.schedule
                        .push(Reverse((entry.expires_millis, device.0)));
                }
                true
            }
            _ => {
                self.users.release(entry.from_user);
                self.users.release(entry.to_user);
                self.tidy(device);
                false
            }
        }
    }

    /// Raises what is acknowledged to `position`, or to the head if that is lower, drops what is below, and returns what is acknowledged now. `dead` hears
    /// where the dropped mail was.
    pub(super) fn acknowledge(
        &mut self,
        device: DeviceNumber,
        position: u64,
        mut dead: impl FnMut(Place),
    ) -> u64 {
        let base = self.base;
        let Some(slot) = self.slot_mut(device) else {
            return 0;
        };
        let position = position.min(slot.head.max(base));
        if position <= slot.acknowledged {
            return slot.acknowledged;
        }
        slot.acknowledged = position;
        let Some(mut held) = slot.held.take() else {
            return position;
        };
        while let Some(first) = held.entries.front()
            && first.position <= position
            && let Some(entry) = held.entries.pop_front()
        {
            held.uncount(&entry);
            self.let_go(&entry);
            if entry.what == What::Mail {
                dead(entry.place);
            }
        }
        self.put_back(device, held);
        position
    }

    /// Recovery: what the log says was acknowledged, even if the mail itself is lost.
    pub(super) fn restore_acknowledged(&mut self, device: DeviceNumber, position: u64) {
        if let Some(slot) = self.slot_mut(device) {
            slot.head = slot.head.max(position);
        }
        self.acknowledge(device, position, |_| {});
    }

    /// Takes an entry out of its mailbox. Its references are released.
    pub(super) fn erase(&mut self, device: DeviceNumber, position: u64) -> Option<Entry> {
        let mut held = self.slot_mut(device)?.held.take()?;
        let entry = held
            .find(position)
            .ok()
            .and_then(|at| held.entries.remove(at));
        if let Some(entry) = &entry {
            held.uncount(entry);
            self.let_go(entry);
        }
        self.put_back(device, held);
        entry
    }

    /// The entry at a position.
    pub(super) fn entry(&self, device: DeviceNumber, position: u64) -> Option<&Entry> {
        let held = self.held(device)?;
        held.entries.get(held.find(position).ok()?)
    }

    /// Mail has been copied: it is at `to` now, if it is still needed and was at `from`, or wherever it was. Says whether it was so.
    pub(super) fn relocate(
        &mut self,
        device: DeviceNumber,
        position: u64,
        from: Option<Place>,
        to: Place,
    ) -> bool {
        let live = &mut self.live;
        let entry = self
            .slots
            .get_mut(device.0 as usize)
            .and_then(|slot| slot.held.as_mut())
            .and_then(|held| {
                let at = held.find(position).ok()?;
                held.entries.get_mut(at)
            });
        let Some(entry) = entry else {
            return false;
        };
        if entry.what != What::Mail || from.is_some_and(|from| from != entry.place) {
            return false;
        }
        let bytes = u64::from(entry.record_bytes);
        reduce(live, entry.place.segment, bytes);
        *live.entry(to.segment).or_default() += bytes;
        entry.place = to;
        true
    }

    /// Everything up to the head is to go back to its senders; the device's limits are forgotten. Returns the head.
    pub(super) fn remove(&mut self, device: DeviceNumber, up_to: Option<u64>) -> u64 {
        let Some(slot) = self.slots.get_mut(device.0 as usize) else {
            return 0;
        };
        let up_to = up_to.unwrap_or(slot.head);
        slot.limits = None;
        if let Some(held) = &mut slot.held {
            held.removed_up_to = held.removed_up_to.max(up_to);
            if slot.scheduled > 0 {
                slot.scheduled = 0;
                self.schedule.push(Reverse((0, device.0)));
            }
        }
        up_to
    }

    /// Recovery: what a checkpoint knows of a removal.
    pub(super) fn restore_removed(&mut self, device: DeviceNumber, up_to: u64) {
        let limits = self.limits(device);
        self.remove(device, Some(up_to));
        self.set_limits(device, limits);
    }

    /// What a mailbox has to deliver after a position.
    pub(super) fn after(
        &self,
        device: DeviceNumber,
        position: u64,
    ) -> impl Iterator<Item = &Entry> {
        let slot = self.slot(device);
        let acknowledged = slot.map_or(0, |slot| slot.acknowledged);
        slot.and_then(|slot| slot.held.as_ref())
            .into_iter()
            .flat_map(move |held| {
                let from = position.max(acknowledged).max(held.removed_up_to);
                let first = held.entries.partition_point(|entry| entry.position <= from);
                held.entries.range(first..)
            })
    }

    /// How a mailbox is.
    pub(super) fn state(&self, device: Option<DeviceNumber>) -> State {
        let slot = device.and_then(|device| self.slot(device));
        let held = slot.and_then(|slot| slot.held.as_ref());
        State {
            acknowledged: slot.map_or(0, |slot| slot.acknowledged),
            head: slot.map_or(0, |slot| slot.head).max(self.base),
            messages: held.map_or(0, |held| held.messages.into()),
            bytes: held.map_or(0, |held| held.bytes),
            waiting: held.map_or(0, |held| held.entries.len() as u64),
        }
    }

    /// Notices that a mailbox holds.
    pub(super) fn notices(&self, device: DeviceNumber) -> u32 {
        self.held(device).map_or(0, |held| held.notices)
    }

    /// How much is held, and how much of it by the mailbox and the sender that have most.
    #[cfg(feature = "simulation")]
    pub(super) fn load(&self) -> crate::simulation::MailLoad {
        let mut load = crate::simulation::MailLoad::default();
        for held in self.slots.iter().filter_map(|slot| slot.held.as_ref()) {
            load.entries += held.entries.len();
            load.messages = load.messages.max(held.messages.into());
            load.bytes = load.bytes.max(held.bytes);
            load.notices = load.notices.max(held.notices.into());
            for sender in &held.senders {
                load.messages_of_a_user = load.messages_of_a_user.max(sender.messages.into());
                load.bytes_of_a_user = load.bytes_of_a_user.max(sender.bytes);
            }
        }
        load
    }

    /// A mailbox that is to be looked at by now. [`Index::reschedule`] has to follow.
    pub(super) fn next_due(&mut self, now_millis: u64) -> Option<DeviceNumber> {
        while let Some(Reverse((time, device))) = self.schedule.peek().copied()
            && time <= now_millis
        {
            self.schedule.pop();
            let device = DeviceNumber(device);
            if let Some(slot) = self.slot_mut(device)
                && slot.scheduled == time
            {
                slot.scheduled = u64::MAX;
                if slot.held.is_some() {
                    return Some(device);
                }
            }
        }
        None
    }

    /// Up to `limit` positions of a mailbox whose time is over, and whether that is because it was removed.
    pub(super) fn due(
        &self,
        device: DeviceNumber,
        now_millis: u64,
        limit: usize,
    ) -> Vec<(u64, bool)> {
        let Some(held) = self.held(device) else {
            return Vec::new();
        };
        held.entries
            .iter()
            .map(|entry| (entry, entry.position <= held.removed_up_to))
            .filter(|(entry, removed)| *removed || entry.expires_millis <= now_millis)
            .take(limit)
            .map(|(entry, removed)| (entry.position, removed))
            .collect()
    }

    /// Notes when a mailbox is to be looked at next.
    pub(super) fn reschedule(&mut self, device: DeviceNumber) {
        let Some(slot) = self.slots.get_mut(device.0 as usize) else {
            return;
        };
        let Some(held) = &slot.held else {
            return;
        };
        let next = held
            .entries
            .iter()
            .map(|entry| {
                if entry.position <= held.removed_up_to {
                    0
                } else {
                    entry.expires_millis
                }
            })
            .min()
            .unwrap_or(u64::MAX);
        if next < slot.scheduled {
            slot.scheduled = next;
            self.schedule.push(Reverse((next, device.0)));
        }
    }

    /// The log is to be told of a device's state.
    pub(super) fn note_unlogged(&mut self, device: DeviceNumber) {
        if let Some(slot) = self.slot_mut(device)
            && !std::mem::replace(&mut slot.unlogged, true)
        {
            self.unlogged.push(device);
        }
    }

    /// Whether the log is to be told of something.
    pub(super) fn has_unlogged(&self) -> bool {
        !self.unlogged.is_empty()
    }

    /// A device whose state the log is to be told of, with that state.
    pub(super) fn unlogged(&self) -> Option<(&[u8; 32], u64, Option<&MailboxLimits>)> {
        let slot = self.slot(*self.unlogged.last()?)?;
        Some((&slot.id, slot.acknowledged, slot.limits.as_deref()))
    }

    /// The log has been told of the one that [`Index::unlogged`] gave.
    pub(super) fn logged(&mut self) {
        if let Some(device) = self.unlogged.pop()
            && let Some(slot) = self.slot_mut(device)
        {
            slot.unlogged = false;
        }
    }

    /// Bytes of the records of a segment that are needed.
    pub(super) fn live_bytes(&self, segment: u32) -> u64 {
        self.live.get(&segment).copied().unwrap_or(0)
    }

    /// The numbers of the segments that have needed records.
    pub(super) fn live_segments(&self) -> impl Iterator<Item = &u32> {
        self.live.keys()
    }

    /// Bytes of all records that are needed.
    pub(super) fn all_live_bytes(&self) -> u64 {
        self.live.values().sum()
    }

    /// Counts the bytes of the records that are needed no more.
    pub(super) fn freed_bytes(&self) -> u64 {
        self.freed
    }

    /// Devices that are known.
    pub(super) fn devices(&self) -> usize {
        self.slots.len()
    }

    /// Nothing counts as acknowledged any more.
    #[cfg(unix)]
    pub(super) fn forget_acknowledged(&mut self) {
        for slot in &mut self.slots {
            slot.acknowledged = 0;
        }
    }

    /// At most `at_most` mailboxes from number `from` on.
    #[cfg(unix)]
    pub(super) fn overview(
        &self,
        from: usize,
        at_most: usize,
    ) -> impl Iterator<Item = super::Overview> {
        self.slots.iter().skip(from).take(at_most).map(|slot| {
            let held = slot.held.as_deref();
            let first = held.and_then(|held| held.entries.front());
            super::Overview {
                device: Thumbprint::from_bytes(slot.id),
                waiting: held.map_or(0, |held| held.entries.len() as u64),
                messages: held.map_or(0, |held| held.messages.into()),
                bytes: held.map_or(0, |held| held.bytes),
                expires_millis: first.map(|first| first.expires_millis),
                sent: slot.sent,
            }
        })
    }

    /// A device as a checkpoint keeps it.
    pub(super) fn snapshot(&self, device: DeviceNumber) -> Option<Snapshot<'_>> {
        let slot = self.slot(device)?;
        let held = slot.held.as_ref();
        Some(Snapshot {
            id: &slot.id,
            acknowledged: slot.acknowledged,
            head: slot.head,
            sent: slot.sent,
            window: slot.window,
            limits: slot.limits.as_deref(),
            removed_up_to: held.map_or(0, |held| held.removed_up_to),
            entries: held.map(|held| &held.entries),
        })
    }

    /// Recovery: sets what a checkpoint knows of a device that was not known; its entries follow.
    pub(super) fn restore(
        &mut self,
        id: &[u8; 32],
        [acknowledged, head, sent, window]: [u64; 4],
        limits: Option<MailboxLimits>,
    ) -> DeviceNumber {
        let device = self.enter(id);
        if let Some(slot) = self.slot_mut(device) {
            slot.acknowledged = acknowledged;
            slot.head = head;
            slot.sent = sent;
            slot.window = window;
            slot.limits = limits.map(Box::new);
        }
        device
    }

    /// Every device, by number.
    pub(super) fn numbers(&self) -> impl Iterator<Item = DeviceNumber> + use<> {
        (0..u32::try_from(self.slots.len()).unwrap_or(u32::MAX)).map(DeviceNumber)
    }

    fn let_go(&mut self, entry: &Entry) {
        self.users.release(entry.from_user);
        self.users.release(entry.to_user);
        if entry.what == What::Mail {
            self.freed = self.freed.wrapping_add(entry.record_bytes.into());
            reduce(
                &mut self.live,
                entry.place.segment,
                entry.record_bytes.into(),
            );
        }
    }

    fn tidy(&mut self, device: DeviceNumber) {
        if let Some(held) = self.slot_mut(device).and_then(|slot| slot.held.take()) {
            self.put_back(device, held);
        }
    }

    /// Gives a mailbox its entries back, or keeps their memory for another if there are none.
    fn put_back(&mut self, device: DeviceNumber, mut held: Box<Held>) {
        if held.entries.is_empty() {
            if self.spare.len() < MAX_SPARE {
                held.entries.shrink_to(MAX_SPARE_ENTRIES);
                held.senders.shrink_to(MAX_SPARE_ENTRIES);
                *held = Held {
                    entries: std::mem::take(&mut held.entries),
                    senders: std::mem::take(&mut held.senders),
                    ..Held::default()
                };
                self.spare.push(held);
            }
        } else if let Some(slot) = self.slot_mut(device) {
            slot.held = Some(held);
        }
    }
}

fn reduce(live: &mut BTreeMap<u32, u64>, segment: u32, bytes: u64) {
    if let Some(count) = live.get_mut(&segment) {
        *count = count.saturating_sub(bytes);
        if *count == 0 {
            live.remove(&segment);
        }
    }
}
