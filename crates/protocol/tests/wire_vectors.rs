//! Runs the vectors in `vectors/wire`, which `vectors/README.md` describes.
#![expect(clippy::unwrap_used, reason = "a test says by it what has to succeed")]

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use sealwire_protocol::codec::{DecodeError, Reader};
use sealwire_protocol::frame::{Frame, List, OneTimePrekey, Part, ToDevice, ToRelay};
use serde_json::{Value, json};

/// docs/protocol.md §5
#[test]
fn every_frame_vector_decodes_or_is_refused_as_it_says() {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let listed = fs::read_to_string(vectors.join("wire.txt")).unwrap();
    let listed: BTreeSet<String> = listed.lines().map(|name| format!("{name}.json")).collect();
    let entries = fs::read_dir(vectors.join("wire")).unwrap();
    let present: BTreeSet<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(
        listed, present,
        "a vector is missing, or is not listed in wire.txt"
    );

    let (mut accepted, mut refused) = (0, 0);
    for name in &listed {
        let vector: Value =
            serde_json::from_slice(&fs::read(vectors.join("wire").join(name)).unwrap()).unwrap();
        assert!(
            vector["spec"]
                .as_str()
                .unwrap()
                .starts_with("docs/protocol.md §"),
            "{name}"
        );
        let input = unhex(vector["input"].as_str().unwrap());
        let outcome = match vector["operation"].as_str().unwrap() {
            "to_relay" => run(&input, to_relay),
            operation => {
                assert_eq!(operation, "to_device", "{name}");
                run(&input, to_device)
            }
        };
        if vector["error"].is_null() {
            assert_eq!(outcome.as_ref(), Ok(&vector["fields"]), "{name}");
            accepted += 1;
        } else {
            let error = outcome.unwrap_err();
            assert_eq!(
                Some(format!("{error:?}").as_str()),
                vector["error"].as_str(),
                "{name}"
            );
            refused += 1;
        }
    }
    assert!(
        refused > 3 * accepted,
        "{accepted} accepted, {refused} refused"
    );
}

/// Decodes one frame and nothing after it, and encodes it to the same bytes.
fn run<'a, F: Frame<'a>>(
    input: &'a [u8],
    fields: impl FnOnce(&F) -> Value,
) -> Result<Value, DecodeError> {
    let mut reader = Reader::new(input);
    let frame = F::decode(&mut reader)?;
    reader.finish()?;
    let mut again = Vec::new();
    frame.encode(&mut again).unwrap();
    assert_eq!(again, input, "there is one encoding");
    Ok(fields(&frame))
}

fn to_relay(frame: &ToRelay<'_>) -> Value {
    match frame {
        ToRelay::Send(send) => json!({
            "type": "Send", "request": send.request, "sequence": send.sequence.to_string(), "id": hex(&send.id),
            "user": send.user, "whole": send.whole, "parts": parts(&send.parts), "copies": parts(&send.copies),
        }),
        ToRelay::Ack { position } => json!({"type": "Ack", "position": position.to_string()}),
        ToRelay::PublishCard { request, card } => {
            json!({"type": "PublishCard", "request": request, "card": hex(card)})
        }
        ToRelay::PublishPrekeys {
            request,
            replace,
            prekeys,
        } => {
            json!({"type": "PublishPrekeys", "request": request, "replace": replace, "prekeys": prekeys.iter().map(prekey).collect::<Vec<_>>()})
        }
        ToRelay::FetchCards {
            request,
            user,
            take,
        } => {
            json!({"type": "FetchCards", "request": request, "user": user, "take": take})
        }
        ToRelay::Refresh {
            request,
            proof,
            token,
        } => {
            json!({"type": "Refresh", "request": request, "proof": hex(proof), "token": hex(token)})
        }
        ToRelay::RemoveDevice { request, device } => {
            json!({"type": "RemoveDevice", "request": request, "device": hex(device.as_bytes())})
        }
        ToRelay::Upload(upload) => json!({
            "type": "Upload", "request": upload.request, "blob": hex(&upload.blob), "size": upload.size.to_string(),
            "offset": upload.offset.to_string(), "data": hex(upload.data),
        }),
        ToRelay::Download {
            request,
            blob,
            offset,
            length,
        } => json!({
            "type": "Download", "request": request, "blob": hex(blob), "offset": offset.to_string(), "length": length,
        }),
        ToRelay::Discard { request, blob } => {
            json!({"type": "Discard", "request": request, "blob": hex(blob)})
        }
        ToRelay::Call(call) => json!({
            "type": "Call", "request": call.request, "reply": call.reply, "service": call.service, "payload": hex(call.payload),
        }),
    }
}

