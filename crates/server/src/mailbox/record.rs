//! How a message lies in the store: bound to its place, so that a changed, moved or swapped record is never served.
//!
//! ```text
//! opaque checksum[8];  u64 expires_millis;  u64 time_millis;  opaque id[16];  opaque device[32];  vec8 user;  message
//! ```
//! `checksum` is the start of SHA-256(recipient device || position || everything after the checksum). It finds faults of disks
//! and of software; against people the messages are sealed end to end.
use bytes::Bytes;
use sealwire_protocol::{key::Thumbprint, name::User};
use sha2::{Digest as _, Sha256};

use super::{Mail, Posting};

const CHECKSUM_BYTES: usize = 8;
const FIXED_BYTES: usize = CHECKSUM_BYTES + 8 + 8 + 16 + 32 + 1;

/// What erasing needs to know.
pub(super) struct Summary {
    pub(super) from_device: [u8; 32],
    pub(super) id: [u8; 16],
    pub(super) expires_millis: u64,
    pub(super) bytes: u64,
    pub(super) from_user: Vec<u8>,
}

pub(super) fn encode(
    posting: &Posting,
    to: &Thumbprint,
    position: u64,
    time_millis: u64,
    expires_millis: u64,
    message: &[u8],
) -> Vec<u8> {
    let user = posting.from_user.as_bytes();
    let mut body = Vec::with_capacity(FIXED_BYTES + user.len() + message.len());
    body.extend_from_slice(&[0; CHECKSUM_BYTES]);
    body.extend_from_slice(&expires_millis.to_be_bytes());
    body.extend_from_slice(&time_millis.to_be_bytes());
    body.extend_from_slice(&posting.id);
    body.extend_from_slice(posting.from_device.as_bytes());
    // A user has at most 255 bytes (docs/protocol.md §1.2).
    body.push(u8::try_from(user.len()).unwrap_or(u8::MAX));
    body.extend_from_slice(user);
    body.extend_from_slice(message);
    if let Some((sum, rest)) = body.split_first_chunk_mut::<CHECKSUM_BYTES>() {
        *sum = checksum(to.as_bytes(), position, rest);
    }
    body
}

/// The message in a record, or `None` if the record is not the one that was stored at this place.
pub(super) fn decode(to: &Thumbprint, position: u64, record: &[u8]) -> Option<Mail> {
    let fields = fields(to.as_bytes(), position, record)?;
    Some(Mail {
        position,
        id: *fields.id,
        from_user: User::from_bytes(fields.user).ok()?,
        from_device: Thumbprint::from_bytes(*fields.device),
        time_millis: fields.time_millis,
        message: Bytes::copy_from_slice(fields.message),
    })
}

/// The parts of a record that refer to elsewhere, or `None` as for [`decode`].
pub(super) fn summary(to: &[u8; 32], position: u64, record: &[u8]) -> Option<Summary> {
    let fields = fields(to, position, record)?;
    Some(Summary {
        from_device: *fields.device,
        id: *fields.id,
        expires_millis: fields.expires_millis,
        bytes: fields.message.len() as u64,
        from_user: fields.user.to_vec(),
    })
}

struct Fields<'a> {
    expires_millis: u64,
    time_millis: u64,
    id: &'a [u8; 16],
    device: &'a [u8; 32],
    user: &'a [u8],
    message: &'a [u8],
}

fn fields<'a>(to: &[u8; 32], position: u64, record: &'a [u8]) -> Option<Fields<'a>> {
    let (sum, rest) = record.split_first_chunk::<CHECKSUM_BYTES>()?;
    if *sum != checksum(to, position, rest) {
        return None;
    }
    let (expires_millis, rest) = rest.split_first_chunk()?;
    let (time_millis, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let (device, rest) = rest.split_first_chunk()?;
    let (user_length, rest) = rest.split_first()?;
    let (user, message) = rest.split_at_checked(usize::from(*user_length))?;
    Some(Fields {
        expires_millis: u64::from_be_bytes(*expires_millis),
        time_millis: u64::from_be_bytes(*time_millis),
        id,
        device,
        user,
        message,
    })
}

fn checksum(to: &[u8; 32], position: u64, rest: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(to)
        .chain_update(position.to_be_bytes())
        .chain_update(rest)
        .finalize()
        .into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    [a, b, c, d, e, f, g, h]
}
