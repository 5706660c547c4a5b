//! A disk in memory that does what real ones do when they fail.
//!
//! ```text
//!             write, set_len                sync
//!  process ──────────────────▶ seen ─────────────────▶ durable
//!                                │ crash: of what was not synced some is kept, some lost, one write torn
//!                                ◀─────────────────────── durable
//! ```
//! What a process reads is what it wrote; what a crash leaves is what was synced, and any part of the rest: nothing, the first few writes
//! with a piece of the next, or an arbitrary choice. After a failed sync nobody knows what it covered: each write is durable or gone, and what is
//! read from then on says which. A process can be made to die at its n-th operation, so that a crash falls between any two.

mod content;
mod fittings;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chance::Chance;
use super::fault::{Fault, Tally};
use content::Content;
pub(super) use fittings::Folder;

/// A node's disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

/// A file as one process has it open. When the process is gone, so is this: it gives errors.
#[derive(Debug, Clone)]
pub(super) struct DiskFile {
    disk: Disk,
    file: FileId,
    life: u64,
}

/// Everything that is durable at some moment, to be put back later.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    files: BTreeMap<FileId, Content>,
    names: BTreeMap<String, FileId>,
}

type FileId = u64;

#[derive(Debug)]
struct Platter {
    chance: Chance,
    tally: Tally,
    files: BTreeMap<FileId, File>,
    next_file: FileId,
    names: Names,
    /// Counts the processes that had the disk: files of an earlier one are closed.
    life: u64,
    /// Operations until the process dies.
    dies_after: Option<u64>,
    dead: bool,
    /// Syncs until one fails.
    sync_fails_after: Option<u64>,
    full: bool,
    /// Syncs do nothing, and so many did. For canaries.
    lies: Option<u64>,
}

#[derive(Debug, Default)]
struct File {
    seen: Content,
    durable: Content,
    unsynced: Vec<Change>,
}

#[derive(Debug)]
enum Change {
    Write {
        offset: u64,
        data: Vec<u8>,
    },
    Length(u64),
    Reserve(u64),
    /// The sync of this number lied.
    Lie(u64),
}

