//! One device's link, from its WebSocket to its end: a task that owns everything of it.
//!
//! ```text
//!                    ┌─ records ──▶ open ──▶ frames ──▶ requests ──▶ stores
//!  device ⇄ socket ──┤                                     │ replies
//!                    └─ records ◀── seal ◀── frames ◀──────┴── mailbox window ◀── doorbell (mail, devices, replaced)
//! ```
//! The task takes what is there, many frames at a time, and then seals and flushes once. What waits for a store is a future beside the loop, started in
//! the order of its frames. Everything that could grow has a bound in [`crate::bounds`]; a device that does not read
//! is first not read from and then closed.
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, poll_immediate};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::error::LinkError;
use sealwire_protocol::frame::{Deliver, Ready, ToDevice, ToRelay};
use sealwire_protocol::limits::{CLOCK_TOLERANCE_SECONDS, MAX_OPEN_REQUESTS};
use sealwire_protocol::link::RelayLink;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::authority::Bearer;
use crate::bounds::{
    MAX_BACKLOG_BYTES, MAX_CLOCK_WAIT, MAX_PINGS, MAX_READ_BYTES, MAX_RECORDS_AT_ONCE,
};
use crate::clock;
use crate::closing::End;
use crate::handshake::{self, Established};
use crate::hub::{News, Registration};
use crate::issuer::Minted;
use crate::listener::{Budget, Unauthenticated, Upgraded};
use crate::outbox::Outbox;
use crate::relay::Shared;
use crate::requests::{Outcome, Reply, Requester};
use crate::socket::{Incoming, Socket};
use crate::window::Window;

/// A connection that has become a WebSocket and may try to authenticate.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) stream: Upgraded,
    pub(crate) bearer: Option<Bearer>,
    pub(crate) deadline: Instant,
    pub(crate) budget: Budget,
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
    let established = {
        // Boxed, so that what only the handshake needs does not stay for the life of the link.
        let handshake = Box::pin(timeout_at(
            deadline,
            handshake::perform(&mut socket, &shared, bearer),
        ));
        tokio::select! {
            biased;
            established = handshake => established.unwrap_or(Err(End::HandshakeDeadline)),
            _ = stop.wait_for(|stop| *stop) => Err(End::Stopping),
        }
    };
    let established = match established {
        Ok(established) => established,
        Err(end) => {
            tracing::debug!(%end, "connection did not authenticate");
            // What still comes is thrown away, within a bound of its own.
            budget.lift();
            close(socket, &end).await;
            return;
        }
    };
    budget.lift();
    drop(unauthenticated);
    socket.admit_records();

    let device = established.link.device().to_string();
    // Enough to tell links apart in a log, and no more.
    let device = device.get(..8).unwrap_or_default();
    tracing::debug!(device, "link open");
    let Established { link, minted } = established;
    let mut link = Link::new(link, socket, shared);
    let end = link.drive(minted, &mut stop).await;
    tracing::debug!(device, %end, "link closed");
    let Link {
        socket,
        mut pending,
        registration,
        ..
    } = link;
    drop(registration);
    // What was begun is finished, so that recipients hear of what was stored for them.
    let finish = async { while pending.next().await.is_some() {} };
    futures_util::future::join(close(socket, &end), finish).await;
}

async fn close(socket: Socket<Upgraded>, end: &End) {
    if let Some(code) = end.close_code() {
        socket.close(code.code(), code.name()).await;
    }
}

/// An open link.
#[derive(Debug)]
struct Link {
    socket: Socket<Upgraded>,
    outbox: Outbox,
    requester: Requester,
    registration: Registration,
    window: Window,
    /// What waits for a store.
    pending: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// Requests among it.
    requests: usize,
    acknowledgement: Acknowledgement,
    /// Whether the limits of the mailbox are being stored.
    limits_under_way: bool,
    /// Whether they have changed since.
    limits_wanted: bool,
    /// When the socket began to owe us a complete flush.
    owed_since: Option<Instant>,
    keep_alive: KeepAlive,
}

/// Whether the device is still there.
#[derive(Debug)]
struct KeepAlive {
    next: Instant,
    /// Whether anything came in this period.
    heard: bool,
    /// Whether a ping is unanswered.
    pinged: bool,
    /// Pings of the device's in this period.
    pings: u32,
}

/// The one acknowledgement that is being stored, and what came since.
#[derive(Debug, Default)]
struct Acknowledgement {
    under_way: bool,
    wanted: Option<u64>,
}

