//! What holds for a link whatever it carries: records, requests, tokens, pings, and its end (docs/protocol.md §4, §5, §13).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use sealwire_jose::{Claims, KeyType, PrivateKey, SigningKey as JoseKey};
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{List, Part, Send as SendFrame, ToRelay};
use sealwire_protocol::key::SigningKey;
use sealwire_server::Relay;
use sealwire_server::issuer_keys::KeySource;
use sealwire_server::policy::Allowance;
use serde_json::json;
use support::*;

// docs/protocol.md §4, §13
#[tokio::test]
async fn record_that_is_malformed_or_does_not_open_ends_the_link() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    for (message, close) in [
        (vec![], code(4200, "malformed")),
        (vec![4; 8], code(4200, "malformed")),
        (vec![5; 64], code(4200, "malformed")),
        (vec![4; 64], code(4201, "violation")),
    ] {
        let mut device = Device::join(&relay, &issuer, "alice").await;
        device.send_bytes(message).await;
        assert_eq!(device.closed().await, close);
    }
}

// docs/protocol.md §4
#[tokio::test]
async fn replayed_record_ends_the_link() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let record = alice
        .link
        .seal_frame(&ToRelay::FetchCards {
            request: 9,
            user: "alice",
            take: false,
        })
        .unwrap();
    alice.send_bytes(record.clone()).await;
    assert!(matches!(alice.next().await, Said::Cards(9, _)));
    alice.send_bytes(record).await;
    assert_eq!(alice.closed().await, code(4201, "violation"));
}

// docs/protocol.md §12
#[tokio::test]
async fn record_over_the_limit_ends_the_link() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    alice.send_bytes(vec![4; (3 << 20) + 4 + 1 + 16 + 1]).await;
    assert_eq!(alice.closed().await, code(4201, "violation"));
}

// docs/protocol.md §5.4
#[tokio::test]
async fn narrower_token_takes_effect_at_once() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    assert_accepted(&alice.send("bob", 1, &[bob.id()], b"x").await);
    let narrower = issuer.token_with("alice", &alice.key, &json!({ "scope": "sealwire:receive" }));
    assert_accepted(&alice.refresh(&narrower).await);
    assert_eq!(
        refused(alice.send("bob", 2, &[bob.id()], b"x").await),
        RefusalCode::NotPermitted
    );
}

// docs/protocol.md §5.4: at once, also for what is in the same record
#[tokio::test]
async fn token_of_a_refresh_decides_about_the_very_next_frame() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let of_alice = |changes| issuer.token_with("alice", &alice.key, &changes);
    let entry =
        |to: &[&str]| json!({ "authorization_details": [{ "type": "sealwire", "to": to }] });
    let cases = [
        (of_alice(entry(&[])), Err(RefusalCode::NotPermitted)),
        (of_alice(entry(&["b*"])), Ok(())),
        (
            of_alice(json!({ "scope": "sealwire:receive" })),
            Err(RefusalCode::NotPermitted),
        ),
        (of_alice(json!({})), Ok(())),
    ];
    for (number, (token, expected)) in (1..).zip(cases) {
        let proof = alice
            .link
            .refresh_proof(&alice.key, token.as_bytes(), now());
        let parts = [Part {
            device: bob.id(),
            message: b"x",
        }];
        let send = SendFrame {
            request: 200 + number,
            sequence: u64::from(number),
            id: [1; 16],
            user: "bob",
            whole: true,
            parts: List::from(parts.as_slice()),
            copies: List::empty(),
        };
        let refresh = ToRelay::Refresh {
            request: 100 + number,
            proof: proof.as_bytes(),
            token: token.as_bytes(),
        };
        alice.say_all(&[refresh, ToRelay::Send(send)]).await;
        assert_eq!(alice.next().await, Said::Accepted(100 + number));
        let answer = match expected {
            Ok(()) => Said::Accepted(200 + number),
            Err(code) => Said::Refused(200 + number, code),
        };
        assert_eq!(alice.next().await, answer, "{number}");
    }
}

