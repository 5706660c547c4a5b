//! The index, written aside now and then, so that the log need not be read from its beginning and old segments can go.
//!
//! ```text
//! file     block…                    the first says what it is, the last that it is whole
//! block    u32 length; u32 checksum; opaque payload[length]
//! first    opaque magic[8]; u32 format; opaque epoch[16]; opaque seed[16]; u64 number; u32 start; Place replay_from
//! others   u8 1; device…             or, the last,  u8 2; u64 devices; Place durable
//! device   opaque id[32]; u64 acknowledged; u64 head; u64 sent; u64 window; u64 removed_up_to; limits; u32 count; entry…
//! entry    u64 position; Place place; u64 expires; opaque id[16]; u8 what; u32 message_bytes; u32 record_bytes; opaque peer[32];
//!          vec8 from_user; vec8 to_user
//! ```
//! `checksum` is the CRC-32C of the checkpoint's number, the block's number, its length and its payload. A checkpoint is written while the relay goes on, a
//! bounded piece at a time, so devices are as they were at different moments after `replay_from`. Replaying the log from there makes them agree: every
//! record says what is so after it, whether or not it was so before. The file gets its name once it is synced and everything
//! that it tells is durable in the log; `durable` is where the log was then.
use std::io;
use std::sync::Arc;

use sealwire_protocol::name::User;

use super::FORMAT_VERSION;
use super::disk::LogFile;
use super::index::{DeviceNumber, Entry, Index, Snapshot, What};
use super::record::{Fields, Place, encode_limits, encode_name};
use super::segment::LogId;
use super::users::UserNumber;

const MAGIC: [u8; 8] = *b"sealckpt";
const BLOCK_HEADER_BYTES: usize = 8;
const HEAD_BYTES: usize = 8 + 4 + 16 + 16 + 8 + 4 + 8;
const DEVICES: u8 = 1;
const END: u8 = 2;
/// Bytes after which a block takes no further device.
const BLOCK_BYTES: usize = 256 << 10;

/// What a checkpoint says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) log: LogId,
    pub(super) number: u64,
    pub(super) start: u32,
    /// The log has to be replayed from here.
    pub(super) replay_from: Place,
}

/// Why a checkpoint cannot be used.
#[derive(Debug)]
pub(super) enum BadCheckpoint {
    Damaged,
    Newer(u32),
    Disk(io::Error),
}

impl From<io::Error> for BadCheckpoint {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::Damaged
        } else {
            Self::Disk(error)
        }
    }
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) head: Head,
    file: Arc<dyn LogFile>,
    offset: u64,
    blocks: u32,
    next: DeviceNumber,
    devices: u64,
    buffer: Vec<u8>,
}

impl Unfinished {
    /// Begins one in an empty file.
    pub(super) fn begin(file: Arc<dyn LogFile>, head: Head) -> io::Result<Self> {
        let mut new = Self {
            head,
            file,
            offset: 0,
            blocks: 0,
            next: DeviceNumber::next(None),
            devices: 0,
            buffer: vec![0; BLOCK_HEADER_BYTES],
        };
        new.buffer.extend_from_slice(&MAGIC);
        new.buffer.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
        new.buffer.extend_from_slice(&head.log.epoch);
        new.buffer.extend_from_slice(&head.log.seed);
        new.buffer.extend_from_slice(&head.number.to_be_bytes());
        new.buffer.extend_from_slice(&head.start.to_be_bytes());
        encode_place(&mut new.buffer, head.replay_from);
        new.write()?;
        Ok(new)
    }

    /// Takes the next devices, and says whether there are more. To be called with the index locked; [`Unfinished::write`] has to follow without.
    pub(super) fn take(&mut self, index: &Index) -> bool {
        self.buffer.push(DEVICES);
        while self.buffer.len() < BLOCK_BYTES {
            let Some(device) = index.snapshot(self.next) else {
                return false;
            };
            encode_device(&mut self.buffer, index, &device);
            self.next = DeviceNumber::next(Some(self.next));
            self.devices += 1;
        }
        true
    }

