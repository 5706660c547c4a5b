//! What is revoked while people talk: links end at once, cards go, peers know, and nobody else notices.
#![expect(
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

use std::io::Write as _;
use std::path::PathBuf;

use sealwire_client::error::{NotAuthorised, Refusal};
use sealwire_client::{Closed, ConnectionState, Error, Event, Thumbprint};
use sealwire_protocol::name::User;
use sealwire_server::revocations::{self, Revocation};
use sealwire_server::{Relay, RelayError};
use sealwire_tests::{Device, Issuer, Town, Wish, now, within};

/// Waits until the device's client has ended, and gives the reason.
async fn ends(device: &Device) -> NotAuthorised {
    let over = async { while device.client.next().await.is_some() {} };
    within("the link to be closed", over).await;
    let state = device.client.connection();
    let ConnectionState::Closed(Closed::NotAuthorised(reason)) = state else {
        panic!("{state:?}");
    };
    reason
}

async fn is_shut_out(device: &Device) {
    assert_eq!(ends(device).await, NotAuthorised::Revoked);
}

fn is_revoked(error: &Error) -> bool {
    matches!(error, Error::NotAuthorised(NotAuthorised::Revoked))
}

/// Which devices the next event says are gone.
async fn removal(device: &Device) -> Vec<Thumbprint> {
    let gone = |event| match event {
        Event::PeerChanged { removed, .. } if !removed.is_empty() => Some(removed),
        _ => None,
    };
    device.next("the removal", gone).await
}

async fn hears_of_removal(device: &Device, removed: Thumbprint) {
    assert_eq!(removal(device).await, [removed]);
}

/// Waits until the device's link was lost, and there is another.
async fn is_back(device: &Device) {
    let mut was_lost = false;
    let is_back = |event| match event {
        Event::Connection(ConnectionState::Connected) if was_lost => Some(()),
        Event::Connection(_) => {
            was_lost = true;
            None
        }
        _ => None,
    };
    device.next("the next connection", is_back).await;
}

fn file(town: &Town) -> PathBuf {
    town.data().join("revocations.jsonl")
}

async fn town_with_alice() -> (Issuer, Town, Device) {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    let alice = joined(&town, &issuer, "alice").await;
    (issuer, town, alice)
}

async fn joined(town: &Town, issuer: &Issuer, user: &str) -> Device {
    let credential = issuer.grants(Wish::of(user));
    town.account(issuer.trusted(), credential).arrive().await
}

#[tokio::test]
async fn revoked_device_loses_its_link_and_its_peers_know() {
    let (issuer, mut town, alice) = town_with_alice().await;
    let bob = joined(&town, &issuer, "bob").await;
    let lost = joined(&town, &issuer, "bob").await;
    alice.meet("bob", &bob, "alice").await;

    // As another process does it.
    revocations::append(&file(&town), &Revocation::Device(lost.thumbprint())).unwrap();
    is_shut_out(&lost).await;
    hears_of_removal(&alice, lost.thumbprint()).await;
    alice.send("bob", "to one").await;
    assert_eq!(bob.text().await.1, "to one");
    let account = lost.leave().await;
    assert!(is_revoked(&account.is_refused().await));
    town.stop().await;
    town.start().await;
    assert!(is_revoked(&account.is_refused().await));
    alice.send("bob", "to one").await;
    assert_eq!(bob.text().await.1, "to one");
}

#[tokio::test]
async fn revoked_user_is_shut_out_until_the_line_is_taken_out() {
    let (issuer, town, alice) = town_with_alice().await;
    let (one, two) = (
        joined(&town, &issuer, "mallory").await,
        joined(&town, &issuer, "mallory").await,
    );
    alice.send("mallory", "hello").await;
    let mallory = Revocation::User(User::new("mallory").unwrap());
    town.relay().revoke(mallory).await.unwrap();
    is_shut_out(&one).await;
    is_shut_out(&two).await;
    let mut gone = [one.thumbprint(), two.thumbprint()].to_vec();
    while !gone.is_empty() {
        let removed = removal(&alice).await;
        gone.retain(|device| !removed.contains(device));
    }
    let refused = alice.cannot_send("mallory", "hello").await;
    assert!(matches!(refused, Error::Refused(Refusal::UnknownUser)));
    let new = town.account(issuer.trusted(), issuer.grants(Wish::of("mallory")));
    assert!(is_revoked(&new.is_refused().await));

    // Other lines count though one is none.
    let mut lines = std::fs::OpenOptions::new();
    let mut lines = lines.append(true).open(file(&town)).unwrap();
    lines.write_all(b"{\"usr\":\"bob\"}\n").unwrap();
    let bob = joined(&town, &issuer, "bob").await;
    revocations::append(&file(&town), &Revocation::Device(bob.thumbprint())).unwrap();
    is_shut_out(&bob).await;
    assert!(is_revoked(&new.is_refused().await));

    std::fs::write(file(&town), "# nobody\n").unwrap();
    let again = async {
        loop {
            match new.builder().connect().await {
                Ok(client) => return client,
                Err(error) => assert!(is_revoked(&error), "{error:?}"),
            }
        }
    };
    let back = Device::new(within("mallory to be let in", again).await, new.clone());
    alice.send("mallory", "hello again").await;
    assert_eq!(back.text().await.1, "hello again");
    // Devices that were removed stay removed.
    assert!(is_revoked(&one.leave().await.is_refused().await));
}

