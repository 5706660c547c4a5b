//! The commands that need the network, from outside: the binary, real homes, a relay on loopback with TLS.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod world;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use sealwire_protocol::introduction::Introduction;
use sealwire_protocol::invite::{Invitation, InviteCode};
use sealwire_protocol::key::{Seed, SigningKey};
use serde_json::{Value, json};
use world::World;

/// A world with a relay that runs, and the two whom every example has.
fn alice_and_bob() -> (World, world::Relay) {
    let world = World::new();
    let relay = world.relay("127.0.0.1:0");
    world.join("alice", "alice");
    world.join("bob", "bob");
    (world, relay)
}

fn listen_for_one(world: &World, home: &str) -> Value {
    let listen = ["listen", "--count", "1", "--timeout", "60", "--json"];
    world.at(home, &listen).succeeded().json()
}

#[test]
fn message_waits_for_a_device_that_is_away_and_the_answer_comes_back() {
    let (world, _relay) = alice_and_bob();
    let sent = world.at("alice", &["send", "bob", "see you at nine", "--json"]);
    let sent = sent.succeeded().json();
    assert_eq!(sent["state"], "accepted");

    let heard = listen_for_one(&world, "bob");
    assert_eq!(heard["event"], "message");
    assert_eq!(heard["id"], sent["id"]);
    assert_eq!(heard["user"], "alice");
    assert_eq!(heard["device"], world.device("alice").as_str());
    assert_eq!(heard["media_type"], "text/plain;charset=utf-8");
    assert_eq!(heard["text"], "see you at nine");
    assert_eq!(heard["redelivered"], false);

    world
        .run_with(&["send", "alice", "--home", "bob"], "fine\n")
        .succeeded();
    let heard = world
        .at("alice", &["listen", "--count", "1", "--timeout", "60"])
        .succeeded();
    assert!(heard.stdout.ends_with(" bob: fine\n"), "{heard:?}");
}

#[test]
fn message_outlives_a_relay_that_is_killed() {
    let (world, relay) = alice_and_bob();
    world
        .at("alice", &["send", "bob", "still here"])
        .succeeded();
    let listen = relay.listen.clone();
    relay.running.kill();
    let unreachable = world.at("bob", &["listen", "--count", "1"]);
    unreachable.failed(4, "check the address and that the relay runs");

    let _relay = world.relay(&listen);
    assert_eq!(listen_for_one(&world, "bob")["text"], "still here");
}

#[test]
fn message_is_shown_once() {
    let (world, _relay) = alice_and_bob();
    world.at("alice", &["send", "bob", "once"]).succeeded();
    assert_eq!(listen_for_one(&world, "bob")["text"], "once");
    let again = world.at("bob", &["listen", "--timeout", "1"]);
    again.failed(6, "no message has come in this time");
}

