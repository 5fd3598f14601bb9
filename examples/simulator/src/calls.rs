//! Which calls reached the APIs, and with whose token.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many calls are kept.
const KEPT: usize = 100_000;

/// One call to an API, whatever its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiCall {
    /// The profile's name.
    pub profile: String,
    /// The HTTP method.
    pub method: String,
    /// The host that was asked, as the client named it.
    pub host: String,
    /// The path below the API root, raw, without its query.
    pub path: String,
    /// Whose access token it carried, even if that no longer works; none if it carried none of ours.
    pub user: Option<String>,
    /// The id of that token's grant.
    pub grant: Option<String>,
    /// Which of its grant's access tokens that was, counted from 1.
    pub generation: Option<u64>,
    /// Whether the token was accepted.
    pub accepted: bool,
    /// The first `call-[A-Za-z0-9-]+` in the target, otherwise in the body. A body that a fault left
    /// unread has none.
    pub marker: Option<String>,
}

/// The last calls, each with a number that stays.
#[derive(Default)]
pub(crate) struct Calls {
    kept: VecDeque<ApiCall>,
    /// How many came before those.
    before: u64,
}

impl Calls {
    /// Writes a call down. Returns its number.
    pub(crate) fn add(&mut self, call: ApiCall) -> u64 {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.before += 1;
        }
        self.kept.push_back(call);
        self.before + self.kept.len() as u64 - 1
    }

    /// The call of that number, if it is still kept.
    pub(crate) fn get(&mut self, number: u64) -> Option<&mut ApiCall> {
        let index = usize::try_from(number.checked_sub(self.before)?).ok()?;
        self.kept.get_mut(index)
    }

    /// Hands out the calls that are kept, oldest first, and forgets them.
    pub(crate) fn take(&mut self) -> Vec<ApiCall> {
        self.before += self.kept.len() as u64;
        std::mem::take(&mut self.kept).into()
    }

    /// Forgets all calls, but not how many there were.
    pub(crate) fn clear(&mut self) {
        self.before += self.kept.len() as u64;
        self.kept.clear();
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &ApiCall> {
        self.kept.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str) -> ApiCall {
        ApiCall {
            profile: "generic".to_owned(),
            method: "GET".to_owned(),
            host: "generic.example".to_owned(),
            path: path.to_owned(),
            user: None,
            grant: None,
            generation: None,
            accepted: false,
            marker: None,
        }
    }

    #[test]
    fn numbers_outlive_what_is_forgotten() {
        let mut calls = Calls::default();
        let old = calls.add(call("/old"));
        calls.clear();
        let first = calls.add(call("/first"));
        assert!(calls.get(old).is_none() && calls.get(first).is_some());
        let numbers: Vec<u64> = (0..KEPT).map(|_| calls.add(call("/more"))).collect();
        assert!(calls.get(first).is_none(), "only the last ones are kept");
        assert_eq!(calls.iter().count(), KEPT);
        assert_eq!(calls.get(numbers[0]).unwrap().path, "/more");
        assert!(calls.get(numbers[KEPT - 1] + 1).is_none());
    }
}
