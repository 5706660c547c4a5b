//! The relay driven by hand: what no socket shows reliably, because it depends on when the disk is done, or on the time (docs/protocol.md §5.2,
//! §13).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use sealwire_protocol::close::{CloseCode, RefusalCode};
use sealwire_protocol::frame::{List, Part, Send as SendFrame, ToRelay, UndeliveredReason};
use sealwire_protocol::handshake::{Credential, DeviceHello, DeviceTerms};
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::link::DeviceLink;
use sealwire_protocol::name::Issuer as IssuerName;
use sealwire_server::mail::disk::{Disk, LogFile, MemoryDisk};
use sealwire_server::mail::{MailOptions, PostError};
use sealwire_server::policy::Allowance;
use sealwire_server::simulation::{Config, Ended, Link, Now, ROOM, Relay, Transmit};
use serde_json::json;
use support::*;

const KEEP_ALIVE: Duration = Duration::from_secs(30);
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);
const RETENTION_SECONDS: u64 = 3_600;

/// What is wrong with the disks.
#[derive(Debug, Default)]
struct Faults {
    fails: AtomicBool,
    full: AtomicBool,
    unreadable: AtomicBool,
    /// Mail records of so many bytes and more cannot be read.
    unreadable_mail: AtomicUsize,
}

/// Memory that fails once it is told to.
#[derive(Debug)]
struct Failing {
    memory: Arc<dyn Disk>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn LogFile>,
    faults: Arc<Faults>,
}

/// The directory's store, in memory that cannot be read once it is told so.
#[derive(Debug)]
struct FailingStore {
    memory: InMemoryBackend,
    faults: Arc<Faults>,
}

