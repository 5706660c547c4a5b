//! What callers and the writer share: the index, the newest mail, and the queue, behind one lock.
//!
//! A record gets its place in the log when it is queued, so the order of the queue is that of the log. Places are given only where the disk has set room
//! aside: a full disk is met before anything has been promised.
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::pin::pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::Waker;

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits as protocol_limits;
use sealwire_protocol::name::User;
use tokio::sync::Notify;

use super::accepted::{Accepted, Appended, SequenceState};
use super::disk::LogFile;
use super::index::{DeviceNumber, Index, Sequence};
use super::recent::{Post, Recent};
use super::record::{self, END_BYTES, MAX_RECORD_BYTES, Place};
use super::segment::{LogId, START};
use super::taking::Taking;
use super::unreadable::Unreadable;
use super::{
    MailOptions, MailboxLimits, MailboxStatus, PostError, Posting, UndeliveredReason, lock,
};
use crate::storage::StorageError;

/// The share of a segment that is kept for states, one so many-th.
const STATES_SHARE: u32 = 32;
/// Bytes of a segment that are kept for states at most: some 600 of them.
const MAX_STATES_BYTES: u32 = 64 << 10;
/// Records of the largest posting: its parts and copies.
const MAX_POSTING_RECORDS: usize = 2 * protocol_limits::MAX_SEND_PARTS - 1;

/// What callers and the writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) epoch: [u8; 16],
    pub(super) seed: [u8; 16],
    core: Mutex<Core>,
    /// Tells the writer of work.
    work: Condvar,
    /// Tells who waits for room.
    room: Notify,
}

/// What the lock guards.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) index: Index,
    pub(super) recent: Recent,
    pub(super) unreadable: Unreadable,
    /// By sender, where its last posting begins that skips a sequence, until that is durable.
    skipping: HashMap<DeviceNumber, Place>,
    /// The segments on the disk. Everything that the index names is in one of them.
    pub(super) segments: BTreeMap<u32, Segment>,
    /// Where the next record goes.
    tail: Tail,
    /// The segment after that, once there is room for it.
    spare: Option<Tail>,
    /// Everything before this is durable.
    durable: Place,
    queue: Vec<Queued>,
    /// Bytes of the records that are queued or being written.
    queued_bytes: usize,
    max_queued_bytes: usize,
    /// The largest posting: what fits into an empty segment, and no more than the protocol has.
    max_posting_bytes: usize,
    /// Bytes that have been given a place since the log was opened.
    placed_bytes: u64,
    condition: Condition,
    /// Why there is no spare segment.
    disk_full: bool,
    /// Where the disk is full, the bytes that were needed no more when it was last looked for what could go.
    looked_at: Option<u64>,
    /// Whether somebody needed a spare segment.
    wants_spare: bool,
    /// Who waits for a copy of the log as it is.
    #[cfg(unix)]
    pub(super) snapshots: Vec<super::snapshot::Asked>,
    /// Whether the writer waits to be told of work.
    idle: bool,
    stopping: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Open,
    Failed,
    Closed,
}

/// A segment on the disk.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) file: Arc<dyn LogFile>,
    pub(super) name: String,
    /// Bytes of it that are used; of the last, those set aside.
    pub(super) length: u32,
}

/// Where records may go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) next: Place,
    /// The end of what is set aside in this segment. The last bytes are kept for states and for the mark that ends it.
    pub(super) end: u32,
}

impl Tail {
    /// Whether records of `bytes` fit, beside what is kept for states.
    fn has_room_for(&self, bytes: usize) -> bool {
        self.fits(bytes.saturating_add(kept_for_states(self.end)))
    }

    /// Whether a state fits, into what is kept for it if there is nothing else.
    fn fits_state(&self) -> bool {
        self.fits(record::STATE_BYTES)
    }

    fn fits(&self, bytes: usize) -> bool {
        (self.next.offset as usize)
            .checked_add(bytes)
            .and_then(|end| end.checked_add(END_BYTES))
            .is_some_and(|end| end <= self.end as usize)
    }
}

/// Bytes of a segment of so many that are kept for states: a disk that is full of mail that has been acknowledged can still be told so.
fn kept_for_states(segment_bytes: u32) -> usize {
    (segment_bytes / STATES_SHARE).min(MAX_STATES_BYTES) as usize
}

