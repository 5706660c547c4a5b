//! The Double Ratchet between two devices (docs/protocol.md §8).

use sealwire_e2e::{
    error::{Error, Gone, Misbehaved},
    message::{First, SealedMessage},
    peer::Peer,
};

use crate::pair::{DAY, World};

// Offsets in the compact binary form of an ordinary message (docs/protocol.md §9.1).
const SESSION: usize = 2;
const RATCHET_KEY: usize = 18;
const PN: usize = 50;
const N: usize = 54;
const IV: usize = 58;
const CIPHERTEXT: usize = 73;

#[test]
fn messages_open_in_order_across_turns() {
    let (mut world, mut alice, mut bob) = World::pair(1);
    world.start(&mut alice, &mut bob);
    for turn in 0..5 {
        for n in 0..3 {
            let opened = world.send(&mut alice, &mut bob, &format!("a{turn}.{n}"));
            assert_eq!(opened.missing, 0);
        }
        for n in 0..2 {
            assert_eq!(
                world
                    .send(&mut bob, &mut alice, &format!("b{turn}.{n}"))
                    .missing,
                0
            );
        }
    }
}

#[test]
fn messages_open_out_of_order_across_turns_and_the_gap_is_told_once() {
    let (mut world, mut alice, mut bob) = World::talking(2);
    let old: Vec<_> = (0..4)
        .map(|n| world.seal(&mut alice, &format!("old {n}")))
        .collect();
    assert_eq!(world.open(&mut bob, &old[0]).unwrap().missing, 0);
    world.send(&mut bob, &mut alice, "turn");
    let new: Vec<_> = (0..3)
        .map(|n| world.seal(&mut alice, &format!("new {n}")))
        .collect();
    // Three of the old chain and two of the new one are missing now.
    assert_eq!(world.open(&mut bob, &new[2]).unwrap().missing, 5);
    for (message, text) in [
        (&old[3], "old 3"),
        (&new[0], "new 0"),
        (&old[1], "old 1"),
        (&new[1], "new 1"),
        (&old[2], "old 2"),
    ] {
        let opened = world.open(&mut bob, message).unwrap();
        assert_eq!((&**opened.content, opened.missing), (text.as_bytes(), 0));
    }
}

#[test]
fn lost_messages_do_not_hold_up_later_ones() {
    let (mut world, mut alice, mut bob) = World::talking(3);
    for round in 0..10 {
        world.seal(&mut alice, "lost");
        assert_eq!(
            world
                .send(&mut alice, &mut bob, &format!("{round}"))
                .missing,
            1
        );
        world.send(&mut bob, &mut alice, "answer");
    }
}

/// docs/protocol.md §8.1: the recipient's first reply turns the ratchet, and so does the answer to it.
#[test]
fn every_answer_has_a_new_ratchet_key() {
    let (mut world, mut alice, mut bob) = World::pair(4);
    world.start(&mut alice, &mut bob);
    let mut keys = Vec::new();
    for _ in 0..3 {
        for by_alice in [true, false] {
            let (from, to) = if by_alice {
                (&mut alice, &mut bob)
            } else {
                (&mut bob, &mut alice)
            };
            let message = world.seal(from, "x");
            keys.push(
                SealedMessage::decode(&message)
                    .unwrap()
                    .header()
                    .ratchet_key,
            );
            world.open(to, &message).unwrap();
        }
    }
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), 6);
}

/// docs/protocol.md §9.1: the iv is random, so that a copied store does not repeat a (key, iv) pair.
#[test]
fn a_restored_copy_of_a_device_seals_with_another_iv() {
    let (mut world, mut alice, mut bob) = World::talking(5);
    world.send(&mut alice, &mut bob, "a chain begins");
    let mut copy = Peer::decode(&alice.peer.encode()).unwrap();
    let one = world.seal(&mut alice, "one");
    let other = copy.seal(b"two", &mut world.rng).unwrap();
    assert_eq!(one[..IV], other[..IV]);
    assert_ne!(one[IV..IV + 12], other[IV..IV + 12]);
}

