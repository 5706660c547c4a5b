//! The sealed message: what one device sends to another, in its two forms.
//!
//! ```text
//!  seal:  Header ─┬─> ProtectedHeader (JSON, b64u) ── AAD ──┐
//!                 │        content ── pad ── AES-256-GCM ───┤
//!                 └─> version kind session key pn n [first] iv ciphertext tag      compact binary form, §9.1
//!  open:  bytes ──> SealedMessage (borrowed) ──> MessageKey ──> content
//!  JWE:   b64u(header) ".." b64u(iv) "." b64u(ciphertext) "." b64u(tag)            the same message, §9.2
//! ```
//!
//! Both forms carry the same fields and authenticate the same bytes, so that either turns into the other
//! without a key. Which key seals or opens a message is the ratchet's business; what the plaintext says is
//! that of [`content`](crate::content).

mod binary;
mod jwe;

use alloc::{string::String, vec::Vec};
use core::fmt;

use sealwire_protocol::base64url;
use sealwire_protocol::codec::DecodeError;
use sealwire_protocol::crypto::{AeadKey, KEM_CIPHERTEXT_BYTES, NONCE_BYTES, Secret, TAG_BYTES};
use sealwire_protocol::limits::MAX_MESSAGE_CIPHERTEXT_BYTES;
use zeroize::Zeroizing;

use crate::padding;

pub use jwe::{MAX_JWE_BYTES, MalformedJwe, ProtectedHeader, from_jwe};

/// Length of a session id, in bytes (docs/protocol.md §7.2).
pub const SESSION_ID_LEN: usize = 16;
/// Length of the initialisation vector, in bytes (docs/protocol.md §9.1).
pub const IV_LEN: usize = NONCE_BYTES;
/// Length of an ML-KEM-768 ciphertext, in bytes (FIPS 203 §8).
pub const KEM_CIPHERTEXT_LEN: usize = KEM_CIPHERTEXT_BYTES;
/// Length of the tag, in bytes (docs/protocol.md §1.3).
pub const TAG_LEN: usize = TAG_BYTES;

/// The key of one message, used for one sealing and never again (docs/protocol.md §8.2).
pub struct MessageKey(Secret<32>);

impl MessageKey {
    /// Takes what a chain step gave (docs/protocol.md §8.1).
    #[must_use]
    pub const fn new(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// The key's bytes, for a skipped key on its way to the device store.
    pub(crate) const fn expose_for_store(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// Gives the key away as a JWK (`{"kty":"oct","k":…}`, RFC 7518 §6.4), so that any JOSE library opens this one
    /// message in its JWE form. Whoever has it can read the message: nothing in this crate calls it.
    #[must_use]
    pub fn export_secret_as_jwk(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(base64url::encode(self.0.expose()));
        let mut jwk = Zeroizing::new(String::with_capacity(64));
        jwk.push_str(r#"{"kty":"oct","k":""#);
        jwk.push_str(&encoded);
        jwk.push_str(r#""}"#);
        jwk
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey(..)")
    }
}

/// What a sealed message says in the clear, authenticated by its tag (docs/protocol.md §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Session id.
    pub session: [u8; SESSION_ID_LEN],
    /// The sender's current ratchet key, X25519.
    pub ratchet_key: [u8; 32],
    /// Length of the sender's previous sending chain, in messages.
    pub pn: u32,
    /// Number of this message in its chain, from 0.
    pub n: u32,
    /// What starts the session; present until the initiator has heard from the recipient (docs/protocol.md §7.3).
    pub first: Option<First<'a>>,
}

/// What a recipient needs to derive and authenticate a new session (docs/protocol.md §7, §9.1).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct First<'a> {
    /// The initiator's device key, Ed25519.
    pub device_key: [u8; 32],
    /// The initiator's ephemeral key, X25519.
    pub ephemeral: [u8; 32],
    /// The ML-KEM-768 ciphertext.
    pub kem_ciphertext: &'a [u8; KEM_CIPHERTEXT_LEN],
    /// Generation of the recipient's card that was used.
    pub generation: u32,
    /// Id of the one-time prekey that was used, if one was.
    pub one_time: Option<u32>,
    /// The initiator's proof, a compact JWS of 1 to 2,048 bytes (docs/protocol.md §7.3).
    pub proof: &'a str,
    /// The initiator's attestation, a compact JWS of 1 to 8,192 bytes (docs/protocol.md §2.3).
    pub attestation: &'a str,
}

impl fmt::Debug for First<'_> {
    /// Without proof and attestation, which may be an access token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("First")
            .field("generation", &self.generation)
            .field("one_time", &self.one_time)
            .finish_non_exhaustive()
    }
}

