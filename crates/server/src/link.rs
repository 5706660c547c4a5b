//! One device's link, from its Ready to its end, without socket, clock or runtime.
//!
//! ```text
//!  handle_record ──▶ open ──▶ frames ──▶ requests ──▶ stores ──▶ futures, polled by poll_finished
//!                                           │ replies               │
//!                                           │                       │◀── calls of services, pushes
//!  poll_transmit ◀── seal ◀── frames ◀──────┴───────────────────────┘◀── mailbox window ◀── handle_news (mail, devices, replaced)
//!  handle_timeout, deadline: pings, the token's end
//! ```
//! Whoever drives it, a task with a socket ([`driver`]) or a simulation, gives it what came and takes what there is to send. After every
//! `handle_…` and `poll_finished`, drain [`Link::poll_transmit`] and ask for [`Link::deadline`] again. Every error is the end of the link.
//! Everything that could grow has a bound in [`crate::bounds`], of which one is the driver's to keep: while
//! [`Link::takes_records`] is false, or much is queued at the socket, no record is read.
mod calls;
pub(crate) mod driver;
mod keep_alive;
mod outbox;
pub(crate) mod throttle;
mod window;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::error::LinkError;
use sealwire_protocol::frame::{
    Call as CallFrame, Deliver, Push, Ready, RequestId, Send as SendFrame, ToDevice, ToRelay,
    Undelivered, UndeliveredReason,
};
use sealwire_protocol::limits::{CLOCK_TOLERANCE_SECONDS, EXPIRING_SECONDS, MAX_OPEN_REQUESTS};
use tracing::{Instrument as _, Span};

use crate::bounds::{MAX_BACKLOG_BYTES, MAX_CLOCK_WAIT_MILLIS, MAX_WAITING_BYTES};
use crate::closing::End;
use crate::handshake::Established;
use crate::hub::{Doorbell, News, Rung};
use crate::issuer::Minted;
use crate::mail::{self, Accepted, Delivery};
use crate::now::Now;
use crate::requests::{Letter, Outcome, Reply, Requester, Sending};
use crate::shared::Shared;
use crate::spans;
use crate::storage::StorageError;
use calls::{Answer, Answered, Calls};
use keep_alive::{Due, KeepAlive};
use outbox::Outbox;
use throttle::Throttle;
use window::Window;

/// An open link.
#[derive(Debug)]
pub(crate) struct Link {
    requester: Requester,
    outbox: Outbox,
    window: Window,
    keep_alive: KeepAlive,
    ping_due: bool,
    /// What waits for a store.
    pending: FuturesUnordered<Waiting>,
    /// Requests among it, and the bytes that came with them.
    requests: usize,
    waiting_bytes: usize,
    /// Calls of services.
    calls: Calls,
    /// Whether mail goes before what is pushed, the next time.
    mail_first: bool,
    /// Sends for which there was no room, in their order.
    letters: VecDeque<(Box<Letter>, Span)>,
    /// The position that the device has acknowledged since the last record was opened.
    acknowledged: Option<u64>,
    /// The hash of the token of which the device was told that it expires.
    warned: Option<[u8; 32]>,
    leaving: Leaving,
    throttle: Throttle,
    /// When the link is read again, in [`Now::steady_millis`], if its device, or others of its user or tenant, have sent too fast.
    reads_at: Option<u64>,
}

/// Whether the link is to end because the relay is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    Not,
    /// At this moment, in [`Now::steady_millis`].
    At(u64),
    /// As soon as everything that was begun is answered.
    Now,
}

/// Something that waited for a store and has ended.
enum Finished {
    Request(Reply, usize),
    /// A Send is safe, or the mailboxes have failed.
    Send(RequestId, Result<(), StorageError>),
    /// There may be room for letters.
    Room,
}

/// What waits for a store. Sends are too many for a box each.
enum Waiting {
    Send(RequestId, Accepted, Span),
    Other(BoxFuture<'static, Finished>),
}

impl Future for Waiting {
    type Output = Finished;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        match self.get_mut() {
            Self::Send(request, accepted, span) => accepted.poll_unpin(cx).map(|accepted| {
                match accepted {
                    Ok(()) => spans::outcome(span, None),
                    Err(error) => spans::ended(span, &End::from(error)),
                }
                Finished::Send(*request, accepted)
            }),
            Self::Other(future) => future.poll_unpin(cx),
        }
    }
}

/// What there is to send.
#[derive(Debug)]
pub(crate) enum Transmit {
    /// A binary message.
    Record(Vec<u8>),
    /// A ping.
    Ping,
}

