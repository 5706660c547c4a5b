//! What a device does with its link, as the client's own driver does, in virtual time.

use sealwire_client::simulation::{Heard, times};
use sealwire_protocol::batch::Batch;
use sealwire_protocol::close::{CloseCode, Retry};
use sealwire_protocol::frame::{Ready, ToDevice, ToRelay};
use sealwire_protocol::handshake::{Credential, DeviceHello, DeviceTerms};

use super::super::Canary;
use super::super::fault::Fault;
use super::super::ledger::{Invariant, Push};
use super::super::network::{End, Wire};
use super::super::schedule::Millis;
use super::super::town::clock;
use super::super::world::Context;
use super::link::{Link, Open, Outgoing, millis};
use super::{Device, Over, Process, Step, bounds};

impl Device {
    pub(super) fn step_time(&mut self, context: &mut Context<'_>) -> Step {
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

    pub(super) fn step_arrival(&mut self, wire: Wire, context: &mut Context<'_>) -> Step {
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
        let (now, device) = (context.now(), self.index);
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
                    return Err(Over::Fault(format!("a record: {error}")));
                }
            };
            let before = process.core.position();
            let mut refresh = None;
            let mut frames: Vec<_> = frames.collect();
            if self.canary == Some(Canary::Disorder) && self.chance.coin() {
                swap_messages(&mut frames);
            }
            for frame in frames {
                let frame = match frame {
                    ToDevice::Ready(ready) => {
                        let behind = process.core.is_behind(&ready);
                        let (sent, position) = (process.core.sequence(), process.core.position());
                        context.note([16, device as u64, u64::from(behind)], || {
                            format!(
                                "device {device} has sent {sent} and read {position:#x}; the relay knows of {} and {:#x}",
                                ready.sent, ready.acknowledged
                            )
                        });
                        process.let_in = process.let_in.max(Some(behind));
                        ToDevice::Ready(match self.canary {
                            Some(Canary::UnnoticedCopy) => Ready {
                                sent: 0,
                                acknowledged: 0,
                                ..ready
                            },
                            _ => ready,
                        })
                    }
                    ToDevice::Undelivered(_) if self.canary == Some(Canary::NoNotices) => continue,
                    ToDevice::Undelivered(notice) => {
                        let by = context.town.device(&notice.device);
                        context.ledger.given_up(device, by, notice.position);
                        frame
                    }
                    ToDevice::Deliver(deliver) => {
                        let from = context.town.device(&deliver.device);
                        let number = context.ledger.number(&deliver.id);
                        context.note([15, device as u64, deliver.position], || {
                            format!(
                                "device {device} gets message {number:?} of device {from:?} at {:#x}",
                                deliver.position
                            )
                        });
                        context.ledger.arrived(device, &deliver.id);
                        frame
                    }
                    ToDevice::Accepted { request } => {
                        if let Some(send) = open.sends.remove(&request) {
                            context.note([17, device as u64, send.sequence], || {
                                format!("the {} of device {device} is accepted", send.sequence)
                            });
                            context.ledger.answered(device, send.sequence);
                        }
                        frame
                    }
                    ToDevice::Refused { request, code } => {
                        if let Some(send) = open.sends.remove(&request) {
                            context.note([14, device as u64, send.sequence], || {
                                let (sequence, code) = (send.sequence, code.name());
                                format!("device {device} is refused its {sequence}: {code}")
                            });
                            context.ledger.refused(device, &send);
                        }
                        frame
                    }
                    _ => frame,
                };
                match process.core.handle_frame(frame, clock)? {
                    Heard::Nothing => {}
                    Heard::Answer(request) => open.answered(request, now),
                    Heard::Ready { expires, time } => {
                        open.ready_by = None;
                        (process.refused, process.revoked) = (false, false);
                        open.plan_refresh(expires, time, now);
                        let connection = open.connection;
                        context.note([5, device as u64, connection], || {
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
    pub(super) fn drain(&mut self, context: &mut Context<'_>) -> Step {
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
        let mut outgoing = Outgoing {
            open: None,
            batch: Batch::new(),
            records: Vec::new(),
        };
        if let Link::Open(open) = link {
            outgoing.open = Some(open);
        }
        let (from, mut sends) = (self.index, Vec::new());
        let (ledger, town, disk) = (&mut *context.ledger, &*context.town, &self.disk);
        let pumped = core.pump(clock, |frame| {
            if disk.is_dead_here() {
                return false;
            }
            if let ToRelay::Send(send) = frame {
                let parts = send.parts.iter().chain(send.copies.iter());
                let devices = parts.filter_map(|part| town.device(&part.device));
                let push = Push {
                    sequence: send.sequence,
                    id: send.id,
                    whole: send.whole,
                    devices: devices.collect(),
                };
                ledger.pushed(from, &push, now);
                sends.push(push.clone());
                outgoing.sends(send.request, push);
            }
            outgoing.push(frame, now)
        });
        outgoing.seal();
        let Outgoing { open, records, .. } = outgoing;
        if let Some(open) = open {
            let connection = open.connection;
            for record in records {
                context.send(connection, End::Device, Wire::Record(record));
            }
        }
        let let_in = process.let_in.take();
        if let Some(behind) = let_in {
            context.ledger.let_in(self.index, behind, pumped.is_ok());
        }
        for send in sends {
            let number = context.ledger.number(&send.id);
            let sequence = send.sequence;
            context.note([13, from as u64, sequence], || {
                let devices = send.devices;
                format!("device {from} sends {sequence}, message {number:?}, to {devices:?}")
            });
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
            let told = std::mem::take(&mut process.told);
            context.ledger.erased(self.index, &told);
        }
        Ok(())
    }

    fn check_bounds(&self, context: &mut Context<'_>) {
        let Some(process) = &self.process else { return };
        let (waiting, tables) = (process.core.waiting(), process.core.tables());
        context.ledger.check(Invariant::Bounds);
        if let Some(what) = bounds::over(&waiting, &tables) {
            let device = self.index;
            context.ledger.violate(
                Invariant::Bounds,
                format!("device {device} has too many {what}: {waiting:?}, {tables:?}"),
            );
        }
    }
}

/// What a close code means for a device (docs/protocol.md §13).
fn closed_with(code: u16) -> Over {
    match (CloseCode::from_code(code), Retry::of_code(code)) {
        (Some(CloseCode::Replaced), _) => Over::Closed("replaced".to_owned()),
        (Some(CloseCode::Normal), _) | (_, Retry::BackOff | Retry::Later) => {
            Over::Retry("closed by the relay")
        }
        (code, Retry::NewCredential) => Over::Credential {
            revoked: code == Some(CloseCode::Revoked),
        },
        (Some(CloseCode::Version), _) => Over::Closed("another version".to_owned()),
        (_, Retry::Never) => Over::Fault(format!("the relay says {code}")),
    }
}

/// The first two messages change places, and keep the positions.
fn swap_messages(frames: &mut [ToDevice<'_>]) {
    let mut delivers = frames.iter_mut().filter_map(|frame| match frame {
        ToDevice::Deliver(deliver) => Some(deliver),
        _ => None,
    });
    if let (Some(first), Some(second)) = (delivers.next(), delivers.next()) {
        std::mem::swap(&mut first.position, &mut second.position);
        std::mem::swap(first, second);
    }
}