/// A record that waits for the writer.
#[derive(Debug)]
pub(super) enum Queued {
    Post(Arc<Post>),
    State {
        place: Place,
        id: [u8; 32],
        acknowledged: u64,
        limits: Option<MailboxLimits>,
    },
    Erased {
        place: Place,
        id: [u8; 32],
        position: u64,
    },
    Removed {
        place: Place,
        id: [u8; 32],
        up_to: u64,
    },
    Notice(Box<Notice>),
    Moved(Box<Moved>),
    /// The segment ends; the next begins.
    Roll {
        place: Place,
    },
}

/// A notice that waits for the writer.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) place: Place,
    pub(super) id: [u8; 32],
    pub(super) position: u64,
    pub(super) expires_millis: u64,
    pub(super) message_id: [u8; 16],
    pub(super) of_id: [u8; 32],
    pub(super) of_position: u64,
    pub(super) reason: UndeliveredReason,
    pub(super) of_user: Arc<User>,
}

/// Mail that is being copied from an older segment.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) place: Place,
    pub(super) from: Place,
    /// The record as it lies there.
    pub(super) record: Vec<u8>,
}

/// Why a record has no place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    Busy,
    DiskFull,
    Unavailable,
}

impl From<NoRoom> for PostError {
    fn from(why: NoRoom) -> Self {
        match why {
            NoRoom::Busy => Self::Busy,
            NoRoom::DiskFull => Self::DiskFull,
            NoRoom::Unavailable => Self::Storage(StorageError::Unavailable),
        }
    }
}

/// What the writer takes.
#[derive(Debug)]
pub(super) struct Taken {
    /// Where it ends.
    pub(super) end: Place,
    pub(super) bytes: usize,
}

impl Core {
    pub(super) fn new(
        index: Index,
        segments: BTreeMap<u32, Segment>,
        tail: Tail,
        options: &MailOptions,
    ) -> Self {
        Self {
            index,
            recent: Recent::new(options.recent_bytes),
            unreadable: Unreadable::default(),
            skipping: HashMap::new(),
            segments,
            tail,
            spare: None,
            durable: tail.next,
            queue: Vec::new(),
            queued_bytes: 0,
            max_queued_bytes: options.queue_bytes,
            max_posting_bytes: (options.segment_bytes as usize)
                .saturating_sub(START as usize + END_BYTES + kept_for_states(options.segment_bytes))
                .min(MAX_POSTING_RECORDS * MAX_RECORD_BYTES),
            placed_bytes: 0,
            condition: Condition::Open,
            disk_full: false,
            looked_at: None,
            wants_spare: false,
            #[cfg(unix)]
            snapshots: Vec::new(),
            idle: false,
            stopping: false,
        }
    }

    pub(super) fn is_writable(&self) -> bool {
        self.condition == Condition::Open
    }

    /// Bytes of the largest posting that has a place.
    pub(super) fn max_posting_bytes(&self) -> usize {
        self.max_posting_bytes
    }

    /// How much of what has bounds there is.
    #[cfg(feature = "simulation")]
    pub(super) fn load(&self) -> crate::simulation::MailLoad {
        let mut load = self.index.load();
        load.queued_bytes = self.queued_bytes;
        load.max_queued_bytes = self.max_queued_bytes;
        load
    }

    /// A place for `bytes` of records that follow each other.
    pub(super) fn place(&mut self, bytes: usize) -> Result<Place, NoRoom> {
        // Before the queue: of a log that has failed it never empties, and nobody would wait for it.
        if self.condition != Condition::Open {
            return Err(NoRoom::Unavailable);
        }
        let over = self.queued_bytes.saturating_add(bytes) > self.max_queued_bytes;
        if over && self.queued_bytes > 0 {
            return Err(NoRoom::Busy);
        }
        self.place_in_log(bytes)
    }

    fn place_in_log(&mut self, bytes: usize) -> Result<Place, NoRoom> {
        if self.condition != Condition::Open {
            return Err(NoRoom::Unavailable);
        }
        if !self.tail.has_room_for(bytes) {
            match self.spare {
                Some(spare) if spare.has_room_for(bytes) => {
                    self.queue.push(Queued::Roll {
                        place: self.tail.next,
                    });
                    self.queued_bytes += END_BYTES;
                    self.tail = spare;
                    self.spare = None;
                }
                _ => {
                    self.wants_spare = true;
                    return Err(if self.disk_full {
                        NoRoom::DiskFull
                    } else {
                        NoRoom::Busy
                    });
                }
            }
        }
        Ok(self.place_in_tail(bytes))
    }

