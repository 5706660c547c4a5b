//! What a deterministic simulation needs of this crate: the device without its sockets and its clock. Not for applications, and without any
//! promise of stability.
//!
//! ```text
//!  application ── send, next ──▶ Core ◀── handle_frame, handle_token ── link ── network
//!                                  └──── pump ──▶ frames ─────────────▶ link ──▶ network
//! ```

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng as _};
use sealwire_protocol::frame::{List, Ready, Send as SendFrame, ToDevice, ToRelay};
use sealwire_protocol::key::{SigningKey, Thumbprint};
use tokio::sync::oneshot;

use crate::client::Receipt;
use crate::connection::backoff;
use crate::connection::drive::wire_prekey;
use crate::engine::{Engine, Fatal, Given, Moment, Options, Reply, Request};
use crate::error::{Error, NotAuthorised, RelayFault};
use crate::event::Event;
use crate::issuer::TrustedIssuer;
use crate::message::Message;
use crate::store::{Store, StoreError, StoreKey};

/// What a connection waits for, and how long, as it is outside a simulation.
pub mod times {
    use std::time::Duration;

    use crate::connection as c;

    /// One request.
    pub const ANSWER: Duration = c::ANSWER_TIMEOUT;
    /// The link handshake.
    pub const HANDSHAKE: Duration = c::HANDSHAKE_TIMEOUT;
    /// Between two pings.
    pub const PING: Duration = c::PING_INTERVAL;
    /// Before a token ends.
    pub const REFRESH_AHEAD: Duration = c::REFRESH_AHEAD;
    /// Between two refreshes.
    pub const REFRESH_FLOOR: Duration = c::REFRESH_FLOOR;
    /// After a refresh that failed.
    pub const REFRESH_RETRY: Duration = c::REFRESH_RETRY;
    /// Any answer.
    pub const REQUEST: Duration = c::REQUEST_TIMEOUT;
    /// Anything at all.
    pub const SILENCE: Duration = c::SILENCE_LIMIT;
    /// A connection that has held.
    pub const STABLE: Duration = c::STABLE_AFTER;
    /// Not a time: so many connections that were up may end with a record that does not hold before one is [`STABLE`].
    pub const LINK_FAULTS: u32 = c::MAX_LINK_FAULTS;
    /// TCP, TLS and the upgrade.
    pub const TRANSPORT: Duration = c::TRANSPORT_TIMEOUT;
}

/// One-time prekeys that a relay holds for a simulated device.
const PREKEYS: u8 = 5;

/// The device: its engine, and what of the connection is neither socket nor clock. Times are milliseconds since 1970 by the device's clock.
pub struct Core {
    engine: Engine,
    acknowledged: u64,
    refreshing: Option<(u32, Option<u64>)>,
}

/// Why a core is of no use any more.
#[derive(Debug)]
pub enum Ended {
    /// The store failed.
    Store(StoreError),
    /// The relay does not follow the protocol.
    Relay(RelayFault),
    /// The token is not this device's.
    NotAuthorised(NotAuthorised),
    /// A frame could not be handed over.
    NotTaken,
}

impl From<Fatal> for Ended {
    fn from(fatal: Fatal) -> Self {
        match fatal {
            Fatal::Store(error) => Self::Store(error),
            Fatal::Relay(fault) => Self::Relay(fault),
            Fatal::NotAuthorised(reason) => Self::NotAuthorised(reason),
        }
    }
}

/// What a frame meant for the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing.
    Nothing,
    /// The answer to this request.
    Answer(u32),
    /// The relay has let the device in; its token expires then, by a clock that says `time`, in seconds.
    Ready {
        /// When the token expires.
        expires: u64,
        /// The relay's clock.
        time: u64,
    },
    /// The refresh was accepted; the new token expires then, in seconds, if that is known.
    Refreshed(u32, Option<u64>),
    /// The refresh was refused.
    NotRefreshed(u32),
}