/// What nobody has read is not confirmed.
#[test]
fn message_that_nobody_read_is_shown_again() {
    let (world, _relay) = alice_and_bob();
    let binary = env!("CARGO_BIN_EXE_sealwire");
    world.at("alice", &["send", "bob", "unread"]).succeeded();
    let mut listener = std::process::Command::new(binary)
        .args(["--home", "bob", "listen", "--count", "1", "--timeout", "60"])
        .current_dir(world.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(listener.stdout.take());
    assert!(listener.wait().unwrap().success());
    let heard = listen_for_one(&world, "bob");
    assert_eq!(
        (&heard["text"], &heard["redelivered"]),
        (&json!("unread"), &json!(true))
    );
}

#[test]
fn send_waits_until_a_device_has_the_message() {
    let (world, _relay) = alice_and_bob();
    // Devices say what they have to those whom their user has written to.
    world.at("bob", &["send", "alice", "hello"]).succeeded();
    let mut bob = world.start(&["--home", "bob", "listen", "--json"]);
    let send = ["send", "bob", "now", "--wait", "delivered", "--json"];
    let sent = world.at("alice", &send).succeeded().json();
    assert_eq!(sent["state"], "delivered");
    assert_eq!(bob.next_json()["id"], sent["id"]);
    assert!(bob.stop("INT").success());
}

#[test]
fn send_waits_until_the_message_was_read() {
    let (world, _relay) = alice_and_bob();
    world.at("bob", &["send", "alice", "hello"]).succeeded();
    let mut bob = world.start(&["--home", "bob", "listen", "--read", "--json"]);
    let send = ["send", "bob", "now", "--wait", "read", "--json"];
    let sent = world.at("alice", &send).succeeded().json();
    assert_eq!(sent["state"], "read");
    assert_eq!(bob.next_json()["id"], sent["id"]);
    assert!(bob.stop("INT").success());
    // What was not meant to be shown is shown by the next command.
    assert_eq!(listen_for_one(&world, "alice")["text"], "hello");
}

/// A program that does not know whether a line was sent gives it again.
#[test]
fn line_that_is_given_again_under_its_id_is_sent_once() {
    let (world, _relay) = alice_and_bob();
    let line = r#"{"id": "AAECAwQFBgcICQoLDA0ODw", "text": "once"}"#;
    let send = ["--home", "alice", "send", "bob", "--json-lines", "--json"];
    let input = format!("{line}\n{line}\n");
    let sent = world.run_with(&send, &input).succeeded();
    assert_eq!(sent.stdout.lines().count(), 2, "{sent:?}");
    let input = format!("{line}\n{{\"text\": \"other\"}}\nno JSON\n");
    let sent = world.run_with(&send, &input);
    assert_eq!(sent.code, Some(2), "{sent:?}");
    assert_eq!(sent.stdout.lines().count(), 2, "{sent:?}");
    assert!(sent.stderr.contains("line 3"), "{sent:?}");
    let heard = listen_for_one(&world, "bob");
    assert_eq!(
        (&heard["id"], &heard["text"]),
        (&json!("AAECAwQFBgcICQoLDA0ODw"), &json!("once"))
    );
    assert_eq!(listen_for_one(&world, "bob")["text"], "other");
}

#[test]
fn send_gives_up_when_no_device_comes_and_the_relay_keeps_the_message() {
    let (world, _relay) = alice_and_bob();
    let send = [
        "send",
        "bob",
        "later",
        "--wait",
        "delivered",
        "--timeout",
        "1",
    ];
    world
        .at("alice", &send)
        .failed(6, "the relay keeps it for them");
    assert_eq!(listen_for_one(&world, "bob")["text"], "later");
}

#[test]
fn listen_gives_up_with_less_than_it_was_to_wait_for() {
    let (world, _relay) = alice_and_bob();
    world.at("alice", &["send", "bob", "one"]).succeeded();
    let listen = world.at("bob", &["listen", "--count", "2", "--timeout", "5"]);
    assert_eq!(listen.code, Some(6), "{listen:?}");
    assert!(listen.stdout.ends_with(" alice: one\n"), "{listen:?}");
    assert!(listen.stderr.contains("1 of 2 messages"), "{listen:?}");
}

#[test]
fn binary_message_is_shown_as_what_it_is() {
    let (world, _relay) = alice_and_bob();
    let body = [0, 0xff, b'\n', 7];
    let no_text = world.run_with(&["send", "bob", "--home", "alice"], body);
    no_text.failed(2, "say what it is with --type");
    for _ in 0..2 {
        let send = ["send", "bob", "--home", "alice", "--type", "image/png"];
        world.run_with(&send, body).succeeded();
    }
    let heard = listen_for_one(&world, "bob");
    assert_eq!(
        (&heard["media_type"], &heard["body"]),
        (&json!("image/png"), &json!("AP8KBw"))
    );
    let heard = world
        .at("bob", &["listen", "--count", "1", "--timeout", "60"])
        .succeeded();
    assert!(
        heard
            .stdout
            .ends_with(": [image/png, 4 bytes; --json shows them]\n"),
        "{heard:?}"
    );
}

#[test]
fn message_cannot_command_the_terminal_or_imitate_another() {
    let (world, _relay) = alice_and_bob();
    let hostile = "\u{1b}]0;owned\u{7}\rbob: yes\n12:00:00 bob: yes\u{202e}";
    for _ in 0..2 {
        world
            .run_with(&["send", "bob", "--home", "alice"], hostile)
            .succeeded();
    }
    let heard = world
        .at("bob", &["listen", "--count", "1", "--timeout", "60"])
        .succeeded();
    let shown = ": \\u{1b}]0;owned\\u{7}\\u{d}bob: yes\n    12:00:00 bob: yes\\u{202e}\n";
    assert!(heard.stdout.ends_with(shown), "{heard:?}");
    assert_eq!(listen_for_one(&world, "bob")["text"], hostile);
}

#[test]
fn every_line_is_a_message_and_is_reported_by_its_number() {
    let (world, _relay) = alice_and_bob();
    for at_once in ["1", "16"] {
        let send = ["send", "bob", "--lines", "--at-once", at_once, "--json"];
        let send = [&["--home", "alice"], &send[..]].concat();
        let sent = world.run_with(&send, "one\n\ntwo\nthree").succeeded();
        let sent: Vec<Value> = sent
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let mut listener = world.start(&["--home", "bob", "listen", "--count", "3", "--json"]);
        for (sent, (line, text)) in sent.iter().zip([(1, "one"), (3, "two"), (4, "three")]) {
            assert_eq!(
                (&sent["line"], &sent["state"]),
                (&json!(line), &json!("accepted"))
            );
            let heard = listener.next_json();
            assert_eq!((&heard["id"], &heard["text"]), (&sent["id"], &json!(text)));
        }
        assert_eq!(sent.len(), 3);
        assert!(listener.end().0.success());
    }
}

#[test]
fn line_that_cannot_be_sent_keeps_no_other_from_it() {
    let (world, _relay) = alice_and_bob();
    let send = ["--home", "alice", "send", "bob", "--lines"];
    let sent = world.run_with(&send, b"one\n\xff\ntwo\n");
    assert_eq!(sent.code, Some(2), "{sent:?}");
    assert_eq!(sent.stdout.lines().count(), 2, "{sent:?}");
    assert!(
        sent.stderr.contains("line 2: a line is not UTF-8"),
        "{sent:?}"
    );
    assert_eq!(listen_for_one(&world, "bob")["text"], "one");
    assert_eq!(listen_for_one(&world, "bob")["text"], "two");
}

#[test]
fn commands_that_keep_trying_begin_while_the_relay_is_away() {
    let (world, relay) = alice_and_bob();
    let listen = relay.listen.clone();
    relay.running.kill();
    let send = ["--home", "alice", "send", "bob", "--lines", "--keep-trying"];
    let alice = world.start_with(&send, "one\ntwo\n");
    let hear = [
        "--home",
        "bob",
        "listen",
        "--count",
        "2",
        "--keep-trying",
        "--json",
    ];
    let mut bob = world.start(&hear);
    let _relay = world.relay(&listen);
    assert!(alice.end().0.success());
    for text in ["one", "two"] {
        assert_eq!(bob.next_json()["text"], text);
    }
    assert!(bob.end().0.success());
}

#[test]
fn safety_numbers_are_equal_on_both_sides_and_verify() {
    let (world, _relay) = alice_and_bob();
    world.join("carol", "carol");
    let of = |home: &str, user: &str| {
        world
            .at(home, &["verify", user, "--json"])
            .succeeded()
            .json()
    };
    let (alice, bob) = (of("alice", "bob"), of("bob", "alice"));
    assert_eq!(
        (&alice["number"], &alice["qr"]),
        (&bob["number"], &bob["qr"])
    );
    assert_eq!(alice["verified"], false);

    let other = of("carol", "bob")["qr"].as_str().unwrap().to_owned();
    let differs = world.at("alice", &["verify", "bob", "--qr", &other]);
    differs.failed(5, "the safety numbers differ");
    assert_eq!(of("alice", "bob")["verified"], false);

    let qr = bob["qr"].as_str().unwrap();
    world
        .at("alice", &["verify", "bob", "--qr", qr])
        .succeeded();
    assert_eq!(of("alice", "bob")["verified"], true);
    let devices = world
        .at("alice", &["devices", "bob", "--json"])
        .succeeded()
        .json();
    assert_eq!(
        (&devices["verified"], &devices["device"]),
        (&json!(true), &json!(world.device("bob")))
    );

    let number = bob["number"].as_str().unwrap();
    let last = if number.ends_with('0') { "1" } else { "0" };
    let other = format!("{}{last}", &number[..number.len() - 1]);
    world
        .at("bob", &["verify", "alice", "--confirm", &other])
        .failed(5, "not the safety number");
    assert_eq!(of("bob", "alice")["verified"], false);
    let shown = world
        .at("bob", &["verify", "alice", "--confirm", number])
        .succeeded();
    let digits: Vec<&str> = bob["number"].as_str().unwrap().split(' ').collect();
    assert!(shown.stdout.contains(&digits[..4].join(" ")), "{shown:?}");
    assert!(shown.stdout.ends_with("alice, verified\n"), "{shown:?}");
    world
        .at("alice", &["verify", "alice"])
        .failed(2, "this is yourself");
}

/// Marks `user` as verified, as a script that has compared the number would.
fn verify(world: &World, at: &str, user: &str) {
    let shown = world.at(at, &["verify", user, "--json"]).succeeded().json();
    let number = shown["number"].as_str().unwrap();
    world
        .at(at, &["verify", user, "--confirm", number])
        .succeeded();
}

#[test]
fn nothing_is_sent_to_a_verified_user_whose_devices_have_changed() {
    let (world, _relay) = alice_and_bob();
    verify(&world, "alice", "bob");
    world.at("alice", &["send", "bob", "one"]).succeeded();
    world.join("bob", "bob2");
    world
        .at("alice", &["send", "bob", "two"])
        .failed(5, "verify");
    let error = world.at("alice", &["send", "bob", "two", "--json"]);
    let error: Value = serde_json::from_str(error.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], "peer_changed");

    let changed = world.at("alice", &["listen", "--timeout", "1", "--json"]);
    let changed: Vec<Value> = changed
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let changed = changed
        .iter()
        .find(|event| event["event"] == "peer_changed")
        .unwrap();
    assert_eq!(
        (&changed["user"], &changed["was_verified"]),
        (&json!("bob"), &json!(true))
    );
    assert_eq!(changed["added"], json!([world.device("bob2")]));

    verify(&world, "alice", "bob");
    world.at("alice", &["send", "bob", "three"]).succeeded();
    assert_eq!(listen_for_one(&world, "bob2")["text"], "three");
}

