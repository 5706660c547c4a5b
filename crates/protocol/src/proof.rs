//! Proofs of possession in the link handshake and in a refresh (`docs/protocol.md` §3.5, §5.4).
//!
//! Each binds the key of one side to this handshake and to the other side, so that it can be neither replayed nor moved to another
//! relay or token. Which transcript hash is meant is left to the handshake.

use alloc::string::String;

use crate::{
    claims::{ClaimDefect, TokenError, refuse},
    jws::JwtType,
    key::{PublicKey, SigningKey, Thumbprint},
    limits::CLOCK_TOLERANCE_SECONDS,
    statement::{Claims, Statement, UnverifiedStatement},
    succession::Successions,
};

const RELAY_CLAIMS: [&str; 4] = ["iss", "aud", "th", "iat"];
/// Whose key the relay's follows, if it follows one ([`crate::succession`]).
const PREVIOUS: &str = "prev";
const DEVICE_CLAIMS: [&str; 5] = ["iss", "aud", "th", "ath", "iat"];

/// What a relay proves: that it holds its key and answers this Hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayProof {
    /// `aud`: SHA-256 of the Hello.
    pub hello: [u8; 32],
    /// `th`: t1 (`docs/protocol.md` §3.3).
    pub transcript: [u8; 32],
}

impl RelayProof {
    /// Signs with the relay's key, at `now` in seconds since 1970. At most 2,048 bytes.
    #[must_use]
    pub fn sign(&self, key: &SigningKey, now: u64) -> String {
        self.sign_following(key, &Successions::NONE, now)
    }

    /// The same by a key that follows others. At most 2,048 bytes.
    #[must_use]
    pub fn sign_following(&self, key: &SigningKey, previous: &Successions, now: u64) -> String {
        let proof = Statement::new(JwtType::RelayProof)
            .bytes("iss", key.thumbprint().as_bytes())
            .bytes("aud", &self.hello)
            .bytes("th", &self.transcript)
            .integer("iat", now);
        match previous.as_str() {
            "" => proof,
            previous => proof.text(PREVIOUS, previous),
        }
        .sign(key)
    }

    /// Checks that `compact` is this proof, by `key`, made within 60 seconds of `now`: the signature first, then every claim.
    ///
    /// That `key` is the relay's is for the caller to check before (`docs/protocol.md` §3.5).
    ///
    /// # Errors
    /// Says which rule, or which claim.
    pub fn verify(&self, compact: &[u8], key: &PublicKey, now: u64) -> Result<(), TokenError> {
        self.verify_following(compact, key, now).map(drop)
    }

    /// The same, and gives what it says of the keys before, which nobody has checked yet: empty if nothing.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_following(
        &self,
        compact: &[u8],
        key: &PublicKey,
        now: u64,
    ) -> Result<String, TokenError> {
        let proof = UnverifiedStatement::parse_with(
            compact,
            JwtType::RelayProof,
            &RELAY_CLAIMS,
            Some(PREVIOUS),
        )?
        .verify(key)?;
        let claims = proof.claims();
        expect(claims, "iss", key.thumbprint().as_bytes())?;
        expect(claims, "aud", &self.hello)?;
        expect(claims, "th", &self.transcript)?;
        expect_now(claims, now)?;
        if claims.has(PREVIOUS) {
            claims.text(PREVIOUS).map(Into::into)
        } else {
            Ok(String::new())
        }
    }
}

/// What a device proves: that it holds its key, to this relay, in this handshake, with this credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceProof {
    /// `aud`: the relay.
    pub relay: Thumbprint,
    /// `th`: t2, or in a refresh the hash of §5.4.
    pub transcript: [u8; 32],
    /// `ath`: [`credential_hash`](crate::token::credential_hash) of the token, the invite code, or nothing.
    pub credential: [u8; 32],
}

impl DeviceProof {
    /// Signs with the device's key, at `now` in seconds since 1970. At most 2,048 bytes.
    #[must_use]
    pub fn sign(&self, key: &SigningKey, now: u64) -> String {
        Statement::new(JwtType::DeviceProof)
            .bytes("iss", key.thumbprint().as_bytes())
            .bytes("aud", self.relay.as_bytes())
            .bytes("th", &self.transcript)
            .bytes("ath", &self.credential)
            .integer("iat", now)
            .sign(key)
    }

