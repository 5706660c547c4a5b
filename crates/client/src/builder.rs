//! What a client is made of.

use sealwire_protocol::limits;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::connection::tls::Tls;
use crate::credential::{CredentialSource, TokenProvider};
use crate::error::{Error, Misuse};
use crate::issuer::TrustedIssuer;
use crate::store::{Store, StoreKey};

/// Makes a [`Client`]. A store and an issuer are needed; without token or invite the device has to be enrolled already.
#[must_use = "a builder does nothing until `connect` or `start`"]
pub struct ClientBuilder {
    pub(crate) address: String,
    pub(crate) store: Option<(Box<dyn Store>, StoreKey)>,
    pub(crate) credential: CredentialSource,
    pub(crate) issuer: Option<TrustedIssuer>,
    pub(crate) tls: Tls,
    pub(crate) delivery_receipts: bool,
    pub(crate) only_verified: bool,
}

impl ClientBuilder {
    pub(crate) fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            store: None,
            credential: CredentialSource::Enrolment,
            issuer: None,
            tls: Tls::SystemRoots,
            delivery_receipts: true,
            only_verified: false,
        }
    }

    /// Where the device keeps its keys, sessions and messages, and what that is encrypted under.
    pub fn store(mut self, store: impl Store + 'static, key: StoreKey) -> Self {
        self.store = Some((Box::new(store), key));
        self
    }

    /// Access tokens come from the application's identity provider.
    pub fn token(mut self, provider: impl TokenProvider) -> Self {
        self.credential = CredentialSource::Provider(Box::new(provider));
        self
    }

    /// A one-time invite by the relay's built-in issuer, unless this device is enrolled already.
    pub fn invite(mut self, code: impl Into<String>) -> Self {
        self.credential = CredentialSource::Invite(Zeroizing::new(code.into()));
        self
    }

    /// Whose attestations are accepted for peers.
    pub fn issuer(mut self, issuer: TrustedIssuer) -> Self {
        self.issuer = Some(issuer);
        self
    }

    /// Whom TLS trusts; the system's roots by default.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Whether senders are told when a message of theirs has been stored on this device; yes by default.
    pub fn delivery_receipts(mut self, send: bool) -> Self {
        self.delivery_receipts = send;
        self
    }

    /// Refuse to send to users who are not verified ([`Client::mark_verified`]); off by default.
    pub fn only_verified(mut self, only: bool) -> Self {
        self.only_verified = only;
        self
    }

    /// Opens the store and waits until the relay has accepted this device. After that the client reconnects by itself.
    ///
    /// # Errors
    /// The reason for which the first connection failed, even one that may pass: use [`start`](Self::start) to begin offline.
    pub async fn connect(self) -> Result<Client, Error> {
        let _ = self;
        todo!()
    }

    /// Opens the store and connects in the background, as often as it takes.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be opened, [`Error::Misuse`] if something is missing or wrong in the builder.
    pub async fn start(self) -> Result<Client, Error> {
        let _ = self;
        todo!()
    }

    fn check(&self) -> Result<(), Misuse> {
        if let CredentialSource::Invite(code) = &self.credential
            && !(limits::MIN_INVITE_BYTES..=limits::MAX_INVITE_BYTES).contains(&code.len())
        {
            return Err(Misuse::Invite);
        }
        Ok(())
    }
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder").finish_non_exhaustive()
    }
}
