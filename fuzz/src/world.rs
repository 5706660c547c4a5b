//! A small world with fixed keys: an issuer, a relay, and two devices in the middle of a session.

use std::sync::LazyLock;

use rand::{SeedableRng as _, rngs::StdRng};
use sealwire_e2e::card::{UnverifiedCard, VerifiedCard};
use sealwire_e2e::device::{DeviceKeys, OwnIdentity};
use sealwire_e2e::message::SealedMessage;
use sealwire_e2e::peer::{Local, Peer};
use sealwire_e2e::prekeys::Prekeys;
use sealwire_protocol::base64url;
use sealwire_protocol::frame::{Ready, ToDevice};
use sealwire_protocol::handshake::{
    Credential, DeviceHello, DeviceTerms, Presented, RelayAccept, RelayHandshake,
};
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::key_set::Ed25519KeySet;
use sealwire_protocol::limits::MAX_ATTESTATION_AGE_SECONDS;
use sealwire_protocol::link::{DeviceLink, RelayLink};
use sealwire_protocol::name::Issuer;
use sealwire_protocol::proof::DeviceProof;
use sealwire_protocol::provider::ProviderPolicy;
use sealwire_protocol::token::{
    AccessPolicy, AttestationPolicy, UnverifiedAccessToken, credential_hash,
};

use crate::rogue::Rogue;

const AUDIENCE: &str = "urn:example:relay";

/// Fixed keys and what they have said so far.
pub struct World {
    /// The time, in seconds since 1970.
    pub now: u64,
    /// The issuer's public keys.
    pub issuer_keys: Ed25519KeySet,
    /// The relay's key.
    pub relay: SigningKey,
    /// The sender.
    pub alice: Device,
    /// The recipient.
    pub bob: Device,
    /// What Alice sealed for Bob: two first messages, then, after an answer, three ordinary ones. Bob has opened only the first.
    pub sealed: Vec<Vec<u8>>,
    /// What Alice would say in the rogue's Finish: the one proof that is good there.
    pub finish_secret: Vec<u8>,
    pub(crate) rogue: Rogue,
    issuer: Issuer,
    relays: [Thumbprint; 1],
    bob_peer: Vec<u8>,
    bob_prekeys: Vec<u8>,
}

/// One device.
pub struct Device {
    /// Its keys.
    pub keys: DeviceKeys,
    /// Its attestation.
    pub own: OwnIdentity,
    /// Its token.
    pub token: String,
    /// Its card.
    pub card: String,
}

static WORLD: LazyLock<World> = LazyLock::new(World::new);

