use std::fs::File;
use std::net::SocketAddr;
use std::sync::Mutex as StdMutex;

use futures_util::future::join_all;
use sealwire_jose::{KeyType, PrivateKey};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// Where a key set is. What it answers is said from outside; `None`: it hangs up.
struct Endpoint {
    address: SocketAddr,
    says: Arc<StdMutex<Option<String>>>,
    asked: watch::Receiver<usize>,
}

impl Endpoint {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(StdMutex::new(Some(key_set())));
        let (count, asked) = watch::channel(0);
        let said = Arc::clone(&says);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.send_modify(|count| *count += 1);
                let answer = said.lock().unwrap().clone();
                let tls = tls.clone();
                tokio::spawn(async move {
                    let Some(answer) = answer else { return };
                    match tls {
                        None => serve(stream, &answer).await,
                        // Whoever does not trust it hangs up.
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            says,
            asked,
        }
    }

    fn say(&self, body: Option<String>) {
        *self.says.lock().unwrap() = body;
    }

    fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    fn source(&self) -> KeySource {
        let url = format!("http://{}/keys", self.address);
        KeySource::url(&url, None, Algorithms::PUBLIC_KEY).unwrap()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, body: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    // Whoever has the answer hangs up.
    let _ = stream.read(&mut [0]).await;
}

/// A set of one new key.
fn key_set() -> String {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    format!("{{\"keys\":[{}]}}", key.public().unwrap().to_jwk())
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("keys.json")
    }

    /// Writes the file, always at the same time.
    fn write(&self, content: &str) {
        std::fs::write(self.file(), content).unwrap();
        let file = File::options().append(true).open(self.file()).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        file.set_modified(time).unwrap();
    }

    fn keys(&self) -> Arc<IssuerKeys> {
        IssuerKeys::new(KeySource::file(self.file(), Algorithms::PUBLIC_KEY), None)
    }
}

#[tokio::test]
async fn those_who_ask_at_the_same_time_ask_the_issuer_once() {
    let endpoint = Endpoint::start(None).await;
    let keys = IssuerKeys::new(endpoint.source().cool_down(Duration::ZERO), None);
    keys.start().await.unwrap();
    // The first has the endpoint asked, and all others are there before it can have answered.
    let looks = join_all((0..20).map(|_| keys.look_again())).await;
    assert_eq!(looks, [Look::Fresh; 20]);
    assert_eq!(endpoint.asked(), 2);
}

/// A token may be good whose key nobody could look for.
#[tokio::test]
async fn what_was_asked_just_now_or_does_not_answer_is_not_known_to_be_fresh() {
    let endpoint = Endpoint::start(None).await;
    let keys = IssuerKeys::new(endpoint.source().cool_down(Duration::ZERO), None);
    keys.start().await.unwrap();
    assert_eq!(keys.look_again().await, Look::Fresh);
    endpoint.say(None);
    assert_eq!(keys.look_again().await, Look::NotNow);
    assert!(keys.state().is_known);
    assert_eq!((keys.state().found, keys.state().failed), (2, 1));
    endpoint.say(Some(key_set()));
    assert_eq!(keys.look_again().await, Look::Fresh);

    let keys = IssuerKeys::new(endpoint.source(), None);
    keys.start().await.unwrap();
    let asked = endpoint.asked();
    assert_eq!(keys.look_again().await, Look::NotNow);
    assert_eq!(endpoint.asked(), asked);
}

#[tokio::test]
async fn url_is_asked_again_and_again_though_no_token_makes_it() {
    let endpoint = Endpoint::start(None).await;
    let keys = IssuerKeys::new(endpoint.source().refresh(Duration::from_millis(10)), None);
    keys.start().await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let fresh = tokio::spawn(Arc::clone(&keys).keep_fresh(stopped));
    let mut asked = endpoint.asked.clone();
    let third = asked.wait_for(|asked| *asked == 3);
    tokio::time::timeout(Duration::from_secs(30), third)
        .await
        .unwrap()
        .unwrap();
    // Also after it did not answer.
    endpoint.say(None);
    let failed = *asked.borrow();
    let more = asked.wait_for(|asked| *asked >= failed + 3);
    tokio::time::timeout(Duration::from_secs(30), more)
        .await
        .unwrap()
        .unwrap();
    assert!(keys.state().is_known && keys.state().failed > 0);
    stop.send_replace(true);
    fresh.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn file_is_read_again_when_it_has_changed_though_no_token_makes_it() {
    let folder = Folder::new();
    folder.write(&key_set());
    let keys = folder.keys();
    keys.start().await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let fresh = tokio::spawn(Arc::clone(&keys).keep_fresh(stopped));
    let began = Instant::now();
    tokio::time::sleep(FILE_INTERVAL * 3).await;
    assert_eq!(keys.state().found, 1);
    folder.write(&key_set());
    while keys.state().found == 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(began.elapsed() < FILE_INTERVAL * 5);
    }
    stop.send_replace(true);
    fresh.await.unwrap();
}

/// Whatever its time: the rest of it may come in the same tick of the clock.
#[tokio::test(start_paused = true)]
async fn file_that_could_not_be_read_is_read_again() {
    let folder = Folder::new();
    folder.write(&key_set());
    let keys = folder.keys();
    keys.start().await.unwrap();
    folder.write("{\"keys\":[");
    assert_eq!(keys.look_again().await, Look::NotNow);
    assert!(keys.state().is_known);
    folder.write(&key_set());
    // Not at once: strangers do not have it read without end.
    assert_eq!(keys.look_again().await, Look::NotNow);
    assert_eq!(keys.state().failed, 1);
    tokio::time::advance(FILE_INTERVAL).await;
    assert_eq!(keys.look_again().await, Look::Fresh);
    assert_eq!(keys.state().found, 2);
}

/// That a file has not changed is known at once: a key that it does not have is none of the issuer's.
#[tokio::test]
async fn file_is_fresh_however_soon_somebody_asks_again() {
    let folder = Folder::new();
    folder.write(&key_set());
    let keys = folder.keys();
    keys.start().await.unwrap();
    for _ in 0..3 {
        assert_eq!(keys.look_again().await, Look::Fresh);
    }
    assert_eq!(keys.state().found, 1);
}

#[tokio::test]
async fn set_of_an_earlier_process_is_as_old_as_it_is() {
    let (endpoint, folder) = (Endpoint::start(None).await, Folder::new());
    let open = || IssuerKeys::new(endpoint.source(), Some(folder.0.path()));
    let keys = open();
    keys.start().await.unwrap();
    assert!(keys.state().age_seconds.unwrap() < 3_600);
    let cache = keys.cache.clone().unwrap();
    let before = SystemTime::now() - Duration::from_secs(7_200);
    let file = File::options().append(true).open(cache).unwrap();
    file.set_modified(before).unwrap();
    endpoint.say(None);
    let keys = open();
    keys.start().await.unwrap();
    assert!(keys.state().is_known);
    assert!(keys.state().age_seconds.unwrap() >= 7_200);
}

#[tokio::test]
async fn server_of_a_key_set_is_believed_if_the_named_file_vouches_for_it() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(
        vec![made.cert.der().clone()],
        made.signing_key.serialize_der().try_into().unwrap(),
    );
    let endpoint = Endpoint::start(Some(Arc::new(config.unwrap()).into())).await;
    let (trusted, folder) = (Folder::new(), Folder::new());
    std::fs::write(trusted.file(), made.cert.pem()).unwrap();
    let another = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.file(), another.cert.pem()).unwrap();
    let port = endpoint.address.port();
    let ask = async |host: &str, trust: &Folder| {
        let url = format!("https://{host}:{port}/keys");
        let source = KeySource::url(&url, Some(&trust.file()), Algorithms::PUBLIC_KEY).unwrap();
        let keys = IssuerKeys::new(source, None);
        keys.start().await.unwrap();
        keys.state().is_known
    };
    assert!(ask("localhost", &trusted).await);
    assert!(!ask("localhost", &folder).await);
    assert!(!ask("127.0.0.1", &trusted).await);
}
