//! What an operator sees and does while devices are connected.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::ToRelay;
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::SigningKey;
use sealwire_server::issuer_keys::KeySource;
use sealwire_server::policy::{Allowance, ConnectionLimits};
use sealwire_server::{Drain, Relay, RelayError, Tls};
use support::{
    Device, Issuer, Said, Target, assert_accepted, code, connect, new_key, refused, within,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LOOPBACK: &str = "127.0.0.1:0";

fn anywhere() -> SocketAddr {
    LOOPBACK.parse().unwrap()
}

/// Status and body of an answer of the operator's port.
async fn ask(relay: &Relay, method: &str, path: &str) -> (u16, String) {
    let port = relay.admin_addr().expect("there is an operator's port");
    ask_at(port, method, path).await
}

async fn ask_at(port: SocketAddr, method: &str, path: &str) -> (u16, String) {
    ask_with(port, method, path, "").await
}

async fn ask_with(port: SocketAddr, method: &str, path: &str, fields: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(port).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

async fn get(relay: &Relay, path: &str) -> (u16, String) {
    ask(relay, "GET", path).await
}

/// The value of one series.
async fn metric(relay: &Relay, series: &str) -> u64 {
    let (status, text) = get(relay, "/metrics").await;
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("no {series} in:\n{text}"));
    value.trim().parse().unwrap()
}

/// Asks until it is so.
async fn becomes(relay: &Relay, series: &str, value: u64) {
    within(async { while metric(relay, series).await != value {} }).await;
}

#[tokio::test]
async fn health_readiness_and_nothing_else_is_on_the_operators_port() {
    let relay = Issuer::new().relay().admin(anywhere());
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let ok = (200, "{\"status\":\"ok\"}\n".to_owned());
    assert_eq!(get(&relay, "/healthz").await, ok);
    assert_eq!(get(&relay, "/readyz").await, ok);
    assert_eq!(get(&relay, "/v1").await.0, 404);
    assert_eq!(ask(&relay, "POST", "/healthz").await.0, 405);
    let port = relay.admin_addr().unwrap();
    for (status, fields) in [
        (200, "sec-fetch-site: none\r\n"),
        (403, "sec-fetch-site: same-origin\r\n"),
        (403, "sec-fetch-site: cross-site\r\n"),
        (403, "origin: http://localhost:9090\r\n"),
    ] {
        let answer = ask_with(port, "GET", "/metrics", fields).await;
        assert_eq!(answer.0, status, "{fields}");
    }
    let taken = Relay::in_memory().admin(port);
    assert!(matches!(
        taken.bind(LOOPBACK).await,
        Err(RelayError::Admin { address, .. }) if address == port
    ));
    assert_eq!(
        Relay::in_memory()
            .bind(LOOPBACK)
            .await
            .unwrap()
            .admin_addr(),
        None
    );
}

fn of_issuer(what: &str, more: &str) -> String {
    format!("sealwire_issuer_keys_{what}{{issuer=\"https://idp.example\"{more}}}")
}

#[tokio::test]
async fn relay_whose_issuers_keys_were_never_had_is_healthy_and_not_ready() {
    let closed = tokio::net::TcpListener::bind(LOOPBACK).await.unwrap();
    let url = format!("http://{}/keys", closed.local_addr().unwrap());
    drop(closed);
    let keys = KeySource::url(&url, None, sealwire_jose::Algorithms::PUBLIC_KEY).unwrap();
    let relay = Relay::in_memory()
        .issuer_with_keys_from("https://idp.example".parse().unwrap(), "relay", keys)
        .admin(anywhere())
        .bind(LOOPBACK)
        .await
        .unwrap();
    assert_eq!(get(&relay, "/healthz").await.0, 200);
    assert_eq!(
        get(&relay, "/readyz").await,
        (503, "{\"status\":\"issuer_keys\"}\n".to_owned())
    );
    assert_eq!(metric(&relay, &of_issuer("known", "")).await, 0);
    let failed = of_issuer("looks_total", ",result=\"failed\"");
    assert!(metric(&relay, &failed).await > 0);
}

#[tokio::test]
async fn metrics_count_what_happens_and_name_nobody() {
    let issuer = Issuer::new();
    let relay = issuer.relay().admin(anywhere());
    let relay = relay.bind(LOOPBACK).await.unwrap();
    assert_eq!(metric(&relay, "sealwire_links_open").await, 0);
    let mut alice = Device::join(&relay, &issuer, "alice-secret").await;
    let mut bob = Device::join(&relay, &issuer, "bob-secret").await;
    assert_eq!(metric(&relay, "sealwire_links_open").await, 2);

    let said = alice.send("nobody", 1, &[bob.id()], b"sealed").await;
    assert_eq!(refused(said), RefusalCode::UnknownUser);
    let unknown = "sealwire_requests_refused_total{code=\"unknown_user\"}";
    assert_eq!(metric(&relay, unknown).await, 1);

    let said = alice.send("bob-secret", 2, &[bob.id()], b"sealed").await;
    assert_accepted(&said);
    bob.next().await;
    assert_eq!(metric(&relay, "sealwire_messages_accepted_total").await, 1);
    assert_eq!(metric(&relay, "sealwire_messages_delivered_total").await, 1);

    let stranger = new_key();
    let token = Issuer::new().token("alice-secret", &stranger);
    let credential = Credential::Token(token.as_bytes());
    support::refusal(&relay, &stranger, credential).await;
    becomes(
        &relay,
        "sealwire_handshakes_refused_total{code=\"not_authorised\"}",
        1,
    )
    .await;
    drop(alice);
    becomes(&relay, "sealwire_links_closed_total{code=\"gone\"}", 1).await;
    becomes(&relay, "sealwire_links_open", 1).await;
    let (_, text) = get(&relay, "/metrics").await;
    assert!(!text.contains("secret") && !text.contains(&bob.id().to_string()));
}

#[tokio::test]
async fn user_with_too_many_links_is_told_to_come_back_later() {
    let issuer = Issuer::new();
    let mut limits = ConnectionLimits::default();
    limits.links_per_user = 2;
    let relay = issuer.relay().admin(anywhere()).connection_limits(limits);
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let first = Device::join(&relay, &issuer, "alice").await;
    let _second = Device::join(&relay, &issuer, "alice").await;
    let third = new_key();
    let token = issuer.token("alice", &third);
    let credential = || Credential::Token(token.as_bytes());
    let refused = support::refusal(&relay, &third, credential()).await;
    assert_eq!(refused, code(4002, "overloaded"));
    Device::join(&relay, &issuer, "bob").await;
    // One that is here already takes its own place.
    let key = SigningKey::from_seed(&first.key.seed());
    let again = Device::connect(&relay, key, first.token.clone()).await;
    drop(first);
    becomes(&relay, "sealwire_links_open", 2).await;
    drop(again);
    becomes(&relay, "sealwire_links_open", 1).await;
    Device::connect(&relay, third, token).await;
}

// docs/protocol.md §5.7
#[tokio::test]
async fn tenant_with_too_many_links_is_told_to_come_back_later_and_no_other_is() {
    let issuer = Issuer::new();
    let mut limits = ConnectionLimits::default();
    limits.links_per_tenant = 2;
    let relay = issuer.relay().admin(anywhere()).connection_limits(limits);
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let of = |user: &str, tenant: &str, key: &SigningKey| {
        issuer.token_with(user, key, &serde_json::json!({ "tenant": tenant }))
    };
    let connect = async |user: &str, tenant: &str| {
        let key = new_key();
        let token = of(user, tenant, &key);
        Device::connect(&relay, key, token).await.0
    };
    let alice = connect("acme/alice", "acme").await;
    let _bob = connect("acme/bob", "acme").await;
    let key = new_key();
    let carols = of("acme/carol", "acme", &key);
    let refused = support::refusal(&relay, &key, Credential::Token(carols.as_bytes())).await;
    assert_eq!(refused, code(4002, "overloaded"));
    connect("globex/eve", "globex").await;
    // Of no tenant.
    for user in ["dora", "acme/erin"] {
        Device::join(&relay, &issuer, user).await;
    }
    let (_, text) = get(&relay, "/metrics").await;
    assert!(!text.contains("acme"));
    drop(alice);
    becomes(&relay, "sealwire_links_open", 1).await;
    Device::connect(&relay, key, carols).await;
}

#[tokio::test]
async fn device_that_sends_too_fast_is_read_later_and_loses_nothing() {
    let issuer = Issuer::new();
    let mut allowance = Allowance::default();
    // Fifty a second.
    allowance.frames_per_minute = 3_000;
    let relay = issuer.relay().admin(anywhere()).allowance(allowance);
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let mut asked = Vec::new();
    let began = std::time::Instant::now();
    for _ in 0..3 {
        for _ in 0..40 {
            let request = alice.request();
            asked.push(request);
            alice
                .say(&ToRelay::Discard {
                    request,
                    blob: [7; 32],
                })
                .await;
        }
        for _ in 0..40 {
            alice.next().await;
        }
    }
    // A second's worth may come at once, the other seventy at their rate.
    assert!(began.elapsed() > Duration::from_secs(1));
    assert!(metric(&relay, "sealwire_links_throttled_total").await > 0);
    let unknown = "sealwire_requests_refused_total{code=\"unknown_blob\"}";
    assert_eq!(metric(&relay, unknown).await, asked.len() as u64);
    // Nobody else waits.
    let said = alice.send("bob", 1, &[bob.id()], b"sealed").await;
    assert_accepted(&said);
    bob.next().await;
}

/// Names that begin with `sealwire_`.
fn series(text: &str) -> BTreeSet<&str> {
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    names.filter(|name| name.starts_with("sealwire_")).collect()
}

#[tokio::test]
async fn dashboard_shows_series_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    let key = sealwire_jose::PrivateKey::generate(sealwire_jose::KeyType::P256).unwrap();
    let set = format!("{{\"keys\":[{}]}}", key.public().unwrap().to_jwk());
    std::fs::write(&keys, set).unwrap();
    let keys = KeySource::file(keys, sealwire_jose::Algorithms::PUBLIC_KEY);
    let relay = Relay::in_memory()
        .issuer_with_keys_from("https://idp.example".parse().unwrap(), "relay", keys)
        .admin(anywhere())
        .bind(LOOPBACK)
        .await
        .unwrap();
    let (_, text) = get(&relay, "/metrics").await;
    let there_are = series(&text);
    let shown = include_str!("../../../deploy/grafana-dashboard.json");
    let missing: Vec<_> = series(shown).difference(&there_are).copied().collect();
    assert_eq!(missing, [""; 0], "of {there_are:?}");
}

