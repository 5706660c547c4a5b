//! Whatever is done, in whatever order and over restarts: the mailboxes are those of a few lines of plain code.
use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const DEVICES: u8 = 4;
const RETENTION: u64 = 3_600_000;

#[derive(Debug, Clone)]
enum Step {
    /// To the devices of these bits, and copies to those of the others.
    Send {
        parts: u8,
        copies: u8,
        bytes: usize,
    },
    Repeat {
        back: u64,
    },
    /// The next is refused before it comes here.
    Refuse,
    /// Acknowledges so many of what is there.
    Acknowledge {
        of: u8,
        count: usize,
    },
    Flush,
    Sweep,
    Remove {
        of: u8,
    },
    Later {
        millis: u64,
    },
    Restart {
        closes: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..16_u8, 0..16_u8, 1..700_usize)
            .prop_map(|(parts, copies, bytes)| Step::Send { parts, copies: copies & !parts, bytes }),
        1 => (0..70_u64).prop_map(|back| Step::Repeat { back }),
        1 => Just(Step::Refuse),
        4 => (0..=DEVICES, 1..6_usize).prop_map(|(of, count)| Step::Acknowledge { of, count }),
        3 => Just(Step::Flush),
        1 => Just(Step::Sweep),
        1 => (0..DEVICES).prop_map(|of| Step::Remove { of }),
        2 => (0..RETENTION / 2).prop_map(|millis| Step::Later { millis }),
        1 => any::<bool>().prop_map(|closes| Step::Restart { closes }),
    ];
    vec(step, 1..120)
}

/// What lies in a mailbox: the sequence of the message and, of a notice, whose it was and why.
type Content = (u64, Option<(u8, UndeliveredReason)>);

#[derive(Debug, Default)]
struct Model {
    /// Position to what is there, and when it expires.
    mailboxes: BTreeMap<u8, BTreeMap<u64, (Content, u64)>>,
    /// Notices have no order among themselves.
    notices: Vec<Content>,
    sequence: u64,
    /// The highest that was accepted, and those that were refused.
    sent: u64,
    refused: BTreeSet<u64>,
    /// Those that skip a refused one or come after one that does, and nobody may read before they are durable.
    held: BTreeSet<u64>,
    now: u64,
}

fn bits(of: u8) -> impl Iterator<Item = u8> {
    (0..DEVICES).filter(move |bit| of >> bit & 1 == 1)
}

fn small() -> MailOptions {
    MailOptions {
        segment_bytes: 6 << 10,
        queue_bytes: 32 << 10,
        checkpoint_bytes: 8 << 10,
        recent_bytes: 1 << 10,
        ..options()
    }
}

struct Run {
    disk: MemoryDisk,
    mailboxes: Mailboxes,
    model: Model,
}

impl Run {
    fn settle(&mut self) {
        while self.mailboxes.flush() {}
        self.model.held.clear();
    }

    /// Sweeps until nothing is left to give back: some of it may have to wait for the disk, or for room.
    fn sweep(&mut self) {
        let now = self.model.now;
        loop {
            self.settle();
            let swept = self.mailboxes.sweep(now).unwrap();
            if (swept.undelivered, swept.notices) == (0, 0) && !swept.more && !swept.waits {
                break;
            }
        }
        for of in 0..DEVICES {
            self.give_back(of, UndeliveredReason::Expired, |expires| expires <= now);
        }
    }

    fn send(
        &mut self,
        sequence: u64,
        parts_of: u8,
        copies_of: u8,
        bytes: usize,
    ) -> Result<Appended, PostError> {
        let part = |to: u8| {
            let mut message = vec![to; 8 + bytes];
            message[..8].copy_from_slice(&sequence.to_be_bytes());
            (device(to), Bytes::from(message))
        };
        loop {
            let posting = Posting {
                from_user: &user("alice"),
                from_device: device(ALICE),
                sequence,
                id: id(sequence),
                to_user: &user("bob"),
                parts: bits(parts_of).map(part).collect(),
                copies: bits(copies_of).map(part).collect(),
            };
            match self.mailboxes.append(posting, PLENTY, self.model.now) {
                Err(PostError::Busy) => self.settle(),
                appended => return appended,
            }
        }
    }

