//! Users with several devices, and whether they are still who they were.

use sealwire_client::{Closed, ConnectionState, Error, Event, Message, Thumbprint};
use sealwire_tests::{Device, Town, within};

#[tokio::test]
async fn message_reaches_all_devices_of_its_recipient_and_the_senders_others() {
    let town = Town::new().await;
    let (alice, alice_2) = (town.join("alice").await, town.join("alice").await);
    let (bob, bob_2) = (town.join("bob").await, town.join("bob").await);
    let receipt = alice.send("bob", "to all of you").await;
    for device in [&bob, &bob_2] {
        let received = device.message().await;
        assert_eq!(
            (received.id, received.device),
            (receipt.id(), alice.thumbprint())
        );
    }
    let copy = alice_2.next("the copy", |event| match event {
        Event::Copy { to, message } => Some((to, message)),
        _ => None,
    });
    let (to, copy) = copy.await;
    assert_eq!((&*to, &*copy.from, copy.id), ("bob", "alice", receipt.id()));
    assert_eq!(copy.message, Message::text("to all of you"));
}

#[tokio::test]
async fn new_device_of_a_peer_is_told_and_written_to() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    alice.send("bob", "to one device").await;
    assert_eq!(bob.text().await.1, "to one device");

    let bob_2 = town.join("bob").await;
    alice.send("bob", "to two devices").await;
    assert_eq!(
        changed(&alice).await,
        (vec![bob_2.thumbprint()], vec![], false)
    );
    assert_eq!(bob.text().await.1, "to two devices");
    assert_eq!(bob_2.text().await.1, "to two devices");
}

#[tokio::test]
async fn new_and_removed_devices_are_told_to_peers_and_to_the_users_others() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    alice.send("bob", "to one device").await;
    assert_eq!(bob.text().await.1, "to one device");
    let bob_2 = town.join("bob").await;
    let new = bob_2.thumbprint();
    assert_eq!(changed(&bob).await, (vec![new], vec![], false));
    alice.send("bob", "to two devices").await;
    assert_eq!(changed(&alice).await, (vec![new], vec![], false));
    assert_eq!(bob.text().await.1, "to two devices");

    within("the removal", bob.client.remove_device(new))
        .await
        .unwrap();
    assert_eq!(changed(&bob).await, (vec![], vec![new], false));
    alice.send("bob", "to one again").await;
    assert_eq!(changed(&alice).await, (vec![], vec![new], false));
    assert_eq!(bob.text().await.1, "to one again");
}

#[tokio::test]
async fn nothing_is_sent_to_a_verified_user_whose_devices_have_changed() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let number = within("the safety number", alice.client.safety_number("bob"))
        .await
        .unwrap();
    within("the mark", alice.client.mark_verified("bob", &number))
        .await
        .unwrap();
    alice.send("bob", "I know you").await;
    assert_eq!(bob.text().await.1, "I know you");

    let bob_2 = town.join("bob").await;
    let error = alice.cannot_send("bob", "do I know you?").await;
    assert!(matches!(error, Error::PeerChanged), "{error}");
    assert_eq!(
        changed(&alice).await,
        (vec![bob_2.thumbprint()], vec![], true)
    );
    assert!(matches!(
        alice.cannot_send("bob", "really?").await,
        Error::PeerChanged
    ));
    let stale = within("an answer", alice.client.mark_verified("bob", &number)).await;
    assert!(
        matches!(stale, Err(Error::PeerChanged)),
        "it is not their number any more"
    );

    within("an answer", alice.client.accept_change("bob"))
        .await
        .unwrap();
    alice.send("bob", "it is you").await;
    for device in [&bob, &bob_2] {
        assert_eq!(
            device.text().await.1,
            "it is you",
            "and nothing of what was refused"
        );
    }
}

#[tokio::test]
async fn safety_number_is_the_same_on_both_sides_and_no_one_elses() {
    let town = Town::new().await;
    let (alice, bob, carol) = (
        town.join("alice").await,
        town.join("bob").await,
        town.join("carol").await,
    );
    let number = async |device: &Device, user| {
        within("a safety number", device.client.safety_number(user))
            .await
            .unwrap()
    };
    let of_both = number(&alice, "bob").await;
    assert_eq!(of_both, number(&bob, "alice").await);
    assert_ne!(of_both, number(&alice, "carol").await);
    assert_ne!(of_both, number(&carol, "bob").await);
    drop(town.join("bob").await);
    assert_ne!(
        of_both,
        number(&alice, "bob").await,
        "bob has another device"
    );
}

