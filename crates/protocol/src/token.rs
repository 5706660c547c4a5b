//! Access tokens and attestations: the issuer's JWTs, as data (`docs/protocol.md` §2.2, §2.3, RFC 9068, RFC 7800).
//!
//! ```text
//! bytes ── UnverifiedAccessToken ── verify(issuer's keys, policy) ── AccessToken    authorises a link
//! bytes ── UnverifiedAttestation ── verify(issuer's keys, policy) ── Attestation    binds a device to a user
//! ```
//!
//! An access token is also an attestation, but an attestation is never an access token: its `exp` was not looked at. All
//! rules about claims and times live here, once. The signature is checked by whatever implements
//! [`SignatureVerifier`]: [`crate::key_set`] for Ed25519, the `sealwire-jose` crate for the rest.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::{fmt, marker::PhantomData};

use sha2::{Digest, Sha256};

use crate::{
    claims::{self, ClaimDefect, TokenError, refuse},
    json::{Object, Value},
    jws::{JwtType, SignatureVerifier, Signed, UnverifiedJws},
    key::{PublicKey, Thumbprint},
    limits::{CLOCK_TOLERANCE_SECONDS, MAX_NAME_BYTES},
    name::{Issuer, User},
    permissions::Permissions,
};

/// SHA-256 of a credential as it was sent: the `ath` of a device proof (`docs/protocol.md` §3.5, RFC 9449 §4.2).
#[must_use]
pub fn credential_hash(credential: &[u8]) -> [u8; 32] {
    Sha256::digest(credential).into()
}

/// What a token says, strictly typed. By itself it proves nothing.
#[derive(Clone, PartialEq, Eq)]
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
    /// `scope`, `tenant` and `authorization_details`.
    pub permissions: Permissions,
}

/// Shows the device and no person: it may be logged.
impl fmt::Debug for TokenClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClaims")
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
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
    /// How long ago `iat` may be, in seconds: [`MAX_ATTESTATION_AGE_SECONDS`](crate::limits::MAX_ATTESTATION_AGE_SECONDS) by default.
    pub max_age: u64,
}

/// A token that is well formed, and that anybody may have written. `T` is what verification makes of it.
#[derive(Debug)]
pub struct UnverifiedToken<'a, T> {
    jws: UnverifiedJws<'a>,
    claims: TokenClaims,
    hash: [u8; 32],
    verified: PhantomData<fn() -> T>,
}

/// What may be an access token.
pub type UnverifiedAccessToken<'a> = UnverifiedToken<'a, AccessToken>;

/// What may be an attestation.
pub type UnverifiedAttestation<'a> = UnverifiedToken<'a, Attestation>;

impl<'a, T> UnverifiedToken<'a, T> {
    fn read(compact: &'a [u8], expected: &[JwtType]) -> Result<Self, TokenError> {
        let jws = UnverifiedJws::parse(compact, expected)?;
        let claims = TokenClaims::from_payload(jws.payload())?;
        Ok(Self {
            jws,
            claims,
            hash: credential_hash(compact),
            verified: PhantomData,
        })
    }

    /// The claims, which nobody has vouched for yet.
    #[must_use]
    pub const fn claims(&self) -> &TokenClaims {
        &self.claims
    }

    /// `alg`, `kid` and what was signed: to see whether a key set has the key, before verification.
    #[must_use]
    pub fn signed(&self) -> Signed<'_> {
        self.jws.signed()
    }
}

impl<'a> UnverifiedAccessToken<'a> {
    /// Reads a compact JWS of type `at+jwt`: 1 to 8,192 bytes.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1 or which claim of §2.2 is broken. No time is looked at yet.
    pub fn parse(compact: &'a [u8]) -> Result<Self, TokenError> {
        Self::read(compact, &[JwtType::AccessToken])
    }

    /// Checks signature, issuer, audience and times (`docs/protocol.md` §2.2).
    ///
    /// # Errors
    /// Says which check failed: the signature first, as nothing else is true without it.
    pub fn verify(
        self,
        keys: &(impl SignatureVerifier + ?Sized),
        policy: &AccessPolicy<'_>,
    ) -> Result<AccessToken, TokenError> {
        let Self {
            jws, claims, hash, ..
        } = self;
        jws.verify(keys)?;
        claims
            .origin()
            .check(policy.issuer, policy.audience, policy.now)?;
        check_expiry(claims.issued, claims.expires, policy.now)?;
        Ok(AccessToken { claims, hash })
    }
}

/// A token that was verified for access to a relay now: only [`UnverifiedAccessToken::verify`] makes one.
///
/// It always names a device, and is worth nothing without proof of that device's key (`docs/protocol.md` §2.2).
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken {
    claims: TokenClaims,
    hash: [u8; 32],
}

/// Shows the device and no person: it may be logged.
impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken({})", self.claims.device)
    }
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

impl<'a> UnverifiedAttestation<'a> {
    /// Reads a compact JWS of type `sealwire-attestation+jwt` or `at+jwt`: 1 to 8,192 bytes.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1 or which claim of §2.2 is broken. No time is looked at yet.
    pub fn parse(compact: &'a [u8]) -> Result<Self, TokenError> {
        Self::read(compact, &[JwtType::Attestation, JwtType::AccessToken])
    }

    /// Checks signature, issuer, audience and age, but not `exp` (`docs/protocol.md` §2.3).
    ///
    /// # Errors
    /// Says which check failed: the signature first, as nothing else is true without it.
    pub fn verify(
        self,
        keys: &(impl SignatureVerifier + ?Sized),
        policy: &AttestationPolicy<'_>,
    ) -> Result<Attestation, TokenError> {
        let Self {
            jws, claims, hash, ..
        } = self;
        jws.verify(keys)?;
        claims
            .origin()
            .check(policy.issuer, policy.audience, policy.now)?;
        // §2.3
        if policy.now.saturating_sub(claims.issued) > policy.max_age {
            return Err(refuse("iat", ClaimDefect::TooOld));
        }
        let TokenClaims {
            issuer,
            user,
            device,
            issued,
            ..
        } = claims;
        Ok(Attestation {
            issuer,
            user,
            device,
            issued,
            hash,
        })
    }
}

