//! What is in the store, remembered outside of it: every row's key and a keyed digest of the row, and the sum of the digests.
//!
//! ```text
//!  term(row)  = HMAC-SHA-256(set key, len(row key) || row key || value)
//!  summary    = how many rows || sum of their terms modulo 2^256       sealed, and committed with every change
//! ```
//!
//! The sum is the multiset hash MSet-Add-Hash of Clarke, Devadas, van Dijk, Gassend and Suh, "Incremental Multiset Hash Functions
//! and Their Application to Memory Integrity Checking" (ASIACRYPT 2003, §4): a change of one row changes it by one subtraction
//! and one addition, whatever the number of rows. The hash adds a random term of its own so that nobody who sees it learns a sum of
//! terms; here the seal does that. Whoever has no key can compute no term, sees no sum, and is left with guessing 2^256.
//!
//! The row of the summary itself is not in the set; its seal binds it to its place.
//!
//! Memory: about 150 bytes a row.

use std::collections::BTreeMap;
use std::ops::Bound;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::StoreError;

/// Length of an encoded summary in bytes.
pub(super) const SUMMARY_LEN: usize = 8 + 32;

/// The rows that a store has to have.
pub(super) struct Index {
    key: Hmac<Sha256>,
    terms: BTreeMap<Box<[u8]>, Term>,
    sum: Term,
}

/// Changes that are not in the index yet, as the store may still refuse them.
pub(super) struct Staged {
    terms: Vec<(Box<[u8]>, Option<Term>)>,
    sum: Term,
    rows: usize,
}

/// A number modulo 2^256, its least significant 64 bits first.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
struct Term([u64; 4]);

impl Index {
    /// An index of no rows.
    pub(super) fn new(key: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "HMAC has a use for a key of any length")]
        let key = Hmac::new_from_slice(key).expect("HMAC-SHA-256 with a key of 32 bytes");
        Self {
            key,
            terms: BTreeMap::new(),
            sum: Term::default(),
        }
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.terms.len()
    }

    pub(super) fn contains(&self, row_key: &[u8]) -> bool {
        self.terms.contains_key(row_key)
    }

    /// The keys of the rows that begin with `prefix`, in their order.
    pub(super) fn keys<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.terms
            .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
            .map(|(row_key, _)| &**row_key)
            .take_while(move |row_key| row_key.starts_with(prefix))
    }

    /// Whether `value` is the value of the row at `row_key`.
    pub(super) fn check(&self, row_key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let expected = self.terms.get(row_key).ok_or(StoreError::Damaged)?;
        let found = self.term(row_key, value);
        if bool::from(found.0.ct_eq(&expected.0)) {
            Ok(())
        } else {
            Err(StoreError::Damaged)
        }
    }

    /// Adds a row that was found in the store.
    pub(super) fn add(&mut self, row_key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let term = self.term(row_key, value);
        self.sum.add(&term);
        match self.terms.insert(row_key.into(), term) {
            None => Ok(()),
            Some(_) => Err(StoreError::Damaged),
        }
    }

    /// What the index will be after the changes: `Some` puts a value, `None` removes the row. At most one change for each key.
    pub(super) fn stage<'a>(
        &self,
        changes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> Staged {
        let mut staged = Staged {
            terms: Vec::new(),
            sum: self.sum.clone(),
            rows: self.terms.len(),
        };
        for (row_key, value) in changes {
            let before = self.terms.get(row_key);
            if let Some(before) = before {
                staged.sum.subtract(before);
                staged.rows = staged.rows.saturating_sub(1);
            }
            let after = value.map(|value| self.term(row_key, value));
            if let Some(after) = &after {
                staged.sum.add(after);
                staged.rows = staged.rows.saturating_add(1);
            }
            staged.terms.push((row_key.into(), after));
        }
        staged
    }

    /// Takes over what the store has committed.
    pub(super) fn apply(&mut self, staged: Staged) {
        for (row_key, term) in staged.terms {
            match term {
                Some(term) => drop(self.terms.insert(row_key, term)),
                None => drop(self.terms.remove(&row_key)),
            }
        }
        self.sum = staged.sum;
    }

    /// Whether this is what `summary` says.
    pub(super) fn verify(&self, summary: &[u8]) -> Result<(), StoreError> {
        if bool::from(encode(self.len(), &self.sum).ct_eq(summary)) {
            Ok(())
        } else {
            Err(StoreError::Damaged)
        }
    }

    fn term(&self, row_key: &[u8], value: &[u8]) -> Term {
        let mut mac = self.key.clone();
        mac.update(&(row_key.len() as u64).to_be_bytes());
        mac.update(row_key);
        mac.update(value);
        let mut digest: [u8; 32] = mac.finalize().into_bytes().into();
        let mut term = Term::default();
        for (limb, bytes) in term.0.iter_mut().zip(digest.as_chunks().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        digest.zeroize();
        term
    }
}

impl Staged {
    /// `u64 rows; opaque sum[32]`, little-endian.
    pub(super) fn summary(&self) -> [u8; SUMMARY_LEN] {
        encode(self.rows, &self.sum)
    }
}

