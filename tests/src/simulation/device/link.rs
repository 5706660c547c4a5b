//! A device's link as the network has it: connecting, greeting, open; what waits in it, and how long that may take.

use std::collections::{BTreeMap, VecDeque};

use sealwire_client::simulation::times;
use sealwire_protocol::batch::Batch;
use sealwire_protocol::error::Misuse;
use sealwire_protocol::frame::{DeviceToRelay, ToRelay};
use sealwire_protocol::handshake::DeviceHello;
use sealwire_protocol::link::DeviceLink;

use super::super::ledger::Push;
use super::super::network::ConnectionId;
use super::super::schedule::Millis;

/// Where a device is with its link.
pub(super) enum Link {
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
pub(super) struct Open {
    pub(super) connection: ConnectionId,
    pub(super) link: DeviceLink,
    pub(super) since: Millis,
    pub(super) next_ping: Millis,
    pub(super) ready_by: Option<Millis>,
    pub(super) refresh_at: Option<Millis>,
    pub(super) refresh_after: Millis,
    pub(super) heard: Millis,
    pub(super) progress: Millis,
    pub(super) asked: BTreeMap<u32, Millis>,
    /// Sends that the relay has not answered.
    pub(super) sends: BTreeMap<u32, Push>,
    pub(super) unread: VecDeque<Vec<u8>>,
}

impl Link {
    pub(super) fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Waiting { .. } => None,
            Self::Connecting { connection, .. } | Self::Greeting { connection, .. } => {
                Some(*connection)
            }
            Self::Open(open) => Some(open.connection),
        }
    }

    pub(super) fn deadline(&self) -> Millis {
        match self {
            Self::Waiting { until } => *until,
            Self::Connecting { by, .. } | Self::Greeting { by, .. } => *by,
            Self::Open(open) => open.deadline(),
        }
    }
}

impl Open {
    pub(super) fn new(connection: ConnectionId, link: DeviceLink, now: Millis) -> Self {
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
            sends: BTreeMap::new(),
            unread: VecDeque::new(),
        }
    }

    pub(super) fn asked(&mut self, request: u32, now: Millis) {
        if self.asked.is_empty() {
            self.progress = now;
        }
        self.asked.insert(request, now);
    }

    pub(super) fn answered(&mut self, request: u32, now: Millis) {
        self.asked.remove(&request);
        self.progress = now;
    }

    pub(super) fn plan_refresh(&mut self, expires: u64, time: u64, now: Millis) {
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

    /// Whether it has held for long enough that the one before does not count any more.
    pub(super) fn is_stable(&self, now: Millis) -> bool {
        now >= self.since + millis(times::STABLE)
    }

    pub(super) fn is_late(&self, now: Millis) -> Option<&'static str> {
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

/// Frames on their way into records.
pub(super) struct Outgoing<'a> {
    pub(super) open: Option<&'a mut Box<Open>>,
    pub(super) batch: Batch<DeviceToRelay>,
    pub(super) records: Vec<Vec<u8>>,
}

impl Outgoing<'_> {
    /// The request is this Send.
    pub(super) fn sends(&mut self, request: u32, send: Push) {
        if let Some(open) = &mut self.open {
            open.sends.insert(request, send);
        }
    }

    pub(super) fn push(&mut self, frame: &ToRelay<'_>, now: Millis) -> bool {
        if let (Some(open), Some(request)) = (&mut self.open, request_of(frame)) {
            open.asked(request, now);
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

    pub(super) fn seal(&mut self) {
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
        ToRelay::Upload(_)
        | ToRelay::Download { .. }
        | ToRelay::Discard { .. }
        | ToRelay::Call(_) => None,
        ToRelay::Ack { .. } => None,
    }
}

pub(super) fn millis(duration: std::time::Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
