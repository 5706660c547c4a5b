//! Services of the application: calls, notifications and pushes over real sockets (docs/protocol.md §17).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::convert::Infallible;
use std::future::{Ready, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{Call as CallFrame, ToRelay};
use sealwire_protocol::limits::{MAX_OPEN_REQUESTS, MAX_SERVICE_PAYLOAD_BYTES};
use sealwire_protocol::name::User;
use sealwire_server::services::{BoxError, Call, PushError, Pushed, ServiceError};
use sealwire_server::{Relay, RelayBuilder, RelayError};
use serde_json::{Value, json};
use support::*;
use tokio::sync::{Semaphore, mpsc};
use tower::limit::ConcurrencyLimitLayer;
use tower::load_shed::LoadShedLayer;
use tower::timeout::TimeoutLayer;
use tower::{Layer as _, Service, service_fn};

async fn bind(relay: RelayBuilder) -> Relay {
    relay.bind("127.0.0.1:0").await.unwrap()
}

/// Answers what it was asked.
async fn echo(call: Call) -> Result<Bytes, Infallible> {
    Ok(call.into_payload())
}

impl Device {
    async fn ask(&mut self, service: &str, reply: bool, payload: &[u8]) -> u32 {
        let request = self.request();
        self.say(&ToRelay::Call(CallFrame {
            request,
            reply,
            service,
            payload,
        }))
        .await;
        request
    }

    /// Calls a service and waits for what the relay says.
    async fn call(&mut self, service: &str, payload: &[u8]) -> Result<Vec<u8>, RefusalCode> {
        let request = self.ask(service, true, payload).await;
        match self.next().await {
            Said::Result(answered, result) if answered == request => Ok(result),
            Said::Refused(answered, code) if answered == request => Err(code),
            other => panic!("{other:?}"),
        }
    }

    async fn notify(&mut self, service: &str, payload: &[u8]) -> Result<(), RefusalCode> {
        let request = self.ask(service, false, payload).await;
        match self.next().await {
            Said::Accepted(answered) if answered == request => Ok(()),
            Said::Refused(answered, code) if answered == request => Err(code),
            other => panic!("{other:?}"),
        }
    }

    /// A device with a token of which some claims are changed.
    async fn with(relay: &Relay, issuer: &Issuer, user: &str, changes: &Value) -> Self {
        let key = new_key();
        let token = issuer.token_with(user, &key, changes);
        Self::connect(relay, key, token).await.0
    }
}

// docs/protocol.md §17
#[tokio::test]
async fn call_is_answered_by_a_handler_that_knows_who_calls() {
    let issuer = Issuer::new();
    let who = service_fn(async |call: Call| {
        assert!(call.wants_reply() && call.permissions().call);
        let (user, device) = (call.user(), call.device());
        let (service, expires) = (call.service(), call.token_expires());
        let told = String::from_utf8(call.payload().to_vec())?;
        Ok::<_, BoxError>(format!("{user} {device} {service} {expires} {told}"))
    });
    let relay = bind(issuer.relay().service("who.am-I", who)).await;
    let expires = now() + 1_000;
    let changes = json!({ "exp": expires });
    let mut alice = Device::with(&relay, &issuer, "alice", &changes).await;
    let expected = format!("alice {} who.am-I {expires} hello", alice.id());
    assert_eq!(
        alice.call("who.am-I", b"hello").await,
        Ok(expected.into_bytes())
    );
}

// docs/protocol.md §17
#[tokio::test]
async fn notification_is_accepted_when_its_handler_has_taken_it() {
    let issuer = Issuer::new();
    let (taken, mut takes) = mpsc::unbounded_channel();
    let take = service_fn(move |call: Call| {
        taken
            .send((call.wants_reply(), call.into_payload()))
            .unwrap();
        // What becomes of it is not told: this goes on for ever.
        pending::<Result<Bytes, Infallible>>()
    });
    let relay = bind(issuer.relay().service("log", take)).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    assert_eq!(alice.notify("log", b"hello").await, Ok(()));
    assert_eq!(takes.try_recv().unwrap(), (false, Bytes::from("hello")));
}

// docs/protocol.md §5.3, §5.5, §17.2
#[tokio::test]
async fn service_that_may_not_be_called_looks_like_one_that_is_not_there() {
    let issuer = Issuer::new();
    let relay = bind(
        issuer
            .relay()
            .calls_per_minute(4)
            .service("orders.create", service_fn(echo))
            .service("stock.level", service_fn(echo)),
    )
    .await;
    let entry = |services: &[&str]| json!({ "authorization_details": [{ "type": "sealwire", "services": services }] });
    for (changes, allowed) in [
        (json!({}), &["orders.create", "stock.level"][..]),
        (entry(&["orders.*"]), &["orders.create"]),
        (entry(&["stock.level", "x"]), &["stock.level"]),
        (entry(&[]), &[]),
        (json!({ "scope": "sealwire:send sealwire:receive" }), &[]),
    ] {
        let mut device = Device::with(&relay, &issuer, "alice", &changes).await;
        for service in ["orders.create", "stock.level", "there.is.none", "stock"] {
            let expected = if allowed.contains(&service) {
                Ok(b"x".to_vec())
            } else {
                Err(RefusalCode::UnknownService)
            };
            assert_eq!(
                device.call(service, b"x").await,
                expected,
                "{service} {changes}"
            );
        }
        // Those that are refused are counted like the others.
        assert_eq!(
            device.call("orders.create", b"x").await,
            Err(RefusalCode::RateLimited)
        );
    }
}

// docs/protocol.md §5.4
#[tokio::test]
async fn narrower_token_forbids_the_very_next_call() {
    let issuer = Issuer::new();
    let relay = bind(issuer.relay().service("echo", service_fn(echo))).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    assert_eq!(alice.call("echo", b"x").await, Ok(b"x".to_vec()));
    for (scope, code) in [
        ("sealwire:send", Err(RefusalCode::UnknownService)),
        (EVERYTHING, Ok(b"x".to_vec())),
    ] {
        let token = issuer.token_with("alice", &alice.key, &json!({ "scope": scope }));
        let proof = alice
            .link
            .refresh_proof(&alice.key, token.as_bytes(), now());
        let (refresh, call) = (alice.request(), alice.request());
        alice
            .say_all(&[
                ToRelay::Refresh {
                    request: refresh,
                    proof: proof.as_bytes(),
                    token: token.as_bytes(),
                },
                ToRelay::Call(CallFrame {
                    request: call,
                    reply: true,
                    service: "echo",
                    payload: b"x",
                }),
            ])
            .await;
        assert_eq!(alice.next().await, Said::Accepted(refresh));
        let expected = match code {
            Ok(result) => Said::Result(call, result),
            Err(code) => Said::Refused(call, code),
        };
        assert_eq!(alice.next().await, expected);
    }
}

/// Says when it is dropped.
struct Guard(mpsc::UnboundedSender<()>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

// docs/protocol.md §17.2
#[tokio::test]
async fn handler_that_takes_too_long_is_dropped_and_the_device_told_so() {
    let issuer = Issuer::new();
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let slow = service_fn(move |_: Call| {
        let guard = Guard(dropped.clone());
        async move {
            pending::<()>().await;
            drop(guard);
            Ok::<_, Infallible>(Bytes::new())
        }
    });
    let builder = issuer
        .relay()
        .service("slow", slow)
        .service("never.ready", NeverReady)
        .service_timeout(Duration::from_millis(20));
    let relay = bind(builder).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let late = Err(RefusalCode::ServiceTimeout);
    assert_eq!(alice.call("slow", b"").await, late);
    within(drops.recv()).await.unwrap();
    assert_eq!(alice.call("never.ready", b"").await, late);
    assert_eq!(
        alice.notify("never.ready", b"").await,
        Err(RefusalCode::ServiceTimeout)
    );
}

/// A service that can take nothing.
#[derive(Clone)]
struct NeverReady;

impl Service<Call> for NeverReady {
    type Response = Bytes;
    type Error = Infallible;
    type Future = Ready<Result<Bytes, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _call: Call) -> Self::Future {
        panic!("called without being ready")
    }
}

// docs/protocol.md §17.2
#[tokio::test]
async fn handler_that_fails_or_panics_hurts_nobody_else_and_says_nothing_of_it() {
    let issuer = Issuer::new();
    let too_large =
        service_fn(async |_: Call| Ok::<_, Infallible>(vec![0; MAX_SERVICE_PAYLOAD_BYTES + 1]));
    let builder = issuer
        .relay()
        .service("echo", service_fn(echo))
        .service(
            "fails",
            service_fn(async |_: Call| Err::<Bytes, BoxError>("a secret of the server's".into())),
        )
        .service(
            "panics.later",
            service_fn(async |_: Call| -> Result<Bytes, Infallible> {
                tokio::task::yield_now().await;
                panic!("on purpose")
            }),
        )
        .service(
            "panics.at-once",
            service_fn(|_: Call| -> Ready<Result<Bytes, Infallible>> { panic!("on purpose") }),
        )
        .service("too.large", too_large);
    let relay = bind(builder).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let failed = RefusalCode::ServiceFailed;
    for service in ["fails", "panics.later", "panics.at-once", "too.large"] {
        assert_eq!(alice.call(service, b"x").await, Err(failed), "{service}");
        assert_eq!(alice.call("echo", b"x").await, Ok(b"x".to_vec()));
        assert_eq!(bob.call("echo", b"y").await, Ok(b"y".to_vec()));
    }
    // It is not taken before it panics; what happens after it was taken is not told.
    assert_eq!(alice.notify("panics.at-once", b"").await, Err(failed));
    for service in ["fails", "panics.later", "too.large"] {
        assert_eq!(alice.notify(service, b"").await, Ok(()), "{service}");
    }
    assert_eq!(alice.call("echo", b"x").await, Ok(b"x".to_vec()));
}

// docs/protocol.md §12
#[tokio::test]
async fn payloads_of_the_largest_size_go_both_ways() {
    let issuer = Issuer::new();
    let relay = bind(issuer.relay().service("echo", service_fn(echo))).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let large: Vec<u8> = (0..MAX_SERVICE_PAYLOAD_BYTES)
        .map(|at| (at % 251).to_be_bytes()[7])
        .collect();
    for payload in [large.as_slice(), b""] {
        let result = alice.call("echo", payload).await.unwrap();
        assert!(result == payload, "{} bytes came back", result.len());
    }
}

/// A service whose calls say that they began, and end when a permit is there.
fn gated() -> (
    impl Service<
        Call,
        Response = Bytes,
        Error = Infallible,
        Future = impl Future<Output = Result<Bytes, Infallible>> + Send + 'static,
    > + Clone
    + Send
    + 'static,
    mpsc::UnboundedReceiver<Bytes>,
    Arc<Semaphore>,
) {
    let (began, begins) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let service = service_fn(move |call: Call| {
        let gate = Arc::clone(&opened);
        began.send(call.payload().clone()).unwrap();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok::<_, Infallible>(call.into_payload())
        }
    });
    (service, begins, gate)
}

