//! Whom the device trusts: tokens, cards, pinned peers and safety numbers.

use sealwire_e2e::safety::SafetyNumber;
use sealwire_protocol::key::{Seed, SigningKey};

use super::*;
use crate::error::{CardFault, Refusal};
use crate::message::Device;

fn devices(relay: &mut ToyRelay, toy: &mut Toy, user: &str) -> Result<Vec<Device>, Error> {
    let (answer, mut reply) = oneshot::channel();
    toy.engine.devices(user, answer);
    relay.pump(&mut [toy]);
    reply.try_recv().unwrap()
}

fn safety_number(relay: &mut ToyRelay, toy: &mut Toy, user: &str) -> SafetyNumber {
    let (answer, mut reply) = oneshot::channel();
    toy.engine.safety_number(user, answer);
    relay.pump(&mut [toy]);
    reply.try_recv().unwrap().unwrap()
}

fn second_device_of_bob(relay: &mut ToyRelay) -> Toy {
    let mut second = Toy::new("bob");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second]);
    second
}

#[test]
fn token_of_another_device_is_refused() {
    let mut alice = Toy::new("alice");
    let other = token(
        &issuer_key(),
        "alice",
        Thumbprint::from_bytes([1; 32]),
        START.seconds(),
        DAY,
    );
    let refused = alice.engine.handle_token(&other, START);
    assert!(matches!(
        refused,
        Err(Fatal::NotAuthorised(NotAuthorised::OtherDevice))
    ));
}

#[test]
fn token_of_another_user_is_refused() {
    let mut alice = Toy::new("alice");
    let other = token(
        &issuer_key(),
        "mallory",
        alice.device(),
        START.seconds(),
        DAY,
    );
    let refused = alice.engine.handle_token(&other, START);
    assert!(matches!(
        refused,
        Err(Fatal::NotAuthorised(NotAuthorised::OtherUser))
    ));
}

/// docs/protocol.md §2.3
#[test]
fn token_that_peers_would_refuse_is_refused_at_once() {
    let mut alice = Toy::new("alice");
    let wrong_key = SigningKey::from_seed(&Seed::new([43; 32]));
    let forged = token(&wrong_key, "alice", alice.device(), START.seconds(), DAY);
    let old = token(
        &issuer_key(),
        "alice",
        alice.device(),
        START.seconds() - 31 * DAY,
        40 * DAY,
    );
    let later = token(
        &issuer_key(),
        "alice",
        alice.device(),
        START.seconds() + 61,
        DAY,
    );
    for bad in [forged.as_str(), &old, &later, "", "a.b.c"] {
        let refused = alice.engine.handle_token(bad, START);
        assert!(
            matches!(
                refused,
                Err(Fatal::NotAuthorised(NotAuthorised::Attestation))
            ),
            "{bad}"
        );
    }
}

#[test]
fn ready_for_another_user_is_refused() {
    let mut alice = Toy::new("alice");
    alice.user = "mallory";
    let ready = Ready {
        device: alice.device(),
        user: "mallory",
        time: 0,
        token_expires: 0,
        max_message: 1,
        has_card: false,
        prekeys: 0,
        epoch: [0; 16],
        acknowledged: 0,
        head: 0,
        sent: 0,
        waiting: 0,
    };
    let refused = alice.engine.handle_ready(&ready, START);
    assert!(matches!(
        refused,
        Err(Fatal::NotAuthorised(NotAuthorised::OtherUser))
    ));
}

#[test]
fn fresh_token_does_not_make_a_new_card() {
    let (mut relay, mut alice, _) = alice_and_bob();
    let card = relay.register(&alice).card.clone();
    let soon = Moment(START.0 + 3_600_000);
    let newer = token(&issuer_key(), "alice", alice.device(), soon.seconds(), DAY);
    alice.engine.handle_token(&newer, soon).unwrap();
    relay.pump(&mut [&mut alice]);
    assert_eq!(relay.register(&alice).card, card);
}

#[test]
fn card_and_prekeys_are_published_once_and_again_when_the_relay_lost_them() {
    let (mut relay, mut alice, _) = alice_and_bob();
    assert_eq!(relay.register(&alice).prekeys.len(), 100);
    let card = relay.register(&alice).card.clone();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice]);
    assert_eq!(relay.register(&alice).prekeys.len(), 100);
    relay.register(&alice).card.clear();
    relay.register(&alice).prekeys.truncate(19);
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice]);
    assert_ne!(relay.register(&alice).card, card);
    assert_eq!(relay.register(&alice).prekeys.len(), 100);
}

