//! Whose tokens count.
//!
//! A relay has one issuer: either the one built in, or the operator's identity provider. A user name has a meaning only within its issuer, so
//! two issuers would be two relays; those whose tokens are exchanged for the built-in issuer's ([`crate::exchange`]) are none of them. The keys are behind
//! [`SignatureVerifier`], whatever library implements it, or fetched.
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sealwire_protocol::jws::{SignatureError, SignatureVerifier};
use sealwire_protocol::limits::MAX_ATTESTATION_AGE_SECONDS;
use sealwire_protocol::name::Issuer;
use sealwire_protocol::token::{
    AccessPolicy, AccessToken, Attestation, AttestationPolicy, UnverifiedAccessToken,
    UnverifiedAttestation,
};
use sealwire_protocol::{ClaimDefect, TokenError};

use crate::issuer_keys::{IssuerKeys, KeySource, Look};
use crate::remedy::{self, Remedy};

/// A token's `kid` names no key.
pub(crate) const UNKNOWN_KEY: TokenError = TokenError::Signature(SignatureError::UnknownKey);

/// The issuer whose tokens a relay accepts.
pub(crate) struct Authority {
    issuer: Issuer,
    audience: Box<str>,
    keys: Keys,
    require_tenant: bool,
}

/// Where the keys of an issuer are, before a relay runs.
pub(crate) enum OutsideKeys {
    /// The application's to know.
    Given(Arc<dyn SignatureVerifier + Send + Sync>),
    /// In a file or at a URL.
    Source(KeySource),
}

impl OutsideKeys {
    /// `dir`: where the last good set of a URL is kept.
    pub(crate) fn open(self, dir: Option<&Path>) -> Keys {
        match self {
            Self::Given(keys) => Keys::Given(keys),
            Self::Source(source) => Keys::Fetched(IssuerKeys::new(source, dir)),
        }
    }
}

impl fmt::Debug for OutsideKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given(..)"),
            Self::Source(source) => source.fmt(f),
        }
    }
}

/// The keys of an issuer.
#[derive(Clone)]
pub(crate) enum Keys {
    /// The application's to know.
    Given(Arc<dyn SignatureVerifier + Send + Sync>),
    /// From a file or a URL, which may have newer ones.
    Fetched(Arc<IssuerKeys>),
}

impl Keys {
    /// What is fetched.
    pub(crate) fn fetched(&self) -> Option<&Arc<IssuerKeys>> {
        match self {
            Self::Fetched(keys) => Some(keys),
            Self::Given(_) => None,
        }
    }

    pub(crate) fn verifier(&self) -> &dyn SignatureVerifier {
        match self {
            Self::Given(keys) => &**keys,
            Self::Fetched(keys) => &**keys,
        }
    }
}

/// Why a token lets nobody in.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerifyError {
    /// It is not good.
    #[error("the token: {0}")]
    Token(#[from] TokenError),
    /// Nobody can say yet whether it is: the issuer may have a newer key.
    #[error("the token's key is not known, and the issuer's key set cannot be looked at again now")]
    KeyNotKnownYet,
}

/// A token that came in the upgrade request and is good. Despite the header's name it lets nobody in: possession is still to be proved
/// (docs/protocol.md §2.2).
#[derive(Debug)]
pub(crate) struct Bearer {
    pub(crate) verified: AccessToken,
}

impl Authority {
    /// Accepts tokens of `issuer` for `audience`, signed with one of `keys`.
    pub(crate) fn new(issuer: Issuer, audience: &str, keys: Keys) -> Self {
        Self {
            issuer,
            audience: audience.into(),
            keys,
            require_tenant: false,
        }
    }

    /// Refuses access tokens without a tenant (docs/protocol.md §5.7).
    pub(crate) fn require_tenant(&mut self, required: bool) {
        self.require_tenant = required;
    }

    /// The issuer.
    pub(crate) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// What helps against a token that is refused.
    pub(crate) fn remedy(&self, error: &TokenError) -> Remedy {
        remedy::token(error, &self.issuer, &self.audience)
    }

    /// The keys, if they are fetched.
    pub(crate) fn fetched(&self) -> Option<&Arc<IssuerKeys>> {
        self.keys.fetched()
    }

    /// The same, with the issuer.
    pub(crate) fn fetched_of(&self) -> Option<(&Issuer, &Arc<IssuerKeys>)> {
        Some((&self.issuer, self.fetched()?))
    }

    /// The same as [`Authority::verify`], but where the token names a key that is not known, newer keys are looked for first.
    pub(crate) async fn verify_or_look(
        &self,
        token: &[u8],
        now: u64,
    ) -> Result<AccessToken, VerifyError> {
        match (self.verify(token, now), self.fetched()) {
            (Err(UNKNOWN_KEY), Some(keys)) => match keys.look_again().await {
                Look::Fresh => Ok(self.verify(token, now)?),
                Look::NotNow => Err(VerifyError::KeyNotKnownYet),
            },
            (verified, _) => Ok(verified?),
        }
    }

    /// Whether the keys may be known soon for which a token was refused: they are being looked for.
    pub(crate) fn looks_again(&self, error: &TokenError) -> bool {
        let Some(keys) = self.fetched().filter(|_| *error == UNKNOWN_KEY) else {
            return false;
        };
        let keys = Arc::clone(keys);
        tokio::spawn(async move { keys.look_again().await });
        true
    }

    /// Verifies an access token (docs/protocol.md §2.2). `now` is in seconds since 1970.
    pub(crate) fn verify(&self, token: &[u8], now: u64) -> Result<AccessToken, TokenError> {
        let policy = AccessPolicy {
            issuer: &self.issuer,
            audience: &self.audience,
            now,
        };
        let token = UnverifiedAccessToken::parse(token)?.verify(self.keys.verifier(), &policy)?;
        if self.require_tenant && token.claims().permissions.tenant.is_none() {
            let (claim, defect) = ("tenant", ClaimDefect::Missing);
            return Err(TokenError::Claim { claim, defect });
        }
        Ok(token)
    }

    /// Verifies the token of an upgrade request (docs/protocol.md §3.1).
    pub(crate) async fn bearer(&self, token: &str, now: u64) -> Result<Bearer, VerifyError> {
        Ok(Bearer {
            verified: self.verify_or_look(token.as_bytes(), now).await?,
        })
    }

    /// Verifies what binds a device to a user in a card (docs/protocol.md §2.3).
    pub(crate) fn attestation(
        &self,
        attestation: &[u8],
        now: u64,
    ) -> Result<Attestation, TokenError> {
        let policy = AttestationPolicy {
            issuer: &self.issuer,
            audience: &self.audience,
            now,
            max_age: MAX_ATTESTATION_AGE_SECONDS,
        };
        UnverifiedAttestation::parse(attestation)?.verify(self.keys.verifier(), &policy)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}
