//! How long a device that comes back takes to have what waited for it: to the first message, and to all of them.
//!
//! `cargo run --release -p sealwire-tests --bin recovery -- [MESSAGES]` (100,000 by default). Real sockets, real files, loopback; one
//! process. The floor is what has to be written in any case: the same bytes appended to a file, with an fdatasync for every 256 messages.
#![forbid(unsafe_code)]
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement that fails says where and ends"
)]

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use sealwire_client::{Client, Event, FileStore, Message, StoreKey};
use sealwire_server::Relay;
use sealwire_server::policy::Allowance;

/// Bytes of each message.
const BODY: usize = 256;
/// Messages under way while the mailbox is filled.
const UNDER_WAY: usize = 128;
/// Messages for which the floor syncs once.
const FLOOR_BATCH: usize = 256;

#[tokio::main]
async fn main() {
    let messages: usize = match std::env::args().nth(1) {
        None => 100_000,
        Some(number) => number.parse().unwrap_or_else(|_| {
            eprintln!("usage: recovery [MESSAGES]");
            std::process::exit(2)
        }),
    };
    let folder = tempfile::tempdir().unwrap();
    let many = 100 * messages as u64;
    let mut allowance = Allowance::default();
    allowance.messages_per_minute = u64::MAX;
    allowance.mailbox.messages = many;
    allowance.mailbox.bytes = many * 1_024;
    let relay = Relay::builder(folder.path().join("relay"))
        .allowance(allowance)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let hour = Duration::from_secs(3_600);
    let to_alice = relay.invite("alice", hour).await.unwrap().to_line();
    let to_bob = relay.invite("bob", hour).await.unwrap().to_line();
    let client = |invitation: &str, name: &str| {
        let store = FileStore::open(folder.path().join(name)).unwrap();
        let builder = Client::invited(invitation).unwrap();
        builder
            .store(store, StoreKey::from_bytes([1; 32]))
            .connect()
    };
    let alice = client(&to_alice, "alice.store").await.unwrap();
    client(&to_bob, "bob.store").await.unwrap().close().await;

    let start = Instant::now();
    let sending = futures_util::stream::iter(0..messages).map(|number| {
        let alice = alice.clone();
        let mut body = number.to_be_bytes().to_vec();
        body.resize(BODY, b'.');
        async move {
            let message = Message::new("application/octet-stream", body);
            alice.send("bob", message).await.unwrap();
        }
    });
    let mut sending = sending.buffered(UNDER_WAY);
    while sending.next().await.is_some() {}
    drop(sending);
    let filled = start.elapsed();
    alice.close().await;

    let start = Instant::now();
    let bob = client(&to_bob, "bob.store").await.unwrap();
    let (mut first, mut next) = (None, 0_usize);
    let mut recovered = None;
    while next < messages || recovered.is_none() {
        match bob.next().await.unwrap() {
            Event::Message(received) => {
                first.get_or_insert_with(|| start.elapsed());
                let number = received.message.body().first_chunk().unwrap();
                assert_eq!(usize::from_be_bytes(*number), next, "out of order");
                next += 1;
                received.ack();
            }
            Event::Recovered { messages } => recovered = Some(messages),
            Event::Connection(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let all = start.elapsed();
    bob.close().await;
    relay.shutdown().await;

    let floor = floor(&folder.path().join("floor"), messages);
    let rate = |time: Duration| messages as f64 / time.as_secs_f64();
    println!(
        "messages                                {messages} of {BODY} bytes, one sender, one device"
    );
    println!(
        "filling the mailbox                     {:.0} messages/s",
        rate(filled)
    );
    println!(
        "from connecting to the first message    {:.0} ms",
        first.unwrap().as_secs_f64() * 1_000.0
    );
    println!(
        "from connecting to the last             {:.2} s, {:.0} messages/s",
        all.as_secs_f64(),
        rate(all)
    );
    println!(
        "told as recovered                       {}",
        recovered.unwrap()
    );
    println!(
        "floor: the same bytes to a file         {:.2} s; recovery takes {:.1} times as long",
        floor.as_secs_f64(),
        all.as_secs_f64() / floor.as_secs_f64()
    );
}

/// Appends as many bytes to a file, synced in batches.
fn floor(path: &std::path::Path, messages: usize) -> Duration {
    let mut file = std::fs::File::create(path).unwrap();
    let batch = vec![b'.'; BODY * FLOOR_BATCH];
    let start = Instant::now();
    for _ in 0..messages.div_ceil(FLOOR_BATCH) {
        file.write_all(&batch).unwrap();
        file.sync_data().unwrap();
    }
    start.elapsed()
}
