//! Which blobs there are, whose they are, and how much room is left.
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sealwire_protocol::name::User;
use tokio::sync::Mutex;

use super::file::{BlobFile, CONTENT_START, Description};
use super::{BlobError, BlobId, BlobLimits, Full};

/// A blob that the relay has, or a part of one.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: BlobId,
    pub(super) description: Description,
    /// Who changes it waits for a turn; turns are given in order.
    pub(super) state: Arc<Mutex<State>>,
    /// Bytes of content that are there, for readers.
    length: AtomicU64,
    /// When all was there, in seconds since 1970; 0 before.
    sealed: AtomicU64,
}

/// What changes about a blob.
#[derive(Debug)]
pub(super) struct State {
    pub(super) body: Body,
    /// Bytes of content that are there.
    pub(super) length: u64,
    /// When all of it was there, durably, in seconds since 1970.
    pub(super) sealed: Option<u64>,
    /// When it last grew, in seconds since 1970.
    pub(super) grown: u64,
}

/// Where the content is.
#[derive(Debug)]
pub(super) enum Body {
    /// Nowhere yet.
    New,
    Disk(BlobFile),
    Memory(Vec<u8>),
    /// The disk failed in a way after which nothing is known of it until the relay starts again.
    Broken,
    /// It was discarded or has grown too old, while somebody waited for a turn.
    Gone,
}

impl Entry {
    pub(super) fn new(id: BlobId, description: Description) -> Self {
        let grown = description.begun;
        Self::with_state(
            id,
            description,
            State {
                body: Body::New,
                length: 0,
                sealed: None,
                grown,
            },
        )
    }

    pub(super) fn with_state(id: BlobId, description: Description, state: State) -> Self {
        Self {
            id,
            description,
            length: AtomicU64::new(state.length),
            sealed: AtomicU64::new(state.sealed.unwrap_or_default()),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Tells readers what a turn has come to.
    pub(super) fn publish(&self, state: &State) {
        self.length.store(state.length, Ordering::Release);
        self.sealed
            .store(state.sealed.unwrap_or_default(), Ordering::Release);
    }

    /// Bytes of content that are there.
    pub(super) fn length(&self) -> u64 {
        self.length.load(Ordering::Acquire)
    }

    /// When all was there.
    pub(super) fn sealed(&self) -> Option<u64> {
        Some(self.sealed.load(Ordering::Acquire)).filter(|sealed| *sealed != 0)
    }

    /// Whether it is to be erased at `now`.
    pub(super) fn has_expired(&self, limits: &BlobLimits, now: u64) -> bool {
        let (since, seconds) = match self.sealed() {
            Some(sealed) => (sealed, limits.retention_seconds),
            None => (self.description.begun, limits.upload_seconds),
        };
        now >= since.saturating_add(seconds)
    }
}

/// All blobs, and what each user has of them.
#[derive(Debug, Default)]
pub(super) struct Index {
    blobs: HashMap<BlobId, Arc<Entry>>,
    /// Those that are not whole yet.
    uploads: HashMap<BlobId, Arc<Entry>>,
    users: HashMap<User, Usage>,
    bytes: u64,
}

/// How much there is of one user, or of all.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) blobs: u64,
    /// As if all were whole.
    pub(crate) bytes: u64,
    /// Blobs that are not whole yet.
    pub(crate) uploads: u64,
}

impl Index {
    pub(super) fn find(&self, id: &BlobId) -> Option<Arc<Entry>> {
        self.blobs.get(id).map(Arc::clone)
    }

    /// Takes in a blob that is there, whatever the limits are now.
    pub(super) fn insert(&mut self, entry: Entry) -> Arc<Entry> {
        let charge = charge(&entry.description);
        let usage = self
            .users
            .entry(entry.description.user.clone())
            .or_default();
        usage.blobs += 1;
        usage.bytes = usage.bytes.saturating_add(charge);
        let entry = Arc::new(entry);
        if entry.sealed().is_none() {
            usage.uploads += 1;
            self.uploads.insert(entry.id, Arc::clone(&entry));
        }
        self.bytes = self.bytes.saturating_add(charge);
        self.blobs.insert(entry.id, Arc::clone(&entry));
        entry
    }

