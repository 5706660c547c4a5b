//! What a token allows, as data (`docs/protocol.md` §5.5, RFC 9396). Enforcing it is the relay's work.

use alloc::{string::String, vec::Vec};
use core::fmt;

use crate::{
    claims::{self, ClaimDefect, TokenError, refuse},
    json::{Object, Value},
    limits::{MAX_RECIPIENT_PATTERNS, MAX_SERVICE_PATTERNS},
    name::{Tenant, User},
    service::ServicePattern,
};

/// What the holder of a token may do at the relay.
///
/// `None` in a number means that the token leaves it to the relay, whose own limits are never exceeded whatever the token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// `sealwire:send`: Send and FetchCards.
    pub send: bool,
    /// `sealwire:receive`: the mailbox.
    pub receive: bool,
    /// `sealwire:publish`: PublishCard and PublishPrekeys.
    pub publish: bool,
    /// `sealwire:call`: Call, and what services push.
    pub call: bool,
    /// Which services may be called, and push. `None`: all.
    pub services: Option<Vec<ServicePattern>>,
    /// The tenant, outside which nobody may be written to (§5.7).
    pub tenant: Option<Tenant>,
    /// Who may be written to, besides the user's own devices. `None`: everybody.
    pub to: Option<Vec<Recipient>>,
    /// Largest sealed message, in bytes.
    pub max_message_bytes: Option<u64>,
    /// Most messages sent in a minute.
    pub messages_per_minute: Option<u64>,
    /// Most messages held in the mailbox.
    pub mailbox_messages: Option<u64>,
    /// Most bytes held in the mailbox.
    pub mailbox_bytes: Option<u64>,
    /// How long the mailbox holds a message, in seconds.
    pub retention_seconds: Option<u64>,
}

/// Somebody who may be written to.
#[derive(Clone, PartialEq, Eq)]
pub enum Recipient {
    /// This user.
    User(User),
    /// Every user whose name begins with this; the empty prefix is everybody.
    Prefix(String),
}

/// Names nobody: it may be logged.
impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User(_) => "User(..)",
            Self::Prefix(_) => "Prefix(..)",
        })
    }
}

impl Permissions {
    /// Reads `scope`, `tenant` and `authorization_details`.
    ///
    /// # Errors
    /// A member of the wrong type refuses the token.
    pub(crate) fn from_claims(claims: &Object) -> Result<Self, TokenError> {
        let mut permissions = Self::from_details(claims)?;
        for scope in claims::optional(claims, "scope", claims::text)?
            .unwrap_or_default()
            .split(' ')
        {
            match scope {
                "sealwire:send" => permissions.send = true,
                "sealwire:receive" => permissions.receive = true,
                "sealwire:publish" => permissions.publish = true,
                "sealwire:call" => permissions.call = true,
                _ => {}
            }
        }
        if let Some(tenant) = claims::optional(claims, "tenant", claims::text)? {
            let tenant = Tenant::new(tenant).map_err(|error| TokenError::Name {
                claim: "tenant",
                error,
            })?;
            permissions.tenant = Some(tenant);
        }
        Ok(permissions)
    }

    /// Reads `authorization_details` alone.
    pub(crate) fn from_details(claims: &Object) -> Result<Self, TokenError> {
        let mut permissions = Self::default();
        for entry in
            claims::optional(claims, "authorization_details", claims::array)?.unwrap_or_default()
        {
            let Value::Object(entry) = entry else {
                return Err(refuse("authorization_details", ClaimDefect::WrongType));
            };
            // RFC 9396 §2: every entry has a type.
            if claims::text(entry, "type")? == "sealwire" {
                permissions.merge(entry)?;
            }
        }
        Ok(permissions)
    }

    /// Whether the token's user `own` may send to `user`: needs `sealwire:send`, and that `user` is `own`, or of the tenant and listed in `to`.
    #[must_use]
    pub fn may_write_to(&self, user: &User, own: &User) -> bool {
        let listed = |to: &[Recipient]| to.iter().any(|recipient| recipient.includes(user));
        let within = |tenant: &Tenant| tenant.includes(user);
        self.send
            && (user == own
                || self.tenant.as_ref().is_none_or(within) && self.to.as_deref().is_none_or(listed))
    }

