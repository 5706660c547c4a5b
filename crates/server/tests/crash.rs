//! What the relay has accepted is there after its process was killed with SIGKILL (docs/protocol.md §5.2), and two processes do not
//! share a store. The second process is this test binary again, told by an environment variable what to be.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sealwire_server::mailbox::{MailboxLimits, Mailboxes, Posting};
use sealwire_server::storage::{OpenError, Storage, StorageOptions};

const DIRECTORY: &str = "SEALWIRE_TEST_CRASH_DIRECTORY";
const LIMITS: MailboxLimits = MailboxLimits {
    messages: u64::MAX,
    bytes: u64::MAX,
    retention_seconds: 60,
};
const NOW: u64 = 1_800_000_000_000;

fn device(number: u8) -> Thumbprint {
    Thumbprint::from_bytes([number; 32])
}

fn posting(number: u64) -> Posting {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    let message = Bytes::from(number.to_be_bytes().repeat(200));
    Posting {
        from_user: User::new("alice").unwrap(),
        from_device: device(0xaa),
        id,
        parts: vec![(device(1), message.clone()), (device(2), message)],
    }
}

fn open(dir: &Path) -> Result<Storage, OpenError> {
    Storage::open(dir, &StorageOptions::default())
}

fn numbers(mailboxes: &Mailboxes, of: u8) -> Vec<u64> {
    let batch = mailboxes
        .read(&device(of), 0, usize::MAX, usize::MAX)
        .unwrap();
    assert!(batch.damaged.is_empty());
    let number = |message: Bytes| u64::from_be_bytes(message[..8].try_into().unwrap());
    batch
        .mail
        .into_iter()
        .map(|mail| number(mail.message))
        .collect()
}

/// Not a test by itself: the process that is killed. It sends without end, eight messages at a time, and says what was accepted.
#[tokio::test]
async fn process_that_is_killed() {
    let Ok(dir) = std::env::var(DIRECTORY) else {
        return;
    };
    let mailboxes = Mailboxes::new(open(Path::new(&dir)).unwrap());
    let mut number = mailboxes.status(&device(1)).unwrap().head;
    loop {
        let mut under_way = Vec::new();
        for _ in 0..8 {
            number += 1;
            under_way.push(
                mailboxes
                    .enqueue(posting(number), LIMITS, NOW)
                    .await
                    .unwrap(),
            );
        }
        for enqueued in under_way {
            let posted = enqueued.durable().await.unwrap();
            let position = posted[0].position.unwrap();
            // Straight to the pipe: the test harness would keep `println!`.
            writeln!(std::io::stderr(), "accepted {position}").unwrap();
        }
    }
}

/// The process above, running; killed when dropped. It ends by itself if nobody holds the other end of its pipe.
struct Sending {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Sending {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_that_is_killed", "--nocapture"])
            .env(DIRECTORY, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        Self { child, said }
    }

    /// Reads until the process has accepted position `count`, and returns the last position that it said.
    fn wait_for(&mut self, count: u64) -> u64 {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.said.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "the process ended by itself");
            let accepted = line
                .strip_prefix("accepted ")
                .and_then(|number| number.trim_end().parse().ok());
            if let Some(accepted) = accepted.filter(|accepted| *accepted >= count) {
                return accepted;
            }
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // On Unix this is SIGKILL.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// docs/protocol.md §5.2
#[tokio::test]
async fn what_was_accepted_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 1..=5 {
        let mut sending = Sending::start(dir.path());
        let accepted = sending.wait_for(last + 10 * round);
        // It is in the middle of sending.
        drop(sending);

        let mailboxes = Mailboxes::new(open(dir.path()).unwrap());
        let (one, two) = (numbers(&mailboxes, 1), numbers(&mailboxes, 2));
        let head = mailboxes.status(&device(1)).unwrap().head;
        assert!(
            head >= accepted,
            "round {round}: {accepted} was accepted, {head} is there"
        );
        assert_eq!(
            one,
            (1..=head).collect::<Vec<_>>(),
            "in order, nothing missing or twice"
        );
        assert_eq!(one, two, "both parts or none");
        // What the sender cannot know was accepted it sends again.
        for number in [accepted, head] {
            let posted = mailboxes
                .append(posting(number), LIMITS, NOW)
                .await
                .unwrap();
            assert_eq!(posted[0].position, None);
        }
        last = head;
    }
}

#[test]
fn a_store_that_another_process_has_open_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut sending = Sending::start(dir.path());
    sending.wait_for(1);
    let refused = open(dir.path()).unwrap_err();
    drop(sending);
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    open(dir.path()).unwrap();
}
