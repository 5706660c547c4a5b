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
use std::path::Path;
use std::time::Duration;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::handshake::Credential;
use sealwire_server::issuer_keys::KeySource;
use sealwire_server::{Drain, Relay, RelayError, Tls};
use support::operators_port::*;
use support::{
    Device, Issuer, Said, Target, assert_accepted, code, connect, new_key, refused, within,
};
use tokio::net::TcpStream;

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