    /// Whether the token allows calling `service`, and hearing from it: needs `sealwire:call`, and that it is listed in `services`.
    #[must_use]
    pub fn may_call(&self, service: &str) -> bool {
        let listed =
            |services: &[ServicePattern]| services.iter().any(|pattern| pattern.includes(service));
        self.call && self.services.as_deref().is_none_or(listed)
    }

    /// Adds one entry: `to` and `services` are the unions, each number the largest, of the entries that state it.
    fn merge(&mut self, entry: &Object) -> Result<(), TokenError> {
        if let Some(to) = claims::optional(entry, "to", claims::array)? {
            if to.len() > MAX_RECIPIENT_PATTERNS {
                return Err(refuse("to", ClaimDefect::Invalid));
            }
            let known = self.to.get_or_insert_default();
            for pattern in to {
                known.push(Recipient::from_value(pattern)?);
            }
        }
        if let Some(services) = claims::optional(entry, "services", claims::array)? {
            if services.len() > MAX_SERVICE_PATTERNS {
                return Err(refuse("services", ClaimDefect::Invalid));
            }
            let known = self.services.get_or_insert_default();
            for pattern in services {
                let Value::String(pattern) = pattern else {
                    return Err(refuse("services", ClaimDefect::WrongType));
                };
                let pattern = ServicePattern::new(pattern)
                    .map_err(|_| refuse("services", ClaimDefect::Invalid))?;
                known.push(pattern);
            }
        }
        for (number, name) in [
            (&mut self.max_message_bytes, "max_message_bytes"),
            (&mut self.messages_per_minute, "messages_per_minute"),
            (&mut self.mailbox_messages, "mailbox_messages"),
            (&mut self.mailbox_bytes, "mailbox_bytes"),
            (&mut self.retention_seconds, "retention_seconds"),
        ] {
            // None is smaller than every number.
            *number = (*number).max(claims::optional(entry, name, claims::positive)?);
        }
        Ok(())
    }
}

impl Recipient {
    fn from_value(pattern: &Value) -> Result<Self, TokenError> {
        let Value::String(pattern) = pattern else {
            return Err(refuse("to", ClaimDefect::WrongType));
        };
        let user = |name| User::new(name).map_err(|error| TokenError::Name { claim: "to", error });
        match pattern.strip_suffix('*') {
            None => user(pattern).map(Self::User),
            Some("") => Ok(Self::Prefix(String::new())),
            Some(prefix) => user(prefix).map(|_| Self::Prefix(prefix.into())),
        }
    }