// docs/protocol.md §5.5: the numbers too, up and down
#[tokio::test]
async fn token_of_a_refresh_sets_every_limit_of_the_link_anew() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let limited = |device: &Device, user, limits| issuer.token_limited(user, &device.key, &limits);
    let small = limited(&alice, "alice", json!({ "max_message_bytes": 8 }));
    let free = issuer.token("alice", &alice.key);
    assert_accepted(&alice.refresh(&small).await);
    let said = alice.send("bob", 1, &[bob.id()], &[0; 9]).await;
    assert_eq!(refused(said), RefusalCode::TooLarge);
    assert_accepted(&alice.refresh(&free).await);
    assert_accepted(&alice.send("bob", 1, &[bob.id()], &[0; 9]).await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", &[0; 9]));

    // What waits for an acknowledgement fills it.
    let full = limited(&bob, "bob", json!({ "mailbox_messages": 1 }));
    assert_accepted(&bob.refresh(&full).await);
    let said = alice.send("bob", 2, &[bob.id()], b"x").await;
    assert_eq!(refused(said), RefusalCode::MailboxFull);
    let deaf = issuer.token_with("bob", &bob.key, &json!({ "scope": "sealwire:send" }));
    assert_accepted(&bob.refresh(&deaf).await);
    assert_accepted(&alice.send("bob", 2, &[bob.id()], b"x").await);
    bob.nothing_waits().await;
    let free = issuer.token("bob", &bob.key);
    let said = bob.refresh(&free).await;
    // What waited may come before the answer.
    let (accepted, message) = match said {
        Said::Accepted(_) => (said, bob.next().await),
        _ => (bob.next().await, said),
    };
    assert_accepted(&accepted);
    assert_eq!(message, delivery(2, 2, &alice, "alice", b"x"));

    let slow = limited(&alice, "alice", json!({ "messages_per_minute": 1 }));
    assert_accepted(&alice.refresh(&slow).await);
    assert_accepted(&alice.send("bob", 3, &[bob.id()], b"x").await);
    let said = alice.send("bob", 4, &[bob.id()], b"x").await;
    assert_eq!(refused(said), RefusalCode::RateLimited);
}

// docs/protocol.md §5.4
#[tokio::test]
async fn token_of_a_new_key_is_taken_on_a_live_link_once_the_key_is_there() {
    let [old, new] = ["old", "new"].map(|kid| {
        let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
        key.with_kid(kid).unwrap()
    });
    let folder = tempfile::tempdir().unwrap();
    let [file, beside] = ["keys.json", "new.json"].map(|name| folder.path().join(name));
    std::fs::write(&file, old.public().unwrap().to_jwk()).unwrap();
    let keys = KeySource::file(&file, sealwire_jose::Algorithms::PUBLIC_KEY);
    let mut allowance = Allowance::default();
    allowance.refreshes_per_minute = 100_000;
    let relay = Relay::in_memory()
        .issuer_with_keys_from(ISSUER.parse().unwrap(), AUDIENCE, keys)
        .allowance(allowance)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let device = new_key();
    let thumbprint = device.thumbprint();
    let token = |key| {
        let claims = Claims {
            issuer: ISSUER,
            user: "alice",
            audience: AUDIENCE,
            issued: now(),
            expires: now() + 3_600,
            id: None,
            device: thumbprint,
            scope: Some(EVERYTHING),
            authorization_details: None,
        };
        JoseKey::new(key).unwrap().access_token(&claims).unwrap()
    };
    let (mut alice, _) = Device::connect(&relay, device, token(&old)).await;
    std::fs::write(&beside, new.public().unwrap().to_jwk()).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    let mut answers = Vec::new();
    within(async {
        loop {
            match alice.refresh(&token(&new)).await {
                Said::Accepted(_) => break,
                said => answers.push(refused(said)),
            }
        }
    })
    .await;
    assert!(!answers.is_empty() && answers.iter().all(|code| *code == RefusalCode::Unavailable));
}

// docs/protocol.md §5.4
#[tokio::test]
async fn refresh_with_a_token_that_is_not_the_links_is_refused_and_changes_nothing() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let cases = [
        (
            "another user's",
            issuer.token_with("bob", &alice.key, &json!({ "scope": "" })),
        ),
        (
            "another device's",
            issuer.token_with("alice", &bob.key, &json!({ "scope": "" })),
        ),
        ("a stranger's", Issuer::new().token("alice", &alice.key)),
        (
            "an expired one",
            issuer.token_with(
                "alice",
                &alice.key,
                &json!({ "iat": now() - 7200, "exp": now() - 61 }),
            ),
        ),
        ("the built-in issuer's, which is not there", String::new()),
    ];
    for (what, token) in cases {
        assert_eq!(
            refused(alice.refresh(&token).await),
            RefusalCode::TokenRefused,
            "{what}"
        );
    }
    let good = issuer.token("alice", &alice.key);
    let proof = alice.link.refresh_proof(&bob.key, good.as_bytes(), now());
    alice
        .say(&ToRelay::Refresh {
            request: 99,
            proof: proof.as_bytes(),
            token: good.as_bytes(),
        })
        .await;
    assert_eq!(
        alice.next().await,
        Said::Refused(99, RefusalCode::TokenRefused)
    );
    assert_accepted(&alice.send("bob", 1, &[bob.id()], b"x").await);
}

