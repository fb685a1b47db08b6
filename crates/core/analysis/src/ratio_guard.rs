//! Sample-ratio mismatch: do the requests arrive in the shares that were drawn?
//!
//! If not, either the coin or the counting is broken, and no label test means anything.

use serde::{Deserialize, Serialize};
use switchback_domain::Weight;

use crate::budget::line;
use crate::label::odds::Odds;

/// Chance of crying wolf over a whole rollout, apart from the rollback's alpha (design page, 9).
const ALPHA: f64 = 0.001;
/// How much too often the candidate may be drawn, or too rarely.
const BETS: [f64; 14] =
    [0.1, 0.25, 0.5, 0.8, 0.9, 0.95, 0.98, 1.02, 1.05, 1.1, 1.25, 2.0, 4.0, 10.0];

/// Watches the assignment. A mixture over odds ratios instead of the Dirichlet mixture that the
/// savvi library uses for fixed shares: the shares change from step to step here.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RatioGuard {
    odds: Odds,
}

impl Default for RatioGuard {
    fn default() -> Self {
        Self { odds: Odds::new(std::iter::once(1.0).chain(BETS).collect()) }
    }
}

impl RatioGuard {
    /// Counts units of assignment: requests, or sessions where those are what the coin is for.
    pub fn observe(&mut self, weight: Weight, candidate: u64, baseline: u64) {
        self.odds.observe(weight, candidate, baseline);
    }

    /// Log evidence that the shares are not those that were drawn.
    pub fn ln_evidence(&self) -> f64 {
        self.odds.ln_evidence(0, 1..self.odds.ratios().len())
    }

    /// Whether the assignment is to be distrusted.
    pub fn is_broken(&self) -> bool {
        self.ln_evidence() >= line(ALPHA)
    }

    /// Units counted for the candidate and for the baseline.
    pub fn counts(&self) -> (u64, u64) {
        self.odds.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drawn_shares_are_trusted_and_others_are_not() {
        let five = Weight::from_percent(5);
        let mut honest = RatioGuard::default();
        let mut losing = RatioGuard::default();
        for _ in 0..1000 {
            honest.observe(five, 50, 950);
            losing.observe(five, 40, 960);
        }
        assert!(!honest.is_broken());
        assert!(losing.is_broken());
    }

    #[test]
    fn a_change_of_the_share_is_no_mismatch() {
        let mut guard = RatioGuard::default();
        for percent in [1_u16, 5, 25, 50, 75] {
            let (weight, percent) = (Weight::from_percent(percent), u64::from(percent));
            (0..100).for_each(|_| guard.observe(weight, 10 * percent, 1000 - 10 * percent));
        }
        assert!(!guard.is_broken());
    }
}
