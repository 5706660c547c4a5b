//! `sealwire doctor` from outside: what it finds between a device and its relay, one thing wrong at a time.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use sealwire_protocol::base64url;
use sealwire_tests::{Provider, Town};
use serde_json::{Value, json};
use world::{Ended, Relay, World};

const STEPS: [&str; 8] = [
    "address", "dns", "tcp", "tls", "http", "relay", "token", "clock",
];

/// What each step came to: every step is there, in its place.
fn results(ended: &Ended) -> Vec<(String, Value)> {
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = lines
        .iter()
        .map(|line| line["step"].as_str().unwrap())
        .collect();
    assert_eq!(names, STEPS, "{ended:?}");
    lines
        .into_iter()
        .map(|line| (line["result"].as_str().unwrap().to_owned(), line))
        .collect()
}

/// It fails first in `step`, with this code and exit code, after which nothing is looked at but what `goes_on` says.
#[track_caller]
fn fails(ended: &Ended, step: &str, code: &str, exit: i32, goes_on: &[&str]) -> Value {
    assert_eq!(ended.code, Some(exit), "{ended:?}");
    let mut found = None;
    for (name, (result, line)) in STEPS.iter().zip(results(ended)) {
        match found {
            None if *name == step => {
                assert_eq!(result, "failed", "{line}");
                assert_eq!(line["code"], code, "{line}");
                assert!(
                    line["advice"]
                        .as_str()
                        .is_some_and(|advice| !advice.is_empty())
                );
                found = Some(line);
            }
            None => assert_eq!(result, "ok", "{line}"),
            Some(_) if goes_on.contains(name) => assert_eq!(result, "ok", "{line}"),
            Some(_) => assert_eq!(result, "skipped", "{line}"),
        }
    }
    let error: Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(error["error"]["code"], code);
    found.unwrap()
}

fn doctor(world: &World, arguments: &[&str]) -> Ended {
    world.run(&[&["doctor", "--json"], arguments].concat())
}

/// A relay with a device of alice.
fn alice() -> (World, Relay) {
    let world = World::new();
    let relay = world.relay("127.0.0.1:0");
    world.join("alice", "alice");
    (world, relay)
}

/// An address at this port, with a thumbprint that is one.
fn address(scheme: &str, listen: &str) -> String {
    format!("{scheme}://{listen}/v1#vT7dUh0sDLZDZoVqh_qKFOPjy0rfcTwfBnkGwUQ4cXE")
}

#[test]
fn everything_is_well_with_a_device_that_is_let_in() {
    let (world, _relay) = alice();
    world.join("bob", "bob");
    world.at("bob", &["send", "alice", "hello"]).succeeded();
    let well = doctor(&world, &["alice"]).succeeded();
    for (result, line) in results(&well) {
        assert_eq!(result, "ok", "{line}");
    }
    // The device's own home is what is looked at where nothing else is named.
    let human = world.at("alice", &["doctor"]).succeeded().stdout;
    let token = human.lines().find(|line| line.contains(" token ")).unwrap();
    assert!(token.starts_with("ok "), "{human}");
    assert!(token.contains("lets this device in as alice"), "{human}");
    assert!(token.contains("; 1 in its mailbox"), "{human}");
    // Nothing was taken: the message is still there.
    let listen = ["listen", "--count", "1", "--timeout", "60", "--json"];
    let heard = world.at("alice", &listen).succeeded().json();
    assert_eq!(
        (&heard["text"], &heard["redelivered"]),
        (&"hello".into(), &false.into())
    );
}

#[test]
fn address_that_is_none_is_a_usage_error() {
    let world = World::new();
    let ended = doctor(&world, &["wss://relay.example/v1"]);
    let found = fails(&ended, "address", "bad_address", 2, &[]);
    assert!(
        found["found"].as_str().unwrap().contains("thumbprint"),
        "{found}"
    );
    let missing = world.run(&["doctor", "nowhere"]);
    missing.failed(3, "there is no device in nowhere");
}

#[test]
fn name_that_does_not_resolve_is_found() {
    let world = World::new();
    let ended = doctor(&world, &[&address("wss", "relay.invalid")]);
    fails(&ended, "dns", "name_not_resolved", 4, &[]);
}

