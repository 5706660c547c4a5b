//! Frames from a device to the relay (docs/protocol.md §5.1).

use core::fmt;
use core::ops::RangeInclusive;

use super::{CARD, Frame, Length, List, ListItem, MESSAGE, MessageId, OneTimePrekey, RequestId};
use super::{request, user, write_request, write_user};
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::key::Thumbprint;
use crate::limits::{MAX_PROOF_BYTES, MAX_SEND_PARTS, MAX_TOKEN_BYTES};

const PROOF: RangeInclusive<usize> = 1..=MAX_PROOF_BYTES;
const TOKEN: RangeInclusive<usize> = 0..=MAX_TOKEN_BYTES;

const SEND: u8 = 0x01;
const ACK: u8 = 0x02;
const PUBLISH_CARD: u8 = 0x03;
const PUBLISH_PREKEYS: u8 = 0x04;
const FETCH_CARDS: u8 = 0x05;
const REFRESH: u8 = 0x06;

/// What a device says to the relay.
#[derive(Clone, Copy, PartialEq)]
pub enum ToRelay<'a> {
    /// Messages for the devices of a user.
    Send(Send<'a>),
    /// Everything up to this position may be erased from the mailbox.
    Ack {
        /// The last position that is done with.
        position: u64,
    },
    /// The device's card is to be handed out.
    PublishCard {
        /// Repeated in the reply.
        request: RequestId,
        /// A compact JWS, 1 to 16,384 bytes.
        card: &'a [u8],
    },
    /// One-time prekeys to be handed out, once each.
    PublishPrekeys {
        /// Repeated in the reply.
        request: RequestId,
        /// 1 to 100 of them.
        prekeys: List<'a, OneTimePrekey<'a>>,
    },
    /// The cards of a user's devices are wanted.
    FetchCards {
        /// Repeated in the reply.
        request: RequestId,
        /// The user, §1.2.
        user: &'a str,
        /// Whether one-time prekeys are wanted too.
        take: bool,
    },
    /// A new token for this link (docs/protocol.md §5.4).
    Refresh {
        /// Repeated in the reply.
        request: RequestId,
        /// A device proof, 1 to 2,048 bytes.
        proof: &'a [u8],
        /// The new token, at most 8,192 bytes; empty to ask the built-in issuer for one.
        token: &'a [u8],
    },
}

/// A message to a user, sealed separately for each of their devices.
#[derive(Clone, Copy, PartialEq)]
pub struct Send<'a> {
    /// Repeated in the reply.
    pub request: RequestId,
    /// The same in each repetition of this Send.
    pub id: MessageId,
    /// The recipient, §1.2.
    pub user: &'a str,
    /// One for each device of the recipient: 1 to 16.
    pub parts: List<'a, Part<'a>>,
}

/// A sealed message for one device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The recipient device.
    pub device: Thumbprint,
    /// The sealed message, 1 to 98,304 bytes.
    pub message: &'a [u8],
}

impl fmt::Debug for ToRelay<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(send) => send.fmt(f),
            Self::Ack { position } => f.debug_struct("Ack").field("position", position).finish(),
            Self::PublishCard { request, card } => f
                .debug_struct("PublishCard")
                .field("request", request)
                .field("card", &Length(card.len()))
                .finish(),
            Self::PublishPrekeys { request, prekeys } => f
                .debug_struct("PublishPrekeys")
                .field("request", request)
                .field("prekeys", prekeys)
                .finish(),
            Self::FetchCards {
                request,
                user,
                take,
            } => f
                .debug_struct("FetchCards")
                .field("request", request)
                .field("user", &Length(user.len()))
                .field("take", take)
                .finish(),
            Self::Refresh {
                request,
                proof,
                token,
            } => f
                .debug_struct("Refresh")
                .field("request", request)
                .field("proof", &Length(proof.len()))
                .field("token", &Length(token.len()))
                .finish(),
        }
    }
}

impl fmt::Debug for Send<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send")
            .field("request", &self.request)
            .field("id", &self.id)
            .field("user", &Length(self.user.len()))
            .field("parts", &self.parts)
            .finish()
    }
}

impl fmt::Debug for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("device", &self.device)
            .field("message", &Length(self.message.len()))
            .finish()
    }
}

impl<'a> ListItem<'a> for Part<'a> {
    const COUNT: RangeInclusive<usize> = 1..=MAX_SEND_PARTS;

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            device: Thumbprint::from_bytes(*reader.array()?),
            message: reader.vec24(MESSAGE)?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer
            .bytes(self.device.as_bytes())
            .vec24(self.message, MESSAGE)?;
        Ok(())
    }
}

impl<'a> Frame<'a> for ToRelay<'a> {
    fn type_byte(&self) -> u8 {
        match self {
            Self::Send(_) => SEND,
            Self::Ack { .. } => ACK,
            Self::PublishCard { .. } => PUBLISH_CARD,
            Self::PublishPrekeys { .. } => PUBLISH_PREKEYS,
            Self::FetchCards { .. } => FETCH_CARDS,
            Self::Refresh { .. } => REFRESH,
        }
    }

    fn encode_payload(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Send(send) => {
                write_request(writer, send.request)?;
                writer.bytes(&send.id);
                write_user(writer, send.user)?;
                send.parts.encode(writer)?;
            }
            Self::Ack { position } => {
                writer.u64(*position);
            }
            Self::PublishCard { request, card } => {
                write_request(writer, *request)?;
                writer.vec16(card, CARD)?;
            }
            Self::PublishPrekeys { request, prekeys } => {
                write_request(writer, *request)?;
                prekeys.encode(writer)?;
            }
            Self::FetchCards {
                request,
                user,
                take,
            } => {
                write_request(writer, *request)?;
                write_user(writer, user)?;
                writer.bool(*take);
            }
            Self::Refresh {
                request,
                proof,
                token,
            } => {
                write_request(writer, *request)?;
                writer.vec16(proof, PROOF)?.vec16(token, TOKEN)?;
            }
        }
        Ok(())
    }

    fn decode_payload(type_byte: u8, payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match type_byte {
            SEND => Self::Send(Send {
                request: request(payload)?,
                id: *payload.array()?,
                user: user(payload)?,
                parts: List::decode(payload)?,
            }),
            ACK => Self::Ack {
                position: payload.u64()?,
            },
            PUBLISH_CARD => Self::PublishCard {
                request: request(payload)?,
                card: payload.vec16(CARD)?,
            },
            PUBLISH_PREKEYS => Self::PublishPrekeys {
                request: request(payload)?,
                prekeys: List::decode(payload)?,
            },
            FETCH_CARDS => Self::FetchCards {
                request: request(payload)?,
                user: user(payload)?,
                take: payload.bool()?,
            },
            REFRESH => Self::Refresh {
                request: request(payload)?,
                proof: payload.vec16(PROOF)?,
                token: payload.vec16(TOKEN)?,
            },
            _ => return Err(DecodeError::UnknownValue),
        })
    }
}
