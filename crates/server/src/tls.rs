//! How the relay's port is protected on the way to it: TLS 1.3, or nothing, said explicitly.
//!
//! The link seals tokens, addresses and key material by itself (docs/protocol.md §3), so a relay behind a proxy that ends TLS
//! loses no secrecy of those; what TLS adds is that a network observer does not even see the handshake.
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::RelayError;

/// How often certificate and key are looked at. They are small, and read as a whole.
const INTERVAL: Duration = Duration::from_secs(2);

/// What stands between the socket and the WebSocket.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Tls {
    /// TLS 1.3 with the self-signed certificate that the data directory holds. Devices reach it with the trust that the
    /// invitation carries.
    SelfSigned,
    /// TLS 1.3 with a certificate chain and its private key, both PEM files.
    Files {
        /// The chain, the server's own certificate first.
        certificates: PathBuf,
        /// The private key: PKCS#8, SEC1 or PKCS#1.
        key: PathBuf,
    },
    /// No TLS: for tests, for loopback, and behind a proxy that ends TLS (docs/protocol.md §3.1).
    Plain,
}

/// The certificate that new connections are shown. It may change while the relay runs; connections keep the one they began with.
#[derive(Debug)]
pub(crate) struct Certificate {
    files: Files,
    shown: RwLock<Arc<CertifiedKey>>,
}

/// Where a certificate chain and its key are, both PEM.
#[derive(Debug, Clone)]
struct Files {
    certificates: PathBuf,
    key: PathBuf,
}

/// What was in the files.
struct Contents {
    certificates: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

/// What a look at the files has found, to tell from it whether the next finds something else; no key is kept for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Contents([u8; 32]),
    /// They cannot be read.
    Nothing,
}

impl Files {
    fn read(&self) -> Result<Contents, RelayError> {
        Ok(Contents {
            certificates: read(&self.certificates)?,
            key: read(&self.key).map(Zeroizing::new)?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RelayError> {
    std::fs::read(path).map_err(|error| RelayError::CertificateFile {
        path: path.to_owned(),
        error,
    })
}

impl Contents {
    fn parse(&self) -> Result<CertifiedKey, RelayError> {
        let chain = CertificateDer::pem_slice_iter(&self.certificates)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| RelayError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|_| RelayError::Certificate)?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(|_| RelayError::Certificate)
    }

    fn found(&self) -> Found {
        let digest = Sha256::new()
            .chain_update(Sha256::digest(&self.certificates))
            .chain_update(Sha256::digest(&self.key))
            .finalize();
        Found::Contents(digest.into())
    }
}

impl Certificate {
    /// Reads certificate and key, which have to belong together.
    pub(crate) fn open(certificates: &Path, key: &Path) -> Result<Arc<Self>, RelayError> {
        let files = Files {
            certificates: certificates.to_owned(),
            key: key.to_owned(),
        };
        let shown = files.read()?.parse()?;
        Ok(Arc::new(Self {
            files,
            shown: RwLock::new(Arc::new(shown)),
        }))
    }

    /// TLS 1.3 with it.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, RelayError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| RelayError::Certificate)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A link lives for hours: sessions are not resumed, so there are no tickets, and no state of connections that went away.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Shows what is in the files whenever that has changed and is good, until the relay stops. `reloaded` is told of every change, and whether it
    /// was good.
    pub(crate) async fn keep_fresh(
        self: Arc<Self>,
        reloaded: impl Fn(bool),
        mut stop: watch::Receiver<bool>,
    ) {
        let for_ever = async {
            // What was read when the relay started may have changed since.
            let mut last = None;
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let certificate = Arc::clone(&self);
                let look = tokio::task::spawn_blocking(move || certificate.look(last));
                let Ok((found, changed)) = look.await else {
                    continue;
                };
                last = Some(found);
                if let Some(is_good) = changed {
                    reloaded(is_good);
                }
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = for_ever => {}
        }
    }

    /// Reads the files, and shows what is in them unless it was so at the last look. Also whether something has changed, and is good.
    fn look(&self, last: Option<Found>) -> (Found, Option<bool>) {
        let contents = match self.files.read() {
            Ok(contents) => contents,
            Err(_) if last == Some(Found::Nothing) => return (Found::Nothing, None),
            Err(error) => {
                tracing::warn!(%error, "TLS certificate cannot be read; the one before stays in use");
                return (Found::Nothing, Some(false));
            }
        };
        let found = contents.found();
        if last == Some(found) {
            return (found, None);
        }
        match contents.parse() {
            Ok(new) => {
                let mut shown = self.shown.write().unwrap_or_else(PoisonError::into_inner);
                if shown.cert == new.cert {
                    return (found, None);
                }
                *shown = Arc::new(new);
                tracing::info!("TLS certificate replaced; open connections go on");
                (found, Some(true))
            }
            // Certificate and key are two files: between their changes they do not belong together.
            Err(error) => {
                tracing::warn!(%error, "new TLS certificate not used; the one before stays in use");
                (found, Some(false))
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.shown.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

/// The relay's own certificate, for devices to trust.
#[derive(Debug)]
pub(crate) struct SelfSigned {
    pub(crate) pem: String,
    /// SHA-256 of the DER form.
    pub(crate) fingerprint: [u8; 32],
}

impl SelfSigned {
    pub(crate) fn read(path: &Path) -> Result<Self, RelayError> {
        let pem = String::from_utf8(read(path)?).map_err(|_| RelayError::Certificate)?;
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| RelayError::Certificate)?;
        Ok(Self {
            fingerprint: Sha256::digest(&der).into(),
            pem,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_that_cannot_be_read_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, key) = (folder.path().join("chain"), folder.path().join("key"));
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let put_chain = || fs::write(&chain, made.cert.pem()).unwrap();
        put_chain();
        fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let certificate = Certificate::open(&chain, &key).unwrap();
        let (found, changed) = certificate.look(None);
        assert_eq!(changed, None);
        fs::remove_file(&chain).unwrap();
        let nothing = Some(Found::Nothing);
        let told = (Found::Nothing, Some(false));
        assert_eq!(certificate.look(Some(found)), told);
        assert_eq!(certificate.look(nothing), (Found::Nothing, None));
        // It is back as it was.
        put_chain();
        assert_eq!(certificate.look(nothing), (found, None));
    }
}
