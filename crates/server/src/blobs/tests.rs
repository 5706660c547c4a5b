use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::file::CONTENT_START;
use super::*;

const NOW: u64 = 1_800_000_000;
const ID: BlobId = [7; 32];

/// What `device` of `user` appends.
fn append(user: &str, device: u8, size: u64, offset: u64, data: &[u8]) -> Append {
    Append {
        blob: ID,
        user: User::new(user).unwrap(),
        device: Thumbprint::from_bytes([device; 32]),
        size,
        offset,
        data: Bytes::copy_from_slice(data),
    }
}

/// The default ones, but for the reserve: the tests do not depend on what the disk has.
fn limits() -> BlobLimits {
    BlobLimits {
        reserved_bytes: 0,
        ..BlobLimits::default()
    }
}

fn content(size: usize) -> Vec<u8> {
    let pattern: Vec<u8> = (0..251).collect();
    let mut content = pattern.repeat(size / 251 + 1);
    content.truncate(size);
    content
}

fn extent(length: u64, size: u64, complete: bool) -> Extent {
    Extent {
        length,
        size,
        complete,
    }
}

/// Appends alice's content from `from` to `to` in pieces.
async fn grow(blobs: &Blobs, size: u64, from: usize, to: usize, piece: usize) -> Extent {
    let content = content(to);
    let mut last = None;
    for start in (from..to).step_by(piece) {
        let data = &content[start..(start + piece).min(to)];
        let append = append("alice", 1, size, start as u64, data);
        last = Some(blobs.append(append, NOW).await.unwrap());
    }
    last.unwrap()
}

async fn ask(blobs: &Blobs, size: u64) -> Result<Extent, BlobError> {
    blobs.append(append("alice", 1, size, 0, b""), NOW).await
}

/// Ends the relay as SIGKILL would: nothing is done that was not done.
fn crash(blobs: Blobs) {
    std::mem::forget(blobs);
}

fn file_of(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join(file::name(&ID))
}

#[tokio::test]
async fn blob_is_complete_with_its_last_byte_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    for blobs in [
        Blobs::open(dir.path(), limits()).unwrap(),
        Blobs::in_memory(limits()),
    ] {
        assert_eq!(grow(&blobs, 100, 0, 60, 30).await, extent(60, 100, false));
        assert_eq!(grow(&blobs, 100, 60, 99, 39).await, extent(99, 100, false));
        assert_eq!(ask(&blobs, 100).await.unwrap(), extent(99, 100, false));
        assert_eq!(grow(&blobs, 100, 99, 100, 1).await, extent(100, 100, true));
        let (extent_read, data) = blobs.read(&ID, 10, 40).await.unwrap();
        assert_eq!(extent_read, extent(100, 100, true));
        assert_eq!(data, content(50)[10..]);
        // Shorter at the end, empty beyond it.
        assert_eq!(blobs.read(&ID, 95, 40).await.unwrap().1.len(), 5);
        assert!(blobs.read(&ID, 100, 40).await.unwrap().1.is_empty());
        assert!(blobs.read(&ID, u64::MAX, 40).await.unwrap().1.is_empty());
    }
}

#[tokio::test]
async fn blob_outlives_the_relay() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 1_000, 0, 1_000, 300).await;
    crash(blobs);
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    let (found, data) = blobs.read(&ID, 0, 2_000).await.unwrap();
    assert_eq!((found, data), (extent(1_000, 1_000, true), content(1_000)));
}

/// The device sends on without waiting for answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_are_done_in_the_order_in_which_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    let content = content(64 * 100);
    let appends = content.chunks(100).enumerate().map(|(index, piece)| {
        let append = append("alice", 1, 6_400, index as u64 * 100, piece);
        blobs.append(append, NOW)
    });
    let extents = join_all(appends).await;
    for (index, found) in extents.into_iter().enumerate() {
        let length = (index as u64 + 1) * 100;
        assert_eq!(found.unwrap(), extent(length, 6_400, length == 6_400));
    }
    assert_eq!(blobs.read(&ID, 0, 6_400).await.unwrap().1, content);
}

