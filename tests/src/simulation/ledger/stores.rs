//! What a device's store knows: one that is put back knows what it knew then, and one that is removed is of no use any more.

use super::{Copy, Invariant, Ledger, Memory, Number, Place};

impl Ledger {
    /// A device's process begins anew.
    pub(in super::super) fn restarted(&mut self, device: usize) {
        if let Some(reader) = self.readers.get_mut(device) {
            reader.life += 1;
            reader.in_life.clear();
        }
    }

    /// What a device's store knows now, to be put back later.
    #[must_use]
    pub(in super::super) fn memory(&self, device: usize) -> Memory {
        let reader = self.readers.get(device);
        reader
            .map(|reader| reader.memory.clone())
            .unwrap_or_default()
    }

    /// A device's store is put back: it knows no more than it did then.
    pub(in super::super) fn restored(&mut self, device: usize, memory: Memory) {
        // What it has not heard the answer of, it never will, and that may have been a refusal. What it sends from here on may have the same sequences.
        let of_device = (device, 0)..=(device, u64::MAX);
        let unheard = self
            .sends
            .range(of_device)
            .filter_map(|(_, send)| send.clone());
        for send in unheard.collect::<Vec<_>>() {
            self.refused(device, &send);
        }
        self.maybe_refused.retain(|(from, _)| *from != device);
        self.sends.retain(|(from, _), _| *from != device);
        if let Some(reader) = self.readers.get_mut(device) {
            reader.memory = memory;
            reader.copy = Copy::Unaware;
            reader.put_back += 1;
            reader.unfound += 1;
        }
    }

    /// The relay has let a device in. `behind`: it tells that the store is an earlier copy. `stored`: what it tells is in the store; otherwise that
    /// is not known, as the process died over it.
    pub(in super::super) fn let_in(&mut self, device: usize, behind: bool, stored: bool) {
        self.check(Invariant::Restored);
        let (sent, direct) = (self.messages.len(), self.direct.len());
        let Some(reader) = self.readers.get_mut(device) else {
            return;
        };
        let before = reader.copy.clone();
        if behind {
            reader.unfound = reader.unfound.saturating_sub(1);
        }
        if stored && reader.copy == Copy::Unaware {
            reader.copy = Copy::Aware(sent, direct);
        }
        reader.memory.told.owe_restored(behind, stored);
        if behind && before != Copy::Unaware {
            let what = format!("the store of device {device} has lost what the relay knows it had");
            self.violate(Invariant::Restored, what);
        }
    }

    /// Whether a device may know nothing of a message because its store was put back.
    pub(super) fn may_forget(&self, device: usize, number: Number) -> bool {
        let reader = self.readers.get(device);
        reader.is_some_and(|reader| match reader.copy {
            Copy::Never => false,
            Copy::Unaware => true,
            Copy::Aware(from, _) => number < from,
        })
    }

    /// The same of a message of any kind; of one that nobody has sent, no.
    pub(super) fn may_forget_id(&self, device: usize, id: &[u8; 16]) -> bool {
        match (self.number(id), self.direct.get(id)) {
            (Some(number), _) => self.may_forget(device, number),
            (None, None) => false,
            (None, Some(direct)) => {
                let reader = self.readers.get(device);
                reader.is_some_and(|reader| match reader.copy {
                    Copy::Never => false,
                    Copy::Unaware => true,
                    Copy::Aware(_, from) => *direct < from,
                })
            }
        }
    }

    /// A device is away for a while, or it is back.
    pub(in super::super) fn away(&mut self, device: usize, is_away: bool) {
        if let Some(reader) = self.readers.get_mut(device) {
            reader.is_away = is_away;
        }
    }

    /// A device's user wants it removed, and asks another for it.
    pub(in super::super) fn removing(&mut self, device: usize) {
        if let Some(reader) = self.readers.get_mut(device)
            && reader.place == Place::There
        {
            reader.place = Place::Leaving;
        }
    }

    /// A device is told that it is removed.
    pub(in super::super) fn gone(&mut self, device: usize) {
        match self.readers.get_mut(device) {
            Some(reader) if reader.place != Place::There => reader.place = Place::Gone,
            Some(_) | None => self.violate(
                Invariant::Alarm,
                format!(
                    "device {device} is told that it is removed, and nobody has asked for that"
                ),
            ),
        }
    }

    /// A device is removed, and need not know it yet.
    pub(in super::super) fn removed(&mut self, device: usize) {
        if let Some(reader) = self.readers.get_mut(device) {
            reader.is_removed = true;
        }
    }

    pub(super) fn place(&self, device: usize) -> Place {
        let reader = self.readers.get(device);
        reader.map_or(Place::There, |reader| reader.place.clone())
    }
}
