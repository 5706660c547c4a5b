//! Call, docs/protocol.md §17: who may call what, and how often.
use bytes::Bytes;
use sealwire_protocol::frame::Call as CallFrame;

use super::Requester;
use crate::now::Now;
use crate::refusal::{Cause, Limit, Outside};
use crate::services::{Call, Handler};

impl Requester {
    /// The handler of what is called, and what to give it.
    pub(crate) fn call(&self, frame: &CallFrame<'_>, now: Now) -> Result<(Handler, Call), Cause> {
        // Counted whatever it calls: a service that may not be called looks like one that is not there (§5.3), also in this.
        self.shared
            .call_rates
            .take(
                &self.device(),
                self.shared.services.calls_per_minute,
                now.steady_millis,
            )
            .map_err(|_| Cause::Rate(Limit::Application("calls_per_minute")))?;
        if !self.permissions().call {
            return Err(Cause::Call);
        }
        if !self.permissions().may_call(frame.service) {
            return Err(Cause::Services(Outside::new(frame.service)));
        }
        let Some((service, handler)) = self.shared.services.handler(frame.service) else {
            return Err(Cause::NoService(Outside::new(frame.service)));
        };
        let call = Call::new(
            self.link.token().claims().clone(),
            service,
            Bytes::copy_from_slice(frame.payload),
            frame.reply,
        );
        Ok((handler, call))
    }
}
