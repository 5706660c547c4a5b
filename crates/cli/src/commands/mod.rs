//! One file for each command: its arguments and what it does.

pub(crate) mod inspect;
pub(crate) mod jwe;
pub(crate) mod jwk;
pub(crate) mod token;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    cli::{Cli, Command},
    exit::Failure,
    output::Output,
};

/// Does what was asked.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let output = Output::new(cli.global.json);
    match cli.command {
        Command::Token(command) => token::run(command, output),
        Command::Jwk(command) => jwk::run(command, output),
        Command::Jwe(command) => jwe::run(command, output),
        Command::Inspect(command) => inspect::run(&command, output),
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> Result<u64, Failure> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed
        .map(|time| time.as_secs())
        .map_err(|_| Failure::failed("this machine's clock is set before 1970; set it right"))
}
