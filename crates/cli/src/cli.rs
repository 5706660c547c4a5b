//! What can be asked of the command: its arguments, and nothing of what they do.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    commands::{
        chat, demo, devices, doctor, inspect, invite, join, jwe, jwk, listen, relay, send, token,
        verify, whoami,
    },
    exit::Failure,
    home::Home,
    logging::Logging,
};

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
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Print one JSON object a line, and errors as JSON objects
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// The directory of this device's keys and messages [default: ~/.local/share/sealwire]
    #[arg(long, global = true, env = "SEALWIRE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) logging: Logging,
}

impl Global {
    /// The device's directory, which need not exist.
    pub(crate) fn home(&self) -> Result<Home, Failure> {
        let path = self.home.clone().or_else(Home::default_path);
        path.map(Home::at).ok_or_else(|| {
            Failure::usage(
                "your home directory is not known; name the device's directory with --home DIR",
            )
        })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it work: a relay and two people on this machine, with every claim checked
    Demo(demo::Demo),
    /// Set up and run a relay
    #[command(subcommand)]
    Relay(relay::Command),
    /// Invite a user to a relay: prints one line to hand over
    Invite(invite::Invite),
    /// Join a relay with an invitation: makes this machine a device of the invited user
    Join(join::Join),
    /// Show who this device is
    Whoami(whoami::Whoami),
    /// Show a user's devices; name and remove your own
    Devices(devices::Devices),
    /// Send a message
    Send(send::Send),
    /// Show the messages that arrive
    Listen(listen::Listen),
    /// Send what is typed and show what arrives
    Chat(chat::Chat),
    /// Compare safety numbers with a user
    Verify(verify::Verify),
    /// Find out what is wrong with a connection, and what to do
    Doctor(doctor::Doctor),
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
            assert_eq!(cli.global.home().unwrap().path(), PathBuf::from("h"));
        }
    }

    /// One thumbprint in 64 begins with a hyphen, as base64url does.
    #[test]
    fn thumbprint_may_begin_with_a_hyphen() {
        for thumbprint in [
            "-7S3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w",
            "--S3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w",
            "-hS3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w",
        ] {
            for line in [
                ["sealwire", "devices", "remove", thumbprint, "--yes"],
                ["sealwire", "devices", "remove", "--yes", thumbprint],
            ] {
                Cli::try_parse_from(line).unwrap();
            }
        }
        let typo = ["sealwire", "devices", "remove", "--yse"];
        Cli::try_parse_from(typo).unwrap_err();
    }

    /// What the documentation tells people to type can be typed.
    #[test]
    fn commands_of_the_documentation_exist() {
        for (document, least) in [("README.md", 9), ("docs/operations.md", 11)] {
            let path = format!("{}/../../{document}", env!("CARGO_MANIFEST_DIR"));
            let page = std::fs::read_to_string(path).unwrap();
            let shell = page.split("\n```sh\n").skip(1);
            let shell = shell.map(|rest| rest.split("\n```").next().unwrap());
            let mut found = 0;
            for line in shell.flat_map(str::lines) {
                let line = line.strip_prefix("sudo -u sealwire ").unwrap_or(line);
                let words = words(line);
                if words.first().is_some_and(|first| first == "sealwire") {
                    let parsed = Cli::try_parse_from(&words);
                    // Which is an error to clap.
                    let help = words.last().is_some_and(|last| last == "--version");
                    assert!(parsed.is_ok() || help, "{document}: {line}");
                    found += 1;
                }
            }
            assert!(found >= least, "{document}: {found}");
        }
    }

    /// The words of a line of shell, up to where something else than the command begins.
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let (mut word, mut quote) = (String::new(), None);
        for c in line.chars().chain([' ']) {
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (None, ' ') => {
                    let word = std::mem::take(&mut word);
                    if matches!(word.as_str(), "#" | ">" | "|" | "&" | "&&") {
                        break;
                    }
                    words.extend(Some(word).filter(|word| !word.is_empty()));
                }
                (_, c) => word.push(c),
            }
        }
        words
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
                    let asked_for = matches!(argument.get_action(), clap::ArgAction::SetTrue);
                    assert!(
                        asked_for || value == "FILE",
                        "{} --{id}",
                        command.get_name()
                    );
                }
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
