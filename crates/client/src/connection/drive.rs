//! A link in use: frames from the engine to the relay, frames from the relay to the engine, and what time brings.
//!
//! ```text
//!  engine ── poll_request ──▶ pump ──▶ Established ──▶ relay
//!    ▲                                                   │
//!    └── handle_* ◀── handle_frame ◀── handle_record ◀───┘        pings, refreshes, silence: handle_timeout
//! ```
//!
//! What the end of a link means is for [`task`](super::task).

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sealwire_protocol::frame::{List, Send as SendFrame, ToDevice, ToRelay};
use sealwire_protocol::limits::MAX_OPEN_REQUESTS;
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

use super::calls;
use super::dialer::{Dialer, TokenAnswer};
use super::established::{End, Established};
use super::patience::Patience;
use super::task::{Core, Stop, now};
use super::{
    CLOSING_TIMEOUT, ConnectionState, HANDSHAKE_TIMEOUT, PING_INTERVAL, REFRESH_AHEAD,
    REFRESH_RETRY,
};
use crate::engine::{Reply, Request};
use crate::error::{RelayFault, Unreachable};
use crate::message::Acks;

/// Records that are handled before anything is committed or sent.
const RECORDS_AT_ONCE: usize = 16;

/// A link in use.
pub(super) struct Drive<'a> {
    core: &'a mut Core,
    dialer: &'a mut Dialer,
    link: &'a mut Established,
    next_ping: Instant,
    /// Ready, and a token where the relay mints it, have to be there by then.
    ready_by: Option<Instant>,
    refresh_at: Option<Instant>,
    /// The application's source of tokens has been asked.
    asked: Option<TokenAnswer>,
    /// The refresh that the relay has not answered, and when its token expires, if that is known here.
    refreshing: Option<(u32, Option<u64>)>,
    /// Not before then is there another.
    refresh_after: Instant,
    patience: Patience,
    acks: Arc<Acks>,
    /// What the relay has been told to be stored.
    acknowledged: u64,
}

impl<'a> Drive<'a> {
    pub(super) fn new(
        core: &'a mut Core,
        dialer: &'a mut Dialer,
        link: &'a mut Established,
    ) -> Self {
        let start = Instant::now();
        let acks = core.engine.acks();
        Self {
            core,
            dialer,
            link,
            next_ping: start + PING_INTERVAL,
            ready_by: Some(start + HANDSHAKE_TIMEOUT),
            refresh_at: None,
            asked: None,
            refreshing: None,
            refresh_after: start,
            patience: Patience::new(start),
            acks,
            acknowledged: 0,
        }
    }