#[tokio::test]
async fn what_does_not_fit_changes_nothing() {
    let blobs = Blobs::in_memory(limits());
    grow(&blobs, 100, 0, 50, 50).await;
    for (size, offset, length) in [
        (100, 49, 10),
        (100, 51, 10),
        (100, 0, 10),
        (100, 50, 51),
        (100, u64::MAX, 10),
        (101, 50, 10),
        (99, 50, 10),
    ] {
        let append = append("alice", 1, size, offset, &content(length));
        let refused = blobs.append(append, NOW).await;
        assert!(
            matches!(refused, Err(BlobError::Conflict)),
            "{size} {offset} {length}"
        );
    }
    assert_eq!(ask(&blobs, 100).await.unwrap(), extent(50, 100, false));
    grow(&blobs, 100, 50, 100, 50).await;
    let more = append("alice", 1, 100, 100, b"x");
    assert!(matches!(
        blobs.append(more, NOW).await,
        Err(BlobError::Conflict)
    ));
    let fresh = Blobs::in_memory(limits());
    for (offset, length) in [(1, 5), (0, 11)] {
        let append = append("alice", 1, 10, offset, &content(length));
        assert!(matches!(
            fresh.append(append, NOW).await,
            Err(BlobError::Conflict)
        ));
    }
}

