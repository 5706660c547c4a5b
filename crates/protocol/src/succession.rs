//! How a relay changes its key while devices know it by the one before (`docs/protocol.md` §3.9).
//!
//! ```text
//! old key ── Succession::sign ── statement ── in every relay proof for a time ── Successions::reach ── known key ⇒ presented key
//! ```
//! The old key is needed once, to sign; it can be erased at once, and the statement is what devices get that were away.

use alloc::string::String;

use crate::{
    claims::{ClaimDefect, TokenError, refuse},
    jws::JwtType,
    key::{PublicKey, SigningKey, Thumbprint},
    limits::{CLOCK_TOLERANCE_SECONDS, MAX_SUCCESSIONS},
    statement::{Statement, UnverifiedStatement},
};

const CLAIMS: [&str; 5] = ["iss", "key", "sub", "iat", "exp"];

/// That a relay's key follows another, as the key before says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Succession {
    /// `iss`: the key before.
    pub from: Thumbprint,
    /// `sub`: the key that follows.
    pub to: Thumbprint,
    /// `iat`, in seconds since 1970.
    pub issued: u64,
    /// `exp`, likewise.
    pub expires: u64,
}

impl Succession {
    /// Signs with the key before: `to` follows it, from `issued` to `expires`, in seconds since 1970. At most 512 bytes.
    #[must_use]
    pub fn sign(from: &SigningKey, to: &Thumbprint, issued: u64, expires: u64) -> String {
        Statement::new(JwtType::Succession)
            .bytes("iss", from.thumbprint().as_bytes())
            .bytes("key", from.public().as_bytes())
            .bytes("sub", to.as_bytes())
            .integer("iat", issued)
            .integer("exp", expires)
            .sign(from)
    }

    /// Checks the signature by the key that is in it, that this key is `iss`, and that it counts at `now`, in seconds since 1970.
    ///
    /// That `iss` is known is for the caller to check.
    ///
    /// # Errors
    /// Says which rule, or which claim.
    pub fn verify(compact: &[u8], now: u64) -> Result<Self, TokenError> {
        let statement = UnverifiedStatement::parse(compact, JwtType::Succession, &CLAIMS)?;
        let key = PublicKey::from_bytes(&statement.claims().bytes("key")?)
            .map_err(|_| refuse("key", ClaimDefect::Invalid))?;
        let statement = statement.verify(&key)?;
        let claims = statement.claims();
        let succession = Self {
            from: claims.thumbprint("iss")?,
            to: claims.thumbprint("sub")?,
            issued: claims.integer("iat")?,
            expires: claims.integer("exp")?,
        };
        if succession.from != key.thumbprint() {
            return Err(refuse("iss", ClaimDefect::Mismatch));
        }
        if succession.issued > now.saturating_add(CLOCK_TOLERANCE_SECONDS) {
            return Err(refuse("iat", ClaimDefect::InFuture));
        }
        if now >= succession.expires.saturating_add(CLOCK_TOLERANCE_SECONDS) {
            return Err(refuse("exp", ClaimDefect::Expired));
        }
        Ok(succession)
    }
}

/// What a relay shows of the keys before its own: at most two statements with a space between, the newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Successions(String);

impl Successions {
    /// Of a relay whose key is its first.
    pub const NONE: Self = Self(String::new());

