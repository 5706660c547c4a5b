//! What is revoked, as it is in memory, and as a line of a file.
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits::MAX_NAME_BYTES;
use sealwire_protocol::name::User;
use sealwire_protocol::token::TokenClaims;
use serde::{Deserialize, Serialize};

/// Bytes of a line.
const MAX_LINE_BYTES: usize = 2_048;

/// One thing that does not count any more. As a line of the file, it is a JSON object with the members named here, and perhaps a `note` of
/// the operator's.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revocation {
    /// `{"token": "…"}`: the token with this `jti`, 1 to 255 bytes, and cards that are attested by it.
    Token(String),
    /// `{"device": "…"}`: a device, by the thumbprint of its key. If the relay knows it, by its card or its enrolment, it is removed for good, as if its user
    /// had done it; and it is not let in as long as the line is there.
    Device(Thumbprint),
    /// `{"user": "…"}`: a user. All devices of theirs that have a card are removed, and no token of the user counts as long as the line is there.
    User(User),
    /// `{"issued_before": 1800000000}`, with `"user": "…"` only that user's: tokens whose `iat` is before that, in seconds since 1970, and cards that are
    /// attested by them. The devices go on with a new token.
    IssuedBefore {
        /// In seconds since 1970.
        before: u64,
        /// Whose; everybody's if it is `None`.
        user: Option<User>,
    },
}

/// Shows no person: it may be logged.
impl fmt::Debug for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Device(device) => write!(f, "Device({device})"),
            Self::User(_) => f.write_str("User(..)"),
            Self::IssuedBefore { before, user } => {
                let of = if user.is_some() { " of a user" } else { "" };
                write!(f, "IssuedBefore({before}{of})")
            }
        }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issued_before: Option<u64>,
    #[serde(default, skip_serializing)]
    #[expect(dead_code, reason = "for people: it may be there, and nobody reads it")]
    note: Option<serde::de::IgnoredAny>,
}

impl Revocation {
    /// The line of the file, without its end.
    pub(super) fn to_line(&self) -> String {
        let line = match self {
            Self::Token(id) => Line {
                token: Some(id.clone()),
                ..Line::default()
            },
            Self::Device(device) => Line {
                device: Some(device.to_string()),
                ..Line::default()
            },
            Self::User(user) => Line {
                user: Some(user.as_str().to_owned()),
                ..Line::default()
            },
            Self::IssuedBefore { before, user } => Line {
                user: user.as_ref().map(|user| user.as_str().to_owned()),
                issued_before: Some(*before),
                ..Line::default()
            },
        };
        // Texts and numbers, and no map with other keys: there is nothing that could fail.
        serde_json::to_string(&line).unwrap_or_default()
    }

    fn from_line(line: &[u8]) -> Result<Self, String> {
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("it is longer than {MAX_LINE_BYTES} bytes"));
        }
        let line: Line = serde_json::from_slice(line).map_err(|error| in_line(&error))?;
        let user = |user: String| User::new(&user).map_err(|error| format!("user: {error}"));
        match (line.token, line.device, line.user, line.issued_before) {
            (Some(id), None, None, None) => {
                if (1..=MAX_NAME_BYTES).contains(&id.len()) {
                    Ok(Self::Token(id))
                } else {
                    Err(format!("token: a jti has 1 to {MAX_NAME_BYTES} bytes"))
                }
            }
            (None, Some(device), None, None) => match device.parse() {
                Ok(device) => Ok(Self::Device(device)),
                Err(_) => Err("device: a thumbprint has 43 characters of base64url".to_owned()),
            },
            (None, None, Some(name), None) => user(name).map(Self::User),
            (None, None, name, Some(before)) => Ok(Self::IssuedBefore {
                before,
                user: name.map(user).transpose()?,
            }),
            (_, _, _, _) => Err(
                "it has to have one of token, device, user and issued_before, or user and issued_before"
                    .to_owned(),
            ),
        }
    }
}

/// What is wrong with a line whose number is said elsewhere.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line ") {
        Some((what, _)) => format!("{what}, column {}", error.column()),
        None => text,
    }
}

/// Everything that is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct List {
    tokens: HashSet<Box<str>>,
    pub(super) devices: BTreeSet<Thumbprint>,
    users: HashSet<Box<str>>,
    /// Of everybody.
    before: u64,
    before_of: HashMap<Box<str>, u64>,
}

