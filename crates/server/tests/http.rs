//! Requests of devices that have no link, over real sockets, and the document that describes them (docs/protocol.md §18, docs/openapi.json).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sealwire_jose::PublicKey;
use sealwire_jose::jwe::{Header, seal_to};
use sealwire_protocol::base64url;
use sealwire_protocol::crypto::sha256;
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::name::User;
use sealwire_server::policy::Allowance;
use sealwire_server::revocations::Revocation;
use sealwire_server::{Drain, Relay};
use serde_json::{Value, json};
use support::log::Log;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LOOPBACK: &str = "127.0.0.1:0";
const MESSAGES: &str = "/v1/messages";

/// A device that has no link.
struct Backend {
    key: SigningKey,
    token: String,
}

/// What a request is made of, before any of it is made wrong.
struct Ask {
    method: &'static str,
    path: String,
    /// Names in lower case.
    fields: BTreeMap<&'static str, String>,
    body: Vec<u8>,
}

struct Answer {
    status: u16,
    fields: BTreeMap<String, String>,
    body: Value,
}

impl Answer {
    fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or("ok"))
    }
}

impl Backend {
    fn new(issuer: &Issuer, user: &str) -> Self {
        let key = new_key();
        let token = issuer.token(user, &key);
        Self { key, token }
    }

    fn limited(issuer: &Issuer, user: &str, limits: &Value) -> Self {
        let key = new_key();
        let token = issuer.token_limited(user, &key, limits);
        Self { key, token }
    }

