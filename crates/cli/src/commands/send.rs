//! `sealwire send`: one message, each line of standard input as one, or a file.

mod file;
pub(super) mod source;
pub(super) mod way;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use sealwire_protocol::name::User;

use self::file::File;
use self::source::{Form, Source};
use self::way::{Hears, Way};
use crate::device::{Connect, Device, Unlock};
use crate::exit::{Class, Failure};
use crate::home::Home;
use crate::output::Output;
use crate::stop::Stop;

/// Seconds for which one message is waited for, unless said otherwise.
const TIMEOUT_SECONDS: u64 = 60;

#[derive(Debug, Args)]
#[command(after_help = "\
What was handed over is kept on this device until the relay has it: whatever is killed or cut off, it goes out when the two are connected again. With \
--json-lines a line may have an id, 16 random bytes as 22 characters of base64url; a message is sent once, however often its id is given, so that a \
program that does not know whether a line was sent gives it again. With lines, and until it was read, events are shown on standard error; messages wait \
for `sealwire listen`, and are marked then, as they were in this program's hands.\n\
\n\
Examples:\n  \
    sealwire send bob 'see you at nine'\n  \
    # not in the process list\n  \
    sealwire send bob < letter.txt\n  \
    sealwire send bob --type image/png < photo.png\n  \
    # of any size; after an interruption, the same again\n  \
    sealwire send bob --file film.mp4\n  \
    # until all his devices have it\n  \
    sealwire send bob hello --wait delivered --timeout 300\n  \
    # every line as it comes, also while the relay is away\n  \
    tail -f app.log | sealwire send ops --lines --keep-trying")]
pub(crate) struct Send {
    /// To whom
    user: User,

    /// What to say; others on this machine may see it in the process list [default: standard input]
    #[arg(conflicts_with_all = ["lines", "json_lines"])]
    text: Option<String>,

    /// The message's media type [default: text]
    #[arg(long = "type", value_name = "MEDIA", conflicts_with = "json_lines")]
    media_type: Option<String>,

    /// Send this file, of any size; the same command goes on from where an earlier one ended
    #[arg(long, value_name = "PATH", conflicts_with_all = ["text", "lines", "json_lines"])]
    file: Option<PathBuf>,

    /// Send each line of standard input as a message, until its end
    #[arg(long)]
    lines: bool,

    /// The same with lines that are JSON: {"text": "…"} or {"id": "…", "text": "…"}
    #[arg(long)]
    json_lines: bool,

    /// Have so many lines under way at a time; with more than one, a line that the relay takes only at a second attempt comes after those behind it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    at_once: u16,

    /// Until when to wait: the relay has it safely, every device of the user has it, or it was read. The last two are said by the user's devices, end to
    /// end, if the user has ever written to you
    #[arg(long, value_enum, default_value_t = Until::Accepted, value_name = "UNTIL")]
    wait: Until,

    /// Give up after so many seconds; what the relay has stays there [default: 60, without a limit for lines and files]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout: Option<u64>,

    #[command(flatten)]
    connect: Connect,

    #[command(flatten)]
    unlock: Unlock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Until {
    Accepted,
    Delivered,
    Read,
}

pub(crate) fn run(send: Send, home: &Home, output: Output) -> Result<(), Failure> {
    // Nothing is read for a device that is not there.
    home.identity()?;
    if let Some(path) = send.file.clone() {
        return run_file(send, &path, home, output);
    }
    let many = send.lines || send.json_lines;
    let timeout = send.timeout.or((!many).then_some(TIMEOUT_SECONDS));
    let timeout = timeout.map(Duration::from_secs);
    let source = if send.json_lines {
        Source::lines(Form::Json)
    } else if send.lines {
        Source::lines(Form::Text(send.media_type))
    } else {
        Source::one(send.text, send.media_type)?
    };
    super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let connecting = Device::connect(home, &send.unlock, send.connect);
        let device = connected(connecting, timeout, &mut stop).await?;
        let mut way = Way::new(&device, send.user.as_str(), output);
        way.until = send.wait;
        way.timeout = timeout;
        way.at_once = usize::from(send.at_once);
        way.patient = send.connect.keep_trying;
        // One message is sent quickly: what happens meanwhile is shown by whoever listens.
        if many || send.wait == Until::Read {
            way.hears = Hears::Notices;
        }
        let result = tokio::select! {
            result = way.send(source) => result,
            () = stop.requested() => Err(Failure::failed("stopped; what the relay does not have yet goes out with the next command that connects")),
        };
        device.close(result).await
    })
}

async fn connected(
    connecting: impl Future<Output = Result<Device, Failure>>,
    timeout: Option<Duration>,
    stop: &mut Stop,
) -> Result<Device, Failure> {
    tokio::select! {
        connected = way::within(timeout, connecting) => connected.ok_or_else(|| {
            Failure::new(Class::Timeout, "no connection to the relay in this time; try again")
        })?,
        () = stop.requested() => Err(Failure::failed("stopped before there was a connection; nothing was sent")),
    }
}

fn run_file(send: Send, path: &Path, home: &Home, output: Output) -> Result<(), Failure> {
    if send.wait == Until::Read {
        return Err(Failure::usage(
            "a file is not read but fetched; wait for accepted or delivered",
        ));
    }
    File::check(path)?;
    let timeout = send.timeout.map(Duration::from_secs);
    super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let connecting = Device::connect(home, &send.unlock, send.connect);
        let device = connected(connecting, timeout, &mut stop).await?;
        let file = File {
            device: &device,
            user: send.user.as_str(),
            path,
            media_type: send.media_type,
            until: send.wait,
            timeout,
            output,
        };
        let result = tokio::select! {
            result = file.send() => result,
            () = stop.requested() => Err(Failure::failed("stopped; the same command goes on from here")),
        };
        device.close(result).await
    })
}
