//! Claims, read by name and strictly typed (`docs/protocol.md` §2.1): a claim of another type is refused, never taken as absent.

use core::str::FromStr;

use crate::{
    base64url,
    json::{Object, Value},
    jws::{JwsError, SignatureError},
    key::{JwkError, Thumbprint},
    limits::MAX_TIME_SECONDS,
    name::NameError,
};

/// Why a JWT is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Malformed before any claim was looked at.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// No key accepts the signature.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// A claim is not as it has to be.
    #[error("the claim {claim:?} {defect}")]
    Claim {
        /// Which claim.
        claim: &'static str,
        /// What is wrong with it.
        defect: ClaimDefect,
    },
    /// A user or an issuer has a name that it cannot have (`docs/protocol.md` §1.2).
    #[error("the claim {claim:?} is not a name: {error}")]
    Name {
        /// Which claim.
        claim: &'static str,
        /// What is wrong with the name.
        error: NameError,
    },
    /// The key in `cnf.jwk` cannot be a device's.
    #[error("the claim \"cnf\" has no usable key: {0}")]
    DeviceKey(JwkError),
    /// An ID token (OpenID Connect) where an access token has to be (§3.7).
    #[error(
        "the token is an ID token, which says to an application who has signed in: present an access token, or allow ID tokens for this issuer"
    )]
    IdToken,
    /// A token to be exchanged that is for something else than access or signing in (§3.7).
    #[error(
        "the token is one to refresh with, to sign out or of an event: present an access token"
    )]
    AnotherPurpose,
    /// A token to be exchanged that is bound to another key than that of the device that presents it (§3.7).
    #[error("the claim \"cnf\" names another key than that of the device that presents the token")]
    BoundElsewhere,
    /// One of Sealwire's own JWTs has a claim that is not listed for it (`docs/protocol.md` §2.1).
    #[error("there is a claim that is not listed for this type of JWT")]
    UnlistedClaim,
}

/// What is wrong with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimDefect {
    /// Required and not there.
    #[error("is missing")]
    Missing,
    /// Of another JSON type or form than the one required; for a time, not an integer from 0 to 2^53−1 in plain digits.
    #[error("is of the wrong JSON type or form")]
    WrongType,
    /// Of the right type, but not a value that the claim can have.
    #[error("has a value it cannot have")]
    Invalid,
    /// Not the value expected here: meant for somebody else, or for another occasion.
    #[error("is not the one expected here")]
    Mismatch,
    /// In the past, by more than the tolerance.
    #[error("is over: get a new one, and check the clock")]
    Expired,
    /// In the future, by more than the tolerance.
    #[error("lies in the future: check the clocks")]
    InFuture,
    /// Longer ago than the verifier accepts.
    #[error("is too long ago")]
    TooOld,
}

pub(crate) const fn refuse(claim: &'static str, defect: ClaimDefect) -> TokenError {
    TokenError::Claim { claim, defect }
}

/// A claim that has to be there, as a JSON value.
pub(crate) fn value<'o>(claims: &'o Object, name: &'static str) -> Result<&'o Value, TokenError> {
    claims
        .member(name)
        .ok_or(refuse(name, ClaimDefect::Missing))
}

/// A string claim.
pub(crate) fn text<'o>(claims: &'o Object, name: &'static str) -> Result<&'o str, TokenError> {
    let Value::String(text) = value(claims, name)? else {
        return Err(refuse(name, ClaimDefect::WrongType));
    };
    Ok(text)
}

/// An integer claim from 0 to 2^53−1, with neither fraction nor exponent: every time is one.
pub(crate) fn integer(claims: &Object, name: &'static str) -> Result<u64, TokenError> {
    if let Value::Integer(integer) = value(claims, name)?
        && *integer <= MAX_TIME_SECONDS
    {
        return Ok(*integer);
    }
    Err(refuse(name, ClaimDefect::WrongType))
}

/// An integer claim from 1 to 2^53−1.
pub(crate) fn positive(claims: &Object, name: &'static str) -> Result<u64, TokenError> {
    match integer(claims, name)? {
        0 => Err(refuse(name, ClaimDefect::Invalid)),
        positive => Ok(positive),
    }
}

/// An array claim.
pub(crate) fn array<'o>(claims: &'o Object, name: &'static str) -> Result<&'o [Value], TokenError> {
    let Value::Array(items) = value(claims, name)? else {
        return Err(refuse(name, ClaimDefect::WrongType));
    };
    Ok(items)
}

/// Reads a claim that may be absent.
pub(crate) fn optional<'o, T>(
    claims: &'o Object,
    name: &'static str,
    read: impl FnOnce(&'o Object, &'static str) -> Result<T, TokenError>,
) -> Result<Option<T>, TokenError> {
    claims.member(name).map(|_| read(claims, name)).transpose()
}

/// A string claim that is the canonical base64url of exactly `N` bytes.
pub(crate) fn bytes<const N: usize>(
    claims: &Object,
    name: &'static str,
) -> Result<[u8; N], TokenError> {
    base64url::decode_array(text(claims, name)?.as_bytes())
        .map_err(|_| refuse(name, ClaimDefect::Invalid))
}

/// A string claim that is a thumbprint.
pub(crate) fn thumbprint(claims: &Object, name: &'static str) -> Result<Thumbprint, TokenError> {
    Thumbprint::from_str(text(claims, name)?).map_err(|_| refuse(name, ClaimDefect::Invalid))
}
