//! Standard JWE in compact serialization (RFC 7516 §7.1), read strictly and before any cryptography (`docs/protocol.md` §10).
//!
//! ```text
//! bytes ── UnopenedJwe::parse ── UnopenedJwe      every rule of §10 that needs no key
//! ```
//!
//! Opening one is left to who has the key: the end-to-end crate for a device, the JOSE crate for everybody else.

use alloc::{string::String, vec::Vec};

use crate::{
    base64url,
    crypto::X25519PublicKey,
    json::{JsonError, Object, Value},
    limits::{MAX_NAME_BYTES, MAX_STANDARD_JWE_BYTES, MAX_STANDARD_JWE_HEADER_BYTES},
};

/// `alg`: how the content key is agreed upon and wrapped (RFC 7518 §4.6).
pub const ALG: &str = "ECDH-ES+A256KW";
/// `enc`: how the content is encrypted (RFC 7518 §5.3).
pub const ENC: &str = "A256GCM";
/// Bytes of the content encryption key, wrapped (RFC 3394 §2.2.1).
pub const ENCRYPTED_KEY_BYTES: usize = 40;
/// Bytes of the initialization vector.
pub const IV_BYTES: usize = 12;
/// Bytes of the authentication tag.
pub const TAG_BYTES: usize = 16;

/// Header members that are refused whatever their value: compression, work factors, extensions, key sources.
const FORBIDDEN: [&str; 8] = ["zip", "crit", "p2c", "p2s", "jku", "jwk", "x5u", "x5c"];

/// Header members beside those that the algorithms need (RFC 7516 §4.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// `typ`: of the whole JWE; at most 255 bytes.
    pub typ: Option<String>,
    /// `cty`: of the plaintext; `JWT` for a signed JWT. At most 255 bytes.
    pub cty: Option<String>,
    /// `kid`: of the recipient's key; at most 255 bytes.
    pub kid: Option<String>,
}

/// A JWE of the accepted form, which nobody has opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnopenedJwe<'a> {
    /// The header's other members, not authenticated yet.
    pub header: Header,
    /// `epk`: the sender's ephemeral key. It is not of low order.
    pub ephemeral: X25519PublicKey,
    /// `apu`, decoded; empty if it is not there.
    pub party_u: Vec<u8>,
    /// `apv`, likewise.
    pub party_v: Vec<u8>,
    /// The content encryption key, wrapped.
    pub encrypted_key: [u8; ENCRYPTED_KEY_BYTES],
    /// The initialization vector.
    pub iv: [u8; IV_BYTES],
    /// What the plaintext is encrypted to, which has as many bytes.
    pub ciphertext: Vec<u8>,
    /// The authentication tag.
    pub tag: [u8; TAG_BYTES],
    /// The encoded header, which is authenticated with the content (RFC 7516 §5.1, 14).
    pub aad: &'a [u8],
}

impl<'a> UnopenedJwe<'a> {
    /// Reads a compact JWE and checks every rule that needs no key (`docs/protocol.md` §10).
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn parse(compact: &'a [u8]) -> Result<Self, JweFault> {
        if compact.len() > MAX_STANDARD_JWE_BYTES {
            return Err(JweFault::TooLong);
        }
        let mut parts = compact.split(|&byte| byte == b'.');
        let mut next = || parts.next();
        let (Some(aad), Some(encrypted_key), Some(iv), Some(ciphertext), Some(tag), None) =
            (next(), next(), next(), next(), next(), next())
        else {
            return Err(JweFault::Parts);
        };
        if aad.len() > base64url::encoded_len(MAX_STANDARD_JWE_HEADER_BYTES) {
            return Err(JweFault::HeaderTooLong);
        }
        let encrypted_key = exactly(encrypted_key, JweFault::EncryptedKey)?;
        let iv = exactly(iv, JweFault::Iv)?;
        let tag = exactly(tag, JweFault::Tag)?;
        let ciphertext = decode(ciphertext)?;
        let header = Object::parse(&decode(aad)?).map_err(JweFault::Json)?;
        check_algorithms(&header)?;
        let party_u = party(&header, "apu")?;
        let party_v = party(&header, "apv")?;
        let ephemeral = ephemeral_key(&header).ok_or(JweFault::Epk)?;
        let member = |name| short_string(&header, name).map(|text| text.map(Into::into));
        Ok(Self {
            header: Header {
                typ: member("typ")?,
                cty: member("cty")?,
                kid: member("kid")?,
            },
            ephemeral,
            party_u,
            party_v,
            encrypted_key,
            iv,
            ciphertext,
            tag,
            aad,
        })
    }
}

