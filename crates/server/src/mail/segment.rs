//! The log's files: their names, and the header that says what they are.
//!
//! ```text
//! mail-<segment, 10 digits>-<start, 8 digits>    segment
//! checkpoint-<number, 20 digits>                 checkpoint; with ".new" behind it, one that was not finished
//!
//! header   opaque magic[8]; u32 format; opaque epoch[16]; opaque seed[16]; u32 segment; u32 start; u32 checksum
//! ```
//! A segment begins with two copies of its header in different sectors, so that damage to one costs nothing, and then has records. It is written from front to
//! back, once; what follows the last record is zeros. The header's form is the same in every format, so that a newer one can be told from damage.
use super::record::Fields;

const MAGIC: [u8; 8] = *b"sealmail";
const HEADER_BYTES: usize = 8 + 4 + 16 + 16 + 4 + 4 + 4;
const SECOND_COPY: usize = 512;
/// Where the records begin.
pub(super) const START: u32 = 1_024;

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) log: LogId,
    pub(super) segment: u32,
    pub(super) start: u32,
}

/// What tells a log apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LogId {
    /// Told to every device.
    pub(super) epoch: [u8; 16],
    /// Told to nobody: it starts every checksum.
    pub(super) seed: [u8; 16],
}

/// What the beginning of a segment holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its header, from a copy that is whole.
    pub(super) header: Option<Header>,
    /// Whether every byte is as it was written.
    pub(super) whole: bool,
}

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let mut copy = Vec::with_capacity(HEADER_BYTES);
    copy.extend_from_slice(&MAGIC);
    copy.extend_from_slice(&header.format.to_be_bytes());
    copy.extend_from_slice(&header.log.epoch);
    copy.extend_from_slice(&header.log.seed);
    copy.extend_from_slice(&header.segment.to_be_bytes());
    copy.extend_from_slice(&header.start.to_be_bytes());
    copy.extend_from_slice(&crc32c::crc32c(&copy).to_be_bytes());
    let mut both = copy.clone();
    both.resize(SECOND_COPY, 0);
    both.extend_from_slice(&copy);
    both.resize(START as usize, 0);
    both
}

pub(super) fn decode_header(bytes: &[u8]) -> Found {
    let first = decode_copy(bytes);
    let second = decode_copy(bytes.get(SECOND_COPY..).unwrap_or_default());
    let header = first.or(second);
    Found {
        header,
        whole: header
            .is_some_and(|header| bytes.get(..START as usize) == Some(&*encode_header(&header))),
    }
}

fn decode_copy(bytes: &[u8]) -> Option<Header> {
    let copy = bytes.get(..HEADER_BYTES)?;
    let (summed, sum) = copy.split_last_chunk::<4>()?;
    if u32::from_be_bytes(*sum) != crc32c::crc32c(summed) {
        return None;
    }
    let mut fields = Fields(summed);
    if *fields.array()? != MAGIC {
        return None;
    }
    Some(Header {
        format: fields.u32()?,
        log: LogId {
            epoch: *fields.array()?,
            seed: *fields.array()?,
        },
        segment: fields.u32()?,
        start: fields.u32()?,
    })
}

/// The name of a segment.
pub(super) fn name(segment: u32, start: u32) -> String {
    format!("mail-{segment:010}-{start:08}")
}

/// The segment and the start in a segment's name.
pub(super) fn parse_name(text: &str) -> Option<(u32, u32)> {
    let (segment, start) = text.strip_prefix("mail-")?.split_once('-')?;
    let (segment, start) = (segment.parse().ok()?, start.parse().ok()?);
    (name(segment, start) == text).then_some((segment, start))
}

/// The name of a checkpoint.
pub(super) fn checkpoint_name(number: u64) -> String {
    format!("checkpoint-{number:020}")
}

/// The name of a checkpoint that is being written.
pub(super) fn unfinished_name(number: u64) -> String {
    format!("{}{UNFINISHED}", checkpoint_name(number))
}

/// How the name of what is being written ends.
pub(super) const UNFINISHED: &str = ".new";

/// The number in a checkpoint's name.
pub(super) fn parse_checkpoint_name(text: &str) -> Option<u64> {
    let number = text.strip_prefix("checkpoint-")?.parse().ok()?;
    (checkpoint_name(number) == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            format: 1,
            log: LogId {
                epoch: [1; 16],
                seed: [2; 16],
            },
            segment: 7,
            start: 3,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let found = decode_header(&encode_header(&header()));
        assert_eq!((found.header, found.whole), (Some(header()), true));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found_and_costs_nothing() {
        let good = encode_header(&header());
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = decode_header(&bytes);
            assert_eq!(
                (found.header, found.whole),
                (Some(header()), false),
                "{bit}"
            );
        }
    }

    #[test]
    fn a_header_that_was_cut_off_is_none() {
        let good = encode_header(&header());
        assert_eq!(decode_header(&good[..HEADER_BYTES - 1]).header, None);
        assert_eq!(decode_header(&[]).header, None);
        assert!(!decode_header(&good[..START as usize - 1]).whole);
    }

    #[test]
    fn only_names_of_the_exact_form_are_taken() {
        assert_eq!(parse_name(&name(7, 3)), Some((7, 3)));
        assert_eq!(parse_name(&name(u32::MAX, 1)), Some((u32::MAX, 1)));
        for wrong in [
            "mail-7-3",
            "mail-0000000007-00000003.new",
            "mail-+000000007-00000003",
            "mail-0000000007",
            "lock",
        ] {
            assert_eq!(parse_name(wrong), None, "{wrong}");
        }
        assert_eq!(parse_checkpoint_name(&checkpoint_name(9)), Some(9));
        assert_eq!(parse_checkpoint_name(&unfinished_name(9)), None);
    }
}
