//! The relay beside an application's own HTTP, on the application's port: [`HttpService`] answers the requests of devices that the application's server
//! hands on.
//!
//! ```text
//!  application's server ── Request ──▶ HttpService ── as on a port of its own ──▶ 101, or why not
//!                                           │ Arrival: upgrade, token, place, deadline
//!                                           ▼
//!                                        serve: a task for each connection ── WebSocket ── link handshake ─▶ link
//! ```
//! From the request on everything is bounded as on a port of the relay's own. What comes before it is the application's: connections, their addresses,
//! TLS, and how long a request may take.
use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::body::Body;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, RwLock, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::bounds::MAX_ARRIVALS;
use crate::http::{self, RequestBody, Upgrade};
use crate::link::driver::{self, Admission};
use crate::listener::{self, Budget, Doors, Metered, Patience, Unauthenticated};
use crate::shared::Shared;

/// Answers the HTTP requests of devices: a [`tower::Service`], as axum's `route_service("/v1", …)` takes it and hyper's servers do. Clones are the same one.
///
/// The paths are `/v1`, exactly, and for backends `/v1/messages` and `/v1/users/{user}/devices`, as they were sent (axum: `route_service("/v1/{*rest}", …)`); the
/// server must keep connections that are upgraded, as `axum::serve` does, and hyper's with `with_upgrades`. Once the relay
/// has stopped it answers 503.
#[derive(Clone)]
pub struct HttpService {
    /// The relay's stores are closed when it stops, whoever still has this.
    shared: Weak<Shared>,
    doors: Arc<Doors>,
    arrivals: mpsc::Sender<Arrival>,
    /// Held for reading by whoever answers, so that the relay's end waits for them.
    answering: Arc<RwLock<()>>,
}

/// A device whose request was granted.
pub(crate) struct Arrival {
    upgrade: Upgrade,
    deadline: Instant,
    place: OwnedSemaphorePermit,
    unauthenticated: Unauthenticated,
}

impl HttpService {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        arrivals: mpsc::Sender<Arrival>,
        answering: Arc<RwLock<()>>,
    ) -> Self {
        Self {
            shared: Arc::downgrade(shared),
            doors: Arc::new(Doors::new(&shared.settings.connections, false)),
            arrivals,
            answering,
        }
    }

    async fn answer<B: RequestBody>(self, request: Request<B>) -> Response<Full<Bytes>> {
        let _answering = self.answering.read().await;
        // Looked at in this order: see the end of `serve`.
        if self.arrivals.is_closed() {
            return unavailable("the relay stops");
        }
        let Some(shared) = self.shared.upgrade() else {
            return unavailable("the relay has stopped");
        };
        let deadline = Instant::now() + shared.settings.handshake_deadline;
        if shared.draining.borrow().is_some() {
            return unavailable("the relay is being drained");
        }
        let (place, unauthenticated) = match self.doors.admit_any() {
            Ok(place) => place,
            Err(dropped) => {
                tracing::debug!(why = %dropped, remedy = dropped.remedy(), "connection dropped");
                shared.metrics.dropped(dropped);
                return taken_by_nobody();
            }
        };
        let slot = http::Slot::default();
        let patience = Patience::until(deadline);
        let answering = http::answer(request, &shared, &slot, &patience);
        let Some(response) = patience.bound(answering).await else {
            return unavailable("the token could not be looked at in time");
        };
        let Some(upgrade) = http::take(&slot) else {
            return response;
        };
        let arrival = Arrival {
            upgrade,
            deadline,
            place,
            unauthenticated,
        };
        match self.arrivals.try_send(arrival) {
            Ok(()) => response,
            Err(_) => unavailable("the relay stops, or too many devices come at once"),
        }
    }
}

impl<B> tower::Service<Request<B>> for HttpService
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await) })
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpService")
    }
}

fn unavailable(why: &'static str) -> Response<Full<Bytes>> {
    let remedy = "nothing, if it passes: the device comes back by itself";
    tracing::debug!(why, remedy, "request refused");
    taken_by_nobody()
}

fn taken_by_nobody() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(
        b"the relay takes no devices now\n",
    )));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Where granted requests wait for [`serve`].
pub(crate) fn arrivals() -> (mpsc::Sender<Arrival>, mpsc::Receiver<Arrival>) {
    mpsc::channel(MAX_ARRIVALS)
}

/// Serves what arrives until `stop` turns true, then waits for the connections to end.
pub(crate) async fn serve(
    mut arrivals: mpsc::Receiver<Arrival>,
    answering: Arc<RwLock<()>>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tasks = JoinSet::new();
    let mut open = true;
    let mut draining = shared.draining.subscribe();
    loop {
        let arrival = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = draining.wait_for(Option::is_some) => break,
            // Reaped as they end, so that the set holds the living only.
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            arrival = arrivals.recv(), if open => arrival,
        };
        match arrival {
            Some(arrival) => {
                let (shared, stopped) = (Arc::clone(&shared), stop.clone());
                tasks.spawn(connection(arrival, shared, stopped));
            }
            // Nobody has the service any more; those who came stay.
            None => open = false,
        }
    }
    drop(arrivals);
    listener::finish(tasks, stop).await;
    // Whoever answers now has the stores; whoever comes later finds the door closed.
    drop(answering.write().await);
}

async fn connection(arrival: Arrival, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let Arrival {
        upgrade,
        deadline,
        place: _place,
        unauthenticated,
    } = arrival;
    let _open = shared.metrics.connection();
    let Upgrade { connection, bearer } = upgrade;
    let connection = match timeout_at(deadline, connection).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "upgrade failed");
            return;
        }
        Err(_) => {
            tracing::debug!("connection dropped: not upgraded in time");
            return;
        }
    };
    let budget = Budget::default();
    let admission = Admission {
        stream: Metered::new(TokioIo::new(connection), budget.clone()),
        bearer,
        deadline,
        budget,
        unauthenticated,
    };
    driver::run(admission, shared, stop).await;
}
