//! The application on a device: what it sends, what it is shown, and when it is done with that.

use sealwire_client::simulation::Removal;
use sealwire_client::{Event, Message, MessageId, NotDelivered, Received};
use sealwire_protocol::key::Thumbprint;

use super::super::ledger::{Alarm, Number, Reason};
use super::super::schedule::Millis;
use super::super::town::clock;
use super::super::world::Context;
use super::{Device, Step};

/// The media type of the messages.
const MEDIA_TYPE: &str = "application/x-simulation";

/// A message that the application has and has not acknowledged.
pub(super) struct Held {
    pub(super) received: Received,
    pub(super) number: Option<Number>,
    pub(super) due: Millis,
}

impl Device {
    /// The application sends a message.
    pub(in super::super) fn send(&mut self, to: usize, body: Vec<u8>, context: &mut Context<'_>) {
        let mut id = [0; 16];
        rand::Rng::fill_bytes(self.chance.rng(), &mut id);
        let number = context.ledger.sent(self.index, to, id, body);
        let step = self
            .submit(number, context)
            .and_then(|()| self.drain(context));
        self.conclude(step, context);
    }

    /// The application sends again what it does not know the fate of, and now and then what it has forgotten that it knew.
    pub(super) fn step_started(&mut self, context: &mut Context<'_>) -> Step {
        if self.chance.happens(300) {
            for number in context.ledger.accepted_last(self.index) {
                self.submit(number, context)?;
            }
        }
        for number in context.ledger.open_of(self.index) {
            self.submit(number, context)?;
        }
        self.ask_for_removal(context);
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
        context.ledger.given(number);
        Ok(())
    }

    /// The user wants this device to remove another of theirs, or itself.
    pub(in super::super) fn remove(&mut self, target: usize, context: &mut Context<'_>) {
        if self.is_gone {
            return;
        }
        self.removes = Some(target);
        self.ask_for_removal(context);
        let step = self.drain(context);
        self.conclude(step, context);
    }

    fn ask_for_removal(&mut self, context: &mut Context<'_>) {
        let (Some(process), Some(target)) = (&mut self.process, self.removes) else {
            return;
        };
        // One that has never started is not known.
        if let Some(thumbprint) = context.town.thumbprint(target)
            && process.removal.is_none()
        {
            process.removal = Some(process.core.remove_device(thumbprint));
            context.ledger.removing(target);
        }
    }

    fn hear_of_removal(&mut self, context: &mut Context<'_>) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(answer) = process.removal.as_mut().and_then(Removal::poll) else {
            return;
        };
        process.removal = None;
        let target = self.removes.take();
        context.note([12, self.index as u64, u64::from(answer.is_ok())], || {
            format!(
                "device {} hears of the removal of {target:?}: {answer:?}",
                self.index
            )
        });
        if let (Some(target), Ok(())) = (target, answer) {
            context.ledger.removed(target);
        }
    }

    /// Tells the application what has happened.
    pub(super) fn tell(&mut self, context: &mut Context<'_>) -> Step {
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
            let is_new = process.core.is_new_event(kept);
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
                other => process
                    .told
                    .extend(tell_event(self.index, &other, is_new, context)),
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
        self.hear_of_removal(context);
        Ok(())
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

fn tell_event(
    device: usize,
    event: &Event,
    is_new: bool,
    context: &mut Context<'_>,
) -> Option<Alarm> {
    context.note([11, device as u64, 0], || {
        let again = if is_new { "" } else { "perhaps again " };
        format!("device {device} is {again}told {event:?}")
    });
    let now = context.now();
    let town = &*context.town;
    let number = |id: &MessageId| context.ledger.number(id.as_bytes());
    let of = |thumbprint: &Thumbprint| town.device(thumbprint);
    let several = |thumbprints: &[Thumbprint]| thumbprints.iter().filter_map(of).collect();
    let alarm = match event {
        Event::Delivered { id, device: by, .. } => number(id)
            .zip(of(by))
            .map(|(number, by)| Alarm::Delivered { number, by }),
        Event::NotDelivered {
            id,
            device: by,
            reason,
            ..
        } => number(id).zip(of(by)).map(|(number, by)| {
            let reason = match reason {
                NotDelivered::DeviceRemoved => Reason::Removed,
                NotDelivered::MailboxFull => Reason::NoRoom,
                _ => Reason::Expired,
            };
            Alarm::NotDelivered { number, by, reason }
        }),
        Event::Gap {
            device: from,
            missing,
            ..
        } => of(from).map(|from| Alarm::Missing {
            from,
            count: *missing,
        }),
        Event::MailboxGap(_) => Some(Alarm::MailboxGap),
        Event::SessionRepaired { device: with, .. } => {
            of(with).map(|with| Alarm::Repaired { with })
        }
        Event::PeerChanged {
            user,
            added,
            removed,
            ..
        } => town.user_of(user).map(|user| Alarm::Changed {
            user,
            added: several(added),
            removed: several(removed),
        }),
        Event::StoreRestored => Some(Alarm::Restored),
        Event::Read { id, device: by, .. } => {
            if let Some((number, by)) = number(id).zip(of(by)) {
                context.ledger.read(number, by);
            }
            None
        }
        Event::NotSent { id, reason, .. } => {
            if let Some(number) = number(id) {
                context.ledger.failed(number, format!("{reason:?}"));
            }
            None
        }
        Event::Undecryptable {
            id, device: from, ..
        } => {
            let from = of(from);
            context.ledger.undecryptable(id.as_bytes(), from, device);
            None
        }
        _ => None,
    };
    if let Some(alarm) = &alarm {
        context.ledger.told(device, alarm.clone(), is_new, now);
    }
    alarm
}
