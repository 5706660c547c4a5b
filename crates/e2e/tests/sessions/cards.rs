//! Cards and one-time prekeys: what whoever uses them checks (docs/protocol.md §6).

use sealwire_e2e::{
    card::{SeenCard, UnverifiedCard},
    content::{Body, Content, Kind},
    device::{DeviceKeys, OwnIdentity},
    error::{Error, Malformed, Misbehaved, Misuse},
    message::{ProtectedHeader, SealedMessage},
    one_time::{ONE_TIME_PREKEY_BYTES, OneTimePrekey},
    peer::Peer,
    prekeys::{MAX_ONE_TIME_SECRETS, Prekeys},
};
use sealwire_protocol::{ClaimDefect, TokenError, base64url, jws::SignatureError, key::SigningKey};

use crate::{
    forge::resigned_card,
    pair::{DAY, Device, FIRST, ISSUER, START, World, attestation, jws, payload},
};

/// What verifying Bob's card says after `edit` changed its claims and Bob signed it again.
fn refusal(edit: impl FnOnce(&World, &mut serde_json::Value)) -> Error {
    let (world, _alice, bob) = World::pair(100);
    let card = resigned_card(&bob.card, bob.keys.signing(), |claims| edit(&world, claims));
    world.verify_card(&card, None).unwrap_err()
}

#[test]
fn a_card_verifies_and_says_whose_it_is() {
    let (world, _alice, bob) = World::pair(100);
    let card = world.verify_card(&bob.card, None).unwrap();
    assert_eq!(card.identity().device, bob.keys.thumbprint());
    assert_eq!(
        (
            card.identity().issuer.as_str(),
            card.identity().user.as_str()
        ),
        (ISSUER, "bob")
    );
    assert_eq!(
        card.seen(),
        SeenCard {
            generation: FIRST,
            issued: START
        }
    );
    assert_eq!(*card.standard_jwe(), bob.keys.standard_jwe_public());
    // The same card again is not a rollback.
    world.verify_card(&bob.card, Some(card.seen())).unwrap();
}

/// docs/protocol.md §6.1: neither `id` nor `iat` is smaller than that of a card seen before.
#[test]
fn a_card_rolled_back_is_refused() {
    let (mut world, _alice, mut bob) = World::pair(101);
    world.now += 7 * DAY;
    let newer = bob
        .prekeys
        .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
        .unwrap();
    let seen = world.verify_card(&newer, None).unwrap().seen();
    assert_eq!(
        world.verify_card(&bob.card, Some(seen)).unwrap_err(),
        Error::Misbehaved(Misbehaved::CardRollback)
    );
    for seen in [
        SeenCard {
            generation: FIRST + 1,
            issued: START,
        },
        SeenCard {
            generation: FIRST,
            issued: START + 1,
        },
    ] {
        let error = world.verify_card(&bob.card, Some(seen)).unwrap_err();
        assert_eq!(error, Error::Misbehaved(Misbehaved::CardRollback));
    }
}

/// docs/protocol.md §6.1: ids and times of a device's own cards never go back, whatever its clock does.
#[test]
fn a_device_whose_clock_goes_back_still_publishes_cards_that_are_accepted() {
    let (mut world, _alice, mut bob) = World::pair(102);
    let seen = world.verify_card(&bob.card, None).unwrap().seen();
    let card = bob
        .prekeys
        .publish(&bob.keys, &bob.own, &mut world.rng, START - 60)
        .unwrap();
    assert_eq!(
        world.verify_card(&card, Some(seen)).unwrap().seen(),
        SeenCard {
            generation: FIRST + 1,
            issued: START
        }
    );
}

/// docs/protocol.md §6.1: at most 60 seconds.
#[test]
fn a_card_from_the_future_is_refused() {
    let error = refusal(|_, claims| claims["iat"] = (START + 61).into());
    assert_eq!(error, Error::Misbehaved(Misbehaved::CardInFuture));
    let (world, _alice, bob) = World::pair(100);
    let card = resigned_card(&bob.card, bob.keys.signing(), |claims| {
        claims["iat"] = (START + 60).into();
    });
    world.verify_card(&card, None).unwrap();
}

