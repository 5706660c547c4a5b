//! Where messages to send come from: one from the command line or standard input, or each line of standard input.

use std::io::{self, IsTerminal as _, Read as _};

use sealwire_client::{Message, MessageId};
use sealwire_protocol::limits::MAX_BODY_BYTES;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::exit::Failure;
use crate::lines::{self, Line};
use crate::output::Output;

/// Bytes of a line of JSON, at most: every byte of a text escaped, and the rest of the object.
const MAX_JSON_BYTES: usize = 6 * MAX_BODY_BYTES + 256;

/// Gives one message after the other.
pub(crate) enum Source {
    One(Option<Identified>),
    Lines(Lines),
}

/// What the lines of standard input are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text of this media type; `None` is plain text.
    Text(Option<String>),
    /// Objects as [`JsonLine`].
    Json,
}

/// The lines of standard input as messages.
pub(crate) struct Lines {
    typed: mpsc::Receiver<Line>,
    form: Form,
    number: u64,
}

/// A message, or why it is none; and in which line it stood, if it was one.
pub(super) struct Given {
    pub(super) line: Option<u64>,
    pub(super) message: Result<Identified, Failure>,
}

/// A message under its id: the one that was given with it, or a new one.
#[derive(Clone)]
pub(crate) struct Identified {
    pub(super) id: MessageId,
    pub(super) message: Message,
}

impl Identified {
    fn new(message: Message, id: Option<MessageId>) -> Self {
        let id = id.unwrap_or_else(MessageId::random);
        Self {
            id,
            message: message.with_id(id),
        }
    }
}

/// A line as `--json-lines` takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonLine {
    text: String,
    id: Option<String>,
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
        Ok(Self::One(Some(Identified::new(message, None))))
    }

    /// Each line of standard input.
    pub(crate) fn lines(form: Form) -> Self {
        let limit = match form {
            Form::Text(_) => MAX_BODY_BYTES,
            Form::Json => MAX_JSON_BYTES,
        };
        Self::Lines(Lines {
            typed: lines::from_standard_input(limit),
            form,
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
            return Some(Given {
                line: Some(self.number),
                message: line.and_then(|line| self.form.message(line)),
            });
        }
    }
}

impl Form {
    fn message(&self, line: String) -> Result<Identified, Failure> {
        match self {
            Self::Text(None) => Ok(Identified::new(Message::text(line), None)),
            Self::Text(Some(media_type)) => {
                Ok(Identified::new(Message::new(media_type, line), None))
            }
            Self::Json => json(&line),
        }
    }
}

fn json(line: &str) -> Result<Identified, Failure> {
    let JsonLine { text, id } = serde_json::from_str(line).map_err(|_| {
        Failure::usage(r#"this is not {"text": "…"} or {"id": "…", "text": "…"}; it was not sent"#)
    })?;
    let id = id.map(|id| id.parse()).transpose().map_err(|_| {
        Failure::usage("an id is 16 random bytes as 22 characters of base64url; it was not sent")
    })?;
    Ok(Identified::new(Message::text(text), id))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_json_is_a_message_under_its_id() {
        let form = Form::Json;
        let line = r#"{"id": "AAECAwQFBgcICQoLDA0ODw", "text": "one\ntwo"}"#;
        let message = form.message(line.to_owned()).unwrap();
        assert_eq!(message.id.to_string(), "AAECAwQFBgcICQoLDA0ODw");
        assert_eq!(message.message.as_text(), Some("one\ntwo"));
        let without = form.message(r#"{"text": ""}"#.to_owned()).unwrap();
        assert_eq!(without.message.as_text(), Some(""));
    }

    #[test]
    fn line_that_is_no_such_object_is_refused() {
        for line in [
            "hello",
            "{}",
            r#"{"id": "AAECAwQFBgcICQoLDA0ODw"}"#,
            r#"{"text": 1}"#,
            r#"{"text": "a", "to": "bob"}"#,
            r#"{"text": "a", "id": ""}"#,
            r#"{"text": "a", "id": "AAECAwQFBgcICQoLDA0OD"}"#,
            r#"{"text": "a", "id": "AAECAwQFBgcICQoLDA0ODx"}"#,
            r#"{"text": "a"} {"text": "b"}"#,
        ] {
            assert!(Form::Json.message(line.to_owned()).is_err(), "{line}");
        }
    }
}
