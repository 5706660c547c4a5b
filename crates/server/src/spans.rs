//! What is traced: [`tracing`] spans of level TRACE and of one target, [`TARGET`], which no log shows that does not ask for it.
//!
//! | Span | From | To | Fields |
//! |---|---|---|---|
//! | `handshake` | the WebSocket is there | the device is authenticated, or refused | `credential`, `outcome` |
//! | `send`, `call`, `fetch_cards`, … | the request is read | it is answered | `device`, `outcome` |
//! | `POST /v1/messages`, … | the request is read | it is answered | `outcome` |
//! | `key_set` | an issuer's key set is asked for | it is there, or cannot be had | `outcome` |
//! | `mail_commit` | the mail log is given what waits | it is on the disk | `records` |
//!
//! `outcome` is `ok`, a name of docs/codes.md, `normal` where the device has ended the link, or `gone` where the connection has. A device is the first characters of its thumbprint, as in the log; no field has a user, a token or anything of a
//! message. A handler of a service runs in the span of its `call`, so that what it traces is part of it. Where nobody asks for them, a span costs one look.
use sealwire_protocol::frame::ToRelay;
use sealwire_protocol::handshake::Presented;
use sealwire_protocol::key::Thumbprint;
use tracing::field::Empty;
use tracing::{Span, trace_span};

use crate::closing::End;
use crate::requests::Reply;

/// The target of all of them, for a filter: `sealwire_server::spans=trace`.
pub const TARGET: &str = "sealwire_server::spans";

const OK: &str = "ok";

/// Of a device that authenticates.
pub(crate) fn handshake() -> Span {
    trace_span!(
        target: TARGET,
        parent: None,
        "handshake",
        otel.kind = "server",
        credential = Empty,
        outcome = Empty
    )
}

/// What the device of this handshake has presented.
pub(crate) fn presented(credential: &Presented<'_>) {
    let name = match credential {
        Presented::Token(_) => "token",
        Presented::UpgradeToken => "upgrade_token",
        Presented::Invite(_) => "invite",
        Presented::Renewal => "renewal",
        Presented::Exchange(_) => "exchange",
    };
    Span::current().record("credential", name);
}

/// Whether it was let in.
pub(crate) fn admitted<T>(handshake: &Span, result: &Result<T, End>) {
    outcome(handshake, result.as_ref().err().map(End::label));
}

/// Of a request on a link. [`ToRelay::Ack`] is none, and has no span.
pub(crate) fn request(frame: &ToRelay<'_>, device: &Thumbprint) -> Span {
    let name = match frame {
        ToRelay::Ack { .. } => return Span::none(),
        ToRelay::Send(_) => "send",
        ToRelay::Call(_) => "call",
        ToRelay::FetchCards { .. } => "fetch_cards",
        ToRelay::PublishCard { .. } => "publish_card",
        ToRelay::PublishPrekeys { .. } => "publish_prekeys",
        ToRelay::RemoveDevice { .. } => "remove_device",
        ToRelay::Upload(_) => "upload",
        ToRelay::Download { .. } => "download",
        ToRelay::Discard { .. } => "discard",
        ToRelay::Refresh { .. } => "refresh",
    };
    trace_span!(
        target: TARGET,
        parent: None,
        "request",
        otel.name = name,
        otel.kind = "server",
        device = device.to_string().get(..8).unwrap_or_default(),
        outcome = Empty
    )
}

/// How it was answered.
pub(crate) fn answered(request: &Span, reply: &Reply) {
    let refusal = match reply {
        Reply::Refused(_, cause) => Some(cause.code().name()),
        Reply::Accepted(_)
        | Reply::Cards(..)
        | Reply::Token(..)
        | Reply::Blob(..)
        | Reply::Result(..) => None,
    };
    outcome(request, refusal);
}

/// Of a request by HTTP: its method and route, never its path, as there is a user in it.
pub(crate) fn http(route: &'static str) -> Span {
    trace_span!(target: TARGET, "http", otel.name = route, otel.kind = "server", outcome = Empty)
}

/// Of a look for an issuer's key set.
pub(crate) fn key_set() -> Span {
    trace_span!(target: TARGET, "key_set", otel.kind = "client", outcome = Empty)
}

/// Of one write of the mail log.
pub(crate) fn mail_commit(records: usize) -> Span {
    trace_span!(target: TARGET, parent: None, "mail_commit", records)
}

/// The link ends before it is answered.
pub(crate) fn ended(span: &Span, end: &End) {
    outcome(span, Some(end.label()));
}

/// What became of it: `refusal`, or all is well.
pub(crate) fn outcome(span: &Span, refusal: Option<&'static str>) {
    span.record("outcome", refusal.unwrap_or(OK));
}
