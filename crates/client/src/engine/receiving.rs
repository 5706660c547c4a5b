//! Messages that arrive: opened, stored and made into events in one step, and only then acknowledged.
//!
//! ```text
//!  Deliver ──▶ open ──┬── no ──▶ shown before? nothing.  Lost? asked for again (`repair`).  Else Undecryptable ──▶ position
//!                     │ yes
//!                     ▼             (a standard JWE: `standard`)
//!                  content ──▶ shown before? confirmed once more.  Else Message, Copy, receipts, repairs ──▶ position
//! ```
//!
//! A message that cannot be opened is recorded and passed: a mailbox never gets stuck.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use sealwire_e2e::content::{Body, Content, Kind, MessageIds};
use sealwire_e2e::error::{Error as E2eError, Misbehaved};
use sealwire_e2e::message::SealedMessage;
use sealwire_e2e::peer::{Local, Opened, SessionId};
use sealwire_e2e::standard;
use sealwire_protocol::frame::{Deliver, Undelivered};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::{ClaimDefect, TokenError};

use super::outbox::{Purpose, encode};
use super::records::{SeenMessage, SeenRecord};
use super::repair::Why;
use super::txn::Txn;
use super::{Engine, Fatal, Moment, policy};
use crate::error::RelayFault;
use crate::event::{Event, MailboxGap, NotDelivered};
use crate::message::{Message, MessageId, Received};
use crate::store::vault::{Place, Table};

/// Messages that are remembered; the oldest are forgotten first.
const SEEN_LIMIT: usize = 4_096;
/// Messages that one receipt tells of.
const RECEIPT_IDS: usize = 256;

/// The messages that arrived last, and what became of them: the sender's word for those that were opened, the relay's for others.
pub(super) struct Seen {
    next: u64,
    order: VecDeque<(u64, SeenMessage)>,
    /// The row of each, and whether it was opened.
    messages: HashMap<SeenMessage, (u64, bool)>,
    /// For a simulation that has to notice: everything is new.
    #[cfg(feature = "simulation")]
    forgets: bool,
}

impl Seen {
    pub(super) fn restore(records: Vec<(u64, SeenRecord)>) -> Self {
        let next = records.last().map_or(1, |(number, _)| number + 1);
        let order = records.iter().map(|(number, seen)| (*number, seen.message));
        let messages = records
            .iter()
            .map(|(number, seen)| (seen.message, (*number, seen.opened)));
        Self {
            next,
            order: order.collect(),
            messages: messages.collect(),
            #[cfg(feature = "simulation")]
            forgets: false,
        }
    }

    #[cfg(feature = "simulation")]
    pub(super) fn forget(&mut self) {
        self.forgets = true;
    }

    #[cfg(feature = "simulation")]
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether it was opened, or told as one that cannot be.
    pub(super) fn contains(&self, message: &SeenMessage) -> bool {
        self.messages.contains_key(message)
    }

    /// Notes that a message was opened, or told; `false` if it was opened before.
    pub(super) fn insert(
        &mut self,
        txn: &mut Txn,
        message: SeenMessage,
        opened: bool,
    ) -> Result<bool, Fatal> {
        #[cfg(feature = "simulation")]
        if self.forgets {
            return Ok(true);
        }
        let record = SeenRecord { message, opened };
        match self.messages.get_mut(&message) {
            Some((_, true)) => return Ok(false),
            Some((number, known)) => {
                *known = opened;
                txn.put(Place::number(Table::Seen, *number), &record)?;
                return Ok(true);
            }
            None => {}
        }
        while self.order.len() >= SEEN_LIMIT {
            let Some((number, oldest)) = self.order.pop_front() else {
                break;
            };
            self.messages.remove(&oldest);
            txn.remove(Place::number(Table::Seen, number));
        }
        txn.put(Place::number(Table::Seen, self.next), &record)?;
        self.order.push_back((self.next, message));
        self.messages.insert(message, (self.next, opened));
        self.next += 1;
        Ok(true)
    }
}

/// Why a message was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// Its session or key is not here: a new session may help.
    Lost,
    /// It comes from the future: a clock is wrong, here or there, and will be right.
    Early,
    /// It is not what it may be.
    Refused,
}

