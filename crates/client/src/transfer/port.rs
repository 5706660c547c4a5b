//! How a transfer, which runs on a thread of its own, asks the connection task, and how that keeps what is asked.
//!
//! ```text
//!  transfer thread ── Command: Ask, AnswerTo ──▶ connection task: Desk ── Upload, Download, Discard ──▶ relay
//!        ▲                                                         │
//!        └──────────── inbox: answers, in any order ◀──────────────┴──────── Blob, Accepted, Refused ◀── relay
//! ```
//! What is asked while there is no link waits for one. What was asked of a link that is lost fails with [`NoAnswer::LinkLost`]: whoever asked finds out
//! what became of it, and asks again.
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc;
use std::time::Duration;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{Blob, ToRelay, Upload};
use zeroize::Zeroizing;

use super::chunks::BlobId;

/// Requests of transfers that the relay may have unanswered, all transfers of a device together. One carries one chunk at most, so this is also
/// how much of files is under way.
pub(crate) const MAX_OPEN: usize = 8;

/// What a transfer asks of the relay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Append; or, without data, say how much is there.
    Upload {
        blob: BlobId,
        size: u64,
        offset: u64,
        data: Vec<u8>,
    },
    Download {
        blob: BlobId,
        offset: u64,
        length: u32,
    },
    Discard {
        blob: BlobId,
    },
}

/// What the relay has answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// How much of the blob is there.
    Blob {
        length: u64,
        size: u64,
        complete: bool,
        data: Vec<u8>,
    },
    /// It is done.
    Accepted,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// The relay refuses.
    Refused(RefusalCode),
    /// The link was lost first. Whether the relay has done what was asked is not known.
    LinkLost,
    /// The client is closed.
    Closed,
}

/// What a transfer keeps in the device store, by number.
pub(crate) type Stored = Vec<(u64, Zeroizing<Vec<u8>>)>;

/// What a transfer does with its records.
pub(crate) enum Keep {
    /// Gives all that there are.
    All,
    Put(u64, Zeroizing<Vec<u8>>),
    Remove(u64),
}

/// A transfer's wish, for the connection task.
pub(crate) enum Wish {
    Ask(Ask),
    Keep(Keep),
}

/// What a transfer's thread finds in its inbox.
pub(crate) enum Letter {
    Told(u64, Result<Told, NoAnswer>),
    /// Records; nothing where they were only to be changed, or the client is closed.
    Kept(Option<Stored>),
    /// Whoever wanted the transfer has dropped it.
    Cancel,
}

/// Where the answer goes. Dropping it says that the client is closed.
pub(crate) struct AnswerTo {
    number: u64,
    kept: bool,
    inbox: Option<mpsc::Sender<Letter>>,
}

impl AnswerTo {
    /// For an [`Ask`] with this number.
    pub(crate) fn ask(number: u64, inbox: mpsc::Sender<Letter>) -> Self {
        Self {
            number,
            kept: false,
            inbox: Some(inbox),
        }
    }

    /// For nobody.
    pub(crate) fn nobody() -> Self {
        Self {
            number: 0,
            kept: true,
            inbox: None,
        }
    }

    /// For a [`Keep`].
    pub(crate) fn keep(inbox: mpsc::Sender<Letter>) -> Self {
        Self {
            number: 0,
            kept: true,
            inbox: Some(inbox),
        }
    }

    pub(crate) fn tell(mut self, answer: Result<Told, NoAnswer>) {
        self.put(Letter::Told(self.number, answer));
    }

    pub(crate) fn kept(mut self, records: Stored) {
        self.put(Letter::Kept(Some(records)));
    }

    fn put(&mut self, letter: Letter) {
        if let Some(inbox) = self.inbox.take() {
            // A transfer that is gone does not want to know.
            let _ = inbox.send(letter);
        }
    }
}

impl Drop for AnswerTo {
    fn drop(&mut self) {
        if self.kept {
            self.put(Letter::Kept(None));
        } else {
            self.put(Letter::Told(self.number, Err(NoAnswer::Closed)));
        }
    }
}

/// The connection task's side: what transfers have asked, and what of it the relay has not answered.
#[derive(Default)]
pub(crate) struct Desk {
    waiting: VecDeque<(Ask, AnswerTo)>,
    open: BTreeMap<u32, AnswerTo>,
}

