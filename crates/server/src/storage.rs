//! What the relay knows of devices, in one redb file: one thread that writes to it, many readers.
//!
//! ```text
//!  write(job) ──► bounded queue ──► writer thread: one transaction for all that is queued ──► commit + fsync ──► answers
//!  read(..)   ──► a snapshot of the last commit, on the caller's thread
//! ```
//!
//! * A write is answered only once it is durable. Jobs that wait at the same moment share one commit and one fsync.
//! * A job decides first and writes after, so a refused job leaves no trace in the transaction it shares with others.
//! * If a job or a commit fails, everybody in the transaction gets [`StorageError::Unavailable`], and so does every later write
//!   until the store is opened again: after a failed fsync nobody knows what the disk holds (docs/protocol.md §5.2).
//! * Reads are short, bounded by their caller and mostly served from redb's cache; they may be called from async code.
//!
//! What the tables mean is left to [`crate::directory`] and [`crate::issuer`]. Mail is elsewhere ([`crate::mail`]).
#[cfg(unix)]
pub(crate) mod rows;
mod schema;
mod upgrade;
mod user_devices;

use std::fs::{File, OpenOptions, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase as _, StorageBackend,
    TableError,
};
use sealwire_protocol::key::Thumbprint;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::unconstrained;

pub(crate) use schema::*;
pub(crate) use user_devices::Devices;

use user_devices::UserDevices;

/// The file's name in the relay's data directory.
pub const STORE_FILE: &str = "relay.redb";
/// What it is called until it is whole.
const UNFINISHED_FILE: &str = "relay.redb.new";
/// The format this code writes. A store of the one before is taken over when it is opened, one of another is refused.
pub const FORMAT_VERSION: u32 = 4;
/// Bytes of pages that redb keeps in memory, by default.
pub const DEFAULT_CACHE_BYTES: usize = 64 << 20;
/// Writes that may wait for the writer thread.
const MAX_QUEUED_JOBS: usize = 1_024;
/// KiB of cards and prekeys that may wait for the writer thread or its commit.
const MAX_QUEUED_KIB: u32 = 64 << 10;
/// Writes that share one commit; it bounds how long the first of them waits for the others.
const MAX_BATCH_JOBS: usize = 256;
/// KiB of them after which a commit takes no further write, for the same reason.
const MAX_BATCH_KIB: usize = 8 << 10;

/// How a store is opened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StorageOptions {
    /// Bytes of pages kept in memory.
    pub cache_bytes: usize,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            cache_bytes: DEFAULT_CACHE_BYTES,
        }
    }
}

/// An open store. Clones share it; the file is unlocked when the last clone is dropped, after what is queued has been written.
#[derive(Debug, Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Arc<Database>,
    user_devices: Arc<UserDevices>,
    /// Held by whoever is next to get a place in the queue; its waiters are served in order.
    line: Mutex<()>,
    queued_kib: Arc<Semaphore>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
    /// In place of the writer: what [`Storage::flush`] writes.
    #[cfg(feature = "simulation")]
    by_hand: std::sync::Mutex<Option<mpsc::Receiver<Job>>>,
}

/// A write that is in the queue and has its place in the order.
#[derive(Debug)]
pub(crate) struct Pending<T>(oneshot::Receiver<Result<T, StorageError>>);

impl<T> Pending<T> {
    /// Waits until it is durable.
    pub(crate) async fn durable(self) -> Result<T, StorageError> {
        self.0.await.map_err(|_| StorageError::Unavailable)?
    }
}

