//! Keys: what is taken, what is refused, and what is never shown.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use sealwire_jose::{
    Algorithm, KeyError, KeyType, MAX_KEY_FILE_BYTES, PrivateKey, PublicKey, SigningKey,
};
use sealwire_protocol::{base64url, json::JsonError, key::PublicKeyError};
use serde_json::{Value, json};

const ALL: [KeyType; 6] = [
    KeyType::Ed25519,
    KeyType::X25519,
    KeyType::P256,
    KeyType::P384,
    KeyType::Rsa2048,
    KeyType::Oct,
];

fn generate(kind: KeyType) -> Value {
    serde_json::from_str(&PrivateKey::generate(kind).unwrap().to_jwk()).unwrap()
}

fn public(kind: KeyType) -> Value {
    let key = PrivateKey::generate(kind).unwrap().public().unwrap();
    serde_json::from_str(&key.to_jwk()).unwrap()
}

fn parse_public(jwk: &Value) -> Result<PublicKey, KeyError> {
    PublicKey::parse(jwk.to_string().as_bytes())
}

fn parse_private(jwk: &Value) -> Result<PrivateKey, KeyError> {
    PrivateKey::parse(jwk.to_string().as_bytes())
}

fn with(jwk: &Value, member: &str, value: Value) -> Value {
    let mut jwk = jwk.clone();
    jwk[member] = value;
    jwk
}

fn without(jwk: &Value, member: &str) -> Value {
    let mut jwk = jwk.clone();
    jwk.as_object_mut().unwrap().remove(member).unwrap();
    jwk
}

fn b64(bytes: &[u8]) -> Value {
    Value::from(base64url::encode(bytes))
}

#[test]
fn every_type_is_generated_and_reads_back() {
    for kind in ALL {
        let key = PrivateKey::generate(kind)
            .unwrap()
            .with_kid("key \"1\"")
            .unwrap();
        let again = PrivateKey::parse(key.to_jwk().as_bytes()).unwrap();
        assert_eq!(*again.to_jwk(), *key.to_jwk());
        assert_eq!(again.kid(), Some("key \"1\""));
        assert_eq!(again.thumbprint(), key.thumbprint());
        match key.public() {
            Some(public) => assert_eq!(
                PublicKey::parse(public.to_jwk().as_bytes()).unwrap(),
                public
            ),
            None => assert_eq!(kind, KeyType::Oct),
        }
    }
}

#[test]
fn larger_rsa_keys_have_their_size() {
    for (kind, bytes) in [(KeyType::Rsa3072, 384), (KeyType::Rsa4096, 512)] {
        let n = base64url::decode(public(kind)["n"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(n.len(), bytes);
        assert!(n[0] & 0x80 != 0);
    }
}

#[test]
fn debug_shows_nothing_secret() {
    for kind in ALL {
        let key = PrivateKey::generate(kind).unwrap();
        let jwk: Value = serde_json::from_str(&key.to_jwk()).unwrap();
        let shown = format!("{key:?}");
        for member in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            if let Some(secret) = jwk.get(member) {
                assert!(!shown.contains(secret.as_str().unwrap()), "{member}");
            }
        }
        if let Ok(signer) = SigningKey::new(&key) {
            assert_eq!(
                format!("{signer:?}"),
                format!("SigningKey({} None)", signer.algorithm())
            );
        }
        if kind == KeyType::Oct {
            assert_eq!(shown, "PrivateKey(oct)");
        } else {
            assert!(shown.len() < 80, "{shown}");
        }
    }
}

#[test]
fn public_part_holds_no_private_member() {
    for kind in ALL.into_iter().filter(|kind| *kind != KeyType::Oct) {
        let jwk = public(kind);
        for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
            assert_eq!(jwk.get(member), None);
        }
    }
}

/// docs/protocol.md §2.2: a set for verification has nothing private in it.
#[test]
fn private_key_is_refused_where_a_public_one_belongs() {
    for kind in ALL {
        assert_eq!(parse_public(&generate(kind)), Err(KeyError::Private));
    }
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let jwk = with(&public(KeyType::Ed25519), member, Value::Null);
        assert_eq!(parse_public(&jwk), Err(KeyError::Private), "{member}");
    }
}

#[test]
fn public_key_is_refused_where_a_private_one_belongs() {
    for kind in ALL.into_iter().filter(|kind| *kind != KeyType::Oct) {
        assert_eq!(
            parse_private(&public(kind)).unwrap_err(),
            KeyError::NotPrivate
        );
    }
}

