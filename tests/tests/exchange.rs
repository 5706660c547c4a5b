//! Tokens of identity providers that know nothing of devices, exchanged for the relay's own (docs/protocol.md §3.7, §5.7).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sealwire_client::error::{NotAuthorised, Refusal};
use sealwire_client::{
    Client, Closed, ConnectionState, Error, Event, FileStore, Message, StoreKey,
};
use sealwire_protocol::name::User;
use sealwire_server::revocations::Revocation;
use sealwire_server::{ExchangeConfigError, Relay, RelayError};
use sealwire_tests::{
    Credential, Device, EVERYTHING, Issuer, PROVIDER, PROVIDER_AUDIENCE, Provider, Town, now,
    within,
};
use serde_json::{Value, json};

/// A relay that exchanges the provider's tokens, for users that begin with the prefix.
async fn town(provider: &Provider, prefix: &'static str) -> Town {
    let provider = provider.clone();
    Town::with(move |relay| relay.exchange(provider.exchange(prefix))).await
}

async fn joined(town: &Town, provider: &Provider, user: &str) -> Device {
    let credential = provider.grants(user, json!({}));
    town.introduced(credential).arrive().await
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::NotAuthorised(NotAuthorised::Credential))
}

fn is_revoked(error: &Error) -> bool {
    matches!(error, Error::NotAuthorised(NotAuthorised::Revoked))
}

fn is_not_permitted(error: &Error) -> bool {
    matches!(error, Error::Refused(Refusal::NotPermitted))
}

async fn user_of(device: &Device) -> String {
    device.client.user().await.unwrap().to_string()
}

/// Waits until the device's client has ended, and gives the reason.
async fn ends(device: &Device) -> NotAuthorised {
    let over = async { while device.client.next().await.is_some() {} };
    within("the link to be closed", over).await;
    match device.client.connection() {
        ConnectionState::Closed(Closed::NotAuthorised(reason)) => reason,
        state => panic!("{state:?}"),
    }
}

#[tokio::test]
async fn who_signs_in_with_the_provider_talks_to_who_was_invited() {
    let provider = Provider::rs256();
    let mut town = town(&provider, "acme/").await;
    let alice = town.join("alice").await;
    let bob = joined(&town, &provider, "bob").await;
    assert_eq!(user_of(&bob).await, "acme/bob");
    alice.meet("acme/bob", &bob, "alice").await;

    // With a new token each time, also after the relay was away; and with a second device, which has what the first one sends.
    let bob = bob.leave().await.arrive().await;
    town.stop().await;
    town.start().await;
    let other = joined(&town, &provider, "bob").await;
    alice.send("acme/bob", "to both").await;
    for device in [&bob, &other] {
        assert_eq!(
            device.text().await,
            ("alice".to_owned(), "to both".to_owned())
        );
    }
    other.send("alice", "from the other").await;
    assert_eq!(alice.text().await.1, "from the other");
}

#[tokio::test]
async fn client_that_is_introduced_needs_nothing_but_tokens() {
    let provider = Provider::new();
    let town = town(&provider, "").await;
    let line = town.relay().introduction().unwrap().to_line();
    let folder = tempfile::tempdir().unwrap();
    let store = FileStore::open(folder.path().join("device.store")).unwrap();
    let client = Client::introduced(&format!(" {line}\n"))
        .unwrap()
        .store(store, StoreKey::from_bytes([7; 32]))
        .exchange(move |_| {
            let token = provider.token("alice", &json!({}));
            async move { Ok(token) }
        });
    let client = within("the connection", client.connect()).await.unwrap();
    assert_eq!(client.user().await.as_deref(), Some("alice"));
    within("the end", client.close()).await;
    for wrong in ["", "sealwire-invite:AA", "sealwire-relay:AA"] {
        let Err(error) = Client::introduced(wrong) else {
            panic!("{wrong}");
        };
        assert_eq!(error.code(), "bad_introduction");
    }
}

/// docs/protocol.md §3.7: off by default.
#[tokio::test]
async fn relay_without_exchange_issuers_refuses_them_all() {
    let (provider, issuer) = (Provider::new(), Issuer::ed25519());
    let town = Town::new().await;
    let account = town.introduced(provider.grants("alice", json!({})));
    assert!(is_refused(&account.is_refused().await));
    let outside = Town::of(&issuer).await;
    assert!(matches!(
        outside.relay().introduction(),
        Err(RelayError::NoIssuer)
    ));
    let account = outside.account(issuer.trusted(), provider.grants("alice", json!({})));
    assert!(is_refused(&account.is_refused().await));
}

