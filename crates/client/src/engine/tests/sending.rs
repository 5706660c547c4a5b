//! Messages on their way out.

use super::*;
use crate::client::Unheard;
use crate::error::{Misuse, Refusal};
use crate::event::NotSent;

#[test]
fn message_arrives_and_its_receipt_comes_back() {
    let (mut relay, mut alice, mut bob) = acquainted();
    alice.events();
    let mut receipt = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    assert_eq!(receipt.to_all.try_recv(), Ok(Ok(())));
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
    let Some(Request::Send { request, entry }) = alice.poll() else {
        panic!()
    };
    assert!(answer.is_waiting());
    relay.serve_send(&mut alice, request, entry);
    assert!(answer.is_waiting(), "nothing is committed");
    alice.settle();
    let mut receipt = answer.receipt();
    assert!(receipt.to_all.try_recv().is_err());
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(receipt.to_all.try_recv(), Ok(Ok(())));
}

#[test]
fn crash_between_commit_and_network_sends_the_same_bytes_later() {
    let (mut relay, mut alice, mut bob) = acquainted();
    drop(alice.send("bob", "hello"));
    let Some(Request::Send { entry, .. }) = alice.poll() else {
        panic!()
    };
    let before = outgoing(&alice, entry);
    alice.crash();
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(relay.sent.len(), 2); // and bob's receipt
    assert_eq!(relay.sent[0], before);
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn answer_lost_with_the_link_resends_the_same_bytes_and_is_shown_once() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut answer = alice.send("bob", "hello");
    let Some(Request::Send { entry, .. }) = alice.poll() else {
        panic!()
    };
    // The relay takes it, and its answer is lost.
    let sent = outgoing(&alice, entry);
    relay.accept(&alice, sent.clone());
    alice.engine.handle_disconnected();
    assert!(alice.poll().is_none());
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(relay.sent[0], sent);
    answer.receipt();
    assert_eq!(bob.texts(), ["hello"]);
}

#[test]
fn failed_commit_gives_nothing_out() {
    let (_, mut alice, _) = acquainted();
    *alice.store.broken.lock().unwrap() = true;
    let (answer, _reply) = oneshot::channel();
    let message = Message::text("hello");
    alice.engine.send("bob", &message, answer, START).unwrap();
    assert!(matches!(
        alice.engine.settle(START),
        Err(Fatal::Store(StoreError::Io(_)))
    ));
    assert!(_reply.is_empty());
    *alice.store.broken.lock().unwrap() = false;
    alice.crash();
    assert!(alice.engine.outbox.entries.is_empty());
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
        alice.settle();
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
    let id = crate::MessageId(relay.sent[0].id);
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
    assert!(alice.engine.outbox.entries.is_empty());
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
        alice.settle();
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
    let to_bob: Vec<_> = relay
        .sent
        .iter()
        .filter(|sent| sent.user == "bob")
        .collect();
    assert_eq!(to_bob[0].parts.len(), 1);
    assert_eq!(to_bob[1].parts.len(), 2);
    assert_eq!(to_bob[0].id, to_bob[1].id);
    assert!(to_bob[1].parts.contains(&to_bob[0].parts[0]));
    assert_eq!(bob.texts(), ["hello"]);
    assert_eq!(second.texts(), ["hello"]);
}

/// docs/protocol.md §5.2: a message for the old devices may be refused when one for the new ones would be accepted.
#[test]
fn message_for_new_devices_waits_for_one_to_the_old_ones() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("bob");
    relay.connect(&mut second);
    drop(alice.send("bob", "first"));
    let first = alice.poll().unwrap();
    relay.pump(&mut [&mut second]);
    alice.engine.handle_device_changed("bob").unwrap();
    while let Some(request) = alice.poll() {
        relay.serve(&mut alice, &request);
    }
    drop(alice.send("bob", "second"));
    let before = relay.sent.len();
    while let Some(request) = alice.poll() {
        relay.serve(&mut alice, &request);
    }
    assert_eq!(relay.sent.len(), before);
    relay.serve(&mut alice, &first);
    relay.pump(&mut [&mut alice, &mut bob, &mut second]);
    assert_eq!(bob.texts(), ["first", "second"]);
    assert_eq!(second.texts(), ["first", "second"]);
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
        rest.iter().all(|sent| sent.parts == first.parts),
        "what is sent again is the same"
    );
}

