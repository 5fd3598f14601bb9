//! What was refused lately to whom, for people who want to know why a program behind a handle does not work.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::base::problem_details::ProblemDetails;

/// One kind of refusal, and how often it was met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The host that was meant.
    pub host: String,
    /// The request's method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// The type of the error.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was wrong.
    pub detail: String,
    /// What to do about it.
    pub next_step: String,
    /// How often.
    pub count: u64,
}

impl Refused {
    /// One refusal.
    pub fn new(host: &str, method: &str, path: &str, problem: &ProblemDetails) -> Self {
        Self {
            host: shortened(host),
            method: shortened(method),
            path: shortened(path),
            kind: problem.kind.clone(),
            detail: problem.detail.clone(),
            next_step: problem.next_step.clone(),
            count: 1,
        }
    }

    fn is_same_as(&self, other: &Self) -> bool {
        (&self.host, &self.method, &self.path, &self.kind) == (&other.host, &other.method, &other.path, &other.kind)
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(LONGEST).collect()
}

const LONGEST: usize = 200;
/// So many handles are remembered, and so many refusals of each; the oldest go first.
const HANDLES: usize = 256;
const REFUSALS: usize = 64;

/// The latest refusals of each handle.
#[derive(Default)]
pub struct Refusals(Mutex<VecDeque<(String, VecDeque<Refused>)>>);

impl Refusals {
    /// Takes note of one.
    pub fn note(&self, handle_id: &str, refused: Refused) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.iter().any(|(id, _)| id == handle_id) {
            if all.len() == HANDLES {
                all.pop_front();
            }
            all.push_back((handle_id.to_owned(), VecDeque::new()));
        }
        let Some((_, of_handle)) = all.iter_mut().find(|(id, _)| id == handle_id) else { return };
        match of_handle.iter_mut().find(|known| known.is_same_as(&refused)) {
            Some(known) => known.count += 1,
            None => {
                if of_handle.len() == REFUSALS {
                    of_handle.pop_front();
                }
                of_handle.push_back(refused);
            }
        }
    }

    /// Those of one handle, the oldest first.
    pub fn of(&self, handle_id: &str) -> Vec<Refused> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_handle = all.iter().find(|(id, _)| id == handle_id);
        of_handle.map(|(_, of_handle)| of_handle.iter().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(host: &str) -> Refused {
        Refused::new(host, "GET", "/x", &ProblemDetails::new("host-not-listed", 403, "t", "d", "n"))
    }

    #[test]
    fn the_same_refusal_is_counted_and_memory_is_bounded() {
        let refusals = Refusals::default();
        refusals.note("h_1", refused("a"));
        refusals.note("h_1", refused("a"));
        refusals.note("h_1", refused("b"));
        let counts: Vec<_> = refusals.of("h_1").into_iter().map(|refused| (refused.host, refused.count)).collect();
        assert_eq!(counts, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        (0..2 * REFUSALS).for_each(|number| refusals.note("h_1", refused(&number.to_string())));
        assert_eq!(refusals.of("h_1").len(), REFUSALS);
        (0..2 * HANDLES).for_each(|number| refusals.note(&format!("h_{number}_"), refused("a")));
        assert!(refusals.of("h_1").is_empty() && refusals.of("h_0_").is_empty());
        assert_eq!(refusals.of(&format!("h_{}_", 2 * HANDLES - 1)).len(), 1);
    }
}
