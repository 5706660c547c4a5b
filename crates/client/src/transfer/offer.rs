//! What a message says about a file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sealwire_e2e::file::{self, FILE_MEDIA_TYPE, FileKey};
use zeroize::Zeroizing;

use super::chunks::{BlobId, MAX_FILE_BYTES};
use super::error::FileError;
use super::name::plain;
use crate::error::Error;
use crate::message::Message;

/// The media type of a file of which nothing is said.
const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";

/// How a file is to be sent.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FileOptions {
    /// What the recipient is told it is called, instead of its own name. Only a plain name is told, never a path.
    pub name: Option<String>,
    /// Its media type.
    pub media_type: String,
}

impl Default for FileOptions {
    /// Its own name, and `application/octet-stream`.
    fn default() -> Self {
        Self {
            name: None,
            media_type: UNKNOWN_MEDIA_TYPE.to_owned(),
        }
    }
}

impl FileOptions {
    pub(super) fn name_for(&self, path: &Path) -> String {
        let own = || path.file_name().unwrap_or_default().to_string_lossy();
        plain(&self.name.as_deref().map_or_else(own, Into::into))
    }
}

/// A file that somebody sent: what it is, and what it takes to fetch it ([`Client::receive_file`](crate::Client::receive_file)).
///
/// `Debug` shows the size only: whoever has the rest has the file.
#[derive(Clone, PartialEq, Eq)]
pub struct FileOffer {
    inner: Arc<Inner>,
}

#[derive(PartialEq, Eq)]
struct Inner {
    blob: BlobId,
    key: Zeroizing<[u8; 32]>,
    size: u64,
    sha256: [u8; 32],
    name: String,
    media_type: String,
}

impl FileOffer {
    /// The file that a message names; `None` if it names none, or none that can be.
    pub fn in_message(message: &Message) -> Option<Self> {
        if message.media_type() != FILE_MEDIA_TYPE {
            return None;
        }
        let offer = file::FileOffer::decode(message.body()).ok()?;
        (offer.size <= MAX_FILE_BYTES).then(|| Self {
            inner: Arc::new(Inner {
                blob: offer.blob,
                key: Zeroizing::new(*offer.key.expose_for_store()),
                size: offer.size,
                sha256: offer.sha256,
                name: plain(offer.name),
                media_type: offer.media_type.to_owned(),
            }),
        })
    }

    /// A plain name to save it under: one component of 1 to 200 bytes, without anything that is hidden, invisible or special to a system. It is what the
    /// sender calls it, so it may be anything else: a name that exists, or with an ending that promises what the file is not.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its media type, as the sender says.
    pub fn media_type(&self) -> &str {
        &self.inner.media_type
    }

    /// Bytes of it. No more are ever written.
    pub fn size(&self) -> u64 {
        self.inner.size
    }

    pub(super) fn blob(&self) -> &BlobId {
        &self.inner.blob
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        &self.inner.key
    }

    pub(super) fn sha256(&self) -> &[u8; 32] {
        &self.inner.sha256
    }

    /// Whether a file can be said to have this name and media type.
    pub(super) fn check(name: &str, media_type: &str) -> Result<(), FileError> {
        let offer = file::FileOffer {
            blob: [0; 32],
            key: FileKey::from_bytes(&[0; 32]),
            size: 0,
            sha256: [0; 32],
            name,
            media_type,
        };
        offer.encode().map(drop).map_err(|_| FileError::Name)
    }

    /// The message that names a file.
    pub(super) fn message(
        uploaded: &super::upload::Uploaded,
        name: &str,
        media_type: &str,
    ) -> Result<Message, Error> {
        let offer = file::FileOffer {
            blob: uploaded.blob,
            key: FileKey::from_bytes(uploaded.key.expose_for_store()),
            size: uploaded.size,
            sha256: uploaded.sha256,
            name,
            media_type,
        };
        let body = offer.encode().map_err(|_| FileError::Name)?;
        Ok(Message::new(FILE_MEDIA_TYPE, body))
    }
}

impl fmt::Debug for FileOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileOffer")
            .field("size", &self.inner.size)
            .finish_non_exhaustive()
    }
}
