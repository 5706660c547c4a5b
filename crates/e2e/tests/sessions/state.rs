//! State on its way to the store and back.

use proptest::prelude::*;
use sealwire_e2e::{
    device::DeviceKeys,
    error::{Error, StateError},
    peer::Peer,
    prekeys::Prekeys,
};

use crate::pair::{Device, ISSUER, World};

/// Where the only generation's replay entries are counted in encoded prekeys: version, kind, two next ids, number of
/// generations, and the generation's own fields.
const REPLAY_COUNT: usize = 2 + 1 + 8 + 1 + (4 + 8 + 8 + 32 + 64 + 32 + 32);

/// Prekeys with one generation and as many replay entries as `entries`, by number of whose device.
pub(crate) fn with_replay_entries(
    prekeys: &Prekeys,
    entries: u16,
    initiator: impl Fn(u16) -> [u8; 32],
) -> Prekeys {
    let encoded = prekeys.encode();
    assert_eq!(encoded[REPLAY_COUNT..REPLAY_COUNT + 2], [0, 0]);
    let mut more = encoded[..REPLAY_COUNT].to_vec();
    more.extend(entries.to_be_bytes());
    for entry in 0..entries {
        more.extend([0; 30]);
        more.extend(entry.to_be_bytes());
        more.extend(initiator(entry));
    }
    more.extend(&encoded[REPLAY_COUNT + 2..]);
    Prekeys::decode(&more).unwrap()
}

fn restart(device: &mut Device) {
    let (keys, prekeys, peer) = (
        device.keys.encode(),
        device.prekeys.encode(),
        device.peer.encode(),
    );
    device.keys = DeviceKeys::decode(&keys).unwrap();
    device.prekeys = Prekeys::decode(&prekeys).unwrap();
    device.peer = Peer::decode(&peer).unwrap();
    assert!(
        keys == device.keys.encode()
            && prekeys == device.prekeys.encode()
            && peer == device.peer.encode()
    );
}

#[derive(Clone, Debug)]
enum Step {
    Start { by_alice: bool },
    Send { by_alice: bool, deliver: bool },
    DeliverLate { to_alice: bool },
    Restart { alice: bool },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => any::<bool>().prop_map(|by_alice| Step::Start { by_alice }),
        6 => any::<(bool, bool)>().prop_map(|(by_alice, deliver)| Step::Send { by_alice, deliver }),
        2 => any::<bool>().prop_map(|to_alice| Step::DeliverLate { to_alice }),
        2 => any::<bool>().prop_map(|alice| Step::Restart { alice }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever happens between two devices that are restarted in between: what one seals in a session that the other still
    /// has, the other opens, once.
    #[test]
    fn restarted_devices_go_on_where_they_were(steps in prop::collection::vec(step(), 1..40)) {
        let (mut world, mut alice, mut bob) = World::pair(120);
        world.start(&mut alice, &mut bob);
        let mut late: [Vec<(Vec<u8>, String)>; 2] = Default::default();
        let mut sessions = 1;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Start { by_alice } if sessions < 4 => {
                    sessions += 1;
                    let (from, to) = if by_alice { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
                    world.start(from, to);
                }
                Step::Start { .. } => {}
                Step::Send { by_alice, deliver } => {
                    let (from, to) = if by_alice { (&mut alice, &mut bob) } else { (&mut bob, &mut alice) };
                    if from.peer.needs_session(world.now) {
                        continue;
                    }
                    let text = format!("{number}");
                    let message = world.seal(from, &text);
                    if deliver {
                        let opened = world.open(to, &message).unwrap();
                        prop_assert_eq!(&**opened.content, text.as_bytes());
                        prop_assert_eq!(world.open(to, &message).unwrap_err(), Error::Decrypt);
                    } else {
                        late[usize::from(by_alice)].push((message, text));
                    }
                }
                Step::DeliverLate { to_alice } => {
                    let to = if to_alice { &mut alice } else { &mut bob };
                    if let Some((message, text)) = late[usize::from(!to_alice)].pop() {
                        prop_assert_eq!(&**world.open(to, &message).unwrap().content, text.as_bytes());
                    }
                }
                Step::Restart { alice: true } => restart(&mut alice),
                Step::Restart { alice: false } => restart(&mut bob),
            }
        }
    }

