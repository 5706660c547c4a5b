//! Device cards: what a device publishes so that others can write to it while it is offline (docs/protocol.md §6.1).
//!
//! ```text
//! Prekeys::publish ── card ──> relay ──> UnverifiedCard ── verify(issuer's keys, what was seen before) ──> VerifiedCard
//! ```
//!
//! A card is a JWT signed by the device's own key, with the issuer's attestation inside it. Making one is in
//! [`prekeys`](crate::prekeys), which keeps its secrets. Storing what was seen is for the caller.

use alloc::{borrow::ToOwned, string::String};
use core::{fmt, str::FromStr};

use sealwire_protocol::{
    crypto::{KEM_KEY_BYTES, KemEncapsulationKey, X25519PublicKey, sha256},
    jws::{JwtType, SignatureVerifier},
    key::{PublicKey, SigningKey, Thumbprint},
    limits::CLOCK_TOLERANCE_SECONDS,
    statement::{Claims, Statement, UnverifiedStatement},
    token::AttestationPolicy,
};

use crate::{
    device::{PeerIdentity, attested, verify_attestation},
    error::{Error, Malformed, Misbehaved},
};

const CLAIMS: [&str; 8] = ["iss", "iat", "id", "key", "jwe", "spk", "kem", "att"];

/// The public half of a card that is being made.
pub(crate) struct CardFields<'a> {
    pub(crate) issued: u64,
    pub(crate) generation: u32,
    pub(crate) standard_jwe: &'a X25519PublicKey,
    pub(crate) signed_prekey: &'a X25519PublicKey,
    pub(crate) kem: &'a KemEncapsulationKey,
    pub(crate) attestation: &'a str,
}

/// Signs a card (docs/protocol.md §6.1).
pub(crate) fn sign(fields: &CardFields<'_>, key: &SigningKey) -> String {
    Statement::new(JwtType::Card)
        .bytes("iss", key.thumbprint().as_bytes())
        .integer("iat", fields.issued)
        .integer("id", fields.generation.into())
        .bytes("key", key.public().as_bytes())
        .bytes("jwe", fields.standard_jwe.as_bytes())
        .bytes("spk", fields.signed_prekey.as_bytes())
        .bytes("kem", &fields.kem.to_bytes())
        .text("att", fields.attestation)
        .sign(key)
}

/// The newest card of a device that was seen so far: what the relay may not roll back (docs/protocol.md §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeenCard {
    /// The card's `id`.
    pub generation: u32,
    /// The card's `iat`, in seconds since 1970.
    pub issued: u64,
}

/// A card that is well formed, and that anybody may have written.
pub struct UnverifiedCard {
    compact: String,
    device: Thumbprint,
}

impl UnverifiedCard {
    /// Reads a compact JWS of type `sealwire-card+jwt`: 1 to 16,384 bytes.
    ///
    /// # Errors
    /// [`Malformed::Card`].
    pub fn parse(compact: &[u8]) -> Result<Self, Error> {
        let device = statement(compact)?
            .claims()
            .thumbprint("iss")
            .map_err(|_| Malformed::Card)?;
        let compact = core::str::from_utf8(compact)
            .map_err(|_| Malformed::Card)?
            .to_owned();
        Ok(Self { compact, device })
    }

    /// Whose card it says it is: to look up what was seen of this device before [`verify`](Self::verify).
    #[must_use]
    pub const fn device(&self) -> Thumbprint {
        self.device
    }

