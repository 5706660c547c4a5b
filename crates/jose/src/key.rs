//! JSON Web Keys (RFC 7517), read strictly and checked before anything uses them.
//!
//! ```text
//! JWK ──┐                    ┌── to_jwk, thumbprint
//! PEM ──┴── PublicKey ───────┤
//!           PrivateKey       └── josekit's form of it, inside this crate only
//! ```
//! A value of these types is a key that passed: right lengths, a point on its curve, no small order, RSA of a sensible
//! size, both halves belonging together. What a key may be used for is decided where it is used: [`crate::KeySet`],
//! [`crate::SigningKey`], [`crate::jwe`].

use core::fmt;

use josekit::{
    Value as JoseValue,
    jwk::{
        Jwk,
        alg::{ec::EcCurve, ecx::EcxCurve, ed::EdCurve},
    },
    jws,
};
use sealwire_protocol::{
    base64url,
    json::{Object, Value},
    key as ed25519,
    limits::MAX_NAME_BYTES,
};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    Algorithm, KeyError,
    material::{
        Json, MAX_RSA_BITS, Material, optional_string, public_material, secret_bytes, set, string,
        x25519_public,
    },
    pem,
};

/// Bytes of a file with a key or a key set.
pub const MAX_KEY_FILE_BYTES: usize = 65_536;
/// Bytes of a secret for HS256, at most.
const MAX_SECRET_BYTES: usize = 1_024;

/// Members that carry secrets in any JWK (RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// The private members of an RSA key, in the order of RFC 7518 §6.3.2.
const RSA_PRIVATE: [&str; 6] = ["d", "p", "q", "dp", "dq", "qi"];

/// A public key that passed every check on its material.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    material: Material,
    label: Label,
}

/// A private key, or a shared secret (`oct`). Erased when dropped; cannot be cloned.
///
/// josekit and OpenSSL make copies of their own while they use it; those are not erased.
pub struct PrivateKey {
    secret: Secret,
    label: Label,
}

/// What kind of key to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// Ed25519, for signatures.
    Ed25519,
    /// X25519, for standard JWE.
    X25519,
    /// P-256, for ES256.
    P256,
    /// P-384, for ES384.
    P384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// 32 random bytes, for HS256.
    Oct,
}

/// What a JWK says about itself beside its material.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Label {
    kid: Option<Box<str>>,
    algorithm: Option<Algorithm>,
}

pub(crate) enum Secret {
    /// The public material and `d`.
    Pair(Material, Zeroizing<Vec<u8>>),
    /// The public material and the members of [`RSA_PRIVATE`].
    Rsa(Material, [Zeroizing<Vec<u8>>; 6]),
    /// `k`.
    Oct(Zeroizing<Vec<u8>>),
}

