//! How much room the disk of the blobs has left.
use std::fmt;
use std::io;
use std::path::Path;

type Ask = dyn Fn(&Path) -> io::Result<u64> + Send + Sync;

/// Asks how many bytes are free where a directory is.
pub(super) struct Room(Box<Ask>);

impl Room {
    /// Asks the operating system for what this process may use.
    pub(super) fn on_disk() -> Self {
        Self::by(free_on_disk)
    }

    /// Knows no bound; a disk that is full says so itself.
    pub(super) fn unknown() -> Self {
        Self::by(|_| Ok(u64::MAX))
    }

    pub(super) fn by(free: impl Fn(&Path) -> io::Result<u64> + Send + Sync + 'static) -> Self {
        Self(Box::new(free))
    }

    /// Bytes that are free where `directory` is.
    pub(super) fn free(&self, directory: &Path) -> io::Result<u64> {
        (self.0)(directory)
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

/// Bytes that this process may still use where `directory` is.
#[cfg(unix)]
pub(crate) fn free_on_disk(directory: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Not known here; a disk that is full says so itself.
#[cfg(not(unix))]
fn free_on_disk(_directory: &Path) -> io::Result<u64> {
    Ok(u64::MAX)
}
