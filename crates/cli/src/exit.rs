//! Failures: one line that says what is wrong and what to do next, and an exit code that says of what kind it is.

use std::{
    fmt::{self, Display},
    io::{self, Write as _},
    process::ExitCode,
};

use sealwire_client::ErrorClass;

use crate::output::{Printable, json_line};

/// The kinds of failure that a script can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Class {
    /// Everything that has no class of its own.
    Failed = 1,
    /// The command line asks for something that cannot be.
    Usage = 2,
    /// A credential is missing, refused or not good.
    NotAuthorised = 3,
    /// The relay cannot be reached, or is not the one meant.
    Unreachable = 4,
    /// A peer is unverified, or has changed.
    Peer = 5,
    /// It took too long.
    Timeout = 6,
}

impl Class {
    const fn code(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotAuthorised => "not_authorised",
            Self::Unreachable => "unreachable",
            Self::Peer => "peer",
            Self::Timeout => "timeout",
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    class: Class,
    code: &'static str,
    message: String,
    json: bool,
}

impl Failure {
    /// `message` is one line, begins in lower case, and says what to do next where that is not obvious.
    pub(crate) fn new(class: Class, message: impl Display) -> Self {
        Self {
            class,
            code: class.code(),
            message: message.to_string(),
            json: false,
        }
    }

    pub(crate) fn failed(message: impl Display) -> Self {
        Self::new(Class::Failed, message)
    }

    pub(crate) fn usage(message: impl Display) -> Self {
        Self::new(Class::Usage, message)
    }

    pub(crate) fn not_authorised(message: impl Display) -> Self {
        Self::new(Class::NotAuthorised, message)
    }

    /// Of what kind it is.
    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// What it says.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The same failure, said in other words.
    pub(crate) fn with_message(self, message: impl Display) -> Self {
        Self {
            message: message.to_string(),
            ..self
        }
    }

    /// The same failure, under a name of its own.
    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// The same failure, said as a JSON object if `json`, also where the command line does not ask for it.
    pub(crate) fn beside_log(self, json: bool) -> Self {
        Self { json, ..self }
    }

    /// Its stable name.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The same failure, of a line of the input.
    pub(crate) fn in_line(self, line: u64) -> Self {
        let message = format!("line {line}: {}", self.message);
        self.with_message(message)
    }

    /// Says it on standard error, for a command that goes on.
    pub(crate) fn say(&self, json: bool) {
        // Nobody is left to tell if standard error is gone.
        let _ = write_error(json || self.json, self.code, &self.message);
    }

    /// Says it on standard error, and gives the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        self.say(json);
        ExitCode::from(self.class as u8)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<sealwire_client::Error> for Failure {
    fn from(error: sealwire_client::Error) -> Self {
        let class = match error.class() {
            ErrorClass::Usage => Class::Usage,
            ErrorClass::NotAuthorised => Class::NotAuthorised,
            ErrorClass::Unreachable => Class::Unreachable,
            ErrorClass::Peer => Class::Peer,
            ErrorClass::Timeout => Class::Timeout,
            ErrorClass::Other | _ => Class::Failed,
        };
        Self {
            class,
            code: error.code(),
            message: error.to_string(),
            json: false,
        }
    }
}

/// Reports what clap found: help and version as they are, an error in the form that was asked for.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.render().to_string();
        // The error itself, without the usage that follows it.
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim)
            .take_while(|line| !line.is_empty())
            .collect();
        let line = lines.join(" ");
        let line = line.trim_start_matches("error: ");
        let _ = write_error(true, Class::Usage.code(), line);
    } else {
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() {
        Class::Usage as u8
    } else {
        0
    })
}

fn write_error(json: bool, code: &str, message: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    if json {
        let error = serde_json::json!({"error": {"code": code, "message": message}});
        let line = json_line(&error)?;
        stderr.write_all(format!("{line}\n").as_bytes())
    } else {
        // In one piece, so that what others write there does not come between.
        stderr.write_all(format!("sealwire: {}\n", Printable(message)).as_bytes())
    }
}
