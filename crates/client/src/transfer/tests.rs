//! Uploads and downloads against a relay made of a map, which loses links, crashes, refuses and lies as it is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::Cursor;
use std::path::PathBuf;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sealwire_e2e::file::FileKey;
use sealwire_protocol::close::RefusalCode;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::chunks::{BlobId, Shape};
use super::download::{Wanted, download};
use super::error::{End, FileError};
use super::part::part_path;
use super::port::{Ask, MAX_OPEN, NoAnswer, Port, Stopped, Stored, Told};
use super::record::UploadRecord;
use super::upload::{Source, Uploaded, upload};
use crate::error::{Error, Refusal};

const NAME: [u8; 32] = [5; 32];

/// What a relay does to an answer.
type Lie = Box<dyn Fn(&Ask, &mut Told)>;

struct Blob {
    size: u64,
    content: Vec<u8>,
    /// Where its appends ended.
    ends: Vec<usize>,
}

/// A relay, and the device store beside it.
struct World {
    rng: StdRng,
    blobs: HashMap<BlobId, Blob>,
    records: BTreeMap<u64, Zeroizing<Vec<u8>>>,
    asked: Vec<(u64, Ask)>,
    answers: Vec<(u64, Result<Told, NoAnswer>)>,
    /// In 1,000: how often an answer is a lost link instead, and how often the process dies.
    loses_link: u32,
    dies: u32,
    /// Dies with the answer after so many.
    dies_after: Option<usize>,
    /// What is refused next.
    refusals: Vec<RefusalCode>,
    /// Changes what a download gives.
    lie: Lie,
    /// Bytes of blobs that were sent, and the ivs of all chunks.
    sent: u64,
    fetched: u64,
    ivs: BTreeSet<Vec<u8>>,
    rested: Duration,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            blobs: HashMap::new(),
            records: BTreeMap::new(),
            asked: Vec::new(),
            answers: Vec::new(),
            loses_link: 0,
            dies: 0,
            dies_after: None,
            refusals: Vec::new(),
            lie: Box::new(|_, _| {}),
            sent: 0,
            fetched: 0,
            ivs: BTreeSet::new(),
            rested: Duration::ZERO,
        }
    }

    /// A new process: nothing is open.
    fn restart(&mut self) {
        self.asked.clear();
        self.answers.clear();
    }

    fn happens(&mut self, in_1000: u32) -> bool {
        self.rng.random_range(0..1_000) < in_1000
    }

    /// What the relay does with a request.
    fn serve(&mut self, ask: &Ask) -> Result<Told, NoAnswer> {
        if let Some(code) = self.refusals.pop() {
            return Err(NoAnswer::Refused(code));
        }
        let unknown = Err(NoAnswer::Refused(RefusalCode::UnknownBlob));
        let mut told = match ask {
            Ask::Upload {
                blob,
                size,
                offset,
                data,
            } => {
                if data.is_empty() && !self.blobs.contains_key(blob) {
                    return unknown;
                }
                let found = self.blobs.entry(*blob).or_insert_with(|| Blob {
                    size: *size,
                    content: Vec::new(),
                    ends: Vec::new(),
                });
                if !data.is_empty() {
                    if *offset != found.content.len() as u64 || *size != found.size {
                        return Err(NoAnswer::Refused(RefusalCode::BlobConflict));
                    }
                    found.content.extend_from_slice(data);
                    found.ends.push(found.content.len());
                }
                told(found, Vec::new())
            }
            Ask::Download {
                blob,
                offset,
                length,
            } => {
                let Some(found) = self.blobs.get(blob) else {
                    return unknown;
                };
                let start = usize::try_from(*offset).unwrap().min(found.content.len());
                let end = (start + usize::try_from(*length).unwrap()).min(found.content.len());
                told(found, found.content[start..end].to_vec())
            }
            Ask::Discard { blob } => match self.blobs.remove(blob) {
                Some(_) => Told::Accepted,
                None => return unknown,
            },
        };
        (self.lie)(ask, &mut told);
        Ok(told)
    }

    /// The link is lost: some of what was asked has reached the relay, which may have crashed too.
    fn lose_link(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        let reached = self.rng.random_range(0..=asked.len());
        for (index, (number, ask)) in asked.into_iter().enumerate() {
            if index < reached {
                let _ = self.serve(&ask);
            }
            self.answers.push((number, Err(NoAnswer::LinkLost)));
        }
        if self.rng.random_bool(0.3) {
            for blob in self.blobs.values_mut() {
                if (blob.content.len() as u64) < blob.size {
                    let kept = self.rng.random_range(0..=blob.ends.len());
                    blob.ends.truncate(kept);
                    blob.content
                        .truncate(blob.ends.last().copied().unwrap_or_default());
                }
            }
        }
    }
}

