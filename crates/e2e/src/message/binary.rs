//! The compact binary form (docs/protocol.md §9.1).

use alloc::vec::Vec;

use sealwire_protocol::codec::{Reader, Writer};
use sealwire_protocol::limits::{
    MAX_MESSAGE_CIPHERTEXT_BYTES, MAX_PROOF_BYTES, MAX_SEALED_MESSAGE_BYTES, MAX_TOKEN_BYTES,
};

use super::{
    First, Header, IV_LEN, KEM_CIPHERTEXT_LEN, MalformedMessage, SESSION_ID_LEN, SealError,
    SealedMessage, TAG_LEN, is_jws_text,
};

pub(super) const VERSION: u8 = 1;
pub(super) const KIND_FIRST: u8 = 0;
pub(super) const KIND_ORDINARY: u8 = 1;

/// Bytes of an ordinary message beside its ciphertext.
const OVERHEAD: usize = 2 + SESSION_ID_LEN + 32 + 4 + 4 + IV_LEN + 3 + TAG_LEN;
/// Bytes of [`First`] with a one-time prekey, beside its proof and attestation.
const FIRST_OVERHEAD: usize = 32 + 32 + KEM_CIPHERTEXT_LEN + 4 + 5 + 2 + 2;

impl<'a> SealedMessage<'a> {
    /// Reads the compact binary form (docs/protocol.md §9.1), strictly and without copying.
    ///
    /// # Errors
    /// [`MalformedMessage`] says what is not of the form; the peer or the relay made it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MalformedMessage> {
        if bytes.len() > MAX_SEALED_MESSAGE_BYTES {
            return Err(MalformedMessage::TooLong);
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(MalformedMessage::Version);
        }
        let has_first = match reader.u8()? {
            KIND_FIRST => true,
            KIND_ORDINARY => false,
            _ => return Err(MalformedMessage::Kind),
        };
        let header = Header {
            session: *reader.array()?,
            ratchet_key: *reader.array()?,
            pn: reader.u32()?,
            n: reader.u32()?,
            first: if has_first {
                Some(read_first(&mut reader)?)
            } else {
                None
            },
        };
        let message = Self {
            header,
            iv: reader.array()?,
            ciphertext: reader.vec24(1..=MAX_MESSAGE_CIPHERTEXT_BYTES)?,
            tag: reader.array()?,
        };
        reader.finish()?;
        Ok(message)
    }
}

fn read_first<'a>(reader: &mut Reader<'a>) -> Result<First<'a>, MalformedMessage> {
    Ok(First {
        device_key: *reader.array()?,
        ephemeral: *reader.array()?,
        kem_ciphertext: reader.array()?,
        generation: reader.u32()?,
        one_time: if reader.count8(0..=1)? == 1 {
            Some(reader.u32()?)
        } else {
            None
        },
        proof: jws_text(reader.vec16(1..=MAX_PROOF_BYTES)?).ok_or(MalformedMessage::Proof)?,
        attestation: jws_text(reader.vec16(1..=MAX_TOKEN_BYTES)?)
            .ok_or(MalformedMessage::Attestation)?,
    })
}

fn jws_text(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes)
        .ok()
        .filter(|text| is_jws_text(text))
}

/// A message up to and with the ciphertext's length, in a buffer with room for the rest.
pub(super) fn start(
    header: &Header<'_>,
    iv: &[u8; IV_LEN],
    ciphertext_len: usize,
) -> Result<Vec<u8>, SealError> {
    let first_len = header.first.map_or(0, |first| {
        FIRST_OVERHEAD + first.proof.len() + first.attestation.len()
    });
    let mut out = Vec::with_capacity(OVERHEAD + first_len + ciphertext_len);
    let mut writer = Writer::new(&mut out);
    writer.u8(VERSION).u8(if header.first.is_some() {
        KIND_FIRST
    } else {
        KIND_ORDINARY
    });
    writer
        .bytes(&header.session)
        .bytes(&header.ratchet_key)
        .u32(header.pn)
        .u32(header.n);
    if let Some(first) = &header.first {
        writer
            .bytes(&first.device_key)
            .bytes(&first.ephemeral)
            .bytes(first.kem_ciphertext)
            .u32(first.generation);
        match first.one_time {
            Some(id) => writer.u8(1).u32(id),
            None => writer.u8(0),
        };
        write_text(&mut writer, first.proof, MAX_PROOF_BYTES).ok_or(SealError::Proof)?;
        write_text(&mut writer, first.attestation, MAX_TOKEN_BYTES)
            .ok_or(SealError::Attestation)?;
    }
    let [_, length @ ..] = u32::try_from(ciphertext_len)
        .map_err(|_| SealError::ContentTooLong)?
        .to_be_bytes();
    writer.bytes(iv).bytes(&length);
    Ok(out)
}

fn write_text(writer: &mut Writer<'_>, text: &str, max: usize) -> Option<()> {
    if !is_jws_text(text) {
        return None;
    }
    writer.vec16(text.as_bytes(), 1..=max).ok().map(|_| ())
}
