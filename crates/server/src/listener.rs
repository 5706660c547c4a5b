//! Accepts connections and takes each as far as an authenticated link, within one deadline.
//!
//! ```text
//!  accept ── caps ── TLS 1.3 ── HTTP/1.1 ── WebSocket ── link handshake ─▶ link
//!           └────────────── one deadline, one budget of bytes ─────────┘
//! ```
//! A connection is one task from here to its end. What it is before it has authenticated is bounded in time, in bytes, and in
//! number for each address; the deadline's close code is sent only where there is a WebSocket to send it on.
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sealwire_protocol::limits::MAX_HANDSHAKE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::bounds::{
    ACCEPT_BACK_OFF, MAX_HTTP_HEADER_BYTES, MAX_HTTP_HEADERS, MAX_UNAUTHENTICATED_PER_ADDRESS,
    SHUTDOWN_GRACE,
};
use crate::descriptors;
use crate::http;
use crate::link::driver::{self, Admission};
use crate::shared::Shared;
use crate::socket::TooManyUnauthenticatedBytes;

/// Serves `listener` until `stop` turns true, then waits for the connections to end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let max_connections = descriptors::connections();
    let connections = Arc::new(Semaphore::new(max_connections));
    // Without TLS there is a proxy in front, whose address everybody has: sharing out is its business then.
    let addresses = Addresses::new(match tls {
        Some(_) => MAX_UNAUTHENTICATED_PER_ADDRESS,
        None => max_connections,
    });
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            // Reaped as they end, so that the set holds the living only.
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors or memory: others' connections go on, and ending ones make room.
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
                continue;
            }
        };
        let deadline = Instant::now() + shared.settings.handshake_deadline;
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!("connection dropped: {max_connections} are open");
            continue;
        };
        let Some(unauthenticated) = addresses.admit(peer.ip()) else {
            tracing::debug!(
                "connection dropped: its address has too many that have not authenticated"
            );
            continue;
        };
        let tls = tls.clone();
        let shared = Arc::clone(&shared);
        let mut stopped = stop.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let connecting = Box::pin(connect(tcp, tls, &shared, deadline, unauthenticated));
            let admission = tokio::select! {
                biased;
                admission = connecting => admission,
                _ = stopped.wait_for(|stop| *stop) => return,
            };
            if let Some(admission) = admission {
                driver::run(admission, shared, stopped).await;
            }
        });
    }
    drop(listener);
    finish(tasks).await;
}

/// Waits for connections that were told to end.
pub(crate) async fn finish(mut tasks: JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::warn!("connections dropped: they did not end in {SHUTDOWN_GRACE:?}");
        tasks.shutdown().await;
    }
}

/// Takes a connection to its WebSocket. `None` if it does not get there.
async fn connect(
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
    shared: &Arc<Shared>,
    deadline: Instant,
    unauthenticated: Unauthenticated,
) -> Option<Admission> {
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "connection lost");
        return None;
    }
    let budget = Budget::default();
    let tcp = Metered::new(tcp, budget.clone());
    let upgraded = match tls {
        None => timeout_at(deadline, Box::pin(speak_http(tcp, shared, deadline))).await,
        Some(tls) => {
            timeout_at(deadline, async {
                match Box::pin(tls.accept(tcp)).await {
                    Ok(stream) => Box::pin(speak_http(stream, shared, deadline)).await,
                    Err(error) => {
                        tracing::debug!(%error, "TLS handshake failed");
                        None
                    }
                }
            })
            .await
        }
    };
    match upgraded {
        Ok(Some((stream, bearer))) => Some(Admission {
            stream,
            bearer,
            deadline,
            budget,
            unauthenticated: Some(unauthenticated),
        }),
        Ok(None) => None,
        Err(_) => {
            tracing::debug!("connection dropped: not upgraded in time");
            None
        }
    }
}

/// The connection after its upgrade.
pub(crate) type Upgraded = Metered<TokioIo<hyper::upgrade::Upgraded>>;

