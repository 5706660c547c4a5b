//! What a device and a relay say, without I/O, clock or randomness of its own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod limits;
pub mod codec;
pub mod crypto;
