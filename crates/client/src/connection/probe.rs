//! Finds out, step by step, what is between a device and its relay, and what exactly is wrong with it: for tools that explain why a connection
//! is not made. A [`Client`](crate::Client) needs none of this.
//!
//! ```text
//!  Probe ── resolve ─▶ addresses ── connect ─▶ Connected ── secure ─▶ Secured ── upgrade ─▶ Upgraded ─┬─ relay_key
//!           DNS                     TCP                     TLS                  HTTP                 └─ enter: as a device
//! ```
//! Up to the relay's key nothing is presented but a TCP connection, so it may be run against whatever answers. [`Upgraded::enter`] is a
//! connection as any other of the device, which says nothing and acknowledges nothing.

use std::fmt;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sealwire_protocol::address::{Address, AddressError};
use sealwire_protocol::close::CloseCode;
use sealwire_protocol::error::{LinkError, NotAuthorised};
use sealwire_protocol::frame::ToDevice;
use sealwire_protocol::handshake::{Credential, DeviceHello, DeviceTerms};
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::{ClaimDefect, TokenError};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::HeaderMap;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::tls::{self, Tls};
use super::transport::{self, Io, Socket};
use super::{CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, TRANSPORT_TIMEOUT};
use crate::engine::{Engine, Options};
use crate::error::Unreachable;
use crate::issuer::TrustedIssuer;
use crate::store::{Store, StoreError, StoreKey};

/// Characters that are kept of what a server says about itself.
const MAX_SERVER_CHARS: usize = 40;

/// What is to be found out about.
#[derive(Debug)]
pub struct Probe {
    address: Address,
    tls: Tls,
}

/// TCP is up.
#[derive(Debug)]
pub struct Connected<'p> {
    probe: &'p Probe,
    tcp: TcpStream,
    peer: SocketAddr,
}

/// TLS is up, or the address is one without.
pub struct Secured<'p> {
    probe: &'p Probe,
    stream: Pin<Box<dyn Io>>,
    certificate: Option<[u8; 32]>,
}

/// The WebSocket is up.
pub struct Upgraded<'p> {
    probe: &'p Probe,
    socket: Socket,
}

/// A device whose store is open.
pub struct ProbeDevice {
    // It keeps others from opening the store meanwhile.
    engine: Engine,
}

/// What a device enters with.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Pass<'a> {
    /// Its enrolment with the relay's built-in issuer.
    Enrolment,
    /// An access token that names the device.
    Token(&'a str),
    /// A token of an identity provider, which the relay exchanges.
    Exchange(&'a str),
}

impl fmt::Debug for Pass<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enrolment => "Enrolment",
            Self::Token(_) => "Token(..)",
            Self::Exchange(_) => "Exchange(..)",
        })
    }
}

/// The relay has let a device in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entered {
    /// The user, as the relay says.
    pub user: String,
    /// Until when the token is good, in seconds since 1970.
    pub token_expires: u64,
    /// The relay's clock, in seconds since 1970.
    pub relay_time: u64,
    /// This device's clock, likewise.
    pub own_time: u64,
    /// Messages and notices that wait for the device.
    pub waiting: u32,
}

