//! JWS compact serialization, read strictly and before any cryptography (`docs/protocol.md` §2.1, RFC 7515 §7.1, RFC 8725).
//!
//! ```text
//! bytes ── UnverifiedJws::parse ── UnverifiedJws ── verify(key) ── VerifiedJws
//!          every rule of §2.1      says who claims what            says who signed what
//! ```
//!
//! Which algorithm verifies is the key's business: a [`SignatureVerifier`] compares the header's `alg` with its own and never
//! follows it. What the claims mean is left to [`crate::token`] and [`crate::statement`].

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{
    base64url,
    json::{JsonError, Object, Value},
    key::{PublicKey, SigningKey},
    limits::{
        MAX_CARD_BYTES, MAX_JWS_HEADER_BYTES, MAX_MESSAGE_JWT_BYTES, MAX_NAME_BYTES,
        MAX_PROOF_BYTES, MAX_SUCCESSION_BYTES, MAX_TOKEN_BYTES,
    },
};

/// Header members that move a decision from the verifier to the sender (`docs/protocol.md` §2.1, 4).
const REFUSED_MEMBERS: [&str; 7] = ["crit", "b64", "zip", "jku", "jwk", "x5u", "x5c"];

/// What a JWT is for: its `typ` and its limit (`docs/protocol.md` §2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtType {
    /// Access token, by the issuer (RFC 9068).
    AccessToken,
    /// Attestation, by the issuer.
    Attestation,
    /// Relay proof, by the relay.
    RelayProof,
    /// Device proof, by the device.
    DeviceProof,
    /// That a relay's key follows another, by the one before.
    Succession,
    /// Device card, by the device.
    Card,
    /// Initiator's proof, by the device that starts a session.
    Session,
    /// Message in a standard JWE, by the device that sends it.
    Message,
}

impl JwtType {
    /// The `typ` in the header.
    #[must_use]
    pub const fn typ(self) -> &'static str {
        match self {
            Self::AccessToken => "at+jwt",
            Self::Attestation => "sealwire-attestation+jwt",
            Self::RelayProof => "sealwire-relay-proof+jwt",
            Self::DeviceProof => "sealwire-device-proof+jwt",
            Self::Succession => "sealwire-succession+jwt",
            Self::Card => "sealwire-card+jwt",
            Self::Session => "sealwire-session+jwt",
            Self::Message => "sealwire-message+jwt",
        }
    }

    /// The longest compact serialization, in bytes (`docs/protocol.md` §12).
    #[must_use]
    pub const fn limit(self) -> usize {
        match self {
            Self::AccessToken | Self::Attestation => MAX_TOKEN_BYTES,
            Self::RelayProof | Self::DeviceProof | Self::Session => MAX_PROOF_BYTES,
            Self::Succession => MAX_SUCCESSION_BYTES,
            Self::Card => MAX_CARD_BYTES,
            Self::Message => MAX_MESSAGE_JWT_BYTES,
        }
    }

    fn matches(self, typ: &str) -> bool {
        is_type(typ, self.typ())
    }
}

/// Compares without regard to ASCII case and to an `application/` prefix of `typ` (RFC 7515 §4.1.9).
pub(crate) fn is_type(typ: &str, expected: &str) -> bool {
    const PREFIX: &str = "application/";
    let bare = match typ.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => typ,
    };
    bare.eq_ignore_ascii_case(expected)
}

/// One of the three parts of a JWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwsPart {
    /// The first part.
    Header,
    /// The second part.
    Payload,
    /// The third part.
    Signature,
}

