//! Messages on their way out: sealed in the step that puts them here, and here until the relay has them.
//!
//! ```text
//!            no session, or devices_changed             cards fetched, sealed
//!  send ──┬──────────────────────────────▶ NeedsCards ────────────────┐
//!         │                                                           ▼
//!         └── sessions with all devices, sealed ───────────────────▶ Ready ── poll_request ──▶ Sent
//!                                                                     ▲                         │
//!                  Later (our own messages, refused for now) ─────────┴──── link lost ──────────┤
//!                                                                                               ▼
//!                                                              accepted: gone      refused: gone, and somebody is told
//! ```

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use sealwire_e2e::content::{Body, Content, Kind};
use sealwire_protocol::frame::Part;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::records::{Trust, UndeliveredRecord};
use super::txn::Txn;
use super::{Engine, Fatal, Moment};
use crate::client::Receipt;
use crate::error::{CardFault, Error, Misuse, Refusal};
use crate::event::{Event, NotSent};
use crate::message::{Message, MessageId};
use crate::store::vault::{Place, Table};

/// Messages that may wait in the outbox.
pub(crate) const OUTBOX_LIMIT: usize = 256;
/// Beyond the application's messages: copies, receipts and repairs. More of these are not made.
const OWN_LIMIT: usize = 512;
/// How often a message is sealed anew because the recipient's devices have changed.
const MAX_ROUNDS: u8 = 3;
/// How often one of our own messages is tried again after a refusal that may pass.
const MAX_TRIES: u8 = 5;
/// After how long, times the number of tries, in milliseconds.
const RETRY_DELAY: u64 = 15_000;
/// Messages of which a delivered receipt is remembered to be missing; the oldest are forgotten first.
const UNDELIVERED_LIMIT: usize = 2_048;

/// A message on its way out.
pub(crate) struct Entry {
    pub(super) id: [u8; 16],
    pub(super) user: Arc<str>,
    pub(super) purpose: Purpose,
    /// The encoded content; kept so that it can be sealed for other devices if the recipient's change.
    pub(super) content: Zeroizing<Vec<u8>>,
    /// What was sealed for each device. It never changes for a device that stays.
    pub(super) parts: Vec<(Thumbprint, Vec<u8>)>,
    pub(super) stage: Stage,
    /// Which of this device's Sends it is (`docs/protocol.md §5.1`); 0 until it is sent.
    sequence: u64,
    rounds: u8,
    tries: u8,
    answer: Option<oneshot::Sender<Result<Receipt, Error>>>,
    /// A delivered receipt has overtaken the relay's acceptance.
    delivered: bool,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application's.
    Message,
    /// For this user's other devices.
    Copy,
    /// Tells a sender that their message is stored.
    Delivered,
    /// An empty message in a new session with this device.
    Repair(Thumbprint),
}

/// Where a message is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    NeedsCards,
    Ready,
    Sent,
    Later(Moment),
}

impl Entry {
    /// An entry as it comes back from the store.
    pub(super) fn stored(
        id: [u8; 16],
        user: Arc<str>,
        purpose: Purpose,
        content: Zeroizing<Vec<u8>>,
        parts: Vec<(Thumbprint, Vec<u8>)>,
    ) -> Self {
        let stage = if parts.is_empty() {
            Stage::NeedsCards
        } else {
            Stage::Ready
        };
        Self {
            id,
            user,
            purpose,
            content,
            parts,
            stage,
            sequence: 0,
            rounds: 0,
            tries: 0,
            answer: None,
            delivered: false,
        }
    }

    pub(super) fn link_lost(&mut self) {
        self.stage = match self.stage {
            Stage::Sent => Stage::Ready,
            stage @ (Stage::NeedsCards | Stage::Ready | Stage::Later(_)) => stage,
        };
    }
}

/// What a Send frame is made of.
pub(crate) struct OutgoingSend<'a> {
    pub(crate) sequence: u64,
    pub(crate) id: [u8; 16],
    pub(crate) user: &'a str,
    pub(crate) parts: Vec<Part<'a>>,
}

