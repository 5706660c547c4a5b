//! The forms in which the engine's records are stored: a version, then fields in the encoding of `docs/protocol.md §1.1`.
//!
//! They come back from a disk, so they are read as strictly as anything from the wire; a record that does not parse is a
//! damaged store.

use std::collections::VecDeque;
use std::sync::Arc;

use sealwire_e2e::card::SeenCard;
use sealwire_e2e::peer::SessionId;
use sealwire_protocol::codec::{DecodeError, EncodeError, Reader, Writer};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;
use zeroize::Zeroizing;

use super::outbox::{Entry, Purpose, Sealed, Target};
use crate::event::NotDelivered;
use crate::store::StoreError;
use crate::store::vault::{Place, Table};

mod event;

/// The version of every record here.
const VERSION: u8 = 1;
/// The most devices of a user that are remembered, gone ones included.
pub(super) const MAX_REMEMBERED_DEVICES: usize = 64;
/// The longest content of a message: the body and at most 540 bytes around it.
const MAX_CONTENT: usize = limits::MAX_BODY_BYTES + 1_024;
/// Parts and copies of one message.
const MAX_PARTS: usize = limits::MAX_SEND_PARTS + limits::MAX_COPIES;

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

pub(super) fn published() -> Place {
    Place::number(Table::Singleton, 5)
}

pub(super) fn send_state() -> Place {
    Place::number(Table::Singleton, 6)
}

pub(super) fn resending() -> Place {
    Place::number(Table::Singleton, 7)
}

pub(super) fn asked_sessions() -> Place {
    Place::number(Table::Singleton, 8)
}

pub(super) fn relay_key() -> Place {
    Place::number(Table::Singleton, 9)
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
    /// What this device is called among the user's own.
    pub(super) name: Option<Arc<str>>,
    /// The store was once found to be an earlier copy: there may be sessions of which it knows nothing.
    pub(super) restored: bool,
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
        write_name(writer, self.name.as_deref())?;
        writer.bool(self.restored);
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
            name: read_name(reader)?,
            // Earlier stores do not say.
            restored: !reader.is_empty() && reader.bool()?,
        })
    }
}

/// The key that has followed the one by which the application names the relay (`docs/protocol.md §3.9`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RelayKey {
    /// The key in the application's address.
    pub(super) named: Thumbprint,
    /// The relay's key now.
    pub(super) current: Thumbprint,
}

impl Record for RelayKey {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer
            .bytes(self.named.as_bytes())
            .bytes(self.current.as_bytes());
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            named: device(reader)?,
            current: device(reader)?,
        })
    }
}

/// What the relay is known to have of this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct PublishedState {
    /// The generation of the newest card; 0 for none.
    pub(super) generation: u32,
    /// Its one-time prekeys have no secrets here any more, and have to be replaced.
    pub(super) replace: bool,
}

impl Record for PublishedState {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.u32(self.generation).bool(self.replace);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            generation: reader.u32()?,
            replace: reader.bool()?,
        })
    }
}

/// For each device that lost its session, from which message on it gets everything again: at most
/// [`MAX_RESENDING`](super::undelivered::MAX_RESENDING).
#[derive(Default)]
pub(super) struct Resending(pub(super) std::collections::BTreeMap<Thumbprint, u64>);

