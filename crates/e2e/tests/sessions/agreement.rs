//! First messages: what the recipient checks before it changes any state (docs/protocol.md §7).

use sealwire_e2e::{
    error::{Error, Gone, Malformed, Misbehaved, Misuse},
    message::{Header, SealedMessage},
    peer::{Peer, Started},
    prekeys::Prekeys,
};
use sealwire_protocol::{
    ClaimDefect, TokenError,
    crypto::{X25519Secret, sha256},
    jws::SignatureError,
    key::SigningKey,
};

use crate::{
    forge::{Forgery, sealed_with_any_key},
    pair::{DAY, Device, FIRST, ISSUER, START, World, attestation},
};

/// What `open` says to a first message in which `edit` made something wrong.
fn refusal(seed: u64, edit: impl FnOnce(&World, &mut Forgery<'_>)) -> Error {
    let (mut world, alice, mut bob) = World::pair(seed);
    let mut forgery = Forgery::honest(&world, &alice, &mut bob);
    edit(&world, &mut forgery);
    let message = forgery.seal(&mut world, "forged");
    world.open(&mut bob, &message).unwrap_err()
}

#[test]
fn a_first_message_written_from_the_specification_opens() {
    for with_one_time in [true, false] {
        let (mut world, alice, mut bob) = World::pair(30);
        let mut forgery = Forgery::honest(&world, &alice, &mut bob);
        if !with_one_time {
            forgery.one_time = None;
        }
        let message = forgery.seal(&mut world, "by the book");
        let opened = world.open(&mut bob, &message).unwrap();
        assert_eq!(*opened.content, b"by the book");
        let one_time = with_one_time.then_some(FIRST);
        assert_eq!(
            opened.started,
            Some(Started {
                generation: FIRST,
                one_time,
                seals: true
            })
        );
        let identity = bob.peer.identity().unwrap();
        assert_eq!(
            (identity.issuer.as_str(), identity.user.as_str()),
            (ISSUER, "alice")
        );
        assert_eq!(identity.device, alice.keys.thumbprint());
    }
}

/// docs/protocol.md §6.2: the secret is erased once the first message that used it has been opened.
#[test]
fn a_one_time_prekey_is_erased_when_its_first_message_has_opened() {
    let (mut world, mut alice, mut bob) = World::pair(31);
    world.start(&mut alice, &mut bob);
    assert_eq!(bob.prekeys.one_time_count(), 1);
    world.send(&mut alice, &mut bob, "first");
    assert_eq!(bob.prekeys.one_time_count(), 0);
}

#[test]
fn a_session_starts_without_one_time_prekeys_when_they_are_used_up() {
    let (mut world, mut alice, mut bob) = World::pair(32);
    bob.one_time.clear();
    world.start(&mut alice, &mut bob);
    let first = world.seal(&mut alice, "first");
    let started = world.open(&mut bob, &first).unwrap().started.unwrap();
    assert_eq!(started.one_time, None);
    world.send(&mut bob, &mut alice, "answer");
}

/// docs/protocol.md §7.3: everything travels in every message until the initiator is answered.
#[test]
fn a_session_starts_with_its_second_message_when_the_first_is_lost() {
    let (mut world, mut alice, mut bob) = World::pair(33);
    world.start(&mut alice, &mut bob);
    let lost = world.seal(&mut alice, "lost");
    let opened = world.send(&mut alice, &mut bob, "second");
    assert!(opened.started.is_some());
    assert_eq!(opened.missing, 1);
    assert_eq!(*world.open(&mut bob, &lost).unwrap().content, b"lost");
    world.send(&mut bob, &mut alice, "answer");
    let answered = world.seal(&mut alice, "short");
    assert_eq!(
        SealedMessage::decode(&answered).unwrap().header().first,
        None
    );
}

/// docs/protocol.md §7.3: whoever holds the signed prekey's secret, or anybody at all, can make the keys; not the proof.
#[test]
fn key_compromise_does_not_let_an_attacker_impersonate_another_to_its_owner() {
    let mallory = SigningKey::generate(&mut World::new(9).rng);
    let (mut world, alice, mut bob) = World::pair(34);
    let mut forgery = Forgery::honest(&world, &alice, &mut bob);
    forgery.proof_key = &mallory;
    let message = forgery.seal(&mut world, "forged");
    let error = world.open(&mut bob, &message).unwrap_err();
    assert_eq!(error, Error::Misbehaved(Misbehaved::ProofSignature));
}

/// docs/protocol.md §7.1, §7.3: an issuer enrols Alice's key as Mallory's; Alice's messages do not become Mallory's.
#[test]
fn a_first_message_does_not_authenticate_under_another_name_for_the_same_key() {
    let (mut world, alice, mut bob) = World::pair(35);
    let mut forgery = Forgery::honest(&world, &alice, &mut bob);
    let honest = forgery.seal(&mut world, "from alice");
    let sealed = SealedMessage::decode(&honest).unwrap();
    let header = sealed.header();
    let attestation = world.attest("mallory", alice.keys.thumbprint());
    let mut first = header.first.unwrap();
    first.attestation = &attestation;
    let renamed = sealed_with_any_key(
        &mut world,
        Header {
            first: Some(first),
            ..*header
        },
    );
    assert_eq!(
        world.open(&mut bob, &renamed).unwrap_err(),
        Error::Misbehaved(Misbehaved::ProofTranscript)
    );

    // The same with only the names in the transcript wrong.
    bob.one_time.clear();
    forgery = Forgery::honest(&world, &alice, &mut bob);
    forgery.initiator.1 = "mallory";
    let message = forgery.seal(&mut world, "x");
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Misbehaved(Misbehaved::ProofTranscript)
    );
}

