//! What a mailbox does, whatever is below it.
use super::faulty::FaultyDisk;
use super::*;

const FULL: PostError = PostError::Full {
    device: Thumbprint::from_bytes([1; 32]),
};

#[test]
fn mail_is_read_as_it_was_sent_and_in_order_before_it_is_durable() {
    let mailboxes = stepped();
    for sequence in 1..=3 {
        let count = send(&mailboxes, sequence, 1, &[sequence as u8; 10]).unwrap();
        assert_eq!(count, sequence);
    }
    let first = mailboxes.status(&device(1)).head - 2;
    let batch = mailboxes.read(&device(1), first, 10, 1_000, NOW).unwrap();
    assert_eq!(batch.last, first + 2);
    assert_eq!(
        batch.deliveries[0],
        Delivery::Mail(Mail {
            position: first + 1,
            id: id(2),
            from_user: Arc::new(user("alice")),
            from_device: device(ALICE),
            time_millis: NOW,
            message: Bytes::from_static(&[2; 10]),
        })
    );
    let status = mailboxes.status(&device(1));
    assert_eq!(status.epoch, mailboxes.epoch());
    assert_eq!((status.acknowledged, status.waiting), (0, 3));
    assert_eq!(held(&mailboxes, 1), (3, 30));
}

#[test]
fn reading_stops_at_its_bounds_but_always_gets_on() {
    let mailboxes = stepped();
    for sequence in 1..=4 {
        send(&mailboxes, sequence, 1, &[1; 100]).unwrap();
    }
    let base = mailboxes.status(&device(1)).head - 4;
    let read = |after, max_messages, max_bytes| {
        let batch = mailboxes
            .read(&device(1), after, max_messages, max_bytes, NOW)
            .unwrap();
        (batch.deliveries.len(), batch.last.saturating_sub(base))
    };
    assert_eq!(read(0, 2, usize::MAX), (2, 2));
    assert_eq!(read(base + 2, 0, usize::MAX), (1, 3));
    assert_eq!(read(0, 10, 1), (1, 1));
    assert_eq!(read(0, 10, 250), (2, 2));
    assert_eq!(read(base + 4, 10, usize::MAX), (0, 4));
    assert_eq!(read(u64::MAX, 10, usize::MAX), (0, u64::MAX - base));
}

#[test]
fn each_device_has_its_own_part_and_positions() {
    let mailboxes = stepped();
    send(&mailboxes, 1, 1, b"before").unwrap();
    let posted = post_parts(
        &mailboxes,
        2,
        &[(1, b"one"), (2, b"two")],
        &[(3, b"copy")],
        LIMITS,
    )
    .unwrap();
    let positions: Vec<_> = posted
        .positions()
        .map(|(device, position)| (*device, count(position)))
        .collect();
    assert_eq!(positions, [(device(1), 2), (device(2), 1), (device(3), 1)]);
    assert_eq!(messages(&mailboxes, 1), ["before", "one"]);
    assert_eq!(messages(&mailboxes, 2), ["two"]);
    assert_eq!(messages(&mailboxes, 3), ["copy"]);
    assert!(read_all(&mailboxes, 4).is_empty());
}

// docs/protocol.md §5.1
#[test]
fn a_repetition_adds_nothing_also_after_the_mail_is_gone() {
    let mailboxes = stepped();
    send(&mailboxes, 1, 1, b"once").unwrap();
    let again = post(&mailboxes, 1, 1, b"once", LIMITS).unwrap();
    assert!(again.is_repetition());
    assert_eq!(again.positions().count(), 0);
    assert_eq!(messages(&mailboxes, 1), ["once"]);
    mailboxes.flush();
    mailboxes.acknowledge(&device(1), u64::MAX);
    let again = post(&mailboxes, 1, 1, b"once", LIMITS).unwrap();
    assert!(again.is_repetition());
    assert_eq!(again.accepted().outcome(), Some(Ok(())));
    assert!(read_all(&mailboxes, 1).is_empty());
}

#[test]
fn a_repetition_is_accepted_although_the_mailbox_is_full() {
    let mailboxes = stepped();
    for sequence in 1..=5 {
        send(&mailboxes, sequence, 1, b"x").unwrap();
    }
    assert!(
        post(&mailboxes, 3, 1, b"x", LIMITS)
            .unwrap()
            .is_repetition()
    );
}

