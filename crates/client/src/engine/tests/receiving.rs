//! Messages that arrive.

use super::outbox::Purpose;
use super::*;
use crate::message::MessageId;
use sealwire_e2e::content::{Body, Content, Kind, MessageIds};

/// What alice has sent to bob and the relay holds.
fn held_for_bob(relay: &mut ToyRelay, alice: &mut Toy, bob: &Toy, text: &str) -> Held {
    drop(alice.send("bob", text));
    relay.pump(&mut [alice]);
    relay.mailbox(bob).pop().unwrap()
}

fn undecryptable(held: &Held) -> Event {
    Event::Undecryptable {
        id: MessageId(held.id),
        user: held.user.as_str().into(),
        device: held.device,
    }
}

#[test]
fn message_delivered_twice_is_shown_once() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    give(&mut bob, &held);
    give(&mut bob, &held);
    let again = Held {
        position: held.position + 5,
        ..held
    };
    give(&mut bob, &again);
    assert_eq!(bob.texts(), ["hello"]);
    assert_eq!(bob.engine.position(), again.position);
}

#[test]
fn message_delivered_again_after_a_crash_is_shown_once() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    give(&mut bob, &held);
    // The acknowledgement was lost with the process.
    bob.crash();
    relay.connect(&mut bob);
    give(&mut bob, &held);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn message_comes_again_after_every_restart_until_it_is_acknowledged() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    give(&mut bob, &held);
    for redelivered in [false, true, true] {
        let Some(Given {
            event: Event::Message(received),
            number: Some(number),
        }) = bob.engine.next_event()
        else {
            panic!()
        };
        assert_eq!(received.redelivered, redelivered);
        // Asking for the next event is no acknowledgement.
        bob.engine.event_taken(number);
        assert!(bob.engine.next_event().is_none());
        bob.settle();
        bob.crash();
    }
    assert_eq!(bob.texts(), ["hello"]);
    bob.crash();
    assert!(bob.engine.next_event().is_none());
}

#[test]
fn event_stays_until_the_one_after_it_is_asked_for() {
    let (_, _, mut bob) = acquainted();
    bob.push_event(Event::StoreRestored);
    for _ in 0..2 {
        bob.crash();
        let given = bob.engine.next_event().unwrap();
        assert_eq!(given.event, Event::StoreRestored);
    }
    let number = bob.engine.next_event().unwrap().number.unwrap();
    bob.engine.event_taken(number);
    bob.settle();
    bob.crash();
    assert!(bob.engine.next_event().is_none());
}

fn acknowledge_next(toy: &mut Toy) {
    let Some(Given {
        event: Event::Message(received),
        number: Some(number),
    }) = toy.engine.next_event()
    else {
        panic!()
    };
    toy.engine.event_taken(number);
    received.ack();
}

#[test]
fn acknowledgement_waits_for_a_commit_but_not_for_long() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    give(&mut bob, &held);
    let later = |ms| Moment(START.0 + ms);
    acknowledge_next(&mut bob);
    bob.engine.settle(START).unwrap();
    assert_eq!(bob.engine.poll_deadline(), Some(later(50)));
    // Without a link as well, and no longer because the clock was put back.
    bob.engine.handle_disconnected();
    bob.engine.settle(Moment(START.0 - 1_000_000)).unwrap();
    let by = Moment(START.0 - 999_950);
    assert_eq!(bob.engine.poll_deadline(), Some(by));
    bob.engine.settle(by).unwrap();
    assert_eq!(bob.engine.poll_deadline(), None);
    bob.crash();
    assert!(bob.engine.next_event().is_none());
}

#[test]
fn acknowledgement_shares_the_next_commit() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "first");
    give(&mut bob, &held);
    acknowledge_next(&mut bob);
    bob.engine.settle(START).unwrap();
    let next = held_for_bob(&mut relay, &mut alice, &bob, "second");
    give(&mut bob, &next);
    bob.crash();
    assert_eq!(bob.texts(), ["second"]);
}

