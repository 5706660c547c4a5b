//! `sealwire send`: one message, from the command line or standard input.

use std::io::{self, IsTerminal as _, Read as _};
use std::time::Duration;

use clap::{Args, ValueEnum};
use sealwire_client::{Message, Receipt};
use sealwire_protocol::limits::MAX_BODY_BYTES;
use sealwire_protocol::name::User;
use serde_json::json;

use crate::device::{Device, Unlock};
use crate::exit::{Class, Failure};
use crate::home::Home;
use crate::output::{Output, Printable};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
    sealwire send bob 'see you at nine'\n  \
    # not in the process list\n  \
    sealwire send bob < letter.txt\n  \
    sealwire send bob --type image/png < photo.png\n  \
    # until a device of his has it\n  \
    sealwire send bob hello --wait delivered --timeout 300")]
pub(crate) struct Send {
    /// To whom
    user: User,

    /// What to say; others on this machine may see it in the process list [default: standard input]
    text: Option<String>,

    /// The message's media type [default: text]
    #[arg(long = "type", value_name = "MEDIA")]
    media_type: Option<String>,

    /// Until when to wait: the relay has it safely, or a device of the user has it
    #[arg(long, value_enum, default_value_t = Until::Accepted, value_name = "UNTIL")]
    wait: Until,

    /// Give up after so many seconds; what the relay has stays there
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,

    #[command(flatten)]
    unlock: Unlock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    Accepted,
    Delivered,
}

pub(crate) fn run(send: Send, home: &Home, output: Output) -> Result<(), Failure> {
    // Nothing is read for a device that is not there.
    home.identity()?;
    let message = message(send.text, send.media_type)?;
    super::runtime()?.block_on(async {
        let timeout = Duration::from_secs(send.timeout);
        let (user, unlock) = (send.user.as_str(), &send.unlock);
        let late = |what: String| Failure::new(Class::Timeout, what);
        let connecting = tokio::time::timeout(timeout, Device::connect(home, unlock));
        let device = connecting.await.map_err(|_| late(format!("no connection to the relay within {} s; try again", send.timeout)))??;
        let work = async {
            let sent = tokio::time::timeout(timeout, device.client.send(user, message));
            let receipt = sent.await.map_err(|_| {
                late(format!(
                    "the relay has not taken the message within {} s; it waits here and goes out with the next command that connects",
                    send.timeout
                ))
            })??;
            finish(receipt, user, send.wait, timeout, output).await
        };
        let result = work.await;
        device.close(result).await
    })
}

async fn finish(
    receipt: Receipt,
    user: &str,
    wait: Until,
    timeout: Duration,
    output: Output,
) -> Result<(), Failure> {
    let id = receipt.id();
    if wait == Until::Delivered {
        let delivered = tokio::time::timeout(timeout, receipt.delivered());
        delivered.await.map_err(|_| {
            Failure::new(
                Class::Timeout,
                format_args!(
                    "no device of {} has fetched message {id} within {} s; the relay keeps it for them",
                    Printable(user),
                    timeout.as_secs()
                ),
            )
        })??;
    }
    let (state, shown) = match wait {
        Until::Accepted => ("accepted", "safe at the relay"),
        Until::Delivered => ("delivered", "delivered"),
    };
    output.result(
        &json!({"id": id.to_string(), "user": user, "state": state}),
        format_args!("{id} {shown}"),
    )
}

fn message(text: Option<String>, media_type: Option<String>) -> Result<Message, Failure> {
    let mut body = match text {
        Some(text) => text.into_bytes(),
        None => standard_input()?,
    };
    let message = match media_type {
        Some(media_type) => Message::new(media_type, body),
        None => {
            // The line break that a shell or an editor adds is not part of what is said.
            if body.ends_with(b"\n") {
                body.pop();
            }
            let text = String::from_utf8(body).map_err(|_| {
                Failure::usage(
                    "this is not text; say what it is with --type, for example --type image/png",
                )
            })?;
            Message::text(text)
        }
    };
    if message.body().is_empty() {
        return Err(Failure::usage(
            "there is nothing to send; give the text as an argument or on standard input",
        ));
    }
    Ok(message)
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    if io::stdin().is_terminal() {
        Output::asked().hint("type the message; end it with Ctrl-D");
    }
    let limit = u64::try_from(MAX_BODY_BYTES).unwrap_or(u64::MAX);
    let mut body = Vec::new();
    // One for the line break that goes away, and one to notice that there is more.
    let read = io::stdin()
        .lock()
        .take(limit.saturating_add(2))
        .read_to_end(&mut body);
    read.map_err(|error| Failure::failed(format_args!("standard input cannot be read: {error}")))?;
    Ok(body)
}
