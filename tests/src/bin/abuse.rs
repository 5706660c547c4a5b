//! Measures what an attack costs those who are connected: thousands of sockets that never authenticate, and a flood of handshakes that fail.
//!
//! `cargo run --release -p sealwire-tests --bin abuse [-- --sockets 10000 --handshakes 100 --seconds 10 --rounds 3]`
//!
//! A relay with TLS, its attacker and eight pairs of devices are three processes on loopback. Quiet and attacked stretches take turns, so that both
//! are measured on the same machine in the same minutes; messages are timed from `send` to the other device's application. The attacker has
//! 64 sockets for each of its addresses, which send a byte a second and come back when they are closed, and takes so many handshakes in a second
//! through TLS, upgrade and Hello to a Finish: every other one is none, and the rest prove a key that is enrolled nowhere. Ends with 1 if the 99th
//! percentile under attack is more than twice the quiet one, or an honest link was lost, or the attack was none.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement that cannot be made has failed, and names the events that it is about"
)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sealwire_client::{Client, ConnectionState, Event, MemoryStore, Message, StoreKey, Thumbprint};
use sealwire_protocol::handshake::{Credential, DeviceHello, DeviceTerms};
use sealwire_protocol::key::SigningKey;
use sealwire_server::Relay;
use sealwire_server::policy::Allowance;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

/// Pairs of devices that write to each other.
const PAIRS: usize = 8;
/// Between two messages of a pair.
const PACE: Duration = Duration::from_millis(20);
/// Sockets of one of the attacker's addresses: as many as the relay lets one have.
const PER_ADDRESS: usize = 64;
/// Times the quiet 99th percentile that are allowed.
const ALLOWED: f64 = 2.0;

struct Plan {
    sockets: usize,
    handshakes: u32,
    seconds: u64,
    rounds: usize,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.first().map(String::as_str) {
        Some("relay") => {
            runtime.block_on(relay());
            ExitCode::SUCCESS
        }
        Some("attack") => runtime.block_on(attack(&arguments)),
        _ => match plan(&arguments) {
            Some(plan) => runtime.block_on(measure(&plan)),
            None => {
                eprintln!("usage: abuse [--sockets N] [--handshakes N] [--seconds N] [--rounds N]");
                ExitCode::from(2)
            }
        },
    }
}

fn plan(arguments: &[String]) -> Option<Plan> {
    let mut plan = Plan {
        sockets: 10_000,
        handshakes: 100,
        seconds: 10,
        rounds: 3,
    };
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        match name.as_str() {
            "--sockets" => plan.sockets = value.parse().ok()?,
            "--handshakes" => plan.handshakes = value.parse().ok()?,
            "--seconds" => plan.seconds = value.parse().ok()?,
            "--rounds" => plan.rounds = value.parse().ok()?,
            _ => return None,
        }
    }
    Some(plan)
}

/// This program in another part. It ends when this one does.
struct Part {
    child: Child,
    _input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Part {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let command = command.args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        Self {
            _input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended");
        line.trim_end().to_owned()
    }

    /// Ends it at once, and gives what else it had said.
    fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        rest
    }
}

