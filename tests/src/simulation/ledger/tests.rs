//! Every promise can be seen to be broken.

use super::*;

const ID: [u8; 16] = [1; 16];

/// Device 0 is of user 0; 1 and 2 are of user 1. Two messages of device 0 were accepted for both.
fn ledger() -> Ledger {
    with(Terms::default())
}

fn with(terms: Terms) -> Ledger {
    let mut ledger = Ledger::new(&[0, 1, 1], terms);
    send(&mut ledger, b"first");
    send(&mut ledger, b"second");
    ledger
}

/// One more message of device 0 is accepted for 1 and 2.
fn send(ledger: &mut Ledger, body: &[u8]) -> Number {
    let number = ledger.messages.len();
    let id = [u8::try_from(number + 1).unwrap(); 16];
    ledger.sent(0, 1, id, body.to_vec());
    ledger.given(number);
    ledger.pushed(0, &push(number, &[1, 2]), 1_000);
    ledger.accepted(number);
    number
}

/// What device 0 sends of a message, for these devices.
fn push(number: Number, devices: &[usize]) -> Push {
    Push {
        sequence: number as u64 + 1,
        id: [u8::try_from(number + 1).unwrap(); 16],
        whole: true,
        devices: devices.to_vec(),
    }
}

fn found(ledger: Ledger) -> Vec<Invariant> {
    let (_, violations) = ledger.into_findings();
    violations
        .iter()
        .map(|violation| violation.invariant)
        .collect()
}

fn show(ledger: &mut Ledger, device: usize, number: usize, redelivered: bool) {
    let sent = ledger.message(number).unwrap();
    let (id, body) = (sent.id, sent.body.clone());
    ledger.shown(device, Some(0), &id, &body, redelivered);
}

fn delivered(by: usize) -> Alarm {
    Alarm::Delivered { number: 0, by }
}

fn not_delivered(reason: Reason) -> Alarm {
    let (number, by) = (0, 1);
    Alarm::NotDelivered { number, by, reason }
}

fn missing(count: u32) -> Alarm {
    Alarm::Missing { from: 0, count }
}

fn changed(added: &[usize], removed: &[usize]) -> Alarm {
    Alarm::Changed {
        user: 1,
        added: added.to_vec(),
        removed: removed.to_vec(),
    }
}

/// What is found when device 0 is told this.
fn told(mut ledger: Ledger, alarms: &[Alarm]) -> Vec<Invariant> {
    for alarm in alarms {
        ledger.told(0, alarm.clone(), true, 50_000);
    }
    found(ledger)
}

#[test]
fn a_run_in_which_all_is_well_has_no_violation() {
    let mut ledger = ledger();
    for device in [1, 2] {
        show(&mut ledger, device, 0, false);
        show(&mut ledger, device, 1, false);
    }
    ledger.told(0, delivered(1), true, 0);
    ledger.read(0, 1);
    ledger.let_in(1, false, true);
    ledger.finish();
    assert_eq!(found(ledger), []);
}

#[test]
fn what_one_device_was_not_shown_is_lost() {
    let mut ledger = ledger();
    show(&mut ledger, 1, 0, false);
    show(&mut ledger, 1, 1, false);
    show(&mut ledger, 2, 0, false);
    assert!(!ledger.is_settled());
    ledger.finish();
    assert_eq!(found(ledger), [Invariant::Lost]);
}

#[test]
fn showing_again_needs_a_restart_and_the_flag() {
    let mut again = ledger();
    show(&mut again, 1, 0, false);
    again.restarted(1);
    show(&mut again, 1, 0, true);
    assert_eq!(found(again), []);
    for (restart, flag) in [(true, false), (false, true)] {
        let mut ledger = ledger();
        show(&mut ledger, 1, 0, false);
        if restart {
            ledger.restarted(1);
        }
        show(&mut ledger, 1, 0, flag);
        assert_eq!(found(ledger), [Invariant::Twice]);
    }
}

