//! How a blob lies on the disk, and what is known of it after a crash.
//!
//! ```text
//!  0        description: whose it is and how large it will be, with a checksum
//!  1,024    mark ─┐ each: how much is durable, with a checksum; written in turn, so that a torn one leaves the other
//!  2,048    mark ─┘
//!  3,072    seal: when all of it was durable, with a checksum; not there before
//!  4,096    the content
//! ```
//! The content is synced before a mark or the seal that covers it is written, so each is true whenever it can be read. What lies
//! behind the last mark of a file without a seal may be anything after a power cut; opening it cuts that off. The content itself has no checksum
//! here: it is sealed end to end, and whoever fetches it notices every flipped bit.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sha2::{Digest as _, Sha256};

use super::BlobId;
use crate::data_dir::files::{private, sync_directory};

/// Bytes appended to a blob before they are synced and marked: what a crash of the machine costs an upload at most.
pub(super) const SYNC_BYTES: u64 = 8 << 20;
/// Bytes before the content.
pub(super) const CONTENT_START: u64 = 4_096;

const MAGIC: &[u8; 16] = b"sealwire blob 1\n";
const MARKS: [u64; 2] = [1_024, 2_048];
const SEAL: u64 = 3_072;
/// `u64 value; opaque checksum[24]`.
const NOTE_BYTES: usize = 32;
/// `opaque magic[16]; opaque device[32]; u64 size; u64 begun; vec8 user padded to 256; opaque checksum[32]`.
const DESCRIPTION_BYTES: usize = 352;

/// What does not change about a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    /// Who began it.
    pub(super) device: Thumbprint,
    pub(super) user: User,
    /// Bytes it has when all is there.
    pub(super) size: u64,
    /// When it was begun, in seconds since 1970.
    pub(super) begun: u64,
}

/// A blob's file. Dropping it leaves what was appended since the last mark to the operating system.
#[derive(Debug)]
pub(super) struct BlobFile {
    path: PathBuf,
    id: BlobId,
    /// Open while it grows: an error of a sync is told to the handle that wrote.
    file: Option<File>,
    /// How much the last mark covers.
    marked: u64,
    /// Whether the next mark goes to the second place.
    second_next: bool,
}

/// A file that was there when the relay started.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: BlobFile,
    pub(super) description: Description,
    /// How much of the content is there for certain.
    pub(super) length: u64,
    /// When all of it was there, in seconds since 1970.
    pub(super) sealed: Option<u64>,
}

/// What a file in the directory turned out to be.
#[derive(Debug)]
pub(super) enum Opened {
    Blob(Box<Found>),
    /// A crash came before anything of it was durable; it has been removed.
    Torn,
    /// It was whole once and is not any more.
    Damaged,
}

/// The name of a blob's file: its id in hexadecimal, as some file systems do not tell cases apart.
pub(super) fn name(id: &BlobId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id of the blob in a file of this name.
pub(super) fn id(name: &str) -> Option<BlobId> {
    let digits = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if name.len() != 64 || !name.as_bytes().iter().all(digits) {
        return None;
    }
    let mut id = [0; 32];
    for (byte, digits) in id.iter_mut().zip(name.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(id)
}

/// Reads exactly `length` bytes of content.
pub(super) fn read(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(CONTENT_START.saturating_add(offset)))?;
    let mut content = vec![0; length];
    file.read_exact(&mut content)?;
    Ok(content)
}

/// What there is for certain of a blob that may grow, or go, at the same time.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Durable {
    /// The file up to its content, which may say more by now.
    pub(crate) head: Vec<u8>,
    /// Bytes of content.
    pub(crate) bytes: u64,
    file: File,
}

