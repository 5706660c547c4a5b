//! Proofs that are not for this handshake (docs/protocol.md §3.5). The rogues hold real keys: only the claims are wrong.

use sealwire_protocol::codec::DecodeError;
use sealwire_protocol::crypto::sha256;
use sealwire_protocol::error::{LinkError, Malformed, NotAuthorised, Part};
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::{PublicKeyError, SigningKey};
use sealwire_protocol::proof::{DeviceProof, RelayProof};
use sealwire_protocol::succession::{Succession, Successions};
use sealwire_protocol::{ClaimDefect, TokenError};

use super::pair::{NOW, Pair, key};
use super::rogue::{Rogue, RogueDevice, accept_secret, finish_secret, rogue_accept};

/// The proof that the relay expects.
pub(crate) fn device_proof(pair: &Pair, device: &Rogue, credential: &[u8]) -> DeviceProof {
    DeviceProof {
        relay: pair.relay_key.thumbprint(),
        transcript: device.t2,
        credential: sha256(&[credential]),
    }
}

/// The AcceptSecret that the device expects.
pub(crate) fn good_accept_secret(pair: &Pair, hello: &[u8], t1: &[u8; 32]) -> Vec<u8> {
    let proof = RelayProof {
        hello: sha256(&[hello]),
        transcript: *t1,
    }
    .sign(&pair.relay_key, NOW);
    accept_secret(pair.relay_key.public().as_bytes(), proof.as_bytes())
}

/// What the relay says to a Finish with this proof and a good token.
fn relay_says(make: impl FnOnce(&Pair, &Rogue, &[u8]) -> String) -> Result<(), LinkError> {
    let pair = Pair::new();
    let token = pair.token();
    let device = RogueDevice::new();
    let (relay, accept) = pair.accept(&device.hello).unwrap();
    let (mut device, _) = device.on_accept(&accept);
    let proof = make(&pair, &device, &token);
    let secret = finish_secret(
        0,
        pair.device_key.public().as_bytes(),
        proof.as_bytes(),
        &token,
    );
    let finish = device.finish(secret);
    relay
        .on_finish(&finish)?
        .prove(pair.relay_clock)?
        .authorise(pair.verified(&token))
        .map(|_| ())
}

/// What the device says to an Accept with this secret part.
fn device_says(make: impl FnOnce(&Pair, &[u8], &[u8; 32]) -> Vec<u8>) -> Result<(), LinkError> {
    let pair = Pair::new();
    let (device, hello) = pair.hello();
    let (_, accept) = rogue_accept(&hello, None, |t1| make(&pair, &hello, t1));
    pair.finish(device, &accept, Credential::Renewal)
        .map(|_| ())
}

fn device_refused(claim: &'static str, defect: ClaimDefect) -> Result<(), LinkError> {
    Err(NotAuthorised::DeviceProof(TokenError::Claim { claim, defect }).into())
}

fn relay_refused(claim: &'static str, defect: ClaimDefect) -> Result<(), LinkError> {
    Err(NotAuthorised::RelayProof(TokenError::Claim { claim, defect }).into())
}

#[test]
fn the_proofs_of_honest_peers_are_good() {
    let by = |pair: &Pair, device: &Rogue, token: &[u8]| {
        device_proof(pair, device, token).sign(&pair.device_key, NOW)
    };
    assert_eq!(relay_says(by), Ok(()));
    assert_eq!(device_says(good_accept_secret), Ok(()));
}

/// docs/protocol.md §3.9: what the device says to a relay with another key that shows these statements
fn device_says_to(other: &SigningKey, statements: &[&str]) -> Result<(), LinkError> {
    device_says(|_, hello, t1| {
        let proof = RelayProof {
            hello: sha256(&[hello]),
            transcript: *t1,
        };
        let shown = Successions::leading_to(&other.thumbprint(), statements.iter().copied(), NOW);
        assert_eq!(
            shown.as_str(),
            statements.join(" "),
            "all of them are shown"
        );
        let proof = proof.sign_following(other, &shown, NOW);
        accept_secret(other.public().as_bytes(), proof.as_bytes())
    })
}

/// docs/protocol.md §3.9
#[test]
fn device_takes_a_key_that_its_relays_key_has_named_and_no_other() {
    let (expected, next, last) = (Pair::new().relay_key, key(98), key(99));
    let follows = |from: &SigningKey, to: &SigningKey| {
        Succession::sign(from, &to.thumbprint(), NOW, NOW + 3_600)
    };
    let (first, second) = (follows(&expected, &next), follows(&next, &last));
    assert_eq!(device_says_to(&next, &[&first]), Ok(()));
    assert_eq!(device_says_to(&last, &[&second, &first]), Ok(()));
    let unexpected = |presented: &SigningKey| {
        Err(NotAuthorised::UnexpectedRelay {
            expected: expected.thumbprint(),
            presented: presented.thumbprint(),
        }
        .into())
    };
    assert_eq!(device_says_to(&next, &[]), unexpected(&next));
    assert_eq!(device_says_to(&last, &[&second]), unexpected(&last));
    let by_itself = follows(&next, &next);
    assert_eq!(device_says_to(&next, &[&by_itself]), unexpected(&next));
}

