//! Traces of a relay, at an OpenTelemetry collector.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    dead_code,
    reason = "a test fails by panicking, and uses a part of the world"
)]

mod world;

#[cfg(feature = "opentelemetry")]
mod sending {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::sync::mpsc::{Receiver, channel};

    use super::world::World;

    /// What a collector was sent: the lines of a request's head, and its body.
    struct Sent {
        head: Vec<String>,
        body: Vec<u8>,
    }

    fn collector() -> (SocketAddr, Receiver<Sent>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, sent) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, tell) = (stream.unwrap(), tell.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    while let Some(one) = take(&mut reader) {
                        tell.send(one).unwrap();
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
                        reader.get_mut().write_all(answer).unwrap();
                    }
                });
            }
        });
        (address, sent)
    }

    fn take(reader: &mut BufReader<TcpStream>) -> Option<Sent> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_ascii_lowercase()),
            }
        }
        let length = head
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length?.parse().unwrap()];
        reader.read_exact(&mut body).ok()?;
        Some(Sent { head, body })
    }

    fn contains(body: &[u8], text: &str) -> bool {
        body.windows(text.len()).any(|part| part == text.as_bytes())
    }

    #[test]
    fn traces_are_sent_and_have_nobody_in_them() {
        let (address, sent) = collector();
        let world = World::new();
        world.run(&["relay", "init", "relay"]).succeeded();
        let file = format!(
            "data = \"relay\"\n[listen]\naddress = \"127.0.0.1:0\"\n[telemetry]\notlp_endpoint = \"http://{address}\"\n",
        );
        std::fs::write(world.path().join("relay.toml"), file).unwrap();
        // Nobody else is told: not a proxy either.
        let mut running = world.start_in(
            &[
                ("HTTP_PROXY", "http://127.0.0.1:9"),
                ("http_proxy", "http://127.0.0.1:9"),
            ],
            &["relay", "run", "--config", "relay.toml"],
        );
        running.said("relay at");
        world.join("marguerite", "a");
        world.join("bob", "b");
        let refused = world.at(
            "a",
            &["send", "nobody-such", "ocelot", "--wait", "accepted"],
        );
        assert_ne!(refused.code, Some(0));
        world
            .at("a", &["send", "bob", "ocelot", "--wait", "accepted"])
            .succeeded();
        let device = world.device("a");
        // What was not sent yet is sent before it ends.
        assert!(running.stop("TERM").success());

        let sent: Vec<_> = sent.try_iter().collect();
        assert!(!sent.is_empty());
        for one in &sent {
            assert_eq!(one.head[0], "post /v1/traces http/1.1");
            let kind = "content-type: application/x-protobuf".to_owned();
            assert!(one.head.contains(&kind), "{:?}", one.head);
        }
        let all = sent.iter().flat_map(|one| one.body.clone());
        let all: Vec<u8> = all.collect();
        for there in [
            "sealwire-relay",
            "handshake",
            "credential",
            "invite",
            "renewal",
            "fetch_cards",
            "publish_card",
            "send",
            "mail_commit",
            "unknown_user",
            "ok",
            &device[..8],
        ] {
            assert!(contains(&all, there), "{there}");
        }
        for absent in ["marguerite", "nobody-such", "ocelot", device.as_str()] {
            assert!(!contains(&all, absent), "{absent}");
        }
    }

    /// A collector that is away costs traces only.
    #[test]
    fn relay_runs_and_ends_without_its_collector() {
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let world = World::new();
        world.run(&["relay", "init", "relay"]).succeeded();
        let endpoint = format!("http://{address}");
        let mut running = world.start_in(
            // Nor does it need certificates, where the collector has none.
            &[
                ("SEALWIRE_RELAY_TELEMETRY_OTLP_ENDPOINT", &endpoint),
                ("SSL_CERT_FILE", "/nonexistent"),
                ("SSL_CERT_DIR", "/nonexistent"),
            ],
            &["relay", "run", "--data", "relay", "--listen", "127.0.0.1:0"],
        );
        running.said("relay at");
        world.join("alice", "a");
        let (status, _, said) = running.ask_to_end("TERM").end();
        assert!(status.success());
        assert!(said.contains("the last traces are not sent"), "{said}");
    }
}

#[cfg(not(feature = "opentelemetry"))]
#[test]
fn build_without_opentelemetry_says_so() {
    let world = world::World::new();
    let endpoint = (
        "SEALWIRE_RELAY_TELEMETRY_OTLP_ENDPOINT",
        "http://127.0.0.1:4318",
    );
    world.run(&["relay", "init", "relay"]).succeeded();
    let arguments = ["relay", "run", "--data", "relay", "--listen", "127.0.0.1:0"];
    world
        .run_in(&[endpoint], &arguments)
        .failed(2, "build it with --features opentelemetry");
}
