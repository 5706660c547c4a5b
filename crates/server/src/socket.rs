//! One WebSocket, driven by the one task that owns it (RFC 6455; docs/protocol.md §3.1).
//!
//! Reading and writing go on at the same time without a second task: [`Socket::turn`] flushes what was queued and waits for the
//! next message. tungstenite frames and unframes; this module decides what is acceptable and bounds what is held:
//! binary messages only, masked, no larger than the phase of the link allows.
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sealwire_protocol::limits::{MAX_FINISH_SEALED_BYTES, MAX_RECORD_PLAINTEXT_BYTES};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_tungstenite::tungstenite::error::{
    CapacityError, Error as WebSocketError, ProtocolError,
};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WebSocketCloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::bounds::{
    CLOSE_LINGER, MAX_LINGER_BYTES, MAX_UNCOUNTED_BYTES, READ_BUFFER_BYTES, WRITE_BUFFER_BYTES,
};

/// The largest message before the handshake is complete: Finish, with type and length.
const MAX_HANDSHAKE_MESSAGE_BYTES: usize = 1 + 2 + MAX_FINISH_SEALED_BYTES;
/// The largest message after it: a record, with type and tag.
const MAX_RECORD_BYTES: usize = 1 + MAX_RECORD_PLAINTEXT_BYTES + 16;

/// What came in.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// A part of a message, about [`MAX_UNCOUNTED_BYTES`] of it: whoever counts what is received is to do so.
    Part,
    /// A binary message.
    Message(Bytes),
    /// A ping; the answer has been queued.
    Ping,
    /// The answer to a ping.
    Pong,
}

/// Why the socket gives nothing more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The other side closed, properly or not.
    #[error("the connection is gone")]
    Gone,
    /// A text message (docs/protocol.md §3.1).
    #[error("a text message")]
    Text,
    /// Framing that RFC 6455 does not allow, or an unmasked frame (§5.1 there).
    #[error("WebSocket framing: {0}")]
    Framing(ProtocolError),
    /// A message larger than this phase of the link allows (docs/protocol.md §12).
    #[error("a message over {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// More bytes than a connection may send before it has authenticated (docs/protocol.md §12).
    #[error("too many bytes before authentication")]
    UnauthenticatedBytes,
    /// The device does not take what is written.
    #[error("more is queued than the socket may hold")]
    Full,
}

/// Marks the I/O error of a connection that sent too much before it authenticated.
#[derive(Debug, thiserror::Error)]
#[error("too many bytes before authentication")]
pub(crate) struct TooManyUnauthenticatedBytes;

