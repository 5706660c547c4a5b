//! The built-in issuer, for a first run and for small deployments (docs/protocol.md §3.6).
//!
//! ```text
//!  invite ──► code, shown once; its SHA-256 is stored ──► redeem(code, device key): enrolled, once ──► token
//!                                                         renew(device key) ─────────────────────────► token
//!            a provider's token ([`crate::exchange`]) ──► mint_exchanged(grant, device key): not enrolled ──► token
//! ```
//!
//! It has its own key: whoever has the relay's key alone cannot name a user's device. That a device holds its key is proved in
//! the handshake, before anything here is called. Invitations that another process made while this one has the store open wait
//! as files ([`crate::data_dir`]) and move into the store when they are redeemed.
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rand::TryRng as _;
use redb::{ReadableTable as _, ReadableTableMetadata as _};
use sealwire_protocol::base64url;
use sealwire_protocol::invite::{InviteCode, built_in_audience, built_in_issuer};
use sealwire_protocol::jws::JwtType;
use sealwire_protocol::key::{PublicKey, SigningKey, Thumbprint};
use sealwire_protocol::limits;
use sealwire_protocol::name::{Issuer as IssuerName, Tenant, User};
use sealwire_protocol::permissions::{Permissions, Recipient};
use sealwire_protocol::service::ServicePattern;
use sealwire_protocol::token::{AccessPolicy, AccessToken, UnverifiedAccessToken};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::data_dir::waiting::{self, WaitingInvite};
use crate::exchange::{Names, NotInvited};
use crate::storage::{DEVICES, DeviceId, INVITES, Storage, StorageError, Tables};

/// Seconds for which a token of the built-in issuer is good.
pub const TOKEN_LIFETIME_SECONDS: u64 = 60 * 60;
/// Seconds for which an invitation is good, unless whoever invites says otherwise.
pub const INVITE_LIFETIME_SECONDS: u64 = 24 * 60 * 60;
/// Bytes of an invite code.
const CODE_BYTES: usize = 32;
/// Invitations that the store holds.
const MAX_INVITES: u64 = 10_000;

/// The built-in issuer of one relay.
#[derive(Debug)]
pub struct Issuer {
    storage: Storage,
    key: SigningKey,
    name: IssuerName,
    audience: String,
    waiting: Option<PathBuf>,
    names: Arc<Names>,
}

/// A token that the built-in issuer minted, and what it says, verified.
pub struct Minted {
    /// The compact JWS.
    pub token: String,
    /// The same token after [`UnverifiedAccessToken::verify`] with the issuer's public key.
    pub verified: AccessToken,
}

/// A device that is enrolled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledDevice {
    /// The device.
    pub device: Thumbprint,
    /// When it was enrolled, in seconds since 1970.
    pub enrolled: u64,
    /// Whether it was removed: it gets no more tokens, and cannot be enrolled again.
    pub removed: bool,
}

/// Why the built-in issuer gives no token. A device is told 4100 whatever the reason (docs/protocol.md §3.6), except that
/// [`IssuerError::is_internal`] is a fault of the relay.
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
    #[error(
        "the invitation was used by another device; ask for a new one, and find out who used this one"
    )]
    InviteUsed,
    /// The device is another user's.
    #[error("the device is another user's; make a new device key")]
    AnotherUser,
    /// The device was removed.
    #[error("the device was removed; make a new device key and ask for an invitation")]
    Removed,
    /// The device is not enrolled.
    #[error("the device is not enrolled here; ask for an invitation")]
    NotEnrolled,
    /// The name is one of an exchange issuer, which alone says who that is.
    #[error(
        "the user's name begins with the prefix of an exchange issuer, which alone names these users unless it shares them"
    )]
    Reserved,
    /// The name is of no tenant, and has to be.
    #[error("the user's name is of no tenant, and here it has to be: TENANT/NAME")]
    NoTenant,
    /// What was exchanged says more than fits a token.
    #[error("what the token allows does not fit the token that it is exchanged for")]
    TooLong,
    /// Too many invitations wait to be redeemed.
    #[error("{MAX_INVITES} invitations are open; wait until some are redeemed or expire")]
    TooManyInvites,
    /// The token that was minted does not verify.
    #[error("no token can be minted; check the relay's clock")]
    Mint,
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness; try again later")]
    Randomness,
    /// The store does not work.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl IssuerError {
    /// Whether the relay is at fault (4005) rather than the credential (4100).
    #[must_use]
    pub fn is_internal(self) -> bool {
        match self {
            Self::Mint | Self::Randomness | Self::Storage(_) => true,
            Self::UnknownInvite
            | Self::InviteExpired
            | Self::InviteUsed
            | Self::AnotherUser
            | Self::Removed
            | Self::NotEnrolled
            | Self::Reserved
            | Self::NoTenant
            | Self::TooLong
            | Self::TooManyInvites => false,
        }
    }
}

