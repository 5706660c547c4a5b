//! A link after its handshake: one object for each end, which bytes go into and come out of (docs/protocol.md §4, §5).
//!
//! ```text
//!            DeviceLink                                  RelayLink
//! Batch ──> seal ───────────── record ─────────────> handle_message ──> Frames
//! Frames <── handle_message <── record ───────────────────── seal <── Batch
//! ```
//!
//! An error is sticky: after one a link gives the same error for everything, and its socket is to be closed with
//! [`LinkError::close_code`]. The exception is [`Misuse`], which changes nothing. Sockets, time limits, pings and the
//! meaning of requests are for the client and the server.

use alloc::string::String;
use alloc::vec::Vec;

use crate::batch::{Batch, Frames};
use crate::error::{LinkError, Misbehaviour, Misuse, NotAuthorised};
use crate::frame::{DeviceToRelay, Direction, RelayToDevice, ToDevice, ToRelay};
use crate::key::{PublicKey, SigningKey, Thumbprint};
use crate::proof::DeviceProof;
use crate::record::{Opener, Sealer};
use crate::schedule::{TranscriptHash, refresh_hash};
use crate::token::{AccessToken, credential_hash};

/// The device's end of a link.
#[derive(Debug)]
pub struct DeviceLink {
    core: Core,
    phase: Phase,
    device: Thumbprint,
    relay: Thumbprint,
}

impl DeviceLink {
    pub(crate) const fn new(core: Core, device: Thumbprint, relay: Thumbprint) -> Self {
        Self {
            core,
            phase: Phase::BeforeReady,
            device,
            relay,
        }
    }

    /// The relay at the other end, whose key the handshake verified.
    #[must_use]
    pub const fn relay(&self) -> Thumbprint {
        self.relay
    }

    /// Seals a batch: the returned bytes are one binary WebSocket message. A device need not wait for Ready.
    ///
    /// # Errors
    /// [`LinkError::Misuse`] for an empty batch, [`LinkError::Exhausted`] at the limits of §4, and the link's error if it has
    /// one.
    pub fn seal(&mut self, batch: Batch<DeviceToRelay>) -> Result<Vec<u8>, LinkError> {
        self.core.seal(batch)
    }

    /// Seals one frame by itself.
    ///
    /// # Errors
    /// As [`Self::seal`], and [`LinkError::Misuse`] for a field out of its bounds.
    pub fn seal_frame(&mut self, frame: &ToRelay<'_>) -> Result<Vec<u8>, LinkError> {
        let mut batch = Batch::new();
        batch.push(frame)?;
        self.seal(batch)
    }

    /// Takes one received binary message, opens it in place and returns its frames. The first frame of all is Ready, and its
    /// `device` is this one.
    ///
    /// # Errors
    /// Whatever is wrong with the record or any frame of it. The link has then ended.
    pub fn handle_message<'m>(
        &mut self,
        message: &'m mut [u8],
    ) -> Result<Frames<'m, RelayToDevice>, LinkError> {
        let frames = self.core.open(message)?;
        self.check_ready(frames.clone())
            .map_err(|error| self.core.fail(error.into()))?;
        self.phase = Phase::Open;
        Ok(frames)
    }

    /// The proof for a Refresh frame with `token`, which is empty to ask the built-in issuer (docs/protocol.md §5.4). `key` is the device's
    /// key and `now` is in seconds since 1970.
    #[must_use]
    pub fn refresh_proof(&self, key: &SigningKey, token: &[u8], now: u64) -> String {
        refresh_statement(self.relay, &self.core.t3, token).sign(key, now)
    }

    /// Ready comes first and once (docs/protocol.md §3.2), and for this device (§5.2).
    fn check_ready(&self, mut frames: Frames<'_, RelayToDevice>) -> Result<(), Misbehaviour> {
        if let Phase::BeforeReady = self.phase {
            match frames.next() {
                Some(ToDevice::Ready(ready)) if ready.device == self.device => {}
                Some(ToDevice::Ready(ready)) => {
                    return Err(Misbehaviour::ReadyForAnotherDevice(ready.device));
                }
                _ => return Err(Misbehaviour::ReadyMissing),
            }
        }
        if frames.any(|frame| matches!(frame, ToDevice::Ready(_))) {
            return Err(Misbehaviour::ReadyAgain);
        }
        Ok(())
    }
}

