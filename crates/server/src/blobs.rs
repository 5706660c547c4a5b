//! Sealed files that a device leaves with the relay for others to fetch (docs/protocol.md §5).
//!
//! ```text
//!  append ──▶ index: whose, how much room ──▶ the blob's turn, in order ──▶ disk ──▶ Extent
//!  read   ──▶ index: how much is there ──────────────────────────────────▶ disk ──▶ Extent and bytes
//! ```
//! * A blob grows at its end only, by the device that began it. What a crash leaves of it is whole appends ([`file`] says how).
//! * It is complete once all of it is durable, never before. From then on it does not change until it is erased.
//! * Who may ask, and how often, is for the requests to decide. Here an id that is not known and one of another device's are the same to
//!   whoever wants to change something; and whoever knows an id may read: it is 32 random bytes, told end to end.
//! * The disk is used on blocking threads, by a bounded number of jobs at a time. A job holds one piece.
mod file;
mod index;
mod room;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio::task::{spawn_blocking, unconstrained};

#[cfg(unix)]
pub(crate) use self::file::Durable;
use self::file::{BlobFile, Description, Found, Opened, SYNC_BYTES};
#[cfg(unix)]
use self::index::Usage;
use self::index::{Body, Entry, Index, State};
use self::room::Room;
#[cfg(unix)]
pub(crate) use self::room::free_on_disk;
use crate::bounds::{MAX_BLOB_JOBS, MAX_SWEPT_BLOBS};
use crate::data_dir::files::private_directory;

/// What names a blob: 32 bytes that its sender has chosen at random.
pub(crate) type BlobId = [u8; 32];

/// Bytes of blobs, whole or not, that one user may have at the relay.
pub const BLOB_BYTES_PER_USER: u64 = 8 << 30;
/// Bytes of blobs that the relay holds.
pub const BLOB_BYTES: u64 = 64 << 30;
/// Blobs that one user may have at the relay.
pub const BLOBS_PER_USER: u64 = 4_096;
/// Blobs that the relay holds.
pub const BLOBS: u64 = 262_144;
/// Blobs of a user that are not whole yet.
pub const BLOB_UPLOADS_PER_USER: u64 = 16;
/// Seconds for which a blob is held once it is whole.
pub const BLOB_RETENTION_SECONDS: u64 = 30 * 24 * 60 * 60;
/// Seconds within which a blob that was begun has to become whole.
pub const BLOB_UPLOAD_SECONDS: u64 = 7 * 24 * 60 * 60;
/// Free bytes of the disk that no blob takes: mail and the directory go on when blobs do not.
pub const BLOB_RESERVED_BYTES: u64 = 1 << 30;
/// Bytes of blobs in a relay without a directory; they are in memory.
const BLOB_BYTES_IN_MEMORY: u64 = 256 << 20;
/// Seconds after which an upload that does not go on is synced and its file closed.
const IDLE_UPLOAD_SECONDS: u64 = 60;

/// How much there may be, and for how long. A size counts from the first byte on, with 4 KiB more for each blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlobLimits {
    /// Bytes that one user may have.
    pub bytes_per_user: u64,
    /// Bytes that the relay holds.
    pub bytes: u64,
    /// Blobs that one user may have.
    pub blobs_per_user: u64,
    /// Blobs that the relay holds.
    pub blobs: u64,
    /// Blobs of one user that are not whole yet.
    pub uploads_per_user: u64,
    /// Seconds for which a whole blob is held.
    pub retention_seconds: u64,
    /// Seconds within which a blob has to become whole.
    pub upload_seconds: u64,
    /// Free bytes of the disk that no blob takes; a blob for which there is no room beside them is not begun.
    pub reserved_bytes: u64,
}

impl Default for BlobLimits {
    /// The constants of this module.
    fn default() -> Self {
        Self {
            bytes_per_user: BLOB_BYTES_PER_USER,
            bytes: BLOB_BYTES,
            blobs_per_user: BLOBS_PER_USER,
            blobs: BLOBS,
            uploads_per_user: BLOB_UPLOADS_PER_USER,
            retention_seconds: BLOB_RETENTION_SECONDS,
            upload_seconds: BLOB_UPLOAD_SECONDS,
            reserved_bytes: BLOB_RESERVED_BYTES,
        }
    }
}

