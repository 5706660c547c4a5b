//! Every secret that a device ever had: from a store that keeps each state it was in, opened with the device's key.
//!
//! The forms of the records are read here a second time, from their descriptions in `sealwire-client` (the vault) and `sealwire-e2e`
//! (the state), so that whatever is not read is noticed: a record has to be read to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use hkdf::Hkdf;
use sealwire_client::store::{Batch, Row};
use sealwire_client::{Store, StoreError};
use sealwire_protocol::codec::{DecodeError, Reader};
use sealwire_tests::Account;
use sha2::Sha256;

use crate::search::Needle;

/// Message keys that are derived ahead of each state of a chain: more than were sent between two states.
const AHEAD: usize = 4;

/// A store in memory that remembers every row it ever had.
#[derive(Clone, Default)]
pub(crate) struct Recorder(Arc<Mutex<Rows>>);

#[derive(Default)]
struct Rows {
    now: BTreeMap<Vec<u8>, Vec<u8>>,
    ever: BTreeSet<Row>,
}

/// What a device had to hide.
#[derive(Default)]
pub(crate) struct Secrets {
    pub(crate) keys: Vec<Needle>,
    /// Compact JWS.
    pub(crate) attestations: Vec<String>,
    seen: BTreeSet<[u8; 32]>,
    counts: BTreeMap<&'static str, usize>,
}

impl Recorder {
    pub(crate) fn used_by(&self, account: Account) -> Account {
        let store = self.clone();
        account.storing(move || Box::new(store.clone()))
    }

    /// All secrets of all states, with the key that the device's store is under.
    pub(crate) fn secrets(&self, key: &[u8; 32]) -> Secrets {
        let rows = self.0.lock().unwrap();
        let header = rows.now.get(&[0][..]).expect("a header");
        // u8 version; u8 kind = 0; iv; the store's key, wrapped.
        let store_key = open(key, &header[2..14], &header[14..], &header[..2]);
        let record_key = expand(
            &store_key.try_into().unwrap(),
            b"sealwire/1 store record key 2",
        );
        let mut secrets = Secrets::default();
        secrets.add("record key of the device store", &record_key);
        for (row_key, value) in rows.ever.iter().filter(|(row_key, _)| row_key[0] != 0) {
            // u8 version; salt, which chooses the record's own key; iv; the record, sealed.
            let own_key = expand(
                &record_key,
                &[b"sealwire/1 store record".as_slice(), &value[1..13]].concat(),
            );
            let record = open(&own_key, &value[13..25], &value[25..], row_key);
            let mut reader = Reader::new(&record);
            secrets
                .read(row_key, &mut reader)
                .expect("a record that is as described");
        }
        secrets
    }
}

impl Secrets {
    /// Whether there was one of every kind that the conversation had.
    pub(crate) fn found_all(&self) -> bool {
        [
            "device key",
            "standard JWE key",
            "signed prekey",
            "one-time prekey",
            "KEM prekey",
            "root key",
            "ratchet key",
            "chain key",
            "message key",
        ]
        .iter()
        .all(|kind| self.counts.contains_key(kind))
    }

    fn add(&mut self, what: &'static str, secret: &[u8; 32]) {
        if self.seen.insert(*secret) {
            self.keys.push(Needle::bytes(what, secret));
            *self.counts.entry(what).or_default() += 1;
        }
    }

    fn read(&mut self, row_key: &[u8], reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        match (row_key[0], row_key[row_key.len() - 1]) {
            (1, 1) => self.device_keys(reader)?,
            (1, 2) => self.prekeys(reader)?,
            (1, 3) => self.account(reader)?,
            (3, _) => self.peer(reader)?,
            // Positions, pinned devices, messages: no keys. The words in them are looked for as such.
            _ => return Ok(()),
        }
        reader.clone().finish()
    }

    fn device_keys(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.array::<3>()?;
        self.add("device key", reader.array()?);
        self.add("standard JWE key", reader.array()?);
        Ok(())
    }