/// A certificate for `localhost` and its key, in PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn put(path: &Path, pem: &str) {
    // As those who renew certificates do it.
    let new = path.with_extension("new");
    std::fs::write(&new, pem).unwrap();
    std::fs::rename(&new, path).unwrap();
}

/// Whether the relay shows this certificate: a client that trusts no other gets through.
async fn shows(relay: &Relay, pem: &str) -> bool {
    let at = Target {
        address: relay.local_addr(),
        thumbprint: relay.thumbprint(),
        certificate: Some(pem.to_owned()),
    };
    tokio::spawn(async move { drop(connect(&at).await) })
        .await
        .is_ok()
}

#[tokio::test]
async fn new_certificate_is_shown_and_no_link_drops() {
    let folder = tempfile::tempdir().unwrap();
    let (chain, key) = (
        folder.path().join("chain.pem"),
        folder.path().join("key.pem"),
    );
    let (old, old_key) = certificate();
    put(&chain, &old);
    put(&key, &old_key);
    let issuer = Issuer::new();
    let relay = issuer.relay().admin(anywhere()).tls(Tls::Files {
        certificates: chain.clone(),
        key: key.clone(),
    });
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let at = Target {
        address: relay.local_addr(),
        thumbprint: relay.thumbprint(),
        certificate: Some(old.clone()),
    };
    let mut alice = Device::join(&at, &issuer, "alice").await;

    // Half of the change: they do not belong together.
    let (new, new_key) = certificate();
    put(&chain, &new);
    let changes = |result| format!("sealwire_certificate_changes_total{{result=\"{result}\"}}");
    becomes(&relay, &changes("failed"), 1).await;
    assert!(shows(&relay, &old).await);
    put(&key, &new_key);
    becomes(&relay, &changes("ok"), 1).await;
    assert!(shows(&relay, &new).await && !shows(&relay, &old).await);
    // It cannot be read: that is said, and so is that it can again.
    std::fs::remove_file(&chain).unwrap();
    becomes(&relay, &changes("failed"), 2).await;
    put(&chain, &old);
    put(&key, &old_key);
    becomes(&relay, &changes("ok"), 2).await;
    // The link goes on.
    let said = alice.fetch("nobody", false).await;
    assert_eq!(refused(said), RefusalCode::UnknownUser);
}

