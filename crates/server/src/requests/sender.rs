//! What a device may send and look up, however it asks: over its link, or by HTTP (docs/protocol.md §5.2, §5.5, §18).
use std::sync::Arc;
use std::task::{Wake, Waker};

use bytes::Bytes;
use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::User;
use sealwire_protocol::token::TokenClaims;

use super::unavailable;
use crate::closing::End;
use crate::directory::DeviceEntry;
use crate::hub::{Hub, News};
use crate::mail::{Accepted, Appended, PostError, Posting};
use crate::now::Now;
use crate::policy::Allowance;
use crate::refusal::{Cause, Limit};
use crate::shared::Shared;
use crate::storage::StorageError;

/// A device that has proved its key, with what its token lets it do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender<'a> {
    pub(crate) claims: &'a TokenClaims,
    pub(crate) allowance: &'a Allowance,
    pub(crate) shared: &'a Arc<Shared>,
}

/// What is on a message, which its sender's token allows.
#[derive(Debug)]
pub(crate) struct Envelope {
    /// What the device counted it as; 0 for one that has no number.
    pub(crate) sequence: u64,
    pub(crate) id: [u8; 16],
    pub(crate) to: User,
    pub(crate) whole: bool,
    /// The devices of the parts and of the copies, sorted.
    pub(crate) devices: Vec<Thumbprint>,
    pub(crate) copies: Vec<Thumbprint>,
}

/// For each device its message: parts, and copies.
pub(crate) type Contents = (Vec<(Thumbprint, Bytes)>, Vec<(Thumbprint, Bytes)>);

/// What became of a message.
pub(crate) enum Posted {
    /// It has its places, and is accepted when it is safe.
    Appended(Accepted),
    Refused(Cause),
    /// There is no room in the mailboxes' queue; it is to be tried again.
    NoRoom,
}

/// The recipients of a posting that can be read only when it is durable. The log wakes them then, also where the sender's link has ended.
struct Bells {
    hub: Arc<Hub>,
    devices: Vec<Thumbprint>,
}

impl Bells {
    fn ring(&self) {
        for device in &self.devices {
            self.hub.ring(device.as_bytes(), News::MAIL);
        }
    }
}

impl Wake for Bells {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

impl Sender<'_> {
    fn user(&self) -> &User {
        &self.claims.user
    }

    /// The recipient, if the token allows writing to them.
    pub(crate) fn permitted(&self, user: &str) -> Result<User, Cause> {
        let user = User::new(user).map_err(Cause::Name)?;
        let names = self.shared.exchange.names();
        let permissions = &self.claims.permissions;
        if names.may_reach(permissions, &user, self.user()) {
            return Ok(user);
        }
        Err(match &permissions.tenant {
            _ if !permissions.send => Cause::Scope("sealwire:send"),
            Some(tenant) if !tenant.includes(&user) => Cause::Tenant,
            _ if !permissions.may_write_to(&user, self.user()) => Cause::To,
            _ => Cause::OutsideTenants,
        })
    }

    /// The user, if their cards may be fetched once more, by the sender's user and by the tenant.
    pub(crate) fn fetchable(&self, user: &str, now: Now) -> Result<User, Cause> {
        let user = self.permitted(user)?;
        self.shared
            .fetch_rates
            .take(
                self.user(),
                self.allowance.card_fetches_per_minute,
                now.steady_millis,
            )
            .map_err(|_| Cause::Rate(Limit::Relay("card_fetches_per_minute")))?;
        if let Some(tenant) = &self.claims.permissions.tenant {
            let per_minute = self.allowance.card_fetches_per_minute_per_tenant;
            self.shared
                .tenant_fetch_rates
                .take(tenant, per_minute, now.steady_millis)
                .map_err(|_| Cause::Rate(Limit::Relay("card_fetches_per_minute_per_tenant")))?;
        }
        Ok(user)
    }

    /// The recipient of messages of so many bytes, if the token allows them, which are counted now.
    pub(crate) fn sendable(
        &self,
        user: &str,
        messages: impl Iterator<Item = usize> + Clone,
        now: Now,
    ) -> Result<User, Cause> {
        let to = self.permitted(user)?;
        let (token, relay) = (&self.claims.permissions, &self.shared.settings.allowance);
        // A message's length is at most 98,304, so it fits into any u64.
        if messages
            .clone()
            .any(|bytes| bytes as u64 > self.allowance.max_message_bytes)
        {
            return Err(Cause::TooLarge(Limit::lower(
                "max_message_bytes",
                token.max_message_bytes,
                relay.max_message_bytes,
            )));
        }
        self.shared
            .message_rates
            .take_many(
                &self.claims.device,
                messages.count() as u64,
                self.allowance.messages_per_minute,
                now.steady_millis,
            )
            .map_err(|_| {
                Cause::Rate(Limit::lower(
                    "messages_per_minute",
                    token.messages_per_minute,
                    relay.messages_per_minute,
                ))
            })?;
        Ok(to)
    }

