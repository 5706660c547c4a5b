//! base64url without padding, in its one canonical form (`docs/protocol.md` §1.2, RFC 4648 §5, RFC 7515 §2).
//!
//! Padding, white space, characters outside the alphabet and encodings whose unused low bits are not zero are refused, so
//! that two different texts never stand for the same bytes.

use alloc::{string::String, vec::Vec};

use base64ct::{Base64UrlUnpadded, Encoding};

/// Why a text is not the canonical base64url of what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Base64urlError {
    /// Not base64url at all, padded, or not in canonical form.
    #[error("not canonical base64url without padding; encode it as RFC 7515 §2 says")]
    Invalid,
    /// Canonical, but of another number of bytes than the place calls for.
    #[error("base64url of the wrong number of bytes")]
    Length,
}

/// The number of characters that `bytes` bytes encode to. Saturates at `usize::MAX`.
#[must_use]
pub const fn encoded_len(bytes: usize) -> usize {
    let tail = match bytes % 3 {
        0 => 0,
        rest => rest + 1,
    };
    (bytes / 3).saturating_mul(4).saturating_add(tail)
}

/// Encodes any number of bytes.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// Encodes into the beginning of `out`, without allocating, and returns the text.
///
/// # Errors
/// [`Base64urlError::Length`] if `out` is shorter than [`encoded_len`]`(bytes.len())`.
pub fn encode_into<'o>(bytes: &[u8], out: &'o mut [u8]) -> Result<&'o str, Base64urlError> {
    Base64UrlUnpadded::encode(bytes, out).map_err(|_| Base64urlError::Length)
}

/// Decodes a text of any length; allocates three quarters of it.
///
/// # Errors
/// [`Base64urlError::Invalid`] for anything but the canonical form.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, Base64urlError> {
    let text = core::str::from_utf8(text).map_err(|_| Base64urlError::Invalid)?;
    Base64UrlUnpadded::decode_vec(text).map_err(|_| Base64urlError::Invalid)
}

/// Decodes into the beginning of `out`, without allocating, and returns what was decoded.
///
/// # Errors
/// [`Base64urlError::Invalid`] for anything but the canonical form, [`Base64urlError::Length`] if `out` is too short.
pub fn decode_into<'o>(text: &[u8], out: &'o mut [u8]) -> Result<&'o [u8], Base64urlError> {
    Base64UrlUnpadded::decode(text, out).map_err(|error| match error {
        base64ct::Error::InvalidEncoding => Base64urlError::Invalid,
        base64ct::Error::InvalidLength => Base64urlError::Length,
    })
}

/// Decodes exactly `N` bytes.
///
/// # Errors
/// [`Base64urlError::Invalid`] for anything but the canonical form, [`Base64urlError::Length`] for another number of bytes.
pub fn decode_array<const N: usize>(text: &[u8]) -> Result<[u8; N], Base64urlError> {
    if text.len() != encoded_len(N) {
        return Err(Base64urlError::Length);
    }
    let mut bytes = [0; N];
    decode_into(text, &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::prelude::*;

    use super::*;

    /// RFC 4648 §10, without padding, and RFC 7515 Appendix C.
    const KNOWN: [(&[u8], &str); 8] = [
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg"),
        (b"fooba", "Zm9vYmE"),
        (b"foobar", "Zm9vYmFy"),
        (&[3, 236, 255, 224, 193], "A-z_4ME"),
    ];

    #[test]
    fn known_texts_are_written_and_read() {
        for (bytes, text) in KNOWN {
            assert_eq!(encode(bytes), text);
            assert_eq!(encoded_len(bytes.len()), text.len());
            assert_eq!(decode(text.as_bytes()).as_deref(), Ok(bytes));
        }
    }

    /// docs/protocol.md §1.2
    #[test]
    fn any_form_but_the_canonical_one_is_refused() {
        for text in [
            "Zg==",
            "Zg=",
            "Zm8=",
            "=",
            "Zg ",
            " Zg",
            "Z g",
            "Zg\n",
            "Zm9\tv",
            "A+z/4ME",
            "A+z_4ME",
            "A-z/4ME",
            "Zg.",
            "Z",
            "Zm9vY",
            "Zm9vYmFyZ",
            "Zh",
            "Zi",
            "Z_",
            "Zm9",
            "Zm-",
            "Zm9vYmF",
            "Zgé",
            "\0\0",
            "Zg\0",
        ] {
            assert_eq!(
                decode(text.as_bytes()),
                Err(Base64urlError::Invalid),
                "{text:?}"
            );
            assert_eq!(
                decode_into(text.as_bytes(), &mut [0; 16]),
                Err(Base64urlError::Invalid),
                "{text:?}"
            );
        }
        assert_eq!(decode(&[0x5a, 0xff]), Err(Base64urlError::Invalid));
    }

    /// docs/protocol.md §1.2: of all characters at the end of one or two bytes, only those with zeros in the low bits.
    #[test]
    fn unused_low_bits_that_are_not_zero_are_refused() {
        const ALPHABET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for (prefix, unused) in [(&b"A"[..], 16), (b"AA", 4)] {
            for (value, character) in ALPHABET.iter().enumerate() {
                let text = [prefix, &[*character]].concat();
                assert_eq!(decode(&text).is_ok(), value % unused == 0, "{text:?}");
            }
        }
    }

    /// docs/protocol.md §1.2
    #[test]
    fn another_number_of_bytes_is_refused() {
        assert_eq!(decode_array(b"Zm9v"), Ok(*b"foo"));
        assert_eq!(decode_array::<2>(b"Zm9v"), Err(Base64urlError::Length));
        assert_eq!(decode_array::<4>(b"Zm9v"), Err(Base64urlError::Length));
        assert_eq!(decode_array::<1>(b"Zh"), Err(Base64urlError::Invalid));
        assert_eq!(
            decode_into(b"Zm9v", &mut [0; 2]),
            Err(Base64urlError::Length)
        );
        assert_eq!(
            encode_into(b"foo", &mut [0; 3]),
            Err(Base64urlError::Length)
        );
    }

    proptest! {
        #[test]
        fn bytes_survive_and_the_caller_may_bring_the_buffer(bytes: Vec<u8>) {
            let text = encode(&bytes);
            prop_assert_eq!(decode(text.as_bytes()), Ok(bytes.clone()));
            let mut out = vec![0; encoded_len(bytes.len())];
            prop_assert_eq!(encode_into(&bytes, &mut out), Ok(text.as_str()));
        }

        /// docs/protocol.md §1.2: no two texts stand for the same bytes.
        #[test]
        fn whatever_decodes_is_canonical(text in "[A-Za-z0-9_=+ -]{0,9}") {
            if let Ok(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