/// The relay's end of a link. It exists only for a device that proved its key and whose token, verified, names that key.
#[derive(Debug)]
pub struct RelayLink {
    core: Core,
    phase: Phase,
    relay: Thumbprint,
    device: PublicKey,
    token: AccessToken,
}

impl RelayLink {
    /// Ties the proved key to the verified token: `cnf` has to name it (docs/protocol.md §3.5).
    pub(crate) fn new(
        core: Core,
        relay: Thumbprint,
        device: PublicKey,
        token: AccessToken,
    ) -> Result<Self, NotAuthorised> {
        check_confirmation(&token, device.thumbprint())?;
        Ok(Self {
            core,
            phase: Phase::BeforeReady,
            relay,
            device,
            token,
        })
    }

    /// The device at the other end.
    #[must_use]
    pub fn device(&self) -> Thumbprint {
        self.device.thumbprint()
    }

    /// The key of the device at the other end.
    #[must_use]
    pub const fn device_key(&self) -> &PublicKey {
        &self.device
    }

    /// The token that the link is authorised by now: user, expiry and permissions.
    #[must_use]
    pub const fn token(&self) -> &AccessToken {
        &self.token
    }

    /// Seals a batch: the returned bytes are one binary WebSocket message. The first batch begins with Ready.
    ///
    /// # Errors
    /// [`LinkError::Misuse`] for an empty batch or a Ready out of place, [`LinkError::Exhausted`] at the limits of §4, and the
    /// link's error if it has one.
    pub fn seal(&mut self, batch: Batch<RelayToDevice>) -> Result<Vec<u8>, LinkError> {
        let ready_expected = matches!(self.phase, Phase::BeforeReady);
        if !batch.is_empty() && batch.begins_with_ready() != ready_expected {
            return self.core.check().and(Err(Misuse::ReadyOutOfPlace.into()));
        }
        let record = self.core.seal(batch)?;
        self.phase = Phase::Open;
        Ok(record)
    }

    /// Seals one frame by itself.
    ///
    /// # Errors
    /// As [`Self::seal`], and [`LinkError::Misuse`] for a field out of its bounds.
    pub fn seal_frame(&mut self, frame: &ToDevice<'_>) -> Result<Vec<u8>, LinkError> {
        let mut batch = Batch::new();
        batch.push(frame)?;
        self.seal(batch)
    }

    /// Takes one received binary message, opens it in place and returns its frames.
    ///
    /// # Errors
    /// Whatever is wrong with the record or any frame of it. The link has then ended.
    pub fn handle_message<'m>(
        &mut self,
        message: &'m mut [u8],
    ) -> Result<Frames<'m, DeviceToRelay>, LinkError> {
        self.core.open(message)
    }

    /// The first step of a Refresh: checks the proof in the frame for the token in it (docs/protocol.md §5.4). `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The proof is not good. The link goes on; the request is refused with `token_refused`.
    pub fn prove_refresh(
        &self,
        proof: &[u8],
        token: &[u8],
        now: u64,
    ) -> Result<ProvenRefresh, NotAuthorised> {
        refresh_statement(self.relay, &self.core.t3, token)
            .verify(proof, &self.device, now)
            .map_err(NotAuthorised::DeviceProof)?;
        let presented = (!token.is_empty()).then(|| credential_hash(token));
        Ok(ProvenRefresh {
            t3: self.core.t3,
            presented,
        })
    }

    /// The second step: the verified token replaces the link's, and its permissions apply at once. It is the one that was presented or, if
    /// none was or it was exchanged, one that the built-in issuer minted for the device.
    ///
    /// # Errors
    /// The token is not the presented one, or not of the same issuer, user and device. The link keeps the token it has.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a proof is used up by what it proves"
    )]
    pub fn refresh(
        &mut self,
        proven: ProvenRefresh,
        token: AccessToken,
    ) -> Result<(), NotAuthorised> {
        if proven.t3 != self.core.t3
            || proven
                .presented
                .is_some_and(|presented| presented != *token.hash())
        {
            return Err(NotAuthorised::AnotherToken);
        }
        if token.claims().issuer != self.token.claims().issuer {
            return Err(NotAuthorised::AnotherIssuer);
        }
        if token.claims().user != self.token.claims().user {
            return Err(NotAuthorised::AnotherUser);
        }
        check_confirmation(&token, self.device.thumbprint())?;
        self.token = token;
        Ok(())
    }
}

