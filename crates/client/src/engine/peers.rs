//! Other users' devices, and this user's own: fetched, verified, pinned, and watched for changes.
//!
//! A user's devices are pinned when they are first seen. What the relay's directory says later is compared with that, and a
//! difference is an event; if the user was verified, nothing is sent to them until the application has looked at it. A new device
//! of this user's own is such a difference with everybody: it gets copies of what is sent, and is in every safety number.

use std::sync::Arc;

use sealwire_e2e::card::{UnverifiedCard, VerifiedCard};
use sealwire_e2e::content::{Content, Kind};
use sealwire_e2e::error::{Error as E2eError, Misbehaved};
use sealwire_e2e::one_time::{OneTimePrekey, VerifiedOneTimePrekey};
use sealwire_e2e::safety::SafetyNumber;
use sealwire_protocol::frame::{CardEntry, List};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;
use sealwire_protocol::name::User;
use tokio::sync::oneshot;

use super::outbox::{GivenUp, Purpose};
use super::records::{self, MAX_REMEMBERED_DEVICES, PinnedCard, PinnedDevice, PinnedUser, Trust};
use super::txn::Txn;
use super::{Engine, Fatal, Moment, policy};
use crate::error::{CardFault, Error, Misuse, Refusal};
use crate::event::Event;
use crate::message::Device;

/// Users that may be looked up at a time, beyond those that messages wait for.
const LOOKUP_LIMIT: usize = 256;

/// A user whose cards are wanted.
#[derive(Default)]
pub(super) struct Lookup {
    /// Wanted, and not asked for yet: with one-time prekeys or without.
    wanted: Option<bool>,
    queries: Vec<Query>,
}

/// What the application waits for.
pub(super) enum Query {
    Devices(oneshot::Sender<Result<Vec<Device>, Error>>),
    SafetyNumber(oneshot::Sender<Result<SafetyNumber, Error>>),
    /// The own devices first, then the safety number with this user.
    OwnForSafetyNumber(Arc<str>, oneshot::Sender<Result<SafetyNumber, Error>>),
}

impl Query {
    fn fail(self, error: Error) {
        // An error means that the caller has gone.
        match self {
            Self::Devices(answer) => drop(answer.send(Err(error))),
            Self::SafetyNumber(answer) | Self::OwnForSafetyNumber(_, answer) => {
                drop(answer.send(Err(error)))
            }
        }
    }
}

impl Lookup {
    pub(super) fn want(&mut self, take: bool) {
        self.wanted = Some(take || self.wanted == Some(true));
    }

    /// Whether to ask the relay now, and whether for one-time prekeys.
    pub(super) fn start(&mut self) -> Option<bool> {
        self.wanted.take()
    }

    pub(super) fn link_lost(&mut self) {
        if !self.queries.is_empty() {
            self.want(false);
        }
    }
}

/// A card that holds, with its one-time prekey, if there was one.
pub(super) struct Usable {
    pub(super) card: VerifiedCard,
    pub(super) one_time: Option<VerifiedOneTimePrekey>,
}

impl Engine {
    /// The devices of `user`, fetched now.
    pub(crate) fn devices(
        &mut self,
        user: &str,
        answer: oneshot::Sender<Result<Vec<Device>, Error>>,
    ) {
        self.query(user, Query::Devices(answer));
    }

    /// Wants a user's cards.
    pub(super) fn look_up(&mut self, user: Arc<str>, take: bool) {
        self.lookups.entry(user).or_default().want(take);
    }

