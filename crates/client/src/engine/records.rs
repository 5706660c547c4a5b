//! The forms in which the engine's records are stored: a version, then fields in the encoding of `docs/protocol.md §1.1`.
//!
//! They come back from a disk, so they are read as strictly as anything from the wire; a record that does not parse is a
//! damaged store.

use std::sync::Arc;

use sealwire_e2e::card::SeenCard;
use sealwire_protocol::codec::{DecodeError, EncodeError, Reader, Writer};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;
use zeroize::Zeroizing;

use super::outbox::{Entry, Purpose};
use crate::error::Refusal;
use crate::event::{Event, NotSent};
use crate::message::{Message, MessageId, Received};
use crate::store::StoreError;
use crate::store::vault::{Place, Table};

/// The version of every record here.
const VERSION: u8 = 1;
/// The most devices of a user that are remembered, gone ones included.
pub(super) const MAX_REMEMBERED_DEVICES: usize = 64;
/// The longest content of a message: the body and at most 540 bytes around it.
const MAX_CONTENT: usize = limits::MAX_BODY_BYTES + 1_024;

/// Records of which there is one.
pub(super) fn device_keys() -> Place {
    Place::number(Table::Singleton, 1)
}
pub(super) fn prekeys() -> Place {
    Place::number(Table::Singleton, 2)
}
pub(super) fn account() -> Place {
    Place::number(Table::Singleton, 3)
}
pub(super) fn mailbox() -> Place {
    Place::number(Table::Singleton, 4)
}

pub(super) fn published_card() -> Place {
    Place::number(Table::Singleton, 5)
}

/// A record that is read from the store.
pub(super) trait Record: Sized {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.u8(VERSION);
        self.write(&mut writer).map_err(|_| StoreError::TooLarge)?;
        Ok(out)
    }

    fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(bytes);
        match reader.u8() {
            Ok(VERSION) => {}
            Ok(version) if version > VERSION => return Err(StoreError::NewerVersion),
            Ok(_) | Err(_) => return Err(StoreError::Damaged),
        }
        let record = Self::read(&mut reader).map_err(|_| StoreError::Damaged)?;
        reader.finish().map_err(|_| StoreError::Damaged)?;
        Ok(record)
    }
}

/// What this device is to its relay and issuer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Account {
    /// The user, once known.
    pub(super) user: Option<Arc<str>>,
    /// Whether an invite was redeemed: renewals work.
    pub(super) enrolled: bool,
    /// The attestation in use, once there is one.
    pub(super) attestation: Option<String>,
}

impl Record for Account {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer
            .vec8(self.user.as_deref().unwrap_or_default().as_bytes(), 0..=255)?
            .bool(self.enrolled)
            .vec16(
                self.attestation.as_deref().unwrap_or_default().as_bytes(),
                0..=limits::MAX_TOKEN_BYTES,
            )?;
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let user = text(reader.vec8(0..=255)?)?;
        let enrolled = reader.bool()?;
        let attestation = text(reader.vec16(0..=limits::MAX_TOKEN_BYTES)?)?;
        Ok(Self {
            user: (!user.is_empty()).then(|| user.into()),
            enrolled,
            attestation: (!attestation.is_empty()).then(|| attestation.to_owned()),
        })
    }
}

/// The generation of the newest card that the relay is known to have; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PublishedCard(pub(super) u32);

impl Record for PublishedCard {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.u32(self.0);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(reader.u32()?))
    }
}

/// How far the mailbox at the relay has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MailboxPosition {
    /// Which history of the mailbox `position` belongs to (`docs/protocol.md §5.2`).
    pub(super) epoch: [u8; 16],
    /// Everything up to here is stored.
    pub(super) position: u64,
}

impl Record for MailboxPosition {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(&self.epoch).u64(self.position);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            epoch: *reader.array()?,
            position: reader.u64()?,
        })
    }
}

/// How far a user's devices are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// The issuer attests them, and they were pinned when first seen.
    Pinned,
    /// Somebody has compared the safety number.
    Verified,
    /// They were verified and have changed since: nothing is sent.
    Changed,
}

