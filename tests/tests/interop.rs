//! Other people's JOSE: npm's `jose`, PyPI's `jwcrypto`, and josekit by itself, each way round.
//!
//! ```text
//! issuer's tokens     theirs ── TokenVerifier        ours ── their verification
//! standard JWE        theirs ── jwe::open_with       ours ── their decryption
//! sealed messages                                    ours, as JWE with its message key ── their decryption
//! ```
//! `tests/interop/setup.sh` installs the first two. Without them the test says so and passes, unless SEALWIRE_REQUIRE_INTEROP=1.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use sealwire_e2e::message::{
    self, First, Header, KEM_CIPHERTEXT_LEN, MessageKey, ProtectedHeader, SealedMessage,
};
use sealwire_jose::{
    Algorithm, Algorithms, Claims, KeySet, KeyType, OpenError, PrivateKey, SigningKey,
    TokenVerifier,
    jwe::{self, open_with, seal_to},
};
use sealwire_protocol::{base64url, crypto::Secret, key::Thumbprint, name::Issuer};
use serde_json::{Value, json};

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "relay.example";

/// Another implementation: it answers each request, a JSON object, with one.
struct Peer {
    name: &'static str,
    program: PathBuf,
    script: PathBuf,
}

impl Peer {
    /// Starts it for these requests only, and gives its answers, one for each.
    fn ask(&self, requests: &[Value]) -> Vec<Value> {
        let mut child = Command::new(&self.program)
            .arg(&self.script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines: String = requests
            .iter()
            .map(|request| format!("{request}\n"))
            .collect();
        let mut stdin = child.stdin.take().unwrap();
        // From another thread, as both pipes are bounded.
        let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{}", self.name);
        let answers: Vec<Value> = output
            .stdout
            .split(|&byte| byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect();
        assert_eq!(answers.len(), requests.len(), "{}", self.name);
        answers
    }
}

/// Those that are installed: both or, with a word about it, none.
fn peers() -> Vec<Peer> {
    let interop = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("interop");
    let python = interop.join(".venv/bin/python");
    if python.exists() && interop.join("node_modules/jose").exists() {
        return vec![
            Peer {
                name: "npm jose",
                program: "node".into(),
                script: interop.join("node/peer.mjs"),
            },
            Peer {
                name: "jwcrypto",
                program: python,
                script: interop.join("python/peer.py"),
            },
        ];
    }
    let how = "npm jose and jwcrypto are not installed; run tests/interop/setup.sh";
    if std::env::var_os("SEALWIRE_REQUIRE_INTEROP").is_some_and(|required| required == "1") {
        panic!("{how}");
    }
    // Not by a macro, whose output a passing test hides.
    let line = format!("SKIPPED interop: {how}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    Vec::new()
}

fn text<'a>(peer: &Peer, answer: &'a Value, member: &str) -> &'a str {
    let text = answer.get(member).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("{}: {answer}", peer.name))
}

fn decoded(peer: &Peer, answer: &Value, member: &str) -> Vec<u8> {
    base64url::decode(text(peer, answer, member).as_bytes()).unwrap()
}

fn b64(bytes: &[u8]) -> String {
    base64url::encode(bytes)
}

fn issuer_key(algorithm: Algorithm) -> PrivateKey {
    let kind = match algorithm {
        Algorithm::EdDsa => KeyType::Ed25519,
        Algorithm::Es256 => KeyType::P256,
        Algorithm::Es384 => KeyType::P384,
        Algorithm::Ps256 | Algorithm::Rs256 => KeyType::Rsa2048,
        Algorithm::Hs256 => KeyType::Oct,
    };
    let key = PrivateKey::generate(kind)
        .unwrap()
        .with_algorithm(algorithm)
        .unwrap();
    key.with_kid("issuer-1").unwrap()
}

fn private_jwk(key: &PrivateKey) -> Value {
    serde_json::from_str(&key.to_jwk()).unwrap()
}

/// What whoever verifies has: the public half, or the shared secret.
fn verification_jwk(key: &PrivateKey) -> Value {
    key.public().map_or_else(
        || private_jwk(key),
        |public| serde_json::from_str(&public.to_jwk()).unwrap(),
    )
}

fn verifier(key: &PrivateKey) -> TokenVerifier {
    let keys = match key.public() {
        Some(public) => {
            let set = format!(r#"{{"keys":[{}]}}"#, public.to_jwk());
            KeySet::parse(set.as_bytes(), Algorithms::PUBLIC_KEY).unwrap()
        }
        None => KeySet::from_secret(key).unwrap(),
    };
    TokenVerifier::new(Issuer::new(ISSUER).unwrap(), AUDIENCE, keys)
}

fn claims() -> Claims<'static> {
    Claims {
        issuer: ISSUER,
        user: "alice",
        audience: AUDIENCE,
        issued: NOW,
        expires: NOW + 600,
        id: None,
        device: Thumbprint::from_bytes([7; 32]),
        scope: Some("sealwire:send"),
        authorization_details: None,
    }
}