// docs/protocol.md §17
#[tokio::test]
async fn call_that_takes_its_time_holds_up_neither_messages_nor_other_calls() {
    let issuer = Issuer::new();
    let (slow, mut begins, gate) = gated();
    let builder = issuer.relay().service("slow", slow);
    let relay = bind(builder.service("echo", service_fn(echo))).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let request = alice.ask("slow", true, b"done").await;
    within(begins.recv()).await.unwrap();
    assert_accepted(&alice.send("bob", 1, &[bob.id()], b"hello").await);
    assert_eq!(bob.next().await, delivery(1, 1, &alice, "alice", b"hello"));
    assert_accepted(&bob.send("alice", 2, &[alice.id()], b"hello").await);
    assert_eq!(alice.next().await, delivery(1, 2, &bob, "bob", b"hello"));
    assert_eq!(alice.call("echo", b"x").await, Ok(b"x".to_vec()));
    gate.add_permits(1);
    assert_eq!(alice.next().await, Said::Result(request, b"done".to_vec()));
}

// docs/protocol.md §17.2
#[tokio::test]
async fn link_runs_sixteen_calls_at_a_time_and_the_others_wait_for_a_place() {
    let issuer = Issuer::new();
    let (slow, mut begins, gate) = gated();
    let relay = bind(issuer.relay().service("slow", slow)).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    for number in 0..20 {
        alice.ask("slow", true, &[number]).await;
    }
    for number in 0..16 {
        assert_eq!(within(begins.recv()).await.unwrap(), [number].as_slice());
    }
    // Whatever comes of it comes behind what was asked before.
    assert_eq!(
        alice.call("none", b"").await,
        Err(RefusalCode::UnknownService)
    );
    assert!(begins.try_recv().is_err(), "there are no more places");
    gate.add_permits(1);
    assert!(matches!(alice.next().await, Said::Result(_, _)));
    assert_eq!(within(begins.recv()).await.unwrap(), [16].as_slice());
    gate.add_permits(19);
    for _ in 0..19 {
        assert!(matches!(alice.next().await, Said::Result(_, _)));
    }
}

