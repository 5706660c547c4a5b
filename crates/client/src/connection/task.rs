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
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::backoff::{self, Backoff};
use super::calls::Calls;
use super::dialer::Dialer;
use super::drive::Drive;
use super::established::{End, Established};
use super::tls::Tls;
use super::{Closed, ConnectionState, MAX_LINK_FAULTS, STABLE_AFTER};
use crate::client::{Command, NextEvent};
use crate::credential::CredentialSource;
use crate::engine::{Engine, Fatal, Given, Moment};
use crate::error::{Error, RelayFault, Unreachable};
use crate::event::Event;
use crate::transfer::{Desk, Wish};

pub(crate) struct Task {
    core: Core,
    dialer: Dialer,
    backoff: Backoff,
    /// Connections that were up and ended with a fault of the link, since one held.
    faults: u32,
}

/// What answers commands, whatever the connection does.
pub(super) struct Core {
    // Before `commands`: when the receiver is gone, the store is closed.
    pub(super) engine: Engine,
    /// What transfers of files ask of the relay.
    pub(super) transfers: Desk,
    /// Calls of services, and what those push.
    pub(super) calls: Calls,
    /// Whether what was pushed goes before what the engine has, the next time.
    pushes_first: bool,
    state: watch::Sender<ConnectionState>,
    /// How long the relay asked to be left alone once the link is closed.
    stays_away: Option<Duration>,
    /// A state that the application has not seen as an event.
    unseen: Option<ConnectionState>,
    /// Who waits for the next event.
    next: Option<oneshot::Sender<NextEvent>>,
    /// Who waits for the first connection.
    pub(super) first: Option<oneshot::Sender<Result<(), Error>>>,
    /// Who waits for the close.
    closing: Option<oneshot::Sender<()>>,
    pub(super) commands: mpsc::Receiver<Command>,
}

/// Why the task leaves what it is doing.
pub(super) enum Stop {
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
            transfers: Desk::default(),
            calls: Calls::default(),
            pushes_first: false,
            state,
            stays_away: None,
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
            faults: 0,
        }
    }

    /// Sets what is at least between two refreshes of the token.
    pub(crate) fn refreshing_no_sooner_than(mut self, floor: Duration) -> Self {
        self.dialer.refresh_floor = floor;
        self
    }

    /// Runs until the application has gone.
    pub(crate) async fn run(mut self) {
        self.dialer.start();
        loop {
            self.core.enter(ConnectionState::Connecting);
            self.core.stays_away = None;
            let (stop, lasted) = self.connect_and_drive().await;
            self.core.engine.handle_disconnected();
            self.core.transfers.link_lost();
            self.core.calls.link_lost();
            if lasted >= STABLE_AFTER {
                self.backoff.reset();
                self.faults = 0;
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
        let stop = Drive::new(&mut self.core, &mut self.dialer, &mut established)
            .run()
            .await;
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
        let named = self.dialer.relay();
        let relay = self.core.engine.relay_key(named);
        let connecting = self.dialer.connect(relay, &pass, now().seconds());
        let established = self.core.serve_while(connecting).await??;
        let engine = &mut self.core.engine;
        engine.handle_relay_key(named, established.link.relay())?;
        Ok(established)
    }

    /// What the end of a connection means (`docs/protocol.md §13`).
    fn after(&mut self, stop: Stop) -> After {
        let rng = &mut rand::rng();
        let was_up = *self.core.state.borrow() == ConnectionState::Connected;
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
            Stop::Link(End::Retry(reason)) => {
                let asked = self.core.stays_away.unwrap_or_default();
                After::Wait(self.backoff.next_delay(rng).max(asked), reason)
            }
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
            // 4200, 4201: whoever carries the records may have changed one. If it is one of the sides, it comes again.
            Stop::Link(End::Final(Error::Relay(RelayFault::Record | RelayFault::RefusedOurs)))
                if was_up && self.faults < MAX_LINK_FAULTS =>
            {
                self.faults += 1;
                After::Wait(self.backoff.next_delay(rng), Unreachable::Broken)
            }
            Stop::Link(End::Final(error)) => After::Close(closed_by(&error), error),
        }
    }
}

impl Core {
    /// Lets a future run while commands are answered. Only for futures during which there is no link.
    async fn serve_while<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::pin!(future);
        let acks = self.engine.acks();
        loop {
            self.engine.settle(now())?;
            self.calls.give_up(Instant::now());
            self.give_event();
            let deadline = self.deadline();
            tokio::select! {
                output = &mut future => return Ok(output),
                command = self.commands.recv() => self.handle_commands(command)?,
                () = acks.some() => {}
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
    }

    /// The relay is about to stop, and says how many milliseconds it takes until it is back. No relay keeps a device away for longer than the
    /// longest back-off.
    pub(super) fn stay_away(&mut self, millis: u32) {
        self.stays_away = Some(Duration::from_millis(millis.into()).min(backoff::CAP));
    }

    /// Whether the relay reads nothing more on this link.
    pub(super) fn is_left(&self) -> bool {
        self.stays_away.is_some()
    }

    /// When the engine has to settle again, or a call is too late, although nothing has happened.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let engine = self.engine.poll_deadline();
        let engine =
            engine.map(|at| Instant::now() + Duration::from_millis(at.0.saturating_sub(now().0)));
        engine.into_iter().chain(self.calls.deadline()).min()
    }

