//! What the device knows and decides: sessions, peers, outbox and inbox. No sockets and no clock of its own.
//!
//! ```text
//!  application ── send, devices, … ──▶ ┌────────┐ ── poll_request ──▶ frames to the relay
//!                 answers ◀─────────── │ Engine │ ◀── handle_* ────── frames from the relay
//!                 events  ◀─────────── └────────┘ ── one Txn for each step ──▶ store
//! ```
//!
//! Three rules hold everywhere:
//! - A ciphertext is in the store, together with the ratchet step that made it, before [`Engine::poll_request`] gives it out; what is
//!   given out again is the same ciphertext under the same id.
//! - A plaintext is in the store, together with the ratchet step that opened it, before [`Engine::position`] covers it.
//! - After a [`Fatal`] error the engine is of no use any more: its memory may be ahead of the store. It is built anew.
//!
//! Drain rule: after every call of a `handle_*` method, and after every command, call `poll_request` until it gives `None`.
//! Sockets, tokens and back-off are for [`connection`](crate::connection).

mod inbox;
mod outbox;
mod peers;
mod publish;
mod records;
mod txn;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use sealwire_e2e::device::{DeviceKeys, OwnIdentity};
use sealwire_e2e::error::{Error as E2eError, StateError};
use sealwire_e2e::one_time::OneTimePrekey;
use sealwire_e2e::prekeys::Prekeys;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{CardEntry, List, Ready};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits;
use sealwire_protocol::token::{AttestationPolicy, UnverifiedAttestation};

use crate::error::{NotAuthorised, Refusal, RelayFault};
use crate::event::Event;
use crate::issuer::TrustedIssuer;
use crate::store::vault::{Table, Vault};
use crate::store::{MAX_SCAN_ROWS, Store, StoreError, StoreKey};

use inbox::Seen;
use outbox::{Entry, Stage, Undelivered};
use peers::Lookup;
use publish::Publishing;
use records::{Account, MailboxPosition, PublishedCard, Record, UndeliveredRecord};
use txn::Txn;

pub(crate) use outbox::OutgoingSend;

/// Requests kept free for everything but messages, out of the 64 that may be open (`docs/protocol.md §5`).
const REQUESTS_BESIDE_SENDS: usize = 8;
/// The attestation in use is replaced by a new token's once it is this old, in seconds: a card's age of renewal.
const ATTESTATION_RENEWAL: u64 = limits::CARD_RENEWAL_DAYS * 24 * 60 * 60;

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

