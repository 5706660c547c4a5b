//! What every connection of a relay shares.
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::limits::HANDSHAKE_SECONDS;
use sealwire_protocol::name::{Issuer as IssuerName, Tenant, User};
use sealwire_protocol::succession::Successions;
use sealwire_protocol::token::TokenClaims;
use tokio::sync::{Semaphore, watch};

use crate::authority::{Authority, Keys};
use crate::blobs::Blobs;
use crate::bounds::{KEEP_ALIVE, MAX_HTTP_REQUESTS_PER_USER, MAX_HTTP_UNITS, WRITE_TIMEOUT};
use crate::closing::End;
use crate::directory::{Directory, Standing};
use crate::drain::{Drain, Draining};
use crate::exchange::Exchange;
use crate::http::{Origins, Replays};
use crate::hub::{Hub, News};
use crate::issuer::Issuer;
use crate::link::throttle::Throttles;
use crate::mail::{Mailboxes, PostError, Swept};
use crate::metrics::Metrics;
use crate::now::Now;
use crate::policy::{Allowance, ConnectionLimits, MAX_RATES, Rates};
use crate::revocations::Revocations;
use crate::services::Services;
use crate::shares::{Share, Shares};
use crate::storage::{Storage, StorageError};

/// What every connection of a relay shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) relay_key: SigningKey,
    /// What leads to it from the keys before.
    pub(crate) previous_keys: Successions,
    pub(crate) authority: Authority,
    pub(crate) issuer: Option<Issuer>,
    /// Whose tokens the issuer exchanges, and whose users are whose.
    pub(crate) exchange: Exchange,
    pub(crate) directory: Directory,
    /// What the two above are in.
    pub(crate) storage: Storage,
    pub(crate) mailboxes: Mailboxes,
    /// Held for reading from looking at a user's devices, and at whether the link still is the sender's, until the messages are in the mailboxes.
    devices: RwLock<()>,
    /// Removed devices whose mailboxes could not be emptied yet; at most as many as the directory remembers.
    unemptied: Mutex<BTreeSet<Thumbprint>>,
    pub(crate) blobs: Blobs,
    pub(crate) hub: Arc<Hub>,
    pub(crate) revocations: Revocations,
    /// What the application answers itself.
    pub(crate) services: Services,
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    /// Set once, when the relay is to be left.
    pub(crate) draining: watch::Sender<Option<Draining>>,
    /// What each user has of open links.
    links: Shares<User>,
    /// What each tenant has of them.
    links_of_tenants: Shares<Tenant>,
    /// How often each device, user and tenant opens one.
    link_rates: (Rates<Thumbprint>, Rates<User>, Rates<Tenant>),
    /// How fast each of them is read.
    pub(crate) throttles: Throttles,
    /// What each user has of requests by HTTP.
    pub(crate) requests: Shares<User>,
    /// Room for the bodies of these, in units of [`crate::bounds::HTTP_UNIT_BYTES`].
    pub(crate) bodies: Semaphore,
    /// The proofs that came with them.
    pub(crate) proofs: Replays,
    pub(crate) request_rates: Rates<Thumbprint>,
    pub(crate) message_rates: Rates<Thumbprint>,
    pub(crate) fetch_rates: Rates<User>,
    pub(crate) tenant_fetch_rates: Rates<Tenant>,
    /// Who takes one-time prekeys of whom. Its clock is slowed, so that its minute is an hour.
    pub(crate) take_rates: Rates<(User, User)>,
    pub(crate) publish_rates: Rates<Thumbprint>,
    pub(crate) refresh_rates: Rates<Thumbprint>,
    pub(crate) call_rates: Rates<Thumbprint>,
    /// Bytes of blobs.
    pub(crate) transfer_rates: Rates<User>,
}

/// What a link has of the links of its user and its tenant.
#[derive(Debug)]
pub(crate) struct LinkShare {
    _user: Share<User>,
    _tenant: Option<Share<Tenant>>,
}

/// What an operator may set.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The host that is in the relay's address, with its port, where the operator has said it.
    pub(crate) host: Option<String>,
    pub(crate) origins: Origins,
    pub(crate) handshake_deadline: Duration,
    pub(crate) keep_alive: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) allowance: Allowance,
    pub(crate) connections: ConnectionLimits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: None,
            origins: Origins::default(),
            handshake_deadline: Duration::from_secs(HANDSHAKE_SECONDS),
            keep_alive: KEEP_ALIVE,
            write_timeout: WRITE_TIMEOUT,
            allowance: Allowance::default(),
            connections: ConnectionLimits::default(),
        }
    }
}

/// Why devices should not be sent here now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unready {
    /// A store refuses writes: the relay has to be started again.
    Store,
    /// The issuer's key set was never had, so that no token can be verified.
    IssuerKeys,
    /// The relay is being drained.
    Draining,
}

impl Unready {
    /// For the operator.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::IssuerKeys => "issuer_keys",
            Self::Draining => "draining",
        }
    }
}

