//! What a request by HTTP is refused with: RFC 9457, deliberately plain. The precise reason goes to the log.
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use sealwire_protocol::close::RefusalCode;
use serde_json::json;

use super::respond;

/// Its name is `code` in the answer, and in docs/codes.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    Malformed,
    /// What RFC 9449 §7.1 has a client told.
    NotAuthorised(Challenge),
    Origin,
    NotFound,
    Method(&'static str),
    Timeout,
    MediaType,
    Overloaded,
    /// Refusals of docs/protocol.md §5.3.
    NotPermitted,
    UnknownUser,
    DevicesChanged,
    MailboxFull,
    Quota,
    TooLarge,
    RateLimited,
    Unavailable,
}

/// What is wrong with a request's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// There is no token, or no proof.
    Missing,
    Token,
    Proof,
}

impl Problem {
    /// One of each code.
    pub(crate) const ALL: [Self; 16] = [
        Self::Malformed,
        Self::NotAuthorised(Challenge::Missing),
        Self::Origin,
        Self::NotFound,
        Self::Method("GET"),
        Self::Timeout,
        Self::MediaType,
        Self::Overloaded,
        Self::NotPermitted,
        Self::UnknownUser,
        Self::DevicesChanged,
        Self::MailboxFull,
        Self::Quota,
        Self::TooLarge,
        Self::RateLimited,
        Self::Unavailable,
    ];

    pub(crate) const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotAuthorised(_) => "not_authorised",
            Self::Origin => "origin_not_allowed",
            Self::NotFound => "not_found",
            Self::Method(_) => "method_not_allowed",
            Self::Timeout => "timeout",
            Self::MediaType => "unsupported_media_type",
            Self::Overloaded => "overloaded",
            Self::NotPermitted => RefusalCode::NotPermitted.name(),
            Self::UnknownUser => RefusalCode::UnknownUser.name(),
            Self::DevicesChanged => RefusalCode::DevicesChanged.name(),
            Self::MailboxFull => RefusalCode::MailboxFull.name(),
            Self::Quota => RefusalCode::Quota.name(),
            Self::TooLarge => RefusalCode::TooLarge.name(),
            Self::RateLimited => RefusalCode::RateLimited.name(),
            Self::Unavailable => RefusalCode::Unavailable.name(),
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotAuthorised(_) => StatusCode::UNAUTHORIZED,
            Self::Origin | Self::NotPermitted => StatusCode::FORBIDDEN,
            Self::NotFound | Self::UnknownUser => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::DevicesChanged => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::MailboxFull | Self::Quota => StatusCode::INSUFFICIENT_STORAGE,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is not of the form that is described",
            Self::NotAuthorised(_) => "The token or the proof of its key is not accepted",
            Self::Origin => "Requests of this origin are not allowed",
            Self::NotFound => "Nothing is here",
            Self::Method(_) => "This method is not possible here",
            Self::Timeout => "The request did not arrive in time",
            Self::MediaType => "Only application/json is taken here",
            Self::Overloaded => "As much is under way as may be; try again later",
            Self::NotPermitted => "The token does not allow it",
            Self::UnknownUser => "The user has no device that could be written to",
            Self::DevicesChanged => "The messages are not for devices of the user",
            Self::MailboxFull => "A mailbox of the recipient is full",
            Self::Quota => "What one user may have in a mailbox of the recipient is used up",
            Self::TooLarge => "Larger than the token or the relay allows",
            Self::RateLimited => "Too many messages or requests",
            Self::Unavailable => "The relay cannot do it now",
        }
    }

    /// Whether the connection may be used again: by who has proved who they are, and not where the relay may be about to be left.
    const fn leaves_the_connection(self) -> bool {
        match self {
            Self::NotAuthorised(_)
            | Self::Origin
            | Self::NotFound
            | Self::Method(_)
            | Self::Timeout
            | Self::Overloaded
            | Self::Unavailable => false,
            Self::Malformed
            | Self::MediaType
            | Self::NotPermitted
            | Self::UnknownUser
            | Self::DevicesChanged
            | Self::MailboxFull
            | Self::Quota
            | Self::TooLarge
            | Self::RateLimited => true,
        }
    }

    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        let status = self.status();
        let body = json!({
            "type": "about:blank",
            "title": self.title(),
            "status": status.as_u16(),
            "code": self.code(),
        });
        let mut response = respond(status, "application/problem+json", body.to_string().into());
        let headers = response.headers_mut();
        if !self.leaves_the_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        match self {
            Self::Method(allowed) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Self::NotAuthorised(challenge) => {
                let challenge = match challenge {
                    Challenge::Missing => r#"DPoP algs="EdDSA Ed25519""#,
                    Challenge::Token => r#"DPoP error="invalid_token", algs="EdDSA Ed25519""#,
                    Challenge::Proof => r#"DPoP error="invalid_dpop_proof", algs="EdDSA Ed25519""#,
                };
                headers.insert(
                    header::WWW_AUTHENTICATE,
                    HeaderValue::from_static(challenge),
                );
            }
            Self::Malformed
            | Self::Origin
            | Self::NotFound
            | Self::Timeout
            | Self::MediaType
            | Self::Overloaded
            | Self::NotPermitted
            | Self::UnknownUser
            | Self::DevicesChanged
            | Self::MailboxFull
            | Self::Quota
            | Self::TooLarge
            | Self::RateLimited
            | Self::Unavailable => {}
        }
        response
    }
}

impl From<RefusalCode> for Problem {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::NotPermitted => Self::NotPermitted,
            RefusalCode::UnknownUser => Self::UnknownUser,
            RefusalCode::DevicesChanged => Self::DevicesChanged,
            RefusalCode::MailboxFull => Self::MailboxFull,
            RefusalCode::Quota => Self::Quota,
            RefusalCode::TooLarge => Self::TooLarge,
            RefusalCode::RateLimited => Self::RateLimited,
            // All but the first are of requests that cannot be made by HTTP.
            RefusalCode::Unavailable
            | RefusalCode::InvalidCard
            | RefusalCode::TooMany
            | RefusalCode::TokenRefused
            | RefusalCode::OwnDevicesChanged
            | RefusalCode::Stale
            | RefusalCode::UnknownDevice
            | RefusalCode::UnknownBlob
            | RefusalCode::BlobConflict
            | RefusalCode::StorageFull
            | RefusalCode::Overtaken
            | RefusalCode::UnknownService
            | RefusalCode::ServiceFailed
            | RefusalCode::ServiceTimeout => Self::Unavailable,
        }
    }
}
