//! `sealwire relay`: makes a relay's data directory, configures the relay, and runs it.

mod backup;
mod check;
mod config;
mod init;
mod options;
mod queries;
mod revoke;
mod rotate_key;
mod run;
mod settings;

use clap::Subcommand;
use sealwire_server::RelayError;
use sealwire_server::data_dir::DataDirError;

pub(in crate::commands) use self::settings::PREFIX;
use crate::exit::Failure;
use crate::logging::{self, Logging};
use crate::output::Output;

/// Set up and run a relay
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a relay's data directory: its keys, a built-in issuer and a self-signed certificate
    Init(init::Init),
    /// Run a relay until Ctrl-C or SIGTERM
    Run(run::Run),
    /// Revoke a device, a user or tokens, also while the relay runs
    Revoke(revoke::Revoke),
    /// Show how a relay is: links, devices, what waits, the disk
    Stats(queries::Stats),
    /// List a relay's users
    Users(queries::Users),
    /// List a relay's devices
    Devices(queries::Devices),
    /// List a relay's mailboxes and what waits in them
    Mailboxes(queries::Mailboxes),
    /// Copy a relay's data, also while it runs
    Backup(backup::Backup),
    /// Make a data directory of a backup
    Restore(backup::Restore),
    /// Give the relay a new key, which devices that know it by the old one accept
    RotateKey(rotate_key::RotateKey),
    /// Print a configuration file, show what is configured, and check it
    #[command(subcommand)]
    Config(config::Command),
}

pub(crate) fn run(command: Command, logging: &Logging, output: Output) -> Result<(), Failure> {
    // A relay that runs logs as it is configured.
    if !matches!(command, Command::Run(_)) {
        logging.start(logging::RELAY, output)?;
    }
    match command {
        Command::Init(init) => init::run(&init, output),
        Command::Run(run) => super::runtime()?.block_on(run::run(run, logging, output)),
        Command::Revoke(revoke) => revoke::run(&revoke, output),
        Command::Stats(stats) => super::runtime()?.block_on(queries::stats(&stats, output)),
        Command::Users(users) => super::runtime()?.block_on(queries::users(&users, output)),
        Command::Devices(devices) => super::runtime()?.block_on(queries::devices(&devices, output)),
        Command::Mailboxes(mailboxes) => {
            super::runtime()?.block_on(queries::mailboxes(&mailboxes, output))
        }
        Command::Backup(backup) => super::runtime()?.block_on(backup::back_up(&backup, output)),
        Command::Restore(restore) => backup::restore(&restore, output),
        Command::RotateKey(rotate) => rotate_key::run(&rotate, output),
        Command::Config(command) => config::run(command, logging, output),
    }
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        if matches!(
            error,
            DataDirError::Host { .. } | DataDirError::Address { .. }
        ) {
            Self::usage(error)
        } else {
            Self::failed(error)
        }
    }
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        if let RelayError::DataDir(error) = error {
            error.into()
        } else if let RelayError::Address(_) = error {
            Self::usage(error)
        } else {
            Self::failed(error)
        }
    }
}
