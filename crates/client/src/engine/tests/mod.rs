//! Engines of several devices, and a toy relay between them, in virtual time.

mod copies;
mod receiving;
mod repair;
mod sending;
mod standard;
mod trust;

use std::collections::{BTreeMap, BTreeSet};

use sealwire_protocol::frame::{CardEntry, Deliver, List, OneTimePrekey as WirePrekey, Ready};
use tokio::sync::oneshot;

use super::*;
use crate::client::Receipt;
use crate::error::Error;
use crate::message::Message;
use crate::store::vault::Changes;
use crate::testing::{SharedStore, issuer_key, token, trusted_issuer};

const START: Moment = Moment(1_800_000_000_000);
const DAY: u64 = 24 * 60 * 60;

/// A device: what is in memory may be lost, what is in the store stays.
struct Toy {
    engine: Engine,
    store: SharedStore,
    user: &'static str,
    options: Options,
    /// What its clock shows.
    now: Moment,
}

impl Toy {
    fn new(user: &'static str) -> Self {
        Self::with(
            user,
            Options {
                delivery_receipts: true,
                only_verified: false,
            },
        )
    }

    fn with(user: &'static str, options: Options) -> Self {
        let store = SharedStore::default();
        let mut toy = Self {
            engine: open(&store, options).unwrap(),
            store,
            user,
            options,
            now: START,
        };
        toy.engine.handle_token(&toy.token(), START).unwrap();
        toy
    }

    fn token(&self) -> String {
        token(
            &issuer_key(),
            self.user,
            self.device(),
            START.seconds(),
            DAY,
        )
    }

    fn device(&self) -> Thumbprint {
        self.engine.keys.thumbprint()
    }

    /// The process dies and starts again.
    fn crash(&mut self) {
        self.engine = open(&self.store, self.options).unwrap();
    }

    /// The process dies and starts again without the records of some tables, which were lost before the last commit.
    fn crash_without(&mut self, tables: &[Table]) {
        let mut changes = Changes::default();
        for table in tables {
            changes.clear(*table);
        }
        self.engine.vault.commit(changes, &mut rand::rng()).unwrap();
        self.crash();
    }

    /// Commits everything: what comes after does not depend on how long anything may wait.
    fn settle(&mut self) {
        self.engine.flush(self.now).unwrap();
    }

    /// The next frame, once everything is committed.
    fn poll(&mut self) -> Option<Request> {
        self.settle();
        self.engine.poll_request()
    }

    /// Adds an event to the inbox.
    fn push_event(&mut self, event: Event) {
        let mut txn = self.engine.begin();
        self.engine.inbox.push(&mut txn, event).unwrap();
        self.engine.stage(txn);
        self.settle();
    }

    fn send(&mut self, user: &str, text: &str) -> Answer {
        let (answer, reply) = oneshot::channel();
        self.engine
            .send(user, &Message::text(text), answer, START)
            .unwrap();
        self.settle();
        Answer(reply)
    }

    /// Takes all events but those that say that everything is here, and acknowledges the messages.
    fn events(&mut self) -> Vec<Event> {
        let mut events = self.all_events();
        events.retain(|event| !matches!(event, Event::Recovered { .. }));
        events
    }

    fn all_events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(Given { event, number }) = self.engine.next_event() {
            match number {
                Some(number) => self.engine.event_taken(number),
                None => self.engine.passed(),
            }
            if let Event::Message(received)
            | Event::Copy {
                message: received, ..
            } = &event
            {
                received.ack();
            }
            events.push(event);
        }
        self.settle();
        events
    }

    /// Takes all events, and gives the texts of messages.
    fn texts(&mut self) -> Vec<String> {
        let text = |event| {
            let Event::Message(received) = event else {
                return None;
            };
            Some(received.message.as_text().unwrap().to_owned())
        };
        self.events().into_iter().filter_map(text).collect()
    }
}

