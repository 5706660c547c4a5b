//! Brings a store of an older version up to date.
//!
//! Everything happens in one commit, header included: a crash leaves the store as it was, and the next opening begins again. All
//! rows are in memory once for that. A reader of the older version refuses the store afterwards, and rows or a header put
//! back from before do not authenticate: version 2 has another record key.

use aes_gcm::{Aes256Gcm, Key, KeyInit as _};
use rand::CryptoRng;

use super::header::{self, Secret};
use super::sealing::open_with;
use super::{Batch, HEADER, MAX_SCAN_ROWS, Store, StoreError, StoreKey, Vault, expand};

/// From version 1: `u8 version = 1; opaque iv[12]; AES-256-GCM(record key, iv, AAD = row key, record)`.
pub(super) fn from_version_1(
    store: Box<dyn Store>,
    key: &StoreKey,
    secret: &Secret,
    rng: &mut impl CryptoRng,
) -> Result<Vault, StoreError> {
    let record_key = expand(secret, b"sealwire/1 store record key");
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*record_key));
    let mut vault = Vault::new(store, secret);
    let mut batch = Batch::default();
    batch.put(HEADER.to_vec(), header::wrap(secret, key, false, rng)?);
    let mut after = HEADER.to_vec();
    loop {
        let page = vault.store.scan(&[], &after, MAX_SCAN_ROWS)?;
        if page.is_empty() {
            break;
        }
        for (row_key, value) in page {
            // A store that goes backwards would never end.
            if row_key <= after {
                return Err(StoreError::Damaged);
            }
            let value = value.strip_prefix(&[1]).ok_or(StoreError::Damaged)?;
            let record = open_with(&cipher, &row_key, value)?;
            let value = vault.sealing.seal(&row_key, &record, rng)?;
            batch.put(row_key.clone(), value);
            after = row_key;
        }
    }
    vault.commit_rows(batch, rng)?;
    Ok(vault)
}