/// The relay's answer to a message, when it comes.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Receipt, Error>>);

impl Pending {
    /// The answer, if it has come; `Some(None)` if none will.
    pub fn poll(&mut self) -> Option<Option<Result<Receipt, Error>>> {
        match self.0.try_recv() {
            Ok(answer) => Some(Some(answer)),
            Err(oneshot::error::TryRecvError::Empty) => None,
            Err(oneshot::error::TryRecvError::Closed) => Some(None),
        }
    }
}

/// How much of what waits in an engine, which all has bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Messages of the application that the relay has not accepted.
    pub outgoing: usize,
    /// Messages of the engine's own, likewise.
    pub own: usize,
    /// Events, and messages that are not acknowledged.
    pub events: usize,
    /// Messages that did not open and are asked for.
    pub lost: usize,
}

/// How much is in the tables of an engine, which all have bounds too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tables {
    /// Messages that the relay has and that not every device has confirmed.
    pub followed: usize,
    /// Those of them whose content is kept.
    pub kept: usize,
    /// Bytes of these contents.
    pub kept_bytes: usize,
    /// Receipts and repairs among them.
    pub direct: usize,
    /// Devices that get messages again.
    pub resending: usize,
    /// Messages in the outbox that are sealed again.
    pub again: usize,
    /// Messages that are known to have been shown.
    pub seen: usize,
    /// Messages that did not open, of the device of which there are most.
    pub lost_of_a_device: usize,
    /// Users whose cards are wanted.
    pub lookups: usize,
    /// Devices with which the next session has to be a new one.
    pub restarts: usize,
    /// Devices to be removed.
    pub removals: usize,
    /// Requests that the relay has not answered.
    pub requests: usize,
}

/// The relay's answer to the removal of a device, when it comes.
#[derive(Debug)]
pub struct Removal(oneshot::Receiver<Result<(), Error>>);

impl Removal {
    /// The answer, if it has come.
    pub fn poll(&mut self) -> Option<Result<(), Error>> {
        self.0.try_recv().ok()
    }
}

/// The delays between attempts to connect.
#[derive(Debug, Default)]
pub struct Backoff(backoff::Backoff);

impl Backoff {
    /// The next delay.
    pub fn next_delay(&mut self, rng: &mut impl Rng) -> Duration {
        self.0.next_delay(rng)
    }

    /// A connection has held.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Core {
    /// Opens the device store, or makes it.
    pub fn open(
        store: Box<dyn Store>,
        key: &StoreKey,
        issuer: TrustedIssuer,
        seed: [u8; 32],
    ) -> Result<Self, StoreError> {
        let rng = Box::new(StdRng::from_seed(seed));
        let options = Options {
            delivery_receipts: true,
            only_verified: false,
        };
        let mut engine = Engine::open(store, key, issuer, options, rng)?;
        engine.set_full_prekeys(PREKEYS);
        Ok(Self {
            engine,
            acknowledged: 0,
            refreshing: None,
        })
    }

    /// For a canary: nothing is known any more to have been shown.
    pub fn forget_what_was_shown(&mut self) {
        self.engine.forget_what_was_shown();
    }

    /// The device.
    pub fn device(&self) -> Thumbprint {
        self.engine.keys().thumbprint()
    }

    /// Gives the device's key for a proof.
    pub fn with_key<T>(&self, prove: impl FnOnce(&SigningKey) -> T) -> T {
        prove(self.engine.keys().signing())
    }

    /// Takes a message from the application.
    pub fn send(&mut self, user: &str, message: &Message, now: u64) -> Result<Pending, Ended> {
        let (answer, pending) = oneshot::channel();
        self.engine.send(user, message, answer, Moment(now))?;
        Ok(Pending(pending))
    }

    /// Removes one of this user's devices.
    pub fn remove_device(&mut self, device: Thumbprint) -> Removal {
        let (answer, removal) = oneshot::channel();
        self.engine.remove_device(device, answer);
        Removal(removal)
    }

