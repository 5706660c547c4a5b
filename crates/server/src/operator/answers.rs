//! The answers, each read in pieces of a bounded size.
use std::convert::Infallible;
use std::error::Error as StdError;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use redb::ReadableTableMetadata as _;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::question::{NoQuestion, Question};
use super::{
    BlobStats, DeviceRow, DeviceState, IssuerKind, IssuerStats, KeyStats, MailStats, MailboxRow,
    Operator, Stats, UserRow,
};
use crate::admin;
use crate::backup::source;
use crate::clock;
use crate::directory::is_current;
use crate::issuer_keys::IssuerKeys;
use crate::storage::{CARDS, DEVICES, KnownDevice, PREKEYS, StorageError, USER_DEVICES};

/// Rows that are read at a time.
const PAGE_ROWS: usize = 256;
/// Pieces of a backup that wait to be taken.
const MAX_PIECES: usize = 4;
/// JSON, one object a line.
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// What ends an answer before its end.
pub(super) type BodyError = Box<dyn StdError + Send + Sync>;
/// An answer, as it goes out.
pub(super) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A list that is read piece by piece.
trait Pages: Send + 'static {
    type Row: Serialize + Send;

    /// The next rows, which may be none; `None` at the end.
    fn next(&mut self) -> Result<Option<Vec<Self::Row>>, StorageError>;
}

impl Operator {
    /// Answers one request.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response<Body> {
        let question = match Question::parse(request.uri()) {
            Ok(question) => question,
            Err(NoQuestion::Path) => return whole(admin::answer(&request, &self.shared)),
            Err(NoQuestion::Query) => {
                return text(StatusCode::BAD_REQUEST, "only ?user=NAME may be asked\n");
            }
        };
        if request.method() != Method::GET {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is possible here\n",
            );
        }
        match question {
            Question::Stats => match self.stats().await {
                Ok(stats) => lines_of(stream::iter([line(&stats)])),
                Err(error) => {
                    tracing::warn!(%error, "the operator's question is not answered");
                    text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "a store cannot be read; see the relay's log\n",
                    )
                }
            },
            Question::Users => pages(Users {
                operator: self.clone(),
                after: None,
            }),
            Question::Devices(of) => pages(Devices {
                operator: self.clone(),
                of,
                after: None,
            }),
            Question::Mailboxes(of) => pages(MailboxesOf {
                operator: self.clone(),
                of,
                from: 0,
            }),
            Question::Backup => self.back_up(),
        }
    }

    fn back_up(&self) -> Response<Body> {
        let Ok(turn) = Arc::clone(&self.backup).try_acquire_owned() else {
            return text(StatusCode::CONFLICT, "another backup is being made\n");
        };
        let (pieces, receiver) = mpsc::channel(MAX_PIECES);
        let stream = source::Stream {
            pieces,
            runtime: Handle::current(),
        };
        let operator = self.clone();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            source::send(&operator.shared, &operator.directory, &stream);
        });
        let pieces = stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((Ok(Frame::data(piece)), receiver))
        });
        Response::new(StreamBody::new(pieces).boxed_unsync())
    }

    async fn stats(&self) -> Result<Stats, BodyError> {
        let shared = &self.shared;
        let mut users = 0;
        let mut list = Users {
            operator: self.clone(),
            after: None,
        };
        while let Some(page) = list.next_names()? {
            users += page.len() as u64;
            tokio::task::yield_now().await;
        }
        let mut mail = MailStats::default();
        loop {
            let page = shared
                .mailboxes
                .overview(usize::try_from(mail.mailboxes)?, PAGE_ROWS);
            if page.is_empty() {
                break;
            }
            mail.mailboxes += page.len() as u64;
            for mailbox in page {
                mail.waiting_mailboxes += u64::from(mailbox.waiting > 0);
                mail.messages += mailbox.messages;
                mail.bytes += mailbox.bytes;
            }
            tokio::task::yield_now().await;
        }
        let usage = shared.blobs.usage();
        Ok(Stats {
            running: self.started.is_some(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            thumbprint: shared.relay_key.thumbprint(),
            uptime_seconds: self
                .started
                .map(|at| Instant::now().duration_since(at).as_secs()),
            writable: shared.is_writable(),
            draining: shared.draining.borrow().is_some(),
            links: shared.metrics.links_open() as u64,
            users,
            devices: shared
                .storage
                .read(|read| Ok(read.open_table(USER_DEVICES)?.len()?))?,
            mail,
            blobs: BlobStats {
                blobs: usage.blobs,
                uploads: usage.uploads,
                bytes: usage.bytes,
            },
            disk_free_bytes: crate::blobs::free_on_disk(&self.directory)?,
            revocations: shared.revocations.len() as u64,
            issuers: self.issuers(),
        })
    }

    fn issuers(&self) -> Vec<IssuerStats> {
        if self.started.is_none() {
            return Vec::new();
        }
        let shared = &self.shared;
        let own = IssuerStats {
            issuer: shared.authority.issuer().to_string(),
            kind: match shared.issuer {
                Some(_) => IssuerKind::BuiltIn,
                None => IssuerKind::Outside,
            },
            keys: shared.authority.fetched().map(|keys| key_stats(keys)),
        };
        let exchanged = shared
            .exchange
            .fetched_of()
            .map(|(issuer, keys)| IssuerStats {
                issuer: issuer.to_string(),
                kind: IssuerKind::Exchange,
                keys: Some(key_stats(keys)),
            });
        [own].into_iter().chain(exchanged).collect()
    }

    fn waiting(&self, device: &Thumbprint) -> u64 {
        self.shared.mailboxes.status(device).waiting
    }
}

