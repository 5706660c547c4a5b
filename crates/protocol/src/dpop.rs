//! DPoP proofs (RFC 9449): that who sends an HTTP request holds the key of its token's `cnf` (`docs/protocol.md` §18.1).
//!
//! ```text
//! bytes ── UnverifiedDpopProof ── verify(token, request, time) ── DpopProof      says which key has signed this very request
//! ```
//!
//! A proof is as good as its use is single: remembering its id is left to the relay.

use alloc::{boxed::Box, string::String, vec::Vec};
use core::fmt;

use crate::{
    claims::{self, ClaimDefect, TokenError, refuse},
    crypto::sha256,
    json::{Object, Value},
    jws::{JwsError, Parts, SignatureVerifier, Signed, is_type},
    key::{JwkError, PublicKey, Thumbprint},
    limits::{CLOCK_TOLERANCE_SECONDS, MAX_NAME_BYTES, MAX_PROOF_BYTES},
};

const TYP: &str = "dpop+jwt";

/// The request that a proof is for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// The host that it is for, with the port where it is not the scheme's own.
    pub host: &'a str,
    /// Its path, as it was sent.
    pub path: &'a str,
}

/// A proof that is well formed, and that anybody may have written.
pub struct UnverifiedDpopProof<'a> {
    key: PublicKey,
    alg: String,
    signing_input: &'a [u8],
    signature: Vec<u8>,
    method: String,
    uri: String,
    token_hash: [u8; 32],
    id: Box<str>,
    issued: u64,
}

/// A proof that was verified: only [`UnverifiedDpopProof::verify`] makes one.
#[derive(Debug, PartialEq, Eq)]
pub struct DpopProof {
    device: Thumbprint,
    id: [u8; 32],
}

/// Why a proof is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DpopError {
    /// It is no strict JWS, a claim is not as it has to be, or the signature does not fit.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The header is not exactly `typ`, `alg` and `jwk`.
    #[error(
        "the header of a DPoP proof has to be \"typ\": \"dpop+jwt\", \"alg\" and \"jwk\", and nothing else"
    )]
    Header,
    /// The key in it cannot be a device's.
    #[error("the \"jwk\" of the DPoP proof is no usable key: {0}")]
    Key(JwkError),
}

impl From<JwsError> for DpopError {
    fn from(error: JwsError) -> Self {
        Self::Token(error.into())
    }
}

impl<'a> UnverifiedDpopProof<'a> {
    /// Reads a compact JWS of at most 2,048 bytes.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1 or §18.1 is broken.
    pub fn parse(compact: &'a [u8]) -> Result<Self, DpopError> {
        let parts = Parts::split(compact, MAX_PROOF_BYTES)?;
        let (key, alg) = read_header(&parts.header()?)?;
        let payload = parts.payload()?;
        let id = claims::text(&payload, "jti")?;
        if id.is_empty() || id.len() > MAX_NAME_BYTES {
            return Err(refuse("jti", ClaimDefect::Invalid).into());
        }
        Ok(Self {
            key,
            alg,
            signing_input: parts.signing_input,
            signature: parts.signature()?,
            method: claims::text(&payload, "htm")?.into(),
            uri: claims::text(&payload, "htu")?.into(),
            token_hash: claims::bytes(&payload, "ath")?,
            id: id.into(),
            issued: claims::integer(&payload, "iat")?,
        })
    }

    /// Checks the signature by the proof's own key, and that the proof is for this request, this token and this time (RFC 9449 §4.3). `now` is in seconds
    /// since 1970.
    ///
    /// # Errors
    /// Says which check failed.
    pub fn verify(
        self,
        token: &[u8],
        request: Request<'_>,
        now: u64,
    ) -> Result<DpopProof, DpopError> {
        let signed = Signed {
            alg: &self.alg,
            kid: None,
            signing_input: self.signing_input,
            signature: &self.signature,
        };
        // The key compares `alg` with what it is for.
        SignatureVerifier::verify(&self.key, signed).map_err(TokenError::from)?;
        let mismatch = |claim| Err(refuse(claim, ClaimDefect::Mismatch).into());
        if self.method != request.method {
            return mismatch("htm");
        }
        if !is_uri_of(&self.uri, request.host, request.path) {
            return mismatch("htu");
        }
        if self.token_hash != sha256(&[token]) {
            return mismatch("ath");
        }
        if self.issued > now.saturating_add(CLOCK_TOLERANCE_SECONDS) {
            return Err(refuse("iat", ClaimDefect::InFuture).into());
        }
        if now.saturating_sub(self.issued) > CLOCK_TOLERANCE_SECONDS {
            return Err(refuse("iat", ClaimDefect::TooOld).into());
        }
        let device = self.key.thumbprint();
        Ok(DpopProof {
            id: sha256(&[device.as_bytes(), self.id.as_bytes()]),
            device,
        })
    }
}

impl DpopProof {
    /// Whose key has signed it.
    #[must_use]
    pub const fn device(&self) -> Thumbprint {
        self.device
    }

    /// What tells the proof from every other: a hash of the key and `jti`.
    #[must_use]
    pub const fn id(&self) -> &[u8; 32] {
        &self.id
    }
}

impl fmt::Debug for UnverifiedDpopProof<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnverifiedDpopProof({})", self.key.thumbprint())
    }
}

/// RFC 9449 §4.2, and nothing that it does not ask for.
fn read_header(header: &Object) -> Result<(PublicKey, String), DpopError> {
    let (Some(Value::String(typ)), Some(Value::String(alg)), Some(Value::Object(jwk)), 3) = (
        header.member("typ"),
        header.member("alg"),
        header.member("jwk"),
        header.len(),
    ) else {
        return Err(DpopError::Header);
    };
    if !is_type(typ, TYP) {
        return Err(JwsError::UnexpectedType.into());
    }
    let key = PublicKey::from_jwk(jwk).map_err(DpopError::Key)?;
    Ok((key, alg.clone()))
}

/// Whether `htu` names this host and path. The scheme is whoever's business ends TLS; query and fragment do not count (RFC 9449 §4.3).
fn is_uri_of(uri: &str, host: &str, path: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else {
        return false;
    };
    let port = if scheme.eq_ignore_ascii_case("https") {
        ":443"
    } else if scheme.eq_ignore_ascii_case("http") {
        ":80"
    } else {
        return false;
    };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, uri_path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let bare =
        |host: &'_ str| -> String { host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase() };
    !authority.is_empty() && bare(authority) == bare(host) && uri_path == path
}

#[cfg(test)]
mod tests;
