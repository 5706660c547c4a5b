//! A relay that changes its key, and devices that follow it (docs/protocol.md §3.9).
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::fs;

use sealwire_client::{Closed, ConnectionState, Error, Event};
use sealwire_protocol::key::Thumbprint;
use sealwire_server::data_dir::DataDir;
use sealwire_tests::{Device, Town, now};

/// Gives a relay that does not run a new key.
fn rotate(town: &Town, overlap_seconds: u64) -> Thumbprint {
    let data = DataDir::open(&town.data()).unwrap();
    data.rotate_relay_key(overlap_seconds, now()).unwrap()
}

async fn follows(device: &Device) -> Thumbprint {
    let pick = |event| match event {
        Event::RelayKeyChanged { relay } => Some(relay),
        _ => None,
    };
    device.next("the relay's new key", pick).await
}

async fn closed(device: &Device) -> Closed {
    let pick = |event| match event {
        Event::Connection(ConnectionState::Closed(closed)) => Some(closed),
        _ => None,
    };
    device.next("the end", pick).await
}

#[tokio::test]
async fn devices_follow_a_relay_to_its_new_key_and_keep_to_it() {
    let mut town = Town::new().await;
    let alice = town.join("alice").await;
    let away = town.join("bob").await.leave().await;
    let stranger = town.invited(&town.invite("mallory").await);
    alice.send("bob", "under the old key").await;
    town.stop().await;
    let old_key = fs::read(town.data().join("relay.key")).unwrap();
    let new = rotate(&town, 3_600);
    assert_ne!(old_key, fs::read(town.data().join("relay.key")).unwrap());
    town.start().await;
    assert_eq!(town.relay().thumbprint(), new);

    // Whoever was there, whoever was away, and somebody with an invitation from before.
    assert_eq!(follows(&alice).await, new);
    let bob = away.arrive().await;
    let text = |text: &str| ("alice".to_owned(), text.to_owned());
    assert_eq!(follows(&bob).await, new);
    assert_eq!(bob.text().await, text("under the old key"));
    alice.send("bob", "under the new key").await;
    assert_eq!(bob.text().await, text("under the new key"));
    let invitation = town.invite("carol").await;
    assert_eq!(invitation.relay.address.relay(), new);
    let late = town.invited(&town.invite("dora").await);
    stranger.arrive().await.leave().await;

    // The overlap is over: those who have followed need nothing more, others do not find the relay any more.
    town.stop().await;
    fs::remove_file(town.data().join("relay.previous")).unwrap();
    town.start().await;
    alice.send("bob", "the overlap is over").await;
    assert_eq!(bob.text().await, text("the overlap is over"));
    let bob = bob.leave().await.arrive().await;
    bob.send("alice", "from a store that was closed").await;
    assert_eq!(alice.text().await.1, "from a store that was closed");
    let refused = late.is_refused().await;
    assert!(matches!(refused, Error::RelayKey { presented, .. } if presented == new));

    // Whoever has the old key is no relay of theirs.
    town.stop().await;
    fs::write(town.data().join("relay.key"), old_key).unwrap();
    town.start().await;
    for device in [alice, bob] {
        assert_eq!(closed(&device).await, Closed::RelayKey);
    }
}

#[tokio::test]
async fn device_that_was_away_for_two_rotations_still_finds_the_relay_and_for_three_not() {
    let mut town = Town::new().await;
    let [once, twice] = [town.join("alice").await, town.join("bob").await];
    let [once, twice] = [once.leave().await, twice.leave().await];
    town.stop().await;
    rotate(&town, 3_600);
    let second = rotate(&town, 3_600);
    town.start().await;
    let once = once.arrive().await;
    assert_eq!(follows(&once).await, second);
    town.stop().await;
    let third = rotate(&town, 3_600);
    town.start().await;
    assert_eq!(follows(&once).await, third);
    let refused = twice.is_refused().await;
    assert!(matches!(refused, Error::RelayKey { .. }), "{refused:?}");
}

#[tokio::test]
async fn successor_that_nobody_has_named_in_time_is_another_relay() {
    let mut town = Town::new().await;
    let alice = town.join("alice").await.leave().await;
    town.stop().await;
    // Signed two days ago, for one of them.
    let data = DataDir::open(&town.data()).unwrap();
    data.rotate_relay_key(86_400, now() - 2 * 86_400).unwrap();
    town.start().await;
    let refused = alice.is_refused().await;
    assert!(matches!(refused, Error::RelayKey { .. }), "{refused:?}");
}
