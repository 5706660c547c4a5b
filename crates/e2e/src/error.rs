//! What can go wrong between two devices, by who is to blame.
//!
//! Decryption has one reason, without detail (docs/protocol.md §13). Every other reason is decided from public
//! values alone, so naming it tells an attacker nothing.

use sealwire_protocol::{TokenError, jwe::JweFault};

use crate::message::SealError;

/// Why an operation of this crate was refused. After an error all state is what it was before the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input does not have the form that docs/protocol.md gives.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The input is well formed, but another device, or the relay that carried it, did what it must not.
    #[error(transparent)]
    Misbehaved(#[from] Misbehaved),
    /// The attestation is not one that this device accepts (docs/protocol.md §2.3).
    #[error("the other device's attestation is not accepted: {0}")]
    Attestation(#[source] TokenError),
    /// The message does not open. There is no detail on purpose (docs/protocol.md §13).
    #[error("the message does not open; ask its sender to send it again")]
    Decrypt,
    /// What the message needs is no longer, or not yet, on this device.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// Stored state could not be restored.
    #[error(transparent)]
    State(#[from] StateError),
    /// The caller asked for something that is not possible now.
    #[error(transparent)]
    Misuse(#[from] Misuse),
}

/// Input without the form that the protocol gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A device card is not a strict JWT with exactly the claims of docs/protocol.md §6.1.
    #[error("the device card is malformed; fetch it again")]
    Card,
    /// A key in a card or a one-time prekey is not a valid public key (docs/protocol.md §1.3).
    #[error("a public key in a card or prekey is not valid; fetch the card again")]
    Key,
    /// A one-time prekey is not of the form of docs/protocol.md §6.2.
    #[error("the one-time prekey is malformed; fetch the card again")]
    OneTimePrekey,
    /// An initiator's proof is not a strict JWT with exactly the claims of docs/protocol.md §7.3.
    #[error("the first message's proof is malformed; its sender must start a new session")]
    Proof,
    /// A standard JWE is not of the one form that is accepted (docs/protocol.md §10).
    #[error("the standard JWE is malformed: {0}")]
    StandardJwe(JweFault),
    /// What is in a standard JWE is not a strict JWT with exactly the claims of docs/protocol.md §10.1.
    #[error("the message in a standard JWE is malformed; it was refused")]
    StandardMessage,
}

/// Something that an honest device or relay does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misbehaved {
    /// The key in a card is not the key that its issuer claim names (docs/protocol.md §6.1).
    #[error("the device card holds another key than the one it is named after; do not use it")]
    CardThumbprint,
    /// A card's signature does not verify (docs/protocol.md §6.1).
    #[error("the device card's signature does not verify; do not use it")]
    CardSignature,
    /// An attestation is for another device key (docs/protocol.md §6.1, §7.3).
    #[error("the attestation is for another device key; do not trust this device")]
    AttestationOfAnotherDevice,
    /// A card is older than one of this device seen before (docs/protocol.md §6.1).
    #[error("the device card is older than one seen before; the relay may be rolling it back")]
    CardRollback,
    /// A card's `iat` is more than 60 seconds in the future (docs/protocol.md §6.1).
    #[error("the device card is from the future; check both devices' clocks")]
    CardInFuture,
    /// A one-time prekey is not signed by the device it is offered for (docs/protocol.md §6.2).
    #[error("the one-time prekey is not signed by its device; the relay may have invented it")]
    OneTimePrekeySignature,
    /// The device key in a first message, or a card, is not that of the device it is said to come from.
    #[error(
        "the device key is not that of the device it was said to be from; the relay may be at fault"
    )]
    AnotherDevice,
    /// The same device key is attested for another user or issuer than before.
    #[error("the device is now attested for another user; verify the peer before trusting it")]
    AnotherIdentity,
    /// The initiator's proof is not signed by the initiator's device key (docs/protocol.md §7.3).
    #[error("the first message's proof is not signed by its sender's device; it was refused")]
    ProofSignature,
    /// The initiator's proof names another initiator or recipient (docs/protocol.md §7.3).
    #[error("the first message's proof names other devices; it was refused")]
    ProofParties,
    /// The initiator's proof is for another agreement than this one (docs/protocol.md §7.3).
    #[error("the first message's proof belongs to another session; it was refused")]
    ProofTranscript,
    /// The initiator's proof is older than 30 days (docs/protocol.md §7.3).
    #[error("the first message's proof is older than 30 days; its sender must start a new session")]
    ProofTooOld,
    /// The initiator's proof is more than 60 seconds in the future (docs/protocol.md §7.3).
    #[error("the first message's proof is from the future; check both devices' clocks")]
    ProofInFuture,
    /// The session id is not the one that the agreement gives (docs/protocol.md §7.3).
    #[error("the first message names another session than its keys give; it was refused")]
    SessionId,
    /// A message in a standard JWE is not signed by the device it is said to be from (docs/protocol.md §10.1).
    #[error("the message is not signed by its sender's device; it was refused")]
    MessageSignature,
    /// A message in a standard JWE names another sender or recipient (docs/protocol.md §10.1).
    #[error("the message names another sender or recipient; it was refused")]
    MessageParties,
    /// A message in a standard JWE came under another id than its sender gave it (docs/protocol.md §10.1).
    #[error("the message came under another id than its own; the relay may be at fault")]
    MessageId,
    /// A message in a standard JWE is older than 30 days (docs/protocol.md §10.1).
    #[error("the message was written more than 30 days ago; it was refused")]
    MessageTooOld,
    /// A message in a standard JWE is more than 60 seconds in the future (docs/protocol.md §10.1).
    #[error("the message is from the future; check both devices' clocks")]
    MessageInFuture,
    /// A first message repeats an ephemeral key (docs/protocol.md §7.4).
    #[error("the first message was seen before; it was refused")]
    Replay,
    /// A first message came in a session that this device itself started (docs/protocol.md §7.3).
    #[error("a first message came from the wrong side of a session; it was refused")]
    FirstFromRecipient,
}

