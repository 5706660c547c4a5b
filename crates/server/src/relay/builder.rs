//! What a relay is made of, and how it starts.
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use sealwire_protocol::address::Address;
use sealwire_protocol::jws::SignatureVerifier;
use sealwire_protocol::key::SigningKey;
use sealwire_protocol::name::Issuer as IssuerName;
use sealwire_protocol::succession::Successions;
use tokio::net::{TcpListener, ToSocketAddrs};
use tokio::sync::{RwLock, mpsc, watch};

use super::tasks::{Tasks, sweep_blobs, sweep_mail};
use super::{Relay, RelayError};
use crate::authority::OutsideKeys;
use crate::blobs::Blobs;
use crate::data_dir::{DataDir, InitOptions};
use crate::exchange::{Exchange, ExchangeConfigError, ExchangeIssuer};
use crate::issuer_keys::KeySource;
use crate::mail::disk::DirectoryDisk;
use crate::mail::{MailOptions, Mailboxes};
use crate::mounted::{Arrival, HttpService};
#[cfg(unix)]
use crate::operator::{self, Operator};
use crate::policy::{Allowance, ConnectionLimits};
use crate::revocations::{self, Revocations};
use crate::services::{BoxError, Call, Services};
use crate::shared::{ExternalIssuer, Issuing, Settings, Shared};
use crate::storage::{Storage, StorageOptions};
use crate::tls::{Certificate, SelfSigned, Tls};
use crate::{admin, clock, descriptors, listener, mounted};

/// What a relay is made of; start with [`Relay::builder`] or [`Relay::in_memory`].
#[derive(Debug)]
#[must_use = "a relay runs once it is bound"]
pub struct RelayBuilder {
    place: Place,
    tls: Tls,
    public_host: Option<String>,
    settings: Settings,
    services: Services,
    issuer: Option<OutsideIssuer>,
    admin: Option<SocketAddr>,
    exchange: Vec<ExchangeIssuer>,
    require_tenant: bool,
}

/// The operator's identity provider.
#[derive(Debug)]
struct OutsideIssuer {
    name: IssuerName,
    audience: String,
    keys: OutsideKeys,
}
impl RelayBuilder {
    pub(super) fn new(place: Place, tls: Tls) -> Self {
        Self {
            place,
            tls,
            public_host: None,
            settings: Settings::default(),
            services: Services::default(),
            issuer: None,
            admin: None,
            exchange: Vec::new(),
            require_tenant: false,
        }
    }

    /// Sets how the port is protected.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Sets the host name, and the port where it is not 443, that devices use: `relay.example` or `relay.example:8443`. Only addresses, invitations
    /// and a new self-signed certificate need it; by default they name the local address. With [`Tls::Plain`] it is the host of the proxy that
    /// ends TLS.
    pub fn public_host(mut self, host: impl Into<String>) -> Self {
        let host = host.into();
        self.settings.host = Some(host.clone());
        self.public_host = Some(host);
        self
    }

    /// Accepts the tokens of `issuer` (its exact `iss`) for `audience` that verify with `keys`, in place of the built-in issuer's. Invitations
    /// and renewals are refused then (docs/protocol.md §3.6).
    pub fn issuer(
        self,
        issuer: IssuerName,
        audience: impl Into<String>,
        keys: impl SignatureVerifier + Send + Sync + 'static,
    ) -> Self {
        self.outside_issuer(issuer, audience.into(), OutsideKeys::Given(Arc::new(keys)))
    }

    /// The same, with keys from a file or a URL, which are kept fresh while the relay runs: the issuer may rotate them, and be down, without any
    /// link noticing. The last good set of a URL is kept in the data directory.
    pub fn issuer_with_keys_from(
        self,
        issuer: IssuerName,
        audience: impl Into<String>,
        keys: KeySource,
    ) -> Self {
        self.outside_issuer(issuer, audience.into(), OutsideKeys::Source(keys))
    }

    fn outside_issuer(mut self, name: IssuerName, audience: String, keys: OutsideKeys) -> Self {
        self.issuer = Some(OutsideIssuer {
            name,
            audience,
            keys,
        });
        self
    }

    /// Serves `/healthz`, `/readyz` and `/metrics` (Prometheus' text format) on `address`, as HTTP without TLS. It tells nothing about anybody, but how
    /// busy the relay is: bind it to loopback or a network of your own.
    pub fn admin(mut self, address: SocketAddr) -> Self {
        self.admin = Some(address);
        self
    }