/// What is wrong. What it shows is what was found; [`Fault::advice`] is what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The name does not resolve.
    #[error("the name {0} does not resolve")]
    Name(String),
    /// Nothing listens there.
    #[error("nothing listens at {0}")]
    Refused(String),
    /// TCP fails in another way.
    #[error("{address} cannot be reached: {kind}")]
    Tcp {
        /// Where.
        address: String,
        /// What the operating system said.
        kind: ErrorKind,
    },
    /// No answer in time.
    #[error("there is no answer within {} seconds", .0.as_secs())]
    Silent(Duration),
    /// The connection broke in this step.
    #[error("the other end hangs up")]
    Broken,
    /// This system trusts no certificates.
    #[error("this system has no trusted certificates")]
    NoRoots,
    /// The certificate is not trusted.
    #[error("{fault}; its fingerprint is {}", fingerprint(.presented))]
    Certificate {
        /// Why not.
        fault: CertificateFault,
        /// SHA-256 of the certificate that was shown.
        presented: [u8; 32],
    },
    /// What answers speaks no TLS.
    #[error("what answers does not speak TLS")]
    NoTls,
    /// TLS fails in another way.
    #[error("TLS fails; what answers may not speak TLS 1.3")]
    Tls,
    /// HTTP answered with something else than the upgrade.
    #[error("a web server answers with HTTP status {status}{}", said_by(.server))]
    Http {
        /// The status.
        status: u16,
        /// What it calls itself, if it does.
        server: Option<String>,
    },
    /// What answers speaks no HTTP.
    #[error("what answers does not speak HTTP")]
    NoHttp,
    /// A WebSocket server that is no relay.
    #[error("a WebSocket server answers that does not speak sealwire.v1")]
    NoRelay,
    /// Another relay than the one in the address.
    #[error("the relay that answers has the key {presented}; the address names {expected}")]
    RelayKey {
        /// The thumbprint in the address.
        expected: Thumbprint,
        /// The thumbprint of the key that was presented.
        presented: Thumbprint,
    },
    /// The clocks differ by more than the protocol allows.
    #[error("this clock is more than 60 seconds {} the relay's", if *.ahead { "ahead of" } else { "behind" })]
    Clock {
        /// Whether this device's is ahead.
        ahead: bool,
    },
    /// The handshake does not hold.
    #[error("the relay does not follow the protocol: {0}")]
    Handshake(LinkError),
    /// What was sent is no WebSocket message of a relay.
    #[error("the relay does not follow the protocol: it sends what is no binary message")]
    Message,
    /// The relay closed with this code.
    #[error("the relay closes with {}", close_code(*.0))]
    Closed(u16),
}

/// What is wrong with a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateFault {
    /// It is not the one that was pinned.
    #[error("the certificate is not the one that the invitation names")]
    Pin,
    /// Nobody whom this system trusts vouches for it.
    #[error("the certificate is self-signed, or of an authority that this system does not know")]
    UnknownIssuer,
    /// It has expired, by this device's clock.
    #[error("the certificate has expired")]
    Expired,
    /// It is not valid yet, by this device's clock.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// It is for another name.
    #[error("the certificate is for another name than the address has")]
    OtherName,
    /// Something else.
    #[error("the certificate is not valid")]
    Other,
}

impl Probe {
    /// Takes an address, `wss://host[:port]/v1#<thumbprint>`, and whom TLS trusts.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn new(address: &str, tls: Tls) -> Result<Self, AddressError> {
        let address = address.parse()?;
        Ok(Self { address, tls })
    }

    /// Whether there is TLS in it.
    pub fn is_secure(&self) -> bool {
        self.address.is_secure()
    }

    /// Whether one certificate is pinned.
    pub fn is_pinned(&self) -> bool {
        matches!(self.tls, Tls::Pinned(_))
    }

    /// The same, but with exactly this certificate, by the SHA-256 of its DER form: to go on where TLS does not trust it. Nothing may be
    /// presented to whoever answers then.
    pub fn trusting(&self, certificate: [u8; 32]) -> Self {
        Self {
            address: self.address.clone(),
            tls: Tls::Pinned(certificate),
        }
    }

    /// The key that the relay has to have.
    pub fn relay(&self) -> Thumbprint {
        self.address.relay()
    }

    /// Looks the name up.
    ///
    /// # Errors
    /// [`Fault::Name`], [`Fault::Silent`].
    pub async fn resolve(&self) -> Result<Vec<SocketAddr>, Fault> {
        let (host, port) = (self.address.host(), self.address.port());
        let found = in_time(TRANSPORT_TIMEOUT, tokio::net::lookup_host((host, port))).await?;
        let found: Vec<_> = found.into_iter().flatten().collect();
        if found.is_empty() {
            return Err(Fault::Name(self.address.host()));
        }
        Ok(found)
    }

    /// Connects to the first of the addresses that answers.
    ///
    /// # Errors
    /// [`Fault::Refused`], [`Fault::Tcp`], [`Fault::Silent`].
    pub async fn connect(&self, addresses: &[SocketAddr]) -> Result<Connected<'_>, Fault> {
        let tried: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        let address = tried.join(", ");
        match in_time(TRANSPORT_TIMEOUT, TcpStream::connect(addresses)).await? {
            Ok(tcp) => {
                let peer = tcp.peer_addr().map_err(|error| Fault::Tcp {
                    address,
                    kind: error.kind(),
                })?;
                let probe = self;
                Ok(Connected { probe, tcp, peer })
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Err(Fault::Refused(address))
            }
            Err(error) => Err(Fault::Tcp {
                address,
                kind: error.kind(),
            }),
        }
    }
}