#[test]
fn key_file_that_is_not_strict_json_is_refused() {
    let jwk = public(KeyType::Ed25519).to_string();
    let doubled = jwk.replacen('{', r#"{"kty":"OKP","#, 1);
    let cases: [(&[u8], KeyError); 6] = [
        (b"", KeyError::Json(JsonError::NotAnObject)),
        (b"[]", KeyError::Json(JsonError::NotAnObject)),
        (b"null", KeyError::Json(JsonError::NotAnObject)),
        (b"{}", KeyError::Missing("kty")),
        (
            doubled.as_bytes(),
            KeyError::Json(JsonError::DuplicateMember),
        ),
        (&[b' '; MAX_KEY_FILE_BYTES + 1], KeyError::TooLarge),
    ];
    for (file, error) in cases {
        assert_eq!(PublicKey::parse(file), Err(error));
        assert_eq!(PrivateKey::parse(file).unwrap_err(), error);
    }
    assert_eq!(
        PublicKey::parse(format!("{jwk} x").as_bytes()),
        Err(KeyError::Json(JsonError::Trailing))
    );
}

#[test]
fn other_types_and_curves_are_unsupported() {
    let okp = public(KeyType::Ed25519);
    let ec = public(KeyType::P256);
    for jwk in [
        with(&okp, "crv", json!("Ed448")), // josekit would take it for EdDSA
        with(&okp, "crv", json!("X448")),
        with(&okp, "crv", json!("ed25519")),
        with(&ec, "crv", json!("P-521")),
        with(&ec, "crv", json!("secp256k1")),
        with(&ec, "kty", json!("ec")),
        with(&okp, "kty", json!("AKP")),
        with(&okp, "kty", json!("")),
    ] {
        assert_eq!(parse_public(&jwk), Err(KeyError::Unsupported), "{jwk}");
    }
}

#[test]
fn members_are_strictly_typed() {
    let okp = public(KeyType::Ed25519);
    let cases = [
        (without(&okp, "x"), KeyError::Missing("x")),
        (without(&okp, "crv"), KeyError::Missing("crv")),
        (with(&okp, "kty", json!(1)), KeyError::Invalid("kty")),
        (
            with(&okp, "crv", json!(["Ed25519"])),
            KeyError::Invalid("crv"),
        ),
        (with(&okp, "x", json!("")), KeyError::Invalid("x")),
        (with(&okp, "x", b64(&[1; 31])), KeyError::Invalid("x")),
        (with(&okp, "x", b64(&[1; 33])), KeyError::Invalid("x")),
        (
            with(&okp, "x", json!(format!("{}=", okp["x"].as_str().unwrap()))),
            KeyError::Invalid("x"),
        ),
        (with(&okp, "kid", json!(7)), KeyError::Invalid("kid")),
        (with(&okp, "kid", json!("")), KeyError::Invalid("kid")),
        (
            with(&okp, "kid", json!("k".repeat(256))),
            KeyError::Invalid("kid"),
        ),
        (with(&okp, "alg", json!(null)), KeyError::Invalid("alg")),
        (with(&okp, "use", json!(false)), KeyError::Invalid("use")),
        (
            with(&okp, "key_ops", json!("verify")),
            KeyError::Invalid("key_ops"),
        ),
    ];
    for (jwk, error) in cases {
        assert_eq!(parse_public(&jwk), Err(error), "{jwk}");
    }
}

/// RFC 7517 §4.2 to §4.4.
#[test]
fn key_for_something_else_is_unsupported() {
    for kind in [
        KeyType::Ed25519,
        KeyType::P256,
        KeyType::P384,
        KeyType::Rsa2048,
    ] {
        let jwk = public(kind);
        assert!(parse_public(&with(&jwk, "use", json!("sig"))).is_ok());
        assert!(parse_public(&with(&jwk, "key_ops", json!(["verify"]))).is_ok());
        for wrong in [
            with(&jwk, "use", json!("enc")),
            with(&jwk, "key_ops", json!(["encrypt"])),
            with(&jwk, "key_ops", json!(["sign"])),
            with(&jwk, "key_ops", json!([])),
            with(&jwk, "alg", json!("HS256")),
            with(&jwk, "alg", json!("none")),
            with(&jwk, "alg", json!("RSA-OAEP")),
            with(&jwk, "alg", json!("ECDH-ES+A256KW")),
        ] {
            assert_eq!(parse_public(&wrong), Err(KeyError::Unsupported), "{wrong}");
        }
    }
    let jwk = public(KeyType::X25519);
    for right in [
        with(&jwk, "use", json!("enc")),
        with(&jwk, "alg", json!("ECDH-ES+A256KW")),
        with(&jwk, "key_ops", json!([])),
        with(&jwk, "key_ops", json!(["deriveBits"])),
    ] {
        assert!(parse_public(&right).is_ok(), "{right}");
    }
    for wrong in [
        with(&jwk, "use", json!("sig")),
        with(&jwk, "alg", json!("EdDSA")),
        with(&jwk, "alg", json!("ECDH-ES")),
        with(&jwk, "key_ops", json!(["verify"])),
    ] {
        assert_eq!(parse_public(&wrong), Err(KeyError::Unsupported), "{wrong}");
    }
    let private = generate(KeyType::P256);
    let wrong = with(&private, "key_ops", json!(["verify"]));
    assert_eq!(parse_private(&wrong).unwrap_err(), KeyError::Unsupported);
}

/// RFC 8725 §3.2: the name in `alg` binds the key.
#[test]
fn key_named_for_one_algorithm_signs_with_no_other() {
    let rsa = PrivateKey::generate(KeyType::Rsa2048).unwrap();
    assert_eq!(rsa.algorithms(), [Algorithm::Ps256, Algorithm::Rs256]);
    assert_eq!(
        SigningKey::new(&rsa).unwrap_err(),
        KeyError::AmbiguousAlgorithm
    );
    let rsa = rsa.with_algorithm(Algorithm::Ps256).unwrap();
    assert_eq!(SigningKey::new(&rsa).unwrap().algorithm(), Algorithm::Ps256);
    assert_eq!(
        SigningKey::with_algorithm(&rsa, Algorithm::Rs256).unwrap_err(),
        KeyError::WrongAlgorithm
    );
    assert_eq!(
        rsa.with_algorithm(Algorithm::Rs256).unwrap_err(),
        KeyError::WrongAlgorithm
    );

    let x25519 = PrivateKey::generate(KeyType::X25519).unwrap();
    assert_eq!(SigningKey::new(&x25519).unwrap_err(), KeyError::Unsupported);
    for kind in ALL {
        let key = PrivateKey::generate(kind).unwrap();
        for algorithm in Algorithm::ALL
            .into_iter()
            .filter(|a| !key.algorithms().contains(a))
        {
            assert_eq!(
                SigningKey::with_algorithm(&key, algorithm).unwrap_err(),
                KeyError::WrongAlgorithm
            );
        }
    }
}

/// RFC 7518 §6.2.1: an invalid curve point leaks private keys, and verifies nothing.
#[test]
fn ec_point_off_its_curve_is_refused() {
    for (kind, bytes) in [(KeyType::P256, 32), (KeyType::P384, 48)] {
        let jwk = public(kind);
        let mut y = base64url::decode(jwk["y"].as_str().unwrap().as_bytes()).unwrap();
        y[bytes - 1] ^= 1;
        for wrong in [
            with(&jwk, "y", b64(&y)),
            with(&jwk, "x", b64(&vec![0xff; bytes])), // not below the prime
            with(
                &with(&jwk, "x", b64(&vec![0; bytes])),
                "y",
                b64(&vec![0; bytes]),
            ),
        ] {
            assert_eq!(parse_public(&wrong), Err(KeyError::NotOnCurve), "{wrong}");
        }
        assert_eq!(
            parse_public(&with(&jwk, "x", b64(&vec![1; bytes - 1]))),
            Err(KeyError::Invalid("x"))
        );
        assert_eq!(
            parse_public(&with(&jwk, "y", b64(&vec![0; bytes + 1]))),
            Err(KeyError::Invalid("y"))
        );
    }
    // A P-256 point is no P-384 point.
    assert_eq!(
        parse_public(&with(&public(KeyType::P256), "crv", json!("P-384"))),
        Err(KeyError::Invalid("x"))
    );
}

/// docs/protocol.md §1.3.
#[test]
fn ed25519_key_of_small_order_or_not_canonical_is_refused() {
    let okp = public(KeyType::Ed25519);
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut order_4 = [0; 32]; // y = 0
    order_4[31] = 0;
    let mut not_canonical = [0xff; 32]; // y = p + 1, a second form of the identity
    not_canonical[0] = 0xee;
    not_canonical[31] = 0x7f;
    let cases = [
        (identity, PublicKeyError::SmallOrder),
        (order_4, PublicKeyError::SmallOrder),
        (not_canonical, PublicKeyError::NotCanonical),
    ];
    for (x, error) in cases {
        assert_eq!(
            parse_public(&with(&okp, "x", b64(&x))),
            Err(KeyError::Ed25519(error))
        );
    }
}

/// RFC 7748 §6.1.
#[test]
fn x25519_key_of_low_order_is_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    for x in [[0; 32], one, p] {
        assert_eq!(
            parse_public(&with(&public(KeyType::X25519), "x", b64(&x))),
            Err(KeyError::LowOrder)
        );
        assert_eq!(PublicKey::from_x25519(&x), Err(KeyError::LowOrder));
    }
}

