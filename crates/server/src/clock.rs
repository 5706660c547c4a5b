//! The one place that asks the system for the time of day.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds since 1970; 0 on a machine whose clock stands before that.
pub(crate) fn seconds() -> u64 {
    since_1970().as_secs()
}

/// Milliseconds since 1970.
pub(crate) fn milliseconds() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
