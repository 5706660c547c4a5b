//! Encryption at rest, above every store.
//!
//! ```text
//!  application's key ──(Argon2id, for a passphrase)── wrapping key ── header row { store key, wrapped }
//!  store key ── HKDF ──┬── record key   value = version || iv || AES-256-GCM(record key, iv, AAD = row key, record)
//!                      └── name key     row key = table || name (a number), or table || HKDF(name key, name)
//! ```
//!
//! The row key is authenticated with its value, so a record cannot be moved to another place. Names of people and
//! devices are not readable in row keys. What is not detected here is a whole store put back to an earlier state.

use std::collections::BTreeMap;

use aes_gcm::aead::{Aead as _, AeadInOut as _, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit as _, Nonce};
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::key::Derivation;
use super::{Batch, MAX_SCAN_ROWS, Store, StoreError, StoreKey};

/// Version of the header and of every record.
const VERSION: u8 = 1;
/// The header's row key. No table has this number.
const HEADER: [u8; 1] = [0];
const IV_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// Largest record, in bytes: an outbox entry for sixteen devices is the largest there is (2 MiB).
const MAX_RECORD: usize = 4 << 20;

/// A kind of record. The numbers are in the stored rows: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Table {
    /// Things there is one of, by number (see `engine::records`).
    Singleton = 1,
    /// A user's pinned devices, by user.
    Peer = 2,
    /// Sessions with a device, by its thumbprint.
    Sessions = 3,
    /// Messages on their way to the relay, by sequence number.
    Outbox = 4,
    /// Events for the application, by sequence number.
    Inbox = 5,
    /// Messages that wait for a delivered receipt, by message id.
    Undelivered = 6,
    /// Messages that arrived, in order, by sequence number.
    Seen = 7,
    /// What could not be read and was asked for again.
    #[allow(dead_code, reason = "its reader comes with it")]
    Lost = 8,
    /// Files on their way to the relay.
    #[allow(dead_code, reason = "its reader comes with it")]
    Uploads = 9,
}

/// Changes to plain records that are committed together. They take effect in the order in which they are said.
#[derive(Default)]
pub(crate) struct Changes {
    changes: Vec<Change>,
}

enum Change {
    Put(Place, Zeroizing<Vec<u8>>),
    Remove(Place),
    Clear(Table),
}

impl Changes {
    pub(crate) fn put(&mut self, place: Place, record: Vec<u8>) {
        self.changes
            .push(Change::Put(place, Zeroizing::new(record)));
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.changes.push(Change::Remove(place));
    }

    /// Removes every record of a table, those put before by the same changes as well.
    #[allow(dead_code, reason = "its caller comes with it")]
    pub(crate) fn clear(&mut self, table: Table) {
        self.changes.push(Change::Clear(table));
    }
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    table: Table,
    name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Number(u64),
    Hidden(Vec<u8>),
}

impl Place {
    /// A record found by a number, which stands readable in the row key and orders the table.
    pub(crate) fn number(table: Table, number: u64) -> Self {
        Self {
            table,
            name: Name::Number(number),
        }
    }

    /// A record found by a name, which does not stand in the row key.
    pub(crate) fn hidden(table: Table, name: &[u8]) -> Self {
        Self {
            table,
            name: Name::Hidden(name.to_vec()),
        }
    }
}

/// A record of a table that is ordered by number.
pub(crate) type NumberedRecord = (u64, Zeroizing<Vec<u8>>);

/// A store, opened.
pub(crate) struct Vault {
    store: Box<dyn Store>,
    records: Aes256Gcm,
    names: Zeroizing<[u8; 32]>,
}

impl Vault {
    /// Opens a store with its key, or makes an empty one into a new device store.
    pub(crate) fn open(
        mut store: Box<dyn Store>,
        key: &StoreKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StoreError> {
        let store_key = match store.read(&HEADER)? {
            Some(header) => unwrap_header(&header, key)?,
            // Rows without a header are a damaged store, not a new one.
            None if !store.scan(&[], &[], 1)?.is_empty() => return Err(StoreError::Damaged),
            None => {
                let (header, store_key) = new_header(key, rng)?;
                let mut batch = Batch::default();
                batch.put(HEADER.to_vec(), header);
                store.commit(batch)?;
                store_key
            }
        };
        let record_key = expand(&store_key, b"sealwire/1 store record key");
        let names = expand(&store_key, b"sealwire/1 store name key");
        Ok(Self {
            store,
            records: Aes256Gcm::new(&Key::<Aes256Gcm>::from(*record_key)),
            names,
        })
    }

    /// The record at `place`.
    pub(crate) fn read(&self, place: &Place) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let row_key = self.row_key(place);
        match self.store.read(&row_key)? {
            Some(value) => self.open_record(&row_key, &value).map(Some),
            None => Ok(None),
        }
    }

