//! A relay is copied under load, killed, and put back elsewhere: real processes.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, chown};

use serde_json::Value;
use world::World;

/// Messages before the backup, and while it is made.
const BEFORE: usize = 30;
const MEANWHILE: usize = 150;

fn lines(from: usize, count: usize) -> String {
    (from..from + count)
        .map(|number| format!("{number}\n"))
        .collect()
}

/// The messages that a device shows, and what it says beside them.
fn shown(world: &World, count: usize) -> (Vec<usize>, String) {
    let count = count.to_string();
    let listened = world.at(
        "b",
        &["listen", "--json", "--count", &count, "--timeout", "60"],
    );
    let listened = listened.succeeded();
    let texts = listened.stdout.lines().map(|line| {
        let message: Value = serde_json::from_str(line).unwrap();
        message["text"].as_str().unwrap().parse().unwrap()
    });
    (texts.collect(), listened.stderr)
}

#[test]
fn relay_that_was_copied_under_load_and_killed_is_put_back_and_loses_nothing() {
    let world = World::new();
    let relay = world.relay("127.0.0.1:0");
    world.join("alice", "a");
    world.join("bob", "b");
    let send = ["--home", "a", "send", "bob", "--lines", "--json"];
    world.run_with(&send, lines(0, BEFORE)).succeeded();
    let (mut all, _) = shown(&world, 10);

    let mut sending = world.start_with(&send, &lines(BEFORE, MEANWHILE));
    sending.next_line();
    let made = world.run(&["relay", "backup", "copy", "--data", "relay", "--json"]);
    let made = made.succeeded().json();
    assert!(relay.address.ends_with(made["relay"].as_str().unwrap()));
    let (status, _, said) = sending.end();
    assert!(status.success(), "{said}");
    // What is acknowledged now waits in the copy.
    all.extend(shown(&world, 20).0);
    relay.running.kill();

    let restored = world.run(&["relay", "restore", "copy", "--data", "other", "--json"]);
    assert_eq!(restored.succeeded().json()["relay"], made["relay"]);
    let mut relay = world.start(&[
        "relay",
        "run",
        "--data",
        "other",
        "--listen",
        &relay.listen,
        "--json",
    ]);
    assert_eq!(relay.next_json()["event"], "listening");
    // Whoever sent what the copy does not know sends it again, before anything new.
    let last = BEFORE + MEANWHILE;
    world.run_with(&send, lines(last, 1)).succeeded();
    let (rest, said) = shown(&world, last + 1 - all.len());
    assert!(said.contains("\"mailbox_gap\""), "{said}");
    assert_eq!(rest.last(), Some(&last));
    all.extend(rest);
    let each: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(each.len(), all.len(), "twice: {all:?}");
    assert_eq!(each, (0..=last).collect());
    assert!(all.is_sorted(), "{all:?}");
}

/// Root restores for the relay's user, who has to read and write all of it.
#[test]
fn what_root_restores_belongs_to_whoever_the_directory_belongs_to() {
    let world = World::new();
    world.run(&["relay", "init", "relay"]).succeeded();
    let backup = ["relay", "backup", "copy", "--data", "relay"];
    world.run(&backup).succeeded();
    let data = world.path().join("other");
    std::fs::create_dir(&data).unwrap();
    let (user, group) = (12_345, 12_346);
    if chown(&data, Some(user), Some(group)).is_err() {
        eprintln!("SKIPPED: only root can give directories away");
        return;
    }
    let restore = ["relay", "restore", "copy", "--data", "other"];
    world.run(&restore).succeeded();
    let mut found = 0;
    let mut folders = vec![data];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let of = entry.metadata().unwrap();
            let path = entry.path();
            assert_eq!((of.uid(), of.gid()), (user, group), "{}", path.display());
            if of.is_dir() {
                folders.push(path);
            }
            found += 1;
        }
    }
    assert!(found > 5, "{found}");
}

#[test]
fn what_is_no_whole_backup_is_not_put_back() {
    let world = World::new();
    world.run(&["relay", "init", "relay"]).succeeded();
    world
        .run(&["relay", "backup", "copy", "--data", "relay"])
        .succeeded();
    world
        .run(&["relay", "backup", "copy", "--data", "relay"])
        .failed(1, "exists already");
    std::fs::remove_file(world.path().join("copy/manifest.jsonl")).unwrap();
    world
        .run(&["relay", "restore", "copy", "--data", "other"])
        .failed(1, "has no manifest");
    world
        .run(&["relay", "restore", "nowhere", "--data", "other"])
        .failed(1, "has no manifest");
    assert!(!world.path().join("other").exists());
    world
        .run(&["relay", "backup", "second", "--data", "nowhere"])
        .failed(1, "is not a relay's data directory");
    assert!(!world.path().join("second").exists());
}
