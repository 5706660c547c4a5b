//! Sends a file to the relay, chunk by chunk, from wherever the relay has got to.
//!
//! ```text
//!  file ── a span of 64 chunks ──▶ hash ──▶ record: covered, SHA-256 so far ──▶ seal ──▶ at most 8 at the relay, unanswered
//!            ▲                                                                   │
//!            └────── ask where the relay is, compare what is covered ◀───────────┘ link lost, relay restarted, next run
//! ```
//! The record in the device store runs ahead of what is sent: whatever the relay has, the record covers. So going on begins with reading what is
//! covered and comparing its hash: if the file has changed, it is sent anew, under a new key and into a new blob.
//!
//! The caller's thread does the work and waits; nothing is read that there is no room for at the relay.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use rand::{CryptoRng, RngExt as _};
use sealwire_e2e::file::FileKey;
use sealwire_protocol::close::RefusalCode;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::chunks::{BlobId, FileCipher, Shape};
use super::error::{End, FileError};
use super::port::{Ask, MAX_OPEN, NoAnswer, Port, Stopped, Told};
use super::record::UploadRecord;
use crate::engine::refusal;
use crate::error::{Error, RelayFault};

/// Chunks that are read, hashed and recorded at a time.
const SPAN_CHUNKS: u64 = if cfg!(test) { 4 } else { 64 };
/// Bytes of a file read at a time while it is only hashed.
const READ_BYTES: usize = 256 << 10;
/// Times that the relay may refuse for the moment, or say something else than expected, until it is believed.
const MAX_TRIES: u32 = 8;
/// The longest rest between two of them.
const MAX_REST: Duration = Duration::from_secs(30);

/// A file that is at the relay, whole.
pub(crate) struct Uploaded {
    pub(crate) blob: BlobId,
    pub(crate) key: FileKey,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
    /// The id of the message that is to name it.
    pub(crate) message: [u8; 16],
}

/// What is to be sent.
pub(crate) struct Source<F> {
    pub(crate) file: F,
    /// What the upload is called in the device store.
    pub(crate) name: [u8; 32],
    /// Now, in seconds since 1970.
    pub(crate) now: u64,
}

/// Sends a file; or the rest of it. `progress` is told how many bytes of it are at the relay, and of how many.
///
/// The record stays, under the number that is given back: the caller removes it once the message that names the file is safe.
pub(crate) fn upload<F: Read + Seek>(
    source: Source<F>,
    port: &mut impl Port,
    rng: &mut impl CryptoRng,
    progress: &mut impl FnMut(u64, u64),
) -> Result<(u64, Uploaded), End> {
    let Source {
        mut file,
        name,
        now,
    } = source;
    let records = port.records()?;
    let (number, mut found) = match UploadRecord::find(&name, &records) {
        Some((number, record)) => (number, Some(record)),
        None => {
            if let Some(oldest) = UploadRecord::oldest(&records) {
                port.remove_record(oldest)?;
            }
            (rng.random(), None)
        }
    };
    // Anew where the file is another one, once: one that goes on changing cannot be sent.
    let mut again = true;
    loop {
        let size = file.seek(SeekFrom::End(0)).map_err(FileError::Read)?;
        let shape = Shape::new(size).ok_or(FileError::TooLarge)?;
        let record = match found.take() {
            Some(record) if record.size == size => record,
            old => {
                forget(old, port)?;
                new_record(name, size, now, rng)
            }
        };
        let key = FileKey::from_bytes(&record.key);
        let mut upload = Upload {
            cipher: FileCipher::new(key, record.blob, shape),
            file,
            record,
            number,
            snapshots: Snapshots::default(),
            asked: 0,
            tries: 0,
        };
        let outcome = upload.run(port, rng, &mut |done| progress(done, size));
        let Upload {
            file: unused,
            record,
            ..
        } = upload;
        file = unused;
        match outcome {
            Ok(sha256) => return Ok((number, uploaded(&record, sha256))),
            Err(End::Failed(Error::File(FileError::Changed))) => {
                forget(Some(record), port)?;
                port.remove_record(number)?;
                if !std::mem::take(&mut again) {
                    return Err(FileError::Changed.into());
                }
            }
            Err(end) => return Err(end),
        }
    }
}

