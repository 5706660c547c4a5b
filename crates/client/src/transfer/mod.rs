//! Files, of any size: sealed in chunks, left with the relay as a blob, and named in a message (docs/protocol.md §15).
//!
//! ```text
//!  Client::send_file ──▶ thread: upload ── chunks ──▶ port ── Command ──▶ connection task ──▶ relay
//!         │                  └ record in the device store: what is covered, so that it goes on after any interruption
//!         └── at the end: the message that names blob, key, size and SHA-256 (offer), by the ordinary way
//!
//!  Client::receive_file ──▶ thread: download ── chunks ──▶ part ── whole and right ──▶ the file's place
//! ```
//! * Neither end ever has a whole file in memory, nor more than 8 chunks under way; whoever is slower sets the pace.
//! * An interrupted transfer goes on when the same call is made again, on either side, whatever was killed.
//! * What the relay could do to a chunk, it cannot hide: [`chunks`] says what binds each to its place, and [`offer`] has the hash of the whole.
//! * A file is never opened by the name that its sender gives it: [`name`] makes that plain, and the application says where it goes.

mod chunks;
mod download;
mod error;
mod handle;
mod name;
mod offer;
mod part;
mod port;
mod record;
#[cfg(test)]
mod tests;
mod upload;

pub use error::FileError;
pub use handle::{FileReceive, FileSend, Progress};
pub use offer::{FileOffer, FileOptions};

pub(crate) use port::{AnswerTo, Desk, Keep, Wish};
