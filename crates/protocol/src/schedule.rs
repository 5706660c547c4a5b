//! Every key of the link: all its labels and one short function for each derivation (docs/protocol.md §1.4, §3.4, §4).
//!
//! ```text
//! X25519, ML-KEM ──> Prk ──┬─ t1 ─> accept key, iv
//!                          ├─ t2 ─> finish key, iv
//!                          └─ t3 ─> device secret ─┬─> record key, iv
//!                                   relay secret ──┘      └─ next ─> secret ...
//! ```
//!
//! Keys are directional. The labels of what two devices derive are in `sealwire-e2e`.

use crate::crypto::{AeadKey, Label, NONCE_BYTES, Prk, Secret, sha256};

const LINK: Label = Label::new("sealwire/1 link");
const TRANSCRIPT: Label = Label::new("sealwire/1 link transcript");
const ACCEPT_KEY: Label = Label::new("sealwire/1 link accept key");
const ACCEPT_IV: Label = Label::new("sealwire/1 link accept iv");
const FINISH_KEY: Label = Label::new("sealwire/1 link finish key");
const FINISH_IV: Label = Label::new("sealwire/1 link finish iv");
const DEVICE_SECRET: Label = Label::new("sealwire/1 link device secret");
const RELAY_SECRET: Label = Label::new("sealwire/1 link relay secret");
const RECORD_KEY: Label = Label::new("sealwire/1 link record key");
const RECORD_IV: Label = Label::new("sealwire/1 link record iv");
const RECORD_NEXT: Label = Label::new("sealwire/1 link record next");
const REFRESH: Label = Label::new("sealwire/1 link refresh");

/// A transcript hash: t1, t2 or t3 (docs/protocol.md §3.3).
pub(crate) type TranscriptHash = [u8; 32];

/// t1, over the Hello and the Accept up to and without the length of `sealed`.
pub(crate) fn t1(hello: &[u8], accept_head: &[u8]) -> TranscriptHash {
    sha256(&[TRANSCRIPT.as_bytes(), hello, accept_head])
}

/// t2 from t1 and `Accept.sealed`, or t3 from t2 and `Finish.sealed`.
pub(crate) fn next_transcript(transcript: &TranscriptHash, sealed: &[u8]) -> TranscriptHash {
    sha256(&[transcript, sealed])
}

/// What every key of the link comes from.
pub(crate) fn link_prk(x25519: &Secret<32>, kem: &Secret<32>) -> Prk {
    Prk::extract(LINK.as_bytes(), &[x25519.expose(), kem.expose()])
}

/// A key and its iv, for one message or one run of records.
#[derive(Debug)]
pub(crate) struct KeyAndIv {
    pub(crate) key: AeadKey,
    pub(crate) iv: Secret<NONCE_BYTES>,
}

/// Seals `Accept.sealed`.
pub(crate) fn accept_key(prk: &Prk, t1: &TranscriptHash) -> KeyAndIv {
    KeyAndIv {
        key: AeadKey::new(prk.expand(ACCEPT_KEY, t1)),
        iv: prk.expand(ACCEPT_IV, t1),
    }
}

/// Seals `Finish.sealed`.
pub(crate) fn finish_key(prk: &Prk, t2: &TranscriptHash) -> KeyAndIv {
    KeyAndIv {
        key: AeadKey::new(prk.expand(FINISH_KEY, t2)),
        iv: prk.expand(FINISH_IV, t2),
    }
}

/// The secret that one direction's record keys come from. It moves forward only.
#[derive(Debug)]
pub(crate) struct RecordSecret(Prk);

/// The first secret of the device → relay direction.
pub(crate) fn device_secret(prk: &Prk, t3: &TranscriptHash) -> RecordSecret {
    RecordSecret(Prk::from_secret(prk.expand(DEVICE_SECRET, t3)))
}

/// The first secret of the relay → device direction.
pub(crate) fn relay_secret(prk: &Prk, t3: &TranscriptHash) -> RecordSecret {
    RecordSecret(Prk::from_secret(prk.expand(RELAY_SECRET, t3)))
}

/// The key and iv of the records under `secret`.
pub(crate) fn record_key(secret: &RecordSecret) -> KeyAndIv {
    KeyAndIv {
        key: AeadKey::new(secret.0.expand(RECORD_KEY, b"")),
        iv: secret.0.expand(RECORD_IV, b""),
    }
}

/// The secret after `secret`.
pub(crate) fn next_record_secret(secret: &RecordSecret) -> RecordSecret {
    RecordSecret(Prk::from_secret(secret.0.expand(RECORD_NEXT, b"")))
}

/// What a refresh proof signs as its `th`, before base64url (docs/protocol.md §5.4).
pub(crate) fn refresh_hash(t3: &TranscriptHash) -> [u8; 32] {
    sha256(&[REFRESH.as_bytes(), t3])
}

#[cfg(test)]
mod tests;
