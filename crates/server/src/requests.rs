//! What a device asks for, frame by frame: who may, how much, and what the stores say (docs/protocol.md §5).
//!
//! ```text
//!  frame ── permission ── size ── rate ── recipient's devices ── store ─▶ Accepted
//!               └────────────┴───────┴────────────┴───────────────┴─────▶ Refused(cause)
//! ```
//! Permission comes first, so that what a token does not allow looks the same whether or not the recipient exists (§5.3). What takes a store's time is
//! left as a future that owns all it needs; everything decided before it is created.
mod blobs;
mod calling;
mod sender;
mod sending;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sealwire_protocol::TokenError;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::error::NotAuthorised;
use sealwire_protocol::frame::{Blob, CardEntry, List, OneTimePrekey, RequestId, ToDevice};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::link::RelayLink;
use sealwire_protocol::name::User;
use sealwire_protocol::permissions::Permissions;
use sealwire_protocol::token::TokenClaims;

use crate::bounds::{PREKEY_TAKES, PREKEY_TAKES_WINDOW_MINUTES, PUBLICATIONS_PER_MINUTE};
use crate::card_check::{self, CardError};
use crate::closing::{self, End};
use crate::directory::{DeviceEntry, VerifiedCard, VerifiedPrekey};
use crate::exchange::ExchangeError;
use crate::hub::{News, Registration};
use crate::issuer::{IssuerError, Minted};
use crate::now::Now;
use crate::policy::Allowance;
use crate::refusal::{Cause, Limit};
use crate::services::PushQueue;
use crate::shared::Shared;
use crate::storage::StorageError;
use blobs::Piece;

pub(crate) use sender::{Envelope, Posted, Sender, cards};
pub(crate) use sending::{Letter, Sending};

/// The answer to a request, owned.
pub(crate) enum Reply {
    Accepted(RequestId),
    Refused(RequestId, Cause),
    Cards(RequestId, Vec<DeviceEntry>),
    Token(RequestId, Box<Minted>),
    Blob(RequestId, Piece),
    Result(RequestId, Bytes),
}

impl Reply {
    /// What it answers.
    pub(crate) fn request(&self) -> RequestId {
        match self {
            Self::Accepted(request)
            | Self::Refused(request, _)
            | Self::Cards(request, _)
            | Self::Token(request, _)
            | Self::Blob(request, _)
            | Self::Result(request, _) => *request,
        }
    }

    /// Lends the answer as a frame.
    pub(crate) fn with_frame<T>(&self, give: impl FnOnce(&ToDevice<'_>) -> T) -> T {
        match self {
            Self::Accepted(request) => give(&ToDevice::Accepted { request: *request }),
            Self::Refused(request, cause) => give(&ToDevice::Refused {
                request: *request,
                code: cause.code(),
            }),
            Self::Cards(request, entries) => {
                let entries: Vec<CardEntry<'_>> = entries
                    .iter()
                    .map(|entry| CardEntry {
                        card: &entry.card,
                        prekey: entry.prekey.as_deref().and_then(card_check::decode_prekey),
                    })
                    .collect();
                give(&ToDevice::Cards {
                    request: *request,
                    entries: List::from(&entries),
                })
            }
            Self::Token(request, minted) => give(&ToDevice::Token {
                request: *request,
                expires: minted.verified.claims().expires,
                token: minted.token.as_bytes(),
            }),
            Self::Blob(request, piece) => give(&ToDevice::Blob(Blob {
                request: *request,
                length: piece.extent.length,
                size: piece.extent.size,
                complete: piece.extent.complete,
                data: &piece.data,
            })),
            Self::Result(request, result) => give(&ToDevice::Result {
                request: *request,
                payload: result,
            }),
        }
    }
}

/// A reply that is on its way.
pub(crate) type Pending = BoxFuture<'static, Reply>;

/// What became of a request.
pub(crate) enum Outcome {
    /// Answered.
    Answered(Reply),
    /// Under way. It has to be polled to its end even if the link goes away: others are told at its end.
    Pending {
        reply: Pending,
        /// About what it holds in memory meanwhile.
        bytes: usize,
    },
}

impl Outcome {
    fn pending(bytes: usize, reply: impl Future<Output = Reply> + Send + 'static) -> Self {
        Self::Pending {
            reply: Box::pin(reply),
            bytes,
        }
    }
}

/// A device whose link is open, and what it may do.
#[derive(Debug)]
pub(crate) struct Requester {
    pub(crate) link: RelayLink,
    pub(crate) allowance: Allowance,
    pub(crate) shared: Arc<Shared>,
    pub(crate) registration: Registration,
    /// What the application pushes to the device.
    pub(crate) pushes: PushQueue,
}

impl Requester {
    /// Enters the device into the hub.
    pub(crate) fn new(link: RelayLink, shared: Arc<Shared>) -> Self {
        let allowance = shared
            .settings
            .allowance
            .under(&link.token().claims().permissions);
        let registration = shared.hub.register(*link.device().as_bytes());
        // What an older link of the device is sending has been sent when this returns, and it sends nothing more.
        shared.after_sending();
        let claims = link.token().claims();
        let pushes =
            shared
                .services
                .pushes
                .enter(claims.device, &claims.user, &claims.permissions, || {
                    registration.doorbell().end().is_some()
                });
        Self {
            pushes,
            registration,
            link,
            allowance,
            shared,
        }
    }

