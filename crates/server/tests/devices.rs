//! What the relay does with cards, prekeys and devices (docs/protocol.md §5.2, §6).
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

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::SigningKey;
use sealwire_protocol::name::User;
use sealwire_server::Relay;
use sealwire_server::revocations::Revocation;
use serde_json::json;
use support::*;

// docs/protocol.md §6.1
#[tokio::test]
async fn card_that_is_not_the_devices_own_is_refused() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let other = new_key();
    let stranger = Issuer::new().token("alice", &alice.key);
    let cases = [
        (
            "another device's",
            card(&other, &other, 2, &issuer.token("alice", &other)),
        ),
        (
            "signed by another device",
            card(&alice.key, &other, 2, &alice.token),
        ),
        (
            "attested for another device",
            card(&alice.key, &alice.key, 2, &issuer.token("alice", &other)),
        ),
        (
            "attested for another user",
            card(&alice.key, &alice.key, 2, &issuer.token("bob", &alice.key)),
        ),
        (
            "attested by a stranger",
            card(&alice.key, &alice.key, 2, &stranger),
        ),
        (
            "from the future",
            card_of(&alice.key, &alice.key, 2, &alice.token, now() + 120),
        ),
        ("an older generation", alice.card("alice", 0)),
        ("the same generation again", alice.card("alice", 1)),
        ("not a card", alice.token.clone()),
    ];
    for (what, card) in cases {
        assert_eq!(
            refused(alice.publish_card(&card).await),
            RefusalCode::InvalidCard,
            "{what}"
        );
    }
    let next = alice.card("alice", 2);
    assert_accepted(&alice.publish_card(&next).await);
    let Said::Cards(_, cards) = alice.fetch("alice", false).await else {
        panic!()
    };
    assert_eq!(cards, [(next.into_bytes(), None)]);
}

// docs/protocol.md §3.8
#[tokio::test]
async fn device_of_one_user_gets_no_link_as_anothers() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let alice = Device::join(&relay, &issuer, "alice").await;
    let mallorys = issuer.token("mallory", &alice.key);
    let another = async || {
        let credential = Credential::Token(mallorys.as_bytes());
        refusal(&relay, &alice.key, credential).await
    };
    let not_authorised = code(4100, "not_authorised");
    assert_eq!(another().await, not_authorised);
    // Whose it is outlives its card.
    let alices = Revocation::IssuedBefore {
        before: now() + 1,
        user: Some(User::new("alice").unwrap()),
    };
    relay.revoke(alices).await.unwrap();
    assert_eq!(another().await, not_authorised);
}

// docs/protocol.md §6.2
#[tokio::test]
async fn one_time_prekey_is_handed_out_once() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let prekeys = [
        Prekey::new(1, bob.id(), &bob.key),
        Prekey::new(2, bob.id(), &bob.key),
    ];
    assert_accepted(&bob.publish_prekeys(&prekeys).await);
    for expected in [Some(1), Some(2), None] {
        let Said::Cards(_, cards) = alice.fetch("bob", true).await else {
            panic!()
        };
        assert_eq!(
            cards.iter().map(|(_, prekey)| *prekey).collect::<Vec<_>>(),
            [expected]
        );
    }
    let (_, ready) = bob.reconnect(&relay).await;
    assert!(matches!(
        ready,
        Said::Ready {
            has_card: true,
            prekeys: 0,
            ..
        }
    ));
}

// docs/protocol.md §5.2
#[tokio::test]
async fn user_who_takes_prekeys_too_often_gets_cards_without_and_leaves_some_for_others() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let prekeys: Vec<_> = (1..=12)
        .map(|id| Prekey::new(id, bob.id(), &bob.key))
        .collect();
    assert_accepted(&bob.publish_prekeys(&prekeys).await);
    let mut mallory = Device::join(&relay, &issuer, "mallory").await;
    let mut carol = Device::join(&relay, &issuer, "carol").await;
    for expected in (1..=10).map(Some).chain([None]) {
        let Said::Cards(_, cards) = mallory.fetch("bob", true).await else {
            panic!()
        };
        assert_eq!(cards[0].1, expected);
    }
    let Said::Cards(_, cards) = carol.fetch("bob", true).await else {
        panic!()
    };
    assert_eq!(cards[0].1, Some(11));
}

