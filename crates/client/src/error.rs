//! What can go wrong, who is to blame, and whether trying again helps.

use sealwire_protocol::introduction::IntroductionError;
use sealwire_protocol::invite::InviteError;
use sealwire_protocol::key::Thumbprint;

use crate::connection::Closed;
use crate::event::NotDelivered;
use crate::store::StoreError;
use crate::transfer::FileError;

/// Why something did not work. Every error has a stable [`code`](Error::code) and a [`class`](Error::class).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The application used the client in a way that cannot work.
    #[error("{0}")]
    Misuse(#[from] Misuse),
    /// The device store cannot be opened or used.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The relay cannot be reached, or its TLS is not trusted.
    #[error("{0}")]
    Unreachable(#[from] Unreachable),
    /// What answers at the address is not the relay that the address names.
    #[error(
        "another relay answers at this address: it has the key {presented}, expected was {expected}; check the address, and do not go on if you are not sure"
    )]
    RelayKey {
        /// The thumbprint in the address.
        expected: Thumbprint,
        /// The thumbprint of the key that was presented.
        presented: Thumbprint,
    },
    /// What answers does not speak the protocol as specified, or misbehaved.
    #[error("the relay does not follow the protocol ({0}); compare the versions on both sides")]
    Relay(RelayFault),
    /// The relay, or the source of tokens, does not accept this device.
    #[error("{0}")]
    NotAuthorised(#[from] NotAuthorised),
    /// The relay refused this request.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The devices of a user who was verified have changed, and nothing is sent until somebody looks at it.
    #[error(
        "the devices of a verified user have changed; compare safety numbers again (verify) before you send"
    )]
    PeerChanged,
    /// The application asked to send to verified users only, and this one is not.
    #[error("this user is not verified; compare safety numbers (verify) before you send")]
    PeerUnverified,
    /// The relay gave a device card that does not hold. It may be misbehaving, or issuers are configured wrongly.
    #[error(
        "a device card of this user does not verify ({0}); check the issuer's keys and audience, and the clocks"
    )]
    Card(CardFault),
    /// The relay accepted the message, and it does not reach every device.
    #[error("{0}")]
    NotDelivered(#[from] NotDelivered),
    /// A file was not sent or not received.
    #[error("{0}")]
    File(#[from] FileError),
    /// It took too long. A message that was handed to [`send`](crate::Client::send) stays in the outbox.
    #[error(
        "no answer in time; what was to be sent stays in the outbox and goes out when the relay answers again"
    )]
    Timeout,
    /// The connection is closed for good.
    #[error("the connection is closed: {0}")]
    Closed(Closed),
}

/// What an error is about; the command's exit codes follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorClass {
    /// Wrong arguments.
    Usage,
    /// The credential or its permissions do not suffice.
    NotAuthorised,
    /// The relay cannot be reached, or is not the one meant.
    Unreachable,
    /// A peer is unverified or changed.
    Peer,
    /// It took too long.
    Timeout,
    /// Anything else.
    Other,
}

impl Error {
    /// A stable name for programs and logs, for example `not_authorised`. Documented at each variant's type.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Misuse(reason) => reason.code(),
            Self::Store(StoreError::InUse) => "store_in_use",
            Self::Store(StoreError::WrongKey | StoreError::EmptyPassphrase) => "store_wrong_key",
            Self::Store(StoreError::Damaged) => "store_damaged",
            Self::Store(_) => "store",
            Self::Unreachable(reason) => reason.code(),
            Self::RelayKey { .. } => "relay_key_mismatch",
            Self::Relay(_) => "relay_fault",
            Self::NotAuthorised(reason) => reason.code(),
            Self::Refused(refusal) => refusal.code(),
            Self::PeerChanged => "peer_changed",
            Self::PeerUnverified => "peer_unverified",
            Self::Card(_) => "card_invalid",
            Self::NotDelivered(_) => "not_delivered",
            Self::File(error) => error.code(),
            Self::Timeout => "timeout",
            Self::Closed(_) => "closed",
        }
    }

    /// Whether the same call may work later without anybody doing anything.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable(reason) => reason.is_retryable(),
            Self::Refused(refusal) => refusal.is_retryable(),
            Self::File(error) => error.is_retryable(),
            Self::Store(StoreError::InUse) | Self::Timeout => true,
            Self::Misuse(_)
            | Self::Store(_)
            | Self::RelayKey { .. }
            | Self::Relay(_)
            | Self::NotAuthorised(_)
            | Self::PeerChanged
            | Self::PeerUnverified
            | Self::Card(_)
            | Self::NotDelivered(_)
            | Self::Closed(_) => false,
        }
    }

    /// What it is about.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Misuse(_) => ErrorClass::Usage,
            Self::Unreachable(_) | Self::RelayKey { .. } => ErrorClass::Unreachable,
            Self::NotAuthorised(_) | Self::Refused(Refusal::NotPermitted) => {
                ErrorClass::NotAuthorised
            }
            Self::PeerChanged | Self::PeerUnverified | Self::Card(_) => ErrorClass::Peer,
            Self::Timeout => ErrorClass::Timeout,
            Self::Closed(closed) => closed.class(),
            Self::Store(_)
            | Self::Relay(_)
            | Self::Refused(_)
            | Self::NotDelivered(_)
            | Self::File(_) => ErrorClass::Other,
        }
    }
}

