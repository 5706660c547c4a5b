//! What the relay does for devices that have a link (docs/protocol.md §4 to §6).
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
use sealwire_protocol::frame::{List, Part, Send as SendFrame, ToRelay};
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_server::Relay;
use serde_json::json;
use support::*;

async fn relay(issuer: &Issuer) -> Relay {
    issuer.relay().bind("127.0.0.1:0").await.unwrap()
}

/// A message as its recipient gets it.
fn delivery(position: u64, id: u8, from: &Device, user: &str, message: &[u8]) -> Said {
    Said::Deliver {
        position,
        id: [id; 16],
        user: user.to_owned(),
        device: from.id(),
        message: message.to_vec(),
    }
}

fn mailbox(ready: &Said) -> (u64, u64) {
    match ready {
        Said::Ready {
            acknowledged, head, ..
        } => (*acknowledged, *head),
        other => panic!("{other:?}"),
    }
}

/// The last refusal or acceptance of a request, without its number.
fn refused(said: Said) -> RefusalCode {
    match said {
        Said::Refused(_, code) => code,
        other => panic!("not refused: {other:?}"),
    }
}

fn assert_accepted(said: &Said) {
    assert!(matches!(said, Said::Accepted(_)), "{said:?}");
}

#[tokio::test]
async fn message_reaches_a_device_that_is_connected() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    assert_accepted(&alice.send("bob", 1, &[bob.id()], b"sealed").await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"sealed"));
}

#[tokio::test]
async fn message_waits_for_a_device_that_is_away_until_it_acknowledges() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let bob = Device::join(&relay, &issuer, "bob").await;
    let Device {
        key, token, socket, ..
    } = bob;
    drop(socket);
    let id = key.thumbprint();
    for message in 1..=3 {
        assert_accepted(&alice.send("bob", message, &[id], &[message]).await);
    }

    let (mut bob, ready) = Device::connect(&relay, key, token).await;
    assert_eq!(mailbox(&ready), (0, 3));
    for message in 1..=3 {
        assert_eq!(
            bob.next().await,
            delivery(message.into(), message, &alice, "alice", &[message])
        );
    }
    // Cumulative: 1 and 2 are done with, 3 is not.
    bob.say(&ToRelay::Ack { position: 2 }).await;
    bob.nothing_waits().await;
    let (mut bob, ready) = acknowledged(bob, &relay, 2).await;
    assert_eq!(mailbox(&ready), (2, 3));
    assert_eq!(bob.next().await, delivery(3, 3, &alice, "alice", &[3]));
    bob.say(&ToRelay::Ack { position: 3 }).await;
    let (mut bob, _) = acknowledged(bob, &relay, 3).await;
    bob.nothing_waits().await;
}

/// Reconnects until the acknowledgement has been stored, which happens beside the answers to requests.
async fn acknowledged(mut device: Device, relay: &Relay, position: u64) -> (Device, Said) {
    within(async move {
        loop {
            let (again, ready) = device.reconnect(relay).await;
            if mailbox(&ready).0 >= position {
                return (again, ready);
            }
            device = again;
        }
    })
    .await
}

// docs/protocol.md §5.2
#[tokio::test]
async fn acknowledgement_beyond_the_mailbox_is_a_violation() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    bob.say(&ToRelay::Ack { position: 1 }).await;
    assert_eq!(bob.closed().await, code(4201, "violation"));
}

// docs/protocol.md §5.2
#[tokio::test]
async fn repeated_send_is_accepted_and_delivers_nothing_new() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    for _ in 0..2 {
        assert_accepted(&alice.send("bob", 1, &[bob.id()], b"once").await);
    }
    assert_accepted(&alice.send("bob", 2, &[bob.id()], b"next").await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"once"));
    assert_eq!(bob.next().await, delivery(2, 2, &alice, "alice", b"next"));
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
    let relay = relay(&issuer).await;
    let (mut alice, bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    send_at_once(&mut alice, &bob, 250).await;
    assert_eq!(alice.closed().await, code(4201, "violation"));
}

