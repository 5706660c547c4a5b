//! Arbitrary and mutated messages: none panics, and none that is refused changes a byte of state (docs/protocol.md §8.2).

use proptest::prelude::*;
use sealwire_e2e::{message::SealedMessage, peer::Local};

use crate::pair::{Device, World};

/// Offers bytes to a device; a panic or a change of state fails the test.
fn offer(world: &World, at: &mut Device, bytes: &[u8]) -> bool {
    let Ok(message) = SealedMessage::decode(bytes) else {
        return false;
    };
    let before = (at.peer.encode(), at.prekeys.encode());
    let Device {
        keys,
        own,
        prekeys,
        peer,
        ..
    } = at;
    let opened = peer
        .open(
            Local { keys, own, prekeys },
            &message,
            &world.issuer_keys,
            &world.policy(),
        )
        .is_ok();
    assert!(
        opened || before == (at.peer.encode(), at.prekeys.encode()),
        "a refused message changed the state"
    );
    opened
}

fn ordinary() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<[u8; 32]>(),
        any::<(u32, u32)>(),
        any::<[u8; 12]>(),
        prop::collection::vec(any::<u8>(), 1..64),
        any::<[u8; 16]>(),
    )
        .prop_map(|(key, (pn, n), iv, ciphertext, tag)| {
            let mut bytes = vec![1, 1];
            bytes.extend([0; 16]);
            bytes.extend(key);
            bytes.extend((pn % 1_200).to_be_bytes());
            bytes.extend((n % 1_200).to_be_bytes());
            bytes.extend(iv);
            bytes.extend([0, 0, u8::try_from(ciphertext.len()).unwrap()]);
            bytes.extend(ciphertext);
            bytes.extend(tag);
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// docs/protocol.md §8.2
    #[test]
    fn arbitrary_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        let (world, mut alice, _bob) = World::talking(140);
        prop_assert!(!offer(&world, &mut alice, &bytes));
    }

    /// docs/protocol.md §8.2
    #[test]
    fn arbitrary_messages_of_a_session_never_open(mut bytes in ordinary(), of_this_chain in any::<bool>()) {
        let (mut world, mut alice, mut bob) = World::talking(141);
        let genuine = world.seal(&mut alice, "genuine");
        bytes[2..18].copy_from_slice(&genuine[2..18]);
        if of_this_chain {
            bytes[18..50].copy_from_slice(&genuine[18..50]);
        }
        prop_assert!(!offer(&world, &mut bob, &bytes));
        prop_assert!(offer(&world, &mut bob, &genuine));
    }

    /// docs/protocol.md §8.2
    #[test]
    fn a_first_message_with_one_byte_changed_never_opens(at in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let (mut world, mut alice, mut bob) = World::pair(142);
        world.start(&mut alice, &mut bob);
        let genuine = world.seal(&mut alice, "genuine");
        let mut bytes = genuine.clone();
        bytes[at.index(genuine.len())] ^= change;
        prop_assert!(!offer(&world, &mut bob, &bytes));
        prop_assert!(offer(&world, &mut bob, &genuine));
    }
}