    /// A place for a state. On a full disk it is in what is kept for that.
    fn place_state(&mut self) -> Result<Place, NoRoom> {
        let no_other =
            self.disk_full && self.spare.is_none() && !self.tail.has_room_for(record::STATE_BYTES);
        if no_other && self.condition == Condition::Open && self.tail.fits_state() {
            return Ok(self.place_in_tail(record::STATE_BYTES));
        }
        self.place_in_log(record::STATE_BYTES)
    }

    fn place_in_tail(&mut self, bytes: usize) -> Place {
        let place = self.tail.next;
        // It fits, and a segment is shorter than 4 GiB.
        let length = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.tail.next.offset = self.tail.next.offset.saturating_add(length);
        self.queued_bytes += bytes;
        self.placed_bytes += bytes as u64;
        place
    }

    /// Whether the largest posting has room in the queue.
    fn queue_has_room(&self) -> bool {
        self.queued_bytes == 0
            || self.queued_bytes.saturating_add(self.max_posting_bytes) <= self.max_queued_bytes
    }

    /// Whether the largest posting has a place in the log, or it is known that none has.
    fn log_has_room(&self) -> bool {
        self.spare.is_some() || self.tail.has_room_for(self.max_posting_bytes) || self.disk_full
    }

    pub(super) fn push(&mut self, queued: Queued) {
        self.queue.push(queued);
    }

    /// Whether the writer has something to do.
    pub(super) fn has_work(&self) -> bool {
        #[cfg(unix)]
        let is_asked = !self.snapshots.is_empty();
        #[cfg(not(unix))]
        let is_asked = false;
        self.condition == Condition::Open
            && (is_asked
                || !self.queue.is_empty()
                || self.has_states_to_log()
                || self.needs_spare()
                || self.may_have_dead_on_a_full_disk())
    }

    /// Whether the disk is full, and something has become dead since it was last looked for what could go.
    fn may_have_dead_on_a_full_disk(&self) -> bool {
        self.disk_full && self.looked_at != Some(self.index.freed_bytes())
    }

    /// Whether it is to be looked now for what can go from a full disk.
    pub(super) fn looks_for_room(&mut self) -> bool {
        let looks = self.may_have_dead_on_a_full_disk();
        self.looked_at = self.disk_full.then(|| self.index.freed_bytes());
        looks
    }

    pub(super) fn is_disk_full(&self) -> bool {
        self.disk_full
    }

    /// Files have gone: there may be room for another segment.
    pub(super) fn try_spare_again(&mut self) {
        self.wants_spare |= self.disk_full;
    }

    /// The segments of `numbers` of which nothing is needed; the last one, and the spare, are.
    pub(super) fn dead_segments(&self, numbers: Range<u32>) -> Vec<u32> {
        let end = numbers.end.min(self.tail.next.segment);
        self.segments
            .range(numbers.start..end.max(numbers.start))
            .map(|(number, _)| *number)
            .filter(|number| self.index.live_bytes(*number) == 0)
            .collect()
    }

    /// Whether states have changed that the log can be told of: not while the disk is full.
    fn has_states_to_log(&self) -> bool {
        let has_room = !self.disk_full || self.spare.is_some() || self.tail.fits_state();
        has_room && self.index.has_unlogged()
    }

    /// Whether a spare segment is to be made now.
    pub(super) fn needs_spare(&self) -> bool {
        self.spare.is_none() && (self.wants_spare || self.tail.next.offset > self.tail.end / 2)
            // Once it has failed, only when somebody asks again.
            && (self.wants_spare || !self.disk_full)
    }

    pub(super) fn tail(&self) -> Tail {
        self.tail
    }

    pub(super) fn spare(&self) -> Option<Tail> {
        self.spare
    }

    pub(super) fn durable(&self) -> Place {
        self.durable
    }

    pub(super) fn placed_bytes(&self) -> u64 {
        self.placed_bytes
    }

