//! Where a device has the tokens of an identity provider from that the relay exchanges: a file, or a command.
//!
//! ```text
//!  client asks ── file: read anew each time ──────────────────┐
//!             └── command: run, its standard output ──────────┴─▶ token, to the relay and nowhere else
//! ```
//! A token is in no argument and no variable. What stays in the home is where to ask.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use sealwire_client::{NoToken, Thumbprint};
use sealwire_protocol::limits::MAX_TOKEN_BYTES;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::exit::Failure;
use crate::files;
use crate::output::{Output, Printable};

/// What the command finds this device's thumbprint in, for a provider that can name it in `cnf`.
const DEVICE: &str = "SEALWIRE_DEVICE";

/// Bytes of a command, or of a file's path, at most.
pub(crate) const MAX_BYTES: usize = 8_192;
/// How long a command may take: somebody may have to sign in.
const COMMAND_TIME: Duration = Duration::from_secs(5 * 60);

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SignIn {
    /// A file, which something keeps fresh.
    File(PathBuf),
    /// A command of the shell.
    Command(String),
}

/// The options that say so.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct SignInOptions {
    /// Sign in with the token in FILE, of an identity provider whose tokens the relay exchanges; it is read again whenever a token is needed
    #[arg(long, value_name = "FILE")]
    exchange_token_file: Option<PathBuf>,

    /// Sign in with the token that COMMAND, a command of the shell, prints; it runs whenever a token is needed, with the device's thumbprint in
    /// SEALWIRE_DEVICE
    #[arg(long, value_name = "COMMAND")]
    exchange_command: Option<String>,
}

impl SignInOptions {
    /// What was asked for. A file is found again from everywhere.
    pub(crate) fn sign_in(&self) -> Result<Option<SignIn>, Failure> {
        match (&self.exchange_token_file, &self.exchange_command) {
            (Some(file), _) => {
                let path = std::path::absolute(file).map_err(|error| {
                    Failure::usage(format_args!("--exchange-token-file: {error}"))
                })?;
                // It is written down as text.
                match path.to_str() {
                    Some(text) if text.len() <= MAX_BYTES => Ok(Some(SignIn::File(path))),
                    Some(_) | None => Err(Failure::usage(format_args!(
                        "--exchange-token-file: a path of UTF-8, of at most {MAX_BYTES} bytes"
                    ))),
                }
            }
            (None, Some(command)) if command.trim().is_empty() => {
                Err(Failure::usage("--exchange-command: there is no command"))
            }
            (None, Some(command)) if command.len() > MAX_BYTES => Err(Failure::usage(
                format_args!("--exchange-command: it is longer than {MAX_BYTES} bytes"),
            )),
            (None, Some(command)) => Ok(Some(SignIn::Command(command.clone()))),
            (None, None) => Ok(None),
        }
    }
}

impl SignIn {
    /// A token, or why there is none: whoever waits for it is told, and it is asked for again later.
    pub(crate) async fn token(self, device: Thumbprint) -> Result<String, NoToken> {
        let token = self.get(device).await;
        token.map(|token| token.to_string()).map_err(|reason| {
            Output::asked().hint(format_args!(
                "no token to sign in with: {}",
                Printable(&reason)
            ));
            NoToken::TryLater
        })
    }

    /// A token, or in words why there is none.
    pub(crate) async fn get(&self, device: Thumbprint) -> Result<Zeroizing<String>, String> {
        match self {
            Self::File(path) => from_file(path.clone()).await,
            Self::Command(command) => from_command(command, device, COMMAND_TIME).await,
        }
    }
}

async fn from_file(path: PathBuf) -> Result<Zeroizing<String>, String> {
    let read = move || files::read_token(&path, MAX_TOKEN_BYTES);
    let bytes = tokio::task::spawn_blocking(read).await;
    let bytes = bytes.map_err(|error| error.to_string())?;
    text(&bytes.map_err(|failure| failure.message().to_owned())?)
}

/// It is killed when its time is over, or nobody waits for it any more.
async fn from_command(
    command: &str,
    device: Thumbprint,
    time: Duration,
) -> Result<Zeroizing<String>, String> {
    let printed = tokio::time::timeout(time, printed_by(command, device)).await;
    printed.unwrap_or_else(|_| Err(format!("the command has printed no token in {time:?}")))
}

