//! A relay for one test: real sockets, the real link, and a script of what it does to each connection.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use sealwire_e2e::device::{DeviceKeys, OwnIdentity};
use sealwire_e2e::prekeys::Prekeys;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{CardEntry, List, Ready, ToDevice, ToRelay};
use sealwire_protocol::handshake::{Presented, RelayHandshake};
use sealwire_protocol::key::{Seed, SigningKey, Thumbprint};
use sealwire_protocol::link::RelayLink;
use sealwire_protocol::name::Issuer;
use sealwire_protocol::token::{AccessPolicy, AccessToken, UnverifiedAccessToken};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::testing::{AUDIENCE, ISSUER, issuer_key, token};

/// What the relay does to a connection.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Act {
    /// Everything as it should be.
    Serve,
    /// Answers the upgrade with this HTTP status.
    Http(u16),
    /// Upgrades without the sub-protocol.
    NoSubProtocol,
    /// Closes with this code once Finish is there.
    CloseAtFinish(u16),
    /// Closes with this code once a Send is there, without taking it.
    CloseAtSend(u16),
    /// Closes with this code once the one-time prekeys are there.
    CloseAtPrekeys(u16),
    /// Sends this instead of Accept.
    InsteadOfAccept(&'static str),
    /// Sends this instead of a record.
    InsteadOfReady(&'static [u8]),
    /// Says Ready to another device.
    ReadyForAnother,
    /// Says and hears nothing any more once the one-time prekeys are published; the socket stays open.
    SilentOncePublished,
    /// The same once a Send is there.
    SilentAtSend,
    /// Says, once the one-time prekeys are published, that the device is to stay away for so many milliseconds, and closes.
    Leaves(u32),
    /// Says that the token expires in so many seconds.
    Expires(u64),
    /// Says, so often, that the token expires, once the one-time prekeys are published.
    SaysExpiring(usize),
    /// Has a clock that is so many seconds ahead.
    ClockAhead(i64),
}

/// What a test sees.
#[derive(Debug, PartialEq)]
pub(super) enum Saw {
    Credential(&'static str),
    Send([u8; 16], Vec<(Thumbprint, Vec<u8>)>),
    Prekeys(usize),
    Refresh,
    Closed(Option<u16>),
}

pub(super) struct FakeRelay {
    pub(super) address: SocketAddr,
    pub(super) saw: mpsc::UnboundedReceiver<Saw>,
}

struct Shared {
    script: Mutex<VecDeque<Act>>,
    cards: BTreeMap<String, String>,
    saw: mpsc::UnboundedSender<Saw>,
}

pub(super) fn relay_key() -> SigningKey {
    SigningKey::from_seed(&Seed::new([77; 32]))
}

impl FakeRelay {
    /// The first acts are for the first connections, the last one for all that follow. `tls` is what it serves, if anything.
    pub(super) async fn start(script: &[Act], tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, saw) = mpsc::unbounded_channel();
        let cards = BTreeMap::from([("bob".to_owned(), card_of_bob())]);
        let shared = Arc::new(Shared {
            script: Mutex::new(script.iter().copied().collect()),
            cards,
            saw: sender,
        });
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                shared.connection(stream).await;
                            }
                        }
                        None => shared.connection(tcp).await,
                    }
                });
            }
        });
        Self { address, saw }
    }

    pub(super) fn url(&self) -> String {
        format!("ws://{}/v1#{}", self.address, relay_key().thumbprint())
    }

    pub(super) async fn next(&mut self) -> Saw {
        self.saw.recv().await.unwrap()
    }

    /// The next thing of a kind.
    pub(super) async fn wait_for(&mut self, wanted: impl Fn(&Saw) -> bool) -> Saw {
        loop {
            let saw = self.next().await;
            if wanted(&saw) {
                return saw;
            }
        }
    }
}

