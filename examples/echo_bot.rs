//! A bot that answers every message with its own words, and somebody who talks to it.
//!
//! `cargo run -p sealwire-tests --example echo_bot`

use std::{error::Error, time::Duration};

use sealwire_client::{Client, Event, MemoryStore, Message, StoreKey};
use sealwire_server::Relay;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let relay = Relay::in_memory().bind("127.0.0.1:0").await?;
    let bot = join(&relay, "bot").await?;
    let alice = join(&relay, "alice").await?;

    let echo = tokio::spawn(run_bot(bot.clone()));
    for text in ["one", "two", "three"] {
        alice.send("bot", Message::text(text)).await?;
        let answer = next_text(&alice).await.ok_or("the connection has closed")?;
        println!("{text} -> {answer}");
        assert_eq!(answer, format!("you said: {text}"));
    }

    bot.close().await;
    echo.await??;
    alice.close().await;
    relay.shutdown().await;
    Ok(())
}

/// The whole bot. It ends when its client is closed.
async fn run_bot(bot: Client) -> Result<(), sealwire_client::Error> {
    while let Some(event) = bot.next().await {
        if let Event::Message(received) = event {
            let text = received
                .message
                .as_text()
                .unwrap_or("something that is not text");
            bot.send(&received.from, Message::text(format!("you said: {text}")))
                .await?;
            received.ack(); // only now: a bot that dies before gets the message again
        }
    }
    Ok(())
}

async fn next_text(client: &Client) -> Option<String> {
    loop {
        if let Event::Message(received) = client.next().await? {
            received.ack();
            return received.message.as_text().map(str::to_owned);
        }
    }
}

async fn join(relay: &Relay, user: &str) -> Result<Client, Box<dyn Error>> {
    let invitation = relay.invite(user, Duration::from_secs(60)).await?.to_line();
    let key = StoreKey::from_bytes(rand::random());
    Ok(Client::invited(&invitation)?
        .store(MemoryStore::new(), key)
        .connect()
        .await?)
}
