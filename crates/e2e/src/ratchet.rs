//! The Double Ratchet (docs/protocol.md §8): every message its own key, and new keys with every turn.
//!
//! ```text
//!            seal ──> [Turn] ── new key pair, root step ──> [Chain] ──> n = 0, 1, 2 ...
//!                       ^                                      │
//!                       └───── root step for receiving ────────┘<── a message with a new ratchet key
//! ```
//!
//! Opening is in two halves: `derive` computes the key of a message and everything that would change, from
//! `&Ratchet`; only when the message has opened is that put in place. So a failed open cannot change anything.
//!
//! Which session a message belongs to is for [`peer`](crate::peer).

use alloc::{boxed::Box, vec::Vec};

use rand_core::CryptoRng;
use sealwire_protocol::{
    crypto::{X25519PublicKey, X25519Secret},
    limits::{MAX_CHAIN_MESSAGES, MAX_SKIPPED_AT_ONCE},
};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Gone, Misuse},
    message::{
        self, First, Header, IV_LEN, MessageKey, ProtectedHeader, SESSION_ID_LEN, SealedMessage,
    },
    schedule::{ChainKey, RootKey},
    skipped::{SkippedKey, SkippedKeys},
};

/// One session's keys.
pub(crate) struct Ratchet {
    pub(crate) root: RootKey,
    pub(crate) sending: Sending,
    /// `None` until the initiator has opened its first message.
    pub(crate) receiving: Option<Receiving>,
    pub(crate) skipped: SkippedKeys,
}

/// How the next message is sealed.
pub(crate) enum Sending {
    /// The peer has a new ratchet key: the next message starts a turn (docs/protocol.md §8.1).
    Turn {
        /// The peer's latest ratchet key.
        theirs: X25519PublicKey,
        /// Length of this device's previous chain: `pn` of the next.
        previous: u32,
    },
    /// The next message goes on in this device's latest chain.
    Chain {
        own: RatchetKey,
        chain: Chain,
        /// Length of the chain before this one: `pn`.
        previous: u32,
    },
}

/// The latest chain of the peer.
pub(crate) struct Receiving {
    pub(crate) ratchet_key: X25519PublicKey,
    pub(crate) chain: Chain,
}

/// A chain and the number of its next message.
pub(crate) struct Chain {
    pub(crate) key: ChainKey,
    pub(crate) n: u32,
}

/// A ratchet key pair, the public half computed once.
pub(crate) struct RatchetKey {
    pub(crate) secret: X25519Secret,
    pub(crate) public: X25519PublicKey,
}

impl RatchetKey {
    pub(crate) fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::from_secret(X25519Secret::generate(rng))
    }

    pub(crate) fn from_secret(secret: X25519Secret) -> Self {
        let public = secret.public_key();
        Self { secret, public }
    }
}

/// What opening a message gave.
pub(crate) struct Opened {
    pub(crate) content: Zeroizing<Vec<u8>>,
    /// How many messages before this one have not come yet and had not been known to be missing.
    pub(crate) skipped: u32,
}

impl Ratchet {
    /// The initiator's start: `chain` is its sending chain, under its own ratchet key (docs/protocol.md §8.1).
    pub(crate) fn initiator(root: RootKey, chain: ChainKey, own: RatchetKey) -> Self {
        Self {
            root,
            sending: Sending::Chain {
                own,
                chain: Chain { key: chain, n: 0 },
                previous: 0,
            },
            receiving: None,
            skipped: SkippedKeys::default(),
        }
    }

    /// The recipient's start: `chain` is its receiving chain, under the initiator's ratchet key, and its own first
    /// message turns the ratchet (docs/protocol.md §8.1).
    pub(crate) fn recipient(root: RootKey, chain: ChainKey, theirs: X25519PublicKey) -> Self {
        Self {
            root,
            sending: Sending::Turn {
                theirs,
                previous: 0,
            },
            receiving: Some(Receiving {
                ratchet_key: theirs,
                chain: Chain { key: chain, n: 0 },
            }),
            skipped: SkippedKeys::default(),
        }
    }