    /// Damaged state is refused or is other state; it never panics.
    #[test]
    fn damaged_state_does_not_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let (_world, alice, bob) = World::talking(121);
        for encoded in [alice.keys.encode(), bob.prekeys.encode(), alice.peer.encode()] {
            let mut damaged = encoded.to_vec();
            damaged[at.index(encoded.len())] = value;
            let _ = (DeviceKeys::decode(&damaged), Prekeys::decode(&damaged), Peer::decode(&damaged));
            damaged.truncate(cut.index(encoded.len()));
            prop_assert!(DeviceKeys::decode(&damaged).is_err());
            prop_assert!(Prekeys::decode(&damaged).is_err());
            prop_assert!(Peer::decode(&damaged).is_err());
        }
    }
}

#[test]
fn restored_device_keys_are_the_same_device() {
    let (_world, alice, _bob) = World::pair(122);
    let restored = DeviceKeys::decode(&alice.keys.encode()).unwrap();
    assert_eq!(restored.thumbprint(), alice.keys.thumbprint());
    assert_eq!(
        restored.standard_jwe_public(),
        alice.keys.standard_jwe_public()
    );
    assert_eq!(
        restored.expose_standard_jwe_secret(),
        alice.keys.expose_standard_jwe_secret()
    );
}

#[test]
fn state_of_another_version_is_refused_by_its_number() {
    let (_world, alice, _bob) = World::talking(123);
    for encoded in [
        alice.keys.encode(),
        alice.prekeys.encode(),
        alice.peer.encode(),
    ] {
        for version in [0_u16, 2, u16::MAX] {
            let mut other = encoded.to_vec();
            other[..2].copy_from_slice(&version.to_be_bytes());
            let expected = Error::State(StateError::Version(version));
            assert_eq!(DeviceKeys::decode(&other).unwrap_err(), expected);
            assert_eq!(Prekeys::decode(&other).unwrap_err(), expected);
            assert_eq!(Peer::decode(&other).unwrap_err(), expected);
        }
    }
}

#[test]
fn state_of_another_kind_is_refused() {
    let (_world, alice, _bob) = World::talking(124);
    let damaged = Error::State(StateError::Damaged);
    assert_eq!(
        DeviceKeys::decode(&alice.peer.encode()).unwrap_err(),
        damaged
    );
    assert_eq!(Prekeys::decode(&alice.keys.encode()).unwrap_err(), damaged);
    assert_eq!(Peer::decode(&alice.prekeys.encode()).unwrap_err(), damaged);
}

#[test]
fn state_with_trailing_bytes_or_cut_short_is_refused() {
    let (_world, alice, _bob) = World::talking(125);
    let damaged = Error::State(StateError::Damaged);
    let peer = alice.peer.encode();
    for length in 0..peer.len() {
        assert_eq!(Peer::decode(&peer[..length]).unwrap_err(), damaged);
    }
    let prekeys = alice.prekeys.encode();
    for length in 0..prekeys.len() {
        assert_eq!(Prekeys::decode(&prekeys[..length]).unwrap_err(), damaged);
    }
    for encoded in [peer, prekeys] {
        let mut longer = encoded.to_vec();
        longer.push(0);
        assert_eq!(Peer::decode(&longer).err(), Some(damaged.clone()));
        assert_eq!(Prekeys::decode(&longer).err(), Some(damaged.clone()));
    }
}

