//! Messages under way: handed to the client in order, and reported in the same order when they have got as far as was asked.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use sealwire_client::error::Refusal;
use sealwire_client::{ConnectionState, Error, Message, MessageId, Receipt};
use serde_json::json;

use super::Until;
use super::source::{Given, Source};
use crate::device::Device;
use crate::exit::{Class, Failure};
use crate::output::{Output, Printable};

/// How long to wait where the relay takes no more for now.
const SLOWER: Duration = Duration::from_millis(500);

/// How messages are sent.
pub(super) struct Way<'a> {
    pub(super) device: &'a Device,
    pub(super) user: &'a str,
    /// How far a message has to get.
    pub(super) until: Until,
    /// How long each step may take; `None`: as long as it does.
    pub(super) timeout: Option<Duration>,
    /// How many may be under way.
    pub(super) at_once: usize,
    pub(super) output: Output,
}

/// A message that has got as far as was asked.
struct Arrived {
    id: MessageId,
    line: Option<u64>,
}

type UnderWay<'a> = Pin<Box<dyn Future<Output = Result<Arrived, Failure>> + 'a>>;

impl Way<'_> {
    /// Sends all that `source` gives. What goes wrong with one message is said and does not keep the others; the last of it is how it ends.
    pub(super) async fn send(&self, mut source: Source) -> Result<(), Failure> {
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
    async fn carry(&self, message: Message) -> Result<MessageId, Failure> {
        let receipt = self.accept(message).await?;
        let id = receipt.id();
        if self.until == Until::Delivered {
            let delivered = within(self.timeout, receipt.delivered()).await;
            delivered.ok_or_else(|| {
                late(format_args!(
                    "no device of {} has fetched message {id} within {} s; the relay keeps it for them",
                    Printable(self.user),
                    self.seconds()
                ))
            })??;
        }
        Ok(id)
    }

    /// Waits until the relay has a message; where it wants fewer at a time, it has it later.
    async fn accept(&self, message: Message) -> Result<Receipt, Failure> {
        let accepting = async {
            loop {
                match self.device.client.send(self.user, message.clone()).await {
                    Err(Error::Refused(Refusal::RateLimited)) => tokio::time::sleep(SLOWER).await,
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
        let (state, shown) = match self.until {
            Until::Accepted => ("accepted", "safe at the relay"),
            Until::Delivered => ("delivered", "delivered"),
        };
        let id = arrived.id;
        let mut object = json!({"id": id.to_string(), "user": self.user, "state": state});
        if let (Some(line), Some(members)) = (arrived.line, object.as_object_mut()) {
            members.insert("line".to_owned(), line.into());
        }
        self.output.result(&object, format_args!("{id} {shown}"))
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
