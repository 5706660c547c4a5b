//! The network between devices and the relay: connections that carry records in order, until they do not.
//!
//! ```text
//!  send ──▶ lost? torn down? twice? late? in another order? ──▶ arrivals, each at its time
//! ```
//! A connection is what TCP and a WebSocket give: messages arrive in order, or the connection ends. What is done to it beyond that
//! (records twice, in another order, with a flipped bit) is what the link's own cryptography has to notice.

use std::collections::BTreeMap;

use super::chance::Chance;
use super::fault::{Fault, Tally};
use super::schedule::Millis;

/// A connection, never used twice in a run.
pub(super) type ConnectionId = u64;

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The device that connected.
    Device,
    /// The relay.
    Relay,
}

impl End {
    /// The other end.
    #[must_use]
    pub(super) fn other(self) -> Self {
        match self {
            Self::Device => Self::Relay,
            Self::Relay => Self::Device,
        }
    }
}

/// What passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wire {
    /// A device connects; TLS and the upgrade are part of it.
    Connect,
    /// The relay has upgraded.
    Upgraded,
    /// A binary message.
    Record(Vec<u8>),
    /// A WebSocket ping.
    Ping,
    /// A WebSocket pong.
    Pong,
    /// A WebSocket close, and the end of the connection.
    Close(u16),
    /// The connection is no more.
    Reset,
}

/// Something that arrives.
#[derive(Debug)]
pub(super) struct Arrival {
    /// When.
    pub at: Millis,
    /// On which connection.
    pub connection: ConnectionId,
    /// At which end.
    pub to: End,
    /// What.
    pub wire: Wire,
}

/// How often what is done to a message, of a thousand.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rates {
    /// It is lost, and the connection with it.
    pub drop: u64,
    /// It comes twice.
    pub duplicate: u64,
    /// It comes after later ones.
    pub reorder: u64,
    /// A bit is flipped.
    pub corrupt: u64,
    /// It is late by seconds.
    pub delay: u64,
    /// The connection ends with it.
    pub reset: u64,
    /// Its direction carries nothing any more.
    pub half_open: u64,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Network {
    chance: Chance,
    /// The faults that have happened.
    pub tally: Tally,
    rates: Rates,
    connections: BTreeMap<ConnectionId, Connection>,
    next: ConnectionId,
    /// Until when nothing passes between a device and the relay.
    blocked: Vec<Millis>,
}

#[derive(Debug)]
struct Connection {
    device: usize,
    to_relay: Way,
    to_device: Way,
}

#[derive(Debug, Default)]
struct Way {
    /// When the last message arrives: none sent later arrives earlier.
    last: Millis,
    /// Nothing arrives any more.
    silent: bool,
}

/// One-way time of a message without faults, in milliseconds.
const LATENCY: (Millis, Millis) = (1, 40);
/// How late a message is at most, in milliseconds.
const LATEST: Millis = 40_000;

impl Network {
    /// No connections, and no faults until [`Network::set_rates`].
    #[must_use]
    pub(super) fn new(devices: usize, chance: Chance) -> Self {
        Self {
            chance,
            tally: Tally::default(),
            rates: Rates::default(),
            connections: BTreeMap::new(),
            next: 1,
            blocked: vec![0; devices],
        }
    }

    /// Sets what happens to messages from now on.
    pub(super) fn set_rates(&mut self, rates: Rates) {
        self.rates = rates;
    }

    /// Ends every partition.
    pub(super) fn heal(&mut self) {
        self.rates = Rates::default();
        self.blocked.fill(0);
    }

    /// Lets nothing pass between a device and the relay until then; what is sent meanwhile arrives after it.
    pub(super) fn partition(&mut self, device: usize, until: Millis) {
        if let Some(blocked) = self.blocked.get_mut(device) {
            self.tally.add(Fault::Partition);
            *blocked = until.max(*blocked);
        }
    }

    /// A new connection of a device; its Connect is to be sent.
    pub(super) fn connect(&mut self, device: usize) -> ConnectionId {
        let id = self.next;
        self.next += 1;
        let connection = Connection {
            device,
            to_relay: Way::default(),
            to_device: Way::default(),
        };
        self.connections.insert(id, connection);
        id
    }