#[tokio::test]
async fn relay_does_not_start_with_issuers_that_do_not_go_together() {
    let (provider, issuer) = (Provider::new(), Issuer::ed25519());
    let outside = Relay::in_memory()
        .issuer(issuer.name(), "audience", issuer.keys())
        .exchange(provider.exchange(""));
    let twice = Relay::in_memory()
        .exchange(provider.exchange("a/"))
        .exchange(provider.exchange("b/"));
    let no_tenant = Relay::in_memory()
        .exchange(provider.exchange("a/"))
        .require_tenant(true);
    for (relay, expected) in [
        (outside, "built-in issuer"),
        (twice, "two exchange issuers"),
        (no_tenant, "tenant"),
    ] {
        let error = relay.bind("127.0.0.1:0").await.unwrap_err();
        assert!(matches!(error, RelayError::Exchange(_)));
        assert!(error.to_string().contains(expected), "{error}");
    }
    let _: ExchangeConfigError = provider.exchange("x/").user("{").unwrap_err();
}

/// docs/protocol.md §3.7
#[tokio::test]
async fn token_that_is_not_for_this_relay_and_device_is_not_exchanged() {
    let [provider, other_algorithm] = Provider::rs256_and_ps256();
    let stranger = Provider::rs256();
    let town = town(&provider, "").await;
    let another_device = json!({"cnf": {"jkt": "51S3iIWCfYor0Ny6YVMZ2ZcBq0v3mXbqZ2VHh8nWJ8w"}});
    for (what, credential) in [
        (
            "of another audience",
            provider.grants("alice", json!({"aud": "account"})),
        ),
        (
            "expired",
            provider.grants("alice", json!({"iat": now() - 900, "exp": now() - 61})),
        ),
        (
            "from the future",
            provider.grants("alice", json!({"iat": now() + 200, "exp": now() + 900})),
        ),
        ("for another key", provider.grants("alice", another_device)),
        (
            "without the claim",
            provider.grants("alice", json!({"sub": null})),
        ),
        (
            "of another issuer",
            provider.grants("alice", json!({"iss": "https://id.example"})),
        ),
        (
            "an ID token",
            provider.grants("alice", json!({"at_hash": "x"})),
        ),
        ("of another key", stranger.grants("alice", json!({}))),
        (
            "of another algorithm",
            other_algorithm.grants("alice", json!({})),
        ),
        ("no name", provider.grants("a\u{7}b", json!({}))),
        (
            "no token",
            Credential::exchanged(|_| Ok("a.b.c".to_owned())),
        ),
    ] {
        let error = town.introduced(credential).is_refused().await;
        assert!(is_refused(&error), "{what}: {error:?}");
    }
    // It is a bearer token, and none of the relay's own.
    let direct = provider.clone();
    let account = town.introduced(Credential::tokens(move |_| {
        Ok(direct.token("alice", &json!({})))
    }));
    assert!(matches!(
        account.is_refused().await,
        Error::NotAuthorised(_)
    ));
    let bound = provider.clone();
    let account = town.introduced(Credential::exchanged(move |device| {
        let cnf = json!({"cnf": {"jkt": device.to_string()}});
        Ok(bound.token("alice", &cnf))
    }));
    account.arrive().await;
}

