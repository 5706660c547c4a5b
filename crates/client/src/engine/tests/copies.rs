//! Stores that were put back to an earlier copy (docs/protocol.md §16).

use super::repair::texts;
use super::*;
use crate::event::NotSent;

/// Everything in a device's store as it is now.
fn copy_of(toy: &Toy) -> SharedStore {
    let copy = SharedStore::default();
    *copy.rows.lock().unwrap() = toy.store.rows.lock().unwrap().clone();
    copy
}

fn put_back(toy: &mut Toy, copy: &SharedStore) {
    *toy.store.rows.lock().unwrap() = copy.rows.lock().unwrap().clone();
    toy.crash();
}

/// docs/protocol.md §16
#[test]
fn earlier_copy_that_has_sent_since_is_found_out_and_uses_no_key_again() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let copy = copy_of(&alice);
    drop(alice.send("bob", "after the copy"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let card = relay.users["alice"][0].card.clone();
    put_back(&mut alice, &copy);
    relay.later += 1_000;
    let mut offline = alice.send("bob", "written before the relay has said anything");
    assert!(
        alice
            .engine
            .outbox
            .entries
            .values()
            .all(|entry| entry.parts.is_empty())
    );
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    offline.receipt();
    assert_eq!(alice.events()[0], Event::StoreRestored);
    assert_ne!(relay.users["alice"][0].card, card);
    assert_eq!(
        bob.texts(),
        [
            "after the copy",
            "written before the relay has said anything"
        ]
    );
    drop(bob.send("alice", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(alice.texts(), ["hello"]);
}

/// docs/protocol.md §16
#[test]
fn earlier_copy_that_has_only_received_since_is_found_out() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let copy = copy_of(&bob);
    drop(alice.send("bob", "after the copy"));
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    relay.acknowledged = bob.engine.position();
    relay.mailbox(&bob).clear();
    put_back(&mut bob, &copy);
    relay.later += 1_000;
    relay.connect(&mut bob);
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    assert_eq!(events[0], Event::StoreRestored);
    // Nobody has confirmed it, so it comes again.
    assert_eq!(texts(&events), ["after the copy"]);
}

/// docs/protocol.md §16
#[test]
fn store_that_is_the_newest_is_not_taken_for_an_earlier_copy() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    for toy in [&mut alice, &mut bob] {
        relay.acknowledged = toy.engine.position();
        toy.crash();
        relay.connect(toy);
        assert!(!toy.all_events().contains(&Event::StoreRestored));
    }
}

/// docs/protocol.md §16
#[test]
fn what_waited_in_an_earlier_copy_is_told_and_not_sent() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "in the copy"));
    let copy = copy_of(&alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    drop(alice.send("bob", "after the copy"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["in the copy", "after the copy"]);
    put_back(&mut alice, &copy);
    relay.later += 1_000;
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(bob.texts().is_empty());
    let told = alice.events();
    assert!(
        matches!(
            told.as_slice(),
            [
                Event::StoreRestored,
                Event::NotSent {
                    reason: NotSent::Restored,
                    ..
                },
                ..
            ]
        ),
        "{told:?}"
    );
}

/// docs/protocol.md §16
#[test]
fn peers_of_an_earlier_copy_send_again_what_it_has_lost() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let copy = copy_of(&bob);
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice, &mut bob]);
    put_back(&mut bob, &copy);
    relay.later += 1_000;
    // One that is sealed in a session that the copy does not have in this state.
    drop(alice.send("bob", "2"));
    relay.pump(&mut [&mut alice]);
    relay.connect(&mut bob);
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    assert_eq!(events[0], Event::StoreRestored);
    assert_eq!(texts(&events), ["2"], "{events:?}");
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Undecryptable { .. }))
    );
}

#[test]
fn nothing_is_sealed_before_the_first_ready() {
    let (mut relay, mut alice, _) = acquainted();
    alice.crash();
    drop(alice.send("bob", "hello"));
    let sealed = |toy: &Toy| {
        let mut entries = toy.engine.outbox.entries.values();
        entries.any(|entry| !entry.parts.is_empty())
    };
    assert!(!sealed(&alice));
    relay.connect(&mut alice);
    relay.refuse_sends = Some(RefusalCode::DevicesChanged);
    relay.pump(&mut [&mut alice]);
    assert!(!relay.sent.is_empty());
}

#[test]
fn relay_that_has_accepted_more_than_can_be_sent_is_at_fault() {
    let (_, mut alice, _) = acquainted();
    let ready = |sent| Ready {
        device: alice.device(),
        user: "alice",
        time: 0,
        token_expires: 0,
        max_message: 1,
        has_card: true,
        prekeys: 0,
        epoch: [0; 16],
        acknowledged: 0,
        head: u64::MAX,
        sent,
        waiting: u32::MAX,
    };
    let (most, more) = (ready(MAX_SEQUENCE), ready(MAX_SEQUENCE + 1));
    assert!(matches!(
        alice.engine.handle_ready(&more, START),
        Err(Fatal::Relay(RelayFault::Record))
    ));
    alice.crash();
    alice.engine.handle_ready(&most, START).unwrap();
    alice.settle();
    assert_eq!(alice.engine.outbox.next_sequence(), MAX_SEQUENCE + 1);
}

