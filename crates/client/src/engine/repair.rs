//! What helps when a session is lost: at this end, at the other, or with the whole store (`docs/protocol.md §8.3`, §16).
//!
//! ```text
//!  a message does not open ──▶ lost ──▶ resend, in a new session ──▶ its sender seals it again ──▶ shown, and then what waited for it
//!                                 ▲          │ no answer for a minute, three times; or unavailable
//!                                 └──────────┴──▶ Undecryptable
//!  one that was sent after it opens ──▶ waits for it, with its content
//!
//!  Ready says that the store is an old copy ──▶ all sessions and prekeys are erased, everybody is asked for what is missing
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use sealwire_e2e::content::{Content, Kind, MessageIds};
use sealwire_e2e::peer::SessionId;
use sealwire_protocol::frame::Ready;
use sealwire_protocol::key::Thumbprint;
use zeroize::Zeroizing;

use super::outbox::{Entry, GivenUp, Purpose};
use super::records::{self, AskedSessions, LostRecord, SeenMessage};
use super::txn::Txn;
use super::{Engine, Fatal, Moment};
use crate::event::Event;
use crate::store::vault::{Place, Table};

/// Messages that are asked for again at a time, and those that wait for them; what is more is told as undecryptable, or shown, at once.
const LOST_LIMIT: usize = 256;
/// How many of them of all the users that this one has never written to: whoever may write must not keep others from being asked.
const LOST_LIMIT_OF_STRANGERS: usize = 64;
/// How many of them of one device.
const LOST_LIMIT_OF_A_DEVICE: usize = 64;
/// How often a message is asked for.
const MAX_ASKED: u8 = 3;
/// Between two such requests to one device, in milliseconds.
const ASK_INTERVAL: u64 = 60_000;

/// Sessions in which devices were asked that are remembered.
pub(super) const MAX_ASKED_SESSIONS: usize = 128;

/// Why a message is not shown yet.
pub(super) enum Why {
    /// It did not open. `early`: because of a clock.
    DidNotOpen {
        session: Option<SessionId>,
        early: bool,
    },
    /// It did, and others that were sent before it are still to come.
    Waits {
        session: SessionId,
        content: Zeroizing<Vec<u8>>,
    },
}

/// Messages that arrived and did not open, and may come again.
pub(super) struct Lost {
    messages: BTreeMap<u64, LostRecord>,
    numbers: HashMap<SeenMessage, u64>,
    next: u64,
    /// The sessions in which devices were asked: what they seal there, they have put in order.
    asked_sessions: VecDeque<(Thumbprint, SessionId)>,
    /// When a device was last asked.
    asked: BTreeMap<Thumbprint, Moment>,
    /// Since when everything that had waited at the relay is here: before, an answer may be among it.
    caught_up: Option<Moment>,
}

impl Lost {
    pub(super) fn restore(records: Vec<(u64, LostRecord)>, asked: AskedSessions) -> Self {
        let next = records.last().map_or(1, |(number, _)| number + 1);
        let numbers = records.iter().map(|(number, lost)| (lost.message, *number));
        Self {
            next,
            numbers: numbers.collect(),
            messages: records.into_iter().collect(),
            asked_sessions: asked.0,
            asked: BTreeMap::new(),
            caught_up: None,
        }
    }

    /// There is a new link.
    pub(super) fn link_begins(&mut self) {
        self.caught_up = None;
    }

