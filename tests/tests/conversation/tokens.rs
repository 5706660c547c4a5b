//! What lets a device in: the tokens of an identity provider, or an invitation, and everything that is neither
//! (docs/protocol.md §2.2, §3.6).

use std::sync::{Arc, Mutex};

use sealwire_client::error::{NotAuthorised, Refusal};
use sealwire_client::{Closed, ConnectionState, Error, Event, Message, NoToken, TrustedIssuer};
use sealwire_tests::{AUDIENCE, Credential, ISSUER, Issuer, Town, Wish, within};

#[tokio::test]
async fn devices_talk_with_tokens_of_an_identity_provider() {
    for issuer in [Issuer::ed25519(), Issuer::es256()] {
        let town = Town::of(&issuer).await;
        let alice = town
            .account(issuer.trusted(), issuer.grants(Wish::of("alice")))
            .arrive()
            .await;
        let bob = town
            .account(issuer.trusted(), issuer.grants(Wish::of("bob")))
            .arrive()
            .await;
        alice.send("bob", "hello, Bob").await;
        assert_eq!(bob.text().await, ("alice".into(), "hello, Bob".into()));
        bob.send("alice", "hello, Alice").await;
        assert_eq!(alice.text().await, ("bob".into(), "hello, Alice".into()));
    }
}

#[tokio::test]
async fn relay_refuses_tokens_that_are_not_good() {
    let (issuer, stranger) = (Issuer::ed25519(), Issuer::ed25519());
    let town = Town::of(&issuer).await;
    let keys = |issuer: &Issuer| Arc::new(issuer.keys());
    let alice = || Wish::of("alice");
    let elsewhere =
        TrustedIssuer::with_verifier(ISSUER, "https://other.example", keys(&issuer)).unwrap();
    let namesake =
        TrustedIssuer::with_verifier("https://other.example", AUDIENCE, keys(&issuer)).unwrap();
    // Each device trusts whoever made its token, so that it is the relay that refuses.
    for (what, trusted, credential) in [
        (
            "signed with a key that is not the issuer's",
            stranger.trusted(),
            stranger.grants(alice()),
        ),
        (
            "signed with another algorithm",
            Issuer::es256().trusted(),
            Issuer::es256().grants(alice()),
        ),
        (
            "for another relay",
            elsewhere,
            issuer.grants(Wish {
                audience: "https://other.example",
                ..alice()
            }),
        ),
        (
            "by another issuer",
            namesake,
            issuer.grants(Wish {
                issuer: "https://other.example",
                ..alice()
            }),
        ),
        (
            "expired",
            issuer.trusted(),
            issuer.grants(Wish {
                issued: -7_200,
                expires: -3_600,
                ..alice()
            }),
        ),
        (
            "not yet good",
            issuer.trusted(),
            issuer.grants(Wish {
                issued: 3_600,
                expires: 7_200,
                ..alice()
            }),
        ),
    ] {
        let error = town.account(trusted, credential).is_refused().await;
        let refused = matches!(
            error,
            Error::NotAuthorised(NotAuthorised::Credential | NotAuthorised::Attestation)
        );
        assert!(refused, "a token {what}: {error:?}");
    }
}

#[tokio::test]
async fn token_of_another_device_is_refused() {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    let bob = town
        .account(issuer.trusted(), issuer.grants(Wish::of("bob")))
        .arrive()
        .await;
    let (others, of_bob) = (issuer.clone(), bob.thumbprint());
    let stolen = Credential::tokens(move |_| Ok(others.token(of_bob, &Wish::of("bob"))));
    let error = town.account(issuer.trusted(), stolen).is_refused().await;
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::OtherDevice)),
        "{error:?}"
    );
    assert_eq!(
        bob.client.connection(),
        ConnectionState::Connected,
        "nobody else is hurt"
    );
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    for nonsense in ["", "token", "a.b.c", "eyJhbGciOiJub25lIn0..", "Bearer x"] {
        let credential = Credential::tokens(move |_| Ok(nonsense.to_owned()));
        let error = town
            .account(issuer.trusted(), credential)
            .is_refused()
            .await;
        assert!(
            matches!(error, Error::NotAuthorised(_)),
            "{nonsense:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn source_without_a_token_is_told_apart_from_a_refusal() {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    let error = town
        .account(
            issuer.trusted(),
            Credential::tokens(|_| Err(NoToken::SignInAgain)),
        )
        .is_refused()
        .await;
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::NoToken)),
        "{error:?}"
    );
    let error = town
        .account(
            issuer.trusted(),
            Credential::tokens(|_| Err(NoToken::TryLater)),
        )
        .is_refused()
        .await;
    assert_eq!(error.code(), "no_token_now");
    assert!(error.is_retryable());
}

