//! The device store: what survives a restart.
//!
//! ```text
//!  engine ── plain records ── vault (AES-256-GCM, one place for one record) ── Store ── file or memory
//! ```
//!
//! A [`Store`] keeps opaque rows and commits batches of them atomically; it never sees a plain record. Everything that
//! concerns encryption and integrity is in `vault`, above the trait, so that an application's own store cannot get it wrong: whatever
//! it loses, mixes up or puts back is noticed there.
//!
//! An own store is an afternoon's work: three methods, and [`conformance`] says whether they are right. `crates/client/tests/conformance` has
//! one in a folder of files.

pub mod conformance;
#[cfg(test)]
mod figures;
mod file;
mod key;
mod memory;
pub(crate) mod vault;

use std::collections::BTreeMap;
use std::path::Path;

pub use file::FileStore;
pub use key::StoreKey;
pub use memory::MemoryStore;

/// Most rows one [`Store::scan`] is ever asked for.
pub const MAX_SCAN_ROWS: usize = 4_096;
/// A [`Store::scan`] ends with the row with which its values come to this many bytes, even before it has as many rows as were asked
/// for.
pub const SCAN_BYTES: usize = 4 << 20;

/// A row as it is stored: its key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// A transactional key-value store for one device.
///
/// Keys are 1 to 64 bytes, values at most 8 MiB; both are opaque. One client at a time owns a store: an implementation
/// whose data another process could open MUST refuse the second one with [`StoreError::InUse`].
pub trait Store: Send {
    /// The value at `key`, or `None` where there is none.
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The first rows whose key begins with `prefix` and is greater than `after`, in ascending order of their keys (bytes compare
    /// unsigned; a key is greater than its own beginning). An empty `prefix` is every key's, and every key is greater than an
    /// empty `after`.
    ///
    /// At most `limit` of them, which is 1 to [`MAX_SCAN_ROWS`]; fewer where there are no more, or where the values of those given come to
    /// [`SCAN_BYTES`]. Whoever wants all asks again after the last one's key until nothing comes.
    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError>;

    /// Applies the whole batch, durably, or nothing of it.
    ///
    /// After `Ok` the batch survives a crash of the process and of the machine. After an error the store is as it was
    /// before, or the store refuses everything from then on.
    fn commit(&mut self, batch: Batch) -> Result<(), StoreError>;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn read(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).read(key)
    }

    fn scan(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Vec<Row>, StoreError> {
        (**self).scan(prefix, after, limit)
    }

    fn commit(&mut self, batch: Batch) -> Result<(), StoreError> {
        (**self).commit(batch)
    }
}

/// Changes that belong together: at most one for each key, the last one said.
#[derive(Debug, Default)]
pub struct Batch {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// Puts `value` at `key`, over what may be there.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.changes.insert(key, Some(value));
    }

    /// Removes what is at `key`, if anything is.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.changes.insert(key, None);
    }

    /// The changes in ascending order of their keys: `Some` puts, `None` removes.
    pub fn changes(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.changes
            .iter()
            .map(|(key, change)| (key.as_slice(), change.as_deref()))
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// The changes in ascending order of their keys: `Some` puts, `None` removes.
    pub fn into_changes(self) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        self.changes.into_iter()
    }
}

/// Makes the name of a file as durable as its content.
fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let here = folder.as_os_str().is_empty();
        std::fs::File::open(if here { Path::new(".") } else { folder })?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Why the system's keyring gives no key for a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyringError {
    /// There is none, or it fails.
    #[error(
        "the system's keyring does not work here ({0}); start one, or use a key file or a passphrase instead"
    )]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is locked, and nobody unlocked it, or it does not let this program in.
    #[error("the system's keyring is locked or denies access ({0}); unlock it and try again")]
    NoAccess(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It does not have the key of a store that is there.
    #[error(
        "the system's keyring has no key for this device store; restore the keyring, or join again with a new store"
    )]
    NoKey,
    /// What it has under the name of the key is something else. It is left as it is.
    #[error(
        "what the system's keyring has under this service and account is not a key of 32 bytes; choose another account"
    )]
    NotAKey,
    /// It has several entries under the name of the key.
    #[error(
        "the system's keyring has several entries under this service and account; remove those that are not the store's key"
    )]
    Ambiguous,
}

/// Why the device store cannot be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another client has it open. Two writers would use one message key twice.
    #[error("the device store is open in another process; close that one first")]
    InUse,
    /// The key, key file or passphrase is not the one it was made with.
    #[error("the key or passphrase does not open this device store")]
    WrongKey,
    /// What is there is not what was last committed: rows are damaged, missing, moved or put back.
    #[error(
        "the device store is damaged: it is not as it was left; check the disk, and join again with a new store"
    )]
    Damaged,
    /// What is there is something else, or a store whose very beginning is damaged.
    #[error("this is not a device store; name another file")]
    NotAStore,
    /// A commit failed, and nobody knows what the disk holds. What was committed before is safe.
    #[error("the device store takes no more since a write failed; check the disk and start again")]
    Failed,
    /// The store was written by a later version of this crate.
    #[error("the device store was written by a newer version; update this program")]
    NewerVersion,
    /// The key file does not hold exactly 32 bytes.
    #[error("the key file does not hold exactly 32 bytes")]
    KeyFileSize,
    /// Others than its owner may read or write the key file.
    #[error("the key file can be read or written by others; allow only its owner (mode 0600)")]
    KeyFileExposed,
    /// The passphrase is empty.
    #[error("the passphrase is empty")]
    EmptyPassphrase,
    /// The keyring gives no key.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A row of it is larger than a store takes.
    #[error("a record is larger than a device store takes")]
    TooLarge,
    /// A file cannot be read or written.
    #[error("the device store cannot be read or written: {0}")]
    Io(#[from] std::io::Error),
    /// The storage engine below failed.
    #[error("the device store failed: {0}")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}
