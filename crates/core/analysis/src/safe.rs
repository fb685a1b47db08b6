//! Safe to advance: evidence *against* harm. Silence is not safety.

use serde::{Deserialize, Serialize};
use switchback_domain::Weight;

use crate::label::odds::Odds;
use crate::math::{count, exact, ln, ln_add_exp, ln_sum_exp};

/// Capital on "just as good as the baseline" and on "half as many events".
const CAPITAL: [(f64, f64); 2] = [(1.0, 0.9), (0.5, 0.1)];

/// Evidence that bad events are less than `ratio_max` times as frequent on the candidate.
///
/// The label product with the null at the boundary and bets below it (design page, 3.4): at the
/// boundary its expectation is 1, beyond it less.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NonInferiority {
    odds: Odds,
}

impl NonInferiority {
    /// Begins; `ratio_max` is above 1.
    pub fn new(ratio_max: f64) -> Self {
        let bets = CAPITAL.iter().map(|(ratio, _)| *ratio);
        Self { odds: Odds::new(std::iter::once(ratio_max).chain(bets).collect()) }
    }

    /// Counts bad events.
    pub fn observe(&mut self, weight: Weight, candidate: u64, baseline: u64) {
        self.odds.observe(weight, candidate, baseline);
    }

    /// Log evidence that the ratio is below the boundary.
    pub fn ln_evidence(&self) -> f64 {
        let term = |(bet, (_, capital)): (usize, &(f64, f64))| {
            ln(*capital) + self.odds.ln_likelihood(bet + 1)
        };
        ln_sum_exp(CAPITAL.iter().enumerate().map(term)) - self.odds.ln_likelihood(0)
    }
}

/// Evidence that the candidate's rate of bad events is below an absolute bound.
///
/// A likelihood ratio against the bound, half of it on no bad event at all and half on a quarter
/// of the bound: valid if, whatever came before, a request is bad with at least the bound's
/// probability. Assumes that probability to be steady only in this sense; the label tests assume
/// nothing of the kind and come first.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RateBound {
    #[serde(with = "exact")]
    rate_max: f64,
    requests: u64,
    bad: u64,
}

impl RateBound {
    /// Begins; `rate_max` is between 0 and 1, both excluded.
    pub fn new(rate_max: f64) -> Self {
        Self { rate_max, requests: 0, bad: 0 }
    }

    /// Counts requests and how many of them were bad.
    pub fn observe(&mut self, requests: u64, bad: u64) {
        self.requests = self.requests.saturating_add(requests);
        self.bad = self.bad.saturating_add(bad);
    }

    /// Log evidence that the rate is below the bound.
    pub fn ln_evidence(&self) -> f64 {
        let good = count(self.requests.saturating_sub(self.bad));
        let against = |rate: f64| good * (ln(1.0 - rate) - ln(1.0 - self.rate_max));
        let none = if self.bad == 0 { against(0.0) } else { f64::NEG_INFINITY };
        let few = against(self.rate_max / 4.0) - count(self.bad) * ln(4.0);
        ln_add_exp(none, few) - ln(2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_of_many_errors_certify_and_double_ones_do_not() {
        let quarter = Weight::from_percent(25);
        let mut equal = NonInferiority::new(2.0);
        equal.observe(quarter, 25, 75);
        // 25 ln(1.25 / 2) + 75 ln 1.25 = 4.985; the mixture keeps nine tenths of it and a little.
        assert!((equal.ln_evidence() - 4.88).abs() < 0.02, "{}", equal.ln_evidence());
        let mut double = NonInferiority::new(2.0);
        double.observe(quarter, 40, 60);
        assert!(double.ln_evidence() < -5.0);
    }

    #[test]
    fn three_hundred_good_requests_certify_a_bound_of_one_percent() {
        let mut bound = RateBound::new(0.01);
        bound.observe(299, 0);
        assert!(bound.ln_evidence() < 20.0_f64.ln());
        bound.observe(101, 0);
        assert!(bound.ln_evidence() >= 20.0_f64.ln());
        bound.observe(6, 6);
        assert!(bound.ln_evidence() < 0.0);
    }

    #[test]
    fn no_request_is_no_evidence() {
        assert!(RateBound::new(0.01).ln_evidence().abs() < 1e-12);
        assert!(NonInferiority::new(2.0).ln_evidence().abs() < 1e-12);
    }
}
