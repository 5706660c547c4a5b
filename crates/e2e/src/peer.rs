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
use core::fmt;

use rand_core::CryptoRng;
use sealwire_protocol::{
    codec::{DecodeError, Writer},
    jws::SignatureVerifier,
    key::Thumbprint,
    limits::{CLOCK_TOLERANCE_SECONDS, MAX_SESSIONS},
    name::{Issuer, User},
    token::AttestationPolicy,
};
use zeroize::Zeroizing;

use crate::{
    agreement,
    card::VerifiedCard,
    device::{DeviceKeys, OwnIdentity, PeerIdentity},
    error::{Error, Gone, Misbehaved, Misuse},
    message::{ProtectedHeader, SESSION_ID_LEN, SealedMessage},
    one_time::VerifiedOneTimePrekey,
    prekeys::Prekeys,
    session::Session,
    state::{self, Kind},
};

/// How long a session that this device started goes on without an answer, in seconds: 7 days. The recipient keeps what opens
/// its first message for 30.
const UNANSWERED_SECONDS: u64 = 7 * 24 * 60 * 60;

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
pub struct Peer {
    device: Thumbprint,
    identity: Option<PeerIdentity>,
    /// The oldest first.
    sessions: Vec<Session>,
    /// The id of the session that seals; it is one of `sessions`.
    sealing: Option<SessionId>,
    /// A buffer that every message uses again.
    protected: ProtectedHeader,
}

