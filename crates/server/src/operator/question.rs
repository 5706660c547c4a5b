//! What can be asked, and how it stands in a request.
use std::fmt::Write as _;

use hyper::Uri;
use sealwire_protocol::name::User;

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Question {
    /// How the relay is.
    Stats,
    /// Which users there are.
    Users,
    /// Which devices there are, of one user or of all.
    Devices(Option<User>),
    /// Which mailboxes there are, of one user's devices or of all.
    Mailboxes(Option<User>),
    /// For everything that the relay has ([`crate::backup::back_up`]).
    Backup,
}

/// Why a request is no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoQuestion {
    /// Another path.
    Path,
    /// The path has another query, or what it says is no user.
    Query,
}

impl Question {
    /// Path and query of the request.
    pub(super) fn path(&self) -> String {
        let (path, user) = match self {
            Self::Stats => ("/stats", None),
            Self::Users => ("/users", None),
            Self::Devices(user) => ("/devices", user.as_ref()),
            Self::Mailboxes(user) => ("/mailboxes", user.as_ref()),
            Self::Backup => ("/backup", None),
        };
        let mut path = path.to_owned();
        if let Some(user) = user {
            path.push_str("?user=");
            for byte in user.as_bytes() {
                // RFC 3986 §2.3
                if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                    path.push(char::from(*byte));
                } else {
                    // Writing to a string does not fail.
                    let _ = write!(path, "%{byte:02X}");
                }
            }
        }
        path
    }

    pub(super) fn parse(uri: &Uri) -> Result<Self, NoQuestion> {
        let user = || match uri.query() {
            None => Ok(None),
            Some(query) => query
                .strip_prefix("user=")
                .and_then(decode)
                .and_then(|name| User::from_bytes(&name).ok())
                .map(Some)
                .ok_or(NoQuestion::Query),
        };
        match (uri.path(), uri.query()) {
            ("/stats", None) => Ok(Self::Stats),
            ("/users", None) => Ok(Self::Users),
            ("/backup", None) => Ok(Self::Backup),
            ("/stats" | "/users" | "/backup", Some(_)) => Err(NoQuestion::Query),
            ("/devices", _) => user().map(Self::Devices),
            ("/mailboxes", _) => user().map(Self::Mailboxes),
            _ => Err(NoQuestion::Path),
        }
    }
}

/// RFC 3986 §2.1
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        rest = behind;
        let digits = digits.map(|digit| char::from(digit).to_digit(16));
        let [Some(high), Some(low)] = digits else {
            return None;
        };
        decoded.push(u8::try_from(16 * high + low).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(path: &str) -> Result<Question, NoQuestion> {
        Question::parse(&path.parse().unwrap())
    }

    #[test]
    fn question_is_read_as_it_was_asked_whatever_the_user_is_called() {
        let names = [
            "alice",
            "acme/b c?d=e&f#g%h+i",
            "\u{7528}\u{6237}",
            "~.-_",
            "100%",
        ];
        let users = names.map(|name| Some(User::new(name).unwrap()));
        for user in users.into_iter().chain([None]) {
            for question in [
                Question::Stats,
                Question::Users,
                Question::Backup,
                Question::Devices(user.clone()),
                Question::Mailboxes(user.clone()),
            ] {
                assert_eq!(parse(&question.path()), Ok(question));
            }
        }
    }

    #[test]
    fn what_is_no_question_is_none() {
        for path in ["/", "/Stats", "/stats/", "/devices/alice"] {
            assert_eq!(parse(path), Err(NoQuestion::Path), "{path}");
        }
        for path in [
            "/stats?user=alice",
            "/users?",
            "/devices?",
            "/devices?user=",
            "/devices?user=%",
            "/devices?user=%4",
            "/devices?user=%4g",
            "/devices?user=%00",
            "/devices?user=%ff",
            "/devices?name=alice",
            "/mailboxes?user",
        ] {
            assert_eq!(parse(path), Err(NoQuestion::Query), "{path}");
        }
    }
}
