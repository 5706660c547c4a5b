//! Tokens, in and out: RFC 8725 as a checklist, and `docs/protocol.md` §2.2 on keys and algorithms.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use sealwire_jose::{
    Algorithm, Algorithms, Claims, KeyError, KeySet, KeyType, MintError, PrivateKey, PublicKey,
    RotatingKeySet, SigningKey, TokenVerifier,
};
use sealwire_protocol::token::{AccessPolicy, UnverifiedAccessToken};
use sealwire_protocol::{
    ClaimDefect, TokenError, base64url,
    json::{JsonError, Object, Value as Json},
    jws::{JwsError, JwtType, SignatureError, SignatureVerifier, Signed, UnverifiedJws},
    key::Thumbprint,
    name::Issuer,
};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "relay.example";

fn key(algorithm: Algorithm) -> PrivateKey {
    let kind = match algorithm {
        Algorithm::EdDsa => KeyType::Ed25519,
        Algorithm::Es256 => KeyType::P256,
        Algorithm::Es384 => KeyType::P384,
        Algorithm::Ps256 | Algorithm::Rs256 => KeyType::Rsa2048,
        Algorithm::Hs256 => KeyType::Oct,
    };
    PrivateKey::generate(kind)
        .unwrap()
        .with_algorithm(algorithm)
        .unwrap()
}

fn set(key: &PrivateKey) -> KeySet {
    match key.public() {
        Some(public) => KeySet::from_public_keys(&[public], Algorithms::PUBLIC_KEY).unwrap(),
        None => KeySet::from_secret(key).unwrap(),
    }
}

fn verifier(keys: KeySet) -> TokenVerifier {
    TokenVerifier::new(Issuer::new(ISSUER).unwrap(), AUDIENCE, keys)
}

fn claims() -> Claims<'static> {
    Claims {
        issuer: ISSUER,
        user: "alice",
        audience: AUDIENCE,
        issued: NOW,
        expires: NOW + 600,
        id: Some("1"),
        device: Thumbprint::from_bytes([7; 32]),
        scope: Some("sealwire:send sealwire:receive"),
        authorization_details: None,
    }
}

/// Signs any header and claims with any of our keys, as an attacker with that key would.
fn forge(key: &PrivateKey, algorithm: Algorithm, header: &str, payload: &str) -> String {
    let input = format!(
        "{}.{}",
        base64url::encode(header.as_bytes()),
        base64url::encode(payload.as_bytes())
    );
    // The signature over other input than ours comes from josekit, by the same key.
    let jwk = josekit::jwk::Jwk::from_bytes(key.to_jwk().as_bytes()).unwrap();
    use josekit::jws;
    let signer: Box<dyn jws::JwsSigner> = match algorithm {
        Algorithm::EdDsa => Box::new(jws::EdDSA.signer_from_jwk(&jwk).unwrap()),
        Algorithm::Es256 => Box::new(jws::ES256.signer_from_jwk(&jwk).unwrap()),
        Algorithm::Es384 => Box::new(jws::ES384.signer_from_jwk(&jwk).unwrap()),
        Algorithm::Ps256 => Box::new(jws::PS256.signer_from_jwk(&jwk).unwrap()),
        Algorithm::Rs256 => Box::new(jws::RS256.signer_from_jwk(&jwk).unwrap()),
        Algorithm::Hs256 => Box::new(jws::HS256.signer_from_jwk(&jwk).unwrap()),
    };
    let signature = signer.sign(input.as_bytes()).unwrap();
    format!("{input}.{}", base64url::encode(&signature))
}

fn payload() -> String {
    serde_json::to_string(&claims()).unwrap()
}

fn check(keys: &KeySet, token: &str) -> Result<(), SignatureError> {
    UnverifiedJws::parse(token.as_bytes(), &[JwtType::AccessToken])
        .unwrap()
        .verify(keys)
        .map(drop)
}

