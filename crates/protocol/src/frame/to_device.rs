//! Frames from the relay to a device (docs/protocol.md §5.2).

use core::fmt;
use core::ops::RangeInclusive;

use super::{CARD, Frame, Length, List, ListItem, MESSAGE, MessageId, OneTimePrekey, RequestId};
use super::{request, user, write_request, write_user};
use crate::close::RefusalCode;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::key::Thumbprint;
use crate::limits::{MAX_CARDS, MAX_TOKEN_BYTES};

const TOKEN: RangeInclusive<usize> = 1..=MAX_TOKEN_BYTES;

pub(crate) const READY: u8 = 0x41;
const ACCEPTED: u8 = 0x42;
const REFUSED: u8 = 0x43;
const DELIVER: u8 = 0x44;
const CARDS: u8 = 0x45;
const TOKEN_TYPE: u8 = 0x46;
const DEVICE_CHANGED: u8 = 0x47;

/// What the relay says to a device.
#[derive(Clone, Copy, PartialEq)]
pub enum ToDevice<'a> {
    /// The link is open: always the first frame, and never a later one.
    Ready(Ready<'a>),
    /// The request was done.
    Accepted {
        /// Which request.
        request: RequestId,
    },
    /// The request was not done, and nothing of it was.
    Refused {
        /// Which request.
        request: RequestId,
        /// Why not.
        code: RefusalCode,
    },
    /// A message from the mailbox.
    Deliver(Deliver<'a>),
    /// The cards that a FetchCards asked for.
    Cards {
        /// Which request.
        request: RequestId,
        /// One for each device of the user: 0 to 16.
        entries: List<'a, CardEntry<'a>>,
    },
    /// A token that the built-in issuer minted.
    Token {
        /// Which request; 0 after Ready (docs/protocol.md §3.6).
        request: RequestId,
        /// When the token expires, in seconds since 1970.
        expires: u64,
        /// The token, 1 to 8,192 bytes.
        token: &'a [u8],
    },
    /// The set of a user's devices changed.
    DeviceChanged {
        /// The user, §1.2.
        user: &'a str,
    },
}

/// What the relay says first. That `device` is the device's own thumbprint has been checked by
/// [`DeviceLink`](crate::link::DeviceLink).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ready<'a> {
    /// The device that the link belongs to.
    pub device: Thumbprint,
    /// Its user, §1.2.
    pub user: &'a str,
    /// The relay's clock, in seconds since 1970.
    pub time: u64,
    /// When the link ends unless it is refreshed, in seconds since 1970.
    pub token_expires: u64,
    /// Bytes of the largest sealed message the relay takes from this device.
    pub max_message: u32,
    /// Whether the relay has a card of this device.
    pub has_card: bool,
    /// One-time prekeys the relay still holds; 255 means that many or more.
    pub prekeys: u8,
    /// Which history of the mailbox the positions belong to.
    pub epoch: [u8; 16],
    /// The position up to which the device has acknowledged.
    pub acknowledged: u64,
    /// The position of the newest message in the mailbox.
    pub head: u64,
}

/// A message from another device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Deliver<'a> {
    /// The position in the mailbox, to be acknowledged.
    pub position: u64,
    /// The sender's id of the message.
    pub id: MessageId,
    /// The sender, §1.2, as the relay authenticated it.
    pub user: &'a str,
    /// The sender's device, as the relay authenticated it.
    pub device: Thumbprint,
    /// When the relay accepted it, in milliseconds since 1970.
    pub time: u64,
    /// The sealed message, 1 to 98,304 bytes.
    pub message: &'a [u8],
}

/// A device's card, and perhaps a one-time prekey of it. Neither has been verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CardEntry<'a> {
    /// A compact JWS, 1 to 16,384 bytes.
    pub card: &'a [u8],
    /// Handed out to nobody else.
    pub prekey: Option<OneTimePrekey<'a>>,
}

impl fmt::Debug for ToDevice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(ready) => ready.fmt(f),
            Self::Accepted { request } => f
                .debug_struct("Accepted")
                .field("request", request)
                .finish(),
            Self::Refused { request, code } => f
                .debug_struct("Refused")
                .field("request", request)
                .field("code", code)
                .finish(),
            Self::Deliver(deliver) => deliver.fmt(f),
            Self::Cards { request, entries } => f
                .debug_struct("Cards")
                .field("request", request)
                .field("entries", entries)
                .finish(),
            Self::Token {
                request,
                expires,
                token,
            } => f
                .debug_struct("Token")
                .field("request", request)
                .field("expires", expires)
                .field("token", &Length(token.len()))
                .finish(),
            Self::DeviceChanged { user } => f
                .debug_struct("DeviceChanged")
                .field("user", &Length(user.len()))
                .finish(),
        }
    }
}

