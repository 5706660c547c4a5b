//! Accepts connections and takes each as far as an authenticated link, within one deadline.
//!
//! ```text
//!  accept ── caps ── TLS 1.3 ── HTTP/1.1 ── WebSocket ── link handshake ─▶ link
//!           └────────────── one deadline, one budget of bytes ─────────┘
//! ```
//! A connection is one task from here to its end. What it is before it has authenticated is bounded in time, in bytes, and in
//! number for each address; the deadline's close code is sent only where there is a WebSocket to send it on.
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sealwire_protocol::limits::MAX_HANDSHAKE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;

use crate::bounds::{
    ACCEPT_BACK_OFF, CONNECTIONS_PER_MILLISECOND, MAX_HTTP_HEADER_BYTES, MAX_HTTP_HEADERS,
    SHUTDOWN_GRACE,
};
use crate::clock;
use crate::http;
use crate::link::driver::{self, Admission};
use crate::metrics::Dropped;
use crate::now::Now;
use crate::policy::{ConnectionLimits, Rates};
use crate::shared::Shared;
use crate::shares::{Share, Shares};
use crate::socket::TooManyUnauthenticatedBytes;

/// Serves `listener` until `stop` turns true, then waits for the connections to end.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let doors = Doors::new(&shared.settings.connections, tls.is_some());
    let mut tasks = JoinSet::new();
    let mut draining = shared.draining.subscribe();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut pace = Pace::new(CONNECTIONS_PER_MILLISECOND * processors);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = draining.wait_for(Option::is_some) => break,
            // Reaped as they end, so that the set holds the living only.
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            accepted = async {
                pace.turn().await;
                listener.accept().await
            } => accepted,
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
        let (permit, unauthenticated) = match doors.admit(peer.ip(), clock::now()) {
            Ok(admitted) => admitted,
            Err(dropped) => {
                tracing::debug!(why = %dropped, remedy = dropped.remedy(), "connection dropped");
                shared.metrics.dropped(dropped);
                continue;
            }
        };
        pace.taken();
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "connection lost");
            continue;
        }
        let tls = tls.clone();
        let shared = Arc::clone(&shared);
        let mut stopped = stop.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let _open = shared.metrics.connection();
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
    finish(tasks, stop).await;
}

/// How many connections are let in within a millisecond. Thousands that come at once, and have to go at once when their time is over, would otherwise all stand
/// between the links and their turn.
#[derive(Debug)]
struct Pace {
    each: usize,
    left: usize,
    /// When there are so many again.
    next: Instant,
}

impl Pace {
    fn new(each: usize) -> Self {
        Self {
            each,
            left: each,
            next: Instant::now(),
        }
    }

    /// Waits until there may be one more.
    async fn turn(&mut self) {
        if self.left == 0 {
            sleep_until(self.next).await;
        }
        let now = Instant::now();
        if now >= self.next {
            self.left = self.each;
            self.next = now + Duration::from_millis(1);
        }
    }

    /// There is one more.
    fn taken(&mut self) {
        self.left = self.left.saturating_sub(1);
    }
}

/// Waits for connections to end: for as long as they leave in turn, and a little longer once `stop` turns true.
pub(crate) async fn finish(mut tasks: JoinSet<()>, mut stop: watch::Receiver<bool>) {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => {}
        () = async { while tasks.join_next().await.is_some() {} } => {}
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(SHUTDOWN_GRACE, all).await.is_err() {
        tracing::warn!("connections dropped: they did not end in {SHUTDOWN_GRACE:?}");
        tasks.shutdown().await;
    }
}

/// Who is let in as far as the handshake.
#[derive(Debug)]
pub(crate) struct Doors {
    connections: Arc<Semaphore>,
    unauthenticated: Arc<Semaphore>,
    /// What each address has and does. `None` without TLS: there is a proxy in front then, whose address everybody has, and sharing out is its business.
    addresses: Option<(Shares<IpAddr>, Rates<IpAddr>)>,
    per_minute: u64,
}

