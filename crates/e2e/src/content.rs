//! The content of a sealed message: what the recipient reads once it is open (docs/protocol.md §9.3).
//!
//! Only forms that may be sent can be expressed: a [`Kind`] carries exactly the fields its kind has. The id of
//! the Send or Deliver frame is compared by whoever holds the frame.

use alloc::vec::Vec;
use core::{fmt, ops::RangeInclusive};

use sealwire_protocol::codec::{DecodeError, Reader, Writer};
use sealwire_protocol::limits::{
    MAX_BODY_BYTES, MAX_DEVICE_NAME_BYTES, MAX_MESSAGE_IDS, MAX_NAME_BYTES,
};
use sealwire_protocol::name::User;

/// Length of a message id, in bytes (docs/protocol.md §5.1).
pub const MESSAGE_ID_LEN: usize = 16;

/// One message's content. It borrows the plaintext it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// Id of this message.
    pub id: [u8; MESSAGE_ID_LEN],
    /// Milliseconds since 1970 by the sender's clock.
    pub time: u64,
    /// What it is.
    pub kind: Kind<'a>,
}

/// What a message is (docs/protocol.md §9.3).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A message to the recipient.
    Message(Body<'a>),
    /// The recipient's device has stored these messages: 1 to 256.
    Delivered(MessageIds<'a>),
    /// For the sender's own other devices: what was sent to `user`.
    Copy {
        /// To whom the copied message went: 1 to 255 bytes (docs/protocol.md §1.2).
        user: &'a str,
        /// What was sent.
        body: Body<'a>,
    },
    /// Turns the ratchet and is not shown.
    Empty,
    /// These messages have been read on the recipient's device: 1 to 256.
    Read(MessageIds<'a>),
    /// The recipient's device cannot open these messages, and asks for them, and for whatever it has not confirmed, again: 0 to 256.
    Resend(MessageIds<'a>),
    /// The sender's device does not have these messages any more: 1 to 256.
    Unavailable(MessageIds<'a>),
    /// What the sending device is called, for the user's own other devices: 1 to 64 bytes of UTF-8 without control characters.
    Name(&'a str),
}

/// Ids of messages, in order. Received, they borrow the plaintext.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MessageIds<'a>(&'a [[u8; MESSAGE_ID_LEN]]);

impl<'a> MessageIds<'a> {
    /// The ids in `bytes`, or `None` if their number is not a whole one.
    fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        let (ids, rest) = bytes.as_chunks();
        rest.is_empty().then_some(Self(ids))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ids, in order.
    pub fn iter(&self) -> core::slice::Iter<'a, [u8; MESSAGE_ID_LEN]> {
        self.0.iter()
    }

    /// The ids as one slice.
    #[must_use]
    pub const fn as_slice(&self) -> &'a [[u8; MESSAGE_ID_LEN]] {
        self.0
    }
}

impl<'a> From<&'a [[u8; MESSAGE_ID_LEN]]> for MessageIds<'a> {
    /// How many there may be is checked when the content is encoded.
    fn from(ids: &'a [[u8; MESSAGE_ID_LEN]]) -> Self {
        Self(ids)
    }
}

impl<'a> IntoIterator for MessageIds<'a> {
    type Item = &'a [u8; MESSAGE_ID_LEN];
    type IntoIter = core::slice::Iter<'a, [u8; MESSAGE_ID_LEN]>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for MessageIds<'_> {
    /// Only how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ids", self.len())
    }
}

/// A body and what it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Body<'a> {
    /// Media type (RFC 6838 §4.2): ASCII, 3 to 255 bytes.
    pub media_type: &'a str,
    /// At most 65,536 bytes.
    pub bytes: &'a [u8],
}

const VERSION: u8 = 1;
const KIND_MESSAGE: u8 = 0;
const KIND_DELIVERED: u8 = 1;
const KIND_COPY: u8 = 2;
const KIND_EMPTY: u8 = 3;
const KIND_READ: u8 = 4;
const KIND_RESEND: u8 = 5;
const KIND_UNAVAILABLE: u8 = 6;
const KIND_NAME: u8 = 7;

const USER: RangeInclusive<usize> = 0..=MAX_NAME_BYTES;
const MEDIA_TYPE: RangeInclusive<usize> = 0..=255;
const BODY: RangeInclusive<usize> = 0..=MAX_BODY_BYTES;
/// How many ids a receipt has, and the answer to a resend.
const IDS: RangeInclusive<usize> = 1..=MAX_MESSAGE_IDS;
/// How many ids a resend has.
const RESEND_IDS: RangeInclusive<usize> = 0..=MAX_MESSAGE_IDS;
const NAME: RangeInclusive<usize> = 1..=MAX_DEVICE_NAME_BYTES;

/// Bytes of a content beside its user, media type and body.
const OVERHEAD: usize = 2 + MESSAGE_ID_LEN + 8 + 1 + 1 + 3;

impl<'a> Content<'a> {
    /// Reads a content strictly, without copying (docs/protocol.md §9.3).
    ///
    /// # Errors
    /// [`ContentError`] says what is not of the form; the sender made it.
    pub fn decode(plaintext: &'a [u8]) -> Result<Self, ContentError> {
        let mut reader = Reader::new(plaintext);
        if reader.u8()? != VERSION {
            return Err(ContentError::Version);
        }
        let kind = reader.u8()?;
        let id = *reader.array()?;
        let time = reader.u64()?;
        let user = reader.vec8(USER)?;
        let media_type = reader.vec8(MEDIA_TYPE)?;
        let bytes = reader.vec24(BODY)?;
        reader.finish()?;

        let kind = match kind {
            KIND_MESSAGE | KIND_COPY => Kind::with_body(kind, user, Body::new(media_type, bytes)?)?,
            KIND_DELIVERED | KIND_EMPTY..=KIND_NAME
                if !(user.is_empty() && media_type.is_empty()) =>
            {
                return Err(ContentError::UnexpectedField);
            }
            KIND_DELIVERED => Kind::Delivered(ids(bytes, &IDS)?),
            KIND_EMPTY if bytes.is_empty() => Kind::Empty,
            KIND_EMPTY => return Err(ContentError::UnexpectedField),
            KIND_READ => Kind::Read(ids(bytes, &IDS)?),
            KIND_RESEND => Kind::Resend(ids(bytes, &RESEND_IDS)?),
            KIND_UNAVAILABLE => Kind::Unavailable(ids(bytes, &IDS)?),
            KIND_NAME => Kind::Name(checked_name(bytes)?),
            _ => return Err(ContentError::Kind),
        };
        Ok(Self { id, time, kind })
    }

    /// Writes the content, unpadded; [`seal`](crate::message::seal) pads.
    ///
    /// # Errors
    /// [`ContentError`] where a field is not what it may be: the caller is to blame.
    pub fn encode(&self) -> Result<Vec<u8>, ContentError> {
        let (kind, user, Body { media_type, bytes }) = match self.kind {
            Kind::Message(body) => (KIND_MESSAGE, "", body.checked()?),
            Kind::Copy { user, body } => {
                (KIND_COPY, checked_user(user.as_bytes())?, body.checked()?)
            }
            Kind::Empty => (KIND_EMPTY, "", Body::bare(b"")),
            Kind::Delivered(ids) => (KIND_DELIVERED, "", Body::bare(ids.checked(&IDS)?)),
            Kind::Read(ids) => (KIND_READ, "", Body::bare(ids.checked(&IDS)?)),
            Kind::Resend(ids) => (KIND_RESEND, "", Body::bare(ids.checked(&RESEND_IDS)?)),
            Kind::Unavailable(ids) => (KIND_UNAVAILABLE, "", Body::bare(ids.checked(&IDS)?)),
            Kind::Name(name) => {
                let name = checked_name(name.as_bytes())?;
                (KIND_NAME, "", Body::bare(name.as_bytes()))
            }
        };
        let mut out = Vec::with_capacity(OVERHEAD + user.len() + media_type.len() + bytes.len());
        let mut writer = Writer::new(&mut out);
        writer.u8(VERSION).u8(kind).bytes(&self.id).u64(self.time);
        writer
            .vec8(user.as_bytes(), USER)
            .map_err(|_| ContentError::User)?;
        writer
            .vec8(media_type.as_bytes(), MEDIA_TYPE)
            .map_err(|_| ContentError::MediaType)?;
        writer
            .vec24(bytes, BODY)
            .map_err(|_| ContentError::BodyTooLong)?;
        Ok(out)
    }
}

impl<'a> Kind<'a> {
    fn with_body(kind: u8, user: &'a [u8], body: Body<'a>) -> Result<Self, ContentError> {
        match kind {
            KIND_MESSAGE if user.is_empty() => Ok(Self::Message(body)),
            KIND_MESSAGE => Err(ContentError::UnexpectedField),
            _ => Ok(Self::Copy {
                user: checked_user(user)?,
                body,
            }),
        }
    }
}

impl<'a> MessageIds<'a> {
    /// The encoded ids, if there are as many as `bounds` allow.
    fn checked(self, bounds: &RangeInclusive<usize>) -> Result<&'a [u8], ContentError> {
        if bounds.contains(&self.len()) {
            Ok(self.0.as_flattened())
        } else {
            Err(ContentError::Ids)
        }
    }
}

