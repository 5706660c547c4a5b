//! Send (docs/protocol.md §5.2): whose devices, in which order, and when it is safe.
//!
//! ```text
//!  Send ── known sequence? ── permission, size, rate ── devices as they are now ── append ─▶ recipients' links are rung, mostly at once
//!            │ Accepted, stale      │ refused                │ refused                └─▶ Accepted once durable or acknowledged
//! ```
//! The devices are looked at and the messages appended in one step that a removal does not come between: whoever removes a device waits for
//! those who have seen it, and then empties its mailbox. Nor does a newer link of the sending device: it waits for what the older is sending, which
//! sends nothing more then, so that what is refused here is not sent there after all.
use bytes::Bytes;
use sealwire_protocol::frame::{List, Part, RequestId, Send};
use sealwire_protocol::key::Thumbprint;

use super::sender::{Contents, Envelope, Posted};
use super::{Reply, Requester};
use crate::closing::End;
use crate::mail::{Accepted, SequenceState};
use crate::now::Now;
use crate::refusal::Cause;

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
    request: RequestId,
    envelope: Envelope,
    contents: Contents,
}

impl Letter {
    /// The request that it answers.
    pub(crate) fn request(&self) -> RequestId {
        self.request
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
            SequenceState::Stale => return refused(request, Cause::Stale),
            // Whatever else is wrong with it: what is to be sealed again for other devices would come too late as well.
            SequenceState::Overtaken => return refused(request, Cause::Overtaken),
        }
        let envelope = match self.envelope(send, now) {
            Ok(envelope) => envelope,
            Err(cause) => return refused(request, cause),
        };
        if envelope.to != *self.user() {
            self.registration.watch(envelope.to.as_str());
        }
        let contents = || (owned(&send.parts), owned(&send.copies));
        if !wait && let Some(sending) = self.post(request, &envelope, contents, now) {
            return sending;
        }
        Sending::Waits(Box::new(Letter {
            request,
            envelope,
            contents: contents(),
        }))
    }

    /// Tries a Send again that had no room.
    pub(crate) fn send_again(&self, letter: Box<Letter>, now: Now) -> Sending {
        let contents = || letter.contents.clone();
        match self.post(letter.request, &letter.envelope, contents, now) {
            Some(sending) => sending,
            None => Sending::Waits(letter),
        }
    }

    /// What the token says about a Send.
    fn envelope(&self, send: &Send<'_>, now: Now) -> Result<Envelope, Cause> {
        let parts = || send.parts.iter().chain(send.copies.iter());
        let lengths = parts().map(|part| part.message.len());
        Ok(Envelope {
            to: self.sender().sendable(send.user, lengths, now)?,
            sequence: send.sequence,
            id: send.id,
            whole: send.whole,
            devices: sorted(&send.parts),
            copies: sorted(&send.copies),
        })
    }

    /// `None` if there is no room.
    fn post(
        &self,
        request: RequestId,
        envelope: &Envelope,
        contents: impl FnOnce() -> Contents,
        now: Now,
    ) -> Option<Sending> {
        let may = || match self.registration.doorbell().end() {
            Some(end) => Err(end),
            None => Ok(()),
        };
        match self.sender().post(envelope, contents, may, now) {
            Ok(Posted::Appended(accepted)) => Some(Sending::Appended(accepted)),
            Ok(Posted::Refused(cause)) => Some(refused(request, cause)),
            Ok(Posted::NoRoom) => None,
            Err(end) => Some(Sending::Ended(end)),
        }
    }
}

fn refused(request: RequestId, cause: Cause) -> Sending {
    Sending::Answered(Reply::Refused(request, cause))
}

fn sorted(parts: &List<'_, Part<'_>>) -> Vec<Thumbprint> {
    let mut devices: Vec<_> = parts.iter().map(|part| part.device).collect();
    devices.sort_unstable();
    devices
}

fn owned(parts: &List<'_, Part<'_>>) -> Vec<(Thumbprint, Bytes)> {
    parts
        .iter()
        .map(|part| (part.device, Bytes::copy_from_slice(part.message)))
        .collect()
}
