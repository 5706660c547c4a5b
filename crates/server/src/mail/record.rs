//! How a record lies in the log: bound to its place, so that one that was changed, moved or swapped is never taken for another.
//!
//! ```text
//! header   opaque magic[4]; u32 length; u32 checksum; u16 meta_length; u8 kind; u8 part; u8 parts; u8 zero[3]; u32 batch
//! meta     what the kind says
//! message  the rest of `length`; only of mail
//! ```
//! `checksum` is the CRC-32C of the log's seed, the segment's number, the record's offset, and header and meta without the checksum itself. The message has
//! a checksum in the meta, so that damage to it costs nothing else. `batch` is the offset at which the write began that the record was part of: a
//! record of a later write proves that earlier ones were complete. A posting of several parts is so many records that follow each other; where parts were
//! left out, notices of that to its sender are the last of them.
//!
//! The checksums find faults of disks and of software. They are no protection against people; but nobody who sends a message knows the seed, so that no message
//! can pass for a record where damage makes us look for the next one.
use sealwire_protocol::limits::{MAX_NAME_BYTES, MAX_SEALED_MESSAGE_BYTES};

use super::MailboxLimits;

const MAGIC: [u8; 4] = [0xd5, b'm', b'a', 0x9e];
/// Bytes of a record's header, and of the shortest record.
pub(super) const HEADER_BYTES: usize = 24;
/// Bytes of header and meta that a record of mail has beside the two users' names.
pub(super) const MAIL_BYTES: usize = HEADER_BYTES + 4 + 4 * 8 + 16 + 32 + 32 + 1 + 1;
/// Bytes of the longest record.
pub(super) const MAX_RECORD_BYTES: usize =
    MAIL_BYTES + 2 * MAX_NAME_BYTES + MAX_SEALED_MESSAGE_BYTES;
/// Bytes of the record that ends a segment.
pub(super) const END_BYTES: usize = HEADER_BYTES;
/// Bytes of the record of a mailbox's state.
pub(super) const STATE_BYTES: usize = HEADER_BYTES + 32 + 8 + 1 + 3 * 8;
/// Bytes of the record that mail or a notice is gone.
pub(super) const ERASED_BYTES: usize = HEADER_BYTES + 32 + 8;
/// Bytes of the record that a mailbox is removed.
pub(super) const REMOVED_BYTES: usize = HEADER_BYTES + 32 + 8;
/// Bytes of the record of a notice, beside the user's name.
pub(super) const NOTICE_BYTES: usize = HEADER_BYTES + 32 + 8 + 8 + 16 + 32 + 8 + 1 + 1;

/// The position of what never had one.
pub(super) const NO_POSITION: u64 = 0;

/// A place in the log: number of the segment, and offset in it. Places increase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    pub(super) segment: u32,
    pub(super) offset: u32,
}

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// A part of a posting.
    Mail(MailRecord<'a>),
    /// Mail that was copied from an older segment.
    Moved(MailRecord<'a>),
    /// What was acknowledged, and the device's own limits.
    State {
        device: &'a [u8; 32],
        acknowledged: u64,
        limits: Option<MailboxLimits>,
    },
    /// Mail will not be delivered, and its sender's mailbox says so.
    Notice(NoticeRecord<'a>),
    /// Mail or a notice is gone without one.
    Erased { device: &'a [u8; 32], position: u64 },
    /// Everything up to a position is to be given back to its senders.
    Removed { device: &'a [u8; 32], up_to: u64 },
    /// Nothing follows in this segment.
    End,
}

/// A message to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MailRecord<'a> {
    /// The device that it is for.
    pub(super) device: &'a [u8; 32],
    pub(super) position: u64,
    pub(super) expires_millis: u64,
    pub(super) time_millis: u64,
    /// What the sending device counted; 0 if it was moved.
    pub(super) sequence: u64,
    pub(super) id: &'a [u8; 16],
    pub(super) from_device: &'a [u8; 32],
    pub(super) from_user: &'a [u8],
    /// The user that it is for.
    pub(super) to_user: &'a [u8],
    pub(super) message: &'a [u8],
}

/// A notice to a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoticeRecord<'a> {
    /// The device that sent, and is told.
    pub(super) device: &'a [u8; 32],
    /// The notice's position there.
    pub(super) position: u64,
    pub(super) expires_millis: u64,
    pub(super) id: &'a [u8; 16],
    /// The device that does not get the mail.
    pub(super) of_device: &'a [u8; 32],
    /// The mail's position there, or [`NO_POSITION`].
    pub(super) of_position: u64,
    /// As on the wire, docs/protocol.md §5.2.
    pub(super) reason: u8,
    pub(super) of_user: &'a [u8],
}

const MAIL: u8 = 1;
const MOVED: u8 = 2;
const STATE: u8 = 3;
const NOTICE: u8 = 4;
const ERASED: u8 = 5;
const REMOVED: u8 = 6;
const END: u8 = 7;

/// A record's part in a posting: which one of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) number: u8,
    pub(super) of: u8,
}

impl Part {
    pub(super) const ONLY: Self = Self { number: 0, of: 1 };

    pub(super) fn is_last(self) -> bool {
        self.number.saturating_add(1) >= self.of
    }
}

/// A record whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decoded<'a> {
    pub(super) record: Record<'a>,
    pub(super) part: Part,
    /// Where the write began.
    pub(super) batch: u32,
    /// Bytes of the whole record.
    pub(super) length: usize,
    /// Whether the message is the one that was stored.
    pub(super) intact: bool,
}

