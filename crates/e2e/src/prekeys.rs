//! The secrets behind this device's cards and one-time prekeys (docs/protocol.md §6).
//!
//! ```text
//! publish ── card ──> relay               a first message ──> the secrets of its generation and one-time prekey
//! publish_one_time ── prekeys ──> relay   once it has opened: the one-time prekey is erased, or the replay guard grows
//! ```
//!
//! A generation is one card's secrets. The last 8 are kept, for at most 30 days (§6.1).

use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use core::fmt;

use rand_core::CryptoRng;
use sealwire_protocol::{
    codec::{DecodeError, Reader, Writer},
    crypto::{KemDecapsulationKey, X25519Secret, sha256},
    key::Thumbprint,
    limits::{
        CARD_RENEWAL_DAYS, CLOCK_TOLERANCE_SECONDS, MAX_CARD_GENERATION_DAYS, MAX_CARD_GENERATIONS,
        MAX_REPLAY_ENTRIES, MAX_REPLAY_ENTRIES_OF_A_DEVICE,
    },
};
use zeroize::Zeroizing;

use crate::{
    agreement::MAX_OWN_ATTESTATION_AGE_SECONDS,
    card::{self, CardFields},
    device::{DeviceKeys, OwnIdentity},
    error::{Error, Gone, Misbehaved, Misuse},
    message::First,
    one_time::OneTimePrekey,
    state::{self, Kind},
};

/// One-time prekeys whose secrets a device keeps; the oldest are erased first (docs/protocol.md §6.2).
pub const MAX_ONE_TIME_SECRETS: usize = 500;

const DAY: u64 = 24 * 60 * 60;

/// Up to here ids follow the clock, which is until 2072. The rest is for counting: a wrong clock cannot use the ids up.
const LAST_CLOCK_ID: u32 = 3 << 30;

/// All prekey secrets of this device.
#[derive(Default)]
pub struct Prekeys {
    /// The oldest first, by their ids.
    generations: VecDeque<Generation>,
    one_time: BTreeMap<u32, OneTimeSecrets>,
    /// The id of the next generation, `None` after the last.
    next_generation: NextId,
    next_one_time: NextId,
}

/// The secrets of one card.
pub(crate) struct Generation {
    id: u32,
    /// The card's `iat`, in seconds since 1970.
    issued: u64,
    /// The `iat` of the attestation in it.
    attested: u64,
    pub(crate) signed_prekey: X25519Secret,
    pub(crate) kem: KemDecapsulationKey,
    pub(crate) card_hash: [u8; 32],
    pub(crate) attestation_hash: [u8; 32],
    /// SHA-256 of every ephemeral key of a first message without a one-time prekey, and who sent it (docs/protocol.md §7.4).
    replay_guard: BTreeMap<[u8; 32], Thumbprint>,
}

pub(crate) struct OneTimeSecrets {
    pub(crate) x25519: X25519Secret,
    pub(crate) kem: KemDecapsulationKey,
}

/// The secrets that a first message names.
pub(crate) struct FirstSecrets<'a> {
    pub(crate) generation: &'a Generation,
    pub(crate) one_time: Option<&'a OneTimeSecrets>,
}

/// An id that was not used yet (docs/protocol.md §6.1, §6.2: ids are never reused).
#[derive(Clone, Copy, PartialEq, Eq)]
struct NextId(Option<u32>);

impl Default for NextId {
    fn default() -> Self {
        Self(Some(1))
    }
}

impl NextId {
    /// At least the seconds of `now`: a device whose store was put back to an earlier state does not know which ids it has used
    /// since, but it used them before now (docs/protocol.md §6.1, §6.2).
    fn catch_up(&mut self, now: u64) {
        let now = u32::try_from(now).unwrap_or(u32::MAX).min(LAST_CLOCK_ID);
        self.0 = self.0.map(|id| id.max(now));
    }

    fn peek(self) -> Result<u32, Error> {
        Ok(self.0.ok_or(Misuse::IdsExhausted)?)
    }

    fn advance(&mut self) {
        self.0 = self.0.and_then(|id| id.checked_add(1));
    }
}

impl Prekeys {
    /// A device that has published nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a new generation and gives its card, to publish. `now` is in seconds since 1970. Store the state first.
    ///
    /// # Errors
    /// [`Misuse::IdsExhausted`].
    pub fn publish(
        &mut self,
        keys: &DeviceKeys,
        own: &OwnIdentity,
        rng: &mut (impl CryptoRng + ?Sized),
        now: u64,
    ) -> Result<String, Error> {
        self.next_generation.catch_up(now);
        let id = self.next_generation.peek()?;
        self.expire(now);
        let signed_prekey = X25519Secret::generate(rng);
        let kem = KemDecapsulationKey::generate(rng);
        // §6.1: `iat` does not decrease from card to card, except back from a future in which nobody has accepted one.
        let issued = self
            .generations
            .back()
            .filter(|newest| !newest.is_in_future(now))
            .map_or(now, |newest| newest.issued.max(now));
        let card = card::sign(
            &CardFields {
                issued,
                generation: id,
                standard_jwe: &keys.standard_jwe_public(),
                signed_prekey: &signed_prekey.public_key(),
                kem: &kem.encapsulation_key(),
                attestation: own.attestation(),
            },
            keys.signing(),
        );
        self.generations.push_back(Generation {
            id,
            issued,
            attested: own.issued(),
            signed_prekey,
            kem,
            card_hash: sha256(&[card.as_bytes()]),
            attestation_hash: *own.attestation_hash(),
            replay_guard: BTreeMap::new(),
        });
        self.next_generation.advance();
        // §6.1: the last 8 generations.
        while self.generations.len() > MAX_CARD_GENERATIONS {
            self.generations.pop_front();
        }
        Ok(card)
    }

