//! Mail of which the disk is not asked: what is not durable yet, and the newest of what is.
//!
//! ```text
//!  items:  oldest durable … newest durable │ not durable yet …
//!          └── bounded, dropped first ────┘└── who waits for it is told when it is durable or acknowledged
//! ```
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;

use super::index::NO_SEQUENCE;
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
    /// Whether nobody may have it before it is durable.
    pub(super) held: bool,
    /// Not empty.
    pub(super) parts: Vec<PostPart>,
    /// Of the sender's own devices, those whose mailboxes had no room.
    pub(super) left_out: Vec<LeftOut>,
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

/// A notice to the sender that a device of its own user does not get the message.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) device: Thumbprint,
    /// The notice's, in the sender's mailbox.
    pub(super) position: u64,
    pub(super) expires_millis: u64,
    pub(super) place: Place,
}

impl Post {
    pub(super) fn place(&self) -> Place {
        self.parts
            .first()
            .map_or(Place::default(), |part| part.place)
    }

    /// What tells it from every other.
    fn key(&self) -> (Thumbprint, u64) {
        (self.from_device, self.sequence)
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
    /// Until every part is acknowledged or otherwise gone, and what is told of those left out is durable.
    post: Option<Arc<Post>>,
    /// Parts that are not; and one more, for all that were left out.
    open: usize,
    waiting: Option<Waker>,
    /// More than one waits only for a repetition, and for what is held.
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
    /// By sender and sequence, the places of those that are neither durable nor acknowledged.
    undurable: HashMap<(Thumbprint, u64), Place>,
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
            undurable: HashMap::new(),
            durable: 0,
            bytes: 0,
            max_bytes,
        }
    }

    pub(super) fn push(&mut self, post: &Arc<Post>) {
        self.bytes += post.message_bytes();
        if post.sequence != NO_SEQUENCE {
            self.undurable.insert(post.key(), post.place());
        }
        self.items.push_back(Item {
            place: post.place(),
            open: post.parts.len() + usize::from(!post.left_out.is_empty()),
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
                self.undurable.remove(&post.key());
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
            if let Some(post) = &item.post {
                self.undurable.remove(&post.key());
                item.open -= usize::from(!post.left_out.is_empty());
            }
            if item.open == 0
                && let Some(post) = item.post.take()
            {
                self.bytes -= post.message_bytes();
            }
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

    /// The place of a posting that is neither durable nor acknowledged by everybody yet.
    pub(super) fn find_undurable(&self, device: &Thumbprint, sequence: u64) -> Option<Place> {
        self.undurable.get(&(*device, sequence)).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn post(sequence: u64) -> Arc<Post> {
        let user = Arc::new(User::new("alice").unwrap());
        let part = PostPart {
            device: Thumbprint::from_bytes([1; 32]),
            is_copy: false,
            position: sequence,
            expires_millis: 0,
            place: place(sequence),
            message: Bytes::from_static(b"x"),
        };
        Arc::new(Post {
            from_user: Arc::clone(&user),
            to_user: user,
            from_device: sender(),
            sequence,
            id: [0; 16],
            time_millis: 0,
            held: false,
            parts: vec![part],
            left_out: Vec::new(),
        })
    }

    fn place(sequence: u64) -> Place {
        Place {
            segment: 1,
            offset: u32::try_from(sequence).unwrap() * 100,
        }
    }

    fn sender() -> Thumbprint {
        Thumbprint::from_bytes([2; 32])
    }

    #[test]
    fn what_is_not_durable_is_found_until_it_is_or_is_needed_no_more() {
        let mut recent = Recent::new(1 << 20);
        let mut wakers = Vec::new();
        for sequence in 1..=4 {
            recent.push(&post(sequence));
        }
        let found = |recent: &Recent| {
            (0..=5)
                .filter_map(|sequence| recent.find_undurable(&sender(), sequence))
                .collect::<Vec<_>>()
        };
        assert_eq!(found(&recent), [1, 2, 3, 4].map(place));
        recent.settle(place(2), &mut wakers);
        assert_eq!(found(&recent), [2, 3, 4].map(place));
        recent.dead(place(3), &mut wakers);
        assert_eq!(found(&recent), [2, 4].map(place));
        recent.settle(place(5), &mut wakers);
        assert!(recent.undurable.is_empty());
    }
}
