//! Runs the vectors in `vectors/jws`, which `vectors/README.md` describes.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by it what has to succeed"
)]

use std::{collections::BTreeSet, fs, path::Path};

use sealwire_protocol::{
    TokenError, base64url,
    key::{Seed, SigningKey},
    limits::MAX_ATTESTATION_AGE_SECONDS,
    name::Issuer,
    proof::{DeviceProof, RelayProof},
    token::{AccessPolicy, AttestationPolicy, UnverifiedAccessToken, UnverifiedAttestation},
};

/// RFC 8037 A.1
const ISSUER_SEED: &[u8] = b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const AUDIENCE: &str = "wss://relay.example";

fn run(operation: &str, input: &[u8], now: u64) -> Result<(), TokenError> {
    let relay = SigningKey::from_seed(&Seed::new(base64url::decode_array(ISSUER_SEED).unwrap()));
    let device = SigningKey::from_seed(&Seed::new([1; 32]));
    let issuer = Issuer::new("https://issuer.example").unwrap();
    match operation {
        "access_token" => {
            let policy = AccessPolicy {
                issuer: &issuer,
                audience: AUDIENCE,
                now,
            };
            let token = UnverifiedAccessToken::parse(input)?.verify(relay.public(), &policy)?;
            assert_eq!(token.claims().user.as_str(), "alice");
            assert_eq!(token.claims().device, device.thumbprint());
        }
        "attestation" => {
            let max_age = MAX_ATTESTATION_AGE_SECONDS;
            let policy = AttestationPolicy {
                issuer: &issuer,
                audience: AUDIENCE,
                now,
                max_age,
            };
            let attestation =
                UnverifiedAttestation::parse(input)?.verify(relay.public(), &policy)?;
            assert_eq!(attestation.user().as_str(), "alice");
            assert_eq!(attestation.device(), device.thumbprint());
        }
        "relay_proof" => {
            RelayProof {
                hello: [1; 32],
                transcript: [2; 32],
            }
            .verify(input, relay.public(), now)?;
        }
        "device_proof" => {
            let proof = DeviceProof {
                relay: relay.thumbprint(),
                transcript: [3; 32],
                credential: [4; 32],
            };
            proof.verify(input, device.public(), now)?;
        }
        _ => panic!("unknown operation {operation}"),
    }
    Ok(())
}

#[test]
fn every_vector_ends_as_it_says_and_none_is_missing() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let listed = fs::read_to_string(vectors.join("jws.txt")).unwrap();
    let listed: BTreeSet<String> = listed.lines().map(|name| format!("{name}.json")).collect();
    let files = fs::read_dir(vectors.join("jws")).unwrap();
    let found: BTreeSet<String> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let differ: Vec<_> = listed.symmetric_difference(&found).collect();
    assert!(differ.is_empty(), "missing, or not listed: {differ:?}");

    let mut wrong = Vec::new();
    for name in &listed {
        let vector = fs::read(vectors.join("jws").join(name)).unwrap();
        let vector: serde_json::Value = serde_json::from_slice(&vector).unwrap();
        assert!(
            vector["spec"]
                .as_str()
                .unwrap()
                .starts_with("docs/protocol.md §"),
            "{name}"
        );
        let input = vector["input"].as_str().unwrap().as_bytes();
        let outcome = run(
            vector["operation"].as_str().unwrap(),
            input,
            vector["now"].as_u64().unwrap(),
        );
        let outcome = outcome.err().map(|error| format!("{error:?}"));
        if outcome.as_deref() != vector["error"].as_str() {
            wrong.push(format!(
                "{name}: {outcome:?} instead of {}",
                vector["error"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
