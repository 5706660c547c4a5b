//! The demo's relay: a process of its own, as anybody would run it, so that it can be killed.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sealwire_protocol::address::Address;
use sealwire_protocol::invite::Invitation;
use sealwire_protocol::name::User;
use sealwire_server::data_dir::DataDir;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::INVITATION;
use crate::commands::relay::PREFIX;
use crate::exit::Failure;
use crate::when;

/// A relay that listens. It is killed when it is dropped, and ends by itself when this process does.
pub(super) struct Relay {
    child: Child,
    data: PathBuf,
    address: Address,
    listen: String,
}

impl Relay {
    /// Starts one in `data`, which is made if it is not there, on a free port.
    pub(super) async fn start(data: &Path) -> Result<Self, Failure> {
        Self::start_at(data.to_owned(), "127.0.0.1:0".to_owned()).await
    }

    /// Kills it, as `kill -9` does: it writes nothing any more. What it leaves can be started again.
    pub(super) async fn kill(mut self) -> Result<Gone, Failure> {
        self.child.kill().await.map_err(failed)?;
        Ok(self.gone())
    }

    /// Lets it end in order.
    pub(super) async fn stop(mut self) -> Result<Gone, Failure> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await.map_err(failed)?;
        if status.success() {
            Ok(self.gone())
        } else {
            Err(failed("it did not end in order"))
        }
    }

    /// Where it is reached.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// An invitation for a device of `user`.
    pub(super) fn invite(&self, user: &str) -> Result<Invitation, Failure> {
        let user = User::new(user).map_err(Failure::usage)?;
        let data = DataDir::open(&self.data)?;
        Ok(data.invite(&user, None, INVITATION.as_secs(), when::now())?)
    }

    async fn start_at(data: PathBuf, listen: String) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        // What the operator of another relay has set is not for this one.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["relay", "run", "--dev", "--until-eof", "--json"])
            .args(["--log", "error", "--listen", &listen, "--data"])
            .arg(&data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().ok_or_else(|| failed("it is mute"))?;
        let first = BufReader::new(stdout).lines().next_line().await;
        // If it says nothing, it has said why on standard error, which is this process's.
        let first = first.map_err(failed)?.unwrap_or_default();
        let started: Value = serde_json::from_str(&first).map_err(failed)?;
        let member = |name| {
            started
                .get(name)
                .and_then(Value::as_str)
                .unwrap_or_default()
        };
        Ok(Self {
            child,
            data,
            address: member("address").parse().map_err(failed)?,
            listen: member("listen").to_owned(),
        })
    }

    fn gone(self) -> Gone {
        Gone {
            data: self.data,
            listen: self.listen,
        }
    }
}

/// What is left of a relay that does not run: its directory, and the port that devices know.
pub(super) struct Gone {
    data: PathBuf,
    listen: String,
}

impl Gone {
    /// Starts it again.
    pub(super) async fn start(self) -> Result<Relay, Failure> {
        Relay::start_at(self.data, self.listen).await
    }
}

fn failed(why: impl std::fmt::Display) -> Failure {
    Failure::failed(format_args!("the relay cannot be run: {why}"))
}
