//! Each check of RFC 9449 §4.3, by what fails without it.

use alloc::format;

use super::*;
use crate::{
    base64url,
    json::JsonError,
    jws::{JwsPart, SignatureError},
    key::{Seed, SigningKey},
};

const NOW: u64 = 1_800_000_000;
const TOKEN: &[u8] = b"a.b.c";
const REQUEST: Request<'static> = Request {
    method: "POST",
    host: "relay.example",
    path: "/v1/messages",
};

fn key() -> SigningKey {
    SigningKey::from_seed(&Seed::new([7; 32]))
}

fn header() -> String {
    format!(
        r#"{{"typ":"dpop+jwt","alg":"EdDSA","jwk":{}}}"#,
        key().public().to_jwk()
    )
}

fn payload() -> String {
    let ath = base64url::encode(&sha256(&[TOKEN]));
    format!(
        r#"{{"jti":"1","htm":"POST","htu":"https://relay.example/v1/messages","iat":{NOW},"ath":"{ath}"}}"#
    )
}

fn sign(header: &str, payload: &str, key: &SigningKey) -> String {
    let [header, payload] = [header, payload].map(|part| base64url::encode(part.as_bytes()));
    let input = format!("{header}.{payload}");
    let signature = base64url::encode(&key.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

fn check(proof: &str) -> Result<DpopProof, DpopError> {
    UnverifiedDpopProof::parse(proof.as_bytes())?.verify(TOKEN, REQUEST, NOW)
}

fn check_payload(payload: &str) -> Result<DpopProof, DpopError> {
    check(&sign(&header(), payload, &key()))
}

fn defect(claim: &'static str, defect: ClaimDefect) -> DpopError {
    refuse(claim, defect).into()
}

#[test]
fn proof_says_which_device_has_signed_the_request() {
    let proof = check_payload(&payload()).unwrap();
    assert_eq!(proof.device(), key().thumbprint());
    let other = check_payload(&payload().replace(r#""jti":"1""#, r#""jti":"2""#)).unwrap();
    assert_ne!(proof.id(), other.id());
    // RFC 9449 lets claims be added.
    check_payload(&payload().replace('{', r#"{"nonce":"x","#)).unwrap();
    let header = header().replace("EdDSA", "Ed25519");
    check(&sign(&header, &payload(), &key())).unwrap();
}

#[test]
fn header_has_type_algorithm_and_key_and_nothing_else() {
    let jwk = key().public().to_jwk();
    for header in [
        r#"{"typ":"dpop+jwt","alg":"EdDSA"}"#.into(),
        format!(r#"{{"alg":"EdDSA","jwk":{jwk}}}"#),
        format!(r#"{{"typ":"dpop+jwt","jwk":{jwk}}}"#),
        r#"{"typ":"dpop+jwt","alg":"EdDSA","jwk":"x"}"#.into(),
        header().replacen('{', r#"{"kid":"x","#, 1),
        header().replacen('{', r#"{"crit":["b64"],"#, 1),
    ] {
        let refused = check(&sign(&header, &payload(), &key())).unwrap_err();
        let is_json = |error| {
            let part = JwsPart::Header;
            DpopError::from(JwsError::Json { part, error })
        };
        assert!(
            refused == DpopError::Header || refused == is_json(JsonError::Malformed),
            "{header}: {refused}"
        );
    }
    for typ in ["jwt", "at+jwt", "dpop"] {
        let header = header().replace("dpop+jwt", typ);
        assert_eq!(
            check(&sign(&header, &payload(), &key())),
            Err(JwsError::UnexpectedType.into())
        );
    }
    let private = header().replace(r#""crv""#, r#""d":"x","crv""#);
    assert_eq!(
        check(&sign(&private, &payload(), &key())),
        Err(DpopError::Key(JwkError::Private))
    );
}

#[test]
fn proof_that_its_own_key_has_not_signed_is_refused() {
    let other = SigningKey::from_seed(&Seed::new([8; 32]));
    assert_eq!(
        check(&sign(&header(), &payload(), &other)),
        Err(TokenError::from(SignatureError::Invalid).into())
    );
    for alg in ["none", "HS256", "ES256", "eddsa"] {
        let header = header().replace("EdDSA", alg);
        assert_eq!(
            check(&sign(&header, &payload(), &key())),
            Err(TokenError::from(SignatureError::AlgorithmNotAllowed).into()),
            "{alg}"
        );
    }
}

#[test]
fn proof_for_another_method_token_or_time_is_refused() {
    let edit = |from: &str, to: &str| check_payload(&payload().replace(from, to)).unwrap_err();
    assert_eq!(edit("POST", "GET"), defect("htm", ClaimDefect::Mismatch));
    assert_eq!(edit("POST", "post"), defect("htm", ClaimDefect::Mismatch));
    let proof = sign(&header(), &payload(), &key());
    let proof = |token: &[u8], now| {
        UnverifiedDpopProof::parse(proof.as_bytes())?.verify(token, REQUEST, now)
    };
    assert_eq!(
        proof(b"a.b.d", NOW),
        Err(defect("ath", ClaimDefect::Mismatch))
    );
    for now in [NOW - 60, NOW + 60] {
        proof(TOKEN, now).unwrap();
    }
    assert_eq!(
        proof(TOKEN, NOW - 61),
        Err(defect("iat", ClaimDefect::InFuture))
    );
    assert_eq!(
        proof(TOKEN, NOW + 61),
        Err(defect("iat", ClaimDefect::TooOld))
    );
}

#[test]
fn claims_that_are_missing_or_of_another_form_are_refused() {
    for claim in ["jti", "htm", "htu", "iat", "ath"] {
        let without = payload().replace(&format!("\"{claim}\""), "\"x\"");
        assert_eq!(
            check_payload(&without),
            Err(defect(claim, ClaimDefect::Missing))
        );
    }
    let edit = |from: &str, to: &str| check_payload(&payload().replace(from, to)).unwrap_err();
    let empty = edit(r#""jti":"1""#, r#""jti":"""#);
    assert_eq!(empty, defect("jti", ClaimDefect::Invalid));
    let long = format!(r#""jti":"{}""#, "1".repeat(256));
    let long = edit(r#""jti":"1""#, &long);
    assert_eq!(long, defect("jti", ClaimDefect::Invalid));
    let text = edit(&format!("{NOW}"), r#""1800000000""#);
    assert_eq!(text, defect("iat", ClaimDefect::WrongType));
}

#[test]
fn proof_over_the_limit_is_refused_before_anything_12() {
    let long = payload().replace('{', &format!(r#"{{"x":"{}","#, "x".repeat(2_048)));
    assert_eq!(check_payload(&long), Err(JwsError::TooLong.into()));
}

#[test]
fn uri_is_compared_by_host_and_path() {
    let is = |uri| is_uri_of(uri, "relay.example", "/v1/messages");
    for uri in [
        "https://relay.example/v1/messages",
        "http://relay.example/v1/messages",
        "HTTPS://Relay.Example/v1/messages",
        "https://relay.example:443/v1/messages",
        "http://relay.example:80/v1/messages",
        "https://relay.example/v1/messages?a=/b#c",
        "https://relay.example/v1/messages#c",
    ] {
        assert!(is(uri), "{uri}");
    }
    for uri in [
        "",
        "relay.example/v1/messages",
        "wss://relay.example/v1/messages",
        "https:///v1/messages",
        "https://relay.example",
        "https://relay.example?/v1/messages",
        "https://relay.example/v1/messages/",
        "https://relay.example/V1/messages",
        "https://relay.example//v1/messages",
        "https://relay.example:80/v1/messages",
        "https://relay.example:8443/v1/messages",
        "https://relay.example.evil/v1/messages",
        "https://user@relay.example/v1/messages",
        "https://relay.example@evil/v1/messages",
    ] {
        assert!(!is(uri), "{uri}");
    }
    assert!(is_uri_of("https://r:8443/a", "r:8443", "/a"));
    assert!(is_uri_of("https://r/a", "r:443", "/a"));
}
