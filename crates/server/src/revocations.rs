//! What does not count any more although its signature holds: tokens, devices and users that were revoked.
//!
//! ```text
//!  revocations.jsonl ── looked at twice a second ──▶ List ──┬─▶ asked at handshake, Ready, Refresh, PublishCard
//!   ▲                                                       └─▶ what is new in it: live links end with 4102, cards go, peers are told
//!   └── Relay::revoke, `sealwire relay revoke`, or a program of the operator's appends a line
//! ```
//! The file is the state: it is all there is to back up or to copy to another relay, and a line that is taken out of it counts no more. Only devices that
//! were removed stay removed. A line is one JSON object ([`Revocation`]); empty lines, and those that begin with `#`, are skipped.
mod apply;
mod list;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use sealwire_protocol::token::TokenClaims;

pub(crate) use apply::{revoke, watch};
pub(crate) use list::List;
pub use list::Revocation;

use crate::data_dir::files::{give_to_owner, private, sync_directory};

/// Bytes of the file.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Why the revocations of a relay cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationsError {
    /// The file cannot be read or written.
    #[error("cannot use {}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
    /// A line of it is no revocation. A relay does not start with it: whoever it should keep out would be let in.
    #[error("{}, line {line}: {what}; correct the line or take it out", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// It is larger than 64 MiB.
    #[error(
        "{} is larger than 64 MiB; take out what has expired: tokens that have, and what was issued before those that are left",
        path.display()
    )]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

/// What is revoked now, and the file that says so, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Revocations {
    list: RwLock<Arc<List>>,
    file: Option<PathBuf>,
    /// Held while the list changes and the change is carried out.
    progress: tokio::sync::Mutex<Progress>,
}

/// How far the relay has got.
#[derive(Debug, Default)]
struct Progress {
    /// What has been carried out. What a failure or a crash has left undone is in the list and not in here.
    carried: Arc<List>,
    /// The file as it was when it was last read without an error.
    seen: Option<Stamp>,
    /// It was looked at twice in that state, so that nobody is in the middle of writing it.
    settled: bool,
}

/// What tells two states of the file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    /// That of the file now; `None` if there is none.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(Self {
                bytes: found.len(),
                modified: found.modified().ok(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Revocations {
    /// Those in a file, which need not exist yet. Reads it.
    pub(crate) fn open(file: PathBuf) -> Result<Self, RevocationsError> {
        // Before it is read: what comes in between is read once more.
        let seen = Stamp::of(&file).map_err(|error| failed(&file, error))?;
        let (list, bad) = read(&file)?;
        match bad {
            Some(bad) => Err(bad),
            None => Ok(Self {
                list: RwLock::new(Arc::new(list)),
                file: Some(file),
                progress: tokio::sync::Mutex::new(Progress {
                    seen,
                    settled: true,
                    ..Progress::default()
                }),
            }),
        }
    }

    /// Whether a token, or an attestation, is revoked: it, its device, its user, or all from before some time.
    pub(crate) fn cover(&self, claims: &TokenClaims) -> bool {
        self.list().covers(claims)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.list().len()
    }

    fn list(&self) -> Arc<List> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, list: Arc<List>) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list;
    }
}

/// Adds a line to the file at `path`, which is made if there is none, and returns once it is durable. A relay that runs on it sees it within half a
/// second. Blocks.
///
/// # Errors
/// [`RevocationsError::File`].
pub fn append(path: &Path, revocation: &Revocation) -> Result<(), RevocationsError> {
    let write = || {
        let mut file = private().create(true).read(true).append(true).open(path)?;
        give_to_owner(&file, path)?;
        let before = file.metadata()?.len();
        let mut line = revocation.to_line();
        // Whoever wrote the last line may not have ended it.
        if !ends_with_newline(&mut file)? {
            line.insert(0, '\n');
        }
        line.push('\n');
        // One write, so that two processes do not mix theirs.
        if let Err(error) = file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_all())
        {
            // Half a line would keep the relay from starting.
            file.set_len(before)?;
            return Err(error);
        }
        sync_directory(path)
    };
    write().map_err(|error| failed(path, error))
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    use std::io::{Seek as _, SeekFrom};
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// What is in the file, and the first line of it that is no revocation. No file is an empty one.
fn read(path: &Path) -> Result<(List, Option<RevocationsError>), RevocationsError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(failed(path, error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(path, error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(RevocationsError::TooLarge { path: path.into() });
    }
    let (list, bad) = List::read(&bytes);
    let bad = bad.map(|(line, what)| RevocationsError::Line {
        path: path.into(),
        line,
        what,
    });
    Ok((list, bad))
}

fn failed(path: &Path, error: io::Error) -> RevocationsError {
    RevocationsError::File {
        path: path.into(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str) -> Revocation {
        Revocation::Token(id.to_owned())
    }

    #[test]
    fn lines_are_appended_whatever_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revocations.jsonl");
        assert!(Revocations::open(path.clone()).unwrap().list().is_empty());
        append(&path, &token("one")).unwrap();
        fs::write(
            &path,
            format!("# by hand\n\n{}", fs::read_to_string(&path).unwrap().trim()),
        )
        .unwrap();
        append(&path, &token("two")).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "# by hand\n\n{\"token\":\"one\"}\n{\"token\":\"two\"}\n"
        );
        Revocations::open(path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn file_is_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revocations.jsonl");
        append(&path, &token("one")).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    /// As an administrator's account does it for a relay that has one of its own.
    #[cfg(unix)]
    #[test]
    fn file_is_its_relays_whoever_makes_it() {
        use std::os::unix::fs::{MetadataExt as _, chown};
        let directory = tempfile::tempdir().unwrap();
        // Only an administrator may do that, and for others there is nothing to see.
        if chown(directory.path(), Some(12_345), None).is_err() {
            return;
        }
        let path = directory.path().join("revocations.jsonl");
        append(&path, &token("one")).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), 12_345);
    }

    #[test]
    fn file_with_a_line_that_is_none_is_refused_by_its_number() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revocations.jsonl");
        fs::write(&path, "{\"token\":\"one\"}\n{\"tokens\":\"two\"}\n").unwrap();
        let error = Revocations::open(path.clone()).unwrap_err();
        assert!(
            matches!(error, RevocationsError::Line { line: 2, .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("revocations.jsonl, line 2"),
            "{error}"
        );
        let file = File::create(&path).unwrap();
        file.set_len(MAX_FILE_BYTES + 1).unwrap();
        let error = Revocations::open(path).unwrap_err();
        assert!(
            matches!(error, RevocationsError::TooLarge { .. }),
            "{error}"
        );
    }
}
