//! The messages of the handshake, field by field (docs/protocol.md §3.2).

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::crypto::{KEM_CIPHERTEXT_BYTES, KEM_KEY_BYTES, TAG_BYTES, X25519PublicKey};
use crate::error::{Incompatibility, LinkError, Malformed, Part};
use crate::limits::{
    MAX_ACCEPT_SEALED_BYTES, MAX_FINISH_SEALED_BYTES, MAX_PROOF_BYTES, MAX_TOKEN_BYTES,
    MIN_ACCEPT_SEALED_BYTES, MIN_FINISH_SEALED_BYTES,
};

const HELLO: u8 = 1;
const ACCEPT: u8 = 2;
const FINISH: u8 = 3;
const VERSION: u16 = 1;

const ACCEPT_SEALED: RangeInclusive<usize> = MIN_ACCEPT_SEALED_BYTES..=MAX_ACCEPT_SEALED_BYTES;
const FINISH_SEALED: RangeInclusive<usize> = MIN_FINISH_SEALED_BYTES..=MAX_FINISH_SEALED_BYTES;
const PROOF: RangeInclusive<usize> = 1..=MAX_PROOF_BYTES;
const CREDENTIAL: RangeInclusive<usize> = 0..=MAX_TOKEN_BYTES;

pub(super) struct Hello<'a> {
    pub(super) random: &'a [u8; 32],
    pub(super) x25519: X25519PublicKey,
    pub(super) kem_key: &'a [u8; KEM_KEY_BYTES],
}

impl<'a> Hello<'a> {
    /// Another version is that error whatever follows it (docs/protocol.md §3.2).
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, LinkError> {
        let mut reader = Reader::new(message);
        let version = decode(Part::Hello, || {
            expect_type(&mut reader, HELLO)?;
            reader.u16()
        })?;
        if version != VERSION {
            return Err(Incompatibility::Version { theirs: version }.into());
        }
        decode(Part::Hello, || {
            let hello = Self {
                random: reader.array()?,
                x25519: X25519PublicKey::from_bytes(*reader.array()?),
                kem_key: reader.array()?,
            };
            reader.finish()?;
            Ok(hello)
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + 2 + 32 + 32 + KEM_KEY_BYTES);
        Writer::new(&mut out)
            .u8(HELLO)
            .u16(VERSION)
            .bytes(self.random)
            .bytes(self.x25519.as_bytes())
            .bytes(self.kem_key);
        out
    }
}

pub(super) struct Accept<'a> {
    /// The encoding up to and without the length of `sealed`: what t1 covers.
    pub(super) head: &'a [u8],
    pub(super) x25519: X25519PublicKey,
    pub(super) kem_ciphertext: &'a [u8; KEM_CIPHERTEXT_BYTES],
    pub(super) sealed: &'a [u8],
}

const ACCEPT_HEAD_BYTES: usize = 1 + 32 + 32 + KEM_CIPHERTEXT_BYTES;

impl<'a> Accept<'a> {
    pub(super) fn decode(message: &'a [u8]) -> Result<Self, LinkError> {
        decode(Part::Accept, || {
            let mut whole = Reader::new(message);
            expect_type(&mut whole.clone(), ACCEPT)?;
            let head = whole.bytes(ACCEPT_HEAD_BYTES)?;
            let mut reader = Reader::new(head);
            expect_type(&mut reader, ACCEPT)?;
            let _random: &[u8; 32] = reader.array()?;
            let x25519 = X25519PublicKey::from_bytes(*reader.array()?);
            let kem_ciphertext = reader.array()?;
            reader.finish()?;
            let sealed = whole.vec16(ACCEPT_SEALED)?;
            whole.finish()?;
            Ok(Self {
                head,
                x25519,
                kem_ciphertext,
                sealed,
            })
        })
    }
}