    /// Seals `content` as the next message of `session`.
    pub(crate) fn seal(
        &mut self,
        session: [u8; SESSION_ID_LEN],
        first: Option<First<'_>>,
        content: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
        protected: &mut ProtectedHeader,
    ) -> Result<Vec<u8>, Error> {
        // docs/protocol.md §9.1: random, although the key is used once.
        let mut iv = [0; IV_LEN];
        rng.fill_bytes(&mut iv);
        match &mut self.sending {
            Sending::Chain {
                own,
                chain,
                previous,
            } => {
                // docs/protocol.md §8.2: a chain ends at 2^31.
                if chain.n >= MAX_CHAIN_MESSAGES {
                    return Err(Misuse::ChainEnded.into());
                }
                let header = Header {
                    session,
                    ratchet_key: *own.public.as_bytes(),
                    pn: *previous,
                    n: chain.n,
                    first,
                };
                let (key, next) = chain.key.step();
                let sealed =
                    message::seal(&header, key, iv, content, protected).map_err(Misuse::Seal)?;
                *chain = Chain {
                    key: next,
                    n: chain.n + 1,
                };
                Ok(sealed)
            }
            Sending::Turn { theirs, previous } => {
                let own = RatchetKey::generate(rng);
                let dh = own
                    .secret
                    .diffie_hellman(theirs)
                    .map_err(|_| Error::Decrypt)?;
                let (root, chain) = self.root.step(&dh);
                let (key, next) = chain.step();
                let header = Header {
                    session,
                    ratchet_key: *own.public.as_bytes(),
                    pn: *previous,
                    n: 0,
                    first,
                };
                let sealed =
                    message::seal(&header, key, iv, content, protected).map_err(Misuse::Seal)?;
                self.root = root;
                self.sending = Sending::Chain {
                    own,
                    chain: Chain { key: next, n: 1 },
                    previous: *previous,
                };
                Ok(sealed)
            }
        }
    }

    /// Opens `message`, of this session. `now` is in seconds since 1970.
    pub(crate) fn open(
        &mut self,
        message: &SealedMessage<'_>,
        now: u64,
        protected: &mut ProtectedHeader,
    ) -> Result<Opened, Error> {
        let header = message.header();
        if let Some((index, key)) = self.find_skipped(header, now) {
            let content = message::open(message, key, protected).map_err(|_| Error::Decrypt)?;
            self.skipped.use_up(index);
            self.skipped.drop_old(now);
            return Ok(Opened {
                content,
                skipped: 0,
            });
        }
        let Staged {
            key,
            root,
            receiving,
            passed,
        } = self.derive(header, now)?;
        let content = message::open(message, &key, protected).map_err(|_| Error::Decrypt)?;

        // From here on nothing fails.
        self.receiving = Some(receiving);
        if let Some(root) = root {
            self.root = root;
            self.sending = Sending::Turn {
                theirs: X25519PublicKey::from_bytes(header.ratchet_key),
                previous: self.sending.length(),
            };
        }
        self.skipped.drop_old(now);
        let skipped = u32::try_from(passed.len()).unwrap_or(MAX_SKIPPED_AT_ONCE);
        self.skipped.keep(passed);
        Ok(Opened { content, skipped })
    }

    /// A message in order never searches; anything that is not the next of the latest chain may be a late one.
    fn find_skipped(&self, header: &Header<'_>, now: u64) -> Option<(usize, &MessageKey)> {
        if self.receiving.as_ref().is_some_and(|receiving| {
            *receiving.ratchet_key.as_bytes() == header.ratchet_key && header.n >= receiving.chain.n
        }) {
            return None;
        }
        self.skipped.find(&header.ratchet_key, header.n, now)
    }

