//! A crash at every single change of the disk: what was accepted is there, nothing is invented, the order is kept.
use std::collections::{BTreeMap, BTreeSet};

use super::faulty::{Crash, FaultyDisk, Random};
use super::*;

/// What a sender and the recipients know.
#[derive(Debug, Default)]
struct Journal {
    /// What was sent, by sequence.
    sent: BTreeMap<u64, Sent>,
    /// The highest position given, by device.
    given: BTreeMap<u8, u64>,
    /// The sequences acknowledged, by device.
    acknowledged: BTreeMap<u8, BTreeSet<u64>>,
    starts: BTreeSet<u32>,
}

#[derive(Debug)]
struct Sent {
    parts: Vec<(u8, Vec<u8>)>,
    copies: Vec<(u8, Vec<u8>)>,
    accepted: bool,
}

fn message(sequence: u64, to: u8) -> Vec<u8> {
    let mut message = vec![to; 40 + (sequence as usize * 97) % 700];
    message[..8].copy_from_slice(&sequence.to_be_bytes());
    message
}

fn sequence_of(message: &[u8]) -> u64 {
    u64::from_be_bytes(*message.first_chunk().unwrap())
}

fn repeat(mailboxes: &Mailboxes, sequence: u64, sent: &Sent) -> Result<Appended, PostError> {
    let borrow = |parts: &[(u8, Vec<u8>)]| -> Vec<(Thumbprint, Bytes)> {
        parts
            .iter()
            .map(|(to, message)| (device(*to), Bytes::copy_from_slice(message)))
            .collect()
    };
    let posting = Posting {
        from_user: &user("alice"),
        from_device: device(ALICE),
        sequence,
        id: id(sequence),
        to_user: &user("bob"),
        parts: borrow(&sent.parts),
        copies: borrow(&sent.copies),
    };
    mailboxes.append(posting, PLENTY, NOW)
}

fn small() -> MailOptions {
    MailOptions {
        segment_bytes: 6 << 10,
        queue_bytes: 64 << 10,
        checkpoint_bytes: 5 << 10,
        recent_bytes: 2 << 10,
        ..options()
    }
}

const DEVICES: [u8; 5] = [1, 2, 3, 4, 5];
/// Its mail expires.
const AWAY: u8 = 4;
/// The sender's own, with room for two.
const IDLE: u8 = 5;

/// Some hundred messages, with all that happens to them; ends where the disk does.
fn work(disk: &FaultyDisk, journal: &mut Journal) -> Option<()> {
    let mut sequence = 0;
    for round in 0..3_u64 {
        let mailboxes = Mailboxes::open_stepped(Arc::new(disk.clone()), &small()).ok()?;
        journal.starts.insert(mailboxes.opened().start);
        let short = MailboxLimits {
            retention_seconds: 1,
            ..PLENTY
        };
        mailboxes.limit(&device(AWAY), short);
        let small = MailboxLimits {
            messages: 2,
            ..PLENTY
        };
        mailboxes.limit(&device(IDLE), small);
        let mut waiting = Vec::new();
        for step in 0..24_u64 {
            sequence += 1;
            let several = |devices: &[u8]| -> Vec<_> {
                devices
                    .iter()
                    .map(|to| (*to, message(sequence, *to)))
                    .collect()
            };
            let sent = Sent {
                parts: several(match step % 4 {
                    0 => &[1, 2][..],
                    1 => &[1],
                    2 => &[AWAY],
                    _ => &[2],
                }),
                copies: several(if step % 4 == 0 { &[3, IDLE] } else { &[] }),
                accepted: false,
            };
            let appended = loop {
                match repeat(&mailboxes, sequence, &sent) {
                    Ok(appended) => break appended,
                    Err(PostError::Busy) => mailboxes.flush(),
                    Err(PostError::Storage(_)) => return None,
                    Err(other) => panic!("{other}"),
                };
            };
            for (to, position) in appended.positions() {
                let given = journal.given.entry(to.as_bytes()[0]).or_default();
                assert!(position > *given, "a position was given twice");
                *given = position;
            }
            journal.sent.insert(sequence, sent);
            waiting.push((sequence, appended.accepted()));
            if step % 3 == 2 {
                mailboxes.flush();
            }
            waiting.retain(|(sequence, accepted)| match accepted.outcome() {
                Some(Ok(())) => {
                    journal.sent.get_mut(sequence).unwrap().accepted = true;
                    false
                }
                Some(Err(_)) => false,
                None => true,
            });
            if step % 3 == 1 {
                let of = DEVICES[(step as usize / 3) % 2];
                let first = mailboxes.read(&device(of), 0, 7, usize::MAX, NOW).ok()?;
                for delivery in &first.deliveries {
                    let Delivery::Mail(mail) = delivery else {
                        panic!("{delivery:?}");
                    };
                    let of = journal.acknowledged.entry(of).or_default();
                    of.insert(sequence_of(&mail.message));
                }
                mailboxes.acknowledge(&device(of), first.last);
            }
            if step % 12 == 11 {
                mailboxes.sweep(NOW + 2_000).ok()?;
            }
        }
        while mailboxes.flush() {}
        for (sequence, accepted) in waiting {
            journal.sent.get_mut(&sequence).unwrap().accepted |= accepted.outcome() == Some(Ok(()));
        }
        if !mailboxes.is_writable() {
            return None;
        }
        if round < 2 {
            mailboxes.close();
        }
    }
    Some(())
}

