//! A provider's token is exchanged for the device that proves its key, and for nothing more (docs/protocol.md §3.7).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use sealwire_jose::{Algorithm, Algorithms};
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::SigningKey;
use sealwire_protocol::name::Tenant;
use sealwire_protocol::token::UnverifiedAccessToken;
use sealwire_server::issuer_keys::KeySource;
use sealwire_server::{ExchangeIssuer, Relay};
use serde_json::{Value, json};
use support::*;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// The provider has the key and the name of the tests' issuer, and knows nothing of devices.
fn exchanging(provider: &Issuer, prefix: &str) -> ExchangeIssuer {
    ExchangeIssuer::with_keys(ISSUER, AUDIENCE, prefix, *provider.public())
        .unwrap()
        .scopes(EVERYTHING)
        .unwrap()
}

fn token(provider: &Issuer, user: &str, changes: &Value) -> String {
    let mut claims =
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": user, "iat": now(), "exp": now() + 600 });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    provider.sign(&claims)
}

fn same(key: &SigningKey) -> SigningKey {
    SigningKey::from_seed(&key.seed())
}

/// A device whose token was exchanged, and the one that was minted.
async fn exchanged(relay: &Relay, key: &SigningKey, token: &str) -> (Device, Vec<u8>) {
    let credential = Credential::Exchange(token.as_bytes());
    let (socket, link, _) = shake_hands(relay, upgrade(relay).await, key, credential).await;
    let (mut device, _) = Device::open(same(key), String::new(), socket, link).await;
    let Said::Token(0, minted) = device.next().await else {
        panic!("no token")
    };
    (device, minted)
}

// docs/protocol.md §3.7
#[tokio::test]
async fn exchanged_device_is_renewed_by_nothing_but_another_token_of_the_provider() {
    let provider = Issuer::new();
    let relay = Relay::in_memory().exchange(exchanging(&provider, "acme/"));
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let key = new_key();
    let first = token(&provider, "alice", &json!({ "jti": "first" }));
    let (mut alice, minted) = exchanged(&relay, &key, &first).await;
    let claims = UnverifiedAccessToken::parse(&minted).unwrap();
    assert_eq!(claims.claims().user.as_str(), "acme/alice");
    assert_eq!(claims.claims().device, key.thumbprint());
    assert_eq!(claims.claims().id.as_deref(), Some("first"));
    assert!(claims.claims().expires <= now() + 600);

    // An empty token would be a renewal.
    assert_eq!(refused(alice.refresh("").await), RefusalCode::TokenRefused);
    for other in [
        token(&provider, "bob", &json!({})),
        token(&provider, "alice", &json!({ "aud": "other" })),
        token(
            &provider,
            "alice",
            &json!({ "cnf": { "jkt": new_key().thumbprint().to_string() } }),
        ),
        token(
            &provider,
            "alice",
            &json!({ "iat": now() - 600, "exp": now() - 100 }),
        ),
        "a.b.c".to_owned(),
    ] {
        assert_eq!(
            refused(alice.refresh(&other).await),
            RefusalCode::TokenRefused
        );
    }
    let second = token(&provider, "alice", &json!({ "jti": "second" }));
    let Said::Token(_, renewed) = alice.refresh(&second).await else {
        panic!("no token")
    };
    let claims = UnverifiedAccessToken::parse(&renewed).unwrap();
    assert_eq!(claims.claims().id.as_deref(), Some("second"));
    // The proof is for the token that goes with it.
    let request = alice.request();
    let proof = alice
        .link
        .refresh_proof(&alice.key, first.as_bytes(), now());
    alice
        .say(&sealwire_protocol::frame::ToRelay::Refresh {
            request,
            proof: proof.as_bytes(),
            token: second.as_bytes(),
        })
        .await;
    assert_eq!(refused(alice.next().await), RefusalCode::TokenRefused);

    assert_eq!(
        refusal(&relay, &key, Credential::Renewal).await,
        code(4100, "not_authorised")
    );
    // What was minted lets this device in until it expires, and no other.
    Device::connect(
        &relay,
        same(&key),
        String::from_utf8(minted.clone()).unwrap(),
    )
    .await;
    assert_eq!(
        refusal(&relay, &new_key(), Credential::Token(&minted)).await,
        code(4100, "not_authorised")
    );
}

// docs/protocol.md §3.7
#[tokio::test]
async fn providers_token_is_nothing_but_a_credential_to_exchange() {
    let provider = Issuer::new();
    let relay = Relay::in_memory().exchange(exchanging(&provider, ""));
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let key = new_key();
    let good = token(&provider, "alice", &json!({}));
    assert_eq!(
        refusal(&relay, &key, Credential::Token(good.as_bytes())).await,
        code(4100, "not_authorised")
    );
    let authorization = format!("Bearer {good}");
    let fields = [("authorization", Some(authorization.as_str()))];
    assert_eq!(upgrade_with(&relay, "/v1", &fields).await.unwrap_err(), 401);
    // Another provider's, with everything else as it should be.
    let stranger = token(&Issuer::new(), "alice", &json!({}));
    assert_eq!(
        refusal(&relay, &key, Credential::Exchange(stranger.as_bytes())).await,
        code(4100, "not_authorised")
    );
    exchanged(&relay, &key, &good).await;

    // Off by default.
    let plain = Relay::in_memory().bind("127.0.0.1:0").await.unwrap();
    assert_eq!(
        refusal(&plain, &key, Credential::Exchange(good.as_bytes())).await,
        code(4100, "not_authorised")
    );
}