/// docs/protocol.md §3.7
#[tokio::test]
async fn users_of_two_issuers_are_never_the_same() {
    let (acme, globex) = (Provider::new(), Provider::new());
    let (one, other) = (acme.clone(), globex.clone());
    const OTHER: &str = "https://login.globex.example";
    let town = Town::with(move |relay| {
        let second = sealwire_server::ExchangeIssuer::with_keys(
            OTHER,
            PROVIDER_AUDIENCE,
            "globex/",
            other.keys(),
        );
        relay
            .exchange(one.exchange("acme/"))
            .exchange(second.unwrap().scopes(EVERYTHING).unwrap())
    })
    .await;
    let first = joined(&town, &acme, "bob").await;
    let credential = globex.grants("bob", json!({"iss": OTHER}));
    let second = town.introduced(credential).arrive().await;
    assert_eq!(user_of(&first).await, "acme/bob");
    assert_eq!(user_of(&second).await, "globex/bob");
    first.meet("globex/bob", &second, "acme/bob").await;
    assert_eq!(first.client.devices("acme/bob").await.unwrap().len(), 1);
    // Neither signs for the other.
    for credential in [
        acme.grants("bob", json!({"iss": OTHER})),
        globex.grants("bob", json!({"iss": PROVIDER})),
    ] {
        assert!(is_refused(&town.introduced(credential).is_refused().await));
    }
    // Nor does the operator invite somebody by such a name.
    assert!(matches!(
        town.relay()
            .invite("acme/bob", std::time::Duration::from_secs(9))
            .await,
        Err(RelayError::Issuer(_))
    ));
    town.join("bob").await;
}

/// docs/protocol.md §5.7
#[tokio::test]
async fn nobody_of_a_tenant_finds_users_of_another() {
    let provider = Provider::new();
    let exchanging = provider.clone();
    let town = Town::with(move |relay| {
        let issuer = exchanging.exchange("").user("{org}/{sub}").unwrap();
        relay.exchange(issuer.tenant_claim("org").unwrap())
    })
    .await;
    let of = |org: &str, user: &str| town.introduced(provider.grants(user, json!({"org": org})));
    let alice = of("acme", "alice").arrive().await;
    let bob = of("acme", "bob").arrive().await;
    let eve = of("globex", "eve").arrive().await;
    alice.meet("acme/bob", &bob, "acme/alice").await;
    for user in ["globex/eve", "globex/nobody", "eve", "acme"] {
        let refused = alice.cannot_send(user, "hello").await;
        assert!(is_not_permitted(&refused), "{user}: {refused:?}");
        let refused = alice.client.devices(user).await.unwrap_err();
        assert!(is_not_permitted(&refused), "{user}: {refused:?}");
    }
    let refused = eve.cannot_send("acme/bob", "hello").await;
    assert!(is_not_permitted(&refused), "{refused:?}");
    // Who has the same name there is somebody else.
    let other = of("globex", "bob").arrive().await;
    eve.send("globex/bob", "hello").await;
    assert_eq!(other.text().await.0, "globex/eve");
    alice.send("acme/bob", "still here").await;
    assert_eq!(bob.text().await.1, "still here");
}

/// docs/protocol.md §3.7, §5.4: in-band, and a narrower token takes effect at once.
#[tokio::test]
async fn refreshed_exchange_takes_the_place_of_the_old_one() {
    let provider = Provider::new();
    let exchanging = provider.clone();
    let town = Town::with(move |relay| {
        let issuer = sealwire_server::ExchangeIssuer::with_keys(
            PROVIDER,
            PROVIDER_AUDIENCE,
            "",
            exchanging.keys(),
        );
        relay.exchange(
            issuer
                .and_then(|issuer| issuer.scope_claim("roles"))
                .and_then(|issuer| issuer.scope("writer", "sealwire:send"))
                .and_then(|issuer| issuer.scope("reader", "sealwire:receive sealwire:publish"))
                .unwrap(),
        )
    })
    .await;
    let everything = json!(["writer", "reader"]);
    let bob = town.introduced(provider.grants("bob", json!({"roles": everything})));
    let bob = bob.arrive().await;
    let is_narrow = Arc::new(AtomicBool::new(false));
    let (asking, narrow) = (provider.clone(), Arc::clone(&is_narrow));
    let credential = Credential::exchanged(move |_| {
        // Such that the relay asks for another soon.
        let claims = if narrow.load(Ordering::SeqCst) {
            json!({"roles": ["reader"]})
        } else {
            json!({"roles": ["writer", "reader"], "exp": now() + 4})
        };
        Ok(asking.token("alice", &claims))
    });
    let alice = town.introduced(credential).arrive().await;
    let mut sent = 0;
    let error = within("the narrower token", async {
        loop {
            let text = Message::text(sent.to_string());
            match alice.client.send("bob", text).await {
                Ok(_) => {
                    assert_eq!(bob.text().await.1, sent.to_string());
                    is_narrow.store(true, Ordering::SeqCst);
                }
                Err(Error::Refused(Refusal::RateLimited)) => continue,
                Err(error) => return error,
            }
            sent += 1;
        }
    });
    let error = error.await;
    assert!(is_not_permitted(&error), "{error:?}");
    assert!(sent > 0, "the first token allowed it");
    assert_eq!(alice.client.connection(), ConnectionState::Connected);
    // Who has no role is not let in.
    let nobody = town.introduced(provider.grants("carol", json!({"roles": ["other"]})));
    assert!(is_refused(&nobody.is_refused().await));
}

