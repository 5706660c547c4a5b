//! The link handshake: SIGMA-I with JWTs over X25519 and ML-KEM-768 (docs/protocol.md §3).
//!
//! ```text
//! device                                         relay
//! DeviceHello::start ──────── Hello ──────────> RelayHandshake::on_hello
//!                                                   │
//! DeviceHello::on_accept <─── Accept ────────── RelayAccept
//!     │
//! DeviceLink ──────────────── Finish ─────────> RelayAccept::on_finish
//!                                                   │ UnverifiedPeer::prove      authentication: the device's key
//!                                                   │ ProvenPeer::authorise      authorisation: the verified token
//!     <───────────── first record: Ready ────── RelayLink
//! ```
//!
//! Each state is consumed by its transition, so nothing can be done twice or out of order, and an error leaves nothing to go on
//! with. A relay gets a [`RelayLink`](crate::link::RelayLink) only by both steps. Verifying tokens, redeeming invites and the
//! limits on time and bytes before the handshake is complete are for the server.

mod device;
mod message;
mod relay;

pub use device::{Credential, DeviceHello, DeviceTerms};
pub use relay::{Presented, ProvenPeer, RelayAccept, RelayHandshake, UnverifiedPeer};

use alloc::vec::Vec;

use zeroize::Zeroizing;

use crate::crypto::{Prk, TAG_BYTES};
use crate::error::{LinkError, Misbehaviour, Misuse};
use crate::link::Core;
use crate::record::{KeyLimits, Opener, Sealer};
use crate::schedule::{KeyAndIv, TranscriptHash, device_secret, relay_secret};

/// Seals the secret part of Accept or Finish. `secret` has room for the tag, so it is not left behind elsewhere.
fn seal(
    keys: &KeyAndIv,
    transcript: &TranscriptHash,
    mut secret: Vec<u8>,
) -> Result<Vec<u8>, LinkError> {
    let tag = keys
        .key
        .seal(keys.iv.expose(), transcript, &mut secret)
        .map_err(|_| Misuse::CredentialLength)?;
    secret.extend_from_slice(&tag);
    Ok(secret)
}

/// Opens the secret part of Accept or Finish. One error for every reason (docs/protocol.md §13).
fn open(
    keys: &KeyAndIv,
    transcript: &TranscriptHash,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, LinkError> {
    let (text, tag) = sealed
        .split_last_chunk::<TAG_BYTES>()
        .ok_or(Misbehaviour::DoesNotOpen)?;
    let mut text = Zeroizing::new(Vec::from(text));
    keys.key
        .open(keys.iv.expose(), transcript, &mut text, tag)
        .map_err(|_| Misbehaviour::DoesNotOpen)?;
    Ok(text)
}

/// The link's keys at the device. `prk` is erased.
#[expect(
    clippy::needless_pass_by_value,
    reason = "taking the PRK is what erases it"
)]
fn device_core(prk: Prk, t3: TranscriptHash) -> Core {
    let limits = KeyLimits::default();
    Core::new(
        Sealer::new(device_secret(&prk, &t3), limits),
        Opener::new(relay_secret(&prk, &t3), limits),
        t3,
    )
}

/// The link's keys at the relay. `prk` is erased.
#[expect(
    clippy::needless_pass_by_value,
    reason = "taking the PRK is what erases it"
)]
fn relay_core(prk: Prk, t3: TranscriptHash) -> Core {
    let limits = KeyLimits::default();
    Core::new(
        Sealer::new(relay_secret(&prk, &t3), limits),
        Opener::new(device_secret(&prk, &t3), limits),
        t3,
    )
}
