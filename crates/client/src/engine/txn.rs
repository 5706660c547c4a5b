//! What the engine has changed since its last commit: committed together, or not at all.
//!
//! Many steps may share one commit. Each adds all its changes or ends the engine, so that no commit has half a step.

use std::collections::{BTreeMap, BTreeSet};

use rand::CryptoRng;
use sealwire_e2e::peer::Peer;
use sealwire_protocol::key::Thumbprint;

use super::records::{PinnedUser, Record};
use crate::store::StoreError;
use crate::store::vault::{Changes, Place, Table, Vault};

/// Devices whose sessions are kept in memory between commits.
const PEERS_IN_MEMORY: usize = 64;

/// The sessions and pinned users that were touched, and the other records that change.
#[derive(Default)]
pub(super) struct Txn {
    changes: Changes,
    /// No session that is in the store counts any more.
    sessions_forgotten: bool,
    peers: BTreeMap<Thumbprint, Peer>,
    /// Which of `peers` differ from the store.
    touched: BTreeSet<Thumbprint>,
    users: BTreeMap<Box<str>, PinnedUser>,
}

impl Txn {
    /// The sessions with a device. What changes them says so with [`touch`](Self::touch).
    pub(super) fn peer(
        &mut self,
        vault: &Vault,
        device: Thumbprint,
    ) -> Result<&mut Peer, StoreError> {
        use std::collections::btree_map::Entry;
        Ok(match self.peers.entry(device) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if self.sessions_forgotten => entry.insert(Peer::new(device)),
            Entry::Vacant(entry) => entry.insert(match vault.read(&sessions(device))? {
                Some(record) => Peer::decode(&record).map_err(|_| StoreError::Damaged)?,
                None => Peer::new(device),
            }),
        })
    }

    /// The sessions with a device have changed.
    pub(super) fn touch(&mut self, device: Thumbprint) {
        self.touched.insert(device);
    }

    /// Erases all sessions with everybody.
    pub(super) fn forget_all_sessions(&mut self) {
        self.sessions_forgotten = true;
        self.peers.clear();
        self.touched.clear();
        self.changes.clear(Table::Sessions);
    }

    /// A user's pinned devices.
    pub(super) fn user(&self, vault: &Vault, user: &str) -> Result<Option<PinnedUser>, StoreError> {
        match self.users.get(user) {
            Some(pinned) => Ok(Some(pinned.clone())),
            None => vault
                .read(&pinned_user(user))?
                .map(|record| PinnedUser::decode(&record))
                .transpose(),
        }
    }

    pub(super) fn put_user(&mut self, user: &str, pinned: PinnedUser) {
        self.users.insert(user.into(), pinned);
    }

    pub(super) fn put(&mut self, place: Place, record: &impl Record) -> Result<(), StoreError> {
        self.changes.put(place, record.encode()?);
        Ok(())
    }

    pub(super) fn put_bytes(&mut self, place: Place, record: &[u8]) {
        self.changes.put(place, record.to_vec());
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.changes.remove(place);
    }

    /// Whether there is nothing to commit.
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.touched.is_empty() && self.users.is_empty()
    }

    /// Commits, and begins anew with the sessions that are likely to be needed next.
    pub(super) fn commit(
        mut self,
        vault: &mut Vault,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, StoreError> {
        for (device, peer) in &self.peers {
            if self.touched.contains(device) {
                self.changes.put(sessions(*device), peer.encode().to_vec());
            }
        }
        for (user, pinned) in &self.users {
            self.changes.put(pinned_user(user), pinned.encode()?);
        }
        vault.commit(self.changes, rng)?;
        if self.peers.len() > PEERS_IN_MEMORY {
            self.peers.clear();
        }
        Ok(Self {
            peers: self.peers,
            ..Self::default()
        })
    }
}

fn sessions(device: Thumbprint) -> Place {
    Place::hidden(Table::Sessions, device.as_bytes())
}

fn pinned_user(user: &str) -> Place {
    Place::hidden(Table::Peer, user.as_bytes())
}