impl StorageBackend for FailingStore {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.faults.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.memory.read(offset, out)
    }
    fn set_len(&self, length: u64) -> io::Result<()> {
        self.memory.set_len(length)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.memory.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

impl Failing {
    fn file(&self, file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        Arc::new(FailingFile {
            file,
            faults: Arc::clone(&self.faults),
        })
    }
}

impl Disk for Failing {
    fn list(&self) -> io::Result<Vec<String>> {
        self.memory.list()
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(self.file(self.memory.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(self.file(self.memory.open(name)?))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.memory.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.memory.sync()
    }
}

impl LogFile for FailingFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
    fn reserve(&self, length: u64) -> io::Result<()> {
        if self.faults.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.reserve(length)
    }
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let least = self.faults.unreadable_mail.load(Ordering::SeqCst);
        if least > 0 && offset > 0 && bytes.len() >= least {
            return Err(io::Error::other("a bad sector"));
        }
        self.file.read_at(offset, bytes)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_at(offset, bytes)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.truncate(length)
    }
    fn sync(&self) -> io::Result<()> {
        if self.faults.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.file.sync()
    }
}

/// A relay whose disk is written when a test says so, and the time.
struct World {
    issuer: Issuer,
    relay: Relay,
    faults: Arc<Faults>,
    now: Now,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut MailOptions)) -> Self {
        Self::changed(change, |_| {})
    }

    fn allowing(change: impl FnOnce(&mut Allowance)) -> Self {
        Self::changed(|_| {}, change)
    }

    fn changed(
        change_mail: impl FnOnce(&mut MailOptions),
        change_allowance: impl FnOnce(&mut Allowance),
    ) -> Self {
        let issuer = Issuer::new();
        let faults = Arc::new(Faults::default());
        let disk = Failing {
            memory: Arc::new(MemoryDisk::new()),
            faults: Arc::clone(&faults),
        };
        let store = FailingStore {
            memory: InMemoryBackend::new(),
            faults: Arc::clone(&faults),
        };
        let mut mail = MailOptions::default();
        mail.identity = Some([7; 32]);
        change_mail(&mut mail);
        let mut allowance = Allowance::default();
        allowance.mailbox.retention_seconds = RETENTION_SECONDS;
        change_allowance(&mut allowance);
        let config = Config {
            relay_key: new_key(),
            issuer: IssuerName::new(ISSUER).unwrap(),
            audience: AUDIENCE.to_owned(),
            issuer_keys: Arc::new(*issuer.public()),
            mail,
            allowance,
            keep_alive: KEEP_ALIVE,
            write_timeout: WRITE_TIMEOUT,
            cache_bytes: 0,
        };
        let relay = Relay::open(store, Arc::new(disk), config).unwrap();
        let world = Self {
            issuer,
            relay,
            faults,
            now: Now {
                millis: now() * 1_000,
                steady_millis: 5_000,
            },
        };
        world.flush_mail();
        world
    }

    fn pass(&mut self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap();
        self.now.millis += millis;
        self.now.steady_millis += millis;
    }

    fn flush_mail(&self) {
        while self.relay.flush_mail() {}
    }

    fn connect(&self, key: SigningKey, user: &str) -> Peer {
        let token = self.issuer.token(user, &key);
        self.connect_with(key, token).unwrap()
    }

    fn connect_with(&self, key: SigningKey, token: String) -> Result<Peer, Ended> {
        let (state, hello) = DeviceHello::start(&mut rand::rng());
        let (handshake, accept) = self
            .relay
            .accept(&hello, &mut rand::rng(), self.now)
            .unwrap();
        let relays = [self.relay.thumbprint()];
        let terms = DeviceTerms {
            relays: &relays,
            key: &key,
            credential: Credential::Token(token.as_bytes()),
            now: self.now.seconds(),
        };
        let (device, finish) = state.on_accept(&accept, &terms).unwrap();
        let link = handshake.finish(finish, self.now).now_or_never().unwrap()?;
        let mut peer = Peer {
            key,
            token,
            device,
            link,
            said: VecDeque::new(),
            requests: 0,
        };
        peer.drain(self.now)?;
        assert!(matches!(peer.said.pop_front(), Some(Said::Ready { .. })));
        Ok(peer)
    }

    /// Removes a device that there is.
    fn remove(&self, device: &Thumbprint) {
        let mut removing = Box::pin(self.relay.remove_device(device, self.now).fuse());
        assert_eq!((&mut removing).now_or_never(), None);
        self.relay.flush_directory();
        assert_eq!(removing.now_or_never(), Some(Ok(true)));
    }

    /// A device that can be written to.
    fn join(&self, user: &str) -> Peer {
        let mut peer = self.connect(new_key(), user);
        let card = card(&peer.key, &peer.key, 1, &peer.token);
        peer.say(
            &ToRelay::PublishCard {
                request: 1_000,
                card: card.as_bytes(),
            },
            self.now,
        )
        .unwrap();
        self.relay.flush_directory();
        assert_eq!(peer.hear(self.now), Some(Said::Accepted(1_000)));
        peer
    }
}

/// A device and its link.
struct Peer {
    key: SigningKey,
    token: String,
    device: DeviceLink,
    link: Link,
    said: VecDeque<Said>,
    requests: u32,
}

