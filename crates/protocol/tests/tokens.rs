//! Tokens against a relay's and a device's policy (`docs/protocol.md` §2.2, §2.3). Forms are the matter of the vectors.
#![expect(clippy::unwrap_used, reason = "a test says by it what has to succeed")]

use proptest::prelude::*;
use sealwire_protocol::{
    ClaimDefect, TokenError, base64url,
    jws::{JwsError, SignatureError, SignatureVerifier, Signed},
    key::{Seed, SigningKey},
    key_set::Ed25519KeySet,
    name::Issuer,
    proof::DeviceProof,
    token::{
        AccessPolicy, AccessToken, Attestation, AttestationPolicy, UnverifiedAccessToken,
        UnverifiedAttestation, credential_hash,
    },
};

const NOW: u64 = 1_800_000_000;
const MAX_AGE: u64 = 30 * 24 * 60 * 60;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Seed::new([seed; 32]))
}

/// The issuer's key is 5, the device's 1.
fn sign(header: &str, payload: &str) -> String {
    let input = format!(
        "{}.{}",
        base64url::encode(header.as_bytes()),
        base64url::encode(payload.as_bytes())
    );
    format!(
        "{input}.{}",
        base64url::encode(&key(5).sign(input.as_bytes()))
    )
}

fn payload(iat: u64, exp: u64) -> String {
    let device = key(1).thumbprint();
    format!(
        r#"{{"iss":"i","sub":"alice","aud":["x","r"],"iat":{iat},"exp":{exp},"jti":"7","scope":"sealwire:send","cnf":{{"jkt":"{device}"}}}}"#
    )
}

fn token(iat: u64, exp: u64) -> String {
    sign(
        r#"{"alg":"EdDSA","typ":"at+jwt","kid":"k"}"#,
        &payload(iat, exp),
    )
}

fn access(token: &str, issuer: &str, audience: &str, now: u64) -> Result<AccessToken, TokenError> {
    let policy = AccessPolicy {
        issuer: &Issuer::new(issuer).unwrap(),
        audience,
        now,
    };
    UnverifiedAccessToken::parse(token.as_bytes())?.verify(key(5).public(), &policy)
}

fn attest(token: &str, now: u64, max_age: u64) -> Result<Attestation, TokenError> {
    let policy = AttestationPolicy {
        issuer: &Issuer::new("i").unwrap(),
        audience: "r",
        now,
        max_age,
    };
    UnverifiedAttestation::parse(token.as_bytes())?.verify(key(5).public(), &policy)
}

fn refused<T>(claim: &'static str, defect: ClaimDefect) -> Result<T, TokenError> {
    Err(TokenError::Claim { claim, defect })
}