    /// Begins a blob, if there is room for all of it: under the limits, and in the `free` bytes of the disk beside what the uploads that are begun
    /// still need and what is reserved for the other stores.
    pub(super) fn begin(
        &mut self,
        id: BlobId,
        description: Description,
        limits: &BlobLimits,
        free: u64,
    ) -> Result<Arc<Entry>, BlobError> {
        let charge = charge(&description);
        if charge > limits.bytes_per_user.min(limits.bytes) {
            return Err(BlobError::TooLarge);
        }
        let usage = self
            .users
            .get(&description.user)
            .copied()
            .unwrap_or_default();
        if usage.uploads >= limits.uploads_per_user {
            return Err(BlobError::Full(Full::Uploads));
        }
        if usage.blobs >= limits.blobs_per_user
            || usage.bytes.saturating_add(charge) > limits.bytes_per_user
        {
            return Err(BlobError::Full(Full::User));
        }
        if self.blobs.len() as u64 >= limits.blobs
            || self.bytes.saturating_add(charge) > limits.bytes
        {
            return Err(BlobError::Full(Full::Relay));
        }
        let claimed = charge
            .saturating_add(self.expected())
            .saturating_add(limits.reserved_bytes);
        if claimed > free {
            return Err(BlobError::Full(Full::Disk));
        }
        Ok(self.insert(Entry::new(id, description)))
    }

    /// A blob has become whole.
    pub(super) fn sealed(&mut self, entry: &Entry) {
        self.uploads.remove(&entry.id);
        if let Some(usage) = self.users.get_mut(&entry.description.user) {
            usage.uploads = usage.uploads.saturating_sub(1);
        }
    }

    /// Forgets a blob, if it is still this one.
    pub(super) fn remove(&mut self, entry: &Arc<Entry>) {
        if !self
            .blobs
            .get(&entry.id)
            .is_some_and(|found| Arc::ptr_eq(found, entry))
        {
            return;
        }
        self.blobs.remove(&entry.id);
        self.uploads.remove(&entry.id);
        let charge = charge(&entry.description);
        self.bytes = self.bytes.saturating_sub(charge);
        let user = &entry.description.user;
        if let Some(usage) = self.users.get_mut(user) {
            usage.blobs = usage.blobs.saturating_sub(1);
            usage.bytes = usage.bytes.saturating_sub(charge);
            if entry.sealed().is_none() {
                usage.uploads = usage.uploads.saturating_sub(1);
            }
            if usage.blobs == 0 {
                self.users.remove(user);
            }
        }
    }

    /// All of them.
    #[cfg(unix)]
    pub(super) fn all(&self) -> Vec<BlobId> {
        self.blobs.keys().copied().collect()
    }

    /// How much there is of all users.
    #[cfg(unix)]
    pub(super) fn usage(&self) -> Usage {
        Usage {
            blobs: self.blobs.len() as u64,
            bytes: self.bytes,
            uploads: self.uploads.len() as u64,
        }
    }

    /// What has grown too old, `at_most` so many.
    pub(super) fn expired(&self, limits: &BlobLimits, now: u64, at_most: usize) -> Vec<Arc<Entry>> {
        self.blobs
            .values()
            .filter(|entry| entry.has_expired(limits, now))
            .take(at_most)
            .map(Arc::clone)
            .collect()
    }

    /// What is not whole yet.
    pub(super) fn uploads(&self) -> Vec<Arc<Entry>> {
        self.uploads.values().map(Arc::clone).collect()
    }

    /// Bytes that are still to come of what is not whole yet.
    fn expected(&self) -> u64 {
        self.uploads.values().fold(0, |sum, entry| {
            let left = entry.description.size.saturating_sub(entry.length());
            sum.saturating_add(left)
        })
    }
}

/// What a blob counts: all of it from the first byte on, and its head, so that small ones are not for nothing.
fn charge(description: &Description) -> u64 {
    description.size.saturating_add(CONTENT_START)
}