#[test]
fn own_other_device_gets_a_copy() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("alice");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second]);
    alice.engine.handle_device_changed("alice").unwrap();
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
    assert!(receipt.to_all.try_recv().is_err());
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
    let Some(Request::Send { request, .. }) = alice.poll() else {
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
    while alice.poll().is_some() {
        open += 1;
    }
    assert_eq!(open, limits::MAX_OPEN_REQUESTS - REQUESTS_BESIDE_SENDS);
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

/// docs/protocol.md §5.2
#[test]
fn message_and_copies_are_one_send_with_a_sequence_of_its_own() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("alice");
    relay.connect(&mut second);
    alice.engine.handle_device_changed("alice").unwrap();
    relay.pump(&mut [&mut second, &mut alice]);
    relay.sent.clear();
    for text in ["1", "2"] {
        drop(alice.send("bob", text));
    }
    relay.pump(&mut [&mut alice, &mut bob, &mut second]);
    let sent: Vec<_> = relay
        .sent
        .iter()
        .filter(|sent| sent.user == "bob")
        .collect();
    assert!(
        sent.iter()
            .all(|sent| sent.parts.len() == 1 && sent.copies.len() == 1)
    );
    assert!(sent[0].sequence < sent[1].sequence);
    assert_eq!(sent[0].copies[0].0, second.device());
}

/// docs/protocol.md §5.2
#[test]
fn refused_send_that_is_tried_again_has_another_sequence() {
    let (mut relay, mut alice, mut bob) = acquainted();
    relay.sent.clear();
    relay.refuse_sends = Some(RefusalCode::DevicesChanged);
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let sequences: BTreeSet<_> = relay.sent.iter().map(|sent| sent.sequence).collect();
    assert_eq!(sequences.len(), relay.sent.len());
    assert!(!sequences.contains(&0));
}

/// docs/protocol.md §5.2
#[test]
fn sequences_go_on_after_a_restart() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let before = relay.sent_by(alice.device());
    alice.crash();
    relay.connect(&mut alice);
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(relay.sent_by(alice.device()) > before);
    assert!(!alice.all_events().contains(&Event::StoreRestored));
}

#[test]
fn message_sent_again_under_the_same_id_is_shown_once() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let message = Message::text("once").with_id(crate::MessageId([7; 16]));
    for crash in [false, true, false] {
        let (answer, reply) = oneshot::channel();
        alice.engine.send("bob", &message, answer, START).unwrap();
        alice.settle();
        if crash {
            alice.crash();
            relay.connect(&mut alice);
        } else {
            relay.pump(&mut [&mut alice]);
            Answer(reply).receipt();
        }
    }
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["once"]);
}

/// It was killed before it heard that the relay did not take the first message, and the second was on its way.
#[test]
fn application_that_sends_again_is_told_what_became_of_the_first_attempt() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let send = |alice: &mut Toy, number: u8| {
        let message = Message::text(number.to_string()).with_id(crate::MessageId([number; 16]));
        let (answer, reply) = oneshot::channel();
        alice.engine.send("bob", &message, answer, START).unwrap();
        alice.engine.settle(START).unwrap();
        Answer(reply)
    };
    relay.refuse_sends = Some(RefusalCode::UnknownUser);
    drop(send(&mut alice, 1));
    relay.pump(&mut [&mut alice]);
    drop(send(&mut alice, 2));
    relay.refuse_sends = None;
    alice.crash();
    let (mut first, second) = (send(&mut alice, 1), send(&mut alice, 2));
    assert!(matches!(
        first.error(),
        Error::Refused(Refusal::UnknownUser)
    ));
    // Told once, and may be sent once more then.
    let failed = |event: &Event| matches!(event, Event::NotSent { .. });
    assert!(!alice.events().iter().any(failed));
    relay.connect(&mut alice);
    second.receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    send(&mut alice, 1).receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    alice.crash();
    assert!(!alice.events().iter().any(failed));
    assert_eq!(bob.texts(), ["2", "1"]);
}

#[test]
fn everybody_who_sends_the_same_message_gets_a_receipt_of_it() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let message = Message::text("once").with_id(crate::MessageId([7; 16]));
    let send = |alice: &mut Toy| {
        let (answer, reply) = oneshot::channel();
        alice.engine.send("bob", &message, answer, START).unwrap();
        alice.settle();
        Answer(reply)
    };
    let (mut first, mut second) = (send(&mut alice), send(&mut alice));
    relay.pump(&mut [&mut alice]);
    let mut third = send(&mut alice);
    let receipts = [&mut first, &mut second, &mut third].map(Answer::receipt);
    relay.pump(&mut [&mut alice, &mut bob]);
    for mut receipt in receipts {
        assert_eq!(receipt.to_one.try_recv(), Ok(Ok(())));
        assert_eq!(receipt.to_all.try_recv(), Ok(Ok(())));
    }
    assert_eq!(bob.texts(), ["once"]);
}

