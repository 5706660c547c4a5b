//! Everything that may fail, in one thread and in no time: deterministic simulation of a relay and its devices.
//!
//! ```text
//!  seed ──▶ Plan: who sends what, what fails when
//!             │
//!             ▼                 ┌─ Device: application, real engine, real link ── Disk, clock
//!           World ── Schedule ──┼─ Network: late, lost, twice, cut
//!             │                 └─ Relay: real links, directory and mailboxes ─── Disk, clock
//!             ▼
//!           Ledger: what was sent and shown, and whether that is what was promised
//! ```
//! One seed is one run. Nothing in a run asks the system for time, randomness or a thread: time is virtual and moves to the next event, chance is a
//! generator of the seed's. So a seed that failed fails again, and its trace says why. What runs is the code that runs everywhere else; simulated are
//! the network, the disks, the clocks and the applications.
//!
//! After a while no fault happens any more, and everything has to come to rest: connected, nothing under way, every message that was accepted shown on every
//! device that it was for, and every sender told. A [`Canary`] takes one guarantee away; a simulation that does not notice proves nothing.

mod canary;
mod chance;
mod device;
mod disk;
mod fault;
mod ledger;
mod network;
mod plan;
mod relay;
mod report;
mod schedule;
mod town;
mod trace;
mod world;

pub use canary::Canary;
pub use fault::{Fault, Tally};
pub use ledger::{Invariant, Violation};
pub use report::{Outcome, Report, replay, run, run_many};

/// What a run follows from.
pub type Seed = u64;

/// How runs are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The guarantee that is missing.
    pub canary: Option<Canary>,
    /// Every event is a line on stderr.
    pub trace: bool,
}