impl PublicKey {
    /// Reads a JWK (RFC 7517 §4) or one PEM block (`PUBLIC KEY`, RFC 7468 §13; `RSA PUBLIC KEY`), at most 64 KiB.
    ///
    /// # Errors
    /// Refuses private members ([`KeyError::Private`]), other types and curves ([`KeyError::Unsupported`]), and every key
    /// whose material is not sound.
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        match Format::of(file)? {
            Format::Json => Self::from_object(&Object::parse(file)?),
            Format::Pem => {
                pem::public_key(file).and_then(|material| Self::new(material, Label::default()))
            }
        }
    }

    /// An X25519 public key from its 32 bytes (RFC 7748 §5), such as the `jwe` claim of a device card.
    ///
    /// # Errors
    /// [`KeyError::LowOrder`].
    pub fn from_x25519(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        Self::new(Material::X25519(*bytes), Label::default())
    }

    /// An Ed25519 public key of the protocol.
    #[must_use]
    pub fn from_ed25519(key: ed25519::PublicKey) -> Self {
        Self {
            material: Material::Ed25519(key),
            label: Label {
                kid: None,
                algorithm: Some(Algorithm::EdDsa),
            },
        }
    }

    pub(crate) fn from_object(jwk: &Object) -> Result<Self, KeyError> {
        // docs/protocol.md §2.2: nothing private belongs where public keys are read.
        if PRIVATE_MEMBERS
            .iter()
            .any(|name| jwk.member(name).is_some())
        {
            return Err(KeyError::Private);
        }
        let material = public_material(jwk)?;
        let label = Label::of(
            jwk,
            &material.algorithms(),
            material.is_for_signatures(),
            &["verify"],
        )?;
        Self::new(material, label)
    }

    fn new(material: Material, label: Label) -> Result<Self, KeyError> {
        material.check()?;
        Ok(Self { material, label })
    }

    /// The `kid`, at most 255 bytes.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.label.kid.as_deref()
    }

    /// The same key under another `kid`.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] if it is empty or longer than 255 bytes.
    pub fn with_kid(mut self, kid: &str) -> Result<Self, KeyError> {
        self.label.kid = Some(checked_kid(kid)?);
        Ok(self)
    }

    /// The signature algorithm that the JWK's `alg` names, if it has one.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.label.algorithm
    }

    /// The JWK, on one line.
    #[must_use]
    pub fn to_jwk(&self) -> String {
        let mut json = Json::new();
        self.material.write(&mut json);
        self.label.write(&mut json);
        core::mem::take(&mut *json.finish())
    }

    /// The SHA-256 thumbprint (RFC 7638 §3): 32 bytes, in text their base64url.
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        self.material.thumbprint()
    }

    pub(crate) fn material(&self) -> &Material {
        &self.material
    }
}

impl PrivateKey {
    /// Makes a new key with OpenSSL's generator.
    ///
    /// # Errors
    /// [`KeyError::Refused`] if OpenSSL has no randomness.
    pub fn generate(kind: KeyType) -> Result<Self, KeyError> {
        let jwk = match kind {
            KeyType::Ed25519 => Jwk::generate_ed_key(EdCurve::Ed25519),
            KeyType::X25519 => Jwk::generate_ecx_key(EcxCurve::X25519),
            KeyType::P256 => Jwk::generate_ec_key(EcCurve::P256),
            KeyType::P384 => Jwk::generate_ec_key(EcCurve::P384),
            KeyType::Rsa2048 => Jwk::generate_rsa_key(2048),
            KeyType::Rsa3072 => Jwk::generate_rsa_key(3072),
            KeyType::Rsa4096 => Jwk::generate_rsa_key(4096),
            KeyType::Oct => Jwk::generate_oct_key(32),
        };
        Self::from_josekit(jwk.map_err(|_| KeyError::Refused)?)
    }

