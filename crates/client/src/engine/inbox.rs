//! Messages that arrive: opened, stored and made into events in one step, and only then acknowledged.
//!
//! ```text
//!  Deliver ──▶ seen before? ── yes ─────────────────────────────────────────▶ position
//!                  │ no
//!                  ▼
//!                open ── no ──▶ Undecryptable, a new session if that may help ──▶ position
//!                  │ yes
//!                  ▼
//!                content ──▶ Message, Copy, Delivered, nothing ──────────────▶ position
//! ```
//!
//! A message that cannot be opened is recorded and passed: a mailbox never gets stuck.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use sealwire_e2e::content::{Body, Content, Kind};
use sealwire_e2e::error::{Error as E2eError, Misbehaved};
use sealwire_e2e::message::SealedMessage;
use sealwire_e2e::peer::{Local, Opened};
use sealwire_protocol::frame::Deliver;
use sealwire_protocol::key::Thumbprint;

use super::outbox::Purpose;
use super::records::{self, MAX_REMEMBERED_DEVICES, SeenMessage};
use super::txn::Txn;
use super::{Engine, Fatal, Moment, policy};
use crate::error::RelayFault;
use crate::event::Event;
use crate::message::{Message, MessageId, Received};
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
/// Messages that are remembered as seen; the oldest are forgotten first.
const SEEN_LIMIT: usize = 4_096;
/// How long no second new session is started with a device whose messages do not open, in seconds.
const REPAIR_INTERVAL: u64 = 60 * 60;
/// Devices for which that is remembered.
const REPAIRED_LIMIT: usize = 1_024;

/// The messages that arrived last.
pub(super) struct Seen {
    next: u64,
    order: VecDeque<(u64, SeenMessage)>,
    messages: HashSet<SeenMessage>,
}

impl Seen {
    pub(super) fn restore(records: Vec<(u64, SeenMessage)>) -> Self {
        let next = records.last().map_or(1, |(number, _)| number + 1);
        let messages = records.iter().map(|(_, message)| *message).collect();
        Self {
            next,
            order: records.into(),
            messages,
        }
    }

    fn insert(&mut self, txn: &mut Txn, message: SeenMessage) -> Result<(), Fatal> {
        while self.order.len() >= SEEN_LIMIT {
            let Some((number, oldest)) = self.order.pop_front() else {
                break;
            };
            self.messages.remove(&oldest);
            txn.remove(Place::number(Table::Seen, number));
        }
        txn.put(Place::number(Table::Seen, self.next), &message)?;
        self.order.push_back((self.next, message));
        self.messages.insert(message);
        self.next += 1;
        Ok(())
    }
}

impl Engine {
    /// Whether the messages that have arrived may be acknowledged, so that more come.
    pub(crate) fn has_room(&self) -> bool {
        self.fewer_messages_than(INBOX_LIMIT)
    }

    /// Whether anything may be read from the link. What lets the device in always is.
    pub(crate) fn may_read(&self) -> bool {
        !self.is_ready() || self.fewer_messages_than(READ_LIMIT)
    }

    fn fewer_messages_than(&self, limit: usize) -> bool {
        // Counted only where it can matter: usually next to nothing waits.
        self.inbox.len() < limit
            || self
                .inbox
                .iter()
                .filter(|(_, event)| is_message(event))
                .count()
                < limit
    }

    /// The oldest event that the application has not taken, with its number.
    pub(crate) fn first_event(&self) -> Option<&(u64, Event)> {
        self.inbox.front()
    }

    /// The application has taken the event with this number.
    pub(crate) fn event_taken(&mut self, number: u64) -> Result<(), Fatal> {
        if self
            .inbox
            .front()
            .is_some_and(|(first, _)| *first == number)
        {
            self.inbox.pop_front();
            let mut txn = Txn::default();
            txn.remove(Place::number(Table::Inbox, number));
            self.commit(txn)?;
        }
        Ok(())
    }

    /// A message from the mailbox. Afterwards [`position`](Engine::position) covers it.
    pub(crate) fn handle_deliver(
        &mut self,
        deliver: &Deliver<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        if self.own.is_none() {
            // Nobody can have sealed anything for a device that never had an attestation.
            return Err(RelayFault::Unasked.into());
        }
        if deliver.position <= self.mailbox.position {
            return Ok(());
        }
        let mut txn = Txn::default();
        let message = SeenMessage {
            device: deliver.device,
            id: deliver.id,
        };
        if !self.seen.messages.contains(&message) {
            self.seen.insert(&mut txn, message)?;
            self.receive(&mut txn, deliver, now)?;
        }
        self.mailbox.position = deliver.position;
        txn.put(records::mailbox(), &self.mailbox)?;
        self.commit(txn)
    }

