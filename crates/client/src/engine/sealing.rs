//! Sealing what waits in the outbox: ratchet step, ciphertext and sequence in one commit, before anything of it is sent.
//!
//! ```text
//!  for each entry that is due, in order:
//!    devices of the recipient, and this user's own ── not known ──▶ look up, NeedsCards
//!    a session with each of them ────────────────── missing ─────▶ look up with prekeys, NeedsCards ──▶ start_sessions
//!    seal for each that has no part yet; a sequence ───────────▶ Sealed
//! ```
//!
//! Nothing is sealed before the relay has confirmed, in the first Ready after the store was opened, that the store is not an earlier
//! copy (`docs/protocol.md §16`), and no more than may be on its way at once, so that a changed device costs few ciphertexts.

use std::collections::BTreeSet;
use std::sync::Arc;

use sealwire_e2e::content::{Content, Kind};
use sealwire_e2e::error::{Error as E2eError, Misuse as E2eMisuse};
use sealwire_e2e::message::SealedMessage;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;

use super::outbox::{Entry, GivenUp, Purpose, Sealed, Stage, Target, encode};
use super::peers::{Usable, card_fault};
use super::records::Trust;
use super::txn::Txn;
use super::{Engine, Fatal, Moment, REQUESTS_BESIDE_SENDS};
use crate::error::Refusal;
use crate::event::Event;

/// Sends that are on their way at once.
const MAX_IN_FLIGHT: usize = limits::MAX_OPEN_REQUESTS - REQUESTS_BESIDE_SENDS;

/// What became of an entry that was to be sealed.
enum Outcome {
    Sealed,
    /// The cards of these users are needed, with one-time prekeys or without.
    Wants(Vec<(Arc<str>, bool)>),
    /// One that is on its way has to be answered first.
    Behind,
    GivenUp(GivenUp),
}

impl Engine {
    /// Whether sealing is possible and allowed.
    fn may_seal(&self) -> bool {
        self.is_ready() && self.is_newest_copy
    }

    /// Seals what is due and may be sent at once.
    pub(super) fn seal_due(&mut self, txn: &mut Txn, now: Moment) -> Result<(), Fatal> {
        if !self.may_seal() {
            return Ok(());
        }
        self.resend(now);
        // What is behind a message that waits for cards, or for better times, waits with it, so that they arrive in order. One that is
        // sealed again is tried again when it is refused: what is behind it waits for the answer.
        let held = |entry: &&Entry| match entry.stage {
            Stage::NeedsCards => entry.is_in_order(),
            Stage::Later(at) => entry.is_in_order() && at > now,
            Stage::Sealed | Stage::Sent => again_to(entry).is_some(),
            Stage::Waiting => false,
        };
        let entries = || self.outbox.entries.values().filter(held);
        let mut blocked: BTreeSet<Arc<str>> = entries()
            .map(|entry| Arc::clone(&entry.user))
            .chain(self.undelivered.resending())
            .collect();
        let mut blocked_devices: BTreeSet<Thumbprint> = entries().filter_map(again_to).collect();
        let (mut out, mut in_window) = self.outbox.in_flight();
        for number in self.due(now) {
            if out >= MAX_IN_FLIGHT || !in_window {
                break;
            }
            let Some(mut entry) = self.outbox.entries.remove(&number) else {
                continue;
            };
            let is_blocked = match again_to(&entry) {
                Some(device) => {
                    blocked_devices.contains(&device) || self.is_unanswered(&entry, device)
                }
                None => entry.is_in_order() && blocked.contains(&entry.user),
            };
            if is_blocked {
                blocked.insert(Arc::clone(&entry.user));
                blocked_devices.extend(again_to(&entry));
                self.outbox.entries.insert(number, entry);
                continue;
            }
            match self.seal(txn, &mut entry, now)? {
                Outcome::Sealed => {
                    if let Some(device) = again_to(&entry) {
                        blocked.insert(Arc::clone(&entry.user));
                        blocked_devices.insert(device);
                    }
                    entry.sequence = self.outbox.next_sequence();
                    entry.stage = Stage::Sealed;
                    self.outbox.open_receipts.retain(|_, open| *open != number);
                    self.outbox.put(number, entry);
                    (out, in_window) = self.outbox.in_flight();
                }
                Outcome::Wants(users) => {
                    let wanted = users.iter().map(|(user, _)| Arc::clone(user));
                    let may_wait = entry.wait_for_cards(wanted.collect());
                    if entry.is_in_order() {
                        blocked.insert(Arc::clone(&entry.user));
                        blocked_devices.extend(again_to(&entry));
                    }
                    self.outbox.entries.insert(number, entry);
                    if may_wait {
                        for (user, take) in users {
                            self.look_up(user, take);
                        }
                    } else {
                        let why = GivenUp::Refused(Refusal::DevicesChanged);
                        self.give_up(txn, number, &why, now)?;
                        blocked.extend(self.undelivered.resending());
                    }
                }
                Outcome::Behind => {
                    blocked.insert(Arc::clone(&entry.user));
                    self.outbox.entries.insert(number, entry);
                }
                Outcome::GivenUp(why) => {
                    self.outbox.entries.insert(number, entry);
                    self.give_up(txn, number, &why, now)?;
                }
            }
        }
        Ok(())
    }

