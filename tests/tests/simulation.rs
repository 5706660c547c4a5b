//! The quick simulation: some seeds, the seeds that once failed, and proof that it would notice. The long one is the `simulate` binary.

use sealwire_tests::simulation::{Canary, Fault, Invariant, Options, replay, run, run_many};

/// Seeds of every run of the tests.
const SEEDS: u64 = 40;
/// Within so many seeds a missing guarantee has to be noticed.
const NOTICED_WITHIN: u64 = 40;
/// Seeds that failed once, with what was wrong then. A change of what a seed means takes their sense away: look for new ones then.
const REGRESSIONS: [(u64, &str); 17] = [
    (
        207,
        "a message whose refusal was lost with its link came after later ones",
    ),
    (
        403,
        "what was sent after a message from the future was shown before it",
    ),
    (
        657,
        "a store that was put back did not ask a device that it knew nothing of",
    ),
    (
        1_491,
        "a store that was put back opened what came with Ready in its old sessions",
    ),
    (
        3_620,
        "a store of before its first connection was found to be a copy twice",
    ),
    (
        4_551,
        "what was sealed again and refused came after what was sent later",
    ),
    (5_643, "the same repair was told twice"),
    (
        9_535,
        "a message that was refused and given again came after later ones",
    ),
    (
        18_658,
        "a device that nobody knew was said to be removed, as it was asked for twice",
    ),
    (
        23_850,
        "what opened in a new session was shown before what was lost in an old one",
    ),
    (
        51_505,
        "a message that was overtaken was sealed again for other devices and accepted",
    ),
    (
        500_686,
        "a message for the recipient's new devices overtook one for the old ones",
    ),
    (
        78_644,
        "who was away for as long as it was asked was held to account",
    ),
    (
        79_324,
        "senders were told of a removed device one notice a minute, as the queue was small",
    ),
    (
        83_141,
        "a message was delivered and lost with the relay, and what was refused before it came after it",
    ),
    (
        35_599,
        "a message that was refused was sealed again for a device that had asked, and came after later ones",
    ),
    (
        62_977,
        "what was put off had been sealed in a session that its device lost before it asked again, and came after later ones",
    ),
];

fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[test]
fn every_promise_holds_under_every_fault() {
    let options = Options::default();
    let report = run_many(1, SEEDS, jobs(), &options, |_, _| {});
    for (seed, violation) in &report.failures {
        eprintln!(
            "seed {seed} failed: {violation}\n  {}",
            replay(*seed, &options)
        );
    }
    assert!(!report.has_failed(), "\n{report}");
    let never = |fault: &&Fault| report.faults.of(**fault) == 0;
    let rare = [Fault::StoreRestored, Fault::Removal];
    let missing: Vec<_> = Fault::ALL
        .iter()
        .filter(never)
        .filter(|fault| !rare.contains(fault))
        .collect();
    assert!(missing.is_empty(), "never injected: {missing:?}");
}

#[test]
fn seeds_that_failed_once_hold() {
    for (seed, what) in REGRESSIONS {
        let outcome = run(seed, &Options::default());
        assert!(
            outcome.violations.is_empty(),
            "seed {seed}, {what}: {:?}",
            outcome.violations
        );
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=4 {
        let options = Options::default();
        let (first, second) = (run(seed, &options), run(seed, &options));
        assert_eq!(
            (first.hash, first.steps),
            (second.hash, second.steps),
            "seed {seed}"
        );
        assert_eq!(first.faults, second.faults);
    }
}

fn is_noticed(canary: Canary) {
    is_noticed_by(canary, &Invariant::ALL);
}

/// A run in which one of these promises is broken, and says so.
fn is_noticed_by(canary: Canary, by: &[Invariant]) {
    let options = Options {
        canary: Some(canary),
        ..Options::default()
    };
    let noticed = (1..=NOTICED_WITHIN).any(|seed| {
        let violations = run(seed, &options).violations;
        violations
            .iter()
            .any(|violation| by.contains(&violation.invariant))
    });
    assert!(
        noticed,
        "{} is not noticed in {NOTICED_WITHIN} seeds",
        canary.name()
    );
}

#[test]
fn a_relay_that_forgets_what_it_accepted_is_noticed() {
    is_noticed(Canary::RelayForgets);
}

#[test]
fn a_device_whose_store_forgets_is_noticed() {
    is_noticed(Canary::DeviceForgets);
}

#[test]
fn a_device_that_acknowledges_before_it_commits_is_noticed() {
    is_noticed(Canary::EarlyAck);
}

#[test]
fn a_device_that_shows_again_what_it_has_shown_is_noticed() {
    is_noticed(Canary::NoDeduplication);
}

#[test]
fn messages_in_another_order_are_noticed() {
    is_noticed(Canary::Disorder);
}

#[test]
fn a_device_whose_randomness_repeats_is_noticed() {
    is_noticed_by(Canary::SameRandomness, &[Invariant::Nonce]);
}

#[test]
fn a_device_that_does_not_notice_that_its_store_was_put_back_is_noticed() {
    is_noticed_by(Canary::UnnoticedCopy, &[Invariant::Restored]);
}

#[test]
fn a_device_that_is_not_told_what_the_relay_gives_up_is_noticed() {
    is_noticed_by(Canary::NoNotices, &[Invariant::Lost]);
}
