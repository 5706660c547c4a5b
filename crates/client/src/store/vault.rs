//! Encryption and integrity at rest, above every store.
//!
//! ```text
//!  application's key ──(Argon2id, for a passphrase)── wrapping key ── header row { store key, wrapped }
//!  store key ── HKDF ──┬── record key   each record sealed under a key of its own, bound to its row key  (sealing)
//!                      ├── name key     row key = table || number, or table || HKDF(name key, table || name)
//!                      └── set key      summary row { how many rows, keyed digest of their set }          (index)
//! ```
//!
//! * The row key is authenticated with its value, so a record cannot be moved to another place. Names of people and devices are
//!   not readable in row keys.
//! * The summary is committed with every change. Opening reads every row once and compares: a row that is missing, changed, too many
//!   or put back to an earlier version is [`StoreError::Damaged`], whether somebody did it or a disk.
//! * While the store is open its rows are known here, so a read that gives nothing, or something old, is noticed when it happens.
//!
//! What is not detected here is a whole store put back to an earlier state: that one is in order. The relay notices it.

mod header;
mod index;
mod sealing;
mod upgrade;

use std::collections::BTreeMap;

use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use self::header::Secret;
use self::index::Index;
use self::sealing::Sealing;
use super::{Batch, MAX_SCAN_ROWS, Store, StoreError, StoreKey};

/// The header's row key. No table has this number.
const HEADER: [u8; 1] = [0];
/// The summary's row key, in the same table of none.
const SUMMARY: [u8; 2] = [0, 1];

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
    Lost = 8,
    /// Files on their way to the relay.
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
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) fn put(&mut self, place: Place, record: Vec<u8>) {
        self.changes
            .push(Change::Put(place, Zeroizing::new(record)));
    }

    pub(crate) fn remove(&mut self, place: Place) {
        self.changes.push(Change::Remove(place));
    }

    /// Removes every record of a table, those put before by the same changes as well.
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
    sealing: Sealing,
    names: Zeroizing<[u8; 32]>,
    index: Index,
}

impl Vault {
    /// Opens a store with its key, or makes an empty one into a new device store. Reads all of it, a page at a time.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] unless the rows are exactly those of the last commit.
    pub(crate) fn open(
        store: Box<dyn Store>,
        key: &StoreKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StoreError> {
        let Some(header) = store.read(&HEADER)? else {
            // Rows without a header are a damaged store, not a new one.
            if !store.scan(&[], &[], 1)?.is_empty() {
                return Err(StoreError::Damaged);
            }
            return Self::create(store, key, rng);
        };
        match header::unwrap(&header, key)? {
            (header::VERSION, secret) => {
                let mut vault = Self::new(store, &secret);
                vault.verify(&header)?;
                Ok(vault)
            }
            (_, secret) => upgrade::from_version_1(store, key, &secret, rng),
        }
    }

    fn create(
        store: Box<dyn Store>,
        key: &StoreKey,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StoreError> {
        let (header, secret) = header::create(key, rng)?;
        let mut vault = Self::new(store, &secret);
        let mut batch = Batch::default();
        batch.put(HEADER.to_vec(), header);
        vault.commit_rows(batch, rng)?;
        Ok(vault)
    }

    fn new(store: Box<dyn Store>, secret: &Secret) -> Self {
        Self {
            store,
            sealing: Sealing::new(secret),
            names: expand(secret, b"sealwire/1 store name key"),
            index: Index::new(&expand(secret, b"sealwire/1 store set key")),
        }
    }

    /// Reads every row into the index and compares what there is with the summary.
    fn verify(&mut self, header: &[u8]) -> Result<(), StoreError> {
        let summary = self.store.read(&SUMMARY)?.ok_or(StoreError::Damaged)?;
        let summary = self.sealing.open(&SUMMARY, &summary)?;
        let rows = index::rows(&summary).ok_or(StoreError::Damaged)?;
        let mut after = Vec::new();
        loop {
            let page = self.store.scan(&[], &after, MAX_SCAN_ROWS)?;
            if page.is_empty() {
                break;
            }
            for (row_key, value) in page {
                // Neither a store that goes backwards nor one that has no end goes on for ever.
                if row_key <= after || self.index.len() as u64 > rows {
                    return Err(StoreError::Damaged);
                }
                if row_key != SUMMARY {
                    self.index.add(&row_key, &value)?;
                }
                after = row_key;
            }
        }
        self.index.verify(&summary)?;
        self.index.check(&HEADER, header)
    }

    /// The record at `place`.
    pub(crate) fn read(&self, place: &Place) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let row_key = self.row_key(place);
        if !self.index.contains(&row_key) {
            return Ok(None);
        }
        let value = self.store.read(&row_key)?.ok_or(StoreError::Damaged)?;
        self.index.check(&row_key, &value)?;
        self.sealing.open(&row_key, &value).map(Some)
    }

    /// The first records of a table that is ordered by number.
    pub(crate) fn scan(
        &self,
        table: Table,
        limit: usize,
    ) -> Result<Vec<NumberedRecord>, StoreError> {
        let mut records = Vec::new();
        self.for_each(&[table as u8], limit, |row_key, record| {
            let number = row_key.get(1..).and_then(|number| number.try_into().ok());
            let number = number.map(u64::from_be_bytes).ok_or(StoreError::Damaged)?;
            records.push((number, record));
            Ok(())
        })?;
        Ok(records)
    }

    /// Every record of a table, in no order that means anything where the table goes by hidden names.
    pub(crate) fn rows(&self, table: Table) -> Result<Vec<Zeroizing<Vec<u8>>>, StoreError> {
        let mut records = Vec::new();
        self.for_each(&[table as u8], usize::MAX, |_, record| {
            records.push(record);
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
                    let prefix = [table as u8];
                    let there = self.index.keys(&prefix);
                    rows.extend(there.map(|row_key| (row_key.to_vec(), None)));
                }
            }
        }
        let mut batch = Batch::default();
        for (row_key, record) in rows {
            match record {
                Some(record) => {
                    let value = self.sealing.seal(&row_key, &record, rng)?;
                    batch.put(row_key, value);
                }
                None if self.index.contains(&row_key) => batch.remove(row_key),
                None => {}
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.commit_rows(batch, rng)
    }

    /// Commits sealed rows, with the summary that they lead to.
    fn commit_rows(
        &mut self,
        mut batch: Batch,
        rng: &mut impl CryptoRng,
    ) -> Result<(), StoreError> {
        let staged = self.index.stage(batch.changes());
        let summary = self.sealing.seal(&SUMMARY, &staged.summary(), rng)?;
        batch.put(SUMMARY.to_vec(), summary);
        self.store.commit(batch)?;
        self.index.apply(staged);
        Ok(())
    }

    /// The first `limit` records whose row key begins with `prefix`, in the order of their keys, a page at a time.
    fn for_each(
        &self,
        prefix: &[u8],
        limit: usize,
        mut record: impl FnMut(&[u8], Zeroizing<Vec<u8>>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut expected = self.index.keys(prefix).take(limit).peekable();
        let mut left = limit;
        let mut after = Vec::new();
        while expected.peek().is_some() {
            let page = self.store.scan(prefix, &after, left.min(MAX_SCAN_ROWS))?;
            if page.is_empty() {
                return Err(StoreError::Damaged);
            }
            for (row_key, value) in page {
                if expected.next() != Some(row_key.as_slice()) {
                    return Err(StoreError::Damaged);
                }
                self.index.check(&row_key, &value)?;
                record(&row_key, self.sealing.open(&row_key, &value)?)?;
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