/// Why bytes are not an acceptable JWS: the sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwsError {
    /// Longer than its type allows (§2.1, 1).
    #[error("the JWS is longer than its type allows")]
    TooLong,
    /// Contains a byte outside ASCII (§2.1, 1).
    #[error("the JWS is not ASCII")]
    NotAscii,
    /// Not exactly three parts; five are a JWE, and JSON serialization has none (§2.1, 1).
    #[error("not a JWS in compact serialization: it needs exactly three parts")]
    PartCount,
    /// A part is empty; an empty signature is an unsecured JWS (§2.1, 1).
    #[error("the {0:?} of the JWS is empty")]
    EmptyPart(JwsPart),
    /// A part is not canonical base64url (§2.1, 2).
    #[error("the {0:?} of the JWS is not canonical base64url without padding")]
    Base64url(JwsPart),
    /// The decoded header is longer than 1,024 bytes (§12).
    #[error("the header of the JWS is longer than 1024 bytes")]
    HeaderTooLong,
    /// Header or payload is not acceptable JSON (§2.1, 3).
    #[error("the {part:?} of the JWS is not acceptable JSON: {error}")]
    Json {
        /// Which part.
        part: JwsPart,
        /// What is wrong with it.
        error: JsonError,
    },
    /// The header has a member that is refused whatever its value (§2.1, 4).
    #[error("the header member {0:?} is refused, whatever its value")]
    RefusedMember(&'static str),
    /// The header lacks `alg` or `typ` (§2.1, 4).
    #[error("the header lacks {0:?}")]
    MissingMember(&'static str),
    /// `alg`, `typ` or `kid` is not a string (§2.1, 4).
    #[error("the header member {0:?} is not a string")]
    NotAString(&'static str),
    /// `kid` is longer than 255 bytes (§2.1, 4).
    #[error("the header member \"kid\" is longer than 255 bytes")]
    KidTooLong,
    /// Another `typ` than the one expected here (§2.1, 5).
    #[error("the JWS is of another type than the one expected here; look at its \"typ\"")]
    UnexpectedType,
    /// `alg` is `none`, in any spelling.
    #[error("the JWS is unsecured: its \"alg\" is none")]
    Unsecured,
    /// The header of one of Sealwire's own JWTs is not exactly `{"alg":"EdDSA","typ":…}` (§2.1).
    #[error("the header has to be exactly \"alg\": \"EdDSA\" and \"typ\"")]
    NotOwnHeader,
}

/// Why no key accepts a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The header's `alg` is not the one this key, or any key here, is configured for.
    #[error(
        "the token's \"alg\" is not the one its key is configured for; check the issuer's allowed algorithms"
    )]
    AlgorithmNotAllowed,
    /// The header's `kid` names no key of the set. A newer key set may have it.
    #[error(
        "the token's \"kid\" names no key of the issuer's set; fetch the set again if it may have changed"
    )]
    UnknownKey,
    /// There is no `kid` and not exactly one key that fits `alg`.
    #[error(
        "the token has no \"kid\", and not exactly one key of the issuer's set fits its \"alg\""
    )]
    AmbiguousKey,
    /// The signature does not fit the key and the content.
    #[error("the signature does not fit")]
    Invalid,
}

/// What a signature has to be checked against: the seam between this parser and whoever knows the keys.
#[derive(Clone, Copy)]
pub struct Signed<'a> {
    /// The header's `alg`: compare it with the key's own, never select by it. Never `none`.
    pub alg: &'a str,
    /// The header's `kid`, if there is one: at most 255 bytes.
    pub kid: Option<&'a str>,
    /// ASCII(header || "." || payload), as encoded (RFC 7515 §5.1).
    pub signing_input: &'a [u8],
    /// The decoded signature: at least one byte, its length not otherwise checked.
    pub signature: &'a [u8],
}

impl fmt::Debug for Signed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Signed");
        debug
            .field("alg", &self.alg)
            .field("kid", &self.kid)
            .finish_non_exhaustive()
    }
}

/// Whoever holds the keys that may have signed.
pub trait SignatureVerifier {
    /// Picks the key by `kid`, compares `alg` with the key's algorithm, checks the signature.
    ///
    /// # Errors
    /// Says which of these failed.
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError>;
}

/// The key by itself: for `alg` `EdDSA`, or `Ed25519` (RFC 9864), whatever the `kid`.
impl SignatureVerifier for PublicKey {
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        if !matches!(signed.alg, "EdDSA" | "Ed25519") {
            return Err(SignatureError::AlgorithmNotAllowed);
        }
        let signature = signed
            .signature
            .try_into()
            .map_err(|_| SignatureError::Invalid)?;
        Self::verify(self, signed.signing_input, signature).map_err(|_| SignatureError::Invalid)
    }
}

