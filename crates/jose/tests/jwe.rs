//! Standard JWE (`docs/protocol.md` §10): the one accepted form, and each of josekit's traps before it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use josekit::jwe::{ECDH_ES_A256KW, JweHeader};
use sealwire_jose::{
    JweFault, KeyError, KeyType, OpenError, PrivateKey, SealError,
    jwe::{Header, MAX_JWE_BYTES, UnopenedJwe, open_with, seal_to},
};
use sealwire_protocol::{base64url, json::JsonError};
use serde_json::{Value, json};

fn key() -> PrivateKey {
    PrivateKey::generate(KeyType::X25519).unwrap()
}

fn seal(key: &PrivateKey) -> String {
    seal_to(&key.public().unwrap(), b"hello", &Header::default()).unwrap()
}

/// The same JWE with one part replaced.
fn with_part(jwe: &str, index: usize, part: &str) -> String {
    let mut parts: Vec<&str> = jwe.split('.').collect();
    parts[index] = part;
    parts.join(".")
}

fn part(jwe: &str, index: usize) -> Vec<u8> {
    base64url::decode(jwe.split('.').nth(index).unwrap().as_bytes()).unwrap()
}

fn with_header(jwe: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut header: Value = serde_json::from_slice(&part(jwe, 0)).unwrap();
    change(&mut header);
    with_part(jwe, 0, &base64url::encode(header.to_string().as_bytes()))
}

fn fault(key: &PrivateKey, jwe: &str) -> JweFault {
    let error = open_with(key, jwe.as_bytes()).unwrap_err();
    let OpenError::Malformed(fault) = error else {
        panic!("{error}")
    };
    fault
}

#[test]
fn sealed_opens_with_its_header() {
    let key = key();
    let header = Header {
        typ: Some("JWE".into()),
        cty: Some("JWT".into()),
        kid: Some("k\"1".into()),
    };
    for plaintext in [&b""[..], b"x", &[0xff; 70_000]] {
        let jwe = seal_to(&key.public().unwrap(), plaintext, &header).unwrap();
        let opened = open_with(&key, jwe.as_bytes()).unwrap();
        assert_eq!(opened.plaintext.as_slice(), plaintext);
        assert_eq!(opened.header, header);
        assert_eq!(
            UnopenedJwe::parse(jwe.as_bytes()).unwrap().ciphertext.len(),
            plaintext.len()
        );
        assert_eq!(
            format!("{opened:?}"),
            format!("Opened({} bytes, {header:?})", plaintext.len())
        );
    }
}

#[test]
fn raw_x25519_keys_serve_as_well_as_jwks() {
    let secret = [0x42; 32];
    let key = PrivateKey::from_x25519(&secret).unwrap();
    let jwe = seal(&key);
    assert_eq!(
        open_with(&PrivateKey::from_x25519(&secret).unwrap(), jwe.as_bytes())
            .unwrap()
            .plaintext
            .as_slice(),
        b"hello"
    );
}

#[test]
fn josekit_opens_ours_and_ours_opens_josekit_s() {
    let key = key();
    let jwk = josekit::jwk::Jwk::from_bytes(key.to_jwk().as_bytes()).unwrap();
    let decrypter = ECDH_ES_A256KW.decrypter_from_jwk(&jwk).unwrap();
    assert_eq!(
        josekit::jwe::deserialize_compact(&seal(&key), &decrypter)
            .unwrap()
            .0,
        b"hello"
    );

    let mut encrypter = ECDH_ES_A256KW
        .encrypter_from_jwk(&jwk.to_public_key().unwrap())
        .unwrap();
    encrypter.set_agreement_partyuinfo(*b"alice");
    encrypter.set_agreement_partyvinfo(*b"bob");
    let mut header = JweHeader::new();
    header.set_content_encryption("A256GCM");
    let jwe = josekit::jwe::serialize_compact(b"hi", &header, &encrypter).unwrap();
    assert_eq!(
        open_with(&key, jwe.as_bytes())
            .unwrap()
            .plaintext
            .as_slice(),
        b"hi"
    );
}