    /// Something of the mailbox that is no message. Afterwards [`position`](Engine::position) covers it.
    pub(crate) fn handle_skipped(&mut self, position: u64) -> Result<(), Fatal> {
        if position <= self.mailbox.position {
            return Ok(());
        }
        self.mailbox.position = position;
        let mut txn = Txn::default();
        txn.put(records::mailbox(), &self.mailbox)?;
        self.commit(txn)
    }

    /// Puts an event into the inbox.
    pub(super) fn push_event(&mut self, txn: &mut Txn, event: Event) -> Result<(), Fatal> {
        if self.inbox.len() >= EVENT_LIMIT {
            if is_dispensable(&event) {
                tracing::warn!("the application takes no events: one is dropped");
                return Ok(());
            }
            if !is_message(&event) && self.make_room(txn, &event)? {
                return Ok(());
            }
        }
        txn.put(Place::number(Table::Inbox, self.next_inbox), &event)?;
        self.inbox.push_back((self.next_inbox, event));
        self.next_inbox += 1;
        Ok(())
    }

    /// Makes room for an event that must not be lost: one that may be is dropped for it. `true`: it is in the inbox, as part of
    /// another. The first is left as it is, because the application may have it already.
    fn make_room(&mut self, txn: &mut Txn, event: &Event) -> Result<bool, Fatal> {
        for (number, waiting) in self.inbox.iter_mut().skip(1).rev() {
            if merge_change(waiting, event) {
                txn.put(Place::number(Table::Inbox, *number), waiting)?;
                return Ok(true);
            }
        }
        let dispensable = |(_, event): &(u64, Event)| is_dispensable(event);
        let at = self.inbox.iter().skip(1).position(dispensable);
        if let Some((number, _)) = at.and_then(|at| self.inbox.remove(at + 1)) {
            tracing::warn!("the application takes no events: one is dropped");
            txn.remove(Place::number(Table::Inbox, number));
        }
        Ok(false)
    }

    /// Whether a failure to send could still be told.
    pub(super) fn has_room_for_failures(&self) -> bool {
        let failed = |(_, event): &&(u64, Event)| matches!(event, Event::NotSent { .. });
        self.inbox.len() < FAILURE_LIMIT || self.inbox.iter().filter(failed).count() < FAILURE_LIMIT
    }

    fn receive(&mut self, txn: &mut Txn, deliver: &Deliver<'_>, now: Moment) -> Result<(), Fatal> {
        let user: Arc<str> = deliver.user.into();
        if !self.admits_device(txn, &user, deliver.device)? {
            return self.not_opened(txn, deliver, user, NotOpened::Refused, now);
        }
        let opened = match self.open_message(txn, deliver, now)? {
            Ok(opened) => opened,
            Err(why) => return self.not_opened(txn, deliver, user, why, now),
        };
        if let Some(started) = &opened.started {
            // The one-time prekey is erased in the same step that opens the message (§6.2).
            txn.put_bytes(records::prekeys(), &self.prekeys.encode());
            if let (Some(_), Some(link)) = (started.one_time, &mut self.link) {
                link.publishing.used_one();
            }
        }
        // What the issuer attests decides whose device it is; that the relay says the same is checked.
        let attested = txn
            .peer(&self.vault, deliver.device)?
            .identity()
            .map(|identity| identity.user.clone());
        if attested.is_none_or(|attested| attested.as_str() != deliver.user) {
            return self.not_opened(txn, deliver, user, NotOpened::Refused, now);
        }
        self.device_seen(txn, &user, deliver.device, now)?;
        if opened.missing > 0 {
            let gap = Event::Gap {
                user: Arc::clone(&user),
                device: deliver.device,
                missing: opened.missing,
            };
            self.push_event(txn, gap)?;
        }
        match Content::decode(&opened.content) {
            Ok(content) => self.take_content(txn, deliver, user, &content, now),
            Err(_) => self.not_opened(txn, deliver, user, NotOpened::Refused, now),
        }
    }

