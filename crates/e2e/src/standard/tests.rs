//! What a recipient refuses, claim by claim (docs/protocol.md §10.1).

use alloc::{format, string::ToString as _};

use rand::{SeedableRng as _, rngs::ChaCha20Rng};
use sealwire_protocol::{
    ClaimDefect, TokenError, jwe::JweFault, jws::SignatureError, key::SigningKey,
    limits::MAX_ATTESTATION_AGE_SECONDS, name::Issuer,
};

use super::*;
use crate::{card::UnverifiedCard, prekeys::Prekeys};

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "https://relay.example";
const ID: [u8; 16] = [7; 16];

struct Device {
    keys: DeviceKeys,
    own: OwnIdentity,
}

struct World {
    issuer: Issuer,
    issuer_key: SigningKey,
    rng: ChaCha20Rng,
    alice: Device,
    bob: Device,
    now: u64,
}

impl World {
    fn new() -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let issuer_key = SigningKey::generate(&mut rng);
        let mut device = |user| {
            let keys = DeviceKeys::generate(&mut rng);
            let attestation = attestation(&issuer_key, user, keys.thumbprint(), NOW);
            let own = OwnIdentity::new(&keys, &attestation).unwrap();
            Device { keys, own }
        };
        let (alice, bob) = (device("alice"), device("bob"));
        Self {
            issuer: Issuer::new(ISSUER).unwrap(),
            issuer_key,
            rng,
            alice,
            bob,
            now: NOW,
        }
    }

    /// The claims of a good message from Alice to Bob.
    fn claims(&self) -> Message {
        Message {
            iss: *self.alice.keys.thumbprint().as_bytes(),
            aud: *self.bob.keys.thumbprint().as_bytes(),
            user: "bob",
            iat: self.now,
            jti: ID,
            key: *self.alice.keys.signing().public().as_bytes(),
            att: self.alice.own.attestation().to_owned(),
            media_type: "text/plain",
            body: base64url::encode(b"hello"),
        }
    }

    /// Opens what Alice's key has signed.
    fn open(&mut self, message: Message) -> Result<StandardMessage, Error> {
        let jwt = message
            .statement(JwtType::Message)
            .sign(self.alice.keys.signing());
        self.open_jwt(jwt)
    }

    fn open_jwt(&mut self, jwt: String) -> Result<StandardMessage, Error> {
        let bob = self.bob.keys.standard_jwe_public();
        let sealed = jwe::seal(&bob, self.bob.keys.thumbprint(), jwt, &mut self.rng).unwrap();
        self.open_sealed(&sealed)
    }

    fn open_sealed(&self, sealed: &str) -> Result<StandardMessage, Error> {
        let delivered = Delivered {
            device: self.alice.keys.thumbprint(),
            user: "alice",
            id: ID,
        };
        self.open_delivered(sealed, delivered)
    }

    fn open_delivered(
        &self,
        sealed: &str,
        delivered: Delivered<'_>,
    ) -> Result<StandardMessage, Error> {
        let policy = AttestationPolicy {
            issuer: &self.issuer,
            audience: AUDIENCE,
            now: self.now,
            max_age: MAX_ATTESTATION_AGE_SECONDS,
        };
        open(
            &self.bob.keys,
            &self.bob.own,
            delivered,
            sealed.as_bytes(),
            self.issuer_key.public(),
            &policy,
        )
    }
}

struct Message {
    iss: [u8; 32],
    aud: [u8; 32],
    user: &'static str,
    iat: u64,
    jti: [u8; 16],
    key: [u8; 32],
    att: String,
    media_type: &'static str,
    body: String,
}

impl Message {
    fn statement(&self, jwt_type: JwtType) -> Statement {
        Statement::new(jwt_type)
            .bytes("iss", &self.iss)
            .bytes("aud", &self.aud)
            .text("user", self.user)
            .integer("iat", self.iat)
            .bytes("jti", &self.jti)
            .bytes("key", &self.key)
            .text("att", &self.att)
            .text("type", self.media_type)
            .text("body", &self.body)
    }
}

fn attestation(issuer: &SigningKey, user: &str, device: Thumbprint, issued: u64) -> String {
    let header = r#"{"alg":"EdDSA","typ":"sealwire-attestation+jwt"}"#;
    let claims = format!(
        r#"{{"iss":"{ISSUER}","sub":"{user}","aud":"{AUDIENCE}","iat":{issued},"exp":{},"cnf":{{"jkt":"{device}"}}}}"#,
        issued + 60
    );
    let [header, claims] = [header, &claims].map(|part| base64url::encode(part.as_bytes()));
    let input = format!("{header}.{claims}");
    let signature = base64url::encode(&issuer.sign(input.as_bytes()));
    format!("{input}.{signature}")
}

