//! A backend without a link, and with nothing but HTTP and other people's JOSE, writes to a device (docs/http.md, docs/protocol.md §18).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sealwire_client::{Received, Tls};
use sealwire_e2e::card::UnverifiedCard;
use sealwire_e2e::content::Body;
use sealwire_e2e::device::{DeviceKeys, OwnIdentity};
use sealwire_e2e::prekeys::Prekeys;
use sealwire_e2e::standard;
use sealwire_jose::jwe::{Header, open_with, seal_to};
use sealwire_jose::{PrivateKey, PublicKey};
use sealwire_protocol::base64url;
use sealwire_protocol::crypto::sha256;
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::token::AttestationPolicy;
use sealwire_server::Relay;
use sealwire_tests::{AUDIENCE, Account, Device, Issuer, Whereabouts, Wish, now, within};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[path = "../../examples/axum_service.rs"]
#[expect(dead_code, reason = "the routes are what matters here")]
mod axum_service;

/// A relay in memory, and where its devices keep their stores.
struct Setting {
    issuer: Issuer,
    relay: Relay,
    folder: TempDir,
}

impl Setting {
    async fn new() -> Self {
        let issuer = Issuer::ed25519();
        let relay = Relay::in_memory().issuer(issuer.name(), AUDIENCE, issuer.keys());
        let relay = within("the relay", relay.bind("127.0.0.1:0"))
            .await
            .unwrap();
        Self::with(issuer, relay)
    }

    /// On an application's own port.
    async fn mounted() -> Self {
        let issuer = Issuer::ed25519();
        let relay = Relay::in_memory().issuer(issuer.name(), AUDIENCE, issuer.keys());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mounting = relay.mount(listener.local_addr().unwrap());
        let (relay, devices) = within("the relay", mounting).await.unwrap();
        let routes = axum_service::application(devices);
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self::with(issuer, relay)
    }

    fn with(issuer: Issuer, relay: Relay) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            issuer,
            relay,
            folder,
        }
    }

    async fn device(&self, user: &str) -> Device {
        let whereabouts = Whereabouts {
            address: self.relay.address().to_string(),
            tls: Tls::default(),
        };
        let (trusted, grants) = (self.issuer.trusted(), self.issuer.grants(Wish::of(user)));
        let account = Account::new(whereabouts, trusted, grants, self.folder.path());
        account.arrive().await
    }

    fn backend(&self, user: &str) -> Backend<'_> {
        let key = SigningKey::generate(&mut rand::rng());
        let token = self.issuer.token(key.thumbprint(), &Wish::of(user));
        Backend {
            key,
            token,
            relay: &self.relay,
        }
    }
}

struct Backend<'s> {
    key: SigningKey,
    token: String,
    relay: &'s Relay,
}

