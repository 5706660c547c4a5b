//! Messages under way: handed to the client in order, and reported in the same order when they have got as far as was asked.
//!
//! ```text
//!  source ── messages, one after the other ──▶ at most N under way ──▶ relay
//!                                                    │ in order
//!  standard output ◀── results, and what is heard meanwhile
//! ```

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use sealwire_client::error::{Misuse, Refusal};
use sealwire_client::{ConnectionState, Error, Event, Message, MessageId, Receipt};
use serde_json::json;
use tokio::sync::oneshot;

use super::Until;
use super::source::{Given, Identified, Source};
use crate::commands::listen::ended;
use crate::device::Device;
use crate::events::{self, Shown, Unsaved};
use crate::exit::{Class, Failure};
use crate::output::{Output, Printable};

/// How long to wait where the relay does not take a message for now.
const LATER: Duration = Duration::from_millis(500);

/// What is done meanwhile with what happens to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hears {
    /// It waits for a command that shows it.
    Nothing,
    /// All but messages is shown; they wait for a command that shows them.
    Notices,
    /// Everything is shown, and messages are acknowledged.
    Everything {
        /// Whether their senders are told that they were read.
        read: bool,
    },
}

/// How messages are sent.
pub(crate) struct Way<'a> {
    device: &'a Device,
    user: &'a str,
    pub(crate) until: Until,
    /// How long each step may take; `None`: as long as it does.
    pub(crate) timeout: Option<Duration>,
    /// How many may be under way.
    pub(crate) at_once: usize,
    pub(crate) hears: Hears,
    /// Whether a recipient's mailbox that is full is waited for.
    pub(crate) patient: bool,
    /// Whether it is said of each message that it has got as far as was asked.
    pub(crate) reports: bool,
    output: Output,
    /// Who waits for a message to be read.
    reads: RefCell<HashMap<MessageId, oneshot::Sender<()>>>,
    unsaved: Unsaved,
}

/// A message that has got as far as was asked.
struct Arrived {
    id: MessageId,
    line: Option<u64>,
}

type UnderWay<'a> = Pin<Box<dyn Future<Output = Result<Arrived, Failure>> + 'a>>;

impl<'a> Way<'a> {
    /// To `user`, one after the other, until the relay has each.
    pub(crate) fn new(device: &'a Device, user: &'a str, output: Output) -> Self {
        Self {
            device,
            user,
            until: Until::Accepted,
            timeout: None,
            at_once: 1,
            hears: Hears::Nothing,
            patient: false,
            reports: true,
            output,
            reads: RefCell::new(HashMap::new()),
            unsaved: Unsaved::default(),
        }
    }

    /// Sends all that `source` gives. What goes wrong with one message is said and does not keep the others; the last of it is how it ends.
    pub(crate) async fn send(&self, mut source: Source) -> Result<(), Failure> {
        let mut under_way: FuturesOrdered<UnderWay<'_>> = FuturesOrdered::new();
        let (mut more, mut end) = (true, Ok(()));
        while more || !under_way.is_empty() {
            let arrived = tokio::select! {
                given = source.next(), if more && under_way.len() < self.at_once => match given {
                    Some(given) => {
                        under_way.push_back(self.begin(given).await);
                        continue;
                    }
                    None => {
                        more = false;
                        continue;
                    }
                },
                Some(arrived) = under_way.next() => arrived,
                event = self.device.client.next(), if self.hears != Hears::Nothing => match event {
                    Some(event) => match self.hear(&event)? {
                        Shown::Message | Shown::Other => continue,
                        Shown::Unread => return Ok(()),
                    },
                    None => return Err(ended(&self.device.client)),
                },
            };
            match arrived.and_then(|arrived| self.report(&arrived)) {
                Ok(()) => {}
                Err(failure) if self.is_closed() => return Err(failure),
                Err(failure) => {
                    if let Err(earlier) = std::mem::replace(&mut end, Err(failure)) {
                        earlier.say(self.output.is_json());
                    }
                }
            }
        }
        end
    }

