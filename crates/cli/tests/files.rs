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

use sealwire_client::{Client, MemoryStore, Message, StoreKey};
use sealwire_e2e::file::{FILE_MEDIA_TYPE, FileKey, FileOffer};
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
    assert!(!heard.stdout.contains("film.bin"), "{heard:?}");
    let still = "alice: still here: [file film.bin";
    assert!(heard.stderr.contains(still), "{heard:?}");
    let heard = world.at("bob", &SAVE).succeeded().json();
    assert_eq!(heard["redelivered"], true);
    assert!(fs::read(world.path().join("got/film.bin")).unwrap() == content);
}

/// Nor is the key of any file shown, in whatever form it comes.
#[test]
fn files_wait_also_where_there_are_many_and_no_key_is_shown() {
    let (world, _relay, _) = alice_and_bob(10);
    let offer = |number: u64| {
        let offer = FileOffer {
            blob: [1; 32],
            key: FileKey::from_bytes(&[0xaa; 32]),
            size: number,
            sha256: [0xaa; 32],
            name: "film.bin",
            media_type: "video/mp4",
        };
        offer.encode().unwrap()
    };
    let mut bodies: Vec<Vec<u8>> = (1..=449).map(offer).collect();
    bodies[0].push(0); // is valid no more
    bodies.push(offer(450));
    let line = world.invite("carol");
    let sending = async {
        let client = Client::invited(&line).unwrap();
        let store = (MemoryStore::new(), StoreKey::from_bytes([1; 32]));
        let client = client.store(store.0, store.1).connect().await.unwrap();
        for bodies in bodies.chunks(128) {
            let sends = bodies
                .iter()
                .map(|body| client.send("bob", Message::new(FILE_MEDIA_TYPE, body.clone())));
            futures_util::future::try_join_all(sends).await.unwrap();
        }
        client.close().await;
    };
    tokio::runtime::Runtime::new().unwrap().block_on(sending);

    let heard = world.at("bob", &["listen", "--timeout", "60", "--json"]);
    assert_eq!(heard.code, Some(1), "{}", heard.stderr);
    let full = "448 files wait to be saved";
    assert!(heard.stderr.contains(full), "{}", heard.stderr);
    let shown: Vec<Value> = heard
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(shown.len(), 449);
    assert!(shown.iter().all(|shown| shown["body"].is_null()));
    assert!(shown[0]["file"]["error"].is_string());
    assert_eq!(shown[448]["file"]["size"], 449);
    let all = [heard.stdout, heard.stderr].concat();
    assert!(!all.contains("qqqqqqqq"), "32 bytes 0xaa in base64url");

    // The same again: nothing was dropped.
    let again = world.at("bob", &["listen", "--timeout", "60"]);
    again.failed(1, full);
    // Those are gone from the relay, and are dropped by whoever wants them saved.
    let save = [
        "listen",
        "--save",
        "got",
        "--count",
        "449",
        "--timeout",
        "60",
    ];
    let saved = world.at("bob", &save).succeeded();
    assert_eq!(saved.stdout.matches("not saved: ").count(), 449);
    let none = world.at("bob", &["listen", "--timeout", "1"]);
    none.failed(6, "no message has come in this time");
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
