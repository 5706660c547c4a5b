//! What a file store does with a file, and with a disk that fails or changes.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::store::StoreKey;
use crate::store::vault::{Changes, Place, Table, Vault};

#[test]
fn second_opener_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let first = FileStore::open(&path).unwrap();
    assert!(matches!(FileStore::open(&path), Err(StoreError::InUse)));
    drop(first);
    FileStore::open(&path).unwrap();
}

#[test]
fn crash_while_the_file_is_made_leaves_nothing_that_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let whole = folder.path().join("whole");
    drop(FileStore::open(&whole).unwrap());
    let whole = std::fs::read(whole).unwrap();
    for written in [0, 1, 9, 64, 320, 4_096, whole.len()] {
        std::fs::write(folder.path().join("device.store.new"), &whole[..written]).unwrap();
        let mut store = FileStore::open(&path).unwrap();
        let mut batch = Batch::default();
        batch.put(b"a".to_vec(), b"1".to_vec());
        store.commit(batch).unwrap();
        drop(store);
        let store = FileStore::open(&path).unwrap();
        assert_eq!(store.read(b"a").unwrap().unwrap(), b"1", "{written}");
        drop(store);
        std::fs::remove_file(&path).unwrap();
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn store_that_another_process_makes_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let making = folder.path().join("device.store.new");
    let other = open_private(&making).unwrap();
    other.lock().unwrap();
    let opened = FileStore::open(folder.path().join("device.store"));
    assert!(matches!(opened, Err(StoreError::InUse)), "{opened:?}");
}

#[test]
fn file_that_is_no_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let content = b"this is something else, and long enough to look at".repeat(100);
    std::fs::write(&path, &content).unwrap();
    let opened = FileStore::open(&path);
    assert!(matches!(opened, Err(StoreError::NotAStore)), "{opened:?}");
    assert_eq!(std::fs::read(&path).unwrap(), content);
}

#[test]
fn database_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, table) in [
        ("names", TableDefinition::<&str, u64>::new("other")),
        ("types", TableDefinition::<&str, u64>::new("rows")),
    ] {
        let path = folder.path().join(name);
        let database = Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(table).unwrap().insert("a", 1).unwrap();
        write.commit().unwrap();
        drop(database);
        let opened = FileStore::open(&path).and_then(|store| store.read(b"a"));
        assert!(matches!(opened, Err(StoreError::NotAStore)), "{name}");
    }
}

#[test]
fn store_in_a_folder_that_does_not_exist_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let opened = FileStore::open(folder.path().join("none").join("device.store"));
    assert!(
        matches!(opened, Err(StoreError::Io(error)) if error.kind() == io::ErrorKind::NotFound)
    );
}

#[cfg(unix)]
#[test]
fn new_store_is_readable_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let _store = FileStore::open(&path).unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

/// A disk that a test can look at, change and break.
#[derive(Clone, Default)]
struct Disk(Arc<DiskState>);

#[derive(Default)]
struct DiskState {
    bytes: Mutex<Vec<u8>>,
    /// Which bytes were ever read.
    read: Mutex<Vec<bool>>,
    syncs: AtomicUsize,
    syncs_fail: AtomicBool,
    writes_fail: AtomicBool,
}

impl Disk {
    fn of(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        *disk.0.bytes.lock().unwrap() = bytes;
        disk
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.bytes.lock().unwrap().clone()
    }

    fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
        let offset = usize::try_from(offset).unwrap();
        offset..offset + length
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.bytes.lock().unwrap();
        let found = bytes.get(Self::range(offset, out.len()));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        let mut read = self.0.read.lock().unwrap();
        let length = bytes.len().max(read.len());
        read.resize(length, false);
        read[Self::range(offset, out.len())].fill(true);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap();
        self.0.bytes.lock().unwrap().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.syncs.fetch_add(1, Ordering::Relaxed);
        if self.0.syncs_fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.0.writes_fail.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut bytes = self.0.bytes.lock().unwrap();
        bytes[Self::range(offset, data.len())].copy_from_slice(data);
        Ok(())
    }
}

fn put(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::default();
    batch.put(key.to_vec(), value.to_vec());
    batch
}