fn to_device(frame: &ToDevice<'_>) -> Value {
    match frame {
        ToDevice::Ready(ready) => json!({
            "type": "Ready", "device": hex(ready.device.as_bytes()), "user": ready.user, "time": ready.time.to_string(),
            "token_expires": ready.token_expires.to_string(), "max_message": ready.max_message,
            "has_card": ready.has_card, "prekeys": ready.prekeys, "epoch": hex(&ready.epoch),
            "acknowledged": ready.acknowledged.to_string(), "head": ready.head.to_string(),
            "sent": ready.sent.to_string(), "waiting": ready.waiting,
        }),
        ToDevice::Accepted { request } => json!({"type": "Accepted", "request": request}),
        ToDevice::Refused { request, code } => {
            json!({"type": "Refused", "request": request, "code": code.name()})
        }
        ToDevice::Deliver(deliver) => json!({
            "type": "Deliver", "position": deliver.position.to_string(), "id": hex(&deliver.id), "user": deliver.user,
            "device": hex(deliver.device.as_bytes()), "time": deliver.time.to_string(), "message": hex(deliver.message),
        }),
        ToDevice::Cards { request, entries } => json!({
            "type": "Cards", "request": request,
            "entries": entries.iter()
                .map(|entry| json!({"card": hex(entry.card), "prekey": entry.prekey.map(prekey)}))
                .collect::<Vec<_>>(),
        }),
        ToDevice::Token {
            request,
            expires,
            token,
        } => {
            json!({"type": "Token", "request": request, "expires": expires.to_string(), "token": hex(token)})
        }
        ToDevice::DeviceChanged { user } => json!({"type": "DeviceChanged", "user": user}),
        ToDevice::Undelivered(undelivered) => json!({
            "type": "Undelivered", "position": undelivered.position.to_string(), "id": hex(&undelivered.id),
            "user": undelivered.user, "device": hex(undelivered.device.as_bytes()), "reason": undelivered.reason.code(),
        }),
        ToDevice::Damaged { position } => {
            json!({"type": "Damaged", "position": position.to_string()})
        }
        ToDevice::Blob(blob) => json!({
            "type": "Blob", "request": blob.request, "length": blob.length.to_string(), "size": blob.size.to_string(),
            "complete": blob.complete, "data": hex(blob.data),
        }),
        ToDevice::Result { request, payload } => {
            json!({"type": "Result", "request": request, "payload": hex(payload)})
        }
        ToDevice::Push(push) => {
            json!({"type": "Push", "service": push.service, "payload": hex(push.payload)})
        }
        ToDevice::Expiring { expires } => {
            json!({"type": "Expiring", "expires": expires.to_string()})
        }
        ToDevice::Leaving { after } => json!({"type": "Leaving", "after": after}),
    }
}

fn parts(parts: &List<'_, Part<'_>>) -> Vec<Value> {
    parts
        .iter()
        .map(|part| json!({"device": hex(part.device.as_bytes()), "message": hex(part.message)}))
        .collect()
}

fn prekey(prekey: OneTimePrekey<'_>) -> Value {
    json!({
        "id": prekey.id, "x25519": hex(prekey.x25519), "kem_key": hex(prekey.kem_key), "signature": hex(prekey.signature),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16).unwrap()).unwrap())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit))
        .collect()
}