    pub(crate) fn device(&self) -> Thumbprint {
        self.link.token().claims().device
    }

    pub(crate) fn user(&self) -> &User {
        &self.link.token().claims().user
    }

    pub(crate) fn permissions(&self) -> &Permissions {
        &self.link.token().claims().permissions
    }

    /// Whether the link's token is revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        self.shared.revocations.cover(self.link.token().claims())
    }

    /// Whether the device may have this link.
    pub(crate) fn admit(&self) -> Result<(), End> {
        self.shared.admit(self.link.token().claims())
    }

    /// The device, as what it sends and looks up is decided by.
    pub(crate) fn sender(&self) -> Sender<'_> {
        Sender {
            claims: self.link.token().claims(),
            allowance: &self.allowance,
            shared: &self.shared,
        }
    }

    /// Has the link hear of changes of the user's devices; of those of its own user it hears anyway.
    fn watch(&mut self, user: &User) {
        if user != self.user() {
            self.registration.watch(user.as_str());
        }
    }

    /// FetchCards, §5.1.
    pub(crate) fn fetch_cards(
        &mut self,
        request: RequestId,
        user: &str,
        take: bool,
        now: Now,
    ) -> Outcome {
        let user = match self.sender().fetchable(user, now) {
            Ok(user) => user,
            Err(cause) => return Outcome::Answered(Reply::Refused(request, cause)),
        };
        self.watch(&user);
        let (shared, asking) = (Arc::clone(&self.shared), self.user().clone());
        // A device never needs a prekey of its own.
        let except = (user == asking && take).then_some(self.device());
        let take = take && self.may_take(&user, now);
        Outcome::pending(0, async move {
            match cards(&shared, &asking, &user, take, except.as_ref(), now).await {
                Ok(entries) => Reply::Cards(request, entries),
                Err(cause) => Reply::Refused(request, cause),
            }
        })
    }

    /// Whether one-time prekeys of `user` are handed out. Who asks too often could take them from everybody else, so they get cards
    /// without, which serve as well but for some forward secrecy (docs/protocol.md §5.2).
    fn may_take(&self, user: &User, now: Now) -> bool {
        // A user without devices costs no memory.
        let known = self
            .shared
            .directory
            .devices(user, now.seconds())
            .is_ok_and(|devices| !devices.is_empty());
        let slowed = now.steady_millis / PREKEY_TAKES_WINDOW_MINUTES;
        let who = (self.user().clone(), user.clone());
        known
            && self
                .shared
                .take_rates
                .take(&who, PREKEY_TAKES, slowed)
                .is_ok()
    }

    /// PublishCard, §6.1.
    pub(crate) fn publish_card(&self, request: RequestId, card: &[u8], now: Now) -> Outcome {
        let (card, attestation) = match self.publishable_card(card, now) {
            Ok(card) => card,
            Err(cause) => return Outcome::Answered(Reply::Refused(request, cause)),
        };
        let (shared, user, device) = (Arc::clone(&self.shared), self.user().clone(), self.device());
        Outcome::pending(0, async move {
            let id = card.id;
            match shared.directory.publish_card(&user, &device, card).await {
                Ok(published) => {
                    // A newer link of the device may be another user's, and have looked whose it is before that was there.
                    shared.hub.ring(device.as_bytes(), News::OWNER);
                    // Whoever revoked it meanwhile may have looked before it was there.
                    if shared.revocations.cover(&attestation) {
                        return match shared.directory.withdraw_card(&device, id).await {
                            Ok(()) => {
                                // It may have taken the place of one that others know.
                                shared.tell_of_devices(&user, &device, now);
                                Reply::Refused(request, CardError::Revoked.into())
                            }
                            Err(error) => Reply::Refused(request, unavailable(error)),
                        };
                    }
                    if published.new_device {
                        shared.tell_of_devices(&user, &device, now);
                    }
                    Reply::Accepted(request)
                }
                Err(error) => Reply::Refused(request, error.into()),
            }
        })
    }

    /// The card, and what its attestation says.
    fn publishable_card(
        &self,
        card: &[u8],
        now: Now,
    ) -> Result<(VerifiedCard, TokenClaims), Cause> {
        self.may_publish(now)?;
        let checked = card_check::check_card(
            card,
            self.device(),
            self.user(),
            &self.shared.authority,
            now.seconds(),
        )
        .and_then(|checked| {
            let attestation = card_check::attestation_of(card)?;
            if self.shared.revocations.cover(&attestation) {
                return Err(CardError::Revoked);
            }
            Ok((checked, attestation))
        });
        let (checked, attestation) = checked?;
        let card = VerifiedCard {
            id: checked.generation,
            issued: checked.issued,
            attested: checked.attested,
            card: card.to_vec(),
        };
        Ok((card, attestation))
    }

    /// PublishPrekeys, §6.2.
    pub(crate) fn publish_prekeys(
        &self,
        request: RequestId,
        replace: bool,
        prekeys: &List<'_, OneTimePrekey<'_>>,
        now: Now,
    ) -> Outcome {
        let prekeys = match self.publishable_prekeys(prekeys, now) {
            Ok(prekeys) => prekeys,
            Err(cause) => return Outcome::Answered(Reply::Refused(request, cause)),
        };
        let (shared, device) = (Arc::clone(&self.shared), self.device());
        Outcome::pending(0, async move {
            let published = if replace {
                shared.directory.replace_prekeys(&device, prekeys).await
            } else {
                shared.directory.publish_prekeys(&device, prekeys).await
            };
            match published {
                Ok(()) => Reply::Accepted(request),
                Err(error) => Reply::Refused(request, error.into()),
            }
        })
    }

    /// RemoveDevice, §5.1. Whose device it is, the directory knows; of another user's nothing is said.
    pub(crate) fn remove_device(
        &self,
        request: RequestId,
        device: Thumbprint,
        now: Now,
    ) -> Outcome {
        if let Err(cause) = self.may_publish(now) {
            return Outcome::Answered(Reply::Refused(request, cause));
        }
        let (shared, user) = (Arc::clone(&self.shared), self.user().clone());
        Outcome::pending(0, async move {
            match shared.remove_device(&device, Some(&user), now).await {
                Ok(true) => Reply::Accepted(request),
                Ok(false) => Reply::Refused(request, Cause::UnknownDevice),
                Err(error) => Reply::Refused(request, unavailable(error)),
            }
        })
    }

    fn publishable_prekeys(
        &self,
        prekeys: &List<'_, OneTimePrekey<'_>>,
        now: Now,
    ) -> Result<Vec<VerifiedPrekey>, Cause> {
        self.may_publish(now)?;
        prekeys
            .iter()
            .map(|prekey| {
                card_check::check_prekey(&prekey, self.link.device_key())?;
                Ok(VerifiedPrekey {
                    id: prekey.id,
                    prekey: card_check::encode_prekey(&prekey),
                })
            })
            .collect()
    }

    /// Refresh, §5.4: the permissions of the new token replace the old ones at once.
    pub(crate) fn refresh(
        &mut self,
        request: RequestId,
        proof: &[u8],
        token: &[u8],
        now: Now,
    ) -> Reply {
        if self
            .shared
            .refresh_rates
            .take(
                &self.device(),
                self.allowance.refreshes_per_minute,
                now.steady_millis,
            )
            .is_err()
        {
            let limit = Limit::Relay("refreshes_per_minute");
            return Reply::Refused(request, Cause::Rate(limit));
        }
        match self.refreshed(proof, token, now) {
            Ok(None) => Reply::Accepted(request),
            Ok(Some(minted)) => Reply::Token(request, Box::new(minted)),
            Err(error) => Reply::Refused(request, Cause::Refresh(Box::new(error))),
        }
    }

    /// A provider's token instead of one of the built-in issuer's, §3.7.
    fn exchanged(&self, token: &[u8], now: u64) -> Result<Minted, RefreshError> {
        let issuer = self.shared.issuer.as_ref().ok_or(RefreshError::NoIssuer)?;
        let exchange = &self.shared.exchange;
        exchange
            .exchange(issuer, token, self.link.device_key(), now)
            .map_err(|error| {
                if exchange.looks_again(&error) {
                    RefreshError::KeyNotKnownYet
                } else {
                    RefreshError::Exchange(error)
                }
            })
    }

    fn refreshed(
        &mut self,
        proof: &[u8],
        token: &[u8],
        now: Now,
    ) -> Result<Option<Minted>, RefreshError> {
        let now = now.seconds();
        let proven = self.link.prove_refresh(proof, token, now)?;
        let (proven, token, minted) = if proven.asks_issuer() {
            let issuer = self.shared.issuer.as_ref().ok_or(RefreshError::NoIssuer)?;
            let minted = issuer.renew(self.link.device_key(), now)?;
            (proven, minted.verified.clone(), Some(minted))
        } else if self.shared.exchange.concerns(token) {
            let minted = self.exchanged(token, now)?;
            let proven = proven.exchanged();
            (proven, minted.verified.clone(), Some(minted))
        } else {
            let verified = self.shared.authority.verify(token, now);
            let verified = verified.map_err(|error| {
                if self.shared.authority.looks_again(&error) {
                    RefreshError::KeyNotKnownYet
                } else {
                    RefreshError::Token(error)
                }
            })?;
            (proven, verified, None)
        };
        if self.shared.revocations.cover(token.claims()) {
            return Err(RefreshError::Revoked);
        }
        self.link.refresh(proven, token)?;
        self.allowance = self
            .shared
            .settings
            .allowance
            .under(&self.link.token().claims().permissions);
        self.shared
            .mailboxes
            .limit(&self.device(), self.allowance.mailbox);
        self.pushes.permit(self.permissions());
        Ok(minted)
    }

    fn may_publish(&self, now: Now) -> Result<(), Cause> {
        if !self.permissions().publish {
            return Err(Cause::Scope("sealwire:publish"));
        }
        self.shared
            .publish_rates
            .take(&self.device(), PUBLICATIONS_PER_MINUTE, now.steady_millis)
            .map_err(|_| {
                Cause::Rate(Limit::Fixed(
                    PUBLICATIONS_PER_MINUTE,
                    "publications of a device in a minute",
                ))
            })
    }
}

/// Why a link's token is not replaced. The link goes on with the one it has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefreshError {
    #[error("{}", closing::not_authorised(.0))]
    NotAuthorised(#[from] NotAuthorised),
    #[error("the token: {0}")]
    Token(#[from] TokenError),
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    #[error(transparent)]
    Exchange(ExchangeError),
    #[error("this relay has no issuer of its own")]
    NoIssuer,
    #[error("the token, the device or its user was revoked")]
    Revoked,
    #[error("the token's key is not known yet; the issuer's key set is looked at again")]
    KeyNotKnownYet,
}

impl RefreshError {
    pub(crate) fn refusal(&self) -> RefusalCode {
        match self {
            Self::Issuer(error) if error.is_internal() => RefusalCode::Unavailable,
            Self::Exchange(error) if error.is_internal() => RefusalCode::Unavailable,
            Self::KeyNotKnownYet => RefusalCode::Unavailable,
            Self::NotAuthorised(_)
            | Self::Exchange(_)
            | Self::Token(_)
            | Self::Issuer(_)
            | Self::NoIssuer
            | Self::Revoked => RefusalCode::TokenRefused,
        }
    }
}

fn unavailable(error: StorageError) -> Cause {
    tracing::warn!(%error, "request refused");
    error.into()
}
