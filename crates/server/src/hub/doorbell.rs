//! How others get a link's attention: a few bits, and the few users whose devices changed. It never fills.
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::bounds::MAX_CHANGED_USERS;
use crate::closing::End;

/// News for a link, as bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct News(u16);

impl News {
    /// The mailbox has grown.
    pub(crate) const MAIL: Self = Self(1);
    /// The set of devices of the link's own user changed.
    pub(crate) const DEVICES: Self = Self(2);
    /// A newer link of the same device has taken over.
    pub(crate) const REPLACED: Self = Self(4);
    /// The device was removed.
    pub(crate) const REVOKED: Self = Self(8);
    /// The sets of devices of the users beside this changed.
    const OTHERS: Self = Self(16);
    /// So many others' changed that they are not told apart: it may have been any that the link watches.
    pub(crate) const ANY_OTHER: Self = Self(32);
    /// More is revoked than before; it may be the link's token.
    pub(crate) const REVOCATIONS: Self = Self(64);
    /// The device's card was taken away.
    pub(crate) const WITHDRAWN: Self = Self(128);
    /// The relay is being drained.
    pub(crate) const LEAVING: Self = Self(256);
    /// The device may have become somebody's: another's than the link's user.
    pub(crate) const OWNER: Self = Self(512);

    /// Whether `other` is part of this.
    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Why the link has ended, if this says so.
    pub(crate) fn end(self) -> Option<End> {
        if self.has(Self::REVOKED) {
            Some(End::Revoked)
        } else if self.has(Self::REPLACED) {
            Some(End::Replaced)
        } else {
            None
        }
    }
}

/// What a doorbell had to say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rung {
    pub(crate) news: News,
    /// Other users whose sets of devices changed, each once.
    pub(crate) changed: Vec<Arc<str>>,
}

/// One link's doorbell.
#[derive(Debug, Default)]
pub(crate) struct Doorbell {
    bits: AtomicU16,
    /// All that was ever rung, of which some ends the link and stays true after it was taken.
    rung: AtomicU16,
    changed: Mutex<Vec<Arc<str>>>,
    wake: Notify,
}

impl Doorbell {
    pub(super) fn ring(&self, news: News) {
        self.rung.fetch_or(news.0, Ordering::Release);
        self.bits.fetch_or(news.0, Ordering::Release);
        self.wake.notify_one();
    }

    /// Why the link has ended, if it was told so, whether or not it has heard it.
    pub(crate) fn end(&self) -> Option<End> {
        News(self.rung.load(Ordering::Acquire)).end()
    }

    /// The devices of a user that the link watches have changed.
    pub(super) fn ring_changed(&self, user: &Arc<str>) {
        let news = {
            let mut changed = self.changed();
            if changed.contains(user) {
                News::OTHERS
            } else if changed.len() < MAX_CHANGED_USERS {
                changed.push(Arc::clone(user));
                News::OTHERS
            } else {
                News::ANY_OTHER
            }
        };
        self.ring(news);
    }

    /// Takes the news, if there is some.
    pub(crate) fn take(&self) -> Option<Rung> {
        let news = News(self.bits.swap(0, Ordering::Acquire));
        (news.0 != 0).then(|| Rung {
            news,
            changed: if news.has(News::OTHERS) || news.has(News::ANY_OTHER) {
                std::mem::take(&mut self.changed())
            } else {
                Vec::new()
            },
        })
    }

    /// Waits for news and takes it. Cancelling loses nothing.
    pub(crate) async fn rung(&self) -> Rung {
        loop {
            if let Some(rung) = self.take() {
                return rung;
            }
            self.wake.notified().await;
        }
    }

    fn changed(&self) -> MutexGuard<'_, Vec<Arc<str>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_that_comes_before_the_wait_is_not_lost_and_is_joined() {
        let doorbell = Doorbell::default();
        doorbell.ring(News::MAIL);
        doorbell.ring(News::DEVICES);
        let rung = doorbell.rung().await;
        assert!(rung.news.has(News::MAIL) && rung.news.has(News::DEVICES));
        assert!(!rung.news.has(News::REPLACED) && rung.changed.is_empty());
        assert_eq!(doorbell.take(), None);
    }

    #[test]
    fn an_end_stays_when_it_was_heard() {
        let doorbell = Doorbell::default();
        doorbell.ring(News::MAIL);
        assert!(doorbell.end().is_none());
        doorbell.ring(News::REPLACED);
        assert!(doorbell.take().is_some());
        assert!(matches!(doorbell.end(), Some(End::Replaced)));
        doorbell.ring(News::REVOKED);
        assert!(matches!(doorbell.end(), Some(End::Revoked)));
    }

    #[test]
    fn a_user_that_changes_again_is_named_once() {
        let doorbell = Doorbell::default();
        doorbell.ring_changed(&"bob".into());
        doorbell.ring_changed(&"carol".into());
        doorbell.ring_changed(&"bob".into());
        let rung = doorbell.take().unwrap();
        assert_eq!(rung.changed, ["bob".into(), "carol".into()]);
        assert!(!rung.news.has(News::ANY_OTHER));
        doorbell.ring_changed(&"bob".into());
        assert_eq!(doorbell.take().unwrap().changed, ["bob".into()]);
    }

    #[test]
    fn more_users_than_a_doorbell_holds_are_not_told_apart() {
        let doorbell = Doorbell::default();
        for user in 0..1_000 {
            doorbell.ring_changed(&user.to_string().into());
        }
        let rung = doorbell.take().unwrap();
        assert!(rung.news.has(News::ANY_OTHER));
        assert_eq!(rung.changed.len(), MAX_CHANGED_USERS);
        assert_eq!(doorbell.take(), None);
    }
}
