//! What the vault refuses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::store::Row;

/// A store whose rows a test can see and change, as somebody with the disk could.
#[derive(Clone, Default)]
struct Exposed(Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>);

impl Store for Exposed {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.0.lock().unwrap();
        Ok(rows
            .iter()
            .filter(|row| row.0.starts_with(prefix) && row.0.as_slice() > after)
            .take(limit)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap();
        for (key, change) in batch.into_changes() {
            match change {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }
}

fn open(store: &Exposed, key: &StoreKey) -> Result<Vault, StoreError> {
    Vault::open(Box::new(store.clone()), key, &mut rand::rng())
}

fn key() -> StoreKey {
    StoreKey::from_bytes([7; 32])
}

fn filled(store: &Exposed) -> Vault {
    let mut vault = open(store, &key()).unwrap();
    let mut changes = Changes::default();
    changes.put(
        Place::hidden(Table::Peer, b"alice"),
        b"record of alice".to_vec(),
    );
    changes.put(
        Place::hidden(Table::Peer, b"mallory"),
        b"record of mallory".to_vec(),
    );
    changes.put(Place::number(Table::Outbox, 1), b"first".to_vec());
    changes.put(Place::number(Table::Outbox, 256), b"second".to_vec());
    vault.commit(changes, &mut rand::rng()).unwrap();
    vault
}

#[test]
fn records_come_back_after_reopening() {
    let store = Exposed::default();
    drop(filled(&store));
    let vault = open(&store, &key()).unwrap();
    let record = vault
        .read(&Place::hidden(Table::Peer, b"alice"))
        .unwrap()
        .unwrap();
    assert_eq!(record.as_slice(), b"record of alice");
    let outbox = vault.scan(Table::Outbox, 10).unwrap();
    assert_eq!(
        outbox.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        [1, 256]
    );
    assert!(
        vault
            .read(&Place::hidden(Table::Peer, b"bob"))
            .unwrap()
            .is_none()
    );
}

#[test]
fn cleared_table_is_empty_and_the_others_are_as_they_were() {
    let store = Exposed::default();
    let mut vault = filled(&store);
    let mut changes = Changes::default();
    changes.put(Place::number(Table::Outbox, 3), b"put before".to_vec());
    changes.clear(Table::Outbox);
    changes.put(Place::number(Table::Outbox, 256), b"put after".to_vec());
    vault.commit(changes, &mut rand::rng()).unwrap();
    let outbox = vault.scan(Table::Outbox, 10).unwrap();
    assert_eq!(outbox.len(), 1);
    assert_eq!(outbox[0].0, 256);
    assert_eq!(outbox[0].1.as_slice(), b"put after");
    let mut peers = vault.rows(Table::Peer).unwrap();
    peers.sort_by(|first, second| first.as_slice().cmp(second.as_slice()));
    let peers: Vec<_> = peers.iter().map(|record| record.as_slice()).collect();
    assert_eq!(peers, [b"record of alice".as_slice(), b"record of mallory"]);
}

#[test]
fn table_of_many_pages_is_read_and_cleared_whole() {
    let store = Exposed::default();
    let mut vault = filled(&store);
    let count = MAX_SCAN_ROWS as u64 + 10;
    let mut changes = Changes::default();
    for number in 0..count {
        changes.put(Place::number(Table::Seen, number), vec![1]);
    }
    vault.commit(changes, &mut rand::rng()).unwrap();
    let seen = vault.scan(Table::Seen, usize::MAX).unwrap();
    assert!(seen.iter().map(|row| row.0).eq(0..count));
    let mut changes = Changes::default();
    changes.clear(Table::Seen);
    vault.commit(changes, &mut rand::rng()).unwrap();
    assert!(vault.rows(Table::Seen).unwrap().is_empty());
    assert_eq!(vault.rows(Table::Outbox).unwrap().len(), 2);
}

/// A store that gives the same page again and again.
struct Circular(Exposed);

impl Store for Circular {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(key)
    }

    fn scan(&self, prefix: &[u8], _: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.0.scan(prefix, &[], limit)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.0.commit(batch)
    }
}

#[test]
fn store_that_goes_backwards_is_refused() {
    let store = Exposed::default();
    drop(filled(&store));
    let vault = Vault::open(Box::new(Circular(store)), &key(), &mut rand::rng());
    let rows = vault.and_then(|vault| vault.rows(Table::Outbox).map(drop));
    assert!(matches!(rows, Err(StoreError::Damaged)));
}

/// All rows of a store, as a copy of the disk has them.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn rows(store: &Exposed) -> Rows {
    store.0.lock().unwrap().clone()
}

