//! `sealwire listen`: shows what arrives.

mod save;

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use sealwire_client::{Client, ConnectionState, Event};
use tokio::time::Instant;

use crate::device::{Connect, Device, Unlock};
use crate::events::{self, File, Shown, Unsaved};
use crate::exit::{Class, Failure};
use crate::home::Home;
use crate::output::Output;
use crate::stop::Stop;
use save::Saved;

#[derive(Debug, Args)]
#[command(after_help = "\
A message is erased from the store once it is shown. If the command is killed before that, or nobody reads its output, the message is shown the next \
time, and marked: \"redelivered\" says that it may have been shown before. \
Without --save, files wait to be saved by a later command; if 448 do, the command ends with exit code 1, and what comes after them waits at the relay.\n\
\n\
Examples:\n  \
    # until Ctrl-C\n  \
    sealwire listen\n  \
    # one message; exit code 6 if there is none in time\n  \
    sealwire listen --count 1 --timeout 30\n  \
    # files too; what was interrupted goes on\n  \
    sealwire listen --save ~/Downloads\n  \
    sealwire listen --json | jq -r 'select(.user == \"bob\") | .text'")]
pub(crate) struct Listen {
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End so many seconds after connecting; with exit code 6 if there were fewer messages than --count says, or none
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,

    /// Save the files that are sent to you in this directory, also those that came before. Without it they wait, for as long as the relay keeps them (30 days)
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,

    /// Tell senders that their messages were read, if this user has ever written to them
    #[arg(long)]
    read: bool,

    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) fn run(listen: &Listen, home: &Home, output: Output) -> Result<(), Failure> {
    if let Some(directory) = &listen.save
        && !directory.is_dir()
    {
        return Err(Failure::usage(format_args!(
            "{} is not a directory",
            directory.display()
        )));
    }
    super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let device = tokio::select! {
            device = Device::connect(home, &listen.unlock, listen.connect) => device?,
            () = stop.requested() => return Ok(()),
        };
        let deadline = listen
            .timeout
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let mut heard = 0;
        let unsaved = Unsaved::default();
        let end = loop {
            if listen.count == Some(heard) {
                break Ok(());
            }
            let shown = async {
                let event = device.client.next().await?;
                Some(show(&event, listen, &device, &unsaved, output).await)
            };
            tokio::select! {
                shown = shown => match shown {
                    Some(Ok(Shown::Message)) => heard += 1,
                    Some(Ok(Shown::Other)) => {}
                    Some(Ok(Shown::Unread)) => break Ok(()),
                    Some(Err(failure)) => break Err(failure),
                    None => break Err(ended(&device.client)),
                },
                () = at(deadline) => break timeout(listen, heard),
                () = stop.requested() => break Ok(()),
            }
        };
        device.close(end).await
    })
}

/// Shows an event; a file is saved before, if it is to be.
async fn show(
    event: &Event,
    listen: &Listen,
    device: &Device,
    unsaved: &Unsaved,
    output: Output,
) -> Result<Shown, Failure> {
    device.follow(event)?;
    let (Some(directory), Some((_, _, offer))) = (&listen.save, events::file_in(event)) else {
        let own = &device.identity.user;
        return events::show(event, own, listen.read, unsaved, output);
    };
    let directory: &Path = directory;
    let saved = save::save(&device.client, &offer, directory, output).await?;
    let file = match &saved {
        Saved::At(path) => File::SavedAt(path),
        Saved::Lost(error) => File::Lost(error),
    };
    events::show_file(event, &offer, file, listen.read, output)
}

fn timeout(listen: &Listen, heard: u64) -> Result<(), Failure> {
    match listen.count {
        None if heard > 0 => Ok(()),
        None => Err(Failure::new(
            Class::Timeout,
            "no message has come in this time",
        )),
        Some(count) => Err(Failure::new(
            Class::Timeout,
            format_args!("{heard} of {count} messages have come in this time"),
        )),
    }
}

/// Why there are no more events.
pub(crate) fn ended(client: &Client) -> Failure {
    if let ConnectionState::Closed(closed) = client.connection() {
        sealwire_client::Error::Closed(closed).into()
    } else {
        Failure::failed("the connection has ended; try again")
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => pending().await,
    }
}
