//! Clients over real sockets, against a relay that follows a script.

mod probe;
mod relay;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use sealwire_protocol::key::Thumbprint;
use sha2::{Digest as _, Sha256};

use self::relay::{Act, FakeRelay, Saw, relay_key};
use super::tls::Tls;
use crate::client::Command;
use crate::error::{ErrorClass, Misuse};
use crate::store::{FileStore, StoreError};
use crate::testing::{SharedStore, issuer_key, token, trusted_issuer};
use crate::{
    Client, ClientBuilder, Closed, ConnectionState, Error, Event, Message, NoToken, StoreKey,
    error::NotAuthorised, error::RelayFault, error::Unreachable,
};

/// A builder whose tokens are all different, and how many were asked for.
fn alice(url: &str) -> (ClientBuilder, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let provider = move |device: Thumbprint| {
        let lifetime = 3_600 + counter.fetch_add(1, Ordering::SeqCst);
        let token = token(
            &issuer_key(),
            "alice",
            device,
            super::task::now().seconds(),
            lifetime,
        );
        async move { Ok(token) }
    };
    let builder = Client::builder(url)
        .store(SharedStore::default(), StoreKey::from_bytes([1; 32]))
        .issuer(trusted_issuer())
        .token(provider);
    (builder, asked)
}

async fn failure(script: &[Act]) -> (Error, u64, FakeRelay) {
    let relay = FakeRelay::start(script, None).await;
    let (builder, asked) = alice(&relay.url());
    let error = builder.connect().await.unwrap_err();
    (error, asked.load(Ordering::SeqCst), relay)
}

/// The next connection event.
async fn state(client: &Client) -> ConnectionState {
    loop {
        if let Some(Event::Connection(state)) = client.next().await {
            return state;
        }
    }
}

async fn until(client: &Client, wanted: impl Fn(ConnectionState) -> bool) -> ConnectionState {
    loop {
        let state = state(client).await;
        if wanted(state) {
            return state;
        }
    }
}

