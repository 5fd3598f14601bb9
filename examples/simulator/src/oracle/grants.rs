//! Whether a grant can still be refreshed, and if not, whether the client can say why.

use std::collections::BTreeSet;

use super::{Held, Standing};
use crate::ledger::{Grant, ProfileLedger};

/// How a grant stands, as the client holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantVerdict {
    /// The provider accepts one of its refresh tokens.
    Kept,
    /// The provider accepts none. The client wrote down beforehand that the outcome of a refresh with it is unknown, and
    /// has either not found out yet or has given it up.
    RecordedInDoubt {
        /// What the client says.
        cause: String,
    },
    /// The provider accepts none, or the client gave up what it accepts, and nothing that the client wrote down says why.
    Lost {
        /// What is wrong.
        why: String,
    },
}

/// Judges what is held for `user` at `at_ms`.
///
/// `doubts` are the refresh tokens that the client has recorded as being in doubt, and of which it has not found out
/// since that they still work. `confirmed` is the id of the
/// newest grant that the user was told is connected: what is held may be newer, not older.
pub fn judge_grant(
    ledger: &ProfileLedger,
    held: Option<&Held>,
    doubts: &BTreeSet<String>,
    confirmed: Option<&str>,
    at_ms: u64,
) -> GrantVerdict {
    let lost = |why: &str| GrantVerdict::Lost { why: why.to_owned() };
    let Some(held) = held else {
        return lost("nothing is stored for the user");
    };
    let Some(position) = ledger.grants.iter().position(|grant| is_held(grant, held)) else {
        return lost("no refresh token that is stored was ever issued");
    };
    let grant = &ledger.grants[position];
    if grant.user != held.user {
        return lost("the refresh token that is stored is another user's");
    }
    let confirmed = ledger.grants.iter().position(|grant| Some(grant.id.as_str()) == confirmed);
    if confirmed.is_some_and(|confirmed| confirmed > position) {
        return lost("a newer grant was reported as connected, and an older one is stored");
    }
    let is_accepted = grant.live_refresh_tokens(at_ms).any(|token| held.refresh_tokens.contains(&token.value_sha256));
    // An older one that is kept beside it explains nothing: it was replaced.
    let newest = grant.refresh_tokens.iter().rfind(|token| held.refresh_tokens.contains(&token.value_sha256));
    let is_newest = |sha256: &String| newest.is_some_and(|newest| newest.value_sha256 == *sha256);
    match (&held.standing, is_accepted) {
        (Standing::GivenUp { .. }, true) => {
            lost("given up, although the provider accepts a refresh token that is stored")
        }
        (_, true) => GrantVerdict::Kept,
        (Standing::InDoubt { refresh_token, cause }, false) if is_newest(refresh_token) => {
            GrantVerdict::RecordedInDoubt { cause: cause.clone() }
        }
        (Standing::GivenUp { cause }, false) if doubts.iter().any(is_newest) => {
            GrantVerdict::RecordedInDoubt { cause: cause.clone() }
        }
        (Standing::GivenUp { .. }, false) => lost("given up, and not recorded as in doubt before"),
        (_, false) => lost("the provider accepts no refresh token that is stored, and nothing is recorded"),
    }
}