// docs/protocol.md §5.1
#[test]
fn sequence_below_an_accepted_one_is_known_within_a_window_of_64_or_too_late() {
    let mailboxes = stepped();
    for sequence in [1, 2, 63, 64] {
        assert!(
            !post(&mailboxes, sequence, 1, b"x", PLENTY)
                .unwrap()
                .is_repetition(),
            "{sequence}"
        );
    }
    assert_eq!(mailboxes.sent(&device(ALICE)), 64);
    for sequence in [64, 1, 63, 2] {
        assert!(
            post(&mailboxes, sequence, 1, b"x", PLENTY)
                .unwrap()
                .is_repetition(),
            "{sequence}"
        );
    }
    assert!(
        !post(&mailboxes, 65, 1, b"x", PLENTY)
            .unwrap()
            .is_repetition()
    );
    let stale = post(&mailboxes, 1, 1, b"x", PLENTY).map(drop);
    assert_eq!(stale, Err(PostError::Stale));
    let overtaken = post(&mailboxes, 3, 1, b"x", PLENTY).map(drop);
    assert_eq!(overtaken, Err(PostError::Overtaken));
    assert!(
        !post(&mailboxes, u64::MAX, 1, b"x", PLENTY)
            .unwrap()
            .is_repetition()
    );
    let stale = post(&mailboxes, 65, 1, b"x", PLENTY).map(drop);
    assert_eq!(stale, Err(PostError::Stale));
}

// docs/protocol.md §18.3
#[test]
fn posting_without_a_sequence_is_always_new_and_changes_nothing_of_those_that_have_one() {
    let disk = MemoryDisk::new();
    let open = || Mailboxes::open_stepped(Arc::new(disk.clone()), &options()).unwrap();
    let mailboxes = open();
    let is_repetition = |mailboxes: &Mailboxes, sequence| {
        let posted = post(mailboxes, sequence, 1, b"x", PLENTY).unwrap();
        let is_repetition = posted.is_repetition();
        let accepted = posted.accepted();
        while accepted.outcome().is_none() {
            mailboxes.flush();
        }
        assert_eq!(accepted.outcome(), Some(Ok(())));
        is_repetition
    };
    for (sequence, repetition) in [(0, false), (0, false), (1, false), (0, false), (1, true)] {
        assert_eq!(is_repetition(&mailboxes, sequence), repetition);
    }
    // Before they are durable, too.
    for _ in 0..2 {
        assert!(
            !post(&mailboxes, 0, 1, b"x", PLENTY)
                .unwrap()
                .is_repetition()
        );
    }
    assert_eq!(mailboxes.sent(&device(ALICE)), 1);
    mailboxes.close();
    let mailboxes = open();
    assert_eq!(mailboxes.sent(&device(ALICE)), 1);
    for (sequence, repetition) in [(1, true), (0, false), (2, false)] {
        assert_eq!(is_repetition(&mailboxes, sequence), repetition);
    }
    assert_eq!(messages(&mailboxes, 1).len(), 8);
}

#[test]
fn the_same_sequence_of_another_device_is_another_message() {
    let mailboxes = stepped();
    send(&mailboxes, 1, 1, b"alice").unwrap();
    let other = Posting {
        from_user: &user("mallory"),
        from_device: device(0xbb),
        sequence: 1,
        id: id(1),
        to_user: &user("bob"),
        parts: parts(&[(1, b"mallory")]),
        copies: Vec::new(),
    };
    assert!(
        !mailboxes
            .append(other, LIMITS, NOW)
            .unwrap()
            .is_repetition()
    );
    assert_eq!(messages(&mailboxes, 1), ["alice", "mallory"]);
    assert_eq!(mailboxes.sent(&device(0xbb)), 1);
    assert_eq!(mailboxes.sent(&device(1)), 0);
}

#[test]
fn acknowledging_is_cumulative_and_never_goes_back() {
    let mailboxes = stepped();
    for sequence in 1..=3 {
        send(&mailboxes, sequence, 1, &[sequence as u8]).unwrap();
    }
    let base = mailboxes.status(&device(1)).head - 3;
    assert_eq!(mailboxes.acknowledge(&device(1), base + 2), base + 2);
    assert_eq!(messages(&mailboxes, 1), [&[3_u8][..]]);
    assert_eq!(held(&mailboxes, 1), (1, 1));
    for back in [base + 1, base, 0] {
        assert_eq!(mailboxes.acknowledge(&device(1), back), base + 2);
    }
    assert_eq!(held(&mailboxes, 1), (1, 1));
}

#[test]
fn acknowledging_beyond_the_head_does_not_drop_what_comes_later() {
    let mailboxes = stepped();
    send(&mailboxes, 1, 1, b"first").unwrap();
    assert_eq!(count(mailboxes.acknowledge(&device(1), u64::MAX)), 1);
    send(&mailboxes, 2, 1, b"second").unwrap();
    assert_eq!(messages(&mailboxes, 1), ["second"]);
    assert_eq!(mailboxes.acknowledge(&device(2), 7), 0);
    send(&mailboxes, 3, 2, b"x").unwrap();
    assert_eq!(messages(&mailboxes, 2), ["x"]);
}

#[test]
fn acknowledging_does_not_touch_another_device() {
    let mailboxes = stepped();
    send(&mailboxes, 1, 1, b"one").unwrap();
    send(&mailboxes, 2, 2, b"two").unwrap();
    mailboxes.acknowledge(&device(1), u64::MAX);
    assert_eq!(messages(&mailboxes, 2), ["two"]);
}