/// docs/protocol.md §8.2: every message has its own key, used once.
#[test]
fn a_message_does_not_open_twice() {
    let (mut world, mut alice, mut bob) = World::talking(6);
    let messages: Vec<_> = (0..3)
        .map(|n| world.seal(&mut alice, &format!("{n}")))
        .collect();
    for n in [2, 0, 1] {
        world.open(&mut bob, &messages[n]).unwrap();
        assert_eq!(
            world.open(&mut bob, &messages[n]).unwrap_err(),
            Error::Decrypt
        );
    }
}

/// docs/protocol.md §7.3, §8.2
#[test]
fn a_first_message_of_a_session_that_is_here_does_not_open_twice() {
    let (mut world, mut alice, mut bob) = World::pair(7);
    world.start(&mut alice, &mut bob);
    let first = world.seal(&mut alice, "first");
    world.open(&mut bob, &first).unwrap();
    assert_eq!(world.open(&mut bob, &first).unwrap_err(), Error::Decrypt);
}

/// docs/protocol.md §8.2, §9.2: every field of the header is authenticated, as are iv, ciphertext and tag.
#[test]
fn a_message_with_any_byte_changed_does_not_open() {
    let (mut world, mut alice, mut bob) = World::talking(8);
    let message = world.seal(&mut alice, "authentic");
    let last = message.len() - 1;
    for at in [
        RATCHET_KEY,
        RATCHET_KEY + 31,
        PN + 3,
        N + 3,
        IV,
        IV + 11,
        CIPHERTEXT,
        CIPHERTEXT + 5,
        last - 15,
        last,
    ] {
        let mut changed = message.clone();
        changed[at] ^= 1;
        assert_eq!(
            world.open(&mut bob, &changed).unwrap_err(),
            Error::Decrypt,
            "byte {at}"
        );
    }
    world.open(&mut bob, &message).unwrap();
}

/// docs/protocol.md §8.2
#[test]
fn a_changed_session_id_names_a_session_that_is_not_here() {
    let (mut world, mut alice, mut bob) = World::talking(9);
    let mut message = world.seal(&mut alice, "x");
    message[SESSION] ^= 1;
    assert_eq!(
        world.open(&mut bob, &message).unwrap_err(),
        Error::Gone(sealwire_e2e::error::Gone::Session)
    );
}

/// docs/protocol.md §8.2: a message cannot be moved to another number of its chain.
#[test]
fn the_number_of_a_skipped_message_cannot_be_given_to_another() {
    let (mut world, mut alice, mut bob) = World::talking(10);
    let skipped = world.seal(&mut alice, "skipped");
    let message = world.seal(&mut alice, "opened");
    world.open(&mut bob, &message).unwrap();
    let mut moved = message;
    moved[N..N + 4].copy_from_slice(&skipped[N..N + 4]);
    assert_eq!(world.open(&mut bob, &moved).unwrap_err(), Error::Decrypt);
    world.open(&mut bob, &skipped).unwrap();
}

/// docs/protocol.md §8.2: zeros end in the same error as a message that does not authenticate.
#[test]
fn a_low_order_ratchet_key_is_refused_like_any_message_that_does_not_open() {
    let (mut world, mut alice, mut bob) = World::talking(11);
    // A key that turns the ratchet is computed with, so the low-order point has to reach the computation.
    world.send(&mut bob, &mut alice, "bob's chain");
    world.send(&mut alice, &mut bob, "alice's turn");
    world.send(&mut bob, &mut alice, "bob's turn");
    let message = world.seal(&mut alice, "x");
    for low_order in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        let mut changed = message.clone();
        changed[RATCHET_KEY..PN].copy_from_slice(&low_order);
        assert_eq!(world.open(&mut bob, &changed).unwrap_err(), Error::Decrypt);
    }
    world.open(&mut bob, &message).unwrap();
}

/// docs/protocol.md §8.2: at most 1,000 keys are skipped for one message.
#[test]
fn a_message_a_thousand_ahead_opens_and_one_more_is_refused() {
    let (mut world, mut alice, mut bob) = World::talking(12);
    for _ in 0..1_000 {
        world.seal(&mut alice, "lost");
    }
    let mut other = Peer::decode(&alice.peer.encode()).unwrap();
    other.seal(b"lost too", &mut world.rng).unwrap();
    let beyond = other.seal(b"beyond", &mut world.rng).unwrap();
    assert_eq!(
        world.open(&mut bob, &beyond).unwrap_err(),
        Error::Gone(Gone::TooManyMissing)
    );
    let at_the_limit = world.seal(&mut alice, "at the limit");
    assert_eq!(world.open(&mut bob, &at_the_limit).unwrap().missing, 1_000);
}

