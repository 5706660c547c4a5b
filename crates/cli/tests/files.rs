//! Files by the command, from outside: the binary, real homes and directories, a relay on loopback with TLS.
#![cfg(unix)]
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

use std::fs;

use serde_json::Value;
use world::World;

/// A world with a relay that runs, two people, and a file of `size` bytes.
fn alice_and_bob(size: usize) -> (World, world::Relay, Vec<u8>) {
    let world = World::new();
    let relay = world.relay("127.0.0.1:0");
    world.join("alice", "alice");
    world.join("bob", "bob");
    let content: Vec<u8> = (0..=252).cycle().take(size).collect();
    fs::write(world.path().join("film.bin"), &content).unwrap();
    fs::create_dir(world.path().join("got")).unwrap();
    (world, relay, content)
}

const SAVE: [&str; 8] = [
    "listen",
    "--save",
    "got",
    "--count",
    "1",
    "--timeout",
    "60",
    "--json",
];

#[test]
fn file_is_sent_and_saved_under_its_name() {
    let (world, _relay, content) = alice_and_bob(300_000);
    let send = ["send", "bob", "--file", "film.bin", "--json"];
    let sent = world.at("alice", &send).succeeded().json();
    assert_eq!(
        (&sent["state"], &sent["file"]),
        (&"accepted".into(), &"film.bin".into())
    );
    let heard = world.at("bob", &SAVE).succeeded().json();
    assert_eq!(heard["id"], sent["id"]);
    let file = &heard["file"];
    assert_eq!(
        (&file["name"], &file["size"]),
        (&"film.bin".into(), &300_000.into())
    );
    assert_eq!(file["path"], "got/film.bin");
    // What would let others fetch it is not shown.
    assert_eq!(heard["body"], Value::Null);
    assert!(fs::read(world.path().join("got/film.bin")).unwrap() == content);
    // The same name again is another file.
    world.at("alice", &send).succeeded();
    fs::write(world.path().join("got/film.bin"), "mine").unwrap();
    let heard = world.at("bob", &SAVE).succeeded().json();
    assert_eq!(heard["file"]["path"], "got/film (2).bin");
    assert_eq!(world.files("got").len(), 2);
}

#[test]
fn file_that_is_not_saved_waits_and_is_shown_once() {
    let (world, _relay, content) = alice_and_bob(1_000);
    world
        .at("alice", &["send", "bob", "--file", "film.bin"])
        .succeeded();
    let once = ["listen", "--count", "1", "--timeout", "60"];
    let heard = world.at("bob", &once).succeeded();
    let shown = "alice: [file film.bin, 1000 bytes; `sealwire listen --save DIR` fetches it]\n";
    assert!(heard.stdout.ends_with(shown), "{heard:?}");
    world.at("alice", &["send", "bob", "hello"]).succeeded();
    let heard = world.at("bob", &once).succeeded();
    assert!(heard.stdout.ends_with("alice: hello\n"), "{heard:?}");
    let heard = world.at("bob", &SAVE).succeeded().json();
    assert_eq!(heard["redelivered"], true);
    assert!(fs::read(world.path().join("got/film.bin")).unwrap() == content);
}

/// Whoever is killed, on whichever side: the same command goes on.
#[test]
fn file_arrives_although_sender_receiver_and_relay_are_killed() {
    let (world, relay, content) = alice_and_bob(30_000_000);
    let send = [
        "--home", "alice", "send", "bob", "--file", "film.bin", "--json",
    ];
    let mut sending = world.start(&send);
    sending.said("\"event\":\"progress\"");
    sending.kill();
    let mut sending = world.start(&[&send[..], &["--keep-trying"]].concat());
    sending.said("\"event\":\"progress\"");
    let listen = relay.listen.clone();
    relay.running.kill();
    let _relay = world.relay(&listen);
    let (status, stdout, stderr) = sending.end();
    assert!(status.success(), "{stdout}{stderr}");

    let mut receiving = world.start(&[&["--home", "bob"], &SAVE[..]].concat());
    receiving.said("\"event\":\"progress\"");
    receiving.kill();
    let heard = world.at("bob", &SAVE).succeeded().json();
    assert_eq!(heard["file"]["path"], "got/film.bin");
    assert!(fs::read(world.path().join("got/film.bin")).unwrap() == content);
    assert_eq!(world.files("got").len(), 1);
}

#[test]
fn what_cannot_work_is_said_before_anything_is_sent() {
    let (world, _relay, _) = alice_and_bob(10);
    let at = |arguments: &[&str], code, message| {
        world.at("alice", arguments).failed(code, message);
    };
    at(&["send", "bob", "--file", "none"], 2, "none cannot be read");
    at(&["send", "bob", "--file", "got"], 2, "got is not a file");
    at(
        &["send", "bob", "--file", "film.bin", "--wait", "read"],
        2,
        "wait for accepted or delivered",
    );
    at(&["listen", "--save", "none"], 2, "none is not a directory");
    at(&["send", "carol", "--file", "film.bin"], 1, "no device yet");
}
