//! A relay's data is copied while the relay runs, and put back elsewhere.
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

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{ToRelay, Upload};
use sealwire_protocol::limits::MAX_BLOB_CHUNK_BYTES;
use sealwire_server::backup::{BackupError, Copied, MANIFEST_FILE, back_up, restore};
use sealwire_server::data_dir::{DataDir, InitOptions};
use sealwire_server::operator::{Console, ConsoleError, Question};
use sealwire_server::revocations::Revocation;
use sealwire_server::{Relay, Tls};
use sha2::{Digest as _, Sha256};
use support::{Device, Issuer, Prekey, Said, assert_accepted, refused, within};

const WHOLE: [u8; 32] = [7; 32];
const HALF: [u8; 32] = [8; 32];
/// Pieces of the larger blob: more than all buffers on the way of a backup hold.
const PIECES: u64 = 64;
const PIECE: u64 = MAX_BLOB_CHUNK_BYTES as u64;

async fn relay_on(directory: &Path) -> Relay {
    let relay = Issuer::fixed().configure(Relay::builder(directory));
    relay.tls(Tls::Plain).bind("127.0.0.1:0").await.unwrap()
}

async fn copy(data: &Path, to: &Path) -> Result<Copied, BackupError> {
    let console = Console::open(data).await.unwrap();
    let mut last = 0;
    let progress = |done, total| {
        assert!(last < done && done <= total, "{last} {done} {total}");
        last = done;
    };
    within(back_up(&console, to, progress)).await
}

async fn upload(device: &mut Device, blob: [u8; 32], size: u64, offset: u64, data: &[u8]) -> Said {
    let request = device.request();
    let upload = Upload {
        request,
        blob,
        size,
        offset,
        data,
    };
    device.say(&ToRelay::Upload(upload)).await;
    device.next().await
}

/// How much there is of a blob, and whether that is all.
fn extent(said: &Said) -> (u64, bool) {
    match said {
        Said::Blob {
            length, complete, ..
        } => (*length, *complete),
        other => panic!("no blob: {other:?}"),
    }
}

fn ready(said: &Said) -> ([u8; 16], u64, u64, u32) {
    match said {
        Said::Ready {
            epoch,
            acknowledged,
            sent,
            waiting,
            ..
        } => (*epoch, *acknowledged, *sent, *waiting),
        other => panic!("not ready: {other:?}"),
    }
}

async fn message(device: &mut Device) -> Vec<u8> {
    match device.next().await {
        Said::Deliver { message, .. } => message,
        other => panic!("no message: {other:?}"),
    }
}