    /// The first records of a table that is ordered by number.
    pub(crate) fn scan(
        &self,
        table: Table,
        limit: usize,
    ) -> Result<Vec<NumberedRecord>, StoreError> {
        let mut records = Vec::new();
        self.for_each(&[table as u8], limit, |row_key, value| {
            let number = row_key.get(1..).and_then(|number| number.try_into().ok());
            let number = number.map(u64::from_be_bytes).ok_or(StoreError::Damaged)?;
            records.push((number, self.open_record(row_key, value)?));
            Ok(())
        })?;
        Ok(records)
    }

    /// Every record of a table, in no order that means anything where the table goes by hidden names.
    #[allow(dead_code, reason = "its caller comes with it")]
    pub(crate) fn rows(&self, table: Table) -> Result<Vec<Zeroizing<Vec<u8>>>, StoreError> {
        let mut records = Vec::new();
        self.for_each(&[table as u8], usize::MAX, |row_key, value| {
            records.push(self.open_record(row_key, value)?);
            Ok(())
        })?;
        Ok(records)
    }

    /// Commits all changes or none.
    pub(crate) fn commit(
        &mut self,
        changes: Changes,
        rng: &mut impl CryptoRng,
    ) -> Result<(), StoreError> {
        let mut rows = BTreeMap::new();
        for change in changes.changes {
            match change {
                Change::Put(place, record) => drop(rows.insert(self.row_key(&place), Some(record))),
                Change::Remove(place) => drop(rows.insert(self.row_key(&place), None)),
                Change::Clear(table) => {
                    for (row_key, record) in &mut rows {
                        if row_key.first() == Some(&(table as u8)) {
                            *record = None;
                        }
                    }
                    self.for_each(&[table as u8], usize::MAX, |row_key, _| {
                        rows.insert(row_key.to_vec(), None);
                        Ok(())
                    })?;
                }
            }
        }
        let mut batch = Batch::default();
        for (row_key, record) in rows {
            match record {
                Some(record) => {
                    let value = self.seal_record(&row_key, &record, rng)?;
                    batch.put(row_key, value);
                }
                None => batch.remove(row_key),
            }
        }
        if batch.is_empty() {
            Ok(())
        } else {
            self.store.commit(batch)
        }
    }

    /// The first `limit` rows whose key begins with `prefix`, in the order of their keys, a page at a time.
    fn for_each(
        &self,
        prefix: &[u8],
        limit: usize,
        mut row: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut after = Vec::new();
        let mut left = limit;
        while left > 0 {
            let page = self.store.scan(prefix, &after, left.min(MAX_SCAN_ROWS))?;
            if page.is_empty() {
                break;
            }
            for (row_key, value) in page {
                // A store that goes backwards would never end.
                if row_key <= after || !row_key.starts_with(prefix) {
                    return Err(StoreError::Damaged);
                }
                row(&row_key, &value)?;
                left = left.saturating_sub(1);
                after = row_key;
            }
        }
        Ok(())
    }

    fn row_key(&self, place: &Place) -> Vec<u8> {
        let mut row_key = vec![place.table as u8];
        match &place.name {
            Name::Number(number) => row_key.extend_from_slice(&number.to_be_bytes()),
            Name::Hidden(name) => {
                let mut info = row_key.clone();
                info.extend_from_slice(name);
                row_key.extend_from_slice(expand(&self.names, &info).as_slice());
            }
        }
        row_key
    }

