//! Flights that were changed, cut, lengthened, mixed up or made from bad keys (docs/protocol.md §1.1, §1.3, §3).

use sealwire_protocol::close::CloseCode;
use sealwire_protocol::codec::DecodeError;
use sealwire_protocol::error::{
    Incompatibility, LinkError, Malformed, Misbehaviour, Misuse, NotAuthorised, Part,
};
use sealwire_protocol::handshake::{Credential, DeviceHello};

use super::pair::{Failure, Flight, Pair, key, ready};
use super::rogue::{RogueDevice, Sender, hello, rogue_accept};

/// X25519 keys whose result is zero: the points of small order, also in encodings that are not canonical (RFC 7748 §6.1).
fn low_order_points() -> Vec<[u8; 32]> {
    let mut points = Vec::new();
    let unhex = |text: &str| -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    };
    for text in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let point = unhex(text);
        points.push(point);
        let mut with_top_bit = point;
        with_top_bit[31] |= 0x80;
        points.push(with_top_bit);
    }
    points
}

fn malformed(part: Part, defect: DecodeError) -> LinkError {
    Malformed::Encoding { part, defect }.into()
}

fn does_not_open() -> LinkError {
    Misbehaviour::DoesNotOpen.into()
}

#[test]
fn device_and_relay_agree_and_know_each_other() {
    let pair = Pair::new();
    let (device, relay) = pair.handshake(|_, _| {}).unwrap();
    assert_eq!(device.relay(), pair.relay_key.thumbprint());
    assert_eq!(relay.device(), pair.device_key.thumbprint());
    assert_eq!(relay.token().claims().user.as_str(), "alice");
}

/// docs/protocol.md §3.1: 65,536 bytes before the handshake is complete
#[test]
fn the_largest_flights_fit_before_the_handshake_limit() {
    let pair = Pair::new();
    let mut bytes = 0;
    pair.handshake(|flight, message| {
        if flight != Flight::Accept {
            bytes += message.len();
        }
    })
    .unwrap();
    assert!(bytes + 8192 < 65_536);
}

/// docs/protocol.md §3.2, §13
#[test]
fn relay_refuses_every_other_version() {
    let pair = Pair::new();
    let (_, hello) = pair.hello();
    for version in [0_u16, 2, 0x0100, u16::MAX] {
        for length in [3, hello.len(), hello.len() + 9] {
            let mut other = hello.clone();
            other.resize(length, 0);
            other[1..3].copy_from_slice(&version.to_be_bytes());
            let error = pair.accept(&other).unwrap_err();
            assert_eq!(error, Incompatibility::Version { theirs: version }.into());
            assert_eq!(error.close_code(), CloseCode::Version);
        }
    }
}

/// RFC 7748 §6.1, docs/protocol.md §1.3
#[test]
fn relay_refuses_every_low_order_key_in_hello() {
    let pair = Pair::new();
    let (_, good) = pair.hello();
    for point in low_order_points() {
        let error = pair.accept(&hello(&point, &good[67..])).unwrap_err();
        assert_eq!(error, Misbehaviour::LowOrderKey.into());
        assert_eq!(error.close_code(), CloseCode::Violation);
    }
}

/// RFC 7748 §6.1, docs/protocol.md §1.3
#[test]
fn device_refuses_every_low_order_key_in_accept() {
    let pair = Pair::new();
    for point in low_order_points() {
        let (device, hello) = pair.hello();
        let (_, accept) = rogue_accept(&hello, Some(point), |_| vec![0; 64]);
        assert_eq!(
            pair.finish(device, &accept, Credential::Renewal)
                .unwrap_err(),
            Misbehaviour::LowOrderKey.into()
        );
    }
}

