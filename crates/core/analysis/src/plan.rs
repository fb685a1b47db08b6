//! Before a rollout starts: what it can detect in its time at the present traffic, and which
//! weights tell most.

use std::time::Duration;

use switchback_domain::{Histogram, Weight};

use crate::budget::{Budget, line};
use crate::label::Settings;
use crate::label::bins::Bins;
use crate::label::latency::information;

/// Requests a test takes on average over what the labels' information says: the price of not
/// knowing the size of the regression beforehand, measured 1.2 to 1.3.
const OVERHEAD: f64 = 1.3;
/// Candidate requests a second that a first step should have.
const RATE_WANTED: f64 = 20.0;
/// Weights in basis points that the first step stays within.
const FIRST_MIN: u16 = 100;
const FIRST_MAX: u16 = 2500;
/// Growth of the weight from step to step.
const GROWTH: u16 = 4;
/// The most errors and slowdown that are searched.
const SLOWDOWN_MAX: f64 = 20.0;
/// A baseline without any error is taken to have one in a million.
const ERROR_RATE_MIN: f64 = 1e-6;

/// One step of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The candidate's share.
    pub weight: Weight,
    /// How long at least.
    pub duration: Duration,
}

/// A rollout that has not begun.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// Requests a second, both versions together.
    pub requests_per_second: f64,
    /// The baseline's error rate.
    pub error_rate: f64,
    /// The baseline's latencies.
    pub history: &'a Histogram,
    /// The steps.
    pub steps: &'a [Step],
    /// What the candidate will be held against.
    pub settings: &'a Settings,
}

/// What a rollout can find within its time, more often than not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Detectable {
    /// The smallest error rate of the candidate that is found; `None`: not even all requests
    /// failing.
    pub error_rate: Option<f64>,
    /// The smallest slowdown of every request that is found; `None`: not even twentyfold.
    pub slowdown: Option<f64>,
}

impl Plan<'_> {
    /// What this plan can find: where the expected growth of the evidence over all steps reaches
    /// what is needed (Wald's bound) times the measured overhead, and three candidate
    /// requests fail.
    pub fn detectable(&self) -> Detectable {
        let base = self.error_rate.max(ERROR_RATE_MIN);
        let families = Budget::new(self.settings.alpha, self.settings.families);
        let needed = |share: f64| line(families.requests() * share) * OVERHEAD;
        let errors = |rate: f64| {
            let failing = self.sum(|weight| weight * rate);
            let growth = self.sum(|share| error_information(share, base, rate / base));
            failing >= 3.0 && growth >= needed(5.0 / 9.0)
        };
        let lowest = base * self.settings.error_ratio;
        let bins = Bins::plain(self.history, 0);
        let slack = self.settings.slack.factor();
        let slower = |slowdown: f64| {
            let growth = self.sum(|share| information(&bins, slowdown / slack, share));
            growth >= needed(4.0 / 9.0)
        };
        let is_known = bins.total() > 0;
        Detectable {
            error_rate: smallest(lowest, 1.0, errors),
            slowdown: if is_known { smallest(slack, SLOWDOWN_MAX, slower) } else { None },
        }
    }

    /// Sums what a request is worth over the requests of all steps.
    fn sum(&self, worth: impl Fn(f64) -> f64) -> f64 {
        let step = |step: &Step| {
            let share = crate::label::odds::share_of(step.weight);
            self.requests_per_second * step.duration.as_secs_f64() * worth(share)
        };
        self.steps.iter().filter(|step| step.weight != Weight::ALL).map(step).sum()
    }
}

/// Expected growth of the label product per request, candidate's or baseline's, if a request of
/// the candidate fails `ratio` times as often as one of the baseline (`base`):
/// `base (rho r ln r - m ln m)` with `m = rho r + 1 - rho`, from the two cases of design page 3.1.
fn error_information(share: f64, base: f64, ratio: f64) -> f64 {
    let mean = share * ratio + 1.0 - share;
    base * (share * ratio * crate::math::ln(ratio) - mean * crate::math::ln(mean))
}

