//! A relay that does not do what it should: it drops, repeats, changes and invents messages, says they are from somebody else, and gives
//! other people's devices. Here it is the same relay with its store tampered with while it stood still.
//!
//! It can withhold. It cannot make a device show what its peer did not write, write to a device that the issuer does not attest,
//! or stop taking messages.

use sealwire_client::error::CardFault;
use sealwire_client::{Error, Event, MessageId, Thumbprint};
use sealwire_protocol::name::User;
use sealwire_server::directory::{Directory, VerifiedCard};
use sealwire_server::mail::{Delivery, Mail, Mailboxes, Posting};
use sealwire_server::policy::Allowance;
use sealwire_server::storage::Storage;
use sealwire_tests::{Account, Device, Town, now, within};

#[tokio::test]
async fn nonsense_from_the_relay_is_passed_over() {
    let scene = Scene::new(["the real one"]).await;
    let alice = scene.alice.thumbprint();
    let real = scene.held()[0].message.to_vec();
    let changed = |at: usize| {
        let mut message = real.clone();
        message[at] ^= 1;
        message
    };
    let nonsense = [
        vec![0],
        vec![1; 200],
        real[..real.len() - 1].to_vec(),
        [real.as_slice(), &[0]].concat(),
        changed(0),               // version
        changed(1),               // kind
        changed(2),               // session
        changed(18),              // ratchet key
        changed(53),              // pn
        changed(57),              // n
        changed(58),              // iv
        changed(real.len() - 20), // ciphertext
        changed(real.len() - 1),  // tag
    ];
    let mut ids = Vec::new();
    for message in nonsense {
        ids.push(scene.add("alice", alice, message).await);
    }
    let (alice, bob) = scene.goes_on().await;
    assert_eq!(bob.text().await.1, "the real one");
    for id in ids {
        assert_eq!(
            undecryptable(&bob).await,
            (id, "alice".into(), alice.thumbprint())
        );
    }
    alice.send("bob", "and another real one").await;
    assert_eq!(bob.text().await.1, "and another real one");
    bob.send("alice", "heard both").await;
    assert_eq!(alice.text().await.1, "heard both");
}

#[tokio::test]
async fn message_that_the_relay_repeats_under_another_id_is_shown_once() {
    let scene = Scene::new(["once"]).await;
    let real = scene.held()[0].message.to_vec();
    let id = scene.add("alice", scene.alice.thumbprint(), real).await;
    let (alice, bob) = scene.goes_on().await;
    assert_eq!(bob.text().await.1, "once");
    assert_eq!(undecryptable(&bob).await.0, id);
    alice.send("bob", "twice").await;
    assert_eq!(bob.text().await.1, "twice");
}

/// The relay says who sent a message; the session knows better.
#[tokio::test]
async fn message_is_not_shown_as_somebody_elses() {
    let scene = Scene::new(["I am alice"]).await;
    let real = scene.held()[0].message.to_vec();
    let (alice, carol) = (scene.alice.thumbprint(), scene.carol.thumbprint());
    let mut ids = Vec::new();
    for (user, device) in [
        ("carol", carol),
        ("carol", alice),
        ("alice", carol),
        ("bob", alice),
        ("mallory", alice),
    ] {
        ids.push(scene.add(user, device, real.clone()).await);
    }
    let (alice, bob) = scene.goes_on().await;
    assert_eq!(bob.text().await, ("alice".into(), "I am alice".into()));
    for id in ids {
        assert_eq!(undecryptable(&bob).await.0, id);
    }
    alice.send("bob", "still me").await;
    assert_eq!(bob.text().await, ("alice".into(), "still me".into()));
}

#[tokio::test]
async fn message_that_the_relay_drops_is_missed() {
    let scene = Scene::new(["dropped", "delivered"]).await;
    let [_, second] = scene.held().try_into().unwrap();
    scene.mailboxes.remove(&scene.bob, 0).unwrap();
    scene
        .add_under(
            second.id,
            "alice",
            second.from_device,
            second.message.to_vec(),
        )
        .await;
    let (alice, bob) = scene.goes_on().await;
    let gap = bob.next("the gap", |event| match event {
        Event::Gap {
            user,
            device,
            missing,
        } => Some((user, device, missing)),
        Event::Message(received) => panic!("shown before the gap: {received:?}"),
        _ => None,
    });
    assert_eq!(gap.await, ("alice".into(), alice.thumbprint(), 1));
    assert_eq!(bob.text().await.1, "delivered");
}

/// docs/protocol.md §6.1: the attestation in a card says whose it is.
#[tokio::test]
async fn device_of_somebody_else_is_not_taken_for_the_recipients() {
    let scene = Scene::new(["before"]).await;
    let (carol, bob) = (User::new("carol").unwrap(), User::new("bob").unwrap());
    let theirs = within(
        "carol's card",
        scene.directory().cards(&carol, false, None, now()),
    )
    .await
    .unwrap();
    let card = VerifiedCard {
        id: u32::MAX,
        issued: now(),
        attested: now(),
        card: theirs[0].card.clone(),
    };
    // Under a device that does not exist: the store would notice carol's own.
    let device = Thumbprint::from_bytes([7; 32]);
    within(
        "the swap",
        scene.directory().publish_card(&bob, &device, card),
    )
    .await
    .unwrap();
    let (alice, bob) = scene.goes_on().await;
    assert_eq!(bob.text().await.1, "before");
    let error = alice.cannot_send("bob", "for bob only").await;
    assert!(
        matches!(error, Error::Card(CardFault::OtherUser)),
        "{error:?}"
    );
    let error = within("an answer", alice.client.devices("bob"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Card(CardFault::OtherUser)),
        "{error:?}"
    );
}

