//! How often something may happen: so many times in so much time, for each key.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use crate::base::clock::{Clock, Timestamp};
use crate::base::duration::DurationText;

/// So many times in so much time, written as `600/1m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many times, all at once if need be.
    pub count: NonZeroU32,
    /// In which time the whole count comes back.
    pub period: Duration,
}

/// What a rate looks like, for messages.
pub const EXPECTED: &str = "a rate such as \"600/1m\": a count, a slash, and a duration of at least a second";

impl Rate {
    /// For defaults: `count` in `seconds`.
    pub const fn new(count: u32, seconds: u64) -> Self {
        let count = match NonZeroU32::new(count) {
            Some(count) => count,
            None => NonZeroU32::MIN,
        };
        Self { count, period: Duration::from_secs(seconds) }
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(count, period)| {
            let period = period.parse::<DurationText>().ok()?.0;
            Some(Self { count: count.parse().ok()?, period }).filter(|rate| rate.period >= Duration::from_secs(1))
        });
        parsed.ok_or_else(|| EXPECTED.to_owned())
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Rate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Rate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "sidekey-rate" })
    }
}

/// What a limit says about one more time. The values are those of the `RateLimit-*` headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may happen.
    pub allowed: bool,
    /// How many in all.
    pub limit: u32,
    /// How many are left.
    pub remaining: u32,
    /// Until it may happen (again).
    pub reset: Duration,
}

impl Verdict {
    /// The headers that say so (draft-ietf-httpapi-ratelimit-headers-03, which is what clients know).
    pub fn headers(&self) -> [(&'static str, u64); 3] {
        [
            ("ratelimit-limit", u64::from(self.limit)),
            ("ratelimit-remaining", u64::from(self.remaining)),
            ("ratelimit-reset", self.reset_seconds()),
        ]
    }

    /// Whole seconds until it may happen again, at least one where it may not.
    pub fn reset_seconds(&self) -> u64 {
        let seconds = u64::try_from(self.reset.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
        seconds.max(u64::from(!self.allowed))
    }
}

#[derive(Clone)]
struct GovernedClock(Arc<dyn Clock>);

impl GovernorClock for GovernedClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::from(Duration::from_millis(u64::try_from(self.0.now().as_millis()).unwrap_or(0)))
    }
}

type Limiter<K> = RateLimiter<K, DashMapStateStore<K>, GovernedClock, StateInformationMiddleware>;

/// A limit for each key.
pub struct RateLimit<K: Hash + Eq + Clone> {
    limiter: Limiter<K>,
    clock: GovernedClock,
    rate: Rate,
    blocked: dashmap::DashMap<K, Timestamp>,
    swept: std::sync::atomic::AtomicI64,
}

/// Keys that have their whole count back are forgotten so often.
const SWEEP: Duration = Duration::from_secs(60);

impl<K: Hash + Eq + Clone> RateLimit<K> {
    /// A limit that nobody has used yet.
    pub fn new(rate: Rate, clock: Arc<dyn Clock>) -> Self {
        let each = rate.period / rate.count.get();
        let quota = Quota::with_period(each.max(Duration::from_nanos(1))).expect("longer than nothing");
        let now = clock.now();
        let clock = GovernedClock(clock);
        let quota = quota.allow_burst(rate.count);
        let limiter: Limiter<K> = RateLimiter::new(quota, DashMapStateStore::default(), clock.clone());
        let blocked = dashmap::DashMap::new();
        Self { limiter, clock, rate, blocked, swept: std::sync::atomic::AtomicI64::new(now.as_millis()) }
    }

    /// Counts one more time for `key`, if it may happen.
    pub fn take(&self, key: &K) -> Verdict {
        self.forget_idle();
        let limit = self.rate.count.get();
        match self.limiter.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let used = limit.saturating_sub(remaining);
                let reset = self.rate.period.mul_f64(f64::from(used) / f64::from(limit));
                Verdict { allowed: true, limit, remaining, reset }
            }
            Err(not_until) => {
                let reset = not_until.wait_time_from(self.clock.now());
                self.blocked.insert(key.clone(), self.clock.0.now().plus(reset));
                Verdict { allowed: false, limit, remaining: 0, reset }
            }
        }
    }

    /// Whether one more time would not be allowed. Counts nothing.
    pub fn is_blocked(&self, key: &K) -> bool {
        let now = self.clock.0.now();
        self.blocked.get(key).is_some_and(|until| *until > now)
    }

    /// Keys come from outside: without this, anybody could fill the memory.
    fn forget_idle(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        let (now, swept) = (self.clock.0.now(), self.swept.load(Relaxed));
        let is_due = now.since(Timestamp::from_millis(swept)) >= SWEEP;
        if is_due && self.swept.compare_exchange(swept, now.as_millis(), Relaxed, Relaxed).is_ok() {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
            self.blocked.retain(|_, until| *until > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::ManualClock;

    #[test]
    fn rates_are_written_as_count_and_duration() {
        assert_eq!("600/1m".parse(), Ok(Rate::new(600, 60)));
        for bad in ["", "600", "/1m", "0/1m", "-1/1m", "5/0s", "5/500ms", "5/minute"] {
            assert_eq!(bad.parse::<Rate>(), Err(EXPECTED.to_owned()), "{bad}");
        }
    }

    #[test]
    fn the_whole_count_at_once_then_one_at_a_time() {
        let clock = ManualClock::at(Timestamp::from_millis(1_700_000_000_000));
        let limit = RateLimit::new(Rate::new(3, 30), Arc::new(clock.clone()));
        let remaining: Vec<u32> = (0..3).map(|_| limit.take(&"a").remaining).collect();
        assert_eq!(remaining, [2, 1, 0]);
        let refused = limit.take(&"a");
        assert_eq!((refused.allowed, refused.limit, refused.reset), (false, 3, Duration::from_secs(10)));
        assert!(limit.is_blocked(&"a") && !limit.is_blocked(&"b"));
        assert!(limit.take(&"b").allowed, "keys do not disturb each other");
        clock.advance(Duration::from_secs(10));
        assert!(!limit.is_blocked(&"a") && limit.take(&"a").allowed && !limit.take(&"a").allowed);
    }

    #[test]
    fn keys_that_are_idle_are_forgotten() {
        let clock = ManualClock::at(Timestamp::from_millis(1_700_000_000_000));
        let limit = RateLimit::new(Rate::new(3, 30), Arc::new(clock.clone()));
        (0..1000).for_each(|key| {
            limit.take(&key);
        });
        assert_eq!(limit.limiter.len(), 1000);
        clock.advance(Duration::from_secs(61));
        limit.take(&0);
        assert_eq!(limit.limiter.len(), 1);
    }
}