/// What the application did that cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// The address is not of the form `wss://host[:port]/v1#<thumbprint>`.
    #[error("the address is not of the form wss://host[:port]/v1#<thumbprint of the relay>")]
    Address,
    /// `ws://` to anything but loopback.
    #[error("ws:// is for loopback only; use wss://")]
    PlainText,
    /// The builder has no store.
    #[error("no store was given to the builder")]
    NoStore,
    /// No issuer was configured, so no peer could be verified.
    #[error("no issuer was given to the builder, so no peer could be verified")]
    NoIssuer,
    /// An issuer key is not a valid Ed25519 public key, or the key set is not one.
    #[error("an issuer key is not a valid Ed25519 public key")]
    IssuerKey,
    /// An issuer is 1 to 255 bytes without control characters.
    #[error("an issuer is 1 to 255 bytes of UTF-8 without control characters")]
    Issuer,
    /// A user is 1 to 255 bytes without control characters.
    #[error("a user is 1 to 255 bytes of UTF-8 without control characters")]
    User,
    /// The invite code is 16 to 64 bytes.
    #[error("an invite code has 16 to 64 bytes; paste the whole invite")]
    Invite,
    /// An invitation line that is damaged or of another version.
    #[error("{0}")]
    InviteLine(InviteError),
    /// A relay's introduction line that is damaged or of another version.
    #[error("{0}")]
    IntroductionLine(IntroductionError),
    /// A body is at most 65,536 bytes.
    #[error("the message is larger than 65,536 bytes; send it in parts")]
    BodyTooLarge,
    /// A media type is 3 to 255 printable ASCII characters with a slash.
    #[error("the media type is not one (RFC 6838)")]
    MediaType,
    /// More messages wait to be sent than the outbox holds.
    #[error("the outbox is full; wait for earlier messages to go out")]
    OutboxFull,
    /// The message is for the sender's own user, who has no other device.
    #[error("you have no other device to send to")]
    NoOtherDevice,
    /// A message id is 22 characters of base64url.
    #[error("a message id is 22 characters of base64url")]
    MessageId,
    /// The id is that of a message to somebody else.
    #[error("a message to another user has this id; give each message an id of its own")]
    MessageIdInUse,
    /// A name of a device is 1 to 64 bytes without control characters.
    #[error("a device's name is 1 to 64 bytes of UTF-8 without control characters")]
    DeviceName,
    /// 16,384 later messages are not confirmed either.
    #[error(
        "too many messages are not confirmed; what becomes of this one is not followed any more"
    )]
    Unconfirmed,
}

impl Misuse {
    /// Its stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Address => "bad_address",
            Self::PlainText => "plain_text_refused",
            Self::NoStore => "no_store",
            Self::NoIssuer => "no_issuer",
            Self::IssuerKey => "bad_issuer_key",
            Self::Issuer => "bad_issuer",
            Self::User => "bad_user",
            Self::Invite | Self::InviteLine(_) => "bad_invite",
            Self::IntroductionLine(_) => "bad_introduction",
            Self::BodyTooLarge => "too_large",
            Self::MediaType => "bad_media_type",
            Self::OutboxFull => "outbox_full",
            Self::NoOtherDevice => "no_other_device",
            Self::MessageId => "bad_message_id",
            Self::MessageIdInUse => "message_id_in_use",
            Self::DeviceName => "bad_device_name",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// Why the relay cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreachable {
    /// No TCP connection: the name does not resolve, or nothing listens.
    #[error("the relay cannot be reached: {0}; check the address and that the relay runs")]
    Connect(std::io::ErrorKind),
    /// The certificate is not the pinned one.
    #[error(
        "the relay's TLS certificate is not the one that was pinned; get a new invite, or check who answers at this address"
    )]
    CertificatePin,
    /// The certificate is not trusted by the system, expired, or for another name.
    #[error("the relay's TLS certificate is not trusted; pin it if it is self-signed")]
    Certificate,
    /// TLS failed in another way.
    #[error("TLS with the relay failed; is it a relay, and does it speak TLS 1.3?")]
    Tls,
    /// The system has no trusted roots.
    #[error("this system has no trusted TLS roots; install them, or pin the relay's certificate")]
    NoRoots,
    /// What answers is no WebSocket server, or does not speak `sealwire.v1`.
    #[error("what answers at this address is not a relay (HTTP status {0})")]
    NotARelay(u16),
    /// The connection broke.
    #[error("the connection to the relay broke")]
    Broken,
    /// The relay did not complete the handshake in time.
    #[error("the relay did not answer in time")]
    Timeout,
    /// The application's source of tokens has none now.
    #[error("no token can be had now")]
    NoToken,
    /// The relay did not accept the credential, and another one is about to be presented.
    #[error("the relay did not accept the credential; another one is presented")]
    CredentialRefused,
    /// The relay closed with a code that means to come back later (40xx).
    #[error("the relay is not available now ({0})")]
    Unavailable(u16),
}

