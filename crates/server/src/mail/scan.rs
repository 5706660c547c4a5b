//! Reads a segment from front to back, also one that is damaged or half written.
use super::record::{self, Decoded, END_BYTES, Place, Record};
use super::segment::START;

/// A stretch of a segment.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) offset: u32,
    pub(super) length: u32,
    /// Nothing where there should be a record and is none.
    pub(super) record: Option<Decoded<'a>>,
}

impl Item<'_> {
    /// Whether some of it is not what was written.
    pub(super) fn is_bad(&self) -> bool {
        self.record.is_none_or(|record| !record.intact)
    }

    fn is_end(&self) -> bool {
        self.record
            .is_some_and(|decoded| decoded.record == Record::End)
    }
}

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Scan<'a> {
    /// Without gaps, from the first record to the last byte that is not zero.
    pub(super) items: Vec<Item<'a>>,
    /// Whether a mark says that nothing follows, and nothing does.
    pub(super) ended: bool,
}

/// Scans a segment, given from its first byte on.
pub(super) fn scan<'a>(seed: &[u8; 16], segment: u32, bytes: &'a [u8]) -> Scan<'a> {
    let mut items: Vec<Item<'a>> = Vec::new();
    let used = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    let mut offset = START as usize;
    // A record may end with zeros.
    while offset < used {
        let place = Place {
            segment,
            // A segment is shorter than 4 GiB.
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
        };
        let decoded = bytes
            .get(offset..)
            .and_then(|rest| record::decode(seed, place, rest));
        let end = match &decoded {
            Some(decoded) => offset + decoded.length,
            None => record::find(seed, segment, bytes, offset + 1).unwrap_or(used),
        };
        items.push(Item {
            offset: place.offset,
            length: u32::try_from(end - offset).unwrap_or(u32::MAX),
            record: decoded,
        });
        offset = end;
    }
    let ended = items.last().is_some_and(Item::is_end);
    Scan { items, ended }
}

impl Scan<'_> {
    /// Where the last segment ends with what is certain, if a crash left more: the rest of a write that was not synced.
    ///
    /// That is so for what is bad in the last write or after it. What is bad before, or before `durable`, or behind the mark that ends the segment, is damage.
    /// A posting of which parts are missing goes whole.
    pub(super) fn cut(&self, durable: u32) -> Option<u32> {
        let last_batch = self
            .items
            .iter()
            .filter_map(|item| item.record)
            .map(|decoded| decoded.batch)
            .max()
            .unwrap_or(START);
        let uncertain = last_batch.max(durable);
        let torn = self
            .items
            .iter()
            .take_while(|item| !item.is_end())
            .find(|item| item.is_bad() && item.offset.saturating_add(item.length) > uncertain)
            .map(|item| item.offset.max(uncertain));
        let end = torn.unwrap_or(u32::MAX);
        let whole = self
            .items
            .iter()
            .rev()
            .find(|item| item.offset < end)
            .and_then(|last| last.record.map(|decoded| (last.offset, decoded)));
        match whole {
            Some((offset, decoded)) if !decoded.part.is_last() && offset >= uncertain => {
                Some(self.first_part(offset))
            }
            _ => torn,
        }
    }

    /// The offset of the first part of the posting of which a part lies at `offset`.
    fn first_part(&self, offset: u32) -> u32 {
        self.items
            .iter()
            .rev()
            .filter(|item| item.offset <= offset)
            .find(|item| item.record.is_none_or(|decoded| decoded.part.number == 0))
            .map_or(offset, |item| item.offset)
    }

    /// Places where the segment is not as it was written, up to an offset: bad stretches, what lies behind the mark that ends it, and a missing mark.
    pub(super) fn damaged(&self, up_to: u32, has_to_end: bool) -> u64 {
        let mut damaged = 0;
        let mut ended = false;
        for item in self.items.iter().filter(|item| item.offset < up_to) {
            damaged += u64::from(item.is_bad() || ended);
            ended |= item.is_end();
        }
        let missing = has_to_end && !ended && !self.ends_badly();
        damaged + u64::from(missing)
    }

    /// Whether it is not known where the last record ends.
    pub(super) fn ends_badly(&self) -> bool {
        self.items.last().is_some_and(Item::is_bad)
    }

    /// Where the records end, and the mark that ends them would be.
    pub(super) fn end(&self) -> u32 {
        self.items.last().map_or(START, |last| {
            let end = last.offset.saturating_add(last.length);
            if last.is_end() {
                end.saturating_sub(u32::try_from(END_BYTES).unwrap_or(0))
            } else {
                end
            }
        })
    }
}