#[tokio::test]
async fn what_was_accepted_before_a_backup_is_there_when_it_is_put_back() {
    let folder = tempfile::tempdir().unwrap();
    let [data, backup, other] = ["data", "backup", "other"].map(|name| folder.path().join(name));
    let issuer = Issuer::fixed();
    let relay = relay_on(&data).await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let prekeys = [Prekey::new(1, bob.id(), &bob.key)];
    assert_accepted(&bob.publish_prekeys(&prekeys).await);
    let mallory = Device::join(&relay, &issuer, "mallory").await.id();
    relay.revoke(Revocation::Device(mallory)).await.unwrap();
    for id in 1..=3 {
        assert_accepted(&alice.send("bob", id, &[bob.id()], &[id; 40]).await);
    }
    let Said::Deliver { position, .. } = bob.next().await else {
        panic!("no message");
    };
    bob.ack(position).await;
    let piece = vec![0x5a; MAX_BLOB_CHUNK_BYTES];
    for number in 0..PIECES {
        let said = upload(&mut alice, WHOLE, PIECES * PIECE, number * PIECE, &piece).await;
        assert_eq!(extent(&said), ((number + 1) * PIECE, number + 1 == PIECES));
    }
    let said = upload(&mut alice, HALF, 2 * PIECE, 0, &piece).await;
    assert_eq!(extent(&said), (PIECE, false));

    let copied = copy(&data, &backup).await.unwrap();
    assert_eq!(copied.relay, relay.thumbprint());
    assert!(copied.bytes > PIECES * PIECE);
    // The links have not noticed, and what comes now is not in it.
    assert_accepted(&alice.send("bob", 4, &[bob.id()], b"later").await);
    let bob_id = bob.id();
    let (bob, said) = bob.reconnect(&relay).await;
    let (epoch, _, _, waiting) = ready(&said);
    assert_eq!(waiting, 3);
    relay.shutdown().await;

    for entry in files_in(&backup) {
        let mode = fs::metadata(&entry).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", entry.display());
    }
    let mode = fs::metadata(&backup).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    assert_eq!(restore(&backup, &other, |_, _| {}).unwrap(), copied);
    let relay = relay_on(&other).await;
    assert_eq!(relay.thumbprint(), copied.relay);
    let (mut bob, said) = bob.reconnect(&relay).await;
    let (new_epoch, acknowledged, _, waiting) = ready(&said);
    // docs/protocol.md §5.2: positions begin again, and none of them was acknowledged.
    assert_ne!(new_epoch, epoch);
    assert_eq!((acknowledged, waiting), (0, 2));
    assert_eq!(message(&mut bob).await, [2; 40]);
    assert_eq!(message(&mut bob).await, [3; 40]);
    bob.nothing_waits().await;

    let (mut alice, said) = alice.reconnect(&relay).await;
    assert_eq!(ready(&said).2, 3);
    // No prekey is given a second time.
    match alice.fetch("bob", true).await {
        Said::Cards(_, cards) => {
            assert_eq!(cards.len(), 1);
            assert!(cards.iter().all(|card| card.1.is_none()));
        }
        other => panic!("{other:?}"),
    }
    assert_accepted(&alice.send("bob", 4, &[bob_id], b"again").await);
    assert_eq!(message(&mut bob).await, b"again");
    let said = alice.fetch("mallory", false).await;
    assert_eq!(refused(said), RefusalCode::UnknownUser);
    let said = upload(&mut alice, WHOLE, PIECES * PIECE, 0, &[]).await;
    assert_eq!(extent(&said), (PIECES * PIECE, true));
    // What was not durable yet goes on from where it was.
    let (there, complete) = extent(&upload(&mut alice, HALF, 2 * PIECE, 0, &[]).await);
    assert!(!complete && there <= PIECE);
}