impl Peer {
    fn id(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    /// Gives the relay a frame.
    fn say(&mut self, frame: &ToRelay<'_>, now: Now) -> Result<(), Ended> {
        let mut record = self.device.seal_frame(frame).unwrap();
        self.link.handle_record(&mut record, now)
    }

    fn send(&mut self, sequence: u64, to: Thumbprint, message: &[u8], now: Now) -> u32 {
        self.try_send(sequence, to, message, now).unwrap()
    }

    fn try_send(
        &mut self,
        sequence: u64,
        to: Thumbprint,
        message: &[u8],
        now: Now,
    ) -> Result<u32, Ended> {
        self.requests += 1;
        let request = self.requests;
        let parts = [Part {
            device: to,
            message,
        }];
        let send = SendFrame {
            request,
            sequence,
            id: [1; 16],
            user: "bob",
            whole: true,
            parts: List::from(parts.as_slice()),
            copies: List::empty(),
        };
        self.say(&ToRelay::Send(send), now)?;
        Ok(request)
    }

    /// Does what a driver does until there is nothing more to do; what the relay says is kept.
    fn drain(&mut self, now: Now) -> Result<(), Ended> {
        let mut context = Context::from_waker(Waker::noop());
        loop {
            let mut busy = self.link.handle_news()?;
            if let std::task::Poll::Ready(finished) = self.link.poll_finished(now, &mut context) {
                finished?;
                busy = true;
            }
            while let Some(transmit) = self.link.poll_transmit(ROOM, now)? {
                busy = true;
                if let Transmit::Record(mut record) = transmit {
                    let frames = self.device.handle_message(&mut record).unwrap();
                    self.said.extend(frames.map(Said::from));
                }
            }
            self.link.handle_flushed();
            if !busy {
                return Ok(());
            }
        }
    }

    /// The next thing that the relay says, if it says anything now.
    fn hear(&mut self, now: Now) -> Option<Said> {
        self.drain(now).unwrap();
        self.said.pop_front()
    }

    fn hear_message(&mut self, now: Now) -> Option<(u64, Vec<u8>)> {
        match self.hear(now)? {
            Said::Deliver {
                position, message, ..
            } => Some((position, message)),
            other => panic!("{other:?}"),
        }
    }
}

fn is_internal(ended: &Ended) -> bool {
    ended.code == Some(CloseCode::Internal)
}

// docs/protocol.md §5.2: durable, or acknowledged, whichever is first
#[test]
fn message_is_accepted_once_its_recipient_acknowledges_though_the_disk_has_done_nothing() {
    let world = World::new();
    let (mut alice, mut bob) = (world.join("alice"), world.join("bob"));
    let request = alice.send(1, bob.id(), b"online", world.now);
    assert_eq!(alice.hear(world.now), None);
    let (position, message) = bob.hear_message(world.now).unwrap();
    assert_eq!(message, b"online");
    assert_eq!(alice.hear(world.now), None, "delivered is not acknowledged");
    bob.say(&ToRelay::Ack { position }, world.now).unwrap();
    assert_eq!(alice.hear(world.now), Some(Said::Accepted(request)));
}

#[test]
fn message_is_accepted_once_it_is_durable_though_its_recipient_is_away() {
    let world = World::new();
    let (mut alice, bob) = (world.join("alice"), world.join("bob"));
    let bob_id = bob.id();
    drop(bob);
    let request = alice.send(1, bob_id, b"kept", world.now);
    assert_eq!(alice.hear(world.now), None);
    world.flush_mail();
    assert_eq!(alice.hear(world.now), Some(Said::Accepted(request)));
}

// docs/protocol.md §5.2: a repetition of one that is not safe yet is no safer
#[test]
fn repetition_is_accepted_no_sooner_than_what_it_repeats() {
    let world = World::new();
    let (mut alice, mut bob) = (world.join("alice"), world.join("bob"));
    let first = alice.send(1, bob.id(), b"once", world.now);
    let again = alice.send(1, bob.id(), b"once", world.now);
    assert_eq!(alice.hear(world.now), None);
    world.flush_mail();
    assert_eq!(alice.hear(world.now), Some(Said::Accepted(first)));
    assert_eq!(alice.hear(world.now), Some(Said::Accepted(again)));
    assert!(bob.hear_message(world.now).is_some());
    assert_eq!(bob.hear_message(world.now), None);
}

// docs/protocol.md §5.2: where the store fails the link is closed, and nothing is refused
#[test]
fn failed_sync_closes_the_links_of_those_who_wait_and_refuses_nothing() {
    let world = World::new();
    let (mut alice, mut carol) = (world.join("alice"), world.join("carol"));
    let mut bob = world.join("bob");
    alice.send(1, bob.id(), b"unknown", world.now);
    assert!(bob.hear_message(world.now).is_some());
    world.faults.fails.store(true, Ordering::SeqCst);
    world.flush_mail();
    assert!(is_internal(&alice.drain(world.now).unwrap_err()));
    assert!(alice.said.is_empty(), "{:?}", alice.said);
    // Who sends from now on, and who connects again and repeats.
    let ended = carol
        .try_send(1, bob.id(), b"later", world.now)
        .unwrap_err();
    assert!(is_internal(&ended));
    let mut alice = world.connect(alice.key, "alice");
    let ended = alice.try_send(1, bob.id(), b"unknown", world.now);
    let ended = ended.and_then(|_| alice.drain(world.now));
    assert!(is_internal(&ended.unwrap_err()));
    assert!(!world.relay.is_writable());
    // A link that waits for nothing goes on.
    assert_eq!(bob.hear(world.now), None);
}

// docs/protocol.md §5.2: what is safe stays safe
#[test]
fn failed_sync_takes_back_nothing_that_was_acknowledged() {
    let world = World::new();
    let (mut alice, mut bob) = (world.join("alice"), world.join("bob"));
    let request = alice.send(1, bob.id(), b"seen", world.now);
    let (position, _) = bob.hear_message(world.now).unwrap();
    bob.say(&ToRelay::Ack { position }, world.now).unwrap();
    world.faults.fails.store(true, Ordering::SeqCst);
    world.flush_mail();
    assert_eq!(alice.hear(world.now), Some(Said::Accepted(request)));
}

// docs/protocol.md §5.2: order, while there is no room
#[test]
fn sends_that_find_no_room_wait_in_their_order_and_nothing_is_read_meanwhile() {
    let world = World::with(|mail| mail.queue_bytes = 64 << 10);
    let (mut alice, mut bob) = (world.join("alice"), world.join("bob"));
    let bob_id = bob.id();
    let message = |number: u8| vec![number; 20_000];
    let requests: Vec<_> = (1..=8)
        .map(|number| alice.send(number.into(), bob_id, &message(number), world.now))
        .collect();
    assert!(!alice.link.takes_records());
    // What was taken is delivered at once; nobody acknowledges it.
    let mut next = 1;
    for _ in 0..100 {
        while let Some((_, delivered)) = bob.hear_message(world.now) {
            assert_eq!(delivered, message(next));
            next += 1;
        }
        alice.drain(world.now).unwrap();
        world.flush_mail();
    }
    assert_eq!(next, 9);
    let accepted: Vec<_> = alice.said.drain(..).collect();
    let expected: Vec<_> = requests.into_iter().map(Said::Accepted).collect();
    assert_eq!(accepted, expected);
    assert!(alice.link.takes_records());
}

// docs/protocol.md §5.2: the devices are looked at when there is room, not before
#[test]
fn device_that_is_removed_while_a_send_waits_gets_nothing() {
    let world = World::with(|mail| mail.queue_bytes = 64 << 10);
    let (mut alice, bob) = (world.join("alice"), world.join("bob"));
    let bob_id = bob.id();
    for number in 1..=8 {
        alice.send(number, bob_id, &[0; 20_000], world.now);
    }
    let mut removing = Box::pin(world.relay.remove_device(&bob_id, world.now).fuse());
    assert_eq!((&mut removing).now_or_never(), None);
    world.relay.flush_directory();
    for _ in 0..100 {
        let _ = (&mut removing).now_or_never();
        world.flush_mail();
        while world.relay.sweep(world.now).unwrap().more {}
        alice.drain(world.now).unwrap();
    }
    let (mut accepted, mut refused, mut undelivered) = (0, 0, 0);
    for said in alice.said.drain(..) {
        match said {
            Said::Accepted(_) => accepted += 1,
            Said::Refused(_, RefusalCode::UnknownUser) => refused += 1,
            Said::Undelivered { reason, device, .. } => {
                assert_eq!((reason, device), (UndeliveredReason::DeviceRemoved, bob_id));
                undelivered += 1;
            }
            Said::DeviceChanged(user) => assert_eq!(user, "bob"),
            other => panic!("{other:?}"),
        }
    }
    // Of every message its sender knows what became of it.
    assert_eq!(accepted + refused, 8);
    assert_eq!(undelivered, accepted);
    assert!(accepted > 0 && refused > 0);
}

// docs/protocol.md §5.2, Undelivered
#[test]
fn sender_is_told_what_expired() {
    let mut world = World::new();
    let (mut alice, bob) = (world.join("alice"), world.join("bob"));
    let bob_id = bob.id();
    drop(bob);
    alice.send(1, bob_id, b"too late", world.now);
    world.flush_mail();
    assert!(matches!(alice.hear(world.now), Some(Said::Accepted(_))));
    world.pass(Duration::from_secs(RETENTION_SECONDS) - Duration::from_millis(1));
    while world.relay.sweep(world.now).unwrap().more {}
    assert_eq!(alice.hear(world.now), None);
    world.pass(Duration::from_millis(1));
    while world.relay.sweep(world.now).unwrap().more {}
    assert_eq!(
        alice.hear(world.now),
        Some(Said::Undelivered {
            position: FIRST_START + 1,
            id: [1; 16],
            user: "bob".into(),
            device: bob_id,
            reason: UndeliveredReason::Expired,
        })
    );
    assert_eq!(alice.hear(world.now), None);
}

// docs/protocol.md §13: 4003 after twice the period
#[test]
fn half_open_link_is_found_after_two_periods_and_pinged_after_one() {
    let mut world = World::new();
    let mut alice = world.join("alice");
    let start = world.now.steady_millis;
    let period = 30_000;
    assert_eq!(alice.link.deadline(world.now), start + period);
    world.pass(KEEP_ALIVE);
    alice.link.handle_timeout(world.now).unwrap();
    let transmit = alice.link.poll_transmit(ROOM, world.now).unwrap();
    assert!(matches!(transmit, Some(Transmit::Ping)));
    alice.link.handle_flushed();
    assert_eq!(alice.link.deadline(world.now), start + 2 * period);
    world.pass(KEEP_ALIVE);
    let ended = alice.link.handle_timeout(world.now).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::Timeout));
}

