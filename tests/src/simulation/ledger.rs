//! What applications did and were shown, and whether that is what was promised.
//!
//! ```text
//!  send ──▶ open ──┬── accepted ──▶ every device it was for: shown once, in order, as it was sent
//!                  └── told why not
//! ```
//! The ledger knows nothing of how messages travel. It is told what an application sees, and compares.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// What was accepted is shown to every device that it was for.
    Lost,
    /// Nothing is shown twice, except after a restart and then with the flag that says so.
    Twice,
    /// What a device sends to a user is shown, on each device that gets it, in the order in which it was sent.
    Order,
    /// What is shown is what was sent, by whom it was sent, to whom it was sent.
    Content,
    /// A sender knows what became of every message.
    Untold,
    /// No message arrives that cannot be opened.
    Undecryptable,
    /// A receipt says only what has happened.
    Receipt,
    /// No key is used with the same nonce twice.
    Nonce,
    /// Queues stay within their bounds.
    Bounds,
    /// When the faults end, everything comes to rest.
    Rest,
    /// Nothing panics.
    Panic,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Lost,
        Self::Twice,
        Self::Order,
        Self::Content,
        Self::Untold,
        Self::Undecryptable,
        Self::Receipt,
        Self::Nonce,
        Self::Bounds,
        Self::Rest,
        Self::Panic,
    ];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "accepted implies shown",
            Self::Twice => "shown once",
            Self::Order => "order per sender",
            Self::Content => "content as sent",
            Self::Untold => "sender told",
            Self::Undecryptable => "everything opens",
            Self::Receipt => "receipts are true",
            Self::Nonce => "no nonce repeats",
            Self::Bounds => "queues bounded",
            Self::Rest => "comes to rest",
            Self::Panic => "nothing panics",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A message's number: its place in the order in which applications sent.
pub(super) type Number = usize;

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
    /// The devices that it was sealed for, as it last went to the relay.
    sealed_for: BTreeSet<usize>,
    /// The application had forgotten that it was sent, and sent it again.
    sealed_again_for: BTreeSet<usize>,
    shown: BTreeMap<usize, Shown>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Open,
    Accepted,
    Failed(String),
}

#[derive(Debug, Default)]
struct Shown {
    times: u32,
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
    /// By conversation: the last number that was shown in this life, and the last that was shown for the first time.
    in_life: BTreeMap<Conversation, Number>,
    first: BTreeMap<Conversation, Number>,
    restored: bool,
    /// In lives before this one it has seen what its store knows nothing of.
    knows_from: u32,
    told_restored: bool,
}

/// Everything sent and shown in a run.
#[derive(Debug)]
pub(super) struct Ledger {
    messages: Vec<Sent>,
    by_id: BTreeMap<[u8; 16], Number>,
    readers: Vec<Reader>,
    checks: BTreeMap<Invariant, u64>,
    violations: Vec<Violation>,
}

/// Violations that are kept; one is enough to fail.
const MAX_VIOLATIONS: usize = 20;

impl Ledger {
    /// Nothing was sent yet. `users` says of each device whose it is.
    #[must_use]
    pub(super) fn new(users: &[usize]) -> Self {
        let reader = |user: &usize| Reader {
            user: *user,
            ..Reader::default()
        };
        Self {
            messages: Vec::new(),
            by_id: BTreeMap::new(),
            readers: users.iter().map(reader).collect(),
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
            sealed_for: BTreeSet::new(),
            sealed_again_for: BTreeSet::new(),
            shown: BTreeMap::new(),
        });
        number
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

    /// The message goes to the relay, sealed for these devices.
    pub(super) fn sealed(&mut self, id: &[u8; 16], devices: impl IntoIterator<Item = usize>) {
        if let Some(number) = self.number(id)
            && let Some(sent) = self.messages.get_mut(number)
        {
            if sent.fate == Fate::Open {
                sent.sealed_for.clear();
                sent.sealed_for.extend(devices);
            } else {
                sent.sealed_again_for.extend(devices);
            }
        }
    }