impl Unreachable {
    /// Its stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Connect(_) => "unreachable",
            Self::CertificatePin => "certificate_pin_mismatch",
            Self::Certificate => "certificate_not_trusted",
            Self::Tls => "tls_failed",
            Self::NoRoots => "no_tls_roots",
            Self::NotARelay(_) => "not_a_relay",
            Self::Broken => "connection_broken",
            Self::Timeout => "relay_timeout",
            Self::NoToken => "no_token_now",
            Self::CredentialRefused => "credential_refused",
            Self::Unavailable(_) => "relay_unavailable",
        }
    }

    /// Whether trying again can help.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Connect(_)
            | Self::NotARelay(_)
            | Self::Broken
            | Self::Timeout
            | Self::NoToken
            | Self::CredentialRefused
            | Self::Unavailable(_) => true,
            Self::CertificatePin | Self::Certificate | Self::Tls | Self::NoRoots => false,
        }
    }
}

/// Why the relay does not accept this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAuthorised {
    /// The relay does not accept the credential or the proof (4100, or 401 before the upgrade).
    #[error("the relay does not accept this device's credential; get a new token or invite")]
    Credential,
    /// The token has expired (4101).
    #[error("the token has expired; sign in again")]
    Expired,
    /// The token, the device or the user was revoked (4102).
    #[error("this device's access was revoked; ask the operator")]
    Revoked,
    /// The application's source of tokens gave none.
    #[error("no token could be had; sign in again")]
    NoToken,
    /// The device store has no enrolment and no token or invite was given.
    #[error("this device is not enrolled; join with an invite, or give a token")]
    NotEnrolled,
    /// The token is for another device than this one.
    #[error("the token is bound to another device's key; ask for one that names this device")]
    OtherDevice,
    /// The token is for another user than the one this device store belongs to.
    #[error("the token is for another user than this device store; use another store")]
    OtherUser,
    /// The token does not verify with the configured issuer.
    #[error(
        "the token does not verify with the configured issuer; check the issuer's name, audience and keys"
    )]
    Attestation,
}

impl NotAuthorised {
    /// Its stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::Credential => "not_authorised",
            Self::Expired => "token_expired",
            Self::Revoked => "revoked",
            Self::NoToken => "no_token",
            Self::NotEnrolled => "not_enrolled",
            Self::OtherDevice => "token_of_other_device",
            Self::OtherUser => "token_of_other_user",
            Self::Attestation => "token_not_attested",
        }
    }
}