#[test]
fn what_was_acknowledged_is_not_shown_again_even_after_a_restart() {
    let mut ledger = ledger();
    show(&mut ledger, 1, 0, false);
    ledger.done(1, 0);
    ledger.restarted(1);
    show(&mut ledger, 1, 0, true);
    assert_eq!(found(ledger), [Invariant::Twice]);
}

#[test]
fn a_later_message_before_an_earlier_one_is_out_of_order() {
    let mut ledger = ledger();
    show(&mut ledger, 1, 1, false);
    show(&mut ledger, 1, 0, false);
    assert_eq!(found(ledger), [Invariant::Order, Invariant::Order]);
}

#[test]
fn another_body_sender_or_reader_is_noticed() {
    let mut changed = ledger();
    changed.shown(1, Some(0), &ID, b"other", false);
    changed.shown(1, Some(2), &[2; 16], b"second", false);
    changed.shown(2, Some(0), &[9; 16], b"never sent", false);
    assert_eq!(found(changed), [Invariant::Content; 3]);
}

#[test]
fn a_sender_has_to_know_what_became_of_a_message() {
    let mut ledger = Ledger::new(&[0, 1], Terms::default());
    ledger.sent(0, 1, ID, Vec::new());
    ledger.sent(0, 1, [2; 16], Vec::new());
    ledger.failed(1, "full".to_owned());
    assert_eq!(ledger.open_of(0), [0]);
    ledger.finish();
    assert_eq!(found(ledger), [Invariant::Untold]);
}

#[test]
fn receipts_for_what_did_not_happen_are_noticed() {
    let mut ledger = ledger();
    ledger.told(0, delivered(0), true, 0);
    ledger.read(0, 1);
    assert_eq!(found(ledger), [Invariant::Receipt, Invariant::Receipt]);
}

#[test]
fn a_receipt_comes_once_and_once_more_only_after_a_restart() {
    let twice = [delivered(1), delivered(1)];
    assert_eq!(told(ledger(), &twice), [Invariant::Receipt]);
    let mut again = ledger();
    again.told(0, delivered(1), true, 0);
    again.told(0, delivered(1), false, 0);
    assert_eq!(found(again), []);
    let mut erased = ledger();
    erased.told(0, delivered(1), true, 0);
    erased.erased(0, &[delivered(1)]);
    erased.told(0, delivered(1), false, 0);
    assert_eq!(found(erased), [Invariant::Receipt]);
}

mod copies {
    use super::*;

    /// Device 1 was shown the first message, its store was put back to before that, and the relay has said so.
    fn restored() -> Ledger {
        let mut ledger = ledger();
        ledger.arrived(1, &ID);
        let memory = ledger.memory(1);
        show(&mut ledger, 1, 0, false);
        ledger.restarted(1);
        ledger.restored(1, memory);
        ledger.let_in(1, true, true);
        ledger
    }

    #[test]
    fn what_an_earlier_copy_knows_nothing_of_is_shown_again_as_new_and_late() {
        let mut ledger = restored();
        ledger.told(1, Alarm::Restored, true, 0);
        show(&mut ledger, 1, 1, false);
        show(&mut ledger, 1, 0, false);
        assert_eq!(found(ledger), []);
    }

    #[test]
    fn what_it_does_know_is_not_shown_again() {
        let mut ledger = ledger();
        show(&mut ledger, 1, 0, false);
        ledger.done(1, 0);
        let memory = ledger.memory(1);
        ledger.restarted(1);
        ledger.restored(1, memory);
        show(&mut ledger, 1, 0, true);
        assert_eq!(found(ledger), [Invariant::Twice]);
    }