    /// The sender has the receipt.
    pub(super) fn accepted(&mut self, number: Number) {
        let restored = self
            .messages
            .get(number)
            .is_some_and(|sent| self.is_restored(sent.from));
        let Some(sent) = self.messages.get_mut(number) else {
            return;
        };
        match &sent.fate {
            Fate::Open => sent.fate = Fate::Accepted,
            Fate::Accepted => {}
            Fate::Failed(_) if restored => sent.fate = Fate::Accepted,
            Fate::Failed(why) => {
                let what =
                    format!("message {number} was accepted after its sender was told: {why}");
                self.violate(Invariant::Untold, what);
            }
        }
    }

    /// The sender was told that the message is not sent.
    pub(super) fn failed(&mut self, number: Number, why: String) {
        let restored = self
            .messages
            .get(number)
            .is_some_and(|sent| self.is_restored(sent.from));
        let Some(sent) = self.messages.get_mut(number) else {
            return;
        };
        match sent.fate {
            Fate::Open => sent.fate = Fate::Failed(why),
            Fate::Failed(_) => {}
            // An application that is put back may have forgotten what it was told before.
            Fate::Accepted if restored => {}
            Fate::Accepted => {
                self.violate(
                    Invariant::Untold,
                    format!("message {number} failed after it was accepted: {why}"),
                );
            }
        }
    }

    /// A device's process begins anew.
    pub(super) fn restarted(&mut self, device: usize) {
        if let Some(reader) = self.readers.get_mut(device) {
            reader.life += 1;
            reader.in_life.clear();
        }
    }

    /// A device's store is put back: what it had shown may be shown again, and what had come may be gone.
    pub(super) fn restored(&mut self, device: usize) {
        if let Some(reader) = self.readers.get_mut(device) {
            reader.restored = true;
            reader.knows_from = reader.life;
            reader.first.clear();
        }
    }

    /// A device's application is told that its store was put back.
    pub(super) fn told_restored(&mut self, device: usize) {
        match self.readers.get_mut(device) {
            Some(reader) if reader.restored => reader.told_restored = true,
            _ => self.violate(
                Invariant::Receipt,
                format!("device {device} is told that its store was put back, and it was not"),
            ),
        }
    }

    /// A device is told of a message that it cannot open.
    pub(super) fn undecryptable(&mut self, id: &[u8; 16], from: Option<usize>, device: usize) {
        // What one side of a session has forgotten, the other cannot always make good.
        if self.is_restored(device) || from.is_some_and(|from| self.is_restored(from)) {
            return;
        }
        let number = self.number(id);
        let what = format!("device {device} cannot open message {number:?} from device {from:?}");
        self.violate(Invariant::Undecryptable, what);
    }

    /// A device's application is shown a message, or a copy of one that its user sent.
    pub(super) fn shown(
        &mut self,
        device: usize,
        from: Option<usize>,
        id: &[u8; 16],
        body: &[u8],
        redelivered: bool,
    ) -> Option<Number> {
        let number = self.number(id);
        self.check(Invariant::Content);
        let Some((number, sent)) =
            number.and_then(|number| Some((number, self.messages.get_mut(number)?)))
        else {
            self.violate(
                Invariant::Content,
                format!("device {device} is shown a message that nobody sent"),
            );
            return None;
        };
        let reader = self.readers.get_mut(device)?;
        let mut wrong = Vec::new();
        if Some(sent.from) != from || sent.body != body {
            wrong.push((Invariant::Content, "is not what was sent"));
        }
        let of_sender = |readers: &[Reader]| readers.get(sent.from).map(|sender| sender.user);
        if reader.user != sent.to
            && of_sender(&self.readers) != self.readers.get(device).map(|it| it.user)
        {
            wrong.push((Invariant::Content, "was for somebody else"));
        }
        let reader = self.readers.get_mut(device)?;
        let conversation = (sent.from, sent.to);
        let shown = sent.shown.entry(device).or_default();
        if shown.times > 0 && shown.life >= reader.knows_from {
            if !redelivered {
                wrong.push((Invariant::Twice, "is shown again without being flagged"));
            }
            if shown.life == reader.life {
                wrong.push((
                    Invariant::Twice,
                    "is shown again although nothing was restarted",
                ));
            }
            if shown.done {
                wrong.push((Invariant::Twice, "is shown again after it was acknowledged"));
            }
        } else if let Some(last) = reader.first.insert(conversation, number)
            && last > number
        {
            wrong.push((Invariant::Order, "comes after one that was sent later"));
        }
        if let Some(last) = reader.in_life.insert(conversation, number)
            && last > number
        {
            wrong.push((
                Invariant::Order,
                "comes after one that was sent later, in one life",
            ));
        }
        shown.times += 1;
        shown.done = false;
        shown.life = reader.life;
        let from = sent.from;
        self.check(Invariant::Twice);
        self.check(Invariant::Order);
        self.check(Invariant::Undecryptable);
        // What an old copy of a store knows nothing of comes again when it can, not when it was sent.
        let restored = self.is_restored(from) || self.is_restored(device);
        wrong.retain(|(invariant, _)| *invariant != Invariant::Order || !restored);
        for (invariant, how) in wrong {
            self.violate(
                invariant,
                format!("message {number} from device {from} to device {device} {how}"),
            );
        }
        Some(number)
    }