/// FIPS 203 §7.2, docs/protocol.md §1.3
#[test]
fn relay_refuses_a_kem_key_with_a_coefficient_that_is_not_below_the_modulus() {
    let pair = Pair::new();
    let (_, good) = pair.hello();
    // Two coefficients of 12 bits in three bytes; q = 3329 = 0xd01.
    for at in [67, 67 + 3, 67 + 1152 - 3] {
        for coefficients in [[0x01, 0x0d, 0x00], [0x00, 0x10, 0xd0], [0xff, 0xff, 0xff]] {
            let mut bad = good.clone();
            bad[at..at + 3].copy_from_slice(&coefficients);
            let error = pair.accept(&bad).unwrap_err();
            assert_eq!(error, Malformed::KemKey.into());
            assert_eq!(error.close_code(), CloseCode::Malformed);
        }
    }
}

/// docs/protocol.md §1.1
#[test]
fn hello_cut_or_lengthened_anywhere_is_malformed() {
    let pair = Pair::new();
    let (_, hello) = pair.hello();
    for length in 0..hello.len() {
        let error = pair.accept(&hello[..length]).unwrap_err();
        assert_eq!(
            error,
            malformed(Part::Hello, DecodeError::EndsEarly),
            "{length}"
        );
    }
    let longer = [hello.as_slice(), &[0]].concat();
    assert_eq!(
        pair.accept(&longer).unwrap_err(),
        malformed(Part::Hello, DecodeError::TrailingBytes)
    );
}

/// docs/protocol.md §1.1
#[test]
fn accept_cut_or_lengthened_anywhere_is_malformed() {
    let pair = Pair::new();
    let (_, accept) = pair.accept(&pair.hello().1).unwrap();
    for length in 0..accept.len() {
        let error = pair
            .finish(pair.hello().0, &accept[..length], Credential::Renewal)
            .unwrap_err();
        assert_eq!(
            error,
            malformed(Part::Accept, DecodeError::EndsEarly),
            "{length}"
        );
    }
    let longer = [accept.as_slice(), &[0]].concat();
    let error = pair
        .finish(pair.hello().0, &longer, Credential::Renewal)
        .unwrap_err();
    assert_eq!(error, malformed(Part::Accept, DecodeError::TrailingBytes));
}

/// docs/protocol.md §1.1
#[test]
fn finish_cut_or_lengthened_anywhere_is_malformed() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (_, accept) = pair.accept(&hello).unwrap();
    let (_, finish) = pair.finish(device, &accept, Credential::Renewal).unwrap();
    for length in 0..finish.len() {
        let error = pair
            .accept(&hello)
            .unwrap()
            .0
            .on_finish(&finish[..length])
            .unwrap_err();
        assert_eq!(
            error,
            malformed(Part::Finish, DecodeError::EndsEarly),
            "{length}"
        );
    }
    let longer = [finish.as_slice(), &[0]].concat();
    let error = pair
        .accept(&hello)
        .unwrap()
        .0
        .on_finish(&longer)
        .unwrap_err();
    assert_eq!(error, malformed(Part::Finish, DecodeError::TrailingBytes));
}

/// docs/protocol.md §3.3: the transcript covers every byte of Hello
#[test]
fn hello_with_any_byte_changed_ends_the_handshake() {
    let length = Pair::new().hello().1.len();
    for at in 0..length {
        let failure = Pair::new().handshake(|flight, message| {
            if flight == Flight::Hello {
                message[at] ^= 1 << (at % 8);
            }
        });
        match (at, failure.unwrap_err()) {
            (0, Failure::Relay(error)) => {
                assert_eq!(error, malformed(Part::Hello, DecodeError::UnknownValue))
            }
            (1 | 2, Failure::Relay(LinkError::Incompatible(_))) => {}
            (67.., Failure::Relay(error)) => assert_eq!(error, Malformed::KemKey.into()),
            (3.., Failure::Device(error)) => assert_eq!(error, does_not_open(), "byte {at}"),
            (_, other) => panic!("byte {at}: {other:?}"),
        }
    }
}

