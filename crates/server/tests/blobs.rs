//! What the relay does with large content (docs/protocol.md §5, §15).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test fails by panicking"
)]

mod support;

use sealwire_protocol::close::RefusalCode;
use sealwire_protocol::frame::{ToRelay, Upload};
use sealwire_protocol::limits::MAX_BLOB_CHUNK_BYTES;
use sealwire_server::Relay;
use sealwire_server::policy::Allowance;
use serde_json::json;
use support::*;

const ID: [u8; 32] = [7; 32];

/// Uploads a piece of a blob of `size` bytes, and waits for what the relay says.
async fn upload(device: &mut Device, size: u64, offset: u64, data: &[u8]) -> Said {
    let request = device.request();
    device
        .say(&ToRelay::Upload(Upload {
            request,
            blob: ID,
            size,
            offset,
            data,
        }))
        .await;
    device.next().await
}

async fn download(device: &mut Device, blob: [u8; 32], offset: u64, length: u32) -> Said {
    let request = device.request();
    device
        .say(&ToRelay::Download {
            request,
            blob,
            offset,
            length,
        })
        .await;
    device.next().await
}

async fn discard(device: &mut Device) -> Said {
    let request = device.request();
    device.say(&ToRelay::Discard { request, blob: ID }).await;
    device.next().await
}

fn refused(said: &Said) -> RefusalCode {
    match said {
        Said::Refused(_, code) => *code,
        other => panic!("not refused: {other:?}"),
    }
}

/// What a Blob says of how much there is.
fn extent(said: &Said) -> (u64, u64, bool) {
    match said {
        Said::Blob {
            length,
            size,
            complete,
            ..
        } => (*length, *size, *complete),
        other => panic!("no blob: {other:?}"),
    }
}

fn data(said: Said) -> Vec<u8> {
    match said {
        Said::Blob { data, .. } => data,
        other => panic!("no blob: {other:?}"),
    }
}

#[tokio::test]
async fn blob_goes_from_one_device_to_another_and_outlives_the_relay() {
    let issuer = Issuer::new();
    let dir = tempfile::tempdir().unwrap();
    let bind = async || {
        let builder = Relay::builder(dir.path()).tls(sealwire_server::Tls::Plain);
        issuer.configure(builder).bind("127.0.0.1:0").await.unwrap()
    };
    let relay = bind().await;
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let content: Vec<u8> = (0..300_000_u32).map(|at| at.to_be_bytes()[3]).collect();
    let size = content.len() as u64;
    for (index, piece) in content.chunks(MAX_BLOB_CHUNK_BYTES).enumerate() {
        if index == 2 {
            relay.shutdown().await;
            break;
        }
        let offset = (index * MAX_BLOB_CHUNK_BYTES) as u64;
        let said = upload(&mut alice, size, offset, piece).await;
        let length = offset + piece.len() as u64;
        assert_eq!(extent(&said), (length, size, false));
    }
    let relay = bind().await;
    let (mut alice, _) = alice.reconnect(&relay).await;
    let said = upload(&mut alice, size, 0, b"").await;
    let length = 2 * MAX_BLOB_CHUNK_BYTES;
    assert_eq!(extent(&said), (length as u64, size, false));
    let said = upload(&mut alice, size, length as u64, &content[length..]).await;
    assert_eq!(extent(&said), (size, size, true));
    relay.shutdown().await;

    let relay = bind().await;
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    let mut fetched = Vec::new();
    while fetched.len() < content.len() {
        let most = u32::try_from(MAX_BLOB_CHUNK_BYTES).unwrap();
        let said = download(&mut bob, ID, fetched.len() as u64, most).await;
        assert_eq!(extent(&said), (size, size, true));
        fetched.extend(data(said));
    }
    assert!(fetched == content);
}

