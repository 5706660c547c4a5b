//! What is copied, in the order in which it has to be.
use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::manifest::Head;
use super::{DIRECTORIES, FORMAT_VERSION, MANIFEST_FILE, PIECE_BYTES, Piece, ROWS_FILE, is_name};
use crate::clock;
use crate::data_dir::files;
use crate::shared::Shared;
use crate::storage::{self, STORE_FILE};

/// How long whoever receives may take for a piece. It may have a file to sync.
const PATIENCE: Duration = Duration::from_secs(600);
/// Bytes of a file that is neither mail, blob nor store.
const MAX_SMALL_FILE_BYTES: u64 = 64 << 20;

/// Where the pieces go.
pub(crate) struct Stream {
    pub(crate) pieces: mpsc::Sender<Bytes>,
    pub(crate) runtime: Handle,
}

/// Copies everything that is in the relay's `directory` to `stream`. Blocks, on a thread of its own.
pub(crate) fn send(shared: &Shared, directory: &std::path::Path, stream: &Stream) {
    tracing::info!("a backup is being made");
    match send_all(shared, directory, stream) {
        Ok(()) => tracing::info!("the backup is made"),
        Err(error) => {
            tracing::warn!(%error, "the backup is not made");
            // Whoever asked may have gone.
            let _ = stream.send(Piece::Failed, error.to_string().as_bytes());
        }
    }
}

fn send_all(shared: &Shared, directory: &std::path::Path, stream: &Stream) -> io::Result<()> {
    // First who there is, then what waits for them, then the files that it offers.
    let rows = shared.storage.rows()?;
    let mail = stream.runtime.block_on(shared.mailboxes.snapshot());
    let mail = mail.map_err(|_| {
        io::Error::other("the mail log takes nothing more; stop the relay, and try again")
    })??;
    let blobs = shared.blobs.all();

    let mail_bytes: u64 = mail.files.iter().map(|file| file.bytes).sum();
    let head = Head {
        sealwire_backup: FORMAT_VERSION,
        store_format: storage::FORMAT_VERSION,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        relay: shared.relay_key.thumbprint().to_string(),
        made: clock::now().seconds(),
        about_bytes: mail_bytes.saturating_add(shared.blobs.usage().bytes),
    };
    stream.send(Piece::Head, &serde_json::to_vec(&head)?)?;

    let mut file = stream.file(ROWS_FILE)?;
    rows.write(&mut file)?;
    file.finish()?;
    drop(rows);
    for from in mail.files {
        let mut file = stream.file(&format!("mail/{}", from.name))?;
        let name = &from.name;
        file.copy(from.bytes, |offset, piece| from.read(offset, piece))
            .map_err(|error| io::Error::new(error.kind(), format!("mail/{name}: {error}")))?;
        file.finish()?;
    }
    for blob in blobs {
        // It may have gone meanwhile.
        let Some((name, from)) = shared.blobs.durable(&blob)? else {
            continue;
        };
        let mut file = stream.file(&format!("blobs/{name}"))?;
        file.write_all(&from.head)?;
        file.copy(from.bytes, |offset, piece| from.read(offset, piece))
            .map_err(|error| io::Error::new(error.kind(), format!("blobs/{name}: {error}")))?;
        file.finish()?;
    }
    // What was revoked meanwhile is in it, too.
    send_small(directory, "", stream)?;
    send_small(directory, "invites/", stream)?;
    stream.send(Piece::End, &[])
}

/// Sends what lies in a directory and is neither a store nor half written.
fn send_small(directory: &std::path::Path, part: &str, stream: &Stream) -> io::Result<()> {
    let entries = match fs::read_dir(directory.join(part)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_other = name.starts_with(STORE_FILE)
            || name.ends_with(".new")
            || name == MANIFEST_FILE
            || name == ROWS_FILE
            || DIRECTORIES.contains(&name.as_str());
        let name = format!("{part}{name}");
        if is_other || !is_name(&name) || !entry.file_type()?.is_file() {
            continue;
        }
        let content = match files::read(&entry.path(), MAX_SMALL_FILE_BYTES) {
            Ok(content) => content,
            // An invitation that was redeemed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut file = stream.file(&name)?;
        file.write_all(&content)?;
        file.finish()?;
    }
    Ok(())
}

/// A file that is being sent.
struct Sending<'s> {
    stream: &'s Stream,
    buffer: Vec<u8>,
}

impl Stream {
    fn send(&self, piece: Piece, payload: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(Piece::HEADER_BYTES + payload.len());
        bytes.push(piece.kind());
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(payload);
        let sending = self.pieces.send(bytes.into());
        match self
            .runtime
            .block_on(async { timeout(PATIENCE, sending).await })
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::other("whoever asked for it has gone")),
            Err(_) => Err(io::Error::other("whoever asked for it takes nothing")),
        }
    }

    fn file(&self, name: &str) -> io::Result<Sending<'_>> {
        self.send(Piece::File, name.as_bytes())?;
        Ok(Sending {
            stream: self,
            buffer: Vec::with_capacity(PIECE_BYTES),
        })
    }
}

impl Sending<'_> {
    /// Sends `bytes` that `read` gives, from an offset on.
    fn copy(
        &mut self,
        bytes: u64,
        read: impl Fn(u64, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let left = usize::try_from(bytes - offset).unwrap_or(usize::MAX);
            let length = left.min(piece.len());
            let piece = piece.get_mut(..length).unwrap_or_default();
            read(offset, piece)?;
            self.write_all(piece)?;
            offset += length as u64;
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()
    }
}

impl Write for Sending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES.saturating_sub(self.buffer.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.buffer.extend_from_slice(taken);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            self.stream.send(Piece::Data, &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}
