//! What can go wrong on a link, and who is to blame for it (docs/protocol.md §13).
//!
//! The error is precise and stays on the side that found it. The other side sees a [`CloseCode`] and nothing else.

use crate::TokenError;
use crate::close::CloseCode;
use crate::codec::{DecodeError, EncodeError};
use crate::key::{PublicKeyError, Thumbprint};

/// Why a link ended or could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The peer sent something that is not of the form given in docs/protocol.md.
    #[error("the peer sent something malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The peer sent something well-formed that it may not send.
    #[error("the peer broke the protocol: {0}")]
    Misbehaved(#[from] Misbehaviour),
    /// The peer follows another specification.
    #[error("the peer is incompatible: {0}")]
    Incompatible(#[from] Incompatibility),
    /// The peer is not who it has to be, or its credential is not good.
    #[error("not authorised: {0}")]
    NotAuthorised(#[from] NotAuthorised),
    /// The link has carried as much as a link may; nobody is to blame. Connect again.
    #[error("the link has carried all that it may; connect again: {0}")]
    Exhausted(#[from] Exhausted),
    /// The caller asked for something that the protocol does not allow. The link is as it was.
    #[error("this cannot be sent: {0}")]
    Misuse(#[from] Misuse),
}

impl LinkError {
    /// The code to close the WebSocket with.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Malformed(_) => CloseCode::Malformed,
            Self::Misbehaved(_) => CloseCode::Violation,
            Self::Incompatible(Incompatibility::Version { .. }) => CloseCode::Version,
            Self::NotAuthorised(_) => CloseCode::NotAuthorised,
            Self::Exhausted(_) => CloseCode::GoingAway,
            Self::Misuse(_) => CloseCode::Internal,
        }
    }
}

/// A part of the conversation, for errors to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The device's first message.
    Hello,
    /// The relay's answer.
    Accept,
    /// What is sealed in Accept.
    AcceptSecret,
    /// The device's second message.
    Finish,
    /// What is sealed in Finish.
    FinishSecret,
    /// A sealed record.
    Record,
    /// A frame in a record.
    Frame,
}

impl core::fmt::Display for Part {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Hello => "Hello",
            Self::Accept => "Accept",
            Self::AcceptSecret => "the sealed part of Accept",
            Self::Finish => "Finish",
            Self::FinishSecret => "the sealed part of Finish",
            Self::Record => "a record",
            Self::Frame => "a frame",
        })
    }
}

/// Something that is not of the form given in docs/protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Bytes that do not decode.
    #[error("{part}: {defect}")]
    Encoding {
        /// Where.
        part: Part,
        /// What is wrong.
        defect: DecodeError,
    },
    /// The ML-KEM key in Hello fails the check of FIPS 203 §7.2.
    #[error("the ML-KEM key in Hello has a coefficient that is not below the modulus")]
    KemKey,
    /// The key of the relay or the device is not an Ed25519 key that may be used.
    #[error("the peer's key: {0}")]
    Ed25519Key(PublicKeyError),
    /// A record without a frame.
    #[error("a record without a frame")]
    EmptyRecord,
}

/// Something well-formed that the peer may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misbehaviour {
    /// The X25519 key is of low order (RFC 7748 §6.1).
    #[error("its X25519 key is of low order")]
    LowOrderKey,
    /// A sealed part of the handshake or a record does not open: changed, replayed, lost one before, or not meant for us.
    #[error("a sealed message does not open")]
    DoesNotOpen,
    /// A record over 3 MiB + 4 bytes.
    #[error("a record is larger than allowed")]
    RecordTooLarge,
    /// More than 256 frames in a record.
    #[error("a record has more frames than allowed")]
    TooManyFrames,
    /// The relay's first frame is not Ready.
    #[error("the relay's first frame is not Ready")]
    ReadyMissing,
    /// Ready names another device than this one.
    #[error("Ready is for the device {0}, not for this one")]
    ReadyForAnotherDevice(Thumbprint),
    /// A Ready after the first frame.
    #[error("the relay sent Ready twice")]
    ReadyAgain,
}

/// The peer follows another specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Incompatibility {
    /// Another version of the protocol.
    #[error("it speaks version {theirs} of the protocol, this is version 1; update the older side")]
    Version {
        /// The version in its Hello.
        theirs: u16,
    },
}

/// Who the peer is, or what it presents, is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthorised {
    /// The relay has another key than the address says. Finish was not sent.
    #[error(
        "the relay at this address has the key {presented}, but {expected} is expected; \
         ask its operator for the right address before connecting"
    )]
    UnexpectedRelay {
        /// The thumbprint in the address (the first, if there are several).
        expected: Thumbprint,
        /// The thumbprint of the key that the relay has.
        presented: Thumbprint,
    },
    /// The relay's proof is not good.
    #[error("the relay's proof: {0}")]
    RelayProof(TokenError),
    /// The device's proof is not good.
    #[error("the device's proof: {0}")]
    DeviceProof(TokenError),
    /// The device presented no token, neither in the upgrade request nor in Finish.
    #[error("the device presented no token")]
    CredentialMissing,
    /// Finish holds another credential than the token of the upgrade request.
    #[error("Finish does not go with the token of the upgrade request")]
    CredentialMismatch,
    /// An invite code that is not 16 to 64 bytes, or something beside a renewal.
    #[error("the credential is not of the form its kind has")]
    CredentialForm,
    /// The token that was verified is not the one that was presented and proved.
    #[error("the verified token is not the one that the device presented")]
    AnotherToken,
    /// The token names another device than the one that proved its key.
    #[error("the token is for the device {token}, but {device} presents it")]
    TokenOfAnotherDevice {
        /// The device in the token's `cnf`.
        token: Thumbprint,
        /// The device that holds the link.
        device: Thumbprint,
    },
    /// A refresh with a token of another issuer.
    #[error("the new token is of another issuer than the link's")]
    AnotherIssuer,
    /// A refresh with a token of another user.
    #[error("the new token is for another user than the link's")]
    AnotherUser,
}

/// A bound that a link reaches by being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// 2^48 records in a direction.
    #[error("2^48 records were sent in one direction")]
    Sequence,
    /// A key at its hard limit.
    #[error("a record key is at its hard limit")]
    Key,
}

/// The caller's mistake. Nothing was sent and nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// A field is out of its bounds.
    #[error("{0}")]
    Encode(#[from] EncodeError),
    /// The batch holds as many frames or bytes as a record may: seal it and start another.
    #[error("the batch is full; seal it and start another")]
    BatchFull,
    /// A batch without a frame.
    #[error("the batch is empty")]
    EmptyBatch,
    /// The relay's first record does not begin with Ready, or a later one has a Ready.
    #[error("Ready is the first frame of the relay's first record, and of no other")]
    ReadyOutOfPlace,
    /// No thumbprint of a relay to expect.
    #[error("no relay is expected; the address has to name its thumbprint")]
    NoRelayExpected,
    /// A credential that no relay would take: an empty or over-long token, or an invite code not of 16 to 64 bytes.
    #[error("the credential has a length that no relay would accept")]
    CredentialLength,
}