fn files_in(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.append(&mut files_in(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// A backup of a relay that does not run, with something in each part.
async fn small_backup(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    DataDir::init(&data, &InitOptions::default()).unwrap();
    let relay = relay_on(&data).await;
    let mut alice = Device::join(&relay, &Issuer::fixed(), "alice").await;
    assert_eq!(
        extent(&upload(&mut alice, WHOLE, 1, 0, b"x").await),
        (1, true)
    );
    relay.shutdown().await;
    let backup = folder.join("backup");
    copy(&data, &backup).await.unwrap();
    backup
}

#[tokio::test]
async fn backup_that_is_not_whole_is_refused_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let backup = small_backup(folder.path()).await;
    let to = folder.path().join("other");
    let refused = || {
        let refused = restore(&backup, &to, |_, _| {}).unwrap_err();
        assert!(!to.exists());
        refused
    };
    let files = files_in(&backup);
    assert!(files.len() > 8, "{files:?}");
    for file in &files {
        let content = fs::read(file).unwrap();
        let name = file.file_name().unwrap();
        let is_manifest = name == MANIFEST_FILE;
        for at in [0, content.len() / 2, content.len().saturating_sub(1)] {
            let mut changed = content.clone();
            changed[at] ^= 1;
            fs::write(file, &changed).unwrap();
            match refused() {
                BackupError::Damaged { path } => assert_eq!(&path, file),
                BackupError::Manifest { .. } if is_manifest => {}
                other => panic!("{}: {other}", file.display()),
            }
        }
        fs::write(file, &content[..content.len() - 1]).unwrap();
        match refused() {
            BackupError::Damaged { path } => assert_eq!(&path, file),
            BackupError::Manifest { .. } => assert!(is_manifest),
            other => panic!("{}: {other}", file.display()),
        }
        fs::remove_file(file).unwrap();
        match refused() {
            BackupError::Damaged { path } => assert_eq!(&path, file),
            BackupError::NoManifest { .. } => assert!(is_manifest),
            other => panic!("{}: {other}", file.display()),
        }
        fs::write(file, content).unwrap();
    }
    // Every line of the manifest is needed, and none that is not of a backup is taken.
    let path = backup.join(MANIFEST_FILE);
    let manifest = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = manifest.split_inclusive('\n').collect();
    for without in 0..lines.len() {
        let mut fewer = lines.clone();
        fewer.remove(without);
        fs::write(&path, fewer.concat()).unwrap();
        assert!(
            matches!(refused(), BackupError::Manifest { .. }),
            "{without}"
        );
    }
    let newer = manifest.replacen("\"sealwire_backup\":1", "\"sealwire_backup\":2", 1);
    fs::write(&path, newer).unwrap();
    assert!(matches!(refused(), BackupError::Format { found: 2, .. }));
    let entry = lines
        .iter()
        .find(|line| line.contains("relay.key"))
        .unwrap();
    let elsewhere = entry.replace("relay.key", "../relay.key");
    let elsewhere = manifest.replace(entry, &elsewhere);
    let lines: Vec<_> = elsewhere.split_inclusive('\n').collect();
    let (end, before) = lines.split_last().unwrap();
    let hash = |text: &str| -> String {
        let digest = Sha256::digest(text);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let (old, _) = manifest.trim_end().rsplit_once('\n').unwrap();
    let end = end.replace(&hash(&format!("{old}\n")), &hash(&before.concat()));
    fs::write(&path, before.concat() + &end).unwrap();
    assert!(matches!(refused(), BackupError::Manifest { .. }));

    fs::write(&path, &manifest).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(to.join("something"), "").unwrap();
    let full = restore(&backup, &to, |_, _| {}).unwrap_err();
    assert!(matches!(full, BackupError::NotEmpty { .. }), "{full}");
    fs::remove_file(to.join("something")).unwrap();
    restore(&backup, &to, |_, _| {}).unwrap();
    relay_on(&to).await.shutdown().await;
    // It is not overwritten.
    let again = copy(&to, &backup).await.unwrap_err();
    assert!(matches!(again, BackupError::Exists { .. }), "{again}");
}

#[tokio::test]
async fn backup_that_nobody_takes_ends_and_there_is_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let relay = relay_on(&data).await;
    let mut alice = Device::join(&relay, &Issuer::fixed(), "alice").await;
    let piece = vec![0x5a; MAX_BLOB_CHUNK_BYTES];
    for number in 0..PIECES {
        upload(&mut alice, WHOLE, PIECES * PIECE, number * PIECE, &piece).await;
    }
    let console = Console::open(&data).await.unwrap();
    let answer = console.ask(&Question::Backup).await.unwrap();
    let second = copy(&data, &folder.path().join("second"))
        .await
        .unwrap_err();
    assert!(
        matches!(second, BackupError::Console(ConsoleError::Refused(_))),
        "{second}"
    );
    drop(answer);
    // It notices by and by.
    let mut attempts = 0;
    loop {
        attempts += 1;
        let to = folder.path().join(format!("backup-{attempts}"));
        match copy(&data, &to).await {
            Ok(_) => break,
            Err(BackupError::Console(ConsoleError::Refused(_))) => tokio::task::yield_now().await,
            Err(other) => panic!("{other}"),
        }
    }
    // A relay that stops does not wait for who takes nothing.
    let _answer = console.ask(&Question::Backup).await.unwrap();
    within(relay.shutdown()).await;
    relay_on(&data).await.shutdown().await;
}

#[tokio::test]
async fn relay_is_not_started_on_what_was_not_put_back_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let backup = small_backup(folder.path()).await;
    let to = folder.path().join("other");
    // Put there last: not before everything else is.
    let description = to.join("relay.json");
    let mut is_early = false;
    let look = |_, _| is_early |= description.exists() && !to.join("relay.redb").exists();
    restore(&backup, &to, look).unwrap();
    assert!(!is_early);
    fs::remove_file(&description).unwrap();
    let relay = Issuer::fixed().configure(Relay::builder(&to));
    let refused = relay.tls(Tls::Plain).bind("127.0.0.1:0").await.unwrap_err();
    assert!(refused.to_string().contains("to the end"), "{refused}");
}