/// Tells a waiter how the commit ended.
type Answer = Box<dyn FnOnce(Result<(), StorageError>) + Send>;
type Work = Box<dyn FnOnce(&mut Tables<'_>) -> (Answer, Result<(), redb::Error>) + Send>;

struct Job {
    work: Work,
    /// Its bytes' place in the queue, held until the commit.
    queued: OwnedSemaphorePermit,
}

impl Storage {
    /// Opens the store in the existing directory `dir`, or makes one there, readable by its owner only.
    ///
    /// # Errors
    /// [`OpenError`] if another process has it open, it was written by a newer version, or the disk fails.
    pub fn open(dir: &Path, options: &StorageOptions) -> Result<Self, OpenError> {
        let path = dir.join(STORE_FILE);
        let failed = |error| OpenError::File {
            path: path.clone(),
            error,
        };
        let backend =
            |file| FileBackend::new(file).map_err(|error| OpenError::from_database(error, &path));
        if is_there(&path).map_err(failed)? {
            let file = open_private(&path).map_err(failed)?;
            return Self::with_backend(backend(file)?, options, &path);
        }
        // redb refuses a file that a crash has left half made: a new one gets its name once it is whole.
        let unfinished = dir.join(UNFINISHED_FILE);
        let file = open_private(&unfinished).map_err(failed)?;
        match file.try_lock() {
            // Somebody may have made it before.
            Ok(()) if is_there(&path).map_err(failed)? => return Err(OpenError::InUse { path }),
            Ok(()) => file.set_len(0).map_err(failed)?,
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path }),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let storage = Self::with_backend(backend(file)?, options, &path)?;
        std::fs::rename(&unfinished, &path)
            // The entry in the directory has to outlive a crash as well.
            .and_then(|()| File::open(dir)?.sync_all())
            .map_err(failed)?;
        Ok(storage)
    }

    /// Makes an empty store that ends with the process, for tests and for a relay that need not remember.
    ///
    /// # Errors
    /// [`OpenError`] if the operating system gives no thread.
    pub fn in_memory() -> Result<Self, OpenError> {
        Self::with_backend(
            InMemoryBackend::new(),
            &StorageOptions::default(),
            Path::new("(memory)"),
        )
    }

    pub(crate) fn with_backend(
        backend: impl StorageBackend,
        options: &StorageOptions,
        path: &Path,
    ) -> Result<Self, OpenError> {
        let database = open_database(backend, options, path)?;
        let user_devices = Arc::new(UserDevices::new());
        let (jobs, queue) = mpsc::channel(MAX_QUEUED_JOBS);
        let writer = std::thread::Builder::new()
            .name("sealwire-store".into())
            .spawn({
                let (database, user_devices) = (Arc::clone(&database), Arc::clone(&user_devices));
                move || write_until_closed(&database, &user_devices, queue)
            })
            .map_err(|error| OpenError::File {
                path: path.to_owned(),
                error,
            })?;
        Ok(Self::new(database, user_devices, jobs, Some(writer)))
    }

    fn new(
        database: Arc<Database>,
        user_devices: Arc<UserDevices>,
        jobs: mpsc::Sender<Job>,
        writer: Option<JoinHandle<()>>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                database,
                user_devices,
                line: Mutex::new(()),
                queued_kib: Arc::new(Semaphore::new(MAX_QUEUED_KIB as usize)),
                jobs: Some(jobs),
                writer,
                #[cfg(feature = "simulation")]
                by_hand: std::sync::Mutex::default(),
            }),
        }
    }

    /// Opens a store without a thread: what is submitted waits for [`Storage::flush`].
    #[cfg(feature = "simulation")]
    pub(crate) fn by_hand(
        backend: impl StorageBackend,
        options: &StorageOptions,
    ) -> Result<Self, OpenError> {
        let path = Path::new("(simulation)");
        let database = open_database(backend, options, path)?;
        let (jobs, queue) = mpsc::channel(MAX_QUEUED_JOBS);
        let storage = Self::new(database, Arc::new(UserDevices::new()), jobs, None);
        *storage.queue_by_hand() = Some(queue);
        Ok(storage)
    }

    /// Writes and commits what has been submitted, as the thread would.
    #[cfg(feature = "simulation")]
    pub(crate) fn flush(&self) {
        let mut queue = self.queue_by_hand();
        while let Some(waiting) = queue.as_mut()
            && let Ok(first) = waiting.try_recv()
        {
            if !write_and_answer(
                &self.inner.database,
                &self.inner.user_devices,
                first,
                waiting,
            ) {
                *queue = None;
            }
        }
    }

    #[cfg(feature = "simulation")]
    fn queue_by_hand(&self) -> std::sync::MutexGuard<'_, Option<mpsc::Receiver<Job>>> {
        self.inner
            .by_hand
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether writes are still accepted: false for good once one has failed. For health checks.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.inner
            .jobs
            .as_ref()
            .is_some_and(|jobs| !jobs.is_closed())
    }

    /// Puts `work` in the queue for the next transaction and gives what waits for its commit. Waits while the queue is full. Jobs
    /// run in the order in which these futures are first polled. `bytes` is about what `work` holds in memory. `work` MUST NOT
    /// write unless it succeeds. It runs even if nobody waits for it any more.
    pub(crate) async fn submit<T, F>(
        &self,
        bytes: usize,
        work: F,
    ) -> Result<Pending<T>, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<T, redb::Error> + Send + 'static,
    {
        // A task that has used up its turn would otherwise not get a place in the line yet.
        unconstrained(self.submit_in_turn(bytes, work)).await
    }

    async fn submit_in_turn<T, F>(&self, bytes: usize, work: F) -> Result<Pending<T>, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<T, redb::Error> + Send + 'static,
    {
        let _turn = self.inner.line.lock().await;
        let kib = u32::try_from(bytes / 1_024 + 1)
            .unwrap_or(MAX_QUEUED_KIB)
            .min(MAX_QUEUED_KIB);
        let queued = Arc::clone(&self.inner.queued_kib)
            .acquire_many_owned(kib)
            .await
            .map_err(|_| StorageError::Unavailable)?;
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |tables| match work(tables) {
            Ok(value) => {
                let answer = move |committed: Result<(), _>| {
                    drop(reply.send(committed.map(|()| value)));
                };
                (Box::new(answer), Ok(()))
            }
            Err(error) => {
                let answer = move |_| drop(reply.send(Err(StorageError::Unavailable)));
                (Box::new(answer), Err(error))
            }
        });
        let jobs = self.inner.jobs.as_ref().ok_or(StorageError::Unavailable)?;
        jobs.send(Job { work, queued })
            .await
            .map_err(|_| StorageError::Unavailable)?;
        Ok(Pending(answer))
    }

    /// [`Storage::submit`], and waits for the commit.
    pub(crate) async fn write<T, F>(&self, bytes: usize, work: F) -> Result<T, StorageError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tables<'_>) -> Result<T, redb::Error> + Send + 'static,
    {
        self.submit(bytes, work).await?.durable().await
    }

    /// The devices of a user, as of the last commit that anybody was told of, or a later one.
    pub(crate) fn user_devices(&self, user: &str) -> Result<Devices, StorageError> {
        self.inner.user_devices.get(user, || {
            self.read(|read| {
                read.open_table(USER_DEVICES)?
                    .range((user, &[0; 32])..=(user, &[0xff; 32]))?
                    .map(|entry| {
                        let (device, attested) = entry?;
                        Ok((*device.value().1, attested.value()))
                    })
                    .collect()
            })
        })
    }

    /// What is known of a device.
    pub(crate) fn device(&self, device: &Thumbprint) -> Result<Option<KnownDevice>, StorageError> {
        self.read(|read| {
            let row = read.open_table(DEVICES)?.get(device.as_bytes())?;
            Ok(row.map(|row| row.value().into()))
        })
    }

    /// Runs `work` on a snapshot of the last commit.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        // redb panics on some pages that a disk has changed; that must cost this read, not the caller's task.
        let read = catch_unwind(AssertUnwindSafe(|| {
            work(&self.inner.database.begin_read()?)
        }));
        match read {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(%error, "the store cannot be read; check the disk");
                Err(StorageError::Unreadable)
            }
            Err(_) => {
                tracing::error!(
                    "the store is damaged; check the disk and restore the data directory"
                );
                Err(StorageError::Unreadable)
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing the queue ends the writer once it is empty; waiting for it leaves the file unlocked afterwards.
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            drop(writer.join());
        }
    }
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or this one, has it open.
    #[error("{} is in use by another relay; stop that one first", .path.display())]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// It was written by a newer version of this program.
    #[error("{} has format {found}, newer than this program knows ({FORMAT_VERSION}); use the newer program", .path.display())]
    Newer {
        /// The store's file.
        path: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// It was written by a much older version of this program, whose stores are not taken over.
    #[error("{} has format {found}, older than this program reads ({FORMAT_VERSION}); use the older program, or begin with a new data directory", .path.display())]
    Older {
        /// The store's file.
        path: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// It is a database, but not one of a relay, or its description is damaged.
    #[error("{} is not a relay's store; restore it from a backup or name another directory", .path.display())]
    NotAStore {
        /// The store's file.
        path: PathBuf,
    },
    /// The file or its directory could not be opened or synced.
    #[error("cannot open {}: {error}; check that the directory exists and belongs to this user", .path.display())]
    File {
        /// The store's file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// The database could not be read or repaired.
    #[error("cannot use {}: {error}; check the disk or restore the data directory", .path.display())]
    Database {
        /// The store's file.
        path: PathBuf,
        /// What the database said.
        #[source]
        error: Box<redb::Error>,
    },
}

/// Why an open store did not do what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A write failed, this one or an earlier one. Nothing is known to be stored; every write is refused until the store is
    /// opened again.
    #[error("the store accepts no writes since one failed; check the disk and restart the relay")]
    Unavailable,
    /// A read failed or met damage.
    #[error("the store cannot be read; check the disk")]
    Unreadable,
}

impl OpenError {
    fn from_database(error: DatabaseError, path: &Path) -> Self {
        let path = path.to_owned();
        if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
            return Self::InUse { path };
        }
        Self::Database {
            path,
            error: Box::new(error.into()),
        }
    }
}

