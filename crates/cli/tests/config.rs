//! The relay's configuration from outside: the file, the environment and the flags, what is in effect, and what is wrong with it.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use world::{Ended, World};

/// A world with a data directory, and `relay.toml` with this text.
fn with_file(text: &str) -> World {
    let world = World::new();
    world.run(&["relay", "init", "relay"]).succeeded();
    write(&world, "relay.toml", text);
    world
}

fn write(world: &World, name: &str, text: &str) {
    std::fs::write(world.path().join(name), text).unwrap();
}

/// The messages on standard error, one a problem.
fn problems(ended: &Ended) -> Vec<String> {
    let lines = ended.stderr.lines().map(|line| {
        let error: Value = serde_json::from_str(line).unwrap();
        assert_eq!(error["error"]["code"], "usage");
        error["error"]["message"].as_str().unwrap().to_owned()
    });
    lines.collect()
}

/// A file as an editor makes it may be read by everybody, which a key may not.
fn mode(world: &World, name: &str, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(world.path().join(name), mode).unwrap();
}

fn certificate(world: &World, name: &str) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    write(world, &format!("{name}.pem"), &made.cert.pem());
    write(
        world,
        &format!("{name}.key"),
        &made.signing_key.serialize_pem(),
    );
    mode(world, &format!("{name}.key"), 0o640);
}

#[test]
fn relay_runs_as_the_file_says_and_flags_win() {
    let world = with_file("data = \"relay\"\n[listen]\naddress = \"127.0.0.1:0\"\n");
    let mut running = world.start(&["relay", "run", "--config", "relay.toml", "--json"]);
    let started = running.next_json();
    assert_eq!(started["event"], "listening");
    assert_eq!(started["data"], "relay");
    assert!(started["address"].as_str().unwrap().starts_with("wss://"));
    assert!(running.stop("TERM").success());

    let plain = [
        "relay",
        "run",
        "--config",
        "relay.toml",
        "--plain",
        "--json",
    ];
    let mut running = world.start(&plain);
    let started = running.next_json();
    assert!(started["address"].as_str().unwrap().starts_with("ws://"));
    assert!(running.stop("TERM").success());
}

#[test]
fn relay_logs_as_the_file_says() {
    let world = with_file(
        "data = \"relay\"\n[listen]\naddress = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nfilter = \"info\"\n",
    );
    let mut running = world.start(&["relay", "run", "--config", "relay.toml"]);
    let line = running.said("relay listening");
    let logged: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(logged["level"], "INFO");
    let (ended, stdout, stderr) = running.ask_to_end("TERM").end();
    assert!(ended.success());
    assert_eq!(stdout, "");
    // It is a log for programs to the end: hints and failures, too.
    for line in stderr.lines() {
        serde_json::from_str::<Value>(line).expect(line);
    }
    assert!(stderr.contains("{\"hint\":\"stopping"), "{stderr}");
    let directory = [
        "relay",
        "run",
        "--config",
        "relay.toml",
        "--data",
        "missing",
    ];
    let failed = world.run(&directory);
    assert_eq!(failed.stderr.lines().count(), 1);
    let failure: Value = serde_json::from_str(&failed.stderr).unwrap();
    assert!(failure["error"]["message"].is_string(), "{failed:?}");
}

#[test]
fn relay_does_not_start_on_a_configuration_that_is_wrong_and_says_all_of_it() {
    let world = with_file("data = \"relay\"\n[limits]\nmesages_per_minute = 5\nblobs = 0\n");
    for command in [
        &["relay", "run"][..],
        &["relay", "config", "show"],
        &["relay", "config", "check"],
    ] {
        let refused = world.run(&[command, &["--config", "relay.toml", "--json"]].concat());
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        assert_eq!(
            problems(&refused),
            [
                "relay.toml:3: there is no key limits.mesages_per_minute; did you mean messages_per_minute?",
                "relay.toml:4: limits.blobs is 0; write a whole number from 1 to 100000000",
            ],
            "{command:?}"
        );
    }
    let missing = world.run(&["relay", "run", "--config", "missing.toml"]);
    missing.failed(2, "cannot read missing.toml");
    write(&world, "binary.toml", "");
    std::fs::write(world.path().join("binary.toml"), [0xff, 0xfe]).unwrap();
    let binary = world.run(&["relay", "run", "--config", "binary.toml"]);
    binary.failed(2, "binary.toml is not UTF-8");
    let nothing = world.run(&["relay", "run"]);
    nothing.failed(2, "name the relay's directory with --data DIR");
}

