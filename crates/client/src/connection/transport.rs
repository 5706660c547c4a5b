//! From an address to a WebSocket: TCP, TLS, upgrade. What is inside the messages is none of its business.

use std::pin::Pin;

use rustls_pki_types::ServerName;
use sealwire_protocol::address::Address;
use sealwire_protocol::limits;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, http::StatusCode};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::tls::{self, Tls};
use crate::error::{Error, NotAuthorised, Unreachable};

/// The WebSocket sub-protocol (`docs/protocol.md §3.1`).
const SUB_PROTOCOL: &str = "sealwire.v1";
/// What is read from the socket at a time, in bytes.
const READ_BUFFER: usize = 8 << 10;
/// The largest WebSocket message: a record of the largest size (`docs/protocol.md §4`).
const MAX_MESSAGE: usize = 1 + limits::MAX_RECORD_PLAINTEXT_BYTES + 16;

/// TCP, with or without TLS.
pub(super) trait Io: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Io for T {}

pub(super) type Socket = WebSocketStream<Pin<Box<dyn Io>>>;

/// Connects. Nothing is said about who is at the other end but what TLS says.
pub(super) async fn connect(address: &Address, tls: &Tls) -> Result<Socket, Error> {
    let host = address.host();
    let tcp = TcpStream::connect((host.as_str(), address.port()))
        .await
        .map_err(|error| Unreachable::Connect(error.kind()))?;
    // Small frames should not wait for each other. It is no loss if the system cannot do it.
    let _ = tcp.set_nodelay(true);
    let stream: Pin<Box<dyn Io>> = if address.is_secure() {
        let name = ServerName::try_from(host).map_err(|_| Unreachable::Certificate)?;
        let connector = TlsConnector::from(tls::client_config(tls)?);
        Box::pin(
            connector
                .connect(name, tcp)
                .await
                .map_err(|error| tls::failure(&error))?,
        )
    } else {
        // The address has been checked: without TLS it is a loopback address.
        Box::pin(tcp)
    };
    upgrade(address, stream).await
}

/// Asks for the WebSocket; gives what HTTP has answered, too.
pub(super) async fn websocket(
    address: &Address,
    stream: Pin<Box<dyn Io>>,
) -> Result<(Socket, Response), WsError> {
    let mut request = address.url().into_client_request()?;
    request.headers_mut().insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUB_PROTOCOL),
    );
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    client_async_with_config(request, stream, Some(config)).await
}

async fn upgrade(address: &Address, stream: Pin<Box<dyn Io>>) -> Result<Socket, Error> {
    match websocket(address, stream).await {
        Ok((socket, _)) => Ok(socket),
        Err(WsError::Http(response)) if response.status() == StatusCode::UNAUTHORIZED => {
            Err(NotAuthorised::Credential.into())
        }
        Err(WsError::Http(response)) if response.status() == StatusCode::SERVICE_UNAVAILABLE => {
            Err(Unreachable::Unavailable(response.status().as_u16()).into())
        }
        Err(WsError::Http(response)) => {
            Err(Unreachable::NotARelay(response.status().as_u16()).into())
        }
        // The other end answered, without the sub-protocol or not as a WebSocket server does.
        Err(WsError::Protocol(ProtocolError::HandshakeIncomplete) | WsError::Io(_)) => {
            Err(Unreachable::Broken.into())
        }
        Err(WsError::Protocol(_) | WsError::HttpFormat(_)) => {
            Err(Unreachable::NotARelay(101).into())
        }
        Err(_) => Err(Unreachable::Broken.into()),
    }
}
