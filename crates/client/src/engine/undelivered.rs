//! What the relay has and a device has not confirmed: kept so that receipts find their message, and so that a device that lost its
//! session gets the message again (`docs/protocol.md §8.3`).
//!
//! ```text
//!  accepted ──▶ waiting for devices ──┬── delivered (sealed) ──▶ one device less; none left: forgotten
//!                                     ├── undelivered (relay) ─▶ one device less, and the application is told
//!                                     └── resend (sealed) ─────▶ from there on everything for that device, sealed again
//! ```
//!
//! Where too many wait, the oldest lose their content: they cannot be sent again, but what is heard of them is still told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use sealwire_e2e::content::{Content, Kind, MessageIds};
use sealwire_protocol::key::Thumbprint;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::outbox::{Entry, Purpose, Stage, Target};
use super::records::{self, Resending, UndeliveredRecord};
use super::txn::Txn;
use super::{Engine, Fatal, Moment};
use crate::client::{Receipt, Unheard};
use crate::event::{Event, NotDelivered};
use crate::message::MessageId;
use crate::store::vault::{Place, Table};

/// Messages whose content is kept until every device has confirmed them; the oldest lose it first.
const UNDELIVERED_LIMIT: usize = 2_048;
/// Bytes of their contents, likewise.
const UNDELIVERED_BYTES: usize = 8 << 20;
/// Messages that are known until every device has confirmed them, with content or without; the oldest are forgotten first.
const FOLLOWED_LIMIT: usize = 16_384;
/// Messages of our own that are kept in case their device asks for them; nobody confirms these.
const DIRECT_LIMIT: usize = 256;
/// Devices that get messages again at a time.
pub(super) const MAX_RESENDING: usize = 128;
/// Messages in the outbox that are sealed again; the rest follows.
const AGAIN_LIMIT: usize = 256;
/// A device that asks again sooner than this, in milliseconds, waits.
const RESEND_INTERVAL: u64 = 30_000;

/// What was heard of a message from, or of, a device that it was for.
pub(super) type Heard = Result<(), NotDelivered>;

/// Messages that the relay has, and that not every device has confirmed.
pub(super) struct Undelivered {
    next: u64,
    messages: BTreeMap<u64, Waiting>,
    numbers: HashMap<[u8; 16], u64>,
    /// Those before this one have no content any more.
    first_full: u64,
    /// How many have their content, and its bytes.
    full: usize,
    bytes: usize,
    /// Which of the messages are our own, the oldest first.
    direct: VecDeque<u64>,
    /// For each device that lost its session, from which message on it gets everything again.
    resending: BTreeMap<Thumbprint, u64>,
    resending_changed: bool,
    /// When a device was last sent anything again.
    resent: BTreeMap<Thumbprint, Moment>,
    /// When what was on its way to a device was last put there once more, as it had asked in another session.
    renewed: BTreeMap<Thumbprint, Moment>,
}

struct Waiting {
    record: UndeliveredRecord,
    /// A device of the recipient has it.
    delivered: bool,
    /// A device of the recipient will not get it.
    failed: Option<NotDelivered>,
    receipt: ReceiptSenders,
}

type ReceiptSender = oneshot::Sender<Result<(), Unheard>>;

/// Who waits for what is heard; of one message several may, if its id was given more than once.
#[derive(Default)]
struct ReceiptSenders {
    one: Vec<ReceiptSender>,
    all: Vec<ReceiptSender>,
}

impl Undelivered {
    pub(super) fn restore(records: Vec<(u64, UndeliveredRecord)>, resending: Resending) -> Self {
        let mut undelivered = Self {
            next: records.last().map_or(1, |(number, _)| number + 1),
            messages: BTreeMap::new(),
            numbers: HashMap::new(),
            first_full: 0,
            full: 0,
            bytes: 0,
            direct: VecDeque::new(),
            resending: resending.0,
            resending_changed: false,
            resent: BTreeMap::new(),
            renewed: BTreeMap::new(),
        };
        for (number, record) in records {
            undelivered.put(number, Waiting::new(record));
        }
        undelivered
    }