/// The smallest number from `low` to `high` that is found, to a thousandth of the way.
fn smallest(low: f64, high: f64, is_found: impl Fn(f64) -> bool) -> Option<f64> {
    if !is_found(high) {
        return None;
    }
    let (mut low, mut high) = (low, high);
    for _ in 0..40 {
        let middle = libm::sqrt(low * high);
        if is_found(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Some(high)
}

/// The first weight: as much as it takes for 20 candidate requests a second, 1 to 25 %. More tells
/// sooner, and hardly costs more failed requests (design page, 9).
pub fn first_weight(requests_per_second: f64) -> Weight {
    let share = RATE_WANTED / requests_per_second.max(1e-9);
    Weight::from_basis_points(basis_points(share).clamp(FIRST_MIN, FIRST_MAX)).unwrap_or_default()
}

/// The weights of a ramp: the first one, then four times as much, up to half. Half tells most about
/// a version; what follows is everything.
pub fn ramp(requests_per_second: f64) -> Vec<Weight> {
    let half = Weight::from_percent(50);
    let first = first_weight(requests_per_second).basis_points();
    let grow = |last: &u16| Some(last.saturating_mul(GROWTH));
    let growing = std::iter::successors(Some(first), grow).take_while(|next| *next < 5000);
    let growing = growing.filter_map(|points| Weight::from_basis_points(points).ok());
    growing.chain([half, Weight::ALL]).collect()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "cast saturates, and the caller clamps"
)]
fn basis_points(share: f64) -> u16 {
    (share * 10_000.0) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detectable(requests_per_second: f64, percent: u16, duration: Duration) -> Detectable {
        let mut history = Histogram::default();
        (0..10_000_u64).for_each(|step| history.record(20_000 + step * step / 1000));
        let steps = [Step { weight: Weight::from_percent(percent), duration }];
        let settings = Settings::default();
        let history = &history;
        let (steps, settings) = (&steps[..], &settings);
        Plan { requests_per_second, error_rate: 0.001, history, steps, settings }.detectable()
    }

    #[test]
    fn one_percent_of_errors_is_found_in_ten_seconds_or_in_the_better_part_of_an_hour() {
        let found = |rate, percent, duration| detectable(rate, percent, duration).error_rate;
        let at_speed = found(1000.0, 5, Duration::from_secs(12)).unwrap();
        assert!(at_speed < 0.011, "{at_speed}");
        assert!(found(1000.0, 5, Duration::from_secs(6)).unwrap() > 0.01);
        let slowly = found(1.0, 25, Duration::from_hours(1)).unwrap();
        assert!(slowly < 0.011, "{slowly}");
        assert!(found(1.0, 25, Duration::from_mins(25)).unwrap() > 0.01);
    }

    #[test]
    fn little_traffic_finds_little() {
        let nothing = detectable(0.01, 5, Duration::from_mins(1));
        assert_eq!((nothing.error_rate, nothing.slowdown), (None, None));
        let much = detectable(1000.0, 5, Duration::from_mins(1)).slowdown.unwrap();
        assert!(much > 1.05 && much < 1.2, "{much}");
    }

    #[test]
    fn without_a_history_nothing_is_said_about_slowdowns() {
        let (history, settings) = (&Histogram::default(), &Settings::default());
        let steps = &[Step { weight: Weight::from_percent(50), duration: Duration::from_hours(1) }];
        let plan = Plan { requests_per_second: 1e5, error_rate: 0.001, history, steps, settings };
        assert_eq!(plan.detectable().slowdown, None);
    }

    #[test]
    fn a_ramp_starts_where_twenty_requests_a_second_are_and_ends_with_all() {
        let percent = |rate: f64| first_weight(rate).basis_points();
        assert_eq!(
            (percent(10.0), percent(100.0), percent(1000.0), percent(1e5)),
            (2500, 2000, 200, 100)
        );
        assert_eq!(first_weight(0.0), Weight::from_percent(25));
        let points: Vec<u16> = ramp(1000.0).iter().map(|weight| weight.basis_points()).collect();
        assert_eq!(points, [200, 800, 3200, 5000, 10_000]);
    }
}