/// docs/protocol.md §6.1: a clock that was wrong once neither stops new cards nor puts the next ones into the future.
#[test]
fn a_card_from_the_future_is_replaced_as_soon_as_the_clock_is_right() {
    let (mut world, _alice, mut bob) = World::pair(117);
    bob.prekeys
        .publish(&bob.keys, &bob.own, &mut world.rng, START + 3_650 * DAY)
        .unwrap();
    assert!(
        !bob.prekeys
            .needs_new_card(&bob.own, START + 3_650 * DAY - 60)
    );
    assert!(
        bob.prekeys
            .needs_new_card(&bob.own, START + 3_650 * DAY - 61)
    );
    let card = bob
        .prekeys
        .publish(&bob.keys, &bob.own, &mut world.rng, START + 1)
        .unwrap();
    assert_eq!(
        world.verify_card(&card, None).unwrap().seen().issued,
        START + 1
    );
    assert!(!bob.prekeys.needs_new_card(&bob.own, START + 1));
}

/// docs/protocol.md §6.1, §6.2: a device restored from a backup goes on above the ids that it has used since.
#[test]
fn a_device_put_back_to_an_earlier_state_repeats_no_id() {
    let (mut world, _alice, mut bob) = World::pair(118);
    let backup = bob.prekeys.encode();
    let publish = |bob: &mut Device, world: &mut World| {
        let card = bob
            .prekeys
            .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
            .unwrap();
        let one_time = bob
            .prekeys
            .publish_one_time(&bob.keys, 100, &mut world.rng, world.now)
            .unwrap();
        let generation = world.verify_card(&card, None).unwrap().seen().generation;
        (generation, one_time[0].id(), one_time[99].id())
    };
    world.now += DAY;
    let before = publish(&mut bob, &mut world);
    bob.prekeys = Prekeys::decode(&backup).unwrap();
    world.now += 600;
    let after = publish(&mut bob, &mut world);
    assert!(
        after.0 > before.0 && after.1 > before.2,
        "{before:?} {after:?}"
    );
}

/// docs/protocol.md §6.1, §6.2: nor does a wrong clock use all ids up.
#[test]
fn a_clock_at_the_end_of_time_leaves_ids() {
    let (mut world, _alice, mut bob) = World::pair(119);
    for _ in 0..3 {
        bob.prekeys
            .publish(&bob.keys, &bob.own, &mut world.rng, u64::MAX)
            .unwrap();
        let one_time = bob
            .prekeys
            .publish_one_time(&bob.keys, 100, &mut world.rng, u64::MAX)
            .unwrap();
        assert!(one_time[99].id() < (3 << 30) + 300);
    }
}

/// docs/protocol.md §6.1: the thumbprint of `key` is `iss`.
#[test]
fn a_card_named_after_another_key_is_refused() {
    let error = refusal(|_, claims| claims["iss"] = base64url::encode(&[1; 32]).into());
    assert_eq!(error, Error::Misbehaved(Misbehaved::CardThumbprint));
}

/// docs/protocol.md §6.1: the relay puts its own key in a user's place.
#[test]
fn a_card_with_another_key_and_the_users_attestation_is_refused() {
    let (world, _alice, bob) = World::pair(103);
    let relay = SigningKey::generate(&mut World::new(9).rng);
    let card = resigned_card(&bob.card, &relay, |claims| {
        claims["iss"] = relay.thumbprint().to_string().into();
        claims["key"] = base64url::encode(relay.public().as_bytes()).into();
    });
    assert_eq!(
        world.verify_card(&card, None).unwrap_err(),
        Error::Misbehaved(Misbehaved::AttestationOfAnotherDevice)
    );
}

/// docs/protocol.md §6.1: the signature covers every prekey.
#[test]
fn a_card_that_its_device_did_not_sign_is_refused() {
    let (world, _alice, bob) = World::pair(104);
    let relay = SigningKey::generate(&mut World::new(9).rng);
    let card = resigned_card(&bob.card, &relay, |claims| {
        claims["spk"] = base64url::encode(&[9; 32]).into()
    });
    assert_eq!(
        world.verify_card(&card, None).unwrap_err(),
        Error::Misbehaved(Misbehaved::CardSignature)
    );
}

