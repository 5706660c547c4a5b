//! Why a request below `/v1` is refused. Its device is told a [`Problem`], the log of whoever runs the relay which field, claim or limit it was, and what helps.
use sealwire_protocol::close::{CloseCode, RefusalCode};
use sealwire_protocol::dpop::DpopError;
use sealwire_protocol::json::JsonError;
use sealwire_protocol::jwe::JweFault;
use sealwire_protocol::key::Thumbprint;

use super::Refusal;
use super::problem::{Challenge, Problem};
use crate::authority::VerifyError;
use crate::bounds::{HTTP_BODY_TIMEOUT, HTTP_STORE_TIMEOUT, MAX_HTTP_BODY_BYTES};
use crate::closing::End;
use crate::refusal::{self, Cause};
use crate::remedy::{self, Remedy};
use crate::shared::Shared;

#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("nothing is at this path")]
    Path,
    /// As of an upgrade.
    #[error("{}", .0.why())]
    Origin(Refusal),
    #[error("the method is not {0}")]
    Method(&'static str),
    #[error("there is a query")]
    Query,
    #[error("the relay is being drained")]
    Draining,
    #[error("the header field {0} is there twice")]
    Twice(&'static str),
    #[error("the header field {0} is not ASCII")]
    NotAscii(&'static str),
    #[error("the header field host is missing")]
    NoHost,
    #[error("the header field authorization is missing, or of another scheme than DPoP")]
    NoToken,
    #[error("the header field dpop is missing")]
    NoProof,
    #[error("the proof in dpop: {0}")]
    Proof(DpopError),
    #[error("the proof in dpop was used before: its claim \"jti\"")]
    ProofUsed,
    #[error("as many proofs were used as are remembered")]
    ProofsFull,
    #[error(transparent)]
    Token(VerifyError),
    #[error("the claim \"cnf\" of the token is of another key than the proof in dpop")]
    AnotherKey,
    /// What a link would have ended with.
    #[error(transparent)]
    Ended(#[from] End),
    /// What a request on a link would have been refused for.
    #[error(transparent)]
    Request(#[from] Cause),
    #[error("more requests than messages_per_minute and card_fetches_per_minute allow together")]
    Rate,
    #[error("the user in the path is not percent-encoded UTF-8")]
    User,
    #[error("the header field content-type is not application/json, or there is content-encoding")]
    MediaType,
    #[error("the body is over {MAX_HTTP_BODY_BYTES} bytes")]
    BodyTooLarge,
    #[error("as many bodies are under way as the relay has memory for")]
    BodiesFull,
    #[error("the body did not come in {HTTP_BODY_TIMEOUT:?}")]
    BodyTimeout,
    #[error("the body did not come: {0}")]
    BodyBroken(Box<dyn std::error::Error + Send + Sync>),
    #[error("the body: {0}")]
    Json(JsonError),
    #[error("{0} is missing, of another type, or not what it has to be")]
    Member(&'static str),
    #[error("beside {0} there are members that are not described")]
    Unlisted(&'static str),
    #[error("messages[].jwe is larger than any message may be")]
    JweTooLarge,
    #[error("messages[].jwe: {0}")]
    Jwe(JweFault),
    #[error("messages[].jwe: its header member \"cty\" is not JWT")]
    Cty,
    #[error("the stores did not answer in {HTTP_STORE_TIMEOUT:?}")]
    StoreTimeout,
}

/// What to do about a request that is not as it is described.
const DESCRIBED: &str =
    "have the application ask as docs/openapi.json and docs/http.md describe it";

impl Refused {
    /// What its device is told.
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Path => Problem::NotFound,
            Self::Origin(_) => Problem::Origin,
            Self::Method(allowed) => Problem::Method(allowed),
            Self::Query
            | Self::Twice(_)
            | Self::NotAscii(_)
            | Self::NoHost
            | Self::User
            | Self::BodyBroken(_)
            | Self::Json(_)
            | Self::Member(_)
            | Self::Unlisted(_)
            | Self::Jwe(_)
            | Self::Cty => Problem::Malformed,
            Self::Draining | Self::StoreTimeout => Problem::Unavailable,
            Self::NoToken | Self::NoProof => Problem::NotAuthorised(Challenge::Missing),
            Self::Proof(_) | Self::ProofUsed => Problem::NotAuthorised(Challenge::Proof),
            Self::ProofsFull | Self::BodiesFull | Self::Token(VerifyError::KeyNotKnownYet) => {
                Problem::Overloaded
            }
            Self::Token(VerifyError::Token(_)) | Self::AnotherKey => {
                Problem::NotAuthorised(Challenge::Token)
            }
            Self::Ended(end) if end.close_code() == Some(CloseCode::Internal) => {
                RefusalCode::Unavailable.into()
            }
            Self::Ended(_) => Problem::NotAuthorised(Challenge::Token),
            Self::Request(cause) => cause.code().into(),
            Self::Rate => Problem::RateLimited,
            Self::MediaType => Problem::MediaType,
            Self::BodyTooLarge | Self::JweTooLarge => Problem::TooLarge,
            Self::BodyTimeout => Problem::Timeout,
        }
    }

    fn remedy(&self, shared: &Shared) -> Remedy {
        match self {
            Self::Origin(refusal) => refusal.remedy(shared),
            Self::Path
            | Self::Method(_)
            | Self::Query
            | Self::Twice(_)
            | Self::NotAscii(_)
            | Self::NoHost
            | Self::NoToken
            | Self::NoProof
            | Self::User
            | Self::MediaType
            | Self::Json(_)
            | Self::Member(_)
            | Self::Unlisted(_)
            | Self::Jwe(_)
            | Self::Cty => DESCRIBED.into(),
            Self::Draining => "nothing: another relay takes its place, or this one starts again".into(),
            Self::Proof(_) => {
                "have the application make the proof for this method, address and token; compare the clocks, and \"htu\" with listen.public_address in the configuration".into()
            }
            Self::ProofUsed => "have the application make a new proof, with its own \"jti\", for each request".into(),
            Self::ProofsFull | Self::BodiesFull => {
                "have applications ask less often: nobody can raise this".into()
            }
            Self::Token(error) => remedy::verification(error, shared),
            Self::AnotherKey => {
                "have the application sign the proof with the key that its token's \"cnf\" names".into()
            }
            Self::Ended(end) => remedy::end(end, shared),
            Self::Request(cause) => cause.remedy(shared),
            Self::Rate => {
                "have the application ask less often, or raise limits.messages_per_minute or limits.card_fetches_per_minute in the configuration; \"messages_per_minute\" of its token may say less".into()
            }
            Self::BodyTooLarge | Self::JweTooLarge => "have the application send less".into(),
            Self::BodyTimeout | Self::BodyBroken(_) => {
                "look at the network between the application and the relay".into()
            }
            Self::StoreTimeout => "look at the disk and at how busy the relay is".into(),
        }
    }

    /// Tells the log, of this device where it is known.
    pub(super) fn log(&self, device: Option<&Thumbprint>, shared: &Shared) {
        tracing::debug!(
            device = device.map(refusal::short),
            code = self.problem().code(),
            why = %self,
            remedy = &*self.remedy(shared),
            "request by HTTP refused"
        );
    }
}
