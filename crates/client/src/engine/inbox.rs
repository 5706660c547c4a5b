//! Events for the application: stored before they are given, and kept until the application is done with them.
//!
//! ```text
//!  push ──▶ stored ──▶ next ──▶ the application ──┬── messages: ack or read ───────▶ erased
//!                        ▲                        └── others: asks for the next ───▶ erased
//!                        └── once more, until the application has asked for the one after it; and after a restart
//! ```
//!
//! What is erased shares the next commit there is, or waits [`ERASE_WITHIN`] for more of its kind: a commit of its own for every message
//! would cost several times what the message costs. A process that is killed in between is given those messages again, marked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sealwire_protocol::key::Thumbprint;

use super::records::MAX_REMEMBERED_DEVICES;
use super::txn::Txn;
use super::{Engine, Fatal, Moment};
use crate::event::{Event, NotSent};
use crate::message::{Acks, Handle, MessageId, Received};
use crate::store::vault::{Place, Table};

/// Messages that wait for the application; while there are as many, no message is acknowledged. A relay gives only so many that
/// are not acknowledged, and everything else still passes: an application that only sends is not held up.
const INBOX_LIMIT: usize = 512;
/// While as many wait, nothing is read at all: the relay does not heed what is acknowledged.
const READ_LIMIT: usize = 1_024;
/// Where as many events wait, only what matters is added: an application that takes no events must not lose a message, a
/// change of devices or a failure, and need not know of ever more receipts.
const EVENT_LIMIT: usize = 3_000;
/// While as many failures wait, no more messages are taken from the application.
const FAILURE_LIMIT: usize = 512;
/// How long, in milliseconds, what the application is done with may wait to be erased with others.
const ERASE_WITHIN: u64 = 50;
/// As many are erased without waiting.
const ERASE_AT_ONCE: usize = 128;

/// The events that wait.
pub(super) struct Inbox {
    events: BTreeMap<u64, Event>,
    next: u64,
    /// The first event that the application has not confirmed to have been given.
    cursor: u64,
    /// Events from here on are new since the store was opened.
    first_new: u64,
    /// How many of the events are messages, and how many are failures.
    messages: usize,
    failures: usize,
    /// Events that are not stored, each behind the events before this number.
    passing: VecDeque<(u64, Event)>,
    /// What the application is done with: messages, and the numbers of other events, whose records are still in the store.
    acks: Arc<Acks>,
    done: Vec<u64>,
    /// Both are erased by then.
    erase_by: Option<Moment>,
}

/// An event to be given to the application.
pub(crate) struct Given {
    pub(crate) event: Event,
    /// Its number, if it is kept.
    pub(crate) number: Option<u64>,
}

impl Inbox {
    pub(super) fn restore(events: Vec<(u64, Event)>) -> Self {
        let next = events.last().map_or(1, |(number, _)| number + 1);
        let count = |is: fn(&Event) -> bool| events.iter().filter(|(_, event)| is(event)).count();
        Self {
            next,
            cursor: 0,
            first_new: next,
            messages: count(is_message),
            failures: count(is_failure),
            passing: VecDeque::new(),
            acks: Arc::default(),
            done: Vec::new(),
            erase_by: None,
            events: events.into_iter().collect(),
        }
    }

    /// Adds an event; gives its number, unless it is dropped or is part of another.
    pub(super) fn push(&mut self, txn: &mut Txn, event: Event) -> Result<Option<u64>, Fatal> {
        if self.events.len() >= EVENT_LIMIT {
            if is_dispensable(&event) {
                tracing::warn!("the application takes no events: one is dropped");
                return Ok(None);
            }
            if !is_message(&event) && self.make_room(txn, &event)? {
                return Ok(None);
            }
        }
        txn.put(Place::number(Table::Inbox, self.next), &event)?;
        self.count(&event, 1);
        self.events.insert(self.next, event);
        self.next += 1;
        Ok(Some(self.next - 1))
    }

    /// Adds an event that is not stored: it says what has just happened, and only the last of its kind matters.
    pub(super) fn pass(&mut self, event: Event) {
        let same = |other: &(u64, Event)| {
            std::mem::discriminant(&other.1) == std::mem::discriminant(&event)
        };
        self.passing.retain(|other| !same(other));
        self.passing.push_back((self.next, event));
    }

