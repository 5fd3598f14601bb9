//! The only place that reads the time or waits for it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
#[allow(
    clippy::disallowed_methods,
    reason = "a provider lives in real time, and does not use the clock of what it tests"
)]
pub(crate) fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// Waits.
#[allow(clippy::disallowed_methods, reason = "see now_ms")]
pub(crate) async fn sleep(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// `seconds` after `from_ms`; nothing or less means "never".
pub(crate) fn after(from_ms: u64, seconds: f64) -> Option<u64> {
    (seconds > 0.0).then(|| from_ms.saturating_add(milliseconds(seconds)))
}

/// Seconds as settings give them, in milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> u64 {
    // `as` saturates: absurd settings become "never" instead of wrapping.
    (seconds.max(0.0) * 1000.0) as u64
}