fn told(blob: &Blob, data: Vec<u8>) -> Told {
    let length = blob.content.len() as u64;
    Told::Blob {
        length,
        size: blob.size,
        complete: length == blob.size,
        data,
    }
}

impl Port for World {
    fn ask(&mut self, number: u64, ask: Ask) -> Result<(), Stopped> {
        match &ask {
            Ask::Upload { data, .. } if !data.is_empty() => {
                self.sent += data.len() as u64;
                // No iv is ever used twice, under whatever key.
                assert!(self.ivs.insert(data[..12].to_vec()));
            }
            Ask::Download { length, .. } => self.fetched += u64::from(*length),
            Ask::Upload { .. } | Ask::Discard { .. } => {}
        }
        self.asked.push((number, ask));
        assert!(self.asked.len() <= MAX_OPEN, "too much is under way");
        Ok(())
    }

    fn wait(&mut self) -> Result<(u64, Result<Told, NoAnswer>), Stopped> {
        let dies = self.dies;
        if self.happens(dies) || self.dies_after == Some(0) {
            self.dies_after = None;
            return Err(Stopped::Cancelled);
        }
        if let Some(left) = &mut self.dies_after {
            *left -= 1;
        }
        let loses = self.loses_link;
        if self.answers.is_empty() && self.happens(loses) {
            self.lose_link();
        }
        if let Some(answer) = self.answers.pop() {
            return Ok(answer);
        }
        // Uploads are done in their order, downloads in any.
        let next = match self.asked.first().expect("waits for nothing") {
            (_, Ask::Download { .. }) => self.rng.random_range(0..self.asked.len()),
            _ => 0,
        };
        let (number, ask) = self.asked.remove(next);
        let answer = self.serve(&ask);
        Ok((number, answer))
    }

    fn rest(&mut self, time: Duration) -> Result<(), Stopped> {
        assert!(self.asked.is_empty(), "rests while something is under way");
        self.rested += time;
        Ok(())
    }

    fn records(&mut self) -> Result<Stored, Stopped> {
        let copy = |(number, record): (&u64, &Zeroizing<Vec<u8>>)| (*number, record.clone());
        Ok(self.records.iter().map(copy).collect())
    }

    fn put_record(&mut self, number: u64, record: Zeroizing<Vec<u8>>) -> Result<(), Stopped> {
        self.records.insert(number, record);
        Ok(())
    }

    fn remove_record(&mut self, number: u64) -> Result<(), Stopped> {
        self.records.remove(&number);
        Ok(())
    }
}

fn content(size: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![0; size];
    StdRng::seed_from_u64(seed).fill_bytes(&mut content);
    content
}

fn send(world: &mut World, file: &[u8]) -> Result<Uploaded, End> {
    world.restart();
    let source = Source {
        file: Cursor::new(file.to_vec()),
        name: NAME,
        now: 1,
    };
    let mut rng = StdRng::seed_from_u64(world.rng.next_u64());
    let mut last = 0;
    let sent = upload(source, world, &mut rng, &mut |done, total| {
        assert!(done <= total && total == file.len() as u64);
        last = done;
    });
    sent.map(|(_, uploaded)| {
        assert_eq!(last, file.len() as u64);
        uploaded
    })
}

struct Desktop {
    dir: tempfile::TempDir,
}

impl Desktop {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("got.bin")
    }

    fn files(&self) -> usize {
        fs::read_dir(self.dir.path()).unwrap().count()
    }

    fn fetch(&self, world: &mut World, wanted: Wanted) -> Result<(), End> {
        world.restart();
        let mut rng = StdRng::seed_from_u64(world.rng.next_u64());
        let size = wanted.size;
        download(wanted, &self.place(), world, &mut rng, &mut |done| {
            assert!(done <= size);
        })
    }
}

fn wanted(uploaded: &Uploaded) -> Wanted {
    Wanted {
        blob: uploaded.blob,
        key: FileKey::from_bytes(uploaded.key.expose_for_store()),
        size: uploaded.size,
        sha256: uploaded.sha256,
    }
}

/// The reason for which a transfer failed.
fn fault<T>(outcome: Result<T, End>) -> FileError {
    match outcome {
        Err(End::Failed(Error::File(error))) => error,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it went well"),
    }
}

