//! What the relay has and a device has not confirmed: kept so that receipts find their message, and so that a device that lost its
//! session gets the message again (`docs/protocol.md §8.3`).
//!
//! ```text
//!  accepted ──▶ waiting for devices ──┬── delivered (sealed) ──▶ one device less; none left: forgotten
//!                                     ├── undelivered (relay) ─▶ one device less, and the application is told
//!                                     └── resend (sealed) ─────▶ from there on everything for that device, sealed again
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use sealwire_e2e::content::{Content, Kind, MessageIds};
use sealwire_protocol::key::Thumbprint;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::outbox::{Entry, OWN_LIMIT, Purpose, Stage, Target};
use super::records::UndeliveredRecord;
use super::txn::Txn;
use super::{Engine, Fatal, Moment};
use crate::client::Receipt;
use crate::event::{Event, NotDelivered};
use crate::message::MessageId;
use crate::store::vault::{Place, Table};

/// Messages that are kept until every device has confirmed them; the oldest are forgotten first.
const UNDELIVERED_LIMIT: usize = 2_048;
/// Bytes of their contents, likewise.
const UNDELIVERED_BYTES: usize = 8 << 20;
/// Messages of our own that are kept in case their device asks for them; nobody confirms these.
const DIRECT_LIMIT: usize = 256;

/// Messages that the relay has, and that not every device has confirmed.
pub(super) struct Undelivered {
    next: u64,
    messages: BTreeMap<u64, Waiting>,
    numbers: HashMap<[u8; 16], u64>,
    bytes: usize,
    /// Which of the messages are our own, the oldest first.
    direct: VecDeque<u64>,
    /// For each device that lost its session, from which message on it gets everything again.
    resending: BTreeMap<Thumbprint, u64>,
}

struct Waiting {
    record: UndeliveredRecord,
    /// A device of the recipient will not get it.
    failed: Option<NotDelivered>,
    receipt: ReceiptSenders,
}

#[derive(Default)]
struct ReceiptSenders {
    one: Option<oneshot::Sender<Result<(), NotDelivered>>>,
    all: Option<oneshot::Sender<Result<(), NotDelivered>>>,
}

impl ReceiptSenders {
    fn receipt(&mut self, id: [u8; 16]) -> Receipt {
        let ((one, to_one), (all, to_all)) = (oneshot::channel(), oneshot::channel());
        (self.one, self.all) = (Some(one), Some(all));
        Receipt {
            id: MessageId(id),
            to_one,
            to_all,
        }
    }
}

impl Undelivered {
    pub(super) fn restore(records: Vec<(u64, UndeliveredRecord)>) -> Self {
        let next = records.last().map_or(1, |(number, _)| number + 1);
        let numbers = records.iter().map(|(number, record)| (record.id, *number));
        let numbers = numbers.collect();
        let bytes = records.iter().map(|(_, record)| record.content.len()).sum();
        let direct = records.iter().filter(|(_, record)| record.direct);
        let direct = direct.map(|(number, _)| *number).collect();
        let waiting = |record| Waiting {
            record,
            failed: None,
            receipt: ReceiptSenders::default(),
        };
        let messages = records
            .into_iter()
            .map(|(number, record)| (number, waiting(record)))
            .collect();
        Self {
            next,
            messages,
            numbers,
            bytes,
            direct,
            resending: BTreeMap::new(),
        }
    }

    /// Keeps a message of the application that the relay has accepted.
    pub(super) fn insert(&mut self, txn: &mut Txn, entry: Entry) -> Result<Receipt, Fatal> {
        let targets = entry.parts.iter().map(|part| part.target);
        let (confirmed, pending): (Vec<_>, Vec<_>) =
            targets.partition(|target| entry.confirmed.contains(&target.device));
        let mut waiting = Waiting {
            record: UndeliveredRecord {
                id: entry.id,
                user: entry.user,
                pending,
                direct: false,
                content: entry.content,
            },
            failed: None,
            receipt: ReceiptSenders::default(),
        };
        let receipt = waiting.receipt.receipt(entry.id);
        if confirmed.iter().any(|target| !target.copy) {
            waiting.tell_one();
        }
        waiting.tell_all();
        if !waiting.record.pending.is_empty() {
            self.keep(txn, waiting)?;
        }
        Ok(receipt)
    }

    /// Keeps one of our own messages that the relay has accepted: a receipt or a request must not be lost with a session either.
    pub(super) fn insert_direct(&mut self, txn: &mut Txn, entry: Entry) -> Result<(), Fatal> {
        while self.direct.len() >= DIRECT_LIMIT {
            let Some(oldest) = self.direct.pop_front() else {
                break;
            };
            self.remove(txn, oldest);
        }
        self.direct.push_back(self.next);
        let pending = entry.parts.iter().map(|part| part.target).collect();
        let waiting = Waiting {
            record: UndeliveredRecord {
                id: entry.id,
                user: entry.user,
                pending,
                direct: true,
                content: entry.content,
            },
            failed: None,
            receipt: ReceiptSenders::default(),
        };
        self.keep(txn, waiting)
    }