    /// Bytes that the segments take, and bytes of them that are needed.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let total = self
            .segments
            .values()
            .map(|segment| u64::from(segment.length))
            .sum();
        (total, self.index.all_live_bytes())
    }

    /// Takes nothing more if nothing waits; says whether that is so.
    pub(super) fn close_if_empty(&mut self) -> bool {
        if self.condition == Condition::Open && self.queue.is_empty() {
            self.condition = Condition::Closed;
        }
        self.condition == Condition::Closed
    }

    /// Gives the writer everything that is queued, and the states that have changed.
    pub(super) fn take(&mut self, queue: &mut Vec<Queued>) -> Option<Taken> {
        if self.condition != Condition::Open {
            return None;
        }
        while self.queued_bytes < self.max_queued_bytes.saturating_mul(2)
            && self.has_states_to_log()
        {
            let Ok(place) = self.place_state() else {
                break;
            };
            if let Some((id, acknowledged, limits)) = self.index.unlogged() {
                let queued = Queued::State {
                    place,
                    id: *id,
                    acknowledged,
                    limits: limits.copied(),
                };
                self.queue.push(queued);
            }
            self.index.logged();
        }
        if self.queue.is_empty() {
            return None;
        }
        std::mem::swap(&mut self.queue, queue);
        Some(Taken {
            end: self.tail.next,
            bytes: self.queued_bytes,
        })
    }

    /// What was taken is durable.
    pub(super) fn settle(&mut self, taken: &Taken, wakers: &mut Vec<Waker>) {
        self.durable = taken.end;
        self.queued_bytes = self.queued_bytes.saturating_sub(taken.bytes);
        self.recent.settle(taken.end, wakers);
        self.skipping.retain(|_, place| *place >= taken.end);
    }

    /// `sequence` of a device is about to be accepted at `place`: whether nobody may have it before it is durable. If one is skipped, it was refused, and
    /// the device may not know. Were this one delivered and then lost in a crash, the one that was skipped could come again and be accepted behind it.
    pub(super) fn holds(&mut self, from: DeviceNumber, sequence: u64, place: Place) -> bool {
        if sequence > self.index.sent(from).saturating_add(1) {
            self.skipping.insert(from, place);
        }
        self.skipping.contains_key(&from)
    }

    /// A spare segment is there, or there is no room for one.
    pub(super) fn set_spare(&mut self, spare: Option<(Tail, Segment)>) {
        self.disk_full = spare.is_none();
        self.wants_spare = false;
        if let Some((tail, segment)) = spare {
            self.segments.insert(tail.next.segment, segment);
            self.spare = Some(tail);
        }
    }

    /// Nothing more is written. What is not durable is unknown if a write failed.
    fn end(&mut self, condition: Condition, wakers: &mut Vec<Waker>) {
        self.condition = condition;
        self.queue = Vec::new();
        #[cfg(unix)]
        self.snapshots.clear();
        self.recent.fail(wakers);
    }
}

