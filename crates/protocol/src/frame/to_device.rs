//! Frames from the relay to a device (docs/protocol.md §5.2).

use core::fmt;
use core::ops::RangeInclusive;

use super::{BLOB_DATA, CARD, Frame, Length, List, ListItem, MESSAGE, SERVICE_PAYLOAD};
use super::{MessageId, OneTimePrekey, RequestId};
use super::{request, service, user, write_request, write_service, write_user};
use crate::close::RefusalCode;
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::key::Thumbprint;
use crate::limits::{MAX_CARDS, MAX_TOKEN_BYTES};

const TOKEN: RangeInclusive<usize> = 1..=MAX_TOKEN_BYTES;
const ENTRIES: RangeInclusive<usize> = 0..=MAX_CARDS;

pub(crate) const READY: u8 = 0x41;
const ACCEPTED: u8 = 0x42;
const REFUSED: u8 = 0x43;
const DELIVER: u8 = 0x44;
const CARDS: u8 = 0x45;
const TOKEN_TYPE: u8 = 0x46;
const DEVICE_CHANGED: u8 = 0x47;
const UNDELIVERED: u8 = 0x48;
const DAMAGED: u8 = 0x49;
const BLOB: u8 = 0x4a;
const RESULT: u8 = 0x4b;
const PUSH: u8 = 0x4c;
const EXPIRING: u8 = 0x4d;
const LEAVING: u8 = 0x4e;

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
    /// A message of this device's user will not be delivered. It comes from the mailbox, like a Deliver.
    Undelivered(Undelivered<'a>),
    /// What was in the mailbox there was damaged on the relay's disk, and nothing of it is known.
    Damaged {
        /// The position in the mailbox, to be acknowledged.
        position: u64,
    },
    /// How much of a blob the relay has, and perhaps a piece of it: the answer to an Upload or a Download.
    Blob(Blob<'a>),
    /// What a service has answered (docs/protocol.md §17).
    Result {
        /// Which request.
        request: RequestId,
        /// At most 1 MiB.
        payload: &'a [u8],
    },
    /// Something that a service says unasked (docs/protocol.md §17).
    Push(Push<'a>),
    /// The link's token is about to expire (docs/protocol.md §5.4): a device that has not asked for another does so now.
    Expiring {
        /// When it expires, in seconds since 1970.
        expires: u64,
    },
    /// The relay is about to close the link with 4000, because it is being stopped: everything that it had taken is answered before the close.
    Leaving {
        /// How long the device is to stay away, in milliseconds.
        after: u32,
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
    /// The position of the newest message in the mailbox, or where this start of the relay begins if that is later.
    pub head: u64,
    /// The highest sequence of a Send of this device that was accepted; 0: none.
    pub sent: u64,
    /// Messages and notices that are in the mailbox now.
    pub waiting: u32,
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

/// What became of a message that was accepted and will not be delivered (docs/protocol.md §5.2).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Undelivered<'a> {
    /// The position in the mailbox, to be acknowledged.
    pub position: u64,
    /// Which message.
    pub id: MessageId,
    /// The user it was for, §1.2.
    pub user: &'a str,
    /// The device that will not get it.
    pub device: Thumbprint,
    /// Why not.
    pub reason: UndeliveredReason,
}

/// Why an accepted message will not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UndeliveredReason {
    /// 1: the device did not fetch it in time.
    Expired,
    /// 2: the device was removed.
    DeviceRemoved,
    /// 3: it is of the sender's own user, and its mailbox had no room.
    MailboxFull,
}

impl UndeliveredReason {
    /// The number in the Undelivered frame.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Expired => 1,
            Self::DeviceRemoved => 2,
            Self::MailboxFull => 3,
        }
    }

    /// The reason with this number, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Expired),
            2 => Some(Self::DeviceRemoved),
            3 => Some(Self::MailboxFull),
            _ => None,
        }
    }
}

/// How much of a blob the relay has, and for a Download a piece of it (docs/protocol.md §15).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    /// Which request.
    pub request: RequestId,
    /// Bytes of the blob that the relay has.
    pub length: u64,
    /// Bytes of the whole blob.
    pub size: u64,
    /// Whether all of it is there, safely.
    pub complete: bool,
    /// What a Download asked for, at most 131,072 bytes; empty for an Upload.
    pub data: &'a [u8],
}

