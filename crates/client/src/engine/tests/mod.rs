//! Engines of several devices, and a toy relay between them, in virtual time.

mod receiving;
mod sending;
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

    fn send(&mut self, user: &str, text: &str) -> Answer {
        let (answer, reply) = oneshot::channel();
        self.engine
            .send(user, &Message::text(text), answer, START)
            .unwrap();
        Answer(reply)
    }

    /// Takes all events.
    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some((number, event)) = self.engine.first_event().cloned() {
            self.engine.event_taken(number).unwrap();
            events.push(event);
        }
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
    )
}

/// Puts as many messages into a store's inbox as there may be before nothing is read any more, and more.
pub(crate) fn fill_inbox(store: &SharedStore) {
    let options = Options {
        delivery_receipts: true,
        only_verified: false,
    };
    let mut engine = open(store, options).unwrap();
    let mut txn = Txn::default();
    for n in 0..1_030_u128 {
        let event = Event::Undecryptable {
            id: crate::message::MessageId(n.to_be_bytes()),
            user: "bob".into(),
            device: engine.keys.thumbprint(),
        };
        engine.push_event(&mut txn, event).unwrap();
    }
    engine.commit(txn).unwrap();
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

/// What was sent: id, user, parts.
type Sent = ([u8; 16], String, Vec<(Thumbprint, Vec<u8>)>);

/// A relay that does what it is told, and what it should not, if a test asks for it.
#[derive(Default)]
struct ToyRelay {
    users: BTreeMap<String, Vec<Registered>>,
    mailboxes: BTreeMap<Thumbprint, Vec<Held>>,
    accepted: BTreeSet<(Thumbprint, [u8; 16], Thumbprint)>,
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
            acknowledged: 0,
            head: self.next_position,
            sent: 0,
            waiting: 0,
        };
        toy.engine.handle_ready(&ready).unwrap();
    }

    /// Lets the devices talk until nothing moves any more.
    fn pump(&mut self, toys: &mut [&mut Toy]) {
        for _ in 0..100 {
            let mut moved = false;
            for toy in toys.iter_mut() {
                while let Some(request) = toy.engine.poll_request(self.now()).unwrap() {
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
            Request::PublishPrekeys { request, prekeys } => {
                self.register(toy)
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
        let outgoing = toy.engine.outgoing(entry).unwrap();
        let (id, user) = (outgoing.id, outgoing.user.to_owned());
        let parts: Vec<_> = outgoing
            .parts
            .iter()
            .map(|part| (part.device, part.message.to_vec()))
            .collect();
        self.sent.push((id, user.clone(), parts.clone()));
        if let Some(code) = self.refuse_sends {
            return self.reply(toy, request, &Reply::Refused(code));
        }
        let expected: BTreeSet<_> = self.users[&user]
            .iter()
            .map(|found| found.device)
            .filter(|device| *device != toy.device())
            .collect();
        if parts
            .iter()
            .map(|(device, _)| *device)
            .collect::<BTreeSet<_>>()
            != expected
        {
            return self.reply(toy, request, &Reply::Refused(RefusalCode::DevicesChanged));
        }
        for (device, message) in parts {
            // §5.2: idempotent by sending device, id and recipient.
            if self.accepted.insert((toy.device(), id, device)) {
                self.next_position += 1;
                let held = Held {
                    position: self.next_position,
                    id,
                    user: toy.user.to_owned(),
                    device: toy.device(),
                    message,
                };
                self.mailboxes.entry(device).or_default().push(held);
            }
        }
        self.reply(toy, request, &Reply::Accepted);
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
