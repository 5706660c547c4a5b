//! What the tests of the command run: the binary itself, with homes and relays in a directory of their own.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A directory for one test; names of homes and relays are relative to it.
pub(crate) struct World {
    directory: TempDir,
    /// Where commands find the system's keyring, on Linux: nowhere, unless a test says otherwise.
    bus: OsString,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command that runs. It is killed when the test is over.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

/// A relay that runs.
pub(crate) struct Relay {
    pub(crate) running: Running,
    /// `127.0.0.1:port`
    pub(crate) listen: String,
    /// `wss://127.0.0.1:port/v1#thumbprint`
    pub(crate) address: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            bus: "unix:path=/nonexistent".into(),
        }
    }

    /// The same, with the keyring of this test's own session.
    #[allow(dead_code, reason = "not every test has one")]
    pub(crate) fn with_the_keyring_of_the_session() -> Self {
        let bus = std::env::var_os("DBUS_SESSION_BUS_ADDRESS");
        Self {
            bus: bus.unwrap_or_else(|| panic!("run it in a session with a keyring")),
            ..Self::new()
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sealwire"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .env("HOME", self.path().join("nobody"))
            .env("DBUS_SESSION_BUS_ADDRESS", &self.bus)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end, with these variables in its environment.
    #[allow(dead_code, reason = "not every test has any")]
    pub(crate) fn run_in(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        let mut command = self.command(arguments);
        ended(command.envs(variables.iter().copied()).output().unwrap())
    }

    /// Starts a command with these variables in its environment.
    #[allow(dead_code, reason = "not every test has any")]
    pub(crate) fn start_in(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        running(command.envs(variables.iter().copied()).spawn().unwrap())
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, "")
    }

    /// The same, with `input` on its standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Ended {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read it closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        ended(child.wait_with_output().unwrap())
    }

    /// The same as the device in `home`.
    pub(crate) fn at(&self, home: &str, arguments: &[&str]) -> Ended {
        self.run(&[&["--home", home], arguments].concat())
    }

    /// Starts a command.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        self.start_with(arguments, "")
    }

    /// The same, with `input` on its standard input: less than a pipe holds.
    pub(crate) fn start_with(&self, arguments: &[&str], input: &str) -> Running {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read it closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        running(child)
    }

    /// Starts the relay in `relay`, on a free port or where it was before.
    pub(crate) fn relay(&self, listen: &str) -> Relay {
        if !self.path().join("relay").exists() {
            self.run(&["relay", "init", "relay"]).succeeded();
        }
        let mut running = self.start(&[
            "relay", "run", "--data", "relay", "--listen", listen, "--json",
        ]);
        let started = running.next_json();
        assert_eq!(started["event"], "listening");
        let text = |member: &str| started[member].as_str().unwrap().to_owned();
        Relay {
            running,
            listen: text("listen"),
            address: text("address"),
        }
    }

    /// An invitation line.
    pub(crate) fn invite(&self, user: &str) -> String {
        let invited = self.run(&["invite", user, "--data", "relay"]).succeeded();
        invited.stdout
    }

    /// Invites `user`, and joins with a new device in `home`.
    pub(crate) fn join(&self, user: &str, home: &str) {
        let invitation = self.invite(user);
        self.run_with(&["join", "--home", home], invitation)
            .succeeded();
    }

    /// Who lives in `home`.
    pub(crate) fn device(&self, home: &str) -> String {
        let identity = self.at(home, &["whoami", "--json"]).succeeded().json();
        identity["device"].as_str().unwrap().to_owned()
    }

    pub(crate) fn files(&self, directory: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Ended {
    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// It ended with `code` after one line on standard error that contains `message`, and nothing on standard output.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, message: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(last.contains(message), "{self:?}");
        self
    }

    /// The one object on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap()
    }
}

impl Running {
    /// The next line on standard output; waits for it.
    #[track_caller]
    pub(crate) fn next_line(&mut self) -> String {
        read_line(&mut self.stdout).unwrap_or_else(|| panic!("standard output has ended"))
    }

    #[track_caller]
    pub(crate) fn next_json(&mut self) -> Value {
        serde_json::from_str(&self.next_line()).unwrap()
    }

    /// Waits for a line on standard error that contains `part`.
    #[track_caller]
    pub(crate) fn said(&mut self, part: &str) -> String {
        loop {
            let line = read_line(&mut self.stderr);
            let line = line.unwrap_or_else(|| panic!("{part:?} was never said"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(self, signal: &str) -> ExitStatus {
        self.ask_to_end(signal).end().0
    }

    /// Asks it to end.
    pub(crate) fn ask_to_end(self, signal: &str) -> Self {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
        self
    }

    /// Waits for its end: how it ended, and what it still said on standard output and standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap(), stdout, stderr)
    }

    /// Kills it without a warning, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn running(mut child: Child) -> Running {
    Running {
        stdout: BufReader::new(child.stdout.take().unwrap()),
        stderr: BufReader::new(child.stderr.take().unwrap()),
        child,
    }
}

fn read_line(source: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    source.read_line(&mut line).unwrap();
    let text = line.strip_suffix('\n')?;
    Some(text.to_owned())
}
