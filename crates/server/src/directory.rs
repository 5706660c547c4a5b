//! Which devices a user has, their cards and their one-time prekeys (docs/protocol.md §6).
//!
//! ```text
//!  publish_card ──► cards, user-devices ──► devices, cards
//!  publish_prekeys ──► prekeys ──► cards(take): each removed durably, then handed out, once
//! ```
//!
//! Signatures and attestations are checked before, by the link: what comes here is a card of the link's own device and user. What is
//! checked here is what needs memory: no rollback, no second use of an id, the numbers of devices and prekeys.
use redb::ReadableTable;
use sealwire_protocol::{
    close::RefusalCode, key::Thumbprint, limits, name::User, token::TokenClaims,
};

use crate::card_check;
use crate::storage::{CARDS, DEVICES, DeviceId, PREKEYS, Storage, StorageError, Tables};

/// Bytes of a one-time prekey on the wire (docs/protocol.md §6.2).
pub const PREKEY_BYTES: usize = 4 + 32 + 1_184 + 64;

/// The directory of cards and prekeys. Clones share the store.
#[derive(Debug, Clone)]
pub struct Directory {
    storage: Storage,
}

/// A card that the link has verified (docs/protocol.md §6.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedCard {
    /// `id`: the generation.
    pub id: u32,
    /// `iat`, in seconds since 1970.
    pub issued: u64,
    /// `iat` of the attestation in it, in seconds since 1970.
    pub attested: u64,
    /// The compact JWS, 1 to 16,384 bytes.
    pub card: Vec<u8>,
}

/// A one-time prekey whose signature the link has verified (docs/protocol.md §6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPrekey {
    /// Its id.
    pub id: u32,
    /// All of it as on the wire, with the id: [`PREKEY_BYTES`].
    pub prekey: Vec<u8>,
}

/// What publishing a card changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Whether the user has a device more than before, a new one or one that is back after its attestation lapsed: then the
    /// user's other devices are told.
    pub new_device: bool,
}

/// A device as FetchCards gives it (docs/protocol.md §5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceEntry {
    /// The device.
    pub device: Thumbprint,
    /// Its card, as published.
    pub card: Vec<u8>,
    /// A one-time prekey, as on the wire. Nobody else gets this one.
    pub prekey: Option<Vec<u8>>,
    /// One-time prekeys that are left.
    pub prekeys_left: usize,
}

/// What a device has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedState {
    /// Whether there is a card.
    pub has_card: bool,
    /// One-time prekeys that are stored.
    pub prekeys: usize,
}

/// Whether a device may have a link as a user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// It was removed, whosever it was.
    Removed,
    /// It is the device of somebody else (docs/protocol.md §3).
    AnotherUsers,
}

/// Why a card or prekeys were not stored. Nothing has changed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The card's `id` or `iat` is not after that of the card before (docs/protocol.md §6.1).
    #[error("the card is not newer than the device's last one; publish one with a higher id")]
    NotNewer,
    /// The device is another user's (docs/protocol.md §3).
    #[error("the device belongs to another user; use a device key of its own for each user")]
    AnotherUser,
    /// A card or a prekey is not of the protocol's size, or a list of prekeys names an id twice.
    #[error("the card or a prekey is not of the protocol's form")]
    Form,
    /// An id of a one-time prekey is not higher than every earlier one (docs/protocol.md §6.2).
    #[error("a one-time prekey's id has been used before; ids have to increase")]
    PrekeyIdUsed,
    /// The device has been removed (docs/protocol.md §5.2); whatever of it is still under way comes too late.
    #[error("the device has been removed; join again with a new device key")]
    Removed,
    /// The user has 16 devices.
    #[error("the user has 16 devices already; remove one first")]
    TooManyDevices,
    /// More than 100 one-time prekeys would be stored.
    #[error("more than 100 one-time prekeys would be stored; publish fewer")]
    TooManyPrekeys,
    /// The store does not work.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl PublishError {
    /// What the device is told (docs/protocol.md §5.3).
    #[must_use]
    pub fn refusal(self) -> RefusalCode {
        match self {
            Self::NotNewer | Self::AnotherUser | Self::Form | Self::PrekeyIdUsed => {
                RefusalCode::InvalidCard
            }
            Self::Removed => RefusalCode::NotPermitted,
            Self::TooManyDevices | Self::TooManyPrekeys => RefusalCode::TooMany,
            Self::Storage(_) => RefusalCode::Unavailable,
        }
    }
}

