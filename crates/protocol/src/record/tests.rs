use super::*;
use crate::crypto::Prk;
use crate::schedule::device_secret;
use alloc::vec;

/// Limits that a test can reach.
fn limits() -> KeyLimits {
    KeyLimits {
        soft_records: 3,
        soft_bytes: 1 << 20,
        hard_records: 6,
        hard_bytes: 1 << 21,
        link_records: 1 << 48,
    }
}

fn secret() -> RecordSecret {
    device_secret(&Prk::from_secret(Secret::take(&mut [1; 32])), &[2; 32])
}

fn pair(limits: KeyLimits) -> (Sealer, Opener) {
    (Sealer::new(secret(), limits), Opener::new(secret(), limits))
}

fn sealed(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
    let mut record = vec![RECORD_TYPE];
    record.extend_from_slice(plaintext);
    sealer.seal(&mut record).unwrap();
    record
}

/// docs/protocol.md §4 and §12
#[test]
fn the_limits_of_a_link_are_those_of_the_specification() {
    let limits = KeyLimits::default();
    assert_eq!((limits.soft_records, limits.soft_bytes), (1 << 20, 1 << 32));
    assert_eq!((limits.hard_records, limits.hard_bytes), (1 << 21, 1 << 33));
    assert_eq!(limits.link_records, 1 << 48);
}

#[test]
fn records_open_in_order_across_changes_of_the_key() {
    let (mut sealer, mut opener) = pair(limits());
    for number in 0..20_u8 {
        let mut record = sealed(&mut sealer, &[number; 5]);
        assert_eq!(opener.open(&mut record).unwrap(), &[number; 5]);
        assert_eq!(
            (sealer.0.sequence, opener.0.sequence),
            (u64::from(number) + 1, u64::from(number) + 1)
        );
    }
}

/// docs/protocol.md §4: after the record at which the count reaches the soft limit
#[test]
fn key_changes_after_exactly_the_soft_limit_of_records() {
    let (mut sealer, mut opener) = pair(limits());
    let first = sealer.0.current.iv.expose().to_vec();
    for expected in [1, 2, 0, 1, 2, 0] {
        let mut record = sealed(&mut sealer, b"x");
        opener.open(&mut record).unwrap();
        assert_eq!((sealer.0.records, opener.0.records), (expected, expected));
    }
    assert_ne!(sealer.0.current.iv.expose().to_vec(), first);
}

/// docs/protocol.md §4: bytes of `ciphertext || tag`
#[test]
fn key_changes_after_exactly_the_soft_limit_of_bytes() {
    let by_bytes = KeyLimits {
        soft_bytes: 100,
        soft_records: 1000,
        ..limits()
    };
    let (mut sealer, mut opener) = pair(by_bytes);
    for (plaintext, expected) in [(83, 99), (1, 0), (84, 0), (83, 99)] {
        let mut record = sealed(&mut sealer, &vec![7; plaintext]);
        opener.open(&mut record).unwrap();
        assert_eq!((sealer.0.bytes, opener.0.bytes), (expected, expected));
    }
}

/// docs/protocol.md §4
#[test]
fn an_opener_that_does_not_change_its_key_opens_nothing_after_the_boundary() {
    let (mut sealer, _) = pair(limits());
    let mut opener = Opener::new(
        secret(),
        KeyLimits {
            soft_records: 4,
            ..limits()
        },
    );
    for _ in 0..3 {
        opener.open(&mut sealed(&mut sealer, b"x")).unwrap();
    }
    assert_eq!(
        opener.open(&mut sealed(&mut sealer, b"x")),
        Err(Misbehaviour::DoesNotOpen.into())
    );
}

/// docs/protocol.md §4: a MUST of its own, even if re-keying were to fail
#[test]
fn key_refuses_to_exceed_its_hard_limit_of_records() {
    let never_soft = KeyLimits {
        soft_records: u64::MAX,
        soft_bytes: u64::MAX,
        hard_records: 2,
        ..limits()
    };
    let (mut sealer, mut opener) = pair(never_soft);
    for _ in 0..2 {
        opener.open(&mut sealed(&mut sealer, b"x")).unwrap();
    }
    let mut record = vec![RECORD_TYPE, 1, 2, 3];
    assert_eq!(sealer.seal(&mut record), Err(Exhausted::Key.into()));
    assert_eq!(record, [RECORD_TYPE, 1, 2, 3], "nothing was sealed");
    let mut another = Sealer::new(
        secret(),
        KeyLimits {
            hard_records: 9,
            ..never_soft
        },
    );
    another.0.sequence = 2;
    assert_eq!(
        opener.open(&mut sealed(&mut another, b"x")),
        Err(Exhausted::Key.into())
    );
}

/// docs/protocol.md §4
#[test]
fn key_refuses_to_exceed_its_hard_limit_of_bytes() {
    let never_soft = KeyLimits {
        soft_records: u64::MAX,
        soft_bytes: u64::MAX,
        hard_bytes: 40,
        ..limits()
    };
    let (mut sealer, mut opener) = pair(never_soft);
    opener.open(&mut sealed(&mut sealer, b"12345678")).unwrap();
    let mut record = vec![RECORD_TYPE, 1];
    assert_eq!(
        sealer.seal(&mut record),
        Err(Exhausted::Key.into()),
        "24 + 17 bytes"
    );
    assert_eq!(
        opener.open(&mut [RECORD_TYPE; 18]),
        Err(Exhausted::Key.into())
    );
}