/// docs/protocol.md §2.2
#[test]
fn tokens_signed_by_others_verify_with_us() {
    let keys: Vec<_> = Algorithm::ALL.into_iter().map(issuer_key).collect();
    let payload = b64(&serde_json::to_vec(&claims()).unwrap());
    for peer in peers() {
        let requests: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({
                    "operation": "sign", "jwk": private_jwk(key), "alg": key.algorithm().unwrap().name(),
                    "header": {"typ": "at+jwt", "kid": "issuer-1"}, "payload": payload,
                })
            })
            .collect();
        for (key, answer) in keys.iter().zip(peer.ask(&requests)) {
            let token = text(&peer, &answer, "token");
            let verified = verifier(key).access_token(token.as_bytes(), NOW).unwrap();
            assert_eq!(
                verified.claims().user.as_str(),
                "alice",
                "{} {key:?}",
                peer.name
            );
            // The same token under another key of the same kind.
            let other = issuer_key(key.algorithm().unwrap());
            assert!(
                verifier(&other)
                    .access_token(token.as_bytes(), NOW)
                    .is_err()
            );
        }
    }
}

#[test]
fn tokens_of_ours_verify_with_others() {
    let keys: Vec<_> = Algorithm::ALL.into_iter().map(issuer_key).collect();
    let expected: Value = serde_json::to_value(claims()).unwrap();
    for peer in peers() {
        let request = |key: &PrivateKey, token: &str| json!({"operation": "verify", "jwk": verification_jwk(key), "alg": key.algorithm().unwrap().name(), "token": token});
        let tokens: Vec<_> = keys
            .iter()
            .map(|key| {
                SigningKey::new(key)
                    .unwrap()
                    .access_token(&claims())
                    .unwrap()
            })
            .collect();
        let good: Vec<_> = keys
            .iter()
            .zip(&tokens)
            .map(|(key, token)| request(key, token))
            .collect();
        for (key, answer) in keys.iter().zip(peer.ask(&good)) {
            let payload: Value =
                serde_json::from_slice(&decoded(&peer, &answer, "payload")).unwrap();
            assert_eq!(payload, expected, "{} {key:?}", peer.name);
            assert_eq!(
                answer["header"],
                json!({"alg": key.algorithm().unwrap().name(), "typ": "at+jwt", "kid": "issuer-1"})
            );
        }
        let wrong: Vec<_> = keys
            .iter()
            .zip(tokens.iter().rev())
            .map(|(key, token)| request(key, token))
            .collect();
        for answer in peer.ask(&wrong) {
            assert!(answer.get("error").is_some(), "{}: {answer}", peer.name);
        }
    }
}

/// docs/protocol.md §10
#[test]
fn standard_jwe_by_others_opens_with_us() {
    let device = PrivateKey::generate(KeyType::X25519).unwrap();
    let plaintexts: [&[u8]; 3] = [b"", b"hello", &[0xa5; 50_000]];
    for peer in peers() {
        let requests: Vec<_> = plaintexts
            .iter()
            .map(|plaintext| {
                json!({
                    "operation": "seal", "jwk": verification_jwk(&device), "plaintext": b64(plaintext),
                    "header": {"cty": "JWT", "kid": "device-1"},
                })
            })
            .collect();
        for (plaintext, answer) in plaintexts.iter().zip(peer.ask(&requests)) {
            let compact = text(&peer, &answer, "jwe");
            let opened = open_with(&device, compact.as_bytes())
                .unwrap_or_else(|error| panic!("{}: {error}", peer.name));
            assert_eq!(opened.plaintext.as_slice(), *plaintext, "{}", peer.name);
            assert_eq!(opened.header.cty.as_deref(), Some("JWT"));
            let other = PrivateKey::generate(KeyType::X25519).unwrap();
            assert_eq!(
                open_with(&other, compact.as_bytes()).unwrap_err(),
                OpenError::Decrypt
            );
        }
    }
}

