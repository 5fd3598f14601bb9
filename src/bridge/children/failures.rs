//! When a child that failed may be started again: at once after the first time, then ever more slowly.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::base::backoff::after_failure;
use crate::base::clock::Timestamp;
use crate::base::random::Random;

/// One that has run for so long is well: what happened before does not count.
const WELL: Duration = Duration::from_secs(60);
/// So long after the last failure nothing is remembered of it.
const REMEMBERED: Duration = Duration::from_secs(1800);

/// The failures of children, by key.
pub struct Failures<K>(HashMap<K, Failure>);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How often in a row.
    pub count: u32,
    /// Before this it is not started again.
    pub until: Timestamp,
    /// How it failed the last time.
    pub why: String,
}

impl<K> Default for Failures<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Failures<K> {
    /// Takes note of one that failed after it had run for so long.
    pub fn note(&mut self, key: K, ran: Duration, why: String, now: Timestamp, random: &dyn Random) -> &Failure {
        let before = if ran >= WELL { 0 } else { self.0.get(&key).map_or(0, |failure| failure.count) };
        let wait = if before == 0 { Duration::ZERO } else { after_failure(before, random) };
        let failure = Failure { count: before + 1, until: now.plus(wait), why };
        self.0.entry(key).insert_entry(failure).into_mut()
    }

    /// It is known by now how it failed the last time.
    pub fn explain(&mut self, key: &K, why: String) {
        if let Some(failure) = self.0.get_mut(key) {
            failure.why = why;
        }
    }

    /// What stands in the way of a start now.
    pub fn in_the_way(&self, key: &K, now: Timestamp) -> Option<&Failure> {
        self.0.get(key).filter(|failure| failure.until > now)
    }

    /// Forgets what is long over.
    pub fn sweep(&mut self, now: Timestamp) {
        self.0.retain(|_, failure| failure.until.plus(REMEMBERED) > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    #[test]
    fn the_first_failure_costs_nothing_and_each_further_one_more() {
        let (mut failures, random) = (Failures::default(), SeededRandom::new(1));
        let now = Timestamp::from_millis(0);
        let mut fail =
            |ran, now| failures.note("k", Duration::from_secs(ran), "it ended".to_owned(), now, &random).clone();
        assert_eq!(fail(1, now).until, now);
        for (count, at_most) in [(2, 5), (3, 10), (4, 20)] {
            let failure = fail(1, now);
            let wait = failure.until.since(now);
            let most = Duration::from_secs(at_most);
            assert!(failure.count == count && wait <= most && wait >= most.mul_f64(0.75), "{failure:?}");
        }
        assert_eq!(fail(60, now).count, 1, "one that ran well for a while begins anew");
    }

    #[test]
    fn a_failure_is_in_the_way_until_its_time_is_over_and_then_forgotten() {
        let (mut failures, random) = (Failures::default(), SeededRandom::new(1));
        let at = Timestamp::from_millis;
        failures.note("k", Duration::ZERO, "one".to_owned(), at(0), &random);
        assert_eq!(failures.in_the_way(&"k", at(0)), None);
        failures.note("k", Duration::ZERO, "two".to_owned(), at(0), &random);
        assert_eq!(failures.in_the_way(&"k", at(1)).map(|failure| failure.why.as_str()), Some("two"));
        assert_eq!(failures.in_the_way(&"other", at(1)), None);
        assert_eq!(failures.in_the_way(&"k", at(5_000)), None);
        failures.sweep(at(5_000));
        assert_eq!(failures.0.len(), 1);
        failures.sweep(at(2_000_000));
        assert_eq!(failures.0.len(), 0);
    }
}
