//! Standard JWE to a device's X25519 key (`docs/protocol.md` §10): `ECDH-ES+A256KW` with `A256GCM`, compact serialization.
//!
//! ```text
//! seal_to: plaintext ── josekit ── JWE            open_with: JWE ── strict reader ── josekit ── plaintext
//! ```
//! There is no forward secrecy here, and the sender is whoever signed what is inside. josekit by itself would take a tag of one
//! byte, panic on an empty initialization vector, inflate `zip` without a limit and let the header choose `enc`: so the reader comes
//! first and leaves none of that to it.

use josekit::jwe::{ECDH_ES_A256KW, JweHeader};
use sealwire_protocol::{
    base64url,
    json::{Object, Value},
    limits::MAX_NAME_BYTES,
};
use zeroize::Zeroizing;

use crate::{
    JweFault, KeyError, OpenError, PrivateKey, PublicKey, SealError, key::wipe, material::Material,
};

/// Bytes of a JWE that is made or opened.
pub const MAX_JWE_BYTES: usize = 1_048_576;
/// Bytes of a JWE's header, decoded: room for `kid`, `typ`, `cty`, `apu` and `apv` at their largest.
pub const MAX_HEADER_BYTES: usize = 2_048;

const ALG: &str = "ECDH-ES+A256KW";
const ENC: &str = "A256GCM";
/// The content encryption key, wrapped (RFC 3394 §2.2.1).
const ENCRYPTED_KEY_BYTES: usize = 40;
const IV_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

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

/// What a JWE held.
pub struct Opened {
    /// The plaintext, erased when dropped.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The header's other members, authenticated.
    pub header: Header,
}

/// Seals `plaintext` to an X25519 public key. Whoever holds the private one can open it, now and forever: no forward secrecy.
///
/// # Errors
/// [`SealError::TooLong`] if the JWE would be over 1 MiB; [`SealError::Key`] for another type of key.
pub fn seal_to(
    recipient: &PublicKey,
    plaintext: &[u8],
    header: &Header,
) -> Result<String, SealError> {
    let Material::X25519(_) = recipient.material() else {
        return Err(SealError::Key(KeyError::Unsupported));
    };
    if plaintext.len() > MAX_JWE_BYTES {
        return Err(SealError::TooLong);
    }
    let mut jose = JweHeader::new();
    jose.set_content_encryption(ENC);
    for (name, value) in [
        ("typ", &header.typ),
        ("cty", &header.cty),
        ("kid", &header.kid),
    ] {
        let Some(value) = value else { continue };
        if value.len() > MAX_NAME_BYTES {
            return Err(SealError::Header);
        }
        jose.set_claim(name, Some(josekit::Value::from(value.as_str())))
            .map_err(|_| SealError::Header)?;
    }
    let refused = |_| SealError::Key(KeyError::Refused);
    let encrypter = ECDH_ES_A256KW
        .encrypter_from_jwk(&recipient.material().josekit()?)
        .map_err(refused)?;
    let compact = josekit::jwe::serialize_compact(plaintext, &jose, &encrypter).map_err(refused)?;
    if compact.len() > MAX_JWE_BYTES {
        return Err(SealError::TooLong);
    }
    Ok(compact)
}

/// Opens a JWE with an X25519 private key.
///
/// # Errors
/// [`OpenError::Malformed`] for anything but the one accepted form and [`OpenError::Key`] for another type of key, before any
/// cryptography; after it only the opaque [`OpenError::Decrypt`].
pub fn open_with(key: &PrivateKey, compact: &[u8]) -> Result<Opened, OpenError> {
    let header = UnopenedJwe::parse(compact)
        .map_err(OpenError::Malformed)?
        .header;
    if !key.is_x25519() {
        return Err(OpenError::Key);
    }
    let jwk = key.josekit().map_err(|_| OpenError::Decrypt)?;
    let decrypter = ECDH_ES_A256KW.decrypter_from_jwk(&jwk);
    wipe(jwk);
    let decrypter = decrypter.map_err(|_| OpenError::Decrypt)?;
    let compact = core::str::from_utf8(compact).map_err(|_| OpenError::Decrypt)?;
    let (plaintext, _) =
        josekit::jwe::deserialize_compact(compact, &decrypter).map_err(|_| OpenError::Decrypt)?;
    Ok(Opened {
        plaintext: Zeroizing::new(plaintext),
        header,
    })
}

/// A JWE of the accepted form, which nobody has opened yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnopenedJwe {
    /// The header's other members, not authenticated yet.
    pub header: Header,
    /// `epk`: the sender's ephemeral key.
    pub ephemeral: [u8; 32],
    /// Bytes of the plaintext.
    pub plaintext_len: usize,
}

impl UnopenedJwe {
    /// Reads a compact JWE and checks every rule that needs no key (`docs/protocol.md` §10).
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn parse(compact: &[u8]) -> Result<Self, JweFault> {
        if compact.len() > MAX_JWE_BYTES {
            return Err(JweFault::TooLong);
        }
        let mut parts = compact.split(|&byte| byte == b'.');
        let mut next = || parts.next();
        let (Some(header), Some(encrypted_key), Some(iv), Some(ciphertext), Some(tag), None) =
            (next(), next(), next(), next(), next(), next())
        else {
            return Err(JweFault::Parts);
        };
        if header.len() > base64url::encoded_len(MAX_HEADER_BYTES) {
            return Err(JweFault::HeaderTooLong);
        }
        exactly::<ENCRYPTED_KEY_BYTES>(encrypted_key, JweFault::EncryptedKey)?;
        exactly::<IV_BYTES>(iv, JweFault::Iv)?;
        exactly::<TAG_BYTES>(tag, JweFault::Tag)?;
        let plaintext_len = decode(ciphertext)?.len();
        let header = Object::parse(&decode(header)?).map_err(JweFault::Json)?;
        let (header, ephemeral) = read_header(&header)?;
        Ok(Self {
            header,
            ephemeral,
            plaintext_len,
        })
    }
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Opened({} bytes, {:?})",
            self.plaintext.len(),
            self.header
        )
    }
}

fn read_header(header: &Object) -> Result<(Header, [u8; 32]), JweFault> {
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
    for name in ["apu", "apv"] {
        if let Some(party) = short_string(header, name)? {
            base64url::decode(party.as_bytes()).map_err(|_| JweFault::Member(name))?;
        }
    }
    let ephemeral = ephemeral_key(header).ok_or(JweFault::Epk)?;
    let member = |name| short_string(header, name).map(|text| text.map(Into::into));
    Ok((
        Header {
            typ: member("typ")?,
            cty: member("cty")?,
            kid: member("kid")?,
        },
        ephemeral,
    ))
}

/// `epk`: exactly `kty`, `crv` and `x` of an X25519 key that gives a secret (RFC 7518 §4.6.1.1, RFC 8037 §3.2, RFC 7748 §6.1).
fn ephemeral_key(header: &Object) -> Option<[u8; 32]> {
    let Value::Object(epk) = header.member("epk")? else {
        return None;
    };
    let Value::String(x) = epk.member("x")? else {
        return None;
    };
    if epk.len() != 3 || !is(epk, "kty", "OKP") || !is(epk, "crv", "X25519") {
        return None;
    }
    let key = base64url::decode_array(x.as_bytes()).ok()?;
    PublicKey::from_x25519(&key).is_ok().then_some(key)
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