/// The relay's blobs. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    place: Place,
    limits: BlobLimits,
    room: Room,
    index: Mutex<Index>,
    /// Jobs on the disk.
    jobs: Arc<Semaphore>,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Memory,
}

/// What is to be appended, and by whom.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) blob: BlobId,
    pub(crate) user: User,
    pub(crate) device: Thumbprint,
    /// Bytes of the whole blob.
    pub(crate) size: u64,
    /// How much the relay has, as the device believes.
    pub(crate) offset: u64,
    /// Nothing, to ask how much that is.
    pub(crate) data: Bytes,
}

/// How much of a blob is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes that are there.
    pub(crate) length: u64,
    /// Bytes it has when it is whole.
    pub(crate) size: u64,
    /// Whether it is whole, durably.
    pub(crate) complete: bool,
}

/// Why a blob is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlobError {
    #[error("there is no such blob, or it is another device's")]
    Unknown,
    #[error("offset or size are not those of the blob")]
    Conflict,
    #[error("larger than a user may have")]
    TooLarge,
    #[error("{0}")]
    Full(Full),
    #[error("the disk failed: {0}")]
    Disk(#[from] io::Error),
    #[error("the disk failed earlier; the blob is not usable until the relay starts again")]
    Broken,
    #[error("the relay is stopping")]
    Stopping,
}

/// What there is no room in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    User,
    Uploads,
    Relay,
    Disk,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "what one user may have is used up",
            Self::Uploads => "too many uploads of one user are not finished",
            Self::Relay => "the relay has no room for more",
            Self::Disk => "the disk has no room but what is reserved for mail and the directory",
        })
    }
}

impl BlobError {
    /// What the device is told (docs/protocol.md §5.3).
    pub(crate) fn refusal(&self) -> RefusalCode {
        match self {
            Self::Unknown => RefusalCode::UnknownBlob,
            Self::Conflict => RefusalCode::BlobConflict,
            Self::TooLarge => RefusalCode::TooLarge,
            Self::Full(_) => RefusalCode::StorageFull,
            Self::Disk(error) if error.kind() == io::ErrorKind::StorageFull => {
                RefusalCode::StorageFull
            }
            Self::Disk(_) | Self::Broken | Self::Stopping => RefusalCode::Unavailable,
        }
    }
}