#[tokio::test]
async fn asking_begins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    assert!(matches!(ask(&blobs, 10).await, Err(BlobError::Unknown)));
    assert!(matches!(
        blobs.read(&ID, 0, 10).await,
        Err(BlobError::Unknown)
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Another device of the same user is another device.
#[tokio::test]
async fn only_the_device_that_began_a_blob_changes_it() {
    let blobs = Blobs::in_memory(limits());
    grow(&blobs, 100, 0, 50, 50).await;
    for (user, device) in [("alice", 2), ("bob", 3)] {
        for data in [&b"x"[..], b""] {
            let append = append(user, device, 100, 50, data);
            assert!(matches!(
                blobs.append(append, NOW).await,
                Err(BlobError::Unknown)
            ));
        }
        let device = Thumbprint::from_bytes([device; 32]);
        assert!(matches!(
            blobs.discard(&ID, &device).await,
            Err(BlobError::Unknown)
        ));
    }
    assert_eq!(blobs.read(&ID, 0, 100).await.unwrap().1, content(50));
}

#[tokio::test]
async fn discarded_blob_is_gone_and_its_room_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let alice = Thumbprint::from_bytes([1; 32]);
    let room = BlobLimits {
        bytes_per_user: 100 + CONTENT_START,
        ..limits()
    };
    let blobs = Blobs::open(dir.path(), room).unwrap();
    for _ in 0..3 {
        grow(&blobs, 100, 0, 100, 100).await;
        blobs.discard(&ID, &alice).await.unwrap();
        assert!(matches!(ask(&blobs, 100).await, Err(BlobError::Unknown)));
        assert!(matches!(
            blobs.discard(&ID, &alice).await,
            Err(BlobError::Unknown)
        ));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn nobody_gets_more_room_than_there_is() {
    let mut ids = 0..;
    let mut begin = |blobs: &Blobs, user: &str, size: u64| {
        let mut append = append(user, 1, size, 0, b"x");
        append.blob = [ids.next().unwrap(); 32];
        let blobs = blobs.clone();
        async move { blobs.append(append, NOW).await.map(drop) }
    };
    let kib = |kib: u64| kib << 10;
    let room = BlobLimits {
        bytes_per_user: kib(20),
        bytes: kib(40),
        blobs_per_user: 3,
        blobs: 6,
        uploads_per_user: 2,
        ..limits()
    };
    let blobs = Blobs::in_memory(room);
    // 4 KiB of each are for its head.
    assert!(matches!(
        begin(&blobs, "alice", kib(16) + 1).await,
        Err(BlobError::TooLarge)
    ));
    begin(&blobs, "alice", kib(10)).await.unwrap();
    assert!(matches!(
        begin(&blobs, "alice", kib(3)).await,
        Err(BlobError::Full(Full::User))
    ));
    begin(&blobs, "alice", kib(1)).await.unwrap();
    assert!(matches!(
        begin(&blobs, "alice", 2).await,
        Err(BlobError::Full(Full::Uploads))
    ));
    // Whole ones do not count as uploads, but as blobs.
    let others = Blobs::in_memory(room);
    for _ in 0..3 {
        begin(&others, "alice", 1).await.unwrap();
    }
    assert!(matches!(
        begin(&others, "alice", 1).await,
        Err(BlobError::Full(Full::User))
    ));
    for _ in 0..3 {
        begin(&others, "bob", 1).await.unwrap();
    }
    assert!(matches!(
        begin(&others, "carol", 1).await,
        Err(BlobError::Full(Full::Relay))
    ));
    begin(&blobs, "bob", kib(16)).await.unwrap();
    assert!(matches!(
        begin(&blobs, "carol", 1).await,
        Err(BlobError::Full(Full::Relay))
    ));
}

/// What the limits were when a blob came does not matter any more when the relay starts again.
#[tokio::test]
async fn room_is_counted_again_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let room = BlobLimits {
        bytes_per_user: 100 + CONTENT_START,
        ..limits()
    };
    let blobs = Blobs::open(dir.path(), room).unwrap();
    grow(&blobs, 100, 0, 100, 100).await;
    crash(blobs);
    let blobs = Blobs::open(dir.path(), room).unwrap();
    let mut second = append("alice", 1, 1, 0, b"x");
    second.blob = [8; 32];
    assert!(matches!(
        blobs.append(second, NOW).await,
        Err(BlobError::Full(Full::User))
    ));
}

#[tokio::test]
async fn old_blobs_are_erased() {
    let dir = tempfile::tempdir().unwrap();
    for blobs in [
        Blobs::open(dir.path(), limits()).unwrap(),
        Blobs::in_memory(limits()),
    ] {
        grow(&blobs, 100, 0, 100, 100).await;
        let mut unfinished = append("alice", 1, 100, 0, b"x");
        unfinished.blob = [8; 32];
        blobs.append(unfinished, NOW).await.unwrap();

        blobs.sweep(NOW + BLOB_UPLOAD_SECONDS - 1).await;
        assert!(blobs.read(&[8; 32], 0, 1).await.is_ok());
        blobs.sweep(NOW + BLOB_UPLOAD_SECONDS).await;
        assert!(matches!(
            blobs.read(&[8; 32], 0, 1).await,
            Err(BlobError::Unknown)
        ));
        blobs.sweep(NOW + BLOB_RETENTION_SECONDS - 1).await;
        assert!(blobs.read(&ID, 0, 1).await.is_ok());
        blobs.sweep(NOW + BLOB_RETENTION_SECONDS).await;
        assert!(matches!(
            blobs.read(&ID, 0, 1).await,
            Err(BlobError::Unknown)
        ));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// What a crash of the machine may have cost is not believed: the upload goes on from the last mark, which is the end of an append.
#[tokio::test]
async fn upload_goes_on_from_what_is_known_to_be_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (size, piece) = (30 << 20, 1_000_000);
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, size, 0, 20 * piece, piece).await;
    crash(blobs);
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    // Marks are due after every 8 MiB: after the ninth piece and the eighteenth.
    let found = ask(&blobs, size).await.unwrap();
    assert_eq!(found, extent(18 * piece as u64, size, false));
    let to = usize::try_from(size).unwrap();
    let whole = grow(&blobs, size, 18 * piece, to, piece).await;
    assert!(whole.complete);
    let (_, data) = blobs.read(&ID, 0, to).await.unwrap();
    assert!(data == content(to));
}

#[tokio::test]
async fn nothing_is_lost_by_an_orderly_end_or_while_nothing_comes() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 1_000, 0, 300, 100).await;
    drop(blobs);
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    assert_eq!(ask(&blobs, 1_000).await.unwrap().length, 300);
    grow(&blobs, 1_000, 300, 600, 100).await;
    blobs.sweep(NOW + IDLE_UPLOAD_SECONDS - 1).await;
    blobs.sweep(NOW + IDLE_UPLOAD_SECONDS).await;
    crash(blobs);
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    assert_eq!(ask(&blobs, 1_000).await.unwrap().length, 600);
    assert!(grow(&blobs, 1_000, 600, 1_000, 100).await.complete);
}

#[tokio::test]
async fn torn_tail_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 1_000, 0, 300, 100).await;
    drop(blobs);
    let path = file_of(&dir);
    let whole = fs::read(&path).unwrap();
    for torn in [1, 50, 700] {
        let mut file = whole.clone();
        file.resize(whole.len() + torn, 0xee);
        fs::write(&path, file).unwrap();
        let blobs = Blobs::open(dir.path(), limits()).unwrap();
        assert_eq!(ask(&blobs, 1_000).await.unwrap(), extent(300, 1_000, false));
        crash(blobs);
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
}

