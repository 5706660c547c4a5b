//! `sealwire relay`: makes a relay's data directory, and runs the relay.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args, Subcommand};
use sealwire_jose::{Algorithm, Algorithms};
use sealwire_protocol::address::Address;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::{self, User};
use sealwire_server::data_dir::{DataDir, DataDirError, InitOptions};
use sealwire_server::issuer_keys::KeySource;
use sealwire_server::policy::{Allowance, MESSAGES_PER_MINUTE};
use sealwire_server::revocations::{self, Revocation};
use sealwire_server::{Relay, RelayBuilder, RelayError, Tls};
use serde_json::json;

use crate::exit::Failure;
use crate::output::Output;
use crate::stop::Stop;
use crate::when;

/// Set up and run a relay
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a relay's data directory: its keys, a built-in issuer and a self-signed certificate
    Init(Init),
    /// Run a relay until Ctrl-C or SIGTERM
    Run(Run),
    /// Revoke a device, a user or tokens, also while the relay runs
    Revoke(Revoke),
}

#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("what").args(["device", "user", "jti", "issued_before"]).required(true).multiple(true)),
    after_help = "\
A relay that runs on DIR closes the links within a second; cards go, and peers are told. It is a line in DIR/revocations.jsonl: a line that is taken out \
counts no more, but devices that were removed stay removed, and join again with new keys.\n\
\n\
Examples:\n  \
    # a phone that was lost; `sealwire devices` shows the thumbprints\n  \
    sealwire relay revoke --data DIR --device 51S3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w\n  \
    # somebody who has left: all their devices, and new ones too\n  \
    sealwire relay revoke --data DIR --user mallory\n  \
    # tokens were issued that should not have been: everybody gets a new one, and keeps their devices\n  \
    sealwire relay revoke --data DIR --issued-before now"
)]
pub(crate) struct Revoke {
    /// The relay's data directory
    #[arg(long, value_name = "DIR")]
    data: PathBuf,

    /// A device, for good
    #[arg(long, value_name = "THUMBPRINT", allow_hyphen_values = true, conflicts_with_all = ["user", "jti", "issued_before"])]
    device: Option<Thumbprint>,

    /// A user: none of their devices is let in, and those that others can write to are removed for good
    #[arg(long, value_name = "USER", conflicts_with = "jti")]
    user: Option<User>,

    /// The token with this id, its `jti`
    #[arg(long, value_name = "ID", allow_hyphen_values = true, value_parser = token_id, conflicts_with = "issued_before")]
    jti: Option<String>,

    /// Tokens from before this time: `now`, or seconds since 1970; with --user, only that user's, who keeps their devices
    #[arg(long, value_name = "TIME", value_parser = issued_before)]
    issued_before: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:\n  \
    # to try it on this machine\n  \
    sealwire relay init ./relay\n  \
    # behind a name\n  \
    sealwire relay init /var/lib/sealwire --address wss://relay.example/v1")]
pub(crate) struct Init {
    /// The directory to make; one that holds a relay already is left as it is
    dir: PathBuf,

    /// Where devices will reach the relay: wss://HOST:PORT/v1 [default: where it listens]
    #[arg(long, value_name = "URL")]
    address: Option<String>,

    /// Another name or IP address for the certificate; localhost is always in it
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Invite people with `sealwire invite USER --data DIR`, also while the relay runs.\n\
\n\
Examples:\n  \
    # to try it; everything is gone afterwards\n  \
    sealwire relay run --dev\n  \
    sealwire relay run --data ./relay\n  \
    # with a certificate that the world trusts\n  \
    sealwire relay run --data DIR --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem\n  \
    # behind a proxy that ends TLS\n  \
    sealwire relay run --data DIR --plain --address wss://relay.example/v1\n  \
    # with your own identity provider, whose tokens name the device key in cnf\n  \
    sealwire relay run --data DIR --issuer https://idp.example/realm \\\n      \
      --audience https://relay.example --jwks https://idp.example/realm/keys")]
pub(crate) struct Run {
    /// The directory that `sealwire relay init` made
    #[arg(long, value_name = "DIR", required_unless_present = "dev")]
    data: Option<PathBuf>,

    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8443")]
    listen: String,

    /// Where devices reach the relay, if it is not where it listens: wss://HOST:PORT/v1
    #[arg(long, value_name = "URL")]
    address: Option<String>,

    /// The certificate chain in PEM, instead of the self-signed one
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Speak no TLS: on loopback, or behind a proxy that does
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    plain: bool,

    /// Take the tokens of this issuer, its exact `iss`, instead of inviting people
    #[arg(long, value_name = "ISS", requires_all = ["audience", "jwks"])]
    issuer: Option<String>,

    /// What `aud` of its tokens has to contain
    #[arg(long, value_name = "AUD", requires = "issuer")]
    audience: Option<String>,

