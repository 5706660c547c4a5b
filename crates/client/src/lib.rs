//! The device, embeddable in an application: it connects to a relay, keeps its keys in an encrypted store, and exchanges
//! messages that only the two ends can read.
//!
//! ```no_run
//! # async fn example(issuer: sealwire_client::TrustedIssuer) -> Result<(), sealwire_client::Error> {
//! use sealwire_client::{Client, Event, FileStore, Message, StoreKey};
//!
//! let client = Client::builder("wss://relay.example/v1#vT7dUh0sDLZDZoVqh_qKFOPjy0rfcTwfBnkGwUQ4cXE")
//!     .store(FileStore::open("device.store")?, StoreKey::from_file("device.key"))
//!     .issuer(issuer)
//!     .connect()
//!     .await?;
//! let receipt = client.send("bob", Message::text("hello")).await?; // safe at the relay
//! receipt.delivered().await?; // bob's devices have it
//! while let Some(event) = client.next().await {
//!     if let Event::Message(received) = event {
//!         println!("{}: {:?}", received.from, received.message.as_text());
//!         received.ack(); // done with it: it is not shown again
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//!  Client (handle) ── commands ──▶ connection: TCP, TLS, WebSocket, link, reconnects      [own thread]
//!                                      │ frames            │ what to send
//!                                      ▼                   │
//!                                  engine: sessions, peers, outbox, inbox; one transaction for each step
//!                                      │
//!                                  store: encrypted rows
//! ```
//!
//! Cryptography is in `sealwire-e2e` and `sealwire-protocol`; sockets are in [`connection`] only.
#![forbid(unsafe_code)]

mod builder;
mod call;
mod client;
pub mod connection;
mod credential;
mod engine;
pub mod error;
mod event;
mod issuer;
mod message;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
pub mod store;
#[cfg(test)]
mod testing;
mod transfer;

pub use sealwire_e2e::safety::SafetyNumber;
pub use sealwire_protocol::key::Thumbprint;
pub use sealwire_protocol::service::ServiceNameError;

pub use builder::ClientBuilder;
pub use call::{CALL_TIMEOUT, Call, CallError, Notify};
pub use client::{Client, Receipt};
pub use connection::tls::Tls;
pub use connection::{Closed, ConnectionState};
pub use credential::{NoToken, TokenProvider};
pub use error::{Error, ErrorClass};
pub use event::{Event, MailboxGap, NotDelivered, NotSent, Push};
pub use issuer::TrustedIssuer;
pub use message::{Device, Message, MessageId, Received};
pub use store::{FileStore, MemoryStore, Store, StoreError, StoreKey};
pub use transfer::{FileError, FileOffer, FileOptions, FileReceive, FileSend, Progress};
