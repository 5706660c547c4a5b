//! Whatever arrives, nothing panics and nothing is accepted by accident (docs/protocol.md §1.1, §13).

use proptest::prelude::*;
use sealwire_protocol::address::Address;
use sealwire_protocol::codec::Reader;
use sealwire_protocol::error::{LinkError, Misbehaviour};
use sealwire_protocol::frame::{
    Blob, Call, Frame, List, Part, Push, Send, ToDevice, ToRelay, Undelivered, UndeliveredReason,
    Upload,
};
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::Thumbprint;

use super::pair::{NOW, Pair};
use super::rogue::{Rogue, RogueDevice, Sender, rogue_accept};

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

/// Arbitrary bytes after a type byte that makes a decoder go on.
fn typed(type_byte: u8, most: usize) -> impl Strategy<Value = Vec<u8>> {
    (bytes(most), any::<bool>()).prop_map(move |(mut bytes, right)| {
        if let (Some(first), true) = (bytes.first_mut(), right) {
            *first = type_byte;
        }
        bytes
    })
}

/// A frame of any type whose length fits its payload more often than not.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    (
        prop_oneof![1_u8..=0x0a, 0x41_u8..=0x4a, any::<u8>()],
        bytes(300),
        prop_oneof![3 => Just(0_i32), 1 => -2..2],
    )
        .prop_map(|(type_byte, payload, off)| {
            let length = i32::try_from(payload.len()).unwrap() + off;
            [&[type_byte], &length.to_be_bytes()[1..], &payload].concat()
        })
}

fn encoded<'a>(frame: &impl Frame<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes).unwrap();
    bytes
}

/// Frames that have something to lose.
fn good_frames() -> Vec<Vec<u8>> {
    let device = Thumbprint::from_bytes([1; 32]);
    let parts = [Part {
        device,
        message: b"sealed",
    }; 2];
    let send = |whole, copies| Send {
        request: 1,
        sequence: 2,
        id: [3; 16],
        user: "bob",
        whole,
        parts: parts.as_slice().into(),
        copies,
    };
    vec![
        encoded(&ToRelay::Send(send(true, parts[..1].into()))),
        encoded(&ToRelay::Send(send(false, List::empty()))),
        encoded(&ToRelay::RemoveDevice { request: 1, device }),
        encoded(&ToRelay::Upload(Upload {
            request: 1,
            blob: [4; 32],
            size: 5,
            offset: 6,
            data: b"sealed",
        })),
        encoded(&ToRelay::Download {
            request: 1,
            blob: [4; 32],
            offset: 5,
            length: 6,
        }),
        encoded(&ToRelay::Discard {
            request: 1,
            blob: [4; 32],
        }),
        encoded(&ToRelay::Call(Call {
            request: 1,
            reply: true,
            service: "orders.create",
            payload: b"order",
        })),
        encoded(&ToDevice::Result {
            request: 1,
            payload: b"done",
        }),
        encoded(&ToDevice::Push(Push {
            service: "orders.changed",
            payload: b"order",
        })),
        encoded(&ToDevice::Undelivered(Undelivered {
            position: 1,
            id: [2; 16],
            user: "bob",
            device,
            reason: UndeliveredReason::DeviceRemoved,
        })),
        encoded(&ToDevice::Damaged { position: 1 }),
        encoded(&ToDevice::Expiring { expires: 1 }),
        encoded(&ToDevice::Leaving { after: 1 }),
        encoded(&ToDevice::Blob(Blob {
            request: 1,
            length: 2,
            size: 3,
            complete: false,
            data: b"sealed",
        })),
    ]
}