#[cfg(unix)]
impl Durable {
    /// Looks at the blob in a file; `None` if there is none any more, or it is damaged.
    pub(super) fn of(path: &Path, id: &BlobId) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut head = Vec::new();
        (&file).take(CONTENT_START).read_to_end(&mut head)?;
        let marks = MARKS.map(|at| decode_note(&head, at, Note::Mark, id));
        let sealed = decode_note(&head, SEAL, Note::Seal, id);
        let bytes = match (decode(&head), sealed, marks) {
            (None, _, _) => return Ok(None),
            (Some(description), Some(_), _) => description.size,
            (Some(_), None, [first, second]) => first.max(second).unwrap_or_default(),
        };
        Ok(Some(Self { head, bytes, file }))
    }

    /// Fills `bytes` from `offset` of the content on.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let at = CONTENT_START.saturating_add(offset);
        std::os::unix::fs::FileExt::read_exact_at(&self.file, bytes, at)
    }
}

impl BlobFile {
    /// Makes the file, readable by its owner only, in a directory that exists. One that is there is of a blob that was not whole, and goes.
    pub(super) fn create(
        directory: &Path,
        id: BlobId,
        description: &Description,
    ) -> io::Result<Self> {
        let path = directory.join(name(&id));
        remove_if_there(&path)?;
        let mut file = private().create_new(true).write(true).open(&path)?;
        let written = file
            .write_all(&encode(description))
            .and_then(|()| file.set_len(CONTENT_START))
            .and_then(|()| sync_directory(&path));
        if let Err(error) = written {
            // What is left of it has no description, and the next start removes it.
            drop(fs::remove_file(&path));
            return Err(error);
        }
        Ok(Self {
            path,
            id,
            file: Some(file),
            marked: 0,
            second_next: false,
        })
    }

    /// Looks at a file after a start, and cuts off what is not known to be whole.
    pub(super) fn open(path: PathBuf, id: BlobId) -> io::Result<Opened> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut head = Vec::new();
        (&file).take(CONTENT_START).read_to_end(&mut head)?;
        let note = |at: u64, kind| decode_note(&head, at, kind, &id);
        let marks = MARKS.map(|at| note(at, Note::Mark));
        let sealed = note(SEAL, Note::Seal);
        let Some(description) = decode(&head) else {
            if sealed.is_some() || marks.iter().any(Option::is_some) {
                return Ok(Opened::Damaged);
            }
            fs::remove_file(&path)?;
            return Ok(Opened::Torn);
        };
        let there = file.metadata()?.len().saturating_sub(CONTENT_START);
        let [first, second] = marks;
        let marked = first.max(second).unwrap_or_default();
        if marked > there || sealed.is_some() && there != description.size {
            return Ok(Opened::Damaged);
        }
        let length = if sealed.is_some() { there } else { marked };
        if there > length {
            file.set_len(CONTENT_START.saturating_add(length))?;
        }
        let file = Self {
            path,
            id,
            file: None,
            marked: length,
            second_next: first > second,
        };
        Ok(Opened::Blob(Box::new(Found {
            file,
            description,
            length,
            sealed,
        })))
    }

    /// How much survives a crash of the machine.
    pub(super) fn marked(&self) -> u64 {
        self.marked
    }

    /// Appends to a content of `length` bytes, whole or not at all: after an error the file is as long as it was.
    ///
    /// # Errors
    /// The second one if it could not be cut back: then nothing is known of the file.
    pub(super) fn append(
        &mut self,
        length: u64,
        data: &[u8],
    ) -> Result<(), (io::Error, Option<io::Error>)> {
        let end = CONTENT_START.saturating_add(length);
        let file = self.opened().map_err(|error| (error, None))?;
        let written = file
            .seek(SeekFrom::Start(end))
            .and_then(|_| file.write_all(data));
        written.map_err(|error| (error, file.set_len(end).err()))
    }

    /// Makes the first `length` bytes of content survive a crash of the machine, and says so in the file.
    ///
    /// # Errors
    /// Then what came after the last mark is not known to be there: [`BlobFile::cut_to_mark`].
    pub(super) fn mark(&mut self, length: u64) -> io::Result<()> {
        if length == self.marked {
            return Ok(());
        }
        let id = self.id;
        let [first, second] = MARKS;
        let at = if self.second_next { second } else { first };
        let file = self.opened()?;
        file.sync_data()?;
        write_note(file, at, Note::Mark, &id, length)?;
        self.second_next = !self.second_next;
        self.marked = length;
        Ok(())
    }

    /// Makes the whole content durable and says so. It is not open afterwards.
    ///
    /// # Errors
    /// As [`BlobFile::mark`].
    pub(super) fn seal(&mut self, size: u64, now: u64) -> io::Result<()> {
        self.mark(size)?;
        let id = self.id;
        let file = self.opened()?;
        if file.metadata()?.len() != CONTENT_START.saturating_add(size) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_note(file, SEAL, Note::Seal, &id, now)?;
        file.sync_all()?;
        sync_directory(&self.path)?;
        self.close();
        Ok(())
    }

    /// Goes back to what is known to be there.
    pub(super) fn cut_to_mark(&mut self) -> io::Result<u64> {
        // A handle whose sync has failed says nothing any more.
        self.close();
        let end = CONTENT_START.saturating_add(self.marked);
        self.opened()?.set_len(end)?;
        Ok(self.marked)
    }

    /// Gives the handle back; it is opened again when it is needed.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Erases it, for good.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.close();
        remove(&self.path)
    }

    /// Whether a handle is held.
    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    fn opened(&mut self) -> io::Result<&mut File> {
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().read(true).write(true).open(&self.path)?,
        };
        Ok(self.file.insert(file))
    }
}

