//! What keeps the log small and quick to open: checkpoints, removal of segments that nothing needs, and copying what is left of mostly dead ones.
//!
//! ```text
//!  segments   … │ older checkpoint │ … │ newest checkpoint │ … tail
//!  go when dead ┘                  └────── kept for replay ──────┘
//! ```
//! Two checkpoints are kept, with what has to be replayed after the older one: damage to the newest costs nothing. A segment goes when none of its records
//! is needed, everything that says so is durable, and no replay begins before its end. So the log takes at most about twice what is held and a few times
//! [`MailOptions::checkpoint_bytes`](super::MailOptions). All of it is done by the writer in small steps between its writes.
//!
//! On a full disk, what is dead goes at once: whenever less is needed, dead segments are removed, after two checkpoints if a replay would still begin before
//! them. Both then tell what was acknowledged, so it need not fit into the log any more.
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::checkpoint::{Head, Unfinished};
use super::core::{Core, Moved, NoRoom, Queued};
use super::disk::LogFile;
use super::record::{self, Place, Record};
use super::segment::{self, START};
use super::writer::{Failed, Writer, failed, is_full};

/// Bytes of a segment that one step copies.
const COPIED_AT_ONCE: usize = 256 << 10;
/// Checkpoints that are kept.
const KEPT_CHECKPOINTS: usize = 2;
/// Commits after which what was acknowledged meanwhile is taken to be logged.
const MAX_COMMITS: usize = 8;

/// What recovery knows of the files.
#[derive(Debug)]
pub(super) struct Known {
    /// Number and place of the checkpoints that are whole, the newest last.
    pub(super) checkpoints: Vec<(u64, Place)>,
    pub(super) next_number: u64,
    pub(super) replayed_bytes: u64,
}

/// The state of the work.
#[derive(Debug)]
pub(super) struct Maintenance {
    checkpoints: Vec<(u64, Place)>,
    next_number: u64,
    /// Bytes written to the log after which there is a checkpoint.
    interval: u64,
    least_interval: u64,
    /// What `placed_bytes` was at the last one, less what had to be replayed.
    placed: u64,
    replayed: u64,
    unfinished: Option<Unfinished>,
    copying: Option<Copying>,
    /// Whether segments may have become unneeded.
    clean: bool,
    /// Segments that were copied since the last checkpoint. What is left in one is damaged.
    copied: BTreeSet<u32>,
    /// Whether there was no room to copy to.
    crowded: bool,
    /// Checkpoints that are made now, so that replay need not begin before what is dead.
    hurried: usize,
    /// Bytes of the newest checkpoint that was made; 0 if that is not known.
    newest_bytes: u64,
    /// The segments that were dead when the older checkpoint was begun, the newest, and the one under way.
    dead: [Vec<u32>; 3],
}

/// A segment of which what is needed is copied to the tail.
#[derive(Debug)]
struct Copying {
    segment: u32,
    bytes: Vec<u8>,
    offset: usize,
}

impl Maintenance {
    pub(super) fn new(checkpoint_bytes: u64) -> Self {
        Self {
            checkpoints: Vec::new(),
            next_number: 1,
            interval: checkpoint_bytes,
            least_interval: checkpoint_bytes,
            placed: 0,
            replayed: 0,
            unfinished: None,
            copying: None,
            clean: true,
            copied: BTreeSet::new(),
            crowded: false,
            hurried: 0,
            newest_bytes: 0,
            dead: Default::default(),
        }
    }

    fn is_due(&self, placed: u64) -> bool {
        self.hurried > 0 || placed - self.placed + self.replayed >= self.interval
    }

    fn replayed_from(&self) -> u32 {
        replayed_from(&self.checkpoints)
    }

    /// The names of the checkpoints that are whole.
    #[cfg(unix)]
    pub(super) fn checkpoint_names(&self) -> impl Iterator<Item = String> {
        let numbers = self.checkpoints.iter().map(|(number, _)| *number);
        numbers.map(segment::checkpoint_name)
    }
}

/// Segments below this number are not needed for replay from either of these checkpoints.
pub(super) fn replayed_from(checkpoints: &[(u64, Place)]) -> u32 {
    match checkpoints {
        [.., older, _] => older.1.segment,
        _ => 0,
    }
}

impl Writer {
    /// Tells what recovery knows.
    pub(super) fn know(&mut self, known: Known) {
        self.maintenance.checkpoints = known.checkpoints;
        self.maintenance.next_number = known.next_number;
        self.maintenance.replayed = known.replayed_bytes;
    }

    /// Whether there is something to do.
    pub(super) fn has_maintenance(&self) -> bool {
        let maintenance = &self.maintenance;
        maintenance.unfinished.is_some()
            || maintenance.copying.is_some()
            || maintenance.clean
            || maintenance.is_due(self.shared.lock().placed_bytes())
    }

