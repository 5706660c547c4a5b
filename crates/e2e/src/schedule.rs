//! Every key of a session: all its labels and one short function for each derivation (docs/protocol.md §1.4, §7, §8.1).
//!
//! ```text
//! dh1, dh2, ss ──> Prk ──┬─ th ─> session id
//!                        ├─ th ─> root ── X25519 of a turn ──> root', chain
//!                        └─ th ─> chain ──┬─> message key
//!                                         └─> chain' ...
//! ```
//!
//! The labels of the link are in `sealwire-protocol`, that of the safety number in [`safety`](crate::safety).

use sealwire_protocol::crypto::{Label, Prk, Secret, sha256};

use crate::message::{MessageKey, SESSION_ID_LEN};

const ONE_TIME_PREKEY: Label = Label::new("sealwire/1 one-time prekey");
const SESSION: Label = Label::new("sealwire/1 session");
const TRANSCRIPT: Label = Label::new("sealwire/1 session transcript");
const SESSION_ID: Label = Label::new("sealwire/1 session id");
const ROOT: Label = Label::new("sealwire/1 session root");
const CHAIN: Label = Label::new("sealwire/1 session chain");
const RATCHET: Label = Label::new("sealwire/1 session ratchet");
const MESSAGE: Label = Label::new("sealwire/1 session message");
const NEXT: Label = Label::new("sealwire/1 session next");
const FILE: Label = Label::new("sealwire/1 file");

/// What stands before the fields in the signature of a one-time prekey (docs/protocol.md §6.2).
pub(crate) const ONE_TIME_PREKEY_PREFIX: &[u8] = ONE_TIME_PREKEY.as_bytes();

/// What stands before the fields in the AAD of a file's chunk (docs/protocol.md §15).
pub(crate) const FILE_PREFIX: &[u8] = FILE.as_bytes();

/// `th`: the hash of everything that an agreement depends on (docs/protocol.md §7.1).
pub(crate) type TranscriptHash = [u8; 32];

/// `th` over the encoded fields of docs/protocol.md §7.1.
pub(crate) fn transcript_hash(fields: &[u8]) -> TranscriptHash {
    sha256(&[TRANSCRIPT.as_bytes(), fields])
}

/// The secret that roots the ratchet. It moves forward with every turn.
#[derive(Debug)]
pub(crate) struct RootKey(Prk);

impl RootKey {
    pub(crate) fn from_store(secret: Secret<32>) -> Self {
        Self(Prk::from_secret(secret))
    }

    pub(crate) fn expose_for_store(&self) -> &[u8; 32] {
        self.0.as_secret().expose()
    }

    /// The root step: the next root key, and the chain of the turn (docs/protocol.md §8.1).
    pub(crate) fn step(&self, dh: &Secret<32>) -> (Self, ChainKey) {
        let out: Secret<64> =
            Prk::extract(self.0.as_secret().expose(), &[dh.expose()]).expand(RATCHET, b"");
        let (root, chain) = halves(&out);
        (
            Self(Prk::from_secret(root)),
            ChainKey(Prk::from_secret(chain)),
        )
    }
}

/// The secret that gives the keys of a chain's messages. It moves forward with every message.
#[derive(Debug)]
pub(crate) struct ChainKey(Prk);

impl ChainKey {
    pub(crate) fn from_store(secret: Secret<32>) -> Self {
        Self(Prk::from_secret(secret))
    }

    pub(crate) fn expose_for_store(&self) -> &[u8; 32] {
        self.0.as_secret().expose()
    }

    /// The chain step: the key of this message, and the chain key of the next (docs/protocol.md §8.1).
    pub(crate) fn step(&self) -> (MessageKey, Self) {
        let key: Secret<32> = self.0.expand(MESSAGE, b"");
        (
            MessageKey::new(key),
            Self(Prk::from_secret(self.0.expand(NEXT, b""))),
        )
    }
}

/// What both sides of an agreement start with (docs/protocol.md §7.2).
#[derive(Debug)]
pub(crate) struct SessionKeys {
    pub(crate) id: [u8; SESSION_ID_LEN],
    pub(crate) root: RootKey,
    pub(crate) chain: ChainKey,
}

