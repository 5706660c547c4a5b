//! Those who must not get in, each of whom really tries.

use std::sync::Arc;

use sealwire_client::error::NotAuthorised;
use sealwire_client::{
    Client, Error, MemoryStore, NoToken, StoreKey, Thumbprint, Tls, TrustedIssuer,
};
use sealwire_jose::{Algorithms, Claims, KeySet, KeyType, PrivateKey, SigningKey};
use sealwire_protocol::invite::{Invitation, built_in_audience, built_in_issuer};

use std::future::Future;

use super::PATIENCE;
use crate::home::Identity;

/// Somebody who has read an invitation that its guest has used: whether the relay refuses them.
pub(super) async fn second_guest(invitation: &Invitation) -> bool {
    let Ok(builder) = Client::invited(&invitation.to_line()) else {
        return false;
    };
    let refused = refusal(builder.store(MemoryStore::new(), new_key()).connect()).await;
    matches!(
        refused,
        Some(Error::NotAuthorised(NotAuthorised::Credential))
    )
}

/// Somebody who signs a token for `victim`'s name and their own device, but is not the issuer: whether the relay refuses them.
pub(super) async fn forger(victim: &Identity) -> bool {
    let Some((issuer, mut sign)) = forged_issuer(victim) else {
        return false;
    };
    let builder = Client::builder(&victim.address.to_string())
        .store(MemoryStore::new(), new_key())
        .issuer(issuer)
        .tls(victim.certificate.map_or(Tls::SystemRoots, Tls::Pinned))
        .token(move |device| {
            let token = sign(device).ok_or(NoToken::SignInAgain);
            async move { token }
        });
    matches!(
        refusal(builder.connect()).await,
        Some(Error::NotAuthorised(NotAuthorised::Credential))
    )
}

/// A relay that answers in another one's place: whether a device that expects the other one notices.
pub(super) async fn other_relay(invitation: &Invitation) -> bool {
    let expected = Thumbprint::from_bytes(rand::random());
    let Ok(issuer) = TrustedIssuer::built_in(invitation.relay.issuer_key.as_bytes()) else {
        return false;
    };
    let builder = Client::builder(&format!("{}#{expected}", invitation.relay.address.url()))
        .store(MemoryStore::new(), new_key())
        .issuer(issuer)
        .tls(
            invitation
                .relay
                .certificate
                .map_or(Tls::SystemRoots, Tls::Pinned),
        )
        .invite(&rand::random::<[u8; 32]>());
    let found = invitation.relay.address.relay();
    matches!(
        refusal(builder.connect()).await,
        Some(Error::RelayKey { expected: one, presented: other }) if one == expected && other == found
    )
}

type Sign = Box<dyn FnMut(Thumbprint) -> Option<String> + Send>;

/// An issuer with the name of the real one, which the forger's own device trusts: it is the relay that has to refuse.
fn forged_issuer(victim: &Identity) -> Option<(TrustedIssuer, Sign)> {
    let key = PrivateKey::generate(KeyType::Ed25519).ok()?;
    let keys = KeySet::from_public_keys(&[key.public()?], Algorithms::PUBLIC_KEY).ok()?;
    let name = built_in_issuer(&victim.issuer_key.thumbprint());
    let audience = built_in_audience(&victim.issuer_key.thumbprint());
    let issuer = TrustedIssuer::with_verifier(name.as_str(), &audience, Arc::new(keys)).ok()?;
    let (signer, user, now) = (
        SigningKey::new(&key).ok()?,
        victim.user.clone(),
        crate::when::now(),
    );
    let sign = move |device| {
        let claims = Claims {
            issuer: name.as_str(),
            user: user.as_str(),
            audience: &audience,
            issued: now,
            expires: now.saturating_add(3_600),
            id: None,
            device,
            scope: Some("sealwire:send sealwire:receive sealwire:publish"),
            authorization_details: None,
        };
        signer.access_token(&claims).ok()
    };
    Some((issuer, Box::new(sign)))
}

fn new_key() -> StoreKey {
    StoreKey::from_bytes(rand::random())
}

/// Why a connection failed; `None` if it did not, or took too long.
async fn refusal(connecting: impl Future<Output = Result<Client, Error>>) -> Option<Error> {
    tokio::time::timeout(PATIENCE, connecting).await.ok()?.err()
}
