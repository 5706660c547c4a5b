//! A device of the simulation: its application, its process with the real engine and link, its disk and its clock.
//!
//! ```text
//!  application ⇄ Core (engine, store on a Disk) ⇄ DeviceLink ⇄ network
//!       └── after every restart sends again what it does not know the fate of
//! ```
//! What a connection does in time (pings, patience, back-off, refreshes) is as in the client's own driver, in virtual time.

use std::collections::{BTreeMap, VecDeque};

use sealwire_client::simulation::{Backoff, Core, Ended, Heard, Pending, times};
use sealwire_client::{Event, FileStore, Message, MessageId, Received, StoreKey};
use sealwire_protocol::batch::Batch;
use sealwire_protocol::close::{CloseCode, Retry};
use sealwire_protocol::error::Misuse;
use sealwire_protocol::frame::{DeviceToRelay, ToRelay};
use sealwire_protocol::handshake::{Credential, DeviceHello, DeviceTerms};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::link::DeviceLink;

use super::Canary;
use super::chance::Chance;
use super::disk::Disk;
use super::fault::Fault;
use super::ledger::{Invariant, Number};
use super::network::{ConnectionId, End, Wire};
use super::schedule::Millis;
use super::town::clock;
use super::world::Context;

/// The name of the store on the disk.
const STORE: &str = "device";
/// The media type of the messages.
const MEDIA_TYPE: &str = "application/x-simulation";

/// What may wait in an engine at most.
mod bounds {
    /// Messages of the application that the relay has not accepted.
    pub(super) const OUTGOING: usize = 256;
    /// Messages of the engine's own, likewise.
    pub(super) const OWN: usize = 512;
    /// Events; a few kinds that must not be lost may be added beyond it.
    pub(super) const EVENTS: usize = 3_000 + 512;
    /// Messages that did not open.
    pub(super) const LOST: usize = 256;
}

/// A device.
pub(super) struct Device {
    /// Its number.
    pub index: usize,
    /// Its disk.
    pub disk: Disk,
    /// How far its clock is off, in milliseconds.
    pub offset: i64,
    /// Until then its issuer gives no tokens.
    pub no_token_until: Millis,
    /// How its process ends when its disk says so: with the machine, or alone.
    pub dies_with_machine: bool,
    /// Nothing bad happens any more: its application is quick.
    pub is_calm: bool,
    /// The guarantee that is missing.
    canary: Option<Canary>,
    chance: Chance,
    store_key: [u8; 32],
    process: Option<Process>,
    /// When it starts again.
    starts_at: Option<Millis>,
}

/// What is lost when the process ends.
struct Process {
    core: Core,
    link: Link,
    backoff: Backoff,
    /// A credential was refused since the relay last let the device in.
    refused: bool,
    pending: Vec<(Number, Pending)>,
    /// Messages that the application has and has not acknowledged.
    held: Vec<Held>,
    /// Acknowledgements that are not durable for certain.
    acknowledged: Vec<Number>,
}

struct Held {
    received: Received,
    number: Option<Number>,
    due: Millis,
}

enum Link {
    Waiting {
        until: Millis,
    },
    Connecting {
        connection: ConnectionId,
        by: Millis,
        token: (String, u64),
    },
    Greeting {
        connection: ConnectionId,
        by: Millis,
        hello: Box<DeviceHello>,
        token: (String, u64),
    },
    Open(Box<Open>),
}

/// A link in use.
struct Open {
    connection: ConnectionId,
    link: DeviceLink,
    since: Millis,
    next_ping: Millis,
    ready_by: Option<Millis>,
    refresh_at: Option<Millis>,
    refresh_after: Millis,
    heard: Millis,
    progress: Millis,
    asked: BTreeMap<u32, Millis>,
    unread: VecDeque<Vec<u8>>,
}

/// Why a link, or more, ends.
enum Over {
    /// It may be tried again.
    Retry(&'static str),
    /// With another token.
    Credential,
    /// The client is closed, and the application makes a new one.
    Closed(String),
    /// The process is dead.
    Dead,
}

type Step = Result<(), Over>;

impl From<Ended> for Over {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::NotTaken => Self::Dead,
            ended => Self::Closed(format!("{ended:?}")),
        }
    }
}

