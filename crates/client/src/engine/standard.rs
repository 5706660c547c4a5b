//! Messages that arrive in a standard JWE (`docs/protocol.md §10.1`): from a backend that has the card of this device, and no session with it.
//!
//! What is known of their sender, whose device it is and which devices that user has, is the same as of any other message. Nothing is asked for again and
//! nothing is confirmed: there is no session in which that could be said.

use std::sync::Arc;

use sealwire_e2e::standard::{self, Delivered};
use sealwire_protocol::frame::Deliver;

use super::receiving::NotOpened;
use super::records::SeenMessage;
use super::txn::Txn;
use super::{Engine, Fatal, Moment, policy};
use crate::event::Event;
use crate::message::{Message, MessageId, Received};

impl Engine {
    pub(super) fn receive_standard(
        &mut self,
        txn: &mut Txn,
        deliver: &Deliver<'_>,
        user: Arc<str>,
        now: Moment,
    ) -> Result<(), Fatal> {
        let refused = NotOpened::Refused;
        let Some(own) = &self.own else {
            return self.not_opened(txn, deliver, user, refused);
        };
        let delivered = Delivered {
            device: deliver.device,
            user: deliver.user,
            id: deliver.id,
        };
        let policy = policy(&self.issuer, now);
        let opened = standard::open(
            &self.keys,
            own,
            delivered,
            deliver.message,
            &*self.issuer.keys,
            &policy,
        );
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                tracing::info!(%error, "a standard JWE does not open");
                return self.not_opened(txn, deliver, user, refused);
            }
        };
        // A device is one user's for good, as for its sessions.
        let peer = txn.peer(&self.vault, deliver.device)?;
        let is_anothers = peer
            .identity()
            .is_some_and(|identity| identity != opened.sender());
        if is_anothers || !self.admits_device(txn, &user, deliver.device)? {
            return self.not_opened(txn, deliver, user, refused);
        }
        self.device_seen(txn, &user, deliver.device, now)?;
        let message = SeenMessage {
            device: deliver.device,
            id: deliver.id,
        };
        self.lost.remove(txn, &message);
        if self.seen.insert(txn, message, true)? {
            let body = opened.body();
            let received = Received {
                id: MessageId(deliver.id),
                from: user,
                device: deliver.device,
                sent_at: opened.time().saturating_mul(1_000),
                redelivered: false,
                forward_secrecy: false,
                message: Message::new(body.media_type, body.bytes),
                handle: None,
            };
            self.inbox.push(txn, Event::Message(received))?;
        }
        self.release(txn, deliver.device, now)
    }
}
