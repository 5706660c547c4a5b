//! Frames: what is inside a record (docs/protocol.md §5).
//!
//! ```text
//! record plaintext = frame frame ...          frame = type, u24 length, payload
//!
//! device ── ToRelay ──> relay      Send Ack PublishCard PublishPrekeys FetchCards Refresh RemoveDevice
//!                                  Upload Download Discard Call
//! device <── ToDevice ── relay     Ready Accepted Refused Deliver Cards Token DeviceChanged
//!                                  Undelivered Damaged Blob Expiring Leaving Result Push
//! ```
//!
//! Decoded frames borrow from the record that they came in; nothing is copied or allocated. What a frame means, whether its
//! sender may send it, and the 64 open requests of a device are for the client and the server. `Debug` may be logged: it shows how
//! long tokens, cards, messages and users are, and nothing of them.

mod list;
mod to_device;
mod to_relay;

pub use list::{Iter, List, ListItem};
pub use to_device::{
    Blob, CardEntry, Deliver, Push, Ready, ToDevice, Undelivered, UndeliveredReason,
};
pub use to_relay::{Call, Part, Send, ToRelay, Upload};

pub(crate) use to_device::READY;

use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use crate::codec::{DecodeError, EncodeError, Reader, Writer, length_prefix};
use crate::crypto::KEM_KEY_BYTES;
use crate::limits::{
    MAX_BLOB_CHUNK_BYTES, MAX_CARD_BYTES, MAX_FRAME_PAYLOAD_BYTES, MAX_NAME_BYTES,
    MAX_SEALED_MESSAGE_BYTES, MAX_SERVICE_NAME_BYTES, MAX_SERVICE_PAYLOAD_BYTES,
};
use crate::name::{self, NameError};
use crate::service;

const USER: RangeInclusive<usize> = 1..=MAX_NAME_BYTES;
const CARD: RangeInclusive<usize> = 1..=MAX_CARD_BYTES;
const MESSAGE: RangeInclusive<usize> = 1..=MAX_SEALED_MESSAGE_BYTES;
const BLOB_DATA: RangeInclusive<usize> = 0..=MAX_BLOB_CHUNK_BYTES;
const SERVICE: RangeInclusive<usize> = 1..=MAX_SERVICE_NAME_BYTES;
const SERVICE_PAYLOAD: RangeInclusive<usize> = 0..=MAX_SERVICE_PAYLOAD_BYTES;

/// What identifies a message to its sender and its recipients: 16 random bytes.
pub type MessageId = [u8; 16];

/// What names a blob to those who may have it: 32 random bytes (docs/protocol.md §15). Whoever knows it can download the blob, so `Debug`
/// of the frames does not show it.
pub type BlobId = [u8; 32];

/// What a request and its reply have in common: chosen by the device, not 0.
pub type RequestId = u32;

/// One direction of a link: which frames travel in it.
pub trait Direction: sealed::Sealed {
    /// The frames of this direction.
    type Frame<'a>: Frame<'a>;
}

/// Device → relay.
#[derive(Debug)]
pub enum DeviceToRelay {}

/// Relay → device.
#[derive(Debug)]
pub enum RelayToDevice {}

impl Direction for DeviceToRelay {
    type Frame<'a> = ToRelay<'a>;
}

impl Direction for RelayToDevice {
    type Frame<'a> = ToDevice<'a>;
}

mod sealed {
    #[expect(
        unnameable_types,
        reason = "sealed: only this crate has directions and frames"
    )]
    pub trait Sealed {}
    impl Sealed for super::DeviceToRelay {}
    impl Sealed for super::RelayToDevice {}
    impl Sealed for super::ToRelay<'_> {}
    impl Sealed for super::ToDevice<'_> {}
}

/// A frame of either direction.
pub trait Frame<'a>: Sized + sealed::Sealed {
    /// The frame's type byte.
    fn type_byte(&self) -> u8;

    #[doc(hidden)]
    fn encode_payload(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;

    /// Decodes the payload of a frame of type `type_byte`. The caller has checked that nothing follows it.
    #[doc(hidden)]
    fn decode_payload(type_byte: u8, payload: &mut Reader<'a>) -> Result<Self, DecodeError>;

    /// Reads one frame off the front of a record's plaintext (docs/protocol.md §5).
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let type_byte = reader.u8()?;
        let mut payload = Reader::new(reader.vec24(0..=MAX_FRAME_PAYLOAD_BYTES)?);
        let frame = Self::decode_payload(type_byte, &mut payload)?;
        payload.finish()?;
        Ok(frame)
    }

    /// Appends the frame to `out`. If that fails, `out` is as it was.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        self.append(out, start).inspect_err(|_| out.truncate(start))
    }

    #[doc(hidden)]
    fn append(&self, out: &mut Vec<u8>, start: usize) -> Result<(), EncodeError> {
        let mut writer = Writer::new(out);
        self.encode_payload(writer.bytes(&[self.type_byte(), 0, 0, 0]))?;
        let payload = out.len().saturating_sub(start).saturating_sub(4);
        if payload > MAX_FRAME_PAYLOAD_BYTES {
            return Err(EncodeError::LengthOutOfBounds);
        }
        let length = length_prefix::<3>(payload).ok_or(EncodeError::LengthOutOfBounds)?;
        if let Some([_, field @ ..]) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut::<4>) {
            *field = length;
        }
        Ok(())
    }
}