async fn measure(plan: &Plan) -> ExitCode {
    let mut relay = Part::start(&["relay"]);
    let (address, thumbprint) = (relay.line(), relay.line());
    let mut devices = Vec::new();
    for _ in 0..2 * PAIRS {
        let invited = Client::invited(&relay.line()).unwrap();
        let device = invited.store(MemoryStore::new(), StoreKey::from_bytes(rand::random()));
        devices.push(device.connect().await.unwrap());
    }
    let (mut quiet, mut attacked) = (Vec::new(), Vec::new());
    let mut attacks = Vec::new();
    // Sessions, and whatever else happens only once.
    converse(&devices, Duration::from_secs(2)).await;
    for round in 1..=plan.rounds {
        let time = Duration::from_secs(plan.seconds);
        quiet.extend(converse(&devices, time).await);
        let (sockets, handshakes) = (plan.sockets.to_string(), plan.handshakes.to_string());
        let mut attacker = Part::start(&["attack", &address, &thumbprint, &sockets, &handshakes]);
        eprintln!("round {round} of {}: {}", plan.rounds, attacker.line());
        attacked.extend(converse(&devices, time).await);
        let did = attacker.kill();
        let did = did.lines().last().unwrap_or_default().to_owned();
        assert!(
            !did.is_empty() && !did.contains(" 0 refused"),
            "no attack: {did}"
        );
        attacks.push(did);
        // What the attacker has left behind ends with the relay's deadline.
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    println!("| | messages | median, ms | 99 %, ms | longest, ms |");
    println!("| --- | --- | --- | --- | --- |");
    for (name, times) in [("quiet", &mut quiet), ("under attack", &mut attacked)] {
        times.sort_unstable();
        println!(
            "| {name} | {} | {:.2} | {:.2} | {:.2} |",
            times.len(),
            quantile(times, 0.5),
            quantile(times, 0.99),
            quantile(times, 1.0)
        );
    }
    for did in attacks {
        println!("{did}");
    }
    let ratio = quantile(&attacked, 0.99) / quantile(&quiet, 0.99);
    println!("99 % under attack: {ratio:.2} times the quiet one, {ALLOWED:.0} allowed");
    if ratio <= ALLOWED {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn quantile(sorted: &[Duration], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a number of samples"
    )]
    let place = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
    sorted
        .get(place)
        .map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
}

/// Every pair writes for a while; how long each message took.
async fn converse(devices: &[Client], time: Duration) -> Vec<Duration> {
    let pairs = devices
        .chunks(2)
        .enumerate()
        .map(|(pair, devices)| async move {
            let [from, to] = devices else {
                panic!("a pair")
            };
            let recipient = format!("user{}", 2 * pair + 1);
            let (mut times, until) = (Vec::new(), Instant::now() + time);
            let talking = async {
                while Instant::now() < until {
                    let began = Instant::now();
                    let (sent, shown) = tokio::join!(
                        from.send(&recipient, Message::text("hello")),
                        next_message(to)
                    );
                    sent.unwrap();
                    times.push(shown.duration_since(began));
                    tokio::time::sleep(PACE.saturating_sub(began.elapsed())).await;
                }
            };
            tokio::select! {
                () = talking => {}
                // The other one is looked at with every message.
                _ = next_message(from) => panic!("nobody writes to who writes"),
            }
            times
        });
    futures_util::future::join_all(pairs).await.concat()
}

/// When the next message was shown.
async fn next_message(to: &Client) -> Instant {
    while let Some(event) = to.next().await {
        match event {
            Event::Message(received) => {
                let now = Instant::now();
                received.ack();
                return now;
            }
            Event::Connection(state) => {
                assert_eq!(state, ConnectionState::Connected, "an honest link was lost");
            }
            _ => {}
        }
    }
    panic!("the client ended");
}

/// Says where it is and invites everybody.
async fn relay() {
    let folder = tempfile::tempdir().unwrap();
    let mut allowance = Allowance::default();
    allowance.messages_per_minute = 1_000_000;
    let relay = Relay::builder(folder.path()).allowance(allowance);
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    println!("{}", relay.local_addr());
    println!("{}", relay.thumbprint());
    for user in 0..2 * PAIRS {
        let user = format!("user{user}");
        let invitation = relay.invite(&user, Duration::from_secs(600)).await;
        println!("{}", invitation.unwrap().to_line().as_str());
    }
    let end = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(end).await.unwrap().unwrap();
    relay.shutdown().await;
}

/// What the attacker has done.
#[derive(Default)]
struct Done {
    /// Sockets that have been open at all.
    begun: AtomicU64,
    open: AtomicU64,
    /// At the same time.
    most: AtomicU64,
    opened: AtomicU64,
    dropped: AtomicU64,
    handshakes: AtomicU64,
    refused: AtomicU64,
}

async fn attack(arguments: &[String]) -> ExitCode {
    let [_, target, relay, sockets, handshakes] = arguments else {
        return ExitCode::from(2);
    };
    let target: SocketAddr = target.parse().unwrap();
    let relay: Thumbprint = relay.parse().unwrap();
    let (sockets, handshakes): (usize, u32) =
        (sockets.parse().unwrap(), handshakes.parse().unwrap());
    let done = Arc::new(Done::default());
    let mut tasks = JoinSet::new();
    for socket in 0..sockets {
        tasks.spawn(dawdle(target, address(1, socket), Arc::clone(&done)));
    }
    while done.begun.load(Ordering::Relaxed) < sockets as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let open = done.open.load(Ordering::Relaxed);
    println!("all of {sockets} sockets have been open, and {open} are");
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / handshakes.max(1));
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for number in 0_usize.. {
        tokio::select! {
            _ = ticks.tick() => {
                tasks.spawn(fail(target, relay, number, Arc::clone(&done)));
            }
            _ = seconds.tick() => println!(
                "attack: {} sockets opened, {} of them closed by the relay, {} open at once; {} handshakes, {} refused by a close code",
                done.opened.load(Ordering::Relaxed),
                done.dropped.load(Ordering::Relaxed),
                done.most.load(Ordering::Relaxed),
                done.handshakes.load(Ordering::Relaxed),
                done.refused.load(Ordering::Relaxed),
            ),
        }
    }
    ExitCode::SUCCESS
}