    /// Remembers a message to be asked for, or one that waits for others; `false` if there are too many.
    pub(super) fn insert(
        &mut self,
        txn: &mut Txn,
        message: SeenMessage,
        user: &Arc<str>,
        is_stranger: bool,
        why: Why,
    ) -> Result<bool, Fatal> {
        let (session, early, content) = match why {
            Why::DidNotOpen { session, early } => (session, early, None),
            Why::Waits { session, content } => (Some(session), false, Some(content)),
        };
        if let Some(number) = self.numbers.get(&message)
            && let Some(lost) = self.messages.get_mut(number)
        {
            if content.is_some() {
                (lost.session, lost.content) = (session, content);
                txn.put(Place::number(Table::Lost, *number), lost)?;
            }
            return Ok(true);
        }
        let of_device = |lost: &&LostRecord| lost.message.device == message.device;
        let of_strangers = |lost: &&LostRecord| lost.is_stranger;
        let count = |of: &dyn Fn(&&LostRecord) -> bool| self.messages.values().filter(of).count();
        if self.messages.len() >= LOST_LIMIT
            || count(&of_device) >= LOST_LIMIT_OF_A_DEVICE
            || is_stranger && count(&of_strangers) >= LOST_LIMIT_OF_STRANGERS
        {
            return Ok(false);
        }
        let lost = LostRecord {
            message,
            user: Arc::clone(user),
            is_stranger,
            asked: 0,
            session,
            early,
            follows: self.has_asked(message.device),
            content,
        };
        txn.put(Place::number(Table::Lost, self.next), &lost)?;
        self.numbers.insert(message, self.next);
        self.messages.insert(self.next, lost);
        self.next += 1;
        Ok(true)
    }

    /// Whether a message that the same device has sent before is still to come. What did not open in a session in which others do is none that
    /// the device has sent, or is lost for ever. In a session in which it was asked, the device sends everything in order.
    pub(super) fn is_behind(&self, message: &SeenMessage, session: SessionId) -> bool {
        if self.asked_sessions.contains(&(message.device, session)) {
            return false;
        }
        let own = self.numbers.get(message).copied().unwrap_or(u64::MAX);
        self.is_held(message.device, session, own)
    }

    /// Whether something of a device, with a lower number than this, keeps back what came in a session.
    fn is_held(&self, device: Thumbprint, session: SessionId, below: u64) -> bool {
        let holds = |lost: &LostRecord| {
            lost.message.device == device
                && (lost.content.is_some() || lost.early || lost.session != Some(session))
        };
        self.messages.range(..below).any(|(_, lost)| holds(lost))
    }

    /// A device is asked in a session.
    pub(super) fn asks_in(
        &mut self,
        txn: &mut Txn,
        device: Thumbprint,
        session: SessionId,
    ) -> Result<(), Fatal> {
        if self.asked_sessions.len() >= MAX_ASKED_SESSIONS {
            self.asked_sessions.pop_front();
        }
        self.asked_sessions.push_back((device, session));
        let record = AskedSessions(self.asked_sessions.clone());
        txn.put(records::asked_sessions(), &record)?;
        Ok(())
    }

    /// Whether a message has opened, and waits for others.
    fn waits(&self, message: &SeenMessage) -> bool {
        let number = self.numbers.get(message);
        let lost = number.and_then(|number| self.messages.get(number));
        lost.is_some_and(|lost| lost.content.is_some())
    }

    /// The next message of a device that has waited for others and does so no more.
    fn take_ready(&mut self, txn: &mut Txn, device: Thumbprint) -> Option<LostRecord> {
        let waits = |lost: &LostRecord| lost.message.device == device && lost.content.is_some();
        let (number, first) = self.messages.iter().find(|(_, lost)| waits(lost))?;
        let (message, session) = (first.message, first.session.unwrap_or_default());
        if self.is_held(device, session, *number) {
            return None;
        }
        self.remove(txn, &message)
    }

    /// Whether a device was asked for something that is still to come, or for what was lost at the same time as that.
    fn has_asked(&self, device: Thumbprint) -> bool {
        let of_device = |lost: &&LostRecord| lost.message.device == device;
        let mut lost = self.messages.values().filter(of_device);
        self.asked.contains_key(&device) || lost.any(|lost| lost.asked > 0 || lost.follows)
    }

