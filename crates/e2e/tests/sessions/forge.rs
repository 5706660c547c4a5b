//! An initiator written from docs/protocol.md §7 and not from the crate: it makes first messages in which every part can be
//! wrong, and shows, when none is, that the specification is enough to talk to the crate.

use rand::Rng as _;
use sealwire_e2e::{
    message::{self, First, Header, MessageKey, ProtectedHeader},
    one_time::OneTimePrekey,
};
use sealwire_protocol::{
    base64url,
    crypto::{KemEncapsulationKey, Label, Prk, Secret, X25519PublicKey, X25519Secret, sha256},
    key::{SigningKey, Thumbprint},
};

use crate::pair::{Device, FIRST, ISSUER, World, jws, payload};

/// What the forger says, and with which keys.
pub(crate) struct Forgery<'a> {
    /// The initiator's key in the message.
    pub(crate) device_key: [u8; 32],
    /// The key that signs the proof.
    pub(crate) proof_key: &'a SigningKey,
    pub(crate) initiator: (&'a str, &'a str, Thumbprint),
    pub(crate) attestation: String,
    pub(crate) recipient: (&'a str, &'a str, Thumbprint),
    pub(crate) card: String,
    pub(crate) one_time: Option<OneTimePrekey>,
    /// The id that the message gives, if not that of `one_time`.
    pub(crate) one_time_id: Option<u32>,
    pub(crate) generation: u32,
    pub(crate) issued: u64,
    /// Claims of the proof, after the right ones were made.
    pub(crate) edit_proof: fn(String) -> String,
    pub(crate) proof_type: &'a str,
    /// The ratchet key in the message; a fresh one if `None`.
    pub(crate) ratchet_key: Option<[u8; 32]>,
    pub(crate) ephemeral: Option<[u8; 32]>,
    pub(crate) session: Option<[u8; 16]>,
    /// Changes the ciphertext in the message but not in the transcript.
    pub(crate) flip_kem_ciphertext: bool,
}

impl<'a> Forgery<'a> {
    /// A first message with nothing wrong, from `from` to `to`, with the one-time prekey if one is left.
    pub(crate) fn honest(world: &World, from: &'a Device, to: &mut Device) -> Self {
        Self {
            device_key: *from.keys.signing().public().as_bytes(),
            proof_key: from.keys.signing(),
            initiator: (ISSUER, from.own.user().as_str(), from.keys.thumbprint()),
            attestation: from.own.attestation().to_owned(),
            recipient: (ISSUER, "bob", to.keys.thumbprint()),
            card: to.card.clone(),
            one_time: to.one_time.pop(),
            one_time_id: None,
            generation: FIRST,
            issued: world.now,
            edit_proof: |claims| claims,
            proof_type: "sealwire-session+jwt",
            ratchet_key: None,
            ephemeral: None,
            session: None,
            flip_kem_ciphertext: false,
        }
    }

