//! Homes whose key the system's keyring keeps: where there is none, and with a real one.
#![cfg(all(target_os = "linux", feature = "keyring"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

use std::fs;

use world::World;

/// As on a server.
#[test]
fn join_where_no_keyring_is_says_what_else_there_is_and_uses_nothing_up() {
    let world = World::new();
    let _relay = world.relay("127.0.0.1:0");
    let invitation = world.invite("alice");
    let join = ["join", "--home", "alice", "--keyring"];
    for _ in 0..2 {
        let refused = world.run_with(&join, &invitation);
        assert!(refused.stderr.contains("does not work here"), "{refused:?}");
        refused.failed(
            1,
            "Without --keyring a key file is made, and with --passphrase none is needed",
        );
    }
    let nobody = world.at("alice", &["whoami"]);
    nobody.failed(3, "there is no device in alice");

    let join = ["join", "--home", "alice"];
    world.run_with(&join, &invitation).succeeded();
    let identity = world.at("alice", &["whoami", "--json"]).succeeded().json();
    assert_eq!(identity["lock"], "file");
}

#[test]
fn device_whose_keyring_is_away_says_where_its_key_is() {
    let world = World::new();
    let _relay = world.relay("127.0.0.1:0");
    world.join("alice", "alice");
    let description = world.path().join("alice/device.json");
    let described = fs::read_to_string(&description).unwrap();
    let moved = described.replace(r#""lock": "file""#, r#""lock": "keyring""#);
    assert_ne!(moved, described);
    fs::write(&description, moved).unwrap();

    let send = ["send", "alice", "x"];
    let nameless = world.at("alice", &send);
    nameless.failed(1, "alice/device.keyring is missing or damaged");
    fs::write(world.path().join("alice/device.keyring"), "alice 1").unwrap();
    let away = world.at("alice", &send);
    away.failed(1, "use this device where it runs");
    fs::write(world.path().join("words"), "words\n").unwrap();
    let words = world.at(
        "alice",
        &[&send[..], &["--passphrase-file", "words"]].concat(),
    );
    words.failed(2, "it has no passphrase");
}

#[test]
fn a_store_has_one_lock() {
    let world = World::new();
    for other in [&["--passphrase"][..], &["--passphrase-file", "f"]] {
        let both = world.run(&[&["join", "--home", "h", "--keyring"], other].concat());
        assert_eq!(both.code, Some(2), "{both:?}");
        assert!(both.stderr.contains("cannot be used with"), "{both:?}");
    }
}

/// `.ci/run keyring`
#[test]
#[ignore = "needs a session with a keyring that is unlocked, and writes to it"]
fn key_in_the_keyring_opens_a_home_wherever_it_is_moved() {
    let world = World::with_the_keyring_of_the_session();
    let _relay = world.relay("127.0.0.1:0");
    world.join("alice", "alice");
    let join = ["join", "--home", "bob", "--keyring"];
    // A join that came to nothing leaves nothing that keeps the next from its key.
    let stranger = world
        .invite("bob")
        .replace("sealwire-invite:", "sealwire-invite:x");
    assert_ne!(world.run_with(&join, stranger).code, Some(0));
    world.run_with(&join, world.invite("bob")).succeeded();
    let identity = world.at("bob", &["whoami", "--json"]).succeeded().json();
    assert_eq!(identity["lock"], "keyring");
    assert!(!world.path().join("bob/device.key").exists());

    world.at("alice", &["send", "bob", "hello"]).succeeded();
    fs::rename(world.path().join("bob"), world.path().join("moved")).unwrap();
    let heard = world.at("moved", &["listen", "--count", "1", "--timeout", "60"]);
    assert!(heard.succeeded().stdout.ends_with(" alice: hello\n"));

    // Each home has a key of its own.
    world
        .run_with(
            &["join", "--home", "other", "--keyring"],
            world.invite("bob"),
        )
        .succeeded();
    let name =
        |home: &str| fs::read_to_string(world.path().join(home).join("device.keyring")).unwrap();
    assert_ne!(name("moved"), name("other"));
    fs::write(world.path().join("moved/device.keyring"), name("other")).unwrap();
    let other = world.at("moved", &["listen", "--timeout", "1"]);
    other.failed(1, "does not open this device store");
    fs::write(world.path().join("moved/device.keyring"), "nobody").unwrap();
    let nobody = world.at("moved", &["listen", "--timeout", "1"]);
    nobody.failed(1, "the system's keyring has no key for this device store");
}
