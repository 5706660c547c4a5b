//! Takes over the store of an older version, in one transaction with the new format: a crash leaves either the old store, whole, or the new one.
//!
//! ```text
//!  3 ──► 4    enrolled, and the cards of devices that nobody enrolled ──► devices
//! ```
use redb::{Database, ReadableTable as _, TableDefinition};

use super::FORMAT_VERSION;
use super::schema::{DeviceId, META, META_FORMAT, Tables};

/// The format that is taken over.
pub(super) const OLDER_FORMAT: u32 = 3;

/// device → (user, enrolled at in seconds or 0, removed).
const ENROLLED: TableDefinition<'_, &DeviceId, (&str, u64, bool)> =
    TableDefinition::new("enrolled");

/// Makes a store of [`OLDER_FORMAT`] one of [`FORMAT_VERSION`].
pub(super) fn upgrade(database: &Database) -> Result<(), redb::Error> {
    let write = database.begin_write()?;
    {
        let mut tables = Tables::open(&write)?;
        for entry in write.open_table(ENROLLED)?.iter()? {
            let (device, row) = entry?;
            let (user, enrolled, removed) = row.value();
            let enrolled = (enrolled != 0).then_some(enrolled);
            tables
                .devices
                .insert(device.value(), (user, enrolled, removed))?;
        }
        tables.own_cards()?;
        write
            .open_table(META)?
            .insert(META_FORMAT, FORMAT_VERSION.to_be_bytes().as_slice())?;
    }
    write.delete_table(ENROLLED)?;
    write.commit()?;
    Ok(())
}

impl Tables<'_> {
    /// A device is its card's user's, unless it was enrolled for another one: such a card is withdrawn.
    fn own_cards(&mut self) -> Result<(), redb::Error> {
        let mut withdrawn = Vec::new();
        for entry in self.cards.iter()? {
            let (device, row) = entry?;
            let user = row.value().0;
            let device = *device.value();
            match self.device(&device)? {
                None => drop(self.devices.insert(&device, (user, None, false))?),
                Some(known) if known.user != user => withdrawn.push((user.to_owned(), device)),
                Some(_) => {}
            }
        }
        for (user, device) in withdrawn {
            self.cards.remove(&device)?;
            self.user_devices.remove((user.as_str(), &device))?;
        }
        Ok(())
    }
}
