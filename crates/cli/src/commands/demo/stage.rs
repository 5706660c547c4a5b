//! What the audience sees: three columns and a list of checks on a screen, or one object for each step.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use sealwire_e2e::inspect::{Inspected, SealedSummary, inspect};
use sealwire_protocol::address::Address;
use sealwire_protocol::base64url;
use serde_json::{Value, json};

use super::crash::{Crash, MESSAGES};
use crate::exit::Failure;
use crate::home::Identity;
use crate::output::Output;

/// Characters of a device's column and of the relay's: with margin, gaps and arrows, 80 in all.
const DEVICE: usize = 21;
const RELAY: usize = 30;
/// Bytes of a sealed message that are shown, and how many in a line.
const SHOWN_BYTES: usize = 40;
const BYTES_IN_A_LINE: usize = 10;

/// Where the play is shown.
pub(super) struct Stage {
    output: Output,
    colour: bool,
    /// Checks that are reported with the others at the end.
    later: Vec<(String, bool)>,
    held: usize,
    failed: usize,
}

/// Whose column a message starts from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Left,
    Right,
}

/// A sealed message as the relay held it.
pub(super) struct Held {
    bytes: Vec<u8>,
    summary: SealedSummary,
}

impl Held {
    pub(super) fn new(bytes: Vec<u8>) -> Result<Self, Failure> {
        match inspect(&bytes).map_err(Failure::failed)? {
            Inspected::Sealed(summary) => Ok(Self { bytes, summary }),
            Inspected::Standard(_) => Err(Failure::failed(
                "what the relay holds is not a sealed message",
            )),
        }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("holds {} bytes, sealed:", self.bytes.len())];
        let shown = self.bytes.get(..SHOWN_BYTES).unwrap_or(&self.bytes);
        for bytes in shown.chunks(BYTES_IN_A_LINE) {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            lines.push(hex.join(" "));
        }
        if let Some(last) = lines.last_mut() {
            last.push('…');
        }
        let session = base64url::encode(&self.summary.session);
        lines.push(format!("session {}…", session.get(..8).unwrap_or_default()));
        lines.push(format!("message {} of its chain", self.summary.n));
        lines.push(format!(
            "{} bytes of ciphertext",
            self.summary.ciphertext_len
        ));
        lines
    }

    fn json(&self) -> Value {
        json!({
            "bytes": self.bytes.len(),
            "message": base64url::encode(&self.bytes),
            "session": base64url::encode(&self.summary.session),
            "pn": self.summary.pn,
            "n": self.summary.n,
            "ciphertext_bytes": self.summary.ciphertext_len,
            "first": self.summary.first.is_some(),
        })
    }
}

impl Stage {
    pub(super) fn new(output: Output) -> Self {
        // https://no-color.org
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        Self {
            output,
            colour: io::stdout().is_terminal() && !unwanted && !dumb,
            later: Vec::new(),
            held: 0,
            failed: 0,
        }
    }

    pub(super) fn relay(&self, address: &Address, directory: &Path) -> Result<(), Failure> {
        let (url, thumbprint) = (address.url(), address.relay().to_string());
        let value = json!({
            "step": "relay", "address": address.to_string(), "thumbprint": thumbprint, "directory": directory,
        });
        let human = format!(
            "{}\n\n  relay  {url}  key {}\n         TLS, its own issuer; everything is in {}",
            self.bold("Two people talk through a relay that carries what it cannot read."),
            short(&thumbprint),
            directory.display(),
        );
        self.output.result(&value, human)
    }

    pub(super) fn joined(&self, identity: &Identity) -> Result<(), Failure> {
        let (user, device) = (identity.user.as_str(), identity.device.to_string());
        let human = format!(
            "  {user:<6} has joined with an invitation, as device {}",
            short(&device)
        );
        self.output.result(
            &json!({"step": "joined", "user": user, "device": device}),
            human,
        )
    }

    pub(super) fn columns(&self) -> Result<(), Failure> {
        let head = self.row("alice", ' ', "the relay", ' ', "bob");
        let rule = self.row(
            &"─".repeat(DEVICE),
            ' ',
            &"─".repeat(RELAY),
            ' ',
            &"─".repeat(DEVICE),
        );
        self.human(format!("\n{}\n{}", self.bold(&head), self.faint(&rule)))
    }

    pub(super) fn scene(&self, what: &str) -> Result<(), Failure> {
        self.human(format!("\n  {}", self.faint(what)))
    }

    /// A message on its way from one column to the other: what was written, what the relay held, what was read.
    pub(super) fn message(
        &self,
        from: Column,
        written: &str,
        held: Option<&Held>,
        read: Option<&str>,
    ) -> Result<(), Failure> {
        let read = read.unwrap_or_default();
        let (from_user, to_user) = if from == Column::Left {
            ("alice", "bob")
        } else {
            ("bob", "alice")
        };
        let value = json!({
            "step": "message", "from": from_user, "to": to_user, "written": written, "read": read,
            "relay_held": held.map_or(Value::Null, Held::json),
        });
        let (left, right) = if from == Column::Left {
            (written, read)
        } else {
            (read, written)
        };
        let (left, right) = (wrap(left, DEVICE), wrap(right, DEVICE));
        let relay = held.map_or_else(|| vec!["passed it on, sealed".to_owned()], Held::lines);
        let arrow = if from == Column::Left { '▶' } else { '◀' };
        let mut human = String::new();
        for line in 0..left.len().max(right.len()).max(relay.len()) {
            let text = |column: &Vec<String>| column.get(line).cloned().unwrap_or_default();
            let arrow = if line == 0 { arrow } else { ' ' };
            let row = self.row(&text(&left), arrow, &text(&relay), arrow, &text(&right));
            let _ = write!(human, "\n{row}");
        }
        self.output.result(&value, human)
    }