impl Link {
    /// Enters the device into the hub, and says Ready and the token, if one was minted (docs/protocol.md §3.6, §5.2).
    pub(crate) fn open(
        established: Established,
        shared: Arc<Shared>,
        now: Now,
    ) -> Result<Self, End> {
        let Established { link, minted } = established;
        let throttle = shared
            .throttles
            .of(link.token().claims(), now.steady_millis)?;
        let keep_alive = KeepAlive::new(
            shared.settings.keep_alive,
            shared.settings.write_timeout,
            now.steady_millis,
        );
        let mut link = Self {
            requester: Requester::new(link, shared),
            outbox: Outbox::default(),
            window: Window::default(),
            keep_alive,
            ping_due: false,
            pending: FuturesUnordered::new(),
            requests: 0,
            waiting_bytes: 0,
            calls: Calls::new(),
            mail_first: true,
            letters: VecDeque::new(),
            acknowledged: None,
            warned: None,
            leaving: Leaving::Not,
            throttle,
            reads_at: None,
        };
        // Whoever was ahead before still is.
        link.count(0, 0, now);
        link.greet(minted, now)?;
        link.leave_in_turn();
        Ok(link)
    }

    fn greet(&mut self, minted: Option<Minted>, now: Now) -> Result<(), End> {
        let device = self.requester.device();
        // What has changed between the handshake's look and the hub's entry rang nobody.
        self.requester.admit()?;
        // The hub knows the link already, so mail that comes after this look rings.
        let mailboxes = &self.requester.shared.mailboxes;
        mailboxes.limit(&device, self.requester.allowance.mailbox);
        let (mailbox, sent) = (mailboxes.status(&device), mailboxes.sent(&device));
        let published = self.requester.shared.directory.published(&device)?;
        self.window = Window::new(mailbox.acknowledged);
        let token = self.requester.link.token().claims();
        let (user, token_expires) = (token.user.clone(), token.expires);
        self.say(&ToDevice::Ready(Ready {
            device,
            user: user.as_str(),
            time: now.seconds(),
            token_expires,
            max_message: u32::try_from(self.requester.allowance.max_message_bytes)
                .unwrap_or(u32::MAX),
            has_card: published.has_card,
            prekeys: u8::try_from(published.prekeys).unwrap_or(u8::MAX),
            epoch: mailbox.epoch,
            acknowledged: mailbox.acknowledged,
            head: mailbox.head,
            sent,
            waiting: u32::try_from(mailbox.waiting).unwrap_or(u32::MAX),
        }))?;
        if let Some(minted) = minted {
            self.answer(&Reply::Token(0, Box::new(minted)))?;
        }
        self.warn(now)
    }

    /// Says once of each token that it is about to expire (docs/protocol.md §5.4).
    fn warn(&mut self, now: Now) -> Result<(), End> {
        let token = self.requester.link.token();
        let (hash, expires) = (*token.hash(), token.claims().expires);
        if self.warned == Some(hash) || now.seconds() < self.expiring() {
            return Ok(());
        }
        self.warned = Some(hash);
        self.say(&ToDevice::Expiring { expires })
    }

    /// When the device is told that its token expires, in seconds since 1970: a token that does not live long is not asked for again right away.
    fn expiring(&self) -> u64 {
        let claims = self.requester.link.token().claims();
        let life = claims.expires.saturating_sub(claims.issued);
        claims
            .expires
            .saturating_sub(EXPIRING_SECONDS.min(life / 4))
    }

    /// So many bytes came from the socket, whatever is in them. To be called before what was in them is handled.
    pub(crate) fn handle_bytes(&mut self, bytes: usize, now: Now) {
        if bytes > 0 {
            self.count(0, bytes as u64, now);
        }
    }

    /// Reads later if that was too fast.
    fn count(&mut self, frames: u64, bytes: u64, now: Now) {
        let (allowance, time) = (&self.requester.allowance, now.steady_millis);
        let reads_at = self.throttle.spend(frames, bytes, allowance, time);
        if reads_at.is_some() && self.reads_at.is_none() {
            self.requester.shared.metrics.throttled();
        }
        self.reads_at = reads_at;
    }

    /// Takes a binary message, and opens it in place.
    pub(crate) fn handle_record(&mut self, record: &mut [u8], now: Now) -> Result<(), End> {
        self.keep_alive.heard(now.steady_millis);
        let mut frames = 0;
        for frame in self.requester.link.handle_message(record)? {
            frames += 1;
            self.on_frame(frame, now)?;
        }
        self.acknowledge();
        self.count(frames, 0, now);
        Ok(())
    }

