//! Events as they wait in the inbox.

use sealwire_protocol::codec::{DecodeError, EncodeError, Reader, Writer};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;

use super::{MAX_REMEMBERED_DEVICES, Record, device, name, text};
use crate::error::Refusal;
use crate::event::{Event, MailboxGap, NotDelivered, NotSent};
use crate::message::{Message, MessageId, Received};

/// [`Event::Connection`], [`Event::Recovered`] and what is pushed are never stored.
impl Record for Event {
    fn write(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Message(received) => {
                let kind = if received.forward_secrecy { 0 } else { 12 };
                write_received(writer.u8(kind), received)?;
            }
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
            Self::Read { id, user, device } => {
                writer
                    .u8(8)
                    .bytes(&id.0)
                    .vec8(user.as_bytes(), 1..=255)?
                    .bytes(device.as_bytes());
            }
            Self::NotDelivered {
                id,
                user,
                device,
                reason,
            } => {
                writer
                    .u8(9)
                    .bytes(&id.0)
                    .vec8(user.as_bytes(), 1..=255)?
                    .bytes(device.as_bytes())
                    .u8(match reason {
                        NotDelivered::Expired => 1,
                        NotDelivered::DeviceRemoved => 2,
                        NotDelivered::MailboxFull => 3,
                    });
            }
            Self::MailboxGap(gap) => {
                writer.u8(10).u8(match gap {
                    MailboxGap::NewHistory => 1,
                    MailboxGap::PutBack => 2,
                    MailboxGap::Damaged => 3,
                });
            }
            Self::StoreRestored => {
                writer.u8(11);
            }
            Self::RelayKeyChanged { relay } => {
                writer.u8(13).bytes(relay.as_bytes());
            }
            Self::Connection(_)
            | Self::Recovered { .. }
            | Self::Push(_)
            | Self::PushesMissed { .. } => {
                return Err(EncodeError::LengthOutOfBounds);
            }
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
            8 => Self::Read {
                id: message_id(reader)?,
                user: name(reader)?,
                device: device(reader)?,
            },
            9 => Self::NotDelivered {
                id: message_id(reader)?,
                user: name(reader)?,
                device: device(reader)?,
                reason: match reader.u8()? {
                    1 => NotDelivered::Expired,
                    2 => NotDelivered::DeviceRemoved,
                    3 => NotDelivered::MailboxFull,
                    _ => return Err(DecodeError::UnknownValue),
                },
            },
            10 => Self::MailboxGap(match reader.u8()? {
                1 => MailboxGap::NewHistory,
                2 => MailboxGap::PutBack,
                3 => MailboxGap::Damaged,
                _ => return Err(DecodeError::UnknownValue),
            }),
            11 => Self::StoreRestored,
            12 => Self::Message(Received {
                forward_secrecy: false,
                ..read_received(reader)?
            }),
            13 => Self::RelayKeyChanged {
                relay: device(reader)?,
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
        redelivered: false,
        forward_secrecy: true,
        handle: None,
        message: Message::new(
            text(reader.vec8(0..=255)?)?,
            reader.vec24(0..=limits::MAX_BODY_BYTES)?,
        ),
    })
}

/// The numbers are in the stored rows: never reuse one.
const NOT_SENT: [(u8, NotSent); 24] = [
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
    (11, NotSent::Refused(Refusal::OwnDevicesChanged)),
    (12, NotSent::Refused(Refusal::Quota)),
    (13, NotSent::Refused(Refusal::Stale)),
    (14, NotSent::Refused(Refusal::UnknownDevice)),
    (15, NotSent::Refused(Refusal::UnknownBlob)),
    (16, NotSent::Refused(Refusal::BlobConflict)),
    (17, NotSent::Refused(Refusal::StorageFull)),
    (18, NotSent::Refused(Refusal::Overtaken)),
    (19, NotSent::Refused(Refusal::UnknownService)),
    (20, NotSent::Refused(Refusal::ServiceFailed)),
    (21, NotSent::Refused(Refusal::ServiceTimeout)),
    (101, NotSent::PeerChanged),
    (102, NotSent::Card),
    (103, NotSent::Restored),
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

fn message_id(reader: &mut Reader<'_>) -> Result<MessageId, DecodeError> {
    Ok(MessageId(*reader.array()?))
}

fn devices(reader: &mut Reader<'_>) -> Result<Vec<Thumbprint>, DecodeError> {
    (0..reader.count8(0..=MAX_REMEMBERED_DEVICES)?)
        .map(|_| device(reader))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::StoreError;

    fn events() -> Vec<Event> {
        let device = Thumbprint::from_bytes([3; 32]);
        let (id, user): (_, Arc<str>) = (MessageId([1; 16]), "bob".into());
        let received = Received {
            id,
            from: user.clone(),
            device,
            sent_at: 5,
            redelivered: false,
            forward_secrecy: true,
            handle: None,
            message: Message::text("hello"),
        };
        let mut events = vec![
            Event::Message(received.clone()),
            Event::Message(Received {
                forward_secrecy: false,
                ..received.clone()
            }),
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
            Event::Read {
                id,
                user: user.clone(),
                device,
            },
            Event::StoreRestored,
            Event::RelayKeyChanged { relay: device },
        ];
        for reason in [
            NotDelivered::Expired,
            NotDelivered::DeviceRemoved,
            NotDelivered::MailboxFull,
        ] {
            events.push(Event::NotDelivered {
                id,
                user: user.clone(),
                device,
                reason,
            });
        }
        let gaps = [
            MailboxGap::NewHistory,
            MailboxGap::PutBack,
            MailboxGap::Damaged,
        ];
        events.extend(gaps.map(Event::MailboxGap));
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
    fn connection_state_is_never_stored() {
        let event = Event::Connection(crate::ConnectionState::Connecting);
        assert!(matches!(event.encode(), Err(StoreError::TooLarge)));
    }
}
