use super::*;

const NOW: u64 = 1_800_000_000_000;

fn rates(max: usize) -> Rates<u32> {
    Rates::new(max)
}

// docs/protocol.md §5.5
#[test]
fn a_token_lowers_what_it_names_and_leaves_the_rest() {
    let relay = Allowance::default();
    let permissions = Permissions {
        max_message_bytes: Some(1_000),
        messages_per_minute: Some(11),
        mailbox_messages: Some(7),
        mailbox_bytes: Some(5_000),
        retention_seconds: Some(60),
        ..Permissions::default()
    };
    let mut expected = relay;
    expected.max_message_bytes = 1_000;
    expected.messages_per_minute = 11;
    expected.mailbox.messages = 7;
    expected.mailbox.bytes = 5_000;
    expected.mailbox.retention_seconds = 60;
    assert_eq!(relay.under(&permissions), expected);
    let none = Permissions::default();
    assert_eq!(relay.under(&none), relay);
}

// docs/protocol.md §5.5: the relay's own limits are never exceeded
#[test]
fn a_token_never_raises_a_limit() {
    let relay = Allowance::default();
    let most = Some(u64::MAX);
    let permissions = Permissions {
        max_message_bytes: most,
        messages_per_minute: most,
        mailbox_messages: most,
        mailbox_bytes: most,
        retention_seconds: most,
        ..Permissions::default()
    };
    assert_eq!(relay.under(&permissions), relay);
}

#[test]
fn a_minute_s_worth_may_come_at_once_and_no_more() {
    let rates = rates(10);
    for _ in 0..6 {
        assert_eq!(rates.take(&1, 6, NOW), Ok(()));
    }
    let refused = rates.take(&1, 6, NOW).unwrap_err();
    assert_eq!(
        rates.take(&1, 6, NOW + 9_999),
        Err(TooOften { retry_millis: 2 })
    );
    assert_eq!(rates.take(&1, 6, NOW + refused.retry_millis), Ok(()));
    assert!(rates.take(&1, 6, NOW + refused.retry_millis).is_err());
}

#[test]
fn what_is_refused_is_not_counted() {
    let rates = rates(10);
    assert_eq!(rates.take(&1, 1, NOW), Ok(()));
    for elapsed in 0..60 {
        assert!(rates.take(&1, 1, NOW + elapsed * 1_000).is_err());
    }
    assert_eq!(rates.take(&1, 1, NOW + 60_000), Ok(()));
}

#[test]
fn one_key_does_not_use_up_another_s() {
    let rates = rates(10);
    assert_eq!(rates.take(&1, 1, NOW), Ok(()));
    assert!(rates.take(&1, 1, NOW).is_err());
    assert_eq!(rates.take(&2, 1, NOW), Ok(()));
}

#[test]
fn waiting_long_does_not_save_up_more_than_a_minute_s_worth() {
    let rates = rates(10);
    rates.take(&1, 2, NOW).unwrap();
    let later = NOW + 1_000 * 60_000;
    assert_eq!(
        (rates.take(&1, 2, later), rates.take(&1, 2, later)),
        (Ok(()), Ok(()))
    );
    assert!(rates.take(&1, 2, later).is_err());
}

#[test]
fn a_clock_that_goes_back_gives_nothing() {
    let rates = rates(10);
    rates.take(&1, 1, NOW).unwrap();
    assert!(rates.take(&1, 1, 0).is_err());
    assert!(rates.take(&1, 1, NOW + 59_999).is_err());
    assert_eq!(rates.take(&1, 1, NOW + 60_000), Ok(()));
}

// docs/protocol.md §5.4: narrower permissions take effect at once
#[test]
fn a_lower_rate_takes_effect_at_once() {
    let rates = rates(10);
    rates.take(&1, 600, NOW).unwrap();
    assert_eq!(rates.take(&1, 1, NOW), Ok(()));
    assert!(rates.take(&1, 1, NOW).is_err());
}

#[test]
fn a_rate_of_nothing_allows_nothing() {
    let rates = rates(10);
    let never = Err(TooOften {
        retry_millis: u64::MAX,
    });
    assert_eq!(rates.take(&1, 0, NOW), never);
    rates.take(&1, 1, NOW).unwrap();
    assert_eq!(rates.take(&1, 0, u64::MAX), never);
}

#[test]
fn the_largest_numbers_do_not_overflow() {
    let rates = rates(10);
    assert_eq!(rates.take(&1, u64::MAX, 0), Ok(()));
    assert_eq!(rates.take(&1, u64::MAX, u64::MAX), Ok(()));
}

#[test]
fn a_full_memory_refuses_newcomers_and_serves_who_is_known() {
    let rates = rates(2);
    rates.take(&1, 2, NOW).unwrap();
    rates.take(&2, 2, NOW).unwrap();
    let refused = Err(TooOften {
        retry_millis: TIDY_INTERVAL_MILLIS,
    });
    assert_eq!(rates.take(&3, 2, NOW), refused);
    assert_eq!(rates.take(&1, 2, NOW), Ok(()));
    assert_eq!(rates.buckets.lock().unwrap().by_key.len(), 2);
}

#[test]
fn who_has_been_idle_makes_room() {
    let rates = rates(2);
    rates.take(&1, 2, NOW).unwrap();
    rates.take(&2, 2, NOW + 29_000).unwrap();
    assert!(rates.take(&3, 2, NOW + 29_000).is_err());
    // The first bucket is full again after half a minute; the second is not.
    assert_eq!(rates.take(&3, 2, NOW + 31_000), Ok(()));
    let buckets = rates.buckets.lock().unwrap();
    assert!(!buckets.by_key.contains_key(&1) && buckets.by_key.contains_key(&2));
}

#[test]
fn room_is_looked_for_once_a_second_at_most() {
    let rates = rates(1);
    rates.take(&1, 600, NOW).unwrap();
    assert!(rates.take(&2, 600, NOW).is_err());
    assert!(
        rates.take(&2, 600, NOW + 999).is_err(),
        "not looked for again yet"
    );
    assert_eq!(rates.take(&2, 600, NOW + 1_000), Ok(()));
}

#[test]
fn several_events_at_once_cost_as_much_as_one_after_the_other() {
    let rates = Rates::<u8>::new(10);
    rates.take_many(&1, 7, 10, 0).unwrap();
    assert!(rates.take_many(&1, 4, 10, 0).is_err());
    rates.take_many(&1, 3, 10, 0).unwrap();
    assert_eq!(
        rates.take_many(&1, 2, 10, 0),
        Err(TooOften {
            retry_millis: 12_001
        })
    );
    // What is more than a minute's worth takes a full minute's.
    rates.take_many(&2, 11, 10, 0).unwrap();
    assert!(rates.take(&2, 10, 0).is_err());
}
