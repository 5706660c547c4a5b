//! What can be said on the command line about a relay: each flag stands for a setting.

use std::path::PathBuf;

use clap::Args;
use sealwire_jose::{Algorithm, Algorithms};

use super::settings::{self, FILE_VARIABLE, Flag, Loaded, Raw};
use crate::exit::Failure;
use crate::logging::Logging;

/// The configuration file, and settings.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The configuration file, in TOML; `sealwire relay config default` prints one
    #[arg(long, value_name = "FILE", env = FILE_VARIABLE)]
    pub(super) config: Option<PathBuf>,

    /// The directory that `sealwire relay init` made
    #[arg(long, value_name = "DIR")]
    data: Option<String>,

    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,

    /// Where devices reach the relay, if it is not where it listens: wss://HOST:PORT/v1
    #[arg(long, value_name = "URL")]
    address: Option<String>,

    /// The certificate chain in PEM, instead of the self-signed one
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,

    /// The certificate's key in PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,

    /// Speak no TLS: on loopback, or behind a proxy that does
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    plain: bool,

    /// Take the tokens of this issuer, its exact `iss`, instead of inviting people
    #[arg(long, value_name = "ISS")]
    issuer: Option<String>,

    /// What `aud` of its tokens has to contain
    #[arg(long, value_name = "AUD")]
    audience: Option<String>,

    /// Its key set: an https URL, which is asked again now and then, or a file, which is read again when it has changed
    #[arg(long, value_name = "URL|FILE")]
    jwks: Option<String>,

    /// Certificates in PEM that may vouch for the key set's server, instead of the system's
    #[arg(long, value_name = "FILE")]
    jwks_trust: Option<String>,

    /// An algorithm that its tokens may be signed with; may be repeated [default: EdDSA, ES256, ES384, PS256, RS256]
    #[arg(long = "algorithm", value_name = "ALG", value_parser = algorithm)]
    algorithms: Vec<Algorithm>,

    /// Serve /healthz, /readyz and Prometheus' /metrics here, for the operator only
    #[arg(long, value_name = "ADDR:PORT")]
    admin: Option<String>,

    /// Messages that a device may send in a minute, each counted once for each device it is for [default: 600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    messages_per_minute: Option<u64>,
}

impl Options {
    /// Reads the configuration: the file, under the environment, under these flags. `json`: the log is to be JSON.
    ///
    /// # Errors
    /// If there is no such file. Everything else that is wrong is in what comes back.
    pub(super) fn load(&self, logging: &Logging, json: bool) -> Result<Loaded, Failure> {
        let mut flags = self.flags();
        let filter = logging.flag().map(|filter| Raw::Word(filter.to_owned()));
        flags.extend(filter.map(|value| Flag {
            path: "log.filter",
            flag: "--log",
            value,
        }));
        flags.extend(json.then(|| Flag {
            path: "log.format",
            flag: "--json",
            value: Raw::Word("json".to_owned()),
        }));
        Loaded::read(self.config.as_deref(), std::env::vars_os(), flags)
    }

    fn flags(&self) -> Vec<Flag> {
        let mode = match (self.plain, &self.tls_cert, &self.tls_key) {
            (true, _, _) => Some(("--plain", "none")),
            (false, Some(_), _) => Some(("--tls-cert", "files")),
            (false, None, Some(_)) => Some(("--tls-key", "files")),
            (false, None, None) => None,
        };
        let words = [
            ("data", "--data", &self.data),
            ("listen.address", "--listen", &self.listen),
            ("listen.public_address", "--address", &self.address),
            ("tls.certificate", "--tls-cert", &self.tls_cert),
            ("tls.key", "--tls-key", &self.tls_key),
            ("issuer.issuer", "--issuer", &self.issuer),
            ("issuer.audience", "--audience", &self.audience),
            ("issuer.jwks", "--jwks", &self.jwks),
            ("issuer.jwks_trust", "--jwks-trust", &self.jwks_trust),
            ("admin.listen", "--admin", &self.admin),
        ];
        let words = words.into_iter().filter_map(|(path, flag, value)| {
            let value = Raw::Word(value.clone()?);
            Some(Flag { path, flag, value })
        });
        let mode = mode.map(|(flag, mode)| Flag {
            path: "tls.mode",
            flag,
            value: Raw::Word(mode.to_owned()),
        });
        let rate = self.messages_per_minute.map(|messages| Flag {
            path: "limits.messages_per_minute",
            flag: "--messages-per-minute",
            value: Raw::Word(messages.to_string()),
        });
        let names = self
            .algorithms
            .iter()
            .map(|algorithm| algorithm.name().to_owned());
        let algorithms = (!self.algorithms.is_empty()).then(|| Flag {
            path: "issuer.algorithms",
            flag: "--algorithm",
            value: Raw::Words(names.collect()),
        });
        words.chain(mode).chain(rate).chain(algorithms).collect()
    }
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    settings::algorithm(name).ok_or_else(|| {
        let names: Vec<_> = Algorithms::PUBLIC_KEY.iter().map(Algorithm::name).collect();
        format!("one of {}", names.join(", "))
    })
}
