//! The tables, all of them, with what their columns mean. Keys of devices are thumbprints (docs/protocol.md §1.3).
use redb::{Table, TableDefinition, WriteTransaction};

pub(crate) type DeviceId = [u8; 32];
/// Sending device, message id, recipient device (docs/protocol.md §5.2).
pub(crate) type SendKey = [u8; 80];

/// What the store is: `format` (u32, big-endian) and `epoch` (16 bytes).
pub(crate) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const META_FORMAT: &str = "format";
pub(crate) const META_EPOCH: &str = "epoch";

/// (device, position) → record (see `mailbox/record.rs`).
pub(crate) const MAIL: TableDefinition<'_, (&DeviceId, u64), &[u8]> = TableDefinition::new("mail");
/// (expiry in ms, device, position) → nothing: the order in which mail grows too old.
pub(crate) const MAIL_EXPIRY: TableDefinition<'_, (u64, &DeviceId, u64), ()> =
    TableDefinition::new("mail-expiry");
/// device → (acknowledged, head, messages held, bytes held). Never removed, so that no position is ever used twice.
pub(crate) const MAILBOXES: TableDefinition<'_, &DeviceId, (u64, u64, u64, u64)> =
    TableDefinition::new("mailboxes");
/// (device, user as UTF-8) → (messages, bytes) held for the device from that user.
pub(crate) const MAIL_FROM: TableDefinition<'_, (&DeviceId, &[u8]), (u64, u64)> =
    TableDefinition::new("mail-from");
/// device → (messages, bytes, seconds) that its own token allows it to have held.
pub(crate) const MAILBOX_LIMITS: TableDefinition<'_, &DeviceId, (u64, u64, u64)> =
    TableDefinition::new("mailbox-limits");
/// What has been accepted and must not be delivered again.
pub(crate) const SENT: TableDefinition<'_, &SendKey, ()> = TableDefinition::new("sent");
/// (expiry in ms, key in `sent`) → nothing; written when the message is no longer held.
pub(crate) const SENT_EXPIRY: TableDefinition<'_, (u64, &SendKey), ()> =
    TableDefinition::new("sent-expiry");

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
/// device → (user, enrolled at in seconds, removed).
pub(crate) const ENROLLED: TableDefinition<'_, &DeviceId, (&str, u64, bool)> =
    TableDefinition::new("enrolled");

/// Every table but `meta`, open in one write transaction.
pub(crate) struct Tables<'tx> {
    pub(crate) mail: Table<'tx, (&'static DeviceId, u64), &'static [u8]>,
    pub(crate) mail_expiry: Table<'tx, (u64, &'static DeviceId, u64), ()>,
    pub(crate) mailboxes: Table<'tx, &'static DeviceId, (u64, u64, u64, u64)>,
    pub(crate) mail_from: Table<'tx, (&'static DeviceId, &'static [u8]), (u64, u64)>,
    pub(crate) mailbox_limits: Table<'tx, &'static DeviceId, (u64, u64, u64)>,
    pub(crate) sent: Table<'tx, &'static SendKey, ()>,
    pub(crate) sent_expiry: Table<'tx, (u64, &'static SendKey), ()>,
    pub(crate) cards: Table<'tx, &'static DeviceId, (&'static str, u32, u64, &'static [u8])>,
    pub(crate) user_devices: Table<'tx, (&'static str, &'static DeviceId), u64>,
    pub(crate) prekeys: Table<'tx, (&'static DeviceId, u32), &'static [u8]>,
    pub(crate) prekey_ids: Table<'tx, &'static DeviceId, u32>,
    pub(crate) invites:
        Table<'tx, &'static [u8; 32], (&'static str, u64, Option<&'static DeviceId>)>,
    pub(crate) enrolled: Table<'tx, &'static DeviceId, (&'static str, u64, bool)>,
}

impl<'tx> Tables<'tx> {
    pub(super) fn open(write: &'tx WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            mail: write.open_table(MAIL)?,
            mail_expiry: write.open_table(MAIL_EXPIRY)?,
            mailboxes: write.open_table(MAILBOXES)?,
            mail_from: write.open_table(MAIL_FROM)?,
            mailbox_limits: write.open_table(MAILBOX_LIMITS)?,
            sent: write.open_table(SENT)?,
            sent_expiry: write.open_table(SENT_EXPIRY)?,
            cards: write.open_table(CARDS)?,
            user_devices: write.open_table(USER_DEVICES)?,
            prekeys: write.open_table(PREKEYS)?,
            prekey_ids: write.open_table(PREKEY_IDS)?,
            invites: write.open_table(INVITES)?,
            enrolled: write.open_table(ENROLLED)?,
        })
    }
}
