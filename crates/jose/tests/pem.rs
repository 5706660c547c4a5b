//! PEM files: the same keys as their JWKs, and none of josekit's confusions.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use base64ct::{Base64, Encoding};
use josekit::{
    jwk::{
        KeyPair,
        alg::{
            ec::{EcCurve, EcKeyPair},
            ecx::{EcxCurve, EcxKeyPair},
            ed::{EdCurve, EdKeyPair},
            rsa::RsaKeyPair,
        },
    },
    jws,
};
use sealwire_jose::{Algorithm, Algorithms, KeyError, KeySet, PrivateKey, PublicKey, SigningKey};
use sealwire_protocol::{
    base64url,
    jws::{SignatureVerifier, Signed},
    key::PublicKeyError,
};

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        Base64::encode_string(der)
    )
}

fn der(pem: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(pem).unwrap();
    let body: String = text
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    Base64::decode_vec(&body).unwrap()
}

fn pairs() -> Vec<Box<dyn KeyPair>> {
    vec![
        Box::new(EdKeyPair::generate(EdCurve::Ed25519).unwrap()),
        Box::new(EcxKeyPair::generate(EcxCurve::X25519).unwrap()),
        Box::new(EcKeyPair::generate(EcCurve::P256).unwrap()),
        Box::new(EcKeyPair::generate(EcCurve::P384).unwrap()),
        Box::new(RsaKeyPair::generate(2048).unwrap()),
    ]
}

#[test]
fn pem_is_the_same_key_as_its_jwk() {
    for pair in pairs() {
        let private = PrivateKey::parse(&pair.to_pem_private_key()).unwrap();
        assert_eq!(
            private.thumbprint(),
            PrivateKey::parse(pair.to_jwk_key_pair().to_string().as_bytes())
                .unwrap()
                .thumbprint()
        );
        let public = PublicKey::parse(&pair.to_pem_public_key()).unwrap();
        assert_eq!(public.thumbprint(), private.thumbprint());
    }
}

#[test]
fn traditional_blocks_are_read() {
    let ec = EcKeyPair::generate(EcCurve::P256).unwrap();
    let private = PrivateKey::parse(&ec.to_traditional_pem_private_key()).unwrap();
    assert_eq!(
        private.public().unwrap(),
        PublicKey::parse(&ec.to_pem_public_key()).unwrap()
    );
    let rsa = RsaKeyPair::generate(2048).unwrap();
    let private = PrivateKey::parse(&rsa.to_traditional_pem_private_key()).unwrap();
    assert_eq!(
        private.public().unwrap(),
        PublicKey::parse(&rsa.to_traditional_pem_public_key()).unwrap()
    );
}

#[test]
fn white_space_around_a_block_is_accepted() {
    for pair in pairs() {
        let spaced = [b"\n\n ".as_slice(), &pair.to_pem_private_key(), b"\n\r\n\n"].concat();
        PrivateKey::parse(&spaced).unwrap();
        let spaced = [b"\n\n ".as_slice(), &pair.to_pem_public_key(), b"\n\r\n\n"].concat();
        PublicKey::parse(&spaced).unwrap();
    }
}

/// josekit itself refuses the ordinary RSA PEM for PS256.
#[test]
fn rsa_pem_serves_the_one_algorithm_that_is_allowed() {
    let pair = RsaKeyPair::generate(2048).unwrap();
    let private = PrivateKey::parse(&pair.to_pem_private_key()).unwrap();
    for (algorithm, other) in [
        (Algorithm::Ps256, Algorithm::Rs256),
        (Algorithm::Rs256, Algorithm::Ps256),
    ] {
        let set = KeySet::parse(&pair.to_pem_public_key(), Algorithms::of(&[algorithm])).unwrap();
        let sign = |algorithm| {
            SigningKey::with_algorithm(&private, algorithm)
                .unwrap()
                .json("at+jwt", b"{}")
                .unwrap()
        };
        for (signer, good) in [(algorithm, true), (other, false)] {
            let token = sign(signer);
            let (input, signature) = token.rsplit_once('.').unwrap();
            let signature = base64url::decode(signature.as_bytes()).unwrap();
            let signed = Signed {
                alg: algorithm.name(),
                kid: None,
                signing_input: input.as_bytes(),
                signature: &signature,
            };
            assert_eq!(set.verify(signed).is_ok(), good);
        }
    }
    let both = KeySet::parse(&pair.to_pem_public_key(), Algorithms::PUBLIC_KEY);
    assert_eq!(both.map(|_| ()), Err(KeyError::AmbiguousAlgorithm));
}

/// josekit's `ES384.verifier_from_pem` takes a P-256 key.
#[test]
fn p256_pem_is_never_an_es384_key() {
    let pair = EcKeyPair::generate(EcCurve::P256).unwrap();
    assert!(
        jws::ES384
            .verifier_from_pem(pair.to_pem_public_key())
            .is_ok(),
        "josekit has mended it: simplify pem.rs"
    );
    let set = KeySet::parse(
        &pair.to_pem_public_key(),
        Algorithms::of(&[Algorithm::Es384]),
    );
    assert_eq!(set.map(|_| ()), Err(KeyError::NoUsableKey));
}

/// josekit's `EdDSA` takes Ed448 keys.
#[test]
fn ed448_and_other_types_are_unsupported() {
    let ed448 = EdKeyPair::generate(EdCurve::Ed448).unwrap();
    let p521 = EcKeyPair::generate(EcCurve::P521).unwrap();
    let k256 = EcKeyPair::generate(EcCurve::Secp256k1).unwrap();
    let x448 = EcxKeyPair::generate(EcxCurve::X448).unwrap();
    for pair in [&*ed448, &*p521, &*k256, &*x448] {
        assert_eq!(
            PublicKey::parse(&pair.to_pem_public_key()),
            Err(KeyError::Unsupported)
        );
        assert_eq!(
            PrivateKey::parse(&pair.to_pem_private_key()).unwrap_err(),
            KeyError::Unsupported
        );
    }
}

