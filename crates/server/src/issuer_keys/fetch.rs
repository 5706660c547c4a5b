//! One GET of a key set: HTTPS, or HTTP on loopback, with a bound on time and bytes, and no redirect.
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::KeySourceError;

/// Bytes of a key set (docs/protocol.md §2.2).
pub(super) const MAX_BYTES: usize = 64 << 10;
/// From the name's lookup to the last byte.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// Where a key set is fetched.
#[derive(Debug, Clone)]
pub(super) struct Place {
    uri: Uri,
    host: Box<str>,
    port: u16,
    tls: bool,
}

/// What came.
pub(super) struct Fetched {
    pub(super) body: Bytes,
    /// For how long it may be used without asking again, by `Cache-Control` (RFC 9111 §5.2.2.1).
    pub(super) max_age: Option<Duration>,
}

/// Why nothing did.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is {0}{hint}", hint = if .0.is_redirection() { "; redirects are not followed, give the address they lead to" } else { "" })]
    Status(StatusCode),
    #[error("the answer is cut off, or longer than {MAX_BYTES} bytes")]
    Body,
}

impl Place {
    /// An `https` URL, or an `http` one whose host is a loopback address or `localhost`.
    pub(super) fn parse(url: &str) -> Result<Self, KeySourceError> {
        let uri: Uri = url.parse().map_err(|_| KeySourceError::Url)?;
        let host = uri.host().ok_or(KeySourceError::Url)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(host) => false,
            Some("http") => return Err(KeySourceError::NoTls),
            Some(_) | None => return Err(KeySourceError::Url),
        };
        if uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'))
        {
            return Err(KeySourceError::Url);
        }
        let host = host.into();
        Ok(Self {
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            host,
            tls,
            uri,
        })
    }

    /// What a file with what came from here is called. What came from elsewhere must never be taken for it.
    pub(super) fn file_name(&self) -> String {
        let hash: [u8; 32] = Sha256::digest(self.uri.to_string()).into();
        format!(
            "issuer-keys-{}.json",
            sealwire_protocol::base64url::encode(&hash)
        )
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls
    }
}

/// A name that resolves to something else has to use TLS.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// Whom TLS trusts: the certificates of a PEM file, or the system's roots.
pub(super) fn tls(trust: Option<&[u8]>) -> Result<Arc<ClientConfig>, KeySourceError> {
    let mut roots = rustls::RootCertStore::empty();
    match trust {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added = certificate.map(|certificate| roots.add(certificate));
                if !matches!(added, Ok(Ok(()))) {
                    return Err(KeySourceError::Trust);
                }
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(KeySourceError::Trust);
    }
    // Identity providers that speak nothing newer than TLS 1.2 are about.
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|_| KeySourceError::Trust)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Fetches the key set.
pub(super) async fn get(
    place: &Place,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Fetched, FetchError> {
    let fetching = async {
        let tcp = TcpStream::connect((&*place.host, place.port)).await;
        let tcp = tcp.map_err(FetchError::Connect)?;
        match tls {
            None => ask(place, tcp).await,
            Some(config) => {
                let name = ServerName::try_from(place.host.to_string());
                let name = name.map_err(|error| FetchError::Tls(std::io::Error::other(error)))?;
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector
                    .connect(name, tcp)
                    .await
                    .map_err(FetchError::Tls)?;
                ask(place, stream).await
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, fetching).await {
        Ok(fetched) => fetched,
        Err(_) => Err(FetchError::Timeout),
    }
}

async fn ask(
    place: &Place,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Fetched, FetchError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let target = place
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut request = Request::new(Empty::<Bytes>::new());
    // A path that was parsed before is one still.
    *request.uri_mut() = target.parse().unwrap_or_default();
    let headers = request.headers_mut();
    if let Some(host) = place
        .uri
        .authority()
        .and_then(|host| HeaderValue::from_str(host.as_str()).ok())
    {
        headers.insert(header::HOST, host);
    }
    headers.insert(
        header::ACCEPT,
        HeaderValue::from_static("application/json, application/jwk-set+json"),
    );
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let max_age = max_age(response.headers());
        let body = Limited::new(response.into_body(), MAX_BYTES)
            .collect()
            .await;
        let body = body.map_err(|_| FetchError::Body)?.to_bytes();
        Ok(Fetched { body, max_age })
    };
    tokio::pin!(answer);
    // The connection lives for as long as its answer is waited for.
    tokio::select! {
        answer = &mut answer => answer,
        Err(error) = connection => Err(error.into()),
    }
}

/// `max-age` of `Cache-Control`.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(header::CACHE_CONTROL).into_iter();
    let mut directives = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    directives.find_map(|directive| {
        let (name, seconds) = directive.trim().split_once('=')?;
        let seconds = seconds.trim_matches('"').parse().ok()?;
        name.eq_ignore_ascii_case("max-age")
            .then(|| Duration::from_secs(seconds))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_for_loopback_only() {
        for url in [
            "https://idp.example/keys",
            "http://127.0.0.1:9/k",
            "http://[::1]:9/k",
            "http://localhost/k",
        ] {
            assert_eq!(
                Place::parse(url).unwrap().is_tls(),
                url.starts_with("https"),
                "{url}"
            );
        }
        for url in [
            "http://idp.example/keys",
            "http://127.0.0.1.example/keys",
            "http://192.0.2.1/keys",
        ] {
            assert!(
                matches!(Place::parse(url), Err(KeySourceError::NoTls)),
                "{url}"
            );
        }
        for url in [
            "",
            "keys.json",
            "/keys",
            "ftp://idp.example/keys",
            "https://",
            "https://user:pass@idp.example/keys",
        ] {
            assert!(
                matches!(Place::parse(url), Err(KeySourceError::Url)),
                "{url}"
            );
        }
    }

    #[test]
    fn max_age_is_found_among_other_directives() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_str(value).unwrap());
            max_age(&headers)
        };
        assert_eq!(
            of("public, max-age=600, must-revalidate"),
            Some(Duration::from_secs(600))
        );
        assert_eq!(of("Max-Age=\"7\""), Some(Duration::from_secs(7)));
        assert_eq!(of("s-maxage=5"), None);
        assert_eq!(of("max-age=-1"), None);
    }
}