    /// Its key set: an https URL, which is asked again now and then, or a file, which is read again when it has changed
    #[arg(long, value_name = "URL|FILE", requires = "issuer")]
    jwks: Option<String>,

    /// Certificates in PEM that may vouch for the key set's server, instead of the system's
    #[arg(long, value_name = "FILE", requires = "jwks")]
    jwks_trust: Option<PathBuf>,

    /// An algorithm that its tokens may be signed with; may be repeated [default: EdDSA, ES256, ES384, PS256, RS256]
    #[arg(long = "algorithm", value_name = "ALG", requires = "issuer", value_parser = algorithm)]
    algorithms: Vec<Algorithm>,

    /// Messages that a device may send in a minute, each counted once for each device it is for
    #[arg(long, value_name = "N", default_value_t = MESSAGES_PER_MINUTE, value_parser = clap::value_parser!(u64).range(1..))]
    messages_per_minute: u64,

    /// End when standard input does, too: for a relay that another program starts
    #[arg(long)]
    until_eof: bool,

    /// To try it: on loopback only, in a directory of its own that is removed afterwards unless --data names one
    #[arg(long)]
    dev: bool,
}

pub(crate) fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Init(init) => initialise(&init, output),
        Command::Run(run) => super::runtime()?.block_on(serve(run, output)),
        Command::Revoke(revoke) => revoke_in(&revoke, output),
    }
}

fn revoke_in(revoke: &Revoke, output: Output) -> Result<(), Failure> {
    let data = DataDir::open(&revoke.data)?;
    let path = data.revocations_path();
    let Some(revocation) = revoke.revocation() else {
        return Err(Failure::usage("say what to revoke"));
    };
    revocations::append(&path, &revocation).map_err(Failure::failed)?;
    output.result(
        &json!({
            "device": revoke.device.map(|device| device.to_string()),
            "user": revoke.user.as_ref().map(User::as_str),
            "jti": revoke.jti,
            "issued_before": revoke.issued_before,
            "file": path,
        }),
        format_args!("revoked: a line in {}", path.display()),
    )
}

impl Revoke {
    fn revocation(&self) -> Option<Revocation> {
        match (&self.device, &self.user, &self.jti, self.issued_before) {
            (Some(device), _, _, _) => Some(Revocation::Device(*device)),
            (None, _, Some(id), _) => Some(Revocation::Token(id.clone())),
            (None, user, None, Some(before)) => Some(Revocation::IssuedBefore {
                before,
                user: user.clone(),
            }),
            (None, Some(user), None, None) => Some(Revocation::User(user.clone())),
            // The arguments require one.
            (None, None, None, None) => None,
        }
    }
}

fn token_id(id: &str) -> Result<String, String> {
    if (1..=255).contains(&id.len()) {
        Ok(id.to_owned())
    } else {
        Err("a jti has 1 to 255 bytes".to_owned())
    }
}

fn issued_before(time: &str) -> Result<u64, String> {
    if time == "now" {
        // Not those of this second: whoever comes back at once has such a token.
        return Ok(when::now());
    }
    match time.parse() {
        Ok(before) if before <= when::now() => Ok(before),
        Ok(_) => Err("this is in the future: every token would be refused until then".to_owned()),
        Err(_) => Err("write now, or seconds since 1970".to_owned()),
    }
}

fn initialise(init: &Init, output: Output) -> Result<(), Failure> {
    let options = InitOptions {
        address: init.address.clone(),
        hosts: init.hosts.clone(),
    };
    let data = DataDir::init(&init.dir, &options)?;
    let thumbprint = data.relay_key().thumbprint();
    output.result(
        &json!({"data": init.dir, "thumbprint": thumbprint.to_string(), "address": init.address}),
        format_args!("relay {thumbprint}"),
    )?;
    output.hint(format_args!(
        "made in {dir}; start it with `sealwire relay run --data {dir}`",
        dir = init.dir.display()
    ));
    Ok(())
}

async fn serve(run: Run, output: Output) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let listen = resolve(&run.listen).await?;
    if run.dev && !listen.ip().is_loopback() {
        return Err(Failure::usage(format_args!(
            "--dev is for this machine only and {listen} is not; use `sealwire relay init` and --data"
        )));
    }
    // It is removed when this function ends.
    let temporary = if run.data.is_none() {
        Some(temporary()?)
    } else {
        None
    };
    let data = match (&run.data, &temporary) {
        (Some(data), _) => data.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(Failure::usage("name the relay's directory with --data DIR")),
    };
    let relay = builder(&run, &data)?.bind(listen).await?;
    announce(&relay, &run, &data, output)?;
    tokio::select! {
        () = stop.requested() => {}
        () = end_of_input(), if run.until_eof => {}
    }
    output.hint("stopping");
    relay.shutdown().await;
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
            "--listen {listen:?} is not an address and port; write 127.0.0.1:8443 or [::]:443"
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