/// A sealed message as it arrived: well formed, authenticated by nothing yet. It borrows the bytes it was read from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealedMessage<'a> {
    header: Header<'a>,
    iv: &'a [u8; IV_LEN],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> SealedMessage<'a> {
    /// The header. Nothing in it is authentic until [`open`] has succeeded.
    #[must_use]
    pub fn header(&self) -> &Header<'a> {
        &self.header
    }

    /// The initialisation vector.
    #[must_use]
    pub fn iv(&self) -> &'a [u8; IV_LEN] {
        self.iv
    }

    /// The ciphertext without its tag, 1 to 81,920 bytes.
    #[must_use]
    pub fn ciphertext(&self) -> &'a [u8] {
        self.ciphertext
    }

    /// The tag.
    #[must_use]
    pub fn tag(&self) -> &'a [u8; TAG_LEN] {
        self.tag
    }
}

impl fmt::Debug for SealedMessage<'_> {
    /// The header and how long the ciphertext is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedMessage")
            .field("header", &self.header)
            .field("ciphertext_len", &self.ciphertext.len())
            .finish_non_exhaustive()
    }
}

/// Seals `content` (an encoded [`Content`](crate::content::Content)) with `key`, which is used up, and gives the
/// compact binary form in one allocation. Padding is added here (docs/protocol.md §9.3). `iv` MUST be fresh random
/// bytes (§9.1). `protected` is only room to work in: keep one and pass it again.
///
/// # Errors
/// [`SealError`]: the content is too long, or the header holds text that no message can carry.
pub fn seal(
    header: &Header<'_>,
    key: MessageKey,
    iv: [u8; IV_LEN],
    content: &[u8],
    protected: &mut ProtectedHeader,
) -> Result<Vec<u8>, SealError> {
    let padded_len = padding::padded_len(content.len())
        .filter(|len| *len <= MAX_MESSAGE_CIPHERTEXT_BYTES)
        .ok_or(SealError::ContentTooLong)?;

    // Nothing below grows the buffer past its capacity, so no copy of the content is left behind.
    let mut out = binary::start(header, &iv, padded_len)?;
    let text_at = out.len();
    out.extend_from_slice(content);
    out.push(padding::MARKER);
    out.resize(text_at + padded_len, 0);
    let (_, text) = out.split_at_mut(text_at);
    let tag = AeadKey::new(key.0)
        .seal(&iv, protected.encode(header).as_bytes(), text)
        .map_err(|_| SealError::ContentTooLong)?;
    out.extend_from_slice(&tag);
    Ok(out)
}

/// Opens `message` with `key` and gives the content without its padding. `key` stays with the caller, who erases it
/// after a success and keeps it after a failure (docs/protocol.md §8.2).
///
/// # Errors
/// [`OpenError`], without detail: wrong key, changed header, ciphertext or tag, or wrong padding (docs/protocol.md §13).
pub fn open(
    message: &SealedMessage<'_>,
    key: &MessageKey,
    protected: &mut ProtectedHeader,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let mut text = Zeroizing::new(message.ciphertext.to_vec());
    let key = Secret::from_slice(key.0.expose()).ok_or(OpenError)?;
    AeadKey::new(key)
        .open(
            message.iv,
            protected.encode(&message.header).as_bytes(),
            &mut text,
            message.tag,
        )
        .map_err(|_| OpenError)?;
    let content_len = padding::unpad(&text).ok_or(OpenError)?.len();
    text.truncate(content_len);
    Ok(text)
}

/// Whether `text` can stand in a header without an escape (docs/protocol.md §9.2).
fn is_jws_text(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Why bytes are not a sealed message. Whoever made them is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedMessage {
    /// Longer than 98,304 bytes.
    #[error("the sealed message is longer than 98,304 bytes")]
    TooLong,
    /// A field is missing, has a length out of bounds, or bytes follow the last one (docs/protocol.md §1.1).
    #[error("the sealed message is not in its binary form: {0}")]
    Encoding(#[from] DecodeError),
    /// Not version 1.
    #[error(
        "the sealed message has another version than 1: one of the two devices needs an update"
    )]
    Version,
    /// Neither a first nor an ordinary message.
    #[error("the sealed message is neither a first nor an ordinary one")]
    Kind,
    /// The proof has a character outside the base64url alphabet and `.` (docs/protocol.md §9.2).
    #[error("the proof in the first message is not a compact JWS")]
    Proof,
    /// The attestation has a character outside the base64url alphabet and `.` (docs/protocol.md §9.2).
    #[error("the attestation in the first message is not a compact JWS")]
    Attestation,
}

/// Why a message was not sealed: the caller asked for what cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The content, padded, is longer than 81,920 bytes.
    #[error("the content is too long for one message: split it or send a reference")]
    ContentTooLong,
    /// The proof is empty, longer than 2,048 bytes, or not a compact JWS.
    #[error("the initiator's proof is not a compact JWS of at most 2,048 bytes")]
    Proof,
    /// The attestation is empty, longer than 8,192 bytes, or not a compact JWS.
    #[error(
        "the attestation is not a compact JWS of at most 8,192 bytes: fetch a new one from the issuer"
    )]
    Attestation,
}

/// A message did not open. There is one error for every cause (docs/protocol.md §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not open")]
pub struct OpenError;

#[cfg(test)]
mod tests;
