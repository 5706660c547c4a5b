//! What a token allows, as data (`docs/protocol.md` §5.5, RFC 9396). Enforcing it is the relay's work.

use alloc::{string::String, vec::Vec};

use crate::{
    claims::{self, ClaimDefect, TokenError, refuse},
    json::{Object, Value},
    limits::MAX_RECIPIENT_PATTERNS,
    name::User,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// This user.
    User(User),
    /// Every user whose name begins with this; the empty prefix is everybody.
    Prefix(String),
}

impl Permissions {
    /// Reads `scope` and `authorization_details`.
    ///
    /// # Errors
    /// A member of the wrong type refuses the token.
    pub(crate) fn from_claims(claims: &Object) -> Result<Self, TokenError> {
        let mut permissions = Self::default();
        for scope in claims::optional(claims, "scope", claims::text)?
            .unwrap_or_default()
            .split(' ')
        {
            match scope {
                "sealwire:send" => permissions.send = true,
                "sealwire:receive" => permissions.receive = true,
                "sealwire:publish" => permissions.publish = true,
                _ => {}
            }
        }
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

    /// Whether the token's user `own` may send to `user`: needs `sealwire:send`, and that `user` is `own` or listed in `to`.
    #[must_use]
    pub fn may_write_to(&self, user: &User, own: &User) -> bool {
        let listed = |to: &[Recipient]| to.iter().any(|recipient| recipient.includes(user));
        self.send && (user == own || self.to.as_deref().is_none_or(listed))
    }

    /// Adds one entry: `to` is the union, each number the largest, of the entries that state it.
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
