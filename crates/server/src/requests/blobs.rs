//! Upload, Download and Discard (docs/protocol.md §5.1): who may and how much; the rest is for [`crate::blobs`].
use std::sync::Arc;

use bytes::Bytes;
use sealwire_protocol::frame::{RequestId, Upload};

use super::{Outcome, Reply, Requester};
use crate::blobs::{Append, BlobId, Extent};
use crate::now::Now;
use crate::refusal::{Cause, Limit};

/// What a request costs at least of the bytes that a user may transfer.
const MIN_COST_BYTES: usize = 1_024;

/// The answer to an Upload or a Download.
pub(crate) struct Piece {
    pub(crate) extent: Extent,
    pub(crate) data: Vec<u8>,
}

impl Requester {
    /// Upload. It has its place in the order of the blob's uploads once it has been polled.
    pub(crate) fn upload(&self, upload: &Upload<'_>, now: Now) -> Outcome {
        let request = upload.request;
        if let Err(cause) = self.may_send(upload.data.len(), now) {
            return Outcome::Answered(Reply::Refused(request, cause));
        }
        let append = Append {
            blob: upload.blob,
            user: self.user().clone(),
            device: self.device(),
            size: upload.size,
            offset: upload.offset,
            data: Bytes::copy_from_slice(upload.data),
        };
        let shared = Arc::clone(&self.shared);
        Outcome::pending(append.data.len(), async move {
            match shared.blobs.append(append, now.seconds()).await {
                Ok(extent) => Reply::Blob(
                    request,
                    Piece {
                        extent,
                        data: Vec::new(),
                    },
                ),
                Err(error) => Reply::Refused(request, error.into()),
            }
        })
    }

    /// Download. Whoever knows a blob's id has been told of it, end to end.
    pub(crate) fn download(
        &self,
        request: RequestId,
        blob: BlobId,
        offset: u64,
        length: u32,
        now: Now,
    ) -> Outcome {
        // At most 131,072, which fits into any usize.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if let Err(cause) = self.may_fetch(length, now) {
            return Outcome::Answered(Reply::Refused(request, cause));
        }
        let shared = Arc::clone(&self.shared);
        Outcome::pending(length, async move {
            match shared.blobs.read(&blob, offset, length).await {
                Ok((extent, data)) => Reply::Blob(request, Piece { extent, data }),
                Err(error) => Reply::Refused(request, error.into()),
            }
        })
    }

    /// Discard.
    pub(crate) fn discard(&self, request: RequestId, blob: BlobId, now: Now) -> Outcome {
        if let Err(cause) = self.may_send(0, now) {
            return Outcome::Answered(Reply::Refused(request, cause));
        }
        let (shared, device) = (Arc::clone(&self.shared), self.device());
        Outcome::pending(0, async move {
            match shared.blobs.discard(&blob, &device).await {
                Ok(()) => Reply::Accepted(request),
                Err(error) => Reply::Refused(request, error.into()),
            }
        })
    }

    fn may_send(&self, bytes: usize, now: Now) -> Result<(), Cause> {
        if !self.permissions().send {
            return Err(Cause::Scope("sealwire:send"));
        }
        self.may_transfer(bytes, now)
    }

    fn may_fetch(&self, bytes: usize, now: Now) -> Result<(), Cause> {
        if !self.permissions().receive {
            return Err(Cause::Scope("sealwire:receive"));
        }
        self.may_transfer(bytes, now)
    }

    fn may_transfer(&self, bytes: usize, now: Now) -> Result<(), Cause> {
        self.shared
            .transfer_rates
            .take_many(
                self.user(),
                bytes.max(MIN_COST_BYTES) as u64,
                self.allowance.transfer_bytes_per_minute,
                now.steady_millis,
            )
            .map_err(|_| Cause::Rate(Limit::Relay("transfer_bytes_per_minute")))
    }
}
