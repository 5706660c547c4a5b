//! A file and its blob: where each chunk lies in both, and how it is sealed and opened (docs/protocol.md §15).
//!
//! ```text
//!  file ── zeros up to Padmé ──▶ chunks of 65,536 ── e2e: iv || ciphertext || tag, bound to blob, index, last ──▶ blob
//! ```
//! No file is touched here, and no clock. A chunk that opens says that somebody who knows the key made it, as this chunk of this blob; only the
//! SHA-256 in the message that names the file says that it is what the sender meant, as AES-GCM does not commit to its key.
//!
//! The iv is random for every sealing, so that chunks may be sealed again after a crash, whatever the file holds by then, and no (key, iv)
//! pair repeats. A file has at most 2^24 chunks: far below the 2^32 sealings under one key that random ivs are good for.
use std::fmt;

use rand::CryptoRng;
use sealwire_e2e::file::{BLOB_ID_LEN, ChunkPlace, FileKey, padded_len};
use sealwire_protocol::crypto::{NONCE_BYTES, TAG_BYTES};
use sealwire_protocol::limits::{FILE_CHUNK_BYTES, SEALED_FILE_CHUNK_BYTES};
use zeroize::Zeroizing;

/// Bytes of the largest file: 1 TiB.
pub(crate) const MAX_FILE_BYTES: u64 = 1 << 40;

const CHUNK: u64 = FILE_CHUNK_BYTES as u64;
const SEALED_CHUNK: u64 = SEALED_FILE_CHUNK_BYTES as u64;
/// Bytes that sealing adds to a chunk.
const OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

/// What names a blob at the relay: 32 random bytes.
pub(crate) type BlobId = [u8; BLOB_ID_LEN];

/// How a file of a certain size lies in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    size: u64,
    padded: u64,
    chunks: u64,
}

impl Shape {
    /// Of a file of `size` bytes; `None` if it is larger than [`MAX_FILE_BYTES`].
    pub(crate) fn new(size: u64) -> Option<Self> {
        if size > MAX_FILE_BYTES {
            return None;
        }
        let padded = padded_len(size)?;
        // An empty file has one chunk too: that it is empty is sealed as well.
        let chunks = padded.div_ceil(CHUNK).max(1);
        Some(Self {
            size,
            padded,
            chunks,
        })
    }

    /// Bytes of the file.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Chunks, at least one.
    pub(crate) const fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Bytes of the blob.
    pub(crate) const fn blob_bytes(&self) -> u64 {
        // Both are far from 2^63, as the size is.
        self.padded
            .saturating_add(self.chunks.saturating_mul(OVERHEAD as u64))
    }

    /// Where chunk `index` begins in the blob; for `index` = [`chunks`](Self::chunks), where the blob ends.
    pub(crate) fn blob_offset(&self, index: u64) -> u64 {
        index.saturating_mul(SEALED_CHUNK).min(self.blob_bytes())
    }

    /// How many chunks end at or before `offset` in the blob, if one ends exactly there (or it is 0).
    pub(crate) fn chunks_before(&self, offset: u64) -> Option<u64> {
        if offset == self.blob_bytes() {
            return Some(self.chunks);
        }
        (offset < self.blob_bytes() && offset.is_multiple_of(SEALED_CHUNK))
            .then_some(offset / SEALED_CHUNK)
    }

    /// Where chunk `index` begins in the file; the file's end if the chunk is all padding.
    pub(crate) fn file_offset(&self, index: u64) -> u64 {
        index.saturating_mul(CHUNK).min(self.size)
    }

    /// How many chunks are whole in the first `length` bytes of the file.
    pub(crate) fn chunks_within(&self, length: u64) -> u64 {
        if length >= self.size {
            self.chunks
        } else {
            length / CHUNK
        }
    }

    /// Bytes of the file in chunk `index`.
    pub(crate) fn file_bytes(&self, index: u64) -> usize {
        let end = self.file_offset(index.saturating_add(1));
        usize::try_from(end.saturating_sub(self.file_offset(index))).unwrap_or(FILE_CHUNK_BYTES)
    }

    /// Bytes of chunk `index`, with padding; 0 beyond the last.
    pub(crate) fn chunk_bytes(&self, index: u64) -> usize {
        let left = self.padded.saturating_sub(index.saturating_mul(CHUNK));
        usize::try_from(left)
            .unwrap_or(FILE_CHUNK_BYTES)
            .min(FILE_CHUNK_BYTES)
    }

    fn is_last(&self, index: u64) -> bool {
        index.saturating_add(1) == self.chunks
    }
}

/// Seals and opens the chunks of one file.
pub(crate) struct FileCipher {
    key: FileKey,
    blob: BlobId,
    shape: Shape,
}

impl FileCipher {
    /// For the file in `blob`, of this shape, under its key.
    pub(crate) fn new(key: FileKey, blob: BlobId, shape: Shape) -> Self {
        Self { key, blob, shape }
    }

    /// The blob.
    pub(crate) const fn blob(&self) -> &BlobId {
        &self.blob
    }