#[test]
fn message_that_was_sealed_to_a_card_opens_with_its_sender() {
    let mut world = World::new();
    let card = Prekeys::new()
        .publish(&world.bob.keys, &world.bob.own, &mut world.rng, NOW)
        .unwrap();
    let policy = AttestationPolicy {
        issuer: &world.issuer,
        audience: AUDIENCE,
        now: NOW,
        max_age: 1,
    };
    let card = UnverifiedCard::parse(card.as_bytes())
        .and_then(|card| card.verify(world.issuer_key.public(), &policy, None))
        .unwrap();
    let body = Body {
        media_type: "text/plain",
        bytes: &[0xff; 30_000],
    };
    let Device { keys, own } = &world.alice;
    let sealed = seal(keys, own, &card, ID, &body, &mut world.rng, NOW).unwrap();
    assert!(is_standard(sealed.as_bytes()) && !is_standard(&[1]) && !is_standard(&[]));
    let opened = world.open_sealed(&sealed).unwrap();
    assert_eq!(opened.body().bytes, body.bytes);
    assert_eq!(opened.body().media_type, "text/plain");
    assert_eq!(opened.time(), NOW);
    assert_eq!(opened.sender().user.as_str(), "alice");
    assert_eq!(opened.sender().device, keys.thumbprint());
    assert!(!format!("{opened:?}").contains("255"));

    let long = Body {
        media_type: "text/plain",
        bytes: &[0; 60_000],
    };
    assert_eq!(
        seal(keys, own, &card, ID, &long, &mut world.rng, NOW),
        Err(Misuse::Seal(SealError::ContentTooLong).into())
    );
    let late = NOW + MAX_OWN_ATTESTATION_AGE_SECONDS + 1;
    assert_eq!(
        seal(keys, own, &card, ID, &body, &mut world.rng, late),
        Err(Misuse::AttestationTooOld.into())
    );
}

#[test]
fn message_for_or_from_somebody_else_is_refused() {
    let mut world = World::new();
    let bob = *world.bob.keys.thumbprint().as_bytes();
    world.open(world.claims()).unwrap();
    for edit in [
        (|message, _| message.aud = message.iss) as fn(&mut Message, [u8; 32]),
        |message, bob| message.iss = bob,
        |message, _| message.user = "bobby",
    ] {
        let mut message = world.claims();
        edit(&mut message, bob);
        let refused = world.open(message).unwrap_err();
        assert_eq!(refused, Misbehaved::MessageParties.into());
    }
    let other_key = Message {
        key: *world.bob.keys.signing().public().as_bytes(),
        ..world.claims()
    };
    assert_eq!(
        world.open(other_key).unwrap_err(),
        Misbehaved::AnotherDevice.into()
    );
}

/// The relay can neither give a message another sender, nor another id under which it would be shown twice.
#[test]
fn message_that_the_relay_delivers_as_another_is_refused() {
    let mut world = World::new();
    let jwt = world
        .claims()
        .statement(JwtType::Message)
        .sign(world.alice.keys.signing());
    let bob = world.bob.keys.standard_jwe_public();
    let sealed = jwe::seal(&bob, world.bob.keys.thumbprint(), jwt, &mut world.rng).unwrap();
    let right = Delivered {
        device: world.alice.keys.thumbprint(),
        user: "alice",
        id: ID,
    };
    world.open_delivered(&sealed, right).unwrap();
    let refused = |delivered| world.open_delivered(&sealed, delivered).unwrap_err();
    let id = [8; 16];
    assert_eq!(
        refused(Delivered { id, ..right }),
        Misbehaved::MessageId.into()
    );
    let user = "mallory";
    assert_eq!(
        refused(Delivered { user, ..right }),
        Misbehaved::AnotherIdentity.into()
    );
    let device = world.bob.keys.thumbprint();
    assert_eq!(
        refused(Delivered { device, ..right }),
        Misbehaved::AnotherDevice.into()
    );
}

#[test]
fn message_that_its_sender_has_not_signed_is_refused() {
    let mut world = World::new();
    let jwt = world
        .claims()
        .statement(JwtType::Message)
        .sign(world.bob.keys.signing());
    assert_eq!(
        world.open_jwt(jwt).unwrap_err(),
        Misbehaved::MessageSignature.into()
    );
}

#[test]
fn attestation_has_to_be_the_issuers_and_of_the_signer() {
    let mut world = World::new();
    let of_bob = Message {
        att: world.bob.own.attestation().to_owned(),
        ..world.claims()
    };
    assert_eq!(
        world.open(of_bob).unwrap_err(),
        Misbehaved::AttestationOfAnotherDevice.into()
    );
    let alice = world.alice.keys.thumbprint();
    let forged = Message {
        att: attestation(world.alice.keys.signing(), "alice", alice, NOW),
        ..world.claims()
    };
    assert_eq!(
        world.open(forged).unwrap_err(),
        Error::Attestation(SignatureError::Invalid.into())
    );
    let old = NOW - MAX_ATTESTATION_AGE_SECONDS - 1;
    let old = Message {
        att: attestation(&world.issuer_key, "alice", alice, old),
        ..world.claims()
    };
    assert_eq!(
        world.open(old).unwrap_err(),
        Error::Attestation(TokenError::Claim {
            claim: "iat",
            defect: ClaimDefect::TooOld
        })
    );
}

