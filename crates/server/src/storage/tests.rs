use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc as blocking;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use redb::{ReadableTable as _, TableDefinition};
use sealwire_protocol::key::{Seed, SigningKey};

use super::*;

const DEVICE: DeviceId = [1; 32];

/// Memory whose syncs are counted and, once told to, fail.
#[derive(Debug, Default, Clone)]
struct Faulty {
    memory: Arc<InMemoryBackend>,
    fails: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.memory.write(offset, data)
    }
}

fn open(dir: &Path) -> Result<Storage, OpenError> {
    Storage::open(dir, &StorageOptions::default())
}

fn faulty() -> (Faulty, Storage) {
    let backend = Faulty::default();
    let storage = Storage::with_backend(
        backend.clone(),
        &StorageOptions::default(),
        Path::new("(test)"),
    )
    .unwrap();
    (backend, storage)
}

/// Raises the number of a row by one.
async fn count(storage: &Storage) -> Result<u32, StorageError> {
    storage
        .write(0, |tables| {
            let next = tables.prekey_ids.get(&DEVICE)?.map_or(0, |row| row.value()) + 1;
            tables.prekey_ids.insert(&DEVICE, next)?;
            Ok(next)
        })
        .await
}

fn counted(storage: &Storage) -> u32 {
    storage
        .read(|read| {
            Ok(read
                .open_table(PREKEY_IDS)?
                .get(&DEVICE)?
                .map_or(0, |row| row.value()))
        })
        .unwrap()
}

/// Makes the writer thread wait; it goes on when the sender is dropped.
async fn hold_writer(storage: &Storage) -> blocking::Sender<()> {
    let (release, held) = blocking::channel::<()>();
    let (started, starts) = oneshot::channel();
    let storage = storage.clone();
    tokio::spawn(async move {
        storage
            .write(0, move |_| {
                started.send(()).unwrap();
                let _ = held.recv();
                Ok(())
            })
            .await
    });
    starts.await.unwrap();
    release
}

#[tokio::test]
async fn what_was_answered_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    assert_eq!(count(&storage).await, Ok(1));
    drop(storage);
    let storage = open(dir.path()).unwrap();
    assert_eq!(counted(&storage), 1);
}

#[tokio::test]
async fn what_was_answered_is_in_a_copy_of_the_file_at_that_moment() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    for expected in 1..=20 {
        assert_eq!(count(&storage).await, Ok(expected));
        // What a machine that stops here would find.
        let image = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join(STORE_FILE), image.path().join(STORE_FILE)).unwrap();
        assert_eq!(counted(&open(image.path()).unwrap()), expected);
    }
}

#[tokio::test]
async fn writes_that_wait_share_one_commit() {
    let (backend, storage) = faulty();
    let before = backend.syncs.load(Ordering::SeqCst);
    count(&storage).await.unwrap();
    let one_commit = backend.syncs.load(Ordering::SeqCst) - before;

    let release = hold_writer(&storage).await;
    let before = backend.syncs.load(Ordering::SeqCst);
    let mut waiting = Box::pin(join_all((0..100).map(|_| count(&storage))));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(release);
    assert_eq!(
        waiting.await.last(),
        Some(&Ok(101)),
        "in the order in which they came"
    );
    assert_eq!(backend.syncs.load(Ordering::SeqCst) - before, one_commit);
}

#[tokio::test]
async fn bytes_that_wait_are_bounded() {
    let (_, storage) = faulty();
    let release = hold_writer(&storage).await;
    let huge = usize::try_from(MAX_QUEUED_KIB).unwrap() * 1_024 / 2;
    let mut first = Box::pin(storage.write(huge, |_| Ok(())));
    assert!(first.as_mut().now_or_never().is_none());
    let queued = storage.inner.jobs.as_ref().unwrap().capacity();
    let mut second = Box::pin(storage.write(huge, |_| Ok(())));
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(
        storage.inner.jobs.as_ref().unwrap().capacity(),
        queued,
        "not in the queue"
    );
    drop(release);
    assert_eq!((first.await, second.await), (Ok(()), Ok(())));
}

