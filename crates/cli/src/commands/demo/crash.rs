//! The relay is killed while messages are under way: what comes of them.

use std::time::{Duration, Instant};

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use sealwire_client::{Client, Message, MessageId};

use super::relay::Relay;
use super::{next_message, within};
use crate::exit::Failure;

/// Messages that are under way, and how many of them the relay has when it is killed.
pub(super) const MESSAGES: usize = 100;
const BEFORE: usize = 30;
/// What is in each of them.
pub(super) const WORDS: &str = "Count the lanterns:";

/// What came of it.
pub(super) struct Crash {
    /// For how long there was none.
    pub(super) away: Duration,
    accepted: Vec<MessageId>,
    received: Vec<MessageId>,
}

/// Kills `relay` while `alice` writes and `bob` reads, starts it again, and waits until all has arrived. Gives the relay that runs then.
pub(super) async fn crash(
    relay: Relay,
    alice: &Client,
    bob: &Client,
) -> Result<(Relay, Crash), Failure> {
    let writing = async {
        let mut sending: FuturesOrdered<_> = (1..=MESSAGES)
            .map(|number| alice.send("bob", Message::text(format!("{WORDS} {number}"))))
            .collect();
        let mut accepted = Vec::new();
        let mut relay = Some(relay);
        let mut away = Duration::ZERO;
        while let Some(receipt) = within("the relay takes a message", next(&mut sending)).await? {
            accepted.push(receipt.id());
            if accepted.len() == BEFORE
                && let Some(running) = relay.take()
            {
                let killed = Instant::now();
                let gone = running.kill().await?;
                relay = Some(within("the relay comes back", gone.start()).await?);
                away = killed.elapsed();
            }
        }
        let relay = relay.ok_or_else(|| Failure::failed("the relay is gone"))?;
        Ok::<_, Failure>((relay, away, accepted))
    };
    let reading = async {
        let mut received = Vec::new();
        while received.len() < MESSAGES {
            received.push(next_message(bob).await?.id);
        }
        Ok::<_, Failure>(received)
    };
    let ((relay, away, accepted), received) = tokio::try_join!(writing, reading)?;
    let crash = Crash {
        away,
        accepted,
        received,
    };
    Ok((relay, crash))
}

impl Crash {
    /// Another message was shown to the reader; if it is one of these, it is one too many.
    pub(super) fn also_received(&mut self, id: MessageId) {
        if self.accepted.contains(&id) {
            self.received.push(id);
        }
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.len()
    }

    pub(super) fn received(&self) -> usize {
        self.received.len()
    }

    pub(super) fn lost(&self) -> usize {
        let lost = |id: &&MessageId| !self.received.contains(id);
        self.accepted.iter().filter(lost).count()
    }

    pub(super) fn twice(&self) -> usize {
        let received = self.received.iter().enumerate();
        let again = |(at, id): &(usize, &MessageId)| {
            self.received.iter().position(|first| first == *id) != Some(*at)
        };
        received.filter(again).count()
    }

    /// Whether they came once each, in the order in which they were written.
    pub(super) fn held(&self) -> bool {
        self.received == self.accepted && self.accepted.len() == MESSAGES
    }
}

async fn next<T>(
    sending: &mut FuturesOrdered<impl Future<Output = Result<T, sealwire_client::Error>>>,
) -> Result<Option<T>, sealwire_client::Error> {
    sending.next().await.transpose()
}