#[test]
fn card_whose_answer_never_came_is_published_again_on_the_next_link() {
    let (mut relay, mut alice, _) = alice_and_bob();
    let old = relay.register(&alice).card.clone();
    let week_later = Moment(START.0 + 7 * DAY * 1_000);
    alice.engine.settle(week_later).unwrap();
    let lost = alice.engine.poll_request();
    assert!(matches!(lost, Some(Request::PublishCard { .. })));
    alice.crash();
    relay.later = 7 * DAY * 1_000;
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice]);
    let new = relay.register(&alice).card.clone();
    assert_ne!(new, old);
    // Not once more, now that it was accepted.
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice]);
    assert_eq!(relay.register(&alice).card, new);
}

#[test]
fn card_that_the_relay_refused_is_replaced_on_the_next_link() {
    let (mut relay, mut alice, _) = alice_and_bob();
    let old = relay.register(&alice).card.clone();
    let week_later = Moment(START.0 + 7 * DAY * 1_000);
    alice.engine.settle(week_later).unwrap();
    let Some(Request::PublishCard { request, .. }) = alice.engine.poll_request() else {
        panic!("no new card after a week");
    };
    let refused = Reply::Refused(RefusalCode::InvalidCard);
    alice
        .engine
        .handle_reply(request, &refused, week_later)
        .unwrap();
    relay.later = 7 * DAY * 1_000;
    relay.pump(&mut [&mut alice]);
    assert_eq!(relay.register(&alice).card, old);
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice]);
    assert_ne!(relay.register(&alice).card, old);
}

/// docs/protocol.md §7
#[test]
fn session_is_not_started_with_an_old_token_and_is_with_a_new_one() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    relay.later = (15 * DAY + 1) * 1_000;
    let mut answer = alice.send("bob", "too late");
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(matches!(
        answer.error(),
        Error::Refused(Refusal::TokenRefused)
    ));
    let now = relay.now();
    let new = token(&issuer_key(), "alice", alice.device(), now.seconds(), DAY);
    alice.engine.handle_token(&new, now).unwrap();
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn devices_lists_those_of_the_peer_and_ones_own() {
    let (mut relay, mut alice, bob) = alice_and_bob();
    let listed = devices(&mut relay, &mut alice, "bob").unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (
            listed[0].thumbprint,
            listed[0].is_this,
            listed[0].first_seen
        ),
        (bob.device(), false, Some(START.seconds()))
    );
    assert_eq!(
        listed[0].jwe_key,
        Some(*bob.engine.keys.standard_jwe_public().as_bytes())
    );
    let own = devices(&mut relay, &mut alice, "alice").unwrap();
    assert_eq!(
        (own.len(), own[0].thumbprint, own[0].first_seen),
        (1, alice.device(), None)
    );
}

#[test]
fn devices_of_an_unknown_user_are_an_error() {
    let (mut relay, mut alice, _) = alice_and_bob();
    assert!(matches!(
        devices(&mut relay, &mut alice, "nobody"),
        Err(Error::Refused(Refusal::UnknownUser))
    ));
}

/// docs/protocol.md §6.1
#[test]
fn card_of_another_user_is_refused() {
    let (mut relay, mut alice, bob) = alice_and_bob();
    let card = relay.register(&bob).card.clone();
    relay.users.insert(
        "carol".into(),
        vec![Registered {
            device: bob.device(),
            card,
            prekeys: Vec::new(),
        }],
    );
    let refused = devices(&mut relay, &mut alice, "carol");
    assert!(
        matches!(refused, Err(Error::Card(CardFault::OtherUser))),
        "{refused:?}"
    );
}

/// docs/protocol.md §6.1
#[test]
fn card_that_is_rolled_back_is_refused() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let old = std::mem::take(&mut relay.register(&bob).card);
    relay.connect(&mut bob);
    relay.pump(&mut [&mut bob]);
    devices(&mut relay, &mut alice, "bob").unwrap();
    relay.register(&bob).card = old;
    assert!(matches!(
        devices(&mut relay, &mut alice, "bob"),
        Err(Error::Card(CardFault::RolledBack))
    ));
    let mut answer = alice.send("bob", "hello");
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(matches!(answer.error(), Error::Card(CardFault::RolledBack)));
}