#[test]
fn positions_go_on_after_everything_was_dropped() {
    let mailboxes = stepped();
    for sequence in 1..=3 {
        send(&mailboxes, sequence, 1, b"x").unwrap();
    }
    mailboxes.acknowledge(&device(1), u64::MAX);
    assert_eq!(held(&mailboxes, 1), (0, 0));
    assert_eq!(send(&mailboxes, 4, 1, b"x"), Ok(4));
    mailboxes.remove(&device(1), NOW).unwrap();
    assert_eq!(send(&mailboxes, 5, 1, b"x"), Ok(5));
}

#[test]
fn the_head_of_an_empty_mailbox_is_where_this_start_begins() {
    let mailboxes = stepped();
    let head = mailboxes.status(&device(1)).head;
    assert_eq!((start_of(head), count(head)), (1, 0));
    let appended = post(&mailboxes, 1, 1, b"x", LIMITS).unwrap();
    assert_eq!(appended.positions().next().unwrap().1, head + 1);
}

#[test]
fn a_mailbox_with_its_number_of_messages_is_full() {
    let mailboxes = stepped();
    for sequence in 1..=5 {
        send(&mailboxes, sequence, 1, b"x").unwrap();
    }
    assert_eq!(send(&mailboxes, 6, 1, b"x"), Err(FULL));
    // The refused one is not known as sent, and no position is lost.
    mailboxes.acknowledge(&device(1), mailboxes.status(&device(1)).head - 4);
    assert_eq!(send(&mailboxes, 6, 1, b"x"), Ok(6));
}

#[test]
fn a_mailbox_with_its_number_of_bytes_is_full() {
    let mailboxes = stepped();
    assert_eq!(send(&mailboxes, 1, 1, &[0; 1_001]), Err(FULL));
    send(&mailboxes, 1, 1, &[0; 1_000]).unwrap();
    assert_eq!(send(&mailboxes, 2, 1, b"x"), Err(FULL));
}

#[test]
fn one_sender_cannot_fill_the_mailbox_of_another() {
    let mailboxes = stepped();
    let limits = MailboxLimits {
        messages: 8 * MIN_SENDER_MESSAGES + 8,
        ..PLENTY
    };
    let share = MIN_SENDER_MESSAGES + 1;
    for sequence in 1..=share {
        post(&mailboxes, sequence, 1, b"x", limits).unwrap();
    }
    let quota = Err(PostError::Quota { device: device(1) });
    assert_eq!(
        post(&mailboxes, share + 1, 1, b"x", limits).map(drop),
        quota
    );
    // Another device of the same user has no share of its own, another user has.
    let bob = user("bob");
    let posting = |name| Posting {
        from_user: name,
        from_device: device(0xbb),
        sequence: 1,
        id: id(1),
        to_user: &bob,
        parts: parts(&[(1, b"x")]),
        copies: Vec::new(),
    };
    let alice = user("alice");
    let refused = mailboxes.append(posting(&alice), limits, NOW);
    assert_eq!(refused.map(drop), quota);
    let carol = user("carol");
    mailboxes.append(posting(&carol), limits, NOW).unwrap();
    // What is fetched is no longer counted.
    let first = mailboxes.read(&device(1), 0, 1, 1, NOW).unwrap().last;
    mailboxes.acknowledge(&device(1), first);
    post(&mailboxes, share + 1, 1, b"x", limits).unwrap();
}

#[test]
fn a_sender_s_share_is_bounded_in_bytes_too() {
    let mailboxes = stepped();
    let large = vec![0; protocol_limits::MAX_SEALED_MESSAGE_BYTES];
    let limits = MailboxLimits {
        bytes: 5 * MIN_SENDER_BYTES,
        ..PLENTY
    };
    for sequence in 1..=4 {
        post(&mailboxes, sequence, 1, &large, limits).unwrap();
        mailboxes.flush();
    }
    assert_eq!(
        post(&mailboxes, 5, 1, b"x", limits).map(drop),
        Err(PostError::Quota { device: device(1) })
    );
}

// docs/protocol.md §5.5
#[test]
fn the_device_s_own_limits_hold_while_it_is_away_and_never_raise_the_relay_s() {
    let mailboxes = stepped();
    let own = MailboxLimits {
        messages: 1,
        bytes: u64::MAX,
        retention_seconds: 60,
    };
    mailboxes.limit(&device(1), own);
    assert_eq!(send(&mailboxes, 1, 1, &[0; 1_001]), Err(FULL));
    send(&mailboxes, 1, 1, b"x").unwrap();
    assert_eq!(send(&mailboxes, 2, 1, b"x"), Err(FULL));
    mailboxes.flush();
    assert_eq!(mailboxes.sweep(NOW + 60_000).unwrap().undelivered, 1);
    mailboxes.limit(&device(1), PLENTY);
    for sequence in 4..=8 {
        send(&mailboxes, sequence, 1, b"x").unwrap();
    }
    assert_eq!(send(&mailboxes, 9, 1, b"x"), Err(FULL));
}

