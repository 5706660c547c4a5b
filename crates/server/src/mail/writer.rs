//! Who writes: takes everything that is queued, writes it at once, syncs once, and then says so.
//!
//! ```text
//!  queue ──► records, one buffer ──► one write ──► one sync ──► noted ──► durable: who waits is told
//! ```
//! A write or a sync that fails ends the log: after a failed sync nobody knows what the disk holds, and asking again does not tell. Only where
//! there is no room for another segment, or no descriptor or memory to make it with, is it a plain refusal, as nothing has been promised by then.
use std::io;
use std::sync::Arc;
use std::task::Waker;

use super::core::{Queued, Segment, Shared, Tail};
use super::disk::{Disk, LogFile};
use super::maintenance::Maintenance;
use super::recent::Post;
use super::record::{self, MailRecord, NO_POSITION, NoticeRecord, Part, Place, Record};
use super::segment::{self, Header, LogId};
use super::synced::Synced;
use super::{MailOptions, UndeliveredReason};
use crate::spans;

/// What the system says where it, or this process, has too many files open: ENFILE and EMFILE have these numbers on every Unix.
const OUT_OF_DESCRIPTORS: &[i32] = if cfg!(unix) { &[23, 24] } else { &[4] };
/// Bytes for which the buffer keeps memory between two writes.
const KEPT_BUFFER_BYTES: usize = 1 << 20;

/// The writer of one log.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) disk: Arc<dyn Disk>,
    /// That of the last segment.
    pub(super) header: Header,
    /// The last segment.
    file: Arc<dyn LogFile>,
    synced: Synced,
    segment_bytes: u32,
    pub(super) maintenance: Maintenance,
    queue: Vec<Queued>,
    buffer: Vec<u8>,
    /// Where the buffer begins.
    batch: Option<Place>,
    wakers: Vec<Waker>,
    closed: bool,
}

/// Whoever waits must not wait for a writer that has panicked. Where it has ended as it should, this changes nothing.
struct FailAtEnd<'a>(&'a Shared);

impl Drop for FailAtEnd<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

