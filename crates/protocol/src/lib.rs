//! What a device and a relay say, without I/O, clock or randomness of its own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod limits;
pub mod codec;
pub mod crypto;

pub mod base64url;
mod claims;
pub mod invite;
pub mod json;
pub mod jws;
pub mod key;
pub mod key_set;
pub mod name;
pub mod permissions;
pub mod proof;
pub mod statement;
pub mod token;

pub use claims::{ClaimDefect, TokenError};
