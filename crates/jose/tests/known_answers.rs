//! The examples of RFC 7515, 7516, 7517, 7638 and 8037.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use sealwire_jose::{
    Algorithms, JweFault, KeyError, KeySet, OpenError, PrivateKey, PublicKey, SigningKey, jwe,
};
use sealwire_protocol::{
    base64url,
    jws::{JwsError, JwtType, SignatureError, SignatureVerifier, Signed, UnverifiedJws},
};
use serde_json::Value;

fn vectors(file: &str) -> Vec<Value> {
    let path = format!("{}/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read(path).unwrap();
    let Value::Array(list) = serde_json::from_slice(&text).unwrap() else {
        panic!("{file} is not a list")
    };
    assert!(!list.is_empty());
    list
}

fn text<'v>(vector: &'v Value, member: &str) -> &'v str {
    vector[member].as_str().unwrap()
}

/// The set that an operator would configure for this private key.
fn set_of(jwk: &Value) -> Result<KeySet, KeyError> {
    let private = PrivateKey::parse(jwk.to_string().as_bytes())?;
    match private.public() {
        Some(public) => KeySet::from_public_keys(&[public], Algorithms::PUBLIC_KEY),
        None => KeySet::from_secret(&private),
    }
}

/// One algorithm for a key that could have two.
fn with_alg(vector: &Value) -> Value {
    let mut jwk = vector["jwk"].clone();
    jwk["alg"] = vector["alg"].clone();
    jwk
}

#[test]
fn signatures_of_the_rfcs_verify_or_are_not_supported() {
    for vector in vectors("signatures.json") {
        let name = text(&vector, "name");
        let set = set_of(&with_alg(&vector));
        if vector["accepted"] == false {
            assert_eq!(set.map(|_| ()), Err(KeyError::Unsupported), "{name}");
            continue;
        }
        let signature = base64url::decode(text(&vector, "signature").as_bytes()).unwrap();
        let input = text(&vector, "signing_input").as_bytes();
        let signed = Signed {
            alg: text(&vector, "alg"),
            kid: None,
            signing_input: input,
            signature: &signature,
        };
        let set = set.unwrap();
        assert_eq!(set.verify(signed), Ok(()), "{name}");

        // One bit anywhere in the signature, or another length.
        for at in 0..signature.len() {
            let mut damaged = signature.clone();
            damaged[at] ^= 1;
            assert_eq!(
                set.verify(Signed {
                    signature: &damaged,
                    ..signed
                }),
                Err(SignatureError::Invalid),
                "{name} {at}"
            );
        }
        for cut in [1, signature.len() / 2, signature.len() - 1] {
            let short = &signature[..cut];
            assert_eq!(
                set.verify(Signed {
                    signature: short,
                    ..signed
                }),
                Err(SignatureError::Invalid),
                "{name} {cut}"
            );
        }
        let long = [signature.as_slice(), &[0]].concat();
        assert_eq!(
            set.verify(Signed {
                signature: &long,
                ..signed
            }),
            Err(SignatureError::Invalid),
            "{name}"
        );
        let other = [input, b"A"].concat();
        assert_eq!(
            set.verify(Signed {
                signing_input: &other,
                ..signed
            }),
            Err(SignatureError::Invalid),
            "{name}"
        );
    }
}

