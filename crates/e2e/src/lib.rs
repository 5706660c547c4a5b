//! What two devices say to each other, without I/O, clock or randomness of its own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod content;
pub mod message;
pub mod padding;
pub mod safety;