#[test]
fn what_becomes_of_a_message_is_told_although_its_content_is_gone() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let text = "x".repeat(65_536);
    let mut receipts = Vec::new();
    for _ in 0..130 {
        let answer = alice.send("bob", &text);
        receipts.push(answer.receipt_after(&mut relay, &mut [&mut alice]));
    }
    assert!(alice.engine.undelivered.bytes() <= 8 << 20);
    // Nobody could get the first one again.
    alice.crash();
    relay.later += 1_000;
    relay.connect(&mut alice);
    assert!(alice.engine.undelivered.bytes() <= 8 << 20);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts().len(), 130);
    relay.pump(&mut [&mut alice, &mut bob]);
    let delivered = |event: &&Event| matches!(event, Event::Delivered { .. });
    assert_eq!(alice.events().iter().filter(delivered).count(), 130);
    assert_eq!(alice.engine.undelivered.bytes(), 0);
}

#[test]
fn receipt_waits_for_every_device() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("bob");
    relay.connect(&mut second);
    relay.pump(&mut [&mut second]);
    // Only whom one has written to is told anything.
    drop(second.send("alice", "hello"));
    relay.pump(&mut [&mut second, &mut alice]);
    let mut receipt = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice]);
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(receipt.to_one.try_recv(), Ok(Ok(())));
    assert!(receipt.to_all.try_recv().is_err());
    relay.pump(&mut [&mut alice, &mut second]);
    assert_eq!(receipt.to_all.try_recv(), Ok(Ok(())));
}

#[test]
fn id_of_a_message_to_somebody_else_is_refused() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let message = Message::text("once").with_id(crate::MessageId([7; 16]));
    let send = |alice: &mut Toy, user: &str| {
        let (answer, reply) = oneshot::channel();
        alice.engine.send(user, &message, answer, START).unwrap();
        alice.settle();
        Answer(reply)
    };
    assert!(send(&mut alice, "bob").is_waiting());
    for _ in 0..2 {
        let error = send(&mut alice, "carol").error();
        assert!(matches!(error, Error::Misuse(Misuse::MessageIdInUse)));
        relay.pump(&mut [&mut alice]);
    }
    relay.pump(&mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(), ["once"]);
}

/// What is heard of a message may come before the relay's answer to it: also over a crash.
#[test]
fn what_was_heard_before_the_answer_counts_after_a_crash() {
    use crate::event::NotDelivered;
    for heard in [Ok(()), Err(NotDelivered::DeviceRemoved)] {
        let (mut relay, mut alice, bob) = acquainted();
        drop(alice.send("bob", "hello"));
        let Some(Request::Send { entry, .. }) = alice.poll() else {
            panic!()
        };
        let sent = outgoing(&alice, entry);
        relay.accept(&alice, sent.clone());
        let mut txn = alice.engine.begin();
        let bob_user = "bob".into();
        let from = heard.is_ok().then_some(&bob_user);
        alice
            .engine
            .hear(&mut txn, sent.id, bob.device(), heard, from)
            .unwrap();
        alice.engine.stage(txn);
        alice.settle();
        alice.crash();
        relay.connect(&mut alice);
        relay.pump(&mut [&mut alice]);
        assert_eq!(alice.engine.undelivered.user_of(sent.id), None);
        let events = alice.events();
        let told = |event: &&Event| {
            let delivered = matches!(event, Event::Delivered { id, .. } if id.0 == sent.id);
            let not = matches!(event, Event::NotDelivered { id, .. } if id.0 == sent.id);
            delivered && heard.is_ok() || not && heard.is_err()
        };
        assert_eq!(events.iter().filter(told).count(), 1, "{events:?}");
    }
}

#[test]
fn refusal_is_an_event_unless_its_caller_has_heard_it() {
    for heard in [true, false] {
        let (mut relay, mut alice, mut bob) = acquainted();
        alice.events();
        relay.refuse_sends = Some(RefusalCode::MailboxFull);
        let mut answer = alice.send("bob", "hello");
        if heard {
            relay.pump(&mut [&mut alice, &mut bob]);
            answer.error();
        } else {
            drop(answer);
            relay.pump(&mut [&mut alice, &mut bob]);
        }
        alice.settle();
        let told = |event: &Event| matches!(event, Event::NotSent { .. });
        assert_eq!(alice.events().iter().any(told), !heard);
    }
}

#[test]
fn refusal_that_a_crash_kept_from_its_caller_is_an_event() {
    let (mut relay, mut alice, mut bob) = acquainted();
    relay.refuse_sends = Some(RefusalCode::MailboxFull);
    let _answer = alice.send("bob", "hello");
    let Some(Request::Send { request, .. }) = alice.poll() else {
        panic!()
    };
    let refused = Reply::Refused(RefusalCode::MailboxFull);
    alice.engine.handle_reply(request, &refused, START).unwrap();
    alice.settle();
    alice.crash();
    relay.refuse_sends = None;
    relay.connect(&mut alice);
    relay.pump(&mut [&mut alice, &mut bob]);
    let told = |event: &Event| matches!(event, Event::NotSent { .. });
    assert!(alice.events().iter().any(told));
}

