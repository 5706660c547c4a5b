//! Calls of the services that the relay's application offers (`docs/protocol.md §17`).
//!
//! They are sealed between this device and the relay, which reads them: they are not end to end, as messages are.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::time::{Duration, Instant};

use sealwire_protocol::limits::MAX_SERVICE_PAYLOAD_BYTES;
use sealwire_protocol::service::{ServiceName, ServiceNameError};
use tokio::sync::oneshot;

use crate::client::{Client, Command};
use crate::connection::Closed;
use crate::error::Refusal;

/// How long a call may take in all, unless the application says otherwise.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A call that has not begun; await it. Dropping the future gives the call up: what was sent may be carried out all the same.
#[must_use = "a call does nothing until it is awaited"]
pub struct Call(Prepared);

/// A notification that has not begun; await it.
#[must_use = "a notification does nothing until it is awaited"]
pub struct Notify(Prepared);

struct Prepared {
    client: Client,
    service: Result<ServiceName, ServiceNameError>,
    payload: Vec<u8>,
    timeout: Duration,
}

/// What the connection task is asked to do.
pub(crate) struct Asked {
    pub(crate) service: ServiceName,
    pub(crate) payload: Vec<u8>,
    pub(crate) reply: bool,
    /// Until when it may take.
    pub(crate) until: Option<Instant>,
    pub(crate) answer: oneshot::Sender<Result<Vec<u8>, CallError>>,
}

impl Call {
    pub(crate) fn new(client: Client, service: &str, payload: Vec<u8>) -> Self {
        Self(Prepared::new(client, service, payload))
    }

    /// Sets how long the call may take, from now to the answer, also while there is no connection; [`CALL_TIMEOUT`] by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = timeout;
        self
    }
}

impl Notify {
    pub(crate) fn new(client: Client, service: &str, payload: Vec<u8>) -> Self {
        Self(Prepared::new(client, service, payload))
    }

    /// Sets how long it may take until the service has taken it, also while there is no connection; [`CALL_TIMEOUT`] by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout = timeout;
        self
    }
}

impl IntoFuture for Call {
    type Output = Result<Vec<u8>, CallError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.0.run(true))
    }
}

impl IntoFuture for Notify {
    type Output = Result<(), CallError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        let running = self.0.run(false);
        Box::pin(async move { running.await.map(drop) })
    }
}

impl Prepared {
    fn new(client: Client, service: &str, payload: Vec<u8>) -> Self {
        Self {
            client,
            service: ServiceName::new(service),
            payload,
            timeout: CALL_TIMEOUT,
        }
    }

    async fn run(self, reply: bool) -> Result<Vec<u8>, CallError> {
        let service = self.service?;
        if self.payload.len() > MAX_SERVICE_PAYLOAD_BYTES {
            return Err(CallError::TooLarge(self.payload.len()));
        }
        let (payload, until) = (self.payload, Instant::now().checked_add(self.timeout));
        let asking = self.client.command(|answer| {
            Command::Call(Asked {
                service,
                payload,
                reply,
                until,
                answer,
            })
        });
        match asking.await {
            Ok(answer) => answer,
            Err(closed) => Err(CallError::Closed(closed)),
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("Call", f)
    }
}

impl fmt::Debug for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("Notify", f)
    }
}

impl Prepared {
    fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("service", &self.service)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Why a call has no answer. Nothing is ever called again by itself.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The name of the service is none.
    #[error("{0}")]
    Name(#[from] ServiceNameError),
    /// More than a service can be told.
    #[error("{0} bytes are more than a service can be told; send 1 MiB at most")]
    TooLarge(usize),
    /// As much as the client holds is under way already.
    #[error("too many calls are under way; wait for some of them")]
    TooMany,
    /// The relay refused it.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// It was not sent in time: there was no connection, or too many other calls were not answered.
    #[error(
        "the call could not be sent in time, as there is no connection to the relay; try again"
    )]
    NotSent,
    /// It was sent and not answered in time.
    #[error("the service did not answer in time; it may have done what was asked")]
    Timeout,
    /// The link has ended before the answer.
    #[error("the connection broke before the answer; the service may have done what was asked")]
    Interrupted,
    /// The client is closed.
    #[error("the connection is closed: {0}")]
    Closed(Closed),
}

impl CallError {
    /// A stable name for programs and logs, for example `unknown_service`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "bad_service",
            Self::TooLarge(_) => "too_large",
            Self::TooMany => "too_many_calls",
            Self::Refused(refusal) => refusal.code(),
            Self::NotSent => "not_sent",
            Self::Timeout => "timeout",
            Self::Interrupted => "interrupted",
            Self::Closed(_) => "closed",
        }
    }

    /// Whether the same call may work later, and was certainly not carried out. Where it may have been
    /// ([`may_have_been_carried_out`](Self::may_have_been_carried_out)), only the application knows whether once more does harm.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::TooMany | Self::NotSent => true,
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::Name(_)
            | Self::TooLarge(_)
            | Self::Timeout
            | Self::Interrupted
            | Self::Closed(_) => false,
        }
    }

    /// Whether the service may have done what was asked, or a part of it.
    pub fn may_have_been_carried_out(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Interrupted
            | Self::Refused(Refusal::ServiceFailed | Refusal::ServiceTimeout) => true,
            Self::Name(_)
            | Self::TooLarge(_)
            | Self::TooMany
            | Self::Refused(_)
            | Self::NotSent
            | Self::Closed(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_carried_out_is_never_called_retryable() {
        let refusals = [
            Refusal::UnknownService,
            Refusal::ServiceFailed,
            Refusal::ServiceTimeout,
            Refusal::RateLimited,
            Refusal::Unavailable,
        ];
        let others = [
            CallError::TooMany,
            CallError::NotSent,
            CallError::Timeout,
            CallError::Interrupted,
            CallError::Closed(Closed::ByApplication),
        ];
        let all = refusals.map(CallError::Refused).into_iter().chain(others);
        let maybe: Vec<_> = all
            .filter(|error| {
                assert!(!(error.is_retryable() && error.may_have_been_carried_out()));
                error.may_have_been_carried_out()
            })
            .map(|error| error.code())
            .collect();
        assert_eq!(
            maybe,
            [
                "service_failed",
                "service_timeout",
                "timeout",
                "interrupted"
            ]
        );
        assert!(CallError::NotSent.is_retryable() && CallError::TooMany.is_retryable());
    }
}
