//! The names of users, each kept once however much mail is from them or for them.
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use sealwire_protocol::name::User;

/// Names that nothing refers to and that are kept all the same, because they tend to come again.
const MAX_UNUSED: usize = 4_096;

/// A name's number while something refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct UserNumber(u32);

impl UserNumber {
    /// The number of no name.
    pub(super) const NOBODY: Self = Self(u32::MAX);
}

#[derive(Debug)]
struct Slot {
    name: Option<Arc<User>>,
    references: u32,
    /// Whether it is among the unused, or was and has been used since.
    listed: bool,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Users {
    table: HashTable<u32>,
    hasher: RandomState,
    slots: Vec<Slot>,
    free: Vec<u32>,
    unused: VecDeque<u32>,
}

impl Users {
    /// The number of `name`, with one more reference to it.
    pub(super) fn refer(&mut self, name: &User) -> UserNumber {
        let hash = self.hasher.hash_one(name);
        let slots = &self.slots;
        let found = self
            .table
            .find(hash, |number| is(slots, *number, name))
            .copied();
        if let Some(number) = found {
            self.refer_again(UserNumber(number));
            return UserNumber(number);
        }
        let slot = Slot {
            name: Some(Arc::new(name.clone())),
            references: 1,
            listed: false,
        };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(free) = self.slots.get_mut(number as usize) {
                    *free = slot;
                }
                number
            }
            None => {
                // One slot has 24 bytes, so memory ends before the numbers do.
                let number = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
                self.slots.push(slot);
                number
            }
        };
        let (slots, hasher) = (&self.slots, &self.hasher);
        self.table.insert_unique(hash, number, |number| {
            name_of(slots, *number).map_or(0, |name| hasher.hash_one(&**name))
        });
        UserNumber(number)
    }

    /// The number of `name`, if something refers to it or did so lately.
    pub(super) fn find(&self, name: &User) -> Option<UserNumber> {
        let hash = self.hasher.hash_one(name);
        self.table
            .find(hash, |number| is(&self.slots, *number, name))
            .map(|number| UserNumber(*number))
    }

    /// One more reference.
    pub(super) fn refer_again(&mut self, number: UserNumber) {
        if let Some(slot) = self.slots.get_mut(number.0 as usize) {
            slot.references = slot.references.saturating_add(1);
        }
    }

    /// One reference less.
    pub(super) fn release(&mut self, number: UserNumber) {
        let Some(slot) = self.slots.get_mut(number.0 as usize) else {
            return;
        };
        slot.references = slot.references.saturating_sub(1);
        if slot.references > 0 || slot.listed {
            return;
        }
        slot.listed = true;
        self.unused.push_back(number.0);
        if self.unused.len() > MAX_UNUSED
            && let Some(oldest) = self.unused.pop_front()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, number: u32) {
        let Some(slot) = self.slots.get_mut(number as usize) else {
            return;
        };
        slot.listed = false;
        if slot.references > 0 {
            return;
        }
        let Some(name) = slot.name.take() else {
            return;
        };
        let hash = self.hasher.hash_one(&*name);
        if let Ok(entry) = self.table.find_entry(hash, |other| *other == number) {
            entry.remove();
        }
        self.free.push(number);
    }

    /// The name.
    pub(super) fn name(&self, number: UserNumber) -> Option<&Arc<User>> {
        name_of(&self.slots, number.0)
    }

    /// Names in memory.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

fn name_of(slots: &[Slot], number: u32) -> Option<&Arc<User>> {
    slots.get(number as usize)?.name.as_ref()
}

fn is(slots: &[Slot], number: u32, name: &User) -> bool {
    name_of(slots, number).is_some_and(|other| **other == *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> User {
        User::new(&format!("user{number}")).unwrap()
    }

    #[test]
    fn a_name_has_one_number_while_something_refers_to_it() {
        let mut users = Users::default();
        let first = users.refer(&user(1));
        assert_eq!(users.refer(&user(1)), first);
        assert_ne!(users.refer(&user(2)), first);
        users.release(first);
        for number in 10..10 + 2 * MAX_UNUSED {
            let other = users.refer(&user(number));
            users.release(other);
        }
        assert_eq!(users.name(first).unwrap().as_str(), "user1");
        assert_eq!(users.refer(&user(1)), first);
    }

    #[test]
    fn names_that_nothing_refers_to_are_bounded() {
        let mut users = Users::default();
        for number in 0..3 * MAX_UNUSED {
            let number = users.refer(&user(number));
            users.release(number);
            users.refer_again(number);
            users.release(number);
        }
        assert_eq!(users.len(), MAX_UNUSED);
        assert_eq!(users.slots.len(), MAX_UNUSED + 1);
    }
}