/// docs/protocol.md §7.1: Alice believes that she writes to Mallory, whose card names Bob's key.
#[test]
fn a_first_message_meant_for_another_user_with_the_same_key_is_refused() {
    let error = refusal(36, |_, forgery| forgery.recipient.1 = "mallory");
    assert_eq!(error, Error::Misbehaved(Misbehaved::ProofTranscript));
}

/// docs/protocol.md §7.1
#[test]
fn a_first_message_meant_for_another_issuer_is_refused() {
    let error = refusal(37, |_, forgery| {
        forgery.recipient.0 = "https://other.example"
    });
    assert_eq!(error, Error::Misbehaved(Misbehaved::ProofTranscript));
}

/// docs/protocol.md §7.3: `aud`
#[test]
fn a_proof_for_another_recipient_is_refused() {
    let error = refusal(38, |_, forgery| {
        forgery.edit_proof = |claims| {
            let mut claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
            claims["aud"] = claims["iss"].clone();
            claims.to_string()
        };
    });
    assert_eq!(error, Error::Misbehaved(Misbehaved::ProofParties));
}

/// docs/protocol.md §7.3: `iss`
#[test]
fn a_proof_that_names_another_initiator_is_refused() {
    let error = refusal(39, |_, forgery| {
        forgery.edit_proof = |claims| {
            let mut claims: serde_json::Value = serde_json::from_str(&claims).unwrap();
            claims["iss"] = claims["aud"].clone();
            claims.to_string()
        };
    });
    assert_eq!(error, Error::Misbehaved(Misbehaved::ProofParties));
}

/// docs/protocol.md §7.3: `th` is computed by the recipient itself.
#[test]
fn a_proof_of_another_session_is_refused() {
    let (mut world, alice, mut bob) = World::pair(40);
    bob.one_time.clear();
    let one = Forgery::honest(&world, &alice, &mut bob).seal(&mut world, "one");
    let other = Forgery::honest(&world, &alice, &mut bob).seal(&mut world, "other");
    let (one, other) = (
        SealedMessage::decode(&one).unwrap(),
        SealedMessage::decode(&other).unwrap(),
    );
    let mut first = one.header().first.unwrap();
    first.proof = other.header().first.unwrap().proof;
    let spliced = sealed_with_any_key(
        &mut world,
        Header {
            first: Some(first),
            ..*one.header()
        },
    );
    assert_eq!(
        world.open(&mut bob, &spliced).unwrap_err(),
        Error::Misbehaved(Misbehaved::ProofTranscript)
    );
}

