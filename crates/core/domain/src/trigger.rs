//! When a rollout is taken back: the documents' fixed triggers (R05) and per-step thresholds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::metric::MetricSpec;

/// The rules that hold at every moment in which the candidate gets traffic. `None` is off.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Triggers {
    /// Share of failed requests (0 to 1) above the threshold for the whole window.
    pub error_rate: Option<Threshold>,
    /// The candidate's mean latency above `threshold` times the baseline's for the whole window.
    pub response_time: Option<Threshold>,
    /// The candidate's p95 above the threshold, in seconds, for the whole window.
    pub latency_p95: Option<Threshold>,
    /// CPU use of an instance, in cores, above the threshold for the whole window.
    pub cpu_usage: Option<Threshold>,
    /// Resident memory of an instance, in bytes, above the threshold for the whole window.
    pub memory_usage: Option<Threshold>,
    /// Failed health checks: at least `threshold` of them within the window.
    pub health_checks: Option<Threshold>,
    /// Numbers printed by commands of the user's.
    pub custom: Vec<CustomMetric>,
    /// Numbers of metric sources, watched for as long as these rules hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSpec>,
}

impl Triggers {
    /// Whether any rule is about what instances use.
    pub fn ask_for_usage(&self) -> bool {
        self.cpu_usage.is_some() || self.memory_usage.is_some()
    }
}

/// A number and how long it must be exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Threshold {
    /// In the unit of the rule.
    pub threshold: f64,
    /// How long.
    #[serde(with = "crate::time::millis")]
    pub window: Duration,
}

/// A number that a command prints, taken back when above the threshold for the whole window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CustomMetric {
    /// What it is called.
    pub name: String,
    /// Program and arguments, with templates; the first number it prints counts.
    pub argv: Vec<String>,
    /// Above this, in whatever unit the command prints.
    pub limit: Threshold,
    /// Time between two runs.
    #[serde(with = "crate::time::millis")]
    pub interval: Duration,
}

/// What a candidate must keep to during an analysis step. `None` is not asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Share of requests that must succeed, 0 to 1: the documents' 99.5 %.
    pub success_rate_min: Option<f64>,
    /// Share of requests that may fail, 0 to 1: the documents' 1 %.
    pub error_rate_max: Option<f64>,
    /// Longest p95, in seconds.
    pub latency_p95_max: Option<f64>,
    /// Longest p99, in seconds.
    pub latency_p99_max: Option<f64>,
    /// Largest ratio of the candidate's mean latency to the baseline's.
    pub latency_ratio_max: Option<f64>,
    /// Finished candidate requests before anything is decided.
    pub samples_min: u64,
    /// Numbers of metric sources, watched during the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricSpec>,
}

/// The exact test: compares the requests of both versions that chance assigned, with a stated
/// chance of error. On unless switched off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExactTest {
    /// Chance that a healthy release is ever taken back, over its whole rollout: above 0, at
    /// most 0.5.
    pub alpha: f64,
    /// Largest ratio of error rates that is no regression: 1 to 1.9.
    pub error_ratio: f64,
    /// How much slower the candidate may be, in basis points of the baseline's latency; `None`
    /// takes 5 %, or 10 % with fewer than three instances of the candidate.
    pub latency_tolerance: Option<u16>,
    /// Growth of the evidence about latency, in nats per second: one stall is one accident.
    pub nats_per_second: f64,
    /// How long latencies do not count after the first request; errors do.
    #[serde(with = "crate::time::millis")]
    pub warm_up: Duration,
}

impl ExactTest {
    /// What holds where nothing is configured. New instances are slow because they are new: four
    /// time constants of a warm-up of almost four seconds.
    pub const DEFAULT: Self = Self {
        alpha: 0.01,
        error_ratio: 1.0,
        latency_tolerance: None,
        nats_per_second: 2.0,
        warm_up: Duration::from_secs(15),
    };

    /// For policies written before there was an exact test.
    #[allow(clippy::unnecessary_wraps, reason = "the form of the field")]
    pub const fn default_of_a_policy() -> Option<Self> {
        Some(Self::DEFAULT)
    }
}