/// A crash while the file was being made leaves nothing that matters, wherever it was.
#[tokio::test]
async fn file_that_was_never_whole_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 1_000, 0, 300, 300).await;
    crash(blobs);
    let path = file_of(&dir);
    let made = fs::read(&path).unwrap();
    for length in [0, 1, 200, 351] {
        fs::write(&path, &made[..length]).unwrap();
        let blobs = Blobs::open(dir.path(), limits()).unwrap();
        assert!(matches!(ask(&blobs, 1_000).await, Err(BlobError::Unknown)));
        assert!(!path.exists(), "{length}");
    }
}

/// However short a file is, and wherever its head is changed: never is anything said complete that is not, nor somebody else's.
#[tokio::test]
async fn damaged_file_is_never_said_complete() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 300, 0, 300, 100).await;
    crash(blobs);
    let path = file_of(&dir);
    let whole = fs::read(&path).unwrap();
    let check = async |what: &str, file: &[u8]| {
        fs::write(&path, file).unwrap();
        let blobs = Blobs::open(dir.path(), limits()).unwrap();
        let (found, data) = match blobs.read(&ID, 0, 300).await {
            Ok(found) => found,
            Err(BlobError::Unknown) => return false,
            Err(error) => panic!("{what}: {error}"),
        };
        assert_eq!(found.size, 300, "{what}");
        if found.complete {
            assert_eq!(data, content(300), "{what}");
        }
        assert_eq!(data[..], content(300)[..data.len()], "{what}");
        let mut eve = append("eve", 9, 300, found.length, b"");
        assert!(blobs.append(eve, NOW).await.is_err(), "{what}");
        eve = append("eve", 9, 300, found.length, b"x");
        assert!(blobs.append(eve, NOW).await.is_err(), "{what}");
        found.complete
    };
    let lengths = (0..whole.len()).step_by(61);
    for length in lengths.chain(whole.len() - 20..whole.len()) {
        let complete = check(&format!("cut to {length}"), &whole[..length]).await;
        assert!(!complete, "cut to {length}");
    }
    for at in [0..360, 1_024..1_056, 2_048..2_080, 3_072..3_104]
        .into_iter()
        .flatten()
    {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        check(&format!("flipped at {at}"), &flipped).await;
    }
    assert!(check("whole", &whole).await);
}

/// All of it was there when the relay died, and only the word that it was is missing.
#[tokio::test]
async fn whole_upload_is_completed_when_its_device_asks() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 300, 0, 300, 100).await;
    crash(blobs);
    let path = file_of(&dir);
    let mut file = fs::read(&path).unwrap();
    file[3_072..3_104].fill(0);
    fs::write(&path, &file).unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    assert!(!blobs.read(&ID, 0, 1).await.unwrap().0.complete);
    assert_eq!(ask(&blobs, 300).await.unwrap(), extent(300, 300, true));
    assert!(blobs.read(&ID, 0, 1).await.unwrap().0.complete);
}

#[tokio::test]
async fn failure_of_the_disk_is_said_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    fs::remove_dir(dir.path()).unwrap();
    let refused = blobs
        .append(append("alice", 1, 100, 0, b"x"), NOW)
        .await
        .unwrap_err();
    assert_eq!(refused.refusal(), RefusalCode::Unavailable);
    // Nothing was begun, so nothing is counted.
    fs::create_dir(dir.path()).unwrap();
    assert!(matches!(ask(&blobs, 100).await, Err(BlobError::Unknown)));
    grow(&blobs, 100, 0, 100, 100).await;
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_the_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("blobs");
    let blobs = Blobs::open(&directory, limits()).unwrap();
    grow(&blobs, 100, 0, 100, 100).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join(file::name(&ID))), 0o600);
}

#[test]
fn name_of_a_file_says_its_id_and_other_names_say_none() {
    let id: BlobId = std::array::from_fn(|at| u8::try_from(at * 8).unwrap());
    assert_eq!(file::id(&file::name(&id)), Some(id));
    let upper = file::name(&id).to_uppercase();
    for name in ["", "ab", &upper, &"g".repeat(64), &"0".repeat(65)] {
        assert_eq!(file::id(name), None, "{name}");
    }
}

