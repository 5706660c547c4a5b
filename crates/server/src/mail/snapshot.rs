//! The log as it is at one moment, to be copied while it goes on; and how such a copy begins a new history.
//!
//! ```text
//!  checkpoints │ segments, each up to where it is written │ the last one up to what is synced │ "synced", which says so
//! ```
//! What is copied is what a crash at that moment would have left, had nothing been half written: recovery makes of it what the log had accepted then. The
//! writer collects it between two of its steps, so that nothing is removed meanwhile; files that are open stay readable when their names go.
use std::io;
use std::sync::Arc;

use rand::TryRng as _;
use tokio::sync::oneshot;

use super::disk::{Disk, LogFile};
use super::recovery::{self, MailOpenError, Opened};
use super::segment::{self, Header};
use super::writer::{Failed, Writer};
use super::{MailOptions, synced};

/// The log at one moment.
#[derive(Debug)]
pub(crate) struct MailSnapshot {
    pub(crate) files: Vec<MailFile>,
}

/// A file of it.
#[derive(Debug)]
pub(crate) struct MailFile {
    pub(crate) name: String,
    /// Bytes that belong to it.
    pub(crate) bytes: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    File(Arc<dyn LogFile>),
    Bytes(Vec<u8>),
}

/// Where somebody waits for a snapshot.
pub(super) type Asked = oneshot::Sender<io::Result<MailSnapshot>>;

impl MailFile {
    /// Fills `bytes` from `offset` on.
    ///
    /// # Errors
    /// Those of the disk.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match &self.content {
            Content::File(file) => file.read_at(offset, bytes),
            Content::Bytes(content) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let there = content
                    .get(from..)
                    .and_then(|there| there.get(..bytes.len()));
                bytes.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

impl Writer {
    /// Gives a snapshot to whoever asked. Everything that was taken from the queue is synced.
    pub(super) fn answer_snapshots(&self) {
        let asked = std::mem::take(&mut self.shared.lock().snapshots);
        for asked in asked {
            // It may not be waited for any more.
            let _ = asked.send(self.snapshot());
        }
    }

    fn snapshot(&self) -> io::Result<MailSnapshot> {
        let mut files = Vec::new();
        for name in self.maintenance.checkpoint_names() {
            let file = self.disk.open(&name)?;
            files.push(MailFile {
                name,
                bytes: file.length()?,
                content: Content::File(file),
            });
        }
        let core = self.shared.lock();
        let durable = core.durable();
        for (number, segment) in core.segments.range(..=durable.segment) {
            let bytes = if *number == durable.segment {
                durable.offset
            } else {
                segment.length
            };
            files.push(MailFile {
                name: segment.name.clone(),
                bytes: bytes.into(),
                content: Content::File(Arc::clone(&segment.file)),
            });
        }
        let synced = synced::encode(&self.header.log, durable);
        files.push(MailFile {
            name: synced::NAME.to_owned(),
            bytes: synced.len() as u64,
            content: Content::Bytes(synced),
        });
        Ok(MailSnapshot { files })
    }

    /// Has the log begin a new history, and closes it. After an error it has to be begun again from the copy.
    fn begin_history(&mut self, epoch: [u8; 16]) -> Result<(), Failed> {
        let segments = {
            let mut core = self.shared.lock();
            core.index.forget_acknowledged();
            core.segments.clone()
        };
        self.header.log.epoch = epoch;
        for (number, found) in segments {
            let start = segment::parse_name(&found.name).map_or(0, |(_, start)| start);
            let header = Header {
                segment: number,
                start,
                ..self.header
            };
            found
                .file
                .write_at(0, &segment::encode_header(&header))
                .and_then(|()| found.file.sync())
                .map_err(|error| super::writer::failed(&error))?;
        }
        self.close();
        // With the one of closing as many as are kept: those of the older history go.
        let end = self.after_the_end();
        self.last_checkpoint(end)
    }
}

/// Gives the log on `disk`, which is a copy, a new history: what waits is the same, and so is what was sent, but nothing counts as acknowledged
/// (docs/protocol.md §5.2). Devices that know the one before hear that messages may be missing.
///
/// # Errors
/// [`MailOpenError`].
pub(crate) fn begin_history(disk: Arc<dyn Disk>) -> Result<Opened, MailOpenError> {
    let (_, mut writer, opened) = recovery::open(disk, &MailOptions::default())?;
    let mut epoch = [0; 16];
    rand::rngs::SysRng
        .try_fill_bytes(&mut epoch)
        .map_err(|_| MailOpenError::Randomness)?;
    let failed = |Failed| io::Error::other("it cannot be written");
    writer.begin_history(epoch).map_err(failed)?;
    Ok(opened)
}