    fn keep(&mut self, txn: &mut Txn, waiting: Waiting) -> Result<(), Fatal> {
        while self.messages.len() >= UNDELIVERED_LIMIT || self.bytes >= UNDELIVERED_BYTES {
            let Some(oldest) = self.messages.first_key_value().map(|(number, _)| *number) else {
                break;
            };
            self.remove(txn, oldest);
        }
        let number = self.next;
        self.next += 1;
        txn.put(Place::number(Table::Undelivered, number), &waiting.record)?;
        self.bytes += waiting.record.content.len();
        self.numbers.insert(waiting.record.id, number);
        self.messages.insert(number, waiting);
        Ok(())
    }

    /// A new receipt for a message that is kept.
    pub(super) fn receipt(&mut self, id: [u8; 16], user: &str) -> Option<Receipt> {
        let waiting = self.messages.get_mut(self.numbers.get(&id)?)?;
        let same = *waiting.record.user == *user && !waiting.record.direct;
        same.then(|| waiting.receipt.receipt(id))
    }

    /// Users to whom nothing new goes, because one of their devices, or of this user's own, gets something again first.
    pub(super) fn resending(&self) -> impl Iterator<Item = Arc<str>> {
        self.resending.iter().flat_map(|(device, from)| {
            let of_device = move |waiting: &&Waiting| waiting.is_pending(*device);
            let rest = self.messages.range(*from..).map(|(_, waiting)| waiting);
            rest.filter(of_device)
                .map(|waiting| Arc::clone(&waiting.record.user))
        })
    }

    fn remove(&mut self, txn: &mut Txn, number: u64) {
        if let Some(waiting) = self.messages.remove(&number) {
            self.bytes = self.bytes.saturating_sub(waiting.record.content.len());
            self.numbers.remove(&waiting.record.id);
            txn.remove(Place::number(Table::Undelivered, number));
        }
    }
}

impl Waiting {
    fn is_pending(&self, device: Thumbprint) -> bool {
        let is = |target: &Target| target.device == device;
        self.record.pending.iter().any(is)
    }

    fn tell_one(&mut self) {
        if let Some(one) = self.receipt.one.take() {
            // An error means that nobody waits.
            let _ = one.send(Ok(()));
        }
    }

    /// Tells whoever waits for every device of the recipient, if all have been heard of.
    fn tell_all(&mut self) {
        if self.record.pending.iter().any(|target| !target.copy) {
            return;
        }
        let outcome = self.failed.map_or(Ok(()), Err);
        let waiting = [self.receipt.one.take(), self.receipt.all.take()];
        for waiting in waiting.into_iter().flatten() {
            let _ = waiting.send(outcome);
        }
    }

    /// Takes a device out of those that are waited for. `None`: it is not waited for.
    fn take(&mut self, device: Thumbprint) -> Option<Target> {
        let is = |target: &Target| target.device == device;
        let at = self.record.pending.iter().position(is)?;
        Some(self.record.pending.swap_remove(at))
    }
}

impl Engine {
    /// A device of `user` has stored the message.
    pub(super) fn handle_delivered(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        user: &Arc<str>,
        device: Thumbprint,
    ) -> Result<(), Fatal> {
        let own = self.account.user.as_ref() == Some(user);
        if let Some(number) = self.undelivered.numbers.get(&id).copied()
            && let Some(waiting) = self.undelivered.messages.get_mut(&number)
            && (waiting.record.user == *user || own)
            && !waiting.record.direct
        {
            let Some(target) = waiting.take(device) else {
                return Ok(());
            };
            if !target.copy {
                waiting.tell_one();
            }
            waiting.tell_all();
            if waiting.record.pending.is_empty() {
                self.undelivered.remove(txn, number);
            } else {
                txn.put(Place::number(Table::Undelivered, number), &waiting.record)?;
            }
            return if target.copy {
                Ok(())
            } else {
                self.tell_delivered(txn, id, user, device)
            };
        }
        // The recipient may be faster than the relay.
        let sent = |entry: &&mut Entry| entry.id == id && entry.purpose == Purpose::Message;
        let Some(entry) = self.outbox.entries.values_mut().find(sent) else {
            // A receipt for a message that was not sent, or a second one, means nothing.
            return Ok(());
        };
        let part = entry.parts.iter().find(|part| part.target.device == device);
        let Some(target) = part.map(|part| part.target) else {
            return Ok(());
        };
        if !(entry.user == *user || target.copy && own) || entry.confirmed.contains(&device) {
            return Ok(());
        }
        entry.confirmed.push(device);
        if target.copy {
            Ok(())
        } else {
            self.tell_delivered(txn, id, user, device)
        }
    }

