//! What an application holds of a transfer, and the thread that does it.

use std::path::{Path, PathBuf};
use std::sync::mpsc as inbox;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sealwire_e2e::file::FileKey;
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use super::download::{Wanted, download};
use super::error::{End, FileError};
use super::offer::{FileOffer, FileOptions};
use super::port::{AnswerTo, Ask, Keep, Letter, NoAnswer, Port, Stopped, Stored, Told, Wish};
use super::record::UploadRecord;
use super::upload::{self, Source, Uploaded, upload};
use crate::client::{Client, Command, Receipt};
use crate::connection::Closed;
use crate::error::Error;
use crate::message::MessageId;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes of the file that are where they belong.
    pub done: u64,
    /// Bytes of the file.
    pub total: u64,
}

/// A file on its way to a user. Dropping it stops the transfer; what is at the relay stays there for a week, and the same call goes on from it.
///
/// The work is done on a thread of its own: in memory are at most 64 chunks that were read and 8 that are on their way, some 5 MiB.
#[derive(Debug)]
#[must_use = "a file is sent once `finish` has returned"]
pub struct FileSend {
    client: Client,
    user: String,
    name: String,
    media_type: String,
    transfer: Transfer<(u64, Uploaded)>,
}

/// A file on its way here. Dropping it stops the transfer; what has come stays beside the file's place, and the same call goes on from it.
///
/// The work is done on a thread of its own: in memory are at most 8 chunks, some 512 KiB.
#[derive(Debug)]
#[must_use = "a file is there once `finish` has returned"]
pub struct FileReceive {
    path: PathBuf,
    transfer: Transfer<()>,
}

impl FileSend {
    pub(crate) fn start(client: &Client, user: &str, path: &Path, options: FileOptions) -> Self {
        let name = options.name_for(path);
        let media_type = options.media_type;
        let check = FileOffer::check(&name, &media_type);
        let (owned_user, owned_path) = (user.to_owned(), path.to_owned());
        let transfer = Transfer::start(client.commands(), move |port, progress| {
            // Later would be too late to say so.
            check?;
            // The same file is known again by its place, wherever the application runs.
            let path = owned_path.canonicalize().map_err(FileError::Read)?;
            let source = Source {
                file: upload::open(&path)?,
                name: UploadRecord::name(&owned_user, &path),
                now: now(),
            };
            upload(source, port, &mut rand::rng(), &mut |done, total| {
                progress.send_replace(Progress { done, total });
            })
        });
        Self {
            client: client.clone(),
            user: user.to_owned(),
            name,
            media_type,
            transfer,
        }
    }

    /// Waits until the transfer is further, and says how far; `None` once it has ended. Steps that nobody waited for are left out.
    pub async fn progress(&mut self) -> Option<Progress> {
        self.transfer.progress().await
    }

    /// Waits until the file is at the relay, and sends the message that names it.
    ///
    /// # Errors
    /// [`Error::File`] if the file cannot be sent; else as [`Client::send`]. What may pass is waited out while it is the connection's; calling
    /// [`Client::send_file`] again goes on from where this one ended.
    pub async fn finish(self) -> Result<Receipt, Error> {
        let (number, uploaded) = self.transfer.finish().await?;
        let message = FileOffer::message(&uploaded, &self.name, &self.media_type)?
            .with_id(MessageId::from_bytes(uploaded.message));
        let receipt = self.client.send(&self.user, message).await?;
        // Whoever is killed before this is done sends the same message again, which is shown once.
        let wish = Wish::Keep(Keep::Remove(number));
        let answer = AnswerTo::nobody();
        // A client that is closed meanwhile forgets it the next time.
        let _ = self
            .client
            .commands()
            .send(Command::Transfer { wish, answer })
            .await;
        Ok(receipt)
    }
}

impl FileReceive {
    pub(crate) fn start(client: &Client, offer: &FileOffer, path: &Path) -> Self {
        let wanted = Wanted {
            blob: *offer.blob(),
            key: FileKey::from_bytes(offer.key()),
            size: offer.size(),
            sha256: *offer.sha256(),
        };
        let (total, place) = (offer.size(), path.to_owned());
        let transfer = Transfer::start(client.commands(), move |port, progress| {
            download(wanted, &place, port, &mut rand::rng(), &mut |done| {
                progress.send_replace(Progress { done, total });
            })
        });
        Self {
            path: path.to_owned(),
            transfer,
        }
    }

    /// Waits until the transfer is further, and says how far; `None` once it has ended. Steps that nobody waited for are left out.
    pub async fn progress(&mut self) -> Option<Progress> {
        self.transfer.progress().await
    }

    /// Waits until the file is in its place, whole, checked and durable; says where that is.
    ///
    /// # Errors
    /// [`Error::File`] or [`Error::Refused`] if it cannot be received; [`Error::Closed`] if the client is closed.
    pub async fn finish(self) -> Result<PathBuf, Error> {
        self.transfer.finish().await?;
        Ok(self.path)
    }
}

/// A thread that transfers.
struct Transfer<T> {
    progress: watch::Receiver<Progress>,
    outcome: oneshot::Receiver<Result<T, Error>>,
    /// Wakes the thread when nobody wants its outcome any more.
    cancel: Cancel,
}

/// Shows how far it is.
impl<T> std::fmt::Debug for Transfer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transfer")
            .field("progress", &*self.progress.borrow())
            .finish_non_exhaustive()
    }
}

struct Cancel(inbox::Sender<Letter>);

impl Drop for Cancel {
    fn drop(&mut self) {
        // A thread that has ended needs no word.
        let _ = self.0.send(Letter::Cancel);
    }
}

