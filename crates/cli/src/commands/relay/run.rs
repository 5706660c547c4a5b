//! `sealwire relay run`: runs a relay as it is configured.

use std::net::SocketAddr;
use std::path::Path;

use clap::Args;
use sealwire_server::data_dir::{DataDir, DataDirError};
use sealwire_server::{Relay, RelayBuilder, RelayError};
use serde_json::json;

use super::check;
use super::options::Options;
use super::settings::Configuration;
#[cfg(feature = "opentelemetry")]
use super::settings::Telemetry;
use crate::exit::Failure;
use crate::logging::{self, Logging};
use crate::output::Output;
use crate::stop::Stop;

#[derive(Debug, Args)]
#[command(after_help = "\
A key of the configuration file, its environment variable and its flag are the same setting: the flag wins, and the variable wins over the file. \
`sealwire relay config default` prints a file with every key; `sealwire relay config show` says what is in effect and why.\n\
\n\
Invite people with `sealwire invite USER --data DIR`, also while the relay runs.\n\
\n\
Examples:\n  \
    # to try it; everything is gone afterwards\n  \
    sealwire relay run --dev\n  \
    sealwire relay run --data ./relay\n  \
    # as a service does\n  \
    sealwire relay run --config /etc/sealwire/relay.toml\n  \
    # with a certificate that the world trusts\n  \
    sealwire relay run --data DIR --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem\n  \
    # behind a proxy that ends TLS\n  \
    sealwire relay run --data DIR --plain --address wss://relay.example/v1\n  \
    # with your own identity provider, whose tokens name the device key in cnf\n  \
    sealwire relay run --data DIR --issuer https://idp.example/realm \\\n      \
      --audience https://relay.example --jwks https://idp.example/realm/keys")]
pub(crate) struct Run {
    #[command(flatten)]
    options: Options,

    /// End when standard input does, too: for a relay that another program starts
    #[arg(long)]
    until_eof: bool,

    /// To try it: on loopback only, in a directory of its own that is removed afterwards unless one is named
    #[arg(long)]
    dev: bool,
}

pub(super) async fn run(run: Run, logging: &Logging, output: Output) -> Result<(), Failure> {
    let loaded = run.options.load(logging, output.is_json())?;
    let configuration = loaded.good(output.is_json())?;
    let json = configuration.log.json;
    #[cfg(feature = "opentelemetry")]
    let (telemetry, beside) = {
        let Telemetry { endpoint, one_in } = &configuration.telemetry;
        let telemetry = endpoint
            .as_ref()
            .map(|endpoint| crate::telemetry::Telemetry::start(&endpoint.value, *one_in))
            .transpose()?;
        let beside = telemetry.as_ref().map(crate::telemetry::Telemetry::layer);
        (telemetry, beside)
    };
    #[cfg(not(feature = "opentelemetry"))]
    let beside = None;
    logging::start(&configuration.log.filter, json, beside)?;
    let mut stop = Stop::new()?;
    let served = serve(&run, &configuration, &mut stop, output.beside_log(json)).await;
    #[cfg(feature = "opentelemetry")]
    if let Some(telemetry) = telemetry {
        tokio::select! {
            () = telemetry.end() => {}
            () = stop.requested() => {}
        }
    }
    served.map_err(|failure| failure.beside_log(json))
}