/// The session's first keys, from the shared secrets in the order of docs/protocol.md §7.2.
pub(crate) fn session_keys(
    dh1: &Secret<32>,
    dh2: Option<&Secret<32>>,
    kem: &Secret<32>,
    th: &TranscriptHash,
) -> SessionKeys {
    let dh2 = dh2.map_or(&[][..], |dh2| dh2.expose());
    let prk = Prk::extract(SESSION.as_bytes(), &[dh1.expose(), dh2, kem.expose()]);
    SessionKeys {
        id: *prk.expand(SESSION_ID, th).expose(),
        root: RootKey(Prk::from_secret(prk.expand(ROOT, th))),
        chain: ChainKey(Prk::from_secret(prk.expand(CHAIN, th))),
    }
}

fn halves(out: &Secret<64>) -> (Secret<32>, Secret<32>) {
    let mut root = [0; 32];
    let mut chain = [0; 32];
    let (first, second) = out.expose().split_at(32);
    root.copy_from_slice(first);
    chain.copy_from_slice(second);
    (Secret::take(&mut root), Secret::take(&mut chain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{collections::BTreeSet, format, string::String};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn secret(byte: u8) -> Secret<32> {
        Secret::take(&mut [byte; 32])
    }

    fn keys(with_one_time: bool) -> SessionKeys {
        let dh2 = with_one_time.then(|| secret(2));
        session_keys(
            &secret(1),
            dh2.as_ref(),
            &secret(3),
            &transcript_hash(b"fields"),
        )
    }

    /// docs/protocol.md §7.2. The values were computed from the specification with Python's `hmac` alone.
    #[test]
    fn session_keys_are_those_of_the_specification() {
        assert_eq!(
            hex(&transcript_hash(b"fields")),
            "9bc15c70a84abbf074bcc723ff149dc0c704b8bd722d986058f616600a04450c"
        );
        let with = keys(true);
        assert_eq!(hex(&with.id), "a74e28e87323903c6fe68dd084600bc4");
        assert_eq!(
            hex(with.root.expose_for_store()),
            "67f62cbfbcf6fe3b7503855522c56d220aaf0c970e913d4e34ccc03b15f9e484"
        );
        assert_eq!(
            hex(with.chain.expose_for_store()),
            "bdfdaaf65c69329519f69e7776da91a71b94ad72fb5e32274fd8611f207e680c"
        );
        let without = keys(false);
        assert_eq!(hex(&without.id), "c5db0c4995a24b34b2bc7a216a63b0eb");
        assert_eq!(
            hex(without.root.expose_for_store()),
            "5b471a557ef29a62b28360a77b0913700c2b1b0b5f3b3c2120ca2dc6055e9f35"
        );
    }

    /// docs/protocol.md §8.1. The values were computed from the specification with Python's `hmac` alone.
    #[test]
    fn steps_are_those_of_the_specification() {
        let SessionKeys { root, chain, .. } = keys(true);
        let (message, next) = chain.step();
        assert_eq!(
            hex(message.expose_for_store()),
            "215517356b5cb6cbfc2cdc2a4148c3e69cd4866b7c6123d35073e779540e9b3e"
        );
        assert_eq!(
            hex(next.expose_for_store()),
            "0740f00792665b37cd149554d3fe223511e8a57aa79a75285dba3d6160811242"
        );
        let (root, chain) = root.step(&secret(4));
        assert_eq!(
            hex(root.expose_for_store()),
            "c05d07027e730d42a7a7498ae77dc6fb3983dc6af02a358540576b63b5afb370"
        );
        assert_eq!(
            hex(chain.expose_for_store()),
            "0598592b6be3caddad35c36490ebbea1bf0f67e4e8140841f659ff89893b36ec"
        );
    }

    /// docs/protocol.md §1.4: no label is used twice.
    #[test]
    fn no_label_is_used_twice() {
        let labels = [
            ONE_TIME_PREKEY,
            SESSION,
            TRANSCRIPT,
            SESSION_ID,
            ROOT,
            CHAIN,
            RATCHET,
            MESSAGE,
            NEXT,
            FILE,
        ];
        let distinct: BTreeSet<_> = labels.iter().map(Label::as_bytes).collect();
        assert_eq!(distinct.len(), labels.len());
    }

    #[test]
    fn debug_shows_nothing_secret() {
        let SessionKeys { root, chain, .. } = keys(true);
        assert_eq!(
            format!("{root:?} {chain:?}"),
            "RootKey(Prk(Secret<32>(..))) ChainKey(Prk(Secret<32>(..)))"
        );
    }
}