// docs/protocol.md §5
#[tokio::test]
async fn open_calls_count_as_open_requests() {
    let issuer = Issuer::new();
    let (slow, _begins, _gate) = gated();
    let relay = bind(issuer.relay().service("slow", slow)).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    for _ in 0..=MAX_OPEN_REQUESTS {
        alice.ask("slow", true, b"").await;
    }
    assert_eq!(alice.closed().await, code(4201, "violation"));
}

#[tokio::test]
async fn handler_is_called_only_when_it_is_ready() {
    let issuer = Issuer::new();
    let (slow, mut begins, gate) = gated();
    let limited = ConcurrencyLimitLayer::new(1).layer(slow);
    let relay = bind(issuer.relay().service("one.at.a.time", limited)).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let first = alice.ask("one.at.a.time", true, b"a").await;
    assert_eq!(within(begins.recv()).await.unwrap(), "a");
    let second = bob.ask("one.at.a.time", true, b"b").await;
    // It has come to the relay, and waits.
    assert_eq!(
        bob.call("none", b"").await,
        Err(RefusalCode::UnknownService)
    );
    assert!(begins.try_recv().is_err());
    gate.add_permits(1);
    assert_eq!(alice.next().await, Said::Result(first, b"a".to_vec()));
    assert_eq!(within(begins.recv()).await.unwrap(), "b");
    gate.add_permits(1);
    assert_eq!(bob.next().await, Said::Result(second, b"b".to_vec()));
}