/// What uploads that are begun still need is not given away twice, and what the other stores need not at all.
#[tokio::test]
async fn an_upload_that_would_leave_no_room_for_the_stores_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let free = Arc::new(AtomicU64::new(0));
    let asked = Arc::clone(&free);
    let room = Room::by(move |_| Ok(asked.load(Ordering::SeqCst)));
    let limits = BlobLimits {
        reserved_bytes: 1_000,
        ..limits()
    };
    let blobs = Blobs::open_on(dir.path(), limits, room).unwrap();
    let begin = async |id: u8, size: u64, free_bytes: u64| {
        free.store(free_bytes, Ordering::SeqCst);
        let mut append = append("alice", 1, size, 0, b"x");
        append.blob = [id; 32];
        blobs.append(append, NOW).await
    };
    let first = 100 + CONTENT_START + 1_000;
    let refused = begin(1, 100, first - 1).await.unwrap_err();
    assert!(matches!(refused, BlobError::Full(Full::Disk)));
    assert_eq!(refused.refusal(), RefusalCode::StorageFull);
    begin(1, 100, first).await.unwrap();
    // 99 bytes of the first are still to come.
    let second = 200 + CONTENT_START + 99 + 1_000;
    assert!(begin(2, 200, second - 1).await.is_err());
    begin(2, 200, second).await.unwrap();
    // One that is begun goes on in the room that it was given.
    free.store(0, Ordering::SeqCst);
    let mut rest = append("alice", 1, 100, 1, &[0; 99]);
    rest.blob = [1; 32];
    assert!(blobs.append(rest, NOW).await.unwrap().complete);
    let third = 1 + CONTENT_START + 199 + 1_000;
    assert!(begin(3, 1, third - 1).await.is_err());
    begin(3, 1, third).await.unwrap();
    // What is unknown is not given away.
    let unknown = Room::by(|_| Err(io::Error::other("no answer")));
    let other = tempfile::tempdir().unwrap();
    let blobs = Blobs::open_on(other.path(), limits, unknown).unwrap();
    let refused = blobs.append(append("alice", 1, 100, 0, b"x"), NOW).await;
    assert!(matches!(refused, Err(BlobError::Disk(_))));
}

#[tokio::test]
async fn a_sweep_erases_a_bounded_number() {
    let blobs = Blobs::in_memory(BlobLimits {
        uploads_per_user: u64::MAX,
        ..limits()
    });
    let count = MAX_SWEPT_BLOBS + 10;
    for number in 0..count {
        let mut append = append("alice", 1, 100, 0, b"x");
        append.blob = std::array::from_fn(|at| number.to_be_bytes()[at % 8]);
        blobs.append(append, NOW).await.unwrap();
    }
    let later = NOW + BLOB_UPLOAD_SECONDS;
    assert!(blobs.sweep(later).await);
    assert_eq!(blobs.index().uploads().len(), 10);
    assert!(!blobs.sweep(later).await);
    assert!(blobs.index().uploads().is_empty());
}

#[tokio::test]
async fn a_blob_that_becomes_whole_while_the_sweep_waits_for_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 100, 0, 50, 50).await;
    let later = NOW + BLOB_UPLOAD_SECONDS;
    let entry = blobs.index().find(&ID).unwrap();
    let mut state = Arc::clone(&entry.state).lock_owned().await;
    let mut sweep = Box::pin(blobs.sweep(later));
    assert!(sweep.as_mut().now_or_never().is_none());
    state.sealed = Some(later);
    entry.publish(&state);
    drop(state);
    sweep.await;
    assert_eq!(blobs.read(&ID, 0, 50).await.unwrap().1, content(50));
}

#[tokio::test]
async fn a_broken_blob_that_is_erased_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let alice = Thumbprint::from_bytes([1; 32]);
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 100, 0, 50, 50).await;
    let entry = blobs.index().find(&ID).unwrap();
    entry.state.lock().await.body = Body::Broken;
    assert!(matches!(ask(&blobs, 100).await, Err(BlobError::Broken)));
    blobs.discard(&ID, &alice).await.unwrap();
    assert!(!file_of(&dir).exists());
    assert!(matches!(ask(&blobs, 100).await, Err(BlobError::Unknown)));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    grow(&blobs, 100, 0, 100, 100).await;
    drop(blobs);
    fs::create_dir(dir.path().join(file::name(&[8; 32]))).unwrap();
    let blobs = Blobs::open(dir.path(), limits()).unwrap();
    assert_eq!(blobs.read(&ID, 0, 100).await.unwrap().1, content(100));
    let other = blobs.read(&[8; 32], 0, 100).await;
    assert!(matches!(other, Err(BlobError::Unknown)));
}
