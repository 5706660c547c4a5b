//! The first row of a store: its version, how the wrapping key is made, and the store's own key, wrapped.
//!
//! ```text
//!  u8 version; u8 kind; (u32 memory KiB; u32 passes; u32 lanes; opaque salt[16] for Argon2id);
//!  opaque iv[12]; AES-256-GCM(wrapping key, iv, AAD = all before the iv, store key)
//! ```
//!
//! | version | |
//! | --- | --- |
//! | 1 | rows sealed one by one; nothing said which rows there are |
//! | 2 | a summary of all rows (`index`); records with a key each (`sealing`) |

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit as _, Nonce};
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::sealing::{IV_LEN, TAG_LEN};
use super::{StoreError, StoreKey};
use crate::store::key::Derivation;

/// Version of the stores that this code writes.
pub(super) const VERSION: u8 = 2;
/// Version of the stores that this code brings up to date.
pub(super) const OLDEST_VERSION: u8 = 1;

/// A store's own key.
pub(super) type Secret = Zeroizing<[u8; 32]>;

/// A new random key for a new store, and the header that holds it.
pub(super) fn create(
    key: &StoreKey,
    rng: &mut impl CryptoRng,
) -> Result<(Vec<u8>, Secret), StoreError> {
    let mut secret = Zeroizing::new([0; 32]);
    rng.fill_bytes(secret.as_mut_slice());
    Ok((wrap(&secret, key, true, rng)?, secret))
}

/// The header that holds the key `secret`. `new` says that there is no store yet.
pub(super) fn wrap(
    secret: &Secret,
    key: &StoreKey,
    new: bool,
    rng: &mut impl CryptoRng,
) -> Result<Vec<u8>, StoreError> {
    let (mut salt, mut iv) = ([0; 16], [0; IV_LEN]);
    rng.fill_bytes(&mut salt);
    rng.fill_bytes(&mut iv);
    let derivation = key.new_derivation(salt);
    let wrapping_key = key.wrapping_key(&derivation, new)?;
    let mut header = encode(VERSION, &derivation);
    #[cfg(feature = "simulation")]
    sealwire_protocol::audit::note(&wrapping_key, &iv);
    let wrapped = Aes256Gcm::new(&Key::<Aes256Gcm>::from(*wrapping_key))
        .encrypt(
            &Nonce::from(iv),
            Payload {
                msg: secret.as_slice(),
                aad: &header,
            },
        )
        .map_err(|_| StoreError::TooLarge)?;
    header.extend_from_slice(&iv);
    header.extend_from_slice(&wrapped);
    Ok(header)
}

/// The store's version and its key.
pub(super) fn unwrap(header: &[u8], key: &StoreKey) -> Result<(u8, Secret), StoreError> {
    let (version, derivation, rest) = decode(header)?;
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
    let mut secret = Zeroizing::new([0; 32]);
    secret.copy_from_slice(&opened);
    Ok((version, secret))
}

fn encode(version: u8, derivation: &Derivation) -> Vec<u8> {
    let mut out = vec![version];
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

fn decode(header: &[u8]) -> Result<(u8, Derivation, &[u8]), StoreError> {
    let (&version, rest) = header.split_first().ok_or(StoreError::Damaged)?;
    if version > VERSION {
        return Err(StoreError::NewerVersion);
    }
    if version < OLDEST_VERSION {
        return Err(StoreError::Damaged);
    }
    let (kind, rest) = rest.split_first().ok_or(StoreError::Damaged)?;
    match kind {
        0 => Ok((version, Derivation::None, rest)),
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
            Ok((version, derivation, rest))
        }
        _ => Err(StoreError::Damaged),
    }
}