fn opens(rows: Rows) -> Result<Vault, StoreError> {
    open(&Exposed(Arc::new(Mutex::new(rows))), &key())
}

/// The rows of the same store before and after a commit that overwrites, adds and removes.
fn two_states() -> (Rows, Rows) {
    let store = Exposed::default();
    let mut vault = filled(&store);
    let before = rows(&store);
    let mut changes = Changes::default();
    changes.put(
        Place::hidden(Table::Peer, b"alice"),
        b"later record of alice".to_vec(),
    );
    changes.put(Place::number(Table::Outbox, 2), b"third".to_vec());
    changes.remove(Place::number(Table::Outbox, 256));
    vault.commit(changes, &mut rand::rng()).unwrap();
    (before, rows(&store))
}

#[test]
fn row_missing_at_opening_is_damage_whichever_it_is() {
    let (_, after) = two_states();
    opens(after.clone()).unwrap();
    for row_key in after.keys() {
        let mut rows = after.clone();
        rows.remove(row_key);
        assert!(
            matches!(opens(rows), Err(StoreError::Damaged)),
            "{row_key:?}"
        );
    }
}

#[test]
fn every_mixture_of_two_states_is_damage() {
    let (before, after) = two_states();
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|row_key| before.get(*row_key) != after.get(*row_key))
        .cloned()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect();
    assert_eq!(changed.len(), 4, "three rows and the summary");
    for choice in 0..1_u32 << changed.len() {
        let mut mixed = after.clone();
        for (bit, row_key) in changed.iter().enumerate() {
            if choice >> bit & 1 == 1 {
                match before.get(row_key) {
                    Some(value) => drop(mixed.insert(row_key.clone(), value.clone())),
                    None => drop(mixed.remove(row_key)),
                }
            }
        }
        let whole = choice == 0 || choice == (1 << changed.len()) - 1;
        match opens(mixed) {
            Ok(_) => assert!(whole, "choice {choice:b}"),
            Err(StoreError::Damaged) => assert!(!whole, "choice {choice:b}"),
            Err(other) => panic!("choice {choice:b}: {other:?}"),
        }
    }
}

#[test]
fn any_flipped_bit_in_any_row_is_refused_at_opening() {
    let (_, after) = two_states();
    for (row_key, value) in &after {
        for bit in 0..value.len() * 8 {
            let mut rows = after.clone();
            rows.get_mut(row_key).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let opened = opens(rows);
            if *row_key == HEADER {
                assert!(opened.is_err(), "header, bit {bit}");
            } else {
                assert!(
                    matches!(opened, Err(StoreError::Damaged)),
                    "{row_key:?}, bit {bit}"
                );
            }
        }
    }
}

#[test]
fn any_flipped_bit_in_a_row_key_is_refused_at_opening() {
    let (_, after) = two_states();
    for row_key in after.keys() {
        for bit in 0..row_key.len() * 8 {
            let mut rows = after.clone();
            let value = rows.remove(row_key).unwrap();
            let mut changed = row_key.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            rows.insert(changed, value);
            assert!(
                matches!(opens(rows), Err(StoreError::Damaged)),
                "{row_key:?}, bit {bit}"
            );
        }
    }
}

#[test]
fn row_of_another_store_under_the_same_key_is_damage_at_opening() {
    let ((_, one), (_, other)) = (two_states(), two_states());
    for (row_key, value) in &other {
        let mut rows = one.clone();
        rows.insert(row_key.clone(), value.clone());
        assert!(
            matches!(opens(rows), Err(StoreError::Damaged)),
            "{row_key:?}"
        );
    }
}

