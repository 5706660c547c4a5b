//! What the device knows and decides: sessions, peers, outbox and inbox. No sockets and no clock of its own.
//!
//! ```text
//!  application ── send, devices, … ──▶ ┌────────┐ ── poll_request ──▶ frames to the relay
//!                 answers ◀─────────── │ Engine │ ◀── handle_* ────── frames from the relay
//!                 events  ◀─────────── └────────┘ ── one Txn for each step ──▶ store
//! ```
//!
//! Four rules hold everywhere:
//! - A ciphertext is in the store, together with the ratchet step and the sequence that belong to it, before
//!   [`Engine::poll_request`] gives it out; what is given out again is the same ciphertext under the same sequence.
//! - A plaintext is in the store, together with the ratchet step that opened it, before the relay is told of [`Engine::position`].
//! - Nothing is sealed before the relay has said, in the first Ready after the store was opened, that the store is no earlier copy.
//! - After a [`Fatal`] error the engine is of no use any more: its memory may be ahead of the store. It is built anew.
//!
//! Drain rule: after every call of a `handle_*` method, and after every command, call [`Engine::settle`], which seals what is due
//! and commits all steps since the last time together; only then use [`Engine::poll_request`] until it gives `None`,
//! [`Engine::position`] and [`Engine::next_event`]. As many steps as are there may come before one `settle`.
//! Sockets, tokens and back-off are for [`connection`](crate::connection).

mod attestation;
mod inbox;
mod outbox;
mod peers;
mod publish;
mod receiving;
mod records;
mod repair;
mod sealing;
mod standard;
mod trust;
mod txn;
mod undelivered;
mod uploads;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand::CryptoRng;
use sealwire_e2e::device::{DeviceKeys, OwnIdentity};
use sealwire_e2e::error::{Error as E2eError, StateError};
use sealwire_e2e::one_time::OneTimePrekey;
use sealwire_e2e::prekeys::Prekeys;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{CardEntry, List, Ready};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;
use sealwire_protocol::token::AttestationPolicy;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::error::{NotAuthorised, Refusal, RelayFault};
use crate::event::{Event, MailboxGap};
use crate::issuer::TrustedIssuer;
use crate::store::vault::{Table, Vault};
use crate::store::{Store, StoreError, StoreKey};

use inbox::Inbox;
use outbox::{Entry, Outbox};
use peers::Lookup;
use publish::Publishing;
use receiving::Seen;
use records::{Account, MailboxPosition, PublishedState, Record, RelayKey};
use repair::Lost;
use tokio::sync::oneshot;
use txn::Txn;
use undelivered::Undelivered;

pub(crate) use inbox::Given;

/// Requests kept free for everything but messages, out of the 64 that may be open (`docs/protocol.md §5`).
const REQUESTS_BESIDE_SENDS: usize = 8;
/// The highest sequence that a relay may say it has accepted: more than any device can send.
const MAX_SEQUENCE: u64 = 1 << 62;

/// Milliseconds since 1970 by this device's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

impl Moment {
    pub(crate) fn seconds(self) -> u64 {
        self.0 / 1_000
    }
}

/// What ends the engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fatal {
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Relay(#[from] RelayFault),
    #[error("{0}")]
    NotAuthorised(#[from] NotAuthorised),
}

/// What the application chose.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) delivery_receipts: bool,
    pub(crate) only_verified: bool,
}

/// Where keys, ivs and ids come from.
pub(crate) type Rng = Box<dyn CryptoRng>;

