//! Calls of services that are under way, and what services have pushed: the connection task's side of [`crate::call`].
//!
//! ```text
//!  Command::Call ─▶ waiting ── a link, a place ──▶ open ── Result, Accepted, Refused ──▶ answer
//!                      │ too late: NotSent           │ too late: Timeout │ link lost: Interrupted
//!  Push ─▶ pushes, bounded ─▶ Event::Push
//! ```
//! What was sent once is never sent again: only its application knows whether that would do harm. Nothing here is stored.
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{self, ToRelay};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::call::{Asked, CallError};
use crate::engine::refusal;
use crate::event::{Event, Push};

/// Calls that the relay may have unanswered: a relay runs no more of one device at a time, and messages need requests too.
const MAX_OPEN: usize = 16;
/// Calls that may wait to be sent.
const MAX_WAITING: usize = 256;
/// Bytes of calls that may wait to be sent.
const MAX_WAITING_BYTES: usize = 16 << 20;
/// Pushes that may wait for the application.
const MAX_PUSHES: usize = 256;
/// Bytes of pushes that may wait for the application.
const MAX_PUSH_BYTES: usize = 8 << 20;

/// What is under way.
#[derive(Default)]
pub(super) struct Calls {
    waiting: VecDeque<Asked>,
    waiting_bytes: usize,
    open: BTreeMap<u32, Open>,
    pushes: VecDeque<Push>,
    push_bytes: usize,
    /// Pushes for which there was no room, since the application was last told.
    missed: u64,
}

/// A call that was sent.
struct Open {
    reply: bool,
    until: Option<Instant>,
    /// Nobody, once it was too late.
    answer: Option<oneshot::Sender<Result<Vec<u8>, CallError>>>,
}

impl Calls {
    /// Takes a call that is to be sent.
    pub(super) fn ask(&mut self, asked: Asked) {
        let bytes = self.waiting_bytes.saturating_add(asked.payload.len());
        if self.waiting.len() >= MAX_WAITING || bytes > MAX_WAITING_BYTES {
            // Whoever does not wait any more does not want to know.
            let _ = asked.answer.send(Err(CallError::TooMany));
            return;
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(asked);
    }

    /// The next call to send, if the relay may get it. [`Calls::sent`] follows.
    pub(super) fn next(&mut self) -> Option<Asked> {
        if self.open.len() >= MAX_OPEN {
            return None;
        }
        while let Some(asked) = self.waiting.pop_front() {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(asked.payload.len());
            // Whoever has dropped the future does not want it carried out.
            if !asked.answer.is_closed() {
                return Some(asked);
            }
        }
        None
    }

    /// It goes out under this request.
    pub(super) fn sent(&mut self, request: u32, asked: Asked) {
        let open = Open {
            reply: asked.reply,
            until: asked.until.map(Instant::from_std),
            answer: Some(asked.answer),
        };
        self.open.insert(request, open);
    }

    /// A service has answered; false if that was not asked.
    pub(super) fn result(&mut self, request: u32, payload: &[u8]) -> bool {
        self.answer(request, true, || Ok(payload.to_vec()))
    }

    /// A service has taken a notification; false if the request was none.
    pub(super) fn accepted(&mut self, request: u32) -> bool {
        self.answer(request, false, || Ok(Vec::new()))
    }

    /// A call was refused; false if the request was none.
    pub(super) fn refused(&mut self, request: u32, code: RefusalCode) -> bool {
        let Some(reply) = self.open.get(&request).map(|open| open.reply) else {
            return false;
        };
        self.answer(request, reply, || Err(refusal(code).into()))
    }

    fn answer(
        &mut self,
        request: u32,
        reply: bool,
        answer: impl FnOnce() -> Result<Vec<u8>, CallError>,
    ) -> bool {
        if self
            .open
            .get(&request)
            .is_none_or(|open| open.reply != reply)
        {
            return false;
        }
        if let Some(Open {
            answer: Some(to), ..
        }) = self.open.remove(&request)
        {
            let _ = to.send(answer());
        }
        true
    }

    /// When the next one is too late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.waiting.iter().filter_map(|asked| asked.until);
        let open = self.open.values().filter(|open| open.answer.is_some());
        waiting
            .map(Instant::from_std)
            .chain(open.filter_map(|open| open.until))
            .min()
    }