#[test]
fn row_lost_while_open_is_damage_not_absence() {
    let store = Exposed::default();
    let vault = filled(&store);
    let place = Place::number(Table::Outbox, 256);
    store.0.lock().unwrap().remove(&vault.row_key(&place));
    assert!(matches!(vault.read(&place), Err(StoreError::Damaged)));
    assert!(matches!(
        vault.scan(Table::Outbox, 10),
        Err(StoreError::Damaged)
    ));
    assert_eq!(vault.scan(Table::Outbox, 1).unwrap().len(), 1);
    assert!(matches!(
        vault.rows(Table::Outbox),
        Err(StoreError::Damaged)
    ));
}

#[test]
fn row_put_back_while_open_is_refused_and_stays_refused() {
    let store = Exposed::default();
    let mut vault = filled(&store);
    let place = Place::number(Table::Outbox, 1);
    let row_key = vault.row_key(&place);
    let earlier = rows(&store)[&row_key].clone();
    let mut changes = Changes::default();
    changes.put(place.clone(), b"later".to_vec());
    vault.commit(changes, &mut rand::rng()).unwrap();
    store.0.lock().unwrap().insert(row_key, earlier);
    assert!(matches!(vault.read(&place), Err(StoreError::Damaged)));
    let mut changes = Changes::default();
    changes.put(Place::number(Table::Outbox, 2), b"another".to_vec());
    vault.commit(changes, &mut rand::rng()).unwrap();
    assert!(matches!(vault.read(&place), Err(StoreError::Damaged)));
    drop(vault);
    assert!(matches!(open(&store, &key()), Err(StoreError::Damaged)));
}

#[test]
fn many_commits_lead_to_the_summary_that_a_scan_finds() {
    let store = Exposed::default();
    let mut vault = filled(&store);
    for step in 0..200_u64 {
        let mut changes = Changes::default();
        changes.put(
            Place::number(Table::Seen, step % 17),
            step.to_be_bytes().to_vec(),
        );
        changes.remove(Place::number(Table::Seen, (step * 7) % 17));
        changes.put(
            Place::hidden(Table::Peer, &(step % 5).to_be_bytes()),
            vec![0; usize::try_from(step).unwrap()],
        );
        if step % 50 == 49 {
            changes.clear(Table::Peer);
        }
        vault.commit(changes, &mut rand::rng()).unwrap();
        if step % 20 == 0 {
            drop(vault);
            vault = open(&store, &key()).unwrap();
        }
    }
}

/// A store that refuses commits.
struct ReadOnly(Exposed);

impl Store for ReadOnly {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.read(key)
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        self.0.scan(prefix, after, limit)
    }

    fn commit(&mut self, _: Batch) -> Result<(), StoreError> {
        Err(StoreError::Io(std::io::ErrorKind::StorageFull.into()))
    }
}

#[test]
fn refused_commit_leaves_the_vault_as_it_was() {
    let store = Exposed::default();
    drop(filled(&store));
    let mut vault = Vault::open(Box::new(ReadOnly(store)), &key(), &mut rand::rng()).unwrap();
    let mut changes = Changes::default();
    changes.put(Place::number(Table::Outbox, 1), b"later".to_vec());
    changes.clear(Table::Peer);
    assert!(matches!(
        vault.commit(changes, &mut rand::rng()),
        Err(StoreError::Io(_))
    ));
    let outbox = vault.read(&Place::number(Table::Outbox, 1)).unwrap();
    assert_eq!(outbox.unwrap().as_slice(), b"first");
    assert_eq!(vault.rows(Table::Peer).unwrap().len(), 2);
}

/// The rows of [`filled`], as the code wrote them that knew version 1 only.
fn version_1() -> Rows {
    let bytes = |hex: &str| -> Vec<u8> {
        hex.as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    include_str!("version1.rows")
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(row_key, value)| (bytes(row_key), bytes(value)))
        .collect()
}

fn version_1_store() -> Exposed {
    Exposed(Arc::new(Mutex::new(version_1())))
}

#[test]
fn store_of_version_1_is_brought_up_to_date_with_every_record() {
    let store = version_1_store();
    for _ in 0..2 {
        let vault = open(&store, &key()).unwrap();
        let outbox = vault.scan(Table::Outbox, 10).unwrap();
        let outbox: Vec<_> = outbox
            .iter()
            .map(|(number, record)| (*number, record.as_slice()))
            .collect();
        assert_eq!(outbox, [(1, b"first".as_slice()), (256, b"second")]);
        for (name, expected) in [
            ("alice", "record of alice"),
            ("mallory", "record of mallory"),
        ] {
            let place = Place::hidden(Table::Peer, name.as_bytes());
            assert_eq!(
                vault.read(&place).unwrap().unwrap().as_slice(),
                expected.as_bytes()
            );
        }
        assert_eq!(rows(&store)[HEADER.as_slice()][0], header::VERSION);
    }
}

