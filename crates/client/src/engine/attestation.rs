//! What says whose device this is: its newest tokens, of which one attests its card until it is a week old, or revoked.

use sealwire_e2e::device::OwnIdentity;
use sealwire_protocol::limits;
use sealwire_protocol::token::UnverifiedAttestation;
use zeroize::Zeroizing;

use super::{Engine, Fatal, Moment, policy, records};
use crate::error::NotAuthorised;

/// The attestation in use is replaced by a new token's once it is this old, in seconds: a card's age of renewal.
const ATTESTATION_RENEWAL: u64 = limits::CARD_RENEWAL_DAYS * 24 * 60 * 60;

impl Engine {
    /// Takes a token of this device, which is its attestation too: verified as a peer would (`docs/protocol.md §2.3`), so that a wrong
    /// configuration shows here and not at every peer.
    ///
    /// The attestation in use is kept until it is a week old, so that not every token makes a new card.
    pub(crate) fn handle_token(&mut self, token: &str, now: Moment) -> Result<(), Fatal> {
        let unverified = UnverifiedAttestation::parse(token.as_bytes())
            .map_err(|_| NotAuthorised::Attestation)?;
        if unverified.claims().device != self.keys.thumbprint() {
            return Err(NotAuthorised::OtherDevice.into());
        }
        let policy = policy(&self.issuer, now);
        let attestation = unverified
            .verify(&*self.issuer.keys, &policy)
            .map_err(|_| NotAuthorised::Attestation)?;
        let said = self.link.as_ref().map(|link| &link.user);
        if [self.account.user.as_ref(), said]
            .into_iter()
            .flatten()
            .any(|user| **user != *attestation.user().as_str())
        {
            return Err(NotAuthorised::OtherUser.into());
        }
        if self.attestation_is_fresh(now) {
            self.newer_token = Some(Zeroizing::new(token.to_owned()));
            return Ok(());
        }
        self.own =
            Some(OwnIdentity::new(&self.keys, token).map_err(|_| NotAuthorised::Attestation)?);
        self.account.user = Some(attestation.user().as_str().into());
        self.account.attestation = Some(token.to_owned());
        self.newer_token = None;
        if let Some(link) = &mut self.link {
            link.publishing.attested_anew();
        }
        let mut txn = self.begin();
        txn.put(records::account(), &self.account)?;
        self.stage(txn);
        Ok(())
    }

    /// The relay does not take what attests this device's card, as it was revoked: the newest token takes its place, this one or the next.
    pub(super) fn replace_attestation(&mut self, now: Moment) -> Result<(), Fatal> {
        self.account.attestation = None;
        let mut txn = self.begin();
        txn.put(records::account(), &self.account)?;
        self.stage(txn);
        match self.newer_token.take() {
            Some(token) => self.handle_token(&token, now),
            None => Ok(()),
        }
    }

    fn attestation_is_fresh(&self, now: Moment) -> bool {
        let Some(attestation) = &self.account.attestation else {
            return false;
        };
        UnverifiedAttestation::parse(attestation.as_bytes()).is_ok_and(|parsed| {
            parsed.claims().issued.saturating_add(ATTESTATION_RENEWAL) > now.seconds()
        })
    }
}
