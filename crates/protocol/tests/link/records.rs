//! Records on their way: dropped, changed, reordered, replayed, reflected; and rogues who seal what they like (docs/protocol.md §4, §5, §13).

use sealwire_protocol::batch::Batch;
use sealwire_protocol::close::CloseCode;
use sealwire_protocol::codec::{DecodeError, EncodeError};
use sealwire_protocol::error::{LinkError, Malformed, Misbehaviour, Misuse, Part};
use sealwire_protocol::frame::{DeviceToRelay, Frame as _, RelayToDevice, ToDevice, ToRelay};
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::link::{DeviceLink, RelayLink};

use super::pair::{NOW, Pair, key, ready};
use super::proofs::{device_proof, good_accept_secret};
use super::rogue::{Rogue, RogueDevice, Sender, finish_secret, rogue_accept};

fn ack(position: u64) -> ToRelay<'static> {
    ToRelay::Ack { position }
}

fn accepted(request: u32) -> ToDevice<'static> {
    ToDevice::Accepted { request }
}

fn does_not_open() -> LinkError {
    Misbehaviour::DoesNotOpen.into()
}

/// A rogue device with a link to an honest relay.
fn rogue_device() -> (Rogue, RelayLink) {
    let pair = Pair::new();
    let device = RogueDevice::new();
    let (relay, accept) = pair.accept(&device.hello).unwrap();
    let (mut device, _) = device.on_accept(&accept);
    let proof = device_proof(&pair, &device, b"").sign(&pair.device_key, NOW);
    let secret = finish_secret(
        2,
        pair.device_key.public().as_bytes(),
        proof.as_bytes(),
        b"",
    );
    let peer = relay
        .on_finish(&device.finish(secret))
        .unwrap()
        .prove(NOW)
        .unwrap();
    (
        device,
        peer.authorise(pair.verified(&pair.token())).unwrap(),
    )
}

/// A rogue relay with a link to an honest device.
fn rogue_relay() -> (Rogue, DeviceLink) {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (mut relay, accept) =
        rogue_accept(&hello, None, |t1| good_accept_secret(&pair, &hello, t1));
    let (device, finish) = pair.finish(device, &accept, Credential::Renewal).unwrap();
    relay.on_finish(&finish);
    (relay, device)
}

fn relay_says(plaintext: &[u8]) -> Result<usize, LinkError> {
    let (device, mut relay) = rogue_device();
    relay
        .handle_message(&mut device.first_record(Sender::Device, plaintext))
        .map(|frames| frames.len())
}

