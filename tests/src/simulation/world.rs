//! A run: everybody, the network between them, and time.

use super::chance::Chance;
use super::device::Device;
use super::fault::{Fault, Tally};
use super::ledger::{Invariant, Ledger, Memory, Terms};
use super::network::{Arrival, ConnectionId, End, Network, Wire};
use super::plan::{Node, Plan, Planned, Scenes};
use super::relay::Relay;
use super::report::Outcome;
use super::schedule::{Millis, Schedule};
use super::town::Town;
use super::trace::Trace;
use super::{Canary, Options, Seed};
use sealwire_protocol::audit;

/// How long everything may take to come to rest after the last fault, in milliseconds.
const PATIENCE: Millis = 20 * 60_000;
/// How long is waited after that for what must not come, in milliseconds.
const AFTERWARDS: Millis = 90_000;
/// Makes another seed of a run's: that of what was added to plans later.
const LATER: Seed = 0x6c61_7465_7200_0000;
/// Steps after which a run is taken for endless.
const MAX_STEPS: u64 = 2_000_000;

/// What a node needs of everything else while it takes a step.
pub(super) struct Context<'a> {
    /// What is to happen.
    schedule: &'a mut Schedule<Event>,
    /// The network.
    pub network: &'a mut Network,
    /// What was promised.
    pub ledger: &'a mut Ledger,
    /// Who takes part.
    pub town: &'a mut Town,
    trace: &'a mut Trace,
    tally: &'a mut Tally,
}

impl Context<'_> {
    /// The time.
    #[must_use]
    pub(super) fn now(&self) -> Millis {
        self.schedule.now()
    }

    /// Sends something on a connection. What ends it ends it for the sender at once.
    pub(super) fn send(&mut self, connection: ConnectionId, from: End, wire: Wire) {
        let arrivals = self
            .network
            .send(self.schedule.now(), connection, from, wire);
        for arrival in arrivals {
            let Arrival {
                at,
                connection,
                to,
                wire,
            } = arrival;
            self.schedule.at(
                at,
                Event::Arrive {
                    connection,
                    to,
                    wire,
                },
            );
        }
    }

    /// Notes what happens.
    pub(super) fn note<L: std::fmt::Display>(&mut self, facts: [u64; 3], line: impl FnOnce() -> L) {
        self.trace.note(self.schedule.now(), facts, line);
    }

    /// Counts a fault.
    pub(super) fn count(&mut self, fault: Fault) {
        self.tally.add(fault);
    }
}

#[derive(Debug)]
enum Event {
    Arrive {
        connection: ConnectionId,
        to: End,
        wire: Wire,
    },
    Wake(Node),
    Planned(Planned),
    /// If the process has not died by its own operations yet, it dies now.
    KillNow(Node),
    DiskFull(Node, bool),
    ClockRight(Node),
    PutBack(usize, Box<super::disk::Snapshot>, Box<Memory>),
    Calm,
    /// Whose disk lies begins to.
    Lie,
}

/// Everything.
pub(super) struct World {
    seed: Seed,
    canary: Option<Canary>,
    schedule: Schedule<Event>,
    network: Network,
    ledger: Ledger,
    town: Town,
    trace: Trace,
    tally: Tally,
    chance: Chance,
    relay: Relay,
    devices: Vec<Device>,
    /// When each node is woken next: the relay, then the devices.
    wakes: Vec<Millis>,
    calm: bool,
    calm_at: Millis,
}