// docs/protocol.md §13: 4001
#[test]
fn device_that_does_not_read_is_too_slow_after_the_write_timeout() {
    let mut world = World::new();
    let mut alice = world.join("alice");
    let fetch = ToRelay::FetchCards {
        request: 9,
        user: "nobody",
        take: false,
    };
    alice.say(&fetch, world.now).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let _ = alice.link.poll_finished(world.now, &mut context);
    assert!(alice.link.poll_transmit(ROOM, world.now).unwrap().is_some());
    world.pass(WRITE_TIMEOUT);
    let ended = alice.link.handle_timeout(world.now).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::TooSlow));
}

// docs/protocol.md §5.4: the time of day may be set; what is measured goes by the other clock
#[test]
fn clock_that_jumps_ends_a_token_but_makes_nobody_silent() {
    let mut world = World::new();
    let mut alice = world.join("alice");
    world.now.millis -= 1_000_000;
    alice.link.handle_timeout(world.now).unwrap();
    world.now.millis += 1_000_000 + 3_600_000;
    alice.link.handle_timeout(world.now).unwrap();
    world.now.millis += 60_000;
    let ended = alice.link.handle_timeout(world.now).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::TokenExpired));
}

// docs/protocol.md §5.4: 60 seconds before, once of each token
#[test]
fn device_is_told_once_that_its_token_expires() {
    let mut world = World::new();
    let mut alice = world.connect(new_key(), "alice");
    let end = world.now.seconds() + 3_600;
    let seconds = Duration::from_secs;
    world.pass(seconds(3_539));
    alice.link.handle_timeout(world.now).unwrap();
    assert_eq!(alice.hear(world.now), None);
    assert!(
        alice.link.deadline(world.now) <= world.now.steady_millis + 1_000,
        "it is looked at in time"
    );
    world.pass(seconds(1));
    alice.link.handle_timeout(world.now).unwrap();
    assert_eq!(alice.hear(world.now), Some(Said::Expiring(end)));
    for _ in 0..100 {
        world.pass(seconds(1));
        alice.link.handle_pong(world.now).unwrap();
        alice.link.handle_timeout(world.now).unwrap();
        assert_eq!(alice.hear(world.now), None);
        assert!(alice.link.deadline(world.now) > world.now.steady_millis);
    }
    // The next one has 30 seconds left, the one after it an hour.
    for (request, left) in [(1, 30), (2, 3_600)] {
        let end = world.now.seconds() + left;
        let claims = json!({ "iat": now(), "exp": end });
        let token = world.issuer.token_with("alice", &alice.key, &claims);
        let proof = alice
            .device
            .refresh_proof(&alice.key, token.as_bytes(), world.now.seconds());
        let refresh = ToRelay::Refresh {
            request,
            proof: proof.as_bytes(),
            token: token.as_bytes(),
        };
        alice.say(&refresh, world.now).unwrap();
        assert_eq!(alice.hear(world.now), Some(Said::Accepted(request)));
        let told = (left == 30).then_some(Said::Expiring(end));
        assert_eq!(alice.hear(world.now), told);
        alice.link.handle_timeout(world.now).unwrap();
        assert_eq!(alice.hear(world.now), None);
    }
}

