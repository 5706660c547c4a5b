//! Joining with a token of an identity provider that the relay exchanges.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

use sealwire_tests::{Provider, Town};
use serde_json::json;
use world::World;

async fn town(provider: &Provider) -> (Town, String) {
    let provider = provider.clone();
    let town = Town::with(move |relay| relay.exchange(provider.exchange("acme/"))).await;
    let line = town.relay().introduction().unwrap().to_line();
    (town, line)
}

fn write_token(world: &World, provider: &Provider, user: &str) {
    let token = provider.token(user, &json!({}));
    std::fs::write(world.path().join("token"), format!("{token}\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_signs_in_with_a_token_from_a_file_whenever_it_connects() {
    let provider = Provider::new();
    let (town, line) = town(&provider).await;
    let bob = town.join("bob").await;
    tokio::task::block_in_place(|| {
        let world = World::new();
        let join = ["join", &line, "--exchange-token-file", "token", "--json"];
        let missing = world.at("alice", &join[..4]);
        assert!(
            missing.stderr.contains("no token to sign in with"),
            "{missing:?}"
        );
        let missing = missing.failed(4, "no token can be had now");
        assert!(missing.stdout.is_empty());
        write_token(&world, &provider, "alice");
        let joined = world.at("alice", &join).succeeded().json();
        assert_eq!(joined["user"], "acme/alice");

        world.at("alice", &["send", "bob", "hello"]).succeeded();
        // The home knows where to ask, wherever the command is run; what is there now is somebody else's.
        write_token(&world, &provider, "mallory");
        world.at("alice", &["send", "bob", "hello"]).failed(3, "");
        std::fs::remove_file(world.path().join("token")).unwrap();
        world.at("alice", &["send", "bob", "hello"]).failed(4, "");
        for home in world.files("alice") {
            let content = std::fs::read(&home).unwrap();
            let token = b"eyJhbGciOi";
            assert!(!content.windows(token.len()).any(|part| part == token));
        }
    });
    assert_eq!(
        bob.text().await,
        ("acme/alice".to_owned(), "hello".to_owned())
    );
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_signs_in_with_what_a_command_prints() {
    let provider = Provider::new();
    let (_town, line) = town(&provider).await;
    tokio::task::block_in_place(|| {
        let world = World::new();
        write_token(&world, &provider, "alice");
        let file = world.path().join("token");
        let command = format!("test -n \"$SEALWIRE_DEVICE\" && cat '{}'", file.display());
        let join = ["join", &line, "--exchange-command", &command];
        world.at("alice", &join).succeeded();
        let who = world.at("alice", &["whoami", "--json"]).succeeded().json();
        assert_eq!(who["user"], "acme/alice");
        // Not for this relay.
        let other = provider.token("eve", &json!({"aud": "account"}));
        std::fs::write(&file, other).unwrap();
        world
            .at("eve", &join)
            .failed(3, "the relay does not accept this token");
        assert!(!world.path().join("eve/device.json").exists());
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line_and_token_have_to_go_together() {
    let provider = Provider::new();
    let (_town, line) = town(&provider).await;
    tokio::task::block_in_place(|| {
        let world = World::new();
        write_token(&world, &provider, "alice");
        world
            .at("alice", &["join", &line])
            .failed(2, "--exchange-token-file");
        let invitation = [
            "join",
            "sealwire-invite:AA",
            "--exchange-token-file",
            "token",
        ];
        world.at("alice", &invitation).failed(2, "");
        let both = [
            "--exchange-token-file",
            "token",
            "--exchange-command",
            "true",
        ];
        let both = world.at("alice", &[&["join", &line], &both[..]].concat());
        assert_eq!(both.code, Some(2));
        assert!(both.stderr.contains("cannot be used with"), "{both:?}");
        let damaged = format!("{line}x");
        world
            .at("alice", &["join", &damaged, "--exchange-command", "true"])
            .failed(2, "");

        world
            .run(&[
                "relay",
                "init",
                "relay",
                "--address",
                "wss://relay.example/v1",
            ])
            .succeeded();
        let own = world
            .run(&["invite", "--exchange", "--data", "relay"])
            .succeeded();
        assert!(own.stdout.starts_with("sealwire-relay:"), "{own:?}");
        for wrong in [
            &["invite", "alice", "--exchange", "--data", "relay"][..],
            &["invite", "--data", "relay"],
        ] {
            let refused = world.run(wrong);
            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        }
    });
}