    #[test]
    fn what_is_sent_after_it_was_found_out_is_neither_lost_nor_late() {
        let mut ledger = restored();
        ledger.told(1, Alarm::Restored, true, 0);
        let (third, fourth) = (send(&mut ledger, b"third"), send(&mut ledger, b"fourth"));
        show(&mut ledger, 1, fourth, false);
        for number in [0, 1, third, fourth] {
            show(&mut ledger, 2, number, false);
        }
        ledger.undecryptable(&ID, Some(0), 1);
        ledger.finish();
        // The first two are excused, the third is not.
        assert_eq!(found(ledger), [Invariant::Lost]);
        let mut ledger = restored();
        let (third, fourth) = (send(&mut ledger, b"third"), send(&mut ledger, b"fourth"));
        show(&mut ledger, 1, fourth, false);
        show(&mut ledger, 1, third, false);
        ledger.undecryptable(&[4; 16], Some(0), 1);
        let expected = [Invariant::Order, Invariant::Order, Invariant::Undecryptable];
        assert_eq!(found(ledger), expected);
    }

    #[test]
    fn what_is_sent_before_a_copy_is_found_out_is_excused() {
        let mut ledger = ledger();
        let memory = ledger.memory(1);
        ledger.restored(1, memory);
        let third = send(&mut ledger, b"third");
        ledger.let_in(1, false, true);
        ledger.undecryptable(&[3; 16], Some(0), 1);
        for number in [0, 1, third] {
            show(&mut ledger, 2, number, false);
        }
        ledger.finish();
        assert_eq!(found(ledger), []);
    }

    #[test]
    fn who_is_away_cannot_send_again() {
        let mut ledger = ledger();
        ledger.away(0, true);
        ledger.undecryptable(&ID, Some(0), 1);
        assert_eq!(found(ledger), []);
        let mut ledger = super::ledger();
        ledger.away(0, true);
        ledger.away(0, false);
        ledger.undecryptable(&ID, Some(0), 1);
        assert_eq!(found(ledger), [Invariant::Undecryptable]);
    }

    #[test]
    fn a_copy_is_found_out_once() {
        let mut ledger = restored();
        ledger.let_in(1, true, true);
        assert_eq!(found(ledger), [Invariant::Restored]);
    }

    #[test]
    fn the_other_end_of_a_copy_has_lost_no_session() {
        let mut ledger = restored();
        ledger.told(0, Alarm::Repaired { with: 1 }, true, 0);
        assert_eq!(found(ledger), [Invariant::Alarm]);
        let mut unfound = super::ledger();
        let memory = unfound.memory(1);
        unfound.restored(1, memory);
        unfound.told(0, Alarm::Repaired { with: 1 }, true, 0);
        assert_eq!(found(unfound), []);
    }

    #[test]
    fn an_application_is_told_of_its_earlier_copy_once() {
        let mut once = restored();
        once.told(1, Alarm::Restored, true, 0);
        once.told(1, Alarm::Restored, false, 0);
        assert_eq!(found(once), []);
        let mut twice = restored();
        twice.told(1, Alarm::Restored, true, 0);
        twice.told(1, Alarm::Restored, true, 0);
        assert_eq!(found(twice), [Invariant::Restored]);
        let mut never = restored();
        for number in [0, 1] {
            show(&mut never, 2, number, false);
        }
        never.finish();
        assert_eq!(found(never), [Invariant::Restored]);
    }

    #[test]
    fn an_application_is_not_told_of_a_copy_that_is_none() {
        let mut not_behind = ledger();
        let memory = not_behind.memory(1);
        not_behind.restored(1, memory);
        not_behind.let_in(1, false, true);
        not_behind.told(1, Alarm::Restored, true, 0);
        assert_eq!(found(not_behind), [Invariant::Restored]);
        let mut never_put_back = ledger();
        never_put_back.let_in(1, true, true);
        assert_eq!(found(never_put_back), [Invariant::Restored]);
    }

    #[test]
    fn a_process_that_dies_over_it_may_have_stored_it_or_not() {
        let dead = || {
            let mut ledger = ledger();
            let memory = ledger.memory(1);
            ledger.restored(1, memory);
            ledger.let_in(1, true, false);
            ledger
        };
        let mut stored = dead();
        stored.told(1, Alarm::Restored, false, 0);
        stored.let_in(1, false, true);
        assert_eq!(found(stored), []);
        let mut found_again = dead();
        found_again.let_in(1, true, true);
        found_again.told(1, Alarm::Restored, true, 0);
        found_again.told(1, Alarm::Restored, true, 0);
        assert_eq!(found(found_again), [Invariant::Restored]);
        let mut never = dead();
        never.let_in(1, false, true);
        for number in [0, 1] {
            show(&mut never, 2, number, false);
        }
        never.finish();
        assert_eq!(found(never), [Invariant::Restored]);
    }
}

