//! Whether what the configuration names is there and is what it should be. Nothing is changed, and no network is used.

use std::path::Path;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sealwire_jose::KeySet;
use sealwire_server::data_dir::DataDir;
use zeroize::Zeroizing;

use super::settings::{Configuration, Jwks, Problem, Provider, Setting, Source, TlsSettings};
use crate::files;

/// Bytes of a certificate chain or key, at most.
const MAX_PEM_BYTES: usize = 1 << 20;
/// Bytes of a key set, at most (docs/protocol.md §2.2).
const MAX_KEY_SET_BYTES: usize = 64 << 10;

/// What is wrong with what the configuration names.
pub(super) fn files(configuration: &Configuration) -> Vec<Problem> {
    let mut problems = Vec::new();
    match &configuration.data {
        None => problems.push(Problem {
            source: Source::Default,
            message: "data is missing: name the directory that `sealwire relay init` has made"
                .to_owned(),
        }),
        Some(data) => problems.extend(directory(data, &configuration.tls)),
    }
    if let TlsSettings::Files { certificate, key } = &configuration.tls {
        problems.extend(certified(certificate, key));
    }
    let exchange = configuration.exchange.iter();
    let providers = exchange.map(|exchange| &exchange.provider);
    for provider in configuration.issuer.iter().chain(providers) {
        problems.extend(key_set(provider));
    }
    problems
}

fn directory(data: &Setting<std::path::PathBuf>, tls: &TlsSettings) -> Option<Problem> {
    let opened = DataDir::open(&data.value).and_then(|directory| {
        // An address that was damaged, or a certificate that is gone, would be found only when it is used.
        directory.address()?;
        match tls {
            TlsSettings::SelfSigned => directory.certificate_sha256().map(|_| ()),
            TlsSettings::Files { .. } | TlsSettings::None => Ok(()),
        }
    });
    problem(&data.source, "data", opened.err()?)
}

/// A certificate and its key: both are read, whatever is wrong with the other.
fn certified(
    certificate: &Setting<std::path::PathBuf>,
    key: &Setting<std::path::PathBuf>,
) -> Vec<Problem> {
    let chain = chain(&certificate.value);
    let private = private(&key.value);
    match (chain, private) {
        (Ok(chain), Ok(private)) => {
            // It compares the two.
            let pair = CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider());
            let together = pair.err().and_then(|error| {
                let message = if matches!(error, rustls::Error::InconsistentKeys(_)) {
                    "this is the key of another certificate than tls.certificate".to_owned()
                } else {
                    format!("certificate and key are not usable for TLS 1.3: {error}")
                };
                problem(&key.source, "tls.key", message)
            });
            together.into_iter().collect()
        }
        (chain, private) => {
            let chain = chain
                .err()
                .and_then(|error| problem(&certificate.source, "tls.certificate", error));
            let private = private
                .err()
                .and_then(|error| problem(&key.source, "tls.key", error));
            chain.into_iter().chain(private).collect()
        }
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = files::read(path, MAX_PEM_BYTES).map_err(|failure| failure.to_string())?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(format!("{} has no certificate in PEM", path.display())),
    }
}

/// Whether anybody but its owner and its group may read or write the key of the configured certificate. One that cannot be looked at is reported by whoever
/// reads it.
pub(super) fn exposed_key(tls: &TlsSettings) -> Option<Problem> {
    let TlsSettings::Files { key, .. } = tls else {
        return None;
    };
    problem(&key.source, "tls.key", not_exposed(&key.value).err()?)
}

fn not_exposed(path: &Path) -> Result<(), String> {
    #[cfg(unix)]
    if std::fs::metadata(path).is_ok_and(|file| {
        use std::os::unix::fs::PermissionsExt as _;
        file.permissions().mode() & 0o006 != 0
    }) {
        return Err(format!(
            "others can read {path}; run `chmod o= {path}`, and get a certificate with another key if somebody may have read this one",
            path = path.display()
        ));
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn private(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    not_exposed(path)?;
    let pem = files::read(path, MAX_PEM_BYTES).map_err(|failure| failure.to_string())?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        format!(
            "{} has no private key in PEM: PKCS#8, SEC1 or PKCS#1, without a passphrase",
            path.display()
        )
    })
}

fn key_set(issuer: &Provider) -> Option<Problem> {
    match &issuer.jwks.value {
        // This reads what may vouch for the server, and asks nobody.
        Jwks::Url(_) => issuer.source().err(),
        Jwks::File(path) => {
            let set = files::read(path, MAX_KEY_SET_BYTES)
                .map_err(|failure| failure.to_string())
                .map(Zeroizing::new)
                .and_then(|file| {
                    KeySet::parse(&file, issuer.algorithms()).map_err(|error| {
                        format!("{} is no key set for this relay: {error}", path.display())
                    })
                });
            problem(&issuer.jwks.source, issuer.jwks_path(), set.err()?)
        }
    }
}

fn problem(source: &Source, key: &str, message: impl std::fmt::Display) -> Option<Problem> {
    Some(Problem {
        source: source.clone(),
        message: format!("{key}: {message}"),
    })
}
