//! One other device: the sessions with it, and which of them seals (docs/protocol.md §7.5).
//!
//! ```text
//! start(card) ──────────────┐
//!                           v
//! seal(content) ──> the session that seals ──> sealed message
//!
//! open(message) ──┬─ a session that is here ──> ratchet ────────────────────────────┐
//!                 └─ a new one ──> agreement, proof, replay guard ──> ratchet ──> content
//! ```
//!
//! Every call changes everything it has to or nothing at all. A caller that stores state runs the call, writes
//! [`Peer::encode`] (and [`Prekeys::encode`], if a session was started by the message) with the result in one transaction,
//! and drops the values in memory if the transaction fails.

use alloc::vec::Vec;

use rand_core::CryptoRng;
use sealwire_protocol::{jws::SignatureVerifier, key::Thumbprint, token::AttestationPolicy};
use zeroize::Zeroizing;

use crate::{
    card::VerifiedCard,
    device::{DeviceKeys, OwnIdentity, PeerIdentity},
    error::Error,
    message::{SESSION_ID_LEN, SealedMessage},
    one_time::VerifiedOneTimePrekey,
    prekeys::Prekeys,
};

/// The id of a session (docs/protocol.md §7.2).
pub type SessionId = [u8; SESSION_ID_LEN];

/// This device, as far as receiving needs it.
#[derive(Debug)]
pub struct Local<'a> {
    /// Its long-lived keys.
    pub keys: &'a DeviceKeys,
    /// What it says about itself.
    pub own: &'a OwnIdentity,
    /// The secrets that a first message may need; changed if it starts a session.
    pub prekeys: &'a mut Prekeys,
}

/// One other device and at most 4 sessions with it.
#[derive(Debug)]
pub struct Peer {
    device: Thumbprint,
}

/// What opening a message gave.
#[derive(Debug)]
pub struct Opened {
    /// The content, without padding: for [`Content::decode`](crate::content::Content::decode).
    pub content: Zeroizing<Vec<u8>>,
    /// The session it came in.
    pub session: SessionId,
    /// How many messages before this one are newly known to be missing: late, or lost.
    pub missing: u32,
    /// There if the message started the session.
    pub started: Option<Started>,
}

/// How a message started a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// The generation of this device's card that was used.
    pub generation: u32,
    /// The one-time prekey that was used, and is erased now.
    pub one_time: Option<u32>,
    /// Whether this device now seals in the session (docs/protocol.md §7.5).
    pub seals: bool,
}

impl Peer {
    /// Another device without any session yet.
    #[must_use]
    pub fn new(device: Thumbprint) -> Self {
        Self { device }
    }

    /// Which device it is.
    #[must_use]
    pub const fn device(&self) -> Thumbprint {
        self.device
    }

    /// Whose device it is, once a session was started by either side. It never changes: a card or a first message that
    /// attests the device for somebody else is refused.
    #[must_use]
    pub fn identity(&self) -> Option<&PeerIdentity> {
        todo!()
    }

    /// Whether [`seal`](Self::seal) needs a [`start`](Self::start) first: there is no session, or this device started the one
    /// that seals more than 7 days before `now` and was never answered.
    #[must_use]
    pub fn needs_session(&self, _now: u64) -> bool {
        todo!()
    }

    /// Starts a session, which seals from now on. Fetch the card with a one-time prekey, and verify both.
    ///
    /// # Errors
    /// [`Misbehaved`](crate::error::Misbehaved) if the card or the prekey is of another device or identity;
    /// [`Misuse::OwnDevice`](crate::error::Misuse::OwnDevice).
    pub fn start(
        &mut self,
        _keys: &DeviceKeys,
        _own: &OwnIdentity,
        _card: &VerifiedCard,
        _one_time: Option<VerifiedOneTimePrekey>,
        _rng: &mut (impl CryptoRng + ?Sized),
        _now: u64,
    ) -> Result<SessionId, Error> {
        todo!()
    }

    /// Seals an encoded [`Content`](crate::content::Content) and gives the sealed message in its compact binary form. The same
    /// content sealed again is another message: what is sent again has to be the same bytes.
    ///
    /// # Errors
    /// [`Misuse`](crate::error::Misuse): there is no session, the chain has ended, or the content is too long.
    pub fn seal(&mut self, _content: &[u8], _rng: &mut (impl CryptoRng + ?Sized)) -> Result<Vec<u8>, Error> {
        todo!()
    }

    /// Opens a message of this device. A first message of a session that is not here yet starts it, after everything that
    /// docs/protocol.md §7.3 asks for was checked; `keys` and `policy` verify the initiator's attestation. The time is
    /// that of `policy`.
    ///
    /// # Errors
    /// [`Error::Decrypt`], [`Error::Gone`] (a new session is needed), and what is wrong with a first message. Nothing changed.
    pub fn open(
        &mut self,
        _local: Local<'_>,
        _message: &SealedMessage<'_>,
        _keys: &(impl SignatureVerifier + ?Sized),
        _policy: &AttestationPolicy<'_>,
    ) -> Result<Opened, Error> {
        todo!()
    }

    /// Erases all sessions: the next message has to start a new one. The identity stays pinned.
    pub fn forget_sessions(&mut self) {
        todo!()
    }

    /// Erases skipped keys older than 30 days (docs/protocol.md §8.2). Opening does the same for its session.
    pub fn expire(&mut self, _now: u64) {
        todo!()
    }

    /// All sessions for the encrypted store, with a version number.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        todo!()
    }

    /// Restores what [`encode`](Self::encode) gave.
    ///
    /// # Errors
    /// [`Error::State`]: another version, or damaged.
    pub fn decode(_bytes: &[u8]) -> Result<Self, Error> {
        todo!()
    }
}
