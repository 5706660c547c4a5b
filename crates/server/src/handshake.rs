//! The relay's side of the link handshake, over a WebSocket (docs/protocol.md §3).
//!
//! The steps and their order are [`sealwire_protocol::handshake`]'s: authentication (`prove`) gives what authorisation (`authorise`) takes. Here
//! a presented credential becomes a verified token, which may need the issuer's store. The deadline is the caller's.
use std::sync::Arc;

use bytes::Bytes;
use sealwire_protocol::handshake::{Presented, RelayHandshake};
use sealwire_protocol::link::RelayLink;

use crate::authority::Bearer;
use crate::clock;
use crate::closing::End;
use crate::issuer::Minted;
use crate::listener::Upgraded;
use crate::relay::Shared;
use crate::socket::{Incoming, Socket};

/// A device that has authenticated and is authorised.
pub(crate) struct Established {
    pub(crate) link: RelayLink,
    /// The token that the built-in issuer minted for an invite or a renewal; the device is told after Ready.
    pub(crate) minted: Option<Minted>,
}

/// Performs the handshake. Ready is the link's to say.
pub(crate) async fn perform(
    socket: &mut Socket<Upgraded>,
    shared: &Arc<Shared>,
    bearer: Option<Bearer>,
) -> Result<Established, End> {
    let upgrade_token = bearer.map(|bearer| bearer.verified);
    let handshake = RelayHandshake::new(&shared.relay_key, upgrade_token.as_ref());
    let hello = message(socket).await?;
    let (handshake, accept) = handshake.on_hello(&hello, &mut rand::rng(), clock::seconds())?;
    socket.queue(accept)?;
    let finish = message(socket).await?;
    // Authentication: whoever sent this holds the device's key.
    let proven = handshake.on_finish(&finish)?.prove(clock::seconds())?;
    let (token, minted) = match proven.credential() {
        Presented::Token(token) => (shared.authority.verify(token).map_err(End::Token)?, None),
        Presented::UpgradeToken => (upgrade_token.ok_or(End::NoUpgradeToken)?, None),
        Presented::Invite(code) => {
            let issuer = shared.issuer.as_ref().ok_or(End::NoIssuer)?;
            let minted = issuer
                .redeem(code, proven.device_key(), clock::seconds())
                .await
                .map_err(End::Issuer)?;
            (minted.verified.clone(), Some(minted))
        }
        Presented::Renewal => {
            let issuer = shared.issuer.as_ref().ok_or(End::NoIssuer)?;
            let minted = issuer
                .renew(proven.device_key(), clock::seconds())
                .map_err(End::Issuer)?;
            (minted.verified.clone(), Some(minted))
        }
    };
    if let Some(issuer) = &shared.issuer
        && issuer.is_removed(&token.claims().device)?
    {
        return Err(End::Revoked);
    }
    // Authorisation: the token is the presented one and names the proved key.
    let link = proven.authorise(token)?;
    Ok(Established { link, minted })
}

/// The next binary message; what was queued is flushed meanwhile.
async fn message(socket: &mut Socket<Upgraded>) -> Result<Bytes, End> {
    loop {
        // Pings are answered, and paid for out of the budget of bytes.
        if let Some(Incoming::Message(message)) = socket.turn(true).await? {
            return Ok(message);
        }
    }
}
