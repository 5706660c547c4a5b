//! Drives a link on a socket: one task, from the WebSocket to its end.
//!
//! The task takes what is there, many frames at a time, and then flushes once. A device that does not read is first not read from and then
//! closed.
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::Instrument as _;

use super::{Link, Transmit};
use crate::authority::Bearer;
use crate::bounds::{MAX_BACKLOG_BYTES, MAX_READ_BYTES, MAX_RECORDS_AT_ONCE};
use crate::clock;
use crate::closing::End;
use crate::handshake::{self, Established};
use crate::hub::{Doorbell, Rung};
use crate::listener::{Budget, Unauthenticated, Upgraded};
use crate::refusal;
use crate::remedy;
use crate::shared::Shared;
use crate::socket::{Incoming, Socket};
use crate::spans;

/// A connection that has become a WebSocket and may try to authenticate.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) stream: Upgraded,
    pub(crate) bearer: Option<Bearer>,
    pub(crate) deadline: Instant,
    pub(crate) budget: Budget,
    /// Its share of what its address may have; on an application's port that is the application's business.
    pub(crate) unauthenticated: Unauthenticated,
}

/// Runs a connection to its end.
pub(crate) async fn run(
    admission: Admission,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let Admission {
        stream,
        bearer,
        deadline,
        budget,
        unauthenticated,
    } = admission;
    let mut socket = Socket::new(stream);
    let span = spans::handshake();
    let established = {
        // Boxed, so that what only the handshake needs does not stay for the life of the link.
        let handshake = Box::pin(timeout_at(
            deadline,
            shake_hands(&mut socket, &shared, bearer).instrument(span.clone()),
        ));
        tokio::select! {
            biased;
            established = handshake => established.unwrap_or(Err(End::HandshakeDeadline)),
            _ = stop.wait_for(|stop| *stop) => Err(End::Stopping),
        }
    };
    spans::admitted(&span, &established);
    drop(span);
    let established = match established {
        Ok(established) => established,
        Err(end) => {
            tracing::debug!(
                code = end.label(),
                why = %end,
                remedy = &*remedy::end(&end, &shared),
                "connection did not authenticate"
            );
            shared.metrics.refused(&end);
            // What still comes is thrown away, within a bound of its own.
            budget.lift();
            close(socket, &end).await;
            return;
        }
    };
    budget.lift();
    socket.admit_records();

    let device = refusal::short(&established.link.device());
    let device = device.as_str();
    tracing::debug!(device, "link open");
    // A device that is here has its older link closed for this one.
    let replaces = shared.hub.has(established.link.device().as_bytes());
    let claims = established.link.token().claims();
    let share = match shared.link_share(claims, replaces, clock::now()) {
        Ok(share) => share,
        Err(end) => {
            log_closed(device, &end, &shared);
            shared.metrics.refused(&end);
            close(socket, &end).await;
            return;
        }
    };
    // Only now: whoever is refused a link is one of those that have none, to the end of its connection.
    drop(unauthenticated);
    let metrics = &shared.metrics;
    let open = metrics.link();
    let link = match Link::open(established, Arc::clone(&shared), clock::now()) {
        Ok(link) => link,
        Err(end) => {
            log_closed(device, &end, &shared);
            metrics.closed(&end);
            close(socket, &end).await;
            return;
        }
    };
    let doorbell = Arc::clone(link.doorbell());
    let mut driver = Driver {
        link,
        socket,
        doorbell,
    };
    let end = match driver.serve(&mut stop).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    log_closed(device, &end, &shared);
    metrics.closed(&end);
    // Given back before what its services still do has ended.
    drop((share, open));
    futures_util::future::join(close(driver.socket, &end), driver.link.close()).await;
}

/// What the device is told is a code; the log says why, and what helps.
fn log_closed(device: &str, end: &End, shared: &Shared) {
    tracing::debug!(
        device,
        code = end.label(),
        why = %end,
        remedy = &*remedy::end(end, shared),
        "link closed"
    );
}

async fn close(socket: Socket<Upgraded>, end: &End) {
    if let Some(code) = end.close_code() {
        socket.close(code.code(), code.name()).await;
    }
}

