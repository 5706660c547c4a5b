//! The key set of an outside issuer, from a file or a URL: cached, refreshed in the background, and kept while its place is down.
//!
//! ```text
//!  file or URL ──▶ look (one at a time) ──▶ current set ──▶ SignatureVerifier
//!                   ▲      ▲    └──▶ last good set, in the data directory, for a start while the place is down
//!                   │      └── a token names a key that the set does not have; at most once in COOL_DOWN
//!                   └── refresh: after a while (Cache-Control), after a failure sooner; a file, when it has changed
//! ```
//! A set that does not parse, or has no usable key, is like none: the one before stays. Nothing that a stranger sends makes the relay ask the
//! issuer more often than once in [`COOL_DOWN`].
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use sealwire_jose::{Algorithms, KeyError, KeySet};
use sealwire_protocol::jws::{SignatureError, SignatureVerifier, Signed};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::spans;

mod fetch;

use fetch::{FetchError, MAX_BYTES, Place};

/// How often a URL is asked, unless its answers say otherwise.
pub const REFRESH: Duration = Duration::from_secs(5 * 60);
/// What its answers may say.
const REFRESH_BOUNDS: (Duration, Duration) =
    (Duration::from_secs(60), Duration::from_secs(24 * 60 * 60));
/// After a failure it is asked again this soon, then twice as late each time, at most after the usual interval.
const RETRY: Duration = Duration::from_secs(5);
/// Tokens with unknown keys cause at most one question in this time.
pub const COOL_DOWN: Duration = Duration::from_secs(30);
/// How often a file is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(2);
/// While it cannot be read: at first as often, then twice as late each time, at most after this.
const FILE_RETRY: Duration = Duration::from_secs(30);

/// Where an issuer's key set comes from.
#[derive(Debug, Clone)]
#[must_use = "a source is for a relay's builder"]
pub struct KeySource {
    place: Location,
    algorithms: Algorithms,
    refresh: Duration,
    cool_down: Duration,
}

#[derive(Debug, Clone)]
enum Location {
    File(PathBuf),
    Url(Place, Option<Arc<ClientConfig>>),
}

/// Why a source is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeySourceError {
    /// Not a URL.
    #[error("the address of the key set is not an https URL without user and password")]
    Url,
    /// `http` to something else than loopback.
    #[error(
        "the key set decides who may connect: its address has to be https, or http on loopback"
    )]
    NoTls,
    /// The certificates to trust.
    #[error(
        "there is no certificate to trust the key set's server by; install the system's roots, or name a PEM file"
    )]
    Trust,
    /// The file of the key set, or of the certificates to trust, cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        error: std::io::Error,
    },
    /// The file is no key set.
    #[error("{} is no key set for this relay: {error}", path.display())]
    Keys {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        error: KeyError,
    },
}

impl KeySource {
    /// A file with a JWK set, one JWK, or one PEM key; read again when it has changed.
    pub fn file(path: impl Into<PathBuf>, algorithms: Algorithms) -> Self {
        Self::new(Location::File(path.into()), algorithms)
    }

    /// The `https` URL of a JWK set, or an `http` one on loopback. `trust`: a PEM file with the certificates that may vouch for its server,
    /// instead of the system's roots.
    ///
    /// # Errors
    /// [`KeySourceError`].
    pub fn url(
        url: &str,
        trust: Option<&Path>,
        algorithms: Algorithms,
    ) -> Result<Self, KeySourceError> {
        let place = Place::parse(url)?;
        let tls = if place.is_tls() {
            let pem = trust.map(read).transpose()?;
            Some(fetch::tls(pem.as_deref())?)
        } else {
            None
        };
        Ok(Self::new(Location::Url(place, tls), algorithms))
    }

    fn new(place: Location, algorithms: Algorithms) -> Self {
        Self {
            place,
            algorithms,
            refresh: REFRESH,
            cool_down: COOL_DOWN,
        }
    }

    /// How often a URL is asked where its answers have no `Cache-Control: max-age`; 5 minutes by default.
    pub fn refresh(mut self, interval: Duration) -> Self {
        self.refresh = interval;
        self
    }

    /// How long after a question tokens with unknown keys cause no other; 30 seconds by default.
    pub fn cool_down(mut self, time: Duration) -> Self {
        self.cool_down = time;
        self
    }
}

