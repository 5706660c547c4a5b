//! Sessions that are lost, at either end, and stores that were put back.

use super::*;
use crate::event::NotSent;

/// Bob's sessions are lost.
fn lose_sessions(relay: &mut ToyRelay, bob: &mut Toy) {
    bob.crash_without(&[Table::Sessions]);
    relay.later += 1_000;
    relay.connect(bob);
}

fn repaired(alice: &Toy) -> Event {
    Event::SessionRepaired {
        user: "alice".into(),
        device: alice.device(),
    }
}

#[test]
fn lost_session_repairs_itself_and_nothing_is_lost() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    for text in ["1", "2", "3"] {
        drop(alice.send("bob", text));
    }
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    assert_eq!(events[0], repaired(&alice));
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(texts(&events), ["1", "2", "3"]);
    drop(alice.send("bob", "4"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["4"]);
}

fn texts(events: &[Event]) -> Vec<&str> {
    let mut texts = Vec::new();
    for event in events {
        if let Event::Message(received) = event {
            texts.extend(received.message.as_text());
        }
    }
    texts
}

/// What is written between the loss and the repair comes behind what was lost.
#[test]
fn order_holds_over_a_repair() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    // Bob asks; alice has written more by the time she hears it.
    relay.pump(&mut [&mut bob]);
    drop(alice.send("bob", "2"));
    relay.deliver(&mut alice);
    drop(alice.send("bob", "3"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1", "2", "3"]);
}

#[test]
fn copies_for_ones_own_devices_come_again_too() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("alice");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second, &mut alice]);
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice, &mut bob, &mut second]);
    second.events();
    lose_sessions(&mut relay, &mut second);
    drop(alice.send("bob", "2"));
    relay.pump(&mut [&mut alice, &mut bob, &mut second]);
    let events = second.events();
    let mut copies = Vec::new();
    for event in &events {
        if let Event::Copy { to, message } = event {
            copies.push((&**to, message.message.as_text()));
        }
    }
    assert_eq!(copies, [("bob", Some("2"))], "{events:?}");
    assert_eq!(bob.texts(), ["1", "2"]);
}

/// docs/protocol.md §8.2, §8.3
#[test]
fn message_more_than_a_thousand_ahead_comes_again_in_a_new_session() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut txn = alice.engine.begin();
    let vault = &alice.engine.vault;
    let sessions = txn.peer(vault, bob.device()).unwrap();
    for _ in 0..1_001 {
        sessions.seal(b"lost", &mut rand::rng()).unwrap();
    }
    alice.engine.stage(txn);
    drop(alice.send("bob", "too far ahead"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    assert!(events.contains(&repaired(&alice)));
    assert_eq!(texts(&events), ["too far ahead"]);
}

/// docs/protocol.md §7.4: its next message looks like a repetition of the first one.
#[test]
fn lost_session_without_a_one_time_prekey_repairs_itself() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    for registered in relay.users.get_mut("bob").unwrap() {
        registered.prekeys.clear();
    }
    drop(alice.send("bob", "read"));
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    assert_eq!(bob.texts(), ["read"]);
    lose_sessions(&mut relay, &mut bob);
    for registered in relay.users.get_mut("bob").unwrap() {
        registered.prekeys.clear();
    }
    drop(alice.send("bob", "lost"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    assert!(events.contains(&repaired(&alice)));
    assert_eq!(texts(&events), ["lost"]);
}

#[test]
fn messages_that_do_not_open_start_one_new_session_and_no_more() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    for text in ["1", "2", "3"] {
        drop(alice.send("bob", text));
    }
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    assert_eq!(bob.engine.outbox.own_count(), 1);
}

#[test]
fn message_that_its_sender_has_forgotten_is_told_once() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    alice.crash_without(&[Table::Undelivered]);
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    let told = |event: &&Event| matches!(event, Event::Undecryptable { .. });
    assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");
    assert!(bob.engine.lost.deadline().is_none());
}

#[test]
fn message_that_nobody_sends_again_is_asked_for_three_times_and_then_told() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    for asked in 0..3 {
        relay.pump(&mut [&mut bob]);
        let events = bob.events();
        // Whoever is asked again is not repaired again.
        let repairs: &[_] = if asked == 0 { &[repaired(&alice)] } else { &[] };
        assert_eq!(events, repairs);
        assert!(bob.engine.poll_deadline().is_some());
        relay.later += 60_000;
    }
    relay.pump(&mut [&mut bob]);
    let events = bob.events();
    let told = |event: &&Event| matches!(event, Event::Undecryptable { .. });
    assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");
    assert_eq!(bob.engine.poll_deadline(), None);
}