    /// Makes room for an event that must not be lost: one that may be is dropped for it. `true`: it is in the inbox, as part of
    /// another. What the application may have already is left as it is.
    fn make_room(&mut self, txn: &mut Txn, event: &Event) -> Result<bool, Fatal> {
        let from = self.cursor.saturating_add(1);
        for (number, waiting) in self.events.range_mut(from..).rev() {
            if merge_change(waiting, event) {
                txn.put(Place::number(Table::Inbox, *number), waiting)?;
                return Ok(true);
            }
        }
        let mut waiting = self.events.range(from..);
        let dispensable = waiting.find(|(_, event)| is_dispensable(event));
        if let Some(number) = dispensable.map(|(number, _)| *number) {
            tracing::warn!("the application takes no events: one is dropped");
            self.remove(txn, number);
        }
        Ok(false)
    }

    /// Whether a failure to send could still be told.
    pub(super) fn has_room_for_failures(&self) -> bool {
        self.failures < FAILURE_LIMIT
    }

    fn remove(&mut self, txn: &mut Txn, number: u64) -> Option<Event> {
        let event = self.events.remove(&number)?;
        self.count(&event, -1);
        txn.remove(Place::number(Table::Inbox, number));
        Some(event)
    }

    /// The application knows what this event says.
    pub(super) fn heard(&mut self, number: u64) {
        if let Some(event) = self.events.remove(&number) {
            self.count(&event, -1);
            self.done.push(number);
        }
    }

    /// Erases the other events that it is done with. Whatever is committed says what the application knows by then: it may act on it.
    pub(super) fn erase_others(&mut self, txn: &mut Txn) {
        for number in self.done.drain(..) {
            txn.remove(Place::number(Table::Inbox, number));
        }
    }

    /// Why a message of this id was not sent, if the application may not have been told yet, and the number of the event that says so.
    pub(super) fn failure(&self, of: MessageId) -> Option<(u64, NotSent)> {
        if self.failures == 0 {
            return None;
        }
        let mut waiting = self.events.range(self.cursor..);
        waiting.find_map(|(number, event)| {
            if let Event::NotSent { id, reason, .. } = event
                && *id == of
            {
                Some((*number, *reason))
            } else {
                None
            }
        })
    }

    /// Whether what the application is done with is to be erased now. If not, [`erase_by`](Self::erase_by) says when.
    pub(super) fn must_erase(&mut self, now: Moment) -> bool {
        let done = self.done.len() + self.acks.len();
        if done == 0 {
            self.erase_by = None;
            return false;
        }
        let latest = Moment(now.0.saturating_add(ERASE_WITHIN));
        // A clock that was put back must not make it wait for longer.
        let by = self.erase_by.map_or(latest, |by| by.min(latest));
        self.erase_by = Some(by);
        done >= ERASE_AT_ONCE || by <= now
    }

    pub(super) fn erase_by(&self) -> Option<Moment> {
        self.erase_by
    }

    fn count(&mut self, event: &Event, by: isize) {
        if is_message(event) {
            self.messages = self.messages.saturating_add_signed(by);
        }
        if is_failure(event) {
            self.failures = self.failures.saturating_add_signed(by);
        }
    }

    /// How many events wait, and messages that the application has not acknowledged.
    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn len(&self) -> usize {
        self.events.len()
    }
}

impl Engine {
    /// Whether the messages that have arrived may be acknowledged, so that more come.
    pub(crate) fn has_room(&self) -> bool {
        self.inbox.messages < INBOX_LIMIT
    }

    /// Whether anything may be read from the link. What lets the device in always is.
    pub(crate) fn may_read(&self) -> bool {
        !self.is_ready() || self.inbox.messages < READ_LIMIT
    }

    /// The oldest event that the application has not been given for certain. Only after a commit.
    pub(crate) fn next_event(&self) -> Option<Given> {
        let inbox = &self.inbox;
        let stored = inbox.events.range(inbox.cursor..).next();
        if let Some((behind, event)) = inbox.passing.front()
            && stored.is_none_or(|(number, _)| number >= behind)
        {
            return Some(Given {
                event: event.clone(),
                number: None,
            });
        }
        let (number, event) = stored?;
        let mut event = event.clone();
        if let Event::Message(received)
        | Event::Copy {
            message: received, ..
        } = &mut event
        {
            received.redelivered = *number < inbox.first_new;
            received.handle = Some(Handle {
                number: *number,
                acks: Arc::clone(&inbox.acks),
            });
        }
        Some(Given {
            event,
            number: Some(*number),
        })
    }

