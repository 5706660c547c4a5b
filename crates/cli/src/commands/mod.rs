//! One file for each command: its arguments and what it does.

pub(crate) mod chat;
pub(crate) mod demo;
pub(crate) mod devices;
pub(crate) mod doctor;
pub(crate) mod inspect;
pub(crate) mod invite;
pub(crate) mod join;
pub(crate) mod jwe;
pub(crate) mod jwk;
pub(crate) mod listen;
pub(crate) mod relay;
pub(crate) mod send;
pub(crate) mod token;
pub(crate) mod verify;
pub(crate) mod whoami;

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{
    cli::{Cli, Command},
    exit::Failure,
    logging,
    output::Output,
};

/// Does what was asked.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let (output, global) = (Output::new(cli.global.json), cli.global);
    // The relay's log is part of what it is for, and configured; elsewhere it is for looking into faults.
    if !matches!(cli.command, Command::Relay(_)) {
        global.logging.start(logging::ELSEWHERE, output)?;
    }
    match cli.command {
        Command::Demo(_) => demo::run(output),
        Command::Relay(command) => relay::run(command, &global.logging, output),
        Command::Invite(command) => invite::run(&command, output),
        Command::Join(command) => join::run(command, &global.home()?, output),
        Command::Whoami(_) => whoami::run(&global.home()?, output),
        Command::Devices(command) => devices::run(&command, &global.home()?, output),
        Command::Send(command) => send::run(command, &global.home()?, output),
        Command::Listen(command) => listen::run(&command, &global.home()?, output),
        Command::Chat(command) => chat::run(&command, &global.home()?, output),
        Command::Verify(command) => verify::run(&command, &global.home()?, output),
        Command::Doctor(command) => doctor::run(&command, || global.home(), output),
        Command::Token(command) => token::run(command, output),
        Command::Jwk(command) => jwk::run(command, output),
        Command::Jwe(command) => jwe::run(command, &global, output),
        Command::Inspect(command) => inspect::run(&command, output),
    }
}

/// What runs the commands that wait for something.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("no threads can be started: {error}")))
}

/// Seconds since 1970.
pub(crate) fn now() -> Result<u64, Failure> {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    elapsed
        .map(|time| time.as_secs())
        .map_err(|_| Failure::failed("this machine's clock is set before 1970; set it right"))
}
