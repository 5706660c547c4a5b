//! What happens to mail that nobody fetches: it goes back to its sender as a notice.
use std::sync::Arc;

use sealwire_protocol::key::Thumbprint;

use super::core::{Core, NoRoom, Notice, Queued, Shared};
use super::index::{DeviceNumber, Entry, MAX_NOTICES, What};
use super::record::{ERASED_BYTES, NOTICE_BYTES, Place, REMOVED_BYTES};
use super::{PostError, Swept, UndeliveredReason};
use crate::storage::StorageError;

/// Entries that one sweep takes out at most, so that nobody waits long for the lock.
const MAX_AT_ONCE: usize = 1_024;
/// Mailboxes that one sweep looks at, for the same reason.
const MAX_MAILBOXES_AT_ONCE: usize = 1_024;
/// Milliseconds for which a notice waits for its device: 30 days.
pub(super) const NOTICE_MILLIS: u64 = 30 * 24 * 60 * 60 * 1_000;

impl Shared {
    pub(super) fn sweep(&self, now_millis: u64) -> Result<Swept, StorageError> {
        let mut core = self.lock();
        let mut swept = Swept::default();
        let mut seen = Vec::new();
        let mut result = Ok(());
        while swept.undelivered + swept.notices < MAX_AT_ONCE
            && seen.len() < MAX_MAILBOXES_AT_ONCE
            && let Some(device) = core.index.next_due(now_millis)
        {
            seen.push(device);
            let room = MAX_AT_ONCE - swept.undelivered - swept.notices;
            result = core.sweep_mailbox(device, now_millis, room, &mut swept);
            if result.is_err() {
                break;
            }
        }
        // After the loop, so that what has to wait for the disk is not looked at again.
        for device in &seen {
            core.index.reschedule(*device);
        }
        swept.more = result.is_ok()
            && (swept.undelivered + swept.notices >= MAX_AT_ONCE
                || seen.len() >= MAX_MAILBOXES_AT_ONCE);
        swept.waits = matches!(result, Err(NoRoom::Busy));
        match result {
            Ok(()) | Err(NoRoom::Busy | NoRoom::DiskFull) => Ok(self.told(core, swept)),
            Err(NoRoom::Unavailable) => Err(StorageError::Unavailable),
        }
    }

    fn told(&self, core: std::sync::MutexGuard<'_, Core>, mut swept: Swept) -> Swept {
        self.tell_writer(core);
        swept.ring.sort_unstable();
        swept.ring.dedup();
        swept
    }

    pub(super) fn remove(&self, device: &Thumbprint, now_millis: u64) -> Result<Swept, PostError> {
        let mut core = self.lock();
        let mut swept = Swept::default();
        let Some(number) = core.index.find(device.as_bytes()) else {
            return Ok(swept);
        };
        let place = core.place(REMOVED_BYTES)?;
        let up_to = core.index.remove(number, None);
        core.push(Queued::Removed {
            place,
            id: *device.as_bytes(),
            up_to,
        });
        let emptied = core.sweep_mailbox(number, now_millis, MAX_AT_ONCE, &mut swept);
        core.index.reschedule(number);
        // What is left is for the next sweeps.
        swept.more = emptied.is_ok() && core.index.state(Some(number)).waiting > 0;
        Ok(self.told(core, swept))
    }
}

impl Core {
    /// Takes out what is over, up to `limit` entries. What is not durable yet is left for a later sweep: its sender has not been told that it is safe.
    fn sweep_mailbox(
        &mut self,
        device: DeviceNumber,
        now_millis: u64,
        limit: usize,
        swept: &mut Swept,
    ) -> Result<(), NoRoom> {
        for (position, removed) in self.index.due(device, now_millis, limit) {
            let Some(entry) = self.index.entry(device, position).copied() else {
                continue;
            };
            match entry.what {
                What::Mail if entry.place >= self.durable() => {}
                What::Mail => {
                    let reason = if removed {
                        UndeliveredReason::DeviceRemoved
                    } else {
                        UndeliveredReason::Expired
                    };
                    self.give_back(device, &entry, reason, now_millis, swept)?;
                    swept.undelivered += 1;
                }
                What::Notice(_) | What::Damaged => {
                    self.erase(device, position)?;
                    swept.notices += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes mail out and puts a notice into its sender's mailbox, if that takes one.
    fn give_back(
        &mut self,
        device: DeviceNumber,
        entry: &Entry,
        reason: UndeliveredReason,
        now_millis: u64,
        swept: &mut Swept,
    ) -> Result<(), NoRoom> {
        let sender = entry.peer;
        let known = (
            self.index.id(sender).copied(),
            self.index.id(device).copied(),
            self.index.users.name(entry.to_user).map(Arc::clone),
            self.index.next_positions(sender).next(),
        );
        let (Some(id), Some(of_id), Some(of_user), Some(position)) = known else {
            return self.erase(device, entry.position);
        };
        if self.index.notices(sender) >= MAX_NOTICES {
            return self.erase(device, entry.position);
        }
        let bytes = NOTICE_BYTES + of_user.as_bytes().len();
        let place = self.place(bytes)?;
        self.index.users.refer_again(entry.to_user);
        self.take_out(device, entry.position);
        let notice = Entry {
            position,
            place: Place::default(),
            expires_millis: now_millis.saturating_add(NOTICE_MILLIS),
            id: entry.id,
            peer: device,
            from_user: super::users::UserNumber::NOBODY,
            to_user: entry.to_user,
            message_bytes: 0,
            record_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            what: What::Notice(reason.code()),
        };
        self.index.insert(sender, notice);
        self.push(Queued::Notice(Box::new(Notice {
            place,
            id,
            position,
            expires_millis: notice.expires_millis,
            message_id: entry.id,
            of_id,
            of_position: entry.position,
            reason,
            of_user,
        })));
        swept.ring.push(Thumbprint::from_bytes(id));
        Ok(())
    }

    /// Takes an entry out, and the log says so.
    fn erase(&mut self, device: DeviceNumber, position: u64) -> Result<(), NoRoom> {
        let Some(id) = self.index.id(device).copied() else {
            return Ok(());
        };
        let place = self.place(ERASED_BYTES)?;
        self.take_out(device, position);
        self.push(Queued::Erased {
            place,
            id,
            position,
        });
        Ok(())
    }

    fn take_out(&mut self, device: DeviceNumber, position: u64) {
        if let Some(entry) = self.index.erase(device, position)
            && entry.what == What::Mail
        {
            // Durable, so nobody waits.
            self.recent.dead(entry.place, &mut Vec::new());
        }
    }
}