#[test]
fn message_is_good_for_30_days_and_not_before_it_was_written() {
    let mut world = World::new();
    let at = |iat: u64, world: &mut World| {
        let message = Message {
            iat,
            ..world.claims()
        };
        world.open(message).map(|message| message.time())
    };
    assert_eq!(at(NOW + 60, &mut world), Ok(NOW + 60));
    assert_eq!(
        at(NOW + 61, &mut world),
        Err(Misbehaved::MessageInFuture.into())
    );
    let oldest = NOW - 30 * 24 * 60 * 60;
    assert_eq!(at(oldest, &mut world), Ok(oldest));
    assert_eq!(
        at(oldest - 1, &mut world),
        Err(Misbehaved::MessageTooOld.into())
    );
}

#[test]
fn body_and_media_type_are_those_of_any_message() {
    let mut world = World::new();
    let malformed = Err(Malformed::StandardMessage.into());
    let body = |body: String, media_type, world: &mut World| {
        let message = Message {
            body,
            media_type,
            ..world.claims()
        };
        world
            .open(message)
            .map(|message| message.body().bytes.len())
    };
    assert_eq!(body(String::new(), "a/b", &mut world), Ok(0));
    for media_type in ["", "text", "text/", "a/b\n"] {
        assert_eq!(body(String::new(), media_type, &mut world), malformed);
    }
    for text in ["=", "a", "aGVsbG8=", "aGVsbG9"] {
        assert_eq!(
            body(text.to_owned(), "a/b", &mut world),
            malformed,
            "{text}"
        );
    }
}

#[test]
fn what_is_inside_is_the_one_type_of_jwt_and_says_so_outside() {
    let mut world = World::new();
    let malformed = Error::from(Malformed::StandardMessage);
    for jwt_type in [JwtType::Card, JwtType::Session, JwtType::DeviceProof] {
        let jwt = world
            .claims()
            .statement(jwt_type)
            .sign(world.alice.keys.signing());
        assert_eq!(world.open_jwt(jwt).unwrap_err(), malformed, "{jwt_type:?}");
    }
    for statement in [
        world.claims().statement(JwtType::Message).text("more", ""),
        Statement::new(JwtType::Message),
    ] {
        let jwt = statement.sign(world.alice.keys.signing());
        assert_eq!(world.open_jwt(jwt).unwrap_err(), malformed);
    }
    assert_eq!(world.open_jwt("hello".to_string()).unwrap_err(), malformed);
}

#[test]
fn jwe_of_another_form_or_for_another_key_does_not_open() {
    let mut world = World::new();
    let jwt = world
        .claims()
        .statement(JwtType::Message)
        .sign(world.alice.keys.signing());
    let (alice, bob) = (
        world.alice.keys.standard_jwe_public(),
        world.bob.keys.standard_jwe_public(),
    );
    let device = world.bob.keys.thumbprint();
    let other = jwe::seal(&alice, device, jwt.clone(), &mut world.rng).unwrap();
    assert_eq!(world.open_sealed(&other).unwrap_err(), Error::Decrypt);
    assert_eq!(
        world.open_sealed("e.a").unwrap_err(),
        Malformed::StandardJwe(JweFault::Parts).into()
    );
    let sealed = jwe::seal(&bob, device, jwt, &mut world.rng).unwrap();
    world.open_sealed(&sealed).unwrap();
    // Every part is authenticated: the last character of each that has no unused bits, and all of the header.
    let parts: Vec<&str> = sealed.split('.').collect();
    for at in 0..5 {
        let mut parts = parts.clone();
        let first = if parts[at].starts_with('A') { "B" } else { "A" };
        let changed = format!("{first}{}", &parts[at][1..]);
        parts[at] = &changed;
        let changed = parts.join(".");
        assert!(world.open_sealed(&changed).is_err(), "part {at}");
    }
    let header = base64url::decode(parts[0].as_bytes()).unwrap();
    let header = String::from_utf8(header).unwrap();
    let without = header.replace(r#""cty":"JWT","#, "");
    let without = sealed.replace(parts[0], &base64url::encode(without.as_bytes()));
    assert_eq!(
        world.open_sealed(&without).unwrap_err(),
        Malformed::StandardMessage.into()
    );
    let other = header.replace("JWT", "JWS");
    let other = sealed.replace(parts[0], &base64url::encode(other.as_bytes()));
    assert_eq!(
        world.open_sealed(&other).unwrap_err(),
        Malformed::StandardMessage.into()
    );
}