/// docs/protocol.md §3.5: `th`
#[test]
fn relay_refuses_a_device_proof_for_another_transcript() {
    let says = relay_says(|pair, device, token| {
        DeviceProof {
            transcript: device.t1,
            ..device_proof(pair, device, token)
        }
        .sign(&pair.device_key, NOW)
    });
    assert_eq!(says, device_refused("th", ClaimDefect::Mismatch));
}

/// docs/protocol.md §3.5: `aud`
#[test]
fn relay_refuses_a_device_proof_for_another_relay() {
    let says = relay_says(|pair, device, token| {
        DeviceProof {
            relay: key(99).thumbprint(),
            ..device_proof(pair, device, token)
        }
        .sign(&pair.device_key, NOW)
    });
    assert_eq!(says, device_refused("aud", ClaimDefect::Mismatch));
}

/// docs/protocol.md §3.5: `ath`
#[test]
fn relay_refuses_a_device_proof_with_the_hash_of_another_token() {
    let says = relay_says(|pair, device, _| {
        device_proof(pair, device, b"another").sign(&pair.device_key, NOW)
    });
    assert_eq!(says, device_refused("ath", ClaimDefect::Mismatch));
}

/// docs/protocol.md §3.5: `iat`
#[test]
fn relay_refuses_a_device_proof_that_is_not_of_now() {
    let at = |time| {
        relay_says(move |pair, device, token| {
            device_proof(pair, device, token).sign(&pair.device_key, time)
        })
    };
    assert_eq!(at(NOW - 60), Ok(()));
    assert_eq!(at(NOW + 60), Ok(()));
    assert_eq!(at(NOW - 61), device_refused("iat", ClaimDefect::TooOld));
    assert_eq!(at(NOW + 61), device_refused("iat", ClaimDefect::InFuture));
}

/// docs/protocol.md §3.5
#[test]
fn relay_refuses_a_device_proof_by_another_key() {
    let says =
        relay_says(|pair, device, token| device_proof(pair, device, token).sign(&key(99), NOW));
    assert!(
        matches!(
            says,
            Err(LinkError::NotAuthorised(NotAuthorised::DeviceProof(
                TokenError::Signature(_)
            )))
        ),
        "{says:?}"
    );
}

/// docs/protocol.md §2.1: by its `typ`, no JWT is taken for another
#[test]
fn relay_refuses_a_token_or_a_relay_proof_in_place_of_a_device_proof() {
    let token = relay_says(|_, _, token| String::from_utf8(token.to_vec()).unwrap());
    assert!(
        matches!(
            token,
            Err(LinkError::NotAuthorised(NotAuthorised::DeviceProof(
                TokenError::Jws(_)
            )))
        ),
        "{token:?}"
    );
    let relay_proof = relay_says(|pair, device, _| {
        RelayProof {
            hello: device.t2,
            transcript: device.t2,
        }
        .sign(&pair.device_key, NOW)
    });
    let refused = matches!(
        relay_proof,
        Err(LinkError::NotAuthorised(NotAuthorised::DeviceProof(
            TokenError::Jws(_)
        )))
    );
    assert!(refused, "{relay_proof:?}");
}

/// docs/protocol.md §3.5: `aud`
#[test]
fn device_refuses_a_relay_proof_for_another_hello() {
    let says = device_says(|pair, _, t1| good_accept_secret(pair, b"another hello", t1));
    assert_eq!(says, relay_refused("aud", ClaimDefect::Mismatch));
}

/// docs/protocol.md §3.5: `th`
#[test]
fn device_refuses_a_relay_proof_for_another_transcript() {
    let says = device_says(|pair, hello, _| good_accept_secret(pair, hello, &[0; 32]));
    assert_eq!(says, relay_refused("th", ClaimDefect::Mismatch));
}

/// docs/protocol.md §3.5: `iat`
#[test]
fn device_refuses_a_relay_proof_that_is_not_of_now() {
    let at = |clock| {
        let pair = Pair {
            device_clock: clock,
            ..Pair::new()
        };
        let (device, hello) = pair.hello();
        let (_, accept) = pair.accept(&hello).unwrap();
        pair.finish(device, &accept, Credential::Renewal)
            .map(|_| ())
    };
    assert_eq!(at(NOW + 60), Ok(()));
    assert_eq!(at(NOW - 60), Ok(()));
    assert_eq!(at(NOW + 61), relay_refused("iat", ClaimDefect::TooOld));
    assert_eq!(at(NOW - 61), relay_refused("iat", ClaimDefect::InFuture));
}

