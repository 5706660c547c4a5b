//! The material of a public key: what makes it the key that it is, and the checks it has to pass.

use josekit::{Value as JoseValue, jwk::Jwk, jws};
use sealwire_protocol::{
    base64url,
    json::{Object, Value},
    key as ed25519,
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::{Algorithm, KeyError};

/// Bits of an RSA modulus, at least (RFC 7518 §3.3, `docs/protocol.md` §2.2).
pub const MIN_RSA_BITS: usize = 2_048;
/// Bits of an RSA modulus, at most: a verification takes time that grows with their square.
pub const MAX_RSA_BITS: usize = 8_192;
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Material {
    Ed25519(ed25519::PublicKey),
    X25519([u8; 32]),
    Ec {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
}

impl Material {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "Ed25519",
            Self::X25519(_) => "X25519",
            Self::Ec { curve, .. } => curve.name(),
            Self::Rsa { .. } => "RSA",
        }
    }

    /// The signature algorithms for this type of key.
    pub(crate) fn algorithms(&self) -> Vec<Algorithm> {
        match self {
            Self::Ed25519(_) => vec![Algorithm::EdDsa],
            Self::X25519(_) => Vec::new(),
            Self::Ec {
                curve: Curve::P256, ..
            } => vec![Algorithm::Es256],
            Self::Ec {
                curve: Curve::P384, ..
            } => vec![Algorithm::Es384],
            Self::Rsa { .. } => vec![Algorithm::Ps256, Algorithm::Rs256],
        }
    }

    pub(crate) const fn is_for_signatures(&self) -> bool {
        !matches!(self, Self::X25519(_))
    }

    pub(crate) const fn scalar_bytes(&self) -> usize {
        match self {
            Self::Ec { curve, .. } => curve.bytes(),
            Self::Ed25519(_) | Self::X25519(_) | Self::Rsa { .. } => 32,
        }
    }

    pub(crate) fn check(&self) -> Result<(), KeyError> {
        match self {
            Self::Ed25519(_) => Ok(()), // its type has checked it
            // RFC 7748 §6.1, docs/protocol.md §1.3
            Self::X25519(key) => {
                let probe = x25519_dalek::StaticSecret::from([9; 32]);
                let shared = probe.diffie_hellman(&x25519_dalek::PublicKey::from(*key));
                if shared.was_contributory() {
                    Ok(())
                } else {
                    Err(KeyError::LowOrder)
                }
            }
            Self::Ec { curve, x, y } => {
                if x.len() != curve.bytes() {
                    return Err(KeyError::Invalid("x"));
                }
                if y.len() != curve.bytes() {
                    return Err(KeyError::Invalid("y"));
                }
                // OpenSSL refuses a point that is not on the curve when it decodes it.
                let algorithm = if *curve == Curve::P256 {
                    Algorithm::Es256
                } else {
                    Algorithm::Es384
                };
                self.verifier(algorithm)
                    .map(drop)
                    .map_err(|_| KeyError::NotOnCurve)
            }
            Self::Rsa { n, e } => check_rsa(n, e),
        }
    }

    /// josekit's verifier for one of [`Self::algorithms`].
    pub(crate) fn verifier(
        &self,
        algorithm: Algorithm,
    ) -> Result<Box<dyn jws::JwsVerifier>, KeyError> {
        let jwk = self.josekit()?;
        let verifier: Result<Box<dyn jws::JwsVerifier>, josekit::JoseError> = match algorithm {
            Algorithm::EdDsa => jws::EdDSA.verifier_from_jwk(&jwk).map(|v| Box::new(v) as _),
            Algorithm::Es256 => jws::ES256.verifier_from_jwk(&jwk).map(|v| Box::new(v) as _),
            Algorithm::Es384 => jws::ES384.verifier_from_jwk(&jwk).map(|v| Box::new(v) as _),
            Algorithm::Ps256 => jws::PS256.verifier_from_jwk(&jwk).map(|v| Box::new(v) as _),
            Algorithm::Rs256 => jws::RS256.verifier_from_jwk(&jwk).map(|v| Box::new(v) as _),
            // RFC 8725 §2.1: a public key is never a shared secret.
            Algorithm::Hs256 => return Err(KeyError::WrongAlgorithm),
        };
        verifier.map_err(|_| KeyError::Refused)
    }

    /// josekit's form, of the material only.
    pub(crate) fn josekit(&self) -> Result<Jwk, KeyError> {
        match self {
            Self::Ed25519(key) => josekit_okp("Ed25519", key.as_bytes()),
            Self::X25519(key) => josekit_okp("X25519", key),
            Self::Ec { curve, x, y } => {
                let mut jwk = Jwk::new("EC");
                jwk.set_curve(curve.name());
                set(&mut jwk, "x", x)?;
                set(&mut jwk, "y", y)?;
                Ok(jwk)
            }
            Self::Rsa { n, e } => {
                let mut jwk = Jwk::new("RSA");
                set(&mut jwk, "n", n)?;
                set(&mut jwk, "e", e)?;
                Ok(jwk)
            }
        }
    }

    /// The required members in lexicographic order (RFC 7638 §3.2, RFC 8037 §2), which serve for any JWK.
    pub(crate) fn write(&self, json: &mut Json) {
        match self {
            Self::Ed25519(key) => write_okp(json, "Ed25519", key.as_bytes()),
            Self::X25519(key) => write_okp(json, "X25519", key),
            Self::Ec { curve, x, y } => {
                json.text("crv", curve.name());
                json.text("kty", "EC");
                json.bytes("x", x);
                json.bytes("y", y);
            }
            Self::Rsa { n, e } => {
                json.bytes("e", e);
                json.text("kty", "RSA");
                json.bytes("n", n);
            }
        }
    }

    pub(crate) fn thumbprint(&self) -> [u8; 32] {
        let mut json = Json::new();
        self.write(&mut json);
        Sha256::digest(json.finish().as_bytes()).into()
    }
}