/// An issuer's keys as they are now.
pub(crate) struct IssuerKeys {
    source: KeySource,
    cache: Option<PathBuf>,
    current: RwLock<Option<Arc<KeySet>>>,
    /// Also that of an earlier process.
    had_at: RwLock<Option<SystemTime>>,
    /// Held while it is looked: who waits for it finds what the other has found.
    looking: Mutex<Looking>,
    /// How often it was looked with success.
    found: watch::Sender<u64>,
    /// How often without.
    failed: AtomicU64,
}

/// What an operator wants to know of a key set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    /// Whether there is one.
    pub(crate) is_known: bool,
    /// How often it was looked for with success. A file that has not changed is not looked for.
    pub(crate) found: u64,
    /// How often without.
    pub(crate) failed: u64,
    /// How old it is.
    pub(crate) age_seconds: Option<u64>,
}

/// What looking again came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The set is as it was at its place after the question: a key that it does not have is none of the issuer's.
    Fresh,
    /// Its place does not answer, or was asked just before: nobody can say yet.
    NotNow,
}

/// What the last look came to.
struct Looking {
    at: Option<Instant>,
    /// Of the file that the current set is from.
    digest: Option<[u8; 32]>,
    failures: u32,
    next: Duration,
}

/// Why a look found nothing.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    File(#[from] KeySourceError),
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("what is there is no key set for this relay: {0}")]
    Keys(#[from] KeyError),
}

