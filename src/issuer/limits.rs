//! How often the public listener may be used (GCRA, one cell a key). What is unauthenticated or fails counts for the
//! address it came from; what is authenticated counts for its grant and its subject, since a hosted client sends the
//! requests of all its users from few addresses.

use std::net::IpAddr;
use std::sync::Arc;

use crate::base::address::ClientAddress;
use crate::base::clock::Clock;
use crate::base::rate_limit::{RateLimit, Verdict};
use crate::model::issuer_settings::Rates;
use crate::model::names::Subject;

/// The limits.
pub struct Limits {
    failures: RateLimit<IpAddr>,
    registrations: RateLimit<IpAddr>,
    grants: RateLimit<Arc<str>>,
    subjects: RateLimit<Subject>,
}

impl Limits {
    /// Limits that nobody has used yet.
    pub fn new(rates: Rates, clock: &Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            failures: RateLimit::new(rates.failures_per_address, Arc::clone(clock)),
            registrations: RateLimit::new(rates.registrations_per_address, Arc::clone(clock)),
            grants: RateLimit::new(rates.requests_per_grant, Arc::clone(clock)),
            subjects: RateLimit::new(rates.requests_per_subject, Arc::clone(clock)),
        })
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