/// docs/protocol.md §7.3: at most 30 days in the past, 60 seconds in the future.
#[test]
fn a_proof_is_refused_outside_its_time() {
    let at = |issued: u64| {
        let (mut world, alice, mut bob) = World::pair(41);
        let mut forgery = Forgery::honest(&world, &alice, &mut bob);
        forgery.issued = issued;
        let message = forgery.seal(&mut world, "x");
        world.open(&mut bob, &message).map(|_| ())
    };
    assert_eq!(at(START - 30 * DAY), Ok(()));
    assert_eq!(
        at(START - 30 * DAY - 1),
        Err(Error::Misbehaved(Misbehaved::ProofTooOld))
    );
    assert_eq!(at(START + 60), Ok(()));
    assert_eq!(
        at(START + 61),
        Err(Error::Misbehaved(Misbehaved::ProofInFuture))
    );
}

/// docs/protocol.md §2.1, §7.3: exactly these claims, this type.
#[test]
fn a_proof_of_another_form_is_refused() {
    let edits: [fn(String) -> String; 4] = [
        |claims| claims.replace("\"iat\":", "\"iat\":1,\"nbf\":"),
        |claims| claims.replace("\"th\":", "\"ath\":"),
        |claims| {
            claims
                .replace("\"iat\":1", "\"iat\":\"1")
                .replace('}', "\"}")
        },
        |claims| claims.replace("\"th\":\"", "\"th\":\"AA"),
    ];
    for edit in edits {
        let error = refusal(42, |_, forgery| forgery.edit_proof = edit);
        assert_eq!(error, Error::Malformed(Malformed::Proof));
    }
    for typ in [
        "sealwire-device-proof+jwt",
        "sealwire-card+jwt",
        "at+jwt",
        "JWT",
    ] {
        let error = refusal(42, |_, forgery| forgery.proof_type = typ);
        assert_eq!(error, Error::Malformed(Malformed::Proof), "{typ}");
    }
}

/// docs/protocol.md §7.3: the attestation is for the device key.
#[test]
fn an_attestation_of_another_device_is_refused() {
    let error = refusal(43, |world, forgery| {
        forgery.attestation = world.attest("alice", forgery.recipient.2)
    });
    assert_eq!(
        error,
        Error::Misbehaved(Misbehaved::AttestationOfAnotherDevice)
    );
}

/// docs/protocol.md §2.3: 30 days, unless the verifier decides otherwise.
#[test]
fn an_attestation_that_is_too_old_is_refused() {
    let error = refusal(44, |world, forgery| {
        forgery.attestation = attestation(
            &world.issuer_key,
            ISSUER,
            "alice",
            forgery.initiator.2,
            START - 30 * DAY - 1,
        );
    });
    assert_eq!(
        error,
        Error::Attestation(TokenError::Claim {
            claim: "iat",
            defect: ClaimDefect::TooOld
        })
    );
}

/// docs/protocol.md §2.2, §2.3
#[test]
fn an_attestation_of_another_issuer_is_refused() {
    let error = refusal(45, |world, forgery| {
        forgery.attestation = attestation(
            &world.issuer_key,
            "https://other.example",
            "alice",
            forgery.initiator.2,
            START,
        );
    });
    assert_eq!(
        error,
        Error::Attestation(TokenError::Claim {
            claim: "iss",
            defect: ClaimDefect::Mismatch
        })
    );
}

/// docs/protocol.md §2.3
#[test]
fn an_attestation_that_the_issuer_did_not_sign_is_refused() {
    let error = refusal(46, |_, forgery| {
        forgery.attestation = attestation(
            forgery.proof_key,
            ISSUER,
            "alice",
            forgery.initiator.2,
            START,
        );
    });
    assert_eq!(
        error,
        Error::Attestation(TokenError::Signature(SignatureError::Invalid))
    );
}

/// docs/protocol.md §7.3: the attestation for the device key; here the relay says that the message is from another device.
#[test]
fn a_first_message_of_another_device_than_the_relay_says_is_refused() {
    let (mut world, _alice, mut bob) = World::pair(47);
    let carol = world.device("carol");
    let message = Forgery::honest(&world, &carol, &mut bob).seal(&mut world, "x");
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Misbehaved(Misbehaved::AnotherDevice)
    );
}

