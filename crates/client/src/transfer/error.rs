//! What can go wrong with a file, besides what can go wrong with any request.

use std::io;

use super::port::Stopped;
use crate::connection::Closed;
use crate::error::Error;

/// Why a file was not sent or not received. What was transferred so far is kept unless it says otherwise, and the same call goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file to be sent cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[source] io::Error),
    /// What is to be sent is a directory, a pipe or something else that is not a file.
    #[error("it is not a regular file; only those can be sent")]
    NotAFile,
    /// Larger than any file that can be sent, or than the relay takes.
    #[error("the file is too large to be sent")]
    TooLarge,
    /// The file was changed while it was being sent. What was sent of it is of no use.
    #[error("the file was changed while it was being sent; send it again")]
    Changed,
    /// Its name or media type cannot be said.
    #[error("the file's name or media type is not one; give it another")]
    Name,
    /// There is something else already where the file is to go. It is never overwritten.
    #[error("there is another file of this name already; save this one under another name")]
    Exists,
    /// Another transfer writes to this place.
    #[error("this file is being received already")]
    Busy,
    /// The received file cannot be written.
    #[error("the file cannot be written: {0}; make room, or save it elsewhere")]
    Write(#[source] io::Error),
    /// The relay does not have it: it was never there whole, was taken back by its sender, or has grown too old.
    #[error("the relay does not have this file any more; ask its sender to send it again")]
    Gone,
    /// What the relay has is not the file that the sender named: some bytes were changed. Nothing of it is kept.
    #[error(
        "the file was changed on its way; nothing of it is kept; ask its sender to send it again"
    )]
    Damaged,
}

impl FileError {
    /// Whether the same call may succeed later, or once there is room.
    pub(crate) fn is_retryable(&self) -> bool {
        match self {
            Self::Read(_) | Self::Write(_) | Self::Changed | Self::Busy => true,
            Self::NotAFile
            | Self::TooLarge
            | Self::Name
            | Self::Exists
            | Self::Gone
            | Self::Damaged => false,
        }
    }

    /// A stable name.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "file_not_readable",
            Self::NotAFile => "not_a_file",
            Self::TooLarge => "file_too_large",
            Self::Changed => "file_changed",
            Self::Name => "file_name",
            Self::Exists => "file_exists",
            Self::Busy => "file_busy",
            Self::Write(_) => "file_not_writable",
            Self::Gone => "file_gone",
            Self::Damaged => "file_damaged",
        }
    }
}

/// Why a transfer has ended without what was wanted.
#[derive(Debug)]
pub(crate) enum End {
    Stopped(Stopped),
    Failed(Error),
}

impl From<Stopped> for End {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<FileError> for End {
    fn from(error: FileError) -> Self {
        Self::Failed(Error::File(error))
    }
}

impl From<End> for Error {
    fn from(end: End) -> Self {
        match end {
            End::Failed(error) => error,
            End::Stopped(Stopped::Cancelled | Stopped::Closed) => {
                Self::Closed(Closed::ByApplication)
            }
        }
    }
}
