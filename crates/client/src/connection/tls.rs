//! Whom TLS trusts: the system's roots, or one certificate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};

use crate::error::Unreachable;

/// Whom TLS trusts. Whatever TLS says, the relay proves the key that the address names (`docs/protocol.md §3.5`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Tls {
    /// Certificates that the system's roots vouch for (`SSL_CERT_FILE` and `SSL_CERT_DIR` are respected).
    #[default]
    SystemRoots,
    /// Exactly the certificate whose DER form has this SHA-256, whatever its name and dates.
    Pinned([u8; 32]),
}

/// The TLS 1.3 configuration for a policy.
pub(crate) fn client_config(tls: &Tls) -> Result<Arc<ClientConfig>, Unreachable> {
    config_with(verifier(tls)?)
}

/// The TLS 1.3 configuration under which certificates are judged so.
pub(crate) fn config_with(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, Unreachable> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|_| Unreachable::Tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// What judges certificates under a policy.
pub(crate) fn verifier(tls: &Tls) -> Result<Arc<dyn ServerCertVerifier>, Unreachable> {
    match tls {
        Tls::SystemRoots => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
                .build()
                .map(|verifier| -> Arc<dyn ServerCertVerifier> { verifier })
                // There is no other reason: revocation lists are not used.
                .map_err(|_| Unreachable::NoRoots)
        }
        Tls::Pinned(fingerprint) => Ok(Arc::new(Pinned {
            fingerprint: *fingerprint,
            algorithms: provider().signature_verification_algorithms,
        })),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Who failed, from what rustls said through an I/O error.
pub(crate) fn failure(error: &std::io::Error) -> Unreachable {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    {
        Some(rustls::Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        )) => Unreachable::CertificatePin,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            Unreachable::Certificate
        }
        Some(_) => Unreachable::Tls,
        None => Unreachable::Broken,
    }
}

/// Accepts one certificate, by its hash; possession of its key is still proved in the handshake.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if <[u8; 32]>::from(Sha256::digest(end_entity)) == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
