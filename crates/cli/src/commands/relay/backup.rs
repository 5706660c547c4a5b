//! `sealwire relay backup` and `restore`: a copy of a relay's data while it runs, and the way back.

use std::path::PathBuf;

use clap::Args;

use crate::exit::Failure;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "\
The relay goes on while it is copied, and nothing that it accepted before is missing. What comes is written by you: the relay needs no right to write there. \
DIR holds the relay's keys and what waits for devices: keep it as secret as the relay's own directory.\n\
\n\
Examples:\n  \
    sealwire relay backup /srv/backup/relay-1 --data /var/lib/sealwire/relay")]
pub(crate) struct Backup {
    /// The directory to make; only you may enter it
    dir: PathBuf,

    /// The relay's data directory; the relay may be running
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
All of the backup is verified before anything is made. Devices find out that the relay was put back, send again what it does not know, and tell their users that \
messages may be missing. Never run a relay on this and another on what it is a copy of.\n\
\n\
Examples:\n  \
    sealwire relay restore /srv/backup/relay-1 --data /var/lib/sealwire/relay")]
pub(crate) struct Restore {
    /// The backup
    backup: PathBuf,

    /// The data directory to make; it is empty, or does not exist
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[cfg(not(unix))]
mod copying {
    use super::{Backup, Failure, Output, Restore};

    fn nowhere() -> Result<(), Failure> {
        Err(Failure::usage(
            "a relay is copied over a Unix socket, which this system does not have; stop it and copy its directory",
        ))
    }

    pub(in super::super) async fn back_up(_: &Backup, _: Output) -> Result<(), Failure> {
        nowhere()
    }

    pub(in super::super) fn restore(_: &Restore, _: Output) -> Result<(), Failure> {
        nowhere()
    }
}

#[cfg(unix)]
mod copying {
    use std::path::Path;

    use sealwire_server::backup::{self, BackupError, Copied};
    use sealwire_server::operator::Console;
    use serde_json::json;

    use super::{Backup, Failure, Output, Restore};
    use crate::progress::{Bar, Size};

    pub(in super::super) async fn back_up(backup: &Backup, output: Output) -> Result<(), Failure> {
        let console = Console::open(&backup.data).await?;
        if !console.is_running() {
            output.hint("no relay runs on this directory; it is copied as it is");
        }
        let mut bar = Bar::new(output, "backup");
        let copied = backup::back_up(&console, &backup.dir, |done, total| bar.show(done, total));
        let copied = copied.await?;
        drop(bar);
        told("backup", copied, &backup.dir, output)?;
        output.hint("it holds the relay's keys: keep it secret");
        Ok(())
    }

    pub(in super::super) fn restore(restore: &Restore, output: Output) -> Result<(), Failure> {
        let mut bar = Bar::new(output, "restore");
        let show = |done, total| bar.show(done, total);
        let copied = backup::restore(&restore.backup, &restore.data, show)?;
        drop(bar);
        told("data", copied, &restore.data, output)?;
        output.hint(
            "put the newest revocations.jsonl that there is into it before the relay runs: what was revoked since is not in the backup",
        );
        Ok(())
    }

    fn told(what: &str, copied: Copied, at: &Path, output: Output) -> Result<(), Failure> {
        output.result(
            &json!({
                what: at,
                "relay": copied.relay.to_string(),
                "files": copied.files,
                "bytes": copied.bytes,
            }),
            format_args!(
                "relay {}: {} files, {}, in {}",
                copied.relay,
                copied.files,
                Size(copied.bytes),
                at.display()
            ),
        )
    }

    impl From<BackupError> for Failure {
        fn from(error: BackupError) -> Self {
            if let BackupError::Console(error) = error {
                error.into()
            } else {
                Self::failed(error)
            }
        }
    }
}

pub(super) use copying::{back_up, restore};
