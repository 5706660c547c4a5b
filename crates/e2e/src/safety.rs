//! Safety numbers: two people compare what their devices believe about each other (docs/protocol.md §11).
//!
//! ```text
//!  issuer, user, thumbprints ──> Side ─┐
//!                                      ├─> SafetyNumber ──> 12 groups of 5 digits, or a QR code's text
//!  issuer, user, thumbprints ──> Side ─┘
//! ```
//! Both ends compute the same number whoever's side is given first. It changes with every device that comes or
//! goes; remembering that a number was compared is left to the store.

use alloc::{string::String, vec::Vec};
use core::fmt;

use sealwire_protocol::base64url;
use sealwire_protocol::crypto::sha256;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits::MAX_DEVICES;
use sealwire_protocol::name::{Issuer, User};

const LABEL: &[u8] = b"sealwire/1 safety number";
const QR_PREFIX: &str = "sealwire-verify:1:";
const SIDE_LEN: usize = 32;
const GROUPS_PER_SIDE: usize = 6;

/// What one user's devices amount to: 32 bytes, public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Side([u8; SIDE_LEN]);

impl Side {
    /// The side of `user`, with the 1 to 16 distinct devices that the issuer attests for them, in any order.
    ///
    /// # Errors
    /// [`SideError`] if there is no device, one is there twice, or there are too many.
    pub fn new(issuer: &Issuer, user: &User, devices: &[Thumbprint]) -> Result<Self, SideError> {
        if devices.is_empty() || devices.len() > MAX_DEVICES {
            return Err(SideError::Count);
        }
        let mut devices: Vec<&[u8]> = devices
            .iter()
            .map(|device| device.as_bytes().as_slice())
            .collect();
        devices.sort_unstable();
        if !devices.is_sorted_by(|one, next| one < next) {
            return Err(SideError::Duplicate);
        }
        let issuer_len = name_len(issuer.as_bytes());
        let user_len = name_len(user.as_bytes());
        let mut parts = Vec::with_capacity(5 + devices.len());
        parts.extend([
            LABEL,
            &issuer_len,
            issuer.as_bytes(),
            &user_len,
            user.as_bytes(),
        ]);
        parts.extend(devices);
        Ok(Self(sha256(&parts)))
    }

    /// Six groups of five digits (docs/protocol.md §11).
    fn groups(&self) -> impl Iterator<Item = u64> {
        self.0.chunks_exact(5).take(GROUPS_PER_SIDE).map(|group| {
            group
                .iter()
                .fold(0, |number, byte| number << 8 | u64::from(*byte))
                % 100_000
        })
    }
}

/// A name has at most 255 bytes (docs/protocol.md §1.2), so the lowest byte of its length is all of it.
fn name_len(name: &[u8]) -> [u8; 1] {
    let [.., len] = name.len().to_be_bytes();
    [len]
}

/// The number of two sides. Its text ([`Display`](fmt::Display)) is 60 digits in 12 groups with a space between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SafetyNumber {
    smaller: Side,
    larger: Side,
}

impl SafetyNumber {
    /// The number of two sides, given in either order.
    #[must_use]
    pub fn new(one: Side, other: Side) -> Self {
        Self {
            smaller: one.min(other),
            larger: one.max(other),
        }
    }

    /// The text of the QR code, in ASCII (docs/protocol.md §11).
    #[must_use]
    pub fn qr_text(&self) -> String {
        let mut sides = [0; 2 * SIDE_LEN];
        let (smaller, larger) = sides.split_at_mut(SIDE_LEN);
        smaller.copy_from_slice(&self.smaller.0);
        larger.copy_from_slice(&self.larger.0);
        let mut text = String::from(QR_PREFIX);
        text.push_str(&base64url::encode(&sides));
        text
    }

    /// Reads the text of a QR code. Compare the result with the number computed here, or use [`SafetyNumber::verify_qr`].
    ///
    /// # Errors
    /// [`QrError`] says why the text is not one of ours.
    pub fn from_qr_text(text: &str) -> Result<Self, QrError> {
        let sides = text.strip_prefix(QR_PREFIX).ok_or(QrError::Prefix)?;
        let sides: [u8; 2 * SIDE_LEN] =
            base64url::decode_array(sides.as_bytes()).map_err(|_| QrError::Sides)?;
        let [smaller, larger] = *sides.as_chunks::<SIDE_LEN>().0 else {
            return Err(QrError::Sides);
        };
        if smaller > larger {
            return Err(QrError::Order);
        }
        Ok(Self {
            smaller: Side(smaller),
            larger: Side(larger),
        })
    }

