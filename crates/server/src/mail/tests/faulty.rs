//! A disk that loses what was not synced, tears what it was writing, fails and is full, on demand.
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::disk::{Disk, LogFile};

const SECTOR: usize = 512;

/// What a crash does to what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crash {
    LosesAll,
    LosesNothing,
    /// Each sector on its own, by this seed.
    Tears(u64),
}

#[derive(Debug, Clone)]
pub(super) struct FaultyDisk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    unsynced_names: Vec<BTreeMap<String, usize>>,
    /// Changes so far.
    operations: u64,
    /// Everything fails from this change on.
    crash_at: Option<u64>,
    fail_syncs: bool,
    fail_writes: bool,
    full: bool,
    /// Bytes that the files may have together.
    capacity: Option<usize>,
    /// What the system says to whoever makes a file.
    refuse_files: Option<i32>,
    /// Reads of anything here fail, so often.
    failing_reads: Option<(Range<u64>, usize)>,
}

#[derive(Debug, Clone, Default)]
struct Inode {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, written) => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl FaultyDisk {
    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Has everything fail from the change with this number on.
    pub(super) fn crash_at(&self, operation: u64) {
        self.state().crash_at = Some(operation);
    }

    pub(super) fn fail_syncs(&self, fail: bool) {
        self.state().fail_syncs = fail;
    }

    pub(super) fn fail_writes(&self, fail: bool) {
        self.state().fail_writes = fail;
    }

    pub(super) fn fill(&self, full: bool) {
        self.state().full = full;
    }

    /// Bytes of all files.
    pub(super) fn used(&self) -> usize {
        self.state().used()
    }

    /// Sets how many bytes the files may have together.
    pub(super) fn limit(&self, capacity: usize) {
        self.state().capacity = Some(capacity);
    }

    /// Has making a file fail with this error of the system.
    pub(super) fn refuse_files(&self, code: Option<i32>) {
        self.state().refuse_files = code;
    }

    /// Has so many reads fail of anything at these offsets.
    pub(super) fn fail_reads(&self, offsets: Range<u64>, times: usize) {
        self.state().failing_reads = Some((offsets, times));
    }

    /// What the next start finds.
    pub(super) fn after(&self, crash: Crash) -> Self {
        let state = self.state();
        let mut random = match crash {
            Crash::Tears(seed) => Random(seed),
            _ => Random(0),
        };
        let files: Vec<_> = state
            .files
            .iter()
            .map(|file| file.after(crash, &mut random))
            .collect();
        let names = match crash {
            Crash::LosesAll => state.durable_names.clone(),
            Crash::LosesNothing => state.names.clone(),
            Crash::Tears(_) => {
                let kept = random.below(state.unsynced_names.len() + 1);
                match kept.checked_sub(1) {
                    Some(last) => state.unsynced_names[last].clone(),
                    None => state.durable_names.clone(),
                }
            }
        };
        Self(Arc::new(Mutex::new(State {
            files,
            durable_names: names.clone(),
            names,
            ..State::default()
        })))
    }
}

impl Inode {
    fn after(&self, crash: Crash, random: &mut Random) -> Self {
        let mut bytes = self.synced.clone();
        for change in &self.unsynced {
            match (crash, change) {
                (Crash::LosesAll, _) => {}
                (Crash::LosesNothing, change) => change.apply(&mut bytes),
                (Crash::Tears(_), Change::Length(_)) => {
                    if random.below(2) == 0 {
                        change.apply(&mut bytes);
                    }
                }
                (Crash::Tears(_), Change::Write(offset, written)) => {
                    let mut done = 0;
                    while done < written.len() {
                        let at = offset + done;
                        let count = (SECTOR - at % SECTOR).min(written.len() - done);
                        if random.below(2) == 0 {
                            let sector = written[done..done + count].to_vec();
                            Change::Write(at, sector).apply(&mut bytes);
                        }
                        done += count;
                    }
                }
            }
        }
        Self {
            synced: bytes.clone(),
            bytes,
            unsynced: Vec::new(),
        }
    }
}

impl State {
    fn change(&mut self) -> io::Result<()> {
        let operation = self.operations;
        self.operations += 1;
        if self.crash_at.is_some_and(|crash| operation >= crash) {
            return Err(io::Error::other("crashed"));
        }
        Ok(())
    }

    fn used(&self) -> usize {
        self.names
            .values()
            .map(|number| self.files[*number].bytes.len())
            .sum()
    }

    fn has_room(&self, number: usize, length: u64) -> bool {
        let others = self.used() - self.files[number].bytes.len();
        !self.full
            && self
                .capacity
                .is_none_or(|capacity| others + length as usize <= capacity)
    }

    fn rename_all(&mut self, names: BTreeMap<String, usize>) {
        self.names = names.clone();
        self.unsynced_names.push(names);
    }
}

impl Disk for FaultyDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.state();
        if let Some(code) = state.refuse_files {
            return Err(io::Error::from_raw_os_error(code));
        }
        state.change()?;
        let number = state.files.len();
        state.files.push(Inode::default());
        let mut names = state.names.clone();
        names.insert(name.to_owned(), number);
        state.rename_all(names);
        Ok(Arc::new(FaultyFile(self.clone(), number)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        match self.state().names.get(name) {
            Some(number) => Ok(Arc::new(FaultyFile(self.clone(), *number))),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let mut names = state.names.clone();
        let number = names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        names.insert(to.to_owned(), number);
        state.rename_all(names);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        let mut names = state.names.clone();
        names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.rename_all(names);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        if state.fail_syncs {
            return Err(io::Error::other("sync failed"));
        }
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyFile(FaultyDisk, usize);

impl FaultyFile {
    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.0.state();
        let crashed = state.change();
        if state.fail_writes {
            return Err(io::Error::other("write failed"));
        }
        let file = &mut state.files[self.1];
        // The change at which a crash comes is under way.
        change.apply(&mut file.bytes);
        file.unsynced.push(change);
        crashed
    }
}

impl LogFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.state().files[self.1].bytes.len() as u64)
    }

    fn reserve(&self, length: u64) -> io::Result<()> {
        if !self.0.state().has_room(self.1, length) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.change(Change::Length(length as usize))
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut state = self.0.state();
        if let Some((offsets, times)) = &mut state.failing_reads
            && offset < offsets.end
            && offsets.start < offset + bytes.len() as u64
            && *times > 0
        {
            *times -= 1;
            return Err(io::Error::other("read failed"));
        }
        let file = &state.files[self.1].bytes;
        let offset = offset as usize;
        let from = file
            .get(offset..offset + bytes.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        bytes.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        if end > self.length()? && !self.0.state().has_room(self.1, end) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.change(Change::Write(offset as usize, bytes.to_vec()))
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(length as usize))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.0.state();
        state.change()?;
        if state.fail_syncs {
            return Err(io::Error::other("sync failed"));
        }
        let file = &mut state.files[self.1];
        file.synced = file.bytes.clone();
        file.unsynced.clear();
        Ok(())
    }
}

/// xorshift64*, so that a seed says everything.
#[derive(Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let mut x = self.0;
        x ^= x >> 33;
        x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
        x ^= x >> 33;
        (x % end as u64) as usize
    }
}