/// A JWS that keeps every rule of `docs/protocol.md` §2.1, and that anybody may have written.
pub struct UnverifiedJws<'a> {
    header: Header,
    payload: Object,
    signing_input: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> UnverifiedJws<'a> {
    /// Reads a compact serialization whose `typ` is one of `expected`. The limit is that of its own type.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1 is broken.
    pub fn parse(compact: &'a [u8], expected: &[JwtType]) -> Result<Self, JwsError> {
        // §2.1, 1: before anything is allocated.
        let longest = expected.iter().map(|expected| expected.limit()).max();
        let parts = Parts::split(compact, longest.ok_or(JwsError::TooLong)?)?;
        let header = Header::check(&parts.header()?, expected)?;
        if compact.len() > header.jwt_type.limit() {
            return Err(JwsError::TooLong);
        }
        Ok(Self {
            header,
            payload: parts.payload()?,
            signing_input: parts.signing_input,
            signature: parts.signature()?,
        })
    }

    /// Which of the expected types it is.
    #[must_use]
    pub const fn jwt_type(&self) -> JwtType {
        self.header.jwt_type
    }

    /// Whether the header is the only one that Sealwire's own JWTs have: `{"alg":"EdDSA","typ":…}` (§2.1).
    pub(crate) fn has_own_header(&self) -> bool {
        self.header.members == 2 && self.header.alg == "EdDSA"
    }

    /// The payload, which nobody has vouched for yet.
    #[must_use]
    pub const fn payload(&self) -> &Object {
        &self.payload
    }

    /// What a [`SignatureVerifier`] is given.
    #[must_use]
    pub fn signed(&self) -> Signed<'_> {
        Signed {
            alg: &self.header.alg,
            kid: self.header.kid.as_deref(),
            signing_input: self.signing_input,
            signature: &self.signature,
        }
    }

    /// Checks the signature and gives the payload out as the signer's.
    ///
    /// # Errors
    /// What `keys` says.
    pub fn verify(
        self,
        keys: &(impl SignatureVerifier + ?Sized),
    ) -> Result<VerifiedJws, SignatureError> {
        keys.verify(self.signed())?;
        Ok(VerifiedJws {
            jwt_type: self.header.jwt_type,
            payload: self.payload,
        })
    }
}

/// Shows no part of the token: it may be logged.
impl fmt::Debug for UnverifiedJws<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UnverifiedJws").field(&self.header).finish()
    }
}

/// A JWS whose signature was checked: only [`UnverifiedJws::verify`] makes one.
pub struct VerifiedJws {
    jwt_type: JwtType,
    payload: Object,
}

impl VerifiedJws {
    /// Which of the expected types it is.
    #[must_use]
    pub const fn jwt_type(&self) -> JwtType {
        self.jwt_type
    }

    /// The payload: what the signer said.
    #[must_use]
    pub const fn payload(&self) -> &Object {
        &self.payload
    }
}

impl fmt::Debug for VerifiedJws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VerifiedJws").field(&self.jwt_type).finish()
    }
}

/// Signs `payload`, one JSON object, as one of Sealwire's own JWTs: the header is exactly `{"alg":"EdDSA","typ":…}` (§2.1, RFC 8037 §3.1).
pub(crate) fn sign(jwt_type: JwtType, payload: &str, key: &SigningKey) -> String {
    let header = alloc::format!(r#"{{"alg":"EdDSA","typ":"{}"}}"#, jwt_type.typ());
    let mut compact = base64url::encode(header.as_bytes());
    compact.push('.');
    compact.push_str(&base64url::encode(payload.as_bytes()));
    let signature = key.sign(compact.as_bytes());
    compact.push('.');
    compact.push_str(&base64url::encode(&signature));
    compact
}

/// A compact serialization in its parts, none of which has been looked into.
pub(crate) struct Parts<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8],
    pub(crate) signing_input: &'a [u8],
}

impl<'a> Parts<'a> {
    /// Enforces `docs/protocol.md` §2.1, 1, before anything is allocated.
    pub(crate) fn split(compact: &'a [u8], longest: usize) -> Result<Self, JwsError> {
        if compact.len() > longest {
            return Err(JwsError::TooLong);
        }
        if !compact.is_ascii() {
            return Err(JwsError::NotAscii);
        }
        let mut parts = compact.split(|&byte| byte == b'.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwsError::PartCount);
        };
        let (signing_input, _) = compact
            .split_at_checked(header.len() + 1 + payload.len())
            .ok_or(JwsError::PartCount)?;
        // §12
        if header.len() > base64url::encoded_len(MAX_JWS_HEADER_BYTES) {
            return Err(JwsError::HeaderTooLong);
        }
        Ok(Self {
            header,
            payload,
            signature,
            signing_input,
        })
    }

    pub(crate) fn header(&self) -> Result<Object, JwsError> {
        object(self.header, JwsPart::Header)
    }

    pub(crate) fn payload(&self) -> Result<Object, JwsError> {
        object(self.payload, JwsPart::Payload)
    }