/// docs/protocol.md §6.1: the attestation, as §2.3 says.
#[test]
fn a_card_with_an_attestation_that_is_not_accepted_is_refused() {
    let with = |attest: fn(&World, sealwire_protocol::key::Thumbprint) -> String| {
        let (world, _alice, bob) = World::pair(105);
        let attestation = attest(&world, bob.keys.thumbprint());
        let card = resigned_card(&bob.card, bob.keys.signing(), |claims| {
            claims["att"] = attestation.into()
        });
        world.verify_card(&card, None).unwrap_err()
    };
    let too_old = with(|world, device| {
        attestation(
            &world.issuer_key,
            ISSUER,
            "bob",
            device,
            START - 30 * DAY - 1,
        )
    });
    assert_eq!(
        too_old,
        Error::Attestation(TokenError::Claim {
            claim: "iat",
            defect: ClaimDefect::TooOld
        })
    );
    let future =
        with(|world, device| attestation(&world.issuer_key, ISSUER, "bob", device, START + 61));
    assert_eq!(
        future,
        Error::Attestation(TokenError::Claim {
            claim: "iat",
            defect: ClaimDefect::InFuture
        })
    );
    let other = with(|world, device| {
        attestation(
            &world.issuer_key,
            "https://evil.example",
            "bob",
            device,
            START,
        )
    });
    assert_eq!(
        other,
        Error::Attestation(TokenError::Claim {
            claim: "iss",
            defect: ClaimDefect::Mismatch
        })
    );
    let unsigned = with(|_, device| {
        attestation(
            &SigningKey::generate(&mut World::new(9).rng),
            ISSUER,
            "bob",
            device,
            START,
        )
    });
    assert_eq!(
        unsigned,
        Error::Attestation(TokenError::Signature(SignatureError::Invalid))
    );
}

/// docs/protocol.md §2.3: it does not check `exp`, so that a device that is offline can still be written to.
#[test]
fn a_card_with_an_expired_attestation_is_used_for_thirty_days() {
    let (mut world, _alice, bob) = World::pair(106);
    world.now += 30 * DAY;
    world.verify_card(&bob.card, None).unwrap();
    world.now += 1;
    let error = world.verify_card(&bob.card, None).unwrap_err();
    assert_eq!(
        error,
        Error::Attestation(TokenError::Claim {
            claim: "iat",
            defect: ClaimDefect::TooOld
        })
    );
}

/// docs/protocol.md §2.1, §6.1: exactly these claims, of these forms.
#[test]
fn a_card_of_another_form_is_refused() {
    let edits: [fn(&mut serde_json::Value); 8] = [
        |claims| claims["more"] = 1.into(),
        |claims| {
            claims.as_object_mut().unwrap().remove("jwe");
        },
        |claims| claims["id"] = (1_u64 << 32).into(),
        |claims| claims["id"] = "1".into(),
        |claims| claims["iat"] = 1.5.into(),
        |claims| claims["spk"] = base64url::encode(&[9; 31]).into(),
        |claims| claims["kem"] = base64url::encode(&[9; 1_183]).into(),
        |claims| claims["att"] = 7.into(),
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        assert_eq!(
            refusal(|_, claims| edit(claims)),
            Error::Malformed(Malformed::Card),
            "edit {number}"
        );
    }
}

/// docs/protocol.md §2.1: no other JWT is a card.
#[test]
fn a_jwt_of_another_type_is_not_a_card() {
    let (_world, _alice, bob) = World::pair(107);
    for typ in ["at+jwt", "sealwire-session+jwt", "JWT", ""] {
        let other = jws(bob.keys.signing(), typ, &payload(&bob.card));
        assert_eq!(
            UnverifiedCard::parse(other.as_bytes()).unwrap_err(),
            Error::Malformed(Malformed::Card),
            "{typ}"
        );
    }
    assert_eq!(
        UnverifiedCard::parse(bob.own.attestation().as_bytes()).unwrap_err(),
        Error::Malformed(Malformed::Card)
    );
    assert_eq!(
        UnverifiedCard::parse(&[b'a'; 16_385]).unwrap_err(),
        Error::Malformed(Malformed::Card)
    );
}

/// docs/protocol.md §1.3: the modulus check, and no small-order device key.
#[test]
fn a_card_with_an_unusable_key_is_refused() {
    let error = refusal(|_, claims| claims["kem"] = base64url::encode(&[0xff; 1_184]).into());
    assert_eq!(error, Error::Malformed(Malformed::Key));
    let error = refusal(|_, claims| claims["key"] = base64url::encode(&[0; 32]).into());
    assert_eq!(error, Error::Malformed(Malformed::Key));
}

/// docs/protocol.md §1.3, §7.2: an X25519 result of all zeros is refused.
#[test]
fn a_session_is_not_started_with_low_order_prekeys() {
    let (mut world, mut alice, bob) = World::pair(108);
    let card = resigned_card(&bob.card, bob.keys.signing(), |claims| {
        claims["spk"] = base64url::encode(&[0; 32]).into()
    });
    let card = world.verify_card(&card, None).unwrap();
    let before = alice.peer.encode();
    let error = alice
        .peer
        .start(
            &alice.keys,
            &alice.own,
            &card,
            None,
            &mut world.rng,
            world.now,
        )
        .unwrap_err();
    assert_eq!(error, Error::Malformed(Malformed::Key));
    assert!(before == alice.peer.encode());
}