/// Why the relay refused a request (`docs/protocol.md §5.3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The token does not allow it, or there is no such user that one may write to.
    #[error("not permitted: this device may not do that, or not to this user")]
    NotPermitted,
    /// The user has no device yet.
    #[error("this user has no device yet; try again when they have joined")]
    UnknownUser,
    /// The recipient's devices change faster than they can be followed.
    #[error("the recipient's devices keep changing; try again")]
    DevicesChanged,
    /// The recipient's mailbox is full.
    #[error("the recipient's mailbox is full; try again when they have been online")]
    MailboxFull,
    /// Larger than the token or the relay allows.
    #[error("larger than this relay or your token allows")]
    TooLarge,
    /// Too many messages or card fetches.
    #[error("too many requests; slow down")]
    RateLimited,
    /// The relay does not accept the card or a prekey.
    #[error("the relay does not accept this device's card")]
    InvalidCard,
    /// Too many devices, or too many prekeys stored.
    #[error("this user has too many devices; remove one")]
    TooMany,
    /// The relay does not accept the new token.
    #[error("the relay does not accept the new token")]
    TokenRefused,
    /// The relay cannot do it now.
    #[error("the relay cannot do that now; try again")]
    Unavailable,
    /// This user's own devices change faster than they can be followed.
    #[error("your own devices keep changing; try again")]
    OwnDevicesChanged,
    /// What one user may have in the recipient's mailbox is used up.
    #[error(
        "the recipient has not fetched your earlier messages, and no more of yours fit in their mailbox; try again when they have been online"
    )]
    Quota,
    /// It was too far behind later messages to be judged.
    #[error("the relay cannot tell any more whether it has taken this message before")]
    Stale,
    /// It is no device of this user.
    #[error("this user has no such device; list them with devices")]
    UnknownDevice,
    /// The relay has no such file, or not any more.
    #[error("the relay does not have this file, or not any more; have it sent again")]
    UnknownBlob,
    /// The relay has another part of the file than was thought.
    #[error("the relay has another part of this file than was thought; try again")]
    BlobConflict,
    /// The relay holds as much for this user as it may.
    #[error("the relay holds as many files of yours as it may; try again when some have expired")]
    StorageFull,
    /// It was refused before the link ended, without this device hearing of it, and later messages were taken since.
    #[error("the relay has not taken this message, and has taken later ones since; send it again")]
    Overtaken,
    /// There is no such service, or the token does not allow calling it.
    #[error("the relay has no such service that this device may call")]
    UnknownService,
    /// The service has failed.
    #[error("the service has failed; it may have done a part of what was asked")]
    ServiceFailed,
    /// The service has not answered in time.
    #[error("the service did not answer the relay in time; it may have done what was asked")]
    ServiceTimeout,
}

impl Refusal {
    /// Its name in `docs/protocol.md §5.3`.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotPermitted => "not_permitted",
            Self::UnknownUser => "unknown_user",
            Self::DevicesChanged => "devices_changed",
            Self::MailboxFull => "mailbox_full",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::InvalidCard => "invalid_card",
            Self::TooMany => "too_many",
            Self::TokenRefused => "token_refused",
            Self::Unavailable => "unavailable",
            Self::OwnDevicesChanged => "own_devices_changed",
            Self::Quota => "quota",
            Self::Stale => "stale",
            Self::UnknownDevice => "unknown_device",
            Self::UnknownBlob => "unknown_blob",
            Self::BlobConflict => "blob_conflict",
            Self::StorageFull => "storage_full",
            Self::Overtaken => "overtaken",
            Self::UnknownService => "unknown_service",
            Self::ServiceFailed => "service_failed",
            Self::ServiceTimeout => "service_timeout",
        }
    }

    /// Whether trying again later can help.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::UnknownUser
            | Self::DevicesChanged
            | Self::MailboxFull
            | Self::RateLimited
            | Self::Unavailable
            | Self::OwnDevicesChanged
            | Self::Quota
            | Self::BlobConflict
            | Self::StorageFull
            | Self::Overtaken => true,
            Self::NotPermitted
            | Self::TooLarge
            | Self::InvalidCard
            | Self::TooMany
            | Self::TokenRefused
            | Self::Stale
            | Self::UnknownDevice
            | Self::UnknownBlob
            | Self::UnknownService
            | Self::ServiceFailed
            | Self::ServiceTimeout => false,
        }
    }
}

/// How the relay broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RelayFault {
    /// The handshake does not hold.
    #[error("its handshake does not verify")]
    Handshake,
    /// A record or frame is malformed, out of order or does not open.
    #[error("a record from it is malformed or does not open")]
    Record,
    /// Ready names another device than this one.
    #[error("it takes this device for another one")]
    OtherDevice,
    /// A reply to something that was not asked.
    #[error("it answers what was not asked")]
    Unasked,
    /// It says that this side broke the protocol (42xx).
    #[error("it refused our messages as not conforming")]
    RefusedOurs,
    /// It speaks another version (4202).
    #[error("it speaks another protocol version")]
    Version,
}

/// What is wrong with a device card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CardFault {
    /// The card, its signature or its attestation does not verify.
    #[error("it does not verify")]
    Invalid,
    /// It is older than one seen before.
    #[error("it is older than one seen before")]
    RolledBack,
    /// It is of another user than the one that was asked for.
    #[error("it belongs to another user")]
    OtherUser,
    /// Its one-time prekey is not signed by the device.
    #[error("its one-time prekey is not signed by the device")]
    OneTimePrekey,
}
