//! Logs, to standard error: never what is in a message, a token or a key.

use std::env::VarError;

use clap::Args;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::exit::Failure;
use crate::output::Output;

/// What is logged while a relay runs.
pub(crate) const RELAY: &str = "warn,sealwire_server=info";
/// What is logged by every other command: what they have to say, they say themselves.
pub(crate) const ELSEWHERE: &str = "error";

/// The variable that says it where the command line does not.
pub(crate) const VARIABLE: &str = "SEALWIRE_LOG";

/// What to log, and in which form.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// What to log: error, warn, info, debug, trace, or per part as in sealwire_server=debug [env: SEALWIRE_LOG]
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<String>,
}

impl Logging {
    /// Logs from here on; `default` unless something else was asked for.
    pub(crate) fn start(&self, default: &str, output: Output) -> Result<(), Failure> {
        let variable = match std::env::var(VARIABLE) {
            Ok(filter) => Some(filter),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => {
                return Err(Failure::usage(format_args!("{VARIABLE} is not UTF-8")));
            }
        };
        let filter = self.flag().or(variable.as_deref()).unwrap_or(default);
        start(filter, output.is_json(), None)
    }

    /// What the command line asks for.
    pub(crate) fn flag(&self) -> Option<&str> {
        self.log.as_deref()
    }
}

/// What else takes spans and events, with a filter of its own.
pub(crate) type Beside = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs what `filter` lets through from here on, as JSON objects or for people.
pub(crate) fn start(filter: &str, json: bool, beside: Option<Beside>) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|_| {
        Failure::usage(format_args!(
            "{filter:?} of --log, or of {VARIABLE}, is not a level; write error, warn, info, debug or trace"
        ))
    })?;
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = if json {
        log.json().boxed()
    } else {
        log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .compact()
            .boxed()
    };
    tracing_subscriber::registry()
        .with(beside)
        .with(log.with_filter(filter))
        .init();
    Ok(())
}
