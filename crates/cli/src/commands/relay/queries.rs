//! `sealwire relay stats`, `users`, `devices` and `mailboxes`: what there is on a relay, whether it runs or not.

use std::path::PathBuf;

use clap::Args;
use sealwire_protocol::name::User;

use crate::exit::Failure;
use crate::output::Output;

/// Which relay.
#[derive(Debug, Args)]
struct Data {
    /// The relay's data directory; the relay may be running
    #[arg(long = "data", value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A relay that runs answers by itself, to its own user and to root. Where none runs, the directory is opened, which only its owner may do.\n\
\n\
Examples:\n  \
    sealwire relay stats --data DIR\n  \
    sealwire relay stats --data DIR --json | jq .mail.bytes")]
pub(crate) struct Stats {
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Those who have a device with a card: others can write to them, or could until lately.\n\
\n\
Examples:\n  \
    sealwire relay users --data DIR")]
pub(crate) struct Users {
    #[command(flatten)]
    data: Data,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A device is current if others can write to it. One that has lapsed has been away for 30 days or more, one without a card has never been here for long, \
and one that was removed stays known, so that it is not let in again.\n\
\n\
Examples:\n  \
    sealwire relay devices --data DIR\n  \
    sealwire relay devices --data DIR --user alice --json")]
pub(crate) struct Devices {
    #[command(flatten)]
    data: Data,

    /// Only this user's
    #[arg(long, value_name = "USER")]
    user: Option<User>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
What waits is messages, and notices of messages that were not delivered.\n\
\n\
Examples:\n  \
    sealwire relay mailboxes --data DIR\n  \
    # the fullest\n  \
    sealwire relay mailboxes --data DIR --json | jq -s 'sort_by(-.bytes)[:10]'")]
pub(crate) struct Mailboxes {
    #[command(flatten)]
    data: Data,

    /// Only those of this user's devices
    #[arg(long, value_name = "USER")]
    user: Option<User>,
}

#[cfg(not(unix))]
mod asking {
    use super::{Data, Devices, Failure, Mailboxes, Output, Stats, Users};

    fn nowhere() -> Result<(), Failure> {
        Err(Failure::usage(
            "a relay is asked over a Unix socket, which this system does not have; its operator's port has /metrics",
        ))
    }

    pub(in super::super) async fn stats(_: &Stats, _: Output) -> Result<(), Failure> {
        nowhere()
    }

    pub(in super::super) async fn users(_: &Users, _: Output) -> Result<(), Failure> {
        nowhere()
    }

    pub(in super::super) async fn devices(_: &Devices, _: Output) -> Result<(), Failure> {
        nowhere()
    }

    pub(in super::super) async fn mailboxes(_: &Mailboxes, _: Output) -> Result<(), Failure> {
        nowhere()
    }
}

#[cfg(unix)]
mod asking {
    use std::fmt::{self, Display};

    use sealwire_server::operator::{
        Console, ConsoleError, DeviceRow, DeviceState, IssuerKind, MailboxRow, Question,
        Stats as StatsRow, UserRow,
    };
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::{Data, Devices, Failure, Mailboxes, Output, Stats, Users};
    use crate::exit::Class;
    use crate::output::{Printable, Written};
    use crate::progress::Size;
    use crate::when::Moment;

    pub(in super::super) async fn stats(stats: &Stats, output: Output) -> Result<(), Failure> {
        list(&stats.data, &Question::Stats, None, output, Shown).await
    }

    pub(in super::super) async fn users(users: &Users, output: Output) -> Result<(), Failure> {
        let head = "DEVICES  CURRENT    LINKS   WAITING  USER";
        list(&users.data, &Question::Users, Some(head), output, user).await
    }

    pub(in super::super) async fn devices(
        devices: &Devices,
        output: Output,
    ) -> Result<(), Failure> {
        let question = Question::Devices(devices.user.clone());
        let head = format!(
            "{:43}  {:7}  {:4}  PREKEYS   WAITING  {:20}  USER",
            "DEVICE", "STATE", "LINK", "CARD"
        );
        list(&devices.data, &question, Some(&head), output, device).await
    }

    pub(in super::super) async fn mailboxes(
        mailboxes: &Mailboxes,
        output: Output,
    ) -> Result<(), Failure> {
        let question = Question::Mailboxes(mailboxes.user.clone());
        let head = format!(
            "{:43}  {:>8}  {:>8}  {:>12}  {:20}  USER",
            "DEVICE", "WAITING", "MESSAGES", "BYTES", "EXPIRES"
        );
        list(&mailboxes.data, &question, Some(&head), output, mailbox).await
    }