#[test]
fn upgrade_that_is_not_committed_changes_nothing_and_begins_again() {
    let store = version_1_store();
    let vault = Vault::open(Box::new(ReadOnly(store.clone())), &key(), &mut rand::rng());
    assert!(matches!(vault, Err(StoreError::Io(_))));
    assert_eq!(rows(&store), version_1());
    open(&store, &key()).unwrap();
}

#[test]
fn damaged_store_of_version_1_is_not_upgraded() {
    for row_key in version_1().keys().filter(|row_key| **row_key != HEADER) {
        let store = version_1_store();
        *store
            .0
            .lock()
            .unwrap()
            .get_mut(row_key)
            .unwrap()
            .last_mut()
            .unwrap() ^= 1;
        let before = rows(&store);
        assert!(matches!(open(&store, &key()), Err(StoreError::Damaged)));
        assert_eq!(rows(&store), before);
    }
}

#[test]
fn wrong_key_does_not_upgrade() {
    let store = version_1_store();
    assert!(matches!(
        open(&store, &StoreKey::from_bytes([8; 32])),
        Err(StoreError::WrongKey)
    ));
    assert_eq!(rows(&store), version_1());
}

#[test]
fn row_of_version_1_put_back_after_the_upgrade_is_damage() {
    let store = version_1_store();
    drop(open(&store, &key()).unwrap());
    let upgraded = rows(&store);
    for (row_key, value) in version_1() {
        let mut rows = upgraded.clone();
        rows.insert(row_key, value);
        assert!(matches!(opens(rows), Err(StoreError::Damaged)));
    }
}

#[test]
fn neither_names_nor_records_are_readable_in_the_store() {
    let store = Exposed::default();
    drop(filled(&store));
    for (row_key, value) in store.0.lock().unwrap().iter() {
        for word in [
            b"alice".as_slice(),
            b"mallory",
            b"record of",
            b"first",
            &[7; 32],
        ] {
            assert!(!row_key.windows(word.len()).any(|window| window == word));
            assert!(!value.windows(word.len()).any(|window| window == word));
        }
    }
}

#[test]
fn same_record_written_twice_looks_different() {
    let store = Exposed::default();
    let mut vault = filled(&store);
    let row_key = vault.row_key(&Place::number(Table::Outbox, 1));
    let before = store.0.lock().unwrap()[&row_key].clone();
    let mut changes = Changes::default();
    changes.put(Place::number(Table::Outbox, 1), b"first".to_vec());
    vault.commit(changes, &mut rand::rng()).unwrap();
    assert_ne!(store.0.lock().unwrap()[&row_key], before);
}

#[test]
fn any_flipped_bit_in_a_record_is_refused() {
    let store = Exposed::default();
    let vault = filled(&store);
    let place = Place::number(Table::Outbox, 1);
    let row_key = vault.row_key(&place);
    let original = store.0.lock().unwrap()[&row_key].clone();
    for bit in 0..original.len() * 8 {
        let mut changed = original.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        store.0.lock().unwrap().insert(row_key.clone(), changed);
        assert!(
            matches!(vault.read(&place), Err(StoreError::Damaged)),
            "bit {bit}"
        );
        assert!(
            matches!(vault.scan(Table::Outbox, 10), Err(StoreError::Damaged)),
            "bit {bit}"
        );
    }
}

#[test]
fn record_cut_short_is_refused_at_every_length() {
    let store = Exposed::default();
    let vault = filled(&store);
    let place = Place::number(Table::Outbox, 1);
    let row_key = vault.row_key(&place);
    let original = store.0.lock().unwrap()[&row_key].clone();
    for length in 0..original.len() {
        store
            .0
            .lock()
            .unwrap()
            .insert(row_key.clone(), original[..length].to_vec());
        assert!(
            matches!(vault.read(&place), Err(StoreError::Damaged)),
            "length {length}"
        );
    }
}