#[test]
fn commit_is_one_sync() {
    let disk = Disk::default();
    let mut store = FileStore::with_backend(disk.clone()).unwrap();
    // A file that grows is synced once more; afterwards there is room.
    store.commit(put(b"a", &[1; 500_000])).unwrap();
    store.commit(put(b"a", b"1")).unwrap();
    for size in [0, 100, 100_000] {
        let before = disk.0.syncs.load(Ordering::Relaxed);
        store.commit(put(b"b", &vec![1; size])).unwrap();
        let syncs = disk.0.syncs.load(Ordering::Relaxed) - before;
        assert_eq!(syncs, 1, "{size} bytes");
    }
}

/// Everything is refused after a failed commit, and what was committed before is there after reopening.
fn failed_commit_is_final(fail: impl Fn(&DiskState, bool)) {
    let disk = Disk::default();
    let mut store = FileStore::with_backend(disk.clone()).unwrap();
    store.commit(put(b"a", b"1")).unwrap();
    fail(&disk.0, true);
    assert!(matches!(
        store.commit(put(b"a", b"2")),
        Err(StoreError::Io(_))
    ));
    fail(&disk.0, false);
    assert!(matches!(store.read(b"a"), Err(StoreError::Failed)));
    assert!(matches!(store.scan(b"", b"", 9), Err(StoreError::Failed)));
    assert!(matches!(
        store.commit(put(b"a", b"3")),
        Err(StoreError::Failed)
    ));
    drop(store);
    let store = FileStore::with_backend(disk).unwrap();
    let value = store.read(b"a").unwrap().unwrap();
    assert!(value == b"1" || value == b"2");
}

#[test]
fn after_a_failed_sync_everything_is_refused() {
    failed_commit_is_final(|disk, broken| disk.syncs_fail.store(broken, Ordering::Relaxed));
}

#[test]
fn after_a_failed_write_everything_is_refused() {
    failed_commit_is_final(|disk, broken| disk.writes_fail.store(broken, Ordering::Relaxed));
}

#[test]
fn store_of_a_process_that_was_killed_opens_with_every_commit() {
    let disk = Disk::default();
    let mut store = FileStore::with_backend(disk.clone()).unwrap();
    for number in 0..50_u8 {
        store.commit(put(&[1, number], &[number; 300])).unwrap();
        // What the disk holds now is what a killed process leaves.
        let left = FileStore::with_backend(Disk::of(disk.bytes())).unwrap();
        assert_eq!(
            left.scan(&[1], b"", 99).unwrap().len(),
            usize::from(number) + 1
        );
    }
}

fn key() -> StoreKey {
    StoreKey::from_bytes([7; 32])
}

/// A small store, closed, and what is in it.
fn small_store() -> Vec<u8> {
    let disk = Disk::default();
    let store = FileStore::with_backend(disk.clone()).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut vault = Vault::open(Box::new(store), &key(), &mut rng).unwrap();
    for step in 0..4_u64 {
        let mut changes = Changes::default();
        for number in 0..10 {
            changes.put(
                Place::number(Table::Outbox, number * 4 + step),
                vec![1; 100],
            );
        }
        changes.remove(Place::number(Table::Outbox, step));
        changes.put(
            Place::hidden(Table::Peer, &[1]),
            step.to_be_bytes().to_vec(),
        );
        vault.commit(changes, &mut rng).unwrap();
    }
    drop(vault);
    disk.bytes()
}

/// What is in a store: its records, or why they cannot be read.
fn content(vault: &Vault) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut content = Vec::new();
    for table in [Table::Outbox, Table::Peer, Table::Inbox] {
        for record in vault.rows(table)? {
            content.push(record.to_vec());
        }
    }
    let peer = vault.read(&Place::hidden(Table::Peer, &[1]))?;
    content.push(peer.map(|record| record.to_vec()).unwrap_or_default());
    Ok(content)
}

/// How opening a changed store ended.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    places: u32,
    places_read: u32,
    tried: u32,
    detected: u32,
    without_effect: u32,
    wrong: u32,
}

impl Counts {
    /// Opens a disk and compares what it holds; where nothing is noticed, the store has to take a commit and to open once more.
    fn count(&mut self, disk: &Disk, expected: &[Vec<u8>]) {
        self.tried += 1;
        let outcome = (|| {
            let mut rng = StdRng::seed_from_u64(2);
            let open = || {
                let store = FileStore::with_backend(disk.clone())?;
                Vault::open(Box::new(store), &key(), &mut StdRng::seed_from_u64(3))
            };
            let mut vault = open()?;
            let before = content(&vault)?;
            let mut changes = Changes::default();
            changes.put(Place::number(Table::Seen, 1), vec![2; 5_000]);
            vault.commit(changes, &mut rng)?;
            drop(vault);
            let after = content(&open()?)?;
            Ok::<_, StoreError>(before == expected && after == expected)
        })();
        match outcome {
            Ok(true) => self.without_effect += 1,
            Ok(false) => self.wrong += 1,
            Err(_) => self.detected += 1,
        }
    }
}

