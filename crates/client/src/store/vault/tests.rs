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
        let expected_newer = bit < 8 && bit != 0;
        match vault.read(&place) {
            Err(StoreError::NewerVersion) => assert!(expected_newer, "bit {bit}"),
            Err(StoreError::Damaged) => assert!(!expected_newer, "bit {bit}"),
            other => panic!("bit {bit}: {other:?}"),
        }
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
fn record_moved_to_another_table_is_refused() {
    let store = Exposed::default();
    let vault = filled(&store);
    let (outbox, inbox) = (
        Place::number(Table::Outbox, 1),
        Place::number(Table::Inbox, 1),
    );
    let value = store.0.lock().unwrap()[&vault.row_key(&outbox)].clone();
    store.0.lock().unwrap().insert(vault.row_key(&inbox), value);
    assert!(matches!(vault.read(&inbox), Err(StoreError::Damaged)));
    assert!(matches!(
        vault.scan(Table::Inbox, 10),
        Err(StoreError::Damaged)
    ));
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
    later[0] = 2;
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
    changes.put(Place::number(Table::Outbox, 3), vec![0; MAX_RECORD + 1]);
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
    for size in [0, 31, 33] {
        std::fs::write(&path, vec![1; size]).unwrap();
        let opened = open(&Exposed::default(), &StoreKey::from_file(&path));
        assert!(
            matches!(opened, Err(StoreError::KeyFileSize)),
            "size {size}"
        );
    }
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