fn key_stats(keys: &IssuerKeys) -> KeyStats {
    let state = keys.state();
    KeyStats {
        known: state.is_known,
        age_seconds: state.age_seconds,
        failed: state.failed,
    }
}

/// Users, in the order of their names.
struct Users {
    operator: Operator,
    after: Option<String>,
}

impl Users {
    /// The next names, each with the devices that have a card and when these were attested.
    #[expect(clippy::type_complexity, reason = "said in the line above")]
    fn next_names(
        &mut self,
    ) -> Result<Option<Vec<(String, Vec<(Thumbprint, u64)>)>>, StorageError> {
        let after = self.after.as_deref();
        let page = self.operator.shared.storage.read(|read| {
            let from = match after {
                Some(user) => Bound::Excluded((user, &[0xff; 32])),
                None => Bound::Unbounded,
            };
            let table = read.open_table(USER_DEVICES)?;
            let mut page: Vec<(String, Vec<_>)> = Vec::new();
            let mut rows = 0;
            for entry in table.range::<(&str, &[u8; 32])>((from, Bound::Unbounded))? {
                let (key, attested) = entry?;
                let (user, device) = key.value();
                let device = (Thumbprint::from_bytes(*device), attested.value());
                rows += 1;
                match page.last_mut() {
                    Some((last, devices)) if last == user => devices.push(device),
                    // Whoever is begun is ended, and a user has few devices.
                    Some(_) if rows > PAGE_ROWS => break,
                    Some(_) | None => page.push((user.to_owned(), vec![device])),
                }
            }
            Ok(page)
        })?;
        let Some((last, _)) = page.last() else {
            return Ok(None);
        };
        self.after = Some(last.clone());
        Ok(Some(page))
    }
}

impl Pages for Users {
    type Row = UserRow;

    fn next(&mut self) -> Result<Option<Vec<UserRow>>, StorageError> {
        let now = clock::now().seconds();
        let Some(page) = self.next_names()? else {
            return Ok(None);
        };
        let count = |devices: &[(Thumbprint, u64)], is: &dyn Fn(&(Thumbprint, u64)) -> bool| {
            devices.iter().filter(|device| is(device)).count() as u64
        };
        let rows = page.into_iter().map(|(user, devices)| UserRow {
            user,
            devices: devices.len() as u64,
            current: count(&devices, &|(_, attested)| is_current(*attested, now)),
            links: count(&devices, &|(device, _)| {
                self.operator.shared.hub.has(device.as_bytes())
            }),
            waiting: devices
                .iter()
                .map(|(device, _)| self.operator.waiting(device))
                .sum(),
        });
        Ok(Some(rows.collect()))
    }
}

/// Devices, in the order of their thumbprints.
struct Devices {
    operator: Operator,
    of: Option<User>,
    after: Option<[u8; 32]>,
}

impl Pages for Devices {
    type Row = DeviceRow;