/// Whether there is a file with anything in it.
fn is_there(path: &Path) -> std::io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len() > 0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn open_private(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn open_database(
    backend: impl StorageBackend,
    options: &StorageOptions,
    path: &Path,
) -> Result<Arc<Database>, OpenError> {
    let database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .create_with_backend(backend)
        .map_err(|error| OpenError::from_database(error, path))?;
    prepare(&database, path)?;
    Ok(Arc::new(database))
}

/// Checks the format of a store that has one and takes over an older one, or writes that of an empty one.
fn prepare(database: &Database, path: &Path) -> Result<(), OpenError> {
    let failed = |error: redb::Error| OpenError::Database {
        path: path.to_owned(),
        error: Box::new(error),
    };
    let path = path.to_owned();
    match read_format(database).map_err(failed)? {
        Format::Empty => write_format(database).map_err(failed),
        Format::Foreign => Err(OpenError::NotAStore { path }),
        Format::Known(FORMAT_VERSION) => Ok(()),
        Format::Known(upgrade::OLDER_FORMAT) => upgrade::upgrade(database).map_err(failed),
        Format::Known(found) if found > FORMAT_VERSION => Err(OpenError::Newer { path, found }),
        Format::Known(found) => Err(OpenError::Older { path, found }),
    }
}

enum Format {
    Empty,
    Foreign,
    Known(u32),
}

fn read_format(database: &Database) -> Result<Format, redb::Error> {
    let read = database.begin_read()?;
    let meta = match read.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::TableDoesNotExist(_)) => {
            let empty = read.list_tables()?.next().is_none();
            return Ok(if empty {
                Format::Empty
            } else {
                Format::Foreign
            });
        }
        Err(TableError::TableTypeMismatch { .. } | TableError::TableIsMultimap(_)) => {
            return Ok(Format::Foreign);
        }
        Err(error) => return Err(error.into()),
    };
    let version = meta
        .get(META_FORMAT)?
        .and_then(|value| value.value().try_into().ok())
        .map(u32::from_be_bytes);
    Ok(version.map_or(Format::Foreign, Format::Known))
}

