//! The secrets behind this device's cards and one-time prekeys (docs/protocol.md §6).
//!
//! ```text
//! publish ── card ──> relay          a first message ──> secrets of its generation, and of its one-time prekey
//! publish_one_time ── prekeys ──> relay                  once it has opened: the one-time prekey is erased
//! ```
//!
//! A generation is one card's secrets. The last 8 are kept, for at most 30 days (§6.1).

use alloc::{string::String, vec::Vec};

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::{
    device::{DeviceKeys, OwnIdentity},
    error::Error,
    one_time::OneTimePrekey,
};

/// All prekey secrets of this device.
#[derive(Debug, Default)]
pub struct Prekeys {
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
    /// [`Misuse::IdsExhausted`](crate::error::Misuse::IdsExhausted).
    pub fn publish(
        &mut self,
        _keys: &DeviceKeys,
        _own: &OwnIdentity,
        _rng: &mut (impl CryptoRng + ?Sized),
        _now: u64,
    ) -> Result<String, Error> {
        todo!()
    }

    /// Makes `count` one-time prekeys, to publish: at most 100 at once. Store the state first.
    ///
    /// # Errors
    /// [`Misuse::IdsExhausted`](crate::error::Misuse::IdsExhausted).
    pub fn publish_one_time(
        &mut self,
        _keys: &DeviceKeys,
        _count: u8,
        _rng: &mut (impl CryptoRng + ?Sized),
    ) -> Result<Vec<OneTimePrekey>, Error> {
        todo!()
    }

    /// Whether a new card is due: there is none, the newest is 7 days old (docs/protocol.md §6.1), was made with another
    /// attestation than `own`, or its replay guard is full (§7.4).
    #[must_use]
    pub fn needs_new_card(&self, _own: &OwnIdentity, _now: u64) -> bool {
        todo!()
    }

    /// Erases generations that are older than 30 days (docs/protocol.md §6.1). Every other call that has the time does too.
    pub fn expire(&mut self, _now: u64) {
        todo!()
    }

    /// How many one-time prekeys have secrets here, whether the relay still holds them or not.
    #[must_use]
    pub fn one_time_count(&self) -> usize {
        todo!()
    }

    /// The secrets for the encrypted store, with a version number.
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
