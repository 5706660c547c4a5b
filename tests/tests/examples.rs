//! The example of an application that has the relay on its own port, run; and what holds at that port (docs/protocol.md §3.1, §12).
#![expect(
    clippy::unwrap_used,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::net::SocketAddr;
use std::time::Duration;

use sealwire_client::{Client, MemoryStore, StoreKey};
use sealwire_server::{Relay, RelayBuilder};
use sealwire_tests::within;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[path = "../../examples/axum_service.rs"]
#[expect(dead_code, reason = "what its main does, the tests do here")]
mod axum_service;

/// An application that serves until it is dropped.
struct Application {
    relay: Option<Relay>,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Application {
    /// The example.
    async fn example() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (relay, devices) = axum_service::relay(&listener).await.unwrap();
        Self::serve(listener, relay, devices)
    }

    /// With another relay.
    async fn with(relay: RelayBuilder) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mounting = relay.mount(listener.local_addr().unwrap());
        let (relay, devices) = mounting.await.unwrap();
        Self::serve(listener, relay, devices)
    }

    fn serve(listener: TcpListener, relay: Relay, devices: sealwire_server::HttpService) -> Self {
        let address = listener.local_addr().unwrap();
        let routes = axum_service::application(devices);
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            relay: Some(relay),
            address,
            serving,
        }
    }

    fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap()
    }

    async fn join(&self, user: &str) -> Client {
        let lifetime = Duration::from_secs(600);
        let invitation = self.relay().invite(user, lifetime).await.unwrap();
        let connecting = Client::invited(&invitation.to_line())
            .unwrap()
            .store(MemoryStore::new(), StoreKey::from_bytes(rand::random()))
            .connect();
        within("the connection", connecting).await.unwrap()
    }

    /// Asks, and gives the connection with what has been answered up to the end of the headers.
    async fn ask(&self, path: &str, fields: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = async {
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(stream.read_u8().await.unwrap());
            }
        };
        within("an answer", reading).await;
        (stream, String::from_utf8(answer).unwrap())
    }

    async fn status(&self, path: &str, fields: &str) -> String {
        let (_, answer) = self.ask(path, fields).await;
        answer.split(' ').nth(1).unwrap().to_owned()
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sealwire.v1\r\n";

#[tokio::test]
async fn application_answers_its_routes_and_its_devices_on_one_port() {
    let application = Application::example().await;
    let (mut stream, answer) = application.ask("/", "Connection: close\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut body = String::new();
    within("the page", stream.read_to_string(&mut body))
        .await
        .unwrap();
    assert_eq!(body, "hello from the application");

    let (alice, bob) = (
        application.join("alice").await,
        application.join("bob").await,
    );
    let answer = within("an order", alice.call("orders.create", "two").into_future()).await;
    assert_eq!(answer.unwrap(), b"ordered for alice: two");
    let sending = alice.send("bob", sealwire_client::Message::text("hello"));
    within("a message", sending).await.unwrap();
    for device in [alice, bob] {
        within("the end", device.close()).await;
    }
}

/// docs/protocol.md §3.1, RFC 6455 §10.2
#[tokio::test]
async fn request_that_is_no_devices_is_refused_as_at_a_port_of_the_relays_own() {
    let relay = Relay::in_memory().allow_origin("https://app.example");
    let application = Application::with(relay).await;
    for (status, fields) in [
        ("101", UPGRADE.to_owned()),
        ("101", format!("{UPGRADE}Origin: https://app.example\r\n")),
        ("403", format!("{UPGRADE}Origin: https://evil.example\r\n")),
        ("401", format!("{UPGRADE}Authorization: Bearer a.b.c\r\n")),
        ("426", String::new()),
        ("400", UPGRADE.replace("sealwire.v1", "other")),
    ] {
        assert_eq!(application.status("/v1", &fields).await, status, "{fields}");
    }
    assert_eq!(application.status("/v1?token=x", UPGRADE).await, "400");
    assert_eq!(application.status("/v2", UPGRADE).await, "404");
}

/// docs/protocol.md §3.1, §12, §13
#[tokio::test]
async fn device_that_does_not_authenticate_in_time_or_says_too_much_is_closed() {
    let relay = Relay::in_memory().handshake_deadline(Duration::from_millis(50));
    let application = Application::with(relay).await;
    let (mut stream, answer) = application.ask("/v1", UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(close_code(&mut stream).await, 4003);

    let application = Application::with(Relay::in_memory()).await;
    let (mut stream, _) = application.ask("/v1", UPGRADE).await;
    // Pings of 125 bytes, masked with zeros: together more than 64 KiB.
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat();
    let pings = ping.repeat((64 << 10) / 125 + 1);
    // The relay may hang up before it has all.
    let _ = stream.write_all(&pings).await;
    assert_eq!(close_code(&mut stream).await, 4201);
}

/// The code of the close frame, behind whatever pongs there are.
async fn close_code(stream: &mut TcpStream) -> u16 {
    let reading = async {
        loop {
            let (kind, length) = (
                stream.read_u8().await.unwrap(),
                stream.read_u8().await.unwrap(),
            );
            let mut payload = vec![0; usize::from(length)];
            stream.read_exact(&mut payload).await.unwrap();
            if kind == 0x88 {
                return u16::from_be_bytes(*payload.first_chunk().unwrap());
            }
            assert_eq!(kind, 0x8a, "a pong");
        }
    };
    within("the close", reading).await
}

#[tokio::test]
async fn relay_that_stops_closes_its_links_and_the_application_goes_on() {
    let mut application = Application::example().await;
    let alice = application.join("alice").await;
    let relay = application.relay.take().unwrap();
    within("the relay's end", relay.shutdown()).await;
    let calling = alice
        .call("orders.create", "two")
        .timeout(Duration::from_millis(20));
    assert_eq!(calling.await.unwrap_err().code(), "not_sent");
    assert_eq!(application.status("/", "").await, "200");
    assert_eq!(application.status("/v1", UPGRADE).await, "503");
}

/// docs/protocol.md §5.2: Leaving
#[tokio::test]
async fn relay_that_is_drained_sends_devices_away_and_the_application_goes_on() {
    let mut application = Application::example().await;
    let alice = application.join("alice").await;
    let relay = application.relay.take().unwrap();
    let draining = relay.drain(sealwire_server::Drain::default());
    within("the relay's end", draining).await;
    let calling = alice
        .call("orders.create", "two")
        .timeout(Duration::from_millis(20));
    assert_eq!(calling.await.unwrap_err().code(), "not_sent");
    assert_eq!(application.status("/", "").await, "200");
    assert_eq!(application.status("/v1", UPGRADE).await, "503");
}