    /// Shows an answer, line by line, under `head` if it is for people.
    async fn list<T: Clone + Serialize + DeserializeOwned, S: Display>(
        data: &Data,
        question: &Question,
        head: Option<&str>,
        output: Output,
        show: impl Fn(T) -> S,
    ) -> Result<(), Failure> {
        let console = Console::open(&data.dir).await?;
        if !console.is_running() {
            output.hint("no relay runs on this directory; it is looked into as it is");
        }
        let mut answer = console.ask(question).await?;
        if let Some(head) = head.filter(|_| !output.is_json()) {
            output.result(&(), head)?;
        }
        while let Some(row) = answer.next::<T>().await? {
            // Whoever reads has seen enough.
            if output.line(&row, show(row.clone()))? == Written::Unread {
                break;
            }
        }
        Ok(())
    }

    /// A moment, or that there is none.
    struct At(Option<u64>);

    impl Display for At {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Some(seconds) => Moment(seconds).fmt(f),
                None => f.pad("-"),
            }
        }
    }

    fn user(row: UserRow) -> String {
        format!(
            "{:>7}  {:>7}  {:>7}  {:>8}  {}",
            row.devices,
            row.current,
            row.links,
            row.waiting,
            Printable(&row.user)
        )
    }

    fn device(row: DeviceRow) -> String {
        let state = match row.state {
            DeviceState::Current => "current",
            DeviceState::Lapsed => "lapsed",
            DeviceState::NoCard => "no card",
            DeviceState::Removed => "removed",
            _ => "other",
        };
        format!(
            "{}  {state:7}  {:4}  {:>7}  {:>8}  {:20}  {}",
            row.device,
            if row.linked { "up" } else { "-" },
            row.prekeys,
            row.waiting,
            At(row.card).to_string(),
            Printable(&row.user)
        )
    }

    fn mailbox(row: MailboxRow) -> String {
        format!(
            "{}  {:>8}  {:>8}  {:>12}  {:20}  {}",
            row.device,
            row.waiting,
            row.messages,
            row.bytes,
            At(row.expires).to_string(),
            row.user
                .as_deref()
                .map_or("-".to_owned(), |user| Printable(user).to_string())
        )
    }

    /// Statistics as a table.
    struct Shown(StatsRow);

    impl Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Self(stats) = self;
            let up = match (stats.running, stats.draining, stats.uptime_seconds) {
                (false, _, _) => "no relay runs".to_owned(),
                (true, true, _) => "being drained".to_owned(),
                (true, false, seconds) => {
                    let minutes = seconds.unwrap_or_default() / 60;
                    let (days, hours) = (minutes / 1_440, minutes / 60 % 24);
                    format!("up {days}d {hours}h {}m", minutes % 60)
                }
            };
            writeln!(f, "relay      {}", stats.thumbprint)?;
            writeln!(f, "version    {}", Printable(&stats.version))?;
            writeln!(f, "state      {up}")?;
            if !stats.writable {
                writeln!(
                    f,
                    "stores     take nothing any more: check the disk and start the relay again"
                )?;
            }
            writeln!(f, "links      {}", stats.links)?;
            writeln!(f, "users      {}", stats.users)?;
            writeln!(f, "devices    {}", stats.devices)?;
            writeln!(
                f,
                "mailboxes  {}, {} with something in them",
                stats.mail.mailboxes, stats.mail.waiting_mailboxes
            )?;
            writeln!(
                f,
                "messages   {} waiting, {}",
                stats.mail.messages,
                Size(stats.mail.bytes)
            )?;
            writeln!(
                f,
                "blobs      {}, {} of them on their way, {}",
                stats.blobs.blobs,
                stats.blobs.uploads,
                Size(stats.blobs.bytes)
            )?;
            writeln!(f, "revoked    {}", stats.revocations)?;
            write!(f, "disk free  {}", Size(stats.disk_free_bytes))?;
            for issuer in &stats.issuers {
                let kind = match issuer.kind {
                    IssuerKind::BuiltIn => "built in",
                    IssuerKind::Outside => "identity provider",
                    IssuerKind::Exchange => "exchanged",
                    _ => "other",
                };
                write!(f, "\nissuer     {}, {kind}", Printable(&issuer.issuer))?;
                let Some(keys) = &issuer.keys else { continue };
                match (keys.known, keys.age_seconds) {
                    (true, Some(age)) => write!(f, ", keys had {age} seconds ago")?,
                    (true, None) => write!(f, ", keys had before the relay started")?,
                    (false, _) => write!(f, ", no keys: nobody is let in")?,
                }
            }
            Ok(())
        }
    }

    impl From<ConsoleError> for Failure {
        fn from(error: ConsoleError) -> Self {
            let class = if matches!(error, ConsoleError::Ended) {
                Class::Unreachable
            } else {
                Class::Failed
            };
            Self::new(class, error)
        }
    }
}

pub(super) use asking::{devices, mailboxes, stats, users};