/// What decodes is encoded to the same bytes: there is one encoding.
fn is_canonical<'a, F: Frame<'a>>(input: &'a [u8]) {
    let mut reader = Reader::new(input);
    if let Ok(frame) = F::decode(&mut reader) {
        let mut again = Vec::new();
        frame.encode(&mut again).unwrap();
        assert_eq!(again, input[..input.len() - reader.rest().len()]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// docs/protocol.md §5
    #[test]
    fn frames_of_arbitrary_bytes_are_refused_or_canonical(input in prop_oneof![bytes(200), frame()]) {
        is_canonical::<ToRelay<'_>>(&input);
        is_canonical::<ToDevice<'_>>(&input);
    }

    /// docs/protocol.md §5: nearly good frames
    #[test]
    fn frames_with_changed_bytes_are_refused_or_canonical(
        frame in prop::sample::select(good_frames()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut input = frame;
        for (at, byte) in changes {
            let at = at.index(input.len());
            input[at] = byte;
        }
        if let Some(cut) = cut {
            input.truncate(cut.index(input.len()));
        }
        is_canonical::<ToRelay<'_>>(&input);
        is_canonical::<ToDevice<'_>>(&input);
    }

    /// docs/protocol.md §5.1
    #[test]
    fn sends_come_back(
        (request, sequence) in (1..=u32::MAX, 1..=u64::MAX),
        id in any::<[u8; 16]>(),
        user in "[^\\p{Cc}]{1,60}",
        whole in any::<bool>(),
        parts in prop::collection::vec((any::<[u8; 32]>(), prop::collection::vec(any::<u8>(), 1..40)), 1..=31),
    ) {
        let parts: Vec<_> = parts
            .iter()
            .map(|(device, message)| Part { device: Thumbprint::from_bytes(*device), message })
            .collect();
        let (parts, copies) = parts.split_at(parts.len().min(16));
        let (parts, copies) = (parts.into(), copies.into());
        let frame = ToRelay::Send(Send { request, sequence, id, user: &user, whole, parts, copies });
        let bytes = encoded(&frame);
        prop_assert_eq!(ToRelay::decode(&mut Reader::new(&bytes)), Ok(frame));
    }

    /// docs/protocol.md §3
    #[test]
    fn relay_refuses_an_arbitrary_hello(input in typed(1, 1400)) {
        prop_assert!(Pair::new().accept(&input).is_err());
    }

    /// docs/protocol.md §3
    #[test]
    fn device_refuses_an_arbitrary_accept(input in typed(2, 1400)) {
        let pair = Pair::new();
        prop_assert!(pair.finish(pair.hello().0, &input, Credential::Renewal).is_err());
    }

    /// docs/protocol.md §3
    #[test]
    fn relay_refuses_an_arbitrary_finish(input in typed(3, 300)) {
        let pair = Pair::new();
        let (relay, _) = pair.accept(&pair.hello().1).unwrap();
        prop_assert!(relay.on_finish(&input).is_err());
    }

    /// docs/protocol.md §3
    #[test]
    fn device_refuses_an_arbitrary_secret_part_of_accept(secret in prop::collection::vec(any::<u8>(), 33..300)) {
        let pair = Pair::new();
        let (device, hello) = pair.hello();
        let (_, accept) = rogue_accept(&hello, None, |_| secret);
        let error = pair.finish(device, &accept, Credential::Renewal).unwrap_err();
        prop_assert_ne!(error, LinkError::from(Misbehaviour::DoesNotOpen), "it opened and was refused for what it holds");
    }

    /// docs/protocol.md §3
    #[test]
    fn relay_refuses_an_arbitrary_secret_part_of_finish(secret in prop::collection::vec(any::<u8>(), 36..300)) {
        let pair = Pair::new();
        let (mut device, relay): (Rogue, _) = {
            let device = RogueDevice::new();
            let (relay, accept) = pair.accept(&device.hello).unwrap();
            (device.on_accept(&accept).0, relay)
        };
        let outcome = relay.on_finish(&device.finish(secret)).and_then(|peer| peer.prove(NOW));
        prop_assert!(outcome.is_err());
    }

    /// docs/protocol.md §4
    #[test]
    fn relay_refuses_arbitrary_records(input in typed(4, 300)) {
        let (_, mut relay) = Pair::new().link();
        prop_assert!(relay.handle_message(&mut input.clone()).is_err());
    }

    #[test]
    fn device_survives_arbitrary_frames_of_a_rogue_relay(plaintext in prop::collection::vec(frame(), 0..5)) {
        let pair = Pair::new();
        let (device, hello) = pair.hello();
        let (mut relay, accept) = rogue_accept(&hello, None, |t1| super::proofs::good_accept_secret(&pair, &hello, t1));
        let (mut device, finish) = pair.finish(device, &accept, Credential::Renewal).unwrap();
        relay.on_finish(&finish);
        prop_assert!(device.handle_message(&mut relay.first_record(Sender::Relay, &plaintext.concat())).is_err());
    }

    /// docs/protocol.md §3.1
    #[test]
    fn addresses_of_arbitrary_text_are_refused_or_come_back(text in "(wss?://)?[a-z0-9.:\\[\\]@/?-]{0,20}(/v1)?(#[A-Za-z0-9_-]{42,43})?") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }
    }
}
