//! Send (docs/protocol.md §5.2): whose devices, in which order, and when it is safe.
//!
//! ```text
//!  Send ── known sequence? ── permission, size, rate ── devices as they are now ── append ─▶ recipients' links are rung at once
//!            │ Accepted, stale      │ refused                │ refused                └─▶ Accepted once durable or acknowledged
//! ```
//! The devices are looked at and the messages appended in one step that a removal does not come between: whoever removes a device waits for
//! those who have seen it, and then empties its mailbox. Nor does a newer link of the sending device: it waits for what the older is sending, which
//! sends nothing more then, so that what is refused here is not sent there after all.
use bytes::Bytes;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{List, Part, RequestId, Send};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;

use super::{Reply, Requester};
use crate::closing::End;
use crate::hub::News;
use crate::mail::{Accepted, Appended, PostError, Posting, SequenceState};
use crate::now::Now;
use crate::storage::StorageError;

/// What became of a Send.
pub(crate) enum Sending {
    /// It is answered.
    Answered(Reply),
    /// It has its places, and is accepted when it is safe.
    Appended(Accepted),
    /// There is no room in the mailboxes' queue; it is to be tried again, before all that come after it.
    Waits(Box<Letter>),
    /// The link has ended: it is replaced or its device removed, or a store does not work, so that what became of the Send is not known
    /// (docs/protocol.md §5.2).
    Ended(End),
}

/// A Send that waits for room, with all that is in it.
#[derive(Debug)]
pub(crate) struct Letter {
    envelope: Envelope,
    parts: Vec<(Thumbprint, Bytes)>,
    copies: Vec<(Thumbprint, Bytes)>,
}

/// What is on a Send, which its token allows.
#[derive(Debug)]
struct Envelope {
    request: RequestId,
    sequence: u64,
    id: [u8; 16],
    to: User,
    whole: bool,
    /// The devices of the parts and of the copies, sorted.
    devices: Vec<Thumbprint>,
    copies: Vec<Thumbprint>,
}

impl Letter {
    /// The request that it answers.
    pub(crate) fn request(&self) -> RequestId {
        self.envelope.request
    }
}

impl Requester {
    /// Takes a Send. With `wait` it is not tried, because others wait before it.
    pub(crate) fn send(&mut self, send: &Send<'_>, wait: bool, now: Now) -> Sending {
        let request = send.request;
        if let Some(end) = self.registration.doorbell().end() {
            return Sending::Ended(end);
        }
        // §5.2: whatever else is in a repetition, and whatever has changed since.
        match self
            .shared
            .mailboxes
            .sequence(&self.device(), send.sequence)
        {
            SequenceState::New => {}
            SequenceState::Repeated(accepted) => return Sending::Appended(accepted),
            SequenceState::Stale => return refused(request, RefusalCode::Stale),
            // Whatever else is wrong with it: what is to be sealed again for other devices would come too late as well.
            SequenceState::Overtaken => return refused(request, RefusalCode::Overtaken),
        }
        let envelope = match self.envelope(send, now) {
            Ok(envelope) => envelope,
            Err(code) => return refused(request, code),
        };
        if envelope.to != *self.user() {
            self.registration.watch(envelope.to.as_str());
        }
        let contents = || (owned(&send.parts), owned(&send.copies));
        if !wait && let Ok(sending) = self.post(&envelope, contents, now) {
            return sending;
        }
        let (parts, copies) = contents();
        Sending::Waits(Box::new(Letter {
            envelope,
            parts,
            copies,
        }))
    }

    /// Tries a Send again that had no room.
    pub(crate) fn send_again(&self, letter: Box<Letter>, now: Now) -> Sending {
        let contents = || (letter.parts.clone(), letter.copies.clone());
        match self.post(&letter.envelope, contents, now) {
            Ok(sending) => sending,
            Err(NoRoom) => Sending::Waits(letter),
        }
    }

    /// What the token says about a Send.
    fn envelope(&self, send: &Send<'_>, now: Now) -> Result<Envelope, RefusalCode> {
        let to = self.permitted(send.user)?;
        let parts = || send.parts.iter().chain(send.copies.iter());
        // A part's length is at most 98,304, so it fits into any u64.
        if parts().any(|part| part.message.len() as u64 > self.allowance.max_message_bytes) {
            return Err(RefusalCode::TooLarge);
        }
        self.shared
            .message_rates
            .take_many(
                &self.device(),
                parts().count() as u64,
                self.allowance.messages_per_minute,
                now.steady_millis,
            )
            .map_err(|_| RefusalCode::RateLimited)?;
        Ok(Envelope {
            request: send.request,
            sequence: send.sequence,
            id: send.id,
            to,
            whole: send.whole,
            devices: sorted(&send.parts),
            copies: sorted(&send.copies),
        })
    }

