//! Messages on their way out.

use super::*;
use crate::error::{Misuse, Refusal};
use crate::event::NotSent;

#[test]
fn message_arrives_and_its_receipt_comes_back() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let mut receipt = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    assert_eq!(receipt.delivered.try_recv(), Ok(()));
    assert_eq!(bob.texts(), ["hello"]);
    let (id, device) = (receipt.id, bob.device());
    assert_eq!(
        alice.events(),
        [Event::Delivered {
            id,
            user: "bob".into(),
            device
        }]
    );
}

#[test]
fn send_is_not_answered_before_the_relay_has_it() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut answer = alice.send("bob", "hello");
    let Some(Request::Send { request, entry }) = alice.engine.poll_request(START).unwrap() else {
        panic!()
    };
    assert!(answer.is_waiting());
    relay.serve_send(&mut alice, request, entry);
    let mut receipt = answer.receipt();
    assert!(receipt.delivered.try_recv().is_err());
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(receipt.delivered.try_recv(), Ok(()));
}

#[test]
fn crash_between_commit_and_network_sends_the_same_bytes_later() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "hello"));
    let Some(Request::Send { entry, .. }) = alice.engine.poll_request(START).unwrap() else {
        panic!()
    };
    let before = alice
        .engine
        .outgoing(entry)
        .map(|send| (send.id, send.parts[0].message.to_vec()))
        .unwrap();
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(relay.sent.len(), 2); // and bob's receipt
    let (id, _, parts) = &relay.sent[0];
    assert_eq!((*id, parts[0].1.clone()), before);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn answer_lost_with_the_link_resends_the_same_bytes_and_is_shown_once() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut answer = alice.send("bob", "hello");
    let Some(Request::Send { entry, .. }) = alice.engine.poll_request(START).unwrap() else {
        panic!()
    };
    // The relay takes it, and its answer is lost.
    let outgoing = alice.engine.outgoing(entry).unwrap();
    let (id, message) = (outgoing.id, outgoing.parts[0].message.to_vec());
    relay.accepted.insert((alice.device(), id, bob.device()));
    relay.next_position += 1;
    let position = relay.next_position;
    let held = Held {
        position,
        id,
        user: "alice".into(),
        device: alice.device(),
        message: message.clone(),
    };
    relay.mailbox(&bob).push(held);
    alice.engine.handle_disconnected();
    assert!(alice.engine.poll_request(START).unwrap().is_none());
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(
        (relay.sent[0].0, relay.sent[0].2[0].1.clone()),
        (id, message)
    );
    answer.receipt();
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn failed_commit_gives_nothing_out() {
    let (_, mut alice, _) = acquainted();
    *alice.store.broken.lock().unwrap() = true;
    let (answer, _reply) = oneshot::channel();
    let sent = alice
        .engine
        .send("bob", &Message::text("hello"), answer, START);
    assert!(matches!(sent, Err(Fatal::Store(StoreError::Io(_)))));
    *alice.store.broken.lock().unwrap() = false;
    alice.crash();
    assert!(alice.engine.outbox.is_empty());
}

#[test]
fn message_written_offline_goes_out_with_the_next_link() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    alice.engine.handle_disconnected();
    let mut answer = alice.send("bob", "hello");
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(answer.is_waiting());
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn messages_arrive_in_the_order_in_which_they_were_sent() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    for text in ["1", "2", "3", "4"] {
        drop(alice.send("bob", text));
    }
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["1", "2", "3", "4"]);
}

#[test]
fn refused_message_is_an_error_and_does_not_come_back() {
    for (code, refusal) in [
        (RefusalCode::NotPermitted, Refusal::NotPermitted),
        (RefusalCode::MailboxFull, Refusal::MailboxFull),
        (RefusalCode::TooLarge, Refusal::TooLarge),
        (RefusalCode::RateLimited, Refusal::RateLimited),
    ] {
        let (mut relay, mut alice, mut bob) = acquainted();
        relay.refuse_sends = Some(code);
        let mut answer = alice.send("bob", "hello");
        relay.pump(&mut [&mut alice, &mut bob]);
        assert!(
            matches!(answer.error(), Error::Refused(given) if given == refusal),
            "{code:?}"
        );
        relay.refuse_sends = None;
        alice.crash();
        relay.connect(&mut alice);
        relay.pump(&mut [&mut alice, &mut bob]);
        assert!(bob.texts().is_empty(), "{code:?}");
        assert!(alice.events().is_empty(), "{code:?}");
    }
}

