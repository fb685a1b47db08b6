//! When a rollout is taken back: the documents' fixed triggers (R05) and per-step thresholds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

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
}