impl List {
    /// The lines of a file, and the number, from 1, of the first that is none, with what is wrong with it.
    pub(super) fn read(bytes: &[u8]) -> (Self, Option<(usize, String)>) {
        let (mut list, mut bad) = (Self::default(), None);
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            match Revocation::from_line(line) {
                Ok(revocation) => list.add(revocation),
                Err(what) => {
                    bad.get_or_insert((number, what));
                }
            }
        }
        (list, bad)
    }

    pub(super) fn add(&mut self, revocation: Revocation) {
        match revocation {
            Revocation::Token(id) => {
                self.tokens.insert(id.into());
            }
            Revocation::Device(device) => {
                self.devices.insert(device);
            }
            Revocation::User(user) => {
                self.users.insert(user.as_str().into());
            }
            Revocation::IssuedBefore { before, user: None } => {
                self.before = self.before.max(before);
            }
            Revocation::IssuedBefore {
                before,
                user: Some(user),
            } => {
                let known = self.before_of.entry(user.as_str().into()).or_default();
                *known = before.max(*known);
            }
        }
    }

    /// Everything that is revoked by either.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.tokens.extend(other.tokens.iter().cloned());
        self.devices.extend(&other.devices);
        self.users.extend(other.users.iter().cloned());
        self.before = self.before.max(other.before);
        for (user, before) in &other.before_of {
            let known = self.before_of.entry(user.clone()).or_default();
            *known = (*before).max(*known);
        }
        self
    }

    /// How many lines it stands for.
    pub(super) fn len(&self) -> usize {
        let everybody = usize::from(self.before > 0);
        self.tokens.len() + self.devices.len() + self.users.len() + self.before_of.len() + everybody
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a token, or an attestation, is revoked.
    pub(crate) fn covers(&self, claims: &TokenClaims) -> bool {
        let user = claims.user.as_str();
        let before = self.before_of.get(user).copied().unwrap_or_default();
        claims.issued < self.before.max(before)
            || self.users.contains(user)
            || self.devices.contains(&claims.device)
            || claims
                .id
                .as_ref()
                .is_some_and(|id| self.tokens.contains(id))
    }

    /// Devices that are revoked here and were not in `old`.
    pub(super) fn new_devices(&self, old: &Self) -> Vec<Thumbprint> {
        self.devices.difference(&old.devices).copied().collect()
    }

    /// Users, likewise.
    pub(super) fn new_users(&self, old: &Self) -> Vec<User> {
        let new = self.users.difference(&old.users);
        new.filter_map(|user| User::new(user).ok()).collect()
    }

    /// Whether a token is revoked by itself, or by its age, that was not in `old`: then it is not known whose cards that are.
    pub(super) fn has_new_tokens(&self, old: &Self) -> bool {
        let mut of_users = self.before_of.iter();
        self.before > old.before
            || of_users.any(|(user, before)| old.before_of.get(user) < Some(before))
            || !self.tokens.is_subset(&old.tokens)
    }
}

#[cfg(test)]
mod tests {
    use sealwire_protocol::name::Issuer;
    use sealwire_protocol::permissions::Permissions;

    use super::*;

    fn user(name: &str) -> User {
        User::new(name).unwrap()
    }

    fn claims(name: &str, device: u8, issued: u64, id: Option<&str>) -> TokenClaims {
        TokenClaims {
            issuer: Issuer::new("https://issuer.example").unwrap(),
            user: user(name),
            audience: vec!["relay".to_owned()],
            expires: issued + 3_600,
            issued,
            not_before: None,
            id: id.map(Into::into),
            device: Thumbprint::from_bytes([device; 32]),
            permissions: Permissions::default(),
        }
    }

    fn list(lines: &str) -> List {
        let (list, bad) = List::read(lines.as_bytes());
        assert_eq!(bad, None);
        list
    }