// docs/protocol.md §5.4
#[tokio::test]
async fn built_in_issuer_refreshes_the_token_of_a_link() {
    let relay = Relay::in_memory().bind("127.0.0.1:0").await.unwrap();
    let invitation = relay
        .invite("alice", Duration::from_secs(60))
        .await
        .unwrap();
    let key = new_key();
    let credential = sealwire_protocol::handshake::Credential::Invite(invitation.code.expose());
    let (socket, link, _) = shake_hands(&relay, upgrade(&relay).await, &key, credential).await;
    let (mut alice, _) = Device::open(key, String::new(), socket, link).await;
    assert!(matches!(alice.next().await, Said::Token(0, _)));
    assert!(matches!(alice.refresh("").await, Said::Token(1, token) if !token.is_empty()));
}

// docs/protocol.md §5.4, §13
#[tokio::test]
async fn link_ends_when_its_token_does_unless_it_is_refreshed() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (left, refreshed) = (new_key(), new_key());
    // With the tolerance of 60 seconds, good for two seconds more.
    let short = |user, key: &SigningKey| {
        issuer.token_with(
            user,
            key,
            &json!({ "iat": now() - 3600, "exp": now() - 58 }),
        )
    };
    let tokens = (short("alice", &left), short("bob", &refreshed));
    let (mut bob, _) = Device::connect(&relay, refreshed, tokens.1).await;
    let (mut alice, _) = Device::connect(&relay, left, tokens.0).await;
    // Less is left than the time by which it is said.
    assert!(matches!(bob.next().await, Said::Expiring(at) if at < now()));
    assert!(matches!(alice.next().await, Said::Expiring(_)));
    let longer = issuer.token("bob", &bob.key);
    assert_accepted(&bob.refresh(&longer).await);
    assert_eq!(alice.closed().await, code(4101, "token_expired"));
    bob.nothing_waits().await;
}

// docs/protocol.md §13
#[tokio::test]
async fn relay_that_stops_tells_its_links_and_listens_no_more() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut waiting = upgrade(&relay).await;
    let address = relay.local_addr();
    let ((), end, unauthenticated) =
        within(async { tokio::join!(relay.shutdown(), alice.closed(), closed(&mut waiting)) })
            .await;
    assert_eq!(end, code(4000, "going_away"));
    assert_eq!(unauthenticated, code(4000, "going_away"));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

// docs/protocol.md §13
#[tokio::test]
async fn device_that_does_not_answer_pings_is_given_up() {
    let issuer = Issuer::new();
    let period = Duration::from_millis(200);
    let relay = issuer
        .relay()
        .keep_alive(period)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let mut answering = Device::join(&relay, &issuer, "alice").await;
    let mut silent = Device::join(&relay, &issuer, "bob").await;
    // A device answers while it reads; this one reads nothing until the other has been pinged often enough.
    for _ in 0..8 {
        within(answering.pinged()).await;
    }
    assert_eq!(silent.closed().await, code(4003, "timeout"));
}

// docs/protocol.md §13
#[tokio::test]
async fn device_that_does_not_read_is_closed_as_too_slow() {
    let issuer = Issuer::new();
    // Small buffers, so that what the relay sends does not just lie in the kernel.
    let listener = tokio::net::TcpSocket::new_v4().unwrap();
    listener.set_send_buffer_size(16 << 10).unwrap();
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let relay = issuer
        .relay()
        .write_timeout(Duration::from_millis(500))
        .serve(listener.listen(16).unwrap())
        .await
        .unwrap();
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join_slowly(&relay, &issuer, "bob").await;
    for id in 0..40 {
        assert_accepted(&alice.send("bob", id, &[bob.id()], &[0; 90_000]).await);
    }
    // The relay gave up before it had sent everything, and nobody else noticed.
    assert!(bob.deliveries_until_the_end().await < 40);
    alice.nothing_waits().await;
}