#[tokio::test]
async fn drained_relay_sends_everybody_away_and_takes_nobody() {
    let issuer = Issuer::new();
    let relay = issuer.relay().admin(anywhere());
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let mut devices = Vec::new();
    for user in ["alice", "bob", "carol"] {
        devices.push(Device::join(&relay, &issuer, user).await);
    }
    let (port, admin) = (relay.local_addr(), relay.admin_addr().unwrap());
    // Somebody who has not authenticated keeps it from ending for a while.
    let stranger = TcpStream::connect(port).await.unwrap();
    becomes(&relay, "sealwire_connections_open", 4).await;

    let drain = Drain::default().return_after(Duration::from_millis(300));
    let draining = tokio::spawn(relay.drain(drain));
    for device in &mut devices {
        let said = device.next().await;
        let Said::Leaving(after) = said else {
            panic!("{said:?}")
        };
        // Three links leave within 6 ms and return within as much.
        assert!((300..=312).contains(&after), "{after}");
        assert_eq!(device.closed().await, code(4000, "going_away"));
    }
    let draining_now = (503, "{\"status\":\"draining\"}\n".to_owned());
    assert_eq!(ask_at(admin, "GET", "/readyz").await, draining_now);
    assert_eq!(ask_at(admin, "GET", "/healthz").await.0, 200);
    assert!(TcpStream::connect(port).await.is_err());
    drop(stranger);
    within(draining).await.unwrap();
    assert!(TcpStream::connect(admin).await.is_err());
}
