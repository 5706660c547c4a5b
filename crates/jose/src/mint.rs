//! Making an issuer's tokens: for the relay's built-in issuer, for tests, and for `sealwire token mint`.

use core::fmt;

use josekit::jws::JwsSigner;
use sealwire_protocol::{
    ClaimDefect, TokenError, base64url,
    json::{Object, Value},
    jws::JwtType,
    key::Thumbprint,
    limits::{MAX_NAME_BYTES, MAX_TIME_SECONDS, MAX_TOKEN_BYTES},
    token::{UnverifiedAccessToken, UnverifiedAttestation},
};
use serde::Serialize;

use crate::{Algorithm, KeyError, MintError, PrivateKey};

/// Claims that are times, and therefore whole seconds (`docs/protocol.md` §2.1).
const TIMES: [&str; 3] = ["exp", "nbf", "iat"];

/// A private key with its one algorithm, ready to sign tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    kid: Option<Box<str>>,
    signer: Box<dyn JwsSigner>,
}

/// The claims of an access token or an attestation (`docs/protocol.md` §2.2). Times are in seconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct Claims<'a> {
    /// `iss`: who issues it.
    #[serde(rename = "iss")]
    pub issuer: &'a str,
    /// `sub`: the user.
    #[serde(rename = "sub")]
    pub user: &'a str,
    /// `aud`: for whom it is, the relay's configured audience.
    #[serde(rename = "aud")]
    pub audience: &'a str,
    /// `iat`: now.
    #[serde(rename = "iat")]
    pub issued: u64,
    /// `exp`: until when it is good.
    #[serde(rename = "exp")]
    pub expires: u64,
    /// `jti`: at most 255 bytes.
    #[serde(rename = "jti", skip_serializing_if = "Option::is_none")]
    pub id: Option<&'a str>,
    /// `cnf.jkt`: the device's thumbprint (RFC 9449 §6.1).
    #[serde(rename = "cnf", serialize_with = "confirmation")]
    pub device: Thumbprint,
    /// `scope`: space-separated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<&'a str>,
    /// `authorization_details`: the array of `docs/protocol.md` §5.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization_details: Option<&'a serde_json::Value>,
}

impl SigningKey {
    /// Takes the algorithm that the key's `alg` names, or the only one that fits its type.
    ///
    /// # Errors
    /// [`KeyError::Unsupported`] for a key that cannot sign, [`KeyError::AmbiguousAlgorithm`] for an RSA key without `alg`.
    pub fn new(key: &PrivateKey) -> Result<Self, KeyError> {
        match key.algorithms().as_slice() {
            [] => Err(KeyError::Unsupported),
            [only] => Self::with_algorithm(key, *only),
            _ => Err(KeyError::AmbiguousAlgorithm),
        }
    }

    /// Takes the given algorithm.
    ///
    /// # Errors
    /// [`KeyError::WrongAlgorithm`] if the key is named for another one or is of another type.
    pub fn with_algorithm(key: &PrivateKey, algorithm: Algorithm) -> Result<Self, KeyError> {
        if !key.algorithms().contains(&algorithm) {
            return Err(KeyError::WrongAlgorithm);
        }
        Ok(Self {
            algorithm,
            kid: key.kid().map(Into::into),
            signer: key.signer(algorithm)?,
        })
    }

    /// What it signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Makes an access token (`typ` `at+jwt`).
    ///
    /// # Errors
    /// [`MintError::Claims`] if no verifier could accept them, [`MintError::Time`], [`MintError::TooLong`], [`MintError::Refused`].
    pub fn access_token(&self, claims: &Claims<'_>) -> Result<String, MintError> {
        let token = self.claims(JwtType::AccessToken, claims)?;
        UnverifiedAccessToken::parse(token.as_bytes()).map_err(MintError::Claims)?;
        Ok(token)
    }

    /// Makes an attestation (`typ` `sealwire-attestation+jwt`).
    ///
    /// # Errors
    /// As [`Self::access_token`].
    pub fn attestation(&self, claims: &Claims<'_>) -> Result<String, MintError> {
        let token = self.claims(JwtType::Attestation, claims)?;
        UnverifiedAttestation::parse(token.as_bytes()).map_err(MintError::Claims)?;
        Ok(token)
    }

    fn claims(&self, typ: JwtType, claims: &Claims<'_>) -> Result<String, MintError> {
        // docs/protocol.md §2.2
        if claims.expires <= claims.issued {
            let (claim, defect) = ("exp", ClaimDefect::Invalid);
            return Err(MintError::Claims(TokenError::Claim { claim, defect }));
        }
        let json = serde_json::to_vec(claims).map_err(|_| MintError::TooLong)?;
        self.json(typ.typ(), &json)
    }

    /// Signs claims that are given as JSON, under any `typ`. The bytes are signed as they are.
    ///
    /// Nothing is asked of the claims but strict JSON, and of `exp`, `nbf` and `iat` that they are whole seconds where they
    /// are there: whoever verifies decides what else has to be.
    ///
    /// # Errors
    /// [`MintError`] says what is wrong.
    pub fn json(&self, typ: &str, claims: &[u8]) -> Result<String, MintError> {
        if typ.is_empty()
            || typ.len() > MAX_NAME_BYTES
            || !typ.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(MintError::Typ);
        }
        if claims.len() > MAX_TOKEN_BYTES {
            return Err(MintError::TooLong);
        }
        let object = Object::parse(claims)?;
        for name in TIMES {
            // docs/protocol.md §2.1
            match object.member(name) {
                None => {}
                Some(Value::Integer(seconds)) if *seconds <= MAX_TIME_SECONDS => {}
                Some(_) => return Err(MintError::Time(name)),
            }
        }
        let mut token = base64url::encode(self.header(typ).as_bytes());
        token.push('.');
        token.push_str(&base64url::encode(claims));
        let signature = self
            .signer
            .sign(token.as_bytes())
            .map_err(|_| MintError::Refused)?;
        token.push('.');
        token.push_str(&base64url::encode(&signature));
        if token.len() > MAX_TOKEN_BYTES {
            return Err(MintError::TooLong);
        }
        Ok(token)
    }

    /// Exactly `alg`, `typ` and, if the key has one, `kid`.
    fn header(&self, typ: &str) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut header = format!(
            r#"{{"alg":"{}","typ":{}"#,
            self.algorithm.name(),
            quoted(typ)
        );
        if let Some(kid) = &self.kid {
            header.push_str(r#","kid":"#);
            header.push_str(&quoted(kid));
        }
        header.push('}');
        header
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({} {:?})", self.algorithm, self.kid)
    }
}

fn confirmation<S: serde::Serializer>(
    device: &Thumbprint,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map([("jkt", device.to_string())])
}