    fn includes(&self, user: &User) -> bool {
        match self {
            Self::User(listed) => listed == user,
            Self::Prefix(prefix) => user.as_str().starts_with(prefix.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permissions(claims: &str) -> Result<Permissions, TokenError> {
        Permissions::from_claims(&Object::parse(claims.as_bytes()).unwrap())
    }

    /// With `sealwire:send` and these entries.
    fn details(entries: &str) -> Result<Permissions, TokenError> {
        permissions(&alloc::format!(
            r#"{{"scope":"sealwire:send","authorization_details":{entries}}}"#
        ))
    }

    fn user(name: &str) -> User {
        User::new(name).unwrap()
    }

    fn may_write(permissions: &Permissions, to: &str) -> bool {
        permissions.may_write_to(&user(to), &user("me"))
    }

    #[test]
    fn scopes_are_separate_and_others_are_ignored() {
        let all = permissions(
            r#"{"scope":"openid sealwire:send sealwire:receive  sealwire:publish sealwire:call email"}"#,
        )
        .unwrap();
        assert!(all.send && all.receive && all.publish && all.call);
        let one = permissions(r#"{"scope":"sealwire:receive"}"#).unwrap();
        assert_eq!(
            one,
            Permissions {
                receive: true,
                ..Permissions::default()
            }
        );
    }

    #[test]
    fn debug_names_nobody() {
        let permissions =
            details(r#"[{"type":"sealwire","to":["bob","team-*"],"mailbox_bytes":9}]"#).unwrap();
        let shown = alloc::format!("{permissions:?}");
        assert!(shown.contains("[User(..), Prefix(..)]"), "{shown}");
        assert!(!shown.contains("bob") && !shown.contains("team"), "{shown}");
    }

    /// docs/protocol.md §5.5
    #[test]
    fn scope_that_is_not_spelled_exactly_permits_nothing() {
        for scope in [
            "",
            "send",
            "sealwire:*",
            "Sealwire:send",
            "sealwire:send,sealwire:receive",
            "sealwire:sendx",
            "sealwire:call.orders",
            "sealwire:calls",
            "sealwire:send\\tsealwire:receive",
        ] {
            let claims = alloc::format!(r#"{{"scope":"{scope}"}}"#);
            assert_eq!(permissions(&claims), Ok(Permissions::default()), "{scope}");
        }
        assert_eq!(permissions("{}"), Ok(Permissions::default()));
    }

    #[test]
    fn numbers_and_recipients_are_read() {
        let entry = r#"[{"type":"payments"},{"type":"sealwire","to":["bob","team-*"],"max_message_bytes":1,"messages_per_minute":2,
            "mailbox_messages":3,"mailbox_bytes":4,"retention_seconds":9007199254740991,"locations":["x"]}]"#;
        let expected = Permissions {
            send: true,
            to: Some(alloc::vec![
                Recipient::User(user("bob")),
                Recipient::Prefix("team-".into())
            ]),
            max_message_bytes: Some(1),
            messages_per_minute: Some(2),
            mailbox_messages: Some(3),
            mailbox_bytes: Some(4),
            retention_seconds: Some((1 << 53) - 1),
            ..Permissions::default()
        };
        assert_eq!(details(entry), Ok(expected));
    }

    /// docs/protocol.md §5.5
    #[test]
    fn recipient_that_is_not_listed_may_not_be_written_to() {
        let listed = details(r#"[{"type":"sealwire","to":["bob","team-*"]}]"#).unwrap();
        for to in ["bob", "team-", "team-a", "me"] {
            assert!(may_write(&listed, to), "{to}");
        }
        for to in [
            "Bob", "bobby", "bo", "team", "Team-a", "xteam-a", "team*", "*",
        ] {
            assert!(!may_write(&listed, to), "{to}");
        }
        let nobody = details(r#"[{"type":"sealwire","to":[]}]"#).unwrap();
        assert!(!may_write(&nobody, "bob"));
        assert!(may_write(&nobody, "me"));
        let star_inside = details(r#"[{"type":"sealwire","to":["*b","a**"]}]"#).unwrap();
        assert!(may_write(&star_inside, "*b") && may_write(&star_inside, "a*c"));
        assert!(!may_write(&star_inside, "xb") && !may_write(&star_inside, "ab"));
    }

    #[test]
    fn absent_to_and_the_empty_prefix_are_everybody() {
        for entries in [
            "[]",
            r#"[{"type":"other","to":["x"]}]"#,
            r#"[{"type":"sealwire"}]"#,
            r#"[{"type":"sealwire","to":["*"]}]"#,
        ] {
            assert!(may_write(&details(entries).unwrap(), "bob"), "{entries}");
        }
    }

    /// docs/protocol.md §5.7
    #[test]
    fn nobody_outside_the_tenant_may_be_written_to_whatever_is_listed() {
        let of_acme = |details: &str| {
            permissions(&alloc::format!(
                r#"{{"scope":"sealwire:send","tenant":"acme"{details}}}"#
            ))
            .unwrap()
        };
        let everybody = of_acme("");
        let listed = of_acme(
            r#","authorization_details":[{"type":"sealwire","to":["*"]},{"type":"sealwire","to":["globex/bob"]}]"#,
        );
        for permissions in [everybody, listed] {
            for to in ["acme/bob", "acme/team/bob"] {
                assert!(may_write(&permissions, to), "{to}");
            }
            for to in [
                "acme",
                "acme/",
                "acmebob",
                "acme-2/bob",
                "Acme/bob",
                "globex/bob",
                "bob",
                "/acme/bob",
            ] {
                assert!(!may_write(&permissions, to), "{to}");
            }
            assert!(may_write(&permissions, "me"));
        }
        let narrow = of_acme(r#","authorization_details":[{"type":"sealwire","to":["acme/bob"]}]"#);
        assert!(may_write(&narrow, "acme/bob") && !may_write(&narrow, "acme/eve"));
    }

    /// docs/protocol.md §2.2
    #[test]
    fn tenant_that_is_no_name_refuses_the_token() {
        use crate::name::NameError;
        for tenant in ["null", "1", "[]", "{}", "true"] {
            assert_eq!(
                permissions(&alloc::format!(r#"{{"tenant":{tenant}}}"#)),
                Err(refuse("tenant", ClaimDefect::WrongType)),
                "{tenant}"
            );
        }
        for (tenant, error) in [
            ("", NameError::Empty),
            ("a\\n", NameError::ControlCharacter),
            (&"x".repeat(256), NameError::TooLong),
        ] {
            assert_eq!(
                permissions(&alloc::format!(r#"{{"tenant":"{tenant}"}}"#)),
                Err(TokenError::Name {
                    claim: "tenant",
                    error
                })
            );
        }
    }

    /// docs/protocol.md §5.5
    #[test]
    fn nobody_may_be_written_to_without_the_scope() {
        let silent = permissions(r#"{"scope":"sealwire:receive","authorization_details":[{"type":"sealwire","to":["*"]}]}"#).unwrap();
        assert!(!may_write(&silent, "bob"));
        assert!(!may_write(&silent, "me"));
    }

    /// docs/protocol.md §5.5
    #[test]
    fn entries_merge_to_the_union_and_the_largest_number_stated() {
        let merged = details(
            r#"[{"type":"sealwire","to":["bob"],"mailbox_bytes":5,"max_message_bytes":100},{"type":"sealwire","to":["eve"],"max_message_bytes":1000},
                {"type":"sealwire","max_message_bytes":10}]"#,
        )
        .unwrap();
        assert!(may_write(&merged, "bob") && may_write(&merged, "eve"));
        assert_eq!(
            (merged.max_message_bytes, merged.mailbox_bytes),
            (Some(1000), Some(5))
        );
        // An entry without `to` does not lift what another says.
        assert!(!may_write(&merged, "mallory"));
    }

    /// docs/protocol.md §5.5
    #[test]
    fn service_that_is_not_listed_may_not_be_called() {
        let calling = |entries: &str| {
            permissions(&alloc::format!(
                r#"{{"scope":"sealwire:call","authorization_details":{entries}}}"#
            ))
            .unwrap()
        };
        let listed = calling(
            r#"[{"type":"sealwire","services":["orders.create"]},{"type":"sealwire","services":["stock.*"]},{"type":"sealwire"},
                {"type":"other","services":["x"]}]"#,
        );
        for service in ["orders.create", "stock.level"] {
            assert!(listed.may_call(service), "{service}");
        }
        for service in ["orders", "orders.created", "stock", "x"] {
            assert!(!listed.may_call(service), "{service}");
        }
        assert!(!calling(r#"[{"type":"sealwire","services":[]}]"#).may_call("x"));
        for all in [
            "[]",
            r#"[{"type":"sealwire"}]"#,
            r#"[{"type":"sealwire","services":["*"]}]"#,
        ] {
            assert!(calling(all).may_call("x"), "{all}");
        }
        let silent = details(r#"[{"type":"sealwire","services":["*"]}]"#).unwrap();
        assert!(!silent.may_call("x"), "without the scope nothing is");
    }

    /// docs/protocol.md §5.5, §17.1
    #[test]
    fn patterns_that_no_service_can_match_or_too_many_refuse_the_token() {
        let services = |value: &str| {
            details(&alloc::format!(
                r#"[{{"type":"sealwire","services":{value}}}]"#
            ))
        };
        let (wrong, invalid) = (
            Err(refuse("services", ClaimDefect::WrongType)),
            Err(refuse("services", ClaimDefect::Invalid)),
        );
        for value in [
            "null",
            r#""x""#,
            "{}",
            "1",
            "[1]",
            r#"["x",null]"#,
            r#"[["x"]]"#,
        ] {
            assert_eq!(services(value), wrong, "{value}");
        }
        for value in [
            r#"[""]"#,
            r#"["a b"]"#,
            r#"["a..b"]"#,
            r#"["a**"]"#,
            r#"["*a"]"#,
        ] {
            assert_eq!(services(value), invalid, "{value}");
        }
        let many = |count: usize| {
            services(&alloc::format!(
                "[{}]",
                alloc::vec![r#""a""#; count].join(",")
            ))
        };
        assert!(many(64).is_ok());
        assert_eq!(many(65), invalid);
    }

    /// docs/protocol.md §5.5: a member of the wrong type refuses the token.
    #[test]
    fn members_of_the_wrong_type_refuse_the_token() {
        let wrong = |claim| Err(refuse(claim, ClaimDefect::WrongType));
        for scope in ["null", "1", r#"["sealwire:send"]"#, "{}", "true"] {
            assert_eq!(
                permissions(&alloc::format!(r#"{{"scope":{scope}}}"#)),
                wrong("scope"),
                "{scope}"
            );
        }
        for entries in [
            "null",
            "{}",
            r#""x""#,
            r#"{"type":"sealwire"}"#,
            "[1]",
            "[null]",
            r#"["sealwire"]"#,
            r#"[[{"type":"sealwire"}]]"#,
        ] {
            assert_eq!(
                details(entries),
                wrong("authorization_details"),
                "{entries}"
            );
        }
        assert_eq!(details("[{}]"), Err(refuse("type", ClaimDefect::Missing)));
        assert_eq!(details(r#"[{"type":["sealwire"]}]"#), wrong("type"));
        for to in [
            r#""bob""#,
            "null",
            r#"{"bob":1}"#,
            "[1]",
            r#"["bob",null]"#,
            r#"[["bob"]]"#,
        ] {
            assert_eq!(
                details(&alloc::format!(r#"[{{"type":"sealwire","to":{to}}}]"#)),
                wrong("to"),
                "{to}"
            );
        }
        for name in [
            "max_message_bytes",
            "messages_per_minute",
            "mailbox_messages",
            "mailbox_bytes",
            "retention_seconds",
        ] {
            for number in [
                "null",
                r#""1""#,
                "1.0",
                "1e3",
                "-1",
                "9007199254740992",
                "[1]",
                "true",
            ] {
                assert_eq!(
                    details(&alloc::format!(
                        r#"[{{"type":"sealwire","{name}":{number}}}]"#
                    )),
                    wrong(name),
                    "{number}"
                );
            }
            let zero = details(&alloc::format!(r#"[{{"type":"sealwire","{name}":0}}]"#));
            assert_eq!(zero, Err(refuse(name, ClaimDefect::Invalid)));
        }
    }

    /// docs/protocol.md §5.5, §1.2
    #[test]
    fn recipients_that_no_user_can_match_or_too_many_refuse_the_token() {
        use crate::name::NameError;
        let to = |pattern: &str| {
            details(&alloc::format!(
                r#"[{{"type":"sealwire","to":["{pattern}"]}}]"#
            ))
        };
        let name = |error| Err(TokenError::Name { claim: "to", error });
        assert_eq!(to(""), name(NameError::Empty));
        assert_eq!(to("a\\n*"), name(NameError::ControlCharacter));
        assert_eq!(to(&"x".repeat(256)), name(NameError::TooLong));
        let many = |count: usize| {
            details(&alloc::format!(
                r#"[{{"type":"sealwire","to":[{}]}}]"#,
                alloc::vec![r#""a""#; count].join(",")
            ))
        };
        assert!(many(64).is_ok());
        assert_eq!(many(65), Err(refuse("to", ClaimDefect::Invalid)));
    }
}
