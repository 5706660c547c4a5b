//! The asynchronous agreement that starts a session (docs/protocol.md §7.1 to §7.3).
//!
//! ```text
//! initiator: card, one-time prekey ── dh1, dh2, ss, th ──> keys ── proof over th ──> First
//! recipient: First ── device key, prekeys, attestation, th, proof, session id ──> keys
//! ```
//!
//! The recipient is authenticated by its device key's signature over its prekeys, the initiator by its proof. The recipient's
//! checks change nothing: what is used up is for [`peer`](crate::peer), after the first message has opened.

use alloc::{borrow::ToOwned, boxed::Box, string::String, vec::Vec};

use rand_core::CryptoRng;
use sealwire_protocol::{
    codec::{DecodeError, Reader, Writer},
    crypto::{KEM_CIPHERTEXT_BYTES, KEM_KEY_BYTES, X25519PublicKey, X25519Secret},
    jws::{JwtType, SignatureVerifier},
    key::{PublicKey, SigningKey, Thumbprint},
    limits::{CLOCK_TOLERANCE_SECONDS, MAX_PROOF_BYTES, MAX_TOKEN_BYTES},
    name::{Issuer, User},
    statement::{Statement, UnverifiedStatement},
    token::AttestationPolicy,
};

use crate::{
    card::VerifiedCard,
    device::{DeviceKeys, OwnIdentity, PeerIdentity, attested, verify_attestation},
    error::{Error, Malformed, Misbehaved, Misuse},
    message::{First, Header},
    one_time::VerifiedOneTimePrekey,
    peer::Local,
    ratchet::{Ratchet, RatchetKey},
    schedule::{self, TranscriptHash, session_keys},
    session::{Role, Session},
};

/// How long ago an initiator's proof may have been made, in seconds: 30 days (docs/protocol.md §7.3).
const MAX_PROOF_AGE_SECONDS: u64 = 30 * 24 * 60 * 60;

/// How old the own attestation may be, in seconds, where others are to accept it for a while: 15 days (docs/protocol.md §7).
pub(crate) const MAX_OWN_ATTESTATION_AGE_SECONDS: u64 = 15 * 24 * 60 * 60;

const PROOF_CLAIMS: [&str; 4] = ["iss", "aud", "th", "iat"];

/// What travels in the initiator's messages until it is answered (docs/protocol.md §7.3, §9.1).
pub(crate) struct FirstFlight {
    device_key: [u8; 32],
    ephemeral: [u8; 32],
    kem_ciphertext: Box<[u8; KEM_CIPHERTEXT_BYTES]>,
    generation: u32,
    one_time: Option<u32>,
    proof: String,
    attestation: String,
}

/// Starts a session with the device of `card`.
pub(crate) fn initiate(
    keys: &DeviceKeys,
    own: &OwnIdentity,
    card: &VerifiedCard,
    one_time: Option<&VerifiedOneTimePrekey>,
    rng: &mut (impl CryptoRng + ?Sized),
    now: u64,
) -> Result<Session, Error> {
    let recipient = card.identity();
    if recipient.device == keys.thumbprint() {
        return Err(Misuse::OwnDevice.into());
    }
    if one_time.is_some_and(|prekey| prekey.device != recipient.device) {
        return Err(Misbehaved::AnotherDevice.into());
    }
    // docs/protocol.md §7: the recipient accepts it for 30 days, of which the message may spend some in a mailbox.
    if now.saturating_sub(own.issued()) > MAX_OWN_ATTESTATION_AGE_SECONDS {
        return Err(Misuse::AttestationTooOld.into());
    }
    let ephemeral = X25519Secret::generate(rng);
    let ratchet_key = RatchetKey::generate(rng);
    // docs/protocol.md §1.3: a prekey of low order is refused.
    let dh1 = ephemeral
        .diffie_hellman(&card.signed_prekey)
        .map_err(|_| Malformed::Key)?;
    let dh2 = one_time
        .map(|prekey| ephemeral.diffie_hellman(&prekey.x25519))
        .transpose()
        .map_err(|_| Malformed::Key)?;
    let kem_key = one_time.map_or(&card.kem, |prekey| &prekey.kem);
    let (kem_ciphertext, shared) = kem_key.encapsulate(rng);
    let ephemeral_public = ephemeral.public_key();
    let th = Transcript {
        initiator: Side {
            issuer: own.issuer(),
            user: own.user(),
            device: keys.thumbprint(),
            attestation_hash: own.attestation_hash(),
        },
        recipient: Side {
            issuer: &recipient.issuer,
            user: &recipient.user,
            device: recipient.device,
            attestation_hash: &card.attestation_hash,
        },
        card_hash: &card.hash,
        generation: card.seen().generation,
        signed_prekey: &card.signed_prekey,
        one_time: one_time.map(|prekey| (prekey.id, &prekey.x25519)),
        kem_key: &kem_key.to_bytes(),
        ephemeral: ephemeral_public.as_bytes(),
        kem_ciphertext: &kem_ciphertext,
        ratchet_key: ratchet_key.public.as_bytes(),
    }
    .hash();
    let first = FirstFlight {
        device_key: *keys.signing().public().as_bytes(),
        ephemeral: *ephemeral_public.as_bytes(),
        kem_ciphertext: Box::new(kem_ciphertext),
        generation: card.seen().generation,
        one_time: one_time.map(|prekey| prekey.id),
        proof: sign_proof(keys.signing(), recipient.device, &th, now),
        attestation: own.attestation().to_owned(),
    };
    let keys = session_keys(&dh1, dh2.as_ref(), &shared, &th);
    Ok(Session {
        id: keys.id,
        issued: now,
        role: Role::Initiator {
            unanswered: Some(first),
        },
        ratchet: Ratchet::initiator(keys.root, keys.chain, ratchet_key),
    })
}

