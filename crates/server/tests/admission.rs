//! Who gets a link, and what everybody else is told (docs/protocol.md §3, §13).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::time::Duration;

use futures_util::SinkExt as _;
use sealwire_jose::{Algorithm, Algorithms, KeySet, KeyType, PrivateKey};
use sealwire_protocol::handshake::{Credential, DeviceHello};
use sealwire_protocol::key::SigningKey;
use sealwire_protocol::name::Issuer as IssuerName;
use sealwire_server::{Relay, RelayError, Tls};
use serde_json::json;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

async fn relay(issuer: &Issuer) -> Relay {
    issuer.relay().bind("127.0.0.1:0").await.unwrap()
}

/// The answer to a request, as its status and the rest of it.
async fn http(relay: &Relay, request: &str) -> (u16, String) {
    let mut stream = connect(relay).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    // The end of a TLS stream need not be announced.
    let _ = within(stream.read_to_string(&mut answer)).await;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .expect("no HTTP answer");
    (status, answer)
}

#[tokio::test]
async fn a_device_gets_a_link_over_plain_and_over_tls() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let secure = issuer
        .configure(Relay::builder(directory.path()))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    assert!(secure.address().is_secure());
    for relay in [relay(&issuer).await, secure] {
        let key = new_key();
        let token = issuer.token("alice", &key);
        let (device, ready) = Device::connect(&relay, key, token).await;
        let Said::Ready {
            device: named,
            user,
            has_card,
            prekeys,
            acknowledged,
            head,
            ..
        } = ready
        else {
            panic!()
        };
        assert_eq!(
            (named, user.as_str(), has_card, prekeys, acknowledged, head),
            (device.id(), "alice", false, 0, 0, FIRST_START)
        );
        assert_eq!(relay.address().relay(), relay.thumbprint());
    }
}

// docs/protocol.md §2.2
#[tokio::test]
async fn relay_refuses_token_that_is_not_good() {
    let (issuer, stranger, key) = (Issuer::new(), Issuer::new(), new_key());
    let relay = relay(&issuer).await;
    let cases = [
        ("signed by somebody else", stranger.token("alice", &key)),
        (
            "of another issuer",
            issuer.token_with("alice", &key, &json!({ "iss": "https://other.example" })),
        ),
        (
            "for another audience",
            issuer.token_with("alice", &key, &json!({ "aud": "https://other.example" })),
        ),
        (
            "expired",
            issuer.token_with(
                "alice",
                &key,
                &json!({ "iat": now() - 7200, "exp": now() - 61 }),
            ),
        ),
        (
            "from the future",
            issuer.token_with("alice", &key, &json!({ "iat": now() + 120 })),
        ),
        (
            "for nobody's key",
            issuer.token_with("alice", &key, &json!({ "cnf": null })),
        ),
        (
            "with a limit of the wrong type",
            issuer.token_limited("alice", &key, &json!({ "max_message_bytes": "64" })),
        ),
        ("no token", "a.b.c".to_owned()),
    ];
    for (what, token) in cases {
        assert_eq!(
            refusal(&relay, &key, Credential::Token(token.as_bytes())).await,
            code(4100, "not_authorised"),
            "{what}"
        );
    }
}

// docs/protocol.md §2.2, §3.5
#[tokio::test]
async fn relay_takes_token_of_the_device_by_key_or_thumbprint_and_refuses_that_of_another() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (alice, thief) = (new_key(), new_key());
    for confirmation in confirmations(&alice) {
        let token = issuer.token_with("alice", &alice, &confirmation);
        assert_eq!(
            refusal(&relay, &thief, Credential::Token(token.as_bytes())).await,
            code(4100, "not_authorised")
        );
        let same = SigningKey::from_seed(&alice.seed());
        Device::connect(&relay, same, token).await;
    }
}

// docs/protocol.md §3.4, §3.5
#[tokio::test]
async fn relay_refuses_finish_replayed_on_another_connection() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let key = new_key();
    let token = issuer.token("alice", &key);
    let (_first, _, finish) = shake_hands(
        &relay,
        upgrade(&relay).await,
        &key,
        Credential::Token(token.as_bytes()),
    )
    .await;

    let mut second = upgrade(&relay).await;
    let (_, hello) = DeviceHello::start(&mut rand::rng());
    second.send(Message::binary(hello)).await.unwrap();
    receive(&mut second).await;
    second.send(Message::binary(finish)).await.unwrap();
    assert_eq!(closed(&mut second).await, code(4201, "violation"));
}

// docs/protocol.md §3.2
#[tokio::test]
async fn relay_refuses_another_version() {
    let relay = relay(&Issuer::new()).await;
    let (_, mut hello) = DeviceHello::start(&mut rand::rng());
    hello[2] = 2;
    let mut socket = upgrade(&relay).await;
    socket.send(Message::binary(hello)).await.unwrap();
    assert_eq!(closed(&mut socket).await, code(4202, "version"));
}

