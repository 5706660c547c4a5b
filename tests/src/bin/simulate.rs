//! Runs the simulation over many seeds, and prints what was done and what held.
//!
//! ```text
//! cargo run --release -p sealwire-tests --features simulation --bin simulate -- --seeds 2000
//! cargo run --release -p sealwire-tests --features simulation --bin simulate -- --seed 17 --trace
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use sealwire_tests::simulation::{Canary, Options, Outcome, Report, replay, run, run_many};

const USAGE: &str = "\
usage: simulate [--seeds N] [--from N] [--jobs N] [--canary NAME] [--json]
       simulate --seed N [--trace] [--canary NAME]

  --seeds N      how many seeds to run; 2000 by default
  --from N       the first of them; 1 by default
  --jobs N       threads, each with runs of its own; by default as many as there are processors
  --seed N       run this one
  --trace        print every event of it on stderr
  --canary NAME  take one guarantee away, to see that it is noticed: relay-forgets, device-forgets,
                 early-ack, no-deduplication, disorder, same-randomness, unnoticed-copy or no-notices
  --json         print one object in place of the tables

Exit codes: 0 all promises held, 1 one was broken, 2 usage.";

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(5);

struct Arguments {
    seeds: u64,
    from: u64,
    jobs: usize,
    seed: Option<u64>,
    json: bool,
    options: Options,
}

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprintln!("simulate: {what}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match arguments.seed {
        Some(seed) => one(seed, &arguments.options),
        None => many(&arguments),
    }
}

fn one(seed: u64, options: &Options) -> ExitCode {
    let outcome = run(seed, options);
    println!(
        "seed {seed}: {} messages, {} times one was shown, {} faults, {} s of virtual time, trace {:016x}",
        outcome.volume.0,
        outcome.volume.1,
        outcome.faults.total(),
        outcome.lasted / 1_000,
        outcome.hash
    );
    for violation in &outcome.violations {
        println!("seed {seed} failed: {violation}");
    }
    ExitCode::from(u8::from(!outcome.violations.is_empty()))
}

fn many(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let told = std::sync::Mutex::new(started);
    let progress = |report: &Report, outcome: &Outcome| {
        if let Some(violation) = outcome.violations.first() {
            eprintln!(
                "seed {} failed: {violation}\n  {}",
                outcome.seed,
                replay(outcome.seed, &arguments.options)
            );
        }
        if let Ok(mut told) = told.lock()
            && (told.elapsed() >= PROGRESS || report.seeds == arguments.seeds)
        {
            *told = Instant::now();
            eprintln!(
                "{:>7} of {} seeds, {} failed, {} faults, {} s; the slowest, {}, took {} ms",
                report.seeds,
                arguments.seeds,
                report.failed,
                report.faults.total(),
                started.elapsed().as_secs(),
                report.slowest.0,
                report.slowest.1.as_millis()
            );
        }
    };
    let report = run_many(
        arguments.from,
        arguments.seeds,
        arguments.jobs,
        &arguments.options,
        progress,
    );
    if arguments.json {
        println!("{}", report.to_json());
    } else {
        println!("{report}");
    }
    ExitCode::from(u8::from(report.has_failed()))
}

impl Arguments {
    /// `None`: help was asked for.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut arguments = Self {
            seeds: 2_000,
            from: 1,
            jobs,
            seed: None,
            json: false,
            options: Options::default(),
        };
        while let Some(word) = words.next() {
            let mut number = || {
                let number = words.next().and_then(|number| number.parse::<u64>().ok());
                number.ok_or_else(|| format!("{word} needs a number"))
            };
            match word.as_str() {
                "--seeds" => arguments.seeds = number()?,
                "--from" => arguments.from = number()?,
                "--jobs" => arguments.jobs = usize::try_from(number()?).unwrap_or(1),
                "--seed" => arguments.seed = Some(number()?),
                "--trace" => arguments.options.trace = true,
                "--json" => arguments.json = true,
                "--canary" => {
                    let canary = words.next().and_then(|name| Canary::named(&name));
                    arguments.options.canary = Some(canary.ok_or("no such canary")?);
                }
                "--help" | "-h" => return Ok(None),
                _ => return Err(format!("what is {word}?")),
            }
        }
        Ok(Some(arguments))
    }
}
