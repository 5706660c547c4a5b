//! Puts a backup back: verifies all of it, then makes a data directory of it. Until that is whole there is no `relay.json`, and no relay starts.
use std::fs::{self, File};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::manifest::{self, Entry, hex};
use super::{BackupError, Copied, DESCRIPTION_FILE, DIRECTORIES, PIECE_BYTES, ROWS_FILE, failed};
use crate::data_dir::files::{private, private_directory, sync_directory};
use crate::mail;
use crate::mail::disk::DirectoryDisk;
use crate::storage::rows;

/// Makes a relay's data directory `to`, which is empty or does not exist, of the backup `from`. Its mailboxes begin a new history. `progress` is told how
/// many bytes have been done out of how many. Blocks.
///
/// # Errors
/// [`BackupError`]. Nothing is in `to` if the backup is not whole; what is there after another error is no relay's directory.
pub fn restore(
    from: &Path,
    to: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Copied, BackupError> {
    let (_, mut entries, copied) = manifest::read(from)?;
    let total = copied.bytes.saturating_mul(2);
    let mut done = 0;
    let mut count = |bytes: u64| {
        done += bytes;
        progress(done, total);
    };
    for entry in &entries {
        verify(from, entry, io::sink(), &mut count)?;
    }
    let owner = prepare(to)?;
    // With a key in it the directory is not taken for an empty one.
    entries.sort_by_key(|entry| (entry.file == DESCRIPTION_FILE, entry.file.contains('/')));
    let (last, first): (Vec<_>, Vec<_>) = entries
        .iter()
        .partition(|entry| entry.file == DESCRIPTION_FILE);
    for directory in DIRECTORIES {
        let directory = to.join(directory);
        private_directory(&directory).map_err(failed(&directory))?;
    }
    for entry in first.iter().filter(|entry| entry.file != ROWS_FILE) {
        put(from, to, entry, &mut count)?;
    }
    let path = from.join(ROWS_FILE);
    let mut file = BufReader::new(File::open(&path).map_err(failed(&path))?);
    rows::restore(to, &mut file)?;
    let disk = DirectoryDisk::open(&to.join("mail"))?;
    mail::begin_history(Arc::new(disk))?;
    for directory in DIRECTORIES {
        let directory = to.join(directory);
        sync_directory(&directory.join("any")).map_err(failed(&directory))?;
    }
    for entry in last {
        put(from, to, entry, &mut count)?;
    }
    give(to, owner)?;
    sync_directory(&to.join("any")).map_err(failed(to))?;
    Ok(copied)
}

/// Whose the directory is to be: it is made if it is not there.
fn prepare(to: &Path) -> Result<(u32, u32), BackupError> {
    match fs::read_dir(to) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(BackupError::NotEmpty {
                    path: to.to_owned(),
                });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            private_directory(to).map_err(failed(to))?;
            sync_directory(to).map_err(failed(to))?;
        }
        Err(error) => return Err(failed(to)(error)),
    }
    let owner = fs::metadata(to).map_err(failed(to))?;
    Ok((owner.uid(), owner.gid()))
}

/// Copies a file and verifies what was copied.
fn put(
    from: &Path,
    to: &Path,
    entry: &Entry,
    count: &mut impl FnMut(u64),
) -> Result<(), BackupError> {
    let path = to.join(&entry.file);
    let file = private().write(true).create_new(true).open(&path);
    let file = file.map_err(failed(&path))?;
    verify(from, entry, &file, count)?;
    file.sync_all().map_err(failed(&path))
}

/// Reads a file of a backup, gives it to `to`, and looks whether it was as it has to be.
fn verify(
    from: &Path,
    entry: &Entry,
    mut to: impl io::Write,
    count: &mut impl FnMut(u64),
) -> Result<(), BackupError> {
    let path = from.join(&entry.file);
    let damaged = || BackupError::Damaged { path: path.clone() };
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(damaged()),
        Err(error) => return Err(failed(&path)(error)),
    };
    let mut piece = vec![0; PIECE_BYTES];
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    loop {
        let read = file.read(&mut piece).map_err(failed(&path))?;
        let piece = piece.get(..read).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        hash.update(piece);
        bytes += read as u64;
        to.write_all(piece).map_err(failed(&path))?;
        count(read as u64);
    }
    if bytes == entry.bytes && hex(hash) == entry.sha256 {
        Ok(())
    } else {
        Err(damaged())
    }
}

/// Gives what is in a directory to somebody, where somebody else has made it: the relay has to read what an administrator's account puts back.
fn give(directory: &Path, owner: (u32, u32)) -> Result<(), BackupError> {
    for entry in fs::read_dir(directory).map_err(failed(directory))? {
        let path = entry.map_err(failed(directory))?.path();
        let found = fs::symlink_metadata(&path).map_err(failed(&path))?;
        if found.uid() != owner.0 {
            lchown(&path, Some(owner.0), Some(owner.1)).map_err(failed(&path))?;
        }
        if found.is_dir() {
            give(&path, owner)?;
        }
    }
    Ok(())
}
