//! Frames from a device to the relay (docs/protocol.md §5.1).

use core::fmt;
use core::ops::RangeInclusive;

use super::{BLOB_DATA, CARD, Frame, Length, List, ListItem, MESSAGE, SERVICE_PAYLOAD};
use super::{BlobId, MessageId, OneTimePrekey, RequestId};
use super::{request, service, user, write_request, write_service, write_user};
use crate::codec::{DecodeError, EncodeError, Reader, Writer};
use crate::key::Thumbprint;
use crate::limits::{
    MAX_BLOB_CHUNK_BYTES, MAX_COPIES, MAX_PROOF_BYTES, MAX_PUBLISHED_PREKEYS, MAX_SEND_PARTS,
    MAX_TOKEN_BYTES,
};

const PROOF: RangeInclusive<usize> = 1..=MAX_PROOF_BYTES;
const TOKEN: RangeInclusive<usize> = 0..=MAX_TOKEN_BYTES;
const PARTS: RangeInclusive<usize> = 1..=MAX_SEND_PARTS;
const COPIES: RangeInclusive<usize> = 0..=MAX_COPIES;
const PREKEYS: RangeInclusive<usize> = 1..=MAX_PUBLISHED_PREKEYS;

const SEND: u8 = 0x01;
const ACK: u8 = 0x02;
const PUBLISH_CARD: u8 = 0x03;
const PUBLISH_PREKEYS: u8 = 0x04;
const FETCH_CARDS: u8 = 0x05;
const REFRESH: u8 = 0x06;
const REMOVE_DEVICE: u8 = 0x07;
const UPLOAD: u8 = 0x08;
const DOWNLOAD: u8 = 0x09;
const DISCARD: u8 = 0x0a;
const CALL: u8 = 0x0b;

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
        /// Whether those that the relay still holds are erased first.
        replace: bool,
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
    /// A device of the own user is to be removed, with its card, its prekeys and its mailbox.
    RemoveDevice {
        /// Repeated in the reply.
        request: RequestId,
        /// Which device; it may be the one that asks.
        device: Thumbprint,
    },
    /// A piece of a blob (docs/protocol.md §15).
    Upload(Upload<'a>),
    /// A piece of a blob is wanted (docs/protocol.md §15).
    Download {
        /// Repeated in the reply.
        request: RequestId,
        /// Which blob.
        blob: BlobId,
        /// From which byte on.
        offset: u64,
        /// How many bytes at most: 1 to 131,072.
        length: u32,
    },
    /// A blob of this device's is not needed any more.
    Discard {
        /// Repeated in the reply.
        request: RequestId,
        /// Which blob.
        blob: BlobId,
    },
    /// A service of the relay's application is called (docs/protocol.md §17).
    Call(Call<'a>),
}

/// A message to a user, sealed separately for each of their devices (docs/protocol.md §5.2).
#[derive(Clone, Copy, PartialEq)]
pub struct Send<'a> {
    /// Repeated in the reply.
    pub request: RequestId,
    /// Which of this device's Sends it is, from 1; the same in each repetition.
    pub sequence: u64,
    /// The id of the message.
    pub id: MessageId,
    /// The recipient, §1.2.
    pub user: &'a str,
    /// Whether it is for all of the recipient's devices, or for some of them.
    pub whole: bool,
    /// One for each device of the recipient, or for some of them: 1 to 16.
    pub parts: List<'a, Part<'a>>,
    /// One for each other device of the sender's own user: 0 to 15.
    pub copies: List<'a, Part<'a>>,
}

/// A piece of a blob to append. Without data it asks how much of the blob the relay has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Upload<'a> {
    /// Repeated in the reply.
    pub request: RequestId,
    /// Which blob.
    pub blob: BlobId,
    /// Bytes of the whole blob.
    pub size: u64,
    /// Where the data goes: how much of the blob the relay has.
    pub offset: u64,
    /// At most 131,072 bytes.
    pub data: &'a [u8],
}

/// What a service of the relay's application is asked, or told (docs/protocol.md §17). The relay reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Call<'a> {
    /// Repeated in the reply.
    pub request: RequestId,
    /// Whether the service's answer is wanted, or only that it has taken this.
    pub reply: bool,
    /// The name of the service, §17.1.
    pub service: &'a str,
    /// At most 1 MiB.
    pub payload: &'a [u8],
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
            Self::PublishPrekeys {
                request,
                replace,
                prekeys,
            } => f
                .debug_struct("PublishPrekeys")
                .field("request", request)
                .field("replace", replace)
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
            Self::RemoveDevice { request, device } => f
                .debug_struct("RemoveDevice")
                .field("request", request)
                .field("device", device)
                .finish(),
            Self::Upload(upload) => upload.fmt(f),
            Self::Download {
                request,
                offset,
                length,
                blob: _,
            } => f
                .debug_struct("Download")
                .field("request", request)
                .field("offset", offset)
                .field("length", length)
                .finish_non_exhaustive(),
            Self::Discard { request, blob: _ } => f
                .debug_struct("Discard")
                .field("request", request)
                .finish_non_exhaustive(),
            Self::Call(call) => call.fmt(f),
        }
    }
}