// docs/protocol.md §5.2: accepted as a whole or refused as a whole
#[test]
fn one_full_mailbox_refuses_every_part() {
    let mailboxes = stepped();
    for sequence in 1..=5 {
        send(&mailboxes, sequence, 1, b"x").unwrap();
    }
    let three: &[(u8, &[u8])] = &[(2, b"x"), (1, b"x"), (3, b"x")];
    let refused = post_parts(&mailboxes, 6, three, &[(4, b"x")], LIMITS);
    assert_eq!(refused.map(drop), Err(FULL));
    for other in 2..=4 {
        assert_eq!(held(&mailboxes, other), (0, 0));
    }
    assert_eq!(mailboxes.sent(&device(ALICE)), 5);
    assert_eq!(send(&mailboxes, 6, 2, b"x"), Ok(1));
}

/// A posting of the user alice to herself.
fn note(mailboxes: &Mailboxes, sequence: u64, to: &[u8]) -> Result<Appended, PostError> {
    let alice = user("alice");
    let posting = Posting {
        from_user: &alice,
        from_device: device(ALICE),
        sequence,
        id: id(sequence),
        to_user: &alice,
        parts: to
            .iter()
            .map(|to| (device(*to), Bytes::from_static(b"x")))
            .collect(),
        copies: Vec::new(),
    };
    mailboxes.append(posting, LIMITS, NOW)
}

fn left_out(delivery: &Delivery) -> (u128, u8) {
    let Delivery::Undelivered(undelivered) = delivery else {
        panic!("{delivery:?}");
    };
    assert_eq!(undelivered.reason, UndeliveredReason::MailboxFull);
    assert_eq!(*undelivered.user, user("alice"));
    let device = undelivered.device.as_bytes()[0];
    (u128::from_be_bytes(undelivered.id), device)
}

// docs/protocol.md §5.2
#[test]
fn a_device_of_the_sender_s_own_without_room_is_left_out_and_told() {
    const IDLE: u8 = 7;
    let mailboxes = stepped();
    for sequence in 1..=5 {
        let copies: &[(u8, &[u8])] = &[(IDLE, b"copy")];
        let to = 10 + sequence as u8;
        post_parts(&mailboxes, sequence, &[(to, b"x")], copies, LIMITS).unwrap();
    }
    assert_eq!(held(&mailboxes, IDLE), (5, 20));
    let copies: &[(u8, &[u8])] = &[(IDLE, b"copy"), (8, b"copy")];
    let posted = post_parts(&mailboxes, 6, &[(1, b"x"), (2, b"x")], copies, LIMITS).unwrap();
    let grown: Vec<_> = posted.positions().map(|(device, _)| *device).collect();
    assert_eq!(grown, [device(1), device(2), device(8)]);
    let accepted = posted.accepted();
    assert_eq!(held(&mailboxes, IDLE), (5, 20));
    assert_eq!(mailboxes.sent(&device(ALICE)), 6);

    // That all others have it is not enough: the notice must not be lost, nor told before it is certain.
    for of in [1, 2, 8] {
        mailboxes.acknowledge(&device(of), u64::MAX);
    }
    assert_eq!(accepted.outcome(), None);
    assert!(read_all(&mailboxes, ALICE).is_empty());
    let repeated = post_parts(&mailboxes, 6, &[(1, b"x")], copies, LIMITS).unwrap();
    assert!(repeated.is_repetition());
    let repeated = repeated.accepted();
    assert_eq!(repeated.outcome(), None);
    mailboxes.flush();
    assert_eq!(
        (accepted.outcome(), repeated.outcome()),
        (Some(Ok(())), Some(Ok(())))
    );
    let told = read_all(&mailboxes, ALICE);
    assert_eq!(told.iter().map(left_out).collect::<Vec<_>>(), [(6, IDLE)]);
    mailboxes.acknowledge(&device(ALICE), u64::MAX);

    // A repetition says and does nothing, also when there is room again.
    mailboxes.acknowledge(&device(IDLE), u64::MAX);
    let again = post_parts(&mailboxes, 6, &[(1, b"x")], copies, LIMITS).unwrap();
    assert!(again.is_repetition());
    assert_eq!(held(&mailboxes, IDLE), (0, 0));
    mailboxes.flush();
    assert!(read_all(&mailboxes, ALICE).is_empty());
    post_parts(&mailboxes, 7, &[(1, b"x")], copies, LIMITS).unwrap();
    assert_eq!(held(&mailboxes, IDLE).0, 1);
}

