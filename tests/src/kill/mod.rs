//! Real processes, killed: a relay and devices run under load, any of them gets SIGKILL at random moments, and every message is counted.
//!
//! ```text
//! Plan ── Play ── cast: a relay, and devices that send, show what arrives, or both (`sealwire send`, `listen`, `chat`)
//!          │  └── process: lines to and from each; SIGKILL
//!          └── ledger: what was given, accepted and shown, and what of that must not be ── Outcome, a table
//! ```
//! A sender whose report of a message was lost with it is given the message again, under the same id: it counts once all the same. Which are killed,
//! and how long after one another, follows from the seed; what they were doing at that moment does not.

mod cast;
mod ledger;
mod play;
mod process;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use ledger::Tally;

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The command.
    pub sealwire: PathBuf,
    /// What decides who is killed when.
    pub seed: u64,
    /// How often somebody is killed.
    pub cycles: u32,
    /// The relay loses what it has accepted for a while: this has to be noticed, or the test proves nothing.
    pub canary: bool,
    /// Nobody is killed: the relay is asked to end (SIGTERM), drains, and comes back.
    pub drain: bool,
}

/// How it ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How often somebody was killed.
    pub cycles: u32,
    /// How long it took.
    pub took: Duration,
    /// How often each was killed.
    pub killed: Vec<(&'static str, u64)>,
    /// How long the relay took to end, each time that it was asked to.
    pub drains: Vec<Duration>,
    /// How long it was from the relay's next start until a device was back, each time.
    pub returns: Vec<Duration>,
    /// What was counted.
    pub tally: Tally,
    /// For every connection behind which messages waited: the time until the first of them was shown.
    pub recoveries: Vec<Duration>,
    /// Messages that waited when a device connected.
    pub recovered: u64,
    /// Events that nothing here may cause.
    pub alarms: BTreeMap<String, u64>,
}

/// It could not be carried through: somebody ended who was not killed, or something did not come.
#[derive(Debug)]
pub struct Broken(pub String);

/// Carries out a plan; `progress` is told after every cycle how many there have been.
///
/// # Errors
/// [`Broken`]. What was counted is in the [`Outcome`], also if it is not what has to be: ask [`Outcome::held`].
pub fn run(plan: &Plan, mut progress: impl FnMut(u32)) -> Result<Outcome, Broken> {
    let began = Instant::now();
    let mut play = play::Play::set_up(plan)?;
    for cycle in 1..=plan.cycles {
        play.cycle(cycle)?;
        progress(cycle);
    }
    play.end(began, plan.cycles)
}

impl Outcome {
    /// Whether every accepted message was shown once, in order, by every device.
    pub fn held(&self) -> bool {
        self.tally.held() && self.alarms.is_empty()
    }
}

/// The time below which this share of all are.
fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a number of samples"
    )]
    let place = (last as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim())
    }
}

/// A table for people.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<52} {value:>10}");
        row("cycles", &self.cycles)?;
        row("seconds", &self.took.as_secs())?;
        for (name, times) in &self.killed {
            row(&format!("killed: {name}"), times)?;
        }
        let Tally {
            given,
            accepted,
            received,
            marked_again,
            lost,
            twice,
            out_of_order,
            wrong,
        } = &self.tally;
        row("messages given", given)?;
        row("messages accepted", accepted)?;
        row("received, by every device of each", received)?;
        row("received again, marked as redelivered", marked_again)?;
        row("lost", lost)?;
        row("twice", twice)?;
        row("out of order", out_of_order)?;
        row("not what was given", wrong)?;
        row("alarms", &self.alarms.values().sum::<u64>())?;
        for (event, times) in &self.alarms {
            row(&format!("  {event}"), times)?;
        }
        row("messages that waited at a reconnect", &self.recovered)?;
        row("reconnects with messages waiting", &self.recoveries.len())?;
        let of = [
            ("to the first of them", &self.recoveries),
            ("from SIGTERM to the relay's end", &self.drains),
            ("from its next start to a device's return", &self.returns),
        ];
        for (what, times) in of.into_iter().filter(|(_, times)| !times.is_empty()) {
            for (name, share) in [("median", 0.5), ("90 %", 0.9), ("longest", 1.0)] {
                let millis = quantile(times, share).as_secs_f64() * 1_000.0;
                row(&format!("{what}, ms, {name}"), &format!("{millis:.1}"))?;
            }
        }
        Ok(())
    }
}
