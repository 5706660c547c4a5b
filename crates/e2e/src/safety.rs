//! Safety numbers: two people compare what their devices believe about each other (docs/protocol.md §11).
//!
//! ```text
//!  issuer, user, thumbprints ──> Side ─┐
//!                                      ├─> SafetyNumber ──> 12 groups of 5 digits, or a QR code's text
//!  issuer, user, thumbprints ──> Side ─┘
//! ```
//! Both ends compute the same number whoever's side is given first. It changes with every device that comes or
//! goes; remembering that a number was compared is left to the store.

/// What one user's devices amount to: 32 bytes, public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side([u8; 32]);

/// The number of two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafetyNumber {
    smaller: Side,
    larger: Side,
}
