//! Messages on their way out: here until the relay has them.
//!
//! ```text
//!                 a session or the devices are not known               cards
//!  send ──▶ Waiting ────────────────────────────────────▶ NeedsCards ────────┐
//!             ▲ │ ▲                                                          │
//!             │ │ └──────────────────────────────────────────────────────────┘
//!             │ └── settle: sealed, with a sequence, one commit ──▶ Sealed ── poll_request ──▶ Sent
//!             │                                                       ▲                         │
//!             ├── devices_changed ────────────────────────────────────│─── refused ─────────────┤
//!             │                                                       └─── link lost ───────────┤
//!           Later (our own messages, refused for now) ◀──── refused ────────────────────────────┤
//!                                                                                               ▼
//!                                                              accepted: gone      refused: gone, and somebody is told
//! ```
//!
//! What is sealed for a device is never sealed again for it: what is sent again is the same ciphertext under the same sequence.
//! How sealing works is in [`sealing`](super::sealing).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sealwire_e2e::content::{Body, Content, Kind};
use sealwire_protocol::frame::Part;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits::SEND_WINDOW;
use sealwire_protocol::name::User;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::records::{self, SendState, Trust};
use super::txn::Txn;
use super::undelivered::Heard;
use super::{Engine, Fatal, Moment};
use crate::client::Receipt;
use crate::error::{CardFault, Error, Misuse, Refusal};
use crate::event::{Event, NotSent};
use crate::message::{Message, MessageId};
use crate::store::vault::{Place, Table};

/// Messages of the application that may wait in the outbox.
pub(crate) const OUTBOX_LIMIT: usize = 256;
/// Beyond these: receipts and repairs. More of them are not made.
const OWN_LIMIT: usize = 512;
/// How often a message is sealed anew because somebody's devices have changed.
const MAX_ROUNDS: u8 = 3;
/// How often one of our own messages is tried again after a refusal that may pass.
const MAX_TRIES: u8 = 5;
/// After how long, times the number of tries, in milliseconds.
const RETRY_DELAY: u64 = 15_000;

/// A message on its way out.
pub(crate) struct Entry {
    pub(super) id: [u8; 16],
    pub(super) user: Arc<str>,
    pub(super) purpose: Purpose,
    /// The encoded content; kept so that it can be sealed for other devices if the recipient's change.
    pub(super) content: Zeroizing<Vec<u8>>,
    /// What was sealed for each device.
    pub(super) parts: Vec<Sealed>,
    /// The sequence of the Send, 0 while there is none (`docs/protocol.md §5.2`).
    pub(super) sequence: u64,
    pub(super) stage: Stage,
    /// Users whose cards it waits for.
    wants: Vec<Arc<str>>,
    /// What was heard of its devices before the relay has answered.
    pub(super) heard: Vec<(Thumbprint, Heard)>,
    /// Its new session was asked for.
    pub(super) restarted: bool,
    rounds: u8,
    tries: u8,
    /// Who waits for the relay's answer; several may, if the application gave the same id more than once.
    answers: Vec<oneshot::Sender<Result<Receipt, Error>>>,
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The application's: for every device of a user, and copies for this user's other devices.
    Message,
    /// A message of the application, once more for one device that could not open it.
    Again(Target),
    /// One of our own, for one device.
    Direct {
        device: Thumbprint,
        /// It has to start a new session.
        fresh: bool,
    },
}

/// A device that a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) device: Thumbprint,
    /// It is one of this user's own, and gets a copy.
    pub(super) copy: bool,
}

/// A ciphertext for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) target: Target,
    pub(super) message: Vec<u8>,
}

/// Where a message is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    NeedsCards,
    Sealed,
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
        parts: Vec<Sealed>,
        sequence: u64,
    ) -> Self {
        let stage = if sequence == 0 {
            Stage::Waiting
        } else {
            Stage::Sealed
        };
        Self {
            id,
            user,
            purpose,
            content,
            parts,
            sequence,
            stage,
            wants: Vec::new(),
            heard: Vec::new(),
            restarted: false,
            rounds: 0,
            tries: 0,
            answers: Vec::new(),
        }
    }

    fn is_own(&self) -> bool {
        self.purpose != Purpose::Message
    }

    /// Whether what is behind it, to the same user, has to stay behind it.
    pub(super) fn is_in_order(&self) -> bool {
        matches!(self.purpose, Purpose::Message | Purpose::Again(_))
    }

    /// Whether it waits for the cards of `user`.
    pub(super) fn wants(&self, user: &Arc<str>) -> bool {
        self.stage == Stage::NeedsCards && self.wants.contains(user)
    }

    /// The cards of these users are needed; `false` if it has asked too often.
    pub(super) fn wait_for_cards(&mut self, users: Vec<Arc<str>>) -> bool {
        self.rounds = self.rounds.saturating_add(1);
        self.stage = Stage::NeedsCards;
        self.wants = users;
        self.rounds <= MAX_ROUNDS + 1
    }

    /// The cards of `user` are there.
    pub(super) fn got_cards(&mut self, user: &Arc<str>) {
        self.wants.retain(|wanted| wanted != user);
        if self.wants.is_empty() && self.stage == Stage::NeedsCards {
            self.stage = Stage::Waiting;
        }
    }

    /// Whether the relay may have it.
    pub(super) fn is_out(&self) -> bool {
        matches!(self.stage, Stage::Sealed | Stage::Sent)
    }
}