fn builder(run: &Run, data: &Path) -> Result<RelayBuilder, Failure> {
    let mut public = run.address.clone();
    match DataDir::open(data) {
        Ok(directory) => public = public.or(directory.address()?),
        // Only --dev makes what is not there.
        Err(DataDirError::NotInitialised { .. }) if run.dev => {}
        Err(error) => return Err(error.into()),
    }
    let mut allowance = Allowance::default();
    allowance.messages_per_minute = run.messages_per_minute;
    let mut builder = Relay::builder(data).allowance(allowance);
    if let (Some(certificates), Some(key)) = (&run.tls_cert, &run.tls_key) {
        builder = builder.tls(Tls::Files {
            certificates: certificates.clone(),
            key: key.clone(),
        });
    }
    if run.plain {
        builder = builder.tls(Tls::Plain);
    }
    if let Some(public) = public {
        builder = builder.public_host(host_and_port(&public)?);
    }
    if let (Some(issuer), Some(audience), Some(jwks)) = (&run.issuer, &run.audience, &run.jwks) {
        let issuer = name::Issuer::new(issuer)
            .map_err(|error| Failure::usage(format_args!("--issuer: {error}")))?;
        builder = builder.issuer_with_keys_from(issuer, audience, key_source(run, jwks)?);
    }
    Ok(builder)
}

fn key_source(run: &Run, jwks: &str) -> Result<KeySource, Failure> {
    let algorithms = if run.algorithms.is_empty() {
        Algorithms::PUBLIC_KEY
    } else {
        Algorithms::of(&run.algorithms)
    };
    if jwks.contains("://") {
        KeySource::url(jwks, run.jwks_trust.as_deref(), algorithms)
            .map_err(|error| Failure::usage(format_args!("--jwks {jwks:?}: {error}")))
    } else if run.jwks_trust.is_some() {
        Err(Failure::usage("--jwks-trust is for a --jwks that is a URL"))
    } else {
        Ok(KeySource::file(jwks, algorithms))
    }
}

/// An algorithm with a public key: a secret that every relay has could be used by each to sign.
fn algorithm(name: &str) -> Result<Algorithm, String> {
    Algorithm::from_name(name)
        .filter(|algorithm| Algorithms::PUBLIC_KEY.allows(*algorithm))
        .ok_or_else(|| {
            let names: Vec<_> = Algorithms::PUBLIC_KEY.iter().map(Algorithm::name).collect();
            format!("one of {}", names.join(", "))
        })
}

/// `host[:port]` of `wss://host[:port]/v1`.
fn host_and_port(address: &str) -> Result<String, Failure> {
    // The thumbprint is the relay's own and known only later; any does for reading the rest.
    let any = sealwire_protocol::key::Thumbprint::from_bytes([0; 32]);
    let parsed: Address = format!("{address}#{any}").parse().map_err(|error| {
        Failure::usage(format_args!(
            "{address:?} is not a relay's address: {error}"
        ))
    })?;
    if !parsed.is_secure() {
        return Err(Failure::usage(
            "a relay that others are to reach has an address that begins with wss://",
        ));
    }
    let url = parsed.url();
    let authority = url
        .strip_prefix("wss://")
        .and_then(|rest| rest.strip_suffix("/v1"));
    authority
        .map(str::to_owned)
        .ok_or_else(|| Failure::usage(format_args!("{address:?} is not a relay's address")))
}

fn announce(relay: &Relay, run: &Run, data: &Path, output: Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.result(
            &json!({
                "event": "listening",
                "address": relay.address().to_string(),
                "thumbprint": relay.thumbprint().to_string(),
                "listen": relay.local_addr().to_string(),
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
    if run.data.is_none() {
        output.hint("for trying it only: its keys and messages are gone when it stops");
    }
    match &run.issuer {
        Some(issuer) => output.hint(format_args!(
            "taking the tokens of {issuer}; stop with Ctrl-C"
        )),
        None => output.hint(format_args!(
            "invite people with `sealwire invite USER --data {}`; stop with Ctrl-C",
            data.display()
        )),
    }
    Ok(())
}

impl From<DataDirError> for Failure {
    fn from(error: DataDirError) -> Self {
        if matches!(
            error,
            DataDirError::Host { .. } | DataDirError::Address { .. }
        ) {
            Self::usage(error)
        } else {
            Self::failed(error)
        }
    }
}

impl From<RelayError> for Failure {
    fn from(error: RelayError) -> Self {
        if let RelayError::DataDir(error) = error {
            error.into()
        } else if let RelayError::Address(_) = error {
            Self::usage(error)
        } else {
            Self::failed(error)
        }
    }
}