#[test]
fn other_devices_of_the_sender_get_a_copy() {
    let (world, _relay) = alice_and_bob();
    world.join("alice", "alice2");
    world
        .at("alice", &["send", "bob", "both of me know"])
        .succeeded();
    let mut other = world.start(&["--home", "alice2", "listen", "--json"]);
    let copy = other.next_json();
    assert_eq!(
        (&copy["event"], &copy["to"], &copy["text"]),
        (&json!("copy"), &json!("bob"), &json!("both of me know"))
    );
    assert_eq!(copy["device"], world.device("alice").as_str());
    assert!(other.stop("TERM").success());
    let devices = world.at("alice", &["devices", "--json"]).succeeded();
    assert_eq!(devices.stdout.lines().count(), 2, "{devices:?}");
}

#[test]
fn chat_sends_every_line_and_shows_what_arrives() {
    let (world, _relay) = alice_and_bob();
    world.at("bob", &["send", "alice", "hello"]).succeeded();
    let mut alice = world.start(&["--home", "alice", "listen"]);
    assert!(alice.next_line().ends_with(" bob: hello"));
    world
        .run_with(&["chat", "alice", "--home", "bob"], "one\n\ntwo\nthree")
        .succeeded();
    for line in ["one", "two", "three"] {
        assert!(alice.next_line().ends_with(&format!(" bob: {line}")));
    }
    assert!(alice.stop("INT").success());
    let refused = world.run_with(&["chat", "nobody", "--home", "bob"], "hello\n");
    refused.failed(1, "no device yet");
}

