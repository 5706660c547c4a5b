//! What happens to a client that its application did not ask for.

use std::fmt;
use std::sync::Arc;

use sealwire_protocol::key::Thumbprint;

use crate::connection::ConnectionState;
use crate::error::Refusal;
use crate::message::{MessageId, Received};

/// Something that happened. Given by [`Client::next`](crate::Client::next), in the order in which it happened.
///
/// [`Message`](Event::Message) and [`Copy`](Event::Copy) are kept in the device store until they are acknowledged
/// ([`Received::ack`]); everything else but [`Connection`](Event::Connection), [`Recovered`](Event::Recovered) and what services push until the
/// application has asked for the event after it. So a crash while one is being handled shows it again.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A message for this user.
    Message(Received),
    /// Another device of this user's own sent `message` to `to`.
    Copy {
        /// The user it went to.
        to: Arc<str>,
        /// The message; `from` is this user.
        message: Received,
    },
    /// A device of `user` has stored the message with this id.
    Delivered {
        /// The message's id.
        id: MessageId,
        /// The user it went to.
        user: Arc<str>,
        /// The device that has it.
        device: Thumbprint,
    },
    /// A person has read the message with this id on a device of `user`, or their application says so.
    Read {
        /// The message's id.
        id: MessageId,
        /// The user it went to.
        user: Arc<str>,
        /// The device on which it was read.
        device: Thumbprint,
    },
    /// A message that the relay had accepted will not reach a device of `user`. The relay says so, and nobody else can.
    NotDelivered {
        /// The message's id.
        id: MessageId,
        /// The user it went to.
        user: Arc<str>,
        /// The device that does not get it.
        device: Thumbprint,
        /// Why not.
        reason: NotDelivered,
    },
    /// A message that was accepted into the outbox will not be sent, and nobody was waiting for its receipt.
    NotSent {
        /// The message's id.
        id: MessageId,
        /// The user it was for.
        user: Arc<str>,
        /// Why not.
        reason: NotSent,
    },
    /// The set of devices that are attested for `user` has changed since it was pinned.
    ///
    /// If `user` is this user and `added` is not empty, nobody who was verified is so any more: safety numbers cover both sides, and
    /// a device that the user did not add would get copies of all that is sent. Until they are verified again, or the change is
    /// accepted for them, they get nothing, and the new device no copies of what was for them.
    PeerChanged {
        /// The user.
        user: Arc<str>,
        /// Devices that are new.
        added: Vec<Thumbprint>,
        /// Devices that are gone.
        removed: Vec<Thumbprint>,
        /// Whether the user had been verified, and is not any more.
        was_verified: bool,
    },
    /// Messages of a device are missing: a later one has arrived, and these have not.
    ///
    /// They may still arrive.
    Gap {
        /// The user they are from.
        user: Arc<str>,
        /// The device they are from.
        device: Thumbprint,
        /// How many.
        missing: u32,
    },
    /// Something may be missing in the mailbox at the relay, and nobody can say what.
    MailboxGap(MailboxGap),
    /// The connection is up, and what had waited at the relay meanwhile is here.
    Recovered {
        /// How many had waited: messages, and what devices tell each other beside them (receipts, repairs, notices), of which the application
        /// gets fewer events or none.
        messages: u64,
    },
    /// The device store was put back to an earlier copy. Its sessions and prekeys were replaced, so that no key is used twice; messages
    /// that came since the copy was made are not here, and what waited to be sent is told as [`NotSent`](Event::NotSent).
    StoreRestored,
    /// The relay has a new key, and the one before has vouched for it. The device takes no other from now on. Who gives the relay's address away, or
    /// connects new devices by it, needs the one with this thumbprint.
    RelayKeyChanged {
        /// The new key.
        relay: Thumbprint,
    },
    /// A message arrived that cannot be opened, and its sender could not seal it again.
    Undecryptable {
        /// The id under which it was sent, as the relay tells it.
        id: MessageId,
        /// The user it is from, as the relay tells it.
        user: Arc<str>,
        /// The device it is from, as the relay tells it.
        device: Thumbprint,
    },
    /// A session with a device could not be used any more, and a new one was started. What was sent under the old one comes again.
    SessionRepaired {
        /// The device's user.
        user: Arc<str>,
        /// The device.
        device: Thumbprint,
    },
    /// A service of the relay's application says something unasked. It comes at most once, is not stored, and has no place in the order of messages.
    Push(Push),
    /// Services have pushed more than there was room for, as the application did not take it: so much is lost.
    PushesMissed {
        /// How many pushes.
        count: u64,
    },
    /// The connection's state has changed. Only the latest is given where several were not asked for in between.
    Connection(ConnectionState),
}

/// What a service of the relay's application says unasked (`docs/protocol.md §17`). The relay reads it: it is not end to end.
#[derive(Clone, PartialEq, Eq)]
pub struct Push {
    /// The name of the service.
    pub service: Arc<str>,
    /// At most 1 MiB.
    pub payload: Vec<u8>,
}

/// Shows how much it is, and nothing of it.
impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("service", &self.service)
            .field("payload", &format_args!("{} bytes", self.payload.len()))
            .finish()
    }
}

/// Why a message that waited in the outbox was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotSent {
    /// The relay refused it.
    Refused(Refusal),
    /// The recipient was verified, and their devices have changed.
    PeerChanged,
    /// The recipient's cards do not verify.
    Card,
    /// The device store was put back to an earlier copy: whether the message had been sent after the copy was made is not known.
    Restored,
}

/// Why a message that was accepted does not reach a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotDelivered {
    /// The device did not fetch it before it was too old.
    #[error("a device of the recipient did not fetch the message before it expired")]
    Expired,
    /// The device was removed by its user or the operator.
    #[error("a device of the recipient was removed before it fetched the message")]
    DeviceRemoved,
    /// The device is one of the sending user's own, and its mailbox had no room.
    #[error(
        "the mailbox of one of your own devices has no room for the message; that device has to come online first"
    )]
    MailboxFull,
}

/// What happened to the mailbox at the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MailboxGap {
    /// The relay has begun it anew: what was in it is gone.
    NewHistory,
    /// The relay was put back to an earlier state: what it has accepted since may be gone.
    PutBack,
    /// A record was damaged on the relay's disk.
    Damaged,
}
