//! Standard JWE to a device's X25519 key (`docs/protocol.md` §10): `ECDH-ES+A256KW` with `A256GCM`, compact serialization.
//!
//! ```text
//! seal_to: plaintext ── josekit ── JWE            open_with: JWE ── strict reader ── josekit ── plaintext
//! ```
//! There is no forward secrecy here, and the sender is whoever signed what is inside. josekit by itself would take a tag of one
//! byte, panic on an empty initialization vector, inflate `zip` without a limit and let the header choose `enc`: so the reader comes
//! first and leaves none of that to it.

use josekit::jwe::{ECDH_ES_A256KW, JweHeader};
use sealwire_protocol::limits::MAX_NAME_BYTES;
use zeroize::Zeroizing;

pub use sealwire_protocol::jwe::{Header, UnopenedJwe};
pub use sealwire_protocol::limits::MAX_STANDARD_JWE_BYTES as MAX_JWE_BYTES;

use crate::{KeyError, OpenError, PrivateKey, PublicKey, SealError, key::wipe, material::Material};

const ENC: &str = "A256GCM";

/// What a JWE held.
pub struct Opened {
    /// The plaintext, erased when dropped.
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The header's other members, authenticated.
    pub header: Header,
}

/// Seals `plaintext` to an X25519 public key. Whoever holds the private one can open it, now and forever: no forward secrecy.
///
/// # Errors
/// [`SealError::TooLong`] if the JWE would be over 1 MiB; [`SealError::Key`] for another type of key.
pub fn seal_to(
    recipient: &PublicKey,
    plaintext: &[u8],
    header: &Header,
) -> Result<String, SealError> {
    let Material::X25519(_) = recipient.material() else {
        return Err(SealError::Key(KeyError::Unsupported));
    };
    if plaintext.len() > MAX_JWE_BYTES {
        return Err(SealError::TooLong);
    }
    let mut jose = JweHeader::new();
    jose.set_content_encryption(ENC);
    for (name, value) in [
        ("typ", &header.typ),
        ("cty", &header.cty),
        ("kid", &header.kid),
    ] {
        let Some(value) = value else { continue };
        if value.len() > MAX_NAME_BYTES {
            return Err(SealError::Header);
        }
        jose.set_claim(name, Some(josekit::Value::from(value.as_str())))
            .map_err(|_| SealError::Header)?;
    }
    let refused = |_| SealError::Key(KeyError::Refused);
    let encrypter = ECDH_ES_A256KW
        .encrypter_from_jwk(&recipient.material().josekit()?)
        .map_err(refused)?;
    let compact = josekit::jwe::serialize_compact(plaintext, &jose, &encrypter).map_err(refused)?;
    if compact.len() > MAX_JWE_BYTES {
        return Err(SealError::TooLong);
    }
    Ok(compact)
}

/// Opens a JWE with an X25519 private key.
///
/// # Errors
/// [`OpenError::Malformed`] for anything but the one accepted form and [`OpenError::Key`] for another type of key, before any
/// cryptography; after it only the opaque [`OpenError::Decrypt`].
pub fn open_with(key: &PrivateKey, compact: &[u8]) -> Result<Opened, OpenError> {
    let header = UnopenedJwe::parse(compact)
        .map_err(OpenError::Malformed)?
        .header;
    if !key.is_x25519() {
        return Err(OpenError::Key);
    }
    let jwk = key.josekit().map_err(|_| OpenError::Decrypt)?;
    let decrypter = ECDH_ES_A256KW.decrypter_from_jwk(&jwk);
    wipe(jwk);
    let decrypter = decrypter.map_err(|_| OpenError::Decrypt)?;
    let compact = core::str::from_utf8(compact).map_err(|_| OpenError::Decrypt)?;
    let (plaintext, _) =
        josekit::jwe::deserialize_compact(compact, &decrypter).map_err(|_| OpenError::Decrypt)?;
    Ok(Opened {
        plaintext: Zeroizing::new(plaintext),
        header,
    })
}

impl core::fmt::Debug for Opened {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "Opened({} bytes, {:?})",
            self.plaintext.len(),
            self.header
        )
    }
}