impl<'p> Connected<'p> {
    /// Who answers.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Makes TLS, unless the address is one without.
    ///
    /// # Errors
    /// [`Fault::Certificate`] and others about TLS.
    pub async fn secure(self) -> Result<Secured<'p>, Fault> {
        let Self { probe, tcp, .. } = self;
        if !probe.is_secure() {
            return Ok(Secured {
                probe,
                stream: Box::pin(tcp),
                certificate: None,
            });
        }
        let recording = Arc::new(Recording {
            judge: tls::verifier(&probe.tls).map_err(no_roots)?,
            seen: Mutex::new(None),
        });
        let judge: Arc<dyn ServerCertVerifier> = Arc::clone(&recording) as _;
        let connector = TlsConnector::from(tls::config_with(judge).map_err(no_roots)?);
        // A host that cannot stand in a certificate is not in one.
        let name = ServerName::try_from(probe.address.host()).map_err(|_| Fault::Tls)?;
        let stream = in_time(TRANSPORT_TIMEOUT, connector.connect(name, tcp)).await?;
        let certificate = recording.seen();
        match stream {
            Ok(stream) => Ok(Secured {
                probe,
                stream: Box::pin(stream),
                certificate,
            }),
            Err(error) => Err(tls_fault(&error, certificate)),
        }
    }
}

impl<'p> Secured<'p> {
    /// SHA-256 of the certificate that was shown, if there is TLS.
    pub fn certificate(&self) -> Option<[u8; 32]> {
        self.certificate
    }

    /// Asks for the WebSocket.
    ///
    /// # Errors
    /// [`Fault::Http`], [`Fault::NoHttp`], [`Fault::NoRelay`].
    pub async fn upgrade(self) -> Result<Upgraded<'p>, Fault> {
        let Self { probe, stream, .. } = self;
        let upgraded = transport::websocket(&probe.address, stream);
        match in_time(TRANSPORT_TIMEOUT, upgraded).await? {
            Ok((socket, _)) => Ok(Upgraded { probe, socket }),
            Err(WsError::Http(response)) => Err(Fault::Http {
                status: response.status().as_u16(),
                server: server(response.headers()),
            }),
            Err(WsError::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {
                Err(Fault::NoRelay)
            }
            Err(WsError::Protocol(ProtocolError::HandshakeIncomplete) | WsError::Io(_)) => {
                Err(Fault::Broken)
            }
            Err(_) => Err(Fault::NoHttp),
        }
    }
}