fn uploaded(record: &UploadRecord, sha256: [u8; 32]) -> Uploaded {
    Uploaded {
        blob: record.blob,
        key: FileKey::from_bytes(&record.key),
        size: record.size,
        sha256,
        message: record.message,
    }
}

/// Has the relay erase what it has of an upload that will not go on. Nobody was told of it; if the relay cannot be asked now, it grows too old there.
fn forget(old: Option<UploadRecord>, port: &mut impl Port) -> Result<(), Stopped> {
    if let Some(old) = old {
        port.ask_one(Ask::Discard { blob: old.blob })?.ok();
    }
    Ok(())
}

fn new_record(name: [u8; 32], size: u64, now: u64, rng: &mut impl CryptoRng) -> UploadRecord {
    UploadRecord {
        name,
        blob: rng.random(),
        key: Zeroizing::new(*FileKey::random(rng).expose_for_store()),
        size,
        covered: 0,
        prefix: Sha256::digest(b"").into(),
        message: rng.random(),
        begun: now,
    }
}

/// Hashes part of a file.
fn hash_range<F: Read + Seek>(
    file: &mut F,
    from: u64,
    to: u64,
    hash: &mut Sha256,
    port: &mut impl Port,
) -> Result<(), End> {
    file.seek(SeekFrom::Start(from)).map_err(FileError::Read)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut left = to.saturating_sub(from);
    while left > 0 {
        port.rest(Duration::ZERO)?;
        let want = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let bytes = buffer.get_mut(..want).unwrap_or_default();
        read_exactly(file, bytes)?;
        hash.update(&*bytes);
        left = left.saturating_sub(want as u64);
    }
    Ok(())
}

fn read_exactly(file: &mut impl Read, bytes: &mut [u8]) -> Result<(), FileError> {
    file.read_exact(bytes).map_err(|error| {
        if error.kind() == ErrorKind::UnexpectedEof {
            FileError::Changed
        } else {
            FileError::Read(error)
        }
    })
}

struct Upload<F> {
    cipher: FileCipher,
    file: F,
    record: UploadRecord,
    /// The record's number in the device store.
    number: u64,
    snapshots: Snapshots,
    /// Numbers of requests given so far.
    asked: u64,
    /// Refusals since the relay last took something.
    tries: u32,
}

/// How far the relay is.
#[derive(Debug, Clone, Copy)]
enum Progress {
    /// It has this many chunks.
    Chunks(u64),
    /// It has all, and says so.
    Complete,
}

/// Why sending was interrupted and has to look where the relay is.
enum Interruption {
    LinkLost,
    Refused(RefusalCode),
    /// An answer that does not fit what was sent.
    Unexpected,
}

impl<F: Read + Seek> Upload<F> {
    /// Until the relay has it all. Gives the SHA-256 of the file as it was sent.
    fn run(
        &mut self,
        port: &mut impl Port,
        rng: &mut impl CryptoRng,
        progress: &mut impl FnMut(u64),
    ) -> Result<[u8; 32], End> {
        progress(0);
        loop {
            let at = self.locate(port, rng)?;
            let shape = *self.cipher.shape();
            let chunks = match at {
                Progress::Chunks(chunks) => chunks,
                Progress::Complete => shape.chunks(),
            };
            let place = shape.file_offset(chunks);
            progress(place);
            let mut hash = self.hash_at(place, port)?;
            if matches!(at, Progress::Complete) {
                return Ok(hash.finalize().into());
            }
            match self.send_from(chunks, &mut hash, port, rng, progress)? {
                None => return Ok(hash.finalize().into()),
                Some(Interruption::LinkLost) => {}
                Some(Interruption::Refused(code)) => self.try_again(code, port, rng)?,
                Some(Interruption::Unexpected) => {
                    self.try_again(RefusalCode::BlobConflict, port, rng)?;
                }
            }
        }
    }