#[tokio::test]
async fn revoked_token_ends_its_link_and_its_card_and_the_next_one_makes_another() {
    let (issuer, town, alice) = town_with_alice().await;
    let first = Wish {
        id: Some("first"),
        issued: -100,
        ..Wish::of("bob")
    };
    let second = Wish {
        id: Some("second"),
        issued: -50,
        ..Wish::of("bob")
    };
    let with = |wish| issuer.grants_in_turn(vec![wish]);
    let bob = town.account(issuer.trusted(), with(first)).arrive().await;
    alice.meet("bob", &bob, "alice").await;

    let mut bob = bob;
    for (revocation, next) in [
        (Revocation::Token("first".to_owned()), second),
        (
            Revocation::IssuedBefore {
                before: now() - 20,
                user: Some(User::new("bob").unwrap()),
            },
            Wish::of("bob"),
        ),
    ] {
        town.relay().revoke(revocation).await.unwrap();
        // It asks for another token at once, and there is none yet.
        assert_eq!(ends(&bob).await, NotAuthorised::NoToken);
        // Its only device, and gone all the same.
        hears_of_removal(&alice, bob.thumbprint()).await;
        let refused = alice.cannot_send("bob", "nobody there").await;
        assert!(matches!(refused, Error::Refused(Refusal::UnknownUser)));
        // The same device, with the next token, and a card that this one attests.
        let mut account = bob.leave().await;
        account.credential = with(next);
        bob = account.arrive().await;
        alice.send("bob", "hello again").await;
        assert_eq!(bob.text().await.1, "hello again");
        bob.send("alice", "and to you").await;
        assert_eq!(alice.text().await.1, "and to you");
    }
    assert_eq!(alice.client.connection(), ConnectionState::Connected);
}

#[tokio::test]
async fn device_whose_card_is_of_an_older_token_makes_another() {
    let (issuer, town, alice) = town_with_alice().await;
    let first = Wish {
        id: Some("first"),
        ..Wish::of("bob")
    };
    let mut wishes = vec![first];
    wishes.extend(std::iter::repeat_n(Wish::of("bob"), 3));
    let bob = town.account(issuer.trusted(), issuer.grants_in_turn(wishes));
    // Its card stays the one that the first token attests.
    let bob = bob.arrive().await.leave().await.arrive().await;
    alice.meet("bob", &bob, "alice").await;
    let revoked = Revocation::Token("first".to_owned());
    town.relay().revoke(revoked).await.unwrap();
    is_back(&bob).await;
    let bob = bob.leave().await.arrive().await;
    alice.send("bob", "hello again").await;
    assert_eq!(bob.text().await.1, "hello again");
}

#[tokio::test]
async fn who_is_enrolled_comes_back_by_itself_with_a_new_token() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    alice.meet("bob", &bob, "alice").await;
    // The next second, so that the tokens are from before it.
    let joined = now();
    while now() == joined {
        tokio::task::yield_now().await;
    }
    let everything = Revocation::IssuedBefore {
        before: now(),
        user: None,
    };
    town.relay().revoke(everything).await.unwrap();
    // Both at once: of states that come while nobody looks, only the last is told.
    tokio::join!(is_back(&alice), is_back(&bob));
    // Its card is there when a connection is.
    let bob = bob.leave().await.arrive().await;
    alice.send("bob", "hello again").await;
    assert_eq!(bob.text().await.1, "hello again");
}

#[tokio::test]
async fn relay_does_not_start_with_a_line_that_it_does_not_understand() {
    let mut town = Town::new().await;
    town.stop().await;
    std::fs::write(file(&town), "\n{\"tokn\":\"x\"}\n").unwrap();
    let error = Relay::builder(town.data()).bind("127.0.0.1:0").await;
    let error = error.unwrap_err();
    assert!(matches!(error, RelayError::Revocations(_)));
    let said = error.to_string();
    assert!(said.contains("line 2") && said.contains("tokn"), "{said}");
    std::fs::remove_file(file(&town)).unwrap();
    town.start().await;
}