    /// The acknowledgement of a message by a device's application is durable.
    pub(super) fn done(&mut self, device: usize, number: Number) {
        if let Some(shown) = self
            .messages
            .get_mut(number)
            .and_then(|sent| sent.shown.get_mut(&device))
        {
            shown.done = true;
        }
    }

    /// A sender is told that a device has a message.
    pub(super) fn delivered(&mut self, id: &[u8; 16], device: usize) {
        self.check(Invariant::Receipt);
        let sealed = self
            .number(id)
            .and_then(|number| self.messages.get(number))
            .is_some_and(|sent| {
                sent.sealed_for.contains(&device) || sent.sealed_again_for.contains(&device)
            });
        if !sealed {
            self.violate(
                Invariant::Receipt,
                format!("device {device} confirms what was not sent to it"),
            );
        }
    }

    /// A sender is told that a message was read on a device.
    pub(super) fn read(&mut self, id: &[u8; 16], device: usize) {
        self.check(Invariant::Receipt);
        let shown = self
            .number(id)
            .and_then(|number| self.messages.get(number))
            .is_some_and(|sent| sent.shown.contains_key(&device));
        if !shown {
            self.violate(
                Invariant::Receipt,
                format!("device {device} has read what it was not shown"),
            );
        }
    }

    /// Whether everything accepted was shown, and every sender knows.
    #[must_use]
    pub(super) fn is_settled(&self) -> bool {
        self.messages.iter().all(|sent| match sent.fate {
            Fate::Open => false,
            Fate::Failed(_) => true,
            Fate::Accepted => sent.sealed_for.iter().all(|device| {
                sent.shown.contains_key(device)
                    || self.is_restored(*device)
                    || self.is_restored(sent.from)
            }),
        })
    }

    fn is_restored(&self, device: usize) -> bool {
        self.readers
            .get(device)
            .is_some_and(|reader| reader.restored)
    }