#[test]
fn refusal_that_nobody_waits_for_is_an_event() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "hello"));
    relay.refuse_sends = Some(RefusalCode::MailboxFull);
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    let id = crate::MessageId(relay.sent[0].0);
    let reason = NotSent::Refused(Refusal::MailboxFull);
    assert_eq!(
        alice.events(),
        [Event::NotSent {
            id,
            user: "bob".into(),
            reason
        }]
    );
}

#[test]
fn unknown_user_is_an_error() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let mut answer = alice.send("nobody", "hello");
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(matches!(
        answer.error(),
        Error::Refused(Refusal::UnknownUser)
    ));
    assert!(alice.engine.outbox.is_empty());
}

#[test]
fn message_to_oneself_without_another_device_is_an_error() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let mut answer = alice.send("alice", "note");
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(matches!(
        answer.error(),
        Error::Misuse(Misuse::NoOtherDevice)
    ));
}

#[test]
fn wrong_arguments_are_refused_before_anything_is_stored() {
    let (_, mut alice, _) = alice_and_bob();
    let rows = alice.store.rows.lock().unwrap().clone();
    assert!(matches!(
        alice.send("", "x").error(),
        Error::Misuse(Misuse::User)
    ));
    assert!(matches!(
        alice.send("a\nb", "x").error(),
        Error::Misuse(Misuse::User)
    ));
    assert!(matches!(
        alice.send("bob", &"x".repeat(65_537)).error(),
        Error::Misuse(Misuse::BodyTooLarge)
    ));
    for media_type in ["", "a/", "text", "text/plain\n", "téxt/plain"] {
        let (answer, reply) = oneshot::channel();
        let message = Message::new(media_type, b"x".as_slice());
        alice.engine.send("bob", &message, answer, START).unwrap();
        assert!(
            matches!(Answer(reply).error(), Error::Misuse(Misuse::MediaType)),
            "{media_type:?}"
        );
    }
    assert_eq!(*alice.store.rows.lock().unwrap(), rows);
}

#[test]
fn outbox_is_bounded() {
    let (_, mut alice, _) = alice_and_bob();
    alice.engine.handle_disconnected();
    for _ in 0..outbox::OUTBOX_LIMIT {
        assert!(alice.send("bob", "hello").is_waiting());
    }
    assert!(matches!(
        alice.send("bob", "hello").error(),
        Error::Misuse(Misuse::OutboxFull)
    ));
}

#[test]
fn largest_message_goes_through() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    let text = "x".repeat(65_536);
    alice
        .send("bob", &text)
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), [text]);
}

/// docs/protocol.md §5.2
#[test]
fn new_device_of_the_recipient_gets_the_message_and_the_old_one_the_same_bytes() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("bob");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second]);
    let mut answer = alice.send("bob", "hello");
    relay.pump(&mut [&mut alice, &mut bob, &mut second]);
    answer.receipt();
    let to_bob: Vec<_> = relay.sent.iter().filter(|sent| sent.1 == "bob").collect();
    assert_eq!(to_bob[0].2.len(), 1);
    assert_eq!(to_bob[1].2.len(), 2);
    assert_eq!(to_bob[0].0, to_bob[1].0);
    assert!(to_bob[1].2.contains(&to_bob[0].2[0]));
    assert_eq!(bob.texts(), ["hello"]);
    assert_eq!(second.texts(), ["hello"]);
}

/// docs/protocol.md §5.2
#[test]
fn devices_that_never_stop_changing_end_in_an_error() {
    let (mut relay, mut alice, mut bob) = acquainted();
    relay.refuse_sends = Some(RefusalCode::DevicesChanged);
    let mut answer = alice.send("bob", "hello");
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(matches!(
        answer.error(),
        Error::Refused(Refusal::DevicesChanged)
    ));
    assert_eq!(relay.sent.len(), 4);
    let (first, rest) = relay.sent.split_first().unwrap();
    assert!(
        rest.iter().all(|sent| sent == first),
        "what is sent again is the same"
    );
}