    /// Whose connection it is; `None` if it is over.
    #[must_use]
    pub(super) fn device(&self, connection: ConnectionId) -> Option<usize> {
        self.connections
            .get(&connection)
            .map(|connection| connection.device)
    }

    /// The device's connections that are not over.
    #[must_use]
    pub(super) fn connections(&self, device: usize) -> Vec<ConnectionId> {
        let of_device = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.device == device);
        of_device.map(|(id, _)| *id).collect()
    }

    /// The connection is over; what is still on its way arrives nowhere.
    pub(super) fn forget(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    /// Ends a connection at both ends; `fault` is counted.
    pub(super) fn reset(
        &mut self,
        now: Millis,
        connection: ConnectionId,
        fault: Option<Fault>,
    ) -> Vec<Arrival> {
        let Some(entry) = self.connections.get_mut(&connection) else {
            return Vec::new();
        };
        if let Some(fault) = fault {
            self.tally.add(fault);
        }
        (entry.to_relay.silent, entry.to_device.silent) = (true, true);
        [End::Device, End::Relay]
            .into_iter()
            .map(|to| Arrival {
                at: now + self.chance.between(1, 2_000),
                connection,
                to,
                wire: Wire::Reset,
            })
            .collect()
    }

    /// Sends a message from an end.
    pub(super) fn send(
        &mut self,
        now: Millis,
        connection: ConnectionId,
        from: End,
        wire: Wire,
    ) -> Vec<Arrival> {
        let to = from.other();
        let Some(entry) = self.connections.get_mut(&connection) else {
            return Vec::new();
        };
        if entry.way(to).silent {
            return Vec::new();
        }
        let (rates, chance) = (self.rates, &mut self.chance);
        if chance.happens(rates.half_open) {
            self.tally.add(Fault::HalfOpen);
            entry.way_mut(to).silent = true;
            return Vec::new();
        }
        if chance.happens(rates.reset) {
            return self.reset(now, connection, Some(Fault::Reset));
        }
        if chance.happens(rates.drop) {
            return self.reset(now, connection, Some(Fault::Drop));
        }
        let blocked = self.blocked.get(entry.device).copied().unwrap_or_default();
        let mut at = now.max(blocked) + chance.between(LATENCY.0, LATENCY.1);
        if chance.happens(rates.delay) {
            self.tally.add(Fault::Delay);
            at += 1_000 + chance.mostly_small(LATEST);
        }
        let way = entry.way_mut(to);
        let is_record = matches!(wire, Wire::Record(_));
        if is_record && chance.happens(rates.reorder) {
            self.tally.add(Fault::Reorder);
            at = at.max(way.last) + chance.between(1, 500);
        } else {
            at = at.max(way.last);
            way.last = at;
        }
        let mut arrivals = Vec::new();
        let mut wire = wire;
        if is_record && chance.happens(rates.duplicate) {
            self.tally.add(Fault::Duplicate);
            let again = at + chance.between(0, 300);
            arrivals.push(Arrival {
                at: again,
                connection,
                to,
                wire: wire.clone(),
            });
        }
        if let Wire::Record(record) = &mut wire
            && chance.happens(rates.corrupt)
        {
            self.tally.add(Fault::Corrupt);
            let at = chance.index(record.len());
            if let Some(byte) = record.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
        }
        arrivals.insert(
            0,
            Arrival {
                at,
                connection,
                to,
                wire,
            },
        );
        arrivals
    }
}

impl Connection {
    fn way(&self, to: End) -> &Way {
        match to {
            End::Device => &self.to_device,
            End::Relay => &self.to_relay,
        }
    }