/// docs/protocol.md §6.1
#[test]
fn card_whose_device_no_issuer_attests_is_refused() {
    let (mut relay, mut alice, _) = alice_and_bob();
    let mut mallory = Toy::new("carol");
    let wrong_key = SigningKey::from_seed(&Seed::new([43; 32]));
    let forged = token(&wrong_key, "carol", mallory.device(), START.seconds(), DAY);
    mallory.engine.own = Some(OwnIdentity::new(&mallory.engine.keys, &forged).unwrap());
    relay.connect(&mut mallory);
    relay.pump(&mut [&mut mallory]);
    let mut answer = alice.send("carol", "hello");
    relay.pump(&mut [&mut alice]);
    assert!(matches!(answer.error(), Error::Card(CardFault::Invalid)));
}

#[test]
fn card_that_is_garbage_or_there_twice_is_refused() {
    let (mut relay, mut alice, bob) = alice_and_bob();
    let card = relay.register(&bob).card.clone();
    let twice = Registered {
        device: bob.device(),
        card: card.clone(),
        prekeys: Vec::new(),
    };
    relay.users.get_mut("bob").unwrap().push(twice);
    assert!(matches!(
        devices(&mut relay, &mut alice, "bob"),
        Err(Error::Card(CardFault::Invalid))
    ));
    relay.users.get_mut("bob").unwrap().pop();
    relay.register(&bob).card = format!("{card}x");
    assert!(matches!(
        devices(&mut relay, &mut alice, "bob"),
        Err(Error::Card(CardFault::Invalid))
    ));
}

/// docs/protocol.md §6.2
#[test]
fn one_time_prekey_that_the_relay_invented_is_refused() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    for prekey in &mut relay.register(&bob).prekeys {
        prekey[4] ^= 1;
    }
    let mut answer = alice.send("bob", "hello");
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(matches!(
        answer.error(),
        Error::Card(CardFault::OneTimePrekey)
    ));
}

#[test]
fn message_without_a_one_time_prekey_arrives_too() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    relay.register(&bob).prekeys.clear();
    alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn first_contact_is_no_change_and_a_new_device_is_one() {
    let (mut relay, mut alice, mut bob) = acquainted();
    assert!(
        !alice
            .events()
            .iter()
            .any(|event| matches!(event, Event::PeerChanged { .. }))
    );
    let second = second_device_of_bob(&mut relay);
    devices(&mut relay, &mut alice, "bob").unwrap();
    let changed = |added, removed| Event::PeerChanged {
        user: "bob".into(),
        added,
        removed,
        was_verified: false,
    };
    assert_eq!(alice.events(), [changed(vec![second.device()], vec![])]);
    relay.users.get_mut("bob").unwrap().remove(0);
    devices(&mut relay, &mut alice, "bob").unwrap();
    assert_eq!(alice.events(), [changed(vec![], vec![bob.device()])]);
    bob.events();
}

#[test]
fn message_from_a_new_device_is_announced_before_it_is_shown() {
    let (mut relay, mut alice, _) = acquainted();
    let mut second = second_device_of_bob(&mut relay);
    drop(second.send("alice", "it is me"));
    relay.pump(&mut [&mut second, &mut alice]);
    let events = alice.events();
    assert!(
        matches!(&events[0], Event::PeerChanged { added, .. } if *added == [second.device()]),
        "{events:?}"
    );
    assert!(matches!(&events[1], Event::Message(_)));
}

/// docs/protocol.md §11
#[test]
fn both_sides_compute_the_same_safety_number() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let number = safety_number(&mut relay, &mut alice, "bob");
    assert_eq!(number, safety_number(&mut relay, &mut bob, "alice"));
    let _second = second_device_of_bob(&mut relay);
    let changed = safety_number(&mut relay, &mut alice, "bob");
    assert_ne!(changed, number);
    assert_eq!(changed, safety_number(&mut relay, &mut bob, "alice"));
}

