//! This device and the other one: who they are, and the long-lived keys of this one.
//!
//! A key has one use (docs/protocol.md §6): the signing key signs cards, prekeys and proofs, the other one opens standard
//! JWE. The keys of sessions are in [`prekeys`](crate::prekeys) and [`peer`](crate::peer).

use alloc::{borrow::ToOwned, string::String, vec::Vec};
use core::fmt;

use rand_core::CryptoRng;
use sealwire_protocol::{
    codec::Writer,
    crypto::{X25519PublicKey, X25519Secret},
    jws::SignatureVerifier,
    key::{Seed, SigningKey, Thumbprint},
    name::{Issuer, User},
    token::{Attestation, AttestationPolicy, UnverifiedAttestation, credential_hash},
};
use zeroize::Zeroizing;

use crate::{
    error::{Error, Misbehaved, Misuse},
    state::{self, Kind},
};

/// Another device and whose it is, as the issuer attests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Who says so.
    pub issuer: Issuer,
    /// Whose device it is.
    pub user: User,
    /// Which device it is.
    pub device: Thumbprint,
}

/// The long-lived secrets of this device: its signing key and its key for standard JWE.
pub struct DeviceKeys {
    signing: SigningKey,
    standard_jwe: X25519Secret,
}

impl DeviceKeys {
    /// Makes the keys of a new device.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self {
            signing: SigningKey::generate(rng),
            standard_jwe: X25519Secret::generate(rng),
        }
    }

    /// The Ed25519 key that is the device's identity: for proofs in the link handshake.
    #[must_use]
    pub const fn signing(&self) -> &SigningKey {
        &self.signing
    }

    /// The identity of this device (docs/protocol.md §1.3).
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.signing.thumbprint()
    }

    /// The X25519 key to which others write standard JWE (docs/protocol.md §10): `x` of its JWK.
    #[must_use]
    pub fn standard_jwe_public(&self) -> X25519PublicKey {
        self.standard_jwe.public_key()
    }

    pub(crate) const fn standard_jwe(&self) -> &X25519Secret {
        &self.standard_jwe
    }

    /// The secret half, `d` of its JWK: whoever has these 32 bytes reads every standard JWE to this device. For opening
    /// one, and for nothing else; sessions do not depend on it.
    #[must_use]
    pub fn expose_standard_jwe_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(*self.standard_jwe.to_secret().expose())
    }

    /// The keys for the encrypted store, with a version number.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let mut out = state::begin(Kind::DeviceKeys, 64);
        Writer::new(&mut out)
            .bytes(self.signing.seed().expose())
            .bytes(self.standard_jwe.to_secret().expose());
        out
    }

    /// Restores what [`encode`](Self::encode) gave.
    ///
    /// # Errors
    /// [`Error::State`]: another version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        Ok(state::restore(Kind::DeviceKeys, bytes, |reader| {
            let seed = Seed::new(*reader.array()?);
            let standard_jwe = state::secret(reader)?;
            Ok(Self {
                signing: SigningKey::from_seed(&seed),
                standard_jwe: X25519Secret::from_secret(&standard_jwe),
            })
        })?)
    }
}

impl fmt::Debug for DeviceKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKeys({})", self.thumbprint())
    }
}

/// What this device says about itself: the attestation that others verify.
#[derive(Clone)]
pub struct OwnIdentity {
    issuer: Issuer,
    user: User,
    attestation: String,
    issued: u64,
    hash: [u8; 32],
}

impl OwnIdentity {
    /// Takes this device's own attestation or access token, 1 to 8,192 bytes. Its signature is for others to verify.
    ///
    /// # Errors
    /// [`Error::Attestation`] if it is malformed, [`Misuse::OwnAttestation`] if it names another device key.
    pub fn new(keys: &DeviceKeys, attestation: &str) -> Result<Self, Error> {
        let unverified =
            UnverifiedAttestation::parse(attestation.as_bytes()).map_err(Error::Attestation)?;
        let claims = unverified.claims();
        if claims.device != keys.thumbprint() {
            return Err(Misuse::OwnAttestation.into());
        }
        Ok(Self {
            issuer: claims.issuer.clone(),
            user: claims.user.clone(),
            attestation: attestation.to_owned(),
            issued: claims.issued,
            hash: credential_hash(attestation.as_bytes()),
        })
    }

    /// Who issued the attestation.
    #[must_use]
    pub const fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Whose device this is.
    #[must_use]
    pub const fn user(&self) -> &User {
        &self.user
    }

    /// The attestation, a compact JWS.
    #[must_use]
    pub fn attestation(&self) -> &str {
        &self.attestation
    }

    /// When it was issued, in seconds since 1970.
    #[must_use]
    pub const fn issued(&self) -> u64 {
        self.issued
    }

    /// SHA-256 of the attestation (docs/protocol.md §7.1).
    pub(crate) const fn attestation_hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

impl fmt::Debug for OwnIdentity {
    /// Without the attestation, which may be an access token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnIdentity")
            .field("issuer", &self.issuer)
            .field("user", &self.user)
            .field("issued", &self.issued)
            .finish_non_exhaustive()
    }
}

/// Verifies an attestation that has to be for `device` (docs/protocol.md §2.3, §6.1, §7.3).
pub(crate) fn verify_attestation(
    compact: &str,
    device: Thumbprint,
    keys: &(impl SignatureVerifier + ?Sized),
    policy: &AttestationPolicy<'_>,
) -> Result<Attestation, Error> {
    let attestation = UnverifiedAttestation::parse(compact.as_bytes())
        .and_then(|unverified| unverified.verify(keys, policy))
        .map_err(Error::Attestation)?;
    if attestation.device() != device {
        return Err(Misbehaved::AttestationOfAnotherDevice.into());
    }
    Ok(attestation)
}

/// Who an attestation is about.
pub(crate) fn attested(attestation: &Attestation) -> PeerIdentity {
    PeerIdentity {
        issuer: attestation.issuer().clone(),
        user: attestation.user().clone(),
        device: attestation.device(),
    }
}