    /// The file's shape.
    pub(crate) const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Seals the bytes of the file that are in chunk `index`: exactly [`Shape::file_bytes`] of them.
    ///
    /// # Errors
    /// [`WrongLength`] if it is another number of bytes, or there is no such chunk.
    pub(crate) fn seal(
        &self,
        index: u64,
        bytes: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, WrongLength> {
        if index >= self.shape.chunks || bytes.len() != self.shape.file_bytes(index) {
            return Err(WrongLength);
        }
        let mut iv = [0; NONCE_BYTES];
        rng.fill_bytes(&mut iv);
        let length = self.shape.chunk_bytes(index);
        let place = self.place(index);
        let sealed = if length == bytes.len() {
            self.key.seal_chunk(place, iv, bytes)
        } else {
            let mut padded = Zeroizing::new(Vec::with_capacity(length));
            padded.extend_from_slice(bytes);
            padded.resize(length, 0);
            self.key.seal_chunk(place, iv, &padded)
        };
        sealed.map_err(|_| WrongLength)
    }

    /// Opens chunk `index` and gives the bytes of the file that are in it.
    ///
    /// # Errors
    /// [`NotThisChunk`], whatever is wrong: its length, its tag, or that its padding is not zeros.
    pub(crate) fn open(&self, index: u64, sealed: &[u8]) -> Result<Vec<u8>, NotThisChunk> {
        if index >= self.shape.chunks || sealed.len() != self.shape.chunk_bytes(index) + OVERHEAD {
            return Err(NotThisChunk);
        }
        let mut bytes = self
            .key
            .open_chunk(self.place(index), sealed)
            .map_err(|_| NotThisChunk)?;
        let length = self.shape.file_bytes(index);
        let padding = bytes.get(length..).ok_or(NotThisChunk)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(NotThisChunk);
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn place(&self, index: u64) -> ChunkPlace<'_> {
        ChunkPlace {
            blob: &self.blob,
            index,
            last: self.shape.is_last(index),
        }
    }
}

impl fmt::Debug for FileCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileCipher")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}

/// What was to be sealed is not what the file's size says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file has changed its size")]
pub(crate) struct WrongLength;

/// What was to be opened is not that chunk of that file. There is no detail on purpose (docs/protocol.md §13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the file does not open; ask its sender to send it again")]
pub(crate) struct NotThisChunk;

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    const BLOB: BlobId = [7; 32];

    fn rng() -> StdRng {
        StdRng::seed_from_u64(1)
    }

    fn key(byte: u8) -> FileKey {
        FileKey::from_bytes(&[byte; 32])
    }

    fn cipher(size: u64) -> FileCipher {
        FileCipher::new(key(1), BLOB, Shape::new(size).unwrap())
    }

