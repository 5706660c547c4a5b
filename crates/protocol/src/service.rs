//! The names of services, and patterns of them in tokens (`docs/protocol.md` §17.1, §5.5).
//!
//! ```text
//! name     = segment *( "." segment )        segment = 1*( A-Z / a-z / 0-9 / "_" / "-" )        at most 255 bytes
//! pattern  = name / prefix "*"
//! ```

use alloc::boxed::Box;
use core::fmt;

use crate::limits::MAX_SERVICE_NAME_BYTES;

/// Why a text is not the name of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceNameError {
    /// More than 255 bytes.
    #[error("the name of a service is longer than 255 bytes")]
    TooLong,
    /// A character other than an ASCII letter or digit, `_`, `-` or `.`.
    #[error("the name of a service has ASCII letters, digits, '_', '-' and '.' only")]
    Character,
    /// Empty, or a dot at an end or beside another.
    #[error("the name of a service is made of parts that are not empty, with a dot between them")]
    EmptyPart,
}

/// Enforces `docs/protocol.md` §17.1.
pub(crate) fn checked(name: &str) -> Result<&str, ServiceNameError> {
    spelled(name)?;
    if name.split('.').any(str::is_empty) {
        return Err(ServiceNameError::EmptyPart);
    }
    Ok(name)
}

/// Whether it has only what a name, or the beginning of one, may have.
fn spelled(text: &str) -> Result<(), ServiceNameError> {
    if text.len() > MAX_SERVICE_NAME_BYTES {
        return Err(ServiceNameError::TooLong);
    }
    if !text.bytes().all(is_name_byte) {
        return Err(ServiceNameError::Character);
    }
    Ok(())
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// The name of a service. Names are compared byte for byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Box<str>);

impl ServiceName {
    /// Takes 1 to 255 bytes of the form of `docs/protocol.md` §17.1.
    ///
    /// # Errors
    /// Says which rule is broken.
    pub fn new(name: &str) -> Result<Self, ServiceNameError> {
        checked(name).map(|name| Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl core::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl core::str::FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(name: &str) -> Result<Self, ServiceNameError> {
        Self::new(name)
    }
}

/// Services that a token allows to be called (`docs/protocol.md` §5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePattern {
    /// This service.
    Service(ServiceName),
    /// Every service whose name begins with this; the empty prefix is all of them.
    Prefix(Box<str>),
}

impl ServicePattern {
    /// Reads a name, or the beginning of one followed by `*`.
    ///
    /// # Errors
    /// Says which rule of names is broken.
    pub fn new(pattern: &str) -> Result<Self, ServiceNameError> {
        match pattern.strip_suffix('*') {
            None => ServiceName::new(pattern).map(Self::Service),
            Some(prefix) => spelled(prefix).map(|()| Self::Prefix(prefix.into())),
        }
    }

    /// Whether the service is one of them.
    #[must_use]
    pub fn includes(&self, service: &str) -> bool {
        match self {
            Self::Service(listed) => listed.as_str() == service,
            Self::Prefix(prefix) => service.starts_with(&**prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    /// docs/protocol.md §17.1
    #[test]
    fn names_of_the_form_are_taken_as_they_are() {
        let longest = "x".repeat(255);
        for name in [
            "a",
            "orders.create",
            "Orders.v2.create_all",
            "-",
            "_.0",
            &longest,
        ] {
            assert_eq!(ServiceName::new(name).unwrap().as_str(), name);
        }
        assert_ne!(ServiceName::new("a"), ServiceName::new("A"));
    }

    /// docs/protocol.md §17.1
    #[test]
    fn what_is_not_of_the_form_is_no_name() {
        let too_long = "x".repeat(256);
        for (name, error) in [
            ("", ServiceNameError::EmptyPart),
            (".", ServiceNameError::EmptyPart),
            (".a", ServiceNameError::EmptyPart),
            ("a.", ServiceNameError::EmptyPart),
            ("a..b", ServiceNameError::EmptyPart),
            ("a b", ServiceNameError::Character),
            ("a/b", ServiceNameError::Character),
            ("a*", ServiceNameError::Character),
            ("a\n", ServiceNameError::Character),
            ("a\0b", ServiceNameError::Character),
            ("é", ServiceNameError::Character),
            ("a:b", ServiceNameError::Character),
            (&too_long, ServiceNameError::TooLong),
        ] {
            assert_eq!(ServiceName::new(name), Err(error), "{name:?}");
        }
    }

    /// docs/protocol.md §5.5
    #[test]
    fn pattern_is_a_name_or_the_beginning_of_one() {
        let pattern = |text| ServicePattern::new(text).unwrap();
        assert!(pattern("orders.create").includes("orders.create"));
        for other in [
            "orders",
            "orders.created",
            "Orders.create",
            "x.orders.create",
        ] {
            assert!(!pattern("orders.create").includes(other), "{other}");
        }
        assert!(pattern("orders.*").includes("orders.create"));
        assert!(pattern("ord*").includes("orders"));
        assert!(pattern("*").includes("a"));
        for other in ["orders", "order.create", "xorders.create", "Orders.create"] {
            assert!(!pattern("orders.*").includes(other), "{other}");
        }
        let longest = format!("{}*", "x".repeat(255));
        assert!(ServicePattern::new(&longest).is_ok());
        let too_long = format!("{}*", "x".repeat(256));
        for (text, error) in [
            ("", ServiceNameError::EmptyPart),
            ("a..b", ServiceNameError::EmptyPart),
            ("a**", ServiceNameError::Character),
            ("*a", ServiceNameError::Character),
            ("a b*", ServiceNameError::Character),
            (&too_long, ServiceNameError::TooLong),
        ] {
            assert_eq!(ServicePattern::new(text), Err(error), "{text:?}");
        }
    }
}