#[test]
fn records_swapped_between_places_are_refused() {
    let store = Exposed::default();
    let vault = filled(&store);
    let (alice, mallory) = (
        Place::hidden(Table::Peer, b"alice"),
        Place::hidden(Table::Peer, b"mallory"),
    );
    let (alice_key, mallory_key) = (vault.row_key(&alice), vault.row_key(&mallory));
    {
        let mut rows = store.0.lock().unwrap();
        let (first, second) = (rows[&alice_key].clone(), rows[&mallory_key].clone());
        rows.insert(alice_key, second);
        rows.insert(mallory_key, first);
    }
    assert!(matches!(vault.read(&alice), Err(StoreError::Damaged)));
    assert!(matches!(vault.read(&mallory), Err(StoreError::Damaged)));
}

#[test]
fn record_moved_to_another_table_does_not_open_there() {
    let store = Exposed::default();
    let vault = filled(&store);
    let outbox = vault.row_key(&Place::number(Table::Outbox, 1));
    let inbox = vault.row_key(&Place::number(Table::Inbox, 1));
    let value = store.0.lock().unwrap()[&outbox].clone();
    vault.sealing.open(&outbox, &value).unwrap();
    assert!(matches!(
        vault.sealing.open(&inbox, &value),
        Err(StoreError::Damaged)
    ));
}

#[test]
fn row_that_nobody_put_is_not_read() {
    let store = Exposed::default();
    let vault = filled(&store);
    let (outbox, inbox) = (
        Place::number(Table::Outbox, 1),
        Place::number(Table::Inbox, 1),
    );
    let value = store.0.lock().unwrap()[&vault.row_key(&outbox)].clone();
    store.0.lock().unwrap().insert(vault.row_key(&inbox), value);
    assert!(vault.read(&inbox).unwrap().is_none());
    assert!(vault.scan(Table::Inbox, 10).unwrap().is_empty());
    drop(vault);
    assert!(matches!(open(&store, &key()), Err(StoreError::Damaged)));
}

#[test]
fn record_of_another_store_under_the_same_key_is_refused() {
    let (store, other) = (Exposed::default(), Exposed::default());
    let (vault, other_vault) = (filled(&store), filled(&other));
    let place = Place::number(Table::Outbox, 1);
    let value = other.0.lock().unwrap()[&other_vault.row_key(&place)].clone();
    store.0.lock().unwrap().insert(vault.row_key(&place), value);
    assert!(matches!(vault.read(&place), Err(StoreError::Damaged)));
}

#[test]
fn wrong_key_is_refused() {
    let store = Exposed::default();
    drop(filled(&store));
    assert!(matches!(
        open(&store, &StoreKey::from_bytes([8; 32])),
        Err(StoreError::WrongKey)
    ));
}

#[test]
fn wrong_or_missing_passphrase_is_refused() {
    let store = Exposed::default();
    let passphrase = |text: &str| StoreKey::from_passphrase(text.to_owned());
    assert!(matches!(
        open(&store, &passphrase("")),
        Err(StoreError::EmptyPassphrase)
    ));
    drop(open(&store, &passphrase("correct horse")).unwrap());
    assert!(matches!(
        open(&store, &passphrase("wrong horse")),
        Err(StoreError::WrongKey)
    ));
    assert!(matches!(
        open(&store, &passphrase("")),
        Err(StoreError::EmptyPassphrase)
    ));
    assert!(matches!(open(&store, &key()), Err(StoreError::WrongKey)));
    open(&store, &passphrase("correct horse")).unwrap();
}

