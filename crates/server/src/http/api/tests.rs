use super::*;
use crate::http::Problem;

#[test]
fn paths_have_one_segment_for_the_user() {
    assert_eq!(Route::of("/v1/messages"), Some(Route::Messages));
    assert_eq!(
        Route::of("/v1/users/a%2Fb/devices"),
        Some(Route::Devices("a%2Fb"))
    );
    for path in [
        "/v1",
        "/v1/",
        "/v1/messages/",
        "/v1/users/devices",
        "/v1/users//devices",
        "/v1/users/a/b/devices",
        "/v1/users/a/devices/",
        "/v2/messages",
    ] {
        assert_eq!(Route::of(path), None, "{path}");
    }
}

#[test]
fn user_in_a_path_is_decoded_once_and_strictly() {
    for (segment, user) in [
        ("bob", "bob"),
        ("acme%2Fbob", "acme/bob"),
        ("acme%2fbob", "acme/bob"),
        ("b%C3%B6b", "böb"),
        ("%252F", "%2F"),
        ("a+b@c:d", "a+b@c:d"),
    ] {
        assert_eq!(percent_decoded(segment).as_deref(), Some(user), "{segment}");
    }
    for segment in [
        "%", "%2", "%2g", "%%32F", "%C3", "a b", "a\"b", "a/b", "ö", "%+1",
    ] {
        assert_eq!(percent_decoded(segment), None, "{segment}");
    }
}

const DEVICE: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn jwe() -> String {
    let header = r#"{"alg":"ECDH-ES+A256KW","enc":"A256GCM","cty":"JWT","epk":{"kty":"OKP","crv":"X25519","x":"hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}}"#;
    let part = |bytes: usize| base64url::encode(&vec![0; bytes]);
    [
        base64url::encode(header.as_bytes()),
        part(40),
        part(12),
        part(20),
        part(16),
    ]
    .join(".")
}

fn body() -> String {
    let id = base64url::encode(&[7; 16]);
    let jwe = jwe();
    format!(r#"{{"user":"bob","id":"{id}","messages":[{{"device":"{DEVICE}","jwe":"{jwe}"}}]}}"#)
}

#[test]
fn body_has_exactly_what_is_described() {
    let letter = Letter::parse(body().as_bytes()).unwrap();
    assert_eq!((letter.user.as_str(), letter.id), ("bob", [7; 16]));
    assert_eq!(letter.parts[0].0.to_string(), DEVICE);
    assert_eq!(letter.parts[0].1, jwe().into_bytes());

    let good = body();
    let id = base64url::encode(&[7; 16]);
    let short = base64url::encode(&[7; 15]);
    for (from, to) in [
        (r#""user":"bob","#, ""),
        (r#""user":"bob""#, r#""user":1"#),
        (r#""user":"bob""#, r#""user":"bob","user":"bob""#),
        (r#""user":"bob""#, r#""user":"bob","more":1"#),
        (id.as_str(), &short),
        (id.as_str(), "="),
        (DEVICE, "AAAA"),
        (r#""device":"#, r#""dev":"#),
        (r#""jwe":"#, r#""more":1,"jwe":"#),
        (r#"[{"#, r#"[1,{"#),
        (".", ""),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replace(from, to);
        assert_eq!(
            Letter::parse(bad.as_bytes()).unwrap_err().problem(),
            Problem::Malformed,
            "{from} {to}"
        );
    }
    let none = format!(r#"{{"user":"bob","id":"{id}","messages":[]}}"#);
    let message = format!(r#"{{"device":"{DEVICE}","jwe":"{}"}}"#, jwe());
    let many = vec![message.as_str(); 17].join(",");
    let many = format!(r#"{{"user":"bob","id":"{id}","messages":[{many}]}}"#);
    for bad in [none.as_str(), &many, "", "[]", "{}"] {
        assert_eq!(
            Letter::parse(bad.as_bytes()).unwrap_err().problem(),
            Problem::Malformed
        );
    }
}

#[test]
fn message_is_a_standard_jwe_with_a_jwt_in_it_and_no_longer_than_a_sealed_one() {
    let long = body().replace(&jwe(), &"e".repeat(MAX_SEALED_MESSAGE_BYTES + 1));
    assert_eq!(
        Letter::parse(long.as_bytes()).unwrap_err().problem(),
        Problem::TooLarge
    );
    let header = jwe();
    let header = header.split('.').next().unwrap();
    let decoded = String::from_utf8(base64url::decode(header.as_bytes()).unwrap()).unwrap();
    for other in [
        decoded.replace(r#""cty":"JWT","#, ""),
        decoded.replace("JWT", "JWS"),
        decoded.replace("A256GCM", "A128GCM"),
    ] {
        let other = body().replace(header, &base64url::encode(other.as_bytes()));
        assert_eq!(
            Letter::parse(other.as_bytes()).unwrap_err().problem(),
            Problem::Malformed
        );
    }
}

#[test]
fn media_type_is_json_and_nothing_else() {
    let check = |fields: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().unwrap());
        }
        check_media_type(&headers).map_err(|refused| refused.problem())
    };
    for good in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
    ] {
        assert_eq!(check(&[("content-type", good)]), Ok(()), "{good}");
    }
    for bad in [
        "",
        "text/json",
        "application/jsonx",
        "application/json; charset=latin1",
    ] {
        assert_eq!(
            check(&[("content-type", bad)]),
            Err(Problem::MediaType),
            "{bad}"
        );
    }
    assert_eq!(check(&[]), Err(Problem::MediaType));
    let encoded = [
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
    ];
    assert_eq!(check(&encoded), Err(Problem::MediaType));
}
