//! Time as a parameter. Nothing else in the crate asks the operating system what time it is (`clippy.toml` bans it).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// A moment, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Later by `duration`; stops at the end of time instead of wrapping.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Earlier by `duration`; stops at the beginning of time instead of wrapping.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(millis(duration)))
    }

    /// How much later this is than `earlier`; zero when it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, to the second; a moment before 1970 shows as its beginning.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = UNIX_EPOCH + Duration::from_secs(u64::try_from(self.as_seconds()).unwrap_or(0).min(LAST_SECOND));
        humantime::format_rfc3339_seconds(moment).fmt(formatter)
    }
}

/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

/// Where the time comes from, and how to wait for some of it to pass.
pub trait Clock: Send + Sync {
    /// The current moment.
    fn now(&self) -> Timestamp;

    /// Completes once `duration` has passed on this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The computer's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks for the time")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(millis(since_epoch))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that waits")]
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that moves only when told to: for tests.
#[derive(Clone)]
pub struct ManualClock(Arc<Mutex<Manual>>);

struct Manual {
    now: Timestamp,
    sleepers: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    count: u64,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(Manual { now, sleepers: BTreeMap::new(), count: 0 })))
    }

    /// Moves the clock forward and wakes those whose time has come.
    pub fn advance(&self, duration: Duration) {
        let mut manual = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        manual.now = manual.now.plus(duration);
        let not_yet = (Timestamp(manual.now.0.saturating_add(1)), 0);
        let later = manual.sleepers.split_off(&not_yet);
        for (_, sleeper) in std::mem::replace(&mut manual.sleepers, later) {
            let _ = sleeper.send(());
        }
    }

    /// How many are waiting on this clock right now.
    pub fn sleepers(&self) -> usize {
        let mut manual = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        manual.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        manual.sleepers.len()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut manual = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if duration.is_zero() {
                return Box::pin(async {});
            }
            manual.count += 1;
            let key = (manual.now.plus(duration), manual.count);
            manual.sleepers.insert(key, sender);
        }
        Box::pin(async move {
            let _ = receiver.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_rfc_3339() {
        assert_eq!(Timestamp(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Timestamp(951_827_696_999).to_string(), "2000-02-29T12:34:56Z");
        assert_eq!(Timestamp(1_795_219_199_000).to_string(), "2026-11-20T23:59:59Z");
        assert_eq!(Timestamp(i64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn arithmetic_saturates() {
        let end = Timestamp(i64::MAX);
        assert_eq!(end.plus(Duration::MAX), end);
        assert_eq!(Timestamp(5).since(Timestamp(10)), Duration::ZERO);
    }

    #[tokio::test]
    async fn the_manual_clock_wakes_only_whose_time_has_come() {
        let clock = ManualClock::at(Timestamp(1_000));
        let soon = tokio::spawn(clock.sleep(Duration::from_secs(1)));
        let late = tokio::spawn(clock.sleep(Duration::from_secs(2)));
        clock.advance(Duration::from_secs(1));
        soon.await.expect("the sleeper is woken");
        assert!(!late.is_finished());
        assert_eq!(clock.sleepers(), 1);
    }
}
