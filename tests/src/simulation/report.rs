//! What comes of a run, and of many.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fault::{Fault, Tally};
use super::ledger::{Invariant, Violation};
use super::schedule::Millis;
use super::world::World;
use super::{Options, Seed};

/// Failed seeds that a report names.
const NAMED_FAILURES: usize = 20;

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The faults.
    pub faults: Tally,
    /// How often each promise was looked at.
    pub checks: BTreeMap<Invariant, u64>,
    /// The promises that were broken.
    pub violations: Vec<Violation>,
    /// Two equal runs have the same.
    pub hash: u64,
    /// Steps.
    pub steps: u64,
    /// Messages sent, and how often one was shown.
    pub volume: (u64, u64),
    /// How long it took in virtual time.
    pub lasted: Millis,
}

impl Outcome {
    /// Of a run that did not come to its end.
    #[must_use]
    pub fn panicked(seed: Seed, what: String) -> Self {
        Self {
            seed,
            faults: Tally::default(),
            checks: BTreeMap::new(),
            violations: vec![Violation {
                invariant: Invariant::Panic,
                what,
            }],
            hash: 0,
            steps: 0,
            volume: (0, 0),
            lasted: 0,
        }
    }
}

/// What came of many runs.
#[derive(Debug, Default)]
pub struct Report {
    /// Runs.
    pub seeds: u64,
    /// Faults.
    pub faults: Tally,
    /// Promises: how often looked at, and how often broken.
    pub promises: BTreeMap<Invariant, (u64, u64)>,
    /// Seeds in which a promise was broken, with the first of them.
    pub failures: Vec<(Seed, Violation)>,
    /// How many there are.
    pub failed: u64,
    /// Messages sent, and how often one was shown.
    pub volume: (u64, u64),
    /// Steps.
    pub steps: u64,
    /// Seconds of virtual time.
    pub virtual_seconds: u64,
    /// The seed that took longest, and how long.
    pub slowest: (Seed, Duration),
}

/// Runs one seed. A panic is a broken promise.
#[must_use]
pub fn run(seed: Seed, options: &Options) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, options).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Outcome::panicked(seed, text.unwrap_or_default())
    })
}

/// Runs `count` seeds from `from` on, on as many threads as `jobs`; each run is in one of them. `progress` hears of every run.
#[must_use]
pub fn run_many(
    from: Seed,
    count: u64,
    jobs: usize,
    options: &Options,
    progress: impl Fn(&Report, &Outcome) + Sync,
) -> Report {
    let next = AtomicU64::new(0);
    let report = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    let (seed, started) = (from.wrapping_add(at), Instant::now());
                    let outcome = run(seed, options);
                    let took = started.elapsed();
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.add(&outcome);
                    if took > report.slowest.1 {
                        report.slowest = (seed, took);
                    }
                    progress(&report, &outcome);
                }
            });
        }
    });
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.failures.sort_by_key(|(seed, _)| *seed);
    report
}

impl Report {
    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.faults += &outcome.faults;
        self.volume.0 += outcome.volume.0;
        self.volume.1 += outcome.volume.1;
        self.steps += outcome.steps;
        self.virtual_seconds += outcome.lasted / 1_000;
        for (invariant, checks) in &outcome.checks {
            self.promises.entry(*invariant).or_default().0 += checks;
        }
        for violation in &outcome.violations {
            self.promises.entry(violation.invariant).or_default().1 += 1;
        }
        if let Some(violation) = outcome.violations.first() {
            self.failed += 1;
            if self.failures.len() < NAMED_FAILURES {
                self.failures.push((outcome.seed, violation.clone()));
            }
        }
    }

    /// Whether a promise was broken.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// The same as one object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let faults = Fault::ALL
            .iter()
            .map(|fault| (fault.name().to_owned(), json!(self.faults.of(*fault))));
        let promises = Invariant::ALL.iter().map(|invariant| {
            let (checks, violations) = self.promises.get(invariant).copied().unwrap_or_default();
            (
                invariant.name().to_owned(),
                json!({ "checks": checks, "violations": violations }),
            )
        });
        let failures = self
            .failures
            .iter()
            .map(|(seed, violation)| json!({ "seed": seed, "violation": violation.to_string() }));
        json!({
            "seeds": self.seeds,
            "failed": self.failed,
            "faults": faults.collect::<serde_json::Map<_, _>>(),
            "faults_total": self.faults.total(),
            "invariants": promises.collect::<serde_json::Map<_, _>>(),
            "failures": failures.collect::<Vec<_>>(),
            "messages_sent": self.volume.0,
            "messages_shown": self.volume.1,
            "steps": self.steps,
            "virtual_seconds": self.virtual_seconds,
        })
    }
}

/// Two tables: what was done, and what held.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} seeds, {} messages sent, {} times one was shown, {} hours of virtual time\n",
            self.seeds,
            self.volume.0,
            self.volume.1,
            self.virtual_seconds / 3_600
        )?;
        writeln!(f, "{:<24} {:>14}", "fault", "injected")?;
        for fault in Fault::ALL {
            writeln!(f, "{fault:<24} {:>14}", self.faults.of(*fault))?;
        }
        writeln!(f, "{:<24} {:>14}\n", "total", self.faults.total())?;
        writeln!(
            f,
            "{:<24} {:>14} {:>14}",
            "invariant", "checked", "violated"
        )?;
        for invariant in Invariant::ALL {
            let (checks, violations) = self.promises.get(&invariant).copied().unwrap_or_default();
            writeln!(f, "{invariant:<24} {checks:>14} {violations:>14}")?;
        }
        if self.failed > 0 {
            writeln!(f, "\n{} seeds failed", self.failed)?;
        }
        Ok(())
    }
}

/// How to see a failed seed again.
#[must_use]
pub fn replay(seed: Seed, options: &Options) -> String {
    let mut command = format!(
        "cargo run --release -p sealwire-tests --features simulation --bin simulate -- --seed {seed} --trace"
    );
    if let Some(canary) = options.canary {
        command.push_str(" --canary ");
        command.push_str(canary.name());
    }
    command
}
