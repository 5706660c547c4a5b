//! Frames on their way to the device, gathered into records (docs/protocol.md §4).
use std::collections::VecDeque;

use sealwire_protocol::batch::Batch;
use sealwire_protocol::error::{LinkError, Misuse};
use sealwire_protocol::frame::{RelayToDevice, ToDevice};
use sealwire_protocol::link::RelayLink;

use crate::bounds::RECORD_TARGET_BYTES;

/// The record that is being filled, and those that are full and sealed.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    batch: Batch<RelayToDevice>,
    sealed: VecDeque<Vec<u8>>,
    sealed_bytes: usize,
}

impl Outbox {
    /// Adds a frame, and seals the record if it is large enough to go.
    pub(super) fn push(
        &mut self,
        frame: &ToDevice<'_>,
        link: &mut RelayLink,
    ) -> Result<(), LinkError> {
        match self.batch.push(frame) {
            Ok(()) => {}
            Err(Misuse::BatchFull) => {
                self.seal(link)?;
                self.batch.push(frame)?;
            }
            Err(misuse) => return Err(misuse.into()),
        }
        if self.batch.bytes() >= RECORD_TARGET_BYTES {
            self.seal(link)?;
        }
        Ok(())
    }

    /// The next record to send, if there is anything to say.
    pub(super) fn next(&mut self, link: &mut RelayLink) -> Result<Option<Vec<u8>>, LinkError> {
        if self.sealed.is_empty() {
            self.seal(link)?;
        }
        let record = self.sealed.pop_front();
        if let Some(record) = &record {
            self.sealed_bytes = self.sealed_bytes.saturating_sub(record.len());
        }
        Ok(record)
    }

    /// Bytes that wait to be sent.
    pub(super) fn bytes(&self) -> usize {
        self.sealed_bytes.saturating_add(self.batch.bytes())
    }

    fn seal(&mut self, link: &mut RelayLink) -> Result<(), LinkError> {
        if !self.batch.is_empty() {
            let record = link.seal(std::mem::take(&mut self.batch))?;
            self.sealed_bytes = self.sealed_bytes.saturating_add(record.len());
            self.sealed.push_back(record);
        }
        Ok(())
    }
}
