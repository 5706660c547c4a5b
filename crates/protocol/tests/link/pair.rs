//! Both ends of a link, with a seeded generator and clocks that only a test moves.

use std::collections::VecDeque;

use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use sealwire_protocol::base64url;
use sealwire_protocol::error::LinkError;
use sealwire_protocol::frame::{Ready, ToDevice, ToRelay};
use sealwire_protocol::handshake::{
    Credential, DeviceHello, DeviceTerms, RelayAccept, RelayHandshake,
};
use sealwire_protocol::key::{Seed, SigningKey, Thumbprint};
use sealwire_protocol::key_set::Ed25519KeySet;
use sealwire_protocol::link::{DeviceLink, RelayLink};
use sealwire_protocol::name::Issuer;
use sealwire_protocol::token::{AccessPolicy, AccessToken, UnverifiedAccessToken};

pub(crate) const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "relay.example";

/// The keys of everybody, two clocks, and what is on the wire.
pub(crate) struct Pair {
    pub(crate) relay_key: SigningKey,
    pub(crate) device_key: SigningKey,
    pub(crate) issuer_key: SigningKey,
    pub(crate) device_clock: u64,
    pub(crate) relay_clock: u64,
    /// Records under way. An adversary drops, swaps, repeats and changes what is in here.
    pub(crate) to_relay: VecDeque<Vec<u8>>,
    pub(crate) to_device: VecDeque<Vec<u8>>,
}

/// A message of the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flight {
    Hello,
    Accept,
    Finish,
}

/// Which end found what.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Device(LinkError),
    Relay(LinkError),
}

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Seed::new([seed; 32]))
}

pub(crate) fn device_rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([1; 32])
}

