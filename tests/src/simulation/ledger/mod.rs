//! What applications did and were shown, and whether that is what was promised.
//!
//! ```text
//!  send ──▶ open ──┬── accepted ──▶ every device it was for: shown once, in order, as it was sent; or its sender is told
//!                  └── told why not
//! ```
//! The ledger knows nothing of how messages travel. It is told what an application sees, and compares. What its device's store knows of that is a
//! [`Memory`]: a store that is put back has an earlier one. From when it was put back until the relay has told it, messages may be lost or late; what
//! is sent after that has to hold as everything else. What else applications are told than messages is in `alarms`.

mod alarms;
mod promise;
mod showing;
mod stores;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::schedule::Millis;
use alarms::Told;
pub(super) use alarms::{Alarm, Reason};
pub use promise::{Invariant, Violation};

/// A message's number: its place in the order in which applications sent.
pub(super) type Number = usize;

/// What the relay of a run does not hold for ever.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Terms {
    /// For how long it holds a message that nobody fetches, where the run lasts longer.
    pub retention: Option<Millis>,
    /// Its mailboxes hold little.
    pub small: bool,
    /// By how much its clock is set in the run, at most.
    pub relay_clock: Millis,
}

/// What a device sends to the relay.
#[derive(Debug, Clone)]
pub(super) struct Push {
    /// The sequence of the Send.
    pub sequence: u64,
    /// The id of what is in it.
    pub id: [u8; 16],
    /// It is a message of the application. Otherwise it is one for a single device: such a message once more, or a receipt or a repair.
    pub whole: bool,
    /// The devices that it is sealed for.
    pub devices: Vec<usize>,
}

/// A message as an application sent it.
#[derive(Debug)]
pub(super) struct Sent {
    /// The device that sent it.
    pub from: usize,
    /// The user it is for.
    pub to: usize,
    /// Its id.
    pub id: [u8; 16],
    /// What is in it.
    pub body: Vec<u8>,
    fate: Fate,
    /// How often the application has given it.
    given: u32,
    /// When it first went to the relay.
    pushed: Option<Millis>,
    /// The devices that it was sealed for, as it last went to the relay.
    sealed_for: BTreeSet<usize>,
    /// The application had forgotten that it was sent, and sent it again.
    sealed_again_for: BTreeSet<usize>,
    /// The devices on which it was ever shown.
    shown: BTreeSet<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Open,
    Accepted,
    Failed(String),
}

/// What a device's store knows of what its application was shown and told.
#[derive(Debug, Clone, Default)]
pub(super) struct Memory {
    shown: BTreeMap<Number, Shown>,
    /// By conversation, the last number that was shown for the first time.
    first: BTreeMap<Conversation, Number>,
    told: Told,
}

#[derive(Debug, Clone, Default)]
struct Shown {
    /// In which life of the device last.
    life: u32,
    /// The acknowledgement is durable.
    done: bool,
}

/// The sending device, and the user it sends to: copies of what goes to others come in the order of each conversation.
type Conversation = (usize, usize);

/// A device as its application.
#[derive(Debug, Default)]
struct Reader {
    user: usize,
    life: u32,
    memory: Memory,
    /// By conversation, the last number that was shown in this life.
    in_life: BTreeMap<Conversation, Number>,
    /// Messages that have come, whether or not they were shown.
    arrived: BTreeSet<Number>,
    /// Those of them of which it was told that they cannot be opened.
    unreadable: BTreeSet<Number>,
    copy: Copy,
    /// How often it was put back, and how often of these no relay could tell.
    put_back: u32,
    unfound: u32,
    place: Place,
    /// Its user has taken it away for a while.
    is_away: bool,
    /// Whoever has asked for its removal was told that it is done.
    is_removed: bool,
    /// How often its clock was set.
    clock_sets: u32,
}

/// Whether the store is an earlier copy.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Copy {
    /// It never was.
    #[default]
    Never,
    /// It was put back, and no relay has told it yet.
    Unaware,
    /// A relay has told it when so many messages, and so many receipts and repairs, had been sent.
    Aware(Number, usize),
}

/// Whether a device is one of its user's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Place {
    #[default]
    There,
    /// Its user has asked for its removal.
    Leaving,
    /// It was told that it is removed.
    Gone,
}

/// Everything sent and shown in a run.
#[derive(Debug)]
pub(super) struct Ledger {
    terms: Terms,
    messages: Vec<Sent>,
    by_id: BTreeMap<[u8; 16], Number>,
    /// The numbers of receipts and repairs, in the order in which they were sent.
    direct: BTreeMap<[u8; 16], usize>,
    /// Each Send, by device and sequence, until it is answered; and those that the relay may have refused.
    sends: BTreeMap<(usize, u64), Option<Push>>,
    maybe_refused: BTreeSet<(usize, u64)>,
    /// The notices that devices have had, by their positions.
    notices: BTreeSet<(usize, u64)>,
    /// How many ciphertexts of one device for another the relay may have refused or given up.
    refused: BTreeMap<(usize, usize), u32>,
    readers: Vec<Reader>,
    shown: u64,
    checks: BTreeMap<Invariant, u64>,
    violations: Vec<Violation>,
}