/// Appends a record that will lie at `place`.
pub(super) fn encode(
    to: &mut Vec<u8>,
    seed: &[u8; 16],
    place: Place,
    batch: u32,
    part: Part,
    record: &Record<'_>,
) {
    let start = to.len();
    to.extend_from_slice(&[0; HEADER_BYTES]);
    let (kind, message) = encode_meta(to, record);
    let meta = to.len() - start - HEADER_BYTES;
    to.extend_from_slice(message);
    let length = u32::try_from(to.len() - start).unwrap_or(u32::MAX);
    // At most 650 bytes.
    let meta_length = u16::try_from(meta).unwrap_or(u16::MAX);
    let Some((header, rest)) = to
        .get_mut(start..)
        .and_then(|record| record.split_first_chunk_mut::<HEADER_BYTES>())
    else {
        return;
    };
    let meta = rest.get(..meta).unwrap_or_default();
    *header = header_of(length, meta_length, kind, part, batch);
    let sum = checksum(seed, place, header, meta);
    if let Some(field) = header.get_mut(8..12) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}

fn header_of(
    length: u32,
    meta_length: u16,
    kind: u8,
    part: Part,
    batch: u32,
) -> [u8; HEADER_BYTES] {
    let [m0, m1, m2, m3] = MAGIC;
    let [l0, l1, l2, l3] = length.to_be_bytes();
    let [n0, n1] = meta_length.to_be_bytes();
    let [b0, b1, b2, b3] = batch.to_be_bytes();
    [
        m0,
        m1,
        m2,
        m3,
        l0,
        l1,
        l2,
        l3,
        0,
        0,
        0,
        0,
        n0,
        n1,
        kind,
        part.number,
        part.of,
        0,
        0,
        0,
        b0,
        b1,
        b2,
        b3,
    ]
}

fn checksum(seed: &[u8; 16], place: Place, header: &[u8; HEADER_BYTES], meta: &[u8]) -> u32 {
    let (before, after) = header.split_at(8);
    [
        seed.as_slice(),
        &place.segment.to_be_bytes(),
        &place.offset.to_be_bytes(),
        before,
        after.get(4..).unwrap_or_default(),
        meta,
    ]
    .into_iter()
    .fold(0, crc32c::crc32c_append)
}

fn encode_meta<'a>(to: &mut Vec<u8>, record: &Record<'a>) -> (u8, &'a [u8]) {
    match record {
        Record::Mail(mail) => {
            encode_mail(to, mail);
            (MAIL, mail.message)
        }
        Record::Moved(mail) => {
            encode_mail(to, mail);
            (MOVED, mail.message)
        }
        Record::State {
            device,
            acknowledged,
            limits,
        } => {
            to.extend_from_slice(*device);
            to.extend_from_slice(&acknowledged.to_be_bytes());
            encode_limits(to, limits.as_ref());
            (STATE, &[])
        }
        Record::Notice(notice) => {
            to.extend_from_slice(notice.device);
            to.extend_from_slice(&notice.position.to_be_bytes());
            to.extend_from_slice(&notice.expires_millis.to_be_bytes());
            to.extend_from_slice(notice.id);
            to.extend_from_slice(notice.of_device);
            to.extend_from_slice(&notice.of_position.to_be_bytes());
            to.push(notice.reason);
            encode_name(to, notice.of_user);
            (NOTICE, &[])
        }
        Record::Erased { device, position } => {
            to.extend_from_slice(*device);
            to.extend_from_slice(&position.to_be_bytes());
            (ERASED, &[])
        }
        Record::Removed { device, up_to } => {
            to.extend_from_slice(*device);
            to.extend_from_slice(&up_to.to_be_bytes());
            (REMOVED, &[])
        }
        Record::End => (END, &[]),
    }
}

fn encode_mail(to: &mut Vec<u8>, mail: &MailRecord<'_>) {
    to.extend_from_slice(&crc32c::crc32c(mail.message).to_be_bytes());
    to.extend_from_slice(&mail.position.to_be_bytes());
    to.extend_from_slice(&mail.expires_millis.to_be_bytes());
    to.extend_from_slice(&mail.time_millis.to_be_bytes());
    to.extend_from_slice(&mail.sequence.to_be_bytes());
    to.extend_from_slice(mail.id);
    to.extend_from_slice(mail.device);
    to.extend_from_slice(mail.from_device);
    encode_name(to, mail.from_user);
    encode_name(to, mail.to_user);
}

