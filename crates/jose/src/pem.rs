//! PEM blocks (RFC 7468) with keys in them.
//!
//! josekit's own reader of public PEM keys accepts P-256 as ES384 and Ed448 as EdDSA, and refuses ordinary RSA keys for PS256. So a
//! public key is taken out of its SubjectPublicKeyInfo (RFC 5280 §4.1) here, and goes the way of a JWK from then on.

use base64ct::{Base64, Encoding};
use josekit::jwk::{
    Jwk, KeyPair,
    alg::{ec::EcKeyPair, ecx::EcxKeyPair, ed::EdKeyPair, rsa::RsaKeyPair},
};
use sealwire_protocol::key::PublicKey as Ed25519PublicKey;
use zeroize::Zeroizing;

use crate::{
    KeyError,
    material::{Curve, Material},
};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;

/// The contents of AlgorithmIdentifier: object identifier and parameters, as they have to be encoded.
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70"; // RFC 8410 §3
const X25519: &[u8] = b"\x06\x03\x2b\x65\x6e"; // RFC 8410 §3
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"; // RFC 5480 §2.1.1
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22"; // RFC 5480 §2.1.1
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00"; // RFC 3279 §2.3.1

/// Reads one `PUBLIC KEY` or `RSA PUBLIC KEY` block. The material is not checked yet.
pub(crate) fn public_key(file: &[u8]) -> Result<Material, KeyError> {
    let (label, der) = block(file)?;
    match label {
        "PUBLIC KEY" => subject_public_key_info(&der),
        "RSA PUBLIC KEY" => rsa_public_key(&der).ok_or(KeyError::Pem),
        label if label.ends_with("PRIVATE KEY") => Err(KeyError::Private),
        _ => Err(KeyError::Pem),
    }
}

/// Reads one private key block with josekit, and gives it out as josekit's JWK.
pub(crate) fn private_key(file: &[u8]) -> Result<Jwk, KeyError> {
    let (label, _) = block(file)?;
    match label {
        "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => {}
        "PUBLIC KEY" | "RSA PUBLIC KEY" => return Err(KeyError::NotPrivate),
        "ENCRYPTED PRIVATE KEY" => return Err(KeyError::Unsupported),
        _ => return Err(KeyError::Pem),
    }
    // josekit takes one line break after the block and nothing else around it.
    let file = file.trim_ascii();
    // Each reader takes only the type of key that the block's object identifier names, so at most one of them answers.
    let okp = || EdKeyPair::from_pem(file).map(|pair| pair.to_jwk_key_pair()).ok();
    let ecx = || EcxKeyPair::from_pem(file).map(|pair| pair.to_jwk_key_pair()).ok();
    let ec = || EcKeyPair::from_pem(file, None).map(|pair| pair.to_jwk_key_pair()).ok();
    let rsa = || RsaKeyPair::from_pem(file).map(|pair| pair.to_jwk_key_pair()).ok();
    okp().or_else(ecx).or_else(ec).or_else(rsa).ok_or(KeyError::Unsupported)
}

/// The label and the contents of exactly one block.
fn block(file: &[u8]) -> Result<(&str, Zeroizing<Vec<u8>>), KeyError> {
    let parts = || {
        let text = core::str::from_utf8(file).ok()?.trim_ascii();
        let (label, rest) = text.strip_prefix("-----BEGIN ")?.split_once("-----")?;
        let (body, end) = rest.split_once("-----END ")?;
        (end.strip_suffix("-----")? == label).then_some((label, body))
    };
    let (label, body) = parts().ok_or(KeyError::Pem)?;
    let body: Zeroizing<String> = Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let der = Base64::decode_vec(&body).map_err(|_| KeyError::Pem)?;
    Ok((label, Zeroizing::new(der)))
}

fn subject_public_key_info(der: &[u8]) -> Result<Material, KeyError> {
    let split = || {
        let (info, []) = element(der, SEQUENCE)? else { return None };
        let (algorithm, rest) = element(info, SEQUENCE)?;
        let (bits, []) = element(rest, BIT_STRING)? else { return None };
        let [0, key @ ..] = bits else { return None };
        Some((algorithm, key))
    };
    let (algorithm, key) = split().ok_or(KeyError::Pem)?;
    match algorithm {
        ED25519 => {
            let key: &[u8; 32] = key.try_into().map_err(|_| KeyError::Pem)?;
            Ok(Material::Ed25519(Ed25519PublicKey::from_bytes(key)?))
        }
        X25519 => Ok(Material::X25519(key.try_into().map_err(|_| KeyError::Pem)?)),
        P256 => ec_point(Curve::P256, key).ok_or(KeyError::Pem),
        P384 => ec_point(Curve::P384, key).ok_or(KeyError::Pem),
        RSA => rsa_public_key(key).ok_or(KeyError::Pem),
        _ => Err(KeyError::Unsupported),
    }
}

/// An uncompressed point (SEC 1 §2.3.4), not yet known to be on the curve.
fn ec_point(curve: Curve, key: &[u8]) -> Option<Material> {
    let [4, coordinates @ ..] = key else { return None };
    let (x, y) = coordinates.split_at_checked(curve.bytes())?;
    (y.len() == curve.bytes()).then(|| Material::Ec {
        curve,
        x: x.to_vec(),
        y: y.to_vec(),
    })
}

/// RFC 8017 §A.1.1.
fn rsa_public_key(der: &[u8]) -> Option<Material> {
    let (pair, []) = element(der, SEQUENCE)? else { return None };
    let (n, rest) = element(pair, INTEGER)?;
    let (e, []) = element(rest, INTEGER)? else { return None };
    Some(Material::Rsa {
        n: positive(n)?.to_vec(),
        e: positive(e)?.to_vec(),
    })
}

/// The magnitude of a DER integer above zero, without the octet that only holds its sign.
fn positive(integer: &[u8]) -> Option<&[u8]> {
    let (first, rest) = integer.split_first()?;
    match (first, rest.first()) {
        (0, Some(0x80..)) => Some(rest),
        (0x01..0x80, _) => Some(integer),
        _ => None,
    }
}

/// The contents of the DER element with that tag at the beginning, and what follows it. Lengths are of at most two octets.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (length, rest) = match rest {
        // The shortest form of a length is the only one (X.690 §10.1).
        [short, rest @ ..] if *short < 0x80 => (usize::from(*short), rest),
        [0x81, length, rest @ ..] if *length >= 0x80 => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] if *high > 0 => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    if *found == tag { rest.split_at_checked(length) } else { None }
}