/// The directory. Changes of it are kept in their order: a crash loses the last ones.
#[derive(Debug, Default)]
struct Names {
    seen: BTreeMap<String, FileId>,
    durable: BTreeMap<String, FileId>,
    unsynced: Vec<NameChange>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Add(String, FileId),
    Remove(String),
    Rename(String, String),
    /// The sync of this number lied.
    Lie(u64),
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub(super) fn new(chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            chance,
            tally: Tally::default(),
            files: BTreeMap::new(),
            next_file: 1,
            names: Names::default(),
            life: 0,
            dies_after: None,
            dead: false,
            sync_fails_after: None,
            full: false,
            lies: None,
        })))
    }

    /// Opens a file, and makes it if there is none.
    ///
    /// # Errors
    /// If the process is dead or the disk full.
    pub(super) fn open(&self, name: &str) -> io::Result<DiskFile> {
        let mut platter = self.platter();
        platter.operate()?;
        let file = match platter.names.seen.get(name) {
            Some(file) => *file,
            None => {
                if platter.full {
                    return Err(platter.full_error());
                }
                let file = platter.next_file;
                platter.next_file += 1;
                platter.files.insert(file, File::default());
                platter.names.change(NameChange::Add(name.to_owned(), file));
                file
            }
        };
        Ok(DiskFile {
            disk: self.clone(),
            file,
            life: platter.life,
        })
    }

    /// Makes an empty file, in place of one that may have the name.
    ///
    /// # Errors
    /// If the process is dead or the disk full.
    pub(super) fn create(&self, name: &str) -> io::Result<DiskFile> {
        let mut platter = self.platter();
        platter.operate()?;
        if platter.full {
            return Err(platter.full_error());
        }
        let file = platter.next_file;
        platter.next_file += 1;
        platter.files.insert(file, File::default());
        platter.names.change(NameChange::Add(name.to_owned(), file));
        Ok(DiskFile {
            disk: self.clone(),
            file,
            life: platter.life,
        })
    }

    /// Whether there is a file of this name.
    ///
    /// # Errors
    /// If the process is dead.
    pub(super) fn exists(&self, name: &str) -> io::Result<bool> {
        let mut platter = self.platter();
        platter.operate()?;
        Ok(platter.names.seen.contains_key(name))
    }

    /// The names of all files, in order.
    ///
    /// # Errors
    /// If the process is dead.
    pub(super) fn list(&self) -> io::Result<Vec<String>> {
        let mut platter = self.platter();
        platter.operate()?;
        Ok(platter.names.seen.keys().cloned().collect())
    }

    /// Removes a file. Without it nothing happens.
    ///
    /// # Errors
    /// If the process is dead.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operate()?;
        platter.names.change(NameChange::Remove(name.to_owned()));
        Ok(())
    }

    /// Gives a file another name, in place of a file that may have it.
    ///
    /// # Errors
    /// If the process is dead.
    pub(super) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operate()?;
        platter
            .names
            .change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Makes the names durable.
    ///
    /// # Errors
    /// If the process is dead.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operate()?;
        let Platter { names, lies, .. } = &mut *platter;
        match lies {
            Some(lies) => {
                *lies += 1;
                names.unsynced.push(NameChange::Lie(*lies));
            }
            None => names.sync(),
        }
        Ok(())
    }

    /// The machine loses power: only what is durable is left, and some of the rest.
    pub(super) fn crash(&self) {
        let mut platter = self.platter();
        let Platter {
            chance,
            tally,
            files,
            names,
            lies,
            ..
        } = &mut *platter;
        // At least what the last sync was for is lost.
        let cut = lies.map(|lies| lies.saturating_sub(1 + chance.mostly_small(8)));
        let kept = match cut {
            Some(cut) => {
                let kept =
                    |change: &NameChange| matches!(change, NameChange::Lie(lie) if *lie <= cut);
                names.unsynced.iter().rposition(kept).unwrap_or_default()
            }
            None => chance.index(names.unsynced.len() + 1),
        };
        names.lose_from(kept);
        for file in files.values_mut() {
            file.crash(cut, chance, tally);
        }
        // What no name leads to is gone.
        let Platter { files, names, .. } = &mut *platter;
        files.retain(|file, _| names.seen.values().any(|named| named == file));
        platter.revive();
    }

    /// The process is gone, and the machine is not: everything that was written can be read.
    pub(super) fn kill(&self) {
        self.platter().revive();
    }

    /// Lets the process die at its `operations`-th operation from now.
    pub(super) fn die_after(&self, operations: u64) {
        self.platter().dies_after = Some(operations);
    }

    /// Whether the process died. Every operation gives an error until [`Disk::crash`] or [`Disk::kill`].
    #[must_use]
    pub(super) fn is_dead(&self) -> bool {
        self.platter().dead
    }

    /// Counts as an operation, so that a process can die here too. `true` if it is dead now.
    #[must_use]
    pub(super) fn is_dead_here(&self) -> bool {
        self.platter().operate().is_err()
    }

    /// Whether the process is dead or about to die.
    #[must_use]
    pub(super) fn is_dying(&self) -> bool {
        let platter = self.platter();
        platter.dead || platter.dies_after.is_some()
    }

    /// Lets the `syncs`-th sync from now fail.
    pub(super) fn fail_sync_after(&self, syncs: u64) {
        self.platter().sync_fails_after = Some(syncs);
    }

    /// Makes the disk full, or not full any more.
    pub(super) fn set_full(&self, full: bool) {
        self.platter().full = full;
    }

    /// From now on syncs say that they are done, and do nothing. For canaries.
    pub(super) fn lie(&self) {
        self.platter().lies = Some(0);
    }

    /// Lets no more faults happen.
    pub(super) fn calm(&self) {
        let mut platter = self.platter();
        platter.dies_after = None;
        platter.sync_fails_after = None;
        platter.full = false;
    }

    /// What is durable now.
    #[must_use]
    pub(super) fn snapshot(&self) -> Snapshot {
        let platter = self.platter();
        Snapshot {
            files: platter
                .files
                .iter()
                .map(|(id, file)| (*id, file.durable.clone()))
                .collect(),
            names: platter.names.durable.clone(),
        }
    }

    /// Puts everything back to what it was. The process has to be gone.
    pub(super) fn restore(&self, snapshot: &Snapshot) {
        let mut platter = self.platter();
        platter.tally.add(Fault::StoreRestored);
        platter.files = snapshot
            .files
            .iter()
            .map(|(id, content)| {
                (
                    *id,
                    File {
                        seen: content.clone(),
                        durable: content.clone(),
                        unsynced: Vec::new(),
                    },
                )
            })
            .collect();
        platter.names = Names {
            seen: snapshot.names.clone(),
            durable: snapshot.names.clone(),
            unsynced: Vec::new(),
        };
        platter.revive();
    }

    /// The faults that happened here since the last call.
    #[must_use]
    pub(super) fn take_tally(&self) -> Tally {
        std::mem::take(&mut self.platter().tally)
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskFile {
    /// Bytes in it.
    ///
    /// # Errors
    /// If the process is dead.
    pub(super) fn len(&self) -> io::Result<u64> {
        self.with(|_, file| Ok(file.seen.len()))
    }

    /// Reads exactly as much as there is room for.
    ///
    /// # Errors
    /// If the file is shorter or the process dead.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|_, file| {
            if file.seen.read(offset, out) {
                Ok(())
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        })
    }

    /// Writes, and makes the file longer if it has to be.
    ///
    /// # Errors
    /// If the disk is full or the process dead.
    pub(super) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|platter, file| {
            if platter.full && file.seen.grows(offset, data.len()) {
                return Err(platter.full_error());
            }
            file.seen.write(offset, data);
            file.unsynced.push(Change::Write {
                offset,
                data: data.to_vec(),
            });
            Ok(())
        })
    }

    /// Cuts the file, or makes it longer with zeros.
    ///
    /// # Errors
    /// If the disk is full or the process dead.
    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|platter, file| {
            if len == file.seen.len() {
                return Ok(());
            }
            if platter.full && len > file.seen.len() {
                return Err(platter.full_error());
            }
            file.seen.set_len(len);
            file.unsynced.push(Change::Length(len));
            Ok(())
        })
    }

    /// Makes the file longer with zeros, with room for all of them.
    ///
    /// # Errors
    /// If the disk is full or the process dead.
    pub(super) fn reserve(&self, len: u64) -> io::Result<()> {
        self.with(|platter, file| {
            if platter.full {
                return Err(platter.full_error());
            }
            file.seen.reserve(len);
            file.unsynced.push(Change::Reserve(len));
            Ok(())
        })
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// If the sync fails or the process is dead.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.with(|platter, file| {
            if let Some(left) = &mut platter.sync_fails_after {
                match left.checked_sub(1) {
                    Some(less) => *left = less,
                    None => {
                        platter.sync_fails_after = None;
                        platter.tally.add(Fault::FailedSync);
                        file.fail_sync(&mut platter.chance);
                        return Err(io::Error::other("the sync failed"));
                    }
                }
            }
            match &mut platter.lies {
                Some(lies) => {
                    *lies += 1;
                    file.unsynced.push(Change::Lie(*lies));
                }
                None => file.sync(),
            }
            Ok(())
        })
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Platter, &mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut platter = self.disk.platter();
        if platter.life != self.life {
            return Err(gone());
        }
        platter.operate()?;
        // Taken out, so that both can be changed.
        let mut file = platter
            .files
            .remove(&self.file)
            .ok_or(io::ErrorKind::NotFound)?;
        let done = work(&mut platter, &mut file);
        platter.files.insert(self.file, file);
        done
    }
}