fn ids<'a>(
    bytes: &'a [u8],
    bounds: &RangeInclusive<usize>,
) -> Result<MessageIds<'a>, ContentError> {
    let ids = MessageIds::from_bytes(bytes).ok_or(ContentError::Ids)?;
    ids.checked(bounds)?;
    Ok(ids)
}

impl<'a> Body<'a> {
    /// What is not a body of the application's.
    const fn bare(bytes: &'a [u8]) -> Self {
        Self {
            media_type: "",
            bytes,
        }
    }

    fn checked(self) -> Result<Self, ContentError> {
        Self::new(self.media_type.as_bytes(), self.bytes)
    }

    fn new(media_type: &'a [u8], bytes: &'a [u8]) -> Result<Self, ContentError> {
        let media_type = core::str::from_utf8(media_type).map_err(|_| ContentError::MediaType)?;
        if !is_media_type(media_type) {
            return Err(ContentError::MediaType);
        }
        Ok(Self { media_type, bytes })
    }
}

impl fmt::Debug for Kind<'_> {
    /// Without the user of a copy and the name of a device.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(body) => write!(f, "Message({body:?})"),
            Self::Delivered(ids) => write!(f, "Delivered({ids:?})"),
            Self::Copy { body, .. } => write!(f, "Copy({body:?})"),
            Self::Empty => f.write_str("Empty"),
            Self::Read(ids) => write!(f, "Read({ids:?})"),
            Self::Resend(ids) => write!(f, "Resend({ids:?})"),
            Self::Unavailable(ids) => write!(f, "Unavailable({ids:?})"),
            Self::Name(name) => write!(f, "Name({} bytes)", name.len()),
        }
    }
}

