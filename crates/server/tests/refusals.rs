//! What the log says of each refusal and each end of a link: which claim, field or limit it was, and what helps. Devices are told codes
//! (docs/protocol.md §5.3, §13); requests by HTTP are in `http.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use sealwire_jose::Algorithms;
use sealwire_protocol::base64url;
use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{Call as CallFrame, ToRelay, Upload};
use sealwire_protocol::handshake::Credential;
use sealwire_protocol::key::{SigningKey, Thumbprint};
use sealwire_protocol::limits::MAX_OPEN_REQUESTS;
use sealwire_protocol::name::Issuer as IssuerName;
use sealwire_server::issuer_keys::KeySource;
use sealwire_server::policy::{Allowance, ConnectionLimits};
use sealwire_server::services::Call;
use sealwire_server::{ExchangeIssuer, Relay, RelayBuilder};
use serde_json::{Value, json};
use support::log::Log;
use support::*;
use tokio::io::AsyncReadExt as _;
use tower::service_fn;

async fn bind(relay: RelayBuilder) -> Relay {
    relay.bind("127.0.0.1:0").await.unwrap()
}

async fn failing(_: Call) -> Result<Bytes, &'static str> {
    Err("it is broken")
}

async fn endless(_: Call) -> Result<Bytes, Infallible> {
    pending().await
}

/// What is refused on links, and what the log has said of it.
struct Refusals {
    log: Log,
    seen: BTreeSet<&'static str>,
}

impl Refusals {
    /// The relay has refused this with `code`, and logged what is in `names`.
    fn says(&mut self, said: Said, code: RefusalCode, names: &[&str]) {
        assert_eq!(refused(said), code, "{names:?}");
        self.log.says(code.name(), names);
        self.seen.insert(code.name());
    }
}

impl Device {
    /// With a token of which some claims are changed.
    async fn with(relay: &Relay, issuer: &Issuer, user: &str, changes: &Value) -> Self {
        let key = new_key();
        let token = issuer.token_with(user, &key, changes);
        Self::connect(relay, key, token).await.0
    }

    /// With a token of which an entry of `authorization_details` says this, and a card.
    async fn limited(relay: &Relay, issuer: &Issuer, user: &str, limits: &Value) -> Self {
        let key = new_key();
        let token = issuer.token_limited(user, &key, limits);
        let mut device = Self::connect(relay, key, token).await.0;
        let card = device.card(user, 1);
        assert_accepted(&device.publish_card(&card).await);
        device
    }

    async fn asks(&mut self, of: impl FnOnce(u32) -> ToRelay<'static>) -> Said {
        let request = self.request();
        self.say(&of(request)).await;
        self.next().await
    }

    async fn calls(&mut self, service: &'static str) -> Said {
        self.asks(|request| call(request, service)).await
    }

    async fn uploads(&mut self, blob: u8, size: u64, offset: u64) -> Said {
        let upload = |request| Upload {
            request,
            blob: [blob; 32],
            size,
            offset,
            data: b"12345",
        };
        self.asks(|request| ToRelay::Upload(upload(request))).await
    }

    async fn downloads(&mut self, blob: u8) -> Said {
        self.asks(|request| ToRelay::Download {
            request,
            blob: [blob; 32],
            offset: 0,
            length: 1,
        })
        .await
    }

    /// A Send with everything of it said.
    async fn posts(&mut self, sequence: u64, whole: bool, to: [&[Thumbprint]; 2]) -> Said {
        let [parts, copies] = to;
        self.post(&Post {
            whole,
            copies,
            ..Post::new(sequence, 1, "bob", parts, b"x")
        })
        .await
    }
}

