//! The cryptography of standard JWE: `ECDH-ES+A256KW` over X25519 with `A256GCM` (RFC 7518 §4.6, §5.3; RFC 8037 §3.2).
//!
//! ```text
//! X25519 ── Concat KDF ── key-encryption key ── RFC 3394 ── content key ── AES-256-GCM ── plaintext
//! ```

use alloc::{format, string::String, vec::Vec};

use aes_kw::{KeyInit as _, KwAes256};
use rand_core::CryptoRng;
use sealwire_protocol::{
    base64url,
    crypto::{AeadKey, Secret, X25519PublicKey, X25519Secret, sha256},
    jwe::{ALG, ENC, ENCRYPTED_KEY_BYTES, IV_BYTES, UnopenedJwe},
    key::Thumbprint,
};
use zeroize::Zeroizing;

use crate::error::{Error, Malformed};

/// Opens a JWE whose form was checked.
///
/// # Errors
/// [`Error::Decrypt`], without detail.
pub(super) fn open(
    secret: &X25519Secret,
    jwe: UnopenedJwe<'_>,
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let shared = secret
        .diffie_hellman(&jwe.ephemeral)
        .map_err(|_| Error::Decrypt)?;
    let wrapping = wrapping_key(&shared, &jwe.party_u, &jwe.party_v);
    let mut content_key = Zeroizing::new([0; 32]);
    wrapper(&wrapping)
        .unwrap_key(&jwe.encrypted_key, content_key.as_mut_slice())
        .map_err(|_| Error::Decrypt)?;
    let mut text = Zeroizing::new(jwe.ciphertext);
    AeadKey::new(Secret::take(&mut content_key))
        .open(&jwe.iv, jwe.aad, &mut text, &jwe.tag)
        .map_err(|_| Error::Decrypt)?;
    Ok(text)
}

/// Seals a JWT to a device's key, `kid` being the device.
///
/// # Errors
/// [`Malformed::Key`] for a key of low order.
pub(super) fn seal(
    recipient: &X25519PublicKey,
    device: Thumbprint,
    jwt: String,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<String, Error> {
    let ephemeral = X25519Secret::generate(rng);
    let shared = ephemeral
        .diffie_hellman(recipient)
        .map_err(|_| Malformed::Key)?;
    let content_key = Secret::random(rng);
    let mut encrypted_key = [0; ENCRYPTED_KEY_BYTES];
    wrapper(&wrapping_key(&shared, &[], &[]))
        .wrap_key(content_key.expose(), &mut encrypted_key)
        .map_err(|_| Error::Decrypt)?;
    let mut iv = [0; IV_BYTES];
    rng.fill_bytes(&mut iv);
    let epk = base64url::encode(ephemeral.public_key().as_bytes());
    let header = format!(
        r#"{{"alg":"{ALG}","enc":"{ENC}","cty":"JWT","kid":"{device}","epk":{{"kty":"OKP","crv":"X25519","x":"{epk}"}}}}"#
    );
    let mut compact = base64url::encode(header.as_bytes());
    let mut text = jwt.into_bytes();
    let tag = AeadKey::new(content_key)
        .seal(&iv, compact.as_bytes(), &mut text)
        .map_err(|_| Error::Decrypt)?;
    for part in [&encrypted_key[..], &iv, &text, &tag] {
        compact.push('.');
        compact.push_str(&base64url::encode(part));
    }
    Ok(compact)
}

fn wrapper(key: &Secret<32>) -> KwAes256 {
    KwAes256::new(key.expose().into())
}

fn wrapping_key(shared: &Secret<32>, party_u: &[u8], party_v: &[u8]) -> Secret<32> {
    Secret::take(&mut concat_kdf(shared.expose(), ALG, party_u, party_v, 256))
}

/// One block of the Concat KDF with SHA-256, which is all that keys of up to 256 bits take (RFC 7518 §4.6.2).
fn concat_kdf(
    z: &[u8; 32],
    algorithm: &str,
    party_u: &[u8],
    party_v: &[u8],
    bits: u32,
) -> [u8; 32] {
    // Each was bounded when it was read.
    let length = |data: &[u8]| u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    sha256(&[
        &1u32.to_be_bytes(),
        z,
        &length(algorithm.as_bytes()),
        algorithm.as_bytes(),
        &length(party_u),
        party_u,
        &length(party_v),
        party_v,
        &bits.to_be_bytes(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7518 Appendix C, whose key has 128 bits: the first half of the block.
    #[test]
    fn concat_kdf_gives_the_key_of_rfc_7518_appendix_c() {
        let z = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49,
            110, 163, 218, 128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        let key = concat_kdf(&z, "A128GCM", b"Alice", b"Bob", 128);
        assert_eq!(base64url::encode(&key[..16]), "VqqN6vgjbSBcIijNcacQGg");
    }

    /// RFC 3394 §4.6
    #[test]
    fn key_is_wrapped_as_in_rfc_3394_4_6() {
        let mut wrapping = [0; 32];
        for (byte, number) in wrapping.iter_mut().zip(0..) {
            *byte = number;
        }
        let wrapper = wrapper(&Secret::take(&mut wrapping));
        let key: [u8; 32] = [
            0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd,
            0xee, 0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        ];
        let wrapped = [
            0x28, 0xc9, 0xf4, 0x04, 0xc4, 0xb8, 0x10, 0xf4, 0xcb, 0xcc, 0xb3, 0x5c, 0xfb, 0x87,
            0xf8, 0x26, 0x3f, 0x57, 0x86, 0xe2, 0xd8, 0x0e, 0xd3, 0x26, 0xcb, 0xc7, 0xf0, 0xe7,
            0x1a, 0x99, 0xf4, 0x3b, 0xfb, 0x98, 0x8b, 0x9b, 0x7a, 0x02, 0xdd, 0x21,
        ];
        let mut out = [0; 40];
        assert_eq!(wrapper.wrap_key(&key, &mut out), Ok(&wrapped[..]));
        let mut back = [0; 32];
        assert_eq!(wrapper.unwrap_key(&wrapped, &mut back), Ok(&key[..]));
        for byte in 0..40 {
            let mut damaged = wrapped;
            damaged[byte] ^= 1;
            assert!(wrapper.unwrap_key(&damaged, &mut back).is_err(), "{byte}");
        }
    }
}
