//! What every [`Store`] has to do, as checks that any implementation can run.
//!
//! ```
//! use sealwire_client::store::conformance;
//! use sealwire_client::FileStore;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let path = folder.path().join("device.store");
//! conformance::check(|| FileStore::open(&path))?;
//! # Ok(())
//! # }
//! ```
//!
//! `check` opens the same, at first empty, store again and again, so it sees what is durable when a store is closed, and whether a second opener
//! is refused. What it cannot do is pull the plug: that a batch is whole after a crash in the middle of [`Store::commit`], and there at all
//! after a crash behind it, is left to the implementation's own tests. `crates/client/tests/conformance` has a store in a folder of
//! files as an example, with such a test.

use std::collections::BTreeMap;

use super::{Batch, MAX_SCAN_ROWS, Row, SCAN_BYTES, Store, StoreError};

/// The longest key that a store has to take, in bytes.
pub const MAX_KEY: usize = 64;
/// The longest value that a store has to take, in bytes.
pub const MAX_VALUE: usize = 8 << 20;

/// Batches of the comparison with a model.
const STEPS: u64 = 400;

/// What an implementation does wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A rule is not kept.
    #[error("the store does not conform: {0}")]
    Rule(&'static str),
    /// It failed at something that it has to be able to do.
    #[error("the store fails at {doing}: {error}")]
    Failed {
        /// What was asked of it.
        doing: &'static str,
        /// How it failed.
        #[source]
        error: StoreError,
    },
}

/// Checks a store that outlives its process. `open` opens the same store every time; it has to be empty at first, and is empty at the end.
///
/// # Errors
/// The first [`Violation`] that is found.
pub fn check<S: Store>(mut open: impl FnMut() -> Result<S, StoreError>) -> Result<(), Violation> {
    let mut store = open().at("opening")?;
    check_rules(&mut store)?;
    rule(
        matches!(open(), Err(StoreError::InUse)),
        "a second opener is refused with InUse while the store is open",
    )?;

    let mut reopen = |store: S| {
        drop(store);
        open().at("opening it again")
    };
    let mut store = reopen(store)?;
    rule(
        all(&store)?.is_empty(),
        "what was removed is gone after reopening",
    )?;
    commit(&mut store, &[(b"a", Some(b"1")), (b"b", Some(b"2"))])?;
    commit(
        &mut store,
        &[(b"a", Some(b"3")), (b"b", None), (b"c", Some(b""))],
    )?;
    let mut store = reopen(store)?;
    rule(
        all(&store)? == [row(b"a", b"3"), row(b"c", b"")],
        "what was committed is there after reopening",
    )?;
    clear(&mut store)?;
    compare(store, reopen)
}

/// Checks a store that is gone with its process: all but what needs to open it twice.
///
/// # Errors
/// The first [`Violation`] that is found.
pub fn check_volatile<S: Store>(mut store: S) -> Result<(), Violation> {
    check_rules(&mut store)?;
    compare(store, Ok)
}

fn check_rules(store: &mut impl Store) -> Result<(), Violation> {
    empty(store)?;
    single_rows(store)?;
    batches(store)?;
    order(store)?;
    large_rows(store)?;
    many_rows(store)
}

fn empty(store: &mut impl Store) -> Result<(), Violation> {
    rule(read(store, b"a")?.is_none(), "a new store has no rows")?;
    rule(
        scan(store, b"", b"", 1)?.is_empty(),
        "a new store has no rows",
    )?;
    store.commit(Batch::default()).at("an empty batch")?;
    commit(store, &[(b"a", None)])?;
    rule(
        all(store)?.is_empty(),
        "removing what is not there does nothing",
    )
}

fn single_rows(store: &mut impl Store) -> Result<(), Violation> {
    commit(store, &[(b"a", Some(b"1"))])?;
    rule(
        read(store, b"a")?.as_deref() == Some(b"1"),
        "what was put is read",
    )?;
    for other in [&b"b"[..], b"A", b"aa", b"a\0", b"\0"] {
        rule(read(store, other)?.is_none(), "only that key has the value")?;
    }
    commit(store, &[(b"a", Some(b"22"))])?;
    rule(
        all(store)? == [row(b"a", b"22")],
        "a value that is put again takes the place of the earlier",
    )?;
    commit(store, &[(b"a", Some(b""))])?;
    rule(
        read(store, b"a")?.as_deref() == Some(b""),
        "an empty value is a value",
    )?;
    commit(store, &[(b"a", None)])?;
    rule(read(store, b"a")?.is_none(), "what was removed is gone")?;
    rule(all(store)?.is_empty(), "what was removed is gone")
}

