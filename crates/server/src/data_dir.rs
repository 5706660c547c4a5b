//! The relay's data directory: keys, certificate, store, invitations that wait.
use std::io;
use std::path::{Path, PathBuf};

use sealwire_protocol::invite::Invitation;
use sealwire_protocol::key::SigningKey;
use sealwire_protocol::name::User;

/// An initialised data directory, with its keys.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    relay_key: SigningKey,
    issuer_key: SigningKey,
}

/// What [`DataDir::init`] needs to know.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct InitOptions {
    /// The address that devices use, `wss://host[:port]/v1`, if it is known already.
    pub address: Option<String>,
    /// Names and IP addresses for the certificate, besides `localhost`, `127.0.0.1`, `::1` and the host of `address`.
    pub hosts: Vec<String>,
}

/// Why a data directory is not usable.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// There is nothing initialised there.
    #[error("{} is not a relay's data directory; run `sealwire relay init {}` first", .path.display(), .path.display())]
    NotInitialised {
        /// The directory.
        path: PathBuf,
    },
    /// A file or directory could not be read or written.
    #[error("cannot use {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: io::Error,
    },
}

impl DataDir {
    /// Makes the directory if it is not there, and in it new keys, a self-signed certificate and the place of the store.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn init(path: &Path, options: &InitOptions) -> Result<Self, DataDirError> {
        todo!()
    }

    /// Opens a directory that [`DataDir::init`] made.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        todo!()
    }

    /// Opens the directory, or makes it where there is nothing.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open_or_init(path: &Path, options: &InitOptions) -> Result<Self, DataDirError> {
        todo!()
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The relay's identity.
    #[must_use]
    pub fn relay_key(&self) -> &SigningKey {
        &self.relay_key
    }

    /// The built-in issuer's key.
    #[must_use]
    pub fn issuer_key(&self) -> &SigningKey {
        &self.issuer_key
    }

    /// Takes the relay's and the issuer's key, for a relay that runs.
    #[must_use]
    pub fn into_keys(self) -> (SigningKey, SigningKey) {
        (self.relay_key, self.issuer_key)
    }

    /// The self-signed certificate in PEM.
    #[must_use]
    pub fn certificate_path(&self) -> PathBuf {
        self.path.join("tls-cert.pem")
    }

    /// The certificate's key in PEM.
    #[must_use]
    pub fn certificate_key_path(&self) -> PathBuf {
        self.path.join("tls-key.pem")
    }

    /// Where invitations wait that were made while the relay has the store open; for [`crate::issuer::Issuer::with_waiting_invites`].
    #[must_use]
    pub fn invites_path(&self) -> PathBuf {
        self.path.join("invites")
    }

    /// Invites `user`, also while the relay runs: the line to hand over, good for `lifetime_seconds` from `now` (seconds since 1970).
    /// `address` (`wss://host[:port]/v1`) stands in for the one from [`InitOptions::address`].
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn invite(&self, user: &User, address: Option<&str>, lifetime_seconds: u64, now: u64) -> Result<Invitation, DataDirError> {
        todo!()
    }
}
