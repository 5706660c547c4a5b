//! Real processes, killed at random; `cargo run --release -p sealwire-tests --bin kill` does the same for longer.
#![cfg(unix)]

use sealwire_tests::kill::{Plan, run};

/// Fixed: who is killed is the same every time, what they are doing then is not.
const SEED: u64 = 20_261_126;

#[test]
fn what_was_accepted_arrives_once_and_in_order_whoever_is_killed() {
    let plan = Plan {
        sealwire: env!("CARGO_BIN_EXE_sealwire").into(),
        seed: SEED,
        cycles: 12,
        canary: false,
        drain: false,
    };
    match run(&plan, |_| {}) {
        Ok(outcome) => assert!(outcome.held(), "seed {SEED}\n{outcome}"),
        Err(broken) => panic!("seed {SEED}: {broken}"),
    }
}

#[test]
fn relay_that_is_restarted_under_load_loses_nothing_and_everybody_comes_back() {
    let plan = Plan {
        sealwire: env!("CARGO_BIN_EXE_sealwire").into(),
        seed: SEED,
        cycles: 4,
        canary: false,
        drain: true,
    };
    match run(&plan, |_| {}) {
        Ok(outcome) => {
            assert!(outcome.held(), "seed {SEED}\n{outcome}");
            assert_eq!(outcome.drains.len(), 4);
            // Seven devices, within their back-off: else it is broken.
            assert_eq!(outcome.returns.len(), 4 * 7);
        }
        Err(broken) => panic!("seed {SEED}: {broken}"),
    }
}