    /// Puts a message into the mailboxes. `may` is asked in the same step in which the devices are looked at: whoever takes a device its right to send
    /// waits for that.
    pub(crate) fn post(
        &self,
        envelope: &Envelope,
        contents: impl FnOnce() -> Contents,
        may: impl FnOnce() -> Result<(), End>,
        now: Now,
    ) -> Result<Posted, End> {
        let appended = {
            let _seen = self.shared.see_devices();
            may()?;
            if let Err(cause) = self.check_devices(envelope, now)? {
                return Ok(Posted::Refused(cause));
            }
            let (parts, copies) = contents();
            let posting = Posting {
                from_user: self.user(),
                from_device: self.claims.device,
                sequence: envelope.sequence,
                id: envelope.id,
                to_user: &envelope.to,
                parts,
                copies,
            };
            // What a recipient's own token allows its mailbox, the mailbox knows.
            let limits = self.shared.settings.allowance.mailbox;
            self.shared.mailboxes.append(posting, limits, now.millis)
        };
        match appended {
            Ok(appended) => Ok(Posted::Appended(self.ring(appended))),
            Err(PostError::Busy) => Ok(Posted::NoRoom),
            Err(PostError::Storage(error)) => Err(error.into()),
            Err(error) => Ok(Posted::Refused(error.into())),
        }
    }

    /// Tells the recipients' links: at once, as they need not wait for the disk, unless the posting has to.
    fn ring(&self, appended: Appended) -> Accepted {
        let devices = appended.positions().map(|(device, _)| device);
        if !appended.is_held() {
            devices.for_each(|device| self.shared.hub.ring(device.as_bytes(), News::MAIL));
            return appended.accepted();
        }
        let bells = Arc::new(Bells {
            hub: Arc::clone(&self.shared.hub),
            devices: devices.copied().collect(),
        });
        let accepted = appended.accepted();
        let waker = Waker::from(Arc::clone(&bells));
        if accepted.outcome_or_wake(&waker).is_some() {
            bells.ring();
        }
        accepted
    }

    /// §5.2: who the parts and copies have to be for. Where the directory cannot be read, nobody knows.
    fn check_devices(
        &self,
        envelope: &Envelope,
        now: Now,
    ) -> Result<Result<(), Cause>, StorageError> {
        let Envelope {
            to,
            whole,
            devices,
            copies,
            ..
        } = envelope;
        // Those of the directory are distinct and sorted.
        let current = self.devices_but_this(to, now)?;
        if current.is_empty() {
            return Ok(Err(Cause::UnknownUser));
        }
        let are_theirs = if *whole {
            *devices == current
        } else {
            are_distinct(devices)
                && devices
                    .iter()
                    .all(|device| current.binary_search(device).is_ok())
        };
        if !are_theirs {
            return Ok(Err(if *whole {
                Cause::Parts
            } else {
                Cause::SomeParts
            }));
        }
        if !whole || to == self.user() {
            return Ok(if copies.is_empty() {
                Ok(())
            } else {
                Err(Cause::NoCopies)
            });
        }
        Ok(if *copies == self.devices_but_this(self.user(), now)? {
            Ok(())
        } else {
            Err(Cause::Copies)
        })
    }

    fn devices_but_this(&self, user: &User, now: Now) -> Result<Vec<Thumbprint>, StorageError> {
        let mut devices = self.shared.directory.devices(user, now.seconds())?;
        devices.retain(|device| *device != self.claims.device);
        Ok(devices)
    }
}

/// The cards of a user whom `asking` may look up (FetchCards, §5.1). `except` is left out.
pub(crate) async fn cards(
    shared: &Shared,
    asking: &User,
    user: &User,
    take: bool,
    except: Option<&Thumbprint>,
    now: Now,
) -> Result<Vec<DeviceEntry>, Cause> {
    let entries = shared
        .directory
        .cards(user, take, except, now.seconds())
        .await
        .map_err(unavailable)?;
    if entries.is_empty() && user != asking {
        return Err(Cause::UnknownUser);
    }
    Ok(entries)
}

fn are_distinct(sorted: &[Thumbprint]) -> bool {
    sorted
        .iter()
        .zip(sorted.iter().skip(1))
        .all(|(one, next)| one != next)
}