/// A user's devices as they were last seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinnedUser {
    pub(super) trust: Trust,
    /// Whether the relay's directory has been asked, or only single devices have been seen.
    pub(super) complete: bool,
    /// Of this user's own record: how often the own devices have gained one. Of another's: that number when they were verified.
    pub(super) own_gains: u32,
    pub(super) devices: Vec<PinnedDevice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinnedDevice {
    pub(super) thumbprint: Thumbprint,
    /// Whether it is one of the user's devices now. Others are remembered so that their cards cannot be rolled back.
    pub(super) present: bool,
    /// Seconds since 1970.
    pub(super) first_seen: u64,
    pub(super) card: Option<PinnedCard>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PinnedCard {
    pub(super) seen: SeenCard,
    pub(super) jwe_key: [u8; 32],
}

impl Record for PinnedUser {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.u8(match self.trust {
            Trust::Pinned => 0,
            Trust::Verified => 1,
            Trust::Changed => 2,
        });
        writer
            .bool(self.complete)
            .u32(self.own_gains)
            .count8(self.devices.len(), 0..=MAX_REMEMBERED_DEVICES)?;
        for device in &self.devices {
            writer
                .bytes(device.thumbprint.as_bytes())
                .bool(device.present)
                .u64(device.first_seen);
            writer.bool(device.card.is_some());
            if let Some(card) = &device.card {
                writer
                    .u32(card.seen.generation)
                    .u64(card.seen.issued)
                    .bytes(&card.jwe_key);
            }
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let trust = match reader.u8()? {
            0 => Trust::Pinned,
            1 => Trust::Verified,
            2 => Trust::Changed,
            _ => return Err(DecodeError::UnknownValue),
        };
        let (complete, own_gains) = (reader.bool()?, reader.u32()?);
        let mut devices = Vec::new();
        for _ in 0..reader.count8(0..=MAX_REMEMBERED_DEVICES)? {
            let thumbprint = Thumbprint::from_bytes(*reader.array()?);
            let (present, first_seen) = (reader.bool()?, reader.u64()?);
            let card = if reader.bool()? {
                let seen = SeenCard {
                    generation: reader.u32()?,
                    issued: reader.u64()?,
                };
                Some(PinnedCard {
                    seen,
                    jwe_key: *reader.array()?,
                })
            } else {
                None
            };
            devices.push(PinnedDevice {
                thumbprint,
                present,
                first_seen,
                card,
            });
        }
        Ok(Self {
            trust,
            complete,
            own_gains,
            devices,
        })
    }
}

impl Record for Entry {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(&self.id).vec8(self.user.as_bytes(), 1..=255)?;
        writer.u8(match self.purpose {
            Purpose::Message => 0,
            Purpose::Copy => 1,
            Purpose::Delivered => 2,
            Purpose::Repair(_) => 3,
        });
        if let Purpose::Repair(device) = &self.purpose {
            writer.bytes(device.as_bytes());
        }
        writer
            .vec24(&self.content, 1..=MAX_CONTENT)?
            .count8(self.parts.len(), 0..=limits::MAX_SEND_PARTS)?;
        for (device, message) in &self.parts {
            writer
                .bytes(device.as_bytes())
                .vec24(message, 1..=limits::MAX_SEALED_MESSAGE_BYTES)?;
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = *reader.array()?;
        let user = text(reader.vec8(1..=255)?)?.into();
        let purpose = match reader.u8()? {
            0 => Purpose::Message,
            1 => Purpose::Copy,
            2 => Purpose::Delivered,
            3 => Purpose::Repair(Thumbprint::from_bytes(*reader.array()?)),
            _ => return Err(DecodeError::UnknownValue),
        };
        let content = Zeroizing::new(reader.vec24(1..=MAX_CONTENT)?.to_vec());
        let mut parts = Vec::new();
        for _ in 0..reader.count8(0..=limits::MAX_SEND_PARTS)? {
            let device = Thumbprint::from_bytes(*reader.array()?);
            parts.push((
                device,
                reader.vec24(1..=limits::MAX_SEALED_MESSAGE_BYTES)?.to_vec(),
            ));
        }
        Ok(Self::stored(id, user, purpose, content, parts))
    }
}

/// A message that the relay has, and of which no device has said that it has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UndeliveredRecord {
    pub(super) id: [u8; 16],
    pub(super) user: Arc<str>,
}

impl Record for UndeliveredRecord {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(&self.id).vec8(self.user.as_bytes(), 1..=255)?;
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: *reader.array()?,
            user: text(reader.vec8(1..=255)?)?.into(),
        })
    }
}

