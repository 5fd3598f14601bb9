//! The tokens of a connection and when they want to be refreshed.

use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;

/// What a token reply grants.
#[derive(Clone, Debug)]
pub struct TokenSet {
    /// Goes into API calls.
    pub access_token: Secret,
    /// When the access token stops working; `None` where the provider does not say.
    pub access_expires_at: Option<Timestamp>,
    /// Gets the next access token; `None` where the provider gave none.
    pub refresh_token: Option<Secret>,
    /// When the refresh token stops working if it is not used, where known.
    pub refresh_expires_at: Option<Timestamp>,
    /// When the grant ends however often it is refreshed, where known.
    pub grant_expires_at: Option<Timestamp>,
    /// The scopes granted, where the provider says.
    pub scopes: Option<Vec<String>>,
}

/// When a refresh is due before an access token expires.
#[derive(Clone, Copy, Debug)]
pub struct RefreshAhead {
    /// So long before expiry, if the token lives long enough.
    pub buffer: Duration,
    /// At most this share of the lifetime, so that a short-lived token is not refreshed all the time.
    pub largest_share: f64,
}

impl Default for RefreshAhead {
    fn default() -> Self {
        Self { buffer: Duration::from_secs(300), largest_share: 0.2 }
    }
}

/// The shortest time between two refreshes, whatever lifetime a provider claims.
pub const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// When to refresh a token that was obtained at `now` and lives until `expires_at`. `jitter` in `0.0..1.0` moves it
/// earlier by up to a tenth of the buffer, so that tokens obtained together are not refreshed together.
pub fn refresh_due_at(now: Timestamp, expires_at: Timestamp, ahead: RefreshAhead, jitter: f64) -> Timestamp {
    let lifetime = expires_at.since(now);
    let buffer = ahead.buffer.min(lifetime.mul_f64(ahead.largest_share));
    let due = expires_at.minus(buffer.mul_f64(1.0 + jitter / 10.0));
    due.max(now.plus(SHORTEST_INTERVAL))
}

/// When to refresh a grant that dies if it is not used, whatever its access token says: with a quarter of that time left,
/// or up to a fifth of it earlier, by `jitter`.
pub fn keep_alive_at(now: Timestamp, refresh_expires_at: Timestamp, jitter: f64) -> Timestamp {
    let left = refresh_expires_at.since(now);
    now.plus(left.mul_f64(0.75 - 0.2 * jitter).max(SHORTEST_INTERVAL))
}

/// What can be done with an access token right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Use it.
    Fresh,
    /// Use it, and have it refreshed meanwhile.
    Due,
    /// It has expired: it must not be used.
    Expired,
}

/// Judges an access token by the clock.
pub fn freshness(now: Timestamp, expires_at: Option<Timestamp>, refresh_due_at: Option<Timestamp>) -> Freshness {
    if expires_at.is_some_and(|expires_at| expires_at <= now) {
        Freshness::Expired
    } else if refresh_due_at.is_some_and(|due_at| due_at <= now) {
        Freshness::Due
    } else {
        Freshness::Fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn due_in(lifetime_seconds: u64, jitter: f64) -> u64 {
        let expires_at = NOW.plus(Duration::from_secs(lifetime_seconds));
        refresh_due_at(NOW, expires_at, RefreshAhead::default(), jitter).since(NOW).as_millis() as u64
    }

    #[test]
    fn five_minutes_ahead_but_never_more_than_a_fifth() {
        assert_eq!(due_in(3600, 0.0), 3_300_000);
        assert_eq!(due_in(600, 0.0), 480_000);
        assert_eq!(due_in(10, 0.0), 8_000);
        assert_eq!(due_in(3600, 0.5), 3_285_000);
    }

    #[test]
    fn a_lifetime_of_nothing_makes_no_hot_loop() {
        assert_eq!(due_in(0, 0.0), 1_000);
        assert_eq!(
            refresh_due_at(NOW, Timestamp::from_millis(0), RefreshAhead::default(), 0.0),
            NOW.plus(SHORTEST_INTERVAL)
        );
    }

    #[test]
    fn a_grant_is_kept_alive_well_before_it_dies() {
        let in_days = |jitter| {
            keep_alive_at(NOW, NOW.plus(Duration::from_secs(100 * 86_400)), jitter).since(NOW).as_secs() / 86_400
        };
        assert_eq!((in_days(0.0), in_days(0.999)), (75, 55));
        assert_eq!(keep_alive_at(NOW, NOW, 0.0), NOW.plus(SHORTEST_INTERVAL), "no hot loop");
    }

    #[test]
    fn freshness_by_the_clock() {
        let at = |seconds| Some(NOW.plus(Duration::from_secs(seconds)));
        assert_eq!(freshness(NOW, None, None), Freshness::Fresh);
        assert_eq!(freshness(NOW, at(2), at(1)), Freshness::Fresh);
        assert_eq!(freshness(NOW, at(2), Some(NOW)), Freshness::Due);
        assert_eq!(freshness(NOW, Some(NOW), Some(NOW)), Freshness::Expired);
    }
}