// docs/protocol.md §5.2
#[test]
fn a_message_to_oneself_leaves_out_who_has_no_room_as_long_as_somebody_has() {
    let mailboxes = stepped();
    for sequence in 1..=5 {
        note(&mailboxes, sequence, &[1]).unwrap();
    }
    note(&mailboxes, 6, &[1, 2]).unwrap();
    assert_eq!((held(&mailboxes, 1).0, held(&mailboxes, 2).0), (5, 1));
    assert_eq!(note(&mailboxes, 7, &[1]).map(drop), Err(FULL));
    assert_eq!(mailboxes.sent(&device(ALICE)), 6);
    mailboxes.flush();
    let told = read_all(&mailboxes, ALICE);
    assert_eq!(told.iter().map(left_out).collect::<Vec<_>>(), [(6, 1)]);
}

#[test]
fn copies_take_half_of_an_idle_device_s_mailbox_and_leave_the_rest_to_others() {
    const IDLE: u8 = 7;
    let mailboxes = stepped();
    let limits = MailboxLimits {
        messages: 100,
        ..PLENTY
    };
    let copies: &[(u8, &[u8])] = &[(IDLE, b"copy")];
    for sequence in 1..=60 {
        let posted = post_parts(&mailboxes, sequence, &[(1, b"x")], copies, limits);
        let reached = posted.unwrap().positions().count();
        assert_eq!(reached, if sequence <= 50 { 2 } else { 1 }, "{sequence}");
        mailboxes.acknowledge(&device(1), u64::MAX);
    }
    mailboxes.flush();
    assert_eq!(read_all(&mailboxes, ALICE).len(), 10);
    let (bob, alice) = (user("bob"), user("alice"));
    let posting = Posting {
        from_user: &bob,
        from_device: device(1),
        sequence: 1,
        id: id(1),
        to_user: &alice,
        parts: parts(&[(ALICE, b"x"), (IDLE, b"x")]),
        copies: Vec::new(),
    };
    assert_eq!(
        mailboxes
            .append(posting, limits, NOW)
            .unwrap()
            .positions()
            .count(),
        2
    );
}

#[test]
fn a_sender_that_reads_no_notices_is_told_of_so_many_left_out_and_not_kept_from_sending() {
    let mailboxes = stepped();
    let own = MailboxLimits {
        messages: 0,
        ..PLENTY
    };
    mailboxes.limit(&device(7), own);
    let copies: &[(u8, &[u8])] = &[(7, b"copy")];
    let count = u64::from(index::MAX_NOTICES) + 2;
    for sequence in 1..=count {
        let posted = post_parts(&mailboxes, sequence, &[(1, b"x")], copies, PLENTY).unwrap();
        mailboxes.flush();
        assert_eq!(posted.accepted().outcome(), Some(Ok(())));
    }
    let told = read_all(&mailboxes, ALICE);
    assert_eq!(told.len(), index::MAX_NOTICES as usize);
    assert_eq!(held(&mailboxes, 1).0, count);
}

#[test]
fn a_posting_out_of_form_is_refused() {
    let mailboxes = stepped();
    let many: Vec<(u8, &[u8])> = (0..17).map(|n| (n, b"x".as_slice())).collect();
    let copies: Vec<(u8, &[u8])> = (100..116).map(|n| (n, b"x".as_slice())).collect();
    let large = vec![0; protocol_limits::MAX_SEALED_MESSAGE_BYTES + 1];
    let none: &[(u8, &[u8])] = &[];
    for (parts, copies) in [
        (none, none),
        (none, &copies[..1]),
        (&many, none),
        (&many[..1], &copies),
        (&[(1, b"x"), (1, b"y")], none),
        (&[(1, b"x")], &[(1, b"y")]),
        (&[(1, b"x"), (2, b"")], none),
        (&[(1, b"x")], &[(2, b"")]),
        (&[(1, large.as_slice())], none),
        (&[(1, b"x"), (ALICE, b"x")], none),
        (&[(1, b"x")], &[(ALICE, b"x")]),
    ] {
        let refused = post_parts(&mailboxes, 1, parts, copies, PLENTY);
        assert_eq!(refused.map(drop), Err(PostError::Parts));
    }
    assert_eq!(mailboxes.sent(&device(ALICE)), 0);
    let most = post_parts(&mailboxes, 1, &many[..16], &copies[..15], PLENTY).unwrap();
    assert_eq!(most.positions().count(), 31);
}

