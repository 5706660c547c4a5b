//! The mail log beside its floor: the same bytes appended to a bare file and synced, with the same group commit.
//!
//! `cargo bench -p sealwire-server --bench mail` prints, for batches of 128 messages of 1 KiB: the floor, the log, and the ratio; what one message costs
//! when its recipient acknowledges it at once; and how fast a mailbox of 100,000 messages is opened and read. The two sides take turns, so that what
//! else the machine does meets both. The log's thread syncs whatever has gathered, so it may need fewer syncs than the floor; with
//! `--features simulation` it is also measured with exactly as many.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a measurement that goes wrong ends"
)]
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sealwire_server::mail::disk::{DirectoryDisk, MemoryDisk};
use sealwire_server::mail::{Accepted, MailOptions, MailboxLimits, Mailboxes, PostError, Posting};

const BATCH: usize = 128;
const MESSAGE_BYTES: usize = 1_024;
const BATCHES: usize = 200;
const ROUNDS: usize = 5;
const NOW: u64 = 1_800_000_000_000;
const PLENTY: MailboxLimits = MailboxLimits {
    messages: u64::MAX,
    bytes: u64::MAX,
    retention_seconds: 3_600,
};
const RECIPIENTS: u64 = 64;

fn main() {
    // Given by `cargo test --benches`, which only asks whether it runs.
    let quick = !std::env::args().any(|argument| argument == "--bench");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let dir = tempfile::tempdir_in(target_dir()).expect("a directory");
    let (rounds, batches) = if quick { (1, 2) } else { (ROUNDS, BATCHES) };

    let mut floor = Vec::new();
    let mut ours = Vec::new();
    for round in 0..rounds {
        floor.push(append_and_sync(&dir.path().join("floor"), batches));
        let path = dir.path().join(format!("mail{round}"));
        ours.push(runtime.block_on(group_commit(&path, batches)));
        std::fs::remove_dir_all(path).unwrap();
    }
    let messages = BATCH * batches;
    let (floor, ours) = (median(floor), median(ours));
    println!("batches of {BATCH} × {MESSAGE_BYTES} bytes, {rounds} rounds, the median:");
    report("  floor: append and fdatasync", messages, floor);
    report("  mail log", messages, ours);
    println!(
        "  ratio                         {:>10.2}",
        floor.as_secs_f64() / ours.as_secs_f64()
    );

    #[cfg(feature = "simulation")]
    {
        let path = dir.path().join("stepped");
        let taken = median((0..rounds).map(|_| stepped(&path, batches)).collect());
        report("  mail log, exactly as many syncs", messages, taken);
        println!(
            "  ratio                         {:>10.2}",
            floor.as_secs_f64() / taken.as_secs_f64()
        );
    }

    let count = if quick { 1_000 } else { 300_000 };
    report("online: append, read, acknowledge", count, online(count));
    for devices in if quick {
        vec![1_000]
    } else {
        vec![1_000, 1_000_000]
    } {
        let taken = online_among(count, devices);
        report(&format!("  among {devices} mailboxes"), count, taken);
    }
    recovery(
        &dir.path().join("recovery"),
        if quick { 1_000 } else { 100_000 },
    );
}

fn target_dir() -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).to_owned()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn report(what: &str, messages: usize, taken: Duration) {
    let rate = messages as f64 / taken.as_secs_f64();
    let each = taken.as_secs_f64() / messages as f64 * 1e6;
    println!("{what:<40} {rate:>10.0} messages/s {each:>8.2} µs each");
}

/// The messages of a batch and nothing else.
fn append_and_sync(path: &Path, batches: usize) -> Duration {
    let mut file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(path)
        .expect("a file");
    let batch = vec![0x5a; BATCH * MESSAGE_BYTES];
    let begun = Instant::now();
    for _ in 0..batches {
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
    }
    let taken = begun.elapsed();
    std::fs::remove_file(path).unwrap();
    taken
}

fn device(number: u64) -> Thumbprint {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    Thumbprint::from_bytes(id)
}

struct Sender {
    user: User,
    peer: User,
    sequence: u64,
    message: Bytes,
}

impl Sender {
    fn new() -> Self {
        Self {
            user: User::new("alice").unwrap(),
            peer: User::new("bob").unwrap(),
            sequence: 0,
            message: Bytes::from(vec![0x5a; MESSAGE_BYTES]),
        }
    }