/// Accept up to and without the length of `sealed`.
pub(super) fn accept_head(
    random: &[u8; 32],
    x25519: &X25519PublicKey,
    kem_ciphertext: &[u8; KEM_CIPHERTEXT_BYTES],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(ACCEPT_HEAD_BYTES + 2 + MAX_ACCEPT_SEALED_BYTES);
    Writer::new(&mut out)
        .u8(ACCEPT)
        .bytes(random)
        .bytes(x25519.as_bytes())
        .bytes(kem_ciphertext);
    out
}

/// The rest of Accept.
pub(super) fn finish_accept(head: &mut Vec<u8>, sealed: &[u8]) -> Result<(), EncodeError> {
    Writer::new(head).vec16(sealed, ACCEPT_SEALED)?;
    Ok(())
}

pub(super) struct AcceptSecret<'a> {
    pub(super) relay_key: &'a [u8; 32],
    pub(super) proof: &'a [u8],
}

impl<'a> AcceptSecret<'a> {
    pub(super) fn decode(text: &'a [u8]) -> Result<Self, LinkError> {
        decode(Part::AcceptSecret, || {
            let mut reader = Reader::new(text);
            let secret = Self {
                relay_key: reader.array()?,
                proof: reader.vec16(PROOF)?,
            };
            reader.finish()?;
            Ok(secret)
        })
    }

    /// With room for the tag.
    pub(super) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(32 + 2 + self.proof.len() + TAG_BYTES);
        Writer::new(&mut out)
            .bytes(self.relay_key)
            .vec16(self.proof, PROOF)?;
        Ok(out)
    }
}

/// Decodes Finish to `sealed`.
pub(super) fn decode_finish(message: &[u8]) -> Result<&[u8], LinkError> {
    decode(Part::Finish, || {
        let mut reader = Reader::new(message);
        expect_type(&mut reader, FINISH)?;
        let sealed = reader.vec16(FINISH_SEALED)?;
        reader.finish()?;
        Ok(sealed)
    })
}

pub(super) fn encode_finish(sealed: &[u8]) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::with_capacity(1 + 2 + sealed.len());
    Writer::new(&mut out)
        .u8(FINISH)
        .vec16(sealed, FINISH_SEALED)?;
    Ok(out)
}

/// What a credential is: the `kind` of FinishSecret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Token,
    Invite,
    Renewal,
    Exchange,
}

pub(super) struct FinishSecret<'a> {
    pub(super) kind: Kind,
    pub(super) device_key: &'a [u8; 32],
    pub(super) proof: &'a [u8],
    pub(super) credential: &'a [u8],
}

impl<'a> FinishSecret<'a> {
    pub(super) fn decode(text: &'a [u8]) -> Result<Self, LinkError> {
        decode(Part::FinishSecret, || {
            let mut reader = Reader::new(text);
            let kind = match reader.u8()? {
                0 => Kind::Token,
                1 => Kind::Invite,
                2 => Kind::Renewal,
                3 => Kind::Exchange,
                _ => return Err(DecodeError::UnknownValue),
            };
            let secret = Self {
                kind,
                device_key: reader.array()?,
                proof: reader.vec16(PROOF)?,
                credential: reader.vec16(CREDENTIAL)?,
            };
            reader.finish()?;
            Ok(secret)
        })
    }

    /// With room for the tag.
    pub(super) fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(
            1 + 32 + 2 + self.proof.len() + 2 + self.credential.len() + TAG_BYTES,
        );
        let kind = match self.kind {
            Kind::Token => 0,
            Kind::Invite => 1,
            Kind::Renewal => 2,
            Kind::Exchange => 3,
        };
        Writer::new(&mut out)
            .u8(kind)
            .bytes(self.device_key)
            .vec16(self.proof, PROOF)?
            .vec16(self.credential, CREDENTIAL)?;
        Ok(out)
    }
}

fn expect_type(reader: &mut Reader<'_>, expected: u8) -> Result<(), DecodeError> {
    if reader.u8()? == expected {
        Ok(())
    } else {
        Err(DecodeError::UnknownValue)
    }
}

fn decode<T>(part: Part, read: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, LinkError> {
    read().map_err(|defect| Malformed::Encoding { part, defect }.into())
}
