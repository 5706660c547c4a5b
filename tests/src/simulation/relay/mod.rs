//! The relay of the simulation: the real links, directory and mailboxes, on a disk that fails, with a clock that jumps.
//!
//! ```text
//!  network ⇄ connections ⇄ Link ── requests ──▶ stores ── flush, a little later ──▶ Disk
//! ```

mod bounds;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, Waker};
use std::time::Duration;

use sealwire_protocol::key::SigningKey;
use sealwire_protocol::key_set::Ed25519KeySet;
use sealwire_protocol::name::Issuer;
use sealwire_server::mail::{MailOptions, MailboxLimits};
use sealwire_server::policy::Allowance;
use sealwire_server::simulation::{
    self as server, Config, Ended, Handshake, Link, MailLoad, Now, ROOM, Transmit,
};

use super::chance::Chance;
use super::disk::{Disk, Folder};
use super::fault::Fault;
use super::ledger::Invariant;
use super::network::{ConnectionId, End, Wire};
use super::schedule::Millis;
use super::town::clock;
use super::world::Context;
use crate::issuer::{AUDIENCE, ISSUER};

/// The name of the directory's store on the disk.
const STORE: &str = "relay";
/// Milliseconds until a connection has to have authenticated.
const HANDSHAKE: Millis = 5_000;
/// Milliseconds between two sweeps.
const SWEEP: Millis = 60_000;
/// Milliseconds until one that had no room in the queue is repeated.
const SOON: Millis = 10;
/// Bytes that a connection takes although they are not at the device.
const SOCKET_BYTES: usize = 64 << 10;
/// Records that wait for a link at most: what does not fit waits at the device.
const MAX_UNREAD: usize = 4_096;

/// The relay.
pub(super) struct Relay {
    /// Its disk.
    pub disk: Disk,
    /// How far its clock is off, in milliseconds.
    pub offset: i64,
    /// How its process ends when its disk says so: with the machine, or alone.
    pub dies_with_machine: bool,
    /// Nothing bad happens any more.
    pub is_calm: bool,
    chance: Chance,
    allowance: Allowance,
    mail: MailOptions,
    process: Option<Process>,
    starts_at: Option<Millis>,
}

struct Process {
    relay: server::Relay,
    connections: BTreeMap<ConnectionId, Connection>,
    /// What ended links have begun.
    rest: Vec<Work>,
    /// When the stores are written next.
    flush_at: Option<Millis>,
    sweep_at: Millis,
    /// What was in its mailboxes when it started: of what was acknowledged a crash may have lost the last.
    began_with: MailLoad,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Connection {
    state: State,
    unread: VecDeque<Vec<u8>>,
    /// Bytes on their way to the device.
    on_the_way: usize,
}

enum State {
    Greeting {
        by: Millis,
    },
    Proving {
        by: Millis,
        handshake: Box<Handshake>,
    },
    Open(Box<Link>),
}

impl Relay {
    /// A relay that was never started.
    #[must_use]
    pub(super) fn new(mut chance: Chance, small: Option<(MailboxLimits, usize)>) -> Self {
        let mut mail = MailOptions::default();
        mail.identity = Some(chance.bytes32());
        // Small, so that in a short run segments end, checkpoints are made, and mail is read from the disk.
        mail.segment_bytes = 512 << 10;
        mail.recent_bytes = usize::try_from(chance.mostly_small(256 << 10)).unwrap_or_default();
        mail.checkpoint_bytes = 1 + chance.mostly_small(256 << 10);
        let mut allowance = Allowance::default();
        if let Some((limits, queue_bytes)) = small {
            allowance.mailbox = limits;
            mail.queue_bytes = queue_bytes;
        }
        Self {
            mail,
            disk: Disk::new(chance.fork()),
            offset: 0,
            dies_with_machine: false,
            is_calm: false,
            chance,
            allowance,
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
        let now = self.now(now);
        let links = process
            .connections
            .values()
            .map(|connection| match &connection.state {
                State::Greeting { by } | State::Proving { by, .. } => *by,
                State::Open(link) => link.deadline(now),
            });
        links
            .chain(process.flush_at)
            .chain([process.sweep_at])
            .min()
    }

    /// Whether its process runs.
    #[must_use]
    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// What it is doing, for a report.
    #[must_use]
    pub(super) fn status(&self) -> String {
        match &self.process {
            None => format!("stopped until {:?}", self.starts_at),
            Some(process) => format!("{} connections", process.connections.len()),
        }
    }

    /// Something is due.
    pub(super) fn wake(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        if self.process.is_none() {
            if self.starts_at.is_some_and(|at| at <= now) {
                self.start(context);
            }
            return;
        }
        let steady = self.now(now);
        let Some(process) = &mut self.process else {
            return;
        };
        if process.sweep_at <= now {
            process.sweep_at = now + SWEEP;
            // A failure shows in the next write too.
            while let Ok(swept) = process.relay.sweep(steady) {
                if swept.waits {
                    process.sweep_at = now + SOON;
                }
                if !swept.more {
                    break;
                }
            }
            process.want_flush(now, &mut self.chance);
        }
        let late: Vec<_> = process
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_late(now))
            .collect();
        let late: Vec<_> = late.into_iter().map(|(id, _)| *id).collect();
        for id in late {
            process.close(id, 4_003, "the handshake was not complete in time", context);
        }
        let ids: Vec<_> = process.connections.keys().copied().collect();
        for id in ids {
            process.with_link(id, context, |link| link.handle_timeout(steady));
        }
        if process.flush_at.is_some_and(|at| at <= now) {
            process.flush_at = None;
            check_bounds(process, &self.allowance, context);
            process.relay.flush_directory();
            if process.relay.flush_mail() {
                process.want_flush(now, &mut self.chance);
            }
        }
        self.drain(context);
    }