impl Device {
    /// A device that was never started.
    #[must_use]
    pub(super) fn new(index: usize, mut chance: Chance, canary: Option<Canary>) -> Self {
        Self {
            index,
            canary,
            disk: Disk::new(chance.fork()),
            offset: 0,
            no_token_until: 0,
            dies_with_machine: false,
            is_calm: false,
            store_key: chance.bytes32(),
            chance,
            process: None,
            starts_at: Some(0),
        }
    }

    /// When something is due.
    #[must_use]
    pub(super) fn deadline(&self, now: Millis) -> Option<Millis> {
        let Some(process) = &self.process else {
            return self.starts_at;
        };
        let engine = process.core.deadline().map(|at| {
            let ahead = at.saturating_sub(clock(now, self.offset));
            now.saturating_add(ahead)
        });
        let held = process.held.iter().map(|held| held.due).min();
        [
            Some(process.link.deadline()),
            engine.filter(|_| process.is_open()),
            held,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether it is connected and has nothing more to do.
    #[must_use]
    pub(super) fn is_at_rest(&self) -> bool {
        self.process.as_ref().is_some_and(|process| {
            process.is_open()
                && process.core.is_ready()
                && process.core.is_published()
                && process.pending.is_empty()
                && process.held.is_empty()
                && process.core.is_idle()
        })
    }

    /// What it is doing, for a report.
    #[must_use]
    pub(super) fn status(&self) -> String {
        let Some(process) = &self.process else {
            return format!("stopped until {:?}", self.starts_at);
        };
        let link = match &process.link {
            Link::Waiting { until } => format!("waiting until {until}"),
            Link::Connecting { .. } => "connecting".to_owned(),
            Link::Greeting { .. } => "greeting".to_owned(),
            Link::Open(open) => format!(
                "open on {} with {} requests",
                open.connection,
                open.asked.len()
            ),
        };
        format!(
            "{link}, {} receipts pending, {} held, {:?}",
            process.pending.len(),
            process.held.len(),
            process.core.waiting()
        )
    }

    /// Something is due.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        if self.process.is_none() {
            if self.starts_at.is_some_and(|at| at <= context.now()) {
                self.start(context);
            }
            return;
        }
        let step = self.step_time(context);
        self.conclude(step, context);
    }

    /// Something has arrived.
    pub(super) fn arrive(
        &mut self,
        connection: ConnectionId,
        wire: Wire,
        context: &mut Context<'_>,
    ) {
        let is_mine = self
            .process
            .as_ref()
            .is_some_and(|process| process.link.connection() == Some(connection));
        if !is_mine {
            if self.process.is_some() && wire != Wire::Reset {
                context.send(connection, End::Device, Wire::Reset);
            }
            return;
        }
        let step = self.step_arrival(wire, context);
        self.conclude(step, context);
    }

    /// The application sends a message.
    pub(super) fn send(&mut self, to: usize, body: Vec<u8>, context: &mut Context<'_>) {
        let mut id = [0; 16];
        rand::Rng::fill_bytes(self.chance.rng(), &mut id);
        let number = context.ledger.sent(self.index, to, id, body);
        let step = self
            .submit(number, context)
            .and_then(|()| self.drain(context));
        self.conclude(step, context);
    }