    fn file(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at % 251) as u8 + 1).collect()
    }

    /// The file's chunks, sealed.
    fn sealed(cipher: &FileCipher) -> Vec<Vec<u8>> {
        let (shape, file) = (cipher.shape, file(cipher.shape.size));
        (0..shape.chunks)
            .map(|index| {
                let start = usize::try_from(shape.file_offset(index)).unwrap();
                let bytes = &file[start..start + shape.file_bytes(index)];
                cipher.seal(index, bytes, &mut rng()).unwrap()
            })
            .collect()
    }

    /// Sizes around every edge of the layout.
    const SIZES: [u64; 12] = [
        0, 1, 2, 28, 1_000, 65_535, 65_536, 65_537, 70_000, 131_072, 200_001, 1_000_003,
    ];

    /// docs/protocol.md §15
    #[test]
    fn file_of_any_size_comes_back() {
        for size in SIZES {
            let cipher = cipher(size);
            let mut back = Vec::new();
            let mut bytes = 0;
            for (index, chunk) in sealed(&cipher).into_iter().enumerate() {
                assert_eq!(bytes, cipher.shape.blob_offset(index as u64), "{size}");
                assert_eq!(cipher.shape.chunks_before(bytes), Some(index as u64));
                bytes += chunk.len() as u64;
                back.extend_from_slice(&cipher.open(index as u64, &chunk).unwrap());
            }
            assert_eq!(back, file(size), "{size}");
            assert_eq!(bytes, cipher.shape.blob_bytes(), "{size}");
            assert_eq!(
                cipher.shape.chunks_before(bytes),
                Some(cipher.shape.chunks())
            );
        }
    }

    /// docs/protocol.md §15: what the relay sees is Padmé of the size, and the overhead of each chunk.
    #[test]
    fn blob_shows_only_the_padded_size() {
        for (size, bytes) in [
            (0, 28),
            (1, 29),
            (65_536, 65_564),
            // Padmé(65,537) = 67,584
            (65_537, 67_584 + 2 * 28),
            (67_584, 67_584 + 2 * 28),
            (1 << 31, (1 << 31) + 32_768 * 28),
        ] {
            assert_eq!(Shape::new(size).unwrap().blob_bytes(), bytes, "{size}");
        }
        assert_eq!(Shape::new(MAX_FILE_BYTES + 1), None);
        assert_eq!(Shape::new(u64::MAX), None);
        assert!(Shape::new(MAX_FILE_BYTES).unwrap().chunks() <= 1 << 24);
    }

    #[test]
    fn only_the_ends_of_chunks_are_places_to_go_on_from() {
        let shape = Shape::new(200_000).unwrap();
        let ends: Vec<u64> = (0..=shape.blob_bytes() + 1)
            .filter(|offset| shape.chunks_before(*offset).is_some())
            .collect();
        let expected: Vec<u64> = (0..=shape.chunks())
            .map(|index| shape.blob_offset(index))
            .collect();
        assert_eq!(ends, expected);
    }

    /// docs/protocol.md §15: every chunk has its place.
    #[test]
    fn chunk_at_another_index_does_not_open() {
        let cipher = cipher(1_000_003);
        let sealed = sealed(&cipher);
        for (index, chunk) in sealed.iter().enumerate() {
            for other in (0..cipher.shape.chunks).filter(|other| *other != index as u64) {
                assert_eq!(
                    cipher.open(other, chunk),
                    Err(NotThisChunk),
                    "{index} at {other}"
                );
            }
        }
    }

    /// docs/protocol.md §15: the last chunk says so, so that a file cannot be cut at a chunk's end.
    #[test]
    fn chunk_of_a_longer_file_is_not_the_last_of_a_shorter() {
        let long = cipher(4 * CHUNK);
        let short = FileCipher::new(key(1), BLOB, Shape::new(2 * CHUNK).unwrap());
        let second = sealed(&long).remove(1);
        assert_eq!(short.open(1, &second), Err(NotThisChunk));
        assert!(long.open(1, &second).is_ok());
        let last = sealed(&short).remove(1);
        assert_eq!(long.open(1, &last), Err(NotThisChunk));
    }

    /// docs/protocol.md §15
    #[test]
    fn chunk_of_another_blob_or_key_does_not_open() {
        let chunk = sealed(&cipher(10)).remove(0);
        let shape = Shape::new(10).unwrap();
        for (key, blob) in [(key(2), BLOB), (key(1), [8; 32])] {
            let other = FileCipher::new(key, blob, shape);
            assert_eq!(other.open(0, &chunk), Err(NotThisChunk));
        }
        assert!(cipher(10).open(0, &chunk).is_ok());
    }

    #[test]
    fn every_flipped_bit_of_a_chunk_is_noticed() {
        let cipher = cipher(40);
        let chunk = sealed(&cipher).remove(0);
        for bit in 0..chunk.len() * 8 {
            let mut flipped = chunk.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(cipher.open(0, &flipped), Err(NotThisChunk), "{bit}");
        }
    }

    #[test]
    fn chunk_cut_or_extended_does_not_open() {
        let cipher = cipher(40);
        let chunk = sealed(&cipher).remove(0);
        for length in (0..chunk.len() + 40).filter(|length| *length != chunk.len()) {
            let mut other = chunk.clone();
            other.resize(length, 0);
            assert_eq!(cipher.open(0, &other), Err(NotThisChunk), "{length}");
        }
        assert_eq!(cipher.open(1, &chunk), Err(NotThisChunk));
        assert_eq!(cipher.open(u64::MAX, &chunk), Err(NotThisChunk));
    }

    /// docs/protocol.md §15: the padding is zeros, so nothing travels in it.
    #[test]
    fn padding_that_is_not_zeros_is_refused() {
        // 70,000 is padded to 71,680, and 71,680 to itself: one file's content is the other's padding.
        let honest = cipher(70_000);
        let other = cipher(71_680);
        assert_eq!(honest.shape.blob_bytes(), other.shape.blob_bytes());
        let last = sealed(&other).remove(1);
        assert_eq!(honest.open(1, &last), Err(NotThisChunk));
    }

    #[test]
    fn what_is_not_of_the_files_length_is_not_sealed() {
        let cipher = cipher(70_000);
        for (index, length) in [(0, 65_535), (0, 65_537), (1, 4_463), (1, 4_465), (2, 0)] {
            assert_eq!(
                cipher.seal(index, &vec![0; length], &mut rng()),
                Err(WrongLength),
                "{index}, {length}"
            );
        }
    }

    /// docs/protocol.md §15: a chunk that is sealed again has another iv.
    #[test]
    fn sealing_again_repeats_no_iv() {
        let (cipher, mut rng) = (cipher(10), rng());
        let first = cipher.seal(0, &file(10), &mut rng).unwrap();
        let second = cipher.seal(0, &file(10), &mut rng).unwrap();
        assert_ne!(first[..NONCE_BYTES], second[..NONCE_BYTES]);
    }

    #[test]
    fn debug_shows_nothing_secret() {
        assert_eq!(
            format!("{:?}", cipher(1)),
            "FileCipher { shape: Shape { size: 1, padded: 1, chunks: 1 }, .. }"
        );
    }
}
