//! Who takes part in a run: users, their devices, the relay, and the issuer of their tokens.

use std::collections::BTreeMap;

use sealwire_client::{Thumbprint, TrustedIssuer};
use sealwire_protocol::base64url;
use sealwire_protocol::key::{PublicKey, Seed, SigningKey};

use super::chance::Chance;
use super::schedule::Millis;
use crate::issuer::{AUDIENCE, ISSUER};

/// When every run begins, in milliseconds since 1970.
const BEGINNING: u64 = 1_800_000_000_000;

/// Everybody, by number.
pub(super) struct Town {
    issuer: SigningKey,
    relay: SigningKey,
    users: Vec<String>,
    /// Whose each device is.
    owners: Vec<usize>,
    devices: BTreeMap<Thumbprint, usize>,
}

impl Town {
    /// Two to four users, each with one to three devices.
    pub(super) fn new(chance: &mut Chance) -> Self {
        let users = match chance.below(10) {
            0..6 => 2,
            6..9 => 3,
            _ => 4,
        };
        let owners = (0..users)
            .flat_map(|user| {
                let devices = match chance.below(10) {
                    0..6 => 1,
                    6..9 => 2,
                    _ => 3,
                };
                std::iter::repeat_n(user, devices)
            })
            .collect();
        let key = |chance: &mut Chance| SigningKey::from_seed(&Seed::new(chance.bytes32()));
        Self {
            issuer: key(chance),
            relay: key(chance),
            users: (0..users).map(|user| format!("user{user}")).collect(),
            owners,
            devices: BTreeMap::new(),
        }
    }

    /// How many devices there are.
    #[must_use]
    pub(super) fn devices(&self) -> usize {
        self.owners.len()
    }

    /// Whose each device is.
    #[must_use]
    pub(super) fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// A user's name.
    #[must_use]
    pub(super) fn user(&self, user: usize) -> &str {
        self.users.get(user).map_or("", String::as_str)
    }

    /// How many users there are.
    #[must_use]
    pub(super) fn users(&self) -> usize {
        self.users.len()
    }

    /// A device's user.
    #[must_use]
    pub(super) fn owner(&self, device: usize) -> usize {
        self.owners.get(device).copied().unwrap_or_default()
    }

    /// The devices of a user.
    pub(super) fn devices_of(&self, user: usize) -> impl Iterator<Item = usize> {
        let owned = self
            .owners
            .iter()
            .enumerate()
            .filter(move |(_, owner)| **owner == user);
        owned.map(|(device, _)| device)
    }

    /// A device has this key.
    pub(super) fn enter(&mut self, device: usize, thumbprint: Thumbprint) {
        self.devices.insert(thumbprint, device);
    }

    /// Which device has this key.
    #[must_use]
    pub(super) fn device(&self, thumbprint: &Thumbprint) -> Option<usize> {
        self.devices.get(thumbprint).copied()
    }

    /// The key of a device that has started.
    #[must_use]
    pub(super) fn thumbprint(&self, device: usize) -> Option<Thumbprint> {
        let mut devices = self.devices.iter();
        let found = devices.find(|(_, number)| **number == device);
        found.map(|(thumbprint, _)| *thumbprint)
    }

    /// The user with a name.
    #[must_use]
    pub(super) fn user_of(&self, name: &str) -> Option<usize> {
        self.users.iter().position(|user| user == name)
    }

    /// The relay's key.
    #[must_use]
    pub(super) fn relay(&self) -> &SigningKey {
        &self.relay
    }

    /// The key with which tokens verify.
    #[must_use]
    pub(super) fn issuer_key(&self) -> &PublicKey {
        self.issuer.public()
    }

    /// The issuer as devices trust it.
    ///
    /// # Errors
    /// Never: the key is one.
    pub(super) fn trusted(&self) -> Result<TrustedIssuer, sealwire_client::error::Misuse> {
        TrustedIssuer::with_key(ISSUER, AUDIENCE, self.issuer.public().as_bytes())
    }

    /// A token of a device, issued now, and when it expires, in seconds.
    #[must_use]
    pub(super) fn token(
        &self,
        device: usize,
        thumbprint: Thumbprint,
        now: Millis,
        seconds: u64,
    ) -> (String, u64) {
        let (user, issued) = (self.user(self.owner(device)), clock(now, 0) / 1_000);
        let expires = issued + seconds;
        let header = base64url::encode(br#"{"alg":"EdDSA","typ":"at+jwt"}"#);
        let claims = format!(
            r#"{{"iss":"{ISSUER}","sub":"{user}","aud":"{AUDIENCE}","iat":{issued},"exp":{expires},"cnf":{{"jkt":"{thumbprint}"}},"scope":"sealwire:send sealwire:receive sealwire:publish"}}"#
        );
        let input = format!("{header}.{}", base64url::encode(claims.as_bytes()));
        let signature = base64url::encode(&self.issuer.sign(input.as_bytes()));
        (format!("{input}.{signature}"), expires)
    }
}

/// What a clock that is off by `offset` milliseconds shows, in milliseconds since 1970.
#[must_use]
pub(super) fn clock(now: Millis, offset: i64) -> u64 {
    BEGINNING.saturating_add(now).saturating_add_signed(offset)
}
