//! Reads what a mailbox has to deliver: from memory, or from the disk, which may have lost or changed it.
use std::sync::Arc;

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;

use super::core::{Core, Shared};
use super::disk::LogFile;
use super::index::{Entry, What};
use super::record::{self, Place, Record};
use super::segment::{self, START};
use super::unreadable::{self, Before};
use super::{Batch, Delivery, Mail, Undelivered, UndeliveredReason};
use crate::storage::StorageError;

/// Something to deliver, of which the disk may have to be asked.
enum Found {
    Ready(Delivery),
    OnDisk(OnDisk),
}

struct OnDisk {
    file: Option<Arc<dyn LogFile>>,
    place: Place,
    length: u32,
    position: u64,
    from_user: Arc<User>,
    before: Before,
}

impl OnDisk {
    fn damaged(&self) -> Delivery {
        Delivery::Damaged {
            position: self.position,
        }
    }
}

/// Whether the disk gives the beginning of a segment, and it is one.
fn has_header(file: &dyn LogFile) -> bool {
    let mut beginning = vec![0; START as usize];
    let read = file.read_from_medium(0, &mut beginning);
    read.is_ok() && segment::decode_header(&beginning).header.is_some()
}

impl Shared {
    pub(super) fn read(
        &self,
        device: &Thumbprint,
        after: u64,
        max_messages: usize,
        max_bytes: usize,
        now_millis: u64,
    ) -> Result<Batch, StorageError> {
        let mut batch = Batch {
            deliveries: Vec::new(),
            last: after,
        };
        let (mut damaged, mut lost) = (0_usize, 0_usize);
        let mut found = self
            .find(device, after, max_messages, max_bytes)
            .into_iter();
        while let Some(next) = found.next() {
            let delivery = match next {
                Found::Ready(delivery) => delivery,
                Found::OnDisk(on_disk) => match self.read_or_retry(device, &on_disk) {
                    Ok(delivery) => {
                        if on_disk.before != Before::Nothing {
                            self.lock().unreadable.forget(on_disk.place);
                        }
                        delivery
                    }
                    Err(_) if on_disk.before == Before::GivenUp => on_disk.damaged(),
                    // Whoever goes on reading meets it first.
                    Err(_) if !batch.deliveries.is_empty() => break,
                    Err(_) if self.gives_up(device, &on_disk, now_millis) => {
                        lost += 1;
                        on_disk.damaged()
                    }
                    Err(error) => {
                        self.try_rest(device, found, now_millis);
                        return Err(error);
                    }
                },
            };
            damaged += usize::from(matches!(delivery, Delivery::Damaged { .. }));
            batch.last = delivery.position();
            batch.deliveries.push(delivery);
        }
        if lost > 0 {
            tracing::error!(
                records = lost,
                "mail could not be read again and again, while the rest of the disk works, and is taken for lost; check the disk"
            );
        }
        if damaged > 0 {
            tracing::error!(
                records = damaged,
                "mail on the disk is damaged and was not delivered; check the disk"
            );
        }
        Ok(batch)
    }

    /// Mail could not be read: whether it is taken for lost.
    fn gives_up(&self, device: &Thumbprint, on_disk: &OnDisk, now_millis: u64) -> bool {
        if !self.rest_works(on_disk.place.segment) {
            self.lock().unreadable.begin_again();
            return false;
        }
        let mut core = self.lock();
        let durable = core.durable();
        let gives_up = core.unreadable.failed(on_disk.place, now_millis, durable);
        // The next attempt is to know whether the disk takes and keeps what is written.
        if let Some(number) = core.index.find(device.as_bytes()) {
            core.index.note_unlogged(number);
        }
        self.tell_writer(core);
        gives_up
    }

    /// Whether the disk still does something: takes what is written, and gives the beginning of this segment or of the last.
    fn rest_works(&self, segment: u32) -> bool {
        let core = self.lock();
        let is_writable = core.is_writable();
        let files = [segment, core.tail().next.segment].map(|number| {
            core.segments
                .get(&number)
                .map(|segment| Arc::clone(&segment.file))
        });
        drop(core);
        is_writable && files.into_iter().flatten().any(|file| has_header(&*file))
    }

    /// Tries what lies behind mail that cannot be read, up to what can be: so it need not wait as long again when it is its turn.
    fn try_rest(&self, device: &Thumbprint, found: impl Iterator<Item = Found>, now_millis: u64) {
        for next in found.take(unreadable::MAX_AT_ONCE - 1) {
            let Found::OnDisk(on_disk) = next else {
                return;
            };
            if self.read_or_retry(device, &on_disk).is_ok()
                || self.gives_up(device, &on_disk, now_millis)
            {
                return;
            }
        }
    }

