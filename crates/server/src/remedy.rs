//! What helps against an error, in words for whoever runs the relay: they go to the log, never to the other side.
//!
//! What a token has to say is the operator's own configuration, so it is named here.
use std::borrow::Cow;

use sealwire_protocol::error::{Incompatibility, LinkError, NotAuthorised};
use sealwire_protocol::jws::SignatureError;
use sealwire_protocol::name::Issuer;
use sealwire_protocol::{ClaimDefect, TokenError};

use crate::authority::VerifyError;
use crate::blobs::{BlobError, Full};
use crate::card_check::CardError;
use crate::closing::End;
use crate::directory::PublishError;
use crate::exchange::{ExchangeError, MappingError};
use crate::issuer::IssuerError;
use crate::requests::RefreshError;
use crate::shared::Shared;
use crate::socket::SocketError;

/// What helps.
pub(crate) type Remedy = Cow<'static, str>;

pub(crate) const SOFTWARE: &str =
    "compare the versions of both sides; if it passes, something in between has changed a byte";
pub(crate) const DISK: &str = "check the disk, and restart the relay when it is good";
const KEYS: &str = "nothing, if it passes; otherwise look at the issuer's key set (jwks in the configuration): the log says if it cannot be had";
const MEANT: &str = "meant so; if not, look at revocations.jsonl in the data directory, and have the device join again";
const NEW_INVITATION: &str = "make a new invitation: sealwire invite";
const OWN_KEY: &str = "have each user's devices make device keys of their own";
const COPY: &str = "the device's store may be a copy or an old one: run one client on each, and join again in another home";
const NOTHING: &str = "nothing: the device comes back by itself";

/// Against an access token or an attestation that is refused where one of `issuer` for `audience` is expected.
pub(crate) fn token(error: &TokenError, issuer: &Issuer, audience: &str) -> Remedy {
    match error {
        TokenError::Jws(_) => "have the issuer give a compact JWS with \"typ\": \"at+jwt\"; sealwire token inspect shows what a token is".into(),
        TokenError::Signature(error) => signature(*error).into(),
        TokenError::Claim { claim, defect } => self::claim(claim, *defect, issuer, audience),
        TokenError::Name { claim, .. } => format!("have the issuer put a name of 1 to 255 bytes without control characters into {claim:?}").into(),
        TokenError::DeviceKey(_) => "have the issuer put the device's Ed25519 public key into \"cnf\" as \"jwk\", or its thumbprint as \"jkt\"".into(),
        TokenError::IdToken => "have the application ask for an access token, or set id_tokens of the [[exchange]] section".into(),
        TokenError::AnotherPurpose => "have the application present the access token that came with it".into(),
        TokenError::BoundElsewhere => "have the application get a token for this device's key, or one without \"cnf\"".into(),
        TokenError::UnlistedClaim | _ => SOFTWARE.into(),
    }
}

fn signature(error: SignatureError) -> &'static str {
    match error {
        SignatureError::AlgorithmNotAllowed => {
            "compare the token's \"alg\" with algorithms in the configuration"
        }
        SignatureError::UnknownKey => {
            "compare the token's \"kid\" with the issuer's key set (jwks in the configuration)"
        }
        SignatureError::AmbiguousKey => {
            "have the issuer put a \"kid\" into its keys and its tokens"
        }
        SignatureError::Invalid | _ => {
            "whoever signed it has none of the issuer's keys: compare jwks in the configuration with the issuer's"
        }
    }
}

fn claim(claim: &str, defect: ClaimDefect, issuer: &Issuer, audience: &str) -> Remedy {
    match (defect, claim) {
        (ClaimDefect::Missing, "tenant") => {
            "have the issuer put \"tenant\" into its tokens, or set require_tenant to false in the configuration".into()
        }
        (ClaimDefect::Missing, _) => format!("have the issuer put {claim:?} into its tokens").into(),
        (ClaimDefect::Mismatch, "iss") => {
            format!("{:?} is expected: correct the issuer, or issuer in the configuration", issuer.as_str()).into()
        }
        (ClaimDefect::Mismatch, "aud") => {
            format!("{audience:?} is expected: have the issuer put that into \"aud\", or correct audience in the configuration").into()
        }
        (ClaimDefect::Mismatch, "tenant") => {
            "have the issuer name the user in \"sub\" beginning with \"tenant\" and a slash".into()
        }
        (ClaimDefect::Expired, _) => {
            "have the device get a new token in time, and compare the clocks of issuer and relay".into()
        }
        (ClaimDefect::InFuture, _) => "compare the clocks of issuer and relay".into(),
        (ClaimDefect::TooOld, _) => "have the device get a newer token from the issuer".into(),
        (ClaimDefect::WrongType | ClaimDefect::Invalid | ClaimDefect::Mismatch, _) | (_, _) => format!(
            "have the issuer write {claim:?} as docs/protocol.md §2.2 and §5.5 say; sealwire token inspect shows what a token is"
        )
        .into(),
    }
}