impl Directory {
    /// The directory in `storage`.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Stores the card of `device`, in place of an older one, and returns once it is durable. The very card that is stored already
    /// is accepted again.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish_card(
        &self,
        user: &User,
        device: &Thumbprint,
        card: VerifiedCard,
    ) -> Result<Published, PublishError> {
        if !(1..=limits::MAX_CARD_BYTES).contains(&card.card.len()) {
            return Err(PublishError::Form);
        }
        let (user, device) = (user.clone(), *device.as_bytes());
        self.storage
            .write(card.card.len(), move |tables| {
                tables.publish_card(&user, &device, &card)
            })
            .await?
    }

    /// Stores one-time prekeys of `device`, all or none, and returns once they are durable. A prekey that is stored already, byte
    /// for byte, is accepted again; any other id has to be higher than every id that the device ever published.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish_prekeys(
        &self,
        device: &Thumbprint,
        prekeys: Vec<VerifiedPrekey>,
    ) -> Result<(), PublishError> {
        self.store_prekeys(device, prekeys, false).await
    }

    /// As [`Directory::publish_prekeys`], and forgets every other that is stored: their secrets are gone (docs/protocol.md §6.2).
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn replace_prekeys(
        &self,
        device: &Thumbprint,
        prekeys: Vec<VerifiedPrekey>,
    ) -> Result<(), PublishError> {
        self.store_prekeys(device, prekeys, true).await
    }

    async fn store_prekeys(
        &self,
        device: &Thumbprint,
        mut prekeys: Vec<VerifiedPrekey>,
        replace: bool,
    ) -> Result<(), PublishError> {
        prekeys.sort_by_key(|prekey| prekey.id);
        let distinct = prekeys
            .iter()
            .zip(prekeys.iter().skip(1))
            .all(|(one, next)| one.id != next.id);
        let well_formed = prekeys.iter().all(|prekey| {
            prekey.prekey.len() == PREKEY_BYTES
                && prekey.prekey.starts_with(&prekey.id.to_be_bytes())
        });
        if prekeys.is_empty()
            || prekeys.len() > limits::MAX_PUBLISHED_PREKEYS
            || !distinct
            || !well_formed
        {
            return Err(PublishError::Form);
        }
        let device = *device.as_bytes();
        self.storage
            .write(prekeys.len() * PREKEY_BYTES, move |tables| {
                tables.publish_prekeys(&device, &prekeys, replace)
            })
            .await?
    }

    /// The devices of `user` at `now`, in seconds since 1970: those with a card whose attestation others still accept
    /// (docs/protocol.md §2.3, §5.2), in the order of thumbprints, never more than 16 (§12). Empty for a user that nobody has heard of.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub fn devices(&self, user: &User, now: u64) -> Result<Vec<Thumbprint>, StorageError> {
        let devices = self.storage.user_devices(user.as_str())?;
        // Clocks of an issuer and of the relay that differ could make one too many, for minutes.
        Ok(devices
            .iter()
            .filter(|(_, attested)| is_current(*attested, now))
            .take(limits::MAX_DEVICES)
            .map(|(device, _)| Thumbprint::from_bytes(*device))
            .collect())
    }

    /// Whether there is a device, which was not removed.
    pub(crate) fn is_known(&self, device: &Thumbprint) -> Result<bool, StorageError> {
        let known = self.storage.device(device)?;
        Ok(known.is_some_and(|known| !known.removed))
    }

    /// Whether a device that has proved its key may have a link as the device of `user`.
    pub(crate) fn standing(
        &self,
        device: &Thumbprint,
        user: &User,
    ) -> Result<Standing, StorageError> {
        Ok(match self.storage.device(device)? {
            Some(known) if known.removed => Standing::Removed,
            Some(known) if known.user != user.as_str() => Standing::AnotherUsers,
            Some(_) | None => Standing::Good,
        })
    }

    /// Every device of `user` that has a card, also those that are not current.
    pub(crate) fn all_devices(&self, user: &User) -> Result<Vec<Thumbprint>, StorageError> {
        let devices = self.storage.user_devices(user.as_str())?;
        let devices = devices.iter();
        Ok(devices
            .map(|(device, _)| Thumbprint::from_bytes(*device))
            .collect())
    }

    /// Whether a device was removed ([`Directory::remove`]): a token that it still has, whoever issued it, is not to let it in.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub fn is_removed(&self, device: &Thumbprint) -> Result<bool, StorageError> {
        let known = self.storage.device(device)?;
        Ok(known.is_some_and(|known| known.removed))
    }

    /// Whether a device was removed that was `user`'s: who does not know whether it was done asks again.
    pub(crate) fn was_removed_of(
        &self,
        device: &Thumbprint,
        user: &User,
    ) -> Result<bool, StorageError> {
        let known = self.storage.device(device)?;
        Ok(known.is_some_and(|known| known.removed && known.user == user.as_str()))
    }

    /// Devices that were removed, so that what a crash left of one is found.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub(crate) fn removed(&self) -> Result<Vec<Thumbprint>, StorageError> {
        self.storage.read(|read| {
            let mut removed = Vec::new();
            for entry in read.open_table(DEVICES)?.iter()? {
                let (device, row) = entry?;
                if row.value().2 {
                    removed.push(Thumbprint::from_bytes(*device.value()));
                }
            }
            Ok(removed)
        })
    }

    /// What `device` has published, for Ready (docs/protocol.md §5.2).
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub fn published(&self, device: &Thumbprint) -> Result<PublishedState, StorageError> {
        let id = device.as_bytes();
        self.storage.read(|read| {
            let has_card = read.open_table(CARDS)?.get(id)?.is_some();
            let prekeys = count(read.open_table(PREKEYS)?.range((id, 0)..=(id, u32::MAX))?)?;
            Ok(PublishedState { has_card, prekeys })
        })
    }

    /// The cards of all devices of `user` at `now` but `except`. With `take`, each device that has a one-time prekey left gives its oldest:
    /// it has been removed durably when this returns, so that no crash hands it out a second time.
    ///
    /// # Errors
    /// [`StorageError`].
    pub async fn cards(
        &self,
        user: &User,
        take: bool,
        except: Option<&Thumbprint>,
        now: u64,
    ) -> Result<Vec<DeviceEntry>, StorageError> {
        let except = except.copied();
        let devices = self
            .devices(user, now)?
            .into_iter()
            .filter(|device| Some(*device) != except);
        if take {
            let devices = devices.collect::<Vec<_>>();
            if devices.is_empty() {
                return Ok(Vec::new());
            }
            return self
                .storage
                .write(devices.len() * limits::MAX_CARD_BYTES, move |tables| {
                    tables.take(devices)
                })
                .await;
        }
        self.storage.read(|read| {
            let (cards, prekeys) = (read.open_table(CARDS)?, read.open_table(PREKEYS)?);
            let mut entries = Vec::new();
            for device in devices {
                let id = device.as_bytes();
                let Some(card) = cards.get(id)? else { continue };
                let prekeys_left = count(prekeys.range((id, 0)..=(id, u32::MAX))?)?;
                entries.push(DeviceEntry {
                    device,
                    card: card.value().3.to_vec(),
                    prekey: None,
                    prekeys_left,
                });
            }
            Ok(entries)
        })
    }

    /// Removes `device` for good, if it is one of `of` where that is given: its card and prekeys are forgotten, its ids stay used, it publishes nothing more,
    /// and the built-in issuer gives it no more tokens and never enrols it again. Returns whose device it was, or `None` if there is no such device.
    ///
    /// Its live link and its mailbox are for the caller.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn remove(
        &self,
        device: &Thumbprint,
        of: Option<&User>,
    ) -> Result<Option<User>, StorageError> {
        let (device, of) = (*device.as_bytes(), of.cloned());
        self.storage
            .write(0, move |tables| tables.remove_device(&device, of.as_ref()))
            .await
    }

    /// Takes away the cards whose attestation is `covered`; their devices may publish newer ones. Looks at every card, on a thread of its own. Returns
    /// whose they were.
    pub(crate) async fn withdraw(
        &self,
        covered: impl Fn(&TokenClaims) -> bool + Send + 'static,
    ) -> Result<Vec<(User, Thumbprint)>, StorageError> {
        let storage = self.storage.clone();
        let find = move || {
            storage.read(|read| {
                let mut found = Vec::new();
                for entry in read.open_table(CARDS)?.iter()? {
                    let (device, row) = entry?;
                    let (_, id, _, card) = row.value();
                    if card_check::attestation_of(card).is_ok_and(|claims| covered(&claims)) {
                        found.push((*device.value(), id));
                    }
                }
                Ok(found)
            })
        };
        let found = tokio::task::spawn_blocking(find).await;
        let found = found.map_err(|_| StorageError::Unreadable)??;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        self.storage
            .write(0, move |tables| tables.withdraw(&found))
            .await
    }

    /// Takes away the card of a device, if it is still the one with this id.
    pub(crate) async fn withdraw_card(
        &self,
        device: &Thumbprint,
        id: u32,
    ) -> Result<(), StorageError> {
        let found = [(*device.as_bytes(), id)];
        self.storage
            .write(0, move |tables| tables.withdraw(&found).map(drop))
            .await
    }
}