/// What a program is made on: events and results go out, lines come in.
#[test]
fn chat_of_a_program_reports_its_lines_and_shows_what_arrives() {
    let (world, _relay) = alice_and_bob();
    world.at("bob", &["send", "alice", "hello"]).succeeded();
    let chat = ["--home", "alice", "chat", "bob", "--json-lines", "--json"];
    let chat = world.run_with(&chat, "{\"text\": \"one\"}\n").succeeded();
    let lines: Vec<Value> = chat
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let sent = lines
        .iter()
        .find(|line| line["state"] == "accepted")
        .unwrap();
    let heard = listen_for_one(&world, "bob");
    assert_eq!((&heard["id"], &heard["text"]), (&sent["id"], &json!("one")));
}

#[test]
fn own_devices_have_names_that_the_others_learn() {
    let (world, _relay) = alice_and_bob();
    let invitation = world.invite("alice");
    let join = [
        "join",
        "--home",
        "alice2",
        "--name",
        "the new one",
        "--json",
    ];
    let joined = world.run_with(&join, invitation).succeeded().json();
    assert_eq!(joined["name"], "the new one");
    let whoami = |home: &str| world.at(home, &["whoami", "--json"]).succeeded().json();
    assert_eq!(whoami("alice2")["name"], "the new one");
    assert_eq!(whoami("alice")["name"], Value::Null);
    world
        .at("alice", &["devices", "name", "the old one"])
        .succeeded();
    assert_eq!(whoami("alice")["name"], "the old one");
    world.at("bob", &["devices", "name", "bob's"]).succeeded();

    let names = |home: &str, user: &str| -> Vec<(Value, Value)> {
        let shown = world.at(home, &["devices", user, "--json"]).succeeded();
        let device = |line| {
            let device: Value = serde_json::from_str(line).unwrap();
            (device["device"].clone(), device["name"].clone())
        };
        shown.stdout.lines().map(device).collect()
    };
    // The name is a message to the user's other devices.
    world.at("alice2", &["listen", "--timeout", "1"]);
    for home in ["alice", "alice2"] {
        let mut names = names(home, "alice");
        names.sort_by_key(|(_, name)| name.to_string());
        let expected = [("alice2", "the new one"), ("alice", "the old one")];
        assert_eq!(
            names,
            expected.map(|(home, name)| (json!(world.device(home)), json!(name)))
        );
    }
    assert_eq!(
        names("alice", "bob"),
        [(json!(world.device("bob")), Value::Null)],
        "names are for oneself"
    );
}

