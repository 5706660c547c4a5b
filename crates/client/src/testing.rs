//! What tests of several modules need: an issuer, and a store that survives its client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use sealwire_protocol::base64url;
use sealwire_protocol::key::{Seed, SigningKey, Thumbprint};

use crate::issuer::TrustedIssuer;
use crate::store::{Batch, Row, Store, StoreError};

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "https://relay.example";

pub(crate) fn issuer_key() -> SigningKey {
    SigningKey::from_seed(&Seed::new([42; 32]))
}

pub(crate) fn trusted_issuer() -> TrustedIssuer {
    TrustedIssuer::with_key(ISSUER, AUDIENCE, issuer_key().public().as_bytes()).unwrap()
}

/// An access token for `user` and `device`, issued at `issued` for `lifetime` seconds.
pub(crate) fn token(
    key: &SigningKey,
    user: &str,
    device: Thumbprint,
    issued: u64,
    lifetime: u64,
) -> String {
    let header = base64url::encode(br#"{"alg":"EdDSA","typ":"at+jwt"}"#);
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"{user}","aud":"{AUDIENCE}","iat":{issued},"exp":{},"cnf":{{"jkt":"{device}"}},"scope":"sealwire:send sealwire:receive sealwire:publish"}}"#,
        issued + lifetime
    );
    let input = format!("{header}.{}", base64url::encode(claims.as_bytes()));
    let signature = base64url::encode(&key.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

/// A store whose rows outlive the client that uses it, and that can be made to fail.
#[derive(Clone, Default)]
pub(crate) struct SharedStore {
    pub(crate) rows: Arc<Mutex<BTreeMap<Vec<u8>, Vec<u8>>>>,
    pub(crate) broken: Arc<Mutex<bool>>,
}

impl Store for SharedStore {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.rows.lock().unwrap().get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.rows.lock().unwrap();
        let found = rows
            .iter()
            .filter(|row| row.0.starts_with(prefix) && row.0.as_slice() > after)
            .take(limit);
        Ok(found
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        if *self.broken.lock().unwrap() {
            return Err(StoreError::Io(std::io::ErrorKind::StorageFull.into()));
        }
        let mut rows = self.rows.lock().unwrap();
        for (key, change) in batch.into_changes() {
            match change {
                Some(value) => rows.insert(key, value),
                None => rows.remove(&key),
            };
        }
        Ok(())
    }
}
