//! Two parties in virtual time: a device and a relay, whatever an adversary on the wire does, and rogue peers that have the keys but
//! do not follow the rules (docs/protocol.md §3 to §5, §13).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "all of this is test code, also what is not marked as a test"
)]

mod arbitrary;
mod authorisation;
mod flights;
mod pair;
mod proofs;
mod records;
mod refresh;
mod rogue;
