//! An outside issuer whose key set is fetched: its keys rotate, it goes down and comes back, and no link notices.
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test says what has to succeed, and names the events that it is about"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealwire_client::error::{NotAuthorised, Unreachable};
use sealwire_client::{ConnectionState, Error, Event, Thumbprint, TrustedIssuer};
use sealwire_jose::{Algorithms, Claims, KeySet, KeyType, PrivateKey, PublicKey, SigningKey};
use sealwire_protocol::name;
use sealwire_server::issuer_keys::{KeySource, KeySourceError};
use sealwire_server::{ExchangeIssuer, Relay, RelayBuilder, RelayError};
use sealwire_tests::{
    AUDIENCE, Account, Credential, Device, EVERYTHING, ISSUER, PROVIDER, PROVIDER_AUDIENCE,
    Provider, Town, Wire, now, within,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// An identity provider's key endpoint.
struct Endpoint {
    address: SocketAddr,
    serves: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
}

impl Endpoint {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serves = Arc::new(Mutex::new(Some(answer)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (served, count) = (Arc::clone(&serves), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let answer = served.lock().unwrap().clone();
                count.fetch_add(1, Ordering::SeqCst);
                // While it is down, it hangs up.
                let Some(answer) = answer else { continue };
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.ends_with(b"\r\n\r\n") {
                        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    assert!(request.starts_with(b"GET /realm/keys?v=1 HTTP/1.1\r\n"));
                    // The relay may have what it needs before all of it is sent.
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self {
            address,
            serves,
            asked,
        }
    }

    fn serve(&self, answer: Option<String>) {
        *self.serves.lock().unwrap() = answer;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn source(&self) -> KeySource {
        let url = format!("http://{}/realm/keys?v=1", self.address);
        KeySource::url(&url, None, Algorithms::PUBLIC_KEY)
            .unwrap()
            .cool_down(Duration::ZERO)
    }
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn key_set(keys: &[&Key]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| key.public.to_jwk()).collect();
    format!("{{\"keys\":[{}]}}", keys.join(","))
}

/// One of the provider's keys.
#[derive(Clone)]
struct Key {
    signing: Arc<SigningKey>,
    public: PublicKey,
}

impl Key {
    fn new(kid: &str, kind: KeyType) -> Self {
        let key = PrivateKey::generate(kind).unwrap().with_kid(kid).unwrap();
        Self {
            public: key.public().unwrap(),
            signing: Arc::new(SigningKey::new(&key).unwrap()),
        }
    }

    fn token(&self, device: Thumbprint, user: &str) -> String {
        let claims = Claims {
            issuer: ISSUER,
            user,
            audience: AUDIENCE,
            issued: now(),
            expires: now() + 3_600,
            id: None,
            device,
            scope: Some("sealwire:send sealwire:receive sealwire:publish"),
            authorization_details: None,
        };
        self.signing.access_token(&claims).unwrap()
    }

    fn grants(&self, user: &'static str) -> Credential {
        let key = self.clone();
        Credential::tokens(move |device| Ok(key.token(device, user)))
    }
}

struct Keys {
    first: Key,
    second: Key,
    third: Key,
}

impl Keys {
    fn new() -> Self {
        Self {
            first: Key::new("2026-01", KeyType::P256),
            second: Key::new("2026-02", KeyType::Ed25519),
            third: Key::new("2026-03", KeyType::P256),
        }
    }

    /// What the devices know: all keys there will ever be.
    fn trusted(&self) -> TrustedIssuer {
        let all = [&self.first, &self.second, &self.third].map(|key| key.public.clone());
        let keys = KeySet::from_public_keys(&all, Algorithms::PUBLIC_KEY).unwrap();
        TrustedIssuer::with_verifier(ISSUER, AUDIENCE, Arc::new(keys)).unwrap()
    }

    fn account(&self, town: &Town, key: &Key, user: &'static str) -> Account {
        town.account(self.trusted(), key.grants(user))
    }
}

fn issuer() -> name::Issuer {
    name::Issuer::new(ISSUER).unwrap()
}

async fn town(source: KeySource) -> Town {
    Town::with(move |relay| relay.issuer_with_keys_from(issuer(), AUDIENCE, source.clone())).await
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::NotAuthorised(NotAuthorised::Credential))
}

/// Whether the relay has said to come back later.
fn is_told_to_wait(error: &Error) -> bool {
    matches!(error, Error::Unreachable(Unreachable::Unavailable(4002)))
}

#[tokio::test]
async fn keys_rotate_and_the_issuer_goes_down_and_no_link_notices() {
    let keys = Keys::new();
    let endpoint = Endpoint::start(ok(&key_set(&[&keys.first]))).await;
    let mut town = town(endpoint.source()).await;
    let alice = keys.account(&town, &keys.first, "alice").arrive().await;
    assert_eq!(endpoint.asked(), 1);

    // A key that is new to the relay makes it look; the old one is good no more.
    endpoint.serve(Some(ok(&key_set(&[&keys.second]))));
    let bob = keys.account(&town, &keys.second, "bob").arrive().await;
    assert_eq!(endpoint.asked(), 2);
    let refused = keys
        .account(&town, &keys.first, "mallory")
        .is_refused()
        .await;
    assert!(is_refused(&refused), "{refused:?}");
    alice.meet("bob", &bob, "alice").await;
    let wire = Wire::to(town.whereabouts(), town.relay().local_addr()).await;
    let mut account = keys.account(&town, &keys.second, "frank");
    account.whereabouts = wire.whereabouts().clone();
    let frank = account.arrive().await;

    for broken in [
        None,
        Some("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned()),
        Some(
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"
                .to_owned(),
        ),
        Some(ok("{\"keys\":[]}")),
        Some(ok("<html>")),
        Some(ok(&" ".repeat(70_000))),
    ] {
        let what: String = format!("{broken:?}").chars().take(40).collect();
        endpoint.serve(broken);
        let before = endpoint.asked();
        let refused = keys.account(&town, &keys.third, "dave").is_refused().await;
        // The provider may have it: whoever is told never to come back would not.
        assert!(is_told_to_wait(&refused), "{what}: {refused:?}");
        assert!(endpoint.asked() > before, "{what}");
        // What was good before is good still.
        keys.account(&town, &keys.second, "carol")
            .arrive()
            .await
            .leave()
            .await;
        alice.send("bob", &what).await;
        assert_eq!(bob.text().await.1, what);
    }

    endpoint.serve(Some(ok(&key_set(&[&keys.second, &keys.third]))));
    keys.account(&town, &keys.third, "dave")
        .arrive()
        .await
        .leave()
        .await;
    for device in [&alice, &bob, &frank] {
        assert_eq!(device.client.connection(), ConnectionState::Connected);
    }
    assert_eq!(wire.connections(), 1);

    // A start while it is down.
    endpoint.serve(None);
    town.stop().await;
    town.start().await;
    keys.account(&town, &keys.third, "erin").arrive().await;
}

#[tokio::test]
async fn unknown_keys_do_not_make_the_relay_ask_without_end() {
    let keys = Keys::new();
    let endpoint = Endpoint::start(ok(&key_set(&[&keys.first]))).await;
    let town = town(endpoint.source().cool_down(Duration::from_secs(3_600))).await;
    for _ in 0..3 {
        let refused = keys
            .account(&town, &keys.second, "mallory")
            .is_refused()
            .await;
        assert!(is_told_to_wait(&refused), "{refused:?}");
    }
    assert_eq!(endpoint.asked(), 1);
}

/// Also the first connection of a device waits for the provider, and does not end for good.
#[tokio::test]
async fn relay_that_starts_while_the_issuer_is_down_lets_devices_in_when_it_is_back() {
    let keys = Keys::new();
    let endpoint = Endpoint::start(String::new()).await;
    let town = town(endpoint.source()).await;
    let waiting = keys.account(&town, &keys.first, "alice");
    assert!(is_told_to_wait(&waiting.is_refused().await));
    let client = waiting.builder().start().await.unwrap();
    let asked = endpoint.asked();
    within("its next attempt", async {
        while endpoint.asked() == asked {
            tokio::task::yield_now().await;
        }
    })
    .await;
    endpoint.serve(Some(ok(&key_set(&[&keys.first]))));
    let device = Device::new(client, waiting);
    let connected = |event| match event {
        Event::Connection(ConnectionState::Connected) => Some(()),
        _ => None,
    };
    device.next("the connection", connected).await;
}

/// Likewise for tokens that are exchanged.
#[tokio::test]
async fn provider_that_is_down_when_its_token_is_to_be_exchanged_is_waited_for() {
    let provider = Provider::new();
    let endpoint = Endpoint::start(String::new()).await;
    let source = endpoint.source();
    let town = Town::with(move |relay| {
        let issuer = ExchangeIssuer::new(PROVIDER, PROVIDER_AUDIENCE, "acme/", source.clone());
        relay.exchange(issuer.unwrap().scopes(EVERYTHING).unwrap())
    })
    .await;
    let give = provider.clone();
    let account = town.introduced(Credential::exchanged(move |_| {
        Ok(give.token("a", &json!({})))
    }));
    assert!(is_told_to_wait(&account.is_refused().await));
    endpoint.serve(Some(ok(&provider.jwks())));
    account.arrive().await;
    // Of a key that it does not have, when it has answered.
    let other = Provider::new();
    let give = Credential::exchanged(move |_| Ok(other.token("b", &json!({}))));
    assert!(is_refused(&town.introduced(give).is_refused().await));
}

#[tokio::test]
async fn last_good_set_of_another_address_is_not_used() {
    let keys = Keys::new();
    let folder = tempfile::tempdir().unwrap();
    let start = async |endpoint: &Endpoint| {
        let relay = relay_in(folder.path());
        let relay = relay.issuer_with_keys_from(issuer(), AUDIENCE, endpoint.source());
        relay.bind("127.0.0.1:0").await.unwrap()
    };
    let good = Endpoint::start(ok(&key_set(&[&keys.first]))).await;
    start(&good).await.shutdown().await;
    let down = Endpoint::start(String::new()).await;
    let relay = start(&down).await;
    let refused = at(&relay, &keys, folder.path()).is_refused().await;
    assert!(is_told_to_wait(&refused), "{refused:?}");
    relay.shutdown().await;
    good.serve(None);
    let relay = start(&good).await;
    at(&relay, &keys, folder.path()).arrive().await;
}

fn relay_in(folder: &Path) -> RelayBuilder {
    Relay::builder(folder.join("relay")).tls(sealwire_server::Tls::Plain)
}

fn at(relay: &Relay, keys: &Keys, folder: &Path) -> Account {
    let whereabouts = sealwire_tests::Whereabouts {
        address: relay.address().to_string(),
        tls: sealwire_client::Tls::SystemRoots,
    };
    Account::new(
        whereabouts,
        keys.trusted(),
        keys.first.grants("alice"),
        folder,
    )
}

#[tokio::test]
async fn key_file_is_read_again_when_it_has_changed() {
    let keys = Keys::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, key_set(&[&keys.first])).unwrap();
    let source = KeySource::file(&file, Algorithms::PUBLIC_KEY).cool_down(Duration::ZERO);
    let town = town(source).await;
    keys.account(&town, &keys.first, "alice")
        .arrive()
        .await
        .leave()
        .await;
    // As an operator does it: written beside, with another time, and moved there.
    let new = folder.path().join("new.json");
    std::fs::write(&new, key_set(&[&keys.second])).unwrap();
    let later = std::time::SystemTime::now() + Duration::from_secs(10);
    std::fs::File::options()
        .append(true)
        .open(&new)
        .unwrap()
        .set_modified(later)
        .unwrap();
    std::fs::rename(&new, &file).unwrap();
    keys.account(&town, &keys.second, "bob")
        .arrive()
        .await
        .leave()
        .await;
    let refused = keys.account(&town, &keys.first, "alice").is_refused().await;
    assert!(is_refused(&refused), "{refused:?}");
}

#[tokio::test]
async fn relay_does_not_start_without_its_key_file() {
    let folder = tempfile::tempdir().unwrap();
    let start = async |file: &str, content: Option<&str>| {
        let path = folder.path().join(file);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let source = KeySource::file(path, Algorithms::PUBLIC_KEY);
        let relay = relay_in(folder.path()).issuer_with_keys_from(issuer(), AUDIENCE, source);
        relay.bind("127.0.0.1:0").await.unwrap_err()
    };
    let missing = start("missing.json", None).await;
    assert!(
        matches!(missing, RelayError::IssuerKeys(KeySourceError::File { .. })),
        "{missing}"
    );
    let secret = PrivateKey::generate(KeyType::Ed25519).unwrap();
    for content in ["", "{}", "{\"keys\":[]}", &secret.to_jwk()] {
        let refused = start("keys.json", Some(content)).await;
        assert!(
            matches!(refused, RelayError::IssuerKeys(KeySourceError::Keys { .. })),
            "{refused}"
        );
    }
}
