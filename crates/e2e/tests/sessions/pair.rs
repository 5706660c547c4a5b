//! The harness: an issuer, devices, and a relay that is a pair of variables.

use rand::{SeedableRng as _, rngs::ChaCha20Rng};
use sealwire_e2e::{
    card::{SeenCard, UnverifiedCard, VerifiedCard},
    device::{DeviceKeys, OwnIdentity},
    error::Error,
    message::SealedMessage,
    one_time::{OneTimePrekey, VerifiedOneTimePrekey},
    peer::{Local, Opened, Peer, SessionId},
    prekeys::Prekeys,
};
use sealwire_protocol::{
    base64url,
    key::{SigningKey, Thumbprint},
    key_set::Ed25519KeySet,
    limits::MAX_ATTESTATION_AGE_SECONDS,
    name::Issuer,
    token::AttestationPolicy,
};

pub(crate) const START: u64 = 1_800_000_000;
/// The id of every first card and one-time prekey: the time at which it is made (docs/protocol.md §6.1).
pub(crate) const FIRST: u32 = 1_800_000_000;
pub(crate) const DAY: u64 = 24 * 60 * 60;
pub(crate) const ISSUER: &str = "https://issuer.example";
pub(crate) const AUDIENCE: &str = "https://relay.example";

/// Everything that is not a device: the issuer, the clock, randomness.
pub(crate) struct World {
    pub(crate) issuer_key: SigningKey,
    pub(crate) issuer: Issuer,
    pub(crate) issuer_keys: Ed25519KeySet,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) now: u64,
}

