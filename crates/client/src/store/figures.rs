//! What the store costs: run in a release build, and read the ratios.
//!
//! `cargo test --release -p sealwire-client --lib figures -- --ignored --nocapture`

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::vault::{Changes, Place, Table, Vault};
use super::{Batch, FileStore, MemoryStore, Store, StoreKey};

const COMMITS: u64 = 300;
const ROWS: u64 = 20_000;
/// A session, and a message in the outbox.
const RECORD: usize = 1_000;

/// What a step of the engine writes: a session, a message that comes and one that goes.
fn step(number: u64) -> Changes {
    let mut changes = Changes::default();
    let session = (number % 50).to_be_bytes();
    changes.put(Place::hidden(Table::Sessions, &session), vec![1; RECORD]);
    changes.put(Place::number(Table::Outbox, number), vec![2; RECORD]);
    changes.remove(Place::number(Table::Outbox, number.wrapping_sub(100)));
    changes
}

/// The same without anything above the store.
fn bare_step(number: u64) -> Batch {
    let mut batch = Batch::default();
    let mut session = vec![3; 33];
    session.splice(..8, (number % 50).to_be_bytes());
    batch.put(session, vec![1; RECORD + 41]);
    let outbox = |number: u64| [&[4][..], &number.to_be_bytes()].concat();
    batch.put(outbox(number), vec![2; RECORD + 41]);
    batch.remove(outbox(number.wrapping_sub(100)));
    batch
}

fn vault(store: impl Store + 'static) -> Vault {
    let key = StoreKey::from_bytes([7; 32]);
    Vault::open(Box::new(store), &key, &mut rand::rng()).unwrap()
}

/// The median of what each step takes.
fn median(mut step: impl FnMut(u64)) -> Duration {
    let mut times: Vec<_> = (0..COMMITS)
        .map(|number| {
            let started = Instant::now();
            step(number);
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

fn report(what: &str, bare: Duration, vault: Duration) {
    let ratio = vault.as_secs_f64() / bare.as_secs_f64();
    println!("{what}: bare {bare:?}, vault {vault:?}, {ratio:.2} times");
}

#[test]
#[ignore = "measures"]
fn figures() {
    let folder = tempfile::tempdir_in(".").unwrap();
    let file = |name: &str| FileStore::open(folder.path().join(name)).unwrap();

    let mut log = std::fs::File::create(folder.path().join("log")).unwrap();
    let floor = median(|_| {
        log.write_all(&[1; 2 * RECORD]).unwrap();
        log.sync_data().unwrap();
    });
    println!("append and fdatasync of {} bytes: {floor:?}", 2 * RECORD);

    let mut bare = file("bare");
    let mut sealed = vault(file("sealed"));
    report(
        "commit to a file",
        median(|number| bare.commit(bare_step(number)).unwrap()),
        median(|number| sealed.commit(step(number), &mut rand::rng()).unwrap()),
    );

    let mut bare = MemoryStore::new();
    let mut sealed = vault(MemoryStore::new());
    report(
        "commit to memory",
        median(|number| bare.commit(bare_step(number)).unwrap()),
        median(|number| sealed.commit(step(number), &mut rand::rng()).unwrap()),
    );

    let mut many = vault(file("many"));
    let started = Instant::now();
    for start in (0..ROWS).step_by(1_000) {
        let mut changes = Changes::default();
        for number in start..start + 1_000 {
            changes.put(Place::number(Table::Seen, number), vec![1; RECORD]);
        }
        many.commit(changes, &mut rand::rng()).unwrap();
    }
    let per_second = |elapsed: Duration| ROWS as f64 / elapsed.as_secs_f64();
    println!(
        "put, 1,000 a commit: {:.0} rows/s",
        per_second(started.elapsed())
    );
    drop(many);
    let started = Instant::now();
    let store = file("many");
    let engine = started.elapsed();
    let many = vault(store);
    println!(
        "open with {ROWS} rows of {RECORD} bytes: {:?}, of that the engine {engine:?}: {:.0} rows/s",
        started.elapsed(),
        per_second(started.elapsed())
    );
    let started = Instant::now();
    assert_eq!(
        many.scan(Table::Seen, usize::MAX).unwrap().len() as u64,
        ROWS
    );
    println!("scan and open: {:.0} rows/s", per_second(started.elapsed()));
    let started = Instant::now();
    for number in 0..ROWS {
        many.read(&Place::number(Table::Seen, number))
            .unwrap()
            .unwrap();
    }
    println!(
        "read one by one: {:.0} rows/s",
        per_second(started.elapsed())
    );
}
