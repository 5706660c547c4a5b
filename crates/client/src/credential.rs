//! What lets this device in: access tokens from the application, or the relay's built-in issuer.

use std::future::Future;
use std::pin::Pin;

use sealwire_protocol::key::Thumbprint;
use zeroize::Zeroizing;

/// Where the application's access tokens come from.
///
/// It is asked before the first connection, before a token expires, and once more when the relay refuses one. Any
/// `FnMut(Thumbprint) -> impl Future<Output = Result<String, NoToken>>` is a provider too.
pub trait TokenProvider: Send + 'static {
    /// An access token (a compact JWS) whose `cnf` names `device`, this device's key (`docs/protocol.md §2.2`). For
    /// [`exchange`](crate::ClientBuilder::exchange) it is a token of the identity provider as it is, and need not name any device.
    ///
    /// The future runs on the client's own thread; it is dropped after 30 seconds.
    fn token(&mut self, device: Thumbprint)
    -> impl Future<Output = Result<String, NoToken>> + Send;
}

impl<F, Answer> TokenProvider for F
where
    F: FnMut(Thumbprint) -> Answer + Send + 'static,
    Answer: Future<Output = Result<String, NoToken>> + Send,
{
    fn token(
        &mut self,
        device: Thumbprint,
    ) -> impl Future<Output = Result<String, NoToken>> + Send {
        self(device)
    }
}

/// Why a provider has no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoToken {
    /// It cannot be had now; the client asks again later.
    #[error("no token can be had now")]
    TryLater,
    /// The user has to sign in again; the client closes.
    #[error("the user has to sign in again")]
    SignInAgain,
}

type BoxedAnswer<'a> = Pin<Box<dyn Future<Output = Result<String, NoToken>> + Send + 'a>>;

/// [`TokenProvider`], whatever its type.
pub(crate) trait AnyProvider: Send {
    fn ask(&mut self, device: Thumbprint) -> BoxedAnswer<'_>;
}

impl<P: TokenProvider> AnyProvider for P {
    fn ask(&mut self, device: Thumbprint) -> BoxedAnswer<'_> {
        Box::pin(self.token(device))
    }
}

/// What the builder was given.
#[derive(Default)]
pub(crate) enum CredentialSource {
    /// Nothing: the device is enrolled with the relay's built-in issuer.
    #[default]
    Enrolment,
    /// An invite, until it is redeemed; then the enrolment.
    Invite(Zeroizing<Vec<u8>>),
    /// The application's tokens.
    Provider(Box<dyn AnyProvider>, Use),
}

/// What the relay does with the application's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Takes them as they are.
    Direct,
    /// Exchanges them for its own.
    Exchange,
}