// docs/protocol.md §5.4
#[test]
fn device_whose_token_is_nearly_over_is_told_right_after_ready() {
    let world = World::new();
    let key = new_key();
    let end = world.now.seconds() + 60;
    let claims = json!({ "iat": now() - 600, "exp": end });
    let token = world.issuer.token_with("alice", &key, &claims);
    let mut alice = world.connect_with(key, token).unwrap();
    assert_eq!(alice.hear(world.now), Some(Said::Expiring(end)));
    assert_eq!(alice.hear(world.now), None);
}

// docs/protocol.md §5.4: or it would be told of a token that has just come, and of the next
#[test]
fn device_is_told_of_a_short_token_when_a_quarter_of_it_is_left() {
    let mut world = World::new();
    let key = new_key();
    let end = world.now.seconds() + 40;
    let claims = json!({ "iat": world.now.seconds(), "exp": end });
    let token = world.issuer.token_with("alice", &key, &claims);
    let mut alice = world.connect_with(key, token).unwrap();
    for (seconds, told) in [(29, None), (1, Some(Said::Expiring(end))), (1, None)] {
        world.pass(Duration::from_secs(seconds));
        alice.link.handle_timeout(world.now).unwrap();
        assert_eq!(alice.hear(world.now), told, "after {seconds} s more");
    }
}

