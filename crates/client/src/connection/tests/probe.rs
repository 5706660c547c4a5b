//! Every step to a relay, and what is found where it fails.

use std::io::ErrorKind;

use sealwire_protocol::address::AddressError;
use sealwire_protocol::key::{Seed, SigningKey, Thumbprint};
use tokio::net::TcpListener;

use super::relay::{Act, FakeRelay, relay_key};
use crate::connection::probe::{CertificateFault, Fault, Pass, Probe, ProbeDevice, Upgraded};
use crate::testing::{SharedStore, issuer_key, token, trusted_issuer};
use crate::{StoreError, StoreKey, Tls};

fn probe(url: &str) -> Probe {
    Probe::new(url, Tls::SystemRoots).unwrap()
}

fn device() -> ProbeDevice {
    let key = StoreKey::from_bytes([1; 32]);
    ProbeDevice::open(SharedStore::default(), &key, trusted_issuer()).unwrap()
}

fn now() -> u64 {
    crate::connection::task::now().seconds()
}

async fn upgraded(probe: &Probe) -> Result<Upgraded<'_>, Fault> {
    let addresses = probe.resolve().await?;
    let connected = probe.connect(&addresses).await?;
    connected.secure().await?.upgrade().await
}

/// What the upgrade comes to at a relay that does this.
async fn upgrade(act: Act) -> Fault {
    let relay = FakeRelay::start(&[act], None).await;
    upgraded(&probe(&relay.url())).await.unwrap_err()
}

/// What the proof of the key comes to.
async fn key(act: Act) -> Result<(), Fault> {
    let relay = FakeRelay::start(&[act], None).await;
    let probe = probe(&relay.url());
    upgraded(&probe).await.unwrap().relay_key().await
}

#[tokio::test]
async fn probe_goes_all_the_way_to_a_good_relay() {
    let mut relay = FakeRelay::start(&[Act::Serve], None).await;
    let probe = probe(&relay.url());
    assert!(!probe.is_secure());
    let addresses = probe.resolve().await.unwrap();
    assert_eq!(addresses, [relay.address]);
    let connected = probe.connect(&addresses).await.unwrap();
    assert_eq!(connected.peer(), relay.address);
    let secured = connected.secure().await.unwrap();
    assert_eq!(secured.certificate(), None);
    secured.upgrade().await.unwrap().relay_key().await.unwrap();
    // It has been closed on purpose, and no credential was presented.
    assert_eq!(relay.next().await, super::Saw::Closed(Some(1000)));

    let device = device();
    let good = token(&issuer_key(), "alice", device.thumbprint(), now(), 3_600);
    for (pass, credential) in [
        (Pass::Enrolment, "renewal"),
        (Pass::Token(&good), "token"),
        (Pass::Exchange(&good), "exchange"),
    ] {
        let upgraded = upgraded(&probe).await.unwrap();
        let entered = upgraded.enter(&device, pass).await.unwrap();
        assert_eq!(entered.user, "alice");
        assert!(entered.own_time.abs_diff(entered.relay_time) <= 5);
        assert!(entered.token_expires > now());
        assert_eq!(relay.next().await, super::Saw::Credential(credential));
        // Nothing was sent or acknowledged before.
        assert_eq!(relay.next().await, super::Saw::Closed(Some(1000)));
    }
}

#[tokio::test]
async fn address_that_is_none_says_why() {
    let relay = relay_key().thumbprint();
    for (address, error) in [
        (format!("https://a/v1#{relay}"), AddressError::Scheme),
        ("wss://a/v1".to_owned(), AddressError::NoThumbprint),
        (
            format!("ws://relay.example/v1#{relay}"),
            AddressError::NotSecure,
        ),
    ] {
        let found = Probe::new(&address, Tls::SystemRoots).unwrap_err();
        assert_eq!(found, error, "{address}");
    }
}

#[tokio::test]
async fn name_that_does_not_resolve_is_named() {
    let relay = relay_key().thumbprint();
    // RFC 6761 §6.4: this name never resolves.
    let probe = probe(&format!("wss://relay.invalid/v1#{relay}"));
    let fault = probe.resolve().await.unwrap_err();
    assert_eq!(fault, Fault::Name("relay.invalid".to_owned()));
}

