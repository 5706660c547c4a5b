//! A strict reader for the JSON (RFC 8259) in tokens: one object, no duplicate members, bounded (`docs/protocol.md` §2.1, 3).
//!
//! General-purpose readers let the last of two members win and turn `1.0` into `1`. Both let two implementations read one
//! token differently, so the tree here refuses the first and keeps the second apart: [`Value::Integer`] is written in plain
//! digits, everything else is [`Value::OtherNumber`].

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::limits::{MAX_JSON_DEPTH, MAX_JSON_ITEMS, MAX_JSON_MEMBERS};

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
#[derive(Clone, PartialEq, Eq)]
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
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Object {
    members: Vec<(String, Value)>,
}

/// Shows the type and not the value: what a token says may not be logged.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bool(_) => f.write_str("Bool(..)"),
            Self::Integer(_) => f.write_str("Integer(..)"),
            Self::OtherNumber => f.write_str("OtherNumber"),
            Self::String(_) => f.write_str("String(..)"),
            Self::Array(items) => write!(f, "Array({} items)", items.len()),
            Self::Object(object) => object.fmt(f),
        }
    }
}

/// Shows how many members there are, and none of them.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} members)", self.members.len())
    }
}

impl Object {
    /// Reads exactly one object, with nothing but white space around it.
    ///
    /// The tree takes at most about 80 times the memory of `json`, whose length the caller bounds, in small pieces.
    ///
    /// # Errors
    /// Says which rule of `docs/protocol.md` §2.1, 3 is broken first.
    pub fn parse(json: &[u8]) -> Result<Self, JsonError> {
        let text = core::str::from_utf8(json).map_err(|_| JsonError::NotUtf8)?;
        if text.starts_with('\u{feff}') {
            return Err(JsonError::ByteOrderMark);
        }
        let mut reader = Reader { rest: text };
        reader.skip_white_space();
        if !reader.rest.starts_with('{') {
            return Err(JsonError::NotAnObject);
        }
        let object = reader.object(1)?;
        reader.skip_white_space();
        if reader.rest.is_empty() {
            Ok(object)
        } else {
            Err(JsonError::Trailing)
        }
    }

    /// The value of the member called `name`.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Value> {
        self.members
            .iter()
            .find(|(member, _)| member == name)
            .map(|(_, value)| value)
    }

    /// All members, in the order in which they were written.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members
            .iter()
            .map(|(name, value)| (name.as_str(), value))
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

/// What is left to read. It recurses at most [`MAX_JSON_DEPTH`] deep.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_white_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), JsonError> {
        if self.take(token) {
            Ok(())
        } else {
            Err(JsonError::Malformed)
        }
    }

    /// Takes everything up to the first character that fits, or all of it.
    fn take_until(&mut self, end: impl FnMut(char) -> bool) -> &'a str {
        let length = self.rest.find(end).unwrap_or(self.rest.len());
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        match self.rest.bytes().next() {
            Some(b'{') => self.object(depth).map(Value::Object),
            Some(b'[') => self.array(depth).map(Value::Array),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ if self.take("null") => Ok(Value::Null),
            _ if self.take("true") => Ok(Value::Bool(true)),
            _ if self.take("false") => Ok(Value::Bool(false)),
            _ => Err(JsonError::Malformed),
        }
    }

    /// `depth` counts this object: the outermost is at 1.
    fn object(&mut self, depth: usize) -> Result<Object, JsonError> {
        if depth > MAX_JSON_DEPTH {
            return Err(JsonError::TooDeep);
        }
        let mut object = Object::default();
        self.expect("{")?;
        self.skip_white_space();
        if self.take("}") {
            return Ok(object);
        }
        loop {
            if object.len() == MAX_JSON_MEMBERS {
                return Err(JsonError::TooManyMembers);
            }
            self.skip_white_space();
            let name = self.string()?;
            // Compared without escapes: "ex\u0070" is "exp".
            if object.member(&name).is_some() {
                return Err(JsonError::DuplicateMember);
            }
            self.skip_white_space();
            self.expect(":")?;
            self.skip_white_space();
            let value = self.value(depth + 1)?;
            object.members.push((name, value));
            self.skip_white_space();
            if self.take("}") {
                return Ok(object);
            }
            self.expect(",")?;
        }
    }

    fn array(&mut self, depth: usize) -> Result<Vec<Value>, JsonError> {
        if depth > MAX_JSON_DEPTH {
            return Err(JsonError::TooDeep);
        }
        let mut items = Vec::new();
        self.expect("[")?;
        self.skip_white_space();
        if self.take("]") {
            return Ok(items);
        }
        loop {
            if items.len() == MAX_JSON_ITEMS {
                return Err(JsonError::TooManyItems);
            }
            self.skip_white_space();
            items.push(self.value(depth + 1)?);
            self.skip_white_space();
            if self.take("]") {
                return Ok(items);
            }
            self.expect(",")?;
        }
    }

    /// RFC 8259 §7.
    fn string(&mut self) -> Result<String, JsonError> {
        self.expect("\"")?;
        let mut string = String::new();
        loop {
            string.push_str(self.take_until(|c| matches!(c, '"' | '\\' | '\0'..='\u{1f}')));
            if self.take("\"") {
                return Ok(string);
            }
            // A bare control character, or the end of the input, is not an escape.
            self.expect("\\")?;
            string.push(self.escaped()?);
        }
    }

    /// What follows a backslash.
    fn escaped(&mut self) -> Result<char, JsonError> {
        let mut rest = self.rest.chars();
        let escape = rest.next().ok_or(JsonError::Malformed)?;
        self.rest = rest.as_str();
        Ok(match escape {
            '"' | '\\' | '/' => escape,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => match self.code_unit()? {
                high @ 0xd800..=0xdbff => {
                    self.expect("\\u")?;
                    let low = self.code_unit()?;
                    char::decode_utf16([high, low])
                        .next()
                        .and_then(Result::ok)
                        .ok_or(JsonError::Malformed)?
                }
                // A low surrogate by itself is not a character.
                unit => char::from_u32(unit.into()).ok_or(JsonError::Malformed)?,
            },
            _ => return Err(JsonError::Malformed),
        })
    }

    /// The four digits of a `\u` escape.
    fn code_unit(&mut self) -> Result<u16, JsonError> {
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(JsonError::Malformed)?;
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(JsonError::Malformed);
        }
        self.rest = rest;
        u16::from_str_radix(digits, 16).map_err(|_| JsonError::Malformed)
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let number = self.take_until(|c| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        if !is_number(number) {
            return Err(JsonError::Malformed);
        }
        // All that is left beside digits makes this fail, and so does 2^64.
        Ok(number.parse().map_or(Value::OtherNumber, Value::Integer))
    }
}

/// RFC 8259 §6: `[ minus ] int [ frac ] [ exp ]`.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) => (text, exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        None => (text, "0"),
    };
    let (integer, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(integer)
        && (integer == "0" || !integer.starts_with('0'))
        && digits(fraction)
        && digits(exponent)
}

#[cfg(test)]
mod tests;