    /// A proof for a request to `localhost`, with some claims changed.
    fn proof(&self, method: &str, path: &str, changes: &Value) -> String {
        let mut claims = json!({
            "jti": base64url::encode(&rand::random::<[u8; 16]>()),
            "htm": method,
            "htu": format!("https://localhost{path}"),
            "iat": now(),
            "ath": base64url::encode(&sha256(&[self.token.as_bytes()])),
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        proof_of(&self.key, &claims)
    }

    fn ask(&self, method: &'static str, path: &str, body: &Value) -> Ask {
        let mut fields = BTreeMap::from([
            ("host", "localhost".to_owned()),
            ("authorization", format!("DPoP {}", self.token)),
            ("dpop", self.proof(method, path, &json!({}))),
        ]);
        let body = if body.is_null() {
            Vec::new()
        } else {
            fields.insert("content-type", "application/json".to_owned());
            body.to_string().into_bytes()
        };
        fields.insert("content-length", body.len().to_string());
        Ask {
            method,
            path: path.to_owned(),
            fields,
            body,
        }
    }

    fn get(&self, user: &str) -> Ask {
        self.ask("GET", &format!("/v1/users/{user}/devices"), &Value::Null)
    }

    fn post(&self, message: &Value) -> Ask {
        self.ask("POST", MESSAGES, message)
    }
}

impl Ask {
    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.insert(name, value.to_owned());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.fields.remove(name);
        self
    }

    fn head(&self) -> String {
        let fields = self.fields.iter();
        let fields: String = fields
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        format!("{} {} HTTP/1.1\r\n{fields}\r\n", self.method, self.path)
    }

    async fn on(&self, stream: &mut Box<dyn Stream>) -> Answer {
        stream.write_all(self.head().as_bytes()).await.unwrap();
        // A body may be refused before it has been read.
        let _ = stream.write_all(&self.body).await;
        answer(stream).await
    }

    async fn to(&self, relay: &impl At) -> Answer {
        self.on(&mut connect(relay).await).await
    }
}

fn proof_of(key: &SigningKey, claims: &Value) -> String {
    let jwk = key.public().to_jwk();
    let header = format!(r#"{{"typ":"dpop+jwt","alg":"EdDSA","jwk":{jwk}}}"#);
    let [header, claims] =
        [header, claims.to_string()].map(|part| base64url::encode(part.as_bytes()));
    let input = format!("{header}.{claims}");
    let signature = base64url::encode(&key.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

async fn answer(stream: &mut Box<dyn Stream>) -> Answer {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(stream.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let fields: BTreeMap<_, _> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; fields["content-length"].parse().unwrap()];
    within(stream.read_exact(&mut body)).await.unwrap();
    Answer {
        status: status.parse().unwrap(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        fields,
    }
}

fn sealed(text: &str) -> String {
    let key = PublicKey::from_x25519(&[7; 32]).unwrap();
    let header = Header {
        cty: Some("JWT".to_owned()),
        ..Header::default()
    };
    seal_to(&key, text.as_bytes(), &header).unwrap()
}

fn message(user: &str, devices: &[Thumbprint], jwe: &str) -> Value {
    let messages: Vec<_> = devices
        .iter()
        .map(|device| json!({ "device": device.to_string(), "jwe": jwe }))
        .collect();
    json!({ "user": user, "id": base64url::encode(&[7; 16]), "messages": messages })
}

#[tokio::test]
async fn message_is_delivered_as_it_is_and_again_when_it_is_sent_again() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let backend = Backend::new(&issuer, "shop");
    let jwe = sealed("hello");
    for position in 1..=2 {
        let ask = backend.post(&message("bob", &[bob.id()], &jwe));
        let answer = ask.to(&relay).await;
        assert_eq!(answer.status, 202);
        assert_eq!(answer.body, json!({ "id": base64url::encode(&[7; 16]) }));
        let delivered = Said::Deliver {
            position: FIRST_START + position,
            id: [7; 16],
            user: "shop".to_owned(),
            device: backend.key.thumbprint(),
            message: jwe.clone().into_bytes(),
        };
        assert_eq!(bob.next().await, delivered);
    }
}

#[tokio::test]
async fn devices_are_listed_with_their_cards_and_keys() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let bob = Device::join(&relay, &issuer, "acme/b\u{f6}b").await;
    let backend = Backend::new(&issuer, "shop");
    let answer = backend.get("acme%2Fb%C3%B6b").to(&relay).await;
    assert_eq!(answer.status, 200);
    let [device] = &answer.body["devices"].as_array().unwrap()[..] else {
        panic!("{}", answer.body)
    };
    let id = bob.id().to_string();
    assert_eq!(device["device"], id.as_str());
    assert_eq!(
        device["key"],
        json!({
            "kty": "OKP", "crv": "X25519", "x": base64url::encode(&[7; 32]), "kid": id,
            "use": "enc", "alg": "ECDH-ES+A256KW",
        })
    );
    let claims = device["card"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims = base64url::decode(claims.as_bytes()).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["iss"], id.as_str());
    // One's own user, who has none: that is no secret.
    let own = backend.get("shop").to(&relay).await;
    assert_eq!((own.status, own.body), (200, json!({ "devices": [] })));
}

/// docs/protocol.md §5.2: what is known of a device's Sends, another request of the same device does not change.
#[tokio::test]
async fn request_does_not_disturb_the_sequences_of_a_link_of_the_same_device() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let backend = Backend::new(&issuer, "shop");
    let (key, token) = (
        SigningKey::from_seed(&backend.key.seed()),
        backend.token.clone(),
    );
    let (mut link, _) = Device::connect(&relay, key, token).await;
    let to = [bob.id()];
    let jwe = sealed("hello");
    let first = Post::new(1, 1, "bob", &to, b"first");
    let second = Post::new(2, 2, "bob", &to, b"second");
    assert!(matches!(link.post(&first).await, Said::Accepted(_)));
    assert_eq!(
        backend
            .post(&message("bob", &to, &jwe))
            .to(&relay)
            .await
            .status,
        202
    );
    assert!(matches!(link.post(&second).await, Said::Accepted(_)));
    assert_eq!(
        backend
            .post(&message("bob", &to, &jwe))
            .to(&relay)
            .await
            .status,
        202
    );
    // A repetition adds nothing.
    assert!(matches!(link.post(&first).await, Said::Accepted(_)));
    let (_link, ready) = link.reconnect(&relay).await;
    assert!(matches!(ready, Said::Ready { sent: 2, .. }), "{ready:?}");
    let mut ids = Vec::new();
    for _ in 0..4 {
        let Said::Deliver { id, .. } = bob.next().await else {
            panic!()
        };
        ids.push(id[0]);
    }
    assert_eq!(ids, [1, 7, 2, 7]);
    bob.nothing_waits().await;
}

#[tokio::test]
async fn request_is_authorised_by_a_token_and_a_fresh_proof_of_its_key() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let _bob = Device::join(&relay, &issuer, "bob").await;
    let backend = Backend::new(&issuer, "shop");
    let path = "/v1/users/bob/devices";
    let good = backend.get("bob");
    assert_eq!(good.to(&relay).await.status, 200);
    let refused = async |ask: Ask, error: &str| {
        let answer = ask.to(&relay).await;
        assert_eq!(answer.code(), (401, "not_authorised"), "{error}");
        let challenge = &answer.fields["www-authenticate"];
        assert!(challenge.starts_with("DPoP "), "{challenge}");
        assert_eq!(
            challenge.contains("error="),
            !error.is_empty(),
            "{challenge}"
        );
        assert!(challenge.contains(error), "{challenge}");
        assert_eq!(answer.fields["connection"], "close");
    };
    let (proof, token) = ("invalid_dpop_proof", "invalid_token");
    // RFC 9449 §11.1: the same proof again.
    refused(good, proof).await;
    // §2.2: never a bearer token.
    let bearer = format!("Bearer {}", backend.token);
    refused(backend.get("bob").with("authorization", &bearer), "").await;
    refused(backend.get("bob").without("authorization"), "").await;
    refused(backend.get("bob").without("dpop"), "").await;
    for changes in [
        json!({ "htm": "POST" }),
        json!({ "htu": "https://other.example/v1/users/bob/devices" }),
        json!({ "htu": "https://localhost/v1/users/carol/devices" }),
        json!({ "iat": now() - 120 }),
        json!({ "iat": now() + 120 }),
        json!({ "ath": base64url::encode(&[0; 32]) }),
        json!({ "jti": "" }),
    ] {
        let wrong = backend.proof("GET", path, &changes);
        refused(backend.get("bob").with("dpop", &wrong), proof).await;
    }
    refused(backend.get("bob").with("dpop", "x"), proof).await;
    // Another key than the token's, which it proves.
    let thief = Backend {
        key: new_key(),
        token: backend.token.clone(),
    };
    refused(thief.get("bob"), token).await;
    for changes in [
        json!({ "exp": now() - 120, "iat": now() - 240 }),
        json!({ "aud": "https://other.example" }),
        json!({ "iss": "https://other.example" }),
    ] {
        let token_of = issuer.token_with("shop", &backend.key, &changes);
        let wrong = Backend {
            key: SigningKey::from_seed(&backend.key.seed()),
            token: token_of,
        };
        refused(wrong.get("bob"), token).await;
    }
    // Twice is no proof at all.
    let twice = backend.get("bob");
    let twice = twice.with(
        "x",
        &format!("y\r\ndpop: {}", backend.proof("GET", path, &json!({}))),
    );
    assert_eq!(twice.to(&relay).await.code(), (400, "malformed"));
}

#[tokio::test]
async fn proof_names_the_host_that_the_operator_has_said() {
    let issuer = Issuer::new();
    let relay = issuer.relay().public_host("relay.example:8443");
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let backend = Backend::new(&issuer, "shop");
    let path = "/v1/users/shop/devices";
    for (host, status) in [("relay.example:8443", 200), ("localhost", 401)] {
        let htu = json!({ "htu": format!("https://{host}{path}") });
        let proof = backend.proof("GET", path, &htu);
        let ask = backend.get("shop").with("dpop", &proof).with("host", host);
        assert_eq!(ask.to(&relay).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn revoked_and_removed_devices_are_refused() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let backend = Backend {
        key: SigningKey::from_seed(&bob.key.seed()),
        token: bob.token.clone(),
    };
    assert_eq!(backend.get("bob").to(&relay).await.status, 200);
    let request = bob.request();
    let device = bob.id();
    bob.say(&sealwire_protocol::frame::ToRelay::RemoveDevice { request, device })
        .await;
    assert_eq!(bob.next().await, Said::Accepted(request));
    let answer = backend.get("bob").to(&relay).await;
    assert_eq!(answer.code(), (401, "not_authorised"));
}

/// Whatever the revocation names, and for what is asked next.
#[tokio::test]
async fn what_is_revoked_is_refused_by_http() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let user = User::new("shop").unwrap();
    for wish in ["token", "device", "user", "age"] {
        let key = new_key();
        let changes = json!({ "jti": "the-one", "iat": now() - 100 });
        let token = issuer.token_with("shop", &key, &changes);
        let revocation = match wish {
            "token" => Revocation::Token("the-one".to_owned()),
            "device" => Revocation::Device(key.thumbprint()),
            "user" => Revocation::User(user.clone()),
            _ => Revocation::IssuedBefore {
                before: now() - 50,
                user: Some(user.clone()),
            },
        };
        let relay = if wish == "token" {
            &relay
        } else {
            &support::relay(&issuer).await
        };
        let backend = Backend { key, token };
        assert_eq!(backend.get("shop").to(relay).await.status, 200, "{wish}");
        relay.revoke(revocation).await.unwrap();
        let answer = backend.get("shop").to(relay).await;
        assert_eq!(answer.code(), (401, "not_authorised"), "{wish}");
    }
}

/// docs/protocol.md §5.3: also for a recipient that one may not write to, whether it exists or not.
#[tokio::test]
async fn who_may_not_be_written_to_looks_the_same_whether_they_exist_or_not() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let bob = Device::join(&relay, &issuer, "bob").await;
    let _mallory = Device::join(&relay, &issuer, "mallory").await;
    let blocked = Revocation::User(User::new("mallory").unwrap());
    relay.revoke(blocked).await.unwrap();
    let backend = Backend::limited(&issuer, "shop", &json!({ "to": ["carol"] }));
    let key = new_key();
    let of_tenant = Backend {
        token: issuer.token_with("acme/shop", &key, &json!({ "tenant": "acme" })),
        key,
    };
    let jwe = sealed("hello");
    for backend in [&backend, &of_tenant] {
        for user in ["bob", "nobody", "mallory"] {
            let answer = backend.get(user).to(&relay).await;
            assert_eq!(answer.code(), (403, "not_permitted"), "{user}");
            let ask = backend.post(&message(user, &[bob.id()], &jwe));
            assert_eq!(
                ask.to(&relay).await.code(),
                (403, "not_permitted"),
                "{user}"
            );
        }
    }
    assert_eq!(
        backend.get("carol").to(&relay).await.code(),
        (404, "unknown_user")
    );
}

#[tokio::test]
async fn connection_is_kept_for_a_known_device_and_closed_for_everybody_else() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let backend = Backend::new(&issuer, "shop");
    let stream = &mut connect(&relay).await;
    // More in all than an unknown connection may send.
    let jwe = sealed(&"x".repeat(60_000));
    for _ in 0..3 {
        let ask = backend.post(&message("bob", &[bob.id()], &jwe));
        assert_eq!(ask.on(stream).await.status, 202);
        bob.next().await;
    }
    assert_eq!(backend.get("nobody").on(stream).await.status, 404);
    let unknown = backend.get("bob").without("dpop");
    assert_eq!(unknown.on(stream).await.status, 401);
    assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
}