fn open(store: &SharedStore, options: Options) -> Result<Engine, StoreError> {
    Engine::open(
        Box::new(store.clone()),
        &StoreKey::from_bytes([1; 32]),
        trusted_issuer(),
        options,
        Box::new(rand::rng()),
    )
}

/// Puts as many messages into a store's inbox as there may be before nothing is read any more, and more.
pub(crate) fn fill_inbox(store: &SharedStore) {
    let options = Options {
        delivery_receipts: true,
        only_verified: false,
    };
    let mut engine = open(store, options).unwrap();
    let mut txn = engine.begin();
    for n in 0..1_030_u128 {
        let event = Event::Undecryptable {
            id: crate::message::MessageId(n.to_be_bytes()),
            user: "bob".into(),
            device: engine.keys.thumbprint(),
        };
        engine.inbox.push(&mut txn, event).unwrap();
    }
    engine.stage(txn);
    engine.settle(START).unwrap();
}

struct Answer(oneshot::Receiver<Result<Receipt, Error>>);

impl Answer {
    fn is_waiting(&mut self) -> bool {
        matches!(self.0.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }

    fn receipt(&mut self) -> Receipt {
        self.0.try_recv().unwrap().unwrap()
    }

    fn error(&mut self) -> Error {
        self.0.try_recv().unwrap().unwrap_err()
    }
}

/// A message as the relay holds it.
#[derive(Clone)]
struct Held {
    position: u64,
    id: [u8; 16],
    user: String,
    device: Thumbprint,
    message: Vec<u8>,
}

struct Registered {
    device: Thumbprint,
    card: String,
    prekeys: Vec<Vec<u8>>,
}

/// What was sent: id, user, parts, copies.
#[derive(Clone, Debug, PartialEq)]
struct Sent {
    id: [u8; 16],
    sequence: u64,
    user: String,
    parts: Vec<(Thumbprint, Vec<u8>)>,
    copies: Vec<(Thumbprint, Vec<u8>)>,
}

/// A relay that does what it is told, and what it should not, if a test asks for it.
#[derive(Default)]
struct ToyRelay {
    users: BTreeMap<String, Vec<Registered>>,
    mailboxes: BTreeMap<Thumbprint, Vec<Held>>,
    /// Sending device and sequence of what was accepted.
    accepted: BTreeSet<(Thumbprint, u64)>,
    /// What Ready says to be acknowledged.
    acknowledged: u64,
    sent: Vec<Sent>,
    epoch: [u8; 16],
    next_position: u64,
    /// What the clocks of the devices that it talks to show after [`START`], in milliseconds.
    later: u64,
    /// Answers every Send with this.
    refuse_sends: Option<RefusalCode>,
}

impl ToyRelay {
    fn connect(&self, toy: &mut Toy) {
        let registered = self
            .users
            .get(toy.user)
            .and_then(|devices| devices.iter().find(|d| d.device == toy.device()));
        let ready = Ready {
            device: toy.device(),
            user: toy.user,
            time: START.seconds(),
            token_expires: START.seconds() + DAY,
            max_message: 98_304,
            has_card: registered.is_some_and(|found| !found.card.is_empty()),
            prekeys: registered.map_or(0, |found| u8::try_from(found.prekeys.len()).unwrap()),
            epoch: self.epoch,
            acknowledged: self.acknowledged,
            head: self.next_position,
            sent: self.sent_by(toy.device()),
            waiting: 0,
        };
        toy.now = self.now();
        toy.engine.handle_ready(&ready, toy.now).unwrap();
    }

    /// The highest sequence that was accepted from a device.
    fn sent_by(&self, device: Thumbprint) -> u64 {
        let of_device = self.accepted.range((device, 0)..=(device, u64::MAX));
        of_device.last().map_or(0, |(_, sequence)| *sequence)
    }

