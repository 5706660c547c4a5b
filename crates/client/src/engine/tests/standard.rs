//! Messages in standard JWE, from a backend that has no session with anybody.

use sealwire_e2e::card::UnverifiedCard;
use sealwire_e2e::content::Body;
use sealwire_e2e::standard;

use super::*;
use crate::message::{MessageId, Received};

/// A device that only ever sends.
struct Backend {
    keys: DeviceKeys,
    own: OwnIdentity,
    user: &'static str,
}

impl Backend {
    fn new(user: &'static str) -> Self {
        Self::with(user, DeviceKeys::generate(&mut rand::rng()))
    }

    fn with(user: &'static str, keys: DeviceKeys) -> Self {
        let token = token(&issuer_key(), user, keys.thumbprint(), START.seconds(), DAY);
        let own = OwnIdentity::new(&keys, &token).unwrap();
        Self { keys, own, user }
    }

    /// What the relay delivers of a message to bob, who is the only one of his name.
    fn sends_bob(&self, relay: &mut ToyRelay, id: [u8; 16], text: &str) -> Held {
        let card = &relay.users["bob"][0].card;
        let issuer = trusted_issuer();
        let card = UnverifiedCard::parse(card.as_bytes())
            .and_then(|card| card.verify(&*issuer.keys, &policy(&issuer, START), None))
            .unwrap();
        let body = Body {
            media_type: "text/plain",
            bytes: text.as_bytes(),
        };
        let (rng, now) = (&mut rand::rng(), START.seconds());
        let sealed = standard::seal(&self.keys, &self.own, &card, id, &body, rng, now);
        relay.next_position += 1;
        Held {
            position: relay.next_position,
            id,
            user: self.user.to_owned(),
            device: self.keys.thumbprint(),
            message: sealed.unwrap().into_bytes(),
        }
    }
}

fn undecryptable(held: &Held) -> Event {
    Event::Undecryptable {
        id: MessageId(held.id),
        user: held.user.as_str().into(),
        device: held.device,
    }
}

#[test]
fn message_of_a_backend_is_shown_once_with_its_sender_and_as_one_without_forward_secrecy() {
    let (mut relay, _, mut bob) = alice_and_bob();
    let backend = Backend::new("shop");
    let held = backend.sends_bob(&mut relay, [7; 16], "your parcel");
    give(&mut bob, &held);
    let Some(Event::Message(received)) = bob.events().pop() else {
        panic!()
    };
    let expected = Received {
        id: MessageId([7; 16]),
        from: "shop".into(),
        device: backend.keys.thumbprint(),
        sent_at: START.0,
        redelivered: false,
        forward_secrecy: false,
        message: Message::new("text/plain", "your parcel"),
        handle: None,
    };
    assert_eq!(received, expected);
    // The same request once more, sealed anew; and what the relay makes up for it.
    bob.crash();
    relay.connect(&mut bob);
    let again = backend.sends_bob(&mut relay, [7; 16], "your parcel");
    let damaged = Held {
        position: again.position + 1,
        message: b"e.....".to_vec(),
        ..held
    };
    give(&mut bob, &again);
    give(&mut bob, &damaged);
    assert_eq!(bob.events(), []);
    assert_eq!(bob.engine.position(), damaged.position);
}

#[test]
fn message_of_a_session_says_that_it_has_forward_secrecy() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    let [Event::Message(received)] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(received.forward_secrecy);
}

/// Bob has written to alice, whose other device the backend is: any session's message would be confirmed.
#[test]
fn backend_hears_neither_that_its_message_has_arrived_nor_that_it_was_read() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let backend = Backend::new("alice");
    let held = backend.sends_bob(&mut relay, [7; 16], "hello");
    give(&mut bob, &held);
    while let Some(Given { event, number }) = bob.engine.next_event() {
        if let Event::Message(received) = &event {
            received.read();
        }
        match number {
            Some(number) => bob.engine.event_taken(number),
            None => bob.engine.passed(),
        }
    }
    bob.settle();
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(relay.sent, []);
}

#[test]
fn message_that_does_not_verify_is_told_and_passed_and_not_asked_for() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let backend = Backend::new("alice");
    let good = backend.sends_bob(&mut relay, [7; 16], "hello");
    // Of another user, of another device, under another id, and nothing at all.
    for (at, edit) in (0..).zip([
        (|held| held.user = "carol".to_owned()) as fn(&mut Held),
        |held| held.device = Thumbprint::from_bytes([1; 32]),
        |held| held.id = [9; 16],
        |held| held.message.truncate(40),
    ]) {
        let mut held = Held {
            id: [at; 16],
            position: good.position + u64::from(at),
            ..good.clone()
        };
        if at < 2 {
            held.id = good.id;
        }
        edit(&mut held);
        give(&mut bob, &held);
        assert_eq!(bob.events(), [undecryptable(&held)]);
        assert_eq!(bob.engine.position(), held.position);
    }
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(relay.sent, []);
    // What the relay has made of it hides nothing.
    let good = Held {
        position: good.position + 10,
        ..good
    };
    give(&mut bob, &good);
    assert!(bob.texts().contains(&"hello".to_owned()));
}

#[test]
fn backend_of_a_user_with_other_devices_is_a_change_of_devices() {
    let (mut relay, _, mut bob) = acquainted();
    let backend = Backend::new("alice");
    let held = backend.sends_bob(&mut relay, [7; 16], "hello");
    give(&mut bob, &held);
    let events = bob.events();
    assert_eq!(
        events[0],
        Event::PeerChanged {
            user: "alice".into(),
            added: vec![backend.keys.thumbprint()],
            removed: vec![],
            was_verified: false,
        }
    );
    assert!(matches!(&events[1..], [Event::Message(_)]));
}

/// A device is one user's for good: what its key signs with another attestation is refused.
#[test]
fn device_of_a_session_is_not_taken_for_another_users() {
    let (mut relay, alice, mut bob) = acquainted();
    let keys = DeviceKeys::decode(&alice.engine.keys.encode()).unwrap();
    let backend = Backend::with("mallory", keys);
    let held = backend.sends_bob(&mut relay, [7; 16], "hello");
    give(&mut bob, &held);
    assert_eq!(bob.events(), [undecryptable(&held)]);
}