/// Key material that a message refers to and that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Gone {
    /// The message belongs to a session that this device does not have: the sender has to start a new one.
    #[error(
        "the message belongs to a session that is not here; start a new session with its sender"
    )]
    Session,
    /// The secrets of the card's generation were erased, or never existed (docs/protocol.md §6.1).
    #[error(
        "the first message uses a card whose secrets were erased; its sender must fetch the card again"
    )]
    Generation,
    /// The one-time prekey was used, or never existed (docs/protocol.md §7.3).
    #[error(
        "the first message uses a one-time prekey that was used before; its sender must start a new session"
    )]
    OneTimePrekey,
    /// More than 1,000 messages before this one are missing, and as many keys are not computed for one message (docs/protocol.md
    /// §8.2). An honest sender whose messages were lost causes this.
    #[error(
        "more than 1,000 messages before this one are missing; start a new session with its sender"
    )]
    TooManyMissing,
    /// This card generation takes no more first messages without a one-time prekey from this device (docs/protocol.md §7.4).
    #[error(
        "the sender has started 64 sessions from one card; start a session with it, or publish a new card"
    )]
    TooManySessions,
    /// The generation takes no more first messages without a one-time prekey: publish a new card (docs/protocol.md §7.4).
    #[error("this card generation takes no more first messages; publish a new card")]
    ReplayGuardFull,
}

/// Why stored state was not restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The state was written by another version of this crate, which it names. Nothing is guessed from it.
    #[error("the stored state has format version {0}, which this program does not know; update it")]
    Version(u16),
    /// The state is damaged or is not state of this kind.
    #[error("the stored state is damaged; restore the store or enrol the device again")]
    Damaged,
}

/// A call that does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// There is no session with the device yet: start one from its card.
    #[error("there is no session with this device; fetch its card and start one")]
    NoSession,
    /// The sending chain is at its end, 2^31 messages: sealing goes on when the peer has answered (docs/protocol.md §8.2).
    #[error("2^31 messages were sealed without an answer; wait for the other device")]
    ChainEnded,
    /// All 2^32 ids of cards or one-time prekeys are used up.
    #[error("all ids of cards or prekeys are used up; enrol the device again")]
    IdsExhausted,
    /// A device does not start a session with itself.
    #[error("a device does not start a session with itself")]
    OwnDevice,
    /// The own attestation does not name the own device key.
    #[error("the own attestation does not name this device's key; get a new token")]
    OwnAttestation,
    /// The own attestation is older than 15 days: recipients might refuse it by the time they see it (docs/protocol.md §7).
    #[error("this device's token is older than 15 days; renew it first")]
    AttestationTooOld,
    /// The content, or the own attestation, is longer than a message can carry (docs/protocol.md §9).
    #[error(transparent)]
    Seal(#[from] SealError),
}