// docs/protocol.md §5.2
#[test]
fn mail_that_is_too_old_is_told_to_its_sender() {
    let mailboxes = stepped();
    post_parts(&mailboxes, 1, &[(1, b"old")], &[(3, b"old")], LIMITS).unwrap();
    mailboxes.flush();
    let before = mailboxes.sweep(NOW + 3_600_000 - 1).unwrap();
    assert_eq!(before, Swept::default());
    let swept = mailboxes.sweep(NOW + 3_600_000).unwrap();
    assert_eq!(
        swept,
        Swept {
            undelivered: 2,
            notices: 0,
            ring: vec![device(ALICE)],
            more: false,
            waits: false,
        }
    );
    assert_eq!((held(&mailboxes, 1), held(&mailboxes, 3)), ((0, 0), (0, 0)));
    let notices = read_all(&mailboxes, ALICE);
    let expected = |position, name, of| {
        Delivery::Undelivered(Undelivered {
            position,
            id: id(1),
            user: Arc::new(user(name)),
            device: device(of),
            reason: UndeliveredReason::Expired,
        })
    };
    let first = notices[0].position();
    let mut all = vec![expected(first, "bob", 1), expected(first + 1, "alice", 3)];
    if notices[0] != all[0] {
        all = vec![expected(first, "alice", 3), expected(first + 1, "bob", 1)];
    }
    assert_eq!(notices, all);
    let status = mailboxes.status(&device(ALICE));
    assert_eq!((status.waiting, status.held_messages), (2, 0));
    assert!(
        post(&mailboxes, 1, 1, b"old", LIMITS)
            .unwrap()
            .is_repetition()
    );
    // Notices are acknowledged like mail.
    mailboxes.acknowledge(&device(ALICE), first);
    assert_eq!(read_all(&mailboxes, ALICE), all[1..]);
}

#[test]
fn mail_that_is_not_durable_does_not_expire() {
    let mailboxes = stepped();
    let appended = post(&mailboxes, 1, 1, b"x", LIMITS).unwrap();
    assert_eq!(mailboxes.sweep(NOW + 3_600_000).unwrap(), Swept::default());
    assert_eq!(appended.accepted().outcome(), None);
    mailboxes.flush();
    assert_eq!(mailboxes.sweep(NOW + 3_600_000).unwrap().undelivered, 1);
}

#[test]
fn notices_expire_silently() {
    let mailboxes = stepped();
    send(&mailboxes, 1, 1, b"x").unwrap();
    mailboxes.flush();
    mailboxes.sweep(NOW + 3_600_000).unwrap();
    let late = NOW + 3_600_000 + 30 * 24 * 3_600_000;
    assert_eq!(mailboxes.sweep(late - 1).unwrap(), Swept::default());
    let swept = mailboxes.sweep(late).unwrap();
    assert_eq!((swept.undelivered, swept.notices), (0, 1));
    assert_eq!(swept.ring, []);
    assert!(read_all(&mailboxes, ALICE).is_empty());
}

#[test]
fn notices_are_bounded_and_do_not_count_against_the_mailbox() {
    let mailboxes = stepped();
    let limits = MailboxLimits {
        messages: u64::MAX,
        bytes: u64::MAX,
        ..LIMITS
    };
    let count = u64::from(index::MAX_NOTICES) + 50;
    for sequence in 1..=count {
        post(&mailboxes, sequence, 1, b"x", limits).unwrap();
        mailboxes.flush();
    }
    let mut undelivered = 0;
    loop {
        let swept = mailboxes.sweep(NOW + 3_600_000).unwrap();
        mailboxes.flush();
        undelivered += swept.undelivered as u64;
        if !swept.more {
            break;
        }
    }
    assert_eq!(undelivered, count);
    let status = mailboxes.status(&device(ALICE));
    assert_eq!(status.waiting, u64::from(index::MAX_NOTICES));
    // Only mail is counted.
    assert_eq!(held(&mailboxes, ALICE), (0, 0));
    for sequence in 1..=5 {
        let posting = Posting {
            from_user: &user("bob"),
            from_device: device(1),
            sequence,
            id: id(sequence),
            to_user: &user("alice"),
            parts: parts(&[(ALICE, b"x")]),
            copies: Vec::new(),
        };
        mailboxes.append(posting, LIMITS, NOW).unwrap();
    }
}

#[test]
fn sweeping_does_a_bounded_amount_at_a_time() {
    let mailboxes = stepped();
    for sequence in 1..=1_500 {
        post(&mailboxes, sequence, 1, b"x", limits_of(u64::MAX)).unwrap();
        mailboxes.flush();
    }
    let first = mailboxes.sweep(NOW + 3_600_000).unwrap();
    assert_eq!((first.undelivered, first.more), (1_024, true));
    mailboxes.flush();
    let second = mailboxes.sweep(NOW + 3_600_000).unwrap();
    assert_eq!((second.undelivered, second.more), (476, false));
}

fn limits_of(messages: u64) -> MailboxLimits {
    MailboxLimits {
        messages,
        bytes: u64::MAX,
        ..LIMITS
    }
}