#[test]
fn device_that_was_removed_is_not_let_in_and_gets_nothing() {
    let (world, _relay) = alice_and_bob();
    world.join("bob", "bob2");
    world.at("alice", &["send", "bob", "to both"]).succeeded();
    let lost = world.device("bob2");
    let unasked = world.at("bob", &["devices", "remove", &lost]);
    unasked.failed(2, "--yes");
    let other = world.at("alice", &["devices", "remove", &lost, "--yes"]);
    other.failed(1, "no device of yours");
    let removed = world
        .at("bob", &["devices", "remove", &lost, "--yes", "--json"])
        .succeeded()
        .json();
    assert_eq!(removed, json!({"device": lost, "removed": true}));

    world.at("bob2", &["listen", "--count", "1"]).failed(3, "");
    world.at("alice", &["send", "bob", "to one"]).succeeded();
    for text in ["to both", "to one"] {
        assert_eq!(listen_for_one(&world, "bob")["text"], text);
    }
    let told = world.at("alice", &["listen", "--timeout", "1", "--json"]);
    let told: Vec<Value> = told
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let undelivered = told
        .iter()
        .find(|event| event["event"] == "not_delivered")
        .unwrap();
    assert_eq!(
        (&undelivered["device"], &undelivered["reason"]),
        (&json!(lost), &json!("device_removed"))
    );
}

#[test]
fn operator_revokes_a_device_while_it_listens_and_a_user() {
    let (world, _relay) = alice_and_bob();
    let mut listening = world.start(&["--home", "bob", "listen"]);
    listening.said("connected");
    let bob = world.device("bob");
    let revoke = |what: &[&str]| {
        let command = [&["relay", "revoke", "--data", "relay", "--json"], what].concat();
        world.run(&command)
    };
    let revoked = revoke(&["--device", &bob]).succeeded().json();
    assert_eq!(revoked["device"], json!(bob));
    let (status, _, said) = listening.end();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("revoked"), "{said}");
    world
        .at("alice", &["send", "bob", "hello"])
        .failed(1, "no device");
    revoke(&["--user", "alice"]).succeeded();
    world.at("alice", &["listen"]).failed(3, "revoked");

    for (wrong, said) in [
        (&[] as &[&str], "required"),
        (&["--device", &bob, "--user", "bob"], "cannot be used with"),
        (&["--issued-before", "yesterday"], "seconds since 1970"),
        (&["--issued-before", "1800000000000"], "in the future"),
        (&["--jti", ""], "1 to 255 bytes"),
    ] {
        revoke(wrong).failed(2, said);
    }
    let elsewhere = ["relay", "revoke", "--data", "nothing", "--user", "bob"];
    world.run(&elsewhere).failed(1, "nothing");
}

/// docs/protocol.md §3.9
#[test]
fn relay_gets_a_new_key_and_devices_follow() {
    let (world, relay) = alice_and_bob();
    world.at("alice", &["send", "bob", "before"]).succeeded();
    let listen = relay.listen.clone();
    let rotate = ["relay", "rotate-key", "--data", "relay", "--json"];
    let rotated = world.run(&rotate).succeeded().json();
    let new = rotated["thumbprint"].as_str().unwrap();
    assert_ne!(rotated["previous"], new);
    assert!(relay.running.stop("TERM").success());
    let relay = world.relay(&listen);
    let mut listening = world.start(&["--home", "bob", "listen", "--json", "--count", "1"]);
    listening.said("relay_key_changed");
    let (status, ..) = listening.end();
    assert!(status.success());

    // The overlap is over: bob has heard of it, also his doctor; alice was away.
    assert!(relay.running.stop("TERM").success());
    std::fs::remove_file(world.path().join("relay/relay.previous")).unwrap();
    let _relay = world.relay(&listen);
    world.at("bob", &["send", "alice", "after"]).succeeded();
    world.at("bob", &["doctor"]).succeeded();
    world.at("alice", &["listen"]).failed(4, new);
    let elsewhere = ["relay", "rotate-key", "--data", "nothing"];
    world.run(&elsewhere).failed(1, "nothing");
}