fn write_format(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut meta = write.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT_VERSION.to_be_bytes().as_slice())?;
        // Readers find every table from the first moment on.
        Tables::open(&write)?;
    }
    write.commit()?;
    Ok(())
}

/// The writer thread. It ends when the queue is closed, or at the first failure: then the queue is dropped with everything in
/// it, so that every waiter and every later caller learns that the store is unavailable.
fn write_until_closed(
    database: &Database,
    user_devices: &UserDevices,
    mut queue: mpsc::Receiver<Job>,
) {
    while let Some(first) = queue.blocking_recv() {
        if !write_and_answer(database, user_devices, first, &mut queue) {
            return;
        }
    }
}

/// Writes what is queued, as far as it goes into one transaction. False: it failed, and so will everything after it.
fn write_and_answer(
    database: &Database,
    user_devices: &UserDevices,
    first: Job,
    queue: &mut mpsc::Receiver<Job>,
) -> bool {
    let (mut answers, mut changed) = (Vec::new(), Vec::new());
    let committed = write_batch(database, first, queue, &mut answers, &mut changed);
    for user in &changed {
        user_devices.forget(user);
    }
    if let Err(error) = &committed {
        tracing::error!(%error, "a write to the store failed; it accepts no more until the relay restarts");
        queue.close();
    }
    let outcome = committed.map_err(|_| StorageError::Unavailable);
    for (answer, queued) in answers {
        answer(outcome);
        drop(queued);
    }
    outcome.is_ok()
}

fn write_batch(
    database: &Database,
    first: Job,
    queue: &mut mpsc::Receiver<Job>,
    answers: &mut Vec<(Answer, OwnedSemaphorePermit)>,
    changed: &mut Vec<String>,
) -> Result<(), redb::Error> {
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    {
        let mut tables = Tables::open(&write)?;
        let mut next = Some(first);
        let mut kib = 0_usize;
        while let Some(job) = next {
            let (answer, done) = (job.work)(&mut tables);
            changed.append(&mut tables.changed_users);
            kib = kib.saturating_add(job.queued.num_permits());
            answers.push((answer, job.queued));
            done?;
            next = if answers.len() < MAX_BATCH_JOBS && kib < MAX_BATCH_KIB {
                queue.try_recv().ok()
            } else {
                None
            };
        }
    }
    write.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests;
