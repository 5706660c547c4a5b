//! How the relay's port is protected on the way to it: TLS 1.3, or nothing, said explicitly.
//!
//! The link seals tokens, addresses and key material by itself (docs/protocol.md §3), so a relay behind a proxy that ends TLS
//! loses no secrecy of those; what TLS adds is that a network observer does not even see the handshake.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::RelayError;

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

/// The acceptor for PEM files.
pub(crate) fn acceptor(certificates: &Path, key: &Path) -> Result<TlsAcceptor, RelayError> {
    let certificates = std::fs::read(certificates).map_err(RelayError::CertificateFile)?;
    let key = std::fs::read(key)
        .map(Zeroizing::new)
        .map_err(RelayError::CertificateFile)?;
    let chain = CertificateDer::pem_slice_iter(&certificates)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| RelayError::Certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| RelayError::Certificate)?;

    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| RelayError::Certificate)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|_| RelayError::Certificate)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A link lives for hours: sessions are not resumed, so there are no tickets, and no state of connections that went away.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
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
        let pem = std::fs::read_to_string(path).map_err(RelayError::CertificateFile)?;
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| RelayError::Certificate)?;
        Ok(Self {
            fingerprint: Sha256::digest(&der).into(),
            pem,
        })
    }
}
