//! Padmé padding: hides all but the coarse length of a content (docs/protocol.md §9.3; Nikitin et al.,
//! *Reducing Metadata Leakage from Encrypted Files and Communication with PURBs*, PETS 2019, §4).
//!
//! A length of `L` bytes leaks only O(log log L) bits and grows by at most 12 %. Padding is checked after the
//! tag, so that it is no oracle; whoever calls [`unpad`] turns its `None` into the one error of decryption.

/// What follows the content and starts the padding.
pub(crate) const MARKER: u8 = 0x80;

/// The Padmé length for `len` bytes: the least number not smaller with few enough significant bits.
/// `None` if it does not fit a `usize`.
#[must_use]
pub fn padme(len: usize) -> Option<usize> {
    let Some(exponent) = len.checked_ilog2().filter(|exponent| *exponent > 0) else {
        return Some(len);
    };
    let mantissa_bits = exponent.ilog2() + 1;
    len.checked_next_multiple_of(1 << (exponent - mantissa_bits))
}

/// The length of a content of `content_len` bytes once padded: Padmé of the content and its marker byte.
/// `None` if it does not fit a `usize`.
#[must_use]
pub fn padded_len(content_len: usize) -> Option<usize> {
    padme(content_len.checked_add(1)?)
}

/// The content of a padded plaintext, or `None` unless its padding is exactly what [`padded_len`] gives (§9.3).
#[must_use]
pub fn unpad(plaintext: &[u8]) -> Option<&[u8]> {
    let last = plaintext.iter().rposition(|byte| *byte != 0)?;
    let (content, padding) = plaintext.split_at_checked(last)?;
    (padding.first() == Some(&MARKER) && padded_len(content.len()) == Some(plaintext.len()))
        .then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// The paper's bound: at most 12 % more, for lengths that are not tiny.
    #[test]
    fn padme_never_shrinks_and_hardly_grows() {
        for len in 0..100_000 {
            let padded = padme(len).unwrap();
            assert!(
                padded >= len && padded * 100 <= len * 112 + 100,
                "{len} to {padded}"
            );
        }
    }

    #[test]
    fn padme_of_a_padme_length_is_itself() {
        for len in 0..100_000 {
            let padded = padme(len).unwrap();
            assert_eq!(padme(padded), Some(padded));
        }
    }

    /// docs/protocol.md §9.3
    #[test]
    fn padme_refuses_what_does_not_fit() {
        assert_eq!(padme(usize::MAX), None);
        assert_eq!(padded_len(usize::MAX), None);
    }

    /// docs/protocol.md §9.3: exactly that padding, no shorter and no longer.
    #[test]
    fn unpad_refuses_every_length_but_the_right_one() {
        for content_len in 0..200 {
            let mut plaintext: Vec<u8> = core::iter::repeat_n(0xff, content_len)
                .chain([MARKER])
                .collect();
            for len in plaintext.len()..300 {
                plaintext.resize(len, 0);
                let right = padded_len(content_len) == Some(len);
                assert_eq!(unpad(&plaintext).is_some(), right, "{content_len} in {len}");
            }
        }
    }

    /// docs/protocol.md §9.3
    #[test]
    fn unpad_refuses_every_other_marker() {
        for marker in (0..=u8::MAX).filter(|marker| *marker != MARKER) {
            assert_eq!(unpad(&[0xff, marker]), None);
        }
        assert_eq!(unpad(&[0xff, MARKER]), Some([0xff].as_slice()));
    }

    /// docs/protocol.md §9.3
    #[test]
    fn unpad_refuses_nothing_and_nothing_but_zeros() {
        for len in 0..64 {
            assert_eq!(unpad(&[0; 64][..len]), None);
        }
    }
}
