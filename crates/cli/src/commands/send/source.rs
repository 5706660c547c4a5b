//! Where messages to send come from: one from the command line or standard input, or each line of standard input.

use std::io::{self, IsTerminal as _, Read as _};

use sealwire_client::Message;
use sealwire_protocol::limits::MAX_BODY_BYTES;
use tokio::sync::mpsc;

use crate::exit::Failure;
use crate::lines::{self, Line};
use crate::output::Output;

/// Gives one message after the other.
pub(super) enum Source {
    One(Option<Message>),
    Lines(Lines),
}

/// The lines of standard input as messages.
pub(super) struct Lines {
    typed: mpsc::Receiver<Line>,
    media_type: Option<String>,
    number: u64,
}

/// A message, or why it is none; and in which line it stood, if it was one.
pub(super) struct Given {
    pub(super) line: Option<u64>,
    pub(super) message: Result<Message, Failure>,
}

impl Source {
    /// One message: `text`, or standard input to its end.
    pub(super) fn one(text: Option<String>, media_type: Option<String>) -> Result<Self, Failure> {
        let mut body = match text {
            Some(text) => text.into_bytes(),
            None => standard_input()?,
        };
        // The line break that a shell or an editor adds is not part of what is said.
        if media_type.is_none() && body.ends_with(b"\n") {
            body.pop();
        }
        if body.is_empty() {
            return Err(Failure::usage(
                "there is nothing to send; give the text as an argument or on standard input",
            ));
        }
        let message = match media_type {
            Some(media_type) => Message::new(media_type, body),
            None => Message::text(String::from_utf8(body).map_err(|_| {
                Failure::usage(
                    "this is not text; say what it is with --type, for example --type image/png",
                )
            })?),
        };
        Ok(Self::One(Some(message)))
    }

    /// Each line of standard input, as text of this media type; `None` is plain text.
    pub(super) fn lines(media_type: Option<String>) -> Self {
        Self::Lines(Lines {
            typed: lines::from_standard_input(MAX_BODY_BYTES),
            media_type,
            number: 0,
        })
    }

    /// The next message; `None` when there are no more. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Given> {
        match self {
            Self::One(message) => message.take().map(|message| Given {
                line: None,
                message: Ok(message),
            }),
            Self::Lines(lines) => lines.next().await,
        }
    }
}

impl Lines {
    /// Empty lines say nothing, and are counted.
    async fn next(&mut self) -> Option<Given> {
        loop {
            let line = self.typed.recv().await?;
            self.number = self.number.saturating_add(1);
            if line.as_ref().is_ok_and(String::is_empty) {
                continue;
            }
            let message = line.map(|line| match &self.media_type {
                Some(media_type) => Message::new(media_type, line),
                None => Message::text(line),
            });
            return Some(Given {
                line: Some(self.number),
                message,
            });
        }
    }
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