    /// Writes what was taken.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.buffer.len() - BLOCK_HEADER_BYTES)
            .map_err(|_| io::ErrorKind::FileTooLarge)?;
        let Some((header, payload)) = self.buffer.split_first_chunk_mut::<BLOCK_HEADER_BYTES>()
        else {
            return Ok(());
        };
        let sum = checksum(self.head.number, self.blocks, length, payload);
        let fields = length.to_be_bytes().into_iter().chain(sum.to_be_bytes());
        header
            .iter_mut()
            .zip(fields)
            .for_each(|(to, from)| *to = from);
        self.file.write_at(self.offset, &self.buffer)?;
        self.offset += self.buffer.len() as u64;
        self.blocks += 1;
        self.buffer.truncate(BLOCK_HEADER_BYTES);
        self.buffer.shrink_to(2 * BLOCK_BYTES);
        Ok(())
    }

    /// Ends it, when everything that was taken is durable in the log up to `durable`, and returns its length.
    pub(super) fn finish(mut self, durable: Place) -> io::Result<u64> {
        self.buffer.push(END);
        self.buffer.extend_from_slice(&self.devices.to_be_bytes());
        encode_place(&mut self.buffer, durable);
        self.write()?;
        self.file.sync()?;
        Ok(self.offset)
    }
}

fn checksum(number: u64, block: u32, length: u32, payload: &[u8]) -> u32 {
    [
        number.to_be_bytes().as_slice(),
        &block.to_be_bytes(),
        &length.to_be_bytes(),
        payload,
    ]
    .into_iter()
    .fold(0, crc32c::crc32c_append)
}

fn encode_place(to: &mut Vec<u8>, place: Place) {
    to.extend_from_slice(&place.segment.to_be_bytes());
    to.extend_from_slice(&place.offset.to_be_bytes());
}

fn encode_device(to: &mut Vec<u8>, index: &Index, device: &Snapshot<'_>) {
    to.extend_from_slice(device.id);
    for number in [
        device.acknowledged,
        device.head,
        device.sent,
        device.window,
        device.removed_up_to,
    ] {
        to.extend_from_slice(&number.to_be_bytes());
    }
    encode_limits(to, device.limits);
    let count = device.entries.map_or(0, |entries| entries.len());
    // An entry has 64 bytes, so memory ends before the numbers do.
    to.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
    for entry in device.entries.into_iter().flatten() {
        encode_entry(to, index, entry);
    }
}

fn encode_entry(to: &mut Vec<u8>, index: &Index, entry: &Entry) {
    to.extend_from_slice(&entry.position.to_be_bytes());
    encode_place(to, entry.place);
    to.extend_from_slice(&entry.expires_millis.to_be_bytes());
    to.extend_from_slice(&entry.id);
    to.push(match entry.what {
        What::Mail => 0,
        What::Notice(reason) => reason,
        What::Damaged => u8::MAX,
    });
    to.extend_from_slice(&entry.message_bytes.to_be_bytes());
    to.extend_from_slice(&entry.record_bytes.to_be_bytes());
    to.extend_from_slice(index.id(entry.peer).unwrap_or(&[0; 32]));
    for user in [entry.from_user, entry.to_user] {
        let name = index.users.name(user);
        encode_name(to, name.map_or(&[], |name| name.as_bytes()));
    }
}

/// Reads blocks, one after the other.
struct Blocks<'a> {
    file: &'a dyn LogFile,
    length: u64,
    number: u64,
    offset: u64,
    blocks: u32,
}

impl Blocks<'_> {
    fn next(&mut self) -> Result<Vec<u8>, BadCheckpoint> {
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.file.read_at(self.offset, &mut header)?;
        let mut fields = Fields(&header);
        let (length, sum) = fields
            .u32()
            .zip(fields.u32())
            .ok_or(BadCheckpoint::Damaged)?;
        let start = self.offset + BLOCK_HEADER_BYTES as u64;
        if u64::from(length) > self.length.saturating_sub(start) {
            return Err(BadCheckpoint::Damaged);
        }
        let mut payload = vec![0; length as usize];
        self.file.read_at(start, &mut payload)?;
        if sum != checksum(self.number, self.blocks, length, &payload) {
            return Err(BadCheckpoint::Damaged);
        }
        self.offset = start + u64::from(length);
        self.blocks += 1;
        Ok(payload)
    }
}

/// Reads what the checkpoint of this number says of itself.
pub(super) fn read_head(file: &dyn LogFile, number: u64) -> Result<Head, BadCheckpoint> {
    begin(file, number).map(|(head, _)| head)
}

