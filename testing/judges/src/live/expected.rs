//! What the simulation says of a live case: the same versions at the live rate and share, judged in
//! the data plane's cohorts.

use serde::{Deserialize, Serialize};
use switchback_analysis::label::bins::Slack;
use switchback_domain::Weight;

use crate::arm::{Draws, Grain};
use crate::scenario::Scenario;
use crate::stream::{Group, Ours, Run};

/// The candidate's share, in percent: more than usual, so that a rollout is a matter of seconds.
pub(super) const PERCENT: u16 = 20;
/// How much slower a candidate may be, in percent.
pub(super) const TOLERANCE_PERCENT: u8 = 5;
/// Simulated rollouts.
pub(super) const RUNS: u64 = 501;
/// The data plane's cohorts.
const COHORT_MILLIS: u64 = 100;
/// Nothing is waited for longer.
const SECONDS_MAX: u64 = 600;

/// Medians over the simulated rollouts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    /// Until the last request that decided had arrived.
    pub seconds: f64,
    /// Candidate requests judged.
    pub requests: f64,
}

impl Expected {
    /// Simulates a scenario.
    pub(super) fn of(scenario: &Scenario, rate: f64, seed: u64) -> Self {
        let weight = Weight::from_percent(PERCENT);
        let scenario = Scenario { rate, weight, grain: Grain::Fine, ..scenario.clone() };
        let prepared = scenario.ready();
        let mut ours = Ours { keeps_slack: true, ..Ours::default() };
        ours.settings.slack = Slack::from_percent(TOLERANCE_PERCENT);
        let mut draws = Draws::default();
        let mut one = |run: u64| {
            let mut run = Run::new(&prepared, &mut draws, seed, run).in_cohorts(COHORT_MILLIS);
            decided(&ours, &mut run, &prepared)
        };
        let all: Vec<Self> = (0..RUNS).map(&mut one).collect();
        let median = |of: fn(&Self) -> f64| super::quantile(all.iter().map(of), 0.5);
        let unknown = f64::INFINITY;
        Self {
            seconds: median(|it| it.seconds).unwrap_or(unknown),
            requests: median(|it| it.requests).unwrap_or(unknown),
        }
    }
}

fn decided(ours: &Ours, run: &mut Run<'_>, prepared: &crate::scenario::Prepared<'_>) -> Expected {
    let mut trial = ours.trial(prepared);
    let (mut group, mut sequence) = (Group::default(), 0);
    while run.millis() < SECONDS_MAX * 1000 {
        run.next(&mut group);
        sequence += 1;
        trial.feed(&ours.batch(&group, run.millis(), sequence));
        if trial.fired().is_some() {
            let requests = trial.evidence().counts.candidate_requests as f64;
            return Expected { seconds: run.millis() as f64 / 1000.0, requests };
        }
    }
    Expected { seconds: f64::INFINITY, requests: f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenarios;

    #[test]
    fn twice_the_rate_needs_the_same_requests_in_half_the_time() {
        let all = scenarios::all();
        let scenario = all.iter().find(|it| it.name == "errors 0.1 -> 5 %").unwrap();
        let [slow, fast] = [400.0, 800.0].map(|rate| Expected::of(scenario, rate, 1));
        assert!((slow.requests / fast.requests - 1.0).abs() < 0.25, "{slow:?} {fast:?}");
        assert!((slow.seconds / fast.seconds / 2.0 - 1.0).abs() < 0.25, "{slow:?} {fast:?}");
    }
}
