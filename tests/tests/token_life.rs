//! The life of a token on a link: one follows the other, and the socket stays (docs/protocol.md §5.4).
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names the events that it is about"
)]

use std::time::Duration;

use sealwire_client::{ConnectionState, Event};
use sealwire_server::policy::Allowance;
use sealwire_tests::{AUDIENCE, Credential, Device, Issuer, Town, Wire, Wish, within};
use tokio::sync::watch;

/// How often the token is replaced.
const REFRESHES: usize = 50;

#[tokio::test]
async fn link_lives_through_fifty_tokens_on_one_socket() {
    let issuer = Issuer::ed25519();
    let configured = issuer.clone();
    let town = Town::with(move |relay| {
        let mut allowance = Allowance::default();
        allowance.refreshes_per_minute = 10 * REFRESHES as u64;
        relay
            .issuer(configured.name(), AUDIENCE, configured.keys())
            .allowance(allowance)
    })
    .await;
    let bob = town
        .account(issuer.trusted(), issuer.grants(Wish::of("bob")))
        .arrive()
        .await;

    // Every token but the last is over when it comes, and good only by the tolerance of §2.2.
    let (given, mut gives) = watch::channel(0);
    let signer = issuer.clone();
    let credential = Credential::tokens(move |device| {
        let mut wish = Wish::of("alice");
        given.send_modify(|given| *given += 1);
        if *given.borrow() <= REFRESHES {
            (wish.issued, wish.expires) = (-3_600, -30);
        }
        Ok(signer.token(device, &wish))
    });
    let wire = Wire::to(town.whereabouts(), town.relay().local_addr()).await;
    let mut account = town.account(issuer.trusted(), credential);
    account.whereabouts = wire.whereabouts().clone();
    let connecting = account.builder().refresh_floor(Duration::ZERO).connect();
    let client = within("the connection", connecting).await.unwrap();
    let alice = Device::new(client, account);

    let last = gives.wait_for(|given| *given > REFRESHES);
    within("the last token", last).await.unwrap();
    alice.send("bob", "still here").await;
    assert_eq!(bob.text().await, ("alice".into(), "still here".into()));
    bob.send("alice", "so am I").await;
    let heard = |event| match event {
        Event::Message(received) => Some(received),
        Event::Connection(state) => {
            assert_eq!(state, ConnectionState::Connected, "the link has ended");
            None
        }
        _ => None,
    };
    let received = alice.next("an answer", heard).await;
    assert_eq!(received.message.as_text(), Some("so am I"));
    assert_eq!(wire.connections(), 1);
}