    fn posting(&mut self, to: u64) -> Posting<'_> {
        self.sequence += 1;
        Posting {
            from_user: &self.user,
            from_device: device(u64::MAX),
            sequence: self.sequence,
            id: u128::from(self.sequence).to_be_bytes(),
            to_user: &self.peer,
            parts: vec![(device(to), self.message.clone())],
            copies: Vec::new(),
        }
    }

    async fn send(&mut self, mailboxes: &Mailboxes, to: u64) -> Accepted {
        loop {
            match mailboxes.append(self.posting(to), PLENTY, NOW) {
                Ok(appended) => return appended.accepted(),
                Err(PostError::Busy) => {
                    self.sequence -= 1;
                    mailboxes.room().await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn open(path: &Path) -> Mailboxes {
    let disk = Arc::new(DirectoryDisk::open(path).unwrap());
    Mailboxes::open(disk, &MailOptions::default()).unwrap()
}

/// Two batches are under way, as with senders that do not wait for each other: one is being synced while the next gathers.
async fn group_commit(path: &Path, batches: usize) -> Duration {
    let mailboxes = open(path);
    let mut sender = Sender::new();
    let begun = Instant::now();
    let mut before = Vec::new();
    for _ in 0..batches {
        let mut batch = Vec::with_capacity(BATCH);
        for number in 0..BATCH as u64 {
            batch.push(sender.send(&mailboxes, number % RECIPIENTS).await);
        }
        for accepted in std::mem::replace(&mut before, batch) {
            accepted.await.unwrap();
        }
    }
    for accepted in before {
        accepted.await.unwrap();
    }
    begun.elapsed()
}

/// Without the thread: one write and one sync for each batch, no more and no less.
#[cfg(feature = "simulation")]
fn stepped(path: &Path, batches: usize) -> Duration {
    let disk = Arc::new(DirectoryDisk::open(path).unwrap());
    let mailboxes = Mailboxes::open_stepped(disk, &MailOptions::default()).unwrap();
    let mut sender = Sender::new();
    let begun = Instant::now();
    for _ in 0..batches {
        for number in 0..BATCH as u64 {
            let posting = sender.posting(number % RECIPIENTS);
            drop(mailboxes.append(posting, PLENTY, NOW).unwrap());
        }
        mailboxes.flush();
    }
    let taken = begun.elapsed();
    drop(mailboxes);
    std::fs::remove_dir_all(path).unwrap();
    taken
}

fn online(count: usize) -> Duration {
    online_among(count, RECIPIENTS)
}

/// Everything but the disk: it is one in memory that is written when the queue is full.
fn online_among(count: usize, devices: u64) -> Duration {
    let options = MailOptions::default();
    let mailboxes = Mailboxes::open(Arc::new(MemoryDisk::new()), &options).unwrap();
    let mut sender = Sender::new();
    for number in 0..devices {
        mailboxes.limit(&device(number), PLENTY);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let begun = Instant::now();
    for number in 0..count as u64 {
        // Spreads over all of them.
        let to = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % devices;
        drop(runtime.block_on(sender.send(&mailboxes, to)));
        let to = device(to);
        let batch = mailboxes.read(&to, 0, 16, 1 << 16, 0).unwrap();
        mailboxes.acknowledge(&to, batch.last);
    }
    begun.elapsed()
}

fn recovery(path: &Path, count: usize) {
    let mailboxes = open(path);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut sender = Sender::new();
    let mut last = None;
    for _ in 0..count {
        last = Some(runtime.block_on(sender.send(&mailboxes, 1)));
    }
    if let Some(last) = last {
        runtime.block_on(last).unwrap();
    }
    // As after a crash, but for the lock: what is replayed is what came after the last checkpoint.
    let copy = path.with_extension("crashed");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    drop(mailboxes);
    for (what, path) in [
        ("after a clean stop", path),
        ("after a crash", copy.as_path()),
    ] {
        let begun = Instant::now();
        let mailboxes = open(path);
        let opened = begun.elapsed();
        let first = {
            let begun = Instant::now();
            mailboxes.read(&device(1), 0, 1, 1, 0).unwrap();
            begun.elapsed()
        };
        println!(
            "{count} messages {what}: opened in {:.1} ms ({} bytes replayed), the first read {:.2} ms later",
            opened.as_secs_f64() * 1e3,
            mailboxes.opened().replayed_bytes,
            first.as_secs_f64() * 1e3
        );
        let begun = Instant::now();
        let (mut after, mut read) = (0, 0);
        loop {
            let batch = mailboxes
                .read(&device(1), after, 256, 256 << 10, 0)
                .unwrap();
            if batch.deliveries.is_empty() {
                break;
            }
            read += batch.deliveries.len();
            after = batch.last;
            mailboxes.acknowledge(&device(1), after);
        }
        assert_eq!(read, count);
        report("  read from the disk, verified", read, begun.elapsed());
    }
}
