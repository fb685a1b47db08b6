//! When a bet starts: most of the capital at once, the rest bit by bit for regressions that start
//! late.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use switchback_domain::Timestamp;

use crate::math::{exact, exact_list, ln, ln_add_exp, ln_sum_exp};

/// Put on the alternatives at the start. What it costs is `-ln 0.9`, a tenth of a nat.
const AT_ONCE: f64 = 0.9;
/// Share of what is left that each later start gets.
const LATER: f64 = 0.125;
/// Time between two starts.
const PERIOD: Duration = Duration::from_mins(5);
/// Starts after one long silence; more would only be work.
const STARTS_AT_A_TIME_MAX: u32 = 16;

/// The wealth of a mixture over alternatives and over starting times.
///
/// An alternative's wealth multiplies by its bets; at times fixed beforehand each gets some more
/// out of a reserve that does not bet. Wealth and reserve together begin at 1 and are a martingale
/// whenever the bets are: a mixture of processes each of which is 1 before it starts (the same
/// idea as the starting times of e-detectors, Shin, Ramdas and Rinaldo, but with weights that sum
/// to 1, so Ville's bound holds and no run length has to). Without it an hour of good behaviour
/// would have to be paid back before a leak is seen.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stakes {
    /// What each alternative is given of every unit put on, as a logarithm; the weights sum to 1.
    #[serde(with = "exact_list")]
    ln_weights: Vec<f64>,
    /// Wealth of each alternative.
    #[serde(with = "exact_list")]
    ln_wealth: Vec<f64>,
    #[serde(with = "exact")]
    reserve: f64,
    next: Timestamp,
}

impl Stakes {
    /// Begins with these weights, which must sum to at most 1.
    pub fn new(weights: impl Iterator<Item = f64>, started: Timestamp) -> Self {
        let ln_weights: Vec<f64> = weights.map(ln).collect();
        let ln_wealth = ln_weights.iter().map(|weight| weight + ln(AT_ONCE)).collect();
        Self { ln_weights, ln_wealth, reserve: 1.0 - AT_ONCE, next: started + PERIOD }
    }

    /// Starts what is due. To be called before the bets on what happened at `now`. Returns
    /// whether anything started.
    pub fn start_due(&mut self, now: Timestamp) -> bool {
        let mut starts = 0;
        while now >= self.next && starts < STARTS_AT_A_TIME_MAX {
            let part = ln(self.reserve * LATER);
            let wealths = self.ln_wealth.iter_mut().zip(&self.ln_weights);
            wealths.for_each(|(wealth, weight)| *wealth = ln_add_exp(*wealth, part + weight));
            self.reserve *= 1.0 - LATER;
            self.next = self.next + PERIOD;
            starts += 1;
        }
        if now >= self.next {
            self.next = now + PERIOD;
        }
        starts > 0
    }

    /// The wealths, to be multiplied by what the bets gave (to be added to, as logarithms).
    pub(crate) fn ln_wealth_mut(&mut self) -> &mut [f64] {
        &mut self.ln_wealth
    }

    /// Wealth of each alternative, as a logarithm.
    pub fn ln_wealth(&self) -> &[f64] {
        &self.ln_wealth
    }

    /// Everything together, as a logarithm: zero at the start.
    pub fn ln_total(&self) -> f64 {
        let together = ln_sum_exp(self.ln_wealth.iter().copied());
        ln_add_exp(together, ln(self.reserve))
    }

    /// The share that has not been put on anything yet.
    pub fn reserve(&self) -> f64 {
        self.reserve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn putting_on_more_changes_no_wealth() {
        let mut stakes = Stakes::new([0.5, 0.5].into_iter(), Timestamp::default());
        assert!(stakes.ln_total().abs() < 1e-15);
        for minutes in 1..200 {
            stakes.start_due(Timestamp::default() + Duration::from_mins(minutes));
        }
        assert!(stakes.ln_total().abs() < 1e-12, "{}", stakes.ln_total());
        assert!(stakes.reserve() < 0.001);
    }

    #[test]
    fn a_late_regression_does_not_pay_for_the_past() {
        let mut stakes = Stakes::new([1.0].into_iter(), Timestamp::default());
        stakes.ln_wealth_mut()[0] -= 700.0;
        stakes.start_due(Timestamp::default() + Duration::from_mins(10));
        assert!(stakes.ln_wealth()[0] > -4.5, "{}", stakes.ln_wealth()[0]);
        assert!(stakes.ln_total() <= 0.0);
    }
}