// docs/protocol.md §1.1, §13
#[tokio::test]
async fn relay_refuses_malformed_hello() {
    let relay = relay(&Issuer::new()).await;
    let (_, hello) = DeviceHello::start(&mut rand::rng());
    let longer = [hello.as_slice(), &[0]].concat();
    for message in [vec![], vec![1], hello[..hello.len() - 1].to_vec(), longer] {
        let mut socket = upgrade(&relay).await;
        socket.send(Message::binary(message)).await.unwrap();
        assert_eq!(closed(&mut socket).await, code(4200, "malformed"));
    }
}

// docs/protocol.md §3.1
#[tokio::test]
async fn relay_refuses_text_message() {
    let relay = relay(&Issuer::new()).await;
    let mut socket = upgrade(&relay).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(closed(&mut socket).await, code(4200, "malformed"));
}

// RFC 6455 §5.1
#[tokio::test]
async fn relay_refuses_unmasked_frame() {
    let relay = relay(&Issuer::new()).await;
    let mut socket = without_masks(upgrade(&relay).await).await;
    let (_, hello) = DeviceHello::start(&mut rand::rng());
    socket.send(Message::binary(hello)).await.unwrap();
    assert_eq!(closed(&mut socket).await, code(4200, "malformed"));
}

// docs/protocol.md §12
#[tokio::test]
async fn relay_refuses_oversize_message_before_the_handshake_is_complete() {
    let relay = relay(&Issuer::new()).await;
    let mut socket = upgrade(&relay).await;
    socket.send(Message::binary(vec![1; 16_388])).await.unwrap();
    assert_eq!(closed(&mut socket).await, code(4201, "violation"));
}

// docs/protocol.md §3.1, §12
#[tokio::test]
async fn relay_refuses_more_than_64_kib_before_the_handshake_is_complete() {
    let relay = relay(&Issuer::new()).await;
    let mut socket = upgrade(&relay).await;
    for _ in 0..65_536 / 125 {
        // The relay may have had enough before we have said everything.
        let _ = socket.feed(Message::Ping(vec![0; 125].into())).await;
    }
    let _ = socket.flush().await;
    assert_eq!(closed(&mut socket).await, code(4201, "violation"));
}

// docs/protocol.md §3.1, §12
#[tokio::test]
async fn relay_closes_connection_that_does_not_authenticate_in_time() {
    let relay = Issuer::new()
        .relay()
        .handshake_deadline(Duration::from_millis(300))
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let mut silent = upgrade(&relay).await;
    assert_eq!(closed(&mut silent).await, code(4003, "timeout"));

    let mut half_way = upgrade(&relay).await;
    let (_, hello) = DeviceHello::start(&mut rand::rng());
    half_way.send(Message::binary(hello)).await.unwrap();
    receive(&mut half_way).await;
    assert_eq!(closed(&mut half_way).await, code(4003, "timeout"));
}

#[tokio::test]
async fn relay_drops_slow_loris_before_there_is_a_websocket() {
    let issuer = Issuer::new();
    let directory = tempfile::tempdir().unwrap();
    let deadline = Duration::from_millis(300);
    let plain = issuer
        .relay()
        .handshake_deadline(deadline)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let secure = issuer
        .configure(Relay::builder(directory.path()))
        .handshake_deadline(deadline)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    for relay in [&plain, &secure] {
        for beginning in ["", "GET /v1 HTTP/1.1\r\nHost: x\r\n"] {
            let mut stream = tokio::net::TcpStream::connect(relay.local_addr())
                .await
                .unwrap();
            stream.write_all(beginning.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            // To the end of the stream, however it ends.
            let _ = within(stream.read_to_end(&mut rest)).await;
        }
    }
}

// RFC 6455 §4.2, §10.2; docs/protocol.md §3.1
#[tokio::test]
async fn relay_upgrades_only_what_is_a_request_of_this_protocol() {
    let relay = relay(&Issuer::new()).await;
    let cases: [(&str, &[Field], u16); 8] = [
        ("/v1", &[("sec-websocket-protocol", None)], 400),
        (
            "/v1",
            &[("sec-websocket-protocol", Some("sealwire.v2"))],
            400,
        ),
        ("/v1", &[("sec-websocket-version", Some("8"))], 426),
        ("/v1", &[("origin", Some("https://app.example"))], 403),
        ("/v1", &[("authorization", Some("Bearer a.b.c"))], 401),
        ("/v1", &[("authorization", Some("Basic YTpi"))], 401),
        ("/v1?token=a.b.c", &[], 400),
        ("/v2", &[], 404),
    ];
    for (path, fields, status) in cases {
        assert_eq!(
            upgrade_with(&relay, path, fields).await.unwrap_err(),
            status,
            "{path} {fields:?}"
        );
    }
}

#[tokio::test]
async fn relay_upgrades_request_of_an_allowed_origin() {
    let relay = Issuer::new()
        .relay()
        .allow_origin("https://app.example")
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    assert!(
        upgrade_with(&relay, "/v1", &[("origin", Some("https://app.example"))])
            .await
            .is_ok()
    );
    assert_eq!(
        upgrade_with(&relay, "/v1", &[("origin", Some("https://evil.example"))])
            .await
            .unwrap_err(),
        403
    );
}

// docs/protocol.md §3.1, §3.5
#[tokio::test]
async fn token_of_the_upgrade_request_authorises_only_its_own_handshake() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let (key, thief) = (new_key(), new_key());
    let (token, other) = (issuer.token("alice", &key), issuer.token("mallory", &thief));
    let authorization = format!("Bearer {token}");
    let fields = [("authorization", Some(authorization.as_str()))];

    let socket = upgrade_with(&relay, "/v1", &fields).await.unwrap();
    let (socket, link, _) = shake_hands(
        &relay,
        socket,
        &key,
        Credential::UpgradeToken(token.as_bytes()),
    )
    .await;
    Device::open(key, token.clone(), socket, link).await;

    // It is no bearer token: another device's proof does not go with it.
    for credential in [
        Credential::UpgradeToken(token.as_bytes()),
        Credential::Token(other.as_bytes()),
    ] {
        let socket = upgrade_with(&relay, "/v1", &fields).await.unwrap();
        let (mut socket, ..) = shake_hands(&relay, socket, &thief, credential).await;
        assert_eq!(closed(&mut socket).await, code(4100, "not_authorised"));
    }
}