// docs/protocol.md §5.2: the order of a sender's messages
#[tokio::test]
async fn who_comes_when_the_queue_has_room_again_does_not_overtake_who_waited() {
    let (_, storage) = faulty();
    let release = hold_writer(&storage).await;
    let all = usize::try_from(MAX_QUEUED_KIB - 2).unwrap() * 1_024;
    let mut filling = Box::pin(storage.write(all, |_| Ok(())));
    assert!(filling.as_mut().now_or_never().is_none());
    let mut waited = Box::pin(count(&storage));
    assert!(waited.as_mut().now_or_never().is_none());
    drop(release);
    filling.await.unwrap();
    // There is room, but who waited has not been polled since.
    let mut came_later = Box::pin(count(&storage));
    assert!(came_later.as_mut().now_or_never().is_none());
    assert_eq!(tokio::join!(came_later, waited), (Ok(2), Ok(1)));
}

// docs/protocol.md §5.2: Accepted only when durable
#[tokio::test]
async fn after_a_failed_sync_every_waiter_and_every_later_write_is_refused() {
    let (backend, storage) = faulty();
    count(&storage).await.unwrap();
    let release = hold_writer(&storage).await;
    let mut waiting = Box::pin(join_all((0..20).map(|_| count(&storage))));
    assert!(waiting.as_mut().now_or_never().is_none());
    backend.fails.store(true, Ordering::SeqCst);
    drop(release);
    assert_eq!(waiting.await, vec![Err(StorageError::Unavailable); 20]);
    // The disk is back, but nobody knows what it holds.
    backend.fails.store(false, Ordering::SeqCst);
    assert_eq!(count(&storage).await, Err(StorageError::Unavailable));
    assert!(!storage.is_writable());
}

#[tokio::test]
async fn a_job_that_fails_takes_its_batch_and_the_store_with_it() {
    let (_, storage) = faulty();
    let release = hold_writer(&storage).await;
    let failing = storage.write(0, |_| -> Result<(), _> {
        Err(redb::Error::Io(io::Error::other("unreadable page")))
    });
    let mut waiting = Box::pin(async { tokio::join!(count(&storage), failing, count(&storage)) });
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(release);
    let unavailable = StorageError::Unavailable;
    assert_eq!(
        waiting.await,
        (Err(unavailable), Err(unavailable), Err(unavailable))
    );
    assert_eq!(counted(&storage), 0);
}

#[tokio::test]
async fn a_job_that_panics_is_answered_and_ends_writing() {
    let (_, storage) = faulty();
    let panicking = storage
        .write(0, |_| -> Result<(), _> { panic!("on purpose") })
        .await;
    assert_eq!(panicking, Err(StorageError::Unavailable));
    assert_eq!(count(&storage).await, Err(StorageError::Unavailable));
}

#[tokio::test]
async fn a_read_that_panics_costs_only_itself() {
    let (_, storage) = faulty();
    assert_eq!(
        storage.read(|_| -> Result<(), _> { panic!("on purpose") }),
        Err(StorageError::Unreadable)
    );
    assert_eq!(count(&storage).await, Ok(1));
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let storage = open(dir.path()).unwrap();
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(&refused, OpenError::InUse { path } if path.ends_with(STORE_FILE)));
    assert!(
        refused.to_string().contains("stop that one first"),
        "{refused}"
    );
    drop(storage);
    open(dir.path()).unwrap();
}

#[tokio::test]
async fn a_crash_while_the_file_is_made_leaves_nothing_that_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let whole = std::fs::read(dir.path().join(STORE_FILE)).unwrap();
    for written in [0, 1, 9, 64, 320, 4_096, whole.len()] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(UNFINISHED_FILE), &whole[..written]).unwrap();
        let storage = open(dir.path()).unwrap();
        assert_eq!(count(&storage).await, Ok(1), "{written}");
        drop(storage);
        assert_eq!(count(&open(dir.path()).unwrap()).await, Ok(2), "{written}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let refused = open(&dir.path().join("none")).unwrap_err();
    assert!(
        matches!(refused, OpenError::File { error, .. } if error.kind() == io::ErrorKind::NotFound)
    );
}

/// A database made by `make`, in a directory of its own.
fn database(make: impl FnOnce(&redb::WriteTransaction)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::create(dir.path().join(STORE_FILE)).unwrap();
    let write = database.begin_write().unwrap();
    make(&write);
    write.commit().unwrap();
    dir
}

