//! The relay's side of the link handshake (docs/protocol.md §3).
//!
//! The steps and their order are [`sealwire_protocol::handshake`]'s: authentication (`prove`) gives what authorisation (`authorise`) takes. Here
//! a presented credential becomes a verified token, which may need the issuer's store. Messages, time and randomness come in as arguments;
//! the deadline is the caller's.
use sealwire_protocol::handshake::{Presented, RelayAccept, RelayHandshake};
use sealwire_protocol::link::RelayLink;
use sealwire_protocol::token::AccessToken;

use crate::closing::End;
use crate::exchange::ExchangeError;
use crate::issuer::{IssuerError, Minted};
use crate::now::Now;
use crate::shared::Shared;
use crate::spans;

/// A device that has authenticated and is authorised.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) link: RelayLink,
    /// The token that the built-in issuer minted for an invite, a renewal or an exchange; the device is told after Ready.
    pub(crate) minted: Option<Minted>,
}

/// A handshake that waits for Finish.
#[derive(Debug)]
pub(crate) struct Accepting {
    state: RelayAccept,
    upgrade_token: Option<AccessToken>,
}

/// Takes Hello, and gives Accept. `upgrade_token` is the token of the upgrade request, verified, if there was one.
pub(crate) fn on_hello(
    shared: &Shared,
    upgrade_token: Option<AccessToken>,
    hello: &[u8],
    rng: &mut impl rand::CryptoRng,
    now: Now,
) -> Result<(Accepting, Vec<u8>), End> {
    let (state, accept) = RelayHandshake::new(&shared.relay_key, upgrade_token.as_ref())
        .following(&shared.previous_keys)
        .on_hello(hello, rng, now.seconds())?;
    Ok((
        Accepting {
            state,
            upgrade_token,
        },
        accept,
    ))
}

impl Accepting {
    /// Takes Finish. It waits where an invitation is redeemed, or newer keys of an issuer are looked for. Ready is the link's to say.
    pub(crate) async fn on_finish(
        self,
        shared: &Shared,
        finish: &[u8],
        now: Now,
    ) -> Result<Established, End> {
        // Authentication: whoever sent this holds the device's key.
        let proven = self.state.on_finish(finish)?.prove(now.seconds())?;
        spans::presented(&proven.credential());
        let (token, minted) = match proven.credential() {
            Presented::Token(token) => (
                shared
                    .authority
                    .verify_or_look(token, now.seconds())
                    .await?,
                None,
            ),
            Presented::UpgradeToken => (self.upgrade_token.ok_or(End::NoUpgradeToken)?, None),
            Presented::Invite(code) => {
                let issuer = shared.issuer.as_ref().ok_or(End::NoIssuer)?;
                let minted = issuer
                    .redeem(code, proven.device_key(), now.seconds())
                    .await
                    .map_err(End::Issuer)?;
                (minted.verified.clone(), Some(minted))
            }
            Presented::Renewal => {
                let issuer = shared.issuer.as_ref().ok_or(End::NoIssuer)?;
                let minted = issuer
                    .renew(proven.device_key(), now.seconds())
                    .map_err(|error| {
                        if error == IssuerError::Removed {
                            End::Revoked
                        } else {
                            End::Issuer(error)
                        }
                    })?;
                (minted.verified.clone(), Some(minted))
            }
            Presented::Exchange(token) => {
                let none = End::Exchange(ExchangeError::NoExchange);
                let minted = shared
                    .exchange
                    .exchange_or_look(
                        shared.issuer.as_ref().ok_or(none)?,
                        token,
                        proven.device_key(),
                        now.seconds(),
                    )
                    .await
                    .map_err(|error| {
                        if error.is_of_removed_device() {
                            End::Revoked
                        } else {
                            End::Exchange(error)
                        }
                    })?;
                (minted.verified.clone(), Some(minted))
            }
        };
        shared.admit(token.claims())?;
        // Authorisation: the token is the presented one and names the proved key.
        let link = proven.authorise(token)?;
        Ok(Established { link, minted })
    }
}
