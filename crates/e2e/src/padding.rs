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
    (padding.first() == Some(&MARKER) && padded_len(content.len()) == Some(plaintext.len())).then_some(content)
}