#[test]
fn another_key_does_not_open() {
    let jwe = seal(&key());
    assert_eq!(
        open_with(&key(), jwe.as_bytes()).unwrap_err(),
        OpenError::Decrypt
    );
    for kind in [KeyType::Ed25519, KeyType::P256, KeyType::Oct] {
        let wrong = PrivateKey::generate(kind).unwrap();
        assert_eq!(
            open_with(&wrong, jwe.as_bytes()).unwrap_err(),
            OpenError::Key
        );
    }
}

/// Every part is authenticated, and every failure after the reader looks the same.
#[test]
fn changed_bit_anywhere_does_not_open() {
    let key = key();
    let jwe = seal(&key);
    for index in 1..5 {
        let bytes = part(&jwe, index);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let damaged = with_part(&jwe, index, &base64url::encode(&damaged));
            assert_eq!(
                open_with(&key, damaged.as_bytes()).unwrap_err(),
                OpenError::Decrypt,
                "{index} {at}"
            );
        }
    }
    // The header: added, reordered or only spaced differently.
    let added = with_header(&jwe, |header| header["typ"] = json!("JWE"));
    assert_eq!(
        open_with(&key, added.as_bytes()).unwrap_err(),
        OpenError::Decrypt
    );
    let spaced = [part(&jwe, 0).as_slice(), b" "].concat();
    let spaced = with_part(&jwe, 0, &base64url::encode(&spaced));
    assert_eq!(
        open_with(&key, spaced.as_bytes()).unwrap_err(),
        OpenError::Decrypt
    );
}

/// josekit takes a tag of one byte: 256 tries for a forgery.
#[test]
fn shortened_tag_is_refused() {
    let key = key();
    let jwe = seal(&key);
    let tag = part(&jwe, 4);
    for len in [0, 1, 2, 4, 8, 12, 15] {
        let short = with_part(&jwe, 4, &base64url::encode(&tag[..len]));
        assert_eq!(fault(&key, &short), JweFault::Tag, "{len}");
    }
    let long = [tag.as_slice(), &[0]].concat();
    assert_eq!(
        fault(&key, &with_part(&jwe, 4, &base64url::encode(&long))),
        JweFault::Tag
    );
}

/// josekit panics on an empty initialization vector.
#[test]
fn initialization_vector_of_another_length_is_refused() {
    let key = key();
    let jwe = seal(&key);
    for len in [0, 1, 8, 11, 13, 16] {
        let other = with_part(&jwe, 2, &base64url::encode(&vec![0; len]));
        assert_eq!(fault(&key, &other), JweFault::Iv, "{len}");
    }
}

#[test]
fn encrypted_key_of_another_length_is_refused() {
    let key = key();
    let jwe = seal(&key);
    for len in [0, 1, 7, 8, 24, 32, 39, 41, 48] {
        let other = with_part(&jwe, 1, &base64url::encode(&vec![0; len]));
        assert_eq!(fault(&key, &other), JweFault::EncryptedKey, "{len}");
    }
}

/// CVE-2024-28176 and its like: josekit inflates 64 KiB to 50 MB.
#[test]
fn compressed_jwe_is_refused_before_it_is_opened() {
    let key = key();
    let public = josekit::jwk::Jwk::from_bytes(key.public().unwrap().to_jwk()).unwrap();
    let encrypter = ECDH_ES_A256KW.encrypter_from_jwk(&public).unwrap();
    let mut header = JweHeader::new();
    header.set_content_encryption("A256GCM");
    header.set_compression("DEF");
    let bomb = josekit::jwe::serialize_compact(&vec![0; 5_000_000], &header, &encrypter).unwrap();
    assert!(bomb.len() < 50_000);
    assert_eq!(fault(&key, &bomb), JweFault::Forbidden);
}

/// docs/protocol.md §10, CVE-2023-50967.
#[test]
fn forbidden_header_members_are_refused_whatever_their_value() {
    let key = key();
    let jwe = seal(&key);
    for name in ["zip", "crit", "p2c", "p2s", "jku", "jwk", "x5u", "x5c"] {
        for value in [json!(null), json!("DEF"), json!([]), json!(2_147_483_647)] {
            let with = with_header(&jwe, |header| header[name] = value);
            assert_eq!(fault(&key, &with), JweFault::Forbidden, "{name}");
        }
    }
}