fn batches(store: &mut impl Store) -> Result<(), Violation> {
    commit(
        store,
        &[(b"a", Some(b"1")), (b"b", Some(b"2")), (b"c", Some(b"3"))],
    )?;
    commit(
        store,
        &[(b"b", Some(b"4")), (b"a", None), (b"d", Some(b"5"))],
    )?;
    rule(
        all(store)? == [row(b"b", b"4"), row(b"c", b"3"), row(b"d", b"5")],
        "one batch overwrites, removes and adds",
    )?;
    clear(store)
}

fn order(store: &mut impl Store) -> Result<(), Violation> {
    // In order, with keys that begin others, and bytes that are negative where somebody takes them for signed.
    let keys: [&[u8]; 12] = [
        b"\0",
        b"\0\0",
        b"\0\xff",
        b"a",
        b"a\0",
        b"aa",
        b"ab",
        b"b",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xff\xff",
    ];
    let shuffled = [7, 2, 11, 0, 5, 9, 3, 1, 10, 6, 4, 8];
    for place in shuffled {
        if let Some(key) = keys.get(place) {
            commit(store, &[(key, Some(key))])?;
        }
    }
    let all_keys = keys.map(<[u8]>::to_vec);
    rule(
        key_list(all(store)?) == all_keys,
        "a scan gives the keys in ascending order, as unsigned bytes",
    )?;
    for prefix in [
        &b""[..],
        b"\0",
        b"a",
        b"aa",
        b"ab",
        b"ac",
        b"b",
        b"\x80",
        b"\xff",
        b"\xff\xff",
        b"\xff\xff\xff",
    ] {
        for after in [
            &b""[..],
            b"\0",
            b"a",
            b"a\0",
            b"a\x01",
            b"ab",
            b"b",
            b"zz",
            b"\xff",
            b"\xff\xff\xff",
        ] {
            let expected: Vec<_> = all_keys
                .iter()
                .filter(|key| key.starts_with(prefix) && key.as_slice() > after)
                .cloned()
                .collect();
            for limit in [1, 2, expected.len().max(1), MAX_SCAN_ROWS] {
                rule(
                    key_list(scan(store, prefix, after, limit)?)
                        == expected
                            .get(..limit.min(expected.len()))
                            .unwrap_or_default(),
                    "a scan gives the first `limit` keys that begin with `prefix` and are greater than `after`",
                )?;
            }
        }
    }
    clear(store)
}

fn large_rows(store: &mut impl Store) -> Result<(), Violation> {
    let long_key = [0xfe; MAX_KEY];
    let longest: Vec<u8> = (0..=250).cycle().take(MAX_VALUE).collect();
    commit(store, &[(&long_key, Some(&longest))])?;
    rule(
        read(store, &long_key)?.as_deref() == Some(&longest),
        "a key of 64 bytes and a value of 8 MiB are kept",
    )?;
    let half = longest.get(..SCAN_BYTES / 2 + 1).unwrap_or_default();
    commit(
        store,
        &[
            (&long_key, None),
            (b"1", Some(half)),
            (b"2", Some(half)),
            (b"3", Some(half)),
        ],
    )?;
    rule(
        all(store)? == [row(b"1", half), row(b"2", half), row(b"3", half)],
        "a scan that ends because of SCAN_BYTES goes on after its last row",
    )?;
    clear(store)
}

fn many_rows(store: &mut impl Store) -> Result<(), Violation> {
    let count = MAX_SCAN_ROWS as u64 + 100;
    let mut batch = Batch::default();
    for number in 0..count {
        batch.put(number.to_be_bytes().to_vec(), number.to_le_bytes().to_vec());
    }
    store.commit(batch).at("a batch of many rows")?;
    rule(
        scan(store, b"", b"", MAX_SCAN_ROWS)?.len() == MAX_SCAN_ROWS,
        "a scan of small rows gives as many as were asked for",
    )?;
    let rows = all(store)?;
    rule(
        rows.len() as u64 == count
            && rows
                .iter()
                .zip(0_u64..)
                .all(|(found, number)| *found == row(&number.to_be_bytes(), &number.to_le_bytes())),
        "all rows of a large batch are there",
    )?;
    clear(store)
}