/// Against an access token that lets nobody in.
pub(crate) fn verification(error: &VerifyError, shared: &Shared) -> Remedy {
    match error {
        VerifyError::Token(error) => shared.authority.remedy(error),
        VerifyError::KeyNotKnownYet => KEYS.into(),
    }
}

/// Against a card that is not stored.
pub(crate) fn card(error: &CardError, shared: &Shared) -> Remedy {
    match error {
        CardError::AttestationToken(error) => shared.authority.remedy(error),
        CardError::Token(_)
        | CardError::Key(_)
        | CardError::Kem(_)
        | CardError::Issuer
        | CardError::Device => SOFTWARE.into(),
        CardError::Attestation => {
            "have the application make the card with a token of this user for this device".into()
        }
        CardError::Future => "compare the clocks of device and relay".into(),
        CardError::Revoked => MEANT.into(),
    }
}

/// Against a card or prekeys that are not stored.
pub(crate) fn publication(error: PublishError) -> &'static str {
    match error {
        PublishError::NotNewer | PublishError::PrekeyIdUsed => COPY,
        PublishError::AnotherUser => OWN_KEY,
        PublishError::Form => SOFTWARE,
        PublishError::Removed => "meant so; if not, have the device join again with a new key",
        PublishError::TooManyDevices => {
            "have the user remove a device that is not used any more: sealwire devices remove"
        }
        PublishError::TooManyPrekeys => {
            "have the device's application publish what is missing, and no more"
        }
        PublishError::Storage(_) => DISK,
    }
}

/// Against a refused Upload, Download or Discard.
pub(crate) fn blob(error: &BlobError) -> &'static str {
    match error {
        BlobError::Unknown => {
            "have the file sent again; limits.blob_retention is how long files are held, limits.blob_upload_time how long they may take"
        }
        BlobError::Conflict => "nothing: the client asks how much of it there is",
        BlobError::TooLarge => {
            "have the application send less, or raise limits.blob_bytes_per_user and limits.blob_bytes in the configuration"
        }
        BlobError::Full(Full::User) => {
            "wait until files of this user have expired, or raise limits.blob_bytes_per_user and limits.blobs_per_user in the configuration"
        }
        BlobError::Full(Full::Uploads) => {
            "wait until uploads have ended, or raise limits.blob_uploads_per_user in the configuration"
        }
        BlobError::Full(Full::Relay) => {
            "wait until files have expired, or raise limits.blob_bytes and limits.blobs in the configuration"
        }
        BlobError::Full(Full::Disk) => {
            "make room on the disk, or lower limits.blob_reserved_bytes in the configuration"
        }
        BlobError::Disk(_) | BlobError::Broken => DISK,
        BlobError::Stopping => NOTHING,
    }
}

/// Against a refused refresh.
pub(crate) fn refresh(error: &RefreshError, shared: &Shared) -> Remedy {
    match error {
        RefreshError::NotAuthorised(error) => not_authorised(error).into(),
        RefreshError::Token(error) => shared.authority.remedy(error),
        RefreshError::Issuer(error) => issuer(*error).into(),
        RefreshError::Exchange(error) => exchange(error, shared),
        RefreshError::NoIssuer => {
            "have the application get its tokens from the issuer of the configuration".into()
        }
        RefreshError::Revoked => MEANT.into(),
        RefreshError::KeyNotKnownYet => KEYS.into(),
    }
}

/// Against a token that the built-in issuer does not give.
fn issuer(error: IssuerError) -> &'static str {
    match error {
        IssuerError::UnknownInvite | IssuerError::InviteExpired | IssuerError::InviteUsed => {
            NEW_INVITATION
        }
        IssuerError::AnotherUser => OWN_KEY,
        IssuerError::Removed => "meant so; if not, have the device join again with a new key",
        IssuerError::NotEnrolled => {
            "has the relay another data directory than before? make a new invitation: sealwire invite"
        }
        IssuerError::Reserved => {
            "have the user sign in with that provider, or set shared_users of its [[exchange]] section"
        }
        IssuerError::NoTenant => {
            "make an invitation for TENANT/NAME, or set require_tenant to false in the configuration"
        }
        IssuerError::TooLong => "have the provider say less in \"authorization_details\"",
        IssuerError::TooManyInvites => "wait until some invitations are redeemed or expire",
        IssuerError::Mint => "check the relay's clock",
        IssuerError::Randomness => "look at the operating system",
        IssuerError::Storage(_) => DISK,
    }
}

/// Against a provider's token that is not exchanged.
fn exchange(error: &ExchangeError, shared: &Shared) -> Remedy {
    match error {
        ExchangeError::NoExchange => {
            "name the provider in an [[exchange]] section of the configuration, or have the application present a token of the relay's issuer".into()
        }
        ExchangeError::Malformed(_) => {
            "have the application present the provider's access token, which has to be a JWT".into()
        }
        ExchangeError::UnknownIssuer { .. } => {
            "compare the token's \"iss\" with issuer of the [[exchange]] sections of the configuration".into()
        }
        ExchangeError::Token { issuer, error } => {
            token(error, issuer, shared.exchange.audience_of(issuer))
        }
        ExchangeError::KeyNotKnownYet { .. } => KEYS.into(),
        ExchangeError::Mapping { error, .. } => mapping(error).into(),
        ExchangeError::Issuer { error, .. } => self::issuer(*error).into(),
    }
}