/// docs/protocol.md §3.5: whoever shows the relay's key has to hold it
#[test]
fn device_refuses_a_relay_proof_by_another_key_under_the_right_name() {
    let says = device_says(|pair, hello, t1| {
        let proof = RelayProof {
            hello: sha256(&[hello]),
            transcript: *t1,
        }
        .sign(&key(99), NOW);
        accept_secret(pair.relay_key.public().as_bytes(), proof.as_bytes())
    });
    assert!(
        matches!(
            says,
            Err(LinkError::NotAuthorised(NotAuthorised::RelayProof(
                TokenError::Signature(_)
            )))
        ),
        "{says:?}"
    );
}

/// docs/protocol.md §3.5: the thumbprint comes before the signature
#[test]
fn device_refuses_an_unexpected_relay_before_it_looks_at_the_proof() {
    let other = key(99);
    let says = device_says(|_, _, _| accept_secret(other.public().as_bytes(), b"no proof at all"));
    let expected = Pair::new().relay_key.thumbprint();
    assert_eq!(
        says,
        Err(NotAuthorised::UnexpectedRelay {
            expected,
            presented: other.thumbprint()
        }
        .into())
    );
}

/// docs/protocol.md §1.1, §3.2
#[test]
fn the_secret_part_of_accept_is_decoded_strictly() {
    let encoding = |defect| {
        Err(Malformed::Encoding {
            part: Part::AcceptSecret,
            defect,
        }
        .into())
    };
    let key = Pair::new().relay_key;
    let with = |secret: Vec<u8>| device_says(move |_, _, _| secret);
    let good = accept_secret(key.public().as_bytes(), b"proof");
    assert_eq!(with(good[..38].to_vec()), encoding(DecodeError::EndsEarly));
    assert_eq!(
        with([good.as_slice(), &[0]].concat()),
        encoding(DecodeError::TrailingBytes)
    );
    assert_eq!(
        with(accept_secret(key.public().as_bytes(), b"")),
        encoding(DecodeError::LengthOutOfBounds)
    );
    assert_eq!(
        with(accept_secret(key.public().as_bytes(), &[b'a'; 2049])),
        encoding(DecodeError::LengthOutOfBounds)
    );
}

/// docs/protocol.md §1.1, §3.2
#[test]
fn the_secret_part_of_finish_is_decoded_strictly() {
    let encoding = |defect| {
        Err(Malformed::Encoding {
            part: Part::FinishSecret,
            defect,
        }
        .into())
    };
    let good = |device: &SigningKey| finish_secret(2, device.public().as_bytes(), b"proof", b"");
    let key = key(12);
    assert_eq!(
        finish_says(good(&key)[..41].to_vec()),
        encoding(DecodeError::EndsEarly)
    );
    assert_eq!(
        finish_says([good(&key).as_slice(), &[0]].concat()),
        encoding(DecodeError::TrailingBytes)
    );
    let public = key.public().as_bytes();
    assert_eq!(
        finish_says(finish_secret(4, public, b"proof", b"")),
        encoding(DecodeError::UnknownValue)
    );
    assert_eq!(
        finish_says(finish_secret(0, public, b"", b"token")),
        encoding(DecodeError::LengthOutOfBounds)
    );
    assert_eq!(
        finish_says(finish_secret(0, public, &[b'a'; 2049], b"")),
        encoding(DecodeError::LengthOutOfBounds)
    );
    assert_eq!(
        finish_says(finish_secret(0, public, b"proof", &[b'a'; 8193])),
        encoding(DecodeError::LengthOutOfBounds)
    );
}

/// docs/protocol.md §1.3: no small-order keys, canonical encodings
#[test]
fn keys_that_are_no_good_ed25519_keys_are_malformed() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let mut not_canonical = [0xff; 32];
    (not_canonical[0], not_canonical[31]) = (0xf0, 0x7f);
    let mut not_a_point = [0; 32];
    not_a_point[0] = 2;
    for (bad, error) in [
        (identity, PublicKeyError::SmallOrder),
        (not_canonical, PublicKeyError::NotCanonical),
        (not_a_point, PublicKeyError::NotAPoint),
    ] {
        let error = Err(Malformed::Ed25519Key(error).into());
        assert_eq!(
            device_says(|_, _, _| accept_secret(&bad, b"proof of nothing")),
            error
        );
        assert_eq!(
            finish_says(finish_secret(2, &bad, b"proof of nothing", b"")),
            error
        );
    }
}

fn finish_says(secret: Vec<u8>) -> Result<(), LinkError> {
    let pair = Pair::new();
    let device = RogueDevice::new();
    let (relay, accept) = pair.accept(&device.hello).unwrap();
    let (mut device, _) = device.on_accept(&accept);
    relay.on_finish(&device.finish(secret)).map(|_| ())
}
