//! How long to wait before asking again.

use std::time::Duration;

use crate::base::random::{Random, fraction};

/// The waits between one try and its up to three repetitions.
pub const RETRY_WAITS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// The wait after the `failures`-th failure in a row: 5 s, doubling up to 10 minutes, each shortened by up to a quarter
/// so that many connections of one provider do not come back in step.
pub fn after_failure(failures: u32, random: &dyn Random) -> Duration {
    let doubled = Duration::from_secs(5).saturating_mul(1 << failures.saturating_sub(1).min(7));
    doubled.min(Duration::from_secs(600)).mul_f64(1.0 - fraction(random) / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SeededRandom;

    #[test]
    fn grows_and_stops_growing() {
        let random = SeededRandom::new(1);
        for (failures, at_most) in [(1, 5), (2, 10), (5, 80), (7, 320), (8, 600), (1000, 600)] {
            let wait = after_failure(failures, &random);
            let at_most = Duration::from_secs(at_most);
            assert!(wait <= at_most && wait >= at_most.mul_f64(0.75), "{failures}: {wait:?}");
        }
    }
}