#[test]
fn closed_port_is_found() {
    let (world, relay) = alice();
    let listen = relay.listen.clone();
    relay.running.kill();
    let ended = doctor(&world, &["alice"]);
    let found = fails(&ended, "tcp", "nothing_listens", 4, &[]);
    assert!(
        found["found"].as_str().unwrap().contains(&listen),
        "{found}"
    );
}

/// A relay of one's own, looked at without an invitation: TLS does not trust it, and it is the right one all the same.
#[test]
fn self_signed_certificate_is_found_and_the_relay_behind_it_is_proved() {
    let (world, relay) = alice();
    let ended = doctor(&world, &[&relay.address]);
    let found = fails(
        &ended,
        "tls",
        "certificate_unknown_issuer",
        4,
        &["http", "relay"],
    );
    let identity = std::fs::read(world.path().join("alice/device.json")).unwrap();
    let identity: Value = serde_json::from_slice(&identity).unwrap();
    let fingerprint = identity["certificate"].as_str().unwrap();
    assert!(
        found["found"].as_str().unwrap().contains(fingerprint),
        "{found}"
    );
}

/// Its operator's line names the certificate: nothing is wrong, and a token is looked at.
#[test]
fn relay_is_looked_at_by_its_line() {
    let (world, relay) = alice();
    let introduce = ["invite", "--exchange", "--data", "relay"];
    let line = world.run(&introduce).succeeded().stdout;
    let line = line.trim();
    let well = doctor(&world, &[line]).succeeded();
    let lines = results(&well);
    let words: Vec<_> = lines.iter().map(|(result, _)| result.as_str()).collect();
    assert_eq!(words, ["ok", "ok", "ok", "ok", "ok", "ok", "skipped", "ok"]);
    std::fs::write(world.path().join("token.jwt"), "nothing").unwrap();
    let ended = doctor(&world, &[line, "--token", "token.jwt"]);
    fails(&ended, "token", "token_malformed", 3, &["clock"]);
    let damaged = doctor(&world, &[&line[..line.len() - 2]]);
    let error: Value = serde_json::from_str(&damaged.failed(2, "copy").stderr).unwrap();
    assert_eq!(error["error"]["code"], "bad_introduction");

    // Another certificate than the line names.
    relay.running.kill();
    for file in ["relay/tls-cert.pem", "relay/tls-key.pem"] {
        let other = world.path().join("other").join(&file[6..]);
        if !other.exists() {
            world.run(&["relay", "init", "other"]).succeeded();
        }
        std::fs::copy(other, world.path().join(file)).unwrap();
    }
    let _relay = world.relay(&relay.listen);
    let ended = doctor(&world, &[line]);
    let goes_on = ["http", "relay"];
    fails(&ended, "tls", "certificate_pin_mismatch", 4, &goes_on);
}

#[test]
fn certificate_that_is_trusted_expired_or_for_another_name_is_told_apart() {
    let world = World::new();
    world.run(&["relay", "init", "relay"]).succeeded();
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(authority, authority_key).unwrap();
    let write = |name: &str, text: String| {
        let path = world.path().join(name);
        std::fs::write(&path, text).unwrap();
        // Keys are among them.
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, own).unwrap();
    };
    write("authority.pem", authority.pem());
    let far = |years: i32| rcgen::date_time_ymd(2026 + years, 1, 1);
    for (host, from, until, code) in [
        ("127.0.0.1", -5, 50, None),
        ("127.0.0.1", -5, -4, Some("certificate_expired")),
        ("127.0.0.1", 40, 50, Some("certificate_not_yet_valid")),
        ("relay.example", -5, 50, Some("certificate_for_other_name")),
    ] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (far(from), far(until));
        let certificate = params.signed_by(&key, &authority).unwrap();
        write("chain.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
        let mut running = world.start(&[
            "relay",
            "run",
            "--data",
            "relay",
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            "chain.pem",
            "--tls-key",
            "key.pem",
            "--json",
        ]);
        let started = running.next_json();
        let address = started["address"].as_str().unwrap();
        let roots = world.path().join("authority.pem");
        let environment = [("SSL_CERT_FILE", roots.to_str().unwrap())];
        let ended = world.run_in(&environment, &["doctor", address, "--json"]);
        match code {
            Some(code) => drop(fails(&ended, "tls", code, 4, &["http", "relay"])),
            None => {
                let results = results(&ended.succeeded());
                let words: Vec<_> = results.iter().map(|(result, _)| result.as_str()).collect();
                assert_eq!(words, ["ok", "ok", "ok", "ok", "ok", "ok", "skipped", "ok"]);
            }
        }
        assert!(running.stop("TERM").success());
    }
}

