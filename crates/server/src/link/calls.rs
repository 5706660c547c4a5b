//! The calls of services that a link has under way (docs/protocol.md §17).
//!
//! ```text
//!  begin ─▶ task: place ── ready ── call ── time-out ─▶ answer ─▶ poll_answered ─▶ Accepted, Refused: said at once
//!                                                                             └▶ results ── as the device reads ─▶ Result
//! ```
//! Each handler runs in a task of its own, so that neither its work nor its panic is the link's. A link has [`MAX_RUNNING_CALLS`] places; a call keeps
//! its place until its result is taken by [`Calls::take_result`], so that a device that does not read holds no more results than that.
use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use sealwire_protocol::frame::RequestId;
use sealwire_protocol::limits::MAX_SERVICE_PAYLOAD_BYTES;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::{Service as _, ServiceExt as _};
use tracing::{Instrument as _, Span};

use crate::bounds::MAX_RUNNING_CALLS;
use crate::refusal::Cause;
use crate::services::{BoxError, Call, Handler};
use crate::spans;

/// What a link has under way.
#[derive(Debug)]
pub(super) struct Calls {
    places: Arc<Semaphore>,
    /// Dropping it ends them where they wait.
    tasks: JoinSet<()>,
    /// Bytes of calls whose tasks have not ended, whatever has been told of them.
    bytes: Arc<AtomicUsize>,
    answers: FuturesUnordered<Answering>,
    results: VecDeque<(RequestId, Bytes, OwnedSemaphorePermit)>,
}

/// What there is to say of a call.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) request: RequestId,
    pub(super) answer: Answer,
}

/// How a call has ended, as its device is told.
#[derive(Debug)]
pub(super) enum Answer {
    /// The handler has taken what needs no reply.
    Accepted,
    /// There is a result, which waits for [`Calls::take_result`].
    Result,
    Refused(Cause),
}

/// What a task tells its link.
#[derive(Debug)]
enum Told {
    Taken,
    Result(Bytes, OwnedSemaphorePermit),
    Failed(Cause),
}

/// A task that has not told anything yet.
#[derive(Debug)]
struct Answering {
    request: RequestId,
    told: oneshot::Receiver<Told>,
}

impl Future for Answering {
    type Output = (RequestId, Told);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.told.poll_unpin(cx).map(|told| {
            // A task that ends without a word has panicked where nothing catches it: its handler may have done what it was to do.
            let told = told.unwrap_or(Told::Failed(Cause::ServiceFailed));
            (self.request, told)
        })
    }
}

