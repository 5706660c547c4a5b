//! The operator's port: health, readiness and metrics, as HTTP. It names nobody and changes nothing, and it is not for the world: bind it to
//! loopback or a network of one's own.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` | 200, or 503 once a store refuses writes: start the relay again |
//! | `/readyz` | 200, or 503 with what is missing: no device should be sent here now |
//! | `/metrics` | Prometheus' text format 0.0.4 |
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::bounds::{
    ACCEPT_BACK_OFF, ADMIN_IDLE, MAX_ADMIN_CONNECTIONS, MAX_HTTP_HEADER_BYTES, MAX_HTTP_HEADERS,
};
use crate::http;
use crate::shared::{Shared, Unready};

/// Serves until the relay stops.
pub(crate) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MAX_ADMIN_CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let tcp = match accepted {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the operator's");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(
                "the operator's port has {MAX_ADMIN_CONNECTIONS} connections; one more is dropped"
            );
            continue;
        };
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            let _permit = permit;
            speak_http(tcp, shared).await;
        });
    }
    tasks.shutdown().await;
}

async fn speak_http(tcp: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| {
        let answer = answer(&request, &shared);
        async move { Ok::<_, Infallible>(answer) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_IDLE)
        .max_buf_size(MAX_HTTP_HEADER_BYTES)
        .max_headers(MAX_HTTP_HEADERS);
    let served = builder.serve_connection(TokioIo::new(tcp), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "HTTP of the operator's port failed");
    }
}

fn answer<B>(request: &Request<B>, shared: &Shared) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
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
