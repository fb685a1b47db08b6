//! Counters from a scrape: numerator and denominator of both versions, interval by interval.
//!
//! Who gets which request was not our coin's choice here, so the test takes the requests of an
//! interval as given and asks how the errors fell on them.

use serde::{Deserialize, Serialize};

use crate::label::errors::{BETS, ErrorCounts};
use crate::math::{count, exact, exact_list, length, ln, ln_gamma, ln_sum_exp};

/// Terms of a sum that are smaller than this part of the largest are left out.
const NEGLIGIBLE: f64 = 1e-18;

/// The e-process of scraped counters: per interval, given `n` requests and `x` errors of both
/// versions together, the candidate's errors are hypergeometric if the odds of failing are equal
/// (Fisher's noncentral law with odds `r0` at the tolerance). An interval multiplies by
/// `theta^x_c / E[theta^X_c]`: the sequential form of the Cochran-Mantel-Haenszel test (design
/// page, 3.4). Exact if a version's error probability is steady within an interval; it may change
/// from one to the next.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scraped {
    #[serde(with = "exact")]
    odds_max: f64,
    #[serde(with = "exact_list")]
    ln_wealth: Vec<f64>,
    total: ErrorCounts,
}

impl Scraped {
    /// Begins; `odds_max`, at least 1, is the largest odds ratio that is no regression.
    pub fn new(odds_max: f64) -> Self {
        Self { odds_max, ln_wealth: vec![0.0; BETS.len()], total: ErrorCounts::default() }
    }

    /// Takes what one interval counted.
    pub fn observe(&mut self, interval: ErrorCounts) -> Result<(), Fault> {
        let ErrorCounts { candidate_requests, candidate_failed, .. } = interval;
        if candidate_failed > candidate_requests
            || interval.baseline_failed > interval.baseline_requests
        {
            return Err(Fault::MoreErrorsThanRequests);
        }
        self.total = self.total.plus(interval);
        let null = ln_normalizer(interval, ln(self.odds_max));
        for (wealth, bet) in self.ln_wealth.iter_mut().zip(BETS) {
            let mean = ln_normalizer(interval, ln(self.odds_max * bet)) - null;
            *wealth += count(candidate_failed) * ln(bet) - mean;
        }
        Ok(())
    }

    /// Log evidence that the candidate's odds of failing are higher than allowed.
    pub fn ln_evidence(&self) -> f64 {
        ln_sum_exp(self.ln_wealth.iter().copied()) - ln(length(BETS.len()))
    }

    /// Everything counted.
    pub fn total(&self) -> ErrorCounts {
        self.total
    }
}

/// `ln sum over u of C(n_c, u) C(n_b, x - u) odds^u`: from the largest term outwards, as far as
/// terms matter.
fn ln_normalizer(counts: ErrorCounts, ln_odds: f64) -> f64 {
    let (new, old) = (counts.candidate_requests, counts.baseline_requests);
    let errors = counts.candidate_failed + counts.baseline_failed;
    let (first, last) = (errors.saturating_sub(old), new.min(errors));
    let ln_ratio = |u: u64| {
        let up = ln(count(new - u)) + ln(count(errors - u));
        up - ln(count(u + 1)) - ln(count(old + u + 1 - errors)) + ln_odds
    };
    let mode = partition(first, last, |u| ln_ratio(u) > 0.0);
    let choose = |n: u64, k: u64| {
        ln_gamma(count(n) + 1.0) - ln_gamma(count(k) + 1.0) - ln_gamma(count(n - k) + 1.0)
    };
    let largest = choose(new, mode) + choose(old, errors - mode) + count(mode) * ln_odds;
    let (mut sum, mut term) = (1.0, 1.0);
    for u in mode..last {
        term *= crate::math::exp(ln_ratio(u));
        sum += term;
        if term < NEGLIGIBLE {
            break;
        }
    }
    term = 1.0;
    for u in (first..mode).rev() {
        term *= crate::math::exp(-ln_ratio(u));
        sum += term;
        if term < NEGLIGIBLE {
            break;
        }
    }
    largest + ln(sum)
}

/// The first number from `low` to `high` for which `is_before` does not hold, else `high`.
fn partition(mut low: u64, mut high: u64, is_before: impl Fn(u64) -> bool) -> u64 {
    while low < high {
        let middle = low + (high - low) / 2;
        if is_before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// What is wrong with a scrape. Each is a hold, never a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// NaN, infinite or negative.
    #[error("the counter is not a number from zero up")]
    NotACount,
    /// The counter began anew; the next interval counts again.
    #[error("the counter was reset")]
    Reset,
    /// The first reading: there is nothing to subtract yet.
    #[error("the counter was read for the first time")]
    First,
    /// The time of a reading is not after the last one's.
    #[error("the clock of the scrape did not go on")]
    ClockWentBack,
    /// The versions were not read at the same time.
    #[error("the versions' counters were read at different times")]
    Unaligned,
    /// More errors than requests: the two counters do not belong together.
    #[error("more errors than requests were counted")]
    MoreErrorsThanRequests,
}

/// Turns readings of one counter into increments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Increments {
    last: Option<(u64, u64)>,
}

