//! `sealwire listen`: shows what arrives.

use std::future::pending;
use std::time::Duration;

use clap::Args;
use sealwire_client::{Client, ConnectionState};
use tokio::time::Instant;

use crate::device::{Connect, Device, Unlock};
use crate::events::{self, Shown};
use crate::exit::{Class, Failure};
use crate::home::Home;
use crate::output::Output;
use crate::stop::Stop;

#[derive(Debug, Args)]
#[command(after_help = "\
A message is erased from the store once it is shown. If the command is killed before that, or nobody reads its output, the message is shown the next \
time, and marked: \"redelivered\" says that it may have been shown before.\n\
\n\
Examples:\n  \
    # until Ctrl-C\n  \
    sealwire listen\n  \
    # one message; exit code 6 if there is none in time\n  \
    sealwire listen --count 1 --timeout 30\n  \
    sealwire listen --json | jq -r 'select(.user == \"bob\") | .text'")]
pub(crate) struct Listen {
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End so many seconds after connecting; with exit code 6 if there were fewer messages than --count says, or none
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,

    /// Tell senders that their messages were read, if this user has ever written to them
    #[arg(long)]
    read: bool,

    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) fn run(listen: &Listen, home: &Home, output: Output) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let device = Device::connect(home, &listen.unlock, listen.connect).await?;
        let deadline = listen
            .timeout
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds)));
        let mut heard = 0;
        let end = loop {
            if listen.count == Some(heard) {
                break Ok(());
            }
            tokio::select! {
                event = device.client.next() => match event {
                    Some(event) => match events::show(&event, &device.identity.user, listen.read, output) {
                        Ok(Shown::Message) => heard += 1,
                        Ok(Shown::Other) => {}
                        Ok(Shown::Unread) => break Ok(()),
                        Err(failure) => break Err(failure),
                    },
                    None => break Err(ended(&device.client)),
                },
                () = at(deadline) => break timeout(listen, heard),
                () = stop.requested() => break Ok(()),
            }
        };
        device.close(end).await
    })
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
