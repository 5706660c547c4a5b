//! A store in one file.

use std::path::Path;

use redb::{Database, DatabaseError, ReadableDatabase, TableDefinition, TableError};

use super::{Batch, Row, SCAN_BYTES, Store, StoreError};

const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// Memory the storage engine may use for pages it has read, in bytes.
const CACHE_BYTES: usize = 4 << 20;

/// Rows in one file, durable at every commit, for one process at a time.
#[derive(Debug)]
pub struct FileStore {
    database: Database,
}

impl FileStore {
    /// Opens the store at `path`, or creates it, readable by its owner only.
    ///
    /// # Errors
    /// [`StoreError::InUse`] while another process, or another store in this one, has it open.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        drop(options.open(path)?);
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create(path)
            .map_err(|error| {
                if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                    StoreError::InUse
                } else {
                    StoreError::Engine(Box::new(error))
                }
            })?;
        Ok(Self { database })
    }
}

impl Store for FileStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let transaction = self.database.begin_read().map_err(engine)?;
        let table = match transaction.open_table(ROWS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            other => other.map_err(engine)?,
        };
        Ok(table
            .get(key)
            .map_err(engine)?
            .map(|value| value.value().to_vec()))
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let transaction = self.database.begin_read().map_err(engine)?;
        let table = match transaction.open_table(ROWS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            other => other.map_err(engine)?,
        };
        let mut rows = Vec::new();
        let mut bytes = 0_usize;
        for row in table.range::<&[u8]>(prefix.max(after)..).map_err(engine)? {
            if rows.len() >= limit || bytes >= SCAN_BYTES {
                break;
            }
            let (key, value) = row.map_err(engine)?;
            let (key, value) = (key.value(), value.value());
            if key <= after {
                continue;
            }
            if !key.starts_with(prefix) {
                break;
            }
            bytes = bytes.saturating_add(value.len());
            rows.push((key.to_vec(), value.to_vec()));
        }
        Ok(rows)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let transaction = self.database.begin_write().map_err(engine)?;
        {
            let mut table = transaction.open_table(ROWS).map_err(engine)?;
            for (key, change) in batch.into_changes() {
                match change {
                    Some(value) => drop(
                        table
                            .insert(key.as_slice(), value.as_slice())
                            .map_err(engine)?,
                    ),
                    None => drop(table.remove(key.as_slice()).map_err(engine)?),
                }
            }
        }
        transaction.commit().map_err(engine)
    }
}

fn engine(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Engine(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_opener_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.store");
        let first = FileStore::open(&path).unwrap();
        assert!(matches!(FileStore::open(&path), Err(StoreError::InUse)));
        drop(first);
        FileStore::open(&path).unwrap();
    }

    #[test]
    fn file_that_is_no_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.store");
        std::fs::write(
            &path,
            b"this is something else, and long enough to look at".repeat(100),
        )
        .unwrap();
        assert!(matches!(FileStore::open(&path), Err(StoreError::Engine(_))));
    }

    #[test]
    fn rows_survive_reopening_and_scan_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.store");
        let mut store = FileStore::open(&path).unwrap();
        assert_eq!(store.read(b"a").unwrap(), None);
        assert!(store.scan(b"a", b"", 9).unwrap().is_empty());
        let mut batch = Batch::default();
        for key in ["a2", "a1", "a3", "b1"] {
            batch.put(key.into(), key.into());
        }
        batch.remove("a3".into());
        store.commit(batch).unwrap();
        drop(store);
        let store = FileStore::open(&path).unwrap();
        let keys = |limit| {
            store
                .scan(b"a", b"", limit)
                .unwrap()
                .into_iter()
                .map(|row| row.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(keys(9), [b"a1", b"a2"]);
        assert_eq!(keys(1), [b"a1"]);
        assert_eq!(store.read(b"a3").unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn new_store_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.store");
        let _store = FileStore::open(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