impl Shared {
    async fn connection(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let act = {
            let mut script = self.script.lock().unwrap();
            if script.len() > 1 {
                script.pop_front().unwrap()
            } else {
                script[0]
            }
        };
        if let Act::Http(status) = act {
            let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            return stream.shutdown().await.unwrap();
        }
        #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
        let callback = |request: &Request, mut response: Response| {
            assert_eq!(request.headers()["sec-websocket-protocol"], "sealwire.v1");
            assert!(!request.headers().contains_key("sec-websocket-extensions"));
            if act != Act::NoSubProtocol {
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", "sealwire.v1".parse().unwrap());
            }
            Ok(response)
        };
        let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, callback).await else {
            return;
        };
        let closed = self.talk(&mut socket, act).await;
        let _ = self.saw.send(Saw::Closed(closed));
    }

    /// Talks until somebody closes; gives the code with which the device did.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: &mut WebSocketStream<S>,
        act: Act,
    ) -> Option<u16> {
        let now = match (super::super::task::now().seconds(), act) {
            (now, Act::ClockAhead(seconds)) => now.saturating_add_signed(seconds),
            (now, _) => now,
        };
        let key = relay_key();
        let hello = receive(socket).await.ok()?;
        let (state, accept) = RelayHandshake::new(&key, None)
            .on_hello(&hello, &mut rand::rng(), now)
            .unwrap();
        if let Act::InsteadOfAccept(text) = act {
            socket.send(Message::text(text)).await.unwrap();
        } else {
            socket.send(Message::Binary(accept.into())).await.unwrap();
        }
        let finish = match receive(socket).await {
            Ok(finish) => finish,
            Err(code) => return code,
        };
        let proven = state.on_finish(&finish).unwrap().prove(now).unwrap();
        let device = proven.device();
        let (credential, minted) = match proven.credential() {
            Presented::Token(token) => ("token", String::from_utf8(token.to_vec()).unwrap()),
            Presented::UpgradeToken => ("upgrade", String::new()),
            Presented::Invite(_) => ("invite", token(&issuer_key(), "alice", device, now, 3_600)),
            Presented::Exchange(_) => (
                "exchange",
                token(&issuer_key(), "alice", device, now, 3_600),
            ),
            Presented::Renewal => ("renewal", token(&issuer_key(), "alice", device, now, 3_600)),
        };
        let _ = self.saw.send(Saw::Credential(credential));
        if let Act::CloseAtFinish(code) = act {
            return close(socket, code).await;
        }
        let mut link = proven.authorise(verified(&minted, now)).unwrap();
        if let Act::InsteadOfReady(bytes) = act {
            socket.send(Message::Binary(bytes.into())).await.unwrap();
            return receive(socket).await.err().flatten();
        }
        let expires = if let Act::Expires(seconds) = act {
            seconds
        } else {
            3_600
        };
        let ready = Ready {
            device: if act == Act::ReadyForAnother {
                Thumbprint::from_bytes([1; 32])
            } else {
                device
            },
            user: "alice",
            time: now,
            token_expires: now + expires,
            max_message: 98_304,
            has_card: false,
            prekeys: 0,
            epoch: [0; 16],
            acknowledged: 0,
            head: 0,
            sent: 0,
            waiting: 0,
        };
        say(socket, &mut link, &ToDevice::Ready(ready)).await;
        if credential != "token" {
            let frame = ToDevice::Token {
                request: 0,
                expires: now + 3_600,
                token: minted.as_bytes(),
            };
            say(socket, &mut link, &frame).await;
        }
        loop {
            let mut record = match receive(socket).await {
                Ok(record) => record,
                Err(code) => return code,
            };
            // Copied out, because answering needs the link that lent the frames.
            let frames = link.handle_message(&mut record).unwrap();
            let mut answers = Vec::new();
            let (mut silent, mut publishes_now) = (false, false);
            for frame in frames {
                let (sends, publishes) = (
                    matches!(frame, ToRelay::Send(_)),
                    matches!(frame, ToRelay::PublishPrekeys { .. }),
                );
                silent |= sends && act == Act::SilentAtSend;
                silent |= publishes && act == Act::SilentOncePublished;
                publishes_now |= publishes;
                if self.saw_frame(&frame, act) {
                    if let Act::Leaves(after) = act {
                        say(socket, &mut link, &ToDevice::Leaving { after }).await;
                        return close(socket, 4000).await;
                    }
                    let (Act::CloseAtSend(code) | Act::CloseAtPrekeys(code)) = act else {
                        panic!()
                    };
                    return close(socket, code).await;
                }
                answers.push(self.answer(frame, act));
            }
            for answer in answers.into_iter().flatten() {
                match answer {
                    Answer::Accepted(request) => {
                        say(socket, &mut link, &ToDevice::Accepted { request }).await
                    }
                    Answer::Unknown(request) => {
                        let frame = ToDevice::Refused {
                            request,
                            code: RefusalCode::UnknownUser,
                        };
                        say(socket, &mut link, &frame).await;
                    }
                    Answer::Card(request, card) => {
                        let entries = [CardEntry {
                            card: card.as_bytes(),
                            prekey: None,
                        }];
                        let frame = ToDevice::Cards {
                            request,
                            entries: List::from(entries.as_slice()),
                        };
                        say(socket, &mut link, &frame).await;
                    }
                }
            }
            if publishes_now && let Act::SaysExpiring(times) = act {
                for _ in 0..times {
                    say(socket, &mut link, &ToDevice::Expiring { expires: now }).await;
                }
            }
            if silent {
                pending::<()>().await;
            }
        }
    }

    /// Tells the test; whether the connection is to be closed.
    fn saw_frame(&self, frame: &ToRelay<'_>, act: Act) -> bool {
        let (saw, close) = match frame {
            ToRelay::Send(send) => {
                let parts = send
                    .parts
                    .iter()
                    .map(|part| (part.device, part.message.to_vec()))
                    .collect();
                (
                    Saw::Send(send.id, parts),
                    matches!(act, Act::CloseAtSend(_)),
                )
            }
            ToRelay::PublishPrekeys { prekeys, .. } => (
                Saw::Prekeys(prekeys.len()),
                matches!(act, Act::CloseAtPrekeys(_) | Act::Leaves(_)),
            ),
            ToRelay::Refresh { .. } => (Saw::Refresh, false),
            ToRelay::Ack { .. }
            | ToRelay::PublishCard { .. }
            | ToRelay::FetchCards { .. }
            | ToRelay::RemoveDevice { .. }
            | ToRelay::Upload(_)
            | ToRelay::Download { .. }
            | ToRelay::Discard { .. }
            | ToRelay::Call(_) => {
                return false;
            }
        };
        let _ = self.saw.send(saw);
        close
    }

    fn answer(&self, frame: ToRelay<'_>, act: Act) -> Option<Answer> {
        match frame {
            ToRelay::Ack { .. } => None,
            ToRelay::FetchCards { request, user, .. } => Some(match self.cards.get(user) {
                Some(card) => Answer::Card(request, card.clone()),
                None => Answer::Unknown(request),
            }),
            ToRelay::Send(_) if act == Act::SilentAtSend => None,
            ToRelay::Send(send) => Some(Answer::Accepted(send.request)),
            ToRelay::PublishCard { request, .. }
            | ToRelay::PublishPrekeys { request, .. }
            | ToRelay::Refresh { request, .. }
            | ToRelay::RemoveDevice { request, .. }
            | ToRelay::Discard { request, .. } => Some(Answer::Accepted(request)),
            ToRelay::Upload(_) | ToRelay::Download { .. } | ToRelay::Call(_) => None,
        }
    }
}