    /// The sealed first message with `text` in it.
    pub(crate) fn seal(self, world: &mut World, text: &str) -> Vec<u8> {
        let card: serde_json::Value = serde_json::from_str(&payload(&self.card)).unwrap();
        let bytes =
            |name: &str| base64url::decode(card[name].as_str().unwrap().as_bytes()).unwrap();
        let spk: [u8; 32] = bytes("spk").try_into().unwrap();
        let one_time = self.one_time.as_ref().map(OneTimePrekey::encode);
        let kem: [u8; 1184] = match &one_time {
            Some(prekey) => prekey[36..36 + 1184].try_into().unwrap(),
            None => bytes("kem").try_into().unwrap(),
        };
        let ephemeral = X25519Secret::generate(&mut world.rng);
        let ephemeral_public = self.ephemeral.unwrap_or(*ephemeral.public_key().as_bytes());
        let ratchet_key = self.ratchet_key.unwrap_or(
            *X25519Secret::generate(&mut world.rng)
                .public_key()
                .as_bytes(),
        );
        let (mut kem_ciphertext, ss) = KemEncapsulationKey::decode(&kem)
            .unwrap()
            .encapsulate(&mut world.rng);

        // §7.1
        let mut transcript = b"sealwire/1 session transcript".to_vec();
        let attestation_of_card = card["att"].as_str().unwrap();
        for ((issuer, user, device), attestation) in [
            (self.initiator, self.attestation.as_str()),
            (self.recipient, attestation_of_card),
        ] {
            for name in [issuer, user] {
                transcript.push(u8::try_from(name.len()).unwrap());
                transcript.extend(name.as_bytes());
            }
            transcript.extend(device.as_bytes());
            transcript.extend(sha256(&[attestation.as_bytes()]));
        }
        transcript.extend(sha256(&[self.card.as_bytes()]));
        transcript.extend(self.generation.to_be_bytes());
        transcript.extend(spk);
        match &one_time {
            Some(prekey) => {
                transcript.push(1);
                transcript.extend(&prekey[..36]);
            }
            None => transcript.push(0),
        }
        transcript.extend(kem);
        transcript.extend(ephemeral_public);
        transcript.extend(kem_ciphertext);
        transcript.extend(ratchet_key);
        let th = sha256(&[&transcript]);

        // §7.2
        let agree = |theirs: [u8; 32]| {
            ephemeral
                .diffie_hellman(&X25519PublicKey::from_bytes(theirs))
                .unwrap()
        };
        let dh1 = agree(spk);
        let dh2 = one_time
            .as_ref()
            .map(|prekey| agree(prekey[4..36].try_into().unwrap()));
        let dh2: &[u8] = dh2.as_ref().map_or(&[], |dh2| dh2.expose());
        let prk = Prk::extract(b"sealwire/1 session", &[dh1.expose(), dh2, ss.expose()]);
        let id: Secret<16> = prk.expand(Label::new("sealwire/1 session id"), &th);
        let chain: Secret<32> = prk.expand(Label::new("sealwire/1 session chain"), &th);

        // §7.3
        let claims = (self.edit_proof)(format!(
            r#"{{"iss":"{}","aud":"{}","th":"{}","iat":{}}}"#,
            self.initiator.2,
            self.recipient.2,
            base64url::encode(&th),
            self.issued
        ));
        let proof = jws(self.proof_key, self.proof_type, &claims);
        if self.flip_kem_ciphertext {
            kem_ciphertext[7] ^= 1;
        }

        // §8.1, §9.1
        let key = Prk::from_secret(chain).expand(Label::new("sealwire/1 session message"), b"");
        let header = Header {
            session: self.session.unwrap_or(*id.expose()),
            ratchet_key,
            pn: 0,
            n: 0,
            first: Some(First {
                device_key: self.device_key,
                ephemeral: ephemeral_public,
                kem_ciphertext: &kem_ciphertext,
                generation: self.generation,
                one_time: self
                    .one_time_id
                    .or(self.one_time.as_ref().map(OneTimePrekey::id)),
                proof: &proof,
                attestation: &self.attestation,
            }),
        };
        let mut iv = [0; 12];
        world.rng.fill_bytes(&mut iv);
        message::seal(
            &header,
            MessageKey::new(key),
            iv,
            text.as_bytes(),
            &mut ProtectedHeader::new(),
        )
        .unwrap()
    }
}

/// A well-formed message with this header that no key of any session opens.
pub(crate) fn sealed_with_any_key(world: &mut World, header: Header<'_>) -> Vec<u8> {
    let key = MessageKey::new(Secret::random(&mut world.rng));
    message::seal(
        &header,
        key,
        [0; 12],
        b"forged",
        &mut ProtectedHeader::new(),
    )
    .unwrap()
}

/// Signs a card again after its claims were changed.
pub(crate) fn resigned_card(
    card: &str,
    key: &SigningKey,
    edit: impl FnOnce(&mut serde_json::Value),
) -> String {
    let mut claims: serde_json::Value = serde_json::from_str(&payload(card)).unwrap();
    edit(&mut claims);
    jws(key, "sealwire-card+jwt", &claims.to_string())
}
