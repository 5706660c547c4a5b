//! Lines from standard input, for commands that do other things while they wait for them.
//!
//! ```text
//!  standard input ── own thread ── lines, bounded in number and bytes ──▶ the command
//! ```

use std::io::{self, BufRead, Read as _};

use tokio::sync::mpsc;

use crate::exit::Failure;

/// Lines that may wait for the command.
const WAITING: usize = 16;

/// A line without its end, or why it is none.
pub(crate) type Line = Result<String, Failure>;

/// Reads standard input to its end, line by line, each of at most `limit` bytes.
///
/// The thread that reads may still wait for a line when the command ends; it ends with the process.
pub(crate) fn from_standard_input(limit: usize) -> mpsc::Receiver<Line> {
    let (lines, typed) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(line) = next_line(&mut input, limit) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    typed
}

/// The next line without its end, of at most `limit` bytes; `None` at the end of the input.
fn next_line(input: &mut impl BufRead, limit: usize) -> Option<Line> {
    // One for its end.
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut line = Vec::new();
    match input.take(most).read_until(b'\n', &mut line) {
        Ok(0) => return None,
        Ok(_) if line.last() != Some(&b'\n') && line.len() > limit => {
            skip_line(input);
            return Some(Err(Failure::usage(format_args!(
                "a line is longer than {limit} bytes; it was not sent"
            ))));
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

    const LIMIT: usize = 1_000;

    fn lines(input: &[u8]) -> Vec<Result<String, ()>> {
        let mut input = input;
        std::iter::from_fn(|| next_line(&mut input, LIMIT))
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
    fn line_longer_than_the_limit_is_refused_without_being_kept() {
        let mut input = vec![b'x'; 3 * LIMIT];
        input.extend_from_slice(b"\nok\n");
        assert_eq!(lines(&input), [Err(()), Ok("ok".into())]);
        let mut exact = vec![b'x'; LIMIT];
        exact.push(b'\n');
        assert_eq!(lines(&exact), [Ok("x".repeat(LIMIT))]);
    }
}