#[test]
fn default_file_is_good_and_shows_what_is_so_anyway() {
    let world = with_file("");
    let printed = world.run(&["relay", "config", "default"]).succeeded();
    write(&world, "relay.toml", &printed.stdout);
    let checked = [
        "relay",
        "config",
        "check",
        "--config",
        "relay.toml",
        "--data",
        "relay",
    ];
    let checked = world.run(&checked).succeeded();
    assert_eq!(checked.stdout, "the configuration is good\n");
    let show = |arguments: &[&str]| {
        let shown = world.run(&[&["relay", "config", "show"], arguments].concat());
        shown.succeeded().stdout
    };
    assert_eq!(show(&["--config", "relay.toml"]), show(&[]));
}

#[test]
fn show_says_what_is_in_effect_and_who_has_said_it() {
    let world =
        with_file("data = \"relay\"\n\n[limits]\nkeep_alive = 90\nmailbox_bytes = \"1 GiB\"\n");
    let arguments = [
        "relay",
        "config",
        "show",
        "--config",
        "relay.toml",
        "--messages-per-minute",
        "60",
    ];
    let variables = [
        ("SEALWIRE_RELAY_LIMITS_BLOBS", "7"),
        ("SEALWIRE_RELAY_LIMITS_KEEP_ALIVE", "2 min"),
        ("SEALWIRE_LOG", "debug"),
    ];
    let shown = world
        .run_in(&variables, &[&arguments[..], &["--json"]].concat())
        .succeeded();
    let settings: BTreeMap<String, Value> = shown
        .stdout
        .lines()
        .map(|line| {
            let setting: Value = serde_json::from_str(line).unwrap();
            (setting["key"].as_str().unwrap().to_owned(), setting)
        })
        .collect();
    let of = |key: &str| {
        let setting = &settings[key];
        (
            setting["value"].clone(),
            setting["source"].clone(),
            setting["line"].clone(),
            setting["name"].clone(),
        )
    };
    let null = Value::Null;
    assert_eq!(
        of("data"),
        (json!("relay"), json!("file"), json!(1), null.clone())
    );
    assert_eq!(
        of("limits.mailbox_bytes"),
        (json!("1 GiB"), json!("file"), json!(5), null.clone())
    );
    assert_eq!(
        of("limits.keep_alive"),
        (
            json!("2 min"),
            json!("environment"),
            null.clone(),
            json!("SEALWIRE_RELAY_LIMITS_KEEP_ALIVE")
        )
    );
    assert_eq!(
        of("log.filter"),
        (
            json!("debug"),
            json!("environment"),
            null.clone(),
            json!("SEALWIRE_LOG")
        )
    );
    assert_eq!(
        of("limits.messages_per_minute"),
        (
            json!(60),
            json!("flag"),
            null.clone(),
            json!("--messages-per-minute")
        )
    );
    assert_eq!(
        of("tls.mode"),
        (
            json!("self-signed"),
            json!("default"),
            null.clone(),
            null.clone()
        )
    );
    assert_eq!(
        of("tls.key"),
        (null.clone(), json!("default"), null.clone(), null)
    );

    // What people are shown is a file again, with the same settings.
    let human = world.run_in(&variables, &arguments).succeeded().stdout;
    assert!(human.contains("# relay.toml:5\n"), "{human}");
    assert!(human.contains("# SEALWIRE_RELAY_LIMITS_BLOBS\n"), "{human}");
    assert!(human.contains("# --messages-per-minute\n"), "{human}");
    write(&world, "again.toml", &human);
    let again = world.run(&[
        "relay",
        "config",
        "show",
        "--config",
        "again.toml",
        "--json",
    ]);
    for line in again.succeeded().stdout.lines() {
        let setting: Value = serde_json::from_str(line).unwrap();
        let key = setting["key"].as_str().unwrap();
        assert_eq!(setting["value"], settings[key]["value"], "{key}");
    }
}

