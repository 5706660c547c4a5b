//! The disk of an operating system: one directory, its files readable by their owner only.
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, LogFile};

/// The file whose lock says that the log is in use.
const LOCK_FILE: &str = "lock";
/// Bytes of zeros written at once where a file system cannot set room aside.
const ZEROS_AT_ONCE: usize = 1 << 20;

/// A directory of files. It is locked against other processes while it is open.
#[derive(Debug)]
pub struct DirectoryDisk {
    dir: PathBuf,
    /// The directory itself where it is synced, open so that this needs no descriptor. Only Unix has directories that are synced.
    handle: Option<File>,
    /// Holds the lock.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Another process, or this one, uses it.
    #[error("{} is in use by another relay; stop that one first", .0.display())]
    InUse(PathBuf),
    /// It could not be made, opened or locked.
    #[error("cannot open {}: {error}; check that the directory exists and belongs to this user", .path.display())]
    File {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
}

impl DirectoryDisk {
    /// Opens the directory `dir`, or makes it in one that exists, readable by its owner only.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let failed = |error| DiskError::File {
            path: dir.to_owned(),
            error,
        };
        make_private(dir).map_err(failed)?;
        let lock = private()
            .create(true)
            .truncate(false)
            .open(dir.join(LOCK_FILE))
            .map_err(failed)?;
        let handle = if cfg!(unix) {
            Some(File::open(dir).map_err(failed)?)
        } else {
            None
        };
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                handle,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DiskError::InUse(dir.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn make_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(dir) {
        Ok(()) => sync_directory(dir.parent().unwrap_or(Path::new("."))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Only Unix has directories that are synced.
fn sync_directory(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        })?
        .sync_all()?;
    }
    Ok(())
}

impl Disk for DirectoryDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_FILE
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = private()
            .create(true)
            .truncate(true)
            .open(self.dir.join(name))?;
        Ok(Arc::new(OpenFile(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(Arc::new(OpenFile(private().open(self.dir.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.as_ref().map_or(Ok(()), File::sync_all)
    }
}

#[derive(Debug)]
struct OpenFile(File);

impl OpenFile {
    fn fill_with_zeros(&self, length: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_AT_ONCE];
        let mut offset = 0;
        while offset < length {
            let count = usize::try_from(length - offset)
                .unwrap_or(usize::MAX)
                .min(zeros.len());
            self.write_at(offset, zeros.get(..count).unwrap_or_default())?;
            offset += count as u64;
        }
        Ok(())
    }
}

impl LogFile for OpenFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{FallocateFlags, fallocate};
            use rustix::io::Errno;
            match fallocate(&self.0, FallocateFlags::empty(), 0, length) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.fill_with_zeros(length)
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, offset)
    }

    #[cfg(unix)]
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
    }

    #[cfg(windows)]
    fn read_at(&self, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = std::os::windows::fs::FileExt::seek_read(&self.0, bytes, offset)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            offset += count as u64;
            bytes = bytes.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    #[cfg(windows)]
    fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = std::os::windows::fs::FileExt::seek_write(&self.0, bytes, offset)?;
            offset += count as u64;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn read_from_medium(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        use rustix::fs::{Advice, fadvise};
        // Whole pages: with a part of one the system would keep it.
        fadvise(&self.0, 0, None, Advice::DontNeed).ok();
        self.read_at(offset, bytes)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