    /// Something has arrived.
    pub(super) fn arrive(&mut self, id: ConnectionId, wire: Wire, context: &mut Context<'_>) {
        let now = context.now();
        let steady = self.now(now);
        let Some(process) = &mut self.process else {
            return;
        };
        if wire == Wire::Connect {
            let connection = Connection {
                state: State::Greeting {
                    by: now + HANDSHAKE,
                },
                unread: VecDeque::new(),
                on_the_way: 0,
            };
            process.connections.insert(id, connection);
            context.send(id, End::Relay, Wire::Upgraded);
            return;
        }
        let Some(connection) = process.connections.get_mut(&id) else {
            if !matches!(wire, Wire::Reset | Wire::Close(_)) {
                context.send(id, End::Relay, Wire::Reset);
            }
            return;
        };
        match wire {
            Wire::Connect | Wire::Upgraded => {}
            Wire::Reset | Wire::Close(_) => process.end(id, context),
            Wire::Ping => {
                context.send(id, End::Relay, Wire::Pong);
                process.with_link(id, context, |link| link.handle_ping(steady));
            }
            Wire::Pong => process.with_link(id, context, |link| link.handle_pong(steady)),
            Wire::Record(record) => {
                if connection.unread.len() < MAX_UNREAD {
                    connection.unread.push_back(record);
                }
                process.want_flush(now, &mut self.chance);
            }
        }
        self.drain(context);
    }

    /// A device has taken what was on its way.
    pub(super) fn taken(&mut self, id: ConnectionId, bytes: usize, context: &mut Context<'_>) {
        let Some(connection) = self
            .process
            .as_mut()
            .and_then(|process| process.connections.get_mut(&id))
        else {
            return;
        };
        connection.on_the_way = connection.on_the_way.saturating_sub(bytes);
        if connection.on_the_way < SOCKET_BYTES
            && let State::Open(link) = &mut connection.state
        {
            link.handle_flushed();
        }
        self.drain(context);
    }

    /// The process is gone. With the machine, its connections are left as they are.
    pub(super) fn stop(&mut self, with_machine: bool, why: &str, context: &mut Context<'_>) {
        let Some(process) = self.process.take() else {
            return;
        };
        let ids: Vec<_> = process.connections.keys().copied().collect();
        // A dead process writes nothing more.
        if with_machine {
            self.disk.crash()
        } else {
            self.disk.kill()
        }
        drop(process);
        if !with_machine {
            for id in ids {
                context.send(id, End::Relay, Wire::Reset);
            }
        }
        let rest = if self.is_calm { 1_000 } else { 15_000 };
        let rest = 100 + self.chance.mostly_small(rest);
        self.starts_at = Some(context.now() + rest);
        context.note([20, u64::from(with_machine), 0], || {
            format!(
                "relay stops ({why}{}), back in {rest} ms",
                if with_machine { ", power lost" } else { "" }
            )
        });
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.starts_at = None;
        match self.open(context) {
            Ok(relay) => {
                context.note([21, 0, 0], || "relay starts");
                let (starting, now) = (relay.clone(), self.now(context.now()));
                let start: Work = Box::pin(async move {
                    // A failure shows in the next write too.
                    let _ = starting.start(now).await;
                });
                self.process = Some(Process {
                    began_with: relay.load().mail,
                    relay,
                    connections: BTreeMap::new(),
                    rest: vec![start],
                    flush_at: Some(context.now()),
                    sweep_at: context.now() + SWEEP,
                });
            }
            Err(error) => {
                context.note([22, 0, 0], || {
                    format!("relay cannot open its store: {error}")
                });
                if self.is_calm && !self.disk.is_dead() {
                    context.ledger.violate(
                        Invariant::Rest,
                        format!("the relay cannot open its store any more: {error}"),
                    );
                }
                if self.disk.is_dead() && self.dies_with_machine {
                    self.disk.crash()
                } else {
                    self.disk.kill()
                }
                self.starts_at = Some(context.now() + self.chance.between(500, 3_000));
            }
        }
    }