    /// Asks how far the relay is.
    fn locate(&mut self, port: &mut impl Port, rng: &mut impl CryptoRng) -> Result<Progress, End> {
        let shape = *self.cipher.shape();
        // Nothing was sent before something is covered.
        if self.record.covered == 0 && shape.size() > 0 {
            return Ok(Progress::Chunks(0));
        }
        loop {
            let ask = Ask::Upload {
                blob: *self.cipher.blob(),
                size: shape.blob_bytes(),
                offset: 0,
                data: Vec::new(),
            };
            match port.ask_one(ask)? {
                Ok(Told::Blob {
                    length, complete, ..
                }) => {
                    let chunks = shape.chunks_before(length);
                    let known =
                        chunks.filter(|chunks| shape.file_offset(*chunks) <= self.record.covered);
                    // A relay that is somewhere else has cut a chunk, or has what was never sent.
                    let chunks = known.ok_or(FileError::Changed)?;
                    return Ok(if complete && chunks == shape.chunks() {
                        Progress::Complete
                    } else {
                        Progress::Chunks(chunks)
                    });
                }
                // It was never begun, or has been forgotten: it begins again.
                Err(NoAnswer::Refused(RefusalCode::UnknownBlob)) => {
                    return Ok(Progress::Chunks(0));
                }
                Err(NoAnswer::Refused(code)) => {
                    self.try_again(code, port, rng)?;
                }
                Err(NoAnswer::LinkLost) => {}
                Err(NoAnswer::Closed) => return Err(Stopped::Closed.into()),
                Ok(Told::Accepted) => return Err(unexpected()),
            }
        }
    }

    /// The hash of the file up to `place`, of which the relay has the chunks. What is covered beyond is compared too: if it is not what
    /// was covered, then neither is certain to be what the relay has.
    fn hash_at(&mut self, place: u64, port: &mut impl Port) -> Result<Sha256, End> {
        let (from, mut hash) = self.snapshots.before(place);
        hash_range(&mut self.file, from, place, &mut hash, port)?;
        let at_place = hash.clone();
        hash_range(&mut self.file, place, self.record.covered, &mut hash, port)?;
        if place <= self.record.covered && <[u8; 32]>::from(hash.finalize()) != self.record.prefix {
            return Err(FileError::Changed.into());
        }
        Ok(at_place)
    }

