//! A file store between real processes: one at a time, and nothing lost when one is killed.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use sealwire_client::store::Batch;
use sealwire_client::{FileStore, Store as _, StoreError};

const STORE: &str = "SEALWIRE_TEST_STORE";

/// Runs one of the ignored tests below in a process of its own, and reads what it says.
fn start(role: &str, store: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", role])
        .env(STORE, store)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// The number in the next line that `word` begins.
fn next(output: &mut BufReader<ChildStdout>, word: &str) -> u64 {
    loop {
        let mut line = String::new();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "it ended");
        // The test harness writes before it, without a line's end.
        if let Some((_, number)) = line.trim().split_once(&format!("{word} ")) {
            return number.parse().unwrap();
        }
    }
}

/// How many rows there are, and that none is missing before the last.
fn rows(store: &FileStore) -> u64 {
    let mut count = 0_u64;
    loop {
        let after = count.checked_sub(1).map(u64::to_be_bytes);
        let after = after.as_ref().map_or(&[][..], |key| key);
        let page = store.scan(b"", after, 1_000).unwrap();
        if page.is_empty() {
            return count;
        }
        for (key, value) in page {
            assert_eq!(key, count.to_be_bytes());
            assert_eq!(value, vec![1; 700]);
            count += 1;
        }
    }
}

#[test]
fn second_process_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let (mut child, mut output) = start("writes_until_it_is_killed", &path);
    next(&mut output, "committed");
    let refused = FileStore::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::InUse), "{refused:?}");
    assert_eq!(
        refused.to_string(),
        "the device store is open in another process; close that one first"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    FileStore::open(&path).unwrap();
}

#[test]
fn store_that_this_process_has_open_is_refused_to_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let store = FileStore::open(&path).unwrap();
    let (mut child, _output) = start("is_refused", &path);
    assert!(child.wait().unwrap().success());
    drop(store);
}

#[test]
fn killed_process_loses_nothing_that_it_said_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let mut said = 0;
    for round in 0..10 {
        let (mut child, mut output) = start("writes_until_it_is_killed", &path);
        for _ in 0..=round * 3 {
            said = next(&mut output, "committed");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died, and nobody has read yet.
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() != 0 {
            if let Some(number) = line.trim().strip_prefix("committed ") {
                said = number.parse().unwrap_or(said);
            }
            line.clear();
        }
        let found = rows(&FileStore::open(&path).unwrap());
        assert!(
            found > said,
            "round {round}: row {said} is lost, {found} are there"
        );
    }
}

#[test]
#[ignore = "a process of the tests above"]
fn writes_until_it_is_killed() {
    let mut store = FileStore::open(std::env::var_os(STORE).unwrap()).unwrap();
    for number in rows(&store).. {
        let mut batch = Batch::default();
        batch.put(number.to_be_bytes().to_vec(), vec![1; 700]);
        store.commit(batch).unwrap();
        println!("committed {number}");
    }
}

#[test]
#[ignore = "a process of the tests above"]
fn is_refused() {
    let opened = FileStore::open(std::env::var_os(STORE).unwrap());
    assert!(matches!(opened, Err(StoreError::InUse)));
}
