//! What an operator asks about a relay, by the command.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

use serde_json::Value;
use world::World;

const RELAY: [&str; 2] = ["--data", "relay"];

fn relay(world: &World, arguments: &[&str]) -> world::Ended {
    world.run(&[&["relay"], arguments, &RELAY].concat())
}

/// The objects of a list.
fn rows(ended: world::Ended) -> Vec<Value> {
    let lines = ended.succeeded().stdout;
    let rows = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    rows.collect()
}

#[test]
fn relay_is_asked_while_it_runs_and_when_it_does_not() {
    let world = World::new();
    let running = world.relay("127.0.0.1:0");
    world.join("alice", "a");
    world.join("bob", "b");
    let (alice, bob) = (world.device("a"), world.device("b"));
    world
        .at("a", &["send", "bob", "hello", "--wait", "accepted"])
        .succeeded();

    let stats = relay(&world, &["stats", "--json"]).succeeded().json();
    assert_eq!(stats["running"], true);
    assert_eq!(stats["users"], 2);
    assert_eq!(stats["mail"]["messages"], 1);
    assert!(
        running
            .address
            .ends_with(stats["thumbprint"].as_str().unwrap())
    );
    assert_eq!(stats["issuers"][0]["kind"], "built_in");
    let shown = relay(&world, &["stats"]).succeeded();
    assert!(
        shown.stdout.contains("\nmessages   1 waiting, "),
        "{shown:?}"
    );
    assert_eq!(shown.stderr, "");

    let users = rows(relay(&world, &["users", "--json"]));
    let names: Vec<_> = users
        .iter()
        .map(|row| row["user"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["alice", "bob"]);
    let devices = rows(relay(&world, &["devices", "--user", "bob", "--json"]));
    assert_eq!(devices.len(), 1);
    assert_eq!(devices[0]["device"], bob.as_str());
    assert_eq!(devices[0]["state"], "current");
    assert_eq!(devices[0]["waiting"], 1);
    let shown = relay(&world, &["devices"]).succeeded().stdout;
    let (head, shown) = shown.split_once('\n').unwrap();
    assert!(
        head.starts_with("DEVICE ") && head.ends_with("  USER"),
        "{head}"
    );
    assert!(shown.contains(&alice) && shown.contains(&bob), "{shown}");
    let mailboxes = rows(relay(&world, &["mailboxes", "--user", "bob", "--json"]));
    assert_eq!(mailboxes[0]["device"], bob.as_str());
    assert_eq!(mailboxes[0]["messages"], 1);

    // It leaves its socket, and nobody is at it.
    running.running.kill();
    assert!(world.path().join("relay/admin.sock").exists());
    let shown = relay(&world, &["mailboxes"]).succeeded();
    assert!(shown.stdout.contains(&bob), "{shown:?}");
    assert!(shown.stderr.contains("no relay runs"), "{shown:?}");
    let stats = relay(&world, &["stats", "--json"]).succeeded().json();
    assert_eq!(
        (&stats["running"], &stats["mail"]["messages"]),
        (&false.into(), &1.into())
    );
    let again = world.relay(&running.listen);
    let stats = relay(&world, &["stats", "--json"]).succeeded().json();
    assert_eq!(stats["running"], true);
    drop(again);
}

#[test]
fn what_is_no_relay_s_directory_is_not_asked() {
    let world = World::new();
    for command in ["stats", "users", "devices", "mailboxes"] {
        world
            .run(&["relay", command, "--data", "nowhere"])
            .failed(1, "is not a relay's data directory");
        assert!(!world.path().join("nowhere").exists());
    }
}