    /// Sends from a chunk on, to the end or an interruption.
    fn send_from(
        &mut self,
        first: u64,
        hash: &mut Sha256,
        port: &mut impl Port,
        rng: &mut impl CryptoRng,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<Interruption>, End> {
        let shape = *self.cipher.shape();
        let mut window = Window::new(shape, first);
        let mut span = Vec::new();
        let mut index = first;
        while index < shape.chunks() && window.interruption.is_none() {
            let end = index.saturating_add(SPAN_CHUNKS).min(shape.chunks());
            self.read_span(index, end, &mut span, hash, port)?;
            let mut rest = span.as_slice();
            while index < end && window.interruption.is_none() {
                while window.open >= MAX_OPEN {
                    self.take_answer(&mut window, port, progress)?;
                }
                let Some((bytes, others)) = rest.split_at_checked(shape.file_bytes(index)) else {
                    return Err(FileError::Changed.into());
                };
                rest = others;
                let data = self
                    .cipher
                    .seal(index, bytes, rng)
                    .map_err(|_| FileError::Changed)?;
                self.asked = self.asked.wrapping_add(1);
                port.ask(
                    self.asked,
                    Ask::Upload {
                        blob: *self.cipher.blob(),
                        size: shape.blob_bytes(),
                        offset: shape.blob_offset(index),
                        data,
                    },
                )?;
                window.open += 1;
                index += 1;
            }
        }
        while window.open > 0 {
            self.take_answer(&mut window, port, progress)?;
        }
        if window.interruption.is_none() && !window.complete {
            window.interruption = Some(Interruption::Unexpected);
        }
        Ok(window.interruption)
    }

    /// Reads the chunks from `index` to `end`, and covers them.
    fn read_span(
        &mut self,
        index: u64,
        end: u64,
        span: &mut Vec<u8>,
        hash: &mut Sha256,
        port: &mut impl Port,
    ) -> Result<(), End> {
        let shape = *self.cipher.shape();
        let (from, to) = (shape.file_offset(index), shape.file_offset(end));
        self.snapshots.keep(from, hash.clone());
        let length = usize::try_from(to.saturating_sub(from)).unwrap_or_default();
        span.clear();
        span.resize(length, 0);
        self.file
            .seek(SeekFrom::Start(from))
            .map_err(FileError::Read)?;
        read_exactly(&mut self.file, span)?;
        hash.update(&*span);
        self.record.covered = to;
        self.record.prefix = hash.clone().finalize().into();
        port.put_record(self.number, self.record.encode())?;
        Ok(())
    }

    fn take_answer(
        &mut self,
        window: &mut Window,
        port: &mut impl Port,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), End> {
        let (_, answer) = port.wait()?;
        window.open = window.open.saturating_sub(1);
        match answer {
            Ok(Told::Blob {
                length, complete, ..
            }) => {
                self.tries = 0;
                window.complete |= complete;
                if let Some(chunks) = window.shape.chunks_before(length) {
                    progress(window.shape.file_offset(chunks));
                }
            }
            Ok(Told::Accepted) => window.interrupt(Interruption::Unexpected),
            Err(NoAnswer::Refused(code)) => window.interrupt(Interruption::Refused(code)),
            Err(NoAnswer::LinkLost) => window.interrupt(Interruption::LinkLost),
            Err(NoAnswer::Closed) => return Err(Stopped::Closed.into()),
        }
        Ok(())
    }

    /// Rests before another try, if that makes sense and has not been done too often.
    fn try_again(
        &mut self,
        code: RefusalCode,
        port: &mut impl Port,
        rng: &mut impl CryptoRng,
    ) -> Result<(), End> {
        let passing = matches!(
            code,
            RefusalCode::RateLimited | RefusalCode::Unavailable | RefusalCode::BlobConflict
        );
        self.tries = self.tries.saturating_add(1);
        if !passing || self.tries > MAX_TRIES {
            return Err(if code == RefusalCode::TooLarge {
                FileError::TooLarge.into()
            } else {
                End::Failed(Error::Refused(refusal(code)))
            });
        }
        Ok(port.rest(rest(self.tries, rng))?)
    }
}

/// How long to rest after so many refusals: a random part of a time that doubles.
pub(super) fn rest(tries: u32, rng: &mut impl CryptoRng) -> Duration {
    let longest = Duration::from_millis(100)
        .saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX))
        .min(MAX_REST);
    longest.mul_f64(rng.random_range(0.5..=1.0))
}

pub(super) fn unexpected() -> End {
    End::Failed(Error::Relay(RelayFault::Record))
}

/// What is under way.
struct Window {
    shape: Shape,
    open: usize,
    complete: bool,
    /// The first: those after it follow from it.
    interruption: Option<Interruption>,
}

impl Window {
    fn new(shape: Shape, first: u64) -> Self {
        Self {
            shape,
            open: 0,
            complete: first >= shape.chunks(),
            interruption: None,
        }
    }

    fn interrupt(&mut self, interruption: Interruption) {
        self.interruption.get_or_insert(interruption);
    }
}

/// The hash at the last few places, so that a lost link does not cost reading the file from its start.
#[derive(Default)]
struct Snapshots(Vec<(u64, Sha256)>);

/// Snapshots that are kept: more bytes than a relay that crashed takes back.
const MAX_SNAPSHOTS: usize = 8;

impl Snapshots {
    fn keep(&mut self, place: u64, hash: Sha256) {
        self.0.retain(|(kept, _)| *kept < place);
        if self.0.len() >= MAX_SNAPSHOTS {
            self.0.remove(0);
        }
        self.0.push((place, hash));
    }

    /// The last one at or before `place`.
    fn before(&self, place: u64) -> (u64, Sha256) {
        self.0
            .iter()
            .rev()
            .find(|(kept, _)| *kept <= place)
            .cloned()
            .unwrap_or_default()
    }
}

/// Opens a file to be sent.
pub(crate) fn open(path: &Path) -> Result<File, FileError> {
    // A pipe would block, and is not a file: it is looked at first.
    let kind = std::fs::metadata(path).map_err(FileError::Read)?;
    if !kind.is_file() {
        return Err(FileError::NotAFile);
    }
    File::open(path).map_err(FileError::Read)
}