    fn way_mut(&mut self, to: End) -> &mut Way {
        match to {
            End::Device => &mut self.to_device,
            End::Relay => &mut self.to_relay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(byte: u8) -> Wire {
        Wire::Record(vec![byte; 8])
    }

    fn sent(rates: Rates, seed: u64) -> (Vec<(Millis, Wire)>, Tally) {
        let mut network = Network::new(1, Chance::new(seed));
        let connection = network.connect(0);
        network.set_rates(rates);
        let mut arrivals = Vec::new();
        for byte in 0..20 {
            arrivals.extend(network.send(u64::from(byte), connection, End::Device, record(byte)));
        }
        arrivals.sort_by_key(|arrival| arrival.at);
        let arrivals = arrivals
            .into_iter()
            .filter(|arrival| arrival.to == End::Relay);
        (
            arrivals.map(|arrival| (arrival.at, arrival.wire)).collect(),
            network.tally,
        )
    }

    fn bytes(arrivals: &[(Millis, Wire)]) -> Vec<u8> {
        let byte = |(_, wire): &(Millis, Wire)| match wire {
            Wire::Record(record) => Some(record[0]),
            _ => None,
        };
        arrivals.iter().filter_map(byte).collect()
    }

    #[test]
    fn without_faults_everything_arrives_once_and_in_order() {
        let (arrivals, tally) = sent(Rates::default(), 1);
        assert_eq!(bytes(&arrivals), Vec::from_iter(0..20));
        assert_eq!(tally.total(), 0);
    }

    #[test]
    fn what_is_late_holds_up_what_is_behind_it() {
        let (arrivals, tally) = sent(
            Rates {
                delay: 100,
                ..Rates::default()
            },
            3,
        );
        assert_eq!(bytes(&arrivals), Vec::from_iter(0..20));
        assert!(tally.of(Fault::Delay) > 0 && arrivals[19].0 > 1_000);
    }

    #[test]
    fn reordering_and_duplication_and_flipped_bits_are_seen() {
        let (arrivals, tally) = sent(
            Rates {
                reorder: 300,
                ..Rates::default()
            },
            1,
        );
        assert!(!bytes(&arrivals).is_sorted() && arrivals.len() == 20);
        assert!(tally.of(Fault::Reorder) > 0);
        let (arrivals, tally) = sent(
            Rates {
                duplicate: 300,
                ..Rates::default()
            },
            1,
        );
        assert_eq!(arrivals.len() as u64, 20 + tally.of(Fault::Duplicate));
        let (arrivals, tally) = sent(
            Rates {
                corrupt: 300,
                ..Rates::default()
            },
            1,
        );
        let whole = |(_, wire): &(Millis, Wire)| (0..20).any(|byte| *wire == record(byte));
        let broken = arrivals.iter().filter(|arrival| !whole(arrival)).count();
        assert_eq!(broken as u64, tally.of(Fault::Corrupt));
    }

    #[test]
    fn after_a_lost_record_the_connection_ends_at_both_ends() {
        let (arrivals, tally) = sent(
            Rates {
                drop: 200,
                ..Rates::default()
            },
            1,
        );
        let resets = arrivals
            .iter()
            .filter(|(_, wire)| *wire == Wire::Reset)
            .count();
        assert_eq!((resets, tally.of(Fault::Drop)), (1, 1));
        let bytes = bytes(&arrivals);
        assert!(bytes.len() < 19 && (0..20).take(bytes.len()).eq(bytes));
    }

    #[test]
    fn a_partition_holds_everything_until_it_ends() {
        let mut network = Network::new(2, Chance::new(1));
        let (here, there) = (network.connect(0), network.connect(1));
        network.partition(0, 5_000);
        let held = network.send(10, here, End::Relay, record(1));
        let passes = network.send(10, there, End::Relay, record(1));
        assert!(held[0].at > 5_000 && passes[0].at < 100);
    }

    #[test]
    fn a_half_open_connection_carries_nothing_in_one_direction() {
        let mut network = Network::new(1, Chance::new(1));
        let connection = network.connect(0);
        network.set_rates(Rates {
            half_open: 1_000,
            ..Rates::default()
        });
        assert!(
            network
                .send(1, connection, End::Device, record(1))
                .is_empty()
        );
        network.heal();
        assert!(
            network
                .send(2, connection, End::Device, record(2))
                .is_empty()
        );
        assert_eq!(network.send(2, connection, End::Relay, record(3)).len(), 1);
    }
}