/// What opening a message gave.
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
    pub const fn new(device: Thumbprint) -> Self {
        Self {
            device,
            identity: None,
            sessions: Vec::new(),
            sealing: None,
            protected: ProtectedHeader::new(),
        }
    }

    /// Which device it is.
    #[must_use]
    pub const fn device(&self) -> Thumbprint {
        self.device
    }

    /// Whose device it is, once a session was started by either side. It never changes: a card or a first message that
    /// attests the device for somebody else is refused.
    #[must_use]
    pub const fn identity(&self) -> Option<&PeerIdentity> {
        self.identity.as_ref()
    }

    /// The session that seals.
    #[must_use]
    pub const fn sealing(&self) -> Option<SessionId> {
        self.sealing
    }

    /// Whether [`seal`](Self::seal) needs a [`start`](Self::start) first: there is no session, or this device started the one
    /// that seals more than 7 days before `now` and was never answered. (So it is if a wrong clock put it into the future.)
    #[must_use]
    pub fn needs_session(&self, now: u64) -> bool {
        self.sealing_session().is_none_or(|session| {
            session.is_unanswered()
                && (now.saturating_sub(session.issued) > UNANSWERED_SECONDS
                    || is_in_future(session, now))
        })
    }

    /// Starts a session, which seals from now on. Fetch the card with a one-time prekey, and verify both. `now` is in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`Misbehaved`] if the card or the prekey is of another device or identity; [`Misuse::OwnDevice`];
    /// [`Misuse::AttestationTooOld`].
    pub fn start(
        &mut self,
        keys: &DeviceKeys,
        own: &OwnIdentity,
        card: &VerifiedCard,
        one_time: Option<VerifiedOneTimePrekey>,
        rng: &mut (impl CryptoRng + ?Sized),
        now: u64,
    ) -> Result<SessionId, Error> {
        self.check_identity(card.identity())?;
        let issued = self.next_issued(now);
        let session = agreement::initiate(keys, own, card, one_time.as_ref(), rng, issued)?;
        let id = session.id;
        self.identity = Some(card.identity().clone());
        self.add(session, true);
        Ok(id)
    }

    /// Seals an encoded [`Content`](crate::content::Content) and gives the sealed message in its compact binary form. The same
    /// content sealed again is another message: what is sent again has to be the same bytes.
    ///
    /// # Errors
    /// [`Misuse`]: there is no session, the chain has ended, or the content is too long.
    pub fn seal(
        &mut self,
        content: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<u8>, Error> {
        let session = self
            .sessions
            .iter_mut()
            .find(|session| Some(session.id) == self.sealing)
            .ok_or(Misuse::NoSession)?;
        session.seal(content, rng, &mut self.protected)
    }

    /// Opens a message of this device. A first message of a session that is not here yet starts it, after everything that
    /// docs/protocol.md §7.3 asks for was checked; `keys` and `policy` verify the initiator's attestation. The time is
    /// that of `policy`.
    ///
    /// # Errors
    /// [`Error::Decrypt`], [`Error::Gone`] (a new session is needed), and what is wrong with a first message. Nothing changed.
    pub fn open(
        &mut self,
        local: Local<'_>,
        message: &SealedMessage<'_>,
        keys: &(impl SignatureVerifier + ?Sized),
        policy: &AttestationPolicy<'_>,
    ) -> Result<Opened, Error> {
        let header = message.header();
        if let Some(session) = self
            .sessions
            .iter_mut()
            .find(|session| session.id == header.session)
        {
            let opened = session.open(message, policy.now, &mut self.protected)?;
            return Ok(Opened {
                content: opened.content,
                session: header.session,
                missing: opened.skipped,
                started: None,
            });
        }
        let Some(first) = &header.first else {
            return Err(Gone::Session.into());
        };
        if self.device == local.keys.thumbprint() {
            return Err(Misuse::OwnDevice.into());
        }
        let (identity, mut session) =
            agreement::accept(&local, self.device, header, first, keys, policy)?;
        self.check_identity(&identity)?;
        let opened = session.open(message, policy.now, &mut self.protected)?;

        // From here on nothing fails.
        local.prekeys.use_up(self.device, first);
        self.identity = Some(identity);
        let seals = self.takes_over(&session, policy.now);
        self.add(session, seals);
        Ok(Opened {
            content: opened.content,
            session: header.session,
            missing: opened.skipped,
            started: Some(Started {
                generation: first.generation,
                one_time: first.one_time,
                seals,
            }),
        })
    }

    /// Seals in this session from now on, whatever its precedence: the other device has asked in it for what it could not open, so it may
    /// have no other (docs/protocol.md §8.3). Nothing if it is not here.
    pub fn prefer(&mut self, session: SessionId) {
        if self.sessions.iter().any(|kept| kept.id == session) {
            self.sealing = Some(session);
        }
    }

    /// Erases all sessions: the next message has to start a new one. The identity stays pinned.
    pub fn forget_sessions(&mut self) {
        self.sessions.clear();
        self.sealing = None;
    }

    /// Erases skipped keys older than 30 days (docs/protocol.md §8.2). Opening does the same for its session.
    pub fn expire(&mut self, now: u64) {
        for session in &mut self.sessions {
            session.ratchet.skipped.drop_old(now);
        }
    }

    /// All sessions for the encrypted store, with a version number.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "the types of names allow 1 to 255 bytes only"
    )]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let sessions: usize = self.sessions.iter().map(Session::encoded_len).sum();
        let mut out = state::begin(Kind::Peer, 32 + 1 + 2 * 256 + 1 + 1 + sessions);
        let mut writer = Writer::new(&mut out);
        writer
            .bytes(self.device.as_bytes())
            .bool(self.identity.is_some());
        if let Some(identity) = &self.identity {
            for name in [identity.issuer.as_bytes(), identity.user.as_bytes()] {
                writer.vec8(name, 1..=255).expect("names fit");
            }
        }
        writer.u8(state::count(self.sessions.len()));
        for session in &self.sessions {
            writer.bool(Some(session.id) == self.sealing);
            session.write(&mut writer);
        }
        out
    }

    /// Restores what [`encode`](Self::encode) gave.
    ///
    /// # Errors
    /// [`Error::State`]: another version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Ok(state::restore(Kind::Peer, bytes, |reader| {
            let mut peer = Self::new(Thumbprint::from_bytes(*reader.array()?));
            if reader.bool()? {
                let damaged = |_| DecodeError::UnknownValue;
                peer.identity = Some(PeerIdentity {
                    issuer: Issuer::from_bytes(reader.vec8(1..=255)?).map_err(damaged)?,
                    user: User::from_bytes(reader.vec8(1..=255)?).map_err(damaged)?,
                    device: peer.device,
                });
            }
            for _ in 0..reader.count8(0..=MAX_SESSIONS)? {
                let seals = reader.bool()?;
                let session = Session::read(reader)?;
                state::check(peer.sessions.iter().all(|other| other.id != session.id))?;
                if seals {
                    state::check(peer.sealing.is_none())?;
                    peer.sealing = Some(session.id);
                }
                peer.sessions.push(session);
            }
            // Exactly one session seals as soon as there is one, and every session is with somebody.
            state::check(peer.sealing.is_none() == peer.sessions.is_empty())?;
            state::check(peer.sessions.is_empty() || peer.identity.is_some())?;
            Ok(peer)
        })?)
    }

    /// Refuses a device, or a user, other than the one that this is.
    fn check_identity(&self, identity: &PeerIdentity) -> Result<(), Error> {
        if identity.device != self.device {
            return Err(Misbehaved::AnotherDevice.into());
        }
        if self
            .identity
            .as_ref()
            .is_some_and(|pinned| pinned != identity)
        {
            return Err(Misbehaved::AnotherIdentity.into());
        }
        Ok(())
    }

    fn sealing_session(&self) -> Option<&Session> {
        self.sessions
            .iter()
            .find(|session| Some(session.id) == self.sealing)
    }

    /// docs/protocol.md §7.5: the session with the later proof seals, at the same second the one with the smaller id. Both
    /// devices know both, so they choose the same one in whatever order they hear of them.
    fn takes_over(&self, new: &Session, now: u64) -> bool {
        self.sealing_session().is_none_or(|current| {
            is_in_future(current, now) || new.precedence() > current.precedence()
        })
    }

    /// The `iat` for a session that is started now: later than that of every one there is, so that it takes over at the other
    /// device too (docs/protocol.md §7.5).
    fn next_issued(&self, now: u64) -> u64 {
        self.sessions
            .iter()
            .filter(|session| session.issued < now.saturating_add(CLOCK_TOLERANCE_SECONDS))
            .map(|session| session.issued.saturating_add(1))
            .fold(now, u64::max)
    }

    /// Keeps a new session. The oldest one that does not seal is dropped for a fifth (docs/protocol.md §7.5).
    fn add(&mut self, session: Session, seals: bool) {
        if seals {
            self.sealing = Some(session.id);
        }
        if self.sessions.len() >= MAX_SESSIONS
            && let Some(oldest) = self
                .sessions
                .iter()
                .position(|kept| Some(kept.id) != self.sealing)
        {
            self.sessions.remove(oldest);
        }
        self.sessions.push(session);
    }
}

impl fmt::Debug for Opened {
    /// Without the content.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("session", &self.session)
            .field("missing", &self.missing)
            .field("started", &self.started)
            .finish_non_exhaustive()
    }
}

/// Whether a wrong clock, since put right, started the session (docs/protocol.md §7.5).
const fn is_in_future(session: &Session, now: u64) -> bool {
    session.issued > now.saturating_add(CLOCK_TOLERANCE_SECONDS)
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({}, {} sessions)", self.device, self.sessions.len())
    }
}
