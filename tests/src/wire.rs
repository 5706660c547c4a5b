//! A wire between devices and a relay, which counts what goes over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Whereabouts;

/// A port that passes everything on to a relay and back. It goes away with this.
pub struct Wire {
    whereabouts: Whereabouts,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
}

impl Wire {
    /// A wire to the relay that is there.
    pub async fn to(whereabouts: &Whereabouts, relay: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            while let Ok((device, _)) = listener.accept().await {
                let counts = Arc::clone(&counted);
                counts.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    // A relay that is away is one that hangs up.
                    if let Ok(relay) = TcpStream::connect(relay).await {
                        pass(device, relay, &counts).await;
                    }
                });
            }
        });
        let address = whereabouts
            .address
            .replace(&format!("://{relay}/"), &format!("://{port}/"));
        Self {
            whereabouts: Whereabouts {
                address,
                tls: whereabouts.tls.clone(),
            },
            counts,
            task,
        }
    }

    /// How to find the relay over this wire.
    pub fn whereabouts(&self) -> &Whereabouts {
        &self.whereabouts
    }

    /// Connections that devices have made so far.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Bytes that devices have sent so far.
    pub fn up(&self) -> u64 {
        self.counts.up.load(Ordering::Relaxed)
    }

    /// Bytes that the relay has sent so far.
    pub fn down(&self) -> u64 {
        self.counts.down.load(Ordering::Relaxed)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(device: TcpStream, relay: TcpStream, counts: &Counts) {
    let (from_device, to_device) = device.into_split();
    let (from_relay, to_relay) = relay.into_split();
    tokio::join!(
        count(from_device, to_relay, &counts.up),
        count(from_relay, to_device, &counts.down),
    );
}

async fn count(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: &AtomicU64,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let bytes_read = buffer.get(..read).unwrap_or_default();
        if to.write_all(bytes_read).await.is_err() {
            return;
        }
        bytes.fetch_add(read as u64, Ordering::Relaxed);
    }
    // The other direction hears of the end by the other end.
    let _ = to.shutdown().await;
}