async fn shake_hands(
    socket: &mut Socket<Upgraded>,
    shared: &Shared,
    bearer: Option<Bearer>,
) -> Result<Established, End> {
    let upgrade_token = bearer.map(|bearer| bearer.verified);
    let hello = message(socket).await?;
    let (accepting, accept) = handshake::on_hello(
        shared,
        upgrade_token,
        &hello,
        &mut rand::rng(),
        clock::now(),
    )?;
    socket.queue(accept)?;
    let finish = message(socket).await?;
    accepting.on_finish(shared, &finish, clock::now()).await
}

/// The next binary message; what was queued is flushed meanwhile.
async fn message(socket: &mut Socket<Upgraded>) -> Result<Bytes, End> {
    loop {
        // Pings are answered. What comes is paid for out of the budget of bytes, and does not count against the link.
        let incoming = socket.turn(true).await?;
        socket.take_received();
        if let Some(Incoming::Message(message)) = incoming {
            return Ok(message);
        }
    }
}

struct Driver {
    link: Link,
    socket: Socket<Upgraded>,
    doorbell: Arc<Doorbell>,
}

/// What happened while the link waited.
enum Event {
    Incoming(Incoming),
    Flushed,
    Finished,
    News(Rung),
    Time,
    Stop,
}

impl Driver {
    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Infallible, End> {
        loop {
            self.transmit()?;
            if self.link.has_left() && self.socket.backlog() == 0 {
                return Err(End::Stopping);
            }
            // Before whatever else there is to do, and after the answer to a device that has removed itself.
            if let Some(end) = self.doorbell.end() {
                return Err(end);
            }
            match self.wait(stop).await? {
                Event::Stop => return Err(End::Stopping),
                Event::Time => self.link.handle_timeout(clock::now())?,
                Event::News(rung) => self.link.handle_news(rung)?,
                Event::Finished => {}
                Event::Flushed => {
                    self.link.handle_flushed();
                    // There may be more to send for ever: in between, the device is heard.
                    if self.takes_records()
                        && let Some(incoming) = self.socket.receive_now().await?
                    {
                        self.on_incoming(incoming).await?;
                    }
                }
                Event::Incoming(incoming) => self.on_incoming(incoming).await?,
            }
        }
    }

    fn transmit(&mut self) -> Result<(), End> {
        let now = clock::now();
        loop {
            let room = MAX_READ_BYTES.saturating_sub(self.socket.backlog());
            match self.link.poll_transmit(room, now)? {
                Some(Transmit::Record(record)) => self.socket.queue(record)?,
                Some(Transmit::Ping) => self.socket.queue_ping()?,
                None => return Ok(()),
            }
        }
    }

    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Event, End> {
        let deadline = clock::instant(self.link.deadline(clock::now()));
        // Who does not read is not read from.
        let read = self.takes_records();
        let link = &mut self.link;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(Event::Stop),
            rung = self.doorbell.rung() => Ok(Event::News(rung)),
            finished = poll_fn(|cx| link.poll_finished(clock::now(), cx)) => finished.map(|()| Event::Finished),
            turned = self.socket.turn(read) => Ok(turned?.map_or(Event::Flushed, Event::Incoming)),
            () = sleep_until(deadline) => Ok(Event::Time),
        }
    }

    /// Takes a message and what else has come with it.
    async fn on_incoming(&mut self, first: Incoming) -> Result<(), End> {
        let now = clock::now();
        let mut next = Some(first);
        let mut records = 0;
        while let Some(incoming) = next {
            self.link.handle_bytes(self.socket.take_received(), now);
            match incoming {
                Incoming::Part => {}
                Incoming::Message(record) => {
                    self.link.handle_record(&mut BytesMut::from(record), now)?;
                    records += 1;
                }
                Incoming::Ping => self.link.handle_ping(now)?,
                Incoming::Pong => self.link.handle_pong(now)?,
            }
            let room = records < MAX_RECORDS_AT_ONCE && self.takes_records();
            next = if room {
                self.socket.receive_now().await?
            } else {
                None
            };
        }
        Ok(())
    }

    fn takes_records(&self) -> bool {
        self.link.takes_records() && self.socket.backlog() < MAX_BACKLOG_BYTES
    }
}
