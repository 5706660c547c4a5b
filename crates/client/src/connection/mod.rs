//! The connection to the relay: when it is up, when it is tried again, and when it is over.
//!
//! ```text
//!              start
//!                │
//!                ▼        handshake done
//!          ┌─ Connecting ───────────────▶ Connected ─┐
//!          │     ▲                                   │ broken, 40xx, no answer to pings, 4200 or 4201 for the first times
//!   fails, │     │ the time has come                 │
//!   may be │     │                                   │
//!   tried  └──▶ Waiting ◀─────────────────────────── ┘
//!   again        │
//!                │        closed by the application, 42xx, 4004, and 41xx without another credential
//!                └──────▶ Closed ◀── (from every state)
//! ```

pub(crate) mod backoff;
mod calls;
mod dialer;
pub(crate) mod drive;
mod established;
mod patience;
pub mod probe;
pub(crate) mod task;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod transport;

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::error::{ErrorClass, NotAuthorised, RelayFault, Unreachable};

/// What the connection is doing.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// TCP, TLS, WebSocket and the link handshake are under way.
    Connecting,
    /// The relay has accepted this device.
    Connected,
    /// The connection was lost, and is tried again after this.
    Waiting {
        /// When it is tried again.
        until: SystemTime,
        /// Why it was lost.
        reason: Unreachable,
    },
    /// It is over. The client has to be built anew.
    Closed(Closed),
}

/// Why a connection is over for good.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Closed {
    /// The application closed it.
    ByApplication,
    /// A newer link of the same device took its place (4004).
    Replaced,
    /// The relay does not accept this device, and there is no other credential.
    NotAuthorised(NotAuthorised),
    /// Another relay answers than the address names.
    RelayKey,
    /// The relay's TLS certificate is not trusted.
    Untrusted(Unreachable),
    /// One of the sides does not follow the protocol.
    Protocol(RelayFault),
    /// The device store failed.
    Store,
}

impl Closed {
    pub(crate) fn class(self) -> ErrorClass {
        match self {
            Self::NotAuthorised(_) => ErrorClass::NotAuthorised,
            Self::RelayKey | Self::Untrusted(_) => ErrorClass::Unreachable,
            Self::ByApplication | Self::Replaced | Self::Protocol(_) | Self::Store => {
                ErrorClass::Other
            }
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByApplication => f.write_str("closed by the application"),
            Self::Replaced => {
                f.write_str("this device connected from somewhere else; only one may at a time")
            }
            Self::NotAuthorised(reason) => reason.fmt(f),
            Self::RelayKey => f.write_str("another relay answers at this address"),
            Self::Untrusted(reason) => reason.fmt(f),
            Self::Protocol(fault) => write!(f, "protocol fault: {fault}"),
            Self::Store => f.write_str("the device store failed; see the log"),
        }
    }
}

/// TCP, TLS and the WebSocket upgrade together take at most this.
pub(crate) const TRANSPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// The link handshake after that takes at most this.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What was begun when the application closes the client may take this to come to its end.
pub(crate) const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);
/// An idle connection is pinged after this.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(25);
/// A connection on which nothing has arrived for this long is taken for broken.
pub(crate) const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// A write that the relay does not take for this long breaks the connection.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The application's source of tokens has this long to answer.
pub(crate) const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
/// A token is refreshed when less than this is left of it, or a quarter of its time if that is less.
pub(crate) const REFRESH_AHEAD: Duration = Duration::from_secs(120);
/// A refresh that failed is tried again after this.
pub(crate) const REFRESH_RETRY: Duration = Duration::from_secs(15);
/// A closed socket is given this long to say goodbye.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that has been up this long starts the back-off anew.
pub(crate) const STABLE_AFTER: Duration = Duration::from_secs(10);
/// So many connections that were up may end with a record that does not hold, at either side, before one lasts [`STABLE_AFTER`]; the
/// next one that does is the last.
pub(crate) const MAX_LINK_FAULTS: u32 = 3;
/// Where requests are open and none is answered for this long, the connection is taken for broken.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// A request that is not answered for this long although others are is taken for forgotten, and the connection for broken.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two refreshes is at least this.
pub(crate) const REFRESH_FLOOR: Duration = Duration::from_secs(5);