    fn tell_delivered(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        user: &Arc<str>,
        device: Thumbprint,
    ) -> Result<(), Fatal> {
        let event = Event::Delivered {
            id: MessageId(id),
            user: Arc::clone(user),
            device,
        };
        self.inbox.push(txn, event)
    }

    /// The relay says that a device will not get the message.
    pub(super) fn handle_undeliverable(
        &mut self,
        txn: &mut Txn,
        id: [u8; 16],
        user: &str,
        device: Thumbprint,
        reason: NotDelivered,
    ) -> Result<(), Fatal> {
        // Of a message that is not known here, a receipt for example, there is nobody to tell.
        let Some(number) = self.undelivered.numbers.get(&id).copied() else {
            return Ok(());
        };
        let Some(waiting) = self.undelivered.messages.get_mut(&number) else {
            return Ok(());
        };
        let Some(target) = waiting.take(device) else {
            return Ok(());
        };
        if waiting.record.direct {
            self.undelivered.remove(txn, number);
            return Ok(());
        }
        if !target.copy {
            waiting.failed = Some(reason);
        }
        waiting.tell_all();
        if waiting.record.pending.is_empty() {
            self.undelivered.remove(txn, number);
        } else {
            txn.put(Place::number(Table::Undelivered, number), &waiting.record)?;
        }
        let event = Event::NotDelivered {
            id: MessageId(id),
            user: user.into(),
            device,
            reason,
        };
        self.inbox.push(txn, event)
    }

    /// A device has lost its session, and asks for these messages and all after them; with no id, for everything (`docs/protocol.md §8.3`).
    pub(super) fn handle_resend(
        &mut self,
        user: &Arc<str>,
        device: Thumbprint,
        ids: MessageIds<'_>,
        now: Moment,
    ) {
        let mut first = u64::MAX;
        let mut gone = Vec::new();
        for id in ids.iter().copied() {
            let kept = self.undelivered.numbers.get(&id).copied().filter(|number| {
                let waiting = self.undelivered.messages.get(number);
                waiting.is_some_and(|waiting| waiting.is_pending(device))
            });
            let out = |entry: &Entry| entry.id == id && entry.parts_for(device).is_some();
            match kept {
                Some(number) => first = first.min(number),
                // It is behind everything that the relay has accepted.
                None if self.outbox.entries.values().any(out) => {
                    first = first.min(self.undelivered.next);
                }
                None => gone.push(id),
            }
        }
        if ids.is_empty() {
            first = 0;
        }
        if first != u64::MAX {
            let from = self.undelivered.resending.entry(device).or_insert(first);
            *from = first.min(*from);
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
    }

    /// Puts what devices get again into the outbox, as much as there is room for.
    pub(super) fn resend(&mut self) {
        for (device, from) in std::mem::take(&mut self.undelivered.resending) {
            let mut room = OWN_LIMIT.saturating_sub(self.outbox.own_count());
            let mut next = from;
            let mut again = Vec::new();
            for (number, waiting) in self.undelivered.messages.range(from..) {
                if room == 0 {
                    break;
                }
                next = number + 1;
                let is = |target: &&Target| target.device == device;
                if let Some(target) = waiting.record.pending.iter().find(is) {
                    let record = &waiting.record;
                    again.push((
                        record.id,
                        Arc::clone(&record.user),
                        record.content.clone(),
                        *target,
                    ));
                    room -= 1;
                }
            }
            if room == 0 {
                self.undelivered.resending.insert(device, next);
            } else {
                // What the relay may have and has not answered was sealed before, so it comes after.
                let out = self.outbox.entries.values().filter(|entry| {
                    let again = matches!(entry.purpose, Purpose::Again(_));
                    !again && !entry.confirmed.contains(&device)
                });
                let mut out: Vec<_> = out
                    .filter_map(|entry| Some((entry.sequence, entry, entry.parts_for(device)?)))
                    .collect();
                out.sort_by_key(|(sequence, ..)| *sequence);
                for (_, entry, target) in out {
                    again.push((
                        entry.id,
                        Arc::clone(&entry.user),
                        entry.content.clone(),
                        target,
                    ));
                }
            }
            for (id, user, content, target) in again {
                self.enqueue_again(id, user, content, target);
            }
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
    fn parts_for(&self, device: Thumbprint) -> Option<Target> {
        let part = self.parts.iter().find(|part| part.target.device == device);
        part.map(|part| part.target)
    }
}