    pub(crate) fn signature(&self) -> Result<Vec<u8>, JwsError> {
        decoded(self.signature, JwsPart::Signature)
    }
}

/// What is used of any header.
pub(crate) struct Fields {
    pub(crate) alg: String,
    pub(crate) typ: Option<String>,
    pub(crate) kid: Option<String>,
}

impl Fields {
    /// Enforces `docs/protocol.md` §2.1, 4.
    pub(crate) fn read(header: &Object, needs_typ: bool) -> Result<Self, JwsError> {
        if let Some(refused) = REFUSED_MEMBERS
            .into_iter()
            .find(|name| header.member(name).is_some())
        {
            return Err(JwsError::RefusedMember(refused));
        }
        let string = |name: &'static str| match header.member(name) {
            Some(Value::String(value)) => Ok(Some(value.clone())),
            Some(_) => Err(JwsError::NotAString(name)),
            None => Ok(None),
        };
        let alg = string("alg")?.ok_or(JwsError::MissingMember("alg"))?;
        let typ = string("typ")?;
        if typ.is_none() && needs_typ {
            return Err(JwsError::MissingMember("typ"));
        }
        let kid = string("kid")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_NAME_BYTES) {
            return Err(JwsError::KidTooLong);
        }
        if alg.eq_ignore_ascii_case("none") {
            return Err(JwsError::Unsecured);
        }
        Ok(Self { alg, typ, kid })
    }
}

/// What is used of a header.
#[derive(Debug)]
struct Header {
    jwt_type: JwtType,
    alg: String,
    kid: Option<String>,
    /// How many members there are, of any name.
    members: usize,
}

impl Header {
    /// Enforces `docs/protocol.md` §2.1, 4 and 5.
    fn check(header: &Object, expected: &[JwtType]) -> Result<Self, JwsError> {
        let Fields { alg, typ, kid } = Fields::read(header, true)?;
        let jwt_type = expected
            .iter()
            .copied()
            .find(|expected| typ.as_ref().is_some_and(|typ| expected.matches(typ)))
            .ok_or(JwsError::UnexpectedType)?;
        Ok(Self {
            jwt_type,
            alg,
            kid,
            members: header.len(),
        })
    }
}

fn decoded(text: &[u8], part: JwsPart) -> Result<Vec<u8>, JwsError> {
    if text.is_empty() {
        return Err(JwsError::EmptyPart(part));
    }
    base64url::decode(text).map_err(|_| JwsError::Base64url(part))
}

