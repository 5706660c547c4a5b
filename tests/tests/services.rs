//! The server as an end: devices call services of the application that the relay runs in, and hear from it (docs/protocol.md §17).
#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "all of this is test code, also what is not marked as a test"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sealwire_client::error::Refusal;
use sealwire_client::{CallError, Closed, ConnectionState, Event};
use sealwire_protocol::name::User;
use sealwire_server::RelayBuilder;
use sealwire_server::services::{BoxError, Call};
use sealwire_tests::{Device, Issuer, Town, Wish, within};
use tokio::sync::{Semaphore, mpsc};
use tower::service_fn;

/// A service whose calls say that they began, count, and end when a permit is there.
#[derive(Clone)]
struct Slow {
    began: mpsc::UnboundedSender<()>,
    calls: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Slow {
    fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (began, begins) = mpsc::unbounded_channel();
        let slow = Self {
            began,
            calls: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        };
        (slow, begins)
    }

    fn register(&self, relay: RelayBuilder) -> RelayBuilder {
        let slow = self.clone();
        relay.service(
            "slow",
            service_fn(move |call: Call| {
                let slow = slow.clone();
                slow.calls.fetch_add(1, Ordering::SeqCst);
                slow.began.send(()).unwrap();
                async move {
                    slow.gate.acquire().await.unwrap().forget();
                    Ok::<_, Infallible>(call.into_payload())
                }
            }),
        )
    }

    fn end_one(&self) {
        self.gate.add_permits(1);
    }
}

fn echo(relay: RelayBuilder) -> RelayBuilder {
    relay.service(
        "echo",
        service_fn(async |call: Call| Ok::<_, Infallible>(call.into_payload())),
    )
}

async fn pushed(device: &Device) -> (String, Vec<u8>) {
    let pick = |event| match event {
        Event::Push(push) => Some((push.service.to_string(), push.payload)),
        _ => None,
    };
    device.next("a push", pick).await
}

#[tokio::test]
async fn device_calls_notifies_and_is_pushed_to() {
    let (told, mut tells) = mpsc::unbounded_channel();
    let town = Town::with(move |relay| {
        let told = told.clone();
        let greet = async |call: Call| {
            let name = String::from_utf8(call.payload().to_vec())?;
            Ok::<_, BoxError>(format!("hello {name}, device of {}", call.user()))
        };
        let log = move |call: Call| {
            let told = told.clone();
            async move {
                told.send(call.into_payload()).unwrap();
                Ok::<_, Infallible>("nobody reads this")
            }
        };
        relay
            .service("greet", service_fn(greet))
            .service("log", service_fn(log))
    })
    .await;
    let alice = town.join("alice").await;
    let greeting = within("a greeting", alice.client.call("greet", "Al").into_future()).await;
    assert_eq!(greeting.unwrap(), b"hello Al, device of alice");
    let notified = within(
        "a log",
        alice.client.notify("log", "it happened").into_future(),
    )
    .await;
    assert_eq!(notified, Ok(()));
    assert_eq!(within("a line", tells.recv()).await.unwrap(), "it happened");

    let pusher = town.relay().pusher();
    let user = User::new("alice").unwrap();
    let first = pusher.push_to_user(&user, "news", "one").unwrap();
    let second = pusher.push_to_device(&alice.thumbprint(), "news", "two");
    assert_eq!((first.given, second.unwrap().given), (1, 1));
    assert_eq!(pushed(&alice).await, ("news".into(), b"one".to_vec()));
    assert_eq!(pushed(&alice).await, ("news".into(), b"two".to_vec()));
}

/// docs/protocol.md §5.3, §5.5
#[tokio::test]
async fn what_a_token_does_not_allow_is_as_unknown_as_what_is_not_there() {
    let issuer = Issuer::ed25519();
    let configured = issuer.clone();
    let town = Town::with(move |relay| {
        echo(relay).issuer(
            configured.name(),
            sealwire_tests::AUDIENCE,
            configured.keys(),
        )
    })
    .await;
    let without = Wish::of("alice");
    let with = Wish {
        scope: "sealwire:send sealwire:receive sealwire:publish sealwire:call",
        ..Wish::of("bob")
    };
    let unknown = Err(CallError::Refused(Refusal::UnknownService));
    for (wish, echoed) in [(without, unknown.clone()), (with, Ok(b"x".to_vec()))] {
        let device = town.account(issuer.trusted(), issuer.grants(wish));
        let device = device.arrive().await;
        assert_eq!(device.client.call("echo", "x").await, echoed);
        assert_eq!(device.client.call("there.is.none", "x").await, unknown);
        assert_eq!(
            device.client.notify("there.is.none", "x").await,
            Err(CallError::Refused(Refusal::UnknownService))
        );
    }
}

