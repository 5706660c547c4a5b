//! What an application sends and receives.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use base64ct::{Base64UrlUnpadded, Encoding as _};

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;
use tokio::sync::Notify;

use crate::error::Misuse;

/// Media type of [`Message::text`].
const TEXT: &str = "text/plain;charset=utf-8";

/// A message to send: a media type (RFC 6838) and at most 65,536 bytes of body.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    media_type: String,
    body: Vec<u8>,
    id: Option<MessageId>,
}

impl Message {
    /// A text message, `text/plain;charset=utf-8`.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            media_type: TEXT.to_owned(),
            body: text.into().into_bytes(),
            id: None,
        }
    }

    /// A message of any media type, which is ASCII of 3 to 255 bytes (`docs/protocol.md §9.3`).
    ///
    /// Its limits are checked when it is sent.
    pub fn new(media_type: impl Into<String>, body: impl Into<Vec<u8>>) -> Self {
        Self {
            media_type: media_type.into(),
            body: body.into(),
            id: None,
        }
    }

    /// The same message under an id of the application's choice, by default a random one.
    ///
    /// An application that cannot know whether it has sent a message, because it was killed meanwhile, sends it again under the same
    /// id: whatever came of the first time, the recipient is shown it once. If it was refused, that is the answer; given once more after that,
    /// it is sent anew.
    #[must_use]
    pub fn with_id(mut self, id: MessageId) -> Self {
        self.id = Some(id);
        self
    }

    pub(crate) fn id(&self) -> Option<MessageId> {
        self.id
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
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// The id with these 16 bytes, which must be unlikely to be anybody else's.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// From 22 characters of base64url.
impl FromStr for MessageId {
    type Err = Misuse;

    fn from_str(text: &str) -> Result<Self, Misuse> {
        let mut bytes = [0; 16];
        match Base64UrlUnpadded::decode(text, &mut bytes) {
            Ok(decoded) if decoded.len() == 16 => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(Misuse::MessageId),
        }
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
///
/// It stays in the device store until [`ack`](Self::ack) or [`read`](Self::read) was called.
#[derive(Clone)]
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
    /// Whether it was in the store when the client was opened, so that the application may have had it before.
    pub redelivered: bool,
    /// Whether it came in a session, whose keys are erased when they have been used. `false` for a standard JWE (`docs/protocol.md §10.1`), such as a
    /// backend sends: whoever gets the device's keys later reads it too. Its sender is verified all the same, and hears neither that it has
    /// arrived nor that it was read.
    pub forward_secrecy: bool,
    /// What was sent.
    pub message: Message,
    pub(crate) handle: Option<Handle>,
}

impl Received {
    /// Says that the application is done with the message: it is erased with the next commit, within moments, and not shown
    /// again. Until then a crash shows it again, as [`redelivered`](Self::redelivered).
    pub fn ack(&self) {
        self.done(false);
    }

    /// Acknowledges the message, and tells its sender that it was read: sealed end to end, and only if this user has ever
    /// written to them.
    pub fn read(&self) {
        self.done(true);
    }

    fn done(&self, read: bool) {
        if let Some(handle) = &self.handle {
            handle.acks.push(handle.number, read);
        }
    }
}

impl PartialEq for Received {
    fn eq(&self, other: &Self) -> bool {
        (self.id, &self.from, self.device, self.sent_at)
            == (other.id, &other.from, other.device, other.sent_at)
            && self.redelivered == other.redelivered
            && self.forward_secrecy == other.forward_secrecy
            && self.message == other.message
    }
}

impl Eq for Received {}

impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("id", &self.id)
            .field("from", &self.from)
            .field("device", &self.device)
            .field("sent_at", &self.sent_at)
            .field("redelivered", &self.redelivered)
            .field("forward_secrecy", &self.forward_secrecy)
            .field("message", &self.message)
            .finish_non_exhaustive()
    }
}

/// What leads from a message back to its place in the inbox.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) number: u64,
    pub(crate) acks: Arc<Acks>,
}

/// Acknowledgements of the application, until the connection task takes them: at most one call for each message that it was given.
#[derive(Default)]
pub(crate) struct Acks {
    waiting: Mutex<Vec<(u64, bool)>>,
    wake: Notify,
}

impl Acks {
    /// Whoever acknowledges one message without end is not heard beyond this.
    const LIMIT: usize = 4_096;

    fn push(&self, number: u64, read: bool) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < Self::LIMIT {
            waiting.push((number, read));
            self.wake.notify_one();
        }
    }

    /// Number in the inbox, and whether the sender is told.
    pub(crate) fn take(&self) -> Vec<(u64, bool)> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn len(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.len()
    }

    /// Waits until there is something to take. Dropping the future loses nothing.
    pub(crate) async fn some(&self) {
        self.wake.notified().await;
    }
}

/// One of a user's devices, as this client knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// Its thumbprint (RFC 7638).
    pub thumbprint: Thumbprint,
    /// Whether it is the device this client runs on.
    pub is_this: bool,
    /// What it is called: only for this user's own devices, and only once it has said so
    /// ([`Client::set_device_name`](crate::Client::set_device_name)).
    pub name: Option<Arc<str>>,
    /// When this client first saw it, in seconds since 1970; `None` for the device it runs on.
    pub first_seen: Option<u64>,
    /// The X25519 key of its card to which standard JWE is encrypted (`docs/protocol.md §10`); `None` until its card
    /// has been seen.
    pub jwe_key: Option<[u8; 32]>,
}