fn object(text: &[u8], part: JwsPart) -> Result<Object, JwsError> {
    Object::parse(&decoded(text, part)?).map_err(|error| JwsError::Json { part, error })
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use proptest::prelude::*;

    use super::*;
    use crate::key::Seed;

    const TYPES: [JwtType; 8] = [
        JwtType::AccessToken,
        JwtType::Attestation,
        JwtType::RelayProof,
        JwtType::DeviceProof,
        JwtType::Succession,
        JwtType::Card,
        JwtType::Session,
        JwtType::Message,
    ];

    fn key() -> SigningKey {
        SigningKey::from_seed(&Seed::new([7; 32]))
    }

    fn parse(compact: &str, expected: &[JwtType]) -> Result<JwtType, JwsError> {
        UnverifiedJws::parse(compact.as_bytes(), expected).map(|jws| jws.jwt_type())
    }

    #[test]
    fn what_was_signed_is_what_is_verified() {
        let compact = sign(JwtType::Card, r#"{"a":1}"#, &key());
        let jws = UnverifiedJws::parse(compact.as_bytes(), &[JwtType::Card]).unwrap();
        assert_eq!((jws.signed().alg, jws.signed().kid), ("EdDSA", None));
        assert_eq!(
            jws.signed().signing_input,
            compact.rsplit_once('.').unwrap().0.as_bytes()
        );
        assert_eq!(jws.payload().member("a"), Some(&Value::Integer(1)));
        let jws = jws.verify(key().public()).unwrap();
        assert_eq!((jws.jwt_type(), jws.payload().len()), (JwtType::Card, 1));
    }

    #[test]
    fn debug_shows_no_token() {
        let compact = sign(JwtType::Card, r#"{"sub":"alice"}"#, &key());
        let jws = UnverifiedJws::parse(compact.as_bytes(), &[JwtType::Card]).unwrap();
        assert_eq!(
            format!("{jws:?}"),
            r#"UnverifiedJws(Header { jwt_type: Card, alg: "EdDSA", kid: None, members: 2 })"#
        );
        assert_eq!(
            format!("{:?}", jws.signed()),
            r#"Signed { alg: "EdDSA", kid: None, .. }"#
        );
        assert_eq!(
            format!("{:?}", jws.verify(key().public()).unwrap()),
            "VerifiedJws(Card)"
        );
    }

    /// docs/protocol.md §2.1, 5
    #[test]
    fn no_type_is_taken_for_another() {
        for signed in TYPES {
            for expected in TYPES {
                let outcome = parse(&sign(signed, "{}", &key()), &[expected]);
                assert_eq!(
                    outcome,
                    if signed == expected {
                        Ok(signed)
                    } else {
                        Err(JwsError::UnexpectedType)
                    }
                );
            }
            assert_eq!(parse(&sign(signed, "{}", &key()), &TYPES), Ok(signed));
        }
    }

    /// docs/protocol.md §2.1, 1; §12
    #[test]
    fn one_byte_over_the_limit_of_its_type_is_refused() {
        for jwt_type in TYPES {
            let fill = |length| "a".repeat(length);
            assert_eq!(
                parse(&fill(jwt_type.limit()), &[jwt_type]),
                Err(JwsError::PartCount)
            );
            assert_eq!(
                parse(&fill(jwt_type.limit() + 1), &[jwt_type]),
                Err(JwsError::TooLong)
            );
        }
    }

    /// docs/protocol.md §2.1, 1; §12
    #[test]
    fn longer_type_that_would_be_welcome_too_does_not_lift_the_limit() {
        let payload = format!("{{}}{}", " ".repeat(JwtType::Session.limit()));
        let expected = [JwtType::Session, JwtType::Card];
        assert_eq!(
            parse(&sign(JwtType::Card, &payload, &key()), &expected),
            Ok(JwtType::Card)
        );
        assert_eq!(
            parse(&sign(JwtType::Session, &payload, &key()), &expected),
            Err(JwsError::TooLong)
        );
    }

    /// docs/protocol.md §12
    #[test]
    fn header_over_1024_bytes_is_refused() {
        let with_header = |length: usize| {
            let header = format!(
                r#"{{"alg":"EdDSA","typ":"at+jwt","x":"{}"}}"#,
                "x".repeat(length - 37)
            );
            assert_eq!(header.len(), length);
            format!("{}.e30.AA", base64url::encode(header.as_bytes()))
        };
        assert!(parse(&with_header(1024), &[JwtType::AccessToken]).is_ok());
        assert_eq!(
            parse(&with_header(1025), &[JwtType::AccessToken]),
            Err(JwsError::HeaderTooLong)
        );
    }

    /// docs/protocol.md §2.1
    #[test]
    fn nothing_is_acceptable_where_nothing_is_expected() {
        assert_eq!(
            parse(&sign(JwtType::Card, "{}", &key()), &[]),
            Err(JwsError::TooLong)
        );
    }

    proptest! {
        /// docs/protocol.md §2.1
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = UnverifiedJws::parse(&bytes, &TYPES);
        }

        #[test]
        fn arbitrary_parts_never_panic(header: Vec<u8>, payload: Vec<u8>, signature: Vec<u8>) {
            let compact = [header, payload, signature].map(|part| base64url::encode(&part)).join(".");
            let _ = UnverifiedJws::parse(compact.as_bytes(), &TYPES);
        }

        /// Whatever byte is changed, in whatever way: refused, at one stage or the other.
        #[test]
        fn jws_with_any_byte_changed_is_refused(at in 0..1_000_usize, byte: u8) {
            let mut compact = sign(JwtType::Card, r#"{"sub":"alice"}"#, &key()).into_bytes();
            let at = at % compact.len();
            prop_assume!(compact[at] != byte);
            compact[at] = byte;
            let accepted = UnverifiedJws::parse(&compact, &[JwtType::Card]).is_ok_and(|jws| jws.verify(key().public()).is_ok());
            prop_assert!(!accepted);
        }

        #[test]
        fn jws_cut_short_is_refused(length in 0..100_usize) {
            let compact = sign(JwtType::Card, r#"{"sub":"alice"}"#, &key());
            let cut = &compact.as_bytes()[..length];
            let accepted = UnverifiedJws::parse(cut, &[JwtType::Card]).is_ok_and(|jws| jws.verify(key().public()).is_ok());
            prop_assert!(!accepted);
        }
    }
}
