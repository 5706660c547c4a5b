//! What this device publishes: its card, and one-time prekeys.

use sealwire_e2e::one_time::OneTimePrekey;
use sealwire_protocol::limits;

use super::records;
use super::{Engine, Fatal, Moment, Open, Request};

/// Where the relay holds fewer one-time prekeys than one part in so many of [`FULL_PREKEYS`], more are published.
const LOW_PART: u8 = 5;
/// As many as the relay then holds.
pub(super) const FULL_PREKEYS: u8 = 100;
const _: () = assert!(FULL_PREKEYS as usize <= limits::MAX_STORED_PREKEYS);

/// What the relay holds of this device, as far as this link knows.
pub(super) struct Publishing {
    card: Published,
    prekeys: Published,
    /// One-time prekeys at the relay.
    held: u8,
    /// Those that the relay holds have no secrets any more.
    replace: bool,
    /// What was made, and is stored before it is given out.
    made: Vec<Made>,
}

enum Made {
    Card(u32, String),
    Prekeys(u8, bool, Vec<OneTimePrekey>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Published {
    /// The relay lacks it.
    Missing,
    /// The relay is getting it.
    Sent,
    /// The relay has it.
    There,
    /// The relay has refused it: not again on this link.
    Refused,
}

impl Publishing {
    pub(super) fn new(has_card: bool, held: u8, replace: bool) -> Self {
        let card = if has_card {
            Published::There
        } else {
            Published::Missing
        };
        Self {
            card,
            prekeys: Published::There,
            held: if replace { 0 } else { held },
            replace,
            made: Vec::new(),
        }
    }

    /// There is another attestation: a card that was refused may be taken with it.
    pub(super) fn attested_anew(&mut self) {
        if self.card == Published::Refused {
            self.card = Published::Missing;
        }
    }

    /// A one-time prekey was used.
    pub(super) fn used_one(&mut self) {
        self.held = self.held.saturating_sub(1);
    }
}

impl Engine {
    /// Makes what there is to publish. Its secrets are stored with the next commit, and only then is it given out.
    pub(super) fn make_publications(&mut self, now: Moment) {
        let (Some(link), Some(own)) = (&mut self.link, &self.own) else {
            return;
        };
        let publishing = &mut link.publishing;
        let card_due = match publishing.card {
            Published::Missing => true,
            Published::There => self.prekeys.needs_new_card(own, now.seconds()),
            Published::Sent | Published::Refused => false,
        };
        if card_due {
            let made = self
                .prekeys
                .publish(&self.keys, own, &mut self.rng, now.seconds());
            publishing.card = if let Ok(card) = made {
                let generation = self.prekeys.newest_generation().unwrap_or_default();
                publishing.made.push(Made::Card(generation, card));
                self.prekeys_changed = true;
                Published::Sent
            } else {
                tracing::error!("this device cannot make another card: all its ids are used up");
                Published::Refused
            };
        }
        let count = self.full_prekeys.saturating_sub(publishing.held);
        if publishing.held < self.full_prekeys / LOW_PART && publishing.prekeys == Published::There
        {
            let made =
                self.prekeys
                    .publish_one_time(&self.keys, count, &mut self.rng, now.seconds());
            publishing.prekeys = if let Ok(prekeys) = made {
                let replace = std::mem::take(&mut publishing.replace);
                publishing.made.push(Made::Prekeys(count, replace, prekeys));
                self.prekeys_changed = true;
                Published::Sent
            } else {
                Published::Refused
            };
        }
    }

    /// The next thing to publish.
    pub(super) fn poll_publish(&mut self) -> Option<Request> {
        let made = &mut self.link.as_mut()?.publishing.made;
        if made.is_empty() {
            return None;
        }
        Some(match made.remove(0) {
            Made::Card(generation, card) => Request::PublishCard {
                request: self.open_request(Open::Card(generation)),
                card,
            },
            Made::Prekeys(count, replace, prekeys) => Request::PublishPrekeys {
                request: self.open_request(Open::Prekeys(count)),
                replace,
                prekeys,
            },
        })
    }

    /// Whether the relay has answered that it has the newest card. One whose answer was lost may never have arrived: another
    /// is made.
    pub(super) fn relay_has_newest_card(&self) -> bool {
        self.prekeys.newest_generation() == Some(self.published.generation)
    }

    /// The relay has answered for the card of `generation`.
    pub(super) fn card_answered(&mut self, generation: u32, accepted: bool) -> Result<(), Fatal> {
        if accepted {
            self.published.generation = generation;
            let mut txn = self.begin();
            txn.put(records::published(), &self.published)?;
            self.stage(txn);
        }
        if let Some(link) = &mut self.link {
            link.publishing.card = if accepted {
                Published::There
            } else {
                Published::Refused
            };
        }
        Ok(())
    }

    /// Whether the one-time prekeys that the relay holds have to be replaced: kept until it has taken others.
    pub(super) fn set_replace(&mut self, replace: bool) -> Result<(), Fatal> {
        if self.published.replace != replace {
            self.published.replace = replace;
            let mut txn = self.begin();
            txn.put(records::published(), &self.published)?;
            self.stage(txn);
        }
        Ok(())
    }

    /// `count` one-time prekeys are at the relay; none if it has refused them.
    pub(super) fn published_prekeys(&mut self, count: u8) {
        if let Some(link) = &mut self.link {
            link.publishing.held = link.publishing.held.saturating_add(count);
            link.publishing.prekeys = if count == 0 {
                Published::Refused
            } else {
                Published::There
            };
        }
    }

    /// Whether others can find this device, or never will on this link.
    pub(crate) fn is_published(&self) -> bool {
        self.link
            .as_ref()
            .is_some_and(|link| match link.publishing.card {
                Published::There | Published::Refused => true,
                Published::Missing | Published::Sent => false,
            })
    }
}
