//! A strict reader for the JSON (RFC 8259) in tokens: one object, no duplicate members, bounded (`docs/protocol.md` §2.1, 3).
//!
//! General-purpose readers let the last of two members win and turn `1.0` into `1`. Both let two implementations read one
//! token differently, so the tree here refuses the first and keeps the second apart: [`Value::Integer`] is written in plain
//! digits, everything else is [`Value::OtherNumber`].

use alloc::{string::String, vec::Vec};

/// Why bytes are not acceptable JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// Not UTF-8.
    #[error("the JSON is not UTF-8")]
    NotUtf8,
    /// Begins with a byte order mark.
    #[error("the JSON begins with a byte order mark")]
    ByteOrderMark,
    /// Not a JSON object where one has to be.
    #[error("the JSON is not an object")]
    NotAnObject,
    /// Not JSON as RFC 8259 defines it, including input that ends early and unpaired surrogates.
    #[error("the JSON is malformed")]
    Malformed,
    /// Something other than white space follows the object.
    #[error("something follows the JSON object")]
    Trailing,
    /// Two members of one object have the same name.
    #[error("a JSON object has two members of the same name")]
    DuplicateMember,
    /// Nested deeper than 8.
    #[error("the JSON is nested deeper than 8")]
    TooDeep,
    /// More than 64 members in an object.
    #[error("a JSON object has more than 64 members")]
    TooManyMembers,
    /// More than 256 items in an array.
    #[error("a JSON array has more than 256 items")]
    TooManyItems,
}

/// One JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number written in digits only, up to 2^64−1.
    Integer(u64),
    /// Any other number: negative, with a fraction or an exponent, or too large. Its value is not kept.
    OtherNumber,
    /// A string, its escapes resolved.
    String(String),
    /// An array of at most 256 items.
    Array(Vec<Value>),
    /// An object of at most 64 members.
    Object(Object),
}

/// A JSON object: at most 64 members with distinct names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    members: Vec<(String, Value)>,
}

impl Object {
    /// Reads exactly one object, with nothing but white space around it.
    ///
    /// The tree takes at most about 50 times the memory of `json`, whose length the caller bounds.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1, 3 is broken first.
    pub fn parse(json: &[u8]) -> Result<Self, JsonError> {
        let _ = json;
        todo!()
    }

    /// The value of the member called `name`.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// All members, in the order in which they were written.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}