#[test]
fn argon2_parameters_beyond_their_bounds_are_refused_before_they_are_used() {
    let store = Exposed::default();
    drop(
        open(
            &store,
            &StoreKey::from_passphrase("correct horse".to_owned()),
        )
        .unwrap(),
    );
    let header = store.0.lock().unwrap()[HEADER.as_slice()].clone();
    for place in [2, 6, 10] {
        let mut forged = header.clone();
        forged[place..place + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        store.0.lock().unwrap().insert(HEADER.to_vec(), forged);
        let opened = open(
            &store,
            &StoreKey::from_passphrase("correct horse".to_owned()),
        );
        assert!(matches!(opened, Err(StoreError::Damaged)), "at {place}");
    }
}

#[test]
fn header_cut_short_or_of_a_later_version_is_refused() {
    let store = Exposed::default();
    drop(filled(&store));
    let header = store.0.lock().unwrap()[HEADER.as_slice()].clone();
    for length in 0..header.len() {
        store
            .0
            .lock()
            .unwrap()
            .insert(HEADER.to_vec(), header[..length].to_vec());
        assert!(
            matches!(open(&store, &key()), Err(StoreError::Damaged)),
            "length {length}"
        );
    }
    let mut later = header;
    later[0] = header::VERSION + 1;
    store.0.lock().unwrap().insert(HEADER.to_vec(), later);
    assert!(matches!(
        open(&store, &key()),
        Err(StoreError::NewerVersion)
    ));
}

#[test]
fn rows_without_a_header_are_no_new_store() {
    let store = Exposed::default();
    drop(filled(&store));
    store.0.lock().unwrap().remove(HEADER.as_slice());
    assert!(matches!(open(&store, &key()), Err(StoreError::Damaged)));
}

#[test]
fn record_over_the_limit_is_refused_and_nothing_is_written() {
    let store = Exposed::default();
    let mut vault = filled(&store);
    let rows = store.0.lock().unwrap().clone();
    let mut changes = Changes::default();
    changes.put(Place::number(Table::Outbox, 2), b"small".to_vec());
    changes.put(
        Place::number(Table::Outbox, 3),
        vec![0; sealing::MAX_RECORD + 1],
    );
    assert!(matches!(
        vault.commit(changes, &mut rand::rng()),
        Err(StoreError::TooLarge)
    ));
    assert_eq!(*store.0.lock().unwrap(), rows);
}

#[test]
fn key_file_is_created_once_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.key");
    let store = Exposed::default();
    drop(open(&store, &StoreKey::from_file(&path)).unwrap());
    assert_eq!(std::fs::read(&path).unwrap().len(), 32);
    open(&store, &StoreKey::from_file(&path)).unwrap();
}

#[test]
fn lost_key_file_is_not_replaced_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.key");
    let store = Exposed::default();
    drop(open(&store, &StoreKey::from_file(&path)).unwrap());
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(
        open(&store, &StoreKey::from_file(&path)),
        Err(StoreError::Io(_))
    ));
    assert!(!path.exists());
}

#[test]
fn key_file_of_another_size_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.key");
    drop(open(&Exposed::default(), &StoreKey::from_file(&path)).unwrap());
    for size in [1, 31, 33] {
        std::fs::write(&path, vec![1; size]).unwrap();
        let opened = open(&Exposed::default(), &StoreKey::from_file(&path));
        assert!(
            matches!(opened, Err(StoreError::KeyFileSize)),
            "size {size}"
        );
    }
}

#[test]
fn empty_key_file_is_filled_for_a_new_store_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.key");
    let store = Exposed::default();
    drop(open(&store, &StoreKey::from_file(&path)).unwrap());
    let content = std::fs::read(&path).unwrap();
    std::fs::File::create(&path).unwrap();
    assert!(matches!(
        open(&store, &StoreKey::from_file(&path)),
        Err(StoreError::KeyFileSize)
    ));
    drop(open(&Exposed::default(), &StoreKey::from_file(&path)).unwrap());
    let filled = std::fs::read(&path).unwrap();
    assert_eq!(filled.len(), 32);
    assert_ne!(filled, content);
}

#[cfg(unix)]
#[test]
fn key_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.key");
    drop(open(&Exposed::default(), &StoreKey::from_file(&path)).unwrap());
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        open(&Exposed::default(), &StoreKey::from_file(&path)),
        Err(StoreError::KeyFileExposed)
    ));
}

#[test]
fn debug_of_a_store_key_shows_no_secret() {
    assert_eq!(
        format!("{:?}", StoreKey::from_bytes([65; 32])),
        "StoreKey(bytes)"
    );
    assert_eq!(
        format!("{:?}", StoreKey::from_passphrase("secret".to_owned())),
        "StoreKey(passphrase)"
    );
    assert_eq!(
        format!("{:?}", StoreKey::from_file("/secret")),
        "StoreKey(file)"
    );
}