/// Nothing of a body is read before it is known whose it is.
#[tokio::test]
async fn body_of_somebody_unknown_is_not_read() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let backend = Backend::new(&issuer, "shop");
    let mut ask = backend.post(&message("bob", &[], "")).without("dpop");
    ask.body.clear();
    let ask = ask.with("content-length", "1000000");
    assert_eq!(ask.to(&relay).await.status, 401);
}

#[tokio::test]
async fn body_that_comes_in_chunks_is_bounded() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let backend = Backend::new(&issuer, "shop");
    let mut ask = backend.post(&json!({})).without("content-length");
    let chunk = format!("{:x}\r\n{}\r\n", 100_000, " ".repeat(100_000));
    ask.body = chunk.repeat(17).into_bytes();
    let ask = ask.with("transfer-encoding", "chunked");
    assert_eq!(ask.to(&relay).await.code(), (413, "too_large"));
}

#[tokio::test]
async fn browsers_are_let_in_by_origin_and_get_no_cors() {
    let issuer = Issuer::new();
    let relay = issuer.relay().allow_origin("https://app.example");
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let backend = Backend::new(&issuer, "shop");
    let from = |origin| backend.get("shop").with("origin", origin);
    let allowed = from("https://app.example").to(&relay).await;
    assert_eq!(allowed.status, 200);
    assert!(
        !allowed
            .fields
            .keys()
            .any(|name| name.starts_with("access-control"))
    );
    let refused = from("https://evil.example").to(&relay).await;
    assert_eq!(refused.code(), (403, "origin_not_allowed"));
    let preflight = backend.ask("OPTIONS", MESSAGES, &Value::Null);
    let preflight = preflight.to(&relay).await;
    assert_eq!(preflight.code(), (405, "method_not_allowed"));
    assert_eq!(preflight.fields["allow"], "POST");
}

