//! A store in one file.
//!
//! ```text
//!  FileStore ── redb: a copy-on-write B-tree of pages with checksums ── file
//! ```
//!
//! * redb verifies the checksum of every page in use when the file is opened, after a crash or not; a damaged file is refused then.
//!   What its checksums do not find the vault does, above.
//! * A commit is one fsync, and one more where the file has to grow.
//! * No page that a disk has changed since makes the caller panic: redb may, and that is [`StoreError::Damaged`] here.
//! * A new file gets its name once it is whole: redb refuses one that a crash has left half made.
//! * After a commit that failed nobody knows what the disk holds, so everything is refused until the file is opened again. That opens
//!   with all of that commit or nothing of it.
//! * A flipped bit in the last commit of a process that was killed is taken for a commit that was torn, and the one before it is what
//!   opens: an earlier state of the whole store, like a restored backup.

use std::fs::{File, TryLockError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase as _, StorageBackend,
    TableDefinition, TableError, TableHandle as _,
};

use super::{Batch, Row, SCAN_BYTES, Store, StoreError};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

type RowTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Memory the storage engine may use for pages it has read, in bytes.
const CACHE_BYTES: usize = 4 << 20;

/// Rows in one file, durable at every commit, for one process at a time.
#[derive(Debug)]
pub struct FileStore {
    database: Option<Database>,
    failed: bool,
}

impl FileStore {
    /// Opens the store at `path`, or creates it, readable by its owner only. The folder has to exist.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another process, or another store in this one, has it open; [`StoreError::NotAStore`] if something
    /// else is there; [`StoreError::Damaged`] if it is not as it was left.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if is_there(path)? {
            let file = open_private(path)?;
            return Self::with(|| FileBackend::new(file).map_err(Into::into));
        }
        let mut unfinished = path.to_owned();
        unfinished.as_mut_os_string().push(".new");
        let file = open_private(&unfinished)?;
        match file.try_lock() {
            // Somebody may have made it before.
            Ok(()) if is_there(path)? => return Err(StoreError::InUse),
            Ok(()) => file.set_len(0)?,
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let store = Self::with(|| FileBackend::new(file).map_err(Into::into))?;
        std::fs::rename(&unfinished, path)?;
        super::sync_folder_of(path)?;
        Ok(store)
    }

    /// Opens the store that `backend` holds, or creates it there.
    ///
    /// # Errors
    /// As [`FileStore::open`].
    #[cfg(any(test, feature = "simulation"))]
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, StoreError> {
        Self::with(|| Ok(backend))
    }

    fn with<B: StorageBackend>(
        backend: impl FnOnce() -> Result<B, redb::Error>,
    ) -> Result<Self, StoreError> {
        let database = guarded(|| {
            let mut builder = Database::builder();
            builder
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(true);
            Ok(builder.create_with_backend(backend()?)?)
        })?;
        let store = Self {
            database: Some(database),
            failed: false,
        };
        if !store.read_with(|read| {
            let names = read.list_tables()?.map(|table| table.name().to_owned());
            Ok(names.eq([ROWS.name()]) || read.list_tables()?.next().is_none())
        })? {
            return Err(StoreError::NotAStore);
        }
        Ok(store)
    }

    fn database(&self) -> Result<&Database, StoreError> {
        match &self.database {
            Some(database) if !self.failed => Ok(database),
            Some(_) | None => Err(StoreError::Failed),
        }
    }

    fn read_with<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let database = self.database()?;
        guarded(|| work(&database.begin_read()?))
    }
}

impl Store for FileStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.read_with(|read| {
            let Some(table) = rows(read)? else {
                return Ok(None);
            };
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.read_with(|read| {
            let mut found = Vec::new();
            let Some(table) = rows(read)? else {
                return Ok(found);
            };
            let mut bytes = 0_usize;
            for row in table.range::<&[u8]>(prefix.max(after)..)? {
                if found.len() >= limit || bytes >= SCAN_BYTES {
                    break;
                }
                let (key, value) = row?;
                let (key, value) = (key.value(), value.value());
                if key <= after {
                    continue;
                }
                if !key.starts_with(prefix) {
                    break;
                }
                bytes = bytes.saturating_add(value.len());
                found.push((key.to_vec(), value.to_vec()));
            }
            Ok(found)
        })
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let database = self.database()?;
        let committed = guarded(|| {
            let mut write = database.begin_write()?;
            write.set_durability(Durability::Immediate)?;
            {
                let mut table = write.open_table(ROWS)?;
                for (key, change) in batch.changes() {
                    match change {
                        Some(value) => drop(table.insert(key, value)?),
                        None => drop(table.remove(key)?),
                    }
                }
            }
            write.commit()?;
            Ok(())
        });
        self.failed = committed.is_err();
        committed
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        // Closing writes as well, and so may meet a damaged page.
        let database = self.database.take();
        drop(catch_unwind(AssertUnwindSafe(|| drop(database))));
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

/// Opens a file, or makes an empty one that only its owner may read.
fn open_private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The rows, once there are any.
fn rows(read: &ReadTransaction) -> Result<Option<RowTable>, redb::Error> {
    match read.open_table(ROWS) {
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        other => Ok(Some(other?)),
    }
}

fn guarded<T>(work: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(store_error(error)),
        Err(_) => Err(StoreError::Damaged),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "redb has many errors, and may have more"
)]
fn store_error(error: redb::Error) -> StoreError {
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse,
        redb::Error::Corrupted(_) => StoreError::Damaged,
        redb::Error::TableTypeMismatch { .. } | redb::Error::TableIsMultimap(_) => {
            StoreError::NotAStore
        }
        redb::Error::PreviousIo => StoreError::Failed,
        // What redb says of a file that does not begin as its files do.
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            StoreError::NotAStore
        }
        redb::Error::Io(error) => StoreError::Io(error),
        other => StoreError::Engine(Box::new(other)),
    }
}

#[cfg(test)]
mod tests;