    /// Keeps one of our own messages that the relay has accepted: a receipt or a request must not be lost with a session either.
    pub(super) fn insert_direct(&mut self, txn: &mut Txn, entry: Entry) -> Result<(), Fatal> {
        while self.direct.len() >= DIRECT_LIMIT {
            let Some(oldest) = self.direct.front().copied() else {
                break;
            };
            self.remove(txn, oldest);
        }
        let pending = entry.parts.iter().map(|part| part.target).collect();
        let record = UndeliveredRecord {
            id: entry.id,
            user: entry.user,
            pending,
            direct: true,
            sequence: entry.sequence,
            content: entry.content,
        };
        self.keep(txn, Waiting::new(record))
    }

    fn keep(&mut self, txn: &mut Txn, waiting: Waiting) -> Result<(), Fatal> {
        let bytes = waiting.record.content.len();
        while self.full >= UNDELIVERED_LIMIT || self.bytes.saturating_add(bytes) > UNDELIVERED_BYTES
        {
            if !self.strip_oldest(txn)? {
                break;
            }
        }
        while self.messages.len() >= FOLLOWED_LIMIT {
            let Some(oldest) = self.messages.first_key_value().map(|(number, _)| *number) else {
                break;
            };
            if let Some(waiting) = self.remove(txn, oldest) {
                waiting.receipt.forget();
            }
        }
        let number = self.next;
        self.next += 1;
        txn.put(Place::number(Table::Undelivered, number), &waiting.record)?;
        self.put(number, waiting);
        Ok(())
    }

    /// Takes the content from the oldest message that has one; `false` if none has.
    fn strip_oldest(&mut self, txn: &mut Txn) -> Result<bool, Fatal> {
        let mut full = self.messages.range_mut(self.first_full..);
        let Some((number, waiting)) = full.find(|(_, waiting)| waiting.is_full()) else {
            return Ok(false);
        };
        let number = *number;
        self.first_full = number + 1;
        if waiting.record.direct {
            // Nothing is ever heard of it.
            self.remove(txn, number);
            return Ok(true);
        }
        self.full -= 1;
        self.bytes = self.bytes.saturating_sub(waiting.record.content.len());
        waiting.record.content = Zeroizing::default();
        txn.put(Place::number(Table::Undelivered, number), &waiting.record)?;
        Ok(true)
    }

    fn put(&mut self, number: u64, waiting: Waiting) {
        let record = &waiting.record;
        self.full += usize::from(waiting.is_full());
        self.bytes += record.content.len();
        self.numbers.insert(record.id, number);
        if record.direct {
            self.direct.push_back(number);
        }
        self.messages.insert(number, waiting);
    }

    /// To whom a message of the application went under this id, if it is kept.
    pub(super) fn user_of(&self, id: [u8; 16]) -> Option<&str> {
        let waiting = self.messages.get(self.numbers.get(&id)?)?;
        (!waiting.record.direct).then_some(&*waiting.record.user)
    }

    /// Users to whom nothing new goes, because one of their devices, or of this user's own, gets something again first.
    pub(super) fn resending(&self) -> impl Iterator<Item = Arc<str>> {
        self.resending.iter().flat_map(|(device, from)| {
            let of_device = move |waiting: &&Waiting| waiting.may_resend(*device);
            let rest = self.messages.range(*from..).map(|(_, waiting)| waiting);
            rest.filter(of_device)
                .map(|waiting| Arc::clone(&waiting.record.user))
        })
    }

    /// When somebody who has asked too soon gets an answer. While as many are sealed again as may be, it is one of those that is waited for.
    pub(super) fn deadline(&self, again: usize) -> Option<Moment> {
        if again >= AGAIN_LIMIT {
            return None;
        }
        self.resending.keys().map(|device| self.ripe(device)).min()
    }

