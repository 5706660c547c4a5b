//! `T list8`: items that are read from the wire without copying, or lent by whoever sends them.

use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;

use crate::codec::{DecodeError, EncodeError, Reader, Writer};

/// Something that a list holds. Only this crate implements it.
pub trait ListItem<'a>: Copy + PartialEq + fmt::Debug {
    #[doc(hidden)]
    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError>;
    #[doc(hidden)]
    fn encode(&self, writer: &mut Writer<'_>) -> Result<(), EncodeError>;
}

/// A list: the encoded items of a received frame, already checked, or a slice of items to send.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    items: Items<'a, T>,
}

#[derive(Clone, Copy)]
enum Items<'a, T> {
    Received { count: usize, encoded: &'a [u8] },
    Lent(&'a [T]),
}

impl<'a, T: ListItem<'a>> List<'a, T> {
    /// A list without items.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            items: Items::Lent(&[]),
        }
    }

    /// The number of items.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.items {
            Items::Received { count, .. } => count,
            Items::Lent(items) => items.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The items, in order. Allocates nothing.
    #[must_use]
    pub fn iter(&self) -> Iter<'a, T> {
        Iter { rest: self.items }
    }

    /// Reads a list of as many items as `bounds` allow. Checks every item before the list exists, so that iterating cannot fail.
    pub(super) fn decode(
        reader: &mut Reader<'a>,
        bounds: RangeInclusive<usize>,
    ) -> Result<Self, DecodeError> {
        let count = reader.count8(bounds)?;
        let start = reader.rest();
        for _ in 0..count {
            T::decode(reader)?;
        }
        let length = start.len().saturating_sub(reader.rest().len());
        let encoded = Reader::new(start).bytes(length)?;
        Ok(Self {
            items: Items::Received { count, encoded },
        })
    }

    /// Writes the list, if `bounds` allow as many items.
    pub(super) fn encode(
        &self,
        writer: &mut Writer<'_>,
        bounds: RangeInclusive<usize>,
    ) -> Result<(), EncodeError> {
        writer.count8(self.len(), bounds)?;
        self.iter().try_for_each(|item| item.encode(writer))
    }
}

impl<'a, T: ListItem<'a>> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self {
            items: Items::Lent(items),
        }
    }
}

impl<'a, T: ListItem<'a>> From<&'a Vec<T>> for List<'a, T> {
    fn from(items: &'a Vec<T>) -> Self {
        Self::from(items.as_slice())
    }
}

impl<'a, T: ListItem<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<'a, T: ListItem<'a>> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: ListItem<'a>> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The items of a [`List`].
#[derive(Clone)]
pub struct Iter<'a, T> {
    rest: Items<'a, T>,
}

impl<'a, T: ListItem<'a>> Iterator for Iter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match &mut self.rest {
            Items::Received { count, encoded } => {
                *count = count.checked_sub(1)?;
                let mut reader = Reader::new(encoded);
                let item = T::decode(&mut reader).ok()?;
                *encoded = reader.rest();
                Some(item)
            }
            Items::Lent(items) => {
                let (first, rest) = items.split_first()?;
                *items = rest;
                Some(*first)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match self.rest {
            Items::Received { count, .. } => count,
            Items::Lent(items) => items.len(),
        };
        (left, Some(left))
    }
}

impl<'a, T: ListItem<'a>> ExactSizeIterator for Iter<'a, T> {}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
