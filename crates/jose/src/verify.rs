//! Verifying an issuer's tokens: whose they have to be, for whom, and under which keys.

use sealwire_protocol::{
    TokenError,
    limits::MAX_ATTESTATION_AGE_SECONDS,
    name::Issuer,
    token::{
        AccessPolicy, AccessToken, Attestation, AttestationPolicy, UnverifiedAccessToken,
        UnverifiedAttestation,
    },
};

use crate::KeySet;

/// One issuer as an operator configures it: its name, the audience its tokens are for, and its keys.
///
/// ```text
/// token ── strict parser ── signature by a key of the set ── iss, aud, times, cnf ── AccessToken
///          sealwire_protocol   this crate                      sealwire_protocol
/// ```
#[derive(Debug)]
pub struct TokenVerifier {
    issuer: Issuer,
    audience: Box<str>,
    keys: KeySet,
}

impl TokenVerifier {
    /// `audience` is what `aud` has to contain. The allowed algorithms are those of `keys`.
    #[must_use]
    pub fn new(issuer: Issuer, audience: &str, keys: KeySet) -> Self {
        Self {
            issuer,
            audience: audience.into(),
            keys,
        }
    }

    /// Puts other keys in place of the present ones, such as a freshly fetched set.
    pub fn replace_keys(&mut self, keys: KeySet) {
        self.keys = keys;
    }

    /// The issuer.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The audience.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Verifies an access token (`docs/protocol.md` §2.2). `now`: seconds since 1970.
    ///
    /// What it returns is not a bearer token: the caller still has to see proof of the device's key.
    ///
    /// # Errors
    /// Says which rule is broken. [`sealwire_protocol::jws::SignatureError::UnknownKey`] may be cured by newer keys.
    pub fn access_token(&self, compact: &[u8], now: u64) -> Result<AccessToken, TokenError> {
        let policy = AccessPolicy {
            issuer: &self.issuer,
            audience: &self.audience,
            now,
        };
        UnverifiedAccessToken::parse(compact)?.verify(&self.keys, &policy)
    }

    /// Verifies an attestation of at most 30 days (`docs/protocol.md` §2.3). `now`: seconds since 1970.
    ///
    /// # Errors
    /// As [`Self::access_token`].
    pub fn attestation(&self, compact: &[u8], now: u64) -> Result<Attestation, TokenError> {
        let policy = AttestationPolicy {
            issuer: &self.issuer,
            audience: &self.audience,
            now,
            max_age: MAX_ATTESTATION_AGE_SECONDS,
        };
        UnverifiedAttestation::parse(compact)?.verify(&self.keys, &policy)
    }
}
