//! Tokens of identity providers that know nothing of Sealwire, to be exchanged for access tokens (`docs/protocol.md` §3.7).
//!
//! ```text
//! bytes ── UnverifiedProviderToken ── verify(provider's keys, policy) ── ProviderToken    says who signed in, to whoever maps its claims
//! ```
//!
//! They are read as strictly as access tokens but for three things: `typ` is what the provider writes there, `cnf` may be missing, and nobody says
//! which claim is the user. It is no access token and never becomes one: what its claims come to is for the relay to decide.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;

use crate::{
    base64url,
    claims::{self, ClaimDefect, TokenError, refuse},
    crypto::sha256,
    json::{Object, Value},
    jws::{Fields, JwsError, Parts, SignatureVerifier, Signed, is_type},
    key::Thumbprint,
    limits::MAX_TOKEN_BYTES,
    name::Issuer,
    permissions::Permissions,
    token::{self, Origin},
};

/// Claims that only an ID token has (OpenID Connect Core 1.0 §3.1.3.6, §3.3.2.11).
const ID_TOKEN_CLAIMS: [&str; 3] = ["at_hash", "c_hash", "s_hash"];
/// The claim `typ` of some providers' ID tokens.
const ID_TOKEN: &str = "ID";
/// The same of tokens that tell nobody who has signed in.
const OTHER_PURPOSES: [&str; 3] = ["Refresh", "Offline", "Logout"];
/// What a security event token has, as one that says who has signed out (RFC 8417 §2.2, OpenID Connect Back-Channel Logout 1.0 §2.4).
const EVENTS: &str = "events";

/// What a relay expects of a provider's token.
#[derive(Clone, Copy, Debug)]
pub struct ProviderPolicy<'a> {
    /// The provider: `iss` has to equal it.
    pub issuer: &'a Issuer,
    /// What `aud` has to contain.
    pub audience: &'a str,
    /// What the header's `typ` may be, compared as in `docs/protocol.md` §2.1, 5; an empty text: there is none.
    pub types: &'a [Box<str>],
    /// Whether an ID token will do: one that says that it is. Everything else is checked all the same.
    pub id_tokens: bool,
    /// The device that presents it, and has proved its key: `cnf`, where there is one, has to name it.
    pub device: Thumbprint,
    /// How long ago `iat` may be, in seconds.
    pub max_age: u64,
    /// The time, in seconds since 1970.
    pub now: u64,
}

/// A provider's token that is well formed, and that anybody may have written.
pub struct UnverifiedProviderToken<'a> {
    fields: Fields,
    signing_input: &'a [u8],
    signature: Vec<u8>,
    audience: Vec<String>,
    not_before: Option<u64>,
    token: ProviderToken,
}

/// A provider's token that was verified: only [`UnverifiedProviderToken::verify`] makes one.
pub struct ProviderToken {
    issuer: Issuer,
    issued: u64,
    expires: u64,
    id: Box<str>,
    device: Option<Thumbprint>,
    details: Permissions,
    payload: Object,
}

impl<'a> UnverifiedProviderToken<'a> {
    /// Reads a compact JWS of 1 to 8,192 bytes, of any type.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1 or which claim of §3.7 is broken. No time is looked at yet.
    pub fn parse(compact: &'a [u8]) -> Result<Self, TokenError> {
        let parts = Parts::split(compact, MAX_TOKEN_BYTES)?;
        let fields = Fields::read(&parts.header()?, false)?;
        let payload = parts.payload()?;
        let id = match token::token_id(&payload)? {
            // It could not be revoked.
            Some(id) if id.is_empty() => return Err(refuse("jti", ClaimDefect::Invalid)),
            Some(id) => id,
            // Without the signature: of some algorithms, anybody can make a second one from the first.
            None => base64url::encode(&sha256(&[parts.signing_input])).into(),
        };
        Ok(Self {
            fields,
            signing_input: parts.signing_input,
            signature: parts.signature()?,
            audience: token::audience(&payload)?,
            not_before: claims::optional(&payload, "nbf", claims::integer)?,
            token: ProviderToken {
                issuer: token::issuer(&payload)?,
                issued: claims::integer(&payload, "iat")?,
                expires: claims::integer(&payload, "exp")?,
                id,
                device: claims::optional(&payload, "cnf", |payload, _| token::device(payload))?,
                details: Permissions::from_details(&payload)?,
                payload,
            },
        })
    }

