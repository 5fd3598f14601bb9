//! The oracle's rules, applied to what one provider's ledger, the dead process's store and the callers say.

use std::collections::{BTreeMap, BTreeSet};

use sidekey_simulator::oracle::{
    Counts, GrantVerdict, Held, RequestOutcome, RequestRecord, ReuseVerdict, Standing, crossed_calls,
    failed_while_valid, judge_grant, judge_reuse, used_before_durable,
};
use sidekey_simulator::{ApiCall, ProfileLedger};

use crate::arena::SUBJECTS;
use crate::image::Stored;
use crate::load::Exchange;
use crate::models::Model;
use crate::report;
use crate::weather::LONGEST_WAY;

/// How much earlier than the provider Sidekey may take a token for expired: it counts from when it asked, and a busy
/// machine takes its time in between.
const MARGIN: u64 = LONGEST_WAY + 300;

/// What was found out about one provider so far.
pub struct Case {
    /// What was counted.
    pub counts: Counts,
    /// What speaks against Sidekey, for people.
    pub findings: Vec<String>,
    model: Model,
    /// What was stored for each subject when the last process died.
    held: BTreeMap<String, Held>,
    /// The newest grant that each subject was told is connected.
    confirmed: BTreeMap<String, String>,
    /// Refresh tokens that a store has shown as in doubt, as long as they are stored and not in use again.
    doubts: BTreeSet<String>,
    /// How often which refresh token was reused.
    reused: BTreeMap<String, u64>,
    /// Grants that are lost, and whether that was recorded.
    lost: BTreeMap<String, bool>,
    /// Access tokens that were used too early.
    early: BTreeSet<String>,
}

/// What there is after one process has ended.
pub struct Evidence<'e> {
    /// For people: which one.
    pub process: String,
    /// When it was started, in milliseconds since 1970.
    pub spawned_at_ms: u64,
    /// When it was killed.
    pub killed_at_ms: Option<u64>,
    /// The provider's ledger, from when nothing was under way to it anymore.
    pub ledger: &'e ProfileLedger,
    /// When the ledger was copied.
    pub at_ms: u64,
    /// The API calls that reached the provider.
    pub calls: &'e [ApiCall],
    /// What is stored, by subject.
    pub stored: BTreeMap<String, Stored>,
    /// What the callers saw.
    pub exchanges: Vec<Exchange>,
}

impl Case {
    /// Nothing is known yet.
    pub fn new(model: Model) -> Self {
        Self {
            counts: Counts::default(),
            findings: Vec::new(),
            model,
            held: BTreeMap::new(),
            confirmed: BTreeMap::new(),
            doubts: BTreeSet::new(),
            reused: BTreeMap::new(),
            lost: BTreeMap::new(),
            early: BTreeSet::new(),
        }
    }

    /// A subject was told that this grant is connected.
    pub fn confirm(&mut self, subject: &str, grant: &str) {
        self.confirmed.insert(subject.to_owned(), grant.to_owned());
    }