/// A message that has arrived, so that it is not shown twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SeenMessage {
    pub(super) device: Thumbprint,
    pub(super) id: [u8; 16],
}

impl Record for SeenMessage {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(self.device.as_bytes()).bytes(&self.id);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            device: Thumbprint::from_bytes(*reader.array()?),
            id: *reader.array()?,
        })
    }
}

/// Events as they wait in the inbox. [`Event::Connection`] is never stored.
impl Record for Event {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Message(received) => write_received(writer.u8(0), received)?,
            Self::Copy { to, message } => {
                write_received(writer.u8(1).vec8(to.as_bytes(), 1..=255)?, message)?;
            }
            Self::Delivered { id, user, device } => {
                writer
                    .u8(2)
                    .bytes(&id.0)
                    .vec8(user.as_bytes(), 1..=255)?
                    .bytes(device.as_bytes());
            }
            Self::NotSent { id, user, reason } => {
                writer
                    .u8(3)
                    .bytes(&id.0)
                    .vec8(user.as_bytes(), 1..=255)?
                    .u8(not_sent_number(*reason));
            }
            Self::PeerChanged {
                user,
                added,
                removed,
                was_verified,
            } => {
                writer
                    .u8(4)
                    .vec8(user.as_bytes(), 1..=255)?
                    .bool(*was_verified);
                for devices in [added, removed] {
                    writer.count8(devices.len(), 0..=MAX_REMEMBERED_DEVICES)?;
                    for device in devices {
                        writer.bytes(device.as_bytes());
                    }
                }
            }
            Self::Gap {
                user,
                device,
                missing,
            } => {
                writer
                    .u8(5)
                    .vec8(user.as_bytes(), 1..=255)?
                    .bytes(device.as_bytes())
                    .u32(*missing);
            }
            Self::Undecryptable { id, user, device } => {
                writer
                    .u8(6)
                    .bytes(&id.0)
                    .vec8(user.as_bytes(), 1..=255)?
                    .bytes(device.as_bytes());
            }
            Self::SessionRepaired { user, device } => {
                writer
                    .u8(7)
                    .vec8(user.as_bytes(), 1..=255)?
                    .bytes(device.as_bytes());
            }
            Self::Connection(_) => return Err(EncodeError::LengthOutOfBounds),
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            0 => Self::Message(read_received(reader)?),
            1 => Self::Copy {
                to: name(reader)?,
                message: read_received(reader)?,
            },
            2 => Self::Delivered {
                id: message_id(reader)?,
                user: name(reader)?,
                device: device(reader)?,
            },
            3 => {
                let (id, user) = (message_id(reader)?, name(reader)?);
                Self::NotSent {
                    id,
                    user,
                    reason: not_sent(reader.u8()?)?,
                }
            }
            4 => {
                let (user, was_verified) = (name(reader)?, reader.bool()?);
                let (added, removed) = (devices(reader)?, devices(reader)?);
                Self::PeerChanged {
                    user,
                    added,
                    removed,
                    was_verified,
                }
            }
            5 => Self::Gap {
                user: name(reader)?,
                device: device(reader)?,
                missing: reader.u32()?,
            },
            6 => Self::Undecryptable {
                id: message_id(reader)?,
                user: name(reader)?,
                device: device(reader)?,
            },
            7 => Self::SessionRepaired {
                user: name(reader)?,
                device: device(reader)?,
            },
            _ => return Err(DecodeError::UnknownValue),
        })
    }
}

fn write_received(writer: &mut Writer<'_>, received: &Received) -> Result<(), EncodeError> {
    writer
        .bytes(&received.id.0)
        .vec8(received.from.as_bytes(), 1..=255)?
        .bytes(received.device.as_bytes())
        .u64(received.sent_at)
        .vec8(received.message.media_type().as_bytes(), 0..=255)?
        .vec24(received.message.body(), 0..=limits::MAX_BODY_BYTES)?;
    Ok(())
}

fn read_received(reader: &mut Reader<'_>) -> Result<Received, DecodeError> {
    Ok(Received {
        id: message_id(reader)?,
        from: name(reader)?,
        device: device(reader)?,
        sent_at: reader.u64()?,
        message: Message::new(
            text(reader.vec8(0..=255)?)?,
            reader.vec24(0..=limits::MAX_BODY_BYTES)?,
        ),
    })
}