/// Ed25519, PKCS #1 and HMAC signatures are deterministic, so ours have to be those of the RFCs.
#[test]
fn deterministic_signatures_come_out_as_in_the_rfcs() {
    let mut compared = 0;
    for vector in vectors("signatures.json") {
        if !matches!(text(&vector, "alg"), "EdDSA" | "RS256" | "HS256") {
            continue;
        }
        let key = PrivateKey::parse(with_alg(&vector).to_string().as_bytes()).unwrap();
        let token = SigningKey::new(&key)
            .unwrap()
            .json("example", br#"{"a":1}"#)
            .unwrap();
        // Ours has another header than the RFC's, so it is signed again by the RFC's own key through josekit.
        let (input, signature) = token.rsplit_once('.').unwrap();
        let jwk = josekit::jwk::Jwk::from_bytes(with_alg(&vector).to_string()).unwrap();
        let signer: Box<dyn josekit::jws::JwsSigner> = match text(&vector, "alg") {
            "EdDSA" => Box::new(josekit::jws::EdDSA.signer_from_jwk(&jwk).unwrap()),
            "RS256" => Box::new(josekit::jws::RS256.signer_from_jwk(&jwk).unwrap()),
            _ => Box::new(josekit::jws::HS256.signer_from_jwk(&jwk).unwrap()),
        };
        let rfc = text(&vector, "signing_input").as_bytes();
        assert_eq!(
            base64url::encode(&signer.sign(rfc).unwrap()),
            text(&vector, "signature")
        );
        assert_eq!(
            base64url::encode(&signer.sign(input.as_bytes()).unwrap()),
            signature
        );
        compared += 1;
    }
    assert_eq!(compared, 3);
}

/// RFC 7515 A.5, docs/protocol.md §2.1: an unsecured JWS never gets as far as a key.
#[test]
fn unsecured_jws_of_the_rfc_is_refused() {
    for vector in vectors("unsecured.json") {
        let compact = text(&vector, "compact").as_bytes();
        let error = UnverifiedJws::parse(compact, &[JwtType::AccessToken]).unwrap_err();
        assert_eq!(error, JwsError::MissingMember("typ"));
    }
}

/// RFC 7638 §3.1, RFC 8037 A.3.
#[test]
fn thumbprints_of_the_rfcs() {
    for vector in vectors("thumbprints.json") {
        let key = PublicKey::parse(vector["jwk"].to_string().as_bytes()).unwrap();
        assert_eq!(
            base64url::encode(&key.thumbprint()),
            text(&vector, "thumbprint"),
            "{}",
            text(&vector, "name")
        );
    }
    for vector in vectors("signatures.json")
        .iter()
        .filter(|v| v["accepted"] == true)
    {
        let key = PrivateKey::parse(vector["jwk"].to_string().as_bytes()).unwrap();
        if let Some(public) = key.public() {
            assert_eq!(key.thumbprint(), public.thumbprint());
        }
    }
}

/// RFC 7517 A.1 to A.3: only the first is a set to verify with.
#[test]
fn key_sets_of_the_rfc_are_taken_only_without_secrets() {
    for vector in vectors("key_sets.json") {
        let set = KeySet::parse(vector["set"].to_string().as_bytes(), Algorithms::PUBLIC_KEY);
        match text(&vector, "name") {
            // Its EC key is for encryption and passed over.
            "public" => assert_eq!(set.unwrap().len(), 1),
            _ => assert_eq!(set.map(|_| ()), Err(KeyError::Private)),
        }
    }
}

/// RFC 7516 A.1 to A.3: other algorithms than the one of docs/protocol.md §10.
#[test]
fn jwe_of_other_algorithms_are_refused() {
    let key = PrivateKey::generate(sealwire_jose::KeyType::X25519).unwrap();
    for vector in vectors("jwe_other_algorithms.json") {
        let error = jwe::open_with(&key, text(&vector, "compact").as_bytes()).unwrap_err();
        assert!(
            matches!(
                error,
                OpenError::Malformed(JweFault::Alg | JweFault::EncryptedKey | JweFault::Iv)
            ),
            "{}: {error}",
            text(&vector, "name")
        );
    }
}

/// docs/protocol.md §10: JWE by other libraries, as they were made.
#[test]
fn jwe_by_other_libraries_open() {
    for vector in vectors("jwe_by_others.json") {
        let key = PrivateKey::parse(vector["jwk"].to_string().as_bytes()).unwrap();
        let opened = jwe::open_with(&key, text(&vector, "jwe").as_bytes()).unwrap();
        assert_eq!(
            opened.plaintext.as_slice(),
            text(&vector, "plaintext").as_bytes()
        );
        assert_eq!(opened.header.cty.as_deref(), vector["cty"].as_str());
        assert_eq!(opened.header.kid.as_deref(), vector["kid"].as_str());
    }
}