    /// What came of the messages that were under way when the relay was killed.
    pub(super) fn crash(&self, crash: &Crash) -> Result<(), Failure> {
        let away = crash.away.as_millis();
        let (accepted, received) = (crash.accepted(), crash.received());
        let value = json!({
            "step": "crash", "written": MESSAGES, "accepted": accepted, "away_millis": away,
            "received": received, "lost": crash.lost(), "twice": crash.twice(),
        });
        let relay = [
            format!("killed, away for {away} ms"),
            format!("{accepted} accepted"),
        ];
        let [first, second] = relay;
        let read = format!("{received} read");
        let human = format!(
            "\n{}\n{}",
            self.row(&format!("{MESSAGES} messages"), '▶', &first, '▶', &read),
            self.row("", ' ', &second, ' ', ""),
        );
        self.output.result(&value, human)
    }

    /// Remembers a check until the others are reported.
    pub(super) fn later(&mut self, what: &str, held: bool) {
        self.later.push((what.to_owned(), held));
    }

    /// Begins the list of checks.
    pub(super) fn checks(&mut self) -> Result<(), Failure> {
        self.human(String::new())?;
        for (what, held) in std::mem::take(&mut self.later) {
            self.check(&what, held)?;
        }
        Ok(())
    }

    pub(super) fn check(&mut self, what: &str, held: bool) -> Result<(), Failure> {
        let mark = if held {
            self.held += 1;
            self.paint("32", "✓")
        } else {
            self.failed += 1;
            self.paint("1;31", "✗ DOES NOT HOLD:")
        };
        self.output.result(
            &json!({"step": "check", "check": what, "ok": held}),
            format_args!("  {mark} {what}"),
        )
    }

    /// How it ended.
    pub(super) fn verdict(&self) -> Result<(), Failure> {
        let (all, failed) = (self.held + self.failed, self.failed);
        let verdict = format!(
            "\n{}",
            self.bold(&format!("{} of {all} checks held.", self.held))
        );
        self.output.result(
            &json!({"step": "end", "checks": all, "ok": failed == 0}),
            verdict,
        )?;
        if failed == 0 {
            Ok(())
        } else {
            Err(Failure::failed(format_args!(
                "{failed} of {all} checks did not hold; please report this with what is shown above"
            )))
        }
    }

    /// Says how to go on, on a terminal.
    pub(super) fn go_on(&self, directory: &Path) -> Result<(), Failure> {
        let program = std::env::current_exe().unwrap_or_else(|_| "sealwire".into());
        let program = quoted(&program);
        let home = |user| quoted(&directory.join(user));
        let relay = quoted(&directory.join("relay"));
        self.human(format!(
            "\nThe relay is still running. Go on in two other terminals:\n\n\
             \x20 {program} chat bob --home {alice}\n\
             \x20 {program} chat alice --home {bob}\n\n\
             or one message at a time, and with more people:\n\n\
             \x20 {program} send bob 'hello' --home {alice}\n\
             \x20 {program} listen --home {bob}\n\
             \x20 {program} invite carol --data {relay}\n\n\
             Ctrl-C stops the relay and removes everything.",
            alice = home("alice"),
            bob = home("bob"),
        ))
    }

    /// What only people need.
    fn human(&self, text: String) -> Result<(), Failure> {
        if self.output.is_json() {
            Ok(())
        } else {
            self.output.result(&Value::Null, text)
        }
    }

    fn row(&self, left: &str, to: char, relay: &str, from: char, right: &str) -> String {
        let row = format!("  {left:<DEVICE$} {to} {relay:<RELAY$} {from} {right}");
        row.trim_end().to_owned()
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn faint(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Enough of a thumbprint to recognise it.
fn short(thumbprint: &str) -> String {
    format!("{}…", thumbprint.get(..12).unwrap_or(thumbprint))
}

/// Lines of at most `width` characters, broken between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@".contains(c);
    if path.chars().all(plain) {
        path
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("immeasurable", 7), ["immeasurable"]);
        assert!(wrap("", 7).is_empty());
    }

    #[test]
    fn path_that_a_shell_would_take_apart_is_quoted() {
        assert_eq!(
            quoted(Path::new("/tmp/sealwire-demo-a1/bob")),
            "/tmp/sealwire-demo-a1/bob"
        );
        assert_eq!(quoted(Path::new("/tmp/it's here")), r"'/tmp/it'\''s here'");
        assert_eq!(quoted(Path::new("/tmp/$HOME")), "'/tmp/$HOME'");
    }
}
