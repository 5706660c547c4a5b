//! The keys that may have signed an issuer's tokens, each with its one algorithm (`docs/protocol.md` §2.2).
//!
//! ```text
//! JWK set, JWK, PEM ──┐
//! shared secret ──────┴── KeySet ── SignatureVerifier ── sealwire_protocol::token
//!      allowed algorithms ──┘         kid picks the key, the key has the algorithm, `alg` only has to agree
//! ```
//! Fetching and refreshing a set is left to the relay: [`SignatureError::UnknownKey`] says when it may be worth it.

use core::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use josekit::jws::{JwsSigner, JwsVerifier};
use sealwire_protocol::{
    json::{Object, Value},
    jws::{SignatureError, SignatureVerifier, Signed},
    key as ed25519,
};
use subtle::ConstantTimeEq;

use crate::{
    Algorithm, Algorithms, KeyError, PrivateKey, PublicKey, key::Format, material::Material,
};

/// Keys in one set.
pub const MAX_KEYS: usize = 64;

/// The keys of one issuer.
pub struct KeySet {
    keys: Vec<SetKey>,
}

struct SetKey {
    kid: Option<Box<str>>,
    algorithm: Algorithm,
    check: Check,
}

/// How a signature is checked.
enum Check {
    /// Strictly (`docs/protocol.md` §1.3), as everywhere in Sealwire; OpenSSL accepts a small-order `R`.
    Ed25519(ed25519::PublicKey),
    Public(Box<dyn JwsVerifier>),
    /// Compared by ourselves: josekit's comparison takes a time that tells.
    Secret(Box<dyn JwsSigner>),
}

impl KeySet {
    /// Reads a JWK set (RFC 7517 §5), one public JWK, or one PEM public key, at most 64 KiB and 64 keys.
    ///
    /// Keys of other types, uses and algorithms are passed over, as RFC 7517 §5 asks; a key that is of ours and not sound
    /// refuses the whole set. A key without `alg` gets the one allowed algorithm that fits it.
    ///
    /// # Errors
    /// Says what is wrong; [`KeyError::Private`] if there is anything secret in it, [`KeyError::NoUsableKey`] if nothing is left.
    pub fn parse(file: &[u8], allowed: Algorithms) -> Result<Self, KeyError> {
        let public = match Format::of(file)? {
            Format::Pem => vec![PublicKey::parse(file)?],
            Format::Json => {
                let object = Object::parse(file)?;
                match object.member("keys") {
                    Some(Value::Array(items)) => public_keys(items)?,
                    Some(_) => return Err(KeyError::Invalid("keys")),
                    None => vec![PublicKey::from_object(&object)?],
                }
            }
        };
        Self::from_public_keys(&public, allowed)
    }

    /// A set of public keys that were read already. Those that `allowed` has no use for are passed over.
    ///
    /// # Errors
    /// [`KeyError::DuplicateKid`], [`KeyError::AmbiguousAlgorithm`], [`KeyError::TooManyKeys`], [`KeyError::NoUsableKey`].
    pub fn from_public_keys(public: &[PublicKey], allowed: Algorithms) -> Result<Self, KeyError> {
        if public.len() > MAX_KEYS {
            return Err(KeyError::TooManyKeys);
        }
        let mut keys: Vec<SetKey> = Vec::with_capacity(public.len());
        for key in public {
            let Some(algorithm) = the_algorithm(key, allowed)? else {
                continue;
            };
            if key.kid().is_some() && keys.iter().any(|other| other.kid.as_deref() == key.kid()) {
                return Err(KeyError::DuplicateKid);
            }
            let check = match key.material() {
                Material::Ed25519(key) => Check::Ed25519(*key),
                material @ (Material::X25519(_) | Material::Ec { .. } | Material::Rsa { .. }) => {
                    Check::Public(material.verifier(algorithm)?)
                }
            };
            keys.push(SetKey {
                kid: key.kid().map(Into::into),
                algorithm,
                check,
            });
        }
        if keys.is_empty() {
            Err(KeyError::NoUsableKey)
        } else {
            Ok(Self { keys })
        }
    }

    /// A set of one secret shared with the issuer, for HS256. There is no other way to allow HS256.
    ///
    /// # Errors
    /// [`KeyError::WrongAlgorithm`] for anything but a shared secret.
    pub fn from_secret(secret: &PrivateKey) -> Result<Self, KeyError> {
        if secret.public().is_some() {
            return Err(KeyError::WrongAlgorithm);
        }
        let check = Check::Secret(secret.signer(Algorithm::Hs256)?);
        let key = SetKey {
            kid: secret.kid().map(Into::into),
            algorithm: Algorithm::Hs256,
            check,
        };
        Ok(Self { keys: vec![key] })
    }