/// What a Send frame is made of.
pub(crate) struct OutgoingSend<'a> {
    pub(crate) id: [u8; 16],
    pub(crate) sequence: u64,
    pub(crate) user: &'a str,
    pub(crate) whole: bool,
    pub(crate) parts: Vec<Part<'a>>,
    pub(crate) copies: Vec<Part<'a>>,
}

/// All messages on their way out.
pub(super) struct Outbox {
    pub(super) entries: BTreeMap<u64, Entry>,
    /// Entries that differ from the store.
    changed: BTreeSet<u64>,
    /// The highest sequence that a Send ever had.
    pub(super) state: SendState,
    state_changed: bool,
    /// Receipts that are not sealed yet, so that more can be told with them.
    pub(super) open_receipts: HashMap<(Thumbprint, bool), u64>,
}

impl Outbox {
    pub(super) fn restore(entries: Vec<(u64, Entry)>, state: SendState) -> Self {
        Self {
            entries: entries.into_iter().collect(),
            changed: BTreeSet::new(),
            state,
            state_changed: false,
            open_receipts: HashMap::new(),
        }
    }

    pub(super) fn insert(&mut self, entry: Entry) -> u64 {
        let number = self
            .entries
            .last_key_value()
            .map_or(1, |(number, _)| number + 1);
        self.put(number, entry);
        number
    }

    /// Puts an entry where it was, changed.
    pub(super) fn put(&mut self, number: u64, entry: Entry) {
        self.entries.insert(number, entry);
        self.changed.insert(number);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Entry> {
        self.changed.insert(number);
        self.open_receipts.retain(|_, open| *open != number);
        self.entries.remove(&number)
    }

    /// A message is given up: nobody gets it again.
    fn remove_again(&mut self, id: [u8; 16]) {
        let again = |entry: &Entry| {
            entry.id == id && matches!(entry.purpose, Purpose::Again(_)) && !entry.is_out()
        };
        let entries = self.entries.iter().filter(|(_, entry)| again(entry));
        for number in entries.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.remove(number);
        }
    }

    /// An entry has changed.
    pub(super) fn changed(&mut self, number: u64) {
        self.changed.insert(number);
    }

    /// The sequence of the next Send.
    pub(super) fn next_sequence(&mut self) -> u64 {
        // No relay can bring it near its end (`MAX_SEQUENCE`).
        self.state.sequence = self.state.sequence.saturating_add(1);
        self.state_changed = true;
        self.state.sequence
    }

    /// No sequence up to this one is used again.
    pub(super) fn skip_to(&mut self, sequence: u64) {
        if self.state.sequence < sequence {
            self.state.sequence = sequence;
            self.state_changed = true;
        }
    }

    /// Sends that the relay may have and has not answered, and whether one more keeps them within the window (§5.2).
    pub(super) fn in_flight(&self) -> (usize, bool) {
        let out = self.entries.values().filter(|entry| entry.is_out());
        let (count, lowest) = out.fold((0, u64::MAX), |(count, lowest), entry| {
            (count + 1, lowest.min(entry.sequence))
        });
        let next = self.state.sequence.saturating_add(1);
        (count, next.saturating_sub(lowest) < SEND_WINDOW)
    }

    /// How many entries are receipts and repairs.
    pub(super) fn own_count(&self) -> usize {
        let direct = |entry: &&Entry| matches!(entry.purpose, Purpose::Direct { .. });
        self.entries.values().filter(direct).count()
    }

    /// How many entries are sealed again.
    pub(super) fn again_count(&self) -> usize {
        let again = |entry: &&Entry| matches!(entry.purpose, Purpose::Again(_));
        self.entries.values().filter(again).count()
    }