#[test]
fn many_acknowledgements_wait_for_nothing() {
    let (_, _, mut bob) = acquainted();
    for n in 0..200 {
        bob.push_event(Event::MailboxGap(MailboxGap::NewHistory));
        let number = bob.engine.next_event().unwrap().number.unwrap();
        bob.engine.event_taken(number);
        bob.engine.settle(START).unwrap();
        assert!(bob.engine.next_event().is_none(), "{n}");
    }
    bob.crash();
    assert!(bob.engine.inbox.len() < 128);
}

#[test]
fn acknowledgement_of_what_is_not_there_does_nothing() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    give(&mut bob, &held);
    let Some(Given {
        event: Event::Message(received),
        ..
    }) = bob.engine.next_event()
    else {
        panic!()
    };
    for _ in 0..3 {
        received.ack();
    }
    bob.settle();
    assert_eq!(bob.engine.inbox.len(), 0);
    received.read();
    bob.settle();
    assert_eq!(bob.engine.inbox.len(), 0);
}

#[test]
fn position_is_not_given_before_the_message_is_stored() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    *bob.store.broken.lock().unwrap() = true;
    give_uncommitted(&mut bob, &held, START);
    assert!(matches!(bob.engine.settle(START), Err(Fatal::Store(_))));
    *bob.store.broken.lock().unwrap() = false;
    bob.crash();
    relay.connect(&mut bob);
    assert!(bob.engine.position() < held.position);
    give(&mut bob, &held);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn garbage_becomes_an_event_and_the_mailbox_goes_on() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let garbage = Held {
        message: b"garbage".to_vec(),
        id: [9; 16],
        ..held.clone()
    };
    give(&mut bob, &garbage);
    give(
        &mut bob,
        &Held {
            position: held.position + 1,
            ..held
        },
    );
    let events = bob.events();
    assert_eq!(events[0], undecryptable(&garbage));
    assert!(
        matches!(&events[1], Event::Message(received) if received.message.as_text() == Some("hello"))
    );
    assert_eq!(events.len(), 2);
}

#[test]
fn changed_ciphertext_becomes_an_event_and_changes_no_session() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let mut forged = Held {
        id: [9; 16],
        ..held.clone()
    };
    *forged.message.last_mut().unwrap() ^= 1;
    give(&mut bob, &forged);
    assert!(bob.events().is_empty());
    give(
        &mut bob,
        &Held {
            position: held.position + 1,
            ..held
        },
    );
    assert_eq!(bob.texts(), ["hello"]);
    // Alice is asked for it, and knows of no such message.
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(bob.events().contains(&undecryptable(&forged)));
}

/// docs/protocol.md §9.3
#[test]
fn message_under_another_id_than_its_own_is_refused() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let moved = Held {
        id: [9; 16],
        ..held
    };
    give(&mut bob, &moved);
    assert_eq!(bob.events(), [undecryptable(&moved)]);
}

#[test]
fn message_that_the_relay_ascribes_to_another_user_is_refused() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let moved = Held {
        user: "carol".into(),
        ..held
    };
    give(&mut bob, &moved);
    assert_eq!(bob.events(), [undecryptable(&moved)]);
}

#[test]
fn message_that_the_relay_ascribes_to_another_device_is_refused() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let moved = Held {
        device: Thumbprint::from_bytes([5; 32]),
        ..held
    };
    give(&mut bob, &moved);
    assert_eq!(bob.events(), [undecryptable(&moved)]);
}

/// docs/protocol.md §9.3
#[test]
fn copy_from_another_user_is_refused() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let body = Body {
        media_type: "text/plain",
        bytes: b"you never wrote this",
    };
    let copy = Kind::Copy {
        user: "carol",
        body,
    };
    lie(&mut alice, "bob", bob.device(), copy, [8; 16]);
    relay.pump(&mut [&mut alice, &mut bob]);
    let events = bob.events();
    assert!(
        matches!(events.as_slice(), [Event::Undecryptable { id, .. }] if id.0 == [8; 16]),
        "{events:?}"
    );
}

