//! A world that moves second by second: what a data plane would have counted.

use std::time::Duration;

use switchback_analysis::{Judge, Rules, Sample};
use switchback_domain::trigger::{Threshold, Thresholds, Triggers};
use switchback_domain::{ArmStats, Outcome, Timestamp, Verdict};

/// What one version does with its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests in a second.
    pub(crate) requests: u64,
    /// How many of a thousand fail, spread evenly.
    pub(crate) failing_permille: u64,
    /// How many of a thousand take `slow_millis`, spread evenly.
    pub(crate) slow_permille: u64,
    /// Latency of the others.
    pub(crate) millis: u64,
    /// Latency of the slow ones.
    pub(crate) slow_millis: u64,
}

/// A healthy version under 50 requests a second.
pub(crate) const GOOD: Load =
    Load { requests: 50, failing_permille: 1, slow_permille: 0, millis: 40, slow_millis: 0 };

/// No traffic.
pub(crate) const IDLE: Load = Load { requests: 0, ..GOOD };

pub(crate) fn failing(permille: u64) -> Load {
    Load { failing_permille: permille, ..GOOD }
}

pub(crate) fn answering_in(millis: u64) -> Load {
    Load { millis, ..GOOD }
}

/// Everything a look reads.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) sample: Sample,
}

impl World {
    /// A world in which the baseline has answered for a while and the candidate not at all.
    pub(crate) fn new() -> Self {
        let mut baseline = ArmStats::default();
        serve(&mut baseline, &Load { requests: 1000, ..GOOD });
        let sample = Sample {
            at: Timestamp::from_millis(1_000_000),
            baseline: Some(baseline),
            incarnation: "first".to_owned(),
            ..Sample::default()
        };
        Self { sample }
    }

    /// One second under these loads.
    pub(crate) fn tick(&mut self, candidate: &Load, baseline: &Load) {
        self.sample.at = self.sample.at + Duration::from_secs(1);
        serve(&mut self.sample.candidate, candidate);
        if let Some(arm) = &mut self.sample.baseline {
            serve(arm, baseline);
        }
    }

    /// Seconds of good baseline traffic with a look after each.
    pub(crate) fn run(&mut self, judge: &mut Judge, seconds: u64, load: &Load) -> Vec<Verdict> {
        let mut second = || {
            self.tick(load, &GOOD);
            judge.look(self.sample.clone())
        };
        (0..seconds).map(|_| second()).collect()
    }

    pub(crate) fn look(&self, judge: &mut Judge) -> Verdict {
        judge.look(self.sample.clone())
    }
}

/// Counts a second. What fails or is slow is chosen by position, so that every share is exact over
/// a thousand requests and close at any time.
fn serve(arm: &mut ArmStats, load: &Load) {
    for _ in 0..load.requests {
        let ordinal = arm.accepted;
        let is_turn = |permille: u64| (ordinal + 1) * permille / 1000 > ordinal * permille / 1000;
        arm.accepted += 1;
        arm.responses[if is_turn(load.failing_permille) { 4 } else { 1 }] += 1;
        let is_slow = is_turn(load.slow_permille);
        arm.latency.record(1000 * if is_slow { load.slow_millis } else { load.millis });
    }
}

/// A limit for a number of minutes.
pub(crate) fn limit(threshold: f64, minutes: u64) -> Threshold {
    Threshold { threshold, window: Duration::from_mins(minutes) }
}

/// A judge with one look behind it, and its world.
pub(crate) fn trial(rules: Rules) -> (Judge, World) {
    let world = World::new();
    let mut judge = Judge::new(rules, world.sample.at);
    world.look(&mut judge);
    (judge, world)
}

pub(crate) fn triggers(triggers: Triggers) -> Rules {
    Rules { triggers, step: None }
}

/// Thresholds that ask for nothing but 50 requests.
pub(crate) const NO_THRESHOLDS: Thresholds = Thresholds {
    success_rate_min: None,
    error_rate_max: None,
    latency_p95_max: None,
    latency_p99_max: None,
    latency_ratio_max: None,
    samples_min: 50,
    metrics: Vec::new(),
};

pub(crate) fn step(thresholds: Thresholds, seconds: u64) -> Rules {
    let step = Some((thresholds, Duration::from_secs(seconds)));
    Rules { triggers: Triggers::default(), step }
}

/// The first second (from 1) whose verdict is this.
pub(crate) fn first(verdicts: &[Verdict], outcome: Outcome) -> Option<usize> {
    verdicts.iter().position(|verdict| verdict.outcome == outcome).map(|index| index + 1)
}

/// The summaries of a verdict, one per line.
pub(crate) fn summaries(verdict: &Verdict) -> String {
    let lines: Vec<_> = verdict.findings.iter().map(|finding| finding.summary.as_str()).collect();
    lines.join("\n")
}