/// A refresh whose proof was good: what [`RelayLink::refresh`] takes beside the verified token.
#[derive(Debug)]
#[must_use]
pub struct ProvenRefresh {
    t3: TranscriptHash,
    /// The hash of the presented token; none if the built-in issuer is asked.
    presented: Option<[u8; 32]>,
}

impl ProvenRefresh {
    /// Whether the device asks the built-in issuer for a token instead of presenting one.
    #[must_use]
    pub const fn asks_issuer(&self) -> bool {
        self.presented.is_none()
    }

    /// The presented token was a provider's, and was exchanged: what the built-in issuer minted for it takes its place (docs/protocol.md §3.7).
    pub const fn exchanged(self) -> Self {
        Self {
            t3: self.t3,
            presented: None,
        }
    }
}

#[derive(Debug)]
enum Phase {
    BeforeReady,
    Open,
}

/// What both ends have: keys for either direction and the first error, which stays.
#[derive(Debug)]
pub(crate) struct Core {
    sealer: Sealer,
    opener: Opener,
    t3: TranscriptHash,
    failed: Option<LinkError>,
}

impl Core {
    pub(crate) const fn new(sealer: Sealer, opener: Opener, t3: TranscriptHash) -> Self {
        Self {
            sealer,
            opener,
            t3,
            failed: None,
        }
    }

    fn check(&self) -> Result<(), LinkError> {
        self.failed.map_or(Ok(()), Err)
    }

    /// Errors are sticky (docs/protocol.md §13), except for the caller's own mistakes.
    fn fail(&mut self, error: LinkError) -> LinkError {
        if !matches!(error, LinkError::Misuse(_)) {
            self.failed = Some(error);
        }
        error
    }

    fn seal<D: Direction>(&mut self, batch: Batch<D>) -> Result<Vec<u8>, LinkError> {
        self.check()?;
        let mut record = batch.into_record();
        self.sealer
            .seal(&mut record)
            .map_err(|error| self.fail(error))?;
        Ok(record)
    }

    fn open<'m, D: Direction>(
        &mut self,
        message: &'m mut [u8],
    ) -> Result<Frames<'m, D>, LinkError> {
        self.check()?;
        self.opener
            .open(message)
            .and_then(Frames::check)
            .map_err(|error| self.fail(error))
    }
}

fn refresh_statement(relay: Thumbprint, t3: &TranscriptHash, token: &[u8]) -> DeviceProof {
    DeviceProof {
        relay,
        transcript: refresh_hash(t3),
        credential: credential_hash(token),
    }
}

