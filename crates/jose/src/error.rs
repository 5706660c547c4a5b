//! What can be wrong with a key, a key set or a JWE, and who has to do something about it.

use sealwire_protocol::{TokenError, json::JsonError, jwe::JweFault, key::PublicKeyError};

/// Why a key or a key set is not taken. Whoever configured or generated it has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// More bytes than [`crate::MAX_KEY_FILE_BYTES`].
    #[error("the key file is larger than 64 KiB; give only the keys of this issuer")]
    TooLarge,
    /// Not the strict JSON of `docs/protocol.md` §2.1.
    #[error("the key file is not one JSON object: {0}")]
    Json(#[from] JsonError),
    /// More keys than [`crate::MAX_KEYS`].
    #[error("the key set holds more than 64 keys")]
    TooManyKeys,
    /// A member that the key needs is missing.
    #[error("the JWK has no \"{0}\"")]
    Missing(&'static str),
    /// A member has the wrong type, length or encoding.
    #[error("the JWK's \"{0}\" is not what RFC 7517 and RFC 7518 ask for there")]
    Invalid(&'static str),
    /// A private or symmetric member where only public keys belong.
    #[error(
        "there is a private key among the public ones; publish only public keys, and replace this one"
    )]
    Private,
    /// A public key where a private one is needed.
    #[error("this is a public key; the private one is needed here")]
    NotPrivate,
    /// A type of key, curve or use that this operation has no use for.
    #[error("the key is of a type, curve or use that does not fit here")]
    Unsupported,
    /// The EC coordinates are not a point on the curve (RFC 7518 §6.2.1).
    #[error("the EC key is not a point on its curve")]
    NotOnCurve,
    /// The Ed25519 key is not acceptable.
    #[error(transparent)]
    Ed25519(#[from] PublicKeyError),
    /// Every X25519 result with this key would be zero (RFC 7748 §6.1).
    #[error("the X25519 key is of low order")]
    LowOrder,
    /// The RSA modulus is not odd and of 2048 to 8192 bits (RFC 7518 §3.3).
    #[error("the RSA modulus must have 2048 to 8192 bits; make a new key")]
    RsaModulus,
    /// The RSA exponent is not odd and between 3 and 2^32.
    #[error("the RSA exponent must be odd, at least 3 and below 2^32; 65537 is usual")]
    RsaExponent,
    /// Private and public halves do not belong together.
    #[error("the private and the public half of the key do not belong together")]
    Mismatch,
    /// Two keys of one set have the same `kid`.
    #[error("two keys of the set have the same \"kid\"")]
    DuplicateKid,
    /// Nothing in the set fits the algorithms that are allowed.
    #[error(
        "the set has no key for any of the allowed algorithms; check the algorithms and the issuer's key set"
    )]
    NoUsableKey,
    /// An RSA key fits both PS256 and RS256, and nothing says which one it is for.
    #[error("the RSA key fits both PS256 and RS256; name one in its \"alg\" or allow only one")]
    AmbiguousAlgorithm,
    /// The key is not for the algorithm asked for (RFC 8725 §3.2: one key, one algorithm).
    #[error("the key is not for this algorithm")]
    WrongAlgorithm,
    /// A shared secret shorter than 32 bytes (RFC 7518 §3.2).
    #[error("a secret for HS256 needs at least 32 random bytes")]
    ShortSecret,
    /// Not one PEM block of a kind that is known here.
    #[error("not a PEM key; give one PUBLIC KEY or PRIVATE KEY block, or a JWK")]
    Pem,
    /// The cryptographic library refused.
    #[error("the cryptographic library does not take the key")]
    Refused,
}

/// Why a token was not made. The caller has to change what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The claims are not one strict JSON object (`docs/protocol.md` §2.1).
    #[error("the claims are not one JSON object: {0}")]
    Json(#[from] JsonError),
    /// `exp`, `nbf` or `iat` is not a whole number of seconds from 0 to 2^53−1.
    #[error(
        "\"{0}\" must be whole seconds since 1970, from 0 to 2^53-1, without fraction or exponent"
    )]
    Time(&'static str),
    /// `typ` is empty, too long or not visible ASCII.
    #[error("the \"typ\" must be 1 to 255 visible ASCII characters")]
    Typ,
    /// Nobody would accept an access token or attestation with these claims.
    #[error("nobody would accept this token: {0}")]
    Claims(TokenError),
    /// The token would be longer than 8 KiB.
    #[error("the token would be longer than 8192 bytes; give it fewer claims")]
    TooLong,
    /// The cryptographic library refused.
    #[error("the cryptographic library did not sign")]
    Refused,
}

/// Why a JWE was not made. The caller has to change what it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The JWE would be longer than [`crate::jwe::MAX_JWE_BYTES`].
    #[error("the JWE would be longer than 1 MiB; send less, or in parts")]
    TooLong,
    /// `typ`, `cty` or `kid` is longer than 255 bytes.
    #[error("\"typ\", \"cty\" and \"kid\" may have at most 255 bytes each")]
    Header,
    /// The recipient's key gives no secret.
    #[error("the recipient's key cannot be used: {0}")]
    Key(#[from] KeyError),
}

/// Why a JWE was not opened. Its sender is to blame for [`OpenError::Malformed`], the caller for [`OpenError::Key`], nobody for
/// [`OpenError::Decrypt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a JWE of the one form that is accepted (`docs/protocol.md` §10).
    #[error("not an acceptable JWE: {0}")]
    Malformed(JweFault),
    /// The caller's key is not an X25519 key.
    #[error("only an X25519 private key opens a standard JWE")]
    Key,
    /// It does not open: another recipient's, damaged or forged. There is no telling which, on purpose.
    #[error(
        "the JWE does not open with this key; ask the sender to seal it again to your present key"
    )]
    Decrypt,
}