#[tokio::test]
async fn client_connects_publishes_sends_and_closes() {
    let mut relay = FakeRelay::start(&[Act::Serve], None).await;
    let (builder, asked) = alice(&relay.url());
    let client = builder.connect().await.unwrap();
    assert_eq!(client.connection(), ConnectionState::Connected);
    assert_eq!(client.user().await.as_deref(), Some("alice"));
    assert_eq!(relay.next().await, Saw::Credential("token"));
    assert_eq!(relay.next().await, Saw::Prekeys(100));
    client.send("bob", Message::text("hello")).await.unwrap();
    assert!(matches!(relay.next().await, Saw::Send(_, parts) if parts.len() == 1));
    client.close().await;
    assert_eq!(relay.next().await, Saw::Closed(Some(1000)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// docs/protocol.md §3.5
#[tokio::test]
async fn relay_with_another_key_is_refused_and_both_thumbprints_are_named() {
    let mut relay = FakeRelay::start(&[Act::Serve], None).await;
    let other = Thumbprint::from_bytes([3; 32]);
    let url = format!("ws://{}/v1#{other}", relay.address);
    let error = alice(&url).0.connect().await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&other.to_string()) && text.contains(&relay_key().thumbprint().to_string()),
        "{text}"
    );
    assert!(
        matches!(error, Error::RelayKey { expected, presented } if expected == other && presented == relay_key().thumbprint())
    );
    assert_eq!(
        (error.code(), error.class(), error.is_retryable()),
        ("relay_key_mismatch", ErrorClass::Unreachable, false)
    );
    // §3.5: closed without sending Finish.
    assert_eq!(relay.next().await, Saw::Closed(Some(4100)));
}

#[tokio::test]
async fn relay_with_another_key_is_not_tried_again() {
    let mut relay = FakeRelay::start(&[Act::Serve], None).await;
    let url = format!(
        "ws://{}/v1#{}",
        relay.address,
        Thumbprint::from_bytes([3; 32])
    );
    let client = alice(&url).0.start().await.unwrap();
    let closed = until(&client, |state| matches!(state, ConnectionState::Closed(_))).await;
    assert_eq!(closed, ConnectionState::Closed(Closed::RelayKey));
    assert!(client.next().await.is_none());
    assert!(matches!(
        client.send("bob", Message::text("x")).await,
        Err(Error::Closed(Closed::RelayKey))
    ));
    assert_eq!(relay.next().await, Saw::Closed(Some(4100)));
    assert!(relay.saw.try_recv().is_err());
}

/// docs/protocol.md §13
#[tokio::test]
async fn refused_credential_is_replaced_once_and_no_more() {
    for (code, reason) in [
        (4100, NotAuthorised::Credential),
        (4101, NotAuthorised::Expired),
        (4102, NotAuthorised::Revoked),
    ] {
        let relay = FakeRelay::start(&[Act::CloseAtFinish(code)], None).await;
        let (builder, asked) = alice(&relay.url());
        let client = builder.start().await.unwrap();
        let closed = until(&client, |state| matches!(state, ConnectionState::Closed(_))).await;
        assert_eq!(
            closed,
            ConnectionState::Closed(Closed::NotAuthorised(reason)),
            "{code}"
        );
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{code}");
    }
}

/// docs/protocol.md §13
#[tokio::test]
async fn refused_token_is_not_presented_again() {
    let mut relay = FakeRelay::start(&[Act::CloseAtFinish(4100)], None).await;
    let issued = super::task::now().seconds();
    let provider = move |device: Thumbprint| {
        let token = token(&issuer_key(), "alice", device, issued, 3_600);
        async move { Ok(token) }
    };
    let client = alice(&relay.url()).0.token(provider).start().await.unwrap();
    let closed = until(&client, |state| matches!(state, ConnectionState::Closed(_))).await;
    assert_eq!(
        closed,
        ConnectionState::Closed(Closed::NotAuthorised(NotAuthorised::Credential))
    );
    client.close().await;
    assert_eq!(relay.next().await, Saw::Credential("token"));
    assert!(matches!(relay.next().await, Saw::Closed(_)));
    assert!(relay.saw.try_recv().is_err());
}

#[tokio::test]
async fn new_token_after_an_expired_one_connects() {
    let relay = FakeRelay::start(&[Act::CloseAtFinish(4101), Act::Serve], None).await;
    let (builder, asked) = alice(&relay.url());
    let client = builder.start().await.unwrap();
    until(&client, |state| state == ConnectionState::Connected).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

/// docs/protocol.md §13
#[tokio::test]
async fn codes_of_the_42xx_range_end_the_client() {
    for (code, fault) in [
        (4200, RelayFault::RefusedOurs),
        (4201, RelayFault::RefusedOurs),
        (4202, RelayFault::Version),
    ] {
        let relay = FakeRelay::start(&[Act::CloseAtFinish(code)], None).await;
        let client = alice(&relay.url()).0.start().await.unwrap();
        let closed = until(&client, |state| matches!(state, ConnectionState::Closed(_))).await;
        assert_eq!(
            closed,
            ConnectionState::Closed(Closed::Protocol(fault)),
            "{code}"
        );
    }
}

/// docs/protocol.md §13
#[tokio::test]
async fn link_that_was_up_and_broke_a_rule_is_tried_again_but_not_for_ever() {
    let broken = Act::CloseAtPrekeys(4201);
    let relay = FakeRelay::start(&[broken, Act::CloseAtPrekeys(4200), Act::Serve], None).await;
    let client = alice(&relay.url()).0.start().await.unwrap();
    for _ in 0..2 {
        let waiting = |state| matches!(state, ConnectionState::Waiting { .. });
        let ConnectionState::Waiting { reason, .. } = until(&client, waiting).await else {
            panic!()
        };
        assert_eq!(reason, Unreachable::Broken);
    }
    until(&client, |state| state == ConnectionState::Connected).await;

    let mut relay = FakeRelay::start(&[broken], None).await;
    let client = alice(&relay.url()).0.start().await.unwrap();
    let closed = until(&client, |state| matches!(state, ConnectionState::Closed(_))).await;
    let fault = RelayFault::RefusedOurs;
    assert_eq!(closed, ConnectionState::Closed(Closed::Protocol(fault)));
    client.close().await;
    for _ in 0..4 {
        relay
            .wait_for(|saw| matches!(saw, Saw::Credential(_)))
            .await;
    }
    while let Ok(saw) = relay.saw.try_recv() {
        assert!(!matches!(saw, Saw::Credential(_)));
    }
}

#[tokio::test]
async fn newer_link_of_the_same_device_ends_the_client() {
    let relay = FakeRelay::start(&[Act::CloseAtPrekeys(4004)], None).await;
    let client = alice(&relay.url()).0.start().await.unwrap();
    let closed = until(&client, |state| matches!(state, ConnectionState::Closed(_))).await;
    assert_eq!(closed, ConnectionState::Closed(Closed::Replaced));
}

/// docs/protocol.md §5.2
#[tokio::test]
async fn device_stays_away_as_long_as_the_relay_asks_and_never_longer_than_a_back_off() {
    for (asked, at_least, at_most) in [(20_000, 20, 20), (u32::MAX, 30, 30)] {
        let relay = FakeRelay::start(&[Act::Leaves(asked), Act::Serve], None).await;
        let client = alice(&relay.url()).0.start().await.unwrap();
        let before = SystemTime::now();
        let waiting = |state| matches!(state, ConnectionState::Waiting { .. });
        let ConnectionState::Waiting { until, .. } = until(&client, waiting).await else {
            panic!()
        };
        let after = SystemTime::now();
        assert!(until >= before + Duration::from_secs(at_least), "{asked}");
        assert!(until <= after + Duration::from_secs(at_most), "{asked}");
        client.close().await;
    }
}

/// docs/protocol.md §13
#[tokio::test]
async fn codes_of_the_40xx_range_are_followed_by_a_new_connection() {
    let script: Vec<_> = [4000, 4001, 4002, 4003, 4005]
        .into_iter()
        .map(Act::CloseAtPrekeys)
        .chain([Act::Serve])
        .collect();
    let relay = FakeRelay::start(&script[4..], None).await;
    let client = alice(&relay.url()).0.start().await.unwrap();
    let waiting = until(&client, |state| {
        matches!(state, ConnectionState::Waiting { .. })
    })
    .await;
    assert!(matches!(
        waiting,
        ConnectionState::Waiting {
            reason: Unreachable::Unavailable(4005),
            ..
        }
    ));
    until(&client, |state| state == ConnectionState::Connected).await;
}

#[tokio::test]
async fn message_whose_answer_was_lost_is_sent_again_as_the_same_bytes() {
    let mut relay = FakeRelay::start(&[Act::CloseAtSend(4000), Act::Serve], None).await;
    let client = alice(&relay.url()).0.connect().await.unwrap();
    client.send("bob", Message::text("hello")).await.unwrap();
    let is_send = |saw: &Saw| matches!(saw, Saw::Send(..));
    let first = relay.wait_for(is_send).await;
    assert_eq!(relay.wait_for(is_send).await, first);
}

/// The socket stays open, and nothing comes.
#[tokio::test]
async fn relay_that_falls_silent_is_given_up() {
    let mut relay = FakeRelay::start(&[Act::SilentOncePublished], None).await;
    let client = alice(&relay.url()).0.connect().await.unwrap();
    relay.wait_for(|saw| matches!(saw, Saw::Prekeys(_))).await;
    given_up(&client).await;

    let mut relay = FakeRelay::start(&[Act::SilentAtSend], None).await;
    let client = alice(&relay.url()).0.connect().await.unwrap();
    let sending = client.clone();
    tokio::spawn(async move { sending.send("bob", Message::text("hello")).await });
    relay.wait_for(|saw| matches!(saw, Saw::Send(..))).await;
    given_up(&client).await;
}

/// Lets no time pass but where the client waits for nothing else: what it bounds by time is over at once.
async fn given_up(client: &Client) {
    assert_eq!(client.connection(), ConnectionState::Connected);
    client.commands().send(Command::SkipTime).await.unwrap();
    let next = until(client, |state| state != ConnectionState::Connected).await;
    assert!(
        matches!(
            next,
            ConnectionState::Waiting {
                reason: Unreachable::Timeout,
                ..
            } | ConnectionState::Connecting
        ),
        "{next:?}"
    );
}

#[tokio::test]
async fn first_connection_that_fails_is_an_error() {
    for (act, expected) in [
        (Act::CloseAtFinish(4000), Unreachable::Unavailable(4000)),
        (Act::Http(404), Unreachable::NotARelay(404)),
        (Act::Http(503), Unreachable::Unavailable(503)),
        (Act::NoSubProtocol, Unreachable::NotARelay(101)),
    ] {
        let (error, ..) = failure(&[act]).await;
        assert!(
            matches!(error, Error::Unreachable(reason) if reason == expected),
            "{error:?}"
        );
        assert_eq!(
            (error.class(), error.is_retryable()),
            (ErrorClass::Unreachable, true)
        );
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "ws://{}/v1#{}",
        listener.local_addr().unwrap(),
        relay_key().thumbprint()
    );
    drop(listener);
    let error = alice(&url).0.connect().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unreachable(Unreachable::Connect(std::io::ErrorKind::ConnectionRefused))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn unauthorized_upgrade_is_not_authorised() {
    let (error, asked, _) = failure(&[Act::Http(401)]).await;
    assert!(
        matches!(error, Error::NotAuthorised(NotAuthorised::Credential)),
        "{error:?}"
    );
    assert_eq!((error.class(), asked), (ErrorClass::NotAuthorised, 2));
}

/// docs/protocol.md §3.1, §4, §5.2
#[tokio::test]
async fn relay_that_does_not_follow_the_protocol_is_left_with_the_code_that_says_why() {
    for (act, fault, code) in [
        (Act::InsteadOfAccept("text"), RelayFault::Record, 4200),
        (Act::InsteadOfReady(b""), RelayFault::Record, 4200),
        (Act::InsteadOfReady(b"\x04"), RelayFault::Record, 4200),
        (
            Act::InsteadOfReady(b"\x04 is no record that opens"),
            RelayFault::Record,
            4201,
        ),
        (Act::ReadyForAnother, RelayFault::OtherDevice, 4201),
    ] {
        let (error, _, mut relay) = failure(&[act]).await;
        assert!(
            matches!(error, Error::Relay(given) if given == fault),
            "{error:?}"
        );
        assert!(!error.is_retryable());
        let closed = relay.wait_for(|saw| matches!(saw, Saw::Closed(_))).await;
        assert_eq!(closed, Saw::Closed(Some(code)), "{error:?}");
    }
}

#[tokio::test]
async fn token_is_refreshed_before_it_expires() {
    let mut relay = FakeRelay::start(&[Act::Expires(1)], None).await;
    let (builder, asked) = alice(&relay.url());
    let client = builder.connect().await.unwrap();
    relay.wait_for(|saw| *saw == Saw::Refresh).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(client.connection(), ConnectionState::Connected);
}

/// docs/protocol.md §5.4: the relay's clock decides, and what it says more often changes nothing.
#[tokio::test]
async fn token_of_which_the_relay_says_that_it_expires_is_refreshed_once() {
    let mut relay = FakeRelay::start(&[Act::SaysExpiring(3)], None).await;
    let (builder, asked) = alice(&relay.url());
    let client = builder.connect().await.unwrap();
    relay.wait_for(|saw| *saw == Saw::Refresh).await;
    assert_eq!(asked.load(Ordering::SeqCst), 2, "its own time is an hour");
    client.send("bob", Message::text("hello")).await.unwrap();
    assert!(matches!(relay.next().await, Saw::Send(..)));
    assert_eq!(client.connection(), ConnectionState::Connected);
}

#[tokio::test]
async fn invite_is_redeemed_once_and_renewed_afterwards() {
    let mut relay = FakeRelay::start(&[Act::Serve], None).await;
    let store = SharedStore::default();
    let builder = || {
        Client::builder(&relay.url())
            .store(store.clone(), StoreKey::from_bytes([1; 32]))
            .issuer(trusted_issuer())
    };
    let (first, again, third) = (builder(), builder(), builder());
    let code = [9; 16];
    let client = first.invite(&code).connect().await.unwrap();
    let device = client.device_thumbprint();
    client.close().await;
    let client = again.invite(&code).connect().await.unwrap();
    assert_eq!(client.device_thumbprint(), device);
    client.close().await;
    third.connect().await.unwrap().close().await;
    let credential = |saw: &Saw| matches!(saw, Saw::Credential(_));
    for expected in ["invite", "renewal", "renewal"] {
        assert_eq!(relay.wait_for(credential).await, Saw::Credential(expected));
    }
}

#[tokio::test]
async fn device_without_any_credential_is_told_so() {
    let relay = FakeRelay::start(&[Act::Serve], None).await;
    let builder = Client::builder(&relay.url())
        .store(SharedStore::default(), StoreKey::from_bytes([1; 32]))
        .issuer(trusted_issuer());
    let error = builder.connect().await.unwrap_err();
    assert!(matches!(
        error,
        Error::NotAuthorised(NotAuthorised::NotEnrolled)
    ));
    assert_eq!(error.class(), ErrorClass::NotAuthorised);
}

#[tokio::test]
async fn provider_without_a_token_is_told_apart() {
    let relay = FakeRelay::start(&[Act::Serve], None).await;
    let with = |why: NoToken| {
        alice(&relay.url())
            .0
            .token(move |_: Thumbprint| async move { Err(why) })
    };
    let error = with(NoToken::SignInAgain).connect().await.unwrap_err();
    assert!(matches!(
        error,
        Error::NotAuthorised(NotAuthorised::NoToken)
    ));
    let error = with(NoToken::TryLater).connect().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(Unreachable::NoToken)));
    assert!(error.is_retryable());
}

#[tokio::test]
async fn token_that_is_not_the_devices_never_leaves_it() {
    let mut relay = FakeRelay::start(&[Act::Serve], None).await;
    let provider = |_: Thumbprint| {
        let other = Thumbprint::from_bytes([1; 32]);
        let token = token(
            &issuer_key(),
            "alice",
            other,
            super::task::now().seconds(),
            3_600,
        );
        async move { Ok(token) }
    };
    let error = alice(&relay.url())
        .0
        .token(provider)
        .connect()
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        Error::NotAuthorised(NotAuthorised::OtherDevice)
    ));
    assert!(relay.saw.try_recv().is_err());
}