    fn seal_record(
        &self,
        row_key: &[u8],
        record: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, StoreError> {
        if record.len() > MAX_RECORD {
            return Err(StoreError::TooLarge);
        }
        let mut iv = [0; IV_LEN];
        rng.fill_bytes(&mut iv);
        let sealed = self
            .records
            .encrypt(
                &Nonce::from(iv),
                Payload {
                    msg: record,
                    aad: row_key,
                },
            )
            .map_err(|_| StoreError::TooLarge)?;
        let mut value = Vec::with_capacity(1 + IV_LEN + sealed.len());
        value.push(VERSION);
        value.extend_from_slice(&iv);
        value.extend_from_slice(&sealed);
        Ok(value)
    }

    fn open_record(&self, row_key: &[u8], value: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let (version, rest) = value.split_first().ok_or(StoreError::Damaged)?;
        check_version(*version)?;
        let (iv, sealed) = rest
            .split_first_chunk::<IV_LEN>()
            .ok_or(StoreError::Damaged)?;
        if sealed.len() < TAG_LEN || sealed.len() > MAX_RECORD + TAG_LEN {
            return Err(StoreError::Damaged);
        }
        let mut record = Zeroizing::new(sealed.to_vec());
        self.records
            .decrypt_in_place(&Nonce::from(*iv), row_key, &mut *record)
            .map_err(|_| StoreError::Damaged)?;
        Ok(record)
    }
}

/// A new random store key and the header that holds it, wrapped.
fn new_header(
    key: &StoreKey,
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Zeroizing<[u8; 32]>), StoreError> {
    let mut store_key = Zeroizing::new([0; 32]);
    rng.fill_bytes(store_key.as_mut_slice());
    let (mut salt, mut iv) = ([0; 16], [0; IV_LEN]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut iv);
    let derivation = key.new_derivation(salt);
    let wrapping_key = key.wrapping_key(&derivation, true)?;
    let mut header = encode_derivation(&derivation);
    let wrapped = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*wrapping_key))
        .encrypt(
            &Nonce::from(iv),
            Payload {
                msg: store_key.as_slice(),
                aad: &header,
            },
        )
        .map_err(|_| StoreError::TooLarge)?;
    header.extend_from_slice(&iv);
    header.extend_from_slice(&wrapped);
    Ok((header, store_key))
}

fn unwrap_header(header: &[u8], key: &StoreKey) -> Result<Zeroizing<[u8; 32]>, StoreError> {
    let (derivation, rest) = decode_derivation(header)?;
    let aad = header
        .get(..header.len() - rest.len())
        .ok_or(StoreError::Damaged)?;
    let (iv, wrapped) = rest
        .split_first_chunk::<IV_LEN>()
        .ok_or(StoreError::Damaged)?;
    if wrapped.len() != 32 + TAG_LEN {
        return Err(StoreError::Damaged);
    }
    let wrapping_key = key.wrapping_key(&derivation, false)?;
    let opened = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*wrapping_key))
        .decrypt(&Nonce::from(*iv), Payload { msg: wrapped, aad })
        .map(Zeroizing::new)
        .map_err(|_| StoreError::WrongKey)?;
    let mut store_key = Zeroizing::new([0; 32]);
    store_key.copy_from_slice(&opened);
    Ok(store_key)
}

/// `u8 version; u8 kind; (u32 memory KiB; u32 passes; u32 lanes; opaque salt[16] for Argon2id)`.
fn encode_derivation(derivation: &Derivation) -> Vec<u8> {
    let mut out = vec![VERSION];
    match derivation {
        Derivation::None => out.push(0),
        Derivation::Argon2id {
            memory_kib,
            passes,
            lanes,
            salt,
        } => {
            out.push(1);
            for number in [memory_kib, passes, lanes] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(salt);
        }
    }
    out
}

fn decode_derivation(header: &[u8]) -> Result<(Derivation, &[u8]), StoreError> {
    let (version, rest) = header.split_first().ok_or(StoreError::Damaged)?;
    check_version(*version)?;
    let (kind, rest) = rest.split_first().ok_or(StoreError::Damaged)?;
    match kind {
        0 => Ok((Derivation::None, rest)),
        1 => {
            let (memory_kib, rest) = rest.split_first_chunk().ok_or(StoreError::Damaged)?;
            let (passes, rest) = rest.split_first_chunk().ok_or(StoreError::Damaged)?;
            let (lanes, rest) = rest.split_first_chunk().ok_or(StoreError::Damaged)?;
            let (salt, rest) = rest.split_first_chunk().ok_or(StoreError::Damaged)?;
            let derivation = Derivation::Argon2id {
                memory_kib: u32::from_be_bytes(*memory_kib),
                passes: u32::from_be_bytes(*passes),
                lanes: u32::from_be_bytes(*lanes),
                salt: *salt,
            };
            Ok((derivation, rest))
        }
        _ => Err(StoreError::Damaged),
    }
}

fn check_version(version: u8) -> Result<(), StoreError> {
    match version {
        VERSION => Ok(()),
        0 => Err(StoreError::Damaged),
        _ => Err(StoreError::NewerVersion),
    }
}

/// HKDF-Expand to 32 bytes; the keys here are uniformly random, so Extract is left out (RFC 5869 §3.3).
fn expand(key: &[u8; 32], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    #[expect(
        clippy::expect_used,
        reason = "a key of 32 bytes and an output of 32 bytes are always within HKDF's bounds"
    )]
    Hkdf::<Sha256>::from_prk(key)
        .ok()
        .and_then(|hkdf| hkdf.expand(info, out.as_mut_slice()).ok())
        .expect("HKDF-SHA-256 with 32 bytes in and out");
    out
}

#[cfg(test)]
mod tests;