mod alarms {
    use super::*;

    /// The relay holds messages for 20 seconds.
    fn short() -> Ledger {
        with(Terms {
            retention: Some(20_000),
            ..Terms::default()
        })
    }

    #[test]
    fn a_message_that_the_relay_gave_up_is_accounted_for() {
        let mut ledger = short();
        show(&mut ledger, 1, 1, false);
        for number in [0, 1] {
            show(&mut ledger, 2, number, false);
        }
        assert!(!ledger.is_settled());
        ledger.told(0, not_delivered(Reason::Expired), true, 21_000);
        assert!(ledger.is_settled());
        ledger.finish();
        assert_eq!(found(ledger), []);
    }

    #[test]
    fn a_message_is_not_given_up_before_its_time() {
        let early = |terms| {
            let mut ledger = with(terms);
            ledger.told(0, not_delivered(Reason::Expired), true, 20_000);
            found(ledger)
        };
        assert_eq!(early(Terms::default()), [Invariant::Alarm]);
        let (retention, relay_clock) = (Some(20_000), 0);
        let terms = Terms {
            retention,
            relay_clock,
            ..Terms::default()
        };
        assert_eq!(early(terms), [Invariant::Alarm]);
        // As far as its clock says.
        let relay_clock = 1_000;
        let terms = Terms {
            retention,
            relay_clock,
            ..Terms::default()
        };
        assert_eq!(early(terms), []);
    }

    #[test]
    fn a_message_is_not_given_up_that_was_confirmed_or_for_nobody_removed() {
        let expired = not_delivered(Reason::Expired);
        for before in [delivered(1), expired.clone()] {
            assert_eq!(
                told(short(), &[before, expired.clone()]),
                [Invariant::Alarm]
            );
        }
        let no_room = not_delivered(Reason::NoRoom);
        assert_eq!(
            told(ledger(), std::slice::from_ref(&no_room)),
            [Invariant::Alarm]
        );
        let small = with(Terms {
            small: true,
            ..Terms::default()
        });
        // It is another user's.
        assert_eq!(told(small, &[no_room]), [Invariant::Alarm]);
        let removed = not_delivered(Reason::Removed);
        assert_eq!(
            told(ledger(), std::slice::from_ref(&removed)),
            [Invariant::Alarm]
        );
        let mut ledger = ledger();
        ledger.removing(1);
        assert_eq!(told(ledger, &[removed]), []);
    }