/// Messages that the relay has, and of which no device has said yet that it has them.
pub(super) struct Undelivered {
    next: u64,
    order: VecDeque<(u64, [u8; 16])>,
    messages: HashMap<[u8; 16], Waiting>,
}

struct Waiting {
    number: u64,
    user: Arc<str>,
    receipt: Option<oneshot::Sender<()>>,
}

impl Undelivered {
    pub(super) fn restore(records: Vec<(u64, UndeliveredRecord)>) -> Self {
        let next = records.last().map_or(1, |(number, _)| number + 1);
        let order = records
            .iter()
            .map(|(number, record)| (*number, record.id))
            .collect();
        let waiting = |(number, record): (u64, UndeliveredRecord)| {
            (
                record.id,
                Waiting {
                    number,
                    user: record.user,
                    receipt: None,
                },
            )
        };
        Self {
            next,
            order,
            messages: records.into_iter().map(waiting).collect(),
        }
    }

    fn insert(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        user: Arc<str>,
        receipt: oneshot::Sender<()>,
    ) -> Result<(), Fatal> {
        while self.messages.len() >= UNDELIVERED_LIMIT {
            let Some((number, oldest)) = self.order.pop_front() else {
                break;
            };
            if self.messages.remove(&oldest).is_some() {
                txn.remove(Place::number(Table::Undelivered, number));
            }
        }
        let number = self.next;
        self.next += 1;
        txn.put(
            Place::number(Table::Undelivered, number),
            &UndeliveredRecord {
                id,
                user: Arc::clone(&user),
            },
        )?;
        self.order.push_back((number, id));
        self.messages.insert(
            id,
            Waiting {
                number,
                user,
                receipt: Some(receipt),
            },
        );
        Ok(())
    }

    /// Takes the message `id` to `user` out, if it is waited for.
    fn take(&mut self, txn: &mut Txn, id: [u8; 16], user: &str) -> Option<Waiting> {
        if &*self.messages.get(&id)?.user != user {
            return None;
        }
        let waiting = self.messages.remove(&id)?;
        txn.remove(Place::number(Table::Undelivered, waiting.number));
        // Most receipts come in order.
        while self
            .order
            .front()
            .is_some_and(|(_, id)| !self.messages.contains_key(id))
        {
            self.order.pop_front();
        }
        // Behind one that never comes, what has come is forgotten too.
        if self.order.len() > 2 * UNDELIVERED_LIMIT {
            self.order.retain(|(_, id)| self.messages.contains_key(id));
        }
        Some(waiting)
    }
}

impl Engine {
    /// Takes a message from the application. `answer` gets its receipt once the relay has it.
    pub(crate) fn send(
        &mut self,
        user: &str,
        message: &Message,
        answer: oneshot::Sender<Result<Receipt, Error>>,
        now: Moment,
    ) -> Result<(), Fatal> {
        if let Err(error) = self.may_send(user, message)? {
            // An error means that the caller has gone.
            let _ = answer.send(Err(error));
            return Ok(());
        }
        let id = rand::random();
        let body = Body {
            media_type: message.media_type(),
            bytes: message.body(),
        };
        let Some(content) = encode(&Content {
            id,
            time: now.0,
            kind: Kind::Message(body),
        }) else {
            let _ = answer.send(Err(Misuse::MediaType.into()));
            return Ok(());
        };
        let mut txn = Txn::default();
        let user: Arc<str> = user.into();
        let number = self.enqueue(
            &mut txn,
            id,
            Arc::clone(&user),
            Purpose::Message,
            content,
            now,
        )?;
        if let Some(entry) = self.outbox.get_mut(&number) {
            entry.answer = Some(answer);
        }
        if let Some(own) = self.account.user.clone().filter(|own| *own != user)
            && self.may_have_other_devices(&txn)?
            && let Some(content) = encode(&Content {
                id,
                time: now.0,
                kind: Kind::Copy { user: &user, body },
            })
        {
            self.enqueue(&mut txn, id, own, Purpose::Copy, content, now)?;
        }
        self.commit(txn)
    }

