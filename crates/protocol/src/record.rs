//! Records: one direction of a link after the handshake (docs/protocol.md §4).
//!
//! ```text
//! secret ──> key, iv ──> record 0, record 1, ... up to the soft limit
//!    │
//!    └─ next ─> secret ──> key, iv ──> the following records
//! ```
//!
//! A [`Sealer`] and the [`Opener`] at the other end count alike and so change keys at the same record. Both work in place. What
//! the plaintext means is for [`crate::frame`].

use alloc::vec::Vec;

use crate::codec::DecodeError;
use crate::crypto::{NONCE_BYTES, Secret, TAG_BYTES};
use crate::error::{Exhausted, LinkError, Malformed, Misbehaviour, Misuse, Part};
use crate::limits::{
    HARD_KEY_BYTES, HARD_KEY_RECORDS, MAX_LINK_RECORDS, MAX_RECORD_PLAINTEXT_BYTES, SOFT_KEY_BYTES,
    SOFT_KEY_RECORDS,
};
use crate::schedule::{KeyAndIv, RecordSecret, next_record_secret, record_key};

/// The type byte of a record, and its AAD.
pub(crate) const RECORD_TYPE: u8 = 4;

/// How much a key and a direction may carry. Both ends have to use the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    /// Records after which the key is replaced.
    pub(crate) soft_records: u64,
    /// Bytes of `ciphertext || tag` after which the key is replaced.
    pub(crate) soft_bytes: u64,
    /// Records after which the key refuses.
    pub(crate) hard_records: u64,
    /// Bytes that the key refuses to exceed.
    pub(crate) hard_bytes: u64,
    /// Records after which the direction ends.
    pub(crate) link_records: u64,
}

impl Default for KeyLimits {
    /// The limits of docs/protocol.md §4: what every link uses.
    fn default() -> Self {
        Self {
            soft_records: SOFT_KEY_RECORDS,
            soft_bytes: SOFT_KEY_BYTES,
            hard_records: HARD_KEY_RECORDS,
            hard_bytes: HARD_KEY_BYTES,
            link_records: MAX_LINK_RECORDS,
        }
    }
}

/// Seals the records of one direction.
#[derive(Debug)]
pub(crate) struct Sealer(Keys);

impl Sealer {
    pub(crate) fn new(secret: RecordSecret, limits: KeyLimits) -> Self {
        Self(Keys::new(secret, limits))
    }

    /// Seals in place. `record` is the type byte and the plaintext; the tag is appended.
    ///
    /// Refuses what the opener would refuse for its length, and to exceed the limits. `record` and the sealer are then as they were.
    pub(crate) fn seal(&mut self, record: &mut Vec<u8>) -> Result<(), LinkError> {
        let [type_byte, plaintext @ ..] = record.as_mut_slice() else {
            return Err(Misuse::EmptyBatch.into());
        };
        if *type_byte != RECORD_TYPE || plaintext.is_empty() {
            return Err(Misuse::EmptyBatch.into());
        }
        if plaintext.len() > MAX_RECORD_PLAINTEXT_BYTES {
            return Err(Misuse::BatchFull.into());
        }
        let sealed_bytes = plaintext.len().saturating_add(TAG_BYTES);
        let nonce = self.0.next_nonce(sealed_bytes)?;
        let tag = self
            .0
            .current
            .key
            .seal(&nonce, &[RECORD_TYPE], plaintext)
            .map_err(|_| Misuse::BatchFull)?;
        record.extend_from_slice(&tag);
        self.0.count(sealed_bytes);
        Ok(())
    }
}

/// Opens the records of one direction, in order only.
#[derive(Debug)]
pub(crate) struct Opener(Keys);

impl Opener {
    pub(crate) fn new(secret: RecordSecret, limits: KeyLimits) -> Self {
        Self(Keys::new(secret, limits))
    }

    /// Opens in place and returns the plaintext. After a failure `record` and the opener are as they were; the link has ended all the same.
    pub(crate) fn open<'m>(&mut self, record: &'m mut [u8]) -> Result<&'m [u8], LinkError> {
        let malformed = |defect| Malformed::Encoding {
            part: Part::Record,
            defect,
        };
        let (type_byte, sealed) = record
            .split_first_mut()
            .ok_or(malformed(DecodeError::EndsEarly))?;
        if *type_byte != RECORD_TYPE {
            return Err(malformed(DecodeError::UnknownValue).into());
        }
        let sealed_bytes = sealed.len();
        let (plaintext, tag) = sealed
            .split_last_chunk_mut()
            .ok_or(malformed(DecodeError::EndsEarly))?;
        if plaintext.len() > MAX_RECORD_PLAINTEXT_BYTES {
            return Err(Misbehaviour::RecordTooLarge.into());
        }
        let nonce = self.0.next_nonce(sealed_bytes)?;
        let opened = self
            .0
            .current
            .key
            .open(&nonce, &[RECORD_TYPE], plaintext, tag);
        opened.map_err(|_| Misbehaviour::DoesNotOpen)?;
        self.0.count(sealed_bytes);
        Ok(plaintext)
    }
}

/// The keys of one direction, and the counts that both ends keep alike.
#[derive(Debug)]
struct Keys {
    secret: RecordSecret,
    current: KeyAndIv,
    limits: KeyLimits,
    /// The next record's number in this direction. Never reset.
    sequence: u64,
    /// Records and bytes under the current key.
    records: u64,
    bytes: u64,
}

impl Keys {
    fn new(secret: RecordSecret, limits: KeyLimits) -> Self {
        let current = record_key(&secret);
        Self {
            secret,
            current,
            limits,
            sequence: 0,
            records: 0,
            bytes: 0,
        }
    }

    /// The nonce for the next record, if the limits allow one of this size (docs/protocol.md §4).
    fn next_nonce(&self, sealed_bytes: usize) -> Result<[u8; NONCE_BYTES], Exhausted> {
        if self.sequence >= self.limits.link_records {
            return Err(Exhausted::Sequence);
        }
        let bytes = self.bytes.saturating_add(widen(sealed_bytes));
        if self.records >= self.limits.hard_records || bytes > self.limits.hard_bytes {
            return Err(Exhausted::Key);
        }
        Ok(nonce(&self.current.iv, self.sequence))
    }

    /// Counts a record that was sealed or opened, and changes the key after the one that reaches a soft limit.
    fn count(&mut self, sealed_bytes: usize) {
        self.sequence = self.sequence.saturating_add(1);
        self.records = self.records.saturating_add(1);
        self.bytes = self.bytes.saturating_add(widen(sealed_bytes));
        if self.records >= self.limits.soft_records || self.bytes >= self.limits.soft_bytes {
            // Assigning drops, and so erases, the secret and the key before.
            self.secret = next_record_secret(&self.secret);
            self.current = record_key(&self.secret);
            self.records = 0;
            self.bytes = 0;
        }
    }
}

/// `iv XOR (0^4 || u64 sequence)`.
fn nonce(iv: &Secret<NONCE_BYTES>, sequence: u64) -> [u8; NONCE_BYTES] {
    let mut nonce = *iv.expose();
    for (byte, counter) in nonce.iter_mut().rev().zip(sequence.to_le_bytes()) {
        *byte ^= counter;
    }
    nonce
}

fn widen(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