fn device_says(frames: &[ToDevice<'_>]) -> Result<usize, LinkError> {
    let (relay, mut device) = rogue_relay();
    let mut plaintext = Vec::new();
    for frame in frames {
        frame.encode(&mut plaintext).unwrap();
    }
    device
        .handle_message(&mut relay.first_record(Sender::Relay, &plaintext))
        .map(|frames| frames.len())
}

#[test]
fn frames_arrive_in_order_in_both_directions() {
    let mut pair = Pair::new();
    let (mut device, mut relay) = pair.link();
    for position in 0..50 {
        pair.send(&mut device, &ack(position));
        pair.to_device
            .push_back(relay.seal_frame(&accepted(7)).unwrap());
    }
    assert_eq!(
        pair.deliver_acks(&mut relay).unwrap(),
        (0..50).collect::<Vec<_>>()
    );
    assert_eq!(pair.deliver_accepted(&mut device).unwrap(), [7; 50]);
}

/// docs/protocol.md §4: one to 256 frames
#[test]
fn a_batch_of_256_frames_is_one_record() {
    let (mut device, mut relay) = Pair::new().link();
    let mut batch = Batch::<DeviceToRelay>::new();
    for position in 0..256 {
        batch.push(&ack(position)).unwrap();
    }
    assert_eq!(batch.push(&ack(256)), Err(Misuse::BatchFull));
    assert_eq!(batch.len(), 256, "the batch is as it was");
    let mut record = device.seal(batch).unwrap();
    assert_eq!(relay.handle_message(&mut record).unwrap().len(), 256);
}

/// docs/protocol.md §4: a device need not wait for Ready
#[test]
fn records_may_follow_finish_at_once() {
    let (mut device, mut relay) = Pair::new().handshake(|_, _| {}).unwrap();
    let mut record = device.seal_frame(&ack(1)).unwrap();
    assert_eq!(relay.handle_message(&mut record).unwrap().len(), 1);
}

/// docs/protocol.md §4, §13
#[test]
fn a_dropped_record_ends_the_link() {
    let mut pair = Pair::new();
    let (mut device, mut relay) = pair.link();
    pair.send(&mut device, &ack(1));
    pair.send(&mut device, &ack(2));
    pair.to_relay.pop_front();
    let error = pair.deliver_acks(&mut relay).unwrap_err();
    assert_eq!(error, does_not_open());
    assert_eq!(error.close_code(), CloseCode::Violation);
}

/// docs/protocol.md §4
#[test]
fn reordered_records_end_the_link() {
    let mut pair = Pair::new();
    let (mut device, mut relay) = pair.link();
    pair.send(&mut device, &ack(1));
    pair.send(&mut device, &ack(2));
    pair.to_relay.swap(0, 1);
    assert_eq!(pair.deliver_acks(&mut relay).unwrap_err(), does_not_open());
}

/// docs/protocol.md §4
#[test]
fn a_replayed_record_ends_the_link() {
    let mut pair = Pair::new();
    let (mut device, mut relay) = pair.link();
    pair.send(&mut device, &ack(1));
    pair.to_relay.push_back(pair.to_relay[0].clone());
    assert_eq!(pair.deliver_acks(&mut relay).unwrap_err(), does_not_open());
}

/// docs/protocol.md §3.4: each direction has its own keys
#[test]
fn a_record_reflected_to_its_sender_ends_the_link() {
    let mut pair = Pair::new();
    let (mut device, mut relay) = pair.link();
    pair.to_device
        .push_back(device.seal_frame(&ack(1)).unwrap());
    assert_eq!(
        pair.deliver_accepted(&mut device).unwrap_err(),
        does_not_open()
    );
    pair.to_relay
        .push_back(relay.seal_frame(&accepted(1)).unwrap());
    assert_eq!(pair.deliver_acks(&mut relay).unwrap_err(), does_not_open());
}

/// docs/protocol.md §4
#[test]
fn a_record_of_another_link_ends_the_link() {
    let pair = Pair::new();
    let token = pair.token();
    let (mut device, _) = pair.link();
    let (other, hello) = pair.hello();
    // The same device and relay, and another token in Finish.
    let (accepting, accept) = pair.accept(&hello).unwrap();
    let (_, finish) = pair.finish(other, &accept, Credential::Renewal).unwrap();
    let peer = accepting.on_finish(&finish).unwrap().prove(NOW).unwrap();
    let mut relay = peer.authorise(pair.verified(&token)).unwrap();
    assert_eq!(
        relay
            .handle_message(&mut device.seal_frame(&ack(1)).unwrap())
            .unwrap_err(),
        does_not_open()
    );
}

/// docs/protocol.md §13: errors are sticky, in both directions
#[test]
fn after_an_error_a_link_neither_takes_nor_sends_anything() {
    let (mut device, mut relay) = Pair::new().link();
    let good = device.seal_frame(&ack(1)).unwrap();
    let mut bad = good.clone();
    bad[9] ^= 1;
    assert_eq!(relay.handle_message(&mut bad).unwrap_err(), does_not_open());
    assert_eq!(
        relay.handle_message(&mut good.clone()).unwrap_err(),
        does_not_open()
    );
    assert_eq!(relay.seal_frame(&accepted(1)).unwrap_err(), does_not_open());
    assert_eq!(relay.seal(Batch::new()).unwrap_err(), does_not_open());

    let error = device.handle_message(&mut [3; 64]).unwrap_err();
    assert_eq!(
        error,
        Malformed::Encoding {
            part: Part::Record,
            defect: DecodeError::UnknownValue
        }
        .into()
    );
    assert_eq!(device.seal_frame(&ack(2)).unwrap_err(), error);
}

/// docs/protocol.md §13: misuse is the caller's fault and changes nothing
#[test]
fn misuse_leaves_the_link_as_it_was() {
    let (mut device, mut relay) = Pair::new().link();
    assert_eq!(device.seal(Batch::new()), Err(Misuse::EmptyBatch.into()));
    let request_0 = ToRelay::PublishCard {
        request: 0,
        card: b"card",
    };
    assert_eq!(
        device.seal_frame(&request_0),
        Err(Misuse::Encode(EncodeError::ReservedValue).into())
    );
    let mut record = device.seal_frame(&ack(1)).unwrap();
    assert_eq!(relay.handle_message(&mut record).unwrap().len(), 1);
}

/// docs/protocol.md §4: one or more frames
#[test]
fn relay_refuses_a_record_without_a_frame() {
    assert_eq!(relay_says(b""), Err(Malformed::EmptyRecord.into()));
}

/// docs/protocol.md §4, §12: at most 256 frames
#[test]
fn relay_refuses_a_record_of_257_frames() {
    let mut plaintext = Vec::new();
    for _ in 0..257 {
        ack(1).encode(&mut plaintext).unwrap();
    }
    let error = relay_says(&plaintext).unwrap_err();
    assert_eq!(error, Misbehaviour::TooManyFrames.into());
    assert_eq!(error.close_code(), CloseCode::Violation);
    assert_eq!(relay_says(&plaintext[..256 * 12]), Ok(256));
}

/// docs/protocol.md §4, §12: at most 3 MiB + 4 bytes
#[test]
fn relay_refuses_a_record_over_the_limit() {
    let error = relay_says(&vec![0; 3_145_733]).unwrap_err();
    assert_eq!(error, Misbehaviour::RecordTooLarge.into());
}

/// docs/protocol.md §5: an unknown type is malformed, and so is one of the other direction
#[test]
fn relay_refuses_frames_of_unknown_types() {
    let unknown = Err(Malformed::Encoding {
        part: Part::Frame,
        defect: DecodeError::UnknownValue,
    }
    .into());
    for type_byte in (0..=u8::MAX).filter(|byte| !(1..=6).contains(byte)) {
        let frame = [type_byte, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(relay_says(&frame), unknown, "{type_byte:#x}");
    }
}

/// docs/protocol.md §13: a record with one bad frame has no effect at all
#[test]
fn no_frame_of_a_record_is_seen_if_one_is_malformed() {
    let mut plaintext = Vec::new();
    ack(1).encode(&mut plaintext).unwrap();
    plaintext.extend([0x02, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    let expected = Malformed::Encoding {
        part: Part::Frame,
        defect: DecodeError::EndsEarly,
    };
    assert_eq!(relay_says(&plaintext), Err(expected.into()));
}

/// docs/protocol.md §3.2
#[test]
fn device_refuses_a_first_frame_that_is_not_ready() {
    assert_eq!(
        device_says(&[accepted(1)]),
        Err(Misbehaviour::ReadyMissing.into())
    );
    let own = key(12).thumbprint();
    assert_eq!(
        device_says(&[accepted(1), ready(own)]),
        Err(Misbehaviour::ReadyMissing.into())
    );
}

/// docs/protocol.md §3.2
#[test]
fn device_refuses_a_second_ready() {
    let own = key(12).thumbprint();
    assert_eq!(device_says(&[ready(own), accepted(1)]), Ok(2));
    assert_eq!(
        device_says(&[ready(own), ready(own)]),
        Err(Misbehaviour::ReadyAgain.into())
    );
}

/// docs/protocol.md §5.2: `device` in Ready is its own thumbprint
#[test]
fn device_refuses_ready_for_another_device() {
    let other = key(99).thumbprint();
    assert_eq!(
        device_says(&[ready(other)]),
        Err(Misbehaviour::ReadyForAnotherDevice(other).into())
    );
}

/// docs/protocol.md §3.2: the relay's own order
#[test]
fn relay_cannot_send_ready_late_or_twice() {
    let pair = Pair::new();
    let out_of_place = LinkError::from(Misuse::ReadyOutOfPlace);
    let ready = ready(pair.device_key.thumbprint());
    let (mut device, mut relay) = pair.handshake(|_, _| {}).unwrap();
    assert_eq!(relay.seal_frame(&accepted(1)).unwrap_err(), out_of_place);
    let mut batch = Batch::<RelayToDevice>::new();
    batch.push(&ready).unwrap();
    assert_eq!(batch.push(&ready), Err(Misuse::ReadyOutOfPlace));
    batch.push(&accepted(1)).unwrap();
    assert_eq!(
        device
            .handle_message(&mut relay.seal(batch).unwrap())
            .unwrap()
            .len(),
        2
    );
    assert_eq!(relay.seal_frame(&ready).unwrap_err(), out_of_place);
}

/// docs/protocol.md §3.4, §4: no key and nonce are used together twice. Only a second link with the same randomness shows a repetition,
/// which shows that each sealing of a link is counted.
#[cfg(feature = "audit")]
#[test]
fn link_uses_no_key_and_nonce_twice() {
    use sealwire_protocol::audit;

    let run = || {
        let (mut device, mut relay) = Pair::new().link();
        for position in 1..50 {
            relay
                .handle_message(&mut device.seal_frame(&ack(position)).unwrap())
                .unwrap();
            let request = u32::try_from(position).unwrap();
            device
                .handle_message(&mut relay.seal_frame(&accepted(request)).unwrap())
                .unwrap();
        }
    };
    audit::start();
    run();
    let sealed = audit::sealed();
    // Accept, Finish, Ready, and 49 records each way.
    assert_eq!((sealed, audit::repeats()), (101, 0));
    run();
    assert_eq!((audit::sealed(), audit::repeats()), (2 * sealed, sealed));
}
