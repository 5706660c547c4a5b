//! How much an address, a device, a user and a tenant get, and what becomes of the rest (docs/operations.md).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::{Duration, Instant};

use futures_util::SinkExt as _;
use hyper_util::rt::TokioIo;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::ToRelay;
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::SigningKey;
use sealwire_server::Relay;
use sealwire_server::policy::{Allowance, ConnectionLimits};
use support::operators_port::*;
use support::{
    Device, Issuer, Said, assert_accepted, code, new_key, refusal, refused, upgrade_with, within,
};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tower::Service as _;

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
    let refused = refusal(&relay, &third, credential()).await;
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
    limits.links_per_tenant = Some(2);
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
    let refused = refusal(&relay, &key, Credential::Token(carols.as_bytes())).await;
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
    let began = Instant::now();
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

fn limited(change: impl FnOnce(&mut ConnectionLimits)) -> ConnectionLimits {
    let mut limits = ConnectionLimits::default();
    change(&mut limits);
    limits
}

fn allowing(change: impl FnOnce(&mut Allowance)) -> Allowance {
    let mut allowance = Allowance::default();
    change(&mut allowance);
    allowance
}

/// A device of a user, who is of the tenant that is before the slash, if there is one.
async fn device_of(relay: &Relay, issuer: &Issuer, user: &str) -> Device {
    let key = new_key();
    let token = token_of(issuer, user, &key);
    Device::connect(relay, key, token).await.0
}

fn token_of(issuer: &Issuer, user: &str, key: &SigningKey) -> String {
    match user.split_once('/') {
        Some((tenant, _)) => issuer.token_with(user, key, &serde_json::json!({ "tenant": tenant })),
        None => issuer.token(user, key),
    }
}

/// How a new device of the user is refused.
async fn refused_link(relay: &Relay, issuer: &Issuer, user: &str) -> (u16, String) {
    let key = new_key();
    let token = token_of(issuer, user, &key);
    refusal(relay, &key, Credential::Token(token.as_bytes())).await
}

async fn passes_a_message(from: &mut Device, to: &mut Device, user: &str) {
    let sequence = u8::try_from(from.sequence).unwrap();
    let said = from.send(user, sequence, &[to.id()], b"sealed").await;
    assert_accepted(&said);
    assert!(matches!(to.next().await, Said::Deliver { .. }));
}

/// Overload takes nothing from whoever is connected.
#[tokio::test]
async fn relay_with_tls_drops_what_is_over_each_limit_and_serves_who_is_connected() {
    let cases = [
        (
            "address",
            2,
            limited(|limits| limits.unauthenticated_per_address = 2),
        ),
        (
            "unauthenticated",
            1,
            limited(|limits| limits.unauthenticated = 1),
        ),
        ("full", 2, limited(|limits| limits.connections = 5)),
        ("rate", 2, limited(|limits| limits.per_minute = 5)),
    ];
    for (reason, room, limits) in cases {
        let (issuer, directory) = (Issuer::new(), tempfile::tempdir().unwrap());
        let relay = issuer
            .configure(Relay::builder(directory.path()))
            .admin(anywhere())
            .connection_limits(limits)
            // So long that nobody here is dropped for it.
            .handshake_deadline(Duration::from_secs(600))
            .bind(LOOPBACK)
            .await
            .unwrap();
        assert!(relay.address().is_secure());
        let connect = || TcpStream::connect(relay.local_addr());
        // Whoever has authenticated makes room for the next.
        let mut alice = Device::join(&relay, &issuer, "alice").await;
        let mut bob = Device::join(&relay, &issuer, "bob").await;
        let _carol = Device::join(&relay, &issuer, "carol").await;

        let mut silent = Vec::new();
        for _ in 0..room {
            silent.push(connect().await.unwrap());
        }
        let mut rest = Vec::new();
        let mut one_more = connect().await.unwrap();
        // Without a byte of TLS, or reset.
        let _ = within(one_more.read_to_end(&mut rest)).await;
        assert_eq!(rest, b"", "{reason}");
        let series = |reason| format!("sealwire_connections_dropped_total{{reason=\"{reason}\"}}");
        for each in ["address", "unauthenticated", "full", "rate"] {
            let dropped = metric(&relay, &series(each)).await;
            assert_eq!(dropped, u64::from(each == reason), "{reason}: {each}");
        }
        passes_a_message(&mut alice, &mut bob, "bob").await;

        if reason != "rate" {
            drop(silent.pop());
            becomes(&relay, "sealwire_connections_open", 3 + room - 1).await;
            Device::join(&relay, &issuer, "dora").await;
        }
    }
}

