//! An issuer's Ed25519 keys, for whoever verifies tokens without a general JOSE library: the devices.

use alloc::{boxed::Box, vec::Vec};

use crate::{
    json::{JsonError, Object, Value},
    jws::{SignatureError, SignatureVerifier, Signed},
    key::{JwkError, PublicKey},
    limits::MAX_NAME_BYTES,
};

/// Longest JWK set that is read, in bytes. The protocol has no number for it: it is this verifier's configuration.
const MAX_KEY_SET_BYTES: usize = 65_536;

/// Why a JWK set is not usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// Longer than 65,536 bytes.
    #[error("the JWK set is longer than 65536 bytes")]
    TooLong,
    /// Not acceptable JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// There is no `keys` array of objects (RFC 7517 §5).
    #[error("the JWK set has no \"keys\" array of objects")]
    NoKeys,
    /// An Ed25519 key is not usable.
    #[error(transparent)]
    Jwk(#[from] JwkError),
    /// A `kid` is not a string of at most 255 bytes.
    #[error("a \"kid\" is not a string of at most 255 bytes")]
    Kid,
    /// Two keys have the same `kid`.
    #[error("two keys of the set have the same \"kid\"")]
    DuplicateKid,
}

/// Ed25519 keys of one issuer, each with its `kid` if it has one.
#[derive(Clone, Debug, Default)]
pub struct Ed25519KeySet {
    keys: Vec<(Option<Box<str>>, PublicKey)>,
}

impl Ed25519KeySet {
    /// One key, without a `kid`: tokens signed by it are accepted with any `kid` or none.
    #[must_use]
    pub fn single(key: PublicKey) -> Self {
        Self {
            keys: alloc::vec![(None, key)],
        }
    }

    /// Reads a JWK set (RFC 7517 §5). Keys of other types are ignored.
    ///
    /// # Errors
    /// Says what is wrong with the set or one of its Ed25519 keys.
    pub fn from_jwks(json: &[u8]) -> Result<Self, KeySetError> {
        if json.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLong);
        }
        let set = Object::parse(json)?;
        let Some(Value::Array(entries)) = set.member("keys") else {
            return Err(KeySetError::NoKeys);
        };
        let mut keys = Vec::new();
        for entry in entries {
            let Value::Object(jwk) = entry else {
                return Err(KeySetError::NoKeys);
            };
            let key = match PublicKey::from_jwk(jwk) {
                // RFC 7517 §5: what is not understood is ignored.
                Err(JwkError::NotEd25519) => continue,
                key => key?,
            };
            let kid: Option<Box<str>> = match jwk.member("kid") {
                None => None,
                Some(Value::String(kid)) if kid.len() <= MAX_NAME_BYTES => {
                    Some(kid.as_str().into())
                }
                Some(_) => return Err(KeySetError::Kid),
            };
            if kid.is_some() && keys.iter().any(|(known, _)| *known == kid) {
                return Err(KeySetError::DuplicateKid);
            }
            keys.push((kid, key));
        }
        Ok(Self { keys })
    }

    /// `docs/protocol.md` §2.2: where the set has `kid`s, a token's `kid` names one of them; otherwise there is exactly one key.
    fn key(&self, kid: Option<&str>) -> Result<&PublicKey, SignatureError> {
        let named = self.keys.iter().any(|(kid, _)| kid.is_some());
        if let Some(kid) = kid.filter(|_| named) {
            let key = self
                .keys
                .iter()
                .find(|(known, _)| known.as_deref() == Some(kid));
            return key.map(|(_, key)| key).ok_or(SignatureError::UnknownKey);
        }
        match self.keys.as_slice() {
            [] => Err(SignatureError::UnknownKey),
            [(_, key)] => Ok(key),
            _ => Err(SignatureError::AmbiguousKey),
        }
    }
}