#[tokio::test]
async fn builder_refuses_what_cannot_work() {
    let url = format!("ws://127.0.0.1:1/v1#{}", relay_key().thumbprint());
    let misuse = |builder: ClientBuilder| async {
        let error = builder.start().await.unwrap_err();
        let Error::Misuse(misuse) = error else {
            panic!("{error:?}")
        };
        misuse
    };
    assert_eq!(misuse(alice("not an address").0).await, Misuse::Address);
    assert_eq!(
        misuse(alice("wss://relay.example/v1").0).await,
        Misuse::Address
    );
    // §3.1: without TLS on loopback only.
    assert_eq!(
        misuse(alice(&url.replace("127.0.0.1", "relay.example")).0).await,
        Misuse::Address
    );
    assert_eq!(misuse(alice(&url).0.invite(&[1; 15])).await, Misuse::Invite);
    assert_eq!(misuse(alice(&url).0.invite(&[1; 65])).await, Misuse::Invite);
    assert_eq!(
        misuse(Client::builder(&url).issuer(trusted_issuer())).await,
        Misuse::NoStore
    );
    let no_issuer =
        Client::builder(&url).store(SharedStore::default(), StoreKey::from_bytes([1; 32]));
    assert_eq!(misuse(no_issuer).await, Misuse::NoIssuer);
    for line in [
        "",
        "sealwire-invite:",
        "https://relay.example",
        "sealwire-invite:AAAA",
    ] {
        assert!(
            matches!(
                Client::invited(line),
                Err(Error::Misuse(Misuse::InviteLine(_)))
            ),
            "{line}"
        );
    }
}