/// A one-time prekey as it travels (docs/protocol.md §6.2). That its signature is good is for whoever uses it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct OneTimePrekey<'a> {
    /// Never reused by its device.
    pub id: u32,
    /// The X25519 public key.
    pub x25519: &'a [u8; 32],
    /// The ML-KEM-768 encapsulation key.
    pub kem_key: &'a [u8; KEM_KEY_BYTES],
    /// The device key's Ed25519 signature.
    pub signature: &'a [u8; 64],
}

impl fmt::Debug for OneTimePrekey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneTimePrekey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<'a> ListItem<'a> for OneTimePrekey<'a> {
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: reader.u32()?,
            x25519: reader.array()?,
            kem_key: reader.array()?,
            signature: reader.array()?,
        })
    }

    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer
            .u32(self.id)
            .bytes(self.x25519)
            .bytes(self.kem_key)
            .bytes(self.signature);
        Ok(())
    }
}

/// In `Debug`, stands for what a log must not show: its length.
struct Length(usize);

impl fmt::Debug for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0)
    }
}

/// A request's number, which is never 0 (docs/protocol.md §5).
fn request(reader: &mut Reader<'_>) -> Result<RequestId, DecodeError> {
    match reader.u32()? {
        0 => Err(DecodeError::UnknownValue),
        request => Ok(request),
    }
}

fn write_request(writer: &mut Writer<'_>, request: RequestId) -> Result<(), EncodeError> {
    if request == 0 {
        return Err(EncodeError::ReservedValue);
    }
    writer.u32(request);
    Ok(())
}

/// A user (docs/protocol.md §1.2): 1 to 255 bytes of UTF-8 without control characters.
fn user<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let user = core::str::from_utf8(reader.vec8(USER)?).map_err(|_| DecodeError::InvalidText)?;
    name::checked(user).map_err(|_| DecodeError::InvalidText)
}

fn write_user(writer: &mut Writer<'_>, user: &str) -> Result<(), EncodeError> {
    if let Err(NameError::ControlCharacter) = name::checked(user) {
        return Err(EncodeError::InvalidText);
    }
    writer.vec8(user.as_bytes(), USER)?;
    Ok(())
}

/// The name of a service (docs/protocol.md §17.1).
fn service<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let name = core::str::from_utf8(reader.vec8(SERVICE)?).map_err(|_| DecodeError::InvalidText)?;
    service::checked(name).map_err(|_| DecodeError::InvalidText)
}

