//! What a run does: who sends how much when, and which faults happen how often. All of it follows from the seed.

use sealwire_server::mail::MailboxLimits;
use sealwire_server::policy::RETENTION_SECONDS;

use super::chance::Chance;
use super::network::Rates;
use super::schedule::Millis;
use super::town::Town;

/// A run before it runs.
#[derive(Debug)]
pub(super) struct Plan {
    /// Until then everybody connects and no fault happens.
    pub quiet_until: Millis,
    /// From then on no fault happens any more.
    pub faults_until: Millis,
    /// What happens to messages on the network meanwhile.
    pub rates: Rates,
    /// What happens when, in order.
    pub events: Vec<(Millis, Planned)>,
    /// What the relay's mailboxes hold, and bytes that wait for its disk, if that is little.
    pub small: Option<(MailboxLimits, usize)>,
}

/// What a run may have beside faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenes {
    /// None of it: something else is to be seen.
    None,
    /// Each now and then.
    Some,
    /// All of it in every run.
    All,
}

/// Something that happens to the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Planned {
    /// A device's application sends messages of about this size to a user.
    Send {
        device: usize,
        to: usize,
        count: u64,
        size: u64,
    },
    /// The process dies at its n-th operation from now, or after a while.
    Kill {
        node: Node,
        with_machine: bool,
        after: u64,
    },
    /// Nothing passes between a device and the relay for so long.
    Partition { device: usize, lasts: Millis },
    /// A device's connection ends.
    Reset { device: usize },
    /// The n-th sync from now fails.
    FailSync { node: Node, after: u64 },
    /// The disk is full for so long.
    FillDisk { node: Node, lasts: Millis },
    /// The clock is set, and set right again after a while.
    SetClock {
        node: Node,
        offset: i64,
        lasts: Millis,
    },
    /// The issuer gives a device no tokens for so long.
    NoTokens { device: usize, lasts: Millis },
    /// A copy of the store is made now, and put back after so long.
    Restore { device: usize, after: Millis },
    /// A device is away for so long.
    Leave { device: usize, lasts: Millis },
    /// A user removes one of their devices, with another or with itself.
    Remove { device: usize, target: usize },
}

/// The relay or a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    /// The relay.
    Relay,
    /// A device, by its number.
    Device(usize),
}

/// Largest message, in bytes.
const LARGEST: u64 = 60_000;
/// In so many of a thousand runs the mailboxes are small, and in so many a device is removed.
const SMALL: u64 = 150;
const REMOVALS: u64 = 100;

impl Plan {
    /// The plan of a run. What was added to plans later has a chance of its own, `later`, so that other runs stay as they were.
    #[must_use]
    pub(super) fn new(
        chance: &mut Chance,
        later: &mut Chance,
        town: &Town,
        scenes: Scenes,
    ) -> Self {
        let quiet_until = 4_000;
        let faults_until = quiet_until + chance.between(60_000, 300_000);
        let mut plan = Self {
            quiet_until,
            faults_until,
            rates: rates(chance),
            events: Vec::new(),
            small: None,
        };
        plan.workload(chance, town);
        plan.faults(chance, town);
        let has = |chance: &mut Chance, per_mille| match scenes {
            Scenes::None => false,
            Scenes::Some => chance.happens(per_mille),
            Scenes::All => true,
        };
        if has(chance, 100) {
            plan.restore(chance, town);
            // One that was put back may be put back once more.
            if later.happens(200) {
                plan.restore(later, town);
            }
        }
        if has(later, SMALL) {
            plan.shrink(later, town);
        }
        if has(later, REMOVALS) {
            plan.remove(later, town);
        }
        plan.events.sort_by_key(|(at, _)| *at);
        plan
    }

    fn restore(&mut self, chance: &mut Chance, town: &Town) {
        let device = chance.index(town.devices());
        let at = chance.between(self.quiet_until, self.faults_until);
        let after = chance.between(1_000, 60_000).min(self.faults_until - at);
        self.events.push((at, Planned::Restore { device, after }));
    }

    /// Mailboxes that fill while devices are away, or that hold mail for less long than that.
    fn shrink(&mut self, chance: &mut Chance, town: &Town) {
        let retention_seconds = if chance.coin() {
            chance.between(30, 150)
        } else {
            RETENTION_SECONDS
        };
        let limits = MailboxLimits {
            messages: chance.between(3, 40),
            bytes: 20_000 + chance.mostly_small(1 << 20),
            retention_seconds,
        };
        let queue_bytes = chance.mostly_small(1 << 20);
        let queue_bytes = usize::try_from(queue_bytes).unwrap_or_default();
        self.small = Some((limits, queue_bytes));
        for _ in 0..chance.between(2, 4) {
            let device = chance.index(town.devices());
            let at = chance.between(self.quiet_until, self.faults_until);
            let lasts = chance.between(30_000, 200_000).min(self.faults_until - at);
            self.events.push((at, Planned::Leave { device, lasts }));
            // Somebody writes to them meanwhile.
            let others: Vec<_> = (0..town.devices())
                .filter(|other| town.owner(*other) != town.owner(device))
                .collect();
            let Some(from) = others.get(chance.index(others.len())) else {
                continue;
            };
            let send = Planned::Send {
                device: *from,
                to: town.owner(device),
                count: chance.between(1, 30),
                size: chance.mostly_small(3_000),
            };
            self.events.push((at + chance.below(lasts + 1), send));
        }
    }