#[test]
fn token_of_every_algorithm_is_minted_and_verified() {
    for algorithm in Algorithm::ALL {
        let key = key(algorithm).with_kid("k1").unwrap();
        let signer = SigningKey::new(&key).unwrap();
        let verifier = verifier(set(&key));
        let token = signer.access_token(&claims()).unwrap();
        let verified = verifier.access_token(token.as_bytes(), NOW).unwrap();
        assert_eq!(verified.claims().user.as_str(), "alice");
        assert_eq!(verified.claims().device, Thumbprint::from_bytes([7; 32]));
        assert_eq!(
            (verified.claims().issued, verified.claims().expires),
            (NOW, NOW + 600)
        );
        assert!(verified.claims().permissions.send && !verified.claims().permissions.publish);

        let attestation = signer
            .attestation(&Claims {
                scope: None,
                ..claims()
            })
            .unwrap();
        let verified = verifier
            .attestation(attestation.as_bytes(), NOW + 86_400)
            .unwrap();
        assert_eq!(verified.user().as_str(), "alice");
        // An attestation is not an access token (docs/protocol.md §2.1, 5).
        let error = verifier
            .access_token(attestation.as_bytes(), NOW)
            .unwrap_err();
        assert_eq!(error, TokenError::Jws(JwsError::UnexpectedType));
    }
}

