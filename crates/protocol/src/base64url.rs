//! base64url without padding, in its one canonical form (`docs/protocol.md` §1.2, RFC 4648 §5, RFC 7515 §2).
//!
//! Padding, white space, characters outside the alphabet and encodings whose unused low bits are not zero are refused, so
//! that two different texts never stand for the same bytes.

use alloc::{string::String, vec::Vec};

use base64ct::{Base64UrlUnpadded, Encoding};

/// Why a text is not the canonical base64url of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Base64urlError {
    /// Not base64url at all, padded, or not in canonical form.
    #[error("not canonical base64url without padding; encode it as RFC 7515 §2 says")]
    Invalid,
    /// Canonical, but of another number of bytes than the place calls for.
    #[error("base64url of the wrong number of bytes")]
    Length,
}

/// The number of characters that `bytes` bytes encode to. Saturates at `usize::MAX`.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    let tail = match bytes % 3 {
        0 => 0,
        rest => rest + 1,
    };
    (bytes / 3).saturating_mul(4).saturating_add(tail)
}

/// Encodes any number of bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// Encodes into the beginning of `out`, without allocating, and returns the text.
///
/// # Errors
/// [`Base64urlError::Length`] if `out` is shorter than [`encoded_len`]`(bytes.len())`.
pub fn encode_into<'o>(bytes: &[u8], out: &'o mut [u8]) -> Result<&'o str, Base64urlError> {
    Base64UrlUnpadded::encode(bytes, out).map_err(|_| Base64urlError::Length)
}

/// Decodes a text of any length; allocates three quarters of it.
///
/// # Errors
/// [`Base64urlError::Invalid`] for anything but the canonical form.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, Base64urlError> {
    let text = core::str::from_utf8(text).map_err(|_| Base64urlError::Invalid)?;
    Base64UrlUnpadded::decode_vec(text).map_err(|_| Base64urlError::Invalid)
}

/// Decodes into the beginning of `out`, without allocating, and returns what was decoded.
///
/// # Errors
/// [`Base64urlError::Invalid`] for anything but the canonical form, [`Base64urlError::Length`] if `out` is too short.
pub fn decode_into<'o>(text: &[u8], out: &'o mut [u8]) -> Result<&'o [u8], Base64urlError> {
    Base64UrlUnpadded::decode(text, out).map_err(|error| match error {
        base64ct::Error::InvalidEncoding => Base64urlError::Invalid,
        base64ct::Error::InvalidLength => Base64urlError::Length,
    })
}

/// Decodes exactly `N` bytes.
///
/// # Errors
/// [`Base64urlError::Invalid`] for anything but the canonical form, [`Base64urlError::Length`] for another number of bytes.
pub fn decode_array<const N: usize>(text: &[u8]) -> Result<[u8; N], Base64urlError> {
    if text.len() != encoded_len(N) {
        return Err(Base64urlError::Length);
    }
    let mut bytes = [0; N];
    decode_into(text, &mut bytes)?;
    Ok(bytes)
}