/// docs/protocol.md §9.3
#[test]
fn stranger_is_not_told_what_arrived_or_was_read() {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    bob.events();
    drop(alice.send("bob", "hello"));
    relay.pump(&mut [&mut alice, &mut bob]);
    let Some(Given {
        event: Event::Message(received),
        ..
    }) = bob.engine.next_event()
    else {
        panic!()
    };
    received.read();
    relay.pump(&mut [&mut alice, &mut bob]);
    assert!(alice.events().is_empty());
    assert!(relay.sent.iter().all(|sent| sent.user == "bob"));
}

#[test]
fn reading_is_told_with_the_message() {
    let (mut relay, mut alice, mut bob) = acquainted();
    alice.events();
    let id = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice])
        .id;
    relay.deliver(&mut bob);
    let Some(Given {
        event: Event::Message(received),
        ..
    }) = bob.engine.next_event()
    else {
        panic!()
    };
    received.read();
    relay.pump(&mut [&mut alice, &mut bob]);
    let (user, device) = ("bob".into(), bob.device());
    assert!(alice.events().contains(&Event::Read { id, user, device }));
    assert_eq!(bob.engine.inbox.len(), 0);
}

#[test]
fn receipts_that_wait_are_told_together() {
    let (mut relay, mut alice, mut bob) = acquainted();
    for _ in 0..10 {
        drop(alice.send("bob", "hello"));
    }
    relay.pump(&mut [&mut alice]);
    relay.sent.clear();
    bob.engine.handle_disconnected();
    relay.deliver(&mut bob);
    relay.connect(&mut bob);
    relay.pump(&mut [&mut bob, &mut alice]);
    assert_eq!(relay.sent.len(), 1);
    let told = |event: &Event| matches!(event, Event::Delivered { .. });
    assert_eq!(
        alice.events().iter().filter(|event| told(event)).count(),
        10
    );
}

#[test]
fn message_that_the_relay_gives_up_is_told_to_who_waits() {
    use crate::event::NotDelivered;
    use sealwire_protocol::frame::{Undelivered, UndeliveredReason};
    let (mut relay, mut alice, bob) = acquainted();
    let mut receipt = alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice]);
    let notice = |position, id, device| Undelivered {
        position,
        id,
        user: "bob",
        device,
        reason: UndeliveredReason::Expired,
    };
    let position = alice.engine.position();
    // Of another message, and of another device: nobody is told.
    for (more, id, device) in [
        (1, [9; 16], bob.device()),
        (2, receipt.id.0, Thumbprint::from_bytes([9; 32])),
    ] {
        let notice = notice(position + more, id, device);
        alice.engine.handle_undelivered(&notice).unwrap();
    }
    assert!(receipt.to_all.try_recv().is_err());
    let notice = notice(position + 3, receipt.id.0, bob.device());
    for _ in 0..2 {
        alice.engine.handle_undelivered(&notice).unwrap();
    }
    alice.settle();
    let expired = Unheard::NotDelivered(NotDelivered::Expired);
    assert_eq!(receipt.to_all.try_recv(), Ok(Err(expired)));
    let told = |event: &&Event| matches!(event, Event::NotDelivered { .. });
    assert_eq!(alice.events().iter().filter(told).count(), 1);
    assert_eq!(alice.engine.position(), position + 3);
}

#[test]
fn own_devices_hear_each_others_names_and_nobody_else_does() {
    let (mut relay, mut alice, mut bob) = acquainted();
    let mut second = Toy::new("alice");
    second.engine.set_device_name("phone", START).unwrap();
    relay.connect(&mut second);
    relay.pump(&mut [&mut second, &mut alice]);
    alice.engine.handle_device_changed("alice").unwrap();
    alice.engine.set_device_name("laptop", START).unwrap();
    relay.pump(&mut [&mut second, &mut alice, &mut bob]);
    let names = |relay: &mut ToyRelay, toy: &mut Toy, user: &str| {
        let (answer, mut reply) = oneshot::channel();
        toy.engine.devices(user, answer);
        relay.pump(&mut [toy]);
        let devices = reply.try_recv().unwrap().unwrap();
        let mut names: Vec<_> = devices.into_iter().map(|device| device.name).collect();
        names.sort();
        names
    };
    let both = [Some("laptop".into()), Some("phone".into())];
    assert_eq!(names(&mut relay, &mut alice, "alice"), both);
    assert_eq!(names(&mut relay, &mut second, "alice"), both);
    assert_eq!(names(&mut relay, &mut bob, "alice"), [None, None]);
}
