//! `Retry-After` (RFC 9110 section 10.2.3).

use std::time::{Duration, UNIX_EPOCH};

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::base::clock::Timestamp;

/// Nobody is kept waiting longer than this, whatever a provider says.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long to wait; `None` if the reply does not say, or says something unreadable.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let moment = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
            Timestamp::from_millis(i64::try_from(moment.as_millis()).ok()?).since(now)
        }
    };
    Some(wait.min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_dates_and_nonsense() {
        let now = Timestamp::from_millis(784_111_777_000); // 1994-11-06T08:49:37Z
        let said = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().expect("a value"))]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(said("120"), Some(120));
        assert_eq!(said("99999999999"), Some(3600));
        assert_eq!(said("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(said("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "in the past");
        assert_eq!(said("-5"), None);
        assert_eq!(said("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