impl fmt::Debug for Ready<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready")
            .field("device", &self.device)
            .field("user", &Length(self.user.len()))
            .field("time", &self.time)
            .field("token_expires", &self.token_expires)
            .field("max_message", &self.max_message)
            .field("has_card", &self.has_card)
            .field("prekeys", &self.prekeys)
            .field("epoch", &self.epoch)
            .field("acknowledged", &self.acknowledged)
            .field("head", &self.head)
            .finish()
    }
}

impl fmt::Debug for Deliver<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliver")
            .field("position", &self.position)
            .field("id", &self.id)
            .field("user", &Length(self.user.len()))
            .field("device", &self.device)
            .field("time", &self.time)
            .field("message", &Length(self.message.len()))
            .finish()
    }
}

impl fmt::Debug for CardEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CardEntry")
            .field("card", &Length(self.card.len()))
            .field("prekey", &self.prekey)
            .finish()
    }
}

impl<'a> ListItem<'a> for CardEntry<'a> {
    const COUNT: RangeInclusive<usize> = 0..=MAX_CARDS;

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let card = reader.vec16(CARD)?;
        let prekey = match reader.count8(0..=1)? {
            0 => None,
            _ => Some(OneTimePrekey::decode(reader)?),
        };
        Ok(Self { card, prekey })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.vec16(self.card, CARD)?.bool(self.prekey.is_some());
        self.prekey
            .iter()
            .try_for_each(|prekey| prekey.encode(writer))
    }
}

impl<'a> Frame<'a> for ToDevice<'a> {
    fn type_byte(&self) -> u8 {
        match self {
            Self::Ready(_) => READY,
            Self::Accepted { .. } => ACCEPTED,
            Self::Refused { .. } => REFUSED,
            Self::Deliver(_) => DELIVER,
            Self::Cards { .. } => CARDS,
            Self::Token { .. } => TOKEN_TYPE,
            Self::DeviceChanged { .. } => DEVICE_CHANGED,
        }
    }

    fn encode_payload(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Ready(ready) => ready.encode(writer)?,
            Self::Accepted { request } => write_request(writer, *request)?,
            Self::Refused { request, code } => {
                write_request(writer, *request)?;
                writer.u16(code.code());
            }
            Self::Deliver(deliver) => deliver.encode(writer)?,
            Self::Cards { request, entries } => {
                write_request(writer, *request)?;
                entries.encode(writer)?;
            }
            Self::Token {
                request,
                expires,
                token,
            } => {
                writer.u32(*request).u64(*expires).vec16(token, TOKEN)?;
            }
            Self::DeviceChanged { user } => write_user(writer, user)?,
        }
        Ok(())
    }

    fn decode_payload(type_byte: u8, payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match type_byte {
            READY => Self::Ready(Ready::decode(payload)?),
            ACCEPTED => Self::Accepted {
                request: request(payload)?,
            },
            REFUSED => Self::Refused {
                request: request(payload)?,
                code: RefusalCode::from_code(payload.u16()?).ok_or(DecodeError::UnknownValue)?,
            },
            DELIVER => Self::Deliver(Deliver::decode(payload)?),
            CARDS => Self::Cards {
                request: request(payload)?,
                entries: List::decode(payload)?,
            },
            TOKEN_TYPE => Self::Token {
                request: payload.u32()?,
                expires: payload.u64()?,
                token: payload.vec16(TOKEN)?,
            },
            DEVICE_CHANGED => Self::DeviceChanged {
                user: user(payload)?,
            },
            _ => return Err(DecodeError::UnknownValue),
        })
    }
}

impl<'a> Ready<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(self.device.as_bytes());
        write_user(writer, self.user)?;
        writer
            .u64(self.time)
            .u64(self.token_expires)
            .u32(self.max_message);
        writer
            .bool(self.has_card)
            .u8(self.prekeys)
            .bytes(&self.epoch)
            .u64(self.acknowledged)
            .u64(self.head);
        Ok(())
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            device: Thumbprint::from_bytes(*payload.array()?),
            user: user(payload)?,
            time: payload.u64()?,
            token_expires: payload.u64()?,
            max_message: payload.u32()?,
            has_card: payload.bool()?,
            prekeys: payload.u8()?,
            epoch: *payload.array()?,
            acknowledged: payload.u64()?,
            head: payload.u64()?,
        })
    }
}

impl<'a> Deliver<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.u64(self.position).bytes(&self.id);
        write_user(writer, self.user)?;
        writer
            .bytes(self.device.as_bytes())
            .u64(self.time)
            .vec24(self.message, MESSAGE)?;
        Ok(())
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            position: payload.u64()?,
            id: *payload.array()?,
            user: user(payload)?,
            device: Thumbprint::from_bytes(*payload.array()?),
            time: payload.u64()?,
            message: payload.vec24(MESSAGE)?,
        })
    }
}