/// The sequences of a mailbox, in order; each message has to be what was sent there.
fn sequences(mailboxes: &Mailboxes, journal: &Journal, of: u8) -> Vec<u64> {
    messages(mailboxes, of)
        .iter()
        .map(|message| {
            let sequence = sequence_of(message);
            let sent = &journal.sent[&sequence];
            let all = || sent.parts.iter().chain(&sent.copies);
            assert!(
                all().any(|(to, sent)| *to == of && sent[..] == message[..]),
                "invented"
            );
            sequence
        })
        .collect()
}

/// Which device was told not to get what.
fn notices(mailboxes: &Mailboxes) -> BTreeSet<(u8, u64)> {
    let mut told = BTreeSet::new();
    for delivery in read_all(mailboxes, ALICE) {
        let Delivery::Undelivered(undelivered) = delivery else {
            panic!("{delivery:?}");
        };
        let of = undelivered.device.as_bytes()[0];
        let expected = match undelivered.reason {
            UndeliveredReason::Expired => AWAY,
            UndeliveredReason::MailboxFull => IDLE,
            UndeliveredReason::DeviceRemoved => panic!("nobody was removed"),
        };
        assert_eq!(of, expected);
        let sequence = u128::from_be_bytes(undelivered.id) as u64;
        assert!(told.insert((of, sequence)), "told twice");
    }
    told
}

fn check(disk: &FaultyDisk, journal: &mut Journal, context: &str) {
    let mailboxes = Mailboxes::open_stepped(Arc::new(disk.clone()), &small())
        .unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(mailboxes.opened().damaged, 0, "{context}");
    assert!(journal.starts.insert(mailboxes.opened().start), "{context}");
    let told = notices(&mailboxes);
    for of in DEVICES {
        let there = sequences(&mailboxes, journal, of);
        assert!(
            there.is_sorted_by(|a, b| a < b),
            "{context}: order, or twice"
        );
        let there: BTreeSet<_> = there.into_iter().collect();
        let acknowledged = journal.acknowledged.get(&of).cloned().unwrap_or_default();
        for (sequence, sent) in &journal.sent {
            let mut all = sent.parts.iter().chain(&sent.copies);
            let was_sent = all.any(|(to, _)| *to == of);
            if sent.accepted && was_sent && !acknowledged.contains(sequence) {
                assert!(
                    there.contains(sequence) != told.contains(&(of, *sequence)),
                    "{context}: {sequence} to {of} was accepted and is lost, or told and kept"
                );
            }
        }
    }
    // Whoever does not know repeats, and then everything is there once, in order.
    for (sequence, sent) in &journal.sent {
        // What was accepted because everybody has it may not be known any more, and nobody repeats it.
        let everybody_has_it = sent.parts.iter().chain(&sent.copies).all(|(to, _)| {
            let acknowledged = journal.acknowledged.get(to);
            acknowledged.is_some_and(|acknowledged| acknowledged.contains(sequence))
        });
        if sent.accepted && everybody_has_it {
            continue;
        }
        let Ok(appended) = repeat(&mailboxes, *sequence, sent) else {
            assert!(sent.accepted, "{context}");
            continue;
        };
        assert!(
            appended.is_repetition() || !sent.accepted,
            "{context}: {sequence}"
        );
        for (to, position) in appended.positions() {
            let given = journal.given.entry(to.as_bytes()[0]).or_default();
            assert!(position > *given, "{context}: a position was given twice");
            *given = position;
        }
        mailboxes.flush();
    }
    for of in DEVICES {
        let there = sequences(&mailboxes, journal, of);
        assert!(there.is_sorted_by(|a, b| a < b), "{context}: order after");
    }
    while mailboxes.flush() {}
    check_again(&disk.after(Crash::LosesAll), &mailboxes, journal, context);
}

/// What has settled is there after another crash, and as it was.
fn check_again(disk: &FaultyDisk, before: &Mailboxes, journal: &mut Journal, context: &str) {
    let again = Mailboxes::open_stepped(Arc::new(disk.clone()), &small())
        .unwrap_or_else(|error| panic!("{context}, again: {error}"));
    assert_eq!(again.opened().damaged, 0, "{context}, again");
    assert!(journal.starts.insert(again.opened().start), "{context}");
    assert_eq!(again.epoch(), before.epoch(), "{context}, again");
    let sent = |mailboxes: &Mailboxes| mailboxes.sent(&device(ALICE));
    assert_eq!(sent(&again), sent(before), "{context}, again");
    for of in DEVICES.into_iter().chain([ALICE]) {
        let (there, expected) = (read_all(&again, of), read_all(before, of));
        assert_eq!(there, expected, "{context}, again: {of}");
    }
}