/// A connection's place among those that have not authenticated, until it has or has ended.
#[derive(Debug)]
pub(crate) struct Unauthenticated {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share<IpAddr>>,
}

impl Doors {
    pub(crate) fn new(limits: &ConnectionLimits, by_address: bool) -> Self {
        Self {
            connections: semaphore(limits.connections),
            unauthenticated: semaphore(limits.unauthenticated.min(limits.connections)),
            addresses: by_address.then(|| {
                let shares = Shares::new(limits.unauthenticated_per_address);
                (shares, Rates::default())
            }),
            per_minute: limits.per_minute,
        }
    }

    /// A place for a connection, whoever's it is.
    pub(crate) fn admit_any(&self) -> Result<(OwnedSemaphorePermit, Unauthenticated), Dropped> {
        self.place(None)
    }

    fn admit(
        &self,
        address: IpAddr,
        now: Now,
    ) -> Result<(OwnedSemaphorePermit, Unauthenticated), Dropped> {
        let address = network(address);
        let share = match &self.addresses {
            None => None,
            Some((shares, rates)) => {
                // Before the rate, so that whoever waits with many does not use it up.
                let share = shares.take(address, false).ok_or(Dropped::Address)?;
                rates
                    .take(&address, self.per_minute, now.steady_millis)
                    .map_err(|_| Dropped::Rate)?;
                Some(share)
            }
        };
        self.place(share)
    }

    fn place(
        &self,
        share: Option<Share<IpAddr>>,
    ) -> Result<(OwnedSemaphorePermit, Unauthenticated), Dropped> {
        let permit = |of: &Arc<Semaphore>| Arc::clone(of).try_acquire_owned();
        let connection = permit(&self.connections).map_err(|_| Dropped::Full)?;
        let unauthenticated = Unauthenticated {
            _permit: permit(&self.unauthenticated).map_err(|_| Dropped::Unauthenticated)?,
            _share: share,
        };
        Ok((connection, unauthenticated))
    }
}

fn semaphore(permits: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(permits.clamp(1, Semaphore::MAX_PERMITS)))
}

/// Takes a connection to its WebSocket. `None` if it does not get there.
async fn connect(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tls: Option<TlsAcceptor>,
    shared: &Arc<Shared>,
    deadline: Instant,
    unauthenticated: Unauthenticated,
) -> Option<Admission> {
    let patience = Patience::until(deadline);
    let stream = Metered::new(stream, patience.budget.clone());
    let speaking = async {
        match tls {
            None => Box::pin(speak_http(stream, shared, &patience)).await,
            Some(tls) => match Box::pin(tls.accept(stream)).await {
                Ok(stream) => Box::pin(speak_http(stream, shared, &patience)).await,
                Err(error) => {
                    tracing::debug!(%error, "TLS handshake failed");
                    None
                }
            },
        }
    };
    match patience.bound(speaking).await {
        Some(Some((stream, bearer))) => Some(Admission {
            stream,
            bearer,
            deadline: patience.deadline(),
            budget: patience.budget,
            unauthenticated,
        }),
        Some(None) => None,
        None => {
            tracing::debug!("connection dropped: neither upgraded nor asked for anything in time");
            None
        }
    }
}

/// The connection after its upgrade.
pub(crate) type Upgraded = Metered<TokioIo<hyper::upgrade::Upgraded>>;