/// Nobody knows the addresses of those whom a proxy has let in.
#[tokio::test]
async fn relay_without_tls_does_not_tell_addresses_apart() {
    let issuer = Issuer::new();
    let limits = limited(|limits| {
        limits.unauthenticated_per_address = 1;
        limits.per_minute = 1;
    });
    let relay = issuer.relay().admin(anywhere()).connection_limits(limits);
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let _silent = TcpStream::connect(relay.local_addr()).await.unwrap();
    Device::join(&relay, &issuer, "alice").await;
    Device::join(&relay, &issuer, "bob").await;
}

#[tokio::test]
async fn mounted_relay_answers_503_where_there_are_too_many_connections() {
    let issuer = Issuer::new();
    let listener = TcpListener::bind(LOOPBACK).await.unwrap();
    let address = listener.local_addr().unwrap();
    let relay = issuer
        .relay()
        .admin(anywhere())
        .connection_limits(limited(|limits| limits.connections = 1));
    let (relay, devices) = relay.mount(address).await.unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let devices = devices.clone();
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(
                        TokioIo::new(stream),
                        hyper::service::service_fn(move |request| devices.clone().call(request)),
                    )
                    .with_upgrades(),
            );
        }
    });
    let mut alice = device_of(&relay, &issuer, "alice").await;
    let refused = upgrade_with(&relay, "/v1", &[]).await.unwrap_err();
    assert_eq!(refused, 503);
    let dropped = "sealwire_connections_dropped_total{reason=\"full\"}";
    assert_eq!(metric(&relay, dropped).await, 1);
    alice.nothing_waits().await;
    drop(alice);
    becomes(&relay, "sealwire_connections_open", 0).await;
    device_of(&relay, &issuer, "bob").await;
    serving.abort();
}

#[tokio::test]
async fn one_tenant_has_half_of_all_links_where_nothing_else_was_said() {
    let issuer = Issuer::new();
    let relay = issuer
        .relay()
        .connection_limits(limited(|limits| limits.connections = 5));
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let _alice = device_of(&relay, &issuer, "acme/alice").await;
    let _bob = device_of(&relay, &issuer, "acme/bob").await;
    let refused = refused_link(&relay, &issuer, "acme/carol").await;
    assert_eq!(refused, code(4002, "overloaded"));
    device_of(&relay, &issuer, "globex/eve").await;
}

#[tokio::test]
async fn device_user_and_tenant_that_connect_too_often_are_told_to_come_back_later() {
    let cases = [
        ("acme/alice", limited(|limits| limits.links_per_minute = 2)),
        (
            "acme/alice",
            limited(|limits| limits.links_per_minute_per_user = 2),
        ),
        (
            "acme/bob",
            limited(|limits| limits.links_per_minute_per_tenant = 2),
        ),
    ];
    for (user, limits) in cases {
        let issuer = Issuer::new();
        let relay = issuer.relay().connection_limits(limits);
        let relay = relay.bind(LOOPBACK).await.unwrap();
        let first = device_of(&relay, &issuer, "acme/alice").await;
        let (key, token) = if limits.links_per_minute == 2 {
            (SigningKey::from_seed(&first.key.seed()), first.token)
        } else {
            let key = new_key();
            let token = token_of(&issuer, user, &key);
            (key, token)
        };
        let again = SigningKey::from_seed(&key.seed());
        let (mut second, _) = Device::connect(&relay, again, token.clone()).await;
        let refused = if limits.links_per_minute == 2 {
            refusal(&relay, &key, Credential::Token(token.as_bytes())).await
        } else {
            refused_link(&relay, &issuer, user).await
        };
        assert_eq!(refused, code(4002, "overloaded"));
        // It was refused before it took the place of the one that is here.
        second.nothing_waits().await;
        device_of(&relay, &issuer, "globex/eve").await;
    }
}

/// Sends 250 frames where a hundred are read in a second, and waits until they have been.
async fn flood(device: &mut Device) {
    let request = device.request();
    let mut frames = vec![ToRelay::Ack { position: 0 }; 249];
    frames.push(ToRelay::FetchCards {
        request,
        user: "nobody",
        take: false,
    });
    device.say_all(&frames).await;
    device.next().await;
}