pub(crate) struct Engine {
    vault: Vault,
    rng: Rng,
    keys: Arc<DeviceKeys>,
    prekeys: Prekeys,
    prekeys_changed: bool,
    issuer: TrustedIssuer,
    options: Options,
    account: Account,
    mailbox: MailboxPosition,
    mailbox_changed: bool,
    published: PublishedState,
    relay_key: Option<RelayKey>,
    own: Option<OwnIdentity>,
    outbox: Outbox,
    /// Entries of the outbox from here on are new since the store was opened.
    first_new_entry: u64,
    inbox: Inbox,
    undelivered: Undelivered,
    seen: Seen,
    lost: Lost,
    lookups: BTreeMap<Arc<str>, Lookup>,
    /// Devices with which the next session has to be a new one.
    restart: BTreeSet<Thumbprint>,
    /// Those of them with which there was one that is lost: the application is told.
    repairs: BTreeSet<Thumbprint>,
    /// Devices to be removed, and who waits for it.
    removals: VecDeque<Removal>,
    link: Option<Link>,
    /// As many one-time prekeys as the relay is to hold.
    full_prekeys: u8,
    /// The relay has said, since the store was opened, that it knows of nothing later.
    is_newest_copy: bool,
    /// The last token since the one that is this device's attestation.
    newer_token: Option<Zeroizing<String>>,
    /// What has changed since the last commit.
    txn: Txn,
    /// A step has begun. Where it has not ended either, it failed, and nothing is committed any more.
    in_step: bool,
    /// What is told once that is committed; the number of an event that says the same, if somebody has heard it.
    answers: Vec<Box<dyn FnOnce() -> Option<u64>>>,
}

/// A device to be removed.
struct Removal {
    device: Thumbprint,
    answer: oneshot::Sender<Result<(), Error>>,
}

/// What lasts as long as a link.
struct Link {
    next_request: u32,
    open: BTreeMap<u32, Open>,
    publishing: Publishing,
    /// Whether this user's own devices have been fetched.
    own_devices_known: bool,
    /// Whose device the relay says this is.
    user: Arc<str>,
    /// What had waited in the mailbox and is not here yet.
    recovering: Option<Recovering>,
}

struct Recovering {
    left: u32,
    /// What of it had not come before.
    new: u64,
}

/// A request that the relay has not answered.
enum Open {
    /// The card of this generation.
    Card(u32),
    Prekeys(u8),
    Fetch {
        user: Arc<str>,
        take: bool,
    },
    Send(u64),
    Remove(Removal),
    /// A request of the connection's own.
    Reserved,
}

/// A frame to send.
pub(crate) enum Request {
    PublishCard {
        request: u32,
        card: String,
    },
    PublishPrekeys {
        request: u32,
        replace: bool,
        prekeys: Vec<OneTimePrekey>,
    },
    FetchCards {
        request: u32,
        user: Arc<str>,
        take: bool,
    },
    /// The message is [`Engine::outgoing`] of `entry`.
    Send {
        request: u32,
        entry: u64,
    },
    RemoveDevice {
        request: u32,
        device: Thumbprint,
    },
}

/// A relay's answer to a request.
#[derive(Debug)]
pub(crate) enum Reply<'a> {
    Accepted,
    Refused(RefusalCode),
    Cards(List<'a, CardEntry<'a>>),
}

impl Engine {
    /// Opens the device store; makes the device's keys if there are none.
    pub(crate) fn open(
        store: Box<dyn Store>,
        key: &StoreKey,
        issuer: TrustedIssuer,
        options: Options,
        mut rng: Rng,
    ) -> Result<Self, StoreError> {
        let mut vault = Vault::open(store, key, &mut rng)?;
        let keys = match vault.read(&records::device_keys())? {
            Some(record) => DeviceKeys::decode(&record).map_err(|error| state_error(&error))?,
            None => {
                let keys = DeviceKeys::generate(&mut rng);
                let mut txn = Txn::default();
                txn.put_bytes(records::device_keys(), &keys.encode());
                txn.commit(&mut vault, &mut rng)?;
                keys
            }
        };
        let prekeys = match vault.read(&records::prekeys())? {
            Some(record) => Prekeys::decode(&record).map_err(|error| state_error(&error))?,
            None => Prekeys::new(),
        };
        let account = read_or_default::<Account>(&vault, &records::account())?;
        let mailbox = read_or_default(&vault, &records::mailbox())?;
        let published = read_or_default(&vault, &records::published())?;
        let relay_key = match vault.read(&records::relay_key())? {
            Some(record) => Some(RelayKey::decode(&record)?),
            None => None,
        };
        let own = match &account.attestation {
            Some(attestation) => {
                Some(OwnIdentity::new(&keys, attestation).map_err(|_| StoreError::Damaged)?)
            }
            None => None,
        };
        let entries = scan::<Entry>(&vault, Table::Outbox)?;
        let state = read_or_default(&vault, &records::send_state())?;
        Ok(Self {
            prekeys,
            prekeys_changed: false,
            issuer,
            options,
            account,
            mailbox,
            mailbox_changed: false,
            published,
            relay_key,
            own,
            first_new_entry: entries.last().map_or(1, |(number, _)| number + 1),
            outbox: Outbox::restore(entries, state),
            inbox: Inbox::restore(scan(&vault, Table::Inbox)?),
            undelivered: Undelivered::restore(
                scan(&vault, Table::Undelivered)?,
                read_or_default(&vault, &records::resending())?,
            ),
            seen: Seen::restore(scan(&vault, Table::Seen)?),
            lost: Lost::restore(
                scan(&vault, Table::Lost)?,
                read_or_default(&vault, &records::asked_sessions())?,
            ),
            lookups: BTreeMap::new(),
            restart: BTreeSet::new(),
            repairs: BTreeSet::new(),
            removals: VecDeque::new(),
            link: None,
            full_prekeys: publish::FULL_PREKEYS,
            is_newest_copy: false,
            newer_token: None,
            txn: Txn::default(),
            in_step: false,
            answers: Vec::new(),
            keys: Arc::new(keys),
            vault,
            rng,
        })
    }