/// The issuer's word that a device is a user's: only [`UnverifiedAttestation::verify`] makes one.
#[derive(Clone, PartialEq, Eq)]
pub struct Attestation {
    issuer: Issuer,
    user: User,
    device: Thumbprint,
    issued: u64,
    hash: [u8; 32],
}

/// Shows the device and no person: it may be logged.
impl fmt::Debug for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attestation({})", self.device)
    }
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

impl TokenClaims {
    /// Types and forms of `docs/protocol.md` §2.2. What a claim says is compared with nothing yet.
    fn from_payload(payload: &Object) -> Result<Self, TokenError> {
        let issuer = issuer(payload)?;
        let user = claims::text(payload, "sub")?;
        let id = token_id(payload)?;
        let user = User::new(user).map_err(|error| TokenError::Name {
            claim: "sub",
            error,
        })?;
        let claims = Self {
            issuer,
            user,
            audience: audience(payload)?,
            expires: claims::integer(payload, "exp")?,
            issued: claims::integer(payload, "iat")?,
            not_before: claims::optional(payload, "nbf", claims::integer)?,
            id,
            device: device(payload)?,
            permissions: Permissions::from_claims(payload)?,
        };
        // §5.7
        match &claims.permissions.tenant {
            Some(tenant) if !tenant.includes(&claims.user) => {
                Err(refuse("tenant", ClaimDefect::Mismatch))
            }
            Some(_) | None => Ok(claims),
        }
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            issuer: &self.issuer,
            audience: &self.audience,
            issued: self.issued,
            not_before: self.not_before,
        }
    }
}

/// What all tokens of issuers have in common (§2.2, §2.3, §3.7): from whom, for whom, and not from the future.
pub(crate) struct Origin<'a> {
    pub(crate) issuer: &'a Issuer,
    pub(crate) audience: &'a [String],
    pub(crate) issued: u64,
    pub(crate) not_before: Option<u64>,
}

impl Origin<'_> {
    pub(crate) fn check(
        &self,
        issuer: &Issuer,
        audience: &str,
        now: u64,
    ) -> Result<(), TokenError> {
        if self.issuer != issuer {
            return Err(refuse("iss", ClaimDefect::Mismatch));
        }
        if !self.audience.iter().any(|entry| entry == audience) {
            return Err(refuse("aud", ClaimDefect::Mismatch));
        }
        let latest = now.saturating_add(CLOCK_TOLERANCE_SECONDS);
        if self.issued > latest {
            return Err(refuse("iat", ClaimDefect::InFuture));
        }
        if self
            .not_before
            .is_some_and(|not_before| not_before > latest)
        {
            return Err(refuse("nbf", ClaimDefect::InFuture));
        }
        Ok(())
    }
}

/// `exp`, after `iat` and not over (§2.2).
pub(crate) fn check_expiry(issued: u64, expires: u64, now: u64) -> Result<(), TokenError> {
    if expires <= issued {
        return Err(refuse("exp", ClaimDefect::Invalid));
    }
    if now >= expires.saturating_add(CLOCK_TOLERANCE_SECONDS) {
        return Err(refuse("exp", ClaimDefect::Expired));
    }
    Ok(())
}

/// `iss`
pub(crate) fn issuer(payload: &Object) -> Result<Issuer, TokenError> {
    let issuer = claims::text(payload, "iss")?;
    Issuer::new(issuer).map_err(|error| TokenError::Name {
        claim: "iss",
        error,
    })
}

/// `jti`, if there is one.
pub(crate) fn token_id(payload: &Object) -> Result<Option<Box<str>>, TokenError> {
    let id = claims::optional(payload, "jti", claims::text)?;
    if id.is_some_and(|id| id.len() > MAX_NAME_BYTES) {
        return Err(refuse("jti", ClaimDefect::Invalid));
    }
    Ok(id.map(Into::into))
}

/// `aud`: a string or an array of strings (RFC 7519 §4.1.3).
pub(crate) fn audience(payload: &Object) -> Result<Vec<String>, TokenError> {
    let aud = claims::value(payload, "aud")?;
    let entries = if let Value::Array(entries) = aud {
        entries
    } else {
        core::slice::from_ref(aud)
    };
    let string = |entry: &Value| {
        if let Value::String(entry) = entry {
            Ok(entry.clone())
        } else {
            Err(refuse("aud", ClaimDefect::WrongType))
        }
    };
    entries.iter().map(string).collect()
}

/// `cnf`: `jwk` (RFC 7800 §3.2) or `jkt` (RFC 9449 §6.1), not both.
pub(crate) fn device(payload: &Object) -> Result<Thumbprint, TokenError> {
    let Value::Object(cnf) = claims::value(payload, "cnf")? else {
        return Err(refuse("cnf", ClaimDefect::WrongType));
    };
    match (cnf.member("jwk"), cnf.member("jkt")) {
        (Some(Value::Object(jwk)), None) => PublicKey::from_jwk(jwk)
            .map(|key| key.thumbprint())
            .map_err(TokenError::DeviceKey),
        (Some(_), None) => Err(refuse("cnf", ClaimDefect::WrongType)),
        (None, Some(_)) => claims::thumbprint(cnf, "jkt"),
        (None, None) | (Some(_), Some(_)) => Err(refuse("cnf", ClaimDefect::Invalid)),
    }
}
