//! What two devices say to each other, without I/O, clock or randomness of its own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod card;
pub mod content;
pub mod device;
pub mod error;
pub mod file;
pub mod inspect;
pub mod message;
pub mod one_time;
pub mod padding;
pub mod peer;
pub mod prekeys;
pub mod safety;
pub mod standard;

mod agreement;
mod ratchet;
mod schedule;
mod session;
mod skipped;
mod state;