    fn give_back(&mut self, of: u8, reason: UndeliveredReason, gone: impl Fn(u64) -> bool) {
        let mailbox = self.model.mailboxes.entry(of).or_default();
        let notices = &mut self.model.notices;
        mailbox.retain(|_, ((sequence, _), expires)| {
            let gone = gone(*expires);
            if gone {
                notices.push((*sequence, Some((of, reason))));
            }
            !gone
        });
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Send {
                parts,
                copies,
                bytes,
            } => {
                self.model.sequence += 1;
                let sequence = self.model.sequence;
                let appended = self.send(sequence, *parts, *copies, *bytes).unwrap();
                if sequence > self.model.sent + 1 || !self.model.held.is_empty() {
                    self.model.held.insert(sequence);
                }
                self.model.sent = sequence;
                assert_eq!(appended.is_held(), self.model.held.contains(&sequence));
                assert!(!appended.is_repetition());
                let expires = self.model.now + RETENTION;
                for (to, position) in appended.positions() {
                    let mailbox = self.model.mailboxes.entry(to.as_bytes()[0]).or_default();
                    let head = mailbox.last_key_value().map_or(0, |(head, _)| *head);
                    assert!(position > head);
                    mailbox.insert(position, ((sequence, None), expires));
                }
            }
            Step::Repeat { back } => {
                let sequence = self.model.sequence.saturating_sub(*back);
                let sequence = sequence.max(1);
                let below = self.model.sent.checked_sub(sequence);
                if below.is_some_and(|below| below < 64) {
                    let again = self.send(sequence, 1, 2, 9);
                    let again = again.map(|appended| appended.is_repetition());
                    let was_refused = self.model.refused.contains(&sequence);
                    let expected = if was_refused {
                        Err(PostError::Overtaken)
                    } else {
                        Ok(true)
                    };
                    assert_eq!(again, expected);
                }
            }
            Step::Refuse => {
                self.model.sequence += 1;
                self.model.refused.insert(self.model.sequence);
            }
            Step::Acknowledge { of, count } => {
                let of = if *of == DEVICES { ALICE } else { *of };
                let read = self
                    .mailboxes
                    .read(&device(of), 0, *count, usize::MAX, NOW)
                    .unwrap();
                self.mailboxes.acknowledge(&device(of), read.last);
                if of == ALICE {
                    for delivery in &read.deliveries {
                        let content = content(delivery);
                        self.model.notices.retain(|notice| *notice != content);
                    }
                } else if !read.deliveries.is_empty() {
                    let mailbox = self.model.mailboxes.entry(of).or_default();
                    *mailbox = mailbox.split_off(&(read.last + 1));
                }
            }
            Step::Flush => {
                self.mailboxes.flush();
                self.model.held.clear();
            }
            Step::Sweep => self.sweep(),
            Step::Remove { of } => {
                self.settle();
                let now = self.model.now;
                self.mailboxes.remove(&device(*of), now).unwrap();
                self.give_back(*of, UndeliveredReason::DeviceRemoved, |_| true);
                // What there was no room for.
                self.sweep();
            }
            Step::Later { millis } => self.model.now += millis,
            Step::Restart { closes } => {
                self.settle();
                if *closes {
                    self.mailboxes.close();
                }
                let disk = Arc::new(self.disk.clone());
                self.mailboxes = Mailboxes::open_stepped(disk, &small()).unwrap();
                let opened = self.mailboxes.opened();
                assert_eq!((opened.damaged, opened.torn_bytes), (0, 0));
            }
        }
    }

    fn compare(&self) {
        for of in 0..DEVICES {
            let there: Vec<_> = read_all(&self.mailboxes, of)
                .iter()
                .map(|delivery| (delivery.position(), content(delivery)))
                .collect();
            let all = || self.model.mailboxes.get(&of).into_iter().flatten();
            let expected: Vec<_> = all()
                .map(|(position, (content, _))| (*position, *content))
                .take_while(|(_, (sequence, _))| !self.model.held.contains(sequence))
                .collect();
            assert_eq!(there, expected, "device {of}");
            let status = self.mailboxes.status(&device(of));
            assert_eq!(status.waiting, all().count() as u64);
            assert_eq!(status.held_messages, all().count() as u64);
        }
        let mut there: Vec<_> = read_all(&self.mailboxes, ALICE)
            .iter()
            .map(content)
            .collect();
        let mut expected = self.model.notices.clone();
        there.sort_unstable_by_key(|content| format!("{content:?}"));
        expected.sort_unstable_by_key(|content| format!("{content:?}"));
        assert_eq!(there, expected);
        assert_eq!(self.mailboxes.sent(&device(ALICE)), self.model.sent);
    }
}

fn content(delivery: &Delivery) -> Content {
    match delivery {
        Delivery::Mail(mail) => {
            let sequence = u64::from_be_bytes(*mail.message.first_chunk().unwrap());
            assert_eq!(mail.id, id(sequence));
            (sequence, None)
        }
        Delivery::Undelivered(undelivered) => (
            u128::from_be_bytes(undelivered.id) as u64,
            Some((undelivered.device.as_bytes()[0], undelivered.reason)),
        ),
        Delivery::Damaged { position } => panic!("damaged at {position}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn mailboxes_are_those_of_the_model(steps in steps()) {
        let disk = MemoryDisk::new();
        let mailboxes = Mailboxes::open_stepped(Arc::new(disk.clone()), &small()).unwrap();
        let model = Model { now: NOW, ..Model::default() };
        let mut run = Run { disk, mailboxes, model };
        for step in &steps {
            run.take(step);
            run.compare();
        }
        run.take(&Step::Restart { closes: true });
        run.compare();
        run.take(&Step::Restart { closes: false });
        run.compare();
    }
}