impl Upgraded<'_> {
    /// Has the relay prove its key. Nothing is presented to it.
    ///
    /// # Errors
    /// [`Fault::RelayKey`], [`Fault::Clock`], [`Fault::Handshake`].
    pub async fn relay_key(mut self) -> Result<(), Fault> {
        // It is not used: Finish, which would say it, is not sent.
        let nobody = SigningKey::generate(&mut rand::rng());
        let proved = in_time(
            HANDSHAKE_TIMEOUT,
            self.handshake(&nobody, Credential::Renewal),
        )
        .await;
        self.close().await;
        proved?.map(|_| ())
    }

    /// Enters as a device.
    ///
    /// # Errors
    /// [`Fault::Closed`] with the code that says why the relay does not let it in, or what is wrong with the relay.
    pub async fn enter(mut self, device: &ProbeDevice, pass: Pass<'_>) -> Result<Entered, Fault> {
        let keys = device.engine.keys();
        let credential = match pass {
            Pass::Enrolment => Credential::Renewal,
            Pass::Token(token) => Credential::Token(token.as_bytes()),
            Pass::Exchange(token) => Credential::Exchange(token.as_bytes()),
        };
        let entering = async {
            let (mut link, finish) = self.handshake(keys.signing(), credential).await?;
            self.send(finish).await?;
            let mut record = self.receive().await?;
            let frames = link.handle_message(&mut record).map_err(Fault::Handshake)?;
            for frame in frames {
                if let ToDevice::Ready(ready) = frame {
                    return Ok(Entered {
                        user: ready.user.to_owned(),
                        token_expires: ready.token_expires,
                        relay_time: ready.time,
                        own_time: now(),
                        waiting: ready.waiting,
                    });
                }
            }
            // The link has checked that Ready is the first.
            Err(Fault::Message)
        };
        let entered = in_time(HANDSHAKE_TIMEOUT, entering).await;
        self.close().await;
        entered?
    }

    async fn handshake(
        &mut self,
        key: &SigningKey,
        credential: Credential<'_>,
    ) -> Result<(sealwire_protocol::link::DeviceLink, Vec<u8>), Fault> {
        let (state, hello) = DeviceHello::start(&mut rand::rng());
        self.send(hello).await?;
        let accept = self.receive().await?;
        let relays = [self.probe.relay()];
        let terms = DeviceTerms {
            relays: &relays,
            key,
            credential,
            now: now(),
        };
        state.on_accept(&accept, &terms).map_err(accept_fault)
    }

    async fn send(&mut self, message: Vec<u8>) -> Result<(), Fault> {
        let sent = self.socket.send(Message::Binary(message.into())).await;
        sent.map_err(|_| Fault::Broken)
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Fault> {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Binary(message))) => Ok(message.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(frame))) => {
                    Err(Fault::Closed(frame.map_or(1005, |frame| frame.code.into())))
                }
                Some(Ok(Message::Text(_) | Message::Frame(_)) | Err(WsError::Capacity(_))) => {
                    Err(Fault::Message)
                }
                Some(Err(_)) | None => Err(Fault::Broken),
            };
        }
    }

    async fn close(&mut self) {
        let frame = CloseFrame {
            code: WsCode::from(CloseCode::Normal.code()),
            reason: CloseCode::Normal.name().into(),
        };
        let goodbye = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // Whoever does not answer is left alone.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
    }
}

impl ProbeDevice {
    /// Opens a device's store, which nobody else can open until this is dropped. Nothing in it is changed, but that one of an older format is brought up to
    /// date, as by whoever opens it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(
        store: impl Store + 'static,
        key: &StoreKey,
        issuer: TrustedIssuer,
    ) -> Result<Self, StoreError> {
        let options = Options {
            delivery_receipts: false,
            only_verified: false,
        };
        let rng = Box::new(rand::rng());
        let engine = Engine::open(Box::new(store), key, issuer, options, rng)?;
        Ok(Self { engine })
    }

    /// Which device it is.
    pub fn thumbprint(&self) -> Thumbprint {
        self.engine.keys().thumbprint()
    }
}

