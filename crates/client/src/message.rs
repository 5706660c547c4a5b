//! What an application sends and receives.

use std::fmt;
use std::sync::Arc;

use base64ct::{Base64UrlUnpadded, Encoding as _};

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;

use crate::error::Misuse;

/// Media type of [`Message::text`].
const TEXT: &str = "text/plain;charset=utf-8";

/// A message to send: a media type (RFC 6838) and at most 65,536 bytes of body.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    media_type: String,
    body: Vec<u8>,
}

impl Message {
    /// A text message, `text/plain;charset=utf-8`.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            media_type: TEXT.to_owned(),
            body: text.into().into_bytes(),
        }
    }

    /// A message of any media type, which is ASCII of 3 to 255 bytes (`docs/protocol.md §9.3`).
    ///
    /// Its limits are checked when it is sent.
    pub fn new(media_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            media_type: media_type.into(),
            body: body.into(),
        }
    }

    /// Its media type.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Its body as text, where the media type is `text/…` and the body is UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        if !self.media_type.starts_with("text/") {
            return None;
        }
        std::str::from_utf8(&self.body).ok()
    }

    /// Checks the bounds of `docs/protocol.md §9.3`.
    pub(crate) fn check(&self) -> Result<(), Misuse> {
        if self.body.len() > limits::MAX_BODY_BYTES {
            return Err(Misuse::BodyTooLarge);
        }
        let printable = self
            .media_type
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte));
        if !(3..=255).contains(&self.media_type.len())
            || !printable
            || !self.media_type.contains('/')
        {
            return Err(Misuse::MediaType);
        }
        Ok(())
    }
}

/// Shows the media type and the length, never the body.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("media_type", &self.media_type)
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// The id of a message, the same on every device that has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub(crate) [u8; 16]);

impl MessageId {
    /// Its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// 22 characters of base64url.
impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Base64UrlUnpadded::encode_string(&self.0))
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// A message that has arrived, from a device that its issuer attests.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// The message's id.
    pub id: MessageId,
    /// The user who sent it.
    pub from: Arc<str>,
    /// Which of their devices did.
    pub device: Thumbprint,
    /// When it was sent, by the sender's clock, in milliseconds since 1970. It is a claim, not a fact.
    pub sent_at: u64,
    /// What was sent.
    pub message: Message,
}

/// One of a user's devices, as this client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its thumbprint (RFC 7638).
    pub thumbprint: Thumbprint,
    /// Whether it is the device this client runs on.
    pub is_this: bool,
    /// When this client first saw it, in seconds since 1970; `None` for the device it runs on.
    pub first_seen: Option<u64>,
    /// The X25519 key of its card to which standard JWE is encrypted (`docs/protocol.md §10`); `None` until its card
    /// has been seen.
    pub jwe_key: Option<[u8; 32]>,
}