    fn next(&mut self) -> Result<Option<Vec<DeviceRow>>, StorageError> {
        let from = match &self.after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Unbounded,
        };
        let now = clock::now().seconds();
        let shared = &self.operator.shared;
        let (rows, last) = shared.storage.read(|read| {
            let (devices, cards) = (read.open_table(DEVICES)?, read.open_table(CARDS)?);
            let (attested, prekeys) = (read.open_table(USER_DEVICES)?, read.open_table(PREKEYS)?);
            let mut rows = Vec::new();
            let mut last = None;
            let range = devices.range::<&[u8; 32]>((from, Bound::Unbounded))?;
            for entry in range.take(PAGE_ROWS) {
                let (device, row) = entry?;
                let (device, known) = (*device.value(), KnownDevice::from(row.value()));
                last = Some(device);
                if self.of.as_ref().is_some_and(|of| of.as_str() != known.user) {
                    continue;
                }
                let id = Thumbprint::from_bytes(device);
                let attested = attested.get((known.user.as_str(), &device))?;
                let mut left = 0;
                for prekey in prekeys.range((&device, 0)..=(&device, u32::MAX))? {
                    prekey?;
                    left += 1;
                }
                rows.push(DeviceRow {
                    device: id,
                    state: match attested.map(|attested| attested.value()) {
                        _ if known.removed => DeviceState::Removed,
                        Some(attested) if is_current(attested, now) => DeviceState::Current,
                        Some(_) => DeviceState::Lapsed,
                        None => DeviceState::NoCard,
                    },
                    user: known.user,
                    linked: shared.hub.has(&device),
                    enrolled: known.enrolled,
                    card: cards.get(&device)?.map(|card| card.value().2),
                    prekeys: left,
                    waiting: shared.mailboxes.status(&id).waiting,
                });
            }
            Ok((rows, last))
        })?;
        if last.is_none() {
            return Ok(None);
        }
        self.after = last;
        Ok(Some(rows))
    }
}

/// Mailboxes, in the order in which they were begun.
struct MailboxesOf {
    operator: Operator,
    of: Option<User>,
    from: usize,
}

impl Pages for MailboxesOf {
    type Row = MailboxRow;

    fn next(&mut self) -> Result<Option<Vec<MailboxRow>>, StorageError> {
        let shared = &self.operator.shared;
        let page = shared.mailboxes.overview(self.from, PAGE_ROWS);
        if page.is_empty() {
            return Ok(None);
        }
        self.from += page.len();
        let rows = shared.storage.read(|read| {
            let devices = read.open_table(DEVICES)?;
            let mut rows = Vec::new();
            for mailbox in page {
                let row = devices.get(mailbox.device.as_bytes())?;
                let user = row.map(|row| row.value().0.to_owned());
                if let Some(of) = &self.of
                    && user.as_deref() != Some(of.as_str())
                {
                    continue;
                }
                rows.push(MailboxRow {
                    device: mailbox.device,
                    user,
                    waiting: mailbox.waiting,
                    messages: mailbox.messages,
                    bytes: mailbox.bytes,
                    expires: mailbox.expires_millis.map(|millis| millis / 1_000),
                    sent: mailbox.sent,
                });
            }
            Ok(rows)
        })?;
        Ok(Some(rows))
    }
}

/// An answer that is read while it is written.
fn pages(pages: impl Pages) -> Response<Body> {
    lines_of(stream::try_unfold(pages, |mut pages| async move {
        loop {
            // A long list is not to keep others waiting.
            tokio::task::yield_now().await;
            let Some(rows) = pages.next()? else {
                return Ok(None);
            };
            let mut lines = Vec::new();
            for row in &rows {
                lines.extend_from_slice(&line(row)?);
            }
            if !lines.is_empty() {
                return Ok(Some((Bytes::from(lines), pages)));
            }
        }
    }))
}

fn line(row: &impl Serialize) -> Result<Bytes, BodyError> {
    let mut line = serde_json::to_vec(row)?;
    line.push(b'\n');
    Ok(line.into())
}

fn lines_of(
    lines: impl stream::Stream<Item = Result<Bytes, BodyError>> + Send + 'static,
) -> Response<Body> {
    use futures_util::TryStreamExt as _;
    let lines = lines.map_ok(Frame::data).inspect_err(
        |error| tracing::warn!(%error, "the operator's question is not answered to the end"),
    );
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, LINES);
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    whole(crate::http::plain(
        status,
        "text/plain; charset=utf-8",
        text.into(),
    ))
}

fn whole(response: Response<Full<Bytes>>) -> Response<Body> {
    let none = |never: Infallible| match never {};
    response.map(|body| body.map_err(none).boxed_unsync())
}
