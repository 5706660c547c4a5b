//! A device over real sockets, on the protocol's own state machines, and an issuer for it: what the tests of the relay speak with.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod log;
pub(crate) mod operators_port;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sealwire_protocol::base64url;
use sealwire_protocol::batch::Batch;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::crypto::KemDecapsulationKey;
use sealwire_protocol::frame::{
    List, OneTimePrekey, Part, Send as SendFrame, ToDevice, ToRelay, UndeliveredReason,
};
use sealwire_protocol::handshake::{Credential, DeviceHello, DeviceTerms};
use sealwire_protocol::jws::JwtType;
use sealwire_protocol::key::{PublicKey, Seed, SigningKey, Thumbprint};
use sealwire_protocol::link::DeviceLink;
use sealwire_protocol::name::Issuer as IssuerName;
use sealwire_protocol::statement::Statement;
use sealwire_server::{Relay, RelayBuilder};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "https://relay.example";
pub(crate) const EVERYTHING: &str = "sealwire:send sealwire:receive sealwire:publish sealwire:call";

/// Waits for something that happens by itself; a test that would wait for ever fails here.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("nothing happened in 30 seconds")
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What `cnf` of a token for a device may be: its key, or the thumbprint of that (docs/protocol.md §2.2).
pub(crate) fn confirmations(device: &SigningKey) -> [Value; 2] {
    let jwk: Value = serde_json::from_str(&device.public().to_jwk()).unwrap();
    let jkt = device.thumbprint().to_string();
    [
        json!({ "cnf": { "jwk": jwk } }),
        json!({ "cnf": { "jkt": jkt } }),
    ]
}

pub(crate) fn new_key() -> SigningKey {
    SigningKey::generate(&mut rand::rng())
}

/// An operator's identity provider.
pub(crate) struct Issuer {
    key: SigningKey,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self { key: new_key() }
    }

    /// One that another process of the same test has as well.
    pub(crate) fn fixed() -> Self {
        Self {
            key: SigningKey::from_seed(&Seed::new([0x15; 32])),
        }
    }

    pub(crate) fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// A relay in memory that accepts this issuer's tokens.
    pub(crate) fn relay(&self) -> RelayBuilder {
        self.configure(Relay::in_memory())
    }

    pub(crate) fn configure(&self, relay: RelayBuilder) -> RelayBuilder {
        relay.issuer(
            IssuerName::new(ISSUER).unwrap(),
            AUDIENCE,
            *self.key.public(),
        )
    }

    /// The claims of a token that is good for an hour and for everything.
    pub(crate) fn claims(user: &str, device: &SigningKey) -> Value {
        json!({
            "iss": ISSUER, "sub": user, "aud": AUDIENCE, "iat": now(), "exp": now() + 3600,
            "cnf": { "jkt": device.thumbprint().to_string() }, "scope": EVERYTHING,
        })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = base64url::encode(br#"{"alg":"EdDSA","typ":"at+jwt"}"#);
        let input = format!(
            "{header}.{}",
            base64url::encode(claims.to_string().as_bytes())
        );
        let signature = base64url::encode(&self.key.sign(input.as_bytes()));
        format!("{input}.{signature}")
    }

    pub(crate) fn token(&self, user: &str, device: &SigningKey) -> String {
        self.sign(&Self::claims(user, device))
    }

    /// A token with some claims replaced.
    pub(crate) fn token_with(&self, user: &str, device: &SigningKey, changes: &Value) -> String {
        let mut claims = Self::claims(user, device);
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        self.sign(&claims)
    }

    /// A token with the members of an `authorization_details` entry.
    pub(crate) fn token_limited(&self, user: &str, device: &SigningKey, limits: &Value) -> String {
        let mut entry = limits.clone();
        entry["type"] = "sealwire".into();
        self.token_with(user, device, &json!({ "authorization_details": [entry] }))
    }
}

/// Where a relay is to be found.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) thumbprint: Thumbprint,
    pub(crate) certificate: Option<String>,
}

/// A relay of this process or of another.
pub(crate) trait At {
    fn at(&self) -> Target;
}

impl At for Relay {
    fn at(&self) -> Target {
        Target {
            address: self.local_addr(),
            thumbprint: self.thumbprint(),
            certificate: self.certificate_pem().map(str::to_owned),
        }
    }
}