// docs/protocol.md §5.5: who sends too fast is read later
#[test]
fn silence_of_a_device_that_is_not_read_is_not_its_own() {
    let mut world = World::allowing(|allowance| allowance.bytes_per_minute = 6);
    let mut alice = world.connect(new_key(), "alice");
    let blob = [7; 32];
    let discard = ToRelay::Discard { request: 1, blob };
    alice.say(&discard, world.now).unwrap();
    let mut seconds = 0;
    while !alice.link.takes_records() {
        world.pass(Duration::from_secs(1));
        seconds += 1;
        alice.link.handle_timeout(world.now).unwrap();
        alice.drain(world.now).unwrap();
    }
    let silence = KEEP_ALIVE + WRITE_TIMEOUT;
    assert!(Duration::from_secs(seconds) > 2 * silence, "{seconds} s");
    // From now on it is.
    world.pass(KEEP_ALIVE);
    alice.link.handle_timeout(world.now).unwrap();
    world.pass(KEEP_ALIVE);
    assert!(alice.link.handle_timeout(world.now).is_err());
}

// docs/protocol.md §5.2: Leaving
#[test]
fn drained_link_answers_what_it_has_taken_and_then_leaves() {
    let world = World::new();
    let (mut alice, mut bob) = (world.join("alice"), world.join("bob"));
    let request = alice.send(1, bob.id(), b"taken", world.now);
    world.relay.drain(world.now);
    alice.drain(world.now).unwrap();
    assert!(
        alice.link.takes_records(),
        "it has been told, and it is not its turn"
    );
    assert!(alice.link.deadline(world.now) <= world.now.steady_millis);
    alice.link.handle_timeout(world.now).unwrap();
    assert_eq!(alice.hear(world.now), Some(Said::Leaving(1_000)));
    assert!(!alice.link.has_left() && !alice.link.takes_records());
    world.flush_mail();
    assert_eq!(alice.hear(world.now), Some(Said::Accepted(request)));
    assert!(alice.link.has_left());

    // Mail that was not given before is for the next relay to give.
    bob.link.handle_timeout(world.now).unwrap();
    assert!(!bob.link.has_left());
    assert!(bob.link.handle_news().unwrap());
    bob.link.handle_timeout(world.now).unwrap();
    assert_eq!(bob.hear(world.now), Some(Said::Leaving(1_000)));
    assert_eq!(bob.hear(world.now), None);
    assert!(bob.link.has_left());
}

#[test]
fn link_that_opens_while_the_relay_is_drained_leaves_as_well() {
    let world = World::new();
    world.relay.drain(world.now);
    let mut late = world.connect(new_key(), "late");
    late.link.handle_timeout(world.now).unwrap();
    assert_eq!(late.hear(world.now), Some(Said::Leaving(1_000)));
    assert!(late.link.has_left());
}

