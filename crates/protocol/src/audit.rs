//! For tests: counts what this thread seals, and how often a key and a nonce are used together again. Behind the feature `audit`.
//!
//! ```text
//! start() ──┬── AeadKey::seal, of handshakes, records, messages and files ──┬──> sealed(), repeats()
//!           └── note(), of whoever seals with another AES-GCM than ours ────┘
//! ```
//!
//! A simulation that runs devices and relays in one thread shows with it that no (key, nonce) pair is used twice, whatever is lost, put
//! back or repeated. It keeps SHA-256(key) || nonce of every sealing, 44 bytes each, until the next [`start`]: never enable it in an
//! application. Opening counts for nothing.

use core::cell::RefCell;
use std::collections::HashSet;
use std::thread_local;

use crate::crypto::{NONCE_BYTES, sha256};

/// SHA-256 of a key.
pub(crate) type KeyId = [u8; 32];

thread_local! {
    static SEALS: RefCell<Option<Seals>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Seals {
    pairs: HashSet<(KeyId, [u8; NONCE_BYTES])>,
    repeats: u64,
}

/// Begins to count on this thread, from zero.
pub fn start() {
    SEALS.set(Some(Seals::default()));
}

/// How often something was sealed on this thread since [`start`]; 0 without it.
#[must_use]
pub fn sealed() -> u64 {
    read(|seals| seals.repeats.saturating_add(seals.pairs.len() as u64))
}

/// How often that was with a key and a nonce that had been used together before; 0 without [`start`].
#[must_use]
pub fn repeats() -> u64 {
    read(|seals| seals.repeats)
}

fn read(count: impl FnOnce(&Seals) -> u64) -> u64 {
    SEALS.with_borrow(|seals| seals.as_ref().map_or(0, count))
}

/// Counts a sealing outside [`crypto`](crate::crypto), such as that of a record of a device store.
pub fn note(key: &[u8; 32], nonce: &[u8; NONCE_BYTES]) {
    record(&key_id(key), nonce);
}

pub(crate) fn key_id(key: &[u8; 32]) -> KeyId {
    sha256(&[key])
}

pub(crate) fn record(key: &KeyId, nonce: &[u8; NONCE_BYTES]) {
    SEALS.with_borrow_mut(|seals| {
        if let Some(seals) = seals
            && !seals.pairs.insert((*key, *nonce))
        {
            seals.repeats = seals.repeats.saturating_add(1);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{AeadKey, Secret};

    fn key(byte: u8) -> AeadKey {
        AeadKey::new(Secret::take(&mut [byte; 32]))
    }

    #[test]
    fn only_a_key_and_a_nonce_together_are_a_repetition() {
        let seal =
            |key: &AeadKey, nonce| key.seal(&[nonce; NONCE_BYTES], b"", &mut [0; 4]).unwrap();
        let one = key(1);
        seal(&one, 0);
        assert_eq!((sealed(), repeats()), (0, 0), "before start");
        start();
        seal(&one, 1);
        seal(&one, 2);
        seal(&key(2), 1);
        assert_eq!((sealed(), repeats()), (3, 0));
        // The same key, expanded again.
        seal(&key(1), 1);
        assert_eq!((sealed(), repeats()), (4, 1));
        start();
        seal(&one, 1);
        assert_eq!((sealed(), repeats()), (1, 0));
    }

    #[test]
    fn what_others_seal_is_a_repetition_too() {
        start();
        note(&[1; 32], &[1; NONCE_BYTES]);
        note(&[1; 32], &[2; NONCE_BYTES]);
        assert_eq!((sealed(), repeats()), (2, 0));
        key(1).seal(&[2; NONCE_BYTES], b"", &mut [0; 4]).unwrap();
        assert_eq!((sealed(), repeats()), (3, 1));
    }

    #[test]
    fn opening_counts_for_nothing() {
        start();
        let mut text = [0; 4];
        let tag = key(1).seal(&[0; NONCE_BYTES], b"", &mut text).unwrap();
        key(1)
            .open(&[0; NONCE_BYTES], b"", &mut text, &tag)
            .unwrap();
        assert_eq!((sealed(), repeats()), (1, 0));
    }
}