/// Answers HTTP requests; the connection comes back if it was upgraded. All but those of devices that are known end it.
async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: &Arc<Shared>,
    patience: &Patience,
) -> Option<(Upgraded, Option<crate::authority::Bearer>)> {
    let slot = http::Slot::default();
    let service = service_fn(|request| {
        let (shared, slot) = (Arc::clone(shared), Arc::clone(&slot));
        let patience = patience.clone();
        async move { Ok::<_, Infallible>(http::answer(request, &shared, &slot, &patience).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.settings.handshake_deadline)
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

/// For how long, and for how many bytes, a connection is listened to that is no link yet. Each request of a device that is known gets it some more.
#[derive(Debug, Clone)]
pub(crate) struct Patience {
    deadline: watch::Sender<Instant>,
    budget: Budget,
}

impl Patience {
    /// That of a connection of nobody in particular.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self {
            deadline: watch::Sender::new(deadline),
            budget: Budget::default(),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        *self.deadline.borrow()
    }

    /// So much from now on, whatever there was.
    pub(crate) fn extend(&self, bytes: usize, time: Duration) {
        self.budget.grant(bytes);
        self.deadline.send_replace(Instant::now() + time);
    }

    /// As for a new connection.
    pub(crate) fn renew(&self, time: Duration) {
        self.extend(MAX_HANDSHAKE_BYTES, time);
    }

    /// What `future` comes to, or `None` when it takes longer.
    pub(crate) async fn bound<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        let mut changes = self.deadline.subscribe();
        loop {
            let deadline = *changes.borrow_and_update();
            tokio::select! {
                biased;
                done = &mut future => return Some(done),
                // Its sender is here, so it is never an error.
                _ = changes.changed() => {}
                () = sleep_until(deadline) => return None,
            }
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

    /// Counts from here.
    fn grant(&self, bytes: usize) {
        self.0.store(bytes, Ordering::Relaxed);
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

/// One party's addresses: an IPv4 address, or a /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use sealwire_protocol::key::SigningKey;
    use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
    use tokio_tungstenite::client_async;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

    use super::*;
    use crate::mail::Mailboxes;
    use crate::shared::{Issuing, Settings};
    use crate::storage::Storage;

    /// How often a slow device sends something.
    const NOW_AND_THEN: Duration = Duration::from_millis(400);

    /// The relay with which nothing was set, and a connection to it, served to its end.
    fn connection() -> (DuplexStream, impl Future<Output = ()>) {
        let mut rng = rand::rng();
        let shared = Arc::new(Shared::new(
            SigningKey::generate(&mut rng),
            Issuing::BuiltIn(Box::new(SigningKey::generate(&mut rng)), None),
            Storage::in_memory().unwrap(),
            Mailboxes::in_memory().unwrap(),
            Settings::default(),
        ));
        let (device, relay) = duplex(64 << 10);
        let serving = async move {
            let (_permit, unauthenticated) = doors(|_| ()).admit_any().unwrap();
            let deadline = Instant::now() + shared.settings.handshake_deadline;
            let (_stop, stopped) = watch::channel(false);
            let connecting = connect(relay, None, &shared, deadline, unauthenticated);
            if let Some(admission) = connecting.await {
                driver::run(admission, Arc::clone(&shared), stopped).await;
            }
        };
        (device, serving)
    }

    fn is_five_seconds(elapsed: Duration) -> bool {
        (5_000..5_010).contains(&elapsed.as_millis())
    }

    // docs/protocol.md §3.1
    #[tokio::test(start_paused = true)]
    async fn request_that_comes_byte_by_byte_ends_after_5_seconds_all_the_same() {
        let (mut device, serving) = connection();
        let began = Instant::now();
        let dripping = async {
            let request = b"GET /v1 HTTP/1.1\r\nhost: relay.example\r\nx: ";
            for byte in request.iter().chain(std::iter::repeat(&b'y')) {
                device.write_all(&[*byte]).await.unwrap();
                tokio::time::sleep(NOW_AND_THEN).await;
            }
        };
        tokio::select! {
            () = serving => {}
            () = dripping => {}
        }
        assert!(is_five_seconds(began.elapsed()), "{:?}", began.elapsed());
    }

    // docs/protocol.md §3.1
    #[tokio::test(start_paused = true)]
    async fn websocket_that_pings_and_does_not_authenticate_ends_after_5_seconds_all_the_same() {
        let (device, serving) = connection();
        let began = Instant::now();
        let pinging = async {
            let mut request = "ws://localhost/v1".into_client_request().unwrap();
            let subprotocol = "sealwire.v1".parse().unwrap();
            let headers = request.headers_mut();
            headers.insert("sec-websocket-protocol", subprotocol);
            let (mut socket, _) = client_async(request, device).await.unwrap();
            let mut pongs = 0;
            loop {
                match timeout(NOW_AND_THEN, socket.next()).await {
                    Err(_) => socket.send(Message::Ping("x".into())).await.unwrap(),
                    Ok(Some(Ok(Message::Pong(_)))) => pongs += 1,
                    Ok(Some(Ok(Message::Close(Some(frame))))) => {
                        return (u16::from(frame.code), pongs, began.elapsed());
                    }
                    Ok(other) => panic!("unexpected {other:?}"),
                }
            }
        };
        let ((code, pongs, elapsed), ()) = tokio::join!(pinging, serving);
        assert_eq!((code, pongs), (4003, 12));
        assert!(is_five_seconds(elapsed), "{elapsed:?}");
    }

    fn doors(change: impl FnOnce(&mut ConnectionLimits)) -> Doors {
        let mut limits = ConnectionLimits::default();
        change(&mut limits);
        Doors::new(&limits, true)
    }

    fn now() -> Now {
        Now {
            millis: 0,
            steady_millis: 1_000,
        }
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn each_limit_drops_what_is_over_it_and_says_which() {
        let full = doors(|limits| limits.connections = 1);
        let busy = doors(|limits| limits.unauthenticated = 1);
        let crowded = doors(|limits| limits.unauthenticated_per_address = 1);
        let rushed = doors(|limits| limits.per_minute = 1);
        for (doors, second, dropped) in [
            (full, 2, Dropped::Full),
            (busy, 2, Dropped::Unauthenticated),
            (crowded, 1, Dropped::Address),
            (rushed, 1, Dropped::Rate),
        ] {
            let first = doors.admit(address(1), now()).unwrap();
            assert_eq!(doors.admit(address(second), now()).unwrap_err(), dropped);
            let others = doors.admit(address(3), now());
            let is_everybodys = matches!(dropped, Dropped::Full | Dropped::Unauthenticated);
            assert_eq!(others.is_err(), is_everybodys, "{dropped}");
            drop(first);
        }
    }

    #[test]
    fn who_has_authenticated_makes_room_for_another() {
        let doors = doors(|limits| {
            limits.unauthenticated = 1;
            limits.unauthenticated_per_address = 1;
        });
        let (_connection, unauthenticated) = doors.admit(address(1), now()).unwrap();
        drop(unauthenticated);
        assert!(doors.admit(address(1), now()).is_ok());
    }

    #[test]
    fn behind_a_proxy_addresses_are_not_told_apart() {
        let mut limits = ConnectionLimits::default();
        (limits.unauthenticated_per_address, limits.per_minute) = (1, 1);
        let doors = Doors::new(&limits, false);
        let admitted: Vec<_> = (0..10).map(|_| doors.admit(address(1), now())).collect();
        assert!(admitted.iter().all(Result::is_ok));
    }

    #[test]
    fn a_whole_64_of_ipv6_and_a_mapped_ipv4_count_as_one() {
        let of = |address: &str| network(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_let_in_within_a_millisecond_and_what_is_turned_away_does_not_count() {
        let mut pace = Pace::new(3);
        let begun = Instant::now();
        for number in 0..10_u64 {
            pace.turn().await;
            pace.turn().await;
            assert_eq!(begun.elapsed(), Duration::from_millis(number / 3));
            pace.taken();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let later = Instant::now();
        for _ in 0..3 {
            pace.turn().await;
            pace.taken();
        }
        assert_eq!(later.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_when_it_is_not_extended() {
        let second = Duration::from_secs(1);
        let patience = Patience::until(Instant::now() + second);
        let never = std::future::pending::<()>;
        assert_eq!(patience.bound(never()).await, None);
        patience.extend(7, 2 * second);
        let extending = async {
            tokio::time::sleep(second).await;
            patience.renew(3 * second);
            tokio::time::sleep(2 * second).await;
        };
        assert_eq!(patience.bound(extending).await, Some(()));
        assert!(patience.budget.spend(MAX_HANDSHAKE_BYTES).is_ok());
        assert_eq!(patience.bound(never()).await, None);
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