    /// Whether the scanned text shows this number.
    ///
    /// # Errors
    /// [`QrError::Different`] if it shows another one: the two devices do not see the same keys. The others say why it
    /// shows none.
    pub fn verify_qr(&self, text: &str) -> Result<(), QrError> {
        if Self::from_qr_text(text)? == *self {
            Ok(())
        } else {
            Err(QrError::Different)
        }
    }
}

impl fmt::Display for SafetyNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, group) in self
            .smaller
            .groups()
            .chain(self.larger.groups())
            .enumerate()
        {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{group:05}")?;
        }
        Ok(())
    }
}

/// Why devices do not make a side: the caller is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SideError {
    /// None, or more than 16.
    #[error("a safety number is of 1 to 16 devices")]
    Count,
    /// One device is there twice.
    #[error("a device is there twice: give each once")]
    Duplicate,
}

/// Why the text of a QR code does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QrError {
    /// Not the text of a safety number of this version.
    #[error("the code is not a Sealwire safety number: show the one that `verify` prints")]
    Prefix,
    /// Not canonical base64url of 64 bytes.
    #[error("the code is a damaged safety number: scan it again")]
    Sides,
    /// The larger side comes first.
    #[error("the code is a damaged safety number: its sides are not in order")]
    Order,
    /// A well-formed code of other keys.
    #[error("the safety numbers differ: do not trust these devices before you know why")]
    Different,
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn side(user: &str, devices: &[u8]) -> Result<Side, SideError> {
        let devices: Vec<Thumbprint> = devices
            .iter()
            .map(|device| Thumbprint::from_bytes([*device; 32]))
            .collect();
        Side::new(
            &Issuer::new("https://issuer.example").unwrap(),
            &User::new(user).unwrap(),
            &devices,
        )
    }

    /// docs/protocol.md §11
    #[test]
    fn number_does_not_depend_on_order() {
        let (alice, bob) = (
            side("alice", &[1, 2, 3]).unwrap(),
            side("bob", &[4]).unwrap(),
        );
        let number = SafetyNumber::new(alice, bob);
        assert_eq!(
            number,
            SafetyNumber::new(bob, side("alice", &[3, 1, 2]).unwrap())
        );
        assert_eq!(number.to_string().len(), 12 * 5 + 11);
    }

    /// docs/protocol.md §11
    #[test]
    fn number_changes_with_every_device_and_name() {
        let bob = side("bob", &[4]).unwrap();
        let number = SafetyNumber::new(side("alice", &[1, 2]).unwrap(), bob);
        for (user, devices) in [
            ("alice", [1].as_slice()),
            ("alice", &[2]),
            ("alice", &[1, 3]),
            ("alice", &[1, 2, 3]),
            ("alicf", &[1, 2]),
        ] {
            let other = SafetyNumber::new(side(user, devices).unwrap(), bob);
            assert_ne!(other.to_string(), number.to_string());
            assert_eq!(number.verify_qr(&other.qr_text()), Err(QrError::Different));
        }
    }

    /// docs/protocol.md §12
    #[test]
    fn side_without_devices_or_with_too_many_is_refused() {
        assert_eq!(side("alice", &[]), Err(SideError::Count));
        assert_eq!(
            side("alice", &(0..17).collect::<Vec<u8>>()),
            Err(SideError::Count)
        );
        assert!(side("alice", &(0..16).collect::<Vec<u8>>()).is_ok());
    }

    /// docs/protocol.md §11
    #[test]
    fn side_with_a_device_twice_is_refused() {
        assert_eq!(side("alice", &[1, 2, 1]), Err(SideError::Duplicate));
    }

    /// docs/protocol.md §11: no character may change, be missing or follow.
    #[test]
    fn damaged_qr_text_never_verifies() {
        let number = SafetyNumber::new(side("alice", &[1]).unwrap(), side("bob", &[2]).unwrap());
        let text = number.qr_text();
        for at in 0..text.len() {
            for byte in [b'A', b'z', b'=', b' ', 0] {
                let mut damaged = text.clone().into_bytes();
                if damaged[at] != byte {
                    damaged[at] = byte;
                    assert!(
                        number
                            .verify_qr(core::str::from_utf8(&damaged).unwrap())
                            .is_err(),
                        "{at}"
                    );
                }
            }
            assert!(number.verify_qr(&text[..at]).is_err());
        }
        assert_eq!(number.verify_qr(&(text + "A")), Err(QrError::Sides));
    }
}