    /// The process is gone. With the machine, its connections are left as they are.
    pub(super) fn stop(&mut self, with_machine: bool, why: &str, context: &mut Context<'_>) {
        let Some(process) = self.process.take() else {
            return;
        };
        let connection = process.link.connection();
        drop(process);
        if with_machine {
            self.disk.crash();
        } else {
            self.disk.kill();
            if let Some(connection) = connection {
                context.send(connection, End::Device, Wire::Reset);
            }
        }
        context.ledger.restarted(self.index);
        let rest = if self.is_calm { 1_000 } else { 15_000 };
        let rest = 100 + self.chance.mostly_small(rest);
        self.starts_at = Some(context.now() + rest);
        context.note([1, self.index as u64, u64::from(with_machine)], || {
            format!(
                "device {} stops ({why}{}), back in {rest} ms",
                self.index,
                if with_machine { ", power lost" } else { "" }
            )
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.starts_at = None;
        match self.open(context) {
            Ok(core) => {
                context.town.enter(self.index, core.device());
                context.note([2, self.index as u64, 0], || {
                    format!("device {} starts", self.index)
                });
                self.process = Some(Process {
                    core,
                    link: Link::Waiting {
                        until: context.now(),
                    },
                    backoff: Backoff::default(),
                    refused: false,
                    pending: Vec::new(),
                    held: Vec::new(),
                    acknowledged: Vec::new(),
                });
                let step = self.step_started(context);
                self.conclude(step, context);
            }
            Err(error) => {
                context.note([3, self.index as u64, 0], || {
                    format!("device {} cannot open its store: {error}", self.index)
                });
                if self.is_calm && !self.disk.is_dead() {
                    context.ledger.violate(
                        Invariant::Rest,
                        format!(
                            "device {} cannot open its store any more: {error}",
                            self.index
                        ),
                    );
                }
                if self.disk.is_dead() && self.dies_with_machine {
                    self.disk.crash();
                } else {
                    self.disk.kill();
                }
                self.starts_at = Some(context.now() + self.chance.between(500, 5_000));
            }
        }
    }

    fn open(&mut self, context: &Context<'_>) -> Result<Core, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if !self.disk.exists(STORE).map_err(|error| text(&error))? {
            // A database that a crash interrupts while it is made is of no use, so it gets its name when it is there.
            let file = self.disk.create("new").map_err(|error| text(&error))?;
            FileStore::with_backend(file).map_err(|error| text(&error))?;
            self.disk
                .rename("new", STORE)
                .map_err(|error| text(&error))?;
            self.disk.sync_names().map_err(|error| text(&error))?;
        }
        let file = self.disk.open(STORE).map_err(|error| text(&error))?;
        let store = FileStore::with_backend(file).map_err(|error| text(&error))?;
        let issuer = context.town.trusted().map_err(|error| text(&error))?;
        let key = StoreKey::from_bytes(self.store_key);
        let mut core = Core::open(Box::new(store), &key, issuer, self.chance.bytes32())
            .map_err(|error| text(&error))?;
        if self.canary == Some(Canary::NoDeduplication) {
            core.forget_what_was_shown();
        }
        Ok(core)
    }

    /// The application sends again what it does not know the fate of, and now and then what it has forgotten that it knew.
    fn step_started(&mut self, context: &mut Context<'_>) -> Step {
        if self.chance.happens(300) {
            for number in context.ledger.accepted_last(self.index) {
                self.submit(number, context)?;
            }
        }
        for number in context.ledger.open_of(self.index) {
            self.submit(number, context)?;
        }
        self.drain(context)
    }

    fn submit(&mut self, number: Number, context: &mut Context<'_>) -> Step {
        let now = clock(context.now(), self.offset);
        let (Some(process), Some(sent)) = (&mut self.process, context.ledger.message(number))
        else {
            return Ok(());
        };
        let message =
            Message::new(MEDIA_TYPE, sent.body.clone()).with_id(MessageId::from_bytes(sent.id));
        let pending = process
            .core
            .send(context.town.user(sent.to), &message, now)?;
        process.pending.push((number, pending));
        Ok(())
    }

    fn step_time(&mut self, context: &mut Context<'_>) -> Step {
        let now = context.now();
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match &mut process.link {
            Link::Waiting { until } if *until <= now => self.connect(context)?,
            Link::Connecting { by, .. } | Link::Greeting { by, .. } if *by <= now => {
                return Err(Over::Retry("no answer to the handshake"));
            }
            Link::Waiting { .. } | Link::Connecting { .. } | Link::Greeting { .. } => {}
            Link::Open(open) => {
                if let Some(late) = open.is_late(now) {
                    return Err(Over::Retry(late));
                }
                if open.next_ping <= now {
                    open.next_ping = now + millis(times::PING);
                    context.send(open.connection, End::Device, Wire::Ping);
                }
                if open.refresh_at.is_some_and(|at| at <= now) {
                    self.refresh(context)?;
                }
            }
        }
        self.drain(context)
    }

    fn token(&mut self, context: &Context<'_>) -> Option<(String, u64)> {
        let process = self.process.as_ref()?;
        if context.now() < self.no_token_until {
            return None;
        }
        let seconds = if self.is_calm {
            3_600
        } else {
            self.chance.between(60, 600)
        };
        Some(
            context
                .town
                .token(self.index, process.core.device(), context.now(), seconds),
        )
    }

    fn connect(&mut self, context: &mut Context<'_>) -> Step {
        let Some(token) = self.token(context) else {
            context.count(Fault::TokenExpired);
            return Err(Over::Retry("no token"));
        };
        let now = clock(context.now(), self.offset);
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        process.core.handle_token(&token.0, now)?;
        let connection = context.network.connect(self.index);
        let by = context.now() + millis(times::TRANSPORT);
        process.link = Link::Connecting {
            connection,
            by,
            token,
        };
        context.send(connection, End::Device, Wire::Connect);
        Ok(())
    }

    fn step_arrival(&mut self, wire: Wire, context: &mut Context<'_>) -> Step {
        let (now, device) = (context.now(), self.index);
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if let Link::Open(open) = &mut process.link {
            open.heard = now;
        }
        match wire {
            Wire::Reset => return Err(Over::Retry("the connection is broken")),
            Wire::Close(code) => {
                context.note([4, device as u64, u64::from(code)], || {
                    format!("device {device} is closed with {code}")
                });
                return Err(closed_with(code));
            }
            Wire::Ping => {
                if let Some(connection) = process.link.connection() {
                    context.send(connection, End::Device, Wire::Pong);
                }
            }
            Wire::Pong | Wire::Connect => {}
            Wire::Upgraded => self.greet(context),
            Wire::Record(record) => match &mut process.link {
                Link::Greeting { .. } => self.finish_handshake(&record, context)?,
                Link::Open(open) => {
                    open.unread.push_back(record);
                    self.read(context)?;
                }
                Link::Waiting { .. } | Link::Connecting { .. } => {
                    return Err(Over::Retry("a record before the upgrade"));
                }
            },
        }
        self.drain(context)
    }

    fn greet(&mut self, context: &mut Context<'_>) {
        let Some(process) = &mut self.process else {
            return;
        };
        let link = std::mem::replace(&mut process.link, Link::Waiting { until: Millis::MAX });
        process.link = match link {
            Link::Connecting {
                connection, token, ..
            } => {
                let (hello, bytes) = DeviceHello::start(self.chance.rng());
                context.send(connection, End::Device, Wire::Record(bytes));
                let by = context.now() + millis(times::HANDSHAKE);
                Link::Greeting {
                    connection,
                    by,
                    hello: Box::new(hello),
                    token,
                }
            }
            other => other,
        };
    }

    fn finish_handshake(&mut self, accept: &[u8], context: &mut Context<'_>) -> Step {
        let now = context.now();
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let link = std::mem::replace(&mut process.link, Link::Waiting { until: Millis::MAX });
        let Link::Greeting {
            connection,
            hello,
            token,
            ..
        } = link
        else {
            return Ok(());
        };
        let relays = [context.town.relay().thumbprint()];
        let done = process.core.with_key(|key| {
            let terms = DeviceTerms {
                relays: &relays,
                key,
                credential: Credential::Token(token.0.as_bytes()),
                now: clock(now, self.offset) / 1_000,
            };
            hello.on_accept(accept, &terms)
        });
        match done {
            Ok((link, finish)) => {
                context.send(connection, End::Device, Wire::Record(finish));
                process.link = Link::Open(Box::new(Open::new(connection, link, now)));
                Ok(())
            }
            Err(error) => {
                context.send(
                    connection,
                    End::Device,
                    Wire::Close(error.close_code().code()),
                );
                context.network.forget(connection);
                Err(Over::Closed(format!("the handshake: {error}")))
            }
        }
    }

    /// Takes what has arrived, as far as there is room.
    fn read(&mut self, context: &mut Context<'_>) -> Step {
        let now = context.now();
        loop {
            let clock = clock(now, self.offset);
            let Some(process) = &mut self.process else {
                return Ok(());
            };
            let Link::Open(open) = &mut process.link else {
                return Ok(());
            };
            if !process.core.may_read() {
                return Ok(());
            }
            let Some(mut record) = open.unread.pop_front() else {
                return Ok(());
            };
            let frames = match open.link.handle_message(&mut record) {
                Ok(frames) => frames,
                Err(error) => {
                    context.send(
                        open.connection,
                        End::Device,
                        Wire::Close(error.close_code().code()),
                    );
                    context.network.forget(open.connection);
                    return Err(Over::Closed(format!("a record: {error}")));
                }
            };
            let before = process.core.position();
            let mut refresh = None;
            for frame in frames {
                match process.core.handle_frame(frame, clock)? {
                    Heard::Nothing => {}
                    Heard::Answer(request) => open.answered(request, now),
                    Heard::Ready { expires, time } => {
                        open.ready_by = None;
                        process.refused = false;
                        open.plan_refresh(expires, time, now);
                        let (device, connection) = (self.index as u64, open.connection);
                        context.note([5, device, connection], || {
                            format!("device {device} is let in on {connection}")
                        });
                    }
                    Heard::Refreshed(request, expires) => {
                        open.answered(request, now);
                        refresh = expires;
                    }
                    Heard::NotRefreshed(request) => {
                        open.answered(request, now);
                        open.refresh_at = Some(now + millis(times::REFRESH_RETRY));
                    }
                }
            }
            if let Some(expires) = refresh {
                open.plan_refresh(expires, clock / 1_000, now);
            }
            let position = process.core.position();
            if self.canary == Some(Canary::EarlyAck) && position > before {
                // Before anything of it is committed.
                let record = open.link.seal_frame(&ToRelay::Ack { position });
                let record = record.map_err(|error| Over::Closed(error.to_string()))?;
                context.send(open.connection, End::Device, Wire::Record(record));
            }
        }
    }

    fn refresh(&mut self, context: &mut Context<'_>) -> Step {
        let token = self.token(context);
        let (now, clock) = (context.now(), clock(context.now(), self.offset));
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Link::Open(open) = &mut process.link else {
            return Ok(());
        };
        open.refresh_at = None;
        open.refresh_after = now + millis(times::REFRESH_FLOOR);
        let Some((token, expires)) = token else {
            context.count(Fault::TokenExpired);
            open.refresh_at = Some(now + millis(times::REFRESH_RETRY));
            return Ok(());
        };
        process.core.handle_token(&token, clock)?;
        let request = process.core.begin_refresh(Some(expires));
        open.asked(request, now);
        let proof = process.core.with_key(|key| {
            open.link
                .refresh_proof(key, token.as_bytes(), clock / 1_000)
        });
        let frame = ToRelay::Refresh {
            request,
            proof: proof.as_bytes(),
            token: token.as_bytes(),
        };
        let mut batch = Batch::new();
        batch
            .push(&frame)
            .map_err(|error| Over::Closed(error.to_string()))?;
        let record = open
            .link
            .seal(batch)
            .map_err(|error| Over::Closed(error.to_string()))?;
        context.send(open.connection, End::Device, Wire::Record(record));
        Ok(())
    }

    /// After everything: what is to be sent is sent, and what the application is to know it is told.
    fn drain(&mut self, context: &mut Context<'_>) -> Step {
        self.read(context)?;
        self.pump(context)?;
        self.tell(context)?;
        self.pump(context)
    }

    fn pump(&mut self, context: &mut Context<'_>) -> Step {
        let (now, clock) = (context.now(), clock(context.now(), self.offset));
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Process { core, link, .. } = process;
        let shuffles = self.canary == Some(Canary::Disorder) && self.chance.coin();
        let mut outgoing = Outgoing {
            open: None,
            batch: Batch::new(),
            later: shuffles.then(Batch::new),
            records: Vec::new(),
        };
        if let Link::Open(open) = link {
            outgoing.open = Some(open);
        }
        let (ledger, town, disk) = (&mut *context.ledger, &*context.town, &self.disk);
        let pumped = core.pump(clock, |frame| {
            if disk.is_dead_here() {
                return false;
            }
            if let ToRelay::Send(send) = frame {
                let parts = send.parts.iter().chain(send.copies.iter());
                if send.whole {
                    ledger.sealed(&send.id, parts.filter_map(|part| town.device(&part.device)));
                }
            }
            outgoing.push(frame, now)
        });
        outgoing.seal();
        if let Some(later) = outgoing.later.take() {
            outgoing.batch = later;
            outgoing.seal();
        }
        let Outgoing { open, records, .. } = outgoing;
        if let Some(open) = open {
            let connection = open.connection;
            for record in records {
                context.send(connection, End::Device, Wire::Record(record));
            }
        }
        pumped?;
        self.check_bounds(context);
        // What was acknowledged before is durable now.
        if let Some(process) = &mut self.process
            && process.core.has_erased()
        {
            for number in std::mem::take(&mut process.acknowledged) {
                context.ledger.done(self.index, number);
            }
        }
        Ok(())
    }

    fn check_bounds(&self, context: &mut Context<'_>) {
        let Some(process) = &self.process else { return };
        let waiting = process.core.waiting();
        context.ledger.check(Invariant::Bounds);
        if waiting.outgoing > bounds::OUTGOING
            || waiting.own > bounds::OWN
            || waiting.events > bounds::EVENTS
            || waiting.lost > bounds::LOST
        {
            context.ledger.violate(
                Invariant::Bounds,
                format!("device {}: {waiting:?}", self.index),
            );
        }
    }

    /// Tells the application what has happened.
    fn tell(&mut self, context: &mut Context<'_>) -> Step {
        let now = context.now();
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let mut open = Vec::new();
        for (number, mut pending) in std::mem::take(&mut process.pending) {
            match pending.poll() {
                None => open.push((number, pending)),
                Some(Some(Ok(_))) => {
                    context.ledger.accepted(number);
                    context.note([6, number as u64, 0], || {
                        format!("message {number} is accepted")
                    });
                }
                Some(Some(Err(error))) => {
                    context.note([7, number as u64, 0], || {
                        format!("message {number} fails: {error}")
                    });
                    context.ledger.failed(number, error.to_string());
                }
                Some(None) => {}
            }
        }
        process.pending = open;
        while let Some((event, kept)) = process.core.next_event() {
            match event {
                Event::Message(received)
                | Event::Copy {
                    message: received, ..
                } => {
                    let number = show(self.index, &received, context);
                    let due = match self.chance.below(10) {
                        _ if self.is_calm => now,
                        0..6 => now,
                        6..9 => now + self.chance.mostly_small(20_000),
                        // Never, until the next restart.
                        _ => Millis::MAX,
                    };
                    process.held.push(Held {
                        received,
                        number,
                        due,
                    });
                }
                other => tell_event(self.index, &other, context),
            }
            process.core.event_taken(kept);
        }
        for held in std::mem::take(&mut process.held) {
            if held.due > now {
                process.held.push(held);
            } else {
                if self.chance.coin() {
                    held.received.read()
                } else {
                    held.received.ack()
                }
                process.acknowledged.extend(held.number);
            }
        }
        Ok(())
    }

    /// Nothing bad happens any more.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.offset = 0;
        self.no_token_until = 0;
        self.disk.calm();
        if let Some(process) = &mut self.process {
            for held in &mut process.held {
                held.due = 0;
            }
        }
    }

