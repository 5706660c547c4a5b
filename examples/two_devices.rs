//! Two devices exchange a message that only they can read, through a relay that cannot.
//!
//! `cargo run -p sealwire-tests --example two_devices`

use std::{error::Error, time::Duration};

use sealwire_client::{Client, Event, MemoryStore, Message, StoreKey};
use sealwire_server::Relay;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let relay = Relay::in_memory().bind("127.0.0.1:0").await?;
    let alice = join(&relay, "alice").await?;
    let bob = join(&relay, "bob").await?;

    // `send` returns when the message is safe at the relay.
    alice.send("bob", Message::text("hello, Bob")).await?;
    show_next(&bob).await;

    // `delivered` returns when all of Alice's devices have it: only whom one has written to is told that.
    let receipt = bob.send("alice", Message::text("hello, Alice")).await?;
    show_next(&alice).await;
    receipt.delivered().await?;
    println!("delivered");

    // What Alice and Bob would compare over the phone: it is the same on both sides.
    let (here, there) = (
        alice.safety_number("bob").await?,
        bob.safety_number("alice").await?,
    );
    println!("safety number: {here}");
    assert_eq!(here, there);

    alice.close().await;
    bob.close().await;
    relay.shutdown().await;
    Ok(())
}

async fn show_next(client: &Client) {
    while let Some(event) = client.next().await {
        if let Event::Message(received) = event {
            let text = received.message.as_text().unwrap_or("(not text)");
            println!("{} says: {text}", received.from);
            received.ack(); // it is not shown again, whatever happens from here on
            return;
        }
    }
}

async fn join(relay: &Relay, user: &str) -> Result<Client, Box<dyn Error>> {
    let invitation = relay.invite(user, Duration::from_secs(60)).await?.to_line();
    // A real device keeps its keys: `FileStore::open("device.store")` and `StoreKey::from_file("device.key")`.
    let key = StoreKey::from_bytes(rand::random());
    Ok(Client::invited(&invitation)?
        .store(MemoryStore::new(), key)
        .connect()
        .await?)
}
