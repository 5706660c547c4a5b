//! What the sender of a posting waits for.
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use sealwire_protocol::key::Thumbprint;

use super::core::Shared;
use super::recent::Post;
use super::record::Place;
use crate::storage::StorageError;

/// A posting that was taken.
pub struct Appended {
    /// Nothing for a repetition.
    pub(super) post: Option<Arc<Post>>,
    pub(super) accepted: Accepted,
}

impl fmt::Debug for Appended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appended")
            .field("is_repetition", &self.is_repetition())
            .finish_non_exhaustive()
    }
}

impl Appended {
    /// Whether it was accepted before, and added nothing.
    #[must_use]
    pub fn is_repetition(&self) -> bool {
        self.post.is_none()
    }

    /// The devices whose mailbox has grown, with the position there, in the order of parts and copies. None for a repetition.
    pub fn positions(&self) -> impl Iterator<Item = (&Thumbprint, u64)> {
        self.post
            .iter()
            .flat_map(|post| &post.parts)
            .map(|part| (&part.device, part.position))
    }

    /// Whether nobody can read it before it is durable: it skips a sequence of its device, or comes after one that does.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.post.as_ref().is_some_and(|post| post.held)
    }

    /// What waits until the posting is safe.
    pub fn accepted(self) -> Accepted {
        self.accepted
    }
}

/// What is known of a sequence (docs/protocol.md §5.2).
#[derive(Debug)]
pub enum SequenceState {
    /// It was not accepted.
    New,
    /// It was taken, and is accepted when this says so.
    Repeated(Accepted),
    /// It is 64 or more below the highest of the device.
    Stale,
    /// It was refused, and a later one was accepted since.
    Overtaken,
}

/// Resolves when every part is durable or acknowledged by its recipient, whichever is first, and every notice of one that was left out is durable. To
/// [`StorageError::Unavailable`] if the log fails before: then nobody knows what became of it. It may be dropped at any time.
#[must_use]
pub struct Accepted {
    pub(super) shared: Arc<Shared>,
    pub(super) place: Place,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Accepted").field(&self.place).finish()
    }
}

impl Accepted {
    /// How it has ended, if it has. For whoever polls without a task.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<(), StorageError>> {
        self.shared.outcome(self.place, None)
    }

    /// As [`Accepted::outcome`]; `waker` is woken when there is one.
    #[must_use]
    pub fn outcome_or_wake(&self, waker: &Waker) -> Option<Result<(), StorageError>> {
        self.shared.outcome(self.place, Some(waker))
    }
}

impl Future for Accepted {
    type Output = Result<(), StorageError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.outcome_or_wake(context.waker())
            .map_or(Poll::Pending, Poll::Ready)
    }
}
