//! The built-in issuer, for a first run and for small deployments (docs/protocol.md §3.6).
use sealwire_protocol::invite::InviteCode;
use sealwire_protocol::key::{PublicKey, SigningKey, Thumbprint};
use sealwire_protocol::name::{Issuer as IssuerName, User};
use sealwire_protocol::token::AccessToken;

use crate::storage::{Storage, StorageError};

/// The built-in issuer of one relay.
#[derive(Debug)]
pub struct Issuer {
    storage: Storage,
    key: SigningKey,
    name: IssuerName,
    audience: String,
}

/// A token that the built-in issuer minted, and what it says, verified.
pub struct Minted {
    /// The compact JWS.
    pub token: String,
    /// The same token after [`sealwire_protocol::token::UnverifiedAccessToken::verify`] with the issuer's public key.
    pub verified: AccessToken,
}

/// A device that is enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledDevice {
    /// The device.
    pub device: Thumbprint,
    /// Its user.
    pub user: User,
    /// When it was enrolled, in seconds since 1970.
    pub enrolled: u64,
    /// Whether it was removed: it gets no more tokens, and cannot be enrolled again.
    pub removed: bool,
}

/// Why the built-in issuer gives no token. A device is told 4100 whatever the reason (docs/protocol.md §3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssuerError {
    /// No such invitation.
    #[error("there is no such invitation; ask for a new one")]
    UnknownInvite,
    /// The invitation is too old.
    #[error("the invitation has expired; ask for a new one")]
    InviteExpired,
    /// Another device key has redeemed the invitation.
    #[error("the invitation has been used by another device; ask for a new one, and find out who used this one")]
    InviteUsed,
    /// The device key is enrolled for another user.
    #[error("the device key is enrolled for another user; make a new one")]
    AnotherUser,
    /// The device was removed.
    #[error("the device was removed; make a new device key and ask for an invitation")]
    Removed,
    /// The device is not enrolled.
    #[error("the device is not enrolled here; ask for an invitation")]
    NotEnrolled,
    /// The time does not fit into a token, or the token that was minted does not verify.
    #[error("no token can be minted; check the relay's clock")]
    Mint,
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness; try again later")]
    Randomness,
    /// The store does not work.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Issuer {
    /// The issuer with `key`, which is not the relay's, for the relay with the thumbprint `relay`.
    #[must_use]
    pub fn new(storage: Storage, key: SigningKey, relay: &Thumbprint) -> Self {
        todo!()
    }

    /// `iss`: `urn:sealwire:issuer:<thumbprint of the issuer's key>`.
    #[must_use]
    pub fn name(&self) -> &IssuerName {
        &self.name
    }

    /// `aud`: `urn:sealwire:relay:<thumbprint of the relay's key>`.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.audience
    }

    /// The key that its tokens verify with.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        self.key.public()
    }

    /// Invites `user`: a one-time code, good for `lifetime_seconds` from `now` (seconds since 1970). Only its hash is stored.
    ///
    /// # Errors
    /// [`IssuerError::Storage`] or [`IssuerError::Randomness`].
    pub async fn invite(&self, user: &User, lifetime_seconds: u64, now: u64) -> Result<InviteCode, IssuerError> {
        todo!()
    }

    /// Redeems an invitation for `device`, which has proved that it holds the key, enrols it, and mints its token. Within the
    /// invitation's lifetime the same device may do so again.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn redeem(&self, code: &[u8], device: &PublicKey, now: u64) -> Result<Minted, IssuerError> {
        todo!()
    }

    /// Mints a token for an enrolled device, which has proved that it holds the key.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn renew(&self, device: &PublicKey, now: u64) -> Result<Minted, IssuerError> {
        todo!()
    }

    /// Every device of `user` that was ever enrolled.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub fn devices(&self, user: &User) -> Result<Vec<EnrolledDevice>, StorageError> {
        todo!()
    }

    /// Removes a device: no more tokens, its card and prekeys are gone. Returns whether it was enrolled. Its live link is for the
    /// caller to close.
    ///
    /// # Errors
    /// [`StorageError::Unavailable`].
    pub async fn remove(&self, device: &Thumbprint) -> Result<bool, StorageError> {
        todo!()
    }
}