#[tokio::test]
async fn port_at_which_nothing_listens_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let probe = probe(&format!("ws://{address}/v1#{}", relay_key().thumbprint()));
    let fault = probe.connect(&[address]).await.unwrap_err();
    assert_eq!(fault, Fault::Refused(address.to_string()));
    let nothing = probe.connect(&[]).await.unwrap_err();
    assert!(
        matches!(
            nothing,
            Fault::Tcp {
                kind: ErrorKind::InvalidInput,
                ..
            }
        ),
        "{nothing:?}"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_told_with_its_fingerprint() {
    let super::Certificate {
        acceptor,
        fingerprint,
    } = super::certificate();
    let relay = FakeRelay::start(&[Act::Serve], Some(acceptor)).await;
    let url = relay.url().replace("ws://", "wss://");
    let secure = async |tls: Tls| {
        let probe = Probe::new(&url, tls).unwrap();
        let addresses = probe.resolve().await.unwrap();
        let connected = probe.connect(&addresses).await.unwrap();
        let secured = connected.secure().await;
        secured.map(|secured| secured.certificate())
    };
    assert_eq!(
        secure(Tls::Pinned(fingerprint)).await,
        Ok(Some(fingerprint))
    );
    assert_eq!(
        secure(Tls::Pinned([7; 32])).await,
        Err(Fault::Certificate {
            fault: CertificateFault::Pin,
            presented: fingerprint
        })
    );
    // Whoever goes on all the same finds the relay.
    let probe = Probe::new(&url, Tls::SystemRoots).unwrap();
    let trusting = probe.trusting(fingerprint);
    upgraded(&trusting)
        .await
        .unwrap()
        .relay_key()
        .await
        .unwrap();
}

#[tokio::test]
async fn port_without_tls_is_told_from_tls_that_fails() {
    let relay = FakeRelay::start(&[Act::Http(400)], None).await;
    let url = relay.url().replace("ws://", "wss://");
    let probe = Probe::new(&url, Tls::Pinned([0; 32])).unwrap();
    let addresses = probe.resolve().await.unwrap();
    let connected = probe.connect(&addresses).await.unwrap();
    assert_eq!(connected.secure().await.unwrap_err(), Fault::NoTls);
}

#[tokio::test]
async fn web_server_in_place_of_the_relay_is_told_by_its_status() {
    for status in [200, 302, 400, 403, 404, 426, 502] {
        let fault = upgrade(Act::Http(status)).await;
        let expected = Fault::Http {
            status,
            server: None,
        };
        assert_eq!(fault, expected);
        assert!(!fault.advice().is_empty());
    }
    assert_ne!(
        upgrade(Act::Http(404)).await.advice(),
        upgrade(Act::Http(502)).await.advice()
    );
    assert_eq!(upgrade(Act::NoSubProtocol).await, Fault::NoRelay);
}

#[tokio::test]
async fn relay_with_another_key_is_told_with_both() {
    let relay = FakeRelay::start(&[Act::Serve], None).await;
    let expected: Thumbprint = SigningKey::from_seed(&Seed::new([1; 32])).thumbprint();
    let probe = probe(&format!("ws://{}/v1#{expected}", relay.address));
    let fault = upgraded(&probe)
        .await
        .unwrap()
        .relay_key()
        .await
        .unwrap_err();
    assert_eq!(
        fault,
        Fault::RelayKey {
            expected,
            presented: relay_key().thumbprint()
        }
    );
}

#[tokio::test]
async fn clock_that_is_off_is_told_and_to_which_side() {
    assert_eq!(key(Act::ClockAhead(30)).await, Ok(()));
    assert_eq!(key(Act::ClockAhead(-30)).await, Ok(()));
    for (seconds, ahead) in [(120, false), (-120, true)] {
        let fault = key(Act::ClockAhead(seconds)).await.unwrap_err();
        assert_eq!(fault, Fault::Clock { ahead });
    }
    // Within the tolerance the link is made, and Ready says by how much.
    let relay = FakeRelay::start(&[Act::ClockAhead(40)], None).await;
    let probe = probe(&relay.url());
    let entered = upgraded(&probe)
        .await
        .unwrap()
        .enter(&device(), Pass::Enrolment)
        .await;
    let entered = entered.unwrap();
    let ahead = entered.relay_time - entered.own_time;
    assert!((35..=45).contains(&ahead), "{ahead}");
}

#[tokio::test]
async fn what_is_no_relay_behind_a_websocket_is_told() {
    assert_eq!(
        key(Act::InsteadOfAccept("hello")).await,
        Err(Fault::Message)
    );
}

#[tokio::test]
async fn code_with_which_the_relay_refuses_a_device_is_told_with_what_to_do() {
    for (code, name) in [
        (4100, "not_authorised"),
        (4101, "token_expired"),
        (4102, "revoked"),
        (4005, "internal"),
        (4999, "closed"),
    ] {
        let relay = FakeRelay::start(&[Act::CloseAtFinish(code)], None).await;
        let probe = probe(&relay.url());
        let upgraded = upgraded(&probe).await.unwrap();
        let fault = upgraded
            .enter(&device(), Pass::Enrolment)
            .await
            .unwrap_err();
        assert_eq!((fault.clone(), fault.code()), (Fault::Closed(code), name));
        assert!(fault.to_string().contains(&code.to_string()), "{fault}");
    }
}

#[tokio::test]
async fn probe_leaves_the_store_as_it_was() {
    let store = SharedStore::default();
    let key = StoreKey::from_bytes([1; 32]);
    let first = ProbeDevice::open(store.clone(), &key, trusted_issuer()).unwrap();
    let thumbprint = first.thumbprint();
    drop(first);
    let before = store.rows.lock().unwrap().clone();
    let relay = FakeRelay::start(&[Act::Serve], None).await;
    let device = ProbeDevice::open(store.clone(), &key, trusted_issuer()).unwrap();
    assert_eq!(device.thumbprint(), thumbprint);
    let probe = probe(&relay.url());
    upgraded(&probe)
        .await
        .unwrap()
        .enter(&device, Pass::Enrolment)
        .await
        .unwrap();
    drop(device);
    assert_eq!(*store.rows.lock().unwrap(), before);
    let wrong = StoreKey::from_bytes([2; 32]);
    let refused = ProbeDevice::open(store, &wrong, trusted_issuer()).unwrap_err();
    assert!(matches!(refused, StoreError::WrongKey), "{refused:?}");
}