/// docs/protocol.md §8.2: what was lost on the way ends a session, not the conversation.
#[test]
fn devices_talk_again_in_a_new_session_after_more_than_a_thousand_lost_messages() {
    let (mut world, mut alice, mut bob) = World::talking(22);
    for _ in 0..1_001 {
        world.seal(&mut alice, "lost");
    }
    let beyond = world.seal(&mut alice, "beyond");
    assert_eq!(
        world.open(&mut bob, &beyond).unwrap_err(),
        Error::Gone(Gone::TooManyMissing)
    );
    // A turn does not help: `pn` counts too.
    world.send(&mut bob, &mut alice, "turn");
    let turned = world.seal(&mut alice, "turned");
    assert_eq!(
        world.open(&mut bob, &turned).unwrap_err(),
        Error::Gone(Gone::TooManyMissing)
    );
    let repaired = world.start(&mut bob, &mut alice);
    world.send(&mut bob, &mut alice, "repair");
    assert_eq!(world.send(&mut alice, &mut bob, "heard").session, repaired);
    assert_eq!(
        world.send(&mut bob, &mut alice, "and back").session,
        repaired
    );
}

/// docs/protocol.md §8.2: in `pn` and `n` together.
#[test]
fn keys_skipped_in_two_chains_count_together() {
    let (mut world, mut alice, mut bob) = World::talking(13);
    world.send(&mut alice, &mut bob, "opened");
    for _ in 0..600 {
        world.seal(&mut alice, "lost");
    }
    world.send(&mut bob, &mut alice, "turn");
    for _ in 0..401 {
        world.seal(&mut alice, "lost");
    }
    let beyond = world.seal(&mut alice, "600 and 401");
    assert_eq!(
        world.open(&mut bob, &beyond).unwrap_err(),
        Error::Gone(Gone::TooManyMissing)
    );
}

/// docs/protocol.md §8.2: a header that claims a huge `pn` or `n` costs nothing.
#[test]
fn numbers_at_the_end_of_their_range_are_refused() {
    let (mut world, mut alice, mut bob) = World::talking(14);
    let message = world.seal(&mut alice, "x");
    for (at, value, error) in [
        (N, u32::MAX, Error::Decrypt),
        (N, 1 << 31, Error::Decrypt),
        (N, (1 << 31) - 1, Error::Gone(Gone::TooManyMissing)),
        (PN, u32::MAX, Error::Gone(Gone::TooManyMissing)),
    ] {
        let mut changed = message.clone();
        changed[at..at + 4].copy_from_slice(&value.to_be_bytes());
        assert_eq!(world.open(&mut bob, &changed).unwrap_err(), error);
    }
}

/// docs/protocol.md §8.2: at most 2,000 are kept, the oldest are dropped first.
#[test]
fn the_oldest_skipped_keys_are_dropped_beyond_two_thousand() {
    let (mut world, mut alice, mut bob) = World::talking(15);
    let mut skipped = Vec::new();
    for _ in 0..3 {
        skipped.extend((0..700).map(|_| world.seal(&mut alice, "late")));
        assert_eq!(world.send(&mut alice, &mut bob, "on time").missing, 700);
    }
    // 2,100 were skipped.
    assert_eq!(
        world.open(&mut bob, &skipped[99]).unwrap_err(),
        Error::Decrypt
    );
    world.open(&mut bob, &skipped[100]).unwrap();
    world.open(&mut bob, &skipped[2_099]).unwrap();
}

/// docs/protocol.md §8.2: each for at most 30 days.
#[test]
fn a_skipped_key_is_gone_after_thirty_days() {
    let (mut world, mut alice, mut bob) = World::talking(16);
    let late = world.seal(&mut alice, "late");
    let later = world.seal(&mut alice, "later");
    world.send(&mut alice, &mut bob, "on time");
    world.now += 30 * DAY;
    world.open(&mut bob, &late).unwrap();
    world.now += 1;
    assert_eq!(world.open(&mut bob, &later).unwrap_err(), Error::Decrypt);
    // And it is erased, not only ignored.
    let before = bob.peer.encode().len();
    bob.peer.expire(world.now);
    assert!(bob.peer.encode().len() < before);
}

