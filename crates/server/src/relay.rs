//! The relay as an application sees it: configure, bind, serve, shut down.
//!
//! ```text
//!  Relay::builder(dir) ── bind(address) ─▶ Relay ── shutdown() ─▶ everything accepted is durable, the directory is free
//!                      ├─ serve(listener) ┤
//!                      └─ mount(address) ─┴─▶ HttpService, for the application's own server
//! ```
mod builder;
mod error;
mod tasks;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sealwire_protocol::address::Address;
use sealwire_protocol::introduction::Introduction;
use sealwire_protocol::invite::Invitation;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use tokio::sync::watch;

use crate::bounds::SHUTDOWN_GRACE;
use crate::clock;
use crate::drain::Drain;
use crate::hub::News;
use crate::revocations::{self, Revocation};
use crate::services::Pusher;
use crate::shared::Shared;
use crate::tls::{SelfSigned, Tls};

use builder::Place;
pub use builder::RelayBuilder;
pub use error::RelayError;
use tasks::Tasks;

/// A running relay. It serves from the moment it exists until [`Relay::shutdown`], or until it is dropped, which drops every
/// link without notice.
#[derive(Debug)]
pub struct Relay {
    local_addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    address: Address,
    certificate: Option<SelfSigned>,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    /// Ends when there is no connection any more.
    serving: Tasks,
    tasks: Tasks,
}
impl Relay {
    /// Begins a relay whose keys, certificate, built-in issuer and mailboxes live in `data_dir`. The directory is made and filled
    /// on the first start. Its port speaks TLS with the directory's self-signed certificate unless [`RelayBuilder::tls`] says otherwise.
    pub fn builder(data_dir: impl Into<PathBuf>) -> RelayBuilder {
        RelayBuilder::new(Place::Directory(data_dir.into()), Tls::SelfSigned)
    }

    /// Begins a relay that ends with the process, keys and messages and all: for tests and for trying things out. Its port speaks no
    /// TLS unless [`RelayBuilder::tls`] says otherwise.
    pub fn in_memory() -> RelayBuilder {
        RelayBuilder::new(Place::Memory, Tls::Plain)
    }

    /// Where it listens, or the server that it is mounted on; useful after binding port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where the operator's port is, if there is one ([`RelayBuilder::admin`]).
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The relay's identity: its shown form is `b64u`, 43 characters (docs/protocol.md §1.3).
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.shared.relay_key.thumbprint()
    }

    /// The address a device connects to: `wss://host:port/v1#thumbprint`, or `ws://…` without TLS (docs/protocol.md §3.1).
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The self-signed certificate in PEM, if that is what the relay serves: what a device has to trust.
    #[must_use]
    pub fn certificate_pem(&self) -> Option<&str> {
        self.certificate
            .as_ref()
            .map(|certificate| certificate.pem.as_str())
    }

    /// Invites `user` at the built-in issuer, for `lifetime`. What comes back has all a device needs to join, once; its
    /// [`Invitation::to_line`] is for pasting (docs/protocol.md §3.6).
    ///
    /// # Errors
    /// [`RelayError`] if the relay has no built-in issuer, the name is not a user (§1.2), or storage fails.
    pub async fn invite(&self, user: &str, lifetime: Duration) -> Result<Invitation, RelayError> {
        let issuer = self.shared.issuer.as_ref().ok_or(RelayError::NoIssuer)?;
        let user = User::new(user).map_err(RelayError::User)?;
        let (now, lifetime) = (clock::now().seconds(), lifetime.as_secs());
        let code = issuer.invite(&user, lifetime, now).await?;
        Ok(Invitation {
            relay: self.introduction()?,
            user,
            code,
            expires: now.saturating_add(lifetime),
        })
    }

    /// What somebody has to know who joins with a token that the relay exchanges ([`RelayBuilder::exchange`]); nothing of it is secret. Its
    /// [`Introduction::to_line`] is for pasting (docs/protocol.md §14).
    ///
    /// # Errors
    /// [`RelayError::NoIssuer`] if the relay has no built-in issuer.
    pub fn introduction(&self) -> Result<Introduction, RelayError> {
        let issuer = self.shared.issuer.as_ref().ok_or(RelayError::NoIssuer)?;
        Ok(Introduction {
            address: self.address.clone(),
            certificate: self
                .certificate
                .as_ref()
                .map(|certificate| certificate.fingerprint),
            issuer_key: *issuer.public_key(),
        })
    }

    /// Removes a device for good: its card, prekeys and mailbox are gone, its link is closed with 4102, as is every later one whoever issued its token, and the
    /// built-in issuer gives it no more tokens. Returns whether the relay knew it, as it does every device that was enrolled or has ever published a card; an
    /// issuer of the operator's has to stop giving tokens to one that it does not know, whose link is closed and may come back.
    ///
    /// # Errors
    /// [`RelayError`] if storage fails.
    pub async fn remove_device(&self, device: &Thumbprint) -> Result<bool, RelayError> {
        let known = self
            .shared
            .remove_device(device, None, clock::now())
            .await
            .map_err(RelayError::Storage)?;
        // Also a link of a device that has no card.
        self.shared.hub.ring(device.as_bytes(), News::REVOKED);
        Ok(known)
    }

    /// Revokes a token, a device, a user, or what was issued before some time ([`Revocation`]). When this returns, it is in the data directory's
    /// `revocations.jsonl`, no token that it covers is accepted any more, the cards are gone and peers are told; live links are closed with 4102 at once.
    ///
    /// # Errors
    /// [`RelayError::Revocations`] if the file cannot be written: nothing is revoked then. [`RelayError::Storage`] if cards could not be taken away: tokens
    /// are refused all the same, and the rest is tried again.
    pub async fn revoke(&self, revocation: Revocation) -> Result<(), RelayError> {
        revocations::revoke(&self.shared, revocation)
            .await?
            .map_err(RelayError::Storage)
    }

    /// Stops without haste: takes no more connections, has every link answer what is open, tells each device when to come back and closes its link with
    /// 4000, one after another, and then stops as [`Relay::shutdown`]. Links that have not left 10 seconds after their time are dropped, with the
    /// handlers of services that still run for them.
    /// Whoever stops waiting for this drops the relay.
    pub async fn drain(mut self, drain: Drain) {
        let draining = self.shared.drain(drain, clock::now());
        let limit = draining.window().saturating_add(SHUTDOWN_GRACE);
        if tokio::time::timeout(limit, self.serving.finished())
            .await
            .is_err()
        {
            tracing::warn!("links dropped: they did not leave in {limit:?}");
        }
        self.shutdown().await;
    }

    /// What pushes to devices unasked (docs/protocol.md §17).
    #[must_use]
    pub fn pusher(&self) -> Pusher {
        Pusher::new(Arc::clone(&self.shared.services.pushes))
    }

    /// Stops: accepts nothing more, closes every link with 4000, waits until what was accepted is durable, and returns. The data directory
    /// can be opened again then. Handlers of services have 10 seconds to end, and are dropped then.
    pub async fn shutdown(self) {
        let Self {
            shared,
            stop,
            mut serving,
            mut tasks,
            ..
        } = self;
        stop.send_replace(true);
        serving.finished().await;
        tasks.finished().await;
        // The last owner of the store waits for its writer thread.
        if let Err(error) = tokio::task::spawn_blocking(move || drop(shared)).await {
            tracing::error!(%error, "the store did not close cleanly");
        }
    }
}
