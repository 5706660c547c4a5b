//! Why a relay did not start, or could not do what its application asked.
use std::net::SocketAddr;
use std::path::PathBuf;

use sealwire_protocol::address::AddressError;
use sealwire_protocol::name::NameError;

use crate::data_dir::DataDirError;
use crate::exchange::ExchangeConfigError;
use crate::issuer::IssuerError;
use crate::issuer_keys::KeySourceError;
use crate::mail::MailOpenError;
use crate::mail::disk::DiskError;
use crate::revocations::RevocationsError;
use crate::services::ServiceError;
use crate::storage::{OpenError, StorageError};

/// Why a relay did not start or could not do what its application asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The address could not be bound.
    #[error("cannot listen on the address: {0}; choose another or stop what uses it")]
    Listen(#[source] std::io::Error),
    /// The operator's address could not be bound.
    #[error(
        "cannot listen on the operator's address, {address}: {error}; choose another or stop what uses it"
    )]
    Admin {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// Devices could not use the address, for one because it is neither TLS nor loopback.
    #[error("devices could not use the relay's address: {0}; set the public host")]
    Address(#[source] AddressError),
    /// A certificate or key file could not be read.
    #[error(
        "cannot read {}, for TLS: {error}; check the path, and that this user may read it",
        .path.display()
    )]
    CertificateFile {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// Certificate and key are not PEM, do not fit together or are of a kind TLS 1.3 does not use.
    #[error(
        "the certificate chain and key are not usable for TLS 1.3: both must be PEM and belong together"
    )]
    Certificate,
    /// [`Tls::SelfSigned`](crate::Tls::SelfSigned) without a data directory.
    #[error(
        "a relay in memory has no certificate of its own; give it certificate files or run it without TLS"
    )]
    NoCertificate,
    /// The data directory is not usable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The directory of the blobs could not be opened.
    #[error("cannot use {}: {error}; check that the directory belongs to this user", .path.display())]
    Blobs {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// A service cannot be registered.
    #[error("{0}")]
    Service(#[from] ServiceError),
    /// The issuer's keys could not be read.
    #[error(transparent)]
    IssuerKeys(#[from] KeySourceError),
    /// Tokens cannot be exchanged as they are to be.
    #[error(transparent)]
    Exchange(#[from] ExchangeConfigError),
    /// The directory of the mailboxes could not be used.
    #[error(transparent)]
    MailDirectory(#[from] DiskError),
    /// The mailboxes could not be opened.
    #[error(transparent)]
    Mail(#[from] MailOpenError),
    /// What is revoked cannot be read or written.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// There is no built-in issuer: the operator's issues the tokens.
    #[error(
        "this relay has no issuer of its own; its users get their tokens from the configured one"
    )]
    NoIssuer,
    /// The store failed while the relay was running.
    #[error(transparent)]
    Storage(StorageError),
    /// Not the name of a user.
    #[error("not a user: {0}")]
    User(#[source] NameError),
    /// The built-in issuer could not do it.
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// The runtime was shut down while the relay started.
    #[error("the runtime ended while the relay was starting")]
    Interrupted,
}
