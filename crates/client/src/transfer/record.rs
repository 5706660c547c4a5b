//! What a device remembers of a file that it is sending, so that the same call goes on where the last one ended.

use std::path::Path;

use sealwire_protocol::codec::{DecodeError, Reader, Writer};
use sealwire_protocol::crypto::sha256;
use zeroize::Zeroizing;

use super::chunks::BlobId;
use super::port::Stored;

/// Uploads that are remembered; the oldest is forgotten for one more.
pub(crate) const MAX_RECORDS: usize = 64;

const VERSION: u8 = 1;

/// An upload that is not known to have ended.
///
/// `u8 version; opaque name[32]; opaque blob[32]; opaque key[32]; u64 size; u64 covered; opaque prefix[32]; opaque message[16]; u64 begun`
#[derive(PartialEq, Eq)]
pub(crate) struct UploadRecord {
    /// What is being sent, and to whom: [`UploadRecord::name`].
    pub(crate) name: [u8; 32],
    pub(crate) blob: BlobId,
    pub(crate) key: Zeroizing<[u8; 32]>,
    /// Bytes of the file when it was begun.
    pub(crate) size: u64,
    /// Bytes of the file of which chunks may be at the relay: no chunk beyond is sent before the record says so.
    pub(crate) covered: u64,
    /// SHA-256 of these bytes. A file that does not begin with them any more is another one.
    pub(crate) prefix: [u8; 32],
    /// The id of the message that will name the file: it is sent once, however often the last step is repeated.
    pub(crate) message: [u8; 16],
    /// When it was begun, in seconds since 1970.
    pub(crate) begun: u64,
}

impl UploadRecord {
    /// Names the sending of a file to a user.
    pub(crate) fn name(user: &str, path: &Path) -> [u8; 32] {
        let path = path.as_os_str().as_encoded_bytes();
        let length = u64::try_from(user.len()).unwrap_or(u64::MAX).to_be_bytes();
        sha256(&[&length, user.as_bytes(), path])
    }

    pub(crate) fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        Writer::new(&mut out)
            .u8(VERSION)
            .bytes(&self.name)
            .bytes(&self.blob)
            .bytes(self.key.as_slice())
            .u64(self.size)
            .u64(self.covered)
            .bytes(&self.prefix)
            .bytes(&self.message)
            .u64(self.begun);
        out
    }

    pub(crate) fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(record);
        if reader.u8()? != VERSION {
            return Err(DecodeError::UnknownValue);
        }
        let record = Self {
            name: *reader.array()?,
            blob: *reader.array()?,
            key: Zeroizing::new(*reader.array()?),
            size: reader.u64()?,
            covered: reader.u64()?,
            prefix: *reader.array()?,
            message: *reader.array()?,
            begun: reader.u64()?,
        };
        reader.finish()?;
        Ok(record)
    }

    /// The record of this name, with its number.
    pub(crate) fn find(name: &[u8; 32], records: &Stored) -> Option<(u64, Self)> {
        records.iter().find_map(|(number, record)| {
            let record = Self::decode(record).ok()?;
            (record.name == *name).then_some((*number, record))
        })
    }

    /// The record that makes room for one more, if there has to be room.
    pub(crate) fn oldest(records: &Stored) -> Option<u64> {
        if records.len() < MAX_RECORDS {
            return None;
        }
        // One of a later version, or damaged, is the first to go.
        let begun = |record: &[u8]| Self::decode(record).map_or(0, |record| record.begun);
        let oldest = records.iter().min_by_key(|(_, record)| begun(record));
        oldest.map(|(number, _)| *number)
    }
}

/// Shows the sizes only.
impl std::fmt::Debug for UploadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UploadRecord")
            .field("size", &self.size)
            .field("covered", &self.covered)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: u8, begun: u64) -> UploadRecord {
        UploadRecord {
            name: [name; 32],
            blob: [2; 32],
            key: Zeroizing::new([3; 32]),
            size: 70_000,
            covered: 65_536,
            prefix: [4; 32],
            message: [5; 16],
            begun,
        }
    }

    #[test]
    fn record_comes_back() {
        let record = record(1, 6);
        let encoded = record.encode();
        assert_eq!(UploadRecord::decode(&encoded).as_ref(), Ok(&record));
        for length in 0..encoded.len() {
            assert!(UploadRecord::decode(&encoded[..length]).is_err());
        }
        assert_eq!(
            format!("{record:?}"),
            "UploadRecord { size: 70000, covered: 65536, .. }"
        );
    }

    #[test]
    fn record_is_found_by_its_name_and_the_oldest_makes_room() {
        let mut records: Stored = vec![(7, record(1, 50).encode()), (2, record(2, 40).encode())];
        let (number, found) = UploadRecord::find(&[2; 32], &records).unwrap();
        assert_eq!((number, found.begun), (2, 40));
        assert_eq!(UploadRecord::find(&[9; 32], &records), None);
        assert_eq!(UploadRecord::oldest(&records), None);
        for number in 100..162 {
            records.push((number, record(3, 60).encode()));
        }
        assert_eq!(records.len(), MAX_RECORDS);
        assert_eq!(UploadRecord::oldest(&records), Some(2));
        records[5].1[0] = 99;
        assert_eq!(UploadRecord::oldest(&records), Some(records[5].0));
    }

    #[test]
    fn name_tells_users_and_paths_apart() {
        let name = |user, path| UploadRecord::name(user, Path::new(path));
        let names = [
            name("bob", "/a"),
            name("bob/", "a"),
            name("bob", "/b"),
            name("eve", "/a"),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(!names[index + 1..].contains(name));
        }
        assert_eq!(name("bob", "/a"), names[0]);
    }
}