impl Record for Resending {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.count8(self.0.len(), 0..=super::undelivered::MAX_RESENDING)?;
        for (device, from) in &self.0 {
            writer.bytes(device.as_bytes()).u64(*from);
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        (0..reader.count8(0..=super::undelivered::MAX_RESENDING)?)
            .map(|_| Ok((device(reader)?, reader.u64()?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The sessions in which devices were last asked for what did not open, the latest last.
#[derive(Default)]
pub(super) struct AskedSessions(pub(super) VecDeque<(Thumbprint, SessionId)>);

impl Record for AskedSessions {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.count8(self.0.len(), 0..=super::repair::MAX_ASKED_SESSIONS)?;
        for (device, session) in &self.0 {
            writer.bytes(device.as_bytes()).bytes(session);
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        (0..reader.count8(0..=super::repair::MAX_ASKED_SESSIONS)?)
            .map(|_| Ok((device(reader)?, *reader.array()?)))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// What this device has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct SendState {
    /// The highest sequence of a Send (`docs/protocol.md §5.2`).
    pub(super) sequence: u64,
}

impl Record for SendState {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.u64(self.sequence);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            sequence: reader.u64()?,
        })
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
    /// Whether this user's application has ever sent them anything: only then are they told what arrived and was read.
    pub(super) written_to: bool,
    pub(super) devices: Vec<PinnedDevice>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PinnedDevice {
    pub(super) thumbprint: Thumbprint,
    /// Whether it is one of the user's devices now. Others are remembered so that their cards cannot be rolled back.
    pub(super) present: bool,
    /// Seconds since 1970.
    pub(super) first_seen: u64,
    /// What it is called, if it is one of this user's own and has said so.
    pub(super) name: Option<Arc<str>>,
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
            .bool(self.written_to)
            .count8(self.devices.len(), 0..=MAX_REMEMBERED_DEVICES)?;
        for device in &self.devices {
            writer
                .bytes(device.thumbprint.as_bytes())
                .bool(device.present)
                .u64(device.first_seen);
            write_name(writer, device.name.as_deref())?;
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
        let written_to = reader.bool()?;
        let mut devices = Vec::new();
        for _ in 0..reader.count8(0..=MAX_REMEMBERED_DEVICES)? {
            let thumbprint = Thumbprint::from_bytes(*reader.array()?);
            let (present, first_seen) = (reader.bool()?, reader.u64()?);
            let name = read_name(reader)?;
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
                name,
                card,
            });
        }
        Ok(Self {
            trust,
            complete,
            own_gains,
            written_to,
            devices,
        })
    }
}

impl Record for Entry {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer.bytes(&self.id).vec8(self.user.as_bytes(), 1..=255)?;
        match &self.purpose {
            Purpose::Message => {
                writer.u8(0);
            }
            Purpose::Again(target) => write_target(writer.u8(1), *target),
            Purpose::Direct { device, fresh } => {
                writer.u8(2).bytes(device.as_bytes()).bool(*fresh);
            }
        }
        writer
            .vec24(&self.content, 1..=MAX_CONTENT)?
            .u64(self.sequence)
            .count8(self.parts.len(), 0..=MAX_PARTS)?;
        for part in &self.parts {
            write_target(writer, part.target);
            writer.vec24(&part.message, 1..=limits::MAX_SEALED_MESSAGE_BYTES)?;
        }
        writer.count8(self.heard.len(), 0..=MAX_PARTS)?;
        for (device, heard) in &self.heard {
            writer.bytes(device.as_bytes()).u8(match heard {
                Ok(()) => 0,
                Err(NotDelivered::Expired) => 1,
                Err(NotDelivered::DeviceRemoved) => 2,
                Err(NotDelivered::MailboxFull) => 3,
            });
        }
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = *reader.array()?;
        let user = text(reader.vec8(1..=255)?)?.into();
        let purpose = match reader.u8()? {
            0 => Purpose::Message,
            1 => Purpose::Again(target(reader)?),
            2 => Purpose::Direct {
                device: device(reader)?,
                fresh: reader.bool()?,
            },
            _ => return Err(DecodeError::UnknownValue),
        };
        let content = Zeroizing::new(reader.vec24(1..=MAX_CONTENT)?.to_vec());
        let sequence = reader.u64()?;
        let mut parts = Vec::new();
        for _ in 0..reader.count8(0..=MAX_PARTS)? {
            parts.push(Sealed {
                target: target(reader)?,
                message: reader.vec24(1..=limits::MAX_SEALED_MESSAGE_BYTES)?.to_vec(),
            });
        }
        let mut entry = Self::stored(id, user, purpose, content, parts, sequence);
        for _ in 0..reader.count8(0..=MAX_PARTS)? {
            let heard = match (device(reader)?, reader.u8()?) {
                (device, 0) => (device, Ok(())),
                (device, 1) => (device, Err(NotDelivered::Expired)),
                (device, 2) => (device, Err(NotDelivered::DeviceRemoved)),
                (device, 3) => (device, Err(NotDelivered::MailboxFull)),
                (_, _) => return Err(DecodeError::UnknownValue),
            };
            entry.heard.push(heard);
        }
        Ok(entry)
    }
}

/// A message that the relay has, and that some devices have not confirmed.
pub(super) struct UndeliveredRecord {
    pub(super) id: [u8; 16],
    pub(super) user: Arc<str>,
    /// The devices that are waited for.
    pub(super) pending: Vec<Target>,
    /// It is one of our own, which nobody confirms.
    pub(super) direct: bool,
    /// The sequence of the Send that the relay has accepted; 0 in records of earlier versions.
    pub(super) sequence: u64,
    /// The encoded content, in case one of them needs it again; empty once that cannot be done any more.
    pub(super) content: Zeroizing<Vec<u8>>,
}

impl Record for UndeliveredRecord {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        writer
            .bytes(&self.id)
            .vec8(self.user.as_bytes(), 1..=255)?
            .bool(self.direct)
            .vec24(&self.content, 0..=MAX_CONTENT)?
            .count8(self.pending.len(), 0..=MAX_PARTS)?;
        for target in &self.pending {
            write_target(writer, *target);
        }
        writer.u64(self.sequence);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = *reader.array()?;
        let user = text(reader.vec8(1..=255)?)?.into();
        let direct = reader.bool()?;
        let content = Zeroizing::new(reader.vec24(0..=MAX_CONTENT)?.to_vec());
        let pending = (0..reader.count8(0..=MAX_PARTS)?)
            .map(|_| target(reader))
            .collect::<Result<_, _>>()?;
        let sequence = if reader.is_empty() { 0 } else { reader.u64()? };
        Ok(Self {
            id,
            user,
            pending,
            direct,
            sequence,
            content,
        })
    }
}

/// A message that did not open and may come again, or that waits for such.
pub(super) struct LostRecord {
    pub(super) message: SeenMessage,
    /// Whose it is, as the relay said.
    pub(super) user: Arc<str>,
    /// This user had never written to them when it came.
    pub(super) is_stranger: bool,
    /// How often it was asked for.
    pub(super) asked: u8,
    /// The session that it came in, as far as is known.
    pub(super) session: Option<SessionId>,
    /// It came from the future of another clock: others may open in its session since.
    pub(super) early: bool,
    /// What is in it, if it has opened, and waits for others of its device that were sent before it and are still to come.
    pub(super) content: Option<Zeroizing<Vec<u8>>>,
    /// Others of its device had been asked for when it came: the application knows.
    pub(super) follows: bool,
}

impl Record for LostRecord {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.message.write(writer)?;
        writer
            .vec8(self.user.as_bytes(), 1..=255)?
            .u8(self.asked)
            .bool(self.early)
            .bool(self.follows)
            .bool(self.session.is_some())
            .bytes(&self.session.unwrap_or_default())
            .vec24(
                self.content.as_deref().map_or(&[], Vec::as_slice),
                0..=MAX_CONTENT,
            )?
            .bool(self.is_stranger);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            message: SeenMessage::read(reader)?,
            user: name(reader)?,
            asked: reader.u8()?,
            early: reader.bool()?,
            // Earlier stores end here.
            follows: !reader.is_empty() && reader.bool()?,
            session: if reader.is_empty() {
                None
            } else {
                let is_known = reader.bool()?;
                let session = *reader.array()?;
                is_known.then_some(session)
            },
            content: if reader.is_empty() {
                None
            } else {
                let content = reader.vec24(0..=MAX_CONTENT)?;
                (!content.is_empty()).then(|| Zeroizing::new(content.to_vec()))
            },
            is_stranger: !reader.is_empty() && reader.bool()?,
        })
    }
}