    /// What a step came to.
    fn conclude(&mut self, step: Step, context: &mut Context<'_>) {
        let over = match step {
            _ if self.disk.is_dead() => Over::Dead,
            Ok(()) => return,
            Err(over) => over,
        };
        let now = context.now();
        let Some(process) = &mut self.process else {
            return;
        };
        match over {
            Over::Dead => {
                let fault = if self.dies_with_machine {
                    Fault::DeviceCrash
                } else {
                    Fault::DeviceKill
                };
                context.count(fault);
                self.stop(self.dies_with_machine, "killed", context);
            }
            Over::Closed(why) => {
                context.note([8, self.index as u64, 0], || {
                    format!("device {}: client closed: {why}", self.index)
                });
                self.stop(false, "the client closed", context);
            }
            Over::Credential if process.refused => {
                // The application has nothing better now, and tries again later.
                self.stop(false, "not authorised", context);
            }
            Over::Retry(_) | Over::Credential => {
                let why = match over {
                    Over::Retry(why) => why,
                    _ => {
                        process.refused = true;
                        "another token is needed"
                    }
                };
                if let Link::Open(open) = &process.link
                    && now >= open.since + millis(times::STABLE)
                {
                    process.backoff.reset();
                }
                if let Some(connection) = process.link.connection() {
                    context.send(connection, End::Device, Wire::Reset);
                }
                process.core.handle_disconnected();
                let delay = millis(process.backoff.next_delay(self.chance.rng()));
                context.note([9, self.index as u64, delay], || {
                    format!(
                        "device {} lost its link ({why}), again in {delay} ms",
                        self.index
                    )
                });
                process.link = Link::Waiting { until: now + delay };
            }
        }
    }
}