/// Who issues the tokens.
#[derive(Debug)]
pub(crate) enum Issuing {
    /// The built-in issuer, with its key, and where invitations wait for it.
    BuiltIn(Box<SigningKey>, Option<PathBuf>),
    /// The operator's identity provider.
    External(ExternalIssuer),
}

/// The operator's identity provider.
pub(crate) struct ExternalIssuer {
    pub(crate) name: IssuerName,
    pub(crate) audience: String,
    pub(crate) keys: Keys,
}

impl fmt::Debug for ExternalIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalIssuer")
            .field("name", &self.name)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        relay_key: SigningKey,
        issuing: Issuing,
        storage: Storage,
        mailboxes: Mailboxes,
        settings: Settings,
    ) -> Self {
        let (issuer, authority) = match issuing {
            Issuing::External(external) => (
                None,
                Authority::new(external.name, &external.audience, external.keys),
            ),
            Issuing::BuiltIn(key, waiting) => {
                let issuer = Issuer::new(storage.clone(), *key);
                let issuer = match waiting {
                    Some(invites) => issuer.with_waiting_invites(invites),
                    None => issuer,
                };
                let authority = Authority::new(
                    issuer.name().clone(),
                    issuer.audience(),
                    Keys::Given(Arc::new(*issuer.public_key())),
                );
                (Some(issuer), authority)
            }
        };
        Self {
            relay_key,
            previous_keys: Successions::NONE,
            authority,
            issuer,
            exchange: Exchange::default(),
            directory: Directory::new(storage.clone()),
            storage,
            mailboxes,
            devices: RwLock::default(),
            unemptied: Mutex::default(),
            links: Shares::new(settings.connections.links_per_user),
            links_of_tenants: Shares::new(settings.connections.links_per_tenant()),
            link_rates: Default::default(),
            // Besides those who have a link.
            throttles: Throttles::new(settings.connections.connections.saturating_add(MAX_RATES)),
            requests: Shares::new(MAX_HTTP_REQUESTS_PER_USER),
            bodies: Semaphore::new(MAX_HTTP_UNITS),
            proofs: Replays::default(),
            request_rates: Rates::default(),
            blobs: Blobs::in_memory(settings.allowance.blobs),
            hub: Hub::new(),
            revocations: Revocations::default(),
            services: Services::default(),
            settings,
            metrics: Metrics::default(),
            draining: watch::Sender::new(None),
            message_rates: Rates::default(),
            fetch_rates: Rates::default(),
            tenant_fetch_rates: Rates::default(),
            take_rates: Rates::default(),
            publish_rates: Rates::default(),
            refresh_rates: Rates::default(),
            call_rates: Rates::default(),
            transfer_rates: Rates::default(),
        }
    }

    /// Exchanges tokens, and has the names that follow from that respected.
    pub(crate) fn set_exchange(&mut self, exchange: Exchange) {
        let names = exchange.names();
        self.authority.require_tenant(names.require_tenant());
        if let Some(issuer) = &mut self.issuer {
            issuer.respect(Arc::clone(names));
        }
        self.exchange = exchange;
    }

    /// Whether a device that has proved its key may have a link with a token that says this (docs/protocol.md §3, §5.6).
    pub(crate) fn admit(&self, claims: &TokenClaims) -> Result<(), End> {
        if self.revocations.cover(claims) {
            return Err(End::Revoked);
        }
        match self.directory.standing(&claims.device, &claims.user)? {
            Standing::Good => Ok(()),
            Standing::Removed => Err(End::Revoked),
            Standing::AnotherUsers => Err(End::AnotherUser),
        }
    }

    /// One more link with a token that says this, for as long as the share lives. One that `replaces` another is counted and never too many, but may come
    /// too soon after it.
    pub(crate) fn link_share(
        &self,
        claims: &TokenClaims,
        replaces: bool,
        now: Now,
    ) -> Result<LinkShare, End> {
        self.count_link(claims, now)?;
        let tenant = match &claims.permissions.tenant {
            Some(tenant) => {
                let share = self.links_of_tenants.take(tenant.clone(), replaces);
                Some(share.ok_or(End::TooManyLinksOfTenant)?)
            }
            None => None,
        };
        let user = self.links.take(claims.user.clone(), replaces);
        Ok(LinkShare {
            _user: user.ok_or(End::TooManyLinks)?,
            _tenant: tenant,
        })
    }

    /// Who comes too often is refused at the narrowest limit, so that a device does not use up its user's, nor a user the tenant's.
    fn count_link(&self, claims: &TokenClaims, now: Now) -> Result<(), End> {
        let (devices, users, tenants) = &self.link_rates;
        let (limits, now) = (&self.settings.connections, now.steady_millis);
        devices
            .take(&claims.device, limits.links_per_minute, now)
            .map_err(|_| End::TooOften)?;
        users
            .take(&claims.user, limits.links_per_minute_per_user, now)
            .map_err(|_| End::TooOftenOfUser)?;
        if let Some(tenant) = &claims.permissions.tenant {
            tenants
                .take(tenant, limits.links_per_minute_per_tenant, now)
                .map_err(|_| End::TooOftenOfTenant)?;
        }
        Ok(())
    }

    /// Removes a device, if it is one of `of` where that is given, and tells everybody whom it concerns (docs/protocol.md §5.1,
    /// RemoveDevice). Returns whether there was such a device; one of `of` that was removed before is one.
    pub(crate) async fn remove_device(
        &self,
        device: &Thumbprint,
        of: Option<&User>,
        now: Now,
    ) -> Result<bool, StorageError> {
        let Some(user) = self.directory.remove(device, of).await? else {
            return match of {
                Some(user) => self.directory.was_removed_of(device, user),
                None => Ok(false),
            };
        };
        self.hub.ring(device.as_bytes(), News::REVOKED);
        self.tell_of_devices(&user, device, now);
        // Whoever has seen the device has written to it when this returns, and nobody sees it any more.
        self.after_sending();
        self.empty_mailbox(device, now).await;
        Ok(true)
    }

    /// While this is held, no mailbox of a device that is seen now is emptied because the device is removed, and no link whose doorbell does not say
    /// that it has ended is replaced.
    pub(crate) fn see_devices(&self) -> RwLockReadGuard<'_, ()> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once nobody is sending who began before: whoever begins after sees what had changed before.
    pub(crate) fn after_sending(&self) {
        drop(self.devices.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Gives back to their senders what is in the mailbox of a device that was removed.
    async fn empty_mailbox(&self, device: &Thumbprint, now: Now) {
        loop {
            match self.mailboxes.remove(device, now.millis) {
                Ok(swept) => return self.ring(&swept),
                Err(PostError::Busy) => self.mailboxes.room().await,
                Err(error) => {
                    tracing::error!(%error, "the mailbox of a removed device is not emptied yet");
                    self.unemptied().insert(*device);
                    return;
                }
            }
        }
    }

    /// Tries again what [`Shared::empty_mailbox`] could not do, as far as it can be done now. Where the relay ends before, the next start finds it.
    fn empty_the_rest(&self, now: Now) {
        let mut unemptied = self.unemptied();
        while let Some(device) = unemptied.first().copied() {
            match self.mailboxes.remove(&device, now.millis) {
                Ok(swept) => {
                    unemptied.pop_first();
                    self.ring(&swept);
                }
                // What hinders one hinders all.
                Err(error) => {
                    tracing::debug!(%error, "mailboxes of removed devices are not emptied yet");
                    return;
                }
            }
        }
    }

    fn unemptied(&self) -> MutexGuard<'_, BTreeSet<Thumbprint>> {
        self.unemptied
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what a removal that a crash or a fault interrupted has left to do.
    pub(crate) async fn finish_removals(&self, now: Now) -> Result<(), StorageError> {
        for device in self.directory.removed()? {
            if self.mailboxes.status(&device).waiting > 0 {
                self.empty_mailbox(&device, now).await;
            }
        }
        Ok(())
    }

    /// Gives back to their senders, a bounded amount at a time, what nobody fetched in time and what is left of removed devices.
    pub(crate) fn sweep(&self, now: Now) -> Result<Swept, StorageError> {
        self.empty_the_rest(now);
        let swept = self.mailboxes.sweep(now.millis)?;
        self.ring(&swept);
        Ok(swept)
    }

    fn ring(&self, swept: &Swept) {
        for device in &swept.ring {
            self.hub.ring(device.as_bytes(), News::MAIL);
        }
    }

    /// Whether the stores still take what devices send. For health checks.
    pub(crate) fn is_writable(&self) -> bool {
        self.storage.is_writable() && self.mailboxes.is_writable()
    }

    /// Has every link leave in its turn, and takes no more connections.
    pub(crate) fn drain(&self, drain: Drain, now: Now) -> Draining {
        let draining = drain.begin(self.metrics.links_open(), now);
        // Before the bell: a link that is entered after it sees this.
        self.draining.send_replace(Some(draining));
        self.hub.ring_all(News::LEAVING);
        draining
    }

    /// Whether devices should be sent here.
    pub(crate) fn readiness(&self) -> Result<(), Unready> {
        if self.draining.borrow().is_some() {
            return Err(Unready::Draining);
        }
        if !self.is_writable() {
            return Err(Unready::Store);
        }
        match self.authority.fetched() {
            Some(keys) if !keys.state().is_known => Err(Unready::IssuerKeys),
            Some(_) | None => Ok(()),
        }
    }

    /// Tells the user's devices but one, and who watches the user, that the set of devices changed (docs/protocol.md §5.2).
    pub(crate) fn tell_of_devices(&self, user: &User, but: &Thumbprint, now: Now) {
        match self.directory.devices(user, now.seconds()) {
            Ok(devices) => {
                for device in devices.iter().filter(|device| *device != but) {
                    self.hub.ring(device.as_bytes(), News::DEVICES);
                }
            }
            // They find out when their next message is refused with devices_changed.
            Err(error) => tracing::warn!(%error, "devices not told of a change"),
        }
        self.hub.changed(user.as_str());
    }
}