#[tokio::test]
async fn refused_requests_answer_in_plain_words_without_the_token() {
    let relay = relay(&Issuer::new()).await;
    let request = "GET /v1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: sealwire.v1\r\nAuthorization: Bearer secret.secret.secret\r\n\r\n";
    let (status, answer) = http(&relay, request).await;
    assert_eq!(status, 401);
    assert!(
        answer.ends_with("the token is not accepted\n") && !answer.contains("secret"),
        "{answer}"
    );
}

#[tokio::test]
async fn health_is_answered_and_nothing_else_is() {
    let relay = relay(&Issuer::new()).await;
    let (status, answer) = http(&relay, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(status, 200);
    assert!(answer.ends_with("{\"status\":\"ok\"}\n"), "{answer}");
    assert_eq!(
        http(
            &relay,
            "POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
        .await
        .0,
        405
    );
    assert_eq!(
        http(&relay, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.0,
        404
    );
}

#[tokio::test]
async fn relay_refuses_flood_of_headers() {
    let relay = relay(&Issuer::new()).await;
    let many = (0..65).map(|i| format!("x-{i}: y\r\n")).collect::<String>();
    assert_eq!(
        http(
            &relay,
            &format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{many}\r\n")
        )
        .await
        .0,
        431
    );
    let long = "y".repeat(17 << 10);
    assert_eq!(
        http(
            &relay,
            &format!("GET /healthz HTTP/1.1\r\nHost: x\r\nx: {long}\r\n\r\n")
        )
        .await
        .0,
        431
    );
}

// docs/protocol.md §5.2
#[tokio::test]
async fn newer_link_of_a_device_replaces_the_older() {
    let issuer = Issuer::new();
    let relay = relay(&issuer).await;
    let key = new_key();
    let token = issuer.token("alice", &key);
    let (mut older, _) =
        Device::connect(&relay, SigningKey::from_seed(&key.seed()), token.clone()).await;
    let (mut newer, _) = Device::connect(&relay, key, token).await;
    assert_eq!(older.closed().await, code(4004, "replaced"));
    newer.nothing_waits().await;
}

// docs/protocol.md §3.6
#[tokio::test]
async fn invite_enrols_one_device_which_then_renews() {
    let relay = Relay::in_memory().bind("127.0.0.1:0").await.unwrap();
    let invitation = relay
        .invite("alice", Duration::from_secs(600))
        .await
        .unwrap();
    assert_eq!(
        (&invitation.relay.address, invitation.relay.certificate),
        (relay.address(), None)
    );
    let code_of_invite = invitation.code.expose();

    let stranger = new_key();
    assert_eq!(
        refusal(&relay, &stranger, Credential::Renewal).await,
        code(4100, "not_authorised")
    );
    assert_eq!(
        refusal(&relay, &stranger, Credential::Invite(&[1; 32])).await,
        code(4100, "not_authorised")
    );

    let key = new_key();
    for credential in [
        Credential::Invite(code_of_invite),
        Credential::Invite(code_of_invite),
        Credential::Renewal,
    ] {
        let (socket, link, _) = shake_hands(&relay, upgrade(&relay).await, &key, credential).await;
        let (mut device, ready) = Device::open(
            SigningKey::from_seed(&key.seed()),
            String::new(),
            socket,
            link,
        )
        .await;
        assert!(matches!(ready, Said::Ready { user, .. } if user == "alice"));
        let Said::Token(0, token) = device.next().await else {
            panic!("no token")
        };
        // The token it got is one that lets it in.
        let token = String::from_utf8(token).unwrap();
        Device::connect(&relay, SigningKey::from_seed(&key.seed()), token).await;
    }
    assert_eq!(
        refusal(&relay, &stranger, Credential::Invite(code_of_invite)).await,
        code(4100, "not_authorised")
    );
}

// docs/protocol.md §3.6
#[tokio::test]
async fn relay_without_built_in_issuer_refuses_invites_and_renewals() {
    let relay = relay(&Issuer::new()).await;
    let key = new_key();
    assert_eq!(
        refusal(&relay, &key, Credential::Invite(&[1; 32])).await,
        code(4100, "not_authorised")
    );
    assert_eq!(
        refusal(&relay, &key, Credential::Renewal).await,
        code(4100, "not_authorised")
    );
    assert!(matches!(
        relay.invite("alice", Duration::from_secs(60)).await,
        Err(RelayError::NoIssuer)
    ));
}

#[tokio::test]
async fn relay_does_not_start_on_what_it_cannot_use() {
    let directory = tempfile::tempdir().unwrap();
    let nowhere = directory.path().join("missing.pem");
    let files = Tls::Files {
        certificates: nowhere.clone(),
        key: nowhere.clone(),
    };
    assert!(matches!(
        Relay::in_memory().tls(files).bind("127.0.0.1:0").await,
        Err(RelayError::CertificateFile { path, .. }) if path == nowhere
    ));
    assert!(matches!(
        Relay::in_memory()
            .tls(Tls::SelfSigned)
            .bind("127.0.0.1:0")
            .await,
        Err(RelayError::NoCertificate)
    ));
    let running = Relay::builder(directory.path())
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    assert!(matches!(
        Relay::builder(directory.path()).bind("127.0.0.1:0").await,
        Err(RelayError::Store(_))
    ));
    assert!(matches!(
        Relay::in_memory().bind(running.local_addr()).await,
        Err(RelayError::Listen(_))
    ));
}

// docs/protocol.md §13
#[tokio::test]
async fn removed_device_loses_its_link_and_gets_no_other() {
    let relay = Relay::in_memory().bind("127.0.0.1:0").await.unwrap();
    let invitation = relay
        .invite("alice", Duration::from_secs(60))
        .await
        .unwrap();
    let key = new_key();
    let credential = Credential::Invite(invitation.code.expose());
    let (socket, link, _) = shake_hands(&relay, upgrade(&relay).await, &key, credential).await;
    let kept = SigningKey::from_seed(&key.seed());
    let (mut alice, _) = Device::open(kept, String::new(), socket, link).await;
    let Said::Token(0, token) = alice.next().await else {
        panic!("no token")
    };
    assert!(relay.remove_device(&alice.id()).await.unwrap());
    assert_eq!(alice.closed().await, code(4102, "revoked"));
    assert_eq!(
        refusal(&relay, &key, Credential::Token(&token)).await,
        code(4102, "revoked")
    );
    assert_eq!(
        refusal(&relay, &key, Credential::Renewal).await,
        code(4102, "revoked")
    );
}

// docs/protocol.md §2.2
#[tokio::test]
async fn identity_providers_key_set_takes_the_place_of_the_built_in_issuer() {
    let provider = PrivateKey::generate(KeyType::P256).unwrap();
    let stranger = PrivateKey::generate(KeyType::P256).unwrap();
    let allowed = Algorithms::of(&[Algorithm::Es256]);
    let keys = KeySet::from_public_keys(&[provider.public().unwrap()], allowed).unwrap();
    let relay = Relay::in_memory()
        .issuer(IssuerName::new(ISSUER).unwrap(), AUDIENCE, keys)
        .bind("127.0.0.1:0")
        .await
        .unwrap();
    let key = new_key();
    let claims = Issuer::claims("alice", &key).to_string();
    let sign = |signer| {
        let signer = sealwire_jose::SigningKey::new(signer).unwrap();
        signer.json("at+jwt", claims.as_bytes()).unwrap()
    };
    let another_algorithm = Issuer::new().token("alice", &key);
    for token in [sign(&stranger), another_algorithm] {
        let credential = Credential::Token(token.as_bytes());
        assert_eq!(
            refusal(&relay, &key, credential).await,
            code(4100, "not_authorised")
        );
    }
    let (_, ready) = Device::connect(&relay, key, sign(&provider)).await;
    assert!(matches!(ready, Said::Ready { user, .. } if user == "alice"));
}
