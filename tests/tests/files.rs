//! Large content, from one device's disk to another's, over real sockets and files (docs/protocol.md §15).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};

use rand::Rng as _;
use sealwire_client::error::Refusal;
use sealwire_client::{
    Error, Event, FileError, FileOffer, FileOptions, FileReceive, FileSend, Message, Received,
};
use sealwire_e2e::file::{self, FileKey};
use sealwire_server::policy::Allowance;
use sealwire_tests::{Device, Town, Wire, within};

const MIB: u64 = 1 << 20;

/// A file with bytes that nobody guesses.
fn write_file(path: &Path, size: u64) -> Vec<u8> {
    let mut content = vec![0; usize::try_from(size).unwrap()];
    rand::rng().fill_bytes(&mut content);
    fs::write(path, &content).unwrap();
    content
}

async fn sending(from: &Device, to: &str, path: &Path) -> FileSend {
    let beginning = from.client.send_file(to, path, FileOptions::default());
    within("a file to be begun", beginning).await.unwrap()
}

/// Sends a file, and what comes of it.
async fn send(from: &Device, to: &str, path: &Path) -> Result<(), Error> {
    let sending = sending(from, to, path).await;
    within("a file to be sent", sending.finish())
        .await
        .map(drop)
}

/// Waits until so much has been sent.
async fn sent(file: &mut FileSend, bytes: u64) {
    within("a file to get on", async {
        while file.progress().await.expect("it goes on").done < bytes {}
    })
    .await;
}

/// Waits until so much has been received.
async fn received(file: &mut FileReceive, bytes: u64) {
    within("a file to get on", async {
        while file.progress().await.expect("it goes on").done < bytes {}
    })
    .await;
}

/// The next message, not acknowledged, and the file that it names.
async fn offer(device: &Device) -> (Received, FileOffer) {
    let pick = |event| match event {
        Event::Message(received) => Some(received),
        _ => None,
    };
    let received = device.next("a file", pick).await;
    let offer = FileOffer::in_message(&received.message).expect("it names a file");
    (received, offer)
}

async fn receive(device: &Device, offer: &FileOffer, path: &Path) -> Result<PathBuf, Error> {
    let receiving = device.client.receive_file(offer, path);
    within("a file to be received", receiving.finish()).await
}

/// What is in a directory.
fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// docs/protocol.md §15.1: whoever is interrupted goes on, and nothing goes over the wire twice but what was under way.
#[tokio::test]
async fn large_file_arrives_through_restarts_of_the_relay_and_of_both_devices() {
    const SIZE: u64 = 40 * MIB;
    // What a restart costs at most: the requests under way, and frames around everything.
    const SLACK: u64 = 3 * MIB;
    let mut town = Town::new().await;
    let desk = tempfile::tempdir().unwrap();
    let (source, place) = (desk.path().join("film.bin"), desk.path().join("got.bin"));
    let content = write_file(&source, SIZE);
    let relay = town.relay().local_addr();
    let wires = [
        Wire::to(town.whereabouts(), relay).await,
        Wire::to(town.whereabouts(), relay).await,
    ];
    let arrive = async |user: &str, wire: &Wire| {
        let mut account = town.invited(&town.invite(user).await);
        account.whereabouts = wire.whereabouts().clone();
        account.arrive().await
    };
    let alice = arrive("alice", &wires[0]).await;
    let bob = arrive("bob", &wires[1]).await;

    let mut sending_file = sending(&alice, "bob", &source).await;
    sent(&mut sending_file, 12 * MIB).await;
    town.stop().await;
    town.start().await;
    sent(&mut sending_file, 24 * MIB).await;
    drop(sending_file);
    let alice = alice.leave().await.arrive().await;
    let mut again = sending(&alice, "bob", &source).await;
    // It does not begin anew.
    sent(&mut again, 24 * MIB).await;
    within("the rest", again.finish()).await.unwrap();
    let up = wires[0].up();
    assert!((SIZE..SIZE + SLACK).contains(&up), "{up} bytes sent");

    let (message, film) = offer(&bob).await;
    assert_eq!((film.name(), film.size()), ("film.bin", SIZE));
    assert!(!message.redelivered);
    let mut receiving = bob.client.receive_file(&film, &place);
    received(&mut receiving, 12 * MIB).await;
    town.stop().await;
    town.start().await;
    received(&mut receiving, 24 * MIB).await;
    drop(receiving);
    assert!(!place.exists());
    let bob = bob.leave().await.arrive().await;
    let (message, film) = offer(&bob).await;
    assert!(message.redelivered);
    let got = receive(&bob, &film, &place).await.unwrap();
    message.ack();
    let down = wires[1].down();
    assert!(
        (SIZE..SIZE + SLACK).contains(&down),
        "{down} bytes received"
    );
    assert!(fs::read(got).unwrap() == content);
    assert_eq!(names(desk.path()).len(), 2);
}