#[tokio::test]
async fn card_that_nobody_signed_is_refused() {
    let scene = Scene::new(["before"]).await;
    let card = VerifiedCard {
        id: 1,
        issued: now(),
        attested: now(),
        card: b"a.b.c".to_vec(),
    };
    let (bob, device) = (User::new("bob").unwrap(), Thumbprint::from_bytes([7; 32]));
    within(
        "the swap",
        scene.directory().publish_card(&bob, &device, card),
    )
    .await
    .unwrap();
    let (alice, _bob) = scene.goes_on().await;
    let error = alice.cannot_send("bob", "for bob only").await;
    assert!(
        matches!(error, Error::Card(CardFault::Invalid)),
        "{error:?}"
    );
}

/// Alice and bob have a session, and carol is there too. Bob is away, alice has written to him, and the relay stands still.
struct Scene {
    town: Town,
    storage: Storage,
    mailboxes: Mailboxes,
    alice: Device,
    carol: Device,
    away: Account,
    bob: Thumbprint,
    sent: Vec<MessageId>,
}

impl Scene {
    async fn new<const N: usize>(texts: [&str; N]) -> Self {
        let mut town = Town::new().await;
        let (alice, bob, carol) = (
            town.join("alice").await,
            town.join("bob").await,
            town.join("carol").await,
        );
        alice.send("bob", "hello").await;
        assert_eq!(bob.text().await.1, "hello");
        let receipt = bob.send("alice", "hello back").await;
        assert_eq!(alice.text().await.1, "hello back");
        within("the receipt", receipt.delivered()).await.unwrap();
        let device = bob.thumbprint();
        let away = bob.leave().await;
        let mut sent = Vec::new();
        for text in texts {
            sent.push(alice.send("bob", text).await.id());
        }
        town.stop().await;
        let (storage, mailboxes) = (town.stored(), town.mailboxes());
        Self {
            town,
            storage,
            mailboxes,
            alice,
            carol,
            away,
            bob: device,
            sent,
        }
    }

    /// The relay's directory. The store is open for as long as it is there.
    fn directory(&self) -> Directory {
        Directory::new(self.storage.clone())
    }

    /// What alice wrote while bob was away, as it waits for him. The last receipt of before may wait there too.
    fn held(&self) -> Vec<Mail> {
        let batch = self.mailboxes.read(&self.bob, 0, usize::MAX, usize::MAX, 0);
        let of_alice = |mail: &Mail| self.sent.iter().any(|id| *id.as_bytes() == mail.id);
        let mail = batch.unwrap().deliveries.into_iter();
        mail.filter_map(|delivery| match delivery {
            Delivery::Mail(mail) => Some(mail),
            Delivery::Undelivered(_) | Delivery::Damaged { .. } => None,
        })
        .filter(of_alice)
        .collect()
    }

    /// Adds a message to bob's mailbox, as if `device` of `user` had sent it.
    async fn add(&self, user: &str, device: Thumbprint, message: Vec<u8>) -> [u8; 16] {
        let id = rand::random();
        self.add_under(id, user, device, message).await;
        id
    }

    async fn add_under(&self, id: [u8; 16], user: &str, device: Thumbprint, message: Vec<u8>) {
        let (from_user, to_user) = (User::new(user).unwrap(), User::new("bob").unwrap());
        let posting = Posting {
            from_user: &from_user,
            from_device: device,
            sequence: self.mailboxes.sent(&device) + 1,
            id,
            to_user: &to_user,
            parts: vec![(self.bob, message.into())],
            copies: Vec::new(),
        };
        let limits = Allowance::default().mailbox;
        let appended = self.mailboxes.append(posting, limits, now() * 1_000);
        within("the added message", appended.unwrap().accepted())
            .await
            .unwrap();
    }

    /// The relay runs again, and bob comes back.
    async fn goes_on(mut self) -> (Device, Device) {
        let stores = (self.storage, self.mailboxes);
        within(
            "the stores to close",
            tokio::task::spawn_blocking(move || drop(stores)),
        )
        .await
        .unwrap();
        self.town.start().await;
        // It lives as long as the process, and with it its relay.
        Box::leak(Box::new(self.town));
        (self.alice, self.away.arrive().await)
    }
}

/// The next message that bob cannot open.
async fn undecryptable(bob: &Device) -> ([u8; 16], String, Thumbprint) {
    let pick = |event| match event {
        Event::Undecryptable { id, user, device } => Some((id, user, device)),
        Event::Message(received) => panic!("it was opened: {received:?}"),
        _ => None,
    };
    let (id, user, device): (MessageId, _, _) =
        bob.next("a message that cannot be opened", pick).await;
    (*id.as_bytes(), user.to_string(), device)
}
