//! The device's side of the handshake.

use alloc::vec::Vec;

use rand_core::CryptoRng;

use super::message::{Accept, AcceptSecret, FinishSecret, Hello, Kind, encode_finish};
use super::{device_core, open, seal};
use crate::crypto::{KemDecapsulationKey, Prk, X25519Secret, sha256};
use crate::error::{LinkError, Malformed, Misbehaviour, Misuse, NotAuthorised};
use crate::key::{PublicKey, SigningKey, Thumbprint};
use crate::limits::{MAX_INVITE_BYTES, MAX_TOKEN_BYTES, MIN_INVITE_BYTES};
use crate::link::DeviceLink;
use crate::proof::{DeviceProof, RelayProof};
use crate::schedule::{TranscriptHash, accept_key, finish_key, link_prk, next_transcript, t1};
use crate::succession::Successions;
use crate::token::credential_hash;

/// What a device goes into the handshake with.
#[derive(Clone, Copy, Debug)]
pub struct DeviceTerms<'a> {
    /// The relays that are the right one, by thumbprint: the one in the address, or several while a relay's key rotates.
    pub relays: &'a [Thumbprint],
    /// The device's key.
    pub key: &'a SigningKey,
    /// Why the relay should let the device in.
    pub credential: Credential<'a>,
    /// The device's clock, in seconds since 1970.
    pub now: u64,
}

/// Why a relay should let a device in (docs/protocol.md §3.6).
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// An access token, as a compact JWS: 1 to 8,192 bytes.
    Token(&'a [u8]),
    /// The same, when it was already sent in the upgrade request. It is not sent again.
    UpgradeToken(&'a [u8]),
    /// The code of an invitation: 16 to 64 bytes.
    Invite(&'a [u8]),
    /// The device is enrolled with the relay's built-in issuer.
    Renewal,
    /// An identity provider's token that the relay exchanges for an access token, as a compact JWS: 1 to 8,192 bytes.
    Exchange(&'a [u8]),
}

impl Credential<'_> {
    /// Refuses what no relay would take, before anything is sent.
    fn check(&self) -> Result<(), Misuse> {
        let fits = match self {
            Self::Token(token) | Self::UpgradeToken(token) | Self::Exchange(token) => {
                (1..=MAX_TOKEN_BYTES).contains(&token.len())
            }
            Self::Invite(code) => (MIN_INVITE_BYTES..=MAX_INVITE_BYTES).contains(&code.len()),
            Self::Renewal => true,
        };
        if fits {
            Ok(())
        } else {
            Err(Misuse::CredentialLength)
        }
    }

    const fn kind(&self) -> Kind {
        match self {
            Self::Token(_) | Self::UpgradeToken(_) => Kind::Token,
            Self::Invite(_) => Kind::Invite,
            Self::Renewal => Kind::Renewal,
            Self::Exchange(_) => Kind::Exchange,
        }
    }

    /// What goes into Finish.
    const fn sent(&self) -> &[u8] {
        match self {
            Self::Token(credential) | Self::Invite(credential) | Self::Exchange(credential) => {
                credential
            }
            Self::UpgradeToken(_) | Self::Renewal => &[],
        }
    }

    /// What `ath` is the hash of.
    const fn proved(&self) -> &[u8] {
        match self {
            Self::Token(credential)
            | Self::UpgradeToken(credential)
            | Self::Invite(credential)
            | Self::Exchange(credential) => credential,
            Self::Renewal => &[],
        }
    }
}

impl core::fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::UpgradeToken(_) => "UpgradeToken(..)",
            Self::Invite(_) => "Invite(..)",
            Self::Renewal => "Renewal",
            Self::Exchange(_) => "Exchange(..)",
        })
    }
}

/// A device that has sent Hello and waits for Accept. Dropping it erases its ephemeral secrets.
#[derive(Debug)]
pub struct DeviceHello {
    x25519: X25519Secret,
    kem: KemDecapsulationKey,
    hello: Vec<u8>,
}