    fn find(
        &self,
        device: &Thumbprint,
        after: u64,
        max_messages: usize,
        max_bytes: usize,
    ) -> Vec<Found> {
        let core = self.lock();
        let mut found = Vec::new();
        let Some(number) = core.index.find(device.as_bytes()) else {
            return found;
        };
        let mut bytes = 0_usize;
        for entry in core.index.after(number, after) {
            if entry.place >= core.durable() && core.is_held(entry) {
                break;
            }
            bytes = bytes.saturating_add(entry.message_bytes as usize);
            let full = found.len() >= max_messages.max(1) || bytes > max_bytes;
            if full && !found.is_empty() {
                break;
            }
            found.push(core.found(entry));
        }
        found
    }

    fn read_or_retry(
        &self,
        device: &Thumbprint,
        on_disk: &OnDisk,
    ) -> Result<Delivery, StorageError> {
        self.read_from_disk(device, on_disk)
            .or_else(|_| self.read_from_disk(device, on_disk))
    }

    /// Mail that lies in a segment, or that it is damaged there.
    fn read_from_disk(
        &self,
        device: &Thumbprint,
        on_disk: &OnDisk,
    ) -> Result<Delivery, StorageError> {
        let damaged = on_disk.damaged();
        let Some(file) = &on_disk.file else {
            return Ok(damaged);
        };
        let mut record = vec![0; on_disk.length as usize];
        match file.read_at(on_disk.place.offset.into(), &mut record) {
            Ok(()) => {}
            // The file has been cut.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(damaged),
            Err(error) => {
                tracing::error!(%error, "mail cannot be read; check the disk");
                return Err(StorageError::Unreadable);
            }
        }
        let Some((mail, message)) =
            record::decode(&self.seed, on_disk.place, &record).and_then(|decoded| {
                let (Record::Mail(mail) | Record::Moved(mail)) = decoded.record else {
                    return None;
                };
                let is_it = decoded.intact
                    && mail.position == on_disk.position
                    && mail.device == device.as_bytes()
                    && mail.from_user == on_disk.from_user.as_bytes();
                is_it.then(|| {
                    let message = record.len() - mail.message.len();
                    let mail = Mail {
                        position: mail.position,
                        id: *mail.id,
                        from_user: Arc::clone(&on_disk.from_user),
                        from_device: Thumbprint::from_bytes(*mail.from_device),
                        time_millis: mail.time_millis,
                        message: Bytes::new(),
                    };
                    (mail, message)
                })
            })
        else {
            return Ok(damaged);
        };
        Ok(Delivery::Mail(Mail {
            message: Bytes::from(record).slice(message..),
            ..mail
        }))
    }
}

impl Core {
    /// Whether something may be read only when it is durable.
    fn is_held(&self, entry: &Entry) -> bool {
        match entry.what {
            // It tells of a posting that may still be unknown.
            What::Notice(_) => true,
            What::Mail => self
                .recent
                .find(entry.place)
                .is_some_and(|(post, _)| post.held),
            What::Damaged => false,
        }
    }

    fn found(&self, entry: &Entry) -> Found {
        let position = entry.position;
        let damaged = Found::Ready(Delivery::Damaged { position });
        match entry.what {
            What::Damaged => damaged,
            What::Notice(reason) => {
                let user = self.index.users.name(entry.to_user);
                let device = self.index.id(entry.peer);
                let reason = UndeliveredReason::from_code(reason);
                match (user, device, reason) {
                    (Some(user), Some(device), Some(reason)) => {
                        Found::Ready(Delivery::Undelivered(Undelivered {
                            position,
                            id: entry.id,
                            user: Arc::clone(user),
                            device: Thumbprint::from_bytes(*device),
                            reason,
                        }))
                    }
                    _ => damaged,
                }
            }
            What::Mail => {
                if let Some((post, part)) = self.recent.find(entry.place) {
                    return Found::Ready(Delivery::Mail(Mail {
                        position,
                        id: post.id,
                        from_user: Arc::clone(&post.from_user),
                        from_device: post.from_device,
                        time_millis: post.time_millis,
                        message: part.message.clone(),
                    }));
                }
                let Some(from_user) = self.index.users.name(entry.from_user) else {
                    return damaged;
                };
                let segment = self.segments.get(&entry.place.segment);
                Found::OnDisk(OnDisk {
                    before: self.unreadable.before(entry.place),
                    file: segment.map(|segment| Arc::clone(&segment.file)),
                    place: entry.place,
                    length: entry.record_bytes,
                    position,
                    from_user: Arc::clone(from_user),
                })
            }
        }
    }
}