    /// Reads a private JWK or one PEM block (`PRIVATE KEY`, RFC 5958; `EC PRIVATE KEY`; `RSA PRIVATE KEY`), at most 64 KiB and
    /// not encrypted.
    ///
    /// # Errors
    /// Refuses public keys ([`KeyError::NotPrivate`]), halves that do not belong together ([`KeyError::Mismatch`],
    /// RUSTSEC-2022-0093), and everything that [`PublicKey::parse`] refuses about material.
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        match Format::of(file)? {
            Format::Json => Self::from_object(&Object::parse(file)?),
            Format::Pem => Self::new(pem::private_key(file)?, Label::default()),
        }
    }

    /// A shared secret for HS256.
    ///
    /// # Errors
    /// [`KeyError::ShortSecret`] under 32 bytes (`docs/protocol.md` §2.2), [`KeyError::TooLarge`] over 1,024.
    pub fn from_secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() > MAX_SECRET_BYTES {
            return Err(KeyError::TooLarge);
        }
        if secret.len() < sealwire_protocol::limits::MIN_HMAC_SECRET_BYTES {
            return Err(KeyError::ShortSecret);
        }
        let label = Label {
            kid: None,
            algorithm: Some(Algorithm::Hs256),
        };
        Ok(Self {
            secret: Secret::Oct(Zeroizing::new(secret.to_vec())),
            label,
        })
    }

    /// An X25519 private key from its 32 bytes (RFC 7748 §5).
    ///
    /// # Errors
    /// [`KeyError::Refused`] if the library does not compute.
    pub fn from_x25519(secret: &[u8; 32]) -> Result<Self, KeyError> {
        let material = Material::X25519(x25519_public(secret));
        Ok(Self {
            secret: Secret::Pair(material, Zeroizing::new(secret.to_vec())),
            label: Label::default(),
        })
    }

    fn from_object(jwk: &Object) -> Result<Self, KeyError> {
        if string(jwk, "kty")? == "oct" {
            let mut key = Self::from_secret(&secret_bytes(jwk, "k")?)?;
            key.label = Label::of(jwk, &[Algorithm::Hs256], true, &["sign", "verify"])?;
            return Ok(key);
        }
        if jwk.member("d").is_none() {
            return Err(KeyError::NotPrivate);
        }
        if jwk.member("oth").is_some() {
            return Err(KeyError::Unsupported);
        }
        let material = public_material(jwk)?;
        let label = Label::of(
            jwk,
            &material.algorithms(),
            material.is_for_signatures(),
            &["sign"],
        )?;
        let secret = match &material {
            Material::Rsa { .. } => {
                let mut members = [(); 6].map(|()| Zeroizing::default());
                for (member, name) in members.iter_mut().zip(RSA_PRIVATE) {
                    *member = secret_bytes(jwk, name)?;
                }
                Secret::Rsa(material, members)
            }
            Material::Ed25519(_) | Material::X25519(_) | Material::Ec { .. } => {
                let d = secret_bytes(jwk, "d")?;
                if d.len() != material.scalar_bytes() {
                    return Err(KeyError::Invalid("d"));
                }
                Secret::Pair(material, d)
            }
        };
        Self::new(secret, label)
    }

    fn new(secret: Secret, label: Label) -> Result<Self, KeyError> {
        let key = Self { secret, label };
        if let Some(material) = key.material() {
            material.check()?;
        }
        if let Secret::Rsa(_, members) = &key.secret {
            let too_long =
                |(member, _): &(&Zeroizing<Vec<u8>>, &str)| member.len() > MAX_RSA_BITS / 8;
            if let Some((_, name)) = members.iter().zip(RSA_PRIVATE).find(too_long) {
                return Err(KeyError::Invalid(name));
            }
        }
        key.check_halves()?;
        Ok(key)
    }

    /// Takes over a key that josekit made, by way of our own reader, and erases josekit's.
    fn from_josekit(jwk: Jwk) -> Result<Self, KeyError> {
        let mut json = Zeroizing::new(jwk.to_string());
        wipe(jwk);
        let key = Self::from_object(&Object::parse(json.as_bytes())?);
        json.zeroize();
        key
    }

    /// The signature made with the private half has to fit the public one.
    fn check_halves(&self) -> Result<(), KeyError> {
        const MESSAGE: &[u8] = b"sealwire key check";
        match &self.secret {
            Secret::Oct(_) => Ok(()),
            Secret::Pair(Material::Ed25519(public), d) => {
                let seed = d
                    .as_slice()
                    .try_into()
                    .map_err(|_| KeyError::Invalid("d"))?;
                let pair = ed25519::SigningKey::from_seed(&ed25519::Seed::new(seed));
                if pair.public() == public {
                    Ok(())
                } else {
                    Err(KeyError::Mismatch)
                }
            }
            Secret::Pair(Material::X25519(public), d) => {
                let secret = d
                    .as_slice()
                    .try_into()
                    .map_err(|_| KeyError::Invalid("d"))?;
                if x25519_public(secret) == *public {
                    Ok(())
                } else {
                    Err(KeyError::Mismatch)
                }
            }
            Secret::Pair(material, _) | Secret::Rsa(material, _) => {
                let algorithm = *material.algorithms().last().ok_or(KeyError::Unsupported)?;
                let signature = self
                    .signer(algorithm)?
                    .sign(MESSAGE)
                    .map_err(|_| KeyError::Mismatch)?;
                let verifier = material.verifier(algorithm)?;
                verifier
                    .verify(MESSAGE, &signature)
                    .map_err(|_| KeyError::Mismatch)
            }
        }
    }

    /// The public half; none for a shared secret.
    #[must_use]
    pub fn public(&self) -> Option<PublicKey> {
        let material = self.material()?.clone();
        Some(PublicKey {
            material,
            label: self.label.clone(),
        })
    }

    /// The `kid`, at most 255 bytes.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.label.kid.as_deref()
    }

    /// The same key under another `kid`.
    ///
    /// # Errors
    /// [`KeyError::Invalid`] if it is empty or longer than 255 bytes.
    pub fn with_kid(mut self, kid: &str) -> Result<Self, KeyError> {
        self.label.kid = Some(checked_kid(kid)?);
        Ok(self)
    }

    /// The same key, named for one signature algorithm.
    ///
    /// # Errors
    /// [`KeyError::WrongAlgorithm`] if it is named for another one already, or is of another type.
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Result<Self, KeyError> {
        if !self.algorithms().contains(&algorithm) {
            return Err(KeyError::WrongAlgorithm);
        }
        self.label.algorithm = Some(algorithm);
        Ok(self)
    }

    /// The signature algorithm that the JWK's `alg` names, if it has one.
    #[must_use]
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.label.algorithm
    }

    /// The signature algorithms that this key may still be used with: one if it is named for one, none for X25519.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let fitting = self
            .material()
            .map_or_else(|| vec![Algorithm::Hs256], Material::algorithms);
        fitting
            .into_iter()
            .filter(|a| self.label.algorithm.is_none_or(|named| named == *a))
            .collect()
    }

    /// The whole JWK, on one line: a secret.
    #[must_use]
    pub fn to_jwk(&self) -> Zeroizing<String> {
        let mut json = Json::new();
        match &self.secret {
            Secret::Pair(material, d) => {
                material.write(&mut json);
                json.bytes("d", d);
            }
            Secret::Rsa(material, members) => {
                material.write(&mut json);
                for (name, member) in RSA_PRIVATE.iter().zip(members) {
                    json.bytes(name, member);
                }
            }
            Secret::Oct(k) => {
                json.text("kty", "oct");
                json.bytes("k", k);
            }
        }
        self.label.write(&mut json);
        json.finish()
    }

    /// The SHA-256 thumbprint (RFC 7638 §3); that of a pair is its public half's.
    ///
    /// The thumbprint of a shared secret is no secret, but lets guesses of a weak one be tested (RFC 7638 §7).
    #[must_use]
    pub fn thumbprint(&self) -> [u8; 32] {
        match &self.secret {
            Secret::Pair(material, _) | Secret::Rsa(material, _) => material.thumbprint(),
            Secret::Oct(k) => {
                let mut json = Json::new();
                json.bytes("k", k);
                json.text("kty", "oct");
                Sha256::digest(json.finish().as_bytes()).into()
            }
        }
    }

    pub(crate) fn is_x25519(&self) -> bool {
        matches!(self.secret, Secret::Pair(Material::X25519(_), _))
    }

    /// josekit's signer. The key must be of the algorithm's type.
    pub(crate) fn signer(&self, algorithm: Algorithm) -> Result<Box<dyn jws::JwsSigner>, KeyError> {
        let jwk = self.josekit()?;
        let signer: Result<Box<dyn jws::JwsSigner>, josekit::JoseError> = match algorithm {
            Algorithm::EdDsa => jws::EdDSA.signer_from_jwk(&jwk).map(|s| Box::new(s) as _),
            Algorithm::Es256 => jws::ES256.signer_from_jwk(&jwk).map(|s| Box::new(s) as _),
            Algorithm::Es384 => jws::ES384.signer_from_jwk(&jwk).map(|s| Box::new(s) as _),
            Algorithm::Ps256 => jws::PS256.signer_from_jwk(&jwk).map(|s| Box::new(s) as _),
            Algorithm::Rs256 => jws::RS256.signer_from_jwk(&jwk).map(|s| Box::new(s) as _),
            Algorithm::Hs256 => jws::HS256.signer_from_jwk(&jwk).map(|s| Box::new(s) as _),
        };
        wipe(jwk);
        signer.map_err(|_| KeyError::Refused)
    }

    /// josekit's form, without `kid`, `alg`, `use` and `key_ops`: those are ours to judge.
    pub(crate) fn josekit(&self) -> Result<Jwk, KeyError> {
        let mut jwk = self
            .material()
            .map_or_else(|| Ok(Jwk::new("oct")), Material::josekit)?;
        match &self.secret {
            Secret::Pair(_, d) => set(&mut jwk, "d", d)?,
            Secret::Rsa(_, members) => {
                for (name, member) in RSA_PRIVATE.iter().zip(members) {
                    set(&mut jwk, name, member)?;
                }
            }
            Secret::Oct(k) => set(&mut jwk, "k", k)?,
        }
        Ok(jwk)
    }

    fn material(&self) -> Option<&Material> {
        match &self.secret {
            Secret::Pair(material, _) | Secret::Rsa(material, _) => Some(material),
            Secret::Oct(_) => None,
        }
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PublicKey({} {})",
            self.material.name(),
            base64url::encode(&self.thumbprint())
        )
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.material() {
            Some(material) => write!(
                f,
                "PrivateKey({} {})",
                material.name(),
                base64url::encode(&material.thumbprint())
            ),
            None => f.write_str("PrivateKey(oct)"),
        }
    }
}