#[test]
fn safety_number_of_before_marks_nobody() {
    let (mut relay, mut alice, _) = alice_and_bob();
    let number = safety_number(&mut relay, &mut alice, "bob");
    second_device_of_bob(&mut relay);
    devices(&mut relay, &mut alice, "bob").unwrap();
    assert!(matches!(
        alice.engine.mark_verified("bob", &number),
        Ok(Err(Error::PeerChanged))
    ));
    assert!(matches!(
        alice.engine.mark_verified("carol", &number),
        Ok(Err(Error::PeerChanged))
    ));
}

#[test]
fn verified_peer_who_changes_gets_nothing_until_somebody_looks() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let number = safety_number(&mut relay, &mut alice, "bob");
    alice.engine.mark_verified("bob", &number).unwrap().unwrap();
    alice
        .send("bob", "verified")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    bob.events();
    alice.events();
    let mut second = second_device_of_bob(&mut relay);
    // On its way when the change is noticed.
    let mut answer = alice.send("bob", "for bob only");
    relay.pump(&mut [&mut alice, &mut bob, &mut second]);
    assert!(matches!(answer.error(), Error::PeerChanged));
    assert!(matches!(
        alice.events().as_slice(),
        [Event::PeerChanged {
            was_verified: true,
            ..
        }]
    ));
    // And afterwards.
    assert!(matches!(
        alice.send("bob", "for bob only").error(),
        Error::PeerChanged
    ));
    alice.crash();
    relay.connect(&mut alice);
    assert!(matches!(
        alice.send("bob", "for bob only").error(),
        Error::PeerChanged
    ));
    assert!(bob.texts().is_empty() && second.texts().is_empty());
    alice.engine.accept_change("bob").unwrap();
    alice
        .send("bob", "go on")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob, &mut second]);
    assert_eq!(second.texts(), ["go on"]);
}

#[test]
fn unverified_peer_gets_nothing_where_the_application_wants_verified_ones_only() {
    let (mut relay, _, mut bob) = alice_and_bob();
    let mut careful = Toy::with(
        "carol",
        Options {
            delivery_receipts: true,
            only_verified: true,
        },
    );
    relay.connect(&mut careful);
    relay.pump(&mut [&mut careful]);
    assert!(matches!(
        careful.send("bob", "hello").error(),
        Error::PeerUnverified
    ));
    let number = safety_number(&mut relay, &mut careful, "bob");
    assert!(matches!(
        careful.send("bob", "hello").error(),
        Error::PeerUnverified
    ));
    careful
        .engine
        .mark_verified("bob", &number)
        .unwrap()
        .unwrap();
    careful
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut careful, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
}

/// Sixteen devices are what one message can be sealed for, so the seventeenth is not known; nothing fails over it, now or later.
#[test]
fn seventeenth_device_of_a_user_is_refused_and_the_mailbox_goes_on() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let mut first = Toy::new("mallory");
    relay.connect(&mut first);
    drop(first.send("alice", "x"));
    relay.pump(&mut [&mut first, &mut alice]);
    // The directory shows one of them only: whoever made the others has the issuer attest and withdraw them.
    let listed = relay.users.remove("mallory").unwrap();
    for _ in 0..70 {
        let mut another = Toy::new("mallory");
        relay.users.remove("mallory");
        relay.connect(&mut another);
        drop(another.send("alice", "x"));
        relay.pump(&mut [&mut another]);
    }
    relay.users.insert("mallory".into(), listed);
    relay.deliver(&mut alice);
    alice.crash();
    relay.connect(&mut alice);
    relay.deliver(&mut alice);
    assert!(relay.mailbox(&alice).is_empty() || !relay.deliver(&mut alice));
    // The others may have taken the place of some, and are asked for what they sent, in vain.
    for _ in 0..5 {
        relay.pump(&mut [&mut alice]);
        relay.later += 61_000;
    }
    let events = alice.events();
    let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(
        count(|event| matches!(event, Event::Message(_))),
        limits::MAX_DEVICES
    );
    assert_eq!(
        count(|event| matches!(event, Event::Undecryptable { .. })),
        71 - limits::MAX_DEVICES
    );
    bob.send("alice", "still there")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    assert_eq!(alice.texts(), ["still there"]);
    assert!(
        relay
            .sent
            .iter()
            .all(|sent| sent.parts.len() <= limits::MAX_SEND_PARTS)
    );
}

