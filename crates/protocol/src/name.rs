//! The names of who issues and who writes: [`Issuer`], [`User`] and [`Tenant`] (`docs/protocol.md` §1.2, §5.7).

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
pub(crate) fn checked(name: &str) -> Result<&str, NameError> {
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

name! {
    /// Whose users may see each other and nobody else: all that begin with it and a slash (`docs/protocol.md` §5.7).
    Tenant
}

impl Tenant {
    /// Whether `user` is of this tenant: `T/` and at least one byte more.
    #[must_use]
    pub fn includes(&self, user: &User) -> bool {
        let rest = user.as_str().strip_prefix(self.as_str());
        rest.and_then(|rest| rest.strip_prefix('/'))
            .is_some_and(|rest| !rest.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_1_to_255_bytes_are_taken_as_they_are() {
        for name in [
            "a",
            "alice@example.com",
            "Zoë",
            "https://issuer.example/",
            " ",
            "😀",
            &"x".repeat(255),
        ] {
            assert_eq!(User::new(name).unwrap().as_str(), name);
            assert_eq!(
                Issuer::from_bytes(name.as_bytes()).unwrap().as_bytes(),
                name.as_bytes()
            );
        }
        // No normalisation: two spellings are two users.
        assert_ne!(User::new("e\u{301}"), User::new("\u{e9}"));
    }

    /// docs/protocol.md §1.2
    #[test]
    fn name_that_is_empty_or_longer_than_255_bytes_is_refused() {
        assert_eq!(User::new(""), Err(NameError::Empty));
        assert_eq!(Issuer::new(&"x".repeat(256)), Err(NameError::TooLong));
        assert_eq!(User::new(&"é".repeat(128)), Err(NameError::TooLong));
        assert_eq!(User::from_bytes(&[0xff; 256]), Err(NameError::TooLong));
    }

    /// docs/protocol.md §1.2
    #[test]
    fn name_with_a_control_character_is_refused() {
        for control in (0..0x20).chain(0x7f..0xa0) {
            let name: alloc::string::String = ['a', char::from_u32(control).unwrap()]
                .into_iter()
                .collect();
            assert_eq!(
                User::new(&name),
                Err(NameError::ControlCharacter),
                "{control:x}"
            );
        }
        assert!(User::new("\u{a0}\u{20}\u{7e}").is_ok());
    }

    /// docs/protocol.md §1.2
    #[test]
    fn name_that_is_not_utf_8_is_refused() {
        for name in [&b"\xff"[..], b"a\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82"] {
            assert_eq!(User::from_bytes(name), Err(NameError::NotUtf8));
        }
    }
}
