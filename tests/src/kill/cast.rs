//! Who takes part: a relay and devices in directories of their own, and the commands that bring each back.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Messages that a sender has under way at a time.
pub(super) const AT_ONCE: usize = 16;
/// So many that the relay's rate does not bound the load.
const MESSAGES_PER_MINUTE: &str = "1000000";

/// What a process is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Relay,
    /// A device of a user: it sends, or shows what arrives, or both.
    Device {
        sends: Option<Sends>,
        shows: Option<usize>,
    },
}

/// What a device sends: the messages of a flow, to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sends {
    pub(super) flow: usize,
    pub(super) to: &'static str,
}

/// One who takes part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Of the home, too; a device's user is the name without its number.
    pub(super) name: &'static str,
    pub(super) role: Role,
}

/// Two users with two devices each who write to each other, one who writes to the second, and two more for themselves.
pub(super) const CAST: [Part; 8] = [
    Part {
        name: "relay",
        role: Role::Relay,
    },
    device("alice", Some((0, "bob")), Some(0)),
    device("alice2", None, Some(1)),
    device("bob", Some((1, "alice")), Some(2)),
    device("bob2", None, Some(3)),
    device("carol", Some((2, "bob")), None),
    device("dave", Some((3, "erin")), None),
    device("erin", None, Some(4)),
];
/// Devices that show messages.
pub(super) const SHOWING: usize = 5;

const fn device(
    name: &'static str,
    sends: Option<(usize, &'static str)>,
    shows: Option<usize>,
) -> Part {
    let sends = match sends {
        Some((flow, to)) => Some(Sends { flow, to }),
        None => None,
    };
    Part {
        name,
        role: Role::Device { sends, shows },
    }
}

/// For each flow, the devices that have to show its messages: all of the recipient's, and the sender's other ones.
pub(super) fn flows() -> Vec<Vec<usize>> {
    vec![vec![2, 3, 1], vec![0, 1, 3], vec![2, 3], vec![4]]
}

/// The directory in which everybody lives, and the command itself.
pub(super) struct Town {
    folder: TempDir,
    sealwire: PathBuf,
    listen: String,
}

impl Town {
    /// A relay that has run once, so that it has a port to come back to.
    pub(super) fn new(sealwire: &Path) -> Self {
        let town = Self {
            folder: tempfile::tempdir().unwrap(),
            sealwire: sealwire.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
        };
        town.run(&["relay", "init", "relay"], "");
        town
    }

    /// Remembers where the relay listens, as it says itself.
    pub(super) fn listens(&mut self, started: &str) {
        let started: Value = serde_json::from_str(started).unwrap();
        self.listen = started
            .get("listen")
            .and_then(Value::as_str)
            .unwrap()
            .to_owned();
    }

    /// Copies what the relay, which does not run, has stored.
    pub(super) fn keep_relay(&self) {
        copy(&self.relay(), &self.folder.path().join("kept"));
    }

    /// Puts the relay, which does not run, back to the copy: what it has accepted since is gone.
    pub(super) fn put_relay_back(&self) {
        std::fs::remove_dir_all(self.relay()).unwrap();
        std::fs::rename(self.folder.path().join("kept"), self.relay()).unwrap();
    }

    fn relay(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    /// Makes the device `home` one of its user's.
    pub(super) fn join(&self, home: &str) {
        let user = home.trim_end_matches(char::is_numeric);
        let invitation = self.run(&["invite", user, "--data", "relay"], "");
        self.run(&["join", "--home", home], &invitation);
    }

    /// What brings a part back.
    pub(super) fn command(&self, part: Part) -> Command {
        let home = ["--home", part.name, "--keep-trying", "--json"];
        match part.role {
            Role::Relay => {
                let relay = ["relay", "run", "--data", "relay", "--json"];
                let listen = ["--listen", &self.listen];
                let rate = ["--messages-per-minute", MESSAGES_PER_MINUTE];
                self.sealwire(&[&relay[..], &listen, &rate].concat())
            }
            Role::Device {
                sends: Some(Sends { to, .. }),
                shows,
            } => {
                let command = if shows.is_some() { "chat" } else { "send" };
                let at_once = AT_ONCE.to_string();
                let send = [command, to, "--json-lines", "--at-once", &at_once];
                self.sealwire(&[&send[..], &home].concat())
            }
            Role::Device { sends: None, .. } => self.sealwire(&[&["listen"][..], &home].concat()),
        }
    }

    fn sealwire(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(&self.sealwire);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear();
        command
    }

    /// Runs a command that has to succeed; gives its output.
    fn run(&self, arguments: &[&str], input: &str) -> String {
        let mut child = self
            .sealwire(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read it closes it.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {why}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}
