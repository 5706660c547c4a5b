//! How much, how often, to whom: limits of the protocol, of the relay and of a token (docs/protocol.md §5.5, §12).

use sealwire_client::Error;
use sealwire_client::Message;
use sealwire_client::error::{Misuse, Refusal};
use sealwire_server::policy::Allowance;
use sealwire_tests::{Device, Issuer, Town, Wish, within};
use serde_json::json;

#[tokio::test]
async fn largest_message_arrives_whole() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let body: Vec<u8> = (0..65_536_u32).map(|index| (index % 251) as u8).collect();
    let message = Message::new("application/octet-stream", body);
    alice.client.send("bob", message.clone()).await.unwrap();
    assert!(bob.message().await.message == message);
}

#[tokio::test]
async fn message_that_no_device_may_send_is_refused_before_it_is_sealed() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    for (message, misuse) in [
        (
            Message::new("application/octet-stream", vec![0; 65_537]),
            Misuse::BodyTooLarge,
        ),
        (Message::new("text", "no subtype"), Misuse::MediaType),
        (
            Message::new("text/plain\n", "a line break"),
            Misuse::MediaType,
        ),
        (Message::new("", "none"), Misuse::MediaType),
        (
            Message::new("x".repeat(256) + "/y", "too long"),
            Misuse::MediaType,
        ),
    ] {
        let error = alice.cannot_send_message("bob", message).await;
        assert!(
            matches!(error, Error::Misuse(found) if found == misuse),
            "{error}"
        );
    }
    alice.send("bob", "the only one").await;
    assert_eq!(bob.text().await.1, "the only one");
}

#[tokio::test]
async fn name_that_no_user_can_have_is_refused() {
    let town = Town::new().await;
    let alice = town.join("alice").await;
    for user in ["", "bob\n", "bob\u{0}", "bob\u{85}", &"b".repeat(256)] {
        let error = alice.cannot_send(user, "hello").await;
        assert!(
            matches!(error, Error::Misuse(Misuse::User)),
            "{user:?}: {error}"
        );
    }
}

#[tokio::test]
async fn message_to_oneself_needs_another_device() {
    let town = Town::new().await;
    let alice = town.join("alice").await;
    let error = alice.cannot_send("alice", "note").await;
    assert!(
        matches!(error, Error::Misuse(Misuse::NoOtherDevice)),
        "{error}"
    );
}

#[tokio::test]
async fn user_without_a_device_is_unknown() {
    let town = Town::new().await;
    let alice = town.join("alice").await;
    let error = alice.cannot_send("nobody", "hello").await;
    assert_eq!(error.code(), "unknown_user");
    assert!(
        matches!(error, Error::Refused(Refusal::UnknownUser)),
        "{error}"
    );
}

/// Full is an error to the sender, never a silent drop.
#[tokio::test]
async fn full_mailbox_is_the_senders_to_know() {
    let town = Town::with(|relay| {
        let mut allowance = Allowance::default();
        allowance.mailbox.messages = 2;
        relay.allowance(allowance)
    });
    let town = town.await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let bob = bob.leave().await;
    alice.send("bob", "one").await;
    alice.send("bob", "two").await;
    let error = alice.cannot_send("bob", "three").await;
    assert!(
        matches!(error, Error::Refused(Refusal::MailboxFull)),
        "{error}"
    );
    assert!(error.is_retryable());

    // Without receipts, which would fill alice's mailbox.
    let client = bob.builder().delivery_receipts(false).connect();
    let bob = Device::new(within("the connection", client).await.unwrap(), bob);
    for text in ["one", "two"] {
        assert_eq!(bob.text().await.1, text);
    }
    // Both were acknowledged before anything that is accepted later.
    bob.send("alice", "there is room again").await;
    assert_eq!(alice.text().await.1, "there is room again");
    alice.send("bob", "four").await;
    assert_eq!(bob.text().await.1, "four");
}

#[tokio::test]
async fn token_says_how_large_a_message_may_be() {
    let (alice, bob) = pair(json!([{"type": "sealwire", "max_message_bytes": 10_000}])).await;
    let error = alice.cannot_send("bob", &"long ".repeat(4_000)).await;
    assert!(
        matches!(error, Error::Refused(Refusal::TooLarge)),
        "{error}"
    );
    alice.send("bob", "short").await;
    assert_eq!(bob.text().await.1, "short");
}

#[tokio::test]
async fn token_says_how_often_its_device_may_send() {
    let (alice, bob) = pair(json!([{"type": "sealwire", "messages_per_minute": 2}])).await;
    alice.send("bob", "one").await;
    alice.send("bob", "two").await;
    let error = alice.cannot_send("bob", "three").await;
    assert!(
        matches!(error, Error::Refused(Refusal::RateLimited)),
        "{error}"
    );
    assert!(error.is_retryable());
    assert_eq!(bob.text().await.1, "one");
    assert_eq!(bob.text().await.1, "two");
}

#[tokio::test]
async fn token_says_to_whom_its_device_may_write() {
    let (alice, bob) = pair(json!([{"type": "sealwire", "to": ["bob", "team-*"]}])).await;
    alice.send("bob", "you are on the list").await;
    assert_eq!(bob.text().await.1, "you are on the list");
    for user in ["bobby", "carol", "teams", "team"] {
        let error = alice.cannot_send(user, "you are not").await;
        assert!(
            matches!(error, Error::Refused(Refusal::NotPermitted)),
            "{user}: {error}"
        );
    }
    // On the list, but nobody: that is another answer.
    let error = alice.cannot_send("team-red", "hello").await;
    assert!(
        matches!(error, Error::Refused(Refusal::UnknownUser)),
        "{error}"
    );
}

#[tokio::test]
async fn device_whose_token_lacks_the_scope_does_not_send() {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    let bob = town
        .account(issuer.trusted(), issuer.grants(Wish::of("bob")))
        .arrive()
        .await;
    let alice = town
        .account(issuer.trusted(), issuer.grants(Wish::of("alice")))
        .arrive()
        .await;
    let mut alice = alice.leave().await;
    alice.credential = issuer.grants(Wish {
        scope: "sealwire:receive",
        ..Wish::of("alice")
    });
    let client = within("the connection", alice.builder().connect())
        .await
        .unwrap();
    let alice = Device::new(client, alice);
    let error = alice.cannot_send("bob", "hello").await;
    assert!(
        matches!(error, Error::Refused(Refusal::NotPermitted)),
        "{error}"
    );
    bob.send("alice", "you only listen").await;
    assert_eq!(alice.text().await.1, "you only listen");
}

/// Alice with these `authorization_details`, and bob with none. The town lives as long as the process.
async fn pair(details: serde_json::Value) -> (Device, Device) {
    let issuer = Issuer::ed25519();
    let town = Box::leak(Box::new(Town::of(&issuer).await));
    let wish = Wish {
        details: Some(details),
        ..Wish::of("alice")
    };
    let alice = town
        .account(issuer.trusted(), issuer.grants(wish))
        .arrive()
        .await;
    let bob = town
        .account(issuer.trusted(), issuer.grants(Wish::of("bob")))
        .arrive()
        .await;
    (alice, bob)
}