/// A device learns from the layers of tower what it needs to know: whether the call may have been carried out.
#[tokio::test]
async fn what_a_layer_fails_with_is_told_as_what_it_is() {
    let issuer = Issuer::new();
    let (slow, mut begins, gate) = gated();
    let hurried = TimeoutLayer::new(Duration::from_millis(1)).layer(slow.clone());
    let full = LoadShedLayer::new().layer(ConcurrencyLimitLayer::new(1).layer(slow));
    let relay = issuer.relay();
    let relay = relay.service("hurried", hurried).service("full", full);
    let relay = bind(relay).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    assert_eq!(
        alice.call("hurried", b"a").await,
        Err(RefusalCode::ServiceTimeout)
    );
    assert_eq!(within(begins.recv()).await.unwrap(), "a");
    let first = alice.ask("full", true, b"b").await;
    assert_eq!(within(begins.recv()).await.unwrap(), "b");
    assert_eq!(bob.call("full", b"c").await, Err(RefusalCode::Unavailable));
    gate.add_permits(1);
    assert_eq!(alice.next().await, Said::Result(first, b"b".to_vec()));
    assert!(begins.try_recv().is_err());
}

// docs/protocol.md §17.2
#[tokio::test]
async fn call_whose_link_ends_is_carried_out_and_what_waits_for_a_place_is_not() {
    let issuer = Issuer::new();
    let (ended, mut ends) = mpsc::unbounded_channel();
    let (began, mut begins) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let (opened, guards) = (Arc::clone(&gate), Arc::new(AtomicUsize::new(0)));
    let running = Arc::clone(&guards);
    let slow = service_fn(move |_: Call| {
        let (ended, gate, running) = (ended.clone(), Arc::clone(&opened), Arc::clone(&running));
        running.fetch_add(1, Ordering::SeqCst);
        began.send(()).unwrap();
        async move {
            gate.acquire().await.unwrap().forget();
            ended.send(()).unwrap();
            Ok::<_, Infallible>(Bytes::new())
        }
    });
    let relay = bind(issuer.relay().service("slow", slow)).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    for _ in 0..20 {
        alice.ask("slow", true, b"").await;
    }
    for _ in 0..16 {
        within(begins.recv()).await.unwrap();
    }
    let (key, token) = (alice.key, alice.token);
    drop(alice.socket);
    // When the device is back, its older link is no more.
    let (mut alice, _) = Device::connect(&relay, key, token).await;
    assert_eq!(
        alice.call("none", b"").await,
        Err(RefusalCode::UnknownService)
    );
    gate.add_permits(20);
    for _ in 0..16 {
        within(ends.recv()).await.unwrap();
    }
    within(relay.shutdown()).await;
    assert_eq!(guards.load(Ordering::SeqCst), 16);
}

