//! Up to where the log was synced, in a file beside it: so that what a process was killed with is not cut as if it had never been accepted.
//!
//! ```text
//! file "synced"    u32 segment; u32 offset; u32 checksum       the CRC-32C of the log's seed and the two numbers
//! ```
//! The last write of a log that was not closed may have been half done, so what is bad in it is cut. But it may also have been synced, and damaged since.
//! The writer notes that a write has been synced, before it says so to anybody, by a write that it does not sync. A process that is killed leaves it with the
//! system, which has it at the next start. A system that stops may lose it, and have an older one, which is as true: then the last write is as uncertain as without.
use std::io;
use std::sync::Arc;

use super::disk::{Disk, LogFile};
use super::record::{Fields, Place};
use super::segment::LogId;

/// The file's name.
pub(super) const NAME: &str = "synced";
const BYTES: usize = 12;

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing yet.
    Nothing,
    Place(Place),
    /// It is not what was written, or cannot be read.
    Damaged,
}

pub(super) fn encode(log: &LogId, place: Place) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    bytes.extend_from_slice(&place.segment.to_be_bytes());
    bytes.extend_from_slice(&place.offset.to_be_bytes());
    let sum = crc32c::crc32c_append(crc32c::crc32c(&log.seed), &bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}

fn decode(log: &LogId, bytes: &[u8; BYTES]) -> Found {
    // A crash while it was made.
    if *bytes == [0; BYTES] {
        return Found::Nothing;
    }
    let mut fields = Fields(bytes);
    let place = fields
        .u32()
        .zip(fields.u32())
        .map(|(segment, offset)| Place { segment, offset });
    match place {
        Some(place) if encode(log, place) == bytes => Found::Place(place),
        _ => Found::Damaged,
    }
}

/// Reads the file of a log.
pub(super) fn read(disk: &dyn Disk, log: &LogId) -> Found {
    let mut bytes = [0; BYTES];
    match disk.open(NAME).and_then(|file| file.read_at(0, &mut bytes)) {
        Ok(()) => decode(log, &bytes),
        // Not made, or not written yet.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Found::Nothing
        }
        // It is needed for nothing but to find damage, so it keeps no log closed.
        Err(error) => {
            warn(&error);
            Found::Damaged
        }
    }
}

/// The file, while the log is open.
#[derive(Debug)]
pub(super) enum Synced {
    /// It is as the start before left it, or not there.
    Before,
    Open(Arc<dyn LogFile>),
    /// It could not be written. What it says last stays true, and the log does without.
    GivenUp,
}

impl Synced {
    /// Everything before `place` is synced.
    pub(super) fn note(&mut self, disk: &dyn Disk, log: &LogId, place: Place) {
        let noted = match self {
            Self::Before => disk.create(NAME).and_then(|file| {
                let written = file.write_at(0, &encode(log, place));
                *self = Self::Open(file);
                written
            }),
            Self::Open(file) => file.write_at(0, &encode(log, place)),
            Self::GivenUp => Ok(()),
        };
        if let Err(error) = noted {
            warn(&error);
            *self = Self::GivenUp;
        }
    }
}

fn warn(error: &io::Error) {
    tracing::warn!(%error, "it is not noted what of the mail log is synced; damage to its last write will not be told from a crash");
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId {
        epoch: [1; 16],
        seed: [2; 16],
    };

    #[test]
    fn a_place_is_read_as_it_was_noted_and_no_changed_bit_of_it() {
        let place = Place {
            segment: 3,
            offset: 1_234,
        };
        let good: [u8; BYTES] = encode(&LOG, place).try_into().unwrap();
        assert_eq!(decode(&LOG, &good), Found::Place(place));
        let other = LogId {
            seed: [3; 16],
            ..LOG
        };
        assert_eq!(decode(&other, &good), Found::Damaged);
        for bit in 0..8 * BYTES {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&LOG, &bytes), Found::Damaged, "{bit}");
        }
        assert_eq!(decode(&LOG, &[0; BYTES]), Found::Nothing);
    }
}
