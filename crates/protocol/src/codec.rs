//! The wire encoding: big-endian integers and length-prefixed vectors (docs/protocol.md §1.1).
//!
//! ```text
//! received bytes ── Reader ──> borrowed fields      fields ── Writer ──> Vec<u8>
//! ```
//!
//! [`Reader`] copies nothing and allocates nothing, so every bound is checked before anybody can allocate for a field.
//! What the fields mean is for the modules that use it.

use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Reads fields from the front of a slice. Every field it returns borrows from the input.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the first byte of `input`.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// The bytes not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends reading. Trailing bytes are an error (docs/protocol.md §1.1).
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes)
        }
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or(DecodeError::EndsEarly)?;
        self.rest = rest;
        Ok(taken)
    }

    /// `opaque x[N]`.
    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::EndsEarly)?;
        self.rest = rest;
        Ok(taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|&[byte]| byte)
    }

    /// A Boolean: one byte, 0 or 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::UnknownValue),
        }
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    /// Three bytes.
    pub fn u24(&mut self) -> Result<u32, DecodeError> {
        self.array()
            .map(|&[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// `vec8<bounds>`.
    pub fn vec8(&mut self, bounds: RangeInclusive<usize>) -> Result<&'a [u8], DecodeError> {
        let length = self.u8()?;
        self.vector(usize::from(length), &bounds)
    }

    /// `vec16<bounds>`.
    pub fn vec16(&mut self, bounds: RangeInclusive<usize>) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.vector(usize::from(length), &bounds)
    }

    /// `vec24<bounds>`.
    pub fn vec24(&mut self, bounds: RangeInclusive<usize>) -> Result<&'a [u8], DecodeError> {
        let length = self.u24()?;
        self.vector(
            usize::try_from(length).map_err(|_| DecodeError::LengthOutOfBounds)?,
            &bounds,
        )
    }

    /// The count in front of a `list8<bounds>`.
    pub fn count8(&mut self, bounds: RangeInclusive<usize>) -> Result<usize, DecodeError> {
        let count = usize::from(self.u8()?);
        if bounds.contains(&count) {
            Ok(count)
        } else {
            Err(DecodeError::CountOutOfBounds)
        }
    }

    /// Bounds come before the bytes themselves: a length out of bounds is that error even if the bytes are missing.
    fn vector(
        &mut self,
        length: usize,
        bounds: &RangeInclusive<usize>,
    ) -> Result<&'a [u8], DecodeError> {
        if !bounds.contains(&length) {
            return Err(DecodeError::LengthOutOfBounds);
        }
        self.bytes(length)
    }
}

/// What is wrong with received bytes. They are malformed; whoever sent them is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ends within a field.
    #[error("the input ends within a field")]
    EndsEarly,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    TrailingBytes,
    /// A vector's length lies outside its bounds.
    #[error("a vector's length is out of bounds")]
    LengthOutOfBounds,
    /// A list's count lies outside its bounds.
    #[error("a list's count is out of bounds")]
    CountOutOfBounds,
    /// An enumerated field has a value that is not listed.
    #[error("a field has a value that is not defined")]
    UnknownValue,
    /// A name is not UTF-8, or has a control character in it (docs/protocol.md §1.2).
    #[error("a name is not UTF-8 or has a control character in it")]
    InvalidText,
}

