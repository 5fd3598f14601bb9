//! A value that is replaced as a whole while it is being used: settings, and what is made of them.
//!
//! Whoever works for a request takes a [`Live::snapshot`] once, at its beginning, and nothing else: so that a request sees
//! one state from its beginning to its end, whatever is replaced meanwhile.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The present state of something. Clones share it.
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    /// With this to begin with.
    pub fn new(first: Arc<T>) -> Self {
        Self(Arc::new(ArcSwap::new(first)))
    }

    /// What it is now. It stays as it is for whoever holds it.
    pub fn snapshot(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// From here on whoever asks gets this.
    pub fn replace(&self, next: Arc<T>) {
        self.0.store(next);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_as_it_is() {
        let live = Live::new(Arc::new(1));
        let (before, other) = (live.snapshot(), live.clone());
        other.replace(Arc::new(2));
        assert_eq!((*before, *live.snapshot()), (1, 2));
    }
}
