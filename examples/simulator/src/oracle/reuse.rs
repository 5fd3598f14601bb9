//! Whether dead refresh tokens came again.

use std::collections::BTreeSet;

use crate::ledger::{ProfileLedger, RefreshToken};

/// What there is to say about one refresh token that came again when it was dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReuseVerdict {
    /// The client had recorded that it does not know whether it is dead, and asked once: there was no other way to know.
    Probe,
    /// It need not have been sent.
    Unexplained,
}

/// Every refresh token that was reused, with the verdict. `doubts` are the refresh tokens that the client had recorded as
/// being in doubt when they came.
pub fn judge_reuse<'a>(
    ledger: &'a ProfileLedger,
    doubts: &BTreeSet<String>,
) -> impl Iterator<Item = (&'a RefreshToken, ReuseVerdict)> {
    let tokens = ledger.grants.iter().flat_map(|grant| &grant.refresh_tokens);
    tokens.filter(|token| token.reused_count > 0).map(|token| {
        let is_probe = token.reused_count == 1 && doubts.contains(&token.value_sha256);
        (token, if is_probe { ReuseVerdict::Probe } else { ReuseVerdict::Unexplained })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::history::History;

    fn verdicts(reused: u64, doubts: &[&str]) -> Vec<ReuseVerdict> {
        let mut history = History::of("alice");
        history.rotate(1_000);
        history.token("rt-1").reused_count = reused;
        let doubts = doubts.iter().map(|token| (*token).to_owned()).collect();
        judge_reuse(&history.ledger, &doubts).map(|(_, verdict)| verdict).collect()
    }

    #[test]
    fn one_probe_of_what_is_in_doubt_is_all_there_may_be() {
        assert_eq!(verdicts(0, &[]), []);
        assert_eq!(verdicts(1, &["rt-1"]), [ReuseVerdict::Probe]);
        assert_eq!(verdicts(1, &["rt-2"]), [ReuseVerdict::Unexplained]);
        assert_eq!(verdicts(2, &["rt-1"]), [ReuseVerdict::Unexplained]);
    }
}