    /// The frame of an entry that [`poll_request`](Engine::poll_request) gave.
    pub(crate) fn outgoing(&self, number: u64) -> Option<OutgoingSend<'_>> {
        let entry = self.outbox.get(&number)?;
        let parts = entry
            .parts
            .iter()
            .map(|(device, message)| Part {
                device: *device,
                message,
            })
            .collect();
        Some(OutgoingSend {
            sequence: entry.sequence,
            id: entry.id,
            user: &entry.user,
            parts,
        })
    }

    /// When `poll_request` has to be called again although nothing else has happened; `None` while it would give out no message.
    pub(crate) fn poll_deadline(&self) -> Option<Moment> {
        if !self.may_send_now() {
            return None;
        }
        let later = |entry: &Entry| match entry.stage {
            Stage::Later(at) => Some(at),
            Stage::NeedsCards | Stage::Ready | Stage::Sent => None,
        };
        self.outbox.values().filter_map(later).min()
    }

    /// Puts one of our own messages into the outbox, unless there are too many of them.
    pub(super) fn enqueue_own(
        &mut self,
        txn: &mut Txn,
        user: Arc<str>,
        purpose: Purpose,
        content: &Content<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        if self.outbox.len() >= OUTBOX_LIMIT + OWN_LIMIT {
            tracing::warn!("too many messages wait in the outbox: a receipt or repair is not sent");
            return Ok(());
        }
        if let Some(content) = encode(content) {
            self.enqueue(txn, rand::random(), user, purpose, content, now)?;
        }
        Ok(())
    }

    /// The next entry that may be sent, marked as sent.
    pub(super) fn next_to_send(&mut self, now: Moment) -> Option<u64> {
        let due = |entry: &Entry| match entry.stage {
            Stage::Ready => true,
            Stage::Later(at) => at <= now,
            Stage::NeedsCards | Stage::Sent => false,
        };
        loop {
            let (number, entry) = self.outbox.iter_mut().find(|(_, entry)| due(entry))?;
            if !entry.parts.is_empty() {
                entry.stage = Stage::Sent;
                if entry.sequence == 0 {
                    self.last_sequence += 1;
                    entry.sequence = self.last_sequence;
                }
                return Some(*number);
            }
            // Refused before it could be sealed: the cards first, and meanwhile what is behind it.
            entry.stage = Stage::NeedsCards;
            let user = Arc::clone(&entry.user);
            self.look_up(user, true);
        }
    }

    /// The relay has the message safely.
    pub(super) fn handle_sent(&mut self, number: u64) -> Result<(), Fatal> {
        let Some(entry) = self.outbox.remove(&number) else {
            return Ok(());
        };
        let mut txn = Txn::default();
        txn.remove(Place::number(Table::Outbox, number));
        if entry.purpose == Purpose::Message {
            let (receipt, delivered) = oneshot::channel();
            if entry.delivered {
                let _ = receipt.send(());
            } else {
                self.undelivered
                    .insert(&mut txn, entry.id, entry.user, receipt)?;
            }
            self.commit(txn)?;
            if let Some(answer) = entry.answer {
                let _ = answer.send(Ok(Receipt {
                    id: MessageId(entry.id),
                    delivered,
                }));
            }
            return Ok(());
        }
        self.commit(txn)
    }

    /// The relay has refused the message.
    pub(super) fn handle_not_sent(
        &mut self,
        number: u64,
        refusal: Refusal,
        now: Moment,
    ) -> Result<(), Fatal> {
        let Some(entry) = self.outbox.get_mut(&number) else {
            return Ok(());
        };
        // §5.1: what is tried again after a refusal is another Send.
        entry.sequence = 0;
        if refusal == Refusal::DevicesChanged && entry.rounds < MAX_ROUNDS {
            // §5.2: fetch the cards again. What is sealed for a device that stays is sent to it as it is.
            entry.rounds += 1;
            entry.stage = Stage::NeedsCards;
            let user = Arc::clone(&entry.user);
            self.look_up(user, true);
            return Ok(());
        }
        let mut txn = Txn::default();
        self.give_up(&mut txn, number, &GivenUp::Refused(refusal), now)?;
        self.commit(txn)
    }

    /// One of the devices of `user` has stored the message.
    pub(super) fn handle_delivered(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        user: &Arc<str>,
        device: Thumbprint,
    ) -> Result<(), Fatal> {
        if let Some(waiting) = self.undelivered.take(txn, id, user) {
            if let Some(receipt) = waiting.receipt {
                let _ = receipt.send(());
            }
        } else {
            let sent = |entry: &&mut Entry| {
                entry.id == id
                    && entry.purpose == Purpose::Message
                    && entry.user == *user
                    && !entry.delivered
            };
            // A receipt for a message that was not sent, or a second one, means nothing.
            let Some(entry) = self.outbox.values_mut().find(sent) else {
                return Ok(());
            };
            entry.delivered = true;
        }
        self.push_event(
            txn,
            Event::Delivered {
                id: MessageId(id),
                user: Arc::clone(user),
                device,
            },
        )
    }

    /// Ends the way of an entry that cannot be sent, or puts it off if it is our own and the reason may pass.
    pub(super) fn give_up(
        &mut self,
        txn: &mut Txn,
        number: u64,
        why: &GivenUp,
        now: Moment,
    ) -> Result<(), Fatal> {
        let Some(entry) = self.outbox.get_mut(&number) else {
            return Ok(());
        };
        let own = entry.purpose != Purpose::Message;
        if own && why.may_pass() && entry.tries < MAX_TRIES {
            entry.tries += 1;
            entry.stage = Stage::Later(Moment(
                now.0.saturating_add(RETRY_DELAY * u64::from(entry.tries)),
            ));
            return Ok(());
        }
        let Some(entry) = self.outbox.remove(&number) else {
            return Ok(());
        };
        txn.remove(Place::number(Table::Outbox, number));
        if own {
            return Ok(());
        }
        let unheard = match entry.answer {
            Some(answer) => answer.send(Err(why.error())).is_err(),
            None => true,
        };
        if unheard {
            let reason = why.reason();
            self.push_event(
                txn,
                Event::NotSent {
                    id: MessageId(entry.id),
                    user: entry.user,
                    reason,
                },
            )?;
        }
        Ok(())
    }

    /// Seals an entry for every device of its user that has no part yet, where all sessions are there.
    ///
    /// `Ok(false)`: a session is missing, and nothing was changed.
    pub(super) fn seal_entry(
        &self,
        txn: &mut Txn,
        entry: &mut Entry,
        devices: &[Thumbprint],
        now: Moment,
    ) -> Result<bool, Fatal> {
        let needed = |entry: &Entry| -> Vec<Thumbprint> {
            devices
                .iter()
                .filter(|device| !entry.parts.iter().any(|(has, _)| has == *device))
                .copied()
                .collect()
        };
        for device in needed(entry) {
            if txn.peer(&self.vault, device)?.needs_session(now.seconds()) {
                return Ok(false);
            }
        }
        entry.parts.retain(|(device, _)| devices.contains(device));
        for device in needed(entry) {
            match txn
                .peer(&self.vault, device)?
                .seal(&entry.content, &mut rand::rng())
            {
                Ok(message) => entry.parts.push((device, message)),
                Err(error) => {
                    tracing::warn!(%error, "a session seals no more; a new one is needed");
                    txn.peer(&self.vault, device)?.forget_sessions();
                    return Ok(false);
                }
            }
        }
        Ok(!entry.parts.is_empty())
    }

    fn may_send(&self, user: &str, message: &Message) -> Result<Result<(), Error>, Fatal> {
        if let Err(misuse) = message.check() {
            return Ok(Err(misuse.into()));
        }
        if User::new(user).is_err() {
            return Ok(Err(Misuse::User.into()));
        }
        if self
            .outbox
            .values()
            .filter(|entry| entry.purpose == Purpose::Message)
            .count()
            >= OUTBOX_LIMIT
            || !self.has_room_for_failures()
        {
            return Ok(Err(Misuse::OutboxFull.into()));
        }
        Ok(match self.trust(&Txn::default(), user)? {
            Some(Trust::Changed) => Err(Error::PeerChanged),
            Some(Trust::Verified) => Ok(()),
            Some(Trust::Pinned) | None if self.options.only_verified => Err(Error::PeerUnverified),
            Some(Trust::Pinned) | None => Ok(()),
        })
    }

    /// Makes an entry, sealed at once where that is possible.
    fn enqueue(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        user: Arc<str>,
        purpose: Purpose,
        content: Zeroizing<Vec<u8>>,
        now: Moment,
    ) -> Result<u64, Fatal> {
        let number = self
            .outbox
            .last_key_value()
            .map_or(1, |(number, _)| number + 1);
        let mut entry = Entry::stored(id, user, purpose, content, Vec::new());
        // What is behind a message that waits for cards waits with it, so that they arrive in order.
        let waiting =
            |before: &Entry| before.user == entry.user && before.stage == Stage::NeedsCards;
        let behind = self.outbox.values().any(waiting);
        let repair = matches!(purpose, Purpose::Repair(_));
        if !behind
            && !repair
            && self.own.is_some()
            && let Some(devices) = self.known_devices(txn, &entry.user)?
            && self.seal_entry(txn, &mut entry, &devices, now)?
        {
            entry.stage = Stage::Ready;
        } else {
            self.look_up(Arc::clone(&entry.user), true);
        }
        txn.put(Place::number(Table::Outbox, number), &entry)?;
        self.outbox.insert(number, entry);
        Ok(number)
    }
}

