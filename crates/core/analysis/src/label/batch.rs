//! What the data plane feeds: one tick of one rollout, both arms, one share.

use serde::{Deserialize, Serialize};
use switchback_domain::{Histogram, Timestamp, Weight};

use super::errors::ErrorCounts;

/// What became of the requests of one arm.
///
/// The arm is the one the *first* attempt was assigned to; retries and reroutes belong to it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ArmBatch {
    /// Requests without an answer: refused, broken off, timed out before the cap age.
    pub unanswered: u64,
    /// Requests still running at the cap age: errors, and slower than everything.
    pub unfinished: u64,
    /// Latencies of the answered requests, whatever the status.
    pub latency: Histogram,
    /// How many of the answers were failures (5xx).
    pub failed_answers: u64,
    /// Business events of these requests, such as completed purchases, at most one per request.
    pub events: u64,
}

impl ArmBatch {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.unanswered.saturating_add(self.unfinished).saturating_add(self.latency.count())
    }

    /// Those that failed.
    pub fn failed(&self) -> u64 {
        self.unanswered.saturating_add(self.unfinished).saturating_add(self.failed_answers)
    }
}

/// One tick: requests that were assigned while the candidate's share was `weight`, and whose fate
/// is known now. A change of the weight ends a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// When the batch was closed.
    pub at: Timestamp,
    /// Who counted; changes when it starts anew.
    pub source: String,
    /// Rises by one from batch to batch of a source, so that none counts twice.
    pub sequence: u64,
    /// The candidate's share among these requests; the rest went to the baseline.
    pub weight: Weight,
    /// The candidate's requests.
    pub candidate: ArmBatch,
    /// The baseline's requests.
    pub baseline: ArmBatch,
}

impl Batch {
    /// Requests and errors. An answer of the baseline that took longer than the cap with the
    /// tolerance taken off counts as unfinished, as a candidate's slower by the tolerance would.
    pub(crate) fn errors(&self, cap_micros: u64) -> ErrorCounts {
        let slow = self.baseline.latency.buckets().filter(|(upper, _)| *upper > cap_micros);
        let late: u64 = slow.map(|(_, count)| count).sum();
        let baseline_requests = self.baseline.requests();
        ErrorCounts {
            candidate_requests: self.candidate.requests(),
            candidate_failed: self.candidate.failed(),
            baseline_requests,
            baseline_failed: self.baseline.failed().saturating_add(late).min(baseline_requests),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_baseline_after_the_cap_counts_as_failed() {
        let mut latency = Histogram::default();
        for micros in [10_000, 700_000, 2_000_000] {
            latency.record(micros);
        }
        let baseline = ArmBatch { latency, failed_answers: 1, ..ArmBatch::default() };
        let (at, weight) = (Timestamp::default(), Weight::from_percent(50));
        let (source, candidate) = ("proxy".to_owned(), baseline.clone());
        let batch = Batch { at, source, sequence: 1, weight, candidate, baseline };
        let failed = |counts: ErrorCounts| (counts.candidate_failed, counts.baseline_failed);
        assert_eq!(failed(batch.errors(5_000_000)), (1, 1));
        assert_eq!(failed(batch.errors(500_000)), (1, 3));
        assert_eq!(failed(batch.errors(0)), (1, 3), "no more than there were");
    }
}
