//! Why a link ends, and what the other side is told of it: a close code and its plain name, nothing else (docs/protocol.md §13).
use std::fmt;

use sealwire_protocol::close::CloseCode;
use sealwire_protocol::error::{LinkError, NotAuthorised};
use sealwire_protocol::limits::MAX_OPEN_REQUESTS;

use crate::authority::VerifyError;
use crate::bounds::MAX_PINGS;
use crate::exchange::ExchangeError;
use crate::issuer::IssuerError;
use crate::socket::SocketError;
use crate::storage::StorageError;

/// The end of a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The WebSocket failed, or the device closed it.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The device, or now and then the relay, broke the protocol.
    #[error("{}", without_ids(.0))]
    Link(#[from] LinkError),
    /// The handshake was not complete in time.
    #[error("the handshake was not complete within limits.handshake_deadline")]
    HandshakeDeadline,
    /// The token is not good.
    #[error(transparent)]
    Token(#[from] VerifyError),
    /// The handshake goes with a token of the upgrade request, and there was none.
    #[error("there was no token in the upgrade request")]
    NoUpgradeToken,
    /// The built-in issuer gives no token for an invite or a renewal.
    #[error(transparent)]
    Issuer(IssuerError),
    /// A provider's token is not exchanged.
    #[error(transparent)]
    Exchange(ExchangeError),
    /// There is no built-in issuer (docs/protocol.md §3.6).
    #[error("an invite or a renewal, and this relay has no issuer of its own")]
    NoIssuer,
    /// The device is one of another user than the token names (docs/protocol.md §3).
    #[error(
        "the device is another user's than the token names; each user needs a device key of its own"
    )]
    AnotherUser,
    /// The token expired and was not refreshed.
    #[error("the token expired")]
    Expired,
    /// The token, the device or its user was revoked.
    #[error("the token, the device or its user was revoked")]
    Revoked,
    /// The device's card was taken away, as what attests it was revoked. When it comes back it learns that it needs another.
    #[error("the device's card was taken away")]
    Withdrawn,
    /// A newer link of the device took over.
    #[error("a newer link of the same device")]
    Replaced,
    /// The relay stops.
    #[error("the relay stops")]
    Stopping,
    /// Nothing came from the device, not even the answer to a ping.
    #[error("no answer to a ping within limits.keep_alive")]
    Silent,
    /// The device does not take what is sent to it.
    #[error("the device did not read for longer than limits.write_timeout")]
    TooSlow,
    /// More links of one user than the relay allows.
    #[error("the user has more links than limits.links_per_user allows")]
    TooManyLinks,
    /// More links of one tenant than the relay allows.
    #[error("the tenant has more links than limits.links_per_tenant allows")]
    TooManyLinksOfTenant,
    /// The device opens links faster than the relay allows.
    #[error("the device opens more links than limits.links_per_minute allows")]
    TooOften,
    /// The user's devices do.
    #[error("the user's devices open more links than limits.links_per_minute_per_user allows")]
    TooOftenOfUser,
    /// The tenant's devices do.
    #[error("the tenant's devices open more links than limits.links_per_minute_per_tenant allows")]
    TooOftenOfTenant,
    /// More have just sent too fast than the relay remembers.
    #[error("the relay already remembers too many who sent too fast")]
    TooManyMeters,
    /// More requests open than the protocol allows.
    #[error("more than {MAX_OPEN_REQUESTS} open requests")]
    TooManyRequests,
    /// An acknowledgement of what was never delivered.
    #[error("an acknowledgement beyond the mailbox")]
    AckBeyondMailbox,
    /// A flood of pings.
    #[error("more than {MAX_PINGS} pings in a keep-alive period")]
    TooManyPings,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Whole thumbprints identify people, so they stay out of the log.
fn without_ids(error: &LinkError) -> &dyn fmt::Display {
    if let LinkError::NotAuthorised(error @ NotAuthorised::TokenOfAnotherDevice { .. }) = error {
        return not_authorised(error);
    }
    error
}

/// The same of what a new token is refused for.
pub(crate) fn not_authorised(error: &NotAuthorised) -> &dyn fmt::Display {
    if let NotAuthorised::TokenOfAnotherDevice { .. } = error {
        return &"the token is another device's";
    }
    error
}

impl End {
    /// What the other side is told. `None`: there is nobody left to tell.
    pub(crate) fn close_code(&self) -> Option<CloseCode> {
        Some(match self {
            Self::Socket(SocketError::Gone) => return None,
            Self::Socket(SocketError::Text | SocketError::Framing(_)) => CloseCode::Malformed,
            Self::Socket(SocketError::TooLarge { .. } | SocketError::UnauthenticatedBytes)
            | Self::TooManyRequests
            | Self::AckBeyondMailbox
            | Self::TooManyPings => CloseCode::Violation,
            Self::Socket(SocketError::Full) | Self::TooSlow => CloseCode::TooSlow,
            Self::Link(error) => error.close_code(),
            Self::HandshakeDeadline | Self::Silent => CloseCode::Timeout,
            Self::Issuer(error) if error.is_internal() => CloseCode::Internal,
            Self::Exchange(error) if error.is_internal() => CloseCode::Internal,
            // It is the relay that cannot say, and later it can.
            Self::Token(VerifyError::KeyNotKnownYet)
            | Self::Exchange(ExchangeError::KeyNotKnownYet { .. })
            | Self::TooManyLinks
            | Self::TooManyLinksOfTenant
            | Self::TooOften
            | Self::TooOftenOfUser
            | Self::TooOftenOfTenant
            | Self::TooManyMeters => CloseCode::Overloaded,
            Self::Token(VerifyError::Token(_))
            | Self::NoUpgradeToken
            | Self::Issuer(_)
            | Self::Exchange(_)
            | Self::NoIssuer
            | Self::AnotherUser => CloseCode::NotAuthorised,
            Self::Expired => CloseCode::TokenExpired,
            Self::Revoked => CloseCode::Revoked,
            Self::Replaced => CloseCode::Replaced,
            Self::Stopping | Self::Withdrawn => CloseCode::GoingAway,
            Self::Storage(_) => CloseCode::Internal,
        })
    }

    /// What metrics and traces call it: the name of its close code, or that the other side was gone.
    pub(crate) fn label(&self) -> &'static str {
        self.close_code().map_or(GONE, label)
    }
}

/// [`End::label`] where there is nobody left to tell.
pub(crate) const GONE: &str = "gone";

/// [`End::label`] of one with this code.
pub(crate) fn label(code: CloseCode) -> &'static str {
    match code.name() {
        "" => "normal",
        name => name,
    }
}