#[test]
fn own_other_device_gets_a_copy() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("alice");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second]);
    alice.engine.handle_device_changed("alice");
    let id = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob, &mut second])
        .id;
    assert_eq!(bob.texts(), ["hello"]);
    let events = second.events();
    let Some(Event::Copy { to, message }) = events
        .iter()
        .find(|event| matches!(event, Event::Copy { .. }))
    else {
        panic!("{events:?}")
    };
    assert_eq!(
        (&**to, message.id, message.message.as_text()),
        ("bob", id, Some("hello"))
    );
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, Event::Message(_)))
    );
}

#[test]
fn receipts_can_be_turned_off() {
    let (mut relay, mut alice, _) = alice_and_bob();
    let mut bob = Toy::with(
        "carol",
        Options {
            delivery_receipts: false,
            only_verified: false,
        },
    );
    relay.connect(&mut bob);
    relay.pump(&mut [&mut bob]);
    let mut receipt = alice
        .send("carol", "hello")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["hello"]);
    assert!(receipt.delivered.try_recv().is_err());
    assert!(alice.events().is_empty());
}

#[test]
fn receipt_that_comes_after_a_restart_is_still_an_event() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let id = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice])
        .id;
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut bob, &mut alice]);
    assert!(alice.events().contains(&Event::Delivered {
        id,
        user: "bob".into(),
        device: bob.device()
    }));
}

#[test]
fn reply_to_nothing_is_the_relays_fault() {
    let (_, mut alice, _) = alice_and_bob();
    let unasked = alice.engine.handle_reply(77, &Reply::Accepted, START);
    assert!(matches!(unasked, Err(Fatal::Relay(RelayFault::Unasked))));
}

#[test]
fn reply_of_the_wrong_kind_is_the_relays_fault() {
    let (_, mut alice, _) = acquainted();
    drop(alice.send("bob", "hello"));
    let Some(Request::Send { request, .. }) = alice.engine.poll_request(START).unwrap() else {
        panic!()
    };
    let cards: [CardEntry<'_>; 0] = [];
    let wrong =
        alice
            .engine
            .handle_reply(request, &Reply::Cards(List::from(cards.as_slice())), START);
    assert!(matches!(wrong, Err(Fatal::Relay(RelayFault::Unasked))));
}

/// docs/protocol.md §5: at most 64 requests open.
#[test]
fn open_requests_are_bounded() {
    let (_, mut alice, _) = acquainted();
    for _ in 0..100 {
        drop(alice.send("bob", "hello"));
    }
    let mut open = 0;
    while alice.engine.poll_request(START).unwrap().is_some() {
        open += 1;
    }
    assert_eq!(open, limits::MAX_OPEN_REQUESTS - REQUESTS_BESIDE_SENDS);
}

#[test]
fn message_that_needs_cards_again_does_not_hold_up_those_behind_it() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "behind"));
    // One of our own that was refused before it could be sealed, and is due again.
    let first = *alice.engine.outbox.first_key_value().unwrap().0;
    let mut waiting = Entry::stored(
        [9; 16],
        "carol".into(),
        super::super::outbox::Purpose::Delivered,
        zeroize::Zeroizing::new(vec![0]),
        Vec::new(),
    );
    waiting.stage = Stage::Later(START);
    alice.engine.outbox.insert(first - 1, waiting);
    assert_eq!(alice.engine.next_to_send(START), Some(first));
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["behind"]);
}

#[test]
fn message_that_cannot_go_now_wakes_nobody() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(bob.send("alice", "hello"));
    relay.pump(&mut [&mut bob]);
    relay.refuse_sends = Some(RefusalCode::RateLimited);
    // The receipt is refused, and put off.
    relay.pump(&mut [&mut alice]);
    assert!(alice.engine.poll_deadline().is_some());
    alice.engine.handle_disconnected();
    assert_eq!(alice.engine.poll_deadline(), None);
    relay.connect(&mut alice);
    assert!(alice.engine.poll_deadline().is_some());
    while alice.engine.may_send_now() {
        alice.engine.reserve_request();
    }
    assert_eq!(alice.engine.poll_deadline(), None);
}
