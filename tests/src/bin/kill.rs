//! Kills a relay and devices at random and counts what arrives.
//!
//! `cargo run --release -p sealwire-tests --bin kill -- --cycles 300 [--seed N] [--sealwire PATH] [--canary | --drain]`
//!
//! Builds the command first, unless it is named. Ends with 0 only if nothing was lost, twice or out of order. With --canary the relay is put back to an
//! earlier copy meanwhile, which has to be noticed: then it ends with 0 only if it was.
//! With --drain nobody is killed: the relay is restarted in order again and again, as in a rolling restart.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use sealwire_tests::kill::{Broken, Outcome, Plan, run};

/// Cycles, unless said otherwise.
const CYCLES: u32 = 300;

fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(wrong) => {
            eprintln!("kill: {wrong}");
            return ExitCode::from(2);
        }
    };
    println!("seed {}; the same kills again with --seed", plan.seed);
    let progress = |cycle: u32| {
        if std::io::stderr().is_terminal() || cycle.is_multiple_of(25) {
            // It matters to nobody if standard error is gone.
            let _ = write!(std::io::stderr(), "\r{cycle} of {} cycles ", plan.cycles);
        }
    };
    let outcome = run(&plan, progress);
    eprintln!();
    if plan.canary {
        return canary(outcome);
    }
    match outcome {
        Ok(outcome) => {
            print!("{outcome}");
            if outcome.held() {
                println!("every accepted message was received once, in order, by every device");
                return ExitCode::SUCCESS;
            }
            eprintln!("kill: this must not be; seed {}", plan.seed);
        }
        Err(broken) => eprintln!("kill: {broken}\nkill: seed {}", plan.seed),
    }
    ExitCode::FAILURE
}

fn canary(outcome: Result<Outcome, Broken>) -> ExitCode {
    match outcome {
        Ok(outcome) if outcome.held() => {
            println!("{outcome}the loss was not noticed");
            return ExitCode::FAILURE;
        }
        Ok(outcome) => println!("{outcome}the loss was noticed"),
        Err(broken) => println!("{broken}\nthe loss was noticed"),
    }
    ExitCode::SUCCESS
}

fn plan() -> Result<Plan, String> {
    let (mut cycles, mut seed, mut sealwire) = (CYCLES, rand::random::<u32>().into(), None);
    let (mut canary, mut drain) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--canary" => canary = true,
            "--drain" => drain = true,
            _ => {}
        }
        if name == "--canary" || name == "--drain" {
            continue;
        }
        let value = arguments
            .next()
            .ok_or_else(|| format!("{name} needs a value"))?;
        let number = || format!("{name} {value}: not a number");
        match name.as_str() {
            "--cycles" => cycles = value.parse().map_err(|_| number())?,
            "--seed" => seed = value.parse().map_err(|_| number())?,
            "--sealwire" => {
                let path = std::fs::canonicalize(&value);
                sealwire = Some(path.map_err(|error| format!("{value}: {error}"))?);
            }
            _ => {
                return Err(format!(
                    "{name} is unknown; there are --cycles N, --seed N, --sealwire PATH, --canary and --drain"
                ));
            }
        }
    }
    let sealwire = sealwire.map_or_else(build, Ok)?;
    Ok(Plan {
        sealwire,
        seed,
        cycles,
        canary,
        drain,
    })
}

/// The command, built as this program was, next to which it then is.
fn build() -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("the command cannot be built: {error}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--locked", "-p", "sealwire"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    if !built.map_err(failed)?.success() {
        return Err("the command cannot be built".to_owned());
    }
    let here = std::env::current_exe().map_err(failed)?;
    Ok(here.with_file_name(format!("sealwire{}", std::env::consts::EXE_SUFFIX)))
}