/// josekit lets the header choose `enc`; RFC 8725 §3.1.
#[test]
fn other_algorithms_are_refused() {
    let key = key();
    let jwe = seal(&key);
    for alg in [
        json!("ECDH-ES"),
        json!("ECDH-ES+A128KW"),
        json!("dir"),
        json!("RSA1_5"),
        json!("RSA-OAEP"),
        json!("A256KW"),
        json!("none"),
        json!("PBES2-HS256+A128KW"),
        json!("ecdh-es+a256kw"),
        json!(1),
        json!(null),
    ] {
        assert_eq!(
            fault(&key, &with_header(&jwe, |header| header["alg"] = alg)),
            JweFault::Alg
        );
    }
    for enc in [
        json!("A128GCM"),
        json!("A256CBC-HS512"),
        json!("A128CBC-HS256"),
        json!("a256gcm"),
        json!(["A256GCM"]),
        json!(null),
    ] {
        assert_eq!(
            fault(&key, &with_header(&jwe, |header| header["enc"] = enc)),
            JweFault::Enc
        );
    }
    for (name, missing) in [
        ("alg", JweFault::Alg),
        ("enc", JweFault::Enc),
        ("epk", JweFault::Epk),
    ] {
        let without = with_header(&jwe, |header| {
            drop(header.as_object_mut().unwrap().remove(name))
        });
        assert_eq!(fault(&key, &without), missing);
    }
    // A JWE that truly uses another `enc` with the right `alg`.
    let public = josekit::jwk::Jwk::from_bytes(key.public().unwrap().to_jwk()).unwrap();
    let encrypter = ECDH_ES_A256KW.encrypter_from_jwk(&public).unwrap();
    for (enc, wrong) in [
        ("A128GCM", JweFault::EncryptedKey),
        ("A256CBC-HS512", JweFault::EncryptedKey),
        ("A128CBC-HS256", JweFault::Iv),
    ] {
        let mut header = JweHeader::new();
        header.set_content_encryption(enc);
        let other = josekit::jwe::serialize_compact(b"x", &header, &encrypter).unwrap();
        assert_eq!(fault(&key, &other), wrong, "{enc}");
    }
}

