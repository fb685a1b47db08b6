//! The likelihood of labels under a set of odds ratios: what every test on counted events is
//! made of (errors, non-inferiority, sample ratio, business events, the interval of the effect).

use serde::{Deserialize, Serialize};
use switchback_domain::Weight;

use crate::math::{count, exact_list, ln, ln_sum_exp};

/// Log-likelihoods of the labels of one kind of event.
///
/// If an event is `r` times as likely on the candidate, its label is "candidate" with probability
/// `rho r / (rho r + 1 - rho)`, where `rho` is the candidate's share of the traffic. The
/// log-likelihood of `r` over all events so far, up to a term that does not depend on `r`, is
///
/// `candidate * ln r - sum over events of ln(rho r + 1 - rho)`.
///
/// The difference of two of them is the decision engine's label product (design page, 3.1): with
/// null `r0` and alternative `r = r0 f` one event multiplies by `f / (rho' f + 1 - rho')` on the
/// candidate and `1 / (rho' f + 1 - rho')` on the baseline, `rho' = rho r0 / (rho r0 + 1 - rho)`.
/// Its expectation is 1 if the ratio is `r0`, at most 1 for `f > 1` if it is smaller, and at most 1
/// for `f < 1` if it is larger. So one table serves every null and alternative at once, and the
/// share may change from event to event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Odds {
    candidate: u64,
    baseline: u64,
    #[serde(with = "exact_list")]
    ratios: Vec<f64>,
    /// Per ratio: sum over events of `ln(rho r + 1 - rho)`.
    #[serde(with = "exact_list")]
    spent: Vec<f64>,
    /// `ln(rho r + 1 - rho)` for the share last used; a function of it alone.
    #[serde(skip)]
    table: Option<(Weight, Vec<f64>)>,
}

impl Odds {
    /// Keeps the likelihoods of these ratios, all positive and finite.
    pub fn new(ratios: Vec<f64>) -> Self {
        let spent = vec![0.0; ratios.len()];
        Self { candidate: 0, baseline: 0, ratios, spent, table: None }
    }

    /// Counts events whose labels were drawn while the candidate's share was `weight`. With a
    /// share of nothing or everything a label says nothing; such events are left out.
    pub fn observe(&mut self, weight: Weight, candidate: u64, baseline: u64) {
        let events = candidate.saturating_add(baseline);
        if events == 0 || weight == Weight::ZERO || weight == Weight::ALL {
            return;
        }
        self.candidate = self.candidate.saturating_add(candidate);
        self.baseline = self.baseline.saturating_add(baseline);
        let (_, table) = match self.table.take() {
            Some(table) if table.0 == weight => self.table.insert(table),
            Some(_) | None => self.table.insert((weight, mean_logs(&self.ratios, weight))),
        };
        let events = count(events);
        self.spent.iter_mut().zip(table).for_each(|(spent, mean)| *spent += events * *mean);
    }

    /// Events on the candidate and on the baseline.
    pub fn counts(&self) -> (u64, u64) {
        (self.candidate, self.baseline)
    }

    /// The ratios asked about.
    pub fn ratios(&self) -> &[f64] {
        &self.ratios
    }

    /// The log-likelihood of the ratio at `index`; minus infinity if there is none.
    pub fn ln_likelihood(&self, index: usize) -> f64 {
        let (Some(ratio), Some(spent)) = (self.ratios.get(index), self.spent.get(index)) else {
            return f64::NEG_INFINITY;
        };
        count(self.candidate) * ln(*ratio) - spent
    }

    /// Log evidence against the ratio at `null`: the mean over the ratios in `alternatives`.
    pub fn ln_evidence(&self, null: usize, alternatives: std::ops::Range<usize>) -> f64 {
        let members = crate::math::length(alternatives.len());
        let terms = alternatives.map(|index| self.ln_likelihood(index));
        ln_sum_exp(terms) - ln(members) - self.ln_likelihood(null)
    }
}

/// `ln(rho r + 1 - rho)` of each ratio.
fn mean_logs(ratios: &[f64], weight: Weight) -> Vec<f64> {
    let share = share_of(weight);
    ratios.iter().map(|ratio| ln(share * ratio + (1.0 - share))).collect()
}

/// A weight as a number from 0 to 1.
pub(crate) fn share_of(weight: Weight) -> f64 {
    f64::from(weight.basis_points()) / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio_by_hand(share: f64, null: f64, bet: f64, candidate: i32, baseline: i32) -> f64 {
        let moved = share * null / (share * null + 1.0 - share);
        let mean = moved * bet + 1.0 - moved;
        (bet / mean).powi(candidate) * (1.0 / mean).powi(baseline)
    }

    #[test]
    fn likelihood_ratios_are_the_label_products_of_the_design_page() {
        let mut odds = Odds::new(vec![1.25, 1.25 * 5.0]);
        let five = Weight::from_percent(5);
        let half = Weight::from_percent(50);
        odds.observe(five, 3, 2);
        odds.observe(half, 1, 4);
        let by_hand = ratio_by_hand(0.05, 1.25, 5.0, 3, 2) * ratio_by_hand(0.5, 1.25, 5.0, 1, 4);
        let evidence = odds.ln_evidence(0, 1..2).exp();
        assert!((evidence / by_hand - 1.0).abs() < 1e-12, "{evidence} {by_hand}");
    }

    #[test]
    fn three_candidate_errors_and_no_other_cross_the_line_at_five_percent() {
        let mut odds = Odds::new(vec![1.0, 100.0]);
        odds.observe(Weight::from_percent(5), 3, 0);
        // (100 / (0.05 * 100 + 0.95))^3
        assert!((odds.ln_evidence(0, 1..2).exp() - (100.0_f64 / 5.95).powi(3)).abs() < 1e-6);
    }

    #[test]
    fn without_a_coin_there_is_no_evidence() {
        let mut odds = Odds::new(vec![1.0, 5.0]);
        odds.observe(Weight::ZERO, 100, 0);
        odds.observe(Weight::ALL, 100, 0);
        odds.observe(Weight::from_percent(5), 0, 0);
        assert_eq!((odds.counts(), odds.ln_evidence(0, 1..2)), ((0, 0), 0.0));
    }
}
