//! What a token allows, as data (`docs/protocol.md` §5.5, RFC 9396). Enforcing it is the relay's work.

use alloc::{string::String, vec::Vec};

use crate::{
    claims::{self, ClaimDefect, TokenError, refuse},
    json::{Object, Value},
    name::User,
};

/// Most entries in one `to` (`docs/protocol.md` §5.5).
const MAX_TO: usize = 64;

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
        let _ = claims;
        todo!()
    }

    /// Whether the token's user `own` may send to `user`: needs `sealwire:send`, and that `user` is `own` or listed in `to`.
    #[must_use]
    pub fn may_write_to(&self, user: &User, own: &User) -> bool {
        let _ = (user, own);
        todo!()
    }
}