    #[test]
    fn each_kind_covers_what_it_names_and_nothing_else() {
        let device = Thumbprint::from_bytes([7; 32]);
        let lines = format!(
            "{{\"token\":\"t1\"}}\n{{\"device\":\"{device}\"}}\n{{\"user\":\"mallory\",\"note\":\"left\"}}\n\
             {{\"issued_before\":100}}\n{{\"issued_before\":200,\"user\":\"bob\"}}"
        );
        let list = list(&lines);
        for (covered, claims) in [
            (true, claims("alice", 1, 500, Some("t1"))),
            (false, claims("alice", 1, 500, Some("t2"))),
            (false, claims("alice", 1, 500, None)),
            (true, claims("alice", 7, 500, None)),
            (true, claims("mallory", 1, 500, None)),
            (true, claims("alice", 1, 99, None)),
            (false, claims("alice", 1, 100, None)),
            (true, claims("bob", 1, 199, None)),
            (false, claims("bob", 1, 200, None)),
        ] {
            assert_eq!(list.covers(&claims), covered);
        }
        assert!(!List::default().covers(&claims("alice", 1, 0, Some("t1"))));
    }

    #[test]
    fn every_kind_is_read_as_it_is_written() {
        let device = Thumbprint::from_bytes([0xfb; 32]);
        for revocation in [
            Revocation::Token("a \"quoted\" id\u{7f}\n".to_owned()),
            Revocation::Device(device),
            Revocation::User(user("acme/alice")),
            Revocation::IssuedBefore {
                before: 7,
                user: None,
            },
            Revocation::IssuedBefore {
                before: 7,
                user: Some(user("bob")),
            },
        ] {
            let line = revocation.to_line();
            assert!(!line.contains('\n'));
            assert_eq!(
                Revocation::from_line(line.as_bytes()).as_ref(),
                Ok(&revocation)
            );
        }
    }

    #[test]
    fn lines_that_are_none_are_refused_and_the_others_count() {
        for line in [
            "{}",
            "[]",
            "not json",
            "{\"token\":\"\"}",
            "{\"token\":1}",
            "{\"device\":\"short\"}",
            "{\"user\":\"\"}",
            "{\"issued_before\":-1}",
            "{\"issued_before\":\"now\"}",
            "{\"jti\":\"t1\"}",
            "{\"token\":\"t1\",\"user\":\"bob\"}",
            "{\"token\":\"t1\",\"token\":\"t2\"}",
            "{\"token\":\"t1\"} {\"token\":\"t2\"}",
        ] {
            let (list, bad) = List::read(format!("{{\"token\":\"ok\"}}\n{line}\n").as_bytes());
            assert_eq!(bad.map(|(number, _)| number), Some(2), "{line}");
            assert!(list.covers(&claims("alice", 1, 1, Some("ok"))));
        }
        let unknown = Revocation::from_line(b"{\"usr\":\"bob\"}").unwrap_err();
        assert!(
            unknown.starts_with("unknown field `usr`") && unknown.ends_with(", column 6"),
            "{unknown}"
        );
        let long = format!("{{\"token\":\"t\",\"note\":\"{}\"}}", "n".repeat(2_048));
        assert!(Revocation::from_line(long.as_bytes()).is_err());
        let longest = format!("{{\"token\":\"{}\"}}", "t".repeat(255));
        assert!(Revocation::from_line(longest.as_bytes()).is_ok());
    }

    #[test]
    fn what_is_new_is_told_from_what_was_there() {
        let old = list("{\"user\":\"bob\"}\n{\"issued_before\":100}");
        assert!(!old.has_new_tokens(&old) && old.new_users(&old).is_empty());
        let new = list("{\"user\":\"bob\"}\n{\"user\":\"carol\"}\n{\"issued_before\":99}");
        assert_eq!(new.new_users(&old), [user("carol")]);
        assert!(!new.has_new_tokens(&old));
        for line in [
            "{\"issued_before\":101}",
            "{\"issued_before\":1,\"user\":\"bob\"}",
            "{\"token\":\"t\"}",
        ] {
            assert!(list(line).has_new_tokens(&old), "{line}");
        }
        let both = old.clone().and(&new);
        assert!(
            both.covers(&claims("carol", 1, 99, None)) && both.covers(&claims("bob", 1, 500, None))
        );
    }

    #[test]
    fn nobody_is_named_in_debug_output() {
        let shown = format!(
            "{:?} {:?} {:?}",
            Revocation::User(user("alice")),
            Revocation::Token("alice-1".to_owned()),
            Revocation::IssuedBefore {
                before: 7,
                user: Some(user("alice")),
            }
        );
        assert!(!shown.contains("alice"), "{shown}");
    }
}