async fn serve(
    run: &Run,
    configuration: &Configuration,
    stop: &mut Stop,
    output: Output,
) -> Result<(), Failure> {
    let listen = resolve(&configuration.listen.value).await?;
    if run.dev && !listen.ip().is_loopback() {
        return Err(Failure::usage(format_args!(
            "--dev is for this machine only and {listen} is not; use `sealwire relay init` and --data"
        )));
    }
    // It is removed when this function ends.
    let temporary = match (&configuration.data, run.dev) {
        (None, true) => Some(temporary()?),
        (Some(_), _) | (None, false) => None,
    };
    let data = match (&configuration.data, &temporary) {
        (Some(data), _) => data.value.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => {
            return Err(Failure::usage(
                "name the relay's directory with --data DIR, or as `data` in a file that --config names",
            ));
        }
    };
    let bound = builder(configuration, &data, run.dev)?.bind(listen).await;
    let relay = match bound {
        Err(RelayError::Listen(error)) => {
            return Err(Failure::failed(format_args!(
                "cannot listen on {listen}: {error}; choose another address or stop what uses it"
            )));
        }
        bound => bound?,
    };
    announce(&relay, configuration, &data, output)?;
    tokio::select! {
        () = stop.requested() => {}
        () = end_of_input(), if run.until_eof => {}
    }
    output.hint("stopping: links leave one after another; again to stop at once");
    tokio::select! {
        () = relay.drain(configuration.drain) => {}
        // Dropped, and what was accepted is durable all the same.
        () = stop.requested() => output.hint("stopped at once"),
    }
    Ok(())
}

/// Waits until standard input has ended, whatever is in it.
async fn end_of_input() {
    let (ended, end) = tokio::sync::oneshot::channel();
    // The thread ends with the process, if standard input does not before.
    std::thread::spawn(move || {
        // What cannot be read any more has ended, too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        ended.send(())
    });
    // It is not dropped before.
    let _ = end.await;
}

/// Where to listen: an address, or a name that is one.
async fn resolve(listen: &str) -> Result<SocketAddr, Failure> {
    let found = tokio::net::lookup_host(listen)
        .await
        .ok()
        .and_then(|mut found| found.next());
    found.ok_or_else(|| {
        Failure::usage(format_args!(
            "{listen:?} is not an address and port to listen on; write 127.0.0.1:8443 or [::]:443"
        ))
    })
}

fn temporary() -> Result<tempfile::TempDir, Failure> {
    tempfile::Builder::new()
        .prefix("sealwire-relay-")
        .tempdir()
        .map_err(|error| {
            Failure::failed(format_args!(
                "no temporary directory can be made: {error}; name one with --data"
            ))
        })
}

fn builder(configuration: &Configuration, data: &Path, dev: bool) -> Result<RelayBuilder, Failure> {
    let initialised = match DataDir::open(data) {
        Ok(directory) => directory.address()?,
        // Only --dev makes what is not there.
        Err(DataDirError::NotInitialised { .. }) if dev => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(problem) = check::exposed_key(&configuration.tls) {
        return Err(Failure::usage(problem));
    }
    configuration.builder(data, initialised)
}

fn announce(
    relay: &Relay,
    configuration: &Configuration,
    data: &Path,
    output: Output,
) -> Result<(), Failure> {
    if output.is_json() {
        return output.result(
            &json!({
                "event": "listening",
                "address": relay.address().to_string(),
                "thumbprint": relay.thumbprint().to_string(),
                "listen": relay.local_addr().to_string(),
                "admin": relay.admin_addr().map(|address| address.to_string()),
                "data": data,
            }),
            "",
        );
    }
    output.hint(format_args!("relay at {}", relay.address()));
    if relay.local_addr().ip().is_unspecified()
        && relay.address().ip().is_some_and(|ip| ip.is_loopback())
    {
        output.hint("others than this machine cannot use that address; say where the relay is with --address");
    }
    if let Some(admin) = relay.admin_addr() {
        output.hint(format_args!("metrics and health at http://{admin}"));
    }
    if configuration.data.is_none() {
        output.hint("for trying it only: its keys and messages are gone when it stops");
    }
    match &configuration.issuer {
        Some(issuer) => output.hint(format_args!(
            "taking the tokens of {}; stop with Ctrl-C",
            issuer.name.value
        )),
        None => output.hint(format_args!(
            "invite people with `sealwire invite USER --data {}`; stop with Ctrl-C",
            data.display()
        )),
    }
    Ok(())
}
