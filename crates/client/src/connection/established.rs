//! A connection whose link handshake is done: frames in, frames out, and the WebSocket's own pings and closes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use sealwire_e2e::device::DeviceKeys;
use sealwire_protocol::address::Address;
use sealwire_protocol::batch::Batch;
use sealwire_protocol::close::{CloseCode, Retry};
use sealwire_protocol::error::{
    Incompatibility, LinkError, Misbehaviour, NotAuthorised as LinkNotAuthorised,
};
use sealwire_protocol::frame::{DeviceToRelay, ToRelay};
use sealwire_protocol::handshake::{Credential, DeviceHello, DeviceTerms};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::link::DeviceLink;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WsCode;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

use super::tls::Tls;
use super::transport::{self, Socket};
use super::{CLOSE_TIMEOUT, HANDSHAKE_TIMEOUT, TRANSPORT_TIMEOUT, WRITE_TIMEOUT};
use crate::error::{Error, NotAuthorised, RelayFault, Unreachable};

/// What lets the device in, this time.
pub(super) enum Pass {
    Token(zeroize::Zeroizing<String>),
    Invite(zeroize::Zeroizing<Vec<u8>>),
    Renewal,
    Exchange(zeroize::Zeroizing<String>),
}

impl Pass {
    /// The access token, if it is one.
    pub(super) fn token(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(token),
            Self::Invite(_) | Self::Renewal | Self::Exchange(_) => None,
        }
    }

    fn credential(&self) -> Credential<'_> {
        match self {
            Self::Token(token) => Credential::Token(token.as_bytes()),
            Self::Invite(code) => Credential::Invite(code),
            Self::Renewal => Credential::Renewal,
            Self::Exchange(token) => Credential::Exchange(token.as_bytes()),
        }
    }
}

/// Why a connection ended, or was not made.
#[derive(Debug)]
pub(super) enum End {
    /// It may be tried again by itself.
    Retry(Unreachable),
    /// With another credential it may be tried again.
    Credential(NotAuthorised),
    /// It is over; also `Error::Closed` and errors that a first connection reports.
    Final(Error),
    /// A newer link of the same device is there.
    Replaced,
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        match error {
            Error::Unreachable(reason) if reason.is_retryable() => Self::Retry(reason),
            Error::NotAuthorised(reason) => Self::Credential(reason),
            Error::Misuse(_)
            | Error::Store(_)
            | Error::Unreachable(_)
            | Error::RelayKey { .. }
            | Error::Relay(_)
            | Error::Refused(_)
            | Error::PeerChanged
            | Error::PeerUnverified
            | Error::Card(_)
            | Error::NotDelivered(_)
            | Error::File(_)
            | Error::Timeout
            | Error::Closed(_) => Self::Final(error),
        }
    }
}

impl From<RelayFault> for End {
    fn from(fault: RelayFault) -> Self {
        Self::Final(Error::Relay(fault))
    }
}

/// A link with its socket.
pub(super) struct Established {
    socket: Socket,
    pub(super) link: DeviceLink,
    batch: Batch<DeviceToRelay>,
    /// What is sealed, and not yet the socket's.
    outgoing: VecDeque<Message>,
    outgoing_bytes: usize,
    /// Since when the socket has taken nothing of what it is to write; `None` once all is written.
    stuck_since: Option<tokio::time::Instant>,
    /// When something last arrived.
    pub(super) heard: Instant,
    /// The link has failed here: what to tell the relay (`docs/protocol.md §13`).
    failed: Option<CloseCode>,
}

