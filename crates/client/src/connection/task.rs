//! The connection task: keeps the link up, and moves frames between it and the engine.
//!
//! ```text
//!            ┌──────────────────────────── Task ───────────────────────────┐
//!  commands ─┼▶ Core: engine, answers, events            Dialer: credential │
//!            │    ▲ frames, requests                        │ Pass          │
//!            │    └───────── Established: socket, link ◀────┘               │
//!            └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! It runs on a thread of its own. Commands are answered in every state of the connection.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sealwire_protocol::address::Address;
use sealwire_protocol::close::CloseCode;
use sealwire_protocol::frame::{List, Part, Send as SendFrame, ToDevice, ToRelay};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::backoff::Backoff;
use super::dialer::{Dialer, TokenAnswer};
use super::established::{End, Established};
use super::tls::Tls;
use super::{
    Closed, ConnectionState, HANDSHAKE_TIMEOUT, PING_INTERVAL, REFRESH_AHEAD, REFRESH_RETRY,
    REQUEST_TIMEOUT, SILENCE_LIMIT, STABLE_AFTER,
};
use crate::client::{Command, NextEvent};
use crate::credential::CredentialSource;
use crate::engine::{Engine, Fatal, Moment, OutgoingSend, Reply, Request};
use crate::error::{Error, RelayFault, Unreachable};
use crate::event::Event;

pub(crate) struct Task {
    core: Core,
    dialer: Dialer,
    backoff: Backoff,
}

/// What answers commands, whatever the connection does.
struct Core {
    // Before `commands`: when the receiver is gone, the store is closed.
    engine: Engine,
    state: watch::Sender<ConnectionState>,
    /// A state that the application has not seen as an event.
    unseen: Option<ConnectionState>,
    /// Who waits for the next event.
    next: Option<oneshot::Sender<NextEvent>>,
    /// Who waits for the first connection.
    first: Option<oneshot::Sender<Result<(), Error>>>,
    /// Who waits for the close.
    closing: Option<oneshot::Sender<()>>,
    commands: mpsc::Receiver<Command>,
}

/// Why the task leaves what it is doing.
enum Stop {
    /// The connection has ended.
    Link(End),
    /// The engine is of no use any more.
    Engine(Fatal),
    /// The application has closed the client, or dropped it.
    Application,
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::Link(end)
    }
}

impl From<Fatal> for Stop {
    fn from(fatal: Fatal) -> Self {
        Self::Engine(fatal)
    }
}

/// What to do after a connection.
enum After {
    Wait(Duration, Unreachable),
    /// Soon, with another credential: even a first connection is tried again.
    Again(Duration),
    Close(Closed, Error),
}

impl Task {
    pub(crate) fn new(
        engine: Engine,
        address: Address,
        tls: Tls,
        credential: CredentialSource,
        commands: mpsc::Receiver<Command>,
        state: watch::Sender<ConnectionState>,
        first: Option<oneshot::Sender<Result<(), Error>>>,
    ) -> Self {
        let dialer = Dialer::new(address, tls, engine.keys(), credential);
        let core = Core {
            engine,
            state,
            unseen: None,
            next: None,
            first,
            closing: None,
            commands,
        };
        Self {
            core,
            dialer,
            backoff: Backoff::default(),
        }
    }

