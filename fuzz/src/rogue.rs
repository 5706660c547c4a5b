//! A device with real keys and no manners: it completes the key agreement, and then says in Finish whatever it is given. It is written from
//! `docs/protocol.md` §3 with nothing but the suite.

use rand::rngs::StdRng;
use sealwire_protocol::crypto::{
    AeadKey, KEM_CIPHERTEXT_BYTES, KemDecapsulationKey, Label, NONCE_BYTES, Prk, Secret,
    X25519PublicKey, X25519Secret, sha256,
};

/// The length of Accept up to and without the length of `sealed`.
const ACCEPT_HEAD_BYTES: usize = 1 + 32 + 32 + KEM_CIPHERTEXT_BYTES;

/// What it seals Finish with, which is always the same: the relay's randomness is fixed.
pub(crate) struct Rogue {
    pub(crate) hello: Vec<u8>,
    pub(crate) t2: [u8; 32],
    key: AeadKey,
    iv: Secret<NONCE_BYTES>,
}

impl Rogue {
    /// Agrees on keys with the relay that answers Hello by `relay`.
    pub(crate) fn new(rng: &mut StdRng, relay: impl FnOnce(&[u8]) -> Vec<u8>) -> Self {
        let x25519 = X25519Secret::generate(rng);
        let kem = KemDecapsulationKey::generate(rng);
        let hello = [
            &[1, 0, 1],
            [0x5a; 32].as_slice(),
            x25519.public_key().as_bytes(),
            &kem.encapsulation_key().to_bytes(),
        ]
        .concat();
        let accept = relay(&hello);
        let (head, rest) = accept.split_at(ACCEPT_HEAD_BYTES);
        let (theirs, ciphertext) = head[33..].split_first_chunk().expect("a key");
        let shared = x25519
            .diffie_hellman(&X25519PublicKey::from_bytes(*theirs))
            .expect("an honest key");
        let kem_shared = kem.decapsulate(ciphertext.try_into().expect("a ciphertext"));
        let prk = Prk::extract(b"sealwire/1 link", &[shared.expose(), kem_shared.expose()]);
        let t1 = sha256(&[b"sealwire/1 link transcript", &hello, head]);
        let t2 = sha256(&[&t1, &rest[2..]]);
        Self {
            hello,
            t2,
            key: AeadKey::new(prk.expand(Label::new("sealwire/1 link finish key"), &t2)),
            iv: prk.expand(Label::new("sealwire/1 link finish iv"), &t2),
        }
    }

    /// Finish with any FinishSecret. One too long to be sealed is cut off by its length field.
    pub(crate) fn finish(&self, secret: &[u8]) -> Vec<u8> {
        let mut sealed = secret.to_vec();
        let tag = self
            .key
            .seal(self.iv.expose(), &self.t2, &mut sealed)
            .expect("short enough");
        sealed.extend(tag);
        let length = u16::try_from(sealed.len()).unwrap_or(u16::MAX);
        [&[3], length.to_be_bytes().as_slice(), &sealed].concat()
    }
}
