//! `sealwire chat`: lines that are typed go out, what arrives is shown.
//!
//! ```text
//!  standard input ── own thread ── lines, bounded ──▶ send, one after the other ──▶ relay
//!  standard output ◀── events ── client
//! ```

use std::io::{self, BufRead, IsTerminal as _, Read as _};
use std::time::Duration;

use clap::Args;
use sealwire_client::error::Refusal;
use sealwire_client::{Client, Error, Message};
use sealwire_protocol::limits::MAX_BODY_BYTES;
use sealwire_protocol::name::User;
use tokio::sync::mpsc;

use super::listen::ended;
use crate::device::{Device, Unlock};
use crate::events::{self, Shown};
use crate::exit::Failure;
use crate::home::Home;
use crate::output::{Output, Printable};
use crate::stop::Stop;

/// Lines that may wait to be sent.
const LINES: usize = 16;
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
    unlock: Unlock,
}

/// A line that was typed, or why it is none.
type Line = Result<String, Failure>;

pub(crate) fn run(chat: &Chat, home: &Home, output: Output) -> Result<(), Failure> {
    super::runtime()?.block_on(async {
        let mut stop = Stop::new()?;
        let device = Device::connect(home, &chat.unlock).await?;
        if io::stdin().is_terminal() {
            output.hint(format_args!("chat with {}; Ctrl-D ends it", Printable(chat.user.as_str())));
        }
        let (lines, typed) = mpsc::channel(LINES);
        // The thread may still wait for a line when the command ends; it ends with the process.
        std::thread::spawn(move || read_lines(io::stdin().lock(), &lines));
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

fn read_lines(mut input: impl BufRead, lines: &mpsc::Sender<Line>) {
    while let Some(line) = next_line(&mut input) {
        if lines.blocking_send(line).is_err() {
            return;
        }
    }
}

/// The next line without its end, of at most [`MAX_BODY_BYTES`]; `None` at the end of the input.
fn next_line(input: &mut impl BufRead) -> Option<Line> {
    let limit = u64::try_from(MAX_BODY_BYTES)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    let mut line = Vec::new();
    match input.take(limit).read_until(b'\n', &mut line) {
        Ok(0) => return None,
        Ok(_) if line.last() != Some(&b'\n') && line.len() > MAX_BODY_BYTES => {
            skip_line(input);
            return Some(Err(Failure::usage(
                "a line is larger than a message may be (65,536 bytes); it was not sent",
            )));
        }
        Ok(_) => {}
        // What was read before is still sent; there is no more.
        Err(_) => return None,
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Some(
        String::from_utf8(line).map_err(|_| Failure::usage("a line is not UTF-8; it was not sent")),
    )
}

/// Skips the rest of a line without keeping it.
fn skip_line(input: &mut impl BufRead) {
    while let Ok(buffer) = input.fill_buf() {
        if buffer.is_empty() {
            return;
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(buffer.len(), |at| at.saturating_add(1));
        input.consume(used);
        if end.is_some() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: &[u8]) -> Vec<Result<String, ()>> {
        let mut input = input;
        std::iter::from_fn(|| next_line(&mut input))
            .map(|line| line.map_err(drop))
            .collect()
    }

    #[test]
    fn lines_come_without_their_ends() {
        assert_eq!(
            lines(b"one\ntwo\r\n\nlast"),
            [
                Ok("one".into()),
                Ok("two".into()),
                Ok(String::new()),
                Ok("last".into())
            ]
        );
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn what_is_no_text_is_refused_and_the_next_line_is_not() {
        assert_eq!(lines(b"\xff\xfe\nok\n"), [Err(()), Ok("ok".into())]);
    }

    #[test]
    fn line_longer_than_a_message_is_refused_without_being_kept() {
        let mut input = vec![b'x'; 3 * MAX_BODY_BYTES];
        input.extend_from_slice(b"\nok\n");
        assert_eq!(lines(&input), [Err(()), Ok("ok".into())]);
        let mut exact = vec![b'x'; MAX_BODY_BYTES];
        exact.push(b'\n');
        assert_eq!(lines(&exact), [Ok("x".repeat(MAX_BODY_BYTES))]);
    }
}
