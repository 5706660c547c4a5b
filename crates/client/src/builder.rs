//! What a client is made of.

use std::time::Duration;

use sealwire_protocol::address::Address;
use sealwire_protocol::limits;
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use crate::client::{COMMAND_QUEUE, Client};
use crate::connection::task::Task;
use crate::connection::tls::Tls;
use crate::connection::{Closed, ConnectionState, REFRESH_FLOOR};
use crate::credential::{CredentialSource, TokenProvider, Use};
use crate::engine::{Engine, Options};
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
    refresh_floor: Duration,
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
            refresh_floor: REFRESH_FLOOR,
        }
    }

    /// Where the device keeps its keys, sessions and messages, and what that is encrypted under.
    pub fn store(mut self, store: impl Store + 'static, key: StoreKey) -> Self {
        self.store = Some((Box::new(store), key));
        self
    }

    /// Access tokens come from the application's identity provider.
    pub fn token(mut self, provider: impl TokenProvider) -> Self {
        self.credential = CredentialSource::Provider(Box::new(provider), Use::Direct);
        self
    }

    /// Tokens of an identity provider that knows nothing of devices: the relay exchanges each for one of its own, which names this device and is good for an
    /// hour at most (`docs/protocol.md §3.7`). The provider is asked for one whenever the device connects, and again before the relay's expires.
    ///
    /// Devices are attested by the relay's built-in issuer then: [`TrustedIssuer::built_in`], or [`Client::introduced`], which knows.
    pub fn exchange(mut self, provider: impl TokenProvider) -> Self {
        self.credential = CredentialSource::Provider(Box::new(provider), Use::Exchange);
        self
    }

    /// A one-time invite by the relay's built-in issuer, unless this device is enrolled already.
    ///
    /// `code` is the 16 to 64 secret bytes of the invitation. [`Client::invited`] takes it from an invitation line.
    pub fn invite(mut self, code: &[u8]) -> Self {
        self.credential = CredentialSource::Invite(Zeroizing::new(code.to_vec()));
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

    /// Between two refreshes of the token is at least this. For tests, which cannot wait.
    #[cfg(feature = "simulation")]
    #[doc(hidden)]
    pub fn refresh_floor(mut self, floor: Duration) -> Self {
        self.refresh_floor = floor;
        self
    }

    /// Opens the store and waits until the relay has accepted this device and has its card, so that others can write to it.
    /// After that the client reconnects by itself.
    ///
    /// # Errors
    /// The reason for which the first connection failed, even one that may pass: use [`start`](Self::start) to begin offline.
    pub async fn connect(self) -> Result<Client, Error> {
        let (client, connected) = self.spawn(true).await?;
        match connected.await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Closed(Closed::ByApplication)),
        }
    }

    /// Opens the store and connects in the background, as often as it takes.
    ///
    /// # Errors
    /// [`Error::Store`] if the store cannot be opened, [`Error::Misuse`] if something is missing or wrong in the builder.
    pub async fn start(self) -> Result<Client, Error> {
        Ok(self.spawn(false).await?.0)
    }

    /// Opens the store and runs the connection on a thread of its own, so that neither the application's executor nor its
    /// latency matters, and a store that waits for a disk blocks nobody else.
    async fn spawn(
        self,
        only_once: bool,
    ) -> Result<(Client, oneshot::Receiver<Result<(), Error>>), Error> {
        self.check()?;
        let address: Address = self.address.parse().map_err(|_| Misuse::Address)?;
        let (store, key) = self.store.ok_or(Misuse::NoStore)?;
        let issuer = self.issuer.ok_or(Misuse::NoIssuer)?;
        let options = Options {
            delivery_receipts: self.delivery_receipts,
            only_verified: self.only_verified,
        };
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (state, observed) = watch::channel(ConnectionState::Connecting);
        let (opened, opening) = oneshot::channel();
        let (connected, connecting) = oneshot::channel();
        let (tls, credential, floor) = (self.tls, self.credential, self.refresh_floor);
        let run = move || {
            // Opening may take a second, for a passphrase: not on the application's thread either.
            let engine = match Engine::open(store, &key, issuer, options, Box::new(rand::rng())) {
                Ok(engine) => engine,
                Err(error) => return drop(opened.send(Err(Error::Store(error)))),
            };
            drop(key);
            let runtime = match tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .enable_time()
                .build()
            {
                Ok(runtime) => runtime,
                Err(error) => return drop(opened.send(Err(Error::Store(error.into())))),
            };
            let device = engine.keys().thumbprint();
            let _ = opened.send(Ok(device));
            let first = only_once.then_some(connected);
            runtime.block_on(
                Task::new(engine, address, tls, credential, receiver, state, first)
                    .refreshing_no_sooner_than(floor)
                    .run(),
            );
        };
        let thread = std::thread::Builder::new()
            .name("sealwire-client".to_owned())
            .spawn(run);
        thread.map_err(|error| Error::Store(error.into()))?;
        let device = opening.await.map_err(|_| Error::Closed(Closed::Store))??;
        Ok((Client::new(commands, observed, device), connecting))
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
