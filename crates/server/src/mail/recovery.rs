//! Opens a log: loads the newest checkpoint that is whole, replays what was written since, and begins a new segment.
//!
//! ```text
//!  checkpoint ──► segments from its place on ──► end: cut what a crash left half written ──► mark the end ──► new segment with the number of this start
//! ```
//! Nothing is changed on the disk before everything has been read, so a log that is refused is as it was. Every step can be interrupted and is then done again.
//! If there is no room for the new segment, what is dead and what was not finished go first.
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;

use rand::TryRng as _;
use sealwire_protocol::name::User;

use super::checkpoint::{self, BadCheckpoint, Loaded};
use super::core::{Core, Segment, Shared};
use super::disk::Disk;
use super::index::{COUNTER_BITS, DeviceNumber, Entry, Index, MAX_START, What};
use super::maintenance::{self, Known};
use super::record::{Decoded, MAIL_BYTES, MailRecord, Place, Record};
use super::scan::{self, Scan};
use super::segment::{self, Header, LogId, START};
use super::synced;
use super::users::UserNumber;
use super::writer::{self, Writer};
use super::{FORMAT_VERSION, MailOptions};

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// Places where the disk has changed the log, and segments that were to be verified and cannot be read. What is changed is not served.
    pub damaged: u64,
    /// Bytes at the end of the log that a crash left half written, and that were cut off. Nothing in them had been accepted, unless the system stopped
    /// with the relay and the disk has changed what was synced last: the two look the same.
    pub torn_bytes: u64,
    /// Bytes of the log that were replayed.
    pub replayed_bytes: u64,
    /// The number of this start of the relay.
    pub start: u32,
}

/// Why a log was not opened. It is as it was, but that a full disk may have cost it what nothing needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailOpenError {
    /// It was written by a newer version of this program.
    #[error(
        "the mail log has format {found}, newer than this program knows ({FORMAT_VERSION}); use the newer program"
    )]
    Newer {
        /// The format it has.
        found: u32,
    },
    /// Files of the log are missing or damaged beyond what the others can replace.
    #[error(
        "the mail log is not whole: {0}; restore the data directory from a backup, or move the log away to begin a new one"
    )]
    Unusable(&'static str),
    /// It was opened so often that no position is left: 16,777,215 times.
    #[error("the mail log has no positions left; move it away to begin a new one")]
    UsedUp,
    /// The disk failed.
    #[error("the mail log cannot be opened: {0}; check the disk")]
    Disk(#[source] io::Error),
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness; try again later")]
    Randomness,
}

impl From<io::Error> for MailOpenError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    options: &MailOptions,
) -> Result<(Arc<Shared>, Writer, Opened), MailOpenError> {
    let mut found = Files::find(&*disk)?;
    let base = found.load_checkpoint(&*disk, options)?;
    let (log, is_new) = match found.log_id(base.as_ref().map(|base| base.head.log))? {
        Some(log) => (log, false),
        None => (new_log(options)?, true),
    };
    if !is_new {
        found.read_synced(&*disk, &log);
    }
    let mut recovery = Recovery::new(log, base, found);
    if !is_new {
        recovery.replay(options)?;
    }
    recovery.repair()?;

    let start = recovery.start.checked_add(1).unwrap_or(MAX_START);
    if start >= MAX_START {
        return Err(MailOpenError::UsedUp);
    }
    let number = recovery.last.checked_add(1).ok_or(MailOpenError::UsedUp)?;
    let header = Header {
        format: FORMAT_VERSION,
        log,
        segment: number,
        start,
    };
    let create = || writer::create_segment(&*disk, &header, options.segment_bytes);
    let (tail, segment) = match create() {
        Err(error) if writer::is_full(&error) && recovery.make_room(&*disk)? => create()?,
        created => created?,
    };
    // Only now, so that the number of a start is on the disk at every moment.
    recovery.rubbish.retain(|name| *name != segment.name);
    recovery.clean(&*disk)?;
    let file = Arc::clone(&segment.file);
    recovery.segments.insert(number, segment);
    recovery.index.begin(start);
    recovery.opened.start = start;

    let opened = recovery.opened;
    if opened.damaged > 0 {
        tracing::error!(
            places = opened.damaged,
            "the mail log is damaged; what is damaged is not delivered; check the disk"
        );
    }
    if opened.torn_bytes > 0 {
        tracing::warn!(
            bytes = opened.torn_bytes,
            "the mail log ended half written, as a crash leaves it, and was cut; nothing of that had been accepted, unless the disk has changed it since"
        );
    }
    let core = Core::new(recovery.index, recovery.segments, tail, options);
    let shared = Arc::new(Shared::new(log, core));
    let mut writer = Writer::new(
        Arc::clone(&shared),
        disk,
        Header { ..header },
        file,
        options,
    );
    writer.know(Known {
        checkpoints: recovery.checkpoints,
        next_number: recovery.next_checkpoint,
        replayed_bytes: opened.replayed_bytes,
    });
    Ok((shared, writer, opened))
}