fn show(device: usize, received: &Received, context: &mut Context<'_>) -> Option<Number> {
    let from = context.town.device(&received.device);
    let number = context.ledger.shown(
        device,
        from,
        received.id.as_bytes(),
        received.message.body(),
        received.redelivered,
    );
    context.note(
        [
            10,
            device as u64,
            number.map_or(u64::MAX, |number| number as u64),
        ],
        || format!("device {device} shows message {number:?}"),
    );
    number
}

fn tell_event(device: usize, event: &Event, context: &mut Context<'_>) {
    context.note([11, device as u64, 0], || {
        format!("device {device} is told {event:?}")
    });
    let by = |thumbprint: &Thumbprint, context: &Context<'_>| context.town.device(thumbprint);
    match event {
        Event::Delivered {
            id,
            device: by_device,
            ..
        } => {
            if let Some(by_device) = by(by_device, context) {
                context.ledger.delivered(id.as_bytes(), by_device);
            }
        }
        Event::Read {
            id,
            device: by_device,
            ..
        } => {
            if let Some(by_device) = by(by_device, context) {
                context.ledger.read(id.as_bytes(), by_device);
            }
        }
        Event::NotSent { id, reason, .. } => {
            if let Some(number) = context.ledger.number(id.as_bytes()) {
                context.ledger.failed(number, format!("{reason:?}"));
            }
        }
        Event::Undecryptable {
            id, device: from, ..
        } => {
            let from = by(from, context);
            context.ledger.undecryptable(id.as_bytes(), from, device);
        }
        Event::StoreRestored => context.ledger.told_restored(device),
        _ => {}
    }
}

