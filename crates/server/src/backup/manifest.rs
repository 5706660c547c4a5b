//! What a backup says of itself: JSON, one object a line. The first says what it is, the last that it is whole.
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use sealwire_protocol::key::Thumbprint;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{BackupError, Copied, FORMAT_VERSION, MANIFEST_FILE, failed, is_name};
use crate::data_dir::files::{private, sync_directory};
use crate::storage;

/// What the manifest is called until it is whole.
const UNFINISHED_FILE: &str = "manifest.new";
/// Bytes of a line.
const MAX_LINE_BYTES: u64 = 4_096;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) sealwire_backup: u32,
    pub(super) store_format: u32,
    /// The version of the program that was copied from.
    pub(super) version: String,
    /// The relay's thumbprint.
    pub(super) relay: String,
    /// When it was begun, in seconds since 1970.
    pub(super) made: u64,
    /// Bytes of mail and blobs, about.
    pub(super) about_bytes: u64,
}

/// A line for a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    files: u64,
    bytes: u64,
    /// Of all lines before.
    sha256: String,
}

/// A manifest that is being written.
pub(super) struct Writer {
    to: BufWriter<File>,
    hash: Sha256,
    files: u64,
    bytes: u64,
}

/// A hash as text.
pub(super) fn hex(hash: Sha256) -> String {
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Head {
    /// The relay.
    pub(super) fn relay(&self) -> Option<Thumbprint> {
        self.relay.parse().ok()
    }
}

impl Writer {
    pub(super) fn begin(directory: &Path, head: &Head) -> Result<Self, BackupError> {
        let path = directory.join(UNFINISHED_FILE);
        let file = private().write(true).create_new(true).open(&path);
        let mut writer = Self {
            to: BufWriter::new(file.map_err(failed(&path))?),
            hash: Sha256::new(),
            files: 0,
            bytes: 0,
        };
        writer.line(head).map_err(failed(&path))?;
        Ok(writer)
    }

    pub(super) fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.line(entry)
    }

    fn line(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        self.hash.update(&line);
        self.to.write_all(&line)
    }

    /// Says that everything is there. Everything has been synced.
    pub(super) fn finish(self, directory: &Path, relay: Thumbprint) -> Result<Copied, BackupError> {
        let (path, name) = (
            directory.join(UNFINISHED_FILE),
            directory.join(MANIFEST_FILE),
        );
        let Self {
            mut to,
            hash,
            files,
            bytes,
        } = self;
        let finish = || {
            let end = End {
                files,
                bytes,
                sha256: hex(hash),
            };
            serde_json::to_writer(&mut to, &end)?;
            to.write_all(b"\n")?;
            to.flush()?;
            to.get_ref().sync_all()?;
            std::fs::rename(&path, &name)?;
            sync_directory(&name)
        };
        finish().map_err(failed(&name))?;
        Ok(Copied {
            relay,
            files,
            bytes,
        })
    }
}

/// Reads the manifest of a backup.
pub(super) fn read(directory: &Path) -> Result<(Head, Vec<Entry>, Copied), BackupError> {
    let path = directory.join(MANIFEST_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(BackupError::NoManifest {
                path: directory.to_owned(),
            });
        }
        Err(error) => return Err(failed(&path)(error)),
    };
    let damaged = || BackupError::Manifest {
        path: directory.to_owned(),
    };
    let mut from = BufReader::new(file);
    let mut line = Vec::new();
    let mut next = || {
        line.clear();
        let read = io::Read::take(&mut from, MAX_LINE_BYTES).read_until(b'\n', &mut line);
        read.map_err(failed(&path))?;
        // What was cut off has no end.
        if line.last() == Some(&b'\n') {
            Ok(line.clone())
        } else {
            Err(damaged())
        }
    };
    let mut hash = Sha256::new();
    let first = next()?;
    hash.update(&first);
    let head: Head = serde_json::from_slice(&first).map_err(|_| damaged())?;
    if head.sealwire_backup != FORMAT_VERSION {
        return Err(BackupError::Format {
            path: directory.to_owned(),
            found: head.sealwire_backup,
        });
    }
    if head.store_format != storage::FORMAT_VERSION {
        return Err(BackupError::StoreFormat {
            path: directory.to_owned(),
            found: head.store_format,
        });
    }
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let line = next()?;
        if let Ok(entry) = serde_json::from_slice::<Entry>(&line) {
            if !is_name(&entry.file) {
                return Err(damaged());
            }
            hash.update(&line);
            entries.push(entry);
            continue;
        }
        let end: End = serde_json::from_slice(&line).map_err(|_| damaged())?;
        let bytes = entries.iter().map(|entry| entry.bytes).sum();
        let relay = head.relay().ok_or_else(damaged)?;
        if end.sha256 != hex(hash) || (end.files, end.bytes) != (entries.len() as u64, bytes) {
            return Err(damaged());
        }
        let copied = Copied {
            relay,
            files: end.files,
            bytes,
        };
        return Ok((head, entries, copied));
    }
}
