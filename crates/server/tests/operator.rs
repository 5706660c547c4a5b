//! What an operator asks a relay over its socket, and its data directory where no relay runs.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sealwire_server::data_dir::{DataDir, InitOptions};
use sealwire_server::directory::{Directory, VerifiedCard};
use sealwire_server::operator::{
    Console, ConsoleError, DeviceRow, DeviceState, IssuerKind, MailboxRow, Question, SOCKET_FILE,
    Stats, UserRow,
};
use sealwire_server::storage::{OpenError, Storage, StorageOptions};
use sealwire_server::{Relay, Tls};
use serde::de::DeserializeOwned;
use support::{Device, Issuer, Prekey, assert_accepted, now, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

async fn relay_on(directory: &Path) -> Relay {
    let relay = Issuer::fixed().configure(Relay::builder(directory));
    relay.tls(Tls::Plain).bind("127.0.0.1:0").await.unwrap()
}

async fn all<T: DeserializeOwned>(console: &Console, question: &Question) -> Vec<T> {
    let mut answer = console.ask(question).await.unwrap();
    let mut rows = Vec::new();
    while let Some(row) = within(answer.next()).await.unwrap() {
        rows.push(row);
    }
    rows
}

async fn stats(console: &Console) -> Stats {
    let mut stats = all(console, &Question::Stats).await;
    assert_eq!(stats.len(), 1);
    stats.remove(0)
}

fn user(name: &str) -> Option<User> {
    Some(User::new(name).unwrap())
}

/// Everything that can be listed.
async fn lists(console: &Console) -> (Vec<UserRow>, Vec<DeviceRow>, Vec<MailboxRow>) {
    let mut mailboxes: Vec<MailboxRow> = all(console, &Question::Mailboxes(None)).await;
    mailboxes.sort_by_key(|row| *row.device.as_bytes());
    (
        all(console, &Question::Users).await,
        all(console, &Question::Devices(None)).await,
        mailboxes,
    )
}

#[tokio::test]
async fn relay_that_runs_and_its_directory_afterwards_say_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let relay = relay_on(directory.path()).await;
    let issuer = Issuer::fixed();
    let mut alice = Device::join(&relay, &issuer, "acme/alice & co").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let prekeys = [Prekey::new(1, bob.id(), &bob.key)];
    assert_accepted(&bob.publish_prekeys(&prekeys).await);
    let bob_id = bob.id();
    drop(bob);
    let lost = Device::join(&relay, &issuer, "bob").await.id();
    assert!(relay.remove_device(&lost).await.unwrap());
    for (id, message) in [b"sealed".as_slice(), b"sealed, too"]
        .into_iter()
        .enumerate()
    {
        let id = u8::try_from(id).unwrap();
        assert_accepted(&alice.send("bob", id, &[bob_id], message).await);
    }

    let console = Console::open(directory.path()).await.unwrap();
    assert!(console.is_running());
    let socket = directory.path().join(SOCKET_FILE);
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let running = stats(&console).await;
    assert!(running.running && running.writable && !running.draining);
    assert!(running.uptime_seconds.is_some() && running.disk_free_bytes > 0);
    assert_eq!(running.thumbprint, relay.thumbprint());
    assert_eq!((running.users, running.devices), (2, 2));
    assert_eq!(running.mail.mailboxes, 3);
    assert_eq!(running.mail.waiting_mailboxes, 1);
    assert_eq!((running.mail.messages, running.mail.bytes), (2, 17));
    assert_eq!(running.issuers.len(), 1);
    assert_eq!(running.issuers[0].issuer, support::ISSUER);
    assert_eq!(running.issuers[0].kind, IssuerKind::Outside);

    // A link that has gone is noticed by and by.
    within(async { while stats(&console).await.links != 1 {} }).await;
    let (users, devices, mailboxes) = lists(&console).await;
    let of = |id: Thumbprint| {
        let found = devices.iter().find(|row| row.device == id);
        found.unwrap_or_else(|| panic!("{id} is not among {devices:?}"))
    };
    assert_eq!(devices.len(), 3);
    let row = of(alice.id());
    assert_eq!(row.user, "acme/alice & co");
    assert_eq!((row.state, row.linked), (DeviceState::Current, true));
    assert!(row.card.unwrap().abs_diff(now()) < 60);
    let row = of(bob_id);
    assert_eq!((row.linked, row.prekeys, row.waiting), (false, 1, 2));
    assert_eq!(of(lost).state, DeviceState::Removed);
    let names: Vec<_> = users.iter().map(|row| row.user.as_str()).collect();
    assert_eq!(names, ["acme/alice & co", "bob"]);
    assert_eq!((users[1].devices, users[1].current), (1, 1));
    assert_eq!((users[1].links, users[1].waiting), (0, 2));
    let full = mailboxes.iter().find(|row| row.device == bob_id).unwrap();
    assert_eq!((full.waiting, full.messages, full.bytes), (2, 2, 17));
    assert!(full.expires.unwrap() > now());

    // Of one user, whatever the name is.
    let of_alice = user("acme/alice & co");
    let found: Vec<DeviceRow> = all(&console, &Question::Devices(of_alice.clone())).await;
    assert_eq!(found, [of(alice.id()).clone()]);
    let found: Vec<MailboxRow> = all(&console, &Question::Mailboxes(of_alice)).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].device, found[0].sent), (alice.id(), 2));
    let nobody: Vec<DeviceRow> = all(&console, &Question::Devices(user("nobody"))).await;
    assert_eq!(nobody, []);

    drop(alice);
    within(async { while stats(&console).await.links != 0 {} }).await;
    let online = lists(&console).await;
    relay.shutdown().await;
    assert!(!socket.exists());
    let console = Console::open(directory.path()).await.unwrap();
    assert!(!console.is_running());
    assert_eq!(lists(&console).await, online);
    let offline = stats(&console).await;
    assert!(!offline.running && offline.issuers.is_empty());
    assert_eq!(offline.mail, running.mail);
    // While it is looked into, no relay starts on it.
    let relay = Issuer::fixed().configure(Relay::builder(directory.path()));
    let started = relay.tls(Tls::Plain).bind("127.0.0.1:0").await;
    assert!(started.unwrap_err().to_string().contains("is in use"));
    drop(console);
    relay_on(directory.path()).await.shutdown().await;
}