// docs/protocol.md §17.3
#[tokio::test]
async fn push_reaches_devices_that_are_connected_and_may_hear_it() {
    let issuer = Issuer::new();
    let relay = bind(issuer.relay()).await;
    let pusher = relay.pusher();
    let alice_user = User::new("alice").unwrap();
    let mut phone = Device::join(&relay, &issuer, "alice").await;
    let mut laptop = Device::join(&relay, &issuer, "alice").await;
    // A second device of the user's is there.
    assert_eq!(phone.next().await, Said::DeviceChanged("alice".to_owned()));
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let narrow =
        json!({ "authorization_details": [{ "type": "sealwire", "services": ["stock.*"] }] });
    let mut tablet = Device::with(&relay, &issuer, "alice", &narrow).await;

    let given = |pushed: Result<Pushed, PushError>| {
        let pushed = pushed.unwrap();
        assert_eq!(pushed.dropped, 0);
        pushed.given
    };
    let news = |text: &str| Said::Push("news".to_owned(), text.as_bytes().to_vec());
    assert_eq!(given(pusher.push_to_user(&alice_user, "news", "1")), 2);
    assert_eq!(given(pusher.push_to_device(&phone.id(), "news", "2")), 1);
    assert_eq!(given(pusher.push_to_device(&tablet.id(), "news", "3")), 0);
    assert_eq!(given(pusher.push_to_user(&alice_user, "stock.low", "4")), 3);
    assert_eq!(
        given(pusher.push_to_device(&new_key().thumbprint(), "news", "5")),
        0
    );
    for text in ["1", "2"] {
        assert_eq!(phone.next().await, news(text));
    }
    assert_eq!(laptop.next().await, news("1"));
    let stock = Said::Push("stock.low".to_owned(), b"4".to_vec());
    for device in [&mut phone, &mut laptop, &mut tablet] {
        assert_eq!(device.next().await, stock);
    }
    bob.nothing_waits().await;

    // A token that allows less, and one that allows more, count at once.
    let narrower = issuer.token_with("alice", &phone.key, &narrow);
    assert_accepted(&phone.refresh(&narrower).await);
    assert_eq!(given(pusher.push_to_user(&alice_user, "news", "6")), 1);
    let wider = issuer.token("alice", &tablet.key);
    assert_accepted(&tablet.refresh(&wider).await);
    assert_eq!(given(pusher.push_to_user(&alice_user, "news", "7")), 2);
    assert_eq!(tablet.next().await, news("7"));
    within(relay.shutdown()).await;
    assert_eq!(given(pusher.push_to_user(&alice_user, "news", "8")), 0);
}

// docs/protocol.md §17.3. On one thread, so that no link runs while this pushes.
#[tokio::test(flavor = "current_thread")]
async fn pushes_that_a_link_has_no_room_for_are_dropped_and_counted() {
    let issuer = Issuer::new();
    let relay = bind(issuer.relay()).await;
    let pusher = relay.pusher();
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let payload = |number: u8| vec![number; MAX_SERVICE_PAYLOAD_BYTES];
    let pushed: Vec<_> = (0..6)
        .map(|number| {
            pusher
                .push_to_device(&alice.id(), "news", payload(number))
                .unwrap()
        })
        .map(|pushed| (pushed.given, pushed.dropped))
        .collect();
    assert_eq!(pushed, [(1, 0), (1, 0), (1, 0), (1, 0), (0, 1), (0, 1)]);
    assert_eq!(pusher.dropped(), 2);
    for number in 0..4 {
        let expected = Said::Push("news".to_owned(), payload(number));
        assert!(alice.next().await == expected, "push {number}");
    }
    // There is room again.
    pusher.push_to_device(&alice.id(), "news", "x").unwrap();
    assert_eq!(
        alice.next().await,
        Said::Push("news".to_owned(), b"x".to_vec())
    );
    alice.nothing_waits().await;
}