#[tokio::test]
async fn requests_are_counted_by_outcome_and_by_nobodys_name() {
    let issuer = Issuer::new();
    let relay = issuer.relay().admin(LOOPBACK.parse().unwrap());
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let backend = Backend::new(&issuer, "shop");
    assert_eq!(backend.get("shop").to(&relay).await.status, 200);
    assert_eq!(backend.get("bob").to(&relay).await.status, 404);
    let text = metrics(&relay).await;
    for line in [
        "sealwire_http_requests_total{outcome=\"ok\"} 1",
        "sealwire_http_requests_total{outcome=\"unknown_user\"} 1",
        "sealwire_http_requests_total{outcome=\"overloaded\"} 0",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("shop"));
}

async fn metrics(relay: &Relay) -> String {
    let mut tcp = tokio::net::TcpStream::connect(relay.admin_addr().unwrap())
        .await
        .unwrap();
    let ask = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    tcp.write_all(ask.as_bytes()).await.unwrap();
    let mut text = String::new();
    within(tcp.read_to_string(&mut text)).await.unwrap();
    text
}

/// The document, and what of it has been seen.
struct Document {
    document: Value,
    seen: BTreeSet<(String, u16)>,
}

impl Document {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let document = std::fs::read_to_string(path).unwrap();
        Self {
            document: serde_json::from_str(&document).unwrap(),
            seen: BTreeSet::new(),
        }
    }

    fn resolve<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(reference) => {
                let pointer = reference.strip_prefix('#').unwrap();
                self.resolve(self.document.pointer(pointer).unwrap())
            }
            None => value,
        }
    }

    /// What a request to this operation was answered with is in the document, and as the document says.
    fn takes(&mut self, operation: &str, answer: &Answer, expected: (u16, &str)) {
        assert_eq!(answer.code(), expected, "{operation}");
        let pointer = match operation {
            "listDevices" => "/paths/~1v1~1users~1{user}~1devices/get",
            _ => "/paths/~1v1~1messages/post",
        };
        let described = self.document.pointer(pointer).unwrap();
        assert_eq!(described["operationId"], operation);
        let response = &described["responses"][answer.status.to_string()];
        assert!(!response.is_null(), "{operation}: {}", answer.status);
        let response = self.resolve(response);
        let media_type = &answer.fields["content-type"];
        let schema = &response["content"][media_type]["schema"];
        assert!(!schema.is_null(), "{operation}: {media_type}");
        self.check(schema, &answer.body);
        if let Some(fields) = response["headers"].as_object() {
            for name in fields.keys() {
                assert!(answer.fields.contains_key(&name.to_lowercase()), "{name}");
            }
        }
        self.seen.insert((operation.to_owned(), answer.status));
    }

    /// The part of JSON Schema that the document uses; anything else fails, so that nothing stands there unchecked.
    fn check(&self, schema: &Value, value: &Value) {
        let schema = self.resolve(schema);
        for (keyword, of) in schema.as_object().unwrap() {
            let text = || value.as_str().unwrap_or_else(|| panic!("{value}"));
            let number = || value.as_u64().unwrap_or_else(|| panic!("{value}"));
            let limit = || of.as_u64().unwrap();
            let holds = match keyword.as_str() {
                "description" => true,
                "type" => match of.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_u64(),
                    other => panic!("{other}"),
                },
                "const" => value == of,
                "enum" => of.as_array().unwrap().contains(value),
                "minLength" => text().chars().count() as u64 >= limit(),
                "maxLength" => text().chars().count() as u64 <= limit(),
                "minimum" => number() >= limit(),
                "maximum" => number() <= limit(),
                "minItems" => value.as_array().unwrap().len() as u64 >= limit(),
                "maxItems" => value.as_array().unwrap().len() as u64 <= limit(),
                "items" => {
                    for item in value.as_array().unwrap() {
                        self.check(of, item);
                    }
                    true
                }
                "required" => {
                    let names = of.as_array().unwrap().iter();
                    names
                        .map(|name| name.as_str().unwrap())
                        .all(|name| value.get(name).is_some())
                }
                "additionalProperties" => {
                    assert_eq!(of, false);
                    let known = schema["properties"].as_object().unwrap();
                    value
                        .as_object()
                        .unwrap()
                        .keys()
                        .all(|name| known.contains_key(name))
                }
                "properties" => {
                    for (name, schema) in of.as_object().unwrap() {
                        if let Some(value) = value.get(name) {
                            self.check(schema, value);
                        }
                    }
                    true
                }
                other => panic!("{other} is not checked"),
            };
            assert!(holds, "{keyword} {of}: {value}");
        }
    }

    /// All that the document has.
    fn described(&self) -> BTreeSet<(String, u16)> {
        let paths = self.document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|path| path.as_object().unwrap().values());
        operations
            .flat_map(|operation| {
                let id = operation["operationId"].as_str().unwrap();
                let statuses = operation["responses"].as_object().unwrap().keys();
                statuses.map(move |status| (id.to_owned(), status.parse().unwrap()))
            })
            .collect()
    }
}