    /// Runs until the link ends.
    pub(super) async fn run(mut self) -> Stop {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(Stop::Application) => {
                    // Whatever comes of it, the application has closed the client.
                    let _ = timeout(CLOSING_TIMEOUT, self.finish()).await;
                    return Stop::Application;
                }
                Err(stop) => return stop,
            }
        }
    }

    /// Lets what was begun come to its end, receipts of the last messages above all: they would wait in the outbox otherwise, until the
    /// device connects the next time.
    async fn finish(&mut self) -> Result<(), Stop> {
        loop {
            self.pump()?;
            if !self.core.engine.is_ready() || self.core.engine.open_requests() == 0 {
                return Ok(self.link.written().await?);
            }
            if let Some(mut record) = self.link.turn(true).await? {
                self.handle_record(&mut record)?;
            }
        }
    }

    async fn step(&mut self) -> Result<(), Stop> {
        self.pump()?;
        self.core.give_event();
        let may_read = self.core.engine.may_read();
        self.patience.read(may_read, Instant::now());
        self.patience.heard(Instant::from_std(self.link.heard));
        if !may_read {
            self.connected();
        }
        let deadline = self.deadline();
        tokio::select! {
            turned = self.link.turn(may_read) => match turned? {
                Some(record) => self.handle_records(record),
                None => Ok(()),
            },
            command = self.core.commands.recv() => self.core.handle_commands(command),
            () = self.acks.some() => Ok(()),
            token = answer(&mut self.asked), if self.asked.is_some() => {
                self.asked = None;
                self.refresh_with(token)
            }
            () = tokio::time::sleep_until(deadline) => self.handle_timeout(),
        }
    }

    /// Commits what has happened, and sends everything that the engine has to send.
    fn pump(&mut self) -> Result<(), Stop> {
        self.core.engine.settle(now())?;
        self.core.calls.give_up(Instant::now());
        while self.link.has_room()
            && let Some(request) = self.core.engine.poll_request()
        {
            self.push(&request)?;
        }
        self.push_transfers()?;
        self.push_calls()?;
        let position = self.core.engine.position();
        let engine = &self.core.engine;
        if engine.is_ready() && engine.has_room() && position > self.acknowledged {
            self.acknowledged = position;
            self.link.push(&ToRelay::Ack { position })?;
        }
        Ok(self.link.flush()?)
    }

    /// Whether the relay may get one more request, with one left for a refresh.
    fn may_ask(&self) -> bool {
        self.link.has_room() && self.core.engine.open_requests() + 1 < MAX_OPEN_REQUESTS
    }

    /// Sends what transfers of files ask, as much of it as the relay may get.
    fn push_transfers(&mut self) -> Result<(), Stop> {
        while self.core.transfers.has_next() && self.core.engine.is_ready() && self.may_ask() {
            let request = self.core.engine.reserve_request();
            if let Some(ask) = self.core.transfers.next(request) {
                self.patience.asked(request, Instant::now());
                self.link.push(&ask.frame(request))?;
            }
        }
        Ok(())
    }

    /// Sends calls of services, as many as the relay may get. They have their own time: a slow service says nothing about the link.
    fn push_calls(&mut self) -> Result<(), Stop> {
        // What the relay will not read on this link waits for the next: then it is known not to have been carried out.
        while self.core.engine.is_ready()
            && !self.core.is_left()
            && self.may_ask()
            && let Some(asked) = self.core.calls.next()
        {
            let request = self.core.engine.reserve_request();
            let pushed = self.link.push(&calls::frame(&asked, request));
            self.core.calls.sent(request, asked);
            pushed?;
        }
        Ok(())
    }

    fn push(&mut self, request: &Request) -> Result<(), Stop> {
        let (Request::PublishCard {
            request: number, ..
        }
        | Request::PublishPrekeys {
            request: number, ..
        }
        | Request::FetchCards {
            request: number, ..
        }
        | Request::RemoveDevice {
            request: number, ..
        }
        | Request::Send {
            request: number, ..
        }) = request;
        self.patience.asked(*number, Instant::now());
        match request {
            Request::PublishCard { request, card } => {
                let frame = ToRelay::PublishCard {
                    request: *request,
                    card: card.as_bytes(),
                };
                self.link.push(&frame)?;
            }
            Request::PublishPrekeys {
                request,
                replace,
                prekeys,
            } => {
                let encoded: Vec<_> = prekeys
                    .iter()
                    .map(sealwire_e2e::one_time::OneTimePrekey::encode)
                    .collect();
                let prekeys: Option<Vec<_>> =
                    encoded.iter().map(|bytes| wire_prekey(bytes)).collect();
                let prekeys = prekeys.ok_or(RelayFault::Record).map_err(End::from)?;
                let frame = ToRelay::PublishPrekeys {
                    request: *request,
                    replace: *replace,
                    prekeys: List::from(&prekeys),
                };
                self.link.push(&frame)?;
            }
            Request::FetchCards {
                request,
                user,
                take,
            } => {
                let frame = ToRelay::FetchCards {
                    request: *request,
                    user,
                    take: *take,
                };
                self.link.push(&frame)?;
            }
            Request::Send { request, entry } => {
                let Some(send) = self.core.engine.outgoing(*entry) else {
                    return Ok(());
                };
                let frame = ToRelay::Send(SendFrame {
                    request: *request,
                    sequence: send.sequence,
                    id: send.id,
                    user: send.user,
                    whole: send.whole,
                    parts: List::from(&send.parts),
                    copies: List::from(&send.copies),
                });
                self.link.push(&frame)?;
            }
            Request::RemoveDevice { request, device } => {
                let frame = ToRelay::RemoveDevice {
                    request: *request,
                    device: *device,
                };
                self.link.push(&frame)?;
            }
        }
        Ok(())
    }

    /// Handles a record and what else is here: all of it shares one commit.
    fn handle_records(&mut self, first: Vec<u8>) -> Result<(), Stop> {
        let mut record = first;
        for _ in 1..RECORDS_AT_ONCE {
            self.handle_record(&mut record)?;
            if !self.core.engine.may_read() {
                return Ok(());
            }
            match self.link.turn(true).now_or_never().transpose()?.flatten() {
                Some(next) => record = next,
                None => return Ok(()),
            }
        }
        self.handle_record(&mut record)
    }

    fn handle_record(&mut self, record: &mut [u8]) -> Result<(), Stop> {
        let frames = match self.link.link.handle_message(record) {
            Ok(frames) => frames,
            Err(error) => return Err(self.link.fail(error).into()),
        };
        for frame in frames {
            self.handle_frame(frame)?;
        }
        Ok(())
    }

    fn handle_frame(&mut self, frame: ToDevice<'_>) -> Result<(), Stop> {
        match frame {
            ToDevice::Ready(ready) => {
                self.core.engine.handle_ready(&ready, now())?;
                self.acknowledged = ready.acknowledged;
                self.plan_refresh(ready.token_expires, ready.time);
                self.entered();
            }
            ToDevice::Accepted { request } if self.is_refresh(request) => {
                self.release(request);
                if let Some((_, Some(expires))) = self.refreshing.take() {
                    self.plan_refresh(expires, now().seconds());
                }
            }
            ToDevice::Refused { request, code } if self.is_refresh(request) => {
                tracing::warn!(code = code.name(), "the relay refuses a refresh");
                self.release(request);
                self.refreshing = None;
                self.refresh_at = Some(Instant::now() + REFRESH_RETRY);
            }
            ToDevice::Token {
                request,
                expires,
                token,
            } if request == 0 || self.is_refresh(request) => {
                if request != 0 {
                    self.release(request);
                    self.refreshing = None;
                }
                let token =
                    std::str::from_utf8(token).map_err(|_| End::from(RelayFault::Record))?;
                self.core.engine.handle_token(token, now())?;
                // Whoever exchanges is not enrolled.
                if !self.dialer.exchanges() {
                    self.core.engine.set_enrolled()?;
                }
                self.plan_refresh(expires, now().seconds());
                self.entered();
            }
            ToDevice::Token { .. } => return Err(End::from(RelayFault::Unasked).into()),
            ToDevice::Accepted { request } if self.core.transfers.accepted(request) => {
                self.release(request);
            }
            ToDevice::Refused { request, code } if self.core.transfers.refused(request, code) => {
                self.release(request);
            }
            ToDevice::Accepted { request } if self.core.calls.accepted(request) => {
                self.core.engine.release_request(request);
            }
            ToDevice::Refused { request, code } if self.core.calls.refused(request, code) => {
                self.core.engine.release_request(request);
            }
            ToDevice::Result { request, payload } if self.core.calls.result(request, payload) => {
                self.core.engine.release_request(request);
            }
            ToDevice::Result { .. } => return Err(End::from(RelayFault::Unasked).into()),
            ToDevice::Push(push) => self.core.calls.pushed(&push),
            ToDevice::Accepted { request } => self.reply(request, &Reply::Accepted)?,
            ToDevice::Refused { request, code } => self.reply(request, &Reply::Refused(code))?,
            ToDevice::Cards { request, entries } => self.reply(request, &Reply::Cards(entries))?,
            ToDevice::Deliver(deliver) => self.core.engine.handle_deliver(&deliver, now())?,
            ToDevice::DeviceChanged { user } => self.core.engine.handle_device_changed(user)?,
            ToDevice::Undelivered(notice) => self.core.engine.handle_undelivered(&notice)?,
            ToDevice::Blob(blob) if self.core.transfers.blob(&blob) => self.release(blob.request),
            ToDevice::Blob(_) => return Err(End::from(RelayFault::Unasked).into()),
            ToDevice::Damaged { position } => self.core.engine.handle_damaged(position)?,
            ToDevice::Expiring { expires: _ } => self.refresh_now(),
            ToDevice::Leaving { after } => self.core.stay_away(after),
        }
        Ok(())
    }

    fn reply(&mut self, request: u32, reply: &Reply<'_>) -> Result<(), Stop> {
        self.patience.answered(request, Instant::now());
        self.core.engine.handle_reply(request, reply, now())?;
        self.entered();
        Ok(())
    }

    /// Looks whether the relay has let the device in and the device knows who it is; whoever waits for the first connection is
    /// told once others can write to the device too.
    fn entered(&mut self) {
        if self.core.engine.is_ready() && self.ready_by.take().is_some() {
            self.dialer.accepted();
            self.core.enter(ConnectionState::Connected);
        }
        if self.core.engine.is_ready() && self.core.engine.is_published() {
            self.connected();
        }
    }

    /// Tells whoever waits for the first connection. Where the store is so full of messages that nothing is read, only they can
    /// make room.
    fn connected(&mut self) {
        if let Some(first) = self.core.first.take() {
            let _ = first.send(Ok(()));
        }
    }

    fn release(&mut self, request: u32) {
        self.patience.answered(request, Instant::now());
        self.core.engine.release_request(request);
    }

    fn is_refresh(&self, request: u32) -> bool {
        self.refreshing
            .is_some_and(|(refresh, _)| refresh == request)
    }

    /// Plans the refresh of a token that expires at `expires`, by a clock that says `time`.
    fn plan_refresh(&mut self, expires: u64, time: u64) {
        let left = Duration::from_secs(expires.saturating_sub(time));
        self.refresh_at = refresh_time(left, Instant::now(), self.refresh_after);
    }

    /// The relay's clock says that the token is as good as over: asks for another, unless that is under way.
    fn refresh_now(&mut self) {
        if self.asked.is_none() && self.refreshing.is_none() {
            let at = Instant::now().max(self.refresh_after);
            self.refresh_at = Some(self.refresh_at.map_or(at, |planned| planned.min(at)));
        }
    }

    fn deadline(&self) -> Instant {
        let late = self.patience.deadline();
        let written_by = self.link.written_by();
        let own = [self.ready_by, self.refresh_at, written_by];
        [self.core.deadline(), late]
            .into_iter()
            .chain(own)
            .flatten()
            .fold(self.next_ping, Instant::min)
    }

    fn handle_timeout(&mut self) -> Result<(), Stop> {
        let time = Instant::now();
        // Pings and pongs count too.
        self.patience.heard(Instant::from_std(self.link.heard));
        let late = [self.patience.deadline(), self.ready_by];
        if late.into_iter().flatten().any(|by| by <= time) {
            return Err(End::Retry(Unreachable::Timeout).into());
        }
        let written_by = self.link.written_by();
        if written_by.is_some_and(|by| by <= time) {
            return Err(End::Retry(Unreachable::Broken).into());
        }
        if self.next_ping <= time {
            self.next_ping = time + PING_INTERVAL;
            self.link.ping();
        }
        if self.refresh_at.is_some_and(|at| at <= time) {
            self.refresh_at = None;
            self.refresh_after = time + self.dialer.refresh_floor;
            match self.dialer.ask() {
                Some(asked) => self.asked = Some(asked),
                None => self.refresh(Zeroizing::new(String::new()), None)?,
            }
        }
        Ok(())
    }

    /// The application's source of tokens has answered.
    fn refresh_with(&mut self, token: Option<Zeroizing<String>>) -> Result<(), Stop> {
        let Some(token) = token else {
            self.refresh_at = Some(Instant::now() + REFRESH_RETRY);
            return Ok(());
        };
        // The relay's own comes with the answer.
        if !self.dialer.exchanges() {
            self.core.engine.handle_token(&token, now())?;
        }
        let expires = self.dialer.remember(&token);
        self.refresh(token, expires)
    }

    /// Refreshes in-band (`docs/protocol.md §5.4`); an empty token asks the built-in issuer for one.
    fn refresh(&mut self, token: Zeroizing<String>, expires: Option<u64>) -> Result<(), Stop> {
        let request = self.core.engine.reserve_request();
        self.patience.asked(request, Instant::now());
        let keys = self.core.engine.keys();
        let proof = self
            .link
            .link
            .refresh_proof(keys.signing(), token.as_bytes(), now().seconds());
        let frame = ToRelay::Refresh {
            request,
            proof: proof.as_bytes(),
            token: token.as_bytes(),
        };
        self.link.push(&frame)?;
        self.refreshing = Some((request, expires));
        Ok(())
    }
}