    /// Handles a command and what else is waiting: all of it shares one commit.
    pub(super) fn handle_commands(&mut self, first: Option<Command>) -> Result<(), Stop> {
        self.handle_command(first)?;
        // Who waits for an event gets it before anybody asks for the next.
        while self.next.is_none()
            && let Ok(command) = self.commands.try_recv()
        {
            self.handle_command(Some(command))?;
        }
        Ok(())
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
                    self.engine.event_taken(number);
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
                let outcome = self.engine.mark_verified(&user, &number)?;
                self.engine.answer(answer, outcome);
            }
            Some(Command::IsVerified { user, answer }) => {
                let _ = answer.send(Ok(self.engine.is_verified(&user)?));
            }
            Some(Command::AcceptChange { user, answer }) => {
                self.engine.accept_change(&user)?;
                self.engine.answer(answer, Ok(()));
            }
            Some(Command::User { answer }) => {
                let _ = answer.send(self.engine.user());
            }
            Some(Command::SetDeviceName { name, answer }) => {
                self.engine.set_device_name(&name, now())?;
                self.engine.answer(answer, Ok(()));
            }
            Some(Command::RemoveDevice { device, answer }) => {
                self.engine.remove_device(device, answer);
            }
            Some(Command::JweSecret { answer }) => {
                let _ = answer.send(Ok(self.engine.keys().expose_standard_jwe_secret()));
            }
            Some(Command::Call(asked)) => self.calls.ask(asked),
            Some(Command::Transfer { wish, answer }) => match wish {
                Wish::Ask(ask) => self.transfers.ask(ask, answer),
                Wish::Keep(keep) => self.engine.keep_upload(keep, answer)?,
            },
            #[cfg(test)]
            Some(Command::SkipTime) => tokio::time::pause(),
            Some(Command::Close { taken, answer }) => {
                self.closing = Some(answer);
                if let Some(number) = taken {
                    self.engine.event_taken(number);
                }
                return Err(Stop::Application);
            }
        }
        Ok(())
    }

    pub(super) fn enter(&mut self, state: ConnectionState) {
        tracing::debug!(?state, "connection");
        self.state.send_replace(state);
        self.unseen = Some(state);
        self.give_event();
    }

    /// Gives the next event to whoever waits for it.
    pub(super) fn give_event(&mut self) {
        let Some(next) = self.next.take() else { return };
        if next.is_closed() {
            return;
        }
        if let Some(state) = self.unseen {
            let event = NextEvent {
                event: Some(Event::Connection(state)),
                kept: None,
            };
            if next.send(event).is_ok() {
                self.unseen = None;
            }
            return;
        }
        let pushed = self.calls.event();
        let of_engine = self.engine.next_event();
        // Where there are both, they take turns.
        let (event, number) = match (pushed, of_engine) {
            (Some(event), of_engine) if self.pushes_first || of_engine.is_none() => {
                let event = NextEvent {
                    event: Some(event),
                    kept: None,
                };
                if next.send(event).is_ok() {
                    self.calls.event_given();
                    self.pushes_first = false;
                }
                return;
            }
            (_, Some(Given { event, number })) => (event, number),
            (_, None) => {
                self.next = Some(next);
                return;
            }
        };
        self.pushes_first = true;
        let event = NextEvent {
            event: Some(event),
            kept: number,
        };
        if next.send(event).is_ok() && number.is_none() {
            self.engine.passed();
        }
    }

    /// The connection is over: hands out the events that are left, until the application goes.
    async fn closed(mut self, closed: Closed, error: Error) {
        if let Some(first) = self.first.take() {
            drop(self);
            let _ = first.send(Err(error));
            return;
        }
        self.calls.close();
        self.enter(ConnectionState::Closed(closed));
        let acks = self.engine.acks();
        let usable = closed != Closed::Store;
        // What the application has acknowledged, also since it closed the client.
        while !(usable && self.engine.flush(now()).is_err())
            && self.closing.is_none()
            && closed != Closed::ByApplication
        {
            self.give_event();
            if let Some(next) = self.next.take() {
                let _ = next.send(NextEvent {
                    event: None,
                    kept: None,
                });
            }
            let command = tokio::select! {
                command = self.commands.recv() => command,
                () = acks.some() => continue,
            };
            match command {
                None => break,
                // After a failure of the store nothing more is taken from it.
                Some(command @ (Command::Next { .. } | Command::Close { .. })) if usable => {
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
        | Error::NotDelivered(_)
        | Error::File(_)
        | Error::Timeout => Closed::Protocol(RelayFault::Handshake),
    }
}

/// This device's clock. A clock before 1970 counts as 1970: the relay will say by how much it is off.
pub(super) fn now() -> Moment {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Moment(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
