//! `sealwire chat`: lines that are typed go out, what arrives is shown.

use std::io::{self, IsTerminal as _};

use clap::Args;
use sealwire_protocol::name::User;

use super::send::source::{Form, Source};
use super::send::way::{Hears, Way};
use crate::device::{Connect, Device, Unlock};
use crate::exit::Failure;
use crate::home::Home;
use crate::output::{Output, Printable};
use crate::stop::Stop;

#[derive(Debug, Args)]
#[command(after_help = "\
Messages of others than USER are shown too, with their names.\n\
\n\
Examples:\n  \
    # Ctrl-D ends it\n  \
    sealwire chat bob\n  \
    # ends when both lines are safe at the relay\n  \
    printf 'one\\ntwo\\n' | sealwire chat bob\n  \
    # a bot: events and results go out, lines come in\n  \
    sealwire chat ops --json-lines --json --keep-trying")]
pub(crate) struct Chat {
    /// With whom
    user: User,

    /// Read lines that are JSON, as `sealwire send --json-lines` does, and say of each that the relay has it
    #[arg(long)]
    json_lines: bool,

    /// Have so many lines under way at a time, as `sealwire send --at-once`
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    at_once: u16,

    /// Do not tell senders that their messages were read
    #[arg(long)]
    no_read: bool,

    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    unlock: Unlock,
}

pub(crate) fn run(chat: &Chat, home: &Home, output: Output) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let device = tokio::select! {
            device = Device::connect(home, &chat.unlock, chat.connect) => device?,
            () = stop.requested() => return Ok(()),
        };
        if io::stdin().is_terminal() {
            output.hint(format_args!(
                "chat with {}; Ctrl-D ends it",
                Printable(chat.user.as_str())
            ));
        }
        let mut way = Way::new(&device, chat.user.as_str(), output);
        way.at_once = usize::from(chat.at_once);
        way.patient = chat.connect.keep_trying;
        way.hears = Hears::Everything {
            read: !chat.no_read,
        };
        way.reports = chat.json_lines;
        let form = if chat.json_lines {
            Form::Json
        } else {
            Form::Text(None)
        };
        let end = tokio::select! {
            end = way.send(Source::lines(form)) => end,
            () = stop.requested() => Ok(()),
        };
        drop(way);
        device.close(end).await
    })
}
