//! One record, sealed to its place.
//!
//! ```text
//!  value = u8 version; opaque salt[12]; opaque iv[12]; AES-256-GCM(key, iv, AAD = row key, record)
//!  key   = HKDF-Expand(record key, "sealwire/1 store record" || salt)
//! ```
//!
//! Salt and iv are random. With a random iv alone a key is worn out after 2^32 records (NIST SP 800-38D §8.3), and every commit writes
//! several; 24 random bytes, half of which choose the key, have no limit that a device could reach (as in XAES-256-GCM).

use aes_gcm::aead::{Aead as _, AeadInOut as _, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit as _, Nonce};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::{StoreError, expand};

/// Version of every record.
pub(super) const VERSION: u8 = 2;
/// Largest record, in bytes: an outbox entry for sixteen devices is the largest there is (3 MiB).
pub(super) const MAX_RECORD: usize = 4 << 20;
pub(super) const IV_LEN: usize = 12;
pub(super) const TAG_LEN: usize = 16;
const SALT_LEN: usize = 12;

/// Seals and opens records.
pub(super) struct Sealing {
    key: Zeroizing<[u8; 32]>,
}

impl Sealing {
    pub(super) fn new(store_key: &[u8; 32]) -> Self {
        Self {
            key: expand(store_key, b"sealwire/1 store record key 2"),
        }
    }

    /// The value that stands for `record` at `row_key`.
    pub(super) fn seal(
        &self,
        row_key: &[u8],
        record: &[u8],
        rng: &mut impl CryptoRng,
    ) -> Result<Vec<u8>, StoreError> {
        if record.len() > MAX_RECORD {
            return Err(StoreError::TooLarge);
        }
        let (mut salt, mut iv) = ([0; SALT_LEN], [0; IV_LEN]);
        rng.fill_bytes(&mut salt);
        rng.fill_bytes(&mut iv);
        let payload = Payload {
            msg: record,
            aad: row_key,
        };
        let key = self.record_key(&salt);
        #[cfg(feature = "simulation")]
        sealwire_protocol::audit::note(&key, &iv);
        let sealed = cipher(&key)
            .encrypt(&Nonce::from(iv), payload)
            .map_err(|_| StoreError::TooLarge)?;
        let mut value = Vec::with_capacity(1 + SALT_LEN + IV_LEN + sealed.len());
        value.push(VERSION);
        value.extend_from_slice(&salt);
        value.extend_from_slice(&iv);
        value.extend_from_slice(&sealed);
        Ok(value)
    }

    /// The record that `value` stands for at `row_key`.
    pub(super) fn open(
        &self,
        row_key: &[u8],
        value: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let (&version, rest) = value.split_first().ok_or(StoreError::Damaged)?;
        let (salt, rest) = rest.split_first_chunk().ok_or(StoreError::Damaged)?;
        if version != VERSION {
            return Err(StoreError::Damaged);
        }
        open_with(&cipher(&self.record_key(salt)), row_key, rest)
    }

    fn record_key(&self, salt: &[u8; SALT_LEN]) -> Zeroizing<[u8; 32]> {
        let mut info = b"sealwire/1 store record".to_vec();
        info.extend_from_slice(salt);
        expand(&self.key, &info)
    }
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key))
}

/// Opens `iv || sealed record`.
pub(super) fn open_with(
    cipher: &Aes256Gcm,
    row_key: &[u8],
    value: &[u8],
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let (iv, sealed) = value
        .split_first_chunk::<IV_LEN>()
        .ok_or(StoreError::Damaged)?;
    if sealed.len() < TAG_LEN || sealed.len() > MAX_RECORD + TAG_LEN {
        return Err(StoreError::Damaged);
    }
    let mut record = Zeroizing::new(sealed.to_vec());
    cipher
        .decrypt_in_place(&Nonce::from(*iv), row_key, &mut *record)
        .map_err(|_| StoreError::Damaged)?;
    Ok(record)
}

#[cfg(all(test, feature = "simulation"))]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;
    use sealwire_protocol::audit;

    use super::*;

    /// Two copies of a store whose randomness repeats would use a key with an iv again: the audit has to notice.
    #[test]
    fn a_record_that_is_sealed_with_the_randomness_of_another_is_counted_as_a_repetition() {
        let sealing = Sealing::new(&[1; 32]);
        let seal = |record: &[u8], rng: &mut StdRng| sealing.seal(b"row", record, rng).unwrap();
        audit::start();
        let mut rng = StdRng::seed_from_u64(1);
        assert_ne!(seal(b"one", &mut rng), seal(b"one", &mut rng));
        assert_eq!((audit::sealed(), audit::repeats()), (2, 0));
        seal(b"another", &mut StdRng::seed_from_u64(1));
        assert_eq!((audit::sealed(), audit::repeats()), (3, 1));
        // The same randomness under another store's key is another key.
        Sealing::new(&[2; 32])
            .seal(b"row", b"one", &mut StdRng::seed_from_u64(1))
            .unwrap();
        assert_eq!((audit::sealed(), audit::repeats()), (4, 1));
    }
}
