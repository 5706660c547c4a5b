//! The client against the real relay, over real TLS and WebSocket on loopback.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by it what has to succeed"
)]

use std::path::Path;
use std::time::Duration;

use sealwire_client::error::{NotAuthorised, Refusal};
use sealwire_client::{
    Client, ClientBuilder, ConnectionState, Error, Event, FileStore, MemoryStore, Message,
    Received, StoreKey, Tls, TrustedIssuer,
};
use sealwire_protocol::invite::Invitation;
use sealwire_server::Relay;

const HOUR: Duration = Duration::from_secs(3_600);

async fn relay(folder: &Path) -> Relay {
    Relay::builder(folder).bind("127.0.0.1:0").await.unwrap()
}

fn key() -> StoreKey {
    StoreKey::from_bytes([1; 32])
}

/// A builder with everything of an invitation but its code.
fn enrolled(invitation: &Invitation) -> ClientBuilder {
    let issuer = TrustedIssuer::built_in(invitation.relay.issuer_key.as_bytes());
    Client::builder(&invitation.relay.address.to_string())
        .issuer(issuer.unwrap())
        .tls(Tls::Pinned(invitation.relay.certificate.unwrap()))
}

async fn join(relay: &Relay, user: &str) -> Client {
    let line = relay.invite(user, HOUR).await.unwrap().to_line();
    Client::invited(&line)
        .unwrap()
        .store(MemoryStore::new(), key())
        .connect()
        .await
        .unwrap()
}

async fn event(client: &Client, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = client.next().await.unwrap();
        if wanted(&event) {
            return event;
        }
    }
}

async fn message(client: &Client) -> Received {
    let event = event(client, |event| matches!(event, Event::Message(_))).await;
    let Event::Message(received) = event else {
        panic!("{event:?}")
    };
    received.ack();
    received
}

/// Bob writes to alice first: nobody is told what a stranger has received.
async fn hello(bob: &Client, alice: &Client) {
    bob.send("alice", Message::text("hello")).await.unwrap();
    message(alice).await;
}

async fn state(client: &Client, wanted: impl Fn(&ConnectionState) -> bool) {
    event(
        client,
        |event| matches!(event, Event::Connection(state) if wanted(state)),
    )
    .await;
}

#[tokio::test]
async fn two_devices_join_and_exchange_messages() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let (alice, bob) = (join(&relay, "alice").await, join(&relay, "bob").await);
    hello(&bob, &alice).await;
    let receipt = alice.send("bob", Message::text("hello bob")).await.unwrap();
    let id = receipt.id();
    let received = message(&bob).await;
    assert_eq!(
        (received.id, &*received.from, received.device),
        (id, "alice", alice.device_thumbprint())
    );
    assert_eq!(received.message.as_text(), Some("hello bob"));
    receipt.delivered().await.unwrap();
    bob.send("alice", Message::new("application/json", *b"{}"))
        .await
        .unwrap();
    let answer = message(&alice).await;
    assert_eq!(
        (answer.message.media_type(), answer.message.body()),
        ("application/json", b"{}".as_slice())
    );
    let number = alice.safety_number("bob").await.unwrap();
    assert_eq!(number, bob.safety_number("alice").await.unwrap());
    alice.mark_verified("bob", &number).await.unwrap();
    alice
        .send("bob", Message::text("to a verified bob"))
        .await
        .unwrap();
    assert_eq!(
        message(&bob).await.message.as_text(),
        Some("to a verified bob")
    );
}

#[tokio::test]
async fn message_to_a_device_that_is_away_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let alice = join(&relay, "alice").await;
    let invitation = relay.invite("bob", HOUR).await.unwrap();
    let path = folder.path().join("bob.store");
    let open = || FileStore::open(&path).unwrap();
    let bob = Client::invited(&invitation.to_line())
        .unwrap()
        .store(open(), key())
        .connect()
        .await
        .unwrap();
    hello(&bob, &alice).await;
    bob.close().await;
    let receipt = alice
        .send("bob", Message::text("while you were away"))
        .await
        .unwrap();
    let bob = enrolled(&invitation)
        .store(open(), key())
        .connect()
        .await
        .unwrap();
    assert_eq!(
        message(&bob).await.message.as_text(),
        Some("while you were away")
    );
    receipt.delivered().await.unwrap();
}

#[tokio::test]
async fn new_device_of_a_user_is_announced_and_gets_messages_too() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let (alice, bob) = (join(&relay, "alice").await, join(&relay, "bob").await);
    alice.send("bob", Message::text("1")).await.unwrap();
    let second = join(&relay, "bob").await;
    alice.send("bob", Message::text("2")).await.unwrap();
    let changed = event(&alice, |event| matches!(event, Event::PeerChanged { .. })).await;
    assert!(
        matches!(&changed, Event::PeerChanged { added, .. } if *added == [second.device_thumbprint()]),
        "{changed:?}"
    );
    assert_eq!(message(&second).await.message.as_text(), Some("2"));
    assert_eq!(message(&bob).await.message.as_text(), Some("1"));
    assert_eq!(message(&bob).await.message.as_text(), Some("2"));
    // And what one of bob's devices sends, the other one has as a copy.
    bob.send("alice", Message::text("3")).await.unwrap();
    let copy = event(&second, |event| matches!(event, Event::Copy { .. })).await;
    assert!(
        matches!(&copy, Event::Copy { to, message } if &**to == "alice" && message.message.as_text() == Some("3"))
    );
}

#[tokio::test]
async fn relay_that_restarts_loses_nothing_and_the_client_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let first = relay(folder.path()).await;
    let address = first.local_addr();
    let (alice, bob) = (join(&first, "alice").await, join(&first, "bob").await);
    hello(&bob, &alice).await;
    first.shutdown().await;
    state(&alice, |state| {
        matches!(state, ConnectionState::Waiting { .. })
    })
    .await;
    let (sender, text) = (alice.clone(), "sent while the relay was down");
    let sending = tokio::spawn(async move { sender.send("bob", Message::text(text)).await });
    let _second = Relay::builder(folder.path()).bind(address).await.unwrap();
    sending.await.unwrap().unwrap().delivered().await.unwrap();
    assert_eq!(message(&bob).await.message.as_text(), Some(text));
}

#[tokio::test]
async fn invitation_works_for_one_device_only() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let line = relay.invite("alice", HOUR).await.unwrap().to_line();
    let builder = || {
        Client::invited(&line)
            .unwrap()
            .store(MemoryStore::new(), key())
    };
    let _alice = builder().connect().await.unwrap();
    let error = builder().connect().await.unwrap_err();
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::Credential)),
        "{error:?}"
    );
}

#[tokio::test]
async fn device_that_never_joined_is_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let invitation = relay.invite("alice", HOUR).await.unwrap();
    let builder = enrolled(&invitation)
        .store(MemoryStore::new(), key())
        .invite(&[7; 16]);
    let error = builder.connect().await.unwrap_err();
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::Credential)),
        "{error:?}"
    );
}

#[tokio::test]
async fn message_to_nobody_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let alice = join(&relay, "alice").await;
    let error = alice
        .send("nobody", Message::text("hello"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Refused(Refusal::UnknownUser | Refusal::NotPermitted)
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn closed_client_answers_that_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let relay = relay(folder.path()).await;
    let alice = join(&relay, "alice").await;
    alice.clone().close().await;
    assert!(matches!(
        alice.send("bob", Message::text("x")).await,
        Err(Error::Closed(_))
    ));
    assert!(alice.next().await.is_none());
}
