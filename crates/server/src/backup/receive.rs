//! Writes a backup: file by file as they come, and the manifest when all of them are on the disk.
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::manifest::{self, Entry, Head, hex};
use super::{
    BackupError, Copied, DIRECTORIES, FORMAT_VERSION, PIECE_BYTES, Piece, failed, is_name,
};
use crate::data_dir::files::{private, sync_directory};
use crate::operator::{Answer, Console, ConsoleError, Question};

/// A file that comes.
struct Coming {
    name: String,
    path: PathBuf,
    file: File,
    hash: Sha256,
    bytes: u64,
}

/// Makes a backup of the relay that `console` asks in the directory `to`, which must not exist: only its owner may enter it. `progress` is told how many
/// bytes have come, and about how many there are. What is there after an error is no backup.
///
/// # Errors
/// [`BackupError`].
pub async fn back_up(
    console: &Console,
    to: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<Copied, BackupError> {
    if to.symlink_metadata().is_ok() {
        return Err(exists(to));
    }
    let mut answer = console.ask(&Question::Backup).await?;
    make(to)?;
    let (Piece::Head, head) = next(&mut answer).await? else {
        return Err(ConsoleError::Form.into());
    };
    let head: Head = serde_json::from_slice(&head).map_err(|_| ConsoleError::Form)?;
    let relay = head.relay().ok_or(ConsoleError::Form)?;
    if head.sealwire_backup != FORMAT_VERSION {
        return Err(ConsoleError::Form.into());
    }
    for directory in DIRECTORIES {
        make(&to.join(directory))?;
    }
    let mut manifest = manifest::Writer::begin(to, &head)?;
    let mut coming: Option<Coming> = None;
    let mut done = 0_u64;
    loop {
        let (piece, payload) = next(&mut answer).await?;
        match piece {
            Piece::Data => {
                let coming = coming.as_mut().ok_or(ConsoleError::Form)?;
                coming.take(&payload)?;
                done = done.saturating_add(payload.len() as u64);
                progress(done, head.about_bytes.max(done));
            }
            Piece::File => {
                finish(coming.take(), &mut manifest)?;
                let name = String::from_utf8(payload).map_err(|_| ConsoleError::Form)?;
                coming = Some(Coming::begin(to, name)?);
            }
            Piece::End => {
                finish(coming.take(), &mut manifest)?;
                break;
            }
            Piece::Failed => {
                let why = String::from_utf8_lossy(&payload).into_owned();
                let path = to.to_owned();
                return Err(BackupError::Relay { why, path });
            }
            Piece::Head => return Err(ConsoleError::Form.into()),
        }
    }
    for directory in DIRECTORIES {
        let directory = to.join(directory);
        // Of what is in it.
        sync_directory(&directory.join("any")).map_err(failed(&directory))?;
    }
    manifest.finish(to, relay)
}

/// Makes a directory that only its owner may enter.
fn make(path: &Path) -> Result<(), BackupError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => sync_directory(path).map_err(failed(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) => Err(failed(path)(error)),
    }
}

fn exists(path: &Path) -> BackupError {
    let path = path.to_owned();
    BackupError::Exists { path }
}

async fn next(answer: &mut Answer) -> Result<(Piece, Vec<u8>), BackupError> {
    let header = answer.take(Piece::HEADER_BYTES).await?;
    let Some((kind, length)) = header.split_first() else {
        return Err(ConsoleError::Form.into());
    };
    let length: [u8; 4] = length.try_into().map_err(|_| ConsoleError::Form)?;
    let length = u32::from_be_bytes(length) as usize;
    let piece = Piece::from_kind(*kind).ok_or(ConsoleError::Form)?;
    if length > PIECE_BYTES {
        return Err(ConsoleError::Form.into());
    }
    Ok((piece, answer.take(length).await?))
}

impl Coming {
    fn begin(to: &Path, name: String) -> Result<Self, BackupError> {
        // The relay is trusted with its own data, and not with the rest of this disk.
        if !is_name(&name) {
            return Err(ConsoleError::Form.into());
        }
        let path = to.join(&name);
        let file = private().write(true).create_new(true).open(&path);
        Ok(Self {
            file: file.map_err(failed(&path))?,
            name,
            path,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    fn take(&mut self, data: &[u8]) -> Result<(), BackupError> {
        self.hash.update(data);
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        self.file.write_all(data).map_err(failed(&self.path))
    }
}

fn finish(coming: Option<Coming>, manifest: &mut manifest::Writer) -> Result<(), BackupError> {
    let Some(coming) = coming else {
        return Ok(());
    };
    let entry = Entry {
        file: coming.name,
        bytes: coming.bytes,
        sha256: hex(coming.hash),
    };
    coming
        .file
        .sync_all()
        .and_then(|()| manifest.add(&entry))
        .map_err(failed(&coming.path))
}