    /// Gives up what is too late. The requests of what was sent stay open until the relay answers them.
    pub(super) fn give_up(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        for asked in std::mem::take(&mut self.waiting) {
            if asked
                .until
                .is_some_and(|until| Instant::from_std(until) <= now)
            {
                self.waiting_bytes = self.waiting_bytes.saturating_sub(asked.payload.len());
                let _ = asked.answer.send(Err(CallError::NotSent));
            } else {
                self.waiting.push_back(asked);
            }
        }
        for open in self.open.values_mut() {
            if open.until.is_some_and(|until| until <= now)
                && let Some(answer) = open.answer.take()
            {
                let _ = answer.send(Err(CallError::Timeout));
            }
        }
    }

    /// The link is gone, and with it every answer. What was not sent waits for the next.
    pub(super) fn link_lost(&mut self) {
        for open in std::mem::take(&mut self.open).into_values() {
            if let Some(answer) = open.answer {
                let _ = answer.send(Err(CallError::Interrupted));
            }
        }
    }

    /// Nothing will be sent any more: whoever waits is told by the end of their channel.
    pub(super) fn close(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
    }

    /// A service has pushed something.
    pub(super) fn pushed(&mut self, push: &frame::Push<'_>) {
        let bytes = self.push_bytes.saturating_add(push.payload.len());
        if self.pushes.len() >= MAX_PUSHES || bytes > MAX_PUSH_BYTES {
            self.missed = self.missed.saturating_add(1);
            return;
        }
        self.push_bytes = bytes;
        self.pushes.push_back(Push {
            service: Arc::from(push.service),
            payload: push.payload.to_vec(),
        });
    }

    /// The next event, without taking it: what came, and then that something is missing behind it.
    pub(super) fn event(&self) -> Option<Event> {
        if let Some(push) = self.pushes.front() {
            return Some(Event::Push(push.clone()));
        }
        let count = self.missed;
        (count > 0).then_some(Event::PushesMissed { count })
    }

    /// The event was given.
    pub(super) fn event_given(&mut self) {
        match self.pushes.pop_front() {
            Some(push) => self.push_bytes = self.push_bytes.saturating_sub(push.payload.len()),
            None => self.missed = 0,
        }
    }
}

