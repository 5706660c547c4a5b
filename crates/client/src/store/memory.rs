//! A store that is gone with the process.

use std::collections::BTreeMap;

use super::{Batch, Row, SCAN_BYTES, Store, StoreError};

/// Rows in memory: for tests, and for devices that live as long as their process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Store for MemoryStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let mut bytes = 0_usize;
        Ok(self
            .rows
            .range(prefix.max(after).to_vec()..)
            .skip_while(|(key, _)| key.as_slice() <= after)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .take_while(|(_, value)| {
                let more = bytes < SCAN_BYTES;
                bytes = bytes.saturating_add(value.len());
                more
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        for (key, change) in batch.into_changes() {
            match change {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        Ok(())
    }
}
