//! Opens a log.
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use rand::TryRng as _;

use super::core::{Core, Shared};
use super::disk::Disk;
use super::index::Index;
use super::segment::{Header, LogId};
use super::writer::{self, Writer};
use super::{FORMAT_VERSION, MailOptions};

/// What was found when a log was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// Places where the disk has changed the log. They are not served.
    pub damaged: u64,
    /// Bytes at the end of the log that a crash left half written, and that were cut off. Nothing in them had been accepted.
    pub torn_bytes: u64,
}

/// Why a log was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailOpenError {
    /// It was written by a newer version of this program.
    #[error(
        "the mail log has format {found}, newer than this program knows ({FORMAT_VERSION}); use the newer program"
    )]
    Newer {
        /// The format it has.
        found: u32,
    },
    /// The disk failed.
    #[error("the mail log cannot be opened: {0}; check the disk")]
    Disk(#[source] io::Error),
    /// The operating system gave no randomness.
    #[error("the operating system gives no randomness; try again later")]
    Randomness,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    options: &MailOptions,
) -> Result<(Arc<Shared>, Writer, Opened), MailOpenError> {
    let log = new_log(options)?;
    let start = 1;
    let mut index = Index::default();
    index.begin(start);
    let header = Header {
        format: FORMAT_VERSION,
        log,
        segment: 1,
        start,
    };
    let (tail, segment) = writer::create_segment(&*disk, &header, options.segment_bytes)
        .map_err(MailOpenError::Disk)?;
    let file = Arc::clone(&segment.file);
    let core = Core::new(index, BTreeMap::from([(1, segment)]), tail, options);
    let shared = Arc::new(Shared::new(log, core));
    let writer = Writer::new(
        Arc::clone(&shared),
        disk,
        log,
        start,
        (1, file),
        options.segment_bytes,
    );
    Ok((shared, writer, Opened::default()))
}

fn new_log(options: &MailOptions) -> Result<LogId, MailOpenError> {
    let mut identity = [0; 32];
    match options.identity {
        Some(given) => identity = given,
        None => rand::rngs::SysRng
            .try_fill_bytes(&mut identity)
            .map_err(|_| MailOpenError::Randomness)?,
    }
    let (epoch, seed) = identity.split_at(16);
    let mut log = LogId {
        epoch: [0; 16],
        seed: [0; 16],
    };
    log.epoch.copy_from_slice(epoch);
    log.seed.copy_from_slice(seed);
    Ok(log)
}