    fn post(
        &self,
        envelope: &Envelope,
        contents: impl FnOnce() -> (Vec<(Thumbprint, Bytes)>, Vec<(Thumbprint, Bytes)>),
        now: Now,
    ) -> Result<Sending, NoRoom> {
        let request = envelope.request;
        let appended = {
            let _seen = self.shared.see_devices();
            if let Some(end) = self.registration.doorbell().end() {
                return Ok(Sending::Ended(end));
            }
            match self.check_devices(envelope, now) {
                Ok(Ok(())) => {}
                Ok(Err(code)) => return Ok(refused(request, code)),
                Err(error) => return Ok(Sending::Ended(error.into())),
            }
            let (parts, copies) = contents();
            let posting = Posting {
                from_user: self.user(),
                from_device: self.device(),
                sequence: envelope.sequence,
                id: envelope.id,
                to_user: &envelope.to,
                parts,
                copies,
            };
            // What a recipient's own token allows its mailbox, the mailbox knows.
            let limits = self.shared.settings.allowance.mailbox;
            self.shared.mailboxes.append(posting, limits, now.millis)
        };
        match appended {
            Ok(appended) => Ok(Sending::Appended(self.ring(appended))),
            Err(PostError::Busy) => Err(NoRoom),
            Err(PostError::Storage(error)) => Ok(Sending::Ended(error.into())),
            Err(error) => {
                tracing::debug!(%error, "sending refused");
                Ok(refused(request, refusal(error)))
            }
        }
    }

    /// Tells the recipients' links at once: they need not wait for the disk.
    fn ring(&self, appended: Appended) -> Accepted {
        for (device, _) in appended.positions() {
            self.shared.hub.ring(device.as_bytes(), News::MAIL);
        }
        appended.accepted()
    }

    /// §5.2: who the parts and copies have to be for. Where the directory cannot be read, nobody knows.
    fn check_devices(
        &self,
        envelope: &Envelope,
        now: Now,
    ) -> Result<Result<(), RefusalCode>, StorageError> {
        let Envelope {
            to,
            whole,
            devices,
            copies,
            ..
        } = envelope;
        // Those of the directory are distinct and sorted.
        let current = self.devices_but_this(to, now)?;
        if current.is_empty() {
            return Ok(Err(RefusalCode::UnknownUser));
        }
        let are_theirs = if *whole {
            *devices == current
        } else {
            are_distinct(devices)
                && devices
                    .iter()
                    .all(|device| current.binary_search(device).is_ok())
        };
        if !are_theirs {
            return Ok(Err(RefusalCode::DevicesChanged));
        }
        if !whole || to == self.user() {
            return Ok(if copies.is_empty() {
                Ok(())
            } else {
                Err(RefusalCode::DevicesChanged)
            });
        }
        Ok(if *copies == self.devices_but_this(self.user(), now)? {
            Ok(())
        } else {
            Err(RefusalCode::OwnDevicesChanged)
        })
    }

    fn devices_but_this(&self, user: &User, now: Now) -> Result<Vec<Thumbprint>, StorageError> {
        let mut devices = self.shared.directory.devices(user, now.seconds())?;
        devices.retain(|device| *device != self.device());
        Ok(devices)
    }
}

/// No room in the mailboxes' queue.
struct NoRoom;

/// What the sender is told (docs/protocol.md §5.3).
fn refusal(error: PostError) -> RefusalCode {
    match error {
        PostError::Full { .. } => RefusalCode::MailboxFull,
        PostError::Quota { .. } => RefusalCode::Quota,
        PostError::Stale => RefusalCode::Stale,
        PostError::Overtaken => RefusalCode::Overtaken,
        PostError::Parts => RefusalCode::TooLarge,
        PostError::Busy | PostError::DiskFull | PostError::Storage(_) => RefusalCode::Unavailable,
    }
}

fn refused(request: RequestId, code: RefusalCode) -> Sending {
    Sending::Answered(Reply::Refused(request, code))
}

fn sorted(parts: &List<'_, Part<'_>>) -> Vec<Thumbprint> {
    let mut devices: Vec<_> = parts.iter().map(|part| part.device).collect();
    devices.sort_unstable();
    devices
}

fn are_distinct(sorted: &[Thumbprint]) -> bool {
    sorted
        .iter()
        .zip(sorted.iter().skip(1))
        .all(|(one, next)| one != next)
}

fn owned(parts: &List<'_, Part<'_>>) -> Vec<(Thumbprint, Bytes)> {
    parts
        .iter()
        .map(|part| (part.device, Bytes::copy_from_slice(part.message)))
        .collect()
}