    /// Lets the relay hold so many one-time prekeys: making a hundred takes longer than all the rest of a simulated run.
    #[cfg(feature = "simulation")]
    pub(crate) fn set_full_prekeys(&mut self, count: u8) {
        self.full_prekeys = count;
    }

    /// For a simulation that has to notice: from now on, nothing is known to have been shown.
    #[cfg(feature = "simulation")]
    pub(crate) fn forget_what_was_shown(&mut self) {
        self.seen.forget();
    }

    /// How much waits.
    #[cfg(feature = "simulation")]
    pub(crate) fn waiting(&self) -> crate::simulation::Waiting {
        let own = self.outbox.own_count();
        crate::simulation::Waiting {
            outgoing: self.outbox.entries.len() - own,
            own,
            events: self.inbox.len(),
            lost: self.lost.len(),
        }
    }

    /// How much is in its tables.
    #[cfg(feature = "simulation")]
    pub(crate) fn tables(&self) -> crate::simulation::Tables {
        let (followed, kept, kept_bytes, direct, resending) = self.undelivered.sizes();
        crate::simulation::Tables {
            followed,
            kept,
            kept_bytes,
            direct,
            resending,
            again: self.outbox.again_count(),
            seen: self.seen.len(),
            lost_of_a_device: self.lost.most_of_a_device(),
            lookups: self.lookups.len(),
            restarts: self.restart.len().max(self.repairs.len()),
            removals: self.removals.len(),
            requests: self.open_requests(),
        }
    }

    /// The highest sequence that a Send of this device had.
    #[cfg(feature = "simulation")]
    pub(crate) fn sequence(&self) -> u64 {
        self.outbox.state.sequence
    }

    /// Which history of the mailbox the position is of.
    #[cfg(feature = "simulation")]
    pub(crate) fn epoch(&self) -> [u8; 16] {
        self.mailbox.epoch
    }

    /// This device's keys.
    pub(crate) fn keys(&self) -> Arc<DeviceKeys> {
        Arc::clone(&self.keys)
    }

    /// The user whose device this is, once known.
    pub(crate) fn user(&self) -> Option<Arc<str>> {
        self.account.user.clone()
    }

    /// Whether an invite was redeemed.
    pub(crate) fn is_enrolled(&self) -> bool {
        self.account.enrolled
    }

    /// Remembers that the relay's built-in issuer knows this device.
    pub(crate) fn set_enrolled(&mut self) -> Result<(), Fatal> {
        if !self.account.enrolled {
            self.account.enrolled = true;
            let mut txn = self.begin();
            txn.put(records::account(), &self.account)?;
            self.stage(txn);
        }
        Ok(())
    }