/// Appends fields to a vector. Integers cannot fail; vectors are checked against their bounds, so that nothing is ever
/// sent that a [`Reader`] with the same bounds would refuse.
///
/// After an error the vector holds what was written before it: the caller truncates or drops it.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// A writer that appends to `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// `opaque x[n]`: the bytes without a length.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// A Boolean: one byte, 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Two bytes.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_be_bytes())
    }

    /// `vec8<bounds>`.
    pub fn vec8(
        &mut self,
        bytes: &[u8],
        bounds: RangeInclusive<usize>,
    ) -> Result<&mut Self, EncodeError> {
        self.vector::<1>(bytes, &bounds)
    }

    /// `vec16<bounds>`.
    pub fn vec16(
        &mut self,
        bytes: &[u8],
        bounds: RangeInclusive<usize>,
    ) -> Result<&mut Self, EncodeError> {
        self.vector::<2>(bytes, &bounds)
    }

    /// `vec24<bounds>`.
    pub fn vec24(
        &mut self,
        bytes: &[u8],
        bounds: RangeInclusive<usize>,
    ) -> Result<&mut Self, EncodeError> {
        self.vector::<3>(bytes, &bounds)
    }

    /// The count in front of a `list8<bounds>`.
    pub fn count8(
        &mut self,
        count: usize,
        bounds: RangeInclusive<usize>,
    ) -> Result<&mut Self, EncodeError> {
        if !bounds.contains(&count) {
            return Err(EncodeError::CountOutOfBounds);
        }
        let count = u8::try_from(count).map_err(|_| EncodeError::CountOutOfBounds)?;
        Ok(self.u8(count))
    }

    fn vector<const PREFIX: usize>(
        &mut self,
        bytes: &[u8],
        bounds: &RangeInclusive<usize>,
    ) -> Result<&mut Self, EncodeError> {
        if !bounds.contains(&bytes.len()) {
            return Err(EncodeError::LengthOutOfBounds);
        }
        let length = length_prefix::<PREFIX>(bytes.len()).ok_or(EncodeError::LengthOutOfBounds)?;
        Ok(self.bytes(&length).bytes(bytes))
    }
}

/// `length` in `PREFIX` big-endian bytes, if it fits.
pub(crate) fn length_prefix<const PREFIX: usize>(length: usize) -> Option<[u8; PREFIX]> {
    let length = u32::try_from(length).ok()?.to_be_bytes();
    let (high, low) = length.split_last_chunk()?;
    high.iter().all(|&byte| byte == 0).then_some(*low)
}