// docs/protocol.md §3.7
#[tokio::test]
async fn token_that_names_a_key_or_its_thumbprint_is_exchanged_for_that_device_only() {
    let provider = Issuer::new();
    let relay = Relay::in_memory().exchange(exchanging(&provider, ""));
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let (alice, thief) = (new_key(), new_key());
    for confirmation in confirmations(&alice) {
        let bound = token(&provider, "alice", &confirmation);
        assert_eq!(
            refusal(&relay, &thief, Credential::Exchange(bound.as_bytes())).await,
            code(4100, "not_authorised")
        );
        exchanged(&relay, &alice, &bound).await;
    }
}

// docs/protocol.md §3.7
#[tokio::test]
async fn device_that_was_invited_or_removed_is_exchanged_for_nobody_else() {
    let provider = Issuer::new();
    let relay = Relay::in_memory().exchange(exchanging(&provider, "acme/").shared_users(true));
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let invitation = relay.invite("acme/alice", Duration::from_secs(60)).await;
    let invitation = invitation.unwrap();
    let key = new_key();
    let credential = Credential::Invite(invitation.code.expose());
    let (socket, link, _) = shake_hands(&relay, upgrade(&relay).await, &key, credential).await;
    Device::open(same(&key), String::new(), socket, link).await;
    let bobs = token(&provider, "bob", &json!({}));
    assert_eq!(
        refusal(&relay, &key, Credential::Exchange(bobs.as_bytes())).await,
        code(4100, "not_authorised")
    );
    let own = token(&provider, "alice", &json!({}));
    let (mut alice, _) = exchanged(&relay, &key, &own).await;
    assert!(relay.remove_device(&key.thumbprint()).await.unwrap());
    assert_eq!(alice.closed().await, code(4102, "revoked"));
    assert_eq!(
        refusal(&relay, &key, Credential::Exchange(own.as_bytes())).await,
        code(4102, "revoked")
    );
}

/// A key set that is at an address where nobody answers.
async fn silent_key_set() -> (TcpListener, KeySource) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/keys", silent.local_addr().unwrap());
    let keys = KeySource::url(&url, None, Algorithms::of(&[Algorithm::Es256]));
    (silent, keys.unwrap())
}

#[tokio::test]
async fn key_set_that_does_not_answer_keeps_no_other_waiting_at_the_start() {
    let (first, first_keys) = silent_key_set().await;
    let (second, second_keys) = silent_key_set().await;
    let issuer = |name: &str, prefix: &str, keys| {
        let issuer = ExchangeIssuer::new(name, AUDIENCE, prefix, keys).unwrap();
        issuer.scopes(EVERYTHING).unwrap()
    };
    let relay = Relay::in_memory()
        .exchange(issuer("https://one.example", "one/", first_keys))
        .exchange(issuer("https://two.example", "two/", second_keys));
    let starting = relay.bind("127.0.0.1:0");
    let asked = async {
        let (mut waits, _) = first.accept().await.unwrap();
        let mut given_up = Vec::new();
        tokio::select! {
            biased;
            _ = waits.read_to_end(&mut given_up) => panic!("one after the other"),
            second = second.accept() => drop(second.unwrap()),
        }
    };
    let (relay, ()) = within(async { tokio::join!(starting, asked) }).await;
    relay.unwrap();
}

// docs/protocol.md §5.7
#[tokio::test]
async fn invited_user_does_not_reach_into_tenants_that_the_relay_knows() {
    let provider = Issuer::new();
    let issuer = exchanging(&provider, "acme/").prefix_is_tenant();
    let relay = Relay::in_memory().exchange(issuer);
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let invitation = relay
        .invite("carol", Duration::from_secs(60))
        .await
        .unwrap();
    let key = new_key();
    let credential = Credential::Invite(invitation.code.expose());
    let (socket, link, _) = shake_hands(&relay, upgrade(&relay).await, &key, credential).await;
    let (mut carol, _) = Device::open(same(&key), String::new(), socket, link).await;
    assert!(matches!(carol.next().await, Said::Token(0, _)));

    let key = new_key();
    let (mut alice, minted) = exchanged(&relay, &key, &token(&provider, "alice", &json!({}))).await;
    let claims = UnverifiedAccessToken::parse(&minted).unwrap();
    let acme = Tenant::new("acme").unwrap();
    assert_eq!(claims.claims().permissions.tenant.as_ref(), Some(&acme));
    for user in ["acme/alice", "acme/nobody"] {
        assert_eq!(
            refused(carol.fetch(user, false).await),
            RefusalCode::NotPermitted
        );
    }
    for user in ["carol", "nobody"] {
        assert_eq!(
            refused(alice.fetch(user, false).await),
            RefusalCode::NotPermitted
        );
    }
    assert_eq!(
        refused(alice.fetch("acme/bob", false).await),
        RefusalCode::UnknownUser
    );
}