impl Platter {
    fn operate(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.dies_after {
            match left.checked_sub(1) {
                Some(less) => *left = less,
                None => {
                    self.dies_after = None;
                    self.dead = true;
                }
            }
        }
        if self.dead { Err(gone()) } else { Ok(()) }
    }

    fn revive(&mut self) {
        self.life += 1;
        self.dead = false;
        self.dies_after = None;
    }

    fn full_error(&mut self) -> io::Error {
        self.tally.add(Fault::DiskFull);
        io::ErrorKind::StorageFull.into()
    }
}

impl File {
    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write { offset, data } => {
                    self.durable.take_pages(&self.seen, offset, data.len())
                }
                Change::Length(len) => self.durable.set_len(len),
                Change::Reserve(len) => self.durable.reserve(len),
                Change::Lie(_) => {}
            }
        }
        self.durable.set_len(self.seen.len());
    }

    /// Each change by itself is durable, or gone from everywhere. What a lie has covered stays as it is.
    fn fail_sync(&mut self, chance: &mut Chance) {
        let lied = self
            .unsynced
            .iter()
            .rposition(|change| matches!(change, Change::Lie(_)));
        let uncertain = self.unsynced.split_off(lied.map_or(0, |lied| lied + 1));
        let kept: Vec<_> = uncertain.into_iter().filter(|_| chance.coin()).collect();
        if self.unsynced.is_empty() {
            for change in kept {
                change.apply(&mut self.durable);
            }
            self.seen = self.durable.clone();
        } else {
            self.unsynced.extend(kept);
            self.seen = self.durable.clone();
            for change in &self.unsynced {
                change.apply(&mut self.seen);
            }
        }
    }

    /// `cut`: everything is put back to what the sync of this number said was durable.
    fn crash(&mut self, cut: Option<u64>, chance: &mut Chance, tally: &mut Tally) {
        let changes = std::mem::take(&mut self.unsynced);
        if changes.is_empty() {
            return;
        }
        if let Some(cut) = cut {
            let kept = |change: &Change| matches!(change, Change::Lie(lie) if *lie <= cut);
            let kept = changes.iter().rposition(kept).unwrap_or_default();
            for change in changes.iter().take(kept) {
                change.apply(&mut self.durable);
            }
        } else {
            self.tear(&changes, chance, tally);
        }
        self.seen = self.durable.clone();
    }

    fn tear(&mut self, changes: &[Change], chance: &mut Chance, tally: &mut Tally) {
        let count = changes.len();
        let fate = chance.below(3);
        // The first few, in order, and a piece of the next; or any.
        let first = if fate == 1 {
            chance.index(count + 1)
        } else {
            0
        };
        let torn = match fate {
            1 => first,
            2 => chance.index(count + 1),
            _ => count,
        };
        for (at, change) in changes.iter().enumerate() {
            let kept = at < first || fate == 2 && chance.coin();
            match change {
                Change::Write { offset, data } if at == torn && data.len() > 1 => {
                    let end = chance.index(data.len() - 1) + 1;
                    self.durable
                        .write(*offset, data.get(..end).unwrap_or_default());
                    tally.add(Fault::TornWrite);
                }
                change if kept => change.apply(&mut self.durable),
                _ => tally.add(Fault::LostWrite),
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Self::Write { offset, data } => content.write(*offset, data),
            Self::Length(len) => content.set_len(*len),
            Self::Reserve(len) => content.reserve(*len),
            Self::Lie(_) => {}
        }
    }
}

impl Names {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.seen);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        self.unsynced.clear();
        self.durable.clone_from(&self.seen);
    }

    fn lose_from(&mut self, kept: usize) {
        for change in self.unsynced.drain(..).take(kept) {
            change.apply(&mut self.durable);
        }
        self.seen.clone_from(&self.durable);
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, FileId>) {
        match self {
            Self::Add(name, file) => {
                names.insert(name.clone(), *file);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Lie(_) => {}
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the process is gone")
}

#[cfg(test)]
mod tests;
