//! The HTTP side of the port: `/healthz`, the upgrade to a WebSocket at `/v1` (RFC 6455 §4.2; docs/protocol.md §3.1), and below it the requests of devices
//! that have no link (`api`).
//!
//! ```text
//!  request ── Origin? 403 ── RFC 6455 fields? 400/426 ── token, if one came? 401 ── 101 ──▶ Upgrade, left in a slot for the
//!                                                                                          connection's task
//! ```
//! Nothing that is refused here costs more than parsing its headers, or, for a token, one signature check.
mod api;
mod problem;
mod refused;
mod replays;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use base64ct::{Base64, Encoding};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::authority::{Authority, Bearer, VerifyError};
use crate::clock;
use crate::listener::Patience;
use crate::refusal::Outside;
use crate::remedy::{self, Remedy};
use crate::shared::Shared;

pub(crate) use api::RequestBody;
pub(crate) use problem::Problem;
pub(crate) use replays::Replays;

/// The WebSocket sub-protocol (docs/protocol.md §3.1).
const SUB_PROTOCOL: &str = "sealwire.v1";

/// Which browsers' requests are let in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins(pub(crate) Vec<String>);

/// An upgrade that was granted.
#[derive(Debug)]
pub(crate) struct Upgrade {
    /// Resolves to the raw connection once the response is out.
    pub(crate) connection: OnUpgrade,
    /// The token of the request, verified, if there was one.
    pub(crate) bearer: Option<Bearer>,
}

/// Where the service leaves the upgrade for the task that drives the connection.
pub(crate) type Slot = Arc<Mutex<Option<Upgrade>>>;

/// Takes what the service left.
pub(crate) fn take(slot: &Slot) -> Option<Upgrade> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Answers one request.
pub(crate) async fn answer<B: RequestBody>(
    request: Request<B>,
    shared: &Arc<Shared>,
    slot: &Slot,
    patience: &Patience,
) -> Response<Full<Bytes>> {
    let origins = &shared.settings.origins;
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => health(shared.is_writable()),
        (&Method::GET, "/v1") => match upgrade(request, origins, &shared.authority, slot).await {
            Ok(response) => response,
            Err(refusal) => refusal.answered(shared),
        },
        (_, "/healthz" | "/v1") => Refusal::Method.answered(shared),
        (_, path) if path.starts_with("/v1/") => api::answer(request, shared, patience).await,
        _ => Refusal::Path.answered(shared),
    }
}

/// Why a request is not upgraded, as the other side is told; what it is not told is in the variants, for the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("nothing is here; the relay is at /v1")]
    Path,
    #[error("only GET is possible here")]
    Method,
    #[error("requests of this origin are not allowed")]
    Origin(Outside),
    #[error("a WebSocket upgrade, version 13, is needed here")]
    NotWebSocket,
    #[error("the WebSocket request is not well-formed")]
    Malformed(&'static str),
    #[error("the sub-protocol sealwire.v1 is needed")]
    SubProtocol,
    #[error("nothing may be in the query: tokens and codes never travel in a URL")]
    Query,
    #[error("the token is not accepted")]
    NoBearer,
    #[error("{}", verification(.0))]
    Token(VerifyError),
}

fn verification(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::Token(_) => "the token is not accepted",
        VerifyError::KeyNotKnownYet => "the token cannot be checked now; try again later",
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Origin(_) => StatusCode::FORBIDDEN,
            Self::NotWebSocket => StatusCode::UPGRADE_REQUIRED,
            Self::Malformed(_) | Self::SubProtocol | Self::Query => StatusCode::BAD_REQUEST,
            Self::NoBearer | Self::Token(VerifyError::Token(_)) => StatusCode::UNAUTHORIZED,
            Self::Token(VerifyError::KeyNotKnownYet) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// For the log.
    fn why(&self) -> Cow<'static, str> {
        match self {
            Self::Origin(origin) => {
                format!("the header field origin, {origin}, is not in limits.allowed_origins")
                    .into()
            }
            Self::Malformed(field) => {
                format!("the header field {field} is missing, there twice, or not well-formed")
                    .into()
            }
            Self::NoBearer => "the header field authorization is not of the scheme Bearer".into(),
            Self::Token(error) => error.to_string().into(),
            Self::NotWebSocket => {
                "the header fields connection, upgrade or sec-websocket-version do not ask for a WebSocket of version 13"
                    .into()
            }
            Self::SubProtocol => {
                "the header field sec-websocket-protocol does not have sealwire.v1".into()
            }
            Self::Path => "nothing is at this path".into(),
            Self::Method => "the method is not GET".into(),
            Self::Query => "there is a query".into(),
        }
    }

    /// Likewise.
    fn remedy(&self, shared: &Shared) -> Remedy {
        match self {
            Self::Origin(_) => "add it to limits.allowed_origins in the configuration, exactly, if the page is one of yours".into(),
            Self::Token(error) => remedy::verification(error, shared),
            Self::NotWebSocket | Self::Malformed(_) | Self::SubProtocol => {
                "have the proxy in between pass these header fields on; it may also be no device that asks".into()
            }
            Self::NoBearer => {
                "have the application present its token as Authorization: Bearer, once, or not at all".into()
            }
            Self::Path => {
                "have the device use the address that sealwire relay run prints, and the proxy pass its path on".into()
            }
            Self::Method | Self::Query => "nothing: no device asks so".into(),
        }
    }

    /// Tells the log, and the other side.
    fn answered(&self, shared: &Shared) -> Response<Full<Bytes>> {
        tracing::debug!(
            code = self.status().as_u16(),
            why = &*self.why(),
            remedy = &*self.remedy(shared),
            "request refused"
        );
        self.response()
    }

    fn response(&self) -> Response<Full<Bytes>> {
        let status = self.status();
        let mut response = plain(
            status,
            "text/plain; charset=utf-8",
            format!("{self}\n").into(),
        );
        let headers = response.headers_mut();
        match self {
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            Self::NotWebSocket => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                // RFC 6455 §4.2.2
                headers.insert(
                    header::SEC_WEBSOCKET_VERSION,
                    HeaderValue::from_static("13"),
                );
            }
            Self::NoBearer | Self::Token(VerifyError::Token(_)) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Path
            | Self::Origin(_)
            | Self::Malformed(_)
            | Self::SubProtocol
            | Self::Query
            | Self::Token(VerifyError::KeyNotKnownYet) => {}
        }
        response
    }
}

