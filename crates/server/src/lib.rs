//! The relay, embeddable in an application.
#![forbid(unsafe_code)]

pub mod data_dir;
pub mod directory;
pub mod issuer;
pub mod mailbox;
pub mod policy;
mod relay;
pub mod storage;
mod tls;

pub use relay::{Relay, RelayBuilder, RelayError};
pub use tls::Tls;
