//! Metrics of the user's: where a number comes from, how often it is asked for, what it must keep
//! to, and what a source may answer. Not here: asking and judging.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::condition::Condition;

/// Names known when a metric is asked for, besides a release's. In a baseline's query, `version` is
/// the baseline's.
pub const METRIC_VARIABLES: [&str; 1] = ["rollout"];

/// Where numbers come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricSource {
    /// What Switchback's own data plane counted since the last measurement.
    DataPlane,
    /// The HTTP API of a Prometheus; queries are `PromQL`.
    Prometheus(Endpoint),
    /// A JSON document; queries are JSON pointers (RFC 6901) to a number in it.
    Json(Endpoint),
}

/// An address to ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `http://HOST[:PORT][/PATH]`, with templates.
    pub url: String,
    /// The environment variable of the control plane that holds the `Authorization` header. Its
    /// name is stored and shown, its value never.
    pub authorization_env: Option<String>,
}

/// What is asked, with templates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricQueries {
    /// One number, and the baseline's where it is compared.
    Number {
        /// Of the candidate.
        candidate: String,
        /// Of the baseline.
        baseline: Option<String>,
    },
    /// Two growing counters, asked for each version: bad events, and all events.
    Counters {
        /// Bad events.
        numerator: String,
        /// All events.
        denominator: String,
    },
}

/// What the numbers must keep to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricRule {
    /// Fails when `failure` holds, or when `success` alone is given and does not; with both, a
    /// number for which neither holds says nothing. At least one is given.
    Conditions {
        /// What a good number keeps to.
        success: Option<Condition>,
        /// What a bad one does.
        failure: Option<Condition>,
    },
    /// Fails outside. At least one is given.
    Range {
        /// Smallest good number.
        min: Option<f64>,
        /// Largest good number.
        max: Option<f64>,
    },
    /// The exact test of counters: fails when the candidate's odds of a bad event are shown to be
    /// above so many times the baseline's.
    Odds {
        /// At least 1.
        ratio_max: f64,
        /// Chance that it ever fails a version that keeps to it: above 0, at most 0.5.
        alpha: f64,
    },
}

/// What to do when the numbers do not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInsufficient {
    /// Hold the step; after its time and the progress deadline the rollout fails.
    Hold,
    /// The same, but the step may take twice as long before it fails.
    Extend,
    /// Pause the rollout until somebody resumes it.
    Ask,
}

/// A metric of the user's. It is never a pass before it was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSpec {
    /// What it is called.
    pub name: String,
    /// Where its numbers come from.
    pub source: MetricSource,
    /// What is asked.
    pub queries: MetricQueries,
    /// What the numbers must keep to.
    pub rule: MetricRule,
    /// Time between two measurements.
    #[serde(with = "crate::time::millis")]
    pub interval: Duration,
    /// Time before the first one.
    #[serde(with = "crate::time::millis")]
    pub initial_delay: Duration,
    /// Bad measurements that are forgiven; one more fails the metric, whenever it comes.
    pub failure_limit: u32,
    /// Errors of the source in a row before something is done about it.
    pub consecutive_error_limit: u32,
    /// Measurements in a row that say nothing before something is done about it.
    pub inconclusive_limit: u32,
    /// Only says what it would have done.
    pub dry_run: bool,
    /// Takes the candidate back when it fails; otherwise it only keeps a step from passing.
    pub critical: bool,
    /// When numbers do not come.
    pub on_insufficient: OnInsufficient,
}

/// What a source says to one query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One number, finite or not, and the moment it is about.
    Number {
        /// As the source has it.
        value: f64,
        /// By the source's clock.
        at: Timestamp,
    },
    /// Nothing: an empty result, a pointer to nowhere, null.
    NoData,
    /// More than one series.
    SeveralSeries(usize),
    /// Something else than a number: what, shortened.
    NotANumber(String),
    /// The source's clock differs from ours by so many seconds (positive: it is ahead).
    OtherClock(i64),
    /// It could not be asked, or says that the query is wrong.
    Failed(String),
    /// No complete answer in time.
    TooLate,
}
