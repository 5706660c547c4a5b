//! Results, on standard output: for people, or one JSON object a line.

use std::{
    fmt::{self, Display, Write as _},
    io::{self, IsTerminal as _, Write},
};

use serde::Serialize;

use crate::exit::Failure;

/// How results are to be shown.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
    /// Whether standard error is a log of JSON objects, to which hints belong.
    json_log: bool,
}

impl Output {
    pub(crate) const fn new(json: bool) -> Self {
        Self {
            json,
            json_log: false,
        }
    }

    /// The same, where the log may be JSON objects, one a line.
    pub(crate) const fn beside_log(self, json: bool) -> Self {
        Self {
            json_log: json,
            ..self
        }
    }

    /// As the command line asks, where what was parsed of it is not at hand.
    pub(crate) fn asked() -> Self {
        Self::new(std::env::args_os().any(|argument| argument == "--json"))
    }

    /// Shows one result: `value` on a line for `--json`, else `human` with a line break.
    ///
    /// `human` passes whatever came from elsewhere through [`Printable`].
    pub(crate) fn result(self, value: &impl Serialize, human: impl Display) -> Result<(), Failure> {
        // Whoever read has seen enough.
        self.line(value, human).map(|_: Written| ())
    }

    /// The same for one of many, which matters to whoever reads: says whether anybody did.
    pub(crate) fn line(
        self,
        value: &impl Serialize,
        human: impl Display,
    ) -> Result<Written, Failure> {
        let line = if self.json {
            json_line(value).map_err(Failure::failed)?
        } else {
            human.to_string()
        };
        write(&[line.as_bytes(), b"\n"])
    }

    /// Tells people what to do next, on standard error; programs know.
    pub(crate) fn hint(self, human: impl Display) {
        if self.json {
            return;
        }
        let line = if self.json_log {
            json_line(&serde_json::json!({ "hint": human.to_string() })).unwrap_or_default()
        } else {
            format!("sealwire: {human}")
        };
        // It matters to nobody if standard error is gone.
        let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
    }

    /// Tells what happened beside the results, on standard error.
    pub(crate) fn notice(self, value: &serde_json::Value, human: impl Display) {
        if self.json {
            if let Ok(line) = json_line(value) {
                let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
            }
        } else {
            self.hint(human);
        }
    }

    /// Whether it was asked for JSON.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }
}

/// Writes bytes as they are, but never raw to a terminal what could command it.
pub(crate) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        let text = String::from_utf8_lossy(bytes);
        return write(&[Lines(&text).to_string().as_bytes(), b"\n"]).map(|_: Written| ());
    }
    write(&[bytes]).map(|_: Written| ())
}

/// Whether what was written has a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was written whole.
    Whole,
    /// The other end of standard output is closed.
    Unread,
}

fn write(parts: &[&[u8]]) -> Result<Written, Failure> {
    let mut stdout = io::stdout().lock();
    let written = parts
        .iter()
        .try_for_each(|part| stdout.write_all(part))
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Unread),
        Err(error) => Err(Failure::failed(format_args!(
            "standard output cannot be written: {error}"
        ))),
        Ok(()) => Ok(Written::Whole),
    }
}

/// Text from elsewhere, with everything escaped that could move a cursor, hide text or reverse it.
pub(crate) struct Printable<'t>(pub(crate) &'t str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, f, |_| false)
    }
}

/// The same, but with its line breaks and tabs.
pub(crate) struct Lines<'t>(pub(crate) &'t str);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape(self.0, f, |c| matches!(c, '\n' | '\t'))
    }
}

/// A message: as [`Lines`], but all lines after the first are indented, so that none looks like the first of another message.
pub(crate) struct Block<'t>(pub(crate) &'t str);

impl Display for Block<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.strip_suffix('\n').unwrap_or(self.0);
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                f.write_str("\n    ")?;
            }
            escape(line, f, |c| c == '\t')?;
        }
        Ok(())
    }
}

/// A value as JSON in one line, in which everything is escaped that [`Printable`] escapes: the line may be shown, too.
pub(crate) fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    let mut line = String::with_capacity(json.len());
    // What is below U+0020 is escaped already; what is not ASCII is always inside a string.
    for c in json.chars() {
        if c.is_control() || is_invisible(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                let _ = write!(line, "\\u{unit:04x}");
            }
        } else {
            line.push(c);
        }
    }
    Ok(line)
}

fn escape(text: &str, f: &mut fmt::Formatter<'_>, keep: impl Fn(char) -> bool) -> fmt::Result {
    for c in text.chars() {
        if (c.is_control() || is_invisible(c)) && !keep(c) {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// Characters that change the direction of text, or that nobody sees; but not joiners (U+200C, U+200D), which languages and emoji
/// need.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_could_command_a_terminal_is_escaped() {
        for (text, shown) in [
            ("\u{1b}[2Jgone", "\\u{1b}[2Jgone"),
            ("a\rb", "a\\u{d}b"),
            ("a\nb", "a\\u{a}b"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}txt.exe", "\\u{202e}txt.exe"),
            ("a\u{200b}b", "a\\u{200b}b"),
        ] {
            assert_eq!(Printable(text).to_string(), shown);
        }
        assert_eq!(Lines("a\n\tb\r").to_string(), "a\n\tb\\u{d}");
    }

    #[test]
    fn json_that_could_command_a_terminal_is_escaped_and_means_the_same() {
        let text = "a\u{1b}\u{7f}\u{9b}31m\u{85}\u{202e}\u{2028}\u{e0041}ü🦀";
        let line = json_line(&text).unwrap();
        assert_eq!(
            line,
            r#""a\u001b\u007f\u009b31m\u0085\u202e\u2028\udb40\udc41ü🦀""#
        );
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
    }

    #[test]
    fn line_break_does_not_imitate_another_message() {
        assert_eq!(
            Block("hi\n12:00:00 bob: yes\n").to_string(),
            "hi\n    12:00:00 bob: yes"
        );
        assert_eq!(Block("a\r\nb\tc").to_string(), "a\\u{d}\n    b\tc");
    }

    #[test]
    fn ordinary_text_is_shown_as_it_is() {
        let text = "grüße, 世界 — €5 \"quoted\" 🦀 👩\u{200d}🚀";
        assert_eq!(Printable(text).to_string(), text);
    }
}