/// Everything that docs/protocol.md §7.3 asks of the recipient, for a first message from `device`. The session's first message
/// still has to open.
pub(crate) fn accept(
    local: &Local<'_>,
    device: Thumbprint,
    header: &Header<'_>,
    first: &First<'_>,
    issuer_keys: &(impl SignatureVerifier + ?Sized),
    policy: &AttestationPolicy<'_>,
) -> Result<(PeerIdentity, Session), Error> {
    let key = PublicKey::from_bytes(&first.device_key).map_err(|_| Malformed::Key)?;
    if key.thumbprint() != device {
        return Err(Misbehaved::AnotherDevice.into());
    }
    // That the secrets exist and the message is not a repetition costs nothing to find out, so it comes before signatures.
    let secrets = local.prekeys.for_first(device, first, policy.now)?;
    let attestation = verify_attestation(first.attestation, device, issuer_keys, policy)?;
    let initiator = attested(&attestation);
    let one_time_public = secrets.one_time.map(|secrets| secrets.x25519.public_key());
    let kem = secrets
        .one_time
        .map_or(&secrets.generation.kem, |secrets| &secrets.kem);
    let th = Transcript {
        initiator: Side {
            issuer: &initiator.issuer,
            user: &initiator.user,
            device,
            attestation_hash: attestation.hash(),
        },
        recipient: Side {
            issuer: local.own.issuer(),
            user: local.own.user(),
            device: local.keys.thumbprint(),
            attestation_hash: &secrets.generation.attestation_hash,
        },
        card_hash: &secrets.generation.card_hash,
        generation: secrets.generation.id(),
        signed_prekey: &secrets.generation.signed_prekey.public_key(),
        one_time: first.one_time.zip(one_time_public.as_ref()),
        kem_key: &kem.encapsulation_key().to_bytes(),
        ephemeral: &first.ephemeral,
        kem_ciphertext: first.kem_ciphertext,
        ratchet_key: &header.ratchet_key,
    }
    .hash();
    let issued = verify_proof(first.proof, &key, local.keys.thumbprint(), &th, policy.now)?;

    // From here on the initiator is known to have made this agreement for this device.
    let ephemeral = X25519PublicKey::from_bytes(first.ephemeral);
    let ratchet_key = X25519PublicKey::from_bytes(header.ratchet_key);
    let signed_prekey = &secrets.generation.signed_prekey;
    // docs/protocol.md §8.2: zeros end in the error of a message that does not authenticate. The ratchet key is tried here, where it can
    // still be refused, rather than when the reply turns the ratchet.
    signed_prekey
        .diffie_hellman(&ratchet_key)
        .map_err(|_| Error::Decrypt)?;
    let dh1 = signed_prekey
        .diffie_hellman(&ephemeral)
        .map_err(|_| Error::Decrypt)?;
    let dh2 = secrets
        .one_time
        .map(|secrets| secrets.x25519.diffie_hellman(&ephemeral))
        .transpose()
        .map_err(|_| Error::Decrypt)?;
    let shared = kem.decapsulate(first.kem_ciphertext);
    let keys = session_keys(&dh1, dh2.as_ref(), &shared, &th);
    // docs/protocol.md §7.3: the session id is the one derived.
    if keys.id != header.session {
        return Err(Misbehaved::SessionId.into());
    }
    let session = Session {
        id: keys.id,
        issued,
        role: Role::Recipient,
        ratchet: Ratchet::recipient(keys.root, keys.chain, ratchet_key),
    };
    Ok((initiator, session))
}

/// Signs the initiator's proof (docs/protocol.md §7.3).
fn sign_proof(key: &SigningKey, recipient: Thumbprint, th: &TranscriptHash, now: u64) -> String {
    Statement::new(JwtType::Session)
        .bytes("iss", key.thumbprint().as_bytes())
        .bytes("aud", recipient.as_bytes())
        .bytes("th", th)
        .integer("iat", now)
        .sign(key)
}