    /// How many keys there are: 1 to 64.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a key set is never empty")]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// The algorithms of the keys.
    pub fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.keys.iter().map(|key| key.algorithm)
    }

    /// The one key that may have signed (`docs/protocol.md` §2.2).
    fn pick(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<&SetKey, SignatureError> {
        let named = self.keys.iter().any(|key| key.kid.is_some());
        match kid {
            // A `kid` is only ever compared: it is no path, no query and no address.
            Some(kid) if named => {
                let key = self
                    .keys
                    .iter()
                    .find(|key| key.kid.as_deref() == Some(kid))
                    .ok_or(SignatureError::UnknownKey)?;
                // RFC 8725 §3.1: the key knows its algorithm; the header only agrees or does not.
                if key.algorithm == algorithm {
                    Ok(key)
                } else {
                    Err(SignatureError::AlgorithmNotAllowed)
                }
            }
            Some(_) | None => {
                let mut fitting = self.keys.iter().filter(|key| key.algorithm == algorithm);
                match (fitting.next(), fitting.next()) {
                    (Some(key), None) => Ok(key),
                    (Some(_), Some(_)) => Err(SignatureError::AmbiguousKey),
                    (None, _) => Err(SignatureError::AlgorithmNotAllowed),
                }
            }
        }
    }
}

/// A key set that others verify with while it is replaced: for a device of an application whose issuer rotates its keys.
///
/// A key stays in the set for as long as what it has signed is to count; with device cards that is 30 days (`docs/protocol.md` §2.3).
#[derive(Debug)]
pub struct RotatingKeySet(RwLock<Arc<KeySet>>);

impl RotatingKeySet {
    /// Begins with `keys`.
    #[must_use]
    pub fn new(keys: KeySet) -> Self {
        Self(RwLock::new(Arc::new(keys)))
    }

    /// Verifies with `keys` from now on.
    pub fn replace(&self, keys: KeySet) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }
}

impl SignatureVerifier for RotatingKeySet {
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        let keys = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        keys.verify(signed)
    }
}

impl SignatureVerifier for KeySet {
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        let algorithm =
            Algorithm::from_name(signed.alg).ok_or(SignatureError::AlgorithmNotAllowed)?;
        let key = self.pick(signed.kid, algorithm)?;
        let fits = match &key.check {
            Check::Ed25519(key) => match signed.signature.try_into() {
                Ok(signature) => key.verify(signed.signing_input, signature).is_ok(),
                Err(_) => false,
            },
            Check::Public(verifier) => verifier
                .verify(signed.signing_input, signed.signature)
                .is_ok(),
            Check::Secret(signer) => match signer.sign(signed.signing_input) {
                Ok(expected) => bool::from(expected.as_slice().ct_eq(signed.signature)),
                Err(_) => false,
            },
        };
        if fits {
            Ok(())
        } else {
            Err(SignatureError::Invalid)
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.keys.iter().map(|key| (key.algorithm, &key.kid)))
            .finish()
    }
}

fn public_keys(items: &[Value]) -> Result<Vec<PublicKey>, KeyError> {
    if items.len() > MAX_KEYS {
        return Err(KeyError::TooManyKeys);
    }
    let mut keys = Vec::with_capacity(items.len());
    for item in items {
        let Value::Object(jwk) = item else {
            return Err(KeyError::Invalid("keys"));
        };
        match PublicKey::from_object(jwk) {
            Ok(key) => keys.push(key),
            Err(KeyError::Unsupported) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(keys)
}

/// One key, one algorithm: that of its `alg` if it is allowed, else the only allowed one that fits (RFC 8725 §3.2).
fn the_algorithm(key: &PublicKey, allowed: Algorithms) -> Result<Option<Algorithm>, KeyError> {
    if let Some(named) = key.algorithm() {
        return Ok(allowed.allows(named).then_some(named));
    }
    let mut fitting = key
        .material()
        .algorithms()
        .into_iter()
        .filter(|a| allowed.allows(*a));
    match (fitting.next(), fitting.next()) {
        (only, None) => Ok(only),
        (_, Some(_)) => Err(KeyError::AmbiguousAlgorithm),
    }
}