/// One device, what the relay holds for it, and what it knows of the other device.
pub(crate) struct Device {
    pub(crate) keys: DeviceKeys,
    pub(crate) own: OwnIdentity,
    pub(crate) prekeys: Prekeys,
    pub(crate) peer: Peer,
    pub(crate) card: String,
    pub(crate) one_time: Vec<OneTimePrekey>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let issuer_key = SigningKey::generate(&mut rng);
        let issuer_keys = Ed25519KeySet::single(*issuer_key.public());
        Self {
            issuer_key,
            issuer: Issuer::new(ISSUER).unwrap(),
            issuer_keys,
            rng,
            now: START,
        }
    }

    /// Alice and Bob, with cards and one one-time prekey each.
    pub(crate) fn pair(seed: u64) -> (Self, Device, Device) {
        let mut world = Self::new(seed);
        let mut alice = world.device("alice");
        let mut bob = world.device("bob");
        alice.peer = Peer::new(bob.keys.thumbprint());
        bob.peer = Peer::new(alice.keys.thumbprint());
        (world, alice, bob)
    }

    /// Alice and Bob after one message each way.
    pub(crate) fn talking(seed: u64) -> (Self, Device, Device) {
        let (mut world, mut alice, mut bob) = Self::pair(seed);
        world.start(&mut alice, &mut bob);
        let first = world.seal(&mut alice, "first");
        world.open(&mut bob, &first).unwrap();
        let reply = world.seal(&mut bob, "reply");
        world.open(&mut alice, &reply).unwrap();
        (world, alice, bob)
    }

    /// A device whose peer is not set yet.
    pub(crate) fn device(&mut self, user: &str) -> Device {
        let keys = DeviceKeys::generate(&mut self.rng);
        let own = OwnIdentity::new(&keys, &self.attest(user, keys.thumbprint())).unwrap();
        let mut prekeys = Prekeys::new();
        let card = prekeys
            .publish(&keys, &own, &mut self.rng, self.now)
            .unwrap();
        let one_time = prekeys
            .publish_one_time(&keys, 1, &mut self.rng, self.now)
            .unwrap();
        let peer = Peer::new(Thumbprint::from_bytes([0; 32]));
        Device {
            keys,
            own,
            prekeys,
            peer,
            card,
            one_time,
        }
    }

    pub(crate) fn attest(&self, user: &str, device: Thumbprint) -> String {
        attestation(&self.issuer_key, ISSUER, user, device, self.now)
    }

    pub(crate) fn policy(&self) -> AttestationPolicy<'_> {
        AttestationPolicy {
            issuer: &self.issuer,
            audience: AUDIENCE,
            now: self.now,
            max_age: MAX_ATTESTATION_AGE_SECONDS,
        }
    }

    pub(crate) fn verify_card(
        &self,
        card: &str,
        seen: Option<SeenCard>,
    ) -> Result<VerifiedCard, Error> {
        UnverifiedCard::parse(card.as_bytes())?.verify(&self.issuer_keys, &self.policy(), seen)
    }

    /// What a relay hands out of a device: its card, and its next one-time prekey.
    pub(crate) fn fetch(&self, of: &mut Device) -> (VerifiedCard, Option<VerifiedOneTimePrekey>) {
        let card = self.verify_card(&of.card, None).unwrap();
        let one_time = of
            .one_time
            .pop()
            .map(|prekey| prekey.verify(&card).unwrap());
        (card, one_time)
    }

    /// Has `from` start a session with `to`, with a one-time prekey while there is one.
    pub(crate) fn start(&mut self, from: &mut Device, to: &mut Device) -> SessionId {
        let (card, one_time) = self.fetch(to);
        from.peer
            .start(
                &from.keys,
                &from.own,
                &card,
                one_time,
                &mut self.rng,
                self.now,
            )
            .unwrap()
    }

    pub(crate) fn seal(&mut self, from: &mut Device, text: &str) -> Vec<u8> {
        from.peer.seal(text.as_bytes(), &mut self.rng).unwrap()
    }

    /// Opens at `at`. After a refusal nothing at all has changed (docs/protocol.md §7.3, §8.2).
    pub(crate) fn open(&self, at: &mut Device, message: &[u8]) -> Result<Opened, Error> {
        let before = (at.peer.encode(), at.prekeys.encode());
        let message = SealedMessage::decode(message).unwrap();
        let Device {
            keys,
            own,
            prekeys,
            peer,
            ..
        } = at;
        let result = peer.open(
            Local { keys, own, prekeys },
            &message,
            &self.issuer_keys,
            &self.policy(),
        );
        if result.is_err() {
            assert!(
                before == (at.peer.encode(), at.prekeys.encode()),
                "a refused message changed the state"
            );
        }
        result
    }

    /// Seals at one device and opens at the other.
    pub(crate) fn send(&mut self, from: &mut Device, to: &mut Device, text: &str) -> Opened {
        let message = self.seal(from, text);
        let opened = self.open(to, &message).unwrap();
        assert_eq!(*opened.content, text.as_bytes());
        opened
    }
}

/// An attestation as an issuer would sign it (docs/protocol.md §2.3).
pub(crate) fn attestation(
    key: &SigningKey,
    issuer: &str,
    user: &str,
    device: Thumbprint,
    iat: u64,
) -> String {
    let payload = format!(
        r#"{{"iss":"{issuer}","sub":"{user}","aud":"{AUDIENCE}","iat":{iat},"exp":{},"cnf":{{"jkt":"{device}"}}}}"#,
        iat + 3_600
    );
    jws(key, "sealwire-attestation+jwt", &payload)
}

/// Any JWS: the tests' own signer, so that a statement can say what no API would let it.
pub(crate) fn jws(key: &SigningKey, typ: &str, payload: &str) -> String {
    let header = format!(r#"{{"alg":"EdDSA","typ":"{typ}"}}"#);
    let input = format!(
        "{}.{}",
        base64url::encode(header.as_bytes()),
        base64url::encode(payload.as_bytes())
    );
    let signature = base64url::encode(&key.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

/// The payload of a JWS, to change and sign again.
pub(crate) fn payload(compact: &str) -> String {
    let part = compact.split('.').nth(1).unwrap();
    String::from_utf8(base64url::decode(part.as_bytes()).unwrap()).unwrap()
}