impl fmt::Debug for Body<'_> {
    /// Only how long it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.bytes.len())
    }
}

/// docs/protocol.md §1.2
fn checked_user(user: &[u8]) -> Result<&str, ContentError> {
    User::from_bytes(user).map_err(|_| ContentError::User)?;
    core::str::from_utf8(user).map_err(|_| ContentError::User)
}

/// The name of a device: 1 to 64 bytes of UTF-8 without control characters.
fn checked_name(name: &[u8]) -> Result<&str, ContentError> {
    let text = core::str::from_utf8(name).map_err(|_| ContentError::Name)?;
    if NAME.contains(&name.len()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(ContentError::Name)
    }
}

/// `type/subtype` with the names of RFC 6838 §4.2, and after a semicolon any printable ASCII: what a parameter means
/// is for whoever shows the body.
pub(crate) fn is_media_type(text: &str) -> bool {
    let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
    let Some((top_level, subtype)) = name.split_once('/') else {
        return false;
    };
    is_restricted_name(top_level)
        && is_restricted_name(subtype)
        && parameters
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

/// `restricted-name` of RFC 6838 §4.2.
fn is_restricted_name(name: &str) -> bool {
    name.len() <= 127
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

/// Why a content cannot be read, or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentError {
    /// A field is missing, has a length out of bounds, or bytes follow the last one (docs/protocol.md §1.1).
    #[error("the content is not in its binary form: {0}")]
    Encoding(#[from] DecodeError),
    /// Not version 1.
    #[error("the content has another version than 1: one of the two devices needs an update")]
    Version,
    /// Not one of the eight kinds.
    #[error("the content is of a kind that is not defined")]
    Kind,
    /// A field that must be empty in this kind is not.
    #[error("the content has a field that its kind does not have")]
    UnexpectedField,
    /// The user of a copy is not 1 to 255 bytes of UTF-8 without control characters (docs/protocol.md §1.2).
    #[error("the user is empty, longer than 255 bytes, not UTF-8, or has control characters")]
    User,
    /// Too few or too many ids of messages, or one that is not whole.
    #[error("the ids of messages are none or more than 256, or one of them is not 16 bytes")]
    Ids,
    /// The name of a device is not 1 to 64 bytes of UTF-8 without control characters.
    #[error(
        "the device's name is empty, longer than 64 bytes, not UTF-8, or has control characters"
    )]
    Name,
    /// The media type is not one.
    #[error("the media type is not of the form type/subtype in ASCII, at most 255 bytes")]
    MediaType,
    /// The body is longer than 65,536 bytes.
    #[error("the body is longer than 65,536 bytes: split it or send a reference")]
    BodyTooLong,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{format, vec};

    const TEXT: Body<'_> = Body {
        media_type: "text/plain",
        bytes: b"hello",
    };

    const IDS: &[[u8; MESSAGE_ID_LEN]] = &[[2; MESSAGE_ID_LEN], [3; MESSAGE_ID_LEN]];

    fn encoded(kind: Kind<'_>) -> Result<Vec<u8>, ContentError> {
        Content {
            id: [1; MESSAGE_ID_LEN],
            time: 2,
            kind,
        }
        .encode()
    }

    #[test]
    fn every_kind_comes_back() {
        for kind in [
            Kind::Message(TEXT),
            Kind::Delivered(IDS.into()),
            Kind::Copy {
                user: "bob",
                body: TEXT,
            },
            Kind::Empty,
            Kind::Read(IDS.into()),
            Kind::Resend(IDS.into()),
            Kind::Resend([].as_slice().into()),
            Kind::Unavailable(IDS.into()),
            Kind::Name("phone"),
        ] {
            let bytes = encoded(kind).unwrap();
            assert_eq!(
                Content::decode(&bytes),
                Ok(Content {
                    id: [1; MESSAGE_ID_LEN],
                    time: 2,
                    kind
                })
            );
        }
    }

    /// docs/protocol.md §1.2
    #[test]
    fn copy_to_an_unacceptable_user_is_not_written() {
        let long = "u".repeat(256);
        for user in ["", "a\nb", "a\u{7f}", "a\u{9f}", &long] {
            assert_eq!(
                encoded(Kind::Copy { user, body: TEXT }),
                Err(ContentError::User),
                "{user:?}"
            );
        }
    }

    /// docs/protocol.md §9.3, RFC 6838 §4.2
    #[test]
    fn body_with_an_unacceptable_media_type_is_not_written() {
        let long = format!("a/{}", "b".repeat(128));
        let longer = format!("a/b;{}", "c".repeat(252));
        for media_type in [
            "",
            "a",
            "a/",
            "/b",
            "a/b/c",
            "a b/c",
            ".a/b",
            "a/+b",
            "a/b\n",
            "a/b;\x1b",
            "a/b;\u{e9}",
            "\u{e9}/b",
            &long,
            &longer,
        ] {
            let kind = Kind::Message(Body {
                media_type,
                bytes: b"",
            });
            assert_eq!(
                encoded(kind),
                Err(ContentError::MediaType),
                "{media_type:?}"
            );
        }
    }

    /// docs/protocol.md §12
    #[test]
    fn body_over_65536_bytes_is_not_written() {
        let bytes = vec![0; MAX_BODY_BYTES + 1];
        let kind = Kind::Message(Body {
            media_type: "a/b",
            bytes: &bytes,
        });
        assert_eq!(encoded(kind), Err(ContentError::BodyTooLong));
    }

    /// docs/protocol.md §9.3: 1 to 256 ids, in a resend 0 to 256
    #[test]
    fn too_few_and_too_many_ids_are_not_written() {
        let many = [[0; MESSAGE_ID_LEN]; MAX_MESSAGE_IDS + 1];
        let (none, many) = (
            MessageIds::from([].as_slice()),
            MessageIds::from(many.as_slice()),
        );
        for kind in [Kind::Delivered, Kind::Read, Kind::Unavailable] {
            assert_eq!(encoded(kind(none)), Err(ContentError::Ids));
            assert_eq!(encoded(kind(many)), Err(ContentError::Ids));
        }
        assert_eq!(encoded(Kind::Resend(many)), Err(ContentError::Ids));
        assert!(encoded(Kind::Resend(none)).is_ok());
    }

    /// docs/protocol.md §9.3
    #[test]
    fn name_out_of_bounds_is_not_written() {
        let long = "n".repeat(MAX_DEVICE_NAME_BYTES + 1);
        for name in ["", &long, "a\nb", "a\u{7f}", "a\u{9f}"] {
            assert_eq!(
                encoded(Kind::Name(name)),
                Err(ContentError::Name),
                "{name:?}"
            );
        }
        assert!(encoded(Kind::Name(&long[1..])).is_ok());
    }

    #[test]
    fn debug_shows_no_user_name_or_id() {
        for (kind, shown) in [
            (Kind::Delivered(IDS.into()), "Delivered(2 ids)"),
            (Kind::Read(IDS.into()), "Read(2 ids)"),
            (Kind::Resend(IDS.into()), "Resend(2 ids)"),
            (Kind::Unavailable(IDS.into()), "Unavailable(2 ids)"),
            (Kind::Name("phone"), "Name(5 bytes)"),
            (
                Kind::Copy {
                    user: "bob",
                    body: TEXT,
                },
                "Copy(Body(5 bytes))",
            ),
        ] {
            assert_eq!(format!("{kind:?}"), shown);
        }
    }

    /// docs/protocol.md §1.1
    #[test]
    fn content_cut_anywhere_is_refused() {
        let bytes = encoded(Kind::Copy {
            user: "bob",
            body: TEXT,
        })
        .unwrap();
        for len in 0..bytes.len() {
            assert_eq!(
                Content::decode(&bytes[..len]),
                Err(ContentError::Encoding(DecodeError::EndsEarly)),
                "{len}"
            );
        }
    }

    /// docs/protocol.md §9.3
    #[test]
    fn every_undefined_version_and_kind_is_refused() {
        let mut bytes = encoded(Kind::Empty).unwrap();
        for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
            bytes[0] = version;
            assert_eq!(Content::decode(&bytes), Err(ContentError::Version));
        }
        bytes[0] = VERSION;
        for kind in 8..=u8::MAX {
            bytes[1] = kind;
            assert_eq!(Content::decode(&bytes), Err(ContentError::Kind));
        }
    }
}