/// docs/protocol.md §8.2: each, also behind one that a wrong clock made look young.
#[test]
fn a_skipped_key_from_the_future_keeps_no_other() {
    let (mut world, mut alice, mut bob) = World::talking(23);
    let now = world.now;
    world.now += 365 * DAY;
    world.seal(&mut alice, "lost while the clock was wrong");
    world.send(&mut alice, &mut bob, "on time");
    world.now = now;
    world.seal(&mut alice, "lost");
    world.send(&mut alice, &mut bob, "on time");
    let before = bob.peer.encode().len();
    bob.peer.expire(now + 30 * DAY);
    assert_eq!(bob.peer.encode().len(), before);
    bob.peer.expire(now + 30 * DAY + 1);
    // Ratchet key, number, time and key.
    assert_eq!(bob.peer.encode().len(), before - (32 + 4 + 8 + 32));
}

/// docs/protocol.md §8.1: old ratchet keys do not come back.
#[test]
fn a_message_under_a_ratchet_key_of_long_ago_does_not_open() {
    let (mut world, mut alice, mut bob) = World::talking(17);
    let opened = world.seal(&mut alice, "once");
    world.open(&mut bob, &opened).unwrap();
    for _ in 0..3 {
        world.send(&mut bob, &mut alice, "turn");
        world.send(&mut alice, &mut bob, "turn");
    }
    assert_eq!(world.open(&mut bob, &opened).unwrap_err(), Error::Decrypt);
}

/// docs/protocol.md §7.3: `first` is the initiator's alone.
#[test]
fn a_first_message_from_the_recipient_is_refused() {
    let (mut world, mut alice, mut bob) = World::pair(18);
    let session = world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "first");
    let reply = world.seal(&mut bob, "reply");
    let sealed = SealedMessage::decode(&reply).unwrap();
    let header = sealed.header();
    assert_eq!(header.session, session);
    let kem_ciphertext = [0; 1088];
    let first = First {
        device_key: *bob.keys.signing().public().as_bytes(),
        ephemeral: [9; 32],
        kem_ciphertext: &kem_ciphertext,
        generation: 1,
        one_time: None,
        proof: "a.b.c",
        attestation: "a.b.c",
    };
    let forged = crate::forge::sealed_with_any_key(
        &mut world,
        sealwire_e2e::message::Header {
            first: Some(first),
            ..*header
        },
    );
    assert_eq!(
        world.open(&mut alice, &forged).unwrap_err(),
        Error::Misbehaved(Misbehaved::FirstFromRecipient)
    );
    world.open(&mut alice, &reply).unwrap();
}

/// docs/protocol.md §8.2: a message for one device does not open at another.
#[test]
fn a_message_of_another_session_does_not_open_under_this_ones_id() {
    let (mut world, mut alice, mut bob) = World::talking(19);
    let (mut other_world, mut carol, mut _dave) = World::talking(20);
    let mut message = other_world.seal(&mut carol, "x");
    let own = world.seal(&mut alice, "x");
    message[SESSION..RATCHET_KEY].copy_from_slice(&own[SESSION..RATCHET_KEY]);
    assert_eq!(world.open(&mut bob, &message).unwrap_err(), Error::Decrypt);
}

/// docs/protocol.md §8.2, §9.1: no key and iv are used together twice, not even where a device is put back to an earlier state, as the iv
/// is random. Only the same randomness repeats them, which shows that the sealings of messages are counted.
#[test]
fn sealing_uses_no_key_and_iv_twice() {
    use sealwire_protocol::audit;

    let run = || {
        let (mut world, mut alice, mut bob) = World::pair(77);
        world.start(&mut alice, &mut bob);
        for turn in 0..5 {
            world.send(&mut alice, &mut bob, &format!("a{turn}"));
            world.send(&mut bob, &mut alice, &format!("b{turn}"));
        }
        let earlier = alice.peer.encode();
        world.seal(&mut alice, "before");
        alice.peer = Peer::decode(&earlier).unwrap();
        world.seal(&mut alice, "after");
    };
    audit::start();
    run();
    let sealed = audit::sealed();
    assert!(sealed >= 12, "{sealed}");
    assert_eq!(audit::repeats(), 0);
    run();
    assert_eq!((audit::sealed(), audit::repeats()), (2 * sealed, sealed));
}
