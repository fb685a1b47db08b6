//! Argo Rollouts' analysis of one metric: counts of measurements in, phase out (design page, 2.1).

use serde::Deserialize;

/// What a metric or a run of measurements came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing was measured.
    Pending,
    /// More measurements follow.
    Running,
    /// The end, and good.
    Successful,
    /// Rolled back.
    Failed,
    /// Paused for a person.
    Inconclusive,
    /// The provider did not answer often enough; rolled back.
    Error,
}

/// Limits of a metric, by default those of Argo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Whether an interval is set.
    pub interval: bool,
    /// Measurements, if limited. Without interval and count there is one.
    pub limit_count: Option<u32>,
    /// The metric fails with more failures than this.
    pub failure_limit: u32,
    /// It is inconclusive with more inconclusive ones.
    pub inconclusive_limit: u32,
    /// It is in error with more errors in a row.
    pub consecutive_error_limit: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            interval: false,
            limit_count: None,
            failure_limit: 0,
            inconclusive_limit: 0,
            consecutive_error_limit: 4,
        }
    }
}

/// Measurements so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Those that came to a conclusion.
    pub count: u32,
    /// Good ones.
    pub successful: u32,
    /// Bad ones.
    pub failed: u32,
    /// Neither.
    pub inconclusive: u32,
    /// Errors since the last answer.
    pub consecutive_error: u32,
}

/// The phase of a metric. `measured`: whether any measurement was taken; `terminating`: the rollout
/// is over before the metric is.
pub fn assess(limits: &Limits, counts: &Counts, measured: bool, terminating: bool) -> Phase {
    if !measured {
        // A rollout that ends before its first measurement passes.
        return if terminating { Phase::Successful } else { Phase::Pending };
    }
    if counts.failed > limits.failure_limit {
        return Phase::Failed;
    }
    if counts.inconclusive > limits.inconclusive_limit {
        return Phase::Inconclusive;
    }
    if counts.consecutive_error > limits.consecutive_error_limit {
        return Phase::Error;
    }
    let single = (!limits.interval).then_some(1);
    let wanted = limits.limit_count.or(single);
    if terminating || wanted.is_some_and(|wanted| counts.count >= wanted) {
        return Phase::Successful;
    }
    Phase::Running
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// The condition of success holds.
    Good,
    /// It does not.
    Bad,
    /// The query returned nothing: an error of the provider.
    Nothing,
}

impl Counts {
    /// Counts a measurement.
    pub fn add(&mut self, measured: Measured) {
        match measured {
            Measured::Good => self.successful += 1,
            Measured::Bad => self.failed += 1,
            Measured::Nothing => {
                self.consecutive_error += 1;
                return;
            }
        }
        self.count += 1;
        self.consecutive_error = 0;
    }
}