/// A value that may not be put on the wire: misuse by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A vector is shorter or longer than its field allows.
    #[error("a value is shorter or longer than its field allows")]
    LengthOutOfBounds,
    /// A list has fewer or more items than its field allows.
    #[error("a list has fewer or more items than its field allows")]
    CountOutOfBounds,
    /// A value that stands for something else, such as request 0.
    #[error("a value is reserved; choose another, such as a request number that is not 0")]
    ReservedValue,
    /// A name has a control character in it (docs/protocol.md §1.2).
    #[error("a name has a control character in it")]
    InvalidText,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer
            .u8(1)
            .bool(true)
            .u16(0x0203)
            .u32(0x0405_0607)
            .u64(8)
            .bytes(&[9; 3]);
        writer
            .vec8(b"a", 1..=1)
            .unwrap()
            .vec16(b"bc", 0..=2)
            .unwrap()
            .vec24(b"", 0..=0)
            .unwrap()
            .count8(2, 0..=2)
            .unwrap();
        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.bool(), Ok(true));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(8));
        assert_eq!(reader.array(), Ok(&[9; 3]));
        assert_eq!(reader.vec8(1..=1), Ok(b"a".as_slice()));
        assert_eq!(reader.vec16(0..=2), Ok(b"bc".as_slice()));
        assert_eq!(reader.vec24(0..=0), Ok(b"".as_slice()));
        assert_eq!(reader.count8(0..=2), Ok(2));
        assert_eq!(reader.finish(), Ok(()));
    }

    /// docs/protocol.md §1.1
    #[test]
    fn every_field_refuses_input_that_ends_early() {
        let short = [0u8; 7];
        assert_eq!(Reader::new(&[]).u8(), Err(DecodeError::EndsEarly));
        assert_eq!(Reader::new(&[]).bool(), Err(DecodeError::EndsEarly));
        assert_eq!(Reader::new(&short[..1]).u16(), Err(DecodeError::EndsEarly));
        assert_eq!(Reader::new(&short[..2]).u24(), Err(DecodeError::EndsEarly));
        assert_eq!(Reader::new(&short[..3]).u32(), Err(DecodeError::EndsEarly));
        assert_eq!(Reader::new(&short).u64(), Err(DecodeError::EndsEarly));
        assert_eq!(
            Reader::new(&short).array::<8>(),
            Err(DecodeError::EndsEarly)
        );
        assert_eq!(Reader::new(&short).bytes(8), Err(DecodeError::EndsEarly));
        assert_eq!(
            Reader::new(&[2, 0]).vec8(0..=9),
            Err(DecodeError::EndsEarly)
        );
        assert_eq!(
            Reader::new(&[0, 2, 0]).vec16(0..=9),
            Err(DecodeError::EndsEarly)
        );
        assert_eq!(
            Reader::new(&[0, 0, 2, 0]).vec24(0..=9),
            Err(DecodeError::EndsEarly)
        );
        assert_eq!(Reader::new(&[]).count8(0..=9), Err(DecodeError::EndsEarly));
    }

    /// docs/protocol.md §1.1
    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(Reader::new(&[0]).finish(), Err(DecodeError::TrailingBytes));
    }

    /// docs/protocol.md §1.1
    #[test]
    fn lengths_out_of_bounds_are_refused_before_the_bytes_are_looked_for() {
        assert_eq!(
            Reader::new(&[0]).vec8(1..=2),
            Err(DecodeError::LengthOutOfBounds)
        );
        assert_eq!(
            Reader::new(&[3]).vec8(1..=2),
            Err(DecodeError::LengthOutOfBounds)
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff]).vec16(1..=2),
            Err(DecodeError::LengthOutOfBounds)
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff]).vec24(1..=2),
            Err(DecodeError::LengthOutOfBounds)
        );
        assert_eq!(
            Reader::new(&[0]).count8(1..=2),
            Err(DecodeError::CountOutOfBounds)
        );
        assert_eq!(
            Reader::new(&[3]).count8(1..=2),
            Err(DecodeError::CountOutOfBounds)
        );
    }

    /// docs/protocol.md §1.1
    #[test]
    fn booleans_other_than_0_and_1_are_refused() {
        for byte in 2..=u8::MAX {
            assert_eq!(Reader::new(&[byte]).bool(), Err(DecodeError::UnknownValue));
        }
    }

    #[test]
    fn a_failed_read_leaves_the_reader_where_the_field_began_or_after_its_length() {
        let mut reader = Reader::new(&[1, 2, 3]);
        assert_eq!(reader.u32(), Err(DecodeError::EndsEarly));
        assert_eq!(reader.rest(), &[1, 2, 3]);
    }

    /// docs/protocol.md §1.1
    #[test]
    fn writer_refuses_what_a_reader_would_refuse() {
        let mut out = Vec::new();
        let long = vec![0; 0x1_0000];
        assert_eq!(
            Writer::new(&mut out).vec8(b"", 1..=2).unwrap_err(),
            EncodeError::LengthOutOfBounds
        );
        assert_eq!(
            Writer::new(&mut out).vec8(b"abc", 1..=2).unwrap_err(),
            EncodeError::LengthOutOfBounds
        );
        assert_eq!(
            Writer::new(&mut out)
                .vec8(&long[..256], 0..=usize::MAX)
                .unwrap_err(),
            EncodeError::LengthOutOfBounds
        );
        assert_eq!(
            Writer::new(&mut out)
                .vec16(&long, 0..=usize::MAX)
                .unwrap_err(),
            EncodeError::LengthOutOfBounds
        );
        assert_eq!(
            Writer::new(&mut out)
                .count8(256, 0..=usize::MAX)
                .unwrap_err(),
            EncodeError::CountOutOfBounds
        );
        assert_eq!(
            Writer::new(&mut out).count8(0, 1..=2).unwrap_err(),
            EncodeError::CountOutOfBounds
        );
        assert!(out.is_empty());
    }

    #[test]
    fn length_prefixes_hold_exactly_what_fits() {
        assert_eq!(length_prefix::<1>(255), Some([255]));
        assert_eq!(length_prefix::<1>(256), None);
        assert_eq!(length_prefix::<3>(0xff_ffff), Some([255; 3]));
        assert_eq!(length_prefix::<3>(0x100_0000), None);
    }
}
