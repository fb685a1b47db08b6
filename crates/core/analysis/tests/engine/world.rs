//! Simulated rollouts: requests are drawn, assigned by a coin and batched by arrival.

use std::time::Duration;

use switchback_analysis::label::errors::ErrorCounts;
use switchback_analysis::{ArmBatch, Batch, Settings, Trial};
use switchback_domain::{Histogram, Timestamp, Weight};

use crate::random::Random;

/// What one version does with a request at a time: microseconds, or `None` for a failure.
pub(crate) type Version<'a> = &'a dyn Fn(&mut Random, Timestamp) -> Option<u64>;

/// A rollout at a steady rate of requests.
pub(crate) struct Rollout<'a> {
    pub(crate) settings: Settings,
    pub(crate) weight: &'a dyn Fn(Timestamp) -> Weight,
    pub(crate) requests_per_tick: u64,
    pub(crate) tick: Duration,
    pub(crate) candidate: Version<'a>,
    pub(crate) baseline: Version<'a>,
    pub(crate) duration: Duration,
}

/// What a rollout came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) fired: bool,
    pub(crate) candidate_requests: u64,
    pub(crate) candidate_failed: u64,
    pub(crate) elapsed: Duration,
}

/// Log-normal with a median of 50 ms and a sigma of 0.6, times `factor`.
pub(crate) fn lognormal(random: &mut Random, factor: f64) -> u64 {
    micros(50_000.0 * factor * libm::exp(0.6 * random.normal()))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn micros(number: f64) -> u64 {
    number as u64
}

/// What the baseline did before: 20,000 requests.
pub(crate) fn history() -> Histogram {
    let mut random = Random::new(7);
    let mut latency = Histogram::default();
    (0..20_000).for_each(|_| latency.record(lognormal(&mut random, 1.0)));
    latency
}

impl Rollout<'_> {
    pub(crate) fn run(&self, history: &Histogram, seed: u64) -> Ending {
        let mut random = Random::new(seed);
        let start = Timestamp::from_millis(0);
        let usual = ErrorCounts {
            baseline_requests: 1_000_000,
            baseline_failed: 1000,
            ..ErrorCounts::default()
        };
        let mut trial = Trial::new(self.settings.clone(), history, usual, start)
            .expect("settings of the tests are valid");
        let mut now = start;
        let mut sequence = 0;
        while now.since(start) < self.duration && trial.fired().is_none() {
            now = now + self.tick;
            sequence += 1;
            trial.feed(&self.batch(now, sequence, &mut random));
        }
        let counts = trial.evidence().counts;
        Ending {
            fired: trial.fired().is_some(),
            candidate_requests: counts.candidate_requests,
            candidate_failed: counts.candidate_failed,
            elapsed: now.since(start),
        }
    }

    pub(crate) fn batch(&self, at: Timestamp, sequence: u64, random: &mut Random) -> Batch {
        let weight = (self.weight)(at);
        let share = f64::from(weight.basis_points()) / 10_000.0;
        let (mut candidate, mut baseline) = (ArmBatch::default(), ArmBatch::default());
        for _ in 0..self.requests_per_tick {
            let (version, arm) = if random.chance(share) {
                (self.candidate, &mut candidate)
            } else {
                (self.baseline, &mut baseline)
            };
            match version(random, at) {
                Some(micros) => arm.latency.record(micros),
                None => arm.unanswered += 1,
            }
        }
        Batch { at, source: "proxy".to_owned(), sequence, weight, candidate, baseline }
    }
}