#[test]
fn second_process_in_the_same_home_is_refused() {
    let (world, _relay) = alice_and_bob();
    let mut first = world.start(&["--home", "alice", "listen"]);
    first.said("connected");
    world
        .at("alice", &["send", "bob", "x"])
        .failed(1, "open in another process");
    // It needs no store.
    world.at("alice", &["whoami"]).succeeded();
    assert!(first.stop("INT").success());
    world.at("alice", &["send", "bob", "x"]).succeeded();
}

#[test]
fn home_that_has_a_device_is_not_joined_again() {
    let (world, _relay) = alice_and_bob();
    let device = world.device("alice");
    let invitation = world.invite("mallory");
    let again = world.run_with(&["join", "--home", "alice"], &invitation);
    again.failed(1, "already holds a device of alice");
    assert_eq!(world.device("alice"), device);
    world
        .run_with(&["join", "--home", "mallory"], &invitation)
        .succeeded();
}

#[test]
fn device_enrolled_for_somebody_else_than_the_invitation_names_does_not_join() {
    let (world, _relay) = alice_and_bob();
    let mut invitation = Invitation::parse(world.invite("carol").trim()).unwrap();
    invitation.user = "mallory".parse().unwrap();
    let line = invitation.to_line();
    world
        .run_with(&["join", "--home", "carol"], line.as_str())
        .failed(3, "another user");
    world.at("carol", &["whoami"]).failed(3, "sealwire join");
    world.join("carol", "carol");
}

#[test]
fn new_own_device_stops_what_goes_to_verified_users() {
    let (world, _relay) = alice_and_bob();
    verify(&world, "alice", "bob");
    world.join("alice", "alice2");
    world.at("alice", &["devices"]).succeeded();
    world
        .at("alice", &["send", "bob", "two"])
        .failed(5, "verify");
    let told = world.at("alice", &["listen", "--timeout", "1"]);
    assert!(told.stderr.contains("your own"), "{told:?}");
    verify(&world, "alice", "bob");
    world.at("alice", &["send", "bob", "three"]).succeeded();
}

#[test]
fn invitation_is_good_once() {
    let (world, _relay) = alice_and_bob();
    let invitation = world.invite("carol");
    world
        .run(&["join", invitation.trim(), "--home", "carol"])
        .succeeded();
    let again = world.run_with(&["join", "--home", "mallory"], &invitation);
    again.failed(3, "it was used");
    world.at("mallory", &["whoami"]).failed(3, "sealwire join");
}

#[test]
fn expired_invitation_is_refused_by_the_relay() {
    let (world, _relay) = alice_and_bob();
    let short = [
        "invite",
        "carol",
        "--data",
        "relay",
        "--lifetime",
        "1s",
        "--json",
    ];
    let invited = world.run(&short).succeeded().json();
    let (line, expires) = (
        invited["invite"].as_str().unwrap(),
        invited["expires"].as_u64().unwrap(),
    );
    // The relay counts whole seconds.
    let now = || {
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_secs()
    };
    while now() <= expires {
        std::thread::yield_now();
    }
    world
        .run_with(&["join", "--home", "carol"], line)
        .failed(3, "expired");
    assert!(
        world.files("carol").is_empty(),
        "what was made for nothing is gone"
    );
}

#[test]
fn invitation_made_while_the_relay_is_down_works_when_it_is_back() {
    let world = World::new();
    world.run(&["relay", "init", "relay"]).succeeded();
    let early = world.run(&["invite", "alice", "--data", "relay"]);
    early.failed(1, "the relay's address is not known yet");

    let relay = world.relay("127.0.0.1:0");
    let listen = relay.listen.clone();
    assert!(relay.running.stop("TERM").success());
    let invitation = world.invite("alice");
    let down = world.run_with(&["join", "--home", "alice"], &invitation);
    down.failed(4, &listen);
    let _relay = world.relay(&listen);
    world
        .run_with(&["join", "--home", "alice"], &invitation)
        .succeeded();
}