impl Tables<'_> {
    fn publish_card(
        &mut self,
        user: &User,
        device: &DeviceId,
        new: &VerifiedCard,
    ) -> Result<Result<Published, PublishError>, redb::Error> {
        let user = user.as_str();
        let known = self.device(device)?;
        match &known {
            Some(known) if known.removed => return Ok(Err(PublishError::Removed)),
            Some(known) if known.user != user => return Ok(Err(PublishError::AnotherUser)),
            Some(_) | None => {}
        }
        if let Some(stored) = self.cards.get(device)? {
            let (_, id, issued, card) = stored.value();
            if card == new.card {
                return Ok(Ok(Published { new_device: false }));
            }
            // docs/protocol.md §6.1: the id increases, and neither id nor iat is ever rolled back.
            if new.id <= id || new.issued < issued {
                return Ok(Err(PublishError::NotNewer));
            }
        }
        // docs/protocol.md §12. A device that has been away too long does not count, so it needs a place when it comes back.
        let was_current = self
            .user_devices
            .get((user, device))?
            .is_some_and(|attested| is_current(attested.value(), new.attested));
        let new_device = !was_current;
        if new_device && self.current_devices(user, new.attested)? >= limits::MAX_DEVICES {
            return Ok(Err(PublishError::TooManyDevices));
        }
        if known.is_none() {
            self.devices.insert(device, (user, None, false))?;
        }
        self.cards
            .insert(device, (user, new.id, new.issued, new.card.as_slice()))?;
        self.user_devices.insert((user, device), new.attested)?;
        self.changed_users.push(user.to_owned());
        Ok(Ok(Published { new_device }))
    }

    fn current_devices(&self, user: &str, now: u64) -> Result<usize, redb::Error> {
        let mut current = 0;
        for entry in self
            .user_devices
            .range((user, &[0; 32])..=(user, &[0xff; 32]))?
        {
            current += usize::from(is_current(entry?.1.value(), now));
        }
        Ok(current)
    }

    fn publish_prekeys(
        &mut self,
        device: &DeviceId,
        prekeys: &[VerifiedPrekey],
        replace: bool,
    ) -> Result<Result<(), PublishError>, redb::Error> {
        if self.device(device)?.is_some_and(|known| known.removed) {
            return Ok(Err(PublishError::Removed));
        }
        let highest = self.prekey_ids.get(device)?.map(|id| id.value());
        let mut new = Vec::with_capacity(prekeys.len());
        for prekey in prekeys {
            let stored = self.prekeys.get((device, prekey.id))?;
            if stored.is_some_and(|stored| stored.value() == prekey.prekey) {
                continue;
            }
            // docs/protocol.md §6.2
            if highest.is_some_and(|highest| prekey.id <= highest) {
                return Ok(Err(PublishError::PrekeyIdUsed));
            }
            new.push(prekey);
        }
        let all = (device, 0)..=(device, u32::MAX);
        if replace {
            let kept: Vec<u32> = prekeys.iter().map(|prekey| prekey.id).collect();
            // Sorted by the caller; what is stored under one of these ids is the same prekey.
            self.prekeys
                .retain_in(all, |(_, id), _| kept.binary_search(&id).is_ok())?;
        } else if count(self.prekeys.range(all)?)? + new.len() > limits::MAX_STORED_PREKEYS {
            return Ok(Err(PublishError::TooManyPrekeys));
        }
        for prekey in new {
            self.prekeys
                .insert((device, prekey.id), prekey.prekey.as_slice())?;
            self.prekey_ids.insert(device, prekey.id)?;
        }
        Ok(Ok(()))
    }

    fn take(&mut self, devices: Vec<Thumbprint>) -> Result<Vec<DeviceEntry>, redb::Error> {
        let mut entries = Vec::with_capacity(devices.len());
        for device in devices {
            let id = device.as_bytes();
            let Some(card) = self.cards.get(id)?.map(|card| card.value().3.to_vec()) else {
                continue;
            };
            let oldest = match self.prekeys.range((id, 0)..=(id, u32::MAX))?.next() {
                Some(entry) => Some(entry?.0.value().1),
                None => None,
            };
            let prekey = match oldest {
                Some(oldest) => self
                    .prekeys
                    .remove((id, oldest))?
                    .map(|prekey| prekey.value().to_vec()),
                None => None,
            };
            let prekeys_left = count(self.prekeys.range((id, 0)..=(id, u32::MAX))?)?;
            entries.push(DeviceEntry {
                device,
                card,
                prekey,
                prekeys_left,
            });
        }
        Ok(entries)
    }

    fn withdraw(
        &mut self,
        found: &[(DeviceId, u32)],
    ) -> Result<Vec<(User, Thumbprint)>, redb::Error> {
        let mut withdrawn = Vec::new();
        for (device, id) in found {
            let user = match self.cards.get(device)? {
                Some(row) if row.value().1 == *id => row.value().0.to_owned(),
                Some(_) | None => continue,
            };
            self.cards.remove(device)?;
            self.user_devices.remove((user.as_str(), device))?;
            if let Ok(user) = User::new(&user) {
                withdrawn.push((user, Thumbprint::from_bytes(*device)));
            }
            self.changed_users.push(user);
        }
        Ok(withdrawn)
    }

    fn remove_device(
        &mut self,
        device: &DeviceId,
        of: Option<&User>,
    ) -> Result<Option<User>, redb::Error> {
        let Some(known) = self.device(device)?.filter(|known| !known.removed) else {
            return Ok(None);
        };
        let Some(owner) = User::new(&known.user).ok() else {
            return Ok(None);
        };
        if of.is_some_and(|of| *of != owner) {
            return Ok(None);
        }
        let user = owner.as_str();
        self.devices.insert(device, (user, known.enrolled, true))?;
        if self.cards.remove(device)?.is_some() {
            self.user_devices.remove((user, device))?;
            self.changed_users.push(user.to_owned());
        }
        self.prekeys
            .retain_in((device, 0)..=(device, u32::MAX), |_, _| false)?;
        Ok(Some(owner))
    }
}

/// Whether others still accept an attestation of this age. A device whose is older has been away: nobody can write to it, and it must
/// not keep them from writing to the user's other devices.
pub(crate) fn is_current(attested: u64, now: u64) -> bool {
    now.saturating_sub(attested) <= limits::MAX_ATTESTATION_AGE_SECONDS
}

/// How many rows there are. A range on a disk that fails gives errors without end, so the first one ends it.
fn count<R>(
    mut rows: impl Iterator<Item = Result<R, redb::StorageError>>,
) -> Result<usize, redb::StorageError> {
    rows.try_fold(0, |count, row| row.map(|_| count + 1))
}

#[cfg(test)]
mod tests;
