//! What the relay has of a conversation: neither its words nor any key of its devices, in nothing that it stored and nothing that anybody
//! logged.
//!
//! ```text
//! two devices talk over TLS, one of them away for a while ── every state of their stores ── secrets ──┐
//! the relay's directory, every file; every log line at the finest level ── haystacks ── search ───────┴── none found
//! ```
//! Each secret is looked for as it is and in every encoding it could have been written in. That the search would find it is shown
//! with what is there.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "all of this is test code, also what is not marked as a test"
)]

mod logs;
mod search;
mod store;

use std::path::Path;

use sealwire_client::{Message, Thumbprint};
use sealwire_protocol::base64url;
use sealwire_tests::{Account, Device, Issuer, Town, Wish, within};

use crate::search::{Haystack, Needle};
use crate::store::Recorder;

/// Said by alice, by bob, and by alice while bob is away. None of it is like anything else that is written anywhere.
const WORDS: [&str; 3] = [
    "Zaphodbeeblebrox schläft im Wäscheschrank",
    "quixotische Murmeltiere pfeifen Fugen",
    "der Schlüssel liegt unter dem dritten Oleander",
];

#[tokio::test]
async fn relay_and_logs_have_neither_words_nor_keys_of_a_conversation() {
    let logs = logs::capture();
    let mut town = Town::new().await;
    let (alice_invitation, bob_invitation) = (town.invite("alice").await, town.invite("bob").await);
    let codes =
        [&alice_invitation, &bob_invitation].map(|invitation| invitation.code.expose().to_vec());
    let (alice_store, bob_store) = (Recorder::default(), Recorder::default());
    let alice = alice_store
        .used_by(town.invited(&alice_invitation))
        .arrive()
        .await;
    let bob = bob_store
        .used_by(town.invited(&bob_invitation))
        .arrive()
        .await;
    let devices = [alice.thumbprint(), bob.thumbprint()];
    let (alice, bob) = converse(alice, bob).await;

    let accounts = [(&alice_store, &alice), (&bob_store, &bob)];
    let mut secrets: Vec<Needle> = WORDS
        .iter()
        .map(|words| Needle::text("words", words))
        .collect();
    let mut tokens = Vec::new();
    for (store, account) in accounts {
        let seen = store.secrets(&account.key);
        assert!(seen.found_all(), "{seen:?}");
        secrets.extend(seen.keys);
        tokens.extend(seen.attestations);
        secrets.push(Needle::bytes("key of the device store", &account.key));
    }
    secrets.extend(codes.iter().map(|code| Needle::bytes("invite code", code)));
    assert!(tokens.len() >= 2);

    // While it runs, and what is left of it on its disk.
    let running = stored(&town.data());
    town.stop().await;
    let stopped = stored(&town.data());
    let logged = Haystack::new("the logs", logs.bytes());
    search::none_found(&secrets, running.iter().chain(&stopped).chain([&logged]));

    // A token is a credential, and part of what every card and first message shows: it may be stored, and not logged.
    let tokens: Vec<Needle> = tokens
        .iter()
        .map(|token| Needle::text("access token", token))
        .collect();
    search::none_found(&tokens, [&logged]);

    // What is there is found: in the directory's files and in the logs.
    for needle in tokens
        .iter()
        .chain(&devices.map(|device| Needle::bytes("device", device.as_bytes())))
    {
        assert!(
            stopped.iter().any(|file| file.has(needle)),
            "{needle:?} is stored"
        );
    }
    assert!(stopped.iter().any(|file| file.has(&Needle::bytes(
        "the relay's own key",
        &relay_seed(&town.data())
    ))));
    assert!(logged.has(&Needle::text("relay listening", "relay listening")));
    assert!(
        logged.len() > 10_000,
        "the finest level is logged: {} bytes",
        logged.len()
    );
}

/// The same for tokens of an identity provider, which travel in every handshake and refresh.
#[tokio::test]
async fn tokens_of_an_identity_provider_are_in_no_log() {
    let logs = logs::capture();
    let issuer = Issuer::ed25519();
    let town = Town::of(&issuer).await;
    let given = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (signer, kept) = (issuer.clone(), given.clone());
    let (asks, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let credential = sealwire_tests::Credential::tokens(move |device: Thumbprint| {
        let wish = Wish {
            expires: if kept.lock().unwrap().is_empty() {
                4
            } else {
                3_600
            },
            ..Wish::of("alice")
        };
        kept.lock().unwrap().push(signer.token(device, &wish));
        asks.send(()).unwrap();
        Ok(kept.lock().unwrap().last().unwrap().clone())
    });
    let alice = town.account(issuer.trusted(), credential).arrive().await;
    let bob = town
        .account(issuer.trusted(), issuer.grants(Wish::of("bob")))
        .arrive()
        .await;
    // Until the first token has been refreshed.
    for _ in 0..2 {
        within("another token to be asked for", asked.recv())
            .await
            .unwrap();
        alice.send("bob", WORDS[0]).await;
        assert_eq!(bob.text().await.1, WORDS[0]);
    }
    // A token that is refused is no less secret.
    let refused = issuer.token(
        alice.thumbprint(),
        &Wish {
            expires: -3_600,
            issued: -7_200,
            ..Wish::of("alice")
        },
    );
    let nonsense = "this is not a token but might be a password";
    for token in [refused.clone(), nonsense.to_owned()] {
        let credential = sealwire_tests::Credential::tokens(move |_| Ok(token.clone()));
        town.account(issuer.trusted(), credential)
            .is_refused()
            .await;
    }

    let mut needles: Vec<Needle> = given
        .lock()
        .unwrap()
        .iter()
        .map(|token| Needle::text("token", token))
        .collect();
    needles.push(Needle::text("refused token", &refused));
    needles.push(Needle::text("nonsense", nonsense));
    search::none_found(&needles, [&Haystack::new("the logs", logs.bytes())]);
}

/// Both write, also while bob is away, and leave. The stores have recorded everything.
async fn converse(alice: Device, bob: Device) -> (Account, Account) {
    alice.send("bob", WORDS[0]).await;
    assert_eq!(bob.text().await.1, WORDS[0]);
    bob.send("alice", WORDS[1]).await;
    assert_eq!(alice.text().await.1, WORDS[1]);
    let bob = bob.leave().await;
    let receipt = alice.send("bob", WORDS[2]).await;
    let words = Message::new("application/octet-stream", WORDS[2].as_bytes());
    sealwire_tests::within("bytes to be accepted", alice.client.send("bob", words))
        .await
        .unwrap();
    let bob = bob.arrive().await;
    assert_eq!(bob.text().await.1, WORDS[2]);
    assert_eq!(bob.message().await.message.body(), WORDS[2].as_bytes());
    sealwire_tests::within("the receipt", receipt.delivered())
        .await
        .unwrap();
    (alice.leave().await, bob.leave().await)
}

/// Every file under `directory`.
fn stored(directory: &Path) -> Vec<Haystack> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(stored(&path));
        } else if path.is_file() {
            // Not the operator's socket.
            files.push(Haystack::new(
                path.to_str().unwrap(),
                std::fs::read(&path).unwrap(),
            ));
        }
    }
    assert!(
        !files.is_empty() || directory.ends_with("invites") || directory.ends_with("blobs"),
        "{}",
        directory.display()
    );
    files
}

/// The relay's own secret, which is where an operator would expect it.
fn relay_seed(data: &Path) -> Vec<u8> {
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(data.join("relay.key")).unwrap()).unwrap();
    base64url::decode(json["d"].as_str().unwrap().as_bytes()).unwrap()
}
