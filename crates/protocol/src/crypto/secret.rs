//! Secret bytes.

use core::fmt;

use rand_core::CryptoRng;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// `N` secret bytes: erased on drop, compared in constant time, never shown, never copied by accident.
///
/// Wrap it in a type of your own that says what the secret is for.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret<const N: usize>([u8; N]);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over and erases `source`.
    #[must_use]
    pub fn take(source: &mut [u8; N]) -> Self {
        let secret = Self(*source);
        source.zeroize();
        secret
    }

    /// Copies the bytes, if there are exactly `N`. Erasing the source is the caller's business.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Fresh random bytes.
    pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::fill(|bytes| rng.fill_bytes(bytes))
    }

    /// Lets `write` fill the bytes in place, so that no other copy of them exists.
    pub(crate) fn fill(write: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self([0; N]);
        write(&mut secret.0);
        secret
    }

    /// The bytes, for the one place that needs them: a cipher, or the encrypted store.
    #[must_use]
    pub const fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn debug_shows_nothing_secret() {
        let secret = Secret::take(&mut [0xab; 32]);
        assert_eq!(format!("{secret:?}"), "Secret<32>(..)");
    }

    #[test]
    fn taking_erases_the_source() {
        let mut source = [7; 16];
        let secret = Secret::take(&mut source);
        assert_eq!(source, [0; 16]);
        assert_eq!(secret.expose(), &[7; 16]);
    }

    #[test]
    fn a_slice_of_another_length_is_refused() {
        assert_eq!(Secret::<4>::from_slice(&[0; 3]), None);
        assert_eq!(Secret::<4>::from_slice(&[0; 5]), None);
    }

    #[test]
    fn secrets_differ_if_any_bit_does() {
        for bit in 0..256 {
            let mut bytes = [0; 32];
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Secret::take(&mut bytes), Secret::take(&mut [0; 32]));
        }
    }
}
