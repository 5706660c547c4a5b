//! The relay's side of the handshake.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

use super::message::{
    AcceptSecret, FinishSecret, Hello, Kind, accept_head, decode_finish, finish_accept,
};
use super::{open, relay_core, seal};
use crate::crypto::{
    KEM_CIPHERTEXT_BYTES, KemEncapsulationKey, Prk, X25519PublicKey, X25519Secret, sha256,
};
use crate::error::{LinkError, Malformed, Misbehaviour, Misuse, NotAuthorised};
use crate::key::{PublicKey, SigningKey, Thumbprint};
use crate::limits::{MAX_INVITE_BYTES, MIN_INVITE_BYTES};
use crate::link::{Core, RelayLink};
use crate::proof::{DeviceProof, RelayProof};
use crate::schedule::{TranscriptHash, accept_key, finish_key, link_prk, next_transcript, t1};
use crate::succession::Successions;
use crate::token::{AccessToken, credential_hash};

/// A relay that waits for Hello on a new connection.
#[derive(Debug)]
pub struct RelayHandshake<'k> {
    key: &'k SigningKey,
    previous: Option<&'k Successions>,
    upgrade_token: Option<TokenHash>,
}

type TokenHash = [u8; 32];

impl<'k> RelayHandshake<'k> {
    /// `key` is the relay's own. `upgrade_token` is the token of the upgrade request, verified, if there was one: Finish has to go
    /// with it (docs/protocol.md §3.5).
    #[must_use]
    pub fn new(key: &'k SigningKey, upgrade_token: Option<&AccessToken>) -> Self {
        Self {
            key,
            previous: None,
            upgrade_token: upgrade_token.map(|token| *token.hash()),
        }
    }

    /// Shows devices what leads to the relay's key from those before (docs/protocol.md §3.9).
    #[must_use]
    pub const fn following(mut self, previous: &'k Successions) -> Self {
        self.previous = Some(previous);
        self
    }

    /// Takes Hello. The returned bytes, Accept, are the answer. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// What is wrong with Hello; nothing has been revealed to its sender.
    pub fn on_hello(
        self,
        hello: &[u8],
        rng: &mut (impl CryptoRng + ?Sized),
        now: u64,
    ) -> Result<(RelayAccept, Vec<u8>), LinkError> {
        let Agreed {
            prk,
            x25519,
            kem_ciphertext,
        } = agree(&Hello::decode(hello)?, rng)?;
        let mut random = [0; 32];
        rng.fill_bytes(&mut random);
        let mut accept = accept_head(&random, &x25519, &kem_ciphertext);
        let t1 = t1(hello, &accept);
        let proof: String = RelayProof {
            hello: sha256(&[hello]),
            transcript: t1,
        }
        .sign_following(self.key, self.previous.unwrap_or(&Successions::NONE), now);
        let secret = AcceptSecret {
            relay_key: self.key.public().as_bytes(),
            proof: proof.as_bytes(),
        };
        let sealed = seal(
            &accept_key(&prk, &t1),
            &t1,
            secret.encode().map_err(Misuse::Encode)?,
        )?;
        finish_accept(&mut accept, &sealed).map_err(Misuse::Encode)?;
        let t2 = next_transcript(&t1, &sealed);
        let state = RelayAccept {
            prk,
            t2,
            relay: self.key.thumbprint(),
            upgrade_token: self.upgrade_token,
        };
        Ok((state, accept))
    }
}

/// What the relay has once its ephemeral secret is erased.
struct Agreed {
    prk: Prk,
    x25519: X25519PublicKey,
    kem_ciphertext: [u8; KEM_CIPHERTEXT_BYTES],
}