    pub(super) fn remove(&mut self, txn: &mut Txn, message: &SeenMessage) -> Option<LostRecord> {
        let number = self.numbers.remove(message)?;
        txn.remove(Place::number(Table::Lost, number));
        self.messages.remove(&number)
    }

    /// How many are asked for.
    #[cfg(feature = "simulation")]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// How many are asked for of the device of which there are most.
    #[cfg(feature = "simulation")]
    pub(super) fn most_of_a_device(&self) -> usize {
        let mut of_devices = BTreeMap::new();
        for lost in self.messages.values() {
            *of_devices.entry(lost.message.device).or_insert(0) += 1;
        }
        of_devices.into_values().max().unwrap_or_default()
    }

    /// When something is to be asked for, or given up.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let due = |lost: &LostRecord| {
            let asked = self.asked.get(&lost.message.device).copied();
            let from = if lost.asked >= MAX_ASKED {
                asked.max(Some(self.caught_up?))
            } else {
                asked
            };
            let after = |from: Moment| Moment(from.0.saturating_add(ASK_INTERVAL));
            Some(from.map_or(Moment(0), after))
        };
        let asked_for = self.messages.values().filter(|lost| lost.content.is_none());
        asked_for.filter_map(due).min()
    }
}

impl Engine {
    /// Asks for the messages that did not open, and gives up those that were asked for often enough.
    pub(super) fn ask_for_lost(&mut self, txn: &mut Txn, now: Moment) -> Result<(), Fatal> {
        if self.lost.messages.is_empty() || !self.is_ready() {
            return Ok(());
        }
        // A clock that was put back must not keep anybody waiting.
        for last in self.lost.asked.values_mut() {
            *last = now.min(*last);
        }
        if self
            .link
            .as_ref()
            .is_some_and(|link| link.recovering.is_none())
        {
            self.lost.caught_up.get_or_insert(now);
        }
        let in_vain = |last: Moment| now.0 >= last.0.saturating_add(ASK_INTERVAL);
        let mut due: BTreeMap<Thumbprint, (Arc<str>, Vec<u64>)> = BTreeMap::new();
        let mut given_up = Vec::new();
        let asked_for = |(_, lost): &(&u64, &LostRecord)| lost.content.is_none();
        for (number, lost) in self.lost.messages.iter().filter(asked_for) {
            let device = lost.message.device;
            let last = self.lost.asked.get(&device).copied();
            if last.is_some_and(|last| !in_vain(last)) {
                continue;
            }
            if lost.asked >= MAX_ASKED {
                if self.lost.caught_up.is_some_and(in_vain) {
                    given_up.push(lost.message);
                }
                continue;
            }
            let (_, numbers) = due
                .entry(device)
                .or_insert_with(|| (Arc::clone(&lost.user), Vec::new()));
            numbers.push(*number);
        }
        for message in given_up {
            self.never_comes(txn, message)?;
            self.release(txn, message.device, now)?;
        }
        for (device, (user, numbers)) in due {
            // Whoever is asked once more is not repaired once more.
            let is_first = !self.lost.has_asked(device);
            self.lost.asked.insert(device, now);
            let of = |number: &u64| self.lost.messages.get(number).map(|lost| lost.message.id);
            let ids: Vec<_> = numbers.iter().filter_map(of).collect();
            if is_first && self.has_device(txn, &user, device)? {
                self.repairs.insert(device);
            }
            if !self.ask(device, user, &ids, now) {
                continue;
            }
            for number in numbers {
                if let Some(lost) = self.lost.messages.get_mut(&number) {
                    lost.asked += 1;
                    txn.put(Place::number(Table::Lost, number), lost)?;
                }
            }
        }
        let lost = &self.lost.messages;
        let wanted = |device: &Thumbprint| lost.values().any(|lost| lost.message.device == *device);
        self.lost.asked.retain(|device, _| wanted(device));
        Ok(())
    }

