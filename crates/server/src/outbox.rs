//! Frames on their way to the device, gathered into records (docs/protocol.md §4).
use sealwire_protocol::batch::Batch;
use sealwire_protocol::error::{LinkError, Misuse};
use sealwire_protocol::frame::{RelayToDevice, ToDevice};
use sealwire_protocol::link::RelayLink;

use crate::bounds::RECORD_TARGET_BYTES;
use crate::closing::End;
use crate::listener::Upgraded;
use crate::socket::Socket;

/// The record that is being filled.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    batch: Batch<RelayToDevice>,
}

impl Outbox {
    /// Adds a frame, and seals the record if it is large enough to go.
    pub(crate) fn push(
        &mut self,
        frame: &ToDevice<'_>,
        link: &mut RelayLink,
        socket: &mut Socket<Upgraded>,
    ) -> Result<(), End> {
        match self.batch.push(frame) {
            Ok(()) => {}
            Err(Misuse::BatchFull) => {
                self.seal(link, socket)?;
                self.batch.push(frame).map_err(LinkError::from)?;
            }
            Err(misuse) => return Err(LinkError::from(misuse).into()),
        }
        if self.batch.bytes() >= RECORD_TARGET_BYTES {
            self.seal(link, socket)
        } else {
            Ok(())
        }
    }

    /// Seals what is there, if anything, and queues it at the socket.
    pub(crate) fn seal(
        &mut self,
        link: &mut RelayLink,
        socket: &mut Socket<Upgraded>,
    ) -> Result<(), End> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let record = link.seal(std::mem::take(&mut self.batch))?;
        Ok(socket.queue(record)?)
    }
}
