//! Gauges: processor, memory, queues. Bets on blocks of the candidate's and the baseline's ratio.
//!
//! Nobody draws lots for gauges, so this rests on a model and says so ([`crate::Guarantee`]).

use serde::{Deserialize, Serialize};

use crate::math::{count, exact, exact_list, ln, ln_sum_exp};

/// Log ratios are cut off at a factor of two, up and down: one wild block says no more than that.
const BOUND: f64 = std::f64::consts::LN_2;
/// Shares of the largest bet that can never lose everything, and the capital on each: most of it
/// on the largest, because a block's noise is small against the bound.
const BETS: [(f64, f64); 5] = [(0.95, 0.6), (0.75, 0.1), (0.5, 0.1), (0.25, 0.1), (0.1, 0.1)];

/// The e-process of a gauge: null "given the past, the log ratio of a block, cut off at a factor of
/// two, is at most `ln ratio_max` on average".
///
/// Wealth multiplies by `1 + lambda (x - m)` (Waudby-Smith and Ramdas, betting), mixed over fixed
/// `lambda`, each below `1 / (m + bound)`, so that wealth stays positive. Blocks must be longer
/// than what the gauge remembers (10 s; more for slow ones). For what grows without bound, such as
/// leaking memory, bet on the growth per block and not on the level.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GaugeBets {
    #[serde(with = "exact")]
    mean_max: f64,
    #[serde(with = "exact_list")]
    ln_wealth: Vec<f64>,
    #[serde(with = "exact")]
    sum: f64,
    blocks: u64,
}

/// Why a block was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// NaN, infinite, zero or negative.
    #[error("a gauge to compare must be a positive number")]
    NotPositive,
}

impl GaugeBets {
    /// Begins; `ratio_max`, at least 1 and below 2, is the largest ratio that is no regression.
    pub fn new(ratio_max: f64) -> Self {
        let mean_max = ln(ratio_max.clamp(1.0, 1.9));
        Self {
            mean_max,
            ln_wealth: BETS.iter().map(|(_, capital)| ln(*capital)).collect(),
            sum: 0.0,
            blocks: 0,
        }
    }

    /// Takes the means of one block.
    pub fn observe(&mut self, candidate: f64, baseline: f64) -> Result<(), Invalid> {
        let is_positive = |number: f64| number.is_finite() && number > 0.0;
        if !is_positive(candidate) || !is_positive(baseline) {
            return Err(Invalid::NotPositive);
        }
        let ratio = ln(candidate) - ln(baseline);
        let excess = ratio.clamp(-BOUND, BOUND) - self.mean_max;
        let largest = 1.0 / (self.mean_max + BOUND);
        let wealths = self.ln_wealth.iter_mut().zip(BETS);
        wealths.for_each(|(wealth, (bet, _))| *wealth += ln(1.0 + bet * largest * excess));
        self.sum += ratio;
        self.blocks += 1;
        Ok(())
    }

    /// Log evidence that the candidate uses more than allowed.
    pub fn ln_evidence(&self) -> f64 {
        ln_sum_exp(self.ln_wealth.iter().copied())
    }

    /// The geometric mean of the ratios; `None` before the first block.
    pub fn ratio(&self) -> Option<f64> {
        (self.blocks > 0).then(|| crate::math::exp(self.sum / count(self.blocks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks_until(ratio: f64, line: f64) -> usize {
        let mut gauge = GaugeBets::new(1.25);
        let mut fires = |_: &usize| {
            gauge.observe(ratio, 1.0).unwrap();
            gauge.ln_evidence() >= line
        };
        (1..=1000).find(|block| fires(block)).unwrap_or(usize::MAX)
    }

    #[test]
    fn one_and_a_half_times_the_use_is_found_in_eight_minutes_and_a_quarter_more_never() {
        let line = 1000.0_f64.ln();
        assert!((30..=50).contains(&blocks_until(1.5, line)), "{}", blocks_until(1.5, line));
        assert!((14..=20).contains(&blocks_until(2.0, line)), "{}", blocks_until(2.0, line));
        assert_eq!(blocks_until(1.25, line), usize::MAX);
    }

    #[test]
    fn a_bet_has_mean_one_at_the_boundary() {
        // Two equally likely ratios whose logs average to ln 1.25.
        let (low, high) = (1.0, 1.25 * 1.25);
        let mean: f64 = [(low, low), (low, high), (high, low), (high, high)]
            .into_iter()
            .map(|(first, second)| {
                let mut gauge = GaugeBets::new(1.25);
                gauge.observe(first, 1.0).unwrap();
                gauge.observe(second, 1.0).unwrap();
                gauge.ln_evidence().exp()
            })
            .sum::<f64>()
            / 4.0;
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn the_ratio_is_the_geometric_mean_of_the_blocks() {
        let mut gauge = GaugeBets::new(1.25);
        for (candidate, baseline) in [(8.0, 1.0), (1.0, 2.0), (2.0, 1.0)] {
            gauge.observe(candidate, baseline).unwrap();
        }
        assert!(gauge.ratio().is_some_and(|ratio| (ratio - 2.0).abs() < 1e-12));
    }

    #[test]
    fn nonsense_is_named_and_changes_nothing() {
        let mut gauge = GaugeBets::new(1.25);
        for (new, old) in [(f64::NAN, 1.0), (1.0, 0.0), (-1.0, 1.0), (f64::INFINITY, 1.0)] {
            assert_eq!(gauge.observe(new, old), Err(Invalid::NotPositive));
        }
        assert_eq!((gauge.ratio(), gauge.ln_evidence().abs() < 1e-12), (None, true));
    }
}