    /// Lets the devices talk until nothing moves any more.
    fn pump(&mut self, toys: &mut [&mut Toy]) {
        for _ in 0..100 {
            let mut moved = false;
            for toy in toys.iter_mut() {
                toy.now = self.now();
                toy.settle();
                while let Some(request) = toy.engine.poll_request() {
                    self.serve(toy, &request);
                    moved = true;
                }
                moved |= self.deliver(toy);
            }
            if !moved {
                return;
            }
        }
        panic!("the devices never come to rest");
    }

    /// Delivers what the device has not acknowledged.
    fn deliver(&mut self, toy: &mut Toy) -> bool {
        let position = toy.engine.position();
        let mailbox = self.mailboxes.entry(toy.device()).or_default();
        mailbox.retain(|held| held.position > position);
        let held = mailbox.clone();
        for held in &held {
            give_at(toy, held, self.now());
        }
        !held.is_empty()
    }

    fn serve(&mut self, toy: &mut Toy, request: &Request) {
        match request {
            Request::PublishCard { request, card } => {
                self.register(toy).card.clone_from(card);
                self.reply(toy, *request, &Reply::Accepted);
            }
            Request::PublishPrekeys {
                request,
                replace,
                prekeys,
            } => {
                let registered = self.register(toy);
                if *replace {
                    registered.prekeys.clear();
                }
                registered
                    .prekeys
                    .extend(prekeys.iter().map(OneTimePrekey::encode));
                self.reply(toy, *request, &Reply::Accepted);
            }
            Request::FetchCards {
                request,
                user,
                take,
            } => self.serve_cards(toy, *request, user, *take),
            Request::Send { request, entry } => self.serve_send(toy, *request, *entry),
            Request::RemoveDevice { request, device } => {
                for devices in self.users.values_mut() {
                    devices.retain(|found| found.device != *device);
                }
                self.reply(toy, *request, &Reply::Accepted);
            }
        }
    }

    fn serve_cards(&mut self, toy: &mut Toy, request: u32, user: &str, take: bool) {
        let Some(devices) = self.users.get_mut(user) else {
            return self.reply(toy, request, &Reply::Refused(RefusalCode::UnknownUser));
        };
        let taken: Vec<_> = devices
            .iter_mut()
            .map(|found| {
                (
                    found.card.clone(),
                    if take { found.prekeys.pop() } else { None },
                )
            })
            .collect();
        let entries: Vec<_> = taken
            .iter()
            .map(|(card, prekey)| CardEntry {
                card: card.as_bytes(),
                prekey: prekey.as_deref().map(wire),
            })
            .collect();
        self.reply(toy, request, &Reply::Cards(List::from(&entries)));
    }

    fn serve_send(&mut self, toy: &mut Toy, request: u32, entry: u64) {
        let sent = outgoing(toy, entry);
        let (whole, own) = (
            toy.engine.outgoing(entry).unwrap().whole,
            sent.user == toy.user,
        );
        self.sent.push(sent.clone());
        if let Some(code) = self.refuse_sends {
            return self.reply(toy, request, &Reply::Refused(code));
        }
        let current = |user: &str| -> BTreeSet<_> {
            let devices = self.users.get(user).into_iter().flatten();
            devices
                .map(|found| found.device)
                .filter(|device| *device != toy.device())
                .collect()
        };
        let named = |parts: &[(Thumbprint, Vec<u8>)]| -> BTreeSet<_> {
            parts.iter().map(|(device, _)| *device).collect()
        };
        let (expected, parts) = (current(&sent.user), named(&sent.parts));
        if whole && parts != expected || !parts.is_subset(&expected) {
            return self.reply(toy, request, &Reply::Refused(RefusalCode::DevicesChanged));
        }
        if whole && !own && named(&sent.copies) != current(toy.user) {
            return self.reply(
                toy,
                request,
                &Reply::Refused(RefusalCode::OwnDevicesChanged),
            );
        }
        self.accept(toy, sent);
        self.reply(toy, request, &Reply::Accepted);
    }