#[test]
fn environment_alone_configures_a_relay() {
    let world = with_file("data = \"nowhere\"");
    let variables = [
        ("SEALWIRE_RELAY_CONFIG", "relay.toml"),
        ("SEALWIRE_RELAY_DATA", "relay"),
        ("SEALWIRE_RELAY_LISTEN_ADDRESS", "127.0.0.1:0"),
    ];
    let mut running = world.start_in(&variables, &["relay", "run", "--json"]);
    assert_eq!(running.next_json()["data"], "relay");
    assert!(running.stop("TERM").success());
    let unknown = [("SEALWIRE_RELAY_LISTEN", "127.0.0.1:0")];
    let refused = world.run_in(&unknown, &["relay", "run", "--data", "relay"]);
    refused.failed(2, "SEALWIRE_RELAY_LISTEN: there is no such setting");
}

#[test]
fn check_reads_all_that_the_file_names() {
    let world = with_file("");
    certificate(&world, "one");
    certificate(&world, "two");
    let keys = world.run(&["jwk", "new", "--output", "signing.jwk"]);
    keys.succeeded();
    let public = world
        .run(&["jwk", "public", "signing.jwk"])
        .succeeded()
        .stdout;
    write(&world, "keys.json", &public);
    let file = |certificate: &str, key: &str, jwks: &str, data: &str| {
        format!(
            "data = \"{data}\"\n[tls]\nmode = \"files\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
             [issuer]\nissuer = \"i\"\naudience = \"a\"\njwks = \"{jwks}\"\n"
        )
    };
    std::fs::copy(world.path().join("one.key"), world.path().join("wide.key")).unwrap();
    mode(&world, "wide.key", 0o644);
    write(&world, "empty.key", "");
    mode(&world, "empty.key", 0o600);
    let check = |text: &str| {
        write(&world, "relay.toml", text);
        world.run(&[
            "relay",
            "config",
            "check",
            "--config",
            "relay.toml",
            "--json",
        ])
    };
    let good = check(&file("one.pem", "one.key", "keys.json", "relay"));
    assert_eq!(good.succeeded().json()["good"], true);

    for (text, said) in [
        (
            file("one.pem", "two.key", "keys.json", "relay"),
            "relay.toml:5: tls.key: this is the key of another certificate than tls.certificate",
        ),
        (
            file("one.key", "one.key", "keys.json", "relay"),
            "relay.toml:4: tls.certificate: one.key has no certificate in PEM",
        ),
        (
            file("one.pem", "wide.key", "keys.json", "relay"),
            "relay.toml:5: tls.key: others can read wide.key; run `chmod o= wide.key`",
        ),
        (
            file("one.pem", "empty.key", "keys.json", "relay"),
            "relay.toml:5: tls.key: empty.key has no private key in PEM",
        ),
        (
            file("one.pem", "one.key", "signing.jwk", "relay"),
            "relay.toml:9: issuer.jwks: signing.jwk is no key set for this relay",
        ),
        (
            file("one.pem", "one.key", "http://id.example/keys", "relay"),
            "relay.toml:9: issuer.jwks is \"http://id.example/keys\"",
        ),
        (
            file("one.pem", "one.key", "keys.json", "missing"),
            "relay.toml:1: data: missing is not a relay's data directory",
        ),
    ] {
        let refused = check(&text);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
        let said_all = problems(&refused);
        assert_eq!(said_all.len(), 1, "{said_all:?}");
        assert!(said_all[0].starts_with(said), "{said_all:?}");
    }

    let all = problems(&check(&file("no.pem", "no.key", "no.json", "no")));
    let keys: Vec<_> = all
        .iter()
        .map(|one| one.split(' ').nth(1).unwrap())
        .collect();
    assert_eq!(
        keys,
        ["data:", "tls.certificate:", "tls.key:", "issuer.jwks:"],
        "{all:?}"
    );
    let nothing = problems(&check(""));
    assert_eq!(
        nothing,
        ["data is missing: name the directory that `sealwire relay init` has made"]
    );
}

#[test]
fn relay_does_not_start_with_a_key_that_everybody_can_read() {
    let world = with_file("");
    certificate(&world, "one");
    let run = |listen| {
        let files = ["--tls-cert", "one.pem", "--tls-key", "one.key", "--json"];
        let relay = ["relay", "run", "--data", "relay", "--listen", listen];
        [&relay[..], &files].concat()
    };
    for exposed in [0o644, 0o602] {
        mode(&world, "one.key", exposed);
        let refused = world.run(&[&run("127.0.0.1:0")[..], &["--until-eof"]].concat());
        refused.failed(2, "--tls-key: tls.key: others can read one.key");
    }
    mode(&world, "one.key", 0o640);
    let mut running = world.start(&run("127.0.0.1:0"));
    assert_eq!(running.next_json()["event"], "listening");
    assert!(running.stop("TERM").success());
}