    /// Hands a message to the client: once this returns, it goes before what is handed over later.
    async fn begin(&self, given: Given) -> UnderWay<'_> {
        let Given { line, message } = given;
        let mut sending: UnderWay<'_> = Box::pin(async move {
            let arrived = match message {
                Ok(message) => self.carry(message).await,
                Err(failure) => Err(failure),
            };
            match (arrived, line) {
                (Ok(id), line) => Ok(Arrived { id, line }),
                (Err(failure), Some(line)) => Err(failure.in_line(line)),
                (Err(failure), None) => Err(failure),
            }
        });
        match poll_fn(|context| Poll::Ready(sending.as_mut().poll(context))).await {
            Poll::Ready(arrived) => Box::pin(ready(arrived)),
            Poll::Pending => sending,
        }
    }

    /// Brings a message as far as was asked.
    async fn carry(&self, Identified { id, message }: Identified) -> Result<MessageId, Failure> {
        // It may be read before the relay's word of it is heard.
        let (read, reading) = oneshot::channel();
        if self.until == Until::Read {
            self.reads.borrow_mut().insert(id, read);
        }
        let accepted = self.accept(message).await;
        let heard = match (accepted, self.until) {
            (Ok(_), Until::Accepted) => return Ok(id),
            (Ok(receipt), Until::Delivered) => within(self.timeout, receipt.delivered())
                .await
                .map(|delivered| Ok(delivered?)),
            // The other end is kept as long as this is waited for.
            (Ok(_), Until::Read) => within(self.timeout, reading).await.map(|_| Ok(())),
            (Err(failure), _) => Some(Err(failure)),
        };
        self.reads.borrow_mut().remove(&id);
        match heard {
            Some(heard) => heard.map(|()| id),
            None => Err(self.no_word(id)),
        }
    }

    /// The relay has a message, and its recipient's devices have not said in time what they were to say.
    fn no_word(&self, id: MessageId) -> Failure {
        let (user, seconds) = (Printable(self.user), self.seconds());
        let what = if self.until == Until::Read {
            "was read"
        } else {
            "is on every device"
        };
        late(format_args!(
            "no word within {seconds} s that message {id} {what}: {user} is away, or has never written to you; the relay keeps it for them"
        ))
    }

    /// Shows what has happened, as far as it is to be.
    fn hear(&self, event: &Event) -> Result<Shown, Failure> {
        if let Event::Read { id, .. } = event
            && let Some(waiting) = self.reads.borrow_mut().remove(id)
        {
            // It may have given up.
            let _ = waiting.send(());
        }
        self.device.follow(event)?;
        let own = &self.device.identity.user;
        match (self.hears, event) {
            (Hears::Nothing, _) | (Hears::Notices, Event::Message(_) | Event::Copy { .. }) => {}
            (Hears::Notices, _) => events::notice(event, own, self.output),
            (Hears::Everything { read }, _) => {
                return events::show(event, own, read, &self.unsaved, self.output);
            }
        }
        Ok(Shown::Other)
    }

    /// Waits until the relay has a message; where it does not take it for a reason that passes, it has it later.
    async fn accept(&self, message: Message) -> Result<Receipt, Failure> {
        let accepting = async {
            loop {
                match self.device.client.send(self.user, message.clone()).await {
                    Err(error) if self.tries_again(&error) => tokio::time::sleep(LATER).await,
                    accepted => return accepted,
                }
            }
        };
        let accepted = within(self.timeout, accepting).await.ok_or_else(|| {
            late(format_args!(
                "the relay has not taken the message within {} s; it waits here and goes out with the next command that connects",
                self.seconds()
            ))
        })?;
        Ok(accepted?)
    }

    fn report(&self, arrived: &Arrived) -> Result<(), Failure> {
        if !self.reports {
            return Ok(());
        }
        let (state, shown) = match self.until {
            Until::Accepted => ("accepted", "safe at the relay"),
            Until::Delivered => ("delivered", "delivered"),
            Until::Read => ("read", "read"),
        };
        let id = arrived.id;
        let mut object = json!({"id": id.to_string(), "user": self.user, "state": state});
        if let (Some(line), Some(members)) = (arrived.line, object.as_object_mut()) {
            members.insert("line".to_owned(), line.into());
        }
        self.output.result(&object, format_args!("{id} {shown}"))
    }

    /// Whether a message that was not taken is handed over again, under the same id.
    fn tries_again(&self, error: &Error) -> bool {
        let Error::Refused(refusal) = *error else {
            return self.patient && matches!(error, Error::Misuse(Misuse::OutboxFull));
        };
        // A name that was mistyped is unknown for ever.
        let passes = refusal.is_retryable() && refusal != Refusal::UnknownUser;
        let soon = matches!(
            refusal,
            Refusal::RateLimited | Refusal::DevicesChanged | Refusal::Unavailable
        );
        passes && (soon || self.patient)
    }

    fn is_closed(&self) -> bool {
        matches!(self.device.client.connection(), ConnectionState::Closed(_))
    }

    fn seconds(&self) -> u64 {
        self.timeout.unwrap_or_default().as_secs()
    }
}

/// Bounds a step; `None` if it took too long.
pub(super) async fn within<T>(
    timeout: Option<Duration>,
    step: impl Future<Output = T>,
) -> Option<T> {
    match timeout {
        Some(timeout) => tokio::time::timeout(timeout, step).await.ok(),
        None => Some(step.await),
    }
}

fn late(what: impl std::fmt::Display) -> Failure {
    Failure::new(Class::Timeout, what)
}
