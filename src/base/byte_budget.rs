//! Bytes that may be in memory at a time for the same purpose: so many for all together, and so many for each holder, so
//! that one cannot take all of them. Whoever finds no room is told at once: to wait would hold what has arrived already.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is no larger is not counted: it takes up no more than the head of a request does, and must get through while others
/// have taken all the room.
pub const UNCOUNTED: usize = 16 * 1024;

/// What may be held.
pub struct ByteBudget<Holder> {
    whole: usize,
    share: usize,
    tally: Mutex<Tally<Holder>>,
}

struct Tally<Holder> {
    all: usize,
    by_holder: HashMap<Holder, usize>,
}

/// What one thing holds; given back when this is dropped.
pub struct Room<Holder: Clone + Eq + Hash> {
    budget: Arc<ByteBudget<Holder>>,
    holder: Holder,
    largest: usize,
    held: usize,
}

/// Others hold too much already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

impl<Holder: Clone + Eq + Hash> ByteBudget<Holder> {
    /// So many bytes for all, and so many for each.
    pub fn new(whole: usize, share: usize) -> Arc<Self> {
        Arc::new(Self { whole, share, tally: Mutex::new(Tally { all: 0, by_holder: HashMap::new() }) })
    }

    /// Room for something of at most `largest` bytes, which has none of them yet. However small the budget is, one such thing
    /// has its turn.
    pub fn begin(self: &Arc<Self>, holder: Holder, largest: usize) -> Room<Holder> {
        Room { budget: Arc::clone(self), holder, largest, held: 0 }
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Tally<Holder>> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Holder: Clone + Eq + Hash> Room<Holder> {
    /// Has it hold so many bytes altogether, or what it held before if there is no room.
    pub fn reach(&mut self, bytes: usize) -> Result<(), NoRoom> {
        if bytes <= UNCOUNTED.max(self.held) {
            return Ok(());
        }
        let more = bytes - self.held;
        let mut tally = self.budget.lock();
        let own = tally.by_holder.get(&self.holder).copied().unwrap_or_default();
        let is_room = |held: usize, most: usize| held.saturating_add(more) <= most.max(self.largest);
        if !is_room(own, self.budget.share) || !is_room(tally.all, self.budget.whole) {
            return Err(NoRoom);
        }
        tally.all += more;
        tally.by_holder.insert(self.holder.clone(), own + more);
        self.held = bytes;
        Ok(())
    }
}

impl<Holder: Clone + Eq + Hash> Drop for Room<Holder> {
    fn drop(&mut self) {
        if self.held == 0 {
            return;
        }
        let mut tally = self.budget.lock();
        tally.all = tally.all.saturating_sub(self.held);
        let left = tally.by_holder.get(&self.holder).map_or(0, |held| held.saturating_sub(self.held));
        if left == 0 {
            tally.by_holder.remove(&self.holder);
        } else {
            tally.by_holder.insert(self.holder.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn nobody_holds_more_than_a_share_and_all_no_more_than_the_whole() {
        let budget = ByteBudget::new(250 * KIB, 100 * KIB);
        let room = |holder: &'static str| budget.begin(holder, 80 * KIB);
        let mut first = room("alice");
        assert_eq!(first.reach(40 * KIB), Ok(()));
        assert_eq!(first.reach(80 * KIB), Ok(()), "it grows");
        assert_eq!((first.reach(20 * KIB), budget.held()), (Ok(()), 80 * KIB), "and does not shrink");
        let mut second = room("alice");
        assert_eq!(second.reach(20 * KIB), Ok(()));
        assert_eq!(second.reach(21 * KIB), Err(NoRoom));
        assert_eq!(budget.held(), 100 * KIB, "what did not fit is not held");
        let (mut third, mut fourth) = (room("bob"), room("carol"));
        assert_eq!((third.reach(80 * KIB), fourth.reach(70 * KIB)), (Ok(()), Ok(())));
        assert_eq!(fourth.reach(71 * KIB), Err(NoRoom), "the whole is held");
        assert_eq!(room("dave").reach(UNCOUNTED), Ok(()), "what is small gets through");
        drop(first);
        assert_eq!((second.reach(80 * KIB), budget.held()), (Ok(()), 230 * KIB));
        drop((second, third, fourth));
        assert_eq!(budget.held(), 0);
        assert!(budget.lock().by_holder.is_empty());
    }

    #[test]
    fn one_of_the_largest_has_its_turn() {
        let budget = ByteBudget::new(30 * KIB, 20 * KIB);
        let mut large = budget.begin("alice", 50 * KIB);
        assert_eq!(large.reach(50 * KIB), Ok(()));
        assert_eq!(budget.begin("alice", 50 * KIB).reach(17 * KIB), Err(NoRoom));
        drop(large);
        assert_eq!(budget.begin("alice", 50 * KIB).reach(17 * KIB), Ok(()));
    }
}
