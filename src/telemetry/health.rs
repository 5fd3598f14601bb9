//! Whether this process lives, and whether it is ready for traffic.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What must be well for the process to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The listeners are open.
    Listeners,
    /// The store can be read and written.
    Store,
    /// No refreshed tokens wait for the store to take them.
    RefreshedTokens,
    /// The store is the one that its sentinel knows.
    Sentinel,
    /// The process has not been told to stop.
    Running,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Listeners, Self::Store, Self::RefreshedTokens, Self::Sentinel, Self::Running];

    /// The word for it, in `/readyz` and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Store => "store",
            Self::RefreshedTokens => "refreshed_tokens",
            Self::Sentinel => "sentinel",
            Self::Running => "running",
        }
    }
}

/// The state of all parts.
#[derive(Debug)]
pub struct Health(Mutex<BTreeMap<Part, Option<String>>>);

impl Default for Health {
    /// Nothing is ready yet.
    fn default() -> Self {
        let waiting = |part| (part, Some("starting".to_owned()));
        Self(Mutex::new([Part::Listeners, Part::Store].map(waiting).into()))
    }
}

impl Health {
    /// The part is well.
    pub fn well(&self, part: Part) {
        self.set(part, None);
    }

    /// The part is not; `why` is shown to whoever asks, so it holds no secret.
    pub fn unwell(&self, part: Part, why: impl Into<String>) {
        self.set(part, Some(why.into()));
    }

    fn set(&self, part: Part, state: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(part, state);
    }

    /// Whether a part is well; one that nobody spoke of is.
    pub fn is_well(&self, part: Part) -> bool {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get(&part).is_none_or(Option::is_none)
    }

    /// What is not well, by part; empty means ready.
    pub fn troubles(&self) -> BTreeMap<&'static str, String> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(part, why)| Some((part.word(), why.clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_once_every_part_is_well() {
        let health = Health::default();
        assert_eq!(health.troubles().len(), 2);
        health.well(Part::Listeners);
        health.well(Part::Store);
        assert!(health.troubles().is_empty());
        health.unwell(Part::Store, "disk full");
        assert_eq!(health.troubles(), BTreeMap::from([("store", "disk full".to_owned())]));
        assert_eq!(Part::ALL.map(|part| health.is_well(part)), [true, false, true, true, true]);
    }
}