/// One of the attacker's addresses.
fn address(network: u8, socket: usize) -> Ipv4Addr {
    let host = (socket / PER_ADDRESS).to_be_bytes();
    let [.., high, low] = host;
    Ipv4Addr::new(127, network, high, low.max(1))
}

async fn connect(target: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(target).await
}

/// A socket that begins a TLS handshake, a byte a second, and comes back when it is closed.
async fn dawdle(target: SocketAddr, from: Ipv4Addr, done: Arc<Done>) {
    // A handshake record of 512 bytes that never comes to its end.
    let record = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    let mut has_begun = false;
    loop {
        if let Ok(mut socket) = connect(target, from).await {
            if !std::mem::replace(&mut has_begun, true) {
                done.begun.fetch_add(1, Ordering::Relaxed);
            }
            done.opened.fetch_add(1, Ordering::Relaxed);
            let open = done.open.fetch_add(1, Ordering::Relaxed) + 1;
            done.most.fetch_max(open, Ordering::Relaxed);
            for byte in record.iter().cycle() {
                if socket.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            done.open.fetch_sub(1, Ordering::Relaxed);
            done.dropped.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A handshake as far as a Finish that is none, or that proves a key which nobody knows.
async fn fail(target: SocketAddr, relay: Thumbprint, number: usize, done: Arc<Done>) {
    let from = address(2, number);
    done.handshakes.fetch_add(1, Ordering::Relaxed);
    let Ok(socket) = connect(target, from).await else {
        return;
    };
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let name = ServerName::try_from("localhost").unwrap();
    let Ok(stream) = tls.connect(name, socket).await else {
        return;
    };
    let mut request = "ws://localhost/v1".into_client_request().unwrap();
    let protocol = "sealwire.v1".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let Ok((mut socket, _)) = client_async(request, stream).await else {
        return;
    };
    let (state, hello) = DeviceHello::start(&mut rand::rng());
    if socket.send(Frame::binary(hello)).await.is_err() {
        return;
    }
    let Some(Ok(Frame::Binary(accept))) = socket.next().await else {
        return;
    };
    let finish = if number.is_multiple_of(2) {
        let mut finish = vec![3, 1, 0];
        finish.resize(3 + 256, 0x5e);
        finish
    } else {
        let terms = DeviceTerms {
            relays: &[relay],
            key: &SigningKey::generate(&mut rand::rng()),
            credential: Credential::Renewal,
            now: sealwire_tests::now(),
        };
        state.on_accept(&accept, &terms).unwrap().1.to_vec()
    };
    if socket.send(Frame::binary(finish)).await.is_ok()
        && let Some(Ok(Frame::Close(Some(_)))) = socket.next().await
    {
        done.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// The attacker does not mind whom it talks to.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