/// RFC 7518 §3.3, docs/protocol.md §2.2.
#[test]
fn rsa_key_of_another_size_is_refused() {
    let rsa = public(KeyType::Rsa2048);
    let odd = |bytes: usize, top: u8| {
        let mut n = vec![0xab; bytes];
        n[0] = top;
        b64(&n)
    };
    for n in [
        odd(128, 0xff),
        odd(255, 0xff),
        odd(256, 0x7f),
        odd(1025, 1),
        b64(&[]),
        odd(257, 0),
        b64(&[0xaa; 256]),
    ] {
        let jwk = with(&rsa, "n", n);
        let error = parse_public(&jwk).unwrap_err();
        assert_eq!(error, KeyError::RsaModulus, "{jwk}");
    }
    assert!(parse_public(&with(&rsa, "n", odd(1024, 0xff))).is_ok());
    for e in [
        vec![],
        vec![1],
        vec![2],
        vec![0, 1, 0, 1],
        vec![1, 0, 0],
        vec![1, 0, 0, 0, 1],
    ] {
        assert_eq!(
            parse_public(&with(&rsa, "e", b64(&e))),
            Err(KeyError::RsaExponent),
            "{e:?}"
        );
    }
}

/// RUSTSEC-2022-0093: signing with another's public half gives the private one away.
#[test]
fn halves_that_do_not_belong_together_are_refused() {
    for kind in [
        KeyType::Ed25519,
        KeyType::X25519,
        KeyType::P256,
        KeyType::P384,
    ] {
        let swapped = with(&generate(kind), "d", generate(kind)["d"].clone());
        let error = parse_private(&swapped).unwrap_err();
        assert!(
            matches!(error, KeyError::Mismatch | KeyError::Refused),
            "{kind:?}: {error}"
        );
        assert_eq!(
            parse_private(&with(&generate(kind), "d", b64(&[1; 31]))).unwrap_err(),
            KeyError::Invalid("d")
        );
    }
    let rsa = generate(KeyType::Rsa2048);
    let other = generate(KeyType::Rsa2048);
    let mut swapped = other.clone();
    swapped["n"] = rsa["n"].clone();
    let error = parse_private(&swapped).unwrap_err();
    assert!(
        matches!(error, KeyError::Mismatch | KeyError::Refused),
        "{error}"
    );
    for member in ["p", "q", "dp", "dq", "qi"] {
        assert_eq!(
            parse_private(&without(&rsa, member)).unwrap_err(),
            KeyError::Missing(member)
        );
    }
    assert_eq!(
        parse_private(&with(&rsa, "oth", json!([]))).unwrap_err(),
        KeyError::Unsupported
    );
    assert_eq!(
        parse_private(&with(&rsa, "p", b64(&[1; 1025]))).unwrap_err(),
        KeyError::Invalid("p")
    );
}

