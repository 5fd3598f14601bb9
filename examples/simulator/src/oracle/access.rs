//! Whose access tokens were used, and whether that was too early.

use super::Held;
use crate::calls::ApiCall;
use crate::ledger::{AccessToken, ProfileLedger};

/// Calls with an access token that is not the caller's own: another user's, or none that was ever issued. `caller` finds
/// out from a call's mark who made it; a call that nobody made is listed too.
pub fn crossed_calls<'a>(
    calls: &'a [ApiCall],
    caller: impl Fn(&str) -> Option<String> + 'a,
) -> impl Iterator<Item = &'a ApiCall> {
    calls.iter().filter(move |call| {
        let caller = call.marker.as_deref().and_then(&caller);
        caller.is_none() || call.user != caller
    })
}

/// Access tokens that the client has used although what it has stored is older: had it lost its memory between the two, the
/// refresh token that came with them would be gone.
pub fn used_before_durable<'a>(ledger: &'a ProfileLedger, held: &Held) -> Vec<&'a AccessToken> {
    let of_user =
        || ledger.grants.iter().filter(|grant| grant.user == held.user).flat_map(|grant| &grant.access_tokens);
    let Some(stored) = of_user().position(|token| token.value_sha256 == held.access_token) else {
        // A token that was never issued: all that were used have been used in vain.
        return of_user().filter(|token| token.used_count > 0).collect();
    };
    of_user().skip(stored + 1).filter(|token| token.used_count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::Standing;
    use crate::oracle::history::{History, held};

    fn call(marker: Option<&str>, user: Option<&str>) -> ApiCall {
        ApiCall {
            profile: "generic".to_owned(),
            method: "GET".to_owned(),
            host: "generic.example".to_owned(),
            path: "/".to_owned(),
            user: user.map(str::to_owned),
            grant: None,
            generation: None,
            accepted: true,
            marker: marker.map(str::to_owned),
        }
    }

    fn crossed(marker: Option<&str>, user: Option<&str>) -> bool {
        let caller = |mark: &str| mark.split('-').nth(1).map(str::to_owned);
        crossed_calls(&[call(marker, user)], caller).next().is_some()
    }

    #[test]
    fn a_call_is_made_with_the_callers_own_token() {
        assert!(!crossed(Some("call-alice-1"), Some("alice")));
        assert!(crossed(Some("call-alice-1"), Some("bob")));
        assert!(crossed(Some("call-alice-1"), None));
        assert!(crossed(None, Some("alice")));
        assert!(crossed(None, None));
    }

    fn too_early(history: &History, user: &str, stored: &str) -> Vec<String> {
        let held = held(user, "rt-1", stored, Standing::Active);
        used_before_durable(&history.ledger, &held).into_iter().map(|token| token.id.clone()).collect()
    }

    #[test]
    fn what_is_used_is_stored_already() {
        let mut history = History::of("alice");
        history.rotate(1_000);
        history.use_access("at-1", 500);
        assert_eq!(too_early(&history, "alice", "at-1"), [""; 0], "issued is not used");
        history.use_access("at-2", 1_500);
        assert_eq!(too_early(&history, "alice", "at-2"), [""; 0]);
        assert_eq!(too_early(&history, "alice", "at-1"), ["at-2"]);
        assert_eq!(too_early(&history, "alice", "made-up"), ["at-1", "at-2"]);
    }

    #[test]
    fn a_newer_grant_counts_and_another_users_does_not() {
        let mut history = History::of("alice");
        history.connect("bob");
        history.use_access("at-2", 1_000);
        assert_eq!(too_early(&history, "alice", "at-1"), [""; 0]);
        history.connect("alice");
        history.use_access("at-3", 1_500);
        assert_eq!(too_early(&history, "alice", "at-1"), ["at-3"]);
    }
}