/// When to refresh a token of which `left` is left. That it is as good as over is no reason to do so without pause.
fn refresh_time(left: Duration, now: Instant, not_before: Instant) -> Option<Instant> {
    let ahead = REFRESH_AHEAD.min(left / 4);
    let at = now.checked_add(left.saturating_sub(ahead))?;
    Some(at.max(not_before))
}

/// Waits for a token that was asked for; `None` if there is none.
async fn answer(asked: &mut Option<TokenAnswer>) -> Option<Zeroizing<String>> {
    match asked {
        Some(asked) => asked.await.ok()?.ok(),
        None => std::future::pending().await,
    }
}

/// A one-time prekey in the form in which it is put into a frame.
pub(crate) fn wire_prekey(encoded: &[u8]) -> Option<sealwire_protocol::frame::OneTimePrekey<'_>> {
    let (id, rest) = encoded.split_first_chunk()?;
    let (x25519, rest) = rest.split_first_chunk()?;
    let (kem_key, rest) = rest.split_first_chunk()?;
    let (signature, rest) = rest.split_first_chunk()?;
    rest.is_empty()
        .then_some(sealwire_protocol::frame::OneTimePrekey {
            id: u32::from_be_bytes(*id),
            x25519,
            kem_key,
            signature,
        })
}

#[cfg(test)]
mod tests {
    use super::super::REFRESH_FLOOR;
    use super::*;

    #[test]
    fn token_is_refreshed_ahead_of_its_end_but_never_without_pause() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let floor = now + REFRESH_FLOOR;
        for (left, not_before, expected) in [
            (3_600, now, now + seconds(3_480)),
            (60, now, now + seconds(45)),
            (0, now, now),
            (0, floor, floor),
            (4, floor, floor),
            (60, floor, now + seconds(45)),
        ] {
            assert_eq!(
                refresh_time(seconds(left), now, not_before),
                Some(expected),
                "{left}"
            );
        }
        assert_eq!(refresh_time(Duration::MAX, now, now), None);
    }
}
