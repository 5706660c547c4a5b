//! The setting of the end-to-end tests: real relays and devices on loopback, with sockets, TLS and files.
//!
//! ```text
//! Town ── a relay with a data directory, which can be stopped and started again on its port
//!  └ Account ── what a device keeps while it is away: its store, its credential, what it knows of relay and issuer
//!     └ Device ── the same, connected
//! ```
//!
//! Nothing is waited for without a bound, and what was waited for is named when it does not come. Nothing sleeps.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test that cannot be set up has failed"
)]

mod device;
mod issuer;
pub mod kill;
mod provider;
#[cfg(feature = "simulation")]
pub mod simulation;
mod town;
mod wire;

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use device::{Account, Credential, Device};
pub use issuer::{AUDIENCE, ISSUER, Issuer, Wish};
pub use provider::{EVERYTHING, PROVIDER, PROVIDER_AUDIENCE, Provider};
pub use town::{Town, Whereabouts};
pub use wire::Wire;

/// How long anything may take, on the slowest and busiest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for `future`.
///
/// # Panics
/// If it takes longer than [`PATIENCE`]: `what` did not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// The README's programs are compiled as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// And those of the page on operating a relay.
#[cfg(doctest)]
#[doc = include_str!("../../docs/operations.md")]
struct Operations;

/// And those of the page on identity providers.
#[cfg(doctest)]
#[doc = include_str!("../../docs/identity-providers.md")]
struct IdentityProviders;