#[tokio::test]
async fn store_of_a_running_client_is_in_use_until_it_is_closed() {
    let relay = FakeRelay::start(&[Act::Serve], None).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("device.store");
    let store = FileStore::open(&path).unwrap();
    let client = alice(&relay.url())
        .0
        .store(store, StoreKey::from_bytes([1; 32]))
        .connect()
        .await
        .unwrap();
    assert!(matches!(FileStore::open(&path), Err(StoreError::InUse)));
    let device = client.device_thumbprint();
    client.close().await;
    let store = FileStore::open(&path).unwrap();
    let wrong = alice(&relay.url())
        .0
        .store(store, StoreKey::from_bytes([2; 32]))
        .start()
        .await
        .unwrap_err();
    assert!(matches!(wrong, Error::Store(StoreError::WrongKey)));
    let store = FileStore::open(&path).unwrap();
    let client = alice(&relay.url())
        .0
        .store(store, StoreKey::from_bytes([1; 32]))
        .connect()
        .await
        .unwrap();
    assert_eq!(client.device_thumbprint(), device);
}

#[tokio::test]
async fn commands_are_answered_while_there_is_no_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "ws://{}/v1#{}",
        listener.local_addr().unwrap(),
        relay_key().thumbprint()
    );
    drop(listener);
    let client = alice(&url).0.start().await.unwrap();
    until(&client, |state| {
        matches!(state, ConnectionState::Waiting { .. })
    })
    .await;
    assert!(matches!(
        client.send("", Message::text("x")).await,
        Err(Error::Misuse(Misuse::User))
    ));
    assert_eq!(client.user().await.as_deref(), Some("alice"));
    assert_eq!(client.export_secret_jwe_key().await.unwrap().len(), 32);
    client.close().await;
}

