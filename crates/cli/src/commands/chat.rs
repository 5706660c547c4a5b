//! `sealwire chat`: lines that are typed go out, what arrives is shown.
//!
//! ```text
//!  standard input ── own thread ── lines, bounded ──▶ send, one after the other ──▶ relay
//!  standard output ◀── events ── client
//! ```

use std::io::{self, IsTerminal as _};
use std::time::Duration;

use clap::Args;
use sealwire_client::error::Refusal;
use sealwire_client::{Client, Error, Message};
use sealwire_protocol::limits::MAX_BODY_BYTES;
use sealwire_protocol::name::User;
use tokio::sync::mpsc;

use super::listen::ended;
use crate::device::{Connect, Device, Unlock};
use crate::events::{self, Shown};
use crate::exit::Failure;
use crate::home::Home;
use crate::lines::{self, Line};
use crate::output::{Output, Printable};
use crate::stop::Stop;

/// How long to wait where the relay takes no more for now.
const SLOWER: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
#[command(after_help = "\
Messages of others than USER are shown too, with their names.\n\
\n\
Examples:\n  \
    # Ctrl-D ends it\n  \
    sealwire chat bob\n  \
    # ends when both lines are safe at the relay\n  \
    printf 'one\\ntwo\\n' | sealwire chat bob")]
pub(crate) struct Chat {
    /// With whom
    user: User,

    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) fn run(chat: &Chat, home: &Home, output: Output) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let device = Device::connect(home, &chat.unlock, chat.connect).await?;
        if io::stdin().is_terminal() {
            output.hint(format_args!("chat with {}; Ctrl-D ends it", Printable(chat.user.as_str())));
        }
        let typed = lines::from_standard_input(MAX_BODY_BYTES);
        let mut sending = tokio::spawn(send_lines(device.client.clone(), chat.user.clone(), typed, output));
        let end = loop {
            tokio::select! {
                event = device.client.next() => match event {
                    Some(event) => match events::show(&event, &device.identity.user, output)? {
                        Shown::Message | Shown::Other => {}
                        Shown::Unread => return Ok(()),
                    },
                    None => break Err(ended(&device.client)),
                },
                sent = &mut sending => break sent.unwrap_or_else(|_| Err(Failure::failed("sending has ended; try again"))),
                () = stop.requested() => break Ok(()),
            }
        };
        sending.abort();
        device.close(end).await
    })
}

/// Sends every line, in order. What goes wrong is said at once; the last of it is how the command ends.
async fn send_lines(
    client: Client,
    user: User,
    mut typed: mpsc::Receiver<Line>,
    output: Output,
) -> Result<(), Failure> {
    let mut end = Ok(());
    while let Some(line) = typed.recv().await {
        let sent = match line {
            Ok(line) if line.is_empty() => continue,
            Ok(line) => send_line(&client, user.as_str(), &line).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = sent {
            if end.is_err() {
                failure.say(output.is_json());
            } else {
                end = Err(failure);
            }
        }
    }
    end
}

/// Sends one line; where the relay wants fewer at a time, it has them later.
async fn send_line(client: &Client, user: &str, line: &str) -> Result<(), Failure> {
    loop {
        match client.send(user, Message::text(line)).await {
            Ok(_) => return Ok(()),
            Err(Error::Refused(Refusal::RateLimited)) => tokio::time::sleep(SLOWER).await,
            Err(error) => return Err(error.into()),
        }
    }
}