#[test]
fn relay_says_how_it_is_reached_and_ends_in_order() {
    let world = World::new();
    let thumbprint = world
        .run(&["relay", "init", "relay", "--json"])
        .succeeded()
        .json()["thumbprint"]
        .clone();
    for signal in ["INT", "TERM"] {
        let relay = world.relay("127.0.0.1:0");
        assert_eq!(
            relay.address,
            format!("wss://{}/v1#{}", relay.listen, thumbprint.as_str().unwrap())
        );
        assert!(relay.running.stop(signal).success());
    }
    let relay = world.relay("127.0.0.1:0");
    let taken = world.run(&["relay", "run", "--data", "relay", "--listen", "127.0.0.1:0"]);
    taken.failed(1, "");
    let taken = world.run(&["relay", "run", "--dev", "--listen", &relay.listen]);
    taken.failed(1, "cannot listen");
}

#[test]
fn address_given_at_init_stands_in_invitations_wherever_the_relay_listens() {
    let world = World::new();
    let init = [
        "relay",
        "init",
        "relay",
        "--address",
        "wss://relay.example/v1",
    ];
    world.run(&init).succeeded();
    let before = world
        .run(&["invite", "alice", "--data", "relay", "--json"])
        .succeeded()
        .json();
    let relay = world.relay("127.0.0.1:0");
    assert!(relay.address.starts_with("wss://relay.example/v1#"));
    assert!(relay.running.stop("TERM").success());
    let relay = world.relay("127.0.0.1:0");
    let after = world
        .run(&["invite", "alice", "--data", "relay", "--json"])
        .succeeded()
        .json();
    assert_eq!(
        (&before["address"], &after["address"]),
        (&json!(relay.address), &json!(relay.address))
    );
}

#[test]
fn development_relay_needs_nothing_and_leaves_nothing() {
    let world = World::new();
    let run = ["relay", "run", "--dev", "--listen", "127.0.0.1:0", "--json"];
    let mut relay = world.start(&run);
    let started = relay.next_json();
    let data = started["data"].as_str().unwrap().to_owned();
    let invited = world.run(&["invite", "alice", "--data", &data]).succeeded();
    world
        .run_with(&["join", "--home", "alice"], invited.stdout)
        .succeeded();
    assert!(relay.stop("INT").success());
    assert!(!std::path::Path::new(&data).exists());
    let open = world.run(&["relay", "run", "--dev", "--listen", "0.0.0.0:0"]);
    open.failed(2, "for this machine only");
}

#[test]
fn relay_that_another_program_started_ends_with_its_input() {
    let world = World::new();
    let run = [
        "relay",
        "run",
        "--dev",
        "--listen",
        "127.0.0.1:0",
        "--until-eof",
        "--json",
    ];
    let mut relay = world.start(&run);
    assert_eq!(relay.next_json()["event"], "listening");
    assert!(relay.end().0.success());
}

#[test]
fn store_with_a_passphrase_opens_only_with_it() {
    let (world, _relay) = alice_and_bob();
    let write =
        |name: &str, content: &str| std::fs::write(world.path().join(name), content).unwrap();
    write("right", "correct horse battery staple\n");
    write("wrong", "incorrect\n");
    write("empty", "\n");
    let invitation = world.invite("carol");
    let join = ["join", "--home", "carol", "--passphrase-file", "right"];
    world.run_with(&join, invitation).succeeded();
    assert!(!world.path().join("carol/device.key").exists());
    let send = |file| world.at("carol", &["send", "bob", "x", "--passphrase-file", file]);
    send("wrong").failed(1, "passphrase");
    send("empty").failed(1, "does not begin with a line of text");
    send("missing").failed(1, "cannot read missing");
    send("right").succeeded();
    let none = world.at("alice", &["send", "bob", "x", "--passphrase-file", "right"]);
    none.failed(2, "no passphrase but a key file");
}

#[test]
fn home_is_its_owner_s_and_says_nothing_secret() {
    let (world, _relay) = alice_and_bob();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.path().join("alice")), 0o700);
    let files = world.files("alice");
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{file:?}");
    }
    let description = std::fs::read(world.path().join("alice/device.json")).unwrap();
    let description: serde_json::Map<String, Value> = serde_json::from_slice(&description).unwrap();
    let mut members: Vec<&str> = description.keys().map(String::as_str).collect();
    members.sort_unstable();
    let public = [
        "address",
        "certificate",
        "device",
        "issuer_key",
        "lock",
        "user",
        "version",
    ];
    assert_eq!(members, public);

    let key = world.path().join("alice/device.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    world
        .at("alice", &["send", "bob", "x"])
        .failed(1, "can be read or written by others");
}