/// docs/protocol.md §5.3, §15: what is not there and what is another device's look the same to whoever would change it.
#[tokio::test]
async fn foreign_blob_is_as_unknown_as_one_that_is_not_there() {
    let issuer = Issuer::new();
    let relay = issuer.relay().bind("127.0.0.1:0").await.unwrap();
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let mut mallory = Device::join(&relay, &issuer, "mallory").await;
    for _ in 0..2 {
        for said in [
            upload(&mut mallory, 10, 0, b"").await,
            discard(&mut mallory).await,
        ] {
            assert_eq!(refused(&said), RefusalCode::UnknownBlob);
        }
        // The second time it is there, and still is afterwards.
        upload(&mut alice, 10, 0, b"01234").await;
    }
    let said = upload(&mut mallory, 10, 5, b"56789").await;
    assert_eq!(refused(&said), RefusalCode::UnknownBlob);
    let said = upload(&mut alice, 10, 5, b"56789").await;
    assert_eq!(extent(&said), (10, 10, true));
    let said = download(&mut mallory, [8; 32], 0, 10).await;
    assert_eq!(refused(&said), RefusalCode::UnknownBlob);
    assert!(matches!(discard(&mut alice).await, Said::Accepted(_)));
    let said = download(&mut alice, ID, 0, 10).await;
    assert_eq!(refused(&said), RefusalCode::UnknownBlob);
}

/// docs/protocol.md §5.5
#[tokio::test]
async fn token_says_who_may_send_and_fetch_files() {
    let issuer = Issuer::new();
    let relay = issuer.relay().bind("127.0.0.1:0").await.unwrap();
    let with_scope = async |scope: &str| {
        let key = new_key();
        let token = issuer.token_with("alice", &key, &json!({ "scope": scope }));
        Device::connect(&relay, key, token).await.0
    };
    let mut sender = with_scope("sealwire:send").await;
    let mut receiver = with_scope("sealwire:receive").await;
    let said = upload(&mut sender, 10, 0, b"0123456789").await;
    assert_eq!(extent(&said), (10, 10, true));
    let said = download(&mut sender, ID, 0, 10).await;
    assert_eq!(refused(&said), RefusalCode::NotPermitted);
    assert_eq!(data(download(&mut receiver, ID, 2, 3).await), b"234");
    for said in [
        upload(&mut receiver, 10, 0, b"").await,
        discard(&mut receiver).await,
    ] {
        assert_eq!(refused(&said), RefusalCode::NotPermitted);
    }
}

#[tokio::test]
async fn relay_holds_and_moves_no_more_than_it_may() {
    let issuer = Issuer::new();
    let mut allowance = Allowance::default();
    allowance.blobs.bytes_per_user = 10_000;
    allowance.transfer_bytes_per_minute = 20_000;
    let relay = issuer.relay().allowance(allowance);
    let relay = relay.bind("127.0.0.1:0").await.unwrap();
    let mut alice = Device::join(&relay, &issuer, "alice").await;
    let said = upload(&mut alice, 10_000, 0, b"x").await;
    assert_eq!(refused(&said), RefusalCode::TooLarge);
    let said = upload(&mut alice, 3_000, 0, &[1; 3_000]).await;
    assert_eq!(extent(&said), (3_000, 3_000, true));
    let request = alice.request();
    let other = Upload {
        request,
        blob: [8; 32],
        size: 3_000,
        offset: 0,
        data: b"x",
    };
    alice.say(&ToRelay::Upload(other)).await;
    assert_eq!(refused(&alice.next().await), RefusalCode::StorageFull);
    let said = upload(&mut alice, 3_000, 1, b"x").await;
    assert_eq!(refused(&said), RefusalCode::BlobConflict);
    let said = download(&mut alice, ID, 0, 12_000).await;
    assert_eq!(data(said).len(), 3_000);
    let said = download(&mut alice, ID, 0, 12_000).await;
    assert_eq!(refused(&said), RefusalCode::RateLimited);
    let mut bob = Device::join(&relay, &issuer, "bob").await;
    assert_eq!(data(download(&mut bob, ID, 0, 12_000).await).len(), 3_000);
}
