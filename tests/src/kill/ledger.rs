//! What was given to the senders, what they reported as accepted, and what every device showed. It judges; it runs nothing.

use std::collections::{HashMap, HashSet, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sealwire_client::MessageId;

/// Characters of a message, and of one of [`LONG_ONE_IN`], at most.
const SHORT: usize = 2_000;
const LONG: usize = 60_000;
const LONG_ONE_IN: u64 = 40;

/// A device that shows messages, by number.
pub(super) type DeviceNumber = usize;

/// What one device writes to one user, in order.
#[derive(Debug)]
struct Flow {
    /// The devices that have to show it: all of the recipient's, and the sender's others.
    shown_by: Vec<DeviceNumber>,
    given: u64,
    /// Given, and not reported as accepted; in order.
    open: VecDeque<u64>,
}

/// What one device has shown.
#[derive(Debug, Default)]
struct Shown {
    seen: HashSet<MessageId>,
    /// In the process that runs now.
    in_this_run: HashSet<MessageId>,
    /// The newest message of each flow.
    last: HashMap<usize, u64>,
    /// How many of each flow.
    count: HashMap<usize, u64>,
}

/// A message to give to a sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) id: MessageId,
    pub(super) text: String,
}

/// What must not be, and how often it was; and what may.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were given to senders.
    pub given: u64,
    /// Messages that senders reported as accepted.
    pub accepted: u64,
    /// Messages that devices showed for the first time; each message counts for each of its devices.
    pub received: u64,
    /// Messages that were shown again, and marked so.
    pub marked_again: u64,
    /// Accepted messages that a device has not shown; in the end they are lost.
    pub lost: u64,
    /// Messages that were shown again without a mark, or twice by one process.
    pub twice: u64,
    /// Messages that were shown after a later one of the same sender.
    pub out_of_order: u64,
    /// Messages that nobody gave, or with another text.
    pub wrong: u64,
}

/// The book in which all is kept.
#[derive(Debug)]
pub(super) struct Ledger {
    seed: u64,
    flows: Vec<Flow>,
    devices: Vec<Shown>,
    numbers: HashMap<MessageId, (usize, u64)>,
    tally: Tally,
}

impl Ledger {
    /// For `devices` devices that show messages. `flows`: for each sender, who has to show what it sends.
    pub(super) fn new(seed: u64, devices: usize, flows: Vec<Vec<DeviceNumber>>) -> Self {
        let flow = |shown_by| Flow {
            shown_by,
            given: 0,
            open: VecDeque::new(),
        };
        Self {
            seed,
            flows: flows.into_iter().map(flow).collect(),
            devices: (0..devices).map(|_| Shown::default()).collect(),
            numbers: HashMap::new(),
            tally: Tally::default(),
        }
    }

    /// The next message of a flow.
    pub(super) fn give(&mut self, flow: usize) -> Given {
        let entry = self.flow(flow);
        entry.given += 1;
        let number = entry.given;
        entry.open.push_back(number);
        let message = message(self.seed, flow, number);
        self.numbers.insert(message.id, (flow, number));
        self.tally.given += 1;
        message
    }

    /// All messages of a flow that are not reported as accepted, in order: what is given again after a crash.
    pub(super) fn open(&self, flow: usize) -> Vec<Given> {
        let numbers = self.flows.get(flow).into_iter().flat_map(|flow| &flow.open);
        numbers
            .map(|number| message(self.seed, flow, *number))
            .collect()
    }

    /// A sender reports that this message is accepted.
    pub(super) fn accepted(&mut self, flow: usize, id: MessageId) {
        let known = self.numbers.get(&id).copied();
        let Some((of, number)) = known.filter(|(of, _)| *of == flow) else {
            self.tally.wrong += 1;
            return;
        };
        let open = &mut self.flow(of).open;
        let before = open.len();
        open.retain(|other| *other != number);
        match open.len() == before {
            true => self.tally.twice += 1,
            false => self.tally.accepted += 1,
        }
    }

    /// A new process runs for this device.
    pub(super) fn restarted(&mut self, device: DeviceNumber) {
        self.device(device).in_this_run.clear();
    }

    /// A device shows a message.
    pub(super) fn shown(
        &mut self,
        device: DeviceNumber,
        id: MessageId,
        text: &str,
        redelivered: bool,
    ) {
        let (seed, known) = (self.seed, self.numbers.get(&id).copied());
        let meant = |flow| {
            let flow: Option<&Flow> = self.flows.get(flow);
            flow.is_some_and(|flow| flow.shown_by.contains(&device))
        };
        let Some((flow, number)) = known
            .filter(|(flow, number)| meant(*flow) && message(seed, *flow, *number).text == text)
        else {
            self.tally.wrong += 1;
            return;
        };
        let shown = self.device(device);
        let first_in_run = shown.in_this_run.insert(id);
        if !shown.seen.insert(id) {
            match redelivered && first_in_run {
                true => self.tally.marked_again += 1,
                false => self.tally.twice += 1,
            }
            return;
        }
        *shown.count.entry(flow).or_default() += 1;
        let last = shown.last.entry(flow).or_default();
        let in_order = number > *last;
        *last = number.max(*last);
        self.tally.received += 1;
        self.tally.out_of_order += u64::from(!in_order);
    }

    /// Messages of a flow that a sender was given and the slowest device has not shown.
    pub(super) fn lag(&self, flow: usize) -> u64 {
        let Some(entry) = self.flows.get(flow) else {
            return 0;
        };
        let shown = |device: &DeviceNumber| self.count(*device, flow);
        let slowest = entry.shown_by.iter().map(shown).min();
        entry.given - slowest.unwrap_or(entry.given)
    }

