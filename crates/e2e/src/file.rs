//! A file that is too large for a message: what the recipient is told about it, and how its chunks are sealed (docs/protocol.md §15).
//!
//! ```text
//! file ── zeros up to Padmé(size) ──> chunks of 65,536 bytes ── seal_chunk ──> blob on the relay
//! FileOffer { blob, key, size, sha256, name, media type } ── in a message ──> recipient ── open_chunk ──> file
//! ```
//!
//! Reading and writing, the blob's way to the relay and back, and the check of the file's hash are for whoever has the file.

use alloc::vec::Vec;
use core::{fmt, ops::RangeInclusive};

use sealwire_protocol::codec::{DecodeError, Reader, Writer};
use sealwire_protocol::crypto::{AeadError, AeadKey, NONCE_BYTES, Secret, TAG_BYTES};
use sealwire_protocol::limits::{FILE_CHUNK_BYTES, SEALED_FILE_CHUNK_BYTES};

use crate::content::is_media_type;
use crate::schedule::FILE_PREFIX;

/// The media type of a message whose body is a [`FileOffer`] (docs/protocol.md §15).
pub const FILE_MEDIA_TYPE: &str = "application/vnd.sealwire.file";

/// Length of a blob's name, in bytes.
pub const BLOB_ID_LEN: usize = 32;

const VERSION: u8 = 1;
const NAME: RangeInclusive<usize> = 1..=255;
const MEDIA_TYPE: RangeInclusive<usize> = 3..=255;

/// What a recipient is told about a file. It borrows the body it was read from.
///
/// `Debug` shows the size only: whoever has blob and key has the file.
#[derive(PartialEq, Eq)]
pub struct FileOffer<'a> {
    /// The blob that holds the sealed file.
    pub blob: [u8; BLOB_ID_LEN],
    /// The key of its chunks.
    pub key: FileKey,
    /// Bytes of the file, without its padding.
    pub size: u64,
    /// SHA-256 of the file, without its padding.
    pub sha256: [u8; 32],
    /// What the sender calls it: 1 to 255 bytes of UTF-8 without control characters. It is no path: whoever writes a file decides where.
    pub name: &'a str,
    /// Its media type (RFC 6838 §4.2): ASCII, 3 to 255 bytes.
    pub media_type: &'a str,
}

impl<'a> FileOffer<'a> {
    /// Reads the body of a message with [`FILE_MEDIA_TYPE`], strictly (docs/protocol.md §15).
    ///
    /// # Errors
    /// [`FileError`] says what is not of the form; the sender made it.
    pub fn decode(body: &'a [u8]) -> Result<Self, FileError> {
        let mut reader = Reader::new(body);
        if reader.u8()? != VERSION {
            return Err(FileError::Version);
        }
        let blob = *reader.array()?;
        let key = FileKey::from_bytes(reader.array()?);
        let size = reader.u64()?;
        let sha256 = *reader.array()?;
        let name = reader.vec8(NAME)?;
        let media_type = reader.vec8(MEDIA_TYPE)?;
        reader.finish()?;
        let name = core::str::from_utf8(name).map_err(|_| FileError::Name)?;
        let media_type = core::str::from_utf8(media_type).map_err(|_| FileError::MediaType)?;
        let offer = Self {
            blob,
            key,
            size,
            sha256,
            name,
            media_type,
        };
        offer.check()?;
        Ok(offer)
    }

    /// Writes the body of a message with [`FILE_MEDIA_TYPE`]. It holds the key: erase it when it is sent.
    ///
    /// # Errors
    /// [`FileError`] where a field is not what it may be: the caller is to blame.
    pub fn encode(&self) -> Result<Vec<u8>, FileError> {
        self.check()?;
        let mut out = Vec::with_capacity(OVERHEAD + self.name.len() + self.media_type.len());
        let mut writer = Writer::new(&mut out);
        writer
            .u8(VERSION)
            .bytes(&self.blob)
            .bytes(self.key.0.expose())
            .u64(self.size)
            .bytes(&self.sha256);
        writer
            .vec8(self.name.as_bytes(), NAME)
            .map_err(|_| FileError::Name)?;
        writer
            .vec8(self.media_type.as_bytes(), MEDIA_TYPE)
            .map_err(|_| FileError::MediaType)?;
        Ok(out)
    }