impl Fault {
    /// A stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "name_not_resolved",
            Self::Refused(_) => "nothing_listens",
            Self::Tcp { .. } => "tcp_failed",
            Self::Silent(_) => "no_answer",
            Self::Broken => "connection_broken",
            Self::NoRoots => "no_tls_roots",
            Self::Certificate { fault, .. } => match fault {
                CertificateFault::Pin => "certificate_pin_mismatch",
                CertificateFault::UnknownIssuer => "certificate_unknown_issuer",
                CertificateFault::Expired => "certificate_expired",
                CertificateFault::NotYetValid => "certificate_not_yet_valid",
                CertificateFault::OtherName => "certificate_for_other_name",
                CertificateFault::Other => "certificate_invalid",
            },
            Self::NoTls => "no_tls",
            Self::Tls => "tls_failed",
            Self::Http { .. } => "http_status",
            Self::NoHttp => "no_http",
            Self::NoRelay => "not_a_relay",
            Self::RelayKey { .. } => "relay_key_mismatch",
            Self::Clock { .. } => "clock",
            Self::Handshake(_) | Self::Message => "relay_fault",
            Self::Closed(code) => {
                CloseCode::from_code(*code).map_or("closed", |code| match code.name() {
                    "" => "closed",
                    name => name,
                })
            }
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Name(_) => {
                "check the name in the address, and whether this machine can resolve others"
            }
            Self::Refused(_) => {
                "check the port in the address, and that the relay, or the proxy in front of it, runs there"
            }
            Self::Tcp { .. } => "check this machine's network and the firewalls in between",
            Self::Silent(_) => {
                "a firewall may drop what is sent; check that the port is open from here"
            }
            Self::Broken => {
                "something in between ends the connection; look at the log of the relay, or of the proxy in front of it"
            }
            Self::NoRoots => {
                "install them (on Debian: ca-certificates), or name a file of them with SSL_CERT_FILE"
            }
            Self::Certificate { fault, .. } => match fault {
                CertificateFault::Pin => {
                    "ask the operator whether the relay has a new certificate, and for a new invitation if so; otherwise somebody is in between"
                }
                CertificateFault::UnknownIssuer => {
                    "join with an invitation of this relay, which names its certificate; or have the operator use one that the world trusts"
                }
                CertificateFault::Expired => {
                    "have the operator renew it; if it is good elsewhere, set this machine's clock"
                }
                CertificateFault::NotYetValid => {
                    "set this machine's clock; if that is right, the operator has installed it too early"
                }
                CertificateFault::OtherName => {
                    "use the name that the certificate is for, or have the operator get one for this name"
                }
                CertificateFault::Other => "have the operator replace it",
            },
            Self::NoTls => {
                "something else than the relay listens on this port, or a relay without TLS; check the port"
            }
            Self::Tls => "check what ends TLS in front of the relay: it has to speak TLS 1.3",
            Self::Http { status, .. } => http_advice(*status),
            Self::NoHttp => "something else than a relay listens on this port; check the port",
            Self::NoRelay => {
                "check the address; if a proxy is in front, it has to pass Sec-WebSocket-Protocol on"
            }
            Self::RelayKey { .. } => {
                "do not go on before you know why: ask the operator for the relay's thumbprint; it may have a new data directory, or a proxy leads elsewhere"
            }
            Self::Clock { .. } => {
                "set this machine's clock, best by NTP; if it is right, the relay's is not"
            }
            Self::Handshake(_) | Self::Message => {
                "compare the versions on both sides; a proxy must not change what it passes on"
            }
            Self::Closed(code) => match CloseCode::from_code(*code) {
                Some(CloseCode::NotAuthorised) => {
                    "get a new token or invitation; the relay's log says what is wrong with this one"
                }
                Some(CloseCode::TokenExpired) => "get a new token",
                Some(CloseCode::Revoked) => {
                    "ask the operator: this token, device or user was revoked, and a removed device joins again as a new one"
                }
                Some(CloseCode::Replaced) => {
                    "another program uses a copy of this device; run one of them only"
                }
                Some(CloseCode::Version) => "update the older side",
                Some(CloseCode::Malformed | CloseCode::Violation) => {
                    "compare the versions on both sides; a proxy must not change what it passes on"
                }
                Some(
                    CloseCode::Normal
                    | CloseCode::GoingAway
                    | CloseCode::TooSlow
                    | CloseCode::Overloaded
                    | CloseCode::Timeout
                    | CloseCode::Internal,
                )
                | None => "try again; if it stays so, look at the relay's log",
            },
        }
    }
}

/// What a status says about what is in front of the relay.
fn http_advice(status: u16) -> &'static str {
    match status {
        300..=399 => "the relay has moved, or a proxy redirects: use the address that it leads to",
        400 | 426 => {
            "a proxy in front of the relay has to pass the headers Upgrade, Connection and Sec-WebSocket-* on, with HTTP/1.1"
        }
        401 | 407 => "a proxy in between wants a password; the relay itself asks for none here",
        403 => {
            "something in front of the relay does not let this in: a firewall for web requests, or rules of the proxy"
        }
        404 => {
            "nothing is at /v1: check the host, and that the proxy passes this path on unchanged"
        }
        429 => "something in front of the relay limits requests; wait, or raise the limit",
        502..=504 => {
            "the proxy does not reach the relay: check that the relay runs, and where the proxy looks for it"
        }
        _ => {
            "something else than the relay answers; check the host, the port, and what the proxy does with /v1"
        }
    }
}