#[test]
fn port_without_tls_is_found() {
    let world = World::new();
    let (_server, listen) = web_server("HTTP/1.1 400 Bad Request\r\n\r\n");
    let ended = doctor(&world, &[&address("wss", &listen)]);
    fails(&ended, "tls", "no_tls", 4, &[]);
}

#[test]
fn web_server_in_place_of_the_relay_is_found() {
    let world = World::new();
    for (status, advice) in [
        ("404 Not Found", "/v1"),
        ("426 Upgrade Required", "Upgrade, Connection"),
        ("502 Bad Gateway", "does not reach the relay"),
        ("200 OK", "something else than the relay answers"),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n");
        let (_server, listen) = web_server(&answer);
        let ended = doctor(&world, &[&address("ws", &listen)]);
        // There is no TLS to look at on this machine.
        let lines = results(&ended);
        assert_eq!(lines[3].0, "skipped");
        let (result, line) = &lines[4];
        assert_eq!(
            (result.as_str(), &line["code"]),
            ("failed", &"http_status".into())
        );
        assert!(
            line["found"].as_str().unwrap().contains("(nginx)"),
            "{line}"
        );
        assert!(line["advice"].as_str().unwrap().contains(advice), "{line}");
        assert_eq!(ended.code, Some(4));
    }
    let (_server, listen) = web_server("SSH-2.0-OpenSSH_9.9\r\n");
    let ended = doctor(&world, &[&address("ws", &listen)]);
    let line = &results(&ended)[4].1;
    assert_eq!(line["code"], "no_http", "{line}");
}