impl Issuer {
    /// The issuer with `key`, which is not the relay's.
    #[must_use]
    pub fn new(storage: Storage, key: SigningKey) -> Self {
        let id = key.thumbprint();
        let (name, audience) = (built_in_issuer(&id), built_in_audience(&id));
        Self {
            storage,
            key,
            name,
            audience,
            waiting: None,
            names: Arc::default(),
        }
    }

    /// Redeems also the invitations that wait as files in `dir` ([`crate::data_dir::DataDir::invites_path`]).
    #[must_use]
    pub fn with_waiting_invites(mut self, dir: PathBuf) -> Self {
        self.waiting = Some(dir);
        self
    }

    /// Whom it does not name, as exchange issuers do, and who is of which tenant.
    pub(crate) fn respect(&mut self, names: Arc<Names>) {
        self.names = names;
    }

    /// `iss`: `urn:sealwire:issuer:<thumbprint of the issuer's key>`.
    #[must_use]
    pub fn name(&self) -> &IssuerName {
        &self.name
    }

    /// `aud`: `urn:sealwire:relay-of:<thumbprint of the issuer's key>`.
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
    /// [`IssuerError::Reserved`], [`IssuerError::NoTenant`], [`IssuerError::TooManyInvites`], [`IssuerError::Randomness`] or [`IssuerError::Storage`].
    pub async fn invite(
        &self,
        user: &User,
        lifetime_seconds: u64,
        now: u64,
    ) -> Result<InviteCode, IssuerError> {
        self.invited(user)?;
        let (code, hash) = new_code()?;
        let (user, expires) = (user.clone(), now.saturating_add(lifetime_seconds));
        self.storage
            .write(0, move |tables| tables.invite(&hash, &user, expires, now))
            .await??;
        Ok(code)
    }