impl Shared {
    pub(super) fn new(log: LogId, core: Core) -> Self {
        Self {
            epoch: log.epoch,
            seed: log.seed,
            core: Mutex::new(core),
            work: Condvar::new(),
            room: Notify::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Tells the writer of work if it waits, and not more often.
    pub(super) fn tell_writer(&self, mut core: MutexGuard<'_, Core>) {
        let idle = std::mem::take(&mut core.idle);
        drop(core);
        if idle {
            self.work.notify_one();
        }
    }

    /// Waits until the writer has work or is to stop; says whether it is to stop.
    pub(super) fn wait_for_work(&self) -> bool {
        let mut core = self.lock();
        while !core.has_work() && !core.stopping {
            core.idle = true;
            core = self
                .work
                .wait(core)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        core.idle = false;
        core.stopping
    }

    /// Asks the writer to close the log.
    pub(super) fn stop(&self) {
        let mut core = self.lock();
        core.stopping = true;
        self.tell_writer(core);
    }

    pub(super) fn tell_of_room(&self) {
        self.room.notify_waiters();
    }

    /// Asks the writer for a copy of the log as it is, unless it has ended.
    #[cfg(unix)]
    pub(super) fn ask_for_snapshot(&self, asked: super::snapshot::Asked) {
        let mut core = self.lock();
        if core.is_writable() {
            core.snapshots.push(asked);
            self.tell_writer(core);
        }
    }

    /// Nothing more is written: who waits is told.
    pub(super) fn fail(&self) {
        self.end(Condition::Failed);
    }

    /// Everything is written, and nothing more will be.
    pub(super) fn finish(&self) {
        self.end(Condition::Closed);
    }

    fn end(&self, condition: Condition) {
        let mut wakers = Vec::new();
        let mut core = self.lock();
        if core.is_writable() {
            core.end(condition, &mut wakers);
        }
        drop(core);
        wakers.into_iter().for_each(Waker::wake);
        self.room.notify_waiters();
    }

    pub(super) fn append(
        self: &Arc<Self>,
        posting: Posting<'_>,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Appended, PostError> {
        let mut core = self.lock();
        let taking = core.append(posting, limits, now_millis);
        self.tell_writer(core);
        let (post, place) = match taking? {
            Taking::New(post) => {
                let place = post.place();
                (Some(post), place)
            }
            Taking::Repetition(place) => (None, place),
        };
        Ok(Appended {
            post,
            accepted: Accepted {
                shared: Arc::clone(self),
                place,
            },
        })
    }

    pub(super) fn sequence(self: &Arc<Self>, device: &Thumbprint, sequence: u64) -> SequenceState {
        let core = self.lock();
        let Some(number) = core.index.find(device.as_bytes()) else {
            return SequenceState::New;
        };
        match core.index.sequence(number, sequence) {
            Sequence::New => SequenceState::New,
            Sequence::Overtaken => SequenceState::Overtaken,
            Sequence::Stale => SequenceState::Stale,
            Sequence::Repeated => SequenceState::Repeated(Accepted {
                shared: Arc::clone(self),
                place: core
                    .recent
                    .find_undurable(device, sequence)
                    .unwrap_or_default(),
            }),
        }
    }

    /// How the posting at `place` has ended, if it has. If not, `waker` is woken when it does.
    pub(super) fn outcome(
        &self,
        place: Place,
        waker: Option<&Waker>,
    ) -> Option<Result<(), StorageError>> {
        let mut core = self.lock();
        if place < core.durable {
            return Some(Ok(()));
        }
        let waker = waker.filter(|_| core.is_writable());
        if core.recent.is_acknowledged(place, waker) {
            return Some(Ok(()));
        }
        (!core.is_writable()).then_some(Err(StorageError::Unavailable))
    }

    pub(super) async fn room(&self) {
        loop {
            let mut told = pin!(self.room.notified());
            told.as_mut().enable();
            {
                let mut core = self.lock();
                let log_has_room = core.log_has_room();
                if (log_has_room && core.queue_has_room()) || !core.is_writable() {
                    return;
                }
                core.wants_spare |= !log_has_room;
                self.tell_writer(core);
            }
            told.await;
        }
    }

    pub(super) fn acknowledge(&self, device: &Thumbprint, position: u64) -> u64 {
        let mut wakers = Vec::new();
        let mut core = self.lock();
        let Some(number) = core.index.find(device.as_bytes()) else {
            return 0;
        };
        let before = core.index.state(Some(number)).acknowledged;
        let Core { index, recent, .. } = &mut *core;
        let acknowledged =
            index.acknowledge(number, position, |place| recent.dead(place, &mut wakers));
        if acknowledged > before {
            core.index.note_unlogged(number);
            self.tell_writer(core);
        } else {
            drop(core);
        }
        wakers.into_iter().for_each(Waker::wake);
        acknowledged
    }

    pub(super) fn limit(&self, device: &Thumbprint, limits: MailboxLimits) {
        let mut core = self.lock();
        let number = core.index.enter(device.as_bytes());
        if core.index.set_limits(number, Some(limits)) {
            core.index.note_unlogged(number);
            self.tell_writer(core);
        }
    }

    pub(super) fn status(&self, device: &Thumbprint) -> MailboxStatus {
        let core = self.lock();
        let state = core.index.state(core.index.find(device.as_bytes()));
        MailboxStatus {
            epoch: self.epoch,
            acknowledged: state.acknowledged,
            head: state.head,
            held_messages: state.messages,
            held_bytes: state.bytes,
            waiting: state.waiting,
        }
    }

    pub(super) fn sent(&self, device: &Thumbprint) -> u64 {
        let core = self.lock();
        core.index
            .find(device.as_bytes())
            .map_or(0, |number| core.index.sent(number))
    }
}