/// Checks the signature and every claim of the initiator's proof, and gives its `iat` (docs/protocol.md §7.3).
fn verify_proof(
    proof: &str,
    key: &PublicKey,
    recipient: Thumbprint,
    th: &TranscriptHash,
    now: u64,
) -> Result<u64, Error> {
    let malformed = |_| Malformed::Proof;
    let unverified = UnverifiedStatement::parse(proof.as_bytes(), JwtType::Session, &PROOF_CLAIMS)
        .map_err(malformed)?;
    let verified = unverified
        .verify(key)
        .map_err(|_| Misbehaved::ProofSignature)?;
    let claims = verified.claims();
    let parties = (
        claims.thumbprint("iss").map_err(malformed)?,
        claims.thumbprint("aud").map_err(malformed)?,
    );
    if parties != (key.thumbprint(), recipient) {
        return Err(Misbehaved::ProofParties.into());
    }
    if claims.bytes("th").map_err(malformed)? != *th {
        return Err(Misbehaved::ProofTranscript.into());
    }
    let issued = claims.integer("iat").map_err(malformed)?;
    if now.saturating_sub(issued) > MAX_PROOF_AGE_SECONDS {
        return Err(Misbehaved::ProofTooOld.into());
    }
    if issued.saturating_sub(now) > CLOCK_TOLERANCE_SECONDS {
        return Err(Misbehaved::ProofInFuture.into());
    }
    Ok(issued)
}

/// Everything that an agreement depends on (docs/protocol.md §7.1).
struct Transcript<'a> {
    initiator: Side<'a>,
    recipient: Side<'a>,
    card_hash: &'a [u8; 32],
    generation: u32,
    signed_prekey: &'a X25519PublicKey,
    one_time: Option<(u32, &'a X25519PublicKey)>,
    kem_key: &'a [u8; KEM_KEY_BYTES],
    ephemeral: &'a [u8; 32],
    kem_ciphertext: &'a [u8; KEM_CIPHERTEXT_BYTES],
    ratchet_key: &'a [u8; 32],
}

struct Side<'a> {
    issuer: &'a Issuer,
    user: &'a User,
    device: Thumbprint,
    attestation_hash: &'a [u8; 32],
}

impl Transcript<'_> {
    fn hash(&self) -> TranscriptHash {
        let mut fields = Vec::with_capacity(3_584);
        self.initiator.write(&mut fields);
        self.recipient.write(&mut fields);
        let mut writer = Writer::new(&mut fields);
        writer
            .bytes(self.card_hash)
            .u32(self.generation)
            .bytes(self.signed_prekey.as_bytes())
            .bool(self.one_time.is_some());
        if let Some((id, x25519)) = self.one_time {
            writer.u32(id).bytes(x25519.as_bytes());
        }
        writer
            .bytes(self.kem_key)
            .bytes(self.ephemeral)
            .bytes(self.kem_ciphertext)
            .bytes(self.ratchet_key);
        schedule::transcript_hash(&fields)
    }
}

impl Side<'_> {
    #[expect(
        clippy::expect_used,
        reason = "the types of names allow 1 to 255 bytes only"
    )]
    fn write(&self, fields: &mut Vec<u8>) {
        let mut writer = Writer::new(fields);
        for name in [self.issuer.as_bytes(), self.user.as_bytes()] {
            writer.vec8(name, 1..=255).expect("names fit");
        }
        writer
            .bytes(self.device.as_bytes())
            .bytes(self.attestation_hash);
    }
}

impl FirstFlight {
    /// The form in which it travels.
    pub(crate) fn as_first(&self) -> First<'_> {
        First {
            device_key: self.device_key,
            ephemeral: self.ephemeral,
            kem_ciphertext: &self.kem_ciphertext,
            generation: self.generation,
            one_time: self.one_time,
            proof: &self.proof,
            attestation: &self.attestation,
        }
    }

    pub(crate) fn encoded_len(&self) -> usize {
        32 + 32
            + KEM_CIPHERTEXT_BYTES
            + 4
            + 1
            + 4
            + 2
            + self.proof.len()
            + 2
            + self.attestation.len()
    }

    #[expect(
        clippy::expect_used,
        reason = "a proof is made here, and an attestation was parsed with the same limit"
    )]
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer
            .bytes(&self.device_key)
            .bytes(&self.ephemeral)
            .bytes(&*self.kem_ciphertext)
            .u32(self.generation)
            .bool(self.one_time.is_some());
        if let Some(id) = self.one_time {
            writer.u32(id);
        }
        writer
            .vec16(self.proof.as_bytes(), 1..=MAX_PROOF_BYTES)
            .and_then(|writer| writer.vec16(self.attestation.as_bytes(), 1..=MAX_TOKEN_BYTES))
            .expect("both fit");
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let text = |bytes: &[u8]| {
            core::str::from_utf8(bytes)
                .map(ToOwned::to_owned)
                .map_err(|_| DecodeError::UnknownValue)
        };
        Ok(Self {
            device_key: *reader.array()?,
            ephemeral: *reader.array()?,
            kem_ciphertext: Box::new(*reader.array()?),
            generation: reader.u32()?,
            one_time: if reader.bool()? {
                Some(reader.u32()?)
            } else {
                None
            },
            proof: text(reader.vec16(1..=MAX_PROOF_BYTES)?)?,
            attestation: text(reader.vec16(1..=MAX_TOKEN_BYTES)?)?,
        })
    }
}