/// docs/protocol.md §3.3, §3.4, §13
#[test]
fn accept_with_any_byte_changed_ends_the_handshake() {
    let pair = Pair::new();
    let (_, accept) = pair.accept(&pair.hello().1).unwrap();
    for at in 0..accept.len() {
        let mut changed = accept.clone();
        changed[at] ^= 1 << (at % 8);
        let error = pair
            .finish(pair.hello().0, &changed, Credential::Renewal)
            .unwrap_err();
        match at {
            0 => assert_eq!(error, malformed(Part::Accept, DecodeError::UnknownValue)),
            1153 | 1154 => assert_eq!(error.close_code(), CloseCode::Malformed),
            _ => assert_eq!(error, does_not_open(), "byte {at}"),
        }
    }
}

/// docs/protocol.md §3.3, §3.4, §13
#[test]
fn finish_with_any_byte_changed_ends_the_handshake() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (_, accept) = pair.accept(&hello).unwrap();
    let (_, finish) = pair.finish(device, &accept, Credential::Renewal).unwrap();
    for at in 0..finish.len() {
        let mut changed = finish.clone();
        changed[at] ^= 1 << (at % 8);
        let error = pair
            .accept(&hello)
            .unwrap()
            .0
            .on_finish(&changed)
            .unwrap_err();
        match at {
            0 => assert_eq!(error, malformed(Part::Finish, DecodeError::UnknownValue)),
            1 | 2 => assert_eq!(error.close_code(), CloseCode::Malformed),
            _ => assert_eq!(error, does_not_open(), "byte {at}"),
        }
    }
}

/// docs/protocol.md §3.3
#[test]
fn finish_replayed_to_another_handshake_does_not_open() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (_, accept) = pair.accept(&hello).unwrap();
    let (_, finish) = pair.finish(device, &accept, Credential::Renewal).unwrap();
    let (_, other_hello) = DeviceHello::start(&mut super::pair::relay_rng());
    let error = pair
        .accept(&other_hello)
        .unwrap()
        .0
        .on_finish(&finish)
        .unwrap_err();
    assert_eq!(error, does_not_open());
}

/// docs/protocol.md §3.3
#[test]
fn accept_replayed_to_another_handshake_does_not_open() {
    let pair = Pair::new();
    let (_, accept) = pair.accept(&pair.hello().1).unwrap();
    let (other, _) = DeviceHello::start(&mut super::pair::relay_rng());
    assert_eq!(
        pair.finish(other, &accept, Credential::Renewal)
            .unwrap_err(),
        does_not_open()
    );
}

/// docs/protocol.md §3.2
#[test]
fn flights_reflected_to_their_sender_are_malformed() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (relay, accept) = pair.accept(&hello).unwrap();
    assert_eq!(
        relay.on_finish(&accept).unwrap_err(),
        malformed(Part::Finish, DecodeError::UnknownValue)
    );
    let error = pair
        .finish(device, &hello, Credential::Renewal)
        .unwrap_err();
    assert_eq!(error, malformed(Part::Accept, DecodeError::UnknownValue));
    assert_eq!(
        pair.accept(&accept).unwrap_err(),
        malformed(Part::Hello, DecodeError::UnknownValue)
    );
}

/// docs/protocol.md §3.2: each state takes one message and is gone, so a flight out of order has no state to go to
#[test]
fn flights_out_of_order_are_malformed() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (relay, accept) = pair.accept(&hello).unwrap();
    assert_eq!(
        relay.on_finish(&hello).unwrap_err(),
        malformed(Part::Finish, DecodeError::UnknownValue)
    );
    let (_, finish) = pair.finish(device, &accept, Credential::Renewal).unwrap();
    assert_eq!(
        pair.accept(&finish).unwrap_err(),
        malformed(Part::Hello, DecodeError::UnknownValue)
    );
    let error = pair
        .finish(pair.hello().0, &finish, Credential::Renewal)
        .unwrap_err();
    assert_eq!(error, malformed(Part::Accept, DecodeError::UnknownValue));
}