/// docs/protocol.md §4: at 2^48
#[test]
fn direction_ends_at_its_last_sequence_number() {
    let (mut sealer, mut opener) = pair(KeyLimits {
        soft_records: 1 << 20,
        ..KeyLimits::default()
    });
    sealer.0.sequence = (1 << 48) - 1;
    opener.0.sequence = (1 << 48) - 1;
    opener
        .open(&mut sealed(&mut sealer, b"the last one"))
        .unwrap();
    assert_eq!(
        sealer.seal(&mut vec![RECORD_TYPE, 1]),
        Err(Exhausted::Sequence.into())
    );
    assert_eq!(
        opener.open(&mut [RECORD_TYPE; 18]),
        Err(Exhausted::Sequence.into())
    );
}

/// docs/protocol.md §4: nonce = iv XOR (0^4 || u64 sequence)
#[test]
fn nonce_is_the_iv_with_the_sequence_in_its_last_eight_bytes() {
    let iv = Secret::take(&mut [0xf0; 12]);
    assert_eq!(nonce(&iv, 0), [0xf0; 12]);
    let expected = [
        0xf0, 0xf0, 0xf0, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8,
    ];
    assert_eq!(nonce(&iv, 0x0102_0304_0506_0708), expected);
}

/// docs/protocol.md §4
#[test]
fn a_replayed_record_does_not_open() {
    let (mut sealer, mut opener) = pair(limits());
    let record = sealed(&mut sealer, b"once");
    opener.open(&mut record.clone()).unwrap();
    assert_eq!(
        opener.open(&mut record.clone()),
        Err(Misbehaviour::DoesNotOpen.into())
    );
}

/// docs/protocol.md §4
#[test]
fn a_record_out_of_order_does_not_open() {
    let (mut sealer, mut opener) = pair(limits());
    let _first = sealed(&mut sealer, b"first");
    let mut second = sealed(&mut sealer, b"second");
    assert_eq!(
        opener.open(&mut second),
        Err(Misbehaviour::DoesNotOpen.into())
    );
}

/// docs/protocol.md §4: the tag and the AAD cover every byte
#[test]
fn a_record_with_any_bit_flipped_is_refused_and_changes_nothing() {
    let (mut sealer, mut opener) = pair(limits());
    let record = sealed(&mut sealer, b"content");
    for bit in 0..record.len() * 8 {
        let mut flipped = record.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let before = flipped.clone();
        let expected = if bit < 8 {
            Malformed::Encoding {
                part: Part::Record,
                defect: DecodeError::UnknownValue,
            }
            .into()
        } else {
            LinkError::from(Misbehaviour::DoesNotOpen)
        };
        assert_eq!(opener.open(&mut flipped), Err(expected));
        assert_eq!(flipped, before);
    }
    assert_eq!(
        opener.open(&mut record.clone()).unwrap(),
        b"content",
        "the opener is as it was"
    );
}

/// docs/protocol.md §4
#[test]
fn a_record_truncated_anywhere_is_refused() {
    let (mut sealer, mut opener) = pair(limits());
    let record = sealed(&mut sealer, b"content");
    for length in 0..record.len() {
        let expected = if length < 1 + TAG_BYTES {
            Malformed::Encoding {
                part: Part::Record,
                defect: DecodeError::EndsEarly,
            }
            .into()
        } else {
            LinkError::from(Misbehaviour::DoesNotOpen)
        };
        assert_eq!(
            opener.open(&mut record[..length].to_vec()),
            Err(expected),
            "{length}"
        );
    }
}

/// docs/protocol.md §4
#[test]
fn a_record_over_the_limit_is_refused_by_both_sides() {
    let (mut sealer, mut opener) = pair(KeyLimits::default());
    let mut record = vec![RECORD_TYPE; 1 + MAX_RECORD_PLAINTEXT_BYTES + 1];
    assert_eq!(sealer.seal(&mut record), Err(Misuse::BatchFull.into()));
    record.extend_from_slice(&[0; TAG_BYTES]);
    assert_eq!(
        opener.open(&mut record),
        Err(Misbehaviour::RecordTooLarge.into())
    );
}

/// docs/protocol.md §4: one or more frames
#[test]
fn sealer_refuses_an_empty_record() {
    let (mut sealer, _) = pair(limits());
    assert_eq!(
        sealer.seal(&mut vec![RECORD_TYPE]),
        Err(Misuse::EmptyBatch.into())
    );
    assert_eq!(sealer.seal(&mut vec![]), Err(Misuse::EmptyBatch.into()));
}

#[test]
fn the_two_directions_have_different_keys() {
    let prk = Prk::from_secret(Secret::take(&mut [1; 32]));
    let mut sealer = Sealer::new(crate::schedule::relay_secret(&prk, &[2; 32]), limits());
    let mut opener = Opener::new(device_secret(&prk, &[2; 32]), limits());
    assert_eq!(
        opener.open(&mut sealed(&mut sealer, b"reflected")),
        Err(Misbehaviour::DoesNotOpen.into())
    );
}
