//! What the mail log asks of a disk: a directory of files that are written at their ends and synced.
//!
//! Small, so that tests can put a faulty one in its place. What a write promises is nothing; what a sync promises is that the bytes of the file, and its
//! length, are there after a crash. Names and their changes are there after [`Disk::sync`].
mod files;
mod memory;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use files::{DirectoryDisk, DiskError};
pub use memory::MemoryDisk;

/// A directory of the log's own.
pub trait Disk: fmt::Debug + Send + Sync {
    /// The names of its files, in any order.
    ///
    /// # Errors
    /// Those of the disk.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes an empty file, in the place of one of this name.
    ///
    /// # Errors
    /// Those of the disk.
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;

    /// Opens a file that is there. It stays readable while it is open, also when its name has gone.
    ///
    /// # Errors
    /// Those of the disk.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;

    /// Gives a file another name, in the place of one that has it.
    ///
    /// # Errors
    /// Those of the disk.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the disk.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns when the names are durable.
    ///
    /// # Errors
    /// Those of the disk; what is durable then is not known.
    fn sync(&self) -> io::Result<()>;
}

/// An open file.
pub trait LogFile: fmt::Debug + Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Those of the disk.
    fn length(&self) -> io::Result<u64>;

    /// Makes the file `length` bytes long, of zeros, and has the disk set the room aside, so that writing there does not find it full.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if there is no room; others of the disk.
    fn reserve(&self, length: u64) -> io::Result<()>;

    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before; others of the disk.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;

    /// As [`LogFile::read_at`], but not from what the system has in memory, where it can be told so.
    ///
    /// # Errors
    /// As there.
    fn read_from_medium(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_at(offset, bytes)
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Those of the disk; what was written then is not known.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `length` bytes.
    ///
    /// # Errors
    /// Those of the disk.
    fn truncate(&self, length: u64) -> io::Result<()>;

    /// Returns when bytes and length are durable.
    ///
    /// # Errors
    /// Those of the disk; what is durable then is not known, and asking again does not tell.
    fn sync(&self) -> io::Result<()>;
}