fn write_service(writer: &mut Writer<'_>, name: &str) -> Result<(), EncodeError> {
    writer.vec8(name.as_bytes(), SERVICE)?;
    service::checked(name).map_err(|_| EncodeError::InvalidText)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Thumbprint;
    use alloc::format;

    const PREKEY: OneTimePrekey<'_> = OneTimePrekey {
        id: 7,
        x25519: &[1; 32],
        kem_key: &[2; KEM_KEY_BYTES],
        signature: &[3; 64],
    };

    fn device() -> Thumbprint {
        Thumbprint::from_bytes([0; 32])
    }

    #[test]
    fn debug_of_frames_to_the_relay_shows_no_token_content_or_user() {
        let parts = [Part {
            device: device(),
            message: b"sealed message",
        }];
        let send = Send {
            request: 1,
            sequence: 2,
            id: [0; 16],
            user: "bob",
            whole: true,
            parts: parts.as_slice().into(),
            copies: List::empty(),
        };
        for (frame, shown) in [
            (
                ToRelay::Send(send),
                "Send { request: 1, sequence: 2, id: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], user: 3 bytes, \
                 whole: true, parts: [Part { device: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, message: 14 bytes }], \
                 copies: [] }",
            ),
            (ToRelay::Ack { position: 9 }, "Ack { position: 9 }"),
            (
                ToRelay::PublishCard {
                    request: 1,
                    card: b"card",
                },
                "PublishCard { request: 1, card: 4 bytes }",
            ),
            (
                ToRelay::PublishPrekeys {
                    request: 1,
                    replace: false,
                    prekeys: [PREKEY].as_slice().into(),
                },
                "PublishPrekeys { request: 1, replace: false, prekeys: [OneTimePrekey { id: 7, .. }] }",
            ),
            (
                ToRelay::FetchCards {
                    request: 1,
                    user: "bob",
                    take: true,
                },
                "FetchCards { request: 1, user: 3 bytes, take: true }",
            ),
            (
                ToRelay::Refresh {
                    request: 1,
                    proof: b"proof",
                    token: b"a token",
                },
                "Refresh { request: 1, proof: 5 bytes, token: 7 bytes }",
            ),
            (
                ToRelay::RemoveDevice {
                    request: 1,
                    device: device(),
                },
                "RemoveDevice { request: 1, device: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA }",
            ),
            (
                ToRelay::Upload(Upload {
                    request: 1,
                    blob: [0; 32],
                    size: 2,
                    offset: 3,
                    data: b"data",
                }),
                "Upload { request: 1, size: 2, offset: 3, data: 4 bytes, .. }",
            ),
            (
                ToRelay::Download {
                    request: 1,
                    blob: [0; 32],
                    offset: 2,
                    length: 3,
                },
                "Download { request: 1, offset: 2, length: 3, .. }",
            ),
            (
                ToRelay::Discard {
                    request: 1,
                    blob: [0; 32],
                },
                "Discard { request: 1, .. }",
            ),
            (
                ToRelay::Call(Call {
                    request: 1,
                    reply: true,
                    service: "orders.create",
                    payload: b"an order",
                }),
                "Call { request: 1, reply: true, service: \"orders.create\", payload: 8 bytes }",
            ),
        ] {
            assert_eq!(format!("{frame:?}"), shown);
        }
    }

    #[test]
    fn debug_of_frames_to_the_device_shows_no_token_content_or_user() {
        let entries = [CardEntry {
            card: b"card",
            prekey: Some(PREKEY),
        }];
        for (frame, shown) in [
            (
                ToDevice::Ready(Ready {
                    device: device(),
                    user: "alice",
                    time: 1,
                    token_expires: 2,
                    max_message: 3,
                    has_card: true,
                    prekeys: 4,
                    epoch: [0; 16],
                    acknowledged: 5,
                    head: 6,
                    sent: 7,
                    waiting: 8,
                }),
                "Ready { device: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, user: 5 bytes, time: 1, token_expires: 2, \
                 max_message: 3, has_card: true, prekeys: 4, epoch: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], \
                 acknowledged: 5, head: 6, sent: 7, waiting: 8 }",
            ),
            (ToDevice::Accepted { request: 1 }, "Accepted { request: 1 }"),
            (
                ToDevice::Refused {
                    request: 1,
                    code: crate::close::RefusalCode::MailboxFull,
                },
                "Refused { request: 1, code: MailboxFull }",
            ),
            (
                ToDevice::Deliver(Deliver {
                    position: 1,
                    id: [0; 16],
                    user: "alice",
                    device: device(),
                    time: 2,
                    message: b"sealed message",
                }),
                "Deliver { position: 1, id: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], user: 5 bytes, \
                 device: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, time: 2, message: 14 bytes }",
            ),
            (
                ToDevice::Cards {
                    request: 1,
                    entries: entries.as_slice().into(),
                },
                "Cards { request: 1, entries: [CardEntry { card: 4 bytes, prekey: Some(OneTimePrekey { id: 7, .. }) }] }",
            ),
            (
                ToDevice::Token {
                    request: 0,
                    expires: 1,
                    token: b"a token",
                },
                "Token { request: 0, expires: 1, token: 7 bytes }",
            ),
            (
                ToDevice::DeviceChanged { user: "alice" },
                "DeviceChanged { user: 5 bytes }",
            ),
            (
                ToDevice::Undelivered(Undelivered {
                    position: 1,
                    id: [0; 16],
                    user: "bob",
                    device: device(),
                    reason: UndeliveredReason::Expired,
                }),
                "Undelivered { position: 1, id: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], user: 3 bytes, \
                 device: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA, reason: Expired }",
            ),
            (ToDevice::Damaged { position: 1 }, "Damaged { position: 1 }"),
            (
                ToDevice::Blob(Blob {
                    request: 1,
                    length: 2,
                    size: 3,
                    complete: false,
                    data: b"data",
                }),
                "Blob { request: 1, length: 2, size: 3, complete: false, data: 4 bytes }",
            ),
            (ToDevice::Expiring { expires: 1 }, "Expiring { expires: 1 }"),
            (ToDevice::Leaving { after: 1 }, "Leaving { after: 1 }"),
            (
                ToDevice::Result {
                    request: 1,
                    payload: b"done",
                },
                "Result { request: 1, payload: 4 bytes }",
            ),
            (
                ToDevice::Push(Push {
                    service: "orders.changed",
                    payload: b"an order",
                }),
                "Push { service: \"orders.changed\", payload: 8 bytes }",
            ),
        ] {
            assert_eq!(format!("{frame:?}"), shown);
        }
    }
}
