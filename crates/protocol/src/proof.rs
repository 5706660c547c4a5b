//! Proofs of possession in the link handshake and in a refresh (`docs/protocol.md` §3.5, §5.4).
//!
//! Each binds the key of one side to this handshake and to the other side, so that it can be neither replayed nor moved to another
//! relay or token. Which transcript hash is meant is left to the handshake.

use alloc::string::String;

use crate::{
    claims::{ClaimDefect, TokenError, refuse},
    jws::JwtType,
    key::{PublicKey, SigningKey, Thumbprint},
    statement::{Statement, UnverifiedStatement},
    token::CLOCK_TOLERANCE,
};

const RELAY_CLAIMS: [&str; 4] = ["iss", "aud", "th", "iat"];
const DEVICE_CLAIMS: [&str; 5] = ["iss", "aud", "th", "ath", "iat"];

/// What a relay proves: that it holds its key and answers this Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayProof {
    /// `aud`: SHA-256 of the Hello.
    pub hello: [u8; 32],
    /// `th`: t1 (`docs/protocol.md` §3.3).
    pub transcript: [u8; 32],
}

impl RelayProof {
    /// Signs with the relay's key, at `now` in seconds since 1970. At most 2,048 bytes.
    #[must_use]
    pub fn sign(&self, key: &SigningKey, now: u64) -> String {
        Statement::new(JwtType::RelayProof)
            .bytes("iss", key.thumbprint().as_bytes())
            .bytes("aud", &self.hello)
            .bytes("th", &self.transcript)
            .integer("iat", now)
            .sign(key)
    }

    /// Checks that `compact` is this proof, by `key`, made within 60 seconds of `now`: the signature first, then every claim.
    ///
    /// That `key` is the relay's is for the caller to check before (`docs/protocol.md` §3.5).
    ///
    /// # Errors
    /// Says which rule, or which claim.
    pub fn verify(&self, compact: &[u8], key: &PublicKey, now: u64) -> Result<(), TokenError> {
        let _ = (compact, key, now);
        todo!()
    }
}

/// What a device proves: that it holds its key, to this relay, in this handshake, with this credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceProof {
    /// `aud`: the relay.
    pub relay: Thumbprint,
    /// `th`: t2, or in a refresh the hash of §5.4.
    pub transcript: [u8; 32],
    /// `ath`: [`credential_hash`](crate::token::credential_hash) of the token, the invite code, or nothing.
    pub credential: [u8; 32],
}

impl DeviceProof {
    /// Signs with the device's key, at `now` in seconds since 1970. At most 2,048 bytes.
    #[must_use]
    pub fn sign(&self, key: &SigningKey, now: u64) -> String {
        Statement::new(JwtType::DeviceProof)
            .bytes("iss", key.thumbprint().as_bytes())
            .bytes("aud", self.relay.as_bytes())
            .bytes("th", &self.transcript)
            .bytes("ath", &self.credential)
            .integer("iat", now)
            .sign(key)
    }

    /// Checks that `compact` is this proof, by `key`, made within 60 seconds of `now`: the signature first, then every claim.
    ///
    /// That `key` is the one in the token's `cnf` is for the caller to check before (`docs/protocol.md` §3.5).
    ///
    /// # Errors
    /// Says which rule, or which claim.
    pub fn verify(&self, compact: &[u8], key: &PublicKey, now: u64) -> Result<(), TokenError> {
        let _ = (compact, key, now);
        todo!()
    }
}
