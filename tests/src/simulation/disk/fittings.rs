//! The disk as stores know one: redb's backend, and the folder of the relay's log.

use std::io;
use std::sync::Arc;

use sealwire_server::mail::disk::{Disk as MailDisk, LogFile};

use super::{Disk, DiskFile};

/// What redb needs of a file.
impl redb::StorageBackend for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Self::len(self)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        Self::read(self, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Self::set_len(self, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        Self::write(self, offset, data)
    }
}

/// A folder: the files whose names begin with its name.
#[derive(Debug)]
pub(crate) struct Folder {
    disk: Disk,
    name: &'static str,
}

impl Folder {
    /// The folder of this name.
    #[must_use]
    pub(crate) fn new(disk: Disk, name: &'static str) -> Self {
        Self { disk, name }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.name)
    }
}

impl MailDisk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = self.disk.list()?;
        let inside =
            |name: &String| Some(name.strip_prefix(self.name)?.strip_prefix('/')?.to_owned());
        Ok(names.iter().filter_map(inside).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(self.disk.create(&self.path(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let path = self.path(name);
        if !self.disk.exists(&path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Arc::new(self.disk.open(&path)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(&self.path(from), &self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(&self.path(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync_names()
    }
}

impl LogFile for DiskFile {
    fn length(&self) -> io::Result<u64> {
        self.len()
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        Self::reserve(self, length)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read(offset, bytes)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(offset, bytes)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        Self::sync(self)
    }
}
