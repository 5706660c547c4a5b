//! What is in a store, row by row in a file, so that it can be copied while the relay goes on, from one read transaction and without room for a second
//! database.
//!
//! ```text
//! file   opaque magic[16]; table…; u8 0
//! table  vec8 name<1..255>; row…; u32 0xffffffff
//! row    u32 length; opaque key[length]; u32 length; opaque value[length]      as redb encodes them
//! ```
//! One-time prekeys are not in it: each is given out once, also where a copy is put back. Devices publish new ones when they connect.
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use redb::backends::FileBackend;
use redb::{
    Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition, Value,
};

use super::{
    CARDS, DEVICES, INVITES, OpenError, PREKEY_IDS, STORE_FILE, Storage, StorageOptions, Tables,
    USER_DEVICES, open_database, open_private,
};

const MAGIC: &[u8; 16] = b"sealwire rows 1\n";
const END_OF_TABLE: u32 = u32::MAX;
/// Bytes of a key or a value; a card has 16 KiB.
const MAX_BYTES: u32 = 1 << 20;

/// A store at one moment.
pub(crate) struct Rows(ReadTransaction);

impl Storage {
    /// The store as of the last commit. What was stored since stays on the disk beside what was there before, for as long as this is kept.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn rows(&self) -> io::Result<Rows> {
        let read = self.inner.database.begin_read();
        read.map(Rows).map_err(io::Error::other)
    }
}

impl Rows {
    /// Writes all rows.
    ///
    /// # Errors
    /// Those of the disk, and of `to`.
    pub(crate) fn write(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(MAGIC)?;
        // redb panics on some pages that a disk has changed.
        let written = catch_unwind(AssertUnwindSafe(|| {
            self.write_table(CARDS, to)?;
            self.write_table(USER_DEVICES, to)?;
            self.write_table(PREKEY_IDS, to)?;
            self.write_table(INVITES, to)?;
            self.write_table(DEVICES, to)
        }));
        written.map_err(|_| io::Error::other("the store is damaged"))??;
        to.write_all(&[0])
    }

    fn write_table<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'_, K, V>,
        to: &mut impl Write,
    ) -> io::Result<()> {
        use redb::TableHandle as _;
        let name = table.name();
        to.write_all(&[u8::try_from(name.len()).map_err(io::Error::other)?])?;
        to.write_all(name.as_bytes())?;
        let rows = self.0.open_table(table).map_err(io::Error::other)?;
        for row in rows.iter().map_err(io::Error::other)? {
            let (key, value) = row.map_err(io::Error::other)?;
            write_bytes(to, K::as_bytes(&key.value()).as_ref())?;
            write_bytes(to, V::as_bytes(&value.value()).as_ref())?;
        }
        to.write_all(&END_OF_TABLE.to_be_bytes())
    }
}

fn write_bytes(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)
}

