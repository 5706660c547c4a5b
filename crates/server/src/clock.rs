//! The one place that asks the system for the time.
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::now::Now;

/// Where the steady clock begins.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// This moment. On a machine whose clock stands before 1970 it is 1970.
pub(crate) fn now() -> Now {
    Now {
        millis: milliseconds(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        ),
        steady_millis: milliseconds(Instant::now().saturating_duration_since(*START)),
    }
}

/// The moment of [`Now::steady_millis`] that a timer can wait for.
pub(crate) fn instant(steady_millis: u64) -> Instant {
    let since = Duration::from_millis(steady_millis);
    START.checked_add(since).unwrap_or(*START)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