fn new_log(options: &MailOptions) -> Result<LogId, MailOpenError> {
    let mut identity = [0; 32];
    match options.identity {
        Some(given) => identity = given,
        None => rand::rngs::SysRng
            .try_fill_bytes(&mut identity)
            .map_err(|_| MailOpenError::Randomness)?,
    }
    let (epoch, seed) = identity.split_at(16);
    let mut log = LogId {
        epoch: [0; 16],
        seed: [0; 16],
    };
    log.epoch.copy_from_slice(epoch);
    log.seed.copy_from_slice(seed);
    Ok(log)
}

/// A segment's file as it was found.
#[derive(Debug)]
struct FoundSegment {
    segment: Segment,
    start: u32,
    header: segment::Found,
}

/// The files of a log.
#[derive(Debug, Default)]
struct Files {
    segments: BTreeMap<u32, FoundSegment>,
    checkpoints: BTreeMap<u64, String>,
    /// The places that whole checkpoints begin at, in their order.
    known: Vec<(u64, Place)>,
    /// Up to where the log was synced, as far as that was noted.
    synced: Place,
    /// What was not finished.
    rubbish: Vec<String>,
    /// The start that made a first segment which a crash left without header; 0 if there is none. Its name is still taken.
    unborn_start: u32,
    damaged: u64,
}

impl Files {
    fn find(disk: &dyn Disk) -> Result<Self, MailOpenError> {
        let mut files = Self::default();
        let mut names = disk.list()?;
        names.sort_unstable();
        for name in names {
            if let Some(number) = segment::parse_checkpoint_name(&name) {
                files.checkpoints.insert(number, name);
            } else if let Some((number, start)) = segment::parse_name(&name) {
                let found = open_segment(disk, name, start)?;
                // Two of one number: the first was the spare segment of an earlier start, whose removal was lost.
                if let Some(older) = files.segments.insert(number, found) {
                    files.rubbish.push(older.segment.name);
                }
            } else if name.ends_with(segment::UNFINISHED) {
                files.rubbish.push(name);
            }
        }
        Ok(files)
    }

    fn load_checkpoint(
        &mut self,
        disk: &dyn Disk,
        options: &MailOptions,
    ) -> Result<Option<Loaded>, MailOpenError> {
        let mut newest: Option<Loaded> = None;
        let mut damaged = Vec::new();
        for (number, name) in self.checkpoints.iter().rev() {
            let file = disk.open(name)?;
            let head = if newest.is_none() {
                checkpoint::load(&*file, *number).map(|loaded| newest.insert(loaded).head)
            } else if file.length()? <= options.verify_bytes {
                checkpoint::load(&*file, *number).map(|loaded| loaded.head)
            } else {
                checkpoint::read_head(&*file, *number)
            };
            match head {
                Ok(head) => self.known.push((*number, head.replay_from)),
                Err(BadCheckpoint::Damaged) => damaged.push(name.clone()),
                Err(BadCheckpoint::Newer(found)) => return Err(MailOpenError::Newer { found }),
                Err(BadCheckpoint::Disk(error)) => return Err(error.into()),
            }
        }
        self.known.reverse();
        self.damaged += damaged.len() as u64;
        self.rubbish.append(&mut damaged);
        Ok(newest)
    }

