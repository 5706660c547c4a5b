//! A device of one tenant neither reaches users of another nor learns who they are (docs/protocol.md §5.7).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::name::User;
use sealwire_server::policy::Allowance;
use sealwire_server::revocations::Revocation;
use serde_json::json;
use support::*;

/// Of so many users a link hears (docs/protocol.md §5.2, DeviceChanged).
const MAX_WATCHED_USERS: usize = 256;

/// A device with an open link whose token names a tenant.
async fn of_tenant(relay: &impl At, issuer: &Issuer, tenant: &str, user: &str) -> Device {
    let key = new_key();
    let token = issuer.token_with(user, &key, &json!({ "tenant": tenant }));
    Device::connect(relay, key, token).await.0
}

/// The same with a card.
async fn joined(relay: &impl At, issuer: &Issuer, tenant: &str, user: &str) -> Device {
    let mut device = of_tenant(relay, issuer, tenant, user).await;
    let card = device.card(user, 1);
    assert_accepted(&device.publish_card(&card).await);
    device
}

/// What the relay says to everything that names a user or a device.
async fn asked_about(asking: &mut Device, user: &str, device: Thumbprint) -> Vec<RefusalCode> {
    let mut said = Vec::new();
    for take in [false, true] {
        said.push(refused(asking.fetch(user, take).await));
    }
    let only = [device];
    for (whole, copies) in [(true, &[][..]), (true, &only), (false, &[])] {
        asking.sequence += 1;
        let post = Post {
            whole,
            copies,
            ..Post::new(asking.sequence, 1, user, &only, b"sealed")
        };
        said.push(refused(asking.post(&post).await));
    }
    said.push(refused(asking.remove(device).await));
    said
}

// docs/protocol.md §5.7
#[tokio::test]
async fn nobody_of_another_tenant_can_be_told_from_nobody() {
    let issuer = Issuer::new();
    let mut allowance = Allowance::default();
    allowance.messages_per_minute = 5;
    allowance.card_fetches_per_minute = 5;
    let relay = issuer.relay().allowance(allowance);
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let mut bob = joined(&relay, &issuer, "acme", "acme/bob").await;
    let mut eve = joined(&relay, &issuer, "globex", "globex/eve").await;
    let (bobs, eves) = ([bob.id()], eve.id());
    let mut alice = joined(&relay, &issuer, "acme", "acme/alice").await;

    let nowhere = Thumbprint::from_bytes([7; 32]);
    let exists = asked_about(&mut alice, "globex/eve", eves).await;
    let does_not = asked_about(&mut alice, "globex/nobody", nowhere).await;
    assert_eq!(exists, does_not);
    let blocked = joined(&relay, &issuer, "globex", "globex/mallory").await;
    let mallory = Revocation::User(User::new("globex/mallory").unwrap());
    relay.revoke(mallory).await.unwrap();
    let is_blocked = asked_about(&mut alice, "globex/mallory", blocked.id()).await;
    assert_eq!(exists, is_blocked);
    let mut expected = vec![RefusalCode::NotPermitted; 5];
    expected.push(RefusalCode::UnknownDevice);
    assert_eq!(exists, expected);
    for user in ["eve", "globex", "acme", "acme/", "acme-2/eve", "ACME/bob"] {
        assert_eq!(
            asked_about(&mut alice, user, nowhere).await,
            expected,
            "{user}"
        );
    }

    // None of it has counted: she may do as much as if she had not asked.
    for take in [false, true, false] {
        assert!(matches!(
            alice.fetch("acme/bob", take).await,
            Said::Cards(..)
        ));
    }
    for id in 1..=5 {
        assert_accepted(&alice.send("acme/bob", id, &bobs, b"sealed").await);
        assert!(matches!(bob.next().await, Said::Deliver { .. }));
    }
    // Nor does she hear of them, and they have heard nothing.
    let _second = joined(&relay, &issuer, "globex", "globex/eve").await;
    assert_eq!(
        eve.next().await,
        Said::DeviceChanged("globex/eve".to_owned())
    );
    alice.nothing_waits().await;
    eve.nothing_waits().await;
    // Whom she may write to she hears of, however many others she has asked about: those take no place among the latest.
    for number in 0..=MAX_WATCHED_USERS {
        let nobody = format!("globex/{number}");
        assert_eq!(
            refused(alice.fetch(&nobody, false).await),
            RefusalCode::NotPermitted
        );
    }
    let _second = joined(&relay, &issuer, "acme", "acme/bob").await;
    assert_eq!(
        alice.next().await,
        Said::DeviceChanged("acme/bob".to_owned())
    );
}

// docs/protocol.md §5.4, §5.7
#[tokio::test]
async fn refresh_into_a_tenant_ends_what_was_seen_of_others() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut eve = Device::join(&relay, &issuer, "globex/eve").await;
    let mut alice = Device::join(&relay, &issuer, "acme/alice").await;
    assert!(matches!(
        alice.fetch("globex/eve", false).await,
        Said::Cards(..)
    ));
    let within =
        |tenant: &str| issuer.token_with("acme/alice", &alice.key, &json!({ "tenant": tenant }));
    let (own, others) = (within("acme"), within("globex"));
    assert_eq!(
        refused(alice.refresh(&others).await),
        RefusalCode::TokenRefused
    );
    assert_accepted(&alice.refresh(&own).await);
    let _second = Device::join(&relay, &issuer, "globex/eve").await;
    assert_eq!(
        eve.next().await,
        Said::DeviceChanged("globex/eve".to_owned())
    );
    alice.nothing_waits().await;
    assert_eq!(
        refused(alice.fetch("globex/eve", false).await),
        RefusalCode::NotPermitted
    );
}

// docs/protocol.md §2.2, §5.7
#[tokio::test]
async fn relay_refuses_user_outside_the_tenant_and_token_without_where_one_is_required() {
    let issuer = Issuer::new();
    let relay = issuer.relay().require_tenant(true);
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let key = new_key();
    let with = |user: &str, claims| issuer.token_with(user, &key, &claims);
    for (what, token) in [
        ("without", issuer.token("acme/alice", &key)),
        ("outside", with("alice", json!({ "tenant": "acme" }))),
        (
            "the tenant itself",
            with("acme/", json!({ "tenant": "acme" })),
        ),
        ("no name", with("acme/alice", json!({ "tenant": "" }))),
        ("no text", with("acme/alice", json!({ "tenant": ["acme"] }))),
    ] {
        assert_eq!(
            refusal(&relay, &key, Credential::Token(token.as_bytes())).await,
            code(4100, "not_authorised"),
            "{what}"
        );
    }
    let token = with("acme/alice", json!({ "tenant": "acme" }));
    let same = SigningKey::from_seed(&key.seed());
    let (mut alice, _) = Device::connect(&relay, same, token.clone()).await;
    assert_eq!(
        refused(alice.refresh(&issuer.token("acme/alice", &key)).await),
        RefusalCode::TokenRefused
    );
    assert_accepted(&alice.refresh(&token).await);
}
