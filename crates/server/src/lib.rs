//! The relay, embeddable in an application.
#![forbid(unsafe_code)]

mod authority;
mod bounds;
mod card_check;
mod clock;
mod closing;
pub mod data_dir;
pub mod directory;
mod handshake;
mod http;
mod hub;
pub mod issuer;
mod link;
mod listener;
pub mod mailbox;
mod outbox;
pub mod policy;
mod relay;
mod requests;
mod socket;
pub mod storage;
mod tls;
mod window;

pub use relay::{Relay, RelayBuilder, RelayError};
pub use tls::Tls;