/// Something that a service of the relay's application says unasked (docs/protocol.md §17). It is not in the mailbox.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Push<'a> {
    /// The name of the service, §17.1.
    pub service: &'a str,
    /// At most 1 MiB.
    pub payload: &'a [u8],
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
            Self::Undelivered(undelivered) => undelivered.fmt(f),
            Self::Damaged { position } => f
                .debug_struct("Damaged")
                .field("position", position)
                .finish(),
            Self::Blob(blob) => blob.fmt(f),
            Self::Result { request, payload } => f
                .debug_struct("Result")
                .field("request", request)
                .field("payload", &Length(payload.len()))
                .finish(),
            Self::Push(push) => push.fmt(f),
            Self::Expiring { expires } => f
                .debug_struct("Expiring")
                .field("expires", expires)
                .finish(),
            Self::Leaving { after } => f.debug_struct("Leaving").field("after", after).finish(),
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
            .field("sent", &self.sent)
            .field("waiting", &self.waiting)
            .finish()
    }
}

impl fmt::Debug for Undelivered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Undelivered")
            .field("position", &self.position)
            .field("id", &self.id)
            .field("user", &Length(self.user.len()))
            .field("device", &self.device)
            .field("reason", &self.reason)
            .finish()
    }
}

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("request", &self.request)
            .field("length", &self.length)
            .field("size", &self.size)
            .field("complete", &self.complete)
            .field("data", &Length(self.data.len()))
            .finish()
    }
}

impl fmt::Debug for Push<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("service", &self.service)
            .field("payload", &Length(self.payload.len()))
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
            Self::Undelivered(_) => UNDELIVERED,
            Self::Damaged { .. } => DAMAGED,
            Self::Blob(_) => BLOB,
            Self::Result { .. } => RESULT,
            Self::Push(_) => PUSH,
            Self::Expiring { .. } => EXPIRING,
            Self::Leaving { .. } => LEAVING,
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
                entries.encode(writer, ENTRIES)?;
            }
            Self::Token {
                request,
                expires,
                token,
            } => {
                writer.u32(*request).u64(*expires).vec16(token, TOKEN)?;
            }
            Self::DeviceChanged { user } => write_user(writer, user)?,
            Self::Undelivered(undelivered) => undelivered.encode(writer)?,
            Self::Damaged { position } => {
                writer.u64(*position);
            }
            Self::Blob(blob) => blob.encode(writer)?,
            Self::Result { request, payload } => {
                write_request(writer, *request)?;
                writer.vec24(payload, SERVICE_PAYLOAD)?;
            }
            Self::Push(push) => push.encode(writer)?,
            Self::Expiring { expires } => {
                writer.u64(*expires);
            }
            Self::Leaving { after } => {
                writer.u32(*after);
            }
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
                entries: List::decode(payload, ENTRIES)?,
            },
            TOKEN_TYPE => Self::Token {
                request: payload.u32()?,
                expires: payload.u64()?,
                token: payload.vec16(TOKEN)?,
            },
            DEVICE_CHANGED => Self::DeviceChanged {
                user: user(payload)?,
            },
            UNDELIVERED => Self::Undelivered(Undelivered::decode(payload)?),
            DAMAGED => Self::Damaged {
                position: payload.u64()?,
            },
            BLOB => Self::Blob(Blob::decode(payload)?),
            RESULT => Self::Result {
                request: request(payload)?,
                payload: payload.vec24(SERVICE_PAYLOAD)?,
            },
            PUSH => Self::Push(Push::decode(payload)?),
            EXPIRING => Self::Expiring {
                expires: payload.u64()?,
            },
            LEAVING => Self::Leaving {
                after: payload.u32()?,
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
            .u64(self.head)
            .u64(self.sent)
            .u32(self.waiting);
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
            sent: payload.u64()?,
            waiting: payload.u32()?,
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

impl<'a> Undelivered<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.u64(self.position).bytes(&self.id);
        write_user(writer, self.user)?;
        writer.bytes(self.device.as_bytes()).u8(self.reason.code());
        Ok(())
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            position: payload.u64()?,
            id: *payload.array()?,
            user: user(payload)?,
            device: Thumbprint::from_bytes(*payload.array()?),
            reason: UndeliveredReason::from_code(payload.u8()?).ok_or(DecodeError::UnknownValue)?,
        })
    }
}

impl<'a> Blob<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_request(writer, self.request)?;
        writer
            .u64(self.length)
            .u64(self.size)
            .bool(self.complete)
            .vec24(self.data, BLOB_DATA)?;
        Ok(())
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            request: request(payload)?,
            length: payload.u64()?,
            size: payload.u64()?,
            complete: payload.bool()?,
            data: payload.vec24(BLOB_DATA)?,
        })
    }
}

impl<'a> Push<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_service(writer, self.service)?;
        writer.vec24(self.payload, SERVICE_PAYLOAD)?;
        Ok(())
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            service: service(payload)?,
            payload: payload.vec24(SERVICE_PAYLOAD)?,
        })
    }
}
