//! The stores that are there, and a store in a folder of files, against what every store has to do; and stores with one fault each, to see
//! that it is found.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "all of this is test code, also what is not marked as a test"
)]

mod folder;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use sealwire_client::store::conformance::{Violation, check, check_volatile};
use sealwire_client::store::{Batch, MAX_SCAN_ROWS, Row, SCAN_BYTES};
use sealwire_client::{FileStore, MemoryStore, Store, StoreError};

use folder::FolderStore;

#[test]
fn memory_store_conforms() {
    check_volatile(MemoryStore::new()).unwrap();
}

#[test]
fn file_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    check(|| FileStore::open(&path)).unwrap();
}

#[test]
fn folder_store_conforms() {
    let folder = tempfile::tempdir().unwrap();
    check(|| FolderStore::open(folder.path())).unwrap();
}

#[test]
fn folder_store_that_stopped_behind_its_journal_has_the_whole_batch() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = FolderStore::open(folder.path()).unwrap();
    let mut batch = Batch::default();
    batch.put(b"a".into(), b"1".into());
    batch.put(b"b".into(), b"2".into());
    store.commit(batch).unwrap();
    let mut batch = Batch::default();
    batch.put(b"a".into(), b"3".into());
    batch.remove(b"b".into());
    store.write_journal(&batch).unwrap();
    drop(store);
    let store = FolderStore::open(folder.path()).unwrap();
    let rows = store.scan(b"", b"", 9).unwrap();
    assert_eq!(rows, [(b"a".to_vec(), b"3".to_vec())]);
}

#[test]
fn folder_store_that_stopped_before_its_journal_has_nothing_of_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    drop(FolderStore::open(folder.path()).unwrap());
    std::fs::write(folder.path().join("journal.new"), b"\x01a\0\0").unwrap();
    let store = FolderStore::open(folder.path()).unwrap();
    assert!(store.scan(b"", b"", 9).unwrap().is_empty());
}

/// What a faulty store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    RemovesNothing,
    RefusesEmptyBatch,
    KeepsFirstValue,
    EmptyValueIsAbsent,
    DropsLastChange,
    SignedOrder,
    DescendingOrder,
    IgnoresPrefix,
    IgnoresAfter,
    IncludesAfter,
    IgnoresLimit,
    OneRowLess,
    CutsLargeValues,
    RefusesLargeValues,
    CutsLongKeys,
    NoEndOfBytes,
    SkipsRowAfterBytes,
    SmallPages,
    LosesManyRows,
    LosesWhatIsReopened,
    LosesLastCommit,
    RemovedComesBack,
    ManyOpeners,
}

const FAULTS: [Fault; 23] = [
    Fault::RemovesNothing,
    Fault::RefusesEmptyBatch,
    Fault::KeepsFirstValue,
    Fault::EmptyValueIsAbsent,
    Fault::DropsLastChange,
    Fault::SignedOrder,
    Fault::DescendingOrder,
    Fault::IgnoresPrefix,
    Fault::IgnoresAfter,
    Fault::IncludesAfter,
    Fault::IgnoresLimit,
    Fault::OneRowLess,
    Fault::CutsLargeValues,
    Fault::RefusesLargeValues,
    Fault::CutsLongKeys,
    Fault::NoEndOfBytes,
    Fault::SkipsRowAfterBytes,
    Fault::SmallPages,
    Fault::LosesManyRows,
    Fault::LosesWhatIsReopened,
    Fault::LosesLastCommit,
    Fault::RemovedComesBack,
    Fault::ManyOpeners,
];

/// The store that faulty ones open: its rows, those before the last commit, what was ever removed, and whether it is open.
#[derive(Default)]
struct Medium {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    before: BTreeMap<Vec<u8>, Vec<u8>>,
    removed: BTreeMap<Vec<u8>, Vec<u8>>,
    open: bool,
}

struct Faulty {
    medium: Arc<Mutex<Medium>>,
    fault: Option<Fault>,
}

impl Faulty {
    fn open(medium: &Arc<Mutex<Medium>>, fault: Option<Fault>) -> Result<Self, StoreError> {
        let mut state = medium.lock().unwrap();
        if state.open && fault != Some(Fault::ManyOpeners) {
            return Err(StoreError::InUse);
        }
        state.open = true;
        match fault {
            Some(Fault::LosesWhatIsReopened) => state.rows.clear(),
            Some(Fault::LosesLastCommit) => state.rows = state.before.clone(),
            Some(Fault::RemovedComesBack) => {
                let removed = std::mem::take(&mut state.removed);
                state.rows.extend(removed);
            }
            _ => {}
        }
        drop(state);
        Ok(Self {
            medium: Arc::clone(medium),
            fault,
        })
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.medium.lock().unwrap().open = false;
    }
}