fn call(request: u32, service: &'static str) -> ToRelay<'static> {
    ToRelay::Call(CallFrame {
        request,
        reply: true,
        service,
        payload: b"",
    })
}

// docs/codes.md, Refusals
#[tokio::test]
async fn log_says_of_each_refusal_which_claim_field_or_limit_it_was_and_what_helps() {
    let (log, _guard) = Log::begin();
    let mut refusals = Refusals {
        log,
        seen: BTreeSet::new(),
    };
    by_token(&mut refusals).await;
    by_limits(&mut refusals).await;
    by_what_there_is(&mut refusals).await;
    by_order(&mut refusals).await;
    by_keys(&mut refusals).await;
    let all = RefusalCode::ALL.into_iter().map(RefusalCode::name);
    assert_eq!(refusals.seen, all.collect());
}

/// What a token does not allow, or what is wrong with a new one.
async fn by_token(refusals: &mut Refusals) {
    use RefusalCode::{NotPermitted, TokenRefused, UnknownService};
    let issuer = Issuer::new();
    let relay = bind(issuer.relay().service("orders", service_fn(failing))).await;
    let bob = [Device::join(&relay, &issuer, "bob").await.id()];

    let mut silent = Device::with(&relay, &issuer, "alice", &json!({ "scope": "x" })).await;
    let card = silent.card("alice", 1);
    refusals.says(
        silent.fetch("bob", false).await,
        NotPermitted,
        &["\"scope\"", "sealwire:send"],
    );
    refusals.says(
        silent.send("bob", 1, &bob, b"x").await,
        NotPermitted,
        &["sealwire:send"],
    );
    refusals.says(
        silent.uploads(1, 5, 0).await,
        NotPermitted,
        &["sealwire:send"],
    );
    refusals.says(
        silent.downloads(1).await,
        NotPermitted,
        &["sealwire:receive"],
    );
    refusals.says(
        silent.publish_card(&card).await,
        NotPermitted,
        &["sealwire:publish"],
    );
    refusals.says(
        silent.calls("orders").await,
        UnknownService,
        &["sealwire:call"],
    );

    let listed = json!({ "to": ["carol"], "services": ["stock"] });
    let mut narrow = Device::limited(&relay, &issuer, "alice", &listed).await;
    let (to, services) = (
        ["\"to\"", "authorization_details"],
        ["\"services\"", "\"orders\""],
    );
    refusals.says(narrow.fetch("bob", false).await, NotPermitted, &to);
    refusals.says(narrow.calls("orders").await, UnknownService, &services);
    refusals.says(
        narrow.calls("stock").await,
        UnknownService,
        &["\"stock\"", "RelayBuilder::service"],
    );

    let acme = json!({ "tenant": "acme" });
    let mut tenant = Device::with(&relay, &issuer, "acme/alice", &acme).await;
    refusals.says(
        tenant.fetch("bob", false).await,
        NotPermitted,
        &["\"tenant\""],
    );

    for (changes, names) in [
        (
            json!({ "aud": "https://other.example" }),
            ["\"aud\"", AUDIENCE],
        ),
        (
            json!({ "iss": "https://other.example" }),
            ["\"iss\"", ISSUER],
        ),
        (json!({ "sub": "carol" }), ["another user", "\"sub\""]),
        (json!({ "exp": 1, "iat": 0 }), ["\"exp\"", "clocks"]),
        (
            json!({ "cnf": { "jkt": new_key().thumbprint().to_string() } }),
            ["another device", "\"cnf\""],
        ),
    ] {
        let token = issuer.token_with("alice", &narrow.key, &changes);
        refusals.says(narrow.refresh(&token).await, TokenRefused, &names);
    }
}

/// What is over a limit, by who has set it.
async fn by_limits(refusals: &mut Refusals) {
    use RefusalCode::{MailboxFull, Quota, RateLimited, StorageFull, TooLarge, TooMany};
    let issuer = Issuer::new();
    let mut allowance = Allowance::default();
    allowance.messages_per_minute = 20;
    allowance.card_fetches_per_minute = 1;
    allowance.refreshes_per_minute = 1;
    allowance.max_message_bytes = 200;
    allowance.transfer_bytes_per_minute = 5 * 1024;
    allowance.blobs.uploads_per_user = 1;
    allowance.blobs.bytes_per_user = 100_000;
    let relay = issuer.relay().allowance(allowance).calls_per_minute(1);
    let relay = bind(relay.service("orders", service_fn(failing))).await;
    let bob = [Device::join(&relay, &issuer, "bob").await.id()];
    let mut alice = Device::join(&relay, &issuer, "alice").await;

    let large = alice.send("bob", 1, &bob, &[0; 201]).await;
    refusals.says(
        large,
        TooLarge,
        &["larger", "limits.max_message_bytes allows"],
    );
    let mut sending = alice.send("bob", 1, &bob, b"x").await;
    while matches!(sending, Said::Accepted(_)) {
        sending = alice.send("bob", 1, &bob, b"x").await;
    }
    refusals.says(sending, RateLimited, &["limits.messages_per_minute allows"]);
    let own = alice.fetch("alice", false).await;
    assert!(matches!(own, Said::Cards(..)));
    let fetched = alice.fetch("bob", false).await;
    refusals.says(fetched, RateLimited, &["limits.card_fetches_per_minute"]);
    let token = alice.token.clone();
    assert_accepted(&alice.refresh(&token).await);
    let refreshed = alice.refresh(&token).await;
    refusals.says(refreshed, RateLimited, &["limits.refreshes_per_minute"]);
    assert_eq!(
        refused(alice.calls("orders").await),
        RefusalCode::ServiceFailed
    );
    refusals.log.forget();
    let called = alice.calls("orders").await;
    refusals.says(called, RateLimited, &["RelayBuilder::calls_per_minute"]);

    let huge = alice.uploads(1, 100_001, 0).await;
    refusals.says(huge, TooLarge, &["limits.blob_bytes_per_user"]);
    let begun = alice.uploads(1, 6, 0).await;
    assert!(matches!(begun, Said::Blob { .. }), "{begun:?}");
    let second = alice.uploads(2, 6, 0).await;
    refusals.says(second, StorageFull, &["limits.blob_uploads_per_user"]);
    let mut transferred = alice.downloads(1).await;
    while matches!(transferred, Said::Blob { .. }) {
        transferred = alice.downloads(1).await;
    }
    refusals.says(
        transferred,
        RateLimited,
        &["limits.transfer_bytes_per_minute"],
    );

    let few = json!({ "messages_per_minute": 1, "max_message_bytes": 100 });
    let mut slow = Device::limited(&relay, &issuer, "carol", &few).await;
    let large = slow.send("bob", 1, &bob, &[0; 101]).await;
    refusals.says(
        large,
        TooLarge,
        &["\"max_message_bytes\" of the token", "limits."],
    );
    assert_accepted(&slow.send("bob", 1, &bob, b"x").await);
    let sent = slow.send("bob", 1, &bob, b"x").await;
    refusals.says(
        sent,
        RateLimited,
        &["\"messages_per_minute\" of the token", "limits."],
    );
    let mut published = 0;
    let card = slow.card("carol", 1);
    while refused(slow.publish_card(&card).await) == RefusalCode::InvalidCard {
        refusals.log.forget();
        published += 1;
        assert!(published < 100);
    }
    refusals.log.says("rate_limited", &["30 publications"]);

    let prekeys: Vec<_> = (1..=101)
        .map(|id| Prekey::new(id, alice.id(), &alice.key))
        .collect();
    let (half, rest) = prekeys.split_at(50);
    assert_accepted(&alice.publish_prekeys(half).await);
    refusals.says(
        alice.publish_prekeys(rest).await,
        TooMany,
        &["100 one-time prekeys"],
    );

    // What waits for a device: the mailbox is full, and one user's part of a mailbox is.
    let relay = relay_with_a_new_minute(&issuer).await;
    let full = Device::limited(&relay, &issuer, "bob", &json!({ "mailbox_messages": 1 })).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let full = [full.id()];
    assert_accepted(&alice.send("bob", 1, &full, b"x").await);
    let sent = alice.send("bob", 1, &full, b"x").await;
    refusals.says(sent, MailboxFull, &["limits.mailbox_messages"]);
    let some = json!({ "mailbox_messages": 160 });
    let some = [Device::limited(&relay, &issuer, "carol", &some).await.id()];
    let mut sent = alice.send("carol", 1, &some, b"x").await;
    while matches!(sent, Said::Accepted(_)) {
        sent = alice.send("carol", 1, &some, b"x").await;
    }
    refusals.says(sent, Quota, &["one user", "limits.mailbox_messages"]);
}

async fn relay_with_a_new_minute(issuer: &Issuer) -> Relay {
    bind(issuer.relay()).await
}

/// What is not there, or is not as the device thought.
async fn by_what_there_is(refusals: &mut Refusals) {
    use RefusalCode::{
        BlobConflict, DevicesChanged, InvalidCard, OwnDevicesChanged, ServiceFailed,
        ServiceTimeout, UnknownBlob, UnknownDevice, UnknownUser,
    };
    let issuer = Issuer::new();
    let relay = issuer.relay().service_timeout(Duration::from_millis(1));
    let relay = relay.service("broken", service_fn(failing));
    let relay = bind(relay.service("endless", service_fn(endless))).await;
    let bob = [Device::join(&relay, &issuer, "bob").await.id()];
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let nobody = [Thumbprint::from_bytes([7; 32])];

    refusals.says(
        alice.fetch("nobody", false).await,
        UnknownUser,
        &["no device"],
    );
    let seal_again = ["fetches the cards"];
    refusals.says(
        alice.posts(1, true, [&nobody, &[]]).await,
        DevicesChanged,
        &seal_again,
    );
    refusals.says(
        alice.posts(2, false, [&nobody, &[]]).await,
        DevicesChanged,
        &seal_again,
    );
    refusals.says(
        alice.posts(3, false, [&bob, &nobody]).await,
        DevicesChanged,
        &["copies"],
    );
    refusals.says(
        alice.posts(4, true, [&bob, &nobody]).await,
        OwnDevicesChanged,
        &["copies"],
    );
    let [device] = nobody;
    refusals.says(alice.remove(device).await, UnknownDevice, &["field device"]);

    refusals.says(
        alice.downloads(1).await,
        UnknownBlob,
        &["limits.blob_retention"],
    );
    assert!(matches!(alice.uploads(1, 20, 0).await, Said::Blob { .. }));
    refusals.says(alice.uploads(1, 20, 9).await, BlobConflict, &["offset"]);

    refusals.says(alice.publish_card("x").await, InvalidCard, &["versions"]);
    let elsewhere = issuer.token_with("alice", &alice.key, &json!({ "aud": "other" }));
    let foreign = card(&alice.key, &alice.key, 2, &elsewhere);
    refusals.says(
        alice.publish_card(&foreign).await,
        InvalidCard,
        &["attestation", "\"aud\"", AUDIENCE],
    );
    let again = alice.card("alice", 1);
    refusals.says(
        alice.publish_card(&again).await,
        InvalidCard,
        &["not newer", "copy"],
    );
    let forged = [Prekey::new(1, alice.id(), &new_key())];
    refusals.says(
        alice.publish_prekeys(&forged).await,
        InvalidCard,
        &["prekey"],
    );

    // The application's own faults are warnings, as nobody else sees them; this says whose call it was.
    refusals.log.forget();
    for (service, code) in [("broken", ServiceFailed), ("endless", ServiceTimeout)] {
        refusals.says(
            alice.calls(service).await,
            code,
            &["the relay's application"],
        );
    }
}

/// What comes too late.
async fn by_order(refusals: &mut Refusals) {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let bob = [Device::join(&relay, &issuer, "bob").await.id()];
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let nobody = [Thumbprint::from_bytes([7; 32])];
    assert_eq!(
        refused(alice.posts(1, true, [&nobody, &[]]).await),
        RefusalCode::DevicesChanged
    );
    assert_accepted(&alice.posts(2, true, [&bob, &[]]).await);
    refusals.log.forget();
    let late = alice.posts(1, true, [&bob, &[]]).await;
    refusals.says(late, RefusalCode::Overtaken, &["field sequence"]);
    assert_accepted(&alice.posts(100, true, [&bob, &[]]).await);
    let late = alice.posts(3, true, [&bob, &[]]).await;
    refusals.says(late, RefusalCode::Stale, &["field sequence"]);
}

/// A token that nobody can verify yet.
async fn by_keys(refusals: &mut Refusals) {
    let issuer = Issuer::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let mut known: Value = serde_json::from_str(&issuer.public().to_jwk()).unwrap();
    known["kid"] = "old".into();
    std::fs::write(&file, json!({ "keys": [known] }).to_string()).unwrap();
    let source = KeySource::file(file, Algorithms::PUBLIC_KEY);
    let relay = Relay::in_memory().issuer_with_keys_from(
        IssuerName::new(ISSUER).unwrap(),
        AUDIENCE.to_owned(),
        source,
    );
    let relay = bind(relay).await;
    let key = new_key();
    let token = issuer.token("alice", &key);
    let (mut alice, _) = Device::connect(&relay, key, token).await;
    let header = base64url::encode(br#"{"alg":"EdDSA","typ":"at+jwt","kid":"new"}"#);
    let (_, rest) = alice.token.split_once('.').unwrap();
    let token = format!("{header}.{rest}");
    let said = alice.refresh(&token).await;
    refusals.says(said, RefusalCode::Unavailable, &["key set", "jwks"]);
}

/// Each kind of defect of a token, and of what else a device may present.
#[tokio::test]
async fn log_says_of_each_defect_of_a_token_which_claim_it_is_and_what_helps() {
    let (log, _guard) = Log::begin();
    let issuer = Issuer::new();
    let relay = bind(issuer.relay().require_tenant(false)).await;
    let (key, other) = (new_key(), new_key());
    log.forget();
    let year = 400 * 86_400;
    for (changes, names) in [
        (
            json!({ "iss": "https://other.example" }),
            &["\"iss\"", ISSUER][..],
        ),
        (
            json!({ "aud": ["https://other.example"] }),
            &["\"aud\"", AUDIENCE],
        ),
        (
            json!({ "exp": now() - 61, "iat": now() - 7200 }),
            &["\"exp\"", "clocks"],
        ),
        (json!({ "exp": now() - 7200 }), &["\"exp\""]),
        (
            json!({ "iat": now() + 120, "exp": now() + year }),
            &["\"iat\"", "clocks"],
        ),
        (json!({ "nbf": now() + 120 }), &["\"nbf\"", "clocks"]),
        (json!({ "exp": "never" }), &["\"exp\"", "type"]),
        (json!({ "cnf": null }), &["\"cnf\""]),
        (json!({ "cnf": {} }), &["\"cnf\""]),
        (
            json!({ "cnf": { "jwk": { "kty": "RSA" } } }),
            &["\"cnf\"", "Ed25519"],
        ),
        (json!({ "sub": "" }), &["\"sub\"", "1 to 255 bytes"]),
        (json!({ "tenant": "acme" }), &["\"tenant\"", "slash"]),
        (json!({ "scope": 1 }), &["\"scope\"", "type"]),
        (json!({ "jti": "x".repeat(256) }), &["\"jti\""]),
        (
            json!({ "authorization_details": [{ "type": "sealwire", "to": "carol" }] }),
            &["\"to\"", "type"],
        ),
        (
            json!({ "authorization_details": [{ "type": "sealwire", "mailbox_bytes": 0 }] }),
            &["\"mailbox_bytes\""],
        ),
        (
            json!({ "cnf": { "jkt": other.thumbprint().to_string() } }),
            &["another device", "\"cnf\""],
        ),
    ] {
        let token = issuer.token_with("alice", &key, &changes);
        is_refused(
            &relay,
            &key,
            Credential::Token(token.as_bytes()),
            &log,
            names,
        )
        .await;
    }
    let mut missing = Issuer::claims("alice", &key);
    missing.as_object_mut().unwrap().remove("aud");
    let missing = issuer.sign(&missing);
    let stranger = Issuer::new().token("alice", &key);
    for (token, names) in [
        (missing.as_str(), &["\"aud\"", "missing"][..]),
        (&stranger, &["signature", "jwks"]),
        ("a.b", &["JWS", "three parts"]),
        ("bm8.bm8.bm8", &["JWS", "token inspect"]),
    ] {
        is_refused(
            &relay,
            &key,
            Credential::Token(token.as_bytes()),
            &log,
            names,
        )
        .await;
    }
    is_refused(
        &relay,
        &key,
        Credential::Exchange(b"a.b.c"),
        &log,
        &["exchange", "[[exchange]]"],
    )
    .await;
    is_refused(&relay, &key, Credential::Renewal, &log, &["issuer"]).await;
    is_refused(
        &relay,
        &key,
        Credential::UpgradeToken(b"a.b.c"),
        &log,
        &["no token", "present a token"],
    )
    .await;
}

/// This device is not let in, and is told no more than that.
async fn is_refused(
    relay: &Relay,
    key: &SigningKey,
    credential: Credential<'_>,
    log: &Log,
    names: &[&str],
) {
    let told = refusal(relay, key, credential).await;
    assert_eq!(told, code(4100, "not_authorised"), "{names:?}");
    log.says("not_authorised", names);
}

#[tokio::test]
async fn log_says_of_a_tenant_that_is_missing_and_of_a_providers_token_what_helps() {
    let (log, _guard) = Log::begin();
    let (issuer, key) = (Issuer::new(), new_key());
    let relay = bind(issuer.relay().require_tenant(true)).await;
    log.forget();
    let token = issuer.token("alice", &key);
    let token = Credential::Token(token.as_bytes());
    is_refused(&relay, &key, token, &log, &["\"tenant\"", "require_tenant"]).await;

    let exchanging = ExchangeIssuer::with_keys(ISSUER, AUDIENCE, "", *issuer.public())
        .unwrap()
        .scopes(EVERYTHING)
        .unwrap();
    let relay = bind(Relay::in_memory().exchange(exchanging)).await;
    log.forget();
    for (changes, names) in [
        (json!({ "aud": "other" }), &["\"aud\"", AUDIENCE][..]),
        (
            json!({ "iss": "https://other.example" }),
            &["\"iss\"", "[[exchange]]"],
        ),
        (
            json!({ "exp": now() - 61, "iat": now() - 7200 }),
            &["\"exp\"", "clocks"],
        ),
    ] {
        let token = issuer.token_with("alice", &key, &changes);
        is_refused(
            &relay,
            &key,
            Credential::Exchange(token.as_bytes()),
            &log,
            names,
        )
        .await;
    }
    let built_in = Credential::Invite(&[7; 32]);
    is_refused(
        &relay,
        &key,
        built_in,
        &log,
        &["invitation", "sealwire invite"],
    )
    .await;
}

/// Each limit for which a connection is closed or dropped.
#[tokio::test]
async fn log_says_of_each_end_for_a_limit_which_limit_it_was() {
    let (log, _guard) = Log::begin();
    let issuer = Issuer::new();
    let limited = |change: fn(&mut ConnectionLimits)| {
        let mut limits = ConnectionLimits::default();
        change(&mut limits);
        issuer.relay().connection_limits(limits)
    };
    for (relay, limit) in [
        (
            limited(|limits| limits.links_per_user = 1),
            "limits.links_per_user",
        ),
        (
            limited(|limits| limits.links_per_tenant = Some(1)),
            "limits.links_per_tenant",
        ),
    ] {
        let relay = bind(relay).await;
        let acme = json!({ "tenant": "acme" });
        let _first = Device::with(&relay, &issuer, "acme/alice", &acme).await;
        log.forget();
        let key = new_key();
        let token = issuer.token_with("acme/alice", &key, &acme);
        let told = refusal(&relay, &key, Credential::Token(token.as_bytes())).await;
        assert_eq!(told, code(4002, "overloaded"));
        log.says("overloaded", &[limit]);
    }
    for (relay, limit, tenant) in [
        (
            limited(|limits| limits.links_per_minute = 1),
            "limits.links_per_minute allows",
            "",
        ),
        (
            limited(|limits| limits.links_per_minute_per_user = 1),
            "limits.links_per_minute_per_user",
            "",
        ),
        (
            limited(|limits| limits.links_per_minute_per_tenant = 1),
            "limits.links_per_minute_per_tenant",
            "acme",
        ),
    ] {
        let relay = bind(relay).await;
        let key = new_key();
        let mut claims = Issuer::claims("acme/alice", &key);
        if !tenant.is_empty() {
            claims["tenant"] = tenant.into();
        }
        let token = issuer.sign(&claims);
        let credential = Credential::Token(token.as_bytes());
        let same = SigningKey::from_seed(&key.seed());
        let _first = Device::connect(&relay, same, token.clone()).await;
        log.forget();
        assert_eq!(
            refusal(&relay, &key, credential).await,
            code(4002, "overloaded")
        );
        log.says("overloaded", &[limit]);
    }
    for (relay, limit) in [
        (
            limited(|limits| limits.connections = 1),
            "limits.connections allows",
        ),
        (
            limited(|limits| limits.unauthenticated = 1),
            "limits.unauthenticated allows",
        ),
    ] {
        let relay = bind(relay).await;
        let _first = upgrade(&relay).await;
        log.forget();
        let mut second = connect(&relay).await;
        let read = within(second.read(&mut [0])).await;
        assert!(matches!(read, Ok(0) | Err(_)));
        log.says("", &[limit]);
    }

    let relay = issuer.relay().service("endless", service_fn(endless));
    let relay = bind(relay).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    log.forget();
    let calls = (0..=MAX_OPEN_REQUESTS).map(|_| call(alice.request(), "endless"));
    let calls: Vec<_> = calls.collect();
    alice.say_all(&calls).await;
    assert_eq!(alice.closed().await, code(4201, "violation"));
    log.says("violation", &["64 open requests", "versions"]);

    let relay = bind(
        issuer
            .relay()
            .handshake_deadline(Duration::from_millis(1_500)),
    )
    .await;
    let mut socket = upgrade(&relay).await;
    log.forget();
    assert_eq!(closed(&mut socket).await, code(4003, "timeout"));
    log.says("timeout", &["limits.handshake_deadline"]);
}

/// Whose page it was is shown as nothing but text.
#[tokio::test]
async fn log_says_which_origin_was_refused_and_where_it_could_be_let_in() {
    let (log, _guard) = Log::begin();
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    log.forget();
    let long = format!("https://{}.example", "x.".repeat(400));
    for (origin, shown) in [
        ("https://app.example", "\"https://app.example\""),
        ("a\tb", r"a\tb"),
        (&long, "x.x."),
    ] {
        let fields = [("origin", Some(origin))];
        assert_eq!(upgrade_with(&relay, "/v1", &fields).await.unwrap_err(), 403);
        log.says("403", &[shown, "limits.allowed_origins"]);
    }
    let bearer = [("authorization", Some("Bearer a.b.c"))];
    assert_eq!(upgrade_with(&relay, "/v1", &bearer).await.unwrap_err(), 401);
    log.says("401", &["JWS"]);
    let protocol = [("sec-websocket-protocol", None)];
    assert_eq!(
        upgrade_with(&relay, "/v1", &protocol).await.unwrap_err(),
        400
    );
    log.says("400", &["sec-websocket-protocol"]);
    assert_eq!(upgrade_with(&relay, "/v2", &[]).await.unwrap_err(), 404);
    log.says("404", &["path", "address"]);
}