/// docs/protocol.md §3.5: the device reports both thumbprints and sends no Finish
#[test]
fn device_refuses_a_relay_with_another_key() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (_, accept) = pair.accept(&hello).unwrap();
    let expected = key(99).thumbprint();
    let error = pair
        .finish_with(device, &accept, Credential::Renewal, &[expected])
        .unwrap_err();
    let presented = pair.relay_key.thumbprint();
    assert_eq!(
        error,
        NotAuthorised::UnexpectedRelay {
            expected,
            presented
        }
        .into()
    );
    let text = error.to_string();
    assert!(
        text.contains(&expected.to_string()) && text.contains(&presented.to_string()),
        "{text}"
    );
}

#[test]
fn device_accepts_either_key_while_the_relays_key_rotates() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (_, accept) = pair.accept(&hello).unwrap();
    let relays = [key(99).thumbprint(), pair.relay_key.thumbprint()];
    assert!(
        pair.finish_with(device, &accept, Credential::Renewal, &relays)
            .is_ok()
    );
}

/// docs/protocol.md §3.5
#[test]
fn device_refuses_to_go_on_without_a_relay_to_expect() {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (_, accept) = pair.accept(&hello).unwrap();
    let error = pair
        .finish_with(device, &accept, Credential::Renewal, &[])
        .unwrap_err();
    assert_eq!(error, Misuse::NoRelayExpected.into());
}

/// docs/protocol.md §3.6, §12
#[test]
fn device_refuses_to_send_a_credential_that_no_relay_would_take() {
    let pair = Pair::new();
    let long = vec![b'a'; 8193];
    for credential in [
        Credential::Token(b""),
        Credential::Token(&long),
        Credential::UpgradeToken(b""),
        Credential::UpgradeToken(&long),
        Credential::Exchange(b""),
        Credential::Exchange(&long),
        Credential::Invite(&long[..15]),
        Credential::Invite(&long[..65]),
    ] {
        let (device, hello) = pair.hello();
        let (_, accept) = pair.accept(&hello).unwrap();
        assert_eq!(
            pair.finish(device, &accept, credential).unwrap_err(),
            Misuse::CredentialLength.into()
        );
    }
}

/// docs/protocol.md §3.3, §3.4: an implementation from the specification alone gets the same keys
#[test]
fn a_device_written_from_the_specification_opens_accept_and_seals_records() {
    let pair = Pair::new();
    let device = RogueDevice::new();
    let (relay, accept) = pair.accept(&device.hello).unwrap();
    let (mut device, secret) = device.on_accept(&accept);
    assert_eq!(secret[..32], *pair.relay_key.public().as_bytes());
    let proof =
        super::proofs::device_proof(&pair, &device, b"").sign(&pair.device_key, super::pair::NOW);
    let secret = super::rogue::finish_secret(
        2,
        pair.device_key.public().as_bytes(),
        proof.as_bytes(),
        b"",
    );
    let finish = device.finish(secret);
    let peer = relay
        .on_finish(&finish)
        .unwrap()
        .prove(super::pair::NOW)
        .unwrap();
    let mut relay = peer.authorise(pair.verified(&pair.token())).unwrap();
    let ack = [0x02, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5];
    assert_eq!(
        relay
            .handle_message(&mut device.first_record(Sender::Device, &ack))
            .unwrap()
            .len(),
        1
    );
}

/// docs/protocol.md §3.3, §3.4
#[test]
fn a_relay_written_from_the_specification_is_understood_by_the_device() {
    use sealwire_protocol::frame::Frame as _;
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (mut relay, accept) = rogue_accept(&hello, None, |t1| {
        super::proofs::good_accept_secret(&pair, &hello, t1)
    });
    let token = pair.token();
    let (mut device, finish) = pair
        .finish(device, &accept, Credential::Token(&token))
        .unwrap();
    let secret = relay.on_finish(&finish);
    assert_eq!(secret[0], 0);
    assert!(secret.ends_with(&token));
    let mut plaintext = Vec::new();
    ready(pair.device_key.thumbprint())
        .encode(&mut plaintext)
        .unwrap();
    assert_eq!(
        device
            .handle_message(&mut relay.first_record(Sender::Relay, &plaintext))
            .unwrap()
            .len(),
        1
    );
}