impl World {
    /// The one world of this process.
    pub fn shared() -> &'static Self {
        &WORLD
    }

    /// Fixed randomness: a run is the same every time. Seeds are made with another `seed` than targets run with.
    pub fn rng(seed: u64) -> StdRng {
        StdRng::seed_from_u64(seed)
    }

    /// What the relay expects of tokens.
    pub fn access_policy(&self) -> AccessPolicy<'_> {
        AccessPolicy {
            issuer: &self.issuer,
            audience: AUDIENCE,
            now: self.now,
        }
    }

    /// What devices expect of attestations.
    pub fn attestation_policy(&self) -> AttestationPolicy<'_> {
        AttestationPolicy {
            issuer: &self.issuer,
            audience: AUDIENCE,
            now: self.now,
            max_age: MAX_ATTESTATION_AGE_SECONDS,
        }
    }

    /// What a relay that exchanges the issuer's tokens expects of one that Alice presents.
    pub fn provider_policy(&self) -> ProviderPolicy<'_> {
        static TYPES: LazyLock<Vec<Box<str>>> =
            LazyLock::new(|| ["JWT", "at+jwt", ""].map(Into::into).to_vec());
        ProviderPolicy {
            issuer: &self.issuer,
            audience: AUDIENCE,
            types: &TYPES,
            id_tokens: false,
            device: self.alice.keys.thumbprint(),
            max_age: MAX_ATTESTATION_AGE_SECONDS,
            now: self.now,
        }
    }

    /// What Alice goes into a handshake with.
    pub fn terms(&self) -> DeviceTerms<'_> {
        DeviceTerms {
            relays: &self.relays,
            key: self.alice.keys.signing(),
            credential: Credential::Token(self.alice.token.as_bytes()),
            now: self.now,
        }
    }

    /// Whether the issuer signed this token.
    pub fn knows_token(&self, token: &[u8]) -> bool {
        [&self.alice, &self.bob]
            .iter()
            .any(|device| device.token.as_bytes() == token)
    }

    /// Whether a device signed this card.
    pub fn knows_card(&self, card: &[u8]) -> bool {
        [&self.alice, &self.bob]
            .iter()
            .any(|device| device.card.as_bytes() == card)
    }

    /// Whether Alice sealed these bytes.
    pub fn was_sealed(&self, message: &[u8]) -> bool {
        self.sealed.iter().any(|sealed| sealed == message)
    }

    /// Bob's state towards Alice, and his prekeys.
    pub fn bob_state(&self) -> (Peer, Prekeys) {
        (
            Peer::decode(&self.bob_peer).expect("own state"),
            Prekeys::decode(&self.bob_prekeys).expect("own state"),
        )
    }

    /// The relay's answer to a Hello that is good: the same every time.
    pub(crate) fn accept(&self, hello: &[u8]) -> (RelayAccept, Vec<u8>) {
        accept(&self.relay, hello, self.now)
    }

    /// Alice's link with the relay, after Ready.
    pub(crate) fn linked(&self) -> (DeviceLink, RelayLink) {
        let (device, hello) = DeviceHello::start(&mut Self::rng(1));
        let (relay, accept) = self.accept(&hello);
        let (mut device, finish) = device
            .on_accept(&accept, &self.terms())
            .expect("an honest Accept");
        let proven = relay
            .on_finish(&finish)
            .expect("an honest Finish")
            .prove(self.now)
            .expect("an honest proof");
        assert!(matches!(proven.credential(), Presented::Token(_)));
        let token = UnverifiedAccessToken::parse(self.alice.token.as_bytes())
            .expect("a token")
            .verify(&self.issuer_keys, &self.access_policy())
            .expect("the issuer's token");
        let mut relay = proven.authorise(token).expect("Alice's token");
        let ready = ToDevice::Ready(self.ready());
        let mut record = relay.seal_frame(&ready).expect("Ready");
        assert_eq!(
            device.handle_message(&mut record).expect("Ready").count(),
            1
        );
        (device, relay)
    }

    fn ready(&self) -> Ready<'_> {
        Ready {
            device: self.alice.keys.thumbprint(),
            user: "alice",
            time: self.now,
            token_expires: self.now + 3600,
            max_message: 65_536,
            has_card: true,
            prekeys: 20,
            epoch: [7; 16],
            acknowledged: 0,
            head: 0,
            sent: 0,
            waiting: 0,
        }
    }

    fn new() -> Self {
        let mut rng = Self::rng(0);
        let now = 1_800_000_000;
        let issuer_key = SigningKey::generate(&mut rng);
        let relay = SigningKey::generate(&mut rng);
        let relays = [relay.thumbprint()];
        let issuer: Issuer = "https://issuer.example".parse().expect("a name");
        let issuer_keys = Ed25519KeySet::single(*issuer_key.public());
        let (alice, _) = Device::new("alice", &issuer_key, now, &mut rng);
        let (bob, mut bob_prekeys) = Device::new("bob", &issuer_key, now, &mut rng);
        let rogue = Rogue::new(&mut Self::rng(3), |hello| accept(&relay, hello, now).1);
        let finish_secret = finish_secret(&alice, relay.thumbprint(), rogue.t2, now);
        let mut world = Self {
            now,
            rogue,
            finish_secret,
            issuer_keys,
            relay,
            alice,
            bob,
            sealed: Vec::new(),
            issuer,
            relays,
            bob_peer: Vec::new(),
            bob_prekeys: Vec::new(),
        };
        world.converse(&mut bob_prekeys, &mut rng);
        world
    }

    /// Alice starts a session and seals; Bob opens the first message and answers.
    fn converse(&mut self, bob_prekeys: &mut Prekeys, rng: &mut StdRng) {
        let one_time = bob_prekeys
            .publish_one_time(&self.bob.keys, 2, rng, self.now)
            .expect("prekeys")
            .remove(0);
        let card = self.verified(&self.bob.card);
        let one_time = one_time.verify(&card).expect("Bob's prekey");
        let mut to_bob = Peer::new(self.bob.keys.thumbprint());
        to_bob
            .start(
                &self.alice.keys,
                &self.alice.own,
                &card,
                Some(one_time),
                rng,
                self.now,
            )
            .expect("a session");
        let mut sealed = Vec::new();
        for content in [&b"first"[..], b"second"] {
            sealed.push(to_bob.seal(content, rng).expect("sealed"));
        }
        let mut to_alice = Peer::new(self.alice.keys.thumbprint());
        let message = SealedMessage::decode(&sealed[0]).expect("sealed");
        let local = Local {
            keys: &self.bob.keys,
            own: &self.bob.own,
            prekeys: bob_prekeys,
        };
        to_alice
            .open(
                local,
                &message,
                &self.issuer_keys,
                &self.attestation_policy(),
            )
            .expect("Alice's message");
        let answer = to_alice.seal(b"answer", rng).expect("sealed");
        let message = SealedMessage::decode(&answer).expect("sealed");
        let local = Local {
            keys: &self.alice.keys,
            own: &self.alice.own,
            prekeys: &mut Prekeys::new(),
        };
        to_bob
            .open(
                local,
                &message,
                &self.issuer_keys,
                &self.attestation_policy(),
            )
            .expect("Bob's answer");
        for content in [&b"third"[..], b"fourth", b"fifth"] {
            sealed.push(to_bob.seal(content, rng).expect("sealed"));
        }
        self.sealed = sealed;
        self.bob_peer = to_alice.encode().to_vec();
        self.bob_prekeys = bob_prekeys.encode().to_vec();
    }

    fn verified(&self, card: &str) -> VerifiedCard {
        UnverifiedCard::parse(card.as_bytes())
            .and_then(|card| card.verify(&self.issuer_keys, &self.attestation_policy(), None))
            .expect("an honest card")
    }
}