/// A server's WebSocket over `S`.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    ws: WebSocket<NonBlocking<S>>,
    /// Bytes queued since the last complete flush.
    backlog: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// Takes over a connection right after the upgrade, with the limits of an unauthenticated one.
    pub(crate) fn new(stream: S) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(4 * MAX_RECORD_BYTES)
            .max_message_size(Some(MAX_HANDSHAKE_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_HANDSHAKE_MESSAGE_BYTES))
            .accept_unmasked_frames(false);
        let stream = NonBlocking {
            stream,
            waker: Waker::noop().clone(),
            received: 0,
        };
        Self {
            ws: WebSocket::from_raw_socket(stream, Role::Server, Some(config)),
            backlog: 0,
        }
    }

    /// Admits records, now that the device has authenticated.
    pub(crate) fn admit_records(&mut self) {
        self.ws.set_config(|config| {
            config.max_message_size = Some(MAX_RECORD_BYTES);
            config.max_frame_size = Some(MAX_RECORD_BYTES);
        });
    }

    /// Bytes that were queued and that the socket has not all taken yet.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog
    }

    /// Bytes received since the last call, with the headers of their frames (RFC 6455 §5.2) and with frames that have no other sign: those of a message in
    /// many parts.
    pub(crate) fn take_received(&mut self) -> usize {
        std::mem::take(&mut self.ws.get_mut().received)
    }

    /// Queues a binary message; [`Socket::turn`] or [`Socket::flush`] sends it.
    pub(crate) fn queue(&mut self, message: Vec<u8>) -> Result<(), SocketError> {
        self.backlog = self.backlog.saturating_add(message.len());
        self.write(Message::binary(message))
    }

    /// Queues a ping.
    pub(crate) fn queue_ping(&mut self) -> Result<(), SocketError> {
        self.backlog = self.backlog.saturating_add(2);
        self.write(Message::Ping(Bytes::new()))
    }

    /// Flushes what is queued and waits for the next message, both at once. `None`: everything queued has been taken.
    /// With `read` false it only flushes, and is pending for good if there is nothing to flush.
    ///
    /// Cancelling loses nothing.
    pub(crate) async fn turn(&mut self, read: bool) -> Result<Option<Incoming>, SocketError> {
        poll_fn(|cx| {
            if self.backlog > 0 && self.poll_flush(cx)?.is_ready() {
                return Poll::Ready(Ok(None));
            }
            if read {
                self.poll_receive(cx).map_ok(Some)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// The next message, if it is already here.
    pub(crate) async fn receive_now(&mut self) -> Result<Option<Incoming>, SocketError> {
        poll_fn(|cx| match self.poll_receive(cx) {
            Poll::Ready(received) => Poll::Ready(received.map(Some)),
            Poll::Pending => Poll::Ready(Ok(None)),
        })
        .await
    }

    /// Waits until everything queued has been taken.
    pub(crate) async fn flush(&mut self) -> Result<(), SocketError> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Closes with a code and its plain name (docs/protocol.md §13), gives the other side a moment to read it, and hangs up.
    pub(crate) async fn close(mut self, code: u16, name: &'static str) {
        let frame = CloseFrame {
            code: WebSocketCloseCode::from(code),
            reason: Utf8Bytes::from_static(name),
        };
        let hang_up = async {
            match self.ws.close(Some(frame)) {
                Ok(()) => {}
                Err(WebSocketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            if self.flush().await.is_err() {
                return;
            }
            let stream = &mut self.ws.get_mut().stream;
            // Hanging up on unread bytes would reset the connection and take the close frame with it.
            if stream.shutdown().await.is_ok() {
                discard(stream).await;
            }
        };
        // What the other side makes of it is its own affair.
        let _ = tokio::time::timeout(CLOSE_LINGER, hang_up).await;
    }

    fn write(&mut self, message: Message) -> Result<(), SocketError> {
        match self.ws.write(message) {
            Ok(()) => Ok(()),
            // Accepted: the flush sends it.
            Err(WebSocketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(blame(error)),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SocketError>> {
        self.ws.get_mut().waker.clone_from(cx.waker());
        match self.ws.flush() {
            Ok(()) | Err(WebSocketError::ConnectionClosed) => {
                self.backlog = 0;
                Poll::Ready(Ok(()))
            }
            Err(WebSocketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(blame(error))),
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, SocketError>> {
        self.ws.get_mut().waker.clone_from(cx.waker());
        Poll::Ready(match self.ws.read() {
            Ok(Message::Binary(message)) => Ok(Incoming::Message(message)),
            Ok(Message::Ping(_)) => Ok(Incoming::Ping),
            Ok(Message::Pong(_)) => Ok(Incoming::Pong),
            // docs/protocol.md §3.1: every message is binary.
            Ok(Message::Text(_) | Message::Frame(_)) => Err(SocketError::Text),
            Ok(Message::Close(_)) => Err(SocketError::Gone),
            Err(WebSocketError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.ws.get_ref().received < MAX_UNCOUNTED_BYTES {
                    return Poll::Pending;
                }
                Ok(Incoming::Part)
            }
            Err(error) => Err(blame(error)),
        })
    }
}

/// Reads until the other side hangs up, keeping nothing.
async fn discard<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut left = MAX_LINGER_BYTES;
    let mut sink = [0; 1024];
    while left > 0 {
        let mut buffer = ReadBuf::new(&mut sink);
        match poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buffer)).await {
            Ok(()) if !buffer.filled().is_empty() => {
                left = left.saturating_sub(buffer.filled().len())
            }
            _ => return,
        }
    }
}

/// Says who is to blame for what tungstenite reports.
fn blame(error: WebSocketError) -> SocketError {
    match error {
        WebSocketError::Io(error) => {
            let too_many = error
                .get_ref()
                .is_some_and(|inner| inner.is::<TooManyUnauthenticatedBytes>());
            if too_many {
                SocketError::UnauthenticatedBytes
            } else {
                SocketError::Gone
            }
        }
        WebSocketError::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            SocketError::TooLarge { limit: max_size }
        }
        WebSocketError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => SocketError::Gone,
        WebSocketError::Protocol(error) => SocketError::Framing(error),
        // Text is refused whether or not it is UTF-8.
        WebSocketError::Utf8(_) => SocketError::Text,
        WebSocketError::WriteBufferFull(_) => SocketError::Full,
        WebSocketError::ConnectionClosed
        | WebSocketError::AlreadyClosed
        | WebSocketError::Capacity(_)
        | WebSocketError::Tls(_)
        | WebSocketError::Url(_)
        | WebSocketError::Http(_)
        | WebSocketError::HttpFormat(_)
        | WebSocketError::AttackAttempt => SocketError::Gone,
    }
}

/// Presents an asynchronous stream as the non-blocking one that tungstenite expects. All waiting is done by one task, whose
/// waker is set before every call.
#[derive(Debug)]
struct NonBlocking<S> {
    stream: S,
    waker: Waker,
    /// Bytes read, until somebody counts them.
    received: usize,
}

impl<S: AsyncRead + Unpin> io::Read for NonBlocking<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut self.stream)
            .poll_read(&mut Context::from_waker(&self.waker), &mut buffer)
        {
            Poll::Ready(result) => result.map(|()| {
                let read = buffer.filled().len();
                self.received = self.received.saturating_add(read);
                read
            }),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> io::Write for NonBlocking<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut self.stream).poll_write(&mut Context::from_waker(&self.waker), buffer) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(&self.waker)) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}
