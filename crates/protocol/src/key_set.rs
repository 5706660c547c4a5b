//! An issuer's Ed25519 keys, for whoever verifies tokens without a general JOSE library: the devices.

use alloc::{boxed::Box, vec::Vec};

use crate::{
    json::{JsonError, Object, Value},
    jws::{SignatureError, SignatureVerifier, Signed},
    key::{JwkError, PublicKey},
    limits::MAX_NAME_BYTES,
};

/// Longest JWK set that is read, in bytes. The protocol has no number for it: it is this verifier's configuration.
const MAX_KEY_SET_BYTES: usize = 65_536;

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
        Self {
            keys: alloc::vec![(None, key)],
        }
    }

    /// Reads a JWK set (RFC 7517 §5). Keys of other types are ignored.
    ///
    /// # Errors
    /// Says what is wrong with the set or one of its Ed25519 keys.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeySetError> {
        if json.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLong);
        }
        let set = Object::parse(json)?;
        let Some(Value::Array(entries)) = set.member("keys") else {
            return Err(KeySetError::NoKeys);
        };
        let mut keys = Vec::new();
        for entry in entries {
            let Value::Object(jwk) = entry else {
                return Err(KeySetError::NoKeys);
            };
            let key = match PublicKey::from_jwk(jwk) {
                // RFC 7517 §5: what is not understood is ignored.
                Err(JwkError::NotEd25519) => continue,
                key => key?,
            };
            let kid: Option<Box<str>> = match jwk.member("kid") {
                None => None,
                Some(Value::String(kid)) if kid.len() <= MAX_NAME_BYTES => {
                    Some(kid.as_str().into())
                }
                Some(_) => return Err(KeySetError::Kid),
            };
            if kid.is_some() && keys.iter().any(|(known, _)| *known == kid) {
                return Err(KeySetError::DuplicateKid);
            }
            keys.push((kid, key));
        }
        Ok(Self { keys })
    }

    /// `docs/protocol.md` §2.2: where the set has `kid`s, a token's `kid` names one of them; otherwise there is exactly one key.
    fn key(&self, kid: Option<&str>) -> Result<&PublicKey, SignatureError> {
        let named = self.keys.iter().any(|(kid, _)| kid.is_some());
        if let Some(kid) = kid.filter(|_| named) {
            let key = self
                .keys
                .iter()
                .find(|(known, _)| known.as_deref() == Some(kid));
            return key.map(|(_, key)| key).ok_or(SignatureError::UnknownKey);
        }
        match self.keys.as_slice() {
            [] => Err(SignatureError::UnknownKey),
            [(_, key)] => Ok(key),
            _ => Err(SignatureError::AmbiguousKey),
        }
    }
}

impl SignatureVerifier for Ed25519KeySet {
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        SignatureVerifier::verify(self.key(signed.kid)?, signed)
    }
}
