use alloc::{format, string::ToString as _};

use super::*;
use crate::base64url;
use crate::jws::SignatureError;
use crate::key::{PublicKey, Seed, SigningKey};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://id.example/realm";
const AUDIENCE: &str = "https://relay.example";

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&Seed::new([number; 32]))
}

fn device() -> Thumbprint {
    key(2).thumbprint()
}

fn signed(header: &str, payload: &str) -> String {
    let input = format!(
        "{}.{}",
        base64url::encode(header.as_bytes()),
        base64url::encode(payload.as_bytes())
    );
    let signature = key(1).sign(input.as_bytes());
    format!("{input}.{}", base64url::encode(&signature))
}

/// Good claims with these beside them.
fn payload(more: &str) -> String {
    format!(
        r#"{{"iss":"{ISSUER}","aud":["account","{AUDIENCE}"],"iat":{NOW},"exp":{},"sub":"42"{more}}}"#,
        NOW + 300
    )
}

struct Expecting {
    types: Vec<Box<str>>,
    issuer: Issuer,
    audience: &'static str,
    id_tokens: bool,
    now: u64,
    key: PublicKey,
}

impl Expecting {
    fn usual() -> Self {
        Self {
            types: ["JWT", "at+jwt", ""].map(Into::into).to_vec(),
            issuer: Issuer::new(ISSUER).unwrap(),
            audience: AUDIENCE,
            id_tokens: false,
            now: NOW,
            key: *key(1).public(),
        }
    }

    fn verify(&self, token: &str) -> Result<ProviderToken, TokenError> {
        let policy = ProviderPolicy {
            issuer: &self.issuer,
            audience: self.audience,
            types: &self.types,
            id_tokens: self.id_tokens,
            device: device(),
            max_age: 86_400,
            now: self.now,
        };
        UnverifiedProviderToken::parse(token.as_bytes())?.verify(&self.key, &policy)
    }
}

const JWT: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

fn outcome(payload: &str) -> Result<(), TokenError> {
    Expecting::usual().verify(&signed(JWT, payload)).map(drop)
}

fn wrong(claim: &'static str, defect: ClaimDefect) -> Result<(), TokenError> {
    Err(refuse(claim, defect))
}

/// docs/protocol.md §3.7
#[test]
fn a_good_token_says_when_and_who() {
    let more = r#","jti":"t1","realm_access":{"roles":["chat"]},"scope":["a","b"],"tenant":7,
        "authorization_details":[{"type":"sealwire","to":["bob"],"max_message_bytes":9}]"#;
    let token = Expecting::usual()
        .verify(&signed(JWT, &payload(more)))
        .unwrap();
    assert_eq!(
        (token.issued(), token.expires(), token.id()),
        (NOW, NOW + 300, "t1")
    );
    assert!(token.claims().member("realm_access").is_some());
    // What it calls scope and tenant means nothing by itself.
    let details = token.details();
    assert_eq!(details.max_message_bytes, Some(9));
    assert!(details.to.as_ref().is_some_and(|to| to.len() == 1));
    assert!(details.tenant.is_none() && !details.send && !details.receive && !details.publish);
}

