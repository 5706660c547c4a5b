//! How the device gets in: which credential it presents, and when another one is worth a try.

use std::sync::Arc;
use std::time::Duration;

use sealwire_e2e::device::DeviceKeys;
use sealwire_protocol::address::Address;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::token::UnverifiedAccessToken;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::established::{End, Established, Pass};
use super::tls::Tls;
use super::{REFRESH_FLOOR, TOKEN_TIMEOUT};
use crate::credential::{AnyProvider, CredentialSource, NoToken, Use};
use crate::error::{Error, NotAuthorised, Unreachable};

/// A token that was asked for.
pub(super) type TokenAnswer = oneshot::Receiver<Result<Zeroizing<String>, NoToken>>;

pub(super) struct Dialer {
    address: Address,
    tls: Tls,
    keys: Arc<DeviceKeys>,
    source: Source,
    /// What becomes of the application's tokens.
    used: Use,
    /// The token that was presented last.
    presented: Option<Zeroizing<String>>,
    /// The last connection asked for a renewal.
    renewing: bool,
    /// Why a credential was refused since the relay last let the device in.
    refused: Option<NotAuthorised>,
    /// Between two refreshes is at least this.
    pub(super) refresh_floor: Duration,
}

enum Source {
    /// Renewal by the relay's built-in issuer.
    Enrolment,
    /// An invite; renewal once it is redeemed.
    Invite(Zeroizing<Vec<u8>>),
    /// The application's tokens, until [`Dialer::start`].
    Provider(Option<Box<dyn AnyProvider>>),
    /// The application's tokens, from a task of their own, so that asking never holds up the link.
    Asking(mpsc::Sender<oneshot::Sender<Result<Zeroizing<String>, NoToken>>>),
}

impl Dialer {
    pub(super) fn new(
        address: Address,
        tls: Tls,
        keys: Arc<DeviceKeys>,
        credential: CredentialSource,
    ) -> Self {
        let (source, used) = match credential {
            CredentialSource::Enrolment => (Source::Enrolment, Use::Direct),
            CredentialSource::Invite(code) => (Source::Invite(code), Use::Direct),
            CredentialSource::Provider(provider, used) => (Source::Provider(Some(provider)), used),
        };
        Self {
            address,
            tls,
            keys,
            source,
            used,
            presented: None,
            renewing: false,
            refused: None,
            refresh_floor: REFRESH_FLOOR,
        }
    }

    /// Starts the task that asks the application for tokens. It ends with the runtime.
    pub(super) fn start(&mut self) {
        let Source::Provider(provider) = &mut self.source else {
            return;
        };
        let Some(mut provider) = provider.take() else {
            return;
        };
        let (requests, mut receiver) =
            mpsc::channel::<oneshot::Sender<Result<Zeroizing<String>, NoToken>>>(1);
        let device = self.keys.thumbprint();
        tokio::spawn(async move {
            while let Some(answer) = receiver.recv().await {
                let token = match tokio::time::timeout(TOKEN_TIMEOUT, provider.ask(device)).await {
                    Ok(token) => token.map(Zeroizing::new),
                    Err(_) => Err(NoToken::TryLater),
                };
                // An error means that the connection has ended meanwhile.
                let _ = answer.send(token);
            }
        });
        self.source = Source::Asking(requests);
    }

    /// Asks the application for a token, if that is where tokens come from.
    pub(super) fn ask(&self) -> Option<TokenAnswer> {
        match &self.source {
            Source::Asking(requests) => {
                let (answer, asked) = oneshot::channel();
                // Where the one place is taken, somebody has just asked: the answer's sender is dropped, which is "try later".
                let _ = requests.try_send(answer);
                Some(asked)
            }
            Source::Enrolment | Source::Invite(_) | Source::Provider(_) => None,
        }
    }

    /// The credential for the next connection.
    pub(super) async fn pass(&mut self, enrolled: bool) -> Result<Pass, End> {
        if let Some(asked) = self.ask() {
            let token = match asked.await {
                Ok(Ok(token)) => token,
                Ok(Err(NoToken::TryLater)) | Err(_) => {
                    return Err(End::Retry(Unreachable::NoToken));
                }
                Ok(Err(NoToken::SignInAgain)) => {
                    return Err(End::Final(Error::NotAuthorised(NotAuthorised::NoToken)));
                }
            };
            if let Some(reason) = self.refused
                && self.presented.as_deref() == Some(&*token)
            {
                // §13: only with another credential, and this is the same.
                return Err(End::Final(Error::NotAuthorised(reason)));
            }
            self.presented = Some(token.clone());
            return Ok(match self.used {
                Use::Direct => Pass::Token(token),
                Use::Exchange => Pass::Exchange(token),
            });
        }
        match &self.source {
            Source::Invite(code) if !enrolled || self.refused.is_some_and(|why| !is_old(why)) => {
                self.renewing = false;
                Ok(Pass::Invite(code.clone()))
            }
            Source::Enrolment | Source::Invite(_) if enrolled => {
                self.renewing = true;
                Ok(Pass::Renewal)
            }
            Source::Enrolment | Source::Invite(_) | Source::Provider(_) | Source::Asking(_) => {
                Err(End::Final(Error::NotAuthorised(NotAuthorised::NotEnrolled)))
            }
        }
    }

    /// The key by which the application knows the relay.
    pub(super) fn relay(&self) -> Thumbprint {
        self.address.relay()
    }

    /// Connects to the relay, which has to have the key `relay`, or one that follows it.
    pub(super) async fn connect(
        &self,
        relay: Thumbprint,
        pass: &Pass,
        now: u64,
    ) -> Result<Established, End> {
        let (address, tls, keys) = (&self.address, &self.tls, &self.keys);
        Established::connect(address, relay, tls, keys, pass, now).await
    }

    /// The relay has let the device in.
    pub(super) fn accepted(&mut self) {
        self.refused = None;
    }

    /// Whether the relay exchanges the application's tokens for its own.
    pub(super) fn exchanges(&self) -> bool {
        self.used == Use::Exchange
    }

    /// Remembers a token that is presented in-band, and tells when it expires, if it is not exchanged.
    pub(super) fn remember(&mut self, token: &Zeroizing<String>) -> Option<u64> {
        self.presented = Some(token.clone());
        if self.exchanges() {
            return None;
        }
        let parsed = UnverifiedAccessToken::parse(token.as_bytes()).ok()?;
        Some(parsed.claims().expires)
    }

    /// Whether it is worth coming back after a credential was refused for `reason`: once, with another one.
    pub(super) fn try_another(&mut self, reason: NotAuthorised) -> bool {
        if self.refused.is_some() {
            return false;
        }
        self.refused = Some(reason);
        match &self.source {
            Source::Provider(_) | Source::Asking(_) => true,
            // A renewal makes a new token. Where the enrolment itself was refused, there is the invite.
            Source::Invite(_) => is_old(reason) || self.renewing,
            Source::Enrolment => is_old(reason),
        }
    }
}

/// Whether the credential was good once, so that a newer one may be.
fn is_old(reason: NotAuthorised) -> bool {
    matches!(reason, NotAuthorised::Expired | NotAuthorised::Revoked)
}
