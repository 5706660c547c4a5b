//! Requests of devices that have no link (docs/protocol.md §18): a backend sends, and looks up whom it sends to.
//!
//! ```text
//!  request ── Origin? 403 ── token and proof? 401 ── used before? 401 ── rate? 429 ──▶ a known device: its body is read, and the connection waits for it
//!                                                                                          │
//!                                        the code that decides about a link's requests ◀───┘
//! ```
//! Until a device is known nothing of a body is read, and nothing but two signatures is computed.
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use sealwire_protocol::base64url;
use sealwire_protocol::dpop::{self, UnverifiedDpopProof};
use sealwire_protocol::json::{Object, Value};
use sealwire_protocol::jwe::{ALG, UnopenedJwe};
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits::{MAX_SEALED_MESSAGE_BYTES, MAX_SEND_PARTS};
use sealwire_protocol::token::AccessToken;
use serde_json::json;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::refused::Refused;
use super::replays::Use;
use super::{respond, single};
use crate::bounds::{
    HTTP_BODY_TIMEOUT, HTTP_STORE_TIMEOUT, HTTP_UNIT_BYTES, MAX_HTTP_BODY_BYTES,
    MAX_HTTP_BODY_TLS_BYTES, MAX_HTTP_REQUESTS_PER_USER,
};
use crate::card_check;
use crate::clock;
use crate::closing::End;
use crate::directory::DeviceEntry;
use crate::listener::Patience;
use crate::policy::Allowance;
use crate::refusal::{self, Cause, Limit};
use crate::requests::{self, Envelope, Posted, Sender};
use crate::shared::Shared;
use crate::spans;

/// Where something can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route<'p> {
    Messages,
    /// Of this user, still percent-encoded.
    Devices(&'p str),
}

impl<'p> Route<'p> {
    fn of(path: &'p str) -> Option<Self> {
        if path == "/v1/messages" {
            return Some(Self::Messages);
        }
        let user = path.strip_prefix("/v1/users/")?.strip_suffix("/devices")?;
        (!user.is_empty() && !user.contains('/')).then_some(Self::Devices(user))
    }

    /// As documentation writes it.
    const fn name(self) -> &'static str {
        match self {
            Self::Messages => "POST /v1/messages",
            Self::Devices(_) => "GET /v1/users/{user}/devices",
        }
    }

    const fn method(self) -> Method {
        match self {
            Self::Messages => Method::POST,
            Self::Devices(_) => Method::GET,
        }
    }

    const fn allow(self) -> &'static str {
        match self {
            Self::Messages => "POST",
            Self::Devices(_) => "GET",
        }
    }
}

/// What a body may be: that of an application's server is as good as the relay's own.
pub(crate) trait RequestBody:
    Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static
{
}

impl<B> RequestBody for B where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static
{
}

/// Answers a request below `/v1`.
pub(super) async fn answer<B: RequestBody>(
    request: Request<B>,
    shared: &Arc<Shared>,
    patience: &Patience,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let span = spans::http(Route::of(head.uri.path()).map_or("unknown", Route::name));
    let mut device = None;
    let served = serve(head, body, shared, patience, &mut device).instrument(span.clone());
    let (outcome, response) = match served.await {
        Ok(response) => ("ok", response),
        Err(refused) => {
            refused.log(device.as_ref(), shared);
            let problem = refused.problem();
            (problem.code(), problem.response())
        }
    };
    span.record("outcome", outcome);
    shared.metrics.request(outcome);
    // Whatever comes next on the connection is from nobody in particular again.
    patience.renew(shared.settings.handshake_deadline);
    response
}