/// A message from a device pins it; a directory that hides it then does not replace it in silence.
#[test]
fn first_fetch_that_hides_the_device_a_message_came_from_is_a_change() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    drop(bob.send("alice", "hello"));
    relay.pump(&mut [&mut bob]);
    relay.users.remove("bob");
    let mut other = Toy::new("bob");
    relay.connect(&mut other);
    relay.pump(&mut [&mut other, &mut alice]);
    devices(&mut relay, &mut alice, "bob").unwrap();
    let changed = Event::PeerChanged {
        user: "bob".into(),
        added: vec![other.device()],
        removed: vec![bob.device()],
        was_verified: false,
    };
    let events = alice.events();
    assert!(events.contains(&changed), "{events:?}");
}

#[test]
fn relay_that_lies_about_the_user_leaves_nothing_behind() {
    let store = SharedStore::default();
    let options = Options {
        delivery_receipts: true,
        only_verified: false,
    };
    let mut engine = open(&store, options).unwrap();
    let mut ready = Ready {
        device: engine.keys.thumbprint(),
        user: "mallory",
        time: 0,
        token_expires: 0,
        max_message: 1,
        has_card: false,
        prekeys: 0,
        epoch: [0; 16],
        acknowledged: 0,
        head: 0,
        sent: 0,
        waiting: 0,
    };
    engine.handle_ready(&ready, START).unwrap();
    let token = token(&issuer_key(), "alice", ready.device, START.seconds(), DAY);
    assert!(matches!(
        engine.handle_token(&token, START),
        Err(Fatal::NotAuthorised(NotAuthorised::OtherUser))
    ));
    drop(engine);
    let mut engine = open(&store, options).unwrap();
    assert_eq!(engine.user(), None);
    ready.user = "alice";
    engine.handle_ready(&ready, START).unwrap();
    engine.handle_token(&token, START).unwrap();
    assert_eq!(engine.user().as_deref(), Some("alice"));
}

/// docs/protocol.md §11: the number covers both sides.
#[test]
fn new_own_device_unverifies_everybody_and_gets_no_copy_for_them() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let number = safety_number(&mut relay, &mut alice, "bob");
    alice.engine.mark_verified("bob", &number).unwrap().unwrap();
    alice.events();
    // Whoever has the issuer attests a device of their own for alice.
    let mut spy = Toy::new("alice");
    relay.connect(&mut spy);
    relay.pump(&mut [&mut spy]);
    alice.engine.handle_device_changed("alice").unwrap();
    // On its way when the change is noticed: for bob it was sealed for bob's device only.
    drop(alice.send("bob", "on its way"));
    relay.pump(&mut [&mut alice, &mut bob, &mut spy]);
    assert!(matches!(
        alice.events().as_slice(),
        [Event::PeerChanged { user, added, .. }, ..] if **user == *"alice" && *added == [spy.device()]
    ));
    assert!(!alice.engine.is_verified("bob").unwrap());
    assert!(matches!(
        alice.send("bob", "secret").error(),
        Error::PeerChanged
    ));
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob, &mut spy]);
    assert!(matches!(
        alice.send("bob", "secret").error(),
        Error::PeerChanged
    ));
    assert!(matches!(
        alice.engine.mark_verified("bob", &number),
        Ok(Err(Error::PeerChanged))
    ));
    assert!(
        !spy.events()
            .iter()
            .any(|event| matches!(event, Event::Copy { .. }))
    );
    // The number with the new device in it is another one; who has compared that has accepted the device.
    let number = safety_number(&mut relay, &mut alice, "bob");
    alice.engine.mark_verified("bob", &number).unwrap().unwrap();
    alice
        .send("bob", "go on")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob, &mut spy]);
    assert!(
        spy.events()
            .iter()
            .any(|event| matches!(event, Event::Copy { .. }))
    );
}

#[test]
fn new_own_device_may_be_accepted_without_verifying_again() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let number = safety_number(&mut relay, &mut alice, "bob");
    alice.engine.mark_verified("bob", &number).unwrap().unwrap();
    let mut second = Toy::new("alice");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second]);
    devices(&mut relay, &mut alice, "alice").unwrap();
    alice.engine.accept_change("bob").unwrap();
    assert!(!alice.engine.is_verified("bob").unwrap());
    alice
        .send("bob", "go on")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob, &mut second]);
    bob.events();
}