pub(crate) struct Engine {
    vault: Vault,
    keys: Arc<DeviceKeys>,
    prekeys: Prekeys,
    issuer: TrustedIssuer,
    options: Options,
    account: Account,
    mailbox: MailboxPosition,
    published_card: PublishedCard,
    own: Option<OwnIdentity>,
    outbox: BTreeMap<u64, Entry>,
    inbox: VecDeque<(u64, Event)>,
    next_inbox: u64,
    undelivered: Undelivered,
    seen: Seen,
    lookups: BTreeMap<Arc<str>, Lookup>,
    /// When a new session was last started with a device because its messages did not open.
    repaired: HashMap<Thumbprint, u64>,
    /// The highest sequence of a Send so far (`docs/protocol.md §5.1`).
    last_sequence: u64,
    link: Option<Link>,
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
    ) -> Result<Self, StoreError> {
        let mut vault = Vault::open(store, key, &mut rand::rng())?;
        let keys = match vault.read(&records::device_keys())? {
            Some(record) => DeviceKeys::decode(&record).map_err(|error| state_error(&error))?,
            None => {
                let keys = DeviceKeys::generate(&mut rand::rng());
                let mut txn = Txn::default();
                txn.put_bytes(records::device_keys(), &keys.encode());
                txn.commit(&mut vault)?;
                keys
            }
        };
        let prekeys = match vault.read(&records::prekeys())? {
            Some(record) => Prekeys::decode(&record).map_err(|error| state_error(&error))?,
            None => Prekeys::new(),
        };
        let account = read_or_default::<Account>(&vault, &records::account())?;
        let mailbox = read_or_default(&vault, &records::mailbox())?;
        let published_card = read_or_default(&vault, &records::published_card())?;
        let own = match &account.attestation {
            Some(attestation) => {
                Some(OwnIdentity::new(&keys, attestation).map_err(|_| StoreError::Damaged)?)
            }
            None => None,
        };
        let outbox = scan::<Entry>(&vault, Table::Outbox)?.into_iter().collect();
        let inbox = scan::<Event>(&vault, Table::Inbox)?;
        Ok(Self {
            prekeys,
            issuer,
            options,
            account,
            mailbox,
            published_card,
            own,
            outbox,
            next_inbox: inbox.last().map_or(1, |(number, _)| number + 1),
            inbox: inbox.into(),
            undelivered: Undelivered::restore(scan::<UndeliveredRecord>(
                &vault,
                Table::Undelivered,
            )?),
            seen: Seen::restore(scan(&vault, Table::Seen)?),
            lookups: BTreeMap::new(),
            repaired: HashMap::new(),
            last_sequence: 0,
            link: None,
            keys: Arc::new(keys),
            vault,
        })
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
            let mut txn = Txn::default();
            txn.put(records::account(), &self.account)?;
            txn.commit(&mut self.vault)?;
        }
        Ok(())
    }

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
            return Ok(());
        }
        self.own =
            Some(OwnIdentity::new(&self.keys, token).map_err(|_| NotAuthorised::Attestation)?);
        self.account.user = Some(attestation.user().as_str().into());
        self.account.attestation = Some(token.to_owned());
        let mut txn = Txn::default();
        txn.put(records::account(), &self.account)?;
        txn.commit(&mut self.vault)?;
        Ok(())
    }

    /// The link is open: what was under way on the one before starts again.
    pub(crate) fn handle_ready(&mut self, ready: &Ready<'_>) -> Result<(), Fatal> {
        match self.account.user.as_deref() {
            Some(user) if user != ready.user => return Err(NotAuthorised::OtherUser.into()),
            // Whose device this is only the issuer says, in the token that comes next: a relay's word is not kept.
            Some(_) | None => {}
        }
        // §5.2: with a new epoch positions start again. A head behind our position is a mailbox that was put back to an earlier
        // state: what comes after it is new, and must not be taken for known.
        let position = if self.mailbox.epoch == ready.epoch {
            self.mailbox.position.min(ready.head)
        } else {
            0
        };
        let mailbox = MailboxPosition {
            epoch: ready.epoch,
            position,
        };
        if self.mailbox != mailbox {
            self.mailbox = mailbox;
            let mut txn = Txn::default();
            txn.put(records::mailbox(), &self.mailbox)?;
            txn.commit(&mut self.vault)?;
        }
        self.last_sequence = self.last_sequence.max(ready.sent);
        self.handle_disconnected();
        let has_card = ready.has_card && self.relay_has_newest_card();
        self.link = Some(Link {
            next_request: 1,
            open: BTreeMap::new(),
            publishing: Publishing::new(has_card, ready.prekeys),
            own_devices_known: false,
            user: ready.user.into(),
        });
        self.look_up(ready.user.into(), false);
        for entry in self.outbox.values() {
            if entry.stage == Stage::NeedsCards {
                self.lookups
                    .entry(Arc::clone(&entry.user))
                    .or_default()
                    .want(true);
            }
        }
        Ok(())
    }

    /// The link is gone: nothing is under way any more, and everything that was stays to be done.
    pub(crate) fn handle_disconnected(&mut self) {
        self.link = None;
        for entry in self.outbox.values_mut() {
            entry.link_lost();
        }
        for lookup in self.lookups.values_mut() {
            lookup.link_lost();
        }
    }

    /// Everything up to here is stored, and may be acknowledged to the relay.
    pub(crate) fn position(&self) -> u64 {
        self.mailbox.position
    }

    /// The next frame to send, if there is one and the relay may get it.
    pub(crate) fn poll_request(&mut self, now: Moment) -> Result<Option<Request>, Fatal> {
        // Without an own attestation nothing can be sealed or published; the token comes right after Ready.
        let (Some(link), Some(_)) = (&self.link, &self.own) else {
            return Ok(None);
        };
        let open = link.open.len();
        if open >= limits::MAX_OPEN_REQUESTS {
            return Ok(None);
        }
        if let Some(request) = self.poll_publish(now)? {
            return Ok(Some(request));
        }
        if let Some((user, take)) = self.lookups.iter_mut().find_map(|(user, lookup)| {
            let take = lookup.start()?;
            Some((Arc::clone(user), take))
        }) {
            let request = self.open_request(Open::Fetch {
                user: Arc::clone(&user),
                take,
            });
            return Ok(Some(Request::FetchCards {
                request,
                user,
                take,
            }));
        }
        if !self.may_send_now() {
            return Ok(None);
        }
        let Some(entry) = self.next_to_send(now) else {
            return Ok(None);
        };
        let request = self.open_request(Open::Send(entry));
        Ok(Some(Request::Send { request, entry }))
    }

    /// Whether the relay may get another message.
    fn may_send_now(&self) -> bool {
        self.is_ready() && self.open_requests() + REQUESTS_BESIDE_SENDS < limits::MAX_OPEN_REQUESTS
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
            }
            (Open::Prekeys(count), Reply::Accepted) => self.published_prekeys(count),
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
            // The connection answers for its own requests before the engine is asked.
            (Open::Reserved, _)
            | (Open::Card(_) | Open::Prekeys(_) | Open::Send(_), Reply::Cards(_))
            | (Open::Fetch { .. }, Reply::Accepted) => return Err(RelayFault::Unasked.into()),
        }
        Ok(())
    }

    /// The set of this user's own devices has changed.
    pub(crate) fn handle_device_changed(&mut self, user: &str) {
        if self.account.user.as_deref() == Some(user) {
            if let Some(link) = &mut self.link {
                link.own_devices_known = false;
            }
            self.look_up(user.into(), false);
        }
    }

    /// Commits a step.
    fn commit(&mut self, txn: Txn) -> Result<(), Fatal> {
        Ok(txn.commit(&mut self.vault)?)
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

    fn attestation_is_fresh(&self, now: Moment) -> bool {
        let Some(attestation) = &self.account.attestation else {
            return false;
        };
        UnverifiedAttestation::parse(attestation.as_bytes()).is_ok_and(|parsed| {
            parsed.claims().issued.saturating_add(ATTESTATION_RENEWAL) > now.seconds()
        })
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
    let records = vault.scan(table, MAX_SCAN_ROWS)?;
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

fn refusal(code: RefusalCode) -> Refusal {
    match code {
        RefusalCode::NotPermitted => Refusal::NotPermitted,
        RefusalCode::UnknownUser => Refusal::UnknownUser,
        RefusalCode::DevicesChanged => Refusal::DevicesChanged,
        RefusalCode::MailboxFull | RefusalCode::Quota => Refusal::MailboxFull,
        RefusalCode::TooLarge => Refusal::TooLarge,
        RefusalCode::RateLimited => Refusal::RateLimited,
        RefusalCode::InvalidCard => Refusal::InvalidCard,
        RefusalCode::TooMany => Refusal::TooMany,
        RefusalCode::TokenRefused => Refusal::TokenRefused,
        RefusalCode::Unavailable
        | RefusalCode::OwnDevicesChanged
        | RefusalCode::Stale
        | RefusalCode::UnknownDevice
        | RefusalCode::UnknownBlob
        | RefusalCode::BlobConflict
        | RefusalCode::StorageFull => Refusal::Unavailable,
    }
}