fn was_cancelled<T>(outcome: &Result<T, End>) -> bool {
    matches!(outcome, Err(End::Stopped(Stopped::Cancelled)))
}

#[test]
fn file_of_any_size_arrives_as_it_was() {
    for size in [0, 1, 65_535, 65_536, 65_537, 500_000] {
        let (mut world, desktop) = (World::new(1), Desktop::new());
        let file = content(size, 2);
        let uploaded = send(&mut world, &file).ok().unwrap();
        assert_eq!(uploaded.sha256, <[u8; 32]>::from(Sha256::digest(&file)));
        desktop.fetch(&mut world, wanted(&uploaded)).unwrap();
        assert!(fs::read(desktop.place()).unwrap() == file, "{size}");
        assert_eq!(desktop.files(), 1);
        let blob = Shape::new(size as u64).unwrap().blob_bytes();
        assert_eq!((world.sent, world.fetched), (blob, blob), "{size}");
    }
}

/// Whatever is lost and whoever dies, as often as it may be: the file arrives, and no iv is used twice.
#[test]
fn file_arrives_through_lost_links_crashes_and_kills() {
    let mut kills = 0;
    for seed in 0..12 {
        let (mut world, desktop) = (World::new(seed), Desktop::new());
        (world.loses_link, world.dies) = (60, 30);
        let size = world.rng.random_range(0..700_000);
        let file = content(size, seed);
        let uploaded = loop {
            match send(&mut world, &file) {
                Ok(uploaded) => break uploaded,
                outcome => assert!(was_cancelled(&outcome), "{seed}"),
            }
            kills += 1;
        };
        while let Err(end) = desktop.fetch(&mut world, wanted(&uploaded)) {
            assert!(was_cancelled::<()>(&Err(end)), "{seed}");
            kills += 1;
        }
        assert!(fs::read(desktop.place()).unwrap() == file, "{seed}");
        assert_eq!(desktop.files(), 1);
        assert_eq!(world.blobs.len(), 1, "{seed}");
    }
    assert!(kills > 4, "{kills}");
}

#[test]
fn upload_that_was_killed_sends_only_the_rest() {
    let (mut world, file) = (World::new(1), content(1_300_000, 2));
    world.dies_after = Some(10);
    assert!(was_cancelled(&send(&mut world, &file)));
    let before = world.sent;
    let uploaded = send(&mut world, &file).ok().unwrap();
    let blob = Shape::new(file.len() as u64).unwrap().blob_bytes();
    assert!(before > 10 * 65_536);
    // What was under way when it died may have to go again.
    assert!(world.sent <= blob + MAX_OPEN as u64 * 65_564);
    assert_eq!(uploaded.sha256, <[u8; 32]>::from(Sha256::digest(&file)));
}

#[test]
fn download_that_was_killed_fetches_only_the_rest() {
    let (mut world, desktop) = (World::new(1), Desktop::new());
    let file = content(1_300_000, 2);
    let uploaded = send(&mut world, &file).ok().unwrap();
    world.dies_after = Some(10);
    assert!(was_cancelled(&desktop.fetch(&mut world, wanted(&uploaded))));
    assert!(!desktop.place().exists());
    desktop.fetch(&mut world, wanted(&uploaded)).unwrap();
    let blob = Shape::new(file.len() as u64).unwrap().blob_bytes();
    assert!(world.fetched <= blob + 2 * MAX_OPEN as u64 * 65_564);
    assert!(fs::read(desktop.place()).unwrap() == file);
}

/// Not only its size: the very bytes that the relay may have.
#[test]
fn changed_file_is_sent_anew_under_another_key() {
    for changed_at in [0, 500_000, 700_000] {
        let (mut world, mut file) = (World::new(1), content(1_300_000, 2));
        world.dies_after = Some(10);
        assert!(was_cancelled(&send(&mut world, &file)));
        let (_, record) = UploadRecord::find(&NAME, &world.records().unwrap()).unwrap();
        file[changed_at] ^= 1;
        let uploaded = send(&mut world, &file).ok().unwrap();
        assert_ne!(uploaded.blob, record.blob);
        assert_ne!(uploaded.key.expose_for_store(), &*record.key);
        assert_ne!(uploaded.message, record.message);
        assert_eq!(uploaded.sha256, <[u8; 32]>::from(Sha256::digest(&file)));
        // Nobody needs what was there of the old one.
        assert!(!world.blobs.contains_key(&record.blob));
    }
}