/// The self-signed certificate is a part of what is read.
#[test]
fn check_finds_a_data_directory_that_is_not_whole() {
    let world = with_file("data = \"relay\"");
    let check = ["relay", "config", "check", "--config", "relay.toml"];
    world.run(&check).succeeded();
    std::fs::write(world.path().join("relay/tls-cert.pem"), "").unwrap();
    world.run(&check).failed(2, "tls-cert.pem is damaged");
    std::fs::remove_file(world.path().join("relay/relay.key")).unwrap();
    world
        .run(&check)
        .failed(2, "relay.toml:1: data: cannot use relay/relay.key");
}

/// The examples of the documentation are configurations, and what is shown of tokens is one that a relay would take.
#[test]
fn examples_of_the_documentation_are_good() {
    let world = World::new();
    let documents = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let read = |name: &str| std::fs::read_to_string(format!("{documents}/{name}")).unwrap();
    let blocks = |document: &str, language: &str| {
        let (page, fence) = (read(document), format!("\n```{language}\n"));
        let blocks = page.split(&fence).skip(1);
        let blocks = blocks.map(|rest| rest.split("\n```").next().unwrap().to_owned());
        blocks.collect::<Vec<_>>()
    };
    let mut files = blocks("docs/operations.md", "toml");
    assert!(files.len() >= 6);
    let providers = blocks("docs/identity-providers.md", "toml");
    assert!(providers.len() >= 2);
    files.extend(providers);
    files.push(read("deploy/relay.toml"));
    if !cfg!(feature = "opentelemetry") {
        files.retain(|file| !file.contains("[telemetry]"));
    }
    for file in files {
        write(&world, "relay.toml", &file);
        let shown = world.run(&["relay", "config", "show", "--config", "relay.toml"]);
        assert!(shown.stdout.contains("# relay.toml:"), "{file}\n{shown:?}");
        shown.succeeded();
    }
    let tokens = blocks("docs/operations.md", "json");
    assert_eq!(tokens.len(), 1);
    write(&world, "claims.json", &tokens[0]);
    let made = ["jwk", "new", "--output", "signing.jwk"];
    world.run(&made).succeeded();
    let mint = [
        "token",
        "mint",
        "--key",
        "signing.jwk",
        "--claims",
        "claims.json",
    ];
    let minted = world.run(&mint).succeeded();
    assert_eq!(minted.stderr, "", "a relay would refuse it");
}

/// A connection that says nothing keeps the relay, which waits for it for 10 seconds.
#[test]
fn second_sigterm_ends_a_relay_that_is_still_being_drained() {
    use std::io::{Read as _, Write as _};
    let world = with_file(
        "data = \"relay\"\n[listen]\naddress = \"127.0.0.1:0\"\n[limits]\nhandshake_deadline = 60\n",
    );
    let mut running = world.start(&["relay", "run", "--config", "relay.toml", "--plain"]);
    let said = running.said("relay at ws://");
    let (_, address) = said.split_once("ws://").unwrap();
    let (listen, _) = address.split_once("/v1").unwrap();
    let connect = || std::net::TcpStream::connect(listen).unwrap();
    let _silent = connect();
    // Connections are taken in turn: the one before has been.
    let mut asking = connect();
    let request = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    asking.write_all(request).unwrap();
    let mut answer = String::new();
    asking.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut draining = running.ask_to_end("TERM");
    draining.said("again to stop at once");
    let (ended, _, said) = draining.ask_to_end("TERM").end();
    assert!(ended.success(), "{ended}");
    assert!(said.contains("stopped at once"), "{said}");
}

