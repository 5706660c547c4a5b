//! Takes a posting: whether there is room for every part, and their positions and places.
use std::sync::Arc;

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits as protocol_limits;
use sealwire_protocol::name::User;

use super::core::{Core, Queued};
use super::index::{DeviceNumber, Entry, Full, MAX_NOTICES, NO_SEQUENCE, Sequence, What};
use super::recent::{LeftOut, Post, PostPart};
use super::record::{MAIL_BYTES, NOTICE_BYTES, Place};
use super::sweep::NOTICE_MILLIS;
use super::users::UserNumber;
use super::{MailboxLimits, PostError, Posting, UndeliveredReason};
use crate::storage::StorageError;

/// What becomes of a posting: nothing has changed yet, and nothing has a place.
struct Decided {
    parts: Vec<(DeviceNumber, PostPart)>,
    left_out: Vec<(DeviceNumber, LeftOut)>,
    /// Of all their records.
    bytes: usize,
}

/// A part or a copy.
struct Addressed {
    device: Thumbprint,
    message: Bytes,
    is_copy: bool,
}

impl Core {
    pub(super) fn append(
        &mut self,
        mut posting: Posting<'_>,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Taking, PostError> {
        if !self.is_writable() {
            return Err(StorageError::Unavailable.into());
        }
        if !is_well_formed(&posting) {
            return Err(PostError::Parts);
        }
        let from = self.index.enter(posting.from_device.as_bytes());
        if posting.sequence != NO_SEQUENCE {
            match self.index.sequence(from, posting.sequence) {
                Sequence::New => {}
                Sequence::Overtaken => return Err(PostError::Overtaken),
                Sequence::Stale => return Err(PostError::Stale),
                Sequence::Repeated => {
                    let place = self
                        .recent
                        .find_undurable(&posting.from_device, posting.sequence);
                    return Ok(Taking::Repetition(place.unwrap_or_default()));
                }
            }
        }

        // Everything is decided before anything changes.
        let decided = self.decide(from, &mut posting, limits, now_millis)?;
        if decided.bytes > self.max_posting_bytes() {
            return Err(PostError::Parts);
        }
        let place = self.place(decided.bytes)?;
        Ok(Taking::New(
            self.put(from, &posting, decided, place, now_millis),
        ))
    }

    /// Takes the messages out of `posting`, each with its position. A part without room refuses them all; one of the sender's own devices is left out
    /// instead, as long as something is left (docs/protocol.md §5.2).
    fn decide(
        &mut self,
        from: DeviceNumber,
        posting: &mut Posting<'_>,
        limits: MailboxLimits,
        now_millis: u64,
    ) -> Result<Decided, PostError> {
        let parts = std::mem::take(&mut posting.parts);
        let copies = std::mem::take(&mut posting.copies);
        let from_number = self.index.users.find(posting.from_user);
        let mut decided = Decided {
            parts: Vec::with_capacity(parts.len() + copies.len()),
            left_out: Vec::new(),
            bytes: 0,
        };
        let mut own = Vec::new();
        for Addressed {
            device,
            message,
            is_copy,
        } in addressed(parts, copies)
        {
            let is_own = is_copy || posting.to_user == posting.from_user;
            let number = self.index.enter(device.as_bytes());
            let limits = match self.index.limits(number) {
                Some(own) => limits.lower_of(own),
                None => limits,
            };
            let share = if is_own {
                limits.own_share()
            } else {
                limits.share()
            };
            let bytes = message.len() as u64;
            let position = match self.admit(number, &device, from_number, bytes, limits, share) {
                Ok(position) => position,
                Err(no_room) if is_own => {
                    own.push((number, device, no_room));
                    continue;
                }
                Err(no_room) => return Err(no_room),
            };
            let part = PostPart {
                device,
                is_copy,
                position,
                expires_millis: now_millis
                    .saturating_add(limits.retention_seconds.saturating_mul(1_000)),
                place: Place::default(),
                message,
            };
            decided.bytes += record_bytes(posting, &part);
            decided.parts.push((number, part));
        }
        if let ([], [(_, _, no_room), ..]) = (&*decided.parts, &*own) {
            return Err(*no_room);
        }
        let told = MAX_NOTICES.saturating_sub(self.index.notices(from));
        let positions = self.index.next_positions(from).zip(0..told);
        for ((number, device, _), (position, _)) in own.into_iter().zip(positions) {
            let left_out = LeftOut {
                device,
                position,
                expires_millis: now_millis.saturating_add(NOTICE_MILLIS),
                place: Place::default(),
            };
            decided.bytes += notice_bytes(posting);
            decided.left_out.push((number, left_out));
        }
        Ok(decided)
    }