fn meta(rows: &[(&str, &[u8])]) -> tempfile::TempDir {
    database(|write| {
        let mut meta = write.open_table(META).unwrap();
        for (name, value) in rows {
            meta.insert(*name, *value).unwrap();
        }
    })
}

#[test]
fn another_format_is_refused_and_says_which_program_reads_it() {
    let dir = meta(&[(META_FORMAT, &(FORMAT_VERSION + 1).to_be_bytes())]);
    let refused = open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::Newer { found, .. } if found == FORMAT_VERSION + 1));
    assert!(
        refused.to_string().contains("use the newer program"),
        "{refused}"
    );
    for older in 0..upgrade::OLDER_FORMAT {
        let dir = meta(&[(META_FORMAT, &older.to_be_bytes())]);
        let before = std::fs::read(dir.path().join(STORE_FILE)).unwrap();
        let refused = open(dir.path()).unwrap_err();
        assert!(matches!(refused, OpenError::Older { found, .. } if found == older));
        assert!(
            refused.to_string().contains("use the older program"),
            "{refused}"
        );
        assert_eq!(
            std::fs::read(dir.path().join(STORE_FILE)).unwrap().len(),
            before.len()
        );
    }
}

/// A store that the program before wrote, with these devices, named by the seeds of their keys: 1 of alice, enrolled, with a card and a prekey; 2 of bob, enrolled; 3 of
/// carol, with a card; 4 of dora, enrolled and removed; 5 of erin, who had a card, removed; 6 enrolled for frank, with a card of gina.
const FORMAT_3: &[u8] = include_bytes!("tests/format-3.store");

/// Memory that takes some writes more, and then none.
#[derive(Debug, Clone)]
struct Stopping {
    memory: Arc<InMemoryBackend>,
    writes_left: Arc<AtomicUsize>,
}

impl Stopping {
    /// A disk with this on it.
    fn with(bytes: &[u8]) -> Self {
        let memory = InMemoryBackend::new();
        memory.set_len(bytes.len() as u64).unwrap();
        memory.write(0, bytes).unwrap();
        Self {
            memory: Arc::new(memory),
            writes_left: Arc::new(AtomicUsize::new(usize::MAX)),
        }
    }

    fn write_one(&self) -> io::Result<()> {
        let order = Ordering::SeqCst;
        let one_less = |left: usize| left.checked_sub(1);
        match self.writes_left.fetch_update(order, order, one_less) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::other("the machine has stopped")),
        }
    }

    fn open(&self) -> Result<Storage, OpenError> {
        let options = StorageOptions::default();
        Storage::with_backend(self.clone(), &options, Path::new("(test)"))
    }
}

impl StorageBackend for Stopping {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.write_one()?;
        self.memory.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.memory.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.write_one()?;
        self.memory.write(offset, data)
    }
}

fn thumbprint(seed: u8) -> Thumbprint {
    SigningKey::from_seed(&Seed::new([seed; 32])).thumbprint()
}

fn assert_taken_over(storage: &Storage) {
    let known = |user: &str, enrolled, removed| {
        Some(KnownDevice {
            user: user.to_owned(),
            enrolled,
            removed,
        })
    };
    let devices = [
        known("alice", Some(1_000), false),
        known("bob", Some(1_000), false),
        known("carol", None, false),
        known("dora", Some(1_000), true),
        known("erin", None, true),
        known("frank", Some(1_000), false),
        None,
    ];
    for (seed, known) in (1..).zip(devices) {
        assert_eq!(storage.device(&thumbprint(seed)).unwrap(), known, "{seed}");
    }
    let cards = storage.read(|read| {
        let cards = read.open_table(CARDS)?;
        let mut of = Vec::new();
        for row in cards.iter()? {
            of.push(row?.1.value().0.to_owned());
        }
        of.sort();
        Ok(of)
    });
    assert_eq!(cards.unwrap(), ["alice", "carol"]);
    for (user, devices) in [("alice", 1), ("carol", 1), ("frank", 0), ("gina", 0)] {
        let found = storage.user_devices(user).unwrap();
        assert_eq!(found.iter().count(), devices, "{user}");
    }
    let prekeys = storage.read(|read| {
        Ok(redb::ReadableTableMetadata::len(
            &read.open_table(PREKEYS)?,
        )?)
    });
    assert_eq!(prekeys.unwrap(), 1);
}

