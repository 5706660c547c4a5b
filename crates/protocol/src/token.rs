//! Access tokens and attestations: the issuer's JWTs, as data (`docs/protocol.md` §2.2, §2.3, RFC 9068, RFC 7800).
//!
//! ```text
//! bytes ── UnverifiedAccessToken ── verify(issuer's keys, policy) ── AccessToken    authorises a link
//! bytes ── UnverifiedAttestation ── verify(issuer's keys, policy) ── Attestation    binds a device to a user
//! ```
//!
//! An access token is also an attestation, but an attestation is never an access token: its `exp` was not looked at. All
//! rules about claims and times live here, once. The signature is checked by whatever implements
//! [`SignatureVerifier`](crate::jws::SignatureVerifier): [`crate::key_set`] for Ed25519, the `sealwire-jose` crate for the rest.

use alloc::{boxed::Box, string::String, vec::Vec};

use sha2::{Digest, Sha256};

use crate::{
    claims::{self, ClaimDefect, TokenError, refuse},
    json::{Object, Value},
    jws::{JwtType, Signed, SignatureVerifier, UnverifiedJws},
    key::{PublicKey, Thumbprint},
    name::{Issuer, User},
    permissions::Permissions,
};

/// Tolerance between two clocks, in seconds (`docs/protocol.md` §2.2, §12).
pub const CLOCK_TOLERANCE: u64 = 60;
/// Longest `jti`, in bytes (`docs/protocol.md` §12).
const MAX_JTI: usize = 255;
/// How old an attestation may be unless the verifier decides otherwise: 30 days, in seconds (`docs/protocol.md` §2.3).
pub const ATTESTATION_MAX_AGE: u64 = 30 * 24 * 60 * 60;

/// SHA-256 of a credential as it was sent: the `ath` of a device proof (`docs/protocol.md` §3.5, RFC 9449 §4.2).
#[must_use]
pub fn credential_hash(credential: &[u8]) -> [u8; 32] {
    Sha256::digest(credential).into()
}

/// What a token says, strictly typed. By itself it proves nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenClaims {
    /// `iss`
    pub issuer: Issuer,
    /// `sub`: the user.
    pub user: User,
    /// `aud`: for whom it is meant.
    pub audience: Vec<String>,
    /// `exp`, in seconds since 1970, at most 2^53−1.
    pub expires: u64,
    /// `iat`, likewise.
    pub issued: u64,
    /// `nbf`, likewise.
    pub not_before: Option<u64>,
    /// `jti`: at most 255 bytes.
    pub id: Option<Box<str>>,
    /// `cnf`: the thumbprint of the device's key, by `jwk` or `jkt`.
    pub device: Thumbprint,
    /// `scope` and `authorization_details`.
    pub permissions: Permissions,
}

/// What a relay expects of an access token.
#[derive(Clone, Copy, Debug)]
pub struct AccessPolicy<'a> {
    /// The configured issuer: `iss` has to equal it.
    pub issuer: &'a Issuer,
    /// The relay's configured audience: `aud` has to contain it.
    pub audience: &'a str,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// What a device, or a relay that takes a card, expects of an attestation.
#[derive(Clone, Copy, Debug)]
pub struct AttestationPolicy<'a> {
    /// The configured issuer: `iss` has to equal it.
    pub issuer: &'a Issuer,
    /// The configured audience: `aud` has to contain it.
    pub audience: &'a str,
    /// The time, in seconds since 1970.
    pub now: u64,
    /// How long ago `iat` may be, in seconds: [`ATTESTATION_MAX_AGE`] by default.
    pub max_age: u64,
}

/// An access token that is well formed, and that anybody may have written.
#[derive(Debug)]
pub struct UnverifiedAccessToken<'a> {
    token: UnverifiedToken<'a>,
}

impl<'a> UnverifiedAccessToken<'a> {
    /// Reads a compact JWS of type `at+jwt`: 1 to 8,192 bytes.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1 or which claim of §2.2 is broken. No time is looked at yet.
    pub fn parse(compact: &'a [u8]) -> Result<Self, TokenError> {
        let token = UnverifiedToken::parse(compact, &[JwtType::AccessToken])?;
        Ok(Self { token })
    }