pub(crate) fn relay_rng() -> ChaCha20Rng {
    ChaCha20Rng::from_seed([2; 32])
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self {
            relay_key: key(11),
            device_key: key(12),
            issuer_key: key(13),
            device_clock: NOW,
            relay_clock: NOW,
            to_relay: VecDeque::new(),
            to_device: VecDeque::new(),
        }
    }

    /// A token of alice for `device`, as its issuer signs it.
    pub(crate) fn token_for(&self, device: Thumbprint) -> Vec<u8> {
        self.token_of(ISSUER, "alice", device)
    }

    pub(crate) fn token_of(&self, issuer: &str, user: &str, device: Thumbprint) -> Vec<u8> {
        let header = base64url::encode(br#"{"alg":"EdDSA","typ":"at+jwt"}"#);
        let (expires, issued) = (NOW + 3600, NOW - 10);
        let payload = base64url::encode(
            format!(
                r#"{{"iss":"{issuer}","sub":"{user}","aud":"{AUDIENCE}","exp":{expires},"iat":{issued},"cnf":{{"jkt":"{device}"}},"scope":"sealwire:send"}}"#
            )
            .as_bytes(),
        );
        let input = format!("{header}.{payload}");
        let signature = base64url::encode(&self.issuer_key.sign(input.as_bytes()));
        format!("{input}.{signature}").into_bytes()
    }

    pub(crate) fn token(&self) -> Vec<u8> {
        self.token_for(self.device_key.thumbprint())
    }

    pub(crate) fn verified(&self, token: &[u8]) -> AccessToken {
        self.verified_of(ISSUER, token)
    }

    pub(crate) fn verified_of(&self, issuer: &str, token: &[u8]) -> AccessToken {
        let keys = Ed25519KeySet::single(*self.issuer_key.public());
        let issuer = Issuer::new(issuer).unwrap();
        let policy = AccessPolicy {
            issuer: &issuer,
            audience: AUDIENCE,
            now: self.relay_clock,
        };
        UnverifiedAccessToken::parse(token)
            .unwrap()
            .verify(&keys, &policy)
            .unwrap()
    }

    /// The same Hello every time: a test can do one step over and over.
    pub(crate) fn hello(&self) -> (DeviceHello, Vec<u8>) {
        DeviceHello::start(&mut device_rng())
    }

    /// The same Accept every time for the same Hello.
    pub(crate) fn accept(&self, hello: &[u8]) -> Result<(RelayAccept, Vec<u8>), LinkError> {
        self.accept_after_upgrade(hello, None)
    }

    pub(crate) fn accept_after_upgrade(
        &self,
        hello: &[u8],
        upgrade: Option<&AccessToken>,
    ) -> Result<(RelayAccept, Vec<u8>), LinkError> {
        RelayHandshake::new(&self.relay_key, upgrade).on_hello(
            hello,
            &mut relay_rng(),
            self.relay_clock,
        )
    }

    pub(crate) fn finish(
        &self,
        state: DeviceHello,
        accept: &[u8],
        credential: Credential<'_>,
    ) -> Result<(DeviceLink, Vec<u8>), LinkError> {
        self.finish_with(state, accept, credential, &[self.relay_key.thumbprint()])
    }

    pub(crate) fn finish_with(
        &self,
        state: DeviceHello,
        accept: &[u8],
        credential: Credential<'_>,
        relays: &[Thumbprint],
    ) -> Result<(DeviceLink, Vec<u8>), LinkError> {
        state.on_accept(
            accept,
            &DeviceTerms {
                relays,
                key: &self.device_key,
                credential,
                now: self.device_clock,
            },
        )
    }

    /// A whole handshake with a token, through an adversary who may change every flight.
    pub(crate) fn handshake(
        &self,
        mut adversary: impl FnMut(Flight, &mut Vec<u8>),
    ) -> Result<(DeviceLink, RelayLink), Failure> {
        let token = self.token();
        let (device, mut hello) = self.hello();
        adversary(Flight::Hello, &mut hello);
        let (relay, mut accept) = self.accept(&hello).map_err(Failure::Relay)?;
        adversary(Flight::Accept, &mut accept);
        let (device, mut finish) = self
            .finish(device, &accept, Credential::Token(&token))
            .map_err(Failure::Device)?;
        adversary(Flight::Finish, &mut finish);
        let peer = relay.on_finish(&finish).map_err(Failure::Relay)?;
        let peer = peer.prove(self.relay_clock).map_err(Failure::Relay)?;
        let relay = peer
            .authorise(self.verified(&token))
            .map_err(Failure::Relay)?;
        Ok((device, relay))
    }

    /// A link on which Ready has arrived.
    pub(crate) fn link(&self) -> (DeviceLink, RelayLink) {
        let (mut device, mut relay) = self.handshake(|_, _| {}).unwrap();
        let mut record = relay
            .seal_frame(&ready(self.device_key.thumbprint()))
            .unwrap();
        assert_eq!(device.handle_message(&mut record).unwrap().len(), 1);
        (device, relay)
    }

    pub(crate) fn send(&mut self, device: &mut DeviceLink, frame: &ToRelay<'_>) {
        self.to_relay.push_back(device.seal_frame(frame).unwrap());
    }

    /// Delivers what is on the wire to the relay until something is wrong. Gives the positions acknowledged.
    pub(crate) fn deliver_acks(&mut self, relay: &mut RelayLink) -> Result<Vec<u64>, LinkError> {
        let mut positions = Vec::new();
        while let Some(mut record) = self.to_relay.pop_front() {
            for frame in relay.handle_message(&mut record)? {
                match frame {
                    ToRelay::Ack { position } => positions.push(position),
                    other => panic!("not an Ack: {other:?}"),
                }
            }
        }
        Ok(positions)
    }

    /// The same in the other direction: the requests accepted.
    pub(crate) fn deliver_accepted(
        &mut self,
        device: &mut DeviceLink,
    ) -> Result<Vec<u32>, LinkError> {
        let mut requests = Vec::new();
        while let Some(mut record) = self.to_device.pop_front() {
            for frame in device.handle_message(&mut record)? {
                match frame {
                    ToDevice::Accepted { request } => requests.push(request),
                    other => panic!("not an Accepted: {other:?}"),
                }
            }
        }
        Ok(requests)
    }
}

pub(crate) fn ready(device: Thumbprint) -> ToDevice<'static> {
    ToDevice::Ready(Ready {
        device,
        user: "alice",
        time: NOW,
        token_expires: NOW + 3600,
        max_message: 98_304,
        has_card: false,
        prekeys: 0,
        epoch: [7; 16],
        acknowledged: 0,
        head: 0,
        sent: 0,
        waiting: 0,
    })
}