    fn open(&mut self, context: &Context<'_>) -> Result<server::Relay, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let town = &*context.town;
        let config = || -> Result<Config, String> {
            Ok(Config {
                relay_key: SigningKey::from_seed(&town.relay().seed()),
                issuer: Issuer::new(ISSUER).map_err(|error| text(&error))?,
                audience: AUDIENCE.to_owned(),
                issuer_keys: Arc::new(Ed25519KeySet::single(*town.issuer_key())),
                mail: self.mail.clone(),
                allowance: self.allowance,
                keep_alive: Duration::from_secs(30),
                write_timeout: Duration::from_secs(30),
                cache_bytes: 1 << 20,
            })
        };
        if !self.disk.exists(STORE).map_err(|error| text(&error))? {
            // A database that a crash interrupts while it is made is of no use, so it gets its name when it is there.
            let file = self.disk.create("new").map_err(|error| text(&error))?;
            let nowhere = Folder::new(self.disk.clone(), "nowhere");
            server::Relay::open(file, Arc::new(nowhere), config()?)
                .map_err(|error| text(&error))?;
            self.disk
                .rename("new", STORE)
                .map_err(|error| text(&error))?;
            self.disk.sync_names().map_err(|error| text(&error))?;
        }
        let file = self.disk.open(STORE).map_err(|error| text(&error))?;
        let folder = Folder::new(self.disk.clone(), "mail");
        server::Relay::open(file, Arc::new(folder), config()?).map_err(|error| text(&error))
    }

    fn now(&self, now: Millis) -> Now {
        Now {
            millis: clock(now, self.offset),
            steady_millis: now,
        }
    }

    /// After everything: what waits is done as far as it can be, and what is to be sent is sent.
    fn drain(&mut self, context: &mut Context<'_>) {
        let now = self.now(context.now());
        if let Some(process) = &mut self.process {
            while process.turn(now, &mut self.chance, &self.disk, context) && !self.disk.is_dead() {
            }
        }
        if self.disk.is_dead() {
            let fault = if self.dies_with_machine {
                Fault::RelayCrash
            } else {
                Fault::RelayKill
            };
            context.count(fault);
            self.stop(self.dies_with_machine, "killed", context);
        } else if self
            .process
            .as_ref()
            .is_some_and(|process| !process.relay.is_writable())
        {
            self.stop(false, "a write failed", context);
        }
    }

    /// Nothing bad happens any more.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.offset = 0;
        self.disk.calm();
    }
}

impl Process {
    /// Everything that can be done now, once; whether there may be more.
    fn turn(
        &mut self,
        now: Now,
        chance: &mut Chance,
        disk: &Disk,
        context: &mut Context<'_>,
    ) -> bool {
        let mut poller = Poller::from_waker(Waker::noop());
        self.rest
            .retain_mut(|work| work.as_mut().poll(&mut poller).is_pending());
        let mut more = false;
        let ids: Vec<_> = self.connections.keys().copied().collect();
        for id in ids {
            match self.turn_link(id, now, chance, disk, context) {
                Ok(progress) => more |= progress,
                Err(ended) => {
                    let code = ended.code.map(|code| code.code());
                    match code {
                        Some(code) => self.close(id, code, &ended.why, context),
                        None => self.end(id, context),
                    }
                    more = true;
                }
            }
            if disk.is_dead() {
                return false;
            }
        }
        more
    }