#[test]
fn message_asked_for_survives_a_crash() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    bob.crash();
    relay.connect(&mut bob);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1"]);
}

#[test]
fn resend_of_what_was_shown_is_confirmed_and_not_shown() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    let held = relay.mailbox(&bob)[0].clone();
    relay.deliver(&mut bob);
    assert_eq!(bob.texts(), ["1"]);
    // The receipt is lost with the outbox and the sessions, and what was shown is forgotten too.
    bob.crash_without(&[Table::Sessions, Table::Outbox]);
    relay.later += 1_000;
    relay.connect(&mut bob);
    let message = records::SeenMessage {
        device: held.device,
        id: held.id,
    };
    let mut txn = bob.engine.begin();
    let user = "alice".into();
    bob.engine
        .lost
        .insert(
            &mut txn,
            message,
            &user,
            crate::engine::repair::Why::DidNotOpen {
                session: None,
                early: false,
            },
        )
        .unwrap();
    bob.engine.stage(txn);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(bob.texts().is_empty());
    assert_eq!(alice.engine.undelivered.user_of(held.id), None);
}

/// Receipts are asked for again like anything else: whoever lost them is not told of a message that never was.
#[test]
fn receipt_that_does_not_open_comes_again() {
    let (mut relay, mut alice, mut bob) = acquainted();
    alice.events();
    let mut receipt = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice]);
    relay.pump(&mut [&mut bob]);
    alice.crash_without(&[Table::Sessions]);
    relay.later += 1_000;
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = alice.events();
    let told = |event: &&Event| matches!(event, Event::Delivered { .. });
    assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Undecryptable { .. }))
    );
    assert!(receipt.to_all.try_recv().is_err(), "its client has gone");
}

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