/// Answers one HTTP request; the connection comes back if it was upgraded.
async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: &Arc<Shared>,
    deadline: Instant,
) -> Option<(Upgraded, Option<crate::authority::Bearer>)> {
    let slot = http::Slot::default();
    let service = service_fn(|request| {
        let (shared, slot) = (Arc::clone(shared), Arc::clone(&slot));
        async move {
            Ok::<_, Infallible>(
                http::answer(
                    request,
                    &shared.settings.origins,
                    &shared.authority,
                    shared.is_writable(),
                    &slot,
                )
                .await,
            )
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(deadline.saturating_duration_since(Instant::now()))
        .max_buf_size(MAX_HTTP_HEADER_BYTES)
        .max_headers(MAX_HTTP_HEADERS);
    if let Err(error) = builder
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await
    {
        tracing::debug!(%error, "HTTP failed");
        return None;
    }
    let upgrade = http::take(&slot)?;
    match upgrade.connection.await {
        // What is below it counts already.
        Ok(connection) => {
            let stream = Metered::new(TokioIo::new(connection), Budget::lifted());
            Some((stream, upgrade.bearer))
        }
        Err(error) => {
            tracing::debug!(%error, "upgrade failed");
            None
        }
    }
}

/// How many bytes a connection may still send before it has authenticated (docs/protocol.md §12).
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<AtomicUsize>);

/// Stands for "authenticated".
const UNBOUNDED: usize = usize::MAX;

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(MAX_HANDSHAKE_BYTES)))
    }
}

impl Budget {
    /// Counts nothing.
    fn lifted() -> Self {
        Self(Arc::new(AtomicUsize::new(UNBOUNDED)))
    }

    /// Ends the counting.
    pub(crate) fn lift(&self) {
        self.0.store(UNBOUNDED, Ordering::Relaxed);
    }

    fn spend(&self, bytes: usize) -> Result<(), TooManyUnauthenticatedBytes> {
        match self.0.load(Ordering::Relaxed) {
            UNBOUNDED => Ok(()),
            left => {
                // Reads and the lifting are one task's, so nothing comes between the load and the store.
                self.0.store(left.saturating_sub(bytes), Ordering::Relaxed);
                if bytes > left {
                    Err(TooManyUnauthenticatedBytes)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// A stream whose bytes count against the budget.
#[derive(Debug)]
pub(crate) struct Metered<S> {
    stream: S,
    budget: Budget,
}

impl<S> Metered<S> {
    pub(crate) fn new(stream: S, budget: Budget) -> Self {
        Self { stream, budget }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        Poll::Ready(self.budget.spend(read).map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Unauthenticated connections by address, and how many of them an address may have.
#[derive(Debug, Clone)]
struct Addresses {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    limit: usize,
}

impl Addresses {
    fn new(limit: usize) -> Self {
        Self {
            counts: Arc::default(),
            limit,
        }
    }

    /// Counts a connection, unless its address has too many.
    fn admit(&self, address: IpAddr) -> Option<Unauthenticated> {
        let address = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_insert(0);
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Unauthenticated {
            addresses: self.clone(),
            address,
        })
    }
}

/// One party's addresses: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

/// A connection's share of its address's allowance, until it has authenticated or ended.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    addresses: Addresses,
    address: IpAddr,
}

impl Drop for Unauthenticated {
    fn drop(&mut self) {
        let mut counts = self
            .addresses
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_refused_past_its_allowance_and_admitted_again_after() {
        let addresses = Addresses::new(3);
        let here = "192.0.2.1".parse().unwrap();
        let mut admitted: Vec<_> = (0..3).map(|_| addresses.admit(here).unwrap()).collect();
        assert!(addresses.admit(here).is_none());
        assert!(addresses.admit("192.0.2.2".parse().unwrap()).is_some());
        admitted.pop();
        assert!(addresses.admit(here).is_some());
        admitted.clear();
        assert!(addresses.counts.lock().unwrap().is_empty());
    }

    #[test]
    fn a_whole_64_of_ipv6_and_a_mapped_ipv4_count_as_one() {
        let of = |address: &str| network(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[test]
    fn the_budget_refuses_the_first_byte_over_it_12() {
        let budget = Budget::default();
        budget.spend(MAX_HANDSHAKE_BYTES).unwrap();
        assert!(budget.spend(1).is_err());
        budget.lift();
        budget.spend(1 << 40).unwrap();
    }
}