/// docs/protocol.md §1.3: small-order and malformed device keys.
#[test]
fn a_first_message_with_an_unusable_device_key_is_refused() {
    for byte in [0, 2, 0xff] {
        let error = refusal(48, |_, forgery| forgery.device_key = [byte; 32]);
        assert_eq!(error, Error::Malformed(Malformed::Key));
    }
}

/// docs/protocol.md §7.1: the prekeys used are in the transcript.
#[test]
fn swapped_one_time_prekeys_are_refused() {
    let (mut world, alice, mut bob) = World::pair(49);
    let more = bob
        .prekeys
        .publish_one_time(&bob.keys, 1, &mut world.rng, world.now)
        .unwrap();
    let mut forgery = Forgery::honest(&world, &alice, &mut bob);
    forgery.one_time_id = Some(more[0].id());
    let message = forgery.seal(&mut world, "x");
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Misbehaved(Misbehaved::ProofTranscript)
    );
}

/// docs/protocol.md §7.1: the card is in the transcript.
#[test]
fn the_generation_of_another_card_is_refused() {
    let (mut world, alice, mut bob) = World::pair(50);
    bob.prekeys
        .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
        .unwrap();
    let mut forgery = Forgery::honest(&world, &alice, &mut bob);
    forgery.generation = FIRST + 1;
    let message = forgery.seal(&mut world, "x");
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Misbehaved(Misbehaved::ProofTranscript)
    );
}

/// docs/protocol.md §7.1: the KEM ciphertext is in the transcript (re-encapsulation).
#[test]
fn a_changed_kem_ciphertext_is_refused() {
    let error = refusal(51, |_, forgery| forgery.flip_kem_ciphertext = true);
    assert_eq!(error, Error::Misbehaved(Misbehaved::ProofTranscript));
}

/// docs/protocol.md §7.3: the session id is the one derived.
#[test]
fn another_session_id_than_the_one_derived_is_refused() {
    let error = refusal(52, |_, forgery| forgery.session = Some([7; 16]));
    assert_eq!(error, Error::Misbehaved(Misbehaved::SessionId));
}

/// docs/protocol.md §7.2: an ephemeral key whose secret the initiator does not know gives other keys.
#[test]
fn an_ephemeral_key_that_is_not_the_initiators_is_refused() {
    let error = refusal(53, |_, forgery| {
        let other = X25519Secret::generate(&mut World::new(53).rng);
        forgery.ephemeral = Some(*other.public_key().as_bytes());
    });
    assert_eq!(error, Error::Misbehaved(Misbehaved::SessionId));
}

/// docs/protocol.md §1.3, §8.2
#[test]
fn low_order_ephemeral_and_ratchet_keys_are_refused() {
    let error = refusal(54, |_, forgery| forgery.ephemeral = Some([0; 32]));
    assert_eq!(error, Error::Decrypt);
    let error = refusal(54, |_, forgery| forgery.ratchet_key = Some([0; 32]));
    assert_eq!(error, Error::Decrypt);
}

/// docs/protocol.md §7.3: the one-time prekey, if named, still exists.
#[test]
fn a_one_time_prekey_that_was_used_or_never_was_is_refused() {
    let error = refusal(55, |_, forgery| forgery.one_time_id = Some(99));
    assert_eq!(error, Error::Gone(Gone::OneTimePrekey));

    let (mut world, mut alice, mut bob) = World::pair(55);
    let again = bob.one_time[0].clone();
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "first");
    bob.one_time.push(again);
    let message = Forgery::honest(&world, &alice, &mut bob).seal(&mut world, "again");
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Gone(Gone::OneTimePrekey)
    );
}

/// docs/protocol.md §7.4: as the prekey is gone.
#[test]
fn a_replayed_first_message_with_a_one_time_prekey_is_refused() {
    let (mut world, mut alice, mut bob) = World::pair(56);
    world.start(&mut alice, &mut bob);
    let first = world.seal(&mut alice, "first");
    world.open(&mut bob, &first).unwrap();
    bob.peer.forget_sessions();
    assert_eq!(
        world.open(&mut bob, &first).unwrap_err(),
        Error::Gone(Gone::OneTimePrekey)
    );
}