struct Certificate {
    acceptor: tokio_rustls::TlsAcceptor,
    fingerprint: [u8; 32],
}

fn certificate() -> Certificate {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let fingerprint = Sha256::digest(made.cert.der()).into();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    Certificate {
        acceptor: Arc::new(config).into(),
        fingerprint,
    }
}

#[tokio::test]
async fn pinned_certificate_connects_and_any_other_does_not() {
    let Certificate {
        acceptor,
        mut fingerprint,
    } = certificate();
    let relay = FakeRelay::start(&[Act::Serve], Some(acceptor)).await;
    let url = relay.url().replace("ws://", "wss://");
    alice(&url)
        .0
        .tls(Tls::Pinned(fingerprint))
        .connect()
        .await
        .unwrap()
        .close()
        .await;
    fingerprint[0] ^= 1;
    let error = alice(&url)
        .0
        .tls(Tls::Pinned(fingerprint))
        .connect()
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Unreachable(Unreachable::CertificatePin)),
        "{error:?}"
    );
    assert_eq!(
        (error.code(), error.is_retryable()),
        ("certificate_pin_mismatch", false)
    );
}

#[tokio::test]
async fn self_signed_certificate_is_not_trusted_by_default() {
    let relay = FakeRelay::start(&[Act::Serve], Some(certificate().acceptor)).await;
    let url = relay.url().replace("ws://", "wss://");
    let error = alice(&url).0.connect().await.unwrap_err();
    // A system without any roots says so instead.
    assert!(
        matches!(
            error,
            Error::Unreachable(Unreachable::Certificate | Unreachable::NoRoots)
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn tls_client_does_not_fall_back_to_plain_text() {
    let relay = FakeRelay::start(&[Act::Serve], None).await;
    let url = relay.url().replace("ws://", "wss://");
    let error = alice(&url)
        .0
        .tls(Tls::Pinned([0; 32]))
        .connect()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unreachable(Unreachable::Tls | Unreachable::Broken)
        ),
        "{error:?}"
    );
}

/// Nobody could make room otherwise.
#[tokio::test]
async fn client_with_a_full_inbox_connects_and_its_messages_can_be_taken() {
    let store = SharedStore::default();
    crate::engine::tests::fill_inbox(&store);
    let mut relay = FakeRelay::start(&[Act::Serve], None).await;
    let (builder, _) = alice(&relay.url());
    let client = builder
        .store(store, StoreKey::from_bytes([1; 32]))
        .connect()
        .await
        .unwrap();
    let mut taken = 0;
    while taken < 1_030 {
        let event = client.next().await.unwrap();
        taken += usize::from(matches!(event, Event::Undecryptable { .. }));
    }
    assert_eq!(client.connection(), ConnectionState::Connected);
    client.send("bob", Message::text("hello")).await.unwrap();
    relay.wait_for(|saw| matches!(saw, Saw::Send(..))).await;
}
