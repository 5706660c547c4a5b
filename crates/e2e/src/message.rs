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

use alloc::{string::String, vec::Vec};
use core::fmt;

use zeroize::{Zeroize, Zeroizing};

/// Length of a session id, in bytes (docs/protocol.md §7.2).
pub const SESSION_ID_LEN: usize = 16;
/// Length of the initialisation vector, in bytes (docs/protocol.md §9.1).
pub const IV_LEN: usize = 12;
/// Length of an ML-KEM-768 ciphertext, in bytes (FIPS 203 §8).
pub const KEM_CIPHERTEXT_LEN: usize = 1088;

/// The key of one message, used for one sealing and never again (docs/protocol.md §8.2).
pub struct MessageKey([u8; 32]);

impl MessageKey {
    /// Takes the 32 bytes that a chain step gave (docs/protocol.md §8.1).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes, for a skipped key on its way to the device store.
    pub(crate) fn expose_for_store(&self) -> &[u8; 32] {
        &self.0
    }

    /// Gives the key away as a JWK (`{"kty":"oct","k":…}`, RFC 7518 §6.4), so that any JOSE library opens this one
    /// message in its JWE form. Whoever has it can read the message: nothing in this crate calls it.
    #[must_use]
    pub fn export_secret_as_jwk(&self) -> Zeroizing<String> {
        todo!()
    }
}

impl Drop for MessageKey {
    fn drop(&mut self) {
        self.0.zeroize();
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// A sealed message as it arrived: well formed, authenticated by nothing yet. It borrows the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SealedMessage<'a> {
    header: Header<'a>,
    iv: &'a [u8; IV_LEN],
    ciphertext: &'a [u8],
    tag: &'a [u8; 16],
}

impl<'a> SealedMessage<'a> {
    /// Reads the compact binary form (docs/protocol.md §9.1), strictly and without copying.
    ///
    /// # Errors
    /// [`MalformedMessage`] says what is not of the form; the peer or the relay made it.
    pub fn decode(_bytes: &'a [u8]) -> Result<Self, MalformedMessage> {
        todo!()
    }

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
    pub fn tag(&self) -> &'a [u8; 16] {
        self.tag
    }
}

/// The protected header of the JWE form in `b64u`: the additional authenticated data of every message
/// (docs/protocol.md §9.2). One value serves any number of messages and keeps its buffer.
#[derive(Debug, Default)]
pub struct ProtectedHeader {
    buffer: Vec<u8>,
}

impl ProtectedHeader {
    /// An empty one; it allocates at first use.
    #[must_use]
    pub const fn new() -> Self {
        Self { buffer: Vec::new() }
    }
}

/// Seals `content` (an encoded [`Content`](crate::content)) with `key`, which is used up, and gives the compact
/// binary form. Padding is added here (docs/protocol.md §9.3). `iv` MUST be fresh random bytes (§9.1).
///
/// # Errors
/// [`SealError`]: the content is too long, or the header holds text that no message can carry.
pub fn seal(
    _header: &Header<'_>,
    _key: MessageKey,
    _iv: [u8; IV_LEN],
    _content: &[u8],
    _protected: &mut ProtectedHeader,
) -> Result<Vec<u8>, SealError> {
    todo!()
}

/// Opens `message` with `key` and gives the content without its padding.
///
/// # Errors
/// [`OpenError`], without detail: wrong key, changed header, ciphertext or tag, or wrong padding (docs/protocol.md §13).
pub fn open(
    _message: &SealedMessage<'_>,
    _key: &MessageKey,
    _protected: &mut ProtectedHeader,
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    todo!()
}

/// Why bytes are not a sealed message. Whoever made them is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedMessage {
    /// Longer than 98,304 bytes.
    #[error("sealed message is longer than 98,304 bytes")]
    TooLong,
}

/// Why a message was not sealed: the caller asked for what cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The content, padded, is longer than 81,920 bytes.
    #[error("content is too long for one message: split it or send a reference")]
    ContentTooLong,
    /// The proof is empty, longer than 2,048 bytes, or not a compact JWS.
    #[error("the initiator's proof is not a compact JWS of at most 2,048 bytes")]
    Proof,
    /// The attestation is empty, longer than 8,192 bytes, or not a compact JWS.
    #[error("the attestation is not a compact JWS of at most 8,192 bytes")]
    Attestation,
}

/// A message did not open. There is one error for every cause (docs/protocol.md §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message does not open")]
pub struct OpenError;
