//! What libFuzzer drives and `cargo test` replays: one function for each target. Each panics only if a promise is broken.

mod rogue;
mod world;

use sealwire_e2e::card::UnverifiedCard;
use sealwire_e2e::content::Content;
use sealwire_e2e::file::FileOffer;
use sealwire_e2e::inspect::inspect;
use sealwire_e2e::message::{SealedMessage, from_jwe};
use sealwire_e2e::one_time::OneTimePrekey;
use sealwire_e2e::padding::unpad;
use sealwire_e2e::peer::Local;
use sealwire_protocol::address::Address;
use sealwire_protocol::codec::Reader;
use sealwire_protocol::dpop::{self, UnverifiedDpopProof};
use sealwire_protocol::frame::{Frame, ToDevice, ToRelay};
use sealwire_protocol::handshake::{DeviceHello, RelayHandshake};
use sealwire_protocol::introduction::Introduction;
use sealwire_protocol::invite::Invitation;
use sealwire_protocol::json::Object;
use sealwire_protocol::jwe::UnopenedJwe;
use sealwire_protocol::jws::{JwtType, SignatureError, SignatureVerifier, Signed, UnverifiedJws};
use sealwire_protocol::key_set::Ed25519KeySet;
use sealwire_protocol::proof::{DeviceProof, RelayProof};
use sealwire_protocol::provider::UnverifiedProviderToken;
use sealwire_protocol::succession::Succession;
use sealwire_protocol::token::{UnverifiedAccessToken, UnverifiedAttestation};

pub use world::World;

/// Frames of either direction: what decodes encodes to the same bytes.
pub fn frames(data: &[u8]) {
    fn both_ways<'a, F: Frame<'a>>(data: &'a [u8]) {
        let mut reader = Reader::new(data);
        let mut encoded = Vec::new();
        while let Ok(frame) = F::decode(&mut reader) {
            frame
                .encode(&mut encoded)
                .expect("what was decoded is within its bounds");
            assert!(data.starts_with(&encoded), "decoding lost something");
        }
    }
    both_ways::<ToRelay>(data);
    both_ways::<ToDevice>(data);
}

/// Takes every signature, so that what is behind it is reached.
struct AnySignature;

impl SignatureVerifier for AnySignature {
    fn verify(&self, _: Signed<'_>) -> Result<(), SignatureError> {
        Ok(())
    }
}

/// Everything that reads a token or JSON: nothing is accepted that nobody signed.
pub fn jws(data: &[u8]) {
    let world = World::shared();
    let _ = Object::parse(data);
    let _ = Ed25519KeySet::from_jwks(data);
    for jwt_type in [
        JwtType::AccessToken,
        JwtType::Attestation,
        JwtType::RelayProof,
        JwtType::DeviceProof,
        JwtType::Succession,
        JwtType::Card,
        JwtType::Session,
        JwtType::Message,
    ] {
        let _ = UnverifiedJws::parse(data, &[jwt_type]);
    }
    // Anybody may have signed a proof of a request, with the key in it.
    if let Ok(proof) = UnverifiedDpopProof::parse(data) {
        let request = dpop::Request {
            method: "GET",
            host: "relay.example",
            path: "/",
        };
        let _ = proof.verify(b"", request, 0);
    }
    // A statement names the key that signs it: anybody may have made one.
    let _ = Succession::verify(data, world.now);
    // The one token that the issuer signed for anybody in this world verifies; nothing else does.
    if let Ok(token) = UnverifiedAccessToken::parse(data) {
        assert!(
            token
                .verify(&world.issuer_keys, &world.access_policy())
                .is_err()
                || world.knows_token(data)
        );
    }
    if let Ok(attestation) = UnverifiedAttestation::parse(data) {
        assert!(
            attestation
                .verify(&world.issuer_keys, &world.attestation_policy())
                .is_err()
                || world.knows_token(data)
        );
    }
    if let Ok(token) = UnverifiedProviderToken::parse(data) {
        // Bob's is not for Alice's device.
        assert!(
            token
                .verify(&world.issuer_keys, &world.provider_policy())
                .is_err()
                || data == world.alice.token.as_bytes()
        );
    }
    // Whatever a provider signs.
    let policy = world.provider_policy();
    if let Ok(token) = UnverifiedProviderToken::parse(data)
        && let Ok(token) = token.verify(&AnySignature, &policy)
    {
        assert!((1..=255).contains(&token.id().len()), "it can be revoked");
        assert!(token.issued() < token.expires());
        assert!(token.issued() <= policy.now + 60 && token.expires() > policy.now - 60);
        for claim in ["at_hash", "c_hash", "s_hash", "events"] {
            assert!(token.claims().member(claim).is_none(), "{claim}");
        }
    }
    let nothing = [0; 32];
    let relay = RelayProof {
        hello: nothing,
        transcript: nothing,
    };
    assert!(relay.verify(data, world.relay.public(), world.now).is_err());
    let device = DeviceProof {
        relay: world.relay.thumbprint(),
        transcript: nothing,
        credential: nothing,
    };
    assert!(
        device
            .verify(data, world.alice.keys.signing().public(), world.now)
            .is_err()
    );
    if let Ok(card) = UnverifiedCard::parse(data) {
        assert!(
            card.verify(&world.issuer_keys, &world.attestation_policy(), None)
                .is_err()
                || world.knows_card(data)
        );
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = text.parse::<Address>();
        let _ = Invitation::parse(text);
        if let Ok(introduction) = Introduction::parse(text) {
            assert_eq!(introduction.to_line(), text);
        }
    }
}

