//! A new token for a link that is open (docs/protocol.md §5.4).

use sealwire_protocol::crypto::sha256;
use sealwire_protocol::error::NotAuthorised;
use sealwire_protocol::frame::ToRelay;
use sealwire_protocol::link::{DeviceLink, RelayLink};
use sealwire_protocol::proof::DeviceProof;
use sealwire_protocol::{ClaimDefect, TokenError};

use super::pair::{NOW, Pair, key};

const ISSUER: &str = "https://issuer.example";

/// What the relay does with a Refresh whose proof is good.
fn refresh(
    pair: &Pair,
    device: &DeviceLink,
    relay: &mut RelayLink,
    issuer: &str,
    token: &[u8],
) -> Result<(), NotAuthorised> {
    let proof = device.refresh_proof(&pair.device_key, token, NOW);
    let proven = relay.prove_refresh(proof.as_bytes(), token, NOW).unwrap();
    relay.refresh(proven, pair.verified_of(issuer, token))
}

fn refused(claim: &'static str, defect: ClaimDefect) -> NotAuthorised {
    NotAuthorised::DeviceProof(TokenError::Claim { claim, defect })
}

#[test]
fn a_new_token_takes_the_place_of_the_old_one() {
    let pair = Pair::new();
    let (device, mut relay) = pair.link();
    // Another serialization of the same claims would do; here it is signed by the issuer's next key.
    let next = Pair {
        issuer_key: key(14),
        ..Pair::new()
    };
    let token = next.token();
    let proof = device.refresh_proof(&pair.device_key, &token, NOW);
    let proven = relay.prove_refresh(proof.as_bytes(), &token, NOW).unwrap();
    assert!(!proven.asks_issuer());
    relay.refresh(proven, next.verified(&token)).unwrap();
    assert_eq!(relay.token(), &next.verified(&token));
}

#[test]
fn an_empty_token_asks_the_built_in_issuer() {
    let pair = Pair::new();
    let (device, mut relay) = pair.link();
    let proof = device.refresh_proof(&pair.device_key, b"", NOW);
    let proven = relay.prove_refresh(proof.as_bytes(), b"", NOW).unwrap();
    assert!(proven.asks_issuer());
    relay.refresh(proven, pair.verified(&pair.token())).unwrap();
}

/// docs/protocol.md §3.7, §5.4
#[test]
fn a_minted_token_takes_the_place_of_an_exchanged_one_of_the_same_user() {
    let pair = Pair::new();
    let (device, mut relay) = pair.link();
    let provider = b"a.b.c";
    let proof = device.refresh_proof(&pair.device_key, provider, NOW);
    let prove = |relay: &RelayLink| {
        relay
            .prove_refresh(proof.as_bytes(), provider, NOW)
            .unwrap()
    };
    let minted = pair.verified(&pair.token());
    // Not without it being said.
    let proven = prove(&relay);
    assert!(!proven.asks_issuer());
    assert_eq!(
        relay.refresh(proven, minted.clone()),
        Err(NotAuthorised::AnotherToken)
    );
    let own = pair.device_key.thumbprint();
    let mallory = pair.verified(&pair.token_of(ISSUER, "mallory", own));
    let proven = prove(&relay).exchanged();
    assert_eq!(
        relay.refresh(proven, mallory),
        Err(NotAuthorised::AnotherUser)
    );
    let proven = prove(&relay).exchanged();
    relay.refresh(proven, minted.clone()).unwrap();
    assert_eq!(relay.token(), &minted);
}

/// docs/protocol.md §5.4: the same `iss`, `sub` and `cnf`
#[test]
fn relay_refuses_a_refresh_for_another_issuer_user_or_device() {
    let pair = Pair::new();
    let (device, mut relay) = pair.link();
    let before = relay.token().clone();
    let own = pair.device_key.thumbprint();
    let issuer = pair.token_of("https://other.example", "alice", own);
    let refused = refresh(&pair, &device, &mut relay, "https://other.example", &issuer);
    assert_eq!(refused, Err(NotAuthorised::AnotherIssuer));
    let user = pair.token_of(ISSUER, "mallory", own);
    assert_eq!(
        refresh(&pair, &device, &mut relay, ISSUER, &user),
        Err(NotAuthorised::AnotherUser)
    );
    let token = key(99).thumbprint();
    let stolen = pair.token_for(token);
    let refused = refresh(&pair, &device, &mut relay, ISSUER, &stolen);
    assert_eq!(
        refused,
        Err(NotAuthorised::TokenOfAnotherDevice { token, device: own })
    );
    assert_eq!(relay.token(), &before, "the link keeps the token it has");
}

