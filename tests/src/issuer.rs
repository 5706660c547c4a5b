//! An identity provider: signs the tokens that it is asked for, good or bad.

use std::sync::Arc;

use sealwire_client::{NoToken, Thumbprint, TrustedIssuer};
use sealwire_jose::{Algorithms, Claims, KeySet, KeyType, PrivateKey, PublicKey, SigningKey};
use sealwire_protocol::name;
use serde_json::Value;

use crate::{Credential, now};

/// `iss` of its tokens.
pub const ISSUER: &str = "https://issuer.example";
/// `aud` of its tokens.
pub const AUDIENCE: &str = "https://relay.example";

/// Somebody who signs tokens.
#[derive(Clone)]
pub struct Issuer {
    key: Arc<SigningKey>,
    public: PublicKey,
}

/// What somebody wishes to have in a token.
#[derive(Clone, Debug)]
pub struct Wish {
    /// `iss`.
    pub issuer: &'static str,
    /// `sub`.
    pub user: String,
    /// `aud`.
    pub audience: &'static str,
    /// `jti`.
    pub id: Option<&'static str>,
    /// `iat`, as seconds from now.
    pub issued: i64,
    /// `exp`, as seconds from now.
    pub expires: i64,
    /// `scope`.
    pub scope: &'static str,
    /// `authorization_details`.
    pub details: Option<Value>,
}

impl Wish {
    /// A token of `user` for everything, for an hour.
    pub fn of(user: &str) -> Self {
        Self {
            issuer: ISSUER,
            user: user.to_owned(),
            audience: AUDIENCE,
            id: None,
            issued: 0,
            expires: 3_600,
            scope: "sealwire:send sealwire:receive sealwire:publish",
            details: None,
        }
    }
}

impl Issuer {
    /// With an Ed25519 key.
    pub fn ed25519() -> Self {
        Self::with(KeyType::Ed25519)
    }

    /// With a P-256 key, for ES256.
    pub fn es256() -> Self {
        Self::with(KeyType::P256)
    }

    fn with(kind: KeyType) -> Self {
        let key = PrivateKey::generate(kind).unwrap();
        Self {
            public: key.public().unwrap(),
            key: Arc::new(SigningKey::new(&key).unwrap()),
        }
    }

    /// Its `iss`.
    pub fn name(&self) -> name::Issuer {
        name::Issuer::new(ISSUER).unwrap()
    }

    /// What its signatures are checked with.
    pub fn keys(&self) -> KeySet {
        KeySet::from_public_keys(std::slice::from_ref(&self.public), Algorithms::PUBLIC_KEY)
            .unwrap()
    }

    /// As devices trust it.
    pub fn trusted(&self) -> TrustedIssuer {
        TrustedIssuer::with_verifier(ISSUER, AUDIENCE, Arc::new(self.keys())).unwrap()
    }

    /// A token for `device`.
    pub fn token(&self, device: Thumbprint, wish: &Wish) -> String {
        let claims = Claims {
            issuer: wish.issuer,
            user: &wish.user,
            audience: wish.audience,
            issued: now().saturating_add_signed(wish.issued),
            expires: now().saturating_add_signed(wish.expires),
            id: wish.id,
            device,
            scope: Some(wish.scope),
            authorization_details: wish.details.as_ref(),
        };
        self.key.access_token(&claims).unwrap()
    }

    /// Signs `wish` for whatever device asks, as often as it asks.
    pub fn grants(&self, wish: Wish) -> Credential {
        let issuer = self.clone();
        Credential::tokens(move |device| Ok(issuer.token(device, &wish)))
    }

    /// Signs one wish after the other; after the last one, the user has to sign in again.
    pub fn grants_in_turn(&self, wishes: Vec<Wish>) -> Credential {
        let (issuer, mut wishes) = (self.clone(), wishes.into_iter());
        Credential::tokens(move |device| match wishes.next() {
            Some(wish) => Ok(issuer.token(device, &wish)),
            None => Err(NoToken::SignInAgain),
        })
    }
}