    /// Checks that `compact` is this proof, by `key`, made within 60 seconds of `now`: the signature first, then every claim.
    ///
    /// That `key` is the one in the token's `cnf` is for the caller to check before (`docs/protocol.md` §3.5).
    ///
    /// # Errors
    /// Says which rule, or which claim.
    pub fn verify(&self, compact: &[u8], key: &PublicKey, now: u64) -> Result<(), TokenError> {
        let proof = UnverifiedStatement::parse(compact, JwtType::DeviceProof, &DEVICE_CLAIMS)?
            .verify(key)?;
        let claims = proof.claims();
        expect(claims, "iss", key.thumbprint().as_bytes())?;
        expect(claims, "aud", self.relay.as_bytes())?;
        expect(claims, "th", &self.transcript)?;
        expect(claims, "ath", &self.credential)?;
        expect_now(claims, now)
    }
}

/// The claim is the base64url of exactly these bytes, none of which is secret.
fn expect(claims: Claims<'_>, name: &'static str, expected: &[u8; 32]) -> Result<(), TokenError> {
    if claims.bytes(name)? == *expected {
        Ok(())
    } else {
        Err(refuse(name, ClaimDefect::Mismatch))
    }
}

/// `iat` lies within the tolerance of the verifier's clock (`docs/protocol.md` §3.5).
fn expect_now(claims: Claims<'_>, now: u64) -> Result<(), TokenError> {
    let issued = claims.integer("iat")?;
    if issued > now.saturating_add(CLOCK_TOLERANCE_SECONDS) {
        return Err(refuse("iat", ClaimDefect::InFuture));
    }
    if now > issued.saturating_add(CLOCK_TOLERANCE_SECONDS) {
        return Err(refuse("iat", ClaimDefect::TooOld));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        jws::{JwsError, SignatureError},
        key::Seed,
    };

    const NOW: u64 = 1_800_000_000;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Seed::new([seed; 32]))
    }

    fn relay_proof() -> RelayProof {
        RelayProof {
            hello: [1; 32],
            transcript: [2; 32],
        }
    }

    fn device_proof() -> DeviceProof {
        DeviceProof {
            relay: key(9).thumbprint(),
            transcript: [3; 32],
            credential: [4; 32],
        }
    }

    fn mismatch(claim: &'static str) -> Result<(), TokenError> {
        Err(refuse(claim, ClaimDefect::Mismatch))
    }

    #[test]
    fn relay_proof_verifies_within_a_minute() {
        let proof = relay_proof().sign(&key(9), NOW);
        for now in [NOW - 60, NOW, NOW + 60] {
            assert_eq!(
                relay_proof().verify(proof.as_bytes(), key(9).public(), now),
                Ok(())
            );
        }
    }

    #[test]
    fn device_proof_verifies_within_a_minute() {
        let proof = device_proof().sign(&key(1), NOW);
        for now in [NOW - 60, NOW, NOW + 60] {
            assert_eq!(
                device_proof().verify(proof.as_bytes(), key(1).public(), now),
                Ok(())
            );
        }
    }

    /// docs/protocol.md §3.5
    #[test]
    fn proof_more_than_a_minute_away_is_refused() {
        let (relay, device) = (
            relay_proof().sign(&key(9), NOW),
            device_proof().sign(&key(1), NOW),
        );
        for (now, defect) in [
            (NOW - 61, ClaimDefect::InFuture),
            (NOW + 61, ClaimDefect::TooOld),
            (u64::MAX, ClaimDefect::TooOld),
        ] {
            let refused = Err(refuse("iat", defect));
            assert_eq!(
                relay_proof().verify(relay.as_bytes(), key(9).public(), now),
                refused
            );
            assert_eq!(
                device_proof().verify(device.as_bytes(), key(1).public(), now),
                refused
            );
        }
    }

    /// docs/protocol.md §3.5
    #[test]
    fn proof_for_another_occasion_is_refused() {
        let other = RelayProof {
            hello: [9; 32],
            ..relay_proof()
        }
        .sign(&key(9), NOW);
        assert_eq!(
            relay_proof().verify(other.as_bytes(), key(9).public(), NOW),
            mismatch("aud")
        );
        let other = RelayProof {
            transcript: [9; 32],
            ..relay_proof()
        }
        .sign(&key(9), NOW);
        assert_eq!(
            relay_proof().verify(other.as_bytes(), key(9).public(), NOW),
            mismatch("th")
        );

        let other = DeviceProof {
            relay: key(8).thumbprint(),
            ..device_proof()
        }
        .sign(&key(1), NOW);
        assert_eq!(
            device_proof().verify(other.as_bytes(), key(1).public(), NOW),
            mismatch("aud")
        );
        let other = DeviceProof {
            transcript: [9; 32],
            ..device_proof()
        }
        .sign(&key(1), NOW);
        assert_eq!(
            device_proof().verify(other.as_bytes(), key(1).public(), NOW),
            mismatch("th")
        );
        let other = DeviceProof {
            credential: [9; 32],
            ..device_proof()
        }
        .sign(&key(1), NOW);
        assert_eq!(
            device_proof().verify(other.as_bytes(), key(1).public(), NOW),
            mismatch("ath")
        );
    }

    /// docs/protocol.md §3.5
    #[test]
    fn proof_in_the_name_of_another_key_is_refused() {
        let forged = Statement::new(JwtType::RelayProof)
            .bytes("iss", key(9).thumbprint().as_bytes())
            .bytes("aud", &[1; 32])
            .bytes("th", &[2; 32])
            .integer("iat", NOW)
            .sign(&key(8));
        assert_eq!(
            relay_proof().verify(forged.as_bytes(), key(8).public(), NOW),
            mismatch("iss")
        );
        let refused = Err(TokenError::Signature(SignatureError::Invalid));
        assert_eq!(
            relay_proof().verify(forged.as_bytes(), key(9).public(), NOW),
            refused
        );
        let proof = device_proof().sign(&key(1), NOW);
        assert_eq!(
            device_proof().verify(proof.as_bytes(), key(2).public(), NOW),
            refused
        );
    }

    /// docs/protocol.md §2.1, 5
    #[test]
    fn proof_of_one_side_is_no_proof_of_the_other() {
        let refused = Err(TokenError::Jws(JwsError::UnexpectedType));
        let proof = device_proof().sign(&key(9), NOW);
        assert_eq!(
            relay_proof().verify(proof.as_bytes(), key(9).public(), NOW),
            refused
        );
        let proof = relay_proof().sign(&key(1), NOW);
        assert_eq!(
            device_proof().verify(proof.as_bytes(), key(1).public(), NOW),
            refused
        );
    }

    /// docs/protocol.md §2.1
    #[test]
    fn proof_with_a_claim_too_many_or_too_few_is_refused() {
        let all = || {
            Statement::new(JwtType::RelayProof)
                .bytes("iss", key(9).thumbprint().as_bytes())
                .bytes("aud", &[1; 32])
                .bytes("th", &[2; 32])
        };
        let verify = |proof: Statement| {
            relay_proof().verify(proof.sign(&key(9)).as_bytes(), key(9).public(), NOW)
        };
        assert_eq!(verify(all()), Err(refuse("iat", ClaimDefect::Missing)));
        assert_eq!(
            verify(all().integer("iat", NOW).integer("exp", NOW)),
            Err(TokenError::UnlistedClaim)
        );
        assert_eq!(
            verify(all().text("iat", "1800000000")),
            Err(refuse("iat", ClaimDefect::WrongType))
        );
        assert_eq!(
            verify(all().integer("iat", 1 << 53)),
            Err(refuse("iat", ClaimDefect::WrongType))
        );
    }

    /// docs/protocol.md §1.2
    #[test]
    fn proof_with_a_hash_of_another_length_is_refused() {
        let proof = Statement::new(JwtType::RelayProof)
            .bytes("iss", key(9).thumbprint().as_bytes())
            .bytes("aud", &[1; 31])
            .bytes("th", &[2; 32])
            .integer("iat", NOW)
            .sign(&key(9));
        let refused = Err(refuse("aud", ClaimDefect::Invalid));
        assert_eq!(
            relay_proof().verify(proof.as_bytes(), key(9).public(), NOW),
            refused
        );
    }

    /// docs/protocol.md §3.5
    #[test]
    fn nothing_and_garbage_are_no_proof() {
        for (proof, error) in [
            (&b""[..], JwsError::PartCount),
            (b"..", JwsError::EmptyPart(crate::jws::JwsPart::Header)),
        ] {
            assert_eq!(
                relay_proof().verify(proof, key(9).public(), NOW),
                Err(error.into())
            );
        }
    }
}
