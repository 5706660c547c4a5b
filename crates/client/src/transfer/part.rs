//! A file that is not whole yet, beside the place where it will be.
//!
//! ```text
//!  <path>.<8 of the blob>.part ── append … ──▶ whole, hash is right ── fsync, link ──▶ <path>
//! ```
//! The final place never shows anything but the whole file, and nothing that is there is ever overwritten. The part's name tells files of the same name
//! apart, so that one is never continued with another's bytes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use sealwire_protocol::crypto::sha256;
use sha2::{Digest as _, Sha256};

use super::chunks::BlobId;
use super::error::FileError;

/// Bytes hashed at a time.
const READ_BYTES: usize = 256 << 10;

/// A part, locked. It stays when it is dropped, to be continued.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    path: PathBuf,
    place: PathBuf,
    length: u64,
}

/// The name of the part of the file that is in `blob` and will be at `place`.
pub(crate) fn part_path(place: &Path, blob: &BlobId) -> PathBuf {
    // Not the id itself: whoever has that may fetch the blob.
    let [a, b, c, d, ..] = sha256(&[b"part", blob]);
    let mut name = place.as_os_str().to_owned();
    name.push(format!(".{a:02x}{b:02x}{c:02x}{d:02x}.part"));
    name.into()
}

/// Whether the very file is there already.
///
/// # Errors
/// [`FileError::Exists`] if something else is.
pub(crate) fn is_there(place: &Path, size: u64, sha256: &[u8; 32]) -> Result<bool, FileError> {
    let found = match fs::symlink_metadata(place) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(FileError::Write(error)),
    };
    if !found.is_file() || found.len() != size {
        return Err(FileError::Exists);
    }
    let mut file = File::open(place).map_err(FileError::Write)?;
    let mut hash = Sha256::new();
    hash_exactly(&mut file, size, &mut hash).map_err(FileError::Write)?;
    if <[u8; 32]>::from(hash.finalize()) == *sha256 {
        Ok(true)
    } else {
        Err(FileError::Exists)
    }
}

impl Part {
    /// Makes or continues the part of a file.
    ///
    /// # Errors
    /// [`FileError::Busy`] if somebody else is writing it.
    pub(crate) fn open(place: &Path, blob: &BlobId) -> Result<Self, FileError> {
        let path = part_path(place, blob);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        // What is received is for the device's owner until they decide otherwise.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let found = fs::symlink_metadata(&path);
        if found.is_ok_and(|found| !found.is_file()) {
            return Err(FileError::Exists);
        }
        let file = options.open(&path).map_err(FileError::Write)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FileError::Busy),
            // A file system without locks: whoever runs two at once there gets a hash that is wrong, and starts again.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(FileError::Write(error)),
        }
        let length = file.metadata().map_err(FileError::Write)?.len();
        Ok(Self {
            file,
            path,
            place: place.to_owned(),
            length,
        })
    }

    /// Bytes that are there.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Cuts it to `length` bytes and hashes them; it goes on there.
    pub(crate) fn continue_at(&mut self, length: u64) -> io::Result<Sha256> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(0))?;
        let mut hash = Sha256::new();
        hash_exactly(&mut self.file, length, &mut hash)?;
        self.length = length;
        Ok(hash)
    }

    /// Adds to its end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes) {
            // Whole chunks only: what is left of this one is written again.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length = self.length.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Puts the whole file into its place, durably.
    ///
    /// # Errors
    /// [`FileError::Exists`] if there is something else by now; the part stays.
    pub(crate) fn finish(self) -> Result<(), FileError> {
        self.file.sync_all().map_err(FileError::Write)?;
        // A link, unlike a rename, never replaces what is there.
        match fs::hard_link(&self.path, &self.place) {
            Ok(()) => fs::remove_file(&self.path).map_err(FileError::Write)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(FileError::Exists);
            }
            Err(_) => self.rename()?,
        }
        sync_directory(&self.place).map_err(FileError::Write)
    }

    /// The same where there are no links: reserves the name with an empty file, which is then replaced.
    fn rename(&self) -> Result<(), FileError> {
        let reserved = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&self.place);
        match reserved {
            Ok(_) => fs::rename(&self.path, &self.place).map_err(FileError::Write),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(FileError::Exists),
            Err(error) => Err(FileError::Write(error)),
        }
    }

    /// Erases it.
    pub(crate) fn discard(self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "part of a file is left over");
        }
    }
}

fn hash_exactly(file: &mut File, length: u64, hash: &mut Sha256) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut left = length;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(READ_BYTES).min(READ_BYTES);
        let bytes = buffer.get_mut(..want).unwrap_or_default();
        file.read_exact(bytes)?;
        hash.update(&*bytes);
        left = left.saturating_sub(want as u64);
    }
    Ok(())
}

/// Makes the new name outlive a crash.
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: BlobId = [7; 32];

    fn hash(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }

    #[test]
    fn file_appears_whole_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.txt");
        let mut part = Part::open(&place, &BLOB).unwrap();
        part.append(b"hello ").unwrap();
        drop(part);
        assert!(!place.exists());
        let mut part = Part::open(&place, &BLOB).unwrap();
        assert_eq!(part.length(), 6);
        let so_far = part.continue_at(6).unwrap();
        assert_eq!(so_far.finalize().as_slice(), hash(b"hello "));
        part.append(b"world").unwrap();
        part.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"hello world");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.txt");
        let mut part = Part::open(&place, &BLOB).unwrap();
        part.append(b"new").unwrap();
        fs::write(&place, b"old").unwrap();
        assert!(matches!(part.finish(), Err(FileError::Exists)));
        assert_eq!(fs::read(&place).unwrap(), b"old");
        assert!(part_path(&place, &BLOB).exists());
    }

    #[test]
    fn rename_without_links_overwrites_nothing_either() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.txt");
        let mut part = Part::open(&place, &BLOB).unwrap();
        part.append(b"new").unwrap();
        fs::write(&place, b"old").unwrap();
        assert!(matches!(part.rename(), Err(FileError::Exists)));
        fs::remove_file(&place).unwrap();
        part.rename().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
    }

    #[test]
    fn the_very_file_is_known_and_another_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.txt");
        assert!(!is_there(&place, 3, &hash(b"abc")).unwrap());
        fs::write(&place, b"abc").unwrap();
        assert!(is_there(&place, 3, &hash(b"abc")).unwrap());
        for (size, hash) in [(3, hash(b"abd")), (4, hash(b"abc"))] {
            assert!(matches!(
                is_there(&place, size, &hash),
                Err(FileError::Exists)
            ));
        }
        assert!(matches!(
            is_there(dir.path(), 3, &hash(b"abc")),
            Err(FileError::Exists)
        ));
    }

    #[test]
    fn part_is_written_by_one_at_a_time_and_told_from_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.txt");
        let part = Part::open(&place, &BLOB).unwrap();
        assert!(matches!(Part::open(&place, &BLOB), Err(FileError::Busy)));
        Part::open(&place, &[8; 32]).unwrap().discard();
        drop(part);
        Part::open(&place, &BLOB).unwrap().discard();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn link_in_the_parts_place_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (place, victim) = (dir.path().join("a.txt"), dir.path().join("victim"));
        fs::write(&victim, b"precious").unwrap();
        std::os::unix::fs::symlink(&victim, part_path(&place, &BLOB)).unwrap();
        assert!(matches!(Part::open(&place, &BLOB), Err(FileError::Exists)));
        assert_eq!(fs::read(&victim).unwrap(), b"precious");
    }
}
