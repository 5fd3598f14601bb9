//! What is counted while a client is killed again and again, and the verdict.

use serde::Serialize;

/// What was counted at one provider, or at all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Processes that were killed.
    pub kills: u64,
    /// Those whose store shows a refresh that the dead process had begun and not finished.
    pub kills_in_refresh: u64,
    /// Grants that cannot be refreshed anymore, or were given up, and the store did not say beforehand that they are in
    /// doubt.
    pub lost_grants: u64,
    /// Grants that cannot be refreshed anymore, and the store said beforehand that they are in doubt, and why.
    pub lost_recorded_in_doubt: u64,
    /// Connections that are still in doubt when all is quiet.
    pub in_doubt_unresolved: u64,
    /// How often a dead refresh token was sent again without need.
    pub reuse_detected: u64,
    /// How often one was sent that was recorded as in doubt, to find out: once each.
    pub reuse_by_probe: u64,
    /// API calls with another user's token or an unknown one, and answers that were another user's.
    pub crossed_tokens: u64,
    /// Access tokens that were used although the store of the dead process holds older ones.
    pub used_before_durable: u64,
    /// Requests that failed while the provider accepted the access token in the store.
    pub failed_while_valid: u64,
    /// Refresh requests that brought nothing, in a time in which nothing failed.
    pub excess_refreshes: u64,
    /// Access tokens that were used after their connection was ended.
    pub used_after_end: u64,
    /// Texts (log, audit trail, metrics, files of the store) that hold a token or a client secret.
    pub secrets_found: u64,
    /// Requests to the API that were begun.
    pub requests: u64,
    /// Those of them that the kill cut off or refused: they count as nothing.
    pub requests_cut: u64,
    /// Those of them that failed, with a right to: there was no token to be had.
    pub requests_failed: u64,
    /// Refreshes that took effect at the provider.
    pub refreshes: u64,
    /// Lost grants that were replaced by connecting again.
    pub reconnected: u64,
}

impl Counts {
    /// The sum. Kills are the run's, not a provider's: they are left as they are.
    pub fn add(&mut self, other: &Counts) {
        self.lost_grants += other.lost_grants;
        self.lost_recorded_in_doubt += other.lost_recorded_in_doubt;
        self.in_doubt_unresolved += other.in_doubt_unresolved;
        self.reuse_detected += other.reuse_detected;
        self.reuse_by_probe += other.reuse_by_probe;
        self.crossed_tokens += other.crossed_tokens;
        self.used_before_durable += other.used_before_durable;
        self.failed_while_valid += other.failed_while_valid;
        self.excess_refreshes += other.excess_refreshes;
        self.used_after_end += other.used_after_end;
        self.secrets_found += other.secrets_found;
        self.requests += other.requests;
        self.requests_cut += other.requests_cut;
        self.requests_failed += other.requests_failed;
        self.refreshes += other.refreshes;
        self.reconnected += other.reconnected;
    }

    /// What speaks against the client: names of the fields above. `lossless` is whether the provider's rule of rotation
    /// lets a client keep every grant, whenever it dies.
    pub fn accusations(&self, lossless: bool) -> Vec<&'static str> {
        let counted = [
            ("lost_grants", self.lost_grants, true),
            ("lost_recorded_in_doubt", self.lost_recorded_in_doubt, lossless),
            ("in_doubt_unresolved", self.in_doubt_unresolved, true),
            ("reuse_detected", self.reuse_detected, true),
            ("reuse_by_probe", self.reuse_by_probe, lossless),
            ("crossed_tokens", self.crossed_tokens, true),
            ("used_before_durable", self.used_before_durable, true),
            ("failed_while_valid", self.failed_while_valid, true),
            ("excess_refreshes", self.excess_refreshes, true),
            ("used_after_end", self.used_after_end, true),
            ("secrets_found", self.secrets_found, true),
        ];
        counted.into_iter().filter(|(_, count, counts)| *counts && *count > 0).map(|(name, ..)| name).collect()
    }

    /// Whether the run tried what it was meant to: enough kills hit a refresh, and there were requests and refreshes.
    /// `least_in_refresh` is the share of kills that must hit one, in percent.
    pub fn is_worth_something(&self, least_in_refresh: u64) -> bool {
        let enough = self.kills_in_refresh.saturating_mul(100) >= self.kills.saturating_mul(least_in_refresh);
        enough && self.requests > self.requests_cut && self.refreshes > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Counts {
        Counts { kills: 10, kills_in_refresh: 3, requests: 10, refreshes: 10, ..Counts::default() }
    }

    #[test]
    fn nothing_speaks_against_a_good_run() {
        assert_eq!((good().accusations(true), good().accusations(false)), (vec![], vec![]));
        assert!(good().is_worth_something(30));
    }

    #[test]
    fn a_run_that_tried_nothing_fails() {
        assert!(!Counts { kills_in_refresh: 2, ..good() }.is_worth_something(30));
        assert!(!Counts { requests_cut: 10, ..good() }.is_worth_something(30));
        assert!(!Counts { refreshes: 0, ..good() }.is_worth_something(30));
    }

    #[test]
    fn every_count_is_an_accusation_where_it_may_not_happen() {
        type Count = fn(&mut Counts) -> &mut u64;
        let everywhere: [(&str, Count); 9] = [
            ("lost_grants", |counts| &mut counts.lost_grants),
            ("in_doubt_unresolved", |counts| &mut counts.in_doubt_unresolved),
            ("reuse_detected", |counts| &mut counts.reuse_detected),
            ("crossed_tokens", |counts| &mut counts.crossed_tokens),
            ("used_before_durable", |counts| &mut counts.used_before_durable),
            ("failed_while_valid", |counts| &mut counts.failed_while_valid),
            ("excess_refreshes", |counts| &mut counts.excess_refreshes),
            ("used_after_end", |counts| &mut counts.used_after_end),
            ("secrets_found", |counts| &mut counts.secrets_found),
        ];
        let lossless: [(&str, Count); 2] = [
            ("lost_recorded_in_doubt", |counts| &mut counts.lost_recorded_in_doubt),
            ("reuse_by_probe", |counts| &mut counts.reuse_by_probe),
        ];
        let with = |count: Count| {
            let mut counts = good();
            *count(&mut counts) = 1;
            counts
        };
        for (name, count) in everywhere {
            assert_eq!((with(count).accusations(true), with(count).accusations(false)), (vec![name], vec![name]));
        }
        for (name, count) in lossless {
            assert_eq!((with(count).accusations(true), with(count).accusations(false)), (vec![name], vec![]));
        }
    }
}