impl At for Target {
    fn at(&self) -> Target {
        self.clone()
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Debug {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Debug> Stream for T {}

pub(crate) type Socket = WebSocketStream<Box<dyn Stream>>;

/// A connection to the relay's port, with TLS if it has a certificate.
pub(crate) async fn connect(relay: &impl At) -> Box<dyn Stream> {
    let tcp = TcpStream::connect(relay.at().address).await.unwrap();
    let Some(pem) = relay.at().certificate else {
        return Box::new(tcp);
    };
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    Box::new(
        tokio_rustls::TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await
            .unwrap(),
    )
}

/// A header field that is changed, or left out.
pub(crate) type Field<'a> = (&'static str, Option<&'a str>);

/// Asks for the upgrade with these fields changed: `None` leaves a field out.
pub(crate) async fn upgrade_with(
    relay: &impl At,
    path: &str,
    fields: &[Field<'_>],
) -> Result<Socket, u16> {
    upgrade_on(connect(relay).await, path, fields).await
}

async fn upgrade_on(
    stream: Box<dyn Stream>,
    path: &str,
    fields: &[Field<'_>],
) -> Result<Socket, u16> {
    let mut request = format!("ws://localhost{path}")
        .into_client_request()
        .unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", "sealwire.v1".parse().unwrap());
    for (name, value) in fields {
        request.headers_mut().remove(*name);
        if let Some(value) = value {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
    }
    match within(client_async(request, stream)).await {
        Ok((socket, response)) => {
            assert_eq!(response.headers()["sec-websocket-protocol"], "sealwire.v1");
            assert!(!response.headers().contains_key("sec-websocket-extensions"));
            Ok(socket)
        }
        Err(WebSocketError::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("neither upgraded nor refused: {error}"),
    }
}

pub(crate) async fn upgrade(relay: &impl At) -> Socket {
    upgrade_with(relay, "/v1", &[]).await.unwrap()
}

/// The same connection, for a client that masks nothing (RFC 6455 §5.1).
pub(crate) async fn without_masks(socket: Socket) -> Socket {
    let config = WebSocketConfig::default().accept_unmasked_frames(true);
    WebSocketStream::from_raw_socket(socket.into_inner(), Role::Server, Some(config)).await
}

/// The next binary message.
pub(crate) async fn receive(socket: &mut Socket) -> Vec<u8> {
    loop {
        match within(socket.next())
            .await
            .expect("the relay closed")
            .expect("the connection broke")
        {
            Message::Binary(message) => return message.into(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("unexpected {other:?}"),
        }
    }
}

/// The close code and reason that end the connection.
pub(crate) async fn closed(socket: &mut Socket) -> (u16, String) {
    loop {
        match within(socket.next()).await.expect("closed without a code") {
            Ok(Message::Close(Some(frame))) => {
                return (frame.code.into(), frame.reason.as_str().to_owned());
            }
            Ok(_) => {}
            Err(error) => panic!("broken without a code: {error}"),
        }
    }
}

/// What a link ended with, as the code and the plain name.
pub(crate) fn code(code: u16, name: &str) -> (u16, String) {
    (code, name.to_owned())
}

/// A frame from the relay, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Ready {
        device: Thumbprint,
        user: String,
        max_message: u32,
        has_card: bool,
        prekeys: u8,
        epoch: [u8; 16],
        acknowledged: u64,
        head: u64,
        sent: u64,
        waiting: u32,
    },
    Accepted(u32),
    Refused(u32, RefusalCode),
    Deliver {
        position: u64,
        id: [u8; 16],
        user: String,
        device: Thumbprint,
        message: Vec<u8>,
    },
    Cards(u32, Vec<(Vec<u8>, Option<u32>)>),
    Token(u32, Vec<u8>),
    DeviceChanged(String),
    Undelivered {
        position: u64,
        id: [u8; 16],
        user: String,
        device: Thumbprint,
        reason: UndeliveredReason,
    },
    Damaged(u64),
    Expiring(u64),
    Leaving(u32),
    Result(u32, Vec<u8>),
    Push(String, Vec<u8>),
    Blob {
        request: u32,
        length: u64,
        size: u64,
        complete: bool,
        data: Vec<u8>,
    },
}

impl From<ToDevice<'_>> for Said {
    fn from(frame: ToDevice<'_>) -> Self {
        match frame {
            ToDevice::Ready(ready) => Self::Ready {
                device: ready.device,
                user: ready.user.to_owned(),
                max_message: ready.max_message,
                has_card: ready.has_card,
                prekeys: ready.prekeys,
                epoch: ready.epoch,
                acknowledged: ready.acknowledged,
                head: ready.head,
                sent: ready.sent,
                waiting: ready.waiting,
            },
            ToDevice::Accepted { request } => Self::Accepted(request),
            ToDevice::Refused { request, code } => Self::Refused(request, code),
            ToDevice::Deliver(deliver) => Self::Deliver {
                position: deliver.position,
                id: deliver.id,
                user: deliver.user.to_owned(),
                device: deliver.device,
                message: deliver.message.to_vec(),
            },
            ToDevice::Cards { request, entries } => Self::Cards(
                request,
                entries
                    .iter()
                    .map(|entry| (entry.card.to_vec(), entry.prekey.map(|prekey| prekey.id)))
                    .collect(),
            ),
            ToDevice::Token { request, token, .. } => Self::Token(request, token.to_vec()),
            ToDevice::DeviceChanged { user } => Self::DeviceChanged(user.to_owned()),
            ToDevice::Blob(blob) => Self::Blob {
                request: blob.request,
                length: blob.length,
                size: blob.size,
                complete: blob.complete,
                data: blob.data.to_vec(),
            },
            ToDevice::Undelivered(undelivered) => Self::Undelivered {
                position: undelivered.position,
                id: undelivered.id,
                user: undelivered.user.to_owned(),
                device: undelivered.device,
                reason: undelivered.reason,
            },
            ToDevice::Damaged { position } => Self::Damaged(position),
            ToDevice::Expiring { expires } => Self::Expiring(expires),
            ToDevice::Leaving { after } => Self::Leaving(after),
            ToDevice::Result { request, payload } => Self::Result(request, payload.to_vec()),
            ToDevice::Push(push) => Self::Push(push.service.to_owned(), push.payload.to_vec()),
        }
    }
}

/// A Send.
#[derive(Debug, Clone)]
pub(crate) struct Post<'a> {
    pub(crate) sequence: u64,
    pub(crate) id: u8,
    pub(crate) user: &'a str,
    pub(crate) whole: bool,
    pub(crate) parts: &'a [Thumbprint],
    pub(crate) copies: &'a [Thumbprint],
    pub(crate) message: &'a [u8],
}

impl<'a> Post<'a> {
    /// A whole one without copies.
    pub(crate) fn new(
        sequence: u64,
        id: u8,
        user: &'a str,
        parts: &'a [Thumbprint],
        message: &'a [u8],
    ) -> Self {
        Self {
            sequence,
            id,
            user,
            whole: true,
            parts,
            copies: &[],
            message,
        }
    }
}

/// A device with an open link.
pub(crate) struct Device {
    pub(crate) key: SigningKey,
    pub(crate) token: String,
    pub(crate) socket: Socket,
    pub(crate) link: DeviceLink,
    said: VecDeque<Said>,
    requests: u32,
    /// The highest sequence used.
    pub(crate) sequence: u64,
}

impl Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Device")
    }
}

/// Goes as far as Finish, and gives the socket on which the relay answers it.
pub(crate) async fn shake_hands(
    relay: &impl At,
    mut socket: Socket,
    key: &SigningKey,
    credential: Credential<'_>,
) -> (Socket, DeviceLink, Vec<u8>) {
    let (state, hello) = DeviceHello::start(&mut rand::rng());
    socket.send(Message::binary(hello)).await.unwrap();
    let accept = receive(&mut socket).await;
    let relays = [relay.at().thumbprint];
    let terms = DeviceTerms {
        relays: &relays,
        key,
        credential,
        now: now(),
    };
    let (link, finish) = state.on_accept(&accept, &terms).unwrap();
    socket.send(Message::binary(finish.clone())).await.unwrap();
    (socket, link, finish)
}

/// How the relay closes a link that presents this credential.
pub(crate) async fn refusal(
    relay: &impl At,
    key: &SigningKey,
    credential: Credential<'_>,
) -> (u16, String) {
    let (mut socket, ..) = shake_hands(relay, upgrade(relay).await, key, credential).await;
    closed(&mut socket).await
}

impl Device {
    /// Opens a link with a token in Finish and takes Ready.
    pub(crate) async fn connect(relay: &impl At, key: SigningKey, token: String) -> (Self, Said) {
        let (socket, link, _) = shake_hands(
            relay,
            upgrade(relay).await,
            &key,
            Credential::Token(token.as_bytes()),
        )
        .await;
        Self::open(key, token, socket, link).await
    }

    /// Takes Ready on a link whose Finish has been sent.
    pub(crate) async fn open(
        key: SigningKey,
        token: String,
        socket: Socket,
        link: DeviceLink,
    ) -> (Self, Said) {
        let mut device = Self {
            key,
            token,
            socket,
            link,
            said: VecDeque::new(),
            requests: 0,
            sequence: 0,
        };
        let ready = device.next().await;
        let Said::Ready { sent, .. } = ready else {
            panic!("not ready: {ready:?}")
        };
        device.sequence = sent;
        (device, ready)
    }

    /// Opens a link, publishes a card, and is ready to be written to.
    pub(crate) async fn join(relay: &impl At, issuer: &Issuer, user: &str) -> Self {
        let key = new_key();
        let token = issuer.token(user, &key);
        let (mut device, _) = Self::connect(relay, key, token).await;
        let card = device.card(user, 1);
        assert_eq!(device.publish_card(&card).await, Said::Accepted(1));
        device
    }

    /// Waits for a ping and answers it.
    pub(crate) async fn pinged(&mut self) {
        match within(self.socket.next()).await {
            Some(Ok(Message::Ping(_))) => self.socket.flush().await.unwrap(),
            other => panic!("no ping: {other:?}"),
        }
    }

    /// As [`Self::join`], with a receive buffer that holds little.
    pub(crate) async fn join_slowly(relay: &impl At, issuer: &Issuer, user: &str) -> Self {
        let tcp = TcpSocket::new_v4().unwrap();
        tcp.set_recv_buffer_size(4 << 10).unwrap();
        let stream: Box<dyn Stream> = Box::new(tcp.connect(relay.at().address).await.unwrap());
        let socket = upgrade_on(stream, "/v1", &[]).await.unwrap();
        let key = new_key();
        let token = issuer.token(user, &key);
        let credential = Credential::Token(token.as_bytes());
        let (socket, link, _) = shake_hands(relay, socket, &key, credential).await;
        let (mut device, _) = Self::open(key, token, socket, link).await;
        let card = device.card(user, 1);
        assert_eq!(device.publish_card(&card).await, Said::Accepted(1));
        device
    }

    /// Writes and reads nothing until the relay has hung up, then counts what it had sent.
    pub(crate) async fn deliveries_until_the_end(&mut self) -> usize {
        within(async {
            loop {
                let record = self.link.seal_frame(&ToRelay::Ack { position: 0 }).unwrap();
                if self.socket.send(Message::binary(record)).await.is_err() {
                    return;
                }
            }
        })
        .await;
        let mut deliveries = 0;
        while let Some(Ok(message)) = within(self.socket.next()).await {
            if let Message::Binary(record) = message {
                let mut record = Vec::from(record);
                deliveries += self.link.handle_message(&mut record).unwrap().count();
            }
        }
        deliveries
    }

    /// Drops the link and opens another with the same key and token.
    pub(crate) async fn reconnect(self, relay: &impl At) -> (Self, Said) {
        let Self { key, token, .. } = self;
        Self::connect(relay, key, token).await
    }

    pub(crate) fn id(&self) -> Thumbprint {
        self.key.thumbprint()
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Said {
        loop {
            if let Some(said) = self.said.pop_front() {
                return said;
            }
            let mut record = receive(&mut self.socket).await;
            let frames = self.link.handle_message(&mut record).unwrap();
            self.said.extend(frames.map(Said::from));
        }
    }

    /// The next frame, or none if the connection ends in whatever way.
    pub(crate) async fn next_or_end(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            match within(self.socket.next()).await? {
                Ok(Message::Binary(record)) => {
                    let mut record = Vec::from(record);
                    let frames = self.link.handle_message(&mut record).unwrap();
                    self.said.extend(frames.map(Said::from));
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(_) | Err(_) => return None,
            }
        }
    }

    pub(crate) async fn closed(&mut self) -> (u16, String) {
        closed(&mut self.socket).await
    }

    /// Says something, whether or not the relay is still there.
    pub(crate) async fn try_say(&mut self, frame: &ToRelay<'_>) {
        let record = self.link.seal_frame(frame).unwrap();
        let _ = self.socket.send(Message::binary(record)).await;
    }

    pub(crate) async fn say(&mut self, frame: &ToRelay<'_>) {
        let record = self.link.seal_frame(frame).unwrap();
        self.socket.send(Message::binary(record)).await.unwrap();
    }

    /// Sends several frames in one record.
    pub(crate) async fn say_all(&mut self, frames: &[ToRelay<'_>]) {
        let mut batch = Batch::new();
        for frame in frames {
            batch.push(frame).unwrap();
        }
        let record = self.link.seal(batch).unwrap();
        self.socket.send(Message::binary(record)).await.unwrap();
    }

    pub(crate) async fn send_bytes(&mut self, message: impl Into<Bytes>) {
        self.socket.send(Message::binary(message)).await.unwrap();
    }

    pub(crate) fn request(&mut self) -> u32 {
        self.requests += 1;
        self.requests
    }

    /// Sends a message to these devices of a user, and waits for what the relay says.
    pub(crate) async fn send(
        &mut self,
        user: &str,
        id: u8,
        devices: &[Thumbprint],
        message: &[u8],
    ) -> Said {
        self.sequence += 1;
        self.post(&Post::new(self.sequence, id, user, devices, message))
            .await
    }

    /// Sends just this, and waits for what the relay says.
    pub(crate) async fn post(&mut self, post: &Post<'_>) -> Said {
        self.begin(post).await;
        self.next().await
    }

    /// Sends just this, and gives its request.
    pub(crate) async fn begin(&mut self, post: &Post<'_>) -> u32 {
        let request = self.request();
        let record = self.seal(request, post);
        self.socket.send(Message::binary(record)).await.unwrap();
        request
    }

    /// The same, whether or not the relay is still there.
    pub(crate) async fn try_begin(&mut self, post: &Post<'_>) -> u32 {
        let request = self.request();
        let record = self.seal(request, post);
        let _ = self.socket.send(Message::binary(record)).await;
        request
    }

    fn seal(&mut self, request: u32, post: &Post<'_>) -> Vec<u8> {
        let part = |device: &Thumbprint| Part {
            device: *device,
            message: post.message,
        };
        let parts: Vec<_> = post.parts.iter().map(part).collect();
        let copies: Vec<_> = post.copies.iter().map(part).collect();
        let frame = ToRelay::Send(SendFrame {
            request,
            sequence: post.sequence,
            id: [post.id; 16],
            user: post.user,
            whole: post.whole,
            parts: List::from(&parts),
            copies: List::from(&copies),
        });
        self.link.seal_frame(&frame).unwrap()
    }

    /// Acknowledges, and waits until the relay has seen it.
    pub(crate) async fn ack(&mut self, position: u64) {
        let request = self.request();
        let fetch = ToRelay::FetchCards {
            request,
            user: "nobody",
            take: false,
        };
        self.say_all(&[ToRelay::Ack { position }, fetch]).await;
        let mut before = VecDeque::new();
        loop {
            match self.next().await {
                Said::Refused(answered, _) if answered == request => break,
                other => before.push_back(other),
            }
        }
        before.append(&mut self.said);
        self.said = before;
    }

    /// How many requests the relay says it has accepted, until it closes the link.
    pub(crate) async fn accepted_until_the_end(&mut self) -> u64 {
        let mut accepted = 0;
        while let Some(Ok(message)) = within(self.socket.next()).await {
            if let Message::Binary(record) = message {
                let mut record = Vec::from(record);
                let frames = self.link.handle_message(&mut record).unwrap();
                accepted += frames
                    .filter(|frame| matches!(frame, ToDevice::Accepted { .. }))
                    .count() as u64;
            }
        }
        accepted
    }

    pub(crate) async fn fetch(&mut self, user: &str, take: bool) -> Said {
        let request = self.request();
        self.say(&ToRelay::FetchCards {
            request,
            user,
            take,
        })
        .await;
        self.next().await
    }

    pub(crate) async fn publish_card(&mut self, card: &str) -> Said {
        let request = self.request();
        self.say(&ToRelay::PublishCard {
            request,
            card: card.as_bytes(),
        })
        .await;
        self.next().await
    }

    pub(crate) async fn publish_prekeys(&mut self, prekeys: &[Prekey]) -> Said {
        self.give_prekeys(false, prekeys).await
    }

    pub(crate) async fn replace_prekeys(&mut self, prekeys: &[Prekey]) -> Said {
        self.give_prekeys(true, prekeys).await
    }

    async fn give_prekeys(&mut self, replace: bool, prekeys: &[Prekey]) -> Said {
        let request = self.request();
        let prekeys: Vec<_> = prekeys.iter().map(Prekey::lend).collect();
        self.say(&ToRelay::PublishPrekeys {
            request,
            replace,
            prekeys: List::from(&prekeys),
        })
        .await;
        self.next().await
    }

    pub(crate) async fn remove(&mut self, device: Thumbprint) -> Said {
        let request = self.request();
        self.say(&ToRelay::RemoveDevice { request, device }).await;
        self.next().await
    }

    pub(crate) async fn refresh(&mut self, token: &str) -> Said {
        let request = self.request();
        let proof = self.link.refresh_proof(&self.key, token.as_bytes(), now());
        self.say(&ToRelay::Refresh {
            request,
            proof: proof.as_bytes(),
            token: token.as_bytes(),
        })
        .await;
        self.next().await
    }

    /// Shows that the relay has nothing more to say: a request is answered, and nothing comes before the answer.
    pub(crate) async fn nothing_waits(&mut self) {
        let request = self.request();
        self.say(&ToRelay::FetchCards {
            request,
            user: "nobody",
            take: false,
        })
        .await;
        assert!(matches!(self.next().await, Said::Refused(answered, _) if answered == request));
    }

    /// A card of this device, with its token as the attestation.
    pub(crate) fn card(&self, user: &str, generation: u64) -> String {
        let _ = user;
        card(&self.key, &self.key, generation, &self.token)
    }
}

/// A card for `key`, signed by `signer`.
pub(crate) fn card(
    key: &SigningKey,
    signer: &SigningKey,
    generation: u64,
    attestation: &str,
) -> String {
    card_of(key, signer, generation, attestation, now())
}

/// The same, with another `iat`.
pub(crate) fn card_of(
    key: &SigningKey,
    signer: &SigningKey,
    generation: u64,
    attestation: &str,
    issued: u64,
) -> String {
    let kem = KemDecapsulationKey::generate(&mut rand::rng())
        .encapsulation_key()
        .to_bytes();
    Statement::new(JwtType::Card)
        .text("iss", &key.thumbprint().to_string())
        .integer("iat", issued)
        .integer("id", generation)
        .bytes("key", key.public().as_bytes())
        .bytes("jwe", &[7; 32])
        .bytes("spk", &[9; 32])
        .bytes("kem", &kem)
        .text("att", attestation)
        .sign(signer)
}

/// A one-time prekey.
pub(crate) struct Prekey {
    id: u32,
    kem_key: [u8; 1184],
    signature: [u8; 64],
}

const PREKEY_X25519: [u8; 32] = [5; 32];

impl Prekey {
    /// For the device `of`, signed by `signer`.
    pub(crate) fn new(id: u32, of: Thumbprint, signer: &SigningKey) -> Self {
        let kem_key = KemDecapsulationKey::generate(&mut rand::rng())
            .encapsulation_key()
            .to_bytes();
        let signed = [
            b"sealwire/1 one-time prekey".as_slice(),
            of.as_bytes(),
            &id.to_be_bytes(),
            &PREKEY_X25519,
            &kem_key,
        ]
        .concat();
        Self {
            id,
            kem_key,
            signature: signer.sign(&signed),
        }
    }

    fn lend(&self) -> OneTimePrekey<'_> {
        OneTimePrekey {
            id: self.id,
            x25519: &PREKEY_X25519,
            kem_key: &self.kem_key,
            signature: &self.signature,
        }
    }
}

/// The position before the first that a relay gives in its first start (docs/protocol.md §5.2).
pub(crate) const FIRST_START: u64 = 1 << 40;

/// A relay in memory.
pub(crate) async fn relay(issuer: &Issuer) -> Relay {
    issuer.relay().bind("127.0.0.1:0").await.unwrap()
}

/// A message as its recipient gets it, the `position`th of the mailbox in the relay's first start.
pub(crate) fn delivery(position: u64, id: u8, from: &Device, user: &str, message: &[u8]) -> Said {
    Said::Deliver {
        position: FIRST_START + position,
        id: [id; 16],
        user: user.to_owned(),
        device: from.id(),
        message: message.to_vec(),
    }
}

/// What Ready says of the mailbox: acknowledged, head, waiting.
pub(crate) fn mailbox(ready: &Said) -> (u64, u64, u32) {
    match ready {
        Said::Ready {
            acknowledged,
            head,
            waiting,
            ..
        } => (*acknowledged, *head, *waiting),
        other => panic!("{other:?}"),
    }
}

/// Why a request was refused.
pub(crate) fn refused(said: Said) -> RefusalCode {
    match said {
        Said::Refused(_, code) => code,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn assert_accepted(said: &Said) {
    assert!(matches!(said, Said::Accepted(_)), "{said:?}");
}
