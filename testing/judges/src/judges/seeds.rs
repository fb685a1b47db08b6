//! The rule of the project's first documents: error rate above 5 % for 120 s, or response time twice
//! the baseline's for 180 s (design page, 2.3).

use crate::windows::{Judge, Look, SCRAPE};

/// Most errors, and for how many seconds they may be exceeded.
const ERRORS: (f64, u64) = (0.05, 120);
/// The largest ratio of the 95th percentiles, and for how many seconds.
const RATIO: (f64, u64) = (2.0, 180);

/// Fixed triggers with a duration.
#[derive(Debug, Clone, Default)]
pub struct Triggers {
    errors: u64,
    slow: u64,
}

impl Judge for Triggers {
    fn rolls_back(&mut self, look: &Look) -> bool {
        let (new, old) = (&look.scrape.candidate, &look.scrape.production);
        let is_failing = new.error_rate().is_some_and(|rate| rate > ERRORS.0);
        let p95 = new.quantile(0.95).zip(old.quantile(0.95));
        let is_slow = p95.is_some_and(|(new, old)| new > RATIO.0 * old);
        self.errors = if is_failing { self.errors + SCRAPE } else { 0 };
        self.slow = if is_slow { self.slow + SCRAPE } else { 0 };
        self.errors >= ERRORS.1 || self.slow >= RATIO.1
    }
}