/// What a relay gives a second time, because it has lost that it was taken, is known whatever is in it.
#[test]
fn receipt_delivered_twice_repairs_nothing() {
    let (mut relay, mut alice, mut bob) = acquainted();
    alice.events();
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    relay.pump(&mut [&mut bob]);
    let receipt = relay.mailbox(&alice)[0].clone();
    relay.deliver(&mut alice);
    let again = Held {
        position: receipt.position + 1_000,
        ..receipt
    };
    give(&mut alice, &again);
    assert_eq!(alice.engine.outbox.own_count(), 0);
    assert!(matches!(
        alice.events().as_slice(),
        [Event::Delivered { .. }]
    ));
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

/// docs/protocol.md §8.3
#[test]
fn peer_that_asks_without_pause_is_answered_twice_a_minute_at_most() {
    let (mut relay, mut alice, mut bob) = acquainted();
    bob.options.delivery_receipts = false;
    bob.crash();
    relay.connect(&mut bob);
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    relay.sent.clear();
    for _ in 0..20 {
        bob.engine.ask(alice.device(), "alice".into(), &[], START);
        relay.later += 1_000;
        relay.pump(&mut [&mut alice, &mut bob]);
    }
    let hello = |sent: &&Sent| sent.user == "bob";
    let answered = relay.sent.iter().filter(hello).count();
    // Everything that bob has not confirmed, twice at most.
    assert!(answered <= 2 * 4, "{answered}");
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn message_that_comes_after_it_was_given_up_is_shown() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    drop(alice.send("bob", "late"));
    relay.pump(&mut [&mut alice]);
    for _ in 0..5 {
        relay.pump(&mut [&mut bob]);
        relay.later += 61_000;
    }
    let told = |event: &Event| matches!(event, Event::Undecryptable { .. });
    assert!(bob.events().iter().any(told));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["late"]);
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

#[test]
fn resend_in_parts_goes_on_after_a_crash() {
    let (mut relay, mut alice, bob) = acquainted();
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    alice.engine.undelivered.resend_from(bob.device(), 0);
    // Committed, and the process dies before anything is sealed again.
    alice.engine.handle_disconnected();
    alice.settle();
    alice.crash();
    assert!(alice.engine.undelivered.deadline(0).is_some());
}

/// More than may be sealed again at once, and the relay takes none of it.
#[test]
fn resend_that_is_refused_waits_instead_of_trying_all_the_time() {
    let (mut relay, mut alice, bob) = acquainted();
    for part in 0..2 {
        for number in 0..200 {
            drop(alice.send("bob", &format!("{part} {number}")));
        }
        relay.pump(&mut [&mut alice]);
    }
    relay.refuse_sends = Some(RefusalCode::RateLimited);
    alice.engine.undelivered.resend_from(bob.device(), 0);
    relay.pump(&mut [&mut alice]);
    let deadline = alice.engine.poll_deadline().unwrap();
    assert!(deadline > relay.now(), "{deadline:?}");
    alice.engine.settle(relay.now()).unwrap();
    assert!(alice.engine.txn.is_empty() && alice.engine.poll_deadline() == Some(deadline));
}

#[test]
fn what_is_sealed_again_for_a_device_is_tried_when_the_last_of_it_may_be() {
    use super::outbox::{Outbox, Purpose, Stage, Target};
    use super::records::SendState;
    let target = |device| Target {
        device: Thumbprint::from_bytes([device; 32]),
        copy: false,
    };
    let entry = |purpose, stage| {
        let content = zeroize::Zeroizing::default();
        let mut entry = Entry::stored([1; 16], "bob".into(), purpose, content, Vec::new(), 0);
        entry.stage = stage;
        entry
    };
    let again = |device, stage| entry(Purpose::Again(target(device)), stage);
    let outbox =
        |entries: Vec<Entry>| Outbox::restore((1..).zip(entries).collect(), SendState::default());
    let (soon, late) = (Stage::Later(Moment(10)), Stage::Later(Moment(20)));
    let deadline = |entries| outbox(entries).deadline();
    assert_eq!(
        deadline(vec![again(1, soon), again(1, late)]),
        Some(Moment(20))
    );
    assert_eq!(
        deadline(vec![again(1, soon), again(2, late)]),
        Some(Moment(10))
    );
    assert_eq!(
        deadline(vec![again(1, soon), again(1, Stage::NeedsCards)]),
        None
    );
    let direct = Purpose::Direct {
        device: target(1).device,
        fresh: false,
    };
    let entries = vec![
        entry(direct, soon),
        again(1, late),
        again(1, Stage::Waiting),
    ];
    assert_eq!(deadline(entries), Some(Moment(10)));
}

/// docs/protocol.md §8.3
#[test]
fn what_a_relay_that_was_put_back_has_forgotten_is_sent_again() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let (accepted, position) = (relay.accepted.clone(), relay.next_position);
    for text in ["1", "2"] {
        drop(alice.send("bob", text));
    }
    relay.pump(&mut [&mut alice]);
    alice.crash();
    relay.accepted = accepted;
    relay.next_position = position;
    relay.mailbox(&bob).clear();
    relay.later += 1_000;
    for toy in [&mut alice, &mut bob] {
        relay.connect(toy);
    }
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1", "2"]);
    // Once is enough.
    let sent = relay.sent.len();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(relay.sent.len(), sent);
}

#[test]
fn stranger_learns_nothing_by_asking() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    drop(bob.send("alice", "hello"));
    relay.pump(&mut [&mut bob, &mut alice]);
    relay.sent.clear();
    bob.engine
        .ask(alice.device(), "alice".into(), &[[9; 16]], START);
    relay.later += 1_000;
    relay.pump(&mut [&mut bob, &mut alice]);
    assert!(relay.sent.iter().all(|sent| sent.user == "alice"));
}

#[test]
fn late_mail_of_a_removed_own_device_changes_nobodys_verification() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("alice");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second, &mut alice]);
    alice.engine.handle_device_changed("alice").unwrap();
    relay.pump(&mut [&mut second, &mut alice]);
    drop(second.send("alice", "a note"));
    relay.pump(&mut [&mut second]);
    relay.users.get_mut("alice").unwrap().pop();
    alice.engine.handle_device_changed("alice").unwrap();
    alice.settle();
    while let Some(request) = alice.engine.poll_request() {
        relay.serve(&mut alice, &request);
    }
    alice.events();
    relay.deliver(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = alice.events();
    assert!(
        matches!(events.as_slice(), [Event::Message(_)]),
        "{events:?}"
    );
}

