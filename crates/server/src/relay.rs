//! The relay as an application sees it: configure, bind, serve, shut down.
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpListener, ToSocketAddrs};

use crate::Tls;

/// A running relay. It serves from the moment it exists until [`Relay::shutdown`], or until it is dropped, which closes every
/// link without notice.
#[derive(Debug)]
pub struct Relay {
    local_addr: SocketAddr,
}

/// What a relay is made of; start with [`Relay::builder`].
#[derive(Debug)]
#[must_use]
pub struct RelayBuilder {
    data_dir: PathBuf,
    tls: Tls,
}

impl Relay {
    /// Begins a relay whose keys, certificate, built-in issuer and mailboxes live in `data_dir`. The directory is made and filled
    /// on the first start.
    pub fn builder(data_dir: impl Into<PathBuf>) -> RelayBuilder {
        RelayBuilder { data_dir: data_dir.into(), tls: Tls::SelfSigned }
    }

    /// Where it listens; useful after binding port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The relay's identity: the thumbprint of its Ed25519 key, `b64u`, 43 characters (docs/protocol.md §1.3).
    #[must_use]
    pub fn thumbprint(&self) -> String {
        todo!()
    }

    /// The address a device connects to: `wss://host:port/v1#thumbprint` (docs/protocol.md §3.1).
    #[must_use]
    pub fn address(&self) -> String {
        todo!()
    }

    /// The self-signed certificate in PEM, if that is what the relay serves: what a device has to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<&str> {
        todo!()
    }

    /// Invites `user` at the built-in issuer: a one-time code, good for `lifetime` (docs/protocol.md §3.6).
    ///
    /// # Errors
    /// [`RelayError`] if the relay has no built-in issuer, the name is not a user (§1.2), or storage fails.
    pub async fn invite(&self, _user: &str, _lifetime: Duration) -> Result<String, RelayError> {
        todo!()
    }

    /// Stops: accepts nothing more, closes every link with 4000, waits until what was accepted is durable, and returns.
    pub async fn shutdown(self) {
        todo!()
    }
}

impl RelayBuilder {
    /// Sets how the port is protected; [`Tls::SelfSigned`] by default.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets the host name and, if it is not the port it listens on, the port that devices use: `relay.example` or
    /// `relay.example:443`. Only [`Relay::address`] needs it; by default that is the local address.
    pub fn public_host(self, _host: impl Into<String>) -> Self {
        self
    }

    /// Allows browsers' requests from `origin`, for example `https://app.example`. Without any, every request that has an
    /// `Origin` header is refused with 403 (RFC 6455 §10.2): devices send none.
    pub fn allow_origin(self, _origin: impl Into<String>) -> Self {
        self
    }

    /// Sets how long a connection may take until it has authenticated; 5 seconds by default (docs/protocol.md §12).
    pub fn handshake_deadline(self, _deadline: Duration) -> Self {
        self
    }

    /// Listens on `address` and serves.
    ///
    /// # Errors
    /// [`RelayError`] says what could not be read, opened or bound.
    pub async fn bind(self, address: impl ToSocketAddrs) -> Result<Relay, RelayError> {
        self.serve(TcpListener::bind(address).await.map_err(RelayError::Listen)?).await
    }

    /// Serves on a listener that the application made.
    ///
    /// # Errors
    /// As [`RelayBuilder::bind`].
    pub async fn serve(self, listener: TcpListener) -> Result<Relay, RelayError> {
        let local_addr = listener.local_addr().map_err(RelayError::Listen)?;
        Ok(Relay { local_addr })
    }
}

/// Why a relay did not start or could not do what its application asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The address could not be bound.
    #[error("cannot listen on the address: {0}; choose another or stop what uses it")]
    Listen(#[source] std::io::Error),
    /// A certificate or key file could not be read.
    #[error("cannot read the certificate or its key: {0}")]
    CertificateFile(#[source] std::io::Error),
    /// Certificate and key are not PEM, do not fit together or are of a kind TLS 1.3 does not use.
    #[error("the certificate chain and key are not usable for TLS 1.3: both must be PEM and belong together")]
    Certificate,
}
