//! A relay's data, copied while the relay runs, and put back.
//!
//! ```text
//!  relay, or a directory on which none runs          the operator's process
//!  store: rows of one read transaction ─┐
//!  mail log: up to what is synced ──────┼─ stream ─▶ files, each synced ─▶ manifest, last ··· verified ─▶ data directory, relay.json last
//!  blobs, then keys and small files ────┘
//! ```
//! * The relay reads and the operator's process writes: the relay's user need not be allowed to write where backups go, and whoever may ask for one may read
//!   the directory anyway. Nothing is written to the relay's disk, so that a backup does not fill it.
//! * What was accepted before a backup begins is in it. The parts are of moments that follow each other: a device that joins meanwhile may have mail and
//!   no card in the copy, and never the other way round; of a message that offers a file the file is there.
//! * A copy that is put back begins a new history (docs/protocol.md §5.2): the relay may have given positions since that it would give again. It has no
//!   one-time prekeys: none is given out twice.
//! * A backup without a manifest was not finished, and is none. Hashes find damage; they are no seal against whoever can write there.
mod manifest;
mod receive;
mod restore;
pub(crate) mod source;

use std::io;
use std::path::{Path, PathBuf};

use sealwire_protocol::key::Thumbprint;

use crate::mail::MailOpenError;
use crate::mail::disk::DiskError;
use crate::operator::ConsoleError;
use crate::storage::OpenError;

pub use receive::back_up;
pub use restore::restore;

/// The file that says what a backup is.
pub const MANIFEST_FILE: &str = "manifest.jsonl";
/// The format this code writes; a backup of a higher number is refused.
pub const FORMAT_VERSION: u32 = 1;
/// The store's rows, in a backup.
const ROWS_FILE: &str = "directory.rows";
/// The file without which a directory is no relay's (`crate::data_dir`).
const DESCRIPTION_FILE: &str = "relay.json";
/// The directories that a backup has.
const DIRECTORIES: [&str; 3] = ["mail", "blobs", "invites"];
/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 256 << 10;

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The relay.
    pub relay: Thumbprint,
    /// Files.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// Why there is no backup, or none was put back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The relay or its directory.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The relay could not go on. What has come so far is no backup.
    #[error("the relay could not make the backup: {why}; remove {}, which is none", .path.display())]
    Relay {
        /// What it says.
        why: String,
        /// The directory of what has come.
        path: PathBuf,
    },
    /// What is to be made is there.
    #[error("{} exists already; a backup is made in a directory of its own", .path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// It is no backup, or was not finished.
    #[error("{} is no backup, or one that was not finished: it has no manifest", .path.display())]
    NoManifest {
        /// The directory.
        path: PathBuf,
    },
    /// The manifest is not as it was written.
    #[error("the manifest of the backup {} is damaged or cut off", .path.display())]
    Manifest {
        /// The directory.
        path: PathBuf,
    },
    /// Made by a newer version of this program.
    #[error("the backup {} has format {found}, which this program does not know; use the program that made it", .path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// Its store is of another version of this program.
    #[error("the store in the backup {} has format {found}; put it back with the version of the program that made it, and upgrade then", .path.display())]
    StoreFormat {
        /// The directory.
        path: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// A file of it is missing or not as it was.
    #[error("{} is missing, or is not as it was when the backup was made; use another backup", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// There is something where it is to be put.
    #[error("{} is not empty; a backup is put back into a directory of its own", .path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The store could not be made.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The directory of the mailboxes could not be used.
    #[error(transparent)]
    MailDirectory(#[from] DiskError),
    /// The mailboxes could not be opened.
    #[error(transparent)]
    Mail(#[from] MailOpenError),
    /// A file could not be read or written.
    #[error("cannot use {}: {error}", .path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// An error of the system, with the file.
fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |error| BackupError::Io { path, error }
}

/// Whether a name is of a file that a backup may have: in it, or in one of its directories.
fn is_name(name: &str) -> bool {
    let is_plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 255
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    match name.split_once('/') {
        None => is_plain(name) && name != MANIFEST_FILE && !DIRECTORIES.contains(&name),
        Some((directory, file)) => DIRECTORIES.contains(&directory) && is_plain(file),
    }
}

/// A piece of the stream: `u8 kind; u32 length; opaque payload[length]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// The first: JSON, [`manifest::Head`].
    Head,
    /// A file begins: its name.
    File,
    /// Bytes of it.
    Data,
    /// That is all.
    End,
    /// It goes no further: why, for people.
    Failed,
}

impl Piece {
    const HEADER_BYTES: usize = 5;

    const fn kind(self) -> u8 {
        match self {
            Self::Head => 1,
            Self::File => 2,
            Self::Data => 3,
            Self::End => 4,
            Self::Failed => 5,
        }
    }

    fn from_kind(kind: u8) -> Option<Self> {
        let all = [Self::Head, Self::File, Self::Data, Self::End, Self::Failed];
        all.into_iter().find(|piece| piece.kind() == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for name in [
            "relay.key",
            "issuer-keys-0a",
            "directory.rows",
            "mail/synced",
            "blobs/00ff",
        ] {
            assert!(is_name(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "/etc/passwd",
            "../relay.key",
            "mail/..",
            "mail/../x",
            "mail/a/b",
            "mail/",
            "mail",
            "other/file",
            ".hidden",
            "manifest.jsonl",
            "a\\b",
            "a b",
            "a\0b",
        ] {
            assert!(!is_name(name), "{name:?}");
        }
    }
}