#[test]
fn older_link_hears_that_it_is_replaced() {
    let world = World::new();
    let mut older = world.join("alice");
    let key = SigningKey::from_seed(&older.key.seed());
    let mut newer = world.connect(key, "alice");
    let ended = older.drain(world.now).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::Replaced));
    drop(older);
    assert_eq!(newer.hear(world.now), None);
}

// docs/protocol.md §3.8: the newer link's token was looked at before the older one's card was there
#[test]
fn a_link_whose_device_turns_out_to_be_anothers_ends() {
    let world = World::new();
    let mut alices = world.connect(new_key(), "alice");
    let card = card(&alices.key, &alices.key, 1, &alices.token);
    let publish = ToRelay::PublishCard {
        request: 1,
        card: card.as_bytes(),
    };
    alices.say(&publish, world.now).unwrap();
    let key = SigningKey::from_seed(&alices.key.seed());
    let mut mallorys = world.connect(key, "mallory");
    let ended = alices.drain(world.now).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::Replaced));
    let mut closing = Box::pin(alices.link.close());
    assert_eq!((&mut closing).now_or_never(), None);
    world.relay.flush_directory();
    assert_eq!(closing.now_or_never(), Some(()));
    let ended = mallorys.drain(world.now).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::NotAuthorised));
}

// docs/protocol.md §5.2: what the newer link is refused is not sent by the older one after all
#[test]
fn a_link_that_was_replaced_posts_nothing_more() {
    let world = World::with(|mail| mail.queue_bytes = 64 << 10);
    let (mut older, mut bob) = (world.join("alice"), world.join("bob"));
    let bob_id = bob.id();
    for sequence in 1..=8 {
        older.send(sequence, bob_id, &[0; 20_000], world.now);
    }
    let key = SigningKey::from_seed(&older.key.seed());
    let to_others = serde_json::json!({ "to": ["carol"] });
    let token = world.issuer.token_limited("alice", &key, &to_others);
    let mut newer = world.connect_with(key, token).unwrap();
    let request = newer.send(8, bob_id, b"again", world.now);
    let refused = Said::Refused(request, RefusalCode::NotPermitted);
    assert_eq!(newer.hear(world.now), Some(refused));
    world.flush_mail();
    // It has not heard of it, and finds that there is room.
    let mut context = Context::from_waker(Waker::noop());
    let ended = match older.link.poll_finished(world.now, &mut context) {
        std::task::Poll::Ready(ended) => ended.unwrap_err(),
        std::task::Poll::Pending => panic!("nothing waits"),
    };
    assert_eq!(ended.code, Some(CloseCode::Replaced));
    let ended = older.try_send(9, bob_id, b"more", world.now).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::Replaced));
    drop(older);
    let mut delivered = 0;
    while bob.hear_message(world.now).is_some() {
        delivered += 1;
        world.flush_mail();
    }
    assert!((1..8).contains(&delivered), "{delivered}");
}

// docs/protocol.md §5.1, RemoveDevice: whoever issued the token
#[test]
fn a_removed_device_with_a_good_token_of_another_issuer_gets_no_mail() {
    let world = World::new();
    let (mut alice, bob) = (world.join("alice"), world.join("bob"));
    let bob_id = bob.id();
    alice.send(1, bob_id, b"secret", world.now);
    world.flush_mail();
    let Peer {
        key, token, link, ..
    } = bob;
    drop(link);
    world.remove(&bob_id);
    let ended = world.connect_with(key, token).map(drop).unwrap_err();
    assert_eq!(ended.code, Some(CloseCode::Revoked));
}