/// docs/protocol.md §9.3
#[test]
fn name_of_a_device_from_another_user_is_refused() {
    let (mut relay, mut alice, mut bob) = acquainted();
    lie(
        &mut alice,
        "bob",
        bob.device(),
        Kind::Name("yours"),
        [8; 16],
    );
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(matches!(
        bob.events().as_slice(),
        [Event::Undecryptable { .. }]
    ));
}

/// Seals a content that an honest device would not send.
fn lie(from: &mut Toy, user: &str, device: Thumbprint, kind: Kind<'_>, id: [u8; 16]) {
    let content = Content { id, time: 1, kind };
    let purpose = Purpose::Direct {
        device,
        fresh: false,
    };
    from.engine
        .enqueue_own(user.into(), purpose, &content)
        .unwrap();
}

#[test]
fn delivered_from_another_user_counts_for_nothing() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut carol = Toy::new("carol");
    relay.connect(&mut carol);
    relay.pump(&mut [&mut carol]);
    let mut receipt = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice]);
    let ids = [receipt.id.0];
    for kind in [
        Kind::Delivered(MessageIds::from(ids.as_slice())),
        Kind::Read(MessageIds::from(ids.as_slice())),
    ] {
        lie(&mut carol, "alice", alice.device(), kind, [9; 16]);
    }
    relay.pump(&mut [&mut alice, &mut carol]);
    assert!(receipt.to_all.try_recv().is_err());
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(receipt.to_all.try_recv(), Ok(Ok(())));
}

#[test]
fn missing_message_is_a_gap_and_may_still_arrive() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let first = held_for_bob(&mut relay, &mut alice, &bob, "1");
    let second = held_for_bob(&mut relay, &mut alice, &bob, "2");
    give(&mut bob, &second);
    let events = bob.events();
    assert_eq!(
        events[0],
        Event::Gap {
            user: "alice".into(),
            device: alice.device(),
            missing: 1
        }
    );
    assert!(matches!(&events[1], Event::Message(_)));
    give(
        &mut bob,
        &Held {
            position: second.position + 1,
            ..first
        },
    );
    assert_eq!(bob.texts(), ["1"]);
}

/// docs/protocol.md §5.2
#[test]
fn new_epoch_starts_positions_again() {
    let (mut relay, mut alice, mut bob) = acquainted();
    relay.epoch = [1; 16];
    relay.next_position = 0;
    relay.connect(&mut bob);
    assert_eq!(bob.engine.position(), 0);
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn mailbox_put_back_to_an_earlier_state_loses_no_new_message() {
    let (mut relay, mut alice, mut bob) = acquainted();
    assert!(bob.engine.position() > 0);
    relay.next_position = 0;
    relay.connect(&mut bob);
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn inbox_that_nobody_reads_acknowledges_no_more_and_then_reads_no_more() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let mut position = held.position;
    let mut acknowledged = 0;
    while bob.engine.may_read() {
        if bob.engine.has_room() {
            acknowledged += 1;
        }
        position += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&position.to_be_bytes());
        give(
            &mut bob,
            &Held {
                position,
                id,
                message: vec![0],
                ..held.clone()
            },
        );
    }
    assert_eq!((acknowledged, bob.engine.inbox.len()), (512, 1_024));
    // A new link is read until the device is in.
    bob.engine.handle_disconnected();
    assert!(bob.engine.may_read() && !bob.engine.has_room());
    relay.connect(&mut bob);
    assert!(!bob.engine.may_read());
    bob.events();
    assert!(bob.engine.may_read() && bob.engine.has_room());
}