// None waits for another for good: the mailbox, what is pushed, and what the device itself says take turns.
#[tokio::test(flavor = "multi_thread")]
async fn mail_and_answers_come_though_pushes_never_end() {
    const PATIENCE: usize = 200;
    let issuer = Issuer::new();
    let relay = bind(issuer.relay().service("echo", service_fn(echo))).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let (pusher, device) = (relay.pusher(), alice.id());
    let enough = Arc::new(AtomicUsize::new(0));
    let until = Arc::clone(&enough);
    // Faster than any link: its queue is never found empty.
    let pushing = std::thread::spawn(move || {
        let large = Bytes::from(vec![0; MAX_SERVICE_PAYLOAD_BYTES]);
        while until.load(Ordering::Relaxed) == 0 {
            pusher
                .push_to_device(&device, "news", large.clone())
                .unwrap();
        }
    });
    assert!(matches!(alice.next().await, Said::Push(..)));
    assert_accepted(&bob.send("alice", 1, &[alice.id()], b"hello").await);
    let request = alice.ask("echo", true, b"heard").await;
    let mut others = Vec::new();
    for _ in 0..PATIENCE {
        let said = alice.next().await;
        if !matches!(said, Said::Push(..)) {
            others.push(said);
        }
        if others.len() == 2 {
            break;
        }
    }
    enough.store(1, Ordering::Relaxed);
    pushing.join().unwrap();
    assert!(others.contains(&delivery(1, 1, &bob, "bob", b"hello")));
    let heard = Said::Result(request, b"heard".to_vec());
    assert!(others.contains(&heard), "the device is heard meanwhile");
}

// docs/protocol.md §5.2: Leaving: what was taken is answered, and all of it is read before the close
#[tokio::test]
async fn drained_link_gives_the_results_that_it_owes_and_no_more_pushes() {
    const CALLS: usize = 8;
    let issuer = Issuer::new();
    let (service, mut begins, gate) = gated();
    let relay = bind(issuer.relay().service("gated", service)).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let large = vec![7; MAX_SERVICE_PAYLOAD_BYTES / 4];
    let mut owed = Vec::new();
    for _ in 0..CALLS {
        owed.push(alice.ask("gated", true, &large).await);
        within(begins.recv()).await.unwrap();
    }
    let (pusher, device) = (relay.pusher(), alice.id());
    let draining = tokio::spawn(relay.drain(sealwire_server::Drain::default()));
    assert!(matches!(alice.next().await, Said::Leaving(_)));
    pusher.push_to_device(&device, "news", "too late").unwrap();
    gate.add_permits(CALLS);
    for _ in 0..CALLS {
        let said = alice.next().await;
        let Said::Result(request, result) = said else {
            panic!("{said:?}")
        };
        assert!(owed.contains(&request) && result == large);
        owed.retain(|other| *other != request);
    }
    assert_eq!(alice.closed().await, code(4000, "going_away"));
    within(draining).await.unwrap();
}

#[tokio::test]
async fn relay_does_not_start_with_services_that_cannot_be_told_apart() {
    let builder = || Relay::in_memory().service("echo", service_fn(echo));
    let error = async |builder: RelayBuilder| builder.bind("127.0.0.1:0").await.unwrap_err();
    let twice = error(builder().service("echo", service_fn(echo))).await;
    assert!(
        matches!(twice, RelayError::Service(ServiceError::Twice(name)) if name.as_str() == "echo")
    );
    let nameless = error(builder().service("a service", service_fn(echo))).await;
    assert!(matches!(
        nameless,
        RelayError::Service(ServiceError::Name(_))
    ));
}