/// What a close code means for a device (docs/protocol.md §13).
fn closed_with(code: u16) -> Over {
    match (CloseCode::from_code(code), Retry::of_code(code)) {
        (Some(CloseCode::Replaced), _) => Over::Closed("replaced".to_owned()),
        (Some(CloseCode::Normal), _) | (_, Retry::BackOff | Retry::Later) => {
            Over::Retry("closed by the relay")
        }
        (_, Retry::NewCredential) => Over::Credential,
        (_, Retry::Never) => Over::Closed(format!("the relay says {code}")),
    }
}

/// Frames on their way into records.
struct Outgoing<'a> {
    open: Option<&'a mut Box<Open>>,
    batch: Batch<DeviceToRelay>,
    /// For a canary: the first message goes after the others.
    later: Option<Batch<DeviceToRelay>>,
    records: Vec<Vec<u8>>,
}

impl Outgoing<'_> {
    fn push(&mut self, frame: &ToRelay<'_>, now: Millis) -> bool {
        if let (Some(open), Some(request)) = (&mut self.open, request_of(frame)) {
            open.asked(request, now);
        }
        if let (ToRelay::Send(_), Some(later)) = (frame, &mut self.later)
            && later.is_empty()
        {
            return later.push(frame).is_ok();
        }
        match self.batch.push(frame) {
            Ok(()) => true,
            Err(Misuse::BatchFull) => {
                self.seal();
                self.batch.push(frame).is_ok()
            }
            Err(_) => false,
        }
    }

    fn seal(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(open) = &mut self.open
            && !batch.is_empty()
            && let Ok(record) = open.link.seal(batch)
        {
            self.records.push(record);
        }
    }
}