impl Engine {
    /// A message from the mailbox. Afterwards [`position`](Engine::position) covers it.
    pub(crate) fn handle_deliver(
        &mut self,
        deliver: &Deliver<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        if self.own.is_none() {
            // Nobody can have sealed anything for a device that never had an attestation.
            return Err(RelayFault::Unasked.into());
        }
        if !self.advance(deliver.position) {
            return Ok(());
        }
        let mut txn = self.begin();
        self.receive(&mut txn, deliver, now)?;
        self.stage(txn);
        Ok(())
    }

    /// A message of this device's will not reach another one, says the relay.
    pub(crate) fn handle_undelivered(&mut self, notice: &Undelivered<'_>) -> Result<(), Fatal> {
        use sealwire_protocol::frame::UndeliveredReason;
        if self.advance(notice.position) {
            let reason = match notice.reason {
                UndeliveredReason::Expired => NotDelivered::Expired,
                UndeliveredReason::DeviceRemoved => NotDelivered::DeviceRemoved,
                UndeliveredReason::MailboxFull => NotDelivered::MailboxFull,
            };
            let mut txn = self.begin();
            self.hear(&mut txn, notice.id, notice.device, Err(reason), None)?;
            self.stage(txn);
        }
        Ok(())
    }

    /// Something in the mailbox was damaged on the relay's disk.
    pub(crate) fn handle_damaged(&mut self, position: u64) -> Result<(), Fatal> {
        if self.advance(position) {
            let mut txn = self.begin();
            let gap = Event::MailboxGap(MailboxGap::Damaged);
            self.inbox.push(&mut txn, gap)?;
            self.stage(txn);
        }
        Ok(())
    }

    fn receive(&mut self, txn: &mut Txn, deliver: &Deliver<'_>, now: Moment) -> Result<(), Fatal> {
        let user: Arc<str> = deliver.user.into();
        if standard::is_standard(deliver.message) {
            return self.receive_standard(txn, deliver, user, now);
        }
        if !self.admits_device(txn, &user, deliver.device)? {
            // The directory was asked: it may have taken the place of another.
            return self.not_opened(txn, deliver, user, NotOpened::Lost);
        }
        let opened = match self.open_message(txn, deliver, now)? {
            Ok(opened) => opened,
            Err(why) => return self.not_opened(txn, deliver, user, why),
        };
        if let Some(started) = &opened.started {
            // The one-time prekey is erased in the same step that opens the message (§6.2).
            self.prekeys_changed = true;
            if let (Some(_), Some(link)) = (started.one_time, &mut self.link) {
                link.publishing.used_one();
            }
        }
        txn.touch(deliver.device);
        // What the issuer attests decides whose device it is; that the relay says the same is checked.
        let attested = txn
            .peer(&self.vault, deliver.device)?
            .identity()
            .map(|identity| identity.user.clone());
        let message = SeenMessage {
            device: deliver.device,
            id: deliver.id,
        };
        if attested.is_none_or(|attested| attested.as_str() != deliver.user) {
            return self.undecryptable(txn, message, user);
        }
        self.device_seen(txn, &user, deliver.device, now)?;
        if opened.missing > 0 {
            let gap = Event::Gap {
                user: Arc::clone(&user),
                device: deliver.device,
                missing: opened.missing,
            };
            self.inbox.push(txn, gap)?;
        }
        match Content::decode(&opened.content) {
            Ok(content) => {
                // §8.3: its sender may have no other session than the one that this came in.
                if matches!(content.kind, Kind::Resend(_)) {
                    let peer = txn.peer(&self.vault, deliver.device)?;
                    peer.prefer(opened.session);
                }
                self.take_content(txn, message, user, &content, opened.session, now)
            }
            Err(_) => self.undecryptable(txn, message, user),
        }
    }

    /// `message` is the content's frame, and `session` what it came in.
    fn take_content(
        &mut self,
        txn: &mut Txn,
        message: SeenMessage,
        user: Arc<str>,
        content: &Content<'_>,
        session: SessionId,
        now: Moment,
    ) -> Result<(), Fatal> {
        // What the relay calls it is not known to be true; what is in it is.
        let opened = SeenMessage {
            id: content.id,
            ..message
        };
        // One that was sent before is still to come: this one waits for it.
        if matches!(content.kind, Kind::Message(_) | Kind::Copy { .. })
            && content.id == message.id
            && !self.seen.contains(&opened)
            && self.lost.is_behind(&opened, session)
            && let Some(content) = encode(content)
            && self.is_kept(txn, opened, &user, Why::Waits { session, content })?
        {
            return Ok(());
        }
        self.show(txn, message, user, content, now)?;
        self.release(txn, message.device, now)
    }

