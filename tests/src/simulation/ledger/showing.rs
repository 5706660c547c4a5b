//! Messages as an application is shown them: once, in order, as they were sent.

use std::collections::BTreeMap;

use super::{Conversation, Invariant, Ledger, Memory, Number, Place, Shown};

impl Ledger {
    /// A device is told of a message that it cannot open.
    pub(in super::super) fn undecryptable(
        &mut self,
        id: &[u8; 16],
        from: Option<usize>,
        device: usize,
    ) {
        let number = self.number(id);
        // What one side of a session has forgotten, the other cannot always make good; nor can who is gone, was told that it will not get
        // there, or is away for as long as it is asked (docs/protocol.md §8.3: a minute after the third time it is given up).
        let is_away = |from: usize| self.readers.get(from).is_some_and(|reader| reader.is_away);
        let is_told = |from| number.is_some_and(|number| self.is_told_of(from, number, device));
        let excused = self.may_forget_id(device, id)
            || from.is_some_and(|from| {
                self.may_forget_id(from, id)
                    || self.place(from) != Place::There
                    || is_told(from)
                    || is_away(from)
            });
        if let Some(reader) = self.readers.get_mut(device) {
            reader.unreadable.extend(number);
        }
        if !excused {
            let what =
                format!("device {device} cannot open message {number:?} from device {from:?}");
            self.violate(Invariant::Undecryptable, what);
        }
    }

    /// A message has come to a device, and was not shown yet.
    pub(in super::super) fn arrived(&mut self, device: usize, id: &[u8; 16]) {
        let number = self.number(id);
        if let Some(reader) = self.readers.get_mut(device) {
            reader.arrived.extend(number);
        }
    }

    /// A device's application is shown a message, or a copy of one that its user sent.
    pub(in super::super) fn shown(
        &mut self,
        device: usize,
        from: Option<usize>,
        id: &[u8; 16],
        body: &[u8],
        redelivered: bool,
    ) -> Option<Number> {
        self.check(Invariant::Content);
        let Some((number, sent)) = self
            .number(id)
            .and_then(|number| Some((number, self.messages.get_mut(number)?)))
        else {
            self.violate(
                Invariant::Content,
                format!("device {device} is shown a message that nobody sent"),
            );
            return None;
        };
        let mut wrong = Vec::new();
        if Some(sent.from) != from || sent.body != body {
            wrong.push((Invariant::Content, "is not what was sent"));
        }
        let (from, to) = (sent.from, sent.to);
        sent.shown.insert(device);
        self.shown += 1;
        let user_of = |device: usize| self.readers.get(device).map(|reader| reader.user);
        if user_of(device) != Some(to) && user_of(from) != user_of(device) {
            wrong.push((Invariant::Content, "was for somebody else"));
        }
        // What an old copy of a store knows nothing of comes again when it can, not when it was sent.
        let may_be_late = self.may_forget(from, number) || self.may_forget(device, number);
        let reader = self.readers.get_mut(device)?;
        let Memory { shown, first, .. } = &mut reader.memory;
        if let Some(shown) = shown.get(&number) {
            if !redelivered {
                wrong.push((Invariant::Twice, "is shown again without being flagged"));
            }
            if shown.life == reader.life {
                let how = "is shown again although nothing was restarted";
                wrong.push((Invariant::Twice, how));
            }
            if shown.done {
                wrong.push((Invariant::Twice, "is shown again after it was acknowledged"));
            }
        } else if is_late(first, (from, to), number) && !may_be_late {
            wrong.push((Invariant::Order, "comes after one that was sent later"));
        }
        if is_late(&mut reader.in_life, (from, to), number) && !may_be_late {
            let how = "comes after one that was sent later, in one life";
            wrong.push((Invariant::Order, how));
        }
        let life = reader.life;
        shown.insert(number, Shown { life, done: false });
        self.check(Invariant::Twice);
        self.check(Invariant::Order);
        self.check(Invariant::Undecryptable);
        for (invariant, how) in wrong {
            self.violate(
                invariant,
                format!("message {number} from device {from} to device {device} {how}"),
            );
        }
        Some(number)
    }

    /// The acknowledgement of a message by a device's application is durable.
    pub(in super::super) fn done(&mut self, device: usize, number: Number) {
        if let Some(reader) = self.readers.get_mut(device)
            && let Some(shown) = reader.memory.shown.get_mut(&number)
        {
            shown.done = true;
        }
    }
}

/// Whether one of a conversation that was sent later was there before.
fn is_late(
    last: &mut BTreeMap<Conversation, Number>,
    conversation: Conversation,
    number: Number,
) -> bool {
    let last = last.entry(conversation).or_insert(number);
    let is_late = *last > number;
    *last = number.max(*last);
    is_late
}