    fn ripe(&self, device: &Thumbprint) -> Moment {
        let last = self.resent.get(device);
        last.map_or(Moment(0), |last| {
            Moment(last.0.saturating_add(RESEND_INTERVAL))
        })
    }

    /// A device gets everything from this message on.
    pub(super) fn resend_from(&mut self, device: Thumbprint, from: u64) {
        if self.resending.len() < MAX_RESENDING || self.resending.contains_key(&device) {
            let known = self.resending.entry(device).or_insert(from);
            *known = from.min(*known);
            self.resending_changed = true;
        }
    }

    /// The relay was put back to when it had accepted no Send after this one: whoever has not confirmed a later one gets it again.
    pub(super) fn resend_after(&mut self, sequence: u64) {
        let mut forgotten = BTreeMap::new();
        for (number, waiting) in self.messages.range(self.first_full..) {
            if waiting.record.sequence > sequence {
                for target in &waiting.record.pending {
                    forgotten.entry(target.device).or_insert(*number);
                }
            }
        }
        if !forgotten.is_empty() {
            tracing::warn!("the relay was put back: what it has forgotten is sent again");
        }
        for (device, number) in forgotten {
            self.resend_from(device, number);
        }
    }

    /// The place of a message that a device has to get again after all.
    pub(super) fn resend_again(&mut self, id: [u8; 16], device: Thumbprint) {
        if let Some(number) = self.numbers.get(&id).copied() {
            self.resend_from(device, number);
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds what has changed to a commit.
    pub(super) fn write_changes(&mut self, txn: &mut Txn) -> Result<(), Fatal> {
        if std::mem::take(&mut self.resending_changed) {
            txn.put(records::resending(), &Resending(self.resending.clone()))?;
        }
        Ok(())
    }

    /// How many messages are followed; of these, how many have their content, and its bytes; how many are our own; and how many
    /// devices get something again.
    #[cfg(feature = "simulation")]
    pub(super) fn sizes(&self) -> (usize, usize, usize, usize, usize) {
        let (followed, full) = (self.messages.len(), self.full);
        let (direct, resending) = (self.direct.len(), self.resending.len());
        (followed, full, self.bytes, direct, resending)
    }

    fn remove(&mut self, txn: &mut Txn, number: u64) -> Option<Waiting> {
        let waiting = self.messages.remove(&number)?;
        self.full -= usize::from(waiting.is_full());
        self.bytes = self.bytes.saturating_sub(waiting.record.content.len());
        self.numbers.remove(&waiting.record.id);
        if waiting.record.direct {
            self.direct.retain(|direct| *direct != number);
        }
        txn.remove(Place::number(Table::Undelivered, number));
        Some(waiting)
    }
}

impl Waiting {
    fn new(record: UndeliveredRecord) -> Self {
        Self {
            record,
            delivered: false,
            failed: None,
            receipt: ReceiptSenders::default(),
        }
    }

    fn receipt(&mut self) -> Receipt {
        let ((one, to_one), (all, to_all)) = (oneshot::channel(), oneshot::channel());
        for (waiting, new) in [(&mut self.receipt.one, one), (&mut self.receipt.all, all)] {
            waiting.retain(|sender| !sender.is_closed());
            waiting.push(new);
        }
        Receipt {
            id: MessageId(self.record.id),
            to_one,
            to_all,
        }
    }

    /// Whether its content is here.
    fn is_full(&self) -> bool {
        !self.record.content.is_empty()
    }

    /// Whether a device may get it again.
    fn may_resend(&self, device: Thumbprint) -> bool {
        self.is_full() && self.target(device).is_some()
    }

    fn target(&self, device: Thumbprint) -> Option<Target> {
        let mut pending = self.record.pending.iter();
        pending.find(|target| target.device == device).copied()
    }

    /// Something was heard of a device that is waited for.
    fn hear(&mut self, target: Target, heard: Heard) {
        self.record.pending.retain(|pending| *pending != target);
        if !target.copy {
            match heard {
                Ok(()) => self.delivered = true,
                Err(why) => self.failed = Some(why),
            }
        }
    }

    /// Who is to be told now, and what.
    fn told(&mut self) -> Vec<(ReceiptSender, Heard)> {
        let mut told = Vec::new();
        if self.delivered {
            told.extend(self.receipt.one.drain(..).map(|one| (one, Ok(()))));
        }
        if !self.record.pending.iter().any(|target| !target.copy) {
            let heard = self.failed.map_or(Ok(()), Err);
            let waiting = self.receipt.one.drain(..).chain(self.receipt.all.drain(..));
            told.extend(waiting.map(|sender| (sender, heard)));
        }
        told
    }
}

impl ReceiptSenders {
    /// Nothing is heard of the message any more.
    fn forget(self) {
        for sender in self.one.into_iter().chain(self.all) {
            // An error means that nobody waits.
            let _ = sender.send(Err(Unheard::Forgotten));
        }
    }
}

impl Engine {
    /// Keeps a message of the application that the relay has accepted; gives as many receipts for it.
    pub(super) fn keep_undelivered(
        &mut self,
        txn: &mut Txn,
        entry: Entry,
        receipts: usize,
    ) -> Result<Vec<Receipt>, Fatal> {
        let record = UndeliveredRecord {
            id: entry.id,
            user: entry.user,
            pending: entry.parts.iter().map(|part| part.target).collect(),
            direct: false,
            sequence: entry.sequence,
            content: entry.content,
        };
        let mut waiting = Waiting::new(record);
        for (device, heard) in entry.heard {
            if let Some(target) = waiting.target(device) {
                waiting.hear(target, heard);
            }
        }
        let receipts = (0..receipts).map(|_| waiting.receipt()).collect();
        self.tell(&mut waiting);
        if !waiting.record.pending.is_empty() {
            self.undelivered.keep(txn, waiting)?;
        }
        Ok(receipts)
    }

    /// A new receipt for a message that is kept.
    pub(super) fn receipt_again(&mut self, id: [u8; 16]) -> Option<Receipt> {
        let number = self.undelivered.numbers.get(&id).copied()?;
        let mut waiting = self.undelivered.messages.remove(&number)?;
        let receipt = waiting.receipt();
        self.tell(&mut waiting);
        self.undelivered.messages.insert(number, waiting);
        Some(receipt)
    }

    fn tell(&mut self, waiting: &mut Waiting) {
        for (sender, heard) in waiting.told() {
            self.answer(sender, heard.map_err(Unheard::NotDelivered));
        }
    }

    /// A device of `user` has stored the message.
    pub(super) fn handle_delivered(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        user: &Arc<str>,
        device: Thumbprint,
    ) -> Result<(), Fatal> {
        self.hear(txn, id, device, Ok(()), Some(user))
    }

    /// Something was heard of a message: from one of its devices, which are `from`'s, or of it, from the relay.
    pub(super) fn hear(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        device: Thumbprint,
        heard: Heard,
        from: Option<&Arc<str>>,
    ) -> Result<(), Fatal> {
        let is_own = from.is_some() && from == self.account.user.as_ref();
        // A device speaks for itself: it is of the user that the message went to, or of this user's own.
        let may_say = |user: &Arc<str>, target: Target| {
            from.is_none_or(|from| if target.copy { is_own } else { from == user })
        };
        let kept = self.undelivered.numbers.get(&id).copied();
        let (user, target) = if let Some(number) = kept {
            let Some(mut waiting) = self.undelivered.messages.remove(&number) else {
                return Ok(());
            };
            let target = waiting.target(device);
            let target = target.filter(|target| may_say(&waiting.record.user, *target));
            let direct = waiting.record.direct;
            let user = Arc::clone(&waiting.record.user);
            if let Some(target) = target.filter(|_| !direct) {
                waiting.hear(target, heard);
                self.tell(&mut waiting);
                txn.put(Place::number(Table::Undelivered, number), &waiting.record)?;
            }
            let over = waiting.record.pending.is_empty() || direct && heard.is_err();
            self.undelivered.messages.insert(number, waiting);
            if over {
                self.undelivered.remove(txn, number);
            }
            (user, target.filter(|_| !direct))
        } else {
            // The recipient, or news of it, may be faster than the relay's answer.
            let sent = |(_, entry): &(&u64, &mut Entry)| {
                entry.id == id && entry.purpose == Purpose::Message
            };
            let Some((number, entry)) = self.outbox.entries.iter_mut().find(sent) else {
                // What is said of a message that was not sent, or said twice, means nothing.
                return Ok(());
            };
            let target = entry
                .target(device)
                .filter(|target| may_say(&entry.user, *target));
            let known = entry.heard.iter().any(|(known, _)| *known == device);
            let (number, user) = (*number, Arc::clone(&entry.user));
            let Some(target) = target.filter(|_| !known) else {
                return Ok(());
            };
            entry.heard.push((device, heard));
            self.outbox.changed(number);
            (user, Some(target))
        };
        let id = MessageId(id);
        let event = match (target, heard) {
            (Some(Target { copy: false, .. }), Ok(())) => Event::Delivered { id, user, device },
            (Some(_), Err(reason)) => Event::NotDelivered {
                id,
                user,
                device,
                reason,
            },
            (Some(_), Ok(())) | (None, _) => return Ok(()),
        };
        self.inbox.push(txn, event).map(drop)
    }

    /// A device has lost its session, and asks for these messages and all after them; with no id, for everything (`docs/protocol.md §8.3`).
    pub(super) fn handle_resend(
        &mut self,
        txn: &Txn,
        user: &Arc<str>,
        device: Thumbprint,
        ids: MessageIds<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        let mut first = if ids.is_empty() { 0 } else { u64::MAX };
        let mut gone = Vec::new();
        for id in ids.iter().copied() {
            let kept = self.undelivered.numbers.get(&id).copied().filter(|number| {
                let waiting = self.undelivered.messages.get(number);
                waiting.is_some_and(|waiting| waiting.may_resend(device))
            });
            let out = |entry: &Entry| entry.id == id && entry.target(device).is_some();
            match kept {
                Some(number) => first = first.min(number),
                // It is behind everything that the relay has accepted.
                None if self.outbox.entries.values().any(out) => {
                    first = first.min(self.undelivered.next);
                }
                None => gone.push(id),
            }
        }
        let own = self.account.user.as_ref() == Some(user);
        // A stranger who asks for what was never sent learns nothing, not even that somebody is there.
        let known = first != u64::MAX && first != 0 || own || self.has_written_to(txn, user)?;
        if !known {
            return Ok(());
        }
        if first != u64::MAX {
            self.seal_anew(device, now);
            self.undelivered.resend_from(device, first);
        }
        if !gone.is_empty() {
            let content = Content {
                id: self.random_id(),
                time: now.0,
                kind: Kind::Unavailable(MessageIds::from(gone.as_slice())),
            };
            let purpose = Purpose::Direct {
                device,
                fresh: false,
            };
            self.enqueue_own(Arc::clone(user), purpose, &content);
        }
        Ok(())
    }

    /// A device that gets something again has asked in another session: it gets in that one what is not on its way yet, and what is, in the same order.
    fn seal_anew(&mut self, device: Thumbprint, now: Moment) {
        let to_device = |(number, entry): (&u64, &Entry)| match entry.purpose {
            Purpose::Again(target) if target.device == device => Some((*number, target)),
            Purpose::Again(_) | Purpose::Message | Purpose::Direct { .. } => None,
        };
        let pending: Vec<_> = self.outbox.entries.iter().filter_map(to_device).collect();
        // So that nobody gets more by asking without pause.
        let renews = !self.undelivered.renewed.contains_key(&device);
        let mut behind = Vec::new();
        for (number, target) in pending {
            let Some(mut entry) = self.outbox.entries.remove(&number) else {
                continue;
            };
            let again = (entry.id, Arc::clone(&entry.user), entry.content.clone());
            if entry.is_out() {
                self.outbox.put(number, entry);
                if renews {
                    self.undelivered.renewed.insert(device, now);
                    behind.push((again, target));
                }
            } else if behind.is_empty() {
                entry.parts.clear();
                self.outbox.put(number, entry);
            } else {
                self.outbox.changed(number);
                behind.push((again, target));
            }
        }
        for ((id, user, content), target) in behind {
            self.enqueue_again(id, user, content, target);
        }
    }

    /// Puts what devices get again into the outbox, as much as there is room for.
    pub(super) fn resend(&mut self, now: Moment) {
        // A clock that was put back must not keep anybody waiting.
        for times in [&mut self.undelivered.resent, &mut self.undelivered.renewed] {
            times.retain(|_, last| *last <= now && now.0.saturating_sub(last.0) < RESEND_INTERVAL);
        }
        let ripe = |undelivered: &Undelivered, device: &Thumbprint| undelivered.ripe(device) <= now;
        let devices: Vec<_> = self.undelivered.resending.keys().copied().collect();
        for device in devices {
            if ripe(&self.undelivered, &device) {
                self.resend_to(device, now);
            }
        }
    }

    fn resend_to(&mut self, device: Thumbprint, now: Moment) {
        let Some(from) = self.undelivered.resending.get(&device).copied() else {
            return;
        };
        let mut room = AGAIN_LIMIT.saturating_sub(self.outbox.again_count());
        if room == 0 {
            return;
        }
        let mut again = Vec::new();
        let mut rest = None;
        for (number, waiting) in self.undelivered.messages.range(from..) {
            let Some(target) = waiting.target(device).filter(|_| waiting.is_full()) else {
                continue;
            };
            if room == 0 {
                rest = Some(*number);
                break;
            }
            let record = &waiting.record;
            let (user, content) = (Arc::clone(&record.user), record.content.clone());
            again.push((record.id, user, content, target));
            room -= 1;
        }
        self.undelivered.resending_changed = true;
        if let Some(rest) = rest {
            self.undelivered.resending.insert(device, rest);
        } else {
            self.undelivered.resending.remove(&device);
            self.undelivered.resent.insert(device, now);
            // What the relay may have and has not answered comes after, once it has.
            for entry in self.outbox.entries.values() {
                let heard = entry.heard.iter().any(|(heard, _)| *heard == device);
                if let Some(target) = entry.target(device)
                    && !heard
                    && !matches!(entry.purpose, Purpose::Again(_))
                {
                    let (user, content) = (Arc::clone(&entry.user), entry.content.clone());
                    again.push((entry.id, user, content, target));
                }
            }
        }
        for (id, user, content, target) in again {
            self.enqueue_again(id, user, content, target);
        }
    }

    fn enqueue_again(
        &mut self,
        id: [u8; 16],
        user: Arc<str>,
        content: Zeroizing<Vec<u8>>,
        target: Target,
    ) {
        let purpose = Purpose::Again(target);
        let waits = |entry: &Entry| {
            entry.id == id && entry.purpose == purpose && entry.stage == Stage::Waiting
        };
        if !self.outbox.entries.values().any(waits) {
            let entry = Entry::stored(id, user, purpose, content, Vec::new(), 0);
            self.outbox.insert(entry);
        }
    }
}

impl Entry {
    /// For what a device is it among those that this is sealed for.
    pub(super) fn target(&self, device: Thumbprint) -> Option<Target> {
        let part = self.parts.iter().find(|part| part.target.device == device);
        part.map(|part| part.target)
    }
}
