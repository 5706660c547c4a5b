//! Writes `seeds/`: honest input for every target, from fixed randomness. Damage is libFuzzer's business.

use std::{fs, io, path::Path};

use sealwire_e2e::content::{Content, Kind};
use sealwire_e2e::file::{FileKey, FileOffer};
use sealwire_e2e::message::SealedMessage;
use sealwire_fuzz::{
    AWAITS_ACCEPT, AWAITS_FINISH, AWAITS_FINISH_SECRET, AWAITS_HELLO, LINKED, World,
};
use sealwire_protocol::frame::{
    Blob, Call, Deliver, Frame, Part, Push, Send, ToDevice, ToRelay, Undelivered,
    UndeliveredReason, Upload,
};
use sealwire_protocol::handshake::{DeviceHello, RelayHandshake};
use sealwire_protocol::proof::DeviceProof;

fn main() -> io::Result<()> {
    let world = World::shared();
    let mut rng = World::rng(2);

    let message = &world.sealed[0];
    let parts = [Part {
        device: world.bob.keys.thumbprint(),
        message,
    }];
    let send = ToRelay::Send(Send {
        request: 1,
        sequence: 1,
        id: [1; 16],
        user: "bob",
        whole: true,
        parts: parts.as_slice().into(),
        copies: parts.as_slice().into(),
    });
    let deliver = ToDevice::Deliver(Deliver {
        position: 9,
        id: [1; 16],
        user: "alice",
        device: world.alice.keys.thumbprint(),
        time: 1_800_000_000_000,
        message,
    });
    let mut batch = Vec::new();
    for frame in [
        ToRelay::Ack { position: 7 },
        ToRelay::FetchCards {
            request: 2,
            user: "bob",
            take: true,
        },
        ToRelay::PublishCard {
            request: 3,
            card: world.bob.card.as_bytes(),
        },
        ToRelay::RemoveDevice {
            request: 4,
            device: world.bob.keys.thumbprint(),
        },
        ToRelay::Upload(Upload {
            request: 5,
            blob: [5; 32],
            size: 70_000,
            offset: 6,
            data: b"sealed",
        }),
        ToRelay::Download {
            request: 6,
            blob: [5; 32],
            offset: 6,
            length: 131_072,
        },
        ToRelay::Discard {
            request: 7,
            blob: [5; 32],
        },
        ToRelay::Call(Call {
            request: 8,
            reply: true,
            service: "orders.create",
            payload: b"order",
        }),
    ] {
        frame.encode(&mut batch).expect("within bounds");
    }
    write("frames", "send", &encoded(&send))?;
    write("frames", "deliver", &encoded(&deliver))?;
    write("frames", "batch", &batch)?;
    let mut notices = Vec::new();
    for frame in [
        ToDevice::Undelivered(Undelivered {
            position: 10,
            id: [1; 16],
            user: "bob",
            device: world.bob.keys.thumbprint(),
            reason: UndeliveredReason::Expired,
        }),
        ToDevice::Damaged { position: 11 },
        ToDevice::Expiring {
            expires: 1_800_000_000,
        },
        ToDevice::Result {
            request: 8,
            payload: b"done",
        },
        ToDevice::Push(Push {
            service: "orders.changed",
            payload: b"order",
        }),
        ToDevice::Blob(Blob {
            request: 5,
            length: 12,
            size: 70_000,
            complete: false,
            data: b"sealed",
        }),
    ] {
        frame.encode(&mut notices).expect("within bounds");
    }
    write("frames", "notices", &notices)?;
    let ids = [[1; 16], [2; 16]];
    for (name, kind) in [
        ("content_resend", Kind::Resend(ids.as_slice().into())),
        ("content_name", Kind::Name("phone")),
    ] {
        let (id, time) = ([3; 16], 1_800_000_000_000);
        let content = Content { id, time, kind };
        write(
            "sealed_message",
            name,
            &content.encode().expect("within bounds"),
        )?;
    }
    let offer = FileOffer {
        blob: [5; 32],
        key: FileKey::from_bytes(&[6; 32]),
        size: 70_000,
        sha256: [7; 32],
        name: "photo.jpg",
        media_type: "image/jpeg",
    };
    write(
        "sealed_message",
        "file_offer",
        &offer.encode().expect("within bounds"),
    )?;
    write(
        "frames",
        "accepted",
        &encoded(&ToDevice::Accepted { request: 1 }),
    )?;

    let proof = DeviceProof {
        relay: world.relay.thumbprint(),
        transcript: [1; 32],
        credential: [2; 32],
    };
    write("jws", "access_token", world.alice.token.as_bytes())?;
    write("jws", "card", world.bob.card.as_bytes())?;
    write(
        "jws",
        "device_proof",
        proof.sign(world.alice.keys.signing(), world.now).as_bytes(),
    )?;
    write(
        "jws",
        "json",
        br#"{"a":[1,-2.5e3,"\u00e9\ud83d\ude00"],"b":{"c":null,"d":true}}"#,
    )?;
    write(
        "jws",
        "address",
        b"wss://relay.example:443/v1#NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    )?;

    for (name, sealed) in ["first", "second", "third", "fourth", "fifth"]
        .iter()
        .zip(&world.sealed)
    {
        let message = SealedMessage::decode(sealed).expect("sealed");
        write("sealed_message", &format!("{name}_binary"), sealed)?;
        write(
            "sealed_message",
            &format!("{name}_jwe"),
            message.to_jwe().as_bytes(),
        )?;
        write("ratchet", name, sealed)?;
    }

    let (device, hello) = DeviceHello::start(&mut rng);
    let (_, accept) = RelayHandshake::new(&world.relay, None)
        .on_hello(&hello, &mut rng, world.now)
        .expect("an honest Hello");
    let (mut link, finish) = device
        .on_accept(&accept, &world.terms())
        .expect("an honest Accept");
    let record = link
        .seal_frame(&ToRelay::Ack { position: 1 })
        .expect("sealed");
    for (name, state, message) in [
        ("hello", AWAITS_HELLO, &hello),
        ("accept", AWAITS_ACCEPT, &accept),
        ("finish", AWAITS_FINISH, &finish),
        ("finish_secret", AWAITS_FINISH_SECRET, &world.finish_secret),
        ("record", LINKED, &record),
    ] {
        let input = [&[state], message.as_slice()].concat();
        write("link_handshake", name, &input)?;
    }
    Ok(())
}

fn encoded<'a>(frame: &impl Frame<'a>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out).expect("within bounds");
    out
}

fn write(target: &str, name: &str, data: &[u8]) -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), data)
}
