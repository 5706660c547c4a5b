//! Mail of which the disk is not asked: what is not durable yet, and the newest of what is.
//!
//! ```text
//!  items:  oldest durable … newest durable │ not durable yet …
//!          └── bounded, dropped first ────┘└── who waits for it is told when it is durable or acknowledged
//! ```
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;

use super::record::Place;

/// Durable items kept, however small.
const MAX_DURABLE_ITEMS: usize = 16_384;

/// A posting that was accepted, with its places.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) from_user: Arc<User>,
    pub(super) to_user: Arc<User>,
    pub(super) from_device: Thumbprint,
    pub(super) sequence: u64,
    pub(super) id: [u8; 16],
    pub(super) time_millis: u64,
    /// Not empty.
    pub(super) parts: Vec<PostPart>,
}

/// One of its messages.
#[derive(Debug)]
pub(super) struct PostPart {
    pub(super) device: Thumbprint,
    /// Whether it is for the sender's own user.
    pub(super) is_copy: bool,
    pub(super) position: u64,
    pub(super) expires_millis: u64,
    pub(super) place: Place,
    pub(super) message: Bytes,
}

impl Post {
    pub(super) fn place(&self) -> Place {
        self.parts
            .first()
            .map_or(Place::default(), |part| part.place)
    }

    pub(super) fn message_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.message.len()).sum()
    }

    /// The user that a part is for.
    pub(super) fn user_of(&self, part: &PostPart) -> &Arc<User> {
        if part.is_copy {
            &self.from_user
        } else {
            &self.to_user
        }
    }
}

#[derive(Debug)]
struct Item {
    place: Place,
    /// Until every part is acknowledged or otherwise gone.
    post: Option<Arc<Post>>,
    /// Parts that are not.
    open: usize,
    waiting: Option<Waker>,
    /// More than one waits only for a repetition.
    also_waiting: Vec<Waker>,
}

impl Item {
    fn wake_into(&mut self, wakers: &mut Vec<Waker>) {
        wakers.extend(self.waiting.take());
        wakers.append(&mut self.also_waiting);
    }
}

/// The list, in the order of places.
#[derive(Debug)]
pub(super) struct Recent {
    items: VecDeque<Item>,
    /// How many of them are durable.
    durable: usize,
    /// Bytes of the messages in memory.
    bytes: usize,
    max_bytes: usize,
}

impl Recent {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            items: VecDeque::new(),
            durable: 0,
            bytes: 0,
            max_bytes,
        }
    }

    pub(super) fn push(&mut self, post: &Arc<Post>) {
        self.bytes += post.message_bytes();
        self.items.push_back(Item {
            place: post.place(),
            open: post.parts.len(),
            post: Some(Arc::clone(post)),
            waiting: None,
            also_waiting: Vec::new(),
        });
    }

    /// The part that lies at `place`.
    pub(super) fn find(&self, place: Place) -> Option<(&Arc<Post>, &PostPart)> {
        let post = self.items.get(self.position(place)?)?.post.as_ref()?;
        let part = post.parts.iter().find(|part| part.place == place)?;
        Some((post, part))
    }

    /// The index of the item in which `place` lies, if it is here.
    fn position(&self, place: Place) -> Option<usize> {
        self.items
            .partition_point(|item| item.place <= place)
            .checked_sub(1)
    }

    /// The part that lay at `place` is needed no more.
    pub(super) fn dead(&mut self, place: Place, wakers: &mut Vec<Waker>) {
        let Some(item) = self
            .position(place)
            .and_then(|index| self.items.get_mut(index))
        else {
            return;
        };
        let is_here = item
            .post
            .as_ref()
            .is_some_and(|post| post.parts.iter().any(|part| part.place == place));
        if !is_here {
            return;
        }
        item.open -= 1;
        if item.open == 0 {
            if let Some(post) = item.post.take() {
                self.bytes -= post.message_bytes();
            }
            item.wake_into(wakers);
            self.shrink();
        }
    }

    /// Everything before `place` is durable.
    pub(super) fn settle(&mut self, place: Place, wakers: &mut Vec<Waker>) {
        while let Some(item) = self.items.get_mut(self.durable)
            && item.place < place
        {
            item.wake_into(wakers);
            self.durable += 1;
        }
        self.shrink();
    }

    /// Nothing more will be durable.
    pub(super) fn fail(&mut self, wakers: &mut Vec<Waker>) {
        for item in &mut self.items {
            item.wake_into(wakers);
        }
    }

    /// Whether every part of the posting at `place` is acknowledged. If not, `waker` is woken at that, or when it is durable.
    pub(super) fn is_acknowledged(&mut self, place: Place, waker: Option<&Waker>) -> bool {
        let Some(item) = self
            .position(place)
            .and_then(|index| self.items.get_mut(index))
            .filter(|item| item.place == place)
        else {
            return false;
        };
        if item.open == 0 {
            return true;
        }
        if let Some(waker) = waker {
            let known = item
                .waiting
                .iter()
                .chain(&item.also_waiting)
                .any(|other| other.will_wake(waker));
            if !known {
                match &mut item.waiting {
                    none @ None => *none = Some(waker.clone()),
                    Some(_) => item.also_waiting.push(waker.clone()),
                }
            }
        }
        false
    }

    /// The place of a posting that is not durable yet. Searches all of these: it is for repetitions, which are rare.
    pub(super) fn find_undurable(&self, device: &Thumbprint, sequence: u64) -> Option<Place> {
        self.items
            .range(self.durable..)
            .rev()
            .filter_map(|item| item.post.as_ref())
            .find(|post| post.sequence == sequence && post.from_device == *device)
            .map(|post| post.place())
    }

    fn shrink(&mut self) {
        while self.durable > 0
            && let Some(first) = self.items.front()
            && (first.post.is_none()
                || self.bytes > self.max_bytes
                || self.durable > MAX_DURABLE_ITEMS)
            && let Some(item) = self.items.pop_front()
        {
            self.durable -= 1;
            if let Some(post) = item.post {
                self.bytes -= post.message_bytes();
            }
        }
    }
}
