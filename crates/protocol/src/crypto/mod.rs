//! The one suite, behind types that cannot be misused by accident (docs/protocol.md §1.3).
//!
//! ```text
//! X25519 ─┐
//!         ├─> Prk::extract ──> Prk ── expand(label, context) ──> Secret<N> ──> AeadKey
//! ML-KEM ─┘
//! ```
//!
//! There is no negotiation and no algorithm parameter: what is here is what version 1 of the protocol uses. Labels and
//! the order of derivations are for the key schedules that use these types; Ed25519 is in [`crate::key`].

mod aead;
mod kdf;
mod kem;
mod secret;
mod x25519;

pub use aead::{AeadError, AeadKey, NONCE_BYTES, TAG_BYTES};
pub use kdf::{Label, Prk};
pub use kem::{
    InvalidKemKey, KEM_CIPHERTEXT_BYTES, KEM_KEY_BYTES, KemDecapsulationKey, KemEncapsulationKey,
};
pub use secret::Secret;
pub use x25519::{LowOrder, X25519PublicKey, X25519Secret};

use sha2::{Digest as _, Sha256};

/// SHA-256 of the concatenation of `parts`.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