#[tokio::test]
async fn safety_number_of_somebody_else_verifies_nobody() {
    let town = Town::new().await;
    let (alice, bob, _carol) = (
        town.join("alice").await,
        town.join("bob").await,
        town.join("carol").await,
    );
    within("bob's devices", alice.client.devices("bob"))
        .await
        .unwrap();
    let with_carol = within("a safety number", alice.client.safety_number("carol"))
        .await
        .unwrap();
    let error = within("an answer", alice.client.mark_verified("bob", &with_carol))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::PeerChanged), "{error}");
    drop(bob);
}

#[tokio::test]
async fn client_for_verified_users_only_writes_to_no_other() {
    let town = Town::new().await;
    let bob = town.join("bob").await;
    let alice = town.join("alice").await.leave().await;
    let client = within(
        "the connection",
        alice.builder().only_verified(true).connect(),
    )
    .await
    .unwrap();
    let alice = Device::new(client, alice);
    let error = alice.cannot_send("bob", "who are you?").await;
    assert!(matches!(error, Error::PeerUnverified), "{error}");

    let number = within("the safety number", alice.client.safety_number("bob"))
        .await
        .unwrap();
    within("the mark", alice.client.mark_verified("bob", &number))
        .await
        .unwrap();
    alice.send("bob", "now I know").await;
    assert_eq!(bob.text().await.1, "now I know");
}

/// docs/protocol.md §13: 4004, and no retry: two programs with one device would throw each other out for ever.
#[tokio::test]
async fn older_link_of_a_device_is_closed_for_good() {
    let town = Town::new().await;
    let bob = town.join("bob").await.leave().await;
    let copied = bob.copied();
    let bob = bob.arrive().await;
    let copied = copied.arrive().await;
    assert_eq!(copied.thumbprint(), bob.thumbprint());
    let closed = bob.next("the end of the older link", |event| match event {
        Event::Connection(ConnectionState::Closed(closed)) => Some(closed),
        _ => None,
    });
    assert_eq!(closed.await, Closed::Replaced);
    assert!(matches!(
        bob.cannot_send("bob", "still here?").await,
        Error::Closed(Closed::Replaced)
    ));
    assert_eq!(copied.client.connection(), ConnectionState::Connected);
}

/// A device that was put back to an earlier state is found out by what the relay knows: it uses no key again, and the conversation goes on
/// (docs/protocol.md §16).
#[tokio::test]
async fn device_that_was_put_back_is_told_and_goes_on() {
    let town = Town::new().await;
    let bob = town.join("bob").await;
    let alice = town.join("alice").await;
    alice.send("bob", "one").await;
    assert_eq!(bob.text().await.1, "one");
    bob.send("alice", "two").await;
    assert_eq!(alice.text().await.1, "two");
    let alice = alice.leave().await;
    let earlier = alice.copied();

    let alice = alice.arrive().await;
    alice.send("bob", "three").await;
    assert_eq!(bob.text().await.1, "three");
    alice.leave().await;

    let alice = earlier.arrive().await;
    let told = |event| matches!(event, Event::StoreRestored).then_some(());
    alice.next("that the store was put back", told).await;
    alice.send("bob", "three, again").await;
    let not_opened = |event| match event {
        Event::Message(received) => Some(received),
        Event::Undecryptable { .. } => panic!("it was not opened: {event:?}"),
        _ => None,
    };
    let received = bob.next("the message", not_opened).await;
    received.ack();
    assert_eq!(received.message, Message::text("three, again"));
    bob.send("alice", "what did you say?").await;
    assert_eq!(alice.text().await.1, "what did you say?");
    alice.send("bob", "four").await;
    assert_eq!(bob.text().await.1, "four");
}

/// What alice is told of a change of bob's devices: added, removed, and whether he had been verified.
async fn changed(alice: &Device) -> (Vec<Thumbprint>, Vec<Thumbprint>, bool) {
    let pick = |event| match event {
        Event::PeerChanged {
            user,
            added,
            removed,
            was_verified,
        } if *user == *"bob" => Some((added, removed, was_verified)),
        _ => None,
    };
    alice.next("the change of bob's devices", pick).await
}
