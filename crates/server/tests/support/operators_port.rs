//! What a relay tells its operator.
use std::net::SocketAddr;

use sealwire_server::Relay;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::within;

pub(crate) const LOOPBACK: &str = "127.0.0.1:0";

pub(crate) fn anywhere() -> SocketAddr {
    LOOPBACK.parse().unwrap()
}

/// Status and body of an answer of the operator's port.
pub(crate) async fn ask(relay: &Relay, method: &str, path: &str) -> (u16, String) {
    let port = relay.admin_addr().expect("there is an operator's port");
    ask_at(port, method, path).await
}

pub(crate) async fn ask_at(port: SocketAddr, method: &str, path: &str) -> (u16, String) {
    ask_with(port, method, path, "").await
}

pub(crate) async fn ask_with(
    port: SocketAddr,
    method: &str,
    path: &str,
    fields: &str,
) -> (u16, String) {
    let mut stream = TcpStream::connect(port).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

pub(crate) async fn get(relay: &Relay, path: &str) -> (u16, String) {
    ask(relay, "GET", path).await
}

/// The value of one series.
pub(crate) async fn metric(relay: &Relay, series: &str) -> u64 {
    let (status, text) = get(relay, "/metrics").await;
    assert_eq!(status, 200);
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    let value = line.unwrap_or_else(|| panic!("no {series} in:\n{text}"));
    value.trim().parse().unwrap()
}

/// Asks until it is so.
pub(crate) async fn becomes(relay: &Relay, series: &str, value: u64) {
    within(async { while metric(relay, series).await != value {} }).await;
}