    /// Does one step.
    pub(super) fn maintain(&mut self) -> Result<(), Failed> {
        if self.maintenance.unfinished.is_some() {
            self.continue_checkpoint()
        } else if self.maintenance.copying.is_some() {
            self.copy()
        } else if self.maintenance.is_due(self.shared.lock().placed_bytes()) {
            self.begin_checkpoint()
        } else if std::mem::take(&mut self.maintenance.clean) {
            self.remove_dead()
        } else {
            Ok(())
        }
    }

    /// Writes a whole checkpoint of a log that has been ended: nothing need be replayed.
    pub(super) fn last_checkpoint(&mut self, replay_from: Place) -> Result<(), Failed> {
        self.abandon();
        self.start_checkpoint(replay_from)?;
        while self.maintenance.unfinished.is_some() {
            self.continue_checkpoint()?;
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> Result<(), Failed> {
        // Copies that are under way would not be replayed, and not be known.
        self.commit()?;
        let (replay_from, placed, dead) = {
            let core = self.shared.lock();
            let dead = core.dead_segments(0..u32::MAX);
            (core.tail().next, core.placed_bytes(), dead)
        };
        let [_, _, under_way] = &mut self.maintenance.dead;
        *under_way = dead;
        self.maintenance.placed = placed;
        self.maintenance.replayed = 0;
        self.start_checkpoint(replay_from)
    }

    fn start_checkpoint(&mut self, replay_from: Place) -> Result<(), Failed> {
        let number = self.maintenance.next_number;
        let head = Head {
            log: self.header.log,
            number,
            start: self.header.start,
            replay_from,
        };
        let begun = self
            .disk
            .create(&segment::unfinished_name(number))
            .and_then(|file| Unfinished::begin(file, head));
        match begun {
            Ok(unfinished) => {
                self.maintenance.unfinished = Some(unfinished);
                Ok(())
            }
            Err(error) => self.give_up(&error),
        }
    }

    fn continue_checkpoint(&mut self) -> Result<(), Failed> {
        let Some(mut unfinished) = self.maintenance.unfinished.take() else {
            return Ok(());
        };
        let more = unfinished.take(&self.shared.lock().index);
        if let Err(error) = unfinished.write() {
            return self.give_up(&error);
        }
        if more {
            self.maintenance.unfinished = Some(unfinished);
            return Ok(());
        }
        // What it tells has to be durable before it is.
        self.commit()?;
        let durable = self.shared.lock().durable();
        let Head {
            number,
            replay_from,
            ..
        } = unfinished.head;
        let finished = unfinished
            .finish(durable.max(replay_from))
            .and_then(|bytes| {
                self.disk.rename(
                    &segment::unfinished_name(number),
                    &segment::checkpoint_name(number),
                )?;
                self.disk.sync()?;
                Ok(bytes)
            });
        let bytes = match finished {
            Ok(bytes) => bytes,
            Err(error) => return self.give_up(&error),
        };
        let maintenance = &mut self.maintenance;
        maintenance.interval = maintenance.least_interval.max(bytes);
        maintenance.newest_bytes = bytes;
        maintenance.hurried = maintenance.hurried.saturating_sub(1);
        maintenance.dead.rotate_left(1);
        maintenance.next_number = number.saturating_add(1);
        maintenance.checkpoints.push((number, replay_from));
        maintenance.clean = true;
        maintenance.copied.clear();
        maintenance.crowded = false;
        while self.maintenance.checkpoints.len() > KEPT_CHECKPOINTS {
            let (oldest, _) = self.maintenance.checkpoints.remove(0);
            self.remove(&segment::checkpoint_name(oldest))?;
        }
        Ok(())
    }

    /// Without room on the disk, or a descriptor for its file, a checkpoint is left for later.
    fn give_up(&mut self, error: &io::Error) -> Result<(), Failed> {
        if !is_full(error) {
            return Err(failed(error));
        }
        tracing::error!(%error, "no room for a checkpoint of the mail log; make room on the disk");
        self.abandon();
        Ok(())
    }

    fn abandon(&mut self) {
        self.maintenance.unfinished = None;
        self.maintenance.copying = None;
        self.maintenance.hurried = 0;
        // If it stays, opening the log removes it, and the next takes its place.
        drop(
            self.disk
                .remove(&segment::unfinished_name(self.maintenance.next_number)),
        );
    }

    fn remove(&self, name: &str) -> Result<(), Failed> {
        match self.disk.remove(name) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Removes segments that nothing needs, and chooses one that is mostly dead if the log takes much more than what is held.
    fn remove_dead(&mut self) -> Result<(), Failed> {
        let before = self.maintenance.replayed_from();
        let dead = self.shared.lock().dead_segments(0..before);
        let logged = dead.is_empty() || self.log_all_states()?;
        let [known, ..] = &self.maintenance.dead;
        // What the log could not be told of, both checkpoints have to know.
        let (gone, left): (Vec<_>, Vec<_>) = dead
            .into_iter()
            .partition(|number| logged || known.contains(number));
        for number in &gone {
            let segment = self.shared.lock().segments.remove(number);
            if let Some(segment) = segment {
                self.remove(&segment.name)?;
            }
        }
        if gone.is_empty() {
            self.hurry(before, &left);
        } else {
            self.shared.lock().try_spare_again();
        }
        self.choose(before)
    }

    /// Looks, where the disk is full, whether something has become dead.
    pub(super) fn look_for_room(&mut self) {
        self.maintenance.clean |= self.shared.lock().looks_for_room();
    }

    /// On a full disk, has checkpoints made now if with these what is dead can go, and takes more than they do.
    fn hurry(&mut self, before: u32, left: &[u32]) {
        let core = self.shared.lock();
        if !core.is_disk_full() {
            return;
        }
        let replayed = core.dead_segments(before..u32::MAX);
        let bytes: u64 = left
            .iter()
            .chain(&replayed)
            .filter_map(|number| core.segments.get(number))
            .map(|segment| u64::from(segment.length))
            .sum();
        if bytes > self.maintenance.newest_bytes.saturating_mul(2) {
            self.maintenance.hurried = KEPT_CHECKPOINTS;
        }
    }

    /// Has the log told of everything that was acknowledged by now; says whether that worked.
    fn log_all_states(&mut self) -> Result<bool, Failed> {
        for _ in 0..MAX_COMMITS {
            self.commit()?;
            if !self.shared.lock().index.has_unlogged() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn choose(&mut self, before: u32) -> Result<(), Failed> {
        if self.maintenance.crowded {
            return Ok(());
        }
        let chosen = {
            let core = self.shared.lock();
            let (total, live) = core.sizes();
            let spare_room = 2 * self.maintenance.interval;
            if total <= live.saturating_mul(2).saturating_add(spare_room) {
                return Ok(());
            }
            core.segments
                .range(..before)
                .map(|(number, segment)| (core.index.live_bytes(*number), *number, segment))
                .filter(|(live, number, segment)| {
                    *live > 0
                        && live.saturating_mul(2) < segment.length.into()
                        && !self.maintenance.copied.contains(number)
                })
                .min_by_key(|(live, number, _)| (*live, *number))
                .map(|(_, number, segment)| (number, segment.length, Arc::clone(&segment.file)))
        };
        let Some((segment, length, file)) = chosen else {
            return Ok(());
        };
        self.maintenance.copied.insert(segment);
        match read(&*file, length) {
            Ok(bytes) => {
                self.maintenance.copying = Some(Copying {
                    segment,
                    bytes,
                    offset: START as usize,
                });
            }
            // Nothing is lost by leaving it.
            Err(error) => {
                tracing::error!(%error, "a segment of the mail log cannot be read; check the disk")
            }
        }
        Ok(())
    }

    /// Copies the next pieces of the chosen segment.
    fn copy(&mut self) -> Result<(), Failed> {
        let Some(mut copying) = self.maintenance.copying.take() else {
            return Ok(());
        };
        let progress = {
            let mut core = self.shared.lock();
            copying.step(&self.header.log.seed, &mut core)
        };
        self.commit()?;
        match progress {
            Progress::More => self.maintenance.copying = Some(copying),
            Progress::Done => self.maintenance.clean = true,
            Progress::Crowded => self.maintenance.crowded = true,
        }
        Ok(())
    }
}

fn read(file: &dyn LogFile, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes)?;
    Ok(bytes)
}

/// How far copying is.
enum Progress {
    More,
    Done,
    /// There is no room.
    Crowded,
}

impl Copying {
    /// Queues copies of what is needed.
    fn step(&mut self, seed: &[u8; 16], core: &mut Core) -> Progress {
        let mut copied = 0;
        while copied < COPIED_AT_ONCE {
            let place = Place {
                segment: self.segment,
                // A segment is shorter than 4 GiB.
                offset: u32::try_from(self.offset).unwrap_or(u32::MAX),
            };
            let rest = self.bytes.get(self.offset..).unwrap_or_default();
            let Some(decoded) = record::decode(seed, place, rest) else {
                // Damage costs only itself; what is damaged stays where it is.
                match record::find(seed, self.segment, &self.bytes, self.offset + 1) {
                    Some(next) => self.offset = next,
                    None => return Progress::Done,
                }
                continue;
            };
            if let Record::Mail(mail) | Record::Moved(mail) = decoded.record
                && decoded.intact
                && core
                    .index
                    .find(mail.device)
                    .and_then(|device| core.index.entry(device, mail.position))
                    .is_some_and(|entry| entry.place == place)
            {
                match core.place(decoded.length) {
                    Ok(to) => core.push(Queued::Moved(Box::new(Moved {
                        place: to,
                        from: place,
                        record: rest.get(..decoded.length).unwrap_or_default().to_vec(),
                    }))),
                    Err(NoRoom::Busy) => return Progress::More,
                    Err(NoRoom::DiskFull | NoRoom::Unavailable) => return Progress::Crowded,
                }
                copied += decoded.length;
            }
            self.offset += decoded.length;
        }
        Progress::More
    }
}