fn crash_once(operation: u64, crash: Crash) {
    let disk = FaultyDisk::new();
    disk.crash_at(operation);
    let mut journal = Journal::default();
    assert_eq!(work(&disk, &mut journal), None);
    let context = format!("crash at {operation}, {crash:?}");
    check(&disk.after(crash), &mut journal, &context);
}

fn operations() -> u64 {
    let disk = FaultyDisk::new();
    let mut journal = Journal::default();
    work(&disk, &mut journal).unwrap();
    assert!(journal.sent.values().all(|sent| sent.accepted));
    let names = disk.list().unwrap();
    assert!(names.iter().any(|name| name.starts_with("checkpoint-")));
    assert!(
        !names
            .iter()
            .any(|name| name.starts_with("mail-0000000001-")),
        "the workload removes segments: {names:?}"
    );
    check(&disk, &mut journal, "no crash");
    disk.operations()
}

#[test]
fn a_crash_at_any_change_that_loses_what_was_not_synced_loses_nothing_accepted() {
    for operation in 0..operations_of_work() {
        crash_once(operation, Crash::LosesAll);
    }
}

#[test]
fn a_crash_at_any_change_that_loses_nothing_invents_nothing() {
    for operation in 0..operations_of_work() {
        crash_once(operation, Crash::LosesNothing);
    }
}

#[test]
fn a_crash_at_any_change_that_tears_writes_loses_nothing_accepted() {
    for operation in 0..operations_of_work() {
        for seed in 0..3 {
            crash_once(operation, Crash::Tears(operation * 3 + seed));
        }
    }
}

/// Without what the check at the end adds.
fn operations_of_work() -> u64 {
    let disk = FaultyDisk::new();
    work(&disk, &mut Journal::default()).unwrap();
    let operations = disk.operations();
    assert!(operations > 100, "{operations}");
    operations
}

#[test]
fn without_a_crash_everything_is_accepted_and_there() {
    assert!(operations() > 0);
}

#[test]
fn a_crash_while_the_log_is_opened_after_a_crash_loses_nothing_accepted() {
    let all = operations_of_work();
    let mut random = Random(7);
    for _ in 0..60 {
        let first = random.below(all as usize) as u64;
        let crash = Crash::Tears(first);
        for second in 0..24 {
            let disk = FaultyDisk::new();
            disk.crash_at(first);
            let mut journal = Journal::default();
            work(&disk, &mut journal);
            let disk = disk.after(crash);
            disk.crash_at(second);
            let opened = Mailboxes::open_stepped(Arc::new(disk.clone()), &small());
            if let Ok(opened) = &opened {
                journal.starts.insert(opened.opened().start);
            }
            let done = disk.operations() <= second;
            let context = format!("crash at {first}, then {second}");
            check(&disk.after(Crash::Tears(second)), &mut journal, &context);
            if done {
                break;
            }
        }
    }
}

#[test]
fn what_is_accepted_after_a_crash_of_the_first_open_survives() {
    let options = MailOptions {
        identity: None,
        ..small()
    };
    let open = |disk: &FaultyDisk| Mailboxes::open_stepped(Arc::new(disk.clone()), &options);
    let first = FaultyDisk::new();
    open(&first).unwrap();
    let tears = (0..8).map(Crash::Tears);
    let crashes: Vec<_> = [Crash::LosesAll, Crash::LosesNothing]
        .into_iter()
        .chain(tears)
        .collect();
    for (operation, crash) in (0..first.operations())
        .flat_map(|operation| crashes.iter().map(move |crash| (operation, *crash)))
    {
        let context = format!("crash at {operation}, {crash:?}");
        let disk = FaultyDisk::new();
        disk.crash_at(operation);
        open(&disk).unwrap_err();
        let disk = disk.after(crash);
        let mailboxes = open(&disk).unwrap();
        let accepted = post(&mailboxes, 1, 1, b"kept", PLENTY).unwrap().accepted();
        mailboxes.flush();
        assert_eq!(accepted.outcome(), Some(Ok(())), "{context}");
        let again = open(&disk.after(Crash::LosesAll)).unwrap();
        assert_eq!(messages(&again, 1), ["kept"], "{context}");
        assert_eq!(again.sent(&device(ALICE)), 1, "{context}");
        assert_eq!(again.epoch(), mailboxes.epoch(), "{context}");
        assert!(again.opened().start > mailboxes.opened().start, "{context}");
    }
}