// docs/protocol.md §6.2
#[tokio::test]
async fn prekey_that_the_device_did_not_sign_is_refused_with_all_that_came_with_it() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let other = new_key();
    for forged in [
        Prekey::new(2, bob.id(), &other),
        Prekey::new(2, other.thumbprint(), &bob.key),
    ] {
        let prekeys = [Prekey::new(1, bob.id(), &bob.key), forged];
        assert_eq!(
            refused(bob.publish_prekeys(&prekeys).await),
            RefusalCode::InvalidCard
        );
    }
    let (_, ready) = bob.reconnect(&relay).await;
    assert!(matches!(ready, Said::Ready { prekeys: 0, .. }));
}

// docs/protocol.md §5.2
#[tokio::test]
async fn new_device_is_announced_to_the_users_others_and_nobody_else() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut phone, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let mut laptop = Device::join(&relay, &issuer, "alice").await;
    assert_eq!(phone.next().await, Said::DeviceChanged("alice".into()));
    let newer = laptop.card("alice", 2);
    assert_accepted(&laptop.publish_card(&newer).await);
    for device in [&mut phone, &mut laptop, &mut bob] {
        device.nothing_waits().await;
    }
}

// docs/protocol.md §5.2, DeviceChanged
#[tokio::test]
async fn who_wrote_to_a_user_or_fetched_the_cards_hears_of_new_and_removed_devices() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let phone = Device::join(&relay, &issuer, "alice").await;
    let (mut writer, mut reader, mut other) = (
        Device::join(&relay, &issuer, "bob").await,
        Device::join(&relay, &issuer, "carol").await,
        Device::join(&relay, &issuer, "dave").await,
    );
    assert_accepted(&writer.send("alice", 1, &[phone.id()], b"x").await);
    reader.fetch("alice", false).await;
    other.fetch("bob", false).await;

    let mut laptop = Device::join(&relay, &issuer, "alice").await;
    for device in [&mut writer, &mut reader] {
        assert_eq!(device.next().await, Said::DeviceChanged("alice".into()));
        device.nothing_waits().await;
    }
    assert!(relay.remove_device(&phone.id()).await.unwrap());
    for device in [&mut writer, &mut reader, &mut laptop] {
        assert_eq!(device.next().await, Said::DeviceChanged("alice".into()));
    }
    other.nothing_waits().await;
    // A refused request watches nobody: a new link of the reader, which may not write to alice.
    let narrow = issuer.token_limited("carol", &reader.key, &json!({ "to": ["bob"] }));
    let (mut narrow, _) = Device::connect(&relay, reader.key, narrow).await;
    assert_eq!(
        refused(narrow.fetch("alice", false).await),
        RefusalCode::NotPermitted
    );
    Device::join(&relay, &issuer, "alice").await;
    assert_eq!(laptop.next().await, Said::DeviceChanged("alice".into()));
    narrow.nothing_waits().await;
}

// docs/protocol.md §5.2, §5.4
#[tokio::test]
async fn a_narrower_token_ends_the_news_of_users_it_does_not_allow() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    bob.fetch("alice", false).await;
    let narrower = issuer.token_limited("bob", &bob.key, &json!({ "to": ["carol"] }));
    assert_accepted(&bob.refresh(&narrower).await);
    Device::join(&relay, &issuer, "alice").await;
    bob.nothing_waits().await;
}

// docs/protocol.md §5.2, DeviceChanged: more changes at once than a doorbell tells apart
#[tokio::test]
async fn many_users_that_change_at_once_are_all_told() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let users: Vec<_> = (0..24).map(|number| format!("user-{number}")).collect();
    for user in &users {
        Device::join(&relay, &issuer, user).await;
        bob.fetch(user, false).await;
    }
    for user in &users {
        Device::join(&relay, &issuer, user).await;
    }
    let mut told = std::collections::BTreeSet::new();
    while told.len() < users.len() {
        match bob.next().await {
            Said::DeviceChanged(user) => told.insert(user),
            other => panic!("{other:?}"),
        };
    }
}