#[tokio::test]
async fn who_sends_too_fast_is_read_later_on_another_link_of_the_device_the_user_or_the_tenant_too()
{
    let cases = [
        (
            "",
            allowing(|allowance| allowance.frames_per_minute = 6_000),
        ),
        (
            "acme/alice",
            allowing(|allowance| allowance.frames_per_minute_per_user = 6_000),
        ),
        (
            "acme/bob",
            allowing(|allowance| allowance.frames_per_minute_per_tenant = 6_000),
        ),
    ];
    for (user, allowance) in cases {
        let issuer = Issuer::new();
        let relay = issuer.relay().admin(anywhere()).allowance(allowance);
        let relay = relay.bind(LOOPBACK).await.unwrap();
        let mut first = device_of(&relay, &issuer, "acme/alice").await;
        let mut eve = device_of(&relay, &issuer, "globex/eve").await;
        let began = Instant::now();
        flood(&mut first).await;
        let throttled = "sealwire_links_throttled_total";
        becomes(&relay, throttled, 1).await;
        let mut second = match user {
            "" => first.reconnect(&relay).await.0,
            user => device_of(&relay, &issuer, user).await,
        };
        eve.nothing_waits().await;
        assert_eq!(metric(&relay, throttled).await, 2);
        // 2.5 seconds' worth, of which one may come at once.
        second.nothing_waits().await;
        assert!(began.elapsed() > Duration::from_millis(1_400));
    }
}

/// RFC 6455 §5.4: a message may come in any number of parts.
#[tokio::test]
async fn bytes_of_a_message_that_never_ends_are_counted() {
    let issuer = Issuer::new();
    // 64 KiB a second.
    let allowance = allowing(|allowance| allowance.bytes_per_minute = 60 * (64 << 10));
    let relay = issuer.relay().admin(anywhere()).allowance(allowance);
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let mut alice = device_of(&relay, &issuer, "alice").await;
    let part = |opcode| Message::Frame(Frame::message(Vec::new(), OpCode::Data(opcode), false));
    alice.socket.feed(part(Data::Binary)).await.unwrap();
    // Six bytes each.
    for _ in 0..40_000 {
        alice.socket.feed(part(Data::Continue)).await.unwrap();
    }
    alice.socket.flush().await.unwrap();
    becomes(&relay, "sealwire_links_throttled_total", 1).await;
}

/// Does something until it is refused as too often, and says how many times it was not.
async fn allowed(mut something: impl AsyncFnMut() -> Said) -> usize {
    let mut times = 0;
    loop {
        if let Said::Refused(_, RefusalCode::RateLimited) = something().await {
            return times;
        }
        times += 1;
        assert!(times < 1_000, "it is not counted");
    }
}

#[tokio::test]
async fn card_fetches_of_a_user_s_and_of_a_tenant_s_devices_count_together() {
    for (other, allowance) in [
        (
            "acme/alice",
            allowing(|allowance| allowance.card_fetches_per_minute = 3),
        ),
        (
            "acme/bob",
            allowing(|allowance| allowance.card_fetches_per_minute_per_tenant = 3),
        ),
    ] {
        let issuer = Issuer::new();
        let relay = issuer.relay().allowance(allowance);
        let relay = relay.bind(LOOPBACK).await.unwrap();
        let mut first = device_of(&relay, &issuer, "acme/alice").await;
        let mut second = device_of(&relay, &issuer, other).await;
        let said = first.fetch("acme/alice", false).await;
        assert!(matches!(said, Said::Cards(..)));
        assert_eq!(allowed(async || second.fetch(other, false).await).await, 2);
        let said = first.fetch("acme/alice", false).await;
        assert_eq!(refused(said), RefusalCode::RateLimited);
        for user in ["globex/eve", "dora"] {
            let mut another = device_of(&relay, &issuer, user).await;
            assert!(matches!(another.fetch(user, false).await, Said::Cards(..)));
        }
    }
}

#[tokio::test]
async fn refreshes_and_publications_of_a_device_are_counted() {
    let issuer = Issuer::new();
    let relay = issuer
        .relay()
        .allowance(allowing(|allowance| allowance.refreshes_per_minute = 2));
    let relay = relay.bind(LOOPBACK).await.unwrap();
    let mut alice = device_of(&relay, &issuer, "alice").await;
    let mut also_alices = device_of(&relay, &issuer, "alice").await;
    let token = issuer.token("alice", &alice.key);
    assert_eq!(allowed(async || alice.refresh(&token).await).await, 2);

    let (began, nobody) = (Instant::now(), new_key().thumbprint());
    let published = allowed(async || alice.remove(nobody).await).await;
    // Thirty in a minute: one more every two seconds.
    let slow = usize::try_from(began.elapsed().as_secs() / 2).unwrap() + 1;
    assert!((30..=30 + slow).contains(&published), "{published}");
    let card = alice.card("alice", 1);
    let said = alice.publish_card(&card).await;
    assert_eq!(refused(said), RefusalCode::RateLimited);

    let token = issuer.token("alice", &also_alices.key);
    assert!(matches!(
        also_alices.refresh(&token).await,
        Said::Accepted(_)
    ));
    let card = also_alices.card("alice", 1);
    assert!(matches!(
        also_alices.publish_card(&card).await,
        Said::Accepted(_)
    ));
}