#[tokio::test]
async fn a_store_of_the_format_before_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(STORE_FILE), FORMAT_3).unwrap();
    for expected in 1..=2 {
        let storage = open(dir.path()).unwrap();
        assert_taken_over(&storage);
        assert_eq!(count(&storage).await, Ok(expected));
    }
}

#[test]
fn a_crash_while_a_store_is_taken_over_loses_nothing() {
    for writes in 0.. {
        let disk = Stopping::with(FORMAT_3);
        disk.writes_left.store(writes, Ordering::SeqCst);
        let whole = disk.open().is_ok();
        disk.writes_left.store(usize::MAX, Ordering::SeqCst);
        assert_taken_over(&disk.open().unwrap());
        if whole {
            assert!(writes > 5, "it has to write something");
            return;
        }
    }
}

#[test]
fn a_store_without_a_whole_description_is_refused() {
    for dir in [meta(&[]), meta(&[(META_FORMAT, &[1])])] {
        assert!(matches!(open(dir.path()), Err(OpenError::NotAStore { .. })));
    }
}

#[test]
fn a_database_of_something_else_is_refused() {
    const OTHER: TableDefinition<'_, u64, u64> = TableDefinition::new("other");
    const META_OF_OTHERS: TableDefinition<'_, u64, u64> = TableDefinition::new("meta");
    for table in [OTHER, META_OF_OTHERS] {
        let dir = database(|write| drop(write.open_table(table).unwrap()));
        assert!(matches!(open(dir.path()), Err(OpenError::NotAStore { .. })));
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(STORE_FILE);
    std::fs::write(&path, [0x5a; 5_000]).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Database { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), [0x5a; 5_000]);
}

#[cfg(unix)]
#[test]
fn the_file_can_be_read_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let _storage = open(dir.path()).unwrap();
    let metadata = std::fs::metadata(dir.path().join(STORE_FILE)).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn bytes_keep_their_place_in_the_queue_until_the_commit() {
    let storage = Storage::in_memory().unwrap();
    let (started, starts) = oneshot::channel();
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let before = storage.inner.queued_kib.available_permits();
    let first = storage
        .submit(0, move |_| {
            started.send(()).unwrap();
            gone.recv().unwrap();
            Ok(())
        })
        .await
        .unwrap();
    starts.await.unwrap();
    // It is out of the queue and at work, and still has its place.
    assert_eq!(storage.inner.queued_kib.available_permits(), before - 1);
    go.send(()).unwrap();
    first.durable().await.unwrap();
}

#[cfg(feature = "simulation")]
mod by_hand {
    use super::*;

    fn store() -> (Faulty, Storage) {
        let backend = Faulty::default();
        let storage = Storage::by_hand(backend.clone(), &StorageOptions::default()).unwrap();
        (backend, storage)
    }

    #[test]
    fn nothing_is_written_or_answered_before_the_flush() {
        let (backend, storage) = store();
        let syncs = backend.syncs.load(Ordering::SeqCst);
        let mut one = Box::pin(count(&storage));
        let mut two = Box::pin(count(&storage));
        assert_eq!((&mut one).now_or_never(), None);
        assert_eq!((&mut two).now_or_never(), None);
        assert_eq!(backend.syncs.load(Ordering::SeqCst), syncs);
        assert_eq!(counted(&storage), 0);
        storage.flush();
        assert_eq!(one.now_or_never(), Some(Ok(1)));
        assert_eq!(two.now_or_never(), Some(Ok(2)));
    }

    #[test]
    fn after_a_failed_flush_every_waiter_and_every_later_write_is_refused() {
        let (backend, storage) = store();
        let mut waiting = Box::pin(count(&storage));
        assert_eq!((&mut waiting).now_or_never(), None);
        backend.fails.store(true, Ordering::SeqCst);
        storage.flush();
        assert_eq!(waiting.now_or_never(), Some(Err(StorageError::Unavailable)));
        backend.fails.store(false, Ordering::SeqCst);
        assert_eq!(
            count(&storage).now_or_never(),
            Some(Err(StorageError::Unavailable))
        );
        assert!(!storage.is_writable());
    }
}
