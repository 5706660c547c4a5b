//! How far a user is trusted, and the safety number that two people compare (`docs/protocol.md §11`).
//!
//! Everybody is trusted because the issuer attests them. Whoever was verified is held to the devices that were compared, on both sides:
//! a change stops everything to them until somebody has looked at it.

use sealwire_e2e::safety::{SafetyNumber, Side};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use tokio::sync::oneshot;

use super::peers::Query;
use super::records::Trust;
use super::txn::Txn;
use super::{Engine, Fatal};
use crate::error::{Error, Misuse, Refusal};

impl Engine {
    /// The safety number with `user`, over devices fetched now.
    pub(crate) fn safety_number(
        &mut self,
        user: &str,
        answer: oneshot::Sender<Result<SafetyNumber, Error>>,
    ) {
        match self.account.user.clone() {
            Some(own) if *own != *user => {
                self.query(&own, Query::OwnForSafetyNumber(user.into(), answer))
            }
            // With oneself there is nothing to compare.
            Some(_) => drop(answer.send(Err(Misuse::User.into()))),
            None => self.query(user, Query::SafetyNumber(answer)),
        }
    }

    /// Marks `user` as verified if `number` is the safety number of the devices that are pinned.
    pub(crate) fn mark_verified(
        &mut self,
        user: &str,
        number: &SafetyNumber,
    ) -> Result<Result<(), Error>, Fatal> {
        let mut txn = self.begin();
        let outcome = self.verify_number(&mut txn, user, number)?;
        self.stage(txn);
        Ok(outcome)
    }

    fn verify_number(
        &self,
        txn: &mut Txn,
        user: &str,
        number: &SafetyNumber,
    ) -> Result<Result<(), Error>, Fatal> {
        let Some(mut pinned) = txn.user(&self.vault, user)? else {
            return Ok(Err(Error::PeerChanged));
        };
        if !matches!(self.compute_safety_number(txn, user)?, Ok(current) if current == *number) {
            return Ok(Err(Error::PeerChanged));
        }
        pinned.trust = Trust::Verified;
        pinned.own_gains = self.own_gains(txn)?;
        txn.put_user(user, pinned);
        Ok(Ok(()))
    }

    /// Whether `user` is verified, with the devices that are pinned now.
    pub(crate) fn is_verified(&self, user: &str) -> Result<bool, Fatal> {
        Ok(self.trust(&self.txn, user)? == Some(Trust::Verified))
    }

    /// How far `user` is trusted; `None` if none of their devices has been seen.
    ///
    /// A safety number covers both sides: when this user's own devices have gained one since somebody was verified, nobody has
    /// compared the number that is valid now, and whoever put that device there would get the copies.
    pub(super) fn trust(&self, txn: &Txn, user: &str) -> Result<Option<Trust>, Fatal> {
        let Some(pinned) = txn.user(&self.vault, user)? else {
            return Ok(None);
        };
        let stale = pinned.trust == Trust::Verified && pinned.own_gains != self.own_gains(txn)?;
        Ok(Some(if stale { Trust::Changed } else { pinned.trust }))
    }

    fn own_gains(&self, txn: &Txn) -> Result<u32, Fatal> {
        let Some(own) = &self.account.user else {
            return Ok(0);
        };
        let pinned = txn.user(&self.vault, own)?;
        Ok(pinned.map_or(0, |pinned| pinned.own_gains))
    }

    /// Goes on with the changed devices of a user who was verified.
    pub(crate) fn accept_change(&mut self, user: &str) -> Result<(), Fatal> {
        let mut txn = self.begin();
        if self.trust(&txn, user)? == Some(Trust::Changed)
            && let Some(mut pinned) = txn.user(&self.vault, user)?
        {
            pinned.trust = Trust::Pinned;
            txn.put_user(user, pinned);
        }
        self.stage(txn);
        Ok(())
    }

    /// The safety number over the pinned devices (`docs/protocol.md §11`).
    pub(super) fn compute_safety_number(
        &self,
        txn: &Txn,
        user: &str,
    ) -> Result<Result<SafetyNumber, Error>, Fatal> {
        let Some(own_user) = &self.account.user else {
            return Ok(Err(Refusal::Unavailable.into()));
        };
        let mut own = txn
            .user(&self.vault, own_user)?
            .map_or_else(Vec::new, |pinned| pinned.present());
        own.push(self.keys.thumbprint());
        let peer = txn
            .user(&self.vault, user)?
            .map_or_else(Vec::new, |pinned| pinned.present());
        let side = |user: &str, devices: &[Thumbprint]| {
            let user = User::new(user).ok()?;
            Side::new(&self.issuer.name, &user, devices).ok()
        };
        Ok(match (side(own_user, &own), side(user, &peer)) {
            (Some(own), Some(peer)) => Ok(SafetyNumber::new(own, peer)),
            _ => Err(Refusal::UnknownUser.into()),
        })
    }
}