async fn printed_by(command: &str, device: Thumbprint) -> Result<Zeroizing<String>, String> {
    let failed = |error: std::io::Error| format!("the command cannot be run: {error}");
    let mut child = shell(command)
        .env(DEVICE, device.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let mut output = Zeroizing::new(Vec::with_capacity(MAX_TOKEN_BYTES + 3));
    if let Some(stdout) = child.stdout.take() {
        let most = u64::try_from(MAX_TOKEN_BYTES + 3).unwrap_or(u64::MAX);
        let mut stdout = stdout.take(most);
        stdout.read_to_end(&mut output).await.map_err(failed)?;
    }
    if output.len() > MAX_TOKEN_BYTES + 2 {
        // It may not have come to its end, and is killed.
        return text(&output);
    }
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(format!("the command has failed: {status}"));
    }
    text(output.trim_ascii())
}

fn shell(command: &str) -> Command {
    let (shell, flag) = if cfg!(windows) {
        ("cmd", "/C")
    } else {
        ("/bin/sh", "-c")
    };
    let mut shell = Command::new(shell);
    shell.arg(flag).arg(command);
    shell
}

fn text(token: &[u8]) -> Result<Zeroizing<String>, String> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(format!("it is longer than {MAX_TOKEN_BYTES} bytes"));
    }
    match str::from_utf8(token) {
        Ok("") => Err("there is nothing where it should be".to_owned()),
        Ok(token) => Ok(Zeroizing::new(token.to_owned())),
        Err(_) => Err("what is there is no token".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Thumbprint {
        Thumbprint::from_bytes([7; 32])
    }

    async fn run(command: &str) -> Result<String, String> {
        run_within(command, COMMAND_TIME).await
    }

    async fn run_within(command: &str, time: Duration) -> Result<String, String> {
        let token = from_command(command, device(), time).await;
        token.map(|token| token.to_string())
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn command_that_takes_too_long_is_given_up() {
        // Silent, or done with printing and with nothing else.
        for command in [
            "exec tail -f /dev/null",
            "exec tail -f /dev/null > /dev/null",
        ] {
            let given_up = run_within(command, Duration::from_millis(200)).await;
            let error = given_up.unwrap_err();
            assert!(error.contains("200ms"), "{error}");
        }
    }

    #[test]
    fn command_that_could_not_be_written_down_is_refused() {
        let options = |command: String| SignInOptions {
            exchange_token_file: None,
            exchange_command: Some(command),
        };
        assert!(options("x".repeat(MAX_BYTES)).sign_in().is_ok());
        for command in ["x".repeat(MAX_BYTES + 1), " ".to_owned()] {
            assert!(options(command).sign_in().is_err());
        }
        let path = SignInOptions {
            exchange_token_file: Some(PathBuf::from("x".repeat(MAX_BYTES))),
            exchange_command: None,
        };
        assert!(path.sign_in().is_err(), "with what is before it");
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn token_is_what_the_command_prints() {
        assert_eq!(run("printf ' a.b.c\\n'").await, Ok("a.b.c".to_owned()));
        let own = run("printf '%s' \"$SEALWIRE_DEVICE\"").await;
        assert_eq!(own, Ok(device().to_string()));
        for (command, reason) in [
            ("true", "nothing"),
            ("printf a.b.c; exit 3", "3"),
            ("printf '\\377'", "no token"),
            ("yes aaaaaaa", "longer"),
            ("/nonexistent/program", "127"),
        ] {
            let error = run(command).await.unwrap_err();
            assert!(error.contains(reason), "{command}: {error}");
        }
    }

    #[tokio::test]
    async fn token_file_is_read_anew_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let read = || SignIn::File(path.clone()).token(device());
        assert_eq!(read().await, Err(NoToken::TryLater));
        for token in ["a.b.c", "d.e.f"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(read().await.as_deref(), Ok(token));
        }
        std::fs::write(&path, "a".repeat(MAX_TOKEN_BYTES + 3)).unwrap();
        assert_eq!(read().await, Err(NoToken::TryLater));
    }
}
