//! The relay, embeddable in an application: it authenticates devices by their tokens, applies the tokens' claims, and routes and stores
//! sealed messages that it cannot open (docs/protocol.md).
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sealwire_server::Relay;
//! use std::time::Duration;
//!
//! let relay = Relay::builder("relay-data").bind("127.0.0.1:8443").await?;
//! println!("{}", relay.address());
//! let invitation = relay.invite("alice", Duration::from_secs(600)).await?;
//! println!("{}", invitation.to_line().as_str());
//! // ... until the application stops:
//! relay.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  listener ─▶ http ─▶ handshake ─▶ link ─▶ requests ─▶ mail │ directory, issuer ─▶ storage
//!  (TCP, TLS)  (upgrade)  │           ▲                        │
//!               authority, exchange   └───────── hub ◀─────────┘  "there is mail"
//! ```
//! Beside the mail there are [`services`]: what the application itself answers and pushes to devices, sealed between them and the relay.
//!
//! One task serves one connection from its first byte to its last. Everything a stranger can make larger has a bound, named in one of
//! `bounds`, [`policy`] or [`sealwire_protocol::limits`]. The relay does not depend on `sealwire-e2e`: the code that could open a message is not in it.
#![forbid(unsafe_code)]

mod admin;
mod authority;
#[cfg(unix)]
pub mod backup;
pub mod blobs;
mod bounds;
mod card_check;
mod clock;
mod closing;
pub mod data_dir;
mod descriptors;
pub mod directory;
mod drain;
pub mod exchange;
mod handshake;
mod http;
mod hub;
pub mod issuer;
pub mod issuer_keys;
mod link;
mod listener;
pub mod mail;
mod metrics;
mod mounted;
#[cfg_attr(
    not(feature = "simulation"),
    allow(unreachable_pub, reason = "a simulation tells the time from outside")
)]
mod now;
#[cfg(unix)]
pub mod operator;
pub mod policy;
mod refusal;
mod relay;
mod remedy;
mod requests;
pub mod revocations;
pub mod services;
mod shared;
mod shares;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod socket;
pub mod spans;
pub mod storage;
mod tls;

pub use drain::Drain;
pub use exchange::{ExchangeConfigError, ExchangeIssuer};
pub use mounted::HttpService;
pub use relay::{Relay, RelayBuilder, RelayError};
pub use tls::Tls;