fn mapping(error: &MappingError) -> &'static str {
    match error {
        MappingError::Claim { .. } => {
            "have the provider put the claim into its tokens, or change user, scope_claim or tenant_claim of its [[exchange]] section"
        }
        MappingError::Separator { .. } | MappingError::User(_) | MappingError::Tenant(_) => {
            "make names of other claims: user and tenant_claim of the [[exchange]] section"
        }
        MappingError::UnverifiedEmail { .. } => {
            "have the provider verify the address, or make names of another claim: user of the [[exchange]] section"
        }
        MappingError::OutsideTenant => {
            "let user of the [[exchange]] section begin with the claim that tenant_claim names, and a slash"
        }
        MappingError::AnotherIssuers => {
            "give each provider a prefix that no other has: prefix of the [[exchange]] sections"
        }
        MappingError::NoScope { .. } => {
            "give the user a role that scopes of the [[exchange]] section name, if they are to be let in"
        }
    }
}

fn not_authorised(error: &NotAuthorised) -> &'static str {
    match error {
        NotAuthorised::DeviceProof(_) => {
            "compare the clocks of device and relay; nothing in between may end a link, or repeat what goes over it"
        }
        NotAuthorised::CredentialMissing => "have the application present a token or an invitation",
        NotAuthorised::TokenOfAnotherDevice { .. } => {
            "have the issuer put the key of the device that asks into \"cnf\": sealwire whoami shows it"
        }
        NotAuthorised::AnotherIssuer | NotAuthorised::AnotherUser => {
            "have the application give a token with the same \"iss\" and \"sub\", or connect anew"
        }
        NotAuthorised::UnexpectedRelay { .. }
        | NotAuthorised::RelayProof(_)
        | NotAuthorised::CredentialMismatch
        | NotAuthorised::CredentialForm
        | NotAuthorised::AnotherToken => SOFTWARE,
    }
}

fn link(error: &LinkError) -> &'static str {
    match error {
        LinkError::NotAuthorised(error) => not_authorised(error),
        LinkError::Incompatible(Incompatibility::Version { .. }) => "update the older side",
        LinkError::Exhausted(_) => NOTHING,
        LinkError::Malformed(_) | LinkError::Misbehaved(_) | LinkError::Misuse(_) | _ => SOFTWARE,
    }
}

/// Against the end of a link.
pub(crate) fn end(end: &End, shared: &Shared) -> Remedy {
    match end {
        End::Token(error) => verification(error, shared),
        End::Exchange(error) => exchange(error, shared),
        End::Issuer(error) => issuer(*error).into(),
        End::Link(error) => link(error).into(),
        End::Socket(SocketError::Gone) | End::Stopping | End::Withdrawn => NOTHING.into(),
        End::Socket(
            SocketError::Text
            | SocketError::Framing(_)
            | SocketError::TooLarge { .. }
            | SocketError::UnauthenticatedBytes,
        )
        | End::TooManyRequests
        | End::AckBeyondMailbox
        | End::TooManyPings => SOFTWARE.into(),
        End::HandshakeDeadline => {
            "look at the network, and whether a proxy holds messages back; limits.handshake_deadline in the configuration is the time for it".into()
        }
        End::NoUpgradeToken => {
            "does a proxy drop Authorization from the upgrade request? have the application present its token".into()
        }
        End::NoIssuer => {
            "the issuer of the configuration lets devices in: have the application present its token".into()
        }
        End::AnotherUser => OWN_KEY.into(),
        End::Expired => {
            "have the application get a new token in time; let tokens live longer than outages of the issuer".into()
        }
        End::Revoked => MEANT.into(),
        End::Replaced => "run one client for each device: a copied store is such a second one".into(),
        End::Silent => {
            "look at the network: a proxy may cut silent connections; keep limits.keep_alive in the configuration under its limit".into()
        }
        End::Socket(SocketError::Full) | End::TooSlow => {
            "look at the device's network, or raise limits.write_timeout in the configuration".into()
        }
        End::TooManyLinks => {
            "have the user disconnect a device, or raise limits.links_per_user in the configuration".into()
        }
        End::TooManyLinksOfTenant => {
            "have the tenant disconnect devices, or raise limits.links_per_tenant in the configuration".into()
        }
        End::TooOften => {
            "look at why the device connects again and again, or raise limits.links_per_minute in the configuration".into()
        }
        End::TooOftenOfUser => {
            "look at why the user's devices connect again and again, or raise limits.links_per_minute_per_user in the configuration".into()
        }
        End::TooOftenOfTenant => {
            "look at why the tenant's devices connect again and again, or raise limits.links_per_minute_per_tenant in the configuration".into()
        }
        End::TooManyMeters => "nothing, if it passes; otherwise more users come and go than one relay is for".into(),
        End::Storage(_) => DISK.into(),
    }
}
