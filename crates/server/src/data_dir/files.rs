//! Files that a crash leaves either whole or not there, and that only their owner can read.
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use zeroize::Zeroizing;

/// How to make a file that only its owner can read.
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a file that is not there yet; one that is there is an error and stays as it is.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = private().write(true).create_new(true).open(path)?;
    give_to_owner(&file, path)?;
    file.write_all(content)?;
    file.sync_all()?;
    sync_directory(path)
}

/// Makes a file or replaces it in one step.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    create(&temporary, content)?;
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

/// Gives a new file to whose directory it is in: the relay has to read what an administrator's account writes. Others cannot give files away, and keep
/// theirs.
pub(crate) fn give_to_owner(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let (own, owner) = (file.metadata()?, fs::metadata(directory)?);
        if own.uid() != owner.uid() && own.len() == 0 {
            match fchown(file, Some(owner.uid()), Some(owner.gid())) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
    }
    #[cfg(not(unix))]
    let _ = (file, path);
    Ok(())
}

/// Makes a directory that only its owner can enter. One that is there keeps its mode: it may be somebody's for other things too, and
/// the files made in it are their owner's only.
pub(crate) fn private_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    Ok(())
}

/// The content of a file of at most `max` bytes, erased when dropped.
pub(crate) fn read(path: &Path, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::with_capacity(
        usize::try_from(max).unwrap_or(usize::MAX),
    ));
    let read = File::open(path)?
        .take(max.saturating_add(1))
        .read_to_end(&mut content)? as u64;
    if read > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the file is too large",
        ));
    }
    Ok(content)
}

/// Whether others than the owner may read or write the file.
pub(super) fn is_exposed(path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        fs::metadata(path).map(|_| false)
    }
}

/// Makes the entry in the directory outlive a crash.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    // A name alone is one in the directory that the process is in.
    #[cfg(unix)]
    File::open(Path::new(".").join(directory))?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}