/// A name has at most 255 bytes (docs/protocol.md §1.2).
pub(super) fn encode_name(to: &mut Vec<u8>, name: &[u8]) {
    to.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
    to.extend_from_slice(name);
}

pub(super) fn encode_limits(to: &mut Vec<u8>, limits: Option<&MailboxLimits>) {
    to.push(u8::from(limits.is_some()));
    let (messages, bytes, seconds) = limits.map_or((0, 0, 0), |limits| {
        (limits.messages, limits.bytes, limits.retention_seconds)
    });
    for number in [messages, bytes, seconds] {
        to.extend_from_slice(&number.to_be_bytes());
    }
}

/// The record that begins `bytes`, if it was stored at `place`. Bytes after it do not matter.
pub(super) fn decode<'a>(seed: &[u8; 16], place: Place, bytes: &'a [u8]) -> Option<Decoded<'a>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let mut fields = Fields(header);
    let magic = fields.array::<4>()?;
    let length = usize::try_from(fields.u32()?).ok()?;
    let sum = fields.u32()?;
    let meta_length = usize::from(fields.u16()?);
    let kind = fields.u8()?;
    let part = Part {
        number: fields.u8()?,
        of: fields.u8()?,
    };
    fields.array::<3>()?;
    let batch = fields.u32()?;
    if *magic != MAGIC || length > MAX_RECORD_BYTES {
        return None;
    }
    let body = rest.get(..length.checked_sub(HEADER_BYTES)?)?;
    let (meta, message) = body.split_at_checked(meta_length)?;
    if sum != checksum(seed, place, header, meta) {
        return None;
    }
    let mut fields = Fields(meta);
    let (record, intact) = match kind {
        MAIL | MOVED => {
            let sum = fields.u32()?;
            let mail = decode_mail(&mut fields, message)?;
            let record = if kind == MAIL {
                Record::Mail(mail)
            } else {
                Record::Moved(mail)
            };
            (record, sum == crc32c::crc32c(message))
        }
        STATE => (
            Record::State {
                device: fields.array()?,
                acknowledged: fields.u64()?,
                limits: fields.limits()?,
            },
            true,
        ),
        NOTICE => (
            Record::Notice(NoticeRecord {
                device: fields.array()?,
                position: fields.u64()?,
                expires_millis: fields.u64()?,
                id: fields.array()?,
                of_device: fields.array()?,
                of_position: fields.u64()?,
                reason: fields.u8()?,
                of_user: fields.name()?,
            }),
            true,
        ),
        ERASED => (
            Record::Erased {
                device: fields.array()?,
                position: fields.u64()?,
            },
            true,
        ),
        REMOVED => (
            Record::Removed {
                device: fields.array()?,
                up_to: fields.u64()?,
            },
            true,
        ),
        END => (Record::End, true),
        _ => return None,
    };
    fields.0.is_empty().then_some(Decoded {
        record,
        part,
        batch,
        length,
        intact,
    })
}

fn decode_mail<'a>(fields: &mut Fields<'a>, message: &'a [u8]) -> Option<MailRecord<'a>> {
    Some(MailRecord {
        position: fields.u64()?,
        expires_millis: fields.u64()?,
        time_millis: fields.u64()?,
        sequence: fields.u64()?,
        id: fields.array()?,
        device: fields.array()?,
        from_device: fields.array()?,
        from_user: fields.name()?,
        to_user: fields.name()?,
        message,
    })
}

/// The offset of the next valid record in `bytes` from `from` on, where `bytes` begins at offset 0 of its segment.
pub(super) fn find(seed: &[u8; 16], segment: u32, bytes: &[u8], from: usize) -> Option<usize> {
    let mut start = from;
    loop {
        let rest = bytes.get(start..)?;
        let found = start
            + rest
                .windows(MAGIC.len())
                .position(|window| window == MAGIC)?;
        let place = Place {
            segment,
            offset: u32::try_from(found).ok()?,
        };
        if decode(seed, place, bytes.get(found..)?).is_some() {
            return Some(found);
        }
        start = found + 1;
    }
}

/// Takes fields from the front.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(array)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| *byte)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    pub(super) fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        let (name, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        Some(name)
    }

    pub(super) fn limits(&mut self) -> Option<Option<MailboxLimits>> {
        let some = self.u8()?;
        let limits = MailboxLimits {
            messages: self.u64()?,
            bytes: self.u64()?,
            retention_seconds: self.u64()?,
        };
        match some {
            0 => Some(None),
            1 => Some(Some(limits)),
            _ => None,
        }
    }
}