#[test]
fn a_removed_mailbox_is_told_to_its_senders_and_read_no_more() {
    let mailboxes = stepped();
    for sequence in 1..=3 {
        send(&mailboxes, sequence, 1, b"x").unwrap();
    }
    mailboxes.limit(&device(1), limits_of(3));
    mailboxes.flush();
    let swept = mailboxes.remove(&device(1), NOW).unwrap();
    assert_eq!((swept.undelivered, swept.more), (3, false));
    assert_eq!(swept.ring, [device(ALICE)]);
    assert!(read_all(&mailboxes, 1).is_empty());
    let reasons: Vec<_> = read_all(&mailboxes, ALICE)
        .into_iter()
        .map(|delivery| match delivery {
            Delivery::Undelivered(undelivered) => (undelivered.id, undelivered.reason),
            other => panic!("{other:?}"),
        })
        .collect();
    let removed = UndeliveredReason::DeviceRemoved;
    assert_eq!(
        reasons,
        [(id(1), removed), (id(2), removed), (id(3), removed)]
    );
    // Should it come back: nothing of before, and its limits are those of the relay.
    for sequence in 4..=8 {
        send(&mailboxes, sequence, 1, b"new").unwrap();
    }
    assert_eq!(messages(&mailboxes, 1).len(), 5);
    assert_eq!(mailboxes.remove(&device(9), NOW), Ok(Swept::default()));
}

#[test]
fn sweep_that_the_queue_has_no_room_for_says_that_it_waits_and_goes_on_once_there_is() {
    let options = MailOptions {
        queue_bytes: 1,
        segment_bytes: 4 << 20,
        ..options()
    };
    let disk = Arc::new(MemoryDisk::new());
    let mailboxes = Mailboxes::open_stepped(disk, &options).unwrap();
    let flush = || while mailboxes.flush() {};
    for sequence in 1..=3 {
        send(&mailboxes, sequence, 1, b"x").unwrap();
        flush();
    }
    // The removal itself takes the place.
    assert_eq!(mailboxes.remove(&device(1), NOW).unwrap().undelivered, 0);
    for left in (0..3).rev() {
        flush();
        let swept = mailboxes.sweep(NOW).unwrap();
        assert_eq!((swept.undelivered, swept.waits), (1, left > 0));
    }
}

#[test]
fn what_was_not_durable_when_its_mailbox_was_removed_is_told_later() {
    let mailboxes = stepped();
    send(&mailboxes, 1, 1, b"x").unwrap();
    let swept = mailboxes.remove(&device(1), NOW).unwrap();
    assert_eq!((swept.undelivered, swept.more), (0, true));
    assert!(read_all(&mailboxes, 1).is_empty());
    mailboxes.flush();
    assert_eq!(mailboxes.sweep(NOW).unwrap().undelivered, 1);
    assert_eq!(read_all(&mailboxes, ALICE).len(), 1);
}

// docs/protocol.md §5.2
#[test]
fn what_skips_a_sequence_and_what_comes_after_it_is_read_when_it_is_durable() {
    let mailboxes = stepped();
    for sequence in [1, 2] {
        let posted = post(&mailboxes, sequence, 1, b"next", LIMITS).unwrap();
        assert!(!posted.is_held());
    }
    // 3 was refused, and the device may not know.
    let skips = post(&mailboxes, 4, 1, b"skips", LIMITS).unwrap();
    let after = post(&mailboxes, 5, 2, b"after", LIMITS).unwrap();
    assert!(skips.is_held() && after.is_held());
    assert_eq!(messages(&mailboxes, 1), ["next", "next"]);
    assert!(read_all(&mailboxes, 2).is_empty());
    let other = Posting {
        from_user: &user("carol"),
        from_device: device(0xca),
        sequence: 1,
        id: id(1),
        to_user: &user("bob"),
        parts: parts(&[(2, b"other")]),
        copies: Vec::new(),
    };
    assert!(!mailboxes.append(other, LIMITS, NOW).unwrap().is_held());
    assert!(
        read_all(&mailboxes, 2).is_empty(),
        "a mailbox is read in the order of its positions"
    );
    mailboxes.flush();
    assert_eq!(messages(&mailboxes, 1), ["next", "next", "skips"]);
    assert_eq!(messages(&mailboxes, 2), ["after", "other"]);
    let next = post(&mailboxes, 6, 1, b"next", LIMITS).unwrap();
    assert!(!next.is_held());
}

#[test]
fn what_skips_a_sequence_is_never_read_where_the_disk_fails() {
    let disk = FaultyDisk::new();
    let mailboxes = Mailboxes::open_stepped(Arc::new(disk.clone()), &options()).unwrap();
    let skips = post(&mailboxes, 2, 1, b"x", LIMITS).unwrap().accepted();
    disk.fail_syncs(true);
    mailboxes.flush();
    assert_eq!(skips.outcome(), Some(Err(StorageError::Unavailable)));
    assert!(read_all(&mailboxes, 1).is_empty());
}