fn request_of(frame: &ToRelay<'_>) -> Option<u32> {
    match frame {
        ToRelay::Send(send) => Some(send.request),
        ToRelay::PublishCard { request, .. }
        | ToRelay::PublishPrekeys { request, .. }
        | ToRelay::FetchCards { request, .. }
        | ToRelay::RemoveDevice { request, .. }
        | ToRelay::Refresh { request, .. } => Some(*request),
        ToRelay::Upload(_) | ToRelay::Download { .. } | ToRelay::Discard { .. } => None,
        ToRelay::Ack { .. } => None,
    }
}

impl Process {
    fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_))
    }
}

impl Link {
    fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Waiting { .. } => None,
            Self::Connecting { connection, .. } | Self::Greeting { connection, .. } => {
                Some(*connection)
            }
            Self::Open(open) => Some(open.connection),
        }
    }

    fn deadline(&self) -> Millis {
        match self {
            Self::Waiting { until } => *until,
            Self::Connecting { by, .. } | Self::Greeting { by, .. } => *by,
            Self::Open(open) => open.deadline(),
        }
    }
}

impl Open {
    fn new(connection: ConnectionId, link: DeviceLink, now: Millis) -> Self {
        Self {
            connection,
            link,
            since: now,
            next_ping: now + millis(times::PING),
            ready_by: Some(now + millis(times::HANDSHAKE)),
            refresh_at: None,
            refresh_after: now,
            heard: now,
            progress: now,
            asked: BTreeMap::new(),
            unread: VecDeque::new(),
        }
    }

