//! What an operator asks a relay that runs, and how it is answered: over a Unix socket in its data directory, or, where no relay runs, by whoever
//! opens the directory.
//!
//! ```text
//!  Console::open ──┬── admin.sock ──▶ the relay that runs: HTTP/1.1, the same user or root only ─┐
//!                  └── nobody there: the directory itself, with its locks ───────────────────────┴─▶ Operator::answer ─▶ lines of JSON
//! ```
//! | path | answer |
//! | --- | --- |
//! | `/stats` | one line: [`Stats`] |
//! | `/users` | a line for each user who has devices with a card: [`UserRow`] |
//! | `/devices`, `/devices?user=NAME` | a line for each device: [`DeviceRow`] |
//! | `/mailboxes`, `/mailboxes?user=NAME` | a line for each mailbox: [`MailboxRow`] |
//! | `/backup` | everything, for [`crate::backup`]; one at a time |
//! | others | as on the operator's port |
//!
//! Lists are read page by page while they are written, however long they are, so they are not of one moment. Nothing
//! is changed. But for a backup, which is all that the relay has, nothing here is secret; users are named, so it is for the operator alone.
mod answers;
mod console;
mod question;
mod socket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use sealwire_protocol::key::Thumbprint;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::shared::Shared;

pub use console::{Answer, Console, ConsoleError};
pub use question::Question;
pub(crate) use socket::listen;

/// The socket's name in the relay's data directory.
pub const SOCKET_FILE: &str = "admin.sock";

/// What answers.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    shared: Arc<Shared>,
    directory: PathBuf,
    /// Since when the relay runs; `None` if there is none.
    started: Option<Instant>,
    /// Held while a backup is made.
    backup: Arc<Semaphore>,
}

impl Operator {
    /// That of a relay that runs from now on.
    pub(crate) fn of_relay(shared: Arc<Shared>, directory: PathBuf) -> Self {
        Self {
            shared,
            directory,
            started: Some(Instant::now()),
            backup: Arc::new(Semaphore::new(1)),
        }
    }
}

/// How a relay is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Whether it runs.
    pub running: bool,
    /// The version of the program that answers.
    pub version: String,
    /// The relay's identity.
    #[serde(with = "thumbprint")]
    pub thumbprint: Thumbprint,
    /// For how many seconds it has been running.
    pub uptime_seconds: Option<u64>,
    /// Whether its stores take what devices send.
    pub writable: bool,
    /// Whether links are asked to leave.
    pub draining: bool,
    /// Devices that are connected.
    pub links: u64,
    /// Users who have devices with a card.
    pub users: u64,
    /// Devices that have a card.
    pub devices: u64,
    /// Mailboxes.
    pub mail: MailStats,
    /// Sealed files that devices have left.
    pub blobs: BlobStats,
    /// Bytes that are free where the data directory is.
    pub disk_free_bytes: u64,
    /// Tokens, devices and users that are revoked.
    pub revocations: u64,
    /// Whose tokens count. Nobody knows where no relay runs.
    pub issuers: Vec<IssuerStats>,
}

/// How much there is in all mailboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MailStats {
    /// Devices that were ever written to, or have written.
    pub mailboxes: u64,
    /// Of these, those in which something waits.
    pub waiting_mailboxes: u64,
    /// Messages that wait.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// How many blobs there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BlobStats {
    /// All of them.
    pub blobs: u64,
    /// Of these, those that are not whole yet.
    pub uploads: u64,
    /// Bytes that they count, as if all were whole.
    pub bytes: u64,
}

/// An issuer, and how its keys are doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct IssuerStats {
    /// Its name.
    pub issuer: String,
    /// What it is to the relay.
    pub kind: IssuerKind,
    /// How its keys are, where they are fetched.
    pub keys: Option<KeyStats>,
}

/// What an issuer is to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IssuerKind {
    /// Its own.
    BuiltIn,
    /// The operator's identity provider.
    Outside,
    /// One whose tokens are exchanged.
    Exchange,
}

/// How an issuer's keys are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KeyStats {
    /// Whether there are any.
    pub known: bool,
    /// Seconds since they were last had, unless that was before the relay started.
    pub age_seconds: Option<u64>,
    /// How often they were looked for in vain.
    pub failed: u64,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct UserRow {
    /// The name.
    pub user: String,
    /// Devices with a card.
    pub devices: u64,
    /// Of these, those that others can write to.
    pub current: u64,
    /// Of all, those that are connected.
    pub links: u64,
    /// Messages and notices that wait for them.
    pub waiting: u64,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceRow {
    /// Which one.
    #[serde(with = "thumbprint")]
    pub device: Thumbprint,
    /// Whose it is.
    pub user: String,
    /// What it is.
    pub state: DeviceState,
    /// Whether it is connected.
    pub linked: bool,
    /// When the built-in issuer enrolled it, in seconds since 1970.
    pub enrolled: Option<u64>,
    /// When its card was made, in seconds since 1970.
    pub card: Option<u64>,
    /// One-time prekeys that it has left here.
    pub prekeys: u64,
    /// Messages and notices that wait for it.
    pub waiting: u64,
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceState {
    /// Others can write to it.
    Current,
    /// It has a card, and its attestation is too old for others to write to it.
    Lapsed,
    /// It has no card.
    NoCard,
    /// It was removed, for good.
    Removed,
}

/// A mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct MailboxRow {
    /// Whose mailbox it is.
    #[serde(with = "thumbprint")]
    pub device: Thumbprint,
    /// Whose device that is, if it is known.
    pub user: Option<String>,
    /// Messages and notices that wait.
    pub waiting: u64,
    /// Messages that wait.
    pub messages: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// When the first of what waits is given up, in seconds since 1970.
    pub expires: Option<u64>,
    /// The number of the last message that the device has sent.
    pub sent: u64,
}

/// A thumbprint as text.
mod thumbprint {
    use sealwire_protocol::key::Thumbprint;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(
        thumbprint: &Thumbprint,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(thumbprint)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Thumbprint, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}