/// What became of a message that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeenRecord {
    pub(super) message: SeenMessage,
    /// It was opened, and its sender is who it is said to be. Otherwise the application was told that it cannot be opened.
    pub(super) opened: bool,
}

impl Record for SeenRecord {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        self.message.write(writer)?;
        writer.bool(self.opened);
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            message: SeenMessage::read(reader)?,
            opened: reader.bool()?,
        })
    }
}

/// A message that has arrived.
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

fn write_target(writer: &mut Writer<'_>, target: Target) {
    writer.bytes(target.device.as_bytes()).bool(target.copy);
}

fn target(reader: &mut Reader<'_>) -> Result<Target, DecodeError> {
    Ok(Target {
        device: device(reader)?,
        copy: reader.bool()?,
    })
}

fn write_name(writer: &mut Writer<'_>, name: Option<&str>) -> Result<(), EncodeError> {
    writer.vec8(
        name.unwrap_or_default().as_bytes(),
        0..=limits::MAX_DEVICE_NAME_BYTES,
    )?;
    Ok(())
}

fn read_name(reader: &mut Reader<'_>) -> Result<Option<Arc<str>>, DecodeError> {
    let name = text(reader.vec8(0..=limits::MAX_DEVICE_NAME_BYTES)?)?;
    Ok((!name.is_empty()).then(|| name.into()))
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::UnknownValue)
}

fn name(reader: &mut Reader<'_>) -> Result<Arc<str>, DecodeError> {
    Ok(text(reader.vec8(1..=255)?)?.into())
}

fn device(reader: &mut Reader<'_>) -> Result<Thumbprint, DecodeError> {
    Ok(Thumbprint::from_bytes(*reader.array()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_later_version_is_refused() {
        let mut record = Account::default().encode().unwrap();
        record[0] = VERSION + 1;
        assert!(matches!(
            Account::decode(&record),
            Err(StoreError::NewerVersion)
        ));
        record[0] = 0;
        assert!(matches!(Account::decode(&record), Err(StoreError::Damaged)));
    }
}