    /// Checks everything that docs/protocol.md §6.1 asks of whoever uses a card: thumbprint, signature, attestation, that
    /// the card is not from the future, and not older than `seen`, the newest card seen of this device.
    ///
    /// # Errors
    /// [`Misbehaved`] says which check failed, [`Malformed`] that a claim is not what it has to be,
    /// [`Error::Attestation`] that the issuer's word is missing. Such a card is not used for anything.
    pub fn verify(
        self,
        keys: &(impl SignatureVerifier + ?Sized),
        policy: &AttestationPolicy<'_>,
        seen: Option<SeenCard>,
    ) -> Result<VerifiedCard, Error> {
        let Self { compact, device } = self;
        let unverified = statement(compact.as_bytes())?;
        let key = unverified
            .claims()
            .bytes("key")
            .map_err(|_| Malformed::Card)?;
        let key = PublicKey::from_bytes(&key).map_err(|_| Malformed::Key)?;
        // §6.1: the thumbprint of `key` is `iss`.
        if key.thumbprint() != device {
            return Err(Misbehaved::CardThumbprint.into());
        }
        // §6.1: the signature.
        let verified = unverified
            .verify(&key)
            .map_err(|_| Misbehaved::CardSignature)?;
        let card = read(verified.claims(), &compact, device, keys, policy)?;
        // §6.1: `iat` is not in the future.
        if card.issued > policy.now.saturating_add(CLOCK_TOLERANCE_SECONDS) {
            return Err(Misbehaved::CardInFuture.into());
        }
        // §6.1: neither `id` nor `iat` is smaller than before.
        if seen.is_some_and(|seen| card.generation < seen.generation || card.issued < seen.issued) {
            return Err(Misbehaved::CardRollback.into());
        }
        Ok(card)
    }
}

/// A card that was verified: only [`UnverifiedCard::verify`] makes one. A session can be started with it.
#[derive(Debug)]
pub struct VerifiedCard {
    identity: PeerIdentity,
    generation: u32,
    issued: u64,
    standard_jwe: X25519PublicKey,
    pub(crate) signed_prekey: X25519PublicKey,
    pub(crate) kem: KemEncapsulationKey,
    pub(crate) key: PublicKey,
    pub(crate) hash: [u8; 32],
    pub(crate) attestation_hash: [u8; 32],
}

impl VerifiedCard {
    /// Whose card it is.
    #[must_use]
    pub const fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// What to remember of the card, to notice a rollback.
    #[must_use]
    pub const fn seen(&self) -> SeenCard {
        SeenCard {
            generation: self.generation,
            issued: self.issued,
        }
    }

    /// The X25519 key for standard JWE to this device (docs/protocol.md §10).
    #[must_use]
    pub const fn standard_jwe(&self) -> &X25519PublicKey {
        &self.standard_jwe
    }

    /// The device's signing key.
    #[must_use]
    pub const fn device_key(&self) -> &PublicKey {
        &self.key
    }
}

fn statement(compact: &[u8]) -> Result<UnverifiedStatement<'_>, Error> {
    UnverifiedStatement::parse(compact, JwtType::Card, &CLAIMS).map_err(|_| Malformed::Card.into())
}

/// Reads the claims of a card whose signature was checked.
fn read(
    claims: Claims<'_>,
    compact: &str,
    device: Thumbprint,
    keys: &(impl SignatureVerifier + ?Sized),
    policy: &AttestationPolicy<'_>,
) -> Result<VerifiedCard, Error> {
    let malformed = |_| Error::from(Malformed::Card);
    let key = PublicKey::from_bytes(&claims.bytes("key").map_err(malformed)?)
        .map_err(|_| Malformed::Key)?;
    let kem = claims.bytes::<KEM_KEY_BYTES>("kem").map_err(malformed)?;
    // docs/protocol.md §1.3: the modulus check.
    let kem = KemEncapsulationKey::decode(&kem).map_err(|_| Malformed::Key)?;
    let attestation =
        verify_attestation(claims.text("att").map_err(malformed)?, device, keys, policy)?;
    Ok(VerifiedCard {
        identity: attested(&attestation),
        generation: claims.u32("id").map_err(malformed)?,
        issued: claims.integer("iat").map_err(malformed)?,
        standard_jwe: X25519PublicKey::from_bytes(claims.bytes("jwe").map_err(malformed)?),
        signed_prekey: X25519PublicKey::from_bytes(claims.bytes("spk").map_err(malformed)?),
        kem,
        key,
        hash: sha256(&[compact.as_bytes()]),
        attestation_hash: *attestation.hash(),
    })
}

impl fmt::Debug for UnverifiedCard {
    /// Without the card, which holds an attestation.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnverifiedCard({})", self.device)
    }
}

impl FromStr for UnverifiedCard {
    type Err = Error;

    fn from_str(compact: &str) -> Result<Self, Error> {
        Self::parse(compact.as_bytes())
    }
}