/// What happened while the link waited.
enum Event {
    Incoming(Incoming),
    Flushed,
    Finished(Finished),
    News(News),
    Time,
    Stop,
}

/// Something that waited for a store and has ended.
enum Finished {
    Request(Reply),
    Acknowledgement,
    Limits,
}

impl Link {
    /// Enters the device into the hub.
    fn new(link: RelayLink, socket: Socket<Upgraded>, shared: Arc<Shared>) -> Self {
        let keep_alive = shared.keep_alive;
        Self {
            socket,
            outbox: Outbox::default(),
            registration: shared.hub.register(*link.device().as_bytes()),
            requester: Requester::new(link, shared),
            window: Window::default(),
            pending: FuturesUnordered::new(),
            requests: 0,
            acknowledgement: Acknowledgement::default(),
            limits_under_way: false,
            limits_wanted: false,
            owed_since: None,
            keep_alive: KeepAlive {
                next: Instant::now() + keep_alive,
                heard: true,
                pinged: false,
                pings: 0,
            },
        }
    }

    /// Serves the device until the link ends.
    async fn drive(&mut self, minted: Option<Minted>, stop: &mut watch::Receiver<bool>) -> End {
        if let Err(end) = self.greet(minted) {
            return end;
        }
        match self.serve(stop).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    /// Says Ready, and the token if one was minted (docs/protocol.md §3.6, §5.2).
    fn greet(&mut self, minted: Option<Minted>) -> Result<(), End> {
        let device = self.requester.device();
        // A removal between the handshake's look and the hub's entry rang nobody.
        if let Some(issuer) = &self.requester.shared.issuer
            && issuer.is_removed(&device)?
        {
            return Err(End::Revoked);
        }
        // The hub knows the link already, so mail that comes after this look rings.
        let mailbox = self.requester.shared.mailboxes.status(&device)?;
        let published = self.requester.shared.directory.published(&device)?;
        self.window = Window::new(mailbox.acknowledged);
        let token = self.requester.link.token().claims();
        let (user, token_expires) = (token.user.clone(), token.expires);
        self.say(&ToDevice::Ready(Ready {
            device,
            user: user.as_str(),
            time: clock::seconds(),
            token_expires,
            max_message: u32::try_from(self.requester.allowance.max_message_bytes)
                .unwrap_or(u32::MAX),
            has_card: published.has_card,
            prekeys: u8::try_from(published.prekeys).unwrap_or(u8::MAX),
            epoch: mailbox.epoch,
            acknowledged: mailbox.acknowledged,
            head: mailbox.head,
        }))?;
        if let Some(minted) = minted {
            self.answer(&Reply::Token(0, Box::new(minted)))?;
        }
        self.remember_limits();
        Ok(())
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Infallible, End> {
        loop {
            self.deliver()?;
            self.outbox
                .seal(&mut self.requester.link, &mut self.socket)?;
            if self.socket.backlog() > 0 && self.owed_since.is_none() {
                self.owed_since = Some(Instant::now());
            }
            match self.wait(stop).await? {
                Event::Stop => return Err(End::Stopping),
                Event::Time => self.on_time()?,
                Event::News(news) => self.on_news(news)?,
                Event::Finished(finished) => {
                    self.on_finished(finished)?;
                    while let Some(Some(finished)) = poll_immediate(self.pending.next()).await {
                        self.on_finished(finished)?;
                    }
                }
                Event::Flushed => self.owed_since = None,
                Event::Incoming(incoming) => self.on_incoming(incoming).await?,
            }
        }
    }

    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Result<Event, End> {
        let deadline = self.deadline();
        // Who does not read is not read from.
        let read = self.socket.backlog() < MAX_BACKLOG_BYTES;
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => Ok(Event::Stop),
            news = self.registration.doorbell().rung() => Ok(Event::News(news)),
            Some(finished) = self.pending.next(), if !self.pending.is_empty() => Ok(Event::Finished(finished)),
            turned = self.socket.turn(read) => Ok(turned?.map_or(Event::Flushed, Event::Incoming)),
            () = sleep_until(deadline) => Ok(Event::Time),
        }
    }

    /// Takes a message and what else has come with it.
    async fn on_incoming(&mut self, first: Incoming) -> Result<(), End> {
        let mut next = Some(first);
        let mut records = 0;
        while let Some(incoming) = next {
            self.keep_alive.heard = true;
            match incoming {
                Incoming::Message(record) => {
                    self.on_record(record).await?;
                    records += 1;
                }
                Incoming::Ping => {
                    self.keep_alive.pings += 1;
                    if self.keep_alive.pings > MAX_PINGS {
                        return Err(End::TooManyPings);
                    }
                }
                Incoming::Pong => {}
            }
            let room = records < MAX_RECORDS_AT_ONCE && self.socket.backlog() < MAX_BACKLOG_BYTES;
            next = if room {
                self.socket.receive_now().await?
            } else {
                None
            };
        }
        self.acknowledge();
        Ok(())
    }

    async fn on_record(&mut self, record: Bytes) -> Result<(), End> {
        let mut record = BytesMut::from(record);
        let frames = self.requester.link.handle_message(&mut record)?;
        for frame in frames {
            // docs/protocol.md §5: at most 64 open requests.
            if self.requests >= MAX_OPEN_REQUESTS && !matches!(frame, ToRelay::Ack { .. }) {
                return Err(End::TooManyRequests);
            }
            let outcome = match frame {
                ToRelay::Ack { position } => {
                    self.on_ack(position)?;
                    continue;
                }
                ToRelay::Send(send) => self.requester.send(&send).await,
                ToRelay::FetchCards {
                    request,
                    user,
                    take,
                } => self.requester.fetch_cards(request, user, take),
                ToRelay::PublishCard { request, card } => {
                    self.requester.publish_card(request, card)
                }
                ToRelay::PublishPrekeys { request, prekeys } => {
                    self.requester.publish_prekeys(request, &prekeys)
                }
                ToRelay::Refresh {
                    request,
                    proof,
                    token,
                } => {
                    let reply = self.requester.refresh(request, proof, token);
                    if !matches!(reply, Reply::Refused(..)) {
                        self.remember_limits();
                    }
                    Outcome::Answered(reply)
                }
            };
            match outcome {
                Outcome::Answered(reply) => self.answer(&reply)?,
                Outcome::Pending(reply) => {
                    self.requests += 1;
                    self.begin(Box::pin(reply.map(Finished::Request))).await?;
                }
            }
        }
        Ok(())
    }

    /// Starts a future at once, so that stores see requests in the order of their frames, and leaves it beside the loop.
    async fn begin(&mut self, mut future: BoxFuture<'static, Finished>) -> Result<(), End> {
        match poll_immediate(&mut future).await {
            Some(finished) => self.on_finished(finished),
            None => {
                self.pending.push(future);
                Ok(())
            }
        }
    }

    fn on_finished(&mut self, finished: Finished) -> Result<(), End> {
        match finished {
            Finished::Request(reply) => {
                self.requests = self.requests.saturating_sub(1);
                self.answer(&reply)
            }
            Finished::Acknowledgement => {
                self.acknowledgement.under_way = false;
                self.acknowledge();
                Ok(())
            }
            Finished::Limits => {
                self.limits_under_way = false;
                if std::mem::take(&mut self.limits_wanted) {
                    self.remember_limits();
                }
                Ok(())
            }
        }
    }

    fn answer(&mut self, reply: &Reply) -> Result<(), End> {
        match reply.with_frame(|frame| self.say(frame)) {
            // An answer that is not of the protocol's form must not cost the one who asked the link.
            Err(End::Link(LinkError::Misuse(error))) => {
                tracing::error!(%error, "an answer could not be said");
                self.say(&ToDevice::Refused {
                    request: reply.request(),
                    code: RefusalCode::Unavailable,
                })
            }
            said => said,
        }
    }

    fn say(&mut self, frame: &ToDevice<'_>) -> Result<(), End> {
        self.outbox
            .push(frame, &mut self.requester.link, &mut self.socket)
    }

    /// Ack, docs/protocol.md §5.2.
    fn on_ack(&mut self, position: u64) -> Result<(), End> {
        if !self.requester.permissions().receive {
            // A narrower token may overtake the acknowledgement; what it would erase is kept.
            return Ok(());
        }
        if position > self.window.position() {
            let mailbox = self
                .requester
                .shared
                .mailboxes
                .status(&self.requester.device())?;
            if position > mailbox.head {
                return Err(End::AckBeyondMailbox);
            }
        }
        self.window.acknowledged(position);
        self.acknowledgement.wanted = self.acknowledgement.wanted.max(Some(position));
        Ok(())
    }

    /// Has the store erase what is acknowledged: one erasing at a time, for all acknowledgements since the last.
    fn acknowledge(&mut self) {
        if self.acknowledgement.under_way {
            return;
        }
        let Some(position) = self.acknowledgement.wanted.take() else {
            return;
        };
        self.acknowledgement.under_way = true;
        let (shared, device) = (Arc::clone(&self.requester.shared), self.requester.device());
        self.pending.push(Box::pin(async move {
            if let Err(error) = shared
                .mailboxes
                .acknowledge(&device, position, clock::milliseconds())
                .await
            {
                // What is not erased is delivered again, and the device knows it by its id.
                tracing::warn!(%error, "acknowledged mail not erased");
            }
            Finished::Acknowledgement
        }));
    }

    /// Notes how much the device's mailbox may hold by its token, for when it is away: one noting at a time, and the last token wins.
    fn remember_limits(&mut self) {
        if self.limits_under_way {
            self.limits_wanted = true;
            return;
        }
        self.limits_under_way = true;
        let (shared, device) = (Arc::clone(&self.requester.shared), self.requester.device());
        let limits = self.requester.allowance.mailbox;
        self.pending.push(Box::pin(async move {
            if let Err(error) = shared.mailboxes.limit(&device, limits).await {
                tracing::warn!(%error, "limits of a mailbox not stored");
            }
            Finished::Limits
        }));
    }

    /// Moves mail from the mailbox to the outbox, as far as window and socket allow.
    fn deliver(&mut self) -> Result<(), End> {
        if !self.requester.permissions().receive {
            return Ok(());
        }
        while self.socket.backlog() < MAX_READ_BYTES
            && let Some(next) = self.window.next()
        {
            let batch = self.requester.shared.mailboxes.read(
                &self.requester.device(),
                next.after,
                next.messages,
                next.bytes,
            )?;
            for mail in &batch.mail {
                let deliver = ToDevice::Deliver(Deliver {
                    position: mail.position,
                    id: mail.id,
                    user: mail.from_user.as_str(),
                    device: mail.from_device,
                    time: mail.time_millis,
                    message: &mail.message,
                });
                self.say(&deliver)?;
                self.window.sent(mail.position, mail.message.len());
            }
            self.window.read_to(batch.last);
        }
        Ok(())
    }

    fn on_news(&mut self, news: News) -> Result<(), End> {
        if news.has(News::REVOKED) {
            return Err(End::Revoked);
        }
        if news.has(News::REPLACED) {
            return Err(End::Replaced);
        }
        if news.has(News::MAIL) {
            self.window.grown();
        }
        if news.has(News::DEVICES) {
            let user = self.requester.user().clone();
            self.say(&ToDevice::DeviceChanged {
                user: user.as_str(),
            })?;
        }
        Ok(())
    }

    /// The next moment at which something is due.
    fn deadline(&self) -> Instant {
        let next = self.keep_alive.next.min(self.expiry());
        self.owed_since.map_or(next, |since| {
            next.min(since + self.requester.shared.write_timeout)
        })
    }

    /// When the link ends unless it is refreshed, in seconds since 1970: with the tolerance with which the token was accepted.
    fn expires(&self) -> u64 {
        self.requester
            .link
            .token()
            .claims()
            .expires
            .saturating_add(CLOCK_TOLERANCE_SECONDS)
    }

    /// When the token is over, or a later look at the clock is due: the clock of tokens may be set while we wait.
    fn expiry(&self) -> Instant {
        let over = self.expires().saturating_mul(1_000);
        Instant::now()
            + Duration::from_millis(over.saturating_sub(clock::milliseconds())).min(MAX_CLOCK_WAIT)
    }

    fn on_time(&mut self) -> Result<(), End> {
        // docs/protocol.md §5.4
        if clock::seconds() >= self.expires() {
            return Err(End::Expired);
        }
        let now = Instant::now();
        if self
            .owed_since
            .is_some_and(|since| now >= since + self.requester.shared.write_timeout)
        {
            return Err(End::TooSlow);
        }
        if now >= self.keep_alive.next {
            match (self.keep_alive.heard, self.keep_alive.pinged) {
                (true, _) => self.keep_alive.pinged = false,
                (false, false) => {
                    self.socket.queue_ping()?;
                    self.keep_alive.pinged = true;
                }
                (false, true) => return Err(End::Silent),
            }
            self.keep_alive.heard = false;
            self.keep_alive.pings = 0;
            self.keep_alive.next = now + self.requester.shared.keep_alive;
        }
        Ok(())
    }
}
