//! What a device and a relay say, without I/O, clock or randomness of its own.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "audit")]
extern crate std;

pub mod address;
#[cfg(feature = "audit")]
pub mod audit;
pub mod base64url;
pub mod batch;
mod claims;
pub mod close;
pub mod codec;
pub mod crypto;
pub mod dpop;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod introduction;
pub mod invite;
pub mod json;
pub mod jwe;
pub mod jws;
pub mod key;
pub mod key_set;
pub mod limits;
pub mod link;
pub mod name;
pub mod permissions;
pub mod proof;
pub mod provider;
mod record;
mod schedule;
pub mod service;
pub mod statement;
pub mod succession;
pub mod token;

pub use claims::{ClaimDefect, TokenError};
