//! An application with HTTP routes of its own and, on the same port, the relay and a service.
//!
//! `cargo run -p sealwire-tests --example axum_service`

use std::{error::Error, time::Duration};

use axum::{Router, routing::get};
use sealwire_client::{Client, MemoryStore, StoreKey};
use sealwire_server::services::{BoxError, Call};
use sealwire_server::{HttpService, Relay};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (relay, devices) = relay(&listener).await?;
    println!("devices connect to {}", relay.address());
    let serving = axum::serve(listener, application(devices)).into_future();
    let serving = tokio::spawn(serving);

    // Elsewhere: a device joins, and orders something.
    let invitation = relay.invite("alice", Duration::from_secs(600)).await?;
    let device = Client::invited(&invitation.to_line())?
        .store(MemoryStore::new(), StoreKey::from_bytes(rand::random()))
        .connect()
        .await?;
    let answer = device.call("orders.create", "two of the blue ones").await?;
    println!("the service says: {}", String::from_utf8_lossy(&answer));

    device.close().await;
    relay.shutdown().await;
    serving.abort();
    Ok(())
}

/// The relay, which listens on no port itself, and what answers the requests of its devices. In production something ends TLS, and
/// `public_host` says under which name.
pub(crate) async fn relay(listener: &TcpListener) -> Result<(Relay, HttpService), Box<dyn Error>> {
    // Whatever is made for tower goes around a handler: here no more than 100 orders are worked on at a time, of all devices together.
    let orders = ServiceBuilder::new()
        .concurrency_limit(100)
        .service(service_fn(create_order));
    let mounted = Relay::in_memory()
        .service("orders.create", orders)
        .mount(listener.local_addr()?)
        .await?;
    Ok(mounted)
}

/// The application's own routes, and the one that devices use.
pub(crate) fn application(devices: HttpService) -> Router {
    Router::new()
        .route("/", get(async || "hello from the application"))
        .route_service("/v1", devices.clone())
        // What backends ask by HTTP (docs/http.md).
        .route_service("/v1/{*rest}", devices)
}

/// Who calls was verified before this is.
async fn create_order(call: Call) -> Result<String, BoxError> {
    let order = std::str::from_utf8(call.payload())?;
    Ok(format!("ordered for {}: {order}", call.user()))
}