    /// The key of the relay that the application knows by the key `named`: this one, or the one that has followed it.
    pub(crate) fn relay_key(&self, named: Thumbprint) -> Thumbprint {
        match &self.relay_key {
            Some(known) if known.named == named => known.current,
            Some(_) | None => named,
        }
    }

    /// The relay that the application knows by the key `named` has proved to have the key `current`: from now on no other is taken
    /// (`docs/protocol.md §3.9`).
    pub(crate) fn handle_relay_key(
        &mut self,
        named: Thumbprint,
        current: Thumbprint,
    ) -> Result<(), Fatal> {
        if self.relay_key(named) == current {
            return Ok(());
        }
        let known = RelayKey { named, current };
        let mut txn = self.begin();
        txn.put(records::relay_key(), &known)?;
        self.relay_key = Some(known);
        self.inbox
            .push(&mut txn, Event::RelayKeyChanged { relay: current })?;
        self.stage(txn);
        Ok(())
    }

    /// The link is open: what was under way on the one before starts again.
    pub(crate) fn handle_ready(&mut self, ready: &Ready<'_>, now: Moment) -> Result<(), Fatal> {
        match self.account.user.as_deref() {
            Some(user) if user != ready.user => return Err(NotAuthorised::OtherUser.into()),
            // Whose device this is only the issuer says, in the token that comes next: a relay's word is not kept.
            Some(_) | None => {}
        }
        if ready.sent > MAX_SEQUENCE {
            return Err(RelayFault::Record.into());
        }
        self.handle_disconnected();
        self.lost.link_begins();
        let mut txn = self.begin();
        let restored = self.is_earlier_copy(ready);
        if restored {
            self.replace_restored(&mut txn, ready, now)?;
        } else {
            self.undelivered.resend_after(ready.sent);
        }
        self.is_newest_copy = true;
        self.follow_mailbox(&mut txn, ready)?;
        self.stage(txn);
        let has_card = ready.has_card && self.relay_has_newest_card();
        self.link = Some(Link {
            next_request: 1,
            open: BTreeMap::new(),
            publishing: Publishing::new(has_card, ready.prekeys, self.published.replace),
            own_devices_known: false,
            user: ready.user.into(),
            recovering: Some(Recovering {
                left: ready.waiting,
                new: 0,
            }),
        });
        if ready.waiting == 0 {
            self.recovered();
        }
        self.look_up(ready.user.into(), false);
        Ok(())
    }

    /// §5.2: with a new epoch positions start again. A head behind our position is a mailbox that was put back to an earlier state: what
    /// comes after it is new, and must not be taken for known.
    fn follow_mailbox(&mut self, txn: &mut Txn, ready: &Ready<'_>) -> Result<(), Fatal> {
        let before = self.mailbox;
        let (position, gap) = if before.epoch != ready.epoch {
            let known = before.epoch != MailboxPosition::default().epoch;
            (0, known.then_some(MailboxGap::NewHistory))
        } else if before.position > ready.head {
            (ready.head, Some(MailboxGap::PutBack))
        } else {
            (before.position, None)
        };
        if let Some(gap) = gap {
            self.inbox.push(txn, Event::MailboxGap(gap))?;
        }
        // In an earlier copy of the store it is behind what a later one has acknowledged, and the relay has erased.
        self.mailbox = MailboxPosition {
            epoch: ready.epoch,
            position: position.max(ready.acknowledged),
        };
        self.mailbox_changed |= self.mailbox != before;
        Ok(())
    }

    /// The link is gone: nothing is under way any more, and everything that was stays to be done.
    pub(crate) fn handle_disconnected(&mut self) {
        if let Some(link) = self.link.take() {
            for (_, open) in link.open {
                if let Open::Remove(removal) = open {
                    self.removals.push_front(removal);
                }
            }
        }
        self.outbox.link_lost();
        for lookup in self.lookups.values_mut() {
            lookup.link_lost();
        }
    }

    /// Everything up to here is stored once everything is committed, and may be acknowledged to the relay then.
    pub(crate) fn position(&self) -> u64 {
        self.mailbox.position
    }

