//! Sealwire's own JWTs: signed by a device or relay key, with a closed header and a closed set of claims (`docs/protocol.md` §2.1).
//!
//! ```text
//! Statement::new(type).text(…).bytes(…).sign(key) ── compact JWS
//! compact JWS ── UnverifiedStatement::parse(type, names) ── read claims ── verify(key) ── VerifiedStatement
//! ```
//!
//! A card names the key that signed it, so claims can be read before the signature is checked. Acting on them is only for who holds
//! the [`VerifiedStatement`]. What each type has to say is left to its own module: [`crate::proof`], and cards and session proofs to
//! the end-to-end crate.

use alloc::string::String;
use core::fmt::{self, Write};

use crate::{
    base64url,
    claims::{self, ClaimDefect, TokenError, refuse},
    json::Object,
    jws::{self, JwsError, JwtType, UnverifiedJws},
    key::{PublicKey, SigningKey, Thumbprint},
};

/// A statement being written. Claims stand in the order in which they are added; the caller adds each name once.
pub struct Statement {
    jwt_type: JwtType,
    payload: String,
}

/// Shows no claim: one of them may be a token.
impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Statement").field(&self.jwt_type).finish()
    }
}

impl Statement {
    /// Begins a statement without claims.
    #[must_use]
    pub fn new(jwt_type: JwtType) -> Self {
        Self {
            jwt_type,
            payload: String::new(),
        }
    }

    /// Adds a string claim.
    #[must_use]
    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        self.name(name);
        push_string(&mut self.payload, value);
        self
    }

    /// Adds an integer claim, such as a time in seconds since 1970. What is over 2^53−1 is not readable again.
    #[must_use]
    pub fn integer(mut self, name: &'static str, value: u64) -> Self {
        self.name(name);
        // Writing to a String cannot fail.
        let _ = write!(self.payload, "{value}");
        self
    }

    /// Adds a string claim that is the base64url of `value`.
    #[must_use]
    pub fn bytes(self, name: &'static str, value: &[u8]) -> Self {
        self.text(name, &base64url::encode(value))
    }

    /// Signs, with the header `{"alg":"EdDSA","typ":…}` (RFC 8037 §3.1), and gives the compact serialization.
    #[must_use]
    pub fn sign(mut self, key: &SigningKey) -> String {
        self.payload
            .push_str(if self.payload.is_empty() { "{}" } else { "}" });
        jws::sign(self.jwt_type, &self.payload, key)
    }

    fn name(&mut self, name: &str) {
        self.payload
            .push(if self.payload.is_empty() { '{' } else { ',' });
        push_string(&mut self.payload, name);
        self.payload.push(':');
    }
}

/// Writes a JSON string (RFC 8259 §7).
fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            '\0'..='\u{1f}' => {
                // Writing to a String cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(c));
            }
            _ => json.push(c),
        }
    }
    json.push('"');
}

/// A statement that keeps every rule of `docs/protocol.md` §2.1 and has exactly the claims of its type, and that anybody may have written.
#[derive(Debug)]
pub struct UnverifiedStatement<'a> {
    jws: UnverifiedJws<'a>,
}

impl<'a> UnverifiedStatement<'a> {
    /// Reads a compact serialization that has to have exactly the claims in `names`.
    ///
    /// # Errors
    /// Says which rule is broken: of the JWS, of its header, or that a claim is missing or not listed.
    pub fn parse(
        compact: &'a [u8],
        jwt_type: JwtType,
        names: &[&'static str],
    ) -> Result<Self, TokenError> {
        Self::parse_with(compact, jwt_type, names, None)
    }

    /// Reads a compact serialization that may have one more claim.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(
        compact: &'a [u8],
        jwt_type: JwtType,
        names: &[&'static str],
        optional: Option<&'static str>,
    ) -> Result<Self, TokenError> {
        let jws = UnverifiedJws::parse(compact, &[jwt_type])?;
        if !jws.has_own_header() {
            return Err(JwsError::NotOwnHeader.into());
        }
        if let Some(missing) = names
            .iter()
            .find(|name| jws.payload().member(name).is_none())
        {
            return Err(refuse(missing, ClaimDefect::Missing));
        }
        let more = optional.is_some_and(|name| jws.payload().member(name).is_some());
        if jws.payload().len() != names.len().saturating_add(usize::from(more)) {
            return Err(TokenError::UnlistedClaim);
        }
        Ok(Self { jws })
    }

    /// The claims, which nobody has vouched for yet.
    #[must_use]
    pub const fn claims(&self) -> Claims<'_> {
        Claims(self.jws.payload())
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`TokenError::Signature`].
    pub fn verify(self, key: &PublicKey) -> Result<VerifiedStatement, TokenError> {
        Ok(VerifiedStatement {
            jws: self.jws.verify(key)?,
        })
    }
}