/// docs/protocol.md §13: 4101, and then only with a new token.
#[tokio::test]
async fn link_whose_token_expires_is_closed() {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    // The tolerance of §2.2 is nearly used up.
    let credential = issuer.grants_in_turn(vec![Wish {
        issued: -600,
        expires: -55,
        ..Wish::of("alice")
    }]);
    let alice = town.account(issuer.trusted(), credential).arrive().await;
    let closed = alice.next("the end of the token", |event| match event {
        Event::Connection(ConnectionState::Closed(closed)) => Some(closed),
        _ => None,
    });
    assert_eq!(closed.await, Closed::NotAuthorised(NotAuthorised::NoToken));
}

/// docs/protocol.md §5.4: in-band, and a narrower token takes effect at once.
#[tokio::test]
async fn refreshed_token_takes_the_place_of_the_old_one() {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    let bob = town
        .account(issuer.trusted(), issuer.grants(Wish::of("bob")))
        .arrive()
        .await;
    let credential = issuer.grants_in_turn(vec![
        // When a quarter of it is left, the relay has the device ask for the next.
        Wish {
            expires: 4,
            ..Wish::of("alice")
        },
        Wish {
            scope: "sealwire:receive sealwire:publish",
            ..Wish::of("alice")
        },
    ]);
    let alice = town.account(issuer.trusted(), credential).arrive().await;
    let mut sent = 0;
    let error = within("the narrower token", async {
        loop {
            match alice
                .client
                .send("bob", Message::text(sent.to_string()))
                .await
            {
                Ok(_) => assert_eq!(bob.text().await.1, sent.to_string()),
                // A fast machine reaches the relay's rate before the token changes.
                Err(Error::Refused(Refusal::RateLimited)) => continue,
                Err(error) => return error,
            }
            sent += 1;
        }
    });
    let error = error.await;
    assert!(
        matches!(error, Error::Refused(Refusal::NotPermitted)),
        "{error:?}"
    );
    assert!(sent > 0, "the first token allowed it");
    assert_eq!(
        alice.client.connection(),
        ConnectionState::Connected,
        "on the same link"
    );
}

#[tokio::test]
async fn invitation_is_good_for_one_device() {
    let town = Town::new().await;
    let invitation = town.invite("alice").await;
    let alice = town.invited(&invitation).arrive().await;
    let error = town.invited(&invitation).is_refused().await;
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::Credential)),
        "{error:?}"
    );
    // docs/protocol.md §3.6: the same device may ask again, if the answer was lost.
    let alice = alice.leave().await.arrive().await;
    assert_eq!(&*alice.client.user().await.unwrap(), "alice");
}

#[tokio::test]
async fn code_that_was_never_given_out_is_refused() {
    let town = Town::new().await;
    let invitation = town.invite("alice").await;
    for code in [vec![7; 16], vec![7; 64], {
        let mut code = invitation.code.expose().to_vec();
        code[0] ^= 1;
        code
    }] {
        let mut account = town.invited(&invitation);
        account.credential = Credential::Invite(code);
        let error = account.is_refused().await;
        assert!(
            matches!(error, Error::NotAuthorised(NotAuthorised::Credential)),
            "{error:?}"
        );
    }
    town.invited(&invitation).arrive().await;
}

#[tokio::test]
async fn device_that_never_joined_is_not_let_in() {
    let town = Town::new().await;
    let mut account = town.invited(&town.invite("alice").await);
    account.credential = Credential::Enrolment;
    let error = account.is_refused().await;
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::NotEnrolled)),
        "{error:?}"
    );
}

#[tokio::test]
async fn relay_with_another_issuer_knows_no_invitations() {
    let (issuer, own) = (Issuer::ed25519(), Town::new().await);
    let town = Town::of(&issuer).await;
    assert!(
        town.relay()
            .invite("alice", std::time::Duration::from_secs(60))
            .await
            .is_err()
    );
    let mut account = own.invited(&own.invite("alice").await);
    account.whereabouts = town.whereabouts().clone();
    let error = account.is_refused().await;
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::Credential)),
        "{error:?}"
    );
}

#[tokio::test]
async fn source_is_told_which_device_the_token_is_for() {
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (signer, seen) = (issuer.clone(), Arc::clone(&asked));
    let credential = Credential::tokens(move |device| {
        seen.lock().unwrap().push(device);
        Ok(signer.token(device, &Wish::of("alice")))
    });
    let alice = town.account(issuer.trusted(), credential).arrive().await;
    assert_eq!(*asked.lock().unwrap(), [alice.thumbprint()]);
}
