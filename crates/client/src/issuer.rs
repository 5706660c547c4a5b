//! Whose word is taken for which device belongs to whom.

use std::sync::Arc;

use sealwire_protocol::invite::{built_in_audience, built_in_issuer};
use sealwire_protocol::jws::SignatureVerifier;
use sealwire_protocol::key::PublicKey;
use sealwire_protocol::key_set::Ed25519KeySet;
use sealwire_protocol::limits;
use sealwire_protocol::name::Issuer;

use crate::error::Misuse;

/// The issuer whose attestations this client accepts for its peers (`docs/protocol.md §2.3`).
#[derive(Clone)]
pub struct TrustedIssuer {
    pub(crate) name: Issuer,
    pub(crate) audience: Arc<str>,
    pub(crate) keys: Arc<dyn SignatureVerifier + Send + Sync>,
    pub(crate) max_age: u64,
}

impl TrustedIssuer {
    /// An issuer with one Ed25519 key of 32 bytes: `name` is its `iss`, `audience` what its tokens have in `aud`.
    pub fn with_key(name: &str, audience: &str, key: &[u8; 32]) -> Result<Self, Misuse> {
        let key = PublicKey::from_bytes(key).map_err(|_| Misuse::IssuerKey)?;
        Self::with_verifier(name, audience, Arc::new(Ed25519KeySet::single(key)))
    }

    /// The built-in issuer of a relay, by its Ed25519 key (`docs/protocol.md §14`).
    pub fn built_in(key: &[u8; 32]) -> Result<Self, Misuse> {
        let issuer = PublicKey::from_bytes(key)
            .map_err(|_| Misuse::IssuerKey)?
            .thumbprint();
        Self::with_key(
            built_in_issuer(&issuer).as_str(),
            &built_in_audience(&issuer),
            key,
        )
    }

    /// An issuer with Ed25519 keys in a JWK set (RFC 7517 §5).
    pub fn with_key_set(name: &str, audience: &str, jwks: &[u8]) -> Result<Self, Misuse> {
        let keys = Ed25519KeySet::from_jwks(jwks).map_err(|_| Misuse::IssuerKey)?;
        Self::with_verifier(name, audience, Arc::new(keys))
    }

    /// An issuer whose signatures something else verifies: other algorithms, or keys that come from elsewhere.
    ///
    /// The token has passed the strict parser before the verifier sees it.
    pub fn with_verifier(
        name: &str,
        audience: &str,
        keys: Arc<dyn SignatureVerifier + Send + Sync>,
    ) -> Result<Self, Misuse> {
        let name = Issuer::new(name).map_err(|_| Misuse::Issuer)?;
        Ok(Self {
            name,
            audience: audience.into(),
            keys,
            max_age: limits::MAX_ATTESTATION_AGE_SECONDS,
        })
    }

    /// How old an attestation may be, in seconds since its `iat`; 30 days by default.
    #[must_use]
    pub fn max_age(mut self, seconds: u64) -> Self {
        self.max_age = seconds;
        self
    }
}

impl std::fmt::Debug for TrustedIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustedIssuer")
            .field("name", &self.name)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