    /// The run is over: what has to have happened by now?
    pub(super) fn finish(&mut self) {
        let mut wrong = Vec::new();
        for (number, sent) in self.messages.iter().enumerate() {
            match &sent.fate {
                Fate::Open => {
                    let what = format!(
                        "device {} never heard what became of message {number}",
                        sent.from
                    );
                    wrong.push((Invariant::Untold, what));
                }
                Fate::Failed(_) => {}
                Fate::Accepted => {
                    if sent.sealed_for.is_empty() {
                        wrong.push((
                            Invariant::Lost,
                            format!("message {number} was accepted and is for nobody"),
                        ));
                    }
                    for device in &sent.sealed_for {
                        let forgiven = self.is_restored(*device) || self.is_restored(sent.from);
                        if !sent.shown.contains_key(device) && !forgiven {
                            let what = format!(
                                "message {number} from device {} was accepted and is not shown at device {device}",
                                sent.from
                            );
                            wrong.push((Invariant::Lost, what));
                        }
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
        let shown = self.messages.iter().flat_map(|sent| sent.shown.values());
        (
            self.messages.len() as u64,
            shown.map(|shown| u64::from(shown.times)).sum(),
        )
    }

    /// What was checked, how often, and what was found.
    #[must_use]
    pub(super) fn into_findings(self) -> (BTreeMap<Invariant, u64>, Vec<Violation>) {
        (self.checks, self.violations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 16] = [1; 16];

    /// Device 0 is of user 0; 1 and 2 are of user 1.
    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(&[0, 1, 1]);
        ledger.sent(0, 1, ID, b"first".to_vec());
        ledger.sent(0, 1, [2; 16], b"second".to_vec());
        for (number, id) in [ID, [2; 16]].iter().enumerate() {
            ledger.sealed(id, [1, 2]);
            ledger.accepted(number);
        }
        ledger
    }

    fn found(ledger: Ledger) -> Vec<Invariant> {
        let (_, violations) = ledger.into_findings();
        violations
            .iter()
            .map(|violation| violation.invariant)
            .collect()
    }

    fn show(ledger: &mut Ledger, device: usize, number: usize, redelivered: bool) {
        let sent = ledger.message(number).unwrap();
        let (id, body) = (sent.id, sent.body.clone());
        ledger.shown(device, Some(0), &id, &body, redelivered);
    }

    #[test]
    fn a_run_in_which_all_is_well_has_no_violation() {
        let mut ledger = ledger();
        for device in [1, 2] {
            show(&mut ledger, device, 0, false);
            show(&mut ledger, device, 1, false);
        }
        ledger.delivered(&ID, 1);
        ledger.read(&ID, 1);
        ledger.finish();
        assert_eq!(found(ledger), []);
    }

    #[test]
    fn what_one_device_was_not_shown_is_lost() {
        let mut ledger = ledger();
        show(&mut ledger, 1, 0, false);
        show(&mut ledger, 1, 1, false);
        show(&mut ledger, 2, 0, false);
        assert!(!ledger.is_settled());
        ledger.finish();
        assert_eq!(found(ledger), [Invariant::Lost]);
    }

    #[test]
    fn showing_again_needs_a_restart_and_the_flag() {
        let mut again = ledger();
        show(&mut again, 1, 0, false);
        again.restarted(1);
        show(&mut again, 1, 0, true);
        assert_eq!(found(again), []);
        for (restart, flag) in [(true, false), (false, true)] {
            let mut ledger = ledger();
            show(&mut ledger, 1, 0, false);
            if restart {
                ledger.restarted(1);
            }
            show(&mut ledger, 1, 0, flag);
            assert_eq!(found(ledger), [Invariant::Twice]);
        }
    }

    #[test]
    fn what_was_acknowledged_is_not_shown_again_even_after_a_restart() {
        let mut ledger = ledger();
        show(&mut ledger, 1, 0, false);
        ledger.done(1, 0);
        ledger.restarted(1);
        show(&mut ledger, 1, 0, true);
        assert_eq!(found(ledger), [Invariant::Twice]);
    }

    #[test]
    fn a_later_message_before_an_earlier_one_is_out_of_order() {
        let mut ledger = ledger();
        show(&mut ledger, 1, 1, false);
        show(&mut ledger, 1, 0, false);
        assert_eq!(found(ledger), [Invariant::Order, Invariant::Order]);
    }

    #[test]
    fn another_body_sender_or_reader_is_noticed() {
        let mut changed = ledger();
        changed.shown(1, Some(0), &ID, b"other", false);
        changed.shown(1, Some(2), &[2; 16], b"second", false);
        changed.shown(2, Some(0), &[9; 16], b"never sent", false);
        assert_eq!(found(changed), [Invariant::Content; 3]);
    }

    #[test]
    fn a_sender_has_to_know_what_became_of_a_message() {
        let mut ledger = Ledger::new(&[0, 1]);
        ledger.sent(0, 1, ID, Vec::new());
        ledger.sent(0, 1, [2; 16], Vec::new());
        ledger.failed(1, "full".to_owned());
        assert_eq!(ledger.open_of(0), [0]);
        ledger.finish();
        assert_eq!(found(ledger), [Invariant::Untold]);
    }

    #[test]
    fn receipts_for_what_did_not_happen_are_noticed() {
        let mut ledger = ledger();
        ledger.delivered(&ID, 0);
        ledger.read(&ID, 1);
        assert_eq!(found(ledger), [Invariant::Receipt, Invariant::Receipt]);
    }
}