/// docs/protocol.md §3.7
#[tokio::test]
async fn link_ends_with_the_token_of_the_provider() {
    let provider = Provider::new();
    let town = town(&provider, "").await;
    // The tolerance of §2.2 is nearly used up.
    let ending = json!({"iat": now() - 600, "exp": now() - 55});
    let credential = provider.grants_in_turn("alice", vec![ending]);
    let alice = town.introduced(credential).arrive().await;
    assert_eq!(ends(&alice).await, NotAuthorised::NoToken);
}

/// docs/protocol.md §3.7, §5.6
#[tokio::test]
async fn what_revokes_the_providers_token_ends_what_was_minted_for_it() {
    let provider = Provider::new();
    let town = town(&provider, "").await;
    let alice = joined(&town, &provider, "alice").await;
    let of = |claims: Value| town.introduced(provider.grants("bob", claims));

    let lost = of(json!({"jti": "lost"})).arrive().await;
    alice.meet("bob", &lost, "alice").await;
    let revoked = Revocation::Token("lost".to_owned());
    town.relay().revoke(revoked).await.unwrap();
    assert_eq!(ends(&lost).await, NotAuthorised::Revoked);
    let refused = of(json!({"jti": "lost"})).is_refused().await;
    assert!(is_revoked(&refused), "{refused:?}");
    // The card that the minted token attests is gone, and another token brings the device back.
    let refused = alice.cannot_send("bob", "nobody there").await;
    assert!(matches!(refused, Error::Refused(Refusal::UnknownUser)));
    let mut account = lost.leave().await;
    account.credential = provider.grants("bob", json!({"jti": "found"}));
    let bob = account.arrive().await;
    alice.send("bob", "hello again").await;
    assert_eq!(bob.text().await.1, "hello again");

    // A token of the provider from before then, although it would be minted for after.
    let before = Revocation::IssuedBefore {
        before: now() - 100,
        user: Some(User::new("bob").unwrap()),
    };
    town.relay().revoke(before).await.unwrap();
    let old = of(json!({"iat": now() - 200})).is_refused().await;
    assert!(is_revoked(&old), "{old:?}");

    let device = Revocation::Device(bob.thumbprint());
    town.relay().revoke(device).await.unwrap();
    assert_eq!(ends(&bob).await, NotAuthorised::Revoked);
    assert!(is_revoked(&bob.leave().await.is_refused().await));

    let other = of(json!({})).arrive().await;
    let user = Revocation::User(User::new("bob").unwrap());
    town.relay().revoke(user).await.unwrap();
    assert_eq!(ends(&other).await, NotAuthorised::Revoked);
    assert!(is_revoked(&of(json!({})).is_refused().await));
    assert_eq!(alice.client.connection(), ConnectionState::Connected);
}

/// docs/protocol.md §3.7: whoever has a bearer token is that user, and the others see it.
#[tokio::test]
async fn device_of_a_stolen_token_is_seen_and_can_be_removed() {
    let provider = Provider::new();
    let town = town(&provider, "").await;
    let alice = joined(&town, &provider, "alice").await;
    let bob = joined(&town, &provider, "bob").await;
    bob.meet("alice", &alice, "bob").await;
    let thief = joined(&town, &provider, "alice").await;
    let added = |event| match event {
        Event::PeerChanged { added, .. } => added.first().copied(),
        _ => None,
    };
    bob.send("alice", "to both").await;
    assert_eq!(bob.next("the new device", added).await, thief.thumbprint());
    let removed = alice.client.remove_device(thief.thumbprint());
    within("the removal", removed).await.unwrap();
    assert_eq!(ends(&thief).await, NotAuthorised::Revoked);
    assert!(is_revoked(&thief.leave().await.is_refused().await));
}