#[tokio::test]
async fn failure_of_a_service_is_told_without_its_reason_and_time_is_bounded_at_both_ends() {
    let (slow, mut begins) = Slow::new();
    let registered = slow.clone();
    let town = Town::with(move |relay| {
        let fails = async |_: Call| Err::<&str, BoxError>("the password is hunter2".into());
        registered
            .register(echo(relay))
            .service("fails", service_fn(fails))
            .service_timeout(Duration::from_millis(100))
    })
    .await;
    let alice = town.join("alice").await;
    let failed = alice.client.call("fails", "x").await.unwrap_err();
    assert_eq!(failed.code(), "service_failed");
    assert!(!failed.to_string().contains("hunter2") && !failed.is_retryable());
    let late = alice.client.call("slow", "x").await.unwrap_err();
    assert_eq!(late.code(), "service_timeout");
    assert!(late.may_have_been_carried_out());
    within("a beginning", begins.recv()).await.unwrap();
    let no_name = alice.client.call("no name", "x").await.unwrap_err();
    assert_eq!(no_name.code(), "bad_service");
    let over = alice.client.call("echo", vec![0; (1 << 20) + 1]).await;
    assert_eq!(over.unwrap_err().code(), "too_large");
    let largest = vec![7; 1 << 20];
    assert!(alice.client.call("echo", largest.clone()).await == Ok(largest));
}

/// Ends what goes on until then, however the test ends.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Both ends write more than the network holds: neither may wait with reading until it has written.
#[tokio::test(flavor = "multi_thread")]
async fn largest_calls_results_and_pushes_cross_each_other() {
    const CALLS: usize = 16;
    let town = Town::with(echo).await;
    let alice = town.join("alice").await;
    let large = vec![7; 1 << 20];
    let (pusher, device, done) = (town.relay().pusher(), alice.thumbprint(), Stop::default());
    let until = Arc::clone(&done.0);
    std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            let news = vec![0; 1 << 20];
            pusher.push_to_device(&device, "news", news).unwrap();
        }
    });
    let calls = (0..CALLS).map(|_| alice.client.call("echo", large.clone()).into_future());
    let results = within("the results", join_all(calls)).await;
    assert_eq!(results.len(), CALLS);
    assert!(results.iter().all(|result| result.as_ref() == Ok(&large)));
    assert_eq!(alice.client.connection(), ConnectionState::Connected);
}

#[tokio::test]
async fn call_that_its_caller_gives_up_is_answered_to_nobody_and_the_link_goes_on() {
    let (slow, mut begins) = Slow::new();
    let registered = slow.clone();
    let town = Town::with(move |relay| registered.register(echo(relay))).await;
    let alice = town.join("alice").await;
    let bob = town.join("bob").await;
    let call = alice.client.call("slow", "x");
    let late = call.timeout(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(late, CallError::Timeout);
    assert!(late.may_have_been_carried_out() && !late.is_retryable());
    within("a beginning", begins.recv()).await.unwrap();
    // Meanwhile messages and other calls go on.
    alice.send("bob", "hello").await;
    assert_eq!(bob.text().await, ("alice".into(), "hello".into()));
    slow.end_one();
    assert_eq!(alice.client.call("echo", "x").await, Ok(b"x".to_vec()));
    assert_eq!(alice.client.connection(), ConnectionState::Connected);
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1);
}

/// docs/protocol.md §17.2: a device repeats no call whose answer it has not heard
#[tokio::test]
async fn call_whose_link_ends_is_interrupted_and_never_sent_again() {
    let (slow, mut begins) = Slow::new();
    let registered = slow.clone();
    let mut town = Town::with(move |relay| registered.register(echo(relay))).await;
    let alice = town.join("alice").await;
    let client = alice.client.clone();
    let calling = tokio::spawn(async move { client.call("slow", "x").await });
    within("a beginning", begins.recv()).await.unwrap();
    let (ended, ()) = tokio::join!(
        async {
            let ended = within("the end of the call", calling).await.unwrap();
            // The relay stops once what it has begun has ended.
            slow.end_one();
            ended
        },
        town.stop(),
    );
    let interrupted = ended.unwrap_err();
    assert_eq!(interrupted, CallError::Interrupted);
    assert!(interrupted.may_have_been_carried_out() && !interrupted.is_retryable());

    // While there is no connection a call waits for one, within its time.
    let call = alice.client.call("echo", "x");
    let unsent = call.timeout(Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(unsent, CallError::NotSent);
    assert!(unsent.is_retryable() && !unsent.may_have_been_carried_out());
    let call = alice.client.call("echo", "patient");
    let calling = tokio::spawn(call.timeout(sealwire_tests::PATIENCE).into_future());
    town.start().await;
    let answer = within("the answer", calling).await.unwrap();
    assert_eq!(answer, Ok(b"patient".to_vec()));
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1, "it was called once");
}

#[tokio::test]
async fn call_of_a_closed_client_says_so() {
    let town = Town::with(echo).await;
    let alice = town.join("alice").await;
    let client = alice.client.clone();
    alice.leave().await;
    let closed = client.call("echo", "x").await.unwrap_err();
    assert_eq!(closed, CallError::Closed(Closed::ByApplication));
    assert_eq!((closed.code(), closed.is_retryable()), ("closed", false));
}
