//! Whether requests failed that need not have.

use super::Held;
use crate::ledger::{AccessToken, ProfileLedger};

/// One request to the client, as its sender saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    /// For whom.
    pub user: String,
    /// When it was begun.
    pub started_at_ms: u64,
    /// When its outcome was known.
    pub ended_at_ms: u64,
    /// How it ended.
    pub outcome: RequestOutcome,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It was answered as it should be.
    Answered,
    /// The client was killed before it could answer.
    Cut,
    /// It was answered with an error, or the connection broke while the client was alive.
    Failed(String),
}

/// Requests that failed although, from their beginning until `margin_ms` after their end, the client had an access token
/// that the provider accepted: one that was stored when the client started (`at_start`), or one that it had used before.
///
/// The margin is how much earlier than the provider a client may take a token for expired, because it counts from when it
/// asked.
pub fn failed_while_valid<'a>(
    ledger: &ProfileLedger,
    requests: &'a [RequestRecord],
    at_start: Option<&Held>,
    margin_ms: u64,
) -> Vec<&'a RequestRecord> {
    let had_token = |request: &RequestRecord| {
        let tokens = ledger.grants.iter().filter(|grant| grant.user == request.user);
        tokens.flat_map(|grant| &grant.access_tokens).any(|token| {
            let is_stored =
                at_start.is_some_and(|held| held.user == request.user && held.access_token == token.value_sha256);
            let was_used = token.first_used_at_ms.is_some_and(|used| used < request.started_at_ms);
            (is_stored || was_used) && outlives(token, request.ended_at_ms + margin_ms)
        })
    };
    requests
        .iter()
        .filter(|request| matches!(request.outcome, RequestOutcome::Failed(_)) && had_token(request))
        .collect()
}

fn outlives(token: &AccessToken, at_ms: u64) -> bool {
    token.issued_at_ms <= at_ms && token.is_valid(at_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Standing;
    use crate::oracle::history::{History, held};

    const MARGIN: u64 = 100;

    fn request(user: &str, ended_at_ms: u64, outcome: RequestOutcome) -> RequestRecord {
        RequestRecord { user: user.to_owned(), started_at_ms: ended_at_ms - 10, ended_at_ms, outcome }
    }

    fn failed() -> RequestOutcome {
        RequestOutcome::Failed("503".to_owned())
    }

    /// Access tokens live for two seconds: at-1 from 0, at-2 from 1,000.
    fn history() -> History {
        let mut history = History::of("alice");
        history.rotate(1_000);
        history
    }

    fn counts(history: &History, request: RequestRecord, stored: Option<&str>) -> bool {
        let held = stored.map(|token| held("alice", "rt-1", token, Standing::Active));
        !failed_while_valid(&history.ledger, &[request], held.as_ref(), MARGIN).is_empty()
    }

    #[test]
    fn a_failure_counts_while_the_stored_token_is_valid() {
        let history = history();
        assert!(counts(&history, request("alice", 500, failed()), Some("at-1")));
        assert!(counts(&history, request("alice", 1_899, failed()), Some("at-1")));
        assert!(!counts(&history, request("alice", 1_900, failed()), Some("at-1")), "it may be taken for expired");
        assert!(!counts(&history, request("alice", 500, failed()), Some("made-up")));
        assert!(!counts(&history, request("alice", 500, failed()), None));
        assert!(!counts(&history, request("bob", 500, failed()), Some("at-1")));
    }

    #[test]
    fn a_token_that_was_used_is_a_token_that_the_client_has() {
        let mut history = history();
        let late = || request("alice", 2_500, failed());
        assert!(!counts(&history, late(), Some("at-1")));
        history.use_access("at-2", 2_490);
        assert!(!counts(&history, late(), Some("at-1")), "used by a request that came later");
        history.use_access("at-2", 1_500);
        assert!(counts(&history, late(), Some("at-1")));
        history.access("at-2").dead_at_ms = Some(2_000);
        assert!(!counts(&history, late(), Some("at-1")), "the provider killed it");
    }

    #[test]
    fn only_failures_count() {
        let history = history();
        for outcome in [RequestOutcome::Answered, RequestOutcome::Cut] {
            assert!(!counts(&history, request("alice", 500, outcome), Some("at-1")));
        }
    }
}
