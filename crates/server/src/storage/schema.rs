//! The tables, all of them, with what their columns mean. Keys of devices are thumbprints (docs/protocol.md §1.3).
use redb::{Table, TableDefinition, WriteTransaction};

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
/// device → (user, enrolled at in seconds, removed). One that was removed has a row whoever enrolled it.
pub(crate) const ENROLLED: TableDefinition<'_, &DeviceId, (&str, u64, bool)> =
    TableDefinition::new("enrolled");

/// Every table but `meta`, open in one write transaction.
pub(crate) struct Tables<'tx> {
    pub(crate) cards: Table<'tx, &'static DeviceId, (&'static str, u32, u64, &'static [u8])>,
    pub(crate) user_devices: Table<'tx, (&'static str, &'static DeviceId), u64>,
    pub(crate) prekeys: Table<'tx, (&'static DeviceId, u32), &'static [u8]>,
    pub(crate) prekey_ids: Table<'tx, &'static DeviceId, u32>,
    pub(crate) invites:
        Table<'tx, &'static [u8; 32], (&'static str, u64, Option<&'static DeviceId>)>,
    pub(crate) enrolled: Table<'tx, &'static DeviceId, (&'static str, u64, bool)>,
    /// Users whose rows in `user_devices` a job has changed: for it to say.
    pub(crate) changed_users: Vec<String>,
}

impl<'tx> Tables<'tx> {
    pub(super) fn open(write: &'tx WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            cards: write.open_table(CARDS)?,
            user_devices: write.open_table(USER_DEVICES)?,
            prekeys: write.open_table(PREKEYS)?,
            prekey_ids: write.open_table(PREKEY_IDS)?,
            invites: write.open_table(INVITES)?,
            enrolled: write.open_table(ENROLLED)?,
            changed_users: Vec::new(),
        })
    }
}
