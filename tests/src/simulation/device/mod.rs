//! A device of the simulation: its application, its process with the real engine and link, its disk and its clock.
//!
//! ```text
//!  application ⇄ Core (engine, store on a Disk) ⇄ DeviceLink ⇄ network
//!       └── after every restart sends again what it does not know the fate of
//! ```
//! What a connection does in time (pings, patience, back-off, refreshes) is as in the client's own driver, in virtual time.
//! Here is the process: how it starts, stops and dies. Its link is driven in `driving`, its application is in `application`.

mod application;
mod bounds;
mod driving;
mod link;

use sealwire_client::simulation::{Backoff, Core, Ended, Pending, Removal, times};
use sealwire_client::{FileStore, StoreKey};

use super::Canary;
use super::chance::Chance;
use super::disk::Disk;
use super::fault::Fault;
use super::ledger::{Alarm, Invariant, Number};
use super::network::{ConnectionId, End, Wire};
use super::schedule::Millis;
use super::town::clock;
use super::world::Context;
use application::Held;
use link::{Link, millis};

/// The name of the store on the disk.
const STORE: &str = "device";

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
    /// When it starts again; never, once it was told that it is removed.
    starts_at: Option<Millis>,
    /// The device that its user wants it to remove.
    removes: Option<usize>,
    is_gone: bool,
}

/// What is lost when the process ends.
struct Process {
    core: Core,
    link: Link,
    backoff: Backoff,
    /// A credential was refused since the relay last let the device in.
    refused: bool,
    /// Because the device is removed.
    revoked: bool,
    /// Links that were up and ended with a record that did not hold, since one was stable.
    faults: u32,
    /// The relay has let the device in, and what that means is not stored yet: whether the store is an earlier copy.
    let_in: Option<bool>,
    removal: Option<Removal>,
    pending: Vec<(Number, Pending)>,
    /// Messages that the application has and has not acknowledged.
    held: Vec<Held>,
    /// Acknowledgements that are not durable for certain.
    acknowledged: Vec<Number>,
    /// What else the application was told, and may be told again after a restart.
    told: Vec<Alarm>,
}

/// Why a link, or more, ends.
enum Over {
    /// It may be tried again.
    Retry(&'static str),
    /// With another token, if the device is not removed.
    Credential { revoked: bool },
    /// A record did not hold, here or there: whoever carries them may have changed it.
    Fault(String),
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
            removes: None,
            is_gone: false,
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
        [Some(process.link.deadline()), engine, held]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it is connected and has nothing more to do.
    #[must_use]
    pub(super) fn is_at_rest(&self) -> bool {
        if self.is_gone {
            return true;
        }
        self.process.as_ref().is_some_and(|process| {
            process.is_open()
                && process.removal.is_none()
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

    /// It is away until then.
    pub(super) fn leave(&mut self, until: Millis, context: &mut Context<'_>) {
        if self.is_gone {
            return;
        }
        context.count(Fault::Away);
        self.stop(false, "away", context);
        context.ledger.away(self.index, true);
        self.starts_at = self.starts_at.max(Some(until));
    }

    fn start(&mut self, context: &mut Context<'_>) {
        self.starts_at = None;
        context.ledger.away(self.index, false);
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
                    revoked: false,
                    faults: 0,
                    let_in: None,
                    removal: None,
                    pending: Vec::new(),
                    held: Vec::new(),
                    acknowledged: Vec::new(),
                    told: Vec::new(),
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
        let seed = if self.canary == Some(Canary::SameRandomness) {
            self.store_key
        } else {
            self.chance.bytes32()
        };
        let mut core =
            Core::open(Box::new(store), &key, issuer, seed).map_err(|error| text(&error))?;
        if self.canary == Some(Canary::NoDeduplication) {
            core.forget_what_was_shown();
        }
        Ok(core)
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
            Over::Credential { revoked } if process.refused => {
                // The application has nothing better now, and tries again later.
                self.stop(false, "not authorised", context);
                if revoked {
                    self.is_gone = true;
                    self.starts_at = None;
                    context.ledger.gone(self.index);
                }
            }
            Over::Fault(why) if !process.may_retry_fault(now) => {
                context.note([8, self.index as u64, 1], || {
                    format!("device {}: client closed: {why}", self.index)
                });
                self.stop(false, "the client closed", context);
            }
            Over::Retry(_) | Over::Credential { .. } | Over::Fault(_) => {
                if let Link::Open(open) = &process.link
                    && open.is_stable(now)
                {
                    process.backoff.reset();
                    process.faults = 0;
                }
                let why = match over {
                    Over::Retry(why) => why,
                    Over::Fault(_) => {
                        process.faults += 1;
                        "a record did not hold"
                    }
                    _ => {
                        process.refused = true;
                        "another token is needed"
                    }
                };
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

impl Process {
    fn is_open(&self) -> bool {
        matches!(self.link, Link::Open(_))
    }

    /// Whether another link is tried after one that ended with a record that did not hold: a few times, where it was up.
    fn may_retry_fault(&self, now: Millis) -> bool {
        matches!(&self.link, Link::Open(open) if open.ready_by.is_none()
            && (open.is_stable(now) || self.faults < times::LINK_FAULTS))
    }
}
