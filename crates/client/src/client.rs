//! What an application holds: a handle on the client's own thread.
//!
//! ```text
//!  Client ── Command, bounded ──▶ connection task (own thread) ── engine ── store
//!    ▲                                  │
//!    └── answers, events, state ────────┘
//! ```
//!
//! The handle runs under any executor. It does nothing itself: every call is a command with an answer.

use std::sync::Arc;

use sealwire_e2e::safety::SafetyNumber;
use sealwire_protocol::invite::Invitation;
use sealwire_protocol::key::Thumbprint;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use zeroize::Zeroizing;

use crate::builder::ClientBuilder;
use crate::connection::tls::Tls;
use crate::connection::{Closed, ConnectionState};
use crate::error::{Error, Misuse};
use crate::event::Event;
use crate::issuer::TrustedIssuer;
use crate::message::{Device, Message, MessageId};

/// Commands that may wait for the connection task; a caller waits where there is no room.
pub(crate) const COMMAND_QUEUE: usize = 64;

/// A device, connected to its relay. Clones are handles on the same device.
///
/// When the last handle is dropped the connection closes; what waits in the outbox is sent the next time.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<ConnectionState>,
    device: Thumbprint,
    /// The event that `next` gave last: it is erased when the one after it is asked for.
    taken: Mutex<Option<u64>>,
}

/// What the handle asks of the connection task.
pub(crate) enum Command {
    Send {
        user: String,
        message: Message,
        answer: oneshot::Sender<Result<Receipt, Error>>,
    },
    Next {
        taken: Option<u64>,
        answer: oneshot::Sender<NextEvent>,
    },
    Devices {
        user: String,
        answer: oneshot::Sender<Result<Vec<Device>, Error>>,
    },
    SafetyNumber {
        user: String,
        answer: oneshot::Sender<Result<SafetyNumber, Error>>,
    },
    MarkVerified {
        user: String,
        number: SafetyNumber,
        answer: oneshot::Sender<Result<(), Error>>,
    },
    IsVerified {
        user: String,
        answer: oneshot::Sender<Result<bool, Error>>,
    },
    AcceptChange {
        user: String,
        answer: oneshot::Sender<Result<(), Error>>,
    },
    User {
        answer: oneshot::Sender<Option<Arc<str>>>,
    },
    JweSecret {
        answer: oneshot::Sender<Result<Zeroizing<[u8; 32]>, Error>>,
    },
    Close {
        taken: Option<u64>,
        answer: oneshot::Sender<()>,
    },
}

/// The next event, with its number in the inbox if it is kept there; no event if there will be none any more.
pub(crate) struct NextEvent {
    pub(crate) event: Option<Event>,
    pub(crate) kept: Option<u64>,
}

impl Client {
    /// Begins a client for the relay at `address`: `wss://host[:port]/v1#<thumbprint of the relay>`.
    pub fn builder(address: &str) -> ClientBuilder {
        ClientBuilder::new(address)
    }

