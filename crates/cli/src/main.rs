//! The `sealwire` command.
//!
//! ```text
//! main ── cli (what was asked) ── commands::… (one file each) ── output (results, to stdout)
//!                                        │                     └─ exit   (failures, to stderr, and the exit code)
//!                                        ├─ home, device: a device's directory, and the device connected
//!                                        └─ events: how what happens to a device is shown
//! ```
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod device;
mod events;
mod exit;
mod files;
mod home;
mod lines;
mod logging;
mod output;
mod progress;
mod sign_in;
mod stop;
#[cfg(feature = "opentelemetry")]
mod telemetry;
mod when;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let json = cli.global.json;
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}
