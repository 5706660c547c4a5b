//! What the application says unasked: a bounded queue for each link, filled by a [`Pusher`] and emptied by the link as its device reads.
//!
//! ```text
//!  Pusher ── push_to_device, push_to_user ──▶ Pushes: device, user ─▶ PushQueue ── wake ──▶ link ─▶ Push frames
//! ```
//! Nothing is stored: what is pushed to a device that is not there, or does not read, is lost, and the application is told how much.
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits::MAX_SERVICE_PAYLOAD_BYTES;
use sealwire_protocol::name::User;
use sealwire_protocol::permissions::Permissions;
use sealwire_protocol::service::{ServiceName, ServiceNameError};

use crate::bounds::{MAX_QUEUED_PUSH_BYTES, MAX_QUEUED_PUSHES};

/// Says something to devices that are connected, unasked. Clones push for the same relay, also after it has ended: then nobody is there.
#[derive(Debug, Clone)]
pub struct Pusher {
    pushes: Arc<Pushes>,
}

/// What became of a push.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// Links that it was given to. Whether their devices get it depends on how long they last.
    pub given: usize,
    /// Links that it was not given to, because too much waits there already. It is lost for them.
    pub dropped: usize,
}

/// Why something cannot be pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// The name of the service is none.
    #[error("{0}")]
    Name(#[from] ServiceNameError),
    /// More than the protocol carries.
    #[error("{0} bytes cannot be pushed; at most {MAX_SERVICE_PAYLOAD_BYTES} can")]
    TooLarge(usize),
}

impl Pusher {
    pub(crate) fn new(pushes: Arc<Pushes>) -> Self {
        Self { pushes }
    }

    /// Pushes to one device, if it is connected and its token allows calling the service: at most once, and in the order of the calls.
    ///
    /// # Errors
    /// [`PushError`]: nothing was given to anybody.
    pub fn push_to_device(
        &self,
        device: &Thumbprint,
        service: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Pushed, PushError> {
        let push = Push::new(service, payload.into())?;
        let queue = self.pushes.links().by_device.get(device).cloned();
        Ok(self.pushes.give(queue.iter(), &push))
    }

    /// Pushes to all devices of a user, likewise.
    ///
    /// # Errors
    /// [`PushError`]: nothing was given to anybody.
    pub fn push_to_user(
        &self,
        user: &User,
        service: &str,
        payload: impl Into<Bytes>,
    ) -> Result<Pushed, PushError> {
        let push = Push::new(service, payload.into())?;
        let queues = self.pushes.links().by_user.get(user).cloned();
        Ok(self.pushes.give(queues.iter().flatten(), &push))
    }

    /// How many pushes were dropped since the relay started, counted for each link, because too much waited for the device.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.pushes.dropped.load(Ordering::Relaxed)
    }
}

/// Something to push.
#[derive(Debug, Clone)]
pub(crate) struct Push {
    pub(crate) service: ServiceName,
    pub(crate) payload: Bytes,
}

impl Push {
    fn new(service: &str, payload: Bytes) -> Result<Self, PushError> {
        if payload.len() > MAX_SERVICE_PAYLOAD_BYTES {
            return Err(PushError::TooLarge(payload.len()));
        }
        Ok(Self {
            service: ServiceName::new(service)?,
            payload,
        })
    }

    fn bytes(&self) -> usize {
        self.payload.len()
    }
}

/// The links of a relay, as those see them who push.
#[derive(Debug, Default)]
pub(crate) struct Pushes {
    links: Mutex<Links>,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Links {
    by_device: HashMap<Thumbprint, Arc<Queue>>,
    by_user: HashMap<User, Vec<Arc<Queue>>>,
}

impl Pushes {
    /// Enters a link, unless it `is_over`: a newer one of the device may have been entered before. It leaves when what comes back is dropped; one that is
    /// entered for the same device later takes its place before.
    pub(crate) fn enter(
        self: &Arc<Self>,
        device: Thumbprint,
        user: &User,
        permissions: &Permissions,
        is_over: impl FnOnce() -> bool,
    ) -> PushQueue {
        let queue = Arc::new(Queue::default());
        queue.waiting().permit(permissions);
        let mut links = self.links();
        // Looked at under the lock: whoever replaces it after this comes here after this.
        if !is_over() {
            if let Some(older) = links.by_device.insert(device, Arc::clone(&queue)) {
                links.forget(user, &older);
            }
            let of_user = links.by_user.entry(user.clone()).or_default();
            of_user.push(Arc::clone(&queue));
        }
        drop(links);
        PushQueue {
            pushes: Arc::clone(self),
            device,
            user: user.clone(),
            queue,
        }
    }

