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
mod replays;

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
            Err(refusal) => refusal.response(),
        },
        (_, "/healthz" | "/v1") => Refusal::Method.response(),
        (_, path) if path.starts_with("/v1/") => api::answer(request, shared, patience).await,
        _ => Refusal::Path.response(),
    }
}

/// Why a request is not upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("nothing is here; the relay is at /v1")]
    Path,
    #[error("only GET is possible here")]
    Method,
    #[error("requests of this origin are not allowed")]
    Origin,
    #[error("a WebSocket upgrade, version 13, is needed here")]
    NotWebSocket,
    #[error("the WebSocket request is not well-formed")]
    Malformed,
    #[error("the sub-protocol sealwire.v1 is needed")]
    SubProtocol,
    #[error("nothing may be in the query: tokens and codes never travel in a URL")]
    Query,
    #[error("the token is not accepted")]
    Token,
    #[error("the token cannot be checked now; try again later")]
    KeyNotKnownYet,
}

impl Refusal {
    fn response(self) -> Response<Full<Bytes>> {
        let status = match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Origin => StatusCode::FORBIDDEN,
            Self::NotWebSocket => StatusCode::UPGRADE_REQUIRED,
            Self::Malformed | Self::SubProtocol | Self::Query => StatusCode::BAD_REQUEST,
            Self::Token => StatusCode::UNAUTHORIZED,
            Self::KeyNotKnownYet => StatusCode::SERVICE_UNAVAILABLE,
        };
        tracing::debug!(%status, reason = %self, "request refused");
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
            Self::Token => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Path
            | Self::Origin
            | Self::Malformed
            | Self::SubProtocol
            | Self::Query
            | Self::KeyNotKnownYet => {}
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
            Some(bearer.map_err(|error| {
                tracing::debug!(%error, "token of the upgrade request refused");
                match error {
                    VerifyError::Token(_) => Refusal::Token,
                    VerifyError::KeyNotKnownYet => Refusal::KeyNotKnownYet,
                }
            })?)
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
        match single(headers, &header::ORIGIN).map_err(|_| Refusal::Origin)? {
            None => Ok(()),
            Some(origin)
                if self
                    .0
                    .iter()
                    .any(|allowed| allowed.as_bytes() == origin.as_bytes()) =>
            {
                Ok(())
            }
            Some(_) => Err(Refusal::Origin),
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
    match single(headers, &header::SEC_WEBSOCKET_VERSION)? {
        Some(version) if version.as_bytes() == b"13" => {}
        Some(_) | None => return Err(Refusal::NotWebSocket),
    }
    let key = single(headers, &header::SEC_WEBSOCKET_KEY)?.ok_or(Refusal::Malformed)?;
    let mut nonce = [0; 16];
    match Base64::decode(key.as_bytes(), &mut nonce) {
        Ok(decoded) if decoded.len() == 16 => {}
        Ok(_) | Err(_) => return Err(Refusal::Malformed),
    }
    // docs/protocol.md §3.1; the comparison is exact, as sub-protocol names are case-sensitive.
    if !lists(headers, &header::SEC_WEBSOCKET_PROTOCOL, |token| {
        token == SUB_PROTOCOL
    }) {
        return Err(Refusal::SubProtocol);
    }
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| Refusal::Malformed)
}

/// The token of `Authorization: Bearer` (RFC 6750 §2.1), if the header is there.
fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(value) = single(headers, &header::AUTHORIZATION)? else {
        return Ok(None);
    };
    let value = value.to_str().map_err(|_| Refusal::Token)?;
    let (scheme, token) = value.split_once(' ').ok_or(Refusal::Token)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Refusal::Token);
    }
    Ok(Some(token))
}

/// The value of a field that may be there once.
fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        Err(Refusal::Malformed)
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
                Err(Refusal::Malformed),
                "{key:?}"
            );
        }
        let mut twice = request(&GOOD);
        twice.append(
            header::SEC_WEBSOCKET_KEY,
            HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="),
        );
        assert_eq!(accept_key(&twice), Err(Refusal::Malformed));
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
            assert_eq!(
                none.check(&request(&[("origin", origin)])),
                Err(Refusal::Origin)
            );
            assert_eq!(
                some.check(&request(&[("origin", origin)])),
                Err(Refusal::Origin)
            );
        }
        let twice = request(&[
            ("origin", "https://app.example"),
            ("origin", "https://evil.example"),
        ]);
        assert_eq!(some.check(&twice), Err(Refusal::Origin));
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
                Err(Refusal::Token),
                "{value}"
            );
        }
        let twice = request(&[
            ("authorization", "Bearer a.b.c"),
            ("authorization", "Bearer a.b.d"),
        ]);
        assert_eq!(bearer_token(&twice), Err(Refusal::Malformed));
    }
}