    /// Runs until the application has gone.
    pub(crate) async fn run(mut self) {
        self.dialer.start();
        loop {
            self.core.enter(ConnectionState::Connecting);
            let (stop, lasted) = self.connect_and_drive().await;
            self.core.engine.handle_disconnected();
            if lasted >= STABLE_AFTER {
                self.backoff.reset();
            }
            let (delay, reason) = match self.after(stop) {
                After::Wait(delay, reason) => {
                    if let Some(first) = self.core.first.take() {
                        // Whoever only wanted to connect once is told why not, once the store is closed, and nothing goes on.
                        drop(self);
                        let _ = first.send(Err(reason.into()));
                        return;
                    }
                    (delay, reason)
                }
                After::Again(delay) => (delay, Unreachable::CredentialRefused),
                After::Close(closed, error) => return self.core.closed(closed, error).await,
            };
            self.core.enter(ConnectionState::Waiting {
                until: SystemTime::now() + delay,
                reason,
            });
            if let Err(stop) = self.core.serve_while(tokio::time::sleep(delay)).await {
                match self.after(stop) {
                    After::Wait(..) | After::Again(_) => {}
                    After::Close(closed, error) => return self.core.closed(closed, error).await,
                }
            }
        }
    }

    /// One connection, from the credential to its end; also how long the link was up.
    async fn connect_and_drive(&mut self) -> (Stop, Duration) {
        let mut established = match self.connect().await {
            Ok(established) => established,
            Err(stop) => return (stop, Duration::ZERO),
        };
        let start = Instant::now();
        let mut drive = Drive {
            core: &mut self.core,
            dialer: &mut self.dialer,
            link: &mut established,
            next_ping: start + PING_INTERVAL,
            ready_by: Some(start + HANDSHAKE_TIMEOUT),
            refresh_at: None,
            asked: None,
            refreshing: None,
            progress: start,
            acknowledged: 0,
        };
        let stop = drive.run().await;
        let stop = match stop {
            Stop::Link(end) => Stop::Link(established.reason(end).await),
            Stop::Engine(_) | Stop::Application => stop,
        };
        let lasted = start.elapsed();
        match &stop {
            Stop::Link(_) => established.close_if_failed().await,
            Stop::Engine(Fatal::Relay(_)) => established.close(CloseCode::Violation).await,
            Stop::Engine(_) | Stop::Application => established.close(CloseCode::Normal).await,
        }
        (stop, lasted)
    }

    async fn connect(&mut self) -> Result<Established, Stop> {
        let enrolled = self.core.engine.is_enrolled();
        let pass = self.core.serve_while(self.dialer.pass(enrolled)).await??;
        if let Some(token) = pass.token() {
            self.core.engine.handle_token(token, now())?;
        }
        let connecting = self.dialer.connect(&pass, now().seconds());
        Ok(self.core.serve_while(connecting).await??)
    }

    /// What the end of a connection means (`docs/protocol.md §13`).
    fn after(&mut self, stop: Stop) -> After {
        let rng = &mut rand::rng();
        match stop {
            Stop::Application => {
                After::Close(Closed::ByApplication, Error::Closed(Closed::ByApplication))
            }
            Stop::Engine(Fatal::Store(error)) => {
                tracing::error!(%error, "the device store failed");
                After::Close(Closed::Store, Error::Store(error))
            }
            Stop::Engine(Fatal::Relay(fault)) => {
                After::Close(Closed::Protocol(fault), Error::Relay(fault))
            }
            Stop::Engine(Fatal::NotAuthorised(reason)) => {
                After::Close(Closed::NotAuthorised(reason), Error::NotAuthorised(reason))
            }
            Stop::Link(End::Retry(reason)) => After::Wait(self.backoff.next_delay(rng), reason),
            Stop::Link(End::Replaced) => {
                After::Close(Closed::Replaced, Error::Closed(Closed::Replaced))
            }
            // 41xx: only with another credential, and that is asked for once.
            Stop::Link(End::Credential(reason)) if self.dialer.try_another(reason) => {
                After::Again(self.backoff.next_delay(rng))
            }
            Stop::Link(End::Credential(reason)) => {
                After::Close(Closed::NotAuthorised(reason), Error::NotAuthorised(reason))
            }
            Stop::Link(End::Final(error)) => After::Close(closed_by(&error), error),
        }
    }
}