    fn read_synced(&mut self, disk: &dyn Disk, log: &LogId) {
        match synced::read(disk, log) {
            synced::Found::Nothing => {}
            synced::Found::Place(place) => self.synced = place,
            synced::Found::Damaged => self.damaged += 1,
        }
    }

    /// What the files say that the log is; nothing if there is no log yet.
    fn log_id(&mut self, checkpoint: Option<LogId>) -> Result<Option<LogId>, MailOpenError> {
        let mut log = checkpoint;
        for found in self.segments.values() {
            let Some(header) = &found.header.header else {
                continue;
            };
            if header.format > FORMAT_VERSION {
                return Err(MailOpenError::Newer {
                    found: header.format,
                });
            }
            if *log.get_or_insert(header.log) != header.log {
                return Err(MailOpenError::Unusable("it is made of two logs"));
            }
        }
        if log.is_some() {
            return Ok(log);
        }
        if !self.checkpoints.is_empty() {
            return Err(MailOpenError::Unusable("no file is readable"));
        }
        // A crash while the first segment was made leaves one without header and records.
        match self.segments.pop_first() {
            None => Ok(None),
            Some((1, first)) if self.segments.is_empty() && is_unborn(&first.segment)? => {
                self.unborn_start = first.start;
                self.rubbish.push(first.segment.name);
                Ok(None)
            }
            Some(_) => Err(MailOpenError::Unusable("no file is readable")),
        }
    }
}

fn open_segment(disk: &dyn Disk, name: String, start: u32) -> Result<FoundSegment, MailOpenError> {
    let file = disk.open(&name)?;
    let length = u32::try_from(file.length()?)
        .map_err(|_| MailOpenError::Unusable("a segment is over 4 GiB"))?;
    let mut beginning = vec![0; length.min(START) as usize];
    file.read_at(0, &mut beginning)?;
    Ok(FoundSegment {
        segment: Segment { file, name, length },
        start,
        header: segment::decode_header(&beginning),
    })
}

