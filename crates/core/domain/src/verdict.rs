//! What the judge says, and why.

use serde::{Deserialize, Serialize};

/// The three answers. Missing data is never a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The candidate is worse than allowed.
    Regressed,
    /// Everything asked for was looked at and holds.
    Safe,
    /// Not enough data yet.
    Undecided,
}

/// One rule and what it found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule, as in the configuration: `error_rate`, `latency_p95`, ...
    pub rule: String,
    /// What it says.
    pub outcome: Outcome,
    /// The candidate's number, in the rule's unit; `None` without data.
    pub observed: Option<f64>,
    /// The number it is held against.
    pub limit: f64,
    /// The baseline's number, where the rule compares.
    pub baseline: Option<f64>,
    /// For people: `error rate 5.2% of 412 requests, limit 1%`.
    pub summary: String,
}

/// The judge's answer with its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The worst of the findings.
    pub outcome: Outcome,
    /// Every rule that was asked.
    pub findings: Vec<Finding>,
    /// Finished candidate requests it rests on.
    pub candidate_requests: u64,
    /// Failed candidate requests among them.
    pub candidate_failed: u64,
    /// Finished baseline requests in the same time.
    pub baseline_requests: u64,
    /// Failed baseline requests among them.
    pub baseline_failed: u64,
}

impl Verdict {
    /// The first finding that says the candidate regressed.
    pub fn cause(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.outcome == Outcome::Regressed)
    }
}