/// docs/protocol.md §8.3
#[test]
fn two_restored_devices_stop_asking_each_other() {
    let (mut relay, mut alice, mut bob) = acquainted();
    for _ in 0..2 {
        for toy in [&mut alice, &mut bob] {
            let copy = copy_of(toy);
            let to = if toy.user == "alice" { "bob" } else { "alice" };
            drop(toy.send(to, "after the copy"));
            relay.pump(&mut [toy]);
            put_back(toy, &copy);
            relay.later += 61_000;
            relay.connect(toy);
        }
        // `pump` fails if they never come to rest.
        relay.pump(&mut [&mut alice, &mut bob]);
    }
    // And they talk again. What was sent from the future that one of them has lost, nobody has any more.
    drop(alice.send("bob", "hello"));
    relay.later += 31_000;
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
}

/// docs/protocol.md §16
#[test]
fn process_put_back_with_its_memory_is_found_out_at_the_next_ready() {
    let (mut relay, mut alice, mut bob) = acquainted();
    // The relay has accepted more than this process knows of.
    relay.accepted.insert((alice.device(), 1_000));
    relay.later += 1_000;
    relay.connect(&mut alice);
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(alice.events().contains(&Event::StoreRestored));
    assert!(relay.sent_by(alice.device()) > 1_000);
    assert_eq!(bob.texts(), ["hello"]);
}

/// docs/protocol.md §6.2, §16
#[test]
fn prekeys_of_an_earlier_copy_are_replaced_although_the_link_breaks() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let copy = copy_of(&alice);
    drop(alice.send("bob", "after the copy"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let dead = relay.register(&alice).prekeys.clone();
    put_back(&mut alice, &copy);
    relay.later += 1_000;
    relay.connect(&mut alice);
    // Made and stored, and the link breaks before the relay has them.
    alice.settle();
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    let held = relay.register(&alice).prekeys.clone();
    assert!(!held.is_empty() && !held.iter().any(|prekey| dead.contains(prekey)));
}

/// docs/protocol.md §16
#[test]
fn earlier_copy_is_found_out_once() {
    let fresh = || (ToyRelay::default(), Toy::new("alice"), Toy::new("bob"));
    let known = acquainted as fn() -> _;
    // A copy of before the first Ready knows no mailbox at all.
    for (mut relay, mut alice, mut bob) in [known(), fresh()] {
        let copy = copy_of(&bob);
        for toy in [&mut alice, &mut bob] {
            relay.connect(toy);
        }
        relay.pump(&mut [&mut alice, &mut bob]);
        drop(alice.send("bob", "after the copy"));
        relay.pump(&mut [&mut alice]);
        relay.deliver(&mut bob);
        relay.acknowledged = bob.engine.position();
        put_back(&mut bob, &copy);
        let found = |relay: &ToyRelay, bob: &mut Toy| {
            relay.connect(bob);
            bob.settle();
            let told = |event: &&Event| matches!(event, Event::StoreRestored);
            bob.events().iter().filter(told).count()
        };
        let token = bob.token();
        bob.engine.handle_token(&token, START).unwrap();
        assert_eq!(found(&relay, &mut bob), 1);
        assert_eq!(found(&relay, &mut bob), 0);
        assert_eq!(bob.engine.position(), relay.acknowledged);
        bob.crash();
        assert_eq!(bob.engine.position(), relay.acknowledged);
    }
}

/// docs/protocol.md §16
#[test]
fn no_session_of_an_earlier_copy_is_used_in_the_step_that_finds_it_out() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let copy = copy_of(&bob);
    drop(alice.send("bob", "after the copy"));
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    relay.acknowledged = bob.engine.position();
    drop(alice.send("bob", "in a session of the copy"));
    relay.pump(&mut [&mut alice]);
    put_back(&mut bob, &copy);
    relay.later += 1_000;
    relay.connect(&mut bob);
    // Nothing is committed between the two.
    let held = relay.mailbox(&bob).last().unwrap().clone();
    give_uncommitted(&mut bob, &held, relay.now());
    bob.settle();
    assert!(bob.texts().is_empty());
    relay.pump(&mut [&mut bob, &mut alice]);
    // Nobody has confirmed either.
    assert_eq!(bob.texts(), ["after the copy", "in a session of the copy"]);
}

/// docs/protocol.md §16
#[test]
fn earlier_copy_asks_for_what_a_device_sends_that_it_has_never_heard_of() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let copy = copy_of(&bob);
    for (from, to) in [(true, "bob"), (false, "alice")] {
        let toy = if from { &mut alice } else { &mut bob };
        toy.send(to, "hello")
            .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    }
    bob.events();
    put_back(&mut bob, &copy);
    relay.later += 1_000;
    relay.connect(&mut bob);
    relay.pump(&mut [&mut bob]);
    // The session is answered: what is sent in it says nothing of how it was started.
    drop(alice.send("bob", "to a copy"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    assert!(texts(&events).contains(&"to a copy"), "{events:?}");
    let cannot = |event: &Event| matches!(event, Event::Undecryptable { .. });
    assert!(!events.iter().any(cannot), "{events:?}");
}