    /// A ping came; whoever drives the link has answered it.
    pub(crate) fn handle_ping(&mut self, now: Now) -> Result<(), End> {
        self.keep_alive.pinged(now.steady_millis)
    }

    /// The answer to a ping came.
    pub(crate) fn handle_pong(&mut self, now: Now) -> Result<(), End> {
        self.keep_alive.ponged(now.steady_millis)
    }

    /// The socket has taken all that was given to it.
    pub(crate) fn handle_flushed(&mut self) {
        self.keep_alive.flushed();
    }

    /// Takes what [`Link::doorbell`] had to say.
    pub(crate) fn handle_news(&mut self, rung: Rung) -> Result<(), End> {
        if let Some(end) = rung.news.end() {
            return Err(end);
        }
        if rung.news.has(News::REVOCATIONS) && self.requester.is_revoked() {
            return Err(End::Revoked);
        }
        if rung.news.has(News::OWNER) {
            self.requester.admit()?;
        }
        if rung.news.has(News::WITHDRAWN) {
            return Err(End::Withdrawn);
        }
        if rung.news.has(News::MAIL) {
            self.window.grown();
        }
        if rung.news.has(News::LEAVING) {
            self.leave_in_turn();
        }
        if rung.news.has(News::DEVICES) {
            let user = self.requester.user().clone();
            self.say(&ToDevice::DeviceChanged {
                user: user.as_str(),
            })?;
        }
        let changed = if rung.news.has(News::ANY_OTHER) {
            self.requester.registration.watched().cloned().collect()
        } else {
            rung.changed
        };
        for user in changed {
            // A narrower token may not allow it any more.
            if self.requester.sender().permitted(&user).is_ok() {
                self.say(&ToDevice::DeviceChanged { user: &user })?;
            }
        }
        Ok(())
    }