impl fmt::Debug for Send<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Send")
            .field("request", &self.request)
            .field("sequence", &self.sequence)
            .field("id", &self.id)
            .field("user", &Length(self.user.len()))
            .field("whole", &self.whole)
            .field("parts", &self.parts)
            .field("copies", &self.copies)
            .finish()
    }
}

impl fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("request", &self.request)
            .field("size", &self.size)
            .field("offset", &self.offset)
            .field("data", &Length(self.data.len()))
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("request", &self.request)
            .field("reply", &self.reply)
            .field("service", &self.service)
            .field("payload", &Length(self.payload.len()))
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
            Self::RemoveDevice { .. } => REMOVE_DEVICE,
            Self::Upload(_) => UPLOAD,
            Self::Download { .. } => DOWNLOAD,
            Self::Discard { .. } => DISCARD,
            Self::Call(_) => CALL,
        }
    }

    fn encode_payload(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Send(send) => send.encode(writer)?,
            Self::Ack { position } => {
                writer.u64(*position);
            }
            Self::PublishCard { request, card } => {
                write_request(writer, *request)?;
                writer.vec16(card, CARD)?;
            }
            Self::PublishPrekeys {
                request,
                replace,
                prekeys,
            } => {
                write_request(writer, *request)?;
                writer.bool(*replace);
                prekeys.encode(writer, PREKEYS)?;
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
            Self::RemoveDevice { request, device } => {
                write_request(writer, *request)?;
                writer.bytes(device.as_bytes());
            }
            Self::Upload(upload) => upload.encode(writer)?,
            Self::Download {
                request,
                blob,
                offset,
                length,
            } => {
                write_request(writer, *request)?;
                if !is_download_length(*length) {
                    return Err(EncodeError::LengthOutOfBounds);
                }
                writer.bytes(blob).u64(*offset).u32(*length);
            }
            Self::Discard { request, blob } => {
                write_request(writer, *request)?;
                writer.bytes(blob);
            }
            Self::Call(call) => call.encode(writer)?,
        }
        Ok(())
    }

    fn decode_payload(type_byte: u8, payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(match type_byte {
            SEND => Self::Send(Send::decode(payload)?),
            ACK => Self::Ack {
                position: payload.u64()?,
            },
            PUBLISH_CARD => Self::PublishCard {
                request: request(payload)?,
                card: payload.vec16(CARD)?,
            },
            PUBLISH_PREKEYS => Self::PublishPrekeys {
                request: request(payload)?,
                replace: payload.bool()?,
                prekeys: List::decode(payload, PREKEYS)?,
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
            REMOVE_DEVICE => Self::RemoveDevice {
                request: request(payload)?,
                device: Thumbprint::from_bytes(*payload.array()?),
            },
            UPLOAD => Self::Upload(Upload::decode(payload)?),
            DOWNLOAD => Self::Download {
                request: request(payload)?,
                blob: *payload.array()?,
                offset: payload.u64()?,
                length: download_length(payload)?,
            },
            DISCARD => Self::Discard {
                request: request(payload)?,
                blob: *payload.array()?,
            },
            CALL => Self::Call(Call::decode(payload)?),
            _ => return Err(DecodeError::UnknownValue),
        })
    }
}

impl<'a> Send<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_request(writer, self.request)?;
        // §5.1: sequences start at 1.
        if self.sequence == 0 {
            return Err(EncodeError::ReservedValue);
        }
        writer.u64(self.sequence).bytes(&self.id);
        write_user(writer, self.user)?;
        writer.bool(self.whole);
        self.parts.encode(writer, PARTS)?;
        self.copies.encode(writer, COPIES)
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            request: request(payload)?,
            sequence: sequence(payload)?,
            id: *payload.array()?,
            user: user(payload)?,
            whole: payload.bool()?,
            parts: List::decode(payload, PARTS)?,
            copies: List::decode(payload, COPIES)?,
        })
    }
}

impl<'a> Upload<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_request(writer, self.request)?;
        writer
            .bytes(&self.blob)
            .u64(self.size)
            .u64(self.offset)
            .vec24(self.data, BLOB_DATA)?;
        Ok(())
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            request: request(payload)?,
            blob: *payload.array()?,
            size: payload.u64()?,
            offset: payload.u64()?,
            data: payload.vec24(BLOB_DATA)?,
        })
    }
}

impl<'a> Call<'a> {
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        write_request(writer, self.request)?;
        writer.bool(self.reply);
        write_service(writer, self.service)?;
        writer.vec24(self.payload, SERVICE_PAYLOAD)?;
        Ok(())
    }

    fn decode(payload: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            request: request(payload)?,
            reply: payload.bool()?,
            service: service(payload)?,
            payload: payload.vec24(SERVICE_PAYLOAD)?,
        })
    }
}

/// A Send's sequence, which is never 0 (docs/protocol.md §5.1).
fn sequence(reader: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match reader.u64()? {
        0 => Err(DecodeError::UnknownValue),
        sequence => Ok(sequence),
    }
}

fn download_length(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let length = reader.u32()?;
    if is_download_length(length) {
        Ok(length)
    } else {
        Err(DecodeError::LengthOutOfBounds)
    }
}

/// docs/protocol.md §5.1: 1 to 131,072 bytes.
fn is_download_length(length: u32) -> bool {
    usize::try_from(length).is_ok_and(|length| (1..=MAX_BLOB_CHUNK_BYTES).contains(&length))
}