    /// The key of a message that is not late, and what its opening changes.
    fn derive(&self, header: &Header<'_>, now: u64) -> Result<Staged, Error> {
        // docs/protocol.md §8.2: a chain ends at 2^31.
        if header.n >= MAX_CHAIN_MESSAGES {
            return Err(Error::Decrypt);
        }
        let mut passed = Vec::new();
        if let Some(receiving) = &self.receiving
            && *receiving.ratchet_key.as_bytes() == header.ratchet_key
        {
            // docs/protocol.md §8.2: a message whose key is not there any more does not open.
            let ahead = header
                .n
                .checked_sub(receiving.chain.n)
                .ok_or(Error::Decrypt)?;
            allow_skipping(ahead.into())?;
            let (key, chain) =
                receiving
                    .chain
                    .advance(ahead, &receiving.ratchet_key, now, &mut passed);
            let receiving = Receiving {
                ratchet_key: receiving.ratchet_key,
                chain,
            };
            return Ok(Staged {
                key,
                root: None,
                receiving,
                passed,
            });
        }

        // A peer has a new ratchet key only after it has seen our latest one.
        let Sending::Chain { own, .. } = &self.sending else {
            return Err(Error::Decrypt);
        };
        let behind = match &self.receiving {
            Some(receiving) => header
                .pn
                .checked_sub(receiving.chain.n)
                .ok_or(Error::Decrypt)?,
            None => 0,
        };
        // docs/protocol.md §8.2: 1,000 in `pn` and `n` together. Before any work for them.
        allow_skipping(u64::from(behind) + u64::from(header.n))?;
        let theirs = X25519PublicKey::from_bytes(header.ratchet_key);
        // docs/protocol.md §8.2: zeros end in the error of a message that does not authenticate.
        let dh = own
            .secret
            .diffie_hellman(&theirs)
            .map_err(|_| Error::Decrypt)?;
        let (root, chain) = self.root.step(&dh);
        if let Some(receiving) = &self.receiving {
            receiving
                .chain
                .skip(behind, &receiving.ratchet_key, now, &mut passed);
        }
        let (key, chain) = Chain { key: chain, n: 0 }.advance(header.n, &theirs, now, &mut passed);
        let receiving = Receiving {
            ratchet_key: theirs,
            chain,
        };
        Ok(Staged {
            key,
            root: Some(root),
            receiving,
            passed,
        })
    }
}

struct Staged {
    key: MessageKey,
    /// There if the peer turned.
    root: Option<RootKey>,
    receiving: Receiving,
    /// The keys between the last message and this one.
    passed: Vec<SkippedKey>,
}

impl Sending {
    /// The length of the chain that ends with the peer's turn.
    const fn length(&self) -> u32 {
        match self {
            Self::Turn { previous, .. } => *previous,
            Self::Chain { chain, .. } => chain.n,
        }
    }
}

impl Chain {
    /// Adds the keys of the next `count` messages to `passed` and gives the chain key after them; `None` for no messages.
    fn skip(
        &self,
        count: u32,
        ratchet_key: &X25519PublicKey,
        now: u64,
        passed: &mut Vec<SkippedKey>,
    ) -> Option<ChainKey> {
        let mut after = None;
        for n in (self.n..).zip(0..count).map(|(n, _)| n) {
            let (key, next) = after.as_ref().unwrap_or(&self.key).step();
            passed.push(SkippedKey {
                ratchet_key: *ratchet_key.as_bytes(),
                n,
                since: now,
                key: Box::new(key),
            });
            after = Some(next);
        }
        after
    }

    /// The key of the message `ahead` of the next one, and the chain after it; the keys between are added to `passed`.
    fn advance(
        &self,
        ahead: u32,
        ratchet_key: &X25519PublicKey,
        now: u64,
        passed: &mut Vec<SkippedKey>,
    ) -> (MessageKey, Self) {
        let after = self.skip(ahead, ratchet_key, now, passed);
        let (key, next) = after.as_ref().unwrap_or(&self.key).step();
        (
            key,
            Self {
                key: next,
                n: self.n.saturating_add(ahead).saturating_add(1),
            },
        )
    }
}

/// docs/protocol.md §8.2: at most 1,000 keys are skipped for one message.
fn allow_skipping(count: u64) -> Result<(), Error> {
    if count > MAX_SKIPPED_AT_ONCE.into() {
        return Err(Gone::TooManyMissing.into());
    }
    Ok(())
}
