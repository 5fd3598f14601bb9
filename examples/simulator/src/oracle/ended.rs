//! Whether tokens are used after their connection was ended.

use crate::ledger::{AccessToken, ProfileLedger};

/// Access tokens of this user that the API accepted after the client said that the connection is ended.
pub fn used_after_end<'a>(
    ledger: &'a ProfileLedger,
    user: &'a str,
    ended_at_ms: u64,
) -> impl Iterator<Item = &'a AccessToken> {
    let grants = ledger.grants.iter().filter(move |grant| grant.user == user);
    let tokens = grants.flat_map(|grant| &grant.access_tokens);
    tokens.filter(move |token| token.last_used_at_ms.is_some_and(|used| used > ended_at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::history::History;

    #[test]
    fn a_use_after_the_end_is_found() {
        let mut history = History::of("alice");
        let grant = history.ledger.grants.last_mut().unwrap();
        grant.access_tokens[0].last_used_at_ms = Some(5_000);
        let used = |user, ended| used_after_end(&history.ledger, user, ended).count();
        assert_eq!((used("alice", 4_999), used("alice", 5_000), used("bob", 0)), (1, 0, 0));
    }
}