    /// Takes a position of the mailbox; `false` if it is known already.
    fn advance(&mut self, position: u64) -> bool {
        let new = position > self.mailbox.position;
        if new {
            self.mailbox.position = position;
            self.mailbox_changed = true;
        }
        if let Some(recovering) = self.link.as_mut().and_then(|link| link.recovering.as_mut()) {
            recovering.left = recovering.left.saturating_sub(1);
            recovering.new += u64::from(new);
            if recovering.left == 0 {
                self.recovered();
            }
        }
        new
    }

    /// What had waited at the relay is here.
    fn recovered(&mut self) {
        let recovering = self.link.as_mut().and_then(|link| link.recovering.take());
        if let Some(Recovering { new: messages, .. }) = recovering {
            self.inbox.pass(Event::Recovered { messages });
        }
    }

    /// Seals what is due, and commits everything that has changed since the last time. Whoever waits for something that is committed
    /// now is told. What the application is done with may stay for a little longer.
    pub(crate) fn settle(&mut self, now: Moment) -> Result<(), Fatal> {
        let erase = self.inbox.must_erase(now) || !self.txn.is_empty();
        self.commit(erase, now)
    }

    /// The same, and leaves nothing in the store that the application is done with.
    pub(crate) fn flush(&mut self, now: Moment) -> Result<(), Fatal> {
        self.commit(true, now)
    }

    fn commit(&mut self, erase: bool, now: Moment) -> Result<(), Fatal> {
        if self.in_step {
            return Ok(());
        }
        let mut txn = self.begin();
        if erase {
            self.erase_messages(&mut txn, now)?;
        }
        if self.is_ready() {
            self.ask_for_lost(&mut txn, now)?;
            self.make_publications(now);
            self.seal_due(&mut txn, now)?;
        }
        self.outbox.write_changes(&mut txn)?;
        self.undelivered.write_changes(&mut txn)?;
        if std::mem::take(&mut self.prekeys_changed) {
            txn.put_bytes(records::prekeys(), &self.prekeys.encode());
        }
        if std::mem::take(&mut self.mailbox_changed) {
            txn.put(records::mailbox(), &self.mailbox)?;
        }
        if erase || !txn.is_empty() {
            self.inbox.erase_others(&mut txn);
        }
        let txn = txn.commit(&mut self.vault, &mut self.rng)?;
        self.stage(txn);
        for answer in std::mem::take(&mut self.answers) {
            if let Some(event) = answer() {
                self.inbox.heard(event);
            }
        }
        Ok(())
    }

    /// The next frame to send, if there is one and the relay may get it. Only after [`settle`](Self::settle).
    pub(crate) fn poll_request(&mut self) -> Option<Request> {
        // Without an own attestation nothing can be sealed or published; the token comes right after Ready.
        let (Some(link), Some(_)) = (&self.link, &self.own) else {
            return None;
        };
        if link.open.len() >= limits::MAX_OPEN_REQUESTS {
            return None;
        }
        if let Some(request) = self.poll_publish() {
            return Some(request);
        }
        if let Some((user, take)) = self.lookups.iter_mut().find_map(|(user, lookup)| {
            let take = lookup.start()?;
            Some((Arc::clone(user), take))
        }) {
            let request = self.open_request(Open::Fetch {
                user: Arc::clone(&user),
                take,
            });
            return Some(Request::FetchCards {
                request,
                user,
                take,
            });
        }
        if let Some(removal) = self.removals.pop_front() {
            let device = removal.device;
            let request = self.open_request(Open::Remove(removal));
            return Some(Request::RemoveDevice { request, device });
        }
        if !self.may_send_now() {
            return None;
        }
        let entry = self.next_to_send()?;
        let request = self.open_request(Open::Send(entry));
        Some(Request::Send { request, entry })
    }

    /// When [`settle`](Self::settle) has to be called again although nothing else has happened; `None` while it would do nothing.
    pub(crate) fn poll_deadline(&self) -> Option<Moment> {
        let due = [self.send_deadline(), self.inbox.erase_by()];
        due.into_iter().flatten().min()
    }