    /// Hands on what has waited for messages of a device that have come by now, or never will.
    pub(super) fn release(
        &mut self,
        txn: &mut Txn,
        device: Thumbprint,
        now: Moment,
    ) -> Result<(), Fatal> {
        while let Some(ready) = self.lost.take_ready(txn, device) {
            let content = ready.content.unwrap_or_default();
            match Content::decode(&content) {
                Ok(content) => self.show(txn, ready.message, ready.user, &content, now)?,
                // It was decoded before.
                Err(_) => self.undecryptable(txn, ready.message, ready.user)?,
            }
        }
        Ok(())
    }

    /// Starts a new session with a device, and asks in it for messages; `false` if there is no room to do so.
    pub(super) fn ask(
        &mut self,
        device: Thumbprint,
        user: Arc<str>,
        ids: &[[u8; 16]],
        now: Moment,
    ) -> bool {
        let content = Content {
            id: self.random_id(),
            time: now.0,
            kind: Kind::Resend(MessageIds::from(ids)),
        };
        let purpose = Purpose::Direct {
            device,
            fresh: true,
        };
        self.enqueue_own(user, purpose, &content).is_some()
    }

    /// A message that did not open does not come again.
    pub(super) fn never_comes(&mut self, txn: &mut Txn, message: SeenMessage) -> Result<(), Fatal> {
        if self.lost.waits(&message) {
            // It is here, and shown when those before it are.
            return Ok(());
        }
        match self.lost.remove(txn, &message) {
            Some(lost) => self.undecryptable(txn, message, lost.user),
            None => Ok(()),
        }
    }

    /// Whether the store is an earlier copy of one that was used since, or the whole process is, on a machine that was put back: the
    /// relay has accepted a Send, or an acknowledgement, that is not known here, and both are stored before they are sent.
    pub(super) fn is_earlier_copy(&self, ready: &Ready<'_>) -> bool {
        let position = if self.mailbox.epoch == ready.epoch {
            self.mailbox.position
        } else {
            0
        };
        position < ready.acknowledged || self.outbox.state.sequence < ready.sent
    }

    /// Makes an earlier copy of the store into a new one: no session or prekey of it is used again, and whoever had a session is asked for
    /// what they have sent since.
    pub(super) fn replace_restored(
        &mut self,
        txn: &mut Txn,
        ready: &Ready<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        tracing::warn!(
            "the device store is an earlier copy: its sessions and prekeys are replaced"
        );
        let peers = self.known_peers()?;
        txn.forget_all_sessions();
        self.prekeys.forget_secrets();
        self.prekeys_changed = true;
        self.published.replace = true;
        txn.put(records::published(), &self.published)?;
        self.outbox.skip_to(ready.sent);
        self.account.restored = true;
        txn.put(records::account(), &self.account)?;
        // Before what became of each message: the application should know why.
        self.inbox.push(txn, Event::StoreRestored)?;
        // What is new since the store was opened, and was not sealed, is as good as ever.
        let first_new = self.first_new_entry;
        let old = |(number, entry): &(&u64, &Entry)| **number < first_new || entry.sequence != 0;
        let old = self.outbox.entries.iter().filter(old);
        let old: Vec<_> = old.map(|(number, _)| *number).collect();
        for number in old {
            self.give_up(txn, number, &GivenUp::Restored, now)?;
        }
        for (device, user) in peers {
            self.ask(device, user, &[], now);
        }
        Ok(())
    }

    /// Everybody with whom the store has sessions.
    fn known_peers(&self) -> Result<Vec<(Thumbprint, Arc<str>)>, Fatal> {
        use crate::store::StoreError;
        use sealwire_e2e::peer::Peer;
        let mut peers = Vec::new();
        for record in self.vault.rows(Table::Sessions)? {
            let peer = Peer::decode(&record).map_err(|_| StoreError::Damaged)?;
            if let Some(identity) = peer.identity() {
                peers.push((peer.device(), identity.user.as_str().into()));
            }
        }
        Ok(peers)
    }
}
