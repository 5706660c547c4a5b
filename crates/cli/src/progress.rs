//! How far a file is: a line that is drawn again and again on a terminal, now and then an object for programs, else nothing.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::output::{Output, Printable};

/// Between two lines on a terminal is at least this.
const REDRAW: Duration = Duration::from_millis(200);
/// Between two objects is at least this.
const REPORT: Duration = Duration::from_millis(500);
/// Characters of the bar itself.
const WIDTH: u64 = 24;

/// The progress of one file.
pub(crate) struct Bar {
    output: Output,
    name: String,
    drawn: bool,
    terminal: bool,
    shown: Option<Instant>,
    /// Where and when it began to move: what was there before says nothing of how fast it goes.
    first: Option<(u64, Instant)>,
}

impl Bar {
    pub(crate) fn new(output: Output, name: &str) -> Self {
        Self {
            output,
            name: name.to_owned(),
            drawn: false,
            terminal: !output.is_json() && io::stderr().is_terminal(),
            shown: None,
            first: None,
        }
    }

    /// Shows how far it is, if it is time to.
    pub(crate) fn show(&mut self, done: u64, total: u64) {
        let now = Instant::now();
        let (first, since) = *self.first.get_or_insert((done, now));
        let pause = if self.output.is_json() {
            REPORT
        } else {
            REDRAW
        };
        if self.shown.is_some_and(|shown| now < shown + pause) {
            return;
        }
        self.shown = Some(now);
        if self.output.is_json() {
            let object =
                json!({"event": "progress", "file": self.name, "done": done, "total": total});
            self.output.notice(&object, "");
        } else if self.terminal {
            let rate = Rate::of(done.saturating_sub(first), now.duration_since(since));
            self.draw(done, total, rate);
        }
    }

    fn draw(&mut self, done: u64, total: u64, rate: Option<Rate>) {
        let part = |of: u64| done.saturating_mul(of).checked_div(total).unwrap_or(of);
        let filled = usize::try_from(part(WIDTH)).unwrap_or_default();
        let left = usize::try_from(WIDTH).unwrap_or_default();
        let bar = format!(
            "{}{}",
            "#".repeat(filled),
            ".".repeat(left.saturating_sub(filled))
        );
        let mut line = format!(
            "\r\u{1b}[K{} [{bar}] {} %  {} of {}",
            Printable(&self.name),
            part(100),
            Size(done),
            Size(total)
        );
        if let Some(rate) = rate {
            line.push_str(&format!(
                "  {rate}, {} left",
                rate.time(total.saturating_sub(done))
            ));
        }
        self.drawn = true;
        // It matters to nobody if standard error is gone.
        let _ = io::stderr().write_all(line.as_bytes());
    }
}

/// Takes the line away, so that whatever is said next has one of its own.
impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

/// A number of bytes, for people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = match self.0 {
            0..0x400 => return write!(f, "{} bytes", self.0),
            0x400..0x10_0000 => ("KiB", 10),
            0x10_0000..0x4000_0000 => ("MiB", 20),
            _ => ("GiB", 30),
        };
        let tenths = u128::from(self.0).saturating_mul(10) >> shift;
        write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// Bytes in a second.
#[derive(Debug, Clone, Copy)]
struct Rate(u64);

impl Rate {
    /// None while there is nothing to go by.
    fn of(bytes: u64, time: Duration) -> Option<Self> {
        let millis = u64::try_from(time.as_millis()).ok()?;
        let rate = bytes.saturating_mul(1_000).checked_div(millis)?;
        (rate > 0 && millis >= 500).then_some(Self(rate))
    }

    fn time(self, bytes: u64) -> String {
        let seconds = bytes.checked_div(self.0).unwrap_or_default();
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", Size(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_is_shown_in_the_unit_that_fits() {
        for (bytes, shown) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 29, "2.5 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), shown);
        }
    }

    #[test]
    fn rate_needs_something_to_go_by() {
        assert!(Rate::of(100, Duration::ZERO).is_none());
        assert!(Rate::of(100, Duration::from_millis(499)).is_none());
        assert!(Rate::of(0, Duration::from_secs(9)).is_none());
        let rate = Rate::of(3 << 20, Duration::from_secs(2)).unwrap();
        assert_eq!(rate.to_string(), "1.5 MiB/s");
        assert_eq!(rate.time(100 << 20), "1:06");
    }
}