    /// Messages that were given and that a device has yet to show.
    pub(super) fn waiting(&self, device: DeviceNumber) -> u64 {
        let flows = self.flows.iter().enumerate();
        flows
            .filter(|(_, flow)| flow.shown_by.contains(&device))
            .map(|(number, flow)| flow.given - self.count(device, number))
            .sum()
    }

    /// How many messages of a flow are given and not reported as accepted.
    pub(super) fn open_count(&self, flow: usize) -> usize {
        self.flows.get(flow).map_or(0, |flow| flow.open.len())
    }

    /// Whether everything given is accepted and shown everywhere.
    pub(super) fn is_settled(&self) -> bool {
        (0..self.flows.len()).all(|flow| self.open_count(flow) == 0 && self.lag(flow) == 0)
    }

    /// Where the book stands.
    pub(super) fn tally(&self) -> Tally {
        let accepted = |flow: &Flow| flow.given - u64::try_from(flow.open.len()).unwrap();
        let lost = self.flows.iter().enumerate().map(|(number, flow)| {
            let missing =
                |device: &DeviceNumber| accepted(flow).saturating_sub(self.count(*device, number));
            flow.shown_by.iter().map(missing).sum::<u64>()
        });
        Tally {
            lost: lost.sum(),
            ..self.tally.clone()
        }
    }

    fn count(&self, device: DeviceNumber, flow: usize) -> u64 {
        let shown = self.devices.get(device);
        shown
            .and_then(|shown| shown.count.get(&flow))
            .copied()
            .unwrap_or(0)
    }

    fn flow(&mut self, flow: usize) -> &mut Flow {
        self.flows.get_mut(flow).expect("a flow of this ledger")
    }

    fn device(&mut self, device: DeviceNumber) -> &mut Shown {
        self.devices
            .get_mut(device)
            .expect("a device of this ledger")
    }
}

impl Tally {
    /// Whether everything held.
    pub fn held(&self) -> bool {
        self.lost + self.twice + self.out_of_order + self.wrong == 0
            && self.given == self.accepted
            && self.accepted > 0
    }
}

/// The message with this number, always the same.
fn message(seed: u64, flow: usize, number: u64) -> Given {
    let place = (u64::try_from(flow).unwrap() << 48) ^ number;
    let mut rng = StdRng::seed_from_u64(seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let id = MessageId::from_bytes(rng.random());
    let most = if rng.random_range(0..LONG_ONE_IN) == 0 {
        LONG
    } else {
        SHORT
    };
    let filler = char::from(rng.random_range(b'a'..=b'z'));
    let filler: String = std::iter::repeat_n(filler, rng.random_range(0..most)).collect();
    Given {
        id,
        text: format!("{flow} {number} {filler}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One sender, two devices.
    fn ledger() -> Ledger {
        Ledger::new(1, 2, vec![vec![0, 1]])
    }

    fn show(ledger: &mut Ledger, device: usize, given: &Given, redelivered: bool) {
        ledger.shown(device, given.id, &given.text, redelivered);
    }

    #[test]
    fn message_that_is_shown_everywhere_once_settles_the_book() {
        let mut ledger = ledger();
        let given = ledger.give(0);
        assert!(!ledger.is_settled());
        ledger.accepted(0, given.id);
        show(&mut ledger, 0, &given, false);
        assert_eq!(
            (ledger.lag(0), ledger.waiting(0), ledger.waiting(1)),
            (1, 0, 1)
        );
        assert_eq!(ledger.tally().lost, 1);
        show(&mut ledger, 1, &given, true);
        assert!(ledger.is_settled());
        assert!(ledger.tally().held());
    }

    #[test]
    fn repetition_is_twice_unless_marked_and_by_another_process() {
        let mut ledger = ledger();
        let given = ledger.give(0);
        show(&mut ledger, 0, &given, false);
        show(&mut ledger, 0, &given, true);
        assert_eq!(ledger.tally().twice, 1, "by the same process");
        ledger.restarted(0);
        show(&mut ledger, 0, &given, true);
        assert_eq!((ledger.tally().twice, ledger.tally().marked_again), (1, 1));
        ledger.restarted(0);
        show(&mut ledger, 0, &given, false);
        assert_eq!(ledger.tally().twice, 2, "without a mark");
    }

    #[test]
    fn message_behind_a_later_one_is_out_of_order() {
        let mut ledger = ledger();
        let (one, two) = (ledger.give(0), ledger.give(0));
        show(&mut ledger, 0, &two, false);
        show(&mut ledger, 0, &one, false);
        assert_eq!(ledger.tally().out_of_order, 1);
    }

    #[test]
    fn message_that_nobody_gave_or_that_is_not_for_this_device_is_wrong() {
        let mut ledger = Ledger::new(1, 2, vec![vec![0]]);
        let given = ledger.give(0);
        ledger.shown(0, given.id, "something else", false);
        ledger.shown(0, MessageId::from_bytes([7; 16]), &given.text, false);
        show(&mut ledger, 1, &given, false);
        assert_eq!((ledger.tally().wrong, ledger.tally().received), (3, 0));
    }

    #[test]
    fn what_was_not_reported_is_given_again_in_order() {
        let mut ledger = ledger();
        let given: Vec<Given> = (0..3).map(|_| ledger.give(0)).collect();
        ledger.accepted(0, given[1].id);
        assert_eq!(ledger.open(0), [given[0].clone(), given[2].clone()]);
        ledger.accepted(0, given[1].id);
        assert_eq!(ledger.tally().twice, 1, "reported once is enough");
    }
}