    /// Whether the directory was asked for this user's own devices on this link.
    pub(super) fn knows_own_devices(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| link.own_devices_known)
    }

    /// The relay's answer to FetchCards.
    pub(super) fn handle_cards(
        &mut self,
        user: &Arc<str>,
        take: bool,
        cards: List<'_, CardEntry<'_>>,
        now: Moment,
    ) -> Result<(), Fatal> {
        let mut txn = self.begin();
        match self.verify_cards(&txn, user, cards, now)? {
            Ok(usable) if usable.is_empty() && !self.is_own(user) => {
                self.lookup_failed(&mut txn, user, &GivenUp::Refused(Refusal::UnknownUser), now)?;
            }
            Ok(usable) => self.devices_seen(&mut txn, user, take, usable, now)?,
            Err(fault) => {
                tracing::warn!(%fault, "a device card from the relay does not hold");
                self.lookup_failed(&mut txn, user, &GivenUp::Card(fault), now)?;
            }
        }
        self.stage(txn);
        Ok(())
    }

    /// The relay has refused FetchCards.
    pub(super) fn handle_cards_refused(
        &mut self,
        user: &Arc<str>,
        refusal: Refusal,
        now: Moment,
    ) -> Result<(), Fatal> {
        let mut txn = self.begin();
        // No card of one's own yet is the ordinary state of a new user.
        if self.is_own(user) && refusal == Refusal::UnknownUser {
            self.devices_seen(&mut txn, user, true, Vec::new(), now)?;
        } else {
            self.lookup_failed(&mut txn, user, &GivenUp::Refused(refusal), now)?;
        }
        self.stage(txn);
        Ok(())
    }

    /// Whether a message of this device may be opened: only so many devices of a user are known at a time, and what is sealed
    /// for a user has a part for each.
    ///
    /// Where there is no room the directory is asked, in which devices that are gone are missing.
    pub(super) fn admits_device(
        &mut self,
        txn: &Txn,
        user: &Arc<str>,
        device: Thumbprint,
    ) -> Result<bool, Fatal> {
        let present = txn
            .user(&self.vault, user)?
            .map_or_else(Vec::new, |pinned| pinned.present());
        if present.len() < limits::MAX_DEVICES || present.contains(&device) {
            return Ok(true);
        }
        if self.lookups.len() < LOOKUP_LIMIT {
            self.look_up(Arc::clone(user), false);
        }
        Ok(false)
    }

    /// Pins a device that a message came from, and tells the application if the user had others before.
    pub(super) fn device_seen(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        device: Thumbprint,
        now: Moment,
    ) -> Result<(), Fatal> {
        let mut pinned = txn
            .user(&self.vault, user)?
            .unwrap_or_else(PinnedUser::unseen);
        if pinned.present().contains(&device) {
            return Ok(());
        }
        if pinned.complete && pinned.device(device).is_some() {
            // What a device has sent before it was removed. That it is back only the directory says.
            self.look_up(Arc::clone(user), false);
            return Ok(());
        }
        let first = !pinned.complete && pinned.devices.is_empty();
        pinned.insert(device, None, now);
        if self.is_own(user) {
            pinned.own_gains = pinned.own_gains.saturating_add(1);
            self.tell_name(user, &[device], now);
        }
        if !first {
            self.peer_changed(txn, user, &mut pinned, vec![device], Vec::new())?;
        }
        txn.put_user(user, pinned);
        Ok(())
    }

    pub(super) fn query(&mut self, user: &str, query: Query) {
        if User::new(user).is_err() {
            return query.fail(Misuse::User.into());
        }
        if !self.lookups.contains_key(user) && self.lookups.len() >= LOOKUP_LIMIT {
            return query.fail(Refusal::RateLimited.into());
        }
        let lookup = self.lookups.entry(user.into()).or_default();
        lookup.queries.push(query);
        lookup.want(false);
    }

    pub(super) fn is_own(&self, user: &Arc<str>) -> bool {
        self.account.user.as_ref() == Some(user)
    }

    /// Verifies what the relay gave for `user` (`docs/protocol.md §6.1`, §6.2). One bad card spoils all: a message has to be sealed for
    /// every device or for none.
    fn verify_cards(
        &self,
        txn: &Txn,
        user: &Arc<str>,
        cards: List<'_, CardEntry<'_>>,
        now: Moment,
    ) -> Result<Result<Vec<Usable>, CardFault>, Fatal> {
        let pinned = txn.user(&self.vault, user)?;
        let mut usable = Vec::with_capacity(cards.len());
        for entry in cards {
            match self.verify_card(user, pinned.as_ref(), &entry, now) {
                Ok(Usable { card, .. }) if card.identity().device == self.keys.thumbprint() => {}
                Ok(found) if contains(&usable, found.card.identity().device) => {
                    return Ok(Err(CardFault::Invalid));
                }
                Ok(found) => usable.push(found),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        Ok(Ok(usable))
    }

    fn verify_card(
        &self,
        user: &Arc<str>,
        pinned: Option<&PinnedUser>,
        entry: &CardEntry<'_>,
        now: Moment,
    ) -> Result<Usable, CardFault> {
        let unverified = UnverifiedCard::parse(entry.card).map_err(|error| card_fault(&error))?;
        let seen = pinned
            .and_then(|pinned| pinned.device(unverified.device())?.card)
            .map(|card| card.seen);
        let card = unverified
            .verify(&*self.issuer.keys, &policy(&self.issuer, now), seen)
            .map_err(|error| card_fault(&error))?;
        if card.identity().user.as_str() != &**user {
            return Err(CardFault::OtherUser);
        }
        let one_time = match &entry.prekey {
            Some(prekey) => {
                let mut bytes = Vec::with_capacity(sealwire_e2e::one_time::ONE_TIME_PREKEY_BYTES);
                bytes.extend_from_slice(&prekey.id.to_be_bytes());
                bytes.extend_from_slice(prekey.x25519);
                bytes.extend_from_slice(prekey.kem_key);
                bytes.extend_from_slice(prekey.signature);
                let verified =
                    OneTimePrekey::decode(&bytes).and_then(|prekey| prekey.verify(&card));
                Some(verified.map_err(|_| CardFault::OneTimePrekey)?)
            }
            None => None,
        };
        Ok(Usable { card, one_time })
    }

    /// The user's devices are these now: pins them, answers who asked, and seals what waited.
    fn devices_seen(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        take: bool,
        usable: Vec<Usable>,
        now: Moment,
    ) -> Result<(), Fatal> {
        self.pin(txn, user, &usable, now)?;
        if self.is_own(user)
            && let Some(link) = &mut self.link
        {
            link.own_devices_known = true;
        }
        let lookup = self.lookups.get_mut(user);
        for query in lookup
            .map(|lookup| std::mem::take(&mut lookup.queries))
            .unwrap_or_default()
        {
            self.answer_query(txn, user, query)?;
        }
        if take && let Err(why) = self.start_sessions(txn, user, usable, now)? {
            self.fail_waiting(txn, user, &why, now)?;
        }
        // What waited is sealed with everything else that is due.
        for number in self.waiting_for(user) {
            if let Some(entry) = self.outbox.entries.get_mut(&number) {
                entry.got_cards(user);
            }
        }
        self.lookups
            .retain(|_, lookup| lookup.wanted.is_some() || !lookup.queries.is_empty());
        Ok(())
    }

    fn lookup_failed(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        why: &GivenUp,
        now: Moment,
    ) -> Result<(), Fatal> {
        if let Some(lookup) = self.lookups.remove(user) {
            for query in lookup.queries {
                query.fail(why.error());
            }
        }
        // That the last device is gone is a change like any other.
        if matches!(why, GivenUp::Refused(Refusal::UnknownUser)) {
            let pinned = txn.user(&self.vault, user)?;
            if pinned.is_some_and(|pinned| !pinned.present().is_empty()) {
                self.pin(txn, user, &[], now)?;
            }
        }
        self.fail_waiting(txn, user, why, now)
    }

    /// Gives up what waits for the cards of `user`. Copies for this user's own devices are part of every message, so what they fail
    /// for fails everything.
    fn fail_waiting(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        why: &GivenUp,
        now: Moment,
    ) -> Result<(), Fatal> {
        for number in self.waiting_for(user) {
            self.give_up(txn, number, why, now)?;
        }
        Ok(())
    }

    /// Entries that wait for the cards of `user`, in order.
    fn waiting_for(&self, user: &Arc<str>) -> Vec<u64> {
        self.outbox
            .entries
            .iter()
            .filter(|(_, entry)| entry.wants(user))
            .map(|(number, _)| *number)
            .collect()
    }

    /// Compares the devices with those that are pinned, and pins them.
    fn pin(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        usable: &[Usable],
        now: Moment,
    ) -> Result<(), Fatal> {
        let mut pinned = txn
            .user(&self.vault, user)?
            .unwrap_or_else(PinnedUser::unseen);
        let before = pinned.present();
        for device in &mut pinned.devices {
            device.present = false;
        }
        for Usable { card, .. } in usable {
            let seen = PinnedCard {
                seen: card.seen(),
                jwe_key: *card.standard_jwe().as_bytes(),
            };
            pinned.insert(card.identity().device, Some(seen), now);
        }
        let after = pinned.present();
        let first = !pinned.complete;
        pinned.complete = true;
        let added: Vec<_> = after
            .iter()
            .filter(|device| !before.contains(device))
            .copied()
            .collect();
        let removed: Vec<_> = before
            .iter()
            .filter(|device| !after.contains(device))
            .copied()
            .collect();
        if self.is_own(user) && !added.is_empty() {
            pinned.own_gains = pinned.own_gains.saturating_add(1);
            self.tell_name(user, &added, now);
        }
        let same = added.is_empty() && removed.is_empty();
        // At first only what was not known is new; a device that was seen and is missing is a change even then.
        if !(same || first && removed.is_empty()) {
            self.peer_changed(txn, user, &mut pinned, added, removed)?;
        }
        txn.put_user(user, pinned);
        Ok(())
    }

    fn peer_changed(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        pinned: &mut PinnedUser,
        added: Vec<Thumbprint>,
        removed: Vec<Thumbprint>,
    ) -> Result<(), Fatal> {
        let was_verified = pinned.trust == Trust::Verified;
        if was_verified {
            pinned.trust = Trust::Changed;
        }
        let event = Event::PeerChanged {
            user: Arc::clone(user),
            added,
            removed,
            was_verified,
        };
        self.inbox.push(txn, event).map(drop)
    }

    fn answer_query(&mut self, txn: &Txn, user: &Arc<str>, query: Query) -> Result<(), Fatal> {
        match query {
            Query::Devices(answer) => {
                let devices = self.list_devices(txn, user)?;
                self.answer(answer, Ok(devices));
            }
            Query::SafetyNumber(answer) => {
                let number = self.compute_safety_number(txn, user)?;
                self.answer(answer, number);
            }
            Query::OwnForSafetyNumber(peer, answer) => {
                self.query(&peer, Query::SafetyNumber(answer))
            }
        }
        Ok(())
    }

    fn list_devices(&self, txn: &Txn, user: &Arc<str>) -> Result<Vec<Device>, Fatal> {
        let pinned = txn
            .user(&self.vault, user)?
            .unwrap_or_else(PinnedUser::unseen);
        let mut devices: Vec<_> = pinned
            .devices
            .iter()
            .filter(|device| device.present)
            .map(|device| Device {
                thumbprint: device.thumbprint,
                is_this: false,
                name: device.name.clone(),
                first_seen: Some(device.first_seen),
                jwe_key: device.card.map(|card| card.jwe_key),
            })
            .collect();
        if self.is_own(user) {
            let jwe_key = Some(*self.keys.standard_jwe_public().as_bytes());
            devices.insert(
                0,
                Device {
                    thumbprint: self.keys.thumbprint(),
                    is_this: true,
                    name: self.account.name.clone(),
                    first_seen: None,
                    jwe_key,
                },
            );
        }
        Ok(devices)
    }

    /// Notes that this user's application has written to `user`.
    pub(super) fn written_to(&mut self, txn: &mut Txn, user: &str) -> Result<(), Fatal> {
        let pinned = txn.user(&self.vault, user)?;
        let mut pinned = pinned.unwrap_or_else(PinnedUser::unseen);
        if !pinned.written_to {
            pinned.written_to = true;
            txn.put_user(user, pinned);
        }
        Ok(())
    }

    /// Whether this user's application has ever written to `user`.
    pub(super) fn has_written_to(&self, txn: &Txn, user: &str) -> Result<bool, Fatal> {
        let pinned = txn.user(&self.vault, user)?;
        Ok(pinned.is_some_and(|pinned| pinned.written_to))
    }

    /// Names this device, for the user's own devices.
    pub(crate) fn set_device_name(&mut self, name: &str, now: Moment) -> Result<(), Fatal> {
        if self.account.name.as_deref() == Some(name) {
            return Ok(());
        }
        self.account.name = Some(name.into());
        let mut txn = self.begin();
        txn.put(records::account(), &self.account)?;
        if let Some(user) = self.account.user.clone() {
            let pinned = txn.user(&self.vault, &user)?;
            let others = pinned.map_or_else(Vec::new, |pinned| pinned.present());
            self.tell_name(&user, &others, now);
        }
        self.stage(txn);
        Ok(())
    }

    /// Tells this user's other devices, sealed, what this one is called.
    fn tell_name(&mut self, user: &Arc<str>, devices: &[Thumbprint], now: Moment) {
        let Some(name) = self.account.name.clone() else {
            return;
        };
        for device in devices {
            let content = Content {
                id: self.random_id(),
                time: now.0,
                kind: Kind::Name(&name),
            };
            let purpose = Purpose::Direct {
                device: *device,
                fresh: false,
            };
            self.enqueue_own(Arc::clone(user), purpose, &content);
        }
    }

    /// One of this user's own devices says what it is called.
    pub(super) fn device_named(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        device: Thumbprint,
        name: &str,
    ) -> Result<(), Fatal> {
        if let Some(mut pinned) = txn.user(&self.vault, user)?
            && let Some(named) = pinned
                .devices
                .iter_mut()
                .find(|known| known.thumbprint == device)
        {
            named.name = Some(name.into());
            txn.put_user(user, pinned);
        }
        Ok(())
    }
}

impl PinnedUser {
    /// A user of whom no device has been seen.
    fn unseen() -> Self {
        Self {
            trust: Trust::Pinned,
            complete: false,
            own_gains: 0,
            written_to: false,
            devices: Vec::new(),
        }
    }

    /// The devices that are the user's now.
    pub(super) fn present(&self) -> Vec<Thumbprint> {
        self.devices
            .iter()
            .filter(|device| device.present)
            .map(|device| device.thumbprint)
            .collect()
    }

    fn device(&self, thumbprint: Thumbprint) -> Option<&PinnedDevice> {
        self.devices
            .iter()
            .find(|device| device.thumbprint == thumbprint)
    }

    fn insert(&mut self, thumbprint: Thumbprint, card: Option<PinnedCard>, now: Moment) {
        if let Some(device) = self
            .devices
            .iter_mut()
            .find(|device| device.thumbprint == thumbprint)
        {
            device.present = true;
            device.card = card.or(device.card);
            return;
        }
        if self.devices.len() >= MAX_REMEMBERED_DEVICES {
            // All present is more than a directory shows, and more than `admits_device` lets in.
            let Some(gone) = self.devices.iter().position(|device| !device.present) else {
                return;
            };
            self.devices.remove(gone);
        }
        self.devices.push(PinnedDevice {
            thumbprint,
            present: true,
            first_seen: now.seconds(),
            name: None,
            card,
        });
    }
}

fn contains(usable: &[Usable], device: Thumbprint) -> bool {
    usable
        .iter()
        .any(|found| found.card.identity().device == device)
}

pub(super) fn card_fault(error: &E2eError) -> CardFault {
    if *error == Misbehaved::CardRollback.into() {
        CardFault::RolledBack
    } else if *error == Misbehaved::AnotherIdentity.into() {
        CardFault::OtherUser
    } else {
        CardFault::Invalid
    }
}
