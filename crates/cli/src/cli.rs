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
        for (document, least) in [("README.md", 9), ("docs/operations.md", 23)] {
            let path = format!("{}/../../{document}", env!("CARGO_MANIFEST_DIR"));
            let page = std::fs::read_to_string(path).unwrap();
            let shell = page.split("\n```sh\n").skip(1);
            let shell = shell.map(|rest| rest.split("\n```").next().unwrap());
            let found: usize = shell.map(|shell| try_all(document, shell)).sum();
            assert!(found >= least, "{document}: {found}");
        }
    }

    #[test]
    fn examples_of_the_help_exist_and_have_the_paths_of_the_documentation() {
        fn examples(command: &clap::Command) -> usize {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            // The data directory is the relay's, and its home is not.
            let home = help.split("/var/lib/sealwire").skip(1);
            for rest in home {
                assert!(rest.starts_with("/relay"), "{help}");
            }
            let unit = help.split("systemctl restart ").skip(1);
            for rest in unit {
                assert!(rest.starts_with("sealwire-relay"), "{help}");
            }
            let (_, shell) = help.split_once("Example").unwrap_or_default();
            let found = try_all(command.get_name(), shell);
            found + command.get_subcommands().map(examples).sum::<usize>()
        }
        let found = examples(&Cli::command());
        assert!(found >= 60, "{found}");
    }

    /// Parses each command of ours in these lines of shell, and says how many there were.
    #[track_caller]
    fn try_all(place: &str, shell: &str) -> usize {
        let shell = shell.replace("\\\n", " ");
        let commands = shell.lines().flat_map(commands).filter_map(ours);
        // What is left out could be anything.
        let whole = commands.filter(|words| !words.iter().any(|word| word.ends_with("...")));
        let commands: Vec<_> = whole.collect();
        for words in &commands {
            let parsed = Cli::try_parse_from(words);
            // Which is an error to clap.
            let help = words.last().is_some_and(|last| last == "--version");
            assert!(parsed.is_ok() || help, "{place}: {words:?}");
        }
        commands.len()
    }

    /// The command of ours that these words run, whoever runs it and where.
    fn ours(mut words: Vec<String>) -> Option<Vec<String>> {
        while words.first().is_some_and(|word| is_assignment(word)) {
            words.remove(0);
        }
        if words.first()? == "sudo" {
            let user = words.get(1).is_some_and(|word| word == "-u");
            words.drain(..if user { 3 } else { 1 });
        }
        let elsewhere = match words.first()?.as_str() {
            "ssh" => true,
            "docker" => ["run", "exec"].contains(&words.get(1)?.as_str()),
            _ => false,
        };
        let begin = words.iter().position(|word| word == "sealwire")?;
        // The image, which runs the command of its own.
        let none = words.len() == begin + 1;
        ((begin == 0 || elsewhere) && !none).then(|| words.split_off(begin))
    }

    fn is_assignment(word: &str) -> bool {
        word.split_once('=').is_some_and(|(name, _)| {
            let of_a_name = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
            !name.is_empty() && name.bytes().all(of_a_name)
        })
    }

    /// The words of each command in a line of shell, also of one whose output is assigned.
    fn commands(line: &str) -> Vec<Vec<String>> {
        let line = match line.split_once("=\"$(") {
            Some((_, command)) => command.trim_end_matches(")\""),
            None => line,
        };
        let mut commands = vec![Vec::new()];
        let (mut word, mut quote) = (String::new(), None);
        let mut into_a_file = false;
        for c in line.chars().chain([' ']) {
            match (quote, c) {
                (None, '"' | '\'') => quote = Some(c),
                (Some(open), c) if open == c => quote = None,
                (None, ' ') => match std::mem::take(&mut word).as_str() {
                    "" => {}
                    "#" => break,
                    ">" | "<" => into_a_file = true,
                    "|" | "&" | "&&" => commands.push(Vec::new()),
                    _ if into_a_file => into_a_file = false,
                    word => commands.last_mut().unwrap().push(word.to_owned()),
                },
                (_, c) => word.push(c),
            }
        }
        commands
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