impl Curve {
    const fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
        }
    }

    /// Bytes of a coordinate and of the private scalar (RFC 7518 §6.2.1.2).
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
        }
    }
}

/// Reads the public members of a JWK (RFC 7518 §6, RFC 8037 §2). The result is not checked yet.
pub(crate) fn public_material(jwk: &Object) -> Result<Material, KeyError> {
    Ok(match string(jwk, "kty")? {
        "OKP" => match string(jwk, "crv")? {
            "Ed25519" => Material::Ed25519(ed25519::PublicKey::from_bytes(&array(jwk, "x")?)?),
            "X25519" => Material::X25519(array(jwk, "x")?),
            _ => return Err(KeyError::Unsupported),
        },
        "EC" => {
            let curve = match string(jwk, "crv")? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                _ => return Err(KeyError::Unsupported),
            };
            Material::Ec {
                curve,
                x: bytes(jwk, "x")?,
                y: bytes(jwk, "y")?,
            }
        }
        "RSA" => Material::Rsa {
            n: bytes(jwk, "n")?,
            e: bytes(jwk, "e")?,
        },
        _ => return Err(KeyError::Unsupported),
    })
}

/// RFC 7518 §3.3 and §6.3.1: size, no leading zero octets, both odd.
fn check_rsa(n: &[u8], e: &[u8]) -> Result<(), KeyError> {
    let bits = n.first().map_or(0, |top| {
        n.len()
            .saturating_mul(8)
            .saturating_sub(top.leading_zeros() as usize)
    });
    let odd = |number: &[u8]| number.last().is_some_and(|low| low & 1 == 1);
    if n.first() == Some(&0) || !odd(n) || !(MIN_RSA_BITS..=MAX_RSA_BITS).contains(&bits) {
        return Err(KeyError::RsaModulus);
    }
    if e.first() == Some(&0) || !odd(e) || e == [1] || e.len() > 4 {
        return Err(KeyError::RsaExponent);
    }
    Ok(())
}

/// The public half of an X25519 secret (RFC 7748 §6.1).
pub(crate) fn x25519_public(secret: &[u8; 32]) -> [u8; 32] {
    let secret = x25519_dalek::StaticSecret::from(*secret);
    x25519_dalek::PublicKey::from(&secret).to_bytes()
}

pub(crate) fn optional_string<'j>(
    jwk: &'j Object,
    name: &'static str,
) -> Result<Option<&'j str>, KeyError> {
    match jwk.member(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(KeyError::Invalid(name)),
    }
}

pub(crate) fn string<'j>(jwk: &'j Object, name: &'static str) -> Result<&'j str, KeyError> {
    optional_string(jwk, name)?.ok_or(KeyError::Missing(name))
}

pub(crate) fn bytes(jwk: &Object, name: &'static str) -> Result<Vec<u8>, KeyError> {
    base64url::decode(string(jwk, name)?.as_bytes()).map_err(|_| KeyError::Invalid(name))
}

pub(crate) fn secret_bytes(
    jwk: &Object,
    name: &'static str,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    bytes(jwk, name).map(Zeroizing::new)
}

fn array<const N: usize>(jwk: &Object, name: &'static str) -> Result<[u8; N], KeyError> {
    base64url::decode_array(string(jwk, name)?.as_bytes()).map_err(|_| KeyError::Invalid(name))
}

pub(crate) fn set(jwk: &mut Jwk, name: &str, bytes: &[u8]) -> Result<(), KeyError> {
    jwk.set_parameter(name, Some(JoseValue::String(base64url::encode(bytes))))
        .map_err(|_| KeyError::Refused)
}

fn josekit_okp(curve: &str, x: &[u8]) -> Result<Jwk, KeyError> {
    let mut jwk = Jwk::new("OKP");
    jwk.set_curve(curve);
    set(&mut jwk, "x", x)?;
    Ok(jwk)
}

fn write_okp(json: &mut Json, curve: &str, x: &[u8]) {
    json.text("crv", curve);
    json.text("kty", "OKP");
    json.bytes("x", x);
}

/// Writes one flat JSON object of strings; erased with its contents, which may be secret.
pub(crate) struct Json(Zeroizing<String>);

impl Json {
    pub(crate) fn new() -> Self {
        // Enough for an RSA-8192 private key, so that growing leaves no copy behind.
        let mut json = String::with_capacity(8 * 1024);
        json.push('{');
        Self(Zeroizing::new(json))
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&serde_json::Value::from(name).to_string());
        self.0.push(':');
        self.0.push_str(&serde_json::Value::from(value).to_string());
    }

    pub(crate) fn bytes(&mut self, name: &str, value: &[u8]) {
        let mut text = base64url::encode(value);
        self.text(name, &text);
        text.zeroize();
    }

    pub(crate) fn finish(mut self) -> Zeroizing<String> {
        self.0.push('}');
        self.0
    }
}
