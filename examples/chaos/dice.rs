//! Chance that can be repeated.

use sidekey::base::random::{SeededRandom, fraction};

/// One sequence of chances.
pub struct Dice(SeededRandom);

impl Dice {
    /// The sequence of `stream` in the run of `seed`. Streams are independent, so that one that is asked more or less often,
    /// because of what the machine did, changes no other.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(SeededRandom::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(stream)))
    }

    /// Whether something happens that has this probability.
    pub fn chance(&self, probability: f64) -> bool {
        fraction(&self.0) < probability
    }

    /// A number from `from` up to, but not including, `to`.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        let width = to.saturating_sub(from) as f64;
        from + (fraction(&self.0) * width) as u64
    }
}