fn read(segment: &Segment) -> Result<Vec<u8>, MailOpenError> {
    let mut bytes = vec![0; segment.length as usize];
    segment.file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

fn is_unborn(segment: &Segment) -> Result<bool, MailOpenError> {
    let bytes = read(segment)?;
    let records = bytes.get(START as usize..).unwrap_or_default();
    Ok(records.iter().all(|byte| *byte == 0))
}

/// A recovery under way.
#[derive(Debug)]
struct Recovery {
    log: LogId,
    index: Index,
    opened: Opened,
    segments: BTreeMap<u32, Segment>,
    headers: BTreeMap<u32, segment::Found>,
    rubbish: Vec<String>,
    checkpoints: Vec<(u64, Place)>,
    next_checkpoint: u64,
    has_checkpoint: bool,
    replay_from: Place,
    durable: Place,
    /// The number of the last start.
    start: u32,
    /// The number of the last segment that has something.
    last: u32,
    /// Where the last segment is to be cut, and whether its end is to be marked.
    end: Option<(u32, bool)>,
    /// Positions that are gone for a reason.
    gone: HashSet<(DeviceNumber, u64)>,
    /// The heads of the checkpoint.
    heads: Vec<u64>,
    /// Bytes of stretches of which nothing is known.
    unknown_bytes: u64,
}

impl Recovery {
    fn new(log: LogId, base: Option<Loaded>, files: Files) -> Self {
        let has_checkpoint = base.is_some();
        let first = Place {
            segment: 1,
            offset: START,
        };
        let (index, replay_from, durable, mut start) = match base {
            Some(base) => (
                base.index,
                base.head.replay_from,
                base.durable,
                base.head.start,
            ),
            None => (Index::default(), first, first, 0),
        };
        let durable = durable.max(files.synced);
        start = start.max(files.unborn_start);
        let heads = index
            .numbers()
            .map(|device| index.snapshot(device).map_or(0, |device| device.head))
            .collect();
        let mut segments = BTreeMap::new();
        let mut headers = BTreeMap::new();
        for (number, found) in files.segments {
            let told = found.header.header.map_or(0, |header| header.start);
            start = start.max(found.start).max(told);
            segments.insert(number, found.segment);
            headers.insert(number, found.header);
        }
        Self {
            log,
            index,
            opened: Opened {
                damaged: files.damaged,
                ..Opened::default()
            },
            segments,
            headers,
            rubbish: files.rubbish,
            checkpoints: files.known,
            next_checkpoint: files
                .checkpoints
                .last_key_value()
                .map_or(1, |(number, _)| number.saturating_add(1)),
            has_checkpoint,
            replay_from,
            durable,
            start,
            last: 0,
            end: None,
            gone: HashSet::new(),
            heads,
            unknown_bytes: 0,
        }
    }

    fn replay(&mut self, options: &MailOptions) -> Result<(), MailOpenError> {
        if !self.has_checkpoint && !self.segments.contains_key(&1) {
            return Err(MailOpenError::Unusable(
                "its beginning is missing, and no checkpoint is whole",
            ));
        }
        self.last = self.find_last()?;
        for number in self.replay_from.segment..=self.last {
            match self.segments.get(&number).cloned() {
                Some(segment) => self.replay_segment(number, &segment)?,
                None => self.opened.damaged += 1,
            }
        }
        self.find_lost();

        let older: Vec<_> = self
            .segments
            .range(..self.replay_from.segment.min(self.last.saturating_add(1)))
            .map(|(number, segment)| (*number, segment.clone()))
            .collect();
        let bytes: u64 = older
            .iter()
            .map(|(_, segment)| u64::from(segment.length))
            .sum();
        if bytes <= options.verify_bytes {
            for (number, segment) in &older {
                self.check_header(*number);
                match read(segment) {
                    Ok(bytes) => {
                        let scan = scan::scan(&self.log.seed, *number, &bytes);
                        self.opened.damaged += scan.damaged(u32::MAX, true);
                    }
                    // Nothing that is in it is needed now, and whoever needs it later is told.
                    Err(error) => {
                        tracing::error!(%error, "a segment of the mail log cannot be read; check the disk");
                        self.opened.damaged += 1;
                    }
                }
            }
        }
        // Segments that are needed and not there.
        let missing = self
            .index
            .live_segments()
            .filter(|number| !self.segments.contains_key(number))
            .count();
        self.opened.damaged += missing as u64;
        Ok(())
    }

    /// The last segment in which something was written; those after it were made, and not used. They are removed.
    fn find_last(&mut self) -> Result<u32, MailOpenError> {
        // What is durable is known to have been there.
        let last = if self.durable.offset > START {
            self.durable.segment
        } else {
            self.durable.segment.saturating_sub(1)
        };
        let numbers: Vec<_> = self.segments.keys().copied().rev().collect();
        for number in numbers {
            if number <= last {
                break;
            }
            let Some(segment) = self.segments.get(&number) else {
                continue;
            };
            if !is_unborn(segment)? {
                return Ok(number);
            }
            self.rubbish.push(segment.name.clone());
            self.segments.remove(&number);
            self.headers.remove(&number);
        }
        Ok(last)
    }

    fn check_header(&mut self, number: u32) {
        let whole = self.headers.get(&number).is_some_and(|found| {
            found.whole && found.header.is_some_and(|header| header.segment == number)
        });
        self.opened.damaged += u64::from(!whole);
    }

    fn replay_segment(&mut self, number: u32, segment: &Segment) -> Result<(), MailOpenError> {
        let bytes = read(segment)?;
        let scan = scan::scan(&self.log.seed, number, &bytes);
        self.check_header(number);
        let mut up_to = u32::MAX;
        if number == self.last {
            let durable = match number.cmp(&self.durable.segment) {
                std::cmp::Ordering::Less => u32::MAX,
                std::cmp::Ordering::Equal => self.durable.offset,
                std::cmp::Ordering::Greater => START,
            };
            if let Some(cut) = scan.cut(durable) {
                up_to = cut;
                self.opened.torn_bytes += u64::from(scan.end().saturating_sub(cut));
                self.end = Some((cut, true));
            } else if !scan.ended && durable != u32::MAX {
                self.end = Some((scan.end().max(START).max(durable), false));
                let lost = durable.saturating_sub(scan.end());
                self.opened.damaged += u64::from(lost > 0 && !scan.ends_badly());
                self.unknown_bytes += u64::from(lost);
            }
        }
        self.opened.damaged += scan.damaged(up_to, number != self.last);
        self.opened.replayed_bytes += u64::from(scan.end());
        self.apply_all(number, &scan, up_to);
        Ok(())
    }

    fn apply_all(&mut self, segment: u32, scan: &Scan<'_>, up_to: u32) {
        for item in &scan.items {
            let place = Place {
                segment,
                offset: item.offset,
            };
            if item.offset >= up_to || place < self.replay_from {
                continue;
            }
            match &item.record {
                Some(decoded) => self.apply(place, decoded),
                None => self.unknown_bytes += u64::from(item.length),
            }
        }
    }

    fn apply(&mut self, place: Place, decoded: &Decoded<'_>) {
        match &decoded.record {
            Record::Mail(mail) => {
                let from = self.index.enter(mail.from_device);
                self.index.mark_sent(from, mail.sequence);
                self.insert(place, decoded.length, mail);
            }
            Record::Moved(mail) => {
                let device = self.index.enter(mail.device);
                if !self.index.relocate(device, mail.position, None, place) {
                    self.insert(place, decoded.length, mail);
                }
            }
            Record::State {
                device,
                acknowledged,
                limits,
            } => {
                let device = self.index.enter(device);
                self.index.restore_acknowledged(device, *acknowledged);
                self.index.set_limits(device, *limits);
            }
            Record::Notice(notice) => {
                let of_device = self.index.enter(notice.of_device);
                self.index.erase(of_device, notice.of_position);
                self.gone.insert((of_device, notice.of_position));
                let Some(to_user) = self.user(notice.of_user) else {
                    return;
                };
                let device = self.index.enter(notice.device);
                let entry = Entry {
                    position: notice.position,
                    place: Place::default(),
                    expires_millis: notice.expires_millis,
                    id: *notice.id,
                    peer: of_device,
                    from_user: UserNumber::NOBODY,
                    to_user,
                    message_bytes: 0,
                    record_bytes: 0,
                    what: What::Notice(notice.reason),
                };
                self.index.insert(device, entry);
            }
            Record::Erased { device, position } => {
                let device = self.index.enter(device);
                self.index.erase(device, *position);
                self.gone.insert((device, *position));
            }
            Record::Removed { device, up_to } => {
                let device = self.index.enter(device);
                self.index.remove(device, Some(*up_to));
            }
            Record::End => {}
        }
    }

    fn insert(&mut self, place: Place, length: usize, mail: &MailRecord<'_>) {
        let (Some(from_user), Some(to_user)) = (self.user(mail.from_user), self.user(mail.to_user))
        else {
            return;
        };
        let device = self.index.enter(mail.device);
        let entry = Entry {
            position: mail.position,
            place,
            expires_millis: mail.expires_millis,
            id: *mail.id,
            peer: self.index.enter(mail.from_device),
            from_user,
            to_user,
            message_bytes: u32::try_from(mail.message.len()).unwrap_or(u32::MAX),
            record_bytes: u32::try_from(length).unwrap_or(u32::MAX),
            what: What::Mail,
        };
        self.index.insert(device, entry);
    }

    fn user(&mut self, name: &[u8]) -> Option<UserNumber> {
        Some(self.index.users.refer(&User::from_bytes(name).ok()?))
    }

    /// Marks positions as damaged that were given and of which no record is left. Only where stretches of the log are not readable, and no more of them than
    /// there is room for in those.
    fn find_lost(&mut self) {
        let mut most = self.unknown_bytes.div_ceil(MAIL_BYTES as u64);
        let mut lost = Vec::new();
        for device in self.index.numbers() {
            if most == 0 {
                break;
            }
            let head = self.heads.get(device.number()).copied().unwrap_or(0);
            let acknowledged = self.index.state(Some(device)).acknowledged;
            let mut last = head.max(acknowledged);
            for entry in self.index.after(device, head) {
                // Within one start, positions are given one after the other.
                let first = (entry.position >> COUNTER_BITS) << COUNTER_BITS;
                for position in last.max(first).saturating_add(1)..entry.position {
                    if most == 0 {
                        break;
                    }
                    if !self.gone.contains(&(device, position)) {
                        lost.push((device, position));
                        most -= 1;
                    }
                }
                last = entry.position;
            }
        }
        for (device, position) in lost {
            let entry = Entry {
                position,
                place: Place::default(),
                expires_millis: u64::MAX,
                id: [0; 16],
                peer: DeviceNumber::NOBODY,
                from_user: UserNumber::NOBODY,
                to_user: UserNumber::NOBODY,
                message_bytes: 0,
                record_bytes: 0,
                what: What::Damaged,
            };
            self.index.insert(device, entry);
        }
    }

    /// Cuts what was half written, and marks the end.
    fn repair(&mut self) -> Result<(), MailOpenError> {
        if let Some((end, torn)) = self.end
            && let Some(segment) = self.segments.get_mut(&self.last)
        {
            if torn {
                segment.file.truncate(end.into())?;
                segment.file.sync()?;
            }
            let place = Place {
                segment: self.last,
                offset: end,
            };
            segment.length = writer::seal(&*segment.file, &self.log, place)?;
        }
        Ok(())
    }

    /// Removes segments that nothing needs, and of what was not finished all but the files of the last start, whose names tell its number. Says
    /// whether there was anything.
    fn make_room(&mut self, disk: &dyn Disk) -> Result<bool, MailOpenError> {
        let before = maintenance::replayed_from(&self.checkpoints);
        let dead: Vec<_> = self
            .segments
            .range(..before)
            .map(|(number, _)| *number)
            .filter(|number| self.index.live_bytes(*number) == 0)
            .collect();
        // What says that they are dead may have been written and not synced.
        if let Some(last) = self.segments.get(&self.last) {
            last.file.sync()?;
        }
        let (mut gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.rubbish)
            .into_iter()
            .partition(|name| {
                segment::parse_name(name).is_none_or(|(_, start)| start < self.start)
            });
        self.rubbish = kept;
        for number in dead {
            gone.extend(self.segments.remove(&number).map(|segment| segment.name));
        }
        for name in &gone {
            disk.remove(name)?;
        }
        if !gone.is_empty() {
            disk.sync()?;
        }
        Ok(!gone.is_empty())
    }

    /// Removes what was not finished.
    fn clean(&self, disk: &dyn Disk) -> Result<(), MailOpenError> {
        if !self.rubbish.is_empty() {
            for name in &self.rubbish {
                disk.remove(name)?;
            }
            disk.sync()?;
        }
        Ok(())
    }
}