/// Lends a call as a frame.
pub(super) fn frame(asked: &Asked, request: u32) -> ToRelay<'_> {
    ToRelay::Call(frame::Call {
        request,
        reply: asked.reply,
        service: asked.service.as_str(),
        payload: &asked.payload,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::Refusal;

    type Answer = oneshot::Receiver<Result<Vec<u8>, CallError>>;

    fn asked(reply: bool, bytes: usize, seconds: u64) -> (Asked, Answer) {
        let (answer, receiver) = oneshot::channel();
        let asked = Asked {
            service: "orders.create".parse().unwrap(),
            payload: vec![0; bytes],
            reply,
            until: Some(Instant::now().into_std() + Duration::from_secs(seconds)),
            answer,
        };
        (asked, receiver)
    }

    fn send(calls: &mut Calls, request: u32, reply: bool) -> Answer {
        let (asked, answer) = asked(reply, 1, 30);
        calls.ask(asked);
        let asked = calls.next().unwrap();
        calls.sent(request, asked);
        answer
    }

    #[test]
    fn answer_goes_to_whoever_asked_and_fits_what_was_asked() {
        let mut calls = Calls::default();
        let mut call = send(&mut calls, 1, true);
        let mut notification = send(&mut calls, 2, false);
        let mut refused = send(&mut calls, 3, true);
        assert!(!calls.accepted(1), "a call is answered with a result");
        assert!(!calls.result(2, b"x"), "a notification has none");
        assert!(!calls.result(9, b"x") && !calls.refused(9, RefusalCode::Unavailable));
        assert!(calls.result(1, b"done"));
        assert!(calls.accepted(2));
        assert!(calls.refused(3, RefusalCode::ServiceFailed));
        assert_eq!(call.try_recv().unwrap(), Ok(b"done".to_vec()));
        assert_eq!(notification.try_recv().unwrap(), Ok(Vec::new()));
        let failed = CallError::Refused(Refusal::ServiceFailed);
        assert_eq!(refused.try_recv().unwrap(), Err(failed));
        assert!(!calls.result(1, b"again"), "once");
    }

    #[test]
    fn what_is_too_late_says_whether_it_was_sent() {
        let mut calls = Calls::default();
        let mut open = send(&mut calls, 1, true);
        let (late, mut waiting) = asked(true, 1, 10);
        let (later, mut patient) = asked(true, 1, 60);
        calls.ask(late);
        calls.ask(later);
        let start = Instant::now();
        calls.give_up(start);
        assert!(waiting.try_recv().is_err());
        let deadline = calls.deadline().unwrap();
        assert!(deadline <= start + Duration::from_secs(10));
        calls.give_up(deadline);
        assert_eq!(waiting.try_recv().unwrap(), Err(CallError::NotSent));
        assert!(open.try_recv().is_err());
        calls.give_up(start + Duration::from_secs(31));
        assert_eq!(open.try_recv().unwrap(), Err(CallError::Timeout));
        assert!(calls.result(1, b"late"), "it was asked");
        assert!(patient.try_recv().is_err());
    }

    #[test]
    fn what_was_sent_is_not_sent_again() {
        let mut calls = Calls::default();
        let mut open = send(&mut calls, 1, true);
        let (asked, mut waiting) = asked(true, 1, 30);
        calls.ask(asked);
        calls.link_lost();
        assert_eq!(open.try_recv().unwrap(), Err(CallError::Interrupted));
        assert!(waiting.try_recv().is_err());
        let next = calls.next().unwrap();
        calls.sent(1, next);
        assert!(calls.next().is_none());
        assert!(calls.result(1, b"done"));
        assert_eq!(waiting.try_recv().unwrap(), Ok(b"done".to_vec()));
    }

    #[test]
    fn call_that_nobody_waits_for_is_not_sent() {
        let mut calls = Calls::default();
        let (first, dropped) = asked(true, 1, 30);
        let (second, _waits) = asked(false, 1, 30);
        calls.ask(first);
        calls.ask(second);
        drop(dropped);
        assert!(!calls.next().unwrap().reply);
    }

    #[test]
    fn everything_that_waits_is_bounded() {
        let mut calls = Calls::default();
        let mut answers = Vec::new();
        for request in 0..MAX_OPEN {
            answers.push(send(&mut calls, u32::try_from(request).unwrap(), true));
        }
        for _ in 0..MAX_WAITING {
            let (asked, answer) = asked(true, 1, 30);
            calls.ask(asked);
            answers.push(answer);
        }
        assert!(calls.next().is_none(), "the relay has enough");
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
        let (over, mut answer) = asked(true, 1, 30);
        calls.ask(over);
        assert_eq!(answer.try_recv().unwrap(), Err(CallError::TooMany));

        let mut calls = Calls::default();
        let (large, _waits) = asked(true, MAX_WAITING_BYTES, 30);
        calls.ask(large);
        let (over, mut answer) = asked(true, 1, 30);
        calls.ask(over);
        assert_eq!(answer.try_recv().unwrap(), Err(CallError::TooMany));
        assert!(calls.next().is_some(), "then there is room again");
        let (small, mut answer) = asked(true, 1, 30);
        calls.ask(small);
        assert!(answer.try_recv().is_err());
    }

    #[test]
    fn pushes_that_do_not_fit_are_counted_and_told_behind_those_that_did() {
        let mut calls = Calls::default();
        let push = frame::Push {
            service: "news",
            payload: b"x",
        };
        for _ in 0..MAX_PUSHES + 3 {
            calls.pushed(&push);
        }
        for _ in 0..MAX_PUSHES {
            assert!(matches!(calls.event(), Some(Event::Push(push)) if &*push.service == "news"));
            calls.event_given();
        }
        assert_eq!(calls.event(), Some(Event::PushesMissed { count: 3 }));
        calls.event_given();
        assert_eq!(calls.event(), None);
        let large = vec![0; MAX_PUSH_BYTES + 1];
        let large = frame::Push {
            service: "news",
            payload: &large,
        };
        calls.pushed(&large);
        assert_eq!(calls.event(), Some(Event::PushesMissed { count: 1 }));
    }
}