// docs/protocol.md §5.1, RemoveDevice; §5.2, Undelivered
#[test]
fn a_removal_on_a_full_disk_is_finished_by_a_later_sweep() {
    let world = World::with(|mail| mail.segment_bytes = 4 << 20);
    let (mut alice, mut carol) = (world.join("alice"), world.join("carol"));
    let bob_id = world.join("bob").id();
    alice.send(1, bob_id, b"given back", world.now);
    carol.send(1, bob_id, b"kept", world.now);
    world.flush_mail();
    assert_eq!(alice.hear(world.now), Some(Said::Accepted(1)));
    world.faults.full.store(true, Ordering::SeqCst);
    let mailboxes = world.relay.mailboxes();
    loop {
        match mailboxes.remove(&carol.id(), world.now.millis) {
            Ok(_) => {}
            Err(PostError::Busy) => world.flush_mail(),
            Err(error) => {
                assert_eq!(error, PostError::DiskFull);
                break;
            }
        }
    }
    world.remove(&bob_id);
    assert_eq!(
        alice.hear(world.now),
        Some(Said::DeviceChanged("bob".into()))
    );
    while world.relay.sweep(world.now).unwrap().more {}
    world.flush_mail();
    assert_eq!(alice.hear(world.now), None);
    assert_eq!(mailboxes.status(&bob_id).waiting, 2);
    world.faults.full.store(false, Ordering::SeqCst);
    // The first asks for room, the second has it.
    for _ in 0..2 {
        while world.relay.sweep(world.now).unwrap().more {}
        world.flush_mail();
    }
    assert!(matches!(
        alice.hear(world.now),
        Some(Said::Undelivered {
            reason: UndeliveredReason::DeviceRemoved,
            ..
        })
    ));
    assert_eq!(mailboxes.status(&bob_id).waiting, 0);
}

// docs/protocol.md §5.2: where a store fails the link is closed, and nothing is refused
#[test]
fn a_send_whose_recipients_cannot_be_read_closes_the_link() {
    let world = World::new();
    let mut alice = world.join("alice");
    world.faults.unreadable.store(true, Ordering::SeqCst);
    // A user whose devices the relay does not happen to have in memory.
    let ended = alice
        .try_send(1, new_key().thumbprint(), b"unknown", world.now)
        .unwrap_err();
    assert!(is_internal(&ended));
    assert!(alice.said.is_empty(), "{:?}", alice.said);
}

// docs/protocol.md §5.2, Damaged
#[test]
fn mail_that_cannot_be_read_closes_the_link_until_it_is_taken_for_lost() {
    let mut world = World::with(|mail| mail.recent_bytes = 0);
    let (mut alice, bob) = (world.join("alice"), world.join("bob"));
    let (id, key, token) = (bob.id(), bob.key, bob.token);
    alice.send(1, id, &[1; 5_000], world.now);
    alice.send(2, id, b"short", world.now);
    world.flush_mail();
    world.faults.unreadable_mail.store(5_000, Ordering::SeqCst);
    let key = || SigningKey::from_seed(&key.seed());
    for _ in 0..3 {
        let ended = world.connect_with(key(), token.clone()).err().unwrap();
        assert!(is_internal(&ended));
        world.flush_mail();
        world.pass(Duration::from_secs(200));
    }
    let mut bob = world.connect_with(key(), token.clone()).unwrap();
    let Some(Said::Damaged(position)) = bob.hear(world.now) else {
        panic!("{:?}", bob.said);
    };
    let (next, message) = bob.hear_message(world.now).unwrap();
    assert_eq!((next, &*message), (position + 1, b"short".as_slice()));
}

// A clock that somebody sets must not refuse anybody anything
#[test]
fn a_clock_that_went_ahead_and_back_refuses_nobody() {
    let mut world = World::new();
    let mut alice = world.join("alice");
    let fetch = |alice: &mut Peer, now| {
        let frame = ToRelay::FetchCards {
            request: 1,
            user: "nobody",
            take: false,
        };
        alice.say(&frame, now).unwrap();
        alice.hear(now).unwrap()
    };
    let (served, refused) = (
        Said::Refused(1, RefusalCode::UnknownUser),
        Said::Refused(1, RefusalCode::RateLimited),
    );
    world.now.millis += 365 * 86_400_000;
    assert_eq!(fetch(&mut alice, world.now), served);
    world.now.millis -= 365 * 86_400_000;
    while fetch(&mut alice, world.now) == served {}
    assert_eq!(fetch(&mut alice, world.now), refused);
    world.pass(Duration::from_secs(60));
    for _ in 0..60 {
        assert_eq!(fetch(&mut alice, world.now), served);
    }
}
