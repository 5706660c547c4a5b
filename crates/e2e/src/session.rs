//! One session: a ratchet, its id, and who started it (docs/protocol.md §7.2, §7.5).
//!
//! Which of several sessions is used is for [`peer`](crate::peer). Here is also the form in which a session is stored.

use alloc::{boxed::Box, vec::Vec};
use core::cmp::Reverse;

use rand_core::CryptoRng;
use sealwire_protocol::{
    codec::{DecodeError, Reader, Writer},
    crypto::{X25519PublicKey, X25519Secret},
    limits::{MAX_CHAIN_MESSAGES, MAX_SKIPPED_KEPT},
};

use crate::{
    agreement::FirstFlight,
    error::{Error, Misbehaved},
    message::{MessageKey, ProtectedHeader, SESSION_ID_LEN, SealedMessage},
    ratchet::{self, Chain, Ratchet, RatchetKey, Receiving, Sending},
    schedule::{ChainKey, RootKey},
    skipped::{SkippedKey, SkippedKeys},
    state,
};

/// One session with another device.
pub(crate) struct Session {
    pub(crate) id: [u8; SESSION_ID_LEN],
    /// The `iat` of the initiator's proof, which both sides know, in seconds since 1970.
    pub(crate) issued: u64,
    pub(crate) role: Role,
    pub(crate) ratchet: Ratchet,
}

/// This device's side of a session.
pub(crate) enum Role {
    /// It started the session. `unanswered` travels in every message until one of the recipient has opened (docs/protocol.md
    /// §7.3), which confirms the session (§7.5).
    Initiator { unanswered: Option<FirstFlight> },
    /// It accepted the session. Nothing here depends on when the initiator confirms it.
    Recipient,
}

impl Session {
    /// The greater wins the choice of the session that seals: the later proof, then the smaller id (docs/protocol.md §7.5).
    pub(crate) const fn precedence(&self) -> (u64, Reverse<[u8; SESSION_ID_LEN]>) {
        (self.issued, Reverse(self.id))
    }

    /// Whether this device started the session and has not been answered (docs/protocol.md §7.5).
    pub(crate) const fn is_unanswered(&self) -> bool {
        matches!(
            self.role,
            Role::Initiator {
                unanswered: Some(_)
            }
        )
    }

    pub(crate) fn seal(
        &mut self,
        content: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
        protected: &mut ProtectedHeader,
    ) -> Result<Vec<u8>, Error> {
        let first = match &self.role {
            Role::Initiator {
                unanswered: Some(first),
            } => Some(first.as_first()),
            Role::Initiator { unanswered: None } | Role::Recipient => None,
        };
        self.ratchet.seal(self.id, first, content, rng, protected)
    }

    pub(crate) fn open(
        &mut self,
        message: &SealedMessage<'_>,
        now: u64,
        protected: &mut ProtectedHeader,
    ) -> Result<ratchet::Opened, Error> {
        // docs/protocol.md §7.3: `first` is the initiator's alone.
        if message.header().first.is_some() && matches!(self.role, Role::Initiator { .. }) {
            return Err(Misbehaved::FirstFromRecipient.into());
        }
        let opened = self.ratchet.open(message, now, protected)?;
        if let Role::Initiator { unanswered } = &mut self.role {
            *unanswered = None;
        }
        Ok(opened)
    }

    /// At least as many bytes as [`write`](Self::write) adds, so that a buffer with secrets does not move.
    pub(crate) fn encoded_len(&self) -> usize {
        let first = match &self.role {
            Role::Initiator {
                unanswered: Some(first),
            } => first.encoded_len(),
            Role::Initiator { unanswered: None } | Role::Recipient => 0,
        };
        256 + first + self.ratchet.skipped.len() * SKIPPED_KEY_BYTES
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(&self.id).u64(self.issued);
        match &self.role {
            Role::Initiator {
                unanswered: Some(first),
            } => first.write(writer.u8(0)),
            Role::Initiator { unanswered: None } => {
                writer.u8(1);
            }
            Role::Recipient => {
                writer.u8(2);
            }
        }
        self.ratchet.write(writer);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let session = Self {
            id: *reader.array()?,
            issued: reader.u64()?,
            role: match reader.u8()? {
                0 => Role::Initiator {
                    unanswered: Some(FirstFlight::read(reader)?),
                },
                1 => Role::Initiator { unanswered: None },
                2 => Role::Recipient,
                _ => return Err(DecodeError::UnknownValue),
            },
            ratchet: Ratchet::read(reader)?,
        };
        // An initiator was answered exactly if it has a receiving chain; a recipient has one from the start.
        state::check(session.is_unanswered() == session.ratchet.receiving.is_none())?;
        Ok(session)
    }
}

const SKIPPED_KEY_BYTES: usize = 32 + 4 + 8 + 32;

impl Ratchet {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.root.expose_for_store());
        match &self.sending {
            Sending::Turn { theirs, previous } => {
                writer.u8(0).bytes(theirs.as_bytes()).u32(*previous);
            }
            Sending::Chain {
                own,
                chain,
                previous,
            } => {
                writer.u8(1).bytes(own.secret.to_secret().expose());
                chain.write(writer);
                writer.u32(*previous);
            }
        }
        writer.bool(self.receiving.is_some());
        if let Some(receiving) = &self.receiving {
            writer.bytes(receiving.ratchet_key.as_bytes());
            receiving.chain.write(writer);
        }
        writer.u16(state::count(self.skipped.len()));
        for skipped in self.skipped.iter() {
            writer
                .bytes(&skipped.ratchet_key)
                .u32(skipped.n)
                .u64(skipped.since)
                .bytes(skipped.key.expose_for_store());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let root = RootKey::from_store(state::secret(reader)?);
        let sending = match reader.u8()? {
            0 => Sending::Turn {
                theirs: X25519PublicKey::from_bytes(*reader.array()?),
                previous: chain_length(reader)?,
            },
            1 => Sending::Chain {
                own: RatchetKey::from_secret(X25519Secret::from_secret(&state::secret(reader)?)),
                chain: Chain::read(reader)?,
                previous: chain_length(reader)?,
            },
            _ => return Err(DecodeError::UnknownValue),
        };
        let receiving = if reader.bool()? {
            Some(Receiving {
                ratchet_key: X25519PublicKey::from_bytes(*reader.array()?),
                chain: Chain::read(reader)?,
            })
        } else {
            None
        };
        if let Sending::Turn { theirs, .. } = &sending {
            state::check(
                receiving
                    .as_ref()
                    .is_some_and(|receiving| receiving.ratchet_key == *theirs),
            )?;
        }
        let skipped = (0..state::count16(reader, MAX_SKIPPED_KEPT)?)
            .map(|_| {
                Ok(SkippedKey {
                    ratchet_key: *reader.array()?,
                    n: reader.u32()?,
                    since: reader.u64()?,
                    key: Box::new(MessageKey::new(state::secret(reader)?)),
                })
            })
            .collect::<Result<SkippedKeys, DecodeError>>()?;
        Ok(Self {
            root,
            sending,
            receiving,
            skipped,
        })
    }
}

impl Chain {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.key.expose_for_store()).u32(self.n);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: ChainKey::from_store(state::secret(reader)?),
            n: chain_length(reader)?,
        })
    }
}

/// docs/protocol.md §8.2: a chain ends at 2^31.
fn chain_length(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    let length = reader.u32()?;
    state::check(length <= MAX_CHAIN_MESSAGES)?;
    Ok(length)
}
