//! Issuer tokens and standard JWE, with josekit behind types of our own.
//!
//! ```text
//! key files ── PublicKey, PrivateKey ──┬── KeySet ── TokenVerifier      tokens in
//!                                      ├── SigningKey                   tokens out
//!                                      └── jwe::seal_to, open_with      messages by and for anything that speaks JOSE
//! ```
//! Every input is read by the strict readers of `sealwire_protocol` before josekit sees any of it; what claims mean is decided there
//! too. This crate holds what needs RSA, P-256 and P-384, which is OpenSSL. Nothing of josekit is in a public signature.
#![forbid(unsafe_code)]

mod algorithm;
mod error;
pub mod jwe;
mod key;
mod keyset;
mod material;
mod mint;
mod pem;
mod verify;

pub use algorithm::{Algorithm, Algorithms};
pub use error::{KeyError, MintError, OpenError, SealError};
pub use key::{KeyType, MAX_KEY_FILE_BYTES, PrivateKey, PublicKey};
pub use keyset::{KeySet, MAX_KEYS, RotatingKeySet};
pub use material::{MAX_RSA_BITS, MIN_RSA_BITS};
pub use mint::{Claims, SigningKey};
pub use sealwire_protocol::jwe::JweFault;
pub use verify::TokenVerifier;