/// `requests` Sends to one device in one record. A relay takes a whole record before it sees what its store has done.
async fn send_at_once(from: &mut Device, to: &Device, requests: u8) {
    let parts = [Part {
        device: to.id(),
        message: b"m",
    }];
    let frames: Vec<_> = (1..=requests)
        .map(|number| {
            ToRelay::Send(SendFrame {
                request: 100 + u32::from(number),
                sequence: 100 + u64::from(number),
                id: [number; 16],
                user: "bob",
                whole: true,
                parts: List::from(parts.as_slice()),
                copies: List::empty(),
            })
        })
        .collect();
    from.say_all(&frames).await;
}

// docs/protocol.md §5, §12
#[tokio::test]
async fn device_may_have_64_requests_open() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    send_at_once(&mut alice, &bob, 64).await;
    for _ in 0..64 {
        assert_accepted(&alice.next().await);
    }
}

// docs/protocol.md §5, §13: well over 64, for the case that the store is done with some of them in the meantime
#[tokio::test]
async fn device_with_more_than_64_requests_open_is_a_violation() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let relay = issuer
        .configure(Relay::builder(directory.path()))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let (mut alice, bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    send_at_once(&mut alice, &bob, 250).await;
    assert_eq!(alice.closed().await, code(4201, "violation"));
}

// docs/protocol.md §5.5
#[tokio::test]
async fn each_scope_allows_only_its_own() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let with_scope = async |user: &str, scope: &str| {
        let key = new_key();
        let token = issuer.token_with(user, &key, &json!({ "scope": scope }));
        Device::connect(&relay, key, token).await.0
    };

    let mut listener = with_scope("alice", "sealwire:receive other").await;
    assert_eq!(
        refused(listener.send("bob", 1, &[bob.id()], b"x").await),
        RefusalCode::NotPermitted
    );
    assert_eq!(
        refused(listener.fetch("bob", false).await),
        RefusalCode::NotPermitted
    );
    let card = listener.card("alice", 1);
    assert_eq!(
        refused(listener.publish_card(&card).await),
        RefusalCode::NotPermitted
    );
    let prekey = Prekey::new(1, listener.id(), &listener.key);
    assert_eq!(
        refused(listener.publish_prekeys(&[prekey]).await),
        RefusalCode::NotPermitted
    );

    let mut deaf = with_scope("carol", "sealwire:send sealwire:publish").await;
    let card = deaf.card("carol", 1);
    assert_accepted(&deaf.publish_card(&card).await);
    assert_accepted(&bob.send("carol", 1, &[deaf.id()], b"kept").await);
    deaf.nothing_waits().await;
    // What it may not have, it may not erase either.
    deaf.say(&ToRelay::Ack {
        position: FIRST_START + 1,
    })
    .await;
    let everything = issuer.token("carol", &deaf.key);
    assert_accepted(&deaf.refresh(&everything).await);
    assert_eq!(deaf.next().await, delivery(1, 1, &bob, "bob", b"kept"));
}

// docs/protocol.md §5.3, §5.5
#[tokio::test]
async fn limits_of_a_token_are_enforced() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let key = new_key();
    let token = issuer.token_limited("bob", &key, &json!({ "mailbox_messages": 2 }));
    let (mut bob, _) = Device::connect(&relay, key, token).await;
    let card = bob.card("bob", 1);
    assert_accepted(&bob.publish_card(&card).await);

    let key = new_key();
    let token = issuer.token_limited(
        "alice",
        &key,
        &json!({ "max_message_bytes": 8, "messages_per_minute": 3 }),
    );
    let (mut alice, ready) = Device::connect(&relay, key, token).await;
    assert!(matches!(ready, Said::Ready { max_message: 8, .. }));
    assert_eq!(
        refused(alice.send("bob", 1, &[bob.id()], &[0; 9]).await),
        RefusalCode::TooLarge
    );
    for id in 1..=2 {
        assert_accepted(&alice.send("bob", id, &[bob.id()], &[0; 8]).await);
    }
    assert_eq!(
        refused(alice.send("bob", 3, &[bob.id()], &[0; 8]).await),
        RefusalCode::MailboxFull
    );
    assert_eq!(
        refused(alice.send("bob", 3, &[bob.id()], &[0; 8]).await),
        RefusalCode::RateLimited
    );
}