    /// When something that was put off may be tried again. What is sealed again for a device keeps its order, so the last of it counts, and
    /// where cards are needed first, they are waited for.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let mut by_device = BTreeMap::new();
        let mut earliest: Option<Moment> = None;
        for entry in self.entries.values() {
            let at = match entry.stage {
                Stage::Later(at) => at,
                Stage::NeedsCards => Moment(u64::MAX),
                Stage::Waiting | Stage::Sealed | Stage::Sent => continue,
            };
            if let Purpose::Again(target) = entry.purpose {
                let last = by_device.entry(target.device).or_insert(at);
                *last = at.max(*last);
            } else {
                earliest = Some(earliest.map_or(at, |earliest| earliest.min(at)));
            }
        }
        let due = by_device.into_values().chain(earliest);
        due.filter(|at| *at < Moment(u64::MAX)).min()
    }

    /// Adds what has changed to a commit.
    pub(super) fn write_changes(&mut self, txn: &mut Txn) -> Result<(), Fatal> {
        for number in std::mem::take(&mut self.changed) {
            let place = Place::number(Table::Outbox, number);
            match self.entries.get(&number) {
                Some(entry) => txn.put(place, entry)?,
                None => txn.remove(place),
            }
        }
        if std::mem::take(&mut self.state_changed) {
            txn.put(records::send_state(), &self.state)?;
        }
        Ok(())
    }

    pub(super) fn link_lost(&mut self) {
        for entry in self.entries.values_mut() {
            entry.stage = match entry.stage {
                Stage::Sent => Stage::Sealed,
                Stage::NeedsCards => {
                    entry.rounds = 0;
                    entry.wants.clear();
                    Stage::Waiting
                }
                stage @ (Stage::Waiting | Stage::Sealed | Stage::Later(_)) => stage,
            };
        }
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
        let mut txn = self.begin();
        if let Err(error) = self.accept(&mut txn, user, message, answer, now)? {
            let (answer, error) = *error;
            self.answer(answer, Err(error));
        }
        self.stage(txn);
        Ok(())
    }

    fn accept(
        &mut self,
        txn: &mut Txn,
        user: &str,
        message: &Message,
        answer: oneshot::Sender<Result<Receipt, Error>>,
        now: Moment,
    ) -> Result<Result<(), Box<Unaccepted>>, Fatal> {
        let Some(answer) = self.sent_before(message, user, answer) else {
            return Ok(Ok(()));
        };
        if let Err(error) = self.may_send(txn, user, message)? {
            return Ok(Err(Box::new((answer, error))));
        }
        let id = message.id().map_or_else(|| self.random_id(), |id| id.0);
        let body = Body {
            media_type: message.media_type(),
            bytes: message.body(),
        };
        let content = Content {
            id,
            time: now.0,
            kind: Kind::Message(body),
        };
        let Some(content) = encode(&content) else {
            return Ok(Err(Box::new((answer, Misuse::MediaType.into()))));
        };
        self.written_to(txn, user)?;
        let mut entry = Entry::stored(id, user.into(), Purpose::Message, content, Vec::new(), 0);
        entry.answers.push(answer);
        self.outbox.insert(entry);
        Ok(Ok(()))
    }

    /// Joins a message that is here already under the id that the application gave, or tells what became of it: gives `answer` back if there is none.
    fn sent_before(
        &mut self,
        message: &Message,
        user: &str,
        answer: oneshot::Sender<Result<Receipt, Error>>,
    ) -> Option<oneshot::Sender<Result<Receipt, Error>>> {
        let Some(id) = message.id() else {
            return Some(answer);
        };
        let same = |entry: &&mut Entry| {
            entry.id == id.0 && entry.purpose == Purpose::Message && *entry.user == *user
        };
        if let Some(entry) = self.outbox.entries.values_mut().find(same) {
            entry.answers.retain(|waiting| !waiting.is_closed());
            entry.answers.push(answer);
            return None;
        }
        // It was given before, and refused, and whoever gave it may not know: to send it now would put it behind what was given after it.
        if let Some((event, reason)) = self.inbox.failure(id) {
            self.answer_or(answer, Err(error_of(reason)), event);
            return None;
        }
        let same = self.undelivered.user_of(id.0) == Some(user);
        match same.then(|| self.receipt_again(id.0)).flatten() {
            Some(receipt) => {
                self.answer(answer, Ok(receipt));
                None
            }
            None => Some(answer),
        }
    }

    /// Whether the application uses an id for a message to somebody else already.
    fn is_in_use(&self, id: MessageId, user: &str) -> bool {
        let other = |entry: &Entry| {
            entry.id == id.0 && entry.purpose == Purpose::Message && *entry.user != *user
        };
        self.outbox.entries.values().any(other)
            || self
                .undelivered
                .user_of(id.0)
                .is_some_and(|known| known != user)
    }

    fn may_send(
        &self,
        txn: &Txn,
        user: &str,
        message: &Message,
    ) -> Result<Result<(), Error>, Fatal> {
        if let Err(misuse) = message.check() {
            return Ok(Err(misuse.into()));
        }
        if User::new(user).is_err() {
            return Ok(Err(Misuse::User.into()));
        }
        if message.id().is_some_and(|id| self.is_in_use(id, user)) {
            return Ok(Err(Misuse::MessageIdInUse.into()));
        }
        let entries = self.outbox.entries.values();
        let waiting = entries.filter(|entry| !entry.is_own()).count();
        if waiting >= OUTBOX_LIMIT || !self.inbox.has_room_for_failures() {
            return Ok(Err(Misuse::OutboxFull.into()));
        }
        Ok(match self.trust(txn, user)? {
            Some(Trust::Changed) => Err(Error::PeerChanged),
            Some(Trust::Verified) => Ok(()),
            Some(Trust::Pinned) | None if self.options.only_verified => Err(Error::PeerUnverified),
            Some(Trust::Pinned) | None => Ok(()),
        })
    }

    /// The frame of an entry that [`poll_request`](Engine::poll_request) gave.
    pub(crate) fn outgoing(&self, entry: u64) -> Option<OutgoingSend<'_>> {
        let entry = self.outbox.entries.get(&entry)?;
        let whole = entry.purpose == Purpose::Message;
        let user = match entry.purpose {
            // To this user's own device, whomever the message was for.
            Purpose::Again(Target { copy: true, .. }) => self.account.user.as_deref()?,
            Purpose::Message | Purpose::Again(_) | Purpose::Direct { .. } => &entry.user,
        };
        let parts = |copies: bool| {
            let wanted = entry
                .parts
                .iter()
                .filter(|part| (whole && part.target.copy) == copies);
            wanted
                .map(|part| Part {
                    device: part.target.device,
                    message: &part.message,
                })
                .collect()
        };
        Some(OutgoingSend {
            id: entry.id,
            sequence: entry.sequence,
            user,
            whole,
            parts: parts(false),
            copies: parts(true),
        })
    }

    /// The next entry to send, marked as sent: in the order of their sequences.
    pub(super) fn next_to_send(&mut self) -> Option<u64> {
        let sealed = self
            .outbox
            .entries
            .iter_mut()
            .filter(|(_, entry)| entry.stage == Stage::Sealed);
        let (number, entry) = sealed.min_by_key(|(_, entry)| entry.sequence)?;
        entry.stage = Stage::Sent;
        Some(*number)
    }

    /// Puts one of our own messages for one device into the outbox, unless there are too many of them.
    pub(super) fn enqueue_own(
        &mut self,
        user: Arc<str>,
        purpose: Purpose,
        content: &Content<'_>,
    ) -> Option<u64> {
        if self.outbox.own_count() >= OWN_LIMIT {
            tracing::warn!("too many messages wait in the outbox: a receipt or repair is not sent");
            return None;
        }
        let id = content.id;
        let content = encode(content)?;
        let entry = Entry::stored(id, user, purpose, content, Vec::new(), 0);
        Some(self.outbox.insert(entry))
    }

    /// The relay has the message safely.
    pub(super) fn handle_sent(&mut self, number: u64) -> Result<(), Fatal> {
        let Some(mut entry) = self.outbox.remove(number) else {
            return Ok(());
        };
        let mut txn = self.begin();
        let answers = std::mem::take(&mut entry.answers);
        let receipts = match entry.purpose {
            Purpose::Message => self.keep_undelivered(&mut txn, entry, answers.len())?,
            Purpose::Direct { .. } => {
                self.undelivered.insert_direct(&mut txn, entry)?;
                Vec::new()
            }
            // It is kept already.
            Purpose::Again(_) => Vec::new(),
        };
        self.stage(txn);
        for (answer, receipt) in answers.into_iter().zip(receipts) {
            self.answer(answer, Ok(receipt));
        }
        Ok(())
    }

    /// The relay has refused the message.
    pub(super) fn handle_not_sent(
        &mut self,
        number: u64,
        refusal: Refusal,
        now: Moment,
    ) -> Result<(), Fatal> {
        let Some(entry) = self.outbox.entries.get_mut(&number) else {
            return Ok(());
        };
        // §5.2: fetch the cards again. What is sealed for a device that stays is sent to it as it is.
        let own = self.account.user.clone();
        let again = match (refusal, entry.purpose) {
            (Refusal::OwnDevicesChanged, _)
            | (Refusal::DevicesChanged, Purpose::Again(Target { copy: true, .. })) => own,
            (Refusal::DevicesChanged, _) => Some(Arc::clone(&entry.user)),
            (_, _) => None,
        };
        if (again.is_some() || refusal == Refusal::Stale) && entry.rounds < MAX_ROUNDS {
            // §5.2: what was refused and is tried again has a sequence of its own.
            entry.sequence = 0;
            entry.wait_for_cards(again.iter().cloned().collect());
            self.outbox.changed.insert(number);
            match again {
                Some(user) => self.look_up(user, true),
                None => entry.stage = Stage::Waiting,
            }
            return Ok(());
        }
        let mut txn = self.begin();
        self.give_up(&mut txn, number, &GivenUp::Refused(refusal), now)?;
        self.stage(txn);
        Ok(())
    }

    /// Ends the way of an entry that cannot be sent, or puts it off if it is our own and the reason may pass.
    pub(super) fn give_up(
        &mut self,
        txn: &mut Txn,
        number: u64,
        why: &GivenUp,
        now: Moment,
    ) -> Result<(), Fatal> {
        let Some(mut entry) = self.outbox.remove(number) else {
            return Ok(());
        };
        if entry.is_own() {
            if why.may_pass() && entry.tries < MAX_TRIES {
                entry.tries += 1;
                entry.rounds = 0;
                entry.sequence = 0;
                let delay = RETRY_DELAY * u64::from(entry.tries);
                entry.stage = Stage::Later(Moment(now.0.saturating_add(delay)));
                self.outbox.put(number, entry);
            } else if let Purpose::Again(target) = entry.purpose
                && why.may_pass()
            {
                // Nobody asks for it a second time, and what is behind it must not overtake it.
                self.undelivered.resend_again(entry.id, target.device);
            }
            return Ok(());
        }
        self.outbox.remove_again(entry.id);
        let event = Event::NotSent {
            id: MessageId(entry.id),
            user: entry.user,
            reason: why.reason(),
        };
        let number = self.inbox.push(txn, event)?;
        for answer in entry.answers {
            match number {
                Some(number) => self.answer_or(answer, Err(why.error()), number),
                None => self.answer(answer, Err(why.error())),
            }
        }
        Ok(())
    }
}