/// docs/protocol.md §7.4: SHA-256(ephemeral) is kept.
#[test]
fn a_replayed_first_message_to_the_last_resort_key_is_refused() {
    let (mut world, mut alice, mut bob) = World::pair(57);
    bob.one_time.clear();
    world.start(&mut alice, &mut bob);
    let messages = [
        world.seal(&mut alice, "first"),
        world.seal(&mut alice, "second"),
    ];
    world.open(&mut bob, &messages[0]).unwrap();
    bob.peer.forget_sessions();
    for message in &messages {
        assert_eq!(
            world.open(&mut bob, message).unwrap_err(),
            Error::Misbehaved(Misbehaved::Replay)
        );
    }
}

/// docs/protocol.md §7.4: the guard is of the generation, and outlives a restart.
#[test]
fn the_replay_guard_is_stored() {
    let (mut world, mut alice, mut bob) = World::pair(58);
    bob.one_time.clear();
    world.start(&mut alice, &mut bob);
    let first = world.seal(&mut alice, "first");
    world.open(&mut bob, &first).unwrap();
    bob.peer = Peer::new(alice.keys.thumbprint());
    bob.prekeys = sealwire_e2e::prekeys::Prekeys::decode(&bob.prekeys.encode()).unwrap();
    assert_eq!(
        world.open(&mut bob, &first).unwrap_err(),
        Error::Misbehaved(Misbehaved::Replay)
    );
}

/// docs/protocol.md §6.1: the last 8 generations, for at most 30 days.
#[test]
fn first_messages_to_old_generations_are_refused() {
    let error = refusal(59, |_, forgery| forgery.generation = FIRST + 1);
    assert_eq!(error, Error::Gone(Gone::Generation));

    let after = |cards: u32, seconds: u64| {
        let (mut world, mut alice, mut bob) = World::pair(59);
        world.start(&mut alice, &mut bob);
        let first = world.seal(&mut alice, "first");
        for _ in 0..cards {
            bob.prekeys
                .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
                .unwrap();
        }
        world.now += seconds;
        world.open(&mut bob, &first).map(|_| ())
    };
    assert_eq!(after(7, 0), Ok(()));
    assert_eq!(after(8, 0), Err(Error::Gone(Gone::Generation)));
    assert_eq!(after(0, 30 * DAY), Ok(()));
    assert_eq!(after(0, 30 * DAY + 1), Err(Error::Gone(Gone::Generation)));
}

/// docs/protocol.md §7.3: before it changes any state. The proof is good, the message is not.
#[test]
fn an_agreement_whose_first_message_does_not_open_uses_nothing_up() {
    let (mut world, mut alice, mut bob) = World::pair(60);
    world.start(&mut alice, &mut bob);
    let first = world.seal(&mut alice, "first");
    let mut changed = first.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(world.open(&mut bob, &changed).unwrap_err(), Error::Decrypt);
    assert_eq!(bob.prekeys.one_time_count(), 1);
    world.open(&mut bob, &first).unwrap();
}

/// docs/protocol.md §7: the peer is the device, and its user never changes.
#[test]
fn a_device_that_is_attested_for_another_user_later_is_refused() {
    let (mut world, mut alice, mut bob) = World::talking(61);
    let renamed = world.attest("mallory", alice.keys.thumbprint());
    alice.own = sealwire_e2e::device::OwnIdentity::new(&alice.keys, &renamed).unwrap();
    bob.one_time.clear();
    let message = Forgery::honest(&world, &alice, &mut bob).seal(&mut world, "x");
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Misbehaved(Misbehaved::AnotherIdentity)
    );

    let Device {
        keys, own, prekeys, ..
    } = &mut alice;
    let card = prekeys
        .publish(keys, own, &mut world.rng, world.now)
        .unwrap();
    let card = world.verify_card(&card, None).unwrap();
    let error = bob
        .peer
        .start(&bob.keys, &bob.own, &card, None, &mut world.rng, world.now)
        .unwrap_err();
    assert_eq!(error, Error::Misbehaved(Misbehaved::AnotherIdentity));
}

