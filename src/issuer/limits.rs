//! How often the public listener may be used (GCRA, one cell a key). What is unauthenticated or fails counts for the
//! address it came from; what is authenticated counts for its grant and its subject, since a hosted client sends the
//! requests of all its users from few addresses.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::address::ClientAddress;
use crate::base::clock::Clock;
use crate::base::rate_limit::{Rate, RateLimit, Verdict};
use crate::model::issuer_settings::Rates;
use crate::model::names::Subject;

/// The limits.
pub struct Limits {
    rates: Rates,
    failures: Arc<RateLimit<IpAddr>>,
    registrations: Arc<RateLimit<IpAddr>>,
    grants: Arc<RateLimit<Arc<str>>>,
    subjects: Arc<RateLimit<Subject>>,
    api_keys: Arc<RateLimit<Arc<str>>>,
}

impl Limits {
    /// Limits that nobody has used yet.
    pub fn new(rates: Rates, clock: &Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            rates,
            failures: limit(rates.failures_per_address, clock),
            registrations: limit(rates.registrations_per_address, clock),
            grants: limit(rates.requests_per_grant, clock),
            subjects: limit(rates.requests_per_subject, clock),
            api_keys: limit(rates.requests_per_api_key, clock),
        })
    }

    /// The same at other rates. What was used up of a rate that is as it was stays used up.
    pub fn at(&self, rates: Rates, clock: &Arc<dyn Clock>) -> Arc<Self> {
        let mut next = Self {
            rates,
            failures: Arc::clone(&self.failures),
            registrations: Arc::clone(&self.registrations),
            grants: Arc::clone(&self.grants),
            subjects: Arc::clone(&self.subjects),
            api_keys: Arc::clone(&self.api_keys),
        };
        if rates.failures_per_address != self.rates.failures_per_address {
            next.failures = limit(rates.failures_per_address, clock);
        }
        if rates.registrations_per_address != self.rates.registrations_per_address {
            next.registrations = limit(rates.registrations_per_address, clock);
        }
        if rates.requests_per_grant != self.rates.requests_per_grant {
            next.grants = limit(rates.requests_per_grant, clock);
        }
        if rates.requests_per_subject != self.rates.requests_per_subject {
            next.subjects = limit(rates.requests_per_subject, clock);
        }
        if rates.requests_per_api_key != self.rates.requests_per_api_key {
            next.api_keys = limit(rates.requests_per_api_key, clock);
        }
        Arc::new(next)
    }

    /// One more request that is not authenticated.
    pub fn unauthenticated(&self, address: ClientAddress) -> Verdict {
        self.failures.take(&address.bucket())
    }

    /// Whether an address has used up what it may fail with: then nothing costly is done for it anymore.
    pub fn is_suspect(&self, address: ClientAddress) -> bool {
        self.failures.is_blocked(&address.bucket())
    }

    /// One more registration.
    pub fn registration(&self, address: ClientAddress) -> Verdict {
        self.registrations.take(&address.bucket())
    }

    /// One more request with an API key, by the key's name.
    pub fn api_key(&self, name: &Arc<str>) -> Verdict {
        self.api_keys.take(name)
    }

    /// One more good request: the stricter of both limits speaks.
    pub fn authenticated(&self, grant_id: &str, subject: &Subject) -> Verdict {
        let of_grant = self.grants.take(&Arc::from(grant_id));
        if !of_grant.allowed {
            return of_grant;
        }
        let of_subject = self.subjects.take(subject);
        if of_subject.allowed && of_grant.remaining <= of_subject.remaining { of_grant } else { of_subject }
    }
}

fn limit<K: std::hash::Hash + Eq + Clone>(rate: Rate, clock: &Arc<dyn Clock>) -> Arc<RateLimit<K>> {
    Arc::new(RateLimit::new(rate, Arc::clone(clock)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    #[test]
    fn what_was_used_up_stays_used_up_where_the_rate_is_the_same() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let once = Rate::new(1, 3600);
        let rates = Rates {
            failures_per_address: once,
            registrations_per_address: once,
            requests_per_grant: once,
            requests_per_subject: once,
            requests_per_api_key: once,
        };
        let limits = Limits::new(rates, &clock);
        let alice: Subject = "alice".parse().expect("a subject");
        assert!(limits.authenticated("g", &alice).allowed);
        assert!(!limits.at(rates, &clock).authenticated("g", &alice).allowed);
        let more = Rates { requests_per_grant: Rate::new(2, 3600), ..rates };
        let verdict = limits.at(more, &clock).authenticated("g", &alice);
        assert!(!verdict.allowed, "that of the subject stays");
        let more = Rates { requests_per_subject: Rate::new(2, 3600), ..more };
        assert!(limits.at(more, &clock).authenticated("g", &alice).allowed);
    }
}
