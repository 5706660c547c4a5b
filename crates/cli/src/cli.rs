//! What can be asked of the command: its arguments, and nothing of what they do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    commands::{inspect, jwe, jwk, token},
    exit::Failure,
};

/// Where a device lives unless `--home` or SEALWIRE_HOME says otherwise, in the user's own directory.
const DEFAULT_HOME: &str = ".sealwire";

/// Exchange messages that only the two ends can read, with the JWTs you already have.
#[derive(Debug, Parser)]
#[command(
    name = "sealwire",
    version,
    propagate_version = true,
    after_help = "Results go to standard output, everything else to standard error.\n\
                  Exit codes: 0 done, 2 usage, 3 not authorised, 4 unreachable, 5 peer unverified or changed, 6 timeout, 1 the rest.\n\
                  Secrets come from files, prompts or standard input, never from the command line."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options that every command has.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Print one JSON object a line, and errors as JSON objects
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The directory of this device's keys and messages [default: ~/.sealwire]
    #[arg(long, global = true, env = "SEALWIRE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
}

impl Global {
    /// The device's directory, which need not exist.
    pub(crate) fn home(&self) -> Result<PathBuf, Failure> {
        if let Some(home) = &self.home {
            return Ok(home.clone());
        }
        let user = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
        user.map(|home| home.join(DEFAULT_HOME)).ok_or_else(|| {
            Failure::usage(
                "your home directory is not known; name the device's directory with --home DIR",
            )
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, verify and look into issuer tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Make keys, and show their public part and thumbprint
    #[command(subcommand)]
    Jwk(jwk::Command),
    /// Write and read standard JWE, without a session and without forward secrecy
    #[command(subcommand)]
    Jwe(jwe::Command),
    /// Show what a sealed message, a JWE or a JWT says without a key
    Inspect(inspect::Inspect),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_are_declared_consistently() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            ["sealwire", "--json", "inspect", "--home", "h"],
            ["sealwire", "inspect", "--json", "--home", "h"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert!(cli.global.json);
            assert_eq!(cli.global.home().unwrap(), PathBuf::from("h"));
        }
    }

    /// Secrets never come from the command line: no argument is called like one that would hold it.
    #[test]
    fn no_argument_takes_a_secret_itself() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let secret = ["key", "secret", "password", "passphrase", "token", "code"];
                if secret.contains(&id) {
                    let value = argument
                        .get_value_names()
                        .map_or("", |names| names.first().map_or("", |name| name.as_str()));
                    assert_eq!(value, "FILE", "{} --{id}", command.get_name());
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