    /// Who is said to have issued it: to find the keys to verify it with.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.token.issuer
    }

    /// Checks type, signature, issuer, audience, times, purpose and device (`docs/protocol.md` §3.7).
    ///
    /// # Errors
    /// Says which check failed: of those behind the signature none is made before it.
    pub fn verify(
        self,
        keys: &(impl SignatureVerifier + ?Sized),
        policy: &ProviderPolicy<'_>,
    ) -> Result<ProviderToken, TokenError> {
        let Self {
            fields,
            signing_input,
            signature,
            audience,
            not_before,
            token,
        } = self;
        let fits = |expected: &str| match &fields.typ {
            Some(typ) => !expected.is_empty() && is_type(typ, expected),
            None => expected.is_empty(),
        };
        if !policy.types.iter().any(|expected| fits(expected)) {
            return Err(JwsError::UnexpectedType.into());
        }
        keys.verify(Signed {
            alg: &fields.alg,
            kid: fields.kid.as_deref(),
            signing_input,
            signature: &signature,
        })?;
        let origin = Origin {
            issuer: &token.issuer,
            audience: &audience,
            issued: token.issued,
            not_before,
        };
        origin.check(policy.issuer, policy.audience, policy.now)?;
        token::check_expiry(token.issued, token.expires, policy.now)?;
        if policy.now.saturating_sub(token.issued) > policy.max_age {
            return Err(refuse("iat", ClaimDefect::TooOld));
        }
        if token.is_for_another_purpose() {
            return Err(TokenError::AnotherPurpose);
        }
        if !policy.id_tokens && token.is_id_token() {
            return Err(TokenError::IdToken);
        }
        if token.device.is_some_and(|device| device != policy.device) {
            return Err(TokenError::BoundElsewhere);
        }
        Ok(token)
    }
}

impl ProviderToken {
    /// All claims.
    #[must_use]
    pub const fn claims(&self) -> &Object {
        &self.payload
    }

    /// `iat`, in seconds since 1970.
    #[must_use]
    pub const fn issued(&self) -> u64 {
        self.issued
    }

    /// `exp`, likewise.
    #[must_use]
    pub const fn expires(&self) -> u64 {
        self.expires
    }

    /// `jti`, 1 to 255 bytes; where there is none, `b64u(SHA-256(the token up to and without its last dot))`.
    #[must_use]
    pub const fn id(&self) -> &str {
        &self.id
    }

    /// What its `authorization_details` say, and nothing else of it: neither scopes nor a tenant.
    #[must_use]
    pub const fn details(&self) -> &Permissions {
        &self.details
    }

    fn is_for_another_purpose(&self) -> bool {
        OTHER_PURPOSES.iter().any(|other| self.is_called(other))
            || self.payload.member(EVENTS).is_some()
    }

    /// It says so: no access token has one of these claims.
    fn is_id_token(&self) -> bool {
        let has = |claim: &&str| self.payload.member(claim).is_some();
        self.is_called(ID_TOKEN) || ID_TOKEN_CLAIMS.iter().any(has)
    }

    fn is_called(&self, purpose: &str) -> bool {
        matches!(self.payload.member("typ"), Some(Value::String(typ)) if typ.eq_ignore_ascii_case(purpose))
    }
}

/// Shows nothing of the token: it may be logged.
impl fmt::Debug for UnverifiedProviderToken<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnverifiedProviderToken")
            .field("alg", &self.fields.alg)
            .field("kid", &self.fields.kid)
            .finish_non_exhaustive()
    }
}

/// Likewise.
impl fmt::Debug for ProviderToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderToken(..)")
    }
}

#[cfg(test)]
mod tests;
