//! Why a request is refused. Its device is told a plain code (docs/protocol.md §5.3); the log of whoever runs the relay says which claim, field or limit it
//! was, and what helps.
//!
//! ```text
//!  where it is decided ── Cause ── code ───────────▶ the device
//!                           └───── why, remedy ────▶ the log, at the level of debug, once
//! ```
//! What helps against an error from elsewhere is in [`crate::remedy`]. No text has a user or a whole thumbprint in it.
use std::fmt;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::NameError;

use crate::blobs::BlobError;
use crate::card_check::{CardError, PrekeyError};
use crate::directory::PublishError;
use crate::mail::PostError;
use crate::remedy::{self, Remedy};
use crate::requests::RefreshError;
use crate::shared::Shared;
use crate::storage::StorageError;

/// Why a request of a device that is known is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    /// The token does not have this scope.
    #[error("the token's \"scope\" has no {0}")]
    Scope(&'static str),
    /// The name is nobody's.
    #[error("the field user is not a user's name: {0}")]
    Name(NameError),
    /// §5.7
    #[error("the recipient is outside the token's \"tenant\"")]
    Tenant,
    /// §5.5
    #[error("the recipient is not in \"to\" of the token's \"authorization_details\"")]
    To,
    /// §5.7
    #[error("the recipient is of a tenant of an [[exchange]] issuer, and the token is not")]
    OutsideTenants,
    /// A message is too large.
    #[error("a message is larger than {0}")]
    TooLarge(Limit),
    /// Too often, or too much in a minute.
    #[error("more than {0}")]
    Rate(Limit),
    /// Too much at the same time.
    #[error("more at the same time than {0}")]
    AtOnce(Limit),
    #[error("the user has no device with a card that others can write to")]
    UnknownUser,
    #[error("the parts are not for exactly the devices that the recipient has now")]
    Parts,
    #[error("the parts are for a device that is none of the recipient's now, or for one twice")]
    SomeParts,
    #[error("there are copies, and none belong to this message")]
    NoCopies,
    #[error("the copies are not for exactly the other devices that the sender has now")]
    Copies,
    #[error("the mailbox of the device {} is full", short(.0))]
    MailboxFull(Thumbprint),
    #[error("what one user may have in the mailbox of the device {} is used up", short(.0))]
    Quota(Thumbprint),
    #[error("the field sequence is 64 or more below the device's highest")]
    Stale,
    #[error("the field sequence was refused before, and a later one was accepted since")]
    Overtaken,
    #[error("a message has 1 to 31 parts for distinct other devices, each of 1 to 98,304 bytes")]
    Form,
    #[error("the disk is full, or the system has no descriptor or memory left")]
    DiskFull,
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Card(#[from] CardError),
    #[error(transparent)]
    Prekey(#[from] PrekeyError),
    #[error(transparent)]
    Publish(PublishError),
    #[error("the field device names no device of the user, or none any more")]
    UnknownDevice,
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Refresh(Box<RefreshError>),
    /// As [`Cause::Scope`], but said otherwise.
    #[error("the token's \"scope\" has no sealwire:call")]
    Call,
    /// The token does not list this service, whether or not there is one.
    #[error("the service {0} is not in \"services\" of the token's \"authorization_details\"")]
    Services(Outside),
    #[error("the relay's application has no service {0}")]
    NoService(Outside),
    #[error("the service failed, panicked, or said too much; the warning before this says which")]
    ServiceFailed,
    #[error("the service took too long; the warning before this says which")]
    ServiceTimeout,
    /// Its handler has not been called.
    #[error("the service sheds load; the warning before this says which")]
    ServiceShed,
}

/// A limit, by the name under which somebody sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limit {
    /// The configuration's, in `[limits]`.
    Relay(&'static str),
    /// The token's, in `authorization_details`, which is below the configuration's of the same name.
    Token(&'static str),
    /// The application's, with this of [`RelayBuilder`](crate::RelayBuilder).
    Application(&'static str),
    /// Nobody's: the relay's own, with what it counts.
    Fixed(u64, &'static str),
}

impl Limit {
    /// The one that counts of two with the same name.
    pub(crate) fn lower(name: &'static str, token: Option<u64>, relay: u64) -> Self {
        match token {
            Some(token) if token < relay => Self::Token(name),
            Some(_) | None => Self::Relay(name),
        }
    }

    fn remedy(self) -> Remedy {
        match self {
            Self::Relay(key) => format!(
                "have the application do less, or raise limits.{key} in the configuration"
            )
            .into(),
            Self::Token(member) => format!(
                "have the application do less, or the issuer allow more with {member:?}; limits.{member} in the configuration is above it"
            )
            .into(),
            Self::Application(setter) => format!(
                "have the application on the device do less, or raise RelayBuilder::{setter}"
            )
            .into(),
            Self::Fixed(..) => "have the application do less: nobody can raise this".into(),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relay(key) => write!(f, "limits.{key} allows"),
            Self::Token(member) => {
                write!(
                    f,
                    "{member:?} of the token's \"authorization_details\" allows"
                )
            }
            Self::Application(setter) => write!(f, "RelayBuilder::{setter} allows"),
            Self::Fixed(number, what) => write!(f, "{number} {what}"),
        }
    }
}

/// Text from outside, as a log may show it: the beginning, with nothing that a terminal or another line could be made of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outside(Box<str>);

/// Bytes of it that are shown.
const MAX_SHOWN_BYTES: usize = 100;

impl Outside {
    pub(crate) fn new(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        let shown = bytes.get(..MAX_SHOWN_BYTES).unwrap_or(bytes);
        let more = if shown.len() < bytes.len() { "…" } else { "" };
        Self(format!("\"{}\"{more}", shown.escape_ascii()).into())
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Cause {
    /// What the device is told.
    pub(crate) fn code(&self) -> RefusalCode {
        match self {
            Self::Scope(_) | Self::Name(_) | Self::Tenant | Self::To | Self::OutsideTenants => {
                RefusalCode::NotPermitted
            }
            Self::TooLarge(_) | Self::Form => RefusalCode::TooLarge,
            Self::Rate(_) | Self::AtOnce(_) => RefusalCode::RateLimited,
            Self::UnknownUser => RefusalCode::UnknownUser,
            Self::Parts | Self::SomeParts | Self::NoCopies => RefusalCode::DevicesChanged,
            Self::Copies => RefusalCode::OwnDevicesChanged,
            Self::MailboxFull(_) => RefusalCode::MailboxFull,
            Self::Quota(_) => RefusalCode::Quota,
            Self::Stale => RefusalCode::Stale,
            Self::Overtaken => RefusalCode::Overtaken,
            Self::DiskFull | Self::Storage(_) | Self::ServiceShed => RefusalCode::Unavailable,
            Self::Card(_) | Self::Prekey(_) => RefusalCode::InvalidCard,
            Self::Publish(error) => error.refusal(),
            Self::UnknownDevice => RefusalCode::UnknownDevice,
            Self::Blob(error) => error.refusal(),
            Self::Refresh(error) => error.refusal(),
            // §5.3: whether there is such a service is not said, nor why it may not be called.
            Self::Call | Self::Services(_) | Self::NoService(_) => RefusalCode::UnknownService,
            Self::ServiceFailed => RefusalCode::ServiceFailed,
            Self::ServiceTimeout => RefusalCode::ServiceTimeout,
        }
    }

    /// What helps.
    pub(crate) fn remedy(&self, shared: &Shared) -> Remedy {
        match self {
            Self::Scope(_) | Self::Call => "have the issuer add it to the token's \"scope\", if the device is to do this".into(),
            Self::Name(_) => "have the application give the exact \"sub\" of a user: 1 to 255 bytes without control characters".into(),
            Self::Tenant => "meant so: users of a tenant write to users of the same one; correct \"tenant\" if it is not theirs".into(),
            Self::To => "have the issuer add the user, or a beginning with *, to \"to\" if they are to be written to".into(),
            Self::OutsideTenants => "meant so: nobody from outside reaches into a tenant; have the issuer give the sender that \"tenant\" if it is theirs".into(),
            Self::TooLarge(Limit::Relay("max_message_bytes")) => "have the application send it as a file, or raise limits.max_message_bytes in the configuration".into(),
            Self::TooLarge(limit) | Self::Rate(limit) | Self::AtOnce(limit) => limit.remedy(),
            Self::UnknownUser => "wait until the user has joined, or has come back; `sealwire relay devices` lists who has".into(),
            Self::Parts | Self::SomeParts | Self::Copies => "nothing, if it passes: the client fetches the cards and seals again".into(),
            Self::NoCopies | Self::Form => remedy::SOFTWARE.into(),
            Self::MailboxFull(_) => "have that device connect, or its user remove it, or raise limits.mailbox_messages and limits.mailbox_bytes in the configuration; its own token may say less".into(),
            Self::Quota(_) => "have that device connect, or its user remove it, or raise limits.mailbox_messages and limits.mailbox_bytes in the configuration".into(),
            Self::Stale => "nothing: the client reports the message as not sent".into(),
            Self::Overtaken => "nothing: the client sends the message again as a new one".into(),
            Self::DiskFull => "make room on the disk of the data directory, and look at the system's limits".into(),
            Self::Storage(_) => remedy::DISK.into(),
            Self::Card(error) => remedy::card(error, shared),
            Self::Prekey(_) => remedy::SOFTWARE.into(),
            Self::Publish(error) => remedy::publication(*error).into(),
            Self::UnknownDevice => "nothing, if it was removed before; `sealwire relay devices` lists those that there are".into(),
            Self::Blob(error) => remedy::blob(error).into(),
            Self::Refresh(error) => remedy::refresh(error, shared),
            Self::Services(_) => "have the issuer add the service, or a beginning with *, to \"services\" if the device is to call it".into(),
            Self::NoService(_) => "compare the name with RelayBuilder::service in the relay's application".into(),
            Self::ServiceFailed => "look at the service in the relay's application".into(),
            Self::ServiceTimeout => "look at the service in the relay's application, or raise RelayBuilder::service_timeout".into(),
            Self::ServiceShed => "nothing, if it passes; otherwise raise what the service is limited to in the relay's application".into(),
        }
    }

    /// Tells the log of a request of this device on its link.
    pub(crate) fn log(&self, device: &Thumbprint, shared: &Shared) {
        tracing::debug!(
            device = short(device),
            code = self.code().name(),
            why = %self,
            remedy = &*self.remedy(shared),
            "request refused"
        );
    }
}

impl From<PublishError> for Cause {
    fn from(error: PublishError) -> Self {
        if let PublishError::Storage(error) = error {
            return error.into();
        }
        Self::Publish(error)
    }
}

impl From<PostError> for Cause {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Full { device } => Self::MailboxFull(device),
            PostError::Quota { device } => Self::Quota(device),
            PostError::Stale => Self::Stale,
            PostError::Overtaken => Self::Overtaken,
            PostError::Parts => Self::Form,
            PostError::Busy | PostError::DiskFull => Self::DiskFull,
            PostError::Storage(error) => error.into(),
        }
    }
}

/// Enough of a device to tell it apart in a log, and no more.
pub(crate) fn short(device: &Thumbprint) -> String {
    let mut shown = device.to_string();
    shown.truncate(8);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_is_escaped_and_bounded() {
        let shown = Outside::new("a\nb\u{1b}[31m\"ü").to_string();
        assert_eq!(shown, r#""a\nb\x1b[31m\"\xc3\xbc""#);
        let long = Outside::new("\n".repeat(10_000)).to_string();
        assert!(long.len() <= 4 * MAX_SHOWN_BYTES + 5, "{}", long.len());
    }

    #[test]
    fn lower_of_two_limits_is_the_one_that_is_named() {
        let of = |token| Limit::lower("messages_per_minute", token, 600);
        assert_eq!(of(Some(599)), Limit::Token("messages_per_minute"));
        for token in [None, Some(600), Some(601)] {
            assert_eq!(of(token), Limit::Relay("messages_per_minute"));
        }
    }
}