impl Backend<'_> {
    fn sign(&self, header: &str, claims: &Value) -> String {
        let [header, claims] =
            [header, &claims.to_string()].map(|part| base64url::encode(part.as_bytes()));
        let input = format!("{header}.{claims}");
        let signature = base64url::encode(&self.key.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let host = self.relay.local_addr();
        let jwk = self.key.public().to_jwk();
        let proof = self.sign(
            &format!(r#"{{"typ":"dpop+jwt","alg":"EdDSA","jwk":{jwk}}}"#),
            &json!({
                "jti": base64url::encode(&rand::random::<[u8; 16]>()), "htm": method,
                "htu": format!("http://{host}{path}"), "iat": now(),
                "ath": base64url::encode(&sha256(&[self.token.as_bytes()])),
            }),
        );
        let (token, length) = (&self.token, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: DPoP {token}\r\ndpop: {proof}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        );
        let mut tcp = TcpStream::connect(host).await.unwrap();
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let reading = tcp.read_to_string(&mut answer);
        within("an answer", reading).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    /// Writes to all devices of a user, as docs/http.md says.
    async fn send(&self, user: &str, id: [u8; 16], text: &str) {
        let (status, listed) = self
            .ask("GET", &format!("/v1/users/{user}/devices"), "")
            .await;
        assert_eq!(status, 200, "{listed}");
        let id = base64url::encode(&id);
        let devices = listed["devices"].as_array().unwrap().iter();
        let messages: Vec<_> = devices
            .map(|device| {
                let claims = json!({
                    "iss": self.key.thumbprint().to_string(), "aud": device["device"], "user": user, "iat": now(), "jti": id,
                    "key": base64url::encode(self.key.public().as_bytes()), "att": self.token,
                    "type": "text/plain", "body": base64url::encode(text.as_bytes()),
                });
                let jwt = self.sign(r#"{"alg":"EdDSA","typ":"sealwire-message+jwt"}"#, &claims);
                let key = PublicKey::parse(device["key"].to_string().as_bytes()).unwrap();
                let header = Header {
                    cty: Some("JWT".to_owned()),
                    ..Header::default()
                };
                json!({ "device": device["device"], "jwe": seal_to(&key, jwt.as_bytes(), &header).unwrap() })
            })
            .collect();
        let body = json!({ "user": user, "id": id, "messages": messages });
        let (status, answer) = self.ask("POST", "/v1/messages", &body.to_string()).await;
        assert_eq!((status, answer), (202, json!({ "id": id })));
    }
}

fn check(received: &Received, user: &str, device: Thumbprint, text: &str) {
    assert_eq!((&*received.from, received.device), (user, device));
    assert_eq!(received.message.as_text(), Some(text));
    assert!(!received.forward_secrecy);
}

#[tokio::test]
async fn backend_writes_to_every_device_of_a_user_and_each_shows_it_once() {
    let setting = Setting::new().await;
    let (phone, laptop) = (setting.device("bob").await, setting.device("bob").await);
    let shop = setting.backend("shop");
    for _ in 0..2 {
        shop.send("bob", [1; 16], "your parcel").await;
    }
    shop.send("bob", [2; 16], "your invoice").await;
    for device in [&phone, &laptop] {
        for text in ["your parcel", "your invoice"] {
            check(&device.message().await, "shop", shop.key.thumbprint(), text);
        }
    }
}

#[tokio::test]
async fn backend_writes_through_an_applications_own_port() {
    let setting = Setting::mounted().await;
    let bob = setting.device("bob").await;
    let shop = setting.backend("acme/shop");
    shop.send("bob", [1; 16], "your parcel").await;
    let received = bob.message().await;
    check(&received, "acme/shop", shop.key.thumbprint(), "your parcel");
    // The path is taken as it was sent.
    let (status, own) = shop.ask("GET", "/v1/users/acme%2Fshop/devices", "").await;
    assert_eq!((status, own), (200, json!({ "devices": [] })));
}

/// What a backend in Rust makes is what any JOSE library opens.
#[test]
fn message_that_is_sealed_without_josekit_opens_with_it() {
    let (issuer, rng) = (Issuer::ed25519(), &mut rand::rng());
    let (name, keys) = (issuer.name(), issuer.keys());
    let mut device = |user| {
        let keys = DeviceKeys::generate(rng);
        let token = issuer.token(keys.thumbprint(), &Wish::of(user));
        let own = OwnIdentity::new(&keys, &token).unwrap();
        (keys, own)
    };
    let ((alice, alice_own), (bob, bob_own)) = (device("alice"), device("bob"));
    let policy = AttestationPolicy {
        issuer: &name,
        audience: AUDIENCE,
        now: now(),
        max_age: 60,
    };
    let card = Prekeys::new()
        .publish(&bob, &bob_own, &mut rand::rng(), now())
        .unwrap();
    let card = UnverifiedCard::parse(card.as_bytes())
        .and_then(|card| card.verify(&keys, &policy, None))
        .unwrap();
    let body = Body {
        media_type: "text/plain",
        bytes: b"hello",
    };
    let (id, rng) = ([7; 16], &mut rand::rng());
    let sealed = standard::seal(&alice, &alice_own, &card, id, &body, rng, now()).unwrap();
    let key = PrivateKey::from_x25519(&bob.expose_standard_jwe_secret()).unwrap();
    let opened = open_with(&key, sealed.as_bytes()).unwrap();
    assert_eq!(opened.header.cty.as_deref(), Some("JWT"));
    assert_eq!(opened.header.kid, Some(bob.thumbprint().to_string()));
    let claims = opened.plaintext.split(|byte| *byte == b'.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&base64url::decode(claims).unwrap()).unwrap();
    assert_eq!(claims["body"], base64url::encode(b"hello"));
}

/// Where tests/interop/setup.sh puts it.
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/.venv/bin/python");
    if python.exists() {
        return Some(python);
    }
    let how = "jwcrypto is not installed; run tests/interop/setup.sh";
    if std::env::var_os("SEALWIRE_REQUIRE_INTEROP").is_some_and(|required| required == "1") {
        panic!("{how}");
    }
    let line = format!("SKIPPED backend.py: {how}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

#[tokio::test]
async fn example_in_python_writes_to_a_device() {
    let Some(python) = python() else { return };
    let setting = Setting::new().await;
    let bob = setting.device("bob").await;
    let shop = setting.backend("shop");
    let file = |name: &str, content: &str| {
        let path = setting.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let seed = base64url::encode(shop.key.seed().expose());
    let jwk = shop.key.public().to_jwk();
    let key = file(
        "key.json",
        &jwk.replacen('{', &format!(r#"{{"d":"{seed}","#), 1),
    );
    let token = file("token", &shop.token);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/backend.py");
    let output = tokio::process::Command::new(python)
        .arg(script)
        .arg(format!("http://{}", setting.relay.local_addr()))
        .args([key, token])
        .args(["bob", "gr\u{fc}\u{df}e"])
        .stdin(Stdio::null())
        .output();
    let output = within("the example", output).await.expect("it was started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let received = bob.message().await;
    check(&received, "shop", shop.key.thumbprint(), "gr\u{fc}\u{df}e");
    let id = String::from_utf8(output.stdout).unwrap();
    assert_eq!(id.trim_end(), received.id.to_string());
}