impl Desk {
    /// Takes what a transfer asks. A transfer asks no more than [`MAX_OPEN`] things at a time.
    pub(crate) fn ask(&mut self, ask: Ask, answer: AnswerTo) {
        self.waiting.push_back((ask, answer));
    }

    /// Whether there is something to send, and the relay may get it.
    pub(crate) fn has_next(&self) -> bool {
        self.open.len() < MAX_OPEN && !self.waiting.is_empty()
    }

    /// The next thing to send, under the request id that was reserved for it.
    pub(crate) fn next(&mut self, request: u32) -> Option<Ask> {
        let (ask, answer) = self.waiting.pop_front()?;
        self.open.insert(request, answer);
        Some(ask)
    }

    /// The relay has said how much of a blob there is; false if that was not asked.
    pub(crate) fn blob(&mut self, blob: &Blob<'_>) -> bool {
        self.answer(
            blob.request,
            Ok(Told::Blob {
                length: blob.length,
                size: blob.size,
                complete: blob.complete,
                data: blob.data.to_vec(),
            }),
        )
    }

    /// The relay has accepted a request; false if it is not a transfer's.
    pub(crate) fn accepted(&mut self, request: u32) -> bool {
        self.answer(request, Ok(Told::Accepted))
    }

    /// The relay has refused a request; false if it is not a transfer's.
    pub(crate) fn refused(&mut self, request: u32, code: RefusalCode) -> bool {
        self.answer(request, Err(NoAnswer::Refused(code)))
    }

    /// The link is gone, and with it every answer. What waits is for the next link only if nothing of it was under way: else its transfer has to look
    /// first what became of that.
    pub(crate) fn link_lost(&mut self) {
        if self.open.is_empty() {
            return;
        }
        for (_, answer) in std::mem::take(&mut self.open) {
            answer.tell(Err(NoAnswer::LinkLost));
        }
        for (_, answer) in self.waiting.drain(..) {
            answer.tell(Err(NoAnswer::LinkLost));
        }
    }

    fn answer(&mut self, request: u32, answer: Result<Told, NoAnswer>) -> bool {
        match self.open.remove(&request) {
            Some(to) => {
                to.tell(answer);
                true
            }
            None => false,
        }
    }
}

impl Ask {
    /// Lends it as a frame.
    pub(crate) fn frame(&self, request: u32) -> ToRelay<'_> {
        match self {
            Self::Upload {
                blob,
                size,
                offset,
                data,
            } => ToRelay::Upload(Upload {
                request,
                blob: *blob,
                size: *size,
                offset: *offset,
                data,
            }),
            Self::Download {
                blob,
                offset,
                length,
            } => ToRelay::Download {
                request,
                blob: *blob,
                offset: *offset,
                length: *length,
            },
            Self::Discard { blob } => ToRelay::Discard {
                request,
                blob: *blob,
            },
        }
    }
}

/// Why a transfer ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// Nobody wants it any more.
    Cancelled,
    /// The client is closed.
    Closed,
}

/// What a transfer does its work through.
pub(crate) trait Port {
    /// Asks the relay; the answer comes from [`Port::wait`] with this number.
    fn ask(&mut self, number: u64, ask: Ask) -> Result<(), Stopped>;

    /// Waits for the next answer.
    fn wait(&mut self) -> Result<(u64, Result<Told, NoAnswer>), Stopped>;

    /// Does nothing for a while. Not while something is asked.
    fn rest(&mut self, time: Duration) -> Result<(), Stopped>;

    /// Asks for one thing and waits for it. Not while something else is asked.
    fn ask_one(&mut self, ask: Ask) -> Result<Result<Told, NoAnswer>, Stopped> {
        self.ask(0, ask)?;
        Ok(self.wait()?.1)
    }

    /// All records of transfers.
    fn records(&mut self) -> Result<Stored, Stopped>;

    /// Stores a record durably.
    fn put_record(&mut self, number: u64, record: Zeroizing<Vec<u8>>) -> Result<(), Stopped>;

    /// Removes a record.
    fn remove_record(&mut self, number: u64) -> Result<(), Stopped>;
}
