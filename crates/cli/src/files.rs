//! Files and standard input: read within bounds, and secrets written so that only their owner reads them.

use std::{
    fmt::Display,
    fs::File,
    io::{self, IsTerminal as _, Read, Write as _},
    path::Path,
};

use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::output::Output;

/// Reads a file, or standard input for `-`, of at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    if path == Path::new("-") {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            // Not an error: but somebody who waits should know for what.
            Output::asked().hint("reading standard input; end it with Ctrl-D");
        }
        return read_all(stdin.lock(), "standard input", limit);
    }
    let file = File::open(path).map_err(|error| {
        Failure::failed(format_args!("cannot read {}: {error}", path.display()))
    })?;
    read_all(file, path.display(), limit)
}

/// The same for text that is one token: white space around it is dropped.
pub(crate) fn read_token(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // A line break at the end does not count.
    let text = read(path, limit.saturating_add(2))?;
    let token = Zeroizing::new(text.trim_ascii().to_vec());
    if token.is_empty() {
        return Err(Failure::failed(format_args!("{} is empty", name(path))));
    }
    Ok(token)
}

fn read_all(
    source: impl Read,
    name: impl Display,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let mut bytes = Zeroizing::new(Vec::new());
    source
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::failed(format_args!("cannot read {name}: {error}")))?;
    if bytes.len() > limit {
        return Err(Failure::failed(format_args!(
            "{name} is longer than {limit} bytes"
        )));
    }
    Ok(bytes)
}

/// Writes a file that only its owner can read (mode 0600), whole or not at all, and durably. Another file of that name is
/// replaced only by `force`.
pub(crate) fn write_secret(path: &Path, contents: &[u8], force: bool) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::failed(format_args!("cannot write {}: {error}", path.display()))
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // Made with mode 0600, in the same directory so that it can take the name at once.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(contents).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    if force {
        file.persist(path).map_err(|error| failed(error.error))?;
    } else {
        file.persist_noclobber(path).map_err(|error| {
            if error.error.kind() == io::ErrorKind::AlreadyExists {
                return Failure::failed(format_args!(
                    "{} exists already; choose another name, or replace it for good with --force",
                    path.display()
                ));
            }
            failed(error.error)
        })?;
    }
    // The name has to last as well as the contents.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed)
}

/// What to call an input in a message.
pub(crate) fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".into()
    } else {
        path.display().to_string()
    }
}

/// Where a secret result goes: `-` is standard output.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_file_is_its_owner_s_and_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.jwk");
        write_secret(&path, b"one", false).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        assert!(write_secret(&path, b"two", false).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        write_secret(&path, b"two", true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(
            std::fs::read_dir(directory.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn input_over_its_limit_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap().as_slice(), b"12345");
        assert!(read(&path, 4).is_err());
        std::fs::write(&path, b" \n ").unwrap();
        assert!(read_token(&path, 10).is_err());
    }
}