fn agree(hello: &Hello<'_>, rng: &mut (impl CryptoRng + ?Sized)) -> Result<Agreed, LinkError> {
    // FIPS 203 §7.2, docs/protocol.md §1.3
    let kem_key = KemEncapsulationKey::decode(hello.kem_key).map_err(|_| Malformed::KemKey)?;
    let x25519 = X25519Secret::generate(rng);
    // RFC 7748 §6.1, docs/protocol.md §1.3
    let shared = x25519
        .diffie_hellman(&hello.x25519)
        .map_err(|_| Misbehaviour::LowOrderKey)?;
    let (kem_ciphertext, kem_shared) = kem_key.encapsulate(rng);
    Ok(Agreed {
        prk: link_prk(&shared, &kem_shared),
        x25519: x25519.public_key(),
        kem_ciphertext,
    })
}

/// A relay that has sent Accept and waits for Finish. Dropping it erases its secrets.
#[derive(Debug)]
pub struct RelayAccept {
    prk: Prk,
    t2: TranscriptHash,
    relay: Thumbprint,
    upgrade_token: Option<TokenHash>,
}

impl RelayAccept {
    /// Takes Finish. Nothing in it has been verified yet.
    ///
    /// # Errors
    /// Finish is malformed, does not open, or goes with another token than the upgrade request's.
    pub fn on_finish(self, finish: &[u8]) -> Result<UnverifiedPeer, LinkError> {
        let sealed = decode_finish(finish)?;
        let text = open(&finish_key(&self.prk, &self.t2), &self.t2, sealed)?;
        let secret = FinishSecret::decode(&text)?;
        let device = PublicKey::from_bytes(secret.device_key).map_err(Malformed::Ed25519Key)?;
        let credential = HeldCredential::new(&secret, self.upgrade_token)?;
        let t3 = next_transcript(&self.t2, sealed);
        Ok(UnverifiedPeer {
            proof: secret.proof.into(),
            t2: self.t2,
            peer: Peer {
                core: relay_core(self.prk, t3),
                relay: self.relay,
                device,
                credential,
            },
        })
    }
}

/// What a device presented in Finish, for the relay to judge.
#[derive(Clone, Copy)]
pub enum Presented<'a> {
    /// An access token, as a compact JWS.
    Token(&'a [u8]),
    /// The token of the upgrade request, which the relay already has.
    UpgradeToken,
    /// The code of an invitation: 16 to 64 bytes.
    Invite(&'a [u8]),
    /// The device says that it is enrolled with the built-in issuer.
    Renewal,
    /// An identity provider's token to be exchanged, as a compact JWS.
    Exchange(&'a [u8]),
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::UpgradeToken => "UpgradeToken",
            Self::Invite(_) => "Invite(..)",
            Self::Renewal => "Renewal",
            Self::Exchange(_) => "Exchange(..)",
        })
    }
}

/// Whoever sent a Finish that opens: not proved, not authorised.
#[must_use]
pub struct UnverifiedPeer {
    proof: Vec<u8>,
    t2: TranscriptHash,
    peer: Peer,
}

/// Shows no part of the proof: it may be logged.
impl fmt::Debug for UnverifiedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnverifiedPeer").field(&self.peer).finish()
    }
}

impl UnverifiedPeer {
    /// The device key that the peer claims to hold.
    #[must_use]
    pub const fn claimed_device(&self) -> &PublicKey {
        &self.peer.device
    }

    /// Authentication: checks the device proof, which shows that the peer holds the key, now, in this handshake, with this
    /// credential (docs/protocol.md §3.5). `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`NotAuthorised::DeviceProof`] with the rule or the claim.
    pub fn prove(self, now: u64) -> Result<ProvenPeer, LinkError> {
        let Self { proof, t2, peer } = self;
        DeviceProof {
            relay: peer.relay,
            transcript: t2,
            credential: peer.credential.hash(),
        }
        .verify(&proof, &peer.device, now)
        .map_err(NotAuthorised::DeviceProof)?;
        Ok(ProvenPeer { peer })
    }
}

/// A device that proved its key, but is not authorised yet.
#[derive(Debug)]
#[must_use]
pub struct ProvenPeer {
    peer: Peer,
}