    /// Answers devices' calls of the service `name` with `handler` (docs/protocol.md §17): a [`tower::Service`], so that the layers of tower compose
    /// around it, or an async function by `tower::service_fn`. It is cloned for each call, made ready, and called in a task of its own; it goes on when the
    /// device's link ends, until it is done or [`RelayBuilder::service_timeout`] is over. Whatever it fails with, panics too, the device is told
    /// `service_failed` and no more; but `service_timeout` where a `tower::timeout` of its own is over, and `unavailable` where a `tower::load_shed` has
    /// not let the call in. A reply may have 1 MiB.
    ///
    /// A name is 1 to 255 ASCII letters, digits, `_`, `-` and `.`. A name that is none, or is given twice, is an error when the relay starts.
    pub fn service<S>(mut self, name: &str, handler: S) -> Self
    where
        S: tower::Service<Call, Response: Into<bytes::Bytes>, Error: Into<BoxError>>
            + Clone
            + Send
            + 'static,
        S::Future: Send + 'static,
    {
        self.services.register(name, handler);
        self
    }

    /// Sets how long a call may take, from its frame to the handler's end; 30 seconds by default. Then the handler is dropped where it waits, and the
    /// device is told `service_timeout`.
    pub fn service_timeout(mut self, timeout: Duration) -> Self {
        self.services.timeout = timeout;
        self
    }

    /// Sets how many calls of services a device may make in a minute; 600 by default. They do not count as messages.
    pub fn calls_per_minute(mut self, calls: u64) -> Self {
        self.services.calls_per_minute = calls;
        self
    }

    /// Exchanges the tokens of `issuer`, which name no device, for tokens of the built-in issuer (docs/protocol.md §3.7). May be said for several.
    pub fn exchange(mut self, issuer: ExchangeIssuer) -> Self {
        self.exchange.push(issuer);
        self
    }

    /// Refuses whoever is of no tenant (docs/protocol.md §5.7): access tokens have to name one, exchange issuers too, and who is invited is of what is before
    /// the last slash of the name.
    pub fn require_tenant(mut self, required: bool) -> Self {
        self.require_tenant = required;
        self
    }

    /// Sets the relay's own limits, which no token exceeds.
    pub fn allowance(mut self, allowance: Allowance) -> Self {
        self.settings.allowance = allowance;
        self
    }

    /// Sets how many connections there may be; by default the constants of [`crate::policy`].
    pub fn connection_limits(mut self, limits: ConnectionLimits) -> Self {
        self.settings.connections = limits;
        self
    }