/// Judges certificates, and remembers the one it was shown.
#[derive(Debug)]
struct Recording {
    judge: Arc<dyn ServerCertVerifier>,
    seen: Mutex<Option<[u8; 32]>>,
}

impl Recording {
    fn seen(&self) -> Option<[u8; 32]> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for Recording {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Sha256::digest(end_entity).into());
        self.judge
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.judge
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

fn no_roots(error: Unreachable) -> Fault {
    if matches!(error, Unreachable::NoRoots) {
        Fault::NoRoots
    } else {
        Fault::Tls
    }
}

fn tls_fault(error: &std::io::Error, presented: Option<[u8; 32]>) -> Fault {
    let found = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match (found, presented) {
        (Some(rustls::Error::InvalidCertificate(defect)), Some(presented)) => Fault::Certificate {
            fault: certificate_fault(defect),
            presented,
        },
        (Some(rustls::Error::InvalidMessage(_)), _) => Fault::NoTls,
        (Some(_), _) => Fault::Tls,
        (None, _) => Fault::Broken,
    }
}

fn certificate_fault(defect: &CertificateError) -> CertificateFault {
    use CertificateError as Error;
    if matches!(defect, Error::ApplicationVerificationFailure) {
        CertificateFault::Pin
    } else if matches!(defect, Error::UnknownIssuer) {
        CertificateFault::UnknownIssuer
    } else if matches!(defect, Error::Expired | Error::ExpiredContext { .. }) {
        CertificateFault::Expired
    } else if matches!(
        defect,
        Error::NotValidYet | Error::NotValidYetContext { .. }
    ) {
        CertificateFault::NotYetValid
    } else if matches!(
        defect,
        Error::NotValidForName | Error::NotValidForNameContext { .. }
    ) {
        CertificateFault::OtherName
    } else {
        CertificateFault::Other
    }
}

/// What a server calls itself, as far as it can be shown.
fn server(headers: &HeaderMap) -> Option<String> {
    let name = headers.get("server")?.to_str().ok()?;
    Some(name.chars().take(MAX_SERVER_CHARS).collect())
}

/// What is wrong with a relay whose Accept does not hold.
fn accept_fault(error: LinkError) -> Fault {
    let LinkError::NotAuthorised(reason) = error else {
        return Fault::Handshake(error);
    };
    if let NotAuthorised::UnexpectedRelay {
        expected,
        presented,
    } = reason
    {
        return Fault::RelayKey {
            expected,
            presented,
        };
    }
    let iat = |defect| {
        let claim = TokenError::Claim {
            claim: "iat",
            defect,
        };
        reason == NotAuthorised::RelayProof(claim)
    };
    match (iat(ClaimDefect::TooOld), iat(ClaimDefect::InFuture)) {
        (true, _) => Fault::Clock { ahead: true },
        (false, true) => Fault::Clock { ahead: false },
        (false, false) => Fault::Handshake(error),
    }
}

fn fingerprint(presented: &[u8; 32]) -> String {
    sealwire_protocol::base64url::encode(presented)
}

fn said_by(server: &Option<String>) -> String {
    server
        .as_ref()
        .map_or_else(String::new, |server| format!(" ({server})"))
}

fn close_code(code: u16) -> String {
    CloseCode::from_code(code).map_or_else(|| code.to_string(), |code| code.to_string())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Fault> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Fault::Silent(limit))
}

impl fmt::Debug for Secured<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured").finish_non_exhaustive()
    }
}

impl fmt::Debug for Upgraded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}

impl fmt::Debug for ProbeDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeDevice")
            .field("device", &self.thumbprint())
            .finish_non_exhaustive()
    }
}
