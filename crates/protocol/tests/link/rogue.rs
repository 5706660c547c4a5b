//! Peers with real keys and no manners. They are written from docs/protocol.md §3 and §4 with nothing but the suite, so that a
//! handshake between one of them and the crate also shows that the specification says enough.

use sealwire_protocol::crypto::{
    AeadKey, KemDecapsulationKey, KemEncapsulationKey, Label, Prk, Secret, X25519PublicKey,
    X25519Secret, sha256,
};

use super::pair::{device_rng, relay_rng};

/// A rogue that shares keys with its peer.
pub(crate) struct Rogue {
    prk: Prk,
    pub(crate) t1: [u8; 32],
    pub(crate) t2: [u8; 32],
    pub(crate) t3: [u8; 32],
}

/// A rogue device that sent Hello.
pub(crate) struct RogueDevice {
    x25519: X25519Secret,
    kem: KemDecapsulationKey,
    pub(crate) hello: Vec<u8>,
}

impl RogueDevice {
    pub(crate) fn new() -> Self {
        let rng = &mut device_rng();
        let x25519 = X25519Secret::generate(rng);
        let kem = KemDecapsulationKey::generate(rng);
        let hello = hello(
            x25519.public_key().as_bytes(),
            &kem.encapsulation_key().to_bytes(),
        );
        Self { x25519, kem, hello }
    }

    /// Takes Accept without checking anything. The second value is AcceptSecret.
    pub(crate) fn on_accept(&self, accept: &[u8]) -> (Rogue, Vec<u8>) {
        let theirs = X25519PublicKey::from_bytes(accept[33..65].try_into().unwrap());
        let ss = self.kem.decapsulate(accept[65..1153].try_into().unwrap());
        let prk = prk(&self.x25519.diffie_hellman(&theirs).unwrap(), &ss);
        let (head, sealed) = (&accept[..1153], &accept[1155..]);
        let t1 = sha256(&[b"sealwire/1 link transcript", &self.hello, head]);
        let secret = unseal(&prk, KEYS_ACCEPT, &t1, sealed);
        (
            Rogue {
                prk,
                t1,
                t2: sha256(&[&t1, sealed]),
                t3: [0; 32],
            },
            secret,
        )
    }
}

/// Hello with the given keys.
pub(crate) fn hello(x25519: &[u8; 32], kem_key: &[u8]) -> Vec<u8> {
    [&[1, 0, 1], [0x5a; 32].as_slice(), x25519, kem_key].concat()
}

/// A rogue relay's Accept with the given X25519 key in it, whatever it really has. `secret` makes AcceptSecret from t1.
pub(crate) fn rogue_accept(
    hello: &[u8],
    x25519: Option<[u8; 32]>,
    secret: impl FnOnce(&[u8; 32]) -> Vec<u8>,
) -> (Rogue, Vec<u8>) {
    let rng = &mut relay_rng();
    let mine = X25519Secret::generate(rng);
    let theirs = X25519PublicKey::from_bytes(hello[35..67].try_into().unwrap());
    let kem_key = KemEncapsulationKey::decode(hello[67..].try_into().unwrap()).unwrap();
    let (ciphertext, ss) = kem_key.encapsulate(rng);
    let prk = prk(&mine.diffie_hellman(&theirs).unwrap(), &ss);
    let shown = x25519.unwrap_or(*mine.public_key().as_bytes());
    let mut accept = [&[2], [0xa5; 32].as_slice(), &shown, &ciphertext].concat();
    let t1 = sha256(&[b"sealwire/1 link transcript", hello, &accept]);
    let sealed = seal(&prk, KEYS_ACCEPT, &t1, secret(&t1));
    accept.extend(u16::try_from(sealed.len()).unwrap().to_be_bytes());
    accept.extend(&sealed);
    (
        Rogue {
            prk,
            t1,
            t2: sha256(&[&t1, &sealed]),
            t3: [0; 32],
        },
        accept,
    )
}

impl Rogue {
    /// Finish with any FinishSecret.
    pub(crate) fn finish(&mut self, secret: Vec<u8>) -> Vec<u8> {
        let sealed = seal(&self.prk, KEYS_FINISH, &self.t2, secret);
        self.t3 = sha256(&[&self.t2, &sealed]);
        [
            &[3],
            u16::try_from(sealed.len())
                .unwrap()
                .to_be_bytes()
                .as_slice(),
            &sealed,
        ]
        .concat()
    }

    /// FinishSecret out of a Finish that was meant for this rogue relay.
    pub(crate) fn on_finish(&mut self, finish: &[u8]) -> Vec<u8> {
        self.t3 = sha256(&[&self.t2, &finish[3..]]);
        unseal(&self.prk, KEYS_FINISH, &self.t2, &finish[3..])
    }

    /// The first record from this rogue device or relay, with any plaintext.
    pub(crate) fn first_record(&self, from: Sender, plaintext: &[u8]) -> Vec<u8> {
        let label = match from {
            Sender::Device => Label::new("sealwire/1 link device secret"),
            Sender::Relay => Label::new("sealwire/1 link relay secret"),
        };
        let secret = Prk::from_secret(self.prk.expand(label, &self.t3));
        let key = AeadKey::new(secret.expand(Label::new("sealwire/1 link record key"), b""));
        let iv: Secret<12> = secret.expand(Label::new("sealwire/1 link record iv"), b"");
        let mut text = plaintext.to_vec();
        let tag = key.seal(iv.expose(), &[4], &mut text).unwrap();
        [&[4], text.as_slice(), &tag].concat()
    }
}

#[derive(Clone, Copy)]
pub(crate) enum Sender {
    Device,
    Relay,
}

/// FinishSecret.
pub(crate) fn finish_secret(
    kind: u8,
    device_key: &[u8; 32],
    proof: &[u8],
    credential: &[u8],
) -> Vec<u8> {
    [
        &[kind],
        device_key.as_slice(),
        &vec16(proof),
        &vec16(credential),
    ]
    .concat()
}

/// AcceptSecret.
pub(crate) fn accept_secret(relay_key: &[u8; 32], proof: &[u8]) -> Vec<u8> {
    [relay_key.as_slice(), &vec16(proof)].concat()
}

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

type Labels = (Label, Label);
const KEYS_ACCEPT: Labels = (
    Label::new("sealwire/1 link accept key"),
    Label::new("sealwire/1 link accept iv"),
);
const KEYS_FINISH: Labels = (
    Label::new("sealwire/1 link finish key"),
    Label::new("sealwire/1 link finish iv"),
);

fn prk(x25519: &Secret<32>, kem: &Secret<32>) -> Prk {
    Prk::extract(b"sealwire/1 link", &[x25519.expose(), kem.expose()])
}

fn seal(prk: &Prk, labels: Labels, t: &[u8; 32], mut secret: Vec<u8>) -> Vec<u8> {
    let iv: Secret<12> = prk.expand(labels.1, t);
    let tag = AeadKey::new(prk.expand(labels.0, t))
        .seal(iv.expose(), t, &mut secret)
        .unwrap();
    [secret.as_slice(), &tag].concat()
}

fn unseal(prk: &Prk, labels: Labels, t: &[u8; 32], sealed: &[u8]) -> Vec<u8> {
    let iv: Secret<12> = prk.expand(labels.1, t);
    let (text, tag) = sealed.split_last_chunk().unwrap();
    let mut text = text.to_vec();
    AeadKey::new(prk.expand(labels.0, t))
        .open(iv.expose(), t, &mut text, tag)
        .unwrap();
    text
}