impl Store for Faulty {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.medium.lock().unwrap().rows.get(key).cloned();
        Ok(found.filter(|value| !value.is_empty() || !self.has(Fault::EmptyValueIsAbsent)))
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let state = self.medium.lock().unwrap();
        let mut found = state
            .rows
            .range::<[u8], _>((Bound::Unbounded, Bound::Unbounded))
            .filter(|(key, _)| self.has(Fault::IgnoresPrefix) || key.starts_with(prefix))
            .filter(|(key, _)| {
                self.has(Fault::IgnoresAfter)
                    || (self.has(Fault::IncludesAfter) && key.as_slice() == after)
                    || key.as_slice() > after
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect::<Vec<_>>();
        if self.has(Fault::SignedOrder) {
            found.sort_by_key(|row| row.0.iter().map(|byte| *byte as i8).collect::<Vec<_>>());
        }
        if self.has(Fault::DescendingOrder) {
            found.reverse();
        }
        if !self.has(Fault::IgnoresLimit) {
            found.truncate(limit);
        }
        if self.has(Fault::OneRowLess) && found.len() > 1 {
            found.pop();
        }
        if self.has(Fault::SmallPages) {
            found.truncate(100);
        }
        if !self.has(Fault::NoEndOfBytes) {
            let mut bytes = 0;
            let end = found.iter().position(|row| {
                bytes += row.1.len();
                bytes >= SCAN_BYTES
            });
            if let Some(end) = end {
                found.truncate(end + 1);
                if self.has(Fault::SkipsRowAfterBytes) && end > 0 {
                    found.remove(0);
                }
            }
        }
        Ok(found)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut state = self.medium.lock().unwrap();
        if batch.is_empty() && self.has(Fault::RefusesEmptyBatch) {
            return Err(StoreError::TooLarge);
        }
        state.before = state.rows.clone();
        let mut changes: Vec<_> = batch.into_changes().collect();
        if self.has(Fault::DropsLastChange) && changes.len() > 1 {
            changes.pop();
        }
        if self.has(Fault::LosesManyRows) {
            changes.truncate(MAX_SCAN_ROWS);
        }
        for (mut key, value) in changes {
            if self.has(Fault::CutsLongKeys) {
                key.truncate(63);
            }
            match value {
                Some(value) if value.len() > 1 << 20 && self.has(Fault::RefusesLargeValues) => {
                    return Err(StoreError::TooLarge);
                }
                Some(mut value) => {
                    if self.has(Fault::CutsLargeValues) {
                        value.truncate(65_535);
                    }
                    if !self.has(Fault::KeepsFirstValue) || !state.rows.contains_key(&key) {
                        state.removed.remove(&key);
                        state.rows.insert(key, value);
                    }
                }
                None if self.has(Fault::RemovesNothing) => {}
                None => {
                    if let Some(value) = state.rows.remove(&key) {
                        state.removed.insert(key, value);
                    }
                }
            }
        }
        Ok(())
    }
}

#[test]
fn store_without_a_fault_conforms() {
    let medium = Arc::default();
    check(|| Faulty::open(&medium, None)).unwrap();
    assert!(medium.lock().unwrap().rows.is_empty());
}

#[test]
fn every_fault_is_found() {
    for fault in FAULTS {
        let medium = Arc::default();
        let found = check(|| Faulty::open(&medium, Some(fault)));
        assert!(found.is_err(), "{fault:?} is not found");
    }
}

#[test]
fn violations_name_the_rule() {
    let found = |fault| {
        let medium = Arc::default();
        check(|| Faulty::open(&medium, Some(fault))).unwrap_err()
    };
    let violation = found(Fault::ManyOpeners);
    assert!(
        matches!(violation, Violation::Rule(rule) if rule.contains("InUse")),
        "{violation}"
    );
    let violation = found(Fault::LosesLastCommit);
    assert!(
        matches!(violation, Violation::Rule(rule) if rule.contains("reopening")),
        "{violation}"
    );
    let violation = found(Fault::RefusesLargeValues);
    assert!(
        matches!(
            violation,
            Violation::Failed {
                error: StoreError::TooLarge,
                ..
            }
        ),
        "{violation}"
    );
}

#[test]
fn store_that_is_not_empty_at_first_is_refused() {
    let mut store = MemoryStore::new();
    let mut batch = Batch::default();
    batch.put(b"z".into(), b"1".into());
    store.commit(batch).unwrap();
    assert!(matches!(check_volatile(store), Err(Violation::Rule(_))));
}