    /// Allows browsers' requests from `origin`, for example `https://app.example`. Without any, every request that has an
    /// `Origin` header is refused with 403 (RFC 6455 §10.2): devices send none.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.settings.origins.0.push(origin.into());
        self
    }

    /// Sets how long a connection may take until it has authenticated; 5 seconds by default (docs/protocol.md §12).
    pub fn handshake_deadline(mut self, deadline: Duration) -> Self {
        self.settings.handshake_deadline = deadline;
        self
    }

    /// Sets how long a device may be silent before it is pinged, and how long after that before it is given up (4003); 30 seconds by default.
    pub fn keep_alive(mut self, period: Duration) -> Self {
        self.settings.keep_alive = period;
        self
    }

    /// Sets how long a device may take to read what was sent to it before its link is closed (4001); 30 seconds by default.
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.settings.write_timeout = timeout;
        self
    }

    /// Listens on `address` and serves.
    ///
    /// # Errors
    /// [`RelayError`] says what could not be read, opened or bound.
    pub async fn bind(self, address: impl ToSocketAddrs) -> Result<Relay, RelayError> {
        self.serve(
            TcpListener::bind(address)
                .await
                .map_err(RelayError::Listen)?,
        )
        .await
    }

    /// Serves on a listener that the application made, on the current tokio runtime. On Unix the process's soft limit of open files is raised to the
    /// hard one; where it is low, fewer connections are taken, so that the stores can open their files.
    ///
    /// # Errors
    /// As [`RelayBuilder::bind`].
    pub async fn serve(self, listener: TcpListener) -> Result<Relay, RelayError> {
        let local_addr = listener.local_addr().map_err(RelayError::Listen)?;
        self.start(local_addr, Door::Port(listener)).await
    }

    /// Serves on no port of its own, but beside the application's HTTP: what comes back with the relay answers the requests at `/v1` that the
    /// application's server hands on. `local_addr` is where that server listens.
    ///
    /// The application's server, or what is in front of it, ends TLS, so [`RelayBuilder::tls`] does not matter; give the name that devices use with
    /// [`RelayBuilder::public_host`], or they can connect on this machine only. The deadline of the handshake, what may be said before it, the rules for
    /// `Origin` and the number of connections hold as on a port of the relay's own. How many connections one address has, and how long a request may
    /// take until it is handed on, is the application's business.
    ///
    /// # Errors
    /// [`RelayError`] says what could not be read or opened.
    pub async fn mount(
        mut self,
        local_addr: SocketAddr,
    ) -> Result<(Relay, HttpService), RelayError> {
        self.tls = Tls::Plain;
        let (sender, arrivals) = mounted::arrivals();
        let answering = Arc::default();
        let door = Door::Application(arrivals, Arc::clone(&answering));
        let relay = self.start(local_addr, door).await?;
        let service = HttpService::new(&relay.shared, sender, answering);
        Ok((relay, service))
    }

    async fn start(self, local_addr: SocketAddr, door: Door) -> Result<Relay, RelayError> {
        let admin = match self.admin {
            Some(address) => {
                let refused = |error| RelayError::Admin { address, error };
                let admin = TcpListener::bind(address).await.map_err(refused)?;
                Some((admin.local_addr().map_err(refused)?, admin))
            }
            None => None,
        };
        // Opening and, on the first start, filling the directory is disk work.
        let opened = tokio::task::spawn_blocking(move || self.open(local_addr)).await;
        let Opened {
            shared,
            tls,
            certificate,
            address,
            #[cfg(unix)]
            directory,
        } = opened.map_err(|_| RelayError::Interrupted)??;

        let acceptor = tls.as_ref().map(Certificate::acceptor).transpose()?;
        let keys = shared.authority.fetched().into_iter();
        let keys: Vec<_> = keys.chain(shared.exchange.fetched()).cloned().collect();
        // One that does not answer does not keep the others waiting.
        try_join_all(keys.iter().map(|keys| keys.start())).await?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        for keys in keys {
            tasks.push(tokio::spawn(keys.keep_fresh(stopped.clone())));
        }
        if let Some(tls) = tls {
            let reporting = Arc::clone(&shared);
            let reloaded = move |is_good| reporting.metrics.certificate(is_good);
            tasks.push(tokio::spawn(tls.keep_fresh(reloaded, stopped.clone())));
        }
        let admin_addr = admin.map(|(address, listener)| {
            let serving = admin::serve(listener, Arc::clone(&shared), stopped.clone());
            tasks.push(tokio::spawn(serving));
            address
        });
        #[cfg(unix)]
        if let Some(directory) = directory {
            let operator = Operator::of_relay(Arc::clone(&shared), directory);
            match operator::listen(operator, stopped.clone()) {
                Ok(serving) => tasks.push(tokio::spawn(serving)),
                // Devices have nothing to do with it.
                Err(error) => {
                    tracing::warn!(%error, "no socket for the operator: `sealwire relay stats` and its like find nobody");
                }
            }
        }
        tasks.extend([
            tokio::spawn(sweep_mail(Arc::clone(&shared), stopped.clone())),
            tokio::spawn(sweep_blobs(Arc::clone(&shared), stopped.clone())),
            tokio::spawn(revocations::watch(Arc::clone(&shared), stopped.clone())),
        ]);
        let serving = match door {
            Door::Port(listener) => tokio::spawn(listener::serve(
                listener,
                acceptor,
                Arc::clone(&shared),
                stopped,
            )),
            Door::Application(arrivals, answering) => tokio::spawn(mounted::serve(
                arrivals,
                answering,
                Arc::clone(&shared),
                stopped,
            )),
        };
        let serving = Tasks(vec![serving]);
        let tasks = Tasks(tasks);
        tracing::info!(%address, "relay listening");
        Ok(Relay {
            local_addr,
            admin_addr,
            address,
            certificate,
            shared,
            stop,
            serving,
            tasks,
        })
    }

    fn open(mut self, local_addr: SocketAddr) -> Result<Opened, RelayError> {
        self.services.check()?;
        if self.issuer.is_some() && !self.exchange.is_empty() {
            return Err(ExchangeConfigError::NoBuiltInIssuer.into());
        }
        let directory = match &self.place {
            Place::Memory => None,
            Place::Directory(path) => Some(DataDir::open_or_init(path, &self.init_options())?),
        };
        let exchange = Exchange::new(
            std::mem::take(&mut self.exchange),
            self.require_tenant,
            directory.as_ref().map(DataDir::path),
        )?;
        let (tls, certificate) = match (&self.tls, &directory) {
            (Tls::Plain, _) => (None, None),
            (Tls::Files { certificates, key }, _) => {
                (Some(Certificate::open(certificates, key)?), None)
            }
            (Tls::SelfSigned, Some(directory)) => {
                let certificate = SelfSigned::read(&directory.certificate_path())?;
                (
                    Some(Certificate::open(
                        &directory.certificate_path(),
                        &directory.certificate_key_path(),
                    )?),
                    Some(certificate),
                )
            }
            (Tls::SelfSigned, None) => return Err(RelayError::NoCertificate),
        };
        let blobs = directory.as_ref().map(DataDir::blobs_path);
        let revoked = directory.as_ref().map(DataDir::revocations_path);
        let kept_keys = directory
            .as_ref()
            .map(|directory| directory.path().to_owned());
        let mut previous_keys = Successions::NONE;
        let (storage, mailboxes, waiting, address, (relay_key, issuer_key)) = match directory {
            None => {
                let mut rng = rand::rng();
                let keys = (
                    SigningKey::generate(&mut rng),
                    SigningKey::generate(&mut rng),
                );
                (
                    Storage::in_memory()?,
                    Mailboxes::in_memory()?,
                    None,
                    self.address(local_addr, &keys.0)?,
                    keys,
                )
            }
            Some(directory) => {
                // The stores are locked first: a directory in use is left as it is.
                let storage = Storage::open(directory.path(), &StorageOptions::default())?;
                let disk = DirectoryDisk::open(&directory.mail_path())?;
                let address = self.address(local_addr, directory.relay_key())?;
                directory.announce(&address, certificate.is_some())?;
                previous_keys = directory.previous_keys(clock::now().seconds())?;
                let mailboxes = Mailboxes::open(Arc::new(disk), &MailOptions::default())?;
                (
                    storage,
                    mailboxes,
                    Some(directory.invites_path()),
                    address,
                    directory.into_keys(),
                )
            }
        };
        let issuing = match self.issuer {
            Some(outside) => Issuing::External(ExternalIssuer {
                name: outside.name,
                audience: outside.audience,
                keys: outside.keys.open(kept_keys.as_deref()),
            }),
            None => Issuing::BuiltIn(Box::new(issuer_key), waiting),
        };
        let connections = &mut self.settings.connections.connections;
        *connections = descriptors::connections(*connections);
        let limits = self.settings.allowance.blobs;
        let mut shared = Shared::new(relay_key, issuing, storage, mailboxes, self.settings);
        shared.previous_keys = previous_keys;
        shared.services = self.services;
        if let Some(path) = blobs {
            shared.blobs =
                Blobs::open(&path, limits).map_err(|error| RelayError::Blobs { path, error })?;
        }
        if let Some(path) = revoked {
            shared.revocations = Revocations::open(path)?;
        }
        shared.set_exchange(exchange);
        let shared = Arc::new(shared);
        Ok(Opened {
            shared,
            tls,
            certificate,
            address,
            #[cfg(unix)]
            directory: kept_keys,
        })
    }

    /// The address that devices use (docs/protocol.md §3.1).
    fn address(&self, local_addr: SocketAddr, relay: &SigningKey) -> Result<Address, RelayError> {
        let (scheme, host) = match (&self.public_host, &self.tls) {
            // Without TLS here, it is the proxy at the public host that speaks it.
            (Some(host), _) => ("wss", host.clone()),
            (None, Tls::Plain) => ("ws", reachable(local_addr).to_string()),
            (None, Tls::SelfSigned | Tls::Files { .. }) => {
                ("wss", reachable(local_addr).to_string())
            }
        };
        format!("{scheme}://{host}/v1#{}", relay.thumbprint())
            .parse()
            .map_err(RelayError::Address)
    }

    fn init_options(&self) -> InitOptions {
        let address = self
            .public_host
            .as_ref()
            .map(|host| format!("wss://{host}/v1"));
        InitOptions {
            address,
            hosts: Vec::new(),
        }
    }
}
/// Where devices come from.
enum Door {
    /// A port of the relay's own.
    Port(TcpListener),
    /// The application's server, and what those hold who answer its requests.
    Application(mpsc::Receiver<Arrival>, Arc<RwLock<()>>),
}

/// Where keys and messages live.
#[derive(Debug)]
pub(super) enum Place {
    Directory(PathBuf),
    Memory,
}

/// A local address as a device on this machine reaches it.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// What a builder has opened.
struct Opened {
    shared: Arc<Shared>,
    tls: Option<Arc<Certificate>>,
    certificate: Option<SelfSigned>,
    address: Address,
    /// The data directory.
    #[cfg(unix)]
    directory: Option<PathBuf>,
}