    /// Redeems an invitation for `device`, which has proved that it holds the key, enrols it, and mints its token. Within the
    /// invitation's lifetime the same device may do so again. Of several devices that come at once exactly one succeeds.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub async fn redeem(
        &self,
        code: &[u8],
        device: &PublicKey,
        now: u64,
    ) -> Result<Minted, IssuerError> {
        if !(limits::MIN_INVITE_BYTES..=limits::MAX_INVITE_BYTES).contains(&code.len()) {
            return Err(IssuerError::UnknownInvite);
        }
        let hash: [u8; 32] = Sha256::digest(code).into();
        let waiting = match &self.waiting {
            Some(dir) => {
                let dir = dir.clone();
                tokio::task::spawn_blocking(move || waiting::read(&dir, &hash))
                    .await
                    .unwrap_or_default()
            }
            None => None,
        };
        // Whoever guesses codes does not get as far as the writer, and nothing is used up for somebody who would get no token.
        let stored = self.storage.read(|read| {
            let row = read.open_table(INVITES)?.get(&hash)?;
            Ok(row.map(|row| row.value().0.to_owned()))
        })?;
        let invited = match (stored, &waiting) {
            (Some(user), _) => User::new(&user).map_err(|_| IssuerError::Mint)?,
            (None, Some(waiting)) => waiting.user.clone(),
            (None, None) => return Err(IssuerError::UnknownInvite),
        };
        self.invited(&invited)?;
        let id = *device.thumbprint().as_bytes();
        let waited = waiting.is_some();
        let user = self
            .storage
            .write(0, move |tables| tables.redeem(&hash, waiting, &id, now))
            .await??;
        if let (true, Some(dir)) = (waited, &self.waiting) {
            // The store knows it now, and knows by whom it was redeemed; the file would be refused.
            waiting::remove(dir, &hash);
        }
        self.mint(&user, device, now)
    }

    /// Mints a token for an enrolled device, which has proved that it holds the key.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn renew(&self, device: &PublicKey, now: u64) -> Result<Minted, IssuerError> {
        match self.storage.device(&device.thumbprint())? {
            Some(known) if known.removed => Err(IssuerError::Removed),
            Some(known) if known.enrolled.is_some() => self.mint(&known.user, device, now),
            Some(_) | None => Err(IssuerError::NotEnrolled),
        }
    }

    /// Mints a token for `device`, which has proved that it holds the key, and whose user an exchange issuer has named. It is not enrolled by that, so that
    /// it gets no other token without another such word.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub(crate) fn mint_exchanged(
        &self,
        grant: &Grant<'_>,
        device: &PublicKey,
        now: u64,
    ) -> Result<Minted, IssuerError> {
        match self.storage.device(&device.thumbprint())? {
            Some(known) if known.removed => Err(IssuerError::Removed),
            Some(known) if known.user != grant.user.as_str() => Err(IssuerError::AnotherUser),
            Some(_) | None => self.sign(grant, device, now),
        }
    }

    /// The tenant of somebody who is invited, and whether they may be.
    fn invited(&self, user: &User) -> Result<Option<Tenant>, IssuerError> {
        self.names.invited(user).map_err(|why| match why {
            NotInvited::Reserved => IssuerError::Reserved,
            NotInvited::NoTenant => IssuerError::NoTenant,
        })
    }

    /// Every device of `user` that was ever enrolled.
    ///
    /// # Errors
    /// [`StorageError::Unreadable`].
    pub fn devices(&self, user: &User) -> Result<Vec<EnrolledDevice>, StorageError> {
        self.storage.read(|read| {
            let mut devices = Vec::new();
            for entry in read.open_table(DEVICES)?.iter()? {
                let (device, row) = entry?;
                let (owner, enrolled, removed) = row.value();
                if let (true, Some(enrolled)) = (owner == user.as_str(), enrolled) {
                    devices.push(EnrolledDevice {
                        device: Thumbprint::from_bytes(*device.value()),
                        enrolled,
                        removed,
                    });
                }
            }
            Ok(devices)
        })
    }

    fn mint(&self, user: &str, device: &PublicKey, now: u64) -> Result<Minted, IssuerError> {
        let user = &User::new(user).map_err(|_| IssuerError::Mint)?;
        // Those who were invited before, too.
        let tenant = self.invited(user)?;
        let grant = Grant {
            user,
            tenant: tenant.as_ref(),
            scope: "sealwire:send sealwire:receive sealwire:publish sealwire:call",
            details: None,
            id: None,
            issued: now,
            expires: now.saturating_add(TOKEN_LIFETIME_SECONDS),
        };
        self.sign(&grant, device, now)
    }

    fn sign(&self, grant: &Grant<'_>, device: &PublicKey, now: u64) -> Result<Minted, IssuerError> {
        let mut id = [0; 16];
        rand::rngs::SysRng
            .try_fill_bytes(&mut id)
            .map_err(|_| IssuerError::Randomness)?;
        let id = base64url::encode(&id);
        let claims = Claims {
            iss: self.name.as_str(),
            sub: grant.user.as_str(),
            aud: &self.audience,
            exp: grant.expires,
            iat: grant.issued,
            jti: grant.id.unwrap_or(&id),
            scope: grant.scope,
            tenant: grant.tenant.map(Tenant::as_str),
            authorization_details: grant.details.map(details).unwrap_or_default(),
            cnf: Confirmation {
                jkt: device.thumbprint().to_string(),
            },
        };
        let payload = serde_json::to_vec(&claims).map_err(|_| IssuerError::Mint)?;
        let header = format!(
            r#"{{"alg":"EdDSA","typ":"{}"}}"#,
            JwtType::AccessToken.typ()
        );
        let mut token = format!(
            "{}.{}",
            base64url::encode(header.as_bytes()),
            base64url::encode(&payload)
        );
        let signature = self.key.sign(token.as_bytes());
        token.push('.');
        token.push_str(&base64url::encode(&signature));
        if token.len() > limits::MAX_TOKEN_BYTES {
            return Err(IssuerError::TooLong);
        }
        let policy = AccessPolicy {
            issuer: &self.name,
            audience: &self.audience,
            now,
        };
        let verified = UnverifiedAccessToken::parse(token.as_bytes())
            .and_then(|unverified| unverified.verify(self.key.public(), &policy))
            .map_err(|_| IssuerError::Mint)?;
        Ok(Minted { token, verified })
    }
}

/// What a token is to say.
#[derive(Debug)]
pub(crate) struct Grant<'a> {
    pub(crate) user: &'a User,
    pub(crate) tenant: Option<&'a Tenant>,
    /// As the claim has it.
    pub(crate) scope: &'a str,
    /// Of these, what `authorization_details` have.
    pub(crate) details: Option<&'a Permissions>,
    /// A random one by default.
    pub(crate) id: Option<&'a str>,
    /// In seconds since 1970.
    pub(crate) issued: u64,
    /// Likewise.
    pub(crate) expires: u64,
}

impl fmt::Debug for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Minted")
            .field("verified", &self.verified)
            .finish_non_exhaustive()
    }
}

/// A new code and the hash that it is stored by.
pub(crate) fn new_code() -> Result<(InviteCode, [u8; 32]), IssuerError> {
    let mut code = vec![0; CODE_BYTES];
    rand::rngs::SysRng
        .try_fill_bytes(&mut code)
        .map_err(|_| IssuerError::Randomness)?;
    let hash = Sha256::digest(&code).into();
    let code = InviteCode::new(code).map_err(|_| IssuerError::Randomness)?;
    Ok((code, hash))
}