    fn asked(&mut self, request: u32, now: Millis) {
        if self.asked.is_empty() {
            self.progress = now;
        }
        self.asked.insert(request, now);
    }

    fn answered(&mut self, request: u32, now: Millis) {
        self.asked.remove(&request);
        self.progress = now;
    }

    fn plan_refresh(&mut self, expires: u64, time: u64, now: Millis) {
        let left = expires.saturating_sub(time).saturating_mul(1_000);
        let ahead = millis(times::REFRESH_AHEAD).min(left / 4);
        self.refresh_at = Some((now + left.saturating_sub(ahead)).max(self.refresh_after));
    }

    fn late_at(&self) -> [(Option<Millis>, &'static str); 4] {
        let some = (!self.asked.is_empty()).then_some(self.progress + millis(times::REQUEST));
        let oldest = self
            .asked
            .values()
            .min()
            .map(|at| at + millis(times::ANSWER));
        // What waits to be read is not the relay's fault.
        let silence = self
            .unread
            .is_empty()
            .then_some(self.heard + millis(times::SILENCE));
        [
            (silence, "silence"),
            (some.filter(|_| self.unread.is_empty()), "no answers"),
            (
                oldest.filter(|_| self.unread.is_empty()),
                "a request is not answered",
            ),
            (self.ready_by, "not let in"),
        ]
    }

    fn is_late(&self, now: Millis) -> Option<&'static str> {
        let late = self
            .late_at()
            .into_iter()
            .find(|(at, _)| at.is_some_and(|at| at <= now));
        late.map(|(_, why)| why)
    }

    fn deadline(&self) -> Millis {
        let late = self.late_at().into_iter().filter_map(|(at, _)| at).min();
        [late, self.refresh_at]
            .into_iter()
            .flatten()
            .fold(self.next_ping, Millis::min)
    }
}

fn millis(duration: std::time::Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