    /// Takes a token.
    pub fn handle_token(&mut self, token: &str, now: u64) -> Result<(), Ended> {
        Ok(self.engine.handle_token(token, Moment(now))?)
    }

    /// The link is gone.
    pub fn handle_disconnected(&mut self) {
        self.engine.handle_disconnected();
        self.refreshing = None;
    }

    /// Takes a frame.
    pub fn handle_frame(&mut self, frame: ToDevice<'_>, now: u64) -> Result<Heard, Ended> {
        let now = Moment(now);
        let (request, reply) = match frame {
            ToDevice::Ready(ready) => {
                self.engine.handle_ready(&ready, now)?;
                self.acknowledged = ready.acknowledged;
                let (expires, time) = (ready.token_expires, ready.time);
                return Ok(Heard::Ready { expires, time });
            }
            ToDevice::Accepted { request } if self.is_refresh(request) => {
                let expires = self.refreshing.take().and_then(|(_, expires)| expires);
                self.engine.release_request(request);
                return Ok(Heard::Refreshed(request, expires));
            }
            ToDevice::Refused { request, .. } if self.is_refresh(request) => {
                self.refreshing = None;
                self.engine.release_request(request);
                return Ok(Heard::NotRefreshed(request));
            }
            ToDevice::Token { .. } => return Err(Ended::Relay(RelayFault::Unasked)),
            ToDevice::Accepted { request } => (request, Reply::Accepted),
            ToDevice::Refused { request, code } => (request, Reply::Refused(code)),
            ToDevice::Cards { request, entries } => (request, Reply::Cards(entries)),
            ToDevice::Deliver(deliver) => {
                self.engine.handle_deliver(&deliver, now)?;
                return Ok(Heard::Nothing);
            }
            ToDevice::DeviceChanged { user } => {
                self.engine.handle_device_changed(user)?;
                return Ok(Heard::Nothing);
            }
            ToDevice::Undelivered(notice) => {
                self.engine.handle_undelivered(&notice)?;
                return Ok(Heard::Nothing);
            }
            ToDevice::Damaged { position } => {
                self.engine.handle_damaged(position)?;
                return Ok(Heard::Nothing);
            }
            // It calls nothing, and nothing is pushed to it.
            ToDevice::Blob(_) | ToDevice::Result { .. } | ToDevice::Push(_) => {
                return Err(Ended::Relay(RelayFault::Unasked));
            }
            // Its refreshes are planned by the simulation.
            ToDevice::Expiring { .. } => return Ok(Heard::Nothing),
            // A simulated relay stops at once.
            ToDevice::Leaving { .. } => return Ok(Heard::Nothing),
        };
        self.engine.handle_reply(request, &reply, now)?;
        Ok(Heard::Answer(request))
    }