    /// Why `device` does not take a message from `user`, or the position that it gets.
    fn admit(
        &self,
        device: DeviceNumber,
        id: &Thumbprint,
        user: Option<UserNumber>,
        bytes: u64,
        limits: MailboxLimits,
        share: MailboxLimits,
    ) -> Result<u64, PostError> {
        let full = PostError::Full { device: *id };
        match self.index.admits(device, user, bytes, limits, share) {
            Ok(()) => self.index.next_positions(device).next().ok_or(full),
            Err(Full::Mailbox) => Err(full),
            Err(Full::Sender) => Err(PostError::Quota { device: *id }),
        }
    }

    /// Puts everything into the mailboxes, and into the queue with places from `place` on.
    fn put(
        &mut self,
        from: DeviceNumber,
        posting: &Posting<'_>,
        decided: Decided,
        mut place: Place,
        now_millis: u64,
    ) -> Arc<Post> {
        let from_user = self.index.users.refer(posting.from_user);
        let to_user = self.index.users.refer(posting.to_user);
        let mut post = Post {
            from_user: self.name(from_user, posting.from_user),
            to_user: self.name(to_user, posting.to_user),
            from_device: posting.from_device,
            sequence: posting.sequence,
            id: posting.id,
            time_millis: now_millis,
            held: self.holds(from, posting.sequence, place),
            parts: Vec::with_capacity(decided.parts.len()),
            left_out: Vec::with_capacity(decided.left_out.len()),
        };
        for (number, mut part) in decided.parts {
            part.place = place;
            let for_user = if part.is_copy { from_user } else { to_user };
            self.index.users.refer_again(from_user);
            self.index.users.refer_again(for_user);
            let entry = Entry {
                position: part.position,
                place,
                expires_millis: part.expires_millis,
                id: post.id,
                peer: from,
                from_user,
                to_user: for_user,
                message_bytes: u32::try_from(part.message.len()).unwrap_or(u32::MAX),
                record_bytes: u32::try_from(record_bytes(posting, &part)).unwrap_or(u32::MAX),
                what: What::Mail,
            };
            place.offset = place.offset.saturating_add(entry.record_bytes);
            self.index.insert(number, entry);
            post.parts.push(part);
        }
        for (number, mut left_out) in decided.left_out {
            left_out.place = place;
            self.index.users.refer_again(from_user);
            let notice = Entry {
                position: left_out.position,
                place,
                expires_millis: left_out.expires_millis,
                id: post.id,
                peer: number,
                from_user: UserNumber::NOBODY,
                to_user: from_user,
                message_bytes: 0,
                record_bytes: u32::try_from(notice_bytes(posting)).unwrap_or(u32::MAX),
                what: What::Notice(UndeliveredReason::MailboxFull.code()),
            };
            place.offset = place.offset.saturating_add(notice.record_bytes);
            self.index.insert(from, notice);
            post.left_out.push(left_out);
        }
        self.index.users.release(from_user);
        self.index.users.release(to_user);
        self.index.mark_sent(from, post.sequence);
        let post = Arc::new(post);
        self.recent.push(&post);
        self.push(Queued::Post(Arc::clone(&post)));
        post
    }

    /// The one copy of a name that is kept.
    fn name(&self, number: UserNumber, name: &User) -> Arc<User> {
        match self.index.users.name(number) {
            Some(name) => Arc::clone(name),
            None => Arc::new(name.clone()),
        }
    }
}

/// What became of a posting.
pub(super) enum Taking {
    New(Arc<Post>),
    /// It is there, since this place if it is not durable yet.
    Repetition(Place),
}

fn addressed(
    parts: Vec<(Thumbprint, Bytes)>,
    copies: Vec<(Thumbprint, Bytes)>,
) -> impl Iterator<Item = Addressed> {
    let with = |is_copy| {
        move |(device, message)| Addressed {
            device,
            message,
            is_copy,
        }
    };
    let parts = parts.into_iter().map(with(false));
    parts.chain(copies.into_iter().map(with(true)))
}

/// Bytes of the record of a part.
fn record_bytes(posting: &Posting<'_>, part: &PostPart) -> usize {
    let to = if part.is_copy {
        posting.from_user
    } else {
        posting.to_user
    };
    let names = posting.from_user.as_bytes().len() + to.as_bytes().len();
    MAIL_BYTES + names + part.message.len()
}

/// Bytes of the record that one of the sender's own devices was left out.
fn notice_bytes(posting: &Posting<'_>) -> usize {
    NOTICE_BYTES + posting.from_user.as_bytes().len()
}

fn is_well_formed(posting: &Posting<'_>) -> bool {
    let (parts, copies) = (&posting.parts, &posting.copies);
    let all = || parts.iter().chain(copies);
    (1..=protocol_limits::MAX_SEND_PARTS).contains(&parts.len())
        && copies.len() < protocol_limits::MAX_SEND_PARTS
        && all().all(|(device, message)| {
            *device != posting.from_device
                && (1..=protocol_limits::MAX_SEALED_MESSAGE_BYTES).contains(&message.len())
        })
        && all()
            .enumerate()
            .all(|(index, (device, _))| all().take(index).all(|(other, _)| other != device))
}