    #[test]
    fn messages_are_missing_only_where_the_relay_took_fewer_than_were_sealed() {
        let mut ledger = ledger();
        for (device, number) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            show(&mut ledger, device, number, false);
        }
        ledger.refused(0, &push(7, &[1, 2]));
        ledger.refused(0, &push(7, &[1, 2]));
        ledger.refused(2, &push(8, &[0]));
        // The answer to the first is not known.
        ledger.pushed(0, &push(0, &[1, 2]), 0);
        ledger.given_up(0, Some(1), 5);
        ledger.given_up(0, Some(1), 5);
        let told_one = |ledger: &mut Ledger, count| {
            ledger.told(1, missing(count), true, 0);
        };
        told_one(&mut ledger, 1);
        told_one(&mut ledger, 1);
        ledger.finish();
        assert!(!ledger.is_violated());
        told_one(&mut ledger, 1);
        ledger.finish();
        assert!(!ledger.is_violated());
        told_one(&mut ledger, 4);
        ledger.finish();
        assert_eq!(found(ledger), [Invariant::Alarm]);
    }

    #[test]
    fn a_mailbox_that_lost_nothing_is_an_alarm() {
        assert_eq!(told(ledger(), &[Alarm::MailboxGap]), [Invariant::Alarm]);
    }

    #[test]
    fn a_session_is_repaired_once_for_each_time_it_may_have_been_lost() {
        let repaired = Alarm::Repaired { with: 1 };
        assert_eq!(
            told(ledger(), std::slice::from_ref(&repaired)),
            [Invariant::Alarm]
        );
        let mut lost = ledger();
        let memory = lost.memory(0);
        lost.restored(0, memory);
        let twice = [repaired.clone(), repaired.clone()];
        assert_eq!(told(lost, &twice), [Invariant::Alarm]);
        let mut wrong = ledger();
        wrong.clock_set(1, 30_000);
        wrong.clock_set(1, -60_001);
        assert_eq!(told(wrong, &[repaired]), []);
    }

    #[test]
    fn devices_change_when_they_do_and_once() {
        assert_eq!(told(ledger(), &[changed(&[1, 2], &[])]), []);
        for wrong in [changed(&[0], &[]), changed(&[], &[1])] {
            assert_eq!(told(ledger(), &[wrong]), [Invariant::Alarm]);
        }
        let twice = [changed(&[1], &[]), changed(&[1, 2], &[])];
        assert_eq!(told(ledger(), &twice), [Invariant::Alarm]);
        let mut gone = ledger();
        gone.removing(1);
        let alarms = [changed(&[], &[1]), changed(&[], &[1])];
        assert_eq!(told(gone, &alarms), [Invariant::Alarm]);
    }
}

mod removals {
    use super::*;

    #[test]
    fn who_is_removed_shows_nothing_and_its_senders_are_told() {
        let removed = || {
            let mut ledger = ledger();
            for number in [0, 1] {
                show(&mut ledger, 2, number, false);
            }
            show(&mut ledger, 1, 1, false);
            ledger.removing(1);
            ledger.removed(1);
            ledger.gone(1);
            ledger
        };
        let mut untold = removed();
        untold.finish();
        assert_eq!(found(untold), [Invariant::Lost]);
        let mut told = removed();
        told.told(0, not_delivered(Reason::Removed), true, 0);
        told.finish();
        assert_eq!(found(told), []);
        // It had it, and was removed before it had shown it.
        let mut arrived = removed();
        arrived.arrived(1, &ID);
        arrived.finish();
        assert_eq!(found(arrived), []);
    }

    #[test]
    fn who_is_gone_is_owed_no_answer() {
        let mut ledger = Ledger::new(&[0, 0], Terms::default());
        ledger.sent(0, 0, ID, Vec::new());
        ledger.removing(0);
        assert!(!ledger.is_settled());
        ledger.gone(0);
        assert!(ledger.is_settled());
        ledger.finish();
        assert_eq!(found(ledger), []);
    }

    #[test]
    fn who_is_removed_has_to_go_and_nobody_else() {
        let mut stays = ledger();
        for (device, number) in [(1, 0), (1, 1), (2, 0), (2, 1)] {
            show(&mut stays, device, number, false);
        }
        stays.removing(1);
        stays.removed(1);
        stays.finish();
        assert_eq!(found(stays), [Invariant::Rest]);
        let mut goes = ledger();
        goes.gone(1);
        assert_eq!(found(goes), [Invariant::Alarm]);
    }
}

/// A mailbox that was full excuses no disorder.
mod lateness {
    use super::*;

    fn shown_late(by: &Push) -> Vec<Invariant> {
        let mut ledger = with(Terms {
            small: true,
            ..Terms::default()
        });
        ledger.pushed(0, by, 0);
        show(&mut ledger, 1, 1, false);
        ledger.restarted(1);
        show(&mut ledger, 1, 0, false);
        found(ledger)
    }

    #[test]
    fn a_message_that_was_refused_does_not_come_after_later_ones() {
        assert_eq!(shown_late(&push(0, &[1, 2])), [Invariant::Order]);
    }

    #[test]
    fn a_copy_that_was_left_out_does_not_come_after_later_ones() {
        let again = Push {
            sequence: 9,
            whole: false,
            ..push(0, &[1])
        };
        assert_eq!(shown_late(&again), [Invariant::Order]);
    }
}
