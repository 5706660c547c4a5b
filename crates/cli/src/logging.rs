//! Logs, to standard error: never what is in a message, a token or a key.

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

/// What to log, and in which form.
#[derive(Debug, Args)]
pub(crate) struct Logging {
    /// What to log: error, warn, info, debug, trace, or per part as in sealwire_server=debug
    #[arg(long, global = true, env = "SEALWIRE_LOG", value_name = "LEVEL")]
    log: Option<String>,
}

impl Logging {
    /// Logs from here on; `default` unless something else was asked for.
    pub(crate) fn start(&self, default: &str, output: Output) -> Result<(), Failure> {
        start(self.asked().unwrap_or(default), output.is_json(), None)
    }

    /// What the command line or `SEALWIRE_LOG` asks for.
    pub(crate) fn asked(&self) -> Option<&str> {
        self.log.as_deref()
    }
}

/// What else takes spans and events, with a filter of its own.
pub(crate) type Beside = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs what `filter` lets through from here on, as JSON objects or for people.
pub(crate) fn start(filter: &str, json: bool, beside: Option<Beside>) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(filter).map_err(|_| {
        Failure::usage(format_args!(
            "--log {filter:?} is not a level; write error, warn, info, debug or trace"
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