/// A supervisor that kills a relay before it has ended by itself takes from the last devices that they are told when to come back.
#[test]
fn supervisors_wait_for_longer_than_a_stop_takes() {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let number = |file: &str, before: &str| -> u64 {
        let text = std::fs::read_to_string(format!("{workspace}/{file}")).unwrap();
        let (_, rest) = text.split_once(before).unwrap();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap();
        rest[..end].parse().unwrap()
    };
    let window = sealwire_server::Drain::default().window().as_secs();
    // Links that do not leave, and then handlers of services that do not end.
    let grace = "SHUTDOWN_GRACE: Duration = Duration::from_secs(";
    let grace = 2 * number("crates/server/src/bounds.rs", grace);
    let end = "END: Duration = Duration::from_secs(";
    let traces = number("crates/cli/src/telemetry.rs", end);
    assert!(window > 0 && grace > 0 && traces > 0);
    for (file, before) in [
        ("deploy/sealwire-relay.service", "\nTimeoutStopSec="),
        ("docs/operations.md", "--stop-timeout "),
    ] {
        let waits = number(file, before);
        assert!(waits > window + grace + traces, "{file}: {waits}");
    }
}

/// The unit is as hardened as the documentation says, where this machine can tell.
#[test]
fn unit_is_one_that_systemd_takes() {
    let unit = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/sealwire-relay.service"
    );
    let text = std::fs::read_to_string(unit).unwrap();
    let commands = text
        .lines()
        .filter_map(|line| line.split_once("=/usr/local/bin/sealwire "));
    let world = World::new();
    let mut count = 0;
    for (_, arguments) in commands {
        let arguments: Vec<_> = arguments.split(' ').collect();
        // It is the configuration that is missing, and not the command.
        world
            .run(&arguments)
            .failed(2, "cannot read /etc/sealwire/relay.toml");
        count += 1;
    }
    assert_eq!(count, 1);
    let security = std::process::Command::new("systemd-analyze")
        .args([
            "security",
            "--offline=yes",
            "--threshold=16",
            "--no-pager",
            unit,
        ])
        .output();
    let Ok(security) = security else {
        eprintln!("SKIPPED: there is no systemd here that could look at the unit");
        return;
    };
    assert!(security.status.success(), "{security:?}");
    // Of a line that it does not understand it says so, and goes on.
    assert_eq!(String::from_utf8(security.stderr).unwrap(), "");
}

/// What can be told of the image without building it.
#[test]
fn image_is_made_of_what_there_is_and_runs_what_the_command_takes() {
    let workspace = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let read = |name: &str| std::fs::read_to_string(workspace.join(name)).unwrap();
    let file = read("deploy/Dockerfile").replace("\\\n", " ");
    let lines: Vec<_> = file
        .lines()
        .filter_map(|line| line.trim().split_once(' '))
        .collect();
    let of = |instruction| {
        let lines = lines.iter().filter(move |(name, _)| *name == instruction);
        lines.map(|(_, rest)| rest.trim())
    };

    let manifest = read("Cargo.toml");
    let (_, version) = manifest.split_once("\nrust-version = \"").unwrap();
    let version = version.split('"').next().unwrap();
    let image = of("FROM").next().unwrap();
    let (_, rust) = image.split_once("/rust:").unwrap();
    assert_eq!(rust.split('-').next(), Some(version), "{image}");
    let stages = of("FROM").filter_map(|line| line.split_once(" AS "));
    let stages: Vec<_> = stages.map(|(_, name)| format!("--from={name}")).collect();

    let mut copied = 0;
    for line in of("COPY") {
        let words: Vec<_> = line.split_whitespace().collect();
        let (options, files): (Vec<_>, Vec<_>) =
            words.into_iter().partition(|word| word.starts_with("--"));
        let (_, sources) = files.split_last().unwrap();
        assert!(!sources.is_empty(), "{line}");
        if let Some(from) = options.iter().find(|option| option.starts_with("--from=")) {
            assert!(stages.iter().any(|stage| stage == from), "{line}");
            continue;
        }
        for source in sources {
            assert!(workspace.join(source).exists(), "{line}");
            copied += 1;
        }
    }
    assert_eq!(copied, 2, "the sources, and the configuration");

    let program: Vec<String> = serde_json::from_str(of("ENTRYPOINT").next().unwrap()).unwrap();
    let placed = of("COPY").any(|line| line.ends_with(&format!(" {}", program[0])));
    assert!(placed && program.len() == 1, "{program:?}");
    let arguments: Vec<String> = serde_json::from_str(of("CMD").next().unwrap()).unwrap();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    // It is the configuration that is missing, and not the command.
    let world = World::new();
    let ended = world.run(&arguments);
    ended.failed(2, "cannot read /etc/sealwire/relay.toml");
    let placed = of("COPY").any(|line| line.ends_with(" /etc/sealwire/relay.toml"));
    assert!(placed, "it is in the image");
}