/// Counts are checked before anything is allocated for what they count.
#[test]
fn counts_beyond_their_bounds_are_refused() {
    let (_world, _alice, bob) = World::pair(126);
    let mut prekeys = bob.prekeys.encode().to_vec();
    prekeys[REPLAY_COUNT..REPLAY_COUNT + 2].copy_from_slice(&4_097_u16.to_be_bytes());
    assert_eq!(
        Prekeys::decode(&prekeys).unwrap_err(),
        Error::State(StateError::Damaged)
    );
    let mut generations = bob.prekeys.encode().to_vec();
    generations[11] = 9;
    assert_eq!(
        Prekeys::decode(&generations).unwrap_err(),
        Error::State(StateError::Damaged)
    );
    let mut sessions = Peer::new(bob.keys.thumbprint()).encode().to_vec();
    *sessions.last_mut().unwrap() = 5;
    assert_eq!(
        Peer::decode(&sessions).unwrap_err(),
        Error::State(StateError::Damaged)
    );
}

/// docs/protocol.md §6.1, §6.2: an id that was not given out yet cannot have secrets.
#[test]
fn prekeys_with_ids_that_were_never_given_out_are_refused() {
    let (_world, _alice, bob) = World::pair(127);
    for next in [3, 7] {
        let mut prekeys = bob.prekeys.encode().to_vec();
        prekeys[next..next + 4].copy_from_slice(&1_u32.to_be_bytes());
        assert_eq!(
            Prekeys::decode(&prekeys).unwrap_err(),
            Error::State(StateError::Damaged)
        );
    }
}

/// docs/protocol.md §6.2: ids are never reused, so there is a last one.
#[test]
fn ids_end_and_do_not_start_again() {
    let (mut world, _alice, bob) = World::pair(128);
    let mut encoded = bob.prekeys.encode().to_vec();
    encoded[3..11].fill(0xff);
    let mut prekeys = Prekeys::decode(&encoded).unwrap();
    let exhausted = Error::Misuse(sealwire_e2e::error::Misuse::IdsExhausted);
    assert_eq!(
        prekeys
            .publish_one_time(&bob.keys, 2, &mut world.rng, world.now)
            .unwrap_err(),
        exhausted
    );
    prekeys
        .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
        .unwrap();
    assert_eq!(
        prekeys
            .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
            .unwrap_err(),
        exhausted
    );
    let mut restored = Prekeys::decode(&prekeys.encode()).unwrap();
    assert_eq!(
        restored
            .publish(&bob.keys, &bob.own, &mut world.rng, world.now)
            .unwrap_err(),
        exhausted
    );
}

/// docs/protocol.md §8.2: sealing is refused at n = 2^31, until the ratchet turns.
#[test]
fn a_chain_at_its_end_refuses_to_seal_until_the_ratchet_turns() {
    let (mut world, mut alice, mut bob) = World::pair(129);
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "first");
    // `n` of the sending chain of a peer with one session: after it come `pn` and "no receiving chain" and "nothing skipped".
    let mut encoded = alice.peer.encode().to_vec();
    let n = encoded.len() - (4 + 4 + 1 + 2);
    assert_eq!(encoded[n..n + 4], 1_u32.to_be_bytes());
    encoded[n..n + 4].copy_from_slice(&(1_u32 << 31).to_be_bytes());
    alice.peer = Peer::decode(&encoded).unwrap();
    let error = alice
        .peer
        .seal(b"one too many", &mut world.rng)
        .unwrap_err();
    assert_eq!(
        error,
        Error::Misuse(sealwire_e2e::error::Misuse::ChainEnded)
    );
    assert!(*alice.peer.encode() == encoded);
    world.send(&mut bob, &mut alice, "answer");
    alice.peer.seal(b"goes on", &mut world.rng).unwrap();

    encoded[n..n + 4].copy_from_slice(&((1_u32 << 31) + 1).to_be_bytes());
    assert_eq!(
        Peer::decode(&encoded).unwrap_err(),
        Error::State(StateError::Damaged)
    );
}

