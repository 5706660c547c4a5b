//! Messages in standard JWE, which anything that speaks JOSE can write to a device (docs/protocol.md §10).
//!
//! ```text
//! JWE ── UnopenedJwe ── open ──> JWT ── sender, signature, recipient, id, time ──> StandardMessage
//! ```
//!
//! There is no session and no forward secrecy: the card's `jwe` key opens every one of them for as long as it is kept. Who wrote one is whoever
//! signed what is inside; everything that the relay says about it is compared with that. Whether it was shown before is left to the caller.

mod jwe;

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::fmt;

use rand_core::CryptoRng;
use sealwire_protocol::{
    base64url,
    jwe::UnopenedJwe,
    jws::{JwtType, SignatureVerifier},
    key::{PublicKey, Thumbprint},
    limits::{CLOCK_TOLERANCE_SECONDS, MAX_BODY_BYTES, MAX_SEALED_MESSAGE_BYTES},
    statement::{Claims, Statement, UnverifiedStatement},
    token::AttestationPolicy,
};
use zeroize::Zeroizing;

use crate::{
    agreement::MAX_OWN_ATTESTATION_AGE_SECONDS,
    card::VerifiedCard,
    content::{Body, is_media_type},
    device::{DeviceKeys, OwnIdentity, PeerIdentity, attested, verify_attestation},
    error::{Error, Malformed, Misbehaved, Misuse},
    message::SealError,
};

const CLAIMS: [&str; 9] = [
    "iss", "aud", "user", "iat", "jti", "key", "att", "type", "body",
];

/// How long ago a message may have been written, in seconds: 30 days (docs/protocol.md §10.1).
const MAX_AGE_SECONDS: u64 = 30 * 24 * 60 * 60;

/// Whether a delivered message is a JWE and not a sealed message (docs/protocol.md §10.1): a header begins with a brace, in base64url `e`,
/// and a sealed message with its version.
#[must_use]
pub fn is_standard(message: &[u8]) -> bool {
    message.first() == Some(&b'e')
}

/// What the relay says about a message that it delivers: all of it has to be in the message too.
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The device that sent it.
    pub device: Thumbprint,
    /// Whose device that is.
    pub user: &'a str,
    /// The id of the message.
    pub id: [u8; 16],
}

/// A message whose sender was verified: only [`open`] makes one.
pub struct StandardMessage {
    sender: PeerIdentity,
    time: u64,
    media_type: String,
    body: Zeroizing<Vec<u8>>,
}

impl StandardMessage {
    /// Whose device signed it.
    #[must_use]
    pub const fn sender(&self) -> &PeerIdentity {
        &self.sender
    }

    /// When it was written, by the sender's clock, in seconds since 1970.
    #[must_use]
    pub const fn time(&self) -> u64 {
        self.time
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> Body<'_> {
        Body {
            media_type: &self.media_type,
            bytes: &self.body,
        }
    }
}