    fn prekeys(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.array::<3>()?;
        reader.array::<8>()?;
        for _ in 0..reader.u8()? {
            reader.array::<20>()?;
            self.add("signed prekey", reader.array()?);
            self.kem_seed(reader)?;
            reader.array::<64>()?;
            for _ in 0..reader.u16()? {
                reader.array::<32>()?;
            }
        }
        for _ in 0..reader.u16()? {
            reader.u32()?;
            self.add("one-time prekey", reader.array()?);
            self.kem_seed(reader)?;
        }
        Ok(())
    }

    /// FIPS 203: `d || z`.
    fn kem_seed(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.add("KEM prekey", reader.array()?);
        self.add("KEM prekey", reader.array()?);
        Ok(())
    }

    fn account(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.u8()?;
        reader.vec8(0..=255)?;
        reader.bool()?;
        let attestation = String::from_utf8(reader.vec16(0..=8_192)?.to_vec()).unwrap();
        if !attestation.is_empty() && !self.attestations.contains(&attestation) {
            self.attestations.push(attestation);
        }
        // What the device is called, and whether its store was ever put back.
        reader.vec8(0..=64)?;
        reader.bool()?;
        Ok(())
    }

    fn peer(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        reader.array::<35>()?;
        if reader.bool()? {
            reader.vec8(1..=255)?;
            reader.vec8(1..=255)?;
        }
        for _ in 0..reader.u8()? {
            reader.bool()?;
            reader.array::<24>()?;
            if reader.u8()? == 0 {
                reader.array::<{ 32 + 32 + 1_088 + 4 }>()?;
                if reader.bool()? {
                    reader.u32()?;
                }
                reader.vec16(1..=2_048)?;
                reader.vec16(1..=8_192)?;
            }
            self.ratchet(reader)?;
        }
        Ok(())
    }

    fn ratchet(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.add("root key", reader.array()?);
        if reader.u8()? == 0 {
            reader.array::<32>()?;
        } else {
            self.add("ratchet key", reader.array()?);
            self.chain(reader)?;
        }
        reader.u32()?;
        if reader.bool()? {
            reader.array::<32>()?;
            self.chain(reader)?;
        }
        for _ in 0..reader.u16()? {
            reader.array::<{ 32 + 4 + 8 }>()?;
            self.add("message key", reader.array()?);
        }
        Ok(())
    }

    /// The chain's key, and the message keys that follow from it (docs/protocol.md §8.1).
    fn chain(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        let mut chain = *reader.array::<32>()?;
        reader.u32()?;
        for _ in 0..AHEAD {
            self.add("chain key", &chain);
            self.add(
                "message key",
                &expand(&chain, &info(b"sealwire/1 session message")),
            );
            chain = expand(&chain, &info(b"sealwire/1 session next"));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(&self.counts).finish()
    }
}

impl Store for Recorder {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().unwrap().now.get(key).cloned())
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        let rows = self.0.lock().unwrap();
        let found = rows
            .now
            .iter()
            .filter(|(key, _)| key.starts_with(prefix) && key.as_slice() > after)
            .take(limit);
        Ok(found
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        let mut rows = self.0.lock().unwrap();
        for (key, change) in batch.into_changes() {
            match change {
                Some(value) => {
                    rows.ever.insert((key.clone(), value.clone()));
                    rows.now.insert(key, value);
                }
                None => drop(rows.now.remove(&key)),
            }
        }
        Ok(())
    }
}

fn open(key: &[u8; 32], iv: &[u8], sealed: &[u8], aad: &[u8]) -> Vec<u8> {
    let iv: [u8; 12] = iv.try_into().unwrap();
    let payload = Payload { msg: sealed, aad };
    Aes256Gcm::new(key.into())
        .decrypt(&Nonce::from(iv), payload)
        .expect("the device's key opens its store")
}

fn expand(key: &[u8; 32], info: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    Hkdf::<Sha256>::from_prk(key)
        .unwrap()
        .expand(info, &mut out)
        .unwrap();
    out
}

/// A label with an empty context (docs/protocol.md §1.3).
fn info(label: &[u8]) -> Vec<u8> {
    let mut info = vec![u8::try_from(label.len()).unwrap()];
    info.extend_from_slice(label);
    info.push(0);
    info
}
