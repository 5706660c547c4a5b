//! One-time prekeys: what makes a first message impossible to replay, and its keys gone once it was read
//! (docs/protocol.md §6.2).
//!
//! ```text
//! Prekeys::publish_one_time ── OneTimePrekey ──> relay ──> OneTimePrekey ── verify(card) ──> VerifiedOneTimePrekey
//! ```

use sealwire_protocol::{
    codec::{DecodeError, Reader, Writer},
    crypto::{KEM_KEY_BYTES, KemEncapsulationKey, X25519PublicKey},
    key::{SigningKey, Thumbprint},
};

use alloc::vec::Vec;

use crate::{
    card::VerifiedCard,
    error::{Error, Malformed, Misbehaved},
    schedule::ONE_TIME_PREKEY_PREFIX,
};

/// Bytes of an encoded one-time prekey.
pub const ONE_TIME_PREKEY_BYTES: usize = 4 + 32 + KEM_KEY_BYTES + 64;

/// A one-time prekey as it travels. By itself it proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneTimePrekey {
    id: u32,
    x25519: X25519PublicKey,
    kem: [u8; KEM_KEY_BYTES],
    signature: [u8; 64],
}

impl OneTimePrekey {
    /// Signs a one-time prekey of the device with `key` (docs/protocol.md §6.2).
    pub(crate) fn sign(
        id: u32,
        x25519: X25519PublicKey,
        kem: &KemEncapsulationKey,
        key: &SigningKey,
    ) -> Self {
        let kem = kem.to_bytes();
        let signature = key.sign(&signed_bytes(key.thumbprint(), id, &x25519, &kem));
        Self {
            id,
            x25519,
            kem,
            signature,
        }
    }

    /// The id, by which the device finds the secret.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Reads [`ONE_TIME_PREKEY_BYTES`] bytes.
    ///
    /// # Errors
    /// [`Malformed::OneTimePrekey`]: another length.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(bytes);
        let read = |reader: &mut Reader<'_>| -> Result<Self, DecodeError> {
            Ok(Self {
                id: reader.u32()?,
                x25519: X25519PublicKey::from_bytes(*reader.array()?),
                kem: *reader.array()?,
                signature: *reader.array()?,
            })
        };
        let prekey = read(&mut reader).map_err(|_| Malformed::OneTimePrekey)?;
        reader.finish().map_err(|_| Malformed::OneTimePrekey)?;
        Ok(prekey)
    }

    /// The [`ONE_TIME_PREKEY_BYTES`] bytes that travel.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(ONE_TIME_PREKEY_BYTES);
        Writer::new(&mut out)
            .u32(self.id)
            .bytes(self.x25519.as_bytes())
            .bytes(&self.kem)
            .bytes(&self.signature);
        out
    }

    /// Checks that the device of `card` signed this prekey (docs/protocol.md §6.2, §7).
    ///
    /// # Errors
    /// [`Misbehaved::OneTimePrekeySignature`], and [`Malformed::Key`] for a key that fails the modulus check.
    pub fn verify(self, card: &VerifiedCard) -> Result<VerifiedOneTimePrekey, Error> {
        let device = card.identity().device;
        card.device_key()
            .verify(
                &signed_bytes(device, self.id, &self.x25519, &self.kem),
                &self.signature,
            )
            .map_err(|_| Misbehaved::OneTimePrekeySignature)?;
        let kem = KemEncapsulationKey::decode(&self.kem).map_err(|_| Malformed::Key)?;
        Ok(VerifiedOneTimePrekey {
            device,
            id: self.id,
            x25519: self.x25519,
            kem,
        })
    }
}

/// A one-time prekey that its device signed: only [`OneTimePrekey::verify`] makes one. Use it once.
#[derive(Debug)]
pub struct VerifiedOneTimePrekey {
    pub(crate) device: Thumbprint,
    pub(crate) id: u32,
    pub(crate) x25519: X25519PublicKey,
    pub(crate) kem: KemEncapsulationKey,
}

fn signed_bytes(
    device: Thumbprint,
    id: u32,
    x25519: &X25519PublicKey,
    kem: &[u8; KEM_KEY_BYTES],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(ONE_TIME_PREKEY_PREFIX.len() + 32 + 4 + 32 + KEM_KEY_BYTES);
    Writer::new(&mut out)
        .bytes(ONE_TIME_PREKEY_PREFIX)
        .bytes(device.as_bytes())
        .u32(id)
        .bytes(x25519.as_bytes())
        .bytes(kem);
    out
}