impl Label {
    /// Reads `kid`, `alg`, `use` and `key_ops`, and refuses a key that is for something else.
    ///
    /// `operations`: the `key_ops` of which one has to be there, if any are.
    fn of(
        jwk: &Object,
        fitting: &[Algorithm],
        signs: bool,
        operations: &[&str],
    ) -> Result<Self, KeyError> {
        let kid = optional_string(jwk, "kid")?.map(checked_kid).transpose()?;
        let algorithm = match optional_string(jwk, "alg")? {
            None => None,
            Some("ECDH-ES+A256KW") if !signs => None,
            Some(name) => match Algorithm::from_name(name) {
                Some(algorithm) if fitting.contains(&algorithm) => Some(algorithm),
                Some(_) | None => return Err(KeyError::Unsupported),
            },
        };
        // RFC 7517 §4.2
        match optional_string(jwk, "use")? {
            None => {}
            Some("sig") if signs => {}
            Some("enc") if !signs => {}
            Some(_) => return Err(KeyError::Unsupported),
        }
        // RFC 7517 §4.3
        match jwk.member("key_ops") {
            None => {}
            Some(Value::Array(listed)) => {
                let lists = |wanted: &[&str]| {
                    listed
                        .iter()
                        .any(|op| matches!(op, Value::String(op) if wanted.contains(&op.as_str())))
                };
                // A public ECDH key has no operation of its own and is exported with an empty list.
                let fits = if signs {
                    lists(operations)
                } else {
                    listed.is_empty() || lists(&["deriveKey", "deriveBits"])
                };
                if !fits {
                    return Err(KeyError::Unsupported);
                }
            }
            Some(_) => return Err(KeyError::Invalid("key_ops")),
        }
        Ok(Self { kid, algorithm })
    }

    fn write(&self, json: &mut Json) {
        if let Some(kid) = &self.kid {
            json.text("kid", kid);
        }
        if let Some(algorithm) = self.algorithm {
            json.text("alg", algorithm.name());
        }
    }
}

/// How a key file is written.
pub(crate) enum Format {
    Json,
    Pem,
}

impl Format {
    pub(crate) fn of(file: &[u8]) -> Result<Self, KeyError> {
        if file.len() > MAX_KEY_FILE_BYTES {
            return Err(KeyError::TooLarge);
        }
        Ok(if file.trim_ascii_start().starts_with(b"-----BEGIN ") {
            Self::Pem
        } else {
            Self::Json
        })
    }
}

fn checked_kid(kid: &str) -> Result<Box<str>, KeyError> {
    if kid.is_empty() || kid.len() > MAX_NAME_BYTES {
        return Err(KeyError::Invalid("kid"));
    }
    Ok(kid.into())
}

/// Erases the strings of a josekit key, which does not do it itself.
pub(crate) fn wipe(jwk: Jwk) {
    let members: josekit::Map<String, JoseValue> = jwk.into();
    for (_, value) in members {
        if let JoseValue::String(mut text) = value {
            text.zeroize();
        }
    }
}
