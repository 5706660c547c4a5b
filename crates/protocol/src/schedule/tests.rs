//! Runs `vectors/link_keys.json`, which was made by another implementation.

use super::*;
use crate::record::{KeyLimits, Opener, Sealer};
use alloc::vec::Vec;
use serde_json::Value;

struct Vector(Value);

impl Vector {
    fn load() -> Self {
        Self(serde_json::from_str(include_str!("../../vectors/link_keys.json")).unwrap())
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        unhex(self.0[name].as_str().unwrap())
    }

    fn hash(&self, name: &str) -> TranscriptHash {
        self.bytes(name).try_into().unwrap()
    }

    fn prk(&self) -> Prk {
        let secret = |name| Secret::from_slice(&self.bytes(name)).unwrap();
        link_prk(
            &secret("x25519_shared_secret"),
            &secret("kem_shared_secret"),
        )
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn sealed(keys: &KeyAndIv, transcript: &TranscriptHash, mut secret: Vec<u8>) -> Vec<u8> {
    let tag = keys
        .key
        .seal(keys.iv.expose(), transcript, &mut secret)
        .unwrap();
    secret.extend_from_slice(&tag);
    secret
}

/// docs/protocol.md §3.3
#[test]
fn transcripts_are_those_of_the_vector() {
    let vector = Vector::load();
    let t1 = t1(&vector.bytes("hello"), &vector.bytes("accept_head"));
    assert_eq!(t1, vector.hash("t1"));
    let t2 = next_transcript(&t1, &vector.bytes("accept_sealed"));
    assert_eq!(t2, vector.hash("t2"));
    let t3 = next_transcript(&t2, &vector.bytes("finish_sealed"));
    assert_eq!(t3, vector.hash("t3"));
    assert_eq!(refresh_hash(&t3), vector.hash("refresh_hash"), "§5.4");
}

/// docs/protocol.md §3.4
#[test]
fn handshake_keys_are_those_of_the_vector() {
    let vector = Vector::load();
    let (prk, t1, t2) = (vector.prk(), vector.hash("t1"), vector.hash("t2"));
    assert_eq!(prk.as_secret().expose(), &vector.hash("prk"));
    assert_eq!(
        sealed(&accept_key(&prk, &t1), &t1, vector.bytes("accept_secret")),
        vector.bytes("accept_sealed")
    );
    assert_eq!(
        sealed(&finish_key(&prk, &t2), &t2, vector.bytes("finish_secret")),
        vector.bytes("finish_sealed")
    );
}

/// docs/protocol.md §4
#[test]
fn records_in_both_directions_are_those_of_the_vector_across_changes_of_the_key() {
    let vector = Vector::load();
    let (prk, t3) = (vector.prk(), vector.hash("t3"));
    let limits = KeyLimits {
        soft_records: vector.0["records_under_one_key"].as_u64().unwrap(),
        ..KeyLimits::default()
    };
    for (direction, of_device) in [("device_to_relay", true), ("relay_to_device", false)] {
        let secret = || {
            if of_device {
                device_secret(&prk, &t3)
            } else {
                relay_secret(&prk, &t3)
            }
        };
        let mut sealer = Sealer::new(secret(), limits);
        let mut opener = Opener::new(secret(), limits);
        for step in vector.0[direction].as_array().unwrap() {
            let plaintext = unhex(step["plaintext"].as_str().unwrap());
            let mut record = [&[4], plaintext.as_slice()].concat();
            sealer.seal(&mut record).unwrap();
            assert_eq!(record, unhex(step["record"].as_str().unwrap()));
            assert_eq!(opener.open(&mut record).unwrap(), plaintext);
        }
    }
}

/// docs/protocol.md §1.4: no label is used twice
#[test]
fn no_two_labels_are_the_same() {
    let labels = [
        LINK,
        TRANSCRIPT,
        ACCEPT_KEY,
        ACCEPT_IV,
        FINISH_KEY,
        FINISH_IV,
        DEVICE_SECRET,
        RELAY_SECRET,
        RECORD_KEY,
        RECORD_IV,
        RECORD_NEXT,
        REFRESH,
    ];
    for (at, label) in labels.iter().enumerate() {
        assert!(!labels[..at].contains(label), "{label:?}");
    }
}

/// docs/protocol.md §3.3: keys follow the transcript
#[test]
fn another_transcript_gives_another_key() {
    let prk = Vector::load().prk();
    let with = |t: u8| sealed(&accept_key(&prk, &[t; 32]), &[0; 32], Vec::from(b"secret"));
    assert_ne!(with(1), with(2));
}