    /// The event that is not kept, and that [`next_event`](Self::next_event) gave, has been handed over.
    pub(crate) fn passed(&mut self) {
        self.inbox.passing.pop_front();
    }

    /// The application has the event with this number: a message stays until it is acknowledged, anything else is done with.
    pub(crate) fn event_taken(&mut self, number: u64) {
        self.inbox.cursor = self.inbox.cursor.max(number.saturating_add(1));
        let event = self.inbox.events.get(&number);
        if event.is_some_and(|event| !needs_ack(event)) {
            self.inbox.heard(number);
        }
    }

    /// Acknowledgements of the application wait here.
    pub(crate) fn acks(&self) -> Arc<Acks> {
        Arc::clone(&self.inbox.acks)
    }

    /// Whether the event with this number has come since the store was opened.
    #[cfg(feature = "simulation")]
    pub(crate) fn is_new_event(&self, number: u64) -> bool {
        number >= self.inbox.first_new
    }

    /// Whether everything that the application is done with has been erased.
    #[cfg(feature = "simulation")]
    pub(crate) fn has_erased(&self) -> bool {
        self.inbox.done.is_empty() && self.inbox.acks.len() == 0
    }

    /// Erases the messages that the application is done with, and tells their senders that they were read where it says so.
    pub(super) fn erase_messages(&mut self, txn: &mut Txn, now: Moment) -> Result<(), Fatal> {
        self.inbox.erase_by = None;
        for (number, read) in self.inbox.acks.take() {
            if !self.inbox.events.get(&number).is_some_and(needs_ack) {
                continue;
            }
            // §10.1: who sends without a session is told nothing.
            if let Some(Event::Message(Received {
                id,
                from,
                device,
                forward_secrecy: true,
                ..
            })) = self.inbox.remove(txn, number)
                && read
            {
                self.confirm(txn, &from, device, id.0, true, now)?;
            }
        }
        Ok(())
    }
}

/// Whether an event stands for a message of the mailbox, readable or not.
fn is_message(event: &Event) -> bool {
    needs_ack(event) || matches!(event, Event::Undecryptable { .. })
}

fn needs_ack(event: &Event) -> bool {
    matches!(event, Event::Message(_) | Event::Copy { .. })
}

fn is_failure(event: &Event) -> bool {
    matches!(event, Event::NotSent { .. } | Event::NotDelivered { .. })
}

/// Whether nothing is lost but convenience if an event is.
fn is_dispensable(event: &Event) -> bool {
    match event {
        Event::Delivered { .. }
        | Event::Read { .. }
        | Event::Gap { .. }
        | Event::SessionRepaired { .. }
        | Event::Recovered { .. }
        | Event::Push(_)
        | Event::PushesMissed { .. }
        | Event::Connection(_) => true,
        Event::Message(_)
        | Event::Copy { .. }
        | Event::Undecryptable { .. }
        | Event::NotSent { .. }
        | Event::NotDelivered { .. }
        | Event::MailboxGap(_)
        | Event::StoreRestored
        | Event::RelayKeyChanged { .. }
        | Event::PeerChanged { .. } => false,
    }
}

/// Adds a change of devices to one of the same user that waits, and says nothing twice. A device that came and went is in both lists.
fn merge_change(waiting: &mut Event, event: &Event) -> bool {
    match (waiting, event) {
        (
            Event::PeerChanged {
                user,
                added,
                removed,
                was_verified,
            },
            Event::PeerChanged {
                user: same,
                added: more,
                removed: fewer,
                was_verified: was,
            },
        ) if user == same => {
            merge(added, more);
            merge(removed, fewer);
            *was_verified |= was;
            true
        }
        (Event::MailboxGap(gap), Event::MailboxGap(same)) => gap == same,
        (Event::StoreRestored, Event::StoreRestored) => true,
        _ => false,
    }
}

/// As many devices as a record has room for; that there was a change is told in any case.
fn merge(devices: &mut Vec<Thumbprint>, more: &[Thumbprint]) {
    for device in more {
        if devices.len() < MAX_REMEMBERED_DEVICES && !devices.contains(device) {
            devices.push(*device);
        }
    }
}