/// docs/protocol.md §5.4: `th` is bound to t3
#[test]
fn relay_refuses_a_refresh_proof_of_another_link() {
    let pair = Pair::new();
    let (_, relay) = pair.link();
    // Another Finish, and so another t3.
    let later = Pair {
        device_clock: NOW + 1,
        ..Pair::new()
    };
    let (other, _) = later.link();
    let token = pair.token();
    let proof = other.refresh_proof(&pair.device_key, &token, NOW);
    let error = relay
        .prove_refresh(proof.as_bytes(), &token, NOW)
        .unwrap_err();
    assert_eq!(error, refused("th", ClaimDefect::Mismatch));
}

/// docs/protocol.md §5.4: what one link proved is of no use in another
#[test]
fn relay_refuses_a_proven_refresh_of_another_link() {
    let pair = Pair::new();
    let (_, mut relay) = pair.link();
    let later = Pair {
        device_clock: NOW + 1,
        ..Pair::new()
    };
    let (device, other) = later.link();
    let token = pair.token();
    let proof = device.refresh_proof(&pair.device_key, &token, NOW);
    let proven = other.prove_refresh(proof.as_bytes(), &token, NOW).unwrap();
    assert_eq!(
        relay.refresh(proven, pair.verified(&token)),
        Err(NotAuthorised::AnotherToken)
    );
}

/// docs/protocol.md §5.4: the new token's `ath`
#[test]
fn relay_refuses_a_refresh_proof_for_another_token() {
    let pair = Pair::new();
    let (device, relay) = pair.link();
    let proof = device.refresh_proof(&pair.device_key, b"another", NOW);
    let error = relay
        .prove_refresh(proof.as_bytes(), &pair.token(), NOW)
        .unwrap_err();
    assert_eq!(error, refused("ath", ClaimDefect::Mismatch));
}

/// docs/protocol.md §5.4
#[test]
fn relay_refuses_another_token_than_the_proved_one() {
    let pair = Pair::new();
    let (device, mut relay) = pair.link();
    let token = pair.token();
    let proof = device.refresh_proof(&pair.device_key, &token, NOW);
    let proven = relay.prove_refresh(proof.as_bytes(), &token, NOW).unwrap();
    let another = pair.token_of(ISSUER, "mallory", pair.device_key.thumbprint());
    assert_eq!(
        relay.refresh(proven, pair.verified(&another)),
        Err(NotAuthorised::AnotherToken)
    );
}

/// docs/protocol.md §3.5, §5.4: `iat`, the signature, and no proof of the handshake
#[test]
fn relay_refuses_a_refresh_proof_that_is_old_or_anothers_or_of_the_handshake() {
    let pair = Pair::new();
    let (device, relay) = pair.link();
    let token = pair.token();
    let old = device.refresh_proof(&pair.device_key, &token, NOW - 61);
    let error = relay
        .prove_refresh(old.as_bytes(), &token, NOW)
        .unwrap_err();
    assert_eq!(error, refused("iat", ClaimDefect::TooOld));
    let anothers = device.refresh_proof(&key(99), &token, NOW);
    let error = relay
        .prove_refresh(anothers.as_bytes(), &token, NOW)
        .unwrap_err();
    assert!(
        matches!(error, NotAuthorised::DeviceProof(TokenError::Signature(_))),
        "{error:?}"
    );
    let handshake = DeviceProof {
        relay: pair.relay_key.thumbprint(),
        transcript: [0; 32],
        credential: sha256(&[&token]),
    };
    let handshake = handshake.sign(&pair.device_key, NOW);
    let error = relay
        .prove_refresh(handshake.as_bytes(), &token, NOW)
        .unwrap_err();
    assert_eq!(error, refused("th", ClaimDefect::Mismatch));
}

/// docs/protocol.md §5.4: a refused refresh is no error of the link
#[test]
fn link_goes_on_after_a_refused_refresh() {
    let pair = Pair::new();
    let (mut device, mut relay) = pair.link();
    relay
        .prove_refresh(b"no proof", b"no token", NOW)
        .unwrap_err();
    let mut record = device.seal_frame(&ToRelay::Ack { position: 1 }).unwrap();
    assert_eq!(relay.handle_message(&mut record).unwrap().len(), 1);
}