impl Calls {
    pub(super) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_RUNNING_CALLS)),
            tasks: JoinSet::new(),
            bytes: Arc::default(),
            answers: FuturesUnordered::new(),
            results: VecDeque::new(),
        }
    }

    /// Calls the handler in `span`, once there is a place and it is ready. `limit` is for all of it.
    pub(super) fn begin(
        &mut self,
        request: RequestId,
        handler: Handler,
        call: Call,
        limit: Duration,
        span: Span,
    ) {
        let (tell, told) = oneshot::channel();
        self.answers.push(Answering { request, told });
        let places = Arc::clone(&self.places);
        let held = Held::new(&self.bytes, call.payload().len());
        let work = async move {
            let _held = held;
            serve(places, handler, call, limit, tell).await;
        };
        self.tasks.spawn(work.instrument(span));
    }

    /// The next call of which there is something to say.
    pub(super) fn poll_answered(&mut self, cx: &mut Context<'_>) -> Poll<Answered> {
        let Poll::Ready(Some((request, told))) = self.answers.poll_next_unpin(cx) else {
            return Poll::Pending;
        };
        let answer = match told {
            Told::Taken => Answer::Accepted,
            Told::Failed(cause) => Answer::Refused(cause),
            Told::Result(result, place) => {
                self.results.push_back((request, result, place));
                Answer::Result
            }
        };
        Poll::Ready(Answered { request, answer })
    }

    /// Whether the task of a call has ended since this was asked.
    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        let mut some = false;
        while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(cx) {
            some = true;
        }
        some
    }

    /// Bytes that calls hold whose handlers have not ended.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Takes a result, and frees its place.
    pub(super) fn take_result(&mut self) -> Option<(RequestId, Bytes)> {
        let (request, result, _place) = self.results.pop_front()?;
        Some((request, result))
    }

    /// What was begun comes to its end; what waits for a place does not begin.
    pub(super) async fn close(mut self) {
        self.places.close();
        self.results.clear();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Counts the bytes of a call for as long as its task lives, however it ends.
#[derive(Debug)]
struct Held(Arc<AtomicUsize>, usize);

impl Held {
    fn new(bytes: &Arc<AtomicUsize>, count: usize) -> Self {
        bytes.fetch_add(count, Ordering::Relaxed);
        Self(Arc::clone(bytes), count)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// Why a call has no result.
enum Failure {
    /// The link has ended before there was a place.
    Closed,
    Handler(BoxError),
    TooLarge(usize),
}

/// What layers of tower fail with is told as what it is.
fn cause(error: &BoxError) -> Cause {
    if error.is::<tower::timeout::error::Elapsed>() {
        Cause::ServiceTimeout
    } else if error.is::<tower::load_shed::error::Overloaded>() {
        Cause::ServiceShed
    } else {
        Cause::ServiceFailed
    }
}

/// One call from its place to its end.
async fn serve(
    places: Arc<Semaphore>,
    handler: Handler,
    call: Call,
    limit: Duration,
    tell: oneshot::Sender<Told>,
) {
    let service = call.service().clone();
    // Of a notification only that it was taken is told.
    let mut tell = Some(tell);
    let work = AssertUnwindSafe(async {
        let place = places.acquire_owned().await.map_err(|_| Failure::Closed)?;
        let mut handler = handler.ready_oneshot().await.map_err(Failure::Handler)?;
        let wants_reply = call.wants_reply();
        let answer = handler.call(call);
        if !wants_reply && let Some(tell) = tell.take() {
            // A link that has ended wants no answers.
            let _ = tell.send(Told::Taken);
        }
        let result = answer.await.map_err(Failure::Handler)?;
        if wants_reply && result.len() > MAX_SERVICE_PAYLOAD_BYTES {
            return Err(Failure::TooLarge(result.len()));
        }
        Ok((result, place))
    });
    let told = match timeout(limit, work.catch_unwind()).await {
        Ok(Ok(Ok((result, place)))) => Told::Result(result, place),
        Ok(Ok(Err(Failure::Closed))) => return,
        Ok(Ok(Err(Failure::Handler(error)))) => {
            tracing::warn!(%service, %error, "service failed");
            Told::Failed(cause(&error))
        }
        Ok(Ok(Err(Failure::TooLarge(bytes)))) => {
            tracing::warn!(%service, bytes, limit = MAX_SERVICE_PAYLOAD_BYTES, "service failed: its reply is too large");
            Told::Failed(Cause::ServiceFailed)
        }
        Ok(Err(_panic)) => {
            tracing::warn!(%service, "service failed: its handler panicked");
            Told::Failed(Cause::ServiceFailed)
        }
        Err(_elapsed) => {
            tracing::warn!(%service, ?limit, "service was given up: it took too long");
            Told::Failed(Cause::ServiceTimeout)
        }
    };
    spans::outcome(
        &Span::current(),
        match &told {
            Told::Taken | Told::Result(..) => None,
            Told::Failed(cause) => Some(cause.code().name()),
        },
    );
    if let Some(tell) = tell.take() {
        let _ = tell.send(told);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use tower::service_fn;
    use tower::util::BoxCloneService;

    use sealwire_protocol::key::Thumbprint;
    use sealwire_protocol::name::{Issuer, User};
    use sealwire_protocol::permissions::Permissions;
    use sealwire_protocol::service::ServiceName;
    use sealwire_protocol::token::TokenClaims;

    use super::*;
    use crate::services;

    fn claims() -> TokenClaims {
        TokenClaims {
            issuer: Issuer::new("https://issuer.example").unwrap(),
            user: User::new("alice").unwrap(),
            audience: Vec::new(),
            expires: 0,
            issued: 0,
            not_before: None,
            id: None,
            device: Thumbprint::from_bytes([1; 32]),
            permissions: Permissions::default(),
        }
    }

    #[tokio::test]
    async fn call_counts_with_its_bytes_until_its_handler_has_ended() {
        let handler = service_fn(|call: services::Call| async move {
            let _held = call;
            pending::<Result<Bytes, services::BoxError>>().await
        });
        let mut calls = Calls::new();
        let name = ServiceName::new("log").unwrap();
        let call = services::Call::new(claims(), name, Bytes::from("12345"), false);
        let limit = Duration::from_secs(3_600);
        calls.begin(1, BoxCloneService::new(handler), call, limit, Span::none());
        // It is a notification, and Accepted as soon as it is taken.
        let answered = poll_fn(|cx| calls.poll_answered(cx)).await;
        assert!(matches!(answered.answer, Answer::Accepted));
        assert_eq!(calls.bytes(), 5);
        calls.tasks.abort_all();
        poll_fn(|cx| match calls.poll_ended(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
        assert_eq!(calls.bytes(), 0);
    }
}