/// The numbers are in the stored rows: never reuse one.
const NOT_SENT: [(u8, NotSent); 12] = [
    (1, NotSent::Refused(Refusal::NotPermitted)),
    (2, NotSent::Refused(Refusal::UnknownUser)),
    (3, NotSent::Refused(Refusal::DevicesChanged)),
    (4, NotSent::Refused(Refusal::MailboxFull)),
    (5, NotSent::Refused(Refusal::TooLarge)),
    (6, NotSent::Refused(Refusal::RateLimited)),
    (7, NotSent::Refused(Refusal::InvalidCard)),
    (8, NotSent::Refused(Refusal::TooMany)),
    (9, NotSent::Refused(Refusal::TokenRefused)),
    (10, NotSent::Refused(Refusal::Unavailable)),
    (101, NotSent::PeerChanged),
    (102, NotSent::Card),
];

fn not_sent_number(reason: NotSent) -> u8 {
    NOT_SENT
        .iter()
        .find(|(_, known)| *known == reason)
        .map_or(102, |(number, _)| *number)
}

fn not_sent(number: u8) -> Result<NotSent, DecodeError> {
    let found = NOT_SENT.iter().find(|(known, _)| *known == number);
    found
        .map(|(_, reason)| *reason)
        .ok_or(DecodeError::UnknownValue)
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::UnknownValue)
}

fn name(reader: &mut Reader<'_>) -> Result<Arc<str>, DecodeError> {
    Ok(text(reader.vec8(1..=255)?)?.into())
}

fn message_id(reader: &mut Reader<'_>) -> Result<MessageId, DecodeError> {
    Ok(MessageId(*reader.array()?))
}

fn device(reader: &mut Reader<'_>) -> Result<Thumbprint, DecodeError> {
    Ok(Thumbprint::from_bytes(*reader.array()?))
}

fn devices(reader: &mut Reader<'_>) -> Result<Vec<Thumbprint>, DecodeError> {
    (0..reader.count8(0..=MAX_REMEMBERED_DEVICES)?)
        .map(|_| device(reader))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Vec<Event> {
        let device = Thumbprint::from_bytes([3; 32]);
        let (id, user): (_, Arc<str>) = (MessageId([1; 16]), "bob".into());
        let received = Received {
            id,
            from: user.clone(),
            device,
            sent_at: 5,
            message: Message::text("hello"),
        };
        let mut events = vec![
            Event::Message(received.clone()),
            Event::Copy {
                to: "carol".into(),
                message: received,
            },
            Event::Delivered {
                id,
                user: user.clone(),
                device,
            },
            Event::PeerChanged {
                user: user.clone(),
                added: vec![device],
                removed: vec![],
                was_verified: true,
            },
            Event::Gap {
                user: user.clone(),
                device,
                missing: 3,
            },
            Event::Undecryptable {
                id,
                user: user.clone(),
                device,
            },
            Event::SessionRepaired {
                user: user.clone(),
                device,
            },
        ];
        events.extend(NOT_SENT.map(|(_, reason)| Event::NotSent {
            id,
            user: user.clone(),
            reason,
        }));
        events
    }

    #[test]
    fn events_come_back_as_they_were() {
        for event in events() {
            assert_eq!(Event::decode(&event.encode().unwrap()).unwrap(), event);
        }
    }

    #[test]
    fn records_cut_short_or_continued_are_damaged() {
        for event in events() {
            let record = event.encode().unwrap();
            for length in 0..record.len() {
                assert!(
                    matches!(Event::decode(&record[..length]), Err(StoreError::Damaged)),
                    "{event:?} at {length}"
                );
            }
            let mut longer = record;
            longer.push(0);
            assert!(
                matches!(Event::decode(&longer), Err(StoreError::Damaged)),
                "{event:?}"
            );
        }
    }

    #[test]
    fn record_of_a_later_version_is_refused() {
        let mut record = Account::default().encode().unwrap();
        record[0] = 2;
        assert!(matches!(
            Account::decode(&record),
            Err(StoreError::NewerVersion)
        ));
        record[0] = 0;
        assert!(matches!(Account::decode(&record), Err(StoreError::Damaged)));
    }

    #[test]
    fn connection_state_is_never_stored() {
        let event = Event::Connection(crate::ConnectionState::Connecting);
        assert!(matches!(event.encode(), Err(StoreError::TooLarge)));
    }
}
