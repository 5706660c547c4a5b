//! Takes a posting: whether there is room for every part, and their positions and places.
use std::sync::Arc;

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits as protocol_limits;
use sealwire_protocol::name::User;

use super::core::{Core, Queued};
use super::index::{DeviceNumber, Entry, Full, Sequence, What};
use super::recent::{Post, PostPart};
use super::record::{MAIL_BYTES, Place};
use super::users::UserNumber;
use super::{MailboxLimits, PostError, Posting};
use crate::storage::StorageError;

impl Core {
    /// Why `device` does not take a message from `user`, or the position that it gets.
    fn admit(
        &self,
        device: DeviceNumber,
        id: &Thumbprint,
        user: Option<UserNumber>,
        bytes: usize,
        limits: MailboxLimits,
    ) -> Result<u64, PostError> {
        let full = PostError::Full { device: *id };
        match self.index.admits(device, user, bytes as u64, limits) {
            Ok(()) => self.index.next_position(device).ok_or(full),
            Err(Full::Mailbox) => Err(full),
            Err(Full::Sender) => Err(PostError::Quota { device: *id }),
        }
    }

    pub(super) fn append(
        &mut self,
        posting: Posting<'_>,
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
        match self.index.sequence(from, posting.sequence) {
            Sequence::New => {}
            Sequence::Stale => return Err(PostError::Stale),
            Sequence::Repeated => {
                let place = self
                    .recent
                    .find_undurable(&posting.from_device, posting.sequence);
                return Ok(Taking::Repetition(place.unwrap_or_default()));
            }
        }

        // Everything is decided before anything changes.
        let from_number = self.index.users.find(posting.from_user);
        let names = |is_copy| {
            let to = if is_copy {
                posting.from_user
            } else {
                posting.to_user
            };
            posting.from_user.as_bytes().len() + to.as_bytes().len()
        };
        let mut parts = Vec::with_capacity(posting.parts.len() + posting.copies.len());
        let mut bytes = 0;
        let all = posting
            .parts
            .into_iter()
            .map(|part| (part, false))
            .chain(posting.copies.into_iter().map(|copy| (copy, true)));
        for ((device, message), is_copy) in all {
            let number = self.index.enter(device.as_bytes());
            let limits = match self.index.limits(number) {
                Some(own) => limits.lower_of(own),
                None => limits,
            };
            let position = self.admit(number, &device, from_number, message.len(), limits)?;
            bytes += MAIL_BYTES + names(is_copy) + message.len();
            let part = PostPart {
                device,
                is_copy,
                position,
                expires_millis: now_millis
                    .saturating_add(limits.retention_seconds.saturating_mul(1_000)),
                place: Place::default(),
                message,
            };
            parts.push((number, part));
        }
        if bytes > self.max_posting_bytes() {
            return Err(PostError::Parts);
        }
        let mut place = self.place(bytes)?;

        let from_user = self.index.users.refer(posting.from_user);
        let to_user = self.index.users.refer(posting.to_user);
        let mut post = Post {
            from_user: self.name(from_user, posting.from_user),
            to_user: self.name(to_user, posting.to_user),
            from_device: posting.from_device,
            sequence: posting.sequence,
            id: posting.id,
            time_millis: now_millis,
            parts: Vec::with_capacity(parts.len()),
        };
        for (number, mut part) in parts {
            part.place = place;
            let for_user = if part.is_copy { from_user } else { to_user };
            self.index.users.refer_again(from_user);
            self.index.users.refer_again(for_user);
            let record_bytes = MAIL_BYTES + names(part.is_copy) + part.message.len();
            let entry = Entry {
                position: part.position,
                place,
                expires_millis: part.expires_millis,
                id: post.id,
                peer: from,
                from_user,
                to_user: for_user,
                message_bytes: u32::try_from(part.message.len()).unwrap_or(u32::MAX),
                record_bytes: u32::try_from(record_bytes).unwrap_or(u32::MAX),
                what: What::Mail,
            };
            place.offset = place.offset.saturating_add(entry.record_bytes);
            self.index.insert(number, entry);
            post.parts.push(part);
        }
        self.index.users.release(from_user);
        self.index.users.release(to_user);
        self.index.mark_sent(from, post.sequence);
        let post = Arc::new(post);
        self.recent.push(&post);
        self.push(Queued::Post(Arc::clone(&post)));
        Ok(Taking::New(post))
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

fn is_well_formed(posting: &Posting<'_>) -> bool {
    let (parts, copies) = (&posting.parts, &posting.copies);
    let all = || parts.iter().chain(copies);
    posting.sequence > 0
        && (1..=protocol_limits::MAX_SEND_PARTS).contains(&parts.len())
        && copies.len() < protocol_limits::MAX_SEND_PARTS
        && all().all(|(_, message)| {
            (1..=protocol_limits::MAX_SEALED_MESSAGE_BYTES).contains(&message.len())
        })
        && all()
            .enumerate()
            .all(|(index, (device, _))| all().take(index).all(|(other, _)| other != device))
}