enum Answer {
    Accepted(u32),
    Unknown(u32),
    Card(u32, String),
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    link: &mut RelayLink,
    frame: &ToDevice<'_>,
) {
    let record = link.seal_frame(frame).unwrap();
    let _ = socket.send(Message::Binary(record.into())).await;
}

async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
    code: u16,
) -> Option<u16> {
    let frame = CloseFrame {
        code: code.into(),
        reason: "".into(),
    };
    let _ = socket.close(Some(frame)).await;
    while let Some(Ok(_)) = socket.next().await {}
    None
}

/// The next binary message, or the code with which the device has closed.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut WebSocketStream<S>,
) -> Result<Vec<u8>, Option<u16>> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Binary(message))) => return Ok(message.into()),
            Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(None),
        }
    }
}

fn verified(token: &str, now: u64) -> AccessToken {
    let issuer = Issuer::new(ISSUER).unwrap();
    let policy = AccessPolicy {
        issuer: &issuer,
        audience: AUDIENCE,
        now,
    };
    UnverifiedAccessToken::parse(token.as_bytes())
        .unwrap()
        .verify(issuer_key().public(), &policy)
        .unwrap()
}

fn card_of_bob() -> String {
    let now = super::super::task::now().seconds();
    let keys = DeviceKeys::generate(&mut rand::rng());
    let attestation = token(&issuer_key(), "bob", keys.thumbprint(), now, 3_600);
    let own = OwnIdentity::new(&keys, &attestation).unwrap();
    Prekeys::new()
        .publish(&keys, &own, &mut rand::rng(), now)
        .unwrap()
}