#[test]
fn damaged_home_is_refused_and_not_made_anew() {
    let (world, _relay) = alice_and_bob();
    let path = world.path().join("alice/device.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for (from, to, message) in [
        ("\"version\": 1", "\"version\": 2", "newer"),
        ("\"version\": 1", "\"version\": 0", "damaged"),
        ("\"version\": 1", "\"version\": 1, \"more\": 1", "damaged"),
        ("\"alice\"", "\"\"", "damaged"),
        ("wss://", "http://", "damaged"),
        ("}", "", "damaged"),
    ] {
        assert!(good.contains(from));
        std::fs::write(&path, good.replace(from, to)).unwrap();
        world.at("alice", &["whoami"]).failed(1, message);
        let join = world.run_with(&["join", "--home", "alice"], "sealwire-invite:AA");
        join.failed(1, message);
    }
    std::fs::write(&path, good).unwrap();
    let store = world.path().join("alice/device.store");
    std::fs::remove_file(&store).unwrap();
    world
        .at("alice", &["send", "bob", "x"])
        .failed(1, "device.store is missing");
    assert!(!store.exists());
}

#[test]
fn relay_with_another_key_or_certificate_is_refused() {
    let (world, relay) = alice_and_bob();
    let listen = relay.listen.clone();
    drop(relay);
    let directory = |name: &str| world.path().join(name);
    std::fs::rename(directory("relay"), directory("old")).unwrap();
    let _impostor = world.relay(&listen);
    world
        .at("alice", &["send", "bob", "x"])
        .failed(4, "not the one that was pinned");
}

#[test]
fn command_that_waits_for_a_relay_that_does_not_answer_ends_when_asked() {
    let (world, relay) = alice_and_bob();
    let listen = relay.listen.clone();
    relay.running.kill();
    let silent = TcpListener::bind(&listen).unwrap();
    for (command, ends) in [(&["listen"][..], 0), (&["send", "bob", "x"], 1)] {
        let running = world.start(&[&["--home", "alice"], command].concat());
        let _connected = silent.accept().unwrap();
        assert_eq!(running.stop("INT").code(), Some(ends), "{command:?}");
    }
}

#[test]
fn relay_that_is_not_there_is_unreachable() {
    let world = World::new();
    // A port where nothing listens any more.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let key = SigningKey::from_seed(&Seed::new([1; 32]));
    let relay = Introduction {
        address: format!("wss://127.0.0.1:{port}/v1#{}", key.thumbprint())
            .parse()
            .unwrap(),
        certificate: Some([2; 32]),
        issuer_key: *key.public(),
    };
    let invitation = Invitation {
        relay,
        user: "alice".parse().unwrap(),
        code: InviteCode::new(vec![3; 32]).unwrap(),
        expires: u64::MAX,
    };
    let join = world.run_with(
        &["join", "--home", "alice", "--json"],
        invitation.to_line().as_bytes(),
    );
    assert_eq!(join.code, Some(4), "{join:?}");
    let error: Value = serde_json::from_str(&join.stderr).unwrap();
    assert_eq!(error["error"]["code"], "unreachable");
    world.at("alice", &["whoami"]).failed(3, "sealwire join");
}

#[test]
fn code_of_an_invitation_is_shown_only_by_invite() {
    let world = World::new();
    world.run(&["relay", "init", "relay"]).succeeded();
    let mut running = world.start(&[
        "relay",
        "run",
        "--data",
        "relay",
        "--listen",
        "127.0.0.1:0",
        "--log",
        "trace",
        "--json",
    ]);
    running.next_json();
    let invited = world
        .run(&["invite", "alice", "--data", "relay"])
        .succeeded();
    let line = invited.stdout.trim().to_owned();
    let code = Invitation::parse(&line).unwrap();
    assert!(!invited.stderr.contains("sealwire-invite:"), "{invited:?}");
    let joined = world
        .run_with(&["join", "--home", "alice", "--log", "trace"], &line)
        .succeeded();
    let logged = running.ask_to_end("TERM").end().2;
    let code = sealwire_protocol::base64url::encode(code.code.expose());
    for text in [&joined.stdout, &joined.stderr, &logged] {
        assert!(!text.contains(&line) && !text.contains(&code));
    }
}
