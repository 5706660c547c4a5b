//! Devices that talk through a real relay, over sockets, TLS and files: what arrives, and what is refused.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "all of this is test code, also what is not marked as a test"
)]

mod delivery;
mod devices;
mod hostile;
mod limits;
mod relays;
mod tokens;