#[tokio::test]
async fn file_is_sent_to_all_of_a_users_devices_and_known_to_the_senders_others() {
    let town = Town::new().await;
    let desk = tempfile::tempdir().unwrap();
    let source = desk.path().join("a.txt");
    let content = write_file(&source, 100_000);
    let alice = town.join("alice").await;
    let other = town.join("alice").await;
    let bobs = [town.join("bob").await, town.join("bob").await];
    send(&alice, "bob", &source).await.unwrap();
    for (index, bob) in bobs.iter().enumerate() {
        let (_, file) = offer(bob).await;
        let place = desk.path().join(format!("got-{index}"));
        receive(bob, &file, &place).await.unwrap();
        assert!(fs::read(&place).unwrap() == content);
    }
    let pick = |event| match event {
        Event::Copy { message, .. } => Some(message),
        _ => None,
    };
    let copy = other.next("a copy", pick).await;
    let file = FileOffer::in_message(&copy.message).unwrap();
    let place = desk.path().join("copy");
    receive(&other, &file, &place).await.unwrap();
    assert!(fs::read(&place).unwrap() == content);
}

/// Nobody waits for anybody, whoever sends and fetches on one link at the same time.
#[tokio::test]
async fn files_go_both_ways_at_the_same_time() {
    let town = Town::new().await;
    let desk = tempfile::tempdir().unwrap();
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let mut contents = Vec::new();
    for name in ["a", "b", "c", "d"] {
        contents.push(write_file(&desk.path().join(name), 6 * MIB));
    }
    let path = |name: &str| desk.path().join(name);
    let (first, second) = (path("a"), path("b"));
    let (to_bob, to_alice) =
        tokio::join!(send(&alice, "bob", &first), send(&bob, "alice", &second));
    to_bob.and(to_alice).unwrap();
    let (_, for_bob) = offer(&bob).await;
    let (_, for_alice) = offer(&alice).await;
    let (third, fourth) = (path("c"), path("d"));
    let (at_bob, at_alice) = (path("at-bob"), path("at-alice"));
    let (sent, also_sent, got, also_got) = tokio::join!(
        send(&alice, "bob", &third),
        send(&bob, "alice", &fourth),
        receive(&bob, &for_bob, &at_bob),
        receive(&alice, &for_alice, &at_alice),
    );
    sent.and(also_sent).unwrap();
    got.and(also_got).unwrap();
    assert!(fs::read(at_bob).unwrap() == contents[0]);
    assert!(fs::read(at_alice).unwrap() == contents[1]);
}

#[tokio::test]
async fn empty_file_arrives() {
    let town = Town::new().await;
    let desk = tempfile::tempdir().unwrap();
    let source = desk.path().join("empty");
    fs::write(&source, b"").unwrap();
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    send(&alice, "bob", &source).await.unwrap();
    let (_, file) = offer(&bob).await;
    let place = receive(&bob, &file, &desk.path().join("got"))
        .await
        .unwrap();
    assert_eq!(fs::read(place).unwrap(), b"");
}

#[tokio::test]
async fn file_that_the_relay_has_no_room_for_is_refused() {
    let town = Town::with(|relay| {
        let mut allowance = Allowance::default();
        allowance.blobs.bytes_per_user = 300_000;
        relay.allowance(allowance)
    })
    .await;
    let desk = tempfile::tempdir().unwrap();
    let [small, large] = ["small", "large"].map(|name| desk.path().join(name));
    write_file(&small, 200_000);
    write_file(&large, 400_000);
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    let refused = send(&alice, "bob", &large).await;
    assert!(
        matches!(refused, Err(Error::File(FileError::TooLarge))),
        "{refused:?}"
    );
    send(&alice, "bob", &small).await.unwrap();
    let refused = send(&alice, "bob", &small).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refusal::StorageFull))),
        "{refused:?}"
    );
    // Everybody else has room of their own.
    send(&bob, "alice", &small).await.unwrap();
}

#[tokio::test]
async fn file_to_nobody_is_not_even_begun() {
    let town = Town::new().await;
    let desk = tempfile::tempdir().unwrap();
    let source = desk.path().join("a");
    write_file(&source, 100);
    let alice = town.join("alice").await;
    let beginning = alice
        .client
        .send_file("nobody", &source, FileOptions::default());
    let refused = within("a refusal", beginning).await;
    assert!(
        matches!(refused, Err(Error::Refused(Refusal::UnknownUser))),
        "{refused:?}"
    );
    let bob = town.join("bob").await;
    let missing = send(&alice, "bob", &desk.path().join("missing")).await;
    assert!(matches!(missing, Err(Error::File(FileError::Read(_)))));
    let directory = send(&alice, "bob", desk.path()).await;
    assert!(matches!(directory, Err(Error::File(FileError::NotAFile))));
    drop(bob);
    assert_eq!(names(&town.data().join("blobs")), [""; 0]);
}

