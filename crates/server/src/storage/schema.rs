//! The tables, all of them, with what their columns mean. Keys of devices are thumbprints (docs/protocol.md §1.3).
use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};

pub(crate) type DeviceId = [u8; 32];
/// What the store is: `format` (u32, big-endian).
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const META_FORMAT: &str = "format";

/// device → (user, id of the card, iat of the card in seconds, the card's compact JWS).
pub(crate) const CARDS: TableDefinition<'_, &DeviceId, (&str, u32, u64, &[u8])> =
    TableDefinition::new("cards");
/// (user, device) → `iat` of the attestation in its card, in seconds: the devices with a card.
pub(crate) const USER_DEVICES: TableDefinition<'_, (&str, &DeviceId), u64> =
    TableDefinition::new("user-devices");
/// (device, id) → one-time prekey as on the wire (docs/protocol.md §6.2).
pub(crate) const PREKEYS: TableDefinition<'_, (&DeviceId, u32), &[u8]> =
    TableDefinition::new("prekeys");
/// device → the highest id of a one-time prekey that it ever published.
pub(crate) const PREKEY_IDS: TableDefinition<'_, &DeviceId, u32> =
    TableDefinition::new("prekey-ids");

/// SHA-256 of the code → (user, expiry in seconds, device that redeemed it).
pub(crate) const INVITES: TableDefinition<'_, &[u8; 32], (&str, u64, Option<&DeviceId>)> =
    TableDefinition::new("invites");

/// device → (whose it is, when the built-in issuer enrolled it in seconds, removed). A row is made by a device's first card or its enrolment, and is for good: a
/// device does not change hands (docs/protocol.md §3.8).
pub(crate) const DEVICES: TableDefinition<'_, &DeviceId, (&str, Option<u64>, bool)> =
    TableDefinition::new("devices");

/// What is known of a device that has published a card or is enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownDevice {
    /// Whose it is, for good.
    pub(crate) user: String,
    /// When the built-in issuer enrolled it, in seconds since 1970.
    pub(crate) enrolled: Option<u64>,
    pub(crate) removed: bool,
}

impl From<(&str, Option<u64>, bool)> for KnownDevice {
    fn from((user, enrolled, removed): (&str, Option<u64>, bool)) -> Self {
        Self {
            user: user.to_owned(),
            enrolled,
            removed,
        }
    }
}

/// Every table but `meta`, open in one write transaction.
pub(crate) struct Tables<'tx> {
    pub(crate) cards: Table<'tx, &'static DeviceId, (&'static str, u32, u64, &'static [u8])>,
    pub(crate) user_devices: Table<'tx, (&'static str, &'static DeviceId), u64>,
    pub(crate) prekeys: Table<'tx, (&'static DeviceId, u32), &'static [u8]>,
    pub(crate) prekey_ids: Table<'tx, &'static DeviceId, u32>,
    pub(crate) invites:
        Table<'tx, &'static [u8; 32], (&'static str, u64, Option<&'static DeviceId>)>,
    pub(crate) devices: Table<'tx, &'static DeviceId, (&'static str, Option<u64>, bool)>,
    /// Users whose rows in `user_devices` a job has changed: for it to say.
    pub(crate) changed_users: Vec<String>,
}

impl<'tx> Tables<'tx> {
    pub(crate) fn device(&self, device: &DeviceId) -> Result<Option<KnownDevice>, redb::Error> {
        Ok(self.devices.get(device)?.map(|row| row.value().into()))
    }

    pub(super) fn open(write: &'tx WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            cards: write.open_table(CARDS)?,
            user_devices: write.open_table(USER_DEVICES)?,
            prekeys: write.open_table(PREKEYS)?,
            prekey_ids: write.open_table(PREKEY_IDS)?,
            invites: write.open_table(INVITES)?,
            devices: write.open_table(DEVICES)?,
            changed_users: Vec::new(),
        })
    }
}