/// A statement whose signature was checked: only [`UnverifiedStatement::verify`] makes one.
#[derive(Debug)]
pub struct VerifiedStatement {
    jws: jws::VerifiedJws,
}

impl VerifiedStatement {
    /// The claims: what the signer said.
    #[must_use]
    pub const fn claims(&self) -> Claims<'_> {
        Claims(self.jws.payload())
    }
}

/// The claims of a statement, read by name. Every error names the claim.
#[derive(Clone, Copy)]
pub struct Claims<'a>(&'a Object);

/// Shows no claim: one of them may be a token.
impl fmt::Debug for Claims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

impl<'a> Claims<'a> {
    /// Whether the claim is there, of whatever type.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.0.member(name).is_some()
    }

    /// A string.
    ///
    /// # Errors
    /// The claim is missing or of another type.
    pub fn text(self, name: &'static str) -> Result<&'a str, TokenError> {
        claims::text(self.0, name)
    }

    /// An integer from 0 to 2^53−1 in plain digits, such as a time in seconds since 1970.
    ///
    /// # Errors
    /// The claim is missing, of another type or form, or too large.
    pub fn integer(self, name: &'static str) -> Result<u64, TokenError> {
        claims::integer(self.0, name)
    }

    /// An integer from 0 to 2^32−1 in plain digits.
    ///
    /// # Errors
    /// The claim is missing, of another type or form, or too large.
    pub fn u32(self, name: &'static str) -> Result<u32, TokenError> {
        u32::try_from(self.integer(name)?).map_err(|_| refuse(name, ClaimDefect::Invalid))
    }

    /// A string that is the canonical base64url of exactly `N` bytes.
    ///
    /// # Errors
    /// The claim is missing, of another type, or not that.
    pub fn bytes<const N: usize>(self, name: &'static str) -> Result<[u8; N], TokenError> {
        claims::bytes(self.0, name)
    }

    /// A string that is a thumbprint.
    ///
    /// # Errors
    /// The claim is missing, of another type, or not that.
    pub fn thumbprint(self, name: &'static str) -> Result<Thumbprint, TokenError> {
        claims::thumbprint(self.0, name)
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, vec::Vec};

    use super::*;
    use crate::{jws::SignatureError, key::Seed};

    const NAMES: [&str; 3] = ["iss", "id", "key"];

    fn key() -> SigningKey {
        SigningKey::from_seed(&Seed::new([7; 32]))
    }

    fn card() -> Statement {
        Statement::new(JwtType::Card)
            .text("iss", "a")
            .integer("id", 1)
            .bytes("key", &[5; 4])
    }

    fn parse(compact: &str) -> Result<(), TokenError> {
        UnverifiedStatement::parse(compact.as_bytes(), JwtType::Card, &NAMES)?
            .verify(key().public())?;
        Ok(())
    }

    /// Signs any header over any payload.
    fn signed(header: &str, payload: &str) -> String {
        let input = format!(
            "{}.{}",
            base64url::encode(header.as_bytes()),
            base64url::encode(payload.as_bytes())
        );
        format!(
            "{input}.{}",
            base64url::encode(&key().sign(input.as_bytes()))
        )
    }

    #[test]
    fn claims_come_back_as_they_were_signed() {
        let text = "\"quoted\" \\ / \u{0}\u{1f}\n é 😀";
        let compact = Statement::new(JwtType::Session)
            .text("t", text)
            .integer("i", (1 << 53) - 1)
            .integer("g", u64::from(u32::MAX))
            .bytes("b", &[1, 2, 3])
            .bytes("p", key().thumbprint().as_bytes())
            .sign(&key());
        let statement = UnverifiedStatement::parse(
            compact.as_bytes(),
            JwtType::Session,
            &["t", "i", "g", "b", "p"],
        )
        .unwrap();
        let statement = statement.verify(key().public()).unwrap();
        let claims = statement.claims();
        assert_eq!(claims.text("t"), Ok(text));
        assert_eq!(claims.integer("i"), Ok((1 << 53) - 1));
        assert_eq!(claims.u32("g"), Ok(u32::MAX));
        assert_eq!(claims.bytes("b"), Ok([1, 2, 3]));
        assert_eq!(claims.thumbprint("p"), Ok(key().thumbprint()));
    }

    /// docs/protocol.md §2.1, RFC 8037 §3.1
    #[test]
    fn header_is_written_exactly_as_specified() {
        let compact = Statement::new(JwtType::Card).sign(&key());
        let parts: Vec<_> = compact.split('.').collect();
        assert_eq!(
            base64url::decode(parts[0].as_bytes()).unwrap(),
            br#"{"alg":"EdDSA","typ":"sealwire-card+jwt"}"#
        );
        assert_eq!(base64url::decode(parts[1].as_bytes()).unwrap(), b"{}");
    }

    /// docs/protocol.md §2.1
    #[test]
    fn header_with_a_further_member_or_another_alg_is_refused() {
        const PAYLOAD: &str = r#"{"iss":"a","id":1,"key":"BQUFBQ"}"#;
        assert_eq!(
            parse(&signed(
                r#"{"typ":"sealwire-card+jwt","alg":"EdDSA"}"#,
                PAYLOAD
            )),
            Ok(())
        );
        for header in [
            r#"{"alg":"EdDSA","typ":"sealwire-card+jwt","kid":"a"}"#,
            r#"{"alg":"EdDSA","typ":"sealwire-card+jwt","cty":"JWT"}"#,
            r#"{"alg":"Ed25519","typ":"sealwire-card+jwt"}"#,
            r#"{"alg":"eddsa","typ":"sealwire-card+jwt"}"#,
            r#"{"alg":"HS256","typ":"sealwire-card+jwt"}"#,
        ] {
            assert_eq!(
                parse(&signed(header, PAYLOAD)),
                Err(JwsError::NotOwnHeader.into()),
                "{header}"
            );
        }
    }

    /// docs/protocol.md §2.1
    #[test]
    fn claims_that_are_missing_or_not_listed_are_refused() {
        assert_eq!(parse(&card().sign(&key())), Ok(()));
        assert_eq!(
            parse(&card().integer("nbf", 1).sign(&key())),
            Err(TokenError::UnlistedClaim)
        );
        let missing = Statement::new(JwtType::Card)
            .text("iss", "a")
            .integer("id", 1)
            .text("Key", "a")
            .sign(&key());
        assert_eq!(parse(&missing), Err(refuse("key", ClaimDefect::Missing)));
        assert_eq!(
            parse(&Statement::new(JwtType::Card).sign(&key())),
            Err(refuse("iss", ClaimDefect::Missing))
        );
    }

    /// docs/protocol.md §2.1, 5
    #[test]
    fn statement_of_another_type_is_refused() {
        for other in [
            JwtType::AccessToken,
            JwtType::Attestation,
            JwtType::RelayProof,
            JwtType::DeviceProof,
            JwtType::Session,
        ] {
            let compact = Statement {
                jwt_type: other,
                ..card()
            }
            .sign(&key());
            assert_eq!(
                parse(&compact),
                Err(JwsError::UnexpectedType.into()),
                "{other:?}"
            );
        }
    }

    /// docs/protocol.md §2.1
    #[test]
    fn statement_that_was_changed_or_signed_by_another_key_is_refused() {
        let refused = Err(SignatureError::Invalid.into());
        let other = SigningKey::from_seed(&Seed::new([8; 32]));
        assert_eq!(parse(&card().sign(&other)), refused);
        let compact = card().sign(&key());
        let changed = compact.replace(
            &base64url::encode(br#"{"iss":"a","id":1"#)[..20],
            &base64url::encode(br#"{"iss":"b","id":1"#)[..20],
        );
        assert_ne!(changed, compact);
        assert_eq!(parse(&changed), refused);
    }

    /// docs/protocol.md §2.1, 1
    #[test]
    fn statement_over_the_limit_of_its_type_is_refused() {
        let compact = Statement::new(JwtType::Card)
            .text("iss", &"a".repeat(12_300))
            .integer("id", 1)
            .bytes("key", &[5; 4])
            .sign(&key());
        assert!(compact.len() > 16_384);
        assert_eq!(parse(&compact), Err(JwsError::TooLong.into()));
    }

    /// docs/protocol.md §2.1
    #[test]
    fn claims_of_another_type_or_size_are_refused() {
        let compact = Statement::new(JwtType::Card)
            .text("iss", "1")
            .integer("id", 1 << 32)
            .text("key", "BQUFBR")
            .sign(&key());
        let statement =
            UnverifiedStatement::parse(compact.as_bytes(), JwtType::Card, &NAMES).unwrap();
        let claims = statement.claims();
        assert_eq!(
            claims.integer("iss"),
            Err(refuse("iss", ClaimDefect::WrongType))
        );
        assert_eq!(
            claims.thumbprint("iss"),
            Err(refuse("iss", ClaimDefect::Invalid))
        );
        assert_eq!(claims.text("id"), Err(refuse("id", ClaimDefect::WrongType)));
        assert_eq!(claims.u32("id"), Err(refuse("id", ClaimDefect::Invalid)));
        assert_eq!(
            claims.bytes::<4>("key"),
            Err(refuse("key", ClaimDefect::Invalid))
        );
        assert_eq!(
            claims.bytes::<4>("kem"),
            Err(refuse("kem", ClaimDefect::Missing))
        );
    }
}