#[test]
fn minted_header_is_exactly_alg_typ_and_kid() {
    let key = key(Algorithm::EdDsa).with_kid("a\"b").unwrap();
    let token = SigningKey::new(&key)
        .unwrap()
        .access_token(&claims())
        .unwrap();
    let header = base64url::decode(token.split('.').next().unwrap().as_bytes()).unwrap();
    assert_eq!(header, br#"{"alg":"EdDSA","typ":"at+jwt","kid":"a\"b"}"#);
    let jws = UnverifiedJws::parse(token.as_bytes(), &[JwtType::AccessToken]).unwrap();
    for time in ["iat", "exp"] {
        assert!(
            matches!(jws.payload().member(time), Some(Json::Integer(_))),
            "whole seconds"
        );
    }
}

/// RFC 9864: the fully specified name is the same algorithm.
#[test]
fn token_whose_alg_is_ed25519_verifies() {
    let key = key(Algorithm::EdDsa);
    let token = forge(
        &key,
        Algorithm::EdDsa,
        r#"{"alg":"Ed25519","typ":"at+jwt"}"#,
        &payload(),
    );
    assert_eq!(check(&set(&key), &token), Ok(()));
}

/// CVE-2015-9235, RFC 8725 §2.1: the public key as an HMAC secret, in each form that an attacker could have it.
#[test]
fn hmac_with_a_public_key_is_refused() {
    for algorithm in [
        Algorithm::Rs256,
        Algorithm::Ps256,
        Algorithm::Es256,
        Algorithm::EdDsa,
    ] {
        let key = key(algorithm);
        let set = set(&key);
        let public = key.public().unwrap();
        let mut secrets = vec![public.to_jwk().into_bytes(), public.thumbprint().to_vec()];
        if let Ok(pair) = josekit::jwk::alg::rsa::RsaKeyPair::from_jwk(
            &josekit::jwk::Jwk::from_bytes(key.to_jwk().as_bytes()).unwrap(),
        ) {
            use josekit::jwk::KeyPair;
            secrets.extend([pair.to_pem_public_key(), pair.to_der_public_key()]);
        }
        for secret in secrets {
            let hmac = PrivateKey::from_secret(&secret).unwrap();
            for header in [
                r#"{"alg":"HS256","typ":"at+jwt"}"#.to_owned(),
                format!(r#"{{"alg":"{algorithm}","typ":"at+jwt"}}"#),
            ] {
                let token = forge(&hmac, Algorithm::Hs256, &header, &payload());
                let error = check(&set, &token).unwrap_err();
                assert!(
                    matches!(
                        error,
                        SignatureError::AlgorithmNotAllowed | SignatureError::Invalid
                    ),
                    "{header}"
                );
            }
        }
        assert_eq!(
            KeySet::from_secret(&key).map(|_| ()),
            Err(KeyError::WrongAlgorithm)
        );
    }
}

/// HS256 comes only from a configured secret: an `oct` key in a set is a secret given away.
#[test]
fn shared_secret_in_a_key_set_is_refused() {
    let secret = key(Algorithm::Hs256);
    let file = format!(r#"{{"keys":[{}]}}"#, *secret.to_jwk());
    let all: Algorithms = Algorithm::ALL.into_iter().collect();
    assert_eq!(
        KeySet::parse(file.as_bytes(), all).map(|_| ()),
        Err(KeyError::Private)
    );
    assert_eq!(
        KeySet::parse(secret.to_jwk().as_bytes(), all).map(|_| ()),
        Err(KeyError::Private)
    );
}

/// docs/protocol.md §2.1: `none` is always refused, in every spelling, and never matches a key.
#[test]
fn unsecured_token_is_refused() {
    let verifier = verifier(set(&key(Algorithm::EdDsa)));
    for none in ["none", "None", "NONE", "nOnE"] {
        let header = base64url::encode(format!(r#"{{"alg":"{none}","typ":"at+jwt"}}"#).as_bytes());
        let body = base64url::encode(payload().as_bytes());
        let unsigned = format!("{header}.{body}.");
        let error = verifier.access_token(unsigned.as_bytes(), NOW).unwrap_err();
        assert!(
            matches!(
                error,
                TokenError::Jws(JwsError::Unsecured | JwsError::EmptyPart(_))
            ),
            "{none}: {error}"
        );
        let with_signature = format!("{header}.{body}.AAAA");
        let error = verifier
            .access_token(with_signature.as_bytes(), NOW)
            .unwrap_err();
        assert_eq!(error, TokenError::Jws(JwsError::Unsecured), "{none}");
        let signed = Signed {
            alg: none,
            kid: None,
            signing_input: b"x",
            signature: b"",
        };
        assert_eq!(
            verifier.keys().verify(signed),
            Err(SignatureError::AlgorithmNotAllowed)
        );
    }
}

/// RFC 8725 §3.1 and §3.2: one key, one algorithm, and `alg` never chooses.
#[test]
fn key_is_used_with_its_own_algorithm_only() {
    for own in [Algorithm::Rs256, Algorithm::Ps256] {
        let other = if own == Algorithm::Rs256 {
            Algorithm::Ps256
        } else {
            Algorithm::Rs256
        };
        let key = key(own).with_kid("k").unwrap();
        let set = set(&key);
        let mut free: Value = serde_json::from_str(&key.to_jwk()).unwrap();
        free.as_object_mut().unwrap().remove("alg");
        let free = PrivateKey::parse(free.to_string().as_bytes()).unwrap();
        // An honest token under the other algorithm, and one that lies about it.
        for (header_alg, error) in [
            (other, SignatureError::AlgorithmNotAllowed),
            (own, SignatureError::Invalid),
        ] {
            for kid in ["", r#","kid":"k""#] {
                let header = format!(r#"{{"alg":"{header_alg}","typ":"at+jwt"{kid}}}"#);
                let token = forge(&free, other, &header, &payload());
                assert_eq!(check(&set, &token), Err(error), "{header}");
            }
        }
    }
    for own in Algorithm::ALL {
        let set = set(&key(own));
        for alg in Algorithm::ALL.into_iter().filter(|alg| *alg != own) {
            let signed = Signed {
                alg: alg.name(),
                kid: None,
                signing_input: b"x",
                signature: &[0; 64],
            };
            assert_eq!(
                set.verify(signed),
                Err(SignatureError::AlgorithmNotAllowed),
                "{own} {alg}"
            );
        }
        for alg in [
            "", "eddsa", "RS512", "HS512", "ES256K", "RSA1_5", "dir", "../none",
        ] {
            let signed = Signed {
                alg,
                kid: None,
                signing_input: b"x",
                signature: &[0; 64],
            };
            assert_eq!(
                set.verify(signed),
                Err(SignatureError::AlgorithmNotAllowed),
                "{own} {alg}"
            );
        }
    }
}

#[test]
fn algorithm_outside_the_allow_list_is_passed_over() {
    let ed = key(Algorithm::EdDsa).public().unwrap();
    let es = key(Algorithm::Es256).public().unwrap();
    let only = Algorithms::of(&[Algorithm::Es256]);
    let set = KeySet::from_public_keys(&[ed.clone(), es], only).unwrap();
    assert_eq!(set.algorithms().collect::<Vec<_>>(), [Algorithm::Es256]);
    assert_eq!(
        KeySet::from_public_keys(&[ed], only).map(|_| ()),
        Err(KeyError::NoUsableKey)
    );
}

/// docs/protocol.md §2.2: `kid` names a key of the set.
#[test]
fn kid_picks_the_key_and_is_nothing_but_compared() {
    let first = key(Algorithm::EdDsa).with_kid("one").unwrap();
    let second = key(Algorithm::EdDsa).with_kid("two").unwrap();
    let publics = [first.public().unwrap(), second.public().unwrap()];
    let set = KeySet::from_public_keys(&publics, Algorithms::PUBLIC_KEY).unwrap();
    let token = |key: &PrivateKey, kid: Option<&str>| {
        let kid = kid.map_or(String::new(), |kid| {
            format!(r#","kid":{}"#, Value::from(kid))
        });
        forge(
            key,
            Algorithm::EdDsa,
            &format!(r#"{{"alg":"EdDSA","typ":"at+jwt"{kid}}}"#),
            &payload(),
        )
    };
    let bare = |key: &PrivateKey| {
        let mut jwk: Value = serde_json::from_str(&key.to_jwk()).unwrap();
        jwk.as_object_mut().unwrap().remove("kid");
        PrivateKey::parse(jwk.to_string().as_bytes()).unwrap()
    };
    assert_eq!(check(&set, &token(&bare(&first), Some("one"))), Ok(()));
    assert_eq!(check(&set, &token(&bare(&second), Some("two"))), Ok(()));
    assert_eq!(
        check(&set, &token(&bare(&first), Some("two"))),
        Err(SignatureError::Invalid)
    );
    assert_eq!(
        check(&set, &token(&bare(&first), None)),
        Err(SignatureError::AmbiguousKey)
    );
    for kid in [
        "",
        "ONE",
        "one ",
        "on",
        "one\0",
        "../../etc/passwd",
        "/dev/null",
        "' OR 1=1 --",
        "x' UNION SELECT 'key",
        "http://127.0.0.1/k",
        "file:///etc/passwd",
        "| whoami",
        "${jndi:ldap://x}",
        "öne",
        "*",
        "0",
    ] {
        assert_eq!(
            check(&set, &token(&bare(&first), Some(kid))),
            Err(SignatureError::UnknownKey),
            "{kid:?}"
        );
    }
}

#[test]
fn token_without_kid_needs_exactly_one_fitting_key() {
    let ed = key(Algorithm::EdDsa);
    let es = key(Algorithm::Es256);
    let labelled = es.public().unwrap().with_kid("es").unwrap();
    let set = KeySet::from_public_keys(&[ed.public().unwrap(), labelled], Algorithms::PUBLIC_KEY)
        .unwrap();
    let token = SigningKey::new(&es)
        .unwrap()
        .access_token(&claims())
        .unwrap();
    assert_eq!(check(&set, &token), Ok(()));
    // A key without `kid` in a set with `kid`s is never reached by a `kid`.
    let named = SigningKey::new(&ed.with_kid("ed").unwrap())
        .unwrap()
        .access_token(&claims())
        .unwrap();
    assert_eq!(check(&set, &named), Err(SignatureError::UnknownKey));
}

#[test]
fn set_without_kids_ignores_the_token_s() {
    let ed = key(Algorithm::EdDsa);
    let keys = set(&ed);
    let token = SigningKey::new(&ed.with_kid("whatever").unwrap())
        .unwrap()
        .access_token(&claims())
        .unwrap();
    assert_eq!(check(&keys, &token), Ok(()));
}

#[test]
fn key_set_that_is_not_sound_is_refused() {
    let ed = key(Algorithm::EdDsa)
        .public()
        .unwrap()
        .with_kid("a")
        .unwrap();
    let jwk = ed.to_jwk();
    let rsa = PrivateKey::generate(KeyType::Rsa2048)
        .unwrap()
        .public()
        .unwrap();
    let many = format!(r#"{{"keys":[{}]}}"#, vec![jwk.as_str(); 65].join(","));
    let all = Algorithms::PUBLIC_KEY;
    let cases: Vec<(String, KeyError)> = vec![
        (r#"{"keys":{}}"#.into(), KeyError::Invalid("keys")),
        (r#"{"keys":null}"#.into(), KeyError::Invalid("keys")),
        (r#"{"keys":[1]}"#.into(), KeyError::Invalid("keys")),
        (r#"{"keys":[]}"#.into(), KeyError::NoUsableKey),
        (
            r#"{"keys":[{"kty":"AKP","alg":"ML-DSA-65"}]}"#.into(),
            KeyError::NoUsableKey,
        ),
        (r#"{"keys":[{}]}"#.into(), KeyError::Missing("kty")),
        (
            format!(r#"{{"keys":[{jwk},{jwk}]}}"#),
            KeyError::DuplicateKid,
        ),
        (
            format!(r#"{{"keys":[{}]}}"#, rsa.to_jwk()),
            KeyError::AmbiguousAlgorithm,
        ),
        (
            format!(r#"{{"keys":[{jwk},{{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}]}}"#),
            KeyError::Invalid("x"),
        ),
        (
            format!(r#"{{"keys":[{jwk}],"keys":[]}}"#),
            KeyError::Json(JsonError::DuplicateMember),
        ),
        (many, KeyError::TooManyKeys),
    ];
    for (file, error) in cases {
        assert_eq!(
            KeySet::parse(file.as_bytes(), all).map(|_| ()),
            Err(error),
            "{file:.80}"
        );
    }
    assert_eq!(
        KeySet::from_public_keys(&vec![ed; 65], all).map(|_| ()),
        Err(KeyError::TooManyKeys)
    );
}

/// RFC 7517 §5: what is not understood is passed over.
#[test]
fn keys_of_other_types_and_uses_in_a_set_are_passed_over() {
    let ed = key(Algorithm::EdDsa).public().unwrap();
    let x = PrivateKey::generate(KeyType::X25519)
        .unwrap()
        .public()
        .unwrap();
    let mut enc: Value =
        serde_json::from_str(&key(Algorithm::Es256).public().unwrap().to_jwk()).unwrap();
    enc["use"] = json!("enc");
    let file = json!({"keys": [
        {"kty": "AKP", "alg": "ML-DSA-65", "pub": "AA"}, {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}, enc,
        serde_json::from_str::<Value>(&x.to_jwk()).unwrap(), serde_json::from_str::<Value>(&ed.to_jwk()).unwrap(),
    ], "other": 1});
    let set = KeySet::parse(file.to_string().as_bytes(), Algorithms::PUBLIC_KEY).unwrap();
    assert_eq!(set.algorithms().collect::<Vec<_>>(), [Algorithm::EdDsa]);
}

/// CVE-2022-21449: signatures of zeros.
#[test]
fn signature_of_zeros_is_refused() {
    for algorithm in Algorithm::ALL {
        let set = set(&key(algorithm));
        for len in [1, 32, 64, 96, 256, 1024] {
            for byte in [0, 0xff] {
                let signature = vec![byte; len];
                let signed = Signed {
                    alg: algorithm.name(),
                    kid: None,
                    signing_input: b"a.b",
                    signature: &signature,
                };
                assert_eq!(
                    set.verify(signed),
                    Err(SignatureError::Invalid),
                    "{algorithm} {len}"
                );
            }
        }
    }
}

/// docs/protocol.md §2.1, 4: nobody brings the key along, or points to it.
#[test]
fn key_or_address_of_a_key_in_the_header_is_refused() {
    let attacker = key(Algorithm::EdDsa);
    let verifier = verifier(set(&key(Algorithm::EdDsa)));
    let jwk = attacker.public().unwrap().to_jwk();
    for (name, value) in [
        ("jwk", jwk.as_str()),
        ("jku", r#""https://attacker.example/keys""#),
        ("x5u", r#""https://attacker.example/x""#),
        ("x5c", r#"["AA=="]"#),
        ("crit", "[]"),
        ("crit", r#"["exp"]"#),
        ("b64", "false"),
        ("zip", r#""DEF""#),
        ("jwk", "null"),
    ] {
        let header = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","{name}":{value}}}"#);
        let token = forge(&attacker, Algorithm::EdDsa, &header, &payload());
        let error = verifier.access_token(token.as_bytes(), NOW).unwrap_err();
        assert_eq!(error, TokenError::Jws(JwsError::RefusedMember(name)));
    }
}

/// CVE-2023-51774: a JWE where a JWS is expected.
#[test]
fn jwe_is_not_a_token() {
    let x25519 = PrivateKey::generate(KeyType::X25519).unwrap();
    let jwe = sealwire_jose::jwe::seal_to(
        &x25519.public().unwrap(),
        payload().as_bytes(),
        &Default::default(),
    )
    .unwrap();
    let verifier = verifier(set(&key(Algorithm::EdDsa)));
    let error = verifier.access_token(jwe.as_bytes(), NOW).unwrap_err();
    assert_eq!(error, TokenError::Jws(JwsError::PartCount));
    let json = json!({"payload": "e30", "signatures": []}).to_string();
    assert!(matches!(
        verifier.access_token(json.as_bytes(), NOW),
        Err(TokenError::Jws(_))
    ));
}

#[test]
fn another_issuer_with_the_same_kid_is_refused() {
    let ours = key(Algorithm::EdDsa).with_kid("1").unwrap();
    let theirs = key(Algorithm::EdDsa).with_kid("1").unwrap();
    let verifier = verifier(set(&ours));
    let token = SigningKey::new(&theirs)
        .unwrap()
        .access_token(&claims())
        .unwrap();
    let error = verifier.access_token(token.as_bytes(), NOW).unwrap_err();
    assert_eq!(error, TokenError::Signature(SignatureError::Invalid));
}

/// docs/protocol.md §2.2: the claims are checked under the same roof.
#[test]
fn claims_that_do_not_fit_are_refused() {
    let key = key(Algorithm::Es256);
    let verifier = verifier(set(&key));
    let signer = SigningKey::new(&key).unwrap();
    let refused = |claims: Claims<'_>, claim: &'static str, defect: ClaimDefect| {
        let token = signer.access_token(&claims).unwrap();
        let error = verifier.access_token(token.as_bytes(), NOW).unwrap_err();
        assert_eq!(error, TokenError::Claim { claim, defect });
    };
    refused(
        Claims {
            issuer: "https://other.example",
            ..claims()
        },
        "iss",
        ClaimDefect::Mismatch,
    );
    refused(
        Claims {
            audience: "other",
            ..claims()
        },
        "aud",
        ClaimDefect::Mismatch,
    );
    refused(
        Claims {
            issued: NOW - 900,
            expires: NOW - 61,
            ..claims()
        },
        "exp",
        ClaimDefect::Expired,
    );
    refused(
        Claims {
            issued: NOW + 61,
            ..claims()
        },
        "iat",
        ClaimDefect::InFuture,
    );
    for (claim, value) in [
        ("exp", json!("1")),
        ("exp", json!(1.5)),
        ("exp", json!(-1)),
        ("exp", json!(1e30)),
        ("exp", Value::Null),
    ] {
        let mut claims: Value = serde_json::from_str(&payload()).unwrap();
        claims[claim] = value;
        let token = forge(
            &key,
            Algorithm::Es256,
            r#"{"alg":"ES256","typ":"at+jwt"}"#,
            &claims.to_string(),
        );
        let error = verifier.access_token(token.as_bytes(), NOW).unwrap_err();
        assert_eq!(
            error,
            TokenError::Claim {
                claim,
                defect: ClaimDefect::WrongType
            },
            "{claims}"
        );
    }
    let mut claims: Value = serde_json::from_str(&payload()).unwrap();
    claims.as_object_mut().unwrap().remove("exp");
    let token = forge(
        &key,
        Algorithm::Es256,
        r#"{"alg":"ES256","typ":"at+jwt"}"#,
        &claims.to_string(),
    );
    let error = verifier.access_token(token.as_bytes(), NOW).unwrap_err();
    assert_eq!(
        error,
        TokenError::Claim {
            claim: "exp",
            defect: ClaimDefect::Missing
        }
    );
}

#[test]
fn replaced_keys_take_effect() {
    let old = key(Algorithm::EdDsa);
    let new = key(Algorithm::EdDsa);
    let mut verifier = verifier(set(&old));
    let token = SigningKey::new(&old)
        .unwrap()
        .access_token(&claims())
        .unwrap();
    verifier.access_token(token.as_bytes(), NOW).unwrap();
    verifier.replace_keys(set(&new));
    let error = verifier.access_token(token.as_bytes(), NOW).unwrap_err();
    assert_eq!(error, TokenError::Signature(SignatureError::Invalid));
}

#[test]
fn rotating_set_verifies_with_the_keys_that_it_was_given_last() {
    let (old, new) = (key(Algorithm::EdDsa), key(Algorithm::EdDsa));
    let keys = RotatingKeySet::new(set(&old));
    let token = SigningKey::new(&new)
        .unwrap()
        .access_token(&claims())
        .unwrap();
    let issuer = Issuer::new(ISSUER).unwrap();
    let policy = AccessPolicy {
        issuer: &issuer,
        audience: AUDIENCE,
        now: NOW,
    };
    let verify = || {
        UnverifiedAccessToken::parse(token.as_bytes())
            .unwrap()
            .verify(&keys, &policy)
    };
    let error = verify().unwrap_err();
    assert_eq!(error, TokenError::Signature(SignatureError::Invalid));
    keys.replace(set(&new));
    verify().unwrap();
}

/// docs/protocol.md §1.2 and §2.2.
#[test]
fn typed_claims_that_nobody_would_accept_are_not_minted() {
    let signer = SigningKey::new(&key(Algorithm::EdDsa)).unwrap();
    let long = "u".repeat(256);
    for (claims, claim) in [
        (
            Claims {
                user: "a\u{1b}b",
                ..claims()
            },
            "sub",
        ),
        (
            Claims {
                user: "",
                ..claims()
            },
            "sub",
        ),
        (
            Claims {
                user: &long,
                ..claims()
            },
            "sub",
        ),
        (
            Claims {
                issuer: "",
                ..claims()
            },
            "iss",
        ),
        (
            Claims {
                expires: NOW,
                ..claims()
            },
            "exp",
        ),
        (
            Claims {
                id: Some(&long),
                ..claims()
            },
            "jti",
        ),
        (
            Claims {
                authorization_details: Some(&json!([{"type": "sealwire", "to": "bob"}])),
                ..claims()
            },
            "to",
        ),
    ] {
        for minted in [signer.access_token(&claims), signer.attestation(&claims)] {
            let refused = match minted {
                Err(MintError::Claims(
                    TokenError::Claim { claim, .. } | TokenError::Name { claim, .. },
                )) => claim,
                other => panic!("{claim}: {other:?}"),
            };
            assert_eq!(refused, claim);
        }
    }
}

/// docs/protocol.md §2.1: whole seconds, from 0 to 2^53−1.
#[test]
fn claims_with_other_than_whole_seconds_are_not_minted() {
    let signer = SigningKey::new(&key(Algorithm::EdDsa)).unwrap();
    for time in ["exp", "nbf", "iat"] {
        for value in [
            "1.0",
            "1e3",
            "-1",
            "9007199254740992",
            "\"1\"",
            "null",
            "true",
            "1.5",
        ] {
            let claims = format!(r#"{{"{time}":{value}}}"#);
            assert_eq!(
                signer.json("at+jwt", claims.as_bytes()),
                Err(MintError::Time(time)),
                "{claims}"
            );
        }
    }
    assert!(
        signer
            .json("at+jwt", br#"{"exp":9007199254740991,"nbf":0}"#)
            .is_ok()
    );
}

#[test]
fn claims_that_are_not_one_strict_object_are_not_minted() {
    let signer = SigningKey::new(&key(Algorithm::EdDsa)).unwrap();
    assert_eq!(
        signer.json("a", b"[]"),
        Err(MintError::Json(JsonError::NotAnObject))
    );
    assert_eq!(
        signer.json("a", br#"{"a":1,"a":2}"#),
        Err(MintError::Json(JsonError::DuplicateMember))
    );
    assert_eq!(
        signer.json("a", b"{} {}"),
        Err(MintError::Json(JsonError::Trailing))
    );
    assert_eq!(signer.json("a", &[b' '; 8193]), Err(MintError::TooLong));
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(6_200));
    assert_eq!(signer.json("a", large.as_bytes()), Err(MintError::TooLong));
    for typ in ["", "a b", "ä", "a\n", &"t".repeat(256)] {
        assert_eq!(signer.json(typ, b"{}"), Err(MintError::Typ), "{typ:?}");
    }
}

#[test]
fn public_key_of_the_protocol_is_a_key_of_the_set() {
    let key = key(Algorithm::EdDsa);
    let jwk = Object::parse(key.public().unwrap().to_jwk().as_bytes()).unwrap();
    let ed25519 = sealwire_protocol::key::PublicKey::from_jwk(&jwk).unwrap();
    let set = KeySet::from_public_keys(&[PublicKey::from_ed25519(ed25519)], Algorithms::PUBLIC_KEY)
        .unwrap();
    let token = SigningKey::new(&key)
        .unwrap()
        .access_token(&claims())
        .unwrap();
    assert_eq!(check(&set, &token), Ok(()));
}

#[test]
fn debug_of_a_key_set_shows_no_secret() {
    let secret = PrivateKey::from_secret(&[b'S'; 32]).unwrap();
    assert_eq!(format!("{:?}", set(&secret)), "[(Hs256, None)]");
}