impl DeviceHello {
    /// Makes the ephemeral keys. The returned bytes, Hello, are the first binary message.
    pub fn start(rng: &mut (impl CryptoRng + ?Sized)) -> (Self, Vec<u8>) {
        let mut random = [0; 32];
        rng.fill_bytes(&mut random);
        let x25519 = X25519Secret::generate(rng);
        let kem = KemDecapsulationKey::generate(rng);
        let kem_key = kem.encapsulation_key().to_bytes();
        let hello = Hello {
            random: &random,
            x25519: x25519.public_key(),
            kem_key: &kem_key,
        }
        .encode();
        (
            Self {
                x25519,
                kem,
                hello: hello.clone(),
            },
            hello,
        )
    }

    /// Takes Accept, checks that it comes from the right relay, and answers. The returned bytes, Finish, are the second binary
    /// message; records may follow it at once.
    ///
    /// # Errors
    /// [`NotAuthorised::UnexpectedRelay`] names both thumbprints if the relay is another one. After any error nothing more is sent: the socket is to be
    /// closed with [`LinkError::close_code`].
    pub fn on_accept(
        self,
        accept: &[u8],
        terms: &DeviceTerms<'_>,
    ) -> Result<(DeviceLink, Vec<u8>), LinkError> {
        terms.credential.check()?;
        let accept = Accept::decode(accept)?;
        let Self { x25519, kem, hello } = self;
        let t1 = t1(&hello, accept.head);
        let prk = agree(x25519, kem, &accept)?;
        let relay = check_relay(&hello, &accept, &prk, &t1, terms)?;
        let t2 = next_transcript(&t1, accept.sealed);
        let sealed = seal(
            &finish_key(&prk, &t2),
            &t2,
            finish_secret(relay, &t2, terms)?,
        )?;
        let t3 = next_transcript(&t2, &sealed);
        let finish = encode_finish(&sealed).map_err(Misuse::Encode)?;
        Ok((
            DeviceLink::new(device_core(prk, t3), terms.key.thumbprint(), relay),
            finish,
        ))
    }
}

/// Both ephemeral secrets are erased here, whatever comes of it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "taking the secrets is what erases them"
)]
fn agree(
    x25519: X25519Secret,
    kem: KemDecapsulationKey,
    accept: &Accept<'_>,
) -> Result<Prk, LinkError> {
    // RFC 7748 §6.1, docs/protocol.md §1.3
    let shared = x25519
        .diffie_hellman(&accept.x25519)
        .map_err(|_| Misbehaviour::LowOrderKey)?;
    Ok(link_prk(&shared, &kem.decapsulate(accept.kem_ciphertext)))
}

/// docs/protocol.md §3.5: the thumbprint, or what leads to it (§3.9), the signature, every claim. What is said of a key that is not known is the
/// thumbprint, whatever else is wrong.
fn check_relay(
    hello: &[u8],
    accept: &Accept<'_>,
    prk: &Prk,
    t1: &TranscriptHash,
    terms: &DeviceTerms<'_>,
) -> Result<Thumbprint, LinkError> {
    let text = open(&accept_key(prk, t1), t1, accept.sealed)?;
    let secret = AcceptSecret::decode(&text)?;
    let key = PublicKey::from_bytes(secret.relay_key).map_err(Malformed::Ed25519Key)?;
    let presented = key.thumbprint();
    let expected = *terms.relays.first().ok_or(Misuse::NoRelayExpected)?;
    let previous = RelayProof {
        hello: sha256(&[hello]),
        transcript: *t1,
    }
    .verify_following(secret.proof, &key, terms.now);
    let is_known = terms.relays.contains(&presented)
        || previous.as_deref().is_ok_and(|previous| {
            Successions::reach(previous, terms.relays, &presented, terms.now)
        });
    if !is_known {
        return Err(NotAuthorised::UnexpectedRelay {
            expected,
            presented,
        }
        .into());
    }
    previous.map_err(NotAuthorised::RelayProof)?;
    Ok(presented)
}

fn finish_secret(
    relay: Thumbprint,
    t2: &TranscriptHash,
    terms: &DeviceTerms<'_>,
) -> Result<Vec<u8>, LinkError> {
    let credential = terms.credential;
    let proof = DeviceProof {
        relay,
        transcript: *t2,
        credential: credential_hash(credential.proved()),
    }
    .sign(terms.key, terms.now);
    let secret = FinishSecret {
        kind: credential.kind(),
        device_key: terms.key.public().as_bytes(),
        proof: proof.as_bytes(),
        credential: credential.sent(),
    };
    Ok(secret.encode().map_err(Misuse::Encode)?)
}