#[test]
fn accepted_means_durable_or_acknowledged() {
    let mailboxes = stepped();
    let durable = post(&mailboxes, 1, 1, b"x", LIMITS).unwrap().accepted();
    let repeated = post(&mailboxes, 1, 1, b"x", LIMITS).unwrap().accepted();
    let both: &[(u8, &[u8])] = &[(2, b"x"), (3, b"x")];
    let acknowledged = post_parts(&mailboxes, 2, both, &[(4, b"x")], LIMITS)
        .unwrap()
        .accepted();
    let outcomes = || {
        (
            durable.outcome(),
            repeated.outcome(),
            acknowledged.outcome(),
        )
    };
    assert_eq!(outcomes(), (None, None, None));
    mailboxes.acknowledge(&device(2), u64::MAX);
    mailboxes.acknowledge(&device(4), u64::MAX);
    assert_eq!(outcomes(), (None, None, None));
    mailboxes.acknowledge(&device(3), u64::MAX);
    assert_eq!(outcomes(), (None, None, Some(Ok(()))));
    let repeated_acknowledged = post_parts(&mailboxes, 2, both, &[], LIMITS).unwrap();
    assert_eq!(repeated_acknowledged.accepted().outcome(), Some(Ok(())));
    mailboxes.flush();
    assert_eq!(outcomes(), (Some(Ok(())), Some(Ok(())), Some(Ok(()))));
}

#[tokio::test]
async fn who_waits_is_woken_by_either() {
    let mailboxes = stepped();
    let wait = |sequence, to| {
        let accepted = post(&mailboxes, sequence, to, b"x", LIMITS)
            .unwrap()
            .accepted();
        let accepted = tokio::spawn(accepted);
        async move { accepted.await.unwrap() }
    };
    let first = wait(1, 1);
    let again = wait(1, 1);
    let second = wait(2, 2);
    tokio::task::yield_now().await;
    mailboxes.acknowledge(&device(2), u64::MAX);
    assert_eq!(second.await, Ok(()));
    mailboxes.flush();
    assert_eq!((first.await, again.await), (Ok(()), Ok(())));
}

#[tokio::test]
async fn the_queue_is_bounded_and_says_when_there_is_room() {
    let options = MailOptions {
        segment_bytes: 4 << 20,
        ..options()
    };
    let mailboxes = Mailboxes::open_stepped(Arc::new(MemoryDisk::new()), &options).unwrap();
    let large = vec![0; 10_000];
    let mut sequence = 0;
    let refused = loop {
        sequence += 1;
        if let Err(error) = post(&mailboxes, sequence, 1, &large, PLENTY) {
            break error;
        }
    };
    assert_eq!((refused, sequence), (PostError::Busy, 7));
    let waiting = tokio::spawn({
        let mailboxes = mailboxes.clone();
        async move { mailboxes.room().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    mailboxes.flush();
    waiting.await.unwrap();
    assert!(
        !post(&mailboxes, sequence, 1, &large, PLENTY)
            .unwrap()
            .is_repetition()
    );
}

#[tokio::test]
async fn who_was_told_of_room_has_it() {
    // Larger than half a segment, and than half of what may be queued.
    let options = MailOptions {
        queue_bytes: 8 << 10,
        ..options()
    };
    let mailboxes = Mailboxes::open_stepped(Arc::new(MemoryDisk::new()), &options).unwrap();
    for (sequence, bytes) in (1..=60).zip([4_500, 300, 2_000, 6_000, 700].into_iter().cycle()) {
        let message = vec![1; bytes];
        if post(&mailboxes, sequence, 1, &message, PLENTY).is_ok() {
            continue;
        }
        let waiting = tokio::spawn({
            let mailboxes = mailboxes.clone();
            async move { mailboxes.room().await }
        });
        tokio::task::yield_now().await;
        // A writer that is done has made room.
        for _ in 0..3 {
            if waiting.is_finished() {
                break;
            }
            mailboxes.flush();
            tokio::task::yield_now().await;
        }
        assert!(waiting.is_finished(), "{sequence}");
        let appended = post(&mailboxes, sequence, 1, &message, PLENTY).unwrap();
        assert!(!appended.is_repetition());
    }
    while mailboxes.flush() {}
    assert_eq!(messages(&mailboxes, 1).len(), 60);
}

#[test]
fn mailboxes_in_memory_accept_at_once() {
    let mailboxes = Mailboxes::in_memory().unwrap();
    let appended = post(&mailboxes, 1, 1, b"x", LIMITS).unwrap();
    assert_eq!(appended.accepted().outcome(), Some(Ok(())));
    assert_eq!(messages(&mailboxes, 1), ["x"]);
    assert!(mailboxes.is_writable());
    assert_ne!(mailboxes.epoch(), Mailboxes::in_memory().unwrap().epoch());
}

#[test]
fn debug_shows_no_message() {
    let mailboxes = stepped();
    let appended = post(&mailboxes, 1, 1, b"very secret text", LIMITS).unwrap();
    let shown = format!("{mailboxes:?} {appended:?}");
    assert!(!shown.contains("very secret text"));
    assert!(!shown.contains("alice"), "{shown}");
}