/// `device` is set as soon as it is known whose the request is.
async fn serve<B: RequestBody>(
    head: Parts,
    body: B,
    shared: &Arc<Shared>,
    patience: &Patience,
    device: &mut Option<Thumbprint>,
) -> Result<Response<Full<Bytes>>, Refused> {
    let route = Route::of(head.uri.path()).ok_or(Refused::Path)?;
    shared
        .settings
        .origins
        .check(&head.headers)
        .map_err(Refused::Origin)?;
    if head.method != route.method() {
        return Err(Refused::Method(route.allow()));
    }
    if head.uri.query().is_some() {
        return Err(Refused::Query);
    }
    if shared.draining.borrow().is_some() {
        return Err(Refused::Draining);
    }
    let known = authenticate(&head, shared, device).await?;
    // Not the path: there is a user in it.
    tracing::debug!(
        device = refusal::short(&known.token.claims().device),
        method = %head.method,
        "request by HTTP"
    );
    let user = known.token.claims().user.clone();
    let share = shared.requests.take(user, false);
    let most = Limit::Fixed(MAX_HTTP_REQUESTS_PER_USER as u64, "requests of a user");
    let _share = share.ok_or(Cause::AtOnce(most))?;
    patience.extend(
        MAX_HTTP_BODY_TLS_BYTES,
        HTTP_BODY_TIMEOUT + HTTP_STORE_TIMEOUT + shared.settings.handshake_deadline,
    );
    match route {
        Route::Devices(user) => known.devices(user, shared).await,
        Route::Messages => {
            check_media_type(&head.headers)?;
            let (json, _room) = read(body, shared).await?;
            let letter = Letter::parse(&json)?;
            drop(json);
            timeout(HTTP_STORE_TIMEOUT, known.send(letter, shared))
                .await
                .unwrap_or(Err(Refused::StoreTimeout))
        }
    }
}

/// A device that has proved its key in this request.
struct Known {
    token: AccessToken,
    allowance: Allowance,
}

/// docs/protocol.md §18.1
async fn authenticate(
    head: &Parts,
    shared: &Shared,
    device: &mut Option<Thumbprint>,
) -> Result<Known, Refused> {
    let token = credential(&head.headers)?;
    let proof = one(&head.headers, "dpop")?.ok_or(Refused::NoProof)?;
    let now = clock::now();
    let request = dpop::Request {
        method: head.method.as_str(),
        host: host(head, shared).ok_or(Refused::NoHost)?,
        path: head.uri.path(),
    };
    let proof = UnverifiedDpopProof::parse(proof.as_bytes())
        .and_then(|proof| proof.verify(token.as_bytes(), request, now.seconds()))
        .map_err(Refused::Proof)?;
    if shared.proofs.has(proof.id()) {
        return Err(Refused::ProofUsed);
    }
    let verified = shared
        .authority
        .verify_or_look(token.as_bytes(), now.seconds())
        .await;
    let token = verified.map_err(Refused::Token)?;
    let claims = token.claims();
    if claims.device != proof.device() {
        return Err(Refused::AnotherKey);
    }
    *device = Some(claims.device);
    shared.admit(claims)?;
    let allowance = shared.settings.allowance.under(&claims.permissions);
    // As many as the device may use, and no more, so that nobody fills the memory of proofs alone.
    let per_minute = allowance
        .messages_per_minute
        .saturating_add(allowance.card_fetches_per_minute);
    shared
        .request_rates
        .take(&claims.device, per_minute, now.steady_millis)
        .map_err(|_| Refused::Rate)?;
    match shared.proofs.take(*proof.id(), now.steady_millis) {
        Use::First => Ok(Known { token, allowance }),
        Use::Again => Err(Refused::ProofUsed),
        Use::Full => {
            tracing::warn!("requests refused: as many proofs were used as are remembered");
            Err(Refused::ProofsFull)
        }
    }
}

/// The token of `Authorization: DPoP` (RFC 9449 §7.1).
fn credential(headers: &HeaderMap) -> Result<&str, Refused> {
    let value = one(headers, "authorization")?.ok_or(Refused::NoToken)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("dpop") => Ok(token),
        // Also a bearer token: one with `cnf` never is (§2.2).
        Some(_) | None => Err(Refused::NoToken),
    }
}

/// A field of text that may be there once.
fn one<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<Option<&'h str>, Refused> {
    let field = HeaderName::from_static(name);
    let Some(value) = single(headers, &field).map_err(|_| Refused::Twice(name))? else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Refused::NotAscii(name))?;
    Ok(Some(text))
}

