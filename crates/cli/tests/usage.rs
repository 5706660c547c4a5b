//! What can be asked of the commands that need the network, and what they say before they need it.
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

const COMMANDS: [&[&str]; 22] = [
    &["relay", "init"],
    &["relay", "run"],
    &["relay", "stats"],
    &["relay", "users"],
    &["relay", "devices"],
    &["relay", "mailboxes"],
    &["relay", "backup"],
    &["relay", "restore"],
    &["relay", "config", "default"],
    &["relay", "config", "show"],
    &["relay", "config", "check"],
    &["invite"],
    &["join"],
    &["whoami"],
    &["devices"],
    &["devices", "name"],
    &["devices", "remove"],
    &["send"],
    &["listen"],
    &["chat"],
    &["verify"],
    &["doctor"],
];

/// A safety number, by its form.
const DIGITS: &str = "12345 12345 12345 12345 12345 12345 12345 12345 12345 12345 12345 12345";

#[test]
fn help_of_every_command_has_examples() {
    let world = World::new();
    for command in COMMANDS {
        let help = world.run(&[command, &["--help"]].concat()).succeeded();
        let example = format!("\n  sealwire {}", command.join(" "));
        assert!(help.stdout.contains("Examples:"), "{help:?}");
        assert!(help.stdout.contains(&example), "{help:?}");
        assert_eq!(help.stderr, "");
    }
}

#[test]
fn wrong_arguments_are_usage_errors() {
    let world = World::new();
    for arguments in [
        &["relay"][..],
        &["relay", "init"],
        &["relay", "init", "r", "--address", "http://relay.example/v1"],
        &["relay", "init", "r", "--address", "wss://relay.example/v2"],
        &["relay", "init", "r", "--host", "not a host"],
        &["relay", "run"],
        &["relay", "run", "--dev", "--listen", "nowhere"],
        &["relay", "run", "--dev", "--tls-cert", "c"],
        &["relay", "run", "--dev", "--tls-key", "k"],
        &[
            "relay",
            "run",
            "--dev",
            "--plain",
            "--tls-cert",
            "c",
            "--tls-key",
            "k",
        ],
        &["relay", "run", "--dev", "--address", "relay.example"],
        &["relay", "run", "--dev", "--log", "a=b=c"],
        &["invite", "alice"],
        &["invite", "", "--data", "r"],
        &["invite", "a\tb", "--data", "r"],
        &["invite", "alice", "--data", "r", "--lifetime", "24"],
        &["invite", "alice", "--data", "r", "--lifetime", "0s"],
        &["join", "sealwire-invite:", "--home", "h"],
        &["join", "sealwire-invite:AAAA====", "--home", "h"],
        &["join", "https://example.com", "--home", "h"],
        &["send"],
        &["send", "bob", "hello", "--wait", "forever"],
        &["send", "bob", "hello", "--timeout", "0"],
        &["send", "bob", "hello", "there"],
        &["send", "bob", "hello", "--lines"],
        &["send", "bob", "hello", "--json-lines"],
        &["send", "bob", "--json-lines", "--type", "text/html"],
        &["send", "bob", "--lines", "--at-once", "0"],
        &["relay", "run", "--dev", "--messages-per-minute", "0"],
        &["send", "bob", "hello", "--wait", "never"],
        &["devices", "remove"],
        &["devices", "remove", "bob"],
        &["devices", "name"],
        &["devices", "name", ""],
        &["devices", "name", "a\nb"],
        &["join", "--name", "", "--home", "h"],
        &["listen", "--count", "0"],
        &["listen", "--timeout", "soon"],
        &["chat"],
        &["verify"],
        &["doctor", "--audience", "a"],
        &["relay", "run", "--plain"],
        &["relay", "stats"],
        &["relay", "backup", "b"],
        &["relay", "restore", "--data", "r"],
        &["relay", "devices", "--data", "r", "--user", ""],
        &["relay", "config"],
        &["relay", "config", "show", "--config", "missing.toml"],
        &["relay", "config", "check"],
        &["verify", "bob", "--confirm"],
        &["verify", "bob", "--confirm", "12345"],
        &["verify", "bob", "--qr", "x", "--confirm", DIGITS],
    ] {
        let refused = world.run(arguments);
        assert_eq!(refused.code, Some(2), "{arguments:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{arguments:?}");
        let json = world.run(&[&["--json"], arguments].concat());
        assert_eq!(json.code, Some(2), "{arguments:?}");
        // Logs go there too; the error is the last line.
        let error: Value = serde_json::from_str(json.stderr.lines().last().unwrap()).unwrap();
        assert!(
            error["error"]["message"]
                .as_str()
                .is_some_and(|message| !message.is_empty()),
            "{arguments:?}"
        );
    }
    assert_eq!(
        std::fs::read_dir(world.path()).unwrap().count(),
        0,
        "nothing was made"
    );
}

#[test]
fn device_commands_say_how_to_get_a_device() {
    let world = World::new();
    for arguments in [
        &["whoami"][..],
        &["devices"],
        &["devices", "name", "laptop"],
        &["send", "bob", "hello"],
        &["send", "bob"],
        &["listen"],
        &["chat", "bob"],
        &["verify", "bob"],
        &["doctor"],
    ] {
        world
            .at("home", arguments)
            .failed(3, "run `sealwire join` with an invitation first");
    }
    assert!(!world.path().join("home").exists());
}

#[test]
fn what_is_no_relay_is_not_run_and_invites_nobody() {
    let world = World::new();
    std::fs::create_dir(world.path().join("empty")).unwrap();
    for data in ["empty", "missing"] {
        for arguments in [
            &["relay", "run", "--data", data][..],
            &["invite", "alice", "--data", data],
        ] {
            world.run(arguments).failed(1, "run `sealwire relay init");
        }
    }
    assert!(!world.path().join("missing").exists());
}

#[test]
fn relay_is_initialised_once() {
    let world = World::new();
    world.run(&["relay", "init", "relay"]).succeeded();
    let before = std::fs::read(world.path().join("relay/relay.key")).unwrap();
    world
        .run(&["relay", "init", "relay"])
        .failed(1, "never replaced");
    assert_eq!(
        std::fs::read(world.path().join("relay/relay.key")).unwrap(),
        before
    );
}

#[test]
fn secrets_are_not_taken_from_the_command_line() {
    let world = World::new();
    for arguments in [
        &["join", "--passphrase", "secret", "--home", "h"][..],
        &["join", "--passphrase=secret"],
        &["send", "bob", "x", "--passphrase", "secret"],
    ] {
        assert_eq!(world.run(arguments).code, Some(2), "{arguments:?}");
    }
}

#[test]
fn invitation_that_is_not_given_is_asked_for() {
    let world = World::new();
    for arguments in [&["join", "--home", "h"][..], &["join", "-", "--home", "h"]] {
        world.run(arguments).failed(2, "no invitation was given");
        let prose = world.run_with(arguments, "please join us\n");
        prose.failed(2, "it begins with \"sealwire-invite:\"");
    }
    let long = world.run_with(&["join", "--home", "h"], "x".repeat(1 << 20));
    long.failed(2, "longer than 2048");
}
