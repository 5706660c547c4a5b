//! The relay's own bounds, each with its unit; the protocol's are in [`sealwire_protocol::limits`].
use std::time::Duration;

use sealwire_protocol::limits::{
    CLOCK_TOLERANCE_SECONDS, MAX_SEALED_MESSAGE_BYTES, MAX_SEND_PARTS,
};

// Connections, besides those in `policy`

/// File descriptors that connections leave to the stores, where the system grants enough; fewer connections are taken then.
pub(crate) const RESERVED_DESCRIPTORS: usize = 512;
/// Rest after the system has refused a connection for want of resources.
pub(crate) const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);
/// Connections let in within one millisecond, for each processor. More wait with the system.
pub(crate) const CONNECTIONS_PER_MILLISECOND: usize = 4;
/// How long a connection that is being closed may take to read the close frame and hang up.
pub(crate) const CLOSE_LINGER: Duration = Duration::from_secs(2);
/// Bytes thrown away while lingering.
pub(crate) const MAX_LINGER_BYTES: usize = 1 << 20;
/// How long [`crate::Relay::shutdown`] waits for links before it drops them.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Connections at one time to the operator's port.
pub(crate) const MAX_ADMIN_CONNECTIONS: usize = 32;
/// How long one of them may take to ask.
pub(crate) const ADMIN_PATIENCE: Duration = Duration::from_secs(5);

// HTTP

/// Requests of devices that an application's server has handed on and that wait for a task of their own.
pub(crate) const MAX_ARRIVALS: usize = 1_024;
/// Bytes of a request's line and headers. A token takes up to 8 KiB of them.
pub(crate) const MAX_HTTP_HEADER_BYTES: usize = 16 << 10;
/// Header fields of a request.
pub(crate) const MAX_HTTP_HEADERS: usize = 64;

/// Bytes of the body of a request: the largest Send, in JSON.
pub(crate) const MAX_HTTP_BODY_BYTES: usize = MAX_SEND_PARTS * (MAX_SEALED_MESSAGE_BYTES + 1_024);
/// The same on the wire, with room for the headers of the request and for what TLS and chunks add.
pub(crate) const MAX_HTTP_BODY_TLS_BYTES: usize =
    MAX_HTTP_BODY_BYTES + MAX_HTTP_BODY_BYTES / 4 + MAX_HTTP_HEADER_BYTES;
/// What bodies are counted in, in bytes.
pub(crate) const HTTP_UNIT_BYTES: u64 = 1 << 10;
/// Such units of all bodies that are under way at one time. In memory each takes about three times as much.
pub(crate) const MAX_HTTP_UNITS: usize = 32 << 10;
/// Requests of one user that are under way at one time, of devices that have no link.
pub(crate) const MAX_HTTP_REQUESTS_PER_USER: usize = 16;
/// How long the body of a request may take to arrive.
pub(crate) const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the stores may take for a request.
pub(crate) const HTTP_STORE_TIMEOUT: Duration = Duration::from_secs(15);
/// Proofs of requests that are remembered, some 12 MiB of them.
pub(crate) const MAX_PROOFS: usize = 128 << 10;
/// For how long, in milliseconds: one of a clock that is ahead by the tolerance is good for twice that (docs/protocol.md §18.1), and a second is rounded.
pub(crate) const PROOF_MEMORY_MILLIS: u64 = (2 * CLOCK_TOLERANCE_SECONDS + 1) * 1_000;

// WebSocket

/// Bytes read from the socket at a time; allocated for every link.
pub(crate) const READ_BUFFER_BYTES: usize = 4 << 10;
/// Bytes read of a message that is not whole yet, after which they are counted.
pub(crate) const MAX_UNCOUNTED_BYTES: usize = 64 << 10;
/// Bytes gathered before they are written to the socket.
pub(crate) const WRITE_BUFFER_BYTES: usize = 64 << 10;
/// Bytes written but not yet taken by the socket, above which a link neither reads requests nor sends mail.
pub(crate) const MAX_BACKLOG_BYTES: usize = 512 << 10;
/// Pings a device may send in one keep-alive period.
pub(crate) const MAX_PINGS: u32 = 64;
/// Time after which a silent device is pinged, and after as much again given up (4003), by default.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a device may take to read what was sent before it counts as too slow (4001), by default.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest wait for a moment of the day, which the system's clock may come to sooner or later than its steady one.
pub(crate) const MAX_CLOCK_WAIT_MILLIS: u64 = 60_000;

// Links

/// Records taken from the socket before the link looks at its other work.
pub(crate) const MAX_RECORDS_AT_ONCE: usize = 32;
/// Bytes of frames after which a record is sealed.
pub(crate) const RECORD_TARGET_BYTES: usize = 64 << 10;
/// Messages delivered and not yet acknowledged.
pub(crate) const MAX_UNACKNOWLEDGED_MESSAGES: usize = 256;
/// Bytes of messages delivered and not yet acknowledged.
pub(crate) const MAX_UNACKNOWLEDGED_BYTES: usize = 4 << 20;
/// Bytes of messages read from a mailbox at a time.
pub(crate) const MAX_READ_BYTES: usize = 256 << 10;
/// Bytes of a device's own requests that wait for a store or a service, above which the link reads no further ones.
pub(crate) const MAX_WAITING_BYTES: usize = 4 << 20;
/// Users whose devices a link hears of: the latest to whom its device wrote or whose cards it fetched (docs/protocol.md §5.2).
pub(crate) const MAX_WATCHED_USERS: usize = 256;
/// Of these, users that a doorbell tells apart before the link has answered it.
pub(crate) const MAX_CHANGED_USERS: usize = 8;

// Requests, besides those in `policy`

/// Publications of a card or of prekeys by a device in a minute; one costs the relay up to 100 signature checks.
pub(crate) const PUBLICATIONS_PER_MINUTE: u64 = 30;
/// Times in [`PREKEY_TAKES_WINDOW_MINUTES`] that one user is given one-time prekeys of another's devices; beyond that, cards come without.
pub(crate) const PREKEY_TAKES: u64 = 10;
/// Minutes over which [`PREKEY_TAKES`] are spread.
pub(crate) const PREKEY_TAKES_WINDOW_MINUTES: u64 = 60;

// Blobs, besides those in `blobs`

/// Jobs on the disk of the blobs at one time, for all links together. Each holds a piece in memory.
pub(crate) const MAX_BLOB_JOBS: usize = 8;
/// Blobs that a sweep erases before it looks at what else there is.
pub(crate) const MAX_SWEPT_BLOBS: usize = 256;

// Services

/// Services that an application may register.
pub(crate) const MAX_SERVICES: usize = 4_096;
/// Calls of services by a device in a minute, by default.
pub(crate) const CALLS_PER_MINUTE: u64 = 600;
/// How long a call of a service may take in all, by default.
pub(crate) const SERVICE_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls of a link's device whose handlers run, or whose results wait to be sent. Further ones wait within the bounds of open requests and of
/// [`MAX_WAITING_BYTES`].
pub(crate) const MAX_RUNNING_CALLS: usize = 16;
/// Pushes that wait for a link's device.
pub(crate) const MAX_QUEUED_PUSHES: usize = 64;
/// Bytes of pushes that wait for a link's device.
pub(crate) const MAX_QUEUED_PUSH_BYTES: usize = 4 << 20;

// Housekeeping

/// Time between two sweeps for mail, and between two for blobs, that are too old.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