/// Makes a store in `dir`, where there is none, with the rows that `from` has.
///
/// # Errors
/// [`OpenError`].
pub(crate) fn restore(dir: &Path, from: &mut impl Read) -> Result<(), OpenError> {
    let path = dir.join(STORE_FILE);
    let failed = |error| OpenError::File {
        path: path.clone(),
        error,
    };
    let file = open_private(&path).map_err(failed)?;
    let backend = FileBackend::new(file);
    let backend = backend.map_err(|error| OpenError::from_database(error, &path))?;
    let database = open_database(backend, &StorageOptions::default(), &path)?;
    let read = catch_unwind(AssertUnwindSafe(|| {
        let write = database.begin_write().map_err(io::Error::other)?;
        read_tables(&mut Tables::open(&write).map_err(io::Error::other)?, from)?;
        write.commit().map_err(io::Error::other)
    }));
    read.unwrap_or_else(|_| Err(malformed())).map_err(failed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the rows are not of their form")
}

fn read_tables(tables: &mut Tables<'_>, from: &mut impl Read) -> io::Result<()> {
    use redb::TableHandle as _;
    if read_array(from)? != *MAGIC {
        return Err(malformed());
    }
    loop {
        let [length] = read_array(from)?;
        if length == 0 {
            return Ok(());
        }
        let mut name = vec![0; usize::from(length)];
        from.read_exact(&mut name)?;
        let is = |table: &str| table.as_bytes() == name;
        if is(CARDS.name()) {
            read_table(&mut tables.cards, from)?;
        } else if is(USER_DEVICES.name()) {
            read_table(&mut tables.user_devices, from)?;
        } else if is(PREKEY_IDS.name()) {
            read_table(&mut tables.prekey_ids, from)?;
        } else if is(INVITES.name()) {
            read_table(&mut tables.invites, from)?;
        } else if is(DEVICES.name()) {
            read_table(&mut tables.devices, from)?;
        } else {
            return Err(malformed());
        }
    }
}

fn read_table<K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    from: &mut impl Read,
) -> io::Result<()> {
    loop {
        let length = u32::from_be_bytes(read_array(from)?);
        if length == END_OF_TABLE {
            return Ok(());
        }
        let key = read_bytes(from, length)?;
        let length = u32::from_be_bytes(read_array(from)?);
        let value = read_bytes(from, length)?;
        table
            .insert(K::from_bytes(&key), V::from_bytes(&value))
            .map_err(io::Error::other)?;
    }
}

fn read_array<const N: usize>(from: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_bytes(from: &mut impl Read, length: u32) -> io::Result<Vec<u8>> {
    if length > MAX_BYTES {
        return Err(malformed());
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use redb::ReadableTableMetadata as _;

    use super::*;
    use crate::storage::PREKEYS;

    async fn filled() -> Vec<u8> {
        let storage = Storage::in_memory().unwrap();
        let fill = |tables: &mut Tables<'_>| {
            for number in 0..40_u8 {
                let (device, user) = ([number; 32], format!("user-{number}"));
                let user = user.as_str();
                tables
                    .cards
                    .insert(&device, (user, 7, 8, b"card".as_slice()))?;
                tables.user_devices.insert((user, &device), 9)?;
                tables.prekeys.insert((&device, 1), b"prekey".as_slice())?;
                tables.prekey_ids.insert(&device, 1)?;
                tables.invites.insert(&device, (user, 10, Some(&[1; 32])))?;
                tables
                    .devices
                    .insert(&device, (user, None, number % 2 == 0))?;
            }
            Ok(())
        };
        storage.write(0, fill).await.unwrap();
        let mut rows = Vec::new();
        storage.rows().unwrap().write(&mut rows).unwrap();
        rows
    }

    #[tokio::test]
    async fn what_is_put_back_is_what_was_there_but_for_one_time_prekeys() {
        let rows = filled().await;
        let dir = tempfile::tempdir().unwrap();
        restore(dir.path(), &mut rows.as_slice()).unwrap();
        let storage = Storage::open(dir.path(), &StorageOptions::default()).unwrap();
        let mut again = Vec::new();
        storage.rows().unwrap().write(&mut again).unwrap();
        assert!(again == rows);
        let prekeys = |read: &ReadTransaction| Ok(read.open_table(PREKEYS)?.len()?);
        assert_eq!(storage.read(prekeys), Ok(0));
    }

    #[tokio::test]
    async fn rows_that_are_cut_off_or_not_of_their_form_are_refused() {
        let rows = filled().await;
        let refused = |rows: &[u8]| {
            let dir = tempfile::tempdir().unwrap();
            restore(dir.path(), &mut &*rows).unwrap_err()
        };
        for length in [0, 15, 16, 17, 100, rows.len() / 2, rows.len() - 1] {
            refused(&rows[..length]);
        }
        let mut other = rows.clone();
        other[0] ^= 1;
        refused(&other);
        let mut unknown = rows.clone();
        unknown[17] ^= 1;
        refused(&unknown);
        let after_name = 17 + "cards".len();
        let mut long = rows.clone();
        long[after_name] = 0x7f;
        refused(&long);
    }
}