/// What in a JWE is not of the accepted form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JweFault {
    /// Longer than 1 MiB.
    #[error("it is longer than 1 MiB")]
    TooLong,
    /// Not five parts (RFC 7516 §7.1).
    #[error("it does not have the five parts of a compact JWE")]
    Parts,
    /// A part is not canonical base64url.
    #[error("a part is not canonical base64url")]
    Base64url,
    /// The header is longer than 2,048 bytes.
    #[error("its header is longer than 2048 bytes")]
    HeaderTooLong,
    /// The header is not strict JSON.
    #[error("{0}")]
    Json(JsonError),
    /// `alg` is not `ECDH-ES+A256KW`.
    #[error("its \"alg\" is not ECDH-ES+A256KW")]
    Alg,
    /// `enc` is not `A256GCM`.
    #[error("its \"enc\" is not A256GCM")]
    Enc,
    /// `epk` is not an X25519 public key and nothing else.
    #[error("its \"epk\" is not an X25519 public key")]
    Epk,
    /// A header member that is never accepted: compression, criticality, work factors, key sources.
    #[error(
        "its header has a member that is not accepted (zip, crit, p2c, p2s, jku, jwk, x5u, x5c)"
    )]
    Forbidden,
    /// `typ`, `cty`, `kid`, `apu` or `apv` is not a short string.
    #[error("its \"{0}\" is not a string of at most 255 bytes")]
    Member(&'static str),
    /// The encrypted key is not 40 bytes (RFC 3394 of 32 bytes).
    #[error("its encrypted key does not have 40 bytes")]
    EncryptedKey,
    /// The initialization vector is not 12 bytes (RFC 7518 §5.3).
    #[error("its initialization vector does not have 12 bytes")]
    Iv,
    /// The tag is not 16 bytes (RFC 7518 §5.3).
    #[error("its authentication tag does not have 16 bytes")]
    Tag,
}

fn check_algorithms(header: &Object) -> Result<(), JweFault> {
    if FORBIDDEN.iter().any(|name| header.member(name).is_some()) {
        return Err(JweFault::Forbidden);
    }
    // Compared with constants, never followed: RFC 8725 §3.1.
    if !is(header, "alg", ALG) {
        return Err(JweFault::Alg);
    }
    if !is(header, "enc", ENC) {
        return Err(JweFault::Enc);
    }
    Ok(())
}

/// RFC 7518 §4.6.1.2, §4.6.1.3.
fn party(header: &Object, name: &'static str) -> Result<Vec<u8>, JweFault> {
    match short_string(header, name)? {
        None => Ok(Vec::new()),
        Some(party) => base64url::decode(party.as_bytes()).map_err(|_| JweFault::Member(name)),
    }
}

/// `epk`: exactly `kty`, `crv` and `x` of an X25519 key that gives a secret (RFC 7518 §4.6.1.1, RFC 8037 §3.2, RFC 7748 §6.1).
fn ephemeral_key(header: &Object) -> Option<X25519PublicKey> {
    let Value::Object(epk) = header.member("epk")? else {
        return None;
    };
    let Value::String(x) = epk.member("x")? else {
        return None;
    };
    if epk.len() != 3 || !is(epk, "kty", "OKP") || !is(epk, "crv", "X25519") {
        return None;
    }
    let key = X25519PublicKey::from_bytes(base64url::decode_array(x.as_bytes()).ok()?);
    (!key.is_low_order()).then_some(key)
}

fn is(object: &Object, name: &str, expected: &str) -> bool {
    matches!(object.member(name), Some(Value::String(value)) if value == expected)
}

fn short_string<'o>(header: &'o Object, name: &'static str) -> Result<Option<&'o str>, JweFault> {
    match header.member(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_NAME_BYTES => Ok(Some(text)),
        Some(_) => Err(JweFault::Member(name)),
    }
}

fn decode(part: &[u8]) -> Result<Vec<u8>, JweFault> {
    base64url::decode(part).map_err(|_| JweFault::Base64url)
}

fn exactly<const N: usize>(part: &[u8], fault: JweFault) -> Result<[u8; N], JweFault> {
    if part.len() != base64url::encoded_len(N) {
        return Err(fault);
    }
    base64url::decode_array(part).map_err(|_| JweFault::Base64url)
}