/// Flips the bits of `masks` at every place that `tried` takes, one after the other.
fn flip(tried: impl Fn(usize, bool) -> bool, masks: impl Fn(usize) -> Vec<u8>) -> Counts {
    let bytes = small_store();
    let disk = Disk::of(bytes.clone());
    let store = FileStore::with_backend(disk.clone()).unwrap();
    let vault = Vault::open(Box::new(store), &key(), &mut rand::rng()).unwrap();
    let expected = content(&vault).unwrap();
    assert_eq!(expected.len(), 38);
    let read = disk.0.read.lock().unwrap().clone();
    drop(vault);
    let mut counts = Counts::default();
    for place in 0..bytes.len() {
        let read = read.get(place).copied().unwrap_or_default();
        if tried(place, read) {
            counts.places += 1;
            counts.places_read += u32::from(read);
            for mask in masks(place) {
                let mut changed = bytes.clone();
                changed[place] ^= mask;
                counts.count(&Disk::of(changed), &expected);
            }
        }
    }
    println!("a store of {} bytes: {counts:?}", bytes.len());
    assert_eq!(counts.wrong, 0, "{counts:?}");
    counts
}

/// Every bit of where the file begins, and a bit in one byte of forty-one of those that opening or reading looks at. The test below does the same
/// with all of them.
#[test]
fn flipped_bit_in_a_closed_store_is_detected_or_without_effect() {
    let counts = flip(
        |place, read| place < 320 || (read && place % 41 == 0) || place % 1_999 == 0,
        |place| {
            if place < 64 {
                (0..8).map(|bit| 1 << bit).collect()
            } else {
                vec![1 << (place % 8)]
            }
        },
    );
    assert!(counts.detected > 300, "{counts:?}");
}

#[test]
#[ignore = "takes a minute: cargo test --release -p sealwire-client --lib every_flipped_byte -- --ignored --nocapture"]
fn every_flipped_byte_of_a_closed_store_is_detected_or_without_effect() {
    let counts = flip(
        |_, _| true,
        |place| {
            if place % 64 == 0 {
                (0..8).map(|bit| 1 << bit).collect()
            } else {
                vec![1 << (place / 7 % 8)]
            }
        },
    );
    assert!(counts.detected > 10_000, "{counts:?}");
}

/// What a disk changes while the store is open is an error when it is met, at the latest when the store is opened again.
#[test]
fn flipped_bit_in_an_open_store_never_gives_other_records_and_never_panics() {
    let bytes = small_store();
    let mut counts = Counts::default();
    for place in (0..bytes.len()).step_by(601) {
        let disk = Disk::of(bytes.clone());
        let mut rng = StdRng::seed_from_u64(4);
        let store = FileStore::with_backend(disk.clone()).unwrap();
        let mut vault = Vault::open(Box::new(store), &key(), &mut rng).unwrap();
        let expected = content(&vault).unwrap();
        if let Some(byte) = disk.0.bytes.lock().unwrap().get_mut(place) {
            *byte ^= 0x55;
        }
        counts.tried += 1;
        let mut outcome = content(&vault);
        if outcome.is_ok() {
            let mut changes = Changes::default();
            changes.put(Place::number(Table::Seen, 1), vec![2; 20_000]);
            outcome = vault
                .commit(changes, &mut rng)
                .and_then(|()| content(&vault));
        }
        drop(vault);
        let outcome = outcome.and_then(|before| {
            let store = FileStore::with_backend(disk.clone())?;
            let vault = Vault::open(Box::new(store), &key(), &mut rng)?;
            Ok(before == expected && content(&vault)? == expected)
        });
        match outcome {
            Ok(true) => counts.without_effect += 1,
            Ok(false) => counts.wrong += 1,
            Err(_) => counts.detected += 1,
        }
    }
    println!("{counts:?}");
    assert_eq!(counts.wrong, 0, "{counts:?}");
}

#[test]
fn store_cut_short_anywhere_is_refused() {
    let bytes = small_store();
    for length in (1..bytes.len()).step_by(509) {
        let opened = FileStore::with_backend(Disk::of(bytes[..length].to_vec()));
        assert!(opened.is_err(), "{length}");
    }
}