impl Blobs {
    /// Opens what is in `directory`, which is made if it is not there: for its owner only.
    ///
    /// What a crash left is cut to what is whole. A damaged file, and one that cannot be opened, is left where it is, named in the log and not served.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(crate) fn open(directory: &Path, limits: BlobLimits) -> io::Result<Self> {
        Self::open_on(directory, limits, Room::on_disk())
    }

    fn open_on(directory: &Path, limits: BlobLimits, room: Room) -> io::Result<Self> {
        private_directory(directory)?;
        let mut index = Index::default();
        for found in std::fs::read_dir(directory)? {
            let found = found?;
            let Some(id) = found.file_name().to_str().and_then(file::id) else {
                continue;
            };
            match BlobFile::open(found.path(), id) {
                Ok(Opened::Blob(found)) => {
                    index.insert(entry(id, *found));
                }
                Ok(Opened::Torn) => {}
                // It costs itself, not the relay.
                Err(error) => tracing::error!(
                    %error,
                    file = %found.path().display(),
                    "a blob cannot be opened and is not served; check the disk"
                ),
                Ok(Opened::Damaged) => tracing::error!(
                    file = %found.path().display(),
                    "a blob is damaged and not served; check the disk"
                ),
            }
        }
        Ok(Self::new(
            Place::Directory(directory.to_owned()),
            limits,
            room,
            index,
        ))
    }

    /// Blobs that end with the process; few.
    pub(crate) fn in_memory(limits: BlobLimits) -> Self {
        let limits = BlobLimits {
            bytes: limits.bytes.min(BLOB_BYTES_IN_MEMORY),
            ..limits
        };
        Self::new(Place::Memory, limits, Room::unknown(), Index::default())
    }

    fn new(place: Place, limits: BlobLimits, room: Room, index: Index) -> Self {
        Self {
            inner: Arc::new(Inner {
                place,
                limits,
                room,
                index: Mutex::new(index),
                jobs: Arc::new(Semaphore::new(MAX_BLOB_JOBS)),
            }),
        }
    }

    /// Appends, or says how much is there. Appends to one blob are done in the order in which these futures are first polled.
    ///
    /// `now` is in seconds since 1970. A blob begins with its first data, at offset 0.
    ///
    /// # Errors
    /// [`BlobError`]; nothing has been appended then.
    pub(crate) async fn append(&self, append: Append, now: u64) -> Result<Extent, BlobError> {
        let entry = self.entry_for(&append, now)?;
        // A task that has used up its turn would otherwise not get a place in the line yet.
        let mut state = unconstrained(Arc::clone(&entry.state).lock_owned()).await;
        if append.data.is_empty() && !state.is_ripe(&entry) {
            return state.extent(&entry);
        }
        let blobs = self.clone();
        self.job(move || blobs.append_in_turn(&entry, &mut state, &append, now))
            .await?
    }

    /// The blob that is meant, begun if need be.
    fn entry_for(&self, append: &Append, now: u64) -> Result<Arc<Entry>, BlobError> {
        let mut index = self.index();
        match index.find(&append.blob) {
            Some(entry) if entry.description.device != append.device => Err(BlobError::Unknown),
            Some(entry) if entry.description.size != append.size => Err(BlobError::Conflict),
            Some(entry) => Ok(entry),
            None if append.data.is_empty() => Err(BlobError::Unknown),
            None if append.offset != 0 || append.data.len() as u64 > append.size => {
                Err(BlobError::Conflict)
            }
            None => {
                let description = Description {
                    device: append.device,
                    user: append.user.clone(),
                    size: append.size,
                    begun: now,
                };
                let free = match &self.inner.place {
                    Place::Directory(directory) => self.inner.room.free(directory)?,
                    Place::Memory => u64::MAX,
                };
                index.begin(append.blob, description, &self.inner.limits, free)
            }
        }
    }

    fn append_in_turn(
        &self,
        entry: &Arc<Entry>,
        state: &mut State,
        append: &Append,
        now: u64,
    ) -> Result<Extent, BlobError> {
        let was_sealed = state.sealed.is_some();
        let appended = self
            .materialise(entry, state)
            .and_then(|()| state.append(&entry.description, append, now));
        entry.publish(state);
        if !was_sealed && state.sealed.is_some() {
            self.index().sealed(entry);
        }
        if matches!(state.body, Body::New) {
            // It could not even be begun; who waits for a turn finds nothing.
            state.body = Body::Gone;
            self.index().remove(entry);
        }
        appended?;
        state.extent(entry)
    }

    /// Makes the file of a blob that has none yet.
    fn materialise(&self, entry: &Entry, state: &mut State) -> Result<(), BlobError> {
        if matches!(state.body, Body::New) {
            state.body = match &self.inner.place {
                Place::Directory(directory) => {
                    Body::Disk(BlobFile::create(directory, entry.id, &entry.description)?)
                }
                Place::Memory => Body::Memory(Vec::new()),
            };
        }
        Ok(())
    }

    /// At most `length` bytes from `offset` on; fewer where the end is nearer, none beyond it.
    ///
    /// # Errors
    /// [`BlobError`].
    pub(crate) async fn read(
        &self,
        blob: &BlobId,
        offset: u64,
        length: usize,
    ) -> Result<(Extent, Vec<u8>), BlobError> {
        let entry = self.index().find(blob).ok_or(BlobError::Unknown)?;
        let extent = Extent {
            length: entry.length(),
            size: entry.description.size,
            complete: entry.sealed().is_some(),
        };
        let left = extent.length.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        if length == 0 {
            return Ok((extent, Vec::new()));
        }
        let data = match &self.inner.place {
            Place::Memory => {
                let state = entry.state.lock().await;
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let content = match &state.body {
                    Body::Memory(content) => content.get(start..start.saturating_add(length)),
                    Body::New | Body::Disk(_) | Body::Broken | Body::Gone => None,
                };
                content.ok_or(BlobError::Unknown)?.to_vec()
            }
            Place::Directory(directory) => {
                let path = directory.join(file::name(blob));
                let read = self.job(move || file::read(&path, offset, length)).await?;
                read.map_err(|error| {
                    // Erased since we looked.
                    if error.kind() == io::ErrorKind::NotFound {
                        return BlobError::Unknown;
                    }
                    tracing::error!(%error, "a blob cannot be read; check the disk");
                    BlobError::Disk(error)
                })?
            }
        };
        Ok((extent, data))
    }

    /// Erases a blob that `device` began.
    ///
    /// # Errors
    /// [`BlobError`].
    pub(crate) async fn discard(
        &self,
        blob: &BlobId,
        device: &Thumbprint,
    ) -> Result<(), BlobError> {
        let entry = self
            .index()
            .find(blob)
            .filter(|entry| entry.description.device == *device)
            .ok_or(BlobError::Unknown)?;
        let state = unconstrained(Arc::clone(&entry.state).lock_owned()).await;
        self.erase(entry, state).await
    }

    async fn erase(
        &self,
        entry: Arc<Entry>,
        mut state: OwnedMutexGuard<State>,
    ) -> Result<(), BlobError> {
        if matches!(state.body, Body::Gone) {
            return Err(BlobError::Unknown);
        }
        let blobs = self.clone();
        self.job(move || {
            match (&mut state.body, &blobs.inner.place) {
                (Body::Disk(file), _) => file.remove()?,
                (Body::Broken, Place::Directory(directory)) => {
                    file::remove(&directory.join(file::name(&entry.id)))?;
                }
                (Body::New | Body::Memory(_) | Body::Broken | Body::Gone, _) => {}
            }
            state.body = Body::Gone;
            blobs.index().remove(&entry);
            Ok(())
        })
        .await?
    }

    /// Erases what has grown too old, a bounded number, and syncs uploads that do not go on. Returns whether there is more to erase now. For once in a
    /// while.
    pub(crate) async fn sweep(&self, now: u64) -> bool {
        let limits = &self.inner.limits;
        let expired = self.index().expired(limits, now, MAX_SWEPT_BLOBS);
        let mut more = expired.len() >= MAX_SWEPT_BLOBS;
        for entry in expired {
            let state = Arc::clone(&entry.state).lock_owned().await;
            // It may have become whole while we waited.
            if !entry.has_expired(limits, now) {
                continue;
            }
            match self.erase(entry, state).await {
                Ok(()) | Err(BlobError::Unknown) => {}
                Err(error) => {
                    // The next sweep finds it again; this one would turn in a circle.
                    more = false;
                    tracing::warn!(%error, "an old blob is not erased");
                }
            }
        }
        if more {
            return true;
        }
        let uploads = self.index().uploads();
        for entry in uploads {
            let Ok(mut state) = Arc::clone(&entry.state).try_lock_owned() else {
                continue;
            };
            if state.is_idle(now) {
                let synced = self.job(move || {
                    let synced = state.sync();
                    entry.publish(&state);
                    synced
                });
                if let Err(error) = synced.await.and_then(|synced| synced) {
                    tracing::warn!(%error, "an upload is not synced");
                }
            }
        }
        false
    }

    /// Which there are.
    #[cfg(unix)]
    pub(crate) fn all(&self) -> Vec<BlobId> {
        self.index().all()
    }

    /// What there is for certain of a blob, and the name of its file; `None` if it is gone. Blocks.
    #[cfg(unix)]
    pub(crate) fn durable(&self, blob: &BlobId) -> io::Result<Option<(String, Durable)>> {
        let Place::Directory(directory) = &self.inner.place else {
            return Ok(None);
        };
        let name = file::name(blob);
        let found = Durable::of(&directory.join(&name), blob)?;
        Ok(found.map(|found| (name, found)))
    }

    /// How much there is of all users.
    #[cfg(unix)]
    pub(crate) fn usage(&self) -> Usage {
        self.index().usage()
    }

    /// Does what takes a disk's time on a thread that may wait for it.
    async fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlobError> {
        if matches!(self.inner.place, Place::Memory) {
            return Ok(work());
        }
        let permit = Arc::clone(&self.inner.jobs)
            .acquire_owned()
            .await
            .map_err(|_| BlobError::Stopping)?;
        let job = spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        job.await.map_err(|_| BlobError::Stopping)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.inner
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether all of it came before a crash, or before its sync failed, and nothing is left but to say so.
    fn is_ripe(&self, entry: &Entry) -> bool {
        self.sealed.is_none()
            && self.length == entry.description.size
            && matches!(self.body, Body::Disk(_) | Body::Memory(_))
    }

    fn extent(&self, entry: &Entry) -> Result<Extent, BlobError> {
        match &self.body {
            Body::Gone => Err(BlobError::Unknown),
            Body::Broken => Err(BlobError::Broken),
            Body::New | Body::Disk(_) | Body::Memory(_) => Ok(Extent {
                length: self.length,
                size: entry.description.size,
                complete: self.sealed.is_some(),
            }),
        }
    }

    fn append(
        &mut self,
        description: &Description,
        append: &Append,
        now: u64,
    ) -> Result<(), BlobError> {
        let length = append.data.len() as u64;
        if matches!(self.body, Body::Gone) {
            return Err(BlobError::Unknown);
        }
        if !append.data.is_empty() {
            let end = append.offset.checked_add(length);
            if append.offset != self.length || end.is_none_or(|end| end > description.size) {
                return Err(BlobError::Conflict);
            }
        }
        match &mut self.body {
            Body::Memory(content) => content.extend_from_slice(&append.data),
            Body::Disk(file) => match file.append(self.length, &append.data) {
                Ok(()) => {}
                Err((error, None)) => return Err(error.into()),
                Err((error, Some(worse))) => {
                    tracing::error!(error = %worse, "a blob is not usable any more; check the disk");
                    self.body = Body::Broken;
                    return Err(error.into());
                }
            },
            Body::Broken => return Err(BlobError::Broken),
            Body::New | Body::Gone => return Err(BlobError::Unknown),
        }
        self.length = self.length.saturating_add(length);
        self.grown = now;
        self.settle(description, now)
    }

    /// Syncs what is due, and seals what is whole.
    fn settle(&mut self, description: &Description, now: u64) -> Result<(), BlobError> {
        let whole = self.length == description.size;
        let Body::Disk(file) = &mut self.body else {
            self.sealed = whole.then_some(now.max(1));
            return Ok(());
        };
        let settled = if whole {
            file.seal(self.length, now.max(1))
        } else if self.length.saturating_sub(file.marked()) >= SYNC_BYTES {
            file.mark(self.length)
        } else {
            Ok(())
        };
        if let Err(error) = settled {
            return Err(self.lose_unsynced(error));
        }
        self.sealed = whole.then_some(now.max(1));
        Ok(())
    }

    /// After a failed sync nobody knows what the disk has of what came since the last one: the device sends it again.
    fn lose_unsynced(&mut self, error: io::Error) -> BlobError {
        if let Body::Disk(file) = &mut self.body {
            match file.cut_to_mark() {
                Ok(length) => self.length = length,
                Err(worse) => {
                    tracing::error!(error = %worse, "a blob is not usable any more; check the disk");
                    self.body = Body::Broken;
                }
            }
        }
        error.into()
    }

    fn is_idle(&self, now: u64) -> bool {
        matches!(&self.body, Body::Disk(file) if file.is_open())
            && now.saturating_sub(self.grown) >= IDLE_UPLOAD_SECONDS
    }

    /// Makes what has come survive a crash of the machine, and closes the file.
    fn sync(&mut self) -> Result<(), BlobError> {
        let length = self.length;
        if let Body::Disk(file) = &mut self.body {
            if let Err(error) = file.mark(length) {
                return Err(self.lose_unsynced(error));
            }
            file.close();
        }
        Ok(())
    }
}

/// What was not synced yet is, so that after an orderly end uploads go on where they were.
impl Drop for Inner {
    fn drop(&mut self) {
        let index = self.index.get_mut().unwrap_or_else(PoisonError::into_inner);
        for entry in index.uploads() {
            if let Ok(mut state) = entry.state.try_lock()
                && let Err(error) = state.sync()
            {
                tracing::warn!(%error, "an upload is not synced; it goes on from an earlier place");
            }
        }
    }
}

fn entry(id: BlobId, found: Found) -> Entry {
    let grown = found.description.begun;
    Entry::with_state(
        id,
        found.description,
        State {
            body: Body::Disk(found.file),
            length: found.length,
            sealed: found.sealed,
            grown,
        },
    )
}

#[cfg(test)]
mod tests;
