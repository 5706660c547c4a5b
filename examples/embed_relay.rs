//! An application with the relay inside it: its own work and its own HTTP go on beside.
//!
//! `cargo run -p sealwire-tests --example embed_relay`

use std::{error::Error, time::Duration};

use sealwire_client::{Client, FileStore, Message, StoreKey};
use sealwire_server::{Relay, Tls};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let data = tempfile::tempdir()?; // an application uses a directory that stays

    // Everything the relay needs: a directory, which is filled on the first start, and a port.
    let relay = Relay::builder(data.path().join("relay"))
        .tls(Tls::SelfSigned)
        .bind("127.0.0.1:0")
        .await?;
    println!("the relay answers at {}", relay.address());

    // Sign-up, in the application's own way, ends with an invitation for the user's device.
    let invitation = relay
        .invite("alice", Duration::from_secs(3600))
        .await?
        .to_line();

    // Elsewhere: the device joins, over TLS with the relay's own certificate, and keeps its keys in files.
    let store = FileStore::open(data.path().join("alice.store"))?;
    let key = StoreKey::from_file(data.path().join("alice.key"));
    let alice = Client::invited(&invitation)?
        .store(store, key)
        .connect()
        .await?;
    println!("alice's device is {}", alice.device_thumbprint());

    if let Err(refused) = alice
        .send("nobody", Message::text("is anybody there?"))
        .await
    {
        println!("to a user without devices: {refused}");
    }

    alice.close().await;
    relay.shutdown().await; // clients are told to come back; what was accepted is durable
    Ok(())
}
