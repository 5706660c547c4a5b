//! A store in a folder of files, one for each row: an example of an own [`Store`].
//!
//! ```text
//!  commit:  changes ── journal.new ── fsync ── rename to journal ── fsync of the folder     from here on it is committed
//!                                                    └── row files, fsync ── remove journal
//!  open:    lock; a journal that is there is applied (again)
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::PathBuf;

use sealwire_client::store::{Batch, Row, SCAN_BYTES};
use sealwire_client::{Store, StoreError};

pub(crate) struct FolderStore {
    folder: PathBuf,
    /// Held as long as the store is open; the system gives it up with the process.
    _lock: File,
    /// The first failure is the last thing that happens.
    failed: bool,
}

impl FolderStore {
    pub(crate) fn open(folder: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let folder = folder.into();
        fs::create_dir_all(folder.join("rows"))?;
        let lock = File::create(folder.join("lock"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let store = Self {
            folder,
            _lock: lock,
            failed: false,
        };
        store.apply_journal()?;
        Ok(store)
    }

    fn row(&self, key: &[u8]) -> PathBuf {
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        self.folder.join("rows").join(name)
    }

    /// The keys of all rows. An index in memory would be faster; the vault has one already.
    fn keys(&self) -> io::Result<BTreeMap<Vec<u8>, PathBuf>> {
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(self.folder.join("rows"))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let bytes = name
                .as_bytes()
                .chunks(2)
                .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
            keys.insert(bytes.collect(), path.clone());
        }
        Ok(keys)
    }

    fn sync_folder(&self, name: &str) -> io::Result<()> {
        File::open(self.folder.join(name))?.sync_all()
    }

    /// Journal: `u8 key length; key; u32 value length + 1, or 0 to remove; value`, for each change.
    pub(crate) fn write_journal(&self, batch: &Batch) -> io::Result<()> {
        let mut file = File::create(self.folder.join("journal.new"))?;
        for (key, value) in batch.changes() {
            file.write_all(&[key.len() as u8])?;
            file.write_all(key)?;
            file.write_all(
                &value
                    .map_or(0, |value| value.len() as u32 + 1)
                    .to_be_bytes(),
            )?;
            file.write_all(value.unwrap_or_default())?;
        }
        file.sync_all()?;
        fs::rename(self.folder.join("journal.new"), self.folder.join("journal"))?;
        self.sync_folder("")
    }

    /// Does what a journal says, as often as it has to.
    fn apply_journal(&self) -> io::Result<()> {
        let journal = match fs::read(self.folder.join("journal")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut rest = journal.as_slice();
        while let [length, after @ ..] = rest {
            let (key, after) = after.split_at(usize::from(*length));
            let (size, after) = after
                .split_first_chunk()
                .ok_or(io::ErrorKind::InvalidData)?;
            let size = u32::from_be_bytes(*size) as usize;
            let (value, after) = after.split_at(size.saturating_sub(1));
            if size > 0 {
                let mut file = File::create(self.row(key))?;
                file.write_all(value)?;
                file.sync_all()?;
            } else if let Err(error) = fs::remove_file(self.row(key))
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(error);
            }
            rest = after;
        }
        self.sync_folder("rows")?;
        fs::remove_file(self.folder.join("journal"))
    }
}

impl Store for FolderStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.row(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (key, path) in self.keys()? {
            if rows.len() == limit || bytes >= SCAN_BYTES {
                break;
            }
            if key.starts_with(prefix) && key.as_slice() > after {
                let value = fs::read(path)?;
                bytes += value.len();
                rows.push((key, value));
            }
        }
        Ok(rows)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        self.failed = true;
        self.write_journal(&batch)?;
        self.apply_journal()?;
        self.failed = false;
        Ok(())
    }
}