impl Device {
    fn new(user: &str, issuer: &SigningKey, now: u64, rng: &mut StdRng) -> (Self, Prekeys) {
        let keys = DeviceKeys::generate(rng);
        let token = mint(user, keys.thumbprint(), issuer, now);
        let own = OwnIdentity::new(&keys, &token).expect("its own token");
        let mut prekeys = Prekeys::new();
        let card = prekeys.publish(&keys, &own, rng, now).expect("a card");
        (
            Self {
                keys,
                own,
                token,
                card,
            },
            prekeys,
        )
    }
}

fn accept(relay: &SigningKey, hello: &[u8], now: u64) -> (RelayAccept, Vec<u8>) {
    RelayHandshake::new(relay, None)
        .on_hello(hello, &mut World::rng(1), now)
        .expect("an honest Hello is accepted")
}

/// FinishSecret with the device's token (`docs/protocol.md` §3.2, §3.5).
fn finish_secret(device: &Device, relay: Thumbprint, transcript: [u8; 32], now: u64) -> Vec<u8> {
    let credential = device.token.as_bytes();
    let proof = DeviceProof {
        relay,
        transcript,
        credential: credential_hash(credential),
    }
    .sign(device.keys.signing(), now);
    let mut secret = vec![0];
    secret.extend(device.keys.signing().public().as_bytes());
    for part in [proof.as_bytes(), credential] {
        let length = u16::try_from(part.len()).expect("short enough");
        secret.extend(length.to_be_bytes());
        secret.extend(part);
    }
    secret
}

fn mint(user: &str, device: Thumbprint, issuer: &SigningKey, now: u64) -> String {
    let header = base64url::encode(br#"{"alg":"EdDSA","typ":"at+jwt"}"#);
    let claims = format!(
        r#"{{"iss":"https://issuer.example","sub":"{user}","aud":"{AUDIENCE}","exp":{},"iat":{now},"scope":"sealwire:send sealwire:receive sealwire:publish","cnf":{{"jkt":"{device}"}}}}"#,
        now + 3600
    );
    let signed = format!("{header}.{}", base64url::encode(claims.as_bytes()));
    let signature = issuer.sign(signed.as_bytes());
    format!("{signed}.{}", base64url::encode(&signature))
}