fn begin(file: &dyn LogFile, number: u64) -> Result<(Head, Blocks<'_>), BadCheckpoint> {
    let mut blocks = Blocks {
        file,
        length: file.length()?,
        number,
        offset: 0,
        blocks: 0,
    };
    let payload = blocks.next()?;
    let mut fields = Fields(&payload);
    let magic = fields.array().ok_or(BadCheckpoint::Damaged)?;
    let format = fields.u32().ok_or(BadCheckpoint::Damaged)?;
    if *magic == MAGIC && format > FORMAT_VERSION {
        return Err(BadCheckpoint::Newer(format));
    }
    let head = decode_head(&mut fields).ok_or(BadCheckpoint::Damaged)?;
    let is_it = *magic == MAGIC
        && format == FORMAT_VERSION
        && payload.len() == HEAD_BYTES
        && head.number == number;
    if is_it {
        Ok((head, blocks))
    } else {
        Err(BadCheckpoint::Damaged)
    }
}

fn decode_head(fields: &mut Fields<'_>) -> Option<Head> {
    Some(Head {
        log: LogId {
            epoch: *fields.array()?,
            seed: *fields.array()?,
        },
        number: fields.u64()?,
        start: fields.u32()?,
        replay_from: decode_place(fields)?,
    })
}

fn decode_place(fields: &mut Fields<'_>) -> Option<Place> {
    Some(Place {
        segment: fields.u32()?,
        offset: fields.u32()?,
    })
}

/// A checkpoint that was read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) head: Head,
    pub(super) index: Index,
    /// The log was durable up to here.
    pub(super) durable: Place,
}

/// Reads the checkpoint of this number whole.
pub(super) fn load(file: &dyn LogFile, number: u64) -> Result<Loaded, BadCheckpoint> {
    let (head, mut blocks) = begin(file, number)?;
    let mut index = Index::default();
    loop {
        let payload = blocks.next()?;
        let mut fields = Fields(&payload);
        match fields.u8() {
            Some(DEVICES) => {
                while !fields.0.is_empty() {
                    decode_device(&mut fields, &mut index).ok_or(BadCheckpoint::Damaged)?;
                }
            }
            Some(END) => {
                let devices = fields.u64().ok_or(BadCheckpoint::Damaged)?;
                let durable = decode_place(&mut fields).ok_or(BadCheckpoint::Damaged)?;
                // Devices of which only others' entries tell come on top.
                let whole = fields.0.is_empty()
                    && blocks.offset == blocks.length
                    && devices <= index.devices() as u64;
                if !whole {
                    return Err(BadCheckpoint::Damaged);
                }
                return Ok(Loaded {
                    head,
                    index,
                    durable,
                });
            }
            _ => return Err(BadCheckpoint::Damaged),
        }
    }
}

fn decode_device(fields: &mut Fields<'_>, index: &mut Index) -> Option<()> {
    let id = fields.array()?;
    let numbers = [fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?];
    let removed_up_to = fields.u64()?;
    let limits = fields.limits()?;
    let device = index.restore(id, numbers, limits);
    for _ in 0..fields.u32()? {
        let position = fields.u64()?;
        let place = decode_place(fields)?;
        let expires_millis = fields.u64()?;
        let id = *fields.array()?;
        let what = match fields.u8()? {
            0 => What::Mail,
            u8::MAX => What::Damaged,
            reason => What::Notice(reason),
        };
        let message_bytes = fields.u32()?;
        let record_bytes = fields.u32()?;
        let peer = index.enter(fields.array()?);
        let entry = Entry {
            position,
            place,
            expires_millis,
            id,
            peer,
            from_user: decode_user(fields, index)?,
            to_user: decode_user(fields, index)?,
            message_bytes,
            record_bytes,
            what,
        };
        index.insert(device, entry);
    }
    if removed_up_to > 0 {
        index.restore_removed(device, removed_up_to);
    }
    Some(())
}

fn decode_user(fields: &mut Fields<'_>, index: &mut Index) -> Option<UserNumber> {
    let name = fields.name()?;
    if name.is_empty() {
        return Some(UserNumber::NOBODY);
    }
    Some(index.users.refer(&User::from_bytes(name).ok()?))
}