impl World {
    /// The world of a seed.
    #[must_use]
    pub(super) fn new(seed: Seed, options: &Options) -> Self {
        let mut chance = Chance::new(seed);
        let town = Town::new(&mut chance.fork());
        let mut later = Chance::new(seed ^ LATER);
        let scenes = match options.canary {
            None => Scenes::Some,
            Some(Canary::UnnoticedCopy | Canary::NoNotices) => Scenes::All,
            Some(_) => Scenes::None,
        };
        let plan = Plan::new(&mut chance.fork(), &mut later, &town, scenes);
        let terms = Terms {
            retention: plan.retention(),
            small: plan.small.is_some(),
            relay_clock: plan.relay_clock(),
        };
        let mut schedule = Schedule::new();
        for (at, planned) in plan.events {
            schedule.at(at, Event::Planned(planned));
        }
        schedule.at(plan.faults_until, Event::Calm);
        schedule.at(plan.quiet_until, Event::Lie);
        let devices = (0..town.devices())
            .map(|index| Device::new(index, chance.fork(), options.canary))
            .collect();
        let relay = Relay::new(chance.fork(), plan.small);
        let mut tally = Tally::default();
        tally.add_many(Fault::SmallMailboxes, u64::from(plan.small.is_some()));
        let mut network = Network::new(town.devices(), chance.fork());
        network.set_rates(plan.rates);
        let mut world = Self {
            seed,
            canary: options.canary,
            wakes: vec![Millis::MAX; town.devices() + 1],
            ledger: Ledger::new(town.owners(), terms),
            schedule,
            network,
            trace: Trace::new(options.trace),
            tally,
            chance,
            relay,
            devices,
            town,
            calm: false,
            calm_at: plan.faults_until,
        };
        world.plan_wakes();
        world
    }

    /// Runs to the end.
    #[must_use]
    pub(super) fn run(mut self) -> Outcome {
        audit::start();
        let mut rested_at = None;
        let mut restless = None;
        while let Some(event) = self.schedule.next() {
            self.step(event);
            self.plan_wakes();
            let now = self.schedule.now();
            if self.ledger.is_violated() && self.calm {
                break;
            }
            if self.calm {
                let at_rest = self.is_at_rest();
                match rested_at {
                    None if at_rest => rested_at = Some(now),
                    Some(since) if now >= since + AFTERWARDS => break,
                    _ => {}
                }
                if rested_at.is_none() && now > self.calm_at + PATIENCE {
                    restless = Some(self.status());
                    break;
                }
            }
            if self.trace.steps() > MAX_STEPS {
                restless = Some(format!(
                    "{MAX_STEPS} steps are not enough: {}",
                    self.status()
                ));
                break;
            }
        }
        self.ledger.check(Invariant::Rest);
        self.ledger.check(Invariant::Panic);
        self.ledger.check_many(Invariant::Nonce, audit::sealed());
        if audit::repeats() > 0 {
            let what = format!(
                "{} times a key was used with a nonce again",
                audit::repeats()
            );
            self.ledger.violate(Invariant::Nonce, what);
        }
        self.ledger.finish();
        if let Some(what) = restless {
            self.ledger.violate(Invariant::Rest, what);
        }
        let mut faults = self.tally;
        faults += &self.network.tally;
        for disk in self
            .devices
            .iter()
            .map(|device| &device.disk)
            .chain([&self.relay.disk])
        {
            faults += &disk.take_tally();
        }
        let volume = self.ledger.volume();
        let (checks, violations) = self.ledger.into_findings();
        Outcome {
            seed: self.seed,
            faults,
            checks,
            violations,
            hash: self.trace.hash(),
            steps: self.trace.steps(),
            volume,
            lasted: self.schedule.now(),
        }
    }

    fn is_at_rest(&self) -> bool {
        self.ledger.is_settled()
            && self.relay.is_running()
            && self.devices.iter().all(Device::is_at_rest)
    }

    fn status(&self) -> String {
        let devices = self
            .devices
            .iter()
            .map(|device| format!("; device {}: {}", device.index, device.status()));
        format!(
            "relay: {}{}",
            self.relay.status(),
            devices.collect::<String>()
        )
    }

