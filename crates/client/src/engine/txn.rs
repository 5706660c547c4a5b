//! One step of the engine: everything it changes, committed together or not at all.

use std::collections::BTreeMap;

use sealwire_e2e::peer::Peer;
use sealwire_protocol::key::Thumbprint;

use super::records::{PinnedUser, Record};
use crate::store::StoreError;
use crate::store::vault::{Changes, Place, Table, Vault};

/// The sessions and pinned users that a step has touched, and the other records it changes.
#[derive(Default)]
pub(super) struct Txn {
    changes: Changes,
    peers: BTreeMap<Thumbprint, Peer>,
    users: BTreeMap<Box<str>, PinnedUser>,
}

impl Txn {
    /// The sessions with a device, as this step has them.
    pub(super) fn peer(
        &mut self,
        vault: &Vault,
        device: Thumbprint,
    ) -> Result<&mut Peer, StoreError> {
        use std::collections::btree_map::Entry;
        Ok(match self.peers.entry(device) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(match vault.read(&sessions(device))? {
                Some(record) => Peer::decode(&record).map_err(|_| StoreError::Damaged)?,
                None => Peer::new(device),
            }),
        })
    }

    /// Leaves a device's sessions as they are in the store. Nothing of them may have changed.
    pub(super) fn forget_unchanged(&mut self, device: Thumbprint) {
        self.peers.remove(&device);
    }

    /// A user's pinned devices, as this step has them.
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

    pub(super) fn commit(mut self, vault: &mut Vault) -> Result<(), StoreError> {
        for (device, peer) in &self.peers {
            self.changes.put(sessions(*device), peer.encode().to_vec());
        }
        for (user, pinned) in &self.users {
            self.changes.put(pinned_user(user), pinned.encode()?);
        }
        vault.commit(self.changes, &mut rand::rng())
    }
}

fn sessions(device: Thumbprint) -> Place {
    Place::hidden(Table::Sessions, device.as_bytes())
}

fn pinned_user(user: &str) -> Place {
    Place::hidden(Table::Peer, user.as_bytes())
}