/// Does the same to the store as to a map in memory, and compares them.
fn compare<S: Store>(
    mut store: S,
    mut reopen: impl FnMut(S) -> Result<S, Violation>,
) -> Result<(), Violation> {
    let mut model = BTreeMap::<Vec<u8>, Vec<u8>>::new();
    let mut numbers = Numbers(1);
    for step in 0..STEPS {
        let mut batch = Batch::default();
        for _ in 0..=numbers.below(6) {
            let key = numbers.bytes(1, 4);
            if numbers.below(3) == 0 {
                model.remove(&key);
                batch.remove(key);
            } else {
                let value = numbers.bytes(0, 300);
                model.insert(key.clone(), value.clone());
                batch.put(key, value);
            }
        }
        store.commit(batch).at("a batch")?;
        let (prefix, after) = (numbers.bytes(0, 2), numbers.bytes(0, 3));
        let limit = 1 + numbers.below(20);
        let expected = model
            .iter()
            .filter(|(key, _)| key.starts_with(&prefix) && **key > after)
            .take(limit);
        rule(
            scan(&store, &prefix, &after, limit)?
                .iter()
                .map(|(key, value)| (key, value))
                .eq(expected),
            "the store does what a map in memory does",
        )?;
        if step % 50 == 49 {
            store = reopen(store)?;
            rule(
                all(&store)?.into_iter().eq(model.clone()),
                "everything is there after reopening",
            )?;
        }
    }
    clear(&mut store)
}

/// Numbers that are the same in every run (a linear congruential generator; Knuth's MMIX constants).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u32) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as usize
    }

    /// Few different ones, so that they meet.
    fn bytes(&mut self, least: usize, below: u32) -> Vec<u8> {
        let length = least + self.below(below);
        (0..length)
            .map(|_| {
                [0, 1, b'a', 0x80, 0xff]
                    .get(self.below(5))
                    .copied()
                    .unwrap_or_default()
            })
            .collect()
    }
}

trait At<T> {
    /// Says what failed.
    fn at(self, doing: &'static str) -> Result<T, Violation>;
}

impl<T> At<T> for Result<T, StoreError> {
    fn at(self, doing: &'static str) -> Result<T, Violation> {
        self.map_err(|error| Violation::Failed { doing, error })
    }
}

fn rule(kept: bool, rule: &'static str) -> Result<(), Violation> {
    if kept {
        Ok(())
    } else {
        Err(Violation::Rule(rule))
    }
}

fn row(key: &[u8], value: &[u8]) -> Row {
    (key.to_vec(), value.to_vec())
}

fn key_list(rows: Vec<Row>) -> Vec<Vec<u8>> {
    rows.into_iter().map(|row| row.0).collect()
}

fn read(store: &impl Store, key: &[u8]) -> Result<Option<Vec<u8>>, Violation> {
    store.read(key).at("reading a row")
}

fn scan(
    store: &impl Store,
    prefix: &[u8],
    after: &[u8],
    limit: usize,
) -> Result<Vec<Row>, Violation> {
    store.scan(prefix, after, limit).at("scanning")
}

fn commit(store: &mut impl Store, changes: &[(&[u8], Option<&[u8]>)]) -> Result<(), Violation> {
    let mut batch = Batch::default();
    for (key, value) in changes {
        match value {
            Some(value) => batch.put(key.to_vec(), value.to_vec()),
            None => batch.remove(key.to_vec()),
        }
    }
    store.commit(batch).at("a batch")
}

/// All rows, page by page.
fn all(store: &impl Store) -> Result<Vec<Row>, Violation> {
    let mut rows = Vec::<Row>::new();
    loop {
        let after = rows.last().map(|row| row.0.clone()).unwrap_or_default();
        let page = scan(store, b"", &after, MAX_SCAN_ROWS)?;
        if page.is_empty() {
            return Ok(rows);
        }
        rule(
            page.iter().all(|row| row.0 > after) && page.is_sorted_by(|one, next| one.0 < next.0),
            "a scan gives keys that are greater than `after`, in ascending order and each once",
        )?;
        rule(
            page.len() <= MAX_SCAN_ROWS,
            "a scan gives no more rows than were asked for",
        )?;
        let bytes = page
            .iter()
            .rev()
            .skip(1)
            .map(|row| row.1.len())
            .sum::<usize>();
        rule(
            bytes < SCAN_BYTES,
            "a scan ends with the row with which its values come to SCAN_BYTES",
        )?;
        rows.extend(page);
    }
}

fn clear(store: &mut impl Store) -> Result<(), Violation> {
    let mut batch = Batch::default();
    for (key, _) in all(store)? {
        batch.remove(key);
    }
    store.commit(batch).at("removing all rows")?;
    rule(all(store)?.is_empty(), "what was removed is gone")
}
