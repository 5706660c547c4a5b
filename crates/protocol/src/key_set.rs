//! An issuer's Ed25519 keys, for whoever verifies tokens without a general JOSE library: the devices.

use alloc::{boxed::Box, vec::Vec};

use crate::{
    json::{JsonError, Object, Value},
    jws::{SignatureError, SignatureVerifier, Signed},
    key::{JwkError, PublicKey},
};

/// Longest JWK set that is read, in bytes.
const MAX_KEY_SET: usize = 65_536;

/// Why a JWK set is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// Longer than 65,536 bytes.
    #[error("the JWK set is longer than 65536 bytes")]
    TooLong,
    /// Not acceptable JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// There is no `keys` array of objects (RFC 7517 §5).
    #[error("the JWK set has no \"keys\" array of objects")]
    NoKeys,
    /// An Ed25519 key is not usable.
    #[error(transparent)]
    Jwk(#[from] JwkError),
    /// A `kid` is not a string of at most 255 bytes.
    #[error("a \"kid\" is not a string of at most 255 bytes")]
    Kid,
    /// Two keys have the same `kid`.
    #[error("two keys of the set have the same \"kid\"")]
    DuplicateKid,
}

/// Ed25519 keys of one issuer, each with its `kid` if it has one.
#[derive(Clone, Debug, Default)]
pub struct Ed25519KeySet {
    keys: Vec<(Option<Box<str>>, PublicKey)>,
}

impl Ed25519KeySet {
    /// One key, without a `kid`: tokens signed by it are accepted with any `kid` or none.
    #[must_use]
    pub fn single(key: PublicKey) -> Self {
        Self { keys: alloc::vec![(None, key)] }
    }

    /// Reads a JWK set (RFC 7517 §5). Keys of other types are ignored.
    ///
    /// # Errors
    /// Says what is wrong with the set or one of its Ed25519 keys.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeySetError> {
        let _ = json;
        todo!()
    }
}

impl SignatureVerifier for Ed25519KeySet {
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        let _ = signed;
        todo!()
    }
}
