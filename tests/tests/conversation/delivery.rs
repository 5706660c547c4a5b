//! What is accepted arrives: once, in order, whoever is away meanwhile.

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use sealwire_client::{ConnectionState, Event, Message};
use sealwire_tests::{Town, within};

#[tokio::test]
async fn each_reads_what_the_other_wrote() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);

    let receipt = alice.send("bob", "hello, Bob").await;
    let received = bob.message().await;
    assert_eq!(received.id, receipt.id());
    assert_eq!(
        (&*received.from, received.device),
        ("alice", alice.thumbprint())
    );
    assert_eq!(received.message, Message::text("hello, Bob"));

    bob.send("alice", "hello, Alice").await;
    assert_eq!(alice.text().await, ("bob".into(), "hello, Alice".into()));
}

#[tokio::test]
async fn many_messages_arrive_in_the_order_in_which_they_were_sent() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let texts: Vec<String> = (0..100).map(|number| format!("number {number}")).collect();
    // Several on their way at a time, as many as `join_all` promises to start in order.
    for some in texts.chunks(25) {
        let to_bob = join_all(some.iter().map(|text| alice.send("bob", text)));
        let to_alice = join_all(some.iter().map(|text| bob.send("alice", text)));
        tokio::join!(to_bob, to_alice);
    }
    for text in &texts {
        assert_eq!(bob.text().await.1, *text);
        assert_eq!(alice.text().await.1, *text);
    }
}

#[tokio::test]
async fn message_waits_for_a_device_that_is_away() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let bob = bob.leave().await;
    let first = alice.send("bob", "while you were away").await;
    let second = alice.send("bob", "and again").await;

    let bob = bob.arrive().await;
    for receipt in [first, second] {
        assert_eq!(bob.message().await.id, receipt.id());
    }
}

/// The receipt needs a session back, and so the sender's cards first: leaving at once must not cut that off.
#[tokio::test]
async fn receipt_is_sent_although_the_recipient_leaves_at_once() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    alice.meet("bob", &bob, "alice").await;
    let receipt = alice.send("bob", "just this").await;
    assert_eq!(bob.message().await.id, receipt.id());
    let _away = bob.leave().await;
    within("the receipt", receipt.delivered()).await.unwrap();
}

#[tokio::test]
async fn message_is_not_said_to_be_delivered_before_it_is() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    bob.send("alice", "hello").await;
    alice.message().await;
    let bob = bob.leave().await;
    let receipt = alice.send("bob", "are you there?").await;
    let id = receipt.id();
    let mut delivered = Box::pin(receipt.delivered());
    assert!(delivered.as_mut().now_or_never().is_none(), "bob is away");

    let bob = bob.arrive().await;
    within("the receipt", delivered).await.unwrap();
    let told = alice.next("the event of the receipt", |event| match event {
        Event::Delivered { id, user, device } => Some((id, user, device)),
        _ => None,
    });
    assert_eq!(told.await, (id, "bob".into(), bob.thumbprint()));
}

#[tokio::test]
async fn devices_come_back_by_themselves_when_the_relay_does() {
    let mut town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    alice.send("bob", "before").await;
    assert_eq!(bob.text().await.1, "before");
    town.stop().await;
    alice.next("the loss of the connection", waiting).await;

    let (_, receipt) = tokio::join!(
        town.start(),
        alice.send("bob", "sent while the relay was away")
    );
    let received = bob.message().await;
    assert_eq!(received.id, receipt.id());
    bob.send("alice", "and back").await;
    assert_eq!(alice.text().await.1, "and back");
}

/// Nobody waits for the answers: what was handed over is in the store.
#[tokio::test]
async fn messages_written_while_the_relay_is_away_go_out_after_a_restart_of_their_sender() {
    let mut town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let bob = bob.leave().await;
    town.stop().await;
    alice.next("the loss of the connection", waiting).await;
    let texts = ["one", "two", "three"];
    for text in texts {
        let sending = alice.client.send("bob", Message::text(text));
        assert!(sending.now_or_never().is_none(), "there is no relay");
    }
    let alice = alice.leave().await;

    town.start().await;
    let (_alice, bob) = (alice.arrive().await, bob.arrive().await);
    for text in texts {
        assert_eq!(bob.text().await, ("alice".into(), text.into()));
    }
}

/// Neither has heard of the other, so each starts a session of its own (docs/protocol.md §7.5).
#[tokio::test]
async fn two_who_write_to_each_other_first_at_the_same_time_lose_nothing() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    for round in 0..5 {
        let (to_bob, to_alice) = (format!("to bob {round}"), format!("to alice {round}"));
        let (one, other) = tokio::join!(alice.send("bob", &to_bob), bob.send("alice", &to_alice));
        let (at_bob, at_alice) = tokio::join!(bob.message(), alice.message());
        assert_eq!((at_bob.id, at_alice.id), (one.id(), other.id()));
        assert_eq!(at_bob.message, Message::text(to_bob));
        assert_eq!(at_alice.message, Message::text(to_alice));
    }
}

#[tokio::test]
async fn what_the_relay_has_accepted_survives_its_restart() {
    let mut town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let bob = bob.leave().await;
    let receipt = alice.send("bob", "kept").await;
    alice.leave().await;
    town.stop().await;
    town.start().await;
    assert_eq!(bob.arrive().await.message().await.id, receipt.id());
}

#[tokio::test]
async fn device_goes_on_with_its_session_after_a_restart() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    alice.send("bob", "one").await;
    assert_eq!(bob.text().await.1, "one");
    bob.send("alice", "two").await;
    assert_eq!(alice.text().await.1, "two");

    let (alice, bob) = (
        alice.leave().await.arrive().await,
        bob.leave().await.arrive().await,
    );
    alice.send("bob", "three").await;
    let mut others = Vec::new();
    let received = bob.next("the message after the restart", |event| match event {
        Event::Message(received) => Some(received),
        other => {
            others.push(other);
            None
        }
    });
    assert_eq!(received.await.message, Message::text("three"));
    let session = |event: &&Event| {
        !matches!(
            event,
            Event::Connection(_) | Event::Delivered { .. } | Event::Recovered { .. }
        )
    };
    assert_eq!(
        others.iter().find(session),
        None,
        "no new session, no gap, no new device"
    );
}

#[tokio::test]
async fn message_that_was_taken_is_not_shown_again() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    alice.send("bob", "once").await;
    assert_eq!(bob.text().await.1, "once");
    let bob = bob.leave().await.arrive().await;
    alice.send("bob", "next").await;
    assert_eq!(bob.text().await.1, "next");
}

/// Closing a client is no crash: nothing more is shown, and nothing more is taken.
#[tokio::test]
async fn closed_client_sends_nothing_and_shows_nothing() {
    let town = Town::new().await;
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let handle = alice.client.clone();
    alice.leave().await;
    let error = within("an answer", handle.send("bob", Message::text("too late")))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "closed");
    assert!(
        within("the end of the events", handle.next())
            .await
            .is_none()
    );
    drop(bob);
}

fn waiting(event: Event) -> Option<()> {
    matches!(event, Event::Connection(ConnectionState::Waiting { .. })).then_some(())
}