// docs/protocol.md §5.2
#[tokio::test]
async fn messages_of_one_record_arrive_in_its_order() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (mut alice, mut bob) = (
        Device::join(&relay, &issuer, "alice").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let bodies: Vec<[u8; 1]> = (1..=50).map(|body| [body]).collect();
    let parts: Vec<_> = bodies
        .iter()
        .map(|body| {
            [Part {
                device: bob.id(),
                message: body,
            }]
        })
        .collect();
    let frames: Vec<_> = parts
        .iter()
        .zip(1..)
        .map(|(parts, number)| {
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
    alice.say_all(&frames).await;
    for number in 1..=50 {
        assert_eq!(
            bob.next().await,
            delivery(number.into(), number, &alice, "alice", &[number])
        );
    }
    for _ in 1..=50 {
        assert_accepted(&alice.next().await);
    }
}

// docs/protocol.md §5.3
#[tokio::test]
async fn recipient_that_is_not_permitted_looks_the_same_whether_or_not_it_exists() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let bob = Device::join(&relay, &issuer, "bob").await;
    let key = new_key();
    let token = issuer.token_limited("alice", &key, &json!({ "to": ["carol", "team-*"] }));
    let (mut alice, _) = Device::connect(&relay, key, token).await;
    for user in ["bob", "nobody", "caro", "carol2", "team"] {
        assert_eq!(
            refused(alice.send(user, 1, &[bob.id()], b"x").await),
            RefusalCode::NotPermitted,
            "{user}"
        );
        assert_eq!(
            refused(alice.fetch(user, true).await),
            RefusalCode::NotPermitted,
            "{user}"
        );
    }
    for user in ["carol", "team-1"] {
        assert_eq!(
            refused(alice.send(user, 1, &[bob.id()], b"x").await),
            RefusalCode::UnknownUser,
            "{user}"
        );
        assert_eq!(
            refused(alice.fetch(user, true).await),
            RefusalCode::UnknownUser,
            "{user}"
        );
    }
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
    deaf.say(&ToRelay::Ack { position: 1 }).await;
    let everything = issuer.token("carol", &deaf.key);
    assert_accepted(&deaf.refresh(&everything).await);
    assert_eq!(deaf.next().await, delivery(1, 1, &bob, "bob", b"kept"));
}

// docs/protocol.md §5.2
#[tokio::test]
async fn send_that_is_not_for_exactly_the_recipients_devices_is_refused() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let (mut phone, laptop) = (
        Device::join(&relay, &issuer, "bob").await,
        Device::join(&relay, &issuer, "bob").await,
    );
    let stranger = new_key().thumbprint();
    let wrong: [&[Thumbprint]; 5] = [
        &[phone.id()],
        &[stranger],
        &[phone.id(), laptop.id(), stranger],
        &[phone.id(), stranger],
        &[phone.id(), phone.id()],
    ];
    for devices in wrong {
        assert_eq!(
            refused(alice.send("bob", 1, devices, b"x").await),
            RefusalCode::DevicesChanged,
            "{devices:?}"
        );
    }
    assert_accepted(&alice.send("bob", 1, &[laptop.id(), phone.id()], b"x").await);
    // To their own user a device writes to the others.
    assert_eq!(phone.next().await, Said::DeviceChanged("bob".into()));
    assert_eq!(phone.next().await, delivery(1, 1, &alice, "alice", b"x"));
    assert_eq!(
        refused(phone.send("bob", 2, &[phone.id(), laptop.id()], b"x").await),
        RefusalCode::DevicesChanged
    );
    assert_accepted(&phone.send("bob", 2, &[laptop.id()], b"x").await);
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
    assert_eq!(
        refused(phone.remove(laptop.id()).await),
        RefusalCode::UnknownDevice
    );
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
    alice.send_bytes(vec![4; (2 << 20) + 4 + 1 + 16 + 1]).await;
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
    let longer = issuer.token("bob", &bob.key);
    assert_accepted(&bob.refresh(&longer).await);
    assert_eq!(alice.closed().await, code(4101, "token_expired"));
    bob.nothing_waits().await;
}

#[tokio::test]
async fn accepted_mail_outlives_the_relay() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        issuer
            .configure(Relay::builder(directory.path()))
            .bind("127.0.0.1:0")
            .await
            .unwrap()
    };
    let relay = start().await;
    let (identity, mut alice) = (
        relay.thumbprint(),
        Device::join(&relay, &issuer, "alice").await,
    );
    let bob = Device::join(&relay, &issuer, "bob").await;
    let Device {
        key, token, socket, ..
    } = bob;
    drop(socket);
    assert_accepted(&alice.send("bob", 1, &[key.thumbprint()], b"durable").await);
    within(relay.shutdown()).await;

    let relay = start().await;
    assert_eq!(relay.thumbprint(), identity);
    let (mut bob, ready) = Device::connect(&relay, key, token).await;
    assert!(matches!(
        ready,
        Said::Ready {
            has_card: true,
            head: 1,
            ..
        }
    ));
    assert_eq!(
        bob.next().await,
        delivery(1, 1, &alice, "alice", b"durable")
    );
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