    /// Those of `statements`, the newest first, that count at `now` and lead to `key` one after another; what comes after one that does not is left out.
    pub fn leading_to<'a>(
        key: &Thumbprint,
        statements: impl IntoIterator<Item = &'a str>,
        now: u64,
    ) -> Self {
        let mut text = String::new();
        let mut current = *key;
        let mut count = 0;
        for statement in statements {
            match Succession::verify(statement.as_bytes(), now) {
                Ok(step) if step.to == current && count < MAX_SUCCESSIONS => {
                    if count > 0 {
                        text.push(' ');
                    }
                    text.push_str(statement);
                    current = step.from;
                    count += 1;
                }
                // One whose key was never taken into use.
                Ok(step) if count == 0 && step.to != current => {}
                Ok(_) | Err(_) => break,
            }
        }
        Self(text)
    }

    /// The statements; empty if there are none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the statements in `text` lead from a key in `known` to `presented`, each by the key before.
    #[must_use]
    pub fn reach(text: &str, known: &[Thumbprint], presented: &Thumbprint, now: u64) -> bool {
        let mut current = *presented;
        for statement in text.split(' ').take(MAX_SUCCESSIONS) {
            match Succession::verify(statement.as_bytes(), now) {
                Ok(step) if step.to == current => current = step.from,
                Ok(_) | Err(_) => return false,
            }
            if known.contains(&current) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec::Vec};

    use super::*;
    use crate::key::Seed;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Seed::new([seed; 32]))
    }

    fn id(seed: u8) -> Thumbprint {
        key(seed).thumbprint()
    }

    fn step(from: u8, to: u8) -> String {
        Succession::sign(&key(from), &id(to), NOW, NOW + DAY)
    }

    fn refused(claim: &'static str, defect: ClaimDefect) -> Result<Succession, TokenError> {
        Err(refuse(claim, defect))
    }

    #[test]
    fn statement_says_which_key_follows_which_and_for_how_long() {
        let statement = step(1, 2);
        assert!(statement.len() <= crate::limits::MAX_SUCCESSION_BYTES);
        let succession = Succession {
            from: id(1),
            to: id(2),
            issued: NOW,
            expires: NOW + DAY,
        };
        for now in [NOW - 60, NOW, NOW + DAY + 59] {
            assert_eq!(
                Succession::verify(statement.as_bytes(), now),
                Ok(succession)
            );
        }
    }

    /// docs/protocol.md §3.9
    #[test]
    fn statement_that_does_not_count_is_refused() {
        let verify = |statement: &str, now| Succession::verify(statement.as_bytes(), now);
        let good = step(1, 2);
        assert_eq!(
            verify(&good, NOW - 61),
            refused("iat", ClaimDefect::InFuture)
        );
        assert_eq!(
            verify(&good, NOW + DAY + 60),
            refused("exp", ClaimDefect::Expired)
        );

        let by = |signer: &SigningKey, iss: Thumbprint, key: &[u8]| {
            Statement::new(JwtType::Succession)
                .bytes("iss", iss.as_bytes())
                .bytes("key", key)
                .bytes("sub", id(2).as_bytes())
                .integer("iat", NOW)
                .integer("exp", NOW + DAY)
                .sign(signer)
        };
        // Whoever signs it names their own key, and says that it is another's.
        let posing = by(&key(9), id(1), key(9).public().as_bytes());
        assert_eq!(verify(&posing, NOW), refused("iss", ClaimDefect::Mismatch));
        let forged = by(&key(9), id(1), key(1).public().as_bytes());
        assert!(matches!(
            verify(&forged, NOW),
            Err(TokenError::Signature(_))
        ));
        let no_key = by(&key(1), id(1), &[0xff; 32]);
        assert_eq!(verify(&no_key, NOW), refused("key", ClaimDefect::Invalid));
        let longer = Statement::new(JwtType::RelayProof)
            .text("iss", "x")
            .sign(&key(1));
        assert!(verify(&longer, NOW).is_err());
    }

    /// docs/protocol.md §3.9
    #[test]
    fn statements_lead_from_a_known_key_step_by_step() {
        let (newest, older) = (step(2, 3), step(1, 2));
        let both = format!("{newest} {older}");
        let reach = |text: &str, known: u8| Successions::reach(text, &[id(known)], &id(3), NOW);
        assert!(reach(&both, 1) && reach(&both, 2) && reach(&newest, 2));
        for (text, known) in [
            ("", 2),
            (newest.as_str(), 1),
            (both.as_str(), 9),
            (older.as_str(), 1),
            (&format!("{older} {newest}"), 1),
            (&format!("{newest}  {older}"), 1),
            (&format!("{newest},{older}"), 1),
            (&format!("{newest} {}", step(9, 2)), 1),
            // One more than there may be.
            (&format!("{newest} {older} {}", step(7, 1)), 7),
        ] {
            assert!(!reach(text, known), "{known}: {text}");
        }
        assert!(!Successions::reach(
            &newest,
            &[id(2)],
            &id(3),
            NOW + 2 * DAY
        ));
        assert!(!Successions::reach(&newest, &[id(2)], &id(4), NOW));
    }

    #[test]
    fn relay_shows_the_steps_that_lead_to_its_key() {
        let steps = [step(3, 4), step(2, 3), step(1, 2), step(0, 1)];
        let shown = |key: u8, from: usize| {
            let statements: Vec<_> = steps.iter().skip(from).map(String::as_str).collect();
            Successions::leading_to(&id(key), statements, NOW)
        };
        assert_eq!(shown(4, 0).as_str(), format!("{} {}", steps[0], steps[1]));
        // The relay stopped before it took the key 4 into use.
        assert_eq!(shown(3, 0).as_str(), format!("{} {}", steps[1], steps[2]));
        assert_eq!(shown(2, 2).as_str(), format!("{} {}", steps[2], steps[3]));
        assert_eq!(shown(9, 0), Successions::default());
        let later = Successions::leading_to(&id(4), [steps[0].as_str()], NOW + 2 * DAY);
        assert_eq!(later, Successions::default());
    }
}
