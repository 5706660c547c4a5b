//! The content of a sealed message: what the recipient reads once it is open (docs/protocol.md §9.3).
//!
//! Only forms that may be sent can be expressed: a [`Kind`] carries exactly the fields its kind has. The id of
//! the Send or Deliver frame is compared by whoever holds the frame.

use alloc::vec::Vec;

/// Length of a message id, in bytes (docs/protocol.md §5.1).
pub const MESSAGE_ID_LEN: usize = 16;

/// One message's content. It borrows the plaintext it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// Id of this message; for [`Kind::Delivered`] that of the message that was delivered.
    pub id: [u8; MESSAGE_ID_LEN],
    /// Milliseconds since 1970 by the sender's clock.
    pub time: u64,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a message is (docs/protocol.md §9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A message to the recipient.
    Message(Body<'a>),
    /// The recipient's device has stored the message with this id.
    Delivered,
    /// For the sender's own other devices: what was sent to `user`.
    Copy {
        /// To whom the copied message went: 1 to 255 bytes (docs/protocol.md §1.2).
        user: &'a str,
        /// What was sent.
        body: Body<'a>,
    },
    /// Turns the ratchet and is not shown.
    Empty,
}

/// A body and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Media type (RFC 6838 §4.2): ASCII, 3 to 255 bytes.
    pub media_type: &'a str,
    /// At most 65,536 bytes.
    pub bytes: &'a [u8],
}

impl<'a> Content<'a> {
    /// Reads a content strictly, without copying.
    ///
    /// # Errors
    /// [`ContentError`] says what is not of the form; the sender made it.
    pub fn decode(_plaintext: &'a [u8]) -> Result<Self, ContentError> {
        todo!()
    }

    /// Writes the content, unpadded; [`seal`](crate::message::seal) pads.
    ///
    /// # Errors
    /// [`ContentError`] where a field is not what it may be: the caller is to blame.
    pub fn encode(&self) -> Result<Vec<u8>, ContentError> {
        todo!()
    }
}

/// Why a content cannot be read, or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// The user of a copy is not 1 to 255 bytes without control characters.
    #[error("the user is empty, too long, or has control characters")]
    User,
    /// The media type is not one.
    #[error("the media type is not of the form type/subtype in ASCII, at most 255 bytes")]
    MediaType,
    /// The body is longer than 65,536 bytes.
    #[error("the body is longer than 65,536 bytes")]
    BodyTooLong,
}
