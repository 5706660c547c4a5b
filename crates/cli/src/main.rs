//! The `sealwire` command.
//!
//! ```text
//! main ── cli (what was asked) ── commands::… (one file each) ── output (results, to stdout)
//!                                                             └─ exit   (failures, to stderr, and the exit code)
//! ```
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod exit;
mod files;
mod output;

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
