//! The names of who issues and who writes: [`Issuer`] and [`User`] (`docs/protocol.md` §1.2).

use alloc::boxed::Box;
use core::fmt;

use crate::limits::MAX_NAME_BYTES;

/// Why a text is not the name of a user or an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// No bytes at all.
    #[error("the name is empty; it needs 1 to 255 bytes")]
    Empty,
    /// More than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// Contains a control character, U+0000–U+001F or U+007F–U+009F.
    #[error("the name contains a control character")]
    ControlCharacter,
}

/// Enforces `docs/protocol.md` §1.2.
fn checked(name: &str) -> Result<&str, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong);
    }
    // Unicode's category Cc is exactly the two ranges of §1.2.
    if name.chars().any(char::is_control) {
        return Err(NameError::ControlCharacter);
    }
    Ok(name)
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Takes 1 to 255 bytes of text without control characters (`docs/protocol.md` §1.2).
            ///
            /// # Errors
            /// Says which of these rules is broken.
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked(name).map(|name| Self(name.into()))
            }

            /// Like [`Self::new`], from bytes that must be UTF-8.
            ///
            /// # Errors
            /// Says which rule is broken.
            pub fn from_bytes(name: &[u8]) -> Result<Self, NameError> {
                if name.len() > MAX_NAME_BYTES {
                    return Err(NameError::TooLong);
                }
                Self::new(core::str::from_utf8(name).map_err(|_| NameError::NotUtf8)?)
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as UTF-8, 1 to 255 bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl core::str::FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }
    };
}

name! {
    /// Who issued a token: its `iss`.
    Issuer
}
name! {
    /// Whom a token names within its issuer: its `sub`.
    User
}