/// An EC scalar of zero or of the group's order is no key, and makes josekit's readers fail, not panic.
#[test]
fn ec_scalar_out_of_range_is_refused() {
    for scalar in [[0; 32], [0xff; 32]] {
        let error = parse_private(&with(&generate(KeyType::P256), "d", b64(&scalar))).unwrap_err();
        assert!(
            matches!(error, KeyError::Mismatch | KeyError::Refused),
            "{error}"
        );
    }
}

/// docs/protocol.md §2.2, RFC 7518 §3.2.
#[test]
fn short_secret_is_refused() {
    for len in [0, 1, 31] {
        assert_eq!(
            PrivateKey::from_secret(&vec![7; len]).unwrap_err(),
            KeyError::ShortSecret
        );
        assert_eq!(
            parse_private(&json!({"kty": "oct", "k": base64url::encode(&vec![7; len])}))
                .unwrap_err(),
            KeyError::ShortSecret
        );
    }
    assert!(PrivateKey::from_secret(&[7; 32]).is_ok());
    assert_eq!(
        PrivateKey::from_secret(&[7; 1025]).unwrap_err(),
        KeyError::TooLarge
    );
}

#[test]
fn label_is_bounded() {
    let key = || PrivateKey::generate(KeyType::Ed25519).unwrap();
    assert_eq!(key().with_kid("").unwrap_err(), KeyError::Invalid("kid"));
    assert_eq!(
        key().with_kid(&"k".repeat(256)).unwrap_err(),
        KeyError::Invalid("kid")
    );
    assert_eq!(
        key().public().unwrap().with_kid("").unwrap_err(),
        KeyError::Invalid("kid")
    );
    assert!(key().with_kid(&"k".repeat(255)).is_ok());
}