/// A link in use.
struct Drive<'a> {
    core: &'a mut Core,
    dialer: &'a mut Dialer,
    link: &'a mut Established,
    next_ping: Instant,
    /// Ready, and a token where the relay mints it, have to be there by then.
    ready_by: Option<Instant>,
    refresh_at: Option<Instant>,
    /// The application's source of tokens has been asked.
    asked: Option<TokenAnswer>,
    /// The refresh that the relay has not answered, and when its token expires, if that is known here.
    refreshing: Option<(u32, Option<u64>)>,
    /// When a request was last answered, or the first one sent.
    progress: Instant,
    /// What the relay has been told to be stored.
    acknowledged: u64,
}

impl Drive<'_> {
    /// Runs until the link ends.
    async fn run(&mut self) -> Stop {
        loop {
            if let Err(stop) = self.step().await {
                return stop;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Stop> {
        self.pump().await?;
        self.core.give_event();
        let deadline = self.deadline();
        let room = self.core.engine.has_room();
        tokio::select! {
            record = self.link.receive(), if room => {
                let mut record = record?;
                self.handle_record(&mut record)
            }
            command = self.core.commands.recv() => self.core.handle_command(command),
            token = answer(&mut self.asked), if self.asked.is_some() => {
                self.asked = None;
                self.refresh_with(token).await
            }
            () = tokio::time::sleep_until(deadline) => self.handle_timeout().await,
        }
    }

    /// Sends everything that the engine has to send.
    async fn pump(&mut self) -> Result<(), Stop> {
        if self.core.engine.open_requests() == 0 {
            self.progress = Instant::now();
        }
        while let Some(request) = self.core.engine.poll_request(now())? {
            self.push(&request).await?;
        }
        let position = self.core.engine.position();
        if self.core.engine.is_ready() && position > self.acknowledged {
            self.acknowledged = position;
            self.link.push(&ToRelay::Ack { position }).await?;
        }
        Ok(self.link.flush().await?)
    }

    async fn push(&mut self, request: &Request) -> Result<(), Stop> {
        match request {
            Request::PublishCard { request, card } => {
                let frame = ToRelay::PublishCard {
                    request: *request,
                    card: card.as_bytes(),
                };
                self.link.push(&frame).await?;
            }
            Request::PublishPrekeys { request, prekeys } => {
                let encoded: Vec<_> = prekeys
                    .iter()
                    .map(sealwire_e2e::one_time::OneTimePrekey::encode)
                    .collect();
                let prekeys: Option<Vec<_>> =
                    encoded.iter().map(|bytes| wire_prekey(bytes)).collect();
                let prekeys = prekeys.ok_or(RelayFault::Record).map_err(End::from)?;
                let frame = ToRelay::PublishPrekeys {
                    request: *request,
                    prekeys: List::from(&prekeys),
                };
                self.link.push(&frame).await?;
            }
            Request::FetchCards {
                request,
                user,
                take,
            } => {
                let frame = ToRelay::FetchCards {
                    request: *request,
                    user,
                    take: *take,
                };
                self.link.push(&frame).await?;
            }
            Request::Send { request, entry } => {
                let Some(OutgoingSend { id, user, parts }) = self.core.engine.outgoing(*entry)
                else {
                    return Ok(());
                };
                let parts: List<'_, Part<'_>> = List::from(&parts);
                let frame = ToRelay::Send(SendFrame {
                    request: *request,
                    id,
                    user,
                    parts,
                });
                self.link.push(&frame).await?;
            }
        }
        Ok(())
    }

    fn handle_record(&mut self, record: &mut [u8]) -> Result<(), Stop> {
        let frames = match self.link.link.handle_message(record) {
            Ok(frames) => frames,
            Err(error) => return Err(self.link.fail(error).into()),
        };
        for frame in frames {
            self.handle_frame(frame)?;
        }
        Ok(())
    }

    fn handle_frame(&mut self, frame: ToDevice<'_>) -> Result<(), Stop> {
        match frame {
            ToDevice::Ready(ready) => {
                self.core.engine.handle_ready(&ready)?;
                self.acknowledged = ready.acknowledged;
                self.plan_refresh(ready.token_expires, ready.time);
                self.entered();
            }
            ToDevice::Accepted { request } if self.is_refresh(request) => {
                self.release(request);
                if let Some((_, Some(expires))) = self.refreshing.take() {
                    self.plan_refresh(expires, now().seconds());
                }
            }
            ToDevice::Refused { request, code } if self.is_refresh(request) => {
                tracing::warn!(code = code.name(), "the relay refuses a refresh");
                self.release(request);
                self.refreshing = None;
                self.refresh_at = Some(Instant::now() + REFRESH_RETRY);
            }
            ToDevice::Token {
                request,
                expires,
                token,
            } if request == 0 || self.is_refresh(request) => {
                if request != 0 {
                    self.release(request);
                    self.refreshing = None;
                }
                let token =
                    std::str::from_utf8(token).map_err(|_| End::from(RelayFault::Record))?;
                self.core.engine.handle_token(token, now())?;
                self.core.engine.set_enrolled()?;
                self.plan_refresh(expires, now().seconds());
                self.entered();
            }
            ToDevice::Token { .. } => return Err(End::from(RelayFault::Unasked).into()),
            ToDevice::Accepted { request } => self.reply(request, &Reply::Accepted)?,
            ToDevice::Refused { request, code } => self.reply(request, &Reply::Refused(code))?,
            ToDevice::Cards { request, entries } => self.reply(request, &Reply::Cards(entries))?,
            ToDevice::Deliver(deliver) => self.core.engine.handle_deliver(&deliver, now())?,
            ToDevice::DeviceChanged { user } => self.core.engine.handle_device_changed(user),
        }
        Ok(())
    }

    fn reply(&mut self, request: u32, reply: &Reply<'_>) -> Result<(), Stop> {
        self.progress = Instant::now();
        self.core.engine.handle_reply(request, reply, now())?;
        self.entered();
        Ok(())
    }

    /// Looks whether the relay has let the device in and the device knows who it is; whoever waits for the first connection is
    /// told once others can write to the device too.
    fn entered(&mut self) {
        if self.core.engine.is_ready() && self.ready_by.take().is_some() {
            self.dialer.accepted();
            self.core.enter(ConnectionState::Connected);
        }
        if self.core.engine.is_ready()
            && self.core.engine.is_published()
            && let Some(first) = self.core.first.take()
        {
            let _ = first.send(Ok(()));
        }
    }

    fn release(&mut self, request: u32) {
        self.progress = Instant::now();
        self.core.engine.release_request(request);
    }

    fn is_refresh(&self, request: u32) -> bool {
        self.refreshing
            .is_some_and(|(refresh, _)| refresh == request)
    }

    /// Plans the refresh of a token that expires at `expires`, by a clock that says `time`.
    fn plan_refresh(&mut self, expires: u64, time: u64) {
        let left = Duration::from_secs(expires.saturating_sub(time));
        let ahead = REFRESH_AHEAD.min(left / 4);
        self.refresh_at = Instant::now().checked_add(left.saturating_sub(ahead));
    }

    fn deadline(&self) -> Instant {
        let heard = Instant::from_std(self.link.heard) + SILENCE_LIMIT;
        let mut deadline = self.next_ping.min(heard);
        let requests =
            (self.core.engine.open_requests() > 0).then_some(self.progress + REQUEST_TIMEOUT);
        let engine = self
            .core
            .engine
            .poll_deadline()
            .map(|at| Instant::now() + Duration::from_millis(at.0.saturating_sub(now().0)));
        for other in [requests, engine, self.ready_by, self.refresh_at]
            .into_iter()
            .flatten()
        {
            deadline = deadline.min(other);
        }
        deadline
    }

    async fn handle_timeout(&mut self) -> Result<(), Stop> {
        let time = Instant::now();
        let silent = Instant::from_std(self.link.heard) + SILENCE_LIMIT <= time
            && self.core.engine.has_room();
        let unanswered =
            self.core.engine.open_requests() > 0 && self.progress + REQUEST_TIMEOUT <= time;
        if silent || unanswered || self.ready_by.is_some_and(|by| by <= time) {
            return Err(End::Retry(Unreachable::Timeout).into());
        }
        if self.next_ping <= time {
            self.next_ping = time + PING_INTERVAL;
            self.link.ping().await?;
        }
        if self.refresh_at.is_some_and(|at| at <= time) {
            self.refresh_at = None;
            match self.dialer.ask() {
                Some(asked) => self.asked = Some(asked),
                None => self.refresh(Zeroizing::new(String::new()), None).await?,
            }
        }
        Ok(())
    }

    /// The application's source of tokens has answered.
    async fn refresh_with(&mut self, token: Option<Zeroizing<String>>) -> Result<(), Stop> {
        let Some(token) = token else {
            self.refresh_at = Some(Instant::now() + REFRESH_RETRY);
            return Ok(());
        };
        self.core.engine.handle_token(&token, now())?;
        let expires = self.dialer.remember(&token);
        self.refresh(token, expires).await
    }

    /// Refreshes in-band (`docs/protocol.md §5.4`); an empty token asks the built-in issuer for one.
    async fn refresh(
        &mut self,
        token: Zeroizing<String>,
        expires: Option<u64>,
    ) -> Result<(), Stop> {
        let request = self.core.engine.reserve_request();
        let keys = self.core.engine.keys();
        let proof = self
            .link
            .link
            .refresh_proof(keys.signing(), token.as_bytes(), now().seconds());
        let frame = ToRelay::Refresh {
            request,
            proof: proof.as_bytes(),
            token: token.as_bytes(),
        };
        self.link.push(&frame).await?;
        self.refreshing = Some((request, expires));
        Ok(())
    }
}

impl Core {
    /// Lets a future run while commands are answered. Only for futures during which there is no link.
    async fn serve_while<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(future);
        loop {
            self.give_event();
            tokio::select! {
                output = &mut future => return Ok(output),
                command = self.commands.recv() => self.handle_command(command)?,
            }
        }
    }

    fn handle_command(&mut self, command: Option<Command>) -> Result<(), Stop> {
        // An answer that cannot be sent means that its caller has gone.
        match command {
            None => return Err(Stop::Application),
            Some(Command::Send {
                user,
                message,
                answer,
            }) => self.engine.send(&user, &message, answer, now())?,
            Some(Command::Next { taken, answer }) => {
                if let Some(number) = taken {
                    self.engine.event_taken(number)?;
                }
                self.next = Some(answer);
            }
            Some(Command::Devices { user, answer }) => self.engine.devices(&user, answer),
            Some(Command::SafetyNumber { user, answer }) => {
                self.engine.safety_number(&user, answer)
            }
            Some(Command::MarkVerified {
                user,
                number,
                answer,
            }) => {
                let _ = answer.send(self.engine.mark_verified(&user, &number)?);
            }
            Some(Command::IsVerified { user, answer }) => {
                let _ = answer.send(Ok(self.engine.is_verified(&user)?));
            }
            Some(Command::AcceptChange { user, answer }) => {
                self.engine.accept_change(&user)?;
                let _ = answer.send(Ok(()));
            }
            Some(Command::User { answer }) => {
                let _ = answer.send(self.engine.user());
            }
            Some(Command::JweSecret { answer }) => {
                let _ = answer.send(Ok(self.engine.keys().expose_standard_jwe_secret()));
            }
            Some(Command::Close { taken, answer }) => {
                self.closing = Some(answer);
                if let Some(number) = taken {
                    self.engine.event_taken(number)?;
                }
                return Err(Stop::Application);
            }
        }
        Ok(())
    }

    fn enter(&mut self, state: ConnectionState) {
        tracing::debug!(?state, "connection");
        self.state.send_replace(state);
        self.unseen = Some(state);
        self.give_event();
    }

    /// Gives the next event to whoever waits for it.
    fn give_event(&mut self) {
        let Some(next) = self.next.take() else { return };
        if next.is_closed() {
            return;
        }
        let event = match (self.unseen.take(), self.engine.first_event()) {
            (Some(state), _) => NextEvent {
                event: Some(Event::Connection(state)),
                kept: None,
            },
            (None, Some((number, event))) => NextEvent {
                event: Some(event.clone()),
                kept: Some(*number),
            },
            (None, None) => {
                self.next = Some(next);
                return;
            }
        };
        if let Err(NextEvent {
            event: Some(Event::Connection(state)),
            ..
        }) = next.send(event)
        {
            self.unseen = Some(state);
        }
    }

    /// The connection is over: hands out the events that are left, until the application goes.
    async fn closed(mut self, closed: Closed, error: Error) {
        if let Some(first) = self.first.take() {
            drop(self);
            let _ = first.send(Err(error));
            return;
        }
        self.enter(ConnectionState::Closed(closed));
        while self.closing.is_none() && closed != Closed::ByApplication {
            self.give_event();
            if let Some(next) = self.next.take() {
                let _ = next.send(NextEvent {
                    event: None,
                    kept: None,
                });
            }
            match self.commands.recv().await {
                None => break,
                // After a failure of the store nothing more is taken from it.
                Some(command @ (Command::Next { .. } | Command::Close { .. }))
                    if closed != Closed::Store =>
                {
                    if self.handle_command(Some(command)).is_err() {
                        break;
                    }
                }
                Some(Command::Close { answer, .. }) => {
                    self.closing = Some(answer);
                }
                // What else is asked is answered by dropping it: the client is closed.
                Some(_) => {}
            }
        }
        let Self {
            engine,
            closing,
            commands,
            ..
        } = self;
        drop(engine);
        drop(commands);
        if let Some(closing) = closing {
            let _ = closing.send(());
        }
    }
}

/// Waits for a token that was asked for; `None` if there is none.
async fn answer(asked: &mut Option<TokenAnswer>) -> Option<Zeroizing<String>> {
    match asked {
        Some(asked) => asked.await.ok()?.ok(),
        None => std::future::pending().await,
    }
}

fn closed_by(error: &Error) -> Closed {
    match error {
        Error::RelayKey { .. } => Closed::RelayKey,
        Error::Unreachable(reason) => Closed::Untrusted(*reason),
        Error::NotAuthorised(reason) => Closed::NotAuthorised(*reason),
        Error::Relay(fault) => Closed::Protocol(*fault),
        Error::Closed(closed) => *closed,
        Error::Misuse(_)
        | Error::Store(_)
        | Error::Refused(_)
        | Error::PeerChanged
        | Error::PeerUnverified
        | Error::Card(_)
        | Error::Timeout => Closed::Protocol(RelayFault::Handshake),
    }
}

/// A one-time prekey in the form in which it is put into a frame.
fn wire_prekey(encoded: &[u8]) -> Option<sealwire_protocol::frame::OneTimePrekey<'_>> {
    let (id, rest) = encoded.split_first_chunk()?;
    let (x25519, rest) = rest.split_first_chunk()?;
    let (kem_key, rest) = rest.split_first_chunk()?;
    let (signature, rest) = rest.split_first_chunk()?;
    rest.is_empty()
        .then_some(sealwire_protocol::frame::OneTimePrekey {
            id: u32::from_be_bytes(*id),
            x25519,
            kem_key,
            signature,
        })
}

/// This device's clock. A clock before 1970 counts as 1970: the relay will say by how much it is off.
pub(super) fn now() -> Moment {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
