//! The relay, embeddable in an application.
#![forbid(unsafe_code)]

mod relay;
mod tls;

pub use relay::{Relay, RelayBuilder, RelayError};
pub use tls::Tls;