    fn check(&self) -> Result<(), FileError> {
        if !NAME.contains(&self.name.len()) || self.name.chars().any(char::is_control) {
            return Err(FileError::Name);
        }
        if !MEDIA_TYPE.contains(&self.media_type.len()) || !is_media_type(self.media_type) {
            return Err(FileError::MediaType);
        }
        // The relay counts in 64 bits, and so must the sealed file.
        sealed_len(self.size).ok_or(FileError::Size)?;
        Ok(())
    }
}

/// Bytes of an offer beside its name and media type.
const OVERHEAD: usize = 1 + BLOB_ID_LEN + 32 + 8 + 32 + 1 + 1;

impl fmt::Debug for FileOffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOffer")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// The key of one file's chunks. Erased on drop, not shown by `Debug`.
#[derive(PartialEq, Eq)]
pub struct FileKey(Secret<32>);

impl FileKey {
    /// A new key, for one file.
    pub fn random(rng: &mut (impl rand_core::CryptoRng + ?Sized)) -> Self {
        Self(Secret::random(rng))
    }

    /// A key out of the encrypted store, or out of an offer.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(Secret::take(&mut { *bytes }))
    }

    /// The bytes, for the encrypted store.
    #[must_use]
    pub const fn expose_for_store(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Seals chunk `index` of the padded file into `iv || ciphertext || tag`. All but the last have 65,536 bytes.
    ///
    /// `iv` is random: a chunk that is sealed again after an interruption may hold something else.
    ///
    /// # Errors
    /// [`AeadError`] if the chunk is longer than 65,536 bytes.
    pub fn seal_chunk(
        &self,
        at: ChunkPlace<'_>,
        iv: [u8; NONCE_BYTES],
        chunk: &[u8],
    ) -> Result<Vec<u8>, AeadError> {
        if chunk.len() > FILE_CHUNK_BYTES {
            return Err(AeadError);
        }
        let mut out = Vec::with_capacity(chunk.len().saturating_add(NONCE_BYTES + TAG_BYTES));
        out.extend_from_slice(&iv);
        out.extend_from_slice(chunk);
        let (_, text) = out.split_at_mut(NONCE_BYTES);
        let tag = self.aead().seal(&iv, &at.aad(), text)?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// Opens a sealed chunk.
    ///
    /// # Errors
    /// [`AeadError`], without detail, if it is not this chunk of this file, sealed with this key.
    pub fn open_chunk(&self, at: ChunkPlace<'_>, sealed: &[u8]) -> Result<Vec<u8>, AeadError> {
        if sealed.len() > SEALED_FILE_CHUNK_BYTES {
            return Err(AeadError);
        }
        let (iv, rest) = sealed.split_first_chunk().ok_or(AeadError)?;
        let (text, tag) = rest.split_last_chunk().ok_or(AeadError)?;
        let mut text = text.to_vec();
        self.aead().open(iv, &at.aad(), &mut text, tag)?;
        Ok(text)
    }

    fn aead(&self) -> AeadKey {
        AeadKey::new(Secret::take(&mut { *self.0.expose() }))
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

/// Which chunk of which blob, so that none can be taken for another (docs/protocol.md §15).
#[derive(Clone, Copy, Debug)]
pub struct ChunkPlace<'a> {
    /// The blob.
    pub blob: &'a [u8; BLOB_ID_LEN],
    /// From 0.
    pub index: u64,
    /// Whether it is the last of the file.
    pub last: bool,
}

impl ChunkPlace<'_> {
    fn aad(&self) -> Vec<u8> {
        let mut aad = Vec::with_capacity(FILE_PREFIX.len() + BLOB_ID_LEN + 8 + 1);
        Writer::new(&mut aad)
            .bytes(FILE_PREFIX)
            .bytes(self.blob)
            .u64(self.index)
            .bool(self.last);
        aad
    }
}

/// Bytes of a file of `size` bytes with its padding: Padmé of them. `None` if it does not fit a `u64`.
#[must_use]
pub fn padded_len(size: u64) -> Option<u64> {
    let Some(exponent) = size.checked_ilog2().filter(|exponent| *exponent > 0) else {
        return Some(size);
    };
    let mantissa_bits = exponent.ilog2() + 1;
    size.checked_next_multiple_of(1 << (exponent - mantissa_bits))
}

/// The number of chunks of a file of `size` bytes: at least one. `None` if its padded length does not fit a `u64`.
#[must_use]
pub fn chunks(size: u64) -> Option<u64> {
    Some(padded_len(size)?.div_ceil(FILE_CHUNK_BYTES as u64).max(1))
}

/// Bytes of the blob that holds a file of `size` bytes. `None` if they do not fit a `u64`.
#[must_use]
pub fn sealed_len(size: u64) -> Option<u64> {
    let overhead = chunks(size)?.checked_mul((NONCE_BYTES + TAG_BYTES) as u64)?;
    padded_len(size)?.checked_add(overhead)
}

/// Why what is said about a file cannot be read, or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// A field is missing, has a length out of bounds, or bytes follow the last one (docs/protocol.md §1.1).
    #[error("what is said about the file is not in its binary form: {0}")]
    Encoding(#[from] DecodeError),
    /// Not version 1.
    #[error(
        "the file is described in another version than 1: one of the two devices needs an update"
    )]
    Version,
    /// The file's size cannot be.
    #[error("the file is larger than any file can be")]
    Size,
    /// The name is not 1 to 255 bytes of UTF-8 without control characters.
    #[error(
        "the file's name is empty, longer than 255 bytes, not UTF-8, or has control characters"
    )]
    Name,
    /// The media type is not one.
    #[error("the file's media type is not of the form type/subtype in ASCII, at most 255 bytes")]
    MediaType,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, string::String, vec};

    const BLOB: [u8; BLOB_ID_LEN] = [0xbb; BLOB_ID_LEN];
    const IV: [u8; NONCE_BYTES] = [1; NONCE_BYTES];

    fn key() -> FileKey {
        FileKey::from_bytes(&[0xcc; 32])
    }

    fn offer<'a>(size: u64, name: &'a str, media_type: &'a str) -> FileOffer<'a> {
        FileOffer {
            blob: BLOB,
            key: key(),
            size,
            sha256: [0xdd; 32],
            name,
            media_type,
        }
    }

    const FIRST: ChunkPlace<'_> = ChunkPlace {
        blob: &BLOB,
        index: 0,
        last: false,
    };

    /// docs/protocol.md §15.3
    #[test]
    fn offer_out_of_bounds_is_not_written() {
        let long = "n".repeat(256);
        let media_type = format!("a/b;{}", "c".repeat(252));
        for (offer, error) in [
            (offer(1, "", "a/b"), FileError::Name),
            (offer(1, &long, "a/b"), FileError::Name),
            (offer(1, "a\nb", "a/b"), FileError::Name),
            (offer(1, "a\u{9f}b", "a/b"), FileError::Name),
            (offer(1, "a", ""), FileError::MediaType),
            (offer(1, "a", "a/"), FileError::MediaType),
            (offer(1, "a", "text"), FileError::MediaType),
            (offer(1, "a", &media_type), FileError::MediaType),
            (offer(u64::MAX, "a", "a/b"), FileError::Size),
        ] {
            assert_eq!(offer.encode(), Err(error), "{:?}", offer.name);
        }
    }

    /// docs/protocol.md §1.1
    #[test]
    fn offer_cut_anywhere_is_refused() {
        let bytes = offer(1, "name", "a/b").encode().unwrap();
        for len in 0..bytes.len() {
            assert_eq!(
                FileOffer::decode(&bytes[..len]),
                Err(FileError::Encoding(DecodeError::EndsEarly)),
                "{len}"
            );
        }
    }

    /// docs/protocol.md §15.3
    #[test]
    fn every_undefined_version_of_an_offer_is_refused() {
        let mut bytes = offer(1, "name", "a/b").encode().unwrap();
        for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
            bytes[0] = version;
            assert_eq!(FileOffer::decode(&bytes), Err(FileError::Version));
        }
    }

    #[test]
    fn debug_shows_neither_key_nor_blob_nor_name() {
        assert_eq!(
            format!("{:?} {:?}", offer(5, "name", "a/b"), key()),
            "FileOffer { size: 5, .. } FileKey(..)"
        );
    }

    /// docs/protocol.md §15.2, §12
    #[test]
    fn chunk_over_65536_bytes_is_neither_sealed_nor_opened() {
        let mut chunk = vec![7; FILE_CHUNK_BYTES];
        let sealed = key().seal_chunk(FIRST, IV, &chunk).unwrap();
        assert_eq!(sealed.len(), SEALED_FILE_CHUNK_BYTES);
        assert_eq!(key().open_chunk(FIRST, &sealed), Ok(chunk.clone()));
        chunk.push(7);
        assert_eq!(key().seal_chunk(FIRST, IV, &chunk), Err(AeadError));
        let mut forged = chunk;
        let tag = key().aead().seal(&IV, &FIRST.aad(), &mut forged).unwrap();
        let forged = [&IV[..], &forged, &tag].concat();
        assert_eq!(key().open_chunk(FIRST, &forged), Err(AeadError));
    }

    /// docs/protocol.md §15.2
    #[test]
    fn chunk_opens_in_its_place_only() {
        let sealed = key().seal_chunk(FIRST, IV, b"chunk").unwrap();
        assert_eq!(
            key().open_chunk(FIRST, &sealed).as_deref(),
            Ok(&b"chunk"[..])
        );
        let other = [0xba; BLOB_ID_LEN];
        for place in [
            ChunkPlace { index: 1, ..FIRST },
            ChunkPlace {
                last: true,
                ..FIRST
            },
            ChunkPlace {
                blob: &other,
                ..FIRST
            },
        ] {
            assert_eq!(
                key().open_chunk(place, &sealed),
                Err(AeadError),
                "{place:?}"
            );
        }
        let other = FileKey::from_bytes(&[0xcd; 32]);
        assert_eq!(other.open_chunk(FIRST, &sealed), Err(AeadError));
    }

    /// docs/protocol.md §15.2
    #[test]
    fn chunk_cut_anywhere_is_refused() {
        let sealed = key().seal_chunk(FIRST, IV, b"chunk").unwrap();
        for len in 0..sealed.len() {
            assert_eq!(
                key().open_chunk(FIRST, &sealed[..len]),
                Err(AeadError),
                "{len}"
            );
        }
    }

    /// docs/protocol.md §15.2: the padding is that of messages, for sizes of files.
    #[test]
    fn padding_is_that_of_messages() {
        for size in (0..2_000).chain(65_000..66_000) {
            let padded = padded_len(size as u64).map(|len| usize::try_from(len).unwrap());
            assert_eq!(padded, crate::padding::padme(size));
        }
        assert_eq!(padded_len(u64::MAX), None);
        assert_eq!(sealed_len(u64::MAX), None);
    }

    /// docs/protocol.md §15.2
    #[test]
    fn empty_file_has_one_chunk() {
        assert_eq!((chunks(0), sealed_len(0)), (Some(1), Some(28)));
    }

    /// docs/protocol.md §15.2: iv and ciphertext lie as the section says.
    #[test]
    fn sealed_chunk_begins_with_its_iv() {
        let sealed = key().seal_chunk(FIRST, IV, b"chunk").unwrap();
        assert_eq!(sealed[..NONCE_BYTES], IV);
        assert_eq!(sealed.len(), NONCE_BYTES + 5 + TAG_BYTES);
        assert!(!String::from_utf8_lossy(&sealed).contains("chunk"));
    }
}