/// How many rows a summary is of.
pub(super) fn rows(summary: &[u8]) -> Option<u64> {
    summary
        .first_chunk()
        .map(|count| u64::from_le_bytes(*count))
}

fn encode(rows: usize, sum: &Term) -> [u8; SUMMARY_LEN] {
    let mut summary = [0; SUMMARY_LEN];
    let limbs = std::iter::once(rows as u64).chain(sum.0);
    for (bytes, limb) in summary.as_chunks_mut().0.iter_mut().zip(limbs) {
        *bytes = limb.to_le_bytes();
    }
    summary
}

impl Term {
    fn add(&mut self, other: &Self) {
        let mut carry = false;
        for (limb, other) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = limb.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = first || second;
        }
    }

    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (limb, other) in self.0.iter_mut().zip(other.0) {
            let (difference, first) = limb.overflowing_sub(other);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            *limb = difference;
            borrow = first || second;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Term = Term([u64::MAX; 4]);

    fn index() -> Index {
        Index::new(&[1; 32])
    }

    fn staged(index: &Index, changes: &[(&[u8], Option<&[u8]>)]) -> Staged {
        index.stage(changes.iter().copied())
    }

    #[test]
    fn sum_carries_and_borrows_through_all_limbs() {
        let mut number = MAX;
        number.add(&Term([1, 0, 0, 0]));
        assert_eq!(number.0, [0; 4]);
        number.subtract(&Term([1, 0, 0, 0]));
        assert_eq!(number.0, MAX.0);
        let mut number = Term([u64::MAX, u64::MAX, 0, 0]);
        number.add(&Term([1, 0, 0, 0]));
        assert_eq!(number.0, [0, 0, 1, 0]);
        number.add(&MAX);
        assert_eq!(number.0, [u64::MAX, u64::MAX, 0, 0]);
        number.subtract(&MAX);
        assert_eq!(number.0, [0, 0, 1, 0]);
    }

    /// RFC 4231 has no vector with a key of 32 bytes; what is checked here is that the parts are kept apart.
    #[test]
    fn term_depends_on_the_key_and_on_where_the_row_key_ends() {
        let index = index();
        let term = |row_key: &[u8], value: &[u8]| index.term(row_key, value).0;
        assert_ne!(term(b"ab", b"c"), term(b"a", b"bc"));
        assert_ne!(term(b"ab", b"c"), term(b"abc", b""));
        assert_ne!(term(b"a", b"b"), term(b"b", b"a"));
        assert_ne!(term(b"a", b"b"), Index::new(&[2; 32]).term(b"a", b"b").0);
    }

    #[test]
    fn incremental_sum_is_that_of_the_rows() {
        let mut one = index();
        let changes = staged(&one, &[(b"a", Some(b"1")), (b"b", Some(b"2"))]);
        one.apply(changes);
        let changes = staged(
            &one,
            &[
                (b"a", Some(b"3")),
                (b"b", None),
                (b"c", Some(b"4")),
                (b"d", None),
            ],
        );
        let summary = changes.summary();
        one.apply(changes);
        let mut other = index();
        other.add(b"c", b"4").unwrap();
        other.add(b"a", b"3").unwrap();
        other.verify(&summary).unwrap();
        assert_eq!(rows(&summary), Some(2));
    }

    #[test]
    fn every_other_set_of_rows_is_refused() {
        let one = index();
        let summary = staged(&one, &[(b"a", Some(b"1")), (b"b", Some(b"2"))]).summary();
        let sets: [&[(&[u8], &[u8])]; 7] = [
            &[],
            &[(b"a", b"1")],
            &[(b"a", b"2"), (b"b", b"1")],
            &[(b"a", b"1"), (b"b", b"1")],
            &[(b"b", b"1"), (b"a", b"1")],
            &[(b"a", b"1"), (b"c", b"2")],
            &[(b"a", b"1"), (b"b", b"2"), (b"c", b"")],
        ];
        for set in sets {
            let mut index = index();
            for (row_key, value) in set {
                index.add(row_key, value).unwrap();
            }
            assert!(
                matches!(index.verify(&summary), Err(StoreError::Damaged)),
                "{set:?}"
            );
        }
    }

    #[test]
    fn same_row_twice_is_refused() {
        let mut index = index();
        index.add(b"a", b"1").unwrap();
        assert!(matches!(index.add(b"a", b"1"), Err(StoreError::Damaged)));
    }

    #[test]
    fn summary_cut_short_is_refused_at_every_length() {
        let index = index();
        let summary = encode(0, &Term::default());
        index.verify(&summary).unwrap();
        for length in 0..SUMMARY_LEN {
            assert!(
                matches!(index.verify(&summary[..length]), Err(StoreError::Damaged)),
                "length {length}"
            );
        }
    }

    #[test]
    fn changes_that_are_not_applied_leave_everything_as_it_was() {
        let mut index = index();
        index.add(b"a", b"1").unwrap();
        drop(staged(&index, &[(b"a", None), (b"b", Some(b"2"))]));
        index.check(b"a", b"1").unwrap();
        assert!(matches!(index.check(b"b", b"2"), Err(StoreError::Damaged)));
        assert_eq!(index.len(), 1);
    }
}