#[test]
fn rsa_pem_under_2048_bits_is_refused() {
    let pair = RsaKeyPair::generate(1024).unwrap();
    assert_eq!(
        PublicKey::parse(&pair.to_pem_public_key()),
        Err(KeyError::RsaModulus)
    );
    assert_eq!(
        PrivateKey::parse(&pair.to_pem_private_key()).unwrap_err(),
        KeyError::RsaModulus
    );
}

#[test]
fn private_and_public_blocks_are_not_mixed_up() {
    for pair in pairs() {
        assert_eq!(
            PublicKey::parse(&pair.to_pem_private_key()),
            Err(KeyError::Private)
        );
        assert_eq!(
            PrivateKey::parse(&pair.to_pem_public_key()).unwrap_err(),
            KeyError::NotPrivate
        );
        let set = KeySet::parse(&pair.to_pem_private_key(), Algorithms::PUBLIC_KEY);
        assert_eq!(set.map(|_| ()), Err(KeyError::Private));
    }
    assert_eq!(
        PrivateKey::parse(pem("ENCRYPTED PRIVATE KEY", b"x").as_bytes()).unwrap_err(),
        KeyError::Unsupported
    );
}

/// docs/protocol.md §1.3 and RFC 7748 §6.1 hold for PEM as well.
#[test]
fn keys_of_small_order_are_refused() {
    let mut ed25519 = b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00\x01".to_vec();
    ed25519.resize(44, 0);
    let error = KeyError::Ed25519(PublicKeyError::SmallOrder);
    assert_eq!(
        PublicKey::parse(pem("PUBLIC KEY", &ed25519).as_bytes()),
        Err(error)
    );
    let mut x25519 = ed25519;
    x25519[8] = 0x6e;
    assert_eq!(
        PublicKey::parse(pem("PUBLIC KEY", &x25519).as_bytes()),
        Err(KeyError::LowOrder)
    );
}

#[test]
fn text_that_is_not_one_block_is_refused() {
    let good = pem("PUBLIC KEY", &der(&pairs()[0].to_pem_public_key()));
    PublicKey::parse(good.as_bytes()).unwrap();
    for wrong in [
        format!("{good}{good}"),
        format!("{good}x"),
        good.replace("END PUBLIC", "END RSA PUBLIC"),
        good.replace("-----END PUBLIC KEY-----", ""),
        good.replace("PUBLIC KEY", "CERTIFICATE"),
        good.replace("\nM", "\n!M"),
        "-----BEGIN ".into(),
        "-----BEGIN PUBLIC KEY-----".into(),
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----".into(),
    ] {
        assert_eq!(
            PublicKey::parse(wrong.as_bytes()),
            Err(KeyError::Pem),
            "{wrong}"
        );
    }
}

/// Whatever is cut off or changed: an error or a sound key, and never a panic.
#[test]
fn damaged_der_is_refused_or_sound_and_never_panics() {
    for pair in pairs() {
        let whole = der(&pair.to_pem_public_key());
        for len in 0..whole.len() {
            let error = PublicKey::parse(pem("PUBLIC KEY", &whole[..len]).as_bytes()).unwrap_err();
            assert_eq!(error, KeyError::Pem, "{len}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert_eq!(
            PublicKey::parse(pem("PUBLIC KEY", &longer).as_bytes()),
            Err(KeyError::Pem)
        );
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x80;
            let _ = PublicKey::parse(pem("PUBLIC KEY", &damaged).as_bytes());
        }
        let whole = der(&pair.to_pem_private_key());
        for len in 0..whole.len() {
            let cut = PrivateKey::parse(pem("PRIVATE KEY", &whole[..len]).as_bytes());
            assert_eq!(cut.unwrap_err(), KeyError::Pem, "{len}");
        }
        for at in (0..whole.len()).step_by(whole.len() / 100 + 1) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x80;
            let _ = PrivateKey::parse(pem("PRIVATE KEY", &damaged).as_bytes());
        }
    }
}

/// josekit panics on the first, as it has no public point to show.
#[test]
fn ec_private_key_without_a_sound_scalar_or_point_is_refused() {
    let pair = EcKeyPair::generate(EcCurve::P256).unwrap();
    let whole = der(&pair.to_pem_private_key());
    // PKCS #8 { version, algorithm, ECPrivateKey { 1, OCTET STRING of 32 } } without the optional public key
    let mut zero = b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x27\x30\x25\x02\x01\x01\x04\x20".to_vec();
    assert_eq!(whole[3..26], zero[2..25], "the same head as OpenSSL's");
    zero.resize(67, 0);
    assert_eq!(
        PrivateKey::parse(pem("PRIVATE KEY", &zero).as_bytes()).unwrap_err(),
        KeyError::Pem
    );
    let mut no_scalar = whole.clone();
    no_scalar[36..68].fill(0);
    let error = PrivateKey::parse(pem("PRIVATE KEY", &no_scalar).as_bytes()).unwrap_err();
    assert!(
        matches!(error, KeyError::Mismatch | KeyError::Refused),
        "{error}"
    );
    let mut no_point = whole;
    let last = no_point.len() - 1;
    no_point[last] ^= 1;
    assert_eq!(
        PrivateKey::parse(pem("PRIVATE KEY", &no_point).as_bytes()).unwrap_err(),
        KeyError::NotOnCurve
    );
}
