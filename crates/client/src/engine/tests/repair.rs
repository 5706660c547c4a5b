//! Sessions that are lost, at either end.

use super::*;
use crate::engine::records::SeenMessage;
use crate::engine::repair::Why;

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

pub(super) fn texts(events: &[Event]) -> Vec<&str> {
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
    let why = Why::DidNotOpen {
        session: None,
        early: false,
    };
    bob.engine.is_kept(&mut txn, message, &user, why).unwrap();
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

/// docs/protocol.md §8.3
#[test]
fn what_is_sealed_again_goes_one_at_a_time_and_what_is_new_after_it() {
    let (mut relay, mut alice, mut bob, first) = asked_again();
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

/// docs/protocol.md §8.3
#[test]
fn what_is_on_its_way_is_sealed_again_once_the_relay_has_taken_it_and_not_if_it_refuses_it() {
    for (refusal, shown) in [
        (None, &["1", "2", "3"][..]),
        (Some(RefusalCode::Overtaken), &["1", "3"]),
    ] {
        let (mut relay, mut alice, mut bob) = acquainted();
        lose_sessions(&mut relay, &mut bob);
        drop(alice.send("bob", "1"));
        relay.pump(&mut [&mut alice]);
        relay.pump(&mut [&mut bob]);
        drop(alice.send("bob", "2"));
        let on_its_way = alice.poll().unwrap();
        relay.deliver(&mut alice);
        drop(alice.send("bob", "3"));
        let again = alice.poll().unwrap();
        relay.serve(&mut alice, &again);
        assert!(alice.poll().is_none());
        relay.refuse_sends = refusal;
        relay.serve(&mut alice, &on_its_way);
        relay.refuse_sends = None;
        relay.pump(&mut [&mut alice, &mut bob]);
        assert_eq!(bob.texts(), shown, "{refusal:?}");
    }
}

/// docs/protocol.md §8.3
#[test]
fn what_was_put_off_or_is_on_its_way_comes_in_order_in_the_session_in_which_its_device_asks_next() {
    let full = Some(RefusalCode::MailboxFull);
    for (refusal, before_he_asks) in [(full, true), (full, false), (None, false)] {
        let (mut relay, mut alice, mut bob, again) = asked_again();
        let answer = |relay: &mut ToyRelay, alice: &mut Toy| {
            relay.refuse_sends = refusal;
            relay.serve(alice, &again);
            relay.refuse_sends = None;
        };
        if before_he_asks {
            answer(&mut relay, &mut alice);
        }
        // What was sealed for him is in a session that he has lost as well.
        lose_sessions(&mut relay, &mut bob);
        relay.pump(&mut [&mut bob]);
        relay.deliver(&mut alice);
        if !before_he_asks {
            answer(&mut relay, &mut alice);
        }
        relay.later += 40_000;
        relay.pump(&mut [&mut alice, &mut bob]);
        assert_eq!(bob.texts(), ["1", "2"], "{refusal:?}, {before_he_asks}");
    }
}

/// Bob's sessions are lost, and he has asked for two messages; the first of them is on its way again.
fn asked_again() -> (ToyRelay, Toy, Toy, Request) {
    let (mut relay, mut alice, mut bob) = acquainted();
    lose_sessions(&mut relay, &mut bob);
    for text in ["1", "2"] {
        drop(alice.send("bob", text));
    }
    relay.pump(&mut [&mut alice]);
    relay.pump(&mut [&mut bob]);
    relay.deliver(&mut alice);
    let first = alice.poll().unwrap();
    (relay, alice, bob, first)
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

/// The relay has changed the bytes of something: it holds back nothing of the session in which it came.
#[test]
fn forged_message_keeps_nothing_of_its_session_back() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice]);
    let held = relay.mailbox(&bob).last().unwrap().clone();
    let mut forged = Held {
        id: [9; 16],
        ..held.clone()
    };
    *forged.message.last_mut().unwrap() ^= 1;
    give(&mut bob, &forged);
    assert!(bob.engine.lost.deadline().is_some());
    let next = Held {
        position: held.position + 1,
        ..held
    };
    give(&mut bob, &next);
    assert_eq!(bob.texts(), ["1"]);
}

/// Whoever may write could ask for repairs without end.
#[test]
fn strangers_leave_room_for_the_repair_of_others() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut txn = bob.engine.begin();
    let keep = |bob: &mut Toy, txn: &mut Txn, device: u8, number: u8, user: &str| {
        let message = SeenMessage {
            device: Thumbprint::from_bytes([device; 32]),
            id: [number; 16],
        };
        let why = Why::DidNotOpen {
            session: None,
            early: false,
        };
        bob.engine.is_kept(txn, message, &user.into(), why).unwrap()
    };
    let kept = (0..200)
        .filter(|number| keep(&mut bob, &mut txn, number % 4, *number, "mallory"))
        .count();
    assert_eq!(kept, 64);
    bob.engine.stage(txn);
    lose_sessions(&mut relay, &mut bob);
    drop(alice.send("bob", "1"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1"]);
}