fn is_held(grant: &Grant, held: &Held) -> bool {
    grant.refresh_tokens.iter().any(|token| held.refresh_tokens.contains(&token.value_sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::history::{History, held};

    const NOW: u64 = 5_000;

    fn judged(history: &History, held: &Held, doubts: &[&str]) -> GrantVerdict {
        let doubts = doubts.iter().map(|token| (*token).to_owned()).collect();
        judge_grant(&history.ledger, Some(held), &doubts, None, NOW)
    }

    fn is_lost(verdict: &GrantVerdict, expected: &str) {
        assert!(matches!(verdict, GrantVerdict::Lost { why } if why.contains(expected)), "{verdict:?}");
    }

    /// Rotated once; the first refresh token is dead.
    fn rotated() -> History {
        let mut history = History::of("alice");
        history.rotate(1_000);
        history
    }

    fn in_doubt(refresh_token: &str) -> Standing {
        Standing::InDoubt { refresh_token: refresh_token.to_owned(), cause: "the process ended".to_owned() }
    }

    fn given_up() -> Standing {
        Standing::GivenUp { cause: "invalid_grant".to_owned() }
    }

    #[test]
    fn whoever_holds_the_newest_token_keeps_the_grant() {
        assert_eq!(judged(&rotated(), &held("alice", "rt-2", "at-2", Standing::Active), &[]), GrantVerdict::Kept);
        assert_eq!(judged(&rotated(), &held("alice", "rt-2", "at-2", in_doubt("rt-2")), &[]), GrantVerdict::Kept);
    }

    #[test]
    fn an_alternate_counts() {
        let mut both = held("alice", "rt-1", "at-1", Standing::Active);
        both.refresh_tokens.push("rt-2".to_owned());
        assert_eq!(judged(&rotated(), &both, &[]), GrantVerdict::Kept);
    }

    #[test]
    fn a_grace_counts() {
        let mut history = rotated();
        history.token("rt-1").dead_at_ms = Some(NOW + 1);
        let first = held("alice", "rt-1", "at-1", Standing::Active);
        assert_eq!(judged(&history, &first, &[]), GrantVerdict::Kept);
        history.token("rt-1").dead_at_ms = Some(NOW);
        is_lost(&judged(&history, &first, &[]), "nothing is recorded");
    }

    #[test]
    fn a_dead_token_is_a_loss_unless_it_is_recorded_as_in_doubt() {
        let first = |standing| held("alice", "rt-1", "at-1", standing);
        is_lost(&judged(&rotated(), &first(Standing::Active), &[]), "nothing is recorded");
        // That it once was in doubt does not help: it is in use again.
        is_lost(&judged(&rotated(), &first(Standing::Active), &["rt-1"]), "nothing is recorded");
        is_lost(&judged(&rotated(), &first(in_doubt("rt-2")), &[]), "nothing is recorded");
        let recorded = judged(&rotated(), &first(in_doubt("rt-1")), &[]);
        assert_eq!(recorded, GrantVerdict::RecordedInDoubt { cause: "the process ended".to_owned() });
    }

    #[test]
    fn giving_up_needs_a_reason() {
        let first = held("alice", "rt-1", "at-1", given_up());
        is_lost(&judged(&rotated(), &first, &["rt-2"]), "not recorded");
        let recorded = judged(&rotated(), &first, &["rt-1"]);
        assert_eq!(recorded, GrantVerdict::RecordedInDoubt { cause: "invalid_grant".to_owned() });
        let second = held("alice", "rt-2", "at-2", given_up());
        is_lost(&judged(&rotated(), &second, &["rt-2"]), "although the provider accepts");
    }

    #[test]
    fn the_doubt_about_a_token_that_was_replaced_explains_nothing() {
        let mut history = rotated();
        history.rotate(2_000);
        let both = |standing| Held {
            refresh_tokens: vec!["rt-2".to_owned(), "rt-1".to_owned()],
            ..held("alice", "rt-2", "at-2", standing)
        };
        is_lost(&judged(&history, &both(given_up()), &["rt-1"]), "not recorded");
        is_lost(&judged(&history, &both(in_doubt("rt-1")), &[]), "nothing is recorded");
        for standing in [given_up(), in_doubt("rt-2")] {
            let verdict = judged(&history, &both(standing), &["rt-2"]);
            assert!(matches!(verdict, GrantVerdict::RecordedInDoubt { .. }), "{verdict:?}");
        }
    }

    #[test]
    fn what_is_not_there_or_not_the_users_is_a_loss() {
        let history = rotated();
        is_lost(&judge_grant(&history.ledger, None, &BTreeSet::new(), None, NOW), "nothing is stored");
        is_lost(&judged(&history, &held("alice", "made-up", "at-2", Standing::Active), &[]), "ever issued");
        is_lost(&judged(&history, &held("bob", "rt-2", "at-2", Standing::Active), &[]), "another user's");
    }

    #[test]
    fn a_connection_that_was_confirmed_stays() {
        let mut history = rotated();
        history.connect("alice");
        let verdict = |token: &str, access: &str, confirmed: &str| {
            let held = held("alice", token, access, Standing::Active);
            judge_grant(&history.ledger, Some(&held), &BTreeSet::new(), Some(confirmed), NOW)
        };
        is_lost(&verdict("rt-2", "at-2", "grant-2"), "an older one is stored");
        assert_eq!(verdict("rt-2", "at-2", "grant-1"), GrantVerdict::Kept);
        assert_eq!(verdict("rt-3", "at-3", "grant-1"), GrantVerdict::Kept);
    }
}