/// docs/protocol.md §2.2, §5.7
#[test]
fn user_outside_the_tenant_of_the_token_is_refused() {
    let of = |tenant: &str, user: &str| {
        let claims = payload(NOW - 10, NOW + 10)
            .replace("\"alice\"", &format!(r#""{user}","tenant":"{tenant}""#));
        let token = sign(r#"{"alg":"EdDSA","typ":"at+jwt"}"#, &claims);
        let _ = attest(&token, NOW, MAX_AGE)?;
        access(&token, "i", "r", NOW)
    };
    for user in ["acme/alice", "acme/team/alice"] {
        let claims = of("acme", user).unwrap();
        let tenant = claims.claims().permissions.tenant.as_ref().unwrap();
        assert_eq!(tenant.as_str(), "acme");
    }
    for user in ["alice", "acme", "acme/", "acme-2/alice", "ACME/alice"] {
        assert_eq!(
            of("acme", user),
            refused("tenant", ClaimDefect::Mismatch),
            "{user}"
        );
    }
}

/// Whatever holds a token may be logged: the device is named, and no person.
#[test]
fn debug_of_tokens_names_the_device_only() {
    let device = key(1).thumbprint();
    let token = token(NOW - 10, NOW + 10);
    let unverified = UnverifiedAccessToken::parse(token.as_bytes()).unwrap();
    assert_eq!(
        format!("{:?}", unverified.claims()),
        format!("TokenClaims {{ device: {device}, .. }}")
    );
    for text in [format!("{unverified:?}"), format!("{unverified:#?}")] {
        assert!(text.contains(&device.to_string()), "{text}");
        assert!(!text.contains("alice") && !text.contains("\"7\""), "{text}");
    }
    assert_eq!(
        format!("{:?}", access(&token, "i", "r", NOW).unwrap()),
        format!("AccessToken({device})")
    );
    assert_eq!(
        format!("{:?}", attest(&token, NOW, MAX_AGE).unwrap()),
        format!("Attestation({device})")
    );
}

#[test]
fn access_token_says_who_may_do_what_and_until_when() {
    let token = token(NOW - 10, NOW + 10);
    let verified = access(&token, "i", "r", NOW).unwrap();
    let claims = verified.claims();
    assert_eq!(
        (claims.issuer.as_str(), claims.user.as_str()),
        ("i", "alice")
    );
    assert_eq!(
        (claims.issued, claims.expires, claims.not_before),
        (NOW - 10, NOW + 10, None)
    );
    assert_eq!(claims.device, key(1).thumbprint());
    assert_eq!(claims.id.as_deref(), Some("7"));
    assert!(claims.permissions.send && !claims.permissions.receive);
    assert_eq!(*verified.hash(), credential_hash(token.as_bytes()));
}

#[test]
fn attestation_binds_the_device_to_the_user() {
    let token = token(NOW - 10, NOW - 5);
    let attestation = attest(&token, NOW + 1_000, MAX_AGE).unwrap();
    assert_eq!(
        (attestation.issuer().as_str(), attestation.user().as_str()),
        ("i", "alice")
    );
    assert_eq!(
        (attestation.device(), attestation.issued()),
        (key(1).thumbprint(), NOW - 10)
    );
    assert_eq!(*attestation.hash(), credential_hash(token.as_bytes()));
}

#[test]
fn access_token_is_good_up_to_a_minute_around_its_times() {
    let token = token(NOW, NOW + 100);
    for now in [NOW - 60, NOW, NOW + 100, NOW + 159] {
        assert!(access(&token, "i", "r", now).is_ok(), "{now}");
    }
}

/// docs/protocol.md §2.2
#[test]
fn access_token_more_than_a_minute_outside_its_times_is_refused() {
    let token = token(NOW, NOW + 100);
    for (now, claim, defect) in [
        (0, "iat", ClaimDefect::InFuture),
        (NOW - 61, "iat", ClaimDefect::InFuture),
        (NOW + 160, "exp", ClaimDefect::Expired),
        (u64::MAX, "exp", ClaimDefect::Expired),
    ] {
        assert_eq!(
            access(&token, "i", "r", now),
            refused(claim, defect),
            "{now}"
        );
    }
}

/// docs/protocol.md §2.2
#[test]
fn access_token_of_another_issuer_or_for_another_relay_is_refused() {
    let token = token(NOW, NOW + 100);
    for issuer in ["j", "I", "ii", "i/"] {
        assert_eq!(
            access(&token, issuer, "r", NOW),
            refused("iss", ClaimDefect::Mismatch),
            "{issuer}"
        );
    }
    for audience in ["", "s", "R", "rr", "x r"] {
        assert_eq!(
            access(&token, "i", audience, NOW),
            refused("aud", ClaimDefect::Mismatch),
            "{audience}"
        );
    }
}

/// docs/protocol.md §2.3
#[test]
fn attestation_older_than_the_policy_allows_is_refused() {
    let token = token(NOW, NOW + 100);
    assert!(attest(&token, NOW + MAX_AGE, MAX_AGE).is_ok());
    assert_eq!(
        attest(&token, NOW + MAX_AGE + 1, MAX_AGE),
        refused("iat", ClaimDefect::TooOld)
    );
    assert!(attest(&token, NOW, 0).is_ok());
    assert_eq!(
        attest(&token, NOW + 1, 0),
        refused("iat", ClaimDefect::TooOld)
    );
    assert_eq!(
        attest(&token, u64::MAX, MAX_AGE),
        refused("iat", ClaimDefect::TooOld)
    );
    assert_eq!(
        attest(&token, NOW - 61, MAX_AGE),
        refused("iat", ClaimDefect::InFuture)
    );
    assert!(attest(&token, u64::MAX, u64::MAX).is_ok());
}

/// docs/protocol.md §2.1, 5: an attestation's `exp` is not checked, so it must not open a link.
#[test]
fn attestation_is_no_access_token() {
    let attestation = sign(
        r#"{"alg":"EdDSA","typ":"sealwire-attestation+jwt"}"#,
        &payload(NOW, NOW + 100),
    );
    assert!(attest(&attestation, NOW, MAX_AGE).is_ok());
    assert_eq!(
        access(&attestation, "i", "r", NOW),
        Err(TokenError::Jws(JwsError::UnexpectedType))
    );
}

#[test]
fn no_claim_is_judged_before_the_signature() {
    let expired = token(0, 1);
    let policy = AccessPolicy {
        issuer: &Issuer::new("j").unwrap(),
        audience: "s",
        now: NOW,
    };
    let verify = |keys: &dyn SignatureVerifier| {
        UnverifiedAccessToken::parse(expired.as_bytes())
            .unwrap()
            .verify(keys, &policy)
    };
    assert_eq!(
        verify(key(6).public()),
        Err(TokenError::Signature(SignatureError::Invalid))
    );
    assert_eq!(
        verify(&Ed25519KeySet::default()),
        Err(TokenError::Signature(SignatureError::UnknownKey))
    );
    assert_eq!(
        verify(key(5).public()),
        refused("iss", ClaimDefect::Mismatch)
    );
}

/// Another verifier, such as one for RS256, sees exactly what was sent and decides alone.
#[test]
fn foreign_verifier_is_given_what_was_signed() {
    struct Recorder;
    impl SignatureVerifier for Recorder {
        fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
            assert_eq!(
                (signed.alg, signed.kid, signed.signature),
                ("RS256", Some("k"), &b"signature"[..])
            );
            let (header, payload) = signed.signing_input.split_at(
                signed
                    .signing_input
                    .iter()
                    .position(|&b| b == b'.')
                    .unwrap(),
            );
            assert_eq!(
                base64url::decode(header).unwrap(),
                br#"{"alg":"RS256","typ":"at+jwt","kid":"k"}"#
            );
            assert_eq!(base64url::decode(&payload[1..]).unwrap(), payload_bytes());
            Err(SignatureError::AlgorithmNotAllowed)
        }
    }
    fn payload_bytes() -> Vec<u8> {
        payload(NOW, NOW + 100).into_bytes()
    }
    let [header, payload, signature] = [
        &br#"{"alg":"RS256","typ":"at+jwt","kid":"k"}"#[..],
        &payload_bytes(),
        b"signature",
    ]
    .map(base64url::encode);
    let token = format!("{header}.{payload}.{signature}");
    let policy = AccessPolicy {
        issuer: &Issuer::new("i").unwrap(),
        audience: "r",
        now: NOW,
    };
    let outcome = UnverifiedAccessToken::parse(token.as_bytes())
        .unwrap()
        .verify(&Recorder, &policy);
    assert_eq!(
        outcome,
        Err(TokenError::Signature(SignatureError::AlgorithmNotAllowed))
    );
}

/// docs/protocol.md §3.5: `ath` ties a proof to one token (RFC 9449 §4.2).
#[test]
fn device_proof_does_not_serve_another_token() {
    let first = access(&token(NOW, NOW + 100), "i", "r", NOW).unwrap();
    let second = access(&token(NOW, NOW + 101), "i", "r", NOW).unwrap();
    let proof_for = |token: &AccessToken| DeviceProof {
        relay: key(9).thumbprint(),
        transcript: [3; 32],
        credential: *token.hash(),
    };
    let proof = proof_for(&first).sign(&key(1), NOW);
    assert_eq!(
        proof_for(&first).verify(proof.as_bytes(), key(1).public(), NOW),
        Ok(())
    );
    let outcome = proof_for(&second).verify(proof.as_bytes(), key(1).public(), NOW);
    assert_eq!(outcome, refused("ath", ClaimDefect::Mismatch));
}

proptest! {
    /// docs/protocol.md §2.2
    #[test]
    fn arbitrary_input_never_panics(bytes: Vec<u8>) {
        let _ = UnverifiedAccessToken::parse(&bytes);
        let _ = UnverifiedAttestation::parse(&bytes);
    }

    /// docs/protocol.md §2.2
    #[test]
    fn arbitrary_claims_and_clocks_never_panic(claim in r#"(exp|iat|nbf|cnf|aud|scope|authorization_details)"#,
        value in r#"(-?[0-9]{1,20}(\.[0-9])?(e[0-9]{1,3})?|null|"[a-z: ]{0,9}"|\[\]|\{\}|\[\{"type":"sealwire","to":\["\*?"\]\}\])"#, now: u64) {
        let payload = payload(NOW, NOW + 100).replace(&format!(r#""{claim}":"#), r#""other":"#);
        let payload = format!(r#"{{"{claim}":{value},{}"#, &payload[1..]);
        let _ = access(&sign(r#"{"alg":"EdDSA","typ":"at+jwt"}"#, &payload), "i", "r", now);
    }
}