    /// Where others leave news for this link.
    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        self.requester.registration.doorbell()
    }

    /// The link leaves at its moment, if the relay is being drained.
    fn leave_in_turn(&mut self) {
        let draining = *self.requester.shared.draining.borrow();
        if let (Leaving::Not, Some(draining)) = (self.leaving, draining) {
            self.leaving = Leaving::At(draining.leaves_at(&self.requester.device()));
        }
    }

    /// Whether the link has nothing more to say, and is to be closed once everything is sent.
    pub(crate) fn has_left(&self) -> bool {
        self.leaving == Leaving::Now && self.requests == 0 && self.outbox.bytes() == 0
    }

    fn leave(&mut self, now: Now) -> Result<(), End> {
        self.leaving = Leaving::Now;
        let Some(draining) = *self.requester.shared.draining.borrow() else {
            return Ok(());
        };
        let after = draining.stays_away(&self.requester.device(), now);
        self.say(&ToDevice::Leaving {
            after: u32::try_from(after).unwrap_or(u32::MAX),
        })
    }

    /// Looks at the time.
    pub(crate) fn handle_timeout(&mut self, now: Now) -> Result<(), End> {
        if self.reads_at.is_some_and(|at| now.steady_millis >= at) {
            self.reads_at = None;
        }
        if let Leaving::At(moment) = self.leaving
            && now.steady_millis >= moment
        {
            self.leave(now)?;
        }
        // docs/protocol.md §5.4
        if now.seconds() >= self.expires() {
            return Err(End::Expired);
        }
        self.warn(now)?;
        if !self.takes_records() {
            // It is not read, so what it says is not heard.
            self.keep_alive.heard(now.steady_millis);
        }
        match self.keep_alive.check(now.steady_millis)? {
            Due::Nothing => {}
            Due::Ping => self.ping_due = true,
        }
        Ok(())
    }

    /// When [`Link::handle_timeout`] is to be called, in [`Now::steady_millis`].
    pub(crate) fn deadline(&self, now: Now) -> u64 {
        // The clock of tokens may be set while we wait, so it is looked at again and again.
        let expiry = self.token_due().saturating_mul(1_000);
        let expiry = expiry.saturating_sub(now.millis).min(MAX_CLOCK_WAIT_MILLIS);
        let leaves_at = match self.leaving {
            Leaving::At(moment) => moment,
            Leaving::Not | Leaving::Now => u64::MAX,
        };
        self.keep_alive
            .deadline()
            .min(now.steady_millis.saturating_add(expiry))
            .min(leaves_at)
            .min(self.reads_at.unwrap_or(u64::MAX))
    }

    /// When the token is the next thing to look at, in seconds since 1970.
    fn token_due(&self) -> u64 {
        let token = self.requester.link.token();
        if self.warned == Some(*token.hash()) {
            self.expires()
        } else {
            self.expiring()
        }
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

    /// Polls what waits for a store or a service. Ready: something has ended, or was pushed, and more may.
    pub(crate) fn poll_finished(
        &mut self,
        now: Now,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), End>> {
        let mut some = false;
        while let Poll::Ready(Some(finished)) = self.pending.poll_next_unpin(cx) {
            some = true;
            if let Err(end) = self.on_finished(finished, now) {
                return Poll::Ready(Err(end));
            }
        }
        while let Poll::Ready(answered) = self.calls.poll_answered(cx) {
            some = true;
            if let Err(end) = self.on_answered(answered) {
                return Poll::Ready(Err(end));
            }
        }
        some |= self.calls.poll_ended(cx);
        some |= self.requester.pushes.poll_grown(cx);
        if some {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }

    /// The next thing to send, if there is one. Mail is taken out of the mailbox, and what services say is taken, while less than `room` bytes are on
    /// their way out of here; other answers come whatever the room.
    pub(crate) fn poll_transmit(&mut self, room: usize, now: Now) -> Result<Option<Transmit>, End> {
        let transmit = if std::mem::take(&mut self.ping_due) {
            Some(Transmit::Ping)
        } else {
            self.fill(room, now)?;
            self.outbox
                .next(&mut self.requester.link)?
                .map(Transmit::Record)
        };
        if transmit.is_some() {
            self.keep_alive.owed(now.steady_millis);
        }
        Ok(transmit)
    }

    /// Whether the next record may be given to it. Not while a lot of the last ones waits for a store, or for [`Link::poll_transmit`].
    pub(crate) fn takes_records(&self) -> bool {
        self.reads_at.is_none()
            && self.leaving != Leaving::Now
            && self.letters.is_empty()
            && self.waiting_bytes.saturating_add(self.calls.bytes()) < MAX_WAITING_BYTES
            && self.outbox.bytes() < MAX_BACKLOG_BYTES
    }

    /// Leaves the hub, and gives what is left to do: what was begun comes to its end, so that others hear of it.
    pub(crate) fn close(self) -> impl Future<Output = ()> + Send {
        let (mut pending, calls) = (self.pending, self.calls);
        async move {
            while pending.next().await.is_some() {}
            calls.close().await;
        }
    }

    fn on_frame(&mut self, frame: ToRelay<'_>, now: Now) -> Result<(), End> {
        // docs/protocol.md §5: at most 64 open requests.
        if self.requests >= MAX_OPEN_REQUESTS && !matches!(frame, ToRelay::Ack { .. }) {
            return Err(End::TooManyRequests);
        }
        let span = spans::request(&frame, &self.requester.device());
        let outcome = match frame {
            ToRelay::Ack { position } => return self.on_ack(position),
            ToRelay::Send(send) => return self.on_send(&send, span, now),
            ToRelay::Call(call) => return self.on_call(&call, span, now),
            ToRelay::FetchCards {
                request,
                user,
                take,
            } => self.requester.fetch_cards(request, user, take, now),
            ToRelay::PublishCard { request, card } => {
                self.requester.publish_card(request, card, now)
            }
            ToRelay::PublishPrekeys {
                request,
                replace,
                prekeys,
            } => self
                .requester
                .publish_prekeys(request, replace, &prekeys, now),
            ToRelay::RemoveDevice { request, device } => {
                self.requester.remove_device(request, device, now)
            }
            ToRelay::Upload(upload) => self.requester.upload(&upload, now),
            ToRelay::Download {
                request,
                blob,
                offset,
                length,
            } => self.requester.download(request, blob, offset, length, now),
            ToRelay::Discard { request, blob } => self.requester.discard(request, blob, now),
            ToRelay::Refresh {
                request,
                proof,
                token,
            } => {
                let reply = self.requester.refresh(request, proof, token, now);
                spans::answered(&span, &reply);
                self.answer(&reply)?;
                return self.warn(now);
            }
        };
        match outcome {
            Outcome::Answered(reply) => {
                spans::answered(&span, &reply);
                self.answer(&reply)
            }
            Outcome::Pending { reply, bytes } => {
                self.requests += 1;
                self.waiting_bytes = self.waiting_bytes.saturating_add(bytes);
                let finished = reply.instrument(span.clone()).map(move |reply| {
                    spans::answered(&span, &reply);
                    Finished::Request(reply, bytes)
                });
                self.begin(Waiting::Other(Box::pin(finished)))
            }
        }
    }

    fn on_send(&mut self, send: &SendFrame<'_>, span: Span, now: Now) -> Result<(), End> {
        let request = send.request;
        let wait = !self.letters.is_empty();
        match self.requester.send(send, wait, now) {
            Sending::Answered(reply) => {
                spans::answered(&span, &reply);
                self.answer(&reply)
            }
            Sending::Ended(end) => {
                spans::ended(&span, &end);
                Err(end)
            }
            Sending::Appended(accepted) => {
                self.requests += 1;
                self.begin(Waiting::Send(request, accepted, span))
            }
            Sending::Waits(letter) => {
                self.requests += 1;
                self.letters.push_back((letter, span));
                if wait {
                    return Ok(());
                }
                self.wait_for_room()
            }
        }
    }

    fn on_call(&mut self, call: &CallFrame<'_>, span: Span, now: Now) -> Result<(), End> {
        match self.requester.call(call, now) {
            Ok((handler, called)) => {
                self.requests += 1;
                let limit = self.requester.shared.services.timeout;
                self.calls.begin(call.request, handler, called, limit, span);
                Ok(())
            }
            Err(cause) => {
                spans::outcome(&span, Some(cause.code().name()));
                self.answer(&Reply::Refused(call.request, cause))
            }
        }
    }

    fn on_answered(&mut self, answered: Answered) -> Result<(), End> {
        let reply = match answered.answer {
            Answer::Accepted => Reply::Accepted(answered.request),
            Answer::Refused(cause) => Reply::Refused(answered.request, cause),
            // Said when there is room.
            Answer::Result => return Ok(()),
        };
        self.requests = self.requests.saturating_sub(1);
        self.answer(&reply)
    }

    /// Puts the letters into the mailboxes, as far as there is room.
    fn on_room(&mut self, now: Now) -> Result<(), End> {
        while let Some((letter, span)) = self.letters.pop_front() {
            let request = letter.request();
            match self.requester.send_again(letter, now) {
                Sending::Answered(reply) => {
                    self.requests = self.requests.saturating_sub(1);
                    spans::answered(&span, &reply);
                    self.answer(&reply)?;
                }
                Sending::Ended(end) => {
                    spans::ended(&span, &end);
                    return Err(end);
                }
                Sending::Appended(accepted) => {
                    self.begin(Waiting::Send(request, accepted, span))?;
                }
                Sending::Waits(letter) => {
                    self.letters.push_front((letter, span));
                    return self.wait_for_room();
                }
            }
        }
        Ok(())
    }

    fn wait_for_room(&mut self) -> Result<(), End> {
        let mailboxes = self.requester.shared.mailboxes.clone();
        let room = async move {
            mailboxes.room().await;
            Finished::Room
        };
        // Not looked at before the next `poll_finished`, so that this cannot turn in a circle.
        self.pending.push(Waiting::Other(Box::pin(room)));
        Ok(())
    }

    /// Starts a future at once, so that stores see requests in the order of their frames, and leaves it for [`Link::poll_finished`].
    fn begin(&mut self, mut waiting: Waiting) -> Result<(), End> {
        match waiting.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(finished) => self.on_ended(finished),
            Poll::Pending => {
                self.pending.push(waiting);
                Ok(())
            }
        }
    }

    fn on_finished(&mut self, finished: Finished, now: Now) -> Result<(), End> {
        match finished {
            Finished::Room => self.on_room(now),
            ended @ (Finished::Request(..) | Finished::Send(..)) => self.on_ended(ended),
        }
    }

    fn on_ended(&mut self, finished: Finished) -> Result<(), End> {
        match finished {
            Finished::Request(reply, bytes) => {
                self.requests = self.requests.saturating_sub(1);
                self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
                self.answer(&reply)
            }
            Finished::Send(request, accepted) => {
                // docs/protocol.md §5.2: where the store fails, nobody knows, and the device asks again.
                accepted?;
                // Whom it did not reach can be read from now on.
                self.window.grown();
                self.requests = self.requests.saturating_sub(1);
                self.requester.shared.metrics.accepted();
                self.answer(&Reply::Accepted(request))
            }
            Finished::Room => Ok(()),
        }
    }

    fn answer(&mut self, reply: &Reply) -> Result<(), End> {
        if let Reply::Refused(_, cause) = reply {
            let shared = &self.requester.shared;
            shared.metrics.refusal(cause.code());
            cause.log(&self.requester.device(), shared);
        }
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
        Ok(self.outbox.push(frame, &mut self.requester.link)?)
    }

    /// Ack, docs/protocol.md §5.2.
    fn on_ack(&mut self, position: u64) -> Result<(), End> {
        if !self.requester.permissions().receive {
            // A narrower token may overtake the acknowledgement; what it would erase is kept.
            return Ok(());
        }
        if position > self.window.position() {
            let mailboxes = &self.requester.shared.mailboxes;
            if position > mailboxes.status(&self.requester.device()).head {
                return Err(End::AckBeyondMailbox);
            }
        }
        self.window.acknowledged(position);
        self.acknowledged = self.acknowledged.max(Some(position));
        Ok(())
    }

    /// Has the mailbox drop what is acknowledged; whoever sent it may be waiting for just that.
    fn acknowledge(&mut self) {
        if let Some(position) = self.acknowledged.take() {
            let mailboxes = &self.requester.shared.mailboxes;
            mailboxes.acknowledge(&self.requester.device(), position);
        }
    }

    /// Moves what waits for the device to the outbox, as far as there is room: results first, of which its device asked for each, and then mail and pushes,
    /// of which neither can keep the other out for good.
    fn fill(&mut self, room: usize, now: Now) -> Result<(), End> {
        while self.outbox.bytes() < room
            && let Some((request, result)) = self.calls.take_result()
        {
            self.requests = self.requests.saturating_sub(1);
            self.answer(&Reply::Result(request, result))?;
        }
        let before = self.outbox.bytes();
        if self.mail_first {
            self.deliver(room, now)?;
        } else {
            self.push(room)?;
        }
        let turn = self.outbox.bytes() > before;
        if self.mail_first {
            self.push(room)?;
        } else {
            self.deliver(room, now)?;
        }
        // Who had a turn lets the other go first.
        self.mail_first ^= turn;
        Ok(())
    }

    /// Says what was pushed.
    fn push(&mut self, room: usize) -> Result<(), End> {
        while self.leaving != Leaving::Now
            && self.outbox.bytes() < room
            && let Some(push) = self.requester.pushes.take()
        {
            self.say(&ToDevice::Push(Push {
                service: push.service.as_str(),
                payload: &push.payload,
            }))?;
        }
        Ok(())
    }

    /// Moves mail from the mailbox to the outbox, as far as window and room allow.
    fn deliver(&mut self, room: usize, now: Now) -> Result<(), End> {
        if !self.requester.permissions().receive || self.leaving == Leaving::Now {
            return Ok(());
        }
        while self.outbox.bytes() < room
            && let Some(next) = self.window.next()
        {
            let batch = self.requester.shared.mailboxes.read(
                &self.requester.device(),
                next.after,
                next.messages,
                next.bytes,
                now.steady_millis,
            )?;
            for delivery in &batch.deliveries {
                self.deliver_one(delivery)?;
            }
            self.window.read_to(batch.last);
        }
        Ok(())
    }

    fn deliver_one(&mut self, delivery: &Delivery) -> Result<(), End> {
        let (frame, bytes) = match delivery {
            Delivery::Mail(mail) => (
                ToDevice::Deliver(Deliver {
                    position: mail.position,
                    id: mail.id,
                    user: mail.from_user.as_str(),
                    device: mail.from_device,
                    time: mail.time_millis,
                    message: &mail.message,
                }),
                mail.message.len(),
            ),
            Delivery::Undelivered(notice) => (
                ToDevice::Undelivered(Undelivered {
                    position: notice.position,
                    id: notice.id,
                    user: notice.user.as_str(),
                    device: notice.device,
                    reason: match notice.reason {
                        mail::UndeliveredReason::Expired => UndeliveredReason::Expired,
                        mail::UndeliveredReason::DeviceRemoved => UndeliveredReason::DeviceRemoved,
                        mail::UndeliveredReason::MailboxFull => UndeliveredReason::MailboxFull,
                    },
                }),
                0,
            ),
            Delivery::Damaged { position } => (
                ToDevice::Damaged {
                    position: *position,
                },
                0,
            ),
        };
        self.say(&frame)?;
        if matches!(delivery, Delivery::Mail(_)) {
            self.requester.shared.metrics.delivered();
        }
        self.window.sent(delivery.position(), bytes);
        Ok(())
    }
}