/// RFC 7518 §4.6.1.1, RFC 8037 §3.2, RFC 7748 §6.1.
#[test]
fn ephemeral_key_that_is_not_a_sound_x25519_key_is_refused() {
    let key = key();
    let jwe = seal(&key);
    let x = |bytes: &[u8]| base64url::encode(bytes);
    let mut one = [0; 32];
    one[0] = 1;
    let good = x(&[9; 32]);
    for epk in [
        json!({"kty": "OKP", "crv": "X25519", "x": x(&[0; 32])}),
        json!({"kty": "OKP", "crv": "X25519", "x": x(&one)}),
        json!({"kty": "OKP", "crv": "X25519", "x": x(&[9; 31])}),
        json!({"kty": "OKP", "crv": "X25519", "x": x(&[9; 33])}),
        json!({"kty": "OKP", "crv": "X25519", "x": format!("{good}=")}),
        json!({"kty": "OKP", "crv": "X25519", "x": good, "d": good}),
        json!({"kty": "OKP", "crv": "X448", "x": good}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": good}),
        json!({"kty": "EC", "crv": "X25519", "x": good}),
        json!({"crv": "X25519", "x": good}),
        json!({"kty": "OKP", "crv": "X25519"}),
        json!("epk"),
        json!(null),
        json!([]),
        json!({}),
    ] {
        let with = with_header(&jwe, |header| header["epk"] = epk.clone());
        assert_eq!(fault(&key, &with), JweFault::Epk, "{epk}");
    }
}

#[test]
fn header_that_is_not_strict_is_refused() {
    let key = key();
    let jwe = seal(&key);
    let header = String::from_utf8(part(&jwe, 0)).unwrap();
    let replaced = |header: &str| {
        fault(
            &key,
            &with_part(&jwe, 0, &base64url::encode(header.as_bytes())),
        )
    };
    assert_eq!(
        replaced(&header.replacen('{', r#"{"enc":"A128GCM","#, 1)),
        JweFault::Json(JsonError::DuplicateMember)
    );
    assert_eq!(
        replaced(&format!("{header}x")),
        JweFault::Json(JsonError::Trailing)
    );
    assert_eq!(replaced("[]"), JweFault::Json(JsonError::NotAnObject));
    assert_eq!(
        replaced(&format!("{header}{}", " ".repeat(2_048))),
        JweFault::HeaderTooLong
    );
    for name in ["typ", "cty", "kid", "apu", "apv"] {
        for value in [json!(1), json!(null), json!("A".repeat(256))] {
            let with = with_header(&jwe, |header| header[name] = value);
            assert_eq!(fault(&key, &with), JweFault::Member(name));
        }
    }
    for name in ["apu", "apv"] {
        assert_eq!(
            fault(&key, &with_header(&jwe, |header| header[name] = json!("A"))),
            JweFault::Member(name)
        );
    }
}

#[test]
fn serialization_that_is_not_canonical_is_refused() {
    let key = key();
    let jwe = seal(&key);
    for wrong in [
        "",
        ".",
        "a.b.c",
        "a.b.c.d",
        "....",
        "a.b.c.d.e.f",
        &format!("{jwe}."),
        &format!(".{jwe}"),
    ] {
        let error = fault(&key, wrong);
        assert!(
            matches!(error, JweFault::Parts | JweFault::EncryptedKey),
            "{wrong}: {error}"
        );
    }
    for index in 0..5 {
        let own = jwe.split('.').nth(index).unwrap();
        // In place of a character, so that the length stays.
        for wrong in ["+", "/", "=", " ", "\n", "*", "\0"] {
            let damaged = format!("{wrong}{}", &own[1..]);
            assert_eq!(
                fault(&key, &with_part(&jwe, index, &damaged)),
                JweFault::Base64url,
                "{index} {wrong:?}"
            );
        }
    }
    // Unused low bits set: 12 and 40 bytes have none or four, 16 bytes have four.
    let tag = jwe.split('.').nth(4).unwrap();
    let last = tag.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet
        .chars()
        .nth(alphabet.find(last).unwrap() + 1)
        .unwrap();
    let loose = format!("{}{next}", &tag[..tag.len() - 1]);
    assert_eq!(
        fault(&key, &with_part(&jwe, 4, &loose)),
        JweFault::Base64url
    );
    assert_eq!(fault(&key, &format!("{jwe}\n")), JweFault::Tag);
    assert_eq!(
        open_with(&key, &[0xff; 100]).unwrap_err(),
        OpenError::Malformed(JweFault::Parts)
    );
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZQ.AAAA";
    assert_eq!(fault(&key, token), JweFault::Parts);
}

#[test]
fn jwe_over_its_limit_is_neither_made_nor_opened() {
    let key = key();
    let public = key.public().unwrap();
    assert_eq!(
        seal_to(&public, &vec![0; MAX_JWE_BYTES], &Header::default()),
        Err(SealError::TooLong)
    );
    assert_eq!(
        seal_to(&public, &vec![0; MAX_JWE_BYTES + 1], &Header::default()),
        Err(SealError::TooLong)
    );
    assert_eq!(
        fault(&key, &"A".repeat(MAX_JWE_BYTES + 1)),
        JweFault::TooLong
    );
}

#[test]
fn seal_refuses_long_header_members_and_other_keys() {
    let public = key().public().unwrap();
    let long = || Some("k".repeat(256));
    for header in [
        Header {
            typ: long(),
            ..Header::default()
        },
        Header {
            cty: long(),
            ..Header::default()
        },
        Header {
            kid: long(),
            ..Header::default()
        },
    ] {
        assert_eq!(seal_to(&public, b"x", &header), Err(SealError::Header));
    }
    for kind in [KeyType::Ed25519, KeyType::P256, KeyType::Rsa2048] {
        let other = PrivateKey::generate(kind).unwrap().public().unwrap();
        assert_eq!(
            seal_to(&other, b"x", &Header::default()),
            Err(SealError::Key(KeyError::Unsupported))
        );
    }
}

proptest::proptest! {
    /// Nothing that comes in makes the reader panic, and nothing but a JWE is taken for one.
    #[test]
    fn arbitrary_input_is_refused(bytes in proptest::collection::vec(0_u8.., 0..600)) {
        proptest::prop_assert!(UnopenedJwe::parse(&bytes).is_err());
    }

    #[test]
    fn arbitrary_parts_are_refused(text in "[A-Za-z0-9_-]{0,80}(\\.[A-Za-z0-9_-]{0,80}){4}") {
        proptest::prop_assert!(UnopenedJwe::parse(text.as_bytes()).is_err());
    }
}