/// A write failed: the log is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed;

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        disk: Arc<dyn Disk>,
        header: Header,
        file: Arc<dyn LogFile>,
        options: &MailOptions,
    ) -> Self {
        Self {
            shared,
            synced: Synced::Before,
            disk,
            header,
            file,
            segment_bytes: options.segment_bytes,
            maintenance: Maintenance::new(options.checkpoint_bytes),
            queue: Vec::new(),
            buffer: Vec::new(),
            batch: None,
            wakers: Vec::new(),
            closed: false,
        }
    }

    /// Writes until it is asked to stop.
    pub(super) fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let _end = FailAtEnd(&shared);
        loop {
            while self.step() {}
            if shared.wait_for_work() {
                while self.step() {}
                self.close();
                return;
            }
        }
    }

    /// Writes what is queued, and does one step of what keeps the log small. Says whether there is more to do.
    pub(super) fn step(&mut self) -> bool {
        if self.closed {
            return false;
        }
        let done = self
            .commit()
            .and_then(|()| self.prepare_spare())
            .and_then(|()| {
                #[cfg(unix)]
                self.answer_snapshots();
                self.look_for_room();
                self.maintain()
            });
        match done {
            Ok(()) => self.has_maintenance() || self.shared.lock().has_work(),
            Err(Failed) => {
                self.fail();
                false
            }
        }
    }

    /// Writes what is queued, and that nothing follows, and all that opening the log needs.
    pub(super) fn close(&mut self) {
        if self.closed {
            return;
        }
        match self.end() {
            Ok(()) => {
                self.closed = true;
                self.shared.finish();
            }
            Err(Failed) => self.fail(),
        }
    }

    fn end(&mut self) -> Result<(), Failed> {
        loop {
            self.commit()?;
            if self.shared.lock().close_if_empty() {
                break;
            }
            if !self.shared.lock().is_writable() {
                return Err(Failed);
            }
        }
        self.seal()?;
        self.last_checkpoint(self.after_the_end())
    }

    /// Where the segment after the last would begin.
    pub(super) fn after_the_end(&self) -> Place {
        Place {
            segment: self.header.segment.saturating_add(1),
            offset: segment::START,
        }
    }

    fn fail(&mut self) {
        self.closed = true;
        self.shared.fail();
    }

    /// Writes and syncs everything that is queued.
    pub(super) fn commit(&mut self) -> Result<(), Failed> {
        let mut queue = std::mem::take(&mut self.queue);
        let Some(taken) = self.shared.lock().take(&mut queue) else {
            self.queue = queue;
            return Ok(());
        };
        let _span = spans::mail_commit(queue.len()).entered();
        for queued in &queue {
            self.encode(queued)?;
        }
        self.write()?;
        self.synced.note(&*self.disk, &self.header.log, taken.end);

        let mut core = self.shared.lock();
        core.settle(&taken, &mut self.wakers);
        for queued in &queue {
            if let Queued::Moved(moved) = queued
                && let Some(mail) = record::decode(&self.header.log.seed, moved.from, &moved.record)
                && let Record::Mail(mail) | Record::Moved(mail) = mail.record
                && let Some(device) = core.index.find(mail.device)
            {
                core.index
                    .relocate(device, mail.position, Some(moved.from), moved.place);
            }
        }
        drop(core);
        self.wakers.drain(..).for_each(Waker::wake);
        self.shared.tell_of_room();
        queue.clear();
        self.queue = queue;
        Ok(())
    }

    fn encode(&mut self, queued: &Queued) -> Result<(), Failed> {
        match queued {
            Queued::Post(post) => self.encode_post(post),
            Queued::State {
                place,
                id,
                acknowledged,
                limits,
            } => self.put(
                *place,
                Part::ONLY,
                &Record::State {
                    device: id,
                    acknowledged: *acknowledged,
                    limits: *limits,
                },
            ),
            Queued::Erased {
                place,
                id,
                position,
            } => self.put(
                *place,
                Part::ONLY,
                &Record::Erased {
                    device: id,
                    position: *position,
                },
            ),
            Queued::Removed { place, id, up_to } => self.put(
                *place,
                Part::ONLY,
                &Record::Removed {
                    device: id,
                    up_to: *up_to,
                },
            ),
            Queued::Notice(notice) => self.put(
                notice.place,
                Part::ONLY,
                &Record::Notice(NoticeRecord {
                    device: &notice.id,
                    position: notice.position,
                    expires_millis: notice.expires_millis,
                    id: &notice.message_id,
                    of_device: &notice.of_id,
                    of_position: notice.of_position,
                    reason: notice.reason.code(),
                    of_user: notice.of_user.as_bytes(),
                }),
            ),
            Queued::Moved(moved) => {
                if let Some(mail) = record::decode(&self.header.log.seed, moved.from, &moved.record)
                    && let Record::Mail(mail) | Record::Moved(mail) = mail.record
                {
                    let mail = MailRecord {
                        sequence: 0,
                        ..mail
                    };
                    self.put(moved.place, Part::ONLY, &Record::Moved(mail));
                }
            }
            Queued::Roll { place } => {
                self.put(*place, Part::ONLY, &Record::End);
                self.write()?;
                return self.roll(*place);
            }
        }
        Ok(())
    }

    fn encode_post(&mut self, post: &Post) {
        let of = u8::try_from(post.parts.len() + post.left_out.len()).unwrap_or(u8::MAX);
        let mut numbers = 0..of;
        for (part, number) in post.parts.iter().zip(&mut numbers) {
            let mail = MailRecord {
                device: part.device.as_bytes(),
                position: part.position,
                expires_millis: part.expires_millis,
                time_millis: post.time_millis,
                sequence: post.sequence,
                id: &post.id,
                from_device: post.from_device.as_bytes(),
                from_user: post.from_user.as_bytes(),
                to_user: post.user_of(part).as_bytes(),
                message: &part.message,
            };
            self.put(part.place, Part { number, of }, &Record::Mail(mail));
        }
        for (left_out, number) in post.left_out.iter().zip(numbers) {
            let notice = NoticeRecord {
                device: post.from_device.as_bytes(),
                position: left_out.position,
                expires_millis: left_out.expires_millis,
                id: &post.id,
                of_device: left_out.device.as_bytes(),
                of_position: NO_POSITION,
                reason: UndeliveredReason::MailboxFull.code(),
                of_user: post.from_user.as_bytes(),
            };
            self.put(left_out.place, Part { number, of }, &Record::Notice(notice));
        }
    }

    /// Adds a record to the buffer. Records come in the order of their places, without gaps.
    fn put(&mut self, place: Place, part: Part, record: &Record<'_>) {
        let batch = *self.batch.get_or_insert(place);
        debug_assert_eq!(
            (place.segment, place.offset as usize),
            (batch.segment, batch.offset as usize + self.buffer.len())
        );
        record::encode(
            &mut self.buffer,
            &self.header.log.seed,
            place,
            batch.offset,
            part,
            record,
        );
    }

    /// Writes and syncs the buffer.
    fn write(&mut self) -> Result<(), Failed> {
        let Some(batch) = self.batch.take() else {
            return Ok(());
        };
        let written = self
            .file
            .write_at(batch.offset.into(), &self.buffer)
            .and_then(|()| self.file.sync());
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
        written.map_err(|error| failed(&error))
    }

    /// Goes on in the segment after the one that ends at `place`.
    fn roll(&mut self, place: Place) -> Result<(), Failed> {
        let mut core = self.shared.lock();
        if let Some(ended) = core.segments.get_mut(&place.segment) {
            // A segment is shorter than 4 GiB.
            ended.length = place
                .offset
                .saturating_add(u32::try_from(record::END_BYTES).unwrap_or(u32::MAX));
        }
        self.header.segment = place.segment.saturating_add(1);
        let Some(next) = core.segments.get(&self.header.segment) else {
            tracing::error!("a segment of the mail log is missing");
            return Err(Failed);
        };
        self.file = Arc::clone(&next.file);
        Ok(())
    }

    /// Makes the segment after the last, if it is time.
    fn prepare_spare(&mut self) -> Result<(), Failed> {
        {
            let core = self.shared.lock();
            if !core.is_writable() || !core.needs_spare() {
                return Ok(());
            }
        }
        let number = self.shared.lock().tail().next.segment.checked_add(1);
        let made = match number {
            Some(number) => create_segment(
                &*self.disk,
                &Header {
                    segment: number,
                    ..self.header
                },
                self.segment_bytes,
            ),
            None => Err(io::ErrorKind::StorageFull.into()),
        };
        let spare = match made {
            Ok(spare) => Some(spare),
            Err(error) if is_full(&error) => {
                tracing::error!(%error, "no room for another segment of the mail log; make room on the disk");
                None
            }
            Err(error) => return Err(failed(&error)),
        };
        self.shared.lock().set_spare(spare);
        self.shared.tell_of_room();
        Ok(())
    }

    /// Writes that nothing follows, and gives back what was set aside.
    fn seal(&mut self) -> Result<(), Failed> {
        let (tail, spare) = {
            let core = self.shared.lock();
            let spare = core
                .spare()
                .and_then(|spare| core.segments.get(&spare.next.segment))
                .map(|segment| segment.name.clone());
            (core.tail(), spare)
        };
        let length =
            seal(&*self.file, &self.header.log, tail.next).map_err(|error| failed(&error))?;
        if let Some(ended) = self.shared.lock().segments.get_mut(&tail.next.segment) {
            ended.length = length;
        }
        if let Some(spare) = spare {
            self.disk
                .remove(&spare)
                .and_then(|()| self.disk.sync())
                .map_err(|error| failed(&error))?;
        }
        Ok(())
    }
}

