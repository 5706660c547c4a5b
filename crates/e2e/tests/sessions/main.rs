//! Two devices in virtual time: agreement, ratchet and the choice of sessions (docs/protocol.md §6 to §8).
//!
//! Randomness is seeded and time is a number. Whenever something is refused, the harness checks that no byte of the stored
//! state has changed.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's harness fails by panicking"
)]

mod agreement;
mod arbitrary;
mod cards;
mod choice;
mod forge;
mod pair;
mod ratchet;
mod state;