impl ProvenPeer {
    /// The device's key.
    #[must_use]
    pub const fn device_key(&self) -> &PublicKey {
        &self.peer.device
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> Thumbprint {
        self.peer.device.thumbprint()
    }

    /// What the relay has to verify, redeem or look up, and turn into a verified token.
    #[must_use]
    pub fn credential(&self) -> Presented<'_> {
        match &self.peer.credential {
            HeldCredential::Token(token) => Presented::Token(token),
            HeldCredential::UpgradeToken(_) => Presented::UpgradeToken,
            HeldCredential::Invite(code) => Presented::Invite(code),
            HeldCredential::Renewal => Presented::Renewal,
            HeldCredential::Exchange(token) => Presented::Exchange(token),
        }
    }

    /// Authorisation: `token` is the presented token after verification or, for an invite, a renewal or an exchange, the one that the built-in issuer
    /// minted for this device, verified like any other. Its `cnf` has to name the proved key (docs/protocol.md §3.5).
    ///
    /// # Errors
    /// The token is not the one that was presented, or is for another device.
    pub fn authorise(self, token: AccessToken) -> Result<RelayLink, LinkError> {
        let Peer {
            core,
            relay,
            device,
            credential,
        } = self.peer;
        match credential {
            HeldCredential::Token(_) | HeldCredential::UpgradeToken(_) => {
                if credential.hash() != *token.hash() {
                    return Err(NotAuthorised::AnotherToken.into());
                }
            }
            HeldCredential::Invite(_) | HeldCredential::Renewal | HeldCredential::Exchange(_) => {}
        }
        Ok(RelayLink::new(core, relay, device, token)?)
    }
}

#[derive(Debug)]
struct Peer {
    core: Core,
    relay: Thumbprint,
    device: PublicKey,
    credential: HeldCredential,
}

enum HeldCredential {
    Token(Zeroizing<Vec<u8>>),
    UpgradeToken(TokenHash),
    Invite(Zeroizing<Vec<u8>>),
    Renewal,
    Exchange(Zeroizing<Vec<u8>>),
}

impl HeldCredential {
    /// What was presented, if it is of the form its kind has and goes with the upgrade request (docs/protocol.md §3.5, §3.6).
    fn new(
        secret: &FinishSecret<'_>,
        upgrade_token: Option<TokenHash>,
    ) -> Result<Self, NotAuthorised> {
        let copy = || Zeroizing::new(Vec::from(secret.credential));
        match (secret.kind, upgrade_token, secret.credential) {
            (Kind::Token, Some(hash), credential) => {
                if !credential.is_empty() && credential_hash(credential) != hash {
                    return Err(NotAuthorised::CredentialMismatch);
                }
                Ok(Self::UpgradeToken(hash))
            }
            (Kind::Invite | Kind::Renewal | Kind::Exchange, Some(_), _) => {
                Err(NotAuthorised::CredentialMismatch)
            }
            (Kind::Token | Kind::Exchange, None, []) => Err(NotAuthorised::CredentialMissing),
            (Kind::Token, None, _) => Ok(Self::Token(copy())),
            (Kind::Exchange, None, _) => Ok(Self::Exchange(copy())),
            (Kind::Invite, None, code)
                if (MIN_INVITE_BYTES..=MAX_INVITE_BYTES).contains(&code.len()) =>
            {
                Ok(Self::Invite(copy()))
            }
            (Kind::Renewal, None, []) => Ok(Self::Renewal),
            (Kind::Invite | Kind::Renewal, None, _) => Err(NotAuthorised::CredentialForm),
        }
    }

    /// What `ath` has to be.
    fn hash(&self) -> TokenHash {
        match self {
            Self::Token(credential) | Self::Invite(credential) | Self::Exchange(credential) => {
                credential_hash(credential)
            }
            Self::UpgradeToken(hash) => *hash,
            Self::Renewal => credential_hash(&[]),
        }
    }
}

impl fmt::Debug for HeldCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token(..)",
            Self::UpgradeToken(_) => "UpgradeToken(..)",
            Self::Invite(_) => "Invite(..)",
            Self::Renewal => "Renewal",
            Self::Exchange(_) => "Exchange(..)",
        })
    }
}