/// docs/protocol.md §7: the card is that of the device that is written to.
#[test]
fn a_session_is_not_started_with_the_card_of_another_device() {
    let (mut world, mut alice, mut bob) = World::pair(109);
    let mut carol = world.device("carol");
    let (card, _) = world.fetch(&mut carol);
    let error = alice
        .peer
        .start(
            &alice.keys,
            &alice.own,
            &card,
            None,
            &mut world.rng,
            world.now,
        )
        .unwrap_err();
    assert_eq!(error, Error::Misbehaved(Misbehaved::AnotherDevice));

    // Nor with the right card and another device's prekey.
    let more = carol
        .prekeys
        .publish_one_time(&carol.keys, 1, &mut world.rng, world.now)
        .unwrap();
    let foreign = more[0].clone().verify(&card).unwrap();
    let (card, _) = world.fetch(&mut bob);
    let error = alice
        .peer
        .start(
            &alice.keys,
            &alice.own,
            &card,
            Some(foreign),
            &mut world.rng,
            world.now,
        )
        .unwrap_err();
    assert_eq!(error, Error::Misbehaved(Misbehaved::AnotherDevice));
    assert_eq!(alice.peer.identity(), None);
}

/// docs/protocol.md §6.2: a relay never invents one.
#[test]
fn a_one_time_prekey_of_another_device_is_refused() {
    let (mut world, _alice, mut bob) = World::pair(110);
    let mut carol = world.device("carol");
    let (card, _) = world.fetch(&mut bob);
    let foreign = carol.one_time.pop().unwrap();
    assert_eq!(
        foreign.verify(&card).unwrap_err(),
        Error::Misbehaved(Misbehaved::OneTimePrekeySignature)
    );
}

/// docs/protocol.md §6.2: id and both keys are signed.
#[test]
fn a_one_time_prekey_with_any_field_changed_is_refused() {
    let (world, _alice, bob) = World::pair(111);
    let card = world.verify_card(&bob.card, None).unwrap();
    let encoded = bob.one_time[0].encode();
    assert_eq!(encoded.len(), ONE_TIME_PREKEY_BYTES);
    for at in [3, 4, 35, 36, 1_219, 1_220, ONE_TIME_PREKEY_BYTES - 1] {
        let mut changed = encoded.clone();
        changed[at] ^= 1;
        let error = OneTimePrekey::decode(&changed)
            .unwrap()
            .verify(&card)
            .unwrap_err();
        assert_eq!(
            error,
            Error::Misbehaved(Misbehaved::OneTimePrekeySignature),
            "byte {at}"
        );
    }
}

/// docs/protocol.md §1.1, §6.2
#[test]
fn a_one_time_prekey_of_another_length_is_refused() {
    let (_world, _alice, bob) = World::pair(112);
    let mut encoded = bob.one_time[0].encode();
    assert_eq!(OneTimePrekey::decode(&encoded).unwrap(), bob.one_time[0]);
    for length in [0, 4, ONE_TIME_PREKEY_BYTES - 1] {
        assert_eq!(
            OneTimePrekey::decode(&encoded[..length]).unwrap_err(),
            Error::Malformed(Malformed::OneTimePrekey)
        );
    }
    encoded.push(0);
    assert_eq!(
        OneTimePrekey::decode(&encoded).unwrap_err(),
        Error::Malformed(Malformed::OneTimePrekey)
    );
}

/// docs/protocol.md §6.2: ids are never reused, and the number of secrets is bounded.
#[test]
fn one_time_prekeys_have_new_ids_and_the_oldest_secrets_are_erased_first() {
    let (mut world, mut alice, mut bob) = World::pair(113);
    let first = bob.one_time.clone();
    let mut last = first[0].id();
    for _ in 0..6 {
        for prekey in bob
            .prekeys
            .publish_one_time(&bob.keys, 100, &mut world.rng, world.now)
            .unwrap()
        {
            assert_eq!(prekey.id(), last + 1);
            last = prekey.id();
            bob.one_time = vec![prekey];
        }
    }
    assert_eq!(bob.prekeys.one_time_count(), MAX_ONE_TIME_SECRETS);
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "with the newest");
    bob.one_time = first;
    world.start(&mut alice, &mut bob);
    let message = world.seal(&mut alice, "with the oldest");
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Gone(sealwire_e2e::error::Gone::OneTimePrekey)
    );
}