/// Which host a proof has to name: the operator's word counts, and without one what the request says. That is enough where nobody has said more: a proof
/// holds for one token, which holds for this relay's audience only, and for one use.
fn host<'h>(head: &'h Parts, shared: &'h Shared) -> Option<&'h str> {
    match (&shared.settings.host, head.uri.authority()) {
        (Some(host), _) => Some(host),
        (None, Some(authority)) => Some(authority.as_str()),
        (None, None) => one(&head.headers, "host").ok()?,
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Refused> {
    let media_type = one(headers, "content-type")?.ok_or(Refused::MediaType)?;
    let (essence, parameters) = media_type.split_once(';').unwrap_or((media_type, ""));
    let is_json = essence.trim().eq_ignore_ascii_case("application/json");
    let parameters = parameters.trim();
    let is_utf8 = parameters.is_empty() || parameters.eq_ignore_ascii_case("charset=utf-8");
    let is_encoded = headers.contains_key(header::CONTENT_ENCODING);
    if is_json && is_utf8 && !is_encoded {
        Ok(())
    } else {
        Err(Refused::MediaType)
    }
}

/// The body, and its room among all that are under way.
async fn read<B: RequestBody>(
    body: B,
    shared: &Shared,
) -> Result<(Vec<u8>, SemaphorePermit<'_>), Refused> {
    let expected = body
        .size_hint()
        .upper()
        .unwrap_or(MAX_HTTP_BODY_BYTES as u64);
    if body.size_hint().lower() > MAX_HTTP_BODY_BYTES as u64 {
        return Err(Refused::BodyTooLarge);
    }
    let units = expected.min(MAX_HTTP_BODY_BYTES as u64) / HTTP_UNIT_BYTES + 1;
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    let room = shared.bodies.try_acquire_many(units);
    let room = room.map_err(|_| Refused::BodiesFull)?;
    let collecting = Limited::new(body, MAX_HTTP_BODY_BYTES).collect();
    match timeout(HTTP_BODY_TIMEOUT, collecting).await {
        Err(_) => Err(Refused::BodyTimeout),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refused::BodyTooLarge),
        Ok(Err(error)) => Err(Refused::BodyBroken(error)),
        Ok(Ok(body)) => {
            let mut body = body.aggregate();
            let mut bytes = vec![0; body.remaining()];
            body.copy_to_slice(&mut bytes);
            Ok((bytes, room))
        }
    }
}

impl Known {
    fn sender<'a>(&'a self, shared: &'a Arc<Shared>) -> Sender<'a> {
        Sender {
            claims: self.token.claims(),
            allowance: &self.allowance,
            shared,
        }
    }

    /// FetchCards, with `take` = 0.
    async fn devices(
        &self,
        user: &str,
        shared: &Arc<Shared>,
    ) -> Result<Response<Full<Bytes>>, Refused> {
        let user = percent_decoded(user).ok_or(Refused::User)?;
        let now = clock::now();
        let user = self.sender(shared).fetchable(&user, now)?;
        let asking = &self.token.claims().user;
        let cards = requests::cards(shared, asking, &user, false, None, now).await?;
        let devices: Vec<_> = cards.iter().filter_map(described).collect();
        let body = json!({ "devices": devices }).to_string();
        Ok(respond(StatusCode::OK, "application/json", body.into()))
    }

    /// Send, with `whole` = 0 and without a sequence.
    async fn send(
        &self,
        letter: Letter,
        shared: &Arc<Shared>,
    ) -> Result<Response<Full<Bytes>>, Refused> {
        let now = clock::now();
        let sender = self.sender(shared);
        let lengths = letter.parts.iter().map(|(_, message)| message.len());
        let mut devices: Vec<_> = letter.parts.iter().map(|(device, _)| *device).collect();
        devices.sort_unstable();
        let envelope = Envelope {
            to: sender.sendable(&letter.user, lengths, now)?,
            sequence: 0,
            id: letter.id,
            whole: false,
            devices,
            copies: Vec::new(),
        };
        let accepted = loop {
            let contents = || (letter.parts.clone(), Vec::new());
            let may = || shared.admit(self.token.claims());
            match sender.post(&envelope, contents, may, clock::now()) {
                Ok(Posted::Appended(accepted)) => break accepted,
                Ok(Posted::Refused(cause)) => return Err(cause.into()),
                Ok(Posted::NoRoom) => shared.mailboxes.room().await,
                Err(end) => return Err(end.into()),
            }
        };
        accepted.await.map_err(End::from)?;
        shared.metrics.accepted();
        let body = json!({ "id": base64url::encode(&letter.id) }).to_string();
        Ok(respond(
            StatusCode::ACCEPTED,
            "application/json",
            body.into(),
        ))
    }
}

/// What a request to send says.
#[derive(Debug)]
struct Letter {
    user: String,
    id: [u8; 16],
    parts: Vec<(Thumbprint, Bytes)>,
}

impl Letter {
    fn parse(json: &[u8]) -> Result<Self, Refused> {
        let letter = Object::parse(json).map_err(Refused::Json)?;
        let user = text(&letter, "user")?;
        let id = text(&letter, "id")?;
        let id = base64url::decode_array(id.as_bytes()).map_err(|_| Refused::Member("id"))?;
        let Some(Value::Array(messages)) = letter.member("messages") else {
            return Err(Refused::Member("messages"));
        };
        if messages.is_empty() || messages.len() > MAX_SEND_PARTS {
            return Err(Refused::Member("messages"));
        }
        if letter.len() > 3 {
            return Err(Refused::Unlisted("user, id and messages"));
        }
        let parts: Result<_, _> = messages.iter().map(part).collect();
        Ok(Self {
            user: user.to_owned(),
            id,
            parts: parts?,
        })
    }
}

fn part(message: &Value) -> Result<(Thumbprint, Bytes), Refused> {
    let Value::Object(message) = message else {
        return Err(Refused::Member("messages[]"));
    };
    let member = |name, shown| text(message, name).map_err(|_| Refused::Member(shown));
    let device = member("device", "messages[].device")?;
    let jwe = member("jwe", "messages[].jwe")?;
    if message.len() > 2 {
        return Err(Refused::Unlisted("messages[].device and messages[].jwe"));
    }
    let device = device
        .parse()
        .map_err(|_| Refused::Member("messages[].device"))?;
    if jwe.len() > MAX_SEALED_MESSAGE_BYTES {
        return Err(Refused::JweTooLarge);
    }
    // What its recipient would refuse anyway, its sender may as well hear of.
    let unopened = UnopenedJwe::parse(jwe.as_bytes()).map_err(Refused::Jwe)?;
    if unopened.header.cty.as_deref() != Some("JWT") {
        return Err(Refused::Cty);
    }
    Ok((device, Bytes::copy_from_slice(jwe.as_bytes())))
}

/// A member that is there, and a string.
fn text<'o>(object: &'o Object, name: &'static str) -> Result<&'o str, Refused> {
    match object.member(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) | None => Err(Refused::Member(name)),
    }
}

/// A device as its card says: what a JOSE library needs to write to it, and what proves it.
fn described(entry: &DeviceEntry) -> Option<serde_json::Value> {
    let (device, x) = match card_check::standard_key(&entry.card) {
        Ok(found) => found,
        Err(error) => {
            // It was checked when it was taken.
            tracing::error!(%error, "a card in the directory cannot be read");
            return None;
        }
    };
    let device = device.to_string();
    Some(json!({
        "device": device,
        "card": String::from_utf8_lossy(&entry.card),
        "key": {
            "kty": "OKP", "crv": "X25519", "x": base64url::encode(&x),
            "kid": device, "use": "enc", "alg": ALG,
        },
    }))
}

/// A segment of a path (RFC 3986 §3.3), read strictly.
fn percent_decoded(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+'
            | b',' | b';' | b'=' | b':' | b'@' => byte,
            _ if byte.is_ascii_alphanumeric() => byte,
            _ => return None,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests;