    /// Entries to be sealed: first what has to come before everything that is new (`docs/protocol.md §8.3`).
    fn due(&self, now: Moment) -> Vec<u64> {
        let due = |entry: &Entry| match entry.stage {
            Stage::Waiting => true,
            Stage::Later(at) => at <= now,
            Stage::NeedsCards | Stage::Sealed | Stage::Sent => false,
        };
        let entries = || {
            self.outbox
                .entries
                .iter()
                .filter(move |(_, entry)| due(entry))
        };
        let again = |entry: &Entry| matches!(entry.purpose, Purpose::Again(_));
        let first = entries().filter(|(_, entry)| again(entry));
        let then = entries().filter(|(_, entry)| !again(entry));
        first.chain(then).map(|(number, _)| *number).collect()
    }

    fn seal(&mut self, txn: &mut Txn, entry: &mut Entry, now: Moment) -> Result<Outcome, Fatal> {
        let targets = match self.targets(txn, entry)? {
            Ok(targets) => targets,
            Err(outcome) => return Ok(outcome),
        };
        if entry.purpose == Purpose::Message && self.is_out_for_others(&entry.user, &targets) {
            return Ok(Outcome::Behind);
        }
        if let Purpose::Direct {
            device,
            fresh: true,
        } = entry.purpose
            && !entry.restarted
        {
            entry.restarted = true;
            self.restart.insert(device);
            return Ok(Outcome::Wants(vec![(Arc::clone(&entry.user), true)]));
        }
        let own = self.account.user.clone();
        let mut wanted = BTreeSet::new();
        let missing = |entry: &Entry, target: &Target| {
            let has = |part: &Sealed| part.target.device == target.device;
            !entry.parts.iter().any(has)
        };
        for target in targets.iter().filter(|target| missing(entry, target)) {
            let peer = txn.peer(&self.vault, target.device)?;
            if peer.needs_session(now.seconds()) || self.restart.contains(&target.device) {
                let of_own = own.clone().filter(|_| target.copy);
                wanted.insert(of_own.unwrap_or_else(|| Arc::clone(&entry.user)));
            }
        }
        if !wanted.is_empty() {
            let wanted = wanted.into_iter().map(|user| (user, true)).collect();
            return Ok(Outcome::Wants(wanted));
        }
        entry.parts.retain(|part| targets.contains(&part.target));
        let copy = targets.iter().any(|target| target.copy);
        let copy = if copy { copy_of(entry) } else { None };
        for target in &targets {
            if !missing(entry, target) {
                continue;
            }
            let content = match (&copy, target.copy) {
                (Some(copy), true) => copy,
                (None, true) => return Ok(Outcome::GivenUp(GivenUp::Refused(Refusal::TooLarge))),
                (_, false) => &entry.content,
            };
            let peer = txn.peer(&self.vault, target.device)?;
            let sealed = peer.seal(content, &mut self.rng);
            if sealed.is_err() {
                peer.forget_sessions();
            }
            txn.touch(target.device);
            match sealed {
                Ok(message) => {
                    if let Purpose::Direct { fresh: true, .. } = entry.purpose
                        && let Ok(sealed) = SealedMessage::decode(&message)
                    {
                        let session = sealed.header().session;
                        self.lost.asks_in(txn, target.device, session)?;
                    }
                    entry.parts.push(Sealed {
                        target: *target,
                        message,
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a session seals no more; a new one is needed");
                    let of_own = own.filter(|_| target.copy);
                    let user = of_own.unwrap_or_else(|| Arc::clone(&entry.user));
                    return Ok(Outcome::Wants(vec![(user, true)]));
                }
            }
        }
        Ok(if entry.parts.is_empty() {
            Outcome::GivenUp(GivenUp::NoOtherDevice)
        } else {
            Outcome::Sealed
        })
    }

    /// Whether a message to `user` is on its way for other devices than these: the relay may refuse it and take this one (§5.2),
    /// which would come before it.
    fn is_out_for_others(&self, user: &str, targets: &[Target]) -> bool {
        let same = |entry: &Entry| {
            entry.parts.len() == targets.len()
                && entry
                    .parts
                    .iter()
                    .all(|part| targets.contains(&part.target))
        };
        let mut entries = self.outbox.entries.values();
        entries.any(|entry| {
            entry.purpose == Purpose::Message
                && entry.is_out()
                && *entry.user == *user
                && !same(entry)
        })
    }

    /// Whether a message that a device is to get again is on its way to it for the first time: it is refused perhaps, and then nobody gets it.
    fn is_unanswered(&self, again: &Entry, device: Thumbprint) -> bool {
        let mut entries = self.outbox.entries.values();
        entries.any(|entry| {
            entry.id == again.id
                && entry.purpose == Purpose::Message
                && entry.is_out()
                && entry.target(device).is_some()
        })
    }

    /// The devices that an entry is for.
    fn targets(&self, txn: &Txn, entry: &Entry) -> Result<Result<Vec<Target>, Outcome>, Fatal> {
        let own = self.account.user.as_ref();
        let to_own = own == Some(&entry.user);
        if entry.is_in_order() && self.trust(txn, &entry.user)? == Some(Trust::Changed) {
            return Ok(Err(Outcome::GivenUp(GivenUp::PeerChanged)));
        }
        let wants = |user: &Arc<str>| Outcome::Wants(vec![(Arc::clone(user), true)]);
        if let Purpose::Again(target) = entry.purpose {
            // A copy goes to this user's own device, whomever the message was for.
            let user = if target.copy { own } else { Some(&entry.user) };
            let Some(user) = user else {
                return Ok(Err(Outcome::GivenUp(GivenUp::NoOtherDevice)));
            };
            return Ok(if self.has_device(txn, user, target.device)? {
                Ok(vec![target])
            } else {
                Err(Outcome::GivenUp(GivenUp::NoOtherDevice))
            });
        }
        if let Purpose::Direct { device, .. } = entry.purpose {
            return Ok(if self.has_device(txn, &entry.user, device)? {
                Ok(vec![Target {
                    device,
                    copy: false,
                }])
            } else {
                Err(wants(&entry.user))
            });
        }
        let Some(pinned) = txn
            .user(&self.vault, &entry.user)?
            .filter(|pinned| pinned.complete)
        else {
            return Ok(Err(wants(&entry.user)));
        };
        let target = |copy| move |device| Target { device, copy };
        let mut targets: Vec<_> = pinned.present().into_iter().map(target(false)).collect();
        if targets.is_empty() && to_own {
            return Ok(Err(Outcome::GivenUp(GivenUp::NoOtherDevice)));
        }
        if !(1..=limits::MAX_SEND_PARTS).contains(&targets.len()) {
            return Ok(Err(wants(&entry.user)));
        }
        if let Some(own) = own.filter(|_| !to_own) {
            if !self.knows_own_devices() {
                return Ok(Err(Outcome::Wants(vec![(Arc::clone(own), false)])));
            }
            let devices = txn
                .user(&self.vault, own)?
                .map_or_else(Vec::new, |pinned| pinned.present());
            targets.extend(devices.into_iter().map(target(true)));
        }
        Ok(Ok(targets))
    }

    pub(super) fn has_device(
        &self,
        txn: &Txn,
        user: &str,
        device: Thumbprint,
    ) -> Result<bool, Fatal> {
        let pinned = txn.user(&self.vault, user)?;
        Ok(pinned.is_some_and(|pinned| pinned.present().contains(&device)))
    }

    /// Starts the sessions that are missing, or have to be new, with the devices whose cards came.
    pub(super) fn start_sessions(
        &mut self,
        txn: &mut Txn,
        user: &Arc<str>,
        usable: Vec<Usable>,
        now: Moment,
    ) -> Result<Result<(), GivenUp>, Fatal> {
        let Some(own) = &self.own else {
            return Ok(Ok(()));
        };
        for Usable { card, one_time } in usable {
            let device = card.identity().device;
            let peer = txn.peer(&self.vault, device)?;
            let restart = self.restart.contains(&device);
            if !peer.needs_session(now.seconds()) && !restart {
                continue;
            }
            let started = peer.start(
                &self.keys,
                own,
                &card,
                one_time,
                &mut self.rng,
                now.seconds(),
            );
            if let Err(error) = started {
                tracing::warn!(%error, "no session can be started with a device");
                // Every token is taken over in time; this one was old when it came.
                let too_old = error == E2eError::Misuse(E2eMisuse::AttestationTooOld);
                return Ok(Err(if too_old {
                    GivenUp::Refused(Refusal::TokenRefused)
                } else {
                    GivenUp::Card(card_fault(&error))
                }));
            }
            txn.touch(device);
            if self.restart.remove(&device) && self.repairs.remove(&device) {
                let event = Event::SessionRepaired {
                    user: Arc::clone(user),
                    device,
                };
                self.inbox.push(txn, event)?;
            }
        }
        Ok(Ok(()))
    }
}

/// The device that an entry is for, if it is sealed again.
fn again_to(entry: &Entry) -> Option<Thumbprint> {
    match entry.purpose {
        Purpose::Again(target) => Some(target.device),
        Purpose::Message | Purpose::Direct { .. } => None,
    }
}

/// What the sender's own devices get of a message (`docs/protocol.md §9.3`).
fn copy_of(entry: &Entry) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let message = Content::decode(&entry.content).ok()?;
    let Kind::Message(body) = message.kind else {
        return None;
    };
    encode(&Content {
        kind: Kind::Copy {
            user: &entry.user,
            body,
        },
        ..message
    })
}