    fn plan_wakes(&mut self) {
        let now = self.schedule.now();
        let relay = (Node::Relay, self.relay.deadline(now));
        let devices = self
            .devices
            .iter()
            .map(|device| (Node::Device(device.index), device.deadline(now)));
        for (slot, (node, at)) in self
            .wakes
            .iter_mut()
            .zip(std::iter::once(relay).chain(devices))
        {
            let at = at.unwrap_or(Millis::MAX);
            if at < *slot {
                *slot = at;
                self.schedule.at(at, Event::Wake(node));
            }
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Wake(node) => {
                let slot = match node {
                    Node::Relay => 0,
                    Node::Device(device) => device + 1,
                };
                if let Some(slot) = self.wakes.get_mut(slot) {
                    if *slot > self.schedule.now() {
                        return;
                    }
                    *slot = Millis::MAX;
                }
                self.with(
                    node,
                    |relay, context| relay.wake(context),
                    |device, context| device.wake(context),
                );
            }
            Event::Arrive {
                connection,
                to,
                wire,
            } => self.arrive(connection, to, wire),
            Event::Planned(planned) => self.planned(planned),
            Event::KillNow(node) => self.kill_now(node),
            Event::DiskFull(node, full) => {
                self.disk(node).set_full(full && !self.calm);
                self.trace
                    .note(self.schedule.now(), [30, u64::from(full), 0], || {
                        format!("disk of {node:?} full: {full}")
                    });
            }
            Event::ClockRight(node) => self.set_clock(node, 0),
            Event::PutBack(device, snapshot, memory) => {
                self.with(
                    Node::Device(device),
                    |_, _| {},
                    |device, context| {
                        device.stop(false, "its store is put back", context);
                        device.disk.restore(&snapshot);
                        context.ledger.restored(device.index, *memory);
                    },
                );
            }
            Event::Calm => self.becalm(),
            Event::Lie => match self.canary {
                Some(Canary::RelayForgets) => self.relay.disk.lie(),
                Some(Canary::DeviceForgets) => {
                    self.devices.iter().for_each(|device| device.disk.lie())
                }
                Some(
                    Canary::EarlyAck
                    | Canary::NoDeduplication
                    | Canary::Disorder
                    | Canary::SameRandomness
                    | Canary::UnnoticedCopy
                    | Canary::NoNotices,
                )
                | None => {}
            },
        }
    }

    fn arrive(&mut self, connection: ConnectionId, to: End, wire: Wire) {
        let Some(device) = self.network.device(connection) else {
            return;
        };
        let (now, kind, bytes) = (self.schedule.now(), wire_kind(&wire), wire_bytes(&wire));
        self.trace
            .note(now, [31, connection, kind << 32 | bytes as u64], || {
                let arrow = if to == End::Relay { "->" } else { "<-" };
                format!(
                    "{device} {arrow} relay on {connection}: {}",
                    wire_name(&wire)
                )
            });
        match to {
            End::Relay if self.relay.is_running() => {
                self.with(
                    Node::Relay,
                    |relay, context| relay.arrive(connection, wire, context),
                    |_, _| {},
                );
            }
            End::Relay => {}
            End::Device => {
                self.with(
                    Node::Device(device),
                    |_, _| {},
                    |device, context| device.arrive(connection, wire, context),
                );
                self.with(
                    Node::Relay,
                    |relay, context| relay.taken(connection, bytes, context),
                    |_, _| {},
                );
            }
        }
    }

    fn planned(&mut self, planned: Planned) {
        self.trace
            .note(self.schedule.now(), [32, 0, 0], || format!("{planned:?}"));
        let now = self.schedule.now();
        match planned {
            Planned::Send {
                device,
                to,
                count,
                size,
            } => {
                for _ in 0..count {
                    let size = size.min(64_000) + self.chance.below(16);
                    let mut body = vec![0; usize::try_from(size).unwrap_or_default()];
                    rand::Rng::fill_bytes(self.chance.rng(), &mut body);
                    self.with(
                        Node::Device(device),
                        |_, _| {},
                        |device, context| device.send(to, body, context),
                    );
                }
            }
            _ if self.calm => {}
            Planned::Kill {
                node,
                with_machine,
                after,
            } => {
                match node {
                    Node::Relay => self.relay.dies_with_machine = with_machine,
                    Node::Device(device) => {
                        if let Some(device) = self.devices.get_mut(device) {
                            device.dies_with_machine = with_machine;
                        }
                    }
                }
                self.disk(node).die_after(after);
                let latest = now + self.chance.mostly_small(20_000);
                self.schedule.at(latest, Event::KillNow(node));
            }
            Planned::Partition { device, lasts } => self.network.partition(device, now + lasts),
            Planned::Reset { device } => {
                for connection in self.network.connections(device) {
                    for arrival in self.network.reset(now, connection, Some(Fault::Reset)) {
                        let Arrival {
                            at,
                            connection,
                            to,
                            wire,
                        } = arrival;
                        self.schedule.at(
                            at,
                            Event::Arrive {
                                connection,
                                to,
                                wire,
                            },
                        );
                    }
                }
            }
            Planned::FailSync { node, after } => self.disk(node).fail_sync_after(after),
            Planned::FillDisk { node, lasts } => {
                self.disk(node).set_full(true);
                self.schedule.at(now + lasts, Event::DiskFull(node, false));
            }
            Planned::SetClock {
                node,
                offset,
                lasts,
            } => {
                self.tally.add(Fault::ClockJump);
                self.set_clock(node, offset);
                self.schedule.at(now + lasts, Event::ClockRight(node));
            }
            Planned::NoTokens { device, lasts } => {
                if let Some(device) = self.devices.get_mut(device) {
                    device.no_token_until = now + lasts;
                }
            }
            Planned::Restore { device, after } => {
                let snapshot = Box::new(self.disk(Node::Device(device)).snapshot());
                let memory = Box::new(self.ledger.memory(device));
                self.schedule
                    .at(now + after, Event::PutBack(device, snapshot, memory));
            }
            Planned::Leave { device, lasts } => self.with(
                Node::Device(device),
                |_, _| {},
                |device, context| device.leave(now + lasts, context),
            ),
            Planned::Remove { device, target } => {
                self.tally.add(Fault::Removal);
                self.with(
                    Node::Device(device),
                    |_, _| {},
                    |device, context| device.remove(target, context),
                );
            }
        }
    }

