//! The form in which state goes to the store: a version, a kind, then the fields in the wire encoding (docs/protocol.md §1.1).
//!
//! ```text
//! u16 version || u8 kind || fields
//! ```
//!
//! Restoring is as strict as reading from the wire: state comes from a disk that may be damaged. Buffers with secrets are
//! erased when dropped; encrypting them is the store's part.

use alloc::vec::Vec;

use sealwire_protocol::{
    codec::{DecodeError, Reader, Writer},
    crypto::Secret,
};
use zeroize::Zeroizing;

use crate::error::StateError;

/// The version of every form in this crate. A change of any of them is a new version.
const VERSION: u16 = 1;

/// What a piece of state is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    DeviceKeys = 1,
    Prekeys = 2,
    Peer = 3,
}

/// Begins a piece of state. `capacity` bytes of fields follow, so that the buffer does not move and leave copies.
pub(crate) fn begin(kind: Kind, capacity: usize) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(3 + capacity));
    Writer::new(&mut out).u16(VERSION).u8(kind as u8);
    out
}

/// Restores a piece of state: everything has to be read.
pub(crate) fn restore<T>(
    kind: Kind,
    bytes: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<T, StateError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u16().map_err(|_| StateError::Damaged)?;
    if version != VERSION {
        return Err(StateError::Version(version));
    }
    if reader.u8() != Ok(kind as u8) {
        return Err(StateError::Damaged);
    }
    let value = read(&mut reader).map_err(|_| StateError::Damaged)?;
    reader.finish().map_err(|_| StateError::Damaged)?;
    Ok(value)
}

/// A secret field.
pub(crate) fn secret<const N: usize>(reader: &mut Reader<'_>) -> Result<Secret<N>, DecodeError> {
    Secret::from_slice(reader.array::<N>()?).ok_or(DecodeError::EndsEarly)
}

/// A count on its way to the store. Every list is bounded far below what its field holds.
pub(crate) fn count<T: TryFrom<usize> + Bounded>(length: usize) -> T {
    T::try_from(length).unwrap_or(T::MAX)
}

/// The integers that counts are stored as.
pub(crate) trait Bounded {
    const MAX: Self;
}

impl Bounded for u8 {
    const MAX: Self = Self::MAX;
}

impl Bounded for u16 {
    const MAX: Self = Self::MAX;
}

/// A count of two bytes, checked before anything is allocated for the items.
pub(crate) fn count16(reader: &mut Reader<'_>, max: usize) -> Result<usize, DecodeError> {
    let count = usize::from(reader.u16()?);
    if count > max {
        return Err(DecodeError::CountOutOfBounds);
    }
    Ok(count)
}

/// Refuses state whose parts do not fit each other.
pub(crate) const fn check(fits: bool) -> Result<(), DecodeError> {
    if fits {
        Ok(())
    } else {
        Err(DecodeError::UnknownValue)
    }
}