    fn remove(&mut self, chance: &mut Chance, town: &Town) {
        let of_several: Vec<_> = (0..town.devices())
            .filter(|device| town.devices_of(town.owner(*device)).count() > 1)
            .collect();
        if of_several.is_empty() {
            return;
        }
        let Some(target) = of_several.get(chance.index(of_several.len())).copied() else {
            return;
        };
        let own: Vec<_> = town.devices_of(town.owner(target)).collect();
        if let Some(device) = own.get(chance.index(own.len())).copied() {
            let at = chance.between(self.quiet_until, self.faults_until);
            self.events.push((at, Planned::Remove { device, target }));
        }
    }

    /// For how long the relay holds a message, if the run may last longer.
    #[must_use]
    pub(super) fn retention(&self) -> Option<Millis> {
        let (limits, _) = self.small?;
        let retention = limits.retention_seconds.saturating_mul(1_000);
        (limits.retention_seconds < RETENTION_SECONDS).then_some(retention)
    }

    /// How far apart two times on the relay's clock may be from what they are.
    #[must_use]
    pub(super) fn relay_clock(&self) -> Millis {
        let offsets = self.events.iter().filter_map(|(_, planned)| match planned {
            Planned::SetClock {
                node: Node::Relay,
                offset,
                ..
            } => Some(*offset),
            _ => None,
        });
        let (low, high) = offsets.fold((0, 0), |(low, high): (i64, i64), offset| {
            (low.min(offset), high.max(offset))
        });
        high.abs_diff(low)
    }

    fn workload(&mut self, chance: &mut Chance, town: &Town) {
        let sends = chance.between(6, 18);
        for _ in 0..sends {
            let device = chance.index(town.devices());
            let to = loop {
                let user = chance.index(town.users());
                let own = town.owner(device) == user;
                // To oneself only where there is another device.
                if !own || chance.happens(200) && town.devices_of(user).count() > 1 {
                    break user;
                }
            };
            let count = if chance.happens(150) {
                chance.between(5, 25)
            } else {
                chance.between(1, 2)
            };
            let size = if chance.happens(50) {
                chance.mostly_small(LARGEST)
            } else {
                chance.below(300)
            };
            let at = chance.between(self.quiet_until / 2, self.faults_until);
            self.events.push((
                at,
                Planned::Send {
                    device,
                    to,
                    count,
                    size,
                },
            ));
        }
    }

    /// When something happens: at any time, or just when somebody sends.
    fn moment(&self, chance: &mut Chance) -> Millis {
        let any = chance.between(self.quiet_until, self.faults_until);
        let sends: Vec<_> = self
            .events
            .iter()
            .filter(|(at, planned)| {
                *at > self.quiet_until && matches!(planned, Planned::Send { .. })
            })
            .collect();
        if sends.is_empty() || chance.happens(300) {
            return any;
        }
        let (at, _) = sends
            .get(chance.index(sends.len()))
            .copied()
            .copied()
            .unwrap_or((any, Planned::Reset { device: 0 }));
        // The time in which the message is on its way.
        (at + chance.mostly_small(512))
            .saturating_sub(20)
            .max(self.quiet_until)
    }

    fn faults(&mut self, chance: &mut Chance, town: &Town) {
        // Which kinds there are differs from run to run, so that some go deep into few.
        let weight =
            |chance: &mut Chance, weight: u64| if chance.happens(700) { weight } else { 0 };
        let kinds = [
            (weight(chance, 8), 0),
            (weight(chance, 6), 1),
            (weight(chance, 4), 2),
            (weight(chance, 4), 3),
            (weight(chance, 3), 4),
            (weight(chance, 3), 5),
            (weight(chance, 3), 6),
            (weight(chance, 2), 7),
        ];
        for _ in 0..chance.between(10, 32) {
            let device = chance.index(town.devices());
            let at = self.moment(chance);
            let node = if chance.happens(350) {
                Node::Relay
            } else {
                Node::Device(device)
            };
            let planned = match chance.weighted(&kinds) {
                Some(0) => Planned::Kill {
                    node,
                    with_machine: true,
                    after: chance.mostly_small(200),
                },
                Some(1) => Planned::Kill {
                    node,
                    with_machine: false,
                    after: chance.mostly_small(200),
                },
                Some(2) => Planned::Partition {
                    device,
                    lasts: 500 + chance.mostly_small(60_000),
                },
                Some(3) => Planned::Reset { device },
                Some(4) => Planned::FailSync {
                    node,
                    after: chance.below(6),
                },
                Some(5) => Planned::FillDisk {
                    node,
                    lasts: 500 + chance.mostly_small(30_000),
                },
                Some(6) => {
                    let far = i64::try_from(chance.mostly_small(300_000)).unwrap_or_default();
                    let offset = if chance.coin() { far } else { -far };
                    Planned::SetClock {
                        node,
                        offset,
                        lasts: 1_000 + chance.mostly_small(60_000),
                    }
                }
                Some(_) => Planned::NoTokens {
                    device,
                    lasts: 1_000 + chance.mostly_small(120_000),
                },
                None => continue,
            };
            self.events.push((at, planned));
        }
    }
}

fn rates(chance: &mut Chance) -> Rates {
    let mut rate = |often: u64, high: u64| {
        if chance.happens(often) {
            chance.below(high + 1)
        } else {
            0
        }
    };
    Rates {
        drop: rate(600, 12),
        duplicate: rate(600, 10),
        reorder: rate(600, 10),
        corrupt: rate(600, 8),
        delay: rate(900, 350),
        reset: rate(600, 10),
        half_open: rate(600, 6),
    }
}