#[tokio::test]
async fn every_documented_answer_is_given_and_no_other() {
    let mut document = Document::read();
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let bob = Device::join(&relay, &issuer, "bob").await;
    let key = new_key();
    let token = issuer.token_limited("dave", &key, &json!({ "mailbox_messages": 1 }));
    let (mut dave, _) = Device::connect(&relay, key, token).await;
    let card = dave.card("dave", 1);
    assert_eq!(dave.publish_card(&card).await, Said::Accepted(1));
    let backend = Backend::new(&issuer, "shop");
    let jwe = sealed("hello");
    let (list, send) = ("listDevices", "sendMessage");
    let good = message("bob", &[bob.id()], &jwe);
    document.check(
        document
            .document
            .pointer("/components/schemas/Message")
            .unwrap(),
        &good,
    );

    let few = |limits: Value| Backend::limited(&issuer, "shop", &limits);
    let narrow = few(json!({ "to": ["carol"] }));
    let slow = few(json!({ "messages_per_minute": 1 }));
    let small = few(json!({ "max_message_bytes": 100 }));
    let to = |user, devices: &[Thumbprint]| backend.post(&message(user, devices, &jwe));

    for (ask, expected) in [
        (backend.get("bob"), (200, "ok")),
        (backend.get("b%6"), (400, "malformed")),
        (
            backend.ask("GET", "/v1/users/bob/devices?a", &Value::Null),
            (400, "malformed"),
        ),
        (backend.get("bob").without("dpop"), (401, "not_authorised")),
        (narrow.get("bob"), (403, "not_permitted")),
        (
            backend.get("bob").with("origin", "https://a.example"),
            (403, "origin_not_allowed"),
        ),
        (backend.get("nobody"), (404, "unknown_user")),
    ] {
        document.takes(list, &ask.to(&relay).await, expected);
    }
    for (ask, expected) in [
        (backend.post(&good), (202, "ok")),
        (backend.post(&json!({})), (400, "malformed")),
        (backend.post(&good).without("dpop"), (401, "not_authorised")),
        (narrow.post(&good), (403, "not_permitted")),
        (to("nobody", &[bob.id()]), (404, "unknown_user")),
        (to("bob", &[dave.id()]), (409, "devices_changed")),
        (to("bob", &[bob.id(), bob.id()]), (409, "devices_changed")),
        (small.post(&good), (413, "too_large")),
        (
            backend.post(&good).with("content-length", "10000000"),
            (413, "too_large"),
        ),
        (
            backend.post(&good).without("content-type"),
            (415, "unsupported_media_type"),
        ),
        (to("dave", &[dave.id()]), (202, "ok")),
        (to("dave", &[dave.id()]), (507, "mailbox_full")),
        (slow.post(&good), (202, "ok")),
        (slow.post(&good), (429, "rate_limited")),
    ] {
        document.takes(send, &ask.to(&relay).await, expected);
    }
    let mut listed = 0;
    loop {
        let answer = backend.get("bob").to(&relay).await;
        if answer.status == 429 {
            document.takes(list, &answer, (429, "rate_limited"));
            break;
        }
        document.takes(list, &answer, (200, "ok"));
        listed += 1;
        assert!(listed < 100);
    }
    let stalled = std::thread::spawn(stalled).join().unwrap();
    document.takes(send, &stalled, (408, "timeout"));

    // A connection that was there before the relay was to be left.
    let other = Backend::new(&issuer, "other");
    let mut kept = Vec::new();
    for ask in [other.get("bob"), other.post(&good)] {
        let mut stream = connect(&relay).await;
        assert!(ask.on(&mut stream).await.status < 300);
        kept.push(stream);
    }
    let draining = tokio::spawn(relay.drain(Drain::default()));
    drop(within(draining_began(dave)).await);
    for (mut stream, (operation, ask)) in kept
        .into_iter()
        .zip([(list, other.get("bob")), (send, other.post(&good))])
    {
        document.takes(operation, &ask.on(&mut stream).await, (503, "unavailable"));
    }
    drop(draining);
    assert_eq!(document.seen, document.described());
}