    /// Makes `count` one-time prekeys, to publish: a relay takes at most 100 at once. `now` is in seconds since 1970. Store the
    /// state first.
    ///
    /// # Errors
    /// [`Misuse::IdsExhausted`], and nothing was made.
    pub fn publish_one_time(
        &mut self,
        keys: &DeviceKeys,
        count: u8,
        rng: &mut (impl CryptoRng + ?Sized),
        now: u64,
    ) -> Result<Vec<OneTimePrekey>, Error> {
        self.next_one_time.catch_up(now);
        self.next_one_time
            .peek()?
            .checked_add(count.into())
            .ok_or(Misuse::IdsExhausted)?;
        let mut published = Vec::with_capacity(count.into());
        for _ in 0..count {
            let id = self.next_one_time.peek()?;
            let secrets = OneTimeSecrets {
                x25519: X25519Secret::generate(rng),
                kem: KemDecapsulationKey::generate(rng),
            };
            published.push(OneTimePrekey::sign(
                id,
                secrets.x25519.public_key(),
                &secrets.kem.encapsulation_key(),
                keys.signing(),
            ));
            self.one_time.insert(id, secrets);
            self.next_one_time.advance();
        }
        while self.one_time.len() > MAX_ONE_TIME_SECRETS {
            self.one_time.pop_first();
        }
        Ok(published)
    }

    /// Whether a new card is due (docs/protocol.md §6.1, §7.4): there is none, the newest is 7 days old, takes no more first
    /// messages or is from the future of a clock that was wrong, or its attestation is 15 days old and `own` is a newer one.
    #[must_use]
    pub fn needs_new_card(&self, own: &OwnIdentity, now: u64) -> bool {
        self.generations.back().is_none_or(|newest| {
            now.saturating_sub(newest.issued) >= CARD_RENEWAL_DAYS * DAY
                || newest.is_in_future(now)
                || newest.replay_guard.len() >= MAX_REPLAY_ENTRIES
                || (now.saturating_sub(newest.attested) >= MAX_OWN_ATTESTATION_AGE_SECONDS
                    && own.issued() > newest.attested)
        })
    }

    /// The generation of the newest card that was made; `None` before the first. It says nothing of whether a relay has it.
    #[must_use]
    pub fn newest_generation(&self) -> Option<u32> {
        self.generations.back().map(|newest| newest.id)
    }

    /// Erases generations that are older than 30 days (docs/protocol.md §6.1). They are not used in any case.
    pub fn expire(&mut self, now: u64) {
        self.generations
            .retain(|generation| !generation.is_too_old(now));
    }

    /// Erases all secrets, so that whatever was published before opens nothing any more. Ids go on where they were: what a device does
    /// whose store was put back to an earlier copy (docs/protocol.md §16).
    pub fn forget_secrets(&mut self) {
        self.generations.clear();
        self.one_time.clear();
    }

    /// How many one-time prekeys have secrets here, whether the relay still holds them or not.
    #[must_use]
    pub fn one_time_count(&self) -> usize {
        self.one_time.len()
    }