async fn upgrade<B>(
    mut request: Request<B>,
    origins: &Origins,
    authority: &Authority,
    slot: &Slot,
) -> Result<Response<Full<Bytes>>, Refusal> {
    if request.uri().query().is_some() {
        return Err(Refusal::Query);
    }
    origins.check(request.headers())?;
    let accept = accept_key(request.headers())?;
    let bearer = match bearer_token(request.headers())? {
        None => None,
        Some(token) => {
            let bearer = authority.bearer(token, clock::now().seconds()).await;
            Some(bearer.map_err(Refusal::Token)?)
        }
    };
    let connection = hyper::upgrade::on(&mut request);
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Upgrade { connection, bearer });

    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUB_PROTOCOL),
    );
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(response)
}

impl Origins {
    /// RFC 6455 §10.2: a browser states the page's origin. Devices that are not browsers state none.
    fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let refused = |origin: &[u8]| Refusal::Origin(Outside::new(origin));
        match single(headers, &header::ORIGIN).map_err(|Twice| refused(b"given twice"))? {
            None => Ok(()),
            Some(origin)
                if self
                    .0
                    .iter()
                    .any(|allowed| allowed.as_bytes() == origin.as_bytes()) =>
            {
                Ok(())
            }
            Some(origin) => Err(refused(origin.as_bytes())),
        }
    }
}

/// Checks the fields of RFC 6455 §4.2.1 and gives the value of `Sec-WebSocket-Accept`.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Refusal> {
    if !lists(headers, &header::CONNECTION, |token| {
        token.eq_ignore_ascii_case("upgrade")
    }) || !lists(headers, &header::UPGRADE, |token| {
        token.eq_ignore_ascii_case("websocket")
    }) {
        return Err(Refusal::NotWebSocket);
    }
    let twice = |field| move |Twice| Refusal::Malformed(field);
    let version = single(headers, &header::SEC_WEBSOCKET_VERSION);
    match version.map_err(twice("sec-websocket-version"))? {
        Some(version) if version.as_bytes() == b"13" => {}
        Some(_) | None => return Err(Refusal::NotWebSocket),
    }
    let malformed = Refusal::Malformed("sec-websocket-key");
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).map_err(twice("sec-websocket-key"))?;
    let key = key.ok_or(malformed)?;
    let mut nonce = [0; 16];
    match Base64::decode(key.as_bytes(), &mut nonce) {
        Ok(decoded) if decoded.len() == 16 => {}
        Ok(_) | Err(_) => return Err(Refusal::Malformed("sec-websocket-key")),
    }
    // docs/protocol.md §3.1; the comparison is exact, as sub-protocol names are case-sensitive.
    if !lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, |token| {
        token == SUB_PROTOCOL
    }) {
        return Err(Refusal::SubProtocol);
    }
    HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_| Refusal::Malformed("sec-websocket-key"))
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1), if the header is there.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let value = single(headers, &header::AUTHORIZATION);
    let Some(value) = value.map_err(|Twice| Refusal::Malformed("authorization"))? else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| Refusal::NoBearer)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::NoBearer)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::NoBearer);
    }
    Ok(Some(token))
}

/// A field that may be there once is there twice.
#[derive(Debug, Clone, Copy)]
struct Twice;

/// The value of a field that may be there once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Twice> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        Err(Twice)
    } else {
        Ok(first)
    }
}

