//! An identity provider that knows nothing of devices: signs the claims that it is given, as they are.

use std::sync::Arc;

use sealwire_client::NoToken;
use sealwire_jose::{Algorithm, Algorithms, KeySet, KeyType, PrivateKey, PublicKey, SigningKey};
use sealwire_server::ExchangeIssuer;
use serde_json::{Value, json};

use crate::{Credential, now};

/// `iss` of its tokens, unless they say something else.
pub const PROVIDER: &str = "https://id.example/realms/acme";
/// What `aud` of its tokens contains.
pub const PROVIDER_AUDIENCE: &str = "https://chat.example";
/// All scopes.
pub const EVERYTHING: &str = "sealwire:send sealwire:receive sealwire:publish";

/// Somebody who signs claims.
#[derive(Clone)]
pub struct Provider {
    key: Arc<SigningKey>,
    public: PublicKey,
    algorithm: Algorithm,
}

impl Provider {
    /// With an Ed25519 key.
    pub fn new() -> Self {
        Self::with(KeyType::Ed25519, Algorithm::EdDsa)
    }

    /// With an RSA key, for RS256, as most have.
    pub fn rs256() -> Self {
        Self::with(KeyType::Rsa2048, Algorithm::Rs256)
    }

    /// With one RSA key: for RS256, and for PS256.
    pub fn rs256_and_ps256() -> [Self; 2] {
        let key = PrivateKey::generate(KeyType::Rsa2048).unwrap();
        let same = PrivateKey::parse(key.to_jwk().as_bytes()).unwrap();
        [
            Self::of(key, Algorithm::Rs256),
            Self::of(same, Algorithm::Ps256),
        ]
    }

    fn with(kind: KeyType, algorithm: Algorithm) -> Self {
        Self::of(PrivateKey::generate(kind).unwrap(), algorithm)
    }

    fn of(key: PrivateKey, algorithm: Algorithm) -> Self {
        let key = key.with_algorithm(algorithm).unwrap();
        let key = key.with_kid("2026-01").unwrap();
        Self {
            public: key.public().unwrap(),
            key: Arc::new(SigningKey::new(&key).unwrap()),
            algorithm,
        }
    }

    /// Its JWK set.
    pub fn jwks(&self) -> String {
        format!("{{\"keys\":[{}]}}", self.public.to_jwk())
    }

    /// What its signatures are checked with.
    pub fn keys(&self) -> KeySet {
        let only = Algorithms::of(&[self.algorithm]);
        KeySet::from_public_keys(std::slice::from_ref(&self.public), only).unwrap()
    }

    /// As a relay exchanges its tokens, with all scopes for everybody.
    pub fn exchange(&self, prefix: &str) -> ExchangeIssuer {
        ExchangeIssuer::with_keys(PROVIDER, PROVIDER_AUDIENCE, prefix, self.keys())
            .unwrap()
            .scopes(EVERYTHING)
            .unwrap()
    }

    /// A token for an hour whose `sub` is `user`, with `changes`; those that are null take a claim out.
    pub fn token(&self, user: &str, changes: &Value) -> String {
        let mut claims = json!({
            "iss": PROVIDER,
            "aud": ["account", PROVIDER_AUDIENCE],
            "sub": user,
            "iat": now(),
            "exp": now() + 3_600,
        });
        let members = claims.as_object_mut().unwrap();
        members.extend(changes.as_object().unwrap().clone());
        members.retain(|_, value| !value.is_null());
        self.sign("JWT", &claims)
    }

    /// Signs claims as they are.
    pub fn sign(&self, typ: &str, claims: &Value) -> String {
        self.key.json(typ, claims.to_string().as_bytes()).unwrap()
    }

    /// Gives the same claims whenever it is asked, in a new token.
    pub fn grants(&self, user: &str, changes: Value) -> Credential {
        let (provider, user) = (self.clone(), user.to_owned());
        Credential::exchanged(move |_| Ok(provider.token(&user, &changes)))
    }

    /// Gives one after the other; after the last one, the user has to sign in again.
    pub fn grants_in_turn(&self, user: &str, changes: Vec<Value>) -> Credential {
        let (provider, user) = (self.clone(), user.to_owned());
        let mut changes = changes.into_iter();
        Credential::exchanged(move |_| match changes.next() {
            Some(changes) => Ok(provider.token(&user, &changes)),
            None => Err(NoToken::SignInAgain),
        })
    }
}

impl Default for Provider {
    fn default() -> Self {
        Self::new()
    }
}