impl Increments {
    /// Takes a reading as a metric source gives it, with its time in milliseconds.
    pub fn read(&mut self, at_millis: u64, value: f64) -> Result<u64, Fault> {
        let value = whole(value).ok_or(Fault::NotACount)?;
        match self.last.replace((at_millis, value)) {
            None => Err(Fault::First),
            Some(last) if at_millis <= last.0 => {
                self.last = Some(last);
                Err(Fault::ClockWentBack)
            }
            Some((_, before)) => value.checked_sub(before).ok_or(Fault::Reset),
        }
    }
}

/// Whether readings of the versions belong to one interval: at most a tenth of it apart.
pub fn aligned(
    candidate_millis: u64,
    baseline_millis: u64,
    interval_millis: u64,
) -> Result<(), Fault> {
    let apart = candidate_millis.abs_diff(baseline_millis);
    if apart.saturating_mul(10) <= interval_millis { Ok(()) } else { Err(Fault::Unaligned) }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked: from 0 to 2^53"
)]
fn whole(value: f64) -> Option<u64> {
    (0.0..=9_007_199_254_740_992.0).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(new: u64, new_failed: u64, old: u64, old_failed: u64) -> ErrorCounts {
        ErrorCounts {
            candidate_requests: new,
            candidate_failed: new_failed,
            baseline_requests: old,
            baseline_failed: old_failed,
        }
    }

    #[test]
    fn the_mean_over_the_hypergeometric_law_is_one() {
        // 4 requests of the candidate, 6 of the baseline, 3 errors: C(4,u) C(6,3-u) / C(10,3).
        let law = [20.0, 60.0, 36.0, 4.0].map(|ways| ways / 120.0);
        let mean: f64 = (0..=3)
            .map(|failed| {
                let mut scraped = Scraped::new(1.0);
                scraped.observe(interval(4, failed, 6, 3 - failed)).unwrap();
                law[usize::try_from(failed).unwrap()] * scraped.ln_evidence().exp()
            })
            .sum();
        assert!((mean - 1.0).abs() < 1e-12, "{mean}");
    }

    #[test]
    fn tolerated_odds_have_mean_one_at_the_boundary_and_less_below() {
        let mean = |odds: f64| -> f64 {
            let weights: Vec<f64> =
                [20.0, 60.0, 36.0, 4.0].iter().zip(0..).map(|(w, u)| w * odds.powi(u)).collect();
            let all: f64 = weights.iter().sum();
            (0..=3)
                .map(|failed| {
                    let mut scraped = Scraped::new(1.5);
                    scraped.observe(interval(4, failed, 6, 3 - failed)).unwrap();
                    weights[usize::try_from(failed).unwrap()] / all * scraped.ln_evidence().exp()
                })
                .sum()
        };
        assert!((mean(1.5) - 1.0).abs() < 1e-12 && mean(1.0) < 1.0, "{}", mean(1.5));
    }

    #[test]
    fn large_intervals_are_summed_around_the_mode() {
        let counts = interval(1_000_000, 0, 19_000_000, 20_000);
        // With odds of one the sum is C(n, x) (Vandermonde).
        let exact = ln_gamma(2e7 + 1.0) - ln_gamma(2e4 + 1.0) - ln_gamma(2e7 - 2e4 + 1.0);
        assert!((ln_normalizer(counts, 0.0) - exact).abs() < 1e-6);
    }

    #[test]
    fn one_interval_finds_five_percent() {
        let mut scraped = Scraped::new(1.0);
        scraped.observe(interval(750, 37, 14_250, 14)).unwrap();
        assert!(scraped.ln_evidence() > 30.0);
    }

    #[test]
    fn every_bad_reading_has_a_name() {
        let mut counter = Increments::default();
        assert_eq!(counter.read(1000, f64::NAN), Err(Fault::NotACount));
        assert_eq!(counter.read(1000, -1.0), Err(Fault::NotACount));
        assert_eq!(counter.read(1000, f64::INFINITY), Err(Fault::NotACount));
        assert_eq!(counter.read(1000, 10.0), Err(Fault::First));
        assert_eq!(counter.read(16_000, 25.0), Ok(15));
        assert_eq!(counter.read(16_000, 30.0), Err(Fault::ClockWentBack));
        assert_eq!(counter.read(31_000, 3.0), Err(Fault::Reset));
        assert_eq!(counter.read(46_000, 8.0), Ok(5));
        assert_eq!(aligned(1000, 4000, 15_000), Err(Fault::Unaligned));
        let mut scraped = Scraped::new(1.0);
        let impossible = scraped.observe(interval(1, 2, 10, 0));
        assert_eq!(impossible, Err(Fault::MoreErrorsThanRequests));
        assert_eq!(scraped.observe(interval(2, 2, 3, 3)), Ok(()), "nothing but errors");
    }
}