    /// Subjects that must connect again.
    pub fn given_up(&self) -> Vec<&'static str> {
        let is_given_up = |subject: &&str| {
            self.held.get(*subject).is_some_and(|held| matches!(held.standing, Standing::GivenUp { .. }))
        };
        SUBJECTS.into_iter().filter(is_given_up).collect()
    }

    /// Judges what a process left. Returns whether it died in a refresh with this provider.
    pub fn judge(&mut self, evidence: Evidence<'_>) -> bool {
        self.judge_requests(&evidence);
        for stored in evidence.stored.values() {
            if let Standing::InDoubt { refresh_token, .. } = &stored.held.standing {
                self.doubts.insert(refresh_token.clone());
            }
        }
        for subject in SUBJECTS {
            self.judge_subject(subject, &evidence);
        }
        self.judge_reuse(&evidence);
        let is_open = |token: &String| {
            let connections = evidence.stored.values().map(|stored| &stored.held);
            connections.filter(|held| held.standing != Standing::Active).any(|held| held.refresh_tokens.contains(token))
        };
        self.doubts.retain(is_open);
        self.counts.refreshes = evidence.ledger.counters.refreshes_ok;
        self.held = evidence.stored.iter().map(|(subject, stored)| (subject.clone(), stored.held.clone())).collect();
        let began = |stored: &Stored| stored.refreshing_since_ms.is_some_and(|since| since >= evidence.spawned_at_ms);
        let in_refresh = evidence.killed_at_ms.is_some() && evidence.stored.values().any(began);
        self.counts.kills += u64::from(evidence.killed_at_ms.is_some());
        self.counts.kills_in_refresh += u64::from(in_refresh);
        in_refresh
    }

    /// When all is quiet nothing may be in doubt.
    pub fn judge_quiet(&mut self, evidence: &Evidence<'_>) {
        for (subject, stored) in &evidence.stored {
            if matches!(stored.held.standing, Standing::InDoubt { .. }) {
                self.counts.in_doubt_unresolved += 1;
                self.accuse(evidence, subject, "in_doubt_unresolved: it is still in doubt when all is quiet");
            }
        }
    }

    fn judge_subject(&mut self, subject: &str, evidence: &Evidence<'_>) {
        let held = evidence.stored.get(subject).map(|stored| &stored.held);
        let confirmed = self.confirmed.get(subject).map(String::as_str);
        let verdict = judge_grant(evidence.ledger, held, &self.doubts, confirmed, evidence.at_ms);
        let grant = held.and_then(|held| {
            let token = held.refresh_tokens.first()?;
            evidence.ledger.grants.iter().find(|grant| grant.has_token(token))
        });
        let grant = grant.or_else(|| evidence.ledger.last_grant_of(subject));
        let grant = grant.map_or_else(|| subject.to_owned(), |grant| grant.id.clone());
        let accusation = match verdict {
            GrantVerdict::Kept => None,
            GrantVerdict::RecordedInDoubt { cause } => {
                let is_new = self.lost.insert(grant, true).is_none();
                let may_not_happen = is_new && self.model.keeps_every_grant();
                may_not_happen.then(|| format!("lost_recorded_in_doubt: recorded with the cause {cause:?}"))
            }
            GrantVerdict::Lost { why } => {
                let is_new = self.lost.insert(grant, false) != Some(false);
                is_new.then(|| format!("lost_grants: {why}"))
            }
        };
        let recorded = self.lost.values().filter(|recorded| **recorded).count() as u64;
        self.counts.lost_recorded_in_doubt = recorded;
        self.counts.lost_grants = self.lost.len() as u64 - recorded;
        if let Some(accusation) = accusation {
            self.accuse(evidence, subject, &accusation);
        }
        let Some(held) = held else { return };
        for token in used_before_durable(evidence.ledger, held) {
            if self.early.insert(token.id.clone()) {
                self.counts.used_before_durable += 1;
                let what = format!("used_before_durable: {} was used and is not in the store", token.id);
                self.accuse(evidence, subject, &what);
            }
        }
    }

    fn judge_reuse(&mut self, evidence: &Evidence<'_>) {
        let mut accused = Vec::new();
        for (token, verdict) in judge_reuse(evidence.ledger, &self.doubts) {
            let known = self.reused.insert(token.id.clone(), token.reused_count).unwrap_or_default();
            let new = token.reused_count - known;
            match verdict {
                ReuseVerdict::Probe => self.counts.reuse_by_probe += new,
                // What was known has been judged when it came: the doubt may be over by now.
                ReuseVerdict::Unexplained => self.counts.reuse_detected += new,
            }
            if new > 0 && (verdict == ReuseVerdict::Unexplained || self.model.keeps_every_grant()) {
                accused.push(token.value_sha256.clone());
            }
        }
        for token in accused {
            let grant = evidence.ledger.grants.iter().find(|grant| grant.has_token(&token));
            let user = grant.map(|grant| grant.user.clone()).unwrap_or_default();
            self.accuse(evidence, &user, &format!("reuse_detected: the dead refresh token {token} came again"));
        }
    }

    fn judge_requests(&mut self, evidence: &Evidence<'_>) {
        let caller = |mark: &str| mark.split('-').nth(1).map(str::to_owned);
        let crossed: Vec<_> = crossed_calls(evidence.calls, caller).collect();
        for call in &crossed {
            let what = format!("crossed_tokens: {call:?}");
            self.accuse(evidence, call.user.as_deref().unwrap_or_default(), &what);
        }
        self.counts.crossed_tokens += crossed.len() as u64;
        for exchange in &evidence.exchanges {
            let subject = &exchange.record.user;
            if exchange.answered_for.as_ref().is_some_and(|user| user != subject) {
                self.counts.crossed_tokens += 1;
                self.accuse(evidence, subject, &format!("crossed_tokens: answered for {:?}", exchange.answered_for));
            }
        }
        let records: Vec<RequestRecord> = evidence.exchanges.iter().map(|made| outcome(made, evidence)).collect();
        self.counts.requests += records.len() as u64;
        let cut = records.iter().filter(|record| record.outcome == RequestOutcome::Cut).count();
        self.counts.requests_cut += cut as u64;
        let failed = records.iter().filter(|record| matches!(record.outcome, RequestOutcome::Failed(_))).count();
        let mut in_vain = 0;
        for subject in SUBJECTS {
            let own: Vec<_> = records.iter().filter(|record| record.user == subject).cloned().collect();
            for request in failed_while_valid(evidence.ledger, &own, self.held.get(subject), MARGIN) {
                in_vain += 1;
                let what = format!(
                    "failed_while_valid: {} ms after the start, after {} ms: {:?}",
                    request.started_at_ms.saturating_sub(evidence.spawned_at_ms),
                    request.ended_at_ms - request.started_at_ms,
                    request.outcome
                );
                self.accuse(evidence, subject, &what);
            }
        }
        self.counts.failed_while_valid += in_vain;
        self.counts.requests_failed += failed as u64 - in_vain;
    }

    fn accuse(&mut self, evidence: &Evidence<'_>, subject: &str, what: &str) {
        self.findings.push(report::finding(self.model, evidence, subject, what));
    }
}

/// What the kill ended is nobody's failure.
fn outcome(made: &Exchange, evidence: &Evidence<'_>) -> RequestRecord {
    let mut record = made.record.clone();
    let is_after = evidence.killed_at_ms.is_some_and(|killed| record.ended_at_ms >= killed);
    if is_after && matches!(record.outcome, RequestOutcome::Failed(_)) {
        record.outcome = RequestOutcome::Cut;
    }
    record
}