/// Where the number of sessions stands in an encoded peer: version, kind, device, identity. The first session follows.
fn session_count(user: &str) -> usize {
    2 + 1 + 32 + 1 + 1 + ISSUER.len() + 1 + user.len()
}

/// Where the role stands in an encoded session: whether it seals, its id, its time.
const ROLE: usize = 1 + 16 + 8;

fn assert_damaged(peer: &[u8]) {
    assert_eq!(
        Peer::decode(peer).unwrap_err(),
        Error::State(StateError::Damaged)
    );
}

/// docs/protocol.md §7.5: exactly one session seals as soon as there is one.
#[test]
fn a_peer_in_which_not_exactly_one_session_seals_is_refused() {
    let (_world, alice, _bob) = World::talking(130);
    let one = alice.peer.encode();
    let count = session_count("bob");
    let (head, session) = one.split_at(count + 1);
    assert_eq!((head[count], session[0]), (1, 1));
    let with = |sessions: &[(u8, u8)]| {
        let mut peer = head[..count].to_vec();
        peer.push(u8::try_from(sessions.len()).unwrap());
        for (seals, id) in sessions {
            let at = peer.len();
            peer.extend(session);
            peer[at] = *seals;
            peer[at + 1] = *id;
        }
        peer
    };
    Peer::decode(&with(&[(1, 1), (0, 2)])).unwrap();
    assert_damaged(&with(&[(0, 1)]));
    assert_damaged(&with(&[(0, 1), (0, 2)]));
    assert_damaged(&with(&[(1, 1), (1, 2)]));
    // Nor is a session there twice.
    assert_damaged(&with(&[(1, 1), (0, 1)]));
}

#[test]
fn a_session_with_nobody_is_refused() {
    let (_world, alice, _bob) = World::talking(131);
    let peer = alice.peer.encode();
    let mut nobody = peer[..2 + 1 + 32].to_vec();
    nobody.push(0);
    nobody.extend(&peer[session_count("bob")..]);
    assert_damaged(&nobody);
}

/// docs/protocol.md §7.3: an initiator is answered exactly if it has opened a message.
#[test]
fn a_session_that_is_answered_and_has_received_nothing_is_refused() {
    let (mut world, mut alice, mut bob) = World::pair(132);
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "first");
    let unanswered = alice.peer.encode();
    world.send(&mut bob, &mut alice, "answer");
    let answered = alice.peer.encode();
    let role = session_count("bob") + 1 + ROLE;
    assert_eq!((unanswered[role], answered[role]), (0, 1));
    // The first flight: keys, ciphertext, ids, and the proof and attestation with their lengths.
    let mut end = role + 1 + 32 + 32 + 1_088 + 4 + 1 + 4;
    for _ in 0..2 {
        end += 2 + usize::from(u16::from_be_bytes([unanswered[end], unanswered[end + 1]]));
    }
    let flight = &unanswered[role + 1..end];
    for other in [1, 2] {
        assert_damaged(&[&unanswered[..role], &[other], &unanswered[end..]].concat());
    }
    assert_damaged(&[&answered[..role], &[0], flight, &answered[role + 1..]].concat());
    assert_damaged(&[&answered[..role], &[3], &answered[role + 1..]].concat());
}

/// docs/protocol.md §8.1: a turn is with the ratchet key of the latest chain.
#[test]
fn a_turn_with_another_ratchet_key_than_was_received_is_refused() {
    let (mut world, mut alice, mut bob) = World::pair(133);
    world.start(&mut alice, &mut bob);
    world.send(&mut alice, &mut bob, "first");
    let mut peer = bob.peer.encode().to_vec();
    let theirs = session_count("alice") + 1 + ROLE + 1 + 32 + 1;
    assert_eq!(peer[theirs - 1], 0, "not a turn");
    peer[theirs] ^= 1;
    assert_damaged(&peer);
}
