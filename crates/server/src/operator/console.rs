//! The other end: asks the relay that runs on a data directory, or opens the directory.
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::answers::Body;
use super::{Operator, Question, SOCKET_FILE};
use crate::blobs::Blobs;
use crate::data_dir::{DataDir, DataDirError};
use crate::mail::disk::{DirectoryDisk, DiskError};
use crate::mail::{MailOpenError, MailOptions, Mailboxes};
use crate::policy::Allowance;
use crate::revocations::{Revocations, RevocationsError};
use crate::shared::{Issuing, Settings, Shared};
use crate::storage::{OpenError, Storage, StorageOptions};

/// Bytes of a line of an answer, and of an answer that says why there is none.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Asks about a relay, whether it runs or not.
#[derive(Debug)]
pub struct Console(To);

#[derive(Debug)]
enum To {
    /// A relay that runs.
    Relay(PathBuf),
    /// The data directory of one that does not.
    Directory(Operator),
}

/// An answer, line by line.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    read: BytesMut,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// The socket belongs to somebody else.
    #[error("the relay that runs on {} answers only to its own user and to root", .path.display())]
    NotAllowed {
        /// The data directory.
        path: PathBuf,
    },
    /// No relay runs, and the directory is another user's.
    #[error(
        "no relay runs on {}, and only its owner may open it: files that somebody else makes there would keep the relay from starting",
        .path.display()
    )]
    NotOwner {
        /// The data directory.
        path: PathBuf,
    },
    /// The relay did not answer, or not to the end.
    #[error("the relay has stopped answering; look at its log")]
    Ended,
    /// The relay does not know the question.
    #[error("the relay that runs does not answer this; it is of another version: {0}")]
    Unknown(String),
    /// The relay could not answer.
    #[error("the relay cannot answer: {0}")]
    Refused(String),
    /// What came is no answer to the question.
    #[error("the relay that runs answers in another form; it is of another version")]
    Form,
    /// The data directory is not usable.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The directory of the mailboxes could not be used.
    #[error(transparent)]
    MailDirectory(#[from] DiskError),
    /// The mailboxes could not be opened.
    #[error(transparent)]
    Mail(#[from] MailOpenError),
    /// What is revoked cannot be read.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// A file or the socket could not be used.
    #[error("cannot use {}: {error}", .path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

impl Console {
    /// Finds the relay that runs on `data`, or opens the directory, for as long as this is there: no relay starts on it meanwhile.
    ///
    /// # Errors
    /// [`ConsoleError`].
    pub async fn open(data: &Path) -> Result<Self, ConsoleError> {
        let socket = data.join(SOCKET_FILE);
        let path = || data.to_owned();
        match UnixStream::connect(&socket).await {
            Ok(_) => Ok(Self(To::Relay(socket))),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(ConsoleError::NotAllowed { path: path() })
            }
            // Where its path is too long for a socket, a relay that runs is found by its locks.
            Err(_) => {
                let data = path();
                let opened = tokio::task::spawn_blocking(move || Operator::of_directory(&data));
                let opened = opened.await.map_err(|_| ConsoleError::Ended)??;
                Ok(Self(To::Directory(opened)))
            }
        }
    }

    /// Whether a relay runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.0, To::Relay(_))
    }

    /// Asks.
    ///
    /// # Errors
    /// [`ConsoleError`].
    pub async fn ask(&self, question: &Question) -> Result<Answer, ConsoleError> {
        let request = Request::get(question.path())
            .header(HOST, "relay")
            .body(Empty::new())
            .map_err(|_| ConsoleError::Form)?;
        let response = match &self.0 {
            To::Relay(socket) => send(socket, request).await?,
            To::Directory(operator) => operator.answer(request).await,
        };
        let status = response.status();
        let body = response.into_body();
        if status == StatusCode::OK {
            return Ok(Answer {
                body,
                read: BytesMut::new(),
            });
        }
        let said = Limited::new(body, MAX_LINE_BYTES).collect().await;
        let said = said.map_err(|_| ConsoleError::Ended)?.to_bytes();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(if status == StatusCode::NOT_FOUND {
            ConsoleError::Unknown(said)
        } else {
            ConsoleError::Refused(said)
        })
    }
}

async fn send(
    socket: &Path,
    request: Request<Empty<bytes::Bytes>>,
) -> Result<Response<Body>, ConsoleError> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| ConsoleError::Io {
        path: socket.to_owned(),
        error,
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| ConsoleError::Ended)?;
    // It ends with the answer.
    tokio::spawn(connection);
    let response = sender.send_request(request).await;
    let response = response.map_err(|_| ConsoleError::Ended)?;
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

impl Answer {
    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// [`ConsoleError`].
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ConsoleError> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end + 1);
                let row = serde_json::from_slice(&line).map_err(|_| ConsoleError::Form)?;
                return Ok(Some(row));
            }
            if self.read.len() > MAX_LINE_BYTES {
                return Err(ConsoleError::Form);
            }
            if !self.more().await? {
                return if self.read.is_empty() {
                    Ok(None)
                } else {
                    Err(ConsoleError::Ended)
                };
            }
        }
    }

    /// The next `bytes`.
    pub(crate) async fn take(&mut self, bytes: usize) -> Result<Vec<u8>, ConsoleError> {
        while self.read.len() < bytes {
            if !self.more().await? {
                return Err(ConsoleError::Ended);
            }
        }
        Ok(self.read.split_to(bytes).to_vec())
    }

    /// Waits for more; `false` at the end.
    async fn more(&mut self) -> Result<bool, ConsoleError> {
        let Some(frame) = self.body.frame().await else {
            return Ok(false);
        };
        let frame = frame.map_err(|_| ConsoleError::Ended)?;
        if let Ok(data) = frame.into_data() {
            self.read.extend_from_slice(&data);
        }
        Ok(true)
    }
}

impl Operator {
    /// That of a data directory on which no relay runs. Blocks.
    fn of_directory(data: &Path) -> Result<Self, ConsoleError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |error| ConsoleError::Io { path, error }
        };
        let directory = DataDir::open(data)?;
        let owner = std::fs::metadata(data).map_err(failed(data))?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(ConsoleError::NotOwner {
                path: data.to_owned(),
            });
        }
        let storage = Storage::open(data, &StorageOptions::default())?;
        let disk = DirectoryDisk::open(&directory.mail_path())?;
        let mailboxes = Mailboxes::open(Arc::new(disk), &MailOptions::default())?;
        let blobs = directory.blobs_path();
        let limits = Allowance::default().blobs;
        let blobs = Blobs::open(&blobs, limits).map_err(failed(&blobs))?;
        let revocations = Revocations::open(directory.revocations_path())?;
        let (relay, issuer) = directory.into_keys();
        let issuing = Issuing::BuiltIn(Box::new(issuer), None);
        let mut shared = Shared::new(relay, issuing, storage, mailboxes, Settings::default());
        shared.blobs = blobs;
        shared.revocations = revocations;
        Ok(Self {
            shared: Arc::new(shared),
            directory: data.to_owned(),
            started: None,
            backup: Arc::new(Semaphore::new(1)),
        })
    }
}