impl Established {
    /// Connects and makes the link handshake with a relay that has the key `relay`, or one that follows it. `now` is this device's clock, in seconds since 1970.
    pub(super) async fn connect(
        address: &Address,
        relay: Thumbprint,
        tls: &Tls,
        keys: &DeviceKeys,
        pass: &Pass,
        now: u64,
    ) -> Result<Self, End> {
        let connecting = transport::connect(address, tls);
        let mut socket = match tokio::time::timeout(TRANSPORT_TIMEOUT, connecting).await {
            Ok(socket) => socket?,
            Err(_) => return Err(End::Retry(Unreachable::Timeout)),
        };
        let handshake = handshake(&mut socket, relay, keys, pass, now);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(link)) => Ok(Self {
                socket,
                link,
                batch: Batch::new(),
                outgoing: VecDeque::new(),
                outgoing_bytes: 0,
                stuck_since: None,
                heard: Instant::now(),
                failed: None,
            }),
            Ok(Err(end)) => Err(end),
            Err(_) => Err(End::Retry(Unreachable::Timeout)),
        }
    }

    /// Writes what waits, and gives the next record, sealed as it came, if `read`; or `None` once there is room for more again. Neither waits for the other:
    /// a relay that has much to say reads on only when it has been heard. Dropping the future loses nothing.
    pub(super) async fn turn(&mut self, read: bool) -> Result<Option<Vec<u8>>, End> {
        poll_fn(|cx| {
            let had_room = self.has_room();
            if let Poll::Ready(Err(end)) = self.poll_written(cx) {
                return Poll::Ready(Err(end));
            }
            if !had_room && self.has_room() {
                return Poll::Ready(Ok(None));
            }
            if read {
                self.poll_record(cx).map_ok(Some)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn poll_record(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, End>> {
        loop {
            let read = ready!(self.socket.poll_next_unpin(cx));
            self.heard = Instant::now();
            match understood(read) {
                Ok(Some(record)) => return Poll::Ready(Ok(record)),
                Ok(None) => {}
                Err(end) => {
                    if is_malformed(&end) {
                        self.failed = Some(CloseCode::Malformed);
                    }
                    return Poll::Ready(Err(end));
                }
            }
        }
    }

    /// Writes what waits, as far as the socket takes it.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        while !self.outgoing.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx)).map_err(|_| broken())?;
            if let Some(message) = self.outgoing.pop_front() {
                self.outgoing_bytes = self.outgoing_bytes.saturating_sub(message.len());
                let taken = self.socket.start_send_unpin(message);
                taken.map_err(|_| broken())?;
                self.stuck_since = Some(tokio::time::Instant::now());
            }
        }
        if self.stuck_since.is_some() {
            ready!(self.socket.poll_flush_unpin(cx)).map_err(|_| broken())?;
            self.stuck_since = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Waits until all is written.
    pub(super) async fn written(&mut self) -> Result<(), End> {
        poll_fn(|cx| self.poll_written(cx)).await
    }

    /// When the relay has taken too long to take anything.
    pub(super) fn written_by(&self) -> Option<tokio::time::Instant> {
        self.stuck_since.map(|since| since + WRITE_TIMEOUT)
    }

    /// Whether more may be pushed.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing_bytes.saturating_add(self.batch.bytes()) < MAX_OUTGOING_BYTES
    }

    /// Adds a frame to what is sent next.
    pub(super) fn push(&mut self, frame: &ToRelay<'_>) -> Result<(), End> {
        use sealwire_protocol::error::Misuse;
        match self.batch.push(frame) {
            Ok(()) => Ok(()),
            Err(Misuse::BatchFull) => {
                self.flush()?;
                self.batch
                    .push(frame)
                    .map_err(|error| link_error(error.into()))
            }
            Err(error) => Err(link_error(error.into())),
        }
    }

    /// Has what was pushed written in the next [`turn`](Self::turn).
    pub(super) fn flush(&mut self) -> Result<(), End> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, Batch::new());
        let record = self.link.seal(batch).map_err(link_error)?;
        self.queue(Message::Binary(record.into()));
        Ok(())
    }

    pub(super) fn ping(&mut self) {
        self.queue(Message::Ping(Bytes::new()));
    }

    fn queue(&mut self, message: Message) {
        self.outgoing_bytes = self.outgoing_bytes.saturating_add(message.len());
        self.outgoing.push_back(message);
        self.stuck_since
            .get_or_insert_with(tokio::time::Instant::now);
    }

    /// The link has ended with an error of this side.
    pub(super) fn fail(&mut self, error: LinkError) -> End {
        self.failed = Some(error.close_code());
        link_error(error)
    }

    /// Tells the relay with what code the link has failed here, if it has.
    pub(super) async fn close_if_failed(self) {
        if let Some(code) = self.failed {
            self.close(code).await;
        }
    }

    /// A write fails before the close frame that says why has been read: reads on for it.
    pub(super) async fn reason(&mut self, end: End) -> End {
        if !matches!(end, End::Retry(Unreachable::Broken)) {
            return end;
        }
        let reading = async {
            loop {
                if let Err(end) = poll_fn(|cx| self.poll_record(cx)).await {
                    return end;
                }
            }
        };
        tokio::time::timeout(CLOSE_TIMEOUT, reading)
            .await
            .unwrap_or(end)
    }

    /// Says goodbye, politely but not for long.
    pub(super) async fn close(mut self, code: CloseCode) {
        say_goodbye(&mut self.socket, code).await;
    }
}

/// Bytes that wait to be written, from which on nothing more is added.
const MAX_OUTGOING_BYTES: usize = 256 << 10;

/// What ends a link because of an error of its own.
fn link_error(error: LinkError) -> End {
    end_of(error, RelayFault::Record)
}

fn end_of(error: LinkError, fault: RelayFault) -> End {
    tracing::info!(%error, "the link has ended");
    if let LinkError::NotAuthorised(LinkNotAuthorised::UnexpectedRelay {
        expected,
        presented,
    }) = error
    {
        return End::Final(Error::RelayKey {
            expected,
            presented,
        });
    }
    if let LinkError::Misbehaved(Misbehaviour::ReadyForAnotherDevice(_)) = error {
        return RelayFault::OtherDevice.into();
    }
    if let LinkError::Incompatible(Incompatibility::Version { .. }) = error {
        return RelayFault::Version.into();
    }
    if let LinkError::Exhausted(_) = error {
        // Nobody is to blame: a new link has new keys.
        return End::Retry(Unreachable::Broken);
    }
    fault.into()
}

async fn handshake(
    socket: &mut Socket,
    relay: Thumbprint,
    keys: &DeviceKeys,
    pass: &Pass,
    now: u64,
) -> Result<DeviceLink, End> {
    let (state, hello) = DeviceHello::start(&mut rand::rng());
    in_time(socket.send(Message::Binary(hello.into()))).await?;
    let accept = loop {
        match next_message(socket).await {
            Ok(Some(accept)) => break accept,
            Ok(None) => {}
            Err(end) => {
                if is_malformed(&end) {
                    say_goodbye(socket, CloseCode::Malformed).await;
                }
                return Err(end);
            }
        }
    };
    let relays = [relay];
    let terms = DeviceTerms {
        relays: &relays,
        key: keys.signing(),
        credential: pass.credential(),
        now,
    };
    match state.on_accept(&accept, &terms) {
        Ok((link, finish)) => {
            in_time(socket.send(Message::Binary(finish.into()))).await?;
            Ok(link)
        }
        Err(error) => {
            // §3.5: closed without sending Finish.
            say_goodbye(socket, error.close_code()).await;
            Err(end_of(error, RelayFault::Handshake))
        }
    }
}

async fn say_goodbye(socket: &mut Socket, code: CloseCode) {
    let frame = CloseFrame {
        code: WsCode::from(code.code()),
        reason: code.name().into(),
    };
    let goodbye = async {
        if socket.close(Some(frame)).await.is_ok() {
            while let Some(Ok(_)) = socket.next().await {}
        }
    };
    // A relay that does not answer is left alone.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, goodbye).await;
}

/// Whether a message was not of the form that the link has, before the link saw it.
fn is_malformed(end: &End) -> bool {
    matches!(end, End::Final(Error::Relay(RelayFault::Record)))
}

/// The next binary message; `None` for a ping or pong.
async fn next_message(socket: &mut Socket) -> Result<Option<Vec<u8>>, End> {
    understood(socket.next().await)
}

/// What a message is for the link.
fn understood(read: Option<Result<Message, WsError>>) -> Result<Option<Vec<u8>>, End> {
    match read {
        Some(Ok(Message::Binary(message))) => Ok(Some(message.into())),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(None),
        // §3.1: a text message is malformed.
        Some(Ok(Message::Text(_) | Message::Frame(_))) => Err(RelayFault::Record.into()),
        Some(Ok(Message::Close(frame))) => {
            Err(closed_with(frame.map_or(1005, |frame| frame.code.into())))
        }
        // Larger than any record: the other end does not follow the protocol.
        Some(Err(WsError::Capacity(_))) => Err(RelayFault::Record.into()),
        Some(Err(_)) | None => Err(broken()),
    }
}

fn broken() -> End {
    End::Retry(Unreachable::Broken)
}

/// What a relay's close code means for this device (`docs/protocol.md §13`).
fn closed_with(code: u16) -> End {
    match (CloseCode::from_code(code), Retry::of_code(code)) {
        (Some(CloseCode::Replaced), _) => End::Replaced,
        (Some(CloseCode::TokenExpired), _) => End::Credential(NotAuthorised::Expired),
        (Some(CloseCode::Revoked), _) => End::Credential(NotAuthorised::Revoked),
        (Some(CloseCode::Version), _) => RelayFault::Version.into(),
        // A relay that closes on purpose without saying why is on its way down.
        (Some(CloseCode::Normal), _) | (_, Retry::BackOff | Retry::Later) => {
            End::Retry(Unreachable::Unavailable(code))
        }
        (_, Retry::NewCredential) => End::Credential(NotAuthorised::Credential),
        (_, Retry::Never) => RelayFault::RefusedOurs.into(),
    }
}

async fn in_time(write: impl Future<Output = Result<(), WsError>>) -> Result<(), End> {
    match tokio::time::timeout(WRITE_TIMEOUT, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// docs/protocol.md §13
    #[test]
    fn codes_of_the_40xx_range_are_tried_again() {
        for code in [1000, 1001, 1005, 1006, 4000, 4001, 4002, 4003, 4005, 4099] {
            assert!(
                matches!(closed_with(code), End::Retry(Unreachable::Unavailable(given)) if given == code),
                "{code}"
            );
        }
    }

    /// docs/protocol.md §13
    #[test]
    fn codes_of_the_41xx_range_ask_for_another_credential() {
        for (code, expected) in [
            (4100, NotAuthorised::Credential),
            (4101, NotAuthorised::Expired),
            (4102, NotAuthorised::Revoked),
            (4199, NotAuthorised::Credential),
        ] {
            assert!(
                matches!(closed_with(code), End::Credential(reason) if reason == expected),
                "{code}"
            );
        }
    }

    /// docs/protocol.md §13
    #[test]
    fn codes_of_the_42xx_range_and_replaced_are_final() {
        assert!(matches!(closed_with(4004), End::Replaced));
        assert!(matches!(
            closed_with(4202),
            End::Final(Error::Relay(RelayFault::Version))
        ));
        for code in [4200, 4201, 4299] {
            assert!(
                matches!(
                    closed_with(code),
                    End::Final(Error::Relay(RelayFault::RefusedOurs))
                ),
                "{code}"
            );
        }
    }
}