/// Ends a segment at `place`: a mark says that nothing follows, and the file is cut behind it. Returns its length.
pub(super) fn seal(file: &dyn LogFile, log: &LogId, place: Place) -> io::Result<u32> {
    let mut end = Vec::new();
    record::encode(
        &mut end,
        &log.seed,
        place,
        place.offset,
        Part::ONLY,
        &Record::End,
    );
    let offset = u64::from(place.offset);
    file.write_at(offset, &end)?;
    file.sync()?;
    file.truncate(offset + end.len() as u64)?;
    file.sync()?;
    Ok(place
        .offset
        .saturating_add(u32::try_from(end.len()).unwrap_or(u32::MAX)))
}

/// Makes an empty segment that is durable.
pub(super) fn create_segment(
    disk: &dyn Disk,
    header: &Header,
    bytes: u32,
) -> io::Result<(Tail, Segment)> {
    let name = segment::name(header.segment, header.start);
    let made = (|| {
        let file = disk.create(&name)?;
        file.reserve(bytes.into())?;
        file.write_at(0, &segment::encode_header(header))?;
        file.sync()?;
        disk.sync()?;
        Ok(file)
    })();
    match made {
        Ok(file) => Ok((
            Tail {
                next: Place {
                    segment: header.segment,
                    offset: segment::START,
                },
                end: bytes,
            },
            Segment {
                file,
                name,
                length: bytes,
            },
        )),
        Err(error) => {
            if is_full(&error) {
                // Whatever was begun; if it stays, recovery knows it for what it is.
                drop(disk.remove(&name));
            }
            Err(error)
        }
    }
}

/// Whether the disk has no room, or the system no memory or descriptor: it has not done what was asked, and later it may.
pub(super) fn is_full(error: &io::Error) -> bool {
    let out_of_descriptors = error
        .raw_os_error()
        .is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code));
    out_of_descriptors
        || matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::OutOfMemory
        )
}

pub(super) fn failed(error: &io::Error) -> Failed {
    tracing::error!(%error, "the mail log cannot be written and takes nothing more; check the disk and restart the relay");
    Failed
}