impl<T: Send + 'static> Transfer<T> {
    fn start(
        commands: mpsc::Sender<Command>,
        work: impl FnOnce(&mut ClientPort, &watch::Sender<Progress>) -> Result<T, End> + Send + 'static,
    ) -> Self {
        let (letters, letterbox) = inbox::channel();
        let (progressed, progress) = watch::channel(Progress { done: 0, total: 0 });
        let (ended, outcome) = oneshot::channel();
        let mut port = ClientPort {
            commands,
            letters: letters.clone(),
            letterbox,
        };
        let thread = std::thread::Builder::new()
            .name("sealwire-file".to_owned())
            .spawn(move || {
                let outcome = work(&mut port, &progressed).map_err(Error::from);
                drop(progressed);
                // Nobody waits for the outcome of what was cancelled.
                let _ = ended.send(outcome);
            });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread for a transfer");
        }
        Self {
            progress,
            outcome,
            cancel: Cancel(letters),
        }
    }

    async fn progress(&mut self) -> Option<Progress> {
        self.progress.changed().await.ok()?;
        Some(*self.progress.borrow_and_update())
    }

    async fn finish(self) -> Result<T, Error> {
        let Self {
            outcome, cancel, ..
        } = self;
        let outcome = outcome.await;
        drop(cancel);
        outcome.unwrap_or(Err(Error::Closed(Closed::ByApplication)))
    }
}

/// The way from a transfer's thread to the connection task and back.
struct ClientPort {
    commands: mpsc::Sender<Command>,
    letters: inbox::Sender<Letter>,
    letterbox: inbox::Receiver<Letter>,
}

impl ClientPort {
    fn wish(&self, wish: Wish, answer: AnswerTo) -> Result<(), Stopped> {
        self.commands
            .blocking_send(Command::Transfer { wish, answer })
            .map_err(|_| Stopped::Closed)
    }

    fn keep(&self, keep: Keep) -> Result<Stored, Stopped> {
        self.wish(Wish::Keep(keep), AnswerTo::keep(self.letters.clone()))?;
        let mut others = Vec::new();
        let kept = loop {
            match self.letter()? {
                Letter::Kept(kept) => break kept.ok_or(Stopped::Closed)?,
                Letter::Cancel => return Err(Stopped::Cancelled),
                // Answers of the relay, which are for later.
                letter @ Letter::Told(..) => others.push(letter),
            }
        };
        for letter in others {
            self.letters.send(letter).map_err(|_| Stopped::Closed)?;
        }
        Ok(kept)
    }

    fn letter(&self) -> Result<Letter, Stopped> {
        // It cannot be cut off: a sender is held here.
        self.letterbox.recv().map_err(|_| Stopped::Closed)
    }
}

impl Port for ClientPort {
    fn ask(&mut self, number: u64, ask: Ask) -> Result<(), Stopped> {
        self.wish(Wish::Ask(ask), AnswerTo::ask(number, self.letters.clone()))
    }

    fn wait(&mut self) -> Result<(u64, Result<Told, NoAnswer>), Stopped> {
        loop {
            match self.letter()? {
                Letter::Told(number, answer) => return Ok((number, answer)),
                Letter::Cancel => return Err(Stopped::Cancelled),
                Letter::Kept(_) => {}
            }
        }
    }

    fn rest(&mut self, time: Duration) -> Result<(), Stopped> {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.letterbox.recv_timeout(left) {
                Ok(Letter::Cancel) => return Err(Stopped::Cancelled),
                // Nothing is asked.
                Ok(Letter::Told(..) | Letter::Kept(_)) => {}
                Err(inbox::RecvTimeoutError::Timeout) => return Ok(()),
                Err(inbox::RecvTimeoutError::Disconnected) => return Err(Stopped::Closed),
            }
        }
    }

    fn records(&mut self) -> Result<Stored, Stopped> {
        self.keep(Keep::All)
    }

    fn put_record(&mut self, number: u64, record: Zeroizing<Vec<u8>>) -> Result<(), Stopped> {
        self.keep(Keep::Put(number, record)).map(drop)
    }

    fn remove_record(&mut self, number: u64) -> Result<(), Stopped> {
        self.keep(Keep::Remove(number)).map(drop)
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

impl Client {
    /// Sends the file at `path` to a user, of any size up to 1 TiB: sealed in chunks, which the relay keeps until it is fetched (for 30 days, if it is not
    /// configured otherwise), and named in a message. [`FileSend`] says how far it is and when that is done.
    ///
    /// The same call, for the same user and path, goes on where an earlier one ended, also after a restart; if the file has changed since, it is sent anew.
    ///
    /// # Errors
    /// As [`Client::devices`]: the user is looked up before anything is sent. What else may go wrong [`FileSend::finish`] says.
    pub async fn send_file(
        &self,
        user: &str,
        path: impl AsRef<Path>,
        options: FileOptions,
    ) -> Result<FileSend, Error> {
        self.devices(user).await?;
        Ok(FileSend::start(self, user, path.as_ref(), options))
    }

    /// Fetches a file that somebody sent ([`FileOffer::in_message`]) and puts it at `path`, which is a file's place and not a directory. Nothing that is
    /// there is overwritten; if it is the very file, nothing is fetched. Until the file is whole and checked it is beside its place, under
    /// its name with `.<8 hex digits>.part` at the end; only its owner may read it.
    ///
    /// The same call goes on where an earlier one ended, also after a restart. An application acknowledges the message when the file is in its place.
    pub fn receive_file(&self, file: &FileOffer, path: impl AsRef<Path>) -> FileReceive {
        FileReceive::start(self, file, path.as_ref())
    }
}