/// Violations that are kept; one is enough to fail.
const MAX_VIOLATIONS: usize = 20;

impl Ledger {
    /// Nothing was sent yet. `users` says of each device whose it is.
    #[must_use]
    pub(super) fn new(users: &[usize], terms: Terms) -> Self {
        let reader = |user: &usize| Reader {
            user: *user,
            ..Reader::default()
        };
        Self {
            terms,
            messages: Vec::new(),
            by_id: BTreeMap::new(),
            direct: BTreeMap::new(),
            sends: BTreeMap::new(),
            maybe_refused: BTreeSet::new(),
            notices: BTreeSet::new(),
            refused: BTreeMap::new(),
            readers: users.iter().map(reader).collect(),
            shown: 0,
            checks: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    /// An application sends.
    pub(super) fn sent(&mut self, from: usize, to: usize, id: [u8; 16], body: Vec<u8>) -> Number {
        let number = self.messages.len();
        self.by_id.insert(id, number);
        self.messages.push(Sent {
            from,
            to,
            id,
            body,
            fate: Fate::Open,
            given: 0,
            pushed: None,
            sealed_for: BTreeSet::new(),
            sealed_again_for: BTreeSet::new(),
            shown: BTreeSet::new(),
        });
        number
    }

    /// The application gives a message to its device, perhaps again.
    pub(super) fn given(&mut self, number: Number) {
        if let Some(sent) = self.messages.get_mut(number) {
            sent.given += 1;
        }
    }

    /// A message.
    #[must_use]
    pub(super) fn message(&self, number: Number) -> Option<&Sent> {
        self.messages.get(number)
    }

    /// The number of the message with an id.
    #[must_use]
    pub(super) fn number(&self, id: &[u8; 16]) -> Option<Number> {
        self.by_id.get(id).copied()
    }

    /// The device's messages whose fate it has not been told, in their order.
    #[must_use]
    pub(super) fn open_of(&self, device: usize) -> Vec<Number> {
        let open = |(_, sent): &(Number, &Sent)| sent.from == device && sent.fate == Fate::Open;
        self.messages
            .iter()
            .enumerate()
            .filter(open)
            .map(|(number, _)| number)
            .collect()
    }

    /// The device's messages that were accepted and that no other has followed in their conversation, in their order.
    #[must_use]
    pub(super) fn accepted_last(&self, device: usize) -> Vec<Number> {
        let of_device = self
            .messages
            .iter()
            .enumerate()
            .filter(|(_, sent)| sent.from == device);
        let last: BTreeMap<_, _> = of_device
            .map(|(number, sent)| (sent.to, (number, sent)))
            .collect();
        let accepted = last
            .into_values()
            .filter(|(_, sent)| sent.fate == Fate::Accepted);
        let mut numbers: Vec<_> = accepted.map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// A device sends something to the relay.
    pub(super) fn pushed(&mut self, from: usize, send: &Push, now: Millis) {
        match self.sends.entry((from, send.sequence)) {
            Entry::Vacant(first) => {
                first.insert(Some(send.clone()));
            }
            // It has not heard the answer, which may have been that.
            Entry::Occupied(_) => self.refused(from, send),
        }
        let Some(number) = self.number(&send.id) else {
            let next = self.direct.len();
            self.direct.entry(send.id).or_insert(next);
            return;
        };
        let Some(sent) = self.messages.get_mut(number) else {
            return;
        };
        if !send.whole {
            return;
        }
        sent.pushed.get_or_insert(now);
        if sent.fate == Fate::Open {
            sent.sealed_for.clear();
            sent.sealed_for.extend(&send.devices);
        } else {
            sent.sealed_again_for.extend(&send.devices);
        }
    }

    /// The relay has refused what a device sent.
    pub(super) fn refused(&mut self, from: usize, send: &Push) {
        self.answered(from, send.sequence);
        if self.maybe_refused.insert((from, send.sequence)) {
            for device in &send.devices {
                *self.refused.entry((from, *device)).or_default() += 1;
            }
        }
    }

    /// A device has heard what became of a Send.
    pub(super) fn answered(&mut self, from: usize, sequence: u64) {
        self.sends.insert((from, sequence), None);
    }

    /// The relay tells a device that one message for another will not get there. At each position it tells that of one.
    pub(super) fn given_up(&mut self, from: usize, by: Option<usize>, position: u64) {
        if let Some(by) = by
            && self.notices.insert((from, position))
        {
            *self.refused.entry((from, by)).or_default() += 1;
        }
    }

    /// The sender has the receipt.
    pub(super) fn accepted(&mut self, number: Number) {
        let forgets = self.sender_forgets(number);
        let Some(sent) = self.messages.get_mut(number) else {
            return;
        };
        match &sent.fate {
            Fate::Open => sent.fate = Fate::Accepted,
            Fate::Accepted => {}
            Fate::Failed(_) if forgets => sent.fate = Fate::Accepted,
            Fate::Failed(why) => {
                let what =
                    format!("message {number} was accepted after its sender was told: {why}");
                self.violate(Invariant::Untold, what);
            }
        }
    }

    /// The sender was told that the message is not sent.
    pub(super) fn failed(&mut self, number: Number, why: String) {
        let forgets = self.sender_forgets(number);
        let Some(sent) = self.messages.get_mut(number) else {
            return;
        };
        match sent.fate {
            Fate::Open => sent.fate = Fate::Failed(why),
            Fate::Failed(_) => {}
            // An application that is put back may have forgotten what it was told before.
            Fate::Accepted if forgets => {}
            // It has given it again, and what is confirmed everywhere its device knows no more.
            Fate::Accepted if sent.given > 1 => {}
            Fate::Accepted => {
                self.violate(
                    Invariant::Untold,
                    format!("message {number} failed after it was accepted: {why}"),
                );
            }
        }
    }

    fn sender_forgets(&self, number: Number) -> bool {
        let sent = self.messages.get(number);
        sent.is_some_and(|sent| self.may_forget(sent.from, number))
    }

    /// Whether everything accepted was shown, and every sender knows.
    #[must_use]
    pub(super) fn is_settled(&self) -> bool {
        let mut messages = self.messages.iter().enumerate();
        messages.all(|(number, sent)| match sent.fate {
            Fate::Open => self.place(sent.from) == Place::Gone,
            Fate::Failed(_) => true,
            Fate::Accepted => self.missing(number, sent).next().is_none(),
        })
    }

    /// The devices that a message was for, of which it is not known what became of it.
    fn missing(&self, number: Number, sent: &Sent) -> impl Iterator<Item = usize> {
        let from_gone = self.place(sent.from) == Place::Gone;
        sent.sealed_for.iter().copied().filter(move |device| {
            let is_removed = self.place(*device) != Place::There;
            let reader = self.readers.get(*device);
            let arrived = reader.is_some_and(|reader| reader.arrived.contains(&number));
            let unreadable = reader.is_some_and(|reader| reader.unreadable.contains(&number));
            let is_known = sent.shown.contains(device)
                // That was looked at when it was told.
                || unreadable
                || self.may_forget(*device, number)
                || self.may_forget(sent.from, number)
                || self.is_told_of(sent.from, number, *device)
                // Whoever is removed shows nothing any more, and whoever is gone is told nothing.
                || is_removed && (arrived || from_gone)
                || from_gone && self.terms.retention.is_some();
            !is_known
        })
    }

    /// The run is over: what has to have happened by now?
    pub(super) fn finish(&mut self) {
        let mut wrong = Vec::new();
        for (number, sent) in self.messages.iter().enumerate() {
            let from = sent.from;
            match &sent.fate {
                Fate::Open if self.place(from) == Place::Gone => {}
                Fate::Open => {
                    let what = format!("device {from} never heard what became of message {number}");
                    wrong.push((Invariant::Untold, what));
                }
                Fate::Failed(_) => {}
                Fate::Accepted => {
                    if sent.sealed_for.is_empty() {
                        let what = format!("message {number} was accepted and is for nobody");
                        wrong.push((Invariant::Lost, what));
                    }
                    for device in self.missing(number, sent) {
                        let what = format!(
                            "message {number} from device {from} was accepted and is not shown at device {device}"
                        );
                        wrong.push((Invariant::Lost, what));
                    }
                }
            }
        }
        let count = self.messages.len() as u64;
        self.check_many(Invariant::Untold, count);
        self.check_many(Invariant::Lost, count);
        for (invariant, what) in wrong {
            self.violate(invariant, what);
        }
        self.finish_alarms();
    }

    /// Counts a check.
    pub(super) fn check(&mut self, invariant: Invariant) {
        self.check_many(invariant, 1);
    }

    /// Counts several checks.
    pub(super) fn check_many(&mut self, invariant: Invariant, count: u64) {
        *self.checks.entry(invariant).or_default() += count;
    }

    /// A promise is broken.
    pub(super) fn violate(&mut self, invariant: Invariant, what: String) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation { invariant, what });
        }
    }

    /// Whether a promise is broken.
    #[must_use]
    pub(super) fn is_violated(&self) -> bool {
        !self.violations.is_empty()
    }

    /// How many messages were sent, and how often one was shown.
    #[must_use]
    pub(super) fn volume(&self) -> (u64, u64) {
        (self.messages.len() as u64, self.shown)
    }

    /// What was checked, how often, and what was found.
    #[must_use]
    pub(super) fn into_findings(self) -> (BTreeMap<Invariant, u64>, Vec<Violation>) {
        (self.checks, self.violations)
    }
}