/// The claims of docs/protocol.md §2.2 that the built-in issuer sets.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
    iat: u64,
    jti: &'a str,
    scope: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    authorization_details: Vec<Detail>,
    cnf: Confirmation,
}

/// An entry of docs/protocol.md §5.5.
#[derive(Debug, Default, Serialize)]
struct Detail {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_message_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages_per_minute: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox_messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_seconds: Option<u64>,
}

/// The entries that come to these permissions again when they are read.
fn details(permissions: &Permissions) -> Vec<Detail> {
    const TYPE: &str = "sealwire";
    let recipient = |recipient: &Recipient| match recipient {
        Recipient::User(user) => user.as_str().to_owned(),
        Recipient::Prefix(prefix) => format!("{prefix}*"),
    };
    let service = |service: &ServicePattern| match service {
        ServicePattern::Service(name) => name.as_str().to_owned(),
        ServicePattern::Prefix(prefix) => format!("{prefix}*"),
    };
    let to = in_parts(permissions.to.as_deref(), limits::MAX_RECIPIENT_PATTERNS);
    let services = in_parts(
        permissions.services.as_deref(),
        limits::MAX_SERVICE_PATTERNS,
    );
    let to = to.map(|part| Detail {
        r#type: TYPE,
        to: Some(part.iter().map(recipient).collect()),
        ..Detail::default()
    });
    let services = services.map(|part| Detail {
        r#type: TYPE,
        services: Some(part.iter().map(service).collect()),
        ..Detail::default()
    });
    let mut entries: Vec<_> = to.chain(services).collect();
    let numbers = Permissions {
        to: None,
        services: None,
        ..permissions.clone()
    };
    if numbers != Permissions::default() {
        entries.push(Detail {
            r#type: TYPE,
            max_message_bytes: permissions.max_message_bytes,
            messages_per_minute: permissions.messages_per_minute,
            mailbox_messages: permissions.mailbox_messages,
            mailbox_bytes: permissions.mailbox_bytes,
            retention_seconds: permissions.retention_seconds,
            ..Detail::default()
        });
    }
    entries
}

#[derive(Serialize)]
struct Confirmation {
    jkt: String,
}

impl Tables<'_> {
    fn invite(
        &mut self,
        hash: &[u8; 32],
        user: &User,
        expires: u64,
        now: u64,
    ) -> Result<Result<(), IssuerError>, redb::Error> {
        self.invites.retain(|_, (_, expires, _)| expires > now)?;
        if self.invites.len()? >= MAX_INVITES {
            return Ok(Err(IssuerError::TooManyInvites));
        }
        self.invites.insert(hash, (user.as_str(), expires, None))?;
        Ok(Ok(()))
    }

    /// Returns the invited user. The row in the store, which knows who redeemed it, comes before the file that waits.
    fn redeem(
        &mut self,
        hash: &[u8; 32],
        waiting: Option<WaitingInvite>,
        device: &DeviceId,
        now: u64,
    ) -> Result<Result<String, IssuerError>, redb::Error> {
        let stored = self.invites.get(hash)?.map(|row| {
            let (user, expires, redeemed_by) = row.value();
            (user.to_owned(), expires, redeemed_by.copied())
        });
        let waiting =
            waiting.map(|waiting| (waiting.user.as_str().to_owned(), waiting.expires, None));
        let Some((user, expires, redeemed_by)) = stored.or(waiting) else {
            return Ok(Err(IssuerError::UnknownInvite));
        };
        if now >= expires {
            return Ok(Err(IssuerError::InviteExpired));
        }
        if redeemed_by.is_some_and(|by| by != *device) {
            return Ok(Err(IssuerError::InviteUsed));
        }
        let known = self.device(device)?;
        match &known {
            Some(known) if known.removed => return Ok(Err(IssuerError::Removed)),
            Some(known) if known.user != user => return Ok(Err(IssuerError::AnotherUser)),
            Some(_) | None => {}
        }
        self.invites.retain(|_, (_, expires, _)| expires > now)?;
        self.invites
            .insert(hash, (user.as_str(), expires, Some(device)))?;
        let enrolled = known.and_then(|known| known.enrolled).unwrap_or(now);
        self.devices
            .insert(device, (user.as_str(), Some(enrolled), false))?;
        Ok(Ok(user))
    }
}

/// As many entries as it takes, and one where it says that there is nothing.
fn in_parts<T>(patterns: Option<&[T]>, most: usize) -> impl Iterator<Item = &[T]> {
    let nothing = patterns.filter(|patterns| patterns.is_empty());
    let some = patterns.unwrap_or_default().chunks(most);
    nothing.into_iter().chain(some)
}

#[cfg(test)]
mod tests;