/// docs/protocol.md §6.1: a new card after 7 days, or when a newer attestation is needed for freshness.
#[test]
fn a_new_card_is_due_after_a_week_or_with_a_fresher_attestation() {
    let (mut world, _alice, bob) = World::pair(114);
    assert!(Prekeys::new().needs_new_card(&bob.own, START));
    assert!(!bob.prekeys.needs_new_card(&bob.own, START + 7 * DAY - 1));
    assert!(bob.prekeys.needs_new_card(&bob.own, START + 7 * DAY));

    // A card made late in an attestation's life.
    let Device {
        keys,
        own,
        mut prekeys,
        ..
    } = bob;
    world.now += 12 * DAY;
    prekeys
        .publish(&keys, &own, &mut world.rng, world.now)
        .unwrap();
    let newer = OwnIdentity::new(&keys, &world.attest("bob", keys.thumbprint())).unwrap();
    world.now += 3 * DAY - 1;
    assert!(!prekeys.needs_new_card(&newer, world.now));
    world.now += 1;
    assert!(prekeys.needs_new_card(&newer, world.now));
    assert!(!prekeys.needs_new_card(&own, world.now));
}

/// The own attestation names the own device key.
#[test]
fn an_own_attestation_of_another_device_is_refused() {
    let mut world = World::new(115);
    let keys = DeviceKeys::generate(&mut world.rng);
    let another = DeviceKeys::generate(&mut world.rng).thumbprint();
    let other = world.attest("alice", another);
    assert_eq!(
        OwnIdentity::new(&keys, &other).unwrap_err(),
        Error::Misuse(Misuse::OwnAttestation)
    );
    assert!(matches!(
        OwnIdentity::new(&keys, "a.b.c").unwrap_err(),
        Error::Attestation(_)
    ));
}

#[test]
fn debug_shows_nothing_secret() {
    let (_world, alice, bob) = World::talking(116);
    let device = alice.keys.thumbprint();
    assert_eq!(format!("{:?}", alice.keys), format!("DeviceKeys({device})"));
    assert_eq!(
        format!("{:?}", bob.prekeys),
        "Prekeys(1 generations, 0 one-time prekeys)"
    );
    assert_eq!(
        format!("{:?}", bob.peer),
        format!("Peer({device}, 1 sessions)")
    );
    assert_eq!(
        format!("{:?}", Peer::new(device)),
        format!("Peer({device}, 0 sessions)")
    );
}

/// What a program logs with `{:?}` names nobody's token and nobody's words.
#[test]
fn debug_shows_no_token_card_proof_or_content() {
    let (mut world, mut alice, mut bob) = World::pair(120);
    let shows = |value: &dyn core::fmt::Debug, secret: &str| {
        format!("{value:?} {value:#?}").contains(secret)
    };

    let own = alice.own.attestation().to_owned();
    assert!(!shows(&alice.own, &own));
    let card = UnverifiedCard::parse(alice.card.as_bytes()).unwrap();
    assert!(!shows(&card, &alice.card) && !shows(&card, &own));
    assert!(!shows(&world.verify_card(&alice.card, None).unwrap(), &own));

    world.start(&mut alice, &mut bob);
    let text = Content {
        id: [1; 16],
        time: 0,
        kind: Kind::Copy {
            user: "carol",
            body: Body {
                media_type: "text/plain",
                bytes: b"for nobody else",
            },
        },
    };
    for secret in ["carol", "for nobody", "102, 111, 114", "102,\n"] {
        assert!(!shows(&text, secret), "{secret}");
    }
    let encoded = text.encode().unwrap();
    let message = alice.peer.seal(&encoded, &mut world.rng).unwrap();
    let sealed = SealedMessage::decode(&message).unwrap();
    let proof = sealed.header().first.unwrap().proof;
    for shown in [&sealed as &dyn core::fmt::Debug, sealed.header()] {
        assert!(!shows(shown, &own) && !shows(shown, proof));
    }
    let bytes = format!("{:?}", sealed.ciphertext());
    assert!(!shows(&sealed, bytes.trim_matches(['[', ']'])));
    let opened = world.open(&mut bob, &message).unwrap();
    assert!(!shows(&opened, "102, 111, 114") && !shows(&opened, "content:"));
    assert_eq!(
        format!("{:?}", ProtectedHeader::new()),
        "ProtectedHeader(..)"
    );
}