#[test]
fn file_of_another_size_is_sent_anew() {
    for size in [1_299_999, 1_300_001, 100] {
        let (mut world, file) = (World::new(1), content(1_300_000, 2));
        world.dies_after = Some(10);
        assert!(was_cancelled(&send(&mut world, &file)));
        let mut other = file.clone();
        other.resize(size, 0);
        let uploaded = send(&mut world, &other).ok().unwrap();
        assert_eq!(uploaded.sha256, <[u8; 32]>::from(Sha256::digest(&other)));
        assert_eq!(world.blobs.len(), 1);
    }
}

/// Part of a chunk, or more than was ever sent: nothing can go on there.
#[test]
fn relay_that_is_somewhere_else_gets_the_file_anew() {
    for length in [70_000, 1_200_000] {
        let (mut world, file) = (World::new(1), content(1_300_000, 2));
        world.dies_after = Some(3);
        assert!(was_cancelled(&send(&mut world, &file)));
        let (old, blob) = world.blobs.iter_mut().next().unwrap();
        let old = *old;
        blob.content.resize(length, 0);
        let uploaded = send(&mut world, &file).ok().unwrap();
        assert_ne!(uploaded.blob, old);
        let desktop = Desktop::new();
        desktop.fetch(&mut world, wanted(&uploaded)).unwrap();
    }
}

/// The relay has forgotten what it had: it is sent again, under other ivs.
#[test]
fn relay_that_forgot_the_blob_gets_it_again() {
    let (mut world, file) = (World::new(1), content(400_000, 2));
    world.dies_after = Some(3);
    assert!(was_cancelled(&send(&mut world, &file)));
    world.blobs.clear();
    let uploaded = send(&mut world, &file).ok().unwrap();
    let desktop = Desktop::new();
    desktop.fetch(&mut world, wanted(&uploaded)).unwrap();
}

#[test]
fn passing_refusal_is_waited_out_and_another_is_said() {
    let (mut world, file) = (World::new(1), content(400_000, 2));
    world.refusals = vec![RefusalCode::Unavailable, RefusalCode::RateLimited];
    send(&mut world, &file).ok().unwrap();
    assert!(world.rested > Duration::from_millis(100));

    let mut world = World::new(1);
    world.refusals = vec![RefusalCode::TooLarge];
    assert!(matches!(
        fault(send(&mut world, &file)),
        FileError::TooLarge
    ));
    for (code, refusal) in [
        (RefusalCode::StorageFull, Refusal::StorageFull),
        (RefusalCode::NotPermitted, Refusal::NotPermitted),
    ] {
        world.refusals = vec![code];
        let refused = send(&mut world, &file);
        assert!(matches!(
            refused,
            Err(End::Failed(Error::Refused(said))) if said == refusal
        ));
    }
    // The record is still there: with room, it goes on.
    send(&mut world, &file).ok().unwrap();
    world.refusals = vec![RefusalCode::RateLimited; 500];
    let desktop = Desktop::new();
    let uploaded = send(&mut world, &file);
    assert!(matches!(
        uploaded,
        Err(End::Failed(Error::Refused(Refusal::RateLimited)))
    ));
    assert_eq!(desktop.files(), 0);
}

#[test]
fn file_that_the_relay_does_not_have_is_gone() {
    let (mut world, desktop) = (World::new(1), Desktop::new());
    let uploaded = send(&mut world, &content(400_000, 2)).ok().unwrap();
    let blob = world.blobs.get_mut(&uploaded.blob).unwrap();
    blob.content.truncate(200_000);
    let outcome = desktop.fetch(&mut world, wanted(&uploaded));
    assert!(matches!(fault(outcome), FileError::Gone));
    world.blobs.clear();
    let outcome = desktop.fetch(&mut world, wanted(&uploaded));
    assert!(matches!(fault(outcome), FileError::Gone));
    assert!(!desktop.place().exists());
}