#[tokio::test]
async fn socket_that_a_killed_relay_has_left_is_replaced_and_is_nobody_until_then() {
    let directory = tempfile::tempdir().unwrap();
    DataDir::init(directory.path(), &InitOptions::default()).unwrap();
    let socket = directory.path().join(SOCKET_FILE);
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let console = Console::open(directory.path()).await.unwrap();
    assert!(!console.is_running());
    drop(console);
    let relay = relay_on(directory.path()).await;
    let console = Console::open(directory.path()).await.unwrap();
    assert_eq!(stats(&console).await.thumbprint, relay.thumbprint());
}

/// Status line, and what follows the header.
async fn ask(directory: &Path, request: &str) -> (String, String) {
    let mut stream = UnixStream::connect(directory.join(SOCKET_FILE))
        .await
        .unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.lines().next().unwrap();
    (status.to_owned(), body.to_owned())
}

#[tokio::test]
async fn socket_answers_questions_and_what_the_operators_port_does() {
    let directory = tempfile::tempdir().unwrap();
    let _relay = relay_on(directory.path()).await;
    let ask = async |request| ask(directory.path(), request).await;
    let (status, body) = ask("GET /stats").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains("\"running\":true"), "{body}");
    let (status, body) = ask("GET /metrics").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(body.contains("sealwire_links_open 0"), "{body}");
    for (request, status) in [
        ("POST /stats", "405 Method Not Allowed"),
        ("GET /", "404 Not Found"),
        ("GET /v1", "404 Not Found"),
        ("GET /devices?user=%00", "400 Bad Request"),
        ("GET /users?user=alice", "400 Bad Request"),
    ] {
        assert_eq!(ask(request).await.0, format!("HTTP/1.1 {status}"));
    }
}

/// More than are read at a time, with users whose devices lie on both sides of where a piece ends.
#[tokio::test]
async fn long_lists_have_everything_once_and_in_order() {
    const USERS: u64 = 400;
    let directory = tempfile::tempdir().unwrap();
    DataDir::init(directory.path(), &InitOptions::default()).unwrap();
    let storage = Storage::open(directory.path(), &StorageOptions::default()).unwrap();
    let devices = Directory::new(storage.clone());
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..USERS {
        for device in 0..3 {
            let devices = devices.clone();
            writes.spawn(async move {
                let mut id = [device; 32];
                id[..8].copy_from_slice(&(number * 7_919 % 1_000).to_be_bytes());
                let card = VerifiedCard {
                    id: 1,
                    issued: now(),
                    // Everybody's last one has been away.
                    attested: if device == 2 { 1 } else { now() },
                    card: vec![1],
                };
                let user = User::new(&format!("user-{number:03}")).unwrap();
                let device = Thumbprint::from_bytes(id);
                devices.publish_card(&user, &device, card).await.unwrap();
            });
        }
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap();
    }
    drop((devices, storage));
    let console = Console::open(directory.path()).await.unwrap();
    let (users, devices, _) = lists(&console).await;
    let names: Vec<_> = users.iter().map(|row| row.user.clone()).collect();
    let expected: Vec<_> = (0..USERS)
        .map(|number| format!("user-{number:03}"))
        .collect();
    assert_eq!(names, expected);
    assert!(users.iter().all(|row| (row.devices, row.current) == (3, 2)));
    assert_eq!(devices.len() as u64, 3 * USERS);
    assert!(devices.is_sorted_by(|one, next| one.device.as_bytes() < next.device.as_bytes()));
    let lapsed = devices
        .iter()
        .filter(|row| row.state == DeviceState::Lapsed);
    assert_eq!(lapsed.count() as u64, USERS);
    let stats = stats(&console).await;
    assert_eq!((stats.users, stats.devices), (USERS, 3 * USERS));
}

#[tokio::test]
async fn directory_of_another_user_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    DataDir::init(directory.path(), &InitOptions::default()).unwrap();
    if chown(directory.path(), Some(12_345), None).is_err() {
        // Only root can give directories away.
        return;
    }
    let refused = Console::open(directory.path()).await.unwrap_err();
    assert!(
        matches!(refused, ConsoleError::NotOwner { .. }),
        "{refused}"
    );
    assert!(!directory.path().join("mail").exists());
}

#[tokio::test]
async fn directory_that_is_in_use_without_a_socket_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let _relay = relay_on(directory.path()).await;
    std::fs::remove_file(directory.path().join(SOCKET_FILE)).unwrap();
    let refused = Console::open(directory.path()).await.unwrap_err();
    assert!(
        matches!(refused, ConsoleError::Store(OpenError::InUse { .. })),
        "{refused}"
    );
}