    fn take_content(
        &mut self,
        txn: &mut Txn,
        deliver: &Deliver<'_>,
        user: Arc<str>,
        content: &Content<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        let received = |body: &Body<'_>| Received {
            id: MessageId(content.id),
            from: Arc::clone(&user),
            device: deliver.device,
            sent_at: content.time,
            message: Message::new(body.media_type, body.bytes),
        };
        // §9.3: of kinds 0 and 2 the id is that of the frame; a copy comes from this user's own devices only.
        match &content.kind {
            Kind::Message(body) if content.id == deliver.id => {
                let event = Event::Message(received(body));
                self.push_event(txn, event)?;
                if self.options.delivery_receipts {
                    let ids = [content.id];
                    let receipt = Content {
                        id: rand::random(),
                        time: now.0,
                        kind: Kind::Delivered(ids.as_slice().into()),
                    };
                    self.enqueue_own(txn, user, Purpose::Delivered, &receipt, now)?;
                }
                Ok(())
            }
            Kind::Copy { user: to, body }
                if content.id == deliver.id && self.account.user.as_ref() == Some(&user) =>
            {
                let event = Event::Copy {
                    to: (*to).into(),
                    message: received(body),
                };
                self.push_event(txn, event)
            }
            Kind::Delivered(ids) => ids
                .iter()
                .try_for_each(|id| self.handle_delivered(txn, *id, &user, deliver.device)),
            Kind::Empty
            | Kind::Read(_)
            | Kind::Resend(_)
            | Kind::Unavailable(_)
            | Kind::Name(_) => Ok(()),
            Kind::Message(_) | Kind::Copy { .. } => {
                self.not_opened(txn, deliver, user, NotOpened::Refused, now)
            }
        }
    }

    /// Opens a message in its session, or in the one that it starts. After `Err` nothing has changed.
    fn open_message(
        &mut self,
        txn: &mut Txn,
        deliver: &Deliver<'_>,
        now: Moment,
    ) -> Result<Result<Opened, NotOpened>, Fatal> {
        let Some(own) = &self.own else {
            return Ok(Err(NotOpened::Refused));
        };
        let Ok(message) = SealedMessage::decode(deliver.message) else {
            return Ok(Err(NotOpened::Refused));
        };
        let local = Local {
            keys: &self.keys,
            own,
            prekeys: &mut self.prekeys,
        };
        let peer = txn.peer(&self.vault, deliver.device)?;
        match peer.open(
            local,
            &message,
            &*self.issuer.keys,
            &policy(&self.issuer, now),
        ) {
            Ok(opened) => Ok(Ok(opened)),
            Err(error) => {
                tracing::info!(%error, "a message does not open");
                txn.forget_unchanged(deliver.device);
                // A repetition is also what the next message of a session is that was started without a one-time prekey and is
                // lost here.
                let lost = matches!(
                    error,
                    E2eError::Decrypt
                        | E2eError::Gone(_)
                        | E2eError::Misbehaved(Misbehaved::Replay)
                );
                Ok(Err(if lost {
                    NotOpened::Lost
                } else {
                    NotOpened::Refused
                }))
            }
        }
    }

    /// Tells the application of a message that will never be read, and starts a new session where that may help.
    fn not_opened(
        &mut self,
        txn: &mut Txn,
        deliver: &Deliver<'_>,
        user: Arc<str>,
        why: NotOpened,
        now: Moment,
    ) -> Result<(), Fatal> {
        let id = MessageId(deliver.id);
        self.push_event(
            txn,
            Event::Undecryptable {
                id,
                user: Arc::clone(&user),
                device: deliver.device,
            },
        )?;
        let known = txn
            .user(&self.vault, &user)?
            .is_some_and(|pinned| pinned.present().contains(&deliver.device));
        let last = self.repaired.get(&deliver.device);
        let recently =
            last.is_some_and(|last| last.saturating_add(REPAIR_INTERVAL) > now.seconds());
        if why == NotOpened::Lost && known && !recently {
            if self.repaired.len() >= REPAIRED_LIMIT {
                self.repaired.clear();
            }
            self.repaired.insert(deliver.device, now.seconds());
            let empty = Content {
                id: rand::random(),
                time: now.0,
                kind: Kind::Empty,
            };
            self.enqueue_own(txn, user, Purpose::Repair(deliver.device), &empty, now)?;
        }
        Ok(())
    }
}

/// Whether an event stands for a message of the mailbox, readable or not.
fn is_message(event: &Event) -> bool {
    matches!(
        event,
        Event::Message(_) | Event::Copy { .. } | Event::Undecryptable { .. }
    )
}

/// Whether nothing is lost but convenience if an event is.
fn is_dispensable(event: &Event) -> bool {
    match event {
        Event::Delivered { .. }
        | Event::Gap { .. }
        | Event::SessionRepaired { .. }
        | Event::Connection(_) => true,
        Event::Message(_)
        | Event::Copy { .. }
        | Event::Undecryptable { .. }
        | Event::NotSent { .. }
        | Event::PeerChanged { .. } => false,
    }
}

/// Adds a change of devices to one of the same user that waits. A device that came and went is in both lists.
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

/// Why a message was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotOpened {
    /// Its session or key is not here: a new session may help.
    Lost,
    /// It is not what it may be.
    Refused,
}