/// docs/protocol.md §8.3: whose clock is ahead, or whose session has the smaller id, does not matter.
#[test]
fn peer_whose_session_is_later_than_the_repair_seals_in_the_repair() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    // Alice has started a session that bob will never have, half a minute ahead.
    alice.engine.restart.insert(bob.device());
    alice.engine.look_up("bob".into(), true);
    relay.later += 30_000;
    relay.pump(&mut [&mut alice]);
    relay.later -= 30_000;
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    bob.crash_without(&[Table::Sessions]);
    bob.engine.prekeys.forget_secrets();
    bob.engine.prekeys_changed = true;
    bob.settle();
    relay.connect(&mut bob);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1"]);
}

/// A message of a clock that is ahead does not open yet. What is sent after it opens, and is not shown before it.
#[test]
fn message_from_the_future_comes_before_what_was_sent_after_it() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    relay.later += 120_000;
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    relay.later -= 120_000;
    relay.deliver(&mut bob);
    assert!(bob.texts().is_empty());
    // The clocks agree again before alice hears that bob asks.
    relay.later += 120_000;
    drop(alice.send("bob", "2"));
    relay.pump(&mut [&mut alice]);
    relay.deliver(&mut bob);
    assert!(bob.texts().is_empty());
    relay.later += 60_000;
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1", "2"]);
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
    let deliver = Deliver {
        position: held.position,
        id: held.id,
        user: &held.user,
        device: held.device,
        time: START.0,
        message: &held.message,
    };
    bob.engine.handle_deliver(&deliver, relay.now()).unwrap();
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

/// docs/protocol.md §8.3
#[test]
fn what_is_sealed_again_goes_one_at_a_time_and_what_is_new_after_it() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    for text in ["1", "2"] {
        drop(alice.send("bob", text));
    }
    relay.pump(&mut [&mut alice]);
    relay.pump(&mut [&mut bob]);
    relay.deliver(&mut alice);
    let first = alice.poll().unwrap();
    drop(alice.send("bob", "3"));
    assert!(alice.poll().is_none());
    relay.refuse_sends = Some(RefusalCode::MailboxFull);
    relay.serve(&mut alice, &first);
    relay.refuse_sends = None;
    assert!(alice.poll().is_none());
    relay.later += 10 * 60_000;
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1", "2", "3"]);
}

/// Bob's sessions are lost, and he writes to alice: what she sends then is in the new session, and opens, while what she has sent before does not.
fn one_lost_and_one_that_opens(relay: &mut ToyRelay, alice: &mut Toy, bob: &mut Toy) {
    bob.crash_without(&[Table::Sessions]);
    relay.later += 1_000;
    drop(alice.send("bob", "1"));
    relay.pump(&mut [alice]);
    relay.connect(bob);
    drop(bob.send("alice", "hello"));
    // He sends, and is not given what waits for him yet.
    let waiting = std::mem::take(relay.mailbox(bob));
    relay.pump(&mut [bob]);
    relay.pump(&mut [alice]);
    assert_eq!(alice.texts(), ["hello"]);
    drop(alice.send("bob", "2"));
    relay.pump(&mut [alice]);
    relay.mailbox(bob).splice(0..0, waiting);
    relay.deliver(bob);
}

#[test]
fn message_that_opens_waits_for_one_that_was_sent_before_it() {
    let (mut relay, mut alice, mut bob) = acquainted();
    one_lost_and_one_that_opens(&mut relay, &mut alice, &mut bob);
    assert!(bob.texts().is_empty());
    bob.crash();
    relay.connect(&mut bob);
    relay.pump(&mut [&mut bob, &mut alice]);
    assert_eq!(bob.texts(), ["1", "2"]);
    assert_eq!(bob.engine.lost.deadline(), None);
}

#[test]
fn message_that_waited_for_one_that_never_comes_is_shown() {
    let (mut relay, mut alice, mut bob) = acquainted();
    one_lost_and_one_that_opens(&mut relay, &mut alice, &mut bob);
    // Nobody answers any more, and the second is nowhere but with bob.
    for _ in 0..3 {
        relay.pump(&mut [&mut bob]);
        assert!(bob.texts().is_empty());
        relay.later += 60_000;
    }
    relay.pump(&mut [&mut bob]);
    let events = bob.events();
    let cannot = |event: &&Event| matches!(event, Event::Undecryptable { .. });
    assert_eq!(events.iter().filter(cannot).count(), 1, "{events:?}");
    assert_eq!(texts(&events), ["2"], "{events:?}");
    assert_eq!(bob.engine.poll_deadline(), None);
}