    /// Begins a client from an invitation line (`docs/protocol.md §14`): address, certificate, issuer and one-time code are
    /// all in it. The same line serves the device ever after; once enrolled it does not need the code any more.
    ///
    /// # Errors
    /// [`Misuse::InviteLine`] if it is not a whole invitation line. Whether it is still good is for the relay to say.
    pub fn invited(line: &str) -> Result<ClientBuilder, Error> {
        let invitation = Invitation::parse(line.trim()).map_err(Misuse::InviteLine)?;
        let relay = invitation.address.relay();
        let issuer = TrustedIssuer::built_in(invitation.issuer_key.as_bytes(), &relay)?;
        let builder = Self::builder(&invitation.address.to_string())
            .issuer(issuer)
            .invite(invitation.code.expose());
        Ok(match invitation.certificate {
            Some(fingerprint) => builder.tls(Tls::Pinned(fingerprint)),
            None => builder,
        })
    }

    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        state: watch::Receiver<ConnectionState>,
        device: Thumbprint,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                commands,
                state,
                device,
                taken: Mutex::new(None),
            }),
        }
    }

    /// Seals `message` for each of the user's attested devices, and for this user's other devices, and sends it.
    ///
    /// Returns when it is safe at the relay: stored durably, or with its recipients. While there is no connection it waits;
    /// a message that has been sealed is sent after a restart too, even if this future is dropped.
    ///
    /// # Errors
    /// [`Error::Refused`] if the relay does not take it (the message is then dropped, and may be sent again);
    /// [`Error::PeerChanged`] if the user was verified and has other devices now, or this user's own devices have gained one since; [`Error::Misuse`] for a message over its limits;
    /// [`Error::Closed`] if the client is closed before the relay has answered.
    pub async fn send(&self, user: &str, message: Message) -> Result<Receipt, Error> {
        message.check()?;
        let user = user.to_owned();
        self.ask(|answer| Command::Send {
            user,
            message,
            answer,
        })
        .await?
    }

    /// The next event, or `None` once the client is closed and all events have been taken.
    ///
    /// Asking for the next event confirms the one before: it is erased from the store then, so that a crash while it is being
    /// handled shows it again. Dropping the future loses nothing. Of several callers one waits for the other.
    ///
    /// Messages that are not taken are kept; while 512 of them wait the rest stays at the relay. Sending goes on.
    pub async fn next(&self) -> Option<Event> {
        let mut taken = self.shared.taken.lock().await;
        let (answer, next) = oneshot::channel();
        self.shared
            .commands
            .send(Command::Next {
                taken: *taken,
                answer,
            })
            .await
            .ok()?;
        let next = next.await.ok()?;
        *taken = next.kept;
        next.event
    }

    /// The devices that are attested for `user` now, by the relay's directory and the issuer.
    ///
    /// They are pinned; a change since they were pinned is an [`Event::PeerChanged`] too.
    pub async fn devices(&self, user: &str) -> Result<Vec<Device>, Error> {
        let user = user.to_owned();
        self.ask(|answer| Command::Devices { user, answer }).await?
    }

    /// The safety number of this user and `user` (`docs/protocol.md §11`), over the devices both have now.
    pub async fn safety_number(&self, user: &str) -> Result<SafetyNumber, Error> {
        let user = user.to_owned();
        self.ask(|answer| Command::SafetyNumber { user, answer })
            .await?
    }

    /// Marks `user` as verified, after two people have compared `number`.
    ///
    /// # Errors
    /// [`Error::PeerChanged`] if it is not the safety number any more: nothing is marked.
    pub async fn mark_verified(&self, user: &str, number: &SafetyNumber) -> Result<(), Error> {
        let (user, number) = (user.to_owned(), *number);
        self.ask(|answer| Command::MarkVerified {
            user,
            number,
            answer,
        })
        .await?
    }

    /// Whether `user` was marked as verified, and since then neither their devices have changed nor this user's own have gained
    /// one, as far as this client has seen.
    pub async fn is_verified(&self, user: &str) -> Result<bool, Error> {
        let user = user.to_owned();
        self.ask(|answer| Command::IsVerified { user, answer })
            .await?
    }

    /// Accepts the changed devices of a user who was verified, and new ones of this user's own, without verifying them again.
    pub async fn accept_change(&self, user: &str) -> Result<(), Error> {
        let user = user.to_owned();
        self.ask(|answer| Command::AcceptChange { user, answer })
            .await?
    }

    /// This device's own identity: the thumbprint of its key.
    pub fn device_thumbprint(&self) -> Thumbprint {
        self.shared.device
    }

    /// The user whose device this is; `None` before the first connection.
    pub async fn user(&self) -> Option<Arc<str>> {
        self.ask(|answer| Command::User { answer })
            .await
            .ok()
            .flatten()
    }

    /// What the connection is doing.
    pub fn connection(&self) -> ConnectionState {
        *self.shared.state.borrow()
    }

    /// The **secret** X25519 key that opens standard JWE to this device (`docs/protocol.md §10`): 32 bytes, erased on drop.
    ///
    /// Sessions do not depend on it. Whoever has it reads every standard JWE to this device.
    pub async fn export_secret_jwe_key(&self) -> Result<Zeroizing<[u8; 32]>, Error> {
        self.ask(|answer| Command::JweSecret { answer }).await?
    }

    /// Confirms the event given last, lets what is on its way come to its end (receipts above all; 2 seconds at most), closes the connection,
    /// and waits until the store is closed.
    pub async fn close(self) {
        let taken = self.shared.taken.lock().await.take();
        let (answer, closed) = oneshot::channel();
        if self
            .shared
            .commands
            .send(Command::Close { taken, answer })
            .await
            .is_ok()
        {
            // An error means that the task has ended already.
            let _ = closed.await;
        }
        self.shared.commands.closed().await;
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        let (answer, reply) = oneshot::channel();
        if self.shared.commands.send(command(answer)).await.is_err() {
            return Err(self.closed());
        }
        reply.await.map_err(|_| self.closed())
    }

    fn closed(&self) -> Error {
        match *self.shared.state.borrow() {
            ConnectionState::Closed(closed) => Error::Closed(closed),
            ConnectionState::Connecting
            | ConnectionState::Connected
            | ConnectionState::Waiting { .. } => Error::Closed(Closed::ByApplication),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("device", &self.shared.device)
            .field("connection", &*self.shared.state.borrow())
            .finish_non_exhaustive()
    }
}

/// The relay has a message safely.
#[derive(Debug)]
pub struct Receipt {
    pub(crate) id: MessageId,
    pub(crate) delivered: oneshot::Receiver<()>,
}

impl Receipt {
    /// The message's id.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Waits until at least one of the recipient's devices has stored the message and said so, end to end.
    ///
    /// It waits for as long as the device is away, or for ever if its application sends no receipts: put a time-out around it.
    /// The same is told by [`Event::Delivered`], also after a restart.
    ///
    /// # Errors
    /// [`Error::Closed`] if the client was closed before.
    pub async fn delivered(self) -> Result<(), Error> {
        self.delivered
            .await
            .map_err(|_| Error::Closed(Closed::ByApplication))
    }
}
