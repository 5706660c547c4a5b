//! A relay whose process is killed with SIGKILL in the middle of sending loses nothing that it accepted, delivers nothing twice under a new
//! number, and keeps the order (docs/protocol.md §5.2); and two processes do not share a data directory. The relay's process is this test binary
//! again, told by environment variables what to be.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sealwire_protocol::frame::ToRelay;
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_server::policy::Allowance;
use sealwire_server::storage::OpenError;
use sealwire_server::{Relay, RelayBuilder, RelayError, Tls};
use support::*;

const DIRECTORY: &str = "SEALWIRE_TEST_CRASH_DIRECTORY";
/// Sends that are open at a time.
const OPEN: usize = 32;

fn builder(directory: &Path) -> RelayBuilder {
    let mut allowance = Allowance::default();
    allowance.messages_per_minute = 1_000_000;
    Issuer::fixed()
        .configure(Relay::builder(directory))
        .tls(Tls::Plain)
        .allowance(allowance)
}

/// Not a test by itself: the process that is killed. It says where it is, and ends by itself when its standard input does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn process_that_is_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let relay = builder(Path::new(&directory))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    // Straight to the pipe: the test harness would keep `println!`.
    writeln!(
        std::io::stderr(),
        "listening {} {}",
        relay.local_addr(),
        relay.thumbprint()
    )
    .unwrap();
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()))
        .await
        .unwrap()
        .unwrap();
}

/// The process above, running; killed when dropped.
struct Running {
    child: Child,
    target: Target,
}

impl Running {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_that_is_killed", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        let target = loop {
            line.clear();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "it ended by itself");
            if let Some((address, thumbprint)) = line
                .strip_prefix("listening ")
                .and_then(|rest| rest.trim_end().split_once(' '))
            {
                break Target {
                    address: address.parse().unwrap(),
                    thumbprint: thumbprint.parse().unwrap(),
                    certificate: None,
                };
            }
        };
        Self { child, target }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // On Unix this is SIGKILL.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a sender remembers: message n is its n-th Send.
#[derive(Default)]
struct Sender {
    accepted: BTreeSet<u64>,
    open: BTreeSet<u64>,
    last: u64,
    /// Of the link that there is now.
    requests: HashMap<u32, u64>,
}

impl Sender {
    /// Begins on a new link: repeats what is open.
    async fn repeat(&mut self, alice: &mut Device, to: Thumbprint) {
        self.requests.clear();
        for number in self.open.clone() {
            self.requests.insert(begin(alice, to, number).await, number);
        }
    }

    /// Sends on until `enough` more are accepted, or the relay is gone.
    async fn run(&mut self, alice: &mut Device, to: Thumbprint, enough: usize) {
        let goal = self.accepted.len().saturating_add(enough);
        while self.accepted.len() < goal {
            while self.open.len() < OPEN {
                self.last += 1;
                self.open.insert(self.last);
                let request = begin(alice, to, self.last).await;
                self.requests.insert(request, self.last);
            }
            match alice.next_or_end().await {
                Some(Said::Accepted(request)) => {
                    let number = self.requests.remove(&request).unwrap();
                    self.open.remove(&number);
                    self.accepted.insert(number);
                }
                None => return,
                Some(other) => panic!("{other:?}"),
            }
        }
    }
}

async fn begin(alice: &mut Device, to: Thumbprint, number: u64) -> u32 {
    let (parts, message) = ([to], number.to_be_bytes().repeat(100));
    alice
        .try_begin(&Post::new(number, 1, "bob", &parts, &message))
        .await
}

/// What a recipient remembers: the last message, and the last position.
#[derive(Default)]
struct Recipient {
    last: u64,
    position: u64,
}

impl Recipient {
    fn take(&mut self, said: Said) {
        let Said::Deliver {
            position, message, ..
        } = said
        else {
            panic!("{said:?}")
        };
        let number = u64::from_be_bytes(message[..8].try_into().unwrap());
        // One that it has already: the relay did not learn of it in time. Else the very next: none is left out, none overtakes.
        assert!(number <= self.last + 1, "{number} came after {}", self.last);
        if number > self.last {
            assert!(position > self.position, "{position:x}");
        }
        self.last = self.last.max(number);
        self.position = self.position.max(position);
    }

    /// Takes and acknowledges until the relay is gone, or everything up to `until` is here.
    async fn run(&mut self, bob: &mut Device, until: u64) {
        while self.last < until
            && let Some(said) = bob.next_or_end().await
        {
            self.take(said);
            bob.try_say(&ToRelay::Ack {
                position: self.position,
            })
            .await;
        }
    }
}

// docs/protocol.md §5.2
#[tokio::test]
async fn what_was_accepted_survives_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer::fixed();
    let (alice_key, bob_key) = (new_key(), new_key());
    let join = async |target: &Target, key: &SigningKey, user: &str| {
        let key = SigningKey::from_seed(&key.seed());
        let token = issuer.token(user, &key);
        Device::connect(target, key, token).await
    };
    let (mut sender, mut recipient) = (Sender::default(), Recipient::default());
    for round in 0..8 {
        let running = Running::start(directory.path());
        let target = running.target.clone();
        let (mut alice, ready) = join(&target, &alice_key, "alice").await;
        let Said::Ready { sent, .. } = ready else {
            panic!()
        };
        assert!(sent <= sender.last);
        let (mut bob, ready) = join(&target, &bob_key, "bob").await;
        let bob_id = bob.id();
        if round == 0 {
            let card = bob.card("bob", 1);
            assert_accepted(&bob.publish_card(&card).await);
        } else {
            assert!(
                mailbox(&ready).1 >= recipient.position,
                "a head below what was given"
            );
        }
        sender.repeat(&mut alice, bob_id).await;
        let enough = 20 + 17 * round;
        if round % 3 == 2 {
            // Nobody acknowledges, so it is the disk that makes them accepted.
            drop(bob);
            within(sender.run(&mut alice, bob_id, enough)).await;
            drop(running);
        } else {
            let sending = async {
                sender.run(&mut alice, bob_id, enough).await;
                // Both are in the middle of it.
                drop(running);
                sender.run(&mut alice, bob_id, usize::MAX).await;
            };
            within(async { tokio::join!(sending, recipient.run(&mut bob, u64::MAX)) }).await;
        }
    }

    let running = Running::start(directory.path());
    let (mut alice, _) = join(&running.target, &alice_key, "alice").await;
    let (mut bob, _) = join(&running.target, &bob_key, "bob").await;
    let (bob_id, open) = (bob.id(), sender.open.len());
    sender.repeat(&mut alice, bob_id).await;
    within(sender.run(&mut alice, bob_id, open)).await;
    let highest = *sender.accepted.last().unwrap();
    within(recipient.run(&mut bob, highest)).await;
    assert!(sender.accepted.len() > 300, "{}", sender.accepted.len());
}

#[tokio::test]
async fn a_data_directory_that_another_process_uses_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(directory.path());
    let refused = builder(directory.path()).bind("127.0.0.1:0").await;
    drop(running);
    assert!(matches!(
        refused,
        Err(RelayError::Store(OpenError::InUse { .. }))
    ));
    builder(directory.path()).bind("127.0.0.1:0").await.unwrap();
}