/// Whether a comma-separated field has a token that `fits`.
fn lists(headers: &HeaderMap, name: &HeaderName, fits: impl Fn(&str) -> bool) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| fits(token.trim_matches([' ', '\t'])))
}

/// A relay whose store has failed refuses every message until it is started again, so it is not healthy.
pub(crate) fn health(is_writable: bool) -> Response<Full<Bytes>> {
    let (status, body) = if is_writable {
        (StatusCode::OK, "{\"status\":\"ok\"}\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"store\"}\n")
    };
    plain(status, "application/json", body.into())
}

pub(crate) fn plain(
    status: StatusCode,
    media_type: &'static str,
    body: Bytes,
) -> Response<Full<Bytes>> {
    let mut response = respond(status, media_type, body);
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The same, after which the connection may be used again.
fn respond(status: StatusCode, media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        headers
    }

    const GOOD: [(&str, &str); 5] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "other, sealwire.v1"),
    ];

    /// The good request with one field replaced, or left out.
    fn with(name: &'static str, value: Option<&'static str>) -> HeaderMap {
        let mut headers = request(&GOOD);
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[tokio::test]
    async fn health_is_503_once_a_store_refuses_writes() {
        let health = async |is_writable| {
            let response = super::health(is_writable);
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, body)
        };
        assert_eq!(health(true).await, (200, "{\"status\":\"ok\"}\n".into()));
        assert_eq!(
            health(false).await,
            (503, "{\"status\":\"store\"}\n".into())
        );
    }

    #[test]
    fn the_example_of_rfc_6455_1_3_is_accepted() {
        assert_eq!(
            accept_key(&request(&GOOD)).unwrap(),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }

    #[test]
    fn a_request_that_is_not_a_websocket_upgrade_is_refused() {
        for (name, value) in [
            ("connection", None),
            ("connection", Some("close")),
            ("upgrade", None),
            ("upgrade", Some("h2c")),
            ("sec-websocket-version", None),
            ("sec-websocket-version", Some("8")),
        ] {
            assert_eq!(
                accept_key(&with(name, value)),
                Err(Refusal::NotWebSocket),
                "{name} {value:?}"
            );
        }
    }

    #[test]
    fn a_key_that_is_not_16_bytes_of_base64_is_refused() {
        for key in [
            None,
            Some(""),
            Some("c2hvcnQ="),
            Some("dGhlIHNhbXBsZSBub25jZQ"),
            Some("dGhlIHNhbXBsZSBub25jZSE="),
        ] {
            assert_eq!(
                accept_key(&with("sec-websocket-key", key)),
                Err(Refusal::Malformed("sec-websocket-key")),
                "{key:?}"
            );
        }
        let mut twice = request(&GOOD);
        twice.append(
            header::SEC_WEBSOCKET_KEY,
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        assert_eq!(
            accept_key(&twice),
            Err(Refusal::Malformed("sec-websocket-key"))
        );
    }

    #[test]
    fn another_sub_protocol_is_refused_3_1() {
        for protocols in [
            None,
            Some("sealwire.v2"),
            Some("Sealwire.v1"),
            Some("sealwire.v1x"),
        ] {
            assert_eq!(
                accept_key(&with("sec-websocket-protocol", protocols)),
                Err(Refusal::SubProtocol),
                "{protocols:?}"
            );
        }
    }

    #[test]
    fn an_origin_is_refused_unless_it_is_listed_exactly() {
        let none = Origins::default();
        let some = Origins(vec!["https://app.example".into()]);
        assert_eq!(none.check(&request(&[])), Ok(()));
        assert_eq!(
            some.check(&request(&[("origin", "https://app.example")])),
            Ok(())
        );
        for origin in [
            "null",
            "https://app.example.evil",
            "http://app.example",
            "https://app.example:8443",
        ] {
            let refused = Err(Refusal::Origin(Outside::new(origin)));
            assert_eq!(none.check(&request(&[("origin", origin)])), refused);
            assert_eq!(some.check(&request(&[("origin", origin)])), refused);
        }
        let twice = request(&[
            ("origin", "https://app.example"),
            ("origin", "https://evil.example"),
        ]);
        let refused = Refusal::Origin(Outside::new("given twice"));
        assert_eq!(some.check(&twice), Err(refused));
    }

    #[test]
    fn only_a_single_bearer_authorization_is_a_token() {
        assert_eq!(bearer_token(&request(&[])), Ok(None));
        assert_eq!(
            bearer_token(&request(&[("authorization", "bearer a.b.c")])),
            Ok(Some("a.b.c"))
        );
        for value in ["Basic dXNlcg==", "Bearer", "a.b.c"] {
            assert_eq!(
                bearer_token(&request(&[("authorization", value)])),
                Err(Refusal::NoBearer),
                "{value}"
            );
        }
        let twice = request(&[
            ("authorization", "Bearer a.b.c"),
            ("authorization", "Bearer a.b.d"),
        ]);
        assert_eq!(
            bearer_token(&twice),
            Err(Refusal::Malformed("authorization"))
        );
    }
}