    fn give<'a>(&self, queues: impl Iterator<Item = &'a Arc<Queue>>, push: &Push) -> Pushed {
        let mut pushed = Pushed::default();
        for queue in queues {
            match queue.give(push) {
                Given::Queued => pushed.given += 1,
                Given::NotPermitted => {}
                Given::Full => {
                    pushed.dropped += 1;
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(service = %push.service, "push dropped: too much waits for the device");
                }
            }
        }
        pushed
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        // The maps are consistent between their own calls, whoever panicked.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Links {
    fn forget(&mut self, user: &User, queue: &Arc<Queue>) {
        if let Entry::Occupied(mut entry) = self.by_user.entry(user.clone()) {
            entry.get_mut().retain(|other| !Arc::ptr_eq(other, queue));
            if entry.get().is_empty() {
                entry.remove();
            }
        }
    }
}

/// What waits for one link.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Something came since the link looked.
    fresh: AtomicBool,
    link: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    pushes: VecDeque<Push>,
    bytes: usize,
    /// What the link's token says of services, and nothing else.
    permissions: Permissions,
}

enum Given {
    Queued,
    NotPermitted,
    Full,
}

impl Queue {
    fn give(&self, push: &Push) -> Given {
        {
            let mut waiting = self.waiting();
            if !waiting.permissions.may_call(push.service.as_str()) {
                return Given::NotPermitted;
            }
            let bytes = waiting.bytes.saturating_add(push.bytes());
            if waiting.pushes.len() >= MAX_QUEUED_PUSHES || bytes > MAX_QUEUED_PUSH_BYTES {
                return Given::Full;
            }
            waiting.bytes = bytes;
            waiting.pushes.push_back(push.clone());
        }
        self.fresh.store(true, Ordering::Release);
        self.link.wake();
        Given::Queued
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn permit(&mut self, permissions: &Permissions) {
        self.permissions = Permissions {
            call: permissions.call,
            services: permissions.services.clone(),
            ..Permissions::default()
        };
    }
}

/// A link's end of its queue.
#[derive(Debug)]
pub(crate) struct PushQueue {
    pushes: Arc<Pushes>,
    device: Thumbprint,
    user: User,
    queue: Arc<Queue>,
}

impl PushQueue {
    /// The link has another token. What waits and is not permitted any more is lost.
    pub(crate) fn permit(&self, permissions: &Permissions) {
        let mut waiting = self.queue.waiting();
        waiting.permit(permissions);
        let Waiting {
            pushes,
            bytes,
            permissions,
        } = &mut *waiting;
        pushes.retain(|push| permissions.may_call(push.service.as_str()));
        *bytes = pushes.iter().map(Push::bytes).sum();
    }

    /// Whether something came since this was asked; if not, the context is woken when something does.
    pub(crate) fn poll_grown(&self, cx: &mut Context<'_>) -> bool {
        self.queue.link.register(cx.waker());
        self.queue.fresh.swap(false, Ordering::Acquire)
    }