fn check_confirmation(token: &AccessToken, device: Thumbprint) -> Result<(), NotAuthorised> {
    let named = token.claims().device;
    if named == device {
        Ok(())
    } else {
        Err(NotAuthorised::TokenOfAnotherDevice {
            token: named,
            device,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::close::CloseCode;
    use crate::codec::DecodeError;
    use crate::crypto::{Prk, Secret};
    use crate::error::{Malformed, Part};
    use crate::jws::{self, JwtType};
    use crate::key::Seed;
    use crate::record::{KeyLimits, RECORD_TYPE};
    use crate::schedule::{device_secret, relay_secret};
    use crate::token::{AccessPolicy, UnverifiedAccessToken};
    use alloc::{format, vec};

    const T3: TranscriptHash = [3; 32];

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Seed::new([seed; 32]))
    }

    /// The keys from either end: what the device seals with, and what the relay seals with.
    fn sealers() -> (Sealer, Sealer) {
        let prk = Prk::from_secret(Secret::take(&mut [1; 32]));
        let limits = KeyLimits::default();
        (
            Sealer::new(device_secret(&prk, &T3), limits),
            Sealer::new(relay_secret(&prk, &T3), limits),
        )
    }

    fn openers() -> (Opener, Opener) {
        let prk = Prk::from_secret(Secret::take(&mut [1; 32]));
        let limits = KeyLimits::default();
        (
            Opener::new(relay_secret(&prk, &T3), limits),
            Opener::new(device_secret(&prk, &T3), limits),
        )
    }

    fn device_end() -> DeviceLink {
        let core = Core::new(sealers().0, openers().0, T3);
        DeviceLink::new(core, key(1).thumbprint(), key(2).thumbprint())
    }

    fn relay_end() -> RelayLink {
        let payload = format!(
            r#"{{"iss":"i","sub":"alice","aud":"r","iat":1,"exp":9,"cnf":{{"jkt":"{}"}}}}"#,
            key(1).thumbprint()
        );
        let token = jws::sign(JwtType::AccessToken, &payload, &key(5));
        let policy = AccessPolicy {
            issuer: &"i".parse().unwrap(),
            audience: "r",
            now: 2,
        };
        let token = UnverifiedAccessToken::parse(token.as_bytes())
            .unwrap()
            .verify(key(5).public(), &policy)
            .unwrap();
        let core = Core::new(sealers().1, openers().1, T3);
        RelayLink::new(core, key(2).thumbprint(), *key(1).public(), token).unwrap()
    }

    /// A record that opens, whatever is in it.
    fn record(sealer: &mut Sealer, plaintext: &[u8]) -> Vec<u8> {
        let mut record = vec![RECORD_TYPE];
        record.extend_from_slice(plaintext);
        sealer.seal(&mut record).unwrap();
        record
    }

    /// Plaintexts of which some frame is malformed. 0x02 is Ack and 0x42 Accepted; `good` is one of them.
    fn malformed(good: &[u8]) -> Vec<(Vec<u8>, DecodeError)> {
        let (type_byte, payload) = (good[0], &good[4..]);
        let length = u8::try_from(payload.len()).unwrap();
        let frame = |type_byte, length, payload: &[u8]| {
            let mut frame = vec![type_byte, 0, 0, length];
            frame.extend_from_slice(payload);
            frame
        };
        let unknown = frame(0x7f, 0, &[]);
        vec![
            (unknown.clone(), DecodeError::UnknownValue),
            ([good, &unknown].concat(), DecodeError::UnknownValue),
            (good[..good.len() - 1].to_vec(), DecodeError::EndsEarly),
            ([good, &[type_byte, 0]].concat(), DecodeError::EndsEarly),
            (
                frame(type_byte, length - 1, &payload[1..]),
                DecodeError::EndsEarly,
            ),
            (
                frame(type_byte, length + 1, &[payload, &[0]].concat()),
                DecodeError::TrailingBytes,
            ),
            (vec![type_byte, 0x30, 0, 1], DecodeError::LengthOutOfBounds),
        ]
    }

    fn assert_is_4200(error: LinkError, defect: DecodeError) {
        let part = Part::Frame;
        assert_eq!(error, Malformed::Encoding { part, defect }.into());
        assert_eq!(error.close_code(), CloseCode::Malformed);
        assert_eq!(error.close_code().code(), 4200);
    }

    /// docs/protocol.md §13: a record of which any frame is malformed has no effect, and ends the link with 4200
    #[test]
    fn relay_refuses_malformed_frame_in_a_record_that_opens() {
        let good = [0x02, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1];
        for (plaintext, defect) in malformed(&good) {
            let (mut sealer, mut relay) = (sealers().0, relay_end());
            let mut bad = record(&mut sealer, &plaintext);
            assert_is_4200(relay.handle_message(&mut bad).unwrap_err(), defect);
            let mut next = record(&mut sealer, &good);
            assert_is_4200(relay.handle_message(&mut next).unwrap_err(), defect);
        }
        let mut first = record(&mut sealers().0, &good);
        assert_eq!(relay_end().handle_message(&mut first).unwrap().len(), 1);
    }

    /// docs/protocol.md §13
    #[test]
    fn device_refuses_malformed_frame_in_a_record_that_opens() {
        let good = [0x42, 0, 0, 4, 0, 0, 0, 1];
        for (plaintext, defect) in malformed(&good) {
            let (mut sealer, mut device) = (sealers().1, device_end());
            let mut bad = record(&mut sealer, &plaintext);
            assert_is_4200(device.handle_message(&mut bad).unwrap_err(), defect);
            let mut next = record(&mut sealer, &good);
            assert_is_4200(device.handle_message(&mut next).unwrap_err(), defect);
        }
    }
}