/// docs/protocol.md §15.3: whatever the relay, or somebody with the key, does to a file, nobody is given it.
#[test]
fn file_that_was_changed_at_the_relay_is_refused_whole() {
    const CHUNK: usize = 65_564;
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 8] = [
        ("bit flipped", |blob| blob[200_000] ^= 1),
        ("iv flipped", |blob| blob[CHUNK] ^= 1),
        ("last tag flipped", |blob| *blob.last_mut().unwrap() ^= 1),
        ("two chunks swapped", |blob| {
            let (first, second) = blob.split_at_mut(CHUNK);
            first.swap_with_slice(&mut second[..CHUNK]);
        }),
        ("chunk repeated", |blob| {
            blob.copy_within(..CHUNK, 2 * CHUNK);
        }),
        ("last chunk put first", |blob| {
            let last = blob.len() - blob.len() % CHUNK;
            blob.copy_within(last.., 0);
        }),
        ("zeros", |blob| blob.fill(0)),
        ("first chunk at every place", |blob| {
            for start in (CHUNK..blob.len() - CHUNK).step_by(CHUNK) {
                blob.copy_within(..CHUNK, start);
            }
        }),
    ];
    for (what, change) in changes {
        let (mut world, desktop) = (World::new(1), Desktop::new());
        let uploaded = send(&mut world, &content(400_000, 2)).ok().unwrap();
        change(&mut world.blobs.get_mut(&uploaded.blob).unwrap().content);
        let outcome = desktop.fetch(&mut world, wanted(&uploaded));
        assert!(matches!(fault(outcome), FileError::Damaged), "{what}");
        assert_eq!(desktop.files(), 0, "{what}");
    }
}

#[test]
fn file_that_is_not_what_its_message_says_is_refused_whole() {
    let mut world = World::new(1);
    let uploaded = send(&mut world, &content(400_000, 2)).ok().unwrap();
    type Change = fn(&mut Wanted);
    let changes: [(&str, Change); 5] = [
        ("hash", |wanted| wanted.sha256[0] ^= 1),
        ("key", |wanted| wanted.key = FileKey::from_bytes(&[1; 32])),
        // Of the same padded size, so that only the padding tells.
        ("smaller", |wanted| wanted.size -= 1),
        ("larger", |wanted| wanted.size += 1),
        ("much larger", |wanted| wanted.size = 1 << 39),
    ];
    for (what, change) in changes {
        let desktop = Desktop::new();
        let mut lied = wanted(&uploaded);
        change(&mut lied);
        let outcome = desktop.fetch(&mut world, lied);
        assert!(matches!(fault(outcome), FileError::Damaged), "{what}");
        assert_eq!(desktop.files(), 0, "{what}");
    }
}

#[test]
fn relay_that_gives_more_or_another_size_is_not_believed() {
    let lies: [Lie; 2] = [
        Box::new(|ask, told| {
            if let (Ask::Download { .. }, Told::Blob { data, .. }) = (ask, told) {
                data.push(0);
            }
        }),
        Box::new(|ask, told| {
            if let (Ask::Download { .. }, Told::Blob { size, .. }) = (ask, told) {
                *size += 1;
            }
        }),
    ];
    for lie in lies {
        let (mut world, desktop) = (World::new(1), Desktop::new());
        let uploaded = send(&mut world, &content(100_000, 2)).ok().unwrap();
        world.lie = lie;
        let outcome = desktop.fetch(&mut world, wanted(&uploaded));
        assert!(matches!(fault(outcome), FileError::Damaged));
        assert_eq!(desktop.files(), 0);
    }
}

/// The disk lost what was written, or somebody else wrote there: the file is fetched again.
#[test]
fn part_that_is_not_what_was_written_is_fetched_again() {
    let (mut world, desktop) = (World::new(1), Desktop::new());
    let file = content(400_000, 2);
    let uploaded = send(&mut world, &file).ok().unwrap();
    let part = part_path(&desktop.place(), &uploaded.blob);
    for before in [vec![0; 100_000], vec![0; 400_000], vec![0; 900_000]] {
        fs::write(&part, before).unwrap();
        desktop.fetch(&mut world, wanted(&uploaded)).unwrap();
        assert!(fs::read(desktop.place()).unwrap() == file);
        assert_eq!(desktop.files(), 1);
        fs::remove_file(desktop.place()).unwrap();
    }
}

#[test]
fn file_that_is_there_is_neither_fetched_nor_overwritten() {
    let (mut world, desktop) = (World::new(1), Desktop::new());
    let file = content(100_000, 2);
    let uploaded = send(&mut world, &file).ok().unwrap();
    fs::write(desktop.place(), &file).unwrap();
    desktop.fetch(&mut world, wanted(&uploaded)).unwrap();
    assert_eq!(world.fetched, 0);
    fs::write(desktop.place(), b"mine").unwrap();
    let outcome = desktop.fetch(&mut world, wanted(&uploaded));
    assert!(matches!(fault(outcome), FileError::Exists));
    assert_eq!(fs::read(desktop.place()).unwrap(), b"mine");
    assert_eq!(world.fetched, 0);
}