    fn turn_link(
        &mut self,
        id: ConnectionId,
        now: Now,
        chance: &mut Chance,
        disk: &Disk,
        context: &mut Context<'_>,
    ) -> Result<bool, Ended> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Ok(false);
        };
        let mut progress = false;
        loop {
            if let State::Open(link) = &connection.state
                && !link.takes_records()
            {
                break;
            }
            let Some(mut record) = connection.unread.pop_front() else {
                break;
            };
            progress = true;
            if disk.is_dead_here() {
                return Ok(false);
            }
            let by = context.now() + HANDSHAKE;
            let state = std::mem::replace(&mut connection.state, State::Greeting { by });
            connection.state = match state {
                State::Greeting { by } => {
                    let (handshake, accept) = self.relay.accept(&record, chance.rng(), now)?;
                    context.send(id, End::Relay, Wire::Record(accept));
                    State::Proving {
                        by,
                        handshake: Box::new(handshake),
                    }
                }
                State::Proving { handshake, .. } => {
                    let mut finishing = Box::pin(handshake.finish(record, now));
                    match finishing
                        .as_mut()
                        .poll(&mut Poller::from_waker(Waker::noop()))
                    {
                        Poll::Ready(link) => State::Open(Box::new(link?)),
                        Poll::Pending => State::Greeting { by },
                    }
                }
                State::Open(mut link) => {
                    let handled = link.handle_record(&mut record, now);
                    // Also where it ends here: what it has begun goes on.
                    connection.state = State::Open(link);
                    handled?;
                    continue;
                }
            };
        }
        let State::Open(link) = &mut connection.state else {
            return Ok(progress);
        };
        while let Poll::Ready(finished) =
            link.poll_finished(now, &mut Poller::from_waker(Waker::noop()))
        {
            finished?;
            progress = true;
        }
        while link.handle_news()? {
            progress = true;
        }
        while let Some(transmit) =
            link.poll_transmit(ROOM.saturating_sub(connection.on_the_way), now)?
        {
            progress = true;
            if disk.is_dead_here() {
                return Ok(false);
            }
            match transmit {
                Transmit::Record(record) => {
                    connection.on_the_way += record.len();
                    context.send(id, End::Relay, Wire::Record(record));
                }
                Transmit::Ping => context.send(id, End::Relay, Wire::Ping),
            }
        }
        if connection.on_the_way < SOCKET_BYTES {
            link.handle_flushed();
        }
        Ok(progress)
    }

    fn with_link(
        &mut self,
        id: ConnectionId,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut Link) -> Result<(), Ended>,
    ) {
        if let Some(Connection {
            state: State::Open(link),
            ..
        }) = self.connections.get_mut(&id)
            && let Err(ended) = work(link)
        {
            match ended.code {
                Some(code) => self.close(id, code.code(), &ended.why, context),
                None => self.end(id, context),
            }
        }
    }

    fn close(&mut self, id: ConnectionId, code: u16, why: &str, context: &mut Context<'_>) {
        context.note([23, id, u64::from(code)], || {
            format!("relay closes {id} with {code}: {why}")
        });
        if code == 4_101 {
            context.count(Fault::TokenExpired);
        }
        context.send(id, End::Relay, Wire::Close(code));
        self.end(id, context);
    }

    fn end(&mut self, id: ConnectionId, context: &mut Context<'_>) {
        if let Some(Connection {
            state: State::Open(link),
            ..
        }) = self.connections.remove(&id)
        {
            self.rest.push(Box::pin(link.close()));
        }
        let _ = context;
    }

    fn want_flush(&mut self, now: Millis, chance: &mut Chance) {
        if self.flush_at.is_none() {
            self.flush_at = Some(now + chance.mostly_small(60));
        }
    }
}

/// Whether what the relay holds is within its bounds.
fn check_bounds(process: &Process, allowance: &Allowance, context: &mut Context<'_>) {
    let links = process
        .connections
        .values()
        .filter(|connection| matches!(connection.state, State::Open(_)));
    let load = process.relay.load();
    context.ledger.check(Invariant::Bounds);
    if let Some(what) = bounds::over(&load, &process.began_with, allowance, links.count()) {
        context.ledger.violate(
            Invariant::Bounds,
            format!("the relay has too many {what}: {load:?}"),
        );
    }
}

impl Connection {
    fn is_late(&self, now: Millis) -> bool {
        match &self.state {
            State::Greeting { by } | State::Proving { by, .. } => *by <= now,
            State::Open(_) => false,
        }
    }
}