/// Why an entry is given up.
#[derive(Debug, Clone, Copy)]
pub(super) enum GivenUp {
    Refused(Refusal),
    PeerChanged,
    Card(CardFault),
    NoOtherDevice,
}

impl GivenUp {
    pub(super) fn error(self) -> Error {
        match self {
            Self::Refused(refusal) => Error::Refused(refusal),
            Self::PeerChanged => Error::PeerChanged,
            Self::Card(fault) => Error::Card(fault),
            Self::NoOtherDevice => Error::Misuse(Misuse::NoOtherDevice),
        }
    }

    fn reason(self) -> NotSent {
        match self {
            Self::Refused(refusal) => NotSent::Refused(refusal),
            Self::PeerChanged => NotSent::PeerChanged,
            Self::Card(_) => NotSent::Card,
            Self::NoOtherDevice => NotSent::Refused(Refusal::UnknownUser),
        }
    }

    fn may_pass(self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::PeerChanged | Self::Card(_) | Self::NoOtherDevice => false,
        }
    }
}

fn encode(content: &Content<'_>) -> Option<Zeroizing<Vec<u8>>> {
    content.encode().ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_delivered_is_forgotten_behind_a_message_that_never_is() {
        let mut undelivered = Undelivered::restore(Vec::new());
        let mut txn = Txn::default();
        let insert = |undelivered: &mut Undelivered, number: u128, txn: &mut Txn| {
            let (receipt, _) = oneshot::channel();
            undelivered
                .insert(txn, number.to_be_bytes(), "bob".into(), receipt)
                .unwrap();
        };
        insert(&mut undelivered, 0, &mut txn);
        for number in 1..10_000_u128 {
            insert(&mut undelivered, number, &mut txn);
            let taken = undelivered.take(&mut txn, number.to_be_bytes(), "bob");
            assert!(taken.is_some());
            assert!(undelivered.order.len() <= 2 * UNDELIVERED_LIMIT);
        }
        assert_eq!(undelivered.messages.len(), 1);
    }
}
