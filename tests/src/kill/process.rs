//! One process of the command: started, given lines, heard line by line, and killed.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

/// Which of its outputs a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// Results.
    Out,
    /// Notices and errors.
    Err,
}

/// What is heard of a process.
#[derive(Debug)]
pub(super) struct Heard {
    /// Whose process.
    pub(super) who: usize,
    /// Which of their processes, counted from the first.
    pub(super) run: u64,
    pub(super) stream: Stream,
    /// When it was read.
    pub(super) at: Instant,
    /// A whole line; `None` at the end of the stream.
    pub(super) line: Option<String>,
}

/// A process that runs. It is killed when it is dropped.
pub(super) struct Process {
    child: Child,
    input: Option<Sender<String>>,
}

impl Process {
    /// Starts `command`, and hears it as `who` in its `run`.
    pub(super) fn start(mut command: Command, who: usize, run: u64, heard: &Sender<Heard>) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        hear(out, who, run, Stream::Out, heard.clone());
        hear(err, who, run, Stream::Err, heard.clone());
        let mut stdin = child.stdin.take().unwrap();
        let (input, lines) = channel::<String>();
        // Writing waits while the process does not read: not on the thread that has to restart others.
        thread::spawn(move || {
            for line in lines {
                // It was killed.
                if stdin.write_all(line.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            input: Some(input),
        }
    }

    /// Gives it a line.
    pub(super) fn give(&self, line: String) {
        if let Some(input) = &self.input {
            // An error means that it was killed.
            let _ = input.send(line);
        }
    }

    /// Ends its input, after the lines that it was given.
    pub(super) fn end_input(&mut self) {
        self.input = None;
    }

    /// SIGKILL: it does nothing any more, not even flush. Returns when it is gone.
    pub(super) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM: asks it to end in order.
    pub(super) fn terminate(&self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for its end.
    pub(super) fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hear(
    source: impl Read + Send + 'static,
    who: usize,
    run: u64,
    stream: Stream,
    heard: Sender<Heard>,
) {
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        loop {
            let mut line = String::new();
            let read = source.read_line(&mut line);
            // What has no end was cut off by a kill: whoever wrote it had not flushed it.
            let whole = read.is_ok() && line.ends_with('\n');
            let line = whole.then(|| line.trim_end().to_owned());
            let (at, last) = (Instant::now(), line.is_none());
            let message = Heard {
                who,
                run,
                stream,
                at,
                line,
            };
            // Nobody listens any more at the end.
            if heard.send(message).is_err() || last {
                return;
            }
        }
    });
}