impl SignatureVerifier for Ed25519KeySet {
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        SignatureVerifier::verify(self.key(signed.kid)?, signed)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::String};

    use super::*;
    use crate::key::{Seed, SigningKey};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Seed::new([seed; 32]))
    }

    /// A JWK of this key, with more members before it.
    fn jwk(members: &str, seed: u8) -> String {
        format!("{{{members}{}", &key(seed).public().to_jwk()[1..])
    }

    fn set(keys: &[String]) -> Result<Ed25519KeySet, KeySetError> {
        Ed25519KeySet::from_jwks(format!(r#"{{"keys":[{}]}}"#, keys.join(",")).as_bytes())
    }

    fn verify(
        set: &Ed25519KeySet,
        alg: &str,
        kid: Option<&str>,
        seed: u8,
    ) -> Result<(), SignatureError> {
        let signature = key(seed).sign(b"input");
        SignatureVerifier::verify(
            set,
            Signed {
                alg,
                kid,
                signing_input: b"input",
                signature: &signature,
            },
        )
    }

    #[test]
    fn kid_picks_the_key() {
        let set = set(&[
            jwk(r#""kid":"a","#, 1),
            jwk(r#""kid":"b","alg":"EdDSA","use":"sig","#, 2),
        ])
        .unwrap();
        assert_eq!(verify(&set, "EdDSA", Some("a"), 1), Ok(()));
        assert_eq!(verify(&set, "Ed25519", Some("b"), 2), Ok(()));
    }

    /// docs/protocol.md §2.2
    #[test]
    fn kid_that_names_no_key_or_another_key_is_refused() {
        let set = set(&[jwk(r#""kid":"a","#, 1), jwk(r#""kid":"b","#, 2)]).unwrap();
        assert_eq!(
            verify(&set, "EdDSA", Some("c"), 1),
            Err(SignatureError::UnknownKey)
        );
        assert_eq!(
            verify(&set, "EdDSA", Some("A"), 1),
            Err(SignatureError::UnknownKey)
        );
        assert_eq!(
            verify(&set, "EdDSA", Some(""), 1),
            Err(SignatureError::UnknownKey)
        );
        assert_eq!(
            verify(&set, "EdDSA", Some("b"), 1),
            Err(SignatureError::Invalid)
        );
        assert_eq!(
            verify(&Ed25519KeySet::default(), "EdDSA", Some("a"), 1),
            Err(SignatureError::UnknownKey)
        );
    }

    /// docs/protocol.md §2.2
    #[test]
    fn token_without_kid_is_accepted_only_if_there_is_one_key() {
        let one = set(&[jwk(r#""kid":"a","#, 1)]).unwrap();
        assert_eq!(verify(&one, "EdDSA", None, 1), Ok(()));
        let two = set(&[jwk(r#""kid":"a","#, 1), jwk("", 2)]).unwrap();
        assert_eq!(
            verify(&two, "EdDSA", None, 1),
            Err(SignatureError::AmbiguousKey)
        );
        let unnamed = set(&[jwk("", 1), jwk("", 2)]).unwrap();
        assert_eq!(
            verify(&unnamed, "EdDSA", Some("a"), 1),
            Err(SignatureError::AmbiguousKey)
        );
        assert_eq!(
            verify(
                &Ed25519KeySet::single(*key(1).public()),
                "EdDSA",
                Some("any"),
                1
            ),
            Ok(())
        );
    }

    /// docs/protocol.md §2.1: `alg` is compared, and never selects.
    #[test]
    fn other_algorithms_are_refused_whatever_the_signature() {
        let set = Ed25519KeySet::single(*key(1).public());
        for alg in [
            "", "none", "eddsa", "ed25519", "Ed448", "HS256", "ES256", "RS256", "EdDSA ",
        ] {
            assert_eq!(
                verify(&set, alg, None, 1),
                Err(SignatureError::AlgorithmNotAllowed),
                "{alg}"
            );
        }
    }

    /// docs/protocol.md §2.2
    #[test]
    fn signature_of_another_length_is_refused() {
        let signature = key(1).sign(b"input");
        for signature in [
            &signature[..63],
            &[signature.as_slice(), &[0]].concat(),
            b"x",
        ] {
            let signed = Signed {
                alg: "EdDSA",
                kid: None,
                signing_input: b"input",
                signature,
            };
            assert_eq!(
                SignatureVerifier::verify(key(1).public(), signed),
                Err(SignatureError::Invalid)
            );
        }
    }

    #[test]
    fn keys_of_other_types_and_uses_are_left_out() {
        let rsa = String::from(r#"{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}"#);
        let set = set(&[
            rsa,
            jwk(r#""use":"enc","kid":"e","#, 2),
            jwk(r#""kid":"a","#, 1),
        ])
        .unwrap();
        assert_eq!(verify(&set, "EdDSA", None, 1), Ok(()));
        assert_eq!(
            verify(&set, "EdDSA", Some("e"), 2),
            Err(SignatureError::UnknownKey)
        );
    }

    /// docs/protocol.md §2.2
    #[test]
    fn key_set_that_cannot_be_trusted_is_refused_as_a_whole() {
        let refused = |keys: &[String]| set(keys).map(|_| ()).unwrap_err();
        assert_eq!(
            refused(&[jwk(r#""kid":"a","#, 1), jwk(r#""kid":"a","#, 2)]),
            KeySetError::DuplicateKid
        );
        assert_eq!(refused(&[jwk(r#""kid":1,"#, 1)]), KeySetError::Kid);
        assert_eq!(
            refused(&[jwk(&format!(r#""kid":"{}","#, "k".repeat(256)), 1)]),
            KeySetError::Kid
        );
        assert_eq!(
            refused(&[jwk(r#""d":"AA","#, 1)]),
            KeySetError::Jwk(JwkError::Private)
        );
        assert_eq!(
            refused(&[String::from(r#"{"kty":"oct","k":"AA"}"#)]),
            KeySetError::Jwk(JwkError::Private)
        );
        assert_eq!(refused(&["1".into()]), KeySetError::NoKeys);
        let refused = |json: &[u8]| Ed25519KeySet::from_jwks(json).map(|_| ()).unwrap_err();
        assert_eq!(refused(b"{}"), KeySetError::NoKeys);
        assert_eq!(refused(br#"{"keys":{}}"#), KeySetError::NoKeys);
        assert_eq!(refused(b"[]"), KeySetError::Json(JsonError::NotAnObject));
        assert_eq!(
            refused(br#"{"keys":[],"keys":[]}"#),
            KeySetError::Json(JsonError::DuplicateMember)
        );
        assert_eq!(refused(&[b' '; 65_537]), KeySetError::TooLong);
    }
}
