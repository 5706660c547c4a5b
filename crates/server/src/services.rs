//! The server as an end: services that the application registers, which devices call, and what it pushes (docs/protocol.md §17).
//!
//! ```text
//!  RelayBuilder::service ──▶ Services: name ─▶ handler
//!                                  ▲ found by
//!  Call frame ─▶ link ─▶ requests ─┘─▶ a task of its own: place, ready, call ─▶ Result │ Accepted │ Refused ─▶ link
//!  Pusher ─▶ a bounded queue of each link ─▶ Push frames
//! ```
//! A call is sealed between its device and the relay and read here: it is not end to end. What runs it, and bounds it on each link, is
//! `link.rs`; a handler bounds itself by what it is wrapped in (`tower::limit`, `tower::timeout`).
mod push;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sealwire_protocol::permissions::Permissions;
use sealwire_protocol::service::{ServiceName, ServiceNameError};
use sealwire_protocol::token::TokenClaims;
use tower::util::BoxCloneService;
use tower::{Service, ServiceExt as _};

use crate::bounds::{CALLS_PER_MINUTE, MAX_SERVICES, SERVICE_TIMEOUT};

pub use push::{PushError, Pushed, Pusher};
pub(crate) use push::{PushQueue, Pushes};

/// What a handler may fail with. Nothing of it is told to the device; it goes to the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A registered handler.
pub(crate) type Handler = BoxCloneService<Call, Bytes, BoxError>;

/// What a device asks of a service, or tells it. Who asks has been verified: the link's token, as it is now, and the proof of the device's key.
#[derive(Clone)]
pub struct Call {
    claims: Arc<TokenClaims>,
    service: ServiceName,
    payload: Bytes,
    wants_reply: bool,
}

impl Call {
    pub(crate) fn new(
        claims: TokenClaims,
        service: ServiceName,
        payload: Bytes,
        wants_reply: bool,
    ) -> Self {
        Self {
            claims: Arc::new(claims),
            service,
            payload,
            wants_reply,
        }
    }

    /// The user whose device calls: the token's `sub`.
    #[must_use]
    pub fn user(&self) -> &User {
        &self.claims.user
    }

    /// The device that calls.
    #[must_use]
    pub fn device(&self) -> Thumbprint {
        self.claims.device
    }

    /// What its token allows.
    #[must_use]
    pub fn permissions(&self) -> &Permissions {
        &self.claims.permissions
    }

    /// When its token expires, in seconds since 1970.
    #[must_use]
    pub fn token_expires(&self) -> u64 {
        self.claims.expires
    }

    /// All that its token says to a relay. Claims that the protocol does not know (docs/protocol.md §2.2) are not kept: a handler that needs to know more of
    /// its user looks it up.
    #[must_use]
    pub fn claims(&self) -> &TokenClaims {
        &self.claims
    }

    /// Under which name the service is called.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// What it says: at most 1 MiB.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Takes what it says.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        self.payload
    }

    /// Whether the device waits for the answer. Where it does not, the answer is thrown away.
    #[must_use]
    pub fn wants_reply(&self) -> bool {
        self.wants_reply
    }
}

/// Names the service and the length of what it is told, and nobody: it may be logged.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("service", &self.service)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .field("wants_reply", &self.wants_reply)
            .finish_non_exhaustive()
    }
}

/// Why a service cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Its name is none.
    #[error("{0}")]
    Name(#[from] ServiceNameError),
    /// There is another under this name.
    #[error("two services are registered under the name {0}")]
    Twice(ServiceName),
    /// More than a relay holds.
    #[error("more than {MAX_SERVICES} services are registered")]
    TooMany,
}

/// What the application has registered.
pub(crate) struct Services {
    /// Behind a lock because a handler need not be `Sync`; each call clones it.
    handlers: HashMap<ServiceName, Mutex<Handler>>,
    /// The first thing that was wrong, said when the relay starts.
    fault: Option<ServiceError>,
    /// How long a call may take in all.
    pub(crate) timeout: Duration,
    /// How many a device may make in a minute.
    pub(crate) calls_per_minute: u64,
    pub(crate) pushes: Arc<Pushes>,
}

impl Default for Services {
    fn default() -> Self {
        Self {
            handlers: HashMap::new(),
            fault: None,
            timeout: SERVICE_TIMEOUT,
            calls_per_minute: CALLS_PER_MINUTE,
            pushes: Arc::default(),
        }
    }
}

impl Services {
    /// Registers a handler.
    pub(crate) fn register<S>(&mut self, name: &str, handler: S)
    where
        S: Service<Call, Response: Into<Bytes>, Error: Into<BoxError>> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        if let Err(error) = self.try_register(name, handler) {
            self.fault.get_or_insert(error);
        }
    }

    fn try_register<S>(&mut self, name: &str, handler: S) -> Result<(), ServiceError>
    where
        S: Service<Call, Response: Into<Bytes>, Error: Into<BoxError>> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let name = ServiceName::new(name)?;
        if self.handlers.contains_key(&name) {
            return Err(ServiceError::Twice(name));
        }
        if self.handlers.len() >= MAX_SERVICES {
            return Err(ServiceError::TooMany);
        }
        let handler = BoxCloneService::new(handler.map_response(Into::into).map_err(Into::into));
        self.handlers.insert(name, Mutex::new(handler));
        Ok(())
    }

    /// Whether everything that was registered can be served.
    pub(crate) fn check(&self) -> Result<(), ServiceError> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// The handler of a service, for one call.
    pub(crate) fn handler(&self, name: &str) -> Option<(ServiceName, Handler)> {
        let (name, handler) = self.handlers.get_key_value(name)?;
        // A handler that panics while it is cloned leaves nothing half done.
        let handler = handler.lock().unwrap_or_else(PoisonError::into_inner);
        Some((name.clone(), handler.clone()))
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("names", &self.handlers.keys())
            .field("timeout", &self.timeout)
            .field("calls_per_minute", &self.calls_per_minute)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn echo() -> impl Service<
        Call,
        Response = Bytes,
        Error = Infallible,
        Future = impl Future<Output = Result<Bytes, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static {
        tower::service_fn(async |call: Call| Ok::<_, Infallible>(call.into_payload()))
    }

    #[test]
    fn names_that_are_none_and_names_given_twice_are_told_when_the_relay_starts() {
        let mut services = Services::default();
        services.register("orders.create", echo());
        services.register("orders.delete", echo());
        assert_eq!(services.check(), Ok(()));
        services.register("orders.create", echo());
        let twice = ServiceError::Twice(ServiceName::new("orders.create").unwrap());
        assert_eq!(services.check(), Err(twice.clone()));
        services.register("orders create", echo());
        assert_eq!(services.check(), Err(twice), "the first fault is told");
        let mut services = Services::default();
        services.register("orders.*", echo());
        assert_eq!(
            services.check(),
            Err(ServiceError::Name(ServiceNameError::Character))
        );
    }

    #[test]
    fn only_the_exact_name_finds_a_service() {
        let mut services = Services::default();
        services.register("orders.create", echo());
        assert!(services.handler("orders.create").is_some());
        for name in ["orders", "orders.Create", "orders.create.x", ""] {
            assert!(services.handler(name).is_none(), "{name}");
        }
    }
}