    /// Commits what has happened; then everything that is to be sent is given to `push`, which says whether it has taken it.
    pub fn pump(
        &mut self,
        now: u64,
        mut push: impl FnMut(&ToRelay<'_>) -> bool,
    ) -> Result<(), Ended> {
        self.engine.settle(Moment(now))?;
        while let Some(request) = self.engine.poll_request() {
            if !with_frame(&self.engine, &request, &mut push)? {
                return Err(Ended::NotTaken);
            }
        }
        let position = self.engine.position();
        if self.engine.is_ready() && self.engine.has_room() && position > self.acknowledged {
            self.acknowledged = position;
            if !push(&ToRelay::Ack { position }) {
                return Err(Ended::NotTaken);
            }
        }
        Ok(())
    }

    /// The position up to which the relay is told that everything is stored, once it is committed.
    pub fn position(&self) -> u64 {
        self.engine.position()
    }

    /// A request of the connection's own: a refresh with a token that expires then.
    pub fn begin_refresh(&mut self, expires: Option<u64>) -> u32 {
        let request = self.engine.reserve_request();
        self.refreshing = Some((request, expires));
        request
    }

    /// Whether the link is open and the device knows who it is.
    pub fn is_ready(&self) -> bool {
        self.engine.is_ready()
    }

    /// Whether others can find the device.
    pub fn is_published(&self) -> bool {
        self.engine.is_published()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.engine.open_requests() == 0
            && self.engine.next_event().is_none()
            && self.engine.waiting() == Waiting::default()
    }

    /// How much waits.
    pub fn waiting(&self) -> Waiting {
        self.engine.waiting()
    }

    /// How much is in its tables.
    pub fn tables(&self) -> Tables {
        self.engine.tables()
    }

    /// The highest sequence that a Send of the device had.
    pub fn sequence(&self) -> u64 {
        self.engine.sequence()
    }

    /// Whether a relay that says this of the device knows of a Send or an acknowledgement that the store does not: the store is an earlier
    /// copy of one that was used since.
    pub fn is_behind(&self, ready: &Ready<'_>) -> bool {
        // In a history that the store does not know it has acknowledged nothing.
        let position = if ready.epoch == self.engine.epoch() {
            self.engine.position()
        } else {
            0
        };
        self.engine.sequence() < ready.sent || position < ready.acknowledged
    }

    /// Whether nothing is left in the store that the application is done with.
    pub fn has_erased(&self) -> bool {
        self.engine.has_erased()
    }

    /// Whether anything may be read.
    pub fn may_read(&self) -> bool {
        self.engine.may_read()
    }

    /// When [`Core::pump`] has to be called although nothing has happened.
    pub fn deadline(&self) -> Option<u64> {
        self.engine.poll_deadline().map(|at| at.0)
    }

    /// The next event for the application, with its number if it is kept.
    pub fn next_event(&self) -> Option<(Event, Option<u64>)> {
        let Given { event, number } = self.engine.next_event()?;
        Some((event, number))
    }

    /// Whether the event with this number, if it has one, has happened since the store was opened, so that no earlier process can have given it.
    pub fn is_new_event(&self, number: Option<u64>) -> bool {
        number.is_none_or(|number| self.engine.is_new_event(number))
    }

    /// The application has it.
    pub fn event_taken(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.engine.event_taken(number),
            None => self.engine.passed(),
        }
    }

    fn is_refresh(&self, request: u32) -> bool {
        self.refreshing
            .is_some_and(|(refresh, _)| refresh == request)
    }
}

fn with_frame(
    engine: &Engine,
    request: &Request,
    push: &mut impl FnMut(&ToRelay<'_>) -> bool,
) -> Result<bool, Ended> {
    Ok(match request {
        Request::PublishCard { request, card } => push(&ToRelay::PublishCard {
            request: *request,
            card: card.as_bytes(),
        }),
        Request::PublishPrekeys {
            request,
            replace,
            prekeys,
        } => {
            let encoded: Vec<_> = prekeys
                .iter()
                .map(sealwire_e2e::one_time::OneTimePrekey::encode)
                .collect();
            let prekeys: Option<Vec<_>> = encoded.iter().map(|bytes| wire_prekey(bytes)).collect();
            let prekeys = prekeys.ok_or(Ended::Relay(RelayFault::Record))?;
            push(&ToRelay::PublishPrekeys {
                request: *request,
                replace: *replace,
                prekeys: List::from(&prekeys),
            })
        }
        Request::FetchCards {
            request,
            user,
            take,
        } => push(&ToRelay::FetchCards {
            request: *request,
            user,
            take: *take,
        }),
        Request::Send { request, entry } => {
            let Some(send) = engine.outgoing(*entry) else {
                return Ok(true);
            };
            push(&ToRelay::Send(SendFrame {
                request: *request,
                sequence: send.sequence,
                id: send.id,
                user: send.user,
                whole: send.whole,
                parts: List::from(&send.parts),
                copies: List::from(&send.copies),
            }))
        }
        Request::RemoveDevice { request, device } => push(&ToRelay::RemoveDevice {
            request: *request,
            device: *device,
        }),
    })
}