/// Sealed messages in both forms, and what is inside: conversion loses nothing.
pub fn sealed_message(data: &[u8]) {
    if let Ok(message) = SealedMessage::decode(data) {
        let jwe = message.to_jwe();
        assert_eq!(from_jwe(&jwe).as_deref(), Ok(data));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(binary) = from_jwe(text)
    {
        let message = SealedMessage::decode(&binary).expect("a converted message decodes");
        assert_eq!(message.to_jwe(), text);
    }
    // A sealed message is never taken for a standard JWE, nor the reverse.
    assert!(SealedMessage::decode(data).is_err() || UnopenedJwe::parse(data).is_err());
    if let Ok(content) = Content::decode(data) {
        assert_eq!(content.encode().as_deref(), Ok(data));
    }
    if let Ok(offer) = FileOffer::decode(data) {
        assert_eq!(offer.encode().as_deref(), Ok(data));
    }
    if let Some(content) = unpad(data) {
        assert!(content.len() < data.len());
    }
    let _ = OneTimePrekey::decode(data);
    let _ = inspect(data);
}

/// A relay that waits for Hello, chosen by every first byte but these.
pub const AWAITS_HELLO: u8 = 0xff;
/// A device that waits for Accept.
pub const AWAITS_ACCEPT: u8 = 0;
/// A relay that waits for Finish.
pub const AWAITS_FINISH: u8 = 1;
/// A relay that waits for Finish, from a device with keys: the input is what Finish seals.
pub const AWAITS_FINISH_SECRET: u8 = 2;
/// Both ends of a link.
pub const LINKED: u8 = 3;

/// Both ends of the link handshake in every state, and links: nothing that an attacker without keys says makes a link or a frame, and
/// nothing that a device says in Finish proves a key that it does not hold.
///
/// The first byte chooses the state, and the rest is what arrives in it. Most of them choose the state that costs no key agreement.
pub fn link_handshake(data: &[u8]) {
    let world = World::shared();
    let Some((state, message)) = data.split_first() else {
        return;
    };
    match *state {
        AWAITS_ACCEPT => {
            let (device, _) = DeviceHello::start(&mut World::rng(1));
            assert!(device.on_accept(message, &world.terms()).is_err());
        }
        AWAITS_FINISH => {
            let (relay, _) = world.accept(&world.rogue.hello);
            assert!(relay.on_finish(message).is_err());
        }
        AWAITS_FINISH_SECRET => {
            let (relay, _) = world.accept(&world.rogue.hello);
            if let Ok(peer) = relay.on_finish(&world.rogue.finish(message)) {
                assert!(peer.prove(world.now).is_err() || message == world.finish_secret);
            }
        }
        LINKED => {
            let (mut device, mut relay) = world.linked();
            assert!(device.handle_message(&mut message.to_vec()).is_err());
            assert!(relay.handle_message(&mut message.to_vec()).is_err());
        }
        _ => {
            let relay = RelayHandshake::new(&world.relay, None);
            let _ = relay.on_hello(message, &mut World::rng(1), world.now);
        }
    }
}

/// A device with a session, given messages: nothing opens that was not sealed, and what does not open changes nothing.
pub fn ratchet(data: &[u8]) {
    let world = World::shared();
    let Ok(message) = SealedMessage::decode(data) else {
        return;
    };
    let (mut peer, mut prekeys) = world.bob_state();
    let before = (peer.encode(), prekeys.encode());
    let opened = peer.open(
        Local {
            keys: &world.bob.keys,
            own: &world.bob.own,
            prekeys: &mut prekeys,
        },
        &message,
        &world.issuer_keys,
        &world.attestation_policy(),
    );
    match opened {
        Ok(_) => assert!(world.was_sealed(data), "opened what nobody sealed"),
        Err(_) => assert!(
            before == (peer.encode(), prekeys.encode()),
            "a failed open changed the state"
        ),
    }
}