    /// The claims, which nobody has vouched for yet.
    #[must_use]
    pub const fn claims(&self) -> &TokenClaims {
        &self.token.claims
    }

    /// `alg`, `kid` and what was signed: to see whether a key set has the key, before [`Self::verify`].
    #[must_use]
    pub fn signed(&self) -> Signed<'_> {
        self.token.jws.signed()
    }

    /// Checks signature, issuer, audience and times (`docs/protocol.md` §2.2).
    ///
    /// # Errors
    /// Says which check failed: the signature first, as nothing else is true without it.
    pub fn verify(self, keys: &(impl SignatureVerifier + ?Sized), policy: &AccessPolicy<'_>) -> Result<AccessToken, TokenError> {
        let _ = (keys, policy);
        todo!()
    }
}

/// A token that was verified for access to a relay now: only [`UnverifiedAccessToken::verify`] makes one.
///
/// It always names a device, and is worth nothing without proof of that device's key (`docs/protocol.md` §2.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    claims: TokenClaims,
    hash: [u8; 32],
}

impl AccessToken {
    /// The claims: what the issuer said.
    #[must_use]
    pub const fn claims(&self) -> &TokenClaims {
        &self.claims
    }

    /// SHA-256 of the compact serialization: the `ath` of a device proof.
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// An attestation that is well formed, and that anybody may have written.
#[derive(Debug)]
pub struct UnverifiedAttestation<'a> {
    token: UnverifiedToken<'a>,
}

impl<'a> UnverifiedAttestation<'a> {
    /// Reads a compact JWS of type `sealwire-attestation+jwt` or `at+jwt`: 1 to 8,192 bytes.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1 or which claim of §2.2 is broken. No time is looked at yet.
    pub fn parse(compact: &'a [u8]) -> Result<Self, TokenError> {
        let token = UnverifiedToken::parse(compact, &[JwtType::Attestation, JwtType::AccessToken])?;
        Ok(Self { token })
    }

    /// The claims, which nobody has vouched for yet.
    #[must_use]
    pub const fn claims(&self) -> &TokenClaims {
        &self.token.claims
    }

    /// `alg`, `kid` and what was signed: to see whether a key set has the key, before [`Self::verify`].
    #[must_use]
    pub fn signed(&self) -> Signed<'_> {
        self.token.jws.signed()
    }

    /// Checks signature, issuer, audience and age, but not `exp` (`docs/protocol.md` §2.3).
    ///
    /// # Errors
    /// Says which check failed: the signature first, as nothing else is true without it.
    pub fn verify(self, keys: &(impl SignatureVerifier + ?Sized), policy: &AttestationPolicy<'_>) -> Result<Attestation, TokenError> {
        let _ = (keys, policy);
        todo!()
    }
}

/// The issuer's word that a device is a user's: only [`UnverifiedAttestation::verify`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    issuer: Issuer,
    user: User,
    device: Thumbprint,
    issued: u64,
    hash: [u8; 32],
}

impl Attestation {
    /// Who says so.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whose device it is.
    #[must_use]
    pub const fn user(&self) -> &User {
        &self.user
    }

    /// Which device it is: compare it with the key at hand.
    #[must_use]
    pub const fn device(&self) -> Thumbprint {
        self.device
    }

    /// When it was said: `iat`, in seconds since 1970.
    #[must_use]
    pub const fn issued(&self) -> u64 {
        self.issued
    }

    /// SHA-256 of the compact serialization (`docs/protocol.md` §7.1).
    #[must_use]
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

/// What both kinds have in common.
#[derive(Debug)]
struct UnverifiedToken<'a> {
    jws: UnverifiedJws<'a>,
    claims: TokenClaims,
    hash: [u8; 32],
}

impl<'a> UnverifiedToken<'a> {
    fn parse(compact: &'a [u8], expected: &[JwtType]) -> Result<Self, TokenError> {
        let _ = (compact, expected);
        todo!()
    }
}