#[test]
fn relay_with_another_key_is_found() {
    let (world, relay) = alice();
    let path = world.path().join("alice/device.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let key = relay.address.split('#').nth(1).unwrap();
    let other = "vT7dUh0sDLZDZoVqh_qKFOPjy0rfcTwfBnkGwUQ4cXE";
    std::fs::write(&path, text.replace(key, other)).unwrap();
    let ended = doctor(&world, &["alice"]);
    let found = fails(&ended, "relay", "relay_key_mismatch", 4, &[]);
    let found = found["found"].as_str().unwrap();
    assert!(found.contains(key) && found.contains(other), "{found}");
}

#[test]
fn revoked_device_is_found() {
    let (world, _relay) = alice();
    let device = world.device("alice");
    let revoke = ["relay", "revoke", "--data", "relay", "--device", &device];
    world.run(&revoke).succeeded();
    // The relay looks at the file once a second: until then the device is let in.
    let ended = loop {
        let ended = doctor(&world, &["alice"]);
        if ended.code != Some(0) {
            break ended;
        }
    };
    fails(&ended, "token", "revoked", 3, &["clock"]);
}

#[test]
fn device_that_is_in_use_or_locked_is_found() {
    let (world, _relay) = alice();
    let mut listening = world.start(&["--home", "alice", "listen", "--json"]);
    listening.said("connected");
    let ended = doctor(&world, &["alice"]);
    fails(&ended, "token", "store_in_use", 1, &["clock"]);
    assert!(listening.stop("INT").success());
    std::fs::write(world.path().join("alice/device.key"), [7; 32]).unwrap();
    let ended = doctor(&world, &["alice"]);
    fails(&ended, "token", "store_wrong_key", 1, &["clock"]);
}

/// Tokens of an identity provider: what they say of themselves, and whether the relay takes them.
#[test]
fn what_is_wrong_with_a_token_is_found() {
    let (world, relay) = alice();
    let device = world.device("alice");
    let made = ["jwk", "new", "--output", "issuer.jwk"];
    world.run(&made).succeeded();
    let claims = |claims: String| {
        std::fs::write(world.path().join("claims.json"), claims).unwrap();
        let mint = [
            "token",
            "mint",
            "--key",
            "issuer.jwk",
            "--claims",
            "claims.json",
        ];
        let minted = world.run(&mint).succeeded();
        std::fs::write(world.path().join("token.jwt"), minted.stdout).unwrap();
    };
    let times = |device: &str, issued: u64, expires: u64| {
        format!(
            r#"{{"iss":"i","sub":"alice","aud":"https://relay.example","iat":{issued},"exp":{expires},"cnf":{{"jkt":"{device}"}}}}"#
        )
    };
    let other = "vT7dUh0sDLZDZoVqh_qKFOPjy0rfcTwfBnkGwUQ4cXE";
    let far = 32_503_680_000;
    let audience = ["--audience", "https://other.example"];
    for (token, more, code) in [
        (times(&device, 1_000, 2_000), &[][..], "token_expired"),
        (times(&device, far, far + 60), &[], "token_not_yet_valid"),
        (times(other, 1_000, far), &[], "token_of_other_device"),
        (times(&device, 1_000, far), &audience, "token_audience"),
        ("{}".to_owned(), &[], "token_malformed"),
        // The relay has another issuer.
        (times(&device, 1_000, far), &[], "not_authorised"),
    ] {
        claims(token);
        let ended = doctor(&world, &[&["alice", "--token", "token.jwt"], more].concat());
        assert_eq!(ended.code, Some(3), "{code}: {ended:?}");
        let lines = results(&ended);
        let words: Vec<_> = lines.iter().map(|(result, _)| result.as_str()).collect();
        assert_eq!(
            words[..7],
            ["ok", "ok", "ok", "ok", "ok", "ok", "failed"],
            "{code}"
        );
        assert_eq!(lines[6].1["code"], code);
    }
    // Without a device there is only what the token says.
    claims(times(other, 1_000, far));
    let ended = doctor(&world, &[&relay.address, "--token", "token.jwt"]);
    assert_eq!(
        ended.code,
        Some(4),
        "its certificate is not trusted: {ended:?}"
    );
    let unused = base64url::encode(b"nothing");
    std::fs::write(world.path().join("token.jwt"), unused).unwrap();
    let ended = doctor(&world, &[&relay.address, "--token", "token.jwt"]);
    assert_eq!(results(&ended)[6].1["code"], "token_malformed");
}

/// Its tokens come from where it was joined with, and are exchanged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn device_of_an_identity_provider_is_looked_at_with_its_token() {
    let provider = Provider::new();
    let partner = provider.clone();
    let town = Town::with(move |relay| relay.exchange(partner.exchange("acme/"))).await;
    let line = town.relay().introduction().unwrap().to_line();
    tokio::task::block_in_place(|| {
        let world = World::new();
        let file = world.path().join("token");
        std::fs::write(&file, provider.token("alice", &json!({}))).unwrap();
        let join = ["join", &line, "--exchange-token-file", "token"];
        world.at("alice", &join).succeeded();
        let well = doctor(&world, &["alice"]).succeeded();
        let lines = results(&well);
        let words: Vec<_> = lines.iter().map(|(result, _)| result.as_str()).collect();
        assert_eq!(words, ["ok"; 8]);
        let found = lines[6].1["found"].as_str().unwrap();
        assert!(found.contains("as acme/alice"), "{found}");

        std::fs::write(world.path().join("other"), "x").unwrap();
        let audience = ["alice", "--token", "other", "--audience", "a"];
        doctor(&world, &audience).failed(2, "--audience is for access tokens");
        std::fs::remove_file(&file).unwrap();
        let ended = doctor(&world, &["alice"]);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        let (result, line) = &results(&ended)[6];
        assert_eq!(
            (result.as_str(), &line["code"]),
            ("failed", &"no_token_now".into())
        );
        let found = line["found"].as_str().unwrap();
        assert!(found.contains(file.to_str().unwrap()), "{found}");
    });
}

/// Answers every connection with these bytes once something was asked, until it is dropped with the test.
fn web_server(answer: &str) -> (std::thread::JoinHandle<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let answer = answer.to_owned();
    let serve = move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    };
    (std::thread::spawn(serve), listen)
}
