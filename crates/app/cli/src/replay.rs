//! A rollout's exact test, done again from what the journal kept of it. Pure.

use serde::Serialize;
use switchback_analysis::label::Evidence;
use switchback_analysis::{ArmBatch, Settings};
use switchback_api::{Problem, TrialRecord, TrialVerdict, code};
use switchback_domain::trigger::ExactTest;
use switchback_domain::{Histogram, Timestamp, Weight};

/// The evidence at one moment, as natural logarithms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Point {
    /// Milliseconds since the test began.
    pub(crate) at_ms: u64,
    /// Against the candidate, all metrics together.
    pub(crate) together: f64,
    pub(crate) errors: f64,
    pub(crate) latency: f64,
}

/// What one version's requests came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(crate) struct Side {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) unfinished: u64,
    /// Of the answers, in microseconds: (largest of the bucket, how many).
    pub(crate) latency: Histogram,
}

/// One test, told from its beginning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Story {
    pub(crate) rollout: String,
    pub(crate) salt: String,
    pub(crate) settings: Settings,
    pub(crate) started: Timestamp,
    /// The candidate's share, and from when on, in milliseconds.
    pub(crate) weights: Vec<(u64, Weight)>,
    pub(crate) candidate: Side,
    pub(crate) baseline: Side,
    pub(crate) evidence: Evidence,
    pub(crate) verdicts: Vec<TrialVerdict>,
    pub(crate) points: Vec<Point>,
    /// Not all of it was kept.
    pub(crate) truncated: bool,
}

impl Side {
    fn add(&mut self, batch: &ArmBatch) {
        self.requests += batch.requests();
        self.failed += batch.failed();
        self.unfinished += batch.unfinished;
        self.latency = self.latency.merge(&batch.latency);
    }
}

impl Story {
    /// Does the test again with these settings.
    pub(crate) fn tell(record: &TrialRecord, settings: Settings) -> Result<Self, Problem> {
        let (mut candidate, mut baseline) = (Side::default(), Side::default());
        let (mut weights, mut points): (Vec<(u64, Weight)>, Vec<Point>) = (Vec::new(), Vec::new());
        let told = record.replay(settings.clone(), |trial, batch| {
            let since = batch.at.since(record.started).as_millis();
            let at_ms = u64::try_from(since).unwrap_or(u64::MAX);
            candidate.add(&batch.candidate);
            baseline.add(&batch.baseline);
            if weights.last().is_none_or(|(_, last)| *last != batch.weight) {
                weights.push((at_ms, batch.weight));
            }
            let Evidence { together, errors, latency, .. } = trial.evidence();
            points.push(Point { at_ms, together, errors, latency });
        });
        let trial = told.map_err(|invalid| code::INTERNAL.problem(invalid.to_string()))?;
        Ok(Self {
            rollout: record.rollout.clone(),
            salt: record.salt.clone(),
            settings,
            started: record.started,
            weights,
            candidate,
            baseline,
            evidence: trial.evidence(),
            verdicts: record.verdicts.clone(),
            points,
            truncated: record.truncated,
        })
    }

    /// Milliseconds from the beginning to the decision.
    pub(crate) fn fired_after_ms(&self) -> Option<u64> {
        let fired = self.evidence.fired.as_ref()?;
        u64::try_from(fired.at.since(self.started).as_millis()).ok()
    }
}

/// The settings of a record, but for what a configuration says otherwise.
pub(crate) fn settings_with(record: &TrialRecord, rules: &ExactTest) -> Settings {
    let mut settings = record.settings.clone();
    settings.alpha = rules.alpha;
    settings.error_ratio = rules.error_ratio;
    settings.latency_nats_per_second = rules.nats_per_second;
    settings.latency_from = record.started + rules.warm_up;
    if let Some(points) = rules.latency_tolerance {
        settings.slack = switchback_analysis::label::bins::Slack::from_basis_points(points);
    }
    settings
}