    /// `message` is the content's frame. Everything that was sent before it was there, or never comes.
    pub(super) fn show(
        &mut self,
        txn: &mut Txn,
        message: SeenMessage,
        user: Arc<str>,
        content: &Content<'_>,
        now: Moment,
    ) -> Result<(), Fatal> {
        let opened = SeenMessage {
            id: content.id,
            ..message
        };
        // It may be one that was asked for, or that is sealed again because its receipt was lost.
        self.lost.remove(txn, &opened);
        let new = self.seen.insert(txn, opened, true)?;
        if !new && !matches!(content.kind, Kind::Message(_) | Kind::Copy { .. }) {
            return Ok(());
        }
        let device = message.device;
        let received = |body: &Body<'_>| Received {
            id: MessageId(message.id),
            from: Arc::clone(&user),
            device,
            sent_at: content.time,
            redelivered: false,
            forward_secrecy: true,
            message: Message::new(body.media_type, body.bytes),
            handle: None,
        };
        let own = self.account.user.as_ref() == Some(&user);
        // §9.3: of kinds 0 and 2 the id is that of the frame; a copy comes from this user's own devices only.
        let event = match &content.kind {
            Kind::Message(body) if content.id == message.id => Event::Message(received(body)),
            Kind::Copy { user: to, body } if content.id == message.id && own => Event::Copy {
                to: (*to).into(),
                message: received(body),
            },
            Kind::Delivered(ids) => {
                for id in *ids {
                    self.handle_delivered(txn, *id, &user, device)?;
                }
                return Ok(());
            }
            Kind::Read(ids) => {
                let known = own || self.has_written_to(txn, &user)?;
                for id in ids.iter().filter(|_| known) {
                    self.handle_delivered(txn, *id, &user, device)?;
                    let (id, user) = (MessageId(*id), Arc::clone(&user));
                    self.inbox.push(txn, Event::Read { id, user, device })?;
                }
                return Ok(());
            }
            Kind::Resend(ids) => {
                return self.handle_resend(txn, &user, device, *ids, now);
            }
            Kind::Unavailable(ids) => {
                for id in *ids {
                    self.never_comes(txn, SeenMessage { device, id: *id })?;
                }
                return Ok(());
            }
            Kind::Name(name) if own => return self.device_named(txn, &user, device, name),
            Kind::Empty => return Ok(()),
            Kind::Message(_) | Kind::Copy { .. } | Kind::Name(_) => {
                return self.undecryptable(txn, message, user);
            }
        };
        if new {
            self.inbox.push(txn, event)?;
        }
        self.confirm(txn, &user, device, message.id, false, now)
    }

    /// Tells the sender of a message that it is stored, or read: together with others that are not on their way yet. Somebody to whom this
    /// user has never written is told nothing (`docs/protocol.md §9.3`).
    pub(super) fn confirm(
        &mut self,
        txn: &Txn,
        user: &Arc<str>,
        device: Thumbprint,
        id: [u8; 16],
        read: bool,
        now: Moment,
    ) -> Result<(), Fatal> {
        let own = self.account.user.as_ref() == Some(user);
        if !self.options.delivery_receipts || !own && !self.has_written_to(txn, user)? {
            return Ok(());
        }
        let key = (device, read);
        if let Some(number) = self.outbox.open_receipts.get(&key).copied()
            && let Some(mut entry) = self.outbox.entries.remove(&number)
        {
            let added = with_id(&entry.content, id);
            let done = added.is_some();
            entry.content = added.unwrap_or(entry.content);
            self.outbox.put(number, entry);
            if done {
                return Ok(());
            }
        }
        let ids = [id];
        let ids = MessageIds::from(ids.as_slice());
        let content = Content {
            id: self.random_id(),
            time: now.0,
            kind: if read {
                Kind::Read(ids)
            } else {
                Kind::Delivered(ids)
            },
        };
        let purpose = Purpose::Direct {
            device,
            fresh: false,
        };
        if let Some(number) = self.enqueue_own(Arc::clone(user), purpose, &content) {
            self.outbox.open_receipts.insert(key, number);
        }
        Ok(())
    }

    /// Opens a message in its session, or in the one that it starts. After `Err` nothing has changed.
    fn open_message(
        &mut self,
        txn: &mut Txn,
        deliver: &Deliver<'_>,
        now: Moment,
    ) -> Result<Result<Opened, NotOpened>, Fatal> {
        let Some(own) = &self.own else {
            return Ok(Err(NotOpened::Refused));
        };
        let Ok(message) = SealedMessage::decode(deliver.message) else {
            return Ok(Err(NotOpened::Refused));
        };
        let local = Local {
            keys: &self.keys,
            own,
            prekeys: &mut self.prekeys,
        };
        let peer = txn.peer(&self.vault, deliver.device)?;
        let policy = policy(&self.issuer, now);
        match peer.open(local, &message, &*self.issuer.keys, &policy) {
            Ok(opened) => Ok(Ok(opened)),
            Err(error) => {
                tracing::info!(%error, "a message does not open");
                // A repetition is also what the next message of a session is that was started without a one-time prekey and is
                // lost here. Clocks that differ, and mail that has waited long, are nobody's fault.
                let lost = matches!(
                    error,
                    E2eError::Decrypt
                        | E2eError::Gone(_)
                        | E2eError::Misbehaved(Misbehaved::Replay | Misbehaved::ProofTooOld)
                        | E2eError::Attestation(TokenError::Claim {
                            defect: ClaimDefect::TooOld,
                            ..
                        })
                );
                let early = matches!(
                    error,
                    E2eError::Misbehaved(Misbehaved::ProofInFuture)
                        | E2eError::Attestation(TokenError::Claim {
                            defect: ClaimDefect::InFuture,
                            ..
                        })
                );
                // Only a first message is asked for of somebody of whom nothing is known, and was not in an earlier copy of the store: what
                // follows may be anything.
                let known = message.header().first.is_some()
                    || self.account.restored
                    || txn
                        .user(&self.vault, deliver.user)?
                        .is_some_and(|pinned| pinned.present().contains(&deliver.device));
                Ok(Err(match (known, lost, early) {
                    (true, true, _) => NotOpened::Lost,
                    (true, false, true) => NotOpened::Early,
                    (true, false, false) | (false, ..) => NotOpened::Refused,
                }))
            }
        }
    }

    /// A message that does not open: nothing if it was shown before, asked for again where that may help, and told otherwise.
    pub(super) fn not_opened(
        &mut self,
        txn: &mut Txn,
        deliver: &Deliver<'_>,
        user: Arc<str>,
        why: NotOpened,
    ) -> Result<(), Fatal> {
        let message = SeenMessage {
            device: deliver.device,
            id: deliver.id,
        };
        if self.seen.contains(&message) {
            return Ok(());
        }
        let early = why == NotOpened::Early;
        if early || why == NotOpened::Lost {
            let session = SealedMessage::decode(deliver.message)
                .ok()
                .map(|message| message.header().session);
            let why = Why::DidNotOpen { session, early };
            if self.is_kept(txn, message, &user, why)? {
                return Ok(());
            }
        }
        self.undecryptable(txn, message, user)
    }

    /// Remembers a message that is not shown yet; `false` if there are too many.
    pub(super) fn is_kept(
        &mut self,
        txn: &mut Txn,
        message: SeenMessage,
        user: &Arc<str>,
        why: Why,
    ) -> Result<bool, Fatal> {
        let is_stranger = !self.is_own(user) && !self.has_written_to(txn, user)?;
        self.lost.insert(txn, message, user, is_stranger, why)
    }

    /// Tells the application of a message that will never be read.
    pub(super) fn undecryptable(
        &mut self,
        txn: &mut Txn,
        message: SeenMessage,
        user: Arc<str>,
    ) -> Result<(), Fatal> {
        self.seen.insert(txn, message, false)?;
        let event = Event::Undecryptable {
            id: MessageId(message.id),
            user,
            device: message.device,
        };
        self.inbox.push(txn, event).map(drop)
    }
}

/// A receipt with one more id; `None` if it has as many as there may be, or has this one.
fn with_id(receipt: &[u8], id: [u8; 16]) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    let content = Content::decode(receipt).ok()?;
    let (ids, kind): (_, fn(_) -> _) = if let Kind::Delivered(ids) = content.kind {
        (ids, Kind::Delivered)
    } else if let Kind::Read(ids) = content.kind {
        (ids, Kind::Read)
    } else {
        return None;
    };
    if ids.len() >= RECEIPT_IDS {
        return None;
    }
    let mut more = ids.as_slice().to_vec();
    more.push(id);
    let kind = kind(MessageIds::from(more.as_slice()));
    encode(&Content { kind, ..content })
}