/// docs/codes.md, Problems: what a backend is not told, whoever runs the relay finds in its log.
#[tokio::test]
async fn log_says_of_each_problem_which_field_claim_or_limit_it_was_and_what_helps() {
    let (log, _guard) = Log::begin();
    let issuer = Issuer::new();
    let mut allowance = Allowance::default();
    allowance.card_fetches_per_minute = 50;
    let relay = issuer.relay().allowance(allowance).bind(LOOPBACK).await;
    let relay = relay.unwrap();
    let bob = Device::join(&relay, &issuer, "bob").await;
    let jwe = sealed("hello");
    let good = message("bob", &[bob.id()], &jwe);
    let shop = Backend::new(&issuer, "shop");
    let few = |limits: Value| Backend::limited(&issuer, "shop", &limits);
    let narrow = few(json!({ "to": ["carol"] }));
    let (slow, small) = (
        few(json!({ "messages_per_minute": 1 })),
        few(json!({ "max_message_bytes": 100 })),
    );
    let thief = Backend {
        key: new_key(),
        token: shop.token.clone(),
    };
    let expired = json!({ "exp": now() - 120, "iat": now() - 240 });
    let expired = Backend {
        token: issuer.token_with("shop", &shop.key, &expired),
        key: SigningKey::from_seed(&shop.key.seed()),
    };
    let path = "/v1/users/bob/devices";
    let of_another_host = shop.proof("GET", path, &json!({ "htu": format!("https://x{path}") }));
    let old = shop.proof("GET", path, &json!({ "iat": now() - 120 }));
    let changed = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        shop.post(&changed)
    };
    let to =
        |device: &str, jwe: &str| changed("messages", json!([{ "device": device, "jwe": jwe }]));
    let bobs = bob.id().to_string();
    assert_eq!(slow.post(&good).to(&relay).await.status, 202);
    log.forget();

    for (ask, code, names) in [
        (
            shop.ask("GET", "/v1/nothing", &Value::Null),
            "not_found",
            &["path"][..],
        ),
        (
            shop.get("bob").with("origin", "https://evil.example"),
            "origin_not_allowed",
            &["\"https://evil.example\"", "limits.allowed_origins"],
        ),
        (
            shop.ask("PUT", MESSAGES, &good),
            "method_not_allowed",
            &["POST"],
        ),
        (
            shop.ask("GET", "/v1/users/bob/devices?a", &Value::Null),
            "malformed",
            &["query"],
        ),
        (shop.get("b%6"), "malformed", &["user in the path"]),
        (
            shop.get("bob").with("x", &format!("y\r\ndpop: {old}")),
            "malformed",
            &["field dpop", "twice"],
        ),
        (
            shop.get("bob").without("authorization"),
            "not_authorised",
            &["field authorization"],
        ),
        (
            shop.get("bob").without("dpop"),
            "not_authorised",
            &["field dpop"],
        ),
        (
            shop.get("bob").with("dpop", "x"),
            "not_authorised",
            &["proof", "JWS"],
        ),
        (
            shop.get("bob").with("dpop", &of_another_host),
            "not_authorised",
            &["\"htu\"", "listen.public_address"],
        ),
        (
            shop.get("bob").with("dpop", &old),
            "not_authorised",
            &["\"iat\"", "clocks"],
        ),
        (expired.get("bob"), "not_authorised", &["\"exp\"", "clocks"]),
        (thief.get("bob"), "not_authorised", &["\"cnf\""]),
        (narrow.get("bob"), "not_permitted", &["\"to\""]),
        (shop.get("nobody"), "unknown_user", &["no device"]),
        (
            shop.post(&good).without("content-type"),
            "unsupported_media_type",
            &["content-type", "application/json"],
        ),
        (
            shop.post(&good).with("content-length", "10000000"),
            "too_large",
            &["the body", "1589248 bytes"],
        ),
        (shop.post(&json!([])), "malformed", &["the body"]),
        (changed("user", json!(1)), "malformed", &["user is missing"]),
        (changed("id", json!("x")), "malformed", &["id is missing"]),
        (
            changed("messages", json!([])),
            "malformed",
            &["messages is missing"],
        ),
        (
            changed("more", json!(1)),
            "malformed",
            &["beside user, id and messages"],
        ),
        (to("x", &jwe), "malformed", &["messages[].device"]),
        (
            to(&bobs, "x"),
            "malformed",
            &["messages[].jwe", "five parts"],
        ),
        (
            to(&bobs, &"x".repeat(100_000)),
            "too_large",
            &["messages[].jwe"],
        ),
        (
            shop.post(&message("bob", &[shop.key.thumbprint()], &jwe)),
            "devices_changed",
            &["none of the recipient's"],
        ),
        (
            small.post(&good),
            "too_large",
            &[
                "\"max_message_bytes\" of the token",
                "limits.max_message_bytes",
            ],
        ),
        (
            slow.post(&good),
            "rate_limited",
            &[
                "\"messages_per_minute\" of the token",
                "limits.messages_per_minute",
            ],
        ),
    ] {
        let answer = ask.to(&relay).await;
        assert_eq!(answer.body["code"], code, "{names:?}");
        log.says(code, names);
    }

    let again = shop.get("shop");
    assert_eq!(again.to(&relay).await.status, 200);
    log.forget();
    assert_eq!(again.to(&relay).await.status, 401);
    log.says("not_authorised", &["used before", "\"jti\""]);
    while shop.get("shop").to(&relay).await.status == 200 {
        log.forget();
    }
    log.says("rate_limited", &["limits.card_fetches_per_minute"]);
}

/// Waits until a link is asked to leave.
async fn draining_began(mut device: Device) -> Device {
    loop {
        if let Said::Leaving(_) = device.next().await {
            return device;
        }
    }
}

/// Sends a part of a body, in a time that passes when nothing else happens.
fn stalled() -> Answer {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let issuer = Issuer::new();
        let relay = relay(&issuer).await;
        let backend = Backend::new(&issuer, "shop");
        let mut ask = backend.post(&json!({ "user": "bob" }));
        ask.body.truncate(5);
        let stream = &mut connect(&relay).await;
        stream.write_all(ask.head().as_bytes()).await.unwrap();
        stream.write_all(&ask.body).await.unwrap();
        tokio::time::timeout(Duration::from_secs(3_600), answer(stream))
            .await
            .unwrap()
    })
}