    /// §5.2: idempotent by sending device and sequence.
    fn accept(&mut self, toy: &Toy, sent: Sent) {
        if !self.accepted.insert((toy.device(), sent.sequence)) {
            return;
        }
        for (device, message) in sent.parts.into_iter().chain(sent.copies) {
            self.next_position += 1;
            let held = Held {
                position: self.next_position,
                id: sent.id,
                user: toy.user.to_owned(),
                device: toy.device(),
                message,
            };
            self.mailboxes.entry(device).or_default().push(held);
        }
    }

    fn reply(&self, toy: &mut Toy, request: u32, reply: &Reply<'_>) {
        toy.engine.handle_reply(request, reply, self.now()).unwrap();
    }

    fn now(&self) -> Moment {
        Moment(START.0 + self.later)
    }

    fn register(&mut self, toy: &Toy) -> &mut Registered {
        let devices = self.users.entry(toy.user.to_owned()).or_default();
        if let Some(at) = devices
            .iter()
            .position(|found| found.device == toy.device())
        {
            return &mut devices[at];
        }
        devices.push(Registered {
            device: toy.device(),
            card: String::new(),
            prekeys: Vec::new(),
        });
        devices.last_mut().unwrap()
    }

    /// What waits for a device.
    fn mailbox(&mut self, toy: &Toy) -> &mut Vec<Held> {
        self.mailboxes.entry(toy.device()).or_default()
    }
}

fn give(toy: &mut Toy, held: &Held) {
    give_at(toy, held, START);
}

fn give_at(toy: &mut Toy, held: &Held, now: Moment) {
    give_uncommitted(toy, held, now);
    toy.engine.settle(now).unwrap();
}

fn give_uncommitted(toy: &mut Toy, held: &Held, now: Moment) {
    let deliver = Deliver {
        position: held.position,
        id: held.id,
        user: &held.user,
        device: held.device,
        time: START.0,
        message: &held.message,
    };
    toy.engine.handle_deliver(&deliver, now).unwrap();
}

/// What an entry of the outbox is sent as.
fn outgoing(toy: &Toy, entry: u64) -> Sent {
    let outgoing = toy.engine.outgoing(entry).unwrap();
    let owned = |parts: &[sealwire_protocol::frame::Part<'_>]| {
        let parts = parts.iter();
        parts
            .map(|part| (part.device, part.message.to_vec()))
            .collect()
    };
    Sent {
        id: outgoing.id,
        sequence: outgoing.sequence,
        user: outgoing.user.to_owned(),
        parts: owned(&outgoing.parts),
        copies: owned(&outgoing.copies),
    }
}

fn wire(encoded: &[u8]) -> WirePrekey<'_> {
    let (id, rest) = encoded.split_first_chunk().unwrap();
    let (x25519, rest) = rest.split_first_chunk().unwrap();
    let (kem_key, rest) = rest.split_first_chunk().unwrap();
    WirePrekey {
        id: u32::from_be_bytes(*id),
        x25519,
        kem_key,
        signature: rest.try_into().unwrap(),
    }
}

/// Alice and bob, online, with cards at the relay.
fn alice_and_bob() -> (ToyRelay, Toy, Toy) {
    let (mut relay, mut alice, mut bob) = (ToyRelay::default(), Toy::new("alice"), Toy::new("bob"));
    relay.connect(&mut alice);
    relay.connect(&mut bob);
    relay.pump(&mut [&mut alice, &mut bob]);
    (relay, alice, bob)
}

/// The same, after each has written to the other.
fn acquainted() -> (ToyRelay, Toy, Toy) {
    let (mut relay, mut alice, mut bob) = alice_and_bob();
    alice
        .send("bob", "hello")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    bob.send("alice", "hello")
        .receipt_after(&mut relay, &mut [&mut alice, &mut bob]);
    assert_eq!((alice.texts().len(), bob.texts().len()), (1, 1));
    relay.sent.clear();
    (relay, alice, bob)
}

impl Answer {
    fn receipt_after(mut self, relay: &mut ToyRelay, toys: &mut [&mut Toy]) -> Receipt {
        relay.pump(toys);
        self.receipt()
    }
}
