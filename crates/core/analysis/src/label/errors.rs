//! Errors: evidence that the candidate fails more often than allowed, that it does not, and how
//! much more it fails.

use serde::{Deserialize, Serialize};
use switchback_domain::{Timestamp, Weight};

use super::odds::Odds;
use super::stakes::Stakes;
use crate::math::ln;

/// How many times as many errors the bets are on (design page, 3.1).
pub const BETS: [f64; 11] = [1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 35.0, 60.0, 100.0];
/// Capital on each bet: twice as much on what is worth finding fast. Against the page's equal
/// shares this saves 5 % of the requests at ten times the errors and costs nothing at fifty times.
const CAPITAL: [f64; BETS.len()] = [1.0, 1.0, 1.0, 1.5, 2.0, 2.0, 2.0, 2.0, 1.5, 1.0, 1.0];
/// Errors of the candidate before it can be taken back for them.
const ERRORS_MIN: u64 = 3;
/// The least difference of error rates that is worth a rollback: 0.05 points.
const EXCESS_MIN: f64 = 0.0005;
/// Grid of the interval: quarter octaves from 2^-6 to 2^7.
const GRID_FIRST: i32 = -24;
const GRID_LAST: i32 = 28;

/// Requests and errors of both arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// Finished requests of the candidate.
    pub candidate_requests: u64,
    /// Those of them that failed.
    pub candidate_failed: u64,
    /// Finished requests of the baseline.
    pub baseline_requests: u64,
    /// Those of them that failed.
    pub baseline_failed: u64,
}

impl ErrorCounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        self.zip(earlier, u64::saturating_sub)
    }

    /// The candidate's error rate; zero without requests.
    pub fn candidate_rate(self) -> f64 {
        rate(self.candidate_failed, self.candidate_requests)
    }

    /// The baseline's error rate; zero without requests.
    pub fn baseline_rate(self) -> f64 {
        rate(self.baseline_failed, self.baseline_requests)
    }

    fn zip(self, other: Self, operation: fn(u64, u64) -> u64) -> Self {
        Self {
            candidate_requests: operation(self.candidate_requests, other.candidate_requests),
            candidate_failed: operation(self.candidate_failed, other.candidate_failed),
            baseline_requests: operation(self.baseline_requests, other.baseline_requests),
            baseline_failed: operation(self.baseline_failed, other.baseline_failed),
        }
    }
}

fn rate(failed: u64, requests: u64) -> f64 {
    if requests == 0 { 0.0 } else { crate::math::count(failed) / crate::math::count(requests) }
}

/// The e-process of errors (design page, 3.1): null "the candidate fails at most `tolerance` times
/// as often", exact whatever the error rate does, because only labels are bet on. A request without
/// error costs nothing and says nothing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errors {
    odds: Odds,
    stakes: Stakes,
    total: ErrorCounts,
    /// Totals when the evidence was last lowest: what the gates look back to, so that an hour of
    /// good behaviour does not hide what happens now.
    low: (Low, ErrorCounts),
}

/// The lowest evidence since the stakes last grew.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Low(#[serde(with = "crate::math::exact")] f64);

impl Errors {
    /// Begins. `tolerance` is the largest ratio of error rates that is no regression.
    pub fn new(tolerance: f64, started: Timestamp) -> Self {
        let bets = BETS.iter().map(|bet| bet * tolerance);
        let grid = (GRID_FIRST..=GRID_LAST).map(|quarter| libm::exp2(f64::from(quarter) / 4.0));
        let ratios = std::iter::once(tolerance).chain(bets).chain(grid).collect();
        let all: f64 = CAPITAL.iter().sum();
        Self {
            odds: Odds::new(ratios),
            stakes: Stakes::new(CAPITAL.iter().map(|capital| capital / all), started),
            total: ErrorCounts::default(),
            low: (Low(0.0), ErrorCounts::default()),
        }
    }

    /// Takes what ended, of requests that were assigned while the candidate's share was `weight`.
    pub fn observe(&mut self, now: Timestamp, weight: Weight, counts: ErrorCounts) {
        let evidence = self.ln_evidence();
        if (self.stakes.start_due(now) && evidence < 0.0) || evidence < self.low.0.0 {
            self.low = (Low(evidence), self.total);
        }
        self.total = self.total.plus(counts);
        if counts.candidate_failed == 0 && counts.baseline_failed == 0 {
            return;
        }
        let before = self.ln_ratios();
        self.odds.observe(weight, counts.candidate_failed, counts.baseline_failed);
        let after = self.ln_ratios();
        let wealth = self.stakes.ln_wealth_mut().iter_mut();
        wealth
            .zip(after.iter().zip(before))
            .for_each(|(wealth, (now, then))| *wealth += now - then);
    }

    /// Log evidence that the candidate fails more often than allowed.
    pub fn ln_evidence(&self) -> f64 {
        self.stakes.ln_total()
    }

    /// Log wealth of each of the [`BETS`].
    pub fn ln_wealth(&self) -> &[f64] {
        self.stakes.ln_wealth()
    }

