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
use sealwire_protocol::introduction::Introduction;
use sealwire_protocol::invite::Invitation;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::limits::MAX_DEVICE_NAME_BYTES;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::unconstrained;
use zeroize::Zeroizing;

use crate::builder::ClientBuilder;
use crate::call::{Asked, Call, Notify};
use crate::connection::tls::Tls;
use crate::connection::{Closed, ConnectionState};
use crate::error::{Error, Misuse};
use crate::event::{Event, NotDelivered};
use crate::issuer::TrustedIssuer;
use crate::message::{Device, Message, MessageId};
use crate::transfer::{AnswerTo, Wish};

/// Commands that may wait for the connection task; a caller waits where there is no room. A place that has become free may then be taken by one that comes
/// later, before the one it was given to is polled again: so there are more than an application can have messages under way.
pub(crate) const COMMAND_QUEUE: usize = 1_024;

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
    /// The event that `next` gave last: it is known to be here when the one after it is asked for.
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
    SetDeviceName {
        name: String,
        answer: oneshot::Sender<Result<(), Error>>,
    },
    RemoveDevice {
        device: Thumbprint,
        answer: oneshot::Sender<Result<(), Error>>,
    },
    JweSecret {
        answer: oneshot::Sender<Result<Zeroizing<[u8; 32]>, Error>>,
    },
    Transfer {
        wish: Wish,
        answer: AnswerTo,
    },
    Call(Asked),
    Close {
        taken: Option<u64>,
        answer: oneshot::Sender<()>,
    },
    /// From now on no time passes but where nothing else is waited for, and there at once.
    #[cfg(test)]
    SkipTime,
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
        Ok(Self::of_relay(&invitation.relay)?.invite(invitation.code.expose()))
    }

    /// Begins a client from a relay's introduction line (`docs/protocol.md §14`): address, certificate and issuer are in it. What lets the device in is left
    /// to say: [`ClientBuilder::exchange`].
    ///
    /// # Errors
    /// [`Misuse::IntroductionLine`] if it is not a whole introduction line.
    pub fn introduced(line: &str) -> Result<ClientBuilder, Error> {
        Self::of_relay(&Introduction::parse(line.trim()).map_err(Misuse::IntroductionLine)?)
    }

    fn of_relay(introduction: &Introduction) -> Result<ClientBuilder, Error> {
        let issuer = TrustedIssuer::built_in(introduction.issuer_key.as_bytes())?;
        let builder = Self::builder(&introduction.address.to_string()).issuer(issuer);
        Ok(match introduction.certificate {
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
    /// the message is in the device store by then, and is sent after a restart too, even if this future is dropped. An application that
    /// may be killed meanwhile gives the message an id of its own ([`Message::with_id`]) and sends it again.
    ///
    /// Of several calls at once, messages go in the order in which their futures are first polled, as long as fewer than 1,024 calls wait to be looked at.
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

    /// Calls a service of the relay's application, and waits for its answer (`docs/protocol.md §17`); 30 seconds at most, unless [`Call::timeout`] says
    /// otherwise. A service has a name such as `orders.create`, and is told at most 1 MiB.
    ///
    /// The call is sealed between this device and the relay, and **read by the relay**: it is not end to end.
    ///
    /// While there is no connection it waits for one within its time. What was sent is never sent again by itself: where the connection breaks before the
    /// answer, the call ends in [`CallError::Interrupted`](crate::CallError::Interrupted), and the service may have done what was asked.
    pub fn call(&self, service: &str, payload: impl Into<Vec<u8>>) -> Call {
        Call::new(self.clone(), service, payload.into())
    }

    /// Tells a service something, and waits only until the service has taken it; else as [`call`](Self::call).
    pub fn notify(&self, service: &str, payload: impl Into<Vec<u8>>) -> Notify {
        Notify::new(self.clone(), service, payload.into())
    }

    /// The next event, or `None` once the client is closed and all events have been taken.
    ///
    /// A message stays in the store until [`ack`](crate::Received::ack) or [`read`](crate::Received::read) is called on it; of anything
    /// else, asking for the next event confirms the one before. So a crash while an event is being handled shows it again.
    /// Dropping the future loses nothing but, at worst, what a service has pushed. Of several callers one waits for the other.
    ///
    /// While 512 messages wait, because they are not taken or not acknowledged, the rest stays at the relay. Sending goes on.
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

    /// Names this device: at most 64 bytes, told to the user's other devices, sealed, and to nobody else.
    ///
    /// # Errors
    /// [`Misuse::DeviceName`] if it is empty, too long, or has control characters.
    pub async fn set_device_name(&self, name: &str) -> Result<(), Error> {
        let fits = (1..=MAX_DEVICE_NAME_BYTES).contains(&name.len());
        if !fits || name.chars().any(char::is_control) {
            return Err(Misuse::DeviceName.into());
        }
        let name = name.to_owned();
        self.ask(|answer| Command::SetDeviceName { name, answer })
            .await?
    }

    /// Removes one of this user's devices: the relay closes its link and erases its card and its mailbox, and peers stop sealing to it.
    /// With the relay's built-in issuer it cannot come back; with another, that issuer has to stop giving it tokens.
    ///
    /// # Errors
    /// [`Error::Refused`]: it is no device of this user, or the token does not allow it. Removing the device that this client runs on
    /// ends in [`Error::Closed`].
    pub async fn remove_device(&self, device: Thumbprint) -> Result<(), Error> {
        self.ask(|answer| Command::RemoveDevice { device, answer })
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

    /// For a transfer's thread.
    pub(crate) fn commands(&self) -> mpsc::Sender<Command> {
        self.shared.commands.clone()
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Error> {
        self.command(command).await.map_err(Error::Closed)
    }

    /// Gives a command to the connection task, and waits for its answer.
    pub(crate) async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Closed> {
        let (answer, reply) = oneshot::channel();
        // Whoever is polled first has the first place, also in a task that has used up its turn.
        let place = unconstrained(self.shared.commands.send(command(answer)));
        if place.await.is_err() {
            return Err(self.closed());
        }
        reply.await.map_err(|_| self.closed())
    }

    fn closed(&self) -> Closed {
        match *self.shared.state.borrow() {
            ConnectionState::Closed(closed) => closed,
            ConnectionState::Connecting
            | ConnectionState::Connected
            | ConnectionState::Waiting { .. } => Closed::ByApplication,
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

/// The relay has a message safely: stored durably, or with its recipients.
#[derive(Debug)]
pub struct Receipt {
    pub(crate) id: MessageId,
    pub(crate) to_one: oneshot::Receiver<Result<(), Unheard>>,
    pub(crate) to_all: oneshot::Receiver<Result<(), Unheard>>,
}

/// Why nothing good is heard of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unheard {
    NotDelivered(NotDelivered),
    /// Too many others are not confirmed.
    Forgotten,
}

impl Receipt {
    /// The message's id.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Waits until every device that the message was sealed for has stored it and said so, end to end.
    ///
    /// It waits for as long as one of them is away, and for ever if their application sends no receipts or has never been written to by
    /// its user: put a time-out around it. The same is told, device by device, by [`Event::Delivered`], also after a restart.
    ///
    /// # Errors
    /// [`Error::NotDelivered`] if a device does not get it; [`Misuse::Unconfirmed`] if so many messages are not confirmed that this one is not
    /// followed any more; [`Error::Closed`] if the client was closed before.
    pub async fn delivered(self) -> Result<(), Error> {
        heard(self.to_all.await)
    }

    /// Waits until one of the recipient's devices has stored it, likewise.
    ///
    /// # Errors
    /// As [`delivered`](Self::delivered), the first if no device gets it.
    pub async fn delivered_to_one(&mut self) -> Result<(), Error> {
        heard((&mut self.to_one).await)
    }
}

fn heard(outcome: Result<Result<(), Unheard>, oneshot::error::RecvError>) -> Result<(), Error> {
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(Unheard::NotDelivered(why))) => Err(why.into()),
        Ok(Err(Unheard::Forgotten)) => Err(Misuse::Unconfirmed.into()),
        Err(_) => Err(Error::Closed(Closed::ByApplication)),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::Poll;

    use futures_util::stream::{FuturesOrdered, StreamExt as _};

    use super::*;

    async fn is_pending(call: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *call).poll(cx).is_pending())).await
    }

    fn number(command: Command) -> i32 {
        let Command::Send { message, .. } = command else {
            panic!("a message")
        };
        message.as_text().unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn messages_that_are_looked_at_while_others_come_stay_in_the_order_of_their_calls() {
        let (commands, mut queue) = mpsc::channel(COMMAND_QUEUE);
        let (_state, observed) = watch::channel(ConnectionState::Connected);
        let client = Client::new(commands, observed, Thumbprint::from_bytes([1; 32]));
        let call = |number: i32| Box::pin(client.send("bob", Message::text(number.to_string())));
        let mut calls: Vec<_> = (0..256).map(call).collect();
        let mut order = Vec::new();
        for (count, call) in calls.iter_mut().enumerate() {
            assert!(is_pending(call).await);
            if count % 70 == 69 {
                order.push(number(queue.try_recv().unwrap()));
            }
        }
        for call in &mut calls {
            // Whatever was taken has ended by now.
            is_pending(call).await;
        }
        while let Ok(command) = queue.try_recv() {
            order.push(number(command));
        }
        assert_eq!(order, (0..256).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn messages_of_a_task_that_has_used_up_its_turn_go_in_the_order_of_their_calls() {
        let (commands, mut queue) = mpsc::channel(COMMAND_QUEUE);
        let (_state, observed) = watch::channel(ConnectionState::Connected);
        let client = Client::new(commands, observed, Thumbprint::from_bytes([1; 32]));
        let mut sending: FuturesOrdered<_> = (0..100)
            .map(|number| client.send("bob", Message::text(number.to_string())))
            .collect();
        let mut order = Vec::new();
        let taking = async {
            while order.len() < 100 {
                order.push(number(queue.recv().await.unwrap()));
            }
        };
        let calling = async {
            // Most of what a task may do in one turn.
            for _ in 0..100 {
                tokio::task::consume_budget().await;
            }
            while sending.next().await.is_some() {}
        };
        tokio::select! {
            () = taking => {}
            () = calling => {}
        }
        assert!(order.is_sorted(), "{order:?}");
    }
}