/// docs/protocol.md §7: reflection.
#[test]
fn a_device_does_not_agree_with_itself() {
    let (mut world, mut alice, _bob) = World::pair(62);
    alice.peer = Peer::new(alice.keys.thumbprint());
    let (card, _) = world.fetch(&mut alice);
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
    assert_eq!(error, Error::Misuse(Misuse::OwnDevice));
    let keys = World::pair(62).1;
    let message = Forgery::honest(&world, &keys, &mut alice).seal(&mut world, "x");
    assert_eq!(
        world.open(&mut alice, &message).unwrap_err(),
        Error::Misuse(Misuse::OwnDevice)
    );
}

/// docs/protocol.md §7.4: at 4,096 entries such messages are refused, and a new card is due.
#[test]
fn a_full_replay_guard_refuses_first_messages_without_a_one_time_prekey() {
    let (mut world, mut alice, mut bob) = World::pair(63);
    let one_time = bob.one_time.pop();
    world.start(&mut alice, &mut bob);
    let first = world.seal(&mut alice, "first");
    bob.prekeys =
        crate::state::with_replay_entries(&bob.prekeys, 4_095, |n| sha256(&[&n.to_be_bytes()]));
    assert!(!bob.prekeys.needs_new_card(&bob.own, world.now));
    world.open(&mut bob, &first).unwrap();
    assert!(bob.prekeys.needs_new_card(&bob.own, world.now));
    world.start(&mut alice, &mut bob);
    let refused = world.seal(&mut alice, "refused");
    assert_eq!(
        world.open(&mut bob, &refused).unwrap_err(),
        Error::Gone(Gone::ReplayGuardFull)
    );
    // One with a one-time prekey still opens.
    bob.one_time.extend(one_time);
    world.start(&mut alice, &mut bob);
    let taken = world.seal(&mut alice, "taken");
    world.open(&mut bob, &taken).unwrap();
}

/// docs/protocol.md §7.4: 64 of one initiator, so that it does not fill the guard for others.
#[test]
fn one_device_does_not_fill_the_replay_guard() {
    let (mut world, mut alice, mut bob) = World::pair(64);
    let one_time = bob.one_time.pop();
    let device = *alice.keys.thumbprint().as_bytes();
    bob.prekeys = crate::state::with_replay_entries(&bob.prekeys, 63, |_| device);
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "the last");
    bob.prekeys = Prekeys::decode(&bob.prekeys.encode()).unwrap();
    world.start(&mut alice, &mut bob);
    let refused = world.seal(&mut alice, "refused");
    assert_eq!(
        world.open(&mut bob, &refused).unwrap_err(),
        Error::Gone(Gone::TooManySessions)
    );
    assert!(!bob.prekeys.needs_new_card(&bob.own, world.now));
    // Another device is not refused, nor one with a one-time prekey.
    let mut carol = world.device("carol");
    carol.peer = Peer::new(bob.keys.thumbprint());
    let with_alice = core::mem::replace(&mut bob.peer, Peer::new(carol.keys.thumbprint()));
    world.start(&mut carol, &mut bob);
    world.send(&mut carol, &mut bob, "hello");
    bob.peer = with_alice;
    bob.one_time.extend(one_time);
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "taken");
    // Nor from the next card on.
    bob.card = bob
        .prekeys
        .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
        .unwrap();
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "from a new card");
}

/// docs/protocol.md §7: at most 15 days.
#[test]
fn a_session_is_not_started_with_an_attestation_that_is_about_to_be_refused() {
    let (mut world, mut alice, mut bob) = World::pair(65);
    let (card, _) = world.fetch(&mut bob);
    let before = alice.peer.encode();
    let mut start = |alice: &mut Device, now: u64| {
        alice
            .peer
            .start(&alice.keys, &alice.own, &card, None, &mut world.rng, now)
    };
    assert_eq!(
        start(&mut alice, START + 15 * DAY + 1).unwrap_err(),
        Error::Misuse(Misuse::AttestationTooOld)
    );
    assert!(before == alice.peer.encode());
    start(&mut alice, START + 15 * DAY).unwrap();
}