    /// Whether there is enough to act on: three errors and 0.05 points more than the baseline's,
    /// since the evidence was last low. The gate only ever holds a rollback back.
    pub fn is_ripe(&self) -> bool {
        let recent = self.total.since(self.low.1);
        let excess = recent.candidate_rate() - recent.baseline_rate();
        recent.candidate_failed >= ERRORS_MIN && excess >= EXCESS_MIN
    }

    /// Everything counted.
    pub fn total(&self) -> ErrorCounts {
        self.total
    }

    /// The ratios of error rates that are not refuted at `alpha`, whenever one looks: each is held
    /// as a null against the mixture of all, and the next refuted one is the bound. `None` before
    /// the first error or when every ratio of the grid is still possible on that side.
    pub fn interval(&self, alpha: f64) -> (Option<f64>, Option<f64>) {
        let first = 1 + BETS.len();
        let grid = first..self.odds.ratios().len();
        let line = -ln(alpha);
        let stands = |index: &usize| self.odds.ln_evidence(*index, grid.clone()) < line;
        let ratio = |index: usize| self.odds.ratios().get(index).copied();
        let lowest = grid.clone().find(stands).filter(|index| *index > grid.start);
        let highest = grid.clone().rev().find(stands).filter(|index| index + 1 < grid.end);
        (lowest.and_then(|index| ratio(index - 1)), highest.and_then(|index| ratio(index + 1)))
    }

    fn ln_ratios(&self) -> [f64; BETS.len()] {
        let null = self.odds.ln_likelihood(0);
        std::array::from_fn(|bet| self.odds.ln_likelihood(bet + 1) - null)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(candidate_failed: u64, baseline_failed: u64) -> ErrorCounts {
        ErrorCounts {
            candidate_requests: 50,
            candidate_failed,
            baseline_requests: 950,
            baseline_failed,
        }
    }

    #[test]
    fn a_single_error_of_the_candidate_weighs_what_the_mixture_says() {
        let mut errors = Errors::new(1.0, Timestamp::default());
        errors.observe(Timestamp::default(), Weight::from_percent(5), failed(1, 0));
        let pairs = BETS.iter().zip(CAPITAL);
        let mean: f64 = pairs.map(|(bet, part)| part / 16.0 * bet / (0.05 * bet + 0.95)).sum();
        let by_hand = (0.9 * mean + 0.1).ln();
        assert!((errors.ln_evidence() - by_hand).abs() < 1e-12);
        assert!(!errors.is_ripe(), "one error is not enough to act on");
    }

    #[test]
    fn three_errors_against_none_are_a_rollback_and_against_sixty_are_not() {
        let line = -(0.005_f64.ln());
        let mut bad = Errors::new(1.0, Timestamp::default());
        let mut shared = bad.clone();
        bad.observe(Timestamp::default(), Weight::from_percent(5), failed(3, 0));
        shared.observe(Timestamp::default(), Weight::from_percent(5), failed(3, 57));
        assert!(bad.ln_evidence() > line && bad.is_ripe());
        assert!(shared.ln_evidence() < 0.0);
    }

    #[test]
    fn errors_that_are_hardly_more_frequent_are_not_acted_on() {
        for (failed, is_ripe) in [(5, false), (7, true)] {
            let mut errors = Errors::new(1.0, Timestamp::default());
            let counts = ErrorCounts {
                candidate_requests: 10_000,
                candidate_failed: failed,
                baseline_requests: 10_000,
                baseline_failed: 1,
            };
            errors.observe(Timestamp::default(), Weight::from_percent(50), counts);
            assert_eq!(errors.is_ripe(), is_ripe, "{failed} of 10,000 and 1 of 10,000");
        }
    }

    #[test]
    fn the_bounds_are_the_nearest_ratios_that_are_refuted() {
        let mut errors = Errors::new(1.0, Timestamp::default());
        for _ in 0..100 {
            errors.observe(Timestamp::default(), Weight::from_percent(50), failed(10, 1));
        }
        let (low, high) = errors.interval(0.05);
        let ratios = errors.odds.ratios();
        let grid = 1 + BETS.len()..ratios.len();
        let is_refuted = |index| errors.odds.ln_evidence(index, grid.clone()) >= -ln(0.05);
        let place = |bound: Option<f64>| grid.clone().find(|index| Some(ratios[*index]) == bound);
        let (low, high) = (place(low).unwrap(), place(high).unwrap());
        assert!(is_refuted(low) && !is_refuted(low + 1));
        assert!(is_refuted(high) && !is_refuted(high - 1));
    }

    #[test]
    fn the_interval_holds_the_truth_and_closes_in_on_it() {
        let mut errors = Errors::new(1.0, Timestamp::default());
        assert_eq!(errors.interval(0.05), (None, None));
        // Ten times the rate at a share of one half: 10 labels to 1.
        for _ in 0..100 {
            errors.observe(Timestamp::default(), Weight::from_percent(50), failed(10, 1));
        }
        let (low, high) = errors.interval(0.05);
        let (low, high) = (low.unwrap(), high.unwrap());
        assert!(low > 6.0 && low < 10.0 && high > 10.0 && high <= 16.0, "{low} {high}");
    }
}