    /// The secrets that a first message needs, unless they are gone or the message is a repetition (docs/protocol.md §7.3, §7.4).
    pub(crate) fn for_first(
        &self,
        initiator: Thumbprint,
        first: &First<'_>,
        now: u64,
    ) -> Result<FirstSecrets<'_>, Error> {
        let generation = self
            .generations
            .iter()
            .find(|generation| generation.id == first.generation && !generation.is_too_old(now))
            .ok_or(Gone::Generation)?;
        let one_time = match first.one_time {
            Some(id) => Some(self.one_time.get(&id).ok_or(Gone::OneTimePrekey)?),
            None => {
                let guard = &generation.replay_guard;
                if guard.contains_key(&sha256(&[&first.ephemeral])) {
                    return Err(Misbehaved::Replay.into());
                }
                // §7.4: 64 of one device, so that it does not fill the guard for all others.
                let own = guard.values().filter(|from| **from == initiator).count();
                if own >= MAX_REPLAY_ENTRIES_OF_A_DEVICE {
                    return Err(Gone::TooManySessions.into());
                }
                // §7.4: at 4,096 entries such messages are refused.
                if guard.len() >= MAX_REPLAY_ENTRIES {
                    return Err(Gone::ReplayGuardFull.into());
                }
                None
            }
        };
        Ok(FirstSecrets {
            generation,
            one_time,
        })
    }

    /// What follows from a first message that has opened: its one-time prekey is erased (docs/protocol.md §6.2), or its
    /// ephemeral key remembered (§7.4).
    pub(crate) fn use_up(&mut self, initiator: Thumbprint, first: &First<'_>) {
        if let Some(id) = first.one_time {
            self.one_time.remove(&id);
        } else if let Some(generation) = self
            .generations
            .iter_mut()
            .find(|kept| kept.id == first.generation)
        {
            generation
                .replay_guard
                .insert(sha256(&[&first.ephemeral]), initiator);
        }
    }

    /// The secrets for the encrypted store, with a version number.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let entries: usize = self
            .generations
            .iter()
            .map(|generation| generation.replay_guard.len())
            .sum();
        let capacity =
            16 + self.generations.len() * 192 + entries * 64 + 2 + self.one_time.len() * 100;
        let mut out = state::begin(Kind::Prekeys, capacity);
        let mut writer = Writer::new(&mut out);
        for next in [self.next_generation, self.next_one_time] {
            // Ids start at 1, so that 0 stands for none left.
            writer.u32(next.0.unwrap_or(0));
        }
        writer.u8(state::count(self.generations.len()));
        for generation in &self.generations {
            writer
                .u32(generation.id)
                .u64(generation.issued)
                .u64(generation.attested)
                .bytes(generation.signed_prekey.to_secret().expose())
                .bytes(generation.kem.seed().expose())
                .bytes(&generation.card_hash)
                .bytes(&generation.attestation_hash)
                .u16(state::count(generation.replay_guard.len()));
            for (entry, initiator) in &generation.replay_guard {
                writer.bytes(entry).bytes(initiator.as_bytes());
            }
        }
        writer.u16(state::count(self.one_time.len()));
        for (id, secrets) in &self.one_time {
            writer
                .u32(*id)
                .bytes(secrets.x25519.to_secret().expose())
                .bytes(secrets.kem.seed().expose());
        }
        out
    }

    /// Restores what [`encode`](Self::encode) gave.
    ///
    /// # Errors
    /// [`Error::State`]: another version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Ok(state::restore(Kind::Prekeys, bytes, |reader| {
            let next_generation = read_next_id(reader)?;
            let next_one_time = read_next_id(reader)?;
            let mut generations = VecDeque::new();
            for _ in 0..reader.count8(0..=MAX_CARD_GENERATIONS)? {
                let generation = Generation::read(reader)?;
                state::check(next_generation.is_after(generation.id))?;
                state::check(
                    generations
                        .back()
                        .is_none_or(|last: &Generation| last.id < generation.id),
                )?;
                generations.push_back(generation);
            }
            let mut one_time = BTreeMap::new();
            for _ in 0..state::count16(reader, MAX_ONE_TIME_SECRETS)? {
                let id = reader.u32()?;
                state::check(next_one_time.is_after(id))?;
                let secrets = OneTimeSecrets {
                    x25519: X25519Secret::from_secret(&state::secret(reader)?),
                    kem: KemDecapsulationKey::from_seed(state::secret(reader)?),
                };
                state::check(one_time.insert(id, secrets).is_none())?;
            }
            Ok(Self {
                generations,
                one_time,
                next_generation,
                next_one_time,
            })
        })?)
    }
}

impl Generation {
    /// docs/protocol.md §6.1: at most 30 days.
    fn is_too_old(&self, now: u64) -> bool {
        now.saturating_sub(self.issued) > MAX_CARD_GENERATION_DAYS * DAY
    }

    /// docs/protocol.md §6.1: nobody accepts such a card.
    const fn is_in_future(&self, now: u64) -> bool {
        self.issued > now.saturating_add(CLOCK_TOLERANCE_SECONDS)
    }

    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut generation = Self {
            id: reader.u32()?,
            issued: reader.u64()?,
            attested: reader.u64()?,
            signed_prekey: X25519Secret::from_secret(&state::secret(reader)?),
            kem: KemDecapsulationKey::from_seed(state::secret(reader)?),
            card_hash: *reader.array()?,
            attestation_hash: *reader.array()?,
            replay_guard: BTreeMap::new(),
        };
        for _ in 0..state::count16(reader, MAX_REPLAY_ENTRIES)? {
            let entry = *reader.array()?;
            let initiator = Thumbprint::from_bytes(*reader.array()?);
            state::check(generation.replay_guard.insert(entry, initiator).is_none())?;
        }
        Ok(generation)
    }
}

impl NextId {
    /// Whether `id` may have been given out before.
    fn is_after(self, id: u32) -> bool {
        id != 0 && self.0.is_none_or(|next| id < next)
    }
}

fn read_next_id(reader: &mut Reader<'_>) -> Result<NextId, DecodeError> {
    Ok(NextId(Some(reader.u32()?).filter(|id| *id != 0)))
}

impl fmt::Debug for Prekeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Prekeys({} generations, {} one-time prekeys)",
            self.generations.len(),
            self.one_time.len()
        )
    }
}