/// docs/protocol.md §15.3: a name is what the sender calls the file, and no path.
#[tokio::test]
async fn name_from_elsewhere_chooses_no_directory_and_hides_nothing() {
    let town = Town::new().await;
    let (mallory, bob) = (town.join("mallory").await, town.join("bob").await);
    for (name, plain) in [
        ("../../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\windows\\system.ini", "system.ini"),
        ("..", "file"),
        (".bashrc", "_bashrc"),
        ("-rf", "_rf"),
        ("annex\u{202e}fdp.exe", "annex_fdp.exe"),
        ("nul.txt", "_nul.txt"),
    ] {
        let offer_made = file::FileOffer {
            blob: [1; 32],
            key: FileKey::from_bytes(&[2; 32]),
            size: 5,
            sha256: [3; 32],
            name,
            media_type: "text/plain",
        };
        let message = Message::new(file::FILE_MEDIA_TYPE, offer_made.encode().unwrap());
        let sending = mallory.client.send("bob", message);
        within("an offer to be sent", sending).await.unwrap();
        let (received, offer_got) = offer(&bob).await;
        received.ack();
        assert_eq!(offer_got.name(), plain, "{name:?}");
    }
}

#[tokio::test]
async fn what_is_no_offer_is_an_ordinary_message() {
    let town = Town::new().await;
    let (mallory, bob) = (town.join("mallory").await, town.join("bob").await);
    let mut body = vec![1; 200];
    body[1..].fill(0xff);
    let message = Message::new(file::FILE_MEDIA_TYPE, body);
    within("a message to be sent", mallory.client.send("bob", message))
        .await
        .unwrap();
    let received = bob.message().await;
    assert_eq!(FileOffer::in_message(&received.message), None);
}

/// docs/protocol.md §15.3: one bit that is not the sender's, anywhere, and nothing is given to the user.
#[tokio::test]
async fn file_that_was_changed_at_the_relay_is_not_given_to_anybody() {
    let mut town = Town::new().await;
    let desk = tempfile::tempdir().unwrap();
    let source = desk.path().join("a.txt");
    write_file(&source, 300_000);
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    send(&alice, "bob", &source).await.unwrap();
    let (_, file) = offer(&bob).await;
    let blobs = town.data().join("blobs");
    let blob = blobs.join(&names(&blobs)[0]);
    let whole = fs::read(&blob).unwrap();
    let got = desk.path().join("got");
    fs::create_dir(&got).unwrap();
    let place = got.join("a.txt");
    for at in [4_096, 4_200, 100_000, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[at] ^= 0x40;
        fs::write(&blob, changed).unwrap();
        let damaged = receive(&bob, &file, &place).await;
        assert!(
            matches!(damaged, Err(Error::File(FileError::Damaged))),
            "{damaged:?}"
        );
        assert_eq!(names(&got), [""; 0]);
    }
    // A relay that finds its file shorter than it was serves none of it.
    town.stop().await;
    fs::write(&blob, &whole[..whole.len() - 1]).unwrap();
    town.start().await;
    let gone = receive(&bob, &file, &place).await;
    assert!(
        matches!(gone, Err(Error::File(FileError::Gone))),
        "{gone:?}"
    );
    town.stop().await;
    fs::write(&blob, &whole).unwrap();
    town.start().await;
    receive(&bob, &file, &place).await.unwrap();
    assert_eq!(names(&got), ["a.txt"]);
}

/// The relay sees neither what is in a file nor what it is called.
#[tokio::test]
async fn relay_stores_nothing_readable_of_a_file() {
    let mut town = Town::new().await;
    let desk = tempfile::tempdir().unwrap();
    let source = desk.path().join("secret-plan.txt");
    let content = b"the plan is to meet at nine ".repeat(5_000);
    fs::write(&source, &content).unwrap();
    let (alice, bob) = (town.join("alice").await, town.join("bob").await);
    send(&alice, "bob", &source).await.unwrap();
    drop(bob);
    town.stop().await;
    let mut folders = vec![town.data()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let stored = fs::read(&path).unwrap();
            for secret in [&b"meet at nine"[..], b"secret-plan"] {
                let found = stored.windows(secret.len()).any(|piece| piece == secret);
                assert!(!found, "{}", path.display());
            }
        }
    }
    assert!(files > 3);
}