    fn send_deadline(&self) -> Option<Moment> {
        // Until something is answered, nothing that is due could be sent.
        if !self.may_send_now() || !self.outbox.in_flight().1 {
            return None;
        }
        let again = self.outbox.again_count();
        let others = [
            self.outbox.deadline(),
            self.lost.deadline(),
            self.undelivered.deadline(again),
        ];
        others.into_iter().flatten().min()
    }

    /// Whether the relay may get another message.
    fn may_send_now(&self) -> bool {
        self.is_ready() && self.open_requests() + REQUESTS_BESIDE_SENDS < limits::MAX_OPEN_REQUESTS
    }

    /// Removes one of this user's devices, at the relay and so for everybody.
    pub(crate) fn remove_device(
        &mut self,
        device: Thumbprint,
        answer: oneshot::Sender<Result<(), Error>>,
    ) {
        if self.removals.len() < limits::MAX_DEVICES {
            self.removals.push_back(Removal { device, answer });
        } else {
            self.answer(answer, Err(Refusal::RateLimited.into()));
        }
    }

    /// A request id for a frame that the connection itself sends; its answer is not for the engine.
    pub(crate) fn reserve_request(&mut self) -> u32 {
        self.open_request(Open::Reserved)
    }

    /// The reserved request was answered.
    pub(crate) fn release_request(&mut self, request: u32) {
        if let Some(link) = &mut self.link {
            link.open.remove(&request);
        }
    }

    /// How many requests the relay has not answered.
    pub(crate) fn open_requests(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.open.len())
    }

    /// Whether the link is open and this device has an attestation.
    pub(crate) fn is_ready(&self) -> bool {
        self.link.is_some() && self.own.is_some()
    }

    /// The relay has answered a request.
    pub(crate) fn handle_reply(
        &mut self,
        request: u32,
        reply: &Reply<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        let open = self
            .link
            .as_mut()
            .and_then(|link| link.open.remove(&request));
        match (open.ok_or(RelayFault::Unasked)?, reply) {
            (Open::Card(generation), Reply::Accepted) => self.card_answered(generation, true)?,
            (Open::Card(generation), Reply::Refused(code)) => {
                tracing::warn!(
                    code = code.name(),
                    "the relay refuses this device's card: nobody can write to it"
                );
                self.card_answered(generation, false)?;
                if *code == RefusalCode::InvalidCard {
                    self.replace_attestation(now)?;
                }
            }
            (Open::Prekeys(count), Reply::Accepted) => {
                self.published_prekeys(count);
                self.set_replace(false)?;
            }
            (Open::Prekeys(_), Reply::Refused(code)) => {
                tracing::warn!(
                    code = code.name(),
                    "the relay refuses this device's one-time prekeys"
                );
                self.published_prekeys(0);
            }
            (Open::Fetch { user, take }, Reply::Cards(cards)) => {
                self.handle_cards(&user, take, *cards, now)?
            }
            (Open::Fetch { user, .. }, Reply::Refused(code)) => {
                self.handle_cards_refused(&user, refusal(*code), now)?;
            }
            (Open::Send(entry), Reply::Accepted) => self.handle_sent(entry)?,
            (Open::Send(entry), Reply::Refused(code)) => {
                self.handle_not_sent(entry, refusal(*code), now)?
            }
            (Open::Remove(Removal { answer, .. }), Reply::Accepted) => {
                self.answer(answer, Ok(()));
                if let Some(user) = self.account.user.clone() {
                    self.handle_device_changed(&user)?;
                }
            }
            (Open::Remove(removal), Reply::Refused(code)) => {
                self.answer(removal.answer, Err(refusal(*code).into()));
            }
            // The connection answers for its own requests before the engine is asked.
            (Open::Reserved, _)
            | (
                Open::Card(_) | Open::Prekeys(_) | Open::Send(_) | Open::Remove(_),
                Reply::Cards(_),
            )
            | (Open::Fetch { .. }, Reply::Accepted) => return Err(RelayFault::Unasked.into()),
        }
        Ok(())
    }

    /// The set of a user's devices has changed. Of users that are not known here, nobody cares.
    pub(crate) fn handle_device_changed(&mut self, user: &str) -> Result<(), Fatal> {
        let own = self.account.user.as_deref() == Some(user);
        if own && let Some(link) = &mut self.link {
            link.own_devices_known = false;
        }
        if own || self.txn.user(&self.vault, user)?.is_some() {
            self.look_up(user.into(), false);
        }
        Ok(())
    }

    /// What has changed so far, to be added to; [`stage`](Self::stage) puts it back.
    fn begin(&mut self) -> Txn {
        self.in_step = true;
        std::mem::take(&mut self.txn)
    }

    fn stage(&mut self, txn: Txn) {
        self.in_step = false;
        self.txn = txn;
    }

    /// Answers once what has changed so far is committed.
    pub(crate) fn answer<T: 'static>(&mut self, to: oneshot::Sender<T>, answer: T) {
        self.answers.push(Box::new(move || {
            // An error means that the caller has gone.
            let _ = to.send(answer);
            None
        }));
    }

    /// The same, for what an event in the inbox says too: it is not given to the application if the caller was there to hear.
    fn answer_or<T: 'static>(&mut self, to: oneshot::Sender<T>, answer: T, event: u64) {
        let tell = move || to.send(answer).is_ok().then_some(event);
        self.answers.push(Box::new(tell));
    }

    fn random_id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        self.rng.fill_bytes(&mut id);
        id
    }

    fn open_request(&mut self, open: Open) -> u32 {
        let Some(link) = &mut self.link else {
            return u32::MAX;
        };
        let request = link.next_request;
        link.next_request = link.next_request.checked_add(1).unwrap_or(1);
        link.open.insert(request, open);
        request
    }
}