// docs/protocol.md §5.1, RemoveDevice
#[tokio::test]
async fn device_removed_by_another_of_its_user_loses_its_link_and_everybody_hears() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut phone, mut laptop, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    assert_eq!(phone.next().await, Said::DeviceChanged("alice".into()));
    bob.fetch("alice", false).await;
    assert_accepted(&phone.remove(laptop.id()).await);
    assert_eq!(laptop.closed().await, code(4102, "revoked"));
    assert_eq!(bob.next().await, Said::DeviceChanged("alice".into()));
    assert_eq!(phone.next().await, Said::DeviceChanged("alice".into()));
    let Said::Cards(_, cards) = bob.fetch("alice", false).await else {
        panic!()
    };
    assert_eq!(cards.len(), 1);
    assert_eq!(
        refused(bob.send("alice", 1, &[phone.id(), laptop.id()], b"x").await),
        RefusalCode::DevicesChanged
    );
    assert_accepted(&bob.send("alice", 1, &[phone.id()], b"x").await);
    assert_eq!(phone.next().await, delivery(1, 1, &bob, "bob", b"x"));
    // Who has not heard the answer asks again. Others learn nothing.
    assert_accepted(&phone.remove(laptop.id()).await);
    let others = refused(bob.remove(laptop.id()).await);
    assert_eq!(others, RefusalCode::UnknownDevice);
}

// docs/protocol.md §5.1, RemoveDevice
#[tokio::test]
async fn device_that_removes_itself_is_told_and_closed() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let own = alice.id();
    assert_accepted(&alice.remove(own).await);
    assert_eq!(alice.closed().await, code(4102, "revoked"));
}

// docs/protocol.md §5.1, RemoveDevice; §5.5
#[tokio::test]
async fn device_of_another_user_or_without_permission_to_publish_removes_nothing() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    for device in [alice.id(), new_key().thumbprint()] {
        assert_eq!(
            refused(bob.remove(device).await),
            RefusalCode::UnknownDevice
        );
    }
    let key = new_key();
    let token = issuer.token_with("alice", &key, &json!({ "scope": "sealwire:send" }));
    let (mut sender, _) = Device::connect(&relay, key, token).await;
    assert_eq!(
        refused(sender.remove(alice.id()).await),
        RefusalCode::NotPermitted
    );
    alice.nothing_waits().await;
    assert_accepted(&bob.send("alice", 1, &[alice.id()], b"x").await);
}

// docs/protocol.md §3.6, §5.1
#[tokio::test]
async fn device_removed_by_another_is_never_enrolled_again() {
    let relay = Relay::in_memory().bind("127.0.0.1:0").await.unwrap();
    let join = async |key: SigningKey| {
        let invitation = relay
            .invite("alice", Duration::from_secs(60))
            .await
            .unwrap();
        let credential = sealwire_protocol::handshake::Credential::Invite(invitation.code.expose());
        let (socket, link, _) = shake_hands(&relay, upgrade(&relay).await, &key, credential).await;
        (key, socket, link)
    };
    let (key, socket, link) = join(new_key()).await;
    let (mut phone, _) = Device::open(key, String::new(), socket, link).await;
    assert!(matches!(phone.next().await, Said::Token(0, _)));
    let (key, socket, link) = join(new_key()).await;
    let (mut laptop, _) = Device::open(key, String::new(), socket, link).await;
    assert!(matches!(laptop.next().await, Said::Token(0, _)));
    // It has no card yet, but the issuer knows whose it is.
    assert_accepted(&phone.remove(laptop.id()).await);
    assert_eq!(laptop.closed().await, code(4102, "revoked"));
    // Who has not heard the answer asks again. One that nobody knows was never removed.
    assert_accepted(&phone.remove(laptop.id()).await);
    let unknown = refused(phone.remove(new_key().thumbprint()).await);
    assert_eq!(unknown, RefusalCode::UnknownDevice);
    let (_, mut socket, _) = join(laptop.key).await;
    assert_eq!(closed(&mut socket).await, code(4100, "not_authorised"));
}

// docs/protocol.md §5.1, PublishPrekeys
#[tokio::test]
async fn prekeys_that_are_replaced_are_not_handed_out() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let prekey = |id| Prekey::new(id, bob.id(), &bob.key);
    let (first, second) = ([prekey(1), prekey(2)], [prekey(3)]);
    assert_accepted(&bob.publish_prekeys(&first).await);
    assert_accepted(&bob.replace_prekeys(&second).await);
    assert_eq!(
        refused(bob.replace_prekeys(&first).await),
        RefusalCode::InvalidCard
    );
    for expected in [Some(3), None] {
        let Said::Cards(_, cards) = alice.fetch("bob", true).await else {
            panic!()
        };
        assert_eq!(cards[0].1, expected);
    }
}