/// docs/protocol.md §3.7, §2.1, 5
#[test]
fn type_that_is_not_listed_is_refused_and_no_type_only_where_it_is_listed() {
    let with = |typ: &str| {
        let header = format!(r#"{{"alg":"EdDSA"{typ}}}"#);
        signed(&header, &payload(""))
    };
    let usual = Expecting::usual();
    for good in [
        "",
        r#","typ":"JWT""#,
        r#","typ":"jwt""#,
        r#","typ":"application/at+jwt""#,
    ] {
        usual.verify(&with(good)).unwrap();
    }
    for bad in [
        r#","typ":"""#,
        r#","typ":"sealwire-device-proof+jwt""#,
        r#","typ":"logout+jwt""#,
        r#","typ":"dpop+jwt""#,
        r#","typ":"JWT ""#,
    ] {
        assert_eq!(
            usual.verify(&with(bad)).map(drop),
            Err(JwsError::UnexpectedType.into()),
            "{bad}"
        );
    }
    let strict = Expecting {
        types: alloc::vec!["at+jwt".into()],
        ..Expecting::usual()
    };
    for bad in ["", r#","typ":"JWT""#] {
        assert_eq!(
            strict.verify(&with(bad)).map(drop),
            Err(JwsError::UnexpectedType.into())
        );
    }
    // Before the signature: whatever it is.
    let unsigned = with(r#","typ":"x""#).replace("ey", "ew");
    assert!(matches!(usual.verify(&unsigned), Err(TokenError::Jws(_))));
}

/// docs/protocol.md §2.1
#[test]
fn header_and_form_are_as_strict_as_anywhere() {
    let header = |header: &str| {
        Expecting::usual()
            .verify(&signed(header, &payload("")))
            .map(drop)
    };
    for (bad, error) in [
        (
            r#"{"alg":"EdDSA","typ":"JWT","crit":["x"]}"#,
            JwsError::RefusedMember("crit"),
        ),
        (
            r#"{"alg":"EdDSA","typ":"JWT","jku":"https://evil.example"}"#,
            JwsError::RefusedMember("jku"),
        ),
        (
            r#"{"alg":"EdDSA","typ":"JWT","jwk":{}}"#,
            JwsError::RefusedMember("jwk"),
        ),
        (r#"{"alg":"none","typ":"JWT"}"#, JwsError::Unsecured),
        (r#"{"typ":"JWT"}"#, JwsError::MissingMember("alg")),
        (r#"{"alg":"EdDSA","typ":1}"#, JwsError::NotAString("typ")),
    ] {
        assert_eq!(header(bad), Err(error.into()), "{bad}");
    }
    assert_eq!(
        header(r#"{"alg":"RS256","typ":"JWT"}"#),
        Err(SignatureError::AlgorithmNotAllowed.into())
    );
    assert!(matches!(
        outcome(&payload(r#","sub":"43""#)),
        Err(TokenError::Jws(JwsError::Json { .. }))
    ));
    let long = signed(JWT, &payload(&format!(r#","x":"{}""#, "x".repeat(8_192))));
    assert_eq!(
        Expecting::usual().verify(&long).map(drop),
        Err(JwsError::TooLong.into())
    );
    let good = signed(JWT, &payload(""));
    let another = Expecting {
        key: *key(9).public(),
        ..Expecting::usual()
    };
    assert_eq!(
        another.verify(&good).map(drop),
        Err(SignatureError::Invalid.into())
    );
    for cut in [good.len() - 1, 0] {
        let _ = Expecting::usual().verify(&good[..cut]).unwrap_err();
    }
}

/// docs/protocol.md §3.7
#[test]
fn token_of_another_issuer_audience_or_time_is_refused() {
    let good = signed(JWT, &payload(""));
    let with = |change: fn(&mut Expecting)| {
        let mut expecting = Expecting::usual();
        change(&mut expecting);
        expecting.verify(&good).map(drop)
    };
    assert_eq!(
        with(|e| e.issuer = Issuer::new("https://id.example/realm/").unwrap()),
        wrong("iss", ClaimDefect::Mismatch)
    );
    assert_eq!(
        with(|e| e.audience = "https://relay.example/"),
        wrong("aud", ClaimDefect::Mismatch)
    );
    assert_eq!(with(|e| e.now = NOW + 359), Ok(()));
    assert_eq!(
        with(|e| e.now = NOW + 360),
        wrong("exp", ClaimDefect::Expired)
    );
    assert_eq!(with(|e| e.now = NOW - 60), Ok(()));
    assert_eq!(
        with(|e| e.now = NOW - 61),
        wrong("iat", ClaimDefect::InFuture)
    );
    for (claims, expected) in [
        (
            format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","iat":{NOW},"exp":{NOW}}}"#),
            wrong("exp", ClaimDefect::Invalid),
        ),
        (
            format!(
                r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","iat":{},"exp":{}}}"#,
                NOW - 86_401,
                NOW + 9
            ),
            wrong("iat", ClaimDefect::TooOld),
        ),
        (
            payload(&format!(r#","nbf":{}"#, NOW + 61)),
            wrong("nbf", ClaimDefect::InFuture),
        ),
        (
            format!(
                r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","exp":{}}}"#,
                NOW + 9
            ),
            wrong("iat", ClaimDefect::Missing),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","iat":{NOW}}}"#),
            wrong("exp", ClaimDefect::Missing),
        ),
        (
            format!(r#"{{"iss":"{ISSUER}","iat":{NOW},"exp":{}}}"#, NOW + 9),
            wrong("aud", ClaimDefect::Missing),
        ),
        (
            format!(r#"{{"aud":"{AUDIENCE}","iat":{NOW},"exp":{}}}"#, NOW + 9),
            wrong("iss", ClaimDefect::Missing),
        ),
        (
            format!(
                r#"{{"iss":"{ISSUER}","aud":"{AUDIENCE}","iat":{NOW},"exp":"{}"}}"#,
                NOW + 9
            ),
            wrong("exp", ClaimDefect::WrongType),
        ),
        (payload(r#","jti":7"#), wrong("jti", ClaimDefect::WrongType)),
        (payload(r#","jti":"""#), wrong("jti", ClaimDefect::Invalid)),
        (
            payload(r#","authorization_details":[{"type":"sealwire","to":"bob"}]"#),
            wrong("to", ClaimDefect::WrongType),
        ),
    ] {
        assert_eq!(outcome(&claims), expected, "{claims}");
    }
}

/// docs/protocol.md §3.7
#[test]
fn token_that_is_bound_is_for_that_device_only() {
    let bound = |cnf: &str| outcome(&payload(&format!(r#","cnf":{cnf}"#)));
    let jkt = |thumbprint: Thumbprint| format!(r#"{{"jkt":"{thumbprint}"}}"#);
    let jwk = |key: &SigningKey| {
        let x = base64url::encode(key.public().as_bytes());
        format!(r#"{{"jwk":{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}}}"#)
    };
    assert_eq!(bound(&jkt(device())), Ok(()));
    assert_eq!(bound(&jwk(&key(2))), Ok(()));
    assert_eq!(
        bound(&jkt(key(3).thumbprint())),
        Err(TokenError::BoundElsewhere)
    );
    assert_eq!(bound(&jwk(&key(3))), Err(TokenError::BoundElsewhere));
    // Bound to something that no device has: a certificate, or a key of another kind.
    for other in [
        r#"{"x5t#S256":"bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}"#,
        r#"{"jwk":{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}}"#,
        "{}",
        "null",
    ] {
        let _ = bound(other).unwrap_err();
    }
}

/// docs/protocol.md §3.7
#[test]
fn id_token_is_taken_only_where_it_is_allowed() {
    let lenient = Expecting {
        id_tokens: true,
        ..Expecting::usual()
    };
    for more in [
        r#","at_hash":"x""#,
        r#","c_hash":"x""#,
        r#","s_hash":"x""#,
        r#","typ":"ID""#,
        r#","typ":"id""#,
    ] {
        let token = signed(JWT, &payload(more));
        assert_eq!(
            Expecting::usual().verify(&token).map(drop),
            Err(TokenError::IdToken),
            "{more}"
        );
        lenient.verify(&token).unwrap();
    }
    assert_eq!(outcome(&payload(r#","typ":"Bearer","nonce":"x""#)), Ok(()));
    // Nothing else is lifted.
    for more in [
        r#","typ":"Refresh""#,
        r#","typ":"offline""#,
        r#","typ":"Logout""#,
        r#","events":{"http://schemas.openid.net/event/backchannel-logout":{}}"#,
    ] {
        for expecting in [&lenient, &Expecting::usual()] {
            let token = signed(JWT, &payload(more));
            assert_eq!(
                expecting.verify(&token).map(drop),
                Err(TokenError::AnotherPurpose),
                "{more}"
            );
        }
    }
    let id_token = |more: &str| signed(JWT, &payload(&format!(r#","at_hash":"x"{more}"#)));
    let bound = id_token(&format!(r#","cnf":{{"jkt":"{}"}}"#, key(3).thumbprint()));
    let early = id_token(&format!(r#","nbf":{}"#, NOW + 61));
    let other_type = signed(r#"{"alg":"EdDSA","typ":"logout+jwt"}"#, &payload(""));
    for (token, error) in [
        (bound, TokenError::BoundElsewhere),
        (early, refuse("nbf", ClaimDefect::InFuture)),
        (other_type, JwsError::UnexpectedType.into()),
    ] {
        assert_eq!(lenient.verify(&token).map(drop), Err(error));
    }
    let elsewhere = Expecting {
        audience: "https://other.example",
        id_tokens: true,
        ..Expecting::usual()
    };
    assert_eq!(
        elsewhere.verify(&id_token("")).map(drop),
        wrong("aud", ClaimDefect::Mismatch)
    );
}

/// docs/protocol.md §3.7, §5.6
#[test]
fn token_without_an_id_has_that_of_what_was_signed() {
    let token = signed(JWT, &payload(""));
    let id = Expecting::usual().verify(&token).unwrap().id().to_string();
    let (signed_part, _) = token.rsplit_once('.').unwrap();
    let expected = base64url::encode(&sha256(&[signed_part.as_bytes()]));
    assert_eq!(id, expected);
    // Whatever the signature: it is the same token.
    let another = format!("{signed_part}.{}", base64url::encode(&[7; 64]));
    let another = UnverifiedProviderToken::parse(another.as_bytes()).unwrap();
    assert_eq!(*another.token.id, *expected);
    let later = signed(JWT, &payload(r#","nonce":"x""#));
    assert_ne!(Expecting::usual().verify(&later).unwrap().id(), id);
}

#[test]
fn debug_shows_nothing_of_a_token() {
    let token = signed(JWT, &payload(r#","email":"alice@example.com""#));
    let unverified = UnverifiedProviderToken::parse(token.as_bytes()).unwrap();
    let shown = format!(
        "{unverified:?} {:?}",
        Expecting::usual().verify(&token).unwrap()
    );
    assert_eq!(
        shown,
        r#"UnverifiedProviderToken { alg: "EdDSA", kid: None, .. } ProviderToken(..)"#
    );
    let policy = ProviderPolicy {
        issuer: &Issuer::new(ISSUER).unwrap(),
        audience: AUDIENCE,
        types: &[],
        id_tokens: false,
        device: device(),
        max_age: 0,
        now: 0,
    };
    assert!(format!("{policy:?}").contains(&device().to_string()));
}