/// Erases a file, for good, whatever is in it.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    remove_if_there(path)?;
    sync_directory(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn encode(description: &Description) -> Vec<u8> {
    let user = description.user.as_str().as_bytes();
    let mut out = Vec::with_capacity(DESCRIPTION_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(description.device.as_bytes());
    out.extend_from_slice(&description.size.to_be_bytes());
    out.extend_from_slice(&description.begun.to_be_bytes());
    // A user has at most 255 bytes.
    out.push(u8::try_from(user.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(user);
    out.resize(DESCRIPTION_BYTES - 32, 0);
    let checksum = Sha256::digest(&out);
    out.extend_from_slice(&checksum);
    out
}

fn decode(head: &[u8]) -> Option<Description> {
    let (fields, checksum) = head.get(..DESCRIPTION_BYTES)?.split_last_chunk::<32>()?;
    if Sha256::digest(fields).as_slice() != checksum {
        return None;
    }
    let fields = fields.strip_prefix(MAGIC)?;
    let (device, fields) = fields.split_first_chunk::<32>()?;
    let (size, fields) = fields.split_first_chunk()?;
    let (begun, fields) = fields.split_first_chunk()?;
    let (length, user) = fields.split_first()?;
    let user = std::str::from_utf8(user.get(..usize::from(*length))?).ok()?;
    Some(Description {
        device: Thumbprint::from_bytes(*device),
        user: User::new(user).ok()?,
        size: u64::from_be_bytes(*size),
        begun: u64::from_be_bytes(*begun),
    })
}

/// A number in the file's head.
#[derive(Debug, Clone, Copy)]
enum Note {
    Mark,
    Seal,
}

fn checksum(kind: Note, id: &BlobId, value: u64) -> [u8; 24] {
    let kind: &[u8] = match kind {
        Note::Mark => b"mark",
        Note::Seal => b"seal",
    };
    let digest = Sha256::new()
        .chain_update(kind)
        .chain_update(id)
        .chain_update(value.to_be_bytes())
        .finalize();
    let mut checksum = [0; 24];
    for (to, from) in checksum.iter_mut().zip(digest) {
        *to = from;
    }
    checksum
}

fn write_note(file: &mut File, at: u64, kind: Note, id: &BlobId, value: u64) -> io::Result<()> {
    let mut note = value.to_be_bytes().to_vec();
    note.extend_from_slice(&checksum(kind, id, value));
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&note)
}

fn decode_note(head: &[u8], at: u64, kind: Note, id: &BlobId) -> Option<u64> {
    let at = usize::try_from(at).ok()?;
    let note = head.get(at..at.checked_add(NOTE_BYTES)?)?;
    let (value, found) = note.split_first_chunk()?;
    let value = u64::from_be_bytes(*value);
    (checksum(kind, id, value) == found).then_some(value)
}