    fn kill_now(&mut self, node: Node) {
        self.with(
            node,
            |relay, context| {
                if relay.disk.is_dying() {
                    context.count(if relay.dies_with_machine {
                        Fault::RelayCrash
                    } else {
                        Fault::RelayKill
                    });
                    relay.stop(relay.dies_with_machine, "killed at rest", context);
                }
            },
            |device, context| {
                if device.disk.is_dying() {
                    context.count(if device.dies_with_machine {
                        Fault::DeviceCrash
                    } else {
                        Fault::DeviceKill
                    });
                    device.stop(device.dies_with_machine, "killed at rest", context);
                }
            },
        );
    }

    fn set_clock(&mut self, node: Node, offset: i64) {
        self.trace
            .note(self.schedule.now(), [33, 0, offset.unsigned_abs()], || {
                format!("the clock of {node:?} is off by {offset} ms")
            });
        match node {
            Node::Relay => self.relay.offset = offset,
            Node::Device(device) => {
                self.ledger.clock_set(device, offset);
                if let Some(device) = self.devices.get_mut(device) {
                    device.offset = offset;
                }
            }
        }
    }

    fn becalm(&mut self) {
        self.trace.note(
            self.schedule.now(),
            [34, 0, 0],
            || "from here on nothing fails",
        );
        self.calm = true;
        self.network.heal();
        self.relay.calm();
        for device in &mut self.devices {
            device.calm();
        }
        for index in 0..self.devices.len() {
            self.with(
                Node::Device(index),
                |_, _| {},
                |device, context| device.wake(context),
            );
        }
    }

    fn disk(&self, node: Node) -> super::disk::Disk {
        match node {
            Node::Relay => self.relay.disk.clone(),
            Node::Device(device) => self
                .devices
                .get(device)
                .map_or_else(|| self.relay.disk.clone(), |device| device.disk.clone()),
        }
    }

    fn with(
        &mut self,
        node: Node,
        with_relay: impl FnOnce(&mut Relay, &mut Context<'_>),
        with_device: impl FnOnce(&mut Device, &mut Context<'_>),
    ) {
        let mut context = Context {
            schedule: &mut self.schedule,
            network: &mut self.network,
            ledger: &mut self.ledger,
            town: &mut self.town,
            trace: &mut self.trace,
            tally: &mut self.tally,
        };
        match node {
            Node::Relay => with_relay(&mut self.relay, &mut context),
            Node::Device(device) => {
                if let Some(device) = self.devices.get_mut(device) {
                    with_device(device, &mut context);
                }
            }
        }
    }
}

fn wire_bytes(wire: &Wire) -> usize {
    match wire {
        Wire::Record(record) => record.len(),
        _ => 0,
    }
}

fn wire_kind(wire: &Wire) -> u64 {
    match wire {
        Wire::Connect => 1,
        Wire::Upgraded => 2,
        Wire::Record(_) => 3,
        Wire::Ping => 4,
        Wire::Pong => 5,
        Wire::Close(_) => 6,
        Wire::Reset => 7,
    }
}

fn wire_name(wire: &Wire) -> String {
    match wire {
        Wire::Record(record) => format!("record of {} bytes", record.len()),
        other => format!("{other:?}"),
    }
}