/// What is asked of an attestation (`docs/protocol.md §2.3`).
fn policy(issuer: &TrustedIssuer, now: Moment) -> AttestationPolicy<'_> {
    AttestationPolicy {
        issuer: &issuer.name,
        audience: &issuer.audience,
        now: now.seconds(),
        max_age: issuer.max_age,
    }
}

fn read_or_default<R: Record + Default>(
    vault: &Vault,
    place: &crate::store::vault::Place,
) -> Result<R, StoreError> {
    vault
        .read(place)?
        .map_or_else(|| Ok(R::default()), |record| R::decode(&record))
}

fn scan<R: Record>(vault: &Vault, table: Table) -> Result<Vec<(u64, R)>, StoreError> {
    let records = vault.scan(table, usize::MAX)?;
    records
        .into_iter()
        .map(|(number, record)| Ok((number, R::decode(&record)?)))
        .collect()
}

fn state_error(error: &E2eError) -> StoreError {
    if matches!(error, E2eError::State(StateError::Version(_))) {
        StoreError::NewerVersion
    } else {
        StoreError::Damaged
    }
}

pub(crate) fn refusal(code: RefusalCode) -> Refusal {
    match code {
        RefusalCode::NotPermitted => Refusal::NotPermitted,
        RefusalCode::UnknownUser => Refusal::UnknownUser,
        RefusalCode::DevicesChanged => Refusal::DevicesChanged,
        RefusalCode::MailboxFull => Refusal::MailboxFull,
        RefusalCode::TooLarge => Refusal::TooLarge,
        RefusalCode::RateLimited => Refusal::RateLimited,
        RefusalCode::InvalidCard => Refusal::InvalidCard,
        RefusalCode::TooMany => Refusal::TooMany,
        RefusalCode::TokenRefused => Refusal::TokenRefused,
        RefusalCode::Unavailable => Refusal::Unavailable,
        RefusalCode::OwnDevicesChanged => Refusal::OwnDevicesChanged,
        RefusalCode::Quota => Refusal::Quota,
        RefusalCode::Stale => Refusal::Stale,
        RefusalCode::UnknownDevice => Refusal::UnknownDevice,
        RefusalCode::UnknownBlob => Refusal::UnknownBlob,
        RefusalCode::BlobConflict => Refusal::BlobConflict,
        RefusalCode::StorageFull => Refusal::StorageFull,
        RefusalCode::Overtaken => Refusal::Overtaken,
        RefusalCode::UnknownService => Refusal::UnknownService,
        RefusalCode::ServiceFailed => Refusal::ServiceFailed,
        RefusalCode::ServiceTimeout => Refusal::ServiceTimeout,
    }
}