impl fmt::Debug for StandardMessage {
    /// Without what it says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StandardMessage")
            .field("sender", &self.sender)
            .field("time", &self.time)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Opens a message and checks everything that docs/protocol.md §10.1 asks of its recipient; `issuer_keys` and `policy` verify the sender's
/// attestation, and the time is that of `policy`.
///
/// # Errors
/// [`Malformed`], [`Error::Decrypt`], [`Misbehaved`] or [`Error::Attestation`]. Asking for it again does not help.
pub fn open(
    keys: &DeviceKeys,
    own: &OwnIdentity,
    delivered: Delivered<'_>,
    message: &[u8],
    issuer_keys: &(impl SignatureVerifier + ?Sized),
    policy: &AttestationPolicy<'_>,
) -> Result<StandardMessage, Error> {
    let jwe = UnopenedJwe::parse(message).map_err(Malformed::StandardJwe)?;
    if !jwe
        .header
        .cty
        .as_ref()
        .is_some_and(|cty| cty.eq_ignore_ascii_case("JWT"))
    {
        return Err(Malformed::StandardMessage.into());
    }
    let jwt = jwe::open(keys.standard_jwe(), jwe)?;
    verify(&jwt, keys, own, delivered, issuer_keys, policy)
}

fn verify(
    jwt: &[u8],
    keys: &DeviceKeys,
    own: &OwnIdentity,
    delivered: Delivered<'_>,
    issuer_keys: &(impl SignatureVerifier + ?Sized),
    policy: &AttestationPolicy<'_>,
) -> Result<StandardMessage, Error> {
    let malformed = |_| Malformed::StandardMessage;
    let unverified =
        UnverifiedStatement::parse(jwt, JwtType::Message, &CLAIMS).map_err(malformed)?;
    let key = unverified.claims().bytes("key").map_err(malformed)?;
    let key = PublicKey::from_bytes(&key).map_err(|_| Malformed::Key)?;
    // The relay's word, which the sender has to have given too: before any signature, as it costs nothing.
    if key.thumbprint() != delivered.device {
        return Err(Misbehaved::AnotherDevice.into());
    }
    let verified = unverified
        .verify(&key)
        .map_err(|_| Misbehaved::MessageSignature)?;
    let claims = verified.claims();
    let parties = (
        claims.thumbprint("iss").map_err(malformed)?,
        claims.thumbprint("aud").map_err(malformed)?,
        claims.text("user").map_err(malformed)?,
    );
    if parties != (delivered.device, keys.thumbprint(), own.user().as_str()) {
        return Err(Misbehaved::MessageParties.into());
    }
    // What was written under one id is not delivered under another: the id is what tells a repetition.
    if claims.bytes("jti").map_err(malformed)? != delivered.id {
        return Err(Misbehaved::MessageId.into());
    }
    let time = claims.integer("iat").map_err(malformed)?;
    if policy.now.saturating_sub(time) > MAX_AGE_SECONDS {
        return Err(Misbehaved::MessageTooOld.into());
    }
    if time.saturating_sub(policy.now) > CLOCK_TOLERANCE_SECONDS {
        return Err(Misbehaved::MessageInFuture.into());
    }
    let attestation = claims.text("att").map_err(malformed)?;
    let attestation = verify_attestation(attestation, delivered.device, issuer_keys, policy)?;
    let sender = attested(&attestation);
    if sender.user.as_str() != delivered.user {
        return Err(Misbehaved::AnotherIdentity.into());
    }
    read(claims, sender, time)
}

fn read(claims: Claims<'_>, sender: PeerIdentity, time: u64) -> Result<StandardMessage, Error> {
    let malformed = |_| Malformed::StandardMessage;
    let media_type = claims.text("type").map_err(malformed)?;
    let body = claims.text("body").map_err(malformed)?;
    let body = base64url::decode(body.as_bytes()).map_err(|_| Malformed::StandardMessage)?;
    let body = Zeroizing::new(body);
    // docs/protocol.md §9.3: the same media types and bounds as of a sealed message.
    if !is_media_type(media_type) || media_type.len() > 255 || body.len() > MAX_BODY_BYTES {
        return Err(Malformed::StandardMessage.into());
    }
    Ok(StandardMessage {
        sender,
        time,
        media_type: media_type.to_owned(),
        body,
    })
}

/// Writes a message for the device of `card`, as a backend does that has no sessions: for `POST /v1/messages` (docs/protocol.md §18), under `id`. `now`
/// is in seconds since 1970.
///
/// # Errors
/// [`Misuse::AttestationTooOld`] as for a session; [`Misuse::Seal`] if it is too long for a relay; [`Malformed::Key`] if the card's `jwe` key
/// cannot be used.
pub fn seal(
    keys: &DeviceKeys,
    own: &OwnIdentity,
    card: &VerifiedCard,
    id: [u8; 16],
    body: &Body<'_>,
    rng: &mut (impl CryptoRng + ?Sized),
    now: u64,
) -> Result<String, Error> {
    if now.saturating_sub(own.issued()) > MAX_OWN_ATTESTATION_AGE_SECONDS {
        return Err(Misuse::AttestationTooOld.into());
    }
    let recipient = card.identity();
    let jwt = Statement::new(JwtType::Message)
        .bytes("iss", keys.thumbprint().as_bytes())
        .bytes("aud", recipient.device.as_bytes())
        .text("user", recipient.user.as_str())
        .integer("iat", now)
        .bytes("jti", &id)
        .bytes("key", keys.signing().public().as_bytes())
        .text("att", own.attestation())
        .text("type", body.media_type)
        .bytes("body", body.bytes)
        .sign(keys.signing());
    let sealed = jwe::seal(card.standard_jwe(), recipient.device, jwt, rng)?;
    if sealed.len() > MAX_SEALED_MESSAGE_BYTES {
        return Err(Misuse::Seal(SealError::ContentTooLong).into());
    }
    Ok(sealed)
}

#[cfg(test)]
mod tests;
