//! The invitation line: everything a device needs to join a relay with a built-in issuer (docs/protocol.md §14).
use alloc::{string::String, vec::Vec};

use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    key::{PublicKey, Thumbprint},
    limits,
    name::User,
};

/// A one-time invite code: 16 to 64 secret bytes (docs/protocol.md §3.6). Erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct InviteCode(Vec<u8>);

impl InviteCode {
    /// Takes over 16 to 64 bytes.
    ///
    /// # Errors
    /// [`InviteError::Code`] for another length; the bytes are erased then as well.
    pub fn new(code: Vec<u8>) -> Result<Self, InviteError> {
        let code = Self(code);
        let fits = (limits::MIN_INVITE_BYTES..=limits::MAX_INVITE_BYTES).contains(&code.0.len());
        if fits { Ok(code) } else { Err(InviteError::Code) }
    }

    /// The secret bytes: the credential of the link's Finish.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl core::fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("InviteCode(secret)")
    }
}

/// What an invitation line says.
#[derive(Debug)]
pub struct Invitation {
    /// The relay's address with its thumbprint: `wss://host[:port]/v1#<thumbprint>` (§3.1).
    pub address: String,
    /// SHA-256 of the relay's self-signed certificate (DER), if it has one: the only certificate to accept.
    pub certificate: Option<[u8; 32]>,
    /// The built-in issuer's key.
    pub issuer_key: PublicKey,
    /// Who is invited.
    pub user: User,
    /// The one-time code.
    pub code: InviteCode,
    /// Until when, in seconds since 1970.
    pub expires: u64,
}

/// Why a text is not an invitation line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InviteError {
    /// The code does not have 16 to 64 bytes.
    #[error("the invitation's code does not have 16 to 64 bytes")]
    Code,
}

impl Invitation {
    /// Reads a line.
    ///
    /// # Errors
    /// [`InviteError`].
    pub fn parse(line: &str) -> Result<Self, InviteError> {
        todo!()
    }

    /// The line.
    #[must_use]
    pub fn to_line(&self) -> String {
        todo!()
    }

    /// The relay's thumbprint, from the address.
    #[must_use]
    pub fn relay(&self) -> Thumbprint {
        todo!()
    }
}