impl IssuerKeys {
    /// Nothing is known before [`IssuerKeys::start`]. `dir`: where the last good set of a URL is kept.
    pub(crate) fn new(source: KeySource, dir: Option<&Path>) -> Arc<Self> {
        let cache = match (&source.place, dir) {
            (Location::Url(place, _), Some(dir)) => Some(dir.join(place.file_name())),
            (Location::Url(..), None) | (Location::File(_), _) => None,
        };
        Arc::new(Self {
            looking: Mutex::new(Looking {
                at: None,
                digest: None,
                failures: 0,
                next: source.refresh,
            }),
            source,
            cache,
            current: RwLock::default(),
            had_at: RwLock::default(),
            found: watch::Sender::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Looks for the first time. A file has to be there; while a URL is down, the last good set serves, or no token does.
    pub(crate) async fn start(&self) -> Result<(), KeySourceError> {
        match self.look(&mut *self.looking.lock().await).await {
            Ok(()) => Ok(()),
            Err(LookError::File(error)) => Err(error),
            Err(error) => {
                let cached = self.cached();
                tracing::warn!(%error, cached = cached.is_some(), "the issuer's key set cannot be had now");
                if let Some((set, had_at)) = cached {
                    self.replace(set);
                    self.had(had_at);
                }
                Ok(())
            }
        }
    }

    /// What an earlier process had last, and when.
    fn cached(&self) -> Option<(KeySet, SystemTime)> {
        let path = self.cache.as_ref()?;
        let file = read(path).ok()?;
        let had_at = std::fs::metadata(path).and_then(|metadata| metadata.modified());
        let set = KeySet::parse(&file, self.source.algorithms).ok()?;
        Some((set, had_at.unwrap_or(SystemTime::UNIX_EPOCH)))
    }

    fn replace(&self, set: KeySet) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(set));
    }

    fn had(&self, at: SystemTime) {
        *self.had_at.write().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// How it is doing.
    pub(crate) fn state(&self) -> State {
        let had_at = *self.had_at.read().unwrap_or_else(PoisonError::into_inner);
        State {
            is_known: self.current().is_some(),
            found: *self.found.borrow(),
            failed: self.failed.load(Ordering::Relaxed),
            age_seconds: had_at.map(|at| at.elapsed().unwrap_or_default().as_secs()),
        }
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Looks again because a token names a key that is not known, unless that was done just now.
    pub(crate) async fn look_again(&self) -> Look {
        let before = *self.found.borrow();
        let mut looking = self.looking.lock().await;
        if *self.found.borrow() != before {
            return Look::Fresh;
        }
        let cool_down = match self.source.place {
            Location::Url(..) => self.source.cool_down,
            // Whether it has changed is asked of nobody else.
            Location::File(_) if looking.failures == 0 => Duration::ZERO,
            Location::File(_) => FILE_INTERVAL,
        };
        if looking.at.is_some_and(|at| at.elapsed() < cool_down) {
            return Look::NotNow;
        }
        self.look_and_tell(&mut looking).await
    }

    /// Keeps the set fresh until the relay stops.
    pub(crate) async fn keep_fresh(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let for_ever = async {
            loop {
                let wait = self.looking.lock().await.wait(&self.source);
                tokio::time::sleep(wait).await;
                let mut looking = self.looking.lock().await;
                // Somebody else may have looked meanwhile.
                if looking.wait(&self.source).is_zero() {
                    self.look_and_tell(&mut looking).await;
                }
            }
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = for_ever => {}
        }
    }

    async fn look_and_tell(&self, looking: &mut Looking) -> Look {
        match self.look(looking).await {
            Ok(()) => Look::Fresh,
            Err(error) => {
                tracing::warn!(%error, "the issuer's key set cannot be had now; the last one stays in use");
                Look::NotNow
            }
        }
    }

    async fn look(&self, looking: &mut Looking) -> Result<(), LookError> {
        let span = spans::key_set();
        let result = self.look_now(looking).instrument(span.clone()).await;
        spans::outcome(&span, result.as_ref().err().map(|_| "unavailable"));
        result
    }

    async fn look_now(&self, looking: &mut Looking) -> Result<(), LookError> {
        looking.at = Some(Instant::now());
        let found = match &self.source.place {
            Location::File(path) => read(path).map_err(LookError::from).and_then(|file| {
                let digest = Sha256::digest(&file).into();
                if looking.digest == Some(digest) {
                    return Ok(None);
                }
                let set = KeySet::parse(&file, self.source.algorithms);
                let set = set.map_err(|error| KeySourceError::Keys {
                    path: path.clone(),
                    error,
                })?;
                looking.digest = Some(digest);
                Ok(Some(set))
            }),
            Location::Url(place, tls) => {
                let fetched = self.fetch(place, tls.as_ref(), looking).await;
                fetched.map(Some)
            }
        };
        match found {
            Ok(set) => {
                looking.failures = 0;
                self.had(SystemTime::now());
                if let Some(set) = set {
                    self.replace(set);
                    self.found.send_modify(|found| *found += 1);
                }
                Ok(())
            }
            Err(error) => {
                looking.failures = looking.failures.saturating_add(1);
                self.failed.fetch_add(1, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    async fn fetch(
        &self,
        place: &Place,
        tls: Option<&Arc<ClientConfig>>,
        looking: &mut Looking,
    ) -> Result<KeySet, LookError> {
        let fetched = fetch::get(place, tls).await?;
        let set = KeySet::parse(&fetched.body, self.source.algorithms)?;
        let (least, most) = REFRESH_BOUNDS;
        looking.next = fetched
            .max_age
            .map_or(self.source.refresh, |age| age.clamp(least, most));
        if let Some(cache) = &self.cache
            && let Err(error) = write(cache, &fetched.body)
        {
            tracing::warn!(%error, path = %cache.display(), "the key set is not kept for a start while its place is down");
        }
        Ok(set)
    }
}

impl Looking {
    /// How long until it is looked again.
    fn wait(&self, source: &KeySource) -> Duration {
        let (usual, first, last) = match source.place {
            Location::File(_) => (FILE_INTERVAL, FILE_INTERVAL, FILE_RETRY),
            Location::Url(..) => (self.next, RETRY, source.refresh),
        };
        let interval = match self.failures {
            0 => usual,
            failures => {
                let doubled = 1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
                first.saturating_mul(doubled).min(last)
            }
        };
        self.at
            .map_or(Duration::ZERO, |at| interval.saturating_sub(at.elapsed()))
    }
}

impl SignatureVerifier for IssuerKeys {
    fn verify(&self, signed: Signed<'_>) -> Result<(), SignatureError> {
        match self.current() {
            Some(set) => set.verify(signed),
            None => Err(SignatureError::UnknownKey),
        }
    }
}

impl fmt::Debug for IssuerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKeys")
            .field("source", &self.source)
            .field("current", &self.current())
            .finish_non_exhaustive()
    }
}

/// A file of at most 64 KiB.
fn read(path: &Path) -> Result<Vec<u8>, KeySourceError> {
    use std::io::Read as _;
    let failed = |error| KeySourceError::File {
        path: path.to_owned(),
        error,
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    if read.map_err(failed)? > MAX_BYTES {
        return Err(failed(std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Replaces a file as a whole.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests;