    /// Takes the next.
    pub(crate) fn take(&self) -> Option<Push> {
        let mut waiting = self.queue.waiting();
        let push = waiting.pushes.pop_front()?;
        waiting.bytes = waiting.bytes.saturating_sub(push.bytes());
        Some(push)
    }
}

impl Drop for PushQueue {
    fn drop(&mut self) {
        let mut links = self.pushes.links();
        links.forget(&self.user, &self.queue);
        // The place may be a newer link's by now.
        if let Entry::Occupied(entry) = links.by_device.entry(self.device)
            && Arc::ptr_eq(entry.get(), &self.queue)
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn calling() -> Permissions {
        Permissions {
            call: true,
            ..Permissions::default()
        }
    }

    fn world() -> (Arc<Pushes>, Pusher, User) {
        let pushes = Arc::new(Pushes::default());
        let pusher = Pusher::new(Arc::clone(&pushes));
        (pushes, pusher, User::new("alice").unwrap())
    }

    fn device(number: u8) -> Thumbprint {
        Thumbprint::from_bytes([number; 32])
    }

    fn pushed(given: usize, dropped: usize) -> Result<Pushed, PushError> {
        Ok(Pushed { given, dropped })
    }

    #[test]
    fn push_reaches_the_links_that_are_meant_in_order() {
        let (pushes, pusher, alice) = world();
        let bob = User::new("bob").unwrap();
        let phone = pushes.enter(device(1), &alice, &calling(), || false);
        let laptop = pushes.enter(device(2), &alice, &calling(), || false);
        let other = pushes.enter(device(3), &bob, &calling(), || false);
        assert_eq!(pusher.push_to_user(&alice, "news", "one"), pushed(2, 0));
        assert_eq!(
            pusher.push_to_device(&device(1), "news", "two"),
            pushed(1, 0)
        );
        assert_eq!(pusher.push_to_device(&device(9), "news", "x"), pushed(0, 0));
        let nobody = User::new("carol").unwrap();
        assert_eq!(pusher.push_to_user(&nobody, "news", "x"), pushed(0, 0));
        let said = |link: &PushQueue| link.take().map(|push| push.payload);
        assert_eq!(said(&phone).unwrap(), "one");
        assert_eq!(said(&phone).unwrap(), "two");
        assert_eq!(said(&laptop).unwrap(), "one");
        for link in [&phone, &laptop, &other] {
            assert_eq!(said(link), None);
        }
    }

    #[test]
    fn queue_is_bounded_in_number_and_in_bytes_and_what_does_not_fit_is_counted() {
        let (pushes, pusher, alice) = world();
        let link = pushes.enter(device(1), &alice, &calling(), || false);
        for _ in 0..MAX_QUEUED_PUSHES {
            assert_eq!(pusher.push_to_user(&alice, "news", ""), pushed(1, 0));
        }
        assert_eq!(pusher.push_to_user(&alice, "news", ""), pushed(0, 1));
        assert!(link.take().is_some());
        assert_eq!(pusher.push_to_user(&alice, "news", ""), pushed(1, 0));
        while link.take().is_some() {}

        let large = Bytes::from(vec![0; MAX_SERVICE_PAYLOAD_BYTES]);
        for _ in 0..MAX_QUEUED_PUSH_BYTES / MAX_SERVICE_PAYLOAD_BYTES {
            assert_eq!(
                pusher.push_to_user(&alice, "news", large.clone()),
                pushed(1, 0)
            );
        }
        assert_eq!(pusher.push_to_user(&alice, "news", "x"), pushed(0, 1));
        assert_eq!(pusher.dropped(), 2);
        let over = vec![0; MAX_SERVICE_PAYLOAD_BYTES + 1];
        assert_eq!(
            pusher.push_to_user(&alice, "news", over),
            Err(PushError::TooLarge(MAX_SERVICE_PAYLOAD_BYTES + 1))
        );
        assert!(matches!(
            pusher.push_to_user(&alice, "no name", "x"),
            Err(PushError::Name(_))
        ));
    }

    #[test]
    fn push_of_a_service_that_the_token_does_not_allow_is_given_to_nobody() {
        let (pushes, pusher, alice) = world();
        let link = pushes.enter(device(1), &alice, &Permissions::default(), || false);
        assert_eq!(pusher.push_to_user(&alice, "news", "x"), pushed(0, 0));
        link.permit(&calling());
        assert_eq!(pusher.push_to_user(&alice, "news", "x"), pushed(1, 0));
        assert_eq!(pusher.push_to_user(&alice, "stock", "y"), pushed(1, 0));
        let mut narrower = calling();
        narrower.services = Some(vec![
            "stock"
                .parse()
                .map(sealwire_protocol::service::ServicePattern::Service)
                .unwrap(),
        ]);
        link.permit(&narrower);
        assert_eq!(link.take().unwrap().payload, "y");
        assert!(link.take().is_none(), "what waited is lost");
        assert_eq!(pusher.push_to_user(&alice, "news", "x"), pushed(0, 0));
    }

    #[test]
    fn newer_link_of_a_device_takes_the_older_ones_place_and_survives_its_end() {
        let (pushes, pusher, alice) = world();
        let older = pushes.enter(device(1), &alice, &calling(), || false);
        let newer = pushes.enter(device(1), &alice, &calling(), || false);
        assert_eq!(pusher.push_to_user(&alice, "news", "x"), pushed(1, 0));
        drop(older);
        assert_eq!(pusher.push_to_device(&device(1), "news", "y"), pushed(1, 0));
        assert_eq!(newer.take().unwrap().payload, "x");
        assert_eq!(newer.take().unwrap().payload, "y");
        drop(newer);
        assert_eq!(pusher.push_to_user(&alice, "news", "x"), pushed(0, 0));
        let links = pushes.links();
        assert!(links.by_device.is_empty() && links.by_user.is_empty());
    }

    #[test]
    fn older_link_that_is_entered_last_does_not_take_the_newer_ones_place() {
        let (pushes, pusher, alice) = world();
        let newer = pushes.enter(device(1), &alice, &calling(), || false);
        let older = pushes.enter(device(1), &alice, &calling(), || true);
        assert_eq!(pusher.push_to_user(&alice, "news", "x"), pushed(1, 0));
        drop(older);
        assert_eq!(pusher.push_to_device(&device(1), "news", "y"), pushed(1, 0));
        assert_eq!(newer.take().unwrap().payload, "x");
        assert_eq!(newer.take().unwrap().payload, "y");
    }

    #[test]
    fn link_is_told_once_that_something_came() {
        let (pushes, pusher, alice) = world();
        let link = pushes.enter(device(1), &alice, &calling(), || false);
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(!link.poll_grown(cx));
        pusher.push_to_user(&alice, "news", "x").unwrap();
        assert!(link.poll_grown(cx));
        assert!(!link.poll_grown(cx), "though it has not been taken");
    }
}
