//! Whom a device talks to: the relay that its address names, and nobody else (docs/protocol.md §3.1, §3.5, §14).

use std::io::ErrorKind;

use sealwire_client::error::{Misuse, Unreachable};
use sealwire_client::{
    Client, Closed, ConnectionState, Error, MemoryStore, StoreKey, Thumbprint, Tls,
};
use sealwire_tests::{Account, Device, Issuer, Town, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

#[tokio::test]
async fn other_relay_at_the_address_is_named_with_the_expected_one() {
    let (town, other) = (Town::new().await, Town::new().await);
    let mut account = town.invited(&town.invite("alice").await);
    account.whereabouts = other.whereabouts().clone();
    let (before, _) = account.whereabouts.address.split_once('#').unwrap();
    account.whereabouts.address = format!("{before}#{}", town.relay().thumbprint());

    let error = account.is_refused().await;
    let Error::RelayKey {
        expected,
        presented,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(
        (expected, presented),
        (town.relay().thumbprint(), other.relay().thumbprint())
    );
    for thumbprint in [expected, presented] {
        assert!(
            error.to_string().contains(&thumbprint.to_string()),
            "{error}"
        );
    }
    assert!(!error.is_retryable());

    // The invitation was shown to nobody: it is still good.
    town.invited(&town.invite("alice").await).arrive().await;
}

/// A client that connects in the background says so too, and does not try again.
#[tokio::test]
async fn background_client_gives_up_on_another_relay() {
    let town = Town::new().await;
    let mut account = town.invited(&town.invite("alice").await);
    let (before, _) = account.whereabouts.address.split_once('#').unwrap();
    account.whereabouts.address = format!("{before}#{}", Thumbprint::from_bytes([7; 32]));
    let client = within("the start", account.builder().start())
        .await
        .unwrap();
    let device = Device::new(client, account);
    let closed = device.next("the end", |event| match event {
        sealwire_client::Event::Connection(ConnectionState::Closed(closed)) => Some(closed),
        _ => None,
    });
    assert_eq!(closed.await, Closed::RelayKey);
}

#[tokio::test]
async fn certificate_that_is_not_the_pinned_one_is_refused() {
    let town = Town::new().await;
    let mut account = town.invited(&town.invite("alice").await);
    account.whereabouts.tls = Tls::Pinned([7; 32]);
    let error = account.is_refused().await;
    assert!(
        matches!(error, Error::Unreachable(Unreachable::CertificatePin)),
        "{error:?}"
    );
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn self_signed_certificate_is_trusted_by_nobody_who_does_not_pin_it() {
    let town = Town::new().await;
    let mut account = town.invited(&town.invite("alice").await);
    account.whereabouts.tls = Tls::SystemRoots;
    let error = account.is_refused().await;
    // Some systems have no roots at all.
    assert!(
        matches!(
            error,
            Error::Unreachable(Unreachable::Certificate | Unreachable::NoRoots)
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn address_where_nothing_listens_is_unreachable() {
    let mut town = Town::new().await;
    let account = town.invited(&town.invite("alice").await);
    town.stop().await;
    let error = account.is_refused().await;
    assert!(
        matches!(
            error,
            Error::Unreachable(Unreachable::Connect(ErrorKind::ConnectionRefused))
        ),
        "{error:?}"
    );
    assert!(error.is_retryable());
}

#[tokio::test]
async fn web_server_is_no_relay() {
    let error = answered_by("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
    assert!(
        matches!(error, Error::Unreachable(Unreachable::NotARelay(404))),
        "{error:?}"
    );
    let error = answered_by("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(
        matches!(error, Error::Unreachable(Unreachable::NotARelay(200))),
        "{error:?}"
    );
}

#[tokio::test]
async fn server_that_hangs_up_is_a_broken_connection() {
    let error = answered_by("").await;
    assert!(
        matches!(error, Error::Unreachable(Unreachable::Broken)),
        "{error:?}"
    );
    let error = answered_by("220 mail.example ESMTP\r\n").await;
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn address_that_is_none_is_refused_before_anything_is_sent() {
    let thumbprint = Thumbprint::from_bytes([7; 32]);
    for address in [
        String::new(),
        "relay.example".into(),
        "wss://relay.example/v1".into(),
        format!("https://relay.example/v1#{thumbprint}"),
        format!("wss://relay.example/v2#{thumbprint}"),
        format!("wss://relay.example/v1?token=secret#{thumbprint}"),
        format!("wss://user@relay.example/v1#{thumbprint}"),
        "wss://relay.example/v1#short".into(),
        // docs/protocol.md §3.1: in the clear only to this machine itself.
        format!("ws://relay.example/v1#{thumbprint}"),
        format!("ws://192.0.2.1/v1#{thumbprint}"),
    ] {
        let error = account_at(&address).is_refused().await;
        assert!(
            matches!(error, Error::Misuse(Misuse::Address | Misuse::PlainText)),
            "{address}: {error:?}"
        );
    }
}

#[tokio::test]
async fn client_without_store_or_issuer_is_not_built() {
    let address = format!("wss://relay.example/v1#{}", Thumbprint::from_bytes([7; 32]));
    let error = Client::builder(&address)
        .issuer(Issuer::ed25519().trusted())
        .connect()
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Misuse(Misuse::NoStore)), "{error:?}");
    let key = StoreKey::from_bytes([7; 32]);
    let error = Client::builder(&address)
        .store(MemoryStore::new(), key)
        .connect()
        .await
        .unwrap_err();
    assert!(
        matches!(error, Error::Misuse(Misuse::NoIssuer)),
        "{error:?}"
    );
}

/// What a device says of a server that reads a request and answers this.
async fn answered_by(answer: &'static str) -> Error {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!(
        "ws://{}/v1#{}",
        listener.local_addr().unwrap(),
        Thumbprint::from_bytes([7; 32])
    );
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(socket.read_u8().await.unwrap());
        }
        let text = String::from_utf8(request).unwrap();
        assert!(
            text.starts_with("GET /v1 HTTP/1.1\r\n"),
            "the thumbprint never leaves the device: {text}"
        );
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
    };
    let account = account_at(&address);
    let ((), error) = tokio::join!(within("the request", serve), account.is_refused());
    error
}

fn account_at(address: &str) -> Account {
    let issuer = Issuer::ed25519();
    let whereabouts = sealwire_tests::Whereabouts {
        address: address.to_owned(),
        tls: Tls::SystemRoots,
    };
    let account = Account::new(
        whereabouts,
        issuer.trusted(),
        issuer.grants(sealwire_tests::Wish::of("alice")),
        "".as_ref(),
    );
    account.storing(|| Box::new(MemoryStore::new()))
}