/// Why a message was not taken, and who has to be told.
type Unaccepted = (oneshot::Sender<Result<Receipt, Error>>, Error);

/// Why an entry is given up.
#[derive(Debug, Clone, Copy)]
pub(super) enum GivenUp {
    Refused(Refusal),
    PeerChanged,
    Card(CardFault),
    NoOtherDevice,
    Restored,
}

impl GivenUp {
    pub(super) fn error(self) -> Error {
        match self {
            Self::Refused(refusal) => Error::Refused(refusal),
            Self::PeerChanged => Error::PeerChanged,
            Self::Card(fault) => Error::Card(fault),
            Self::NoOtherDevice => Error::Misuse(Misuse::NoOtherDevice),
            Self::Restored => Error::Refused(Refusal::Stale),
        }
    }

    fn reason(self) -> NotSent {
        match self {
            Self::Refused(refusal) => NotSent::Refused(refusal),
            Self::PeerChanged => NotSent::PeerChanged,
            Self::Card(_) => NotSent::Card,
            Self::NoOtherDevice => NotSent::Refused(Refusal::UnknownUser),
            Self::Restored => NotSent::Restored,
        }
    }

    fn may_pass(self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::PeerChanged | Self::Card(_) | Self::NoOtherDevice | Self::Restored => false,
        }
    }
}

/// What a caller is told of a message that was not sent.
fn error_of(reason: NotSent) -> Error {
    match reason {
        NotSent::Refused(refusal) => Error::Refused(refusal),
        NotSent::PeerChanged => Error::PeerChanged,
        NotSent::Card => Error::Card(CardFault::Invalid),
        NotSent::Restored => GivenUp::Restored.error(),
    }
}

pub(super) fn encode(content: &Content<'_>) -> Option<Zeroizing<Vec<u8>>> {
    content.encode().ok().map(Zeroizing::new)
}
