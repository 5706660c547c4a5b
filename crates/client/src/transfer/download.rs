//! Fetches a file from the relay, chunk by chunk, and puts it into its place once all of it is right.
//!
//! ```text
//!  at most 8 chunks asked for ──▶ opened in order ──▶ hash, part ── all there, SHA-256 right ──▶ the file's place
//! ```
//! Going on begins with hashing what the part holds. If the hash of the whole is wrong although every chunk opened, the part may have been the cause: it is
//! fetched once more from its start.

use std::collections::BTreeMap;
use std::path::Path;

use rand::CryptoRng;
use sealwire_e2e::file::FileKey;
use sealwire_protocol::close::RefusalCode;
use sha2::{Digest as _, Sha256};

use super::chunks::{BlobId, FileCipher, Shape};
use super::error::{End, FileError};
use super::part::{self, Part};
use super::port::{Ask, MAX_OPEN, NoAnswer, Port, Stopped, Told};
use super::upload::{rest, unexpected};
use crate::engine::refusal;
use crate::error::Error;

/// Times that the relay may refuse for the moment, or give less than it should, until it is believed.
const MAX_TRIES: u32 = 8;

/// What is to be fetched.
pub(crate) struct Wanted {
    pub(crate) blob: BlobId,
    pub(crate) key: FileKey,
    pub(crate) size: u64,
    pub(crate) sha256: [u8; 32],
}

/// Fetches a file, or the rest of it, to `place`. `progress` is told how many bytes of it are here.
pub(crate) fn download(
    wanted: Wanted,
    place: &Path,
    port: &mut impl Port,
    rng: &mut impl CryptoRng,
    progress: &mut impl FnMut(u64),
) -> Result<(), End> {
    let shape = Shape::new(wanted.size).ok_or(FileError::Damaged)?;
    progress(0);
    if part::is_there(place, wanted.size, &wanted.sha256)? {
        progress(wanted.size);
        return Ok(());
    }
    let cipher = FileCipher::new(wanted.key, wanted.blob, shape);
    let mut part = Part::open(place, &wanted.blob)?;
    // Only whole chunks are gone on from, and one at least has to open.
    let last = shape.chunks().saturating_sub(1);
    let mut chunks = shape.chunks_within(part.length()).min(last);
    loop {
        let begun_at = shape.file_offset(chunks);
        let hash = part.continue_at(begun_at).map_err(FileError::Write)?;
        progress(begun_at);
        let mut download = Download {
            cipher: &cipher,
            part: &mut part,
            hash,
            next: chunks,
            opened: BTreeMap::new(),
            tries: 0,
        };
        let outcome = download.run(port, rng, progress);
        let hash = download.hash;
        if matches!(outcome, Err(End::Failed(Error::File(FileError::Damaged)))) {
            part.discard();
            return outcome;
        }
        outcome?;
        if <[u8; 32]>::from(hash.finalize()) == wanted.sha256 {
            return Ok(part.finish()?);
        }
        if begun_at == 0 {
            part.discard();
            return Err(FileError::Damaged.into());
        }
        chunks = 0;
    }
}

struct Download<'a> {
    cipher: &'a FileCipher,
    part: &'a mut Part,
    /// Of what is in the part.
    hash: Sha256,
    /// The next chunk to be written.
    next: u64,
    /// Chunks that came before their turn.
    opened: BTreeMap<u64, Vec<u8>>,
    /// Refusals since a chunk last came.
    tries: u32,
}

/// Why asking was interrupted.
enum Interruption {
    LinkLost,
    Refused(RefusalCode),
    /// The relay has not got so much of it.
    Short,
}

impl Download<'_> {
    fn run(
        &mut self,
        port: &mut impl Port,
        rng: &mut impl CryptoRng,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), End> {
        loop {
            match self.fetch(port, progress)? {
                None => return Ok(()),
                Some(Interruption::LinkLost) => {}
                Some(Interruption::Refused(code)) => self.try_again(code, port, rng)?,
                Some(Interruption::Short) => {
                    self.try_again(RefusalCode::UnknownBlob, port, rng)?;
                }
            }
        }
    }

    /// Asks for what is missing, to the end or an interruption.
    fn fetch(
        &mut self,
        port: &mut impl Port,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<Interruption>, End> {
        let shape = *self.cipher.shape();
        let mut index = self.next;
        let mut open = 0_usize;
        let mut interruption = None;
        self.opened.clear();
        loop {
            // What came before its turn counts too: no more than this is ever in memory.
            while open + self.opened.len() < MAX_OPEN
                && index < shape.chunks()
                && interruption.is_none()
            {
                let start = shape.blob_offset(index);
                let length = shape.blob_offset(index.saturating_add(1)) - start;
                port.ask(
                    index,
                    Ask::Download {
                        blob: *self.cipher.blob(),
                        offset: start,
                        // A sealed chunk has at most 65,564 bytes.
                        length: u32::try_from(length).unwrap_or(u32::MAX),
                    },
                )?;
                open += 1;
                index += 1;
            }
            if open == 0 {
                return Ok(interruption);
            }
            let (number, answer) = port.wait()?;
            open = open.saturating_sub(1);
            let interrupted = match answer {
                Ok(Told::Blob { size, .. }) if size != shape.blob_bytes() => {
                    return Err(FileError::Damaged.into());
                }
                Ok(Told::Blob { data, .. }) => self.take(number, &data, progress)?,
                Ok(Told::Accepted) => return Err(unexpected()),
                Err(NoAnswer::Refused(code)) => Some(Interruption::Refused(code)),
                Err(NoAnswer::LinkLost) => Some(Interruption::LinkLost),
                Err(NoAnswer::Closed) => return Err(Stopped::Closed.into()),
            };
            if let Some(interrupted) = interrupted {
                interruption.get_or_insert(interrupted);
            }
        }
    }

    /// Opens a chunk, and writes what is in turn.
    fn take(
        &mut self,
        index: u64,
        sealed: &[u8],
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<Interruption>, End> {
        let shape = *self.cipher.shape();
        let expected = shape.blob_offset(index.saturating_add(1)) - shape.blob_offset(index);
        if (sealed.len() as u64) < expected {
            return Ok(Some(Interruption::Short));
        }
        let bytes = self
            .cipher
            .open(index, sealed)
            .map_err(|_| FileError::Damaged)?;
        self.tries = 0;
        self.opened.insert(index, bytes);
        while let Some(bytes) = self.opened.remove(&self.next) {
            self.part.append(&bytes).map_err(FileError::Write)?;
            self.hash.update(&bytes);
            self.next += 1;
            progress(shape.file_offset(self.next));
        }
        Ok(None)
    }

    fn try_again(
        &mut self,
        code: RefusalCode,
        port: &mut impl Port,
        rng: &mut impl CryptoRng,
    ) -> Result<(), End> {
        let passing = matches!(code, RefusalCode::RateLimited | RefusalCode::Unavailable);
        self.tries = self.tries.saturating_add(1);
        if passing && self.tries <= MAX_TRIES {
            return Ok(port.rest(rest(self.tries, rng))?);
        }
        Err(if code == RefusalCode::UnknownBlob {
            FileError::Gone.into()
        } else {
            End::Failed(Error::Refused(refusal(code)))
        })
    }
}