#[test]
fn standard_jwe_of_ours_opens_with_others() {
    let device = PrivateKey::generate(KeyType::X25519).unwrap();
    let header = jwe::Header {
        cty: Some("text/plain".into()),
        ..Default::default()
    };
    for peer in peers() {
        let compact = seal_to(&device.public().unwrap(), b"hello", &header).unwrap();
        let request = |jwk: Value| json!({"operation": "open", "jwk": jwk, "alg": "ECDH-ES+A256KW", "jwe": compact});
        let other = PrivateKey::generate(KeyType::X25519).unwrap();
        let answers = peer.ask(&[request(private_jwk(&device)), request(private_jwk(&other))]);
        assert_eq!(decoded(&peer, &answers[0], "plaintext"), b"hello");
        assert_eq!(answers[0]["header"]["cty"], "text/plain");
        assert!(answers[1].get("error").is_some(), "{}", peer.name);
    }
}

/// RFC 7638, RFC 8037 §2: who a device is, in every language.
#[test]
fn thumbprints_are_the_same_everywhere() {
    let kinds = [
        KeyType::Ed25519,
        KeyType::X25519,
        KeyType::P256,
        KeyType::P384,
        KeyType::Rsa2048,
        KeyType::Oct,
    ];
    let keys: Vec<_> = kinds
        .into_iter()
        .map(|kind| PrivateKey::generate(kind).unwrap())
        .collect();
    for peer in peers() {
        let requests: Vec<_> = keys
            .iter()
            .map(|key| json!({"operation": "thumbprint", "jwk": private_jwk(key)}))
            .collect();
        for (key, answer) in keys.iter().zip(peer.ask(&requests)) {
            assert_eq!(
                text(&peer, &answer, "thumbprint"),
                b64(&key.thumbprint()),
                "{} {key:?}",
                peer.name
            );
        }
    }
}

/// A sealed message in its JWE form, and the JWK of its key (docs/protocol.md §9.2).
fn exported(first: bool, content: &[u8]) -> (String, Value) {
    let kem_ciphertext = [2; KEM_CIPHERTEXT_LEN];
    let first = First {
        device_key: [1; 32],
        ephemeral: [3; 32],
        kem_ciphertext: &kem_ciphertext,
        generation: 4,
        one_time: first.then_some(5),
        proof: "a.b.c",
        attestation: "d.e.f",
    };
    let header = Header {
        session: [6; 16],
        ratchet_key: [9; 32],
        pn: 8,
        n: 9,
        first: first.one_time.map(|_| first),
    };
    let key = MessageKey::new(Secret::take(&mut [0x42; 32]));
    let jwk = serde_json::from_str(&key.export_secret_as_jwk()).unwrap();
    let binary =
        message::seal(&header, key, [10; 12], content, &mut ProtectedHeader::new()).unwrap();
    let jwe = SealedMessage::decode(&binary).unwrap().to_jwe();
    (jwe, jwk)
}

/// docs/protocol.md §9.3: what is inside is the content and its padding.
fn assert_padded(plaintext: &[u8], content: &[u8]) {
    let (head, padding) = plaintext.split_at(content.len());
    assert_eq!(head, content);
    let (marker, zeros) = padding.split_first().unwrap();
    assert_eq!(*marker, 0x80);
    assert!(zeros.iter().all(|&byte| byte == 0));
}

#[test]
fn sealed_message_opens_as_jwe_with_others() {
    let content = b"the content of a message";
    let other_key = json!({"kty": "oct", "k": b64(&[0x43; 32])});
    for peer in peers() {
        for first in [false, true] {
            let (jwe, jwk) = exported(first, content);
            let request =
                |jwk: &Value| json!({"operation": "open", "jwk": jwk, "alg": "dir", "jwe": jwe});
            let answers = peer.ask(&[request(&jwk), request(&other_key)]);
            assert_padded(&decoded(&peer, &answers[0], "plaintext"), content);
            assert_eq!(answers[0]["header"]["typ"], "sealwire+jwe");
            assert_eq!(answers[0]["header"]["n"], 9);
            assert_eq!(answers[0]["header"]["first"].is_object(), first);
            assert!(answers[1].get("error").is_some(), "{}", peer.name);
        }
    }
}

/// The same with josekit, which is always there.
#[test]
fn sealed_message_opens_as_jwe_with_josekit() {
    let content = b"the content of a message";
    for first in [false, true] {
        let (jwe, jwk) = exported(first, content);
        let key = base64url::decode(jwk["k"].as_str().unwrap().as_bytes()).unwrap();
        let decrypter = josekit::jwe::Dir.decrypter_from_bytes(&key).unwrap();
        let (plaintext, header) = josekit::jwe::deserialize_compact(&jwe, &decrypter).unwrap();
        assert_padded(&plaintext, content);
        assert_eq!(header.content_encryption(), Some("A256GCM"));
        let wrong = josekit::jwe::Dir.decrypter_from_bytes([0x43; 32]).unwrap();
        assert!(josekit::jwe::deserialize_compact(&jwe, &wrong).is_err());
    }
}
