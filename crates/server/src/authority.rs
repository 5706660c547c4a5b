//! Whose tokens count.
//!
//! A relay has one issuer: either the one built in, or the operator's identity provider. A user name has a meaning only within its issuer, so
//! two issuers would be two relays. The keys are behind [`SignatureVerifier`], whatever library implements it.
use std::fmt;
use std::sync::Arc;

use sealwire_protocol::TokenError;
use sealwire_protocol::jws::SignatureVerifier;
use sealwire_protocol::limits::MAX_ATTESTATION_AGE_SECONDS;
use sealwire_protocol::name::Issuer;
use sealwire_protocol::token::{
    AccessPolicy, AccessToken, Attestation, AttestationPolicy, UnverifiedAccessToken,
    UnverifiedAttestation,
};

/// The issuer whose tokens a relay accepts.
pub(crate) struct Authority {
    issuer: Issuer,
    audience: Box<str>,
    keys: Arc<dyn SignatureVerifier + Send + Sync>,
}

/// A token that came in the upgrade request and is good. Despite the header's name it lets nobody in: possession is still to be proved
/// (docs/protocol.md §2.2).
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) verified: AccessToken,
}

impl Authority {
    /// Accepts tokens of `issuer` for `audience`, signed with one of `keys`.
    pub(crate) fn new(
        issuer: Issuer,
        audience: &str,
        keys: Arc<dyn SignatureVerifier + Send + Sync>,
    ) -> Self {
        Self {
            issuer,
            audience: audience.into(),
            keys,
        }
    }

    /// Verifies an access token (docs/protocol.md §2.2). `now` is in seconds since 1970.
    pub(crate) fn verify(&self, token: &[u8], now: u64) -> Result<AccessToken, TokenError> {
        let policy = AccessPolicy {
            issuer: &self.issuer,
            audience: &self.audience,
            now,
        };
        UnverifiedAccessToken::parse(token)?.verify(&*self.keys, &policy)
    }

    /// Verifies the token of an upgrade request (docs/protocol.md §3.1).
    pub(crate) fn bearer(&self, token: &str, now: u64) -> Result<Bearer, TokenError> {
        Ok(Bearer {
            verified: self.verify(token.as_bytes(), now)?,
        })
    }

    /// Verifies what binds a device to a user in a card (docs/protocol.md §2.3).
    pub(crate) fn attestation(
        &self,
        attestation: &[u8],
        now: u64,
    ) -> Result<Attestation, TokenError> {
        let policy = AttestationPolicy {
            issuer: &self.issuer,
            audience: &self.audience,
            now,
            max_age: MAX_ATTESTATION_AGE_SECONDS,
        };
        UnverifiedAttestation::parse(attestation)?.verify(&*self.keys, &policy)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
