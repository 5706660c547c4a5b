//! What a relay checks of a device card and of one-time prekeys before it stores and hands them out (docs/protocol.md §6).
//!
//! The recipients of a card check all of it again: this keeps rubbish out of the directory and lets the publisher learn of a mistake at once. The
//! keys in it are only read as keys; the code that could agree on anything with them is not in the relay.
use sealwire_protocol::TokenError;
use sealwire_protocol::crypto::{InvalidKemKey, KemEncapsulationKey};
use sealwire_protocol::frame::OneTimePrekey;
use sealwire_protocol::jws::JwtType;
use sealwire_protocol::key::{BadSignature, PublicKey, PublicKeyError, Thumbprint};
use sealwire_protocol::limits::CLOCK_TOLERANCE_SECONDS;
use sealwire_protocol::name::User;
use sealwire_protocol::statement::UnverifiedStatement;
use sealwire_protocol::token::{TokenClaims, UnverifiedAttestation};

use crate::authority::Authority;

/// Exactly the claims of a card (docs/protocol.md §6.1).
const CLAIMS: [&str; 8] = ["iss", "iat", "id", "key", "jwe", "spk", "kem", "att"];

/// A card that is the link's own device's, by its signature and by the issuer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CheckedCard {
    /// `id`: the generation.
    pub(crate) generation: u32,
    /// `iat`, in seconds since 1970.
    pub(crate) issued: u64,
    /// `iat` of its attestation, in seconds since 1970.
    pub(crate) attested: u64,
    /// The device key.
    pub(crate) key: PublicKey,
}

/// Why a card is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CardError {
    /// Malformed, a claim missing or not listed, or a signature that does not fit.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Its attestation is not good.
    #[error("the card's attestation: {0}")]
    AttestationToken(TokenError),
    /// `key` is not a usable Ed25519 key.
    #[error("the device key of the card: {0}")]
    Key(#[from] PublicKeyError),
    /// `kem` does not pass the modulus check.
    #[error("the KEM prekey of the card: {0}")]
    Kem(#[from] InvalidKemKey),
    /// `iss` is not the thumbprint of `key`.
    #[error("the card's issuer is not the thumbprint of its key")]
    Issuer,
    /// It is another device's card.
    #[error("the card is another device's")]
    Device,
    /// The attestation names another device or user.
    #[error("the card's attestation is for another device or user")]
    Attestation,
    /// `iat` is in the future.
    #[error("the card is from the future")]
    Future,
    /// The attestation, its device or its user was revoked.
    #[error("the card's attestation, its device or its user was revoked")]
    Revoked,
}

/// Checks a card for the device and user of a link, at `now` in seconds since 1970. Whether it rolls back an earlier card is for the directory, which
/// knows that one, to say.
pub(crate) fn check_card(
    card: &[u8],
    device: Thumbprint,
    user: &User,
    authority: &Authority,
    now: u64,
) -> Result<CheckedCard, CardError> {
    let card = UnverifiedStatement::parse(card, JwtType::Card, &CLAIMS)?;
    let key = PublicKey::from_bytes(&card.claims().bytes("key")?)?;
    let issuer = card.claims().thumbprint("iss")?;
    if key.thumbprint() != issuer {
        return Err(CardError::Issuer);
    }
    if issuer != device {
        return Err(CardError::Device);
    }
    let card = card.verify(&key)?;
    let claims = card.claims();
    let issued = claims.integer("iat")?;
    if issued > now.saturating_add(CLOCK_TOLERANCE_SECONDS) {
        return Err(CardError::Future);
    }
    let generation = claims.u32("id")?;
    let _: [u8; 32] = claims.bytes("jwe")?;
    let _: [u8; 32] = claims.bytes("spk")?;
    KemEncapsulationKey::decode(&claims.bytes("kem")?)?;
    let attestation = authority
        .attestation(claims.text("att")?.as_bytes(), now)
        .map_err(CardError::AttestationToken)?;
    if attestation.device() != device || attestation.user() != user {
        return Err(CardError::Attestation);
    }
    Ok(CheckedCard {
        generation,
        issued,
        attested: attestation.issued(),
        key,
    })
}

/// What the attestation in a card says, which was verified when the card was taken.
pub(crate) fn attestation_of(card: &[u8]) -> Result<TokenClaims, CardError> {
    let card = UnverifiedStatement::parse(card, JwtType::Card, &CLAIMS)?;
    let attestation = card.claims().text("att")?;
    Ok(UnverifiedAttestation::parse(attestation.as_bytes())?
        .claims()
        .clone())
}

/// Whose card it is, and the key in it for standard JWE (docs/protocol.md §10), of a card that was verified when it was taken.
pub(crate) fn standard_key(card: &[u8]) -> Result<(Thumbprint, [u8; 32]), CardError> {
    let card = UnverifiedStatement::parse(card, JwtType::Card, &CLAIMS)?;
    let claims = card.claims();
    Ok((claims.thumbprint("iss")?, claims.bytes("jwe")?))
}

/// Why a one-time prekey is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PrekeyError {
    /// It is not signed by the device.
    #[error("the one-time prekey: {0}")]
    Signature(#[from] BadSignature),
    /// Its KEM key does not pass the modulus check.
    #[error("the one-time prekey's KEM key: {0}")]
    Kem(#[from] InvalidKemKey),
}

/// What stands before the fields in a one-time prekey's signature (docs/protocol.md §1.4, §6.2).
const PREKEY_LABEL: &[u8] = b"sealwire/1 one-time prekey";

/// Checks that a one-time prekey is signed by `device` and that its KEM key is one (docs/protocol.md §6.2).
pub(crate) fn check_prekey(
    prekey: &OneTimePrekey<'_>,
    device: &PublicKey,
) -> Result<(), PrekeyError> {
    let signed = [
        PREKEY_LABEL,
        device.thumbprint().as_bytes(),
        &prekey.id.to_be_bytes(),
        prekey.x25519,
        prekey.kem_key,
    ]
    .concat();
    device.verify(&signed, prekey.signature)?;
    KemEncapsulationKey::decode(prekey.kem_key)?;
    Ok(())
}

/// A one-time prekey as on the wire, for the store.
pub(crate) fn encode_prekey(prekey: &OneTimePrekey<'_>) -> Vec<u8> {
    [
        prekey.id.to_be_bytes().as_slice(),
        prekey.x25519,
        prekey.kem_key,
        prekey.signature,
    ]
    .concat()
}

/// A one-time prekey as it came from the store.
pub(crate) fn decode_prekey(stored: &[u8]) -> Option<OneTimePrekey<'_>> {
    let (id, rest) = stored.split_first_chunk()?;
    let (x25519, rest) = rest.split_first_chunk()?;
    let (kem_key, rest) = rest.split_first_chunk()?;
    let (signature, rest) = rest.split_first_chunk()?;
    rest.is_empty().then_some(OneTimePrekey {
        id: u32::from_be_bytes(*id),
        x25519,
        kem_key,
        signature,
    })
}
