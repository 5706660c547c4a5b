//! The operator's port: health, readiness and metrics, as HTTP. It names nobody and changes nothing, and it is not for the world: bind it to
//! loopback or a network of one's own.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200, or 503 once a store refuses writes: start the relay again |
//! | `/readyz` | 200, or 503 with what is missing: no device should be sent here now |
//! | `/metrics` | Prometheus' text format 0.0.4 |
use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::bounds::{
    ACCEPT_BACK_OFF, ADMIN_PATIENCE, MAX_ADMIN_CONNECTIONS, MAX_HTTP_HEADER_BYTES, MAX_HTTP_HEADERS,
};
use crate::http;
use crate::shared::{Shared, Unready};

/// Where the operator's connections come from.
pub(crate) trait Door: Send + 'static {
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection; `None`: one that is not let in.
    fn next(&self) -> impl Future<Output = io::Result<Option<Self::Connection>>> + Send;
}

impl Door for TcpListener {
    type Connection = TcpStream;

    async fn next(&self) -> io::Result<Option<TcpStream>> {
        let (tcp, _) = self.accept().await?;
        Ok(Some(tcp))
    }
}

/// Serves the port until the relay stops.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: watch::Receiver<bool>) {
    let answer = move |request: Request<Incoming>| {
        let answer = answer(&request, &shared);
        async move { answer }
    };
    serve_door(&listener, answer, stop).await;
}

/// Gives every request that comes through `door` an answer, until the relay stops.
pub(crate) async fn serve_door<A, F, B>(
    door: &impl Door,
    answer: A,
    mut stop: watch::Receiver<bool>,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_ADMIN_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = door.next() => accepted,
        };
        let connection = match accepted {
            Ok(Some(connection)) => connection,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the operator's");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(
                "the operator has {MAX_ADMIN_CONNECTIONS} connections; one more is dropped"
            );
            continue;
        };
        let answer = answer.clone();
        tasks.spawn(async move {
            let _permit = permit;
            speak_http(connection, answer).await;
        });
    }
    tasks.shutdown().await;
}

async fn speak_http<A, F, B>(
    connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: A,
) where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data: Send, Error: Into<Box<dyn StdError + Send + Sync>>> + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_PATIENCE)
        .max_buf_size(MAX_HTTP_HEADER_BYTES)
        .max_headers(MAX_HTTP_HEADERS);
    let served = builder
        .serve_connection(TokioIo::new(connection), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP of the operator's failed");
    }
}

pub(crate) fn answer<B>(request: &Request<B>, shared: &Shared) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    if is_of_a_page(request.headers()) {
        tracing::debug!("request of a web page to the operator's port refused");
        return text(StatusCode::FORBIDDEN, "not for web pages\n");
    }
    match request.uri().path() {
        path @ ("/healthz" | "/readyz" | "/metrics") if !is_read => {
            tracing::debug!(path, method = %request.method(), "request of the operator's refused");
            text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is possible here\n",
            )
        }
        "/healthz" => http::health(shared.is_writable()),
        "/readyz" => readiness(shared.readiness()),
        "/metrics" => match shared.metrics.text(shared) {
            Ok(metrics) => http::plain(StatusCode::OK, METRICS, metrics.into()),
            Err(error) => {
                tracing::error!(%error, "metrics not written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "metrics not written\n")
            }
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "here are /healthz, /readyz and /metrics\n",
        ),
    }
}

/// Whether a page of a browser asks, which may have been given a name for this address: no monitoring has these fields, nor has a person who types the
/// address in (Fetch Metadata, `Sec-Fetch-Site: none`).
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site");
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != "none")
}

/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

fn readiness(readiness: Result<(), Unready>) -> Response<Full<Bytes>> {
    let (status, name) = match readiness {
        Ok(()) => (StatusCode::OK, "ok"),
        Err(unready) => (StatusCode::SERVICE_UNAVAILABLE, unready.name()),
    };
    let body = format!("{{\"status\":\"{name}\"}}\n");
    http::plain(status, "application/json", body.into())
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    http::plain(status, "text/plain; charset=utf-8", body.into())
}