#[test]
fn receipts_that_nobody_reads_hold_up_no_message_and_displace_none() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    for missing in 1..4_000 {
        bob.push_event(Event::Gap {
            user: "alice".into(),
            device: alice.device(),
            missing,
        });
    }
    assert_eq!(bob.engine.inbox.len(), 3_000);
    assert!(bob.engine.has_room());
    give(&mut bob, &held);
    assert_eq!(bob.engine.inbox.len(), 3_001);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn delivery_to_a_device_that_never_had_a_token_is_the_relays_fault() {
    let mut engine = open(
        &SharedStore::default(),
        Options {
            delivery_receipts: true,
            only_verified: false,
        },
    )
    .unwrap();
    let device = Thumbprint::from_bytes([1; 32]);
    let deliver = Deliver {
        position: 1,
        id: [1; 16],
        user: "alice",
        device,
        time: 1,
        message: b"x",
    };
    assert!(matches!(
        engine.handle_deliver(&deliver, START),
        Err(Fatal::Relay(RelayFault::Unasked))
    ));
}

#[test]
fn change_of_devices_and_failures_are_kept_when_receipts_are_dropped() {
    let (relay, mut alice, bob) = acquainted();
    let push = Toy::push_event;
    for missing in 1..3_100 {
        let gap = Event::Gap {
            user: "bob".into(),
            device: bob.device(),
            missing,
        };
        push(&mut alice, gap);
    }
    let changed = |added: &[u8], was_verified| Event::PeerChanged {
        user: "bob".into(),
        added: added
            .iter()
            .map(|n| Thumbprint::from_bytes([*n; 32]))
            .collect(),
        removed: vec![],
        was_verified,
    };
    let failed = Event::NotSent {
        id: crate::message::MessageId([1; 16]),
        user: "bob".into(),
        reason: crate::event::NotSent::PeerChanged,
    };
    push(&mut alice, changed(&[1], true));
    push(&mut alice, failed.clone());
    for n in 2..=255 {
        push(&mut alice, changed(&[n], false));
    }
    alice.crash();
    relay.connect(&mut alice);
    let events = alice.events();
    assert_eq!(events.len(), 3_000);
    let told: Vec<u8> = (1..=64).collect();
    assert_eq!(events[2_998..], [changed(&told, true), failed]);
}

/// What the relay says of a message that does not open is not what decides whether one that does is shown.
#[test]
fn garbage_under_the_id_of_a_message_does_not_hide_it() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let garbage = Held {
        message: b"garbage".to_vec(),
        ..held.clone()
    };
    give(&mut bob, &garbage);
    let held = Held {
        position: held.position + 1,
        ..held
    };
    give(&mut bob, &held);
    let events = bob.events();
    assert_eq!(events[0], undecryptable(&garbage));
    assert!(matches!(&events[1..], [Event::Message(_)]), "{events:?}");
}

#[test]
fn receipt_relabelled_by_the_relay_does_not_hide_a_message() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(bob.send("alice", "hello"));
    relay.pump(&mut [&mut bob]);
    relay.deliver(&mut alice);
    relay.pump(&mut [&mut alice]);
    let receipt = relay.mailbox(&bob).pop().unwrap();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let relabelled = Held {
        id: held.id,
        ..receipt
    };
    give(&mut bob, &relabelled);
    give(&mut bob, &held);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn read_from_whom_nothing_was_written_to_is_no_event() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    alice.events();
    let ids = [[3; 16]; 200];
    let read = Kind::Read(MessageIds::from(ids.as_slice()));
    drop(bob.send("alice", "hello"));
    relay.pump(&mut [&mut bob, &mut alice]);
    alice.events();
    lie(&mut bob, "alice", alice.device(), read, [8; 16]);
    relay.pump(&mut [&mut bob, &mut alice]);
    assert!(alice.events().is_empty());
}

#[test]
fn mail_of_unknown_devices_leaves_no_row() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let held = held_for_bob(&mut relay, &mut alice, &bob, "hello");
    let sessions = |bob: &Toy| bob.engine.vault.rows(Table::Sessions).unwrap().len();
    let before = sessions(&bob);
    for n in 1..50 {
        let stranger = Held {
            position: held.position + u64::from(n),
            device: Thumbprint::from_bytes([n; 32]),
            ..held.clone()
        };
        give(&mut bob, &stranger);
    }
    assert_eq!(sessions(&bob), before);
}
