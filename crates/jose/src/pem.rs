//! PEM blocks (RFC 7468) with keys in them.
//!
//! josekit has readers of its own for them, which allocate whatever length a file declares, panic on an EC key of zero, accept P-256 as
//! ES384 and Ed448 as EdDSA, and refuse ordinary RSA keys for PS256. So a key is taken out of its DER here, and goes the way of a
//! JWK from then on.

use base64ct::{Base64, Encoding};
use sealwire_protocol::key::{PublicKey as Ed25519PublicKey, Seed, SigningKey};
use zeroize::Zeroizing;

use crate::{
    KeyError,
    key::Secret,
    material::{Curve, Material, x25519_public},
};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
/// `[0]` and `[1]` of ECPrivateKey (RFC 5915 §3).
const PARAMETERS: u8 = 0xa0;
const EC_PUBLIC_KEY: u8 = 0xa1;

/// The contents of AlgorithmIdentifier: object identifier and parameters, as they have to be encoded.
const ED25519: &[u8] = b"\x06\x03\x2b\x65\x70"; // RFC 8410 §3
const X25519: &[u8] = b"\x06\x03\x2b\x65\x6e"; // RFC 8410 §3
const P256: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"; // RFC 5480 §2.1.1
const P384: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22"; // RFC 5480 §2.1.1
const P256_CURVE: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384_CURVE: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
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

/// Reads one private key block. Neither the material nor that both halves fit is checked yet.
pub(crate) fn private_key(file: &[u8]) -> Result<Secret, KeyError> {
    let (label, der) = block(file)?;
    match label {
        "PRIVATE KEY" => private_key_info(&der),
        "EC PRIVATE KEY" => ec_private_key(&der, None).ok_or(KeyError::Pem),
        "RSA PRIVATE KEY" => rsa_private_key(&der).ok_or(KeyError::Pem),
        "PUBLIC KEY" | "RSA PUBLIC KEY" => Err(KeyError::NotPrivate),
        "ENCRYPTED PRIVATE KEY" => Err(KeyError::Unsupported),
        _ => Err(KeyError::Pem),
    }
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
    let body: Zeroizing<String> =
        Zeroizing::new(body.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let der = Base64::decode_vec(&body).map_err(|_| KeyError::Pem)?;
    Ok((label, Zeroizing::new(der)))
}

/// PKCS #8 (RFC 5958 §2). Attributes and the repeated public key after the private one are passed over.
fn private_key_info(der: &[u8]) -> Result<Secret, KeyError> {
    let split = || {
        let (info, []) = element(der, SEQUENCE)? else {
            return None;
        };
        let ([0 | 1], rest) = element(info, INTEGER)? else {
            return None;
        };
        let (algorithm, rest) = element(rest, SEQUENCE)?;
        Some((algorithm, element(rest, OCTET_STRING)?.0))
    };
    let (algorithm, key) = split().ok_or(KeyError::Pem)?;
    match algorithm {
        ED25519 => okp_private_key(key, |d| {
            Material::Ed25519(*SigningKey::from_seed(&Seed::new(*d)).public())
        }),
        X25519 => okp_private_key(key, |d| Material::X25519(x25519_public(d))),
        P256 => ec_private_key(key, Some(Curve::P256)),
        P384 => ec_private_key(key, Some(Curve::P384)),
        RSA => rsa_private_key(key),
        _ => return Err(KeyError::Unsupported),
    }
    .ok_or(KeyError::Pem)
}

/// CurvePrivateKey (RFC 8410 §7).
fn okp_private_key(der: &[u8], public: impl FnOnce(&[u8; 32]) -> Material) -> Option<Secret> {
    let (d, []) = element(der, OCTET_STRING)? else {
        return None;
    };
    Some(Secret::Pair(
        public(d.try_into().ok()?),
        Zeroizing::new(d.to_vec()),
    ))
}

/// ECPrivateKey (RFC 5915 §3), which has to name its curve unless `curve` is known, and to hold its public key.
fn ec_private_key(der: &[u8], curve: Option<Curve>) -> Option<Secret> {
    let (key, []) = element(der, SEQUENCE)? else {
        return None;
    };
    let ([1], rest) = element(key, INTEGER)? else {
        return None;
    };
    let (d, rest) = element(rest, OCTET_STRING)?;
    let (named, rest) = match element(rest, PARAMETERS) {
        Some((P256_CURVE, rest)) => (Some(Curve::P256), rest),
        Some((P384_CURVE, rest)) => (Some(Curve::P384), rest),
        Some(_) => return None,
        None => (None, rest),
    };
    let curve = match (curve, named) {
        (Some(curve), None) | (None, Some(curve)) => curve,
        (Some(curve), Some(named)) if curve == named => curve,
        _ => return None,
    };
    let (bits, []) = element(rest, EC_PUBLIC_KEY)? else {
        return None;
    };
    let ([0, point @ ..], []) = element(bits, BIT_STRING)? else {
        return None;
    };
    (d.len() == curve.bytes()).then_some(())?;
    Some(Secret::Pair(
        ec_point(curve, point)?,
        Zeroizing::new(d.to_vec()),
    ))
}

/// RSAPrivateKey of two primes (RFC 8017 §A.1.2).
fn rsa_private_key(der: &[u8]) -> Option<Secret> {
    let (key, []) = element(der, SEQUENCE)? else {
        return None;
    };
    let ([0], mut rest) = element(key, INTEGER)? else {
        return None;
    };
    let mut next = || {
        let (integer, after) = element(rest, INTEGER)?;
        rest = after;
        positive(integer).map(<[u8]>::to_vec)
    };
    let material = Material::Rsa {
        n: next()?,
        e: next()?,
    };
    let mut private = || next().map(Zeroizing::new);
    let members = [
        private()?,
        private()?,
        private()?,
        private()?,
        private()?,
        private()?,
    ];
    rest.is_empty().then(|| Secret::Rsa(material, members))
}

fn subject_public_key_info(der: &[u8]) -> Result<Material, KeyError> {
    let split = || {
        let (info, []) = element(der, SEQUENCE)? else {
            return None;
        };
        let (algorithm, rest) = element(info, SEQUENCE)?;
        let (bits, []) = element(rest, BIT_STRING)? else {
            return None;
        };
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
    let [4, coordinates @ ..] = key else {
        return None;
    };
    let (x, y) = coordinates.split_at_checked(curve.bytes())?;
    (y.len() == curve.bytes()).then(|| Material::Ec {
        curve,
        x: x.to_vec(),
        y: y.to_vec(),
    })
}

/// RFC 8017 §A.1.1.
fn rsa_public_key(der: &[u8]) -> Option<Material> {
    let (pair, []) = element(der, SEQUENCE)? else {
        return None;
    };
    let (n, rest) = element(pair, INTEGER)?;
    let (e, []) = element(rest, INTEGER)? else {
        return None;
    };
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
        [0x82, high, low, rest @ ..] if *high > 0 => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return None,
    };
    if *found == tag {
        rest.split_at_checked(length)
    } else {
        None
    }
}
